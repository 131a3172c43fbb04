"""Pins, and what they say of a bundle."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from expert_cli import signing
from expert_cli.errors import VerificationError
from expert_cli.signing import keyless

ANY = "*"


@dataclass(frozen=True)
class Pin:
    """A pinned key or identity. ``expires`` is the day from which it is refused; ``origin`` is ``user`` or ``shipped``.

    An identity has no ``pem``; ``root`` is the trusted root to check it against, as JSON, and empty for the public one.
    """

    namespace: str
    id: str
    pem: str
    expires: date | None = None
    comment: str = ""
    origin: str = "user"
    root: str = ""

    @property
    def identity(self) -> keyless.Identity | None:
        """The identity; None where a key is pinned."""
        return None if self.pem else keyless.identity_of(self.id)


@dataclass(frozen=True)
class Held:
    """What one expert is held to: all of these keys must have signed it, and it must be this very archive, if given."""

    keys: tuple[str, ...] = ()
    digest: str = ""


@dataclass(frozen=True)
class Trust:
    """All pins, the thresholds per namespace (1 where none is set) and the ids of revoked signers with the reason.

    ``held`` narrows what the pins allow for single experts.
    """

    pins: tuple[Pin, ...] = ()
    thresholds: Mapping[str, int] | None = None
    revoked: Mapping[str, str] | None = None
    held: Mapping[str, Held] | None = None

    def namespace(self, name: str) -> str:
        """The pinned namespace that decides over ``name``; empty when none does."""
        known = {pin.namespace for pin in self.pins}
        parts = name.split("-")
        candidates = ["-".join(parts[:count]) for count in range(len(parts), 0, -1)]
        return next((one for one in [*candidates, ANY] if one in known), "")

    def check(
        self, bundle: signing.Bundle, name: str, today: date | None = None, *, digest: str = ""
    ) -> tuple[Pin, ...]:
        """The pins of those who signed ``bundle`` for an expert called ``name``; ``digest`` is its archive's.

        Raises:
            VerificationError: no signature, fewer good ones than the namespace's threshold, or not what it is held to.
        """
        # (1) There is a signature at all.
        if not bundle.signatures:
            raise VerificationError(f"{name} is not signed; ask its publisher for a signed archive")
        # (2) Only keys and identities pinned for this name count, never one that came along, and each counts once.
        namespace = self.namespace(name)
        pinned = {pin.id: pin for pin in self.pins if pin.namespace == namespace}
        found, fault = _signers(bundle, pinned.values())
        if not found:
            raise VerificationError(self._unknown(bundle, name, fault))
        # (3) Revoked and expired keys do not count.
        today = today or datetime.now(UTC).date()
        good = [pinned[id] for id in sorted(found) if not self._stale(pinned[id], today)]
        # (4) There are enough of them.
        needed = (self.thresholds or {}).get(namespace, 1)
        if len(good) >= needed:
            # (5) It is what this expert was pinned to.
            self._hold(name, {pin.id for pin in good}, digest)
            return tuple(good)
        stale = [f"{id} {reason}" for id in sorted(found) if (reason := self._stale(pinned[id], today))]
        raise VerificationError(
            f"{name} carries {len(good)} of the {needed} signatures that namespace {namespace!r} demands"
            + "".join(f"; {reason}" for reason in [*stale, fault] if reason)
            + "; get a version that its publisher signed with a key that is good today"
        )

    def _hold(self, name: str, signers: Collection[str], digest: str) -> None:
        held = (self.held or {}).get(name, Held())
        if missing := [key for key in held.keys if key not in signers]:
            raise VerificationError(
                f"{name} is pinned to {', '.join(held.keys)}, and {missing[0]} did not sign this one; if its publisher "
                f"says why: expert-cli trust unpin {name}"
            )
        if held.digest and held.digest != digest:
            raise VerificationError(
                f"{name} is pinned to the archive {held.digest}, this one is {digest or 'another'}; to let others in: "
                f"expert-cli trust unpin {name}"
            )

    def recognise(self, bundle: signing.Bundle) -> None:
        """Check that someone pinned signed ``bundle``, before it is known for which name.

        Raises:
            VerificationError: there is no signature, or none by anyone pinned.
        """
        if not bundle.signatures:
            raise VerificationError("the archive is not signed; ask its publisher for a signed one")
        found, fault = _signers(bundle, self.pins)
        if not found:
            raise VerificationError(self._unknown(bundle, "NAME", fault))

    def _stale(self, pin: Pin, today: date) -> str:
        if pin.id in (self.revoked or {}):
            return f"is revoked ({(self.revoked or {})[pin.id]})"
        if pin.expires and today >= pin.expires:
            return f"expired on {pin.expires}"
        return ""

    def _unknown(self, bundle: signing.Bundle, name: str, fault: str) -> str:
        if fault:
            return f"{name}: {fault}; do not use this file, fetch it again from its publisher"
        elsewhere, _ = _signers(bundle, self.pins)
        if elsewhere:
            owner = next(pin.namespace for pin in self.pins if pin.id in elsewhere)
            return (
                f"{name} is signed by {min(elsewhere)}, which is trusted for {owner!r} and not for this name; "
                f"if it may sign this too: {_command(name, min(elsewhere))}"
            )
        if bundle.certified:
            return self._stranger(keyless.claimed(bundle), name)
        claimed = next((key for key, _ in bundle.signatures if key), bundle.hint)
        return (
            f"{name} is signed by an unknown key; get the publisher's public key from a place that you trust, then: "
            + _command(name, claimed)
        )

    def _stranger(self, who: keyless.Identity, name: str) -> str:
        """Why the identity that a certificate claims is not accepted for ``name``."""
        known = [pin.identity for pin in self.pins if pin.identity and pin.namespace == self.namespace(name)]
        issuers = ", ".join(sorted({one.issuer for one in known if one.name == who.name}))
        names = ", ".join(sorted({one.name for one in known if one.issuer == who.issuer}))
        reason = f"identities of {who.issuer} are not trusted for this name"
        if issuers:
            reason = f"its issuer is wrong: that identity is trusted only where {issuers} vouches for it"
        elif names:
            reason = f"its identity is wrong: of that issuer only {names} is trusted"
        return (
            f"{name} is signed without a key, by {who.id}, which is unknown; {reason}; if its publisher says in a "
            f"place that you trust that this is who signs: {_command(name, who.id)}"
        )


def key_of(pin: Pin) -> signing.PublicKey:
    """The key of a pin that has one."""
    return signing.load_public(pin.pem.encode(), f"the pinned key {pin.id}")


def _signers(bundle: signing.Bundle, pins: Iterable[Pin]) -> tuple[frozenset[str], str]:
    """The ids of those ``pins`` that signed, and why a pinned identity that is said to have signed does not count."""
    pins = tuple(pins)
    found = signing.signers(bundle, [key_of(pin) for pin in pins if pin.pem])
    if not bundle.certified:
        return found, ""
    try:
        who = keyless.claimed(bundle)
    except VerificationError as problem:
        return found, str(problem)
    fault = ""
    for root in {pin.root for pin in pins if pin.identity == who}:
        try:
            keyless.verify(bundle, who, root)
        except VerificationError as problem:
            fault = f"{who.id} is said to have signed it, but {problem}"
        else:
            return found | {who.id}, ""
    return found, fault


def _command(name: str, signer: str) -> str:
    if who := keyless.identity_of(signer):
        return f"expert-cli trust add {name} --identity {shlex.quote(who.name)} --issuer {shlex.quote(who.issuer)}"
    chosen = f" --key-id {signer}" if signer else ""
    return f"expert-cli trust add {name} --key PUBLISHER.pub{chosen}"
