"""Ordinary SQL as the SQLite grammar writes it: what is accepted gives the rows of the query that was asked."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest

from expert_cli.errors import ContextError
from expert_cli.grammar import tokens
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.verdict import judge
from expert_cli.runtime import bases
from experts.sql.names import mathematical
from experts.sql.plugin import SqlContext
from experts.sql.schema import from_ddl

TABLES = "CREATE TABLE a (x int, p int); CREATE TABLE b (x int, y int); CREATE TABLE c (y int, z int); CREATE TABLE d (v int, w int)"
ROWS = [(1, 2), (2, 2), (2, 3), (3, None), (None, 1)]
GRAMMAR = (Path(__file__).resolve().parents[1] / "grammars" / "sql-sqlite.gbnf").read_text("utf-8")

SAME = {
    "constants": "SELECT 1, 'a', NULL",
    "a computed constant": "SELECT CASE 1 WHEN 1 THEN 'one' ELSE 'other' END, COALESCE(NULL, 2) + 1, ROUND(2.5)",
    "a share": "SELECT ROUND((SELECT COUNT(*) FROM a WHERE p = 2) * 100.0 / (SELECT COUNT(*) FROM a), 2)",
    "arms of constants": "SELECT 1 UNION SELECT 2 UNION ALL SELECT 2 LIMIT 3",
    "wide arms of constants": "SELECT 1, 'a', 2 EXCEPT SELECT 1, 'b', 2",
    "constants derived": "SELECT n FROM (SELECT 1 AS n UNION SELECT 2) AS t",
    "constants named": "WITH t AS (SELECT 1 AS n UNION ALL SELECT 2), u AS (SELECT n FROM t) SELECT n FROM u",
    "recursive": "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 4) SELECT n FROM t",
    "constants in a list": "SELECT x FROM a WHERE p IN (SELECT 2 UNION SELECT 3)",
    "a constant among values": "SELECT x FROM a WHERE p IN ((SELECT 2), 1)",
    "a constant as a value": "SELECT (SELECT 1) + x FROM a",
    "true": "SELECT x FROM a WHERE TRUE AND NOT FALSE",
    "limit of a sum": "SELECT x FROM a ORDER BY x LIMIT 1 + 1",
    "limit of a query": "SELECT x FROM a ORDER BY x LIMIT (SELECT 2) OFFSET (SELECT 1)",
    "precision": "SELECT CAST(x AS DECIMAL(10, 2)), CAST(x AS VARCHAR(3)) FROM a",
    "a frame without order": "SELECT SUM(x) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM a",
    "a table in parentheses": "SELECT * FROM ((a))",
    "an alias outside": "SELECT t.x FROM (a AS s) AS t JOIN (b) ON b.x = t.x",
    "joins first": "SELECT * FROM (a CROSS JOIN b) LEFT JOIN c ON c.y = b.y",
    "joins second": "SELECT * FROM a JOIN (b JOIN c ON b.y = c.y) ON a.x = b.x",
    "joins second, outer inside": "SELECT * FROM a JOIN (b LEFT JOIN c ON b.y = c.y JOIN d AS e ON e.v = b.x) ON a.x = b.x",
    "joins within joins": "SELECT * FROM a JOIN ((b CROSS JOIN c) JOIN d ON d.v = c.z) ON a.x = d.w",
    "a comma in parentheses": "SELECT * FROM a, (b, c) WHERE a.x = c.y",
    "a query in parentheses": "SELECT * FROM ((SELECT x FROM a) AS s JOIN b ON s.x = b.x)",
    "star after USING": "SELECT * FROM a LEFT JOIN b USING (x)",
    "star after NATURAL": "SELECT * FROM a NATURAL JOIN b",
    "a source's star after USING": "SELECT b.*, a.* FROM a JOIN b USING (x)",
    "a hierarchy": "WITH RECURSIVE t AS (SELECT x, 0 AS n FROM a WHERE p IS NULL UNION ALL "
    "SELECT b.y, t.n + 1 FROM b JOIN t ON b.x = t.x WHERE t.n < 3) SELECT x, n FROM t",
    "a hierarchy of aliases": "WITH RECURSIVE t(i, n) AS (SELECT x, 0 FROM a UNION "
    "SELECT e.p, u.n + 1 FROM a AS e, t AS u WHERE e.x = u.i AND u.n < 3) SELECT * FROM t",
    "rows in rows": "SELECT x FROM a WHERE (x, p) IN (SELECT y, x FROM b) OR (x, p) NOT IN (SELECT p, x FROM a WHERE x > 1)",
    "rows of three": "SELECT p FROM a WHERE (x, p, 1) IN (SELECT x, y, 1 FROM b UNION SELECT 2, 3, 1 FROM a)",
    "groups in rows": "SELECT p FROM a GROUP BY p HAVING (p, COUNT(*)) IN (SELECT x, 2 FROM b)",
    "the same or NULL both": "SELECT x FROM a WHERE x IS p OR p IS NOT 2",
    "distinct from": "SELECT x FROM a WHERE x IS NOT DISTINCT FROM p AND p IS DISTINCT FROM 1",
    "a collation on the left": "SELECT 'A' COLLATE NOCASE = 'a', x FROM a WHERE 'b' COLLATE NOCASE < 'C'",
    "the greatest of some": "SELECT MAX(x, p, 2), MIN(p, 2) FROM a",
    "text in double quotes beside a column without a name": 'SELECT x FROM (SELECT x, MAX(p) FROM a GROUP BY x) WHERE "New York" > "a"',
    "sums of sums": "SELECT p, SUM(SUM(x)) OVER (ORDER BY p), MAX(COUNT(*)) OVER () FROM a GROUP BY p",
    "a column of USING": "SELECT x, y FROM a LEFT JOIN b USING (x) ORDER BY x",
}
FAITHFUL = [
    "SELECT x FROM a ORDER BY x NULLS LAST LIMIT 2",
    "SELECT x FROM a ORDER BY x DESC NULLS FIRST LIMIT 2",
    "SELECT x FROM a UNION SELECT y FROM b ORDER BY x NULLS LAST LIMIT 2",
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t LIMIT 5) SELECT n FROM t",
    "WITH RECURSIVE t AS (SELECT 1 AS n), u AS (SELECT x FROM a UNION SELECT x FROM b ORDER BY 1 DESC LIMIT 2) SELECT x FROM u",
    "SELECT SUM(x) OVER (ORDER BY x ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW) FROM a",
    "SELECT SUM(x) OVER w, (SELECT SUM(y) OVER w FROM b WINDOW w AS (ORDER BY y DESC) LIMIT 1) FROM a WINDOW w AS (ORDER BY x)",
    "SELECT SUM(x) OVER (w2) FROM a WINDOW w AS (PARTITION BY p), w2 AS (w ORDER BY x)",
    "SELECT x FROM a WHERE x IN (WITH a AS (SELECT 2 AS x) SELECT x FROM a)",
    "WITH a AS (SELECT 99 AS x, 98 AS p) SELECT * FROM main.a",
    "WITH t AS (SELECT * FROM b), b AS (SELECT 1 AS x, 2 AS y) SELECT * FROM t",
    "SELECT y FROM a FULL JOIN b USING (x) JOIN (SELECT x AS z, p AS x FROM a) AS e USING (x)",
    "SELECT * FROM a JOIN b ON a.x = b.y JOIN (SELECT x AS k, p AS y FROM a) AS t USING (y)",
    "SELECT * FROM a JOIN b ON a.x = b.y LEFT JOIN (SELECT p AS y, 1 AS k FROM a WHERE p > 2) AS t USING (y)",
    "SELECT * FROM a NATURAL LEFT JOIN (SELECT y FROM b WHERE y > 100) AS t",
    "SELECT c.z FROM a JOIN b ON a.x = b.x AND EXISTS (SELECT 1 FROM d WHERE d.v = a.x) RIGHT JOIN c ON c.y = b.y",
    "SELECT x + 1, p + 1 FROM a UNION SELECT y, x FROM b ORDER BY p + 1",
    "SELECT p, x AS p FROM a UNION SELECT y, x FROM b ORDER BY p LIMIT 3",
    "SELECT 5 - x AS x FROM a ORDER BY CASE WHEN x > 2 THEN 0 ELSE 1 END, p LIMIT 2",
    "SELECT x AS q, p AS q FROM a ORDER BY q LIMIT 2",
    "SELECT (SELECT b.y AS p FROM b WHERE p > 2 LIMIT 1) FROM a",
    "SELECT a.*, b.y FROM a JOIN b ON a.x = b.x ORDER BY 2 LIMIT 3",
    "SELECT x IN (1, 2) AS q FROM a WHERE 1 + q",
    "WITH t (p, x) AS (SELECT * FROM a) SELECT p FROM t",
    'SELECT "rowid" FROM a',
    'SELECT x AS "my x" FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.x = "my x")',
    "SELECT CAST(x AS DECIMAL) / 2, CAST(x AS BOOLEAN) / 2 FROM a",
    "SELECT x FROM a WHERE +x = '1'",
    "SELECT \"it's\" || 'a  b'",
    "SELECT x FROM a GROUP BY x HAVING TRUE QUALIFY x > 1",
]
"""Each is turned into what gives the same rows, or refused."""

MATHEMATICAL = {
    "one number": "SELECT CEIL(x / 2.0), FLOOR(x), SQRT(x), EXP(x), LN(x), LOG10(x), LOG2(x) FROM a",
    "two numbers": "SELECT POWER(x, 2), MOD(x, 2), MOD(x + 0.5, 2) FROM a",
}
TOLD = {
    "interval": ("SELECT DATE '2024-01-31' - INTERVAL '90' DAY", "SELECT DATE('2024-01-31', '-90 day')"),
    "intervals": (
        "SELECT CAST('2024-05-28' AS DATE) + INTERVAL '1' YEAR - INTERVAL '2' DAY",
        "SELECT DATE(DATE('2024-05-28', '+1 year'), '-2 day')",
    ),
    "extract": ("SELECT EXTRACT(YEAR FROM DATE '2024-05-31') + x FROM a", "SELECT 2024 + x FROM a"),
    "names of columns": ("SELECT n FROM (SELECT x, p FROM a) AS t (m, n)", "SELECT p FROM a"),
}
"""Standard SQL that SQLite does not know, and what it is in SQLite's words."""

