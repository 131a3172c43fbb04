"""Archives that lie elsewhere: which source a text names, and how to get what it means.

    https://host/path/file.expert               a file, with the .sha256 beside it
    github:owner/repo[@tag][#file]              an asset of a GitHub release
    oci://host/repository[:tag|@sha256:...]     an artifact in a registry
    git+https://host/repository[@ref][#path]    a file at a commit

What is fetched is as its source published it, and no more: ``store.install`` decides whether it may be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from expert_cli.errors import UsageError
from expert_cli.sources import git, github, oci, web
from expert_cli.sources.download import Progress


@dataclass(frozen=True)
class Fetched:
    """A file, and what names the very same again: a digest or commit where ``wanted`` was a tag."""

    path: Path
    source: str


def _web(text: str, into: Path, bases: Sequence[str], progress: Progress | None) -> Fetched:
    return Fetched(web.fetch(text, into, progress), text)


def _github(text: str, into: Path, bases: Sequence[str], progress: Progress | None) -> Fetched:
    path, location = github.fetch(github.Location.parse(text), into, bases, progress)
    return Fetched(path, str(location))


def _oci(text: str, into: Path, bases: Sequence[str], progress: Progress | None) -> Fetched:
    path, location = oci.fetch(oci.Location.parse(text), into, progress)
    return Fetched(path, str(location))


def _git(text: str, into: Path, bases: Sequence[str], progress: Progress | None) -> Fetched:
    path, location = git.fetch(git.Location.parse(text), into, bases, progress)
    return Fetched(path, str(location))


_SOURCES: dict[str, Callable[[str, Path, Sequence[str], Progress | None], Fetched]] = {
    "https://": _web,
    "http://": _web,
    github.PREFIX: _github,
    oci.PREFIX: _oci,
    git.PREFIX: _git,
}


def is_remote(text: str) -> bool:
    """Whether ``text`` names something that lies elsewhere."""
    return text.startswith(tuple(_SOURCES))


def fetch(text: str, into: Path, progress: Progress | None = None, *, bases: Sequence[str] = ()) -> Fetched:
    """Download what ``text`` names into the folder ``into``, going on where an earlier attempt ended.

    ``bases`` are the base models that are here, the preferred first, for sources that offer a variant for each.

    Raises:
        UsageError: it is malformed, or names none or several archives.
        ExpertError: it cannot be had.
        VerificationError: it is not what its source says it is.
    """
    for prefix, source in _SOURCES.items():
        if text.startswith(prefix):
            return source(text, into, bases, progress)
    raise UsageError(f"{text!r} is none of {', '.join(_SOURCES)}; name one of these, or a file")
