"""Ordinary SQL as the typed grammars write it: clauses as they are evaluated, literals and calls in one spelling.

Nothing changes what a query means. Aggregates without GROUP BY are said with ``GROUP BY ()``; a key that is computed is
named in parentheses; columns of common table expressions and derived tables are x1, x2 and so on.
"""

from __future__ import annotations

import re

from sqlglot import exp

from expert_cli.errors import ContextError
from experts.sql.expand import Seen, View, expand_aliases, expand_windows, put
from experts.sql.inner import SelectTurning, Turning
from experts.sql.joins import led
from experts.sql.kinds import OTHER, TIME, inferred
from experts.sql.scopes import WORD
from experts.sql.spelling import spelt
from experts.sql.typed import TypedBinding
from experts.sql.writer import write

_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d)(:\d\d)?(?:\.\d+)?Z?)?")


class TypedTurning(Turning):
    """Turns queries for the typed grammars."""

    repairs = True
    """Whether casts that the server needs are added."""

    naming = False
    """Whether the next SELECT is one whose columns others read."""

    def __init__(self, names: TypedBinding, dialect: str) -> None:
        super().__init__(names, dialect)
        self.kinds: dict[str, str] = {}
        self.results: dict[str, list[str]] = {name: [one.kind for one in of] for name, of in names.columns.items()}
        self.columns = {name: [one.name for one in of] for name, of in names.columns.items()}
        self.last: list[str] = []

    def see(self, written: str, columns: list[str], kinds: list[str]) -> None:
        """Remember the kinds of a source's columns, by what they are written as."""
        self.kinds |= {f"{written}.{column}": kind for column, kind in zip(columns, kinds, strict=False)}

    def kind(self, text: str) -> str:
        """The kind of an expression as it is written."""
        return inferred([(one.group(), one.start()) for one in WORD.finditer(text)], self.kinds.get, lambda _: OTHER)

    def whole(self, query: exp.Query) -> str:
        return super().whole(spelt(query, self.dialect, repairs=self.repairs))

    def select(self, node: exp.Select, outer: View | None) -> SelectTurning:
        return TypedSelect(self, node, outer)

    def cte(self, cte: exp.CTE, recursive: bool) -> str:
        self.naming = True
        text = super().cte(cte, recursive)
        name = text.partition(" ")[0]
        self.remember(name)
        return text

    def recursive(self, body: exp.SetOperation, seen: Seen, renamed: list[str]) -> str:
        first, seen.columns = self.query(body.this, None, renamed)
        self.named[seen.mentioned] = seen
        self.remember(seen.written)
        second, _ = self.query(led(body.expression, seen.mentioned), None)
        return f"{first} {self.operator(body)} {second}"

    def remember(self, name: str) -> None:
        """Keep what the columns of a named query are."""
        self.results[name] = self.last
        self.columns[name] = [f"x{place}" for place, _ in enumerate(self.last, 1)]

    def limits(self, node: exp.Expr) -> str:
        limit = node.args.get("limit")
        if isinstance(limit, exp.Fetch):
            count = limit.args.get("count")
            node = node.copy()
            node.set("limit", exp.Limit(expression=count.copy() if count is not None else exp.Literal.number(1)))
        return super().limits(node)


