"""The SQL task: what expert-cli needs of it, gathered from the rooms of this package."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expert_cli.errors import ContextError
from expert_cli.task import INTERFACE, Binding, Case, Checked, Example, Limits, Message, Result, Score
from experts.sql import binding, pointing, prompt
from experts.sql.binding import PointerBinding
from experts.sql.execute import Worker, open_database
from experts.sql.guard import DIALECTS
from experts.sql.identifiers import quoted
from experts.sql.linking import Linked, link
from experts.sql.listing import ListingBinding
from experts.sql.literals import made_up
from experts.sql.schema import Schema, from_ddl, quote, read_sqlite
from experts.sql.selecting import SelectingBinding
from experts.sql.surface import surface as named

if TYPE_CHECKING:
    from sqlglot import exp

    from experts.sql.serving import Served

MAX_QUESTION = 4000
"""Characters; a longer text is not a question."""

MADE_UP = 2.0
"""Nats: a made-up literal must be seven times as likely as an offered one to win."""


@dataclass(frozen=True)
class CheckedSql(Checked):
    """``query`` is the SQLite text that is executed; ``output`` says the same in the user's dialect."""

    query: str = ""


class SqlQuestion:
    """A question linked to a database."""

    def __init__(self, context: SqlContext, linked: Linked, surface: str) -> None:
        self.context, self.linked, self.surface = context, linked, surface

    def messages(self) -> Sequence[Message]:
        """The linked schema and the question, as the surface writes them."""
        return prompt.messages(self.linked, self.surface)

    def binding(self) -> Binding:
        """The names that the grammar may write."""
        found, select_first = bound(self.linked, self.surface), named(self.surface).select_first
        if isinstance(found.surface, PointerBinding):
            return (SelectingBinding if select_first else pointing.StandingBinding)(found.surface)
        return ListingBinding(found.names) if select_first else found

    def surcharge(self, text: str) -> float:
        """:data:`MADE_UP` nats for each literal that neither the question nor the database offers."""
        return 0.0 if named(self.surface).pointed else MADE_UP * made_up(text, self.linked.literals)

    def check(self, text: str) -> CheckedSql:
        """Turn what the model wrote into SQL that parses, only reads, and passes EXPLAIN.

        Raises:
            ContextError: it does not.
        """
        from experts.sql import fromfirst, guard, pointers
        from experts.sql.dialect import tidy

        written = pointers.realise(text, self.linked) if named(self.surface).pointed else text
        statement = guard.check(fromfirst.read(written), "sqlite", self.context.schema.by_name)
        self.context.explain(_strict(statement))
        query = tidy(_bare(statement))
        self.context.explain(query)
        if self.context.served is None:
            return CheckedSql(text, query, query=query)
        output = self.context.served.write(query)
        return CheckedSql(text, output, self.context.served.doubt(output), query)


