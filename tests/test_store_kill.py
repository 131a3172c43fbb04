"""kill -9 before every write, rename, creation, removal and flush of a change: the old state or the new, then repaired."""

from __future__ import annotations

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import packages
import pytest
from hostile import KEY

from expert_cli import archive, store, trust
from expert_cli.digests import sha256_of
from expert_cli.store import disk
from expert_cli.trust import Pin, Trust

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

TRUST = Trust((Pin("sql", KEY.public.id, KEY.public.pem.decode()),))
CHANGING = ("os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.link", "os.symlink", "os.truncate")
STARTED = 77
"""What a child exits with that got to its end."""


class Fuse:
    """Counts what changes the disk and kills this process at number ``at``."""

    def __init__(self, at: int, report: int) -> None:
        self.at, self.report, self.count = at, report, 0

    def step(self, name: str) -> bool:
        """Whether this is the moment; the kill itself is left to who called where something is done first."""
        self.count += 1
        os.pwrite(self.report, f"{self.count} {name:<40}".encode(), 0)
        return self.count == self.at

    def burn(self, name: str) -> None:
        if self.step(name):
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        def audit(event: str, args: tuple[Any, ...]) -> None:
            writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if event in CHANGING or writes:
                self.burn(f"{event} {Path(str(args[0])).name}")

        fsync, opened = os.fsync, io.open

        def flushed(descriptor: Any) -> None:
            self.burn("fsync")
            fsync(descriptor)

        def open_(*args: Any, **options: Any) -> Any:
            file = opened(*args, **options)
            mode = args[1] if len(args) > 1 else options.get("mode", "r")
            if not set("wax+") & set(mode) or "b" not in mode:
                return file
            self.burn("opened")  # and emptied, where the mode says so
            return Torn(file, self)

        os.fsync = flushed
        io.open = open_  # type: ignore[assignment]
        sys.addaudithook(audit)


class Torn:
    """A file of which only half a write arrives when the fuse is out."""

    def __init__(self, file: Any, fuse: Fuse) -> None:
        self.file, self.fuse = file, fuse

    def write(self, data: bytes) -> int:
        if self.fuse.step("write"):
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return int(self.file.write(data))

    def __enter__(self) -> Torn:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def killed(change: Callable[[], object], at: int, report: Path) -> tuple[bool, str]:
    """Run ``change`` in a child that dies at step ``at``; whether it did, and its last step."""
    descriptor = os.open(report, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            Fuse(at, descriptor).arm()
            change()
            code = STARTED
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    os.close(descriptor)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True, report.read_text().strip()
    assert os.WEXITSTATUS(status) == STARTED, f"the change failed at step {at}: {report.read_text().strip()}"
    return False, report.read_text().strip()


def state() -> dict[str, tuple[str, str]]:
    """What is installed, each expert checked against its signature."""
    return {entry.name: (entry.version, store.check(entry.name, TRUST).digest) for entry in store.installed()}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("archives")
    return {version: packages.expert(folder, KEY, version=version) for version in ("0.1.0", "0.2.0")}


def upgraded(archives: dict[str, Path]) -> None:
    store.install(archives["0.1.0"], TRUST)
    store.install(archives["0.2.0"], TRUST)


def flooded(archives: dict[str, Path]) -> None:
    """So many generations that the next change sweeps some, and a package with them."""
    upgraded(archives)
    for _ in range(store.HISTORY):
        store.remove("sql")
        store.install(archives["0.2.0"], TRUST)


def damaged(archives: dict[str, Path]) -> None:
    store.install(archives["0.1.0"], TRUST)
    store.install(archives["0.2.0"], TRUST)
    card = disk.package(store.install(archives["0.1.0"], TRUST).digest) / "card.md"
    store.install(archives["0.2.0"], TRUST)
    card.chmod(0o644)
    card.write_text("damaged")


CHANGES: dict[str, tuple[Callable[[dict[str, Path]], object], Callable[[dict[str, Path]], object]]] = {
    "first install": (lambda archives: None, lambda archives: store.install(archives["0.1.0"], TRUST)),
    "upgrade": (lambda archives: store.install(archives["0.1.0"], TRUST), lambda archives: store.install(archives["0.2.0"], TRUST)),
    "install over a damaged package": (damaged, lambda archives: store.install(archives["0.1.0"], TRUST)),
    "remove": (upgraded, lambda archives: store.remove("sql")),
    "rollback": (upgraded, lambda archives: store.rollback()),
    "install that sweeps": (flooded, lambda archives: store.install(archives["0.1.0"], TRUST)),
    "gc": (upgraded, lambda archives: store.gc()),
}


SLOW = ("install over a damaged package", "install that sweeps")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in CHANGES])
def test_kill(name: str, archives: dict[str, Path], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "HISTORY", 2)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # counted, not made: a kill takes nothing from the system
    prepare, change = CHANGES[name]
    prepare(archives)
    home.mkdir(exist_ok=True)
    shutil.copytree(home, tmp_path / "before")
    old = state()
    change(archives)
    new = state()
    seen = set()
    for at in range(1, 1000):
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "before", home)
        died, step = killed(lambda: change(archives), at, tmp_path / "report")
        found = state()
        seen.add("new" if found == new else "old")
        assert found in (old, new), f"killed at {step}"
        if found == old or name not in ("remove", "rollback"):  # done once more, these two do something else
            change(archives)
        assert state() == new, f"not repaired after {step}"
        assert not list((disk.root() / "staging").iterdir()), f"left behind after {step}"
        if not died:
            break
    assert seen == {"old", "new"} or old == new
    assert at > 8, "the fuse saw too little"


def test_kill_of_trust_add(tmp_path: Path, home: Path) -> None:
    for at in range(1, 100):
        shutil.rmtree(home, ignore_errors=True)
        died, step = killed(lambda: trust.add(KEY.public.pem, "sql"), at, tmp_path / "report")
        assert sum(pin.origin == "user" for pin in trust.load().pins) in ((0, 1) if died else (1,)), step
        if not died:
            break
    assert at > 3


def test_kill_of_sign(archives: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive that is signed in place is whole at every moment, and signing it once more is all that it takes."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    unsigned = packages.expert(tmp_path / "unsigned")
    folder = tmp_path / "here"
    seen = set()
    for at in range(1, 200):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(unsigned.parent, folder)
        path = folder / unsigned.name
        died, step = killed(lambda path=path: archive.sign(path, KEY), at, tmp_path / "report")
        archive.verify(path, None)
        seen.add(len(archive.peek(path).signatures))
        sums = path.with_name(f"{path.name}.sha256")
        assert sums.read_text(encoding="ascii").endswith(f"  {path.name}\n"), step
        archive.sign(path, KEY)
        assert archive.verify(path, TRUST).signers, step
        assert len(archive.peek(path).signatures) == 1, step
        assert sums.read_text(encoding="ascii").split()[0] == sha256_of(path), step
        if not died:
            break
    assert seen == {0, 1}
    assert at > 10
