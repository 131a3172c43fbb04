"""Who is asked over HTTP, and who learns what: tokens, redirects, proxies and mirrors (cases 72 and 73)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from web import BODY, Disk, Web, clean, serve

from expert_cli.errors import ExpertError, UsageError, VerificationError
from expert_cli.sources import http, remote, web


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def server(disk: Disk) -> Iterator[Web]:
    with serve(disk) as running:
        disk.pause = running.closing.wait
        yield running


def fetch(server: Web, folder: Path, name: str = "a.expert", stall: float = 5.0) -> Path:
    return web.fetch(f"{server.url}/{name}", folder / "into", stall=stall)


def test_token_stays_with_its_host(
    server: Web, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # 73
    other = Disk()
    with serve(other) as cdn:
        host, cdn_host = server.url.removeprefix("http://"), cdn.url.removeprefix("http://")
        monkeypatch.setenv("EXPERT_TOKEN", f"{host}=secret, {cdn_host}=other")
        disk.faults, disk.elsewhere = ["302"], f"{cdn.url}/elsewhere.expert"
        assert fetch(server, tmp_path).read_bytes() == BODY
    assert {request.headers.get("Authorization") for request in server.asked} == {"Bearer secret"}
    assert [request.headers.get("Authorization") for request in cdn.asked] == [None]


@pytest.mark.parametrize(
    ("first", "here", "seen"),
    [
        ("https://hub.example/a", "https://hub.example/b", True),
        ("https://hub.example/a", "https://cdn.example/b", False),
        ("https://hub.example/a", "https://hub.example:8443/b", False),
        ("https://hub.example/a", "https://hub.example.evil.example/b", False),
        ("http://hub.example/a", "http://hub.example/a", False),
        ("http://127.0.0.1:1/a", "http://127.0.0.1:1/a", True),
    ],
)
def test_who_sees_the_token(first: str, here: str, seen: bool) -> None:
    assert http.trusted(http.checked(here), http.checked(first)) == seen


@pytest.mark.parametrize(
    ("value", "host", "expected"),
    [
        ("h.example=abc", "h.example", "Bearer abc"),
        ("h.example=abc", "g.example", ""),
        ("h.example=abc", "h.example:8443", ""),
        ("g.example=1,H.example:1=a=b", "h.example:1", "Bearer a=b"),
        ("h.example=user:pass", "h.example", "Basic dXNlcjpwYXNz"),
        ("abc", "h.example", None),
        ("https://h.example=abc", "h.example", None),
    ],
)
def test_tokens(monkeypatch: pytest.MonkeyPatch, value: str, host: str, expected: str | None) -> None:
    monkeypatch.setenv("EXPERT_TOKEN", value)
    if expected is None:
        with pytest.raises(UsageError, match="for which host"):
            http.token(host)
    else:
        assert http.token(host) == expected
        assert value not in repr(http.Access(http.token(host)))


@pytest.mark.parametrize(
    ("body", "expected"), [("return 'from ' + host", "Bearer from h.example"), ("raise errors.NoKeyringError", "")]
)
def test_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, expected: str) -> None:
    package = tmp_path / "modules/keyring"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f"from keyring import errors\ndef get_password(service, host):\n    assert service == 'expert-cli'\n    {body}\n"
    )
    (package / "errors.py").write_text("class NoKeyringError(Exception): ...\n")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    monkeypatch.delitem(sys.modules, "keyring.errors", raising=False)
    assert http.token("h.example") == expected
    sys.modules.pop("keyring")
    sys.modules.pop("keyring.errors")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("file:///etc/hostname", "will not follow from http to 'file'"),
        ("ftp://h.example/x", "will not follow from http to 'ftp'"),
        ("/again", "more than 5 redirects"),
    ],
)
def test_redirects(server: Web, disk: Disk, tmp_path: Path, location: str, message: str) -> None:
    disk.faults, disk.elsewhere = ["302"] * 9, location
    with pytest.raises(VerificationError, match=message):
        fetch(server, tmp_path)


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A certificate for 127.0.0.1 and its key, trusted by this test."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = form.Encoding.PEM
    path = tmp_path / "tls.pem"
    secret = key.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption())
    path.write_bytes(made.public_bytes(pem) + secret)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


def test_https(certificate: Path, server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # 72
    disk = Disk(faults=["", "302"], elsewhere=f"{server.url}/a.expert")
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    with serve(disk, certificate) as secure:
        assert fetch(secure, tmp_path).read_bytes() == BODY
        with pytest.raises(VerificationError, match="will not follow from https to 'http'"):
            fetch(secure, tmp_path)
        assert server.asked == []
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(ExpertError, match="CERTIFICATE_VERIFY_FAILED"):
            fetch(secure, tmp_path, "b.expert")


def test_relative_redirect(server: Web, disk: Disk, tmp_path: Path) -> None:
    disk.faults, disk.elsewhere = ["302"], "../b.expert"
    assert fetch(server, tmp_path, "x/a.expert").read_bytes() == BODY
    assert server.paths()[-1] == "/b.expert"


@pytest.mark.parametrize(
    "url",
    ["https://user:pass@h.example/a", "ftp://h.example/a", "https:///a", "https://h.example:x/a", "https://h.example/a b",
     "https://h.example/\x1b", "https://h\u0435.example/"],
)  # fmt: skip
def test_malformed_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError) as problem:
        web.fetch(url, tmp_path)
    assert "pass@" not in str(problem.value)


def test_offline(server: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERT_OFFLINE", "1")
    with pytest.raises(ExpertError, match="the network is forbidden; unset EXPERT_OFFLINE"):
        fetch(server, tmp_path)
    assert server.asked == []


def test_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Disk()) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert web.fetch("http://far.example/a.expert", tmp_path).read_bytes() == BODY
        assert proxy.paths() == ["http://far.example/a.expert.sha256", "http://far.example/a.expert"]
        monkeypatch.setenv("no_proxy", "far.example")
        monkeypatch.setattr(http, "ATTEMPTS", 1)
        with pytest.raises(ExpertError, match="no connection"):
            web.fetch("http://far.example/b.expert", tmp_path)


def test_mirror_comes_first_and_the_origin_after_it(
    server: Web, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = "http://origin.invalid/experts/"
    monkeypatch.setenv("EXPERT_MIRRORS", f"https://other.invalid/=https://no.invalid/, {origin}={server.url}/mirror/")
    assert web.fetch(f"{origin}a.expert", tmp_path).read_bytes() == BODY
    assert server.paths() == ["/mirror/a.expert.sha256", "/mirror/a.expert"]
    monkeypatch.setattr(http, "ATTEMPTS", 1)
    disk.faults = ["404"]
    with pytest.raises(ExpertError, match=r"/mirror/b.expert: HTTP 404.*; http://origin\.invalid.* no connection"):
        web.fetch(f"{origin}b.expert", tmp_path)
    monkeypatch.setenv("EXPERT_MIRRORS", "https://x.invalid=https://y.invalid")
    with pytest.raises(UsageError, match="EXPERT_MIRRORS holds"):
        web.fetch(f"{origin}b.expert", tmp_path)


def test_a_mirror_does_not_learn_the_token_of_the_origin(
    server: Web, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Disk(faults=["404"])
    with serve(other) as mirror:
        host = server.url.removeprefix("http://")
        monkeypatch.setenv("EXPERT_TOKEN", f"{host}=secret")
        monkeypatch.setenv("EXPERT_MIRRORS", f"{server.url}/={mirror.url}/")
        assert fetch(server, tmp_path).read_bytes() == BODY
    assert {request.headers.get("Authorization") for request in mirror.asked} == {None}
    assert {request.headers.get("Authorization") for request in server.asked} == {"Bearer secret"}


def test_unknown_kind(tmp_path: Path) -> None:
    assert not remote.is_remote("sql>=1")
    with pytest.raises(UsageError, match="none of https://"):
        remote.fetch("gopher://x", tmp_path)
