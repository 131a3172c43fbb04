# ruff: noqa: RUF001  names in other scripts are the point
"""Names that nobody would choose, through the whole path: a SQLite file, linking, binding, sampling, check and EXPLAIN.

The longest way from a name to a fault is the shortest sample: texts are drawn without a model.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from grammar_cases import VOCABULARY

from expert_cli.errors import ContextError, ExpertError, GrammarError
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.sample import sample
from experts.sql.binding import SqlBinding, Table
from experts.sql.plugin import SqlContext, task

TEMPLATE = (Path(__file__).parents[1] / "grammars" / "sql-sqlite.gbnf").read_text("utf-8")
NAMES = [
    *('a"b', 'a""', '"', "'", "it's", "''", "`", "`x`", "[a]", "a.b", "a b", " ", "  lead", "trail ", "\\", "\\n"),
    *("x\ny", "x\r\ny", "\t", "\x01", "\x1b[31m", "\x7f", "\u202e", "\u200b", "\ufeff", "\u00a0", "\u2028"),
    *("😀", "👩\u200d👩\u200d👧", "ЗАКАЗ", "名前", "e\u0301", "é", "ｆｕｌｌ", "\ue000", "\U0010ffff", "x" * 300),
    *("<t0>", "<c0>", "<e>", "<|im_end|>", "--", "/*", "*", "(", ")", ";", ",", "%", "?", ":a", "@a", "$a", "1st", "_"),
    *("select", "FROM", "table", "null", "true", "current_date", "on", "rowid", "main", "d1", "cte1", "x1", "item_2"),
]
SCHEMAS: dict[str, Mapping[str, Sequence[str]]] = {
    "tables": {name: [name, f"{name}_2", "id"] for name in NAMES},
    "columns": {"t": NAMES},
    "10,000 columns": {f"t{number}": [f"c{number}_{place}" for place in range(1000)] for number in range(10)},
    "2,000 columns in one table": {"t": [f"c{place}" for place in range(2000)]},
    "3,000 tables": {f"t{number}": ["id"] for number in range(3000)},
}
QUESTION = "which t has c1_1, \U0001f600 or select by id, not 'it''s'?"


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@pytest.fixture
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlContext]:
    path = tmp_path / "it.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("BEGIN")
        for name, columns in SCHEMAS[request.param].items():
            database.execute(f"CREATE TABLE {quote(name)} ({', '.join(map(quote, columns))})")
        database.commit()
    context = task.open(path)
    yield context
    context.close()


def samples(matcher: Matcher, count: int) -> list[str]:
    """Some of ``count`` draws: those that came to an end."""
    drawn = (sample(matcher.fork(), Random(seed), most=250, calm=20) for seed in range(count))
    return [text for text in drawn if text is not None]


@pytest.mark.parametrize("opened", SCHEMAS, indirect=True)
@pytest.mark.parametrize("surface", ["pointers", "pointers-select", "names"])
def test_every_sample_passes_the_check(opened: SqlContext, surface: str) -> None:
    question = opened.question(QUESTION, surface=surface)
    found = samples(Matcher(VOCABULARY, TEMPLATE, question.binding()), 8)
    assert len(found) > 2
    for text in found:
        question.check(text)


@pytest.mark.parametrize("opened", ["tables", "columns"], indirect=True)
def test_every_sample_over_the_whole_schema_compiles(opened: SqlContext) -> None:
    found = samples(Matcher(VOCABULARY, TEMPLATE, opened.everything()), 8)
    assert len(found) > 2
    for text in found:
        opened.explain(opened.outer(text))


@pytest.mark.slow
@pytest.mark.parametrize("opened", ["2,000 columns in one table", "3,000 tables"], indirect=True)
def test_a_schema_beyond_all_bounds_is_refused_or_written_whole(opened: SqlContext) -> None:
    matcher = Matcher(VOCABULARY, TEMPLATE, opened.everything())
    try:
        for text in samples(matcher, 2):
            opened.explain(opened.outer(text))
    except GrammarError as problem:
        assert "fewer" in str(problem)


EMPTY_DDL = ["CREATE TABLE t ();", "CREATE TABLE t", "CREATE VIEW v AS SELECT 1", "", "\0", "SELECT 1;"]


@pytest.mark.parametrize("ddl", EMPTY_DDL)
def test_a_schema_without_columns(tmp_path: Path, ddl: str) -> None:
    path = tmp_path / "it.sql"
    path.write_text(ddl)
    try:
        context = task.open(path)
    except ContextError as problem:
        assert str(path) in str(problem) or "no table" in str(problem)
        return
    with closing(context):
        for surface in ("pointers", "names"):
            question = context.question("how many?", surface=surface)
            for text in samples(Matcher(VOCABULARY, TEMPLATE, question.binding()), 4):
                question.check(text)


@pytest.mark.parametrize("surface", ["pointers", "names"])
def test_tables_without_columns_have_no_columns_to_name(surface: str) -> None:
    binding = SqlBinding([Table("t", (), "t0"), Table("u", (), "t1")], (), (), surface)
    try:
        found = samples(Matcher(VOCABULARY, TEMPLATE, binding), 4)
    except ExpertError as problem:
        assert isinstance(problem, GrammarError)
    else:
        assert all("<c" not in text and "t." not in text.replace("t.*", "") for text in found)
