"""The options that chat and eval share: which expert, with which of its parts, and how it chooses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click

from expert_cli import loading
from expert_cli.expert import PREFER_ROWS, Expert

Command = TypeVar("Command", bound=Callable[..., Any])

SHARED = (
    click.option("--experts", "name", default="sql", show_default=True, help="The installed expert to ask."),
    click.option("--candidates", type=click.IntRange(1, 64), help="Candidates; the manifest's by default."),
    click.option(
        "--prefer-rows",
        type=click.IntRange(0),
        default=PREFER_ROWS,
        show_default=True,
        help="Candidates looked at after one without rows; one with rows wins. 0: the first that runs wins.",
    ),
    click.option("--base-only", is_flag=True, help="Leave the adapter out."),
    click.option("--no-grammar", is_flag=True, help="Leave the grammar out."),
    click.option(
        "--backend",
        type=click.Choice(loading.BACKENDS),
        default=loading.BACKENDS[0],
        show_default=True,
        help="What runs the model.",
    ),
    click.option(
        "--decoder",
        type=click.Choice(loading.DECODERS),
        default=loading.DECODERS[0],
        show_default=True,
        help="What constrains it; native is llama.cpp's own grammar, each output of which is checked.",
    ),
)


def shared(command: Command) -> Command:
    """Give ``command`` the shared options; it passes them on to :func:`opener`."""
    for option in reversed(SHARED):
        command = option(command)
    return command


def opener(
    *,
    name: str,
    candidates: int | None,
    prefer_rows: int,
    base_only: bool,
    no_grammar: bool,
    backend: str,
    decoder: str,
    threads: int | None = None,
) -> Callable[[], Expert]:
    """What loads the expert that the options name; picklable, for worker processes."""
    return partial(
        loading.load,
        name,
        backend=backend,
        decoder=decoder,
        adapter=not base_only,
        grammar=not no_grammar,
        candidates=candidates,
        prefer_rows=prefer_rows,
        threads=threads,
    )
