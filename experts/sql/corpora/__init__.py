"""Public text-to-SQL data as questions with their gold queries, one module per data set."""

from __future__ import annotations

from dataclasses import dataclass

from sqlglot import exp

from experts.sql.schema import Schema


@dataclass(frozen=True)
class Pair:
    """A question with its gold query over a schema."""

    id: str
    question: str
    schema: Schema
    query: exp.Query
    evidence: str = ""
