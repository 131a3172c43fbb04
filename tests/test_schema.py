"""Reading a database: tables, columns, keys and values, whatever its tables are made of."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from expert_cli.errors import ContextError
from experts.sql import schema
from experts.sql.schema import Column, ForeignKey, Schema, Table, from_ddl, quote, read_sqlite

NAMES = [
    'a "b"',
    "a\nb",
    "SELECT",
    "Größe",
    "日本",
    "MixedCase",
    "<c1>",
    "semi;colon",
    "it's",
    " ",
    "order by",
    "😀",
    "[x]",
    "`",
]


def database(folder: Path, script: str) -> Path:
    path = folder / "test.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def read(folder: Path, script: str) -> Schema:
    return read_sqlite(database(folder, script))


def columns(found: Schema) -> dict[str, list[str]]:
    return {table.name: [column.name for column in table.columns] for table in found.tables}


TABLES = [
    ("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)", {"t": ["a", "b"]}),
    ("CREATE TABLE t (a PRIMARY KEY, b) WITHOUT ROWID", {"t": ["a", "b"]}),
    ("CREATE TABLE t (a, b AS (a + 1), c AS (a || 'x') STORED)", {"t": ["a", "b", "c"]}),
    ("CREATE TABLE t (a); CREATE VIEW v AS SELECT a, upper(a) AS big FROM t", {"t": ["a"], "v": ["a", "big"]}),
    ("CREATE TABLE t (a); CREATE VIEW v AS SELECT a FROM gone", {"t": ["a"]}),
    ("CREATE TABLE t (a); CREATE VIEW v AS SELECT unknown_function(a) AS b FROM t", {"t": ["a"]}),
    ("CREATE TABLE t (a); CREATE VIRTUAL TABLE f USING fts5(body, title)", {"t": ["a"], "f": ["body", "title"]}),
    ("CREATE TABLE t (a, b, c)", {"t": ["a", "b", "c"]}),
    ("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES (1); ANALYZE", {"t": ["id"]}),
    ("CREATE TABLE sqlitex (a)", {"sqlitex": ["a"]}),
]  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), TABLES)
def test_tables_and_columns(tmp_path: Path, script: str, expected: dict[str, list[str]]) -> None:
    assert columns(read(tmp_path, script)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names(tmp_path: Path, name: str) -> None:
    quoted = quote(name)
    script = f"CREATE TABLE {quoted} ({quoted} TEXT); INSERT INTO {quoted} VALUES ('Held')"
    found = read(tmp_path, script)
    assert columns(found) == {name: [name]}
    assert found.values == {"held": [(name, name, "Held")]}
    assert columns(from_ddl(script)) == {name: [name]}


def test_module_that_is_not_there(tmp_path: Path) -> None:
    path = database(tmp_path, "CREATE TABLE t (a)")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "PRAGMA writable_schema=ON; INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) "
            "VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING nomodule(a)')"
        )
    assert columns(read_sqlite(path)) == {"t": ["a"]}


VALUES = [
    ("INSERT INTO t VALUES ('Rome ')", {"rome": "Rome "}),
    ("INSERT INTO t VALUES ('')", {}),
    ("INSERT INTO t VALUES ('  ')", {}),
    ("INSERT INTO t VALUES (12), (1.5), (NULL), (x'00')", {"12": "12", "1.5": "1.5"}),
    (f"INSERT INTO t VALUES ('{'x' * 61}')", {}),
    (f"INSERT INTO t VALUES ('{'x' * 60}')", {"x" * 60: "x" * 60}),
    ("INSERT INTO t VALUES (CAST(x'ff41' AS TEXT))", {"\ufffda": "\ufffdA"}),
]


@pytest.mark.parametrize(("insert", "expected"), VALUES)
def test_values(tmp_path: Path, insert: str, expected: dict[str, str]) -> None:
    found = read(
        tmp_path, f"CREATE TABLE t (a TEXT, n INTEGER AS (length(a))); {insert.replace('t VALUES', 't (a) VALUES')}"
    )
    assert {key: places[0][2] for key, places in found.values.items()} == expected


def test_values_of_numbers_are_not_read(tmp_path: Path) -> None:
    assert read(tmp_path, "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES ('text')").values == {}


def test_values_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50)"
    path = database(tmp_path, f"CREATE TABLE t (a TEXT); INSERT INTO t {count} SELECT 'v' || (x % 30) FROM n")
    assert len(read_sqlite(path).values) == 30
    monkeypatch.setattr(schema, "MAX_VALUES", 7)
    assert len(read_sqlite(path).values) == 7
    monkeypatch.setattr(schema, "MAX_ROWS", 3)
    assert len(read_sqlite(path).values) == 3


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"


def test_a_view_without_end_does_not_keep_the_database_from_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "MAX_STEPS", 1_000_000)
    script = f"CREATE VIEW v AS {ENDLESS} SELECT 'same' AS a FROM n WHERE x < 0; CREATE TABLE t (a); INSERT INTO t VALUES ('x')"
    found = read(tmp_path, script)
    assert columns(found) == {"v": ["a"], "t": ["a"]}
    assert "x" in found.values, "tables are read before views"


def test_flags(tmp_path: Path) -> None:
    script = (
        "CREATE TABLE t (a TEXT, b TEXT, c TEXT, d TEXT, e TEXT); "
        "INSERT INTO t VALUES ('T', 'yes', 'x', 'Y', 'T'), ('F', 'No', 'y', 'Y', 'F'), ('T', 'yes', 'x', 'Y', 'U')"
    )
    assert read(tmp_path, script).flags == {("t", "a"): ("F", "T"), ("t", "b"): ("No", "yes"), ("t", "d"): ("Y",)}


EDGES = [
    # declared keys
    ("CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (x REFERENCES a(id))", ["b.x=a.id"]),
    # a reference without a column means the primary key
    ("CREATE TABLE a (k TEXT PRIMARY KEY); CREATE TABLE b (x REFERENCES a)", ["b.x=a.k"]),
    # to a table or column that is not there
    ("CREATE TABLE b (x REFERENCES gone(id), y REFERENCES b(nope))", []),
    # to itself: not a join of two tables
    ("CREATE TABLE a (id INTEGER PRIMARY KEY, boss REFERENCES a(id))", []),
    # by name, where none is declared
    ("CREATE TABLE singer (id INTEGER PRIMARY KEY); CREATE TABLE song (singer_id, title)", ["song.singer_id=singer.id"]),
    ("CREATE TABLE singers (id INTEGER PRIMARY KEY); CREATE TABLE song (singer, x)", ["song.singer=singers.id"]),
    ("CREATE TABLE a (code_x PRIMARY KEY); CREATE TABLE b (y, code_x)", ["b.code_x=a.code_x"]),
    # a declared key silences what names suggest between the same tables
    (
        "CREATE TABLE a (a_id INTEGER PRIMARY KEY); CREATE TABLE b (x REFERENCES a(a_id), a_id)",
        ["b.x=a.a_id"],
    ),
    # siblings that refer to the same key
    (
        "CREATE TABLE a (id PRIMARY KEY); CREATE TABLE b (n, a_id REFERENCES a(id)); CREATE TABLE c (m, a_id REFERENCES a(id))",
        ["b.a_id=a.id", "c.a_id=a.id", "b.a_id=c.a_id"],
    ),
    # names as common as these suggest nothing
    ("CREATE TABLE a (id PRIMARY KEY, name); CREATE TABLE b (id PRIMARY KEY, name)", []),
]  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), EDGES)
def test_edges(script: str, expected: list[str]) -> None:
    found = from_ddl(script)
    assert [f"{left[0]}.{left[1]}={right[0]}.{right[1]}" for left, right in found.edges] == expected


@pytest.mark.parametrize(
    ("column", "numeric", "temporal"),
    [
        (Column("a", "integer"), True, False),
        (Column("a", "decimal(10,2)"), True, False),
        (Column("a", "varchar(20)"), False, False),
        (Column("a", ""), False, False),
        (Column("a", "datetime"), False, True),
        (Column("start_date", "text"), False, True),
        (Column("update", "text"), False, False),
    ],
)
def test_kinds_of_columns(column: Column, numeric: bool, temporal: bool) -> None:
    assert (column.numeric, column.temporal) == (numeric, temporal)


def test_lookups_ignore_case() -> None:
    found = Schema((Table("Singer", (Column("Name"),)),), (ForeignKey("SINGER", "NAME", "x", "y"),))
    assert found.by_name["singer"].name == "Singer"
    assert found.columns["singer", "name"].name == "Name"


DDL = [
    # what sqlite3's .dump writes
    "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE t (a);\nINSERT INTO t VALUES('x');\nCOMMIT;",
    "-- a comment; with a semicolon\nCREATE TABLE t (a) /* and another */",
    "CREATE TABLE IF NOT EXISTS t (a);;",
]


@pytest.mark.parametrize("text", DDL)
def test_ddl(text: str) -> None:
    assert columns(from_ddl(text)) == {"t": ["a"]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "has no tables"),
        ("SELECT 1", "has no tables"),
        ("CREATE TABLE t (", "incomplete input"),
        ("CREATE TABLE t (a); CREATE TABLE t (b)", "already exists"),
        ("hello", "syntax error"),
        ("CREATE TABLE t (a\0)", "null character"),
        ("ATTACH 'x.sqlite' AS other; CREATE TABLE other.t (a)", "not authorized"),
        (f"CREATE TABLE t AS {ENDLESS} SELECT x FROM n", "interrupted"),
    ],
)
def test_ddl_that_is_refused(text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(schema, "MAX_STEPS", 1_000_000)
    with pytest.raises(ContextError, match=reason):
        from_ddl(text, "shop.sql")
    assert list(tmp_path.glob("*.sqlite")) == []


def test_what_is_no_database(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="no database at"):
        read_sqlite(tmp_path / "gone.sqlite")
    (tmp_path / "text.sqlite").write_text("hello" * 1000)
    with pytest.raises(ContextError, match="not a SQLite database"):
        read_sqlite(tmp_path / "text.sqlite")
    assert not (tmp_path / "gone.sqlite").exists()


def test_a_damaged_page_is_told(tmp_path: Path) -> None:
    path = database(tmp_path, "CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('x')")
    raw = bytearray(path.read_bytes())
    raw[4096:] = b"\x99" * (len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(ContextError, match=r"cannot read .*malformed.*repair"):
        read_sqlite(path)
