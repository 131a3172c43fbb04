"""Which gold queries of public sets the bound grammar accepts, and whether what it accepts returns the gold rows.

    python benchmarks/coverage.py [--set spider-dev] [--surface names] [--limit N] [--refusals]

Each query is turned into the grammar's own form over the whole schema (on ``names`` FROM first, every column with its
source; on ``names-select`` in the words of the gold query), and followed token by token. Where the database is at hand,
the turned query is run beside the gold one. A gold query that SQLite itself does not compile over the schema is counted
apart as faulty and is not asked of the grammar.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from expert_cli.errors import ContextError, GrammarError
from expert_cli.grammar import tokens
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.verdict import judge
from expert_cli.runtime import bases
from experts.sql.corpora import bird, spider
from experts.sql.plugin import SqlContext
from experts.sql.prepare import data_root
from experts.sql.schema import Schema

GRAMMAR = Path(__file__).resolve().parents[1] / "grammars" / "sql-sqlite.gbnf"
SECONDS = 10.0
"""That a gold query may run."""


class Gold(NamedTuple):
    """A gold query: where it stands, its schema, and its database where that is at hand."""

    place: str
    sql: str
    schema: Schema
    path: Path | None


def spider_like(file: Path, key: str = "query") -> Iterator[Gold]:
    """Rows over Spider's databases; over their published schemas where a database is not at hand."""
    data = data_root() / "spider"
    described = spider.described(data / "tables.json")
    for number, row in enumerate(json.loads(file.read_text("utf-8"))):
        path = spider.located(data / "database", row["db_id"])
        here = path.is_file()
        yield Gold(f"{number} {row['db_id']}", row[key], spider.database(path) if here else described[row["db_id"]],
                   path if here else None)  # fmt: skip


def bird_dev(file: Path) -> Iterator[Gold]:
    """BIRD's development set over its table descriptions; its databases are not at hand."""
    described = bird.described(data_root() / "bird" / "bird_description.json")
    for row in json.loads(file.read_text("utf-8")):
        yield Gold(f"{row['question_id']} {row['db_id']}", row["SQL"], described[row["db_id"]], None)


SETS: dict[str, Callable[[Path], Iterator[Gold]]] = {
    "spider-dev": lambda data: spider_like(data / "spider" / "dev.json"),
    "spider-train": lambda data: spider_like(data / "spider_train" / "train_spider.json"),
    "bird-dev": lambda data: bird_dev(data / "bird" / "dev-bird.json"),
    "archer-dev": lambda data: spider_like(data / "ibm_bench" / "archer_en_dev.json"),
    "archer-train": lambda data: spider_like(data / "ibm_bench" / "archer_en_train.json"),
}


def outcome(gold: Gold, matcher: Callable[[SqlContext], Matcher], surface: str = "names") -> tuple[str, str]:
    """``same``, ``other``, ``accepted`` (not run), ``refused`` or ``faulty``, and why."""
    context = opened(gold.schema)
    expected = rows(gold.path, gold.sql) if gold.path else None
    if gold.path is None:
        try:
            context.explain(gold.sql)
        except ContextError as problem:
            return "faulty", str(problem)
    elif isinstance(expected, str):
        return "faulty", expected
    try:
        inner = context.inner(gold.sql, surface)
        verdict = judge(matcher(context), inner)
    except (ContextError, GrammarError) as problem:
        return "refused", str(problem)
    if not verdict.accepted:
        return "refused", f"{inner[: verdict.at]} ⟂ {inner[verdict.at :]}"
    turned = context.outer(inner)
    if gold.path is None:
        context.explain(turned)
        return "accepted", ""
    found = rows(gold.path, turned)
    return ("same", "") if found == expected else ("other", turned)


@lru_cache(maxsize=64)
def opened(schema: Schema) -> SqlContext:
    """The context of a schema, kept."""
    return SqlContext(schema, None, "sqlite")


def rows(path: Path, sql: str) -> Counter[Any] | str:
    """What a query returns, or why it fails."""
    ends = time.monotonic() + SECONDS
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        connection.set_progress_handler(lambda: time.monotonic() > ends, 100_000)
        try:
            return Counter(connection.execute(sql).fetchall())
        except sqlite3.Error as problem:
            return str(problem)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, action="append")
    parser.add_argument("--surface", choices=("names", "names-select"), default="names")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--every", type=int, default=1, help="only every so many rows")
    parser.add_argument("--refusals", action="store_true", help="list what is refused, faulty or returns other rows")
    asked = parser.parse_args()
    base = bases.find("nano")
    vocabulary = tokens.load(base.file("tokenizer"), base.manifest.end)
    text = GRAMMAR.read_text(encoding="utf-8")

    @lru_cache(maxsize=64)
    def fresh(context: SqlContext) -> Matcher:
        return Matcher(vocabulary, text, context.everything(asked.surface))

    for name in asked.set or SETS:
        counted: Counter[str] = Counter()
        for gold in list(SETS[name](data_root()))[: asked.limit : asked.every]:
            kind, why = outcome(gold, lambda context: fresh(context).fork(), asked.surface)
            counted[kind] += 1
            if asked.refusals and kind not in ("same", "accepted"):
                print(f"{name} {gold.place}: {kind}: {why}\n    {' '.join(gold.sql.split())}", flush=True)
        sound = sum(counted.values()) - counted["faulty"]
        accepted = sound - counted["refused"]
        print(
            f"{name}: {accepted} of {sound} accepted ({accepted / sound:.4f}); {counted['same']} of "
            f"{counted['same'] + counted['other']} that run return the gold rows; {counted['faulty']} faulty golds",
            flush=True,
        )


if __name__ == "__main__":
    main()
