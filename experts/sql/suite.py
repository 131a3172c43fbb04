"""Mutated copies of a database, so that a query which matched its gold by luck fails on one of them.

In each copy the values of a column are dealt out anew among its rows (keys that other tables refer to stay), some rows
of tables that nothing refers to are gone, and tables with a number for their key have grown. References stay whole, a
column without duplicates has none, and every literal that the gold queries compare a column with occurs in it.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from expert_cli.errors import ContextError
from expert_cli.task import Limits
from experts.sql.execute import QueryError, Worker, uri
from experts.sql.score import LIMITS, GoldError, Match, cut_in_a_tie, score

if TYPE_CHECKING:
    from sqlglot import exp

MAX_ROWS = 50_000
"""Rows of a table that are dealt out anew; the rest keep their values."""

MARKED = (
    "CASE typeof({0}) WHEN 'text' THEN {0} || ' ' || :step WHEN 'integer' THEN {0} + 1000000000 + :step "
    "WHEN 'real' THEN {0} + 1000 * :step + 0.5 END"
)
"""A value that is not yet in a column without duplicates."""

Literals = Mapping[str, Sequence[int | float | str]]


@dataclass(frozen=True)
class Field:
    """A column that may change; ``distinct`` where all its values differ, ``number`` or ``text`` where all are such."""

    name: str
    distinct: bool
    number: bool
    text: bool


@dataclass(frozen=True)
class Relation:
    """A table with its changeable columns and its integer ``key``; ``referred`` where another table points to it.

    ``references`` are (column, table, column there) of the keys that are one column wide.
    """

    name: str
    fields: tuple[Field, ...]
    columns: tuple[str, ...]
    key: str
    referred: bool
    references: tuple[tuple[str, str, str], ...]


def copies(path: Path, queries: Sequence[str], folder: Path, count: int = 3, seed: int = 1) -> list[Path]:
    """Write ``count`` mutated copies of the database at ``path`` into ``folder``; equal arguments give equal copies.

    Raises:
        ContextError: the database cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    constants = literals(queries)
    made = []
    for number in range(count):
        target = folder / f"{path.stem}.{number}.sqlite"
        target.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(uri(path), uri=True)) as source, closing(sqlite3.connect(target)) as db:
                source.backup(db)
                _mutate(db, constants, Random(f"{seed}/{path.stem}/{number}"))
        except sqlite3.Error as problem:
            target.unlink(missing_ok=True)
            raise ContextError(f"cannot copy {path}: {problem}; check the database") from problem
        made.append(target)
    return made


def score_suite(workers: Sequence[Worker], predicted: str, gold: Sequence[str], limits: Limits = LIMITS) -> Match:
    """The score over several databases (the original first): correct where it is correct on every one.

    A copy on which no gold runs, or where its LIMIT cuts through rows of equal rank, decides nothing.

    Raises:
        GoldError: no gold query runs on the original.
    """
    original, *others = workers
    first = score(original, predicted, gold, limits)
    empty = first.both_empty
    if not first.correct:
        return first
    for number, worker in enumerate(others, start=1):
        try:
            if any(cut_in_a_tie(worker, sql, limits) for sql in gold):
                continue
            match = score(worker, predicted, gold, limits)
        except (GoldError, QueryError):
            continue
        if not match.correct:
            return Match(False, f"matches by luck: on copy {number}, {match.reason}", permuted=match.permuted)
        empty = empty and match.both_empty
    return Match(True, both_empty=empty)


