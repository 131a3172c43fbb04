"""The one zstd frame that an archive is: decompressed as it is read, within bounds, and nothing around it.

At most :data:`CHUNK` bytes are unpacked at a time, so memory stays bounded whatever a file declares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Protocol, cast

from expert_cli.errors import VerificationError

CHUNK = 1 << 20
MAX_WINDOW = 8 << 20
MAX_CONTENT = 8 << 30
MAX_RATIO = 200
"""How many bytes one compressed byte may become, once :data:`RATIO_FREE` bytes are out."""
RATIO_FREE = 64 << 20

_MAGIC = b"\x28\xb5\x2f\xfd"
_MARK = 3
"""Bytes before each zstd block that say its kind and size, and whether it is the last."""
_FOREIGN = {
    b"\x1f\x8b": "a gzip file, not an archive of ours",
    b"PK\x03\x04": "a ZIP file, not an archive of ours",
    b"PK\x05\x06": "a ZIP file, not an archive of ours",
}
_NEXT = "; do not use this file, fetch it again from its publisher"


class Readable(Protocol):
    """What is read from: ``read`` returns at most ``count`` bytes, and none only at the end."""

    def read(self, count: int, /) -> bytes: ...


def frame(file: Readable) -> Iterator[bytes]:
    """Decompress the one zstd frame that ``file`` must consist of, block by block.

    Raises:
        VerificationError: anything before, after or inside it that :func:`write` would not have written.
    """
    import zstandard

    start = file.read(18)
    parameters = _frame_parameters(start)
    length = zstandard.frame_header_size(start)
    source = _Blocks(file, start, length, parameters.has_checksum)
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(cast(IO[bytes], source))
    produced = 0
    try:
        while data := decoder.read(CHUNK):
            produced += len(data)
            if produced > RATIO_FREE and produced > MAX_RATIO * source.consumed:
                raise VerificationError(f"a decompression bomb: {produced} bytes from {source.consumed}{_NEXT}")
            yield data
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


class _Blocks:
    """The frame that begins a file, block by block: as zstd asks for it, and never a byte beyond its end.

    ``start`` are bytes that were read already, ``length`` of them the frame's header.
    """

    def __init__(self, file: Readable, start: bytes, length: int, checksum: bool) -> None:
        self._file = file
        self._pending = start[length:]
        self._header = start[:length]
        self._mark = b""
        self._checksum = 4 * checksum
        self._ended = False
        self.consumed = len(start)

    def read(self, _: int) -> bytes:
        """The header, then a block each time, none after the last.

        What follows a block is read with it, which halves the calls: the mark of the next, or the checksum.

        Raises:
            VerificationError: a block's mark is damaged, or the file ends.
        """
        if self._ended:
            return b""
        if not self._mark:
            self._mark = self._exactly(_MARK)
            return self._header + self._mark
        flags = int.from_bytes(self._mark, "little")
        self._ended, kind, size = bool(flags & 1), flags >> 1 & 3, flags >> 3
        if kind == 3 or size > 128 << 10:
            raise VerificationError(f"a damaged zstd block{_NEXT}")
        size = 1 if kind == 1 else size
        block = self._exactly(size + (self._checksum if self._ended else _MARK))
        self._mark = block[size:]
        return block

    def _exactly(self, count: int) -> bytes:
        data = self._pending[:count]
        self._pending = self._pending[len(data) :]
        while len(data) < count and (more := self._file.read(count - len(data))):
            data += more
            self.consumed += len(more)
        if len(data) < count:
            raise VerificationError(f"a truncated file{_NEXT}")
        return data

    def rest(self) -> bytes:
        """The first bytes behind the frame."""
        return self._pending + self._file.read(4)
