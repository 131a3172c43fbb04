"""The guard: everything hostile is refused, everything an analyst writes passes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from expert_cli.errors import ContextError
from experts.sql.guard import DIALECTS, MAX_LENGTH, check

FIXTURES = Path(__file__).parent / "fixtures"
TABLES = ("customers", "Orders", "order items")


def cases(name: str) -> list[object]:
    lines = (FIXTURES / name).read_text(encoding="utf-8").splitlines()
    return [pytest.param(case["dialect"], case["sql"], id=case["id"]) for case in map(json.loads, lines)]


@pytest.mark.parametrize(("dialect", "sql"), cases("hostile_sql.jsonl"))
def test_hostile_in_every_dialect(dialect: str, sql: str) -> None:
    for spoken in (dialect, *DIALECTS):
        with pytest.raises(ContextError, match=r"^refused: .*; ask for"):
            check(sql, spoken, TABLES)


@pytest.mark.parametrize(("dialect", "sql"), cases("benign_sql.jsonl"))
def test_benign(dialect: str, sql: str) -> None:
    check(sql, dialect, TABLES)


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        ("sqlite", "SELECT strftime('%Y', d), date('now', '-7 days'), julianday(d), unixepoch() FROM orders"),
        (
            "sqlite",
            "SELECT a, SUM(b) OVER (PARTITION BY c ORDER BY d ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM orders",
        ),
        (
            "sqlite",
            "SELECT * FROM orders o LEFT JOIN customers USING (id) WHERE EXISTS (SELECT 1 FROM customers c WHERE c.id = o.id)",
        ),
        (
            "sqlite",
            "SELECT ~a, a << 1, a % 2, a || 'x', CAST(a AS REAL) FROM orders ORDER BY a COLLATE NOCASE DESC NULLS LAST",
        ),
        ("sqlite", "SELECT value FROM customers, json_each(customers.tags)"),
        ("sqlite", 'SELECT * FROM "ORDER ITEMS" JOIN [orders] ON 1 = 1 JOIN `customers` ON 1 = 1'),
        ("sqlite", "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 5) SELECT x FROM c"),
        ("sqlite", "WITH a AS (SELECT 1), b AS (SELECT * FROM a) SELECT * FROM b WHERE EXISTS (SELECT * FROM a)"),
        (
            "sqlite",
            "SELECT COUNT(*) FROM main.orders, customers a, customers b, customers c, customers d WHERE a.id = b.id",
        ),
        ("sqlite", "SELECT 'DELETE FROM customers; -- \u200b' FROM orders;;"),
        ("sqlite", "EXPLAIN QUERY PLAN SELECT * FROM orders"),
        ("sqlite", "VALUES (1), (2)"),
        (
            "postgres",
            "SELECT a::numeric(10, 2), d AT TIME ZONE 'UTC', b ~* 'x', c = ANY(ARRAY[1, 2]) FROM orders FETCH FIRST 5 ROWS ONLY",
        ),
        (
            "postgres",
            "SELECT EXTRACT(YEAR FROM d), to_char(d, 'YYYY'), age(d) FROM orders WHERE d > now() - INTERVAL '7 days'",
        ),
        ("postgres", "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM orders GROUP BY ROLLUP (b)"),
        ("postgres", "SELECT * FROM generate_series(date '2024-01-01', date '2024-02-01', INTERVAL '1 day')"),
        (
            "mysql",
            "SELECT DATE_ADD(d, INTERVAL 1 DAY), TIMESTAMPDIFF(DAY, a, b), IF(a > 1, 'x', 'y'), a DIV b FROM orders LIMIT 5, 10",
        ),
        ("mysql", "SELECT SUBSTRING_INDEX(a, ',', 1), FIND_IN_SET('x', a), '--x' FROM orders -- a comment"),
        ("duckdb", "SELECT a, COUNT(*), median(b), list_transform([1, 2], x -> x + 1) FROM orders GROUP BY ALL"),
        ("duckdb", "SELECT a FROM orders QUALIFY row_number() OVER (ORDER BY b) = 1"),
    ],
)
def test_what_analysts_write(dialect: str, sql: str) -> None:
    check(sql, dialect, TABLES)


@pytest.mark.parametrize(
    ("dialect", "sql", "reason"),
    [
        ("sqlite", "", "no statement"),
        ("sqlite", " ; ; ", "no statement"),
        ("sqlite", "SELECT 1; SELECT 2", "several statements"),
        ("sqlite", "SELECT 1 -- " + "x" * MAX_LENGTH, "longer than"),
        ("sqlite", "SELECT\u200b 1", "invisible"),
        ("sqlite", "SELECT 'a\0b'", "control"),
        ("sqlite", "hello world", "not the start of a query"),
        ("sqlite", "SELECT FROM WHERE", "does not parse"),
        ("sqlite", "SELECT " + "(" * 3000 + "1" + ")" * 3000, "too deeply nested|does not parse"),
        ("sqlite", "SELECT 'open", "does not parse"),
        ("sqlite", "SELECT ?", "PLACEHOLDER"),
        ("sqlite", "SELECT * FROM sqlite_master", "no table sqlite_master"),
        ("sqlite", "SELECT * FROM temp.orders", "no table temp.orders"),
        ("sqlite", "SELECT * FROM pragma_table_info('orders')", "from the function pragma_table_info"),
        ("sqlite", "SELECT randomblob(1000000000)", "function randomblob"),
        ("sqlite", "SELECT * FROM (WITH secret AS (SELECT 1) SELECT * FROM secret), secret", "no table secret"),
        ("sqlite", "WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", "no table b"),
        ("sqlite", "WITH a AS (SELECT 1) SELECT * FROM main.a", "no table main.a"),
        (
            "sqlite",
            "WITH RECURSIVE c AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM c) SELECT x FROM c LIMIT 5",
            "no end",
        ),
        ("sqlite", "SELECT COUNT(*) FROM orders a, orders b, orders c, orders d, orders e", "5 tables are multiplied"),
        ("postgres", "SELECT current_user", "CURRENT_USER"),
        ("postgres", "SELECT * FROM generate_series(1, 10 * 1000000)", "series must be bounded"),
        ("postgres", "SELECT * FROM orders, secrets.customers", "no table secrets.customers"),
        ("postgres", "EXPLAIN ANALYZE SELECT * FROM orders", "not the start of a query"),
        ("postgres", "EXPLAIN WITH x AS (DELETE FROM orders RETURNING *) SELECT * FROM x", "DELETE"),
        ("mysql", "SELECT 1 /*!50000 UNION SELECT 2 */", "comment that a server would run"),
        ("mysql", "SELECT /*+ SET_VAR(sql_mode='') */ 1", "comment that a server would run|HINT"),
        ("mysql", "SELECT 1--1", "-- without a space"),
        ("mysql", "SELECT @@version", "SESSIONPARAMETER"),
        ("mysql", "SHOW GRANTS", "SHOW GRANTS"),
        ("duckdb", "SELECT * FROM 'other.csv'", "no table other.csv"),
        ("duckdb", "SUMMARIZE secrets", "no table secrets"),
        ("oracle", "SELECT 1", "unknown dialect 'oracle'; choose one of sqlite"),
    ],
)
def test_reasons(dialect: str, sql: str, reason: str) -> None:
    with pytest.raises(ContextError, match=reason):
        check(sql, dialect, TABLES)


def test_the_returned_statement_is_the_query_without_comments() -> None:
    statement = check("SELECT a /* one */ FROM orders -- two\n;", "sqlite", TABLES)
    assert statement.sql("sqlite", comments=False) == "SELECT a FROM orders"
    plan = check("explain  query plan SELECT a FROM orders", "sqlite", TABLES)
    assert plan.sql("sqlite") == "EXPLAIN query plan SELECT a FROM orders"
