"""The grammars for PostgreSQL, DuckDB and MySQL: what they accept over the shop, refuse, and write, in their own engines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest
import sqlglot
from click.testing import CliRunner
from engines import Engine, engine, missing
from grammar_cases import VOCABULARY, accepts, encode

from expert_cli.cli import main
from expert_cli.errors import ContextError
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.sample import sample
from expert_cli.grammar.verdict import judge
from experts.sql import kinds
from experts.sql.grammars import grammar
from experts.sql.pieces import distinct_on
from experts.sql.plugin import SqlContext
from experts.sql.sample import DDL
from experts.sql.schema import Column as Declared
from experts.sql.schema import Schema, Table, from_ddl
from experts.sql.typed_reading import read
from experts.sql.typed_scopes import Column

ROOT = Path(__file__).resolve().parents[1]
DIALECTS = ("postgres", "duckdb", "mysql")

# What the shop lacks: a truth, a moment, a kind that cannot be compared, names that need quotes.
MORE = """
CREATE TABLE visits (id INTEGER, customer_id INTEGER, begun TIMESTAMP, paid BOOLEAN, trace JSON, boss_id INTEGER);
CREATE TABLE "Order Lines" (id INTEGER, "select" TEXT, "Größe" NUMERIC(10, 2), d1 DATE);
CREATE TABLE d1 (id INTEGER, cte1 TEXT, x1 TEXT);
"""

# Types whose values are compared with each other alone, which SQLite has not.
PARCELS = Table(
    "parcels",
    (
        Declared("code", "uuid"),
        Declared("parent", "uuid"),
        Declared("customer_id", "int"),
        Declared("state", "parcel_state enum('new', 'on its way')"),
        Declared("opens", "time"),
    ),
)


@cache
def shop() -> Schema:
    made = from_ddl(DDL + MORE)
    return replace(made, tables=(*made.tables, PARCELS))


@cache
def context(dialect: str) -> SqlContext:
    return SqlContext(shop(), None, dialect)


@cache
def fresh(dialect: str) -> Matcher:
    text = (ROOT / "grammars" / f"sql-{dialect}.gbnf").read_text("utf-8")
    return Matcher(VOCABULARY, text, context(dialect).everything())


@pytest.fixture(scope="module", params=DIALECTS)
def running(request: pytest.FixtureRequest) -> Iterator[Engine]:
    dialect: str = request.param
    if reason := missing(dialect):
        pytest.skip(reason)
    with engine(dialect) as found:
        found.create(shop())
        yield found


EVERYWHERE = {
    "named": "WITH t AS (SELECT id, age FROM customers) SELECT COUNT(*) FROM t WHERE age > 30",
    "marks compared": "SELECT a.code FROM parcels AS a JOIN parcels AS b ON a.parent = b.code WHERE b.state = 'on its way' AND a.state <> b.state",
    "marks counted": "SELECT state, COUNT(*), COUNT(DISTINCT code) FROM parcels WHERE opens IS NOT NULL GROUP BY state ORDER BY state DESC",
    "marks distinct": "SELECT DISTINCT state, code FROM parcels WHERE state IN ('new', 'on its way') ORDER BY state",
    "marks together": "SELECT code FROM parcels UNION SELECT parent FROM parcels",
    "mark looked up": "SELECT code FROM parcels WHERE code = '0b7c5a4e-1f6d-4c0a-9a53-0c7f3a1b2d4e'",
    "marks nested": "WITH t AS (SELECT code, state FROM parcels) SELECT p.code FROM parcels AS p JOIN t ON t.code = p.parent WHERE t.state = 'new'",
    "remainder": "SELECT id % 7 * total FROM orders WHERE id % 2 = 0 AND total - id % 3 > 0",
    "named twice": "WITH t AS (SELECT id FROM customers), u AS (SELECT id FROM t) SELECT t.id FROM t JOIN u ON t.id = u.id",
    "recursive numbers": "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT n FROM t",
    "recursive rows": "WITH RECURSIVE t AS (SELECT id, boss_id FROM visits WHERE boss_id IS NULL UNION ALL "
    "SELECT v.id, v.boss_id FROM t JOIN visits AS v ON v.boss_id = t.id) SELECT COUNT(*) FROM t",
    "union": "SELECT city FROM customers UNION SELECT city FROM suppliers ORDER BY 1 LIMIT 3",
    "three arms": "SELECT city, 1 FROM customers UNION ALL SELECT city, 2 FROM suppliers UNION SELECT country, 3 FROM suppliers",
    "intersect": "SELECT city FROM customers INTERSECT SELECT city FROM suppliers",
    "except": "SELECT id FROM customers EXCEPT SELECT customer_id FROM orders",
    "frame": "SELECT id, SUM(total) OVER (PARTITION BY customer_id ORDER BY order_date ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) FROM orders",
    "rank": "SELECT id, RANK() OVER (ORDER BY total DESC) FROM orders",
    "lag": "SELECT LAG(total, 1) OVER (ORDER BY id) FROM orders",
    "window over groups": "SELECT status, SUM(COUNT(*)) OVER () FROM orders GROUP BY status",
    "correlated": "SELECT name FROM customers AS c WHERE age > (SELECT AVG(age) FROM customers AS d WHERE d.city = c.city)",
    "exists": "SELECT name FROM customers AS c WHERE EXISTS (SELECT 1 FROM orders AS o WHERE o.customer_id = c.id)",
    "not exists": "SELECT name FROM customers AS c WHERE NOT EXISTS (SELECT * FROM orders AS o WHERE o.customer_id = c.id)",
    "derived": "SELECT AVG(t.n) FROM (SELECT COUNT(*) AS n FROM orders GROUP BY customer_id) AS t",
    "case": "SELECT CASE WHEN age > 60 THEN 'old' WHEN age > 30 THEN CASE WHEN city = 'Oslo' THEN 'o' ELSE 'm' END ELSE 'young' END FROM customers",
    "simple case": "SELECT CASE status WHEN 'shipped' THEN 1 ELSE 0 END FROM orders",
    "case in sum": "SELECT SUM(CASE WHEN status = 'shipped' THEN total ELSE 0 END) / COUNT(*) FROM orders",
    "extract": "SELECT EXTRACT(YEAR FROM order_date), COUNT(*) FROM orders GROUP BY EXTRACT(YEAR FROM order_date)",
    "clock": "SELECT EXTRACT(HOUR FROM begun) FROM visits",
    "interval": "SELECT COUNT(*) FROM orders WHERE order_date >= CAST('2024-01-01' AS DATE) AND order_date < CAST('2024-01-01' AS DATE) + INTERVAL '1' YEAR",
    "compared with a date": "SELECT id FROM orders WHERE order_date BETWEEN '2024-01-01' AND '2024-12-31'",
    "like": "SELECT name FROM customers WHERE name LIKE 'A%' AND NOT email LIKE '%x%'",
    "between": "SELECT name FROM products WHERE price BETWEEN 10 AND 20 OR stock NOT BETWEEN 1 AND 2",
    "in": "SELECT name FROM customers WHERE city IN ('Oslo', 'Rome') AND id NOT IN (SELECT customer_id FROM orders)",
    "null": "SELECT name FROM customers WHERE age IS NULL OR age IS NOT NULL",
    "truth": "SELECT id FROM visits WHERE paid AND NOT paid = FALSE",
    "distinct": "SELECT DISTINCT city, country FROM customers ORDER BY country DESC, city",
    "count distinct": "SELECT COUNT(DISTINCT city) FROM customers",
    "having": "SELECT city, COUNT(*) FROM customers GROUP BY city HAVING COUNT(*) > 2 ORDER BY COUNT(*) DESC LIMIT 5 OFFSET 1",
    "having alone": "SELECT COUNT(*) FROM orders HAVING COUNT(*) > 1",
    "self-join": "SELECT a.name FROM customers AS a JOIN customers AS b ON a.city = b.city AND a.id < b.id",
    "outer join": "SELECT c.name FROM customers AS c LEFT JOIN orders AS o ON o.customer_id = c.id WHERE o.id IS NULL",
    "using": "SELECT o.id FROM orders AS o JOIN reviews AS r USING (customer_id)",
    "scalar": "SELECT name, (SELECT MAX(total) FROM orders) FROM customers",
    "any": "SELECT name FROM products WHERE price >= ALL (SELECT price FROM products)",
    "uncomparable": "SELECT trace, COUNT(trace) OVER () FROM visits WHERE trace IS NOT NULL",
    "division": "SELECT 100.0 * COUNT(*) / (SELECT COUNT(*) FROM orders) FROM orders WHERE status = 'returned'",
    "text": "SELECT UPPER(name), LENGTH(name), REPLACE(name, 'a', 'b'), SUBSTRING(name, 1, 3), CONCAT(name, ' ', city) FROM customers",
    "cast": "SELECT CAST(price AS DECIMAL(10, 2)) FROM products",
    "without FROM": "SELECT 1 + 2, 'a'",
    "shadows": "SELECT t.cte1, t.x1 FROM (SELECT cte1, x1 FROM d1) AS t JOIN (SELECT id FROM d1) AS u ON u.id = 1 WHERE t.x1 = 'a'",
}
NAMED = {
    "postgres": {
        "quoted": 'SELECT "select", "Größe" FROM "Order Lines" ORDER BY "Größe" DESC NULLS LAST',
        "distinct on": "SELECT DISTINCT ON (customer_id) customer_id, total FROM orders ORDER BY customer_id, total DESC",
        "lateral": "SELECT c.name, o.total FROM customers AS c CROSS JOIN LATERAL (SELECT total FROM orders WHERE customer_id = c.id ORDER BY total DESC LIMIT 1) AS o",
        "lateral in an arm": "SELECT c.id FROM customers AS c CROSS JOIN LATERAL (SELECT total FROM orders WHERE customer_id = c.id) AS o EXCEPT SELECT d.id FROM (SELECT id FROM suppliers) AS d",
        "full": "SELECT c.name FROM customers AS c FULL JOIN orders AS o ON c.id = o.customer_id",
        "rollup": "SELECT country, city, COUNT(*), GROUPING(city) FROM customers GROUP BY ROLLUP (country, city)",
        "grouping sets": "SELECT country, COUNT(*) FROM customers GROUP BY GROUPING SETS ((country), (country, city), ())",
        "ilike": "SELECT name FROM customers WHERE name ILIKE 'a%'",
        "is distinct": "SELECT name FROM customers WHERE age IS DISTINCT FROM 30",
        "filter": "SELECT COUNT(*) FILTER(WHERE paid) FROM visits",
        "date_trunc": "SELECT DATE_TRUNC('month', order_date), SUM(total) FROM orders GROUP BY DATE_TRUNC('month', order_date)",
        "to_char": "SELECT TO_CHAR(order_date, 'YYYY-MM') FROM orders",
        "days": "SELECT AVG(delivered_date - shipped_date) FROM shipments",
        "string_agg": "SELECT city, STRING_AGG(name, ', ') FROM customers GROUP BY city",
        "round": "SELECT ROUND(CAST(AVG(price) AS DECIMAL), 2) FROM products",
        "percentile": "SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY price) FROM products",
        "concatenation": "SELECT name || ' of ' || city FROM customers",
        "groups": "SELECT SUM(total) OVER (ORDER BY order_date GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM orders",
    },
    "duckdb": {
        "quoted": 'SELECT "select", "Größe" FROM "Order Lines" ORDER BY "Größe" DESC NULLS LAST',
        "distinct on": "SELECT DISTINCT ON (customer_id) customer_id, total FROM orders ORDER BY customer_id, total DESC",
        "lateral": "SELECT c.name, o.total FROM customers AS c CROSS JOIN LATERAL (SELECT total FROM orders WHERE customer_id = c.id) AS o",
        "lateral in an arm": "SELECT c.id FROM customers AS c CROSS JOIN LATERAL (SELECT total FROM orders WHERE customer_id = c.id) AS o EXCEPT SELECT d.id FROM (SELECT id FROM suppliers) AS d",
        "cube": "SELECT country, city, COUNT(*) FROM customers GROUP BY CUBE (country, city)",
        "round": "SELECT ROUND(AVG(price), 2) FROM products",
        "strftime": "SELECT STRFTIME(order_date, '%Y-%m') FROM orders",
        "any value": "SELECT city, ANY_VALUE(name), COUNT(*) FROM customers GROUP BY city",
        "extreme": "SELECT MAX(age), ARG_MAX(name, age) FROM customers",
        "days": "SELECT AVG(DATE_DIFF('day', shipped_date, delivered_date)) FROM shipments",
    },
    "mysql": {
        "quoted": "SELECT `select`, `Größe` FROM `Order Lines`",
        "rollup": "SELECT country, COUNT(*) FROM customers GROUP BY country WITH ROLLUP",
        "date_format": "SELECT DATE_FORMAT(order_date, '%Y-%m') FROM orders",
        "days": "SELECT AVG(DATEDIFF(delivered_date, shipped_date)) FROM shipments",
        "group_concat": "SELECT city, GROUP_CONCAT(name SEPARATOR ', ') FROM customers GROUP BY city",
        "round": "SELECT ROUND(AVG(price), 2) FROM products",
        "null-safe": "SELECT name FROM customers WHERE age <=> 30",
    },
}
ACCEPTED = [(dialect, name, sql) for dialect in DIALECTS for name, sql in (EVERYWHERE | NAMED[dialect]).items()]


@pytest.mark.parametrize(("dialect", "sql"), [pytest.param(one, sql, id=f"{one}-{name}") for one, name, sql in ACCEPTED])
def test_accepted(dialect: str, sql: str) -> None:
    inner = context(dialect).inner(sql)
    assert accepts(fresh(dialect).fork(), encode(inner, pointers=False)), inner


def test_accepted_queries_compile_as_they_were_and_as_they_are_turned(running: Engine) -> None:
    for dialect, name, sql in ACCEPTED:
        if dialect == running.dialect:
            turned = context(dialect).outer(context(dialect).inner(sql))
            assert running.explain(sql) is None, (name, sql)
            assert running.explain(turned) is None, (name, turned)


# What the server would refuse, as the grammars' own text: no token leads there.
REFUSED = {
    "word of no type": "FROM parcels WHERE parcels.state = 'lost' SELECT parcels.code",
    "marks of two types": "FROM parcels WHERE parcels.state = parcels.code SELECT parcels.code",
    "mark that begins so": "FROM parcels WHERE parcels.state LIKE 'n%' SELECT parcels.code",
    "least mark": "FROM parcels GROUP BY () SELECT MIN(parcels.code)",
    "several rows for one value": "FROM orders WHERE orders.id = (SELECT 1 UNION SELECT 2) SELECT orders.id",
    "remainder of a product": "FROM orders SELECT orders.total * orders.id % 6",
    "sum of text": "FROM customers GROUP BY () SELECT SUM(customers.name)",
    "text compared with a number": "FROM customers WHERE customers.name = 3 SELECT customers.id",
    "date compared with a word": "FROM orders WHERE orders.order_date = 'soon' SELECT orders.id",
    "column that is not grouped": "FROM customers GROUP BY customers.city SELECT customers.name",
    "aggregate in WHERE": "FROM orders WHERE COUNT(*) > 1 SELECT orders.id",
    "aggregate without a group": "FROM orders SELECT COUNT(*)",
    "column of no source": "FROM orders SELECT customers.name",
    "arm of another kind": "FROM customers SELECT customers.city UNION FROM orders SELECT orders.id",
    "arm of another width": "FROM customers SELECT customers.city UNION FROM customers SELECT customers.city, customers.city",
    "number of no column": "FROM customers SELECT DISTINCT customers.city ORDER BY 2",
    "division by nothing": "FROM orders SELECT orders.total / 0",
    "what is computed at once": "SELECT 1 / 0",
    "cast of a word": "SELECT CAST('a' AS INT)",
    "comparison of what has none": "FROM visits SELECT DISTINCT visits.trace",
    "outer column that is not grouped": "FROM customers GROUP BY customers.city SELECT (FROM orders WHERE orders.customer_id = customers.id SELECT orders.total)",
    "31 June": "SELECT DATE '2024-06-31'",
    "window without an order": "FROM orders SELECT LAG(orders.total) OVER ()",
    "alias that is taken": "FROM (FROM orders SELECT orders.id AS x1) AS d1 SELECT d1.x1",
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in REFUSED.items()])
def test_refused(dialect: str, text: str) -> None:
    assert not accepts(fresh(dialect).fork(), encode(text, pointers=False))


def test_samples_parse_and_compile(running: Engine) -> None:
    draw, texts = Random(f"7/{running.dialect}"), []
    while len(texts) < 12:
        written = sample(fresh(running.dialect).fork(), draw, calm=draw.choice((5, 10)), most=300)
        if written is not None:
            texts.append(written)
    for written in texts:
        ordinary = context(running.dialect).outer(written)
        sqlglot.parse_one(ordinary, dialect=running.dialect)
        assert running.explain(ordinary) is None, (ordinary, running.explain(ordinary))
    assert sum(text.startswith("SELECT") for text in texts) < len(texts)


def test_engines_refuse_what_is_wrong(running: Engine) -> None:
    """The check of the samples can fail."""
    for sql in ("SELECT nothing FROM orders", "SELECT name, COUNT(*) FROM customers GROUP BY city", "SELECT FROM WHERE"):
        assert running.explain(sql)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_grammars_are_as_their_source_makes_them(dialect: str) -> None:
    text = (ROOT / "grammars" / f"sql-{dialect}.gbnf").read_text("utf-8")
    assert text == grammar(dialect), "run python -m experts.sql.grammars"


def test_a_grouped_scope_sees_its_keys() -> None:
    tables = {"t": (Column("a", kinds.NUMBER), Column("b", kinds.TEXT)), "u": (Column("a", kinds.NUMBER),)}
    events = read(tables, "FROM t GROUP BY t.a, UPPER(t.b) HAVING COUNT(*) > (FROM u SELECT u.a) SELECT ")
    grouped = next(event.scope for event in events if event.kind == "grouped")
    assert [(column.name, column.kind) for column in grouped.visible()] == [("t.a", "number"), ("(UPPER(t.b))", "text")]
    assert [column.name for column in grouped.beyond()] == ["t.a"]
    inner = next(event.scope for event in events if event.kind == "joined" and event.scope.outer)
    assert [column.name for column in inner.visible()] == ["u.a", "t.a"]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (" SELECT t.a", []),
        (" SELECT DISTINCT t.a", []),
        (" SELECT DISTINCT ON (t.a)t.b", ["t.a"]),
        (" SELECT DISTINCT ON (COALESCE(t.a, 'x, )'), t.b)t.b, t.c", ["COALESCE(t.a, 'x, )')", "t.b"]),
    ],
)
def test_distinct_on(text: str, keys: list[str]) -> None:
    assert distinct_on(text) == keys


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("SELECT nothing FROM orders", "no column nothing"),
        ("SELECT 1 FROM nowhere", "no table nowhere"),
        ("DELETE FROM orders", "not a query"),
        ("SELECT DISTINCT city FROM customers ORDER BY age", "select it"),
    ],
)
def test_unturnable(sql: str, problem: str) -> None:
    with pytest.raises(ContextError, match=problem):
        context("postgres").inner(sql)


def test_commands_open_the_target_in_the_dialect_of_the_grammar(tmp_path: Path) -> None:
    schema, cases = tmp_path / "shop.sql", tmp_path / "cases.jsonl"
    schema.write_text(DDL)
    queries = ["SELECT city, COUNT(*) FROM customers GROUP BY city", "SELECT SUM(name) FROM customers"]
    cases.write_text("".join(json.dumps({"id": n, "sql": sql}) + "\n" for n, sql in enumerate(queries)))
    file = str(ROOT / "grammars" / "sql-postgres.gbnf")
    ran = CliRunner().invoke(main, ["grammar", "accepts", file, "--db", str(schema), "--cases", str(cases)])
    assert [json.loads(line)["accepted"] for line in ran.stdout.splitlines()] == [True, False], ran.output
    drawn = CliRunner().invoke(main, ["grammar", "sample", file, "--db", str(schema), "-n", "3"])
    assert len([sqlglot.parse_one(line, dialect="postgres") for line in drawn.stdout.splitlines()]) == 3


def test_what_recursion_begins_with_is_not_cut() -> None:
    text = "WITH RECURSIVE cte1 AS (SELECT 1 AS x1 LIMIT 1 UNION ALL FROM cte1 SELECT cte1.x1) FROM cte1 SELECT cte1.x1"
    assert not accepts(fresh("postgres").fork(), encode(text, pointers=False))
    assert accepts(fresh("postgres").fork(), encode(text.replace(" LIMIT 1", ""), pointers=False))
    events = read({"t": (Column("a", kinds.NUMBER),)}, "FROM (FROM t SELECT t.a AS x1 OFFSET 2) AS d1 SELECT ")
    assert [column.name for column in events[-1].scope.own()] == ["d1.x1"]


# Servers put literals in the place of columns and compute before a row is read.
def test_duckdb_takes_no_query_in_the_limit_of_several_arms() -> None:
    text = "FROM orders SELECT orders.id UNION FROM orders SELECT orders.id LIMIT (SELECT 7)"
    assert [accepts(fresh(one).fork(), encode(text, pointers=False)) for one in ("postgres", "duckdb")] == [True, False]
    assert accepts(fresh("duckdb").fork(), encode(text.replace("(SELECT 7)", "7"), pointers=False))


GIVEN = {
    "divided by": "FROM (SELECT 0 AS x1) AS d2 SELECT 1 / ⟂d2.x1",
    "divided by a sum": "FROM orders CROSS JOIN (SELECT 3 AS x1) AS d2 SELECT orders.id / (⟂d2.x1 - 3)",
    "cast": "FROM (SELECT 'a' AS x1) AS d2 SELECT CAST(d2.x1 ⟂AS INT)",
    "beside a table": "FROM (FROM orders SELECT orders.id AS x1, 5 AS x2) AS d2 SELECT d2.x1 / (d2.x⟂2 - 5)",
    "in another arm": "FROM (FROM orders SELECT orders.id AS x1 UNION ALL FROM orders SELECT 5⟂) AS d2 SELECT d2.x1",
    "named": "WITH cte1 AS (SELECT 1 AS x1) FROM cte1 SELECT SQRT(⟂cte1.x1 - 2)",
    "condition that is a number": "FROM orders WHERE CASE WHEN 6 ⟂< 1 THEN 3 END SELECT orders.id",
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in GIVEN.items()])
def test_literals_are_not_computed_with(dialect: str, text: str) -> None:
    """Texts are refused where ⟂ stands."""
    verdict = judge(fresh(dialect).fork(), text.replace("⟂", ""))
    assert (verdict.accepted, verdict.at) == (False, text.index("⟂")), verdict.expected


def test_literals_are_compared_and_shown() -> None:
    text = "FROM (SELECT 3 AS x1, 'a' AS x2) AS d2 WHERE d2.x1 = 3 AND d2.x2 != 'b' SELECT d2.x1, d2.x2 ORDER BY d2.x1"
    assert accepts(fresh("postgres").fork(), encode(text, pointers=False))
    counted = "WITH RECURSIVE cte1 AS (SELECT 1 AS x1 UNION ALL FROM cte1 WHERE cte1.x1 < 5 SELECT cte1.x1 + 1) FROM cte1 SELECT cte1.x1 / (cte1.x1 + 1)"
    assert accepts(fresh("postgres").fork(), encode(counted, pointers=False))
