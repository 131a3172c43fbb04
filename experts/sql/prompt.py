"""What the model reads of a linked question, on either surface."""

from __future__ import annotations

import collections
import re

from expert_cli.task import Message
from experts.sql.identifiers import quoted
from experts.sql.linking import Linked, Mention
from experts.sql.literals import Literal
from experts.sql.schema import Column
from experts.sql.surface import surface as named

MAX_TAGS = 4
"""Pointers written after one question word."""

MAX_EDGES = 16
"""Joins shown to the model."""

SPECIAL = re.compile(r"<(?=[^\s<>]*[^\s<>/A-Z][^\s<>]*>)")
"""The bracket that opens what a tokenizer may take for a special token: ``<c3>``, ``</s>``, ``<|im_end|>``."""


def asked(question: str, evidence: str = "") -> str:
    """A question with what it takes for granted."""
    return f"{question} ({evidence})" if evidence else question


def messages(linked: Linked, surface: str) -> tuple[Message, ...]:
    """The system message (the linked schema) and the user message (the question).

    What users and databases say never holds a special token: a space follows the bracket that would open one.
    """
    if named(surface).pointed:
        return Message("system", pointer_schema(linked)), Message("user", pointer_question(linked))
    order = "SQL" if named(surface).select_first else "FROM-first SQL"
    return Message("system", names_schema(linked, order)), Message("user", opened(linked.question))


def opened(text: str) -> str:
    """``text`` without special tokens."""
    return SPECIAL.sub("< ", text)


def _mark(mention: Mention | None) -> str:
    return "" if mention is None else "*" if mention.full else "~"


def _type(column: Column) -> str:
    kind = "@" if column.temporal else "#" if column.numeric else ""
    return kind + ("^" if column.primary else "")


def _plain(name: str) -> str:
    return opened(" ".join(name.replace("_", " ").lower().split()[:6]))


def pointer_schema(linked: Linked) -> str:
    """``<t0> singer*<c1> singer id#^<c0> name* … <fk><c5><c1>``.

    ``*``/``~`` marks a full or partial mention, ``#`` a number, ``@`` a time, ``^`` a primary key.
    """
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
    keys = "".join(f"<c{left}><c{right}>" for left, right in linked.edges[:MAX_EDGES])
    return "".join(parts) + (f"<fk>{keys}" if keys else "")


def pointer_question(linked: Linked) -> str:
    """The question with the pointers of what each word mentions written after it."""
    tags = _tags(linked)
    added = [(linked.spans[word][2], "".join(tags[word])) for word in sorted(tags)]
    added += [(match.end(), " ") for match in SPECIAL.finditer(linked.question)]
    out, last = [], 0
    for offset, text in sorted(added):
        out.append(linked.question[last:offset] + text)
        last = offset
    return " " + " ".join(("".join(out) + linked.question[last:]).split())


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


def names_schema(linked: Linked, order: str) -> str:
    """DDL-like lines with the linked tables, their columns, keys and the values that the question names."""
    lines = [f"Answer with one {order} query over these tables:"]
    held = collections.defaultdict(list)
    for literal in linked.literals:
        for pair in literal.columns:
            held[pair].append(literal.text)
    for table in linked.tables:
        parts = []
        for column in table.columns:
            known = linked.schema.columns[table.name.lower(), column.lower()]
            value = held.get((table.name.lower(), column.lower()))
            shown = f" = '{value[0]}'" if value else ""
            parts.append(f"{quoted(column)} {known.type or 'text'}{' key' if known.primary else ''}{shown}")
        lines.append(f"{quoted(table.name)}({', '.join(parts)})")
    for edge in linked.edges:
        left, right = (".".join(map(quoted, linked.columns[number])) for number in edge)
        lines.append(f"{left} = {right}")
    return "\n".join(opened(_CONTROL.sub(" ", line)) for line in lines)


_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
