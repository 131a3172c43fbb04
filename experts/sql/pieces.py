"""What the typed bindings write into hook bodies: names to choose from, and what is written already, word for word."""

from __future__ import annotations

import re
from collections.abc import Iterable

from expert_cli.grammar.bind import NEVER
from expert_cli.grammar.nodes import Literal, write

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
