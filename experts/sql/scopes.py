"""Follow FROM-first SQL as it is written: which scopes have begun, and what is visible in each.

The text is read as far as it goes; a source counts from its last character on, and is read again as it grows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from experts.sql.windows import windowed

WORD = re.compile(r"'(?:[^']|'')*'?|\"(?:[^\"]|\"\")*\"?|`(?:[^`]|``)*`?|[^\W\d]\w*|\d[\w.]*|\S")
_DERIVED = re.compile(r"d([0-9]+)")  # the alias of a derived table; they are numbered as they close
SET_OPERATORS = frozenset(("UNION", "INTERSECT", "EXCEPT"))
CLAUSES = frozenset(("WHERE", "GROUP", "HAVING", "ORDER", "LIMIT"))


@dataclass(frozen=True)
class Source:
    """What FROM reads: the name that columns are written with, and the columns, both as they are written.

    ``hidden`` are names that several of its columns have, so that none can be named.
    """

    name: str
    columns: tuple[str, ...]
    hidden: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scope:
    """The sources of one FROM so far, the scope around it where its columns are visible, and the named queries.

    ``arms`` is the width of the recursive query that may be read here as its own first source, or 0.
    """

    named: tuple[Source, ...] = ()
    outer: Scope | None = None
    sources: tuple[Source, ...] = ()
    arms: int = 0

    def visible(self) -> tuple[Source, ...]:
        """Own sources and those of the scopes around, the nearest first; a nearer name hides a farther one."""
        own = {source.name.lower() for source in self.sources}
        around = self.outer.visible() if self.outer else ()
        return (*self.sources, *(source for source in around if source.name.lower() not in own))

    def joined(self, source: Source) -> Scope:
        return Scope(self.named, self.outer, (*self.sources, source))


@dataclass(frozen=True)
class Event:
    """Something that widens what may be written: ``kind`` is

    ``joined``   ``scope`` has its present sources
    ``selected`` SELECT is written for ``scope``
    ``windowed`` a window in the list of ``scope`` holds an aggregate
    ``derived``  in ``before``, the derived table ``text`` leads to ``scope``
    ``named``    the WITH clause ``text`` is written, and ``scope`` reads its queries
    ``constant`` a query without FROM is begun
    ``arm``      the first arm of a recursive query is written, up to ``text``; ``scope`` reads itself
    """

    kind: str
    scope: Scope
    before: Scope | None = None
    text: str = ""


@dataclass
class _Query:
    """A query being read. ``clause`` is where in it: start, source, alias, joins, select, tail."""

    context: Scope
    kind: str
    begin: int
    clause: str = "start"
    scope: Scope | None = None
    name: str = ""
    item: list[str] = field(default_factory=list)
    outputs: list[str | None] = field(default_factory=list)
    arm: int = 0
    depth: int = 0


class Reader:
    """Reads one text against the tables of a database, by the names that they are written with."""

    def __init__(self, tables: Mapping[str, tuple[str, ...]]) -> None:
        self.tables = tables

    def read(self, text: str) -> tuple[Event, ...]:
        """The events of ``text``, in order."""
        return tuple(_Reading(self.tables, text).events())


class _Reading:
    def __init__(self, tables: Mapping[str, tuple[str, ...]], text: str) -> None:
        self.tables = tables
        self.text = text
        self.found: dict[Event, None] = {}
        self.named: tuple[Source, ...] = ()
        self.recursive = False
        self.cte = ""
        self.derived: tuple[str, ...] = ()
        self.closed = 0
        self.taken = {name.lower() for name in tables}
        self.stack: list[_Query] = []
        self.words = [(match.group(), match.start(), match.end()) for match in WORD.finditer(text)]

    def events(self) -> list[Event]:
        if not self.words:
            return []
        place = self.with_clause() if self.words[0][0] == "WITH" else 0
        if place is not None:
            self.stack = [_Query(Scope(self.named), "top", 0)]
            self.query(place)
        return list(self.found)

    def with_clause(self) -> int | None:
        """Read the WITH clause; the index of the first word after it, or None where the text ends in it."""
        place = 1
        if self.at(place) == "RECURSIVE":
            self.recursive, place = True, 2
        while True:
            self.cte = self.at(place)
            if self.at(place + 1) != "AS" or self.at(place + 2) != "(":
                return None
            self.stack = [_Query(Scope(self.named), "named", 0)]
            end = self.query(place + 3)
            if end is None:
                return None
            self.named = (*self.named, Source(self.cte, unique(self.stack[0].outputs)))
            self.add("named", Scope(self.named), text=self.text[: self.words[end][2]])
            if self.at(end + 1) != ",":
                return end + 1
            place = end + 2

    def at(self, place: int) -> str:
        return self.words[place][0] if place < len(self.words) else ""

    def add(self, kind: str, scope: Scope, before: Scope | None = None, text: str = "") -> None:
        self.found[Event(kind, scope, before, text)] = None

    def query(self, place: int) -> int | None:
        """Read from ``place`` until the first query on the stack closes; the index of its ), or None at the end."""
        while place < len(self.words):
            word = self.at(place)
            query = self.stack[-1]
            if word == "(":
                self.open(place, query)
            elif word == ")":
                if query.depth:
                    query.depth -= 1
                    query.item.append(word)
                else:
                    self.end_item(query)
                    if len(self.stack) == 1:
                        return place
                    self.close(place)
            elif query.depth:
                self.say(word, query)
            else:
                place = self.word(place, word, query)
            place += 1
        return None

    def open(self, place: int, query: _Query) -> None:
        inner = self.at(place + 1)
        if inner not in ("FROM", "SELECT", "(") or (inner == "(" and query.clause != "source"):
            query.depth += 1
            query.item.append("(")
        elif query.clause == "source":
            self.stack.append(_Query(Scope(query.context.named), "derived", self.words[place][1]))
        else:
            self.stack.append(_Query(self.inner(query), "sub", 0))

    @staticmethod
    def inner(query: _Query) -> Scope:
        return Scope(query.context.named, query.scope if query.scope else query.context.outer)

    def close(self, place: int) -> None:
        inner = self.stack.pop()
        query = self.stack[-1]
        query.item.append(")")
        if inner.kind == "derived":
            query.clause = "alias"
            query.name = self.text[inner.begin : self.words[place][2]]
            query.item = []
            self.derived = unique(inner.outputs)

    def word(self, place: int, word: str, query: _Query) -> int:
        """Read one word at the level of ``query``; the index of the last word used."""
        if word == "FROM" and query.clause == "start":
            query.clause, query.scope = "source", None
        elif query.clause == "source":
            return self.source(place, word, query)
        elif query.clause == "alias":
            self.alias(place, word, query)
        elif word == "SELECT" and query.clause in ("start", "joins"):
            query.clause = "select"
            query.item = []
            if query.scope is not None:
                self.add("selected", query.scope)
            elif query.kind != "sub":
                self.add("constant", Scope())
        elif query.clause == "joins" and word in ("JOIN", ","):
            query.clause = "source"
        elif query.clause in ("select", "tail") and word in SET_OPERATORS:
            return self.next_arm(place, query)
        elif query.clause == "select" and word in CLAUSES:
            self.end_item(query)
            query.clause = "tail"
        elif query.clause == "select" and word == ",":
            self.end_item(query)
        elif query.clause == "select" and word not in ("DISTINCT", "ALL"):
            self.say(word, query)
        return place

    def say(self, word: str, query: _Query) -> None:
        """Read one more word of an item."""
        query.item.append(word)
        if query.clause == "select" and query.scope is not None and windowed(query.item):
            self.add("windowed", query.scope)

    def source(self, place: int, word: str, query: _Query) -> int:
        named = {source.name: source.columns for source in query.context.named}
        columns = named.get(word, self.tables.get(word))
        if columns is None and query.context.arms and word == self.cte:
            columns = unique(self.stack[0].outputs)
        if columns is None:
            return place
        name, last = word, place
        if self.at(place + 1) == "AS":
            if not self.at(place + 2):
                return place + 1
            name, last = self.at(place + 2), place + 2
        self.join(query, Source(name, columns))
        return last

    def alias(self, place: int, word: str, query: _Query) -> None:
        number = _DERIVED.fullmatch(word)
        if number is None or word in self.taken:
            return
        before = query.scope or Scope(query.context.named, query.context.outer)
        source = Source(word, self.derived)
        event = Event("derived", before.joined(source), before, f"{query.name} AS {word}")
        if event not in self.found:  # else it is one that is known, once more
            if int(number[1]) <= self.closed:
                return
            self.closed += 1
        self.join(query, source)
        self.found[event] = None

    def join(self, query: _Query, source: Source) -> Scope:
        query.scope = (query.scope or query.context).joined(source)
        query.clause, query.name = "joins", ""
        self.add("joined", query.scope)
        return query.scope

    def next_arm(self, place: int, query: _Query) -> int:
        if query.clause == "select":
            self.end_item(query)
        query.arm += 1
        query.clause, query.scope = "start", None
        last = place + 1 if self.at(place + 1) == "ALL" else place
        if self.recursive and query.kind == "named" and self.at(place) == "UNION":
            query.context = Scope(self.named, arms=len(query.outputs))
            self.add("arm", query.context, text=self.text[: self.words[place][2]])
        return last

    def end_item(self, query: _Query) -> None:
        item, query.item = query.item, []
        if query.arm or query.clause != "select":
            return
        sources = query.scope.sources if query.scope else ()
        if item == ["*"]:
            query.outputs += [column for source in sources for column in source.columns]
        elif len(item) == 3 and item[1:] == [".", "*"]:
            query.outputs += [column for source in sources if source.name == item[0] for column in source.columns]
        elif len(item) > 2 and item[-2] == "AS":
            query.outputs.append(item[-1])
        else:
            query.outputs.append(item[2] if len(item) == 3 and item[1] == "." else None)


def unique(outputs: list[str | None]) -> tuple[str, ...]:
    """The output names that stand for one column each."""
    lowered = [name.lower() for name in outputs if name]
    return tuple(name for name in outputs if name and lowered.count(name.lower()) == 1)
