"""What a run made: every checkpoint with its loss and execution accuracy, and which one is packed and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expert_cli.manifest import ExpertManifest
from expert_cli.training import checkpoints, select
from expert_cli.training.checkpoints import Checkpoint
from expert_cli.training.select import Choice

JSON = "report.json"
MARKDOWN = "report.md"
FORMAT = 1


def training(
    manifest: ExpertManifest, found: Sequence[Checkpoint], choice: Choice | None, setting: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The report of a run as JSON holds it, evaluated in ``setting``; ``packed`` is None without a choice."""
    last = found[-1].run
    rows = [_row(checkpoint, select.evaluation(checkpoint, setting)) for checkpoint in found]
    packed = None
    if choice is not None:
        packed = {
            "step": choice.checkpoint.step,
            "adapter_sha256": choice.checkpoint.adapter_sha256,
            "reason": choice.reason,
        }
    return {
        "format": FORMAT,
        "kind": "training",
        "expert": manifest.name,
        "version": manifest.version,
        "base": {"id": manifest.base, "sha256": last["identity"]["base"]},
        "data": {"sha256": last["identity"]["data"], "examples": last["examples"], "too_long": last["too_long"]},
        "seed": last["seed"],
        "versions": last["versions"],
        "evaluation": dict(manifest.training.evaluation),
        "packaging_checkpoint": manifest.packaging_checkpoint,
        "packed": packed,
        "checkpoints": rows,
    }


def write(run: Path, report: Mapping[str, Any]) -> None:
    """Write ``report.json`` and ``report.md`` into the folder of a run."""
    checkpoints.write_json(run / JSON, report)
    checkpoints.write_text(run / MARKDOWN, markdown(report))


def markdown(report: Mapping[str, Any]) -> str:
    """The report for people."""
    packed = report["packed"]
    verdict = f"step {packed['step']}: {packed['reason']}" if packed else "nothing yet: no checkpoint was chosen"
    data = report["data"]
    lines = [
        f"# {report['expert']} {report['version']} on {report['base']['id']}",
        "",
        f"Packed: {verdict}.",
        "",
        f"Trained on {data['examples']} examples (sha256 `{data['sha256']}`; {data['too_long']} left out as too long), "
        f"seed {report['seed']}, base sha256 `{report['base']['sha256']}`.",
        "",
        "| step | loss | execution accuracy | cases | adapter sha256 |",
        "|---:|---:|---:|---:|---|",
    ]
    for row in report["checkpoints"]:
        accuracy = "" if row[select.METRIC] is None else f"{row[select.METRIC]:.4f}"
        cases = "" if row["n"] is None else row["n"]
        mark = " (packed)" if packed and row["step"] == packed["step"] else ""
        short = row["adapter_sha256"][:12]
        lines.append(f"| {row['step']}{mark} | {row['loss']:.4f} | {accuracy} | {cases} | `{short}` |")
    return "\n".join(lines) + "\n"


def _row(checkpoint: Checkpoint, known: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "loss": checkpoint.run["loss"],
        "adapter_sha256": checkpoint.adapter_sha256,
        select.METRIC: known[select.METRIC] if known else None,
        "n": known["n"] if known else None,
    }
