"""Base manifests, their files, and the hub's protocol against a server that speaks it well and badly."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from expert_cli import paths
from expert_cli.errors import BaseModelError
from expert_cli.manifest import BaseFile
from expert_cli.runtime import bases
from expert_cli.runtime.bases import hub
from expert_cli.runtime.bases.hub import Location
from expert_cli.sources import http

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()
FILE = BaseFile("model.gguf", len(BODY), SHA, "hf://owner/repo/sub/model.gguf@main")
PATH = "/owner/repo/resolve/main/sub/model.gguf"


@dataclass
class Hub:
    """A hub on loopback. ``faults`` are taken in turn, one a request, then it behaves; ``asked`` remembers."""

    body: bytes = BODY
    etag: str = '"one"'
    faults: list[str] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    elsewhere: str = ""
    url: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(dict(request.headers) | {"path": request.path})
        fault = self.faults.pop(0) if self.faults else ""
        if fault in ("302", "302-file"):
            request.send_response(302)
            request.send_header("Location", self.elsewhere + PATH if fault == "302" else "file:///etc/hostname")
            request.end_headers()
            return
        if fault.isdigit():
            request.send_response(int(fault))
            request.end_headers()
            return
        start = int(found[1]) if (found := re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))) else 0
        condition = request.headers.get("If-Range", self.etag)
        if fault == "ignores-range" or condition != self.etag:
            start = 0
        shown = start + (1 if fault == "wrong-offset" else 0)
        body = self.body + (b"more" if fault == "endless" else b"")
        request.send_response(206 if start or fault == "wrong-offset" else 200)
        if start or fault == "wrong-offset":
            request.send_header("Content-Range", f"bytes {shown}-{len(self.body) - 1}/{len(self.body)}")
        request.send_header("ETag", self.etag)
        if fault == "gzip":
            request.send_header("Content-Encoding", "gzip")
        if fault != "endless":
            request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        cut = 300_000 if fault in ("cut", "stall") else len(body)
        request.wfile.write(body[start : start + cut])
        if fault == "stall":
            request.wfile.flush()
            self.closing.wait(20)


def serve(hub_: Hub) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub_.answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that hangs up is part of the protocol."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    hub_.url = f"http://127.0.0.1:{server.server_address[1]}"
    return server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "EXPERT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(http, "PAUSE_SECONDS", 0.001)
    main = Hub()
    running = serve(main)
    monkeypatch.setenv("HF_ENDPOINT", main.url)
    yield main
    main.closing.set()
    running.shutdown()
    running.server_close()


def fetch(stall: float = 5.0) -> Path:
    return hub.fetch(FILE, Location.parse(FILE.source), stall=stall)


def kept() -> list[str]:
    return sorted(path.name for path in (paths.cache() / "hub").glob("*") if path.suffix != ".lock")


def test_fetch_once(server: Hub) -> None:
    seen: list[tuple[int, int]] = []
    path = hub.fetch(FILE, Location.parse(FILE.source), lambda here, size: seen.append((here, size)))
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert fetch() == path
    assert [headers["path"] for headers in server.asked] == [PATH]
    assert server.asked[0]["Accept-Encoding"] == "identity"
    assert kept() == [SHA]


@pytest.mark.parametrize(
    ("faults", "ranges"),
    [
        (["cut"], [None, "bytes=300000-"]),
        (["cut", "cut"], [None, "bytes=300000-", "bytes=600000-"]),
        (["cut", "ignores-range"], [None, "bytes=300000-"]),
        (["503", "429"], [None, None, None]),
        (["stall"], [None, "bytes=300000-"]),
    ],
)
def test_resume(server: Hub, faults: list[str], ranges: list[str | None]) -> None:
    server.faults = faults
    start = time.monotonic()
    assert fetch(stall=0.3).read_bytes() == BODY
    assert time.monotonic() - start < 10
    assert server.ranges() == ranges
    assert kept() == [SHA]


def test_resume_after_a_change_starts_again(server: Hub) -> None:
    server.faults = ["cut", *["503"] * http.ATTEMPTS]
    with pytest.raises(BaseModelError, match="300000 of 1048576 bytes are here: run it again"):
        fetch()
    server.etag = '"two"'
    server.asked.clear()
    assert fetch().read_bytes() == BODY
    assert server.asked[0]["Range"] == "bytes=300000-"
    assert server.asked[0]["If-Range"] == '"one"'


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["404"], "HTTP 404.*HF_TOKEN"),
        (["302-file"], "will not follow from http to 'file'"),
        (["gzip"], "encoding"),
        (["endless"], "more than the 1048576 bytes"),
        (["cut", "wrong-offset"], "asked for bytes from 300000"),
        (["503"] * 5, "HTTP 503; 0 of 1048576"),
    ],
)
def test_refused(server: Hub, faults: list[str], message: str) -> None:
    server.faults = faults
    with pytest.raises(BaseModelError, match=message):
        fetch()
    assert SHA not in kept()


def test_other_content_leaves_nothing(server: Hub) -> None:
    server.body = bytes(len(BODY))
    with pytest.raises(BaseModelError, match="its sha256 is not"):
        fetch()
    assert kept() == []


def test_other_size_is_refused(server: Hub) -> None:
    server.body = BODY[:-1]
    with pytest.raises(BaseModelError, match="1048575 bytes where 1048576 were announced"):
        fetch()


def test_token_stays_with_its_host(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Hub()
    running = serve(other)
    monkeypatch.setenv("HF_TOKEN", "secret")
    server.faults = ["302"]
    server.elsewhere = other.url.replace("127.0.0.1", "localhost")
    try:
        assert fetch().read_bytes() == BODY
    finally:
        running.shutdown()
        running.server_close()
    assert server.asked[0]["Authorization"] == "Bearer secret"
    assert "Authorization" not in other.asked[0]


def test_redirects_end(server: Hub) -> None:
    server.faults, server.elsewhere = ["302"] * 9, server.url
    with pytest.raises(BaseModelError, match="more than 5 redirects"):
        fetch()


@pytest.mark.parametrize(
    ("first", "here", "trusted"),
    [
        ("https://hub.example/a", "https://hub.example/b", True),
        ("https://hub.example/a", "https://cdn.example/b", False),
        ("https://hub.example/a", "https://hub.example:8443/b", False),
        ("http://hub.example/a", "http://hub.example/a", False),
        ("http://127.0.0.1:1/a", "http://127.0.0.1:1/a", True),
    ],
)
def test_who_sees_the_token(first: str, here: str, trusted: bool) -> None:
    assert http.trusted(http.checked(here), http.checked(first)) == trusted


@pytest.mark.parametrize("name", ["EXPERT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(server: Hub, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(BaseModelError, match="the network is forbidden"):
        fetch()
    assert server.asked == []
    monkeypatch.delenv(name)
    fetch()
    monkeypatch.setenv(name, "1")
    assert fetch().read_bytes() == BODY


@pytest.mark.parametrize(
    "source",
    [
        "hf://owner/file@main",
        "hf://o/r/f",
        "hf://o/r/../f@main",
        "hf://o/r//f@m",
        "hf://o/r/f@../x",
        "https://h/o/r/f@m",
    ],
)
def test_malformed_source(source: str) -> None:
    with pytest.raises(BaseModelError, match="hf://owner/repo/file@revision"):
        Location.parse(source)


def manifest(folder: Path, **sources: str) -> Path:
    """A base manifest over one small file of each kind, written beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"gguf": "m.gguf", "weights": "model.safetensors", "config": "config.json", "tokenizer": "tokenizer.json"}
    files = {}
    for kind, name in names.items():
        (folder / name).write_text(kind)
        sha = hashlib.sha256(kind.encode()).hexdigest()
        files[kind] = {"name": name, "size": len(kind), "sha256": sha, "source": sources.get(kind, name)}
    pair = ["<q>", ""]
    path = folder / "base-mine.json"
    path.write_text(
        json.dumps(
            {
                "format": 1, "kind": "base", "id": "mine", "architecture": "qwen3", "surface": "names", "context": 512,
                "template": {"start": "", "system": pair, "user": pair, "assistant": pair}, "end": ["<e>"],
                "licence": "MIT", "tokenizer_sha256": files["tokenizer"]["sha256"], "parameters": 9, "files": files,
            }
        )
    )  # fmt: skip
    return path


