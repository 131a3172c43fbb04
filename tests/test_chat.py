"""The chat command with a scripted expert over real SQLite: what goes to which stream, and every exit code."""

from __future__ import annotations

import io
import json
import os
import re
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes import expert, shop

from expert_cli import loading, show
from expert_cli.cli import main
from expert_cli.cli.loop import Talk
from expert_cli.errors import ExpertError
from expert_cli.task import Limits

NAMES = "SELECT name, price FROM items ORDER BY price DESC"
SCRIPT = {"names": [NAMES], "second": ["SELECT colour FROM items", NAMES], "stuck": ["SELECT colour FROM items"]}


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run ``chat`` on the shop; the errors that the console script would print are left in ``exception``."""
    monkeypatch.setattr(loading, "load", lambda name, **options: expert(SCRIPT))
    db = str(shop(tmp_path))

    def run(*options: str, typed: str | None = None, target: tuple[str, ...] = ("--db", db)) -> Result:
        return CliRunner().invoke(main, ["chat", *target, *options], input=typed, standalone_mode=False)

    return run


def test_query_and_rows_on_stdout_the_rest_on_stderr(ask: Any) -> None:
    done = ask("--prompt", "the names?")
    assert done.stdout.splitlines()[0] == NAMES + ";"
    assert "| ink  |   5.0 |" in done.stdout
    assert "| nib  |  NULL |" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "3 rows" in done.stderr and "confidence 0.37" in done.stderr
    assert "candidate" not in done.stderr


def test_another_candidate_is_told(ask: Any) -> None:
    assert "candidate 2 of 2 (the first: no such column: colour)" in ask("--prompt", "second?").stderr


def test_limited_rows_are_told(ask: Any) -> None:
    assert "first 2 rows; raise --limit" in ask("--prompt", "names?", "--limit", "2").stderr


def test_json_and_nothing_else(ask: Any) -> None:
    done = ask("--prompt", "names?", "--json")
    found = json.loads(done.stdout)
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)
    assert {"question", "sql", "columns", "rows", "timings", "candidates", "expert", "base"} <= found.keys()


@pytest.mark.parametrize("json_", [[], ["--json"]])
def test_one_question_a_line_when_piped(ask: Any, json_: list[str]) -> None:
    done = ask(*json_, typed="names?\n\nstuck?\nsecond?\n")
    assert done.return_value == 8
    assert done.stderr.count("error: 'stuck?': none of 1 candidates") == 1
    assert done.stdout.count(NAMES + ";") >= 2
    if json_:
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert [line["sql"] for line in lines] == [NAMES + ";", None, NAMES + ";"]
        assert lines[1]["exit_code"] == 8


def test_without_running(ask: Any, tmp_path: Path) -> None:
    for done in (
        ask("--prompt", "names?", "--no-run"),
        ask("--prompt", "names?", target=("--schema", str(tmp_path / "shop.sql"))),
    ):
        assert (done.stdout, done.exception) == (NAMES + ";\n", None)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--prompt", "stuck?", "--db", "{db}"], 8, "none of 1"),
        (["--prompt", "names?", "--db", "none.sqlite"], 7, "does not exist"),
        (["--prompt", "", "--db", "{db}"], 7, "empty"),
        (["--prompt", "names?"], 2, "either a database"),
        (["--prompt", "names?", "--db", "{db}", "--schema", "a.sql"], 2, "either a database"),
    ],
)
def test_exit_codes(ask: Any, tmp_path: Path, options: list[str], code: int, message: str) -> None:
    done = ask(*(option.format(db=tmp_path / "shop.sqlite") for option in options), target=())
    assert isinstance(done.exception, ExpertError)
    assert done.exception.exit_code == code
    assert message in str(done.exception)


def test_an_expert_that_is_not_installed(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "expert_cli", "chat", "--db", "a.sqlite", "-p", "q"],
        capture_output=True, text=True, check=False, env={**os.environ, "EXPERT_HOME": str(home)},
    )  # fmt: skip
    assert "expert-cli install sql" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode not in (0, 1)


def test_an_encoding_that_lacks_a_character(tmp_path: Path) -> None:
    code = "import fakes, sys; from expert_cli import loading; from expert_cli.cli import run; asked = sys.argv.pop(); "
    code += "loading.load = lambda name, **options: fakes.expert({'': [asked]}); run()"
    command = ["chat", "--db", str(shop(tmp_path)), "-p", "q", "SELECT 'ü', '漢' AS漢"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True, check=False, cwd=Path(__file__).parent, env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert b"\xfc" in done.stdout and b"'?'" in done.stdout


def talk(tmp_path: Path) -> Talk:
    asked = expert(SCRIPT)
    db = shop(tmp_path)
    return Talk(asked.open(db), lambda dialect: asked.open(db, dialect=dialect), run=True, limits=Limits())


def test_the_conversation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = talk(tmp_path)
    steps = [
        ("/sql", "", "no query yet"),
        ("names?", "ink", "3 rows"),
        ("/sql", NAMES, ""),
        ("stuck?", "", "error: none of 1"),
        ("/run off", "", "only written"),
        ("names?", NAMES, "confidence"),
        ("/schema", "items(name, price)", ""),
        ("/dialect postgres", "", "postgres"),
        ("/dialect cobol", "", "/dialect NAME"),
        ("/help", "", "Ctrl-D"),
        ("  ", "", ""),
    ]
    for line, out, err in steps:
        assert held.take(line), line
        shown = capsys.readouterr()
        assert out in shown.out, line
        assert err in shown.err, line
        assert bool(shown.out) is bool(out), line
    assert held.session.dialect == "postgres"
    assert held.take("/exit") is False


def test_ctrl_c_cancels_the_question_and_not_the_session(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = talk(tmp_path)
    question = held.session.context.question

    def interrupted(text: str, **options: Any) -> Any:
        held.session.context.question = question  # type: ignore[method-assign]
        raise KeyboardInterrupt

    held.session.context.question = interrupted  # type: ignore[method-assign]
    assert held.take("names?")
    assert "cancelled" in capsys.readouterr().err
    assert held.take("names?")
    assert "ink" in capsys.readouterr().out


def test_completion_knows_commands_and_names(tmp_path: Path) -> None:
    assert {"/schema", "items", "items.price"} <= set(talk(tmp_path).words())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Ünïcode 漢字", "plain Ünïcode 漢字"),
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("\x1b]0;title\x07x\x1b]8;;http://a\x1b\\y", "xy"),
        ("\x9b31mx\x9d0;t\x9cy", "xy"),
        ("a\x00b\x08c\rd\ne\tf\x7f", "abcd e f"),
        ("\u202etxt.exe\u2066", "txt.exe"),
        ("\x1b]unterminated", ""),
    ],
)
def test_terminal_escapes_are_removed(text: str, shown: str) -> None:
    assert show.plain(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "NULL"), (b"ab", "<2 bytes>"), (1.5, "1.5"), ("x" * 300, "x" * 199 + "…")]
)
def test_cells(value: object, shown: str) -> None:
    assert show.cell(value) == shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("color", [True, False])
def test_a_terminal_gets_a_cut_table_and_color_unless_refused(monkeypatch: pytest.MonkeyPatch, color: bool) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    if not color:
        monkeypatch.setenv("NO_COLOR", "1")
    show.query("SELECT 1")
    show.rows([f"column_{i}" for i in range(40)], [["w" * 50] * 40], truncated=False)
    lines = [show.plain(line) for line in out.getvalue().splitlines()]
    assert len(lines) == 6
    assert all(len(line) <= 60 for line in lines)
    assert bool(re.search(r"\x1b\[(?:\d+;)*[349]\d", out.getvalue())) is color
    assert "35 more columns do not fit" in err.getvalue()


SCRIPTED = """
import sys
from expert_cli import loading
from fakes import expert
loading.load = lambda name, **options: expert({"names": [%r], "slow": [%r]}, pause=0.0)
writer = expert({}).writer.__class__
plain = writer.write
def write(self, prompt, *rest, **options):
    if "slow" in prompt:
        import time
        time.sleep(60)
    return (yield from plain(self, prompt, *rest, **options))
