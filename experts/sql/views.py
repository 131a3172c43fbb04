"""The columns of a view, read off its query, as a server's dump has it."""

from __future__ import annotations

from sqlglot import exp, parse_one
from sqlglot.errors import SqlglotError

from expert_cli.errors import ContextError
from experts.sql.expand import UNNAMED
from experts.sql.fromfirst import sources
from experts.sql.kinds import COMPUTED, GIVEN, MARK, NUMBER, TEXT, TIME, TRUTH, WHOLE, declared
from experts.sql.schema import Column, Schema
from experts.sql.tongues import written_out
from experts.sql.typed_inner import TypedTurning

_NAME = "the_view_itself"
_TYPES = {WHOLE: "integer", NUMBER: "numeric", TEXT: "text", TIME: "timestamp", TRUTH: "boolean"}
UNKNOWN = "unknown"
"""The type of a column that can be listed and counted, but not compared."""

# What is of the kind that the grammars' own rules say. Of other calls nobody knows what they give.
_SURE = frozenset(
    (
        *(exp.Column, exp.Identifier, exp.Star, exp.Literal, exp.Null, exp.Boolean, exp.Paren, exp.Alias, exp.Distinct),
        *(exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.DPipe, exp.And, exp.Or, exp.Not),
        *(exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.In, exp.Between, exp.Like, exp.ILike),
        *(exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Coalesce, exp.Nullif, exp.Case, exp.If, exp.Filter),
        *(exp.Upper, exp.Lower, exp.Length, exp.Round, exp.Abs, exp.Concat, exp.Cast, exp.DataType, exp.DataTypeParam),
    )
)


def columns(query: str, named: list[str], schema: Schema, dialect: str) -> tuple[Column, ...]:
    """What a view over ``schema`` shows; ``named`` are the names that it gives its columns itself, if any.

    Raises:
        ContextError: its columns cannot be told.
    """
    try:
        tree = parse_one(query, dialect=dialect)
    except (SqlglotError, RecursionError) as problem:
        raise ContextError(f"its query cannot be read: {str(problem).splitlines()[0][:120]}") from problem
    if not isinstance(tree, exp.Query):
        raise ContextError("it is made of no query")
    within = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    read = {table.name.lower() for table in tree.find_all(exp.Table)} - within
    if not read <= schema.by_name.keys():
        raise ContextError(f"it reads from {', '.join(sorted(read - schema.by_name.keys()))}, which is not here")
    schema = Schema(tuple(schema.by_name[name] for name in sorted(read)) or schema.tables)
    for table in tree.find_all(exp.Table):
        table.set("db", None)
    for call in list(tree.find_all(exp.Anonymous)):
        if call.name.lower() == "count_star":  # so DuckDB writes COUNT(*) down
            call.replace(exp.Count(this=exp.Star()))
    whole = not any(item.is_star for item in tree.selects)
    listed = named or (tree.named_selects if whole else [])
    types = [_copied(item, tree, schema, within) for item in tree.selects] if whole else []
    try:
        mentioned, kinds = _shown(tree.copy(), schema, dialect)
    except (ContextError, SqlglotError, RecursionError) as problem:
        if not listed or "" in listed or len(listed) != len(types):
            raise ContextError(f"its columns cannot be told: {problem}") from problem
        return tuple(Column(name, known or UNKNOWN) for name, known in zip(listed, types, strict=True))
    if len(listed) != len(kinds):
        spelled = {one.name.lower(): one.name for one in schema.columns.values()}
        spelled |= {name.lower(): name for name in tree.named_selects}
        places = {int(written[1:]): spelled.get(name, name) for name, written in mentioned.items()}
        listed = [places.get(place, "") for place, _ in enumerate(kinds, 1)]
    told = [_type(kind) if sure else UNKNOWN for kind, sure in zip(kinds, _known(tree, len(kinds)), strict=True)]
    types = [known or kind for known, kind in zip(types or [""] * len(kinds), told, strict=True)]
    return tuple(Column(name, known) for name, known in zip(listed, types, strict=True) if name)


def _shown(query: exp.Query, schema: Schema, dialect: str) -> tuple[dict[str, str], list[str]]:
    """A query's columns, mentioned to x1, x2 …, and the kinds of these."""
    turning = TypedTurning(written_out(schema, dialect), dialect)
    turning.whole(exp.select("1").from_(exp.to_table(_NAME, dialect=dialect)).with_(_NAME, as_=query))
    seen = turning.named[_NAME]
    named = {name: written for name, written in seen.columns.items() if not name.startswith(UNNAMED)}
    return named, turning.results[seen.written]


def _copied(item: exp.Expr, query: exp.Query, schema: Schema, within: set[str]) -> str:
    """The declared type of the column that an output is as it stands in its table; nothing where it is none."""
    column = item.unalias().unnest()
    if not isinstance(query, exp.Select) or not isinstance(column, exp.Column):
        return ""
    named = {
        table.alias_or_name.lower(): table.name.lower()
        for table in query.find_all(exp.Table)
        if table.parent_select is query and table.name.lower() not in within
    }
    # a name without its table is that of the only source
    alone = column.table == "" and len(sources(query)) == len(named) == 1
    owner = next(iter(named.values())) if alone else named.get(column.table.lower(), "")
    found = schema.columns.get((owner, column.name.lower()))
    return found.type if found else ""


def _known(query: exp.Query, count: int) -> list[bool]:
    """Of each of ``count`` outputs, whether its inferred kind is its own, given that of all that it may come from."""
    below = all(
        _sure(item) for select in query.find_all(exp.Select) if select is not query for item in select.expressions
    )
    own = [_sure(item) for item in query.selects] if isinstance(query, exp.Select) else []
    return [below and sure for sure in (own if len(own) == count else [all(own)] * count)]


def _sure(item: exp.Expr) -> bool:
    """Whether the kind that is inferred for an expression is its own."""
    return all(
        type(node) in _SURE
        and (not isinstance(node, exp.Cast) or declared(node.to.sql().lower()) in (WHOLE, NUMBER, TEXT))
        for node in item.walk()
    )


def _type(kind: str) -> str:
    plain = kind.removeprefix(COMPUTED).removeprefix(GIVEN)
    return _TYPES.get(plain, plain.removeprefix(MARK) if plain.startswith(MARK) else UNKNOWN)
