"""Which SQL text may go on: exactly one statement, that only reads, and only what was opened.

Everything is refused that is not listed: statements, parts of a query, functions, tables. In order:

(1) the text is short enough and holds no control or invisible characters, and no comment that a server would run;
(2) it is one statement that begins as a query does, and parses in its dialect;
(3) every part of it is of a kind in :data:`PARTS`, every function in :data:`FUNCTIONS`;
(4) every table is one of the opened ones or a common table expression that is visible where it stands;
(5) nothing in it plainly never ends: recursion without an end, long series, joins without conditions.

Not covered: the cost of a query, and what a view or a user's own function of the server does. Running it needs the
engine's own read-only mode and limits as well (:mod:`experts.sql.execute`). Hand on the text of the returned statement,
not the text that came in: comments are gone from it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from expert_cli.errors import ContextError
from experts.sql.worker import FUNCTIONS as SQLITE_FUNCTIONS

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.tokenizer_core import Token

DIALECTS = ("sqlite", "postgres", "mysql", "duckdb")
MAX_LENGTH = 20_000
MAX_SERIES = 1_000_000
MAX_UNJOINED = 3

STARTS = frozenset({"SELECT", "WITH", "VALUES", "L_PAREN", "FROM", "DESCRIBE", "SUMMARIZE", "SHOW"})
SCHEMAS = frozenset({"", "main", "public"})

_PARTS = """
All Any AtTimeZone BitwiseLeftShift BitwiseNot BitwiseRightShift BitwiseXor HexString Lambda LimitOptions
Add Alias Aliases Between BitwiseAnd BitwiseOr Boolean Bracket Collate Column ColumnDef CTE Cube DataType DataTypeParam
Distinct Div DPipe EQ Escape Except Fetch Filter From Glob Group GroupingSets GT GTE Having Identifier ILike In
Intersect
IntDiv Interval IntervalSpan Is IsNull Join JSONPath JSONPathKey JSONPathRoot JSONPathSubscript Lateral Like Limit
Literal LT LTE
Match MatchAgainst Mod Mul Neg NEQ Not Null NullSafeEQ NullSafeNEQ Offset Order Ordered Paren Qualify RegexpLike
Rollup
Select Slice Star Sub Subquery SimilarTo Table TableAlias TableColumn Tuple Union Unnest Values Var Where Window
WindowSpec With WithinGroup IgnoreNulls RespectNulls Describe Summarize Show
"""
PARTS = frozenset(_PARTS.split())
"""Kinds of nodes of sqlglot's tree, functions apart."""

_FUNCTIONS = """
and or xor case if iif cast try_cast exists any all coalesce ifnull nullif greatest least nvl2
abs acos asin atan atan2 cbrt ceil cos cot degrees div exp floor ln log mod pi pow power radians rand round sign sin
sqrt tan
trunc width_bucket safe_divide bitwise_and_agg
match_against regexp_i_like collate
any_value approx_distinct arg_max arg_min array_agg avg bool_and bool_or corr count count_if covar_pop covar_samp
every
first group_concat grouping last list logical_and logical_or max median min mode percentile_cont percentile_disc
quantile
stddev stddev_pop stddev_samp sum var_pop var_samp variance variance_pop
cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
ascii bit_length char_length chr concat concat_ws contains elt ends_with field find_in_set format initcap instr left
length
levenshtein lower lpad ltrim md5 overlay pad position quote regexp_extract regexp_like regexp_matches regexp_replace
regexp_split repeat replace reverse right rpad rtrim similarity soundex space split split_part starts_with
str_position
strpos substr substring substring_index to_char to_number translate trim unicode upper
add_months age current_date current_time current_timestamp current_datetime date date_add date_diff date_format
date_part
date_str_to_date date_sub date_trunc datediff datetime day day_of_month day_of_week day_of_year dayname dayofmonth
dayofweek
dayofyear epoch extract from_days hour last_day localtime localtimestamp make_date makedate make_timestamp minute
month
monthname now period_diff quarter second str_to_date str_to_time str_to_unix strftime strptime time time_diff
time_to_sec
time_to_str time_to_unix timestamp timestamp_add timestamp_diff timestamp_sub timestamp_trunc to_date to_days
to_timestamp
ts_or_ds_add ts_or_ds_diff ts_or_ds_to_date ts_or_ds_to_datetime ts_or_ds_to_timestamp unix_to_time unix_timestamp
week
week_of_year weekofyear weekday year inet_aton day_of_week_iso
json_array json_array_agg json_array_length json_arrayagg json_extract json_extract_scalar json_keys json_object
json_object_agg json_objectagg json_type json_value jsonb_array_elements jsonb_extract jsonb_extract_scalar
jsonb_object_keys parse_json j_s_o_n_array_agg j_s_o_n_object j_s_o_n_object_agg j_s_o_n_type
array array_length array_size array_contains array_filter explode hex len list_aggregate list_transform to_base
transform typeof unhex
generate_series range unnest exploding_generate_series json_each json_tree
"""
FUNCTIONS = frozenset(_FUNCTIONS.split()) | SQLITE_FUNCTIONS
"""Functions that compute from their arguments; sqlglot's names for those that it models, as written for the others."""

