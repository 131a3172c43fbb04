"""Tokens that stand for others: one grammar, compiled once, for every schema.

A grammar that names each column of a scope must be compiled for each question, and again in each scope. Where names are
single tokens the grammar can name one of them in place of all: ``<c0>`` for any column of the scope. The binding says
which tokens it stands for at each place, and the matcher's masks are widened to those.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np

from expert_cli.grammar.places import Mask
from expert_cli.grammar.tokens import Vocabulary

MOST_SETS = 4096  # kept as bits


@runtime_checkable
class Standing(Protocol):
    """A binding whose grammar names tokens that stand for others; ``stand_ins`` are those tokens."""

    stand_ins: tuple[str, ...]

    def stands(self, token: str, written: str) -> frozenset[str]:
        """What ``token`` stands for after ``written``: for ``<c0>``, say, ``<c2>`` and ``<c5>``."""
        ...


class Stand:
    """What one token stands for: ids, and a mask of them."""

    def __init__(self, token: int, ids: frozenset[int], words: int) -> None:
        self.token, self.ids = token, ids
        bits = np.zeros(words * 32, np.uint8)
        bits[list(ids)] = 1
        self.mask: Mask = np.packbits(bits, bitorder="little").view(np.int32)


class Stands:
    """The stands of a vocabulary, kept."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._words = (vocabulary.size + 31) // 32
        self._known: dict[tuple[str, frozenset[str]], Stand] = {}

    def of(self, token: str, names: frozenset[str]) -> Stand:
        """The stand of ``token`` for the tokens ``names``.

        Raises:
            GrammarError: the vocabulary lacks a token.
        """
        known = self._known.get((token, names))
        if known is None:
            if len(self._known) > MOST_SETS:
                self._known.clear()
            ids = frozenset(map(self.vocabulary.token, names))
            known = self._known[token, names] = Stand(self.vocabulary.token(token), ids, self._words)
        return known

    @lru_cache(maxsize=8)  # noqa: B019 - lives as long as its vocabulary
    def ids(self, stand_ins: tuple[str, ...]) -> dict[int, str]:
        """The ids of ``stand_ins``, and their names."""
        return {self.vocabulary.token(name): name for name in stand_ins}

    def allowed(self, mask: Mask, stand_ins: tuple[str, ...]) -> tuple[str, ...]:
        """Those of ``stand_ins`` that ``mask`` allows."""
        return tuple(name for token, name in self.ids(stand_ins).items() if mask[token >> 5] >> (token & 31) & 1)


def widened(mask: Mask, stands: Iterable[Stand]) -> Mask:
    """``mask`` with what ``stands`` stand for in place of themselves."""
    wide = mask.copy()
    for stand in stands:
        wide[stand.token >> 5] &= ~np.uint32(1 << (stand.token & 31)).view(np.int32)
    for stand in stands:
        wide |= stand.mask
    return wide
