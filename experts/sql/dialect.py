"""From the SQLite query that is run to the same query in the user's dialect.

sqlglot prints the words of each dialect; what it leaves as SQLite means it is settled here: case-blind LIKE, columns
that a GROUP BY does not name, integer division, truth values that are added up, names that are reserved elsewhere,
and functions that no rule covers, which are refused rather than passed on.

Where the schema is known, :mod:`.affinity` says what SQLite converts, and spells names as the server does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError

from expert_cli.errors import ContextError
from experts.sql.affinity import Affinity
from experts.sql.guard import DIALECTS, names

_POSTGRES_RESERVED = """
all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation column
concurrently constraint create cross current_catalog current_date current_role current_schema current_time
current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze from
full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit localtime
localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references returning
right select session_user similar some symmetric system_user table tablesample then to trailing true union unique user
using variadic verbose when where window with
"""
_MYSQL_RESERVED = """
accessible add all alter analyze and as asc asensitive before between bigint binary blob both by call cascade case
change char character check collate column condition constraint continue convert create cross cube cume_dist
current_date current_role current_time current_timestamp current_user cursor database databases day_hour day_microsecond
day_minute day_second dec decimal declare default delayed delete delete_domain_id dense_rank desc describe deterministic
distinct distinctrow div do_domain_ids double drop dual each else elseif empty enclosed escaped except exists exit
explain false fetch first_value float float4 float8 for force foreign from fulltext function generated get grant group
grouping groups having high_priority hour_microsecond hour_minute hour_second if ignore ignore_domain_ids in index
infile inner inout insensitive insert int int1 int2 int3 int4 int8 integer intersect interval into io_after_gtids
io_before_gtids is iterate join json_table key keys kill lag last_value lateral lead leading leave left like limit
linear lines load localtime localtimestamp lock long longblob longtext loop low_priority manual master_demote_to_replica
master_demote_to_slave master_ssl_verify_server_cert match maxvalue mediumblob mediumint mediumtext middleint
minute_microsecond minute_second mod modifies natural no_write_to_binlog not nth_value ntile null numeric of offset on
optimize optimizer_costs option optionally or order out outer outfile over page_checksum parallel parse_vcol_expr
partition percent_rank portion precision primary procedure purge qualify range rank read read_write reads real recursive
ref_system_id references regexp release rename repeat replace require resignal restrict return returning revoke right
rlike row row_number rows schema schemas second_microsecond select sensitive separator set show signal smallint spatial
specific sql sql_big_result sql_buffer_result sql_cache sql_calc_found_rows sql_no_cache sql_small_result sqlexception
sqlstate sqlwarning ssl starting stats_auto_recalc stats_persistent stats_sample_pages stored straight_join system table
tablesample terminated then tinyblob tinyint tinytext to trailing trigger true undo union unique unlock unsigned update
usage use using utc_date utc_time utc_timestamp values varbinary varchar varcharacter varying virtual when where while
window with write xor year_month zerofill
"""
RESERVED = {
    "postgres": frozenset(_POSTGRES_RESERVED.split()),
    "duckdb": frozenset(_POSTGRES_RESERVED.split())
    | frozenset(
        "anti asof at by describe glob lambda pivot pivot_longer pivot_wider positional qualify semi show summarize "
        "unpack unpivot".split()
    ),
    "mysql": frozenset(_MYSQL_RESERVED.split()),
}
"""Words that each dialect does not take as a name without quotes."""

SAME_CALL = {
    "postgres": frozenset({"concat", "concat_ws", "format", "octet_length", "mod", "sign"}),
    "duckdb": frozenset({"concat", "concat_ws", "printf", "mod", "sign"}),
    "mysql": frozenset({"concat", "concat_ws", "hex", "octet_length", "quote", "soundex", "mod", "sign"}),
}
"""Functions that sqlglot does not model and that mean the same as SQLite's."""

CLAUSES = ("group", "having", "order", "limit", "distinct")
Rewrite = Callable[[exp.Expr, str], None]


