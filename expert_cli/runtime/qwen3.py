"""A Qwen3 model folder in Hugging Face form (config, tokenizer, safetensors) as the contents of a GGUF file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFValueType, TokenType

from expert_cli.errors import BaseModelError
from expert_cli.runtime.gguf import Contents, Field, Tensor
from expert_cli.runtime.header import NFC
from expert_cli.runtime.weights import Weights

LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}

# What llama.cpp's pre-tokeniser "qwen2" does; a tokenizer trained with another expression tokenises differently there.
PRE_TOKENIZER = "qwen2"
EXPRESSION = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tensor_name(module: str) -> str:
    """The GGUF name of a module's weight: ``model.layers.0.mlp.up_proj`` is ``blk.0.ffn_up.weight``.

    Raises:
        BaseModelError: Qwen3 has no such module.
    """
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.weight"
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
    if not found or found[2] not in LAYER:
        raise BaseModelError(f"Qwen3 has no module {module!r}; train the adapter on this base's own modules")
    return f"blk.{found[1]}.{LAYER[found[2]]}.weight"


def contents(folder: Path) -> Contents:
    """The contents of the GGUF file for a Qwen3 folder; tensors are read when written.

    Raises:
        BaseModelError: a file is missing or damaged, or holds what llama.cpp would read differently.
    """
    config = _json(folder / "config.json")
    if config.get("model_type") != "qwen3":
        raise BaseModelError(f"{folder}: model type {config.get('model_type')!r}; this converter reads qwen3 only")
    tensors = tuple(_tensors(folder, config))
    fields = (*_model(folder, config), *_tokenizer(folder, config))
    return Contents("qwen3", fields, tensors)


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BaseModelError(f"{path}: no such file; give a complete model folder")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise BaseModelError(f"{path}: not JSON ({fault}); save the model folder again") from fault
    if not isinstance(value, dict):
        raise BaseModelError(f"{path}: not a JSON object; save the model folder again")
    return value


def _model(folder: Path, config: Mapping[str, Any]) -> Iterator[Field]:
    # transformers 5 writes rope_parameters; transformers 4 wrote rope_theta and rope_scaling
    rope = config.get("rope_parameters") or {**(config.get("rope_scaling") or {}), "rope_theta": config["rope_theta"]}
    if rope.get("rope_type", "default") != "default":
        raise BaseModelError(f"{folder}: rope scaling {rope['rope_type']!r} is not converted; use an unscaled model")
    if config.get("attention_bias") or config.get("use_sliding_window"):
        raise BaseModelError(f"{folder}: attention bias and sliding windows are not converted; use a plain Qwen3")
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    yield Field("general.type", "model", GGUFValueType.STRING)
    yield Field("general.name", folder.resolve().name, GGUFValueType.STRING)
    counts = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": head,
        "attention.value_length": head,
    }
    for key, count in counts.items():
        yield Field(f"qwen3.{key}", count, GGUFValueType.UINT32)
    yield Field("qwen3.rope.freq_base", float(rope["rope_theta"]), GGUFValueType.FLOAT32)
    yield Field("qwen3.attention.layer_norm_rms_epsilon", config["rms_norm_eps"], GGUFValueType.FLOAT32)


def _tokenizer(folder: Path, config: Mapping[str, Any]) -> Iterator[Field]:
    path = folder / "tokenizer.json"
    tokenizer = _json(path)
    _check_tokenizer(path, tokenizer)
    rows = config["vocab_size"]
    # llama.cpp wants one token for each row of the embedding
    tokens = [f"[PAD{row}]" for row in range(rows)]
    types = [int(TokenType.UNUSED)] * rows
    added = tokenizer.get("added_tokens", [])
    known = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in added)]
    if max(known) >= rows:
        raise BaseModelError(f"{path}: token {max(known)} has no row among {rows}; resize the embedding and save again")
    for token, row in tokenizer["model"]["vocab"].items():
        tokens[row], types[row] = token, int(TokenType.NORMAL)
    for token in added:
        kind = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        tokens[token["id"]], types[token["id"]] = token["content"], int(kind)
    # tokenizers writes merges as pairs since 0.20; GGUF wants one string each
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    yield Field("tokenizer.ggml.model", "gpt2", GGUFValueType.STRING)
    yield Field("tokenizer.ggml.pre", PRE_TOKENIZER, GGUFValueType.STRING)
    yield Field("tokenizer.ggml.tokens", tokens, GGUFValueType.ARRAY, GGUFValueType.STRING)
    yield Field("tokenizer.ggml.token_type", types, GGUFValueType.ARRAY, GGUFValueType.INT32)
    yield Field("tokenizer.ggml.merges", merges, GGUFValueType.ARRAY, GGUFValueType.STRING)
    yield Field("tokenizer.ggml.add_bos_token", False, GGUFValueType.BOOL)
    yield Field(NFC, (tokenizer.get("normalizer") or {}).get("type") == "NFC", GGUFValueType.BOOL)
    for role in ("bos", "eos", "pad"):
        row = config.get(f"{role}_token_id")
        row = row[0] if isinstance(row, list) else row
        if row is not None:
            yield Field(f"tokenizer.ggml.{'padding' if role == 'pad' else role}_token_id", row, GGUFValueType.UINT32)


def _check_tokenizer(path: Path, tokenizer: Mapping[str, Any]) -> None:
    faults = []
    if tokenizer["model"].get("type") != "BPE" or not tokenizer["model"].get("merges"):
        faults.append("its model is not BPE with merges")
    steps = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers", [])
    expressions = [step["pattern"].get("Regex") for step in steps if step["type"] == "Split"]
    bytewise = [step for step in steps if step["type"] == "ByteLevel"]
    if expressions != [EXPRESSION] or len(bytewise) != 1 or len(steps) != 2 or bytewise[0]["add_prefix_space"]:
        faults.append("its pre-tokeniser is not Qwen2's")
    if (tokenizer.get("normalizer") or {"type": "NFC"})["type"] != "NFC":
        faults.append("its normaliser is not NFC")
    strip = [t["content"] for t in tokenizer.get("added_tokens", []) if t["lstrip"] or t["rstrip"] or t["single_word"]]
    if strip:
        faults.append(f"its token {strip[0]} strips its surroundings")
    if faults:
        raise BaseModelError(
            f"{path}: {'; '.join(faults)}: llama.cpp would tokenize differently; train a byte-level BPE like Qwen2's"
        )


def _tensors(folder: Path, config: Mapping[str, Any]) -> Iterator[Tensor]:
    index = folder / "model.safetensors.index.json"
    names = sorted(set(_json(index)["weight_map"].values())) if index.is_file() else ["model.safetensors"]
    tied = bool(config.get("tie_word_embeddings"))
    seen = set()
    for file in (Weights(folder / name) for name in names):
        for name in file:
            # llama.cpp reads the embedding where a tied output is absent
            if name == "lm_head.weight" and tied:
                continue
            target = tensor_name(name.removesuffix(".weight"))
            seen.add(target)
            yield Tensor(target, file.shape(name), lambda file=file, name=name: file.read(name))  # type: ignore[misc]
    expected = {"token_embd.weight", "output_norm.weight"} | (set() if tied else {"output.weight"})
    layers = range(config["num_hidden_layers"])
    expected |= {f"blk.{layer}.{part}.weight" for layer in layers for part in LAYER.values()}
    if seen != expected:
        missing, extra = sorted(expected - seen), sorted(seen - expected)
        raise BaseModelError(f"{folder}: tensors missing {missing[:3]}, unexpected {extra[:3]}; save the model again")
