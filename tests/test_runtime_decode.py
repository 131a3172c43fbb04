"""The decoding loops over a model whose probabilities are written down, so that every result can be worked out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from expert_cli.errors import GrammarError, UsageError
from expert_cli.runtime import decode
from expert_cli.runtime.decode import Candidate

WORDS = ["<e>", "a", "b", "c", "d", "FROM", "\N{FACE WITH TEARS OF JOY}"]
END = frozenset({0})


@dataclass
class TableModel:
    """Next-token probabilities by what was written; uniform where nothing is said. Counts what it computes."""

    table: Mapping[tuple[int, ...], Sequence[float]]
    rows: int = 4
    vocabulary: int = len(WORDS)
    context: int = 32
    reused: int = 0
    read: int = 0
    calls: int = 0
    live: list[tuple[int, ...]] = field(default_factory=list)

    def tokenize(self, text: str) -> list[int]:
        return [WORDS.index(word) for word in text.split()]

    def piece(self, token: int) -> bytes:
        return WORDS[token].encode()

    def prefill(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self.live = [()]
        return self._logits()

    def extend(self, rows: Sequence[tuple[int, Sequence[int]]]) -> npt.NDArray[np.float32]:
        assert 0 < len(rows) <= self.rows
        assert all(tokens for _, tokens in rows)
        self.calls += 1
        self.read += sum(len(tokens) for _, tokens in rows)
        self.live = [(*self.live[parent], *tokens) for parent, tokens in rows]
        return self._logits()

    def close(self) -> None:
        self.live = []

    def _logits(self) -> npt.NDArray[np.float32]:
        uniform = [1 / self.vocabulary] * self.vocabulary
        chosen = [self.table.get(path, uniform) for path in self.live]
        with np.errstate(divide="ignore"):
            return np.log(np.array(chosen, np.float32))


class ListMatcher:
    """Allows exactly the listed sequences; forces what all remaining ones share."""

    def __init__(self, accepted: Sequence[Sequence[int]], written: tuple[int, ...] = ()) -> None:
        self.accepted = [tuple(each) for each in accepted]
        self.path = written

    @property
    def written(self) -> str:
        return "".join(WORDS[token] for token in self.path)

    def _next(self) -> set[int]:
        here = len(self.path)
        going = [each for each in self.accepted if each[:here] == self.path]
        return {each[here] if len(each) > here else 0 for each in going}

    def options(self) -> npt.NDArray[np.intp]:
        return np.array(sorted(self._next()), np.intp)

    def forced(self) -> list[int]:
        following = self._next() - {0}
        return list(following) if len(self._next()) == 1 else []

    def consume(self, token: int) -> None:
        if token not in self._next():
            raise GrammarError(f"{token} may not follow {self.path}")
        self.path = (*self.path, token)

    def complete(self) -> bool:
        return 0 in self._next()

    def fork(self) -> ListMatcher:
        return ListMatcher(self.accepted, self.path)


def markov(seed: int = 0) -> TableModel:
    """A model with random probabilities for every sequence of up to 4 tokens."""
    draw = np.random.default_rng(seed)
    paths = (path for length in range(5) for path in itertools.product(range(len(WORDS)), repeat=length))
    return TableModel({path: draw.dirichlet([0.7] * len(WORDS)).tolist() for path in paths})


def worth(model: TableModel, tokens: Sequence[int]) -> float:
    """The log-probability of a sequence and its end mark."""
    full = (*tokens, 0)
    return sum(math.log(model.table[full[:place]][token]) for place, token in enumerate(full))


def test_greedy_takes_the_likeliest() -> None:
    model = TableModel(
        {(): [0.1, 0.6, 0.3, 0, 0, 0, 0], (1,): [0.2, 0, 0.8, 0, 0, 0, 0], (1, 2): [1, 0, 0, 0, 0, 0, 0]}
    )
    found = decode.greedy(model, [1], None, END, max_tokens=9)
    assert found == Candidate("ab", (1, 2), pytest.approx(math.log(0.6 * 0.8)), 3, True)


def test_stream_grows_to_the_greedy_candidate() -> None:
    steps = list(decode.stream(markov(3), [1], None, frozenset(), max_tokens=4))
    assert [len(step.tokens) for step in steps] == [1, 2, 3, 4]
    assert all(after.text.startswith(before.text) for before, after in itertools.pairwise(steps))
    assert steps[-1] == decode.greedy(markov(3), [1], None, frozenset(), max_tokens=4)
    assert not steps[-1].finished


def test_probabilities_are_renormalised_under_the_mask() -> None:
    model = TableModel({(): [0.1, 0.2, 0.3, 0.4, 0, 0, 0]})
    found = decode.greedy(model, [1], ListMatcher([[1], [2]]), END, max_tokens=9)
    assert found.tokens == (2,)
    assert found.logprob == pytest.approx(math.log(0.3 / 0.5))


def test_forced_tokens_are_fed_together_and_not_scored() -> None:
    model = TableModel({(5, 1): [0, 0, 0.25, 0.75, 0, 0, 0]})
    found = decode.greedy(model, [1], ListMatcher([[5, 1, 2, 4, 4], [5, 1, 3, 1, 2]]), END, max_tokens=9)
    assert found == Candidate("FROMacab", (5, 1, 3, 1, 2), pytest.approx(math.log(0.75)), 1, True)
    # the shared beginning in one call; what follows the only choice never reaches the model
    assert (model.calls, model.read) == (1, 2)


def test_only_one_sentence_needs_no_model() -> None:
    model = TableModel({})
    found = [
        decode.greedy(model, [1], ListMatcher([[5, 1]]), END, max_tokens=9),
        *decode.beam(model, [1], ListMatcher([[5, 1]]), END, width=3, max_tokens=9),
        *decode.sample(model, [1], ListMatcher([[5, 1]]), END, count=1, max_tokens=9),
    ]
    assert found == [Candidate("FROMa", (5, 1), 0.0, 0, True)] * 3
    assert model.calls == 0


def test_two_end_marks_are_no_choice() -> None:
    class TwoEnds(ListMatcher):
        def _next(self) -> set[int]:
            found = super()._next()
            return found | {6} if 0 in found else found

    model = TableModel({})
    found = decode.greedy(model, [1], TwoEnds([[5, 1]]), frozenset({0, 6}), max_tokens=9)
    assert (found.text, found.choices, model.calls) == ("FROMa", 0, 0)


@pytest.mark.parametrize("seed", range(8))
def test_wide_beam_finds_the_best_of_all_sentences(seed: int) -> None:
    model = markov(seed)
    model.rows = 400
    tokens = range(1, len(WORDS))
    sentences = [path for length in range(4) for path in itertools.product(tokens, repeat=length)]
    best = sorted(sentences, key=lambda path: worth(model, path), reverse=True)
    found = decode.beam(model, [1], ListMatcher(sentences), END, width=300, max_tokens=4)
    # forced ends are certain, so compare only sentences that the grammar lets go on
    shown = [each for each in found if len(each.tokens) < 3]
    wanted = [path for path in best if len(path) < 3]
    assert [each.tokens for each in shown][:5] == wanted[:5]
    assert shown[0].logprob == pytest.approx(worth(model, wanted[0]), abs=1e-4)


def test_beam_of_one_is_greedy_where_no_end_competes() -> None:
    model = TableModel({(): [0, 0.6, 0.4, 0, 0, 0, 0], (1,): [0, 0, 1, 0, 0, 0, 0], (1, 2): [1, 0, 0, 0, 0, 0, 0]})
    assert decode.beam(model, [1], None, END, width=1, max_tokens=9) == [
        decode.greedy(model, [1], None, END, max_tokens=9)
    ]


def test_beam_overtakes_greedy() -> None:
    model = TableModel(
        {
            (): [0, 0.6, 0.4, 0, 0, 0, 0],
            (1,): [0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.2],
            (2,): [0, 0, 0, 1, 0, 0, 0],
            (2, 3): [1, 0, 0, 0, 0, 0, 0],
        }
    )
    assert decode.greedy(model, [1], None, END, max_tokens=1).tokens == (1,)
    found = decode.beam(model, [1], None, END, width=2, max_tokens=4)
    assert [each.text for each in found] == ["bc", "a"]
    assert [each.logprob for each in found] == pytest.approx([math.log(0.4), math.log(0.18)])
    assert found == sorted(found, key=lambda each: -each.logprob)


def test_length_power_prefers_longer_sentences() -> None:
    table = {(): [0.5, 0.5, 0, 0, 0, 0, 0], (1,): [0.1, 0, 0.9, 0, 0, 0, 0], (1, 2): [1, 0, 0, 0, 0, 0, 0]}
    plain = decode.beam(TableModel(table), [1], None, END, width=2, max_tokens=4)
    normed = decode.beam(TableModel(table), [1], None, END, width=2, max_tokens=4, length_power=1.0)
    assert [each.tokens for each in plain] == [(), (1, 2)]
    assert [each.tokens for each in normed] == [(1, 2), ()]


def test_cut_candidates_say_so() -> None:
    even, uneven = [0, 0.7, 0.3, 0, 0, 0, 0], [0, 0.8, 0.2, 0, 0, 0, 0]
    model = TableModel({(): even, (1,): uneven, (2,): uneven})
    found = decode.beam(model, [1], None, END, width=2, max_tokens=2)
    assert [(each.tokens, each.finished) for each in found] == [((1, 1), False), ((2, 1), False)]
    assert decode.greedy(model, [1] * 31, None, END, max_tokens=9).tokens == (1,)


def test_search_shows_the_leader() -> None:
    steps = decode.search(markov(5), [1], None, END, width=3, max_tokens=3)
    leaders = [next(steps)]
    assert leaders[0].tokens


def test_samples_follow_the_probabilities() -> None:
    model = TableModel({(): [0, 0.7, 0.2, 0.1, 0, 0, 0], (1,): [1] + [0] * 6, (2,): [1] + [0] * 6, (3,): [1] + [0] * 6})
    model.rows = 3000
    found = decode.sample(model, [1], None, END, count=3000, max_tokens=4, seed=7)
    share = [sum(each.tokens == (token,) for each in found) / 3000 for token in (1, 2, 3)]
    assert share == pytest.approx([0.7, 0.2, 0.1], abs=0.03)
    assert {each.text: each.logprob for each in found}["b"] == pytest.approx(math.log(0.2))
    again = decode.sample(model, [1], None, END, count=3000, max_tokens=4, seed=7)
    assert found == again
    cold = decode.sample(model, [1], None, END, count=50, max_tokens=4, temperature=0.05)
    assert {each.tokens for each in cold} == {(1,)}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: decode.beam(model, [1], None, END, width=5, max_tokens=4), "4 rows"),
        (lambda model: decode.sample(model, [1], None, END, count=9, max_tokens=4), "4 rows"),
        (lambda model: decode.sample(model, [1], None, END, count=1, max_tokens=4, temperature=0), "temperature 0"),
    ],
)
def test_refused(call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(markov())  # type: ignore[operator]


def test_a_dead_end_in_the_grammar_is_named() -> None:
    class Stuck(ListMatcher):
        def _next(self) -> set[int]:
            return super()._next() if not self.path else set()

    with pytest.raises(GrammarError, match="allows nothing after 'a'"):
        decode.greedy(TableModel({}), [1], Stuck([[1, 2], [1, 3]]), END, max_tokens=4)


def test_text_cut_within_a_character_is_marked() -> None:
    class Bytes(TableModel):
        def piece(self, token: int) -> bytes:
            return "\N{FACE WITH TEARS OF JOY}".encode()[token - 1 : token]

    table = {(): [0, 1, 0, 0, 0, 0, 0], (1,): [0, 0, 1, 0, 0, 0, 0], (1, 2): [0, 0, 0, 1, 0, 0, 0]}
    whole = Bytes(table | {(1, 2, 3): [0, 0, 0, 0, 1, 0, 0], (1, 2, 3, 4): [1, 0, 0, 0, 0, 0, 0]})
    assert decode.greedy(whole, [1], None, END, max_tokens=9).text == "\N{FACE WITH TEARS OF JOY}"
    assert decode.greedy(Bytes(table), [1], None, END, max_tokens=2).text == "\N{REPLACEMENT CHARACTER}"
