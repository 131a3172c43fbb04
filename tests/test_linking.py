"""Linking: which words of a question name tables and columns, and which literals it offers."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from expert_cli.task import Limits
from experts.sql import pointers
from experts.sql.identifiers import quoted
from experts.sql.linking import MAX_COLUMNS, MAX_POINTERS, MAX_TABLES, link
from experts.sql.literals import MAX_LITERALS, Literal, made_up
from experts.sql.plugin import task
from experts.sql.schema import Column, Schema, Table, from_ddl, quote
from experts.sql.words import split, stems

SHOP = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, full_name TEXT, city TEXT, country TEXT, gender TEXT, is_active TEXT);
CREATE TABLE orders (order_id INTEGER PRIMARY KEY, customer_id REFERENCES customers(id), orderDate TEXT, status TEXT, zip TEXT);
CREATE TABLE "order items" ("order id" REFERENCES orders(order_id), "Item Name" TEXT, quantity INTEGER);
INSERT INTO customers (full_name, city, country, gender, is_active) VALUES
  ('Ann O''Brien', 'New York City ', 'USA', 'F', 'T'), ('John Smith', 'Paris', 'France', 'M', 'F'),
  ('Zoë', 'São Paulo', 'United Kingdom', 'F', 'T');
INSERT INTO orders (orderDate, status, zip) VALUES ('2024-01-05', 'on hold', '02139'), ('2024-02-01', 'shipped', '10001');
INSERT INTO "order items" ("Item Name") VALUES ('Apple'), ('green tea');
"""


@pytest.fixture(scope="module")
def shop() -> Schema:
    return from_ddl(SHOP)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How many dogs?", ["How", "many", "dogs"]),
        ("the singer's and the singers' names", ["the", "singer", "s", "and", "the", "singers", "names"]),
        ("O'Brien didn't go", ["O'Brien", "didn't", "go"]),
        ("a 3.5 rating, 1,000 rows", ["a", "3.5", "rating", "1", "000", "rows"]),
        ("singer_id of U.S. e-mail", ["singer", "id", "of", "U.S", "e", "mail"]),
        ("有多少 customers?", ["有多少", "customers"]),
        ("?!.,  \n", []),
        ("", []),
    ],
)
def test_split(question: str, expected: list[str]) -> None:
    spans = split(question)
    assert [word for word, _, _ in spans] == expected
    assert [question[start:end] for _, start, end in spans] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("singer_id", ("singer", "id")),
        ("singerID", ("singer", "id")),
        ("Item Name", ("item", "name")),
        ("address2", ("address", "2")),
        ("HTTPServer", ("httpserver",)),
        ("countries", ("countri",)),
        ("Größe", ("größe",)),
        ("___", ()),
        ('"', ()),
    ],
)
def test_stems(name: str, expected: tuple[str, ...]) -> None:
    assert stems(name) == expected


MENTIONS = [
    ("What are the orders?", "orders", "", "orders", True),
    ("Show every order", "orders", "", "order", True),
    ("Show the customer's orders", "customers", "", "customer", True),
    ("the full names of all", "customers", "full_name", "full", True),
    ("names in full", "customers", "full_name", "full", True),
    ("the name", "customers", "full_name", None, False),
    ("full marks", "customers", "full_name", "full", False),
    ("date of the order", "orders", "orderDate", "order", True),
    ("item names", "order items", "Item Name", "item", True),
    ("the quantities", "order items", "quantity", "quantities", True),
    ("active customers", "customers", "is_active", "active", False),
    ("customership", "customers", "", "customership", False),
    ("有多少", "orders", "", None, False),
]


@pytest.mark.parametrize(("question", "table", "column", "word", "full"), MENTIONS)
def test_mentions(shop: Schema, question: str, table: str, column: str, word: str | None, full: bool) -> None:
    linked = link(question, shop)
    mention = linked.mentions.get((table.lower(), column.lower()))
    found = (linked.spans[mention.word][0], mention.full) if mention else (None, False)
    assert found == (word, full)


