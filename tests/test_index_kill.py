"""kill -9, or a disk that refuses, before every step of an owner's command: every reader still accepts the index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from indexes import KEY, OTHER, PUBLISHER, ROOTS, trusted
from packages import expert
from test_store_kill import killed

from expert_cli import paths
from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.index import client
from expert_cli.index.document import Document
from expert_cli.index.files import PENDING
from expert_cli.index.repository import Repository
from expert_cli.signing import PrivateKey

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

Deed = Callable[[Repository, Path], object]
DEEDS: dict[str, tuple[Deed, bool]] = {
    "new root and index keys": (lambda made, _: made.rotate(ROOTS[:2], ROOTS[1:], 2, OTHER), True),
    "new root keys": (lambda made, _: made.rotate(ROOTS[:2], ROOTS[2:], 1, KEY), False),
    "more root keys to sign": (lambda made, _: made.rotate(ROOTS[:2], ROOTS, 3, KEY), False),
    "new index key": (lambda made, _: made.rotate(ROOTS[:2], ROOTS[:2], 2, OTHER), False),
    "the same keys": (lambda made, _: made.rotate(ROOTS[:2], ROOTS[:2], 2, KEY), False),
    "add": (lambda made, path: made.add(path, KEY), True),
    "refresh": (lambda made, _: made.refresh(KEY), False),
}
"""What is done to an index of 2 bins, and whether it is tried in every run."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    made = Repository(folder / "experts")
    made.init(ROOTS[:2], 2, KEY, bins=2)
    made.add(expert(folder, PUBLISHER, version="0.1.0"), KEY)
    expert(folder, PUBLISHER, version="0.2.0").rename(folder / "next.expert")
    return folder


def read(made: Repository) -> list[str]:
    """The versions that a reader from the start and one who was there before are told, which have to be the same."""
    known, folder = client.find(str(made.folder)), paths.home() / "fresh"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(made.metadata / "1.root.json", folder / client.FIRST)
    fresh = versions(client.Index(known, folder).document("sql"))
    assert versions(client.Index(known).document("sql")) == fresh
    return fresh


def versions(found: Document | None) -> list[str]:
    assert found is not None
    return [one.version for one in found.releases]


