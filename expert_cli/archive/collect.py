"""From a training run to an archive: the chosen checkpoint, its grammar, a model card, a bill of materials."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from expert_cli import archive
from expert_cli.archive import describe
from expert_cli.digests import sha256_of
from expert_cli.errors import ManifestError, UsageError
from expert_cli.manifest import ExpertManifest, load_expert, parse_json


def package(
    run: Path, created: str, *, grammar: Path | None = None, card: Path | None = None, target: Path | None = None
) -> tuple[Path, archive.Archive]:
    """Pack the checkpoint that a run's ``report.json`` chose into an unsigned archive.

    ``grammar`` is taken from ``grammars/`` and ``card`` from the run, or written from its report, where they are not
    given; ``target`` is a file or an existing folder. Returns the archive's path and what is in it.

    Raises:
        UsageError: a part is missing, or the checkpoint is not the one that was evaluated.
    """
    manifest, members = collect(run, created, grammar=grammar, card=card)
    if target is None or target.is_dir():
        target = (target or Path()) / manifest.filename
    return target, archive.build(members, target, created)


def collect(
    run: Path, created: str, *, grammar: Path | None = None, card: Path | None = None
) -> tuple[ExpertManifest, dict[str, Path | bytes]]:
    """The members that :func:`package` packs, by name.

    Raises:
        UsageError: a part is missing, or the checkpoint is not the one that was evaluated.
    """
    report = _read(
        run / "report.json", f"no report in {run}; train and evaluate first: expert-cli train --manifest MANIFEST"
    )
    packed = report.get("packed")
    if not packed:
        raise UsageError(f"{run}/report.json chose no checkpoint; evaluate them: expert-cli train --evaluate end")
    step = run / f"step-{packed['step']}"
    made = _read(step / "run.json", f"{step} is missing; train again, or restore it")
    manifest = replace(load_expert(json.dumps(made["manifest"]).encode()), base_sha256=made["identity"]["base"])
    grammar = grammar or Path("grammars") / manifest.grammar
    card = card or (run / "card.md" if (run / "card.md").is_file() else None)
    for path, option in ((grammar, "--grammar"), (card, "--card")):
        if path and not path.is_file():
            raise UsageError(f"{path} does not exist; name the file with {option}")
    weights = step / archive.WEIGHTS
    if not weights.is_file() or sha256_of(weights) != packed["adapter_sha256"]:
        raise UsageError(f"{weights} is not the adapter that was evaluated; evaluate it again with expert-cli train")
    members: dict[str, Path | bytes] = {
        "adapter_config.json": _config(step / "adapter_config.json", manifest),
        archive.WEIGHTS: weights,
        "card.md": card or describe.card(manifest, report).encode(),
        "grammar.gbnf": grammar,
        "manifest.json": _json(manifest.as_dict()),
        "report.json": _json(report),
    }
    members["sbom.cdx.json"] = _json(describe.bom(manifest, report, created))
    return manifest, members


def timestamp() -> str:
    """The time to write into a package, RFC 3339 in UTC: ``$SOURCE_DATE_EPOCH`` where it is set.

    Raises:
        UsageError: the variable is no number of seconds.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch and not epoch.isdecimal():
        raise UsageError(f"SOURCE_DATE_EPOCH is {epoch!r}; set it to a number of seconds, or unset it")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _config(path: Path, manifest: ExpertManifest) -> bytes:
    """PEFT's configuration without what varies: the order of a set, and where the base lay on the trainer's disk."""
    config = _read(path, f"{path} is missing; train again, or restore it")
    modules = config.get("target_modules")
    config["target_modules"] = sorted(modules) if isinstance(modules, list) else modules
    config["base_model_name_or_path"] = manifest.base
    return _json(config)


def _read(path: Path, missing: str) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(missing)
    data = parse_json(path.read_bytes(), str(path))
    if not isinstance(data, dict):
        raise ManifestError(str(path), ["expected an object; restore it or make it again"])
    return data


def _json(data: Mapping[str, Any]) -> bytes:
    return (json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