class TypedSelect(SelectTurning):
    """One SELECT being turned."""

    turning: TypedTurning

    def __init__(self, turning: TypedTurning, node: exp.Select, outer: View | None) -> None:
        super().__init__(turning, node, outer)
        self.keys: list[str] = []

    def text(self, renamed: list[str]) -> tuple[str, dict[str, str]]:
        naming, self.turning.naming = self.turning.naming, False
        node = self.node
        begin = self.sources()
        expand_windows(node)
        expand_aliases(node, self.view)
        text = begin.removesuffix(" ") + self.where() + self.grouping()
        if having := node.args.get("having"):
            text += " HAVING " + self.say(having.this)
        items, outputs = self.listed(renamed, naming)
        distinct = node.args.get("distinct")
        text += f" SELECT {self.distinct(distinct)}{', '.join(items)}"
        if order := node.args.get("order"):
            text += " ORDER BY " + ", ".join(self.sort(key, items if distinct else []) for key in order.expressions)
        return text.lstrip() + self.turning.limits(node), outputs

    def where(self) -> str:
        clause = self.node.args.get("where")
        said = [self.say(clause.this)] if clause is not None else []
        if self.moved and clause is not None and isinstance(clause.this, exp.Or):
            said = [f"({said[0]})"]
        return " WHERE " + " AND ".join([*self.moved, *said]) if self.moved or said else ""

    def grouping(self) -> str:
        group = self.node.args.get("group")
        if group is None:
            return " GROUP BY ()" if _aggregated(self.node) else ""
        parts = [
            *group.expressions,
            *(one for name in ("rollup", "cube", "grouping_sets") for one in group.args.get(name) or []),
        ]
        said = [self.part(one) for one in parts]
        if len(parts) > 1 and parts[-1].key == "rollup" and not parts[-1].expressions:
            return f" GROUP BY {', '.join(said[:-1])} WITH ROLLUP"
        return " GROUP BY " + ", ".join(said)

    def part(self, node: exp.Expr) -> str:
        """One key of GROUP BY, or a ROLLUP, CUBE or GROUPING SETS of some."""
        if isinstance(node, exp.Rollup | exp.Cube):
            return f"{node.key.upper()} ({', '.join(self.key(one) for one in node.expressions)})"
        if isinstance(node, exp.GroupingSets):
            sets = (one.expressions if isinstance(one, exp.Tuple) else [one] for one in node.expressions)
            return f"GROUPING SETS ({', '.join('(' + ', '.join(map(self.key, one)) + ')' for one in sets)})"
        return self.key(node)

    def key(self, node: exp.Expr) -> str:
        text = self.say(node.unnest())
        if not isinstance(node.unnest(), exp.Column):
            self.keys.append(text)
        return text

    def say(self, expression: exp.Expr) -> str:
        """An expression, with the keys that are computed in parentheses, and dates said to be dates."""
        holder = exp.Paren(this=expression.copy())
        for node in list(holder.walk(prune=lambda one: isinstance(one, exp.Query))):
            self.dated(node)
        if not self.keys:
            return super().say(holder.this)
        for node in list(holder.walk(bfs=True, prune=lambda one: isinstance(one, exp.Query | exp.AggFunc | exp.Var))):
            plain = isinstance(
                node, exp.Column | exp.Literal | exp.Paren | exp.Query | exp.AggFunc | exp.Identifier | exp.Var
            )
            if plain or node.find_ancestor(exp.AggFunc):
                continue
            if (text := super().say(node)) in self.keys:
                node.replace(exp.Var(this=f"({text})"))
        return super().say(holder.this)

    def dated(self, node: exp.Expr) -> None:
        """Say DATE before a string that is compared with a date, and cast both sides of a difference."""
        if isinstance(node, exp.Binary | exp.Between | exp.In) and isinstance(node, exp.Predicate):
            sides = [side for side in node.iter_expressions() if not isinstance(side, exp.Query)]
            texts = [side for side in sides if isinstance(side, exp.Literal) and _DATE.fullmatch(side.name)]
            if texts and any(side not in texts and self.kind(side) == TIME for side in sides):
                for side in texts:
                    side.replace(exp.Var(this=_instant(side.name)))
        elif isinstance(node, exp.Sub) and self.turning.dialect != "mysql" and self.turning.repairs:
            both = (node.this, node.expression)
            if not isinstance(node.expression, exp.Interval) and all(self.kind(side) == TIME for side in both):
                days = [side.copy() if isinstance(side, exp.Cast) else exp.cast(side, "date") for side in both]
                node.replace(exp.Paren(this=exp.Sub(this=days[0], expression=days[1])))

    def kind(self, node: exp.Expr) -> str:
        return OTHER if node.find(exp.Query) else self.turning.kind(super().say(node))

    def distinct(self, clause: exp.Expr | None) -> str:
        if clause is None:
            return ""
        on = clause.args.get("on")
        if on is None:
            return "DISTINCT "
        keys = on.expressions if isinstance(on, exp.Tuple) else [on]
        return f"DISTINCT ON ({', '.join(self.say(key.unnest()) for key in keys)})"

    def sort(self, key: exp.Expr, items: list[str]) -> str:
        """A sort key; by its number among the ``items`` that must be distinct."""
        text = self.say(key.this.unnest())
        if items and not (clause := self.node.args["distinct"]).args.get("on"):
            if text not in items:
                raise ContextError(
                    f"ORDER BY {text}: {clause.key.upper()} rows are sorted by what is selected; select it"
                )
            text = str(items.index(text) + 1)
        said = key.copy()
        said.set("this", exp.Var(this=text))
        assert isinstance(said, exp.Expression)
        return write(said, self.turning.dialect)

    def listed(self, renamed: list[str], naming: bool) -> tuple[list[str], dict[str, str]]:
        """The selected items, and the output columns: mentioned to written."""
        texts: list[str] = []
        kinds: list[str] = []
        outputs: dict[str, str] = {}
        for item in self.node.expressions:
            value = item.unalias().unnest()
            star = isinstance(value, exp.Star) or (isinstance(value, exp.Column) and isinstance(value.this, exp.Star))
            seen = self.view.starred(value) if star else []
            if star and not naming and (len(seen) != 1 or len(seen[0].columns) != 1):
                texts += self.star(value)
                continue
            said = [(name, f"{one.written}.{column}") for one in seen for name, column in one.columns.items()]
            for name, text in said or [(item.alias_or_name.lower(), self.say(value))]:
                place = len(texts)
                mentioned = renamed[place].lower() if place < len(renamed) else name
                texts.append(f"{text} AS x{place + 1}" if naming else text)
                kinds.append(self.turning.kind(text))
                put(outputs, mentioned, f"x{place + 1}")
        if naming:
            self.turning.last = kinds
        return texts, outputs

    def source(self, node: exp.Expr) -> str:
        node = _selected(node)
        self.turning.naming = isinstance(node, exp.Subquery)
        text = super().source(node)
        seen = self.view.sources[-1]
        if isinstance(node, exp.Subquery):
            self.see_last(seen)
        else:
            read = text.partition(" AS ")[0]
            self.turning.see(seen.written, self.turning.columns[read], self.turning.results[read])
        return text

    def see_last(self, seen: Seen) -> None:
        """Remember the kinds of the derived table that was turned last."""
        kinds = self.turning.last
        self.turning.see(seen.written, [f"x{place}" for place, _ in enumerate(kinds, 1)], kinds)

    def join(self, join: exp.Join) -> str:
        lateral = join.this
        if not isinstance(lateral, exp.Lateral):
            return super().join(join)
        query = lateral.this.this if isinstance(lateral.this, exp.Subquery) else None
        on = join.args.get("on")
        if (
            not isinstance(query, exp.Query)
            or join.side
            or not (on is None or (isinstance(on, exp.Boolean) and on.this))
        ):
            raise ContextError("LATERAL takes a query and is joined without a condition; put the condition into WHERE")
        self.turning.naming = True
        text, outputs = self.turning.query(query, self.view, lateral.alias_column_names)
        self.turning.derived += 1
        alias = self.names.derived(self.turning.derived)
        self.view.sources.append(Seen(lateral.alias.lower(), alias, outputs))
        self.see_last(self.view.sources[-1])
        return f" LATERAL JOIN ({text}) AS {alias}"

    def column(self, node: exp.Column) -> str:
        found = self.view.find(node.name.lower(), node.table.lower())
        if found is None:
            where = f"{node.table}.{node.name}" if node.table else node.name
            raise ContextError(f"there is no column {where} in view; name a column of a table in FROM")
        return found


