"""``eval``: answer a file of cases and score them by execution."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from expert_cli import show
from expert_cli.cli.options import opener, shared
from expert_cli.factory.evaluate import evaluate as run
from expert_cli.factory.evaluate import read_cases
from expert_cli.factory.report import markdown
from expert_cli.task import Limits


@click.command()
@click.option("--cases", type=click.Path(path_type=Path), required=True, help="JSONL: id, question, db, gold, ...")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the results go.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Only the first cases.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
@click.option("--timeout", type=click.FloatRange(0.01), default=10.0, show_default=True, help="Seconds for a query.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json and not report.md.")
@shared
def evaluate(cases: Path, out: Path, limit: int | None, jobs: int, timeout: float, as_json: bool,
             **asked: Any) -> None:  # fmt: skip
    """Answer a file of cases and score them by execution.

    Exactly as chat would. Writes predictions.jsonl, report.json and report.md to OUT and resumes after a kill. The
    library call is ``expert_cli.factory.evaluate.evaluate(...)``.

    \b
    Example:
      expert-cli eval --cases dev.jsonl --out results --jobs 2
    """
    opened = opener(**asked, threads=max(1, (os.cpu_count() or 1) // jobs))
    found = read_cases(cases)
    with show.progress("eval", len(found[:limit])) as told:
        report = run(opened, found, out, limit=limit, jobs=jobs, limits=Limits(seconds=timeout), told=told)
    click.echo(json.dumps(report) if as_json else markdown(report), nl=as_json)
    show.note(f"written to {out}")
