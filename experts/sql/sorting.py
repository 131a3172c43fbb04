"""Sort keys: what they mean in a set operation, and which way they go."""

from __future__ import annotations

from sqlglot import exp


def numbered(key: exp.Expr, first: exp.Expr) -> str:
    """Which column of a set operation a key means, by its ``first`` arm: an alias, an item, or the column of one.

    Where sources are merged, by USING or NATURAL, nobody can tell whose a bare name is.
    """
    selected = first.selects if isinstance(first, exp.Query) else []
    merged = any(join.args.get("using") or join.args.get("method") for join in first.args.get("joins") or [])
    if isinstance(key, exp.Literal):
        return key.name
    name = key.name.lower() if isinstance(key, exp.Column) and not key.table else ""
    ways = (
        [bool(name) and isinstance(item, exp.Alias) and item.alias.lower() == name for item in selected],
        [item.unalias() == key for item in selected],
        [bool(name) and isinstance(item, exp.Column) and item.name.lower() == name and not merged for item in selected],
    )
    return next((str(way.index(True) + 1) for way in ways if True in way), "")


def direction(key: exp.Expr, dialect: str) -> str:
    """DESC, and where NULLs come if that is not where ``dialect`` has them anyway."""
    if not isinstance(key, exp.Ordered):
        return ""
    down, first = bool(key.args.get("desc")), bool(key.args.get("nulls_first"))
    usual = {"postgres": down, "duckdb": False}.get(dialect, not down)
    return " DESC" * down + (f" NULLS {'FIRST' if first else 'LAST'}" if first != usual else "")
