"""Print expressions in the one style of the grammars that write names out, whatever the dialect."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.generator import Generator

_WORD = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|\s+")


_COMPARED = frozenset(("=", "!=", "<", ">", "<=", ">="))


class _Style:
    """What every dialect's generator is told to do otherwise."""

    def neq_sql(self: Any, expression: exp.NEQ) -> str:
        return str(self.binary(expression, "!="))

    def binary(self: Any, expression: exp.Binary, op: str) -> str:
        left, right = expression.this, expression.expression
        if op in _COMPARED and isinstance(left, exp.Collate) and isinstance(right, exp.Column | exp.Literal | exp.Var):
            # a collation counts on either side
            return f"{self.sql(left, 'this')} {op} {self.sql(right)} COLLATE {self.sql(left, 'expression').upper()}"
        return str(super().binary(expression, op))  # type: ignore[misc]

    def nullsafeeq_sql(self: Any, expression: exp.NullSafeEQ) -> str:
        return str(self.binary(expression, "IS NOT DISTINCT FROM"))

    def nullsafeneq_sql(self: Any, expression: exp.NullSafeNEQ) -> str:
        return str(self.binary(expression, "IS DISTINCT FROM"))

    def not_sql(self: Any, expression: exp.Not) -> str:
        inner = expression.this.unnest() if isinstance(expression.this, exp.Paren) else expression.this
        if isinstance(inner, exp.Is):
            return f"{self.sql(inner, 'this')} IS NOT {self.sql(inner, 'expression')}"
        if isinstance(inner, exp.In | exp.Like | exp.ILike | exp.Between | exp.Glob | exp.SimilarTo):
            subject = self.sql(inner, "this")
            return f"{subject} NOT {self.sql(inner)[len(subject) + 1 :]}"
        return f"NOT {self.sql(inner)}" if isinstance(inner, exp.Exists) else f"NOT {self.sql(expression, 'this')}"

    def exists_sql(self: Any, expression: exp.Exists) -> str:
        return f"EXISTS ({self.sql(expression, 'this')})"

    def neg_sql(self: Any, expression: exp.Neg) -> str:
        inner = self.sql(expression, "this")
        return f"-({inner})" if inner.startswith("-") else f"-{inner}"

    def collate_sql(self: Any, expression: exp.Collate) -> str:
        return f"{self.sql(expression, 'this')} COLLATE {self.sql(expression, 'expression').upper()}"

    def literal_sql(self: Any, expression: exp.Literal) -> str:
        if expression.is_string:
            return "'" + str(expression.this).replace("'", "''") + "'"
        text = str(expression.this)
        return ("0" + text if text.startswith(".") else text + "0" if text.endswith(".") else text).upper()

    def windowspec_sql(self: Any, expression: exp.WindowSpec) -> str:
        kind = str(expression.args["kind"]).upper()
        ends = [
            f"{self.sql(expression, name)} {expression.args.get(name + '_side') or ''}".strip()
            for name in ("start", "end")
        ]
        left_out = f" EXCLUDE {self.sql(expression, 'exclude')}" if expression.args.get("exclude") else ""
        return f"{kind} BETWEEN {ends[0]} AND {ends[1] or 'CURRENT ROW'}{left_out}".upper()


@cache
def _generator(dialect: str) -> type[Generator]:
    base = Dialect.get_or_raise(dialect).generator_class
    # by SQLite's affinities: a number of a declared precision may stay whole
    kept = {exp.DataType.Type.DECIMAL: "NUMERIC", exp.DataType.Type.BOOLEAN: "NUMERIC"} if dialect == "sqlite" else {}
    return type("Writer", (_Style, base), {"TYPE_MAPPING": base.TYPE_MAPPING | kept})


def write(expression: exp.Expression, dialect: str) -> str:
    """``expression`` on one line: upper-case keywords, single spaces."""
    made = _generator(dialect)(dialect=dialect, comments=False, normalize_functions="upper")
    text = str(made.generate(expression, copy=False))
    return _WORD.sub(lambda match: " " if match.group().isspace() else match.group(), text).strip()
