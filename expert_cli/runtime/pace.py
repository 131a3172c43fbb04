"""How to feed tokens that must follow. There are three policies:

``batch``   all of them in one batch, with the logits of the last
``single``  one at a time, with logits for the last alone
``plain``   one at a time, each with logits, as a loop does that knows of no forced tokens

On a CPU a batch of two tokens can cost three times as much as one token; a token without logits saves the output layer.
After either llama.cpp builds its graph anew, which costs a small model more than a token does. Which is cheapest
depends on model, quantisation and machine: it is measured when a model is first loaded, and kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from expert_cli import paths

LENGTHS = (2, 3, 4, 6, 8, 12, 16)
"""Runs of tokens that are measured; longer ones go in one batch."""

SHORT, LONG = 2, 4
"""Tokens of the runs that tell single from plain, and what more of them would take."""

REPEATS = 3
MEASURED = "with the choice after it"
"""What is timed: paces that were chosen by other times are measured again."""
HEADER = 1 << 16
"""Bytes of a GGUF file that tell its shape and quantisation, together with its size."""

BATCH, SINGLE, PLAIN = POLICIES = ("batch", "single", "plain")

Cost = Callable[[int, str], float]
"""Seconds for a run of so many tokens under a policy, and for the choice that follows."""


class Pace(NamedTuple):
    """Runs of ``together`` tokens and more go in one batch, shorter ones as ``steps`` says: single or plain."""

    together: int
    steps: str

    @classmethod
    def of(cls, policy: str) -> Pace:
        """The pace at which every run is fed by one policy."""
        return cls(2, SINGLE) if policy == BATCH else cls(ENDLESS, policy)


ENDLESS = 1 << 30


def chosen(path: Path, threads: int, cost: Cost) -> Pace:
    """The fastest pace for the model in ``path``; measured by ``cost`` where it is not known on this machine."""
    file = paths.cache() / "pace.json"
    key = f"{MEASURED}-{_digest(path)}-{threads}-{version('llama-cpp-python')}-{machine()}"
    known = _read(file)
    if key not in known:
        known[key] = measured(cost)
        # a cache that cannot be kept is measured again
        with contextlib.suppress(OSError):
            _write(file, known)
    return known[key]


def measured(cost: Cost) -> Pace:
    """The faster way of taking single steps, and the least number of tokens for which one batch is faster still."""
    cost(1, PLAIN)
    runs = {steps: [_least(cost, length, steps) for length in (SHORT, LONG)] for steps in (SINGLE, PLAIN)}
    steps = min(runs, key=lambda steps: sum(runs[steps]))
    short, long = runs[steps]
    for length in LENGTHS:
        if _least(cost, length, BATCH) < short + (length - SHORT) * (long - short) / (LONG - SHORT):
            return Pace(length, steps)
    return Pace(LENGTHS[-1] + 1, steps)


def _least(cost: Cost, length: int, policy: str) -> float:
    """The fastest of some runs: the others were disturbed."""
    return min(cost(length, policy) for _ in range(REPEATS))


@cache
def machine() -> str:
    """A digest of the kind of processor; homes are shared between machines."""
    about = [platform.machine(), platform.processor(), str(os.cpu_count())]
    # where Linux names the model
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        about += sorted({line for line in lines if line.startswith("model name")})
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:8]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(HEADER)
    return hashlib.sha256(start + str(path.stat().st_size).encode()).hexdigest()[:32]


def _read(file: Path) -> dict[str, Pace]:
    """What is known; entries that are none are measured again."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: Pace(*entry) for key, entry in known.items() if _sound(entry)}


def _sound(entry: Any) -> bool:
    match entry:
        case [int(together), str(steps)]:
            return together > 1 and steps in (SINGLE, PLAIN)
        case _:
            return False


def _write(file: Path, known: dict[str, Pace]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as part:
            json.dump(known, part, indent=1, sort_keys=True)
        Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)
