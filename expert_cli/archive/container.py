"""The bytes of an archive: one zstd frame around a strict ustar. It knows names and sizes, not experts.

A container has exactly one valid form. Every header read is rebuilt from the name and size it states and must equal
what was read, so nothing can hide in a field that a reader ignores. ``packaging/FORMAT.md`` is the specification.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from expert_cli.archive.frame import CHUNK, Readable, frame
from expert_cli.errors import ExpertError, VerificationError

LEVEL = 3
MAX_MEMBERS = 64
BLOCK = 512

_TYPES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a FIFO",
    b"7": "a contiguous file",
    b"x": "a PAX header",
    b"g": "a global PAX header",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"S": "a GNU sparse file",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One member while it streams: exhaust ``chunks`` (``size`` bytes in all) before asking for the next."""

    name: str
    size: int
    chunks: Iterator[memoryview]

    def read(self, limit: int) -> bytes:
        """The whole content.

        Raises:
            VerificationError: it is larger than ``limit`` bytes.
        """
        if self.size > limit:
            raise VerificationError(f"{self.name}: {self.size} bytes; at most {limit} are read{_NEXT}")
        return b"".join(self.chunks)


_NEXT = "; do not use this file, fetch it again from its publisher"


def checksum(block: bytes) -> int:
    """The sum that a tar header states: its own field counts as spaces."""
    return sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")


def name_fault(name: str) -> str:
    """Why ``name`` may not be a member's name; empty when it may."""
    rules = (
        (name in ("", "."), "an empty name"),
        (name.startswith("/"), "an absolute path"),
        (name == ".." or name.startswith("../") or "/.." in name, "a path through '..'"),
        ("\\" in name, "a backslash"),
        (":" in name, "a drive letter or stream (':')"),
        (any(unicodedata.category(char) in ("Cc", "Cf") for char in name), "a control or bidirectional character"),
        (name.count("/") > 7, "a path more than 8 deep"),
        ("/" in name, "a folder; the root is flat"),
        (not name.isascii(), "a character outside ASCII, which file systems normalise differently"),
        (_RESERVED.fullmatch(name), "a name that Windows reserves"),
        (name.endswith((".", " ")), "a trailing dot or space"),
        (len(name) > 100, "a name longer than 100 bytes"),
        (not _NAME.fullmatch(name), "a character outside [A-Za-z0-9._-]"),
    )
    return next((fault for found, fault in rules if found), "")


def header(name: str, size: int) -> bytes:
    """The only ustar header that a member of this name and size (in bytes) can have."""
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,
        f"{size:011o}\0".encode(),
        b"00000000000\0",
        b" " * 8 + b"0" + bytes(100),
        b"ustar\x0000" + bytes(64) + b"0000000\0" * 2,
        bytes(155 + 12),
    )
    block = b"".join(fields)
    return block[:148] + f"{checksum(block):06o}\0 ".encode() + block[156:]


def members(file: Readable) -> Iterator[Entry]:
    """The members of a container in one pass.

    Raises:
        VerificationError: at the first byte that a valid container could not hold.
    """
    stream = Stream(frame(file))
    seen: set[str] = set()
    while (block := stream.exactly(BLOCK)) != bytes(BLOCK):
        entry_name, size = _parse(block)
        if entry_name.lower() in seen:
            raise VerificationError(f"{entry_name}: a second member of this name, or one differing only in case{_NEXT}")
        seen.add(entry_name.lower())
        if len(seen) > MAX_MEMBERS:
            raise VerificationError(f"more than {MAX_MEMBERS} members{_NEXT}")
        chunks = stream.take(size)
        yield Entry(entry_name, size, chunks)
        if next(chunks, None) is not None:
            raise AssertionError(f"{entry_name} was not read to its end before the next member was asked for")
        if any(stream.exactly(-size % BLOCK)):
            raise VerificationError(f"{entry_name}: bytes hidden in the padding{_NEXT}")
    if stream.exactly(BLOCK) != bytes(BLOCK):
        raise VerificationError(f"the end mark is not two zero blocks{_NEXT}")
    stream.end()


