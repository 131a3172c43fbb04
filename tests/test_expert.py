"""The flow from a question to an answer, over real SQLite with scripted candidates."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from fakes import FakeContext, FakeTask, expert, shop

from expert_cli import answer as kinds
from expert_cli.answer import Answered, Draft, Linked, Read, Tried, Written
from expert_cli.cli.turn import story
from expert_cli.errors import ContextError, NoAnswerError, UsageError
from expert_cli.task import Limits

NAMES = "SELECT name FROM items ORDER BY price DESC"
NONE = "SELECT name FROM items WHERE price > 99"
DOUBTFUL = "SELECT name AS doubtful FROM items"
NULL = "SELECT MAX(price) FROM items WHERE price > 99"
WRONG = "SELECT colour FROM items"
FAILS = "SELECT abs(-9223372036854775807 - 1) FROM items"

POLICY = [
    # candidates, prefer_rows, chosen, statuses
    ([NAMES], 2, 0, ["ok"]),
    ([WRONG, NAMES], 2, 1, ["rejected", "ok"]),
    ([FAILS, NAMES, WRONG], 2, 1, ["failed", "ok", "untried"]),
    ([NONE, NAMES], 2, 1, ["empty", "ok"]),
    ([NONE, NAMES], 0, 0, ["empty", "untried"]),
    ([NULL, NAMES], 2, 1, ["empty", "ok"]),
    ([NONE, WRONG, WRONG, NAMES], 2, 0, ["empty", "rejected", "rejected", "untried"]),
    ([NONE, WRONG, WRONG, NAMES], 3, 3, ["empty", "rejected", "rejected", "ok"]),
    ([DOUBTFUL, NAMES], 2, 1, ["doubted", "ok"]),
    ([DOUBTFUL, NAMES], 0, 0, ["doubted", "untried"]),
    ([DOUBTFUL, NONE, WRONG, NAMES], 3, 3, ["doubted", "empty", "rejected", "ok"]),
    ([DOUBTFUL, NONE, WRONG, NAMES], 2, 1, ["doubted", "empty", "rejected", "untried"]),
    ([DOUBTFUL, NONE], 2, 1, ["doubted", "empty"]),
    ([NONE, DOUBTFUL, WRONG], 2, 0, ["empty", "doubted", "rejected"]),
    ([WRONG, DOUBTFUL, DOUBTFUL], 2, 1, ["rejected", "doubted", "doubted"]),
    ([WRONG, NONE, NULL], 2, 1, ["rejected", "empty", "empty"]),
    ([Draft("SELECT name, name, ", -0.1, 160, finished=False), NAMES], 2, 1, ["unfinished", "ok"]),
]


@pytest.mark.parametrize(("candidates", "prefer_rows", "chosen", "statuses"), POLICY)
def test_which_candidate_wins(
    tmp_path: Path, candidates: list[str | Draft], prefer_rows: int, chosen: int, statuses: list[str]
) -> None:
    found = expert({"?": candidates}, prefer_rows=prefer_rows).ask("which?", shop(tmp_path))
    assert (found.chosen, [candidate.status for candidate in found.candidates]) == (chosen, statuses)
    assert found.sql == f"{candidates[chosen]};"


def test_what_is_made_up_costs(tmp_path: Path) -> None:
    made_up = "SELECT name FROM items WHERE name != 'made up'"
    found = expert({"?": [made_up, NAMES]}).ask("which?", shop(tmp_path))
    assert [candidate.text for candidate in found.candidates] == [NAMES, made_up]
    assert [candidate.logprob for candidate in found.candidates] == [-2.0, -3.0]
    assert found.confidence == pytest.approx(math.exp(-2.0))


def test_no_candidate_passes(tmp_path: Path) -> None:
    with pytest.raises(NoAnswerError, match=r"none of 2 candidates.*no such column: colour"):
        expert({"?": [WRONG, FAILS]}).ask("which?", shop(tmp_path))
    with pytest.raises(NoAnswerError, match="came to an end"):
        expert({}).ask("which?", shop(tmp_path))


def test_doubt_is_told(tmp_path: Path) -> None:
    found = expert({"?": [DOUBTFUL]}).ask("which?", shop(tmp_path), dialect="postgres")
    assert (found.ran, found.candidates[0].status, found.candidates[0].error) == (True, "doubted", "nobody knows")
    assert "postgres may refuse it: nobody knows" in story(found)
    assert "refuse" not in story(expert({"?": [NAMES]}).ask("which?", shop(tmp_path)))


@pytest.mark.parametrize("target", [{"schema": "shop.sql"}, {"db": "shop.sqlite", "run": False}])
def test_without_running_the_first_that_checks_wins(tmp_path: Path, target: dict[str, object]) -> None:
    shop(tmp_path)
    target = {key: tmp_path / value if isinstance(value, str) else value for key, value in target.items()}
    found = expert({"?": [WRONG, FAILS, NAMES]}).ask("which?", **target)  # type: ignore[arg-type]
    assert (found.sql, found.ran, found.rows, found.chosen) == (FAILS + ";", False, (), 1)


def test_the_stream_tells_the_steps_in_order(tmp_path: Path) -> None:
    events = list(expert({"?": [WRONG, NAMES]}).stream("which?", shop(tmp_path)))
    assert [type(event) for event in events] == [Linked, Read, Written, Tried, Tried, Answered]
    assert events[0] == Linked("<s><q>which?<a>")
    last = events[-1]
    assert isinstance(last, Answered)
    assert last.answer.rows == (("ink",), ("pen",), ("nib\x1b[31m",))


def test_rows_are_limited_and_it_shows(tmp_path: Path) -> None:
    found = expert({"?": [NAMES]}).ask("which?", shop(tmp_path), limits=Limits(rows=2))
    assert (len(found.rows), found.truncated) == (2, True)


def test_json_is_the_answer(tmp_path: Path) -> None:
    query = "SELECT name, price, x'00ff', 9e999 FROM items WHERE price IS NULL"
    found = expert({"?": [Draft(query, math.log(0.6), 9), Draft(NAMES, math.log(0.2), 5)]}).ask(
        "  which\none? ", shop(tmp_path)
    )
    data = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert data["question"] == "which one?"
    assert data["rows"] == [["nib\x1b[31m", None, {"hex": "00ff"}, "inf"]]
    assert (data["sql"], data["columns"][0], data["tokens"], data["confidence"]) == (query + ";", "name", 9, 0.6)
    assert data["timings"].keys() == {"link", "prompt", "decode", "check", "run", "total"}
    assert data["candidates"][1] == {
        "text": NAMES,
        "logprob": math.log(0.2),
        "tokens": 5,
        "status": "untried",
        "sql": None,
        "error": "",
    }
    assert (data["expert"]["name"], data["expert"]["digest"], data["base"]) == ("sql", "d" * 64, "tiny")


@pytest.mark.parametrize(
    ("question", "read"),
    [("a\tb\n c ", "a b c"), ("nul\0 here", "nul here"), ("bad \udcff byte", "bad ? byte")],
)
def test_a_question_is_one_line_that_a_tokenizer_reads(tmp_path: Path, question: str, read: str) -> None:
    assert expert({"": [NAMES]}).ask(question, shop(tmp_path)).question == read


def test_what_the_task_refuses_is_not_a_candidates_fault(tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="empty"):
        expert({"": [NAMES]}).ask(" \n ", shop(tmp_path))


@pytest.mark.parametrize("target", [{}, {"db": "a.sqlite", "schema": "a.sql"}])
def test_one_target_and_only_one(target: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="either a database"):
        expert({}).ask("which?", **target)  # type: ignore[arg-type]


def test_a_database_that_cannot_be_read_ends_the_trial(tmp_path: Path) -> None:
    with expert({"?": [NAMES, NAMES]}).open(shop(tmp_path)) as session:
        assert isinstance(session.context, FakeContext)
        session.context.locked = True
        with pytest.raises(ContextError, match="locked"):
            session.ask("which?")


@pytest.mark.parametrize("how", ["ask", "stream"])
def test_a_single_question_closes_its_database(tmp_path: Path, how: str) -> None:
    asked = expert({"?": [NAMES]})
    found = getattr(asked, how)("which?", shop(tmp_path))
    assert found if how == "ask" else list(found)
    assert isinstance(asked.task, FakeTask)
    assert asked.task.opened.closed


def test_a_session_loads_the_model_once_and_closes_its_database(tmp_path: Path) -> None:
    asked = expert({"first": [NAMES], "second": [NONE]})
    with asked.open(shop(tmp_path)) as session:
        writer = asked.writer
        assert [session.ask(q).rows for q in ("the first?", "the second?")][1] == ()
        assert asked.writer is writer
        assert len(writer.asked) == 2  # type: ignore[attr-defined]
    assert isinstance(asked.task, FakeTask)
    assert asked.task.opened.closed


def test_the_database_is_opened_before_the_model(tmp_path: Path) -> None:
    asked = expert({"": [NAMES]})
    with pytest.raises(ContextError, match="does not exist"):
        asked.ask("which?", tmp_path / "missing.sqlite")
    assert "writer" not in vars(asked)


def test_status_words_are_what_the_docs_say() -> None:
    words = [kinds.UNFINISHED, kinds.REJECTED, kinds.FAILED, kinds.EMPTY, kinds.DOUBTED, kinds.OK, kinds.UNTRIED]
    assert words == ["unfinished", "rejected", "failed", "empty", "doubted", "ok", "untried"]


def test_importing_the_library_loads_nothing_heavy() -> None:
    heavy = {"torch", "llama_cpp", "llguidance", "sqlglot", "cryptography", "rich", "numpy", "jsonschema"}
    code = "import sys, expert_cli; from expert_cli import load; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
