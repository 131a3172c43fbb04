"""The SQL task end to end without a model: open, ask, bind, check, run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from grammar_cases import VOCABULARY, encode

from expert_cli import paths
from expert_cli import task as tasks
from expert_cli.errors import ContextError, UsageError
from expert_cli.grammar.matcher import Matcher
from expert_cli.task import Checked, Limits
from experts.sql import fromfirst, pointers
from experts.sql.identifiers import quoted
from experts.sql.plugin import MAX_QUESTION, CheckedSql, SqlContext, SqlTask, task

ROOT = Path(__file__).resolve().parents[1]
GRAMMAR = (ROOT / "grammars" / "sql-sqlite.gbnf").read_text("utf-8")
SAMPLE = paths.packaged("sample")
CASES = [json.loads(line) for line in (SAMPLE / "questions.jsonl").read_text("utf-8").splitlines()]
LIMITS = Limits()


@pytest.fixture(scope="module")
def shop() -> Iterator[SqlContext]:
    with closing(task.open(SAMPLE / "shop.sqlite")) as context:
        yield context


def make(folder: Path, script: str) -> Path:
    path = folder / "made.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"BEGIN; {script}; COMMIT")
    return path


def test_the_entry_point() -> None:
    assert tasks.load("sql") is task
    with pytest.raises(UsageError, match="no plugin provides the task 'nope'"):
        tasks.load("nope")


@pytest.mark.parametrize(("interface", "fault"), [(tasks.INTERFACE, ""), (tasks.INTERFACE + 1, "speaks interface 2")])
def test_plugins_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interface: int, fault: str) -> None:
    """A distribution on the path that registers a task, of this interface or of another."""
    (tmp_path / f"haiku{interface}.py").write_text(f"class task:\n    name = 'haiku'\n    interface = {interface}\n")
    info = tmp_path / "haiku-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: haiku\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[expert_cli.tasks]\nhaiku = haiku{interface}:task\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    if fault:
        with pytest.raises(UsageError, match=fault):
            tasks.load("haiku")
    else:
        assert tasks.load("haiku").name == "haiku"


@pytest.mark.parametrize("surface", ["pointers", "names"])
def test_golds_are_bound_checked_and_run(shop: SqlContext, surface: str) -> None:
    """Each gold of the sample that pointers can say is in the bound grammar, passes every check and gives gold's rows."""
    said = 0
    for case in CASES:
        golds = case["gold"] if isinstance(case["gold"], list) else [case["gold"]]
        question = shop.question(case["question"], surface=surface)
        assert len(question.messages()) == 2
        try:
            text = pointers.point(fromfirst.canonical(golds[0], shop.schema), question.linked)
        except pointers.Unreachable:
            continue
        said += 1
        if surface == "names":
            text = pointers.realise(text, question.linked, quoted)
        matcher = Matcher(VOCABULARY, GRAMMAR, question.binding())
        for token in encode(text, pointers=surface == "pointers"):
            matcher.consume(token)
        assert matcher.complete()
        checked = question.check(text)
        assert shop.run(checked, LIMITS).rows
        assert task.score(shop, checked, golds).correct, case["id"]
    assert said >= 0.75 * len(CASES)


