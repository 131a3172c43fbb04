"""Generated questions: each says what its query does, and the pointer language can say it."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from contextlib import closing
from random import Random

import pytest
from sqlglot import exp

from expert_cli import paths
from expert_cli.errors import ContextError
from experts.sql import fromfirst, phrases, synthetic
from experts.sql.corpora import Pair
from experts.sql.phrases import Draft
from experts.sql.prepare import render
from experts.sql.schema import Schema, from_ddl, read_sqlite

SHOP = paths.packaged("sample") / "shop.sqlite"


@pytest.fixture(scope="module")
def shop() -> Schema:
    return read_sqlite(SHOP)


@pytest.fixture(scope="module")
def pairs(shop: Schema) -> list[Pair]:
    return list(synthetic.generate([shop], 400, Random(4)))


def test_a_seed_gives_the_same_pairs(shop: Schema, pairs: list[Pair]) -> None:
    def said(seed: int) -> list[tuple[str, str]]:
        return [(pair.question, fromfirst.write(pair.query)) for pair in synthetic.generate([shop], 50, Random(seed))]

    assert said(4) == [(pair.question, fromfirst.write(pair.query)) for pair in pairs[:50]]
    assert said(4) != said(5)
    assert len({pair.id for pair in pairs}) == len(pairs)


def test_every_query_runs(pairs: list[Pair]) -> None:
    with closing(sqlite3.connect(SHOP.as_uri() + "?mode=ro", uri=True)) as database:
        for pair in pairs:
            database.execute("EXPLAIN " + fromfirst.read(fromfirst.write(pair.query)))


def test_every_kind_occurs(pairs: list[Pair]) -> None:
    seen = Counter(kind.__name__ for pair in pairs for kind in map(type, pair.query.walk()))
    wanted = (exp.Join, exp.Group, exp.Having, exp.Order, exp.Limit, exp.Subquery, exp.Distinct, exp.Like, exp.Between)
    assert min(seen[kind.__name__] for kind in wanted) >= 5
    assert seen["Intersect"] + seen["Except"] + seen["Union"] >= 5


def test_pointers_can_say_them(pairs: list[Pair]) -> None:
    """Literals are in the sentence and joins along keys, so that only a few are lost to linking."""
    rendered = [render(pair, "pointers", Random(1)) for pair in pairs]
    assert sum(example is not None for example in rendered) >= 0.85 * len(pairs)


def test_sentence_and_query_hold_the_same_numbers(pairs: list[Pair]) -> None:
    for pair in pairs:
        numbers = {node.name for node in pair.query.find_all(exp.Literal) if not node.is_string}
        assert {number for number in numbers if number != "1"} <= set(
            pair.question.replace("?", " ").replace(".", " ").split()
        )


def test_superlatives_say_the_order(pairs: list[Pair]) -> None:
    """ "with the highest x" is the first row by x downwards, "with the lowest x" upwards."""
    found = Counter[bool]()
    for pair in pairs:
        match = re.search(r" (?:with|has) the (\w+) ", pair.question.lower())
        order = pair.query.args.get("order")
        if match and match[1] in {*synthetic.HIGHEST, *synthetic.LOWEST} and not pair.query.args.get("group"):
            assert order, pair.question
            assert pair.query.args.get("limit"), pair.question
            down = bool(order.expressions[0].args.get("desc"))
            assert down == (match[1] in synthetic.HIGHEST), pair.question
            found[down] += 1
    assert min(found[True], found[False]) >= 5


NUMBERS = from_ddl("CREATE TABLE t (a REAL)")
QUOTES = from_ddl(
    """CREATE TABLE "it's" ("a ""b" TEXT); INSERT INTO "it's" VALUES ('o''clock'), ('%'), ('two  words')"""
)


@pytest.mark.parametrize("schema", [NUMBERS, QUOTES, from_ddl("CREATE TABLE t (id INTEGER PRIMARY KEY)")])
def test_small_and_odd_schemas(schema: Schema) -> None:
    pairs = list(synthetic.generate([schema], 40, Random(1)))
    assert len(pairs) == 40
    for pair in pairs:
        assert fromfirst.read(fromfirst.write(pair.query))


def test_no_schemas() -> None:
    with pytest.raises(ContextError, match="no schemas"):
        next(synthetic.generate([], 1, Random(1)))


def test_joins_follow_keys_and_end(shop: Schema) -> None:
    edges = {frozenset(edge) for edge in shop.edges}
    for seed in range(30):
        draft = Draft(shop, Random(seed), "orders")
        draft.join(1.0)
        draft.join(1.0)
        assert len(set(draft.tables)) == len(draft.tables) == len(draft.joins) + 1 <= 4
        query = fromfirst.canonical(f"SELECT * FROM {draft.source()}", shop)
        for join in query.find_all(exp.Join):
            on = join.args["on"]
            assert frozenset((side.table.lower(), side.name.lower()) for side in (on.this, on.expression)) in edges


@pytest.mark.parametrize(("said", "expected"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_listed(said: list[str], expected: str) -> None:
    assert phrases.listed(said) == expected


def test_words_of_a_name() -> None:
    assert {phrases.words("orderDate", Random(seed)) for seed in range(40)} == {"order date", "order", "date"}
    assert {phrases.words("ID", Random(seed)) for seed in range(40)} == {"id"}
    assert {phrases.things("order_item", Random(seed)) for seed in range(99)} == {
        *("order item", "order items", "order", "orders", "item", "items")
    }
