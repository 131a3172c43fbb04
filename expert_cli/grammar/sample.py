"""Texts drawn from a grammar without any model: at every step one of the allowed tokens, all equally likely.

Grammars of nested constructs would rarely come to an end that way: after ``calm`` tokens, what closes is preferred.
"""

from __future__ import annotations

from random import Random

from expert_cli.grammar.matcher import Matcher


def sample(matcher: Matcher, draw: Random, *, calm: int = 60, most: int = 2000) -> str | None:
    """One text of at most ``most`` tokens, ``matcher`` being at its start; None where it did not end in time."""
    for step in range(most):
        allowed = matcher.allowed()
        if step >= calm:
            ranks = [_rank(matcher, token) for token in allowed]
            allowed = [token for token, rank in zip(allowed, ranks, strict=True) if rank == min(ranks)]
        token = draw.choice(allowed)
        if token in matcher.vocabulary.ends:
            return matcher.written
        matcher.consume(token)
    return None


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
