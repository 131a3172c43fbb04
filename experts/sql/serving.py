"""Queries for the server of another dialect: how they are written there, and whether its grammar knows them."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from expert_cli import paths
from expert_cli.errors import ContextError, GrammarError
from experts.sql.affinity import Affinity
from experts.sql.schema import Schema
from experts.sql.tongues import written_out
from experts.sql.typed import TypedBinding

if TYPE_CHECKING:
    from expert_cli.grammar.matcher import Matcher


class Served:
    """A schema as a server of ``dialect`` holds it; ``exact`` says that names are spelled as there."""

    def __init__(self, schema: Schema, dialect: str, *, exact: bool) -> None:
        self.schema, self.dialect = schema, dialect
        self.affinity = Affinity(schema, exact=exact)

    @cached_property
    def binding(self) -> TypedBinding:
        """The names of the whole schema, with kinds."""
        return written_out(self.schema, self.dialect)

    @lru_cache(maxsize=16)  # noqa: B019 - lives as long as its database is open
    def _start(self, tables: frozenset[str]) -> tuple[TypedBinding, Matcher]:
        """The grammar over some tables, at its start."""
        from expert_cli.grammar.matcher import Matcher
        from expert_cli.grammar.tokens import bytewise

        text = (paths.inputs("grammars") / f"sql-{self.dialect}.gbnf").read_text("utf-8")
        few = replace(self.schema, tables=tuple(one for one in self.schema.tables if one.name.lower() in tables))
        binding = written_out(few, self.dialect)
        return binding, Matcher(bytewise(("<e>",), "<e>"), text, binding)

    def write(self, query: str) -> str:
        """``query``, written for SQLite, in the dialect.

        Raises:
            ContextError: it has no equal there.
        """
        from experts.sql.dialect import transpile

        return transpile(query, self.dialect, self.affinity)

    def inner(self, sql: str, binding: TypedBinding | None = None, *, repairs: bool = True) -> str:
        """``sql``, in either order of clauses, as the grammar writes it; ``repairs`` adds casts that are needed.

        Raises:
            ContextError: it is not one query over these tables.
        """
        from experts.sql.inner import inner
        from experts.sql.typed_inner import TypedTurning, Unrepaired

        if sql.lstrip().startswith("FROM "):
            return sql
        return inner(sql, binding or self.binding, self.dialect, TypedTurning if repairs else Unrepaired)

    def doubt(self, sql: str) -> str:
        """Why the server may refuse ``sql``: where its grammar, of which all compiles, does not take it; or nothing."""
        from sqlglot import exp, parse_one
        from sqlglot.errors import SqlglotError

        from expert_cli.grammar.verdict import judge

        try:
            tree = parse_one(sql, dialect=self.dialect)
            for table in tree.find_all(exp.Table):
                table.set("db", None)  # the grammar knows tables alone
            read = {table.name.lower() for table in tree.find_all(exp.Table)} & self.schema.by_name.keys()
            # only the tables that a query reads can matter to it
            binding, start = self._start(frozenset(read or self.schema.by_name))
            turned = self.inner(tree.sql(self.dialect), binding, repairs=False)
            verdict = judge(start.fork(), turned)
        except (ContextError, GrammarError) as problem:
            return str(problem)
        except (SqlglotError, RecursionError) as problem:
            return f"it cannot be read: {str(problem).splitlines()[0]}"
        return "" if verdict.accepted else f"the grammar of {self.dialect} stops after {turned[: verdict.at]!r}"
