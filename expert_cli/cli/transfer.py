"""What is told while bytes travel: how many, how fast, how long still. Nothing of small files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from expert_cli import show
from expert_cli.cli.archives import TOLD_FROM


@contextmanager
def travelling(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yields what to call with the bytes that came and the bytes there are, 0 where that is unknown."""
    with ExitStack() as opened:
        bars: dict[int, Callable[[int, str], None]] = {}
        begun: dict[int, tuple[float, int]] = {}

        def tell(here: int, size: int) -> None:
            if size < TOLD_FROM:
                return
            if size not in bars:
                bars[size] = opened.enter_context(show.progress(label, size >> 20))
                begun[size] = (time.monotonic(), here)
            since, first = begun[size]
            rate = (here - first) / max(time.monotonic() - since, 0.001)
            bars[size](here >> 20, f"MiB, {rate / (1 << 20):.1f} MiB/s")

        yield tell
