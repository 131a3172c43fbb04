"""Installed experts: ``install``, ``upgrade``, ``outdated``, ``list``, ``info``, ``remove``, ``rollback``, ``gc``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from expert_cli import archive, show, store, weights
from expert_cli import trust as trusted
from expert_cli.cli.archives import (
    archive_path,
    import_,
    json_option,
    known_bases,
    package,
    reading,
    sign,
    told,
    verify,
)
from expert_cli.cli.keys import aligned, keygen, trust
from expert_cli.cli.transfer import brought, fetched, index_option, indexes, no_index_option, offered, remarks
from expert_cli.errors import BaseModelError, ExpertError, UsageError
from expert_cli.store import Installed

if TYPE_CHECKING:
    from expert_cli.sources.resolve import Candidate

__all__ = [
    "gc",
    "import_",
    "install",
    "keygen",
    "list_",
    "outdated",
    "package",
    "remove",
    "rollback",
    "sign",
    "trust",
    "upgrade",
    "verify",
]

from_option = click.option(
    "--from",
    "folders",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder of archives to look in; may be repeated.",
)


@click.command()
@click.argument("wanted", nargs=-1)
@from_option
@click.option(
    "--allow-unsigned", is_flag=True, help="DANGEROUS: install what nobody vouches for. Recorded in the lock."
)
@click.option("--locked", type=archive_path, help="Install exactly what this expert.lock names.")
@index_option
@no_index_option
@json_option
def install(wanted: tuple[str, ...], folders: tuple[Path, ...], allow_unsigned: bool, locked: Path | None,
            urls: tuple[str, ...], no_index: bool, as_json: bool) -> None:  # fmt: skip
    """Verify and install an archive.

    WANTED is an .expert file, a name with versions in the trusted indexes, the --from folders and what ships, or where
    an archive lies: https://HOST/FILE, github:OWNER/REPOSITORY[@TAG], hub:OWNER/REPOSITORY[@REVISION],
    oci://HOST/REPOSITORY:TAG, git+https://HOST/REPOSITORY[@REF]. An archive by a key that you have not pinned is
    refused.

    \b
    Examples:
      expert-cli install sql
      expert-cli install "sql>=0.2,<1" --from downloads
      expert-cli install expert-sql-nano.v0.1.0.expert
      expert-cli install github:acme/experts
    """
    if bool(wanted) == bool(locked):
        raise UsageError("name what to install, or a lock file with --locked")
    from expert_cli.sources import local, remote

    pins = store.locked(locked) if locked else ()
    far = [*wanted, *(one.source for one in pins if not folders)]
    came = {text: fetched(text) for text in far if remote.is_remote(text)}
    try:
        if locked:
            files = [came[one.source].path if one.source in came else local.again(one, folders) for one in pins]
            requests = [store.Request(file, one.source, one.digest) for file, one in zip(files, pins, strict=True)]
            report(installed(requests, allow_unsigned), as_json)
            return
        texts = [str(came[text].path) if text in came else text for text in wanted]
        there, known = store.installed(), indexes(urls, no_index)
        names = [text for text in texts if not local.is_path(text)]
        found = local.plan(texts, folders, there, known_bases(), offered(names, known))
        sources = {one.path: one.source for one in came.values()}
        with brought(found) as asked:
            requests = [replace(one, source=sources.get(one.path, one.source)) for one in asked]
            report(installed(requests, allow_unsigned), as_json)
    finally:
        for one in came.values():  # the store has it now, or nobody should
            one.path.unlink(missing_ok=True)


@click.command()
@click.argument("names", nargs=-1)
@from_option
@index_option
@no_index_option
@json_option
def upgrade(names: tuple[str, ...], folders: tuple[Path, ...], urls: tuple[str, ...], no_index: bool,
            as_json: bool) -> None:  # fmt: skip
    """Install newer versions of what is installed.

    Without NAMES, of everything. Newer ones are looked for where each came from, in trusted indexes, in --from folders
    and in what ships.

    \b
    Examples:
      expert-cli upgrade
      expert-cli upgrade sql --from downloads
    """
    found, problems = newer(names, folders, urls, no_index)
    with brought(found) as requests:
        report(installed(requests), as_json)
    complain(problems)


@click.command()
@from_option
@index_option
@no_index_option
@json_option
def outdated(folders: tuple[Path, ...], urls: tuple[str, ...], no_index: bool, as_json: bool) -> None:
    """List installed experts that have a newer version.

    \b
    Example:
      expert-cli outdated --from downloads
    """
    there = {one.name: one.version for one in store.installed()}
    found, problems = newer((), folders, urls, no_index)
    said = remarks(store.installed())
    rows = [(one.name, there.get(one.name, ""), one.version, one.base, said.pop(one.name, "")) for one in found]
    rows += [(name, there[name], "", "", said[name]) for name in sorted(said)]
    keys = ("name", "installed", "available", "base", "remark")
    if as_json:
        click.echo(json.dumps({"outdated": [dict(zip(keys, row, strict=True)) for row in rows]}))
    elif rows:
        click.echo(aligned(keys, rows))
    else:
        show.note("everything is as new as what was found")
    complain(problems)


def newer(
    names: Sequence[str], folders: Sequence[Path], urls: Sequence[str], no_index: bool
) -> tuple[tuple[Candidate, ...], list[str]]:
    """Newer versions of what is installed, and why a source could not be looked at."""
    from expert_cli.sources import local, versions
    from expert_cli.sources.resolve import Offered

    there, problems = store.installed(), list[str]()
    asked = [one for one in there if not names or one.name in names]
    known = offered([one.name for one in asked], indexes(urls, no_index))
    far: list[Candidate] = []
    for one in asked:
        try:
            far += versions.newer(one)
        except ExpertError as problem:
            problems.append(f"{one.name}: {problem}")
    both = Offered((*known.candidates, *far), known.yanked)
    return local.newer(there, names, folders, known_bases(), both), problems


def complain(problems: Sequence[str]) -> None:
    """End in failure where a source could not be looked at, once all else is done.

    Raises:
        ExpertError: there are problems.
    """
    if problems:
        raise ExpertError("; ".join(problems))


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
        said = remarks(entries)
        click.echo(json.dumps({"installed": [asdict(one) | {"remark": said.get(one.name, "")} for one in entries]}))
    elif entries:
        said = remarks(entries)
        rows = [
            (one.name, one.version, one.base, one.digest[:12], vouched(one), one.installed, said.get(one.name, ""))
            for one in entries
        ]
        header = ("name", "version", "base", "digest", "signed by", "installed", "remark" if said else "")
        click.echo(aligned(header, rows))
    else:
        show.note("nothing is installed; begin with: expert-cli install sql")


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

    Models that were woven of what is not installed any more go too.

    \b
    Example:
      expert-cli gc
    """
    from expert_cli.runtime import bases, weave

    count = store.gc()
    woven, freed = weave.prune([(one.folder, one.base_sha256) for one in store.installed()], bases.available())
    text = f"{count} packages and {woven} woven models deleted"
    told(as_json, {"removed": count, "woven": woven, "woven_bytes": freed}, text + f", {freed >> 20} MiB" * bool(woven))


