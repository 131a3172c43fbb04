"""The pointer surface: from gold to pointers, and back to SQL that gives the same rows."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from expert_cli.errors import ContextError
from experts.sql import fromfirst, pointers
from experts.sql.identifiers import quoted
from experts.sql.linking import MAX_POINTERS, Linked, LinkedTable, link
from experts.sql.literals import MAX_LITERALS, Literal
from experts.sql.pointers import Unreachable, point, realise
from experts.sql.schema import Schema, from_ddl, read_sqlite

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SCHEMA = from_ddl(
    """
    CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INTEGER, "Home Town" TEXT);
    CREATE TABLE song (song_id INTEGER PRIMARY KEY, singer_id REFERENCES singer(id), title TEXT, sales REAL);
    CREATE TABLE label (label TEXT, city TEXT);
    """
)
QUESTION = 'singers "Ann", "Ulm ( x" and "a%b" over 30 and 2.5, 7 songs; "it\'s"'


@pytest.fixture(scope="module")
def linked() -> Linked:
    """Everything is linked; ``<v0>`` … as the question has them."""
    return link(QUESTION, SCHEMA)


def number(linked: Linked, name: str) -> str:
    table, _, column = name.partition(".")
    if not column:
        return f"<t{[known.name for known in linked.tables].index(table)}>"
    return f"<c{linked.columns.index((table, column))}>"


def spelled(linked: Linked, text: str) -> str:
    """``{singer.age}`` and ``{singer}`` as their pointers, ``{=30}`` as the literal's."""
    texts = [literal.text for literal in linked.literals]

    def one(match: re.Match[str]) -> str:
        name = match[1]
        return f"<v{texts.index(name[1:])}>" if name.startswith("=") else number(linked, name)

    return re.sub(r"\{([^}]+)\}", one, text)


POINTED = [
    ("SELECT name FROM singer", "FROM{singer} SELECT{singer.name}"),
    ("SELECT * FROM singer", "FROM{singer} SELECT *"),
    ("SELECT count(*) FROM singer", "FROM{singer} SELECT COUNT(*)"),
    ("SELECT count(DISTINCT name), max(age) FROM singer", "FROM{singer} SELECT COUNT(DISTINCT{singer.name}), MAX({singer.age})"),
    # a primary key counts rows, unless a join multiplies them
    ("SELECT count(id) FROM singer", "FROM{singer} SELECT COUNT(*)"),
    ("SELECT count(age) FROM singer", "FROM{singer} SELECT COUNT({singer.age})"),
    ("SELECT count(id) FROM singer JOIN song ON id = singer_id", "FROM{song} JOIN{singer} ON{song.singer_id} ={singer.id} SELECT COUNT({singer.id})"),
    # joins in prompt order, whichever way the gold wrote them
    ("SELECT title FROM song AS a JOIN singer AS b ON a.singer_id = b.id", "FROM{song} JOIN{singer} ON{song.singer_id} ={singer.id} SELECT{song.title}"),
    # literals
    ("SELECT name FROM singer WHERE age >= 30 AND name = 'ann'", "FROM{singer} SELECT{singer.name} WHERE{singer.age} >={=30} AND{singer.name} ={=Ann}"),
    ("SELECT title FROM song WHERE sales < 2.5 LIMIT 7", "FROM{song} SELECT{song.title} WHERE{song.sales} <{=2.5} LIMIT{=7}"),
    ("SELECT name FROM singer WHERE age > 3 LIMIT 1", "FROM{singer} SELECT{singer.name} WHERE{singer.age} > 3 LIMIT 1"),
    ("SELECT name FROM singer WHERE age IN (30, 3)", "FROM{singer} SELECT{singer.name} WHERE{singer.age} IN ({=30}, 3)"),
    ("SELECT name FROM singer WHERE age BETWEEN 7 AND 30.0", "FROM{singer} SELECT{singer.name} WHERE{singer.age} BETWEEN{=7} AND{=30}"),
    ("SELECT name FROM singer WHERE name LIKE '%Ann%'", "FROM{singer} SELECT{singer.name} WHERE{singer.name} LIKE<any>{=Ann}"),
    ("SELECT name FROM singer WHERE name LIKE 'Ann%'", "FROM{singer} SELECT{singer.name} WHERE{singer.name} LIKE<pre>{=Ann}"),
    ("SELECT name FROM singer WHERE name NOT LIKE '%Ann'", "FROM{singer} SELECT{singer.name} WHERE{singer.name} NOT LIKE<suf>{=Ann}"),
    ("SELECT name FROM singer WHERE name LIKE '%a%b%'", "FROM{singer} SELECT{singer.name} WHERE{singer.name} LIKE<any>{=a%b}"),
    ("SELECT name FROM singer WHERE \"Home Town\" = 'Ulm ( x' OR name = 'it''s'", "FROM{singer} SELECT{singer.name} WHERE{singer.Home Town} ={=Ulm ( x} OR{singer.name} ={=it's}"),
    # nesting and sets
    ("SELECT name FROM singer WHERE id NOT IN (SELECT singer_id FROM song)", "FROM{singer} SELECT{singer.name} WHERE{singer.id} NOT IN (FROM{song} SELECT{song.singer_id})"),
    ("SELECT name FROM singer WHERE age > (SELECT avg(age) FROM singer)", "FROM{singer} SELECT{singer.name} WHERE{singer.age} > (FROM{singer} SELECT AVG({singer.age}))"),
    ("SELECT id FROM singer EXCEPT SELECT singer_id FROM song", "FROM{singer} SELECT{singer.id} EXCEPT FROM{song} SELECT{song.singer_id}"),
    ("SELECT age FROM singer GROUP BY age HAVING count(*) > 1 ORDER BY count(*) DESC", "FROM{singer} SELECT{singer.age} GROUP BY{singer.age} HAVING COUNT(*) > 1 ORDER BY COUNT(*) DESC"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "expected"), POINTED)
