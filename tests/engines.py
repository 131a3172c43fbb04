"""Database servers for the tests and benchmarks, started on loopback in a temporary folder; DuckDB and SQLite here.

Each engine makes an empty copy of a schema and compiles queries against it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ports import free

from experts.sql import identifiers
from experts.sql.kinds import MARK, NUMBER, OTHER, TEXT, TIME, TRUTH, WHOLE, declared
from experts.sql.schema import Schema, Table
from experts.sql.tongues import quoted

TYPES = {
    "postgres": {
        WHOLE: "integer",
        NUMBER: "double precision",
        TEXT: "text",
        TIME: "timestamp",
        TRUTH: "boolean",
        OTHER: "json",
    },
    "duckdb": {WHOLE: "INTEGER", NUMBER: "DOUBLE", TEXT: "VARCHAR", TIME: "TIMESTAMP", TRUTH: "BOOLEAN", OTHER: "BLOB"},
    "sqlite": {WHOLE: "INTEGER", NUMBER: "REAL", TEXT: "TEXT", TIME: "TEXT", TRUTH: "BOOLEAN", OTHER: "BLOB"},
    "mysql": {WHOLE: "int", NUMBER: "double", TEXT: "varchar(200)", TIME: "datetime", TRUTH: "boolean", OTHER: "blob"},
}
"""What columns of each kind are made of; dates where the declared type says date alone, decimals likewise."""


class Engine(Protocol):
    """One database at a time; ``explain`` gives the reason for a refusal, or None, ``rows`` those of a
    query; ``fill`` inserts some into a table, whose name is given as SQL."""

    dialect: str

    def create(self, schema: Schema) -> None: ...

    def explain(self, sql: str) -> str | None: ...

    def rows(self, sql: str) -> list[tuple[Any, ...]]: ...

    def fill(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None: ...


def nameable(schema: Schema, dialect: str) -> Schema:
    """``schema`` without what the server has no names for: MySQL's are of the basic multilingual plane."""
    if dialect != "mysql":
        return schema
    tables = (
        Table(table.name, tuple(one for one in table.columns if max(one.name) <= "\uffff"))
        for table in schema.tables
        if max(table.name) <= "\uffff"
    )
    return Schema(tuple(table for table in tables if table.columns))


def ddl(schema: Schema, dialect: str) -> Iterator[str]:
    """CREATE statements for ``schema``, without rows, defaults or keys, but for the primary ones of PostgreSQL."""
    types: set[str] = set()

    def spelled(name: str) -> str:
        return identifiers.quoted(name) if dialect == "sqlite" else quoted(name, dialect)

    for table in schema.tables:
        columns = []
        for column in table.columns:
            kind = declared(column.type)
            if kind.startswith(MARK):
                named, enumeration, words = column.type.partition("enum")
                made = enumeration + words or named
                if enumeration and dialect == "postgres":
                    made = named.strip() or spelled(f"type of {column.name}")
                    if made not in types:
                        yield f"CREATE TYPE {made} AS ENUM {words}"
                    types.add(made)
                columns.append(f"{spelled(column.name)} {made}")
                continue
            made = TYPES[dialect][kind]
            if kind == TIME and "time" not in column.type:
                made = "date"
            if kind == NUMBER and any(word in column.type for word in ("dec", "num")):
                made = "decimal(18, 4)"
            columns.append(f"{spelled(column.name)} {made}")
        primary = [one for one in table.columns if one.primary and dialect == "postgres"]
        if primary and all(declared(one.type) != OTHER for one in primary):
            columns.append(f"PRIMARY KEY ({', '.join(spelled(one.name) for one in primary)})")
        yield f"CREATE TABLE {spelled(table.name)} ({', '.join(columns)})"


