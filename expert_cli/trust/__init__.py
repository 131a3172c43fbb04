"""Who may sign what: public keys, and identities that sign without one, pinned per publisher namespace.

A namespace is an expert's name, or the part of it before a ``-``: keys of ``acme`` may sign ``acme`` and
``acme-sql``. The longest namespace that matches a name alone decides, so that pinning ``acme-sql`` takes it away from
the keys of ``acme``. ``*`` matches every name that no other namespace does.

Pins come from two files of one form: ``$EXPERT_HOME/trust.json`` and the one that ships with the tool. A key that is
revoked in either is refused everywhere. What this does not protect against: a publisher whose private key was stolen
and not yet revoked, and anyone who can write to ``$EXPERT_HOME``.
"""

from __future__ import annotations

from expert_cli.signing.keyless import Identity, identity_of
from expert_cli.trust.file import (
    add,
    add_identity,
    dump,
    hold,
    load,
    only,
    release,
    remove,
    require,
    revoke,
    root_digest,
    rotate,
)
from expert_cli.trust.pins import ANY, Held, Pin, Trust

__all__ = [
    "ANY",
    "Held",
    "Identity",
    "Pin",
    "Trust",
    "add",
    "add_identity",
    "dump",
    "hold",
    "identity_of",
    "load",
    "only",
    "release",
    "remove",
    "require",
    "revoke",
    "root_digest",
    "rotate",
]
