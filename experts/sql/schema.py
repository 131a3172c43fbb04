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

MAX_VALUES = 2000
"""Distinct values read per text column for linking."""

MAX_VALUE_LENGTH = 60

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
        return bool(re.search(r"int|num|real|float|dec|doub|money|serial", self.type))

    @property
    def temporal(self) -> bool:
        return bool(re.search(r"date|time", self.type)) or bool(re.search(r"(^|_| )(date|time)$", self.name.lower()))


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

    @cached_property
    def columns(self) -> dict[tuple[str, str], Column]:
        return {(table.name.lower(), column.name.lower()): column for table in self.tables for column in table.columns}

    @cached_property
    def by_name(self) -> dict[str, Table]:
        return {table.name.lower(): table for table in self.tables}

    @cached_property
    def flags(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """Text columns whose only values are a pair such as ``T`` and ``F``, with those values."""
        held: dict[tuple[str, str], set[str]] = {}
        for key, places in self.values.items():
            for table, column, _ in places:
                pair = (table.lower(), column.lower())
                if pair not in held:
                    held[pair] = set()
                if len(held[pair]) <= 2:
                    held[pair].add(key)
        return {
            pair: tuple(sorted(self._stored(pair, value) for value in values))
            for pair, values in held.items()
            if any(values <= flag for flag in FLAGS)
        }

    def _stored(self, pair: tuple[str, str], key: str) -> str:
        return next(value for table, column, value in self.values[key] if (table.lower(), column.lower()) == pair)

    @cached_property
    def _edges(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        return self._joins()

    def edges(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        """Pairs of columns that tables may be joined on: the declared keys, then those that names suggest."""
        return self._edges

    def _joins(self) -> list[tuple[tuple[str, str], tuple[str, str]]]:
        found: dict[frozenset[tuple[str, str]], tuple[tuple[str, str], tuple[str, str]]] = {}
        for key in self.foreign_keys:
            left, right = (key.table.lower(), key.column.lower()), (key.target.lower(), key.target_column.lower())
            if left in self.columns and right in self.columns and left[0] != right[0]:
                found.setdefault(frozenset((left, right)), (left, right))
        declared = {frozenset((left[0], right[0])) for left, right in found.values()}
        for left, right in self._suggested():
            if frozenset((left[0], right[0])) not in declared:
                found.setdefault(frozenset((left, right)), (left, right))
        return list(found.values())

    def _suggested(self) -> Iterator[tuple[tuple[str, str], tuple[str, str]]]:
        """Column pairs that look like keys: the same name as another table's primary key, or ``<table>_id`` and ``id``."""
        targets: dict[str, list[tuple[str, str]]] = {}
        for table in self.tables:
            primaries = [column.name.lower() for column in table.columns if column.primary]
            if len(primaries) != 1 and table.columns and not primaries:
                primaries = [table.columns[0].name.lower()]
            if len(primaries) != 1:
                continue
            stem = table.name.lower()
            for name in {primaries[0]} - {"id", "name", "code"}:
                targets.setdefault(name, []).append((stem, primaries[0]))
            for name in {stem, stem.removesuffix("s")} | {
                f"{stem}_id",
                f"{stem}id",
                f"{stem.removesuffix('s')}_id",
                f"{stem.removesuffix('s')}id",
            }:
                targets.setdefault(name, []).append((stem, primaries[0]))
        for table, column in self.columns:
            for target in targets.get(column, ()):
                if target[0] != table:
                    yield (table, column), target
        referring: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
        for key in self.foreign_keys:
            shared = (key.target.lower(), key.target_column.lower(), key.column.lower())
            referring.setdefault(shared, []).append((key.table.lower(), key.column.lower()))
        for pairs in referring.values():
            for place, left in enumerate(pairs):
                for right in pairs[place + 1 :]:
                    if left[0] != right[0] and left in self.columns and right in self.columns:
                        yield left, right


def read_sqlite(path: Path, *, values: bool = True) -> Schema:
    """The schema of a SQLite file, read-only, with its text values when ``values``.

    Raises:
        ContextError: the file cannot be opened, is not SQLite, or holds no tables.
    """
    if not path.exists():
        raise ContextError(f"no database at {path}; check the path given to --db")
    if not path.is_file():
        raise ContextError(f"{path} is not a file; --db takes a SQLite database file")
    try:
        with closing(sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True, timeout=2.0)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            return _read(connection, values=values)
    except sqlite3.DatabaseError as problem:
        reason = str(problem)
        step = "close the program that holds it and try again" if "locked" in reason else "give a SQLite database file"
        raise ContextError(f"cannot read {path}: {reason}; {step}") from problem


def from_ddl(text: str, source: str = "schema") -> Schema:
    """The schema that SQLite makes of CREATE statements.

    Raises:
        ContextError: SQLite refuses them, or they create no table.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_authorizer(_only_create)
        try:
            connection.executescript(text)
        except (sqlite3.DatabaseError, ValueError) as problem:
            raise ContextError(f"{source}: {problem}; give CREATE TABLE statements that SQLite accepts") from problem
        finally:
            connection.set_authorizer(None)
        return _read(connection, values=False)


def _only_create(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """Refuse what reaches outside the in-memory database."""
    return sqlite3.SQLITE_DENY if action in (sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_PRAGMA) else sqlite3.SQLITE_OK


def quote(name: str) -> str:
    """``name`` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _read(connection: sqlite3.Connection, *, values: bool) -> Schema:
    names = [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
    ]
    if not names:
        raise ContextError("the database has no tables; create some, or point --db at another file")
    tables, keys = [], []
    held: dict[str, list[tuple[str, str, str]]] = {}
    for name in names:
        rows = connection.execute(f"PRAGMA table_info({quote(name)})").fetchall()
        columns = tuple(Column(row[1], (row[2] or "").lower(), bool(row[5])) for row in rows)
        if not columns:
            continue
        tables.append(Table(name, columns))
        for row in connection.execute(f"PRAGMA foreign_key_list({quote(name)})"):
            keys.append((name, row[3], row[2], row[4]))
        if values:
            for column in columns:
                _collect(connection, name, column, held)
    primary = {table.name.lower(): [column.name for column in table.columns if column.primary] for table in tables}
    foreign = tuple(
        ForeignKey(table, column, target, given or (primary.get(target.lower()) or [column])[0])
        for table, column, target, given in keys
    )
    return Schema(tuple(tables), foreign, held)


def _collect(
    connection: sqlite3.Connection, table: str, column: Column, held: dict[str, list[tuple[str, str, str]]]
) -> None:
    if column.numeric:
        return
    query = f"SELECT DISTINCT {quote(column.name)} FROM {quote(table)} LIMIT {MAX_VALUES}"
    for (value,) in connection.execute(query):
        if isinstance(value, str) and 0 < len(value.strip()) <= MAX_VALUE_LENGTH:
            held.setdefault(value.strip().lower(), []).append((table, column.name, value))
