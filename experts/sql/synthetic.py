"""Generated questions with their queries over real schemas: they teach joins, grouping and nesting, not English.

Every sentence is composed from the same decisions as its query, so that both say the same thing by construction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from expert_cli.errors import ContextError
from experts.sql import fromfirst
from experts.sql.schema import Column, Schema, quote

if TYPE_CHECKING:
    from experts.sql.prepare import Pair

MORE = ("more than", "greater than", "above", "over", "larger than", "higher than")
LESS = ("less than", "below", "under", "smaller than", "fewer than", "lower than")
HIGHEST = ("highest", "largest", "most", "maximum", "greatest", "biggest")
LOWEST = ("lowest", "smallest", "least", "minimum", "fewest")
ASK = ("What is", "What are", "Show", "List", "Find", "Give", "Give me", "Return", "Tell me", "Show me", "Which are")


@dataclass
class _Draft:
    """A question in the making: parts of its sentence and of its query."""

    schema: Schema
    rng: Random
    table: str
    joins: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def source(self) -> str:
        return " ".join([quote(self.table), *self.joins])


def generate(schemas: Sequence[Schema], count: int, rng: Random) -> Iterator[Pair]:
    """``count`` pairs over ``schemas``, drawn at random."""
    from experts.sql.prepare import Pair

    made = 0
    while made < count:
        schema = rng.choice(schemas)
        draft = _Draft(schema, rng, rng.choice(schema.tables).name)
        draft.tables.append(draft.table)
        kind = rng.choices(KINDS, weights=[weight for _, weight in WEIGHTS])[0]
        said = kind(draft)
        if said is None:
            continue
        question, sql = said
        if draft.joins and sql.count(quote(draft.tables[-1])) < 3 * sql.count(" FROM " + draft.source()):
            continue  # a joined table that neither sentence nor query uses teaches nothing
        question = question.strip()
        question = question[0].upper() + question[1:] + rng.choice(("?", ".", "", " ?"))
        if rng.random() < 0.15:
            question = question.lower()
        try:
            query = fromfirst.canonical(sql, schema)
        except ContextError:
            continue
        yield Pair(f"synthetic/{made}", question, schema, query)
        made += 1


def _words(name: str, rng: Random) -> str:
    """A name as people say it; now and then a word is left out."""
    parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("_", " ").lower().split()
    if len(parts) > 1 and rng.random() < 0.25:
        parts.pop(rng.randrange(len(parts)))
    return " ".join(parts)


def _things(name: str, rng: Random) -> str:
    said = _words(name, rng)
    return said if said.endswith("s") or rng.random() < 0.2 else said + "s"


def _columns(draft: _Draft, table: str, *, numeric: bool | None = None) -> list[Column]:
    found = draft.schema.by_name[table.lower()].columns
    keep = [column for column in found if numeric is None or (column.numeric and not column.primary) == numeric]
    return keep


def _pick(draft: _Draft, *, numeric: bool | None = None, anywhere: bool = True) -> tuple[str, Column] | None:
    tables = draft.tables if anywhere else draft.tables[:1]
    options = [(table, column) for table in tables for column in _columns(draft, table, numeric=numeric)]
    plain = [option for option in options if not option[1].primary and not option[1].name.lower().endswith("id")]
    options = plain if plain and draft.rng.random() < 0.85 else options
    return draft.rng.choice(options) if options else None


def _sql(pair: tuple[str, Column]) -> str:
    return f"{quote(pair[0])}.{quote(pair[1].name)}"


def _join(draft: _Draft) -> bool:
    """Join one more table along a key; False where there is none."""
    options = []
    for left, right in draft.schema.edges:
        for old, new in ((left, right), (right, left)):
            joined = {table.lower() for table in draft.tables}
            if old[0] in joined and new[0] not in joined:
                options.append((old, new))
    if not options or len(draft.tables) > 3:
        return False
    old, new = draft.rng.choice(options)
    table = draft.schema.by_name[new[0]]
    old_column = draft.schema.columns[old].name
    old_table = draft.schema.by_name[old[0]].name
    new_column = draft.schema.columns[new].name
    draft.joins.append(
        f"JOIN {quote(table.name)} ON {quote(old_table)}.{quote(old_column)} = {quote(table.name)}.{quote(new_column)}"
    )
    draft.tables.append(table.name)
    return True


def _maybe_join(draft: _Draft, chance: float) -> None:
    while draft.rng.random() < chance and _join(draft):
        chance *= 0.4


def _say(draft: _Draft, pair: tuple[str, Column]) -> str:
    """A column, with its table's name where that is not the subject."""
    said = _words(pair[1].name, draft.rng)
    if pair[0] != draft.table and draft.rng.random() < 0.6:
        return f"{_words(pair[0], draft.rng)} {said}"
    return said


