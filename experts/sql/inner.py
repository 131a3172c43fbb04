"""Ordinary SQL as the grammars write it: FROM first, every column with its source, invented names from the menus.

Only names and the order of clauses change, so that what is accepted is what was asked. A construct that no rule of the
grammars can say is printed as it is: the grammar then refuses it and says where.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from expert_cli.errors import ContextError
from experts.sql.expand import UNNAMED, Seen, View, expand_aliases, expand_windows, put
from experts.sql.joins import inlined, led, opened
from experts.sql.moments import in_sqlite
from experts.sql.names import OUTPUTS, WIDEST, Names
from experts.sql.sorting import direction, numbered
from experts.sql.unsaid import in_front, parsed
from experts.sql.writer import write

MOST_NAMED = len(OUTPUTS)
DEEPEST = 60
"""Queries within queries."""


def inner(sql: str, names: Names, dialect: str = "sqlite", turning: type[Turning] | None = None) -> str:
    """``sql`` as the grammar writes it over the tables of ``names``, FROM first unless ``turning`` says otherwise.

    Raises:
        ContextError: it is not one query, or names what is not there.
    """
    try:
        tree = parsed(sql) if dialect == "sqlite" else sqlglot.parse_one(sql, dialect=dialect)
        if not isinstance(tree, exp.Query):
            raise ContextError(f"not a query: {sql[:80]!r}; write one SELECT")
        return (turning or Turning)(names, dialect).whole(tree)
    except SqlglotError as problem:
        raise ContextError(f"cannot read {sql[:80]!r}: {problem}; write one SELECT for {dialect}") from problem
    except RecursionError as problem:
        raise ContextError(f"{sql[:80]!r} nests too deeply; write a simpler query") from problem


class Turning:
    """One query being turned: its WITH clause and its arms."""

    def __init__(self, names: Names, dialect: str) -> None:
        self.names = names
        self.dialect = dialect
        self.tables = {unquoted(name).lower(): (name, columns) for name, columns in names.tables.items()}
        self.named: dict[str, Seen] = {}
        self.derived = 0
        self.depth = 0

    def whole(self, query: exp.Query) -> str:
        """The query with its WITH clause; the WITH clauses of its subqueries come to the front."""
        if self.dialect == "sqlite":
            in_sqlite(query)
        nested = list(query.find_all(exp.With))
        in_front(query, nested, self.tables)
        ctes = [cte for one in reversed(nested) for cte in one.expressions] if len(nested) > 1 else None
        clause = nested[0] if nested else None
        for one in nested:
            one.pop()
        if clause is None:
            return self.query(query, None)[0]
        recursive = any(one.args.get("recursive") for one in nested)
        texts = [self.cte(cte, recursive) for cte in (ctes or clause.expressions)]
        return f"WITH {'RECURSIVE ' if recursive else ''}{', '.join(texts)} {self.query(query, None)[0]}"

    def cte(self, cte: exp.CTE, recursive: bool) -> str:
        mentioned = cte.alias.lower()
        if mentioned in self.named:
            raise ContextError(f"two common table expressions are called {cte.alias}; give them different names")
        alias = cte.args["alias"]
        renamed = [column.name for column in alias.args.get("columns") or []]
        used = {seen.written for seen in self.named.values()}
        written = self.names.free_name("cte{}", len(self.named) + 1, used)
        body = cte.this
        seen = Seen(mentioned, written, {})
        itself = any(table.name.lower() == mentioned for table in body.find_all(exp.Table))
        if recursive and itself and isinstance(body, exp.SetOperation):
            text = self.recursive(body, seen, renamed)
        else:
            text, outputs = self.query(body, None, renamed)
            seen.columns = outputs
            self.named[mentioned] = seen
        return f"{written} AS ({text})"

    def recursive(self, body: exp.SetOperation, seen: Seen, renamed: list[str]) -> str:
        """A recursive query: its first arm says what its columns are called."""
        first, outputs = self.query(body.this, None, renamed)
        seen.columns = outputs
        self.named[seen.mentioned] = seen
        second, _ = self.query(led(body.expression, seen.mentioned), None)
        return f"{first} {self.operator(body)} {second}{self.sorted(body, body.this)}"

    @staticmethod
    def operator(node: exp.SetOperation) -> str:
        word = {exp.Union: "UNION", exp.Intersect: "INTERSECT", exp.Except: "EXCEPT"}[type(node)]
        return word + ("" if node.args.get("distinct", True) else " ALL")

    def query(self, node: exp.Expr, outer: View | None, renamed: Iterable[str] = ()) -> tuple[str, dict[str, str]]:
        """A query's text and its output columns, mentioned to written."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise ContextError(f"queries nest deeper than {DEEPEST}; write a simpler query")
        node = node.unnest() if isinstance(node, exp.Subquery) and not node.args.get("alias") else node
        if isinstance(node, exp.SetOperation):
            found = self.compound(node, outer, list(renamed))
        elif isinstance(node, exp.Select):
            found = self.select(node, outer).text(list(renamed))
        else:
            raise ContextError(f"{node.key} is no query here; write SELECT")
        self.depth -= 1
        return found

    def select(self, node: exp.Select, outer: View | None) -> SelectTurning:
        """What turns one SELECT."""
        return SelectTurning(self, node, outer)

    def compound(self, node: exp.SetOperation, outer: View | None, renamed: list[str]) -> tuple[str, dict[str, str]]:
        arms: list[tuple[str, exp.Expr]] = []
        left: exp.Expr = node
        while isinstance(left, exp.SetOperation):
            arms.append((self.operator(left), left.expression))
            left = left.this
            left = left.unnest() if isinstance(left, exp.Subquery) and not left.args.get("limit") else left
        text, outputs = self.query(left, outer, renamed)
        for operator, arm in reversed(arms):
            text += f" {operator} {self.query(arm, outer)[0]}"
        return text + self.sorted(node, left), outputs

    def sorted(self, node: exp.SetOperation, first: exp.Expr) -> str:
        """ORDER BY of a set operation, by column numbers, and LIMIT."""
        text = ""
        order = node.args.get("order")
        if order is not None:
            keys = []
            for one in order.expressions:
                number = numbered(one.this, first) or write(one.this, self.dialect)
                keys.append(number + direction(one, self.dialect))
            text += " ORDER BY " + ", ".join(keys)
        return text + self.limits(node)

    def limits(self, node: exp.Expr) -> str:
        text = ""
        for key, word in (("limit", "LIMIT"), ("offset", "OFFSET")):
            if (clause := node.args.get(key)) is not None:
                text += f" {word} {write(clause.expression or clause.this, self.dialect)}"
        return text


