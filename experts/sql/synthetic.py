"""Generated questions with their queries over real schemas: they teach joins, grouping and nesting, not English.

Every sentence is composed from the same decisions as its query, so that both say the same thing by construction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

from expert_cli.errors import ContextError
from experts.sql import fromfirst
from experts.sql.corpora import Pair
from experts.sql.phrases import LESS, MORE, Draft, Phrase, listed, sql, things, words
from experts.sql.schema import Schema, quote

HIGHEST = ("highest", "largest", "most", "maximum", "greatest", "biggest")
LOWEST = ("lowest", "smallest", "least", "minimum", "fewest")
ASK = ("What is", "What are", "Show", "List", "Find", "Give", "Give me", "Return", "Tell me", "Show me", "Which are")


def generate(schemas: Sequence[Schema], count: int, rng: Random) -> Iterator[Pair]:
    """``count`` pairs over ``schemas``, drawn at random.

    Raises:
        ContextError: there is no schema.
    """
    if not schemas:
        raise ContextError("no schemas to ask questions about; name training files whose databases are there")
    kinds, weights = zip(*WEIGHTS, strict=True)
    made = 0
    while made < count:
        schema = rng.choice(schemas)
        draft = Draft(schema, rng, rng.choice(schema.tables).name)
        said = rng.choices(kinds, weights=weights)[0](draft)
        if said is None:
            continue
        question, text = said
        if draft.joins and text.count(quote(draft.tables[-1])) < 3 * text.count(" FROM " + draft.source()):
            continue  # a joined table that neither sentence nor query uses teaches nothing
        question = question.strip()
        question = question[0].upper() + question[1:] + rng.choice(("?", ".", "", " ?"))
        if rng.random() < 0.15:
            question = question.lower()
        try:
            query = fromfirst.canonical(text, schema)
        except ContextError:
            continue
        yield Pair(f"synthetic/{made}", question, schema, query)
        made += 1


def _select(draft: Draft) -> Phrase | None:
    draft.join(0.45)
    rng, columns = draft.rng, draft.several()
    if not columns:
        return None
    phrase, where = draft.where(0.75)
    distinct = rng.random() < 0.15
    word = rng.choice(("different ", "distinct ", "unique ")) if distinct else ""
    order, said = "", ""
    if rng.random() < 0.25:
        key = rng.choice((columns[0], draft.pick() or columns[0]))
        down = rng.random() < 0.5
        direction = rng.choice(
            ("in descending order of", "from high to low by")
            if down
            else ("ordered by", "sorted by", "in ascending order of", "in alphabetical order of")
        )
        said, order = f" {direction} {draft.say(key)}", f" ORDER BY {sql(key)}{' DESC' if down else ''}"
    names = draft.say_all(columns)
    question = f"{rng.choice(ASK)} the {word}{names} {draft.subject()}{phrase}{said}"
    selected = ("DISTINCT " if distinct else "") + ", ".join(map(sql, columns))
    return question, f"SELECT {selected} FROM {draft.source()}{where}{order}"


def _count(draft: Draft) -> Phrase | None:
    draft.join(0.35)
    phrase, where = draft.where(0.7)
    rows, rng = things(draft.table, draft.rng), draft.rng
    if rng.random() < 0.25 and (place := draft.pick()):
        said = rng.choice(
            (
                f"How many different {draft.say(place)} are there {draft.subject()}",
                f"Count the number of distinct {draft.say(place)} {draft.subject()}",
            )
        )
        return said + phrase, f"SELECT COUNT(DISTINCT {sql(place)}) FROM {draft.source()}{where}"
    question = rng.choice(
        (
            f"How many {rows} are there",
            f"How many {rows}",
            f"Count the {rows}",
            f"What is the number of {rows}",
            f"Find the total number of {rows}",
            f"How many {rows} do we have",
        )
    )
    return question + phrase, f"SELECT COUNT(*) FROM {draft.source()}{where}"


def _aggregate(draft: Draft) -> Phrase | None:
    draft.join(0.3)
    rng = draft.rng
    chosen = rng.sample(
        [("average", "AVG"), ("maximum", "MAX"), ("minimum", "MIN"), ("total", "SUM")], rng.choice((1, 1, 2, 3))
    )
    place = draft.pick(numeric=True)
    if place is None:
        return None
    phrase, where = draft.where(0.5)
    group, items = "", [f"{name}({sql(place)})" for _, name in chosen]
    asked = listed([word for word, _ in chosen])
    said = f"{rng.choice(ASK)} the {asked} {draft.say(place)} {draft.subject()}{phrase}"
    if rng.random() < 0.35 and (key := draft.pick(numeric=False)):
        group = f" GROUP BY {sql(key)}"
        items = rng.choice(([*items, sql(key)], [sql(key), *items]))
        said += f" {rng.choice(('for each', 'in each', 'by', 'per', 'of each'))} {draft.say(key)}"
        if items[0] == sql(key):
            begin = f"For each {draft.say(key)}, {rng.choice(('what is', 'show', 'find'))}"
            said = f"{begin} the {asked} {draft.say(place)} {draft.subject()}{phrase}"
    return said, f"SELECT {', '.join(items)} FROM {draft.source()}{where}{group}"


def _extreme(draft: Draft) -> Phrase | None:
    draft.join(0.35)
    rng, columns = draft.rng, draft.several(2)
    key = draft.pick(numeric=True)
    if key is None or not columns:
        return None
    down = rng.random() < 0.65
    phrase, where = draft.where(0.25)
    number = rng.choice((1, 1, 1, rng.randrange(2, 9)))
    adjective = rng.choice(HIGHEST if down else LOWEST)
    names = draft.say_all(columns)
    who = words(draft.table, rng) if number == 1 else f"{number} {things(draft.table, rng)}"
    question = f"{rng.choice(ASK)} the {names} of the {who} with the {adjective} {draft.say(key)}{phrase}"
    if number == 1 and rng.random() < 0.4:
        question = f"Which {words(draft.table, rng)} has the {adjective} {draft.say(key)}{phrase}?"
        question += f" {rng.choice(('Give', 'Show', 'List'))} the {names}"
    order = f"ORDER BY {sql(key)}{' DESC' if down else ''} LIMIT {number}"
    return question, f"SELECT {', '.join(map(sql, columns))} FROM {draft.source()}{where} {order}"


def _grouped(draft: Draft) -> Phrase | None:
    draft.join(0.5)
    rng, key = draft.rng, draft.pick()
    if key is None:
        return None
    phrase, where = draft.where(0.2)
    rows, said = things(draft.table, rng), draft.say(key)
    source = f"FROM {draft.source()}{where} GROUP BY {sql(key)}"
    form = rng.randrange(4)
    if form == 0:
        number = rng.randrange(1, 8)
        word, operator = rng.choice((("at least", ">="), ("more than", ">"), ("less than", "<"), ("exactly", "=")))
        question = rng.choice(
            (
                f"Which {said} have {word} {number} {rows}{phrase}",
                f"Find the {said} with {word} {number} {rows}{phrase}",
                f"Show the {said} that have {word} {number} {rows}{phrase}",
            )
        )
        return question, f"SELECT {sql(key)} {source} HAVING COUNT(*) {operator} {number}"
    if form == 1:
        return _most_rows(rng, said, rows, phrase, sql(key), source)
    first = rng.random() < 0.5
    items = f"{sql(key)}, COUNT(*)" if first else f"COUNT(*), {sql(key)}"
    begin = f"{rng.choice(('What is', 'Show', 'Find', 'Count'))} the number of {rows}"
    question = f"{begin} {rng.choice(('for each', 'in each', 'of each', 'per', 'by'))} {said}{phrase}"
    if first:
        question = rng.choice(
            (
                f"For each {said}, how many {rows} are there{phrase}",
                f"Show the {said} and the number of {rows}{phrase} for each",
                f"List each {said} and its number of {rows}{phrase}",
                f"How many {rows}{phrase} does each {said} have? List the {said} and the count",
            )
        )
    return question, f"SELECT {items} {source}"


def _most_rows(rng: Random, said: str, rows: str, phrase: str, key: str, source: str) -> Phrase:
    """The group with the most or fewest rows."""
    down = rng.random() < 0.8
    adjective = rng.choice(
        ("most", "largest number of", "highest number of", "most common")
        if down
        else ("fewest", "least number of", "smallest number of")
    )
    counted = rng.random() < 0.2
    question = rng.choice(
        (
            f"Which {said} has the {adjective} {rows}{phrase}",
            f"Find the {said} with the {adjective} {rows}{phrase}",
            f"What is the {said} that has the {adjective} {rows}{phrase}",
        )
    )
    question += " and how many are there" if counted else ""
    order = f"ORDER BY COUNT(*){' DESC' if down else ''} LIMIT 1"
    return question, f"SELECT {key}{', COUNT(*)' if counted else ''} {source} {order}"


def _versus_average(draft: Draft) -> Phrase | None:
    key, columns, rng = draft.pick(numeric=True, anywhere=False), draft.several(2), draft.rng
    if key is None or not columns:
        return None
    name, word = rng.choice((("AVG", "average"), ("AVG", "mean"), ("MAX", "maximum"), ("MIN", "minimum")))
    operator, said = (
        rng.choice(((">", rng.choice(MORE)), ("<", rng.choice(LESS)))) if name == "AVG" else ("=", "equal to")
    )
    names, table = draft.say_all(columns), quote(draft.table)
    question = f"{rng.choice(ASK)} the {names} {draft.subject()} whose {draft.say(key)} is {said} the {word}"
    inner = f"(SELECT {name}({sql(key)}) FROM {table})"
    return question, f"SELECT {', '.join(map(sql, columns))} FROM {table} WHERE {sql(key)} {operator} {inner}"


def _without(draft: Draft) -> Phrase | None:
    rng, columns = draft.rng, draft.several(2)
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
    phrase, where = Draft(draft.schema, rng, table).where(0.35)
    negative = rng.random() < 0.75
    verb = rng.choice(
        ("do not have any", "have no", "are not in any", "never had") if negative else ("have", "are in", "have some")
    )
    subject = rng.choice((f"the {draft.say_all(columns)} {draft.subject()}",))
    question = f"{rng.choice(ASK)} {subject} that {verb} {things(table, rng)}{phrase}"
    selected = ", ".join(map(sql, columns))
    if rng.random() < 0.2 and negative:
        question, selected = f"How many {things(draft.table, rng)} {verb} {things(table, rng)}{phrase}", "COUNT(*)"
    inner = f"(SELECT {sql((table, draft.schema.columns[other]))} FROM {quote(table)}{where})"
    left = sql((draft.table, draft.schema.columns[mine]))
    return (
        question,
        f"SELECT {selected} FROM {quote(draft.table)} WHERE {left} {'NOT IN' if negative else 'IN'} {inner}",
    )


def _combined(draft: Draft) -> Phrase | None:
    draft.join(0.5)
    rng, columns = draft.rng, draft.several(1)
    first, second = draft.condition(), draft.condition()
    if not columns or first is None or second is None or first[1] == second[1] or " OR " in first[1] + second[1]:
        return None
    word, operation = rng.choice(
        (("and also", "INTERSECT"), ("but not", "EXCEPT"), ("or those", "UNION"), ("and those also", "INTERSECT"))
    )
    both = "both " if operation == "INTERSECT" and rng.random() < 0.5 else ""
    question = f"{rng.choice(ASK)} the {draft.say(columns[0])} {draft.subject()} {both}{first[0]} {word} {second[0]}"
    arm = f"SELECT {sql(columns[0])} FROM {draft.source()} WHERE "
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