def fits(found: archive.Archive) -> None:
    """Refuse an expert whose task no plugin speaks, or that was made for other weights than those of its base here.

    A base whose manifest is not here is let pass: it may come later.

    Raises:
        UsageError: the plugin is missing, or speaks another interface.
        BaseModelError: the digests of the base differ.
        VerificationError: the adapter does not fit the base that it names.
    """
    from importlib.metadata import entry_points

    from expert_cli.runtime import bases
    from expert_cli.task import INTERFACE

    manifest = found.manifest
    wanted = manifest.task
    if wanted.name not in {entry.name for entry in entry_points(group="expert_cli.tasks")}:
        raise UsageError(f"no plugin provides the task {wanted.name!r}; install the distribution that does")
    if wanted.interface != INTERFACE:
        raise UsageError(
            f"{manifest.name} {manifest.version} speaks interface {wanted.interface} of the task {wanted.name!r}, this "
            f"tool {INTERFACE}; install the version of expert-cli that it was made for"
        )
    base = next((one for one in bases.available() if one.manifest.id == manifest.base), None)
    if base and base.manifest.digest != manifest.base_sha256:
        raise BaseModelError(
            f"{manifest.name} {manifest.version} was trained on a base {manifest.base} with sha256 "
            f"{manifest.base_sha256[:12]}…, here it is {base.manifest.digest[:12]}…; get the version for this release"
        )
    if base and base.here("config"):
        weights.check_fit(found.tensors, json.loads(base.file("config").read_bytes()), archive.WEIGHTS)


def installed(requests: Sequence[store.Request], allow_unsigned: bool = False) -> tuple[Installed, ...]:
    """Install archives, all or none, and say what one should know about them."""
    known = None if allow_unsigned else trusted.load()
    entries = store.install_all(requests, known, check_base=fits, reading=reading)
    for entry in entries:
        if entry.unsigned:
            show.note(f"WARNING: {entry.name} {entry.version} was installed without a trusted signature", "bold red")
        if entry.base not in known_bases():
            show.note(
                f"base {entry.base} is not known here, so {entry.name} cannot answer yet; see: expert-cli base list"
            )
    return entries


def report(entries: Sequence[Installed], as_json: bool) -> None:
    """Print what was installed."""
    lines = [f"installed {entry.name} {entry.version} on {entry.base}" for entry in entries]
    text = "\n".join(lines) or "nothing to install: it is there already"
    told(as_json, {"installed": [asdict(entry) for entry in entries]}, text)


def vouched(entry: Installed) -> str:
    """Who signed an installed expert, in a word."""
    return ", ".join(one if trusted.identity_of(one) else one[:19] for one in entry.signers) or "NOBODY"
