"""Inner SQL: the canonical FROM-first text that models write, from SQL and back.

``canonical`` parses and normalises a query against a schema, ``write`` prints it FROM-first, and ``read`` turns
FROM-first text into ordinary SELECT-first SQL. Reading needs no parser: the text is regular enough to split.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping

import sqlglot
from sqlglot import exp
from sqlglot.dialects.sqlite import SQLite
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.qualify import qualify

from expert_cli.errors import ContextError
from experts.sql.schema import Schema

CLAUSES = ("WHERE", "GROUP BY", "HAVING", "ORDER BY", "LIMIT")
SET_OPERATIONS = ("UNION ALL", "UNION", "INTERSECT", "EXCEPT")
MAX_DEPTH = 50
"""Parentheses within each other that are read."""

_QUOTED = r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
_SPACE = re.compile(rf"({_QUOTED})|\s+")
_WORD = re.compile(
    rf"{_QUOTED}|[()]|"
    r"\b(?:FROM|SELECT|WHERE|GROUP BY|HAVING|ORDER BY|LIMIT|UNION ALL|UNION|INTERSECT|EXCEPT)\b"
)


class _SelectFirst(SQLite.Generator):  # type: ignore[misc, valid-type]
    """Prints negations beside their operator, and sort directions only where they are DESC."""

    def neq_sql(self, expression: exp.NEQ) -> str:
        return str(self.binary(expression, "!="))

    def not_sql(self, expression: exp.Not) -> str:
        inner = expression.this.unnest() if isinstance(expression.this, exp.Paren) else expression.this
        if isinstance(inner, exp.Is):
            return f"{self.sql(inner, 'this')} IS NOT {self.sql(inner, 'expression')}"
        if isinstance(inner, exp.In | exp.Like | exp.Between):
            subject = self.sql(inner, "this")
            return f"{subject} NOT {self.sql(inner)[len(subject) + 1 :]}"
        return str(super().not_sql(expression))

    def ordered_sql(self, expression: exp.Ordered) -> str:
        return str(self.sql(expression, "this")) + (" DESC" if expression.args.get("desc") else "")


class _FromFirst(_SelectFirst):
    """Prints FROM and JOINs before SELECT."""

    def select_sql(self, expression: exp.Select) -> str:
        source = expression.args.get("from_")
        if source is None:
            return str(super().select_sql(expression))
        copy = expression.copy()
        joins = copy.args.get("joins") or []
        first = self.sql(copy.args["from_"]).strip() + "".join(" " + self.sql(join).strip() for join in joins)
        for clause in ("with_", "from_", "joins"):
            copy.set(clause, None)
        return str(self.prepend_ctes(expression, f"{first} {super().select_sql(copy).strip()}"))


def canonical(sql: str, schema: Schema, dialect: str = "sqlite") -> exp.Query:
    """``sql`` with every column qualified by its table and aliases dropped where a table occurs once per scope.

    Raises:
        ContextError: it is not one query, or names what the schema does not hold.
    """
    tables: dict[str, object] = {
        table.name.lower(): {column.name.lower(): "TEXT" for column in table.columns} for table in schema.tables
    }
    try:
        parsed = sqlglot.parse_one(sql, dialect=dialect)
        if not isinstance(parsed, exp.Query):
            raise ContextError(f"not a query: {sql[:80]!r}; write one SELECT")
        _strings(parsed, schema)
        qualified = qualify(
            parsed,
            schema=tables,
            dialect="sqlite",
            quote_identifiers=False,
            expand_stars=False,
            validate_qualify_columns=False,
            identify=False,
            expand_alias_refs=False,
        )
    except SqlglotError as problem:
        raise ContextError(f"cannot parse {sql[:80]!r}: {problem}; write one SELECT for {dialect}") from problem
    for select in list(qualified.find_all(exp.Select)):
        _replace_generated_aliases(select)
        _drop_table_aliases(select)
        _qualify_left_over(select, schema)
    for alias in list(qualified.find_all(exp.Alias)):
        if isinstance(alias.parent, exp.Select) and (alias.this.name == alias.alias or not _referred(alias.parent)):
            alias.replace(alias.this)
    return qualified


def _referred(query: exp.Expr) -> bool:
    """Whether a query's columns have names that others use: it is, or is an arm of, a derived or a named table."""
    above = query.parent
    if isinstance(above, exp.SetOperation):
        return _referred(above)
    return isinstance(above, exp.CTE) or (
        isinstance(above, exp.Subquery) and isinstance(above.parent, exp.From | exp.Join)
    )