def test_point(linked: Linked, sql: str, expected: str) -> None:
    text = point(fromfirst.canonical(sql, SCHEMA), linked)
    assert text == spelled(linked, expected)
    for identifier in (quoted, pointers.quote):
        back = fromfirst.read(realise(text, linked, identifier))
        assert point(fromfirst.canonical(back, SCHEMA), linked) == text


UNREACHABLE = [
    ("SELECT name FROM singer WHERE name = 'Zed'", "literal 'Zed' is not offered"),
    ("SELECT name FROM singer WHERE age > 31", "literal '31' is not offered"),
    ("SELECT name FROM singer WHERE name LIKE '%'", "literal '' is not offered"),
    ("SELECT name FROM singer WHERE name = '3'", "literal '3' is not offered"),
    ("SELECT s.name FROM singer s JOIN label ON s.name = label.label", "join outside the keys"),
    ("SELECT a.name FROM singer a JOIN singer b ON a.id = b.age", "self-join"),
    ("SELECT name FROM singer LEFT JOIN song ON id = singer_id", "not a tree of equalities"),
    ("SELECT name FROM singer JOIN song ON id > singer_id", "not a tree of equalities"),
    ("SELECT name FROM singer, label", "not a tree of equalities"),
    ("SELECT n FROM (SELECT name AS n FROM singer) AS x", "derived table"),
    ("SELECT name FROM singer WHERE EXISTS (SELECT 1 FROM song WHERE song.singer_id = singer.id)", "not a column of its own FROM"),
    ("SELECT upper(name) FROM singer", "upper is not in"),
    ("SELECT CASE WHEN age > 1 THEN 1 END FROM singer", "case is not in"),
    ("SELECT CAST(age AS TEXT) FROM singer", "cast is not in"),
    ("SELECT rank() OVER (ORDER BY age) FROM singer", "not in the pointer language"),
    ("WITH x AS (SELECT 1) SELECT * FROM x", "with is not in"),
    ("SELECT name FROM singer LIMIT 1 OFFSET 2", "offset is not in"),
    ("SELECT singer.* FROM singer", "star of one table"),
    ("SELECT count(*) FROM gone", "gone is not linked"),
    ("SELECT nope FROM singer", "nope"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "reason"), UNREACHABLE)
def test_unreachable(linked: Linked, sql: str, reason: str) -> None:
    with pytest.raises(Unreachable, match=reason):
        point(fromfirst.canonical(sql, SCHEMA), linked)


def test_what_is_not_linked_is_unreachable(linked: Linked) -> None:
    few = Linked("", SCHEMA, (LinkedTable("singer", ("id",)),), (("singer", "id"),), (), {}, (), ())
    with pytest.raises(Unreachable, match=r"singer\.name is not linked"):
        point(fromfirst.canonical("SELECT name FROM singer", SCHEMA), few)
    with pytest.raises(Unreachable, match="song is not linked"):
        point(fromfirst.canonical("SELECT count(*) FROM song", SCHEMA), few)