ROW_SOURCES = frozenset(
    {
        "generate_series",
        "range",
        "exploding_generate_series",
        "unnest",
        "json_each",
        "json_tree",
        "jsonb_array_elements",
    }
)
SERIES = frozenset({"generate_series", "range", "exploding_generate_series"})
INVISIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")


def check(sql: str, dialect: str, tables: Collection[str]) -> exp.Expr:
    """The statement that ``sql`` is, once nothing in it can do more than read ``tables`` (compared without case).

    Raises:
        ContextError: it is refused, and why.
    """
    if dialect not in DIALECTS:
        raise ContextError(f"unknown dialect {dialect!r}; choose one of {', '.join(DIALECTS)}")
    if len(sql) > MAX_LENGTH:
        raise _refusal(f"it is longer than {MAX_LENGTH:,} characters")
    explain = re.match(r"\s*EXPLAIN\s+(QUERY\s+PLAN\s+)?(?=SELECT\b|WITH\b)", sql, re.IGNORECASE)
    statement = _parse(sql[explain.end() :] if explain else sql, dialect)
    known = {table.lower() for table in tables}
    for node in statement.walk():
        _check_part(node)
        _check_table(node, known)
        _check_end(node)
    return _explained(explain[0], statement, dialect) if explain else statement


def _refusal(reason: str) -> ContextError:
    return ContextError(f"refused: {reason}; ask for a single query that reads the opened tables")


def _explained(prefix: str, statement: exp.Expr, dialect: str) -> exp.Expr:
    from sqlglot import exp

    rest = " ".join([*prefix.split()[1:], statement.sql(dialect, comments=False)])
    return exp.Command(this="EXPLAIN", expression=exp.Literal.string(rest))


def _parse(sql: str, dialect: str) -> exp.Expr:
    import sqlglot
    from sqlglot.errors import SqlglotError

    try:
        tokens = sqlglot.tokenize(sql, dialect=dialect)
        _check_text(sql, tokens, dialect)
        parsed = sqlglot.parse(sql, dialect=dialect)
    except (SqlglotError, RecursionError) as problem:
        reason = str(problem).splitlines()[0] if isinstance(problem, SqlglotError) else "too deeply nested"
        raise _refusal(f"it does not parse as {dialect} ({reason})") from problem
    statements = [statement for statement in parsed if statement is not None]
    if len(statements) != 1:
        raise _refusal(f"it holds {len(statements)} statements")
    return statements[0]