def test_find_by_path_and_resolve(tmp_path: Path) -> None:
    base = bases.find(str(manifest(tmp_path / "base")))
    assert base.file("gguf").read_text() == "gguf"
    assert base.folder() == tmp_path / "base"
    assert base.here("weights")


def test_folder_gathers_scattered_files(tmp_path: Path) -> None:
    path = manifest(tmp_path / "base", config="deep/config.json")
    (tmp_path / "base/deep").mkdir()
    (tmp_path / "base/config.json").rename(tmp_path / "base/deep/config.json")
    folder = bases.find(str(path)).folder()
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "model.safetensors": "weights", "config.json": "config", "tokenizer.json": "tokenizer",
    }  # fmt: skip


def test_changed_or_missing_file_is_refused(tmp_path: Path) -> None:
    base = bases.find(str(manifest(tmp_path)))
    (tmp_path / "m.gguf").write_text("fugg")
    with pytest.raises(BaseModelError, match="differs"):
        base.file("gguf")
    (tmp_path / "m.gguf").unlink()
    with pytest.raises(BaseModelError, match="missing"):
        base.file("gguf")
    with pytest.raises(BaseModelError, match="has no file 'onnx'"):
        base.file("onnx")


def test_packaged_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = manifest(tmp_path / "data/base", gguf="package:base/m.gguf")
    monkeypatch.setattr(paths, "packaged", lambda name: tmp_path / "data" / name)
    base = bases.find("mine")
    assert base.path == path
    assert base.file("gguf") == tmp_path / "data/base/m.gguf"


def test_unknown_base_names_the_known() -> None:
    with pytest.raises(BaseModelError, match=r"known: .*qwen3-0\.6b"):
        bases.find("llama")


def test_qwen3_is_pinned_by_revision_and_digest() -> None:
    manifest = bases.find("qwen3-0.6b").manifest
    for file in manifest.files.values():
        assert re.fullmatch(r"[0-9a-f]{40}", Location.parse(file.source).revision)
    assert manifest.tokenizer_sha256 == manifest.files["tokenizer"].sha256
    assert "<think>\n\n</think>" in manifest.template["assistant"][0]
