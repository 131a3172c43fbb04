"""``chat``: one question with ``--prompt``, one a line when piped, a conversation on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click

from expert_cli import show
from expert_cli.answer import Answer
from expert_cli.cli.options import opener, shared
from expert_cli.cli.turn import DIALECTS, answer, present
from expert_cli.errors import ExpertError
from expert_cli.task import Limits


@click.command()
@click.option("--db", help="The database: a path or sqlite:///path.")
@click.option("--schema", help="A file of CREATE TABLE statements, where there is no database.")
@click.option(
    "--dialect",
    type=click.Choice(DIALECTS),
    default=DIALECTS[0],
    show_default=True,
    help="The dialect of the query that is shown.",
)
@click.option("--prompt", "-p", "question", help="Answer this one question and leave.")
@click.option("--json", "as_json", is_flag=True, help="Print each answer as one JSON object and nothing else.")
@click.option("--no-run", is_flag=True, help="Write and check the query; do not run it.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Rows fetched at most.")
@click.option("--timeout", type=click.FloatRange(0.01), default=10.0, show_default=True, help="Seconds for a query.")
@shared
def chat(db: str | None, schema: str | None, dialect: str, question: str | None, as_json: bool, no_run: bool,
         limit: int, timeout: float, **asked: Any) -> int:  # fmt: skip
    """Ask questions; one with --prompt, a conversation without.

    Piped input is read one question a line. The library call is ``expert_cli.load(...).ask(...)``.

    \b
    Examples:
      expert-cli chat --db shop.sqlite
      expert-cli chat --db shop.sqlite --prompt "How many orders were shipped?"
      expert-cli chat --schema shop.sql --dialect postgres --json --prompt "Who spent most?"
    """
    show.encodable()
    expert = opener(**asked)()
    limits = Limits(seconds=timeout, rows=limit)
    with expert.open(db, schema=schema, dialect=dialect) as session:
        ask = partial(answer, run=not no_run, limits=limits)
        if question is not None:
            present(ask(session, question), as_json=as_json)
            return 0
        if not sys.stdin.isatty() or as_json:
            lines = (line.decode("utf-8-sig", "replace") for line in sys.stdin.buffer)
            return each(partial(ask, session), lines, as_json=as_json)
        from expert_cli.cli.loop import Talk

        expert.warm()
        Talk(session, partial(expert.open, db, schema=schema), run=not no_run, limits=limits).hold()
    return 0


def each(ask: Callable[[str], Answer], questions: Iterable[str], *, as_json: bool) -> int:
    """Answer one question a line; the exit code is that of the first that failed."""
    code = 0
    for line in questions:
        if not line.strip():
            continue
        try:
            present(ask(line), as_json=as_json)
        except ExpertError as problem:
            code = code or problem.exit_code
            if as_json:
                click.echo(json.dumps(_failed(line, problem)))
            click.echo(f"error: {show.plain(line.strip())[:80]!r}: {problem}", err=True)
    return code


def _failed(question: str, problem: ExpertError) -> dict[str, Any]:
    return {"question": question.strip(), "sql": None, "error": str(problem), "exit_code": problem.exit_code}
