"""Follow the text of the typed grammars as it is written: which scopes have begun, and what is visible in each.

The order of clauses is FROM, WHERE, GROUP BY, HAVING, SELECT, ORDER BY, LIMIT; so once a query is grouped, what it may
select is known.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from experts.sql.kinds import OTHER, Word, inferred
from experts.sql.scopes import SET_OPERATORS, WORD
from experts.sql.typed_scopes import Column, Event, Query, Scope, Source

_DERIVED = re.compile(r"d([0-9]+)")
_AFTER = frozenset(("WHERE", "GROUP", "SELECT"))
"""What may follow the sources."""

_COMPUTES = re.compile(r"\.|SELECT|FROM|.*\(")
_BESIDE = frozenset(("NOT", "AND", "OR", "WHEN", "THEN", "ELSE", "CASE", "DATE", "TIMESTAMP"))
"""Words that may stand before a parenthesis without calling anything."""


def read(tables: Mapping[str, tuple[Column, ...]], text: str) -> tuple[Event, ...]:
    """The events of ``text``, in order, against the tables of a database by the names that they are written with."""
    return tuple(_Reading(tables, text).events())


class _Reading:
    def __init__(self, tables: Mapping[str, tuple[Column, ...]], text: str) -> None:
        self.tables = tables
        self.text = text
        self.found: dict[Event, None] = {}
        self.named: tuple[Source, ...] = ()
        self.recursive = False
        self.cte = ""
        self.derived: tuple[Column, ...] = ()
        self.closed = 0
        self.taken = {name.lower() for name in tables}
        self.kinds: dict[int, str] = {}
        self.stack: list[Query] = []
        self.words = [(match.group(), match.start(), match.end()) for match in WORD.finditer(text)]

    def events(self) -> list[Event]:
        if not self.words:
            return []
        place = self.with_clause() if self.words[0][0] == "WITH" else 0
        if place is not None:
            self.stack = [Query(Scope(self.named), "top", 0)]
            self.query(place)
        return list(self.found)

    def with_clause(self) -> int | None:
        """Read the WITH clause; the index of the first word after it, or None where the text ends in it."""
        place = 1
        if self.at(place) == "RECURSIVE":
            self.recursive, place = True, 2
        while True:
            self.cte = name = self.at(place)
            if self.at(place + 1) != "AS" or self.at(place + 2) != "(":
                return None
            self.stack = [Query(Scope(self.named), "named", 0)]
            end = self.query(place + 3)
            if end is None:
                return None
            self.named = (*self.named, Source(name, self.stack[0].left(), name))
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
                else:
                    self.end_part(place, query)
                    if len(self.stack) == 1:
                        return place
                    self.close(place)
            elif not query.depth:
                place = self.word(place, word, query)
            place += 1
        return None

    def open(self, place: int, query: Query) -> None:
        if self.at(place + 1) not in ("FROM", "SELECT"):
            query.depth += 1
        elif query.clause == "source":
            outer = query.scope if query.lateral else None
            self.stack.append(Query(Scope(query.context.named, outer), "derived", self.words[place][1]))
        else:
            outer = query.scope if query.scope else query.context.outer
            self.stack.append(Query(Scope(query.context.named, outer), "sub", self.words[place][1]))

    def close(self, place: int) -> None:
        inner = self.stack.pop()
        query = self.stack[-1]
        if inner.kind == "derived":
            query.clause = "alias"
            query.name = self.text[inner.begin + 1 : self.words[place][2]]
            self.derived = inner.left()
        elif inner.outputs:
            self.kinds[inner.begin] = inner.outputs[0].kind

    def word(self, place: int, word: str, query: Query) -> int:
        """Read one word at the level of ``query``; the index of the last word used."""
        clause = query.clause
        if word == "FROM" and clause == "start":
            query.clause, query.scope, query.lateral = "source", None, False
        elif clause == "source":
            return self.source(place, word, query)
        elif clause == "alias":
            self.alias(word, query)
        elif clause == "joins" and word == "JOIN":
            query.clause, query.lateral = "source", self.at(place - 1) == "LATERAL"
        elif clause in ("joins", "start") and word in _AFTER:
            if query.scope is not None:
                self.add("begun", query.scope)
            return self.clause(place, word, query)
        elif clause in ("where", "keys", "having") and word in ("GROUP", "HAVING", "SELECT"):
            return self.clause(place, word, query)
        elif clause in ("select", "keys") and word == ",":
            self.end_part(place, query)
            query.mark = place + 1
        elif clause in ("select", "tail") and word in SET_OPERATORS:
            return self.next_arm(place, query)
        elif clause == "select" and word in ("ORDER", "LIMIT", "OFFSET"):
            self.end_part(place, query)
            if word == "ORDER":
                self.add_listed(place, query)
            query.clause = "tail"
        return place

    def clause(self, place: int, word: str, query: Query) -> int:
        """Begin WHERE, GROUP BY, HAVING or SELECT."""
        if query.clause == "keys":
            self.end_keys(place, query)
        query.opened = self.words[place][1] - 1
        if word == "GROUP":
            query.clause, query.mark, query.parts = "keys", place + 2, []
            return place + 1
        query.clause = word.lower()
        if word == "SELECT":
            query.parts = []
            place += self.at(place + 1) == "DISTINCT"
            query.mark = place + 1
            if self.at(place + 1) == "ON":
                query.mark = self.after(place + 2)
                return query.mark - 1
        return place

    def after(self, place: int) -> int:
        """The word after the parenthesis that opens at ``place``, or the end."""
        depth = 0
        while place < len(self.words):
            depth += {"(": 1, ")": -1}.get(self.at(place), 0)
            place += 1
            if not depth:
                break
        return place

    def source(self, place: int, word: str, query: Query) -> int:
        named = {source.name: source.columns for source in query.context.named}
        columns = named.get(word, self.tables.get(word))
        if query.context.reads is not None and word == query.context.reads.name:
            columns = query.context.reads.columns
        if columns is None:
            return place
        name, last = word, place
        if self.at(place + 1) == "AS":
            if not self.at(place + 2):
                return place + 1
            name, last = self.at(place + 2), place + 2
        self.join(query, Source(name, columns, word))
        return last

    def alias(self, word: str, query: Query) -> None:
        number = _DERIVED.fullmatch(word)
        if number is None or word in self.taken:
            return
        before, source = query.scope or query.context, Source(word, self.derived)
        event = Event("derived", before.joined(source), before, f"{query.name} AS {word}", query.lateral)
        if event not in self.found:  # else it is one that is known, once more
            if int(number[1]) <= self.closed:
                return
            self.closed += 1
        self.join(query, source)
        self.found[event] = None

    def join(self, query: Query, source: Source) -> Scope:
        query.scope = (query.scope or query.context).joined(source)
        query.clause, query.name = "joins", ""
        self.add("joined", query.scope)
        return query.scope

    def end_keys(self, place: int, query: Query) -> None:
        """The keys are written: the scope is a grouped one from here on."""
        assert query.scope is not None
        self.end_part(place, query)
        text = self.text[query.opened : self.words[place][1] - 1]
        columns = {column.name: column for column in query.scope.own()}
        keys: dict[str, Column] = {}
        whole = True
        for begin, end in query.parts:
            parts = self.keys(begin, end)
            whole = whole and parts == [(begin, end)]
            for part in parts:
                if part:
                    written = self.between(*part)
                    keys[written] = columns.get(written) or Column(written, self.kind(part, query.scope))
        before, query.scope = query.scope, query.scope.grouped(tuple(keys.values()), whole=whole)
        self.add("grouped", query.scope, before, text)

    def keys(self, begin: int, end: int) -> list[tuple[int, int]]:
        """The keys in one part of GROUP BY, which may be a ROLLUP or GROUPING SETS."""
        words = [word for word, _, _ in self.words[begin:end]]
        if words[-2:] == ["WITH", "ROLLUP"]:
            return [(begin, end - 2)]
        if words[:1] in (["ROLLUP"], ["CUBE"]):
            return self.split(begin + 2, end - 1)
        if words[:2] == ["GROUPING", "SETS"]:
            sets = self.split(begin + 3, end - 1)
            return [key for first, last in sets for key in self.split(first + 1, last - 1)]
        return [] if words == ["(", ")"] else [(begin, end)]

    def split(self, begin: int, end: int) -> list[tuple[int, int]]:
        """What commas part between two words."""
        found, depth, mark = [], 0, begin
        for place in range(begin, end):
            word = self.at(place)
            depth += {"(": 1, ")": -1}.get(word, 0)
            if word == "," and not depth:
                found.append((mark, place))
                mark = place + 1
        return [*found, (mark, end)] if mark < end else found

    def between(self, begin: int, end: int) -> str:
        return self.text[self.words[begin][1] : self.words[end - 1][2]]

    def kind(self, part: tuple[int, int], scope: Scope | None) -> str:
        columns = {column.name: column.kind for column in (*scope.own(), *scope.visible())} if scope else {}
        words: list[Word] = [(word, start) for word, start, _ in self.words[slice(*part)]]
        return inferred(words, columns.get, self.kinds.get)

    def add_listed(self, place: int, query: Query) -> None:
        """The items of the first arm are written: what is sorted by number, or has another arm, knows their kinds."""
        if query.arm or query.scope is None or not query.outputs:
            return
        text = self.text[query.opened : self.words[place][1] - 1]
        self.add("listed", Scope(query.context.named, query.context.outer, arms=query.arms()), query.scope, text)

    def next_arm(self, place: int, query: Query) -> int:
        if query.clause == "select":
            self.end_part(place, query)
            self.add_listed(place, query)
        if not query.arm:
            query.context = Scope(query.context.named, query.context.outer, arms=query.arms())
            if self.recursive and query.kind == "named" and self.at(place) == "UNION":
                self.begin_recursion(place, query)
        query.arm += 1
        query.clause, query.scope = "start", None
        return place + 1 if self.at(place + 1) == "ALL" else place

    @staticmethod
    def origin(value: list[tuple[str, int, int]], sources: tuple[Source, ...]) -> str:
        """The column of a table, or the whole number, that an item is; empty where it is anything else."""
        words = [word for word, _, _ in value]
        if len(words) == 1 and words[0].isdigit() and len(words[0]) < 10:
            return words[0]
        if len(words) == 3 and words[1] == ".":
            return next((f"{one.table}.{words[2]}" for one in sources if one.name == words[0]), "")
        return ""

    def begin_recursion(self, place: int, query: Query) -> None:
        """The first arm of a named query may be one that the next arm reads."""
        reads = Source(self.cte, tuple(query.outputs), self.cte)
        query.context = replace(query.context, reads=reads, origins=tuple(query.origins))
        self.add("arm", query.context, text=self.text[: self.words[place - 1][2]])

    def end_part(self, place: int, query: Query) -> None:
        """An item or key ends before the word at ``place``."""
        if query.clause not in ("select", "keys") or place <= query.mark:
            return
        query.parts.append((query.mark, place))
        if query.clause == "select" and not query.arm:
            self.output(query.mark, place, query)

    def output(self, begin: int, end: int, query: Query) -> None:
        words = [word for word, _, _ in self.words[begin:end]]
        sources = query.scope.sources if query.scope else ()
        if words == ["*"]:
            query.outputs += [column for source in sources for column in source.columns]
        elif len(words) == 3 and words[1:] == [".", "*"]:
            query.outputs += [column for source in sources if source.name == words[0] for column in source.columns]
        else:
            named = len(words) > 2 and words[-2] == "AS"
            value = (begin, end - 2) if named else (begin, end)
            kind = OTHER if words[0] == "NULL" else self.kind(value, query.scope)
            query.origins.append(self.origin(self.words[slice(*value)], sources))
            if kind != OTHER and not any(map(_COMPUTES.fullmatch, _calls(words[: value[1] - begin]))):
                query.given.add(len(query.outputs))
            query.outputs.append(Column(words[-1] if named else "", kind))


def _calls(words: list[str]) -> Iterator[str]:
    """The words, those that are called with their parenthesis."""
    for word, after in itertools.pairwise([*words, ""]):
        yield word + after if after == "(" and word.isidentifier() and word not in _BESIDE else word
