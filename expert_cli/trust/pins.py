"""Pins, and what they say of a bundle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime

from expert_cli import signing
from expert_cli.errors import VerificationError

ANY = "*"


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
class Held:
    """What one expert is held to: all of these keys must have signed it, and it must be this very archive, if given."""

    keys: tuple[str, ...] = ()
    digest: str = ""


@dataclass(frozen=True)
class Trust:
    """All pins, the thresholds per namespace (1 where none is set) and the ids of revoked keys with the reason.

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
        """The pins whose keys signed ``bundle`` for an expert called ``name``; ``digest`` is its archive's.

        Raises:
            VerificationError: no signature, fewer good ones than the namespace's threshold, or not what it is held to.
        """
        # (1) There is a signature at all.
        if not bundle.signatures:
            raise VerificationError(f"{name} is not signed; ask its publisher for a signed archive")
        # (2) Only keys pinned for this name count, never one that came along, and each counts once.
        namespace = self.namespace(name)
        pinned = {pin.id: pin for pin in self.pins if pin.namespace == namespace}
        found = signing.signers(bundle, map(key_of, pinned.values()))
        if not found:
            raise VerificationError(self._unknown(bundle, name))
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
            + "".join(f"; {reason}" for reason in stale)
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
        """Check that some pinned key signed ``bundle``, before it is known for which name.

        Raises:
            VerificationError: there is no signature, or none by a pinned key.
        """
        if not bundle.signatures:
            raise VerificationError("the archive is not signed; ask its publisher for a signed one")
        if not signing.signers(bundle, map(key_of, self.pins)):
            raise VerificationError(self._unknown(bundle, "NAME"))

    def _stale(self, pin: Pin, today: date) -> str:
        if pin.id in (self.revoked or {}):
            return f"is revoked ({(self.revoked or {})[pin.id]})"
        if pin.expires and today >= pin.expires:
            return f"expired on {pin.expires}"
        return ""

    def _unknown(self, bundle: signing.Bundle, name: str) -> str:
        elsewhere = signing.signers(bundle, map(key_of, self.pins))
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


def key_of(pin: Pin) -> signing.PublicKey:
    """The key of a pin."""
    return signing.load_public(pin.pem.encode(), f"the pinned key {pin.id}")


def _command(name: str, key_id: str) -> str:
    chosen = f" --key-id {key_id}" if key_id else ""
    return f"expert-cli trust add {name} --key PUBLISHER.pub{chosen}"
