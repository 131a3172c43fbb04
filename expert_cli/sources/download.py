"""Whole files over HTTP: resumed exactly, bounded, verified, and revealed by one replace.

What arrived lies in ``<name>.part``, what is known of it in ``<name>.part.json``: the address, the ETag, the expected
size and sha256. A part is continued only where that proves it to be of the same file: by its sha256, or by If-Range.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from expert_cli.digests import sha256_of
from expert_cli.errors import ExpertError, VerificationError
from expert_cli.sources import http
from expert_cli.sources.http import Access, CutError, Response

Progress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes that there are, 0 where that is unknown."""

LIMIT = 8 << 30
"""Bytes of the largest file, those of the largest archive."""
ENOUGH = 64 << 10
"""Bytes that an attempt has to bring to count as progress."""


@dataclass(frozen=True)
class Wanted:
    """A file at ``url``, with its ``size`` and ``sha256`` where they are published."""

    url: str
    size: int | None = None
    sha256: str = ""
    limit: int = LIMIT
    access: Access = field(default_factory=Access)


@dataclass
class Part:
    """A file that is not complete yet, and the metadata beside it."""

    path: Path
    wanted: Wanted
    etag: str = ""
    size: int | None = None

    @classmethod
    def load(cls, target: Path, wanted: Wanted) -> Part:
        """What an earlier attempt left of ``target``; dropped where it may be of another file."""
        part = cls(target.with_name(f"{target.name}.part"), wanted, size=wanted.size)
        try:
            known: dict[str, Any] = json.loads(part.metadata.read_bytes())
            same = known["url"] == wanted.url
            if known["sha256"] == wanted.sha256 and (same or wanted.sha256):
                part.etag = str(known["etag"]) if same else ""
                part.size = known["size"] if wanted.size is None else wanted.size
                return part
        except (FileNotFoundError, ValueError, KeyError):
            pass  # never begun, or killed while it was described
        part.forget()
        return part

    @property
    def metadata(self) -> Path:
        """The file that describes the part."""
        return self.path.with_name(f"{self.path.name}.json")

    @property
    def here(self) -> int:
        """Bytes that arrived."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def resumable(self) -> int:
        """The offset to go on from; 0 where the part is too long or cannot be proven to be of the same file."""
        if (self.size is not None and self.here > self.size) or not (self.etag or self.wanted.sha256):
            self.forget()
        return self.here

    def describe(self, etag: str, size: int | None) -> None:
        """Keep what the server said of the file."""
        self.etag = etag if etag.startswith('"') and etag.isascii() else ""  # a weak tag does not fix the bytes
        self.size = size
        known = {"url": self.wanted.url, "etag": self.etag, "size": size, "sha256": self.wanted.sha256}
        self.metadata.write_text(json.dumps(known), encoding="ascii")

    def forget(self) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self.metadata.unlink(missing_ok=True)
        self.etag, self.size = "", self.wanted.size


def fetch(wanted: Wanted, target: Path, progress: Progress | None = None, *, stall: float = http.STALL_SECONDS) -> Path:
    """Download a file to ``target``; ``stall`` is the longest silence in seconds.

    Raises:
        ExpertError: the network is forbidden or fails, or the disk is full. What arrived is kept.
        VerificationError: the server gives another file than was published, or one over the limit.
    """
    with _disk(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not (wanted.sha256 and target.is_file() and sha256_of(target) == wanted.sha256):
                _download(wanted, target, progress, stall)
    return target


def _download(wanted: Wanted, target: Path, progress: Progress | None, stall: float) -> None:
    part = Part.load(target, wanted)
    failures = 0
    while part.size is None or part.here != part.size:
        before = part.here
        try:
            _attempt(wanted, part, progress, stall)
        except CutError as cut:
            failures = 1 if part.here >= before + ENOUGH else failures + 1
            if failures >= http.ATTEMPTS:
                size = "an unknown number" if part.size is None else part.size
                raise ExpertError(
                    f"{wanted.url}: {cut}; {part.here} of {size} bytes are here: run it again to go on"
                ) from cut
            if part.here < before + ENOUGH:
                time.sleep(http.PAUSE_SECONDS * 2**failures)
    if wanted.sha256 and (found := sha256_of(part.path)) != wanted.sha256:
        part.forget()
        raise VerificationError(
            f"{wanted.url}: its sha256 is not {wanted.sha256} but {found}; nothing was kept: tell its publisher"
        )
    if not part.path.exists():
        part.path.touch()  # an empty file
    with part.path.open("rb+") as written:
        os.fsync(written.fileno())
    part.path.replace(target)
    part.forget()


def _attempt(wanted: Wanted, part: Part, progress: Progress | None, stall: float) -> None:
    """Append to the part what is missing, or start it again where the server does not resume."""
    start = part.resumable()
    headers = {}
    if start:
        headers["Range"] = f"bytes={start}-"
        if part.etag:
            headers["If-Range"] = part.etag
    with http.ask(wanted.url, wanted.access, headers=headers, stall=stall) as response:
        start, size = _begin(wanted, part, response, start)
        body = response.chunks()
        first = next(body, b"")  # an encoded body is refused before anything is written
        if not start:
            part.forget()  # first, lest a kill leaves the old bytes under the new description
        part.describe(response.headers.get("ETag", ""), size)
        with part.path.open("r+b" if start else "wb") as target:
            target.seek(start)
            _write(wanted, target, first, size, progress)
            for chunk in body:
                _write(wanted, target, chunk, size, progress)
            target.truncate()
            if size is not None and target.tell() < size:
                raise CutError("the connection ended early")
            part.size = target.tell()


def _write(wanted: Wanted, target: Any, chunk: bytes, size: int | None, progress: Progress | None) -> None:
    limit = wanted.limit if size is None else min(size, wanted.limit)
    if target.tell() + len(chunk) > limit:
        raise VerificationError(f"{wanted.url}: more than the {limit} bytes that may come; tell its publisher")
    target.write(chunk)
    if progress:
        progress(target.tell(), size or 0)


def _begin(wanted: Wanted, part: Part, response: Response, start: int) -> tuple[int, int | None]:
    """The offset at which the body begins, and the size of the file where the server tells.

    Raises:
        CutError: it must be asked again.
        VerificationError: the response cannot be the file.
        ExpertError: it is refused.
    """
    status, headers = response.status, response.headers
    if status == 206:
        answer = headers.get("Content-Range", "no Content-Range")
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer)
        if not found or not start or int(found[1]) != start:
            raise VerificationError(
                f"{wanted.url}: asked for bytes from {start}, got {answer[:60]}; use another mirror"
            )
        size = part.size if found[3] == "*" else int(found[3])
        if (part.etag and headers.get("ETag", part.etag) != part.etag) or part.size not in (None, size):
            part.forget()
            raise CutError("the file changed meanwhile")
        return start, size
    if status == 416:
        part.forget()
    if status >= 500 or status in (408, 416, 429):
        raise CutError(f"HTTP {status}")
    if status != 200:
        raise ExpertError(f"{wanted.url}: HTTP {status}; {wanted.access.advice}")
    length = headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else wanted.size
    if wanted.size not in (None, size):
        raise VerificationError(f"{wanted.url}: {size} bytes where {wanted.size} were announced; tell its publisher")
    if size is not None and size > wanted.limit:
        raise VerificationError(f"{wanted.url}: {size} bytes, at most {wanted.limit} may come; check the address")
    return 0, size


@contextmanager
def _disk(target: Path) -> Iterator[None]:
    """What the file system refuses, told as such."""
    try:
        yield
    except OSError as problem:
        raise ExpertError(
            f"{target} cannot be written: {problem.strerror or problem}; make room or allow it"
        ) from problem
