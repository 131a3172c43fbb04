"""FROM without its parentheses, where they change nothing: the grammars join one source after the other."""

from __future__ import annotations

from sqlglot import exp


def opened(source: exp.Expr) -> tuple[exp.Expr, list[exp.Join]]:
    """What ``(a JOIN b …)`` reads first, and the joins that follow in it; any other source by itself."""
    joins = list(source.args.get("joins") or [])
    while isinstance(source, exp.Subquery) and isinstance(source.this, exp.Table | exp.Subquery):
        inside, alias = source.this.copy(), source.args.get("alias")
        if alias and inside.args.get("joins"):
            break  # the joined columns are called by it
        if alias:
            inside.set("alias", alias.copy())
        source = inside
        joins = [*(source.args.get("joins") or []), *joins]
    return source, joins


def inlined(join: exp.Join) -> list[exp.Join]:
    """``JOIN (b JOIN c ON …) ON …`` as two joins in a row, where both are inner ones."""
    first, joins = opened(join.this)
    if not joins:
        return [exp.Join(**{**join.args, "this": first})]
    last = joins[-1]
    if not (_plain(join) and _plain(last) and all(_plain(one) or one.side == "LEFT" for one in joins)):
        return [join]
    conditions = [one.args["on"].copy() for one in (last, join) if one.args.get("on")]
    both = exp.Join(this=last.this.copy(), on=exp.and_(*conditions) if conditions else None)
    return [exp.Join(this=first), *(part for one in [*joins[:-1], both] for part in inlined(one))]


def led(arm: exp.Expr, name: str) -> exp.Expr:
    """``arm``, with the source called ``name`` first where it is second and the order of both says nothing."""
    joins = arm.args.get("joins") or []
    if not isinstance(arm, exp.Select) or not joins or any(isinstance(item, exp.Star) for item in arm.expressions):
        return arm
    first, second = arm.args["from_"].this, joins[0].this
    if any(join.args.get("using") or join.method for join in joins):
        return arm  # what they share is looked for in order
    whole = not (first.args.get("joins") or second.args.get("joins"))
    if whole and isinstance(second, exp.Table) and second.name.lower() == name and _plain(joins[0]):
        arm.set("from_", exp.From(this=second.copy()))
        joins[0].set("this", first.copy())
    return arm


def _plain(join: exp.Join) -> bool:
    """Whether it is an inner join with a condition or without."""
    return join.kind in ("", "INNER", "CROSS") and not (join.side or join.method or join.args.get("using"))
