"""The files of an index on its owner's disk.

Each is there whole or not at all. What must not stay half done is noted before it is begun.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from expert_cli.errors import ExpertError, VerificationError
from expert_cli.store import disk

PATIENCE = 60
"""Seconds to wait for another process that is changing the index."""
PENDING = ".pending.json"
"""What is still to be written, in order: [[name, content], …]. It is there from the moment that a change is decided."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes.

    Raises:
        ExpertError: another one holds it for too long.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".index.lock", timeout=PATIENCE):
            yield
    except Timeout as problem:
        raise ExpertError(f"another process has held {folder} for {PATIENCE} s; end it, then try again") from problem


@contextmanager
def held(folder: Path, metadata: Path) -> Iterator[bool]:
    """Hold an index; yields whether a change that was cut off had to be finished first.

    Raises:
        ExpertError: another process holds it for too long, or the disk refuses.
    """
    try:
        metadata.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            yield finish(metadata)
    except OSError as problem:
        raise ExpertError(
            f"{problem.filename or folder} cannot be written: {problem.strerror}; its readers have a whole index all "
            "the same. Free some space, then give the command again"
        ) from problem


def replace(path: Path, content: bytes) -> None:
    """Write a file in one step, and flush it."""
    with _part(path).open("wb") as file:
        file.write(content)
        _reveal(path, file)


def copy(source: Path, target: Path) -> None:
    """Copy a file in one step, and flush it."""
    with source.open("rb") as content, _part(target).open("wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
        _reveal(target, file)


def write_all(folder: Path, contents: Sequence[tuple[str, bytes]]) -> None:
    """Write files in this order; :func:`finish` goes on where this is cut off."""
    note = [(name, content.decode()) for name, content in contents]
    replace(folder / PENDING, json.dumps(note).encode())
    finish(folder)


def finish(folder: Path) -> bool:
    """Write what :func:`write_all` noted and did not come to; whether there was anything.

    Raises:
        VerificationError: the note is no note of ours.
    """
    path = folder / PENDING
    if not path.is_file():
        return False
    try:
        contents = [(str(name), str(content).encode()) for name, content in json.loads(path.read_bytes())]
    except (TypeError, ValueError) as problem:
        raise VerificationError(f"{path} is damaged ({problem}); restore the index from a copy") from problem
    for name, content in contents:
        replace(folder / name, content)
    path.unlink()
    disk.flush(folder)
    return True


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _reveal(path: Path, written: BinaryIO) -> None:
    written.flush()
    os.fsync(written.fileno())
    written.close()
    _part(path).replace(path)
    disk.flush(path.parent)
