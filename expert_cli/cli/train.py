"""``train``: from a manifest to checkpoints, their evaluations and a report."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from expert_cli import manifest as manifests
from expert_cli import paths, show, task
from expert_cli.errors import UsageError
from expert_cli.factory import runs
from expert_cli.factory.runs import Watch, When
from expert_cli.manifest import ExpertManifest
from expert_cli.runtime import bases
from expert_cli.runtime.bases import Base
from expert_cli.training import report as reports
from expert_cli.training.checkpoints import Checkpoint
from expert_cli.training.select import METRIC

if TYPE_CHECKING:
    from expert_cli.training.sft import Step

LINE_EVERY = 10.0
"""Seconds between lines of progress where there is no terminal."""

MEMORY = 0.98
"""How much of the shown loss and speed is what was shown before."""


@click.command()
@click.option("--manifest", "path", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The expert.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Its run.  [default: runs/NAME-BASE]")
@click.option(
    "--base",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with the files of the base, and base-ID.json where the base is not known.",
)
@click.option("--resume/--no-resume", default=True, help="Go on from the last checkpoint, or remove all.")
@click.option("--steps", type=click.IntRange(1), help="Train for this many steps, not for those of the manifest.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: PyTorch's choice]")
@click.option(
    "--precision", type=click.Choice(["bf16", "f32"]), default="bf16", show_default=True, help="Of the matrix products."
)
@click.option(
    "--evaluate",
    "when",
    type=click.Choice(["each", "end", "none"]),
    default="end",
    show_default=True,
    help="When checkpoints are evaluated by execution accuracy.",
)
@click.option("--jobs", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that evaluate.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json and not report.md.")
def train(path: Path, out: Path | None, folder: Path | None, resume: bool, steps: int | None, threads: int | None,
          precision: str, when: When, jobs: int, as_json: bool) -> None:  # fmt: skip
    """Train an adapter, evaluate its checkpoints and choose the one to pack.

    A stopped run goes on where it was.

    \b
    Example:
      expert-cli train --manifest manifests/sql-nano.json --threads 2
    """
    manifest = manifests.load_expert(path)
    if steps is not None:
        manifest = replace(manifest, training=replace(manifest.training, steps=steps))
    base, plugin = located(manifest, folder), task.load(manifest.task.name)
    out = out or Path("runs") / f"{manifest.name}-{manifest.base}"
    evaluate = None
    if when != "none":
        evaluate = runs.Execution.of(manifest, plugin, base, template(manifest, path), jobs=jobs, threads=threads)
    with watched() as watch:
        outcome = runs.run(
            manifest, plugin, base, out,
            evaluate=evaluate, when=when, resume=resume, threads=threads, precision=precision, watch=watch,
        )  # fmt: skip
    if not outcome.finished:
        show.note(f"stopped with a checkpoint in {out}; the same command goes on from there")
        raise click.exceptions.Exit(130)
    click.echo(json.dumps(outcome.report) if as_json else reports.markdown(outcome.report), nl=as_json)
    show.note(f"written to {out}")


def located(manifest: ExpertManifest, folder: Path | None) -> Base:
    """The base of an expert: the known one, or the files in ``folder``, which base-<id>.json there may describe."""
    if folder is None:
        return bases.find(manifest.base)
    path = folder / f"base-{manifest.base}.json"
    described = manifests.load_base(path) if path.is_file() else bases.find(manifest.base).manifest
    files = {kind: replace(file, source=file.name) for kind, file in described.files.items()}
    return Base(replace(described, files=files), path)


def template(manifest: ExpertManifest, path: Path) -> Path:
    """The grammar's file: beside the manifest, in ``grammars`` beside its folder, or one that ships with the tool.

    Raises:
        UsageError: it is in none of these.
    """
    folders = (path.parent, path.resolve().parents[1] / "grammars", paths.inputs("grammars"))
    places = [folder / manifest.grammar for folder in folders]
    for place in places:
        if place.is_file():
            return place
    raise UsageError(f"no grammar {manifest.grammar}; put it beside {path} or into {places[1].parent}")


@contextmanager
def watched() -> Iterator[Watch]:
    """A watch that narrates on stderr and turns the first Ctrl-C into a checkpoint."""
    stopping = False

    def ask_to_stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        # not through the buffer: the signal may have come while it was being written to
        os.write(sys.stderr.fileno(), b"\nstopping as soon as all is saved; once more to stop at once\n")

    before = signal.signal(signal.SIGINT, ask_to_stop)
    try:
        with narrated() as tell:
            yield Watch(
                examples=lambda count: None if count % 10240 else show.note(f"{count:,} examples read"),
                step=tell,
                evaluating=lambda checkpoint: show.note(f"evaluating step {checkpoint.step}"),
                evaluated=told_evaluation,
                stop=lambda: stopping,
            )
    finally:
        signal.signal(signal.SIGINT, before)


def told_evaluation(checkpoint: Checkpoint, evaluation: Mapping[str, Any]) -> None:
    """Say how a checkpoint did."""
    show.note(f"step {checkpoint.step}: execution accuracy {evaluation[METRIC]:.4f} on {evaluation['n']} cases")


@contextmanager
def narrated() -> Iterator[Callable[[Step], None]]:
    """What is told of steps: a bar on a terminal, else a line every ten seconds."""
    if not sys.stderr.isatty():
        yield Narration().line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[word]}"))
    with Progress(*shown, console=show.console(stderr=True)) as bar:
        narration = Narration()
        row = bar.add_task("train", total=None, word="", start=False)

        def tell(step: Step) -> None:
            if not bar.tasks[row].started:
                bar.start_task(row)
            narration.take(step)
            bar.update(row, total=step.steps, completed=step.step, word=narration.word)

        yield tell


class Narration:
    """Loss and speed smoothed over some fifty steps."""

    def __init__(self) -> None:
        self.loss = self.tokens = self.seconds = self.weight = 0.0
        self.told = 0.0

    def take(self, step: Step) -> None:
        """Count a step."""
        self.weight = MEMORY * self.weight + 1
        self.loss = MEMORY * self.loss + step.loss
        self.tokens = MEMORY * self.tokens + step.tokens
        self.seconds = MEMORY * self.seconds + step.seconds

    @property
    def word(self) -> str:
        """Loss and tokens per second."""
        return f"loss {self.loss / self.weight:.4f}  {self.tokens / self.seconds:,.0f} tokens/s"

    def line(self, step: Step) -> None:
        """Print a line, now and then."""
        self.take(step)
        if monotonic() - self.told < LINE_EVERY and step.checkpoint is None:
            return
        self.told = monotonic()
        left = (step.steps - step.step) * self.seconds / self.weight
        saved = "  saved" if step.checkpoint else ""
        clock = f"{int(left // 3600)}:{int(left % 3600 // 60):02}:{int(left % 60):02}"
        sys.stderr.write(f"step {step.step}/{step.steps}  {self.word}  {clock} left{saved}\n")
        sys.stderr.flush()