HOSTILE = [
    "",
    " ",
    "hello",
    "FROM",
    "FROM<t0>",
    "FROM<t99> SELECT *",
    "FROM<t0> SELECT<c99>",
    "FROM<t0> SELECT<v0>",
    "FROM<t0> SELECT * ; DROP TABLE orders",
    "FROM<t0> SELECT *; FROM<t0> SELECT *",
    "FROM sqlite_master SELECT *",
    "FROM sqlite_schema SELECT sql",
    "FROM pragma_table_info('orders') SELECT *",
    "FROM<t0> SELECT load_extension('x')",
    "FROM<t0> SELECT readfile('x')",
    "FROM<t0> SELECT randomblob(1000000000)",
    "FROM<t0> SELECT nope",
    "FROM<t0> SELECT orders.nope",
    'FROM<t0> SELECT "nope"',
    'FROM orders SELECT orders."nope"',
    'FROM orders SELECT "no such"',
    'FROM orders SELECT orders.id WHERE "no such" = 1 ORDER BY "id"',
    'FROM orders SELECT "stock"',
    "FROM nope SELECT *",
    "FROM main.sqlite_master SELECT *",
    "FROM temp.orders SELECT *",
    "SELECT 1 FROM orders WHERE id IN (DELETE FROM orders)",
    "DELETE FROM orders",
    "UPDATE orders SET id = 1",
    "ATTACH 'x' AS y",
    "PRAGMA writable_schema = 1",
    "EXPLAIN SELECT * FROM orders",
    "VACUUM INTO 'x'",
    "FROM<t0> SELECT " + "(" * 5000 + "1" + ")" * 5000,
    "FROM<t0> SELECT " + "1 + " * 20000 + "1",
    "FROM<t0> SELECT '\x00'",
    "FROM<t0> SELECT '\ud800'",
    "FROM<t0> SELECT \u202e1",
    "FROM<t0> SELECT *" + " UNION FROM<t0> SELECT *" * 2000,
    "FROM orders, orders a, orders b, orders c, orders d SELECT *",
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT * FROM n",
    "FROM<t0> SELECT COUNT(*) WHERE SUM(1) > 2",
    "FROM<t0> SELECT * LIMIT 'x'" + "'" * 3,
    "<any><v0>",
    "<t0>" * 10_000,
]


@pytest.mark.parametrize("surface", ["pointers", "names"])
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:40]))
def test_hostile_texts_are_refused(shop: SqlContext, text: str, surface: str) -> None:
    question = shop.question("How many orders?", surface=surface)
    with pytest.raises(ContextError):
        question.check(text)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("FROM orders SELECT COUNT(*)", "SELECT COUNT(*) FROM orders"),
        ("SELECT COUNT(*) FROM orders", "SELECT COUNT(*) FROM orders"),
        ('FROM "orders" SELECT "orders"."status"', "SELECT status FROM orders"),
        ("FROM orders SELECT orders.status AS \"s t\" ORDER BY \"s t\"", 'SELECT status AS "s t" FROM orders ORDER BY "s t"'),
        ("FROM orders SELECT orders.id WHERE orders.status = 'no \"such\" thing'", "SELECT id FROM orders WHERE status = 'no \"such\" thing'"),
    ],
)  # fmt: skip
def test_names_that_pass(shop: SqlContext, text: str, output: str) -> None:
    checked = shop.question("orders?", surface="names").check(text)
    assert (checked.text, checked.output, checked.query) == (text, output, output)


QUESTIONS = [
    ("", "is empty"),
    (" \n\t ", "is empty"),
    ("\x00\x1f", "is empty"),
    ("x" * (MAX_QUESTION + 1), "keep it under"),
    ("how many \ud800?", "not valid text"),
]


@pytest.mark.parametrize(("text", "reason"), QUESTIONS)
def test_questions_that_are_refused(shop: SqlContext, text: str, reason: str) -> None:
    with pytest.raises(ContextError, match=reason):
        shop.question(text, surface="pointers")


def test_evidence_counts_and_is_asked(shop: SqlContext) -> None:
    with pytest.raises(ContextError, match="keep it under"):
        shop.question("how many?", surface="pointers", evidence="x" * MAX_QUESTION)
    question = shop.question(" how\nmany\x07? ", surface="names", evidence="of \x00orders")
    assert question.messages()[1].content == "how many ? (of orders)"


ODD = [
    "Wie viele Bestellungen gibt es?",
    "注文は何件ですか",
    "?",
    "DROP TABLE orders",
    "<c0><sql><e>",
    "x" * MAX_QUESTION,
    "'\"`;--",
]


