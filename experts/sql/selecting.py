"""The pointer surface SELECT first: what is named is noted until FROM comes, and FROM must bring all of it.

In the SELECT list any linked column may stand whose table still goes into one tree of joins with those named before.
FROM then begins and joins only what leads to a tree that holds them all, and does not end before it does.
"""

from __future__ import annotations

from functools import cached_property

from expert_cli.grammar.bind import NEVER
from experts.sql.binding import POINTED, SELECTING
from experts.sql.pointing import JOINABLE, LAST, ON, RULES, Names, StandingBinding, Way, places

JOINED = "<t2>"
"""Tables after which a join must follow."""


class SelectingBinding(StandingBinding):
    """The hooks of the pointer surface for one question and SELECT first, the same for every schema."""

    hooks = {
        **{name: body for name, body in RULES.items() if name not in ("pointed", "joined-s0")},
        **dict.fromkeys(POINTED, NEVER),
        SELECTING[0]: '"SELECT" then-s0',
        "brought-s0": f'" FROM" ({JOINED} join-s0 | {JOINABLE} joins-s0? | {LAST})',
        "join-s0": f'" LEFT"? " JOIN" ({JOINED} {ON} join-s0 | {JOINABLE} {ON} joins-s0? | {LAST} {ON})',
        "joins-s0": "join-s0",
    }
    stand_ins = (*StandingBinding.stand_ins, JOINED)

    @cached_property
    def _owners(self) -> dict[str, int]:
        """Each column's table."""
        tables = self.scoped.tables
        return {f"<{column.pointer}>": place for place, table in enumerate(tables) for column in table.columns}

    def _after(self, way: Way, word: str) -> Way:
        if word == "SELECT":  # of the query, of an arm or of a subquery
            began = way._replace(
                masks=(*way.masks[:-1], 0), needs=(*way.needs[:-1], 0), nested=(*way.nested[:-1], True)
            )
            return began._replace(joined=-1, left="", word=word)
        after = super()._after(way, word)
        if word == "(":
            return after._replace(needs=(*way.needs, way.needs[-1]), nested=(*way.nested, False))
        if word == ")":
            # what an aggregate names, its query names
            needs = after.needs if way.nested[-1] else (*after.needs[:-1], way.needs[-1])
            return after._replace(needs=needs, nested=way.nested[:-1])
        if word in self._owners and not way.masks[-1]:
            return after._replace(needs=(*way.needs[:-1], way.needs[-1] | 1 << self._owners[word]))
        return after

    def _menu(self, token: str, mask: int, need: int, joined: int, left: str) -> Names:
        if token not in (JOINED, JOINABLE, LAST):
            return super()._menu(token, mask or self._nameable(need), need, joined, left)
        found = set()
        for place in self._next(mask):
            here = mask | 1 << place
            if self._leads(here, need):
                ends = LAST if not self._following(here) else JOINABLE
                found.add((self._pointers[place], JOINED if need & ~here else ends))
        return frozenset(pointer for pointer, kind in found if kind == token)

    def _nameable(self, need: int) -> int:
        """The tables whose columns SELECT may name besides those of ``need``, as bits."""
        every = range(len(self._pointers))
        return sum(1 << place for place in every if self._leads(1 << place, need | 1 << place))

    def _leads(self, mask: int, need: int) -> bool:
        """Whether joins lead from the tables of ``mask`` to all of ``need``."""
        begun, seen = [mask], {mask}
        while begun:
            here = begun.pop()
            if not need & ~here:
                return True
            for place in places(self._following(here)):
                if (further := here | 1 << place) not in seen:
                    seen.add(further)
                    begun.append(further)
        return False
