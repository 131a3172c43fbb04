"""Logits of a few tokens without the output layer: the same as those of the whole layer, and the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_binding import TEMPLATE, shop
from tiny_qwen3 import PROMPTS, save

from expert_cli.grammar import tokens
from expert_cli.grammar.matcher import Matcher
from expert_cli.runtime import decode, gguf, header, narrow, pace, qwen3
from expert_cli.runtime.llama import LlamaModel

TOLERANCE = {"f32": 1e-4, "f16": 2e-2, "bf16": 1e-1, "q8_0": 1e-1}
ROWS = [[(0, [7])], [(0, [7, 8, 9])], [(0, [5]), (0, [6, 7]), (0, [5, 5, 5, 5])]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    pytest.importorskip("torch", reason="a random base is made with PyTorch")
    return {tied: save(tmp_path_factory.mktemp("tiny"), seed=1, tied=tied) for tied in (True, False)}


def load(folder: Path, quantisation: str, *, narrowed: bool) -> LlamaModel:
    path = folder / f"{quantisation}.gguf"
    if not path.exists():
        gguf.write(qwen3.contents(folder), path, quantisation)
    return LlamaModel(path, threads=1, rows=4, narrow=narrowed)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantisation", list(TOLERANCE))
def test_logits(folders: dict[bool, Path], quantisation: str, tied: bool) -> None:
    model = load(folders[tied], quantisation, narrowed=True)
    assert model.narrows
    prompt, draw = model.tokenize(PROMPTS[0]), np.random.default_rng(0)
    for policy in pace.POLICIES:
        model.pace = pace.Pace.of(policy)
        for rows in ROWS:
            options = [draw.choice(model.vocabulary, draw.integers(1, 40), replace=False) for _ in rows]
            model.prefill(prompt)
            expected = model.extend(rows)
            model.prefill(prompt)
            found = model.narrow(rows, options)
            assert [len(row) for row in found] == [len(some) for some in options]
            for row, some, full in zip(found, options, expected, strict=True):
                assert np.abs(row - full[some]).max() < TOLERANCE[quantisation]
    model.close()


def test_a_graph_that_is_not_cut_gives_its_own_logits(folders: dict[bool, Path]) -> None:
    model = load(folders[True], "q8_0", narrowed=True)
    assert model._cut is not None
    prompt, some = model.tokenize(PROMPTS[1]), np.array([3, 400, 9])
    model.prefill(prompt)
    expected = model.extend([(0, [7])])[0][some]
    model._cut._place = 10**6  # a graph with fewer nodes than the last one
    model.prefill(prompt)
    assert np.array_equal(model.narrow([(0, [7])], [some])[0], expected)
    model.prefill(prompt)
    assert not np.array_equal(model.narrow([(0, [7])], [some])[0], expected)
    assert model._cut.works
    model.close()


def test_many_options_use_the_whole_layer(folders: dict[bool, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrow, "FEW", 2)
    model = load(folders[True], "q8_0", narrowed=True)
    model.prefill([1, 2])
    expected = model.extend([(0, [7])])[0][:3]
    model.prefill([1, 2])
    assert np.array_equal(model.narrow([(0, [7])], [np.arange(3)])[0], expected)
    model.close()


def test_what_is_not_narrowed_is_asked_in_full(folders: dict[bool, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load(folders[True], "q8_0", narrowed=False)
    monkeypatch.setattr(narrow, "UNPACK", {})
    unknown = load(folders[True], "q8_0", narrowed=True)
    monkeypatch.setattr(narrow, "UNPACK", {8: lambda raw: np.ones((len(raw), 64), np.float32)})
    wrong = load(folders[True], "q8_0", narrowed=True)
    for model in (plain, unknown, wrong):
        assert not model.narrows
        model.prefill([1, 2])
        expected = model.extend([(0, [7])])[0][:3]
        model.prefill([1, 2])
        assert np.array_equal(model.narrow([(0, [7])], [np.arange(3)])[0], expected)
        model.close()


@pytest.mark.parametrize("surface", ["pointers", "names"])
def test_answers_are_the_same(folders: dict[bool, Path], surface: str) -> None:
    answers = []
    for narrowed in (False, True):
        model = load(folders[True], "f32", narrowed=narrowed)
        vocabulary = tokens.load(folders[True] / "tokenizer.json", ("<e>",), model.vocabulary)
        matcher, end = Matcher(vocabulary, TEMPLATE, shop(surface)), frozenset(vocabulary.ends)
        prompts = [model.tokenize(prompt) for prompt in PROMPTS[:3]]
        answers.append([decode.greedy(model, prompt, matcher.fork(), end, max_tokens=25) for prompt in prompts])
        answers[-1] += decode.beam(model, prompts[0], matcher.fork(), end, width=3, max_tokens=25)
        answers[-1] += decode.sample(model, prompts[0], matcher.fork(), end, count=3, max_tokens=25)
        model.close()
    for one, other in zip(*answers, strict=True):
        assert one.tokens == other.tokens
        assert abs(one.logprob - other.logprob) < 1e-2


def test_the_head_is_found(folders: dict[bool, Path]) -> None:
    for tied, name in ((True, "token_embd.weight"), (False, "output.weight")):
        load(folders[tied], "f16", narrowed=False).close()
        stored = header.check(folders[tied] / "f16.gguf")
        found = narrow.head(folders[tied] / "f16.gguf", stored)
        assert found is not None
        (tensor,) = [one for one in gguf.read(folders[tied] / "f16.gguf").tensors if one.name == name]
        hidden = np.random.default_rng(0).normal(size=64).astype(np.float32)
        some = [0, 5, 700]
        assert np.allclose(found.logits(hidden, some), tensor.read()[some] @ hidden, atol=1e-4)
        assert narrow.head(folders[tied] / "f16.gguf", {**stored, "output.bias": stored[name]}) is None
