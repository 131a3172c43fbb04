"""Running SQL on a SQLite file without letting it change or reach anything.

The query runs in a process of its own (:mod:`experts.sql.worker` says what holds it there); this side keeps the clock.
A worker is started once and serves query after query; one that overruns is killed and the next query gets a new one.
"""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote

from expert_cli.errors import ContextError, ExpertError
from expert_cli.task import Limits, Result

SCRIPT = Path(__file__).with_name("worker.py")
TABLES = "SELECT COUNT(*) FROM sqlite_master WHERE type IN ('table', 'view') AND substr(name, 1, 7) <> 'sqlite_'"
START_SECONDS = 20.0
GRACE_SECONDS = 0.15
LOCK_WAIT = 1.0


class QueryError(ExpertError):
    """A query that the database refused or could not finish."""


class QueryTimeout(QueryError):
    """A query that was stopped because its time was up."""


def open_database(target: str | Path) -> Path:
    """The SQLite file that ``target`` names: a path, ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    A path in a URL is taken as written where such a file exists, else percent-decoded and without its ``?query``.

    Raises:
        ContextError: another kind of URL; a file missing, unreadable, locked, empty, not SQLite or without tables.
    """
    path = _located(target)
    _check_file(path)
    _check_tables(path)
    return path


def uri(path: Path) -> str:
    """The ``file:`` URI that opens ``path`` read-only, whatever characters it holds."""
    return path.resolve().as_uri() + "?mode=ro"


def _located(target: str | Path) -> Path:
    if isinstance(target, Path):
        return target
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", target)
    if scheme is None:
        if target in ("", ":memory:") or target.startswith("file:"):
            raise ContextError(f"{target!r} is not a database file; give the path of one, for example shop.sqlite")
        return Path(target)
    if scheme[1].lower() != "sqlite":
        raise ContextError(
            f"{scheme[1]}:// databases cannot be queried here, only SQLite files can; "
            "give the database's DDL with --schema and its --dialect to have the query written without running it"
        )
    written = target[scheme.end() :]
    if not written.startswith("/") or written in ("/", "/:memory:"):
        raise ContextError(f"{target} names no file; write sqlite:///shop.sqlite or sqlite:////data/shop.sqlite")
    candidates = [Path(text[1:]) for text in (written, unquote(written), unquote(written.partition("?")[0]))]
    return next((path for path in candidates if path.exists()), candidates[0])


def _check_file(path: Path) -> None:
    # The file is not opened here: closing it would drop the locks that this process holds on it through SQLite.
    try:
        mode, size = (status := path.stat()).st_mode, status.st_size
    except FileNotFoundError:
        raise ContextError(f"no database at {path}; check the path") from None
    except (OSError, ValueError) as problem:
        raise ContextError(f"cannot read {path}: {problem}; check the path and its permissions") from problem
    if stat.S_ISDIR(mode):
        raise ContextError(f"{path} is a folder, not a database; give the file inside it")
    if not stat.S_ISREG(mode):
        raise ContextError(f"{path} is not a regular file; give the path of a SQLite file")
    if not size:
        raise ContextError(f"{path} is empty; create its tables first, or give their DDL with --schema")


def _check_tables(path: Path) -> None:
    try:
        with closing(sqlite3.connect(uri(path), uri=True, timeout=LOCK_WAIT)) as db:
            (tables,) = db.execute(TABLES).fetchone()
    except sqlite3.Error as problem:
        raise _unusable(path, problem) from problem
    if not tables:
        raise ContextError(f"{path} holds no tables; create them first, or give their DDL with --schema")


def _unusable(path: Path, problem: sqlite3.Error) -> ContextError:
    from experts.sql.worker import KINDS

    code = getattr(problem, "sqlite_errorcode", None)
    return _broken(path, KINDS.get(code & 0xFF, "unreadable") if code is not None else "unreadable", str(problem))


def _broken(path: Path, kind: str, message: str) -> ContextError:
    """What keeps ``path`` from being read at all, as the user should hear it."""
    if kind == "locked":
        return ContextError(f"{path} is locked by another program; let it finish or close it, then try again")
    if kind == "foreign":
        return ContextError(f"{path} is not a SQLite database, or is encrypted; give a plain SQLite file")
    if kind == "damaged":
        return ContextError(f"{path} is damaged ({message}); restore it from a copy")
    return ContextError(f"SQLite cannot open {path}: {message}; check that the file and its folder can be read")


