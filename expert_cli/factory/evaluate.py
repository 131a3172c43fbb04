"""Answer a file of cases exactly as chat would, and score the answers by execution.

A case is one JSON line: ``id``, ``question``, ``db`` (a path relative to the file, or absolute), and optionally
``gold`` (a query or a list of acceptable ones), ``dialect``, ``evidence``, ``hardness``. Written are
``predictions.jsonl`` in input order, ``report.json`` and ``report.md``. What is answered is kept in
``unfinished.jsonl`` until the last case, so that a killed evaluation resumes.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from expert_cli.answer import Answered, Tried
from expert_cli.errors import ContextError, ExpertError, GrammarError, NoAnswerError, UsageError
from expert_cli.expert import Expert, Session
from expert_cli.factory.journal import Journal
from expert_cli.factory.report import Outcome, summary
from expert_cli.task import Case, Limits

OPEN_DATABASES = 4
"""Sessions that a worker keeps open; cases of one database usually stand together."""


@dataclass(frozen=True)
class Plan:
    """What an evaluation does; its digest decides whether an unfinished one may be resumed."""

    expert: dict[str, Any]
    decoding: dict[str, Any]
    limits: dict[str, Any]
    cases_sha256: str
    limit: int | None

    @property
    def digest(self) -> str:
        """The sha256 of all that the predictions depend on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def evaluate(
    opened: Callable[[], Expert],
    cases: Sequence[Case],
    out: Path,
    *,
    limit: int | None = None,
    jobs: int = 1,
    limits: Limits | None = None,
    told: Callable[[int, str], None] = lambda done, word: None,
) -> dict[str, Any]:
    """Answer the first ``limit`` of ``cases`` and return the report that it writes to ``out``.

    ``opened`` makes the expert, once for every worker process; with ``jobs`` above 1 it must be picklable, such as
    ``functools.partial(load, "sql")``. ``told`` hears how many are done and the accuracy so far.

    Raises:
        UsageError: ``out`` holds an unfinished evaluation of something else.
        ExpertError: ``out`` cannot be written, or a worker process died.
        BaseModelError: the expert cannot be loaded.
    """
    expert = opened()
    limits = limits or Limits()
    found = cases[:limit]
    plan = Plan(
        expert=asdict(expert.identity),
        decoding=asdict(expert.decoding),
        limits=asdict(limits),
        cases_sha256=hashlib.sha256(json.dumps([asdict(case) for case in cases]).encode()).hexdigest(),
        limit=limit,
    )
    journal = Journal(out, plan.digest)
    outcomes, resumed = journal.outcomes, len(journal.outcomes)
    began = perf_counter()
    try:
        for outcome in _answers(opened if jobs > 1 else lambda: expert, found[resumed:], limits, jobs):
            journal.append(outcome)
            told(len(outcomes), _so_far(outcomes))
    finally:
        journal.close()
    report = {"format": 1, "digest": plan.digest, **asdict(plan)} | summary(found, outcomes)
    report |= {"seconds": round(perf_counter() - began, 1), "resumed": resumed}
    journal.reveal(report)
    return report


