"""The prompts, letter by letter, and what must never be in them."""

from __future__ import annotations

import re

import pytest
from tokenizers import Tokenizer

from expert_cli import conversation
from expert_cli.task import Message
from expert_cli.training.pretrain import train_tokenizer
from experts.sql import prompt
from experts.sql.linking import link
from experts.sql.pointers import TOKENS
from experts.sql.schema import Schema, from_ddl, quote

SHOP = """
CREATE TABLE customers (id INTEGER PRIMARY KEY, full_name TEXT, city TEXT, joined DATE);
CREATE TABLE orders (order_id INTEGER PRIMARY KEY, customer_id REFERENCES customers(id), "total price" REAL, status TEXT);
CREATE TABLE "Group" (x);
INSERT INTO customers (city) VALUES ('Paris'), ('Ulm');
"""
QUESTION = "What is the total price of the orders of customers in Paris over 20?"
EVIDENCE = "price means total price"

POINTERS = (
    "<t0> orders*<c1> order id~#^<c2> customer id~<c0> total price*#<c3> status"
    "<t1> customers*<c4> id#^<c5> full name<c6> city<c7> joined@<t2> group<c8> x"
    "<fk><c2><c4>",
    " What is the total price<c0> of the orders<t0> of customers<t1> in Paris<v0><c6> over 20<v1>?",
)
NAMES = (
    "Answer with one FROM-first SQL query over these tables:\n"
    'orders(order_id integer key, customer_id text, "total price" real, status text)\n'
    "customers(id integer key, full_name text, city text = 'Paris', joined date)\n"
    '"Group"(x text)\n'
    "orders.customer_id = customers.id",
    QUESTION,
)


@pytest.fixture(scope="module")
def shop() -> Schema:
    return from_ddl(SHOP)


@pytest.mark.parametrize(("surface", "expected"), [("pointers", POINTERS), ("names", NAMES)])
def test_golden(shop: Schema, surface: str, expected: tuple[str, str]) -> None:
    system, user = prompt.messages(link(QUESTION, shop), surface)
    assert (system, user) == (Message("system", expected[0]), Message("user", expected[1]))


@pytest.mark.parametrize("surface", ["pointers", "names"])
def test_evidence_is_part_of_the_question(shop: Schema, surface: str) -> None:
    asked = prompt.asked(QUESTION, EVIDENCE)
    assert asked == f"{QUESTION} ({EVIDENCE})"
    _, user = prompt.messages(link(asked, shop), surface)
    assert re.sub(r"<\w+>", "", user.content).strip() == asked
    assert prompt.asked(QUESTION) == QUESTION


def test_without_mentions_and_edges() -> None:
    system, user = prompt.messages(link("hi", from_ddl("CREATE TABLE t (a)")), "pointers")
    assert (system.content, user.content) == ("<t0> t<c0> a", " hi")


def test_a_word_carries_few_pointers() -> None:
    """Of six columns called alike, as many as MAX_TAGS are written after the word, the fully named ones alone."""
    tables = "; ".join(f"CREATE TABLE t{n} (city TEXT, city_name TEXT)" for n in range(6))
    _, user = prompt.messages(link("Which cities?", from_ddl(tables)), "pointers")
    assert user.content == " Which cities<c0><c1><c2><c3>?"


SPECIALS = [
    "<c3>",
    "<t0>",
    "<v1>",
    "<fk>",
    "<any>",
    "<s>",
    "<q>",
    "<sql>",
    "<e>",
    "<pad>",
    "</s>",
    "<|im_end|>",
    "<\uff5cend\u2581of\uff5c>",
]
PLAIN = ["a < b", "a<b", "<", "<>", "< c3>", "age <30 and >20", "the <I>Gene</I>", "x <= 3", "<<", "1 < 2 > 0"]


@pytest.mark.parametrize("text", PLAIN)
def test_ordinary_text_stays(text: str) -> None:
    assert prompt.opened(text) == text


@pytest.mark.parametrize("text", SPECIALS)
def test_special_tokens_are_opened(text: str) -> None:
    assert prompt.opened(text) == "< " + text[1:]
    assert prompt.opened(f"<{text}{text}") == f"<< {text[1:]}< {text[1:]}"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(
        iter(["abc"]), 300 + len(TOKENS) + 8, ["<pad>", "<s>", "<q>", "<sql>", "<e>", "<|im_end|>", *TOKENS]
    )


TEMPLATES = {
    "pointers": {"start": "<s>", "system": ["", ""], "user": ["<q>", ""], "assistant": ["<sql>", "<e>"]},
    "names": {"system": ["", "<|im_end|>"], "user": ["", "<|im_end|>"], "assistant": ["", "<|im_end|>"]},
}


def spoken(tokenizer: Tokenizer, text: str) -> tuple[list[str], str]:
    """The special tokens of a text, and the rest without spaces."""
    learnt = tokenizer.get_vocab_size() - len(TOKENS) - 6
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    rest = tokenizer.decode([one for one in ids if one < learnt])
    return [tokenizer.id_to_token(one) for one in ids if one >= learnt], bare(rest)


def bare(text: str) -> str:
    return re.sub(r"[\s_]", "", text)


@pytest.mark.parametrize("surface", ["pointers", "names"])
@pytest.mark.parametrize("text", SPECIALS)
def test_nothing_said_becomes_a_special_token(tokenizer: Tokenizer, surface: str, text: str) -> None:
    """A question, a table, a column and a value that hold a special token's text are read as text."""
    names = [f"{text} t", f"{text} c", f"x_{text}_y"]
    table, *columns = map(quote, names)
    schema = from_ddl(
        f"CREATE TABLE {table} ({columns[0]} TEXT, {columns[1]} TEXT); "
        f"INSERT INTO {table} VALUES ('Held {text} value', 'other')"
    )
    question = f"show {text} t of 'quoted {text}' and held {text} value {text}"
    system, user = prompt.messages(link(question, schema), surface)
    assert spoken(tokenizer, user.content)[1] == bare(question)
    seen = spoken(tokenizer, system.content)[1]
    assert all(bare(name if surface == "names" else name.lower()) in seen for name in names)
    template = conversation.Template.parse(TEMPLATES[surface], "test")
    marks = [
        token for token in spoken(tokenizer, conversation.render((system, user), template))[0] if token not in TOKENS
    ]
    assert marks == {"pointers": ["<s>", "<q>", "<sql>"], "names": ["<|im_end|>"] * 2}[surface]
