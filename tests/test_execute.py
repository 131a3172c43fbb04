"""Running SQL: what it returns and what stops it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from expert_cli.errors import ContextError
from expert_cli.task import Limits
from experts.sql.execute import QueryError, QueryTimeout, Worker

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT COUNT(*) FROM c"
ONE_STEP = "SELECT COUNT(*) FROM n WHERE printf('%20000000d', i) LIKE '%a%b%c%d%'"
WIDE = "SELECT i, printf('%10000000d', i) FROM n"


def create(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        for statement in statements:
            db.execute(statement)
        db.commit()
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "numbers.db"
    create(
        path,
        "CREATE TABLE n (i INTEGER, label TEXT)",
        "INSERT INTO n WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 500) "
        "SELECT x, 'label ' || x FROM c",
        "CREATE TABLE odd (value)",
        "INSERT INTO odd VALUES (NULL), (1e999), (x'00ff'), (CAST(x'61ff62' AS TEXT)), (9223372036854775807), ('é\U0001f600')",
        "CREATE VIRTUAL TABLE search USING fts5(body)",
        "INSERT INTO search VALUES ('hello world')",
        "CREATE VIEW firsts AS SELECT i FROM n WHERE i < 4",
    )
    return path


@pytest.fixture(scope="module")
def worker(database: Path) -> Iterator[Worker]:
    with Worker(database) as started:
        yield started


@pytest.mark.parametrize(
    ("sql", "columns", "rows"),
    [
        ("SELECT i, label FROM n ORDER BY i LIMIT 2", ("i", "label"), ((1, "label 1"), (2, "label 2"))),
        ("SELECT COUNT(*) AS total FROM n;", ("total",), ((500,),)),
        ("SELECT i FROM n WHERE i < 0", ("i",), ()),
        (
            "SELECT value FROM odd",
            ("value",),
            ((None,), (float("inf"),), (b"\x00\xff",), ("a\ufffdb",), (2**63 - 1,), ("é\U0001f600",)),
        ),
        (
            "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 3) SELECT x FROM c",
            ("x",),
            ((1,), (2,), (3,)),
        ),
        ("SELECT value FROM json_each('[1, 2]')", ("value",), ((1,), (2,))),
        ("SELECT body FROM search WHERE search MATCH 'world'", ("body",), (("hello world",),)),
        ("SELECT i FROM firsts", ("i",), ((1,), (2,), (3,))),
        ("-- a comment\nSELECT 'x' AS y /* another */", ("y",), (("x",),)),
    ],
)
def test_rows(worker: Worker, sql: str, columns: tuple[str, ...], rows: tuple[tuple[object, ...], ...]) -> None:
    result = worker.run(sql, Limits())
    assert (result.columns, result.rows, result.truncated) == (columns, rows, False)
    assert 0 < result.ms < 1000


@pytest.mark.parametrize(
    ("limit", "fetched", "truncated"),
    [(499, 499, True), (500, 500, False), (501, 500, False), (0, 0, True), (10**12, 500, False)],
)
def test_row_limit(worker: Worker, limit: int, fetched: int, truncated: bool) -> None:
    result = worker.run("SELECT i FROM n", Limits(rows=limit))
    assert (len(result.rows), result.truncated) == (fetched, truncated)


@pytest.mark.parametrize(
    ("sql", "word"),
    [
        ("SELECT missing FROM n", "no such column: missing"),
        ("SELEC 1", "syntax error"),
        ("", "no statement"),
        ("-- nothing", "no statement"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("DELETE FROM n", "not authorized"),
        ("UPDATE n SET i = 0 RETURNING i", "not authorized"),
        ("WITH x AS (SELECT 1) INSERT INTO n SELECT 1, 2 FROM x", "not authorized"),
        ("CREATE TEMP TABLE t AS SELECT 1", "not authorized"),
        ("ATTACH 'other.db' AS other", "not authorized"),
        ("VACUUM INTO 'copy.db'", "authorization denied"),
        ("PRAGMA query_only = OFF", "not authorized"),
        ("SELECT * FROM pragma_table_info('n')", "not authorized"),
        ("BEGIN IMMEDIATE", "not authorized"),
        ("ANALYZE", "not authorized"),
        ("SELECT load_extension('x.so')", "load_extension"),
        ("SELECT fts3_tokenizer('simple')", "fts3_tokenizer"),
        ("SELECT zeroblob(1000000000)", "zeroblob"),
        ("SELECT replace(printf('%9999999d', 1), ' ', 'aaaaaaaa')", "too big"),
        ("INSERT INTO search VALUES ('x')", "not authorized"),
    ],
)
def test_refused(worker: Worker, database: Path, sql: str, word: str) -> None:
    before = database.read_bytes()
    with pytest.raises(QueryError, match=word):
        worker.run(sql, Limits())
    assert database.read_bytes() == before
    assert not list(database.parent.glob("*copy*"))
    assert worker.run("SELECT 1", Limits()).rows == ((1,),)


def test_gold_may_call_every_function_and_still_only_reads(worker: Worker) -> None:
    with pytest.raises(QueryError, match="not authorized"):
        worker.run("SELECT hex(zeroblob(2))", Limits())
    assert worker.run("SELECT hex(zeroblob(2))", Limits(), gold=True).rows == (("0000",),)
    for sql in ("DELETE FROM n", "ATTACH ':memory:' AS m", "PRAGMA query_only = OFF", "CREATE TEMP TABLE t(a)"):
        with pytest.raises(QueryError, match="not authorized"):
            worker.run(sql, Limits(), gold=True)


@pytest.mark.parametrize("sql", [ENDLESS, ONE_STEP, "SELECT COUNT(*) FROM n a, n b, n c, n d"])
def test_time_limit(worker: Worker, sql: str) -> None:
    begun = time.monotonic()
    with pytest.raises(QueryTimeout, match=r"stopped after 0\.5 s"):
        worker.run(sql, Limits(seconds=0.5))
    assert time.monotonic() - begun < 1.5
    assert worker.run("SELECT 1", Limits()).rows == ((1,),)


def test_a_query_that_stops_itself_keeps_its_process(worker: Worker) -> None:
    worker.run("SELECT 1", Limits())
    before = worker._process.pid
    with pytest.raises(QueryTimeout):
        worker.run(ENDLESS, Limits(seconds=0.3))
    assert worker.run("SELECT 1", Limits()).rows == ((1,),)
    assert worker._process.pid == before


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to a single process on Windows")
def test_the_terminals_interrupt_reaches_the_caller_alone(worker: Worker) -> None:
    worker.run("SELECT 1", Limits())
    before = worker._process.pid
    os.kill(before, signal.SIGINT)
    assert worker.run("SELECT 1", Limits()).rows == ((1,),)
    assert worker._process.pid == before


def test_memory_limit(worker: Worker) -> None:
    with pytest.raises(QueryError, match="256 MiB of memory"):
        worker.run(WIDE, Limits(memory=256 << 20))
    assert worker.run("SELECT 1", Limits(memory=256 << 20)).rows == ((1,),)


def test_too_little_memory(database: Path) -> None:
    with Worker(database, memory=1000) as cramped, pytest.raises(QueryError, match="MiB of memory"):
        cramped.run("SELECT 1", Limits(memory=1000))


def test_explain_compiles_without_running(worker: Worker) -> None:
    worker.explain("SELECT i FROM n")
    worker.explain(ENDLESS)
    for sql, word in [
        ("SELECT nope FROM n", "nope"),
        ("DELETE FROM n", "not authorized"),
        ("SELECT 1 FROM gone", "gone"),
    ]:
        with pytest.raises(QueryError, match=word):
            worker.explain(sql)


def test_a_worker_that_died_is_replaced(database: Path) -> None:
    with Worker(database) as mortal:
        mortal.run("SELECT 1", Limits())
        mortal._process.kill()
        mortal._process.wait()
        assert mortal.run("SELECT 2", Limits()).rows == ((2,),)
        mortal.close()
        assert mortal.run("SELECT 3", Limits()).rows == ((3,),)


def test_a_process_that_dies_in_the_middle(database: Path) -> None:
    with Worker(database) as doomed:
        doomed.run("SELECT 1", Limits())
        killer = threading.Timer(0.3, doomed._process.kill)
        killer.start()
        with pytest.raises(QueryError, match="died, perhaps for want of memory"):
            doomed.run(ENDLESS, Limits(seconds=5))
        killer.join()
        assert doomed.run("SELECT 2", Limits()).rows == ((2,),)


def test_other_programs_see_no_lock_between_queries(database: Path, worker: Worker) -> None:
    worker.run("SELECT i FROM n", Limits(rows=1))
    with closing(sqlite3.connect(database, timeout=0)) as db:
        db.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ContextError, match="locked by another program"):
            worker.run("SELECT 1 FROM n", Limits())


def test_the_process_loads_nothing_heavy_and_is_quick() -> None:
    script = Path(__file__).parents[1] / "experts" / "sql" / "worker.py"
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", str(script), str(1 << 30)],
        input=b"",
        capture_output=True,
        check=True,
    )
    assert time.monotonic() - begun < 1.0
    assert done.stdout == b"ready\n"
    for heavy in (b"sqlglot", b"torch", b"expert_cli", b"pathlib"):
        assert heavy not in done.stderr


def test_interrupt_leaves_no_process_behind(database: Path) -> None:
    program = (
        "import os, signal, sys, threading; from pathlib import Path; from expert_cli.task import Limits;"
        "from experts.sql.execute import Worker;"
        "worker = Worker(Path(sys.argv[1])); worker.run('SELECT 1', Limits()); pid = worker._process.pid;"
        "threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        f"try: worker.run({ENDLESS!r}, Limits(seconds=8))\n"
        "except KeyboardInterrupt: sys.stdout.write(f'{pid} {worker.run(\"SELECT 5\", Limits()).rows}'); worker.close()"
    )
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program, str(database)], capture_output=True, text=True, check=False)
    if done.returncode != 0 or "((5,),)" not in done.stdout:
        pytest.fail(f"{done.stdout}\n{done.stderr}")
    assert time.monotonic() - begun < 6
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout.split()[0]), 0)