def tidy(statement: exp.Expr) -> str:
    """SQLite text of ``statement``, without the table's name before columns where only one table is in reach."""
    tree = statement.copy()
    for column in list(tree.find_all(exp.Column)):
        select = column.find_ancestor(exp.Select)
        source = select and select.args.get("from_")
        if select is None or source is None or select.args.get("joins") or select.args.get("laterals"):
            continue
        taken = {item.alias.lower() for item in select.expressions if isinstance(item, exp.Alias)}
        if column.table and source.alias_or_name.lower() == column.table.lower() and column.name.lower() not in taken:
            column.set("table", None)
    return tree.sql("sqlite", comments=False)


def transpile(query: str, dialect: str, affinity: Affinity | None = None) -> str:
    """``query``, written for SQLite, in ``dialect``; ``affinity`` knows its columns.

    Raises:
        ContextError: the dialect is unknown, or the query has no equal in it.
    """
    if dialect not in DIALECTS:
        raise ContextError(f"unknown dialect {dialect!r}; choose one of {', '.join(DIALECTS)}")
    if dialect == "sqlite":
        return query
    try:
        tree = sqlglot.parse_one(query, dialect="sqlite")
        if affinity is not None:
            affinity.say(tree, dialect)
        for rewrite in REWRITES:
            rewrite(tree, dialect)
        _refuse(tree, dialect)
        return tree.sql(dialect, comments=False, unsupported_level=ErrorLevel.RAISE)
    except SqlglotError as problem:
        raise _unwritable(dialect, str(problem).splitlines()[0]) from problem


def _unwritable(dialect: str, reason: str) -> ContextError:
    return ContextError(f"the query cannot be written for {dialect}: {reason}; use --dialect sqlite or ask differently")


def _refuse(tree: exp.Expr, dialect: str) -> None:
    for node in tree.walk():
        if isinstance(node, exp.Anonymous) and not names(node) & SAME_CALL[dialect]:
            raise _unwritable(dialect, f"{node.name.upper()} has no equal there")
        if isinstance(node, exp.Glob) and dialect != "duckdb":
            raise _unwritable(dialect, "GLOB has no equal there")


def _like(tree: exp.Expr, dialect: str) -> None:
    """SQLite's LIKE ignores the case of ASCII letters."""
    if dialect != "mysql":
        for like in list(tree.find_all(exp.Like)):
            like.replace(exp.ILike(**like.args))


def _truth(tree: exp.Expr, dialect: str) -> None:
    """A comparison counts as 0 or 1 where it is added up."""
    for node in list(tree.find_all(exp.Predicate, exp.Connector, exp.Not)):
        parent = node.parent.parent if isinstance(node.parent, exp.Paren) else node.parent
        summed = isinstance(parent, exp.Sum | exp.Avg | exp.Add | exp.Sub | exp.Mul | exp.Div)
        if summed and dialect != "mysql":
            top = node.parent if isinstance(node.parent, exp.Paren) else node
            top.replace(exp.cast(node.copy(), "int"))


def _calls(tree: exp.Expr, dialect: str) -> None:
    for call in list(tree.find_all(exp.Anonymous)):
        if call.name.lower() == "total" and len(call.expressions) == 1:
            whole: exp.Expr = exp.Sum(this=call.expressions[0])
            call.replace(whole)
            while isinstance(whole.parent, exp.Filter | exp.Window) and whole.arg_key == "this":
                whole = whole.parent
            whole.replace(exp.Coalesce(this=whole.copy(), expressions=[exp.Literal.number("0.0")]))
    for day in list(tree.find_all(exp.Date)):
        if isinstance(day.this, exp.Literal) and day.this.name.lower() == "now":
            day.replace(exp.CurrentDate())


def _division(tree: exp.Expr, dialect: str) -> None:
    """Integers divide to an integer in SQLite and PostgreSQL, not in MySQL and DuckDB."""
    for division in list(tree.find_all(exp.Div)):
        if isinstance(division.right, exp.Literal) and division.right.is_number and float(division.right.name) != 0:
            division.set("safe", False)
        if dialect != "postgres" and _whole(division.left) and _whole(division.right):
            division.replace(exp.IntDiv(this=division.left.copy(), expression=division.right.copy()))


