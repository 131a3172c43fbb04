"""Archives from model repositories of the hub: its listing, its redirects, its digests; the token stays with it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from packages import expert
from test_source_install import KEY, call, lying
from web import Reply, Request, clean, serve

from expert_cli import store, trust
from expert_cli.cli import packages
from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.sources import hub, remote
from expert_cli.sources.hub import Location

COMMITS = ("a" * 40, "b" * 40)
NANO, QWEN = "expert-sql-nano.v0.1.0.expert", "expert-sql-qwen3-0.6b.v0.1.0.expert"


@dataclass
class Hub:
    """The hub, one repository with a commit for each of ``commits``, and the host that its large files come from."""

    commits: list[dict[str, bytes]] = field(default_factory=list)
    token: str = ""
    cdn: str = ""
    changed: dict[str, Any] = field(default_factory=dict)

    def __call__(self, request: Request) -> Reply:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return Reply(401)
        path = unquote(request.path)
        if found := re.fullmatch(r"/api/models/acme/sql/revision/(\w+)", path):
            at = self.at(found[1])
            return Reply(404) if at is None else self.json({"sha": COMMITS[at]} | self.changed)
        if found := re.fullmatch(r"/api/models/acme/sql/tree/(\w+)\?recursive=true", path):
            at = self.at(found[1])
            assert at is not None
            return self.json(
                [{"type": "directory", "path": "x"}, *(self.row(*one) for one in self.commits[at].items())]
            )
        if found := re.fullmatch(r"/acme/sql/resolve/(\w+)/(.+)", path):
            at = self.at(found[1])
            if at is None or found[2] not in self.commits[at]:
                return Reply(404)
            if found[2].endswith(".expert"):
                return Reply(302, {"Location": f"{self.cdn}/{COMMITS[at]}/{found[2]}", "X-Linked-Etag": '"x"'})
            return Reply(200, {}, self.commits[at][found[2]])
        return Reply(404)

    def at(self, revision: str) -> int | None:
        known = {commit: number for number, commit in enumerate(COMMITS)} | {"main": len(self.commits) - 1, "v1": 0}
        return known.get(revision)

    def row(self, path: str, content: bytes) -> dict[str, Any]:
        row: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
        if path.endswith(".expert"):
            row["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return row

    def files(self, request: Request) -> Reply:
        """The host of large files, which must see no token."""
        if "Authorization" in request.headers:
            return Reply(400)
        commit, _, path = unquote(request.path).lstrip("/").partition("/")
        return Reply(200, {"ETag": '"x"'}, self.commits[COMMITS.index(commit)][path])

    @staticmethod
    def json(data: object) -> Reply:
        return Reply(200, {}, json.dumps(data).encode())


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    clean(monkeypatch)
    monkeypatch.setattr(packages, "fits", lambda _: None)  # the base of these archives is no real one
    trust.add(KEY.public.pem, "sql", source="test")
    made = Hub([{NANO: expert(tmp_path / "made", KEY).read_bytes(), QWEN: b"another base", "README.md": b"x"}])
    with serve(made) as api, serve(made.files) as cdn:
        made.cdn = cdn.url
        monkeypatch.setenv("HF_ENDPOINT", api.url)
        yield made


def test_install_upgrade_and_lock(here: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here.token = "secret"
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert call("install", "hub:acme/sql").stdout == "installed sql 0.1.0 on nano\n"
    assert store.find("sql").source == f"hub:acme/sql@{COMMITS[0]}#{NANO}"
    newer = expert(tmp_path / "made", KEY, version="7.2.0")
    here.commits.append({**here.commits[0], newer.name: newer.read_bytes(), f"old/{newer.name}": b"elsewhere"})
    lock = tmp_path / "expert.lock"
    lock.write_bytes(store.lockfile())
    assert json.loads(call("outdated", "--json").stdout)["outdated"][0]["available"] == "7.2.0"
    assert call("upgrade").stdout == "installed sql 7.2.0 on nano\n"
    assert store.find("sql").source == f"hub:acme/sql@{COMMITS[1]}#{newer.name}"
    call("install", "--locked", str(lock))
    assert (store.find("sql").version, lying()) == ("0.1.0", [])


def test_the_sum_beside_it(here: Hub, tmp_path: Path) -> None:
    content = here.commits[0][NANO]
    here.commits[0][f"{NANO}.sha256"] = f"{hashlib.sha256(content).hexdigest()}  {NANO}\n".encode()
    found = remote.fetch(f"hub:acme/sql@v1#{NANO}", tmp_path / "into")
    assert (found.path.read_bytes(), found.source) == (content, f"hub:acme/sql@{COMMITS[0]}#{NANO}")
    here.commits[0][f"{NANO}.sha256"] = f"{'0' * 64}  {NANO}\n".encode()
    with pytest.raises(VerificationError, match="another digest than the hub"):
        remote.fetch("hub:acme/sql", tmp_path / "into", bases=["nano"])


def test_another_file_than_the_hub_lists_is_refused(here: Hub, tmp_path: Path) -> None:
    content = here.commits[0][NANO]

    def swapped(request: Request) -> Reply:
        return Reply(200, {}, content[:-1] + b"x")

    with serve(swapped) as cdn:
        here.cdn = cdn.url
        with pytest.raises(VerificationError, match="sha256"):
            remote.fetch(f"hub:acme/sql#{NANO}", tmp_path / "into")
    assert not list((tmp_path / "into").rglob("*.expert"))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("hub:acme", UsageError, "no repository of the hub"),
        ("hub:acme/..", UsageError, "no repository of the hub"),
        ("hub:acme/sql#../x", UsageError, "no repository of the hub"),
        ("hub:acme/sql", UsageError, "2 archives fit|0 archives fit"),
        ("hub:acme/sql#none.expert", UsageError, "no such file; it has"),
        ("hub:acme/sql@v9", ExpertError, "HTTP 404"),
        ("hub:acme/none", ExpertError, "HTTP 404"),
    ],
)
def test_refusals(here: Hub, tmp_path: Path, text: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        remote.fetch(text, tmp_path / "into")


@pytest.mark.parametrize("changes", [{"sha": "main"}, {"sha": None}, {"sha": "../../x"}])
def test_a_hub_that_names_no_commit(here: Hub, tmp_path: Path, changes: dict[str, Any]) -> None:
    here.changed = changes
    with pytest.raises(VerificationError, match="names no commit"):
        remote.fetch("hub:acme/sql", tmp_path / "into", bases=["nano"])


def test_private_without_a_token(here: Hub, tmp_path: Path) -> None:
    here.token = "secret"
    with pytest.raises(ExpertError, match=r"401.*HF_TOKEN"):
        remote.fetch("hub:acme/sql", tmp_path / "into")


@pytest.mark.parametrize(
    "text", ["hub:acme/sql", "hub:acme/sql@v1", f"hub:acme/sql@v1#a/{NANO}", f"hub:a-b/c.d#{NANO}"]
)
def test_locations_round_trip(text: str) -> None:
    assert str(Location.parse(text)) == text
    assert hub.PREFIX in remote.PREFIXES
