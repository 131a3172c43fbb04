"""How tokens that must follow are fed: what the measurement concludes, that it is kept, and that it changes no answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_processor import matcher
from tiny_qwen3 import PROMPTS, save

from expert_cli.grammar import tokens
from expert_cli.runtime import decode, gguf, pace, qwen3
from expert_cli.runtime.llama import LlamaModel

# milliseconds of a token without logits, with logits, and of batches, each with what building its graph adds
NANO = (0.33, 0.36, {2: 0.48, 3: 0.64, 4: 0.79, 6: 1.14, 8: 1.44, 12: 2.2, 16: 3.0})
HALF = (17.8, 21.3, {2: 61.8, 3: 78.6, 4: 88.0, 6: 118.5, 8: 105.8, 12: 129.9, 16: 160.0})
STEEP = (1.0, 1.2, {length: 2.0 * length for length in pace.LENGTHS})
REBUILT = (2.0, 1.2, {length: 3.0 + length for length in pace.LENGTHS})
"""A processor on which leaving the logits out costs more than they do."""
Times = tuple[float, float, dict[int, float]]


def measured(times: Times) -> pace.Cost:
    """A processor of which the times are known, disturbed in every run but the second; a choice follows each run."""
    calls: dict[object, int] = {}
    silent, shown, batches = times

    def cost(count: int, policy: str) -> float:
        key = (count, policy)
        calls[key] = calls.get(key, 0) + 1
        steps = (count - 1) * (shown if policy == "plain" else silent) + shown
        return (shown + (batches[count] if policy == "batch" else steps)) * (1.0 if calls[key] == 2 else 3.0)

    return cost


@pytest.mark.parametrize(
    ("times", "expected"),
    [(NANO, (2, "single")), (HALF, (8, "single")), (STEEP, (17, "single")), (REBUILT, (16, "plain"))],
)
def test_the_cheapest_way_is_chosen(times: Times, expected: tuple[int, str]) -> None:
    found = pace.measured(measured(times))
    assert found == expected
    # no other pace is faster for any run that is measured
    for length in pace.LENGTHS:
        policy = "batch" if length >= found.together else found.steps
        spent = {one: measured(times)(length, one) for one in pace.POLICIES}
        assert spent[policy] == min(spent.values())


DAMAGE = [None, "{", "[]", '{"key": "8"}', "\xff", "", "null", "[" * 100_000]


@pytest.mark.parametrize("damage", DAMAGE)
def test_it_is_measured_once(tmp_path: Path, home: Path, damage: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "one.gguf"
    model.write_bytes(b"GGUF one")
    if damage is not None:
        (home / "cache").mkdir(parents=True)
        (home / "cache" / "pace.json").write_bytes(damage.encode("latin-1"))
    assert pace.chosen(model, 1, measured(HALF)) == (8, "single")
    assert pace.chosen(model, 1, measured(NANO)) == (8, "single")
    assert pace.chosen(model, 2, measured(REBUILT)) == (16, "plain")
    model.write_bytes(b"GGUF two")
    assert pace.chosen(model, 1, measured(NANO)) == (2, "single")
    monkeypatch.setattr(pace, "machine", lambda: "another")
    assert pace.chosen(model, 1, measured(REBUILT)) == (16, "plain")
    kept = json.loads((home / "cache" / "pace.json").read_text())
    assert sorted(kept.values()) == [[2, "single"], [8, "single"], [16, "plain"], [16, "plain"]]


@pytest.mark.parametrize(
    "entry", [8, "8", [1, "single"], [8, "batch"], [8, "quick"], [8.5, "plain"], [8], [8, "plain", 1], {}]
)
def test_an_entry_that_is_none_is_measured_again(tmp_path: Path, home: Path, entry: object) -> None:
    model = tmp_path / "one.gguf"
    model.write_bytes(b"GGUF one")
    file = home / "cache" / "pace.json"
    assert pace.chosen(model, 1, measured(HALF)) == (8, "single")
    (key,) = json.loads(file.read_text())
    file.write_text(json.dumps({key: entry}))
    assert pace.chosen(model, 1, measured(NANO)) == (2, "single")
    assert json.loads(file.read_text()) == {key: [2, "single"]}


def test_a_home_that_cannot_be_written_is_no_fault(tmp_path: Path, home: Path) -> None:
    model = tmp_path / "one.gguf"
    model.write_bytes(b"GGUF")
    home.write_text("a file where the folder should be")
    assert pace.chosen(model, 1, measured(HALF)) == (8, "single")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="a random base is made with PyTorch")
    folder = save(tmp_path_factory.mktemp("tiny"), seed=1)
    gguf.write(qwen3.contents(folder), folder / "tiny.gguf", "f32")
    return folder / "tiny.gguf"


@pytest.mark.parametrize(
    "given",
    [*map(pace.Pace.of, pace.POLICIES), pace.Pace(4, "single"), pace.Pace(4, "plain")],
    ids=lambda given: f"{given.together} {given.steps}",
)
def test_every_pace_gives_the_same_logits(path: Path, given: pace.Pace) -> None:
    model = LlamaModel(path, threads=1, exact=True)
    prompt = model.tokenize(PROMPTS[0])
    model.prefill(prompt)
    expected = [model.extend([(0, [7, 8, 9])]), model.extend([(0, [5] * 9)])]
    model.prefill(prompt)
    model.pace = given
    runs: list[list[int]] = []
    run = model._run

    def counted(count: int, *rest: Any) -> None:
        runs.append([model._batch.logits[place] for place in range(count)])
        run(count, *rest)

    model._run = counted  # type: ignore[method-assign]
    found = [model.extend([(0, [7, 8, 9])]), model.extend([(0, [5] * 9)])]
    assert all(np.abs(one - other).max() < 1e-4 for one, other in zip(expected, found, strict=True))
    early = int(given.steps == "plain")
    steps = {size: [[early]] * (size - 1) + [[1]] for size in (3, 9)}
    whole = {size: [[0] * (size - 1) + [1]] for size in (3, 9)}
    assert runs == [batch for size in (3, 9) for batch in (steps if size < given.together else whole)[size]]
    model.close()


@pytest.mark.parametrize("surface", ["pointers", "pointers-select", "names"])
def test_every_policy_writes_the_same(path: Path, surface: str) -> None:
    answers = []
    for policy in pace.POLICIES:
        model = LlamaModel(path, threads=1, exact=True, rows=3)
        model.pace = pace.Pace.of(policy)
        vocabulary = tokens.load(path.parent / "tokenizer.json", ("<e>",), model.vocabulary)
        start, end = matcher(vocabulary, surface), frozenset(vocabulary.ends)
        prompts = [model.tokenize(prompt) for prompt in PROMPTS[:3]]
        answers.append([decode.greedy(model, prompt, start.fork(), end, max_tokens=40) for prompt in prompts])
        answers[-1] += decode.beam(model, prompts[0], start.fork(), end, width=3, max_tokens=40)
        answers[-1] += decode.sample(model, prompts[1], start.fork(), end, count=3, max_tokens=40)
        model.close()
    for one, two, three in zip(*answers, strict=True):
        assert one.tokens == two.tokens == three.tokens
        assert max(abs(one.logprob - other.logprob) for other in (two, three)) < 1e-3
    assert max(len(one.tokens) for one in answers[0]) > 5


def test_measuring_leaves_a_model_that_answers(path: Path) -> None:
    model = LlamaModel(path, threads=1, exact=True)
    prompt = model.tokenize(PROMPTS[0])
    expected = model.prefill(prompt).copy()
    found = pace.measured(model.seconds)
    assert found.together in {*pace.LENGTHS, 17} and found.steps in ("single", "plain")
    assert model.pace == pace.Pace.of("batch")
    assert np.abs(model.prefill(prompt) - expected).max() < 1e-4
    assert model.reused == 0
    model.close()
