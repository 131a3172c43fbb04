"""Keys, identities and signatures; the only door to ``cryptography`` and ``sigstore``."""

from expert_cli.signing import keyless
from expert_cli.signing.bundle import About, Bundle, Listed, draft, parse, sign, signers
from expert_cli.signing.keys import (
    CURVES,
    PrivateKey,
    PublicKey,
    generate,
    is_encrypted,
    load_private,
    load_public,
    save_pair,
)

__all__ = [
    "CURVES",
    "About",
    "Bundle",
    "Listed",
    "PrivateKey",
    "PublicKey",
    "draft",
    "generate",
    "is_encrypted",
    "keyless",
    "load_private",
    "load_public",
    "parse",
    "save_pair",
    "sign",
    "signers",
]
