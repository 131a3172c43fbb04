"""What FROM must bring where SELECT came first: the sources of what the list named.

A column is named by its table (``singer.name``), by an alias that FROM gives later (``T1.name``, ``s.name``) or bare.
An alias may be any table that holds all that was named with it; a bare column must come from exactly one source. What
is offered still goes into one FROM together with all that was named before, so that there is always a way to end.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

from experts.sql.identifiers import quoted
from experts.sql.names import OUTPUTS
from experts.sql.scopes import Source

MOST_BROUGHT = 6  # sources of one FROM
MOST_BRIDGES = 3  # sources that bring nothing of what was named, until all of it is brought
MOST_ALIASES = 9  # T1 to T9
AHEAD = 3  # numbered aliases offered beyond the last one that was named
MOST_DERIVED = 9

# Every word that the grammars write by themselves: a column that is spelled like one is never written bare.
WORDS = frozenset(
    """
ABS ALL AND ANY ARRAY_AGG AS ASC AVG BETWEEN BIGINT BINARY BLOB BOOLEAN BOTH BY CASE CAST CEIL CEILING CHAR COALESCE
COLLATE CONCAT COUNT CROSS CUME_DIST CURDATE CURRENT CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP DATE DATEDIFF DATETIME
DATE_ADD DATE_FORMAT DATE_PART DATE_SUB DATE_TRUNC DAY DECIMAL DENSE_RANK DESC DISTINCT DOUBLE ELSE END ESCAPE EXCEPT
EXISTS EXP EXTRACT FALSE FILTER FIRST FIRST_VALUE FLOAT FLOOR FOLLOWING FROM FULL GLOB GREATEST GROUP GROUPS
GROUP_CONCAT HAVING HEX HOUR IF IFNULL IIF ILIKE IN INNER INSTR INT INTEGER INTERSECT INTERVAL IS JOIN JULIANDAY LAG
LAST LAST_VALUE LEAD LEADING LEAST LEFT LENGTH LIKE LIMIT LN LOG LOWER LTRIM MAX MEDIAN MIN MINUTE MOD MONTH
NATURAL NOCASE NOT NOW NTH_VALUE NTILE NULL NULLIF NULLS NUMERIC OFFSET ON OR ORDER OUTER OVER PARTITION PERCENT_RANK
POSITION POWER PRECEDING PRECISION PRINTF QUALIFY QUARTER QUOTE RANDOM RANGE RANK REAL RECURSIVE REGEXP REPLACE RIGHT
ROUND ROW ROWS ROW_NUMBER RTRIM SECOND SELECT SEPARATOR SIGN SIGNED SIMILAR SMALLINT SOME SQRT STRFTIME STRING_AGG
SUBSTR SUBSTRING SUM TEXT THEN TIME TIMESTAMP TO TOTAL TO_CHAR TRAILING TRIM TRUE TRUNC TRY_CAST TYPEOF UNBOUNDED
UNICODE UNION UNIXEPOCH UNKNOWN UNSIGNED UPPER USING UUID VARCHAR WEEK WHEN WHERE WITH YEAR
""".split()
)

# Words that a parser may take for a part of a clause, however they are spelled.
_CLAUSES = frozenset(
    """
ASC CURRENT DESC END ESCAPE FALSE FILTER FIRST FOLLOWING GLOB GROUPS ILIKE INTERVAL LAST LIKE NULLS OFFSET OVER
PARTITION PRECEDING QUALIFY RANGE RECURSIVE REGEXP ROW ROWS SIMILAR TRUE UNBOUNDED WITH
""".split()
)

_NUMBERED = re.compile(r"T([1-9])")
_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")


class Needs(NamedTuple):
    """What a SELECT list names: ``qualified`` as (table or alias, column), a star being no column; ``bare`` by key."""

    qualified: frozenset[tuple[str, str]] = frozenset()
    bare: frozenset[str] = frozenset()

    def named(self, qualifier: str, column: str) -> Needs:
        """The same and one more column, written with ``qualifier`` or bare."""
        if not qualifier:
            return self._replace(bare=self.bare | {key(column)})
        return self._replace(qualified=self.qualified | {(qualifier, column)})

    def columns(self) -> dict[str, set[str]]:
        """What is named by each table or alias."""
        found: dict[str, set[str]] = {}
        for qualifier, column in self.qualified:
            found.setdefault(qualifier, set()).update([column] if column else [])
        return found


def key(name: str) -> str:
    """A written name as databases compare it."""
    return (name[1:-1] if name[:1] in '"`' else name).lower()


def keys(columns: Iterable[str]) -> frozenset[str]:
    return frozenset(map(key, columns))


def weighed(source: Source) -> list[str]:
    """The keys of a source's columns, those twice that several have."""
    return [*map(key, source.columns), *map(key, source.hidden * 2)]


