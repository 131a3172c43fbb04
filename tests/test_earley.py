"""The recogniser against llguidance's verdicts: llama.cpp's cases, and SQL samples and their neighbours."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from grammar_cases import VOCABULARY, Open
from test_binding import TEMPLATE, shop
from test_grammar_llama import CASES, ids
from test_grammar_llama import VOCABULARY as NUMBERED

from expert_cli.errors import GrammarError
from expert_cli.grammar.earley import compiled
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.sample import sample
from experts.sql.binding import PointerBinding
from experts.sql.pointing import StandingBinding
from experts.sql.selecting import SelectingBinding


def followed(matcher: Matcher, tokens: list[int]) -> bool:
    try:
        for token in tokens:
            matcher.consume(token)
    except GrammarError:
        return False
    return matcher.complete()


@pytest.mark.parametrize("case", [case for case in CASES if "faulty" not in case], ids=lambda case: case["name"])
def test_verdicts_of_llama_cpp(case: dict[str, Any]) -> None:
    matcher = Matcher(NUMBERED, case["grammar"], Open(), compiled)
    assert [text for text in case["accepts"] if not followed(matcher.fork(), ids(text))] == []
    assert [text for text in case["refuses"] if followed(matcher.fork(), ids(text))] == []


@pytest.mark.parametrize("surface", ["pointers", "pointers-select", "names"])
def test_verdicts_on_samples_and_their_neighbours(surface: str) -> None:
    bound = shop("names" if surface == "names" else "pointers")
    binding: Any = bound
    if isinstance(bound.surface, PointerBinding):
        binding = (SelectingBinding if surface == "pointers-select" else StandingBinding)(bound.surface)
    start, ours = Matcher(VOCABULARY, TEMPLATE, binding), Matcher(VOCABULARY, TEMPLATE, binding, compiled)
    draw, accepted, refused = Random(4), 0, 0
    for seed in range(12):
        writer = start.fork()
        if sample(writer, Random(seed), most=120, calm=15) is None:
            continue
        tokens = [token for token in writer.tokens if token not in VOCABULARY.ends]
        assert followed(ours.fork(), tokens), writer.written
        accepted += 1
        for _ in range(6):
            changed = list(tokens)
            at = draw.randrange(len(changed))
            changed[at : at + draw.randint(0, 2)] = [draw.choice(tokens)]
            verdict = followed(start.fork(), changed)
            assert followed(ours.fork(), changed) == verdict, changed
            refused += not verdict
    assert accepted > 5
    assert refused > 20


@pytest.mark.parametrize("cut", [b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xed\x9f", b"\xf4\x8f"])
def test_a_character_may_come_in_parts(cut: bytes) -> None:
    start = Matcher(VOCABULARY, r'root ::= "a" . "b"', Open(), compiled)
    tokens = [VOCABULARY.size - 256 + byte for byte in b"a" + cut]
    rest = {
        b"\xc3": b"\xa9",
        b"\xe2\x82": b"\xac",
        b"\xf0\x9f\x98": b"\x80",
        b"\xed\x9f": b"\xbf",
        b"\xf4\x8f": b"\xbf\xbf",
    }[cut]
    assert not followed(start.fork(), tokens)
    assert followed(start.fork(), [*tokens, *(VOCABULARY.size - 256 + byte for byte in rest + b"b")])
    assert not followed(start.fork(), [*tokens, VOCABULARY.size - 256 + ord("b")])


@pytest.mark.parametrize("never", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x80", b"\xf5", b"\xe0\x80", b"\x80"])
def test_bytes_that_are_no_text_are_refused(never: bytes) -> None:
    start = Matcher(VOCABULARY, "root ::= .+", Open(), compiled)
    assert not followed(start, [VOCABULARY.size - 256 + byte for byte in never])
    assert len(start.tokens) < len(never)
