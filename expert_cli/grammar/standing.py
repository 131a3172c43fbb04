"""Tokens that stand for others: one grammar, compiled once, for every schema.

A grammar that names each column of a scope must be compiled for each question, and again in each scope. Where names are
single tokens the grammar can name one of them in place of all: ``<c0>`` for any column of the scope. The binding says
which tokens it stands for at each place, and the matcher's masks are widened to those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from expert_cli.grammar.places import Mask
from expert_cli.grammar.tokens import Vocabulary

MOST_SETS = 4096  # kept as bits


@runtime_checkable
class Standing(Protocol):
    """A binding whose grammar names tokens that stand for others."""

    def stands(self, written: str) -> Mapping[str, frozenset[str]]:
        """What each of those tokens stands for after ``written``: ``{"<c0>": {"<c2>", "<c5>"}}``."""
        ...


class Stand:
    """One token and what it stands for: ids, and a mask of them."""

    def __init__(self, token: int, ids: frozenset[int], words: int) -> None:
        self.token, self.ids = token, ids
        self.word, self.bit = token >> 5, np.int32(np.uint32(1 << (token & 31)).view(np.int32))
        bits = np.zeros(words * 32, np.uint8)
        bits[list(ids)] = 1
        self.mask: Mask = np.packbits(bits, bitorder="little").view(np.int32)


class Stands:
    """The stands of a vocabulary, kept."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._words = (vocabulary.size + 31) // 32
        self._known: dict[tuple[str, frozenset[str]], Stand] = {}

    def of(self, given: Mapping[str, frozenset[str]]) -> list[Stand]:
        """A stand for each token of ``given``.

        Raises:
            GrammarError: the vocabulary lacks a token.
        """
        return [self._known.get(one) or self._made(*one) for one in given.items()]

    def _made(self, name: str, names: frozenset[str]) -> Stand:
        if len(self._known) > MOST_SETS:
            self._known.clear()
        token = self.vocabulary.token
        made = self._known[name, names] = Stand(token(name), frozenset(map(token, names)), self._words)
        return made


def widen(mask: Mask, stands: list[Stand]) -> list[Stand]:
    """Replace, in ``mask``, the tokens that stand for others by those; gives the ones that were allowed."""
    allowed = [stand for stand in stands if mask[stand.word] & stand.bit]
    for stand in allowed:
        mask[stand.word] &= ~stand.bit
    for stand in allowed:
        mask |= stand.mask
    return allowed
