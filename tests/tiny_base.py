"""A random Qwen3 of 20k parameters with a byte tokenizer, a task of sums, and a manifest: training without weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expert_cli import manifest as manifests
from expert_cli.errors import ContextError
from expert_cli.manifest import BaseManifest, ExpertManifest
from expert_cli.task import Binding, Case, Checked, Context, Example, Limits, Message, Result, Score

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
MARKS = ["<s>", "<q>", "<sql>", "<e>"]


class SumsQuestion:
    """A sum to work out; there is nothing to link."""

    def __init__(self, text: str) -> None:
        self.text = text

    def messages(self) -> Sequence[Message]:
        return [Message("user", self.text)]

    def binding(self) -> Binding:
        return self

    def state(self, written: str) -> Any:
        return 0

    def rules(self, state: Any) -> Mapping[str, str]:
        return {}

    def surcharge(self, text: str) -> float:
        return 0.0

    def check(self, text: str) -> Checked:
        if not re.fullmatch(r"=\d+", text):
            raise ContextError(f"{text!r} is no result; write = and digits")
        return Checked(text, text[1:])


class SumsContext:
    def question(self, text: str, *, surface: str, evidence: str = "") -> SumsQuestion:
        return SumsQuestion(text)

    def run(self, checked: Checked, limits: Limits) -> Result:
        return Result(("sum",), ((int(checked.output),),))

    def close(self) -> None:
        pass


class Sums:
    """A task whose questions are sums of digits; ``prefix`` in the source changes every example."""

    name = "sums"
    interface = 1

    def examples(self, source: Mapping[str, Any], *, surface: str, seed: int) -> Iterator[Example]:
        for number in range(int(source.get("count", 40))):
            a, b = (number * 7 + seed) % 10, (number * 3) % 10
            question = f"{source.get('prefix', '')}{a}+{b}" + " " * (number % 5) * 9
            yield Example(f"{seed}/{number}", (Message("user", question),), f"={a + b}")

    def cases(self, source: Mapping[str, Any]) -> Iterator[Case]:
        for number in range(int(source.get("count", 40))):
            a, b = (number * 7 + 1) % 10, number * 3 % 10
            yield Case(str(number), f"{a}+{b}", "sums", (str(a + b),))

    def open(self, target: str | Path, *, dialect: str = "") -> SumsContext:
        return SumsContext()

    def score(self, context: Context, checked: Checked, gold: Sequence[str]) -> Score:
        return Score(checked.output in gold)


task = Sums()


def make(folder: Path, *, seed: int = 0) -> BaseManifest:
    """Write a base into ``folder`` and return its manifest, which lies there as base-tiny.json."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from transformers.utils import logging as transformers_logging

    from expert_cli.runtime import gguf, qwen3
    from expert_cli.training.pretrain import train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(iter(["one and one"] * 4), 256 + 4 + len(MARKS), MARKS)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(seed)
    config = Qwen3Config(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=288, eos_token_id=tokenizer.token_to_id("<e>"), tie_word_embeddings=True, max_position_embeddings=256, initializer_range=0.2,
    )  # fmt: skip
    transformers_logging.disable_progress_bar()
    model = Qwen3ForCausalLM(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    model.save_pretrained(str(folder))
    gguf.write(qwen3.contents(folder), folder / "tiny.gguf", "f16")
    return describe(folder)


def describe(folder: Path) -> BaseManifest:
    """The manifest of the files in ``folder``."""
    names = {
        "gguf": "tiny.gguf",
        "weights": "model.safetensors",
        "config": "config.json",
        "tokenizer": "tokenizer.json",
    }
    files = {key: _file(folder / name) for key, name in names.items()}
    data = {
        "format": 1, "kind": "base", "id": "tiny", "architecture": "qwen3", "surface": "names", "context": 256,
        "template": {"start": "<s>", "system": ["", ""], "user": ["<q>", ""], "assistant": ["<sql>", "<e>"]},
        "end": ["<e>"], "licence": "Apache-2.0", "tokenizer_sha256": files["tokenizer"]["sha256"], "parameters": 1,
        "files": files,
    }  # fmt: skip
    (folder / "base-tiny.json").write_text(json.dumps(data))
    return manifests.load_base(folder / "base-tiny.json")


def expert(**changes: Any) -> ExpertManifest:
    """A manifest for the sums on the tiny base; ``changes`` go into ``training``, ``adapter`` or the top."""
    training: dict[str, Any] = {
        "data": {"count": 40}, "evaluation": {"limit": 5}, "steps": 8, "batch_tokens": 256, "learning_rate": 0.02,
        "warmup": 0.1, "schedule": "cosine", "weight_decay": 0.0, "seed": 1, "checkpoint_every": 4, "max_tokens": 128,
    }  # fmt: skip
    adapter = {"type": "dora", "r": 4, "alpha": 8, "dropout": 0.0, "target_modules": TARGETS}
    top: dict[str, Any] = {"packaging_checkpoint": "best"}
    for key, value in changes.items():
        next((part for part in (training, adapter) if key in part), top)[key] = value
    data = {
        "format": 1, "kind": "expert", "name": "sums", "version": "0.1.0", "task": {"name": "sums", "interface": 1},
        "base": "tiny", "description": "Sums.", "license": "Apache-2.0", "authors": ["a"], "grammar": "sums.gbnf",
        "adapter": adapter, "training": training, "decoding": {"candidates": 1, "max_tokens": 8},
    }  # fmt: skip
    return manifests.load_expert(json.dumps(data | top).encode())


def _file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"name": path.name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "source": path.name}