def write(contents: Mapping[str, Path | bytes], target: Path) -> str:
    """Write a container of ``contents``, in the given order, to ``target`` at once; return its sha256 in hex.

    Raises:
        ExpertError: a name that cannot be packed, a file that changes while it is read, or a full disk.
    """
    import zstandard

    sizes = {name: len(data) if isinstance(data, bytes) else data.stat().st_size for name, data in contents.items()}
    for name in sizes:
        if fault := name_fault(name):
            raise ExpertError(f"{name!r} cannot be packed: {fault}; rename it")
    total = sum(BLOCK + size + -size % BLOCK for size in sizes.values()) + 2 * BLOCK
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, source_size=total, write_content_size=True, write_checksum=True, threads=0
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=total)
    digest = hashlib.sha256()
    handle, draft = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in _tar(contents, sizes):
                packed = compressor.compress(chunk)
                digest.update(packed)
                file.write(packed)
            packed = compressor.flush()
            digest.update(packed)
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(0o644)
        Path(draft).replace(target)
    finally:
        Path(draft).unlink(missing_ok=True)
    return digest.hexdigest()


def _parse(block: bytes) -> tuple[str, int]:
    """The name and size that a header states."""
    if block[148:156] != f"{checksum(block):06o}\0 ".encode():
        raise VerificationError(f"a member header with a bad checksum{_NEXT}")
    raw = block[345:500].rstrip(b"\0") + b"/" if block[345] and block[257:263] == b"ustar\0" else b""
    name = (raw + block[:100].split(b"\0")[0]).decode("utf-8", "surrogateescape")
    shown = ascii(name)[1:-1]
    if (kind := block[156:157]) != b"0":
        raise VerificationError(f"{shown}: {_TYPES.get(kind, f'member type {kind!r}')}, not a plain file{_NEXT}")
    if fault := name_fault(name):
        raise VerificationError(f"{shown or 'a member'}: {fault}{_NEXT}")
    if not re.fullmatch(rb"[0-7]{11}\0", block[124:136]):
        raise VerificationError(f"{shown}: a size that is negative or overflows{_NEXT}")
    if block[100:108] != b"0000644\0":
        raise VerificationError(f"{shown}: an executable, setuid or otherwise unusual mode{_NEXT}")
    size = int(block[124:135], 8)
    if block != header(name, size):
        raise VerificationError(f"{shown}: a header field (owner, time, link, device) that must be empty is not{_NEXT}")
    return name, size


def _tar(contents: Mapping[str, Path | bytes], sizes: Mapping[str, int]) -> Iterator[bytes]:
    for name, data in contents.items():
        yield header(name, sizes[name])
        written = 0
        for chunk in _chunks(data):
            written += len(chunk)
            yield chunk
        if written != sizes[name]:
            raise ExpertError(f"{name} changed while it was packed; try again when nothing writes to it")
        yield bytes(-written % BLOCK)
    yield bytes(2 * BLOCK)


def _chunks(data: Path | bytes) -> Iterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


class Stream:
    """Exact reads from decompressed blocks."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._pending = memoryview(b"")

    def take(self, count: int) -> Iterator[memoryview]:
        """The next ``count`` bytes in pieces.

        Raises:
            VerificationError: there are fewer.
        """
        while count:
            if not self._pending:
                block = next(self._blocks, None)
                if block is None:
                    raise VerificationError(f"the archive ends inside a member{_NEXT}")
                self._pending = memoryview(block)
            part = self._pending[:count]
            self._pending = self._pending[len(part) :]
            count -= len(part)
            if part:
                yield part

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes; raises what :meth:`take` raises."""
        return b"".join(self.take(count))

    def end(self) -> None:
        """Raise VerificationError unless nothing is left."""
        if self._pending or any(self._blocks):
            raise VerificationError(f"bytes after the end mark{_NEXT}")
