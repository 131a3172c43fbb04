"""Standard SQL's steps and parts of dates in SQLite's words, which has neither INTERVAL nor EXTRACT."""

from __future__ import annotations

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
        if isinstance(step, exp.Interval) and _dated(sum_.this) and str(step.unit).upper() in _STEPS:
            sign = "-" if isinstance(sum_, exp.Sub) else "+"
            sum_.replace(exp.func("DATE", sum_.this, exp.Literal.string(f"{sign}{step.name} {step.unit}".lower())))
    for part in list(query.find_all(exp.Extract)):
        if (form := _PARTS.get(part.name.upper())) is not None:
            call = exp.Anonymous(this="STRFTIME", expressions=[exp.Literal.string(form), part.expression])
            part.replace(exp.cast(call, "int"))


def _dated(node: exp.Expr) -> bool:
    return isinstance(node, exp.Date) or (isinstance(node, exp.Cast) and node.to.is_type("date"))