def _check_text(sql: str, tokens: list[Token], dialect: str) -> None:
    """What must be settled on the text, because the parser leaves it out or reads it differently than the server."""
    bare = _unquoted(sql, tokens)
    if "\x00" in sql or INVISIBLE.search(bare):
        raise _refusal("it holds control or invisible characters")
    kinds = [token.token_type.name for token in tokens]
    while kinds and kinds[-1] == "SEMICOLON":
        kinds.pop()
    if not kinds:
        raise _refusal("it holds no statement")
    if "SEMICOLON" in kinds:
        raise _refusal("it holds several statements")
    if kinds[0] not in STARTS:
        raise _refusal(f"{tokens[0].text.upper()} is not the start of a query")
    if any(comment.lstrip().upper().startswith(("!", "M!", "+")) for token in tokens for comment in token.comments):
        raise _refusal("it holds a comment that a server would run")
    if dialect == "mysql" and re.search(r"--\S", bare):
        raise _refusal("it holds -- without a space, which is no comment in MySQL")


def _unquoted(sql: str, tokens: list[Token]) -> str:
    """The text with strings and quoted names left out."""
    parts, at = [], 0
    for token in tokens:
        if token.token_type.name in ("STRING", "IDENTIFIER", "NATIONAL_STRING", "HEREDOC_STRING", "RAW_STRING"):
            parts.append(sql[at : token.start])
            at = token.end + 1
    return "".join([*parts, sql[at:]])


def names(node: exp.Func) -> frozenset[str]:
    """The names, lower-cased, under which :data:`FUNCTIONS` may list the function."""
    from sqlglot import exp

    if isinstance(node, exp.Anonymous):
        return frozenset({node.name.lower()})
    return frozenset(name.lower() for name in node.sql_names())


def _called(node: exp.Func) -> str:
    return node.name if node.key == "anonymous" else node.sql_name()


def _check_part(node: exp.Expr) -> None:
    from sqlglot import exp

    if isinstance(node, exp.Func):
        if not names(node) & FUNCTIONS:
            raise _refusal(f"the function {_called(node)} is not allowed")
    elif type(node).__name__ not in PARTS:
        raise _refusal(f"{node.key.upper()} is not allowed")
    elif isinstance(node, exp.Show) and node.name.upper() != "TABLES":
        raise _refusal(f"SHOW {node.name} is not allowed")


def _check_table(node: exp.Expr, known: Collection[str]) -> None:
    from sqlglot import exp

    if not isinstance(node, exp.Table):
        return
    if isinstance(node.this, exp.Func):
        if not names(node.this) & ROW_SOURCES:
            raise _refusal(f"rows cannot be taken from the function {_called(node.this)}")
        return
    if isinstance(node.this, exp.Identifier) and not node.catalog and node.db.lower() in SCHEMAS:
        name = node.name.lower()
        if name in known or (not node.db and name in _visible(node)):
            return
    raise _refusal(f"there is no table {'.'.join(part for part in (node.catalog, node.db, node.name) if part)}")


def _visible(node: exp.Expr) -> Iterator[str]:
    """Names, lower-cased, of the common table expressions that ``node`` may refer to."""
    below = node
    while (above := below.parent) is not None:
        clause = above.args.get("with_")
        if clause is not None and clause is not below:
            yield from (cte.alias.lower() for cte in clause.expressions)
        if above.key == "with":
            for cte in above.expressions:
                if cte is below and not above.args.get("recursive"):
                    break
                yield cte.alias.lower()
        below = above


def _check_end(node: exp.Expr) -> None:
    from sqlglot import exp

    if isinstance(node, exp.With) and node.args.get("recursive"):
        for cte in node.expressions:
            if isinstance(cte.this, exp.SetOperation) and not cte.find(exp.Where, exp.Limit, exp.Join):
                raise _refusal(f"the recursion of {cte.alias} has no end; give it a WHERE or a LIMIT")
    elif isinstance(node, exp.Func) and names(node) & SERIES:
        for number in node.find_all(exp.Literal, exp.Binary, exp.Pow):
            if not isinstance(number, exp.Literal) or (not number.is_string and float(number.name) > MAX_SERIES):
                raise _refusal(f"a series must be bounded by numbers up to {MAX_SERIES:,}")
    elif isinstance(node, exp.Select) and not node.args.get("where"):
        joins = node.args.get("joins") or []
        free = [join for join in joins if not (join.args.get("on") or join.args.get("using") or join.method)]
        if len(free) > MAX_UNJOINED:
            raise _refusal(f"{len(free) + 1} tables are multiplied without a condition")
