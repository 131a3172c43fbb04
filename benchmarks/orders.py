"""FROM first against SELECT first: a base and an expert for each on the same data and steps, and what they score.

    python benchmarks/orders.py --out runs/orders [--steps 700] [--expert-steps 800] [--only pointers-select]

The recipe and the manifest are those of the shipped base and expert, but for their length; a stopped run goes on.
Prints the execution accuracy on the held-out training databases and on Spider's development set.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import click
from spider import rows

from expert_cli import load, show
from expert_cli import manifest as manifests
from expert_cli import task as tasks
from expert_cli.cli.train import located
from expert_cli.factory.evaluate import evaluate, read_cases
from expert_cli.loading import Parts
from expert_cli.training import base, recipe
from expert_cli.training.pretrain import Run
from experts.sql.prepare import data_root

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ROOT / "manifests" / "sql-nano.json"
GRAMMAR = ROOT / "grammars" / "sql-sqlite.gbnf"
SURFACES = ("pointers", "pointers-select")


def pretrained(out: Path, surface: str, steps: int) -> Path:
    """The folder of a base trained for ``steps`` steps."""
    target = out / "base"
    if not (target / "base-nano.json").is_file():
        plan = recipe.read(ROOT / "manifests" / "pretrain-nano.json") | {"surface": surface}
        plan["training"] |= {"minutes": steps / 60, "checkpoint_minutes": 100 / 60}
        run = Run(plan, tasks.load("sql"), out / "pretraining", 1)
        run.prepare()
        # every step takes one tick, so that the budget and the schedule count steps
        ticks = itertools.count()
        model = run.train(lambda line: click.echo(f"{surface}: {line}", err=True), lambda: float(next(ticks)))
        base.write(model, run.tokenizer, plan, out / "pretraining" / "log.jsonl", target)
    return target


def trained(out: Path, folder: Path, steps: int) -> Path:
    """The folder of the expert's checkpoint after ``steps`` steps."""
    command = [sys.executable, "-m", "expert_cli", "train", "--manifest", str(MANIFEST), "--base", str(folder)]
    command += ["--out", str(out / "expert"), "--steps", str(steps), "--threads", "1"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return out / "expert" / f"step-{steps}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=700, help="of the base")
    parser.add_argument("--expert-steps", type=int, default=800)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--only", choices=SURFACES, action="append")
    asked = parser.parse_args()
    manifest = manifests.load_expert(MANIFEST)
    asked.out.mkdir(parents=True, exist_ok=True)
    cases = asked.out / "cases.jsonl"
    cases.write_text("".join(json.dumps(row) + "\n" for row in rows(data_root(), False)), encoding="utf-8")
    found = read_cases(cases)
    for surface in asked.only or SURFACES:
        out = asked.out / surface
        folder = pretrained(out, surface, asked.steps)
        checkpoint = trained(out, folder, asked.expert_steps)
        held_out = json.loads((out / "expert" / "report.json").read_text(encoding="utf-8"))
        parts = Parts.checkpoint(checkpoint, manifest, located(manifest, folder), GRAMMAR)
        opened = partial(load, parts, threads=1)
        with show.progress(surface, len(found[: asked.limit])) as told:
            report = evaluate(opened, found, out / "dev", limit=asked.limit, jobs=1, told=told)
        print(f"{surface}: held out {held_out['checkpoints'][-1]}, development set {report['accuracy']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
