"""Which checkpoint is packed: each is evaluated by execution accuracy, the best or a named one is chosen.

An evaluation is keyed by the sha256 of the adapter and by its setting (cases, decoding, grammar), never by a
checkpoint's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from expert_cli.errors import UsageError
from expert_cli.training import checkpoints
from expert_cli.training.checkpoints import Checkpoint

EVALUATION = "evaluation.json"
METRIC = "execution_accuracy"


class Evaluate(Protocol):
    """Evaluates checkpoint folders in one ``setting``: JSON that names all that the result depends on but the weights.

    A result has at least ``execution_accuracy`` (0 to 1) and ``n``, the number of cases scored.
    """

    @property
    def setting(self) -> Mapping[str, Any]: ...

    def __call__(self, checkpoint: Path) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class Choice:
    """The checkpoint to pack and the reason, one sentence."""

    checkpoint: Checkpoint
    reason: str


def evaluation(checkpoint: Checkpoint, setting: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What is known of a checkpoint in this setting, or in the one it was last evaluated in; None for nothing.

    An evaluation of other weights is not known, whatever its folder is called.
    """
    path = checkpoint.folder / EVALUATION
    if not path.is_file():
        return None
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if known["adapter_sha256"] != checkpoint.adapter_sha256:
        return None
    return known if setting is None or known["setting"] == _plain(setting) else None


def evaluated(
    checkpoint: Checkpoint, setting: Mapping[str, Any], evaluate: Callable[[Path], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """The evaluation of a checkpoint, made and kept beside it where it is not known yet."""
    if known := evaluation(checkpoint, setting):
        return known
    made = {"adapter_sha256": checkpoint.adapter_sha256, "setting": _plain(setting), **evaluate(checkpoint.folder)}
    checkpoints.write_json(checkpoint.folder / EVALUATION, made)
    return made


def choose(found: Sequence[Checkpoint], wanted: str | int, setting: Mapping[str, Any] | None) -> Choice:
    """The checkpoint that ``packaging_checkpoint`` means: a step, or ``best`` in ``setting``; the earlier wins a tie.

    Raises:
        UsageError: there is no checkpoint of that step, or under ``best`` one was never evaluated.
    """
    steps = ", ".join(str(checkpoint.step) for checkpoint in found) or "none"
    if not found:
        raise UsageError("the run has no checkpoint; train first: expert-cli train --manifest MANIFEST")
    if wanted != "best":
        for checkpoint in found:
            if checkpoint.step == wanted:
                return Choice(checkpoint, f"packaging_checkpoint names step {wanted}")
        raise UsageError(f"packaging_checkpoint names step {wanted}, but there are {steps}; name one of them or 'best'")
    scores = [(checkpoint, evaluation(checkpoint, setting)) for checkpoint in found]
    if missing := [str(checkpoint.step) for checkpoint, known in scores if known is None]:
        raise UsageError(
            f"packaging_checkpoint is 'best', but step {', '.join(missing)} was never evaluated as it is; "
            "run expert-cli train again with --evaluate end"
        )
    accuracies = {checkpoint: float(known[METRIC]) for checkpoint, known in scores if known is not None}
    best = max(found, key=lambda checkpoint: (accuracies[checkpoint], -checkpoint.step))
    equals = sum(accuracy == accuracies[best] for accuracy in accuracies.values())
    tie = f", the earliest of {equals} with it" if equals > 1 else ""
    return Choice(best, f"highest execution accuracy, {accuracies[best]:.4f}{tie}, among {len(found)} checkpoints")


def _plain(setting: Mapping[str, Any]) -> Any:
    """``setting`` as JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(setting))
