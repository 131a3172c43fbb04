"""``package``, ``sign``, ``verify`` and ``import``: archives before anything is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from expert_cli import archive, show, signing, store
from expert_cli import trust as trusted
from expert_cli.cli.keys import content, opened, passphrase_option, provenance
from expert_cli.errors import UsageError

TOLD_FROM = 16 << 20
"""Bytes from which on reading an archive shows its progress."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
archive_path = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--grammar", type=archive_path, help="The grammar to pack.  [default: the manifest's, from grammars/]")
@click.option("--card", type=archive_path, help="The model card.  [default: RUN/card.md, or written from the report]")
@click.option("--out", type=click.Path(path_type=Path), help="A file or folder to write to.  [default: here]")
@json_option
def package(run: Path, grammar: Path | None, card: Path | None, out: Path | None, as_json: bool) -> None:
    """Pack a trained expert into one .expert file.

    RUN is what train wrote: the checkpoint that its report.json chose is packed, unsigned, with a .sha256 beside it.
    The creation time is $SOURCE_DATE_EPOCH where that is set; equal inputs and time give equal bytes.

    \b
    Example:
      expert-cli package runs/sql-nano
    """
    from expert_cli.archive import collect

    path, built = collect.package(run, collect.timestamp(), grammar=grammar, card=card, target=out)
    if as_json:
        click.echo(json.dumps({"path": str(path), **described(built)}))
        return
    click.echo(str(path))
    show.note(f"unsigned; sign it with: expert-cli sign {path} --key ME.key")


@click.command()
@click.argument("path", type=archive_path)
@click.option("--key", type=archive_path, help="Your private key in PEM.")
@click.option("--keyless", is_flag=True, help="Sign by an OIDC identity through Sigstore, which logs it in public.")
@click.option(
    "--identity-token",
    envvar="SIGSTORE_IDENTITY_TOKEN",
    default="",
    metavar="TOKEN",
    help="Who signs, as a token for 'sigstore'.  [default: $SIGSTORE_IDENTITY_TOKEN, or what the CI gives]",
)
@click.option(
    "--trust-config",
    envvar="SIGSTORE_TRUST_CONFIG",
    type=archive_path,
    help="Another Sigstore, as ClientTrustConfig JSON.  [default: $SIGSTORE_TRUST_CONFIG, or the public one]",
)
@click.option("--out", type=archive_path, help="Where to write the signed archive.  [default: in place]")
@passphrase_option
@json_option
def sign(path: Path, key: Path | None, keyless: bool, identity_token: str, trust_config: Path | None, out: Path | None,
         passphrase_file: Path | None, as_json: bool) -> None:  # fmt: skip
    """Sign an archive with a private key or an identity.

    Earlier signatures stay, so that several people can sign one archive; one of them may sign without a key. That needs
    Sigstore's library: pip install 'expert-cli[sigstore]'.

    \b
    Examples:
      expert-cli sign expert-sql-nano.v0.1.0.expert --key me.key
      expert-cli sign expert-sql-nano.v0.1.0.expert --keyless
    """
    if bool(key) == keyless:
        raise UsageError("name your private key with --key, or sign by an identity with --keyless")
    if key:
        private = opened(key, passphrase_file)
        built = archive.sign(path, private, out)
        signer = private.public.id
    else:
        from expert_cli.sources import http

        http.permitted("Sigstore")
        built = archive.endorse(path, lambda bundle: signing.keyless.sign(bundle, identity_token, trust_config), out)
        signer = signing.keyless.claimed(archive.peek(out or path)).id
    if as_json:
        told = provenance([signer])[0]
        click.echo(json.dumps({"path": str(out or path), **told, **described(built)}))
        return
    click.echo(f"{out or path} is signed by {signer}")


@click.command()
@click.argument("target")
@click.option("--key", type=archive_path, help="Accept this public key alone, and not the trust store.")
@json_option
def verify(target: str, key: Path | None, as_json: bool) -> None:
    """Check an archive against the trust store.

    TARGET is an .expert file, or the name of an installed expert, whose files are then checked again.

    \b
    Examples:
      expert-cli verify expert-sql-nano.v0.1.0.expert
      expert-cli verify sql
    """
    known = trusted.only(content(key), str(key)) if key else trusted.load()
    path = Path(target)
    if path.suffix != archive.SUFFIX and not path.is_file():
        entry = store.check(target, known)
        text = f"{entry.name} {entry.version} is intact and signed by {', '.join(entry.signers)}"
        told(as_json, asdict(entry) | {"provenance": provenance(entry.signers)}, text)
        return
    with reading(path) as progress:
        found = archive.verify(path, known, progress=progress)
    signers = ", ".join(pin.id for pin in found.signers)
    told(as_json, described(found), f"{found.manifest.name} {found.manifest.version} is intact and signed by {signers}")


@click.command("import")
@click.argument("path", type=archive_path)
@click.option("--base", default="", help="The id of its base.  [default: as the package names it]")
@click.option("--base-sha256", default="", help="The digest of that base's weights.  [default: of the base known here]")
@click.option("--grammar", type=archive_path, help="A grammar in place of the packed one.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path(), help="A file or folder to write to.  [default: here]"
)
@json_option
def import_(path: Path, base: str, base_sha256: str, grammar: Path | None, out: Path, as_json: bool) -> None:
    """Convert a package of the predecessor.

    Such packages are unsigned, and say less than ours do: every assumption is listed, and kept in report.json.

    \b
    Example:
      expert-cli import expert-sql-qwen3-0-6b.v0.2.1.expert --grammar grammars/sql-postgres.gbnf
    """
    from expert_cli import predecessor
    from expert_cli.archive import collect

    written, found, assumptions = predecessor.convert(
        path, out, collect.timestamp(), base=base, base_sha256=base_sha256, known=known_bases(), grammar=grammar
    )
    if as_json:
        click.echo(json.dumps({"path": str(written), "assumptions": assumptions, **described(found)}))
        return
    for text in assumptions:
        show.note(f"assumed: {text}")
    click.echo(str(written))


def known_bases() -> dict[str, str]:
    """The digests of the bases whose manifests are here, by id."""
    from expert_cli.runtime import bases

    return {base.manifest.id: base.manifest.digest for base in bases.available()}


@contextmanager
def reading(path: Path) -> Iterator[archive.Progress]:
    """What is told while an archive is read: nothing of small ones."""
    size = path.stat().st_size if path.is_file() else 0
    if size < TOLD_FROM:
        yield lambda _: None
        return
    with show.progress(path.name, size >> 20) as tell:
        yield lambda done: tell(done >> 20, "MiB")


def told(as_json: bool, data: dict[str, Any], text: str) -> None:
    """Print a result, for machines or for people."""
    click.echo(json.dumps(data) if as_json else text)


def described(found: archive.Archive) -> dict[str, Any]:
    """An archive as JSON holds it."""
    manifest = found.manifest
    return {
        **{key: getattr(manifest, key) for key in ("name", "version", "base", "base_sha256")},
        **{key: getattr(found, key) for key in ("digest", "size", "created")},
        "signers": [pin.id for pin in found.signers],
        "provenance": provenance([pin.id for pin in found.signers]),
        "members": [asdict(member) for member in found.members],
    }