class Worker:
    """A process that runs queries on the database at ``path``, one at a time; not for several threads at once.

    It starts while the caller does other things; ``memory`` bytes bound the process.
    """

    def __init__(self, path: Path, memory: int = Limits.memory) -> None:
        self.path = path
        self._uri = uri(path)
        self._memory = memory
        self._process = self._start()
        self._ready = False

    def run(self, sql: str, limits: Limits, *, gold: bool = False) -> Result:
        """Run one SELECT. ``gold`` allows every built-in function, for reference queries that people wrote.

        Raises:
            QueryTimeout: it took longer than ``limits.seconds``.
            QueryError: SQLite refused it, or it needed more than ``limits.memory``.
            ContextError: the database file cannot be read, or is locked.
        """
        reply = self._exchange(sql, limits, gold)
        rows = tuple(tuple(row) for row in reply["rows"])
        return Result(tuple(reply["columns"]), rows, reply["truncated"], reply["ms"])

    def explain(self, sql: str, limits: Limits | None = None) -> None:
        """Have SQLite compile ``sql`` without running it.

        Raises:
            QueryError: it does not compile, or does more than read.
            ContextError: the database file cannot be read, or is locked.
        """
        self._exchange("EXPLAIN " + sql, limits or Limits(memory=self._memory), False)

    def close(self) -> None:
        """End the process; a closed worker starts again when it is asked something."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was not yet sent has nobody left to read it

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(SCRIPT), str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def _restart(self) -> None:
        self.close()
        self._process = self._start()
        self._ready = False

    def _exchange(self, sql: str, limits: Limits, gold: bool) -> dict[str, Any]:
        if limits.memory != self._memory:
            self._memory = limits.memory
            self._restart()
        elif self._process.poll() is not None:
            self._restart()
        if not self._ready:
            if self._ask(b"", START_SECONDS) != b"ready\n":
                raise ContextError(
                    f"the query process does not start with {self._memory} bytes of memory; allow it more"
                )
            self._ready = True
        request = {"uri": self._uri, "sql": sql, "seconds": limits.seconds, "rows": limits.rows, "gold": gold}
        begun = time.monotonic()
        line = self._ask(json.dumps(request).encode() + b"\n", limits.seconds + GRACE_SECONDS)
        if not line.endswith(b"\n"):
            self._restart()
            late = time.monotonic() - begun >= limits.seconds
            raise self._failure({"error": "timeout" if late else "died", "message": ""}, limits)
        reply: dict[str, Any] = json.loads(line, object_hook=_decode)
        if "error" in reply:
            raise self._failure(reply, limits)
        return reply

    def _ask(self, line: bytes, seconds: float) -> bytes:
        """Send ``line`` and read one line back; what is not there after ``seconds`` dies with the process."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise TypeError("a worker is started with pipes")
        clock = threading.Timer(seconds, process.kill)
        clock.daemon = True
        clock.start()
        answered = False
        try:
            process.stdin.write(line)
            process.stdin.flush()
            reply = process.stdout.readline()
            answered = True
        except BrokenPipeError:
            return b""
        finally:
            clock.cancel()
            clock.join()
            if not answered:
                process.kill()
                process.wait()
        return reply

    def _failure(self, reply: dict[str, Any], limits: Limits) -> ExpertError:
        kind, message = reply["error"], reply["message"]
        if kind == "timeout":
            return QueryTimeout(f"the query was stopped after {limits.seconds:g} s; narrow it or allow it more time")
        if kind == "memory":
            return QueryError(
                f"the query needs more than {limits.memory / (1 << 20):g} MiB of memory; narrow it or allow it more"
            )
        if kind == "died":
            return QueryError("the process that ran the query died, perhaps for want of memory; narrow the query")
        if kind == "failed":
            return QueryError(f"the query failed: {message}; correct it and run it again")
        return _broken(self.path, kind, message)


def _decode(value: dict[str, Any]) -> Any:
    return bytes.fromhex(value["blob"]) if "blob" in value else value
