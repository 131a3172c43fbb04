"""Inner SQL: the canonical FROM-first text that models write, from SQL and back.

``canonical`` parses and normalises a query against a schema, ``write`` prints it FROM-first, and ``read`` turns
FROM-first text into ordinary SELECT-first SQL. Reading needs no parser: canonical text is regular enough to split.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import OptimizeError, ParseError, SqlglotError
from sqlglot.optimizer.qualify import qualify

from expert_cli.errors import ContextError
from experts.sql.schema import Schema

CLAUSES = ("WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT")
SET_OPERATIONS = ("UNION ALL", "UNION", "INTERSECT", "EXCEPT")


class _Writer(SQLite.Generator):
    """Prints FROM and JOINs before SELECT, and negations beside their operator."""

    def select_sql(self, expression: exp.Select) -> str:
        source = expression.args.get("from_")
        if source is None:
            return str(super().select_sql(expression))
        copy = expression.copy()
        joins = copy.args.get("joins") or []
        first = self.sql(copy.args["from_"]).strip() + "".join(" " + self.sql(join).strip() for join in joins)
        copy.set("from_", None)
        copy.set("joins", None)
        return f"{first} {super().select_sql(copy).strip()}"

    def neq_sql(self, expression: exp.NEQ) -> str:
        return self.binary(expression, "!=")

    def not_sql(self, expression: exp.Not) -> str:
        inner = expression.this.unnest() if isinstance(expression.this, exp.Paren) else expression.this
        if isinstance(inner, exp.Is):
            return f"{self.sql(inner, 'this')} IS NOT {self.sql(inner, 'expression')}"
        for kind, word in ((exp.In, "IN"), (exp.Like, "LIKE"), (exp.Between, "BETWEEN")):
            if isinstance(inner, kind):
                subject = self.sql(inner, "this")
                return f"{subject} NOT {self.sql(inner)[len(subject) + 1 :]}"
        return str(super().not_sql(expression))

    def ordered_sql(self, expression: exp.Ordered) -> str:
        return self.sql(expression, "this") + (" DESC" if expression.args.get("desc") else "")


def canonical(sql: str, schema: Schema, dialect: str = "sqlite") -> exp.Query:
    """``sql`` with every column qualified by its table and aliases dropped where a table occurs once per scope.

    Raises:
        ContextError: it is not one query, or names what the schema does not hold.
    """
    try:
        parsed = sqlglot.parse_one(sql, dialect=dialect)
        if not isinstance(parsed, exp.Query):
            raise ContextError(f"not a query: {sql[:80]}")
        _strings(parsed, schema)
        types = {
            table.name.lower(): {column.name.lower(): "TEXT" for column in table.columns} for table in schema.tables
        }
        qualified = qualify(
            parsed,
            schema=types,
            dialect="sqlite",
            quote_identifiers=False,
            expand_stars=False,
            validate_qualify_columns=False,
            identify=False,
            expand_alias_refs=False,
        )
    except (SqlglotError, ParseError, OptimizeError) as problem:
        raise ContextError(f"cannot parse {sql[:80]!r}: {problem}") from problem
    for select in list(qualified.find_all(exp.Select)):
        _replace_generated_aliases(select)
        _drop_table_aliases(select)
        _qualify_left_over(select, schema)
    for alias in list(qualified.find_all(exp.Alias)):
        if isinstance(alias.parent, exp.Select):
            alias.replace(alias.this)
    return qualified


def write(expression: exp.Expression) -> str:
    """The FROM-first text of a canonical query."""
    return re.sub(r"\s+", " ", _Writer(dialect="sqlite").generate(expression)).strip()


def _strings(parsed: exp.Expression, schema: Schema) -> None:
    """Turn double-quoted names that are no column into the string literals that SQLite takes them for."""
    known = {column for _, column in schema.columns}
    for column in list(parsed.find_all(exp.Column)):
        if column.this.args.get("quoted") and not column.table and column.name.lower() not in known:
            column.replace(exp.Literal.string(column.name))


def _replace_generated_aliases(select: exp.Select) -> None:
    """Put the selected expression back where the qualifier wrote an alias, its own or the query's."""
    selected = {item.alias.lower(): item.this for item in select.expressions if isinstance(item, exp.Alias)}
    for key in ("order", "group", "having"):
        clause = select.args.get(key)
        for column in list(clause.find_all(exp.Column)) if clause else []:
            if not column.table and column.name.lower() in selected:
                column.replace(selected[column.name.lower()].copy())


def sources(select: exp.Select) -> list[exp.Expression]:
    """What ``select`` reads from, in order: tables and derived tables."""
    items = [select.args.get("from_"), *(select.args.get("joins") or [])]
    return [item.this for item in items if item is not None]


