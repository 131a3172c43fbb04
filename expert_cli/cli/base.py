"""The commands of base models: list and fetch them, convert them to GGUF, weave adapters into them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from expert_cli import show
from expert_cli.errors import BaseModelError

if TYPE_CHECKING:
    from expert_cli.runtime.bases import Base
    from expert_cli.runtime.bases.hub import Progress

QUANTISATIONS = ("f32", "f16", "bf16", "q8_0")

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
out_option = click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The GGUF file to write."
)
quantisation_option = click.option(
    "--quantisation", type=click.Choice(QUANTISATIONS), default="f16", show_default=True, help="How weights are stored."
)


@click.group()
def base() -> None:
    """List, fetch, convert and weave base models."""


@base.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the bases whose manifests are here, and whether their files are.

    \b
    Example:
      expert-cli base list
    """
    from expert_cli.runtime import bases

    found = [_described(each) for each in bases.available()]
    if as_json:
        click.echo(json.dumps({"bases": found}))
        return
    columns = ("id", "parameters", "surface", "licence", "MB", "here", "digest")
    show.rows(columns, [[each[column] for column in columns] for each in found], truncated=False)


@base.command()
@click.argument("name", metavar="ID")
@click.option("--file", "kinds", multiple=True, help="Only this file: gguf, weights, config or tokenizer. Repeatable.")
@json_option
def fetch(name: str, kinds: tuple[str, ...], as_json: bool) -> None:
    """Fetch a base's files and verify them; a download that broke off goes on.

    ID is a known base or the path of a base manifest. HF_TOKEN, HF_ENDPOINT and EXPERT_OFFLINE are honoured.

    \b
    Example:
      expert-cli base fetch qwen3-0.6b --file gguf
    """
    from expert_cli.runtime import bases

    chosen = bases.find(name)
    files = {}
    for kind in kinds or chosen.manifest.files:
        with _bar(chosen, kind) as progress:
            files[kind] = str(chosen.file(kind, progress))
    if as_json:
        click.echo(json.dumps({"id": chosen.manifest.id, "files": files}))
        return
    for path in files.values():
        click.echo(path)


@base.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@out_option
@quantisation_option
@json_option
def gguf(folder: Path, out: Path, quantisation: str, as_json: bool) -> None:
    """Convert a Qwen3 model folder (config, tokenizer, safetensors) to GGUF.

    \b
    Example:
      expert-cli base gguf runs/nano/base -o nano.gguf --quantisation q8_0
    """
    from expert_cli.runtime import gguf as files
    from expert_cli.runtime import qwen3

    files.write(qwen3.contents(folder), out, quantisation)
    _written(out, as_json)


@base.command()
@click.argument("name", metavar="BASE")
@click.argument("adapter", type=click.Path(exists=True, file_okay=False, path_type=Path))
@out_option
@quantisation_option
@json_option
def weave(name: str, adapter: Path, out: Path, quantisation: str, as_json: bool) -> None:
    """Merge a PEFT adapter folder (LoRA or DoRA) into its base and write one GGUF.

    BASE is a known base, the path of a base manifest, a Qwen3 model folder, or a GGUF of 16 bits or more.

    \b
    Example:
      expert-cli base weave nano runs/sql-nano/step-800 -o sql-nano.gguf
    """
    from expert_cli.runtime import bases, weights
    from expert_cli.runtime import weave as weaving

    path, digest = Path(name), ""
    if path.is_dir():
        digest = weights.digest(path / "model.safetensors")
    elif path.suffix != ".gguf":
        found = bases.find(name)
        path, digest = found.folder(), found.manifest.digest
    trained_on = weaving.trained_on(adapter)
    if trained_on and digest and trained_on != digest:
        raise BaseModelError(f"{adapter}: trained on base {trained_on[:12]}, this is {digest[:12]}; give its own base")
    if not (trained_on and digest):
        show.note("the adapter or the base does not say what it is: only modules and shapes are compared")
    weaving.weave(path, adapter, out, quantisation)
    _written(out, as_json)


def _described(each: Base) -> dict[str, str | int | bool]:
    manifest = each.manifest
    return {
        "id": manifest.id,
        "parameters": manifest.parameters,
        "surface": manifest.surface,
        "licence": manifest.licence,
        "MB": sum(file.size for file in manifest.files.values()) // 1_000_000,
        "here": all(each.here(kind) for kind in manifest.files),
        "digest": manifest.digest[:12],
    }


def _written(path: Path, as_json: bool) -> None:
    from expert_cli.runtime.weights import digest

    if as_json:
        click.echo(json.dumps({"path": str(path), "size": path.stat().st_size, "sha256": digest(path)}))
        return
    click.echo(str(path))


@contextmanager
def _bar(chosen: Base, kind: str) -> Iterator[Progress | None]:
    """Progress in MB on stderr, where there is something to wait for."""
    if kind not in chosen.manifest.files or chosen.here(kind):
        yield None
        return
    file = chosen.manifest.files[kind]
    with show.progress(file.name, file.size // 1_000_000) as tell:
        yield lambda here, size: tell(here // 1_000_000, "MB")
