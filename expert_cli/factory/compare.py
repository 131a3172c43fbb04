"""Is one evaluation better than another? A paired bootstrap over the same cases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from expert_cli.errors import UsageError


@dataclass(frozen=True)
class Comparison:
    """Accuracy of two evaluations on ``cases`` shared cases.

    ``difference`` is second minus first, ``low`` and ``high`` its 95 % percentile interval, ``p`` two-sided.
    """

    cases: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    only_first: int
    only_second: int

    def sentence(self) -> str:
        """The comparison in one line."""
        return (
            f"{self.first:.3f} -> {self.second:.3f} on {self.cases} cases: {self.difference:+.3f} "
            f"[{self.low:+.3f}, {self.high:+.3f}], p = {self.p:.4f} "
            f"(only the first right: {self.only_first}, only the second: {self.only_second})"
        )


def outcomes(source: Path) -> dict[str, bool]:
    """Case id -> correct, from an evaluation's folder or its ``report.json``.

    Raises:
        UsageError: there is no report, or its cases had no gold.
    """
    path = source / "report.json" if source.is_dir() else source
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UsageError(f"{path} is no evaluation report ({problem}); make one with: expert-cli eval") from problem
    found = report.get("outcomes", []) if isinstance(report, dict) else []
    if not found:
        raise UsageError(f"{path} scores no case; evaluate a file whose cases have gold")
    return {str(outcome["id"]): bool(outcome["correct"]) for outcome in found}


def compare(
    first: Mapping[str, bool], second: Mapping[str, bool], *, resamples: int = 10_000, seed: int = 0
) -> Comparison:
    """Resample the shared cases ``resamples`` times, both evaluations together.

    The resampled sum depends only on how many differences of -1, 0 and +1 were drawn, so one multinomial draw is one
    resample, exactly.

    Raises:
        UsageError: the two do not hold the same cases.
    """
    if first.keys() != second.keys():
        lone = len(first.keys() ^ second.keys())
        raise UsageError(f"{lone} cases are in one evaluation only; compare evaluations of the same cases file")
    cases = len(first)
    losses = sum(first[case] and not second[case] for case in first)
    gains = sum(second[case] and not first[case] for case in first)
    odds = np.array([losses, cases - losses - gains, gains]) / cases
    draws = np.random.default_rng(seed).multinomial(cases, odds, size=resamples)
    differences = (draws[:, 2] - draws[:, 0]) / cases
    low, high = np.quantile(differences, [0.025, 0.975])
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Comparison(
        cases=cases,
        first=sum(first.values()) / cases,
        second=sum(second.values()) / cases,
        difference=(gains - losses) / cases,
        low=float(low),
        high=float(high),
        p=min(1.0, 2 * (tail + 1) / (resamples + 1)),
        only_first=losses,
        only_second=gains,
    )
