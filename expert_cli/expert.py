"""Ask an expert: question -> linked schema -> prompt -> constrained candidates -> check -> run -> answer.

from expert_cli import load

answer = load("sql").ask("How many orders were shipped?", db="shop.sqlite")
print(answer.sql, answer.rows)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import cached_property
from math import exp
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Protocol

from expert_cli.answer import (
    Answer,
    Answered,
    Candidate,
    Draft,
    Event,
    Identity,
    Linked,
    Read,
    Timings,
    Written,
)
from expert_cli.conversation import Template, render
from expert_cli.errors import NoAnswerError, UsageError
from expert_cli.manifest import Decoding
from expert_cli.task import Binding, Context, Limits, Question, Task
from expert_cli.trial import Trial

PREFER_ROWS = 5
"""Candidates looked at after one without rows: on Spider train, a first one without rows was wrong 38 times in 41."""


class Writer(Protocol):
    """A base, its adapter and its grammar behind one call."""

    surface: str
    template: Template

    def write(
        self, prompt: str, binding: Binding, *, width: int, max_tokens: int
    ) -> Generator[Read | Written, None, list[Draft]]:
        """Yield :class:`Read`, then progress; return at most ``width`` drafts, the most probable first.

        Raises:
            ContextError: the prompt does not fit the base's context.
        """
        ...


class Expert:
    """An expert that is ready to answer. The model is loaded with the first question, or by :meth:`warm`.

    The first candidate that runs wins, except that one without rows gives way to the first of the next
    ``prefer_rows`` candidates that has some; 0 turns that off.
    """

    def __init__(
        self,
        task: Task,
        identity: Identity,
        writer: Callable[[], Writer],
        decoding: Decoding,
        prefer_rows: int = PREFER_ROWS,
    ) -> None:
        self.task = task
        self.identity = identity
        self.decoding = decoding
        self.prefer_rows = prefer_rows
        self._open_writer = writer

    @cached_property
    def writer(self) -> Writer:
        """The loaded model."""
        return self._open_writer()

    def warm(self) -> None:
        """Load the model now."""
        _ = self.writer

    def open(self, db: str | Path | None = None, *, schema: str | Path | None = None, dialect: str = "") -> Session:
        """Open a database, or a ``schema`` file where there is none, for several questions.

        Raises:
            UsageError: neither or both are given.
            ContextError: it cannot be opened.
        """
        if (db is None) == (schema is None):
            raise UsageError("give either a database (db, --db) or a schema file (schema, --schema)")
        target = db if db is not None else schema
        assert target is not None
        return Session(self, self.task.open(target, dialect=dialect), dialect=dialect, runs=db is not None)

    def ask(
        self,
        question: str,
        db: str | Path | None = None,
        *,
        schema: str | Path | None = None,
        dialect: str = "",
        evidence: str = "",
        run: bool = True,
        limits: Limits | None = None,
    ) -> Answer:
        """Answer one question. ``evidence`` is a hint on what its words mean; ``run=False`` only writes the query.

        Raises:
            UsageError: neither or both of ``db`` and ``schema`` are given.
            ContextError: the database, schema or question cannot be used.
            NoAnswerError: no candidate passed its checks.
        """
        with self.open(db, schema=schema, dialect=dialect) as session:
            return session.ask(question, evidence=evidence, run=run, limits=limits)

    def stream(
        self,
        question: str,
        db: str | Path | None = None,
        *,
        schema: str | Path | None = None,
        dialect: str = "",
        evidence: str = "",
        run: bool = True,
        limits: Limits | None = None,
    ) -> Iterator[Event]:
        """Answer one question step by step; the last event is :class:`Answered`. Raises what :meth:`ask` raises."""
        with self.open(db, schema=schema, dialect=dialect) as session:
            yield from session.stream(question, evidence=evidence, run=run, limits=limits)


class Session:
    """An opened database and the expert that asks it; keeps both warm between questions."""

    def __init__(self, expert: Expert, context: Context, *, dialect: str, runs: bool) -> None:
        self.expert = expert
        self.context = context
        self.dialect = dialect
        self.runs = runs

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self.context.close()

    def ask(self, question: str, *, evidence: str = "", run: bool = True, limits: Limits | None = None) -> Answer:
        """Answer one question; see :meth:`Expert.ask`."""
        for event in self.stream(question, evidence=evidence, run=run, limits=limits):
            if isinstance(event, Answered):
                return event.answer
        raise AssertionError("a stream ends with an answer or an error")

    def stream(
        self, question: str, *, evidence: str = "", run: bool = True, limits: Limits | None = None
    ) -> Iterator[Event]:
        """Answer one question step by step; see :meth:`Expert.stream`."""
        start = perf_counter()
        text = _line(question)
        writer, decoding = self.expert.writer, self.expert.decoding
        loaded = perf_counter()
        linked = self.context.question(text, surface=writer.surface, evidence=evidence)
        prompt = render(linked.messages(), writer.template)
        yield Linked(prompt)
        began = perf_counter()
        steps = writer.write(prompt, linked.binding(), width=decoding.candidates, max_tokens=decoding.max_tokens)
        yield next(steps)
        read = perf_counter()
        drafts = _charged((yield from steps), linked)
        written = perf_counter()
        trial = Trial(self.context, linked, limits or Limits(), run and self.runs)
        yield from trial.choose(drafts, self.expert.prefer_rows)
        timings = Timings(
            link=1e3 * (began - loaded),
            prompt=1e3 * (read - began),
            decode=1e3 * (written - read),
            check=trial.check_ms,
            run=trial.run_ms,
            total=1e3 * (perf_counter() - start),
        )
        yield Answered(self._answer(text, trial, timings))

    def _answer(self, question: str, trial: Trial, timings: Timings) -> Answer:
        chosen, candidates = trial.chosen, trial.candidates
        if chosen is None:
            raise NoAnswerError(_failure(candidates))
        checked, result = trial.passed[chosen]
        return Answer(
            question=question,
            sql=checked.output,
            columns=result.columns if result else (),
            rows=result.rows if result else (),
            truncated=result.truncated if result else False,
            ran=result is not None,
            timings=timings,
            candidates=tuple(candidates),
            chosen=chosen,
            confidence=exp(candidates[chosen].logprob),
            dialect=self.dialect,
            expert=self.expert.identity,
            tokens=candidates[chosen].tokens,
            checked=checked,
        )


def _charged(drafts: list[Draft], linked: Question) -> list[Draft]:
    """The drafts with what they make up taken off, the most probable first."""
    charged = [replace(draft, logprob=draft.logprob - linked.surcharge(draft.text)) for draft in drafts]
    return sorted(charged, key=lambda draft: -draft.logprob)


def _line(text: str) -> str:
    """``text`` on one line, without what no tokenizer reads: NUL, and surrogates that stand for invalid bytes."""
    return " ".join(text.encode("utf-8", "replace").decode().replace("\0", " ").split())


def _failure(candidates: list[Candidate]) -> str:
    if not candidates:
        return "no candidate came to an end within the token limit; ask a shorter question"
    first = candidates[0]
    shown = f"\n  {first.sql}" if first.sql else ""
    return (
        f"none of {len(candidates)} candidates passed its checks; the most probable one: {first.error}{shown}\n"
        "name the table or column that you mean, or raise --candidates"
    )
