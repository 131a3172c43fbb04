"""Execution match: which answers count as the gold's, on a real database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from expert_cli.task import Limits
from experts.sql.execute import Worker
from experts.sql.score import GoldError, Match, reference, score

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c"
SCHEMA = """
CREATE TABLE p (id INTEGER, name TEXT, team TEXT, points INTEGER, rate REAL, note TEXT);
INSERT INTO p VALUES (1, 'ann', 'red', 5, 0.1, NULL), (2, 'bob', 'red', 7, 0.2, ''), (3, 'cat', 'blue', 7, 0.3, '0'),
                     (4, 'dan', 'blue', 2, 0.7, 'x'), (5, 'ann', 'green', 5, 1000000.0, 'x');
CREATE TABLE two (a, b, c, d, e, f, g, h, i);
INSERT INTO two WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x < 255)
  SELECT x & 1, x >> 1 & 1, x >> 2 & 1, x >> 3 & 1, x >> 4 & 1, x >> 5 & 1, x >> 6 & 1, x >> 7 & 1, 1 FROM n;
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    path = tmp_path_factory.mktemp("data") / "teams.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(SCHEMA)
    with Worker(Path(path)) as started:
        yield started


CASES = [
    # the same query, and the same rows in another order
    ("SELECT name FROM p", "SELECT name FROM p", Match(True)),
    ("SELECT name FROM p ORDER BY id DESC", "SELECT name FROM p", Match(True)),
    # duplicates count
    ("SELECT DISTINCT name FROM p", "SELECT name FROM p", Match(False, "4 rows instead of 5")),
    (
        "SELECT name FROM p WHERE id < 3 UNION ALL SELECT 'bob'",
        "SELECT name FROM p WHERE id < 3 UNION ALL SELECT 'ann'",
        Match(False, "other values"),
    ),
    # order counts where the gold orders, except among ties
    ("SELECT name FROM p ORDER BY points, id", "SELECT name FROM p ORDER BY points", Match(True)),
    ("SELECT name FROM p ORDER BY points, id DESC", "SELECT name FROM p ORDER BY points", Match(True)),
    ("SELECT name FROM p ORDER BY id", "SELECT name FROM p ORDER BY points", Match(False, "rows in another order")),
    (
        "SELECT name FROM p ORDER BY points DESC",
        "SELECT name FROM p ORDER BY points",
        Match(False, "rows in another order"),
    ),
    (
        "SELECT team, COUNT(*) FROM p GROUP BY team ORDER BY 2, team",
        "SELECT team, COUNT(*) FROM p GROUP BY team ORDER BY COUNT(*)",
        Match(True),
    ),
    (
        "SELECT team, COUNT(*) FROM p GROUP BY team ORDER BY team DESC",
        "SELECT team, COUNT(*) AS n FROM p GROUP BY team ORDER BY n",
        Match(False, "rows in another order"),
    ),
    (
        "SELECT DISTINCT team FROM p ORDER BY team DESC",
        "SELECT DISTINCT team FROM p ORDER BY team",
        Match(False, "rows in another order"),
    ),
    (
        "SELECT team FROM p UNION SELECT name FROM p ORDER BY 1 DESC",
        "SELECT team FROM p UNION SELECT name FROM p ORDER BY 1",
        Match(False, "rows in another order"),
    ),
    ("SELECT * FROM p ORDER BY id", "SELECT * FROM p ORDER BY points, id DESC", Match(False, "rows in another order")),
    ("SELECT * FROM p ORDER BY team", "SELECT * FROM p ORDER BY team DESC", Match(False, "rows in another order")),
    ("SELECT * FROM p ORDER BY points, name, id DESC", "SELECT * FROM p ORDER BY points, p.name", Match(True)),
    # only the outermost ORDER BY
    ("SELECT name FROM p ORDER BY id DESC", "SELECT name FROM (SELECT * FROM p ORDER BY points)", Match(True)),
    (
        "SELECT name FROM p WHERE id IN (1, 2) ORDER BY id DESC",
        "SELECT name FROM p WHERE id IN (SELECT id FROM p ORDER BY id LIMIT 2)",
        Match(True),
    ),
    # columns
    ("SELECT name, team FROM p", "SELECT name FROM p", Match(False, "2 columns instead of 1")),
    ("SELECT team, name FROM p", "SELECT name, team FROM p", Match(False, "columns in another order", permuted=True)),
    (
        "SELECT points, name, id FROM p",
        "SELECT id, points, name FROM p",
        Match(False, "columns in another order", permuted=True),
    ),
    ("SELECT team, id FROM p", "SELECT name, id FROM p", Match(False, "other values")),
    ("SELECT name AS other FROM p", "SELECT name FROM p", Match(True)),
    # values
    ("SELECT 0.1 + 0.2", "SELECT 0.3", Match(True)),
    ("SELECT 3", "SELECT 3.0", Match(True)),
    ("SELECT 0.004", "SELECT 0.009", Match(False, "other values")),
    ("SELECT 1000000.5", "SELECT 1000000.0", Match(True)),
    ("SELECT 1000002.0", "SELECT 1000000.0", Match(False, "other values")),
    ("SELECT 1e999", "SELECT 1e999", Match(True)),
    ("SELECT 1e999", "SELECT 1.7e308", Match(False, "other values")),
    ("SELECT NULL", "SELECT NULL", Match(True)),
    ("SELECT 0", "SELECT NULL", Match(False, "other values")),
    ("SELECT ''", "SELECT NULL", Match(False, "other values")),
    ("SELECT '5'", "SELECT 5", Match(False, "other values")),
    ("SELECT x'61'", "SELECT 'a'", Match(False, "other values")),
    ("SELECT 'Ann'", "SELECT 'ann'", Match(False, "other values")),
    ("SELECT rate * 1.0000000001, points FROM p ORDER BY id DESC", "SELECT rate, points FROM p", Match(True)),
    # empty results
    ("SELECT name FROM p WHERE id > 9", "SELECT name FROM p WHERE team = 'none'", Match(True, both_empty=True)),
    (
        "SELECT name, id FROM p WHERE id > 9",
        "SELECT name FROM p WHERE id > 9",
        Match(False, "2 columns instead of 1", both_empty=True),
    ),
    ("SELECT name FROM p", "SELECT name FROM p WHERE id > 9", Match(False, "5 rows instead of 0")),
]


