"""BIRD's training split as text: its databases are not at hand, so schemas come from descriptions and queries."""

from __future__ import annotations

import collections
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlglot import exp

from expert_cli.errors import ContextError
from experts.sql import fromfirst
from experts.sql.corpora import Pair
from experts.sql.schema import Column, ForeignKey, Schema, Table

NUMERIC_NAME = re.compile(r"(^|_| )(id|num|number|count|year|price|amount|age|total|rank|score)s?$", re.IGNORECASE)

Row = Mapping[str, Any]


def pairs(file: Path, descriptions: Path) -> Iterator[Pair]:
    """Every row whose query can be read, database by database.

    Args:
        file: JSON lines with ``db_id``, ``question``, ``evidence`` and ``query``.
        descriptions: JSON of database to table to column to description.
    """
    for name, (schema, rows) in databases(file, descriptions).items():
        for place, row in enumerate(rows):
            try:
                query = fromfirst.canonical(row["query"], schema)
            except ContextError:
                continue
            yield Pair(f"bird/{name}/{place}", row["question"], schema, query, row["evidence"])


@lru_cache(maxsize=2)
def databases(file: Path, descriptions: Path) -> dict[str, tuple[Schema, list[Row]]]:
    """Every described database by name: its schema as its queries show it, and its rows."""
    rows = collections.defaultdict(list)
    for line in file.read_text("utf-8").splitlines():
        row = json.loads(line)
        rows[row["db_id"]].append(row)
    described = json.loads(descriptions.read_text("utf-8"))
    return {name: (_observed(described[name], rows[name]), rows[name]) for name in sorted(rows) if name in described}


def described(file: Path) -> dict[str, Schema]:
    """The schemas of a file of descriptions by database: names alone."""
    return {name: _bare(tables) for name, tables in json.loads(file.read_text("utf-8")).items()}


def _bare(described: Mapping[str, Mapping[str, str]]) -> Schema:
    return Schema(
        tuple(Table(name, tuple(Column(column.strip()) for column in columns)) for name, columns in described.items())
    )


def _observed(described: Mapping[str, Mapping[str, str]], rows: Sequence[Row]) -> Schema:
    """Columns from the descriptions, types and keys from how queries use them."""
    bare = _bare(described)
    numeric, keys = _used(bare, rows)
    tables = tuple(
        Table(
            table.name,
            tuple(
                Column(
                    column.name,
                    "integer" if _numeric(table.name, column.name, numeric) else "text",
                    place == 0 and column.name.lower().endswith("id"),
                )
                for place, column in enumerate(table.columns)
            ),
        )
        for table in bare.tables
    )
    return Schema(tables, keys)


def _numeric(table: str, column: str, seen: set[tuple[str, str]]) -> bool:
    return (table.lower(), column.lower()) in seen or NUMERIC_NAME.search(column) is not None


def _used(schema: Schema, rows: Sequence[Row]) -> tuple[set[tuple[str, str]], tuple[ForeignKey, ...]]:
    """Columns that are summed or compared with numbers, and pairs that are compared, the most frequent first."""
    numeric: set[tuple[str, str]] = set()
    keys: collections.Counter[ForeignKey] = collections.Counter()
    for row in rows:
        try:
            query = fromfirst.canonical(row["query"], schema)
        except ContextError:
            continue
        for node in query.find_all(exp.EQ, exp.GT, exp.LT, exp.GTE, exp.LTE, exp.Sum, exp.Avg):
            left, right = node.this, node.args.get("expression")
            if not isinstance(left, exp.Column):
                continue
            if isinstance(right, exp.Column):
                keys[ForeignKey(left.table, left.name, right.table, right.name)] += 1
            elif right is None or (isinstance(right, exp.Literal) and not right.is_string):
                numeric.add((left.table.lower(), left.name.lower()))
    return numeric, tuple(key for key, _ in keys.most_common() if key.table and key.target)
