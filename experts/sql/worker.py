"""One SQLite query at a time, in a process of its own. Run as a script; imports nothing but the standard library.

Standard input carries one JSON request a line, standard output one JSON reply a line;
the end of input ends the process.
What holds a query, in order:

(1) the file is opened with ``mode=ro``, fresh for every query, and ``PRAGMA query_only``;
(2) functions that a schema could smuggle in are not trusted (``trusted_schema=OFF``), nothing can be attached;
(3) an authorizer lets through SELECT, READ, RECURSIVE and the functions in :data:`FUNCTIONS`, at compile time;
(4) a progress handler stops it after its seconds; the parent kills the process where that is not enough;
(5) rows, the length of a value, SQLite's heap and the process's address space are limited; nothing spills to disk.

Not covered: a flaw in SQLite itself reached through a hostile database file; the process keeps the user's other rights.
"""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

_NAMES = """
abs acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow power
radians random round sign sin sinh sqrt tan tanh trunc
avg count group_concat string_agg max min sum total
cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
char coalesce concat concat_ws format glob hex ifnull iif instr length like likelihood likely lower ltrim match
nullif octet_length printf quote replace rtrim soundex substr substring trim typeof unhex unicode unlikely upper
current_date current_time current_timestamp date datetime julianday strftime time timediff unixepoch
json json_array json_array_length json_each json_extract json_group_array json_group_object json_object json_quote
json_tree json_type json_valid -> ->>
bm25 highlight snippet
"""
FUNCTIONS = frozenset(_NAMES.split())
"""SQLite functions that read their arguments and nothing else."""

READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
DATA_VERSION = (sqlite3.SQLITE_PRAGMA, "data_version", None)
KINDS = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_NOTADB: "foreign",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_CANTOPEN: "unreadable",
    sqlite3.SQLITE_IOERR: "unreadable",
    sqlite3.SQLITE_INTERRUPT: "timeout",
}
LOCK_WAIT = 1.0
STEPS = 10_000
MAX_ROWS = 2**31 - 2  # what a C int holds, less the row that tells of more
VALUE_BYTES = 32 << 20
SQL_BYTES = 200_000


def authorize(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    """SQLite's authorizer callback: reads and listed functions only."""
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return authorize_gold(action, first, second, database, trigger)


def authorize_gold(
    action: int, first: str | None, second: str | None, database: str | None, trigger: str | None
) -> int:
    """The same for gold queries, which people wrote: any function that is compiled in, still reads only."""
    if action in READS or action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_OK
    # full-text tables ask for the file's change counter
    return sqlite3.SQLITE_OK if (action, first, second) == DATA_VERSION else sqlite3.SQLITE_DENY


def connect(uri: str, memory: int, deadline: float) -> sqlite3.Connection:
    """A read-only connection that stops itself at ``deadline`` (``time.monotonic`` seconds)."""
    db = sqlite3.connect(
        uri, uri=True, timeout=min(LOCK_WAIT, max(0.0, deadline - time.monotonic())), isolation_level=None
    )
    db.text_factory = lambda text: text.decode("utf-8", "replace")
    db.execute(f"PRAGMA hard_heap_limit={memory}")
    for pragma in ("query_only=ON", "trusted_schema=OFF", "temp_store=MEMORY", "cell_size_check=ON"):
        db.execute(f"PRAGMA {pragma}")
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(VALUE_BYTES, memory))
    db.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, SQL_BYTES)
    db.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
    db.setlimit(sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0)
    db.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)
    return db


def declare(db: sqlite3.Connection, sql: str) -> None:
    """Load the virtual tables, whose declaration looks like a write to an authorizer that is in place."""
    virtual = db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'create virtual table%'"
    ).fetchall()
    used = [name for name in ("json_each", "json_tree") if name in sql.lower()]
    for name in [*used, *(name for (name,) in virtual)]:
        quoted = name.replace('"', '""')
        with suppress(
            sqlite3.OperationalError
        ):  # of a module that is not compiled in: the query says so if it needs it
            db.execute(f'EXPLAIN SELECT 1 FROM "{quoted}"')  # noqa: S608


def answer(request: Mapping[str, Any], memory: int) -> dict[str, Any]:
    """Run ``request["sql"]`` and give its columns and at most ``request["rows"]`` rows.

    Raises:
        sqlite3.Error: SQLite refused the query or could not read the file.
        MemoryError: the memory limit was reached.
    """
    begun = time.perf_counter()
    db = connect(request["uri"], memory, time.monotonic() + request["seconds"])
    try:
        declare(db, request["sql"])
        db.set_authorizer(authorize_gold if request["gold"] else authorize)
        cursor = db.execute(request["sql"])
        rows = cursor.fetchmany(min(request["rows"], MAX_ROWS) + 1)
        if cursor.description is None:
            raise sqlite3.ProgrammingError("it is empty: it holds no statement")
        return {
            "columns": [column[0] for column in cursor.description],
            "rows": rows[: request["rows"]],
            "truncated": len(rows) > request["rows"],
            "ms": (time.perf_counter() - begun) * 1000,
        }
    finally:
        db.close()


def encode(value: object) -> dict[str, str]:
    """JSON for what JSON lacks: a blob."""
    if not isinstance(value, bytes):
        raise TypeError(f"SQLite gave a {type(value).__name__}")
    return {"blob": value.hex()}


def respond(line: bytes, memory: int) -> str:
    """The reply to one request line: a result, or the kind and text of what went wrong."""
    try:
        return json.dumps(answer(json.loads(line), memory), default=encode)
    except MemoryError:
        reply = {"error": "memory", "message": ""}
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as problem:
        code = getattr(problem, "sqlite_errorcode", None)
        reply = {"error": KINDS.get(code & 0xFF, "failed") if code is not None else "failed", "message": str(problem)}
    return json.dumps(reply)


def limit_memory(memory: int) -> None:
    """Bound the address space where the system can; SQLite's own heap is bounded on every system."""
    if sys.platform == "win32":
        return
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))


def main() -> None:
    """Serve until the input ends. The only argument is the memory limit in bytes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    memory = int(sys.argv[1])
    limit_memory(memory)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin.buffer:
        sys.stdout.write(respond(line, memory) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
