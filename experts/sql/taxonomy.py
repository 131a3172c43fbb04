"""What kind of mistake a wrong query is: the first part, read in a fixed order, in which it differs from its gold.

Parts are compared as bags of names without case, aliases and table prefixes, over the whole query, so that two ways of
writing the same thing differ late or not at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

UNREADABLE, SAME = "syntax", "none"


def kind(predicted: str, gold: Sequence[str]) -> str:
    """The name of the first difference from the closest gold: one of :data:`KINDS`.

    ``syntax`` where ``predicted`` does not parse, ``none`` where no part differs. Golds that do not parse are left out.
    """
    tree = _tree(predicted)
    if tree is None:
        return UNREADABLE
    wanted = [reading for reading in map(_tree, gold) if reading is not None]
    differences = [_difference(tree, reading) for reading in wanted]
    return max(differences, key=KINDS.index, default=SAME)


def _tree(sql: str) -> exp.Expr | None:
    try:
        tree = sqlglot.parse_one(sql, dialect="sqlite")
    except SqlglotError:
        return None
    return tree if isinstance(tree, exp.Query) else None


def _difference(predicted: exp.Expr, gold: exp.Expr) -> str:
    return next((name for name, part in PARTS if part(predicted) != part(gold)), SAME)


def _names(nodes: Iterable[exp.Expr]) -> Counter[str]:
    return Counter(node.name.lower() for node in nodes)


def _texts(nodes: Iterable[exp.Expr]) -> list[str]:
    """Each node's text without case, aliases, table prefixes and quotes."""
    return [_bare(node).sql("sqlite").lower() for node in nodes]


def _bare(node: exp.Expr) -> exp.Expr:
    copy = node.unalias().copy()
    for column in copy.find_all(exp.Column):
        column.set("table", None)
    for name in copy.find_all(exp.Identifier):
        name.set("quoted", False)
    return copy


def _clauses(tree: exp.Expr, name: str) -> list[exp.Expr]:
    """The ``name`` clauses of every SELECT and set operation of the query, outermost first."""
    queries = tree.find_all(exp.Select, exp.SetOperation)
    return [clause for query in queries if (clause := query.args.get(name)) is not None]


def _tests(tree: exp.Expr) -> list[exp.Expr]:
    """The single comparisons of all WHERE clauses."""
    return [
        test
        for clause in _clauses(tree, "where")
        for test in clause.find_all(exp.Predicate)
        if test.find_ancestor(exp.Where, exp.Having, exp.Join) is clause
    ]


def _word(node: exp.Expr) -> bool:
    """Whether a column is a quoted word that stands where a value does: SQLite takes it for text."""
    return isinstance(node, exp.Column) and not node.table and node.this.quoted and node.arg_key != "this"


def _set_operations(tree: exp.Expr) -> object:
    return Counter(node.key for node in tree.find_all(exp.SetOperation))


def _tables(tree: exp.Expr) -> object:
    return _names(tree.find_all(exp.Table))


def _nesting(tree: exp.Expr) -> object:
    return sum(1 for _ in tree.find_all(exp.Select))


def _joins(tree: exp.Expr) -> object:
    conditions = [join.args["on"] for join in tree.find_all(exp.Join) if join.args.get("on") is not None]
    pairs = [frozenset(_texts([test.left, test.right])) for on in conditions for test in on.find_all(exp.EQ)]
    return Counter(pairs), Counter(join.side for join in tree.find_all(exp.Join))


def _distinct(tree: exp.Expr) -> object:
    return len(list(tree.find_all(exp.Distinct)))


def _aggregates(tree: exp.Expr) -> object:
    return [
        sorted(call.key for item in select.selects for call in item.find_all(exp.AggFunc)) for select in _outer(tree)
    ]


def _outputs(tree: exp.Expr) -> object:
    return [sorted(_texts(select.selects)) for select in _outer(tree)]


def _output_order(tree: exp.Expr) -> object:
    return [_texts(select.selects) for select in _outer(tree)]


def _outer(tree: exp.Expr) -> list[exp.Select]:
    """The SELECTs that make the result: one, or both sides of set operations."""
    if isinstance(tree, exp.Select):
        return [tree]
    sides = [tree.left, tree.right] if isinstance(tree, exp.SetOperation) else []
    sides += [tree.this] if isinstance(tree, exp.Subquery) else []
    return [select for side in sides for select in _outer(side)]


def _filter_columns(tree: exp.Expr) -> object:
    return _names(column for test in _tests(tree) for column in _own(test, exp.Column) if not _word(column))


def _filter_operators(tree: exp.Expr) -> object:
    negated = Counter("not " + node.this.key for clause in _clauses(tree, "where") for node in clause.find_all(exp.Not))
    return Counter(test.key for test in _tests(tree)) + negated


def _filter_logic(tree: exp.Expr) -> object:
    return Counter(node.key for clause in _clauses(tree, "where") for node in clause.find_all(exp.Connector))


def _filter_values(tree: exp.Expr) -> object:
    return _names(part for test in _tests(tree) for part in _own(test, exp.Literal, exp.Column) if not _plain(part))


def _own(test: exp.Expr, *kinds: type[exp.Expr]) -> list[exp.Expr]:
    """Parts of a comparison itself, not of a subquery in it."""
    return [node for node in test.find_all(*kinds) if node.find_ancestor(exp.Predicate, exp.Select) is test]


def _plain(node: exp.Expr) -> bool:
    return isinstance(node, exp.Column) and not _word(node)


def _grouping(tree: exp.Expr) -> object:
    return [sorted(_texts(clause.expressions)) for clause in _clauses(tree, "group")]


def _having(tree: exp.Expr) -> object:
    return _texts(_clauses(tree, "having"))


def _order(tree: exp.Expr) -> object:
    return [_texts(clause.expressions) for clause in _clauses(tree, "order")]


def _limit(tree: exp.Expr) -> object:
    return _texts(_clauses(tree, "limit")) + _texts(_clauses(tree, "offset"))


PARTS: tuple[tuple[str, Callable[[exp.Expr], object]], ...] = (
    ("set operation", _set_operations),
    ("tables", _tables),
    ("nesting", _nesting),
    ("joins", _joins),
    ("aggregates", _aggregates),
    ("output columns", _outputs),
    ("distinct", _distinct),
    ("output order", _output_order),
    ("filter columns", _filter_columns),
    ("filter operators", _filter_operators),
    ("filter values", _filter_values),
    ("filter logic", _filter_logic),
    ("grouping", _grouping),
    ("having", _having),
    ("order", _order),
    ("limit", _limit),
)
KINDS = (UNREADABLE, *(name for name, _ in PARTS), SAME)
"""Every kind, in the order in which the parts are compared."""
