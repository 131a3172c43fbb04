"""What may be published, and what publishing it means: steps, each said before it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from packaging.version import Version

from expert_cli import archive
from expert_cli.archive import Archive
from expert_cli.digests import sha256_of
from expert_cli.errors import UsageError
from expert_cli.manifest import parse_json
from expert_cli.sources import web
from expert_cli.trust import Trust

Tell = Callable[[int, int], None]
"""Called with the bytes that were sent and the bytes that there are."""


@dataclass(frozen=True)
class Package:
    """An archive that may be published; ``sha256`` is that of the file."""

    path: Path
    sha256: str
    archive: Archive

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    @property
    def sums(self) -> bytes:
        """The content of the ``.sha256`` beside it."""
        return f"{self.sha256}  {self.name}\n".encode()


@dataclass(frozen=True)
class Step:
    """Something to be done, in words and in deed."""

    text: str
    do: Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """The steps still to be done, and under which name the package can be installed after them."""

    source: str
    steps: tuple[Step, ...]


def ready(path: Path, trust: Trust, progress: archive.Progress = lambda _: None) -> Package:
    """Check that an archive may be published.

    Raises:
        VerificationError: it is damaged, unsigned, or signed by nobody in ``trust``.
        UsageError: it was never evaluated, or is not what its name, its ``.sha256`` or its report say.
    """
    found = archive.verify(path, trust, progress=progress)
    if path.name != found.manifest.filename:
        raise UsageError(f"{path.name} holds {found.manifest.filename}; give it that name, then publish it")
    if Version(found.manifest.version).local:
        raise UsageError(f"{path.name} has the local version {found.manifest.version}; package it under a public one")
    digest = sha256_of(path)
    beside = path.with_name(f"{path.name}.sha256")
    if beside.is_file() and web.digest_of(path.name, beside.read_bytes(), beside.name) != digest:
        raise UsageError(f"{beside} is of another file; sign the archive again, which writes it anew")
    if fault := unevaluated(found):
        raise UsageError(f"{path.name} was never evaluated: {fault}; train and package it with an evaluation")
    return Package(path, digest, found)


def unevaluated(found: Archive) -> str:
    """Why an archive's report does not vouch for its adapter; empty where it does."""
    report = parse_json(found.texts["report.json"], "report.json")
    if report.get("kind") != "training":
        return "its report is not of a training"
    packed, expert = _mapping(report.get("packed")), found.manifest
    stated = (report.get("expert"), report.get("version"), _mapping(report.get("base")).get("sha256"))
    if stated != (expert.name, expert.version, expert.base_sha256):
        return f"its report is of {stated[0]} {stated[1]} on another base or under another version"
    adapter = next(member.sha256 for member in found.members if member.name == archive.WEIGHTS)
    if packed.get("adapter_sha256") != adapter:
        return "its report is of another adapter"
    rows = report.get("checkpoints")
    for row in map(_mapping, rows if isinstance(rows, list) else ()):
        accuracy, cases = row.get("execution_accuracy"), row.get("n")
        counted = isinstance(accuracy, int | float) and isinstance(cases, int) and cases > 0
        if counted and row.get("adapter_sha256") == adapter:
            return ""
    return "its report has no accuracy of this adapter"


def run(plan: Plan, told: Callable[[str], None]) -> None:
    """Do the steps of a plan, each of them told before.

    Raises:
        ExpertError: a step failed; a new plan has what is left.
    """
    for step in plan.steps:
        told(step.text)
        step.do()


class Sent:
    """A file that tells how much of it was read to be sent."""

    def __init__(self, file: BinaryIO, size: int, tell: Tell | None) -> None:
        self._file = file
        self._size = size
        self._tell = tell

    def read(self, count: int = -1) -> bytes:
        """The next bytes."""
        data = self._file.read(count)
        if self._tell:
            self._tell(self._file.tell(), self._size)
        return data

    def seek(self, offset: int) -> int:
        """Go back, for another attempt."""
        return self._file.seek(offset)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
