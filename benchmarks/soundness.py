"""Whether everything that the bound grammar can write parses and compiles: texts drawn without a model, then EXPLAIN.

    python benchmarks/soundness.py [--count 10000] [--databases 24] [--seed 0] [--jobs 1]
        [--surface names-select]

At every step each allowed token is equally likely. The databases are Spider's with the most tables and one made of
hostile names, views and keywords; a drawn text is turned into ordinary SQL as an answer is, parsed by sqlglot, and
compiled by SQLite on an empty copy made from the database's own CREATE statements. Two texts of three name things, one
points at them, FROM first and SELECT first in turn.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from itertools import repeat
from pathlib import Path
from random import Random

import sqlglot
from sqlglot.errors import SqlglotError

from expert_cli.grammar import tokens
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.sample import sample
from expert_cli.runtime import bases
from experts.sql import pointers
from experts.sql.plugin import SqlContext, SqlQuestion, SqlTask
from experts.sql.prepare import data_root
from experts.sql.surface import SURFACES, surface

GRAMMAR = Path(__file__).resolve().parents[1] / "grammars" / "sql-sqlite.gbnf"
KINDS = ("names", "names-select", "pointers", "names", "names-select", "pointers-select")
ONWARD = ("FROM", "CROSS")
"""Words that lead out of a SELECT list, and to what FROM still has to bring."""
CLAUSES = ("WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION", "INTERSECT", "EXCEPT")
HOSTILE = Path(__file__).with_name("hostile.sql")
MADE = "sql IS NOT NULL AND type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"


def drawn(path: Path, count: int, seed: int, kinds: Sequence[str] = KINDS) -> tuple[Counter[str], list[str]]:
    """How ``count`` draws over one database ended, and what failed."""
    base = bases.find("nano")
    vocabulary = tokens.load(base.file("tokenizer"), base.manifest.end)
    text, draw, counted, failures = GRAMMAR.read_text("utf-8"), Random(f"{seed}/{path.name}"), Counter[str](), []
    with closing(SqlTask().open(path)) as context, closing(copied(path)) as copy:
        # every table may be named: what links a question only chooses among them
        asked = {kind: context.question("7 or 'it''s'", surface=kind) for kind in dict.fromkeys(kinds)}
        matchers = {
            kind: Matcher(vocabulary, text, question.binding() if surface(kind).pointed else context.everything(kind))
            for kind, question in asked.items()
        }
        while counted["finished"] < count:
            kind = kinds[(counted["finished"] + counted["cut"]) % len(kinds)]
            # lists are kept short, so that what follows FROM is drawn too
            short = {"onward": ONWARD, "often": CLAUSES} if kind == "names-select" else {}
            calm = draw.choice((30, 60, 120) if short else (10, 30, 60))
            written = sample(matchers[kind].fork(), draw, calm=calm, most=500, **short)
            counted["finished" if written is not None else "cut"] += 1
            if written is None:
                continue
            counted[kind] += 1
            problem = fault(asked[kind], context, copy, written)
            if problem:
                failures.append(f"{path.stem} {kind}: {problem}\n    {written}")
    return counted, failures


def fault(question: SqlQuestion, context: SqlContext, copy: sqlite3.Connection, written: str) -> str | None:
    """Why a written text is no query of the database, or None."""
    named = pointers.realise(written, question.linked) if surface(question.surface).pointed else written
    ordinary = context.outer(named)
    try:
        sqlglot.parse_one(ordinary, dialect="sqlite")
        copy.execute("EXPLAIN " + ordinary)
    except (SqlglotError, sqlite3.Error, RecursionError) as problem:
        return f"{str(problem)[:200]}: {ordinary}"
    return None


def copied(path: Path) -> sqlite3.Connection:
    """An empty database of the same CREATE statements."""
    copy = sqlite3.connect(":memory:")
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source:
        for (statement,) in source.execute(f"SELECT sql FROM sqlite_master WHERE {MADE}"):
            copy.execute(statement)
    return copy


def databases(most: int, folder: Path) -> Iterator[Path]:
    """The hostile database, then Spider's with the most tables."""
    hostile = folder / "hostile.sqlite"
    with closing(sqlite3.connect(hostile)) as made:
        made.executescript(HOSTILE.read_text("utf-8"))
    yield hostile
    sized = []
    for path in (data_root() / "spider" / "database").glob("*/*.sqlite"):
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source:
            (count,) = source.execute(f"SELECT COUNT(*) FROM sqlite_master WHERE {MADE}").fetchone()
            sized.append((count, path))
    yield from (path for _, path in sorted(sized, reverse=True)[: most - 1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--databases", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--surface", choices=SURFACES, action="append", help="only this one; repeatable")
    asked = parser.parse_args()
    total, failed = Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(asked.jobs) as pool:
        paths = list(databases(asked.databases, Path(folder)))
        each = [asked.count // len(paths) + (place < asked.count % len(paths)) for place in range(len(paths))]
        found = pool.map(drawn, paths, each, repeat(asked.seed), repeat(asked.surface or KINDS))
        for path, (counted, failures) in zip(paths, found, strict=True):
            total += counted
            failed += len(failures)
            print(f"{path.stem}: {counted['finished']} drawn, {len(failures)} failed", file=sys.stderr, flush=True)
            for failure in failures:
                print(failure, flush=True)
    kinds = ", ".join(f"{total[kind]} {kind}" for kind in dict.fromkeys(KINDS))
    print(
        f"{total['finished'] - failed} of {total['finished']} parse and compile over {len(paths)} databases ({kinds}); "
        f"{total['cut']} more were cut before their end"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
