"""Real experts of a few kilobytes: members, weights, manifests and keys."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expert_cli import archive, signing

CREATED = "2026-01-02T03:04:05Z"
BASE = "ba5e" * 16
RANK, WIDTH = 2, 4
MODULES = ("q_proj", "v_proj")
PARTS = {"lora_A.weight": (RANK, WIDTH), "lora_B.weight": (WIDTH, RANK), "lora_magnitude_vector": (WIDTH,)}


def manifest(**changes: Any) -> dict[str, Any]:
    """A valid expert manifest, with top-level ``changes``; a value of None drops the key."""
    data = {
        "format": 1,
        "kind": "expert",
        "name": "sql",
        "version": "0.1.0",
        "task": {"name": "sql", "interface": 1},
        "base": "nano",
        "base_sha256": BASE,
        "description": "Writes SQL.",
        "license": "Apache-2.0",
        "authors": ["A. Author"],
        "grammar": "sql-sqlite.gbnf",
        "adapter": {"type": "dora", "r": RANK, "alpha": 4, "dropout": 0.0, "target_modules": list(MODULES)},
        "training": {
            "data": {"file": "train.jsonl"},
            "evaluation": {"file": "dev.jsonl", "limit": 10},
            "steps": 10,
            "batch_tokens": 512,
            "learning_rate": 0.001,
            "warmup": 0.05,
            "schedule": "cosine",
            "weight_decay": 0.0,
            "seed": 1,
            "checkpoint_every": 5,
            "max_tokens": 512,
        },
        "packaging_checkpoint": "best",
        "decoding": {"candidates": 8, "max_tokens": 160},
        "requires": [],
        "tags": ["sql"],
    }
    return {key: value for key, value in (data | changes).items() if value is not None}


def base(**changes: Any) -> dict[str, Any]:
    """A valid base manifest, with top-level ``changes``."""
    file = {"name": "a.bin", "size": 3, "sha256": BASE, "source": "package:base/a.bin"}
    data = {
        "format": 1,
        "kind": "base",
        "id": "nano",
        "architecture": "qwen3",
        "surface": "pointers",
        "context": 1024,
        "template": {"start": "<s>", "system": ["", ""], "user": ["<q>", "\n"], "assistant": ["<sql>", "<e>"]},
        "end": ["<e>"],
        "licence": "CC-BY-SA-4.0",
        "tokenizer_sha256": "1" * 64,
        "parameters": 5_200_000,
        "files": {key: dict(file) for key in ("gguf", "weights", "config", "tokenizer")},
    }
    return {key: value for key, value in (data | changes).items() if value is not None}


def config(**changes: Any) -> dict[str, Any]:
    """PEFT's adapter_config.json."""
    data = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 4,
        "use_dora": True,
        "target_modules": list(MODULES),
        "bias": "none",
    }
    return data | {"auto_mapping": None, "modules_to_save": None} | changes


def safetensors(tensors: Mapping[str, tuple[str, Sequence[int], bytes]], header: bytes | None = None) -> bytes:
    """The bytes of a safetensors file of (dtype, shape, data), or with another ``header`` before the same data."""
    entries, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    if header is None:
        header = json.dumps({"__metadata__": {"format": "pt"}, **entries}).encode()
    return struct.pack("<Q", len(header)) + header + b"".join(data for _, _, data in tensors.values())


def tensors(layers: int = 1, modules: Sequence[str] = MODULES) -> dict[str, tuple[str, Sequence[int], bytes]]:
    """A whole DoRA adapter."""
    return {
        f"base_model.model.model.layers.{layer}.self_attn.{module}.{part}": ("F32", shape, _floats(shape))
        for layer in range(layers)
        for module in modules
        for part, shape in PARTS.items()
    }


def _floats(shape: Sequence[int]) -> bytes:
    count = 1
    for size in shape:
        count *= size
    return struct.pack(f"<{count}f", *(0.25 * (index + 1) for index in range(count)))


def members(**changes: Any) -> dict[str, Path | bytes]:
    """Everything that an archive needs; ``changes`` go into the manifest."""
    return {
        "adapter_config.json": json.dumps(config()).encode(),
        "adapter_model.safetensors": safetensors(tensors()),
        "card.md": b"# SQL\n\nWrites SQL.\n",
        "grammar.gbnf": b'root ::= "SELECT 1"\n',
        "manifest.json": json.dumps(manifest(**changes)).encode(),
        "report.json": json.dumps({"checkpoint": 10, "why": "best"}).encode(),
    }


def expert(folder: Path, key: signing.PrivateKey | None = None, **changes: Any) -> Path:
    """A real archive in ``folder``, signed when there is a ``key``."""
    data = manifest(**changes)
    path = folder / f"expert-{data['name']}-{data['base']}.v{data['version']}.expert"
    folder.mkdir(parents=True, exist_ok=True)
    archive.build(members(**changes), path, CREATED)
    if key:
        archive.sign(path, key)
    return path
