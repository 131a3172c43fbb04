"""What an installed expert scores on Spider dev, and what its adapter and its grammar are worth.

    python benchmarks/spider.py --out results/spider [--experts sql] [--limit N] [--jobs N] [--syn]

Writes the cases (the rows whose gold executes) and runs ``eval`` on them three times, whole, without the adapter and
without the grammar; each resumes after a kill. Then compares the three by a paired bootstrap.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from expert_cli import load, show
from expert_cli.errors import ExpertError
from expert_cli.factory.compare import compare, outcomes
from expert_cli.factory.evaluate import evaluate, read_cases
from experts.sql.prepare import data_root

VARIANTS: dict[str, dict[str, bool]] = {"whole": {}, "base-only": {"adapter": False}, "no-grammar": {"grammar": False}}


def rows(data: Path, synonyms: bool) -> Iterator[dict[str, Any]]:
    """Spider dev as ``eval`` reads it; ``synonyms`` takes the questions of Spider-Syn."""
    lines = (data / "spider_dev.jsonl").read_text(encoding="utf-8").splitlines()
    for number, row in enumerate(map(json.loads, lines)):
        if row["gold_rows"] is None:
            continue
        db = data / "spider" / "database" / row["db_id"] / f"{row['db_id']}.sqlite"
        question = row["syn_question" if synonyms else "question"]
        yield {"id": f"dev-{number}", "question": question, "db": str(db.resolve()), "gold": row["query"]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experts", default="sql")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--candidates", type=int)
    parser.add_argument("--syn", action="store_true", help="ask with synonyms (Spider-Syn)")
    parser.add_argument("--only", choices=VARIANTS, action="append", help="only this variant")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    cases = asked.out / "cases.jsonl"
    cases.write_text("".join(json.dumps(row) + "\n" for row in rows(data_root(), asked.syn)), encoding="utf-8")
    found = read_cases(cases)
    chosen = asked.only or list(VARIANTS)
    for name in chosen:
        opened = partial(load, asked.experts, candidates=asked.candidates,
                         threads=max(1, (os.cpu_count() or 1) // asked.jobs), **VARIANTS[name])  # fmt: skip
        with show.progress(name, len(found[: asked.limit])) as told:
            report = evaluate(opened, found, asked.out / name, limit=asked.limit, jobs=asked.jobs, told=told)
        print(
            f"{name}: EX {report['accuracy']} on {report['scored']} cases, answered {report['answered']}, "
            f"candidates that execute {report['executed']}, p50 {report['ms'].get('p50')} ms"
        )
    for name in chosen[1:]:
        print(
            f"{name} -> {chosen[0]}: {compare(outcomes(asked.out / name), outcomes(asked.out / chosen[0])).sentence()}"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ExpertError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(problem.exit_code)
