"""The parts of an expert with random weights: a tiny Qwen3 base in all its forms, a DoRA adapter and the SQL grammar."""

from __future__ import annotations

import hashlib
from pathlib import Path

from test_weave import train
from tiny_qwen3 import save

from expert_cli.loading import Parts
from expert_cli.manifest import Adapter, BaseFile, BaseManifest, Decoding, ExpertManifest, TaskReference, Training
from expert_cli.runtime import gguf, qwen3
from expert_cli.runtime.bases import Base

GRAMMAR = Path(__file__).parents[1] / "grammars" / "sql-sqlite.gbnf"
TEMPLATE = {"start": "<s>", "system": ["", ""], "user": ["<q>", ""], "assistant": ["<sql>", "<e>"]}
FILES = {"gguf": "tiny.gguf", "weights": "model.safetensors", "config": "config.json", "tokenizer": "tokenizer.json"}


def make(folder: Path) -> Parts:
    """Write base and adapter into ``folder``."""
    save(folder / "base")
    gguf.write(qwen3.contents(folder / "base"), folder / "base" / "tiny.gguf", "q8_0")
    files = {}
    for kind, name in FILES.items():
        data = (folder / "base" / name).read_bytes()
        files[kind] = BaseFile(name, len(data), hashlib.sha256(data).hexdigest(), name)
    sha256 = files["tokenizer"].sha256
    base = BaseManifest("tiny", "qwen3", "pointers", 512, TEMPLATE, ("<e>",), "none", sha256, 1, files)
    training = Training({}, {}, 1, 1, 1.0, 0.0, "cosine", 0.0, 1, 1, 1)
    manifest = ExpertManifest(
        "sql", "0.0.1", TaskReference("sql", 1), "tiny", "", "", (), GRAMMAR.name,
        Adapter("dora", 4, 8, 0.0, ("q_proj",)), training, "best", Decoding(4, 60),
    )  # fmt: skip
    adapter = train(folder / "base", folder / "adapter", use_dora=True)
    return Parts.checkpoint(adapter, manifest, Base(base, folder / "base" / "base-tiny.json"), GRAMMAR)
