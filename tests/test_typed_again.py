"""What soundness runs once met in the typed grammars, beside the servers that judge it."""

from __future__ import annotations

import pytest
from engines import Engine
from grammar_cases import accepts, encode
from test_typed import context, fresh, running  # noqa: F401


def test_a_derived_table_may_be_written_again_within_another(running: Engine) -> None:  # noqa: F811
    one = "(FROM customers SELECT customers.id AS x1) AS d2"  # d1 is a table
    text = f"FROM {one} JOIN (FROM {one} SELECT d2.x1 AS x1) AS d3 ON d2.x1 = d3.x1 SELECT d3.x1"
    assert accepts(fresh(running.dialect).fork(), encode(text, pointers=False))
    assert running.explain(context(running.dialect).outer(text)) is None


@pytest.mark.parametrize("ranked", ["ROW_NUMBER()", "RANK()", "NTILE(2)", "FIRST_VALUE(orders.id)"])
def test_frames_of_ranks(running: Engine, ranked: str) -> None:  # noqa: F811
    """MariaDB takes none."""
    frame = " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW"
    text = f"FROM orders SELECT {ranked} OVER (ORDER BY orders.id{frame})"
    accepted = accepts(fresh(running.dialect).fork(), encode(text, pointers=False))
    assert accepted == (running.explain(context(running.dialect).outer(text)) is None)
    assert accepts(fresh(running.dialect).fork(), encode(text.replace(frame, ""), pointers=False))


JOINED = "FROM customers LEFT JOIN orders ON orders.customer_id = customers.id "
BY_KEY = {
    "alone": "FROM customers GROUP BY customers.id SELECT customers.name, UPPER(customers.city)",
    "joined": JOINED + "GROUP BY customers.id SELECT customers.name, COUNT(orders.id) ORDER BY customers.name",
    "another's column": JOINED + "GROUP BY customers.id SELECT orders.total",
    "both keys": JOINED + "GROUP BY orders.id, customers.id SELECT orders.total, customers.name",
    "again": "FROM customers JOIN customers AS customers_2 ON customers.age = customers_2.age GROUP BY customers_2.id "
    "SELECT customers_2.name",
    "the other reading": "FROM customers JOIN customers AS customers_2 ON customers.age = customers_2.age "
    "GROUP BY customers_2.id SELECT customers.name",
    "a condition": "FROM customers GROUP BY customers.id HAVING customers.age > 30 AND COUNT(*) = 1 SELECT customers.city",
    "in a subquery": "FROM customers GROUP BY customers.id SELECT (FROM orders WHERE orders.customer_id = customers.age "
    "GROUP BY () SELECT MAX(orders.total))",
    "in a window": "FROM customers GROUP BY customers.id SELECT RANK() OVER (ORDER BY customers.age)",
    "computed": "FROM customers GROUP BY customers.id + 1 SELECT customers.name",
    "rolled up": "FROM customers GROUP BY ROLLUP (customers.id) SELECT customers.name",
    "derived": "FROM (FROM customers SELECT customers.id AS x1, customers.name AS x2) AS d2 GROUP BY d2.x1 SELECT d2.x2",
    "the key of a group": "FROM customers GROUP BY customers.id SELECT GROUPING(customers.name)",
}
"""Columns that follow from a primary key, and columns that do not: to PostgreSQL alone there is a difference."""


@pytest.mark.parametrize("text", BY_KEY.values(), ids=BY_KEY)
def test_columns_that_follow_from_a_key(running: Engine, text: str) -> None:  # noqa: F811
    accepted = accepts(fresh(running.dialect).fork(), encode(text, pointers=False))
    problem = running.explain(context(running.dialect).outer(text))
    # MariaDB looks at keys less closely than MySQL
    assert accepted <= (problem is None) if running.dialect == "mysql" else accepted == (problem is None), problem


def test_some_columns_follow_from_a_key() -> None:
    assert sum(accepts(fresh("postgres").fork(), encode(text, pointers=False)) for text in BY_KEY.values()) >= 7
