"""One run from manifest to report: examples -> train -> evaluate every checkpoint -> select.

PyTorch is imported when a run begins, so that reading a run's report needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from expert_cli.errors import BaseModelError, UsageError
from expert_cli.manifest import BaseManifest, ExpertManifest
from expert_cli.runtime.weights import digest
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
    base: BaseManifest,
    folder: Path,
    out: Path,
    *,
    evaluate: Evaluate | None = None,
    when: When = "end",
    resume: bool = True,
    threads: int | None = None,
    precision: str = "bf16",
    watch: Watch | None = None,
) -> Outcome:
    """Train the expert of ``manifest`` on the base in ``folder`` and write checkpoints and report into ``out``.

    A run that was interrupted goes on where it was; a finished one is only evaluated and reported.

    Raises:
        UsageError: torch is missing, ``out`` is in use or holds another run, or the selection cannot be made.
        BaseModelError: ``folder`` does not hold the base.
        ManifestError: the data cannot be trained on.
    """
    watch = watch or Watch()
    if when != "none" and evaluate is None:
        raise UsageError("checkpoints are to be evaluated, but no evaluation was given; pass evaluate= or when='none'")
    check_base(base, folder)
    sft = _trainer()
    with checkpoints.held(out):
        corpus = data.read(task, base, manifest.training, folder / "tokenizer.json", report=watch.examples)
        sft.set_threads(threads)
        trainer = sft.Trainer(manifest, base, folder, corpus, precision=precision)
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


def check_base(base: BaseManifest, folder: Path) -> None:
    """Compare weights and tokenizer with the base's manifest.

    Raises:
        BaseModelError: a file is missing or another one.
    """
    for name, expected in (("model.safetensors", base.digest), ("tokenizer.json", base.tokenizer_sha256)):
        if (actual := digest(folder / name)) != expected:
            raise BaseModelError(
                f"{folder / name} is not base {base.id}: sha256 {actual[:12]}, its manifest says {expected[:12]}; "
                "give the folder of that base, or the manifest of this one"
            )


def _evaluate(manifest: ExpertManifest, checkpoint: Checkpoint, evaluate: Evaluate, watch: Watch) -> None:
    watch.evaluating(checkpoint)
    watch.evaluated(checkpoint, select.evaluated(checkpoint, manifest.training.evaluation, evaluate))


def _trainer() -> Any:
    try:
        from expert_cli.training import sft
    except ModuleNotFoundError as missing:
        raise UsageError(f'training needs {missing.name}; install it: pip install "expert-cli[train]"') from missing
    return sft
