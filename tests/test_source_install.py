"""From where an archive lies to an installed expert, through the command; the lock names it for good (case 76)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import registry
from click.testing import CliRunner
from github_api import GitHub
from packages import expert
from test_source_git import repository_served
from web import Reply, Request, Web, clean, serve

from expert_cli import paths, signing, store, trust
from expert_cli.cli import main, packages
from expert_cli.errors import ExpertError, VerificationError
from expert_cli.sources import oci
from expert_cli.sources.oci import Descriptor, Location, Registry

KEY = signing.generate()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    monkeypatch.setattr(packages, "fits", lambda _: None)  # the base of these archives is no real one
    trust.add(KEY.public.pem, "sql", source="test")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return expert(tmp_path / "made", KEY)


@pytest.fixture
def server(archive: Path) -> Iterator[Web]:
    def answer(request: Request) -> Reply:
        path = archive.parent / request.path.rpartition("/")[2]
        return Reply(200, {"ETag": '"x"'}, path.read_bytes()) if path.is_file() else Reply(404)

    with serve(answer) as running:
        yield running


def call(*arguments: str) -> Any:
    done = CliRunner().invoke(main, list(arguments))
    if done.exception:
        raise done.exception
    return done


def lying() -> list[str]:
    """What is left of downloads."""
    return [path.name for path in paths.cache().rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_address(server: Web, archive: Path, tmp_path: Path) -> None:
    url = f"{server.url}/{archive.name}"
    assert call("install", url).stdout == "installed sql 0.1.0 on nano\n"
    assert [one.source for one in store.installed()] == [url]
    assert lying() == []
    lock = tmp_path / "expert.lock"
    lock.write_bytes(store.lockfile())
    call("remove", "sql")
    assert json.loads(call("install", "--locked", str(lock), "--json").stdout)["installed"][0]["source"] == url
    call("remove", "sql")
    asked = len(server.asked)
    call("install", "--locked", str(lock), "--from", str(archive.parent))
    assert len(server.asked) == asked


def test_what_the_lock_does_not_name_is_refused(server: Web, archive: Path, tmp_path: Path) -> None:  # 76
    call("install", f"{server.url}/{archive.name}")
    lock = tmp_path / "expert.lock"
    lock.write_bytes(store.lockfile())
    call("remove", "sql")
    expert(archive.parent, KEY, description="Moved.")
    with pytest.raises(VerificationError, match="the lock names"):
        call("install", "--locked", str(lock))
    assert store.installed() == ()


def test_unknown_signer_is_refused(server: Web, archive: Path) -> None:
    expert(archive.parent, signing.generate())
    with pytest.raises(VerificationError):
        call("install", f"{server.url}/{archive.name}")
    assert (store.installed(), lying()) == ((), [])


def test_tampered_archive_is_refused_by_its_sum(server: Web, archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    with pytest.raises(VerificationError, match="its sha256 is not"):
        call("install", f"{server.url}/{archive.name}")
    assert not paths.home().exists() or lying() == []


def test_release(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = GitHub()
    with serve(fake) as api, serve(fake.objects) as cdn:
        fake.url, fake.cdn = api.url, cdn.url
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        variant = archive.name.replace("nano", "qwen3-0.6b")
        fake.add("v1", {variant: b"not for the base that is here", archive.name: archive.read_bytes()})
        call("install", "github:acme/experts")
    assert store.find("sql").source == f"github:acme/experts@v1#{archive.name}"


def test_registry(archive: Path, tmp_path: Path) -> None:
    with registry.running(tmp_path / "registry") as host:
        content = archive.read_bytes()
        target = Registry(Location.parse(f"oci://{host}/acme/sql:1"))
        for blob in (b"{}", content):
            oci.push(target, oci.digest_of(blob), len(blob), io.BytesIO(blob))
        manifest = oci.manifest_for(Descriptor(oci.LAYER, oci.digest_of(content), len(content), archive.name), {})
        oci.tag(target, manifest, "1")
        call("install", f"oci://{host}/acme/sql:1")
        pinned = f"oci://{host}/acme/sql:1@{oci.digest_of(manifest)}"
        assert store.find("sql").source == pinned
        call("remove", "sql")
        call("install", pinned)


def test_newer_releases(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = GitHub()
    with serve(fake) as api, serve(fake.objects) as cdn:
        fake.url, fake.cdn = api.url, cdn.url
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        fake.add("v1", {archive.name: archive.read_bytes()})
        call("install", "github:acme/experts@v1")
        assert "7.2.0" not in call("outdated", "--json").stdout
        for version in ("7.2.0", "0.0.9"):
            newer = expert(tmp_path / "more", KEY, version=version)
            fake.add(f"v{version}", {newer.name: newer.read_bytes(), "notes.txt": b"x"})
        assert json.loads(call("outdated", "--json").stdout)["outdated"][0]["available"] == "7.2.0"
        assert call("upgrade").stdout == "installed sql 7.2.0 on nano\n"
        assert store.find("sql").source == "github:acme/experts@v7.2.0#expert-sql-nano.v7.2.0.expert"
        assert (call("upgrade").stdout, lying()) == ("nothing to install: it is there already\n", [])
    # what cannot be asked is said, and ends in failure
    with pytest.raises(ExpertError, match=r"sql: .*no connection"):
        call("outdated")


def test_newer_tags(archive: Path, tmp_path: Path) -> None:
    with registry.running(tmp_path / "registry") as host:
        for path, tag in ((archive, "0.1.0-nano"), (expert(tmp_path / "more", KEY, version="7.2.0"), "v7.2.0-nano")):
            content = path.read_bytes()
            target = Registry(Location.parse(f"oci://{host}/acme/sql:{tag}"))
            for blob in (b"{}", content):
                oci.push(target, oci.digest_of(blob), len(blob), io.BytesIO(blob))
            manifest = oci.manifest_for(Descriptor(oci.LAYER, oci.digest_of(content), len(content), path.name), {})
            for name in (tag, "latest", "no.version"):
                oci.tag(target, manifest, name)
            if path is archive:
                call("install", f"oci://{host}/acme/sql")
        assert json.loads(call("outdated", "--json").stdout)["outdated"][0]["available"] == "7.2.0"
        assert call("upgrade", "sql").stdout == "installed sql 7.2.0 on nano\n"
        assert store.find("sql").source == f"oci://{host}/acme/sql:v7.2.0-nano@{oci.digest_of(manifest)}"


def test_newer_files(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with repository_served(tmp_path) as repository:
        repository.commit(**{f"experts__{archive.name}": archive.read_bytes()})
        call("install", f"git+{repository.url}")
        newer = expert(tmp_path / "more", KEY, version="7.2.0")
        elsewhere = expert(tmp_path / "more", KEY, version="7.3.0")
        commit = repository.commit(**{f"experts__{newer.name}": newer.read_bytes(), elsewhere.name: b"another folder"})
        assert json.loads(call("outdated", "--json").stdout)["outdated"][0]["available"] == "7.2.0"
        assert call("upgrade").stdout == "installed sql 7.2.0 on nano\n"
        assert store.find("sql").source == f"git+{repository.url}@{commit}#experts/{newer.name}"


def test_a_pinned_expert_is_not_upgraded_by_others(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = signing.generate()
    trust.add(other.public.pem, "sql", source="test")
    fake = GitHub()
    with serve(fake) as api, serve(fake.objects) as cdn:
        fake.url, fake.cdn = api.url, cdn.url
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        fake.add("v1", {archive.name: archive.read_bytes()})
        call("install", "github:acme/experts@v1")
        call("trust", "pin", "sql")
        newer = expert(tmp_path / "more", other, version="7.2.0")
        fake.add("v2", {newer.name: newer.read_bytes()})
        with pytest.raises(VerificationError, match="did not sign this one"):
            call("upgrade")
        assert (store.find("sql").version, lying()) == ("0.1.0", [])


def test_offline(server: Web, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERT_OFFLINE", "1")
    with pytest.raises(ExpertError, match="the network is forbidden"):
        call("install", f"{server.url}/{archive.name}")
    assert server.asked == []
