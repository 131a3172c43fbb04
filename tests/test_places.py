"""Tokens that stand for others, and places of a grammar that are kept: nothing that may be written changes by either."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest

from expert_cli.errors import GrammarError
from expert_cli.grammar import places
from expert_cli.grammar.matcher import Matcher, explored
from expert_cli.grammar.tokens import bytewise

VOCABULARY = bytewise(("<e>", *(f"<x{number}>" for number in range(8))), "<e>")
WRITTEN_OUT = """
root ::= "a" (one | two)
one ::= <x1> ("," (<x1> | <x4>))* "b"
two ::= (<x2> | <x3>) ("," (<x2> | <x3> | <x5>))* "c"
"""
STANDING = """
root ::= "a" (<x0> ("," <x6>)* "b" | <x7> ("," <x6>)* "c")
"""


class Closed:
    """A grammar without hooks."""

    def state(self, written: str) -> int:
        return 0

    def rules(self, state: int) -> Mapping[str, str]:
        return {}


class Ahead(Closed):
    """What comes after the first token depends on it."""

    stand_ins = ("<x0>", "<x6>", "<x7>")

    def stands(self, token: str, written: str) -> frozenset[str]:
        following = {"<x1>": {"<x1>", "<x4>"}}.get(written[1:5], {"<x2>", "<x3>", "<x5>"})
        return frozenset({"<x0>": {"<x1>"}, "<x7>": {"<x2>", "<x3>"}}.get(token, following))


def both() -> tuple[Matcher, Matcher]:
    return Matcher(VOCABULARY, STANDING, Ahead()), Matcher(VOCABULARY, WRITTEN_OUT, Closed())


def accepted(matcher: Matcher) -> list[int]:
    """The tokens that a matcher takes when each is tried, its end apart."""
    found = []
    for token in range(1, VOCABULARY.size):
        fork = matcher.fork()
        try:
            fork.consume(token)
        except GrammarError:
            continue
        found.append(token)
    return found


@pytest.fixture(params=[places.MOST_PLACES, 3], ids=["kept", "forgotten"])
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many places are kept."""
    monkeypatch.setattr(places, "MOST_PLACES", request.param)
    return int(request.param)


@pytest.mark.usefixtures("room")
def test_standing_says_what_the_grammar_says_written_out() -> None:
    draw, ends = Random(1), 0
    for _ in range(60):
        one, other = both()
        while other.allowed() != [0]:
            assert one.allowed() == other.allowed(), other.written
            assert one.forced() == other.forced(), other.written
            assert one.complete() == other.complete()
            assert accepted(one) == accepted(other) == [token for token in other.allowed() if token]
            token = draw.choice([token for token in other.allowed() if token])
            one.consume(token)
            other.consume(token)
        ends += one.allowed() == [0] and one.written == other.written
    assert ends == 60


def test_a_token_is_refused_where_it_stands_for_others_only() -> None:
    matcher, _ = both()
    matcher.consume(VOCABULARY.ids["a"])
    for name in ("<x0>", "<x6>", "<x7>", "<x5>"):
        with pytest.raises(GrammarError, match="cannot follow 'a'"):
            matcher.consume(VOCABULARY.token(name))
    matcher.consume(VOCABULARY.token("<x3>"))
    assert matcher.written == "a<x3>"


def test_what_was_seen_is_not_asked_again() -> None:
    first = Matcher(VOCABULARY, WRITTEN_OUT, Closed())
    first.consume(VOCABULARY.ids["a"])
    mask = first.mask()
    second = Matcher(VOCABULARY, WRITTEN_OUT, Closed())
    second.consume(VOCABULARY.ids["a"])
    assert second.mask() is mask
    assert explored(VOCABULARY, WRITTEN_OUT, Closed(), 0) is explored(VOCABULARY, WRITTEN_OUT, Closed(), 0)
    with pytest.raises(ValueError, match="read-only"):
        mask[0] = -1


def test_forks_go_their_own_ways() -> None:
    matcher = Matcher(VOCABULARY, WRITTEN_OUT, Closed())
    matcher.consume(VOCABULARY.ids["a"])
    forks = [matcher.fork() for _ in range(3)]
    for fork, name in zip(forks, ("<x1>", "<x2>", "<x3>"), strict=True):
        fork.consume(VOCABULARY.token(name))
        fork.consume(VOCABULARY.ids[","])
    assert [fork.written for fork in (matcher, *forks)] == ["a", "a<x1>,", "a<x2>,", "a<x3>,"]
    assert [len(fork.allowed()) for fork in (matcher, *forks)] == [3, 2, 3, 3]
