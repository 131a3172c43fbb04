"""One stream of bytes to several consumers, in a thread beside the one that makes it.

Decompressing takes about as long as hashing and writing together, and all three leave the interpreter's lock: two
threads on two processors are as fast as it gets. One thread for each consumer was slower there, since they take the
processor, and the lock, from the decompression that everything waits for. The queue is short: memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Event

from expert_cli.errors import ExpertError

Chunks = list[bytes | memoryview]
Consumer = Callable[[bytes | memoryview], object]

TOGETHER = 1 << 20
"""Bytes that are handed over at once: waking a thread costs as much as hashing 20 KB."""
DEPTH = 6
"""Hand-overs that may wait for the consumers."""


def feed(chunks: Iterable[bytes | memoryview], consumers: Sequence[Consumer]) -> None:
    """Hand every chunk to every consumer, in order; stop early when one of them raises, and raise what it raised."""
    stop = Event()
    queue: Queue[Chunks | None] = Queue(DEPTH)
    with ThreadPoolExecutor(1, "archive") as pool:
        work = pool.submit(_drain, queue, consumers, stop)
        try:
            for some in _together(chunks):
                if stop.is_set():
                    break
                queue.put(some)
        finally:
            queue.put(None)
    work.result()


def _together(chunks: Iterable[bytes | memoryview]) -> Iterator[Chunks]:
    some: Chunks = []
    size = 0
    for chunk in chunks:
        some.append(chunk)
        size += len(chunk)
        if size >= TOGETHER:
            yield some
            some, size = [], 0
    if some:
        yield some


def _drain(queue: Queue[Chunks | None], consumers: Sequence[Consumer], stop: Event) -> None:
    """Consume until the end mark. After a failure the queue is still emptied, so that nobody waits for room in it."""
    problem: ExpertError | OSError | None = None
    while (some := queue.get()) is not None:
        if problem is None:
            try:
                for consumer in consumers:
                    for chunk in some:
                        consumer(chunk)
            except (ExpertError, OSError) as fault:
                problem = fault
                stop.set()
    if problem:
        raise problem