def _value(draft: _Draft, pair: tuple[str, Column]) -> str | None:
    held = [
        value
        for places in draft.schema.values.values()
        for table, column, value in places
        if (table, column) == (pair[0], pair[1].name)
    ]
    return draft.rng.choice(held) if held else None


def _condition(draft: _Draft) -> tuple[str, str] | None:
    """(phrase, predicate)"""
    rng = draft.rng
    if rng.random() < 0.45:
        pair = _pick(draft, numeric=True)
        if pair is None:
            return None
        number = rng.choice(
            (rng.randrange(1, 10), rng.randrange(10, 100), rng.randrange(100, 5000), rng.randrange(1950, 2020))
        )
        said = _say(draft, pair)
        form = rng.randrange(5)
        if form == 0:
            other = number + rng.randrange(1, 100)
            return (
                f"{rng.choice(('with', 'whose'))} {said} between {number} and {other}",
                f"{_sql(pair)} BETWEEN {number} AND {other}",
            )
        if form == 1:
            return f"with {said} {rng.choice(('at least', 'no less than'))} {number}", f"{_sql(pair)} >= {number}"
        if form == 2:
            return (
                f"{rng.choice(('whose', 'where the'))} {said} is {rng.choice(LESS)} {number}",
                f"{_sql(pair)} < {number}",
            )
        if form == 3:
            return f"{rng.choice(('whose', 'where the'))} {said} is {number}", f"{_sql(pair)} = {number}"
        return f"{rng.choice(('with', 'having'))} {said} {rng.choice(MORE)} {number}", f"{_sql(pair)} > {number}"
    pair = _pick(draft, numeric=False)
    value = _value(draft, pair) if pair else None
    if pair is None or value is None:
        return None
    said, literal = _say(draft, pair), value.replace("'", "''")
    shown = rng.choice((value, f'"{value}"', f"'{value}'", value, value))
    form = rng.randrange(9)
    if form == 0:
        return f"{rng.choice(('whose', 'where the'))} {said} is not {shown}", f"{_sql(pair)} != '{literal}'"
    if form == 1:
        part = literal.split()[0]
        word = rng.choice(("contains", "contains the word", "has the substring", "includes"))
        return f"whose {said} {word} {rng.choice((part, chr(39) + part + chr(39)))}", f"{_sql(pair)} LIKE '%{part}%'"
    if form == 2:
        return f"{rng.choice(('in', 'from', 'of', 'for', 'by'))} {shown}", f"{_sql(pair)} = '{literal}'"
    if form == 3:
        other = _value(draft, pair)
        if other is None or other == value:
            return None
        return (
            f"whose {said} is {value} or {other}",
            f"{_sql(pair)} = '{literal}' OR {_sql(pair)} = '{other.replace(chr(39), chr(39) * 2)}'",
        )
    return (
        f"{rng.choice(('whose', 'where the', 'with'))} {said} {rng.choice(('is', '', '='))} {shown}",
        f"{_sql(pair)} = '{literal}'",
    )


