"""Keys of ORDER BY and GROUP BY as they are turned: aliases, numbers, windows, and what stars bring."""

from __future__ import annotations

import pytest
from test_turned import context, fresh, given  # noqa: F401

from expert_cli.errors import ContextError
from expert_cli.grammar.verdict import judge
from experts.sql.plugin import SqlContext

SORTED = {
    "a window's alias": "SELECT x, RANK() OVER (ORDER BY p DESC) AS r FROM a ORDER BY r, x",
    "a key that is not selected": "SELECT x, ROW_NUMBER() OVER (ORDER BY x, p) AS n FROM a ORDER BY p, n DESC NULLS LAST",
    "a window beside a star": "SELECT *, ROW_NUMBER() OVER (ORDER BY x DESC, p) AS n FROM a ORDER BY n",
    "a window in an expression": "SELECT x, p - AVG(p) OVER (PARTITION BY x) AS d FROM a ORDER BY d, 1 DESC",
    "a window's number": "SELECT x, SUM(p) OVER (ORDER BY x, p) FROM a ORDER BY 2 DESC, x",
    "a window over groups": "SELECT p, COUNT(*) * 100.0 / SUM(COUNT(*)) OVER () AS s FROM a GROUP BY p ORDER BY s, p",
    "a rank of groups": "SELECT p, RANK() OVER (ORDER BY COUNT(*) DESC) AS r FROM a GROUP BY p ORDER BY r, p",
    "a window, all alike once": "SELECT DISTINCT p, DENSE_RANK() OVER (ORDER BY p) AS r FROM a ORDER BY r DESC",
    "a window in a subquery": "SELECT x FROM a WHERE x IN (SELECT RANK() OVER (ORDER BY y) FROM b ORDER BY 1) ORDER BY x",
    "a number of a star": "SELECT * FROM a ORDER BY 2 DESC, 1",
    "a number of two stars": "SELECT b.*, a.* FROM a JOIN b ON a.x = b.x ORDER BY 4, 2, 1, 3",
    "a number of what USING joins": "SELECT * FROM a JOIN b USING (x) ORDER BY 3, 2, 1",
    "a group's number of a star": "SELECT * FROM a GROUP BY 2 ORDER BY 2",
    "constants": "SELECT 2 AS n UNION SELECT 1 UNION ALL SELECT 2 ORDER BY n DESC LIMIT 2",
    "wide constants": "SELECT 2, 'b' UNION SELECT 1, 'c' UNION SELECT 1, 'a' ORDER BY 1, 2 DESC",
    "a recursion that is cut": "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t LIMIT 4) SELECT n FROM t ORDER BY n DESC",
    "a recursion, the deepest first": "WITH RECURSIVE t(i, n) AS (SELECT x, 0 FROM a WHERE p = 1 UNION "
    "SELECT b.x, n + 1 FROM t JOIN b ON n < 2 ORDER BY 2 DESC, 1 LIMIT 7) SELECT i, n FROM t ORDER BY n, i",
    "a sign": "SELECT x, p FROM a ORDER BY -x, -p",
    "whether there is a value": "SELECT x, p FROM a ORDER BY p IS NULL, x DESC, p",
    "what is in a list": "SELECT x, p FROM a ORDER BY x IN (2, 3) DESC, x NOT BETWEEN 1 AND 2, x, p",
}
"""Keys of ORDER BY, unique together: the rows come in this order."""

MISTAKEN = [
    "SELECT x, 1 AS kind FROM a ORDER BY kind, x DESC, p",
    "SELECT *, 1 AS k FROM a ORDER BY k, x DESC, p",
    "SELECT 2, x, p FROM a ORDER BY 1 DESC, x, p",
    "SELECT RANK() OVER (ORDER BY x DESC) AS r, 1 AS k, x, p FROM a ORDER BY k, x, p",
    "SELECT x, (1) AS k, p FROM a ORDER BY (k), x DESC, p",
    "SELECT p, 'all' AS k, COUNT(*) FROM a GROUP BY k, p ORDER BY k, p",
    "SELECT *, -x AS x FROM a ORDER BY x, p",
    "SELECT a.*, -x AS x FROM a ORDER BY x, p LIMIT 2",
    "SELECT *, RANK() OVER (ORDER BY x) AS p FROM a ORDER BY p, x",
    "SELECT -x AS x, * FROM a ORDER BY x, p",
    "SELECT *, -y AS y FROM (SELECT x, y FROM b) ORDER BY y, x",
    "SELECT -x AS x, p FROM a ORDER BY RANK() OVER (ORDER BY x), p",
    "SELECT -x AS x, p FROM a WINDOW w AS (ORDER BY x) ORDER BY ROW_NUMBER() OVER w, p",
    "SELECT -x AS x, p FROM a ORDER BY (x) + 1, p",
    "SELECT -x AS x, p FROM a ORDER BY CASE WHEN (x) > 1 THEN 0 ELSE 1 END, p, x",
    "SELECT p, -x AS x FROM a GROUP BY p, x ORDER BY SUM((x)), p",
    "SELECT * FROM (SELECT p, COUNT(*), SUM(x) AS s FROM a GROUP BY p) ORDER BY 3, 1",
    "SELECT COUNT(*), t.* FROM (SELECT x + 1, p FROM a) AS t GROUP BY 3 ORDER BY 3",
    "WITH t AS (SELECT x, p AS x, x + p AS s FROM a) SELECT * FROM t ORDER BY 2, 1",
    "SELECT * FROM a, (SELECT x FROM b) ORDER BY 3, 1, 2",
    "SELECT * FROM (SELECT x FROM a), (SELECT x FROM b) ORDER BY 2, 1",
    "SELECT n FROM (SELECT p AS n, x AS n FROM a) ORDER BY n",
    "SELECT * FROM (SELECT x, p + 1 FROM a) AS t JOIN b USING (x) ORDER BY x, 2, y",
    "SELECT b.x, a.p FROM a LEFT JOIN b USING (x) UNION SELECT y, x FROM b ORDER BY x, 1, 2 LIMIT 4",
    "WITH RECURSIVE t AS (SELECT x, 0 AS n FROM a WHERE p = 2 UNION SELECT b.y, t.n + 1 FROM b JOIN t ON t.n < 2 "
    "JOIN c USING (y)) SELECT x, n FROM t ORDER BY x, n",
    "SELECT -x AS x, p FROM a ORDER BY x COLLATE NOCASE, p",
    "SELECT x, p FROM a ORDER BY 2 COLLATE NOCASE, 1",
]
"""Where an alias, a number or a name may be taken for another: the same rows in the same order, or a refusal."""


@pytest.mark.parametrize("sql", SORTED.values(), ids=SORTED)
def test_sorted(context: SqlContext, sql: str) -> None:  # noqa: F811
    inner = context.inner(sql)
    assert judge(fresh(context), inner).accepted, inner
    assert given(context.outer(inner)) == given(sql)


@pytest.mark.parametrize("sql", MISTAKEN)
def test_mistaken(context: SqlContext, sql: str) -> None:  # noqa: F811
    try:
        inner = context.inner(sql)
    except ContextError:
        return
    if judge(fresh(context), inner).accepted:
        assert given(context.outer(inner)) == given(sql)


def test_most_are_not_refused(context: SqlContext) -> None:  # noqa: F811
    taken = 0
    for sql in MISTAKEN:
        try:
            taken += judge(fresh(context), context.inner(sql)).accepted
        except ContextError:
            continue
    assert taken > len(MISTAKEN) / 2, taken
