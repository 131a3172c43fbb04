"""How many of sqlglot's identity lines and of TPC-H's queries the dialects' bound grammars accept.

    python benchmarks/dialect_golds.py --sqlglot sqlglot-30.30.0.tar.gz [--dialect duckdb] [--refusals]

The archive is sqlglot's source distribution (``pip download --no-binary :all: --no-deps sqlglot``). TPC-H's queries are
asked over its schema. For an identity line a schema is made up: the tables and columns that it names, of each kind in
turn; the line is one of the dialect where the server itself compiles it over one of these schemas, and accepted where
the grammar bound to one of them takes it. What is accepted is turned back into ordinary SQL and must compile as well.
In DuckDB and SQLite the TPC-H queries are run beside the turned ones, over rows made of the words and dates that they
ask for.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from random import Random

import sqlglot
from sqlglot import exp

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from dialects import DIALECTS, GRAMMARS
from engines import DuckDB, Engine, SQLite, engine, missing
from identity import identity, tpc_h

from expert_cli.errors import ContextError, GrammarError
from expert_cli.grammar import tokens
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.tokens import Vocabulary
from expert_cli.grammar.verdict import judge
from expert_cli.runtime import bases
from experts.sql.moments import in_sqlite
from experts.sql.plugin import SqlContext
from experts.sql.schema import Column, Schema, Table, from_ddl

EVERY = ("sqlite", *DIALECTS)
KINDS = ("int", "text", "date", "boolean")
MOST = 4  # columns for which every combination of kinds is tried
ROWS = 60  # few: a join of keys multiplies them
TPC_H = """
CREATE TABLE part (p_partkey int, p_name text, p_mfgr text, p_brand text, p_type text, p_size int, p_container text,
  p_retailprice decimal, p_comment text);
CREATE TABLE supplier (s_suppkey int, s_name text, s_address text, s_nationkey int, s_phone text, s_acctbal decimal,
  s_comment text);
CREATE TABLE partsupp (ps_partkey int, ps_suppkey int, ps_availqty int, ps_supplycost decimal, ps_comment text);
CREATE TABLE customer (c_custkey int, c_name text, c_address text, c_nationkey int, c_phone text, c_acctbal decimal,
  c_mktsegment text, c_comment text);
CREATE TABLE orders (o_orderkey int, o_custkey int, o_orderstatus text, o_totalprice decimal, o_orderdate date,
  o_orderpriority text, o_clerk text, o_shippriority int, o_comment text);
CREATE TABLE lineitem (l_orderkey int, l_partkey int, l_suppkey int, l_linenumber int, l_quantity decimal,
  l_extendedprice decimal, l_discount decimal, l_tax decimal, l_returnflag text, l_linestatus text, l_shipdate date,
  l_commitdate date, l_receiptdate date, l_shipinstruct text, l_shipmode text, l_comment text);
CREATE TABLE nation (n_nationkey int, n_name text, n_regionkey int, n_comment text);
CREATE TABLE region (r_regionkey int, r_name text, r_comment text);
"""


def refused(vocabulary: Vocabulary, schema: Schema, running: Engine, sql: str) -> str:
    """Why the grammar does not accept ``sql``, or what it makes of it does not compile; nothing where both are well."""
    context = SqlContext(schema, None, running.dialect)
    text = (GRAMMARS / f"sql-{running.dialect}.gbnf").read_text("utf-8")
    try:
        inner = context.inner(sql)
        verdict = judge(Matcher(vocabulary, text, context.everything()), inner)
    except (ContextError, GrammarError) as problem:
        return str(problem)
    if not verdict.accepted:
        return f"{inner[: verdict.at]} ⟂ {inner[verdict.at :]}"
    return running.explain(context.outer(inner)) or ""


def made_up(line: str) -> Iterator[Schema]:
    """Schemas of what a line names: each of its columns in each table that it may belong to, of every kind."""
    tree = sqlglot.parse_one(line)
    named = {cte.alias for cte in tree.find_all(exp.CTE)}
    tables = {table.alias_or_name: table.name for table in tree.find_all(exp.Table) if table.name not in named}
    columns: dict[str, dict[str, None]] = {name: {} for name in tables.values() if name}
    first = next(iter(columns), None)
    for column in tree.find_all(exp.Column):
        owner = tables.get(column.table) if column.table else first
        if owner in columns and not isinstance(column.this, exp.Star):
            columns[owner][column.name] = None
    for join in tree.find_all(exp.Join):
        for name in join.args.get("using") or []:
            for known in columns.values():
                known[name.name] = None
    pairs = [(table, name) for table, known in columns.items() for name in known or ("a",)]
    alike = [(kind,) * len(pairs) for kind in KINDS]
    for kinds in alike if len(pairs) > MOST else dict.fromkeys([*alike, *itertools.product(KINDS, repeat=len(pairs))]):
        of = dict(zip(pairs, kinds, strict=True))
        made = (
            Table(table, tuple(Column(name, kind) for (owner, name), kind in of.items() if owner == table))
            for table in columns
        )
        yield Schema(tuple(made) or (Table("unused", (Column("a", "int"),)),))


def lines(vocabulary: Vocabulary, running: Engine, archive: Path, show: bool) -> Counter[str]:
    """The identity lines: ``accepted``, ``refused``, or ``other`` where the server knows them under no schema."""
    counted: Counter[str] = Counter()
    for line in identity(archive):
        reasons = []
        for schema in made_up(line):
            running.create(schema)
            if running.explain(line) is None:
                reasons.append(refused(vocabulary, schema, running, line))
                if not reasons[-1]:
                    break
        kind = "other" if not reasons else "refused" if all(reasons) else "accepted"
        counted[kind] += 1
        if show and kind == "refused":
            print(f"    {line}\n        {reasons[0]}", flush=True)
    return counted


def told(query: str, dialect: str) -> str:
    """A TPC-H query in the words of a dialect; SQLite knows no intervals and no names for a subquery's columns."""
    tree = sqlglot.parse_one(query)
    if dialect == "sqlite":
        in_sqlite(tree)
        for derived in tree.find_all(exp.Subquery):
            for place, name in enumerate(derived.alias_column_names):
                item = derived.this.expressions[place]
                item.replace(exp.alias_(item.unalias().copy(), name))
                derived.args["alias"].set("columns", None)
    return tree.sql(dialect)


