"""Evaluation: figures against hand-made outcomes, order, resume after a kill, refusals. Real SQLite, scripted answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import expert, shop

from expert_cli import loading
from expert_cli.cli import main
from expert_cli.errors import ExpertError, UsageError
from expert_cli.expert import Expert
from expert_cli.factory.evaluate import evaluate, read_cases
from expert_cli.factory.journal import UNFINISHED
from expert_cli.factory.report import Outcome, summary
from expert_cli.task import Case

HERE = Path(__file__).parent
DEAR = "SELECT name FROM items WHERE price > 4"
NONE = "SELECT name FROM items WHERE price > 99"
SCRIPT = {
    "right": [DEAR],
    "second": ["SELECT colour FROM items", DEAR],
    "wrong": ["SELECT price FROM items"],
    "nothing": [NONE],
    "stuck": ["SELECT colour FROM items"],
    "slow": [DEAR],
}
CASES = [
    {"id": "a", "question": "right?", "db": "shop.sqlite", "gold": DEAR, "hardness": "easy"},
    {"id": 2, "question": "second?", "db": "shop.sqlite", "gold": ["SELECT 1", DEAR], "hardness": "easy"},
    {"id": "c", "question": "wrong?", "db": "shop.sqlite", "gold": DEAR, "hardness": "hard"},
    {"id": "d", "question": "nothing?", "db": "shop.sqlite", "gold": NONE},
    {"id": "e", "question": "stuck?", "db": "shop.sqlite", "gold": DEAR},
    {"id": "f", "question": "right?", "db": "missing.sqlite", "gold": DEAR},
    {"id": "g", "question": "", "db": "shop.sqlite"},
    {"id": "h", "question": "right?", "db": "shop.sqlite", "gold": "SELECT nonsense"},
    {"id": "j", "question": "nothing?", "db": "shop.sqlite", "gold": DEAR},
    {"id": "i", "question": "right? with \u2028 in it", "db": "shop.sqlite"},
]


def scripted(pause: float = 0.0, **identity: Any) -> Expert:
    return expert(SCRIPT, pause=pause, **identity)


def written(folder: Path, cases: list[dict[str, Any]] | None = None) -> Path:
    shop(folder)
    path = folder / "cases.jsonl"
    lines = [json.dumps(case, ensure_ascii=False) for case in cases or CASES]
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return path


def predictions(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("jobs", [1, 2])
def test_predictions_and_report(tmp_path: Path, jobs: int) -> None:
    out = tmp_path / "out"
    report = evaluate(scripted, read_cases(written(tmp_path)), out, jobs=jobs)
    found = predictions(out)
    assert [line["id"] for line in found] == ["a", "2", "c", "d", "e", "f", "g", "h", "j", "i"]
    assert [line["status"] for line in found] == ["ok"] * 4 + ["unanswered", "error", "error", "ok", "ok", "ok"]
    assert all(list(line) == ["id", "sql", "status", "ms", "tokens", "error"] for line in found)
    assert (found[1]["sql"], found[1]["tokens"], found[4]["sql"]) == (DEAR + ";", 8, None)
    assert ("no such column" in found[4]["error"], "missing.sqlite" in found[5]["error"]) == (True, True)
    assert report == json.loads((out / "report.json").read_text())
    assert (report["scored"], report["correct"], report["both_empty"]) == (7, 3, 1)
    assert report["accuracy"] == pytest.approx(3 / 7, abs=1e-4)
    assert report["by_hardness"] == {"easy": {"cases": 2, "accuracy": 1.0}, "hard": {"cases": 1, "accuracy": 0.0}}
    assert report["status"] == {"ok": 7, "unanswered": 1, "error": 2}
    assert report["first"] == {"checked": pytest.approx(6 / 8, abs=1e-4), "executed": pytest.approx(6 / 8, abs=1e-4)}
    assert "| execution accuracy | 0.429 (3 of 7) |" in (out / "report.md").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["predictions.jsonl", "report.json", "report.md"]


def test_limit_and_progress(tmp_path: Path) -> None:
    told: list[tuple[int, str]] = []
    evaluate(
        scripted,
        read_cases(written(tmp_path)),
        tmp_path / "out",
        limit=3,
        told=lambda done, word: told.append((done, word)),
    )
    assert [line["id"] for line in predictions(tmp_path / "out")] == ["a", "2", "c"]
    assert told == [(1, "EX 1.000"), (2, "EX 1.000"), (3, "EX 0.667")]


def killed(tmp_path: Path, done: int) -> Path:
    """The folder of an evaluation that was killed with SIGKILL once ``done`` cases were answered."""
    out = tmp_path / "out"
    code = "import sys; from functools import partial; from pathlib import Path; from test_eval import scripted; "
    code += "from expert_cli.factory.evaluate import evaluate, read_cases; "
    code += "evaluate(partial(scripted, 0.1), read_cases(Path(sys.argv[1])), Path(sys.argv[2]))"
    running = subprocess.Popen([sys.executable, "-c", code, str(written(tmp_path)), str(out)], cwd=HERE)
    until = time.monotonic() + 20
    while not ((out / UNFINISHED).exists() and (out / UNFINISHED).read_bytes().count(b"\n") > done):
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    running.kill()
    running.wait()
    assert not (out / "predictions.jsonl").exists()
    return out


def test_a_killed_evaluation_resumes(tmp_path: Path) -> None:
    out = killed(tmp_path, 3)
    kept = (out / UNFINISHED).read_bytes()
    with (out / UNFINISHED).open("ab") as file:
        file.write(b'{"id": "e", "status": "o')  # the line that the kill cut
    with pytest.raises(RuntimeError, match="stop"):  # and a second time, just after it went on
        evaluate(scripted, read_cases(tmp_path / "cases.jsonl"), out, told=stop)
    report = evaluate(scripted, read_cases(tmp_path / "cases.jsonl"), out)
    assert report["resumed"] == kept.count(b"\n") >= 4
    fresh = evaluate(scripted, read_cases(tmp_path / "cases.jsonl"), tmp_path / "fresh")
    timeless = [[{**line, "ms": 0} for line in predictions(folder)] for folder in (out, tmp_path / "fresh")]
    assert timeless[0] == timeless[1]
    assert [report[key] for key in ("accuracy", "digest", "both_empty")] == [
        fresh[key] for key in ("accuracy", "digest", "both_empty")
    ]


def other_candidates() -> Expert:
    return expert(SCRIPT, candidates=2)


@pytest.mark.parametrize(
    ("opened", "limit", "change"),
    [
        (partial(scripted, digest="e" * 64), None, ""),
        (partial(scripted, adapter=False), None, ""),
        (partial(scripted, grammar=False), None, ""),
        (other_candidates, None, ""),
        (scripted, 8, ""),
        (scripted, None, '{"id": "z", "question": "right?", "db": "shop.sqlite"}'),
    ],
)
def test_another_evaluation_does_not_resume(
    tmp_path: Path, opened: Callable[[], Expert], limit: int | None, change: str
) -> None:
    path = written(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(RuntimeError, match="stop"):
        evaluate(scripted, read_cases(path), out, told=stop)
    path.write_text(path.read_text() + change)
    with pytest.raises(UsageError, match="belongs to another expert, cases or options"):
        evaluate(opened, read_cases(path), out, limit=limit)


def stop(done: int, word: str) -> None:
    raise RuntimeError("stop")


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are POSIX")
def test_workers_do_not_outlive_their_parent(tmp_path: Path) -> None:
    code = "import sys; from functools import partial; from pathlib import Path; from test_eval import scripted; "
    code += "from expert_cli.factory.evaluate import evaluate, read_cases; "
    code += "evaluate(partial(scripted, 0.2), read_cases(Path(sys.argv[1])), Path(sys.argv[2]), jobs=2)"
    command = [
        sys.executable,
        "-c",
        f"if __name__ == '__main__':\n    {code}",
        str(written(tmp_path)),
        str(tmp_path / "out"),
    ]
    running = subprocess.Popen(command, cwd=HERE, start_new_session=True)
    until = time.monotonic() + 20
    while not (
        (tmp_path / "out" / UNFINISHED).exists() and (tmp_path / "out" / UNFINISHED).read_bytes().count(b"\n") > 1
    ):
        assert running.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    group = os.getpgid(running.pid)
    running.kill()
    running.wait()
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("workers still run")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    cases = read_cases(written(tmp_path))
    with pytest.raises(ExpertError, match="cannot write to"):
        evaluate(scripted, cases, tmp_path / "cases.jsonl" / "out")


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["no case"]),
        ('{"id": 1', ["line 1: not JSON"]),
        ('[]\n{"id": "a", "question": "q", "db": "d"}\n{"id": "a", "question": "q", "db": "d"}', ["line 1: not an", "line 3: id 'a'"]),
        ('{"question": "q", "gold": 3}', ["db, id, gold"]),
        ('{"id": 1, "question": "q", "db": "d", "gold": ["x", 1], "dialect": 3}', ["dialect, gold"]),
    ],
)  # fmt: skip
def test_every_fault_of_the_cases_is_named(tmp_path: Path, text: str, faults: list[str]) -> None:
    (tmp_path / "cases.jsonl").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_cases(tmp_path / "cases.jsonl")
    assert [fault for fault in faults if fault not in str(caught.value)] == []


def test_databases_are_found_from_the_file(tmp_path: Path) -> None:
    rows = [{"id": i, "question": "q", "db": db} for i, db in enumerate(["a.db", "/b/a.db", "sqlite:///a.db"])]
    targets = [case.target for case in read_cases(written(tmp_path, rows))]
    assert targets == [str(tmp_path / "a.db"), "/b/a.db", "sqlite:///a.db"]


def test_figures_of_no_outcome_at_all() -> None:
    found = summary([Case("a", "q", "d")], [Outcome("a", "error", 1.0)])
    assert (found["accuracy"], found["checked"], found["ms"], found["scored"]) == (None, None, {}, 0)


def test_latency_percentiles() -> None:
    outcomes = [Outcome(str(ms), "ok", float(ms)) for ms in range(100, 0, -1)]
    found = summary([Case(outcome.id, "", "") for outcome in outcomes], outcomes)["ms"]
    assert found == {"p50": 51.0, "p90": 91.0, "p99": 100.0, "mean": 50.5, "max": 100.0}


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def load(name: str, **options: Any) -> Expert:
        asked.update(options, name=name)
        return scripted(adapter=options["adapter"])

    monkeypatch.setattr(loading, "load", load)
    out = tmp_path / "out"
    command = [
        "eval",
        "--cases",
        str(written(tmp_path)),
        "--out",
        str(out),
        "--limit",
        "2",
        "--base-only",
        "--no-grammar",
    ]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout == (out / "report.md").read_text()
    assert "adapter off" in done.stdout
    assert (asked["name"], asked["adapter"], asked["grammar"]) == ("sql", False, False)
    assert "2 of 2" in done.stderr