LITERALS = [
    # values that the database holds, as it holds them
    ("customers in paris", ["Paris"], ["customers.city"]),
    ("customers from new york city", ["New York City "], ["customers.city"]),
    ("orders on hold", ["on hold"], ["orders.status"]),
    ("Ann O'Brien's city", ["Ann O'Brien"], ["customers.full_name"]),
    ("how many apples?", ["Apple"], ["order items.item name"]),
    ("green teas", ["green tea"], ["order items.item name"]),
    ("zoë and SÃO PAULO", ["Zoë", "São Paulo"], ["customers.full_name", "customers.city"]),
    # adjectives of places, and codes
    ("french customers", ["France"], ["customers.country"]),
    ("American customers", ["USA"], ["customers.country"]),
    ("British customers", ["United Kingdom"], ["customers.country"]),
    ("female customers", ["F"], ["customers.gender,customers.is_active"]),
    ("men", ["M"], ["customers.gender"]),
    ("customers in the United States", ["USA"], ["customers.country"]),
    ("two girls", ["2", "F"], ["", "customers.gender,customers.is_active"]),
    # the same letters and digits, the same stem, a letter away
    ("customers in Sao-Paulo or NewYork City", ["Sao-Paulo", "New York City "], ["", "customers.city"]),
    ("what was shipping?", ["shipped"], ["orders.status"]),
    ("orders of John Smyth", ["John Smyth", "John Smith"], ["", "customers.full_name"]),
    ("orders of John Brown", ["John Brown"], [""]),
    # flags: a mentioned column that holds nothing but a pair offers both
    ("is active", ["F", "T"], ["customers.is_active", "customers.is_active"]),
    # quoted text, in every quote
    ("status is \"lost\" or 'sent back'", ["lost", "sent back"], ["", ""]),
    ("status \u201clost\u201d or \u2018sent\u2019", ["lost", "sent"], ["", ""]),
    ("the dogs' bones and cats' toys", [], []),
    # numbers and dates
    ("more than 1,000 or -5 or 3.50", ["1000", "-5", "3.50"], ["", "", ""]),
    ("three of the Twelve", ["3", "12"], ["", ""]),
    ("zip 02139 or 00501", ["02139", "00501"], ["orders.zip", ""]),
    ("after 2024-01-05 and 2023-1-2 10:20:30", ["2024-01-05", "2023-1-2 10:20:30"], ["orders.orderdate", ""]),
    ("the 2nd", [], []),
    ("two hundred or 1.5 million", ["2", "200", "1.5", "1500000"], ["", "", "", ""]),
    ("on January 5, 2024", ["5", "2024-01-05", "2024"], ["", "orders.orderdate", ""]),
    ("the 5th of Jan 2024, 1/5/2024", ["2024-01-05", "2024", "1", "5"], ["orders.orderdate", "", "", ""]),
    ("in March 2020 or 13/45/2020", ["2020-03", "2020", "13", "45"], ["", "", "", ""]),
    # names by their capitals, the first word excepted
    ("Queen of England, 1990, Bowie", ["Queen of England", "1990", "Bowie"], ["", "", ""]),
    ("Berlin", [], []),
    ("we like Queen of England", ["Queen of England"], [""]),
    ("got grade C", ["C"], [""]),
    # words that announce text
    ("contains the letter x", ["x"], [""]),
    ("names with the letter a", ["a"], [""]),
    ("titled dune", ["dune"], [""]),
    ("contains the", [], []),
    ("starting", [], []),
]  # fmt: skip


@pytest.mark.parametrize(("question", "texts", "columns"), LITERALS)
def test_literals(shop: Schema, question: str, texts: list[str], columns: list[str]) -> None:
    found = link(question, shop).literals
    assert [literal.text for literal in found] == texts
    assert [",".join(".".join(pair) for pair in literal.columns) for literal in found] == columns


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-5", -5),
        ("3.50", 3.5),
        ("0", 0),
        ("02139", "02139"),
        ("1e5", "1e5"),
        ("٣", "٣"),
        ("9" * 18, int("9" * 18)),
        ("9" * 19, "9" * 19),
        ("2024-01-05", "2024-01-05"),
        ("", ""),
    ],
)
def test_value_of_a_literal(shop: Schema, text: str, value: object) -> None:
    literal = dataclasses.replace(link("more than 7", shop).literals[0], text=text)
    assert (literal.value, type(literal.value)) == (value, type(value))


def test_literals_are_bounded(shop: Schema) -> None:
    found = link(" ".join(str(number) for number in range(20, 60)), shop).literals
    assert len(found) == MAX_LITERALS <= pointers.LITERALS


EMPTY = Schema((Table("t", ()),))


@pytest.mark.parametrize("schema", [EMPTY, from_ddl("CREATE TABLE t (a)")])
@pytest.mark.parametrize(
    "question", ["", "?", "Wie viele Kunden gibt es in Köln?", "顧客は何人", "a" * 4000, "a " * 2000]
)
def test_nothing_to_link(schema: Schema, question: str) -> None:
    linked = link(question, schema)
    assert [table.name for table in linked.tables] == ["t"]
    assert len(linked.columns) == len(schema.tables[0].columns)


