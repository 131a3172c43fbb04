"""The figures of an evaluation, from the outcomes of its cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expert_cli.answer import DOUBTED, EMPTY, FAILED, OK
from expert_cli.task import Case


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    ``status`` is ``ok``, ``unanswered`` (no candidate passed) or ``error`` (the question or its database cannot be
    used). ``correct`` is None where there is no gold or the gold itself fails. ``tried`` holds the status of each
    candidate that was looked at, most probable first.
    """

    id: str
    status: str
    ms: float
    sql: str | None = None
    tokens: int = 0
    error: str = ""
    correct: bool | None = None
    reason: str = ""
    empty: bool = False
    confidence: float = 0.0
    tried: tuple[str, ...] = ()

    def prediction(self) -> dict[str, Any]:
        """The line of ``predictions.jsonl``."""
        return {"id": self.id, "sql": self.sql, "status": self.status, "ms": round(self.ms, 1),
                "tokens": self.tokens, "error": self.error}  # fmt: skip


def summary(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The figures, shares between 0 and 1, times in milliseconds.

    ``accuracy`` counts every scored case, unanswered ones as wrong. ``first`` looks at the most probable candidate
    alone: how often it passes the check (parses, names what exists, compiles) and how often it runs.
    """
    scored = [outcome for outcome in outcomes if outcome.correct is not None]
    firsts = [outcome.tried[0] for outcome in outcomes if outcome.tried]
    looked = [status for outcome in outcomes for status in outcome.tried]
    return {
        "cases": len(outcomes),
        "status": {word: sum(o.status == word for o in outcomes) for word in ("ok", "unanswered", "error")},
        "scored": len(scored),
        "correct": sum(bool(outcome.correct) for outcome in scored),
        "accuracy": _share([bool(outcome.correct) for outcome in scored]),
        "both_empty": sum(bool(outcome.correct) and outcome.empty for outcome in scored),
        "by_hardness": _by_hardness(cases, outcomes),
        "answered": _share([outcome.status == "ok" for outcome in outcomes]),
        "checked": _share([status in (OK, DOUBTED, EMPTY, FAILED) for status in looked]),
        "executed": _share([status in (OK, DOUBTED, EMPTY) for status in looked]),
        "first": {
            "checked": _share([status in (OK, DOUBTED, EMPTY, FAILED) for status in firsts]),
            "executed": _share([status in (OK, DOUBTED, EMPTY) for status in firsts]),
        },
        "ms": _latency([outcome.ms for outcome in outcomes if outcome.status == "ok"]),
        "tokens": sum(outcome.tokens for outcome in outcomes),
        "outcomes": [
            {"id": o.id, "correct": o.correct, "reason": o.reason, "confidence": round(o.confidence, 4)} for o in scored
        ],
    }


def markdown(report: dict[str, Any]) -> str:
    """The report for people."""
    expert, ms = report["expert"], report["ms"]
    parts = [f"adapter {'on' if expert['adapter'] else 'off'}", f"grammar {'on' if expert['grammar'] else 'off'}"]
    lines = [
        f"# {expert['name']} {expert['version']} on {report['cases']} cases",
        "",
        f"Base {expert['base']}, {', '.join(parts)}, {report['decoding']['candidates']} candidates.",
        "",
        "| figure | value |",
        "|---|---|",
    ]
    if report["scored"]:
        lines.append(f"| execution accuracy | {report['accuracy']:.3f} ({report['correct']} of {report['scored']}) |")
        lines.append(f"| right with both results empty | {report['both_empty']} |")
        for level, part in report["by_hardness"].items():
            lines.append(f"| accuracy, {level} | {part['accuracy']:.3f} of {part['cases']} |")
    for label, value in (
        ("answered", report["answered"]),
        ("candidates that pass the check", report["checked"]),
        ("candidates that execute", report["executed"]),
        ("first candidates that pass the check", report["first"]["checked"]),
        ("first candidates that execute", report["first"]["executed"]),
    ):
        if value is not None:
            lines.append(f"| {label} | {100 * value:.1f} % |")
    if ms:
        lines.append(f"| time of an answer, ms | p50 {ms['p50']:.0f}, p90 {ms['p90']:.0f}, p99 {ms['p99']:.0f} |")
    lines.append(f"| digest | {report['digest'][:16]} |")
    return "\n".join(lines) + "\n"


def _by_hardness(cases: Sequence[Case], outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    levels: dict[str, list[bool]] = {}
    for case, outcome in zip(cases, outcomes, strict=True):
        if outcome.correct is not None and "hardness" in case.extra:
            levels.setdefault(case.extra["hardness"], []).append(outcome.correct)
    return {level: {"cases": len(right), "accuracy": _share(right)} for level, right in sorted(levels.items())}


def _share(found: Sequence[bool]) -> float | None:
    return round(sum(found) / len(found), 4) if found else None


def _latency(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    ordered = sorted(values)
    ranks = {f"p{rank}": ordered[min(len(ordered) - 1, rank * len(ordered) // 100)] for rank in (50, 90, 99)}
    ranks |= {"mean": sum(ordered) / len(ordered), "max": ordered[-1]}
    return {name: round(ms, 1) for name, ms in ranks.items()}
