"""Questions with the query to write, linked and bound as chat does: the sample shop's, and Spider dev's where it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from random import Random

from decode_models import Subject, paths_of

from expert_cli import paths
from expert_cli.conversation import render
from expert_cli.errors import ContextError, GrammarError
from expert_cli.grammar.matcher import Matcher
from expert_cli.task import Binding
from experts.sql import fromfirst, pointers
from experts.sql.binding import Column, SqlBinding, Table, Value
from experts.sql.linking import Linked
from experts.sql.plugin import SqlQuestion, bound, task
from experts.sql.schema import Schema

SPIDER = paths_of("..").resolve() / "shared" / "data"


@dataclass(frozen=True)
class Case:
    """A question as the model gets it, and ``gold``, the text that it shall write."""

    prompt: str
    gold: str
    question: SqlQuestion

    def binding(self) -> Binding:
        """The grammar's names as chat has them, made anew."""
        return self.question.binding()

    def scoped(self) -> Binding:
        """The same as one closed grammar for each scope, which others can read."""
        return bound(self.question.linked, self.question.surface)


@cache
def grammar(surface: str) -> str:
    """The template that the surface's expert packs."""
    planned = json.loads((paths_of("manifests") / "sql-nano.json").read_text("utf-8"))
    name = planned["grammar"] if surface == "pointers" else "sql-sqlite.gbnf"
    return (paths_of("grammars") / name).read_text("utf-8")


def cases(subject: Subject, count: int) -> tuple[list[Case], int]:
    """Up to ``count`` cases, and how many were passed over: the surface or the grammar cannot say their gold."""
    found: list[Case] = []
    passed_over = 0
    for database, question, sql in _questions():
        if len(found) == count:
            break
        case = _case(subject, database, question, sql)
        if case is None or not _accepted(subject, case):
            passed_over += 1
        else:
            found.append(case)
    return found, passed_over


def _questions() -> Iterator[tuple[Path, str, str]]:
    """Database, question and query: the shop's, then Spider dev's, one of each database in turn."""
    sample = paths.packaged("sample")
    for line in (sample / "questions.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        gold = row["gold"] if isinstance(row["gold"], str) else row["gold"][0]
        yield sample / row["db"], row["question"], gold
    if not (SPIDER / "spider_dev.jsonl").is_file():
        return
    rows = [json.loads(line) for line in (SPIDER / "spider_dev.jsonl").read_text("utf-8").splitlines()]
    for row in rows[:: max(1, len(rows) // 400)]:
        file = SPIDER / "spider" / "database" / row["db_id"] / f"{row['db_id']}.sqlite"
        if file.is_file():
            yield file, row["question"], row["query"]


def _case(subject: Subject, database: Path, question: str, sql: str) -> Case | None:
    context = task.open(database)
    try:
        linked = context.question(question, surface=subject.surface)
        gold = _inner(sql, linked.linked, context.schema, subject.surface)
        return Case(render(linked.messages(), subject.template), gold, linked)
    except ContextError:
        return None
    finally:
        context.close()


def _inner(sql: str, linked: Linked, schema: Schema, surface: str) -> str:
    query = fromfirst.canonical(sql, schema)
    return pointers.point(query, linked) if surface == "pointers" else fromfirst.write(query)


def _accepted(subject: Subject, case: Case) -> bool:
    from tokenizers import Tokenizer

    ids = Tokenizer.from_str(subject.vocabulary.text).encode(case.gold, add_special_tokens=False).ids
    try:
        matcher = Matcher(subject.vocabulary, grammar(subject.surface), case.binding())
        for token in ids:
            matcher.consume(token)
    except GrammarError:
        return False
    return matcher.complete()


FIELDS = ("id", "name", "status", "created_at", "total_amount", "quantity", "unit_price", "city", "parent_id")
SHAPES = (
    "FROM {t} SELECT {t}.name, {t}.city WHERE {t}.status = 'shipped' ORDER BY {t}.created_at DESC LIMIT 3",
    "FROM {t} SELECT COUNT(*) WHERE {t}.total_amount > 2024 AND {t}.city = 'Berlin'",
    "FROM {t} SELECT {t}.city, AVG({t}.unit_price) GROUP BY {t}.city HAVING COUNT(*) > 3 ORDER BY COUNT(*) DESC",
    "FROM {t} JOIN {u} ON {t}.parent_id = {u}.id SELECT {u}.name, SUM({t}.quantity) GROUP BY {u}.name",
    "FROM {t} SELECT {t}.name WHERE {t}.parent_id IN (FROM {u} SELECT {u}.id WHERE {u}.city = 'Berlin')",
    "FROM {t} SELECT DISTINCT {t}.status UNION FROM {u} SELECT {u}.status",
)


def wide(tables: int = 200, columns: int = 15) -> tuple[Binding, list[str]]:
    """A schema far beyond what linking offers, in the names surface, and 48 queries over it."""
    words = ("order", "customer", "product", "invoice", "shipment", "supplier", "account", "payment", "region", "store")
    more = [f"attribute_{place}" for place in range(columns - len(FIELDS))]
    names = [f"{words[number % 10]}_{words[number // 10 % 10]}_{number}" for number in range(tables)]
    made = [Table(name, tuple(map(Column, (*FIELDS, *more)))) for name in names]
    edges = [((one, "parent_id"), (other, "id")) for one, other in pairwise(names)]
    binding = SqlBinding(made, edges, [Value("Berlin"), Value(2024), Value("shipped")], "names")
    draw = Random(0)
    chosen = [(draw.choice(SHAPES), draw.randrange(tables - 1)) for _ in range(48)]
    return binding, [shape.format(t=names[place], u=names[place + 1]) for shape, place in chosen]
