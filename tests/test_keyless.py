"""Signatures without a key, checked by Sigstore's own library against an instance of our own: what is refused, and who is trusted."""

from __future__ import annotations

import base64
import json
import re
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import hostile
import packages
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hostile import KEY
from sigstore_instance import GITHUB, LOGGED, WORKFLOW, Authority, Instance, Log
from test_packages_cli import Call, call, data, shipped  # noqa: F401 - fixtures
from web import Web, clean, serve

from expert_cli import signing, trust
from expert_cli.errors import UsageError, VerificationError
from expert_cli.trust import Pin, Trust

pytest.importorskip("sigstore", reason="Sigstore's library is not installed; it is in the dev extra")

US = Instance()
ROOT = json.dumps(US.root())
ME = trust.Identity(WORKFLOW, GITHUB)
OTHER = "https://github.com/acme/experts/.github/workflows/publish.yml@refs/heads/main"
MEMBERS = hostile.content(packages.members())
DRAFT = hostile.bundle(MEMBERS, keys=())
PIN = Pin("sql", ME.id, "", root=ROOT)
KEY_PIN = Pin("sql", KEY.public.id, KEY.public.pem.decode())
TODAY = date(2026, 6, 1)
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, and no identity from the machine that runs these tests."""
    clean(monkeypatch)
    for name in ("SIGSTORE_IDENTITY_TOKEN", "GITHUB_ACTIONS", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing leaves the machine: who opens a socket fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def written(folder: Path, bundle: bytes) -> Path:
    """An archive with this bundle."""
    path = folder / "expert-sql-nano.v0.1.0.expert"
    path.write_bytes(hostile.packed(bundle, MEMBERS))
    return path


def changed(change: Change) -> Callable[[], bytes]:
    """A good bundle that was changed after it was signed."""

    def make() -> bytes:
        bundle = json.loads(US.sign(DRAFT))
        change(bundle)
        return json.dumps(bundle).encode()

    return make


def entry(bundle: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = bundle["verificationMaterial"]["tlogEntries"][0]
    return found


def elsewhere(**parts: object) -> Callable[[], bytes]:
    """A bundle of an instance that shares our keys but for these."""

    def make() -> bytes:
        them = Instance()
        vars(them).update(vars(US) | parts)
        return them.sign(DRAFT)

    return make


def other_payload(bundle: dict[str, Any]) -> None:
    other = json.loads(hostile.bundle(MEMBERS | {"card.md": b"# evil\n"}, keys=()))
    bundle["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]


def flipped(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[-1] ^= 1
    return base64.b64encode(raw).decode()


def flip(inner: Callable[[dict[str, Any]], dict[str, Any]], name: str) -> Change:
    return lambda bundle: inner(bundle).update({name: flipped(inner(bundle)[name])})


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "another identity": (lambda: US.sign(DRAFT, (OTHER,)), f"its identity is wrong: of that issuer only {WORKFLOW} is trusted"),
    "another issuer": (lambda: US.sign(DRAFT, issuer="https://gitlab.com"), f"its issuer is wrong: .* only where {GITHUB} vouches"),
    "another of both": (lambda: US.sign(DRAFT, (OTHER,), "https://gitlab.com"), "identities of https://gitlab.com are not trusted"),
    "two identities": (lambda: US.sign(DRAFT, (WORKFLOW, OTHER)), "does not name one identity"),
    "an identity of two words": (lambda: US.sign(DRAFT, (f"{WORKFLOW} --key",)), "names nobody"),
    "another authority": (elsewhere(authority=Authority()), "certificate chain"),
    "no SCT": (lambda: US.sign(DRAFT, embedded=False), "does not contain a signed certificate timestamp"),
    "an SCT of another log": (lambda: US.sign(DRAFT, log=Log()), "verify SCT on signing certificate: .* invalid signature"),
    "a certificate for servers": (lambda: US.sign(DRAFT, usage=ExtendedKeyUsageOID.SERVER_AUTH), "does not contain `code signing`"),
    "signed after the certificate's end": (lambda: US.sign(DRAFT, late=601), "not valid at validation time"),
    "signed before the certificate": (lambda: US.sign(DRAFT, late=-1), "not valid at validation time"),
    "another statement": (changed(other_payload), "DSSE: invalid signature"),
    "another signature": (changed(flip(lambda bundle: bundle["dsseEnvelope"]["signatures"][0], "sig")), "DSSE: invalid signature"),
    "no log entry": (changed(lambda bundle: bundle["verificationMaterial"].update(tlogEntries=[])), "needs one transparency log entry"),
    "no log entries": (changed(lambda bundle: bundle["verificationMaterial"].pop("tlogEntries")), "lacks or has unknown 'tlogEntries'"),
    "two log entries": (changed(lambda bundle: bundle["verificationMaterial"]["tlogEntries"].append(entry(bundle))), "needs one transparency log entry"),
    "the log entry of another": (changed(lambda bundle: bundle["verificationMaterial"].update(tlogEntries=json.loads(US.sign(DRAFT))["verificationMaterial"]["tlogEntries"])), "log entry signatures do not match bundle"),
    "the entry of another log": (elsewhere(entries=Log()), "invalid log entry: checkpoint"),
    "no promise, and no other time": (changed(lambda bundle: entry(bundle).pop("inclusionPromise")), "must contain an inclusion promise or signed timestamp"),
    "a broken promise": (changed(flip(lambda bundle: entry(bundle)["inclusionPromise"], "signedEntryTimestamp")), "invalid inclusion promise"),
    "a time that no clock has": (changed(lambda bundle: entry(bundle).update(integratedTime="9" * 19)), "out of range"),
    "another time": (changed(lambda bundle: entry(bundle).update(integratedTime=str(LOGGED + 90))), "invalid inclusion promise"),
    "no proof": (changed(lambda bundle: entry(bundle).pop("inclusionProof")), "inclusionProof Field required"),
    "no checkpoint": (changed(lambda bundle: entry(bundle)["inclusionProof"].pop("checkpoint")), "with checkpoint"),
    "a proof of another tree": (changed(flip(lambda bundle: entry(bundle)["inclusionProof"], "rootHash")), "invalid root hash"),
    "a short proof": (changed(lambda bundle: entry(bundle)["inclusionProof"].update(hashes=[])), "wrong size"),
    "another body": (changed(flip(entry, "canonicalizedBody")), "invalid root hash"),
    "another kind": (changed(lambda bundle: entry(bundle).update(kindVersion={"kind": "intoto", "version": "0.0.2"})), "only supported for dsse"),
    "a key of RSA": (lambda: US.sign(DRAFT, key=_Foreign(rsa.generate_private_key(65537, 2048))), "not for a key of ECDSA"),
    "a key of Ed25519": (lambda: US.sign(DRAFT, key=ed25519.Ed25519PrivateKey.generate()), "not for a key of ECDSA"),
    "no certificate in it": (changed(lambda bundle: bundle["verificationMaterial"]["certificate"].update(rawBytes="AAAA")), "the keyless signature is refused"),
    "a key beside the certificate": (changed(lambda bundle: bundle["verificationMaterial"].update(publicKey={"hint": ""})), "unknown 'publicKey'"),
    "a chain": (changed(lambda bundle: bundle["verificationMaterial"].update(x509CertificateChain=bundle["verificationMaterial"].pop("certificate"))), "chains of certificates are not supported"),
    "a key's signature first": (changed(lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(keyid="me")), "is not the certificate's"),
    "no signature": (changed(lambda bundle: bundle["dsseEnvelope"].update(signatures=[])), "is not the certificate's"),
    "something unknown": (changed(lambda bundle: entry(bundle).update(note="x")), "Extra inputs are not permitted"),
}


class _Foreign:
    """An RSA key that signs like the others."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.public_key = key.public_key

    def sign(self, message: bytes) -> bytes:
        return b"\0" * 256


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, call: Call, tmp_path: Path, offline: None) -> None:  # noqa: F811
    """Each with exit code 3, as any failed signature, and with its reason."""
    (tmp_path / "root.json").write_text(ROOT)
    assert call("trust", "add", "sql", "--identity", WORKFLOW, "--issuer", GITHUB, "--trusted-root", "root.json")[0] == 0
    make, reason = REFUSED[case]
    path = written(tmp_path, make())
    code, out, err = call("verify", path)
    assert (code, out) == (3, "")
    assert re.search(reason, " ".join(err.split())), err
    assert call("install", path)[0] == 3
    assert not (tmp_path / "home" / "store").exists()


