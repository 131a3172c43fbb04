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