class DuckDB:
    """DuckDB in memory."""

    dialect = "duckdb"

    def __init__(self) -> None:
        import duckdb

        self.module = duckdb
        self.connection: Any = None

    def create(self, schema: Schema) -> None:
        self.connection = self.module.connect(":memory:")
        for statement in ddl(schema, self.dialect):
            self.connection.execute(statement)

    def explain(self, sql: str) -> str | None:
        try:
            self.connection.execute("EXPLAIN " + sql).fetchall()
        except self.module.Error as problem:
            return f"{type(problem).__name__}: {problem}"
        return None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.connection.execute(sql).fetchall()
        return found

    def fill(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self.connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


class SQLite:
    """SQLite in memory."""

    dialect = "sqlite"

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:")

    def create(self, schema: Schema) -> None:
        self.connection.close()
        self.connection = sqlite3.connect(":memory:")
        for statement in ddl(schema, self.dialect):
            self.connection.execute(statement)

    def explain(self, sql: str) -> str | None:
        try:
            self.connection.execute("EXPLAIN " + sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning) as problem:
            return f"{type(problem).__name__}: {problem}"
        return None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.connection.execute(sql).fetchall()

    def fill(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self.connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)


class Server:
    """PostgreSQL or MariaDB over an open connection that commits at once."""

    def __init__(self, dialect: str, connection: Any, error: type[Exception]) -> None:
        self.dialect, self.connection, self.error = dialect, connection, error

    def create(self, schema: Schema) -> None:
        fresh = (
            ("DROP SCHEMA IF EXISTS public CASCADE", "CREATE SCHEMA public")
            if self.dialect == "postgres"
            else ("DROP DATABASE IF EXISTS house", "CREATE DATABASE house CHARACTER SET utf8mb4", "USE house")
        )
        with self.connection.cursor() as cursor:
            for statement in (*fresh, *ddl(schema, self.dialect)):
                cursor.execute(statement)

    def explain(self, sql: str) -> str | None:
        with self.connection.cursor() as cursor:
            try:
                cursor.execute("EXPLAIN " + sql)
                cursor.fetchall()
            except self.error as problem:
                return f"{type(problem).__name__}: {problem}"
        return None

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def fill(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self.connection.cursor() as cursor:
            marks = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f"INSERT INTO {table.replace('%', '%%')} VALUES ({marks})", rows)


def program(name: str) -> str | None:
    """The path of a server's program, where it is installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return found or (str(versions[0]) if versions else None)


def missing(dialect: str) -> str | None:
    """Why there is no engine of ``dialect`` here, or None."""
    if dialect == "sqlite":
        return None
    module = {"duckdb": "duckdb", "postgres": "psycopg", "mysql": "pymysql"}[dialect]
    if find_spec(module) is None:
        return f"the module {module} is not installed"
    if dialect == "duckdb":
        return None
    names = ("initdb", "postgres") if dialect == "postgres" else ("mariadb-install-db", "mariadbd")
    lacking = [name for name in names if program(name) is None]
    return f"{', '.join(lacking)} not installed" if lacking else None


@contextmanager
def engine(dialect: str) -> Iterator[Engine]:
    """A running engine of ``dialect``."""
    if dialect == "sqlite":
        yield SQLite()
    elif dialect == "duckdb":
        yield DuckDB()
    elif dialect == "postgres":
        with _postgres() as found:
            yield found
    else:
        with _mariadb() as found:
            yield found


@contextmanager
def _folder(user: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A folder that the server may write to, and how to become its user: servers refuse to run as root."""
    with tempfile.TemporaryDirectory() as name:
        as_user: dict[str, Any] = {}
        if os.getuid() == 0:
            entry = pwd.getpwnam(user)
            os.chown(name, entry.pw_uid, entry.pw_gid)
            as_user = {"user": entry.pw_uid, "group": entry.pw_gid, "cwd": name}
        yield Path(name), as_user


@contextmanager
def _running(command: list[str], as_user: dict[str, Any], log: Path) -> Iterator[None]:
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, **as_user)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _connected(connect: Any, error: type[Exception], log: Path) -> Any:
    ends = time.monotonic() + 60
    while True:
        try:
            return connect()
        except error:
            if time.monotonic() > ends:
                raise RuntimeError(log.read_text()) from None
            time.sleep(0.1)


@contextmanager
def _postgres() -> Iterator[Engine]:
    import psycopg

    with _folder("postgres") as (folder, as_user):
        data, port = folder / "data", free()
        made = [str(program("initdb")), "-D", str(data), "-U", "house", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, **as_user)
        options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
        with _running([str(program("postgres")), "-D", str(data), *options], as_user, folder / "log"):
            where = f"host=127.0.0.1 port={port} user=house dbname=postgres"
            connection = _connected(lambda: psycopg.connect(where, autocommit=True), psycopg.Error, folder / "log")
            with connection:
                yield Server("postgres", connection, psycopg.Error)


@contextmanager
def _mariadb() -> Iterator[Engine]:
    import pymysql

    with _folder("mysql") as (folder, as_user):
        data, port = folder / "data", free()
        made = [
            str(program("mariadb-install-db")),
            "--no-defaults",
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
        ]
        subprocess.run([*made, "--skip-test-db"], check=True, capture_output=True, **as_user)
        options = [f"--datadir={data}", f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket"]
        mode = "--sql-mode=ONLY_FULL_GROUP_BY,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO"
        with _running([str(program("mariadbd")), "--no-defaults", *options, mode], as_user, folder / "log"):
            connection = _connected(
                lambda: pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True),
                pymysql.Error,
                folder / "log",
            )
            with connection:
                yield Server("mysql", connection, pymysql.Error)
