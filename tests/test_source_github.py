"""Archives from GitHub releases, against a stand-in that speaks the REST API."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from github_api import TOKEN, GitHub
from web import Reply, Request, clean, serve

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.sources import http, remote
from expert_cli.sources.github import Location

NANO, QWEN = "expert-sql-nano.v0.2.0.expert", "expert-sql-qwen3-0.6b.v0.2.0.expert"
FILES = {NANO: b"nano" * 1000, QWEN: b"qwen" * 1000}


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    clean(monkeypatch)
    fake = GitHub()
    with serve(fake) as api, serve(fake.objects) as cdn:
        fake.url, fake.cdn = api.url, cdn.url
        monkeypatch.setenv("GITHUB_API_URL", api.url)
        yield fake


def fetch(text: str, folder: Path, *bases: str) -> remote.Fetched:
    return remote.fetch(text, folder, bases=bases)


def with_sums(files: dict[str, bytes]) -> dict[str, bytes]:
    return files | {
        f"{name}.sha256": f"{hashlib.sha256(content).hexdigest()}  {name}\n".encode() for name, content in files.items()
    }


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize(
    ("text", "bases", "tag", "name"),
    [
        ("github:acme/experts", ("nano",), "v2", NANO),
        ("github:acme/experts@v2", ("other", "qwen3-0.6b", "nano"), "v2", QWEN),
        (f"github:acme/experts#{QWEN}", ("nano",), "v2", QWEN),
        ("github:acme/experts@sql/v1", (), "sql/v1", NANO),
    ],
)
def test_fetch(
    github: GitHub, tmp_path: Path, text: str, bases: tuple[str, ...], tag: str, name: str, digests: bool
) -> None:
    github.digests = digests
    github.add("sql/v1", with_sums({NANO: FILES[NANO]}))
    github.add("v2", with_sums(FILES) | {"README.md": b"no archive"})
    github.add("v3", with_sums({NANO: b"not ready"}), draft=True)
    found = fetch(text, tmp_path, *bases)
    assert found.path.read_bytes() == FILES[name]
    assert (found.path.name, found.source) == (name, f"github:acme/experts@{tag}#{name}")
    assert fetch(found.source, tmp_path) == found


@pytest.mark.parametrize(
    ("text", "bases", "message"),
    [
        ("github:acme/experts", (), f"0 archives fit, of: {NANO}, {QWEN}; name one: github:acme/experts@v2#FILE"),
        ("github:acme/twice", ("nano",), f"2 archives fit, of: {NANO}, expert-sql-nano.v0.1.0.expert"),
        ("github:acme/experts", ("other",), "0 archives fit, of"),
        ("github:acme/experts#no.expert", (), f"no such file; it has {NANO}"),
    ],
)
def test_choice(github: GitHub, tmp_path: Path, text: str, bases: tuple[str, ...], message: str) -> None:
    github.add("v2", FILES | ({"expert-sql-nano.v0.1.0.expert": b""} if "twice" in text else {}))
    with pytest.raises(UsageError, match=message):
        fetch(text.replace("twice", "experts"), tmp_path, *bases)


def test_release_without_archives(github: GitHub, tmp_path: Path) -> None:
    github.add("v1", {"source.zip": b""})
    with pytest.raises(UsageError, match="none at all"):
        fetch("github:acme/experts", tmp_path)


def test_private_repository(github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    github.private = True
    github.add("v1", with_sums({NANO: FILES[NANO]}))
    with pytest.raises(ExpertError, match="set GITHUB_TOKEN if it is private"):
        fetch("github:acme/experts", tmp_path)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    assert fetch("github:acme/experts", tmp_path).path.read_bytes() == FILES[NANO]  # the other host refuses tokens


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("limit", r"rate limit is used up until 2027-01-15 08:00:00 UTC; wait, or set GITHUB_TOKEN"),
        ("limit-later", "rate limit is used up for 60 seconds"),
        ("403", "HTTP 403; check the repository"),
        ("404", "has no release v1"),
    ],
)
def test_refused(github: GitHub, tmp_path: Path, fault: str, message: str) -> None:
    github.add("v1", FILES)
    github.faults = [fault]
    with pytest.raises(ExpertError, match=message):
        fetch("github:acme/experts@v1", tmp_path, "nano")


def test_busy_server_is_asked_again(github: GitHub, tmp_path: Path) -> None:
    github.add("v1", FILES)
    github.faults = ["503", "502"]
    assert fetch("github:acme/experts", tmp_path, "nano").path.name == NANO


@pytest.mark.parametrize("digests", [True, False])
def test_tampered_asset(github: GitHub, tmp_path: Path, digests: bool) -> None:
    github.digests = digests
    release = github.add("v1", with_sums({NANO: FILES[NANO]}))
    github.contents[release["assets"][0]["id"]] = b"evil" * 1000
    with pytest.raises(VerificationError, match="its sha256 is not"):
        fetch("github:acme/experts", tmp_path)
    assert not list(tmp_path.rglob("*.expert"))


def test_sums_that_disagree(github: GitHub, tmp_path: Path) -> None:
    github.add("v1", {NANO: FILES[NANO], f"{NANO}.sha256": b"0" * 64})
    with pytest.raises(VerificationError, match="another digest than GitHub"):
        fetch("github:acme/experts", tmp_path)


@pytest.mark.parametrize(
    "body", [b"[]", b'{"id": 1}', b'{"id": 1, "tag_name": "v", "draft": false, "assets": [{}]}', b"<html>"]
)
def test_what_is_no_github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    clean(monkeypatch)

    def answer(_: Request) -> Reply:
        return Reply(body=body)

    with serve(answer) as server:
        monkeypatch.setenv("GITHUB_API_URL", server.url)
        with pytest.raises(ExpertError) as problem:
            fetch("github:acme/experts", tmp_path)
        assert server.url in str(problem.value)


@pytest.mark.parametrize(
    "text",
    ["github:acme", "github:acme/../x", "github:a/b/c", "github:-a/b", "github:a/b@", "github:a/b@v1/../x", "github:a/b#x/y",
     "github:a/b?x", "github:a/..", "github:a/b@//x", "github:a/b c"],
)  # fmt: skip
def test_malformed(text: str) -> None:
    with pytest.raises(UsageError, match="write github:OWNER/REPOSITORY"):
        Location.parse(text)


def test_token_for_the_host_comes_first(github: GitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    github.private = True
    github.add("v1", FILES)
    monkeypatch.setenv("GITHUB_TOKEN", "wrong")
    monkeypatch.setenv("EXPERT_TOKEN", f"{http.checked(github.url).netloc}={TOKEN}")
    assert fetch("github:acme/experts", tmp_path, "nano").path.name == NANO
