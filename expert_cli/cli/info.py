"""``info``: what is known of an expert or archive."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from expert_cli import archive, show, store
from expert_cli import trust as trusted
from expert_cli.cli.archives import described, json_option, told
from expert_cli.cli.keys import provenance
from expert_cli.cli.transfer import remarks
from expert_cli.errors import VerificationError


@click.command()
@click.argument("target")
@json_option
def info(target: str, as_json: bool) -> None:
    """Show what is known of an expert or archive.

    Who signed it, what it was trained on, how it scored. TARGET is an installed expert or an .expert file.

    \b
    Examples:
      expert-cli info sql
      expert-cli info expert-sql-nano.v0.1.0.expert --json
    """
    path = Path(target)
    known = trusted.load()
    data: dict[str, Any]
    if path.suffix != archive.SUFFIX and not path.is_file():
        entry = store.find(target)
        report = json.loads((entry.folder / "report.json").read_bytes())
        data = asdict(entry) | {"folder": str(entry.folder), "manifest": entry.manifest.as_dict(), "report": report}
        data["provenance"] = provenance(entry.signers)
        data["remark"] = remarks([entry]).get(entry.name, "")
        verdict = doubt(target, known)
    else:
        try:
            found, verdict = archive.verify(path, known), ""
        except VerificationError as problem:
            found, verdict = archive.verify(path, None), str(problem)
        data = described(found) | {
            "manifest": found.manifest.as_dict(),
            "report": json.loads(found.texts["report.json"]),
        }
    data |= {"trusted": not verdict, "reason": verdict}
    told(as_json, data, "\n".join(summary(data)))


def doubt(name: str, known: trusted.Trust) -> str:
    """Why an installed expert would not be let in today; empty when it would."""
    try:
        store.check(name, known)
    except VerificationError as problem:
        return str(problem)
    return ""


def summary(data: dict[str, Any]) -> Iterator[str]:
    """The lines of ``info`` for people."""
    manifest, report = data["manifest"], data["report"]
    adapter = manifest["adapter"]
    yield f"{data['name']} {data['version']} on {data['base']}: {show.plain(manifest['description'])}"
    yield f"  task      {manifest['task']['name']}, interface {manifest['task']['interface']}"
    yield f"  adapter   {adapter['type']}, rank {adapter['r']}, for base sha256 {data['base_sha256']}"
    yield f"  authors   {show.plain(', '.join(manifest['authors']))}; license {show.plain(manifest['license'])}"
    yield f"  archive   digest {data['digest']}, created {data['created']}"
    yield f"  signed by {', '.join(data['signers']) or 'nobody that counts'}"
    if data.get("remark"):
        yield f"  remark    {show.plain(data['remark'])}"
    yield "  trusted   yes" if data["trusted"] else f"  trusted   NO: {show.plain(data['reason'])}"
    if isinstance(trained := report.get("data"), dict):
        yield f"  data      {trained.get('examples')} examples, sha256 {show.plain(str(trained.get('sha256')))}"
    if isinstance(packed := report.get("packed"), dict):
        yield f"  packed    step {packed.get('step')}: {show.plain(str(packed.get('reason')))}"
