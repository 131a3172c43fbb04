"""Archives that lie elsewhere: which source a text names, and how to get what it means.

    https://host/path/file.expert               a file, with the .sha256 beside it
    github:owner/repo[@tag][#file]              an asset of a GitHub release
    hub:owner/repo[@revision][#file]            a file of a model repository on the hub
    oci://host/repository[:tag|@sha256:...]     an artifact in a registry
    git+https://host/repository[@ref][#path]    a file at a commit

What is fetched is as its source published it, and no more: ``store.install`` decides whether it may be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from expert_cli.errors import UsageError

if TYPE_CHECKING:
    from expert_cli.sources.download import Progress

PREFIXES = ("https://", "http://", "github:", "hub:", "oci://", "git+")


@dataclass(frozen=True)
class Fetched:
    """A file, and what names the very same again: a digest or commit where a tag was asked for."""

    path: Path
    source: str


def is_remote(text: str) -> bool:
    """Whether ``text`` names something that lies elsewhere."""
    return text.startswith(PREFIXES)


def fetch(text: str, into: Path, progress: Progress | None = None, *, bases: Sequence[str] = ()) -> Fetched:
    """Download what ``text`` names into the folder ``into``, going on where an earlier attempt ended.

    ``bases`` are the base models that are here, the preferred first, for sources that offer a variant for each.

    Raises:
        UsageError: it is malformed, or names none or several archives.
        ExpertError: it cannot be had.
        VerificationError: it is not what its source says it is.
    """
    if not is_remote(text):
        raise UsageError(f"{text!r} is none of {', '.join(PREFIXES)}; name one of these, or a file")
    from expert_cli.sources import git, github, hub, oci, web  # HTTP takes 50 ms to import and a file needs none

    path: Path
    location: github.Location | hub.Location | oci.Location | git.Location
    if text.startswith(github.PREFIX):
        path, location = github.fetch(github.Location.parse(text), into, bases, progress)
    elif text.startswith(hub.PREFIX):
        path, location = hub.fetch(hub.Location.parse(text), into, bases, progress)
    elif text.startswith(oci.PREFIX):
        path, location = oci.fetch(oci.Location.parse(text), into, progress)
    elif text.startswith(git.PREFIX):
        path, location = git.fetch(git.Location.parse(text), into, bases, progress)
    else:
        return Fetched(web.fetch(text, into, progress), text)
    return Fetched(path, str(location))