LEFT = {
    "unlike arms": ("SELECT 1 UNION SELECT 1, 2", ", 2"),
    "a limit of text": ("SELECT x FROM a LIMIT (SELECT 'a')", "'a')"),
    "a month from the end of one": ("SELECT DATE '2024-01-31' + INTERVAL '1' MONTH", "TERVAL '1' MONTH"),
    "a step back": ("SELECT DATE '2024-01-31' + INTERVAL '-1' DAY", "TERVAL '-1' DAY"),
    "a step of a column": ("SELECT DATE '2024-01-31' + INTERVAL x DAY FROM a", "TERVAL (a.x) DAY"),
    "a step from what may be no date": ("SELECT x + INTERVAL '1' DAY FROM a", "TERVAL '1' DAY"),
    "a row of values": ("SELECT x FROM a WHERE (x, p) IN (SELECT 1, 2)", "SELECT 1, 2)"),
}
UNREADABLE = {
    "a limit of a query in parentheses": "SELECT * FROM ((SELECT x FROM a) LIMIT 1) AS t",
    "an order of a query in parentheses": "(SELECT x FROM a) ORDER BY 1",
    "groups of a constant": "SELECT SUM(x), p, 2 AS k FROM a GROUP BY k",
    "the number of a column without a name": "SELECT * FROM (SELECT COUNT(*), p FROM a GROUP BY p) AS t ORDER BY 1",
    "a name that SQLite made": 'SELECT "COUNT(*)" FROM (SELECT COUNT(*) FROM a)',
    "a name that SQLite made of words": 'SELECT "p IS NULL" FROM (SELECT p IS NULL FROM a)',
    "an alias in between": "SELECT (SELECT b.y AS p FROM b WHERE EXISTS (SELECT 1 FROM c WHERE c.z = p) LIMIT 1) FROM a",
    "an outer join of a join": "SELECT * FROM a LEFT JOIN (b JOIN c ON b.y = c.y) ON a.x = b.x",
    "a right join in a join": "SELECT * FROM a JOIN (b RIGHT JOIN c ON b.y = c.y) ON a.x = b.x",
    "a column of RIGHT JOIN USING": "SELECT x FROM a RIGHT JOIN b USING (x)",
    "a limit by its old name": "SELECT x FROM a FETCH FIRST 2 ROWS ONLY",
    "one of each": "SELECT DISTINCT ON (p) x FROM a",
    "totals": "SELECT p, COUNT(*) FROM a GROUP BY p WITH ROLLUP",
    "less than a star": "SELECT * EXCEPT (x) FROM a",
    "half a join": "SELECT * FROM a SEMI JOIN b ON a.x = b.x",
    "a sample": "SELECT * FROM a TABLESAMPLE (10)",
    "a star over RIGHT JOIN USING": "SELECT * FROM a RIGHT JOIN b USING (x)",
}


