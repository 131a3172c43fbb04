"""The SQL task: what expert-cli needs of it, gathered from the rooms of this package."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from expert_cli.errors import ContextError
from expert_cli.task import INTERFACE, Binding, Case, Checked, Example, Limits, Message, Result, Score
from experts.sql import binding, prompt
from experts.sql.execute import Worker, open_database
from experts.sql.linking import Linked, link
from experts.sql.schema import Schema, from_ddl, read_sqlite

MAX_QUESTION = 4000
"""Characters; a longer text is not a question."""


@dataclass(frozen=True)
class CheckedSql(Checked):
    """``query`` is the SQLite text that is executed; ``output`` says the same in the user's dialect."""

    query: str = ""


class SqlQuestion:
    """A question linked to a database."""

    def __init__(self, context: SqlContext, linked: Linked, surface: str, evidence: str) -> None:
        self.context, self.linked, self.surface, self.evidence = context, linked, surface, evidence

    def messages(self) -> Sequence[Message]:
        """The linked schema and the question, as the surface writes them."""
        return prompt.messages(self.linked, self.surface, self.evidence)

    def binding(self) -> Binding:
        """The names that the grammar may write."""
        return bound(self.linked, self.surface)

    def check(self, text: str) -> CheckedSql:
        """Turn what the model wrote into SQL that parses, only reads, and passes EXPLAIN.

        Raises:
            ContextError: it does not.
        """
        from experts.sql import fromfirst, guard, pointers
        from experts.sql.dialect import tidy, transpile

        named = pointers.realise(text, self.linked) if self.surface == "pointers" else text
        statement = guard.check(fromfirst.read(named), "sqlite", self.context.table_names)
        query = tidy(statement)
        self.context.explain(query)
        return CheckedSql(text, transpile(query, self.context.dialect), query)


class SqlContext:
    """An opened SQLite database, or the DDL of one that is elsewhere."""

    def __init__(self, schema: Schema, worker: Worker | None, ddl: str, dialect: str) -> None:
        self.schema, self.worker, self.dialect = schema, worker, dialect or "sqlite"
        self._ddl = ddl
        self.table_names = frozenset(table.name.lower() for table in schema.tables)

    def question(self, text: str, *, surface: str, evidence: str = "") -> SqlQuestion:
        """Link ``text``.

        Raises:
            ContextError: it is empty or far too long.
        """
        text = " ".join(text.split())
        if not text:
            raise ContextError("the question is empty; ask something about the data")
        if len(text) > MAX_QUESTION:
            raise ContextError(f"the question has {len(text)} characters; keep it under {MAX_QUESTION}")
        asked = f"{text} ({evidence})" if evidence and surface == "pointers" else text
        return SqlQuestion(self, link(asked, self.schema), surface, evidence)

    def run(self, checked: Checked, limits: Limits) -> Result:
        """Run a checked query, read-only.

        Raises:
            ContextError: there is only DDL here, or the database cannot be read.
            QueryError: the database refused it or it took too long.
        """
        if self.worker is None:
            raise ContextError("a schema file holds no rows; give a database with --db to run queries")
        assert isinstance(checked, CheckedSql)
        return self.worker.run(checked.query, limits)

    def explain(self, query: str) -> None:
        """Have SQLite compile ``query`` against an empty copy of the schema.

        Raises:
            ContextError: it does not compile.
        """
        try:
            self._empty.execute("EXPLAIN " + query)
        except sqlite3.Error as problem:
            raise ContextError(f"the query does not compile: {problem}; rephrase the question") from problem

    @cached_property
    def _empty(self) -> sqlite3.Connection:
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        copy.executescript(self._ddl)
        return copy

    def close(self) -> None:
        """Stop the worker process."""
        if self.worker is not None:
            self.worker.close()
        if "_empty" in self.__dict__:
            self._empty.close()


def bound(linked: Linked, surface: str) -> binding.SqlBinding:
    """The grammar's names for a linked question."""
    numbers = {pair: number for number, pair in enumerate(linked.columns)}
    tables = [
        binding.Table(
            table.name,
            tuple(
                binding.Column(column, f"c{numbers[table.name, column]}")
                for column in table.columns
                if (table.name, column) in numbers
            ),
            f"t{place}",
        )
        for place, table in enumerate(linked.tables)
    ]
    edges = [(linked.columns[left], linked.columns[right]) for left, right in linked.edges]
    values = [
        binding.Value(_value(literal.text) if literal.number else literal.text, f"v{place}")
        for place, literal in enumerate(linked.literals)
    ]
    return binding.SqlBinding(tables, edges, values, surface)


def _value(text: str) -> int | float:
    return float(text) if "." in text else int(text)


class SqlTask:
    """The plugin behind the entry point ``expert_cli.tasks: sql``."""

    name = "sql"
    interface = INTERFACE

    def open(self, target: str | Path, *, dialect: str = "") -> SqlContext:
        """Open a SQLite database, or a file of CREATE TABLE statements.

        Raises:
            ContextError: it is missing, locked, empty, of another kind or without tables.
        """
        ddl = _ddl_file(target)
        if ddl is not None:
            return SqlContext(from_ddl(ddl, str(target)), None, ddl, dialect)
        path = open_database(target)
        worker = Worker(path)  # starts while the schema is read
        try:
            schema = read_sqlite(path)
        except ContextError:
            worker.close()
            raise
        return SqlContext(schema, worker, _dump(path), dialect)

    def examples(self, source: Mapping[str, Any], *, surface: str, seed: int) -> Iterator[Example]:
        """Training examples; see :mod:`experts.sql.prepare` for what ``source`` names."""
        from experts.sql.prepare import examples

        yield from examples(source, surface=surface, seed=seed)

    def cases(self, source: Mapping[str, Any]) -> Iterator[Case]:
        """Evaluation cases; see :mod:`experts.sql.prepare`."""
        from experts.sql.prepare import cases

        yield from cases(source)

    def score(self, context: SqlContext, checked: Checked, gold: Sequence[str]) -> Score:
        """Compare by execution on the context's database."""
        from experts.sql.score import score

        assert isinstance(checked, CheckedSql)
        assert context.worker is not None
        return score(context.worker, checked.query, gold)


def _ddl_file(target: str | Path) -> str | None:
    """The text of ``target`` where it is a file of statements, not a database."""
    path = Path(target)
    if path.suffix.lower() not in (".sql", ".ddl") or not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise ContextError(f"{path} is not UTF-8 text; save the schema as UTF-8") from problem


def _dump(path: Path) -> str:
    """The statements that make the tables and views of a database."""
    with closing(sqlite3.connect(path.resolve().as_uri() + "?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT sql FROM sqlite_master WHERE type IN ('table', 'view') AND sql IS NOT NULL "
            "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type, rowid"
        )
        return ";\n".join(sql for (sql,) in rows) + ";"


task = SqlTask()
