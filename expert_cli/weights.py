"""Safetensors checked while they stream: what the loader lets pass and an installer must not.

Checked are the header (size, duplicate and unknown keys, metadata, names, dtypes, shapes), that the tensors tile the
data without overlap, hole or rest, and that every number is finite. No tensor is kept, so memory stays bounded.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from expert_cli.errors import ManifestError, VerificationError
from expert_cli.manifest import Adapter, parse_json

MAX_HEADER = 1 << 20
MAX_DIMENSIONS = 8
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
# Everything but the sign bit, and the least value of that which is not finite: all exponent bits set.
_FINITE = {"F32": ("<u4", 0x7FFFFFFF, 0x7F800000), "F16": ("<u2", 0x7FFF, 0x7C00), "BF16": ("<u2", 0x7FFF, 0x7F80)}
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")
_PART = re.compile(r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_magnitude_vector)(\.weight)?")


@dataclass(frozen=True)
class Tensor:
    """One tensor of the header; ``start`` and ``end`` in bytes of the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Reader:
    """Feed it the file's bytes in order, then :meth:`close` it."""

    def __init__(self, source: str, size: int) -> None:
        self.source = source
        self.tensors: tuple[Tensor, ...] = ()
        self._size = size
        self._pending = bytearray()
        self._data = -1
        self._at = 0
        self._index = 0

    def feed(self, chunk: bytes | memoryview) -> None:
        """Check the next bytes.

        Raises:
            VerificationError: with the first fault.
        """
        if self._data < 0:
            self._pending += chunk
            if not self._header():
                return
            chunk, self._pending = bytes(self._pending), bytearray()
        view = memoryview(bytes(self._pending) + chunk if self._pending else chunk)
        self._pending = bytearray()
        while view:
            tensor = self.tensors[self._index]
            part = view[: tensor.end - self._at]
            whole = len(part) - len(part) % _BYTES[tensor.dtype]
            if not whole:
                self._pending = bytearray(part)
                return
            self._finite(tensor, part[:whole])
            self._at += whole
            view = view[whole:]
            if self._at == tensor.end:
                self._index += 1

    def close(self) -> tuple[Tensor, ...]:
        """The tensors, once every byte has been fed.

        Raises:
            VerificationError: the file ended early.
        """
        if self._data < 0 or self._index < len(self.tensors):
            raise self._fault("it is truncated")
        return self.tensors

    def _header(self) -> bool:
        """Parse the header once it is complete; the data that follows stays pending."""
        if len(self._pending) < 8:
            return False
        length = int.from_bytes(self._pending[:8], "little")
        if length > MAX_HEADER:
            raise self._fault(f"a header of {length} bytes; at most {MAX_HEADER}")
        if len(self._pending) < 8 + length:
            return False
        try:
            header = parse_json(bytes(self._pending[8 : 8 + length]), self.source)
        except ManifestError as problem:
            raise self._fault(f"header: {'; '.join(problem.faults)}") from problem
        self._pending = self._pending[8 + length :]
        self._data = self._size - 8 - length
        self.tensors = self._tensors(header)
        return True

    def _tensors(self, header: Any) -> tuple[Tensor, ...]:
        if not isinstance(header, dict):
            raise self._fault("the header is no object")
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise self._fault("the metadata is no mapping of strings")
        tensors = sorted((self._tensor(name, entry) for name, entry in header.items()), key=lambda one: one.start)
        if not tensors:
            raise self._fault("it holds no tensors")
        at = 0
        for tensor in tensors:
            if tensor.start != at:
                raise self._fault(
                    f"{tensor.name}: {'overlaps another tensor' if tensor.start < at else 'follows a hole'}"
                )
            at = tensor.end
        if at != self._data:
            raise self._fault(f"{self._data - at} bytes of data belong to no tensor")
        return tuple(tensors)

    def _tensor(self, name: str, entry: Any) -> Tensor:
        if not _NAME.fullmatch(name) or len(name) > 256:
            raise self._fault(f"tensor name {name[:80]!r} is not words joined by dots")
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise self._fault(f"{name}: expected dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _BYTES:
            raise self._fault(f"{name}: dtype {str(dtype)[:20]!r} is none of {', '.join(_BYTES)}")
        if not _naturals(shape) or not 1 <= len(shape) <= MAX_DIMENSIONS or 0 in shape:
            raise self._fault(f"{name}: a malformed or empty shape")
        if not _naturals(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * _BYTES[dtype]:
            raise self._fault(f"{name}: its offsets do not fit its shape and dtype")
        return Tensor(name, dtype, tuple(shape), *offsets)

    def _finite(self, tensor: Tensor, data: memoryview) -> None:
        import numpy as np

        kind, mask, limit = _FINITE[tensor.dtype]
        if int((np.frombuffer(data, dtype=kind) & np.asarray(mask, dtype=kind)).max()) >= limit:
            raise self._fault(f"{tensor.name} holds NaN or infinity")

    def _fault(self, what: str) -> VerificationError:
        return VerificationError(f"{self.source}: {what}; do not use this file, fetch it again from its publisher")


def check_adapter(tensors: tuple[Tensor, ...], adapter: Adapter, source: str) -> None:
    """Check that ``tensors`` are a whole adapter of the declared type, rank and modules.

    Raises:
        VerificationError: with the first tensor that does not belong, or the first that is missing.
    """
    needed = {"lora_A", "lora_B"} | ({"lora_magnitude_vector"} if adapter.type == "dora" else set())
    modules: dict[str, dict[str, Tensor]] = {}
    for tensor in tensors:
        match = _PART.fullmatch(tensor.name)
        if not match or match["part"] not in needed or match["module"].split(".")[-1] not in adapter.target_modules:
            raise _mismatch(source, f"{tensor.name} is no part of a {adapter.type} adapter of these target_modules")
        modules.setdefault(match["module"], {})[match["part"]] = tensor
    for module, parts in sorted(modules.items()):
        if missing := sorted(needed - parts.keys()):
            raise _mismatch(source, f"{module} lacks {', '.join(missing)}")
        _check_shapes(module, {part: tensor.shape for part, tensor in parts.items()}, adapter.r, source)
    found = Counter(module.split(".")[-1] for module in modules)
    if unused := sorted(set(adapter.target_modules) - found.keys()):
        raise _mismatch(source, f"target_modules {', '.join(unused)} have no tensors")
    if len(set(found.values())) != 1:
        raise _mismatch(source, f"the target_modules are adapted in unlike numbers of layers ({dict(found)})")


def check_fit(tensors: Iterable[Tensor], base: Mapping[str, Any], source: str) -> None:
    """Check that an adapter fits the layers of a base, given the ``config.json`` of a Llama-like architecture.

    Raises:
        VerificationError: a module that the base does not have, or has in another shape.
    """
    layers, shapes = base["num_hidden_layers"], _base_shapes(base)
    for tensor in tensors:
        match = _PART.fullmatch(tensor.name)
        place = re.search(r"\.layers\.([0-9]+)\.(?:self_attn|mlp)\.([a-z_]+)$", match["module"]) if match else None
        if not match or not place or int(place[1]) >= layers or place[2] not in shapes:
            raise _mismatch(source, f"{tensor.name} has no place in the base, which has {layers} layers")
        wide, narrow = shapes[place[2]]
        found = {"lora_A": tensor.shape[-1], "lora_B": tensor.shape[0]}.get(match["part"], math.prod(tensor.shape))
        expected = narrow if match["part"] == "lora_A" else wide
        if found != expected:
            raise _mismatch(source, f"{tensor.name} is made for {found} values where the base has {expected}")


def _base_shapes(base: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each linear module."""
    hidden, inner, heads = base["hidden_size"], base["intermediate_size"], base["num_attention_heads"]
    size = base.get("head_dim") or hidden // heads
    queries, keys = heads * size, base.get("num_key_value_heads", heads) * size
    return {
        "q_proj": (queries, hidden),
        "k_proj": (keys, hidden),
        "v_proj": (keys, hidden),
        "o_proj": (hidden, queries),
        "gate_proj": (inner, hidden),
        "up_proj": (inner, hidden),
        "down_proj": (hidden, inner),
    }


def _check_shapes(module: str, shapes: Mapping[str, tuple[int, ...]], rank: int, source: str) -> None:
    down, up, magnitude = shapes["lora_A"], shapes["lora_B"], shapes.get("lora_magnitude_vector")
    if len(down) != 2 or len(up) != 2 or down[0] != rank or up[1] != rank:
        raise _mismatch(source, f"{module} has shapes {down} and {up}, not rank {rank}")
    if magnitude is not None and math.prod(magnitude) != up[0]:
        raise _mismatch(source, f"{module} has {math.prod(magnitude)} magnitudes for {up[0]} outputs")


def _mismatch(source: str, what: str) -> VerificationError:
    return VerificationError(f"{source}: {what}; the adapter and its manifest do not belong together, package it again")


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
