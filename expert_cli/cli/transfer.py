"""What is told while bytes travel: how many, how fast, how long still. Nothing of small files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from expert_cli import paths, show, store
from expert_cli.cli.archives import TOLD_FROM
from expert_cli.sources import remote
from expert_cli.store import Installed

if TYPE_CHECKING:
    from expert_cli.index.client import Index
    from expert_cli.sources.resolve import Candidate, Offered

index_option = click.option(
    "--index", "urls", multiple=True, envvar="EXPERT_INDEX",
    help="Look in this trusted index alone; may be repeated.  [default: those in $EXPERT_INDEX, or all]",
)  # fmt: skip
no_index_option = click.option("--no-index", is_flag=True, help="Look in no index.")


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


def indexes(urls: Sequence[str], without: bool = False) -> list[Index]:
    """The trusted indexes, or those named; nothing of them is imported where there are none.

    Raises:
        UsageError: one is named that is not trusted.
    """
    if without or not (urls or (paths.home() / "indexes.json").is_file()):
        return []
    from expert_cli.index import offers

    return offers.opened(urls)


def offered(wanted: Iterable[str], there: Sequence[Index]) -> Offered:
    """What indexes have of ``wanted``, names with versions; says where an index was not reached.

    Raises:
        VerificationError: what an index serves must not be trusted.
        ExpertError: an index cannot be reached, and what is known of it is too old.
    """
    from expert_cli.sources.resolve import Offered

    if not there:
        return Offered()
    from expert_cli.index import offers

    found = offers.offers(there, wanted)
    for index in there:
        if index.offline:
            show.note(f"{index.known.url} cannot be reached; going by what was verified last, good until "
                      f"{index.expires:%Y-%m-%d}", "bold yellow")  # fmt: skip
    return found


@contextmanager
def brought(found: Sequence[Candidate]) -> Iterator[list[store.Request]]:
    """What to install of ``found``; what indexes offer is downloaded, and dropped afterwards."""
    requests, came = list[store.Request](), list[Path]()
    try:
        for one in found:
            if one.offer is None:
                if one.path is not None:
                    requests.append(store.Request(one.path, str(one.path.resolve())))
                continue
            if not one.offer.sha256:
                far = fetched(one.offer.source)
                came.append(far.path)
                requests.append(store.Request(far.path, far.source))
                continue
            from expert_cli.index import offers

            for word, reason in (("yanked", one.offer.yanked), ("deprecated", one.offer.deprecated)):
                if reason:
                    show.note(f"WARNING: {one.name} {one.version} is {word}: {show.plain(reason)}", "bold yellow")
            with travelling(one.offer.source) as tell:
                path = offers.fetch(one.offer, tell)
            if str(path) != one.offer.source:
                came.append(path)
            requests.append(store.Request(path, one.offer.source, one.offer.digest))
        yield requests
    finally:
        for path in came:  # the store has it now, or nobody should
            path.unlink(missing_ok=True)


def remarks(entries: Sequence[Installed]) -> dict[str, str]:
    """What the trusted indexes were last known to say against installed experts, by name; nothing is asked of them."""
    known = indexes(())
    if not known:
        return {}
    from expert_cli.index import offers

    return offers.remarks(((one.name, one.version) for one in entries), known, lambda index, name: index.kept(name))
