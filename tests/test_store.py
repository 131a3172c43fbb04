"""The store: what is installed, and what happens when the disk, another process or a file does not play along."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import packages
import pytest
from hostile import KEY

from expert_cli import store
from expert_cli.archive import Archive
from expert_cli.errors import BaseModelError, ExpertError, ManifestError, UsageError, VerificationError
from expert_cli.store import disk, lock
from expert_cli.trust import Pin, Trust

TRUST = Trust((Pin("sql", KEY.public.id, KEY.public.pem.decode()), Pin("acme", KEY.public.id, KEY.public.pem.decode())))


def archive(folder: Path, version: str = "0.1.0", **changes: object) -> Path:
    return packages.expert(folder, KEY, version=version, **changes)


def versions() -> dict[str, str]:
    return {entry.name: entry.version for entry in store.installed()}


def tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) if folder.exists() else []


def test_install_find_remove(tmp_path: Path, home: Path) -> None:
    assert store.installed() == ()
    entry = store.install(archive(tmp_path), TRUST, source="here")
    assert store.find("sql") == entry
    assert store.installed() == (entry,)
    assert {file.name: file.read_bytes() for file in entry.folder.iterdir() if file.name != "signature.json"} == packages.members()
    assert entry.manifest.as_dict() == packages.manifest()
    assert (entry.signers, entry.unsigned, entry.source, entry.base_sha256) == ((KEY.public.id,), False, "here", packages.BASE)
    assert tree(home / "store" / "staging") == []
    assert store.remove("sql") == entry
    with pytest.raises(UsageError, match="expert-cli install sql"):
        store.find("sql")
    with pytest.raises(UsageError):
        store.remove("sql")


def test_upgrade_and_back(tmp_path: Path) -> None:
    store.install(archive(tmp_path, "0.1.0"), TRUST)
    store.install(archive(tmp_path, "0.2.0"), TRUST)
    store.install(archive(tmp_path, name="acme-sql"), TRUST)
    assert versions() == {"sql": "0.2.0", "acme-sql": "0.1.0"}
    store.remove("sql")
    trail = []
    while versions() != {"sql": "0.1.0"}:
        trail.append({entry.name: entry.version for entry in store.rollback()})
    assert trail == [{"sql": "0.2.0", "acme-sql": "0.1.0"}, {"sql": "0.2.0"}, {"sql": "0.1.0"}]
    assert store.check("sql", TRUST).version == "0.1.0"
    with pytest.raises(UsageError, match="no earlier state"):
        store.rollback()
    store.install(archive(tmp_path, "0.3.0"), TRUST)
    store.rollback()
    assert versions() == {"sql": "0.1.0"}


def test_installing_again_changes_nothing(tmp_path: Path, home: Path) -> None:
    first = store.install(archive(tmp_path), TRUST)
    before = tree(home)
    assert store.install(archive(tmp_path), TRUST) == first
    assert tree(home) == before


def test_gc(tmp_path: Path, home: Path) -> None:
    assert store.gc() == 0
    for version in ("0.1.0", "0.2.0", "0.3.0"):
        store.install(archive(tmp_path, version), TRUST)
    assert store.gc() == 2
    assert versions() == {"sql": "0.3.0"}
    assert len(list((home / "store" / "packages").iterdir())) == len(disk.generations()) == 1


def test_history_is_bounded(tmp_path: Path, home: Path) -> None:
    for number in range(store.HISTORY + 3):
        store.install(archive(tmp_path, f"0.{number}.0"), TRUST)
    assert len(disk.generations()) == store.HISTORY + 1, "what is too old goes with the change after"
    assert len(list((home / "store" / "packages").iterdir())) == store.HISTORY + 1


def test_unsigned_is_recorded(tmp_path: Path) -> None:
    entry = store.install(packages.expert(tmp_path), None)
    assert entry.unsigned
    assert b'"signers": []' in store.lockfile()
    with pytest.raises(VerificationError, match="not signed"):
        store.check("sql", TRUST)


@pytest.mark.parametrize("change", ["edit", "delete", "link"])
def test_check_sees_changed_files(change: str, tmp_path: Path) -> None:
    card = store.install(archive(tmp_path), TRUST).folder / "card.md"
    content = card.read_bytes()
    card.unlink()
    if change == "edit":
        card.write_bytes(content + b"!")
    elif change == "link":
        (tmp_path / "card.md").write_bytes(content)
        card.symlink_to(tmp_path / "card.md")
    with pytest.raises(VerificationError, match=r"card\.md .* install it again"):
        store.check("sql", TRUST)
    store.remove("sql")
    store.install(archive(tmp_path), TRUST)
    assert store.check("sql", TRUST)


def test_check_sees_revocation(tmp_path: Path) -> None:
    store.install(archive(tmp_path), TRUST)
    with pytest.raises(VerificationError, match="revoked"):
        store.check("sql", replace(TRUST, revoked={KEY.public.id: "stolen"}))


def test_a_lock_pins_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path)
    store.install(path, TRUST)
    (tmp_path / "expert.lock").write_bytes(store.lockfile())
    (entry,) = store.locked(tmp_path / "expert.lock")
    monkeypatch.setenv("EXPERT_HOME", str(tmp_path / "elsewhere"))
    assert store.install(path, TRUST, digest=entry.digest).digest == entry.digest
    other = archive(tmp_path / "other", description="Other.")
    with pytest.raises(VerificationError, match="the lock names"):
        store.install(other, TRUST, digest=entry.digest)
    assert store.find("sql").digest == entry.digest


def test_another_base_is_refused(tmp_path: Path, home: Path) -> None:
    def check_base(found: Archive) -> None:
        raise BaseModelError(f"{found.manifest.base} differs")

    with pytest.raises(BaseModelError, match="nano differs"):
        store.install(archive(tmp_path), TRUST, check_base=check_base)
    assert tree(home) == []


def test_what_others_require_stays(tmp_path: Path) -> None:
    store.install(archive(tmp_path), TRUST)
    store.install(archive(tmp_path, name="acme-report", requires=["sql>=0.1,<1"]), TRUST)
    with pytest.raises(UsageError, match=r"acme-report 0\.1\.0 requires sql.* remove that one first"):
        store.remove("sql")
    store.remove("acme-report")
    store.remove("sql")


@pytest.mark.parametrize("folder", ["packages", "generations", "staging"])
def test_82_a_linked_folder_is_refused(folder: str, tmp_path: Path, home: Path) -> None:
    store.install(archive(tmp_path), TRUST)
    (home / "store" / folder).rename(tmp_path / folder)
    (home / "store" / folder).symlink_to(tmp_path / folder)
    with pytest.raises(VerificationError, match="symbolic link"):
        store.install(archive(tmp_path, "0.2.0"), TRUST)


FULL = """
import os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store import TRUST
from expert_cli import store
from expert_cli.errors import ExpertError, VerificationError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    store.install(Path(sys.argv[2]), TRUST)
except VerificationError:
    raise
