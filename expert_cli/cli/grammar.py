"""``expert-cli grammar``: check a grammar, and see what it accepts, writes and becomes over a database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import click

from expert_cli import task as tasks
from expert_cli.errors import ContextError, GrammarError, UsageError

FILE = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
DATABASE = click.option("--db", "target", required=True, help="The database whose names are bound: a file or URL.")
TASK = click.option("--task", default="sql", show_default=True, help="The task plugin that binds the names.")
SURFACE = click.option(
    "--surface", type=click.Choice(["names", "names-select"]), default="names", show_default=True,
    help="Whether FROM or SELECT comes first.",
)  # fmt: skip
BASE = click.option("--base", default="nano", show_default=True, help="The base model whose tokens are used.")


@click.group()
def grammar() -> None:
    """Check, test, sample and emit grammars.

    \b
    Example:
      expert-cli grammar check grammars/sql-sqlite.gbnf
    """


@grammar.command()
@FILE
def check(file: Path) -> None:
    """Report every fault of a GBNF file with its line and column.

    \b
    Example:
      expert-cli grammar check grammars/sql-sqlite.gbnf
    """
    from expert_cli.grammar.template import faults

    found = faults(_text(file))
    if found:
        raise GrammarError("\n".join(f"{file}:{fault}" for fault in found))
    click.echo(f"{file}: no fault", err=True)


@grammar.command()
@FILE
@DATABASE
@click.option("--cases", type=click.Path(path_type=Path, exists=True, dir_okay=False), required=True,
              help='JSONL of {"id", "sql"}; SELECT-first or FROM-first.')  # fmt: skip
@SURFACE
@TASK
@BASE
def accepts(file: Path, target: str, cases: Path, surface: str, task: str, base: str) -> None:
    """Say of each query whether the grammar, bound to a database, accepts it.

    Prints {"id", "accepted", "at", "expected"} a line, in order; positions are those of the text on the surface.

    \b
    Example:
      expert-cli grammar accepts grammars/sql-sqlite.gbnf --db shop.sqlite --cases queries.jsonl
    """
    from expert_cli.grammar.verdict import judge

    with _opened(file, target, surface, task, base) as (context, fresh):
        for number, row in enumerate(_rows(cases), 1):
            if not isinstance(row, dict) or not {"id", "sql"} <= row.keys():
                raise UsageError(f'{cases}: line {number}: expected {{"id": …, "sql": …}}')
            try:
                verdict = judge(fresh(), context.inner(row["sql"], surface))
                told: dict[str, Any] = {"accepted": verdict.accepted, "at": verdict.at, "expected": verdict.expected}
            except ContextError as problem:
                told = {"accepted": False, "at": 0, "expected": [], "error": str(problem)}
            click.echo(json.dumps({"id": row["id"], **told}))


@grammar.command()
@FILE
@DATABASE
@click.option("-n", "count", type=click.IntRange(1), default=10, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws.")
@SURFACE
@TASK
@BASE
def sample(file: Path, target: str, count: int, seed: int, surface: str, task: str, base: str) -> None:
    """Write queries drawn from the grammar without a model, one a line.

    \b
    Example:
      expert-cli grammar sample grammars/sql-sqlite.gbnf --db shop.sqlite -n 3
    """
    from expert_cli.grammar.sample import sample as draw_one

    draw = Random(seed)
    with _opened(file, target, surface, task, base) as (context, fresh):
        for _ in range(count):
            text = None
            while text is None:
                text = draw_one(fresh(), draw)
            click.echo(context.outer(text))


@grammar.command()
@FILE
@DATABASE
@click.option("--to", type=click.Choice(["gbnf", "lark"]), default="gbnf", show_default=True, help="The form.")
@SURFACE
@TASK
@BASE
def emit(file: Path, target: str, to: str, surface: str, task: str, base: str) -> None:
    """Print the grammar of a query's beginning, closed over a database; scopes unfold as they are written.

    \b
    Example:
      expert-cli grammar emit grammars/sql-sqlite.gbnf --db shop.sqlite --to lark
    """
    from expert_cli.grammar import emit as emitting
    from expert_cli.grammar.bind import bind

    with _opened(file, target, surface, task, base) as (context, fresh):
        binding = context.everything(surface)
        closed = bind(_text(file), binding, binding.state(""))
        click.echo(emitting.gbnf(closed) if to == "gbnf" else emitting.lark(closed, fresh().vocabulary))


@contextmanager
def _opened(file: Path, target: str, surface: str, task: str, base: str) -> Iterator[tuple[Any, Any]]:
    """The opened context, and what makes a matcher at its start."""
    from expert_cli.grammar import tokens
    from expert_cli.grammar.matcher import Matcher
    from expert_cli.grammar.template import dialect
    from expert_cli.runtime import bases

    text = _text(file)
    found = bases.find(base)
    vocabulary = tokens.load(found.file("tokenizer"), found.manifest.end)
    context: Any = tasks.load(task).open(target, dialect=dialect(text))
    try:
        yield context, lambda: Matcher(vocabulary, text, context.everything(surface))
    finally:
        context.close()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise GrammarError(f"{file} is not UTF-8 text: {problem}; save it as UTF-8") from problem


def _rows(cases: Path) -> Iterator[Any]:
    for number, line in enumerate(cases.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as problem:
            raise UsageError(f"{cases}: line {number}: {problem}; write one JSON object a line") from problem
