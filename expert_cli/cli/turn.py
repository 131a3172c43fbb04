"""One question and its answer on the terminal."""

from __future__ import annotations

import json
import sys

import click

from expert_cli import show
from expert_cli.answer import DOUBTED, EMPTY, Answer, Answered, Linked, Read, Tried
from expert_cli.expert import Session
from expert_cli.task import Limits

DIALECTS = ("sqlite", "postgres", "mysql", "duckdb")
STEPS = {Linked: "reading", Read: "writing", Tried: "trying the next candidate"}

UNSURE = 0.5
"""The confidence below which an answer says so."""


def answer(session: Session, question: str, *, run: bool, limits: Limits) -> Answer:
    """Ask, saying on a terminal's stderr what is being done. Raises what :meth:`Session.ask` raises."""
    if not sys.stderr.isatty():
        return session.ask(question, run=run, limits=limits)
    with show.console(stderr=True).status("loading") as status:
        for event in session.stream(question, run=run, limits=limits):
            if isinstance(event, Answered):
                return event.answer
            status.update(STEPS.get(type(event), "writing"))
    raise AssertionError("a stream ends with an answer or an error")


def present(found: Answer, *, as_json: bool = False) -> None:
    """The query and its rows on stdout, how it was found on stderr; or the whole answer as JSON."""
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    show.query(found.sql)
    if found.ran:
        show.rows(found.columns, found.rows, truncated=found.truncated)
    show.note(story(found))


def story(found: Answer) -> str:
    """How an answer was found, and what to beware of."""
    parts = [f"confidence {found.confidence:.2f}", f"{found.timings.total:,.0f} ms"]
    if found.confidence < UNSURE:
        parts.append("unsure: read the query before you believe the rows")
    if found.candidates[found.chosen].status == DOUBTED:
        doubt = show.plain(found.candidates[found.chosen].error)[:200]
        parts.append(f"{found.dialect} may refuse it: {doubt}")
    if found.chosen:
        first = found.candidates[0]
        reason = "gave no rows" if first.status == EMPTY else show.plain(first.error)[:120] or first.status
        parts.insert(0, f"candidate {found.chosen + 1} of {len(found.candidates)} (the first: {reason})")
    return " · ".join(parts)
