"""Does a query answer like its gold? Both are executed; rows are compared as what SQL says they are.

- The gold must run first: a case whose golds all fail cannot be scored.
- Rows are a multiset. Their order counts only where the gold's outermost query has an ORDER BY, and rows that tie
  under its keys may come in any order.
- Columns count in order; the same columns in another order are wrong, and reported as ``permuted``.
- Numbers are equal within a relative 1e-6, whole or not. NULL equals NULL only, text equals text only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from expert_cli.errors import ContextError
from expert_cli.task import Limits, Result, Score
from experts.sql.execute import QueryError, QueryTimeout, Worker

LIMITS = Limits(seconds=10.0, rows=100_000)
RELATIVE, ABSOLUTE = 1e-6, 1e-9
MAX_WORK = 300_000
"""Rows compared, over all partial column orders, before ``permuted`` is given up."""

Row = tuple[Any, ...]


class GoldError(ContextError):
    """A case that cannot be scored, because none of its gold queries runs."""


@dataclass(frozen=True)
class Match(Score):
    """A score; ``both_empty`` and ``permuted`` say how much luck or misfortune is in it."""

    both_empty: bool = False
    permuted: bool = False


@dataclass(frozen=True)
class Reference:
    """What a gold query returned; ``ties`` holds the lengths of its runs of equal rank, or None where order is free."""

    rows: tuple[Row, ...]
    width: int
    ties: tuple[int, ...] | None


def score(worker: Worker, predicted: str, gold: Sequence[str], limits: Limits = LIMITS) -> Match:
    """Compare ``predicted`` with every gold query; the first that it matches decides.

    Raises:
        GoldError: no gold query runs within ``limits``.
        ContextError: the database cannot be read.
    """
    references, faults = [], []
    for sql in gold:
        try:
            references.append(reference(worker, sql, limits))
        except QueryError as problem:
            faults.append(str(problem))
    if not references:
        raise GoldError(f"no gold query runs ({faults[0] if faults else 'there is none'}); correct the case")
    try:
        found = worker.run(predicted, limits)
    except QueryTimeout:
        return Match(False, f"timed out after {limits.seconds:g} s")
    except QueryError as problem:
        return Match(False, str(problem))
    if found.truncated:
        return Match(False, f"returns more than {limits.rows} rows")
    matches = [compare(found, wanted) for wanted in references]
    return max(matches, key=lambda match: (match.correct, match.permuted))


def reference(worker: Worker, sql: str, limits: Limits = LIMITS) -> Reference:
    """Execute a gold query and find which of its rows tie.

    Raises:
        QueryError: it fails, takes too long or returns more rows than ``limits`` allows.
    """
    result = worker.run(sql, limits, gold=True)
    if result.truncated:
        raise QueryError(f"the gold query returns more than {limits.rows} rows; raise the limit or narrow it")
    return Reference(result.rows, len(result.columns), _ties(worker, sql, result, limits))


def cut_in_a_tie(worker: Worker, sql: str, limits: Limits = LIMITS) -> bool:
    """Whether the LIMIT of a gold query leaves out rows that rank with its last one, so that other answers are as good.

    Raises:
        QueryError: the query fails.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(sql, dialect="sqlite")
    except SqlglotError:
        return False
    limit = tree.args.get("limit")
    if limit is None or not tree.args.get("order") or not limit.expression.is_int:
        return False
    longer = int(limit.expression.name) + 1
    limit.set("expression", exp.Literal.number(longer))
    wanted = reference(worker, tree.sql("sqlite"), limits)
    return len(wanted.rows) == longer and wanted.ties is not None and wanted.ties[-1] > 1


def compare(found: Result, wanted: Reference) -> Match:
    """Compare rows with rows."""
    empty = not found.rows and not wanted.rows
    if len(found.columns) != wanted.width:
        return Match(False, f"{len(found.columns)} columns instead of {wanted.width}", empty)
    if len(found.rows) != len(wanted.rows):
        return Match(False, f"{len(found.rows)} rows instead of {len(wanted.rows)}")
    if not same_rows(found.rows, wanted.rows):
        permuted = wanted.width > 1 and _permuted(found.rows, wanted.rows, wanted.width)
        return Match(False, "columns in another order" if permuted else "other values", permuted=permuted)
    if wanted.ties is not None and not _same_order(found.rows, wanted.rows, wanted.ties):
        return Match(False, "rows in another order")
    return Match(True, both_empty=empty)


def same_rows(left: Sequence[Row], right: Sequence[Row]) -> bool:
    """Whether both hold the same rows equally often, in any order, numbers within tolerance."""
    if len(left) != len(right):
        return False
    spare, missing = Counter(left), Counter(right)
    rest = sorted((missing - spare).elements(), key=_rank)
    for row in sorted((spare - missing).elements(), key=_rank):
        place = next((at for at, other in enumerate(rest) if same_row(row, other)), None)
        if place is None:
            return False
        del rest[place]
    return True


