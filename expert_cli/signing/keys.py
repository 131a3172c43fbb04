"""Signing keys: ECDSA on P-256, P-384 or P-521 in PEM files. A key's id is the sha256 of its SPKI DER.

The curve of a key decides the hash algorithm; nothing in a signature can choose another.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from expert_cli.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        ECDSA,
        EllipticCurve,
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

CURVES = {"P-256": "secp256r1", "P-384": "secp384r1", "P-521": "secp521r1"}


class PrivateKey:
    """A signing key."""

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key

    @property
    def public(self) -> PublicKey:
        """The half to give away."""
        return PublicKey(self._key.public_key())

    @property
    def crypto(self) -> EllipticCurvePrivateKey:
        """The key itself, for libraries that sign on their own."""
        return self._key

    def sign(self, message: bytes) -> bytes:
        """A signature that depends on key and message alone (RFC 6979), so that rebuilding gives the same bytes."""
        return self._key.sign(message, _algorithm(self._key.curve.name, deterministic=True))

    def pem(self, passphrase: str | None) -> bytes:
        """PKCS #8, encrypted when there is a passphrase."""
        from cryptography.hazmat.primitives import serialization as form

        wrap = form.BestAvailableEncryption(passphrase.encode()) if passphrase else form.NoEncryption()
        return self._key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, wrap)


class PublicKey:
    """A key to verify with."""

    def __init__(self, key: EllipticCurvePublicKey) -> None:
        self._key = key

    @property
    def id(self) -> str:
        """``sha256:`` and the digest of the key's SPKI DER."""
        from cryptography.hazmat.primitives import serialization as form

        der = self._key.public_bytes(form.Encoding.DER, form.PublicFormat.SubjectPublicKeyInfo)
        return f"sha256:{hashlib.sha256(der).hexdigest()}"

    @property
    def pem(self) -> bytes:
        """SPKI in PEM."""
        from cryptography.hazmat.primitives import serialization as form

        return self._key.public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)

    @property
    def hint(self) -> str:
        """How model_signing names this key: the sha256 of its PEM."""
        return hashlib.sha256(self.pem).hexdigest()

    @property
    def curve(self) -> str:
        """``P-256``, ``P-384`` or ``P-521``."""
        return next(name for name, other in CURVES.items() if other == self._key.curve.name)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether this key made ``signature`` over ``message``."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, message, _algorithm(self._key.curve.name))
        except InvalidSignature:
            return False
        return True


def generate(curve: str = "P-256") -> PrivateKey:
    """A new private key.

    Raises:
        UsageError: ``curve`` is not one of :data:`CURVES`.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    if curve not in CURVES:
        raise UsageError(f"curve {curve!r} is not supported; take one of {', '.join(CURVES)}")
    kinds: dict[str, EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    return PrivateKey(ec.generate_private_key(kinds[curve]))


def save_pair(key: PrivateKey, private: Path, passphrase: str | None = None) -> Path:
    """Write ``private`` for its owner alone and the public half beside it as ``.pub``; return the latter's path.

    Raises:
        UsageError: one of the two files exists.
    """
    public = private.with_suffix(".pub")
    for path in (private, public):
        if path.exists():
            raise UsageError(f"{path} exists and a key is never overwritten; name another file")
    for path, content, mode in ((private, key.pem(passphrase), 0o600), (public, key.public.pem, 0o644)):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
    return public


def load_private(path: Path, passphrase: str | None = None) -> PrivateKey:
    """Read a private key in PEM.

    Raises:
        UsageError: it cannot be read, its passphrase is missing or wrong, or it is of another kind.
    """
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        secret = passphrase.encode() if passphrase and is_encrypted(path) else None
        key = form.load_pem_private_key(path.read_bytes(), secret)
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}; name a private key in PEM") from problem
    except TypeError as problem:
        raise UsageError(f"{path} is encrypted; give its passphrase with --passphrase-file") from problem
    except ValueError as problem:
        raise UsageError(f"{path} is no private key in PEM, or the passphrase is wrong; try again") from problem
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES.values():
        raise UsageError(f"{path} is no ECDSA key on {', '.join(CURVES)}; make one with: expert-cli keygen ME.key")
    return PrivateKey(key)


def is_encrypted(path: Path) -> bool:
    """Whether the private key at ``path`` needs a passphrase.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}; name a private key in PEM") from problem
    return b"ENCRYPTED" in content


def load_public(pem: bytes, source: str) -> PublicKey:
    """Read a public key in PEM; ``source`` names it in errors.

    Raises:
        UsageError: it is none, or of another kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = form.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise UsageError(f"{source} is no public key in PEM; name the publisher's .pub file") from problem
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES.values():
        raise UsageError(f"{source} is no ECDSA key on {', '.join(CURVES)}; ask the publisher for one")
    return PublicKey(key)


def _algorithm(curve: str, deterministic: bool = False) -> ECDSA:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    digests: dict[str, HashAlgorithm] = {
        "secp256r1": hashes.SHA256(),
        "secp384r1": hashes.SHA384(),
        "secp521r1": hashes.SHA512(),
    }
    return ec.ECDSA(digests[curve], deterministic_signing=deterministic)