def named(*literals: str) -> Linked:
    """One table of hostile names, and literals."""
    columns = (("<t0>", "<v0>"), ("<t0>", 'a"b'))
    offered = tuple(Literal(text, 0) for text in literals)
    return Linked("", SCHEMA, (LinkedTable("<t0>", ("<v0>", 'a"b')),), columns, offered, {}, (), ())


REALISED = [
    ("FROM<t0> SELECT<c1>", (), 'FROM "<t0>" SELECT "<t0>"."a""b"'),
    ("FROM <t0> SELECT <c0>", (), 'FROM "<t0>" SELECT "<t0>"."<v0>"'),
    ("SELECT COUNT(<c0>)", (), 'SELECT COUNT("<t0>"."<v0>")'),
    ("SELECT COUNT(DISTINCT<c0>)", (), 'SELECT COUNT(DISTINCT "<t0>"."<v0>")'),
    ("=<v0>", ("<c1>",), "= '<c1>'"),
    ("=<v0>", ("<v0>",), "= '<v0>'"),
    ("=<v0>", ("it's (  x",), "= 'it''s (  x'"),
    ("=<v0>", ("007",), "= '007'"),
    ("=<v0>", ("-7",), "= -7"),
    ("=<v0>", ("2.50",), "= 2.5"),
    ("=<v0>", ("\\1 {} %s",), "= '\\1 {} %s'"),
    ("LIKE<any><v0>", ("x'y",), "LIKE '%x''y%'"),
    ("LIKE<pre><v0>", ("7",), "LIKE '7%'"),
    ("LIKE<suf><v0>", ("{0}",), "LIKE '%{0}'"),
    ("IN (<v0>,<v1>, 3)", ("a", "5"), "IN ('a', 5, 3)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "literals", "expected"), REALISED)
def test_realise(text: str, literals: tuple[str, ...], expected: str) -> None:
    assert realise(text, named(*literals)) == expected


@pytest.mark.parametrize("text", ["FROM<t1>", "SELECT<c2>", "=<v1>", "LIKE<any><c0>", "LIKE<pre><t0>", "<c999>"])
def test_pointers_without_meaning(text: str) -> None:
    with pytest.raises(ContextError, match="means nothing for this question"):
        realise(text, named("a"))


@pytest.mark.parametrize("text", ["<c9999>", "<c" + "9" * 9000 + ">", "<c٣>", "<x0>", "<any>", "<c-1>", "<c>"])
def test_what_is_no_pointer_stays(text: str) -> None:
    assert realise(text, named("a")) == text


def test_tokens_are_distinct_and_suffice() -> None:
    assert len(set(pointers.TOKENS)) == len(pointers.TOKENS)
    assert (pointers.COLUMNS, pointers.LITERALS) == (MAX_POINTERS, MAX_LITERALS)


def rows(name: str, count: int) -> list[dict[str, Any]]:
    """Rows of a split whose gold query executes on the databases at hand."""
    found = [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]
    found = [row for row in found if row["gold_rows"] is not None]
    Random(5).shuffle(found)
    return found[:count]


def same(database: sqlite3.Connection, gold: str, written: str) -> bool:
    expected, got = (Counter(map(str, database.execute(sql).fetchall())) for sql in (gold, written))
    return expected == got


@pytest.mark.skipif(not DATA.is_dir(), reason="the public data sets are not beside the repository")
@pytest.mark.parametrize(("split", "least"), [("spider_train.jsonl", 0.95), ("spider_dev.jsonl", 0.95)])
def test_golds_survive(split: str, least: float) -> None:
    """FROM-first and back, and through pointers where they can say it, gold gives its rows."""
    schemas: dict[Path, Schema] = {}
    whole, said, kept, sample = 0, 0, 0, rows(split, 120)
    for row in sample:
        path = DATA / "spider" / "database" / row["db_id"] / f"{row['db_id']}.sqlite"
        schema = schemas.setdefault(path, read_sqlite(path))
        query = fromfirst.canonical(row["query"], schema)
        linked = link(row["question"], schema)
        with closing(sqlite3.connect(path.as_uri() + "?mode=ro", uri=True)) as database:
            database.text_factory = lambda raw: raw.decode("utf-8", "replace")
            whole += same(database, row["query"], fromfirst.read(fromfirst.write(query)))
            try:
                text = point(query, linked)
            except Unreachable:
                continue
            said += 1
            kept += same(database, row["query"], fromfirst.read(realise(text, linked)))
    assert whole >= 0.99 * len(sample), f"{whole} of {len(sample)}"
    assert kept >= least * said, f"{kept} of {said}"
    assert said >= 0.85 * len(sample), f"{said} of {len(sample)}"
