"""Standard SQL's steps and parts of dates in SQLite's words, which has neither INTERVAL nor EXTRACT.

Casts to dates and times mean what they mean in standard SQL too: to SQLite ``CAST('2024-05-31' AS DATE)`` is 2024.
"""

from __future__ import annotations

import re

from sqlglot import exp

_STEPS = frozenset(("YEAR", "MONTH", "DAY"))
_PARTS = {"YEAR": "%Y", "MONTH": "%m", "DAY": "%d", "HOUR": "%H", "MINUTE": "%M", "SECOND": "%S"}


def in_sqlite(query: exp.Expr) -> None:
    """Turn ``DATE '…' + INTERVAL '1' MONTH`` and ``EXTRACT(YEAR FROM …)`` into what SQLite computes, in place.

    Only what is a date beyond doubt is stepped: of a column nobody knows whether it holds times too.
    """
    # the innermost first: a date that was stepped is a date
    for sum_ in reversed(list(query.find_all(exp.Add, exp.Sub))):
        step = sum_.expression
        if isinstance(step, exp.Interval) and _dated(sum_.this) and _steps(step, sum_.this):
            sign = "-" if isinstance(sum_, exp.Sub) else "+"
            sum_.replace(exp.func("DATE", sum_.this, exp.Literal.string(f"{sign}{step.name} {step.unit}".lower())))
    for part in list(query.find_all(exp.Extract)):
        if (form := _PARTS.get(part.name.upper())) is not None:
            call = exp.Anonymous(this="STRFTIME", expressions=[exp.Literal.string(form), part.expression])
            part.replace(exp.cast(call, "int"))


def _steps(step: exp.Interval, date: exp.Expr) -> bool:
    """Whether SQLite goes as far: its months end on the same day, where standard SQL stays within the month."""
    unit = str(step.unit).upper()
    if not (isinstance(step.this, exp.Literal) and step.name.isdigit() and unit in _STEPS):
        return False
    days = [one.name for one in date.find_all(exp.Literal)][:1]
    return unit == "DAY" or (bool(days) and re.fullmatch(r"\d{4}-\d\d-(0\d|1\d|2[0-8])", days[0]) is not None)


def _dated(node: exp.Expr) -> bool:
    return isinstance(node, exp.Date) or (isinstance(node, exp.Cast) and node.to.is_type("date"))
