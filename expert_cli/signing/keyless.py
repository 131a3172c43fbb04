"""Keyless signatures: an identity instead of a key; the only door to ``sigstore``.

An OIDC issuer says who signs, a certificate authority (Fulcio) certifies a key of minutes for them, and a public log
(Rekor) says when it signed. Sigstore's library checks all of that, without any network, against a *trusted root*: the
keys of one Sigstore instance. It is optional: ``pip install 'expert-cli[sigstore]'``.

What this does not protect against: an issuer, or an instance of Sigstore, that lies about who asked.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from expert_cli.errors import ExpertError, ManifestError, UsageError, VerificationError
from expert_cli.manifest import parse_json
from expert_cli.signing.bundle import PAYLOAD_TYPE, Bundle, certify, parse

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import ClientTrustConfig, TrustedRoot
    from sigstore.oidc import IdentityToken

_ISSUER = "1.3.6.1.4.1.57264.1.1"
_INSTALL = "Sigstore's library is needed for keyless signatures and not installed: pip install 'expert-cli[sigstore]'"
_TEXT = re.compile(r"[!-~]{1,1024}")
_BETWEEN = " via "


@dataclass(frozen=True)
class Identity:
    """Who signs without a key: an address of a workflow or person, and of the OIDC issuer that knows them."""

    name: str
    issuer: str

    @property
    def id(self) -> str:
        """Both in one text, which stands where a key's id does."""
        return f"{self.name}{_BETWEEN}{self.issuer}"

    @property
    def fault(self) -> str:
        """What is wrong with the texts; empty when nothing is."""
        wrong = next((text for text in (self.name, self.issuer) if not _TEXT.fullmatch(text)), None)
        return "" if wrong is None else f"{wrong!a} is no identity or issuer: printable ASCII without spaces"


def identity_of(signer: str) -> Identity | None:
    """The identity whose :attr:`Identity.id` this is; None where it is a key's id."""
    name, between, issuer = signer.partition(_BETWEEN)
    return Identity(name, issuer) if between else None


def claimed(bundle: Bundle) -> Identity:
    """Who the certificate of a keyless ``bundle`` says has signed; not to be believed before :func:`verify`.

    Raises:
        VerificationError: it names nobody, or more than one.
    """
    from cryptography import x509

    with _reading():
        der = base64.b64decode((bundle.certified or {})["certificate"]["rawBytes"])
        return _named(x509.load_der_x509_certificate(der))


def verify(bundle: Bundle, identity: Identity, root: str) -> None:
    """Check that ``identity`` made the keyless signature of ``bundle``, without any network.

    ``root`` is a trusted root as JSON; an empty one stands for the public instance, as Sigstore's library ships it.

    Raises:
        VerificationError: with the first reason, or because the library is not installed.
    """
    try:
        from sigstore.models import Bundle as Read
        from sigstore.verify import Verifier
        from sigstore.verify.policy import Identity as Policy
    except ImportError as problem:
        raise VerificationError(_INSTALL) from problem
    with _reading():
        verifier = Verifier(trusted_root=_root(root))
        policy = Policy(identity=identity.name, issuer=identity.issuer)
        found = verifier.verify_dsse(Read.from_json(bundle.alone()), policy)
    if found != (PAYLOAD_TYPE, bundle.payload):
        raise VerificationError("the keyless signature is of another statement")


def trusted_root(content: bytes, source: str) -> str:
    """The trusted root in a file, as :func:`verify` takes it.

    Raises:
        UsageError: it is none, or Sigstore's library is not installed.
    """
    installed()
    try:
        text = json.dumps(parse_json(content, source), sort_keys=True, separators=(",", ":"))
        with _reading():
            from sigstore.verify import Verifier

            Verifier(trusted_root=_root(text))
    except (ManifestError, VerificationError) as problem:
        raise UsageError(f"{source} is no trusted root of Sigstore ({problem}); ask who runs the instance") from problem
    return text


def installed() -> None:
    """Check that Sigstore's library is here.

    Raises:
        UsageError: it is not.
    """
    try:
        import sigstore.verify
    except ImportError as problem:
        raise UsageError(_INSTALL) from problem
    del sigstore


