"""Which databases can be opened, whatever they and their tables are called, and how the others are refused."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from test_execute import create

from expert_cli.errors import ContextError
from expert_cli.task import Limits
from experts.sql.execute import Worker, open_database


@pytest.mark.parametrize(
    "name",
    [
        "plain.db",
        "with space.db",
        'it\'s "quoted".db',
        "what?mode=rw.db",
        "a#b%25c%.db",
        "büro-数据.db",
        "semi;colon&and=.db",
    ],
)
def test_any_file_name(tmp_path: Path, name: str) -> None:
    path = create(tmp_path / name, "CREATE TABLE t (a)", "INSERT INTO t VALUES (7)")
    for target in (path, str(path), f"sqlite:///{path}"):
        with Worker(open_database(target)) as opened:
            assert opened.run("SELECT a FROM t", Limits()).rows == ((7,),)


def test_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = create(tmp_path / "my shop.db", "CREATE TABLE t (a)")
    monkeypatch.chdir(tmp_path)
    for target in (
        "my shop.db",
        "sqlite:///my shop.db",
        "sqlite:///my%20shop.db",
        "sqlite:///my%20shop.db?mode=ro",
        f"sqlite:///{path}",
    ):
        assert open_database(target).resolve() == path


def missing(folder: Path) -> str:
    return str(folder / "none.db")


def empty(folder: Path) -> str:
    (folder / "empty.db").touch()
    return str(folder / "empty.db")


def text(folder: Path) -> str:
    (folder / "notes.txt").write_text("id,name\n1,x\n" * 50)
    return str(folder / "notes.txt")


def short(folder: Path) -> str:
    (folder / "short.txt").write_text("hello")
    return str(folder / "short.txt")


def no_tables(folder: Path) -> str:
    return str(create(folder / "bare.db", "PRAGMA user_version = 1"))


def cut(folder: Path) -> str:
    whole = create(folder / "whole.db", "CREATE TABLE t (a)", "CREATE TABLE u (a)").read_bytes()
    (folder / "cut.db").write_bytes(whole[:100])
    return str(folder / "cut.db")


def garbled(folder: Path) -> str:
    whole = create(folder / "garbled.db", "CREATE TABLE t (a)").read_bytes()
    (folder / "garbled.db").write_bytes(whole[:100] + os.urandom(len(whole) - 100))
    return str(folder / "garbled.db")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, "no database at .*none.db; check the path"),
        (str, "is a folder, not a database; give the file"),
        (empty, "is empty; create its tables"),
        (short, "not a SQLite database"),
        (text, "not a SQLite database, or is encrypted; give"),
        (no_tables, "holds no tables; create them"),
        (cut, "is damaged|cannot open|holds no tables"),
        (garbled, "is damaged .*; restore it"),
        (lambda folder: f"{folder}/nul\0byte.db", "; check the path"),
        (lambda folder: f"{folder}/{'x' * 5000}.db", "; check the path"),
        (lambda folder: ":memory:", "not a database file; give the path"),
        (lambda folder: "", "not a database file; give the path"),
        (lambda folder: "sqlite://", "names no file; write"),
        (lambda folder: "sqlite:///:memory:", "names no file; write"),
        (
            lambda folder: "postgresql://user:secret@host/db",
            r"postgresql:// databases cannot .*; give the database's DDL",
        ),
        (lambda folder: "mysql+pymysql://host/db", r"mysql\+pymysql:// databases"),
        (lambda folder: "duckdb:///x.duckdb", "duckdb:// databases"),
    ],
)
def test_unusable_databases(tmp_path: Path, make: Callable[[Path], str], words: str) -> None:
    with pytest.raises(ContextError, match=words) as refusal:
        open_database(make(tmp_path))
    assert "secret" not in str(refusal.value)


def test_locked(tmp_path: Path) -> None:
    path = create(tmp_path / "busy.db", "CREATE TABLE t (a)")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ContextError, match=r"busy\.db is locked by another program; let it finish"):
            open_database(path)
        with Worker(path) as waiting, pytest.raises(ContextError, match="locked"):
            waiting.run("SELECT a FROM t", Limits())
    assert open_database(path) == path


def test_opening_keeps_the_locks_that_this_process_holds(tmp_path: Path) -> None:
    path = create(tmp_path / "mine.db", "CREATE TABLE t (a)")
    with closing(sqlite3.connect(path, isolation_level=None)) as mine, Worker(open_database(path)) as other:
        mine.execute("BEGIN IMMEDIATE")
        mine.execute("INSERT INTO t VALUES (1)")
        open_database(path)
        assert other.run("SELECT COUNT(*) FROM t", Limits()).rows == ((0,),)
        mine.execute("COMMIT")
        mine.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ContextError, match="locked"):
            open_database(path)
        with pytest.raises(ContextError, match="locked"):
            other.run("SELECT COUNT(*) FROM t", Limits())


def test_a_database_that_vanishes(tmp_path: Path) -> None:
    path = create(tmp_path / "brief.db", "CREATE TABLE t (a)")
    with Worker(open_database(path)) as left:
        path.unlink()
        with pytest.raises(ContextError, match=r"cannot open .*brief\.db"):
            left.run("SELECT a FROM t", Limits())
    assert not path.exists()


def test_write_ahead_log(tmp_path: Path) -> None:
    path = create(tmp_path / "wal.db", "PRAGMA journal_mode = WAL", "CREATE TABLE t (a)", "INSERT INTO t VALUES (1)")
    with closing(sqlite3.connect(path)) as writer, Worker(open_database(path)) as reader:
        writer.execute("INSERT INTO t VALUES (2)")
        writer.commit()
        assert reader.run("SELECT COUNT(*) FROM t", Limits()).rows == ((2,),)


def test_three_hundred_tables(tmp_path: Path) -> None:
    path = create(tmp_path / "wide.db", *(f"CREATE TABLE t{n} (a, b, c)" for n in range(300)))
    with Worker(open_database(path)) as opened:
        assert opened.run("SELECT COUNT(*) FROM t299", Limits()).rows == ((0,),)


@pytest.mark.parametrize(
    "name",
    ["order", "select", "My Table", 'say "hi"', "it's", "Straße", "数据", "MixedCase", "a.b", "1st", "x;y", "--"],
)
def test_any_table_name(tmp_path: Path, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    path = create(tmp_path / "names.db", f"CREATE TABLE {quoted} ({quoted} TEXT)", f"INSERT INTO {quoted} VALUES ('v')")
    with Worker(open_database(path)) as opened:
        result = opened.run(f"SELECT {quoted}.{quoted} FROM {quoted}", Limits())
    assert (result.columns, result.rows) == ((name,), (("v",),))
