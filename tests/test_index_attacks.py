"""What an attacker between an index and its reader can not do, and what the reader does offline."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from indexes import KEY, OTHER, PUBLISHER, ROOTS, call, index, publisher, served, state, trusted
from test_publish import evaluated
from web import Reply, Web, clean

from expert_cli import paths, signing, store, trust
from expert_cli.cli import packages
from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.index import client
from expert_cli.index.repository import Repository


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    monkeypatch.setattr(packages, "fits", lambda _: None)  # the base of these archives is no real one
    publisher(monkeypatch)


@pytest.fixture
def made(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return index(tmp_path, tmp_path_factory.mktemp("index"))


@pytest.fixture
def web(made: Repository) -> Iterator[Web]:
    with served(made) as running:
        yield running


def swapped(made: Repository, role: str, old: bytes) -> None:
    (made.metadata / role).write_bytes(old)


def resigned(made: Repository, role: str, key: signing.PrivateKey, **changes: Any) -> None:
    """The latest metadata of a role with changes, signed by a key."""
    from expert_cli.index.repository import signer

    held = made.load(role)
    for name, value in changes.items():
        setattr(held.signed, name, value)
    held.signatures.clear()
    held.sign(signer(key))
    path = made.metadata / ("timestamp.json" if role == "timestamp" else f"{held.signed.version}.{role}.json")
    held.to_file(str(path))


def rollback(made: Repository, folder: Path) -> None:
    shutil.copytree(made.folder, folder / "old")
    made.add(evaluated(folder / "made", version="0.5.0"), KEY)
    client.Index(client.listed()[0]).refresh()
    shutil.rmtree(made.folder)
    shutil.copytree(folder / "old", made.folder)


def mixed(made: Repository, folder: Path) -> None:
    """The documents' bin of yesterday under the snapshot of today."""
    role = made._bin_name("sql")
    old = made.load(role).to_bytes()
    made.add(evaluated(folder / "made", version="0.5.0"), KEY)
    (made.metadata / f"{made.load(role).signed.version}.{role}.json").write_bytes(old)


def endless(made: Repository, folder: Path) -> None:
    path = made.metadata / "timestamp.json"
    path.write_bytes(path.read_bytes() + b" " * 100_000)


def document_swapped(made: Repository, folder: Path) -> None:
    one, other = (made._bin_name("sql"), next(made.targets.glob("*.other.json")))
    listed = made.load(one).signed.targets["sql.json"]
    (made.targets / f"{listed.hashes['sha256']}.sql.json").write_bytes(other.read_bytes())


ATTACKS: list[tuple[Callable[[Repository, Path], object], str]] = [
    (rollback, "a rollback"),  # 80
    (lambda made, folder: resigned(made, "timestamp", KEY, expires=datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)),
     "a freeze attack"),  # 81
    (lambda made, folder: resigned(made, "snapshot", KEY, expires=datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)),
     "a freeze attack"),
    (mixed, "rollback|mix and match"),
    (endless, "endless data"),
    (document_swapped, "mix and match"),
    (lambda made, folder: resigned(made, "timestamp", OTHER), "not signed by enough"),
    (lambda made, folder: resigned(made, "snapshot", OTHER), "not signed by enough"),
    (lambda made, folder: resigned(made, made._bin_name("sql"), OTHER), "not signed by enough"),
    (lambda made, folder: resigned(made, "targets", KEY), "not signed by enough"),
    (lambda made, folder: (made.metadata / "timestamp.json").write_bytes(b"{}"), "refused"),
    (lambda made, folder: (made.metadata / "timestamp.json").unlink(), "refused: .*404"),
    (lambda made, folder: (made.metadata / "2.targets.json").unlink(), "refused: .*404"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("attack", "message"), ATTACKS, ids=[f"{n} {message}" for n, (_, message) in enumerate(ATTACKS)]
)
def test_attacks_are_refused_and_nothing_is_installed(
    made: Repository, web: Web, tmp_path: Path, attack: Callable[[Repository, Path], object], message: str
) -> None:
    trusted(made, web.url)
    made.rotate(ROOTS[:2], ROOTS[:2], 2, KEY)  # so that there is something new to read
    attack(made, tmp_path)
    with pytest.raises(VerificationError, match=message):
        call("install", "sql")
    assert store.installed() == ()
    assert not (paths.home() / "store").exists()


