"""FROM-first text: from SQL and back, with the same rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from expert_cli.errors import ContextError
from experts.sql.fromfirst import MAX_DEPTH, canonical, read, write
from experts.sql.schema import Schema, from_ddl

SCRIPT = """
CREATE TABLE singer (id INTEGER PRIMARY KEY, Name TEXT, age INTEGER, "Home Town" TEXT);
CREATE TABLE song (song_id INTEGER PRIMARY KEY, singer_id REFERENCES singer(id), title TEXT, "FROM" TEXT);
CREATE TABLE "order by" ("select (x" TEXT, "group" INTEGER);
CREATE TABLE FROMAGE (MILK TEXT);
INSERT INTO singer VALUES (1, 'Ann', 30, 'Ulm'), (2, 'Bob', 20, 'it''s'), (3, 'Cy', NULL, 'WHERE'), (4, 'Ann', 41, NULL);
INSERT INTO song VALUES (1, 1, 'FROM (x', 'a'), (2, 1, 'two  spaces', 'b'), (3, 2, ') SELECT ''', 'a'), (4, 4, 'UNION', 'b');
INSERT INTO "order by" VALUES ('a', 1), ('b', 2);
INSERT INTO FROMAGE VALUES ('cow'), ('goat');
"""


@pytest.fixture(scope="module")
def schema() -> Schema:
    return from_ddl(SCRIPT)


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCRIPT)
        yield connection


WRITTEN = [
    ("select name from singer", "FROM singer SELECT singer.name"),
    ("SELECT * FROM singer", "FROM singer SELECT *"),
    ("SELECT DISTINCT age FROM singer", "FROM singer SELECT DISTINCT singer.age"),
    ("SELECT count(*), T1.name FROM singer AS T1 GROUP BY T1.name HAVING count(*) > 1", "FROM singer SELECT COUNT(*), singer.name GROUP BY singer.name HAVING COUNT(*) > 1"),
    ("SELECT name FROM singer ORDER BY age DESC LIMIT 1", "FROM singer SELECT singer.name ORDER BY singer.age DESC LIMIT 1"),
    ("SELECT name FROM singer ORDER BY age ASC", "FROM singer SELECT singer.name ORDER BY singer.age"),
    ("SELECT t.title FROM singer s JOIN song t ON s.id = t.singer_id", "FROM singer JOIN song ON singer.id = song.singer_id SELECT song.title"),
    ("SELECT s.name FROM singer s LEFT JOIN song t ON s.id = t.singer_id WHERE t.song_id IS NULL", "FROM singer LEFT JOIN song ON singer.id = song.singer_id SELECT singer.name WHERE song.song_id IS NULL"),
    ("SELECT name FROM singer WHERE age <> 30 AND NOT age IS NULL", "FROM singer SELECT singer.name WHERE singer.age != 30 AND singer.age IS NOT NULL"),
    ("SELECT name FROM singer WHERE id NOT IN (SELECT singer_id FROM song)", "FROM singer SELECT singer.name WHERE singer.id NOT IN (FROM song SELECT song.singer_id)"),
    ("SELECT name FROM singer WHERE name NOT LIKE '%n%'", "FROM singer SELECT singer.name WHERE singer.name NOT LIKE '%n%'"),
    ("SELECT name FROM singer WHERE age NOT BETWEEN 1 AND 25", "FROM singer SELECT singer.name WHERE singer.age NOT BETWEEN 1 AND 25"),
    ("SELECT age FROM singer UNION ALL SELECT song_id FROM song", "FROM singer SELECT singer.age UNION ALL FROM song SELECT song.song_id"),
    ("SELECT id FROM singer EXCEPT SELECT singer_id FROM song", "FROM singer SELECT singer.id EXCEPT FROM song SELECT song.singer_id"),
    ("SELECT name FROM singer WHERE age = (SELECT max(age) FROM singer)", "FROM singer SELECT singer.name WHERE singer.age = (FROM singer SELECT MAX(singer.age))"),
    ("SELECT name FROM singer WHERE name = \"Ann\"", "FROM singer SELECT singer.name WHERE singer.name = 'Ann'"),
    ("SELECT title FROM song WHERE title = 'two  spaces'", "FROM song SELECT song.title WHERE song.title = 'two  spaces'"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), WRITTEN)
def test_write(schema: Schema, sql: str, expected: str) -> None:
    assert write(canonical(sql, schema)) == expected


QUERIES = [
    *(sql for sql, _ in WRITTEN),
    # strings and names that look like clauses
    "SELECT title FROM song WHERE title = 'FROM (x'",
    "SELECT title FROM song WHERE title = ') SELECT '''",
    "SELECT title FROM song WHERE title IN ('UNION', 'FROM (x', 'LIMIT 1')",
    'SELECT "Home Town" FROM singer WHERE "Home Town" = \'WHERE\'',
    'SELECT "FROM" FROM song GROUP BY "FROM" ORDER BY "FROM" DESC',
    'SELECT "select (x" FROM "order by" WHERE "order by"."group" > 1',
    "SELECT COUNT(MILK) FROM FROMAGE",
    "SELECT MILK FROM FROMAGE WHERE MILK IN (SELECT MILK FROM FROMAGE)",
    # nesting
    "SELECT name FROM singer WHERE id IN (SELECT singer_id FROM song WHERE title IN (SELECT title FROM song WHERE song_id > 1))",
    "SELECT name FROM singer WHERE (age > 25 OR (age < 21 AND id IN (SELECT singer_id FROM song))) AND id > 0",
    "SELECT name FROM singer WHERE EXISTS (SELECT 1 FROM song WHERE song.singer_id = singer.id)",
    "SELECT name, (SELECT count(*) FROM song WHERE singer_id = singer.id) FROM singer",
    "SELECT avg(n) FROM (SELECT count(*) AS n FROM song GROUP BY singer_id) AS counted",
    "SELECT s.name FROM singer s JOIN (SELECT singer_id, count(*) AS n FROM song GROUP BY singer_id) AS c ON c.singer_id = s.id WHERE c.n > 1",
    "WITH old AS (SELECT id, name FROM singer WHERE age > 25) SELECT old.name FROM old JOIN song ON song.singer_id = old.id",
    # set operations of three arms, with an order, in subqueries
    "SELECT id FROM singer UNION SELECT singer_id FROM song UNION SELECT song_id FROM song ORDER BY 1 DESC LIMIT 2",
    "SELECT name FROM singer WHERE id IN (SELECT singer_id FROM song WHERE song_id = 1 INTERSECT SELECT singer_id FROM song WHERE song_id = 2)",
    # self-joins and aliases that must stay
    "SELECT a.name, b.name FROM singer a JOIN singer b ON a.name = b.name AND a.id < b.id",
    "SELECT age + 1 AS next FROM singer ORDER BY next",
    "SELECT name AS n, count(*) AS c FROM singer GROUP BY n ORDER BY c DESC, n",
    # expressions
    "SELECT CASE WHEN age > 25 THEN 'old' ELSE 'young' END FROM singer",
    "SELECT CAST(age AS TEXT) || '!' FROM singer WHERE age IS NOT NULL ORDER BY age LIMIT 1 OFFSET 1",
    "SELECT name, rank() OVER (PARTITION BY name ORDER BY age) FROM singer",
    "SELECT count(DISTINCT name), sum(age) * 1.0 / count(*) FROM singer",
    "SELECT title FROM song LIMIT 1",
]  # fmt: skip


@pytest.mark.parametrize("sql", QUERIES)
def test_there_and_back_gives_the_same_rows(schema: Schema, database: sqlite3.Connection, sql: str) -> None:
    text = write(canonical(sql, schema))
    assert text.startswith(("FROM", "WITH"))
    rows = database.execute(read(text)).fetchall()
    assert rows == database.execute(sql).fetchall()
    assert rows, "the table of queries is only worth something where there are rows"


def test_names_that_begin_with_from(database: sqlite3.Connection) -> None:
    text = "FROM FROMAGE SELECT COUNT(FROMAGE.MILK) WHERE (FROMAGE.MILK != 'x')"
    assert database.execute(read(text)).fetchall() == [(2,)]


@pytest.mark.parametrize("sql", [*QUERIES[:3], "SELECT a FROM t WHERE x IN (SELECT y FROM u) UNION SELECT 1 FROM v"])
def test_select_first_text_stays(sql: str) -> None:
    assert read(sql.replace("select ", "SELECT ").replace(" from ", " FROM ")).upper() == sql.upper()


REFUSED = [
    ("", "does not begin with FROM"),
    ("hello", "does not begin with FROM"),
    ("; FROM a SELECT b", "does not begin with FROM"),
    ("DROP TABLE a FROM b SELECT c", "does not begin with FROM"),
    ("FROM a", "without FROM or SELECT"),
    ("SELECT a WHERE b", "without FROM or SELECT"),
    ("FROM a SELECT b UNION", "without FROM or SELECT"),
    ("UNION FROM a SELECT b", "without FROM or SELECT"),
    ("FROM a SELECT b WHERE c WHERE d", "two WHERE clauses"),
    ("FROM a FROM b SELECT c", "two FROM clauses"),
    ("FROM a SELECT (b", "parentheses"),
    ("FROM a SELECT b)", "parentheses"),
    ("FROM a SELECT " + "(" * 60 + "b" + ")" * 60, f"more than {MAX_DEPTH} deep"),
    ("FROM a SELECT " + "(" * 100_000, "parentheses"),
    ("FROM a SELECT b WHERE c IN (FROM d)", "without FROM or SELECT"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_refused(text: str, reason: str) -> None:
    with pytest.raises(ContextError, match=reason):
        read(text)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT FROM WHERE", "cannot parse"),
        ("", "cannot parse|not a query"),
        ("DROP TABLE singer", "not a query"),
        ("SELECT 'open", "cannot parse"),
        ("SELECT 1; SELECT 2", "not a query"),
    ],
)
def test_what_is_no_query(schema: Schema, sql: str, reason: str) -> None:
    with pytest.raises(ContextError, match=reason):
        canonical(sql, schema)
