"""Spider and data sets of its form: rows of question and query over SQLite databases."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from expert_cli.errors import ContextError
from experts.sql import fromfirst
from experts.sql.corpora import Pair
from experts.sql.schema import Column, ForeignKey, Schema, Table, read_sqlite


def located(databases: Path, name: str) -> Path:
    """Where the database called ``name`` lies in a folder of databases."""
    return databases / name / f"{name}.sqlite"


@lru_cache(maxsize=512)
def database(path: Path) -> Schema:
    """The schema of a database, read once."""
    return read_sqlite(path)


def pairs(file: Path, databases: Path, field: str, held_out: Collection[str]) -> Iterator[Pair]:
    """The pairs of one file whose query can be read and whose database is there and not held out.

    Args:
        file: rows with ``db_id``, ``query`` and ``field``.
        databases: the folder of the databases.
        field: what holds the question.
        held_out: databases that are kept for choosing checkpoints.
    """
    for place, row in enumerate(json.loads(file.read_text("utf-8"))):
        path = located(databases, row["db_id"])
        if row["db_id"] in held_out or not path.exists():
            continue
        schema = database(path)
        try:
            query = fromfirst.canonical(row["query"], schema)
        except ContextError:
            continue
        yield Pair(f"{file.stem}/{place}", row[field], schema, query)


def schemas(files: Sequence[Path], databases: Path) -> list[Schema]:
    """The schemas of the databases that ``files`` ask about."""
    names = {row["db_id"] for file in files for row in json.loads(file.read_text("utf-8"))}
    paths = [located(databases, name) for name in sorted(names)]
    return [database(path) for path in paths if path.exists()]


def described(file: Path) -> dict[str, Schema]:
    """The schemas of Spider's ``tables.json`` by database."""
    found = {}
    for row in json.loads(file.read_text("utf-8")):
        names, keys = row["table_names_original"], set(row["primary_keys"])
        columns = row["column_names_original"]
        found[row["db_id"]] = Schema(
            tuple(
                Table(
                    name,
                    tuple(
                        Column(column, {"number": "integer"}.get(kind, kind), number in keys)
                        for number, ((owner, column), kind) in enumerate(zip(columns, row["column_types"], strict=True))
                        if owner == place
                    ),
                )
                for place, name in enumerate(names)
            ),
            tuple(
                ForeignKey(names[columns[left][0]], columns[left][1], names[columns[right][0]], columns[right][1])
                for left, right in row["foreign_keys"]
            ),
        )
    return found