@pytest.mark.parametrize(("predicted", "gold", "match"), CASES)
def test_match(worker: Worker, predicted: str, gold: str, match: Match) -> None:
    assert score(worker, predicted, [gold]) == match


def test_several_golds(worker: Worker) -> None:
    golds = ["SELECT nonsense", "SELECT team, name FROM p", "SELECT name FROM p"]
    assert score(worker, "SELECT name FROM p", golds) == Match(True)
    assert score(worker, "SELECT name, team FROM p", golds) == Match(False, "columns in another order", permuted=True)


@pytest.mark.parametrize(
    ("gold", "words"),
    [
        ([], "there is none"),
        (["SELECT nonsense"], "no such column: nonsense"),
        (["DELETE FROM p"], "not authorized"),
        ([ENDLESS], r"stopped after 0\.3 s"),
        (["SELECT * FROM p, p a, p b"], "more than 100 rows"),
    ],
)
def test_a_gold_that_does_not_run(worker: Worker, gold: list[str], words: str) -> None:
    with pytest.raises(GoldError, match=words + ".*; correct the case"):
        score(worker, "SELECT name FROM p", gold, Limits(seconds=0.3, rows=100))


@pytest.mark.parametrize(
    ("predicted", "words"),
    [
        ("SELECT nonsense FROM p", "no such column"),
        ("DELETE FROM p", "not authorized"),
        (ENDLESS, "timed out after 0.3 s"),
        ("SELECT a.id FROM p a, p b, p c", "returns more than 100 rows"),
    ],
)
def test_a_prediction_that_does_not_run_is_wrong(worker: Worker, predicted: str, words: str) -> None:
    match = score(worker, predicted, ["SELECT id FROM p"], Limits(seconds=0.3, rows=100))
    assert not match.correct
    assert words in match.reason


def test_gold_may_use_any_function(worker: Worker) -> None:
    assert score(worker, "SELECT '0000'", ["SELECT hex(zeroblob(2))"]).correct


@pytest.mark.parametrize(
    ("gold", "ties"),
    [
        ("SELECT name FROM p", None),
        ("SELECT name FROM p ORDER BY points", (1, 2, 2)),
        ("SELECT name FROM p ORDER BY points DESC, team LIMIT 3", (1, 1, 1)),
        ("SELECT name, points FROM p ORDER BY points LIMIT 2", (1, 1)),
        ("SELECT team FROM p GROUP BY team ORDER BY COUNT(*) DESC", (2, 1)),
        ("SELECT points FROM p UNION ALL SELECT 7 ORDER BY points", (1, 2, 3)),
        ("SELECT DISTINCT team FROM p ORDER BY points", (1, 1, 1)),
        ("WITH q AS (SELECT * FROM p ORDER BY id) SELECT name FROM q", None),
        ("WITH q AS (SELECT * FROM p) SELECT name FROM q ORDER BY points / 4", (1, 4)),
        ("SELECT name FROM p WHERE id > 9 ORDER BY id", ()),
    ],
)
def test_ties(worker: Worker, gold: str, ties: tuple[int, ...] | None) -> None:
    assert reference(worker, gold).ties == ties


def test_nine_two_valued_columns_are_quick(worker: Worker) -> None:
    begun = time.monotonic()
    assert score(worker, "SELECT i, h, g, f, e, d, c, b, a FROM two", ["SELECT * FROM two"]).permuted
    assert not score(worker, "SELECT a, b, c, d, e, f, g, 1 - i, h FROM two", ["SELECT * FROM two"]).permuted
    assert time.monotonic() - begun < 3
