"""The sample shop: the same on every build, consistent in itself, and every question's gold has an answer."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from expert_cli import paths
from expert_cli.task import Limits
from experts.sql.execute import Worker, open_database
from experts.sql.sample import build

FOLDER = paths.packaged("sample")
QUESTIONS = [json.loads(line) for line in (FOLDER / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
SOUND = {
    "totals are the sums of the items": "SELECT COUNT(*) FROM orders o WHERE ABS(total - "
    "(SELECT SUM(quantity * price) FROM order_items WHERE order_id = o.id)) > 0.001",
    "orders follow the sign-up": "SELECT COUNT(*) FROM orders o JOIN customers c ON c.id = customer_id WHERE order_date < signup_date",
    "shipments follow the order": "SELECT COUNT(*) FROM shipments JOIN orders o ON o.id = order_id "
    "WHERE shipped_date <= order_date OR delivered_date <= shipped_date",
    "what is delivered was shipped": "SELECT COUNT(*) FROM orders WHERE status = 'delivered' AND id NOT IN "
    "(SELECT order_id FROM shipments WHERE delivered_date IS NOT NULL)",
    "reviewers ordered the product": "SELECT COUNT(*) FROM reviews r WHERE NOT EXISTS (SELECT 1 FROM orders o "
    "JOIN order_items i ON i.order_id = o.id WHERE o.customer_id = r.customer_id AND i.product_id = r.product_id)",
    "names are unique": "SELECT COUNT(*) - COUNT(DISTINCT name) FROM products",
}


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker(open_database(FOLDER / "shop.sqlite")) as started:
        yield started


def test_what_ships_is_what_the_builder_makes(tmp_path: Path) -> None:
    path = build(tmp_path)
    assert dump(path) == dump(FOLDER / "shop.sqlite")
    assert (tmp_path / "shop.sql").read_text() == (FOLDER / "shop.sql").read_text()
    assert build(tmp_path).read_bytes() == build(tmp_path / "again").read_bytes()


def test_size() -> None:
    with closing(sqlite3.connect(FOLDER / "shop.sqlite")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert sum(db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables) >= 1000
    assert len(tables) >= 6
    assert (FOLDER / "shop.sqlite").stat().st_size < 400_000


@pytest.mark.parametrize("claim", SOUND)
def test_the_data_agree(worker: Worker, claim: str) -> None:
    assert worker.run(SOUND[claim], Limits()).rows == ((0,),)


@pytest.mark.parametrize("case", QUESTIONS, ids=lambda case: case["id"])
def test_every_gold_has_an_answer(worker: Worker, case: dict[str, object]) -> None:
    gold = case["gold"]
    for sql in gold if isinstance(gold, list) else [gold]:
        result = worker.run(sql, Limits())
        assert result.rows
        assert any(value is not None and value != 0 for row in result.rows for value in row)


def test_questions_are_cases() -> None:
    assert len(QUESTIONS) >= 30
    assert len({case["id"] for case in QUESTIONS}) == len({case["question"] for case in QUESTIONS}) == len(QUESTIONS)
    assert all(case.keys() == {"id", "question", "db", "gold"} for case in QUESTIONS)
    assert {case["db"] for case in QUESTIONS} == {"shop.sqlite"}
