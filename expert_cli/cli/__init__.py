"""The command line: each command parses, calls one library function and shows what it returned.

Commands are named here and imported only when called, so that ``--help`` stays instant.
"""

from __future__ import annotations

import importlib
import sys

import click

from expert_cli.errors import ExpertError

# name -> (module, attribute, one line of help). The help line is repeated here so that listing imports nothing.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "chat": ("expert_cli.cli.ask", "chat", "Ask questions; one with --prompt, a conversation without."),
    "eval": ("expert_cli.cli.evaluate", "evaluate", "Answer a file of cases and score them by execution."),
    "train": (
        "expert_cli.cli.train",
        "train",
        "Train an adapter, evaluate its checkpoints and choose the one to pack.",
    ),
    "pretrain": ("expert_cli.cli.pretrain", "pretrain", "Pre-train a base model from public data, resumable."),
    "package": ("expert_cli.cli.packages", "package", "Pack a trained expert into one .expert file."),
    "publish": ("expert_cli.cli.publish", "publish", "Publish a signed expert to a release, a registry or a folder."),
    "sign": ("expert_cli.cli.packages", "sign", "Sign an archive with a private key or an identity."),
    "verify": ("expert_cli.cli.packages", "verify", "Check an archive against the trust store."),
    "install": ("expert_cli.cli.packages", "install", "Verify and install an archive."),
    "list": ("expert_cli.cli.packages", "list_", "List installed experts."),
    "info": ("expert_cli.cli.info", "info", "Show what is known of an expert or archive."),
    "remove": ("expert_cli.cli.packages", "remove", "Remove an installed expert."),
    "upgrade": ("expert_cli.cli.packages", "upgrade", "Install newer versions of what is installed."),
    "outdated": ("expert_cli.cli.packages", "outdated", "List installed experts that have a newer version."),
    "rollback": ("expert_cli.cli.packages", "rollback", "Go back to what was installed before the last change."),
    "gc": ("expert_cli.cli.packages", "gc", "Forget earlier states and delete what only they needed."),
    "import": ("expert_cli.cli.packages", "import_", "Convert a package of the predecessor."),
    "keygen": ("expert_cli.cli.packages", "keygen", "Make a signing key pair."),
    "trust": ("expert_cli.cli.packages", "trust", "Say whose signatures to accept."),
    "index": ("expert_cli.cli.index", "index", "Make an index of experts, or trust one."),
    "grammar": ("expert_cli.cli.grammar", "grammar", "Check, test, sample and emit grammars."),
    "base": ("expert_cli.cli.base", "base", "List, fetch, convert and weave base models."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="expert-cli", prog_name="expert-cli")
def main() -> None:
    """Train, package, install and chat with experts: small signed adapters that answer in a checked language.

    \b
    Examples:
      expert-cli install sql
      expert-cli chat --experts sql --db shop.sqlite --prompt "How many orders were shipped?"
    """


def run() -> None:
    """The console script: library errors become one message on stderr and their exit code."""
    try:
        code = main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as problem:
        problem.show()
        sys.exit(problem.exit_code)
    except ExpertError as problem:
        click.echo(f"error: {problem}", err=True)
        sys.exit(problem.exit_code)
    except OSError as problem:  # a disk that is full or read-only, where nobody below has more to say
        name = f"{problem.filename}: " if problem.filename else ""
        click.echo(f"error: {name}{problem.strerror or problem}; free some space, or write elsewhere", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
