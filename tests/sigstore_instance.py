"""A Sigstore instance of our own: Fulcio, its certificate log, Rekor (both versions) and a token service, over HTTP or not.

It signs what it is asked to, honestly or as a test says, so that Sigstore's own library meets it on real bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import subprocess
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from web import Reply, Request

from expert_cli import signing
from expert_cli.signing.bundle import certify

GITHUB = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/acme/experts/.github/workflows/publish.yml@refs/tags/sql-v0.1.0"
LOGGED = int(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp())
SCT_LIST = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
ISSUER = "1.3.6.1.4.1.57264.1."
KIND = b"application/vnd.in-toto+json"
FROM = {"start": "2025-01-01T00:00:00Z"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)


def signed(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    return key.sign(message, ec.ECDSA(hashes.SHA256()))


def token(identity: str = WORKFLOW, issuer: str = GITHUB, audience: str = "sigstore", seconds: int = 300) -> str:
    """What an OIDC issuer would give to a workflow; nobody but Fulcio looks at its signature."""
    now = int(time.time())
    claims = {"iss": issuer, "aud": audience, "sub": "repo:acme/experts:ref:refs/tags/sql-v0.1.0", "iat": now, "exp": now + seconds}
    claims["job_workflow_ref"] = identity.removeprefix("https://github.com/")
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, b"signature"))


class Authority:
    """A root and an intermediate certificate, as Fulcio has."""

    def __init__(self) -> None:
        self.root_key, self.key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
        self.root = self._certify("root", self.root_key, "root", self.root_key)
        self.certificate = self._certify("intermediate", self.key, "root", self.root_key)

    def _certify(self, name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        usage = dict.fromkeys(("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False)
        return (
            x509.CertificateBuilder()
            .subject_name(self._name(name))
            .issuer_name(self._name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime(2025, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2049, 1, 1, tzinfo=UTC))
            .add_extension(x509.BasicConstraints(ca=True, path_length=1 if name == "root" else 0), critical=True)
            .add_extension(x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
            .sign(by, hashes.SHA384())
        )

    def _name(self, name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "sigstore.example"), x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def chain(self) -> list[x509.Certificate]:
        return [self.certificate, self.root]


class Log:
    """A Merkle tree as in RFC 6962, with two entries of strangers to begin with."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = hashlib.sha256(der(self.key)).digest()
        self.leaves = [hashlib.sha256(b"\0" + entry).digest() for entry in (b"{}", b"[]")]

    def append(self, body: bytes) -> dict[str, Any]:
        """The proof that ``body`` was put into the log."""
        self.leaves.append(hashlib.sha256(b"\0" + body).digest())
        index, size, root = len(self.leaves) - 1, len(self.leaves), self.hash(self.leaves)
        note = f"rekor.example - 1\n{size}\n{b64(root)}\n"
        checkpoint = f"{note}\n\u2014 rekor.example {b64(self.id[:4] + signed(self.key, note.encode()))}\n"
        path = self.path(index, self.leaves)
        return {"logIndex": index, "treeSize": size, "rootHash": root, "hashes": path, "checkpoint": checkpoint}

    def hash(self, leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return leaves[0]
        half = 1 << (len(leaves) - 1).bit_length() - 1
        return hashlib.sha256(b"\1" + self.hash(leaves[:half]) + self.hash(leaves[half:])).digest()

    def path(self, index: int, leaves: list[bytes]) -> list[bytes]:
        if len(leaves) == 1:
            return []
        half = 1 << (len(leaves) - 1).bit_length() - 1
        if index < half:
            return [*self.path(index, leaves[:half]), self.hash(leaves[half:])]
        return [*self.path(index - half, leaves[half:]), self.hash(leaves[:half])]

    def promise(self, body: bytes, at: int, index: int) -> bytes:
        """The signed entry timestamp."""
        return signed(self.key, rfc8785.dumps({"body": b64(body), "integratedTime": at, "logID": self.id.hex(), "logIndex": index}))

    def described(self, url: str) -> dict[str, Any]:
        key = {"rawBytes": b64(der(self.key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256", "validFor": FROM}
        return {"baseUrl": url, "hashAlgorithm": "SHA2_256", "publicKey": key, "logId": {"keyId": b64(self.id)}}


class Instance:
    """All of them; it answers as Fulcio, Rekor, a timestamp authority and GitHub's token service do."""

    def __init__(self) -> None:
        self.authority, self.certificates, self.entries = Authority(), Log(), Log()
        self.stamps: Path | None = None

    def root(self) -> dict[str, Any]:
        """TrustedRoot."""
        stamps = [self.authority_of([x509.load_pem_x509_certificate((self.stamps / name).read_bytes()) for name in ("tsa.pem", "ca.pem")])] if self.stamps else []
        return {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self.entries.described("https://rekor.example")],
            "certificateAuthorities": [self.authority_of(self.authority.chain())],
            "ctlogs": [self.certificates.described("https://ctfe.example")],
            "timestampAuthorities": stamps,
        }

    def authority_of(self, chain: list[x509.Certificate]) -> dict[str, Any]:
        raw = [{"rawBytes": b64(one.public_bytes(form.Encoding.DER))} for one in chain]
        subject = {"organization": "sigstore.example", "commonName": "root"}
        return {"subject": subject, "uri": "https://fulcio.example", "certChain": {"certificates": raw}, "validFor": FROM}

    def config(self, url: str, rekor: int = 1) -> dict[str, Any]:
        """ClientTrustConfig of the instance that runs at ``url``."""
        service = {"url": url, "majorApiVersion": 1, "validFor": FROM, "operator": "example"}
        services = {
            "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
            "caUrls": [service],
            "oidcUrls": [service],
            "rekorTlogUrls": [service | {"majorApiVersion": rekor}],
            "rekorTlogConfig": {"selector": "ANY"},
            "tsaUrls": [service | {"url": f"{url}/timestamp"}] if self.stamps else [],
            "tsaConfig": {"selector": "ANY"},
        }
        kind = "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json"
        return {"mediaType": kind, "trustedRoot": self.root(), "signingConfig": services}

    def certify(
        self,
        key: CertificatePublicKeyTypes,
        identities: list[str],
        issuer: str = GITHUB,
        at: int = LOGGED,
        *,
        log: Log | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
        embedded: bool = True,
    ) -> x509.Certificate:
        """A certificate of ten minutes from ``at`` on, with the promise of ``log`` to list it."""
        begin = datetime.fromtimestamp(at, UTC)
        flags = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"), False)
        names = [x509.UniformResourceIdentifier(one) if ":" in one else x509.RFC822Name(one) for one in identities]
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.authority.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(minutes=10))
            .add_extension(x509.KeyUsage(digital_signature=True, **flags), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.authority.key.public_key()), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
        )
        for number, value in ((1, issuer.encode()), (8, b"\x0c" + bytes([len(issuer)]) + issuer.encode())):
            builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{ISSUER}{number}"), value), critical=False)
        if embedded:
            before = builder.sign(self.authority.key, hashes.SHA384()).tbs_certificate_bytes
            builder = builder.add_extension(x509.UnrecognizedExtension(SCT_LIST, self._listed(before, at, log or self.certificates)), critical=False)
        return builder.sign(self.authority.key, hashes.SHA384())

    def _listed(self, certificate: bytes, at: int, log: Log) -> bytes:
        """The list of one signed certificate timestamp (RFC 6962, 3.2 and 3.3), as an OCTET STRING."""
        issuer = hashlib.sha256(der(self.authority.key)).digest()
        body = struct.pack("!BBQH", 0, 0, at * 1000, 1) + issuer + len(certificate).to_bytes(3, "big") + certificate + bytes(2)
        signature = signed(log.key, body)
        stamp = b"\0" + log.id + struct.pack("!QHBBH", at * 1000, 0, 4, 3, len(signature)) + signature
        listed = struct.pack("!HH", len(stamp) + 2, len(stamp)) + stamp
        return (b"\x04" + bytes([len(listed)]) if len(listed) < 128 else b"\x04\x81" + bytes([len(listed)])) + listed

    def entry(self, payload: bytes, signature: bytes, certificate: bytes, at: int = LOGGED, envelope: bytes = b"{}") -> dict[str, Any]:
        """An entry of kind dsse, as Rekor's first version answers."""
        digests = {name: {"algorithm": "sha256", "value": hashlib.sha256(data).hexdigest()} for name, data in (("envelopeHash", envelope), ("payloadHash", payload))}
        spec = digests | {"signatures": [{"signature": b64(signature), "verifier": b64(certificate)}]}
        body = rfc8785.dumps({"apiVersion": "0.0.1", "kind": "dsse", "spec": spec})
        proof = self.entries.append(body)
        promise = self.entries.promise(body, at, proof["logIndex"])
        proof |= {"rootHash": proof["rootHash"].hex(), "hashes": [one.hex() for one in proof["hashes"]]}
        verification = {"inclusionProof": proof, "signedEntryTimestamp": b64(promise)}
        return {"body": b64(body), "integratedTime": at, "logID": self.entries.id.hex(), "logIndex": proof["logIndex"], "verification": verification}

    def material(self, certificate: x509.Certificate, entry: Mapping[str, Any], kind: str = "dsse") -> dict[str, Any]:
        """The verificationMaterial of a bundle (protobuf's JSON), from Rekor's answer."""
        proof = entry["verification"]["inclusionProof"]
        log = {
            "logIndex": str(entry["logIndex"]),
            "logId": {"keyId": b64(bytes.fromhex(entry["logID"]))},
            "kindVersion": {"kind": kind, "version": "0.0.1"},
            "integratedTime": str(entry["integratedTime"]),
            "inclusionPromise": {"signedEntryTimestamp": entry["verification"]["signedEntryTimestamp"]},
            "inclusionProof": {
                **{name: str(proof[name]) for name in ("logIndex", "treeSize")},
                "rootHash": b64(bytes.fromhex(proof["rootHash"])),
                "hashes": [b64(bytes.fromhex(one)) for one in proof["hashes"]],
                "checkpoint": {"envelope": proof["checkpoint"]},
            },
            "canonicalizedBody": entry["body"],
        }
        return {"certificate": {"rawBytes": b64(certificate.public_bytes(form.Encoding.DER))}, "tlogEntries": [log]}

    def sign(self, bundle: bytes, identities: tuple[str, ...] = (WORKFLOW,), issuer: str = GITHUB, *, late: int = 60, key: Any = None, **certificate: Any) -> bytes:
        """``bundle`` with a keyless signature, logged ``late`` seconds after its certificate was made."""
        key, parsed = key or ec.generate_private_key(ec.SECP256R1()), signing.parse(bundle)
        made = self.certify(key.public_key(), list(identities), issuer, **certificate)
        message = b"DSSEv1 %d %s %d %s" % (len(KIND), KIND, len(parsed.payload), parsed.payload)
        signature = signed(key, message) if isinstance(key, ec.EllipticCurvePrivateKey) else key.sign(message)
        entry = self.entry(parsed.payload, signature, made.public_bytes(form.Encoding.PEM), LOGGED + late)
        return certify(parsed, signature, self.material(made, entry))

    def __call__(self, request: Request) -> Reply:
        now = int(time.time())
        if request.path.startswith("/token"):
            return _json({"value": token()}) if request.headers.get("Authorization") == "bearer ambient" else Reply(403)
        if request.path == "/api/v2/signingCert":
            claims = json.loads(base64.urlsafe_b64decode(request.headers["Authorization"].split(".")[1] + "=="))
            asked = x509.load_pem_x509_csr(base64.b64decode(json.loads(request.body)["certificateSigningRequest"]))
            made = self.certify(asked.public_key(), [f"https://github.com/{claims['job_workflow_ref']}"], claims["iss"], now)
            chain = [one.public_bytes(form.Encoding.PEM).decode() for one in (made, *self.authority.chain())]
            return _json({"signedCertificateEmbeddedSct": {"chain": {"certificates": chain}}})
        if request.path == "/api/v1/log/entries":
            proposed = json.loads(request.body)["spec"]["proposedContent"]
            envelope = json.loads(proposed["envelope"])
            parts = (envelope["payload"], envelope["signatures"][0]["sig"], proposed["verifiers"][0])
            entry = self.entry(*map(base64.b64decode, parts), now, proposed["envelope"].encode())
            return _json({"24296fb24b8ad77a": entry}, 201)
        if request.path == "/api/v2/log/entries":
            return _json(self.hashed(json.loads(request.body)["hashedRekordRequestV002"]), 201)
        if request.path == "/timestamp" and self.stamps:
            return Reply(200, {"Content-Type": "application/timestamp-reply"}, stamp(self.stamps, request.body))
        return Reply(404)

    def hashed(self, asked: dict[str, Any]) -> dict[str, Any]:
        """An entry of kind hashedrekord, as Rekor's second version answers: without a time."""
        spec = {"data": {"algorithm": "SHA2_256", "digest": asked["digest"]}, "signature": asked["signature"]}
        body = rfc8785.dumps({"apiVersion": "0.0.2", "kind": "hashedrekord", "spec": {"hashedRekordV002": spec}})
        proof = self.entries.append(body)
        proof |= {name: str(proof[name]) for name in ("logIndex", "treeSize")} | {"rootHash": b64(proof["rootHash"])}
        proof |= {"hashes": list(map(b64, proof["hashes"])), "checkpoint": {"envelope": proof["checkpoint"]}}
        kind = {"kind": "hashedrekord", "version": "0.0.2"}
        log = {"keyId": b64(self.entries.id)}
        return {"logIndex": proof["logIndex"], "logId": log, "kindVersion": kind, "inclusionProof": proof, "canonicalizedBody": b64(body)}


def _json(data: Any, status: int = 200) -> Reply:
    return Reply(status, {"Content-Type": "application/json"}, json.dumps(data).encode())


TSA = """
[tsa]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256
accuracy = secs:1
ess_cert_id_alg = sha256
[stamps]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[authority]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
subjectKeyIdentifier = hash
"""


def stamping(folder: Path) -> Path:
    """A timestamp authority (RFC 3161) by openssl, in a new folder."""
    folder.mkdir()
    (folder / "tsa.cnf").write_text(TSA)
    (folder / "serial").write_text("01\n")
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -config /dev/null"
    for words in (
        f"{new} -subj /O=example/CN=ca -keyout ca.key -out ca.pem -extensions authority",
        f"{new} -subj /O=example/CN=tsa -keyout tsa.key -out tsa.pem -extensions stamps -CA ca.pem -CAkey ca.key",
    ):
        subprocess.run(words.replace("/dev/null", "tsa.cnf").split(), cwd=folder, check=True, capture_output=True)
    return folder


def stamp(folder: Path, query: bytes) -> bytes:
    (folder / "query").write_bytes(query)
    words = "openssl ts -reply -config tsa.cnf -section tsa -queryfile query -signer tsa.pem -inkey tsa.key -sha256 -out reply"
    subprocess.run(words.split(), cwd=folder, check=True, capture_output=True)
    return (folder / "reply").read_bytes()