writer.write = write
from expert_cli.cli import run
sys.argv = ["expert-cli", "chat", "--db", sys.argv[1]]
run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_the_loop_on_a_terminal(tmp_path: Path, home: Path) -> None:
    import fcntl
    import pty
    import termios

    leader, follower = pty.openpty()
    running = subprocess.Popen(
        [sys.executable, "-c", SCRIPTED % (NAMES, NAMES), str(shop(tmp_path))],
        cwd=Path(__file__).parent, stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
        env={**os.environ, "EXPERT_HOME": str(home), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
    )  # fmt: skip
    os.close(follower)
    seen = ""

    def expect(text: str) -> None:
        nonlocal seen
        until = time.monotonic() + 20
        while text not in seen:
            assert time.monotonic() < until, seen
            if select.select([leader], [], [], 0.1)[0]:
                seen += os.read(leader, 65536).decode("utf-8", "replace")
        seen = seen[seen.index(text) + len(text) :]

    try:
        for typed, told in [
            ("", "sql>"), ("names?\r", "ink"), ("", "3 rows"), ("", "sql>"), ("slow?\r", "reading"), ("\x03", "cancelled"),
            ("", "sql>"), ("\x03", "sql>"), ("/sch\t", "/schema"), ("\r", "items(name, price)"), ("", "sql>"), ("\x04", ""),
        ]:  # fmt: skip
            os.write(leader, typed.encode())
            expect(told)
        assert running.wait(20) == 0
    finally:
        running.kill()
        running.wait()
        os.close(leader)
    assert "+names?" in (home / "history").read_text()
