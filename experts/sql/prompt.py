"""What the model reads of a linked question, on either surface."""

from __future__ import annotations

import collections

from expert_cli.task import Message
from experts.sql.linking import Linked, Mention
from experts.sql.literals import Literal
from experts.sql.schema import Column, quote

MAX_TAGS = 4
"""Pointers written after one question word."""


def messages(linked: Linked, surface: str, evidence: str = "") -> tuple[Message, ...]:
    """The system message (the linked schema) and the user message (the question)."""
    if surface == "pointers":
        return Message("system", pointer_schema(linked)), Message("user", pointer_question(linked))
    hint = f"\nHint: {evidence}" if evidence else ""
    return Message("system", names_schema(linked)), Message("user", linked.question + hint)


def _mark(mention: Mention | None) -> str:
    return "" if mention is None else "*" if mention.full else "~"


def _type(column: Column) -> str:
    kind = "@" if column.temporal else "#" if column.numeric else ""
    return kind + ("^" if column.primary else "")


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split()[:6])


def pointer_schema(linked: Linked) -> str:
    """``<t0> singer*<c1> singer id#^<c0> name* … <fk><c5><c1>``: ``*``/``~`` full or partial mention, ``#`` number, ``@`` time, ``^`` key."""
    place = {pair: number for number, pair in enumerate(linked.columns)}
    parts = []
    for number, table in enumerate(linked.tables):
        parts.append(f"<t{number}> {_plain(table.name)}{_mark(linked.mentions.get((table.name.lower(), '')))}")
        for column in table.columns:
            if (table.name, column) not in place:
                continue
            known = linked.schema.columns[table.name.lower(), column.lower()]
            mark = _mark(linked.mentions.get((table.name.lower(), column.lower())))
            parts.append(f"<c{place[table.name, column]}> {_plain(column)}{mark}{_type(known)}")
    keys = "".join(f"<c{left}><c{right}>" for left, right in linked.edges[:16])
    return "".join(parts) + (f"<fk>{keys}" if keys else "")


def pointer_question(linked: Linked) -> str:
    """The question with the pointers of what each word mentions written after it."""
    tags = _tags(linked)
    out, last = [], 0
    for place, (_, _, end) in enumerate(linked.spans):
        out.append(linked.question[last:end] + "".join(tags.get(place, ())))
        last = end
    text = "".join(out) + linked.question[last:]
    return " " + " ".join(text.split())


def _tags(linked: Linked) -> dict[int, list[str]]:
    names: dict[int, list[tuple[bool, int, int, str]]] = collections.defaultdict(list)
    for number, table in enumerate(linked.tables):
        mention = linked.mentions.get((table.name.lower(), ""))
        if mention:
            names[mention.word].append((not mention.full, -mention.length, number, f"<t{number}>"))
    for number, (table_name, column) in enumerate(linked.columns):
        mention = linked.mentions.get((table_name.lower(), column.lower()))
        if mention:
            names[mention.word].append((not mention.full, -mention.length, 20 + number, f"<c{number}>"))
    place = {(table.lower(), column.lower()): number for number, (table, column) in enumerate(linked.columns)}
    tags: dict[int, list[str]] = {}
    for word, found in names.items():
        found.sort()
        best = found[0][0]
        tags[word] = [tag for partial, _, _, tag in found[:MAX_TAGS] if partial == best or not partial]
    for number, literal in enumerate(linked.literals):
        tags.setdefault(literal.word, []).extend(_literal_tags(number, literal, place))
    return tags


def _literal_tags(number: int, literal: Literal, place: dict[tuple[str, str], int]) -> list[str]:
    held = [place[column] for column in dict.fromkeys(literal.columns) if column in place]
    return [f"<v{number}>", *(f"<c{column}>" for column in held[:2])]


def names_schema(linked: Linked) -> str:
    """DDL-like lines with the linked tables, their columns, keys and the values that the question names."""
    lines = ["Answer with one FROM-first SQL query over these tables:"]
    held = collections.defaultdict(list)
    for literal in linked.literals:
        for column in literal.columns:
            held[column].append(literal.text)
    for table in linked.tables:
        parts = []
        for column in table.columns:
            known = linked.schema.columns[table.name.lower(), column.lower()]
            value = held.get((table.name.lower(), column.lower()))
            shown = f" = '{value[0]}'" if value else ""
            parts.append(f"{identifier(column)} {known.type or 'text'}{' key' if known.primary else ''}{shown}")
        lines.append(f"{identifier(table.name)}({', '.join(parts)})")
    for left, right in linked.edges:
        lines.append(f"{qualified(*linked.columns[left])} = {qualified(*linked.columns[right])}")
    return "\n".join(lines)


def identifier(name: str) -> str:
    """``name`` as the names surface writes it: bare where it is a plain word."""
    return name if name.isidentifier() and name.isascii() and name.lower() not in RESERVED else quote(name)


def qualified(table: str, column: str) -> str:
    return f"{identifier(table)}.{identifier(column)}"


RESERVED = frozenset(
    "all and as asc between by case cast count cross desc distinct else end except exists from full group having in "
    "index inner intersect is join key left like limit not null offset on or order outer right select set table then "
    "to transaction union unique using values when where with".split()
)
