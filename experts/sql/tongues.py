"""How each dialect of the typed grammars writes names and values, and which of them it has no words for."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from experts.sql.dialect import RESERVED
from experts.sql.identifiers import folded, literal
from experts.sql.kinds import declared
from experts.sql.schema import Schema
from experts.sql.typed import TypedBinding


def quoted(name: str, dialect: str) -> str:
    """``name`` as an identifier, in quotes where the dialect would fold it or reserves it."""
    if folded(name) and name not in RESERVED[dialect]:
        return name
    mark = "`" if dialect == "mysql" else '"'
    return mark + name.replace(mark, mark * 2) + mark


def written_out(schema: Schema, dialect: str, values: Iterable[str | int | float] = ()) -> TypedBinding:
    """The names of a whole database for the grammar of ``dialect``.

    Raises:
        ContextError: there is no table.
    """
    tables = {table.name: {one.name: declared(one.type) for one in table.columns} for table in schema.tables}
    keys = {table.name: {one.name for one in table.columns if one.primary} for table in schema.tables}
    return TypedBinding(
        tables,
        keys if dialect == "postgres" else {},
        values,
        quoted=partial(quoted, dialect=dialect),
        literal=literal,
        free=True,
        full=dialect != "mysql",
        lateral=dialect != "mysql",
    )
