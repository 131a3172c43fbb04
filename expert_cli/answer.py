"""What asking an expert gives: the answer, its candidates, and the events of a stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from expert_cli.task import Checked

# What became of a candidate, in the order in which it can fail.
UNFINISHED = "unfinished"  # the token limit came before the end mark
REJECTED = "rejected"  # the task's check refused it
FAILED = "failed"  # it did not run
EMPTY = "empty"  # it ran and gave nothing
DOUBTED = "doubted"  # it passed, but may fail in the dialect that was asked for
OK = "ok"  # it ran, or, where nothing runs, it was checked
UNTRIED = "untried"  # an earlier candidate had won


@dataclass(frozen=True)
class Draft:
    """A completion before anything looked at it; ``finished`` says that the model ended it itself."""

    text: str
    logprob: float
    tokens: int
    finished: bool = True


@dataclass(frozen=True)
class Candidate:
    """One completion: ``text`` as the model wrote it, ``sql`` as the user sees it (None where the check refused it).

    ``logprob`` is the sum over ``tokens`` tokens, in nats.
    """

    text: str
    logprob: float
    tokens: int
    status: str = UNTRIED
    sql: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Timings:
    """Wall milliseconds of each step; ``total`` is measured, not summed."""

    link: float = 0.0
    prompt: float = 0.0
    decode: float = 0.0
    check: float = 0.0
    run: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class Identity:
    """Which expert answers: its name, version and digest, and the base below it.

    ``adapter`` and ``grammar`` say whether they take part.
    """

    name: str
    version: str
    digest: str
    base: str
    base_digest: str = ""
    adapter: bool = True
    grammar: bool = True


@dataclass(frozen=True)
class Answer:
    """The query that won and what it returned.

    ``confidence`` is the probability that the model gives the winner among all that the grammar allows, 0 to 1; on
    Spider train it was off by 0.07 on average, the winner's share among the candidates by 0.19. ``rows`` is empty
    where nothing was run; ``ran`` tells that from an empty result. ``tokens`` counts those of the winner.
    """

    question: str
    sql: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    ran: bool
    timings: Timings
    candidates: tuple[Candidate, ...]
    chosen: int
    confidence: float
    dialect: str
    expert: Identity
    tokens: int
    checked: Checked = field(repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON values; what ``chat --json`` prints."""
        expert = self.expert
        return {
            "question": self.question,
            "sql": self.sql,
            "columns": list(self.columns),
            "rows": [[_json_value(cell) for cell in row] for row in self.rows],
            "truncated": self.truncated,
            "ran": self.ran,
            "timings": {step: round(ms, 1) for step, ms in asdict(self.timings).items()},
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "chosen": self.chosen,
            "confidence": round(self.confidence, 4),
            "dialect": self.dialect,
            "expert": {"name": expert.name, "version": expert.version, "digest": expert.digest,
                       "adapter": expert.adapter, "grammar": expert.grammar},
            "base": expert.base,
            "tokens": self.tokens,
        }  # fmt: skip


@dataclass(frozen=True)
class Linked:
    """The question was linked and the prompt rendered."""

    prompt: str


@dataclass(frozen=True)
class Read:
    """The model has read the prompt of ``tokens`` tokens; ``reused`` of them were in its cache."""

    tokens: int
    reused: int = 0


@dataclass(frozen=True)
class Written:
    """The leading candidate so far; ``text`` is the whole of it, since another beam may take the lead."""

    text: str


@dataclass(frozen=True)
class Tried:
    """A candidate was checked and, where asked, run."""

    index: int
    candidate: Candidate


@dataclass(frozen=True)
class Answered:
    """The last event of a stream that found an answer."""

    answer: Answer


Event = Linked | Read | Written | Tried | Answered


def _json_value(cell: Any) -> Any:
    if cell is None or isinstance(cell, bool | int | str):
        return cell
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else str(cell)
    if isinstance(cell, bytes):
        return {"hex": cell.hex()}
    if isinstance(cell, list | tuple):
        return [_json_value(item) for item in cell]
    if isinstance(cell, Mapping):
        return {str(key): _json_value(value) for key, value in cell.items()}
    return str(cell)
