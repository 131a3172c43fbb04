"""One grammar for every schema, against the grammar that names what each scope holds: the same masks, step by step."""

from __future__ import annotations

from random import Random

import pytest
from grammar_cases import VOCABULARY, encode
from test_binding import TEMPLATE

from expert_cli.errors import GrammarError
from expert_cli.grammar.matcher import Matcher
from experts.sql.binding import Column, PointerBinding, SqlBinding, Table, Value
from experts.sql.pointing import StandingBinding

NESTED = encode("FROM<t0> SELECT * WHERE EXISTS (")  # rare among equally likely bytes
VALUES = [Value("Berlin", "v0"), Value(3, "v1"), Value(0.5, "v2"), Value("x", "v3"), Value(-1, "v4"), Value(12, "v5")]


def schema(draw: Random) -> SqlBinding:
    """Random tables, edges and literals; sometimes none of the latter two."""
    count, number, tables = draw.randint(1, 6), 0, list[Table]()
    for place in range(count):
        columns = []
        for _ in range(draw.randint(1, 4)):
            columns.append(Column(f"k{number}", f"c{number}"))
            number += 1
        tables.append(Table(f"t{place}", tuple(columns), f"t{place}"))
    ends = [(table.name, column.name) for table in tables for column in table.columns]
    edges = [(draw.choice(ends), draw.choice(ends)) for _ in range(draw.choice((0, 1, count, 2 * count)))]
    return SqlBinding(tables, edges, draw.sample(VALUES, draw.choice((0, 1, 3, 6))), "pointers")


def standing(scoped: SqlBinding) -> StandingBinding:
    assert isinstance(scoped.surface, PointerBinding)
    return StandingBinding(scoped.surface)


def test_masks_are_those_of_the_scoped_grammar() -> None:
    draw, choices, ended, nested = Random(5), 0, 0, 0
    for walk in range(120):
        scoped, begun = schema(draw), NESTED[: 99 * (walk % 4 == 0)]
        one, other = Matcher(VOCABULARY, TEMPLATE, standing(scoped)), Matcher(VOCABULARY, TEMPLATE, scoped)
        for _ in range(90):
            options = other.allowed()
            assert one.allowed() == options, other.written
            forced = one.forced()  # up to the next pointer
            assert forced == other.forced()[: len(forced)], other.written
            assert bool(forced) == bool(other.forced()), other.written
            assert one.complete() == other.complete()
            choices += len(options) > 1
            token = begun.pop(0) if begun else draw.choice(options)
            if token in VOCABULARY.ends:
                break
            one.consume(token)
            other.consume(token)
        ended += other.complete()
        nested += "(FROM" in other.written
    assert choices > 1000
    assert ended > 20
    assert nested > 5


def shop() -> StandingBinding:
    """Two tables joined by c1 = c2, and one alone."""
    tables = [
        Table("a", (Column("x", "c0"), Column("y", "c1")), "t0"),
        Table("b", (Column("x", "c2"), Column("y", "c3")), "t1"),
        Table("c", (Column("x", "c4"),), "t2"),
    ]
    return standing(SqlBinding(tables, [(("a", "y"), ("b", "x"))], VALUES[:2], "pointers"))


@pytest.mark.parametrize(
    ("written", "refused"),
    [
        ("FROM<t2>", " JOIN"),
        ("FROM<t0>", " SELECT<c2>"),
        ("FROM<t0> JOIN", "<t2>"),
        ("FROM<t0> JOIN<t1> ON", "<c0>"),
        ("FROM<t0> JOIN<t1> ON<c2> =", "<c2>"),
        ("FROM<t0> SELECT<c0> WHERE<c1> IN (FROM<t1> SELECT", "<c1>"),
        ("FROM<t0> SELECT<c0> WHERE<c1> IN (FROM<t1> SELECT<c2>) AND", "<c2>"),
        ("FROM<t0> SELECT<c0> UNION FROM<t2> SELECT", "<c0>"),
        ("FROM<t0> SELECT<c0> LIMIT", "<v0>"),
        ("FROM<t0> SELECT MAX(", "<c3>"),
        ("FROM<t0> SELECT<c0> WHERE<c0> <", "<c3>"),
    ],
)
def test_scopes(written: str, refused: str) -> None:
    matcher = Matcher(VOCABULARY, TEMPLATE, shop())
    for token in encode(written):
        matcher.consume(token)
    assert matcher.written == written
    with pytest.raises(GrammarError, match="cannot follow"):
        for token in encode(refused):
            matcher.consume(token)


def test_nothing_is_compiled_for_another_schema() -> None:
    one, other = (Matcher(VOCABULARY, TEMPLATE, standing(schema(Random(seed)))) for seed in (2, 3))
    assert one._explored is other._explored