@pytest.fixture
def running() -> Iterator[Web]:
    """The instance over HTTP."""
    with serve(US) as web:
        yield web


def configured(folder: Path, web: Web, instance: Instance = US, rekor: int = 1) -> Path:
    (folder / "root.json").write_text(json.dumps(instance.root()))
    (folder / "sigstore.json").write_text(json.dumps(instance.config(web.url, rekor)))
    return folder / "sigstore.json"


def test_the_story(call: Call, running: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Package, sign by the identity of a CI run, trust it, install without a network, and see who vouches."""
    path, config = packages.expert(tmp_path), configured(tmp_path, running)
    assert "is not signed" in call("verify", path)[2]
    nobody = call("sign", path, "--keyless", "--trust-config", config)
    assert (nobody[0], "nobody says who signs" in nobody[2]) == (2, True)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ambient")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{running.url}/token?api-version=2")
    told = data(call("sign", path, "--keyless", "--trust-config", config, "--json"))
    assert (told["identity"], told["issuer"]) == (WORKFLOW, GITHUB)
    assert [one.split("?")[0] for one in running.paths()] == ["/token", "/api/v2/signingCert", "/api/v1/log/entries"]
    code, _, err = call("verify", path)
    assert code == 3
    command = re.search(r"expert-cli (trust add sql --identity \S+ --issuer \S+)", " ".join(err.split()))
    assert command, err
    assert call(*command[1].split(), "--trusted-root", "root.json")[0] == 0
    asked = len(running.asked)
    assert data(call("verify", path, "--json"))["provenance"] == [{"identity": WORKFLOW, "issuer": GITHUB}]
    assert call("install", path)[0] == 0
    shown = data(call("info", "sql", "--json"))
    assert (shown["trusted"], shown["provenance"], shown["signers"]) == (True, [{"identity": WORKFLOW, "issuer": GITHUB}], [ME.id])
    assert data(call("info", path, "--json"))["provenance"] == shown["provenance"]
    assert f"signed by {WORKFLOW} via {GITHUB}" in call("info", "sql")[1]
    assert WORKFLOW in call("list")[1]
    assert call("verify", "sql")[1].endswith(f"signed by {ME.id}\n")
    assert len(running.asked) == asked, "to verify asks nobody"


def test_trust_commands(call: Call, tmp_path: Path) -> None:  # noqa: F811
    """Expiry, list, pin, revoke and remove treat identities as they treat keys."""
    path = written(tmp_path, US.sign(DRAFT))
    (tmp_path / "root.json").write_text(ROOT)
    add = ("trust", "add", "sql", "--identity", WORKFLOW, "--issuer", GITHUB, "--trusted-root", "root.json")
    assert data(call(*add, "--expires", "2026-02-01", "--json"))["identity"] == WORKFLOW
    assert "expired on 2026-02-01" in call("verify", path)[2]
    assert call(*add, "--comment", "the workflow")[0] == 0
    assert call("verify", path)[0] == 0
    listed = data(call("trust", "list", "--json"))["keys"]
    assert [(one["identity"], one["issuer"], one["pem"], len(one["root"])) for one in listed] == [(WORKFLOW, GITHUB, "", 64)]
    assert f"{WORKFLOW} via {GITHUB}" in call("trust", "list")[1]
    assert call("install", path)[0] == 0
    assert call("trust", "pin", "sql")[0] == 0
    assert call("verify", "sql")[0] == 0
    assert "has 0 keys and identities, of which one may sign" in call("trust", "require", "sql", "2")[2]
    assert call("trust", "revoke", WORKFLOW, "--reason", "moved")[0] == 0
    assert "is revoked (moved)" in " ".join(call("verify", "sql")[2].split())
    assert "is revoked" in call(*add)[2]
    assert call("trust", "remove", WORKFLOW)[1] == f"{ME.id} may no longer sign 'sql'\n"
    assert "roots" not in json.loads((tmp_path / "home" / "trust.json").read_bytes())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--identity", WORKFLOW], "--identity and --issuer"),
        (["--issuer", GITHUB], "--identity and --issuer"),
        (["--key", "me.pub", "--identity", WORKFLOW, "--issuer", GITHUB], "--identity and --issuer"),
        (["--key", "me.pub", "--trusted-root", "root.json"], "--identity and --issuer"),
        (["--identity", WORKFLOW, "--issuer", GITHUB, "--key-id", "sha256:00000000"], "--identity and --issuer"),
        (["--identity", "two words", "--issuer", GITHUB], "without spaces"),
        (["--identity", WORKFLOW, "--issuer", "github"], "is no issuer"),
        (["--identity", WORKFLOW, "--issuer", GITHUB, "--trusted-root", "absent.json"], "cannot be read"),
        *((["--identity", WORKFLOW, "--issuer", GITHUB, "--trusted-root", f"{name}.json"], "is no trusted root") for name in ("text", "list", "empty", "keys", "authority")),
    ],
)
def test_trust_add_refuses(words: list[str], message: str, call: Call, tmp_path: Path, home: Path) -> None:  # noqa: F811
    signing.save_pair(KEY, tmp_path / "me.key")
    roots = {"text": "x", "list": "[]", "empty": json.dumps(US.root() | {"tlogs": []}), "root": ROOT}
    roots["keys"] = json.dumps(US.root() | {"tlogs": [{"publicKey": {"rawBytes": "AAAA"}}]})
    chain = {"certificates": [{"rawBytes": "AAAA"}]}
    roots["authority"] = json.dumps(US.root() | {"certificateAuthorities": [US.root()["certificateAuthorities"][0] | {"certChain": chain}]})
    for name, text in roots.items():
        (tmp_path / f"{name}.json").write_text(text)
    code, _, err = call("trust", "add", "sql", *words)
    assert (code, message in err) == (2, True), err
    assert not home.exists()


THRESHOLDS: list[tuple[tuple[Pin, ...], int, Callable[[], bytes], set[str] | str]] = [
    ((PIN, KEY_PIN), 2, lambda: signing.sign(US.sign(DRAFT), KEY), {ME.id, KEY.public.id}),
    ((PIN, KEY_PIN), 2, lambda: US.sign(signing.sign(DRAFT, KEY)), {ME.id, KEY.public.id}),
    ((PIN, KEY_PIN), 2, lambda: US.sign(DRAFT), "1 of the 2 signatures"),
    ((PIN, KEY_PIN), 2, lambda: signing.sign(US.sign(DRAFT, late=900), KEY), "1 of the 2 signatures.*is said to have signed it.*not valid at"),
    ((PIN, KEY_PIN), 1, lambda: signing.sign(US.sign(DRAFT, late=900), KEY), {KEY.public.id}),
    ((KEY_PIN,), 1, lambda: signing.sign(US.sign(DRAFT), KEY), {KEY.public.id}),
    ((PIN,), 1, lambda: signing.sign(US.sign(DRAFT), KEY), {ME.id}),
    ((PIN, Pin("*", ME.id, "", root="{}")), 1, lambda: US.sign(DRAFT), {ME.id}),
    ((Pin("sql-pro", ME.id, "", root=ROOT),), 1, lambda: US.sign(DRAFT), "trusted for 'sql-pro' and not for this name.*trust add sql --identity"),
    ((Pin("sql", ME.id, "", root=json.dumps(Instance().root())),), 1, lambda: US.sign(DRAFT), "is said to have signed it, but"),
    ((Pin("sql", ME.id, ""),), 1, lambda: US.sign(DRAFT), "is said to have signed it, but .* certificate chain"),
]


@pytest.mark.parametrize(("pins", "needed", "make", "expected"), THRESHOLDS)
def test_check(pins: tuple[Pin, ...], needed: int, make: Callable[[], bytes], expected: set[str] | str, offline: None) -> None:
    """Keys and one identity sign together, in whatever order; each counts once."""
    known = Trust(pins, {"sql": needed})
    if isinstance(expected, str):
        with pytest.raises(VerificationError, match=expected):
            known.check(signing.parse(make()), "sql", TODAY)
    else:
        assert {pin.id for pin in known.check(signing.parse(make()), "sql", TODAY)} == expected


def without_stamps(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["timestampVerificationData"] = {}


def with_no_stamps(bundle: dict[str, Any]) -> None:
    bundle["verificationMaterial"]["timestampVerificationData"] = {"rfc3161Timestamps": []}


@pytest.mark.parametrize("change", [without_stamps, with_no_stamps, lambda bundle: bundle["dsseEnvelope"]["signatures"][0].update(keyid="")])
def test_what_other_tools_write_alike(change: Change, offline: None) -> None:
    assert Trust((PIN,)).check(signing.parse(changed(change)()), "sql", TODAY) == (PIN,)


def test_a_file_keeps_identities(home: Path) -> None:
    pins = [trust.add_identity(ME, name, root=ROOT.encode()) for name in ("sql", "acme")]
    pins.append(trust.add_identity(trust.Identity("me@acme.example", "https://accounts.google.com"), "acme"))
    assert tuple(pin for pin in trust.load().pins if pin.origin == "user") == tuple(pins)
    assert len(json.loads((home / "trust.json").read_bytes())["roots"]) == 1
    assert trust.load().check(signing.parse(US.sign(DRAFT)), "sql", TODAY) == (pins[0],)
    trust.add(KEY.public.pem, "acme")
    with pytest.raises(UsageError, match="has 1 keys and identities"):
        trust.require("acme", 3)
    trust.require("acme", 2)


def test_without_the_library(call: Call, running: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """What to install is said; keys go on working."""
    path, config = written(tmp_path, signing.sign(US.sign(DRAFT), KEY)), configured(tmp_path, running)
    words = ("--identity", WORKFLOW, "--issuer", GITHUB, "--trusted-root", "root.json")
    assert call("trust", "add", "sql", *words)[0] == 0
    for name in [name for name in sys.modules if name.partition(".")[0] == "sigstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sigstore", None)
    calls = {("verify", path): 3, ("trust", "add", "sql", *words): 2, ("sign", packages.expert(tmp_path / "new"), "--keyless", "--trust-config", config): 2}
    for words, expected in calls.items():
        code, _, err = call(*words)
        assert (code, "pip install 'expert-cli[sigstore]'" in " ".join(err.split())) == (expected, True), err
    signing.save_pair(KEY, tmp_path / "me.key")
    assert call("verify", path, "--key", "me.pub")[0] == 0
