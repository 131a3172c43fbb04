"""How tokens that must follow are fed: what the measurement concludes, that it is kept, and that it changes no answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_qwen3 import PROMPTS, save

from expert_cli.runtime import gguf, pace, qwen3
from expert_cli.runtime.llama import LlamaModel

NANO = {(1, False): 0.33, (1, True): 0.36, 2: 0.48, 3: 0.64, 4: 0.79, 6: 1.14, 8: 1.44, 12: 2.2, 16: 3.0}
HALF = {(1, False): 17.8, (1, True): 21.3, 2: 61.8, 3: 78.6, 4: 88.0, 6: 118.5, 8: 105.8, 12: 129.9, 16: 160.0}
STEEP = {(1, False): 1.0, (1, True): 1.0} | {length: 2.0 * length for length in pace.LENGTHS}


def measured(times: dict[object, float]) -> pace.Cost:
    """A processor of which the times are known, disturbed in every run but the second."""
    calls: dict[object, int] = {}

    def cost(count: int, logits: bool) -> float:
        key = (count, logits) if count == 1 else count
        calls[key] = calls.get(key, 0) + 1
        return times[key] * (1.0 if calls[key] == 2 else 3.0)

    return cost


@pytest.mark.parametrize(("times", "expected"), [(NANO, 2), (HALF, 8), (STEEP, 17)])
def test_the_cheaper_way_is_chosen(times: dict[object, float], expected: int) -> None:
    assert pace.measured(measured(times)) == expected


@pytest.mark.parametrize("damage", [None, "{", "[]", '{"key": "8"}'])
def test_it_is_measured_once(tmp_path: Path, home: Path, damage: str | None) -> None:
    model = tmp_path / "one.gguf"
    model.write_bytes(b"GGUF one")
    if damage is not None:
        (home / "cache").mkdir(parents=True)
        (home / "cache" / "pace.json").write_text(damage)
    assert pace.threshold(model, 1, measured(HALF)) == 8
    assert pace.threshold(model, 1, measured(NANO)) == 8
    assert pace.threshold(model, 2, measured(NANO)) == 2
    model.write_bytes(b"GGUF two")
    assert pace.threshold(model, 1, measured(NANO)) == 2
    assert sorted(json.loads((home / "cache" / "pace.json").read_text()).values()) == [2, 2, 8]


def test_a_home_that_cannot_be_written_is_no_fault(tmp_path: Path, home: Path) -> None:
    model = tmp_path / "one.gguf"
    model.write_bytes(b"GGUF")
    home.write_text("a file where the folder should be")
    assert pace.threshold(model, 1, measured(HALF)) == 8


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="a random base is made with PyTorch")
    folder = save(tmp_path_factory.mktemp("tiny"), seed=1)
    gguf.write(qwen3.contents(folder), folder / "tiny.gguf", "f32")
    return folder / "tiny.gguf"


@pytest.mark.parametrize("together", [2, 4, 17])
def test_single_steps_give_the_same_logits(path: Path, together: int) -> None:
    model = LlamaModel(path, threads=1, exact=True)
    prompt = model.tokenize(PROMPTS[0])
    model.prefill(prompt)
    expected = [model.extend([(0, [7, 8, 9])]), model.extend([(0, [5] * 9)])]
    model.together = together
    runs: list[int] = []
    run = model._run
    model._run = lambda count, *rest: (runs.append(count), run(count, *rest))[1]  # type: ignore[method-assign]
    model.prefill(prompt)
    found = [model.extend([(0, [7, 8, 9])]), model.extend([(0, [5] * 9)])]
    assert all(np.abs(one - other).max() < 1e-4 for one, other in zip(expected, found, strict=True))
    assert runs == ([1] * 3 if together > 3 else [3]) + ([1] * 9 if together > 9 else [9])
    model.close()


def test_measuring_leaves_a_model_that_answers(path: Path) -> None:
    model = LlamaModel(path, threads=1, exact=True)
    prompt = model.tokenize(PROMPTS[0])
    expected = model.prefill(prompt).copy()
    assert pace.measured(model.seconds) in {*pace.LENGTHS, 17}
    assert np.abs(model.prefill(prompt) - expected).max() < 1e-4
    assert model.reused == 0
    model.close()
