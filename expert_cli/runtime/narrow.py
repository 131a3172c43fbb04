"""Ask a model for the logits of a few tokens only.

A grammar often leaves a handful of a hundred thousand tokens. The output layer of a large vocabulary is a quarter of a
step, so the graph is stopped before it, and the rows of those few tokens are multiplied here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from expert_cli.runtime.header import Stored
from expert_cli.runtime.weights import Floats

BEFORE = b"result_norm"
"""llama.cpp's name of what goes into the output layer."""

FEW = 1024
"""Tokens beyond which the whole layer costs less than their rows."""

Unpack = Callable[[Any], Floats]


def _bf16(raw: Any) -> Floats:
    wide: Floats = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return wide


def _q8_0(raw: Any) -> Floats:
    blocks = raw.reshape(len(raw), -1, 34)
    scales = np.ascontiguousarray(blocks[..., :2]).view(np.float16).astype(np.float32)
    widened: Floats = (blocks[..., 2:].view(np.int8) * scales).reshape(len(raw), -1)
    return widened


UNPACK: dict[int, Unpack] = {
    0: lambda raw: raw.view(np.float32),
    1: lambda raw: raw.view(np.float16).astype(np.float32),
    8: _q8_0,
    30: _bf16,
}
"""How rows of bytes become f32, by GGUF's number of the tensor type."""


class Head:
    """The rows of an output layer in a GGUF file, read as they are asked for."""

    def __init__(self, path: Path, stored: Stored) -> None:
        self.width, count = stored.shape
        self._unpack = UNPACK[stored.kind]
        self._rows = np.memmap(path, np.uint8, "r", stored.start, (count, stored.size // count))

    def logits(self, hidden: Floats, tokens: Any) -> Floats:
        """The logits of ``tokens``, given what goes into the layer, shape (width,)."""
        rows = np.ascontiguousarray(self._rows[tokens])
        found: Floats = self._unpack(rows) @ hidden
        return found


def head(path: Path, tensors: Mapping[str, Stored]) -> Head | None:
    """The output layer of a file, or None where it is none that can be read row by row."""
    stored = tensors.get("output.weight") or tensors.get("token_embd.weight")
    if stored is None or stored.kind not in UNPACK or len(stored.shape) != 2 or "output.bias" in tensors:
        return None
    return Head(path, stored)


class Cut:
    """Stops a graph before its output layer, and keeps what would go into it.

    ``library`` is ggml's; ``callback`` goes into a context's parameters. Between :meth:`begin` and :meth:`taken` one
    batch is decoded.
    """

    def __init__(self, library: Any, kind: Any, width: int) -> None:
        self._name, self._get = library.ggml_get_name, library.ggml_backend_tensor_get
        self._name.restype, self._name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
        self._get.restype = None
        self._get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        self.callback = kind(self._node)
        self.width = width
        self._hidden: Floats | None = None
        self._done = False
        self._passed = self._place = 0  # nodes of this graph so far; where the last graph was cut

    @property
    def works(self) -> bool:
        """Whether the last graph was cut."""
        return self._place > 0

    def begin(self, outputs: int) -> None:
        """Cut the next graph, which computes ``outputs`` rows."""
        self._hidden, self._done, self._passed = np.empty((outputs, self.width), np.float32), False, 0

    def taken(self) -> Floats | None:
        """What goes into the output layer, a row for each output; None where the whole graph was computed."""
        found, self._hidden = self._hidden if self._done else None, None
        if found is None:
            self._place = 0
        return found

    def _node(self, tensor: int, asked: bool, _: Any) -> bool:
        """Whether a node's result is wanted (``asked``), or, once it is there, whether to go on."""
        if self._hidden is None:
            return False
        if asked:
            self._passed += 1
            # a name costs a call; graphs of one model are alike, so that the place is known from the last one
            if self._passed < self._place or self._name(tensor) != BEFORE:
                return False
            self._place = self._passed
            return True
        self._get(tensor, self._hidden.ctypes.data, 0, self._hidden.nbytes)
        self._done = True
        return False