@pytest.mark.parametrize("surface", ["pointers", "names"])
@pytest.mark.parametrize("text", ODD, ids=lambda text: ascii(text[:20]))
def test_odd_questions_are_answered(shop: SqlContext, text: str, surface: str) -> None:
    """Whatever is asked, there is a prompt and a grammar that offers a first word."""
    question = shop.question(text, surface=surface)
    assert all(message.content for message in question.messages())
    assert Matcher(VOCABULARY, GRAMMAR, question.binding()).allowed()


@pytest.mark.parametrize("dialect", ["", "sqlite", "postgres", "mysql", "duckdb"])
def test_dialects(dialect: str) -> None:
    with closing(task.open(SAMPLE / "shop.sqlite", dialect=dialect)) as context:
        checked = context.question("orders", surface="names").check(
            "FROM orders SELECT orders.id WHERE orders.status LIKE 's%'"
        )
        assert ("ILIKE" in checked.output) == (dialect in ("postgres", "duckdb"))
        assert "ILIKE" not in checked.query
        assert context.run(checked, LIMITS).rows


def test_unknown_dialect() -> None:
    with pytest.raises(ContextError, match="unknown dialect 'oracle'; choose one of sqlite"):
        task.open(SAMPLE / "shop.sqlite", dialect="oracle")


def test_a_schema_file_answers_and_does_not_run(tmp_path: Path) -> None:
    path = tmp_path / "shop.SQL"
    path.write_bytes(b"\xef\xbb\xbfCREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT);")
    with closing(task.open(path, dialect="mysql")) as context:
        checked = context.question("How many orders?", surface="pointers").check("FROM<t0> SELECT COUNT(*)")
        assert checked.output == "SELECT COUNT(*) FROM orders"
        for run in (lambda: context.run(checked, LIMITS), lambda: task.score(context, checked, ["SELECT 1"])):
            with pytest.raises(ContextError, match="holds no rows; give a database"):
                run()


def test_only_checked_queries_are_run(shop: SqlContext) -> None:
    with pytest.raises(ContextError, match="check the query first"):
        shop.run(Checked("SELECT 1", "SELECT 1"), LIMITS)


TARGETS = [
    ("gone.sqlite", None, "no database at"),
    ("gone.sql", None, "no database at"),
    ("empty.sqlite", b"", "is empty"),
    ("text.sqlite", b"hello " * 1000, "not a SQLite database"),
    ("latin.sql", "CREATE TABLE größe (a)".encode("latin-1"), "not UTF-8"),
    ("empty.sql", b"", "has no tables"),
    ("faulty.ddl", b"CREATE TABLE", "incomplete input"),
]


@pytest.mark.parametrize(("name", "content", "reason"), TARGETS)
def test_targets_that_cannot_be_opened(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ContextError, match=reason):
        task.open(tmp_path / name)


def test_folder_and_database_without_tables(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="is a folder"):
        task.open(tmp_path)
    with pytest.raises(ContextError, match="no tables"):
        task.open(make(tmp_path, "CREATE TABLE t (a); DROP TABLE t"))


def test_a_locked_database(tmp_path: Path) -> None:
    path = make(tmp_path, "CREATE TABLE t (a)")
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ContextError, match="locked by another program"):
            task.open(path)


def test_a_database_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="has no tables"):
        task.open(make(tmp_path, "CREATE VIEW v AS SELECT * FROM gone"))


