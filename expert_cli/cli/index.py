"""``index``: making a signed index of experts, and trusting those of others."""

from __future__ import annotations

import json
from pathlib import Path

import click

from expert_cli import show
from expert_cli import trust as trusted
from expert_cli.cli.archives import archive_path, json_option, reading, told
from expert_cli.cli.keys import aligned, content, opened, passphrase_option
from expert_cli.errors import UsageError

folder = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
key_option = click.option("--key", type=archive_path, required=True, help="The index's private key.")
days_option = click.option(
    "--days", type=click.IntRange(1, 3650), default=30, show_default=True, help="How long what is signed now is good."
)
roots_option = click.option(
    "--root-key", "roots", type=archive_path, multiple=True, required=True, help="A root key; may be repeated."
)
threshold_option = click.option(
    "--threshold", type=click.IntRange(1), default=1, show_default=True, help="How many root keys must sign."
)


@click.group()
def index() -> None:
    """Make an index of experts, or trust one.

    An index is a folder of static files: put it on any web server. Root keys are kept offline and say which key signs
    the index from day to day.

    \b
    Examples:
      expert-cli index init experts --root-key root.key --key index.key
      expert-cli index add experts expert-sql-nano.v0.1.0.expert --key index.key
      expert-cli index trust https://experts.example.org --sha256 4f2c…
    """


@index.command()
@folder
@roots_option
@threshold_option
@key_option
@days_option
@click.option(
    "--bins", type=click.IntRange(2), default=16, show_default=True,
    help="Into how many files the list of experts is divided, a power of two; one for about 40 experts.",
)  # fmt: skip
@passphrase_option
@json_option
def init(folder: Path, roots: tuple[Path, ...], threshold: int, key: Path, days: int, bins: int,
         passphrase_file: Path | None, as_json: bool) -> None:  # fmt: skip
    """Make an empty index in FOLDER.

    \b
    Example:
      expert-cli index init experts --root-key a.key --root-key b.key --threshold 2 --key index.key
    """
    from expert_cli.index.repository import Repository

    secrets = [opened(one, passphrase_file) for one in roots]
    Repository(folder).init(secrets, threshold, opened(key, passphrase_file), days, bins)
    data = _signed(folder)
    told(as_json, data, str(data["sha256"]))
    show.note(f"tell its readers this sha256 of {data['root']}, on another way than the index itself")


@index.command()
@folder
@click.argument("packages", type=archive_path, nargs=-1, required=True)
@key_option
@days_option
@click.option("--public", type=archive_path, help="Check the archives with this public key, not the trust store.")
@passphrase_option
@json_option
def add(folder: Path, packages: tuple[Path, ...], key: Path, days: int, public: Path | None,
        passphrase_file: Path | None, as_json: bool) -> None:  # fmt: skip
    """Add signed archives. What is there already stays.

    \b
    Example:
      expert-cli index add experts expert-sql-nano.v0.1.0.expert --key index.key
    """
    from expert_cli import publishing
    from expert_cli.index.repository import Repository

    known = trusted.only(content(public), str(public)) if public else trusted.load()
    secret, repository = opened(key, passphrase_file), Repository(folder)
    repository.load("timestamp")
    for path in packages:
        with reading(path) as progress:
            publishing.ready(path, known, progress)
    added = [one.name for one in repository.add_all(packages, secret, days)]
    told(as_json, {"added": added}, "\n".join(f"{folder} has {name}" for name in added))


@index.command()
@folder
@click.argument("release")
@click.option("--reason", required=True, help="Why; shown to whoever has it. Empty takes the yank back.")
@key_option
@days_option
@passphrase_option
@json_option
def yank(folder: Path, release: str, reason: str, key: Path, days: int, passphrase_file: Path | None,
         as_json: bool) -> None:  # fmt: skip
    """Let a version no longer be chosen: RELEASE is NAME==VERSION. Whoever asks for exactly it still gets it.

    \b
    Example:
      expert-cli index yank experts sql==0.1.1 --reason "wrong joins" --key index.key
    """
    from expert_cli.index.repository import Repository

    name, equals, version = release.partition("==")
    if not equals:
        raise UsageError(f"{release!r} names no version; write NAME==VERSION")
    Repository(folder).yank(name, version, reason, opened(key, passphrase_file), days)
    text = f"{release} is yanked" if reason else f"{release} is no longer yanked"
    told(as_json, {"name": name, "version": version, "yanked": reason}, text)


