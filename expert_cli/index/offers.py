"""What indexes offer for what is wanted, and getting it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from packaging.version import Version

from expert_cli import paths
from expert_cli.digests import sha256_of
from expert_cli.errors import ExpertError, VerificationError
from expert_cli.index.client import Index
from expert_cli.index.document import Document, Release
from expert_cli.sources import download, http, web
from expert_cli.sources.download import Progress, Wanted
from expert_cli.sources.resolve import Candidate, Offer, Offered, parse


def offers(indexes: Sequence[Index], wanted: Iterable[str]) -> Offered:
    """Every release of what is wanted and of what that requires; yanked ones only where ``==`` names them.

    Raises:
        UsageError: a requirement is malformed.
        VerificationError: what an index serves must not be trusted.
        ExpertError: an index cannot be reached, and its grace is over.
    """
    found: list[Candidate] = []
    yanked = set[tuple[str, str]]()
    texts, seen = [*wanted], set[str]()
    exact = {
        (one.name, Version(part.version))
        for one in map(parse, texts)
        for part in one.specifier
        if part.operator == "==" and not part.version.endswith(".*")
    }
    while texts:
        name = parse(texts.pop()).name
        if name in seen:
            continue
        seen.add(name)
        for index in indexes:
            known = index.document(name)
            for release in known.releases if known else ():
                if release.yanked and (name, Version(release.version)) not in exact:
                    yanked.add((name, release.version))
                    continue
                found.append(_candidate(index, known, release))
                texts += release.requires
    return Offered(tuple(found), frozenset(yanked))


def _candidate(index: Index, known: Document | None, release: Release) -> Candidate:
    assert known is not None
    offer = Offer(
        f"{index.known.url}/packages/{release.file}", release.sha256, release.size, release.digest, release.yanked,
        known.notice,
    )  # fmt: skip
    return Candidate(known.name, release.version, release.base, release.requires, None, offer)


def fetch(offer: Offer, progress: Progress | None = None) -> Path:
    """The archive that an index offers, of the size and sha256 that the index says.

    Raises:
        VerificationError: what is served is another file.
        ExpertError: it cannot be had.
    """
    name = offer.source.rpartition("/")[2]
    if offer.source.startswith(("http://", "https://")):
        target = web.place(offer.source, name, paths.cache() / "downloads")
        wanted = Wanted(offer.source, offer.size, offer.sha256, access=http.access(offer.source))
        return download.fetch(wanted, target, progress)
    path = Path(offer.source)
    if not path.is_file():
        raise ExpertError(f"{path} is in the index and not in its folder; tell the index's owner")
    if path.stat().st_size != offer.size or sha256_of(path) != offer.sha256:
        raise VerificationError(f"{path} is not the file that the index names; tell the index's owner, do not use it")
    return path


def remarks(
    entries: Iterable[tuple[str, str]], indexes: Sequence[Index], read: Callable[[Index, str], Document | None]
) -> dict[str, str]:
    """What indexes say against installed experts, by name: that a version was yanked, that an expert is deprecated."""
    said: dict[str, str] = {}
    for name, version in entries:
        for index in indexes:
            known = read(index, name)
            if known is None:
                continue
            yanked = next((one.yanked for one in known.releases if _same(one, version) and one.yanked), "")
            told = [f"yanked: {yanked}"] * bool(yanked) + [f"deprecated: {known.notice}"] * bool(known.deprecated)
            if told:
                said[name] = "; ".join(told)
                break
    return said


def _same(release: Release, version: str) -> bool:
    return Version(release.version) == Version(version)


def opened(urls: Collection[str] = ()) -> list[Index]:
    """The trusted indexes, or those of them that are named.

    Raises:
        UsageError: one is named that is not trusted.
    """
    from expert_cli.index import client

    return [Index(one) for one in (map(client.find, urls) if urls else client.listed())]
