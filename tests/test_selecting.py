"""SELECT first over pointers: FROM brings what was named, whatever it was, and nothing else may be named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from grammar_cases import VOCABULARY, accepts, encode
from test_binding import TEMPLATE, realised
from test_pointing import VALUES, schema

from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.sample import sample
from experts.sql import fromfirst, pointers, prepare
from experts.sql.binding import Column, PointerBinding, SqlBinding, Table
from experts.sql.corpora import spider
from experts.sql.linking import link
from experts.sql.plugin import SqlQuestion, SqlTask
from experts.sql.selecting import SelectingBinding

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def selecting(scoped: SqlBinding) -> SelectingBinding:
    assert isinstance(scoped.surface, PointerBinding)
    return SelectingBinding(scoped.surface)


def shop() -> SelectingBinding:
    """``<t0>``-``<t1>``-``<t2>`` in a row, joined by c1 = c2 and c3 = c4, and ``<t3>`` alone."""
    tables = [
        Table("a", (Column("x", "c0"), Column("y", "c1")), "t0"),
        Table("b", (Column("x", "c2"), Column("y", "c3")), "t1"),
        Table("c", (Column("x", "c4"), Column("y", "c5")), "t2"),
        Table("d", (Column("x", "c6"),), "t3"),
    ]
    edges = [(("a", "y"), ("b", "x")), (("b", "y"), ("c", "x"))]
    return selecting(SqlBinding(tables, edges, VALUES[:2], "pointers"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("SELECT * FROM<t3>", True),
        ("SELECT<c0> FROM<t0> WHERE<c1> =<v1>", True),
        ("SELECT<c0> FROM<t1>", False),  # brings no c0
        ("SELECT<c0> FROM<t1> JOIN<t0> ON<c2> =<c1>", True),
        ("SELECT<c0> FROM<t3>", False),
        ("SELECT<c0>,<c6> FROM<t0>", False),  # no joins lead from a to d
        ("SELECT<c0>,<c5> FROM<t0> JOIN<t1> ON<c1> =<c2>", False),  # not all of it yet
        ("SELECT<c0>,<c5> FROM<t0> JOIN<t1> ON<c1> =<c2> JOIN<t2> ON<c3> =<c4>", True),
        ("SELECT COUNT(*), MAX(<c5>) FROM<t1> JOIN<t2> ON<c3> =<c4> GROUP BY<c2>", True),
        ("SELECT MAX(<c5>) FROM<t1>", False),
        ("SELECT<c0> FROM<t0> WHERE<c4> = 1", False),
        ("SELECT<c0> FROM<t0> WHERE<c1> IN (SELECT<c2> FROM<t1>)", True),
        ("SELECT<c0> FROM<t0> WHERE<c1> IN (SELECT<c2> FROM<t0>)", False),
        ("SELECT<c0> FROM<t0> WHERE<c1> > (SELECT AVG(<c6>) FROM<t3>) AND<c0> = 1", True),
        ("SELECT<c0> FROM<t0> WHERE<c1> > (SELECT AVG(<c6>) FROM<t3>) AND<c6> = 1", False),
        ("SELECT<c0> FROM<t0> WHERE EXISTS (SELECT * FROM<t3>)", True),
        ("SELECT<c0> FROM<t0> UNION SELECT<c6> FROM<t3>", True),
        ("SELECT<c0> FROM<t0> UNION SELECT<c6> FROM<t0>", False),
        ("SELECT<c0> FROM<t0> UNION SELECT<c6>,<c6> FROM<t3>", False),
        ("FROM<t0> SELECT<c0>", False),
    ],
)
def test_verdicts(line: str, expected: bool) -> None:
    assert accepts(Matcher(VOCABULARY, TEMPLATE, shop()), encode(line)) == expected


def test_every_sample_passes_explain() -> None:
    draw, finished, joined, nested = Random(4), 0, 0, 0
    for _ in range(80):
        scoped = schema(draw)
        assert isinstance(scoped.surface, PointerBinding)
        tables = scoped.surface.tables
        matcher = Matcher(VOCABULARY, TEMPLATE, selecting(scoped))
        with closing(sqlite3.connect(":memory:")) as copy:
            for table in tables:
                copy.execute(f"CREATE TABLE {table.name} ({', '.join(column.name for column in table.columns)})")
            for _ in range(20):
                text = sample(matcher.fork(), draw, most=400)
                if text is None:
                    continue
                finished, joined = finished + 1, joined + (" JOIN" in text)
                nested += "(SELECT" in text
                literals = {f"v{place}": "7" for place in range(6)}
                copy.execute("EXPLAIN " + realised(text, tables, literals))
    assert finished > 700
    assert joined > 60
    assert nested > 10


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data is not beside the repository")
def test_both_orders_say_the_same_and_what_is_trained_can_be_written() -> None:
    compared = 0
    found = spider.pairs(DATA / "spider_train" / "train_spider.json", DATA / "spider" / "database", "question", ())
    for place, pair in islice(enumerate(found), 0, 1200, 5):
        one, other = (prepare.render(pair, surface, Random(place)) for surface in ("pointers", "pointers-select"))
        if one is None or other is None:
            assert one is other
            continue
        linked = link(pair.question, pair.schema)
        assert one.messages == other.messages
        try:
            first, second = (pointers.point(pair.query, linked, select_first=order) for order in (False, True))
        except pointers.Unreachable:
            continue
        assert (first.startswith("FROM"), second.startswith("SELECT")) == (True, True)
        assert fromfirst.read(pointers.realise(first, linked)) == fromfirst.read(pointers.realise(second, linked))
        compared += 1
    assert compared > 180


def test_the_surface_of_the_base_decides(tmp_path: Path) -> None:
    file = tmp_path / "shop.sql"
    file.write_text("CREATE TABLE item (id INTEGER, name TEXT);")
    context = SqlTask().open(file)
    question = context.question("item names", surface="pointers-select")
    assert isinstance(question, SqlQuestion)
    assert isinstance(question.binding(), SelectingBinding)
    columns = {column: number for number, (_, column) in enumerate(question.linked.columns)}
    assert question.check(f"SELECT<c{columns['name']}> FROM<t0>").output == "SELECT name FROM item"