@index.command()
@folder
@click.argument("name")
@click.option("--reason", required=True, help="Why; shown to whoever has it. Empty takes it back.")
@click.option("--use", "replacement", default="", help="What to install instead: a name, with versions if need be.")
@key_option
@days_option
@passphrase_option
@json_option
def deprecate(folder: Path, name: str, reason: str, replacement: str, key: Path, days: int,
              passphrase_file: Path | None, as_json: bool) -> None:  # fmt: skip
    """Say that an expert is no longer cared for.

    \b
    Example:
      expert-cli index deprecate experts sql-old --reason "no longer trained" --use "sql>=1" --key index.key
    """
    from expert_cli.index.repository import Repository

    found = Repository(folder).deprecate(name, reason, opened(key, passphrase_file), days, replacement)
    text = f"{name} is deprecated" if reason else f"{name} is no longer deprecated"
    told(as_json, {part: getattr(found, part) for part in ("name", "deprecated", "replacement")}, text)


@index.command()
@folder
@key_option
@days_option
@passphrase_option
@json_option
def refresh(folder: Path, key: Path, days: int, passphrase_file: Path | None, as_json: bool) -> None:
    """Sign everything again, before it expires.

    \b
    Example:
      expert-cli index refresh experts --key index.key
    """
    from expert_cli.index.repository import Repository

    Repository(folder).refresh(opened(key, passphrase_file), days)
    told(as_json, _signed(folder), f"{folder} is good for {days} days")


@index.command()
@folder
@roots_option
@click.option(
    "--new-root-key", "news", type=archive_path, multiple=True, help="A root key from now on; may be repeated."
)
@threshold_option
@key_option
@days_option
@passphrase_option
@json_option
def rotate(folder: Path, roots: tuple[Path, ...], news: tuple[Path, ...], threshold: int, key: Path, days: int,
           passphrase_file: Path | None, as_json: bool) -> None:  # fmt: skip
    """Go over to other root keys or another index key; without --new-root-key, renew the root for a year.

    Readers follow by themselves: the old root keys vouch for the new ones.

    \b
    Example:
      expert-cli index rotate experts --root-key old.key --new-root-key new.key --key index.key
    """
    from expert_cli.index.repository import Repository

    olds = [opened(one, passphrase_file) for one in roots]
    fresh = [opened(one, passphrase_file) for one in news] or olds
    Repository(folder).rotate(olds, fresh, threshold, opened(key, passphrase_file), days)
    told(as_json, _signed(folder), f"{folder} has a new root")


@index.command("trust")
@click.argument("url")
@click.option("--root", type=archive_path, help="Its 1.root.json, which came another way than the index.")
@click.option("--sha256", default="", help="The sha256 of its 1.root.json, which came another way than the index.")
@json_option
def trust_(url: str, root: Path | None, sha256: str, as_json: bool) -> None:
    """Trust an index from now on: install, upgrade and outdated look there. URL may be a folder, or file:///FOLDER.

    \b
    Example:
      expert-cli index trust https://experts.example.org --sha256 4f2c…
    """
    from expert_cli.index import client

    known = client.trust(url, sha256=sha256, root=content(root) if root else None)
    told(as_json, vars(known), f"{known.url} is trusted")


@index.command()
@click.argument("url")
@json_option
def forget(url: str, as_json: bool) -> None:
    """Trust an index no longer.

    \b
    Example:
      expert-cli index forget https://experts.example.org
    """
    from expert_cli.index import client

    known = client.forget(url)
    told(as_json, vars(known), f"{known.url} is no longer trusted")


@index.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List trusted indexes, and until when what was last verified of them is good.

    \b
    Example:
      expert-cli index list
    """
    from expert_cli.index import client

    rows = [(one.url, one.root[:16], f"{client.Index(one).expires or 'never read'}") for one in client.listed()]
    if as_json:
        click.echo(json.dumps({"indexes": [dict(zip(("url", "root", "expires"), row, strict=True)) for row in rows]}))
    elif rows:
        click.echo(aligned(("index", "root", "good until"), rows))
    else:
        show.note("no index is trusted; begin with: expert-cli index trust URL --sha256 DIGEST")


def _signed(folder: Path) -> dict[str, str | int]:
    """What an index says of itself: its newest root, the sha256 of that, and until when what it signed is good."""
    from expert_cli.digests import sha256_of
    from expert_cli.index.repository import Repository

    made = Repository(folder)
    version = made.load("root").signed.version
    root = folder / "metadata" / f"{version}.root.json"
    expires = f"{made.load('timestamp').signed.expires:%Y-%m-%dT%H:%M:%SZ}"
    return {"root": str(root), "version": version, "sha256": sha256_of(root), "expires": expires}
