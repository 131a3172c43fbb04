"""What the expert knows of a database: tables, columns, keys, and which text values its columns hold."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from expert_cli.errors import ContextError
from experts.sql.execute import LOCK_WAIT, open_database, uri

Key = tuple[str, str]
"""A table and a column of it, lower-cased."""

Edge = tuple[Key, Key]
"""Two columns that their tables may be joined on."""

MAX_VALUES = 2000
"""Distinct values read per text column for linking."""

MAX_ROWS = 200_000
"""Rows of a table that are searched for them."""

MAX_STEPS, STEPS = 200_000_000, 10_000
"""Steps of SQLite's machine that opening may take, and how often they are counted: a view may never end."""

MAX_VALUE_LENGTH = 60

MOST_ALIKE = 16
"""Tables whose keys may have one name."""

FLAGS = (frozenset({"t", "f"}), frozenset({"y", "n"}), frozenset({"yes", "no"}), frozenset({"true", "false"}))
"""Pairs of text values, lower-cased, that make a column a flag."""


@dataclass(frozen=True)
class Column:
    """A column; ``type`` is the declared type, lower-cased."""

    name: str
    type: str = ""
    primary: bool = False

    @property
    def numeric(self) -> bool:
        name = self.type.partition("(")[0]  # an enumeration's words say nothing
        return bool(re.search(r"(?<!po)int(?!erval)|(?<!e)num|real|float|dec|doub|money|serial", name))

    @property
    def temporal(self) -> bool:
        named = re.search(r"(^|_| )(date|time)$", self.name.lower())
        return bool(named or re.search(r"date|time", self.type.partition("(")[0]))


@dataclass(frozen=True)
class Table:
    """A table or view with its columns in declared order."""

    name: str
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class ForeignKey:
    """``table.column`` refers to ``target.target_column``."""

    table: str
    column: str
    target: str
    target_column: str


@dataclass(frozen=True)
class Schema:
    """The tables and keys of one database. Lookups ignore case, as SQL does."""

    tables: tuple[Table, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()
    values: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict, compare=False, repr=False)
    """Lower-cased text value -> (table, column, value as stored)."""
    place: str = ""
    """The schema of the server that holds the tables, where queries must say so."""

    @cached_property
    def columns(self) -> dict[Key, Column]:
        """Every column by (table, column)."""
        return {(table.name.lower(), column.name.lower()): column for table in self.tables for column in table.columns}

    @cached_property
    def by_name(self) -> dict[str, Table]:
        """Every table by its lower-cased name."""
        return {table.name.lower(): table for table in self.tables}

    @cached_property
    def squashed(self) -> dict[str, str]:
        """The values whose letters and digits are not the whole of them: those alone -> the value's key."""
        short = ((squash(key), key) for key in self.values)
        return {text: key for text, key in short if len(text) > 3 and text != key}

    @cached_property
    def _lengths(self) -> dict[tuple[str, int], list[str]]:
        found: dict[tuple[str, int], list[str]] = {}
        for key in self.values:
            found.setdefault((key[0], len(key)), []).append(key)
        return found

    def resembling(self, text: str) -> str | None:
        """The value closest to lower-cased ``text`` but for a letter, or two where it is long; None where two are."""
        most = 0 if len(text) < 5 else 1 if len(text) < 10 else 2
        if not most or text in self.values:
            return None
        near = (key for size in range(-most, most + 1) for key in self._lengths.get((text[0], len(text) + size), ()))
        found = sorted((apart, key) for key in near if (apart := _apart(text, key, most)) <= most)
        return found[0][1] if found and (len(found) == 1 or found[0][0] < found[1][0]) else None

    @cached_property
    def flags(self) -> dict[Key, tuple[str, ...]]:
        """Text columns whose only values are a pair such as ``T`` and ``F``, with those values."""
        held: dict[Key, dict[str, str]] = {}
        for key, places in self.values.items():
            for table, column, value in places:
                known = held.setdefault((table.lower(), column.lower()), {})
                if len(known) <= 2:
                    known.setdefault(key, value)
        return {
            pair: tuple(sorted(known.values()))
            for pair, known in held.items()
            if any(known.keys() <= flag for flag in FLAGS)
        }

    @cached_property
    def edges(self) -> list[Edge]:
        """Pairs of columns that tables may be joined on: the declared keys, then those that names suggest."""
        found: dict[frozenset[Key], Edge] = {}
        for key in self.foreign_keys:
            left, right = (key.table.lower(), key.column.lower()), (key.target.lower(), key.target_column.lower())
            if left in self.columns and right in self.columns and left[0] != right[0]:
                found.setdefault(frozenset((left, right)), (left, right))
        declared = {frozenset((left[0], right[0])) for left, right in found.values()}
        for left, right in (*self._alike(), *self._siblings()):
            if frozenset((left[0], right[0])) not in declared:
                found.setdefault(frozenset((left, right)), (left, right))
        return list(found.values())

    def _alike(self) -> Iterator[Edge]:
        """Columns called as another table's primary key is, or ``<table>`` or ``<table>_id``."""
        targets: dict[str, list[Key]] = {}
        for table in self.tables:
            primaries = [column.name.lower() for column in table.columns if column.primary]
            if not primaries:
                primaries = [column.name.lower() for column in table.columns[:1]]
            if len(primaries) == 1:
                key = (table.name.lower(), primaries[0])
                for name in _called(*key):
                    targets.setdefault(name, []).append(key)
        for pair in self.columns:
            found = targets.get(pair[1], ())
            # what so many tables begin with is no key of theirs
            for target in found if len(found) <= MOST_ALIKE else ():
                if target[0] != pair[0]:
                    yield pair, target

    def _siblings(self) -> Iterator[Edge]:
        """Columns of one name that refer to the same key."""
        referring: dict[tuple[str, str, str], list[Key]] = {}
        for key in self.foreign_keys:
            shared = (key.target.lower(), key.target_column.lower(), key.column.lower())
            referring.setdefault(shared, []).append((key.table.lower(), key.column.lower()))
        for pairs in referring.values():
            for place, left in enumerate(pairs):
                for right in pairs[place + 1 :]:
                    if left[0] != right[0] and left in self.columns and right in self.columns:
                        yield left, right


