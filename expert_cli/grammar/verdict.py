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
    """Follow ``text`` with ``matcher``, which is at its start, to the end of a sentence.

    A token may reach over a place at which a scope opens, where its bytes can only be written one by one.
    """
    for token in _tokenizer(matcher.vocabulary.text).encode(text, add_special_tokens=False).ids:
        if not _follows(matcher, [token]) and not _follows(matcher, _bytes(matcher.vocabulary, token)):
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


def _follows(matcher: Matcher, tokens: Sequence[int]) -> bool:
    """Whether ``tokens`` could be read; the matcher stays before the first that could not."""
    try:
        for token in tokens:
            matcher.consume(token)
    except GrammarError:
        return False
    return bool(tokens)


def _bytes(vocabulary: Vocabulary, token: int) -> list[int]:
    """The tokens of the bytes of ``token``; none where the vocabulary lacks one, or the token is special."""
    known = _single(vocabulary)
    piece = b"" if token in vocabulary.special else vocabulary.pieces[token]
    return [known[byte] for byte in piece] if known.keys() >= set(piece) else []


@lru_cache(maxsize=4)
def _single(vocabulary: Vocabulary) -> dict[int, int]:
    """The tokens that are one byte."""
    pieces = enumerate(vocabulary.pieces)
    return {piece[0]: token for token, piece in pieces if len(piece) == 1 and token not in vocabulary.special}


@lru_cache(maxsize=4)
def _tokenizer(text: str) -> Tokenizer:
    return Tokenizer.from_str(text)


def _expected(matcher: Matcher) -> tuple[str, ...]:
    pieces = (matcher.vocabulary.pieces[token].decode("utf-8", "replace") for token in matcher.allowed())
    return tuple(sorted(dict.fromkeys(pieces), key=len, reverse=True)[:SHOWN])
