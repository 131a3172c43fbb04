"""Whether a bound grammar accepts a text, and where it stops if not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer

from expert_cli.errors import GrammarError
from expert_cli.grammar.matcher import Compile, Matcher
from expert_cli.grammar.tokens import Vocabulary
from expert_cli.task import Binding

SHOWN = 12
"""Continuations named where a text is refused."""


@dataclass(frozen=True)
class Verdict:
    """``at`` is the number of characters that were accepted, ``expected`` what could have followed them."""

    accepted: bool
    at: int
    expected: tuple[str, ...] = ()


def judge(matcher: Matcher, text: str) -> Verdict:
    """Follow ``text`` with ``matcher``, which is at its start, to the end of a sentence."""
    for token in _tokenizer(matcher.vocabulary.text).encode(text, add_special_tokens=False).ids:
        try:
            matcher.consume(token)
        except GrammarError:
            return Verdict(False, len(matcher.written), _expected(matcher))
    if matcher.complete():
        return Verdict(True, len(text))
    return Verdict(False, len(text), _expected(matcher))


def fault(
    vocabulary: Vocabulary, grammar: str, binding: Binding, tokens: Sequence[int], compile: Compile
) -> GrammarError | None:
    """What is wrong with ``tokens``, all that a model wrote before its end mark, in the eyes of an engine.

    ``grammar`` is the template; its scopes are opened anew as ``tokens`` write them.
    """
    matcher = Matcher(vocabulary, grammar, binding, compile)
    try:
        for token in tokens:
            matcher.consume(token)
    except GrammarError as problem:
        return problem
    return None if matcher.complete() else GrammarError(f"{matcher.written!r} is no whole sentence of the grammar")


@lru_cache(maxsize=4)
def _tokenizer(text: str) -> Tokenizer:
    return Tokenizer.from_str(text)


def _expected(matcher: Matcher) -> tuple[str, ...]:
    pieces = (matcher.vocabulary.pieces[token].decode("utf-8", "replace") for token in matcher.allowed())
    return tuple(sorted(dict.fromkeys(pieces), key=len, reverse=True)[:SHOWN])
