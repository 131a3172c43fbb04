"""Probabilities under a grammar, against brute force: every token sequence that it allows, scored by the other backend.

llama.cpp decodes, transformers says what each sequence is worth: the product, over its choices, of the softmax among
the tokens that the mask left. Where a language is small enough to write out, beams and samples can be held to that.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from grammar_cases import Open
from tiny_qwen3 import PROMPTS, save

from expert_cli.grammar import tokens
from expert_cli.grammar.matcher import Matcher
from expert_cli.runtime import decode, gguf, qwen3
from expert_cli.runtime.llama import LlamaModel

GRAMMARS = {
    # words that share their beginnings, in all the ways that their tokens cut them
    "words": 'root ::= "an" | "ant" | ("of" [0-1] | <c1>) (" or" (" x" | <c2>))?',
    # ends that compete with going on, again and again
    "counts": 'root ::= ("COUNT(" | <t0>) ("1" | "2" ("3" ("4" "5"?)?)?)? ")"?',
    # one choice between stretches that must follow
    "forced": 'root ::= "SELECT singer" (" LIMIT 1" | ", COUNT(*)" (" DESC" | "")) | "FROM<t0>"',
    # bytes of characters that no token holds whole
    "bytes": 'root ::= [ア-エ] [ж-и]? | "東京"',
}
LONGEST = 24


@dataclass(frozen=True)
class Leaf:
    """A sequence of tokens that the grammar allows: its choices as (place, options, chosen) over the tokens before."""

    tokens: tuple[int, ...]
    choices: tuple[tuple[int, tuple[int, ...], int], ...]


def leaves(matcher: Matcher, ends: frozenset[int], written: tuple[int, ...] = (), made: tuple = ()) -> Iterator[Leaf]:  # type: ignore[type-arg]
    """Every way through the grammar, with no regard to what the decoding loops do."""
    forced = tuple(token for token in matcher.forced() if token not in ends)
    if forced:
        matcher = matcher.fork()
        for token in forced:
            matcher.consume(token)
        yield from leaves(matcher, ends, (*written, *forced), made)
        return
    options = tuple(matcher.allowed())
    if set(options) <= ends:
        yield Leaf(written, made)
        return
    for token in options:
        choices = (*made, (len(written), options, token))
        if token in ends:
            yield Leaf(written, choices)
            continue
        beyond = matcher.fork()
        beyond.consume(token)
        yield from leaves(beyond, ends, (*written, token), choices)


class Reference:
    """What transformers gives a sequence, in 64 bits; each beginning is read once."""

    def __init__(self, folder: Path, prompt: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        self.prompt = tokens_of(folder, prompt)
        self.known: dict[tuple[int, ...], np.ndarray] = {}

    def logits(self, written: tuple[int, ...]) -> np.ndarray:
        if written not in self.known:
            with self.torch.inference_mode():
                found = self.model(input_ids=self.torch.tensor([[*self.prompt, *written]])).logits[0, -1]
            self.known[written] = found.numpy()
        return self.known[written]

    def logprob(self, leaf: Leaf, temperature: float = 1.0) -> float:
        total = 0.0
        for place, options, chosen in leaf.choices:
            logits = self.logits(leaf.tokens[:place])[list(options)] / temperature
            total += float(logits[options.index(chosen)] - logits.max() - np.log(np.exp(logits - logits.max()).sum()))
        return total


def tokens_of(folder: Path, text: str) -> list[int]:
    from tokenizers import Tokenizer

    found: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False).ids
    return found


@dataclass
class Enumerated:
    model: LlamaModel
    prompt: list[int]
    matcher: Matcher
    ends: frozenset[int]
    leaves: list[Leaf]
    reference: Reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="a random base is made with PyTorch")
    found = save(tmp_path_factory.mktemp("tiny"), seed=5)
    gguf.write(qwen3.contents(found), found / "tiny.gguf", "f32")
    return found


@pytest.fixture(scope="module", params=GRAMMARS)
def case(request: pytest.FixtureRequest, folder: Path) -> Iterator[Enumerated]:
    model = LlamaModel(folder / "tiny.gguf", threads=1, rows=48, exact=True)
    vocabulary = tokens.load(folder / "tokenizer.json", ("<e>",), model.vocabulary)
    matcher, ends = Matcher(vocabulary, GRAMMARS[request.param], Open()), frozenset(vocabulary.ends)
    found = list(leaves(matcher.fork(), ends))
    assert 3 < len(found) <= model.rows
    reference = Reference(folder, PROMPTS[2])
    assert model.tokenize(PROMPTS[2]) == reference.prompt
    yield Enumerated(model, reference.prompt, matcher, ends, found, reference)
    model.close()


def test_all_that_is_allowed_adds_up_to_one(case: Enumerated) -> None:
    total = sum(math.exp(case.reference.logprob(leaf)) for leaf in case.leaves)
    assert total == pytest.approx(1.0, abs=1e-12)
    # the raw probabilities do not: the mask takes most of the model's mass away
    raw = 0.0
    for leaf in case.leaves:
        masses = [np.exp(logits - logits.max()) for logits in map(case.reference.logits, prefixes(leaf))]
        raw += math.prod(
            float(mass[chosen] / mass.sum()) for mass, (_, _, chosen) in zip(masses, leaf.choices, strict=True)
        )
    assert raw < 0.5


def prefixes(leaf: Leaf) -> list[tuple[int, ...]]:
    return [leaf.tokens[:place] for place, _, _ in leaf.choices]


@pytest.mark.parametrize("spare", [0, 5])
def test_a_beam_as_wide_as_the_language_is_the_language(case: Enumerated, spare: int) -> None:
    width = min(len(case.leaves) + spare, case.model.rows)
    found = decode.beam(case.model, case.prompt, case.matcher.fork(), case.ends, width=width, max_tokens=LONGEST)
    assert all(one.finished for one in found)
    worth = {leaf.tokens: case.reference.logprob(leaf) for leaf in case.leaves}
    assert sorted(one.tokens for one in found) == sorted(worth)
    for one in found:
        assert one.logprob == pytest.approx(worth[one.tokens], abs=2e-4)
        assert one.choices == next(len(leaf.choices) for leaf in case.leaves if leaf.tokens == one.tokens)
    assert sum(math.exp(one.logprob) for one in found) == pytest.approx(1.0, abs=1e-4)
    # in the order of the reference, but for neighbours that floats cannot tell apart
    ordered = [worth[one.tokens] for one in found]
    assert all(before > after - 1e-3 for before, after in pairwise(ordered))


def test_a_narrow_beam_finds_its_share_of_them(case: Enumerated) -> None:
    worth = {leaf.tokens: case.reference.logprob(leaf) for leaf in case.leaves}
    for width in (1, 2, 3):
        found = decode.beam(case.model, case.prompt, case.matcher.fork(), case.ends, width=width, max_tokens=LONGEST)
        assert len(found) == width
        assert [one.logprob for one in found] == pytest.approx([worth[one.tokens] for one in found], abs=2e-4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_come_as_often_as_they_are_worth(case: Enumerated, temperature: float) -> None:
    drawn: Counter[tuple[int, ...]] = Counter()
    worth = {leaf.tokens: case.reference.logprob(leaf) for leaf in case.leaves}
    for seed in range(50):
        found = decode.sample(
            case.model, case.prompt, case.matcher.fork(), case.ends,
            count=40, max_tokens=LONGEST, temperature=temperature, seed=seed,
        )  # fmt: skip
        drawn.update(one.tokens for one in found)
        assert all(one.logprob == pytest.approx(worth[one.tokens], abs=2e-4) for one in found)
    assert set(drawn) <= set(worth)
    expected = {leaf.tokens: 2000 * math.exp(case.reference.logprob(leaf, temperature)) for leaf in case.leaves}
    statistic, cells = chi_square(drawn, expected)
    assert statistic < bound(cells - 1), f"chi-square {statistic:.1f} over {cells} cells"
    # the test can fail: against the probabilities of another temperature it does
    other = {leaf.tokens: 2000 * math.exp(case.reference.logprob(leaf, 3.0 - temperature)) for leaf in case.leaves}
    statistic, cells = chi_square(drawn, other)
    assert statistic > bound(cells - 1)


def chi_square(drawn: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> tuple[float, int]:
    """The statistic and its cells; rare sequences are one cell."""
    rare = [one for one, count in expected.items() if count < 5]
    pairs = [(drawn[one], count) for one, count in expected.items() if count >= 5]
    if rest := sum(expected[one] for one in rare):
        pairs.append((sum(drawn[one] for one in rare), rest))
    return sum((found - count) ** 2 / count for found, count in pairs), len(pairs)


def bound(freedom: int) -> float:
    """What chi-square exceeds once in a thousand times (Wilson and Hilferty)."""
    part = 2 / (9 * freedom)
    return freedom * (1 - part + 3.09 * math.sqrt(part)) ** 3
