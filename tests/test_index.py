"""Indexes, written and read: what their owner does, and what an attacker between owner and reader can not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from indexes import KEY, OTHER, ROOTS, call, index, publisher, served, trusted
from test_publish import evaluated
from tuf.api.metadata import Metadata
from web import Web, clean

from expert_cli import paths, signing, store
from expert_cli.cli import packages
from expert_cli.digests import sha256_of
from expert_cli.errors import ExpertError, ManifestError, UsageError, VerificationError
from expert_cli.index import client, document
from expert_cli.index.document import Document, Release
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


@pytest.mark.parametrize("over", ["folder", "http"])
def test_the_newest_that_fits_is_installed_with_what_it_requires(made: Repository, web: Web, over: str) -> None:
    url = web.url if over == "http" else str(made.folder)
    digest = sha256_of(made.metadata / "1.root.json")
    call("index", "trust", url, "--sha256", digest)
    assert call("install", "sql").stdout == "installed sql 0.4.0 on nano\n"
    assert call("install", "other").stdout.splitlines() == [
        "installed sql 0.3.0 on nano",
        "installed other 0.1.0 on nano",
    ]
    assert {one.source.rpartition("/")[0] for one in store.installed()} == {f"{url}/packages"}
    assert not list((paths.cache() / "downloads").rglob("*.expert"))
    # a lock names addresses, and installs from them what it named
    lock = made.folder / "expert.lock"
    lock.write_bytes(store.lockfile())
    call("remove", "other")
    call("install", "--locked", str(lock))
    assert [one.name for one in store.installed()] == ["other", "sql"]


def test_upgrade_and_outdated_look_in_indexes(made: Repository, web: Web, tmp_path: Path) -> None:
    trusted(made, web.url)
    call("install", "sql==0.3.0")
    assert json.loads(call("outdated", "--json").stdout)["outdated"][0]["available"] == "0.4.0"
    assert call("upgrade").stdout == "installed sql 0.4.0 on nano\n"
    made.add(evaluated(tmp_path / "made", version="0.5.0"), KEY)
    assert "0.5.0" not in call("outdated", "--no-index").output
    assert call("upgrade", "sql").stdout == "installed sql 0.5.0 on nano\n"


def test_yanked_is_not_chosen_unless_it_is_named(made: Repository, web: Web, tmp_path: Path) -> None:
    trusted(made, web.url)
    call("install", "sql")
    made.yank("sql", "0.4.0", "wrong joins", KEY)
    made.deprecate("sql", "no longer trained", KEY, replacement="sqlite>=2")
    rows = json.loads(call("outdated", "--json").stdout)["outdated"]
    assert rows[0]["remark"] == "yanked: wrong joins; deprecated: no longer trained; use sqlite>=2 instead"
    for command in (["list"], ["info", "sql"], ["outdated"]):
        assert rows[0]["remark"] in call(*command).stdout
    assert json.loads(call("list", "--json").stdout)["installed"][0]["remark"] == rows[0]["remark"]
    assert json.loads(call("info", "sql", "--json").stdout)["remark"] == rows[0]["remark"]
    call("remove", "sql")
    done = call("install", "sql")
    assert done.stdout == "installed sql 0.3.0 on nano\n"
    assert "sql 0.3.0 is deprecated: no longer trained; use sqlite>=2 instead" in " ".join(done.stderr.split())
    # not even from a folder, where the index knows better
    call("remove", "sql")
    assert call("install", "sql", "--from", str(tmp_path / "made")).stdout == "installed sql 0.3.0 on nano\n"
    done = call("install", "sql==0.4")
    assert done.stdout == "installed sql 0.4.0 on nano\n"
    assert "yanked: wrong joins" in done.stderr
    made.yank("sql", "0.4.0", "", KEY)
    call("remove", "sql")
    assert call("install", "sql").stdout == "installed sql 0.4.0 on nano\n"


def test_the_owners_commands(tmp_path: Path) -> None:
    here, keys = str(tmp_path / "experts"), dict[str, str]()
    for name, key in (("a", ROOTS[0]), ("b", ROOTS[1]), ("index", KEY), ("other", OTHER)):
        keys[name] = str(tmp_path / f"{name}.key")
        signing.save_pair(key, Path(keys[name]), None)

    def told(verb: str, *words: str, key: str = "index") -> Any:
        return json.loads(call("index", verb, here, *words, "--key", keys[key], "--json").stdout)

    roots = ("--root-key", keys["a"], "--root-key", keys["b"], "--threshold", "2")
    first = Path(here) / "metadata" / "1.root.json"
    made = told("init", *roots, "--bins", "64")
    assert len(list((Path(here) / "metadata").glob("1.bin-*.json"))) == 64
    assert (made["root"], made["version"], made["sha256"]) == (str(first), 1, sha256_of(first))
    archives = [str(evaluated(tmp_path / "made", version=version)) for version in ("0.1.0", "0.2.0")]
    assert told("add", *archives) == {"added": ["sql"]}
    before = (Path(here) / "metadata" / "timestamp.json").read_bytes()
    assert b'"version":2}}' in before  # of all the archives that were given, one change
    told("add", *archives)  # is there already
    assert (Path(here) / "metadata" / "timestamp.json").read_bytes() == before
    call("index", "trust", here, "--root", str(first))
    assert told("yank", "sql==0.1.0", "--reason", "bad") == {"name": "sql", "version": "0.1.0", "yanked": "bad"}
    assert told("deprecate", "sql", "--reason", "old", "--use", "other") == {
        "name": "sql", "deprecated": "old", "replacement": "other"
    }  # fmt: skip
    soon = told("refresh", "--days", "3")["expires"]
    assert soon < made["expires"]
    assert told("rotate", *roots[:4], "--new-root-key", keys["other"], key="other")["version"] == 3
    with pytest.raises(UsageError, match="not the key of the index"):
        told("refresh")
    told("refresh", key="other")
    assert Repository(Path(here)).load("targets").signed.delegations.succinct_roles.number_of_bins == 64
    found = client.Index(client.find(here)).document("sql")
    assert found is not None
    assert (found.releases[0].yanked, found.deprecated, found.replacement) == ("bad", "old", "other")
    assert len(json.loads(call("index", "list", "--json").stdout)["indexes"]) == 1
    assert json.loads(call("index", "forget", here, "--json").stdout)["url"] == here
    assert json.loads(call("index", "list", "--json").stdout) == {"indexes": []}


def test_the_owners_commands_tell_people(made: Repository, tmp_path: Path) -> None:
    for name, key in (("a", ROOTS[0]), ("b", ROOTS[1]), ("index", KEY)):
        signing.save_pair(key, tmp_path / f"{name}.key", None)
    here, key_ = str(made.folder), ("--key", str(tmp_path / "index.key"))
    roots = ("--root-key", str(tmp_path / "a.key"), "--root-key", str(tmp_path / "b.key"), "--threshold", "2")
    for words, text in (
        (("init", str(tmp_path / "new"), *roots), sha256_of),
        (("add", here, str(evaluated(tmp_path / "made", version="0.5.0"))), f"{here} has sql"),
        (("yank", here, "sql==0.5.0", "--reason", "bad"), "sql==0.5.0 is yanked"),
        (("yank", here, "sql==0.5.0", "--reason", ""), "sql==0.5.0 is no longer yanked"),
        (("deprecate", here, "sql", "--reason", "old"), "sql is deprecated"),
        (("deprecate", here, "sql", "--reason", ""), "sql is no longer deprecated"),
        (("refresh", here, "--days", "3"), f"{here} is good for 3 days"),
        (("rotate", here, *roots), f"{here} has a new root"),
    ):
        if callable(text):
            told = call("index", *words, *key_).stdout.strip()
            assert told == text(tmp_path / "new" / "metadata" / "1.root.json")
        else:
            assert call("index", *words, *key_).stdout.strip() == text


OWNERS_FAULTS: list[tuple[Callable[[Repository, Path], object], str]] = [
    (lambda made, folder: made.init(ROOTS[:1], 1, KEY), "holds an index"),
    (lambda made, folder: Repository(folder / "new").init(ROOTS[:1], 2, KEY), "2 of 1 root keys"),
    (lambda made, folder: Repository(folder / "new").init(ROOTS[:1], 1, KEY, bins=24), "24 bins are no power of two"),
    (lambda made, folder: Repository(folder / "none").add(evaluated(folder / "x"), KEY), "holds no index"),
    (lambda made, folder: made.add(evaluated(folder / "x"), OTHER), "not the key of the index"),
    (lambda made, folder: made.add(evaluated(folder / "x", version="0.3.0", description="Else."), KEY), "another sql 0.3.0"),
    (lambda made, folder: made.yank("sql", "9", "bad", KEY), "no sql 9; there is 0.3.0, 0.4.0"),
    (lambda made, folder: made.yank("none", "9", "bad", KEY), "no expert none"),
    (lambda made, folder: made.deprecate("sql", "", KEY, replacement="other"), "say why sql is deprecated"),
    (lambda made, folder: made.deprecate("sql", "old", KEY, replacement="sql>=1"), "cannot replace itself"),
    (lambda made, folder: made.deprecate("sql", "old", KEY, replacement="../x"), "neither a file nor a name"),
    (lambda made, folder: made.rotate(ROOTS[:1], ROOTS[2:], 1, KEY), "1 of the 2 root keys"),
    (lambda made, folder: made.rotate([OTHER, ROOTS[2]], ROOTS[2:], 1, KEY), "0 of the 2 root keys"),
]  # fmt: skip


@pytest.mark.parametrize(("deed", "message"), OWNERS_FAULTS, ids=[message for _, message in OWNERS_FAULTS])
def test_what_owners_do_wrong_changes_nothing(
    made: Repository, tmp_path: Path, deed: Callable[[Repository, Path], object], message: str
) -> None:
    timestamp = (made.metadata / "timestamp.json").read_bytes()
    with pytest.raises(UsageError, match=message):
        deed(made, tmp_path)
    assert (made.metadata / "timestamp.json").read_bytes() == timestamp


def test_root_keys_rotate_and_readers_follow(made: Repository, web: Web) -> None:
    trusted(made, web.url)
    made.rotate(ROOTS[:2], ROOTS[1:], 2, KEY)
    made.rotate(ROOTS[1:], ROOTS[:1], 1, OTHER)
    call("install", "sql")
    assert {path.name for path in made.metadata.glob("*.root.json")} == {
        f"{version}.root.json"
        for version in (1, 2, 3, 4)  # 3 is signed between two index keys, and lets both sign
    }
    # whoever has the retired keys alone can not go on
    made.rotate(ROOTS[:1], ROOTS[:1], 1, OTHER)
    forged = Metadata.from_file(str(made.metadata / "5.root.json"))
    forged.signed.version = 6
    forged.signatures.clear()
    from expert_cli.index.repository import signer

    forged.sign(signer(ROOTS[1]))
    forged.to_file(str(made.metadata / "6.root.json"))
    with pytest.raises(VerificationError, match="not signed by enough"):
        call("outdated")


def test_a_crash_of_the_owner_leaves_the_old_index(made: Repository, web: Web, tmp_path: Path,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    trusted(made, web.url)
    path, replace, written = evaluated(tmp_path / "made", version="0.5.0"), Path.replace, 0
    while True:
        left = written

        def failing(self: Path, target: Any) -> Path:
            nonlocal left
            if left == 0:
                raise OSError("no space left")
            left -= 1
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", failing)
        try:
            made.add(path, KEY)
            break
        except ExpertError:
            pass
        finally:
            monkeypatch.setattr(Path, "replace", replace)
        found = client.Index(client.listed()[0]).document("sql")
        assert found is not None
        assert [one.version for one in found.releases] == ["0.3.0", "0.4.0"]
        written += 1
    assert written >= 4  # the archive, the document, its bin, snapshot
    found = client.Index(client.listed()[0]).document("sql")
    assert found is not None
    assert found.releases[-1].version == "0.5.0"


def test_publish_into_an_index(made: Repository, tmp_path: Path) -> None:
    signing.save_pair(KEY, tmp_path / "index.key", None)
    path, key = str(evaluated(tmp_path / "made", version="0.6.0")), ("--index-key", str(tmp_path / "index.key"))
    with pytest.raises(UsageError, match="name its key with --index-key"):
        call("publish", path, str(made.folder))
    timestamp = (made.metadata / "timestamp.json").read_bytes()
    assert (
        "add expert-sql-nano.v0.6.0.expert to the index"
        in call("publish", path, str(made.folder), *key, "--dry-run").stdout
    )
    assert (made.metadata / "timestamp.json").read_bytes() == timestamp
    printed = call("publish", path, str(made.folder), *key).stdout.strip()
    assert "published before" in call("publish", path, str(made.folder), *key).stderr
    trusted(made, str(made.folder))
    assert call("install", "sql").stdout == "installed sql 0.6.0 on nano\n"
    call("remove", "sql")
    call("install", printed)
    other = str(evaluated(tmp_path / "other", version="0.6.0", description="Else."))
    with pytest.raises(UsageError, match="with another content"):
        call("publish", other, str(made.folder), *key)


def test_one_document_is_read_for_one_expert(made: Repository, web: Web) -> None:
    trusted(made, web.url)
    web.asked.clear()
    client.Index(client.listed()[0]).document("sql")
    asked = [request.path for request in web.asked]
    assert sum("/targets/" in path for path in asked) == 1
    assert sum("bin-" in path for path in asked) == 1
    assert len(asked) <= 5


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"format": 2}, "format 1"),
    ({"name": "../x"}, "name"),
    ({"deprecated": 1}, "deprecated"),
    ({"replacement": 1}, "replacement"),
    ({"replacement": "../x"}, "replacement"),
    ({"releases": {}}, "releases: not a list"),
    ({"releases": ["x"]}, "releases.0.not an object"),
]
FAULTS += [
    ({"releases": [{"version": "1", "base": "nano", "file": "a.expert", "sha256": "0" * 64, "size": 1,
                    "digest": "0" * 64, "requires": [], "yanked": ""} | change]}, f"releases.0.{next(iter(change))}")
    for change in (
        {"version": "one"}, {"base": ""}, {"file": "../a.expert"}, {"file": "a.zip"}, {"sha256": "x"}, {"size": 0},
        {"size": True}, {"digest": None}, {"requires": "sql"}, {"requires": [1]}, {"yanked": None},
    )
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"), FAULTS, ids=[f"{n} {message}" for n, (_, message) in enumerate(FAULTS)]
)
def test_malformed_documents(changes: dict[str, Any], message: str) -> None:
    data = {"format": 1, "name": "sql", "deprecated": "", "releases": []} | changes
    with pytest.raises(ManifestError, match=message):
        document.parse(json.dumps(data).encode(), "test")


def test_documents_round_trip() -> None:
    release = Release("1.0", "nano", "a.expert", "0" * 64, 5, "1" * 64, ("x>=1",), "bad")
    for found in (Document("sql", (release,)), Document("sql", (release,), "old", "other>=1")):
        assert document.parse(found.dump(), "test") == found
    assert b"replacement" not in Document("sql", (release,), "old").dump()  # the bytes of before there were any
