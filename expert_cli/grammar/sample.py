"""Texts drawn from a grammar without any model: at every step one of the allowed tokens, all equally likely."""

from __future__ import annotations

from random import Random

from expert_cli.grammar.matcher import Matcher


def sample(matcher: Matcher, draw: Random, most: int) -> str | None:
    """One text of at most ``most`` tokens, ``matcher`` being at its start; None where it did not end in time."""
    for _ in range(most):
        token = draw.choice(matcher.allowed())
        if token in matcher.vocabulary.ends:
            return matcher.written
        matcher.consume(token)
    return None