except ExpertError as problem:
    sys.exit(str(problem))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("room", [0, 100, 900])
def test_84_disk_full(room: int, tmp_path: Path, home: Path) -> None:
    """No file may grow beyond ``room`` bytes: the disk refuses as a full one does."""
    store.install(archive(tmp_path, "0.1.0"), TRUST)
    before = tree(home)
    newer = archive(tmp_path, "0.2.0")
    done = subprocess.run([sys.executable, "-c", FULL, str(Path(__file__).parent), str(newer), str(room)], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 1, done.stderr
    assert "nothing was changed" in done.stderr
    assert "EXPERT_HOME" in done.stderr
    assert tree(home) == before
    assert store.check("sql", TRUST).version == "0.1.0"


def test_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EXPERT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ExpertError, match="set EXPERT_HOME to a folder"):
        store.install(archive(tmp_path), TRUST)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions")
def test_a_home_that_is_read_only(tmp_path: Path, home: Path) -> None:
    store.install(archive(tmp_path), TRUST)
    before = tree(home)
    words = [sys.executable, "-c", FULL, str(Path(__file__).parent), str(archive(tmp_path, "0.2.0")), str(1 << 30)]
    if os.geteuid() == 0:  # root may write everywhere, unless it gives that up
        if not shutil.which("setpriv"):
            pytest.skip("setpriv is not installed; apt-get install util-linux")
        words = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *words]
    folders = (home / "store" / "staging", home / "store" / "generations", home / "store" / "packages", home / "store", home)
    try:
        for folder in folders:
            folder.chmod(0o555)
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 1, done.stderr
        assert "cannot be written: Permission denied" in done.stderr
        assert "set EXPERT_HOME to a folder" in done.stderr
        assert tree(home) == before
        assert versions() == {"sql": "0.1.0"}  # what is there can be read
    finally:
        for folder in folders:
            folder.chmod(0o755)


INSTALL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_store import TRUST
from expert_cli import store
store.install(Path(sys.argv[2]), TRUST)
"""


def test_85_installs_at_once(tmp_path: Path) -> None:
    paths = [archive(tmp_path, name=name) for name in ("sql", "acme", "acme-a", "acme-b")]
    running = [subprocess.Popen([sys.executable, "-c", INSTALL, str(Path(__file__).parent), str(path)]) for path in paths]
    assert [process.wait(60) for process in running] == [0] * len(paths)
    assert set(versions()) == {"sql", "acme", "acme-a", "acme-b"}
    for name in versions():
        assert store.check(name, TRUST)


def test_a_held_store_is_waited_for_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "PATIENCE", 0.1)
    with disk.held(), pytest.raises(ExpertError, match="another process has held"):
        store.install(archive(tmp_path), TRUST)


@pytest.mark.parametrize(
    ("content", "fault"),
    [("", "line 1"), ("[]", "unreadable"), ('{"format": 1}', "unreadable"), ('{"format": 9, "experts": []}', "upgrade"), ('{"format": 1, "experts": [{}]}', "unreadable")],
)
def test_a_malformed_lock(content: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "expert.lock").write_text(content)
    with pytest.raises(ManifestError, match=fault):
        lock.load(tmp_path / "expert.lock")


def test_lost_files_are_named(tmp_path: Path, home: Path) -> None:
    entry = store.install(archive(tmp_path), TRUST)
    entry.folder.rename(tmp_path / "lost")
    with pytest.raises(VerificationError, match="expert-cli install sql"):
        store.find("sql")
    store.install(archive(tmp_path), TRUST)
    assert store.check("sql", TRUST)
    (home / "store" / "current").write_text("x")
    with pytest.raises(ExpertError, match="unreadable"):
        store.installed()
