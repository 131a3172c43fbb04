"""The document of one expert in an index: its releases, which of them were yanked, and whether it is deprecated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from packaging.version import InvalidVersion, Version

from expert_cli.errors import ManifestError, UsageError
from expert_cli.manifest import parse_json
from expert_cli.sources.resolve import parse as parse_wish

FORMAT = 1
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,150}\.expert")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Release:
    """One archive: ``sha256`` and ``size`` are the file's, ``digest`` the archive's; ``yanked`` says why, if it was."""

    version: str
    base: str
    file: str
    sha256: str
    size: int
    digest: str
    requires: tuple[str, ...] = ()
    yanked: str = ""


@dataclass(frozen=True)
class Document:
    """All releases of an expert; ``deprecated`` says why it is, if so, and ``replacement`` what to install instead."""

    name: str
    releases: tuple[Release, ...] = ()
    deprecated: str = ""
    replacement: str = ""

    @property
    def notice(self) -> str:
        """Why the expert is deprecated, and what to use; empty where it is not."""
        return self.deprecated + (f"; use {self.replacement} instead" if self.replacement else "")

    def add(self, release: Release) -> Document:
        """With one more release.

        Raises:
            UsageError: that version for that base is there with other bytes.
        """
        for one in self.releases:
            if (one.version, one.base) == (release.version, release.base):
                if one.sha256 != release.sha256:
                    raise UsageError(
                        f"the index has another {self.name} {one.version} for {one.base}, and what was published "
                        "stays; publish a new version"
                    )
                return self
        releases = sorted((*self.releases, release), key=lambda one: (Version(one.version), one.base))
        return replace(self, releases=tuple(releases))

    def yank(self, version: str, reason: str) -> Document:
        """With a version that is no longer chosen; an empty ``reason`` takes that back.

        Raises:
            UsageError: there is no such version.
        """
        if version not in {one.version for one in self.releases}:
            there = ", ".join(dict.fromkeys(one.version for one in self.releases))
            raise UsageError(f"the index has no {self.name} {version}; there is {there}")
        changed = (replace(one, yanked=reason) if one.version == version else one for one in self.releases)
        return replace(self, releases=tuple(changed))

    def deprecate(self, reason: str, replacement: str = "") -> Document:
        """Cared for no longer; an empty ``reason`` takes that back.

        Raises:
            UsageError: the replacement is no name with versions, or the expert itself, or comes without a reason.
        """
        if replacement:
            if not reason:
                raise UsageError(f"say why {self.name} is deprecated in favour of {replacement}, with --reason")
            if parse_wish(replacement).name == self.name:
                raise UsageError(f"{self.name} cannot replace itself; name another expert with --use")
        return replace(self, deprecated=reason, replacement=replacement)

    def dump(self) -> bytes:
        """The document's bytes."""
        data = {"format": FORMAT, **asdict(self)}
        if not self.replacement:
            del data["replacement"]  # so that a document is the same bytes as before there were any
        return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def parse(data: bytes, source: str) -> Document:
    """Read a document.

    Raises:
        ManifestError: it is malformed; with every fault.
    """
    content = parse_json(data, source)
    faults: list[str] = []
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ManifestError(source, [f"expected format {FORMAT}; upgrade expert-cli, or tell the index's owner"])
    name, rows = content.get("name"), content.get("releases")
    deprecated, replacement = content.get("deprecated", ""), content.get("replacement", "")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        faults.append("name: not an expert's name")
    if not isinstance(deprecated, str):
        faults.append("deprecated: not a text")
    if not isinstance(replacement, str) or not (replacement == "" or _is_wish(replacement)):
        faults.append("replacement: not a name with versions")
    if not isinstance(rows, list):
        faults.append("releases: not a list")
    releases = []
    for place, row in enumerate(rows if isinstance(rows, list) else []):
        wrong = list(_faults(row))
        faults += [f"releases.{place}.{fault}" for fault in wrong]
        if not wrong:
            releases.append(
                Release(row["version"], row["base"], row["file"], row["sha256"], row["size"], row["digest"],
                        tuple(row["requires"]), row["yanked"])
            )  # fmt: skip
    if faults:
        raise ManifestError(source, faults)
    return Document(str(name), tuple(releases), str(deprecated), str(replacement))


def _faults(row: Any) -> Iterator[str]:
    if not isinstance(row, Mapping):
        yield "not an object"
        return
    size = row.get("size")
    requires = row.get("requires")
    holds = {
        "version": _is_version(row.get("version")),
        "base": _matches(re.compile(".{1,64}"), row.get("base")),
        "file": _matches(_FILE, row.get("file")),
        "sha256": _matches(_SHA256, row.get("sha256")),
        "digest": _matches(_SHA256, row.get("digest")),
        "size": isinstance(size, int) and not isinstance(size, bool) and 0 < size < 1 << 40,
        "requires": isinstance(requires, list) and all(isinstance(one, str) for one in requires),
        "yanked": isinstance(row.get("yanked"), str),
    }
    yield from (f"{key}: missing or malformed" for key, good in holds.items() if not good)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_version(value: object) -> bool:
    try:
        return isinstance(value, str) and bool(Version(value))
    except InvalidVersion:
        return False


def _is_wish(text: str) -> bool:
    try:
        return bool(parse_wish(text))
    except UsageError:
        return False
