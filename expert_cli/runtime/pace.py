"""How to feed tokens that must follow: in one batch, or one at a time without asking for logits.

On a CPU a batch of two tokens can cost three times as much as one token, and a token without logits saves the output
layer. Which is cheaper depends on model, quantisation and machine: it is measured once for each model, and kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from expert_cli import paths

LENGTHS = (2, 3, 4, 6, 8, 12, 16)
"""Runs of tokens that are measured; longer ones go in one batch."""

REPEATS = 3
HEADER = 1 << 16
"""Bytes of a GGUF file that tell its shape and quantisation, together with its size."""

Cost = Callable[[int, bool], float]
"""Seconds for so many tokens in one batch, with the logits of the last one or with none."""


def threshold(path: Path, threads: int, cost: Cost) -> int:
    """The least number of tokens that belong in one batch; measured by ``cost`` where it is not known of ``path``."""
    file = paths.cache() / "pace.json"
    key = f"{_digest(path)}-{threads}-{version('llama-cpp-python')}"
    known = _read(file)
    if key not in known:
        known[key] = measured(cost)
        # a cache that cannot be kept is measured again
        with contextlib.suppress(OSError):
            _write(file, known)
    return known[key]


def measured(cost: Cost) -> int:
    """The least number of tokens for which one batch costs less than single steps, all but the last without logits."""
    cost(1, True)
    silent, shown = _least(cost, 1, False), _least(cost, 1, True)
    for length in LENGTHS:
        if _least(cost, length, True) < (length - 1) * min(silent, shown) + shown:
            return length
    return LENGTHS[-1] + 1


def _least(cost: Cost, length: int, logits: bool) -> float:
    """The fastest of some runs: the others were disturbed."""
    return min(cost(length, logits) for _ in range(REPEATS))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(HEADER)
    return hashlib.sha256(start + str(path.stat().st_size).encode()).hexdigest()[:32]


def _read(file: Path) -> dict[str, int]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: length for key, length in known.items() if type(length) is int and length > 1}


def _write(file: Path, known: dict[str, int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as part:
            json.dump(known, part, indent=1, sort_keys=True)
        Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)
