"""Indexes where people put them: a real web server, a folder, a file: address; and choosing among them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from indexes import KEY, call, index, publisher, served, trusted
from nginx import running
from test_publish import evaluated
from web import Reply, Request, clean, serve

from expert_cli import store
from expert_cli.cli import packages
from expert_cli.digests import sha256_of
from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.index import client
from expert_cli.index.repository import Repository


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    monkeypatch.delenv("EXPERT_INDEX", raising=False)
    monkeypatch.setattr(packages, "fits", lambda _: None)  # the base of these archives is no real one
    publisher(monkeypatch)


@pytest.fixture
def made(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return index(tmp_path, tmp_path_factory.mktemp("index"))


@pytest.fixture
def nginx(made: Repository, tmp_path: Path) -> Iterator[str]:
    with running(tmp_path / "nginx", "gzip on; gzip_types application/octet-stream;", made.folder) as url:
        yield url


def digest(made: Repository) -> str:
    return sha256_of(made.metadata / "1.root.json")


def test_nginx(made: Repository, nginx: str, tmp_path: Path) -> None:
    """From trust to an upgrade, with a yank between; what is not there is told from what is refused."""
    call("index", "trust", nginx, "--sha256", digest(made))
    assert call("install", "sql==0.3.0").stdout == "installed sql 0.3.0 on nano\n"
    made.add(evaluated(tmp_path / "made", version="0.5.0"), KEY)
    made.yank("sql", "0.5.0", "wrong joins", KEY)
    assert call("upgrade").stdout == "installed sql 0.4.0 on nano\n"
    made.yank("sql", "0.5.0", "", KEY)
    assert call("upgrade").stdout == "installed sql 0.5.0 on nano\n"
    assert store.installed()[0].source == f"{nginx}/packages/expert-sql-nano.v0.5.0.expert"
    with pytest.raises(UsageError, match="none"):
        call("install", "none")
    log = (tmp_path / "nginx/access.log").read_text()
    assert " 500 " not in log
    assert " 403 " not in log
    swapped = made.packages / "expert-sql-nano.v0.3.0.expert"
    swapped.write_bytes((made.packages / "expert-sql-nano.v0.4.0.expert").read_bytes())
    with pytest.raises(ExpertError, match=r"bytes|sha256"):
        call("install", "sql==0.3.0")
    (made.metadata / "timestamp.json").write_bytes(b"{}")
    with pytest.raises(VerificationError, match="refused"):
        call("outdated")
    assert [one.version for one in store.installed()] == ["0.5.0"]


def test_a_token_is_for_the_index_and_not_for_where_it_sends_one(
    made: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives on another host, as on a storage behind an index: it learns no token, and must send the right bytes."""

    def answer(request: Request) -> Reply:
        if request.headers.get("Authorization") != "Bearer secret":
            return Reply(401)
        if request.path.startswith("/packages/"):
            return Reply(302, {"Location": f"{storage.url}{request.path}"})
        path = made.folder / request.path.lstrip("/")
        return Reply(200, {}, path.read_bytes()) if path.is_file() else Reply(404)

    with served(made) as storage, serve(answer) as private:
        with pytest.raises(VerificationError, match="401"):
            trusted(made, private.url)
        host = private.url.removeprefix("http://")
        monkeypatch.setenv("EXPERT_TOKEN", f"{host}=secret, {storage.url.removeprefix('http://')}=other")
        trusted(made, private.url)
        assert call("install", "sql").stdout == "installed sql 0.4.0 on nano\n"
        assert storage.paths() == ["/packages/expert-sql-nano.v0.4.0.expert"]
        assert {request.headers.get("Authorization") for request in storage.asked} == {None}


FORMS: list[Callable[[Path], str]] = [
    str,
    lambda folder: f"{folder}/",
    lambda folder: folder.as_uri(),
    lambda folder: f"file://localhost{folder}/",
    lambda folder: f"file:{folder}",
]


@pytest.mark.parametrize("form", FORMS, ids=["folder", "slash", "file:///", "file://localhost", "file:"])
def test_a_folder_by_any_address(made: Repository, tmp_path: Path, form: Callable[[Path], str]) -> None:
    folder = tmp_path / "of experts, ours"
    made.folder.rename(folder)
    moved = Repository(folder)
    address = form(folder) if "file:" not in form(folder) else form(folder).replace(" ", "%20")
    call("index", "trust", address, "--sha256", digest(moved))
    assert [one.url for one in client.listed()] == [str(folder)]
    assert call("install", "sql", "--index", address).stdout == "installed sql 0.4.0 on nano\n"
    assert store.installed()[0].source == str(folder / "packages/expert-sql-nano.v0.4.0.expert")
    moved.add(evaluated(tmp_path / "made", version="0.5.0"), KEY)
    assert call("upgrade").stdout == "installed sql 0.5.0 on nano\n"
    # a disk that is not mounted is no attack: the last verified state holds
    folder.rename(tmp_path / "elsewhere")
    assert "cannot be reached; going by what was verified last" in " ".join(call("outdated").stderr.split())
    (tmp_path / "elsewhere").rename(folder)
    for missing, kind, message in (
        (moved.packages / "expert-sql-nano.v0.3.0.expert", ExpertError, "not in its folder"),
        (moved.metadata / "timestamp.json", VerificationError, "refused"),
    ):
        missing.unlink()
        with pytest.raises(kind, match=message):
            call("install", "sql==0.3.0")
    call("index", "forget", address)
    assert client.listed() == ()


@pytest.mark.parametrize("address", ["file://elsewhere/experts", "file:", "file://"])
def test_a_file_address_of_another_machine(address: str) -> None:
    with pytest.raises(UsageError, match="names no folder of this machine"):
        client.trust(address, sha256="0" * 64)


def test_the_environment_names_indexes(
    made: Repository, nginx: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$EXPERT_INDEX stands for --index, which is stronger; --no-index is stronger still."""
    folder = str(made.folder)
    other = index(tmp_path / "other", tmp_path)
    other.add(evaluated(tmp_path / "made", version="0.9.0"), KEY)
    for url in (nginx, str(other.folder)):
        trusted(made, url)
    assert call("install", "sql").stdout == "installed sql 0.9.0 on nano\n"

    def newest(*options: str) -> str:
        call("remove", "sql")
        call("install", "sql", *options)
        return store.installed()[0].version

    monkeypatch.setenv("EXPERT_INDEX", nginx)
    assert newest() == "0.4.0"
    assert json.loads(call("outdated", "--json").stdout)["outdated"] == []
    assert newest("--index", str(other.folder)) == "0.9.0"
    monkeypatch.setenv("EXPERT_INDEX", f"{nginx} {other.folder}")
    assert newest() == "0.9.0"
    monkeypatch.setenv("EXPERT_INDEX", folder)
    with pytest.raises(UsageError, match=f"{folder} is not trusted; trust it first"):
        call("install", "sql")
    with pytest.raises(UsageError):
        call("install", "other", "--no-index")
    monkeypatch.setenv("EXPERT_INDEX", "")
    assert newest() == "0.9.0"