def _selected(node: exp.Expr) -> exp.Expr:
    """Joins in parentheses that have a name, as a derived table."""
    if not isinstance(node, exp.Subquery) or isinstance(node.this, exp.Query):
        return node
    return exp.Subquery(this=exp.select("*").from_(node.this.copy()), alias=node.args.get("alias"))


def _aggregated(select: exp.Select) -> bool:
    """Whether a SELECT without GROUP BY takes its rows together."""
    clauses = [*select.expressions, select.args.get("having"), select.args.get("order")]
    for clause in clauses:
        for node in clause.walk(prune=lambda one: isinstance(one, exp.Query)) if clause is not None else ():
            above = node.parent
            while isinstance(above, exp.Filter | exp.WithinGroup):
                above = above.parent
            if isinstance(node, exp.AggFunc) and not isinstance(above, exp.Window):
                return True
    return select.args.get("having") is not None


def _instant(text: str) -> str:
    """A date, or a moment to the second, as the grammars have it."""
    day, minute, second = re.fullmatch(_DATE, text).groups()  # type: ignore[union-attr]
    return f"TIMESTAMP '{day} {minute}{second or ':00'}'" if minute else f"DATE '{day}'"


class Unrepaired(TypedTurning):
    """Turns queries for a verdict on them as they are."""

    repairs = False
