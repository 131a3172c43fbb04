"""``expert-cli pretrain``: a base from scratch."""

from __future__ import annotations

from pathlib import Path

import click

from expert_cli import task as tasks
from expert_cli.errors import UsageError
from expert_cli.training import recipe as recipes


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the run; resumed if it exists.",
)
@click.option(
    "--base",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the finished base goes (default: OUT/base).",
)
@click.option(
    "--threads", type=click.IntRange(1), default=2, show_default=True, help="CPU threads; one on a busy machine."
)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Budget, instead of the recipe's.")
def pretrain(recipe: Path, out: Path, target: Path | None, threads: int, minutes: float | None) -> None:
    """Pre-train a base model from public data, resumable.

    \b
    Example:
      expert-cli pretrain manifests/pretrain-nano.json --out runs/nano
    """
    plan = recipes.read(recipe)
    if minutes is not None:
        plan["training"]["minutes"] = minutes
    try:
        from expert_cli.training import base
        from expert_cli.training.pretrain import Run
    except ImportError as missing:
        raise UsageError(f"{missing.name} is not installed; run: pip install 'expert-cli[train]'") from missing
    run = Run(plan, tasks.load(plan["task"]), out, threads)
    click.echo("preparing data", err=True)
    run.prepare()
    click.echo(f"training on {len(run.data):,} examples; the log is {out / 'log.jsonl'}", err=True)
    model = run.train(lambda line: click.echo(line, err=True))
    base.write(model, run.tokenizer, plan, out / "log.jsonl", target or out / "base")
    click.echo(str(target or out / "base"))
