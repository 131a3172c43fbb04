"""What SQLite converts on its own is said in other dialects: expected texts, and the rows that SQLite gives."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from engines import Engine, engine, missing

from experts.sql.schema import Column, Schema, Table
from experts.sql.serving import Served

PEOPLE = Table(
    "People",
    (
        Column("id", "int"),
        Column("code", "text"),
        Column("Age", "int"),
        Column("paid", "boolean"),
        Column("sum", "real"),
    ),
)
VISITS = Table("visits", (Column("person", "text"), Column("rooms", "int"), Column("nights", "int")))
SCHEMA = Schema((PEOPLE, VISITS))
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "People": [(1, "7", 30, 1, 1.5), (2, "08", 41, 0, 2.0), (3, "x", None, None, None)],
    "visits": [("1", 7, 2), ("1", 3, 2), ("2", 5, 3), (None, 4, 2)],
}
SAID = {
    # for SQLite, and for PostgreSQL
    "text with a number": ("SELECT id FROM People WHERE code = 7", """SELECT id FROM "People" WHERE code = '7'"""),
    "number with text": ("SELECT id FROM People WHERE Age > '35'", 'SELECT id FROM "People" WHERE "Age" > 35'),
    "number first": ("SELECT id FROM People WHERE '41' = Age", 'SELECT id FROM "People" WHERE 41 = "Age"'),
    "below nought": ("SELECT id FROM People WHERE code <> -7", """SELECT id FROM "People" WHERE code <> '-7'"""),
    "between": (
        "SELECT id FROM People WHERE Age BETWEEN '1' AND 40",
        'SELECT id FROM "People" WHERE "Age" BETWEEN 1 AND 40',
    ),
    "listed": ("SELECT id FROM People WHERE code IN (7, 'x')", """SELECT id FROM "People" WHERE code IN ('7', 'x')"""),
    "true": ("SELECT id FROM People WHERE paid = 1", 'SELECT id FROM "People" WHERE paid = TRUE'),
    "false": ("SELECT id FROM People WHERE paid <> 0", 'SELECT id FROM "People" WHERE paid = TRUE'),
    "joined": (
        "SELECT People.id, visits.rooms FROM People JOIN visits ON People.id = visits.person",
        'SELECT "People".id, visits.rooms FROM "People" JOIN visits ON CAST("People".id AS TEXT) = visits.person',
    ),
    "chosen": (
        "SELECT p.Age FROM People AS p WHERE p.id IN (SELECT v.person FROM visits AS v)",
        'SELECT p."Age" FROM "People" AS p WHERE CAST(p.id AS TEXT) IN (SELECT v.person FROM visits AS v)',
    ),
    "chosen the other way": (
        "SELECT v.rooms FROM visits AS v WHERE v.person IN (SELECT p.id FROM People AS p)",
        'SELECT v.rooms FROM visits AS v WHERE v.person IN (SELECT CAST(p.id AS TEXT) FROM "People" AS p)',
    ),
    "with the greatest": (
        "SELECT rooms FROM visits WHERE person = (SELECT MAX(id) - 1 FROM People)",
        'SELECT rooms FROM visits WHERE person = CAST((SELECT MAX(id) - 1 FROM "People") AS TEXT)',
    ),
    "outer": (
        "SELECT p.id FROM People AS p WHERE EXISTS(SELECT 1 FROM visits AS v WHERE v.person = p.id)",
        'SELECT p.id FROM "People" AS p WHERE EXISTS(SELECT 1 FROM visits AS v WHERE v.person = CAST(p.id AS TEXT))',
    ),
    "a query's own name": (
        "WITH visits AS (SELECT id AS person FROM People) SELECT person FROM visits WHERE person = 1",
        'WITH visits AS (SELECT id AS person FROM "People") SELECT person FROM visits WHERE person = 1',
    ),
    "through a named query": (
        "WITH c AS (SELECT Age, id FROM People) SELECT c.Age FROM c WHERE c.Age = 30",
        'WITH c AS (SELECT "Age", id FROM "People") SELECT c."Age" FROM c WHERE c."Age" = 30',
    ),
    "through a derived table": (
        "SELECT MAX(Age) FROM (SELECT Age FROM People) AS d1",
        'SELECT MAX("Age") FROM (SELECT "Age" FROM "People") AS d1',
    ),
    "by an alias": (
        "SELECT Age AS Id FROM People WHERE Age > 1 ORDER BY Id",
        'SELECT "Age" AS "Id" FROM "People" WHERE "Age" > 1 ORDER BY "Id" NULLS FIRST',
    ),
    "arms in order": (
        "SELECT Age FROM People UNION SELECT rooms FROM visits ORDER BY Age",
        'SELECT "Age" FROM "People" UNION SELECT rooms FROM visits ORDER BY "Age" NULLS FIRST',
    ),
    "alias in a condition": (
        "SELECT nights, COUNT(*) AS n FROM visits GROUP BY nights HAVING n > 1",
        "SELECT nights, COUNT(*) AS n FROM visits GROUP BY nights HAVING (COUNT(*)) > 1",
    ),
    "alias in a sum": (
        "SELECT nights AS x FROM visits ORDER BY x + rooms",
        "SELECT nights AS x FROM visits ORDER BY (nights) + rooms NULLS FIRST",
    ),
    "rounded": (
        "SELECT ROUND(sum, 1) FROM People WHERE sum > 0",
        'SELECT ROUND(CAST(sum AS DECIMAL), 1) FROM "People" WHERE sum > 0',
    ),
    "filtered": (
        "SELECT COUNT(*) FILTER (WHERE nights = 2) FROM visits",
        "SELECT COUNT(*) FILTER(WHERE nights = 2) FROM visits",
    ),
    "nothing to say": (
        "SELECT id FROM People WHERE Age = 30 AND code = '7'",
        """SELECT id FROM "People" WHERE "Age" = 30 AND code = '7'""",
    ),
}
DIVIDED = "SELECT nights / rooms, rooms / nights, nights * 1.0 / rooms FROM visits"


@pytest.mark.parametrize(("query", "expected"), SAID.values(), ids=SAID)
def test_said(query: str, expected: str) -> None:
    assert Served(SCHEMA, "postgres", exact=True).write(query) == expected


def test_integers_divide_to_integers() -> None:
    written = {
        dialect: Served(SCHEMA, dialect, exact=True).write(DIVIDED) for dialect in ("postgres", "mysql", "duckdb")
    }
    assert "nights / NULLIF(rooms, 0)" in written["postgres"]
    assert "nights DIV rooms" in written["mysql"] and "nights // rooms" in written["duckdb"]
    assert "DIV" not in Served(SCHEMA, "mysql", exact=True).write("SELECT sum / Age FROM People")


def test_names_of_a_sqlite_database_stay_as_they_are() -> None:
    assert Served(SCHEMA, "postgres", exact=False).write("SELECT Age FROM People") == "SELECT Age FROM People"


@pytest.fixture(scope="module", params=["postgres", "duckdb", "mysql"])
def running(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if reason := missing(request.param):
        pytest.skip(reason)
    with engine(request.param) as found:
        found.create(SCHEMA)
        names = {"postgres": '"People"', "duckdb": '"People"', "mysql": "`People`"}
        found.fill("visits", ROWS["visits"])
        truth = {1: True, 0: False, None: None}
        found.fill(names[found.dialect], [(*row[:3], truth[row[3]], row[4]) for row in ROWS["People"]])
        yield found


@pytest.mark.parametrize("query", [*(query for query, _ in SAID.values()), DIVIDED], ids=[*SAID, "divided"])
def test_servers_give_the_rows_of_sqlite(running: Engine, query: str) -> None:
    with closing(sqlite3.connect(":memory:")) as lite:
        for table in SCHEMA.tables:
            columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
            lite.execute(f"CREATE TABLE {table.name} ({columns})")
            lite.executemany(
                f"INSERT INTO {table.name} VALUES ({', '.join('?' * len(table.columns))})", ROWS[table.name]
            )
        expected = lite.execute(query).fetchall()
    assert expected
    written = Served(SCHEMA, running.dialect, exact=True).write(query)
    assert bag(running.rows(written)) == bag(expected)


def bag(rows: list[tuple[Any, ...]]) -> Counter[tuple[float | None, ...]]:
    return Counter(tuple(None if cell is None else round(float(cell), 3) for cell in row) for row in rows)


def test_a_doubt_says_where() -> None:
    served = Served(SCHEMA, "postgres", exact=True)
    assert served.doubt('SELECT id FROM "People" WHERE "Age" = 30') == ""
    assert 'stops after \'FROM "People" GROUP BY () SELECT SUM("People".' in served.doubt(
        'SELECT SUM(code) FROM "People"'
    )
    assert "no column" in served.doubt("SELECT nothing FROM visits")


def test_moments_are_no_doubt() -> None:
    served = Served(Schema((Table("t", (Column("a", "timestamp"), Column("b", "timestamp"))),)), "postgres", exact=True)
    for written in ("2024-01-01", "2024-01-01 10:00", "2024-01-01T10:00:00Z"):
        assert served.doubt(f"SELECT a FROM t WHERE a < '{written}'") == ""
    assert "stops after" in served.doubt("SELECT a FROM t WHERE a < 'yesterday noon'")
    # an interval to PostgreSQL
    assert "stops after" in served.doubt("SELECT a FROM t WHERE a - b > 3")


@pytest.mark.parametrize("query", ["", "SELECT 'x", "SELECT * FROM", "(" * 3000, "SELECT ROUND(sum, 1) FROM visits"])
def test_what_cannot_be_read_is_a_doubt(query: str) -> None:
    assert Served(SCHEMA, "postgres", exact=True).doubt(query)
