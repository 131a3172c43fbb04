"""Statements and bundles: Sigstore v0.3 in OMS form, as OpenSSF Model Signing writes and reads it.

    statement ── in-toto: every member's name, size and sha256, and which expert they are
    bundle    ── DSSE envelope around the statement, with any number of signatures, of which the first may be keyless

What a bundle says is not to be believed before ``trust.Trust.check`` has matched its signatures with pinned keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from expert_cli.errors import ManifestError, VerificationError
from expert_cli.manifest import parse_json
from expert_cli.signing.keys import PrivateKey, PublicKey

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
MAX_SIGNATURES = 16

# model_signing writes these whatever the signer asks; every one of them names a file that no archive may hold, or the
# signature itself, so none can hide a member.
_IGNORED = {".git", ".gitattributes", ".github", ".gitignore", "signature.json"}
_NEXT = "; do not use this file, fetch it again from its publisher"


@dataclass(frozen=True)
class About:
    """What a statement says of the expert beside its members: ``created`` is RFC 3339 in UTC."""

    name: str
    version: str
    base: str
    base_sha256: str
    created: str
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """A member as a statement lists it; ``size`` in bytes, None where the signing tool does not record sizes."""

    name: str
    sha256: str
    size: int | None


@dataclass(frozen=True)
class Bundle:
    """A parsed, unverified bundle. ``about`` is None in bundles of tools that know no experts.

    ``signatures`` are pairs of the key's id, as the signer claims it, and the signature. ``certified`` is what came
    with the first of them where it is keyless: its certificate (DER in base64) and its entry in a transparency log.
    """

    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]
    hint: str
    members: tuple[Listed, ...]
    about: About | None
    certified: Mapping[str, Any] | None = None

    def alone(self) -> bytes:
        """The bundle with its keyless signature and no other, which is all that Sigstore's own tools read."""
        return _bundle(self.payload, self.signatures[:1], self.certified or {})


def draft(members: Iterable[Listed], about: About) -> bytes:
    """A bundle that lists ``members`` and carries no signature yet. Equal arguments give equal bytes."""
    listed = sorted(members, key=lambda member: member.name)
    root = hashlib.sha256(b"".join(bytes.fromhex(member.sha256) for member in listed)).hexdigest()
    resources = [
        {"algorithm": "sha256", "digest": member.sha256, "name": member.name, "size": member.size} for member in listed
    ]
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"{about.name}-{about.base}.v{about.version}", "digest": {"sha256": root}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": resources,
            "expert": vars(about) | {"requires": list(about.requires)},
        },
    }
    return _bundle(_canonical(statement), (), _by_key(""))


def sign(bundle: bytes, key: PrivateKey) -> bytes:
    """``bundle`` with one more signature, or unchanged when ``key`` has signed it already.

    Raises:
        VerificationError: the bundle is malformed.
    """
    parsed = parse(bundle)
    message = _message(parsed.payload)
    if any(key.public.verifies(signature, message) for _, signature in parsed.signatures):
        return bundle
    material = parsed.certified or _by_key(parsed.hint if parsed.signatures else key.public.hint)
    return _bundle(parsed.payload, (*parsed.signatures, (key.public.id, key.sign(message))), material)


def certify(bundle: Bundle, signature: bytes, material: Mapping[str, Any]) -> bytes:
    """``bundle`` with a keyless ``signature`` before those that it has; ``material`` is what proves it."""
    return _bundle(bundle.payload, (("", signature), *bundle.signatures), material)


def signers(bundle: Bundle, keys: Iterable[PublicKey]) -> frozenset[str]:
    """The ids of those ``keys`` that made a signature of ``bundle``; a key that signed twice counts once."""
    message = _message(bundle.payload)
    return frozenset(key.id for key in keys if any(key.verifies(one, message) for _, one in bundle.signatures))


