"""Archives in OCI registries: Debian's docker-registry and skopeo, and a registry that lies."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import registry
from registry import PASSWORD, USER
from web import BODY, Reply, Request, clean, serve

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.sources import http, oci, remote
from expert_cli.sources.oci import Descriptor, Location, Registry

NAME = "expert-sql-nano.v0.1.0.expert"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry.running(tmp_path_factory.mktemp("oci") / "registry") as running:
        yield running


def push(text: str, content: bytes = BODY) -> str:
    """Push an archive; its manifest's digest."""
    location = Location.parse(text)
    target = Registry(location)
    for blob in (b"{}", content):
        oci.push(target, oci.digest_of(blob), len(blob), io.BytesIO(blob))
    manifest = oci.manifest_for(Descriptor(oci.LAYER, oci.digest_of(content), len(content), NAME), {"a": "b"})
    oci.tag(target, manifest, location.tag)
    return oci.digest_of(manifest)


def test_push_and_pull(host: str, tmp_path: Path) -> None:
    text = f"oci://{host}/acme/sql:0.1.0-nano"
    digest = push(text)
    seen: list[tuple[int, int]] = []
    found = remote.fetch(text, tmp_path, lambda *now: seen.append(now))
    assert found.path.read_bytes() == BODY
    assert (found.path.name, found.source) == (NAME, f"{text}@{digest}")
    assert seen[-1] == (len(BODY), len(BODY))
    assert remote.fetch(found.source, tmp_path / "again").path.read_bytes() == BODY
    assert remote.fetch(f"oci://{host}/acme/sql@{digest}", tmp_path).source == f"oci://{host}/acme/sql@{digest}"


def test_blob_is_sent_once(host: str) -> None:
    location = Location.parse(f"oci://{host}/acme/once:1")
    digest = oci.digest_of(b"once")
    assert [oci.push(Registry(location), digest, 4, io.BytesIO(b"once")) for _ in range(2)] == [True, False]


def test_registry_refuses_another_content(host: str) -> None:
    location = Location.parse(f"oci://{host}/acme/wrong:1")
    with pytest.raises(ExpertError, match=r"HTTP 400 \(provided digest did not match"):
        oci.push(Registry(location), oci.digest_of(b"one"), 3, io.BytesIO(b"two"))


def test_moved_tag(host: str, tmp_path: Path) -> None:  # 76
    text = f"oci://{host}/acme/moved:1"
    push(text, b"old")
    pinned = remote.fetch(text, tmp_path)
    push(text, b"new")
    assert remote.fetch(text, tmp_path).path.read_bytes() == b"new"
    assert remote.fetch(pinned.source, tmp_path / "again").path.read_bytes() == b"old"


@pytest.mark.parametrize("text", ["acme/none:1", "acme/sql:none", f"acme/sql@sha256:{'0' * 64}"])
def test_nothing_there(host: str, tmp_path: Path, text: str) -> None:
    push(f"oci://{host}/acme/sql:1")
    with pytest.raises(ExpertError, match="there is no such artifact"):
        remote.fetch(f"oci://{host}/{text}", tmp_path)


