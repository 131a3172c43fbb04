"""What SQLite converts on its own, said in the query: servers compare text with numbers and truth values not at all.

https://sqlite.org/datatype3.html#type_conversions_prior_to_comparison, for columns of which the kind is declared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sqlglot import exp

from experts.sql.identifiers import folded
from experts.sql.kinds import NUMBER, TEXT, TRUTH, WHOLE, declared
from experts.sql.schema import Column, Schema

_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)\s*")
_TRUE, _FALSE = frozenset(("1", "t", "true", "y", "yes")), frozenset(("0", "f", "false", "n", "no"))
_COMPARED = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE)


class Affinity:
    """The kinds of a schema's columns, where queries written for SQLite use them.

    ``exact`` says that the schema spells names as the server does; they are then written so.
    """

    def __init__(self, schema: Schema, *, exact: bool) -> None:
        self.schema, self.exact = schema, exact

    def say(self, tree: exp.Expr, dialect: str) -> None:
        """Put each conversion that SQLite makes into ``tree``, and the names of the server."""
        for node in list(tree.walk()):
            if isinstance(node, _COMPARED):
                self._fit(node, node.left, node.right)
            elif isinstance(node, exp.Between):
                self._fit(node, node.this, node.args["low"])
                self._fit(node, node.this, node.args["high"])
            elif isinstance(node, exp.In):
                for item in node.expressions:
                    self._fit(node, node.this, item)
                if node.args.get("query"):
                    self._within(node)
            elif isinstance(node, exp.Div) and dialect != "postgres" and self._whole(node.left, node.right):
                node.replace(exp.IntDiv(this=node.left.copy(), expression=node.right.copy()))
        self._expand(tree)
        if self.exact:
            self._spell(tree)

    def kind(self, node: exp.Expr) -> str | None:
        """The kind of an expression; None of a literal and where it is not known."""
        match node:
            case exp.Column():
                return self._column(node)
            case exp.Paren() | exp.Min() | exp.Max() | exp.Neg():
                return self.kind(node.this)
            case exp.Count() | exp.Length():
                return WHOLE
            case exp.Sum():
                return self.kind(node.this)
            case exp.Add() | exp.Sub() | exp.Mul():
                kinds = [WHOLE if _whole(side) else self.kind(side) for side in (node.left, node.right)]
                return kinds[0] if kinds[0] == kinds[1] else NUMBER if set(kinds) == {WHOLE, NUMBER} else None
            case exp.Avg() | exp.Round() | exp.Abs():
                return NUMBER
            case exp.Lower() | exp.Upper() | exp.Trim() | exp.Substring() | exp.DPipe():
                return TEXT
            case exp.Subquery() if isinstance(node.this, exp.Select) and len(node.this.expressions) == 1:
                return self.kind(node.this.expressions[0].unalias())
            case _:
                return None

    def _fit(self, node: exp.Expr, left: exp.Expr, right: exp.Expr) -> None:
        if isinstance(right, exp.Literal | exp.Neg | exp.Boolean):
            self._literal(left, right)
            if isinstance(node, exp.NEQ) and isinstance(node.right, exp.Boolean) and self.kind(left) == TRUTH:
                node.replace(exp.EQ(this=left.copy(), expression=exp.Boolean(this=not node.right.this)))
        elif isinstance(left, exp.Literal | exp.Neg | exp.Boolean):
            self._literal(right, left)
        elif isinstance(node, exp.EQ | exp.NEQ):
            kinds = self.kind(left), self.kind(right)
            # text is not turned to numbers: a server stops at the first that is none
            if TEXT in kinds and kinds[kinds.index(TEXT) - 1] in (WHOLE, NUMBER):
                number = left if kinds[1] == TEXT else right
                number.replace(exp.cast(number.copy(), "text"))

    def _literal(self, other: exp.Expr, literal: exp.Expr) -> None:
        kind = self.kind(other)
        value = literal.this if isinstance(literal, exp.Neg) else literal
        if not isinstance(value, exp.Literal):
            return
        text = ("-" if isinstance(literal, exp.Neg) else "") + value.name
        if kind == TRUTH and text.lower() in _TRUE | _FALSE:
            literal.replace(exp.Boolean(this=text.lower() in _TRUE))
        elif kind == TEXT and not value.is_string:
            literal.replace(exp.Literal.string(text))
        elif kind in (WHOLE, NUMBER) and value.is_string and _NUMBER.fullmatch(text):
            literal.replace(exp.Literal.number(text.strip()))

    def _within(self, node: exp.In) -> None:
        """``x IN (SELECT y ...)`` of two kinds."""
        inner = node.args["query"].unnest()
        if not isinstance(inner, exp.Select) or len(inner.expressions) != 1:
            return
        item = inner.expressions[0]
        kinds = self.kind(node.this), self.kind(item.unalias())
        if kinds in ((TEXT, WHOLE), (TEXT, NUMBER)):
            item.replace(exp.cast(item.unalias().copy(), "text"))
        elif kinds in ((WHOLE, TEXT), (NUMBER, TEXT)):
            node.this.replace(exp.cast(node.this.copy(), "text"))

    def _whole(self, *sides: exp.Expr) -> bool:
        """Whether all are integers, one of them a column's."""
        kinds = [self.kind(side) for side in sides]
        return WHOLE in kinds and all(kind == WHOLE or _whole(side) for kind, side in zip(kinds, sides, strict=True))

    def _column(self, column: exp.Column) -> str | None:
        _, found = self._declared(column)
        return declared(found.type) if found else None

    def _owner(self, column: exp.Column) -> str | None:
        """The lower-cased table of a column, looked for in the scopes around it."""
        select = column.find_ancestor(exp.Select)
        while select is not None:
            for source in _sources(select):
                called = source.alias_or_name.lower()
                if column.table and called != column.table.lower():
                    continue
                known = isinstance(source, exp.Table) and (source.name.lower(), column.name.lower())
                if known in self.schema.columns and not _common(source):
                    return source.name.lower()
                if column.table:
                    return None
            select = select.find_ancestor(exp.Select)
        return None

    def _expand(self, tree: exp.Expr) -> None:
        """Put what an alias stands for where servers do not know aliases: in conditions and in computed keys."""
        for select in list(tree.find_all(exp.Select)):
            named = {item.alias.lower(): item.this for item in select.expressions if isinstance(item, exp.Alias)}
            order = select.args.get("order")
            sorts = [one.this for one in order.expressions if not isinstance(one.this, exp.Column)] if order else []
            for clause in (select.args.get("where"), select.args.get("having"), *sorts):
                for column in list(clause.find_all(exp.Column)) if clause is not None else ():
                    meant = named.get(column.name.lower()) if not column.table else None
                    if meant is not None and column.find_ancestor(exp.Select) is select and not self._owner(column):
                        column.replace(exp.paren(meant.copy()))

    def _spell(self, tree: exp.Expr) -> None:
        """Names as the server spells them: those of tables, of their columns, and of what is made of these."""
        tables = [self.schema.by_name.get(table.name.lower()) for table in tree.find_all(exp.Table)]
        known = {column.name.lower(): column.name for table in tables if table for column in table.columns}
        known |= {alias.alias.lower(): alias.alias for alias in tree.find_all(exp.Alias)}
        for node in list(tree.find_all(exp.Column, exp.Table, exp.Alias, exp.Join)):
            if isinstance(node, exp.Column):
                self._spell_column(node, known)
            elif isinstance(node, exp.Alias):
                node.set("alias", _identifier(node.alias))
            elif isinstance(node, exp.Join):
                shared = node.args.get("using") or []
                node.set("using", [_identifier(known.get(one.name.lower(), one.name)) for one in shared] or None)
            elif not _common(node) and node.name.lower() in self.schema.by_name:
                node.set("this", _identifier(self.schema.by_name[node.name.lower()].name))
                if self.schema.place:
                    node.set("db", _identifier(self.schema.place))

    def _spell_column(self, node: exp.Column, known: dict[str, str]) -> None:
        table, found = self._declared(node)
        select = node.find_ancestor(exp.Select)
        items = select.expressions if select else []
        aliases = {item.alias.lower() for item in items if isinstance(item, exp.Alias)}
        sorts = isinstance(node.parent, exp.Ordered) and not node.table and node.name.lower() in aliases
        if isinstance(node.this, exp.Identifier):
            spelled = known.get(node.name.lower(), node.name) if found is None or sorts else found.name
            node.set("this", _identifier(spelled))
        named = self.schema.by_name.get(node.table.lower()) if table else None
        if named is not None and named.name.lower() == table:
            node.set("table", _identifier(named.name))

    def _declared(self, column: exp.Column) -> tuple[str, Column] | tuple[None, None]:
        """The lower-cased table of a column, and the column there."""
        table = self._owner(column)
        return (table, self.schema.columns[table, column.name.lower()]) if table else (None, None)


def _identifier(name: str) -> exp.Identifier:
    return exp.to_identifier(name, quoted=not folded(name))


def _whole(node: exp.Expr) -> bool:
    return isinstance(node, exp.Literal) and bool(node.is_int)


def _sources(select: exp.Select) -> Iterator[exp.Expr]:
    clauses = [select.args.get("from_"), *(select.args.get("joins") or ())]
    yield from (clause.this for clause in clauses if clause is not None)


def _common(source: exp.Expr) -> bool:
    """Whether the name is that of a common table expression."""
    root = source.root()
    return any(cte.alias.lower() == source.name.lower() for cte in root.find_all(exp.CTE))