def _message(payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of ``payload``."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def parse(data: bytes) -> Bundle:
    """Read a bundle without believing it.

    Raises:
        VerificationError: anything in it that we did not define.
    """
    try:
        bundle = _object(
            parse_json(data, "signature.json"), "bundle", {"mediaType", "verificationMaterial", "dsseEnvelope"}
        )
        payload, signatures = _envelope(bundle["dsseEnvelope"])
        statement = parse_json(payload, "signature.json payload")
    except ManifestError as problem:
        raise VerificationError(f"{problem}{_NEXT}") from problem
    if bundle["mediaType"] != MEDIA_TYPE:
        raise VerificationError(f"signature.json: media type {bundle['mediaType']!r} is not supported{_NEXT}")
    members, about = _statement(statement)
    material = bundle["verificationMaterial"]
    if isinstance(material, Mapping) and "certificate" in material:
        return Bundle(payload, signatures, "", members, about, _certified(material, signatures))
    return Bundle(payload, signatures, _hint(material), members, about)


def _envelope(data: Any) -> tuple[bytes, tuple[tuple[str, bytes], ...]]:
    envelope = _object(data, "dsseEnvelope", {"payload", "payloadType", "signatures"})
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise VerificationError(f"signature.json: payload type {envelope['payloadType']!r} is not supported{_NEXT}")
    entries = envelope["signatures"]
    if not isinstance(entries, list) or len(entries) > MAX_SIGNATURES:
        raise VerificationError(f"signature.json: signatures must be a list of at most {MAX_SIGNATURES}{_NEXT}")
    pairs = [_object(entry, "signature", {"sig"}, {"keyid"}) for entry in entries]
    signatures = ((_identifier(pair.get("keyid", "")), _unbase64(pair["sig"])) for pair in pairs)
    return _unbase64(envelope["payload"]), tuple(signatures)


def _certified(data: Any, signatures: tuple[tuple[str, bytes], ...]) -> Mapping[str, Any]:
    """The material of a keyless signature; its log entry is read by Sigstore's library alone."""
    required = {"certificate", "tlogEntries"}
    material = _object(data, "verificationMaterial", required, {"timestampVerificationData"})
    _unbase64(_object(material["certificate"], "certificate", {"rawBytes"})["rawBytes"])
    entries = material["tlogEntries"]
    if not isinstance(entries, list) or len(entries) != 1:
        raise VerificationError(f"signature.json: a keyless signature needs one transparency log entry{_NEXT}")
    if not signatures or signatures[0][0]:
        raise VerificationError(f"signature.json: the first signature is not the certificate's{_NEXT}")
    return material


def _hint(data: Any) -> str:
    if isinstance(data, Mapping) and "x509CertificateChain" in data:
        raise VerificationError(
            "signature.json: chains of certificates are not supported; ask for a signature by a key, or a keyless one"
        )
    material = _object(data, "verificationMaterial", set(), {"publicKey", "tlogEntries"})
    if material.get("tlogEntries", []) != []:
        raise VerificationError(f"signature.json: transparency log entries are not supported{_NEXT}")
    key = material.get("publicKey", {})
    if isinstance(key, Mapping) and key.keys() - {"hint"}:
        raise VerificationError(
            "signature.json carries its own key, which proves nothing; get the publisher's key from elsewhere "
            "and pin it with: expert-cli trust add NAME --key PUBLISHER.pub"
        )
    return _identifier(_object(key, "publicKey", set(), {"hint"}).get("hint", ""))


def _identifier(data: Any) -> str:
    """A key's name as the signer claims it; fit to be shown."""
    if not isinstance(data, str) or not re.fullmatch(r"[A-Za-z0-9:._/+=@-]{0,128}", data):
        raise VerificationError(f"signature.json: a malformed key id{_NEXT}")
    return data


def _statement(data: Any) -> tuple[tuple[Listed, ...], About | None]:
    statement = _object(data, "statement", {"_type", "subject", "predicateType", "predicate"})
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise VerificationError(f"signature.json: the statement is no OMS v1.0 model signature{_NEXT}")
    predicate = _object(statement["predicate"], "predicate", {"serialization", "resources"}, {"expert"})
    options = _object(
        predicate["serialization"], "serialization", {"method", "hash_type", "allow_symlinks"}, {"ignore_paths"}
    )
    if (options["method"], options["hash_type"], options["allow_symlinks"]) != ("files", "sha256", False):
        raise VerificationError(f"signature.json: only sha256 of whole files, without links, is supported{_NEXT}")
    ignored = options.get("ignore_paths", [])
    if not isinstance(ignored, list) or not all(path in _IGNORED for path in ignored):
        raise VerificationError(f"signature.json: the signer asks to ignore paths{_NEXT}")
    if not isinstance(predicate["resources"], list):
        raise VerificationError(f"signature.json: resources must be a list{_NEXT}")
    members = tuple(map(_listed, predicate["resources"]))
    root = hashlib.sha256(b"".join(bytes.fromhex(member.sha256) for member in members)).hexdigest()
    subjects = statement["subject"]
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise VerificationError(f"signature.json: exactly one subject is expected{_NEXT}")
    if _object(subjects[0], "subject", {"name", "digest"})["digest"] != {"sha256": root}:
        raise VerificationError(f"signature.json: the subject's digest is not that of its members{_NEXT}")
    return members, _about(predicate["expert"]) if "expert" in predicate else None


def _listed(data: Any) -> Listed:
    entry = _object(data, "resource", {"algorithm", "digest", "name"}, {"size"})
    name, digest, size = entry["name"], entry["digest"], entry.get("size")
    sized = size is None or (type(size) is int and size >= 0)
    if not (isinstance(name, str) and isinstance(digest, str) and sized and entry["algorithm"] == "sha256"):
        raise VerificationError(f"signature.json: a malformed resource{_NEXT}")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise VerificationError(f"signature.json: a malformed digest of {name!r}{_NEXT}")
    return Listed(name, digest, size)


def _about(data: Any) -> About:
    fields = dict(_object(data, "expert", {"name", "version", "base", "base_sha256", "created", "requires"}))
    requires = fields.pop("requires")
    if not all(isinstance(value, str) and re.fullmatch(r"[a-zA-Z0-9.:_-]{1,128}", value) for value in fields.values()):
        raise VerificationError(f"signature.json: a malformed name, version, base or time{_NEXT}")
    if not isinstance(requires, list) or not all(isinstance(text, str) for text in requires):
        raise VerificationError(f"signature.json: requires is no list of texts{_NEXT}")
    return About(**fields, requires=tuple(requires))


def _object(data: Any, what: str, required: set[str], optional: set[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise VerificationError(f"signature.json: {what} must be an object{_NEXT}")
    wrong = sorted(required - data.keys() | data.keys() - required - (optional or set()))
    if wrong:
        raise VerificationError(f"signature.json: {what} lacks or has unknown {', '.join(map(ascii, wrong))}{_NEXT}")
    return data


def _by_key(hint: str) -> Mapping[str, Any]:
    return {"publicKey": {"hint": hint}, "tlogEntries": []}


def _bundle(payload: bytes, signatures: tuple[tuple[str, bytes], ...], material: Mapping[str, Any]) -> bytes:
    pairs = [{"sig": base64.b64encode(one).decode()} | ({"keyid": key} if key else {}) for key, one in signatures]
    return _canonical(
        {
            "mediaType": MEDIA_TYPE,
            "verificationMaterial": material,
            "dsseEnvelope": {
                "payload": base64.b64encode(payload).decode(),
                "payloadType": PAYLOAD_TYPE,
                "signatures": pairs,
            },
        }
    )


def _canonical(data: Any) -> bytes:
    import rfc8785

    return rfc8785.dumps(data)


def _unbase64(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error) as problem:
        raise VerificationError(f"signature.json: malformed base64{_NEXT}") from problem
