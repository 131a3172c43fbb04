"""Mutated copies: luck fails on them, equal queries stay equal, and the data stay whole."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from expert_cli import paths
from expert_cli.errors import ContextError
from experts.sql.execute import QueryError, Worker
from experts.sql.score import GoldError, cut_in_a_tie, score
from experts.sql.suite import copies, literals, score_suite

SHOP = paths.packaged("sample") / "shop.sqlite"
QUESTIONS = [json.loads(line) for line in SHOP.with_name("questions.jsonl").read_text(encoding="utf-8").splitlines()]
GOLDS = [sql for case in QUESTIONS for sql in ([case["gold"]] if isinstance(case["gold"], str) else case["gold"])]

LUCKY = [
    ("SELECT 120", "SELECT COUNT(*) FROM customers"),
    ("SELECT COUNT(*) FROM orders WHERE status = 'cancelled'", "SELECT COUNT(*) FROM orders WHERE status = 'pending'"),
    ("SELECT name FROM products WHERE price > 500", "SELECT name FROM products ORDER BY price DESC LIMIT 1"),
    ("SELECT name FROM products WHERE price >= 100", "SELECT name FROM products WHERE price > 110"),
    ("SELECT COUNT(*) FROM customers WHERE age > 19", "SELECT COUNT(*) FROM customers WHERE age > 20"),
    ("SELECT MAX(rating) FROM reviews", "SELECT COUNT(DISTINCT status) FROM orders"),
    ("SELECT COUNT(*) FROM products WHERE stock < 5", "SELECT COUNT(*) FROM products WHERE stock = 0"),
    ("SELECT COUNT(DISTINCT rating) FROM reviews", "SELECT MAX(rating) FROM reviews"),
]
EQUAL = [
    ("SELECT name FROM customers WHERE NOT city <> 'Berlin'", "SELECT name FROM customers WHERE city = 'Berlin'"),
    (
        "SELECT name FROM products WHERE price = (SELECT MAX(price) FROM products)",
        "SELECT name FROM products ORDER BY price DESC LIMIT 1",
    ),
    ("SELECT AVG(price) FROM products", "SELECT SUM(price) / COUNT(*) FROM products"),
    (
        "SELECT c.name, COUNT(*) FROM orders o, customers c WHERE o.customer_id = c.id GROUP BY c.name",
        "SELECT customers.name, COUNT(*) FROM customers JOIN orders ON orders.customer_id = customers.id GROUP BY customers.id",
    ),
    (
        "SELECT customers.name FROM customers LEFT JOIN orders ON orders.customer_id = customers.id WHERE orders.id IS NULL",
        "SELECT name FROM customers WHERE id NOT IN (SELECT customer_id FROM orders)",
    ),
    (
        "SELECT country FROM customers WHERE country IN (SELECT country FROM suppliers) GROUP BY country",
        "SELECT country FROM customers INTERSECT SELECT country FROM suppliers",
    ),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    queries = [*GOLDS, *(gold for _, gold in [*LUCKY, *EQUAL])]
    return copies(SHOP, queries, tmp_path_factory.mktemp("copies"))


@pytest.fixture(scope="module")
def workers(made: list[Path]) -> Iterator[list[Worker]]:
    started = [Worker(path) for path in (SHOP, *made)]
    yield started
    for worker in started:
        worker.close()


@pytest.mark.parametrize(("predicted", "gold"), LUCKY)
def test_luck_fails(workers: list[Worker], predicted: str, gold: str) -> None:
    match = score_suite(workers, predicted, [gold])
    assert not match.correct
    if score(workers[0], predicted, [gold]).correct:
        assert match.reason.startswith("matches by luck: on copy ")


def test_most_of_the_lucky_matches_are_lucky(workers: list[Worker]) -> None:
    assert sum(score(workers[0], predicted, [gold]).correct for predicted, gold in LUCKY) >= 6


@pytest.mark.parametrize(("predicted", "gold"), EQUAL)
def test_equal_queries_stay_equal(workers: list[Worker], predicted: str, gold: str) -> None:
    assert score_suite(workers, predicted, [gold]).correct


@pytest.mark.parametrize("gold", GOLDS)
def test_every_gold_matches_itself(workers: list[Worker], gold: str) -> None:
    assert score_suite(workers, gold, [gold]).correct


def test_a_gold_that_does_not_run(workers: list[Worker]) -> None:
    with pytest.raises(GoldError):
        score_suite(workers, "SELECT 1", ["SELECT nonsense"])


def test_copies_differ_and_stay_whole(made: list[Path]) -> None:
    counts, homes = set(), set()
    for path in made:
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert db.execute("SELECT COUNT(*) - COUNT(DISTINCT name) FROM products").fetchone() == (0,)
            assert db.execute("SELECT COUNT(*) FROM customers WHERE city = 'Berlin'").fetchone() > (0,)
            customers, reviews = db.execute(
                "SELECT (SELECT COUNT(*) FROM customers), (SELECT COUNT(*) FROM reviews)"
            ).fetchone()
            assert 120 < customers < 150
            assert 100 < reviews < 200
            counts.add((customers, reviews))
            homes.add(db.execute("SELECT GROUP_CONCAT(city) FROM customers WHERE id <= 120").fetchone())
    assert len(counts) == len(homes) == 3


def test_copies_are_the_same_each_time(made: list[Path], tmp_path: Path) -> None:
    queries = [*GOLDS, *(gold for _, gold in [*LUCKY, *EQUAL])]
    for first, again in zip(made, copies(SHOP, queries, tmp_path), strict=True):
        with closing(sqlite3.connect(first)) as one, closing(sqlite3.connect(again)) as two:
            assert list(one.iterdump()) == list(two.iterdump())


def test_awkward_tables(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            """
            CREATE TABLE "my ""t" ("a b" TEXT, "select" INTEGER, UNIQUE ("a b", "select"));
            INSERT INTO "my ""t" VALUES ('x', 1), ('x', 2), ('y', 1), (CAST(x'61ff' AS TEXT), 3);
            CREATE TABLE pair (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
            INSERT INTO pair VALUES (1, 2);
            CREATE TABLE made (a INTEGER CHECK (a > 0), b AS (a * 2), c BLOB);
            INSERT INTO made (a, c) VALUES (1, x'00ff'), (2, NULL);
            CREATE TABLE empty (a);
            CREATE TRIGGER t AFTER UPDATE ON made BEGIN DELETE FROM pair; END;
            CREATE VIRTUAL TABLE search USING fts5(body);
            INSERT INTO search VALUES ('hello');
            CREATE VIEW seen AS SELECT a FROM made;
            """
        )
        before = path.read_bytes()
    for made in copies(path, ["SELECT 1 FROM made WHERE a > 7", "not sql at all ("], tmp_path / "out"):
        with closing(sqlite3.connect(made)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert db.execute("SELECT COUNT(*) FROM pair").fetchone() == (1,)
            assert db.execute("SELECT body FROM search WHERE search MATCH 'hello'").fetchall() == [("hello",)]
    assert path.read_bytes() == before
    with pytest.raises(ContextError, match="cannot copy"):
        copies(tmp_path / "gone.db", [], tmp_path / "out")


def test_references_that_lead_nowhere_are_mended(tmp_path: Path) -> None:
    path = tmp_path / "dirty.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            """
            CREATE TABLE port (code TEXT PRIMARY KEY, city TEXT);
            INSERT INTO port VALUES ('APG', 'Aberdeen'), ('ATO', 'Athens');
            CREATE TABLE flight (number INTEGER, start TEXT REFERENCES port (code));
            INSERT INTO flight VALUES (1, ' APG'), (2, ' ATO'), (3, ' APG'), (4, NULL), (5, ' ATO'), (6, ' APG');
            """
        )
    for made in copies(path, [], tmp_path / "out"):
        with closing(sqlite3.connect(made)) as db:
            joined = db.execute("SELECT COUNT(*) FROM flight JOIN port ON start = code").fetchone()
            assert joined == db.execute("SELECT COUNT(start) FROM flight").fetchone() > (0,)


def test_literals() -> None:
    queries = [
        "SELECT * FROM t WHERE a = 5 AND t.B LIKE '%x%' AND c BETWEEN 1 AND 2.5",
        "SELECT * FROM t WHERE b IN ('p', 'q') AND d = \"France\" AND a > (SELECT MAX(e) FROM u WHERE f <> 3)",
        "SELECT FROM",
    ]
    assert literals(queries) == {"a": [5], "b": ["p", "q", "x"], "c": [1, 2.5], "d": ["France"], "f": [3]}


@pytest.mark.parametrize(
    ("sql", "cut"),
    [
        ("SELECT name FROM customers ORDER BY country LIMIT 1", True),
        ("SELECT name FROM customers ORDER BY id LIMIT 1", False),
        ("SELECT name FROM customers ORDER BY country LIMIT 1000", False),
        ("SELECT name FROM customers ORDER BY country", False),
        ("SELECT status FROM orders GROUP BY status ORDER BY COUNT(*) LIMIT 1", False),
        ("SELECT status FROM orders GROUP BY status ORDER BY COUNT(*) DESC LIMIT 3", True),
    ],
)
def test_cut_in_a_tie(workers: list[Worker], sql: str, cut: bool) -> None:
    assert cut_in_a_tie(workers[0], sql) is cut


def test_a_copy_with_a_tie_at_the_limit_decides_nothing(tmp_path: Path) -> None:
    gold, other = (
        "SELECT name FROM p ORDER BY points DESC LIMIT 1",
        "SELECT name FROM p ORDER BY points DESC, name DESC LIMIT 1",
    )
    paths = [tmp_path / "clear.db", tmp_path / "tie.db"]
    for path, points in zip(paths, (3, 7), strict=True):
        with closing(sqlite3.connect(path)) as db:
            db.executescript(f"CREATE TABLE p (name, points); INSERT INTO p VALUES ('ann', 7), ('bob', {points})")
    with Worker(paths[0]) as clear, Worker(paths[1]) as tie:
        assert not score(tie, other, [gold]).correct
        assert score_suite([clear, tie], other, [gold]).correct


def test_cut_in_a_tie_needs_a_query_that_runs(workers: list[Worker]) -> None:
    with pytest.raises(QueryError):
        cut_in_a_tie(workers[0], "SELECT gone FROM customers ORDER BY 1 LIMIT 1")