def index_key(made: Repository) -> PrivateKey:
    """The index key that the owner has to use now."""
    try:
        made.refresh(KEY)
    except UsageError:
        return OTHER
    return KEY


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (not each)) for name, (_, each) in DEEDS.items()]
)
def test_kill(name: str, before: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # counted, not made: a kill takes nothing from the system
    deed, _ = DEEDS[name]
    made, archive = Repository(tmp_path / "experts"), before / "next.expert"
    shutil.copytree(before / "experts", made.folder)
    trusted(made, str(made.folder))
    assert read(made) == ["0.1.0"]
    shutil.copytree(home, tmp_path / "kept")
    adds = name == "add"
    told = set[tuple[str, ...]]()
    for at in range(1, 1000):
        for folder, source in ((made.folder, before / "experts"), (home, tmp_path / "kept")):
            shutil.rmtree(folder)
            shutil.copytree(source, folder)
        died, step = killed(lambda: deed(made, archive), at, tmp_path / "report")
        try:
            told.add(tuple(read(made)))
            key = index_key(made)  # the owner's next command, and it repairs
            assert not (made.metadata / PENDING).exists()
            read(made)
            if adds or not died:
                made.add(archive, key)
                assert read(made) == ["0.1.0", "0.2.0"]
        except ExpertError as problem:
            raise AssertionError(f"killed at {step}") from problem
        if not died:
            break
    assert told == ({("0.1.0",), ("0.1.0", "0.2.0")} if adds else {("0.1.0",)})
    assert at > 20, "the fuse saw too little"


@pytest.mark.parametrize("name", ["new root and index keys", "add"])
@pytest.mark.parametrize("what", ["fsync", "replace"])
def test_a_disk_that_refuses(
    what: str, name: str, before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner whose disk is full gives the same command again, and it is done once."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # refused, but not made
    holder: type = Path if what == "replace" else os  # type: ignore[assignment]
    deed, made, honest = DEEDS[name][0], Repository(tmp_path / "experts"), getattr(holder, what)
    twice = 0
    for at in range(1000):
        shutil.rmtree(tmp_path / "experts", ignore_errors=True)
        shutil.copytree(before / "experts", made.folder)
        trusted(made, str(made.folder))
        left = [at]

        def refusing(*arguments: object, left: list[int] = left) -> object:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            return honest(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(holder, what, refusing)
            try:
                deed(made, before / "next.expert")
                break
            except ExpertError as problem:
                assert "No space left on device" in str(problem)
                assert "give the command again" in str(problem)
        read(made)
        deed(made, before / "next.expert")
        assert read(made) == (["0.1.0", "0.2.0"] if name == "add" else ["0.1.0"])
        roots = len(list(made.metadata.glob("*.root.json")))
        # once, not twice; unless nothing but the last flush failed, of the folder without its note
        assert roots in ({1} if name == "add" else {3, 4})
        twice += roots == 4
    assert at > 5
    assert twice <= 1


Reading = Callable[[Repository], object]
READINGS: dict[str, tuple[bool, Reading]] = {
    "trust": (False, lambda made: trusted(made, str(made.folder))),
    "trust again": (True, lambda made: trusted(made, str(made.folder))),
    "read": (True, lambda made: client.Index(client.listed()[0]).document("sql")),
    "forget": (True, lambda made: client.forget(str(made.folder)) if client.listed() else None),
}
"""What a reader does, and whether the index was trusted before."""


@pytest.mark.parametrize("name", READINGS)
def test_a_reader_is_killed(
    name: str, before: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does the same again, and nothing is left behind; what was trusted stays so until it is forgotten."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    was, deed = READINGS[name]
    made = Repository(tmp_path / "experts")
    shutil.copytree(before / "experts", made.folder)
    home.mkdir(exist_ok=True)
    if was:
        trusted(made, str(made.folder))
        client.Index(client.listed()[0]).document("sql")
    made.rotate(ROOTS[:2], ROOTS[:2], 2, OTHER)  # so that there is much to read
    made.add(before / "next.expert", OTHER)
    shutil.copytree(home, tmp_path / "kept", symlinks=True)
    for at in range(1, 1000):
        shutil.rmtree(home)
        shutil.copytree(tmp_path / "kept", home, symlinks=True)
        died, step = killed(lambda: deed(made), at, tmp_path / "report")
        there = client.listed()
        assert len(there) == 1 or name in ("trust", "forget"), step
        for one in there:
            assert versions(client.Index(one).kept("sql") or Document("sql")) in ([], ["0.1.0"], ["0.1.0", "0.2.0"])
        try:
            deed(made)
            if name != "forget":
                assert versions(client.Index(client.listed()[0]).document("sql")) == ["0.1.0", "0.2.0"]
        except ExpertError as problem:
            raise AssertionError(f"killed at {step}") from problem
        left = [path.name for path in (home / "indexes").rglob("*") if path.name.startswith((".draft", "tmp"))]
        assert left == [], f"left behind after {step}"
        if not died:
            break
    assert at > 4


def test_two_readers_at_once(before: Path, tmp_path: Path) -> None:
    made = Repository(tmp_path / "experts")
    shutil.copytree(before / "experts", made.folder)
    trusted(made, str(made.folder))
    code = "from expert_cli.index import client; [client.Index(client.listed()[0]).document('sql') for _ in range(20)]"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]


def test_a_first_root_that_was_changed(before: Path, tmp_path: Path) -> None:
    made = Repository(tmp_path / "experts")
    shutil.copytree(before / "experts", made.folder)
    known = trusted(made, str(made.folder))
    path = known.folder / client.FIRST
    for content in (path.read_bytes() + b" ", b""):
        path.write_bytes(content)
        with pytest.raises(VerificationError, match=f"trust the index again: .* --sha256 {known.root}"):
            client.Index(known).refresh()
    trusted(made, str(made.folder))
    client.Index(known).refresh()


def test_a_note_that_is_no_note(before: Path, tmp_path: Path) -> None:
    made = Repository(tmp_path / "experts")
    shutil.copytree(before / "experts", made.folder)
    (made.metadata / PENDING).write_bytes(b"[[1]]")
    with pytest.raises(VerificationError, match=r"is damaged .*; restore the index"):
        made.refresh(KEY)


def test_an_old_root_that_was_read_a_moment_ago(before: Path, tmp_path: Path) -> None:
    """Between the two index keys both may sign, and only then."""
    made = Repository(tmp_path / "experts")
    shutil.copytree(before / "experts", made.folder)
    made.rotate(ROOTS[:2], ROOTS[:2], 2, OTHER)
    from tuf.api.metadata import Metadata, Root

    signing = [
        len(Metadata[Root].from_file(str(made.metadata / f"{version}.root.json")).signed.roles["timestamp"].keyids)
        for version in (1, 2, 3)
    ]
    assert signing == [1, 2, 1]
