"""``keygen`` and ``trust``: making keys, and saying whose signatures to accept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click

from expert_cli import show, signing
from expert_cli import trust as trusted
from expert_cli.errors import UsageError
from expert_cli.trust import Pin

PASSPHRASE = "EXPERT_KEY_PASSPHRASE"  # noqa: S105 - the name of a variable

passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"A file whose first line is the passphrase.  [default: ${PASSPHRASE}, or asked for]",
)
key_option = click.option(
    "--key", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The publisher's public key in PEM."
)
expires_option = click.option("--expires", metavar="DATE", help="Refuse the key from this day on, as YYYY-MM-DD.")


@click.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--curve", type=click.Choice(list(signing.CURVES)), default="P-256", show_default=True, help="The curve.")
@click.option(
    "--no-passphrase", is_flag=True, help="Leave the private key unencrypted, for a machine that signs alone."
)
@passphrase_option
@click.option("--json", "as_json", is_flag=True, help="Print the paths and the key's id as JSON.")
def keygen(path: Path, curve: str, no_passphrase: bool, passphrase_file: Path | None, as_json: bool) -> None:
    """Make a signing key pair.

    The private half is written to PATH for you alone, the public half beside it as .pub. A key is never overwritten.

    \b
    Examples:
      expert-cli keygen me.key
      expert-cli keygen ci.key --no-passphrase
    """
    secret = None if no_passphrase else passphrase(path, passphrase_file, confirm=True)
    key = signing.generate(curve)
    public = signing.save_pair(key, path, secret)
    if as_json:
        click.echo(json.dumps({"private": str(path), "public": str(public), "id": key.public.id}))
        return
    click.echo(f"{path}  private: keep it secret, keep a copy\n{public}  public: give it away\n{key.public.id}")


def passphrase(path: Path, file: Path | None, *, confirm: bool = False) -> str:
    """The passphrase from a file, the environment, or the terminal.

    Raises:
        UsageError: there is none of them.
    """
    if file:
        try:
            return file.read_text(encoding="utf-8").splitlines()[0]
        except (OSError, IndexError) as problem:
            raise UsageError(f"{file} holds no passphrase; write it on the first line") from problem
    if given := os.environ.get(PASSPHRASE):
        return given
    if not sys.stdin.isatty():
        raise UsageError(f"no passphrase for {path}: give --passphrase-file, or set {PASSPHRASE}")
    text: str = click.prompt(f"Passphrase of {path}", hide_input=True, confirmation_prompt=confirm, err=True)
    return text


def opened(path: Path, file: Path | None) -> signing.PrivateKey:
    """The private key at ``path``; its passphrase is asked for only where it has one."""
    secret = passphrase(path, file) if signing.is_encrypted(path) else None
    return signing.load_private(path, secret)


@click.group()
def trust() -> None:
    """Say whose signatures to accept."""


@trust.command("add")
@click.argument("namespace")
@click.option("--key", type=click.Path(dir_okay=False, path_type=Path), help="The publisher's public key in PEM.")
@click.option("--key-id", default="", help="Refuse the key unless this is its id: how it was told to you.")
@click.option("--identity", default="", help="Who signs without a key: a workflow's address and ref, or an e-mail.")
@click.option("--issuer", default="", help="The address of the OIDC issuer that vouches for the identity.")
@click.option(
    "--trusted-root",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The keys of the Sigstore instance, as TrustedRoot JSON.  [default: the public one's]",
)
@expires_option
@click.option("--comment", default="", help="Whose key it is, for trust list.")
@click.option("--json", "as_json", is_flag=True, help="Print the pin as JSON.")
def add(namespace: str, key: Path | None, key_id: str, identity: str, issuer: str, trusted_root: Path | None,
        expires: str | None, comment: str, as_json: bool) -> None:  # fmt: skip
    """Pin a public key or an identity for a NAMESPACE.

    Those of acme may sign the experts acme and acme-sql, until acme-sql has some of its own; '*' stands for every name
    that no other namespace covers. Learn them from a place that you trust: never from where the archive came.
    Identities need Sigstore's library: pip install 'expert-cli[sigstore]'.

    \b
    Examples:
      expert-cli trust add acme --key acme.pub --key-id sha256:4f2c…
      expert-cli trust add acme --key acme-2027.pub --expires 2028-01-01
      expert-cli trust add acme --issuer https://token.actions.githubusercontent.com \\
        --identity https://github.com/acme/experts/.github/workflows/publish.yml@refs/tags/acme-v1.0.0
    """
    if bool(key) == bool(identity) or bool(identity) != bool(issuer) or (key and trusted_root) or (key_id and not key):
        raise UsageError("name a public key with --key, or an identity with --identity and --issuer")
    if key:
        source = str(key)
        pin = trusted.add(content(key), namespace, source=source, key_id=key_id, expires=day(expires), comment=comment)
    else:
        pin = trusted.add_identity(
            trusted.Identity(identity, issuer),
            namespace,
            root=content(trusted_root, "TrustedRoot JSON") if trusted_root else None,
            source=str(trusted_root),
            expires=day(expires),
            comment=comment,
        )
    click.echo(json.dumps(described(pin)) if as_json else f"{pin.id} may sign {pin.namespace!r}")


@trust.command("rotate")
@click.argument("namespace")
@key_option
@click.option("--replaces", required=True, metavar="KEY_ID", help="The key that it replaces.")
@expires_option
@click.option("--json", "as_json", is_flag=True, help="Print the new pin as JSON.")
def rotate(namespace: str, key: Path, replaces: str, expires: str | None, as_json: bool) -> None:
    """Replace a key of a NAMESPACE by a new one.

    \b
    Example:
      expert-cli trust rotate acme --key acme-2028.pub --replaces sha256:4f2c…
    """
    pin = trusted.rotate(content(key), namespace, replaces, source=str(key), expires=day(expires))
    click.echo(json.dumps(described(pin)) if as_json else f"{pin.id} may sign {pin.namespace!r} in place of {replaces}")


@trust.command("pin")
@click.argument("name")
@click.option("--key-id", "keys", multiple=True, help="A key that must have signed it; may be repeated, may be cut.")
@click.option("--digest", default="", help="The only archive to let in, as list --json and verify tell it.")
def pin(name: str, keys: tuple[str, ...], digest: str) -> None:
    """Pin an expert to keys or to one archive, whatever else its namespace trusts.

    Without options, to the keys that signed the installed version: an upgrade by anyone else is then refused.

    \b
    Examples:
      expert-cli trust pin sql
      expert-cli trust pin sql --digest c8b6e3810453…
    """
    if not (keys or digest):
        from expert_cli import store

        keys = store.find(name).signers
    held = trusted.hold(name, keys, digest)
    told = [f"the archive {held.digest}"] * bool(held.digest) + [f"what {key} signed" for key in held.keys]
    click.echo(f"{name} is pinned to {' and '.join(told)}")


@trust.command("unpin")
@click.argument("name")
def unpin(name: str) -> None:
    """Take back the pin of an expert.

    \b
    Example:
      expert-cli trust unpin sql
    """
    trusted.release(name)
    click.echo(f"{name} is no longer pinned")


@trust.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print pins, thresholds and revoked keys as JSON.")
def list_(as_json: bool) -> None:
    """List pinned and revoked keys and identities.

    \b
    Example:
      expert-cli trust list
    """
    known = trusted.load()
    if as_json:
        pins = [described(pin) for pin in known.pins]
        held = {name: vars(one) for name, one in (known.held or {}).items()}
        click.echo(json.dumps({"keys": pins, "thresholds": known.thresholds, "revoked": known.revoked, "held": held}))
        return
    thresholds, revoked = known.thresholds or {}, known.revoked or {}
    rows = [
        (
            pin.namespace,
            pin.id,
            "revoked: " + revoked[pin.id] if pin.id in revoked else str(pin.expires or "never"),
            thresholds.get(pin.namespace, 1),
            pin.origin,
            pin.comment,
        )
        for pin in known.pins
    ]
    click.echo(aligned(("namespace", "signer", "expires", "needed", "pinned by", "comment"), rows))
    if known.held:
        lines = [(name, ", ".join(one.keys), one.digest) for name, one in known.held.items()]
        click.echo("\n" + aligned(("expert", "pinned to signers", "pinned to archive"), lines))


@trust.command("remove")
@click.argument("key_id")
@click.option("--namespace", default="", help="Take it back there alone.  [default: everywhere]")
def remove(key_id: str, namespace: str) -> None:
    """Take back your pin of a key or identity.

    KEY_ID may be cut to 8 digits; of an identity, its issuer may be left out.

    \b
    Examples:
      expert-cli trust remove sha256:4f2c1a90
      expert-cli trust remove https://github.com/acme/experts/.github/workflows/publish.yml@refs/tags/acme-v1.0.0
    """
    for pin in trusted.remove(key_id, namespace):
        click.echo(f"{pin.id} may no longer sign {pin.namespace!r}")


@trust.command("revoke")
@click.argument("key_id")
@click.option("--reason", required=True, help="Why; shown whenever the key is met again.")
def revoke(key_id: str, reason: str) -> None:
    """Refuse a key or identity from now on, wherever it is pinned.

    \b
    Example:
      expert-cli trust revoke sha256:4f2c1a90 --reason "stolen in March"
    """
    click.echo(
        f"{trusted.revoke(key_id, reason)} is revoked; check what it signed: expert-cli list, expert-cli verify NAME"
    )


@trust.command("require")
@click.argument("namespace")
@click.argument("count", type=click.IntRange(1))
def require(namespace: str, count: int) -> None:
    """Demand COUNT different signers for a NAMESPACE.

    An archive can be signed by many keys, and by one identity beside them.

    \b
    Example:
      expert-cli trust require acme 2
    """
    trusted.require(namespace, count)
    click.echo(f"experts of {namespace!r} need {count} signatures from now on")


def aligned(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of short values, one line a row; rich would take longer to lay it out than all else takes."""
    lines = [header, *([show.cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def content(path: Path, form: str = "a public key in PEM") -> bytes:
    """The bytes of a file of this form.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}; name {form}") from problem


def day(text: str | None) -> date | None:
    """A date as typed.

    Raises:
        UsageError: it is none.
    """
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as problem:
        raise UsageError(f"{text!r} is no date; write it as YYYY-MM-DD") from problem


def described(pin: Pin) -> dict[str, Any]:
    """A pin as JSON holds it."""
    told = vars(pin) | {"expires": pin.expires.isoformat() if pin.expires else None, "root": trusted.root_digest(pin)}
    return told | provenance([pin.id])[0]


def provenance(signers: Sequence[str]) -> list[dict[str, str]]:
    """Who stands behind the ids of signers: keys, or identities with their issuers."""
    found = [(one, trusted.identity_of(one)) for one in signers]
    return [{"identity": who.name, "issuer": who.issuer} if who else {"key": one} for one, who in found]