def _where(draft: _Draft, chance: float) -> tuple[str, str]:
    if draft.rng.random() > chance:
        return "", ""
    first = _condition(draft)
    if first is None:
        return "", ""
    if draft.rng.random() < 0.25 and " OR " not in first[1]:
        second = _condition(draft)
        if second and " OR " not in second[1] and second[1] != first[1]:
            word = draft.rng.choice(("and", "and", "or"))
            return f" {first[0]} {word} {second[0]}", f" WHERE {first[1]} {word.upper()} {second[1]}"
    return f" {first[0]}", f" WHERE {first[1]}"


def _several(draft: _Draft, most: int = 3) -> list[tuple[str, Column]]:
    picked: list[tuple[str, Column]] = []
    for _ in range(draft.rng.choices(range(1, most + 1), weights=(6, 3, 1)[:most])[0]):
        pair = _pick(draft)
        if pair and pair not in picked:
            picked.append(pair)
    return picked


def _listed(said: Sequence[str]) -> str:
    return said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]


def _of(draft: _Draft) -> str:
    rng = draft.rng
    return rng.choice(
        (
            f"of {_things(draft.table, rng)}",
            f"of all {_things(draft.table, rng)}",
            f"for the {_things(draft.table, rng)}",
            f"of the {_things(draft.table, rng)}",
        )
    )


Said = tuple[str, str] | None


def _select(draft: _Draft) -> Said:
    _maybe_join(draft, 0.45)
    columns = _several(draft)
    if not columns:
        return None
    phrase, where = _where(draft, 0.75)
    distinct = draft.rng.random() < 0.15
    word = draft.rng.choice(("different ", "distinct ", "unique ")) if distinct else ""
    order, said = "", ""
    if draft.rng.random() < 0.25:
        key = draft.rng.choice((columns[0], _pick(draft) or columns[0]))
        down = draft.rng.random() < 0.5
        direction = (
            draft.rng.choice(("in descending order of", "from high to low by"))
            if down
            else draft.rng.choice(("ordered by", "sorted by", "in ascending order of", "in alphabetical order of"))
        )
        said, order = f" {direction} {_say(draft, key)}", f" ORDER BY {_sql(key)}{' DESC' if down else ''}"
    names = _listed([_say(draft, column) for column in columns])
    question = f"{draft.rng.choice(ASK)} the {word}{names} {_of(draft)}{phrase}{said}"
    return (
        question,
        f"SELECT {'DISTINCT ' if distinct else ''}{', '.join(map(_sql, columns))} FROM {draft.source()}{where}{order}",
    )


def _count(draft: _Draft) -> Said:
    _maybe_join(draft, 0.35)
    phrase, where = _where(draft, 0.7)
    things, rng = _things(draft.table, draft.rng), draft.rng
    if rng.random() < 0.25 and (pair := _pick(draft)):
        said = rng.choice(
            (
                f"How many different {_say(draft, pair)} are there {_of(draft)}",
                f"Count the number of distinct {_say(draft, pair)} {_of(draft)}",
            )
        )
        return said + phrase, f"SELECT COUNT(DISTINCT {_sql(pair)}) FROM {draft.source()}{where}"
    question = rng.choice(
        (
            f"How many {things} are there",
            f"How many {things}",
            f"Count the {things}",
            f"What is the number of {things}",
            f"Find the total number of {things}",
            f"How many {things} do we have",
        )
    )
    return question + phrase, f"SELECT COUNT(*) FROM {draft.source()}{where}"


