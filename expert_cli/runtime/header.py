"""What stands at the head of a GGUF file, read only as far as needed to know that llama.cpp will not crash on it."""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass, replace
from pathlib import Path

from expert_cli.errors import BaseModelError

VERSIONS = (2, 3)
NAME_LIMIT = 1 << 16
DIMENSIONS = 4

TOKENS = "tokenizer.ggml.tokens"
NFC = "expert.tokenizer.nfc"
"""Our metadata key: the tokenizer composes characters first, which llama.cpp leaves to its caller."""

STRING, ARRAY = 8, 9
WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each scalar type of GGUF by its number."""


F32 = 0
SIZES = {
    **{F32: (1, 4), 1: (1, 2), 30: (1, 2)},  # f32, f16, bf16
    **{2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 20: (32, 18)},  # q4_0 to q8_0, iq4_nl
    **{10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 23: (256, 136)},  # K, iq4_xs
}
"""Weights and bytes of a block of each tensor type by its number. The gguf package knows them too, but takes 60 ms to
import, and every start reads a header."""


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies: ``kind`` is its type's number, ``start`` and ``size`` are bytes of the file."""

    kind: int
    shape: tuple[int, ...]
    start: int
    size: int


class _FaultError(Exception):
    """What is wrong, in a few words."""


class _Head:
    """A place in the file that moves on as values are read."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        if self.at + size > len(self.data):
            raise _FaultError("cut within its header")
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += size
        return int(value)

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.at:
            raise _FaultError("cut within its header")
        self.at += size

    def name(self) -> str:
        size = self.number("Q")
        if size > NAME_LIMIT:
            raise _FaultError(f"a name of {size} bytes")
        start = self.at
        self.skip(size)
        return self.data[start : self.at].decode("utf-8", "replace")

    def strings(self) -> list[bytes]:
        """An array of strings, the place being at its type."""
        items, count = self.number("I"), self.number("Q")
        if items != STRING:
            raise _FaultError(f"an array of type {items} where strings belong")
        # a vocabulary has 151k of them: no call for each
        unpack, data, at, end = struct.Struct("<Q").unpack_from, self.data, self.at, len(self.data) - 8
        found = []
        for _ in range(count):
            if at > end:
                raise _FaultError("cut within its header")
            start = at + 8
            at = start + unpack(data, at)[0]
            found.append(data[start:at])
        self.at = at
        self.skip(0)
        return found

    def skip_value(self, kind: int) -> None:
        if kind == STRING:
            self.skip(self.number("Q"))
        elif kind == ARRAY:
            if (items := self.number("I")) in WIDTHS:
                self.skip(WIDTHS[items] * self.number("Q"))
            else:
                self.at -= 4
                self.strings()
        elif kind in WIDTHS:
            self.skip(WIDTHS[kind])
        else:
            raise _FaultError(f"a value of unknown type {kind}")


def damaged(path: Path, fault: str) -> BaseModelError:
    """The error for a GGUF file that cannot be used."""
    return BaseModelError(f"{path}: not a usable GGUF file ({fault}); fetch or convert it again")


def check(path: Path) -> dict[str, Stored]:
    """Refuse a file on which llama.cpp would crash; gives its tensors, the length of a row first in their shapes.

    Checked: magic number and version, that every value and tensor lies within the file, that no token stands twice in
    the vocabulary, and that vectors are f32.

    Raises:
        BaseModelError: with the fault.
    """
    if not path.is_file():
        raise BaseModelError(f"{path}: no such GGUF file; fetch the base again")
    if path.stat().st_size < 24:
        raise damaged(path, "shorter than a header")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _walk(_Head(data))
        except _FaultError as found:
            raise damaged(path, str(found)) from found


def _walk(head: _Head) -> dict[str, Stored]:
    if head.data[:4] != b"GGUF":
        raise _FaultError("wrong magic number")
    head.skip(4)
    if (version := head.number("I")) not in VERSIONS:
        raise _FaultError(f"version {version}")
    tensors, fields = head.number("Q"), head.number("Q")
    # the shortest tensor entry has 33 bytes and the shortest field 13
    if not tensors or not fields or tensors * 33 + fields * 13 > len(head.data):
        raise _FaultError(f"{tensors} tensors and {fields} fields in {len(head.data)} bytes")
    alignment = 32
    for _ in range(fields):
        name, kind = head.name(), head.number("I")
        if name == "general.alignment" and WIDTHS.get(kind) == 4:
            alignment = head.number("I")
        elif name == TOKENS and kind == ARRAY:
            tokens = head.strings()
            if len(set(tokens)) != len(tokens) or any(b"\0" in token for token in tokens):
                raise _FaultError("its vocabulary has a token twice, or one that holds a zero byte")
        else:
            head.skip_value(kind)
    found = dict(_tensor(head) for _ in range(tensors))
    if not 8 <= alignment <= 1 << 16 or alignment & (alignment - 1):
        raise _FaultError(f"alignment {alignment}")
    body = -(-head.at // alignment) * alignment
    end = body + max(tensor.start + tensor.size for tensor in found.values())
    if end > len(head.data):
        raise _FaultError(f"cut: its tensors end at byte {end} of {len(head.data)}")
    return {name: replace(tensor, start=body + tensor.start) for name, tensor in found.items()}


def _tensor(head: _Head) -> tuple[str, Stored]:
    """A tensor's name and place, counted from the first one's beginning."""
    name, dimensions = head.name(), head.number("I")
    if not 0 < dimensions <= DIMENSIONS:
        raise _FaultError(f"tensor {name} has {dimensions} dimensions")
    shape = [head.number("Q") for _ in range(dimensions)]
    kind, offset = head.number("I"), head.number("Q")
    if kind not in SIZES:
        raise _FaultError(f"tensor {name} is of unknown type {kind}")
    if dimensions == 1 and kind != F32:
        # llama.cpp aborts the process when it adds or multiplies with one
        raise _FaultError(f"vector {name} is not f32")
    block, width = SIZES[kind]
    if shape[0] % block:
        raise _FaultError(f"tensor {name} has rows of {shape[0]}, not a multiple of {block}")
    return name, Stored(kind, tuple(shape), offset, math.prod(shape) // block * width)
