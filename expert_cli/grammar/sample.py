"""Texts drawn from a grammar without any model: at every step one of the allowed tokens, all equally likely.

Grammars of nested constructs would rarely come to an end that way: after ``calm`` tokens, what closes is preferred. A
run of free characters, where most of the vocabulary is allowed, ends after a few tokens.
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from expert_cli.grammar.matcher import Matcher

OFTEN = 0.3
CALM = 0.7  # how often what leads onward is preferred from the beginning
FREE = 200  # allowed tokens from which on a place counts as a run of free characters
# The beginnings of words that go on with a text where something else could delay it.
TOWARDS = (" SELECT", " THEN", " END", " AS", " FROM", " ON")
QUOTES = (b"'", b'"', b"`")


def sample(
    matcher: Matcher,
    draw: Random,
    *,
    calm: int = 60,
    most: int = 2000,
    onward: Collection[str] = (),
    often: Collection[str] = (),
) -> str | None:
    """One text of at most ``most`` tokens, ``matcher`` being at its start; None where it did not end in time.

    ``onward`` are words that lead towards the end where nothing closes; with them most steps are calm from the start.
    The words ``often`` come more often than others where they may come.
    """
    for step in range(most):
        forced = matcher.forced()
        calmly = step >= calm or bool(onward and draw.random() < CALM)
        token = forced[0] if forced else _drawn(matcher, draw, calmly, onward, often)
        if token in matcher.vocabulary.ends:
            return matcher.written
        matcher.consume(token)
    return None


def _drawn(matcher: Matcher, draw: Random, calm: bool, onward: Collection[str], often: Collection[str]) -> int:
    allowed = matcher.allowed()
    if len(allowed) > FREE:
        quotes = (token for token in allowed if matcher.vocabulary.pieces[token] in QUOTES)
        if (calm or draw.random() < 0.25) and (closing := next((one for one in quotes if _ends(matcher, one)), None)):
            return closing
    elif often and draw.random() < OFTEN and (found := [one for one in allowed if _word(matcher, one) in often]):
        return draw.choice(found)
    elif calm:
        ranks = [_rank(matcher, token, onward) for token in allowed]
        allowed = [token for token, rank in zip(allowed, ranks, strict=True) if rank == min(ranks)]
    return draw.choice(allowed)


def _word(matcher: Matcher, token: int) -> str:
    return matcher.vocabulary.pieces[token].decode("utf-8", "replace").strip()


def _ends(matcher: Matcher, token: int) -> bool:
    """Whether ``token`` ends the run of free characters that ``matcher`` is in."""
    beyond = matcher.fork()
    beyond.consume(token)
    return len(beyond.allowed()) <= FREE


def _closes(matcher: Matcher, token: int) -> bool:
    """Whether what is open, or the text, may end right after ``token``."""
    beyond = matcher.fork()
    beyond.consume(token)
    pieces = (beyond.vocabulary.pieces[one] for one in beyond.allowed() if one not in beyond.vocabulary.ends)
    return beyond.complete() or any(piece.lstrip().startswith(b")") for piece in pieces)


def _rank(matcher: Matcher, token: int, onward: Collection[str]) -> int:
    """How far ``token`` leads from the end of the text: what closes is first, what opens last."""
    if token in matcher.vocabulary.ends:
        return 0
    piece = matcher.vocabulary.pieces[token].decode("utf-8", "replace")
    if piece.lstrip().startswith(")") or _word(matcher, token) in onward:
        return 1
    if piece.strip().isdigit() and not matcher.written[-1:].isdigit():
        return 2 if onward or _closes(matcher, token) else 3
    if not onward and len(piece) > 2 and any(word.startswith(piece) for word in TOWARDS):
        return 2
    if piece.startswith("'") and matcher.written.endswith("'"):
        return 7
    opens = 2 if "(" in piece or piece.isdigit() else 0
    return 3 + opens + (not onward and piece.isupper())  # capitals most often lead to a call, which opens as well
