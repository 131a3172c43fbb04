"""Servers on loopback that answer as a test says, and remember what they were asked."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from expert_cli.sources import http

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()
CUT = 300_000


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Reply:
    """``body`` in pieces may stall between them. Its length is told unless ``headers`` say it or name an encoding."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | Iterable[bytes] = b""


@dataclass
class Web:
    """A server; ``closing`` is set when it ends, for replies that stall."""

    answer: Callable[[Request], Reply]
    url: str = ""
    asked: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("Content-Length") or 0)
        request = Request(handler.command, handler.path, handler.headers, handler.rfile.read(length))
        self.asked.append(request)
        reply = self.answer(request)
        pieces = [reply.body] if isinstance(reply.body, bytes) else reply.body
        if isinstance(reply.body, bytes):
            reply.headers.setdefault("Content-Length", str(len(reply.body)))
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command != "HEAD":
            for piece in pieces:
                handler.wfile.write(piece)
                handler.wfile.flush()

    def paths(self) -> list[str]:
        return [request.path for request in self.asked]


@contextmanager
def serve(answer: Callable[[Request], Reply], certificate: Path | None = None) -> Iterator[Web]:
    """A running server, over TLS where there is a ``certificate`` with its key in one PEM file."""
    web = Web(answer)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT"):
        setattr(Handler, f"do_{method}", lambda handler: web.handle(handler))

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that hangs up is part of the protocol."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if certificate:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        web.url = f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
        try:
            yield web
        finally:
            web.closing.set()
            server.shutdown()


@dataclass
class Disk:
    """A web server with one file. ``faults`` are taken in turn, one a download, then it behaves."""

    body: bytes = BODY
    etag: str = '"one"'
    sums: bytes = b""
    faults: list[str] = field(default_factory=list)
    elsewhere: str = ""
    pause: Callable[[float], object] = time.sleep
    files: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        if request.path.endswith(".sha256"):
            return Reply(body=self.sums) if self.sums else Reply(404)
        self.files.append(request)
        fault = self.faults.pop(0) if self.faults else ""
        if fault.isdigit() and fault != "302":
            return Reply(int(fault))
        if fault == "302":
            return Reply(302, {"Location": self.elsewhere})
        return self.file(request, fault)

    def file(self, request: Request, fault: str) -> Reply:
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if request.headers.get("If-Range", self.etag) != self.etag and fault != "ignores If-Range":
            start = 0
        if fault == "200 to a Range":
            start = 0
        headers = {"ETag": self.etag} if self.etag else {}
        if start:
            total = len(self.body) + (fault == "other total")
            headers["Content-Range"] = f"bytes {start + (fault == 'wrong offset')}-{total - 1}/{total}"
        if fault == "gzip":
            headers["Content-Encoding"] = "gzip"
        if fault == "endless":
            return Reply(200, headers, (bytes(1 << 16) for _ in range(1 << 20)))
        rest = self.body[start:]
        headers["Content-Length"] = str(len(rest))
        pieces: Any = [rest[:CUT]] if fault in ("cut", "stall", "drip") else [rest]
        if fault == "stall":
            pieces = self.stalled(rest[:CUT])
        if fault == "drip":
            pieces = self.dripped(rest)
        return Reply(206 if start else 200, headers, pieces)

    def stalled(self, first: bytes) -> Iterator[bytes]:
        yield first
        self.pause(20)

    def dripped(self, rest: bytes) -> Iterator[bytes]:
        yield rest[:CUT]
        for index in range(CUT, CUT + 600):
            self.pause(0.02)
            yield rest[index : index + 1]

    def ranges(self) -> list[str | None]:
        return [request.headers.get("Range") for request in self.files]


def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxies, tokens or mirrors from outside, and no waiting."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    for name in ("EXPERT_TOKEN", "EXPERT_MIRRORS", "EXPERT_OFFLINE", "GITHUB_TOKEN", "GH_TOKEN", "GITHUB_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(http, "PAUSE_SECONDS", 0.001)
