"""The store's folders: held by one process, changed by renames, flushed before anything is revealed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from expert_cli import paths
from expert_cli.errors import ExpertError, VerificationError

PATIENCE = 300.0
"""Seconds to wait for another process that is changing the store."""


def root() -> Path:
    """Where everything lies."""
    return paths.home() / "store"


def package(digest: str) -> Path:
    """The folder of an archive's members."""
    return root() / "packages" / digest


def generation(number: int) -> Path:
    """The folder of a generation."""
    return root() / "generations" / str(number)


def current() -> int:
    """The number of the generation that counts, 0 before the first.

    Raises:
        ExpertError: the file that says so is damaged.
    """
    path = root() / "current"
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as problem:
        raise ExpertError(f"{path} is unreadable ({problem}); write the highest number below generations/") from problem


def generations() -> list[int]:
    """The numbers of all generations, the oldest first."""
    folder = root() / "generations"
    return sorted(int(path.name) for path in folder.iterdir()) if folder.is_dir() else []


@contextmanager
def held() -> Iterator[Path]:
    """Hold the store; yields its staging folder, empty.

    Raises:
        ExpertError: another process holds it for too long, or the disk refuses; nothing was changed then.
        VerificationError: a folder of the store is a symbolic link.
    """
    from filelock import FileLock, Timeout

    staging = root() / "staging"
    try:
        for folder in (root(), root() / "packages", root() / "generations", staging):
            folder.mkdir(parents=True, exist_ok=True)
            if folder.is_symlink():
                raise VerificationError(f"{folder} is a symbolic link; replace it by a folder")
        with FileLock(root() / "lock", timeout=PATIENCE):
            sweep(staging)
            try:
                yield staging
            finally:
                sweep(staging)
    except Timeout as problem:
        raise ExpertError(
            f"another process has held {root()} for {PATIENCE:.0f} s; end it, then try again"
        ) from problem
    except OSError as problem:
        raise ExpertError(
            f"{problem.filename or root()} cannot be written: {problem.strerror}; nothing was changed. Free some "
            "space, or set EXPERT_HOME to a folder that you can write to"
        ) from problem


def sweep(staging: Path) -> None:
    """Empty the staging folder."""
    for path in staging.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def discard(path: Path) -> None:
    """Take ``path`` out of the store in one step; the rest of it goes with the staging folder."""
    path.rename(root() / "staging" / f"{path.parent.name}-{path.name}")


def point(number: int) -> None:
    """Let a generation count from now on: the one step that reveals a change."""
    draft = root() / "staging" / "current"
    write(draft, f"{number}\n".encode())
    draft.replace(root() / "current")
    flush(root())


def write(path: Path, content: bytes) -> None:
    """Write a new file and flush it."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def settle(path: Path) -> None:
    """Flush a file and let nobody write to it any more."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
    if os.name != "nt":  # there, a file that is read-only cannot be swept
        path.chmod(0o444)


def flush(folder: Path) -> None:
    """Flush a folder's entries."""
    if os.name == "nt":  # Windows opens no folders; its renames are journalled
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
