"""Texts drawn from a grammar without any model: at every step one of the allowed tokens, all equally likely.

Grammars of nested constructs would rarely come to an end that way: after ``calm`` tokens, what closes is preferred. A
run of free characters, where most of the vocabulary is allowed, ends after a few tokens.
"""

from __future__ import annotations

from random import Random

from expert_cli.grammar.matcher import Matcher

FREE = 200  # allowed tokens from which on a place counts as a run of free characters
QUOTES = (b"'", b'"', b"`")


def sample(matcher: Matcher, draw: Random, *, calm: int = 60, most: int = 2000) -> str | None:
    """One text of at most ``most`` tokens, ``matcher`` being at its start; None where it did not end in time."""
    for step in range(most):
        forced = matcher.forced()
        token = forced[0] if forced else _drawn(matcher, draw, step >= calm)
        if token in matcher.vocabulary.ends:
            return matcher.written
        matcher.consume(token)
    return None


def _drawn(matcher: Matcher, draw: Random, calm: bool) -> int:
    allowed = matcher.allowed()
    if len(allowed) > FREE:
        quotes = (token for token in allowed if matcher.vocabulary.pieces[token] in QUOTES)
        if (calm or draw.random() < 0.25) and (closing := next((one for one in quotes if _ends(matcher, one)), None)):
            return closing
    elif calm:
        ranks = [_rank(matcher, token) for token in allowed]
        allowed = [token for token, rank in zip(allowed, ranks, strict=True) if rank == min(ranks)]
    return draw.choice(allowed)


def _ends(matcher: Matcher, token: int) -> bool:
    """Whether ``token`` ends the run of free characters that ``matcher`` is in."""
    beyond = matcher.fork()
    beyond.consume(token)
    return len(beyond.allowed()) <= FREE


def _rank(matcher: Matcher, token: int) -> int:
    """How far ``token`` leads from the end of the text: closing first, then a plain number, opening last."""
    if token in matcher.vocabulary.ends:
        return 0
    piece = matcher.vocabulary.pieces[token].decode("utf-8", "replace")
    if piece.lstrip().startswith(")"):
        return 1
    if piece.strip().isdigit() and not matcher.written[-1:].isdigit():
        return 2
    return 4 if "(" in piece or piece.isdigit() else 3