def read_cases(path: Path) -> list[Case]:
    """The cases of a JSONL file, databases resolved against its folder.

    Raises:
        UsageError: the file cannot be read or lines have faults; all of them are named.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageError(f"cannot read the cases in {path}: {problem}; give a UTF-8 JSONL file") from problem
    faults: list[str] = []
    cases: dict[str, Case] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        case = _case(line, path.parent)
        if isinstance(case, str):
            faults.append(f"line {number}: {case}")
        elif case.id in cases:
            faults.append(f"line {number}: id {case.id!r} is taken")
        else:
            cases[case.id] = case
    if not faults and not cases:
        faults.append("no case in it")
    if faults:
        raise UsageError(f"{path}: correct these and run again\n" + "\n".join(f"  - {fault}" for fault in faults))
    return list(cases.values())


def _case(line: str, folder: Path) -> Case | str:
    """A case, or what is wrong with it."""
    try:
        data = json.loads(line)
    except ValueError as problem:
        return f"not JSON ({problem})"
    if not isinstance(data, dict):
        return "not an object"
    gold = data.get("gold", [])
    gold = [gold] if isinstance(gold, str) else gold
    wrong = [key for key in ("question", "db") if not isinstance(data.get(key), str)]
    wrong += [key for key in ("dialect", "evidence") if not isinstance(data.get(key) or "", str)]
    if not isinstance(data.get("id"), str | int):
        wrong.append("id")
    if not (isinstance(gold, list) and all(isinstance(query, str) for query in gold)):
        wrong.append("gold")
    if wrong:
        return f"missing or of the wrong type: {', '.join(wrong)}"
    db = data["db"] if "://" in data["db"] else str(folder / data["db"])
    extra = {"hardness": str(data["hardness"])} if data.get("hardness") else {}
    return Case(str(data["id"]), data["question"], db, tuple(gold), data.get("dialect") or "",
                data.get("evidence") or "", extra)  # fmt: skip


class Examiner:
    """Puts cases to one expert, keeping the last few databases open."""

    def __init__(self, expert: Expert, limits: Limits) -> None:
        self.expert, self.limits = expert, limits
        self._sessions: OrderedDict[tuple[str, str], Session] = OrderedDict()

    def take(self, case: Case) -> Outcome:
        """Answer and score one case. A fault of the case or its database is an outcome; one of the model is raised."""
        self.expert.warm()
        began = perf_counter()
        tried: list[str] = []
        try:
            session = self._session(case)
            for event in session.stream(case.question, evidence=case.evidence, limits=self.limits):
                if isinstance(event, Tried):
                    tried.append(event.candidate.status)
                elif isinstance(event, Answered):
                    return self._scored(case, session, event, tuple(tried))
        except (ContextError, GrammarError, NoAnswerError) as problem:
            return Outcome(
                id=case.id,
                status="unanswered" if isinstance(problem, NoAnswerError) else "error",
                ms=1e3 * (perf_counter() - began),
                error=str(problem),
                correct=False if case.gold else None,
                tried=tuple(tried),
            )
        raise AssertionError("a stream ends with an answer or an error")

    def close(self) -> None:
        """Let go of every database."""
        while self._sessions:
            self._sessions.popitem()[1].close()

    def _session(self, case: Case) -> Session:
        key = case.target, case.dialect
        if key not in self._sessions:
            opened = self.expert.open(case.target, dialect=case.dialect)
            while len(self._sessions) >= OPEN_DATABASES:
                self._sessions.popitem(last=False)[1].close()
            self._sessions[key] = opened
        self._sessions.move_to_end(key)
        return self._sessions[key]

    def _scored(self, case: Case, session: Session, event: Answered, tried: tuple[str, ...]) -> Outcome:
        found = event.answer
        correct, reason = None, ""
        if case.gold:
            try:
                score = self.expert.task.score(session.context, found.checked, case.gold)
                correct, reason = score.correct, score.reason
            except ExpertError as problem:
                reason = f"not scored: {problem}"
        return Outcome(
            id=case.id,
            status="ok",
            ms=found.timings.total,
            sql=found.sql,
            tokens=found.tokens,
            correct=correct,
            reason=reason,
            empty=not found.rows,
            confidence=found.confidence,
            tried=tried,
        )


def _answers(opened: Callable[[], Expert], cases: Sequence[Case], limits: Limits, jobs: int) -> Iterator[Outcome]:
    if jobs <= 1 or len(cases) <= 1:
        examiner = Examiner(opened(), limits)
        try:
            yield from map(examiner.take, cases)
        finally:
            examiner.close()
        return
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(cases)), start, _start_worker, (opened, limits)) as pool:
        try:
            yield from pool.map(_take, cases)
        except BrokenProcessPool as problem:
            raise ExpertError("a worker process died, perhaps for want of memory; run again to resume") from problem


_worker: tuple[Callable[[], Expert], Limits] | Examiner


def _start_worker(opened: Callable[[], Expert], limits: Limits) -> None:
    global _worker
    _worker = opened, limits
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _take(case: Case) -> Outcome:
    global _worker
    if not isinstance(_worker, Examiner):  # here and not at the start, so that its errors reach the parent
        opened, limits = _worker
        _worker = Examiner(opened(), limits)
    return _worker.take(case)


def _so_far(outcomes: Sequence[Outcome]) -> str:
    scored = [outcome.correct for outcome in outcomes if outcome.correct is not None]
    return f"EX {sum(scored) / len(scored):.3f}" if scored else ""
