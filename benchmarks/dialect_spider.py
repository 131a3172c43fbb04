"""Spider dev's gold queries in the other dialects, over the same rows in PostgreSQL, DuckDB and MariaDB.

    python benchmarks/dialect_spider.py [--dialect postgres] [--every 1] [--refusals]

Each database is made anew in the server, its columns typed by what they hold. A gold query is written for the dialect
as ``chat --dialect`` writes it: does the server compile it, and does it give the rows that SQLite gave? Then it is
turned into the form of the dialect's grammar: is it accepted, and does what was accepted compile and give the rows of
what was turned? Rows are compared without their order, numbers to four digits.
"""

from __future__ import annotations

import argparse
import re
import sqlite3
import sys
from collections import Counter
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from coverage import SETS, rows
from dialect_golds import refused
from dialects import DIALECTS
from engines import Engine, engine, missing

from expert_cli.errors import ContextError
from expert_cli.grammar import tokens
from expert_cli.runtime import bases
from experts.sql import fromfirst
from experts.sql.plugin import SqlContext
from experts.sql.prepare import data_root
from experts.sql.schema import Column, Schema, Table, quote, read_sqlite
from experts.sql.tongues import quoted

ISO = re.compile(r"\d{4}-\d\d-\d\d")
MOST = 20_000
"""Rows of a table that are copied; databases with more are left out."""


def held(connection: sqlite3.Connection, table: str, column: Column) -> str:
    """The type that holds all values of a column."""
    name = f"{quote(column.name)} FROM {quote(table)}"
    values = [value for (value,) in connection.execute(f"SELECT DISTINCT {name}") if value not in (None, "")]
    if any(isinstance(value, str | bytes) for value in values):
        dates = "date" in column.type and all(isinstance(one, str) and ISO.fullmatch(one) for one in values)
        return "date" if dates else "text"
    whole = all(isinstance(one, int) and abs(one) < 1 << 31 for one in values)
    return "text" if not values and not column.numeric else "int" if whole else "real"


def copied(path: Path, running: Engine) -> Schema | None:
    """The database of ``path`` made in the server, with its rows; None where it is too large."""
    found = read_sqlite(path)
    tables = []
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source:
        source.text_factory = lambda raw: raw.decode("utf-8", "replace")
        names = [table.name for table in found.tables]
        if max(source.execute(f"SELECT COUNT(*) FROM {quote(name)}").fetchone()[0] for name in names) > MOST:
            return None
        for table in found.tables:
            columns = (Column(one.name.lower(), held(source, table.name, one), one.primary) for one in table.columns)
            tables.append(Table(table.name.lower(), tuple(columns)))
        schema = Schema(tuple(tables), found.foreign_keys, found.values)
        running.create(schema)
        for table in schema.tables:
            wanted = ", ".join(quote(column.name) for column in table.columns)
            filled = [
                tuple(fitting(value, column.type) for value, column in zip(row, table.columns, strict=True))
                for row in source.execute(f"SELECT {wanted} FROM {quote(table.name)}")
            ]
            if filled:
                running.fill(quoted(table.name, running.dialect), filled)
    return schema


def fitting(value: Any, kind: str) -> Any:
    if value is None or (value == "" and kind != "text"):
        return None
    return str(value) if kind == "text" else value


def bag(found: list[tuple[Any, ...]]) -> Counter[tuple[str, ...]]:
    """Rows to compare, without their order."""
    return Counter(tuple(map(plain, row)) for row in found)


def plain(cell: Any) -> str:
    if isinstance(cell, datetime) and not (cell.hour or cell.minute or cell.second):
        cell = cell.date()
    if isinstance(cell, date):
        return str(cell)
    try:
        return f"{float(cell):.4g}" if isinstance(cell, int | float | Decimal | str) else str(cell)
    except ValueError:
        return str(cell)


def compared(
    vocabulary: tokens.Vocabulary, running: Engine, schema: Schema, sql: str, path: Path
) -> tuple[dict[str, bool], str]:
    """What became of one gold query, and why it went no further."""
    context = SqlContext(schema, None, running.dialect)
    expected = rows(path, sql)
    if isinstance(expected, str):
        return {}, "faulty"
    try:
        asked = context.question("which rows", surface="names")
        written = asked.check(fromfirst.write(fromfirst.canonical(sql, schema))).output
    except ContextError as problem:
        return {}, str(problem)
    problem = running.explain(written)
    reason = refused(vocabulary, schema, running, written)
    found = {"written": True, "compiled": problem is None, "accepted": not reason}
    if problem is None:
        given = bag(running.rows(written))
        found["same"] = given == bag(list(expected.elements()))
        if not reason:
            turned = context.outer(context.inner(written))
            found["turned"] = bag(running.rows(turned)) == given
            reason = "" if found["turned"] else f"turned to other rows: {turned}"
    elif not reason:
        reason = "ACCEPTED THOUGH IT DOES NOT COMPILE"
    return found, f"{problem or ''}{reason}\n        {written}" if problem or reason or not found["same"] else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialect", choices=DIALECTS, action="append")
    parser.add_argument("--every", type=int, default=1, help="look at every so many-th query alone")
    parser.add_argument("--refusals", action="store_true", help="list what fell short")
    asked = parser.parse_args()
    base = bases.find("nano")
    vocabulary = tokens.load(base.file("tokenizer"), base.manifest.end)
    golds = [gold for gold in SETS["spider-dev"](data_root()) if gold.path][:: asked.every]
    for dialect in asked.dialect or DIALECTS:
        if reason := missing(dialect):
            print(f"{dialect}: left out, {reason}")
            continue
        counted: Counter[str] = Counter()
        with engine(dialect) as running:
            for path in dict.fromkeys(gold.path for gold in golds if gold.path):
                schema = copied(path, running)
                if schema is None:
                    counted["large"] += sum(gold.path == path for gold in golds)
                    continue
                for gold in (gold for gold in golds if gold.path == path):
                    found, reason = compared(vocabulary, running, schema, gold.sql, path)
                    if reason == "faulty":
                        counted["faulty"] += 1
                        continue
                    counted["golds"] += 1
                    counted.update(name for name, so in found.items() if so)
                    counted["both"] += found.get("compiled", False) and found["accepted"]
                    if asked.refusals and reason:
                        print(f"    {gold.place}: {reason}", flush=True)
        print(
            f"{dialect}: of {counted['golds']} golds {counted['written']} written, {counted['compiled']} compile, "
            f"{counted['same']} give SQLite's rows; {counted['accepted']} accepted, of which {counted['both']} compile "
            f"and {counted['turned']} give the same rows turned; {counted['large']} over larger databases",
            flush=True,
        )


if __name__ == "__main__":
    main()
