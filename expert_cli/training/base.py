"""The files of a pre-trained base: rounded weights, GGUF, manifest, card and loss curve."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from expert_cli.runtime import gguf, qwen3
from expert_cli.runtime.weights import digest


def write(model: Qwen3ForCausalLM, tokenizer: Tokenizer, recipe: Mapping[str, Any], log: Path, folder: Path) -> None:
    """Write a base to ``folder``.

    Weights are rounded to half precision once; safetensors and GGUF hold the same numbers, so that what is trained on
    one is exact on the other.

    Args:
        model: the trained model.
        tokenizer: its tokenizer.
        recipe: the pre-training manifest as run.
        log: the run's ``log.jsonl``.
        folder: where the files appear.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().to(torch.float16).contiguous().cpu()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config.to_dict() | {"dtype": "float16", "architectures": ["Qwen3ForCausalLM"]}
    _json(folder / "config.json", config)
    tokenizer.save(str(folder / "tokenizer.json"))
    gguf.write(qwen3.contents(folder), folder / f"{recipe['id']}.gguf", "f16")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    _json(folder / f"base-{recipe['id']}.json", _manifest(recipe, parameters, folder))
    notes = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    (folder / "loss.svg").write_text(curve(notes), encoding="utf-8")
    (folder / "card.md").write_text(card(recipe, parameters, notes), encoding="utf-8")


def _json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _manifest(recipe: Mapping[str, Any], parameters: int, folder: Path) -> dict[str, Any]:
    names = {
        "gguf": f"{recipe['id']}.gguf",
        "weights": "model.safetensors",
        "config": "config.json",
        "tokenizer": "tokenizer.json",
    }
    files = {
        kind: {"name": name, "size": (folder / name).stat().st_size, "sha256": digest(folder / name), "source": name}
        for kind, name in names.items()
    }
    return {
        "format": 1,
        "kind": "base",
        "id": recipe["id"],
        "architecture": "qwen3",
        "surface": recipe["surface"],
        "context": recipe["model"]["context"],
        "template": recipe["template"],
        "end": recipe["end"],
        "licence": recipe["licence"],
        "tokenizer_sha256": files["tokenizer"]["sha256"],
        "parameters": parameters,
        "files": files,
    }


def card(recipe: Mapping[str, Any], parameters: int, notes: Sequence[Mapping[str, Any]]) -> str:
    """The model card: what it is, what it was trained on, for how long, and what it is not."""
    data = next(note for note in notes if note.get("event") == "data")
    last = [note for note in notes if "step" in note][-1]
    shape = recipe["model"]
    sources = "\n".join(f"| {row['name']} | {row['licence']} | {row['use']} |" for row in recipe["sources"])
    return f"""# {recipe["id"]}

A Qwen3-architecture causal language model of {parameters:,} parameters ({shape["num_hidden_layers"]} layers, width
{shape["hidden_size"]}), trained from random weights to write the pointer surface of inner SQL for a linked question.
It is no general language model: it reads a linked schema and an annotated question, and nothing else.

| | |
|---|---|
| training examples | {data["kept"]:,} |
| steps | {last["step"]:,} |
| tokens (padding included) | {last["tokens"]:,} |
| training time | {last["used"] / 60:.0f} minutes |
| loss on completions at the end | {last["loss"]:.3f} |
| licence of the weights | {recipe["licence"]} |

![loss](loss.svg)

## Data

| data | licence | what was used |
|---|---|---|
{sources}

No development or test split was read. The recipe is `manifests/pretrain-{recipe["id"]}.json`; run it again with
`expert-cli pretrain manifests/pretrain-{recipe["id"]}.json --out runs/{recipe["id"]}`.
"""


def curve(notes: Sequence[Mapping[str, Any]], width: int = 640, height: int = 240) -> str:
    """An SVG of loss over tokens, on a logarithmic loss axis."""
    points = [(note["tokens"], max(note["loss"], 1e-4)) for note in notes if "step" in note]
    most = max(tokens for tokens, _ in points)
    low, high = math.log(min(loss for _, loss in points) * 0.9), math.log(max(loss for _, loss in points))
    left, top = 48, 12
    inner, tall = width - left - 12, height - top - 32

    def place(tokens: float, loss: float) -> tuple[float, float]:
        return left + inner * tokens / most, top + tall * (high - math.log(loss)) / (high - low)

    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    marks = [value for value in (8, 4, 2, 1, 0.5, 0.25, 0.12, 0.06) if low <= math.log(value) <= high]
    grid = "".join(
        f'<line x1="{left}" x2="{width - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value, y in ((value, place(0, value)[1]) for value in marks)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">'
        f'<rect width="{width}" height="{height}" fill="white"/>{grid}'
        f'<polyline points="{path}" fill="none" stroke="#2a6fdb" stroke-width="1.5"/>'
        f'<text x="{left}" y="{height - 8}">0</text>'
        f'<text x="{width - 12}" y="{height - 8}" text-anchor="end">{most / 1e6:.1f}M tokens</text>'
        f'<text x="{width / 2}" y="{height - 8}" text-anchor="middle">loss on completions</text></svg>\n'
    )
