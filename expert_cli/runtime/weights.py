"""Tensors of a safetensors file, read with numpy alone and checked before use."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expert_cli.digests import sha256_of
from expert_cli.errors import BaseModelError

Floats = npt.NDArray[np.float32]

HEADER_LIMIT = 1 << 20
"""Bytes of header accepted: 1 MiB holds some 8,000 tensors, a bomb holds more."""

# bfloat16 is unknown to numpy: it is read as the upper half of a float32.
STORED: dict[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: ``start`` and ``end`` are byte offsets in the file."""

    kind: str
    shape: tuple[int, ...]
    start: int
    end: int


class Weights:
    """The tensors of one safetensors file, by name.

    Raises:
        BaseModelError: the file is missing, cut, overlapping, holed, empty, or of a type unknown here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise BaseModelError(f"{path}: no such file; give the folder that holds {path.name}")
        self.entries = _entries(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, without reading it."""
        return self.entries[name].shape

    def read(self, name: str) -> Floats:
        """One tensor, widened to float32.

        Raises:
            BaseModelError: it holds NaN or an infinity.
        """
        entry = self.entries[name]
        stored = STORED[entry.kind]
        raw = np.fromfile(self.path, stored, count=math.prod(entry.shape), offset=entry.start)
        wide = (raw.astype(np.uint32) << 16).view(np.float32) if entry.kind == "BF16" else raw.astype(np.float32)
        if not np.isfinite(wide).all():
            raise _damaged(self.path, f"tensor {name} holds NaN or infinity")
        return wide.reshape(entry.shape)


def _damaged(path: Path, fault: str) -> BaseModelError:
    return BaseModelError(f"{path}: {fault}; fetch or train the file again")


def _entries(path: Path) -> dict[str, Entry]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(HEADER_LIMIT, size - 8):
            raise _damaged(path, "not a safetensors file, or a cut one")
        header = _header(path, file.read(length))
    found = {name: _entry(path, name, value, 8 + length) for name, value in header.items() if name != "__metadata__"}
    if not found:
        raise _damaged(path, "it holds no tensor")
    end = 8 + length
    for name, entry in sorted(found.items(), key=lambda item: item[1].start):
        if entry.start != end:
            raise _damaged(path, f"tensor {name} overlaps another or follows a hole")
        end = entry.end
    if end != size:
        raise _damaged(path, f"its tensors end at byte {end}, the file at {size}")
    return found


def _header(path: Path, raw: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise _damaged(path, "its header names a key twice")
        return dict(pairs)

    try:
        header = json.loads(raw, object_pairs_hook=unique)
    except ValueError as fault:
        raise _damaged(path, f"its header is not JSON ({fault})") from fault
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header


def _entry(path: Path, name: str, value: Any, origin: int) -> Entry:
    match value:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(start), int(end)]} if (
            kind in STORED and 0 <= start <= end and all(type(size) is int and size > 0 for size in shape)
        ):
            if math.prod(shape) * np.dtype(STORED[kind]).itemsize != end - start:
                raise _damaged(path, f"tensor {name} does not fill its {end - start} bytes")
            return Entry(kind, tuple(shape), origin + start, origin + end)
    raise _damaged(path, f"tensor {name} is not of a known type ({', '.join(STORED)}) and shape")


def digest(path: Path) -> str:
    """The sha256 of a base's or adapter's file, in hexadecimal.

    Raises:
        BaseModelError: there is no such file.
    """
    if not path.is_file():
        raise BaseModelError(f"{path}: no such file; fetch the base or adapter again")
    return sha256_of(path)
