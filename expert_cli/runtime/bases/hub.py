"""Files from the Hugging Face Hub, by its HTTP protocol: resumed, verified, and cached by sha256.

A file appears in the cache only after its size and sha256 were checked. ``$HF_ENDPOINT`` names another hub,
``$HF_TOKEN`` a token, which is sent to that hub alone; ``$EXPERT_OFFLINE`` or ``$HF_HUB_OFFLINE`` forbid the network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from expert_cli import paths
from expert_cli.errors import BaseModelError, ExpertError
from expert_cli.manifest import BaseFile
from expert_cli.sources import download, http, hub
from expert_cli.sources.download import Progress, Wanted

__all__ = ["Location", "Progress", "cached", "fetch"]


@dataclass(frozen=True)
class Location:
    """A file of a repository at a revision: ``hf://owner/repo/file@revision``."""

    repository: str
    file: str
    revision: str

    @classmethod
    def parse(cls, source: str) -> Self:
        """Read an ``hf://`` source.

        Raises:
            BaseModelError: it has another form.
        """
        found = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)/([\w./-]+)@([\w.-]+)", source)
        if not found or any(part in ("", ".", "..") for part in source.removeprefix("hf://").split("/")):
            raise BaseModelError(f"source {source!r} is not hf://owner/repo/file@revision; correct the base manifest")
        return cls(*found.groups())

    @property
    def url(self) -> str:
        """Where the hub serves the file."""
        return hub.address(self.repository, self.revision, self.file)


def cached(file: BaseFile) -> Path | None:
    """The file in the cache, where it was verified; None if it was never fetched."""
    path = paths.cache() / "hub" / file.sha256
    return path if path.is_file() and path.stat().st_size == file.size else None


def fetch(
    file: BaseFile, location: Location, progress: Progress | None = None, *, stall: float = http.STALL_SECONDS
) -> Path:
    """The file in the cache, downloaded if need be; ``stall`` is the longest silence in seconds.

    Raises:
        BaseModelError: the network is forbidden or fails, or the hub serves another file than the manifest names.
    """
    if here := cached(file):
        return here
    wanted = Wanted(location.url, file.size, file.sha256, access=hub.access())
    try:
        return download.fetch(wanted, paths.cache() / "hub" / file.sha256, progress, stall=stall)
    except ExpertError as problem:
        raise BaseModelError(f"{file.name}: {problem}") from problem
