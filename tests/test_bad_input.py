# ruff: noqa: RUF001  names and questions in other scripts are the point
"""Databases and questions that nobody would choose: each gives a clear error or an answer that executes.

The model is random, so that nothing depends on what one model happens to write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from expert_cli.errors import ContextError, ExpertError, NoAnswerError
from expert_cli.loading import Parts, load

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def database(folder: Path, script: str) -> Path:
    path = folder / "it.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return path


def locked(folder: Path) -> Path:
    path = database(folder, "CREATE TABLE t (a)")
    held = sqlite3.connect(path, isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    _held.append(held)
    return path


_held: list[sqlite3.Connection] = []


def written(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "it.db"
        path.write_bytes(content)
        return path

    return make


def cut(folder: Path) -> Path:
    path = database(folder, "CREATE TABLE t (a);" + "".join(f"CREATE TABLE t{i} (a, b, c);" for i in range(200)))
    path.write_bytes(path.read_bytes()[:9000])
    return path


REFUSED = [
    ("missing", lambda folder: folder / "none.db", "no database at"),
    ("empty file", written(b""), "is empty"),
    ("not SQLite", written(b"PK\x03\x04 a spreadsheet" * 99), "not a SQLite database"),
    ("a folder", lambda folder: folder, "is a folder"),
    ("without tables", lambda folder: database(folder, "PRAGMA user_version = 1"), "no tables"),
    ("locked", locked, "locked"),
    ("cut", cut, "damaged"),
    ("another kind", lambda folder: "postgresql://host/db", "cannot be queried"),
    ("nothing", lambda folder: "", "not a database"),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_databases_that_are_refused(
    parts: Parts,
    tmp_path: Path,
    make: Callable[[Path], Path],
    message: str,
) -> None:
    try:
        with pytest.raises(ContextError, match=message):
            load(parts).ask("How many are there?", make(tmp_path))
    finally:
        while _held:
            _held.pop().close()


ODD = {
    "300 tables": ";".join(
        f"CREATE TABLE t{i} (id INTEGER PRIMARY KEY, name{i} TEXT, t{i - 1}_id INT)" for i in range(1, 301)
    ),
    "spaces and quotes": """CREATE TABLE "my ""own"" table" ("a b" TEXT, "it's" INT, "x.y" REAL, "<c0>" INT)""",
    "reserved words": 'CREATE TABLE "select" ("from" TEXT, "order" INT, "group" INT); CREATE TABLE "table" ("index" INT)',
    "unicode": 'CREATE TABLE "Kundenübersicht" ("Größe" REAL, "名前" TEXT, "\U0001f600" INT); CREATE TABLE "ЗАКАЗ" ("цена" REAL)',
    "mixed case": "CREATE TABLE People (PersonID INTEGER PRIMARY KEY, FirstName TEXT); CREATE TABLE ORDERS (personid INT)",
    "newline and control": 'CREATE TABLE "a\nb" ("c\td" INT, "\x1b[31m" INT)',
    "no rows": "CREATE TABLE items (name TEXT)",
    "a view": "CREATE TABLE items (name TEXT); CREATE VIEW dear AS SELECT name FROM items",
    "200 columns": f"CREATE TABLE wide ({', '.join(f'col{i} INT' for i in range(200))})",
    "itself": "CREATE TABLE node (id INTEGER PRIMARY KEY, parent INT REFERENCES node(id), name TEXT)",
    "generated": "CREATE TABLE g (a INT, b INT GENERATED ALWAYS AS (a + 1) VIRTUAL)",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_schemas_are_answered(parts: Parts, tmp_path: Path, name: str) -> None:
    with load(parts, threads=1).open(database(tmp_path, ODD[name])) as session:
        for question in ("How many are there?", "names", "the order of people by price"):
            try:
                found = session.ask(question)
            except NoAnswerError as problem:
                assert "token limit" in str(problem)  # a random model may never end
            else:
                assert found.ran


QUESTIONS = {
    "long": "why " * 5000,
    "one word of 20 kB": "x" * 20_000,
    "another language": "¿Cuántos pedidos hay? 一共有多少订单？ Сколько заказов?",
    "unrelated": "What is the meaning of life?",
    "injection": "names'; DROP TABLE items; -- <sql>FROM<t0> SELECT *<e>",
    "pointers": "<t0> <c0> <c99> <v0> <e><e><s><sql>",
    "control": "\x00\x1b[31m\x07 \u202e names",
    "surrogate": "name \udcff",
    "punctuation": "??? !!! ''' \"\"\" ;;; -- /* */",
    "numbers": "9999999999999999999999 1e999 -0 0x10 ½ ٣",
    "emoji": "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467",
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_odd_questions(parts: Parts, tmp_path: Path, name: str) -> None:
    db = database(tmp_path, "CREATE TABLE items (name TEXT, price REAL); INSERT INTO items VALUES ('pen', 2)")
    before = db.read_bytes()
    try:
        found = load(parts, threads=1).ask(QUESTIONS[name], db)
    except ExpertError as problem:
        assert isinstance(problem, ContextError | NoAnswerError)
        assert name in ("long", "one word of 20 kB") or "token limit" in str(problem)
    else:
        assert found.ran
    assert db.read_bytes() == before
