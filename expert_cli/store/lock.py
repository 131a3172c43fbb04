"""``expert.lock``: which experts are installed, by name and digest. Copied, it says what to install elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from expert_cli import paths
from expert_cli.errors import ManifestError
from expert_cli.manifest import ExpertManifest, load_expert, parse_json

FORMAT = 1
NAME = "expert.lock"


@dataclass(frozen=True)
class Installed:
    """An installed expert: ``digest`` is the sha256 of its signature.json in hex, times are RFC 3339 in UTC.

    ``signers`` are key ids, and empty where ``--allow-unsigned`` let it in.
    """

    name: str
    version: str
    digest: str
    base: str
    base_sha256: str
    created: str
    requires: tuple[str, ...]
    signers: tuple[str, ...]
    source: str
    installed: str

    @property
    def folder(self) -> Path:
        """Where its members lie as files."""
        return paths.home() / "store" / "packages" / self.digest

    @cached_property
    def manifest(self) -> ExpertManifest:
        """Its manifest.

        Raises:
            ManifestError: the file was damaged after installation.
        """
        return load_expert(self.folder / "manifest.json")

    @property
    def unsigned(self) -> bool:
        """Whether nobody vouches for it."""
        return not self.signers


def dump(experts: Iterable[Installed]) -> bytes:
    """The content of a lock file."""
    entries = [asdict(entry) for entry in sorted(experts, key=lambda entry: entry.name)]
    return (json.dumps({"format": FORMAT, "experts": entries}, indent=1) + "\n").encode()


def load(path: Path) -> Mapping[str, Installed]:
    """The entries of a lock file by name.

    Raises:
        ManifestError: it is missing or malformed.
    """
    try:
        data = parse_json(path.read_bytes(), str(path))
        if data["format"] != FORMAT:
            raise ManifestError(str(path), [f"format {data['format']} is not {FORMAT}; upgrade expert-cli to read it"])
        names = [field.name for field in fields(Installed)]
        entries = []
        for entry in data["experts"]:
            values: dict[str, Any] = {name: entry[name] for name in names}
            lists = {name: tuple(values[name]) for name in ("requires", "signers")}
            entries.append(Installed(**values | lists))
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise ManifestError(str(path), [f"unreadable ({problem!r}); go back with: expert-cli rollback"]) from problem
    return {entry.name: entry for entry in entries}
