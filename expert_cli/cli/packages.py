"""The commands of packages: make, sign and verify archives; install, list, explain and remove experts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from expert_cli import archive, show, sources, store, task
from expert_cli import trust as trusted
from expert_cli.archive import collect
from expert_cli.cli.keys import content, keygen, opened, passphrase_option, trust
from expert_cli.errors import BaseModelError, UsageError, VerificationError
from expert_cli.manifest import ExpertManifest
from expert_cli.store import Installed

__all__ = ["gc", "info", "install", "keygen", "list_", "package", "remove", "rollback", "sign", "trust", "verify"]

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
    path, built = collect.package(run, collect.timestamp(), grammar=grammar, card=card, target=out)
    if as_json:
        click.echo(json.dumps({"path": str(path), **described(built)}))
        return
    click.echo(str(path))
    show.note(f"unsigned; sign it with: expert-cli sign {path} --key ME.key")


@click.command()
@click.argument("path", type=archive_path)
@click.option("--key", type=archive_path, required=True, help="Your private key in PEM.")
@click.option("--out", type=archive_path, help="Where to write the signed archive.  [default: in place]")
@passphrase_option
@json_option
def sign(path: Path, key: Path, out: Path | None, passphrase_file: Path | None, as_json: bool) -> None:
    """Sign an archive with a private key.

    Earlier signatures stay, so that several people can sign one archive.

    \b
    Example:
      expert-cli sign expert-sql-nano.v0.1.0.expert --key me.key
    """
    private = opened(key, passphrase_file)
    built = archive.sign(path, private, out)
    if as_json:
        click.echo(json.dumps({"path": str(out or path), "key": private.public.id, **described(built)}))
        return
    click.echo(f"{out or path} is signed by {private.public.id}")


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
    if path.suffix != sources.SUFFIX and not path.is_file():
        entry = store.check(target, known)
        told(as_json, asdict(entry), f"{entry.name} {entry.version} is intact and signed by {', '.join(entry.signers)}")
        return
    with reading(path) as progress:
        found = archive.verify(path, known, progress=progress)
    signers = ", ".join(pin.id for pin in found.signers)
    told(as_json, described(found), f"{found.manifest.name} {found.manifest.version} is intact and signed by {signers}")


@click.command()
@click.argument("wanted", nargs=-1)
@click.option(
    "--from",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of archives to look in; may be repeated.",
)
@click.option(
    "--allow-unsigned", is_flag=True, help="DANGEROUS: install what nobody vouches for. Recorded in the lock."
)
@click.option("--locked", type=archive_path, help="Install exactly what this expert.lock names.")
@json_option
def install(wanted: tuple[str, ...], folders: tuple[Path, ...], allow_unsigned: bool, locked: Path | None,
            as_json: bool) -> None:  # fmt: skip
    """Verify and install an archive.

    WANTED is an .expert file, or a name with versions among the archives that ship with the tool and those --from
    folders. An archive by a key that you have not pinned is refused.

    \b
    Examples:
      expert-cli install sql
      expert-cli install "sql>=0.2,<1" --from downloads
      expert-cli install expert-sql-nano.v0.1.0.expert
    """
    if bool(wanted) == bool(locked):
        raise UsageError("name what to install, or a lock file with --locked")
    found = [(text, sources.resolve(text, folders), "") for text in wanted]
    if locked:
        found = [(one.source, sources.again(one, folders), one.digest) for one in store.locked(locked)]
    known = None if allow_unsigned else trusted.load()
    entries = []
    for source, path, digest in found:
        with reading(path) as progress:
            entry = store.install(path, known, source=source, digest=digest, check_base=fits, progress=progress)
        if entry.unsigned:
            show.note(f"WARNING: {entry.name} {entry.version} was installed without a trusted signature", "bold red")
        if entry.base not in known_bases():
            show.note(
                f"base {entry.base} is not known here, so {entry.name} cannot answer yet; see: expert-cli base list"
            )
        entries.append(entry)
    lines = [f"installed {entry.name} {entry.version} on {entry.base}" for entry in entries]
    told(as_json, {"installed": [asdict(entry) for entry in entries]}, "\n".join(lines))


@click.command("list")
@click.option("--lock", is_flag=True, help="Print the lock, to be installed elsewhere with install --locked.")
@json_option
def list_(lock: bool, as_json: bool) -> None:
    """List installed experts.

    \b
    Examples:
      expert-cli list
      expert-cli list --lock > expert.lock
    """
    entries = store.installed()
    if lock:
        click.echo(store.lockfile().decode(), nl=False)
    elif as_json:
        click.echo(json.dumps({"installed": [asdict(entry) for entry in entries]}))
    elif entries:
        rows = [(one.name, one.version, one.base, one.digest[:12], vouched(one), one.installed) for one in entries]
        show.rows(("name", "version", "base", "digest", "signed by", "installed"), rows, truncated=False)
    else:
        show.note("nothing is installed; begin with: expert-cli install sql")


@click.command()
@click.argument("target")
@json_option
def info(target: str, as_json: bool) -> None:
    """Show what is known of an expert or archive.

    Who signed it, what it was trained on, how it scored. TARGET is an installed expert or an .expert file.

    \b
    Examples:
      expert-cli info sql
      expert-cli info expert-sql-nano.v0.1.0.expert --json
    """
    path = Path(target)
    known = trusted.load()
    data: dict[str, Any]
    if path.suffix != sources.SUFFIX and not path.is_file():
        entry = store.find(target)
        report = json.loads((entry.folder / "report.json").read_bytes())
        data = asdict(entry) | {"folder": str(entry.folder), "manifest": entry.manifest.as_dict(), "report": report}
        verdict = doubt(target, known)
    else:
        try:
            found, verdict = archive.verify(path, known), ""
        except VerificationError as problem:
            found, verdict = archive.verify(path, None), str(problem)
        data = described(found) | {
            "manifest": found.manifest.as_dict(),
            "report": json.loads(found.texts["report.json"]),
        }
    data |= {"trusted": not verdict, "reason": verdict}
    told(as_json, data, "\n".join(summary(data)))


@click.command()
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove an installed expert.

    \b
    Example:
      expert-cli remove sql
    """
    entry = store.remove(name)
    told(as_json, asdict(entry), f"removed {entry.name} {entry.version}; expert-cli rollback brings it back")


