"""What was found out about a grammar, kept by the tokens that lead there: masks, forced tokens, ends.

Questions are many and the ways to begin an answer are few. An engine is asked once for each place; forks and later
questions that come by the same way are answered from here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

Mask = np.ndarray[Any, np.dtype[np.int32]]
Indices = np.ndarray[Any, np.dtype[np.intp]]

MOST_PLACES = 5_000  # of one grammar, before they are forgotten
MOST_BYTES = 1 << 21  # of one grammar's masks and ids
SHARED_BYTES = 4096  # of a mask that is compared with those that are kept; larger ones are seldom met again
MOST_IDS = 4096  # of a mask whose ids are kept


class Place:
    """One way into a grammar, and what is known there; None where nobody has asked."""

    __slots__ = ("after", "complete", "forced", "mask", "stand_ins")

    def __init__(self) -> None:
        self.mask: Mask | None = None
        self.stand_ins: tuple[str, ...] = ()  # those that the mask allows
        self.forced: tuple[int, ...] | None = None
        self.complete: bool | None = None
        self.after: dict[int, Place] = {}


class Engine:
    """An engine's matcher that has read ``read`` tokens; a ``shared`` one must be copied before it reads on."""

    __slots__ = ("matcher", "read", "shared")

    def __init__(self, matcher: Any, read: int) -> None:
        self.matcher, self.read, self.shared = matcher, read, False

    def reading(self) -> Engine:
        """An engine in the same place that may read on."""
        return Engine(self.matcher.deep_copy(), self.read) if self.shared else self


class Explored:
    """A compiled grammar and the places of it that were seen."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._forget()

    def _forget(self) -> None:
        self.start = Place()
        self._count = self._bytes = 0
        self._masks: dict[bytes, Mask] = {}
        self._ids: dict[tuple[int, Hashable], tuple[Mask, Indices]] = {}

    def step(self, place: Place, token: int) -> Place:
        """The place after ``token``."""
        known = place.after.get(token)
        if known is None:
            self._count += 1
            if self._count > MOST_PLACES or self._bytes > MOST_BYTES:
                self._forget()
            known = place.after[token] = Place()
        return known

    def kept(self, mask: Mask) -> Mask:
        """``mask`` for keeping: one array for all equal small ones, read-only."""
        if mask.nbytes > SHARED_BYTES:
            self._bytes += mask.nbytes
            mask.setflags(write=False)
            return mask
        key = mask.tobytes()
        known = self._masks.get(key)
        if known is None:
            self._bytes += len(key)
            known = self._masks[key] = np.frombuffer(key, np.int32)
        return known

    def ids(self, kept: Mask, change: Hashable, mask: Callable[[], Mask]) -> Indices:
        """The ids that ``mask()`` allows, which is what ``change`` makes of a mask that is kept."""
        key = (id(kept), change)
        if key in self._ids:
            return self._ids[key][1]
        # finding them among 151k is thirty times faster over booleans than over bytes
        found = np.flatnonzero(np.unpackbits(mask().view(np.uint8), bitorder="little").view(np.bool_))
        if len(found) <= MOST_IDS:
            self._bytes += found.nbytes
            # the mask is kept, so that its id stays its own
            self._ids[key] = (kept, found)
        return found
