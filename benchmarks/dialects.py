"""Whether all that the typed grammars can write parses and compiles in their own engines: drawn without a model.

    python benchmarks/dialects.py [--dialect postgres] [--count 10000] [--databases 24] [--seed 0] [--show]

At every step each allowed token is equally likely. The schemas are Spider's with the most tables and the hostile one of
``soundness.py``, made anew in PostgreSQL, DuckDB and MariaDB (for MySQL), empty and with types. A drawn text is turned
into ordinary SQL, parsed by sqlglot, and compiled with EXPLAIN. Queries without FROM are
not drawn.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

import sqlglot
from sqlglot.errors import SqlglotError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from engines import Engine, engine, missing, nameable
from soundness import databases

from expert_cli.errors import GrammarError
from expert_cli.grammar import tokens
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.sample import sample
from expert_cli.runtime import bases
from experts.sql.plugin import SqlContext
from experts.sql.schema import Schema, read_sqlite

GRAMMARS = Path(__file__).resolve().parents[1] / "grammars"
DIALECTS = ("postgres", "duckdb", "mysql")


def drawn(schema: Schema, running: Engine, count: int, draw: Random, show: bool) -> tuple[Counter[str], list[str]]:
    """How ``count`` draws over one schema ended, and what failed."""
    base = bases.find("nano")
    vocabulary = tokens.load(base.file("tokenizer"), base.manifest.end)
    context = SqlContext(schema, None, running.dialect)
    running.create(schema)
    text = (GRAMMARS / f"sql-{running.dialect}.gbnf").read_text("utf-8")
    matcher = Matcher(vocabulary, text, context.everything())
    counted, failures = Counter[str](), []
    while counted["finished"] < count:
        begun = matcher.fork()
        first = [token for token in begun.allowed() if vocabulary.pieces[token][:1] in (b"F", b"W")]
        begun.consume(draw.choice(first))
        try:
            written = sample(begun, draw, calm=draw.choice((5, 10, 20, 40)), most=160)
        except GrammarError as problem:
            failures.append(f"{problem}\n    {begun.written}")
            counted["finished"] += 1
            continue
        if written is None:
            counted["cut"] += 1
            continue
        counted["finished"] += 1
        ordinary = context.outer(written)
        if show:
            print(ordinary)
        try:
            sqlglot.parse_one(ordinary, dialect=running.dialect)
        except (SqlglotError, RecursionError) as problem:
            failures.append(f"{str(problem)[:200]}\n    {ordinary}")
        if problem := running.explain(ordinary):
            failures.append(f"{problem[:300]}\n    {ordinary}\n    {written}")
    return counted, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialect", choices=DIALECTS, action="append")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--databases", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="print what is drawn")
    asked = parser.parse_args()
    failed = 0
    for dialect in asked.dialect or DIALECTS:
        if reason := missing(dialect):
            print(f"{dialect}: left out, {reason}")
            continue
        total = Counter[str]()
        problems = 0
        with tempfile.TemporaryDirectory() as folder, engine(dialect) as running:
            paths = list(databases(asked.databases, Path(folder)))
            for place, path in enumerate(paths):
                each = asked.count // len(paths) + (place < asked.count % len(paths))
                draw = Random(f"{asked.seed}/{dialect}/{path.name}")
                counted, failures = drawn(nameable(read_sqlite(path), dialect), running, each, draw, asked.show)
                total += counted
                problems += len(failures)
                print(
                    f"{dialect} {path.stem}: {counted['finished']} drawn, {len(failures)} failed",
                    file=sys.stderr,
                    flush=True,
                )
                for failure in failures:
                    print(f"{path.stem}: {failure}", flush=True)
        print(
            f"{dialect}: {total['finished'] - problems} of {total['finished']} parse and compile over {len(paths)} "
            f"databases; {total['cut']} more were cut before their end"
        )
        failed += problems
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
