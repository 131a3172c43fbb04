"""One stream of bytes to several consumers, each in a thread of its own.

Decompressing, hashing, checking and writing all leave the interpreter's lock, so that together they take little longer
than the slowest of them. Queues are short: memory stays bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from queue import Queue
from threading import Event

from expert_cli.errors import ExpertError

Chunks = list[bytes | memoryview]
Consumer = Callable[[bytes | memoryview], object]

TOGETHER = 1 << 20
"""Bytes that are handed over at once: waking a thread costs as much as hashing 20 KB."""
DEPTH = 6
"""Hand-overs that may wait for a consumer."""


def feed(chunks: Iterable[bytes | memoryview], consumers: Sequence[Consumer]) -> None:
    """Hand every chunk to every consumer, in order; stop early when one of them raises, and raise what it raised."""
    stop = Event()
    queues: list[Queue[Chunks | None]] = [Queue(DEPTH) for _ in consumers]
    with ThreadPoolExecutor(max(1, len(consumers)), "archive") as pool, ExitStack() as ends:
        work = [pool.submit(_drain, queue, one, stop) for queue, one in zip(queues, consumers, strict=True)]
        for queue in queues:
            ends.callback(queue.put, None)
        for some in _together(chunks):
            if stop.is_set():
                break
            for queue in queues:
                queue.put(some)
    for future in work:
        future.result()


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


def _drain(queue: Queue[Chunks | None], consumer: Consumer, stop: Event) -> None:
    """Consume until the end mark. A consumer that failed goes on emptying its queue, so that nobody waits for it."""
    problem: ExpertError | OSError | None = None
    while (some := queue.get()) is not None:
        if problem is None:
            try:
                for chunk in some:
                    consumer(chunk)
            except (ExpertError, OSError) as fault:
                problem = fault
                stop.set()
    if problem:
        raise problem
