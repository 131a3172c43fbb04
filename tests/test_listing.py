"""SELECT first with names written out: FROM brings what was named, and what it cannot bring is never offered."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from grammar_cases import VOCABULARY, encode
from test_binding import TEMPLATE

from expert_cli.errors import ContextError, GrammarError
from expert_cli.grammar import tokens
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.sample import sample
from expert_cli.runtime import bases
from experts.sql import prepare
from experts.sql.bringing import MOST_BROUGHT, WORDS, Catalogue, Needs
from experts.sql.corpora import spider
from experts.sql.identifiers import literal, quoted
from experts.sql.listing import ListingBinding
from experts.sql.names import NamesBinding
from experts.sql.plugin import SqlContext, SqlTask
from experts.sql.scopes import Source

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
GRAMMARS = Path(__file__).resolve().parents[1] / "grammars"

TABLES = {
    "singer": ("id", "name", "land_id", "from"),
    "land": ("id", "name", "code"),
    "concert": ("id", "singer_id", "year"),
    "concert_hall": ("hall_id", "year", "Name"),
}


CLAUSES = ("WHERE", "GROUP", "ORDER", "UNION")


def binding() -> ListingBinding:
    return ListingBinding(NamesBinding(TABLES, ["x", 7], quoted=quoted, literal=literal, free=False))


def start() -> Matcher:
    return Matcher(VOCABULARY, TEMPLATE, binding())


def refused(text: str) -> str | None:
    """What of ``text`` is accepted where it is refused, or None."""
    matcher = start()
    for token in encode(text, pointers=False):
        allowed = token in matcher.allowed()
        try:
            matcher.consume(token)
        except GrammarError:
            assert not allowed, f"the mask offers {token} after {matcher.written!r}, the parser refuses it"
            return matcher.written
        assert allowed, f"the mask hides {token} before {matcher.written!r}, the parser takes it"
    return None if matcher.complete() else matcher.written


# Where a text is refused, ⟂ stands before the first character that is.
LINES = r"""
SELECT code FROM land
SELECT code FROM land AS T1
SELECT code FROM singer⟂
SELECT code FROM singer JOIN land ON singer.land_id = land.id
SELECT land.code FROM land
SELECT land.code FROM land AS T1⟂
SELECT land.code FROM singer JOIN land ON singer.land_id = land.id
SELECT T1.code FROM land AS T1
SELECT T1.code FROM land⟂
SELECT T1.code FROM land AS T2⟂
SELECT T1.code FROM land AS T2 CROSS JOIN land AS T1
SELECT T1.code FROM singer AS T⟂1
SELECT T2.code FROM singer AS T1 JOIN land AS T2 ON T1.land_id = T2.id
SELECT T1.code, T1.n⟂o
SELECT T1.code, T1.⟂year FROM land AS T1
SELECT T1.code, T2.year FROM land AS T1 CROSS JOIN concert AS T2
SELECT s.land_id FROM singer AS s
SELECT l.⟂land_id
SELECT s.name FROM land AS ⟂s
SELECT ch.year FROM concert_hall AS ch
SELECT n⟂othing
SELECT singer.⟂code
SELECT name FROM singer
SELECT name FROM singer JOIN ⟂land ON singer.land_id = land.id
SELECT name FROM singer CROSS JOIN concert
SELECT name, code FROM land
SELECT name, land_id FROM singer
SELECT name, code, land⟂_id FROM singer
SELECT Name, hall_id FROM concert_hall
SELECT "from" FROM singer
SELECT singer."from", "from" FROM singer
SELECT ⟂from FROM singer
SELECT name, year FROM concert_hall
SELECT name, year FROM singer CROSS JOIN concert
SELECT id, year FROM concert
SELECT concert⟂ FROM concert
SELECT MAX(year), COUNT(*) FROM concert GROUP BY singer_id HAVING COUNT(*) > 1 ORDER BY COUNT(*) DESC LIMIT 1
SELECT COUNT(*) FROM singer
SELECT * FROM singer WHERE id = 7
SELECT * FROM singer UNION SELECT * FROM singer WHERE id = 7
SELECT * FROM singer UNION SELECT * FROM ⟂land
SELECT T1.* FROM singer AS T1
SELECT T1.*, code FROM land AS T1
SELECT name FROM singer WHERE ⟂code = 7
SELECT name FROM singer WHERE land⟂.code = 7
SELECT name FROM singer WHERE T⟂1.id = 1
SELECT singer.name FROM singer JOIN land ON singer.land_id = land.id WHERE code = 'x'
SELECT singer.name FROM singer JOIN land ON singer.land_id = land.id WHERE ⟂name = 'x'
SELECT singer.name FROM singer JOIN land ON land⟂_id = land.id
SELECT singer.name FROM singer JOIN land USING (id)
SELECT singer.name FROM singer JOIN concert_hall USING (⟂id)
SELECT name FROM singer WHERE id IN (SELECT singer_id FROM concert)
SELECT name FROM singer WHERE id IN (SELECT singer_id⟂, year FROM concert)
SELECT name FROM singer WHERE id IN (SELECT singer_id FROM land⟂)
SELECT name FROM singer WHERE EXISTS (SELECT 1 FROM concert WHERE singer_id = singer.id)
SELECT name FROM singer AS T1 WHERE EXISTS (SELECT 1 FROM concert AS T2 WHERE T2.singer_id = T1.id)
SELECT name FROM singer WHERE EXISTS (SELECT 1 FROM concert WHERE singer_id = singer.⟂code)
SELECT name FROM singer WHERE EXISTS (SELECT year FROM concert ORDER BY singer⟂.name)
SELECT name FROM singer WHERE EXISTS (SELECT year FROM concert GROUP BY year HAVING COUNT(*) > singer.land_id)
SELECT code FROM land WHERE id IN (SELECT id FROM singer ORDER BY (SELECT MAX(year) FROM concert WHERE singer_id = land_id))
SELECT code FROM land WHERE id IN (SELECT id FROM singer ORDER BY (SELECT MAX(year) FROM concert WHERE id = co⟂de))
SELECT name FROM singer WHERE id = (SELECT MAX(id) FROM singer) AND land_id = 7
SELECT name, (SELECT COUNT(*) FROM concert WHERE concert.singer_id = T1.id) FROM singer AS T1
SELECT name, (SELECT COUNT(*) FROM concert WHERE concert.singer_id = T1.id) FROM singer⟂
SELECT name, (SELECT COUNT(*) FROM concert WHERE concert.singer_id = singer.id) FROM concert AS T1⟂
SELECT name, (SELECT COUNT(*) FROM concert WHERE concert.singer_id = T1.land_id) FROM ⟂land AS T1
SELECT name FROM singer UNION SELECT name FROM land ORDER BY 1
SELECT name FROM singer UNION SELECT code FROM concert⟂
SELECT name FROM singer UNION SELECT name⟂, code FROM land
SELECT name, id FROM singer EXCEPT SELECT name ⟂FROM land
SELECT name FROM singer UNION SELECT name FROM land WHERE land⟂_id = 7
SELECT COUNT(*) FROM (SELECT name FROM singer INTERSECT SELECT name FROM land) AS d1
SELECT AVG(d1.x1) FROM (SELECT COUNT(*) AS x1 FROM concert GROUP BY year) AS d1
SELECT AVG(d1.x2) FROM (SELECT COUNT(*) AS x1⟂ FROM concert) AS d1
SELECT AVG(d1.x2) FROM (SELECT COUNT(*) AS x1, year AS x2 FROM concert) AS d1
SELECT AVG(d1.x1) FROM concert⟂
SELECT T1.name, d1.x1 FROM singer AS T1 JOIN (SELECT COUNT(*) AS x1, singer_id FROM concert) AS d1 ON T1.id = d1.singer_id
SELECT name FROM ⟂(SELECT name FROM singer) AS d1
WITH cte1 AS (SELECT year, COUNT(*) AS x1 FROM concert GROUP BY year) SELECT year FROM cte1 WHERE x1 > 7
WITH cte1 AS (SELECT year AS x1 FROM concert) SELECT cte1.x1, name FROM cte1 CROSS JOIN singer
WITH cte1 AS (SELECT T1.id, T2.id FROM singer AS T1 CROSS JOIN land AS T2) SELECT cte1.⟂id FROM cte1
WITH cte1 AS (SELECT T1.id, T2.id FROM singer AS T1 CROSS JOIN land AS T2) SELECT id FROM c⟂te1
WITH cte1 AS (SELECT year AS x1 FROM concert) SELECT x1 FROM singer⟂
WITH cte1 AS (SELECT year AS x1 FROM concert) SELECT cte1.⟂year FROM cte1
WITH cte1 AS (SELECT code FROM concert⟂) SELECT 1
WITH cte1 AS (SELECT 'x' FROM land) SELECT cte1.⟂
WITH cte1 AS (SELECT 1 AS x1), cte2 AS (SELECT x1 FROM cte1) SELECT T1.x1 FROM cte2 AS T1
SELECT 1
SELECT (SELECT COUNT(*) FROM singer) - (SELECT COUNT(*) FROM land)
SELECT id⟂
FROM singer SELECT name
"""


@pytest.mark.parametrize("line", LINES.strip().splitlines())
def test_verdicts(line: str) -> None:
    accepted, mark, rest = line.partition("⟂")
    if line.startswith("FROM"):
        assert refused(line) == ""
    else:
        assert refused(accepted + rest) == (accepted if mark else None)


def test_every_sample_passes_explain() -> None:
    base = bases.find("nano")
    vocabulary = tokens.load(base.file("tokenizer"), base.manifest.end)
    fresh, draw, finished = Matcher(vocabulary, TEMPLATE, binding()), Random(3), 0
    seen = dict.fromkeys((" JOIN", "(SELECT", "WITH", " AS "), 0)
    with closing(sqlite3.connect(":memory:")) as copy:
        for table, columns in TABLES.items():
            copy.execute(f"CREATE TABLE {table} ({', '.join(map(quoted, columns))})")
        for _ in range(40):
            calm = draw.choice((20, 60, 90))
            text = sample(fresh.fork(), draw, calm=calm, most=300, onward=("FROM", "CROSS"), often=CLAUSES)
            if text is None:
                continue
            finished += 1
            copy.execute("EXPLAIN " + text)
            for mark in seen:
                seen[mark] += mark in text
    assert finished > 15
    assert all(seen.values()), seen


@pytest.mark.parametrize(
    ("have", "named", "expected"),
    [
        ((), ("name",), True),
        ((), ("name", "code", "land_id"), False),  # code is land's, which has a name, and so has singer
        ((), ("name", "year", "hall_id"), True),
        ((), ("id", "hall_id"), True),
        (("singer",), ("name",), True),
        (("singer", "land"), ("name",), False),
        (("singer",), ("name", "code"), False),
        ((), ("T1.code", "T1.year"), False),
        ((), ("T1.code", "T2.year", "name"), True),  # land as T1 brings the name, so concert as T2
        ((), ("T1.code", "T2.hall_id", "name"), False),
        ((), tuple(f"T{number}.id" for number in range(1, MOST_BROUGHT + 1)), True),
        ((), tuple(f"T{number}.id" for number in range(1, MOST_BROUGHT + 2)), False),
        ((), ("d1.x1", "T1.id"), True),
        ((), ("d1.x1", "id"), False),
    ],
)
def test_leads(have: tuple[str, ...], named: tuple[str, ...], expected: bool) -> None:
    catalogue, needs = Catalogue(TABLES, ()), Needs()
    for name in named:
        needs = needs.named(*name.rpartition(".")[::2])
    assert catalogue.leads(tuple(Source(name, TABLES[name]) for name in have), needs) == expected


def test_no_word_of_a_grammar_is_a_bare_column() -> None:
    """Else a column of that name would be taken for the word, or the other way round."""
    text = (GRAMMARS / "sql-sqlite.gbnf").read_text(encoding="utf-8")  # the one that takes bare columns
    rules = "\n".join(line for line in text.splitlines() if line[:1] != "#")
    words = {word for text in re.findall(r'"((?:[^"\\]|\\.)*)"', rules) for word in re.findall(r"[A-Z_]{2,}", text)}
    assert words <= WORDS, sorted(words - WORDS)


@pytest.fixture
def shop(tmp_path: Path) -> SqlContext:
    file = tmp_path / "shop.sql"
    file.write_text("CREATE TABLE item (id INTEGER, name TEXT, price REAL);\nCREATE TABLE sale (item_id INTEGER);")
    return SqlTask().open(file)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select Name from ITEM as t1", "SELECT name FROM item AS T1"),
        ("SELECT a.name FROM item a, sale b WHERE b.item_id = a.id",
         "SELECT T1.name FROM item AS T1 CROSS JOIN sale AS T2 WHERE T2.item_id = T1.id"),
        ("SELECT i.name FROM item AS i JOIN sale ON item_id = id",
         "SELECT i.name FROM item AS i JOIN sale ON sale.item_id = i.id"),
        ("SELECT AVG(n) FROM (SELECT COUNT(*) AS n FROM sale GROUP BY item_id) AS q",
         "SELECT AVG(d1.x1) FROM (SELECT COUNT(*) AS x1 FROM sale GROUP BY item_id) AS d1"),
        ("SELECT q.name, price FROM (SELECT name, price FROM item ORDER BY price) AS q",
         "SELECT d1.x1, d1.x2 FROM (SELECT name AS x1, price AS x2 FROM item ORDER BY price) AS d1"),
        ("SELECT name, RANK() OVER (ORDER BY price) AS r FROM item ORDER BY r",
         "SELECT name, RANK() OVER (ORDER BY price) AS x2 FROM item ORDER BY 2"),
        ("SELECT name FROM item WHERE EXISTS (SELECT * FROM sale WHERE item_id = id)",
         "SELECT name FROM item WHERE EXISTS (SELECT 1 FROM sale WHERE item_id = item.id)"),
    ],
)  # fmt: skip
def test_ordinary_sql_stays_as_it_is(shop: SqlContext, sql: str, expected: str) -> None:
    assert shop.inner(sql, "names-select") == expected
    matcher = Matcher(VOCABULARY, TEMPLATE, shop.everything("names-select"))
    for token in encode(expected, pointers=False):
        matcher.consume(token)
    assert matcher.complete()
    shop.explain(shop.outer(expected))


def test_the_surface_of_the_base_decides(shop: SqlContext) -> None:
    question = shop.question("item names", surface="names-select")
    assert isinstance(question.binding(), ListingBinding)
    system, _ = question.messages()
    assert system.content.startswith("Answer with one SQL query")
    assert question.check("SELECT T1.name FROM item AS T1").output == "SELECT name FROM item AS T1"
    with pytest.raises(ContextError, match="code"):
        question.check("SELECT code FROM item")


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data is not beside the repository")
def test_what_is_trained_can_be_written() -> None:
    compared = 0
    found = spider.pairs(DATA / "spider_train" / "train_spider.json", DATA / "spider" / "database", "question", ())
    for place, pair in islice(enumerate(found), 0, 1200, 60):
        example = prepare.render(pair, "names-select", Random(place))
        if example is None:
            continue
        context = SqlContext(pair.schema, None, "sqlite")
        matcher = Matcher(VOCABULARY, TEMPLATE, context.everything("names-select"))
        for token in encode(example.completion, pointers=False):
            matcher.consume(token)
        assert matcher.complete(), example.completion
        compared += 1
    assert compared > 10


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data is not beside the repository")
def test_gold_queries_are_accepted() -> None:
    rows = json.loads((DATA / "spider" / "dev.json").read_text("utf-8"))
    opened: dict[str, SqlContext] = {}
    for row in rows[::60]:
        name = row["db_id"]
        if name not in opened:
            opened[name] = SqlContext(spider.described(DATA / "spider" / "tables.json")[name], None, "sqlite")
        text = opened[name].inner(row["query"], "names-select")
        matcher = Matcher(VOCABULARY, TEMPLATE, opened[name].everything("names-select"))
        for token in encode(text, pointers=False):
            matcher.consume(token)
        assert matcher.complete(), text
