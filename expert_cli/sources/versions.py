"""Newer versions where an installed expert came from: other releases, other tags, other files of its folder.

What a file or tag is called says name, base and version; what it holds is looked at when it is installed. A bare
address on a web server lists nothing, so nothing newer is found there: its publisher may offer an index.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from packaging.version import InvalidVersion, Version

from expert_cli import paths
from expert_cli.sources.resolve import Candidate, Offer
from expert_cli.store import Installed


def newer(entry: Installed) -> list[Candidate]:
    """Newer versions of ``entry`` at its source, for any base.

    Raises:
        ExpertError: the source cannot be reached, or refuses.
    """
    from expert_cli.sources import git, github, hub, oci  # HTTP takes 50 ms to import

    found: Iterator[Candidate] = iter(())
    if entry.source.startswith(github.PREFIX):
        found = _releases(entry, github.Location.parse(entry.source))
    elif entry.source.startswith(oci.PREFIX):
        found = _tags(entry, oci.Location.parse(entry.source))
    elif entry.source.startswith(hub.PREFIX):
        found = _models(entry, hub.Location.parse(entry.source))
    elif entry.source.startswith(git.PREFIX):
        found = _files(entry, git.Location.parse(entry.source))
    return [one for one in found if one.parsed > Version(entry.version)]


def named(entry: Installed, file: str, source: str) -> Candidate | None:
    """The expert that a file of this name holds by convention, where it is another version of ``entry``."""
    match = re.fullmatch(rf"expert-{re.escape(entry.name)}-([a-z0-9.-]+)\.v([A-Za-z0-9.!+]+)\.expert", file)
    return _candidate(entry, match[1], match[2], source) if match else None


def _candidate(entry: Installed, base: str, version: str, source: str) -> Candidate | None:
    try:
        Version(version)
    except InvalidVersion:
        return None
    return Candidate(entry.name, version, base, (), None, Offer(source))


def _releases(entry: Installed, here: object) -> Iterator[Candidate]:
    from expert_cli.sources import github

    assert isinstance(here, github.Location)
    for release in github.Api(here.repository).releases():
        for asset in release.assets:
            known = named(entry, asset.name, str(github.Location(here.repository, release.tag, asset.name)))
            if known and asset.complete and not release.draft:
                yield known


def _tags(entry: Installed, here: object) -> Iterator[Candidate]:
    from expert_cli.sources import oci

    assert isinstance(here, oci.Location)
    for tag in oci.Registry(here).tags():
        # a tag is a version, or a version and its base
        version, _, base = tag.partition("-")
        known = _candidate(entry, base or entry.base, version.removeprefix("v"), str(here.at(tag)))
        if known:
            yield known


def _models(entry: Installed, here: object) -> Iterator[Candidate]:
    from expert_cli.sources import hub

    assert isinstance(here, hub.Location)
    parent = PurePosixPath(here.file).parent
    commit, files = hub.listing(hub.Location(here.repository))
    for path in (PurePosixPath(one.path) for one in files):
        known = named(entry, path.name, str(hub.Location(here.repository, commit, str(path))))
        if known and path.parent == parent:
            yield known


def _files(entry: Installed, here: object) -> Iterator[Candidate]:
    from expert_cli.sources import git

    assert isinstance(here, git.Location)
    parent = PurePosixPath(here.path).parent
    with tempfile.TemporaryDirectory(prefix=".git.", dir=_made(paths.cache())) as folder:
        commit, files = git.listing(here, Path(folder))
    for path in map(PurePosixPath, files):
        known = named(entry, path.name, str(git.Location(here.url, commit, str(path))))
        if known and path.parent == parent:
            yield known


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
