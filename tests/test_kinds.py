"""The kinds of the typed grammars: of declared types, and of expressions."""

from __future__ import annotations

import pytest

from experts.sql import kinds
from experts.sql.scopes import WORD

DECLARED = {
    "integer": kinds.WHOLE,
    "bigint unsigned": kinds.WHOLE,
    "serial": kinds.WHOLE,
    "numeric(10, 2)": kinds.NUMBER,
    "double precision": kinds.NUMBER,
    "varchar(20)": kinds.TEXT,
    "": kinds.TEXT,
    "date": kinds.TIME,
    "timestamp with time zone": kinds.TIME,
    "time": "mark time",
    "uuid": "mark uuid",
    "enum('a', 'integer')": "mark enum('a', 'integer')",
    "size enum('it''s', 'm')": "mark size enum('it''s', 'm')",
    "enum('a')[]": kinds.OTHER,
    "interval": kinds.OTHER,
    "boolean": kinds.TRUTH,
    "tinyint(1)": kinds.TRUTH,
    "integer[]": kinds.OTHER,
    "json": kinds.OTHER,
    "money": kinds.OTHER,
    "point": kinds.OTHER,
}


@pytest.mark.parametrize(("declared", "kind"), DECLARED.items())
def test_declared_kinds(declared: str, kind: str) -> None:
    assert kinds.declared(declared) == kind


INFERRED = {
    "t.n": kinds.NUMBER,
    "t.d": kinds.TIME,
    "-t.n": kinds.NUMBER,
    "t.d + INTERVAL '1' DAY": kinds.TIME,
    "(CAST(t.d AS DATE) - CAST(t.d AS DATE))": kinds.NUMBER,
    "t.s || 'a'": kinds.TEXT,
    "t.n > 3": kinds.TRUTH,
    "(t.n > 3)": kinds.TRUTH,
    "NOT t.n > 3": kinds.TRUTH,
    "t.s IS NULL": kinds.TRUTH,
    "CASE WHEN t.n > 3 AND t.s = 'a' THEN t.s ELSE 'b' END": kinds.TEXT,
    "CASE WHEN t.n > 3 THEN CASE WHEN t.n > 4 THEN t.d END END": kinds.TIME,
    "COALESCE(t.s, 'a')": kinds.TEXT,
    "MAX(DISTINCT t.d)": kinds.OTHER,
    "MAX(t.d)": kinds.TIME,
    "MAX(t.d) FILTER(WHERE t.n > 3)": kinds.TIME,
    "LAG(t.s, 1) OVER (ORDER BY t.n)": kinds.TEXT,
    "COUNT(t.s)": kinds.NUMBER,
    "CAST(t.n AS TEXT)": kinds.TEXT,
    "CAST(t.s AS DOUBLE PRECISION)": kinds.NUMBER,
    "EXTRACT(YEAR FROM t.d)": kinds.NUMBER,
    "DATE_TRUNC('MONTH', t.d)": kinds.TIME,
    "(FROM t SELECT t.s)": "of the query",
    "TRUE": kinds.TRUTH,
    "'a'": kinds.TEXT,
    "DATE '2024-01-01'": kinds.TIME,
    "CURRENT_DATE": kinds.TIME,
    "t.j": kinds.OTHER,
    "t.u": "mark uuid",
    "t.u = t.u": kinds.TRUTH,
    "ANY_VALUE(t.u)": "mark uuid",
}


@pytest.mark.parametrize(("text", "kind"), INFERRED.items())
def test_inferred_kinds(text: str, kind: str) -> None:
    columns = {"t.n": kinds.NUMBER, "t.s": kinds.TEXT, "t.d": kinds.TIME, "t.j": kinds.OTHER, "t.u": "mark uuid"}
    words = [(one.group(), one.start()) for one in WORD.finditer(text)]
    assert kinds.inferred(words, columns.get, lambda place: "of the query") == kind


def test_the_words_of_an_enumeration() -> None:
    assert kinds.enumerated("mark size enum('it''s', 'm')") == ["it's", "m"]
    assert kinds.enumerated("mark uuid") == []
