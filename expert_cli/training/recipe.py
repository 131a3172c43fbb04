"""Recipes for pre-training a base: what ``manifests/pretrain-*.json`` must hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from expert_cli.errors import ManifestError
from expert_cli.manifest import parse_json

Kinds = type | tuple[type, ...]

NUMBER = (int, float)
FIELDS: dict[str, dict[str, Kinds]] = {
    "": {
        **dict.fromkeys(("id", "task", "surface", "licence"), str),
        **dict.fromkeys(("template", "tokenizer", "model", "data", "training"), dict),
        **dict.fromkeys(("end", "sources"), list),
    },
    "tokenizer": {"vocabulary": int, "examples": int, "special": list, "numbered": dict},
    "model": {
        **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"), int),
        **dict.fromkeys(("num_key_value_heads", "head_dim", "context"), int),
        "rope_theta": NUMBER,
    },
    "training": {
        **dict.fromkeys(("batch_tokens", "max_tokens", "warmup_steps", "seed"), int),
        **dict.fromkeys(("learning_rate", "embedding_learning_rate", "final", "weight_decay"), NUMBER),
        **dict.fromkeys(("minutes", "checkpoint_minutes"), NUMBER),
    },
}
"""Section to field to type; the sections are fields of the first."""


def read(path: Path) -> dict[str, Any]:
    """The recipe in a file.

    Raises:
        ManifestError: with every fault.
    """
    recipe = parse_json(path.read_bytes(), str(path))
    if not isinstance(recipe, dict) or (recipe.get("format"), recipe.get("kind")) != (1, "pretraining"):
        raise ManifestError(str(path), ['expected {"format": 1, "kind": "pretraining", ...}'])
    faults = []
    for section, fields in FIELDS.items():
        values = recipe.get(section) if section else recipe
        if not isinstance(values, dict):
            continue  # a fault of the first section
        for name, kinds in fields.items():
            place = f"{section}.{name}" if section else name
            if name not in values:
                faults.append(f"{place}: missing")
            elif not isinstance(values[name], kinds) or isinstance(values[name], bool):
                faults.append(f"{place}: {values[name]!r} is not {_said(kinds)}")
    if not faults:
        faults = [*_tokens(recipe)]
    if faults:
        raise ManifestError(str(path), faults)
    return recipe


def _said(kinds: Kinds) -> str:
    names = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}
    return "a number" if isinstance(kinds, tuple) else names[kinds]


def _tokens(recipe: dict[str, Any]) -> list[str]:
    """Marks that the tokenizer would not know."""
    special = recipe["tokenizer"]["special"]
    wanted = {"<pad>", *recipe["end"], *([recipe["template"]["start"]] if recipe["template"].get("start") else [])}
    return [f"tokenizer.special: {token!r} is missing" for token in sorted(wanted - {*special})]
