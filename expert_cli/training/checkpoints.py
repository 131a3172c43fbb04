"""Checkpoint folders ``<run>/step-<n>/``: written whole or not at all, and enough to go on bit for bit.

adapter_config.json, adapter_model.safetensors   what PEFT loads
run.json                                         how it came about; ``identity`` decides who may resume it
state.pt                                         optimizer, random numbers, data cursor; never packed
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expert_cli.digests import sha256_of
from expert_cli.errors import UsageError

ADAPTER = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
RUN = "run.json"
STATE = "state.pt"

_FOLDER = re.compile(r"step-([1-9][0-9]*)")
_PARTIAL = ".partial-"


@dataclass(frozen=True, order=True)
class Checkpoint:
    """A finished checkpoint: the adapter after ``step`` steps."""

    step: int
    folder: Path

    @property
    def adapter_sha256(self) -> str:
        """The digest of the adapter's weights, which evaluations are keyed by."""
        return sha256_of(self.folder / ADAPTER)

    @property
    def run(self) -> dict[str, Any]:
        """``run.json``: the manifest as run, digests, seed, versions, step and loss."""
        data: dict[str, Any] = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        return data


def found(run: Path) -> list[Checkpoint]:
    """The finished checkpoints of a run, the earliest first."""
    if not run.is_dir():
        return []
    names = ((_FOLDER.fullmatch(path.name), path) for path in run.iterdir())
    return sorted(Checkpoint(int(name[1]), path) for name, path in names if name)


def resumable(run: Path, identity: Mapping[str, Any]) -> Checkpoint | None:
    """The last checkpoint of a run, provided that it was made from the same ``identity``; None where there is none.

    Raises:
        UsageError: it was made from other data, another base or other settings; the message names them.
    """
    checkpoints = found(run)
    if not checkpoints:
        return None
    made = checkpoints[-1].run["identity"]
    given = json.loads(json.dumps(identity))
    if differing := sorted(key for key in made.keys() | given.keys() if made.get(key) != given.get(key)):
        raise UsageError(
            f"{checkpoints[-1].folder} was trained with another {', '.join(differing)}; "
            "choose another --out, or start over with --no-resume"
        )
    return checkpoints[-1]


def discard(run: Path) -> None:
    """Remove every checkpoint of a run."""
    for checkpoint in found(run):
        shutil.rmtree(checkpoint.folder)


def write(run: Path, step: int, fill: Callable[[Path], None]) -> Checkpoint:
    """Let ``fill`` write the files of a checkpoint into a folder that is revealed only when all are on disk."""
    folder = run / f"step-{step}"
    run.mkdir(parents=True, exist_ok=True)
    sweep(run)
    partial = run / f"{_PARTIAL}step-{step}"
    partial.mkdir()
    fill(partial)
    for path in sorted(partial.iterdir()):
        _flush(path)
    _flush(partial)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    _flush(run)
    return Checkpoint(step, folder)


def sweep(run: Path) -> None:
    """Remove what a killed writer left behind."""
    for path in run.glob(f"{_PARTIAL}*"):
        shutil.rmtree(path)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    _flush(partial)
    partial.replace(path)


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Hold a run for one trainer.

    Raises:
        UsageError: another process holds it.
    """
    from filelock import FileLock, Timeout

    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as busy:
        raise UsageError(f"{run} is being trained by another process; wait for it or choose another --out") from busy
    try:
        yield
    finally:
        lock.release()


def _flush(path: Path) -> None:
    # Windows can neither open a folder nor flush a file that is open for reading only.
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