def _whole(node: exp.Expr) -> bool:
    """Whether ``node`` is an integer whatever the columns hold."""
    if isinstance(node, exp.Paren | exp.Neg):
        return _whole(node.this)
    if isinstance(node, exp.Add | exp.Sub | exp.Mul):
        return _whole(node.left) and _whole(node.right)
    return isinstance(node, exp.Count | exp.Length) or (isinstance(node, exp.Literal) and node.is_int)


def _groups(tree: exp.Expr, dialect: str) -> None:
    """SQLite picks a value for a column outside GROUP BY: that of the row where a lone MIN or MAX is, else any."""
    for select in list(tree.find_all(exp.Select)):
        aggregates = [call for call in select.find_all(exp.AggFunc) if _owner(call) is select and not _windowed(call)]
        group = select.args.get("group")
        if not aggregates and group is None:
            continue
        named = {part.sql().lower() for part in _keys(select)}
        parts = [*select.expressions, *_clause(select, "having"), *_clause(select, "order")]
        bare = [
            column
            for part in parts
            for column in part.find_all(exp.Column)
            if _owner(column) is select
            and not _outer(column, select)
            and column.find_ancestor(exp.AggFunc, exp.Filter, exp.Select) is select
            and column.sql().lower() not in named
            and not _inside(column, named)
            and not _output(column, select)
        ]
        if bare:
            _settle(select, bare, aggregates, dialect)


def _settle(select: exp.Select, bare: list[exp.Column], aggregates: list[exp.AggFunc], dialect: str) -> None:
    extremes = [call for call in aggregates if isinstance(call, exp.Max | exp.Min) and _shown(call, select)]
    if not extremes:
        for column in bare:
            _wrap(column, (exp.AnyValue if dialect == "duckdb" else exp.Min)(this=column.copy()))
        return
    key, highest = extremes[0].this.copy(), isinstance(extremes[0], exp.Max)
    alone = len({call.sql() for call in aggregates if isinstance(call, exp.Max | exp.Min)}) == 1
    if alone and dialect == "duckdb":
        for column in bare:
            _wrap(column, (exp.ArgMax if highest else exp.ArgMin)(this=column.copy(), expression=key.copy()))
    elif len({call.sql() for call in aggregates}) == 1 and not any(select.args.get(name) for name in CLAUSES):
        for call in extremes:
            call.replace(key.copy())
        select.where(exp.Not(this=exp.Is(this=key.copy(), expression=exp.Null())), copy=False)
        select.order_by(exp.Ordered(this=key, desc=highest), copy=False)
        select.limit(1, copy=False)
    else:
        raise _unwritable(dialect, "it shows columns of the row that holds the group's extreme")


def _wrap(column: exp.Column, call: exp.Expr) -> None:
    """Put ``call`` in the place of ``column``, under the same name where it is an output."""
    output = isinstance(column.parent, exp.Select) and column.arg_key == "expressions"
    column.replace(exp.alias_(call, column.this.copy()) if output else call)


def _shown(call: exp.Expr, select: exp.Select) -> bool:
    return any(call in item.find_all(exp.AggFunc) for item in select.expressions)


def _distinct(tree: exp.Expr, dialect: str) -> None:
    """Rows made distinct can be ordered only by what all of a group share: the least or greatest of its keys."""
    for select in list(tree.find_all(exp.Select)):
        order = select.args.get("order")
        if not select.args.get("distinct") or order is None or select.args.get("group") or select.find(exp.AggFunc):
            continue
        shown = {item.unalias().sql().lower() for item in select.expressions}
        hidden = [
            ordered
            for ordered in order.expressions
            if ordered.this.sql().lower() not in shown and not isinstance(ordered.this, exp.Literal)
            if not (isinstance(ordered.this, exp.Column) and _output(ordered.this, select))
        ]
        if hidden and not any(item.is_star for item in select.expressions):
            select.set("distinct", None)
            select.group_by(*(item.unalias().copy() for item in select.expressions), copy=False)
            for ordered in hidden:
                extreme = exp.Max if ordered.args.get("desc") else exp.Min
                ordered.set("this", extreme(this=ordered.this.copy()))


