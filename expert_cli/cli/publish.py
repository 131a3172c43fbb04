"""``publish``: give an expert to others."""

from __future__ import annotations

import json
from pathlib import Path

import click

from expert_cli import publishing, show
from expert_cli import trust as trusted
from expert_cli.cli.archives import archive_path, json_option, reading
from expert_cli.cli.keys import content, opened, passphrase_option
from expert_cli.cli.transfer import travelling


@click.command()
@click.argument("path", type=archive_path)
@click.argument("target")
@click.option("--key", type=archive_path, help="Check the signature with this public key, not the trust store.")
@click.option("--index-key", type=archive_path, help="The private key of the index that TARGET holds.")
@passphrase_option
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@json_option
def publish(path: Path, target: str, key: Path | None, index_key: Path | None, passphrase_file: Path | None,
            dry_run: bool, as_json: bool) -> None:  # fmt: skip
    """Publish a signed expert to a release, a registry or a folder.

    TARGET is github:OWNER/REPOSITORY[@TAG], oci://HOST/REPOSITORY[:TAG], a folder, or one that holds an index. What
    is there already is left alone, so that after a failure the same call does the rest; another content under the same
    version is refused. An expert that is unsigned, or whose report has no evaluation of it, is not published. What is
    printed installs it.

    \b
    Examples:
      expert-cli publish expert-sql-nano.v0.1.0.expert github:acme/experts --dry-run
      expert-cli publish expert-sql-nano.v0.1.0.expert oci://ghcr.io/acme/sql
    """
    known = trusted.only(content(key), str(key)) if key else trusted.load()
    with reading(path) as progress:
        package = publishing.ready(path, known, progress)
    with travelling(path.name) as tell:
        secret = opened(index_key, passphrase_file) if index_key else None
        plan = publishing.plan(package, target, tell, secret)
        steps = [step.text for step in plan.steps]
        if not dry_run:
            publishing.run(plan, show.note)
    if as_json:
        click.echo(json.dumps({"source": plan.source, "sha256": package.sha256, "steps": steps, "done": not dry_run}))
    elif dry_run:
        click.echo("\n".join(steps or [f"nothing; it is published as {plan.source}"]))
    else:
        if not steps:
            show.note("it was published before")
        click.echo(plan.source)