class SqlContext:
    """An opened SQLite database, or the DDL of one that is elsewhere."""

    def __init__(self, schema: Schema, worker: Worker | None, dialect: str) -> None:
        self.schema, self.worker, self.dialect = schema, worker, dialect
        self.served: Served | None = None
        """What is asked where the answers are of another dialect."""
        if dialect != "sqlite":
            from experts.sql.serving import Served

            self.served = Served(schema, dialect, exact=worker is None)

    def question(self, text: str, *, surface: str, evidence: str = "") -> SqlQuestion:
        """Link ``text``; ``evidence`` says what the question takes for granted.

        Raises:
            ContextError: it is empty, far too long, or no text.
        """
        text, evidence = _plain(text), _plain(evidence)
        if not text:
            raise ContextError("the question is empty; ask something about the data")
        if (length := len(text) + len(evidence)) > MAX_QUESTION:
            raise ContextError(f"the question has {length} characters; keep it under {MAX_QUESTION}")
        return SqlQuestion(self, link(prompt.asked(text, evidence), self.schema), surface)

    def run(self, checked: Checked, limits: Limits) -> Result:
        """Run a checked query, read-only.

        Raises:
            ContextError: there is only DDL here, or the database cannot be read.
            QueryError: the database refused it or it took too long.
        """
        return self.database().run(_sql(checked).query, limits)

    def database(self) -> Worker:
        """What runs queries on the opened database.

        Raises:
            ContextError: there is only DDL here.
        """
        if self.worker is None:
            raise ContextError("a schema file holds no rows; give a database with --db to run queries")
        return self.worker

    def explain(self, query: str) -> None:
        """Have SQLite compile ``query`` against an empty copy of the schema.

        Raises:
            ContextError: it does not compile.
        """
        try:
            self._empty.execute("EXPLAIN " + query)
        except (sqlite3.Error, sqlite3.Warning, UnicodeEncodeError) as problem:
            raise ContextError(f"the query does not compile: {problem}; rephrase the question") from problem

    @cached_property
    def _empty(self) -> sqlite3.Connection:
        """Plain tables with the columns of the tables and views, whatever those are made of."""
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        for table in self.schema.tables:
            columns = ", ".join(quote(column.name) for column in table.columns)
            copy.execute(f"CREATE TABLE {quote(table.name)} ({columns})")
        return copy

    def everything(self, surface: str = "names") -> Binding:
        """The grammar's names for the whole database, written out on ``surface``; with kinds in other dialects."""
        if self.served is not None:
            return self.served.binding
        return ListingBinding(self._whole.names) if named(surface).select_first else self._whole

    @cached_property
    def _whole(self) -> binding.SqlBinding:
        tables = [
            binding.Table(table.name, tuple(binding.Column(column.name) for column in table.columns))
            for table in self.schema.tables
        ]
        return binding.SqlBinding(tables, (), (), "names")

    def inner(self, sql: str, surface: str = "names") -> str:
        """``sql``, in either order of clauses, as the grammar writes it on ``surface``.

        Raises:
            ContextError: it is not one query over these tables.
        """
        from experts.sql import inner
        from experts.sql.listed import ListedTurning

        if self.served is not None:
            return self.served.inner(sql)
        if named(surface).select_first:
            return inner.inner(sql, self._whole.names, turning=ListedTurning)
        return sql if sql.lstrip().startswith("FROM ") else inner.inner(sql, self._whole.names)

    def outer(self, text: str) -> str:
        """SELECT-first SQL for what the grammar writes."""
        from experts.sql.canonical import select_first

        return select_first(text)

    def names(self) -> Sequence[str]:
        """Tables and columns, for completion."""
        tables = self.schema.tables
        return sorted({table.name for table in tables} | {column.name for table in tables for column in table.columns})

    def describe(self) -> str:
        """One line a table, for people: its columns with their types, then the keys."""
        lines = [
            f"{table.name}({', '.join(f'{column.name} {column.type}'.strip() for column in table.columns)})"
            for table in self.schema.tables
        ]
        keys = [f"{key.table}.{key.column} -> {key.target}.{key.target_column}" for key in self.schema.foreign_keys]
        return "\n".join([*lines, *keys])

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
    values = [binding.Value(literal.value, f"v{place}") for place, literal in enumerate(linked.literals)]
    return binding.SqlBinding(tables, edges, values, "pointers" if named(surface).pointed else "names")


def _plain(text: str) -> str:
    """``text`` on one line, without control characters."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise ContextError(
            "the question is not valid text; check the terminal's encoding, UTF-8 is expected"
        ) from problem
    return " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", text).split())


def _strict(statement: exp.Expr) -> str:
    """``statement`` with names in backticks: one in double quotes that names nothing would be text to SQLite."""
    from sqlglot import exp

    strict = statement.copy()
    for name in strict.find_all(exp.Identifier):
        if name.quoted:
            name.replace(exp.Var(this="`" + name.name.replace("`", "``") + "`"))
    return strict.sql("sqlite", comments=False)


def _bare(statement: exp.Expr) -> exp.Expr:
    """``statement`` with quotes only around names that need them to be read as the same."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    bare = statement.copy()
    for name in bare.find_all(exp.Identifier):
        name.set("quoted", quoted(name.name) != name.name)
    try:
        return bare if sqlglot.parse_one(bare.sql("sqlite"), dialect="sqlite") == bare else statement
    except SqlglotError:
        return statement


def _sql(checked: Checked) -> CheckedSql:
    if not isinstance(checked, CheckedSql):
        raise ContextError("only what check returned is run; check the query first")
    return checked


class SqlTask:
    """The plugin behind the entry point ``expert_cli.tasks: sql``."""

    name = "sql"
    interface = INTERFACE

    def open(self, target: str | Path, *, dialect: str = "") -> SqlContext:
        """Open a SQLite database, or a file of CREATE TABLE statements; answers are written in ``dialect``.

        Raises:
            ContextError: it is missing, locked, empty, of another kind or without tables, or the dialect is unknown.
        """
        dialect = dialect or "sqlite"
        if dialect not in DIALECTS:
            raise ContextError(f"unknown dialect {dialect!r}; choose one of {', '.join(DIALECTS)}")
        ddl = _ddl_file(target)
        if ddl is not None:
            return SqlContext(_schema(ddl, dialect, str(target)), None, dialect)
        path = open_database(target)
        worker = Worker(path)  # starts while the schema is read
        try:
            schema = read_sqlite(path)
        except ContextError:
            worker.close()
            raise
        return SqlContext(schema, worker, dialect)

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

        return score(context.database(), _sql(checked).query, gold)


def _ddl_file(target: str | Path) -> str | None:
    """The text of ``target`` where it is a file of statements, not a database."""
    path = Path(target)
    if path.suffix.lower() not in (".sql", ".ddl") or not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ContextError(f"{path} is not UTF-8 text; save the schema as UTF-8") from problem


def _schema(ddl: str, dialect: str, source: str) -> Schema:
    if dialect == "sqlite":
        return from_ddl(ddl, source)
    from experts.sql.ddl import read

    return read(ddl, dialect, source)


task = SqlTask()