MADE_OF = [
    ("CREATE TABLE t (a TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO t VALUES ('x')", "t.a", ("x",)),
    ("CREATE TABLE t (a TEXT, b AS (a || '!')); INSERT INTO t VALUES ('x')", "t.b", ("x!",)),
    ("CREATE TABLE t (a INTEGER CHECK (a > 0) DEFAULT (abs(-1)), b TEXT) STRICT; INSERT INTO t VALUES (1, '')", "t.a", (1,)),
    ("CREATE TABLE s (x); INSERT INTO s VALUES ('x'); CREATE VIEW t AS SELECT upper(x) AS a FROM s", "t.a", ("X",)),
    ("CREATE TABLE s (x); INSERT INTO s VALUES ('b'); CREATE VIEW t (a) AS SELECT max(x) OVER () FROM s", "t.a", ("b",)),
    ("CREATE VIRTUAL TABLE t USING fts5(a, body); INSERT INTO t VALUES ('x', 'y')", "t.a", ("x",)),
    ("CREATE VIRTUAL TABLE s USING fts5(b); CREATE TABLE t (a); INSERT INTO t VALUES (1)", "t.a", (1,)),
    ("CREATE TABLE t (a INT, \"t\" TEXT, CONSTRAINT k UNIQUE (a) ON CONFLICT REPLACE); INSERT INTO t VALUES (1, 'x')", 't."t"', ("x",)),
    ("CREATE TABLE t (a) /* a comment */", "t.a", None),
    ("CREATE TABLE t (a REFERENCES gone (x)); CREATE INDEX i ON t (a); CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END", "t.a", None),
    ("CREATE TEMP TABLE x (a); CREATE TABLE t (a COLLATE NOCASE); INSERT INTO t VALUES ('A')", "t.a", ("A",)),
]  # fmt: skip


@pytest.mark.parametrize(("script", "column", "row"), MADE_OF)
def test_whatever_a_database_is_made_of(
    tmp_path: Path, script: str, column: str, row: tuple[object, ...] | None
) -> None:
    with closing(task.open(make(tmp_path, script))) as context:
        checked = context.question("show all of t", surface="names").check(f"FROM t SELECT {column}")
        assert context.run(checked, LIMITS).rows == (() if row is None else (row,))


def test_a_function_of_the_owner_does_not_keep_a_database_from_opening(tmp_path: Path) -> None:
    path = tmp_path / "own.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("own", 1, abs, deterministic=True)
        connection.executescript("CREATE TABLE t (a CHECK (own(a) > 0), b AS (a)); INSERT INTO t (a) VALUES (3)")
    with closing(task.open(path)) as context:
        checked = context.question("t", surface="names").check("FROM t SELECT t.a")
        assert context.run(checked, LIMITS).rows == ((3,),)


def test_nothing_is_written(tmp_path: Path) -> None:
    """Opening, checking and running leave the file and its folder as they were."""
    path = make(tmp_path, "CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('x')")
    before = path.read_bytes()
    with closing(task.open(f"sqlite:///{path}")) as context:
        context.run(context.question("t", surface="names").check("FROM t SELECT t.a"), LIMITS)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "name", ["any", "true", "offset", "cube", "with", "glob", "Order", "date", "plain", "a b", "match"]
)
def test_names_are_quoted_only_where_they_must_be(tmp_path: Path, name: str) -> None:
    path = make(tmp_path, f'CREATE TABLE "{name}" ("{name}" TEXT); INSERT INTO "{name}" VALUES (\'x\')')
    with closing(task.open(path, dialect="postgres")) as context:
        checked = context.question("x", surface="pointers").check("FROM<t0> SELECT<c0> WHERE<c0> IS NOT NULL")
        assert context.run(checked, LIMITS).rows == (("x",),)
        assert ('"' in checked.query) == (name not in ("offset", "cube", "date", "plain", "match"))


def test_three_hundred_tables(tmp_path: Path) -> None:
    script = ";".join(f"CREATE TABLE table_{n} (id INTEGER PRIMARY KEY, name_{n} TEXT)" for n in range(299))
    with closing(task.open(make(tmp_path, script + "; CREATE TABLE invoices (due TEXT)"))) as context:
        question = context.question("How many invoices are due?", surface="pointers")
        assert question.check("FROM<t0> SELECT COUNT(*)").query == "SELECT COUNT(*) FROM invoices"


def test_protocol() -> None:
    assert (SqlTask.name, SqlTask.interface) == ("sql", tasks.INTERFACE)
    assert issubclass(CheckedSql, Checked)
