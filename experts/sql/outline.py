"""Follow SELECT-first SQL with its names written out: the queries that are open, and what each still asks of FROM.

The text is read as far as it goes. What is closed is kept as it was written; a name counts from its last character on,
and is read again as it grows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from experts.sql.bringing import Catalogue, Needs, key
from experts.sql.scopes import CLAUSES, SET_OPERATORS, WORD, Source, unique


class Open(NamedTuple):
    """A query that is being written.

    ``kind`` is ``top``, ``named`` (in WITH), ``derived`` (in FROM) or ``sub``. Before FROM is written, ``text`` is
    empty; then it is the present arm up to where a source stands or is to stand.
    """

    kind: str
    arms: str = ""
    """The arms of a set operation before this one, with the operator."""
    width: int = 0
    """The columns of the first arm, in a later one."""
    text: str = ""
    items: int = 0
    """The columns listed, or 0 where they are not counted."""
    star: bool = False
    whole: bool = False
    """Whether the list is the star alone."""
    needs: Needs = Needs()
    before: Needs = Needs()
    """What was needed before ``last``, the column that the text ends with and that may still grow."""
    last: str = ""
    wanted: frozenset[str] = frozenset()
    """Names of columns that the query around it has named."""
    missing: frozenset[str] = frozenset()
    """Those that are not listed yet."""
    sources: tuple[Source, ...] = ()
    """Those before the one that stands at the end of ``text``."""
    source: Source | None = None
    written: str = ""
    """How ``source`` is written."""
    join: str = ""
    """``FROM``, ``ON`` where a condition follows the source, ``CROSS`` where none does."""
    derived: str = ""
    """A derived table that has no name yet."""
    closed: tuple[str, ...] = ()
    """The subqueries of what can still be changed."""
    sorting: bool = False
    """Whether a key of GROUP BY or ORDER BY is being written, in which no query around this one is seen."""

    def all(self) -> tuple[Source, ...]:
        return (*self.sources, self.source) if self.source else self.sources


class Outline(NamedTuple):
    """``lead`` is the WITH clause as far as its queries are closed, and where ``naming``, up to the open one."""

    lead: str = ""
    naming: bool = False
    named: tuple[Source, ...] = ()
    opened: tuple[Open, ...] = (Open("top"),)


@dataclass
class _Query:
    """A query being read. ``clause`` is where in it: start, list, source, alias, joins, tail."""

    kind: str
    begin: int
    wanted: frozenset[str] = frozenset()
    clause: str = "start"
    arms: str = ""
    width: int = 0
    arm: int = 0
    start: int = 0
    depth: int = 0
    item: list[str] = field(default_factory=list)
    listed: list[list[str]] = field(default_factory=list)
    needs: Needs = field(default_factory=Needs)
    before: Needs = field(default_factory=Needs)
    last: str = ""
    text: str = ""
    sources: tuple[Source, ...] = ()
    source: Source | None = None
    written: str = ""
    join: str = ""
    derived: str = ""
    columns: Source | None = None
    sorting: bool = False
    closed: list[str] = field(default_factory=list)
    outputs: list[str | None] = field(default_factory=list)

    def all(self) -> tuple[Source, ...]:
        return (*self.sources, self.source) if self.source else self.sources

    def star(self) -> bool:
        return any(item[-1:] == ["*"] and len(item) in (1, 3) for item in self.listed)

    def output(self) -> list[str | None]:
        """The names of the columns of the first arm, as far as they are listed."""
        found = [] if self.arm else [name for item in [*self.listed, self.item] if item for name in self.names(item)]
        return found or self.outputs

    def names(self, item: list[str]) -> list[str | None]:
        if len(item) > 3 and item[-3] == "AS" and "FROM".startswith(item[-1]):  # FROM, as far as it is written
            item = item[:-1]
        if item[-1] == "*" and len(item) in (1, 3):
            return [
                column for source in self.all() if len(item) == 1 or source.name == item[0] for column in source.columns
            ]
        if len(item) > 2 and item[-2] == "AS":
            return [item[-1]]
        plain = len(item) == 1 and _named(item[0]) and Catalogue.plain(item[0])
        return [item[-1] if plain or (len(item) == 3 and item[1] == ".") else None]

    def frozen(self) -> Open:
        wanted = self.wanted if not self.arm else frozenset[str]()
        common = Open(self.kind, self.arms, self.width, closed=tuple(self.closed), wanted=wanted)
        if self.clause in ("start", "list"):
            missing = wanted - {*self.output()}
            return common._replace(needs=self.needs, before=self.before, last=self.last, missing=missing)
        return common._replace(
            text=self.text, items=0 if self.star() else len(self.listed), star=self.star(),
            whole=self.listed == [["*"]], needs=self.needs, sources=self.sources, source=self.source,
            written=self.written, join=self.join, derived=self.derived, sorting=self.sorting,
        )  # fmt: skip


class Reading:
    """Reads one text; ``catalogue`` gives what can be read beside some named queries."""

    def __init__(self, catalogue: Callable[[tuple[Source, ...]], Catalogue], text: str) -> None:
        self.catalogue = catalogue
        self.text = text
        self.named: tuple[Source, ...] = ()
        self.readable = catalogue(())
        self.stack: list[_Query] = []
        self.words = [(match.group(), match.start(), match.end()) for match in WORD.finditer(text)]

    def outline(self) -> Outline:
        """What is open at the end of the text."""
        lead, naming, place = "", False, 0
        if self.at(0) == "WITH":
            place = 1
            while True:
                if [self.at(place + step) for step in (1, 2, 3)] != ["AS", "(", "SELECT"]:
                    return Outline(lead, False, self.named)
                name, opened = self.at(place), self.text[: self.words[place + 2][2]]
                end = self.query("named", place + 3)
                if end is None:
                    lead, naming = opened, True
                    break
                self.named = (*self.named, _source(name, self.stack[0]))
                self.readable = self.catalogue(self.named)
                lead = self.text[: self.words[end][2]]
                place = end + 1
                if self.at(place) != ",":
                    break
                place += 1
        if not naming:
            self.query("top", place)
        return Outline(lead, naming, self.named, tuple(query.frozen() for query in self.stack))

    def at(self, place: int) -> str:
        return self.words[place][0] if 0 <= place < len(self.words) else ""

    def query(self, kind: str, place: int) -> int | None:
        """Read from SELECT at ``place`` until the query closes; the index of its ), or None at the end."""
        self.stack = [_Query(kind, self.begin(place))]
        while place < len(self.words):
            word, query = self.at(place), self.stack[-1]
            if word == "(" and self.at(place + 1) == "SELECT":
                self.open(place, query)
            elif word == "(":
                query.depth += 1
                query.item.append(word)
            elif word == ")" and query.depth:
                query.depth -= 1
                query.item.append(word)
            elif word == ")":
                self.end_item(query)
                if len(self.stack) == 1:
                    return place
                self.close(place)
            else:
                place = self.word(place, word, query)
            place += 1
        return None

    def begin(self, place: int) -> int:
        return self.words[place][1] if place < len(self.words) else len(self.text)

    def open(self, place: int, query: _Query) -> None:
        kind, wanted = "sub", frozenset[str]()
        if query.clause == "source":
            kind, alias = "derived", self.readable.next_derived(query.sources, query.needs)
            wanted = frozenset(query.needs.columns().get(alias, ()))
        query.item.append("(")
        self.stack.append(_Query(kind, self.begin(place + 1), wanted))

    def close(self, place: int) -> None:
        inner = self.stack.pop()
        query = self.stack[-1]
        query.item.append(")")
        if inner.kind == "derived":
            query.clause, query.columns = "alias", _source("", inner)
            query.derived = self.text[inner.begin - 1 : self.words[place][2]]
        else:
            query.closed.append(self.text[inner.begin : self.words[place][1]])

    def word(self, place: int, word: str, query: _Query) -> int:
        """Read one word of ``query``; the index of the last word used."""
        clause = "" if query.depth else query.clause
        if clause == "start":
            if word == "SELECT":
                query.clause, query.start = "list", self.words[place][1]
        elif clause == "source":
            return self.source(place, word, query)
        elif clause == "alias":
            self.alias(word, query)
        elif clause in ("joins", "tail") and word in SET_OPERATORS:
            query.clause = "tail"
            # arms of a star read the same again
            return place if query.star() else self.next_arm(place, query)
        elif clause == "joins" and (word == "JOIN" or word in CLAUSES):
            if word != "JOIN":
                query.clause, query.sorting = "tail", word in ("GROUP", "ORDER")
            else:
                crossed = self.at(place - 1) in ("CROSS", "NATURAL")
                self.expect(place, query, "CROSS" if crossed else "ON")
        elif clause == "tail" and word in CLAUSES:
            query.sorting = word in ("GROUP", "ORDER")
        elif clause == "list" and word == "FROM" and self.at(place - 1) != "DISTINCT":
            self.end_item(query)
            self.expect(place, query, "FROM")
        elif clause == "list" and word == ",":
            self.end_item(query)
        elif query.clause in ("list", "tail"):
            self.refer(place, word, query)
            if query.clause == "list" and (query.item or word not in ("DISTINCT", "ALL")):
                query.item.append(word)
        return place

    def expect(self, place: int, query: _Query, join: str) -> None:
        """A source comes next."""
        query.clause, query.join, query.sources, query.source = "source", join, query.all(), None
        query.text = self.text[query.start : self.words[place][2]] + " "
        query.derived, query.closed = "", []

    def source(self, place: int, word: str, query: _Query) -> int:
        text, last = word, place
        if self.at(place + 1) == "AS":
            text, last = f"{word} AS {self.at(place + 2)}", place + 2
        found = self.readable.candidates(query.sources, query.needs).get(text)
        if found is not None:
            query.source, query.written, query.clause = found, text, "joins"
        return last

    def alias(self, word: str, query: _Query) -> None:
        if query.columns and word == self.readable.next_derived(query.sources, query.needs):
            query.source, query.clause = replace(query.columns, name=word), "joins"
            query.written = f"{query.derived} AS {word}"

    def next_arm(self, place: int, query: _Query) -> int:
        """The next arm, once its SELECT is written."""
        ahead = place + 2 if self.at(place + 1) == "ALL" else place + 1
        if self.at(ahead) == "SELECT":
            query.outputs = query.output()
            query.width = query.width or len(query.listed)
            query.arms = self.text[query.begin : self.words[ahead][1]]
            query.arm, query.clause, query.start = query.arm + 1, "list", self.words[ahead][1]
            query.item, query.listed, query.closed, query.needs = [], [], [], Needs()
            query.sources, query.source, query.before, query.last = (), None, Needs(), ""
            query.sorting = False
        return ahead

    def end_item(self, query: _Query) -> None:
        if query.clause == "list":
            query.listed.append(query.item)
        query.item = []

    def refer(self, place: int, word: str, query: _Query) -> None:
        """Note a column where its query has no FROM yet."""
        if self.at(place - 1) in (".", "AS") or not _named(word):
            return
        qualifier, column, end = "", word, self.words[place][2]
        if self.at(place + 1) == ".":
            if not self.at(place + 2):
                return
            qualifier, column, end = word, self.at(place + 2), self.words[place + 2][2]
        column = "" if column == "*" else column
        if qualifier and not self.readable.holds(qualifier, column):
            return
        if not qualifier and not (word in self.readable.spelled and self.at(place + 1) != "("):
            return
        last = self.text[self.words[place][1] :] if end == len(self.text) else ""
        if query.clause == "list":
            self.note(query, qualifier, column, last)
        elif qualifier:
            self.around(qualifier, column, last)

    def note(self, query: _Query, qualifier: str, column: str, last: str) -> None:
        needs = query.needs.named(qualifier, column)
        if last and not self.readable.leads((), needs):  # the beginning of a longer name
            return
        query.before, query.last = (query.needs, last) if last else (Needs(), "")
        query.needs = needs

    def around(self, qualifier: str, column: str, last: str) -> None:
        """A column after FROM: one of a query around it that has no FROM yet is noted there."""
        for query in reversed(self.stack):
            if query.clause == "list":
                self.note(query, qualifier, column, last)
                return
            if query.kind != "sub" or query.sorting or any(source.name == qualifier for source in query.all()):
                return


def _source(name: str, query: _Query) -> Source:
    """A closed query as a source."""
    outputs = query.output()
    columns = unique(outputs)
    known = {*map(key, columns)}
    return Source(name, columns, tuple(dict.fromkeys(one for one in outputs if one and key(one) not in known)))


def _named(word: str) -> bool:
    """Whether a word may be a name: no number, no text, no sign."""
    return word[0].isalpha() or word[0] in '_"`'
