"""The conversation: a prompt with history and completion, questions, and commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import click

from expert_cli import paths, show
from expert_cli.cli.turn import DIALECTS, answer, present
from expert_cli.errors import ExpertError
from expert_cli.expert import Session
from expert_cli.task import Limits

HELP = """\
Ask in plain words, or:
  /schema          what the expert knows of this database
  /sql             the last query again
  /run on|off      run queries, or only write them
  /dialect NAME    sqlite, postgres, mysql or duckdb
  /help            this
  /exit            leave (Ctrl-D); Ctrl-C cancels a running question"""
COMMANDS = ("/schema", "/sql", "/run", "/dialect", "/help", "/exit")


@runtime_checkable
class Catalogue(Protocol):
    """What a context may offer besides answers: names for completion, a description for ``/schema``."""

    def names(self) -> Sequence[str]: ...

    def describe(self) -> str: ...


class Talk:
    """A conversation over one database. ``reopen`` opens it again for another dialect."""

    def __init__(self, session: Session, reopen: Callable[..., Session], *, run: bool, limits: Limits) -> None:
        self.session, self.reopen, self.run, self.limits = session, reopen, run, limits
        self.last = ""

    def hold(self) -> None:
        """Read and answer until the user leaves."""
        prompt = _prompt(self.session.expert.identity.name, self.words())
        show.note("ask in plain words; /help for more, Ctrl-D to leave")
        while True:
            try:
                line = prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                break
            if not self.take(line):
                break
        self.session.close()

    def take(self, line: str) -> bool:
        """Answer or obey one line; False when the user leaves. Errors are shown, the conversation goes on."""
        line = line.strip()
        try:
            if line.startswith("/"):
                return self.obey(line)
            if line:
                found = answer(self.session, line, run=self.run, limits=self.limits)
                self.last = found.sql
                present(found)
        except ExpertError as problem:
            click.echo(f"error: {problem}", err=True)
        except KeyboardInterrupt:
            show.note("cancelled")
        return True

    def obey(self, line: str) -> bool:
        """Obey one slash command."""
        command, _, argument = line.partition(" ")
        argument = argument.strip().lower()
        if command in ("/exit", "/quit"):
            return False
        if command == "/schema":
            click.echo(self._schema())
        elif command == "/sql" and self.last:
            show.query(self.last)
        elif command == "/run" and argument in ("on", "off"):
            self.run = argument == "on"
            show.note("queries are run" if self.run else "queries are only written")
        elif command == "/dialect" and argument in DIALECTS:
            reopened = self.reopen(dialect=argument)
            self.session.close()
            self.session = reopened
            show.note(f"queries are shown in {argument}")
        else:
            show.note("no query yet; ask something first" if command == "/sql" else HELP)
        return True

    def words(self) -> list[str]:
        """What the prompt completes: commands, tables and columns."""
        context = self.session.context
        return [*COMMANDS, *(context.names() if isinstance(context, Catalogue) else ())]

    def _schema(self) -> str:
        context = self.session.context
        return context.describe() if isinstance(context, Catalogue) else "this task describes nothing"


def _prompt(name: str, words: Sequence[str]) -> Callable[[], Any]:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    completer = WordCompleter(list(words), ignore_case=True, WORD=True)
    kept = _history()
    history = FileHistory(str(kept)) if kept else InMemoryHistory()
    session: Any = PromptSession(history=history, completer=completer, complete_while_typing=False)
    return lambda: session.prompt(f"{name}> ")


def _history() -> Path | None:
    """Where questions are kept, for this user alone; None, and said so, where nothing can be written."""
    path = paths.home() / "history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        with path.open("a"):
            return path
    except OSError as problem:
        show.note(f"questions are not kept: {problem}")
        return None
