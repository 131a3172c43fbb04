"""The names that the SQL grammar may write for one linked question, scope by scope.

Pure data in, hook bodies out: a :class:`Table` with its columns, the edges along which tables may be joined, and the
literals that the question offers. On the names surface :mod:`experts.sql.names` gives the bodies; here are those of the
pointer surface, where a scope is a set of tables and is known once ``FROM … SELECT`` is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from expert_cli.errors import ContextError
from expert_cli.grammar.bind import NEVER
from expert_cli.task import Binding
from experts.sql.identifiers import literal, quoted
from experts.sql.names import NamesBinding

MOST_JOINS = 4
EAGER = 64  # table sets written out at once; beyond that, joins unfold one table at a time
SMALL = range(11)  # whole numbers that both surfaces may write as digits

# What cannot be written: it follows the text after which the next state is asked for.
NOTHING = "[\\x01-\\x08]"
LATER = f'" SELECT" {NOTHING}'

_WORD = re.compile(r"<[a-z]+[0-9]*>|[A-Z]+|\S")


@dataclass(frozen=True)
class Column:
    """A linked column; ``pointer`` is its token without brackets (``c7``)."""

    name: str
    pointer: str = ""


@dataclass(frozen=True)
class Table:
    """A linked table and its linked columns."""

    name: str
    columns: tuple[Column, ...]
    pointer: str = ""


@dataclass(frozen=True)
class Value:
    """A literal that the question offers; ``pointer`` is its token without brackets (``v0``)."""

    value: str | int | float
    pointer: str = ""


Edge = tuple[tuple[str, str], tuple[str, str]]
"""Two ``(table, column)`` pairs that may be joined."""


# The hooks that one surface leaves to the other.
NAMED = ("begin", "alone", "told", "untold", "nothing", "math", "truth")
POINTED = ("pointed", "selecting")
SELECTING = ("selecting",)


class SqlBinding:
    """The hooks of ``sql-*.gbnf`` for one question.

    Args:
        tables: the linked tables, in prompt order.
        edges: pairs of columns that may be joined, declared or inferred.
        values: literals.
        surface: ``pointers`` or ``names``.

    Raises:
        ContextError: there is no table, or two have the same name.
    """

    def __init__(self, tables: Sequence[Table], edges: Iterable[Edge], values: Sequence[Value], surface: str) -> None:
        if not tables:
            raise ContextError("no table is linked to the question; open a database that has tables")
        if len({table.name for table in tables}) < len(tables):
            raise ContextError("two linked tables have the same name; link each table once")
        self.surface: Binding
        self.never: tuple[str, ...]
        if surface == "pointers":
            self.surface, self.never = PointerBinding(tables, edges, values), (*NAMED, *SELECTING)
        else:
            columns = {table.name: [column.name for column in table.columns] for table in tables}
            offered = [value.value for value in values]
            self.surface = NamesBinding(columns, offered, quoted=quoted, literal=literal, free=True)
            self.never = POINTED

    @property
    def names(self) -> NamesBinding:
        """The surface where it is ``names``."""
        assert isinstance(self.surface, NamesBinding)
        return self.surface

    def state(self, written: str) -> Any:
        """The scopes that have begun."""
        return self.surface.state(written)

    def rules(self, state: Any) -> Mapping[str, str]:
        """The hook bodies of ``state``."""
        return {**self.surface.rules(state), **dict.fromkeys(self.never, NEVER)}


class PointerBinding:
    """The hooks of the pointer surface."""

    def __init__(self, tables: Sequence[Table], edges: Iterable[Edge], values: Sequence[Value]) -> None:
        self.tables = tuple(tables)
        self.values = tuple(values)
        self.index = {table.name: place for place, table in enumerate(self.tables)}
        self.edges = self._joinable(edges)
        self._places = {f"<{table.pointer}>": place for place, table in enumerate(self.tables)}
        self._eager = self._reachable(EAGER)
        self._fixed: dict[str, str] = self._unscoped()
        self._scoped: dict[int, dict[str, str]] = {}

    def state(self, written: str) -> tuple[int, ...]:
        """The table sets whose scope has begun, in order of appearance, as bit masks over ``tables``.

        Where the sets are too many to write out at once, the set of a FROM clause in progress is a scope event too, and
        counts negative.
        """
        if self._eager is None:
            return self._scan(written)
        last = written.rfind("SELECT")
        return self._scan(written[: last + 6]) if last >= 0 else ()

    def rules(self, state: tuple[int, ...]) -> Mapping[str, str]:
        """The hook bodies of ``state``."""
        known = [mask for mask in state if mask > 0]
        rules = dict(self._fixed)
        seen = set(self._eager or map(abs, state))
        starts = (
            f"<{self.tables[n].pointer}> {f'joined-s{1 << n}' if 1 << n in seen else 'joining'}" for n in self._all()
        )
        rules["pointed"] = f'"FROM" ({" | ".join(starts)})'
        for mask in known:
            rules |= self._columns(mask)
        for mask in self._eager or sorted({abs(mask) for mask in state}):
            rules[f"joined-s{mask}"] = self._joined(mask, mask in known, set(state))
        return rules

    def _scan(self, text: str) -> tuple[int, ...]:
        found: list[int] = []
        stack: list[int | None] = [None]
        before = ""
        for word in _words(text):
            if word == "FROM":
                stack[-1] = 0
            elif word == "(":
                stack.append(None)
            elif word == ")" and len(stack) > 1:
                stack.pop()
            elif word == "SELECT" and stack[-1]:
                found.append(stack[-1])
                stack[-1] = None
            elif stack[-1] is not None and before in ("FROM", "JOIN") and word in self._places:
                stack[-1] |= 1 << self._places[word]
                if self._eager is None:
                    found.append(-stack[-1])
            before = word
        return tuple(dict.fromkeys(found))

    def _joinable(self, edges: Iterable[Edge]) -> dict[tuple[int, int], list[tuple[Column, Column]]]:
        """Column pairs by (table, other table), both ways."""
        columns = {(table.name, column.name): column for table in self.tables for column in table.columns}
        pairs: dict[tuple[int, int], list[tuple[Column, Column]]] = {}
        for left, right in edges:
            if left in columns and right in columns and left[0] != right[0]:
                for one, other in ((left, right), (right, left)):
                    key = (self.index[one[0]], self.index[other[0]])
                    pair = (columns[one], columns[other])
                    if pair not in pairs.setdefault(key, []):
                        pairs[key].append(pair)
        return pairs

    def _reachable(self, most: int) -> list[int] | None:
        """Every table set that joins can build, or None where there are more than ``most``."""
        found = [1 << place for place in range(len(self.tables))]
        for mask in found:
            found += [wider for wider in self._wider(mask) if wider not in found]
            if len(found) > most:
                return None
        return found

    def _wider(self, mask: int) -> list[int]:
        return [mask | 1 << place for place in self._partners(mask)]

    def _partners(self, mask: int) -> list[int]:
        if mask.bit_count() > MOST_JOINS:
            return []
        return [
            other
            for other in range(len(self.tables))
            if not mask >> other & 1
            and any(mask >> place & 1 and (place, other) in self.edges for place in self._all())
        ]

    def _all(self) -> range:
        return range(len(self.tables))

    def _joined(self, mask: int, known: bool, state: set[int]) -> str:
        options = [f"then-s{mask}" if known else "later"]
        for other in self._partners(mask):
            pairs = [pair for place in self._all() if mask >> place & 1 for pair in self.edges.get((place, other), ())]
            menu = " | ".join(f'<{one.pointer}> " =" <{two.pointer}>' for one, two in pairs)
            turned = " | ".join(f'<{two.pointer}> " =" <{one.pointer}>' for one, two in pairs)
            wider = mask | 1 << other
            then = f"joined-s{wider}" if self._eager or {wider, -wider} & state else "joining"
            options.append(f'" LEFT"? " JOIN" <{self.tables[other].pointer}> " ON" ({menu} | {turned}) ({then})')
        return " | ".join(options)

    def _columns(self, mask: int) -> dict[str, str]:
        if mask not in self._scoped:
            linked = (table for place, table in enumerate(self.tables) if mask >> place & 1)
            columns = [f"<{column.pointer}>" for table in linked for column in table.columns]
            self._scoped[mask] = {f"pointer-s{mask}": " | ".join(columns) or NEVER}
        return self._scoped[mask]

    def _unscoped(self) -> dict[str, str]:
        digits = [f'" {number}"' for number in SMALL]
        numbers = [value for value in self.values if not isinstance(value.value, str)]
        rows = [value for value in numbers if isinstance(value.value, int) and value.value > 0]
        values = [f"<{value.pointer}>" for value in self.values]
        bodies = {
            "later": [LATER],
            "joining": [f'" LEFT"? " JOIN" {NOTHING} | later'],
            "p-literal": [*values, *digits],
            "p-bare-literal": [*values, *(f'"{number}"' for number in SMALL)],
            "p-number": [*(f"<{value.pointer}>" for value in numbers), *digits],
            "p-count": [*(f"<{value.pointer}>" for value in rows), *digits[1:]],
            "p-pattern": [f"(<any> | <pre> | <suf>) ({' | '.join(values)})"] if values else [],
        }
        return {name: " | ".join(body) or NEVER for name, body in bodies.items()}


@lru_cache(maxsize=256)
def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text))
