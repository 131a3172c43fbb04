"""The one spelling that the typed grammars have for constructs that SQL can say in several ways."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from sqlglot import exp

CLOCK = frozenset(("HOUR", "MINUTE", "SECOND", "DOW", "DOY", "EPOCH"))
_FLIPPED: dict[type, type[exp.Binary]] = {
    exp.EQ: exp.EQ,
    exp.NEQ: exp.NEQ,
    exp.LT: exp.GT,
    exp.GT: exp.LT,
    exp.LTE: exp.GTE,
    exp.GTE: exp.LTE,
}
_FOLDED: dict[type, Callable[[Decimal, Decimal], Decimal]] = {
    exp.Add: Decimal.__add__,
    exp.Sub: Decimal.__sub__,
    exp.Mul: Decimal.__mul__,
}
_ARITHMETIC = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.DPipe)


def spelt(query: exp.Query, dialect: str, *, repairs: bool = True) -> exp.Query:
    """``query`` with each construct in the one spelling of the grammars; ``repairs`` adds casts that servers need."""
    changed = query.transform(lambda node: _spell(node, dialect))
    changed = changed.transform(lambda node: _repaired(node, dialect)) if repairs else changed
    assert isinstance(changed, exp.Query)
    return changed


def _spell(node: exp.Expr, dialect: str) -> exp.Expr:
    if isinstance(node, exp.If) and not isinstance(node.parent, exp.Case):
        return exp.Case(ifs=[exp.If(this=node.this, true=node.args["true"])], default=node.args.get("false"))
    if isinstance(node, exp.Case) and node.this is not None:
        for one in node.args["ifs"]:
            one.set("this", exp.EQ(this=node.this.copy(), expression=one.this.copy()))
        node.set("this", None)
    elif type(node) in _FLIPPED and isinstance(node.this, exp.Literal) and not isinstance(node.expression, exp.Literal):
        return _FLIPPED[type(node)](this=node.expression, expression=node.this)
    elif type(node) in _FOLDED and all(
        isinstance(one, exp.Literal) and one.is_number for one in (node.this, node.expression)
    ):
        return exp.Literal.number(str(_FOLDED[type(node)](Decimal(node.this.name), Decimal(node.expression.name))))
    elif isinstance(node, exp.Cast) and isinstance(node.this, exp.Literal) and node.this.is_string:
        if node.to.is_type("date", "timestamp", "datetime"):
            word = "DATE" if node.to.is_type("date") else "TIMESTAMP"
            return exp.Var(this=f"{word} {node.this.sql()}")
    elif isinstance(node, exp.Substring):
        parts = [node.this, node.args.get("start"), node.args.get("length")]
        return exp.Anonymous(this="SUBSTRING", expressions=[part for part in parts if part is not None])
    elif isinstance(node, exp.All | exp.Any) and isinstance(node.this, exp.Subquery):
        node.set("this", node.this.this)
    elif isinstance(node, exp.Paren):
        # AND, OR and some operators are functions to sqlglot
        bare = not isinstance(node.this, exp.Binary | exp.Unary) and (
            not isinstance(node.this, exp.Condition)
            or isinstance(node.this, exp.Column | exp.Literal | exp.Func | exp.Subquery | exp.Case)
        )
        inside = isinstance(node.this, _ARITHMETIC) and not isinstance(node.parent, (*_ARITHMETIC, exp.Paren))
        if (bare or inside) and not isinstance(node.parent, exp.Cube | exp.Rollup | exp.GroupingSets):
            inner: exp.Expr = node.this
            return inner
    return node


def _repaired(node: exp.Expr, dialect: str) -> exp.Expr:
    if isinstance(node, exp.Extract) and node.name.upper() in CLOCK and not isinstance(node.expression, exp.Cast):
        kind = "datetime" if dialect == "mysql" else "timestamp"
        node.set("expression", exp.cast(node.expression, kind, dialect=dialect))
    elif isinstance(node, exp.Round) and dialect == "postgres" and node.args.get("decimals"):
        node.set("this", node.this if isinstance(node.this, exp.Cast) else exp.cast(node.this, "decimal"))
    return node
