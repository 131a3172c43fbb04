"""GGUF files: read with numpy, and written tensor by tensor in another quantisation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from expert_cli.errors import BaseModelError
from expert_cli.runtime import header
from expert_cli.runtime.weights import Floats

Change = Callable[[str, Floats], Floats]
"""What to do with a tensor, given its GGUF name, before it is written."""

QUANTISATIONS = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}

WRITTEN_BY_US = ("general.architecture", "general.file_type", "general.quantization_version", "general.alignment")


@dataclass(frozen=True)
class Field:
    """One metadata entry; ``items`` is the element type of an array."""

    key: str
    value: Any
    type: Any
    items: Any = None


@dataclass(frozen=True)
class Tensor:
    """One tensor in numpy's order of dimensions; ``read`` gives it as float32."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Floats]


@dataclass(frozen=True)
class Contents:
    """What a GGUF file says and holds."""

    architecture: str
    fields: tuple[Field, ...]
    tensors: tuple[Tensor, ...]


def read(path: Path) -> Contents:
    """The contents of a GGUF file; tensors are read when asked for.

    Raises:
        BaseModelError: the file is missing, damaged, or quantised below 16 bits.
    """
    header.check(path)
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, KeyError, IndexError, UnicodeDecodeError) as fault:
        raise header.damaged(path, str(fault)) from fault
    fields = tuple(
        Field(key, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.") and key not in WRITTEN_BY_US
    )
    architecture = reader.fields["general.architecture"].contents()
    return Contents(architecture, fields, tuple(_stored(path, tensor) for tensor in reader.tensors))


def _stored(path: Path, tensor: Any) -> Tensor:
    kinds = gguf.GGMLQuantizationType
    if tensor.tensor_type not in (kinds.F32, kinds.F16, kinds.BF16):
        raise BaseModelError(
            f"{path}: tensor {tensor.name} is {tensor.tensor_type.name}; "
            "an adapter is woven into a base of f32, f16 or bf16: give such a GGUF or the safetensors folder"
        )
    shape = tuple(int(size) for size in reversed(tensor.shape))
    return Tensor(
        tensor.name,
        shape,
        lambda: gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape),
    )


def write(contents: Contents, target: Path, quantisation: str, change: Change | None = None) -> None:
    """Write ``contents`` to ``target``; it appears complete or not at all.

    Matrices are stored as ``quantisation``, vectors (norms) always as f32: llama.cpp hangs on f16 norms.

    Raises:
        BaseModelError: the quantisation is unknown or does not fit a tensor.
    """
    if quantisation not in QUANTISATIONS:
        raise BaseModelError(f"unknown quantisation {quantisation!r}; choose one of {', '.join(QUANTISATIONS)}")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        _write(contents, part, quantisation, change)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _write(contents: Contents, path: Path, quantisation: str, change: Change | None) -> None:
    writer = gguf.GGUFWriter(path, contents.architecture)
    try:
        _fill(writer, contents, quantisation, change)
    finally:
        writer.close()


def _fill(writer: Any, contents: Contents, quantisation: str, change: Change | None) -> None:
    kind, file_type = QUANTISATIONS[quantisation]
    writer.add_file_type(int(file_type))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for field in contents.fields:
        writer.add_key_value(field.key, field.value, field.type, field.items)
    kinds = [gguf.GGMLQuantizationType.F32 if len(tensor.shape) == 1 else kind for tensor in contents.tensors]
    for tensor, stored in zip(contents.tensors, kinds, strict=True):
        block, width = gguf.GGML_QUANT_SIZES[stored]
        if tensor.shape[-1] % block:
            raise BaseModelError(
                f"tensor {tensor.name} has rows of {tensor.shape[-1]}, not a multiple of {block}: "
                f"{quantisation} cannot hold it; choose f16"
            )
        shape = tensor.shape
        size = int(np.prod(shape)) // block * width
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), size, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, stored in zip(contents.tensors, kinds, strict=True):
        floats = tensor.read()
        writer.write_tensor_data(_encode(tensor.name, change(tensor.name, floats) if change else floats, stored))


def _encode(name: str, floats: Floats, kind: Any) -> npt.NDArray[Any]:
    if kind == gguf.GGMLQuantizationType.F16 and np.abs(floats).max() > np.finfo(np.float16).max:
        raise BaseModelError(f"tensor {name} does not fit into f16; choose bf16 or f32")
    encoded: npt.NDArray[Any] = gguf.quants.quantize(np.ascontiguousarray(floats, np.float32), kind)
    return encoded
