"""Every keyword of a database server that we write without quotes is a name there."""

from __future__ import annotations

import pytest
from engines import engine, missing

from experts.sql.dialect import RESERVED
from experts.sql.schema import Column, Schema, Table

KEYWORDS = {
    "postgres": "SELECT word FROM pg_get_keywords()",
    "duckdb": "SELECT keyword_name FROM duckdb_keywords()",
    "mysql": "SELECT LOWER(word) FROM information_schema.keywords",
}


@pytest.mark.parametrize("dialect", KEYWORDS)
def test_keywords_without_quotes_are_names(dialect: str) -> None:
    if reason := missing(dialect):
        pytest.skip(reason)
    with engine(dialect) as running:
        running.create(Schema((Table("one", (Column("id", "int"),)),)))
        words = [word for (word,) in running.rows(KEYWORDS[dialect]) if word.isidentifier()]
        bare = sorted(set(words) - RESERVED[dialect] - {"one", "id"})
        assert len(bare) > 100 and len(words) > len(bare)
        # CREATE TABLE writes them without quotes as well
        named = [Table(word, (Column(word, "int"),)) for word in bare]
        running.create(Schema((Table("one", (Column("id", "int"),)), *named)))
        refused = {
            word: problem
            for word in bare
            if (
                problem := running.explain(
                    f"SELECT {word}, {word}.{word} FROM {word} JOIN one ON one.id = {word}.{word} "
                    f"WHERE {word} = 1 GROUP BY {word} ORDER BY {word}"
                )
            )
        }
        assert not refused
