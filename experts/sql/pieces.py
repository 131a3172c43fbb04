"""What the typed bindings write into hook bodies: names to choose from, and what is written already, word for word."""

from __future__ import annotations

import re
from collections.abc import Iterable

from expert_cli.grammar.bind import NEVER
from expert_cli.grammar.nodes import Literal, write
from experts.sql.kinds import COMPARED, NUMBER, OTHER, WHOLE
from experts.sql.typed_scopes import Column, Scope, Source

# How the grammars cut text: what is written already is repeated word for word, in the same pieces.
_PIECE = re.compile(
    r"INTERVAL '|(?<=INTERVAL ')\d+| (?:YEAR|MONTH|DAY|WEEK|HOUR|MINUTE)(?='|\b(?! FROM))"
    r"| WITHIN GROUP \(|0\.\d+(?=\) WITHIN)"
    r"|(?<=[A-Z])'(?=[ ),]|$)|(?<=INTERVAL '\d)'|(?<=INTERVAL '\d\d)'|(?<=INTERVAL '\d\d\d)'|"
    r"(?:(?<=DATE )|(?<=TIMESTAMP ))'|(?<=[EP] ')\d{4}(?=-)|(?<=[EP] '\d{4}-)\d\d-\d\d(?: \d\d:\d\d:\d\d)?"
    r"|(?<=-\d\d-\d\d)'|(?<=:\d\d:\d\d)'|'(?:[^']|'')*'|[\d.]+"
    r"| (?:GROUP BY|ORDER BY|UNION ALL|(?:LEFT |RIGHT |FULL |CROSS )?JOIN|(?:ROWS|GROUPS|RANGE) BETWEEN) "
    r"| NOT(?= (?:IN|LIKE|ILIKE|BETWEEN) )| (?:DESC|ASC|END)\b| NULLS (?:FIRST|LAST)"
    r"| (?:IN|OVER|USING) \(| FILTER\(WHERE | (?:[A-Z]+|[^\w\s'\"`(),]+) "
    r"|(?:PARTITION BY|ORDER BY|DISTINCT FROM|DISTINCT|NOT|FROM|SELECT|DATE|TIMESTAMP|ANY|ALL) "
    r"|EXISTS \(|[A-Z_]+\(|, "
    r"|(?:\w+|\"(?:[^\"]|\"\")*\"|`[^`]*`)(?:\.(?:\w+|\*|\"(?:[^\"]|\"\")*\"|`[^`]*`))?|."
)


def verbatim(text: str) -> str:
    """``text`` word for word, in the pieces that the grammars have it in."""
    return " ".join(literally(piece) for piece in _PIECE.findall(text))


def choice(texts: Iterable[str]) -> str:
    """One of ``texts``, or nothing at all."""
    return " | ".join(literally(text) for text in dict.fromkeys(texts)) or NEVER


def literally(text: str) -> str:
    """``text`` as one literal."""
    return write(Literal(text))


def distinct_on(text: str) -> list[str]:
    """The keys of DISTINCT ON in a SELECT clause."""
    begin = " SELECT DISTINCT ON ("
    if not text.startswith(begin):
        return []
    keys, depth = [""], 0
    for piece in _PIECE.findall(text[len(begin) :]):
        if depth == 0 and piece in (")", ", "):
            if piece == ")":
                break
            keys.append("")
            continue
        depth += piece.count("(") - piece.count(")") if piece[0] != "'" else 0
        keys[-1] += piece
    return keys


def using(scope: Scope, source: Source) -> str:
    """USING as another way than ON: with columns of ``source`` that exactly one source before it has, of one kind."""
    before = [column for one in scope.sources for column in one.columns]
    shared = []
    for column in source.columns:
        others = [one for one in before if one.name.lower() == column.name.lower()]
        if len(others) == 1 and _alike(column, others[0]):
            shared.append(column.name)
    return f' | " USING (" ({choice(shared)}) ")"' if shared else ""


def equal(scope: Scope, source: Source) -> str:
    """One column of the sources so far and one of ``source``, of one kind."""
    options = []
    for kind in COMPARED:
        before = [column.name for column in scope.own() if _alike(column, Column("", kind))]
        added = [f"{source.name}.{column.name}" for column in source.columns if _alike(column, Column("", kind))]
        if before and added:
            options.append(f'({choice(before)}) " = " ({choice(added)})')
    return " | ".join(options)


def _alike(one: Column, other: Column) -> bool:
    kinds = {NUMBER if column.kind == WHOLE else column.kind for column in (one, other)}
    return len(kinds) == 1 and OTHER not in kinds
