"""Both halves meet: a random base, a random DoRA adapter, the SQL plugin, its grammar, llama.cpp and SQLite.

Nothing is scripted here, so an answer makes no sense; but every one must parse, name what exists and execute.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import shop

from expert_cli import loading
from expert_cli.cli import main
from expert_cli.errors import BaseModelError, ContextError
from expert_cli.factory.evaluate import evaluate
from expert_cli.loading import Parts, load
from expert_cli.task import Case

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

QUESTIONS = [
    "How many items are there?",
    "Which item has the highest price?",
    "names of items",
    "wie viele?",
    "who are you?",
]


def test_every_answer_executes(parts: Parts, tmp_path: Path) -> None:
    expert = load(parts, threads=1)
    with expert.open(shop(tmp_path)) as session:
        for question in QUESTIONS:
            found = session.ask(question)
            assert found.ran
            assert found.candidates[0].status in ("ok", "empty"), found.candidates[0]
            assert found.sql.startswith("SELECT")


def test_the_adapter_and_the_grammar_take_part(parts: Parts, tmp_path: Path) -> None:
    def drafts(**options: bool) -> list[str]:
        expert = load(parts, threads=1, candidates=2, **options)
        with expert.open(shop(tmp_path)) as session:
            linked = session.context.question(QUESTIONS[0], surface="pointers")
            writing = expert.writer.write("<s><q>x<sql>", linked.binding(), width=2, max_tokens=12)
            while True:
                try:
                    next(writing)
                except StopIteration as end:
                    return [draft.text for draft in end.value]

    plain = drafts()
    assert plain != drafts(adapter=False)
    assert all(text.startswith("FROM<t") for text in plain)
    free = drafts(grammar=False)
    assert free != plain
    assert not any(text.startswith("FROM<t") for text in free)


def test_both_backends_write_the_same(parts: Parts, tmp_path: Path) -> None:
    found = []
    for backend in loading.BACKENDS:
        expert = load(parts, backend=backend, candidates=1, threads=1)
        with expert.open(shop(tmp_path)) as session:
            found.append([session.ask(question).candidates[0].text for question in QUESTIONS[:3]])
    agreed = sum(a == b for a, b in zip(*found, strict=True))
    assert agreed >= 2, found  # one is quantised to 8 bits, the other is not


def test_an_adapter_of_another_base_is_refused(parts: Parts, tmp_path: Path) -> None:
    other = replace(parts, base_sha256="0" * 64)
    for backend in loading.BACKENDS:
        with pytest.raises(BaseModelError, match="trained on base"):
            load(other, backend=backend).ask("names?", shop(tmp_path))


def test_a_question_that_does_not_fit_the_context(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(ContextError, match="ask a shorter question"):
        load(parts, threads=1).ask("why " * 400, shop(tmp_path))


def test_a_checkpoint_is_evaluated(parts: Parts, tmp_path: Path) -> None:
    db = str(shop(tmp_path))
    cases = [Case(str(i), question, db, ("SELECT count(*) FROM items",)) for i, question in enumerate(QUESTIONS)]
    report = evaluate(lambda: load(parts, threads=1), cases, tmp_path / "out")
    assert (report["answered"], report["checked"], report["scored"]) == (1.0, 1.0, len(QUESTIONS))


def test_chat(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(name: str, **options: Any) -> Any:
        return load(parts, threads=1)

    monkeypatch.setattr(loading, "load", opened)
    done = CliRunner().invoke(
        main, ["chat", "--db", f"sqlite:///{shop(tmp_path)}", "--dialect", "postgres", "--json", "-p", QUESTIONS[0]],
        catch_exceptions=False,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert (found["dialect"], found["base"], found["ran"]) == ("postgres", "tiny", True)