@pytest.fixture(scope="module")
def context() -> SqlContext:
    return SqlContext(from_ddl(TABLES), None, "sqlite")


def fresh(context: SqlContext) -> Matcher:
    return Matcher(tokens.bytewise(("<e>",), "<e>"), GRAMMAR, context.everything())


def given(sql: str) -> list[tuple[object, ...]]:
    """What a query gives, each value with its type: to Python 1 is 1.0."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(TABLES)
        for table in "abcd":
            connection.executemany(f"INSERT INTO {table} VALUES (?, ?)", ROWS)
        found = connection.execute(sql).fetchall()
        return [tuple((type(value), value) for value in row) for row in found]


def rows(sql: str) -> Counter[tuple[object, ...]]:
    """What a query gives in any order."""
    return Counter(given(sql))


def same(context: SqlContext, sql: str, told: str = "") -> None:
    inner = context.inner(sql)
    verdict = judge(fresh(context), inner)
    assert verdict.accepted, f"{inner[: verdict.at]} ⟂ {inner[verdict.at :]}"
    assert rows(context.outer(inner)) == rows(told or sql)


@pytest.mark.parametrize("sql", SAME.values(), ids=SAME)
def test_same(context: SqlContext, sql: str) -> None:
    same(context, sql)


@pytest.mark.parametrize("sql", FAITHFUL)
def test_faithful(context: SqlContext, sql: str) -> None:
    try:
        inner = context.inner(sql)
    except ContextError:
        return
    if judge(fresh(context), inner).accepted:
        same(context, sql)


def test_most_of_these_are_not_refused(context: SqlContext) -> None:
    taken = 0
    for sql in FAITHFUL:
        with suppress(ContextError):
            taken += judge(fresh(context), context.inner(sql)).accepted
    assert taken > len(FAITHFUL) / 3, taken


@pytest.mark.parametrize(("sql", "told"), TOLD.values(), ids=TOLD)
def test_told(context: SqlContext, sql: str, told: str) -> None:
    same(context, sql, told)


@pytest.mark.parametrize("sql", MATHEMATICAL.values(), ids=MATHEMATICAL)
def test_mathematical(context: SqlContext, sql: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not mathematical():
        pytest.skip("SQLite was built without mathematical functions")
    same(context, sql)
    monkeypatch.setattr("experts.sql.names.mathematical", lambda: False)
    without = SqlContext(from_ddl(TABLES), None, "sqlite")
    assert not judge(fresh(without), without.inner(sql)).accepted


@pytest.mark.parametrize(("sql", "rest"), LEFT.values(), ids=LEFT)
def test_left(context: SqlContext, sql: str, rest: str) -> None:
    inner = context.inner(sql)
    verdict = judge(fresh(context), inner)
    assert (verdict.accepted, inner[verdict.at :]) == (False, rest)


@pytest.mark.parametrize("sql", UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable(context: SqlContext, sql: str) -> None:
    with pytest.raises(ContextError):
        context.inner(sql)


def test_a_derived_table_may_be_written_again_within_another(context: SqlContext) -> None:
    text = (
        "FROM (FROM a SELECT a.x) AS d1 JOIN (FROM (FROM a SELECT a.x) AS d1 SELECT d1.x) AS d2 ON d1.x = d2.x "
        "SELECT d2.x"
    )
    assert judge(fresh(context), text).accepted
    assert rows(context.outer(text)) == rows("SELECT e.x FROM a JOIN a AS e ON e.x = a.x")


OUTSIDE = {
    "a window over sums that are not grouped": "FROM (FROM a SELECT a.x, SUM(COUNT(*)) OVER (PARTITION BY a.x) AS x2) AS d1 "
    "SELECT d1.x2 WHERE d1.x = 1",
    "a rank by sums that are not grouped": "WITH cte1 AS (FROM a SELECT a.x, ROUND(RANK() OVER (PARTITION BY a.x "
    "ORDER BY COUNT(*)), 1) AS x2) FROM cte1 SELECT cte1.x2 WHERE cte1.x = 1",
    "a window of what is around": "FROM a SELECT a.x WHERE a.x IN (FROM b SELECT b.x GROUP BY b.x ORDER BY RANK() OVER (ORDER BY a.p))",
    "a sorted window of what is around": "FROM a SELECT a.x WHERE a.x IN (FROM b SELECT b.x ORDER BY SUM(b.x) OVER (PARTITION BY a.p))",
    "an aggregate in a sorted window": "FROM a SELECT a.x ORDER BY RANK() OVER (ORDER BY SUM(a.p))",
    "a number beyond the columns": "FROM a SELECT a.x, a.p ORDER BY 3",
    "rows beside fewer columns": "FROM a SELECT a.x WHERE (a.x, a.p) IN (FROM b SELECT b.x)",
    "a twin of other columns": "FROM a JOIN b USING (x) SELECT * UNION FROM a JOIN b ON a.x = b.x SELECT *",
    "a recursion of other columns": "WITH RECURSIVE cte1 AS (FROM a JOIN b USING (x) SELECT * UNION ALL "
    "FROM cte1 SELECT 1, 2, 3, 4) FROM cte1 SELECT *",
    "an aggregate of what is around": "FROM a SELECT a.x WHERE (FROM b SELECT SUM((FROM c SELECT a.x))) > 0",
    "a test in an aggregate": "FROM a SELECT a.x WHERE (FROM b SELECT SUM(EXISTS (FROM c SELECT a.x))) > 0",
    "a key of what is around": "FROM a SELECT a.x WHERE EXISTS (FROM b SELECT 1 GROUP BY (FROM c SELECT a.x))",
    "a sort of what is around": "FROM a SELECT a.x WHERE EXISTS (FROM b SELECT b.y ORDER BY (FROM c SELECT a.x))",
}


@pytest.mark.parametrize("text", OUTSIDE.values(), ids=OUTSIDE)
def test_outside(context: SqlContext, text: str) -> None:
    """What SQLite does not compile."""
    assert not judge(fresh(context), text).accepted
    with pytest.raises(sqlite3.Error):
        rows(context.outer(text))


def test_names_that_are_words_of_the_grammar() -> None:
    names = SqlContext(from_ddl('CREATE TABLE "OFFSET" ("WITH" int, "true" int)'), None, "sqlite")
    for sql in ('SELECT "WITH" FROM "OFFSET"', 'SELECT "OFFSET"."WITH" FROM "OFFSET" LIMIT 1 OFFSET 0'):
        inner = names.inner(sql)
        assert judge(fresh(names), inner).accepted
        assert names.outer(inner).count('"OFFSET"') == 2, inner
    assert not judge(fresh(names), 'FROM "OFFSET" SELECT TRUE').accepted, "SQLite takes it for the column"


def test_a_token_may_reach_over_a_scope(context: SqlContext) -> None:
    """``),`` is one token of the shipped base; a scope opens between its two characters."""
    base = bases.find("nano")
    vocabulary = tokens.load(base.file("tokenizer"), base.manifest.end)
    assert b")," in vocabulary.pieces
    matcher = Matcher(vocabulary, GRAMMAR, context.everything())
    text = "WITH cte1 AS (SELECT 1 AS x1), cte2 AS (FROM cte1 SELECT cte1.x1) FROM cte2 SELECT cte2.x1"
    assert judge(matcher, text).accepted
