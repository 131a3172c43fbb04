"""What the terminal sees: query, rows and progress. rich is imported only when something is shown."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console
    from rich.table import Table

NARROWEST = 8
"""Characters below which a column is left out of a table and not squeezed further."""

CELL_LIMIT = 200
"""Characters of one cell that a table shows."""

# CSI and OSC sequences whole, so that nothing of them stays behind as text.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]"
)


def plain(text: str) -> str:
    """``text`` on one line, without terminal escapes, control characters and marks that reorder what is read."""
    text = _ESCAPES.sub("", text).replace("\n", " ").replace("\t", " ")
    return "".join(char for char in text if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))


def cell(value: Any) -> str:
    """A cell as the table shows it."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    text = plain(str(value))
    return text if len(text) <= CELL_LIMIT else text[: CELL_LIMIT - 1] + "…"


def encodable() -> None:
    """From here on, what a stream's encoding lacks is written as ``?`` and not an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


def console(*, stderr: bool = False) -> Console:
    """A console that styles on a terminal, honours ``NO_COLOR``, and never wraps what is piped."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty()
    return Console(file=stream, highlight=False, soft_wrap=not terminal, width=None if terminal else 100_000)


def query(sql: str) -> None:
    """Print ``sql`` on stdout: highlighted on a terminal, byte for byte when piped."""
    if not sys.stdout.isatty():
        sys.stdout.write(sql + "\n")
        return
    from rich.syntax import Syntax

    lines = "\n".join(plain(line) for line in sql.splitlines())
    console().print(Syntax(lines, "sql", word_wrap=True, background_color="default", theme="ansi_dark"))


def rows(columns: Sequence[str], values: Sequence[Sequence[Any]], *, truncated: bool) -> None:
    """Print a table on stdout, cut to the terminal, and its row count on stderr."""
    screen = console()
    shown, hidden = _fitting(len(columns), screen.width)
    if columns:
        screen.print(_table(columns[:shown], values, shown))
    count = f"{len(values):,} row" + ("" if len(values) == 1 else "s")
    if truncated:
        count = f"first {count}; raise --limit to see more"
    if hidden:
        count += f"; {hidden} more columns do not fit, --json shows them"
    note(count)


def note(text: str, style: str = "dim") -> None:
    """Say something on stderr."""
    from rich.text import Text

    console(stderr=True).print(Text(text, style=style))


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on stderr; call what it yields with how many are done and a word on how it goes.

    Without a terminal a line is printed for each tenth.
    """
    if not sys.stderr.isatty():
        yield _tenths(label, total)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[word]}"),
    )
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, word="")
        yield lambda done, word: bar.update(task, completed=done, word=word)


def _tenths(label: str, total: int) -> Callable[[int, str], None]:
    told = -1

    def tell(done: int, word: str) -> None:
        nonlocal told
        tenth = 10 * done // max(total, 1)
        if tenth > told:
            told = tenth
            sys.stderr.write(f"{label}: {done} of {total}  {word}\n")
            sys.stderr.flush()

    return tell


def _fitting(columns: int, width: int) -> tuple[int, int]:
    """How many of ``columns`` a table of ``width`` characters shows, and how many it does not."""
    shown = min(columns, max(1, (width - 1) // (NARROWEST + 3)))
    return shown, columns - shown


def _table(columns: Sequence[str], values: Sequence[Sequence[Any]], shown: int) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.ROUNDED if sys.stdout.isatty() else box.ASCII, header_style="bold")
    for index, name in enumerate(columns):
        numeric = all(row[index] is None or _is_number(row[index]) for row in values)
        table.add_column(Text(plain(name)), no_wrap=True, overflow="ellipsis", justify="right" if numeric else "left")
    for row in values:
        table.add_row(*(Text(cell(value), style="dim" if value is None else "") for value in row[:shown]))
    return table


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
