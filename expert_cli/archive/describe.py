"""What an archive says of itself for people and for auditors: a model card and a CycloneDX bill of materials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from expert_cli.manifest import ExpertManifest


def card(manifest: ExpertManifest, report: Mapping[str, Any]) -> str:
    """A model card from the manifest and the report of the training run."""
    adapter, training = manifest.adapter, manifest.training
    lines = [
        "---",
        f"license: {manifest.license}",
        f"base_model: {manifest.base}",
        "library_name: peft",
        f"tags: [{', '.join(('expert', manifest.task.name, *manifest.tags))}]",
        "---",
        "",
        f"# {manifest.name} {manifest.version} on {manifest.base}",
        "",
        manifest.description,
        "",
        f"A {adapter.type} adapter (rank {adapter.r}, alpha {adapter.alpha:g}) on "
        f"{', '.join(adapter.target_modules)} for the task `{manifest.task.name}`, with a grammar. "
        f"It fits the base whose weights have sha256 `{manifest.base_sha256}` and no other.",
        "",
        f"Authors: {', '.join(manifest.authors)}. License: {manifest.license}.",
        "",
        "## Training",
        "",
        f"{training.steps} steps of {training.batch_tokens} tokens, learning rate {training.learning_rate:g} "
        f"({training.schedule}, warm-up {training.warmup:g}), seed {training.seed}; loss on the completion alone.",
    ]
    if data := report.get("data"):
        lines += ["", f"Data: {data.get('examples')} examples, sha256 `{data.get('sha256')}`."]
    if packed := report.get("packed"):
        lines += ["", f"Packed: step {packed['step']}, {packed['reason']}."]
    rows = [row for row in report.get("checkpoints", ()) if row.get("execution_accuracy") is not None]
    if rows:
        lines += ["", "## Evaluation", "", "| step | execution accuracy | cases |", "|---:|---:|---:|"]
        lines += [f"| {row['step']} | {row['execution_accuracy']:.4f} | {row['n']} |" for row in rows]
    return "\n".join(lines) + "\n"


def bom(manifest: ExpertManifest, report: Mapping[str, Any], created: str) -> dict[str, Any]:
    """A CycloneDX 1.6 machine-learning bill of materials: the expert, its base, its data and its metrics."""
    reference = f"pkg:generic/{manifest.name}@{manifest.version}"
    base = {
        "type": "machine-learning-model",
        "bom-ref": f"base:{manifest.base}",
        "name": manifest.base,
        "hashes": [{"alg": "SHA-256", "content": manifest.base_sha256}],
    }
    rows = [row for row in report.get("checkpoints", ()) if row.get("execution_accuracy") is not None]
    step = (report.get("packed") or {}).get("step")
    metrics = [
        {"type": "execution accuracy", "value": f"{row['execution_accuracy']:.4f}", "slice": f"{row['n']} cases"}
        for row in rows
        if row["step"] == step
    ]
    model: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": manifest.task.name,
            "datasets": [{"type": "dataset", "name": "training data", "contents": {"properties": _data(report)}}],
        },
    }
    if metrics:
        model["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    expert = {
        "type": "machine-learning-model",
        "bom-ref": reference,
        "name": manifest.name,
        "version": manifest.version,
        "description": manifest.description,
        "authors": [{"name": author} for author in manifest.authors],
        "licenses": [{"expression": manifest.license}],
        "modelCard": model,
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid5(NAMESPACE_URL, f'{reference}#{manifest.base_sha256}#{created}')}",
        "version": 1,
        "metadata": {"timestamp": created, "component": expert},
        "components": [base],
        "dependencies": [{"ref": reference, "dependsOn": [base["bom-ref"]]}],
    }


def _data(report: Mapping[str, Any]) -> list[dict[str, str]]:
    known = report.get("data") or {}
    return [{"name": key, "value": str(known[key])} for key in ("sha256", "examples") if key in known]