@click.command()
@json_option
def rollback(as_json: bool) -> None:
    """Go back to what was installed before the last change.

    \b
    Example:
      expert-cli rollback
    """
    entries = store.rollback()
    names = ", ".join(f"{entry.name} {entry.version}" for entry in entries) or "nothing"
    told(as_json, {"installed": [asdict(entry) for entry in entries]}, f"installed now: {names}")


@click.command()
@json_option
def gc(as_json: bool) -> None:
    """Forget earlier states and delete what only they needed.

    \b
    Example:
      expert-cli gc
    """
    count = store.gc()
    told(as_json, {"removed": count}, f"{count} packages deleted")


def fits(manifest: ExpertManifest) -> None:
    """Refuse an expert whose task no plugin speaks, or for other weights than those of the base of that name.

    A base whose manifest is not here is let pass: it may come later.

    Raises:
        UsageError: the plugin is missing, or speaks another interface.
        BaseModelError: the digests of the base differ.
    """
    wanted = manifest.task
    if wanted.name not in {entry.name for entry in entry_points(group="expert_cli.tasks")}:
        raise UsageError(f"no plugin provides the task {wanted.name!r}; install the distribution that does")
    if wanted.interface != task.INTERFACE:
        raise UsageError(
            f"{manifest.name} {manifest.version} speaks interface {wanted.interface} of the task {wanted.name!r}, this "
            f"tool {task.INTERFACE}; install the version of expert-cli that it was made for"
        )
    digest = known_bases().get(manifest.base, manifest.base_sha256)
    if digest != manifest.base_sha256:
        raise BaseModelError(
            f"{manifest.name} {manifest.version} was trained on a base {manifest.base} with sha256 "
            f"{manifest.base_sha256[:12]}…, here it is {digest[:12]}…; get the version that fits this release"
        )


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
        "members": [asdict(member) for member in found.members],
    }


def vouched(entry: Installed) -> str:
    """Who signed an installed expert, in a word."""
    return ", ".join(key[:19] for key in entry.signers) or "NOBODY"


def doubt(name: str, known: trusted.Trust) -> str:
    """Why an installed expert would not be let in today; empty when it would."""
    try:
        store.check(name, known)
    except VerificationError as problem:
        return str(problem)
    return ""


def summary(data: dict[str, Any]) -> Iterator[str]:
    """The lines of ``info`` for people."""
    manifest, report = data["manifest"], data["report"]
    adapter = manifest["adapter"]
    yield f"{data['name']} {data['version']} on {data['base']}: {show.plain(manifest['description'])}"
    yield f"  task      {manifest['task']['name']}, interface {manifest['task']['interface']}"
    yield f"  adapter   {adapter['type']}, rank {adapter['r']}, for base sha256 {data['base_sha256']}"
    yield f"  authors   {show.plain(', '.join(manifest['authors']))}; license {show.plain(manifest['license'])}"
    yield f"  archive   digest {data['digest']}, created {data['created']}"
    yield f"  signed by {', '.join(data['signers']) or 'nobody that counts'}"
    yield "  trusted   yes" if data["trusted"] else f"  trusted   NO: {show.plain(data['reason'])}"
    if isinstance(trained := report.get("data"), dict):
        yield f"  data      {trained.get('examples')} examples, sha256 {show.plain(str(trained.get('sha256')))}"
    if isinstance(packed := report.get("packed"), dict):
        yield f"  packed    step {packed.get('step')}: {show.plain(str(packed.get('reason')))}"