def write(query: exp.Query, *, select_first: bool = False) -> str:
    """The FROM-first text of a canonical query, or its SELECT-first text in the same style."""
    text = str((_SelectFirst if select_first else _FromFirst)(dialect="sqlite").generate(query))
    return _SPACE.sub(lambda match: match[1] or " ", text).strip()


def _strings(parsed: exp.Query, schema: Schema) -> None:
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


def sources(select: exp.Select) -> list[exp.Expr]:
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
    """SELECT-first SQL for FROM-first ``text``; SELECT-first text comes back as it is.

    Raises:
        ContextError: the text is neither.
    """
    depth = deepest = 0
    for match in _WORD.finditer(text):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        deepest = max(deepest, depth)
    if depth or deepest > MAX_DEPTH:
        raise _unreadable(text, f"parentheses are open or nested more than {MAX_DEPTH} deep")
    return _read(text.strip())


def _unreadable(text: str, reason: str) -> ContextError:
    return ContextError(f"cannot read {text[:120]!r} as SQL: {reason}; ask in other words")


def _read(text: str) -> str:
    begin, pieces = _pieces(text)
    out = [_nested(begin)] if begin else []
    clauses: dict[str, str] = {}
    for word, body in pieces:
        if word in SET_OPERATIONS:
            out += [_turned(clauses, text), word]
            clauses = {}
        elif word in clauses:
            raise _unreadable(text, f"two {word} clauses in one scope")
        else:
            clauses[word] = _nested(body)
    return " ".join([*out, _turned(clauses, text)])


def _turned(clauses: Mapping[str, str], text: str) -> str:
    """One scope, SELECT first."""
    constant = clauses.keys() <= {"SELECT", "LIMIT"}
    if "SELECT" not in clauses or not ("FROM" in clauses or constant):
        raise _unreadable(text, "a scope without FROM or SELECT")
    read_from = [] if constant else [f"FROM {clauses['FROM']}"]
    rest = [f"{word} {clauses[word]}" for word in CLAUSES if word in clauses]
    return " ".join([f"SELECT {clauses['SELECT']}", *read_from, *rest])


def _pieces(text: str) -> tuple[str, list[tuple[str, str]]]:
    """What stands before the first clause, and (keyword, body) for every clause at depth zero.

    Quotes and parentheses are respected; only ``WITH …`` may stand before the first clause.
    """
    found: list[tuple[str, int, int]] = []
    depth = 0
    for match in _WORD.finditer(text):
        word = match.group(0)
        if word == "(":
            depth += 1
        elif word == ")":
            depth -= 1
        elif depth == 0 and word[0] not in "'\"":
            found.append((word, match.start(), match.end()))
    if not found or (found[0][1] and not text.startswith("WITH ")):
        raise _unreadable(text, "it does not begin with FROM")
    ends = [start for _, start, _ in found[1:]] + [len(text)]
    pieces = [(word, text[end:stop].strip()) for (word, _, end), stop in zip(found, ends, strict=True)]
    return text[: found[0][1]].strip(), pieces


def _nested(body: str) -> str:
    """``body`` with every parenthesised FROM-first query in it turned round."""
    out, place = [], 0
    opened: list[int] = []
    for match in _WORD.finditer(body):
        if match.group(0) == "(":
            opened.append(match.start())
        elif match.group(0) == ")" and opened:
            start = opened.pop()
            if not opened:
                inside = body[start + 1 : match.start()]
                turned = _read(inside) if re.match(r"FROM\b", inside) else _nested(inside)
                out.append(body[place : start + 1] + turned)
                place = match.start()
    return "".join(out) + body[place:]