def _clause(select: exp.Select, name: str) -> list[exp.Expr]:
    clause = select.args.get(name)
    return [clause] if clause is not None else []


def _owner(node: exp.Expr) -> exp.Expr | None:
    return cast("exp.Expr | None", node.find_ancestor(exp.Select))


def _windowed(call: exp.Expr) -> bool:
    return isinstance(call.parent, exp.Window) or (isinstance(call.parent, exp.Filter) and _windowed(call.parent))


def _keys(select: exp.Select) -> list[exp.Expr]:
    """What GROUP BY names, with output positions and aliases followed to the expressions they stand for."""
    group = select.args.get("group")
    keys: list[exp.Expr] = []
    aliases = {item.alias.lower(): item.this for item in select.expressions if isinstance(item, exp.Alias)}
    for part in group.expressions if group is not None else []:
        if isinstance(part, exp.Literal) and part.is_int and 0 < int(part.name) <= len(select.expressions):
            part = select.expressions[int(part.name) - 1].unalias()
        keys.append(part)
        if isinstance(part, exp.Column) and not part.table and part.name.lower() in aliases:
            keys.append(aliases[part.name.lower()])
    return keys


def _inside(column: exp.Column, named: set[str]) -> bool:
    """Whether ``column`` is part of an expression that GROUP BY names."""
    node: exp.Expr | None = column.parent
    while node is not None and not isinstance(node, exp.Select):
        if node.sql().lower() in named:
            return True
        node = node.parent
    return False


def _outer(column: exp.Column, select: exp.Select) -> bool:
    """Whether ``column`` belongs to a table of an enclosing query."""
    sources = [select.args.get("from_"), *(select.args.get("joins") or [])]
    return bool(column.table) and column.table.lower() not in {
        source.alias_or_name.lower() for source in sources if source is not None
    }


def _output(column: exp.Column, select: exp.Select) -> bool:
    """Whether ``column`` is the name of an output in ORDER BY or HAVING."""
    aliases = {item.alias.lower() for item in select.expressions if isinstance(item, exp.Alias)}
    return (
        not column.table and column.name.lower() in aliases and column.find_ancestor(exp.Order, exp.Having) is not None
    )


def _rounded(tree: exp.Expr, dialect: str) -> None:
    """PostgreSQL rounds decimals alone to some digits."""
    for call in list(tree.find_all(exp.Round)) if dialect == "postgres" else ():
        if call.args.get("decimals") and not isinstance(call.this, exp.Cast):
            call.set("this", exp.cast(call.this, "decimal"))


def _filtered(tree: exp.Expr, dialect: str) -> None:
    """MySQL has no FILTER: what is aggregated is nothing where its condition does not hold."""
    for node in list(tree.find_all(exp.Filter)) if dialect == "mysql" else ():
        call, condition = node.this, node.expression.this
        of = call.this if isinstance(call.this, exp.Distinct) else call
        value = of.expressions[0] if of is not call else call.this
        shown = exp.Literal.number("1") if isinstance(value, exp.Star) else value.copy()
        case = exp.Case(ifs=[exp.If(this=condition.copy(), true=shown)])
        if of is call:
            call.set("this", case)
        else:
            of.set("expressions", [case])
        node.replace(call.copy())


def _limited_in(tree: exp.Expr, dialect: str) -> None:
    """MySQL takes no LIMIT directly inside IN (…)."""
    if dialect != "mysql":
        return
    for membership in list(tree.find_all(exp.In)):
        inner = membership.args.get("query")
        if inner is not None and inner.this.args.get("limit"):
            inner.this.replace(exp.select("*").from_(inner.this.copy().subquery("chosen")))


def _quoting(tree: exp.Expr, dialect: str) -> None:
    for name in tree.find_all(exp.Identifier):
        if name.name.lower() in RESERVED[dialect]:
            name.set("quoted", True)


REWRITES: tuple[Rewrite, ...] = (
    _like, _truth, _calls, _division, _distinct, _groups, _rounded, _filtered, _limited_in, _quoting
)  # fmt: skip