Shares = frozenset[str]
"""The bare columns that a source would bring."""


class Catalogue:
    """What FROM can read: ``tables`` and named queries by their written names; ``taken`` are names in lower case."""

    def __init__(
        self, tables: Mapping[str, tuple[str, ...]], taken: Collection[str], named: Collection[Source] = ()
    ) -> None:
        tables = {**tables, **{source.name: source.columns for source in named}}
        self.tables = dict(tables)
        self.keys = {name: keys(columns) for name, columns in tables.items()}
        self.hidden = {source.name: source.hidden for source in named if source.hidden}
        taken = {*taken, *map(key, tables)}
        self.aliases = {
            alias: readable for alias, readable in _aliases(self.tables).items() if alias.lower() not in taken
        }
        self.derived = [name for number in range(1, MOST_DERIVED + 1) if (name := f"d{number}") not in taken]
        self.bare: dict[str, list[str]] = {}
        for column in dict.fromkeys(column for columns in tables.values() for column in columns):
            if self.plain(column):
                self.bare.setdefault(key(column), []).append(column)
        self.spelled = frozenset(one for written in self.bare.values() for one in written)
        self._leads: dict[tuple[tuple[Source, ...], Needs], bool] = {}
        self._forms: dict[Needs, tuple[str, ...]] = {}
        self._candidates: dict[tuple[tuple[Source, ...], Needs], dict[str, Source]] = {}

    @staticmethod
    def plain(column: str) -> bool:
        """Whether a column may be written bare."""
        return column not in WORDS and column.upper() not in _CLAUSES

    def holds(self, qualifier: str, column: str) -> bool:
        """Whether ``qualifier.column`` can be named before FROM; no column is the star."""
        if qualifier in self.derived:
            return column in OUTPUTS or not column
        readable = self.aliases.get(qualifier, (qualifier,) if qualifier in self.tables else ())
        return any(not column or column in self.tables[table] for table in readable)

    def leads(self, have: tuple[Source, ...], needs: Needs) -> bool:
        """Whether the sources ``have`` and more can bring all of ``needs``."""
        asked = (have, needs)
        if asked not in self._leads:
            self._leads[asked] = self._found(have, needs)
        return self._leads[asked]

    def brings(self, have: tuple[Source, ...], needs: Needs) -> bool:
        """Whether the sources ``have`` bring all of ``needs``."""
        columns = {source.name: source.columns for source in have}
        if not all(name in columns and named <= {*columns[name]} for name, named in needs.columns().items()):
            return False
        every = [one for source in have for one in weighed(source)]
        return all(every.count(one) == 1 for one in needs.bare)

    def _found(self, have: tuple[Source, ...], needs: Needs) -> bool:
        here = {source.name: source.columns for source in have}
        brought = [one for source in have for one in weighed(source) if one in needs.bare]
        covered = frozenset(brought)
        if len(brought) > len(covered):  # a bare column that two sources have
            return False
        readable = {name: bare & needs.bare for name, bare in self.keys.items()}
        for name, hidden in self.hidden.items():
            if keys(hidden) & needs.bare:
                del readable[name]
        choices: list[set[Shares]] = []
        for name, columns in needs.columns().items():
            if name in here:
                if not columns <= {*here[name]}:
                    return False
            elif name in self.derived:
                if needs.bare:
                    return False
                choices.append({frozenset()})
            else:
                choices.append({readable[one] for one in self._readable(name, columns) if one in readable})
        offered = set(filter(None, readable.values()))
        return _cover(covered, sorted(choices, key=len), needs.bare, offered, MOST_BROUGHT - len(have))

    def _readable(self, name: str, columns: set[str]) -> Iterator[str]:
        """The tables that ``name``, a table or an alias, may be with those columns."""
        if name in self.tables:
            yield name
        else:
            yield from (table for table in self.aliases[name] if columns <= {*self.tables[table]})

    def forms(self, needs: Needs) -> tuple[str, ...]:
        """The columns that the list may name beside ``needs``, as they are written."""
        if needs not in self._forms:
            self._forms[needs] = tuple(self._listed(needs))
        return self._forms[needs]

    def _listed(self, needs: Needs) -> Iterator[str]:
        for bare, written in self.bare.items():
            if self.leads((), needs.named("", bare)):
                yield from written
        used = needs.columns()
        for qualifier in self._qualifiers(used):
            columns: Iterable[str] = OUTPUTS
            if qualifier in self.tables:
                columns = self.tables[qualifier] if self.leads((), needs.named(qualifier, "")) else ()
            elif qualifier in self.aliases:
                columns = dict.fromkeys(one for table in self.aliases[qualifier] for one in self.tables[table])
                columns = [one for one in columns if self.leads((), needs.named(qualifier, one))]
            elif not self.leads((), needs.named(qualifier, "")):
                columns = ()
            yield from (f"{qualifier}.{column}" for column in columns)

    def stars(self, needs: Needs) -> list[str]:
        """The stars that the list may name beside ``needs``."""
        named = (one for one in self._qualifiers(needs.columns()) if self.leads((), needs.named(one, "")))
        return ["*", *(f"{one}.*" for one in named)]

    def _qualifiers(self, used: Collection[str]) -> Iterator[str]:
        yield from self.tables
        yield from self._offered(used)
        for name in self.derived:  # in order, so that FROM can number them as they come
            yield name
            if name not in used:
                break

    def _offered(self, used: Collection[str]) -> Iterator[str]:
        """The aliases, of the numbered ones only some beyond those used."""
        numbers = [int(found[1]) for name in used if (found := _NUMBERED.fullmatch(name))]
        for alias in self.aliases:
            found = _NUMBERED.fullmatch(alias)
            if not found or int(found[1]) <= max(numbers, default=0) + AHEAD:
                yield alias

    def candidates(self, have: tuple[Source, ...], needs: Needs) -> dict[str, Source]:
        """The tables and named queries that may be read after the sources ``have``, as they are written."""
        asked = (have, needs)
        if asked not in self._candidates:
            found = dict(self._sources(have, needs))
            if self._bridged(have, needs):
                found = {text: source for text, source in found.items() if _serves(source, needs)}
            self._candidates[asked] = found
        return self._candidates[asked]

    def _sources(self, have: tuple[Source, ...], needs: Needs) -> Iterator[tuple[str, Source]]:
        own, named = {source.name for source in have}, needs.columns()
        aliases = [alias for alias in self._offered({*own, *named}) if alias not in own]
        for table in self.tables:
            if table not in own and self.leads((*have, one := self._source(table, table)), needs):
                yield table, one
            free = ""  # an alias that nothing was named by stands for all such aliases
            for alias in aliases:
                if table in self.aliases[alias] and (alias in named or free != "no"):
                    one = self._source(alias, table)
                    leads = bool(free and alias not in named) or self.leads((*have, one), needs)
                    free = free if alias in named else "yes" if leads else "no"
                    if leads:
                        yield f"{table} AS {alias}", one

    def _source(self, name: str, table: str) -> Source:
        return Source(name, self.tables[table], self.hidden.get(table, ()))

    def _bridged(self, have: tuple[Source, ...], needs: Needs) -> bool:
        """Whether only sources that bring something may follow."""
        bridges = sum(not _serves(source, needs) for source in have)
        return bridges >= MOST_BRIDGES and not self.brings(have, needs)

    def next_derived(self, have: tuple[Source, ...], needs: Needs) -> str:
        """What a derived table after the sources ``have`` is called, or nothing where none may be read."""
        own = {source.name for source in have}
        alias = next((name for name in self.derived if name not in own), "")
        if not alias or needs.bare:  # its columns are not known yet: a bare one might be among them
            return ""
        columns = tuple(needs.columns().get(alias, ()))
        if alias not in needs.columns() and self._bridged(have, needs):
            return ""
        return alias if self.leads((*have, Source(alias, columns)), needs) else ""


