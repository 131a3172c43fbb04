"""Compare two evaluations: ``python benchmarks/compare.py OUT_A OUT_B [--json]``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from expert_cli.errors import ExpertError
from expert_cli.factory.compare import compare, outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path, help="the folder or report.json of the first evaluation")
    parser.add_argument("second", type=Path, help="the one that should be better")
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    asked = parser.parse_args()
    try:
        found = compare(outcomes(asked.first), outcomes(asked.second), resamples=asked.resamples, seed=asked.seed)
    except ExpertError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return problem.exit_code
    print(json.dumps(asdict(found)) if asked.json else found.sentence())
    return 0


if __name__ == "__main__":
    sys.exit(main())