def names(prefix: str, count: int) -> Sequence[Column]:
    return [Column(f"{prefix}{number}") for number in range(count)]


def test_large_schema() -> None:
    """Of 300 tables the mentioned ones are seen, of 100 columns the mentioned ones; pointers suffice for all."""
    tables = [Table(f"thing{number}", tuple(names("field_", 100))) for number in range(299)]
    tables.append(Table("invoices", (*names("part_", 100), Column("due_day"))))
    linked = link("due day of the invoices", Schema(tuple(tables)))
    assert linked.tables[0].name == "invoices"
    assert len(linked.tables) == MAX_TABLES <= pointers.TABLES
    assert {len(table.columns) for table in linked.tables} == {MAX_COLUMNS}
    assert linked.columns[0] == ("invoices", "due_day")
    assert len(linked.columns) <= MAX_POINTERS == pointers.COLUMNS


def test_a_table_between_two_mentioned_ones_is_seen() -> None:
    extra = "".join(f"CREATE TABLE invoice{n} (invoice TEXT);" for n in range(6))
    script = (
        f"{extra} CREATE TABLE student (sid INTEGER PRIMARY KEY, student TEXT); "
        "CREATE TABLE club (cid INTEGER PRIMARY KEY, club TEXT); "
        "CREATE TABLE enrolment (x REFERENCES student(sid), y REFERENCES club(cid));"
    )
    linked = link("student and club of the invoice", from_ddl(script))
    assert [table.name for table in linked.tables][-1] == "enrolment"
    assert len(linked.tables) == MAX_TABLES + 1


def test_training_noise_keeps_what_the_query_needs(shop: Schema) -> None:
    """Whatever is dropped and shuffled, the tables and columns of the gold stay, and the seed decides."""
    wide = Schema((*shop.tables, Table("wide", tuple(names("w", 40)))))
    keep = {("order items", ""), ("order items", "quantity"), ("wide", ""), ("wide", "w39")}
    seen = set()
    for seed in range(60):
        linked = link("how many?", wide, rng=Random(seed), keep=keep)
        assert linked == link("how many?", wide, rng=Random(seed), keep=keep)
        shown = {(table.lower(), column.lower()) for table, column in linked.columns}
        assert {pair for pair in keep if pair[1]} <= shown
        seen.add(tuple(table.name for table in linked.tables))
    assert len(seen) > 10


def test_the_order_of_mention_numbers_the_columns(shop: Schema) -> None:
    linked = link("the city, then the full name and the gender of customers", shop)
    assert [column for _, column in linked.columns[:3]] == ["city", "full_name", "gender"]
    assert set(linked.columns) == {(table.name, column) for table in linked.tables for column in table.columns}


HOSTILE = [
    'a "quoted" one',
    "two\nlines",
    "select",
    "Größe",
    "日本",
    "<c1>",
    "<sql>",
    "semi;colon",
    "it's",
    "😀 x",
    "%s",
    "{0}",
]


@pytest.mark.parametrize("surface", ["pointers", "names"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_end_to_end(tmp_path: Path, name: str, surface: str) -> None:
    """A table, its column and a value of that name: linked, bound, checked, run, the value found again."""
    path = tmp_path / "x.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE {quote(name)} ({quote(name)} TEXT)")
        connection.execute(f"INSERT INTO {quote(name)} VALUES (?), ('other')", (name,))
        connection.commit()
    mark = "'" if '"' in name else '"'
    with closing(task.open(path)) as context:
        question = context.question(f"How many are {mark}{name}{mark}?", surface=surface)
        text = "FROM<t0> SELECT<c0> WHERE<c0> =<v0>"
        if surface == "names":
            text = pointers.realise(text, question.linked, quoted)
        rows = context.run(question.check(text), Limits()).rows
    assert rows == (() if "\n" in name else ((name,),)), "a question is one line: no value of two lines is in it"


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("FROM t SELECT a WHERE b = 'Paris' AND c > 7 LIMIT 10", 0),
        ("FROM t SELECT a WHERE b LIKE '%paris%'", 0),
        ("FROM t SELECT a WHERE b = 'Rome' AND c = 11", 2),
        ("FROM t SELECT a WHERE b = 'O''Brien' AND c = 12.5", 0),
        ("FROM t AS t2 SELECT \"col 99\", `x 98` WHERE b = ''", 0),
        ("FROM t SELECT a WHERE b = 'it''s 99'", 1),
    ],
)
def test_made_up(query: str, count: int) -> None:
    offered = (Literal("Paris", 0), Literal("O'Brien", 1), Literal("12.5", 2))
    assert made_up(query, offered) == count
