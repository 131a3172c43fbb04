"""Schema linking: which tables, columns and literals a question speaks of, and where it speaks of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from experts.sql.literals import Literal, literals
from experts.sql.schema import Key, Schema, Table
from experts.sql.words import STOP, Word, split, stem, stems

MAX_TABLES = 6
MAX_COLUMNS = 12
"""Columns shown per table."""
MAX_POINTERS = 96
"""Columns shown of all tables together."""


@dataclass(frozen=True)
class Mention:
    """Where a name occurs: ``word`` is the index of the question's word that ends it, or of its last telling word.

    ``full`` where all of the name's words occur; ``length`` is their number.
    """

    word: int
    full: bool
    length: int


@dataclass(frozen=True)
class LinkedTable:
    """A table that the model sees, with the columns that it sees, in prompt order."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Linked:
    """A question against a schema: what the model sees of it, numbered.

    Tables are numbered by score; columns by order of mention, unmentioned ones after, in prompt order.
    """

    question: str
    schema: Schema
    tables: tuple[LinkedTable, ...]
    columns: tuple[tuple[str, str], ...]
    """(table, column) as the schema writes them."""
    literals: tuple[Literal, ...]
    mentions: dict[Key, Mention]
    edges: tuple[tuple[int, int], ...]
    """Pairs of column numbers that tables may be joined on."""
    spans: tuple[Word, ...]
    """The question's words with their offsets."""


def link(question: str, schema: Schema, *, rng: Random | None = None, keep: Collection[Key] = frozenset()) -> Linked:
    """Choose and number what the model sees of ``schema`` for ``question``.

    Args:
        question: as the user asked it.
        schema: the opened schema.
        rng: training only: jitters the order of tables, shuffles columns and drops irrelevant tables.
        keep: training only: lower-cased (table, column) pairs, and (table, "") for tables, that must be seen.
    """
    spans = split(question)
    found = mentions(schema, spans)
    offered = literals(question, schema, spans, {pair: mention.word for pair, mention in found.items()})
    held = {column for literal in offered for column in literal.columns}
    chosen = tuple(
        LinkedTable(table.name, _shown_columns(table, schema, found, held, rng, keep))
        for table in _shown_tables(schema, found, held, rng, keep)
    )
    numbered = sorted(
        ((table.name, column) for table in chosen for column in table.columns),
        key=lambda pair: _order(found.get((pair[0].lower(), pair[1].lower()))),
    )[:MAX_POINTERS]
    place = {(table.lower(), column.lower()): number for number, (table, column) in enumerate(numbered)}
    edges = tuple((place[left], place[right]) for left, right in schema.edges if left in place and right in place)
    return Linked(question, schema, chosen, tuple(numbered), offered, found, edges, spans)


def mentions(schema: Schema, spans: Sequence[Word]) -> dict[Key, Mention]:
    """Mentions by (table, column), with an empty column for the table itself."""
    said = [stem(word.lower()) for word, _, _ in spans]
    places: dict[str, list[int]] = {}
    for place, word in enumerate(said):
        places.setdefault(word, []).append(place)
    found = {}
    for table in schema.tables:
        for column in ("", *(column.name for column in table.columns)):
            mention = _locate(column or table.name, said, places)
            if mention:
                found[table.name.lower(), column.lower()] = mention
    return found


def _locate(name: str, said: list[str], places: Mapping[str, list[int]]) -> Mention | None:
    """The best occurrence of ``name`` in the question: all of its words close together, else any telling word."""
    parts = stems(name)
    core = [part for part in parts if part not in STOP] or list(parts)
    if parts and all(part in places for part in parts):
        size = len(set(parts))
        for start in places[parts[0]] if size == 1 else range(len(said)):
            window = said[start : start + size + 2]
            if said[start] in parts and set(parts) <= set(window):
                ends = [start + offset for offset, word in enumerate(window) if word in core]
                return Mention(max(ends[:size]), True, len(parts))
    for part in core:
        if part in places:
            return Mention(places[part][0], False, len(parts))
    for part in core:
        if len(part) >= 4:
            for place, word in enumerate(said):
                if len(word) >= 4 and (word.startswith(part) or part.startswith(word)):
                    return Mention(place, False, len(parts))
    return None


def _order(mention: Mention | None) -> tuple[bool, int, bool, int]:
    return (True, 0, False, 0) if mention is None else (False, mention.word, not mention.full, -mention.length)


def _grade(mention: Mention | None, full: float, partial: float) -> float:
    return 0.0 if mention is None else full if mention.full else partial


def _shown_tables(
    schema: Schema, found: Mapping[Key, Mention], held: Collection[Key], rng: Random | None, keep: Collection[Key]
) -> list[Table]:
    """The tables that the model sees, the most mentioned first."""
    scores = {}
    for table in schema.tables:
        name = table.name.lower()
        score = _grade(found.get((name, "")), 2.0, 1.0)
        for column in table.columns:
            pair = (name, column.name.lower())
            score += _grade(found.get(pair), 1.0, 0.4) + (1.5 if pair in held else 0.0)
        scores[name] = score + (rng.random() if rng else 0.0)
    order = sorted(schema.tables, key=lambda table: -scores[table.name.lower()])
    rest = order[MAX_TABLES:]
    shown = order[:MAX_TABLES] + [table for table in rest if (table.name.lower(), "") in keep]
    bridge = _bridge(shown, rest, schema, scores)
    if bridge is not None:
        shown.append(bridge)
    if rng and rng.random() < 0.5:
        shown = [table for table in shown if (table.name.lower(), "") in keep or rng.random() < 0.75]
    if rng and rng.random() < 0.2:
        rng.shuffle(shown)
    return shown


def _bridge(shown: list[Table], rest: list[Table], schema: Schema, scores: Mapping[str, float]) -> Table | None:
    """A table left out that joins two of the best ones."""
    names = [table.name.lower() for table in shown]
    strong = {name for name in names[:3] if scores[name] >= 1.0}
    for table in rest:
        name = table.name.lower()
        touched = {other[0] for edge in schema.edges for mine, other in (edge, edge[::-1]) if mine[0] == name}
        if len(touched & strong) >= 2 and name not in names:
            return table
    return None


def _shown_columns(
    table: Table,
    schema: Schema,
    found: Mapping[Key, Mention],
    held: Collection[Key],
    rng: Random | None,
    keep: Collection[Key],
) -> tuple[str, ...]:
    """The columns of a shown table that the model sees: all, or the most likely of many."""
    columns = [column.name for column in table.columns]
    if len(columns) > MAX_COLUMNS:
        keys = {column for edge in schema.edges for column in edge}
        worth = {}
        for place, column in enumerate(columns):
            pair = (table.name.lower(), column.lower())
            known = 3.0 * (pair in held) + 1.5 * (pair in keys) + 9.0 * (pair in keep)
            worth[column] = _grade(found.get(pair), 2.0, 1.0) + known - 0.01 * place
        best = set(sorted(worth, key=lambda column: -worth[column])[:MAX_COLUMNS])
        columns = [column for column in columns if column in best]
    if rng and rng.random() < 0.4:
        rng.shuffle(columns)
    return tuple(columns)