class SelectTurning:
    """One SELECT being turned."""

    def __init__(self, turning: Turning, node: exp.Select, outer: View | None) -> None:
        self.turning = turning
        self.names = turning.names
        self.node = node
        self.view = View(outer, aliases={one.alias.lower() for one in node.expressions if isinstance(one, exp.Alias)})
        self.moved: list[str] = []
        self.outward = False
        """Whether a RIGHT or FULL JOIN adds rows, so that no condition can be moved to WHERE."""

    def text(self, renamed: list[str]) -> tuple[str, dict[str, str]]:
        node = self.node
        begin = self.sources()
        expand_windows(self.node)
        expand_aliases(self.node, self.view, by_number=WIDEST if self.turning.dialect == "sqlite" else 0)
        items, outputs = self.items(renamed)
        distinct = "DISTINCT " if node.args.get("distinct") else ""
        text = self.begun(begin, f"SELECT {distinct}{', '.join(items)}")
        where = [self.say(node.args["where"].this)] if node.args.get("where") else []
        if self.moved and where and isinstance(node.args["where"].this, exp.Or):
            where = [f"({where[0]})"]
        if self.moved or where:
            text += " WHERE " + " AND ".join([*self.moved, *where])
        if group := node.args.get("group"):
            text += " GROUP BY " + ", ".join(self.say(key.unnest()) for key in group.expressions)
        if having := node.args.get("having"):
            text += " HAVING " + self.say(having.this)
        if order := node.args.get("order"):
            keys = [self.say(key.this.unnest()) + direction(key, self.turning.dialect) for key in order.expressions]
            text += " ORDER BY " + ", ".join(keys)
        return text + self.turning.limits(node), outputs

    @staticmethod
    def begun(sources: str, listed: str) -> str:
        """FROM and SELECT in their order."""
        return f"{sources} {listed}" if sources else listed

    def sources(self) -> str:
        """FROM and its joins."""
        start = self.node.args.get("from_")
        if start is None:
            return ""
        first, joins = opened(start.this)
        text = "FROM " + self.source(first)
        joins = [*joins, *(self.node.args.get("joins") or [])]
        self.outward = any(join.side in ("RIGHT", "FULL") for join in joins)
        for join in joins:
            for one in inlined(join):
                text += self.join(one)
        return text

    def source(self, node: exp.Expr) -> str:
        """A table, named query or derived table; it is in view afterwards."""
        if isinstance(node, exp.Table):
            return self.table(node)
        if isinstance(node, exp.Subquery) and isinstance(node.this, exp.Query):
            text, outputs = self.turning.query(node.this, None, node.alias_column_names)
            self.turning.derived += 1
            alias = self.names.derived(self.turning.derived)
            self.view.sources.append(Seen(node.alias.lower(), alias, outputs))
            return f"({text}) AS {alias}"
        raise ContextError(f"{node.sql(self.turning.dialect)[:60]!r} cannot be read from; read from tables and queries")

    def table(self, node: exp.Table) -> str:
        mentioned = node.name.lower()
        named = self.turning.named.get(mentioned)
        if named is not None and not node.db:
            written, columns = named.written, named.columns
        elif mentioned in self.turning.tables:
            written, listed = self.turning.tables[mentioned]
            columns = {unquoted(column).lower(): column for column in listed}
        else:
            raise ContextError(f"there is no table {node.name}; name one of the database")
        visible = self.view.written()
        name = self.names.alias(written, visible) if written.lower() in visible else written
        self.view.sources.append(Seen(node.alias_or_name.lower(), name, dict(columns)))
        return written if name == written else f"{written} AS {name}"

    def join(self, join: exp.Join) -> str:
        before = list(self.view.sources)
        text = self.source(join.this)
        added = self.view.sources[-1]
        side = str(join.args.get("side") or "").upper()
        on = join.args.get("on")
        shared = [name.name.lower() for name in join.args.get("using") or []]
        if str(join.args.get("method") or "").upper() == "NATURAL":
            shared = [key for key in added.columns if key[0] != UNNAMED and any(key in one.columns for one in before)]
        if shared:
            if blended := self.view.blended & set(shared):
                raise ContextError(f"USING {', '.join(blended)} after RIGHT or FULL JOIN; join ON one table's column")
            added.merged = frozenset(shared)
            self.view.blended |= added.merged if side in ("RIGHT", "FULL") else set()
            pairs = [(next((one for one in before if name in one.columns), None), name) for name in shared]
            if any(one is None for one, _ in pairs):
                raise ContextError(f"USING ({', '.join(shared)}): no earlier source has it; name a shared column")
            equal = [
                f"{one.written}.{one.columns[name]} = {added.written}.{added.columns[name]}"
                for one, name in pairs
                if one
            ]
            return f" {side + ' ' if side else ''}JOIN {text} ON {' AND '.join(equal)}"
        if on is None and side:
            raise ContextError(f"{side} JOIN without a condition; write ON")
        if on is None or (not side and isinstance(on, exp.Boolean) and on.this):
            return f" CROSS JOIN {text}"
        if side or self.outward or not on.find(exp.Query, exp.Case, exp.Exists):
            return f" {side + ' ' if side else ''}JOIN {text} ON {self.placed(on.unnest())}"
        self.moved.append(f"({self.say(on)})" if isinstance(on, exp.Or) else self.say(on))
        return f" CROSS JOIN {text}"

    def placed(self, on: exp.Expr) -> str:
        """What ON says."""
        return self.say(on)

    def items(self, renamed: list[str]) -> tuple[list[str], dict[str, str]]:
        """The selected items, and the output columns: mentioned to written."""
        texts: list[str] = []
        named: list[tuple[str, str]] = []
        for place, item in enumerate(self.node.expressions):
            value = item.unalias().unnest()
            star = isinstance(value, exp.Star) or (isinstance(value, exp.Column) and isinstance(value.this, exp.Star))
            if star and renamed:
                raise ContextError("columns that are named are not a star; write out what it stands for")
            if star:
                texts += self.star(value)
                named += [(name, one.columns[name]) for one, name in self.view.brought(value)]
                continue
            text = self.say(value)
            mentioned = (renamed[place] if place < len(renamed) else item.alias_or_name).lower()
            plain = isinstance(value, exp.Column) and not text.startswith("'")
            plain = plain and (not renamed or mentioned == value.name.lower())
            written = text.rpartition(".")[2] if plain else f"x{place + 1}" if mentioned and place < MOST_NAMED else ""
            texts.append(text if plain or not written or not (item.alias or renamed) else f"{text} AS {written}")
            named.append((mentioned, written if texts[-1] != text or plain else ""))
        return self.disambiguated(texts, named)

    def disambiguated(self, texts: list[str], named: list[tuple[str, str]]) -> tuple[list[str], dict[str, str]]:
        """Give a number to columns that would come out under one name."""
        if len(texts) == len(named):
            written = [column.lower() for _, column in named]
            for place, (mentioned, column) in enumerate(named):
                if column and written.count(column.lower()) > 1 and " AS " not in texts[place] and place < MOST_NAMED:
                    texts[place] += f" AS x{place + 1}"
                    named[place] = (mentioned, f"x{place + 1}")
        outputs: dict[str, str] = {}
        for mentioned, column in named:
            put(outputs, mentioned, column)
        return texts, outputs

    def star(self, value: exp.Expr) -> list[str]:
        """A star; where it has one column for two of USING, which become ON here, its columns."""
        if not isinstance(value, exp.Star):
            return [f"{self.view.starred(value)[0].written}.*"]
        if self.view.blended:
            raise ContextError(f"* after RIGHT or FULL JOIN USING {', '.join(self.view.blended)}; name the columns")
        if not any(one.merged for one in self.view.sources):
            return ["*"]
        columns = self.view.brought(value)
        if any(not one.columns[name] for one, name in columns):
            raise ContextError("* with a column that has no name; give it one")
        return [f"{one.written}.{one.columns[name]}" for one, name in columns]

    def say(self, expression: exp.Expr) -> str:
        """An expression of this query, its columns and subqueries written."""
        holder = exp.Paren(this=expression.copy())
        for node in list(holder.walk(bfs=False, prune=lambda one: isinstance(one, exp.Query))):
            if isinstance(node, exp.Column):
                node.replace(exp.Var(this=self.column(node)))
            elif isinstance(node, exp.Query):
                text = self.turning.query(node, self.view)[0]
                node.replace(exp.Var(this=text if isinstance(node.parent, exp.Exists | exp.All) else f"({text})"))
        return write(holder.this, self.turning.dialect)

    def column(self, node: exp.Column) -> str:
        found = self.view.find(node.name.lower(), node.table.lower())
        if found is not None:
            return found
        if node.this.args.get("quoted") and not node.table and not self.view.means(node.name.lower()):
            return "'" + node.name.replace("'", "''") + "'"
        where = f"{node.table}.{node.name}" if node.table else node.name
        raise ContextError(f"there is no column {where} in view; name a column of a table in FROM")


def unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name[:1] == '"' else name.strip("`")