def filled(running: DuckDB | SQLite, schema: Schema, queries: list[str]) -> None:
    """Rows of the words, numbers and dates that the queries ask for."""
    draw = Random(22)
    literals = [one for query in queries for one in sqlglot.parse_one(query).find_all(exp.Literal)]
    words = sorted({one.name.strip("%").replace("%", " ") for one in literals if one.is_string})
    for table in schema.tables:
        for _ in range(ROWS):
            row = []
            for column in table.columns:
                day = date(1993, 1, 1) + timedelta(days=draw.randrange(2000))
                number = draw.randrange(1, 26) if column.type == "int" else draw.randrange(1, 10_000) / 100
                row.append(draw.choice(words) if column.type == "text" else day if column.type == "date" else number)
            running.connection.execute(f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(row))})", row)


def benchmark(vocabulary: Vocabulary, running: Engine, archive: Path, show: bool) -> tuple[int, int, str]:
    """How many TPC-H queries are accepted, of how many, and in DuckDB how the rows compare."""
    schema = from_ddl(TPC_H)
    running.create(schema)
    queries = [told(query, running.dialect) for query in tpc_h(archive)]
    if isinstance(running, DuckDB | SQLite):
        filled(running, schema, queries)
    accepted = same = returning = 0
    for number, query in enumerate(queries, 1):
        reason = refused(vocabulary, schema, running, query)
        accepted += not reason
        if reason and show:
            print(f"    tpc-h {number}: {reason}", flush=True)
        if isinstance(running, DuckDB | SQLite) and not reason:
            context = SqlContext(schema, None, running.dialect)
            gold = running.connection.execute(query).fetchall()
            found = running.connection.execute(context.outer(context.inner(query))).fetchall()
            same += Counter(gold) == Counter(found)
            returning += bool(gold)
    rows = f"; {same} give the gold rows, {returning} of them some" if isinstance(running, DuckDB | SQLite) else ""
    return accepted, len(queries), rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sqlglot", type=Path, required=True, help="sqlglot's source distribution")
    parser.add_argument("--dialect", choices=EVERY, action="append")
    parser.add_argument("--refusals", action="store_true", help="list what is refused")
    asked = parser.parse_args()
    base = bases.find("nano")
    vocabulary = tokens.load(base.file("tokenizer"), base.manifest.end)
    for dialect in asked.dialect or EVERY:
        if reason := missing(dialect):
            print(f"{dialect}: left out, {reason}")
            continue
        with engine(dialect) as running:
            accepted, count, rows = benchmark(vocabulary, running, asked.sqlglot, asked.refusals)
            print(f"{dialect} tpc-h: {accepted} of {count} accepted{rows}", flush=True)
            counted = lines(vocabulary, running, asked.sqlglot, asked.refusals)
            known = counted["accepted"] + counted["refused"]
            print(
                f"{dialect} identity: {counted['accepted']} of {known} accepted ({counted['accepted'] / known:.4f}); "
                f"{counted['other']} more compile there under no schema",
                flush=True,
            )


if __name__ == "__main__":
    main()