def same_row(left: Row, right: Row) -> bool:
    """Whether two rows are equal cell by cell, numbers within tolerance."""
    return len(left) == len(right) and all(map(_same_cell, left, right))


def _same_cell(left: Any, right: Any) -> bool:
    if isinstance(left, int | float) and isinstance(right, int | float):
        return math.isclose(left, right, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(left) is type(right) and bool(left == right)


def _rank(row: Row) -> tuple[list[str], list[float]]:
    """Sorts rows that are equal within tolerance next to each other."""
    numbers = [cell for cell in row if isinstance(cell, int | float)]
    return [repr(cell) for cell in row if not isinstance(cell, int | float)], [float(number) for number in numbers]


def _same_order(found: Sequence[Row], wanted: Sequence[Row], ties: Sequence[int]) -> bool:
    at = 0
    for length in ties:
        if not same_rows(found[at : at + length], wanted[at : at + length]):
            return False
        at += length
    return True


def _permuted(found: Sequence[Row], wanted: Sequence[Row], width: int) -> bool:
    """Whether some order of the found columns gives the wanted rows; False too where finding out takes too long."""
    columns = [[(row[at],) for row in found] for at in range(width)]
    alike = [
        [at for at, column in enumerate(columns) if same_rows(column, [(row[place],) for row in wanted])]
        for place in range(width)
    ]
    work = 0

    def place(chosen: tuple[int, ...]) -> bool:
        nonlocal work
        if len(chosen) == width:
            return True
        prefix = [row[: len(chosen) + 1] for row in wanted]
        for column in alike[len(chosen)]:
            if column in chosen or work > MAX_WORK:
                continue
            work += len(wanted)
            order = (*chosen, column)
            if same_rows([tuple(row[at] for at in order) for row in found], prefix) and place(order):
                return True
        return False

    return all(alike) and place(())


def _ties(worker: Worker, sql: str, result: Result, limits: Limits) -> tuple[int, ...] | None:
    """Lengths of the runs of rows of equal rank, all 1 where their keys are out of reach; None without ORDER BY."""
    strict = (1,) * len(result.rows)
    keyed = _with_keys(sql, result)
    if keyed is None or not strict:
        return None if keyed is None else strict
    extended, places = keyed
    if not places:
        return strict
    rows = result.rows
    if extended:
        try:
            rows = worker.run(extended, limits, gold=True).rows
        except QueryError:
            return strict  # the keys cannot be shown beside the rows; the order then counts to the last row
        if tuple(row[: len(result.columns)] for row in rows) != result.rows:
            return strict
    return tuple(_runs(rows, places))


def _runs(rows: Sequence[Row], places: Sequence[int]) -> Iterator[int]:
    for _, run in groupby(rows, key=lambda row: [row[place] for place in places]):
        yield sum(1 for _ in run)


def _with_keys(sql: str, result: Result) -> tuple[str, list[int]] | None:
    """The gold query with its ORDER BY keys as further columns ('' where it shows them all), and where the keys stand.

    None where the outermost query has no ORDER BY; no places where the keys cannot be found.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(sql, dialect="sqlite")
    except SqlglotError:
        return ("", []) if "order by" in sql.rpartition(")")[2].lower() else None
    while isinstance(tree, exp.Subquery) and not tree.args.get("order"):
        tree = tree.this
    order = tree.args.get("order")
    if order is None:
        return None
    items = tree.selects if isinstance(tree, exp.Query) else []
    starred = any(item.is_star for item in items)
    shown = {item.unalias().sql("sqlite").lower(): at for at, item in enumerate(items) if not starred}
    shown |= {name.lower(): at for at, name in reversed(list(enumerate(result.columns)))}
    places: list[int] = []
    extra: list[exp.Expr] = []
    for ordered in order.expressions:
        key = ordered.this
        text = key.sql("sqlite").lower()
        if isinstance(key, exp.Literal) and key.is_int:
            places.append(int(key.name) - 1)
        elif text in shown or (isinstance(key, exp.Column) and not key.table and key.name.lower() in shown):
            places.append(shown.get(text, shown.get(key.name.lower(), 0)))
        elif isinstance(tree, exp.Select) and not tree.args.get("distinct"):
            places.append(len(result.columns) + len(extra))
            extra.append(exp.alias_(key.copy(), f"key_{len(extra)}"))
        else:
            return "", []
    if extra:
        tree.set("expressions", [*tree.expressions, *extra])
    return (tree.sql("sqlite") if extra else ""), places
