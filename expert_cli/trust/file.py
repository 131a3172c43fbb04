"""The user's trust file: ``$EXPERT_HOME/trust.json``, changed as a whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from expert_cli import paths, signing
from expert_cli.errors import ManifestError, UsageError
from expert_cli.manifest import parse_json
from expert_cli.signing import keyless
from expert_cli.trust.pins import ANY, Held, Pin, Trust, key_of

FORMAT = 1
_NAMESPACE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*|\*")


def load() -> Trust:
    """The pins of the user and of the tool together.

    Raises:
        ManifestError: a trust file is malformed.
    """
    parts = [_read(paths.packaged("trust.json"), "shipped"), _read(_path(), "user")]
    shipped, own = parts
    return Trust(
        pins=shipped.pins + own.pins,
        thresholds={**(shipped.thresholds or {}), **(own.thresholds or {})},
        revoked={**(shipped.revoked or {}), **(own.revoked or {})},
        held=own.held,
    )


def only(pem: bytes, source: str) -> Trust:
    """Trust in one public key alone, for any name.

    Raises:
        UsageError: it is no usable key.
    """
    key = signing.load_public(pem, source)
    return Trust((Pin(ANY, key.id, key.pem.decode()),))


def add(
    pem: bytes,
    namespace: str,
    *,
    source: str = "the key",
    key_id: str = "",
    expires: date | None = None,
    comment: str = "",
) -> Pin:
    """Pin the public key ``pem`` for ``namespace``; pinning it again replaces its expiry and comment.

    Raises:
        UsageError: it is no usable key, not the one that ``key_id`` names, revoked, or the namespace is malformed.
    """
    key = signing.load_public(pem, source)
    if key_id and key_id not in (key.id, key.hint, key.id.removeprefix("sha256:")):
        raise UsageError(f"{source} is {key.id} and not {key_id}; do not trust it before you know why")
    return _pin(Pin(namespace, key.id, key.pem.decode(), expires, comment))


def add_identity(
    who: keyless.Identity,
    namespace: str,
    *,
    root: bytes | None = None,
    source: str = "the trusted root",
    expires: date | None = None,
    comment: str = "",
) -> Pin:
    """Pin an identity for ``namespace``; ``root`` is the trusted root of another instance than the public Sigstore.

    Raises:
        UsageError: identity, root or namespace are malformed, it is revoked, or Sigstore's library is not installed.
    """
    keyless.installed()
    if who.fault:
        raise UsageError(f"{who.fault}; write them as the certificate has them")
    if not who.issuer.startswith(("https://", "http://")):
        raise UsageError(
            f"{who.issuer!r} is no issuer; write its address, as https://token.actions.githubusercontent.com"
        )
    text = keyless.trusted_root(root, source) if root is not None else ""
    return _pin(Pin(namespace, who.id, "", expires, comment, root=text))


def _pin(pin: Pin) -> Pin:
    """Write one pin in place of an earlier one of the same signer."""
    if not _NAMESPACE.fullmatch(pin.namespace):
        raise UsageError(f"{pin.namespace!r} is no namespace; write an expert's name, its first words, or '*'")
    if pin.id in (load().revoked or {}):
        raise UsageError(f"{pin.id} is revoked; ask its publisher who signs instead")
    own = _read(_path(), "user")
    kept = tuple(other for other in own.pins if (other.namespace, other.id) != (pin.namespace, pin.id))
    _write(replace(own, pins=(*kept, pin)))
    return pin


def remove(key_id: str, namespace: str = "") -> tuple[Pin, ...]:
    """Take back the user's pins of a key or identity, in one namespace or in all.

    Raises:
        UsageError: there is none.
    """
    own = _read(_path(), "user")
    gone = tuple(pin for pin in own.pins if _is(pin.id, key_id) and namespace in ("", pin.namespace))
    if not gone:
        raise UsageError(f"no key or identity {key_id} of yours is pinned here; see: expert-cli trust list")
    _write(replace(own, pins=tuple(pin for pin in own.pins if pin not in gone)))
    return gone


def rotate(pem: bytes, namespace: str, old: str, *, source: str = "the key", expires: date | None = None) -> Pin:
    """Pin a new key for ``namespace`` and take back the user's pin of the ``old`` one.

    Raises:
        UsageError: as :func:`add` and :func:`remove` do; nothing is changed then.
    """
    if not any(_is(pin.id, old) and pin.namespace == namespace for pin in _read(_path(), "user").pins):
        raise UsageError(f"no key {old} of yours is pinned for {namespace!r}; see: expert-cli trust list")
    pin = add(pem, namespace, source=source, expires=expires)
    if _is(pin.id, old):
        raise UsageError(f"{source} is the old key; name the new one")
    remove(old, namespace)
    return pin


def revoke(key_id: str, reason: str) -> str:
    """Refuse a key or identity from now on, wherever it is pinned, shipped pins included; return its full id.

    Raises:
        UsageError: no pin has it and ``key_id`` is not a full id.
    """
    found = {pin.id for pin in load().pins if _is(pin.id, key_id)}
    if not found and re.fullmatch(r"sha256:[0-9a-f]{64}", key_id):
        found = {key_id}
    if len(found) != 1:
        raise UsageError(f"{key_id} names {len(found) or 'no'} keys; give its full id, see: expert-cli trust list")
    own = _read(_path(), "user")
    _write(replace(own, revoked={**(own.revoked or {}), **dict.fromkeys(found, reason)}))
    return found.pop()


def require(namespace: str, threshold: int) -> None:
    """Demand ``threshold`` different signers for ``namespace``.

    Raises:
        UsageError: fewer are pinned there. However many identities are, only one of them can sign a bundle.
    """
    pins = {pin.id: pin for pin in load().pins if pin.namespace == namespace}.values()
    keys, identities = sum(bool(pin.pem) for pin in pins), any(not pin.pem for pin in pins)
    if not 1 <= threshold <= (most := keys + identities):
        also = " and identities, of which one may sign," if identities else ""
        raise UsageError(f"{namespace!r} has {keys} keys{also}; pin more, or demand between 1 and {most}")
    own = _read(_path(), "user")
    _write(replace(own, thresholds={**(own.thresholds or {}), namespace: threshold}))


def hold(name: str, keys: Iterable[str] = (), digest: str = "") -> Held:
    """Pin the expert ``name`` to keys that must all have signed it, and to one archive where ``digest`` is given.

    Raises:
        UsageError: nothing is given, a key may not sign it, or the name or digest is malformed.
    """
    known = load()
    if not _NAMESPACE.fullmatch(name) or name == ANY:
        raise UsageError(f"{name!r} is no expert's name; see: expert-cli list")
    if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise UsageError(f"{digest!r} is no digest; take the one that list --json or verify prints")
    allowed = {pin.id for pin in known.pins if pin.namespace == known.namespace(name)}
    chosen = []
    for key in keys:
        found = [id for id in sorted(allowed) if _is(id, key)]
        if len(found) != 1:
            raise UsageError(f"{key} names {len(found) or 'none'} of the keys that may sign {name}; see: trust list")
        chosen += found
    if not (chosen or digest):
        raise UsageError(f"name a key or a digest to pin {name} to, or install it first")
    held = Held(tuple(dict.fromkeys(chosen)), digest)
    own = _read(_path(), "user")
    _write(replace(own, held={**(own.held or {}), name: held}))
    return held


def release(name: str) -> Held:
    """Take back what :func:`hold` said.

    Raises:
        UsageError: the expert is not pinned.
    """
    own = _read(_path(), "user")
    held = dict(own.held or {})
    if name not in held:
        raise UsageError(f"{name} is not pinned; see: expert-cli trust list")
    gone = held.pop(name)
    _write(replace(own, held=held))
    return gone


def _is(full: str, given: str) -> bool:
    if who := keyless.identity_of(full):
        return given in (full, who.name)
    return full.startswith((given, f"sha256:{given}")) and len(given.removeprefix("sha256:")) >= 8


def _path() -> Path:
    return paths.home() / "trust.json"


def _read(path: Path, origin: str) -> Trust:
    if not path.is_file():
        return Trust()
    data = parse_json(path.read_bytes(), str(path))
    try:
        if data["format"] != FORMAT:
            raise ManifestError(str(path), [f"format {data['format']} is not {FORMAT}; upgrade expert-cli to read it"])
        pins = tuple(
            Pin(
                namespace=str(entry["namespace"]),
                id=str(entry["id"]),
                pem=str(entry["pem"]),
                expires=date.fromisoformat(entry["expires"]) if entry["expires"] else None,
                comment=str(entry["comment"]),
                origin=origin,
            )
            for entry in data["keys"]
        )
        roots = {str(digest): _compact(root) for digest, root in dict(data.get("roots", {})).items()}
        pins += tuple(
            Pin(
                namespace=str(entry["namespace"]),
                id=keyless.Identity(str(entry["identity"]), str(entry["issuer"])).id,
                pem="",
                expires=date.fromisoformat(entry["expires"]) if entry["expires"] else None,
                comment=str(entry["comment"]),
                origin=origin,
                root=roots[entry["root"]] if entry["root"] else "",
            )
            for entry in data.get("identities", [])
        )
        held = {
            str(name): Held(tuple(map(str, entry["keys"])), str(entry["digest"]))
            for name, entry in dict(data.get("held", {})).items()
        }
        trust = Trust(pins, dict(data["thresholds"]), dict(data["revoked"]), held)
    except (KeyError, TypeError, ValueError) as problem:
        raise ManifestError(str(path), [f"malformed ({problem!r}); restore it or move it away"]) from problem
    if wrong := [pin.id for pin in pins if pin.pem and key_of(pin).id != pin.id]:
        raise ManifestError(str(path), [f"the key under {one} has another id; remove it" for one in wrong])
    return trust


def _compact(root: Any) -> str:
    return json.dumps(root, sort_keys=True, separators=(",", ":"))


def root_digest(pin: Pin) -> str:
    """The sha256 in hex of the trusted root of an identity; empty where it is the public one."""
    return hashlib.sha256(pin.root.encode()).hexdigest() if pin.root else ""


def dump(
    pins: Iterable[Pin],
    thresholds: Mapping[str, int],
    revoked: Mapping[str, str],
    held: Mapping[str, Held] | None = None,
) -> bytes:
    """The content of a trust file, as it ships with the tool and lies in ``$EXPERT_HOME``."""
    keys, identities, roots = list[dict[str, Any]](), list[dict[str, Any]](), dict[str, Any]()
    for pin in pins:
        expires = pin.expires.isoformat() if pin.expires else None
        entry = {"namespace": pin.namespace, "expires": expires, "comment": pin.comment}
        if who := pin.identity:
            identities.append(entry | {"identity": who.name, "issuer": who.issuer, "root": root_digest(pin)})
        else:
            keys.append(entry | {"id": pin.id, "pem": pin.pem})
        if pin.root:
            roots[root_digest(pin)] = json.loads(pin.root)
    data: dict[str, Any] = {"format": FORMAT, "keys": keys, "thresholds": dict(thresholds), "revoked": dict(revoked)}
    if identities:
        data |= {"identities": identities, "roots": roots}
    if held:
        data["held"] = {name: {"keys": list(one.keys), "digest": one.digest} for name, one in held.items()}
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def _write(trust: Trust) -> None:
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".trust.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(dump(trust.pins, trust.thresholds or {}, trust.revoked or {}, trust.held))
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)
