"""One query, four dialects: expected texts, what has no equal, and the same rows from DuckDB where it is installed."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from typing import Any

import pytest
import sqlglot

from expert_cli import paths
from expert_cli.errors import ContextError
from experts.sql.dialect import tidy, transpile

WRITTEN = [
    (
        "SELECT name FROM t WHERE city LIKE '%lin' AND name NOT LIKE 'A%'",
        "SELECT name FROM t WHERE city ILIKE '%lin' AND name NOT ILIKE 'A%'",
        "SELECT name FROM t WHERE city LIKE '%lin' AND name NOT LIKE 'A%'",
        "SELECT name FROM t WHERE city ILIKE '%lin' AND name NOT ILIKE 'A%'",
    ),
    (
        "SELECT a FROM t ORDER BY a, b DESC LIMIT 3",
        "SELECT a FROM t ORDER BY a NULLS FIRST, b DESC NULLS LAST LIMIT 3",
        "SELECT a FROM t ORDER BY a, b DESC LIMIT 3",
        "SELECT a FROM t ORDER BY a NULLS FIRST, b DESC LIMIT 3",
    ),
    (
        "SELECT COUNT(*) / 2, COUNT(*) / COUNT(a), COUNT(*) * 100.0 / 7 FROM t",
        "SELECT COUNT(*) / 2, COUNT(*) / NULLIF(COUNT(a), 0), COUNT(*) * 100.0 / 7 FROM t",
        "SELECT COUNT(*) DIV 2, COUNT(*) DIV COUNT(a), COUNT(*) * 100.0 / 7 FROM t",
        "SELECT COUNT(*) // 2, COUNT(*) // COUNT(a), COUNT(*) * 100.0 / 7 FROM t",
    ),
    (
        "SELECT SUM(status = 'shipped'), AVG((age > 3)) FROM t",
        "SELECT SUM(CAST(status = 'shipped' AS INT)), AVG(CAST(age > 3 AS INT)) FROM t",
        "SELECT SUM(status = 'shipped'), AVG((age > 3)) FROM t",
        "SELECT SUM(CAST(status = 'shipped' AS INT)), AVG(CAST(age > 3 AS INT)) FROM t",
    ),
    (
        "SELECT c.name, COUNT(*) FROM c JOIN o ON o.c = c.id GROUP BY c.id ORDER BY c.age",
        "SELECT MIN(c.name) AS name, COUNT(*) FROM c JOIN o ON o.c = c.id GROUP BY c.id ORDER BY MIN(c.age) NULLS FIRST",
        "SELECT MIN(c.name) AS name, COUNT(*) FROM c JOIN o ON o.c = c.id GROUP BY c.id ORDER BY MIN(c.age)",
        "SELECT ANY_VALUE(c.name) AS name, COUNT(*) FROM c JOIN o ON o.c = c.id GROUP BY c.id ORDER BY ANY_VALUE(c.age) NULLS FIRST",
    ),
    (
        "SELECT DISTINCT a, b AS n FROM t ORDER BY c DESC, n",
        "SELECT a, b AS n FROM t GROUP BY a, b ORDER BY MAX(c) DESC NULLS LAST, n NULLS FIRST",
        "SELECT a, b AS n FROM t GROUP BY a, b ORDER BY MAX(c) DESC, n",
        "SELECT a, b AS n FROM t GROUP BY a, b ORDER BY MAX(c) DESC, n NULLS FIRST",
    ),
    (
        "SELECT t.a FROM t WHERE t.b IN (SELECT t.c FROM u GROUP BY u.d HAVING COUNT(*) > 1)",
        *["SELECT t.a FROM t WHERE t.b IN (SELECT t.c FROM u GROUP BY u.d HAVING COUNT(*) > 1)"] * 3,
    ),
    (
        "SELECT name, MAX(price) FROM t",
        "SELECT name, price FROM t WHERE NOT price IS NULL ORDER BY price DESC NULLS LAST LIMIT 1",
        "SELECT name, price FROM t WHERE NOT price IS NULL ORDER BY price DESC LIMIT 1",
        "SELECT ARG_MAX(name, price) AS name, MAX(price) FROM t",
    ),
    (
        "SELECT UPPER(city), COUNT(*) AS n FROM t GROUP BY UPPER(city) HAVING COUNT(*) > 1 ORDER BY n",
        "SELECT UPPER(city), COUNT(*) AS n FROM t GROUP BY UPPER(city) HAVING COUNT(*) > 1 ORDER BY n NULLS FIRST",
        "SELECT UPPER(city), COUNT(*) AS n FROM t GROUP BY UPPER(city) HAVING COUNT(*) > 1 ORDER BY n",
        "SELECT UPPER(city), COUNT(*) AS n FROM t GROUP BY UPPER(city) HAVING COUNT(*) > 1 ORDER BY n NULLS FIRST",
    ),
    (
        "SELECT a FROM t WHERE b IN (SELECT b FROM u ORDER BY c LIMIT 3)",
        "SELECT a FROM t WHERE b IN (SELECT b FROM u ORDER BY c NULLS FIRST LIMIT 3)",
        "SELECT a FROM t WHERE b IN (SELECT * FROM (SELECT b FROM u ORDER BY c LIMIT 3) AS chosen)",
        "SELECT a FROM t WHERE b IN (SELECT b FROM u ORDER BY c NULLS FIRST LIMIT 3)",
    ),
    (
        'SELECT user, "rank", "Group", "two words", name FROM "order"',
        'SELECT "user", "rank", "Group", "two words", name FROM "order"',
        "SELECT user, `rank`, `Group`, `two words`, name FROM `order`",
        'SELECT "user", "rank", "Group", "two words", name FROM "order"',
    ),
    (
        "SELECT STRFTIME('%Y-%m', d), DATE('now'), IFNULL(a, 0) FROM t",
        "SELECT TO_CHAR(CAST(d AS TIMESTAMP), 'YYYY-MM'), CURRENT_DATE, COALESCE(a, 0) FROM t",
        "SELECT DATE_FORMAT(d, '%Y-%m'), CURRENT_DATE, COALESCE(a, 0) FROM t",
        "SELECT STRFTIME(CAST(d AS TIMESTAMP), '%Y-%m'), CURRENT_DATE, COALESCE(a, 0) FROM t",
    ),
    (
        "SELECT a || '-' || b, TOTAL(c) OVER () FROM t WHERE d = 'it''s \\ here'",
        "SELECT a || '-' || b, COALESCE(SUM(c) OVER (), 0.0) FROM t WHERE d = 'it''s \\ here'",
        "SELECT CONCAT(a, '-', b), COALESCE(SUM(c) OVER (), 0.0) FROM t WHERE d = 'it''s \\\\ here'",
        "SELECT a || '-' || b, COALESCE(SUM(c) OVER (), 0.0) FROM t WHERE d = 'it''s \\ here'",
    ),
]


@pytest.mark.parametrize(("query", "postgres", "mysql", "duckdb"), WRITTEN)
def test_written(query: str, postgres: str, mysql: str, duckdb: str) -> None:
    texts = {"sqlite": query, "postgres": postgres, "mysql": mysql, "duckdb": duckdb}
    assert {dialect: transpile(query, dialect) for dialect in texts} == texts
    for dialect, text in list(texts.items())[1:]:
        assert sqlglot.parse_one(text, dialect=dialect).sql(dialect) == text


@pytest.mark.parametrize(
    ("query", "dialect", "words"),
    [
        ("SELECT julianday(d) FROM t", "postgres", "JULIANDAY has no equal there; use --dialect sqlite"),
        ("SELECT strftime('%s', d, 'start of month') FROM t", "duckdb", "STRFTIME has no equal"),
        ("SELECT a FROM t WHERE b GLOB 'x*'", "mysql", "GLOB has no equal"),
        ("SELECT g, name, MAX(price) FROM t GROUP BY g", "postgres", "row that holds the group's extreme"),
        ("SELECT name, MAX(price), COUNT(*) FROM t", "mysql", "row that holds the group's extreme"),
        ("SELECT name, MAX(price), MIN(price) FROM t", "duckdb", "row that holds the group's extreme"),
        ("SELECT 1", "oracle", "unknown dialect 'oracle'; choose one of sqlite"),
    ],
)
def test_no_equal(query: str, dialect: str, words: str) -> None:
    with pytest.raises(ContextError, match=words):
        transpile(query, dialect)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("SELECT t.a FROM t WHERE t.b = 1 ORDER BY t.c", "SELECT a FROM t WHERE b = 1 ORDER BY c"),
        ("SELECT t.a FROM t JOIN u ON t.x = u.y", "SELECT t.a FROM t JOIN u ON t.x = u.y"),
        (
            "SELECT t.a FROM t WHERE t.b IN (SELECT u.b FROM u WHERE u.c = t.c)",
            "SELECT a FROM t WHERE b IN (SELECT b FROM u WHERE c = t.c)",
        ),
        ('SELECT "T 1"."a b" FROM "T 1" -- note', 'SELECT "a b" FROM "T 1"'),
        ("SELECT COUNT(t.a) AS b FROM t ORDER BY t.b", "SELECT COUNT(a) AS b FROM t ORDER BY t.b"),
        ("SELECT t.a FROM t EXCEPT SELECT u.a FROM u", "SELECT a FROM t EXCEPT SELECT a FROM u"),
    ],
)
def test_tidy(query: str, text: str) -> None:
    statement = sqlglot.parse_one(query, dialect="sqlite")
    assert tidy(statement) == text
    assert statement.sql("sqlite", comments=False) == sqlglot.parse_one(query, dialect="sqlite").sql(
        "sqlite", comments=False
    )


def bag(rows: list[tuple[Any, ...]]) -> Counter[tuple[object, ...]]:
    return Counter(
        tuple(round(float(cell), 6) if isinstance(cell, int | float) else str(cell) for cell in row) for row in rows
    )


def test_duckdb_answers_the_sample_questions_alike() -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    folder = paths.packaged("sample")
    with closing(sqlite3.connect(folder / "shop.sqlite")) as lite, closing(duckdb.connect()) as duck:
        for name, ddl in lite.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall():
            duck.execute(ddl.replace("DATE", "TEXT").replace("REAL", "DOUBLE"))
            rows = lite.execute(f"SELECT * FROM {name}").fetchall()
            duck.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(rows[0]))})", rows)
        for line in (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines():
            gold = json.loads(line)["gold"]
            for query in [gold] if isinstance(gold, str) else gold:
                assert bag(duck.execute(transpile(query, "duckdb")).fetchall()) == bag(
                    lite.execute(query).fetchall()
                ), query