def _aggregate(draft: _Draft) -> Said:
    _maybe_join(draft, 0.3)
    rng = draft.rng
    chosen = rng.sample(
        [("average", "AVG"), ("maximum", "MAX"), ("minimum", "MIN"), ("total", "SUM")], rng.choice((1, 1, 2, 3))
    )
    pair = _pick(draft, numeric=True)
    if pair is None:
        return None
    phrase, where = _where(draft, 0.5)
    group, items = "", [f"{name}({_sql(pair)})" for _, name in chosen]
    said = f"{rng.choice(ASK)} the {_listed([word for word, _ in chosen])} {_say(draft, pair)} {_of(draft)}{phrase}"
    if rng.random() < 0.35 and (key := _pick(draft, numeric=False)):
        group = f" GROUP BY {_sql(key)}"
        items = rng.choice(([*items, _sql(key)], [_sql(key), *items]))
        said += f" {rng.choice(('for each', 'in each', 'by', 'per', 'of each'))} {_say(draft, key)}"
        if items[0] == _sql(key):
            said = f"For each {_say(draft, key)}, {rng.choice(('what is', 'show', 'find'))} the {_listed([word for word, _ in chosen])} {_say(draft, pair)} {_of(draft)}{phrase}"
    return said, f"SELECT {', '.join(items)} FROM {draft.source()}{where}{group}"


def _extreme(draft: _Draft) -> Said:
    _maybe_join(draft, 0.35)
    rng, columns = draft.rng, _several(draft, 2)
    key = _pick(draft, numeric=True)
    if key is None or not columns:
        return None
    down = rng.random() < 0.65
    phrase, where = _where(draft, 0.25)
    number = rng.choice((1, 1, 1, rng.randrange(2, 9)))
    adjective = rng.choice(HIGHEST if down else LOWEST)
    names = _listed([_say(draft, column) for column in columns])
    who = _words(draft.table, rng) if number == 1 else f"{number} {_things(draft.table, rng)}"
    question = f"{rng.choice(ASK)} the {names} of the {who} with the {adjective} {_say(draft, key)}{phrase}"
    if number == 1 and rng.random() < 0.4:
        question = f"Which {_words(draft.table, rng)} has the {adjective} {_say(draft, key)}{phrase}? {rng.choice(('Give', 'Show', 'List'))} the {names}"
    return (
        question,
        f"SELECT {', '.join(map(_sql, columns))} FROM {draft.source()}{where} ORDER BY {_sql(key)}{' DESC' if down else ''} LIMIT {number}",
    )


def _grouped(draft: _Draft) -> Said:
    _maybe_join(draft, 0.5)
    rng, key = draft.rng, _pick(draft)
    if key is None:
        return None
    phrase, where = _where(draft, 0.2)
    things, said = _things(draft.table, rng), _say(draft, key)
    source = f"FROM {draft.source()}{where} GROUP BY {_sql(key)}"
    form = rng.randrange(4)
    if form == 0:
        number, word, operator = (
            rng.randrange(1, 8),
            *rng.choice((("at least", ">="), ("more than", ">"), ("less than", "<"), ("exactly", "="))),
        )
        question = rng.choice(
            (
                f"Which {said} have {word} {number} {things}{phrase}",
                f"Find the {said} with {word} {number} {things}{phrase}",
                f"Show the {said} that have {word} {number} {things}{phrase}",
            )
        )
        return question, f"SELECT {_sql(key)} {source} HAVING COUNT(*) {operator} {number}"
    if form == 1:
        down = rng.random() < 0.8
        adjective = rng.choice(
            ("most", "largest number of", "highest number of", "most common")
            if down
            else ("fewest", "least number of", "smallest number of")
        )
        tail = f"ORDER BY COUNT(*){' DESC' if down else ''} LIMIT 1"
        counted = rng.random() < 0.2
        question = rng.choice(
            (
                f"Which {said} has the {adjective} {things}{phrase}",
                f"Find the {said} with the {adjective} {things}{phrase}",
                f"What is the {said} that has the {adjective} {things}{phrase}",
            )
        )
        return question + (
            " and how many are there" if counted else ""
        ), f"SELECT {_sql(key)}{', COUNT(*)' if counted else ''} {source} {tail}"
    first = rng.random() < 0.5
    items = f"{_sql(key)}, COUNT(*)" if first else f"COUNT(*), {_sql(key)}"
    question = f"{rng.choice(('What is', 'Show', 'Find', 'Count'))} the number of {things} {rng.choice(('for each', 'in each', 'of each', 'per', 'by'))} {said}{phrase}"
    if first:
        question = rng.choice(
            (
                f"For each {said}, how many {things} are there{phrase}",
                f"Show the {said} and the number of {things}{phrase} for each",
                f"List each {said} and its number of {things}{phrase}",
                f"How many {things}{phrase} does each {said} have? List the {said} and the count",
            )
        )
    return question, f"SELECT {items} {source}"