def literals(queries: Sequence[str]) -> Literals:
    """What the queries compare each column with, by the column's lower-cased name."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    found: dict[str, set[int | float | str]] = defaultdict(set)
    for query in queries:
        try:
            tree = sqlglot.parse_one(query, dialect="sqlite")
        except SqlglotError:
            continue  # a query that does not parse plants nothing; scoring it says what is wrong
        for test in tree.find_all(exp.Predicate):
            if isinstance(test.this, exp.Column):
                found[test.this.name.lower()] |= _compared(test)
    return {column: sorted(values, key=repr) for column, values in found.items()}


def _compared(test: exp.Expr) -> set[int | float | str]:
    """The literals of one comparison; SQLite takes a quoted word for text where no column has its name."""
    from sqlglot import exp

    values: set[int | float | str] = set()
    for part in test.find_all(exp.Literal, exp.Column):
        if part.find_ancestor(exp.Predicate, exp.Select) is not test or part is test.this:
            continue
        if isinstance(part, exp.Literal) and part.is_number:
            values.add(int(part.name) if part.is_int else float(part.name))
        elif not isinstance(part, exp.Column) or (not part.table and part.this.quoted):
            values.add(part.name.strip("%"))
    return values


def _mutate(db: sqlite3.Connection, constants: Literals, random: Random) -> None:
    db.isolation_level = None
    for setting in ("foreign_keys = OFF", "ignore_check_constraints = ON", "synchronous = OFF"):
        db.execute(f"PRAGMA {setting}")
    db.execute("CREATE TEMP TABLE dealt (row INTEGER PRIMARY KEY, other INTEGER, value)")
    db.execute("BEGIN")
    for (trigger,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        db.execute(f"DROP TRIGGER {_quoted(trigger)}")
    held = relations(db)
    for relation in held:
        if relation.referred:
            _grow(db, relation, random)
        else:
            _thin(db, relation, random)
        for field in relation.fields:
            _deal(db, relation, field, random)
            _plant(db, relation, field, constants.get(field.name.lower(), ()), random)
    for relation in held:
        _mend(db, relation, [table.name for table in held], random)
    db.execute("COMMIT")


def relations(db: sqlite3.Connection) -> list[Relation]:
    """The ordinary tables of a database and what may change in them."""
    tables = [
        row[1]
        for row in db.execute("PRAGMA main.table_list").fetchall()
        if row[2] == "table" and not row[4] and not row[1].startswith("sqlite_")
    ]
    keys = {table: db.execute(f"PRAGMA foreign_key_list({_quoted(table)})").fetchall() for table in tables}
    referred = {key[2].lower() for table in tables for key in keys[table]}
    targets = {(key[2].lower(), (key[4] or "").lower()) for table in tables for key in keys[table]}
    return [_relation(db, table, keys[table], table.lower() in referred, targets) for table in tables]


def _relation(
    db: sqlite3.Connection, table: str, keys: Sequence[Sequence[Any]], referred: bool, targets: set[tuple[str, str]]
) -> Relation:
    columns = [row for row in db.execute(f"PRAGMA table_xinfo({_quoted(table)})").fetchall() if not row[6]]
    primary = [row for row in columns if row[5]]
    points = {key[3].lower() for key in keys}
    fields = []
    for name in (row[1] for row in columns if not row[5]):
        if (table.lower(), name.lower()) in targets:
            continue
        held = f"FROM {_quoted(table)} WHERE {_quoted(name)} IS NOT NULL"
        count, different = db.execute(f"SELECT COUNT(*), COUNT(DISTINCT {_quoted(name)}) {held}").fetchone()
        types = {row[0] for row in db.execute(f"SELECT DISTINCT typeof({_quoted(name)}) {held}").fetchall()}
        plants = name.lower() not in points
        fields.append(
            Field(name, count == different, plants and types <= {"integer", "real"}, plants and types <= {"text"})
        )
    key = primary[0][1] if len(primary) == 1 and primary[0][2].upper() == "INTEGER" else ""
    wide = {key[0] for key in keys if key[1]}
    references = tuple((key[3], key[2], key[4] or "rowid") for key in keys if key[0] not in wide)
    return Relation(table, tuple(fields), tuple(row[1] for row in columns), key, referred, references)


def _deal(db: sqlite3.Connection, relation: Relation, field: Field, random: Random) -> None:
    """Deal the values of a column out anew among its rows."""
    table, column = _quoted(relation.name), _quoted(field.name)
    rows = _rows(db, relation)[:MAX_ROWS]
    db.execute("DELETE FROM temp.dealt")
    db.executemany(
        "INSERT INTO temp.dealt (row, other) VALUES (?, ?)", zip(rows, random.sample(rows, len(rows)), strict=True)
    )
    db.execute(f"UPDATE temp.dealt SET value = (SELECT {column} FROM {table} AS t WHERE t.rowid = other)")  # noqa: S608
    db.execute("SAVEPOINT deal")
    try:
        db.execute(
            f"UPDATE {table} SET {column} = (SELECT value FROM temp.dealt WHERE row = {table}.rowid) "  # noqa: S608
            "WHERE rowid IN (SELECT row FROM temp.dealt)"
        )
    except sqlite3.IntegrityError:
        db.execute("ROLLBACK TO deal")  # a column under a unique index keeps its values
    db.execute("RELEASE deal")


def _plant(db: sqlite3.Connection, relation: Relation, field: Field, values: Sequence[Any], random: Random) -> None:
    """Have each literal occur in its column, the numbers beside it, which tell > from >=, and a new highest one."""
    table, column = _quoted(relation.name), _quoted(field.name)
    wanted: list[Any] = []
    if field.number:
        (top,) = db.execute(f"SELECT MAX({column}) FROM {table}").fetchone()  # noqa: S608
        wanted = [step for value in values if not isinstance(value, str) for step in (value, value - 1, value + 1)]
        wanted += [] if top is None else [top + random.randrange(2, 9)]
    elif field.text:
        wanted = [value for value in values if isinstance(value, str)]
    rows = _rows(db, relation)
    for value in wanted[: len(rows) // 2]:
        if not db.execute(f"SELECT 1 FROM {table} WHERE {column} = ? LIMIT 1", (value,)).fetchone():  # noqa: S608
            update = f"UPDATE OR IGNORE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608
            db.execute(update, (value, random.choice(rows)))


def _thin(db: sqlite3.Connection, relation: Relation, random: Random) -> None:
    """Drop between a tenth and a half of the rows."""
    table = _quoted(relation.name)
    rows = _rows(db, relation)
    gone = random.sample(rows, int(len(rows) * random.uniform(0.1, 0.5)))
    db.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(row,) for row in gone])  # noqa: S608


def _grow(db: sqlite3.Connection, relation: Relation, random: Random) -> None:
    """Add copies of some rows under new integer keys; values that may not repeat get a mark."""
    rows = _rows(db, relation)
    if not relation.key or not rows:
        return
    table, key = _quoted(relation.name), _quoted(relation.key)
    (last,) = db.execute(f"SELECT MAX({key}) FROM {table}").fetchone()  # noqa: S608
    marked = {field.name for field in relation.fields if field.distinct}
    names = ", ".join(map(_quoted, relation.columns))
    values = ", ".join(
        ":new" if name == relation.key else MARKED.format(_quoted(name)) if name in marked else _quoted(name)
        for name in relation.columns
    )
    insert = f"INSERT OR IGNORE INTO {table} ({names}) SELECT {values} FROM {table} WHERE rowid = :row"  # noqa: S608
    chosen = random.sample(rows, random.randrange(1, 2 + len(rows) // 5))
    db.executemany(insert, [{"new": last + step, "row": row, "step": step} for step, row in enumerate(chosen, start=1)])


def _mend(db: sqlite3.Connection, relation: Relation, tables: Sequence[str], random: Random) -> None:
    """Point references that lead nowhere, as dirty data hold, at some row: an empty join tells nothing."""
    changeable = {field.name.lower() for field in relation.fields}
    names = {table.lower(): table for table in tables}
    for column, target, there in relation.references:
        if column.lower() not in changeable or target.lower() not in names:
            continue
        table, parent, own, other = map(_quoted, (relation.name, names[target.lower()], column, there))
        lost = db.execute(
            f"SELECT rowid FROM {table} AS t WHERE {own} IS NOT NULL AND "  # noqa: S608
            f"NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE p.{other} = t.{own}) ORDER BY rowid"
        ).fetchall()
        found = db.execute(f"SELECT rowid FROM {parent} WHERE {other} IS NOT NULL ORDER BY rowid").fetchall()  # noqa: S608
        if found:
            some = f"(SELECT {other} FROM {parent} WHERE rowid = ?)"  # noqa: S608
            update = f"UPDATE OR IGNORE {table} SET {own} = {some} WHERE rowid = ?"  # noqa: S608
            db.executemany(update, [(random.choice(found)[0], row) for (row,) in lost])


def _rows(db: sqlite3.Connection, relation: Relation) -> list[int]:
    return [row for (row,) in db.execute(f"SELECT rowid FROM {_quoted(relation.name)} ORDER BY rowid")]  # noqa: S608


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
