"""How near the runtime is to transformers and PEFT, for one base folder and adapters, and how fast each step is.

    python benchmarks/parity.py BASE [ADAPTER ...] [--prompts FILE] [--tokens 32] [--quantisation f32 f16 q8_0]

FILE holds one prompt a line; without it prompts are random tokens. For each quantisation: prompts whose greedy tokens
are all equal, single tokens equal along the reference's own path, the largest difference of a logit, and milliseconds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expert_cli.runtime import decode, gguf, qwen3, weave
from expert_cli.runtime.hf import HfModel
from expert_cli.runtime.llama import LlamaModel


def prompts(model: decode.Model, path: Path | None, count: int) -> list[list[int]]:
    """Prompts as tokens: the lines of ``path``, else random ones of 20 to 200 tokens."""
    if path:
        return [model.tokenize(line) for line in path.read_text(encoding="utf-8").splitlines()[:count] if line]
    draw = np.random.default_rng(0)
    known = [token for token in range(model.vocabulary) if model.piece(token)]
    return [draw.choice(known, draw.integers(20, 200)).tolist() for _ in range(count)]


def compared(model: decode.Model, reference: decode.Model, given: Sequence[list[int]], tokens: int) -> dict[str, Any]:
    """How far two models agree over prompts."""
    whole = single = steps = 0
    difference = 0.0
    for prompt in given:
        wanted = decode.greedy(reference, prompt, None, frozenset(), max_tokens=tokens).tokens
        found = decode.greedy(model, prompt, None, frozenset(), max_tokens=tokens).tokens
        whole += found == wanted
        logits, exact = model.prefill(prompt), reference.prefill(prompt)
        for token in wanted:
            difference = max(difference, float(np.abs(logits - exact).max()))
            single += int(logits[0].argmax()) == token
            steps += 1
            logits, exact = model.extend([(0, [token])]), reference.extend([(0, [token])])
    return {
        "prompts": len(given), "equal": whole, "tokens": steps, "tokens_equal": single, "logit_difference": difference,
    }  # fmt: skip


def milliseconds(call: Callable[[], object], repeats: int = 15) -> float:
    """The fastest of some calls: what the machine does when nobody else asks."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return round(1e3 * min(times), 3)


def speeds(path: Path, threads: int) -> Iterator[tuple[str, float]]:
    """Loading, reading 400 tokens, and one step over some rows or some tokens at once."""
    start = time.perf_counter()
    model = LlamaModel(path, threads=threads, rows=8)
    yield "load", round(1e3 * (time.perf_counter() - start), 1)
    draw = np.random.default_rng(0)
    prompt = draw.integers(model.vocabulary // 2, size=min(400, model.context - 16)).tolist()
    start = time.perf_counter()
    model.prefill(prompt)
    yield f"read_{len(prompt)}", round(1e3 * (time.perf_counter() - start), 1)
    for size in (1, 2, 4, 8):
        steps: dict[str, list[tuple[int, list[int]]]] = {"rows": [(0, [9])] * size, "tokens": [(0, [9] * size)]}
        for kind, step in steps.items():
            yield f"{kind}_{size}", milliseconds(lambda step=step: (model.prefill(prompt), model.extend(step)))  # type: ignore[misc]
    model.close()


def measured(base: Path, adapter: Path | None, given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """One record for each quantisation."""
    reference = HfModel(base, adapter, threads=given.threads)
    if adapter:  # PEFT's own merge, so that the reference is fast as well
        merged = shutil.copytree(base, folder / "merged", ignore=shutil.ignore_patterns("*.gguf", "state.pt"))
        reference._model.merge_and_unload().save_pretrained(merged)
        reference = HfModel(merged, threads=given.threads)
    asked = prompts(reference, given.prompts, given.count)
    for quantisation in given.quantisation:
        path = folder / f"{quantisation}.gguf"
        start = time.perf_counter()
        if adapter:
            weave.weave(base, adapter, path, quantisation)
        else:
            gguf.write(qwen3.contents(base), path, quantisation)
        written = round(time.perf_counter() - start, 2)
        model = LlamaModel(path, threads=given.threads, exact=quantisation == "f32")
        yield {
            "adapter": str(adapter or ""), "quantisation": quantisation,
            "megabytes": round(path.stat().st_size / 1e6, 1),
            "seconds_to_write": written, **compared(model, reference, asked, given.tokens),
            "milliseconds": dict(speeds(path, given.threads)),
        }  # fmt: skip
        model.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("adapters", type=Path, nargs="*")
    parser.add_argument("--prompts", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quantisation", nargs="+", default=["f32", "f16", "q8_0"], choices=list(gguf.QUANTISATIONS))
    given = parser.parse_args()
    for adapter in [None, *given.adapters]:
        with tempfile.TemporaryDirectory() as folder:
            for record in measured(given.base, adapter, given, Path(folder)):
                print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
