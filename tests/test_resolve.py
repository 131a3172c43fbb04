"""What is installed for what is wanted."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import pytest

from expert_cli.errors import UsageError, VerificationError
from expert_cli.sources.resolve import Candidate, resolve

HERE = Path("x.expert")


def known(*lines: str, there: bool = False) -> list[Candidate]:
    """``sql 0.1.0 nano: other>=1`` and the like."""
    found = []
    for line in lines:
        head, _, requires = line.partition(":")
        name, version, base = (*head.split(), "nano")[:3]
        found.append(Candidate(name, version, base, tuple(requires.split()), None if there else HERE))
    return found


def chosen(wanted: str, pool: list[Candidate], *bases: str) -> str:
    return ", ".join(f"{one.name} {one.version}" for one in resolve(wanted.split(), pool, bases))


POOL = known("sql 0.1.0", "sql 0.2.0", "sql 1.0.0", "sql 1.1.0rc1", "pro 1.0: sql>=0.2,<1", "pro 2.0: sql>=2", "all 1: pro sql", "old 1: sql<0.2", "both 1: old pro")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("sql", "sql 1.0.0"),
        ("sql>=0.2,<1", "sql 0.2.0"),
        ("sql==0.1.0", "sql 0.1.0"),
        ("sql>=1.1.0rc1", "sql 1.1.0rc1"),
        ("pro", "sql 0.2.0, pro 1.0"),
        ("all", "sql 0.2.0, pro 1.0, all 1"),
        ("pro sql<1", "sql 0.2.0, pro 1.0"),
        ("old", "sql 0.1.0, old 1"),
    ],
)
def test_resolved(wanted: str, expected: str) -> None:
    assert chosen(wanted, POOL) == expected


@pytest.mark.parametrize(
    ("wanted", "fault"),
    [
        ("absent", r"you asked for absent \(there is none of that name\)"),
        ("sql>=9", r"you asked for sql>=9 \(there is 0.1.0, 0.2.0, 1.0.0, 1.1.0rc1\)"),
        ("pro>=2", "pro 2.0 requires sql>=2"),
        ("pro sql==0.1.0", "requires sql"),
        ("both", "requires sql"),
        ("sql>=", "neither a file nor a name"),
    ],
)
def test_unresolvable(wanted: str, fault: str) -> None:
    with pytest.raises(UsageError, match=fault):
        chosen(wanted, POOL)


def test_41_a_cycle_is_named() -> None:
    with pytest.raises(VerificationError, match=r"dependency cycle: .*a.* -> .*b"):
        chosen("a", known("a 1: b", "b 1: c", "c 1: a"))
    with pytest.raises(VerificationError, match="dependency cycle"):
        chosen("a", known("a 1: a"))


def test_what_is_only_required_stays() -> None:
    there = known("sql 0.2.0", there=True)
    pool = known("sql 0.2.0", "sql 0.3.0", "pro 1.0: sql>=0.2,<1") + there
    assert chosen("pro", pool) == "sql 0.2.0, pro 1.0"
    assert chosen("pro sql", pool) == "sql 0.3.0, pro 1.0"
    assert resolve(["pro"], pool)[0].path is None, "what is there is not fetched again"


def test_a_base_that_is_here_is_preferred() -> None:
    pool = known("sql 1.0 nano", "sql 1.0 qwen3-0.6b", "sql 2.0 other")
    assert [one.base for one in resolve(["sql"], pool, ["qwen3-0.6b"])] == ["qwen3-0.6b"]
    assert [one.base for one in resolve(["sql"], pool, ["nano"])] == ["nano"]
    assert [one.base for one in resolve(["sql"], pool)] == ["other"]


def test_a_large_index_is_quick() -> None:
    """10,000 names with 20 versions each, in chains of three: at most a second."""
    pool = [
        Candidate(f"e{number}", f"0.{version}.0", "nano", (f"e{number + 1}>=0.{version // 2}",) if number % 3 < 2 else (), HERE)
        for number in range(10_000)
        for version in range(20)
    ]
    started = perf_counter()
    assert len(resolve(["e0", "e3000", "e9000<0.10"], pool)) == 9
    assert perf_counter() - started < 3, "a busy machine is given three times what is promised"