def _called(table: str, primary: str) -> Iterator[str]:
    """What columns that refer to ``table`` are called."""
    if primary not in ("id", "name", "code"):
        yield primary
    for stem in dict.fromkeys((table, table.removesuffix("s"))):
        yield from (stem, f"{stem}_id", f"{stem}id")


def read_sqlite(path: Path) -> Schema:
    """The schema of a SQLite file, read-only, with its text values.

    Raises:
        ContextError: the file cannot be opened, is not SQLite, or holds no tables.
    """
    path = open_database(path)
    try:
        with closing(sqlite3.connect(uri(path), uri=True, timeout=LOCK_WAIT)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            connection.execute("PRAGMA trusted_schema=OFF")
            _limit(connection)
            return _read(connection)
    except sqlite3.DatabaseError as problem:
        raise ContextError(
            f"cannot read {path}: {problem}; close the program that writes it, or repair it"
        ) from problem


def from_ddl(text: str, source: str = "schema") -> Schema:
    """The schema that SQLite makes of CREATE statements, with the values of the rows that they are followed by.

    Raises:
        ContextError: SQLite refuses them, or they create no table.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        _limit(connection)
        connection.set_authorizer(_inside)
        try:
            connection.executescript(text)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as problem:
            raise ContextError(
                f"{source}: {problem}; write what SQLite accepts, or say with --dialect whose DDL it is"
            ) from problem
        connection.set_authorizer(None)
        return _read(connection)


def squash(text: str) -> str:
    """The letters and digits of ``text``."""
    return "".join(filter(str.isalnum, text))


def _apart(one: str, other: str, most: int) -> int:
    """The edit distance of two texts, or more than ``most``."""
    row = list(range(len(other) + 1))
    for place, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], place
        for column, against in enumerate(other, 1):
            diagonal, row[column] = (
                row[column],
                min(row[column] + 1, row[column - 1] + 1, diagonal + (letter != against)),
            )
        if min(row) > most:
            return most + 1
    return row[-1]


def quote(name: str) -> str:
    """``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _limit(connection: sqlite3.Connection) -> None:
    left = iter(range(MAX_STEPS // STEPS))
    connection.set_progress_handler(lambda: next(left, None) is None, STEPS)


def _inside(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """SQLite's authorizer callback: nothing outside the database in memory; the pragmas of a dump do nothing."""
    if action == sqlite3.SQLITE_PRAGMA:
        return sqlite3.SQLITE_IGNORE
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


def _read(connection: sqlite3.Connection) -> Schema:
    shadows = {row[1] for row in connection.execute("PRAGMA table_list") if row[2] == "shadow"}
    tables, views, keys = [], [], []
    for name, kind in connection.execute(NAMES).fetchall():
        columns = _columns(connection, name)
        if name in shadows or not columns:
            continue
        tables.append(Table(name, columns))
        if kind == "view":
            views.append(tables[-1])
        for row in connection.execute(f"PRAGMA foreign_key_list({quote(name)})"):
            keys.append((name, row[3], row[2], row[4]))
    if not tables:
        raise ContextError("the database has no tables; create some, or point --db at another file")
    primary = {table.name.lower(): [column.name for column in table.columns if column.primary] for table in tables}
    foreign = tuple(
        ForeignKey(table, column, target, given or (primary.get(target.lower()) or [column])[0])
        for table, column, target, given in keys
    )
    held: dict[str, list[tuple[str, str, str]]] = {}
    for table in [*(table for table in tables if table not in views), *views]:
        for column in table.columns:
            _collect(connection, table.name, column, held)
    return Schema(tuple(tables), foreign, held)


NAMES = (
    "SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
)
HIDDEN = 1
"""What ``table_xinfo`` calls the columns of a virtual table that hold no data."""


def _columns(connection: sqlite3.Connection, table: str) -> tuple[Column, ...]:
    """The columns of a table, generated ones too; none of a view that does not compile or of an unknown module."""
    try:
        rows = connection.execute(f"PRAGMA table_xinfo({quote(table)})").fetchall()
    except sqlite3.OperationalError as problem:
        if problem.sqlite_errorcode != sqlite3.SQLITE_ERROR:
            raise
        return ()
    return tuple(Column(row[1], (row[2] or "").lower(), bool(row[5])) for row in rows if row[6] != HIDDEN)


def _collect(
    connection: sqlite3.Connection, table: str, column: Column, held: dict[str, list[tuple[str, str, str]]]
) -> None:
    """Add the text values of one column to ``held``, as many as a view that fails or never ends gives."""
    if column.numeric:
        return
    name = quote(column.name)
    query = f"SELECT DISTINCT {name} FROM (SELECT {name} FROM {quote(table)} LIMIT {MAX_ROWS}) LIMIT {MAX_VALUES}"
    try:
        for (value,) in connection.execute(query):
            if isinstance(value, str) and 0 < len(value.strip()) <= MAX_VALUE_LENGTH:
                held.setdefault(value.strip().lower(), []).append((table, column.name, value))
    except sqlite3.OperationalError as problem:
        if problem.sqlite_errorcode not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_INTERRUPT):
            raise
