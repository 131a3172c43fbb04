"""Debian's docker-registry as a process of a test's own, open or behind a password or a token service."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from ports import free, listening
from web import Reply, Request

USER, PASSWORD = "acme", "secret"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
BCRYPT = "$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
"""Of the password."""


@contextmanager
def running(folder: Path, auth: str = "") -> Iterator[str]:
    """A registry; yields its host and port."""
    if not shutil.which("docker-registry"):
        pytest.skip("docker-registry is not installed; apt-get install docker-registry")
    folder.mkdir(parents=True)
    port = free()
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n{auth}"
    )
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with (folder / "log").open("wb") as log:
        command = ["docker-registry", "serve", folder / "config.yml"]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=clean)
    try:
        listening(port, server)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def htpasswd(folder: Path, line: str) -> str:
    """The part of a configuration that asks for a password."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "htpasswd").write_text(line + "\n")
    return f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"


def token_auth(folder: Path) -> tuple[str, Callable[[Request], Reply]]:
    """The part of a configuration that asks for a token, REALM still to be named, and the service that gives them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tokens")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokens.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    chain = base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()

    def give(request: Request) -> Reply:
        asked = parse_qs(urlsplit(request.path).query)
        writer = request.headers.get("Authorization") == BASIC
        if "Authorization" in request.headers and not writer:
            return Reply(401)
        _, repository, actions = asked["scope"][0].split(":")
        allowed = [action for action in actions.split(",") if writer or (action == "pull" and repository == "open/sql")]
        moment = int(time.time())
        claims = {
            "iss": "tests", "sub": USER, "aud": asked["service"][0], "iat": moment, "nbf": moment - 5, "exp": moment + 300,
            "jti": "1", "access": [{"type": "repository", "name": repository, "actions": allowed}],
        }  # fmt: skip
        signed = ".".join(map(_word, ({"typ": "JWT", "alg": "ES256", "x5c": [chain]}, claims)))
        first, second = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = _base64(first.to_bytes(32, "big") + second.to_bytes(32, "big"))
        return Reply(body=json.dumps({"token": f"{signed}.{signature}"}).encode())

    auth = (
        f"auth: {{token: {{realm: 'REALM', service: registry, issuer: tests, rootcertbundle: {folder}/tokens.pem}}}}\n"
    )
    return auth, give


def _word(data: dict[str, Any]) -> str:
    return _base64(json.dumps(data).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
