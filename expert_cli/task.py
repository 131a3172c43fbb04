"""What expert-cli needs of a task plugin, and no more.

A plugin registers an object that satisfies :class:`Task` under the entry point group ``expert_cli.tasks``.
The tool calls it in this order::

    context  = task.open(target, dialect=...)        # SQL: a database, or DDL
    question = context.question("how many?", surface="pointers")
    messages = question.messages()                   # rendered by conversation.render
    binding  = question.binding()                    # hooks for grammar.bind
    checked  = question.check(text)                  # raises ContextError; the only thing run accepts
    result   = context.run(checked, limits)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from expert_cli.errors import UsageError

INTERFACE = 1
"""The version of this protocol; an archive names the version that it needs."""


@dataclass(frozen=True)
class Message:
    """One turn: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """One training example: the prompt's messages and the completion that the model must learn."""

    id: str
    messages: tuple[Message, ...]
    completion: str


@dataclass(frozen=True)
class Checked:
    """A completion that passed every check: ``text`` as the model wrote it, ``output`` as the user sees it.

    ``doubt`` says why it may fail all the same where the user takes it; empty where nothing speaks against it.
    """

    text: str
    output: str
    doubt: str = ""


@dataclass(frozen=True)
class Limits:
    """What running an answer may cost: wall seconds, rows fetched, bytes of memory."""

    seconds: float = 10.0
    rows: int = 1000
    memory: int = 1 << 30


@dataclass(frozen=True)
class Result:
    """What running an answer gave. ``truncated`` says that the row limit cut it."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool = False
    ms: float = 0.0


@dataclass(frozen=True)
class Score:
    """``correct`` against gold, and the reason where it is not."""

    correct: bool
    reason: str = ""


class Binding(Protocol):
    """The names that a grammar template's hook rules stand for, given what is written so far.

    ``state`` reads the output so far and returns a hashable scope; when it changes, the matcher asks ``rules``
    for the hook rules of that scope, recompiles and replays the output. Scopes only ever grow more specific.
    """

    def state(self, written: str) -> Any: ...

    def rules(self, state: Any) -> Mapping[str, str]: ...


class Question(Protocol):
    """A question linked to an opened context."""

    def messages(self) -> Sequence[Message]: ...

    def binding(self) -> Binding: ...

    def surcharge(self, text: str) -> float:
        """Nats to take off the log-probability of ``text`` for what it makes up, which the question does not offer."""
        ...

    def check(self, text: str) -> Checked: ...


class Context(Protocol):
    """An opened target: for SQL a database or DDL."""

    def question(self, text: str, *, surface: str, evidence: str = "") -> Question: ...

    def run(self, checked: Checked, limits: Limits) -> Result: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Case:
    """One evaluation case; ``gold`` holds every acceptable answer."""

    id: str
    question: str
    target: str
    gold: tuple[str, ...] = ()
    dialect: str = ""
    evidence: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A task plugin."""

    name: str
    interface: int

    def open(self, target: str | Path, *, dialect: str = "") -> Context: ...

    def examples(self, source: Mapping[str, Any], *, surface: str, seed: int) -> Iterator[Example]: ...

    def cases(self, source: Mapping[str, Any]) -> Iterator[Case]: ...

    def score(self, context: Context, checked: Checked, gold: Sequence[str]) -> Score: ...


def load(name: str) -> Task:
    """The task plugin called ``name``.

    Raises:
        UsageError: no installed distribution provides it.
    """
    for entry in entry_points(group="expert_cli.tasks"):
        if entry.name == name:
            task: Task = entry.load()
            if task.interface != INTERFACE:
                raise UsageError(
                    f"task plugin {name!r} speaks interface {task.interface}, this tool {INTERFACE}; "
                    "install a plugin of the same release"
                )
            return task
    raise UsageError(f"no plugin provides the task {name!r}; install the distribution that does")