def _versus_average(draft: _Draft) -> Said:
    key, columns, rng = _pick(draft, numeric=True, anywhere=False), _several(draft, 2), draft.rng
    if key is None or not columns:
        return None
    name, word = rng.choice((("AVG", "average"), ("AVG", "mean"), ("MAX", "maximum"), ("MIN", "minimum")))
    operator, said = (
        rng.choice(((">", rng.choice(MORE)), ("<", rng.choice(LESS)))) if name == "AVG" else ("=", "equal to")
    )
    names = _listed([_say(draft, column) for column in columns])
    question = f"{rng.choice(ASK)} the {names} {_of(draft)} whose {_say(draft, key)} is {said} the {word}"
    inner = f"(SELECT {name}({_sql(key)}) FROM {quote(draft.table)})"
    return (
        question,
        f"SELECT {', '.join(map(_sql, columns))} FROM {quote(draft.table)} WHERE {_sql(key)} {operator} {inner}",
    )


def _without(draft: _Draft) -> Said:
    rng, columns = draft.rng, _several(draft, 2)
    edges = [
        (mine, other)
        for left, right in draft.schema.edges
        for mine, other in ((left, right), (right, left))
        if mine[0] == draft.table.lower()
    ]
    if not columns or not edges:
        return None
    mine, other = rng.choice(edges)
    table = draft.schema.by_name[other[0]].name
    inner = _Draft(draft.schema, rng, table, tables=[table])
    phrase, where = _where(inner, 0.35)
    negative = rng.random() < 0.75
    verb = (
        rng.choice(("do not have any", "have no", "are not in any", "never had"))
        if negative
        else rng.choice(("have", "are in", "have some"))
    )
    subject = rng.choice((f"the {_listed([_say(draft, column) for column in columns])} {_of(draft)}",))
    question = f"{rng.choice(ASK)} {subject} that {verb} {_things(table, rng)}{phrase}"
    selected = ", ".join(map(_sql, columns))
    if rng.random() < 0.2 and negative:
        question, selected = f"How many {_things(draft.table, rng)} {verb} {_things(table, rng)}{phrase}", "COUNT(*)"
    sub = f"(SELECT {quote(table)}.{quote(draft.schema.columns[other].name)} FROM {quote(table)}{where})"
    left = f"{quote(draft.table)}.{quote(draft.schema.columns[mine].name)}"
    return question, f"SELECT {selected} FROM {quote(draft.table)} WHERE {left} {'NOT IN' if negative else 'IN'} {sub}"


def _combined(draft: _Draft) -> Said:
    _maybe_join(draft, 0.5)
    rng, columns = draft.rng, _several(draft, 1)
    first, second = _condition(draft), _condition(draft)
    if not columns or first is None or second is None or first[1] == second[1] or " OR " in first[1] + second[1]:
        return None
    word, operation = rng.choice(
        (("and also", "INTERSECT"), ("but not", "EXCEPT"), ("or those", "UNION"), ("and those also", "INTERSECT"))
    )
    both = "both " if operation == "INTERSECT" and rng.random() < 0.5 else ""
    question = f"{rng.choice(ASK)} the {_say(draft, columns[0])} {_of(draft)} {both}{first[0]} {word} {second[0]}"
    arm = f"SELECT {_sql(columns[0])} FROM {draft.source()} WHERE "
    return question, f"{arm}{first[1]} {operation} {arm}{second[1]}"


WEIGHTS = (
    (_select, 24),
    (_count, 14),
    (_aggregate, 12),
    (_extreme, 13),
    (_grouped, 18),
    (_versus_average, 5),
    (_without, 8),
    (_combined, 6),
)
KINDS = [kind for kind, _ in WEIGHTS]
