"""The pointer surface: one token for each linked table, column and literal.

A pointer swallows the space before it: ``FROM<t0> SELECT<c1>, COUNT(*) WHERE<c2> >=<v0>``.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp

from expert_cli.errors import ContextError
from experts.sql import fromfirst
from experts.sql.identifiers import literal
from experts.sql.linking import Linked
from experts.sql.literals import SMALL_NUMBERS
from experts.sql.schema import quote

TABLES, COLUMNS, LITERALS = 16, 96, 12
MARKS = ("<fk>", "<any>", "<pre>", "<suf>")
TOKENS = (
    *MARKS,
    *(f"<t{number}>" for number in range(TABLES)),
    *(f"<c{number}>" for number in range(COLUMNS)),
    *(f"<v{number}>" for number in range(LITERALS)),
)
"""Every token that a base with this surface must hold as a special token, besides its template's own."""

INSIDE = (exp.Count, exp.Sum, exp.Avg, exp.Min, exp.Max, exp.Exists, exp.And, exp.Or)
OUTSIDE = (exp.Case, exp.Cast, exp.Window, exp.With, exp.Placeholder, exp.Offset, exp.DPipe, exp.Boolean, exp.Collate)


class Unreachable(ContextError):
    """A query that the pointer surface cannot say for this question."""


def point(query: exp.Query, linked: Linked, *, select_first: bool = False) -> str:
    """The pointer text of a canonical query, FROM first unless told otherwise.

    Raises:
        Unreachable: a table, column or literal is not linked, or the query's form has no pointer text.
    """
    query = query.copy()
    tables = {table.name.lower(): number for number, table in enumerate(linked.tables)}
    columns = {(table.lower(), column.lower()): number for number, (table, column) in enumerate(linked.columns)}
    for node in query.walk():
        if isinstance(node, OUTSIDE) or (isinstance(node, exp.Func) and not isinstance(node, INSIDE)):
            raise Unreachable(f"{node.key} is not in the pointer language")
    for select in list(query.find_all(exp.Select)):
        _plain(select, tables, linked)
    for column in list(query.find_all(exp.Column)):
        if isinstance(column.this, exp.Star):
            raise Unreachable("a star of one table")
        if column.table.lower() not in _in_scope(column):
            raise Unreachable(f"{column.sql()} is not a column of its own FROM")
        number = columns.get((column.table.lower(), column.name.lower()))
        if number is None:
            raise Unreachable(f"{column.sql()} is not linked")
        column.replace(exp.to_identifier(f"zzc{number}", quoted=False))
    for table in list(query.find_all(exp.Table)):
        if table.name.lower() not in tables:
            raise Unreachable(f"{table.name} is not linked")
        table.replace(exp.Table(this=exp.to_identifier(f"zzt{tables[table.name.lower()]}", quoted=False)))
    _literals(query, linked)
    text = fromfirst.write(query, select_first=select_first)
    text = re.sub(r"\bzz(any|pre|suf)_zzv(\d+)\b", r"<\1><v\2>", text)
    text = re.sub(r"\bzz([tcv]\d+)\b", r"<\1>", text)
    return re.sub(r" ?((?:<(?:any|pre|suf)>)?<[tcv]\d+>)", r"\1", text)


def _plain(select: exp.Select, tables: dict[str, int], linked: Linked) -> None:
    """Normalise one scope: join order, and COUNT of a primary key."""
    if any(not isinstance(source, exp.Table) for source in fromfirst.sources(select)):
        raise Unreachable("a derived table")
    if select.args.get("joins") and not fromfirst.order_joins(select, tables):
        raise Unreachable("a join that is not a tree of equalities, or a self-join")
    edges = {frozenset(edge) for edge in linked.edges}
    numbers = {(table.lower(), column.lower()): number for number, (table, column) in enumerate(linked.columns)}
    for join in select.args.get("joins") or []:
        ends = [(side.table.lower(), side.name.lower()) for side in (join.args["on"].this, join.args["on"].expression)]
        if frozenset(numbers.get(end, -1) for end in ends) not in edges:
            raise Unreachable("a join outside the keys")
    for count in list(select.find_all(exp.Count)):
        column = count.this
        if isinstance(column, exp.Column):
            known = linked.schema.columns.get((column.table.lower(), column.name.lower()))
            if known is not None and known.primary and not select.args.get("joins"):
                column.replace(exp.Star())


def _in_scope(column: exp.Column) -> set[str]:
    select = column.find_ancestor(exp.Select)
    return {source.name.lower() for source in fromfirst.sources(select)} if select is not None else set()


def _literals(query: exp.Query, linked: Linked) -> None:
    numbers = {known.text.strip().lower(): number for number, known in reversed(list(enumerate(linked.literals)))}
    for node in list(query.find_all(exp.Literal)):
        text, mark = str(node.this), ""
        if isinstance(node.parent, exp.Like):
            before, after = text.startswith("%"), text.endswith("%") and len(text) > 1
            mark = "zzany_" if before and after else "zzsuf_" if before else "zzpre_" if after else ""
            text = text.strip("%")
        number = numbers.get(text.strip().lower())
        if number is None:
            number = numbers.get(re.sub(r"\.0+$", "", text))
        if number is not None:
            node.replace(exp.to_identifier(f"{mark}zzv{number}", quoted=False))
        elif mark or node.is_string or text not in SMALL_NUMBERS:
            raise Unreachable(f"the literal {text!r} is not offered by the question")


_POINTER = re.compile(r"(?:<(?P<mark>any|pre|suf)>)?<(?P<kind>[tcv])(?P<number>[0-9]{1,3})>")


def realise(text: str, linked: Linked, identifier: Callable[[str], str] = quote) -> str:
    """Pointer ``text`` as FROM-first SQL, names written by ``identifier``.

    Raises:
        ContextError: a pointer has no meaning here.
    """

    def named(match: re.Match[str]) -> str:
        mark, kind, number = match["mark"] or "", match["kind"], int(match["number"])
        known = {"t": linked.tables, "c": linked.columns, "v": linked.literals}[kind]
        if number >= len(known) or (mark and kind != "v"):
            raise ContextError(f"{match[0]} means nothing for this question; ask in other words")
        if kind == "t":
            name = identifier(linked.tables[number].name)
        elif kind == "c":
            name = ".".join(identifier(part) for part in linked.columns[number])
        else:
            value = linked.literals[number].value
            name = literal(_AROUND[mark].format(value) if mark else value)
        return name if text[: match.start()].endswith(("(", " ")) else " " + name

    return _POINTER.sub(named, text).strip()


_AROUND = {"any": "%{}%", "pre": "{}%", "suf": "%{}"}
