"""One run from manifest to report: examples -> train -> evaluate every checkpoint -> select.

PyTorch is imported when a run begins, so that reading a run's report needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from expert_cli import loading
from expert_cli.errors import ManifestError, UsageError
from expert_cli.factory import evaluate as evaluation
from expert_cli.loading import Parts
from expert_cli.manifest import ExpertManifest
from expert_cli.runtime.bases import Base
from expert_cli.task import Task
from expert_cli.training import checkpoints, data, report, select
from expert_cli.training.checkpoints import Checkpoint
from expert_cli.training.select import Evaluate

if TYPE_CHECKING:
    from expert_cli.training.sft import Step

When = Literal["each", "end", "none"]
"""When checkpoints are evaluated: as soon as they are written, after training, or not at all."""


@dataclass(frozen=True)
class Watch:
    """Who is told how a run goes. ``stop`` is asked after each step; true ends it with a checkpoint."""

    examples: Callable[[int], None] = lambda count: None
    step: Callable[[Step], None] = lambda step: None
    evaluating: Callable[[Checkpoint], None] = lambda checkpoint: None
    evaluated: Callable[[Checkpoint, Mapping[str, Any]], None] = lambda checkpoint, evaluation: None
    stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Outcome:
    """What a run came to; ``finished`` is false when it was stopped before its last step."""

    report: Mapping[str, Any]
    finished: bool


def run(
    manifest: ExpertManifest,
    task: Task,
    base: Base,
    out: Path,
    *,
    evaluate: Evaluate | None = None,
    when: When = "end",
    resume: bool = True,
    threads: int | None = None,
    precision: str = "bf16",
    watch: Watch | None = None,
) -> Outcome:
    """Train the expert of ``manifest`` on ``base`` and write checkpoints and report into ``out``.

    A run that was interrupted goes on where it was; a finished one is only evaluated and reported.

    Raises:
        UsageError: torch is missing, ``out`` is in use or holds another run, or the selection cannot be made.
        BaseModelError: a file of the base is missing or damaged.
        ManifestError: the data cannot be trained on.
    """
    watch = watch or Watch()
    if when != "none" and evaluate is None:
        raise UsageError("checkpoints are to be evaluated, but no evaluation was given; pass evaluate= or when='none'")
    sft = _trainer()
    folder = base.folder()
    with checkpoints.held(out):
        corpus = data.read(task, base.manifest, manifest.training, folder / "tokenizer.json", report=watch.examples)
        sft.set_threads(threads)
        trainer = sft.Trainer(manifest, base.manifest, folder, corpus, precision=precision)
        for step in trainer.run(out, resume=resume, stop=watch.stop):
            watch.step(step)
            if step.checkpoint is not None and when == "each" and evaluate is not None:
                _evaluate(manifest, step.checkpoint, evaluate, watch)
        finished = trainer.step >= manifest.training.steps
        if finished and when != "none" and evaluate is not None:
            for checkpoint in checkpoints.found(out):
                _evaluate(manifest, checkpoint, evaluate, watch)
        return Outcome(conclude(manifest, out, choose=finished and when != "none"), finished)


def conclude(manifest: ExpertManifest, out: Path, *, choose: bool = True) -> Mapping[str, Any]:
    """Select a checkpoint of a run and write its report; ``choose=False`` reports without selecting.

    Raises:
        UsageError: the selection cannot be made.
    """
    found = checkpoints.found(out)
    choice = None
    if choose or manifest.packaging_checkpoint in [checkpoint.step for checkpoint in found]:
        choice = select.choose(found, manifest.training.evaluation, manifest.packaging_checkpoint)
    made = report.training(manifest, found, choice)
    report.write(out, made)
    return made


def by_execution(
    manifest: ExpertManifest,
    task: Task,
    base: Base,
    grammar: Path,
    *,
    jobs: int = 1,
    threads: int | None = None,
    told: Callable[[int, str], None] = lambda done, word: None,
) -> Evaluate:
    """What evaluates a checkpoint as chat would: woven for llama.cpp, under the grammar in the file ``grammar``.

    Its cases are the task's for ``training.evaluation``, the first ``limit`` of them; what was answered is kept in
    ``evaluation/`` of the checkpoint.

    Raises:
        ManifestError: there is no case, or ``limit`` is no positive integer.
    """
    source = manifest.training.evaluation
    limit = source.get("limit")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ManifestError("training.evaluation", [f"limit: {limit!r} is not a positive integer; give how many cases"])
    cases = list(islice(task.cases(source), limit))
    if not cases:
        raise ManifestError("training.evaluation", ["no case in it; name a source that has some"])

    def evaluate(checkpoint: Path) -> Mapping[str, Any]:
        parts = Parts.checkpoint(checkpoint, manifest, base, grammar)
        made = evaluation.evaluate(
            partial(loading.load, parts, threads=threads), cases, checkpoint / "evaluation", jobs=jobs, told=told
        )
        if not made["scored"]:
            raise UsageError(f"none of {len(cases)} cases could be scored; give cases whose gold runs")
        return {select.METRIC: made["accuracy"], "n": made["scored"], "answered": made["answered"]}

    return evaluate


def _evaluate(manifest: ExpertManifest, checkpoint: Checkpoint, evaluate: Evaluate, watch: Watch) -> None:
    cases = manifest.training.evaluation
    if select.evaluation(checkpoint, cases) is None:
        watch.evaluating(checkpoint)
        watch.evaluated(checkpoint, select.evaluated(checkpoint, cases, evaluate))


def _trainer() -> Any:
    try:
        from expert_cli.training import sft
    except ModuleNotFoundError as missing:
        raise UsageError(f'training needs {missing.name}; install it: pip install "expert-cli[train]"') from missing
    return sft
