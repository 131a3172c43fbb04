"""The pointer surface bound without compiling: the grammar names one token of a kind, and what is in view decides.

A pointer is one token, so that the grammar may write ``<c0>`` for any column of the scope. Which columns those are,
which tables may be joined and along which columns is read from the text. A :class:`experts.sql.binding.PointerBinding`
says the same as one closed grammar for each scope.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from expert_cli.grammar.bind import NEVER
from experts.sql.binding import MOST_JOINS, NAMED, SELECTING, SMALL, PointerBinding

JOINABLE, LAST = "<t0>", "<t1>"  # tables after which joins may follow, and those after which none can
COLUMN, LEFT, RIGHT = "<c0>", "<c1>", "<c2>"  # of the scope; the two sides of a join
TEXT, COUNT, NUMBER = "<v0>", "<v1>", "<v2>"  # strings, whole numbers above 0, other numbers

_WORD = re.compile(r"<[a-z]+[0-9]+>|[A-Z]+|[()=]")
_DIGITS = [f'" {number}"' for number in SMALL]
ON = f'" ON" {LEFT} " =" {RIGHT}'

RULES = {
    "pointed": f'"FROM" ({JOINABLE} joined-s0 | {LAST} then-s0)',
    "joined-s0": f'then-s0 | " LEFT"? " JOIN" ({JOINABLE} {ON} joined-s0 | {LAST} {ON} then-s0)',
    "pointer-s0": COLUMN,
    "p-literal": " | ".join([TEXT, COUNT, NUMBER, *_DIGITS]),
    "p-bare-literal": " | ".join([TEXT, COUNT, NUMBER, *(f'"{number}"' for number in SMALL)]),
    "p-number": " | ".join([COUNT, NUMBER, *_DIGITS]),
    "p-count": " | ".join([COUNT, *_DIGITS[1:]]),
    "p-pattern": f"(<any> | <pre> | <suf>) ({TEXT} | {COUNT} | {NUMBER})",
    **dict.fromkeys((*NAMED, *SELECTING), NEVER),
}

Names = frozenset[str]


class Way(NamedTuple):
    """Where a text leads: tables of every open scope, and those that its FROM must bring where SELECT came first; the
    table joined last, its join's left column, the last word.
    """

    masks: tuple[int, ...] = (0,)
    needs: tuple[int, ...] = (0,)
    joined: int = -1
    left: str = ""
    word: str = ""
    nested: tuple[bool, ...] = (False,)
    """Which open parentheses hold a query, where that matters."""


class StandingBinding:
    """The hooks of the pointer surface for one question, the same for every schema.

    ``scoped`` says what may be joined with what.
    """

    hooks: Mapping[str, str] = RULES
    start = Way()
    stand_ins: tuple[str, ...] = (JOINABLE, LAST, COLUMN, LEFT, RIGHT, TEXT, COUNT, NUMBER)

    def __init__(self, scoped: PointerBinding) -> None:
        self.scoped = scoped
        self._rules = self.hooks if scoped.values else {**self.hooks, "p-pattern": NEVER}
        self._places = {f"<{table.pointer}>": place for place, table in enumerate(scoped.tables)}
        self._pointers = tuple(self._places)
        self._near = [0] * len(scoped.tables)  # the tables that each one has an edge with, as bits
        for place, other in scoped.edges:
            self._near[place] |= 1 << other
        self._literals = self._kinds()
        self._known: dict[tuple[str, int, int, int, str], Names] = {}
        self._read: dict[str, Way] = {}

    def state(self, written: str) -> bool:
        """Nothing that is written changes the grammar."""
        return bool(self.scoped.values)

    def rules(self, state: bool) -> Mapping[str, str]:
        """The same hook bodies for every schema."""
        return self._rules

    def stands(self, token: str, written: str) -> Names:
        """The tables, columns or literals that ``token`` stands for after ``written``."""
        if token in self._literals:
            return self._literals[token]
        place = self._place(written)
        key = (token, place.masks[-1], place.needs[-1], place.joined, place.left)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._menu(*key)
        return known

    def _kinds(self) -> dict[str, Names]:
        """The literals by the token that stands for them."""
        kinds: dict[str, set[str]] = {TEXT: set(), COUNT: set(), NUMBER: set()}
        for one in self.scoped.values:
            counts = isinstance(one.value, int) and one.value > 0
            kind = TEXT if isinstance(one.value, str) else COUNT if counts else NUMBER
            kinds[kind].add(f"<{one.pointer}>")
        return {kind: frozenset(names) for kind, names in kinds.items()}

    def _place(self, written: str) -> Way:
        """Where ``written`` leads; what was read before is not read again."""
        known = self._read.get(written)
        if known is None:
            at = max(written.rfind("<"), 0)
            known = self._place(written[:at]) if at else self.start
            for word in _WORD.findall(written, at):
                known = self._after(known, word)
            self._read[written] = known
        return known

    def _after(self, place: Way, word: str) -> Way:
        masks, needs, joined = place.masks, place.needs, place.joined
        if word == "FROM":
            masks = (*masks[:-1], 0)
        elif word == "(":
            masks, needs = (*masks, masks[-1]), (*needs, 0)
        elif word == ")":
            masks, needs = masks[:-1], needs[:-1]
        elif word[0] == "<" and place.word in ("FROM", "JOIN"):
            joined = self._places[word]
            masks = (*masks[:-1], masks[-1] | 1 << joined)
        left = word if place.word == "ON" else place.left if word == "=" else ""
        return Way(masks, needs, joined, left, word, place.nested)

    def _menu(self, token: str, mask: int, need: int, joined: int, left: str) -> Names:
        if token == COLUMN:
            tables = [self.scoped.tables[place] for place in places(mask)]
            return frozenset(f"<{column.pointer}>" for table in tables for column in table.columns)
        if token in (JOINABLE, LAST):
            following = self._next(mask)
            last = {place for place in following if not self._following(mask | 1 << place)}
            return frozenset(self._pointers[place] for place in following if (place in last) == (token == LAST))
        pairs = {
            (f"<{one.pointer}>", f"<{other.pointer}>")
            for place in places(mask)
            for pair in self.scoped.edges.get((place, joined), ())
            for one, other in (pair, pair[::-1])
        }
        return (
            frozenset(one for one, _ in pairs) if token == LEFT else frozenset(two for one, two in pairs if one == left)
        )

    def _next(self, mask: int) -> list[int]:
        """The tables that may be joined to those of ``mask``, or that FROM may begin with."""
        return places(self._following(mask) if mask else (1 << len(self._pointers)) - 1)

    def _following(self, mask: int) -> int:
        """The tables that may be joined to those of ``mask``, as bits."""
        if mask.bit_count() > MOST_JOINS:
            return 0
        near = 0
        for place in places(mask):
            near |= self._near[place]
        return near & ~mask


def places(mask: int) -> list[int]:
    return [place for place in range(mask.bit_length()) if mask >> place & 1]
