"""The bytes of an archive: one zstd frame around a strict ustar. It knows names and sizes, not experts.

A container has exactly one valid form. Every header read is rebuilt from the name and size it states and must equal
what was read, so nothing can hide in a field that a reader ignores. Reading decompresses one zstd block (at most 128
KiB) at a time, so memory stays bounded. ``packaging/FORMAT.md`` is the specification.
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
from typing import Any, Protocol

from expert_cli.errors import ExpertError, VerificationError

LEVEL = 3
MAX_WINDOW = 8 << 20
MAX_CONTENT = 8 << 30
MAX_MEMBERS = 64
MAX_RATIO = 200
"""How many bytes one compressed byte may become, once :data:`RATIO_FREE` bytes are out."""
RATIO_FREE = 64 << 20
BLOCK = 512
CHUNK = 1 << 20

_MAGIC = b"\x28\xb5\x2f\xfd"
_FOREIGN = {
    b"\x1f\x8b": "a gzip file, not an archive of ours",
    b"PK\x03\x04": "a ZIP file, not an archive of ours",
    b"PK\x05\x06": "a ZIP file, not an archive of ours",
}
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


class Readable(Protocol):
    """What is read from: ``read`` returns at most ``count`` bytes, and none only at the end."""

    def read(self, count: int, /) -> bytes: ...


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


def frame(file: Readable) -> Iterator[bytes]:
    """Decompress the one zstd frame that ``file`` must consist of, block by block.

    Raises:
        VerificationError: anything before, after or inside it that :func:`write` would not have written.
    """
    import zstandard

    start = file.read(18)
    parameters = _frame_parameters(start)
    length = zstandard.frame_header_size(start)
    source = _Source(file, start[length:])
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
    produced = 0
    try:
        decoder.decompress(start[:length])
        last = False
        while not last:
            mark = source.exactly(3)
            flags = int.from_bytes(mark, "little")
            last, kind, size = bool(flags & 1), flags >> 1 & 3, flags >> 3
            if kind == 3 or size > 128 << 10:
                raise VerificationError(f"a damaged zstd block{_NEXT}")
            data = decoder.decompress(mark) + decoder.decompress(source.exactly(1 if kind == 1 else size))
            produced += len(data)
            if produced > RATIO_FREE and produced > MAX_RATIO * source.consumed:
                raise VerificationError(f"a decompression bomb: {produced} bytes from {source.consumed}{_NEXT}")
            yield data
        if parameters.has_checksum:
            decoder.decompress(source.exactly(4))
    except zstandard.ZstdError as problem:
        raise VerificationError(f"damaged compressed data ({problem}){_NEXT}") from problem
    if produced != parameters.content_size:
        raise VerificationError(f"{produced} bytes unpacked, {parameters.content_size} declared{_NEXT}")
    rest = source.rest()
    if rest[:4] == _MAGIC or rest[1:4] == b"\x2a\x4d\x18":
        raise VerificationError(f"a second zstd frame after the first{_NEXT}")
    if rest:
        raise VerificationError(f"bytes after the end of the archive{_NEXT}")


def _frame_parameters(start: bytes) -> Any:
    import zstandard

    for magic, meaning in _FOREIGN.items():
        if start.startswith(magic):
            raise VerificationError(f"{meaning}{_NEXT}")
    if start[1:4] == b"\x2a\x4d\x18":
        raise VerificationError(f"a skippable zstd frame{_NEXT}")
    if not start.startswith(_MAGIC):
        raise VerificationError(f"not an expert archive: it does not begin with a zstd frame{_NEXT}")
    try:
        parameters = zstandard.get_frame_parameters(start)
    except zstandard.ZstdError as problem:
        raise VerificationError(f"a damaged or truncated zstd header ({problem}){_NEXT}") from problem
    if parameters.dict_id:
        raise VerificationError(f"a zstd frame that needs a dictionary{_NEXT}")
    if parameters.content_size in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR):
        raise VerificationError(f"a zstd frame that does not declare its content size{_NEXT}")
    if parameters.window_size > MAX_WINDOW:
        raise VerificationError(f"a zstd window of {parameters.window_size} bytes; at most {MAX_WINDOW}{_NEXT}")
    if parameters.content_size > MAX_CONTENT:
        raise VerificationError(f"{parameters.content_size} bytes declared; at most {MAX_CONTENT}{_NEXT}")
    return parameters


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


class _Source:
    """Exact reads from a file, its first bytes already taken."""

    def __init__(self, file: Readable, pending: bytes) -> None:
        self._file = file
        self._pending = pending
        self.consumed = len(pending)

    def exactly(self, count: int) -> bytes:
        data = self._pending[:count]
        self._pending = self._pending[len(data) :]
        while len(data) < count and (more := self._file.read(count - len(data))):
            data += more
            self.consumed += len(more)
        if len(data) < count:
            raise VerificationError(f"a truncated file{_NEXT}")
        return data

    def rest(self) -> bytes:
        return self._pending + self._file.read(4)


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
