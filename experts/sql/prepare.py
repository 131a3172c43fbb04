"""Training examples from public text-to-SQL data, through the very linking and prompts that chat uses.

A source mapping names what to read::

    {"spider": ["spider_train/train_spider.json"], "databases": "spider/database", "augment": 3}
    {"wikisql": "wikisql/wikisql.json.bz2"}, {"bird": "bird_train_text.jsonl", "descriptions": "bird/bird_description.json"},
    {"synthetic": 30000, "databases": "spider/database", "of": ["spider_train/train_spider.json"]}

Paths are relative to ``$EXPERT_DATA``, else to ``../shared/data`` beside the repository. Only training splits are named
here; what a file says of a split is respected (WikiSQL's dev and test rows are skipped).
"""

from __future__ import annotations

import bz2
import collections
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from sqlglot import exp

from expert_cli.errors import ContextError
from expert_cli.task import Case, Example
from experts.sql import fromfirst, pointers, prompt
from experts.sql.linking import link
from experts.sql.schema import Column, ForeignKey, Schema, Table, read_sqlite

NUMERIC_NAME = re.compile(r"(^|_| )(id|num|number|count|year|price|amount|age|total|rank|score)s?$", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A question with its gold query over a schema."""

    id: str
    question: str
    schema: Schema
    query: exp.Query
    evidence: str = ""


def data_root() -> Path:
    """Where public data lies.

    Raises:
        ContextError: it is not there.
    """
    root = Path(os.environ.get("EXPERT_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")
    if not root.is_dir():
        raise ContextError(f"no training data at {root}; set EXPERT_DATA to a folder with the public data sets")
    return root


def examples(source: Mapping[str, Any], *, surface: str, seed: int) -> Iterator[Example]:
    """Every example of every named source, ``augment`` times with different linking noise, shuffled by ``seed``."""
    rng = Random(seed)
    made = []
    for part in source["sources"]:
        pairs = list(read(part, rng))
        for copy in range(int(part.get("augment", 1))):
            for pair in pairs:
                example = render(pair, surface, Random(f"{seed}/{copy}/{pair.id}"), copy)
                if example is not None:
                    made.append(example)
    rng.shuffle(made)
    yield from made


def read(part: Mapping[str, Any], rng: Random) -> Iterator[Pair]:
    """The pairs of one source.

    Raises:
        ContextError: the source has no known kind.
    """
    root = data_root()
    if "synthetic" in part:
        from experts.sql.synthetic import generate

        yield from generate(_schemas(part, root), int(part["synthetic"]), rng)
    elif "spider" in part:
        yield from _spider(part, root)
    elif "wikisql" in part:
        yield from _wikisql(root / part["wikisql"], rng, int(part.get("limit", 10**9)))
    elif "bird" in part:
        yield from _bird(root / part["bird"], root / part["descriptions"])
    else:
        raise ContextError(f"unknown training source {sorted(part)}; expected spider, wikisql, bird or synthetic")


def render(pair: Pair, surface: str, rng: Random | None, copy: int = 0) -> Example | None:
    """The example of a pair, or None where the surface cannot say its query."""
    tables = {(table.name.lower(), "") for table in pair.query.find_all(exp.Table)}
    columns = {(column.table.lower(), column.name.lower()) for column in pair.query.find_all(exp.Column)}
    text = f"{pair.question} ({pair.evidence})" if pair.evidence else pair.question
    linked = link(text, pair.schema, rng=rng, keep=frozenset(tables | columns))
    try:
        answer = pointers.point(pair.query, linked) if surface == "pointers" else fromfirst.write(pair.query)
    except pointers.Unreachable:
        return None
    return Example(f"{pair.id}/{copy}", prompt.messages(linked, surface), answer)


@lru_cache(maxsize=512)
def _database(path: Path) -> Schema:
    return read_sqlite(path)


def _spider(part: Mapping[str, Any], root: Path) -> Iterator[Pair]:
    """Rows of Spider-like files; ``except`` names databases that are held out for choosing checkpoints."""
    held_out = frozenset(part.get("except", ()))
    for name in part["spider"]:
        file = root / name
        for place, row in enumerate(json.loads(file.read_text("utf-8"))):
            path = root / part["databases"] / row["db_id"] / f"{row['db_id']}.sqlite"
            if row["db_id"] in held_out or not path.exists():
                continue
            schema = _database(path)
            try:
                query = fromfirst.canonical(row["query"], schema)
            except ContextError:
                continue
            yield Pair(f"{file.stem}/{place}", row[part.get("field", "question")], schema, query)


def _schemas(part: Mapping[str, Any], root: Path) -> list[Schema]:
    """The schemas of a synthetic source: the databases that the named training files use, and described ones."""
    names = {row["db_id"] for name in part.get("of", ()) for row in json.loads((root / name).read_text("utf-8"))}
    paths = [root / part["databases"] / name / f"{name}.sqlite" for name in sorted(names)]
    schemas = [_database(path) for path in paths if path.exists()]
    if "bird" in part:
        schemas += [schema for schema, _ in _bird_schemas(root / part["bird"], root / part["descriptions"]).values()]
    return schemas


def _wikisql(file: Path, rng: Random, limit: int) -> Iterator[Pair]:
    """Single-table questions. Tables there have no names, so each gets one made of its own columns' words or of others'."""
    with bz2.open(file, "rt", encoding="utf-8") as stream:
        rows = json.load(stream)
    fields: dict[str, dict[str, bool]] = collections.defaultdict(dict)
    parsed = []
    for row in rows:
        sentence, sql = row["sentences"][0], row["sql"][0]
        match = _WIKI.fullmatch(sql.strip())
        if match is None or sentence["question-split"] != "train":
            continue
        where = _WIKI_WHERE.findall(match["where"] or "")
        known = fields[sentence["table-id"]]
        known.setdefault(match["column"], False)
        if match["agg"] in ("SUM", "AVG"):
            known[match["column"]] = True
        for name, operator, variable in where:
            number = re.fullmatch(r"-?[\d.,]+", sentence["variables"].get(variable, "")) is not None
            known[name] = known.get(name, False) or operator in "<>" or number
        parsed.append((sentence, match, where))
    rng.shuffle(parsed)
    ids = sorted(fields)
    for place, (sentence, match, where) in enumerate(parsed[:limit]):
        pair = _wiki_pair(place, sentence, match, where, fields, ids, rng)
        if pair is not None:
            yield pair


_WIKI = re.compile(
    r"SELECT (?:(?P<agg>COUNT|MAX|MIN|SUM|AVG) )?\(? ?(?:TABLEalias0\.)?(?P<column>\S+)_FIELD ?\)? FROM TABLE AS TABLEalias0"
    r"(?: WHERE (?P<where>.*?))? ?;"
)
_WIKI_WHERE = re.compile(r"TABLEalias0\.(\S+)_FIELD (=|>|<) \"?(var\d+)\"?")


def _wiki_name(field: str) -> str:
    return re.sub(r"[^\w]+", "_", field.lower()).strip("_") or "value"


def _wiki_pair(
    place: int,
    sentence: Mapping[str, Any],
    match: re.Match[str],
    where: Sequence[tuple[str, str, str]],
    fields: Mapping[str, Mapping[str, bool]],
    ids: Sequence[str],
    rng: Random,
) -> Pair | None:
    question = sentence["original"].strip()
    values: dict[str, list[tuple[str, str, str]]] = {}
    tables = []
    mine = rng.randrange(3) if rng.random() < 0.5 else 0
    for number in range(mine + 1):
        known = fields[sentence["table-id"] if number == mine else rng.choice(ids)]
        columns = {_wiki_name(name): numeric for name, numeric in known.items()}
        words = rng.choice(sorted(columns)).split("_")
        name = "_".join(words[:2]) + rng.choice(("", "_list", "_info", "_data", "s"))
        if number != mine and any(name == table.name for table in tables):
            continue
        if number == mine:
            name = name if all(name != table.name for table in tables) else name + "_table"
            target = name
        shuffled = sorted(columns)
        rng.shuffle(shuffled)
        tables.append(Table(name, tuple(Column(column, "real" if columns[column] else "text") for column in shuffled)))
    conditions = []
    for field_name, operator, variable in where:
        value = sentence["variables"].get(variable)
        found = re.search(re.escape(value), question, re.IGNORECASE) if value else None
        if found is None:
            return None
        column = _wiki_name(field_name)
        number = re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", value.replace(",", "")) is not None
        if not number and rng.random() < 0.8:
            values.setdefault(value.lower(), []).append((target, column, found.group(0)))
        literal = exp.Literal.number(value.replace(",", "")) if number else exp.Literal.string(found.group(0))
        conditions.append(_COMPARE[operator](this=_column(target, column), expression=literal))
    selected: exp.Expression = _column(target, _wiki_name(match["column"]))
    if match["agg"]:
        selected = _AGGREGATE[match["agg"]](this=selected)
    query = exp.Select(expressions=[selected], from_=exp.From(this=exp.to_table(target, dialect="sqlite")))
    if conditions:
        query.set("where", exp.Where(this=exp.and_(*conditions)))
    return Pair(f"wikisql/{place}", question, Schema(tuple(tables), (), values), query)


_COMPARE = {"=": exp.EQ, ">": exp.GT, "<": exp.LT}
_AGGREGATE = {"COUNT": exp.Count, "MAX": exp.Max, "MIN": exp.Min, "SUM": exp.Sum, "AVG": exp.Avg}


def _column(table: str, column: str) -> exp.Column:
    return exp.Column(this=exp.to_identifier(column), table=exp.to_identifier(table))


def _bird(file: Path, descriptions: Path) -> Iterator[Pair]:
    for name, (schema, rows) in _bird_schemas(file, descriptions).items():
        for place, row in enumerate(rows):
            try:
                query = fromfirst.canonical(row["query"], schema)
            except ContextError:
                continue
            yield Pair(f"bird/{name}/{place}", row["question"], schema, query, row["evidence"])


@lru_cache(maxsize=2)
def _bird_schemas(file: Path, descriptions: Path) -> dict[str, tuple[Schema, list[dict[str, Any]]]]:
    """BIRD's training databases as schemas: columns from its descriptions, types and keys from how its queries use them."""
    rows = collections.defaultdict(list)
    for line in file.read_text("utf-8").splitlines():
        row = json.loads(line)
        rows[row["db_id"]].append(row)
    described = json.loads(descriptions.read_text("utf-8"))
    return {name: (_observed(described[name], rows[name]), rows[name]) for name in sorted(rows) if name in described}


def _observed(tables: Mapping[str, Mapping[str, str]], rows: Sequence[Mapping[str, Any]]) -> Schema:
    bare = Schema(
        tuple(Table(name, tuple(Column(column.strip()) for column in columns)) for name, columns in tables.items())
    )
    numeric: set[tuple[str, str]] = set()
    keys: collections.Counter[tuple[str, str, str, str]] = collections.Counter()
    for row in rows:
        try:
            query = fromfirst.canonical(row["query"], bare)
        except ContextError:
            continue
        for comparison in query.find_all(exp.EQ, exp.GT, exp.LT, exp.GTE, exp.LTE, exp.Sum, exp.Avg):
            left, right = comparison.this, comparison.args.get("expression")
            if isinstance(left, exp.Column) and isinstance(right, exp.Column):
                keys[left.table, left.name, right.table, right.name] += 1
            elif isinstance(left, exp.Column) and (
                right is None or (isinstance(right, exp.Literal) and not right.is_string)
            ):
                numeric.add((left.table.lower(), left.name.lower()))
    return Schema(
        tuple(
            Table(
                table.name,
                tuple(
                    Column(
                        column.name,
                        "integer"
                        if (table.name.lower(), column.name.lower()) in numeric or NUMERIC_NAME.search(column.name)
                        else "text",
                        place == 0 and column.name.lower().endswith("id"),
                    )
                    for place, column in enumerate(table.columns)
                ),
            )
            for table in bare.tables
        ),
        tuple(ForeignKey(*key) for key, _ in keys.most_common() if key[0] and key[2]),
    )


def cases(source: Mapping[str, Any]) -> Iterator[Case]:
    """Evaluation cases of a Spider-like file: ``{"spider": FILE, "databases": FOLDER, "only": [databases], "limit": n}``."""
    root = data_root()
    rows = list(enumerate(json.loads((root / source["spider"]).read_text("utf-8"))))
    Random(source.get("seed", 0)).shuffle(rows)
    only = frozenset(source.get("only", ()))
    found = 0
    for place, row in rows:
        path = root / source["databases"] / row["db_id"] / f"{row['db_id']}.sqlite"
        if (not only or row["db_id"] in only) and path.exists() and found < source.get("limit", len(rows)):
            found += 1
            yield Case(str(place), row["question"], str(path), (row["query"],))
