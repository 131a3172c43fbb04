"""Verdicts of llama.cpp's own tests (test-grammar-integration.cpp, MIT licence), an outside yardstick for reading GBNF."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grammar_cases import Open, accepts

from expert_cli.errors import GrammarError
from expert_cli.grammar import gbnf
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.tokens import bytewise

SPECIAL = ("<e>", *(f"<x{number}>" for number in range(1, 30)))
VOCABULARY = bytewise(SPECIAL, "<e>")
FIXTURE = Path(__file__).parent / "fixtures" / "llama_grammar.jsonl"
CASES = [json.loads(line) for line in FIXTURE.read_text("utf-8").splitlines()]


def ids(parts: str | list[str | int]) -> list[int]:
    """Numbers are token ids, text is bytes."""
    found: list[int] = []
    for part in [parts] if isinstance(parts, str) else parts:
        found += [part] if isinstance(part, int) else [len(SPECIAL) + byte for byte in part.encode()]
    return found


def test_all_its_grammars_are_here() -> None:
    """It calls ``test_grammar`` 14 times, and has six grammars that must not be read."""
    assert [sum(("faulty" in case) == faulty for case in CASES) for faulty in (False, True)] == [14, 6]


@pytest.mark.parametrize("case", [case for case in CASES if "faulty" not in case], ids=lambda case: case["name"])
def test_verdicts(case: dict[str, Any]) -> None:
    matcher = Matcher(VOCABULARY, case["grammar"], Open())
    wrong = [text for text in case["accepts"] if not accepts(matcher.fork(), ids(text))]
    wrong += [text for text in case["refuses"] if accepts(matcher.fork(), ids(text))]
    assert not wrong


@pytest.mark.parametrize("case", [case for case in CASES if "faulty" in case], ids=lambda case: case["name"])
def test_faults(case: dict[str, Any]) -> None:
    with pytest.raises(GrammarError, match=r"line \d+, column \d+"):
        gbnf.parse(case["grammar"])
