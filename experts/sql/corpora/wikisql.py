"""WikiSQL's training split: questions about one table each.

Its tables have no names and its columns are known from queries alone, so a table gets a name made of its columns' words
and stands among tables made of others.
"""

from __future__ import annotations

import bz2
import collections
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from sqlglot import exp

from experts.sql.corpora import Pair
from experts.sql.schema import Column, Schema, Table

QUERY = re.compile(
    r"SELECT (?:(?P<aggregate>COUNT|MAX|MIN|SUM|AVG) )?\(? ?(?:TABLEalias0\.)?(?P<column>\S+)_FIELD ?\)? "
    r"FROM TABLE AS TABLEalias0(?: WHERE (?P<where>.*?))? ?;"
)
CONDITION = re.compile(r"TABLEalias0\.(\S+)_FIELD (=|>|<) \"?(var\d+)\"?")
COMPARE = {"=": exp.EQ, ">": exp.GT, "<": exp.LT}
AGGREGATE = {"COUNT": exp.Count, "MAX": exp.Max, "MIN": exp.Min, "SUM": exp.Sum, "AVG": exp.Avg}

Fields = dict[str, dict[str, bool]]
"""Table id to column to whether it is numeric."""


@dataclass(frozen=True)
class Row:
    """A question as the file holds it: ``variables`` are what its conditions compare with."""

    table: str
    question: str
    variables: Mapping[str, str]
    column: str
    aggregate: str
    conditions: Sequence[tuple[str, str, str]]


def pairs(file: Path, rng: Random, limit: int) -> Iterator[Pair]:
    """At most ``limit`` questions of the training split, in an order and over tables drawn from ``rng``."""
    with bz2.open(file, "rt", encoding="utf-8") as stream:
        rows = list(_rows(json.load(stream)))
    fields = _fields(rows)
    ids = sorted(fields)
    rng.shuffle(rows)
    for place, row in enumerate(rows[:limit]):
        pair = _pair(place, row, fields, ids, rng)
        if pair is not None:
            yield pair


def _rows(data: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for entry in data:
        sentence = entry["sentences"][0]
        match = QUERY.fullmatch(entry["sql"][0].strip())
        if match is not None and sentence["question-split"] == "train":
            yield Row(
                sentence["table-id"],
                sentence["original"].strip(),
                sentence["variables"],
                match["column"],
                match["aggregate"] or "",
                CONDITION.findall(match["where"] or ""),
            )


def _fields(rows: Sequence[Row]) -> Fields:
    """The columns that questions name, and whether they are summed, ordered or compared with numbers."""
    fields: Fields = collections.defaultdict(dict)
    for row in rows:
        known = fields[row.table]
        known.setdefault(row.column, False)
        if row.aggregate in ("SUM", "AVG"):
            known[row.column] = True
        for name, operator, variable in row.conditions:
            number = re.fullmatch(r"-?[\d.,]+", row.variables.get(variable, "")) is not None
            known[name] = known.get(name, False) or operator in "<>" or number
    return fields


def _name(field: str) -> str:
    return re.sub(r"[^\w]+", "_", field.lower()).strip("_") or "value"


def _pair(place: int, row: Row, fields: Fields, ids: Sequence[str], rng: Random) -> Pair | None:
    tables, target = _tables(row, fields, ids, rng)
    values: dict[str, list[tuple[str, str, str]]] = {}
    conditions = []
    for field, operator, variable in row.conditions:
        value = row.variables.get(variable)
        found = re.search(re.escape(value), row.question, re.IGNORECASE) if value else None
        if value is None or found is None:
            return None
        digits = value.replace(",", "")
        number = re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", digits) is not None
        if not number and rng.random() < 0.8:
            values.setdefault(value.lower(), []).append((target, _name(field), found.group(0)))
        literal = exp.Literal.number(digits) if number else exp.Literal.string(found.group(0))
        conditions.append(COMPARE[operator](this=_column(target, field), expression=literal))
    selected: exp.Expr = _column(target, row.column)
    if row.aggregate:
        selected = AGGREGATE[row.aggregate](this=selected)
    query = exp.Select(expressions=[selected], from_=exp.From(this=exp.to_table(target, dialect="sqlite")))
    if conditions:
        query.set("where", exp.Where(this=exp.and_(*conditions)))
    return Pair(f"wikisql/{place}", row.question, Schema(tables, (), values), query)


def _tables(row: Row, fields: Fields, ids: Sequence[str], rng: Random) -> tuple[tuple[Table, ...], str]:
    """The row's table, last of up to three, and its name."""
    tables: list[Table] = []
    mine = rng.randrange(3) if rng.random() < 0.5 else 0
    name = ""
    for number in range(mine + 1):
        known = fields[row.table if number == mine else rng.choice(ids)]
        columns = {_name(field): numeric for field, numeric in known.items()}
        words = rng.choice(sorted(columns)).split("_")
        name = "_".join(words[:2]) + rng.choice(("", "_list", "_info", "_data", "s"))
        if any(name == table.name for table in tables):
            if number != mine:
                continue
            name += "_table"
        shuffled = sorted(columns)
        rng.shuffle(shuffled)
        tables.append(Table(name, tuple(Column(column, "real" if columns[column] else "text") for column in shuffled)))
    return tuple(tables), name


def _column(table: str, field: str) -> exp.Column:
    return exp.Column(this=exp.to_identifier(_name(field)), table=exp.to_identifier(table))