def _serves(source: Source, needs: Needs) -> bool:
    """Whether a source brings something that was named."""
    return source.name in needs.columns() or bool(keys(source.columns) & needs.bare)


def _cover(covered: Shares, choices: list[set[Shares]], bare: Shares, offered: set[Shares], room: int) -> bool:
    """Whether one of each of ``choices`` and more of ``offered`` cover ``bare`` exactly, with ``room`` sources."""
    if len(choices) > room:
        return False
    if choices:
        return any(
            _cover(covered | share, choices[1:], bare, offered, room - 1) for share in choices[0] if not share & covered
        )
    if covered == bare:
        return True
    fitting = {share for share in offered if not share & covered}
    scarce = min(bare - covered, key=lambda one: sum(one in share for share in fitting))
    return room > 0 and any(
        _cover(covered | share, [], bare, fitting, room - 1) for share in fitting if scarce in share
    )


def _aliases(tables: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The aliases that queries commonly give, and the tables that each may be: T1 … T9 any, initials their own."""
    found: dict[str, list[str]] = {f"T{number}": list(tables) for number in range(1, MOST_ALIASES + 1)}
    for table in tables:
        parts = _PARTS.findall(table)
        initials = "".join(part[0] for part in parts).lower()
        for alias in dict.fromkeys((initials[:1], initials)):
            if alias and quoted(alias) == alias and alias.upper() not in WORDS and not alias[1:].isdigit():
                found.setdefault(alias, []).append(table)
    return {alias: tuple(readable) for alias, readable in found.items()}
