"""The paired bootstrap against cases whose answer is known."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from expert_cli.errors import UsageError
from expert_cli.factory.compare import compare, outcomes

ROOT = Path(__file__).parents[1]


def paired(both: int, losses: int, gains: int, neither: int) -> tuple[dict[str, bool], dict[str, bool]]:
    pairs = [(True, True)] * both + [(True, False)] * losses + [(False, True)] * gains + [(False, False)] * neither
    return {str(i): a for i, (a, _) in enumerate(pairs)}, {str(i): b for i, (_, b) in enumerate(pairs)}


@pytest.mark.parametrize(
    ("counts", "difference", "significant"),
    [
        ((50, 0, 0, 50), 0.0, False),
        ((30, 10, 10, 50), 0.0, False),
        ((30, 2, 25, 43), 0.23, True),
        ((30, 25, 2, 43), -0.23, True),
        ((48, 1, 3, 48), 0.02, False),
    ],
)
def test_difference_and_significance(counts: tuple[int, int, int, int], difference: float, significant: bool) -> None:
    found = compare(*paired(*counts))
    assert found.difference == pytest.approx(difference)
    assert found.second - found.first == pytest.approx(difference)
    assert (found.p < 0.05) is significant
    assert (found.low > 0 or found.high < 0) is significant


def test_interval_has_the_width_of_the_normal_one() -> None:
    cases, losses, gains = 1000, 100, 180
    found = compare(*paired(400, losses, gains, cases - 400 - losses - gains))
    mean = (gains - losses) / cases
    spread = 1.96 * math.sqrt(((gains + losses) / cases - mean**2) / cases)
    assert found.low == pytest.approx(mean - spread, abs=0.003)
    assert found.high == pytest.approx(mean + spread, abs=0.003)


def test_only_the_same_cases_are_compared() -> None:
    with pytest.raises(UsageError, match="2 cases are in one"):
        compare({"a": True, "b": True}, {"a": True, "c": True})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"outcomes": []}'])
def test_a_file_that_scores_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(UsageError):
        outcomes(tmp_path)


def test_the_command(tmp_path: Path) -> None:
    first, second = paired(30, 2, 25, 43)
    for name, found in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        rows = [{"id": case, "correct": right} for case, right in found.items()]
        (tmp_path / name / "report.json").write_text(json.dumps({"outcomes": rows}))
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/compare.py"), str(tmp_path / "a"), str(tmp_path / "b"), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["difference"] == pytest.approx(0.23)