def sign(bundle: bytes, token: str = "", config: Path | None = None) -> bytes:
    """``bundle`` with a keyless signature by the identity of an OIDC ``token``, or of the machine that runs this.

    Identity and digest enter a public log for good. ``config`` is the ClientTrustConfig of another Sigstore instance.

    Raises:
        UsageError: no identity, a bad configuration, no library, or the bundle has a keyless signature already.
        ExpertError: the instance does not answer, or refuses.
        VerificationError: the bundle is malformed, or what came back would not be accepted.
    """
    installed()
    from sigstore.dsse import Statement
    from sigstore.sign import SigningContext

    parsed = parse(bundle)
    if parsed.certified:
        raise UsageError(f"it is signed by {claimed(parsed).id} and holds one keyless signature; package it again")
    who = _token(token)
    with _asking():
        trust = _config(config)
        with SigningContext.from_trust_config(trust).signer(who) as signer:
            made = signer.sign_dsse(Statement(parsed.payload))
    alone = parse(made.to_json().encode())
    done = certify(parsed, alone.signatures[0][1], alone.certified or {})
    verify(parse(done), claimed(alone), trust.trusted_root._inner.to_json())
    return done


def _token(text: str) -> IdentityToken:
    from sigstore.oidc import IdentityError, IdentityToken, detect_credential

    try:
        found = text or detect_credential()
        if found:
            return IdentityToken(found)
    except IdentityError as problem:
        raise UsageError(f"the identity cannot be used: {_line(problem)}; get a new token for 'sigstore'") from problem
    raise UsageError("nobody says who signs; run it in CI with the right id-token: write, or give --identity-token")


def _config(path: Path | None) -> ClientTrustConfig:
    from sigstore.models import ClientTrustConfig

    if path is None:
        return ClientTrustConfig.production()
    try:
        return ClientTrustConfig.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UsageError(f"{path} is no ClientTrustConfig: {_line(problem)}; ask who runs that Sigstore") from problem


def _root(text: str) -> TrustedRoot:
    from sigstore._internal.tuf import DEFAULT_TUF_URL
    from sigstore._utils import read_embedded
    from sigstore.models import TrustedRoot
    from sigstore_models.trustroot.v1 import TrustedRoot as Read

    # Not ClientTrustConfig.production(offline=True): that reads a cache which is never checked again nor renewed.
    return TrustedRoot(Read.from_json(text or read_embedded("trusted_root.json", DEFAULT_TUF_URL)))


def _named(certificate: Certificate) -> Identity:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    if not isinstance(certificate.public_key(), EllipticCurvePublicKey):
        raise VerificationError("the certificate of its keyless signature is not for a key of ECDSA")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    kinds = (x509.UniformResourceIdentifier, x509.RFC822Name)
    listed = [name.value for name in names if isinstance(name, kinds)]
    value = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(_ISSUER)).value
    if len(listed) != 1 or len(names) != 1 or not isinstance(value, x509.UnrecognizedExtension):
        raise VerificationError("the certificate of its keyless signature does not name one identity")
    found = Identity(listed[0], value.value.decode())
    if found.fault:
        raise VerificationError(f"the certificate of its keyless signature names nobody: {found.fault}")
    return found


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever is found wrong with a certificate, a log entry or a trusted root is told as a failed verification."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import DuplicateExtension, ExtensionNotFound, InvalidVersion, UnsupportedGeneralNameType

    refused: tuple[type[Exception], ...] = (ValueError, OverflowError, UnsupportedAlgorithm)
    refused += (DuplicateExtension, ExtensionNotFound, InvalidVersion, UnsupportedGeneralNameType)
    try:
        from sigstore.errors import Error
    except ImportError:
        pass
    else:
        refused += (Error,)
    try:
        yield
    except refused as problem:
        raise VerificationError(f"the keyless signature is refused: {_line(problem)}") from problem


@contextmanager
def _asking() -> Iterator[None]:
    """Whatever goes wrong between us and a Sigstore instance is told as a failure of it."""
    from sigstore._internal.fulcio.client import ExpiredCertificate, FulcioClientError
    from sigstore._internal.rekor import RekorClientError
    from sigstore.errors import Error
    from sigstore.oidc import ExpiredIdentity

    refused = (Error, ExpiredCertificate, FulcioClientError, RekorClientError, ExpiredIdentity)
    try:
        yield
    except (*refused, OSError, ValueError, KeyError) as problem:
        raise ExpertError(f"Sigstore did not sign: {_line(problem)}; try again later") from problem


def _line(problem: Exception) -> str:
    """An error in one line that is fit to be shown, without the values that the libraries add."""
    text = " ".join((str(problem) or type(problem).__name__).split())
    told = re.split(r" \[type=| \(encountered |: expected log_index=", text)[0]
    return "".join(letter if letter.isprintable() else "?" for letter in told)[:300]
