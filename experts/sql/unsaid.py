"""What SQLite's grammar has no words for and a printer would leave out: it is refused, not dropped."""

from __future__ import annotations

from collections.abc import Collection

from sqlglot import TokenType, exp
from sqlglot.dialects.sqlite import SQLite

from expert_cli.errors import ContextError

_CLAUSES: dict[type[exp.Expr], str] = {
    exp.Select: "with_ expressions distinct from_ joins where group having windows order limit offset",
    exp.Group: "expressions",
    exp.Table: "this alias db joins",
    exp.Star: "",
    exp.Subquery: "this alias joins",
    exp.Limit: "expression this",
    exp.Join: "this on using side kind method",
    exp.Distinct: "expressions",
}
"""The parts of each construct that are turned."""

_KINDS = frozenset(("", "INNER", "OUTER", "CROSS"))
_NONE = (exp.Fetch, exp.IgnoreNulls, exp.RespectNulls, exp.AnyValue, exp.ToChar, exp.Values)
_BEFORE = frozenset(
    TokenType[name]
    for name in "L_PAREN COMMA EQ NEQ LT GT LTE GTE PLUS DASH STAR SLASH MOD DPIPE SELECT WHERE AND OR NOT ON HAVING "
    "ORDER_BY GROUP_BY LIMIT WHEN THEN ELSE CASE BETWEEN IN LIKE DISTINCT IS".split()
)
"""What a sign follows; a plus after anything else adds."""


class _Parser(SQLite.Parser):  # type: ignore[misc, valid-type]
    """SQLite's, but for MOD: to sqlglot it is %, which takes whole numbers alone."""

    FUNCTIONS = {name: made for name, made in SQLite.Parser.FUNCTIONS.items() if name != "MOD"}


def parsed(sql: str) -> exp.Expr:
    """``sql`` of SQLite as a tree.

    Raises:
        ContextError: it holds what would be lost.
        SqlglotError: it cannot be parsed.
    """
    dialect = SQLite()
    tokens = dialect.tokenize(sql)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.token_type == TokenType.PLUS and (before is None or before.token_type in _BEFORE):
            raise ContextError("a sign + takes a column's type away; leave it out")
    found: list[exp.Expr | None] = _Parser(dialect=dialect).parse(tokens, sql)
    tree = found[0] if len(found) == 1 else None
    if tree is None:
        raise ContextError(f"not a query: {sql[:80]!r}; write one SELECT")
    for node in tree.walk():
        _check(node)
    return tree


def _check(node: exp.Expr) -> None:
    said = _CLAUSES.get(type(node))
    lost = [name for name, value in node.args.items() if value and name not in said.split()] if said is not None else []
    if isinstance(node, exp.Join) and node.kind not in _KINDS:
        lost = [f"{node.kind} JOIN"]
    if isinstance(node, exp.Distinct) and node.args.get("on"):
        lost = ["DISTINCT ON"]
    # MAX of several values is NULL where one of them is; GREATEST, which SQLite lacks, passes over it
    beyond = isinstance(node, exp.Greatest | exp.Least) and bool(node.args.get("ignore_nulls"))
    if lost or beyond or isinstance(node, _NONE):
        raise ContextError(f"SQLite has no {', '.join(lost) or node.key} here; write it without")


def in_front(query: exp.Query, clauses: list[exp.With], tables: Collection[str]) -> None:
    """Refuse WITH clauses that mean something else once all of them stand in front; ``tables`` are in lower case.

    Raises:
        ContextError: a name means two things, or a query reads from one that comes later.
    """
    ctes = {cte.alias.lower() for clause in clauses for cte in clause.expressions}
    for clause in clauses:
        later = [cte.alias.lower() for cte in clause.expressions]
        if clause.parent is not query and (twice := ctes.intersection(later, tables)):
            raise ContextError(f"{', '.join(twice)}: a table and a common table expression; give them different names")
        for cte in clause.expressions:
            later.remove(cte.alias.lower())
            if any(table.name.lower() in later for table in cte.this.find_all(exp.Table)):
                raise ContextError(f"{cte.alias} reads from what comes later in WITH; write that first")
