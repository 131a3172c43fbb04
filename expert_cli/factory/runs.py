"""One run from manifest to report: examples -> train -> evaluate every checkpoint -> select.

PyTorch is imported when a run begins, so that reading a run's report needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from expert_cli.runtime.weights import digest
from expert_cli.task import Case, Task
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
    judge = evaluate if when != "none" else None
    sft = _trainer()
    folder = base.folder()
    with checkpoints.held(out):
        _check_choice(manifest, out)
        corpus = data.read(task, base.manifest, manifest.training, folder / "tokenizer.json", report=watch.examples)
        sft.set_threads(threads)
        trainer = sft.Trainer(manifest, base.manifest, folder, corpus, precision=precision)
        for step in trainer.run(out, resume=resume, stop=watch.stop):
            watch.step(step)
            if step.checkpoint is not None and judge is not None and when == "each":
                _evaluate(step.checkpoint, judge, watch)
        finished = trainer.step >= manifest.training.steps
        if finished and judge is not None:
            finished = _evaluate_all(out, judge, watch)
        return Outcome(conclude(manifest, out, judge if finished else None), finished)


def conclude(manifest: ExpertManifest, out: Path, evaluate: Evaluate | None = None) -> Mapping[str, Any]:
    """Write the report of a run and return it; a checkpoint is selected if its step is named or ``evaluate`` given.

    Raises:
        UsageError: the selection cannot be made.
    """
    found = checkpoints.found(out)
    wanted = manifest.packaging_checkpoint
    setting = evaluate.setting if evaluate is not None else None
    choice = None
    if evaluate is not None or wanted in [checkpoint.step for checkpoint in found]:
        choice = select.choose(found, wanted, setting)
    made = report.training(manifest, found, choice, setting)
    report.write(out, made)
    return made


@dataclass(frozen=True)
class Execution:
    """Evaluates a checkpoint as chat would: woven for llama.cpp, under the grammar in the file ``grammar``.

    What was answered is kept in ``evaluation/`` of the checkpoint, so that a stopped evaluation goes on.
    """

    manifest: ExpertManifest
    base: Base
    grammar: Path
    cases: Sequence[Case]
    jobs: int = 1
    threads: int | None = None
    told: Callable[[int, str], None] = lambda done, word: None

    @classmethod
    def of(
        cls,
        manifest: ExpertManifest,
        task: Task,
        base: Base,
        grammar: Path,
        *,
        jobs: int = 1,
        threads: int | None = None,
    ) -> Execution:
        """On the task's cases for ``training.evaluation``, the first ``limit`` of them.

        Raises:
            ManifestError: there is no case, or ``limit`` is no positive integer.
        """
        source = manifest.training.evaluation
        limit = source.get("limit")
        if limit is not None and (type(limit) is not int or limit < 1):
            raise ManifestError("training.evaluation", [f"limit: {limit!r} is not a positive integer; give a number"])
        cases = tuple(islice(task.cases(source), limit))
        if not cases:
            raise ManifestError("training.evaluation", ["no case in it; name a source that has some"])
        return cls(manifest, base, grammar, cases, jobs, threads)

    @property
    def setting(self) -> Mapping[str, Any]:
        """What an accuracy depends on besides the weights."""
        return {
            "cases": self.manifest.training.evaluation,
            "decoding": asdict(self.manifest.decoding),
            "grammar_sha256": digest(self.grammar),
            "base_sha256": self.base.manifest.files["gguf"].sha256,
        }

    def __call__(self, checkpoint: Path) -> Mapping[str, Any]:
        """Execution accuracy, the cases scored, and the share that was answered.

        Raises:
            UsageError: no gold of the cases runs.
        """
        parts = Parts.checkpoint(checkpoint, self.manifest, self.base, self.grammar)
        opened = partial(loading.load, parts, threads=self.threads)
        made = evaluation.evaluate(opened, self.cases, checkpoint / "evaluation", jobs=self.jobs, told=self.told)
        if not made["scored"]:
            raise UsageError(f"none of {len(self.cases)} cases could be scored; give cases whose gold runs")
        return {select.METRIC: made["accuracy"], "n": made["scored"], "answered": made["answered"]}


def _check_choice(manifest: ExpertManifest, out: Path) -> None:
    """Say before training, not after it, that the named step will not exist."""
    wanted, training = manifest.packaging_checkpoint, manifest.training
    if wanted == "best" or wanted in [checkpoint.step for checkpoint in checkpoints.found(out)]:
        return
    saved = range(training.checkpoint_every, training.steps, training.checkpoint_every)
    if wanted not in saved and wanted != training.steps:
        raise UsageError(
            f"packaging_checkpoint names step {wanted}, but a checkpoint is written every {training.checkpoint_every} "
            f"steps and at {training.steps}; name one of them or 'best'"
        )


def _evaluate_all(out: Path, evaluate: Evaluate, watch: Watch) -> bool:
    """Evaluate every checkpoint of a run; false when stopped before the last."""
    for checkpoint in checkpoints.found(out):
        if watch.stop():
            return False
        _evaluate(checkpoint, evaluate, watch)
    return True


def _evaluate(checkpoint: Checkpoint, evaluate: Evaluate, watch: Watch) -> None:
    if select.evaluation(checkpoint, evaluate.setting) is None:
        watch.evaluating(checkpoint)
        watch.evaluated(checkpoint, select.evaluated(checkpoint, evaluate.setting, evaluate))


def _trainer() -> Any:
    try:
        from expert_cli.training import sft
    except ModuleNotFoundError as missing:
        raise UsageError(f'training needs {missing.name}; install it: pip install "expert-cli[train]"') from missing
    return sft
