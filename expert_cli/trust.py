"""Who may sign what: public keys pinned per publisher namespace.

A namespace is an expert's name, or the part of it before a ``-``: keys of ``acme`` may sign ``acme`` and
``acme-sql``. The longest namespace that matches a name alone decides, so that pinning ``acme-sql`` takes it away from
the keys of ``acme``. ``*`` matches every name that no other namespace does.

Pins come from two files of one form: ``$EXPERT_HOME/trust.json`` and the one that ships with the tool. A key that is
revoked in either is refused everywhere. What this does not protect against: a publisher whose private key was stolen
and not yet revoked, and anyone who can write to ``$EXPERT_HOME``.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from expert_cli import paths, signing
from expert_cli.errors import ManifestError, UsageError, VerificationError
from expert_cli.manifest import parse_json

FORMAT = 1
ANY = "*"
_NAMESPACE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*|\*")


@dataclass(frozen=True)
class Pin:
    """A pinned key. ``expires`` is the first day on which it is refused; ``origin`` is ``user`` or ``shipped``."""

    namespace: str
    id: str
    pem: str
    expires: date | None = None
    comment: str = ""
    origin: str = "user"


@dataclass(frozen=True)
class Trust:
    """All pins, the thresholds per namespace (1 where none is set) and the ids of revoked keys with the reason."""

    pins: tuple[Pin, ...] = ()
    thresholds: Mapping[str, int] | None = None
    revoked: Mapping[str, str] | None = None

    def namespace(self, name: str) -> str:
        """The pinned namespace that decides over ``name``; empty when none does."""
        known = {pin.namespace for pin in self.pins}
        parts = name.split("-")
        candidates = ["-".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return next((one for one in [*candidates, ANY] if one in known), "")

    def check(self, bundle: signing.Bundle, name: str, today: date | None = None) -> tuple[Pin, ...]:
        """The pins whose keys signed ``bundle`` for an expert called ``name``.

        Raises:
            VerificationError: no signature, or fewer good ones than the namespace's threshold.
        """
        # (1) There is a signature at all.
        if not bundle.signatures:
            raise VerificationError(f"{name} is not signed; ask its publisher for a signed archive")
        # (2) Only keys pinned for this name count, never one that came along, and each counts once.
        namespace = self.namespace(name)
        pinned = {pin.id: pin for pin in self.pins if pin.namespace == namespace}
        found = signing.signers(bundle, map(_key, pinned.values()))
        if not found:
            raise VerificationError(self._unknown(bundle, name))
        # (3) Revoked and expired keys do not count.
        today = today or datetime.now(UTC).date()
        good = [pinned[id] for id in sorted(found) if not self._stale(pinned[id], today)]
        # (4) There are enough of them.
        needed = (self.thresholds or {}).get(namespace, 1)
        if len(good) >= needed:
            return tuple(good)
        stale = [f"{id} {reason}" for id in sorted(found) if (reason := self._stale(pinned[id], today))]
        raise VerificationError(
            f"{name} carries {len(good)} of the {needed} signatures that namespace {namespace!r} demands"
            + "".join(f"; {reason}" for reason in stale)
            + "; get a version that its publisher signed with a key that is good today"
        )

    def recognise(self, bundle: signing.Bundle) -> None:
        """Check that some pinned key signed ``bundle``, before it is known for which name.

        Raises:
            VerificationError: there is no signature, or none by a pinned key.
        """
        if not bundle.signatures:
            raise VerificationError("the archive is not signed; ask its publisher for a signed one")
        if not signing.signers(bundle, map(_key, self.pins)):
            raise VerificationError(self._unknown(bundle, "NAME"))

    def _stale(self, pin: Pin, today: date) -> str:
        if pin.id in (self.revoked or {}):
            return f"is revoked ({(self.revoked or {})[pin.id]})"
        if pin.expires and today >= pin.expires:
            return f"expired on {pin.expires}"
        return ""

    def _unknown(self, bundle: signing.Bundle, name: str) -> str:
        elsewhere = signing.signers(bundle, map(_key, self.pins))
        if elsewhere:
            owner = next(pin.namespace for pin in self.pins if pin.id in elsewhere)
            return (
                f"{name} is signed by {min(elsewhere)}, which is trusted for {owner!r} and not for this name; "
                f"if it may sign this too: {_command(name, min(elsewhere))}"
            )
        claimed = next((key for key, _ in bundle.signatures if key), bundle.hint)
        return (
            f"{name} is signed by an unknown key; get the publisher's public key from a place that you trust, then: "
            + _command(name, claimed)
        )


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
    if not _NAMESPACE.fullmatch(namespace):
        raise UsageError(f"{namespace!r} is no namespace; write an expert's name, its first words, or '*'")
    if key_id and key_id not in (key.id, key.hint, key.id.removeprefix("sha256:")):
        raise UsageError(f"{source} is {key.id} and not {key_id}; do not trust it before you know why")
    if key.id in (load().revoked or {}):
        raise UsageError(f"{key.id} is revoked; ask its publisher for the key that replaced it")
    own = _read(_path(), "user")
    pin = Pin(namespace, key.id, key.pem.decode(), expires, comment)
    kept = tuple(other for other in own.pins if (other.namespace, other.id) != (namespace, key.id))
    _write(replace(own, pins=(*kept, pin)))
    return pin


def remove(key_id: str, namespace: str = "") -> tuple[Pin, ...]:
    """Take back the user's pins of a key, in one namespace or in all.

    Raises:
        UsageError: there is none.
    """
    own = _read(_path(), "user")
    gone = tuple(pin for pin in own.pins if _is(pin.id, key_id) and namespace in ("", pin.namespace))
    if not gone:
        raise UsageError(f"no key {key_id} of yours is pinned here; see: expert-cli trust list")
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
    """Refuse a key from now on, wherever it is pinned, shipped pins included; return its full id.

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
        UsageError: fewer keys are pinned there.
    """
    pinned = len({pin.id for pin in load().pins if pin.namespace == namespace})
    if not 1 <= threshold <= pinned:
        raise UsageError(f"{namespace!r} has {pinned} keys; pin more, or demand between 1 and {pinned}")
    own = _read(_path(), "user")
    _write(replace(own, thresholds={**(own.thresholds or {}), namespace: threshold}))


def _key(pin: Pin) -> signing.PublicKey:
    return signing.load_public(pin.pem.encode(), f"the pinned key {pin.id}")


def _is(full: str, given: str) -> bool:
    return full.startswith((given, f"sha256:{given}")) and len(given.removeprefix("sha256:")) >= 8


def _command(name: str, key_id: str) -> str:
    chosen = f" --key-id {key_id}" if key_id else ""
    return f"expert-cli trust add {name} --key PUBLISHER.pub{chosen}"


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
        trust = Trust(pins, dict(data["thresholds"]), dict(data["revoked"]))
    except (KeyError, TypeError, ValueError) as problem:
        raise ManifestError(str(path), [f"malformed ({problem!r}); restore it or move it away"]) from problem
    if wrong := [pin.id for pin in pins if _key(pin).id != pin.id]:
        raise ManifestError(str(path), [f"the key under {one} has another id; remove it" for one in wrong])
    return trust


def dump(pins: Iterable[Pin], thresholds: Mapping[str, int], revoked: Mapping[str, str]) -> bytes:
    """The content of a trust file, as it ships with the tool and lies in ``$EXPERT_HOME``."""
    keys: list[dict[str, Any]] = [
        {
            "namespace": pin.namespace,
            "id": pin.id,
            "pem": pin.pem,
            "expires": pin.expires.isoformat() if pin.expires else None,
            "comment": pin.comment,
        }
        for pin in pins
    ]
    data = {"format": FORMAT, "keys": keys, "thresholds": dict(thresholds), "revoked": dict(revoked)}
    return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode()


def _write(trust: Trust) -> None:
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(prefix=".trust.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(dump(trust.pins, trust.thresholds or {}, trust.revoked or {}))
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)