def test_skopeo_copies_it(host: str, tmp_path: Path) -> None:
    """To another repository, and to a folder in OCI layout and back: the same manifest, the same archive."""
    if not shutil.which("skopeo"):
        pytest.skip("skopeo is not installed; apt-get install skopeo")
    digest = push(f"oci://{host}/acme/sql:2")
    layout = f"oci:{tmp_path}/layout:2"

    def copy(source: str, target: str) -> None:
        command = ["skopeo", "copy", "--insecure-policy", "--preserve-digests", "--src-tls-verify=false"]
        done = subprocess.run([*command, "--dest-tls-verify=false", source, target], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()

    copy(f"docker://{host}/acme/sql:2", f"docker://{host}/mirror/sql:2")
    copy(f"docker://{host}/acme/sql:2", layout)
    copy(layout, f"docker://{host}/back/sql:2")
    for repository in ("mirror", "back"):
        found = remote.fetch(f"oci://{host}/{repository}/sql:2", tmp_path / repository)
        assert found.source.endswith(f"@{digest}")
        assert found.path.read_bytes() == BODY


def test_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with registry.running(tmp_path / "registry", registry.htpasswd(tmp_path, f"{USER}:{registry.BCRYPT}")) as host:
        with pytest.raises(ExpertError, match=r"HTTP 401.*EXPERT_TOKEN=HOST=USER:PASSWORD"):
            push(f"oci://{host}/acme/sql:1")
        monkeypatch.setenv("EXPERT_TOKEN", f"{host}={USER}:wrong")
        with pytest.raises(ExpertError, match="HTTP 401"):
            push(f"oci://{host}/acme/sql:1")
        monkeypatch.setenv("EXPERT_TOKEN", f"{host}={USER}:{PASSWORD}")
        push(f"oci://{host}/acme/sql:1")
        assert remote.fetch(f"oci://{host}/acme/sql:1", tmp_path).path.read_bytes() == BODY


def test_token_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry checks real signed tokens; the service knows the password, the registry never sees it."""
    auth, give = registry.token_auth(tmp_path)
    with serve(give) as service:
        realm = service.url.removeprefix("http://")
        with registry.running(tmp_path / "registry", auth.replace("REALM", f"{service.url}/token")) as host:
            text = f"oci://{host}/open/sql:1"
            with pytest.raises(ExpertError, match="HTTP 401"):
                push(text)
            monkeypatch.setenv("EXPERT_TOKEN", f"{host}={USER}:{PASSWORD}")
            with pytest.raises(ExpertError, match="HTTP 401"):
                push(text)  # another host than the registry's does not get its password
            assert not any("Authorization" in request.headers for request in service.asked)
            monkeypatch.setenv("EXPERT_TOKEN", f"{realm}={USER}:wrong")
            with pytest.raises(ExpertError, match="HTTP 401: no token"):
                push(text)
            monkeypatch.setenv("EXPERT_TOKEN", f"{realm}={USER}:{PASSWORD}")
            push(text)
            push(f"oci://{host}/closed/sql:1")
            monkeypatch.delenv("EXPERT_TOKEN")
            assert remote.fetch(text, tmp_path).path.read_bytes() == BODY
            with pytest.raises(ExpertError, match="HTTP 401"):
                remote.fetch(f"oci://{host}/closed/sql:1", tmp_path)


MANIFEST = oci.manifest_for(Descriptor(oci.LAYER, oci.digest_of(BODY), len(BODY), NAME), {})
DIGEST = oci.digest_of(MANIFEST)


def changed(**changes: Any) -> bytes:
    return json.dumps(json.loads(MANIFEST) | changes).encode()


def layer(**changes: Any) -> bytes:
    return changed(layers=[json.loads(MANIFEST)["layers"][0] | changes])


def test_manifest_is_as_another_client_reads_it() -> None:
    assert json.loads(MANIFEST) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.expert.archive.v1",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": f"sha256:{hashlib.sha256(b'{}').hexdigest()}"},
        "layers": [
            {"mediaType": "application/vnd.expert.archive.v1+zstd", "digest": oci.digest_of(BODY), "size": len(BODY),
             "annotations": {"org.opencontainers.image.title": NAME}},
        ],
        "annotations": {},
    }  # fmt: skip


def liar(
    manifest: bytes = MANIFEST, blob: bytes = BODY, told: str = "", status: int = 200
) -> Callable[[Request], Reply]:
    def answer(request: Request) -> Reply:
        if "/manifests/" in request.path:
            return Reply(status, {"Docker-Content-Digest": told} if told else {}, manifest)
        return Reply(200, {}, blob)

    return answer


@pytest.mark.parametrize(
    ("answer", "reference", "message"),
    [
        (liar(blob=BODY[:-1] + b"x"), ":1", "its sha256 is not"),  # 75
        (liar(blob=BODY[:-1]), ":1", "1048575 bytes where 1048576 were announced"),
        (liar(blob=BODY + b"x"), ":1", "1048577 bytes where"),
        (liar(manifest=MANIFEST + b" "), f"@{DIGEST}", f"{DIGEST} was promised"),
        (liar(manifest=MANIFEST + b" ", told=DIGEST), ":1", f"{DIGEST} was promised"),
        (liar(manifest=layer(digest="sha512:" + "0" * 128)), ":1", "is no sha256"),
        (liar(manifest=layer(digest="sha256:../../x")), ":1", "is no sha256"),
        (liar(manifest=layer(size=-1)), ":1", "is no sha256"),
        (liar(manifest=layer(size=9 << 30)), ":1", "1048576 bytes where"),
        (liar(manifest=layer(size="x")), ":1", "malformed descriptor"),
        (liar(manifest=layer(mediaType="application/vnd.oci.image.layer.v1.tar+gzip")), ":1", "not one archive"),
        (liar(manifest=changed(layers=[])), ":1", "0 layers"),
        (liar(manifest=changed(layers=[{}])), ":1", "malformed descriptor"),
        (liar(manifest=changed(mediaType="application/vnd.oci.image.index.v1+json")), ":1", "not an index"),
        (liar(manifest=b"[]"), ":1", "is no manifest"),
        (liar(manifest=b"{"), ":1", "fault"),
        (liar(manifest=b"{" * 100), ":1", "nested 100 deep"),
        (liar(manifest=b" " * (2 << 20)), ":1", "more than 1048576 bytes"),
        (liar(status=500), ":1", "HTTP 500"),
    ],
)
def test_registry_that_lies(tmp_path: Path, answer: Callable[[Request], Reply], reference: str, message: str) -> None:
    with serve(answer) as server:
        with pytest.raises(ExpertError, match=message) as problem:
            remote.fetch(f"oci://{server.url.removeprefix('http://')}/acme/sql{reference}", tmp_path)
        assert (
            isinstance(problem.value, VerificationError) or "HTTP" in message or "fault" in message or "deep" in message
        )
    assert not list(tmp_path.rglob("*.expert"))


@pytest.mark.parametrize("title", ["../../x.expert", "x.sh", "", "a/b.expert", "a" * 200 + ".expert"])
def test_title_is_no_path(tmp_path: Path, title: str) -> None:
    with serve(liar(manifest=layer(annotations={oci.TITLE: title}))) as server:
        found = remote.fetch(f"oci://{server.url.removeprefix('http://')}/acme/sql:1", tmp_path)
    assert found.path.name == "download.expert"
    assert found.path.parent.parent == tmp_path


@pytest.mark.parametrize(
    ("challenge", "message"),
    [
        ('Bearer realm="http://evil.example/token",service="s"', "sends the password without TLS to evil.example"),
        ('Bearer realm="ftp://evil.example/token"', "is no address"),
        ('Bearer service="s"', "HTTP 401"),
        ("Negotiate", "HTTP 401"),
        ("", "HTTP 401"),
    ],
)
def test_challenges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, challenge: str, message: str) -> None:
    with serve(lambda _: Reply(401, {"WWW-Authenticate": challenge})) as server:
        host = server.url.removeprefix("http://")
        monkeypatch.setenv("EXPERT_TOKEN", f"{host}={USER}:{PASSWORD}")
        with pytest.raises(ExpertError, match=message):
            remote.fetch(f"oci://{host}/acme/sql:1", tmp_path)
        assert not any("Authorization" in request.headers for request in server.asked)


def test_upload_elsewhere_gets_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(lambda _: Reply(201)) as other:
        replies = {"HEAD": Reply(404), "POST": Reply(202, {"Location": f"{other.url}/put?state=x"})}
        with serve(lambda request: replies[request.method]) as server:
            host = server.url.removeprefix("http://")
            monkeypatch.setenv("EXPERT_TOKEN", f"{host}=secret")
            oci.push(Registry(Location.parse(f"oci://{host}/a/b:1")), oci.digest_of(b"x"), 1, io.BytesIO(b"x"))
    assert [request.headers.get("Authorization") for request in server.asked] == ["Bearer secret"] * 2
    assert [(request.method, request.body, request.headers.get("Authorization")) for request in other.asked] == [
        ("PUT", b"x", None)
    ]
    assert "state=x&digest=sha256%3A" in other.asked[0].path


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("oci://ghcr.example/acme/sql:1", "https://ghcr.example/v2/acme/sql"),
        ("oci://ghcr.example:8443/acme/sql", "https://ghcr.example:8443/v2/acme/sql"),
        ("oci://localhost:5000/sql:1", "http://localhost:5000/v2/sql"),
        ("oci://[::1]:5000/sql:1", "http://[::1]:5000/v2/sql"),
    ],
)
def test_location(text: str, url: str) -> None:
    assert Location.parse(text).url == url
    assert str(Location.parse(text)) == text + ("" if text.endswith(":1") else ":latest")


@pytest.mark.parametrize(
    "text",
    ["oci://host", "oci:///a:1", "oci://host/Acme/sql:1", "oci://host/a/../b:1", "oci://host/a:1@sha256:00", "oci://host/a:-x",
     "oci://user:pw@host/a:1", "oci://host/a:1#x", "oci://host//a:1", "oci://host/a@sha512:00", f"oci://host/{'a' * 256}:1"],
)  # fmt: skip
def test_malformed(text: str) -> None:
    with pytest.raises(UsageError, match="write oci://HOST/REPOSITORY:TAG"):
        Location.parse(text)


def test_plain_http_is_for_this_machine_alone() -> None:
    assert http.checked(Location.parse("oci://10.0.0.1/a:1").url).scheme == "https"
