"""What is told while bytes travel: how many, how fast, how long still. Nothing of small files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from expert_cli import paths, show
from expert_cli.cli.archives import TOLD_FROM
from expert_cli.sources import remote


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


def fetched(text: str) -> remote.Fetched:
    """Download what ``text`` names, the variant for a base that is here where there are several.

    Raises:
        ExpertError: as ``remote.fetch`` does.
    """
    from expert_cli.runtime import bases

    known = sorted(bases.available(), key=lambda base: not base.here("gguf"))
    with travelling(text) as tell:
        return remote.fetch(text, paths.cache() / "downloads", tell, bases=[base.manifest.id for base in known])