def _drop_table_aliases(select: exp.Select) -> None:
    tables = [source for source in sources(select) if isinstance(source, exp.Table)]
    count = collections.Counter(table.name.lower() for table in tables)
    renamed: dict[str, str] = {}
    for table in tables:
        if count[table.name.lower()] == 1 and table.args.get("alias"):
            renamed[table.alias_or_name.lower()] = table.name
            table.set("alias", None)
    for column in select.find_all(exp.Column):
        if column.table and column.table.lower() in renamed:
            column.set("table", exp.to_identifier(renamed[column.table.lower()]))


def _qualify_left_over(select: exp.Select, schema: Schema) -> None:
    """Name the table of columns that the qualifier left bare, where only one source of this scope has them."""
    names = [source.name.lower() for source in sources(select) if isinstance(source, exp.Table)]
    for column in select.find_all(exp.Column):
        if not column.table and column.find_ancestor(exp.Select) is select:
            owners = [name for name in names if (name, column.name.lower()) in schema.columns]
            if len(owners) == 1:
                column.set("table", exp.to_identifier(schema.by_name[owners[0]].name))


def order_joins(select: exp.Select, rank: Mapping[str, int]) -> bool:
    """Write inner equality joins in one order: lowest ranked table first, then its lowest ranked neighbour.

    Returns False where the FROM clause is not a tree of plain equality joins; then nothing changes.
    """
    joins = select.args.get("joins") or []
    tables = sources(select)
    if not all(isinstance(table, exp.Table) for table in tables):
        return False
    edges = []
    for join in joins:
        on = join.args.get("on")
        if join.side or join.kind not in ("", "INNER") or not isinstance(on, exp.EQ):
            return False
        if not (isinstance(on.this, exp.Column) and isinstance(on.expression, exp.Column)):
            return False
        edges.append((on.this, on.expression))
    names = {table.name.lower(): table for table in tables}
    if len(names) != len(tables):
        return False
    first = min(names, key=lambda name: rank.get(name, 99))
    joined, ordered = {first}, []
    while len(joined) < len(names):
        options = [
            (rank.get(new.table.lower(), 99), old, new)
            for pair in edges
            for old, new in (pair, pair[::-1])
            if old.table.lower() in joined and new.table.lower() in names.keys() - joined
        ]
        if not options:
            return False
        _, old, new = min(options, key=lambda option: option[0])
        ordered.append((names[new.table.lower()], old, new))
        joined.add(new.table.lower())
    select.set("from_", exp.From(this=names[first].copy()))
    select.set(
        "joins",
        [exp.Join(this=table.copy(), on=exp.EQ(this=old.copy(), expression=new.copy())) for table, old, new in ordered],
    )
    return True


def read(text: str) -> str:
    """SELECT-first SQL for FROM-first ``text``.

    Raises:
        ContextError: the text is not FROM-first.
    """
    return _read(text.strip())


def _read(text: str) -> str:
    pieces = _pieces(text)
    out, place = [], 0
    while place < len(pieces):
        clauses: dict[str, str] = {}
        while place < len(pieces) and pieces[place][0] not in SET_OPERATIONS:
            word, body = pieces[place]
            if word in clauses:
                raise ContextError(f"two {word} clauses in one scope: {text[:120]!r}")
            clauses[word] = _nested(body)
            place += 1
        if "FROM" not in clauses or "SELECT" not in clauses:
            raise ContextError(f"not FROM-first SQL: {text[:120]!r}")
        rest = [f"{word} {clauses[word]}" for word in CLAUSES if word in clauses]
        out.append(" ".join([f"SELECT {clauses['SELECT']} FROM {clauses['FROM']}", *rest]))
        if place < len(pieces):
            out.append(pieces[place][0])
            place += 1
    return " ".join(out)


_WORD = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|[()]|\b(?:FROM|SELECT|WHERE|GROUP BY|HAVING|ORDER BY|LIMIT|UNION ALL|UNION|INTERSECT|EXCEPT)\b"
)


def _pieces(text: str) -> list[tuple[str, str]]:
    """(keyword, body) for every clause at depth zero, quotes and parentheses respected."""
    found: list[tuple[str, int, int]] = []
    depth = 0
    for match in _WORD.finditer(text):
        token = match.group(0)
        if token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
        elif depth == 0 and token[0] not in "'\"":
            found.append((token, match.start(), match.end()))
    if depth or not found or found[0][1] != 0:
        raise ContextError(f"not FROM-first SQL: {text[:120]!r}")
    ends = [start for _, start, _ in found[1:]] + [len(text)]
    return [(word, text[end:stop].strip()) for (word, _, end), stop in zip(found, ends, strict=True)]


def _nested(body: str) -> str:
    """``body`` with every parenthesised FROM-first query in it turned round."""
    out, place = [], 0
    opened: list[int] = []
    for match in _WORD.finditer(body):
        token = match.group(0)
        if token == "(":
            opened.append(match.start())
        elif token == ")" and opened:
            start = opened.pop()
            if not opened:
                inside = body[start + 1 : match.start()]
                turned = _read(inside) if inside.startswith("FROM") else _nested(inside)
                out.append(body[place : start + 1] + turned)
                place = match.start()
    return "".join(out) + body[place:]
