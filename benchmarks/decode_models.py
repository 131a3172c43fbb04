"""Models for measuring: the shipped base, and random ones, since speed asks for shapes and not for what was learned.

The latter are made once and kept below ``$EXPERT_HOME``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from expert_cli import manifest, paths
from expert_cli.conversation import Template
from expert_cli.grammar import tokens
from expert_cli.runtime import gguf, qwen3

VOCABULARY = "vendor/llama.cpp/models/ggml-vocab-qwen2.gguf"
"""In the source of llama-cpp-python: Qwen2's 151,936 tokens and their merges, without weights."""

CHATML = {
    "start": "",
    "system": ["<|im_start|>system\n", "<|im_end|>\n"],
    "user": ["<|im_start|>user\n", "<|im_end|>\n"],
    "assistant": ["<|im_start|>assistant\n", "<|im_end|>\n"],
}

# Qwen2.5-0.5B's shape, in the architecture that the runtime converts.
HALF = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14} | {
    "num_key_value_heads": 2,
    "head_dim": 64,
    "vocab_size": 151_936,
    "max_position_embeddings": 4096,
}

# Hardly any model at all: what is left is the vocabulary's work, which a grammar adds to.
TINY = HALF | {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
TINY |= {"num_key_value_heads": 1, "head_dim": 32}

SHAPES = {"half": HALF, "tiny": TINY}
"""Random models with Qwen2's vocabulary."""

POINTERS = "pointers"
"""FROM first: the peers need a closed grammar, and where SELECT comes first there is none."""


@dataclass(frozen=True)
class Subject:
    """A base to measure: its folder holds config.json, tokenizer.json and model.safetensors; ``file`` is its GGUF."""

    name: str
    folder: Path
    file: Path
    surface: str
    template: Template
    vocabulary: tokens.Vocabulary
    context: int


def nano() -> Subject:
    """The shipped base; where none is shipped, a random one of its shape."""
    shipped = paths.packaged("base")
    if (shipped / "base-nano.json").exists():
        base = manifest.load_base(shipped / "base-nano.json")
        vocabulary = tokens.load(shipped / base.files["tokenizer"].name, base.end)
        file = shipped / base.files["gguf"].name
        return Subject(
            "nano", shipped, file, POINTERS, Template.parse(base.template, "nano"), vocabulary, base.context
        )
    planned = json.loads((paths_of("manifests") / "pretrain-nano.json").read_text("utf-8"))
    shape = {name: value for name, value in planned["model"].items() if name not in ("context", "rope_theta")}
    shape["max_position_embeddings"] = planned["model"]["context"]
    folder = _folder("nano")
    known = folder / "tokenizer.json"
    tokenizer = known.read_text("utf-8") if known.exists() else _nano_tokenizer(planned)
    return _subject("nano", folder, POINTERS, planned["template"], planned["end"], shape, tokenizer)


def shaped(name: str, vocabulary: Path | None) -> Subject:
    """A model of :data:`SHAPES` with Qwen2's vocabulary, from ``vocabulary`` or from llama-cpp-python's source."""
    folder = _folder(name)
    known = folder / "tokenizer.json"
    text = known.read_text("utf-8") if known.exists() else _qwen_tokenizer(vocabulary or _downloaded(folder))
    return _subject(name, folder, "names", CHATML, ["<|im_end|>", "<|endoftext|>"], SHAPES[name], text)


def paths_of(name: str) -> Path:
    """A top-level folder of the repository."""
    return Path(__file__).resolve().parents[1] / name


def _folder(name: str) -> Path:
    folder = paths.cache() / "benchmarks" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _subject(
    name: str,
    folder: Path,
    surface: str,
    template: Mapping[str, object],
    ends: Sequence[str],
    shape: dict[str, Any],
    tokenizer: str,
) -> Subject:
    path = folder / "tokenizer.json"
    if not path.exists() or path.read_text("utf-8") != tokenizer:
        path.write_text(tokenizer, encoding="utf-8")
        (folder / "model.gguf").unlink(missing_ok=True)
    rows = shape.get("vocab_size") or -(-Tokenizer.from_str(tokenizer).get_vocab_size() // 32) * 32
    if not (folder / "model.gguf").exists():
        _random(folder, shape | {"vocab_size": rows}, Tokenizer.from_str(tokenizer).token_to_id(ends[0]))
        gguf.write(qwen3.contents(folder), folder / "model.gguf", "q8_0")
    vocabulary = tokens.load(path, tuple(ends), rows)
    read = Template.parse(template, name)
    return Subject(name, folder, folder / "model.gguf", surface, read, vocabulary, shape["max_position_embeddings"])


def _random(folder: Path, shape: Mapping[str, Any], end: int) -> None:
    """Write a Qwen3 of ``shape`` with random weights."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = Qwen3Config(**shape, tie_word_embeddings=True, eos_token_id=end, bos_token_id=None)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)


def _nano_tokenizer(planned: Mapping[str, Any]) -> str:
    """A byte-level tokenizer of nano's size, trained on the sample's questions and schema."""
    from expert_cli.training.pretrain import train_tokenizer

    sample = paths.packaged("sample")
    texts = [(sample / name).read_text("utf-8") for name in ("questions.jsonl", "shop.sql")]
    named = planned["tokenizer"]
    numbered = [f"<{kind}{number}>" for kind, count in named["numbered"].items() for number in range(count)]
    trained = train_tokenizer(iter(texts * 4), named["vocabulary"], [*named["special"], *numbered])
    return str(trained.to_str())


def _downloaded(folder: Path) -> Path:
    """Qwen2's vocabulary file, out of the source of the installed llama-cpp-python."""
    target = folder / Path(VOCABULARY).name
    if not target.exists():
        wanted = f"llama-cpp-python=={version('llama-cpp-python')}"
        with tempfile.TemporaryDirectory() as place:
            command = ["download", "--quiet", "--no-binary", ":all:", "--no-deps", "--dest", place, wanted]
            subprocess.run([sys.executable, "-m", "pip", *command], check=True)
            (archive,) = Path(place).glob("*.tar.gz")
            with tarfile.open(archive) as source:
                member = next(one for one in source if one.name.endswith(VOCABULARY))
                stream = source.extractfile(member)
                assert stream is not None
                target.write_bytes(stream.read())
    return target


def _qwen_tokenizer(file: Path) -> str:
    """The text of a tokenizer.json for a GGUF vocabulary."""
    import gguf as library

    fields = library.GGUFReader(file).fields
    names: list[str] = fields["tokenizer.ggml.tokens"].contents()
    kinds: list[int] = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    ordinary = {name: row for row, (name, kind) in enumerate(zip(names, kinds, strict=True)) if kind == 1}
    special = [name for name, kind in zip(names, kinds, strict=True) if kind == 3]
    made = Tokenizer(models.BPE(ordinary, merges))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(list(_splits()))
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    assert all(made.token_to_id(name) == names.index(name) for name in special)
    return str(made.to_str())


def _splits() -> Iterator[Any]:
    yield pre_tokenizers.Split(Regex(qwen3.EXPRESSION), behavior="isolated", invert=False)
    yield pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