def test_an_endless_chain_of_roots_is_cut(made: Repository, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each root is signed as it must be, by a thief of the root keys; the reader stops, and asks for no timestamp."""
    from expert_cli.index.repository import signer

    known = trusted(made, web.url)
    monkeypatch.setattr(client, "ROOTS", 20)
    keys = [signer(key) for key in ROOTS[:2]]
    root = made.load("root")
    for version in range(2, 60):
        root.signed.version = version
        root.signatures.clear()
        for key in keys:
            root.sign(key, append=True)
        (made.metadata / f"{version}.root.json").write_bytes(root.to_bytes())
    web.asked.clear()
    for first in (2, 22):
        with pytest.raises(VerificationError, match=r"refused: it has more than 20 new roots \(an endless chain"):
            client.Index(known).refresh()
        asked = [path.rpartition("/")[2] for path in web.paths()]
        assert asked == [f"{version}.root.json" for version in range(first, first + 21)]
        web.asked.clear()
    client.Index(known).refresh()  # as many as there are: what was read is kept


def test_a_root_without_an_end_is_not_read(made: Repository, web: Web) -> None:
    first = made.metadata / "1.root.json"
    first.write_bytes(first.read_bytes() + b" " * client.ROOT_BYTES)
    with pytest.raises(ExpertError, match="no index can be read there"):
        client.trust(web.url, sha256="0" * 64)


def test_another_index_key_recovers_from_a_fast_forward(made: Repository, web: Web, tmp_path: Path) -> None:
    known = trusted(made, web.url)
    honest = (made.metadata / "timestamp.json").read_bytes()
    resigned(made, "timestamp", KEY, version=1_000_000)  # by a thief of the index key
    client.Index(known).refresh()
    (made.metadata / "timestamp.json").write_bytes(honest)
    with pytest.raises(VerificationError, match="a rollback"):
        client.Index(known).refresh()
    made.rotate(ROOTS[:2], ROOTS[:2], 2, OTHER)
    client.Index(known).refresh()
    # the stolen key is worth nothing now
    resigned(made, "timestamp", KEY, version=2_000_000)
    with pytest.raises(VerificationError, match="not signed by enough"):
        client.Index(known).refresh()


def test_an_archive_that_the_index_does_not_name_is_refused(made: Repository, web: Web, tmp_path: Path) -> None:
    trusted(made, web.url)
    target = made.packages / "expert-sql-nano.v0.4.0.expert"
    held = target.read_bytes()
    for content in (held[:-1] + bytes([held[-1] ^ 1]), held[:-1], held + b"x"):
        target.write_bytes(content)
        with pytest.raises(ExpertError):
            call("install", "sql")
        assert store.installed() == ()
    # signed by the publisher, but another version: the index decides what the name means
    target.write_bytes((made.packages / "expert-sql-nano.v0.3.0.expert").read_bytes())
    with pytest.raises(ExpertError):
        call("install", "sql")
    target.write_bytes(held)
    call("install", "sql")


def test_an_index_does_not_vouch_for_archives(made: Repository, web: Web) -> None:
    trusted(made, web.url)
    for key in ("sql", "other"):
        trust.remove(PUBLISHER.public.id, key)
    with pytest.raises(VerificationError, match="unknown key"):
        call("install", "sql")


@pytest.mark.parametrize(
    ("later", "grace", "works"),
    [(1, None, True), (36, None, True), (38, None, False), (31, "0", False), (29, "0", True), (90, "80", True)],
)
def test_offline_what_was_verified_last_holds_for_the_grace(
    made: Repository, web: Web, monkeypatch: pytest.MonkeyPatch, later: int, grace: str | None, works: bool
) -> None:
    known = trusted(made, web.url)
    assert client.Index(known).document("sql") is not None
    monkeypatch.setattr("expert_cli.index.fetcher.Fetcher._from_web", staticmethod(cut))
    if grace is not None:
        monkeypatch.setenv("EXPERT_INDEX_GRACE", grace)
    index = client.Index(known, now=datetime.now(UTC) + timedelta(days=later))
    if works:
        found = index.document("sql")
        assert found is not None
        assert index.offline
        assert index.document("other") is None  # never read
    else:
        with pytest.raises(ExpertError, match="too long ago"):
            index.document("sql")


def cut(url: str) -> Iterator[bytes]:
    raise client.CutError(f"{url}: no connection (test)")


def test_offline_says_so_and_an_index_that_was_never_read_does_not_do(made: Repository, web: Web) -> None:
    trusted(made, web.url)
    call("install", "sql==0.3.0")
    port = web.url
    web.closing.set()
    before = web.answer
    web.answer = lambda request: Reply(503)
    done = call("outdated")
    assert "cannot be reached; going by what was verified last" in done.stderr
    assert "0.4.0" in done.stdout
    web.answer = before
    assert "cannot be reached" not in call("outdated").stderr
    with pytest.raises(ExpertError, match="no index can be read there"):
        client.trust(f"{port}/elsewhere", sha256="0" * 64)


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ({}, UsageError, "say how you know"),
        ({"sha256": "0" * 64}, VerificationError, "do not trust it"),
        ({"root": b"{}"}, VerificationError, "refused"),
    ],
)
def test_trusting_needs_a_reason(
    made: Repository, web: Web, how: dict[str, Any], kind: type[Exception], message: str
) -> None:
    before = state()
    with pytest.raises(kind, match=message):
        client.trust(web.url, **how)
    assert state() == before
    with pytest.raises(UsageError, match="is not trusted"):
        call("install", "sql", "--index", web.url)
