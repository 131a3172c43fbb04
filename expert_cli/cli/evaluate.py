"""``eval``: answer a file of cases and score them by execution."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import click

from expert_cli import loading, show
from expert_cli.expert import PREFER_ROWS
from expert_cli.factory.evaluate import evaluate as run
from expert_cli.factory.evaluate import read_cases
from expert_cli.factory.report import markdown
from expert_cli.task import Limits


@click.command()
@click.option("--experts", "name", default="sql", show_default=True, help="The installed expert to evaluate.")
@click.option("--cases", type=click.Path(path_type=Path), required=True, help="JSONL: id, question, db, gold, ...")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the results go.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Only the first cases.")
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
@click.option("--timeout", type=click.FloatRange(0.01), default=10.0, show_default=True, help="Seconds for a query.")
@click.option("--candidates", type=click.IntRange(1, 64), default=None, help="Candidates; the manifest's by default.")
@click.option(
    "--prefer-rows",
    type=click.IntRange(0),
    default=PREFER_ROWS,
    show_default=True,
    help="Candidates looked at after one without rows; one with rows wins. 0: the first that runs wins.",
)
@click.option("--base-only", is_flag=True, help="Leave the adapter out.")
@click.option("--no-grammar", is_flag=True, help="Leave the grammar out.")
@click.option("--backend", type=click.Choice(loading.BACKENDS), default="llama", show_default=True, help="What runs the model.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json and not report.md.")
def evaluate(name: str, cases: Path, out: Path, limit: int | None, jobs: int, timeout: float, candidates: int | None,
             prefer_rows: int, base_only: bool, no_grammar: bool, backend: str, as_json: bool) -> None:  # fmt: skip
    """Answer a file of cases and score them by execution.

    Exactly as chat would. Writes predictions.jsonl, report.json and report.md to OUT and resumes after a kill. The
    library call is ``expert_cli.factory.evaluate.evaluate(...)``.

    \b
    Example:
      expert-cli eval --cases dev.jsonl --out results --jobs 2
    """
    opened = partial(loading.load, name, backend=backend, adapter=not base_only, grammar=not no_grammar,
                     candidates=candidates, prefer_rows=prefer_rows,
                     threads=max(1, (os.cpu_count() or 1) // jobs))  # fmt: skip
    found = read_cases(cases)
    with show.progress("eval", len(found[:limit])) as told:
        report = run(opened, found, out, limit=limit, jobs=jobs, limits=Limits(seconds=timeout), told=told)
    click.echo(json.dumps(report) if as_json else markdown(report), nl=as_json)
    show.note(f"written to {out}")
