"""An index on disk and over HTTP, and who made it; what the tests of indexes share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from test_publish import evaluated
from web import Reply, Request, Web, serve

from expert_cli import paths, signing, trust
from expert_cli.cli import main
from expert_cli.index import client
from expert_cli.index.repository import Repository

PUBLISHER = signing.generate()
ROOTS = [signing.generate() for _ in range(3)]
KEY, OTHER = signing.generate(), signing.generate()


_made: list[Path] = []


def index(folder: Path, made: Path) -> Repository:
    """An index with two versions of ``sql`` and one of ``other``, which requires ``sql``; built once, in ``made``."""
    if not _made:
        repository = Repository(made / "experts")
        repository.init(ROOTS[:2], 2, KEY)
        for changes in ({"version": "0.3.0"}, {"version": "0.4.0"}, {"name": "other", "requires": ["sql<0.4"]}):
            repository.add(evaluated(made / "made", **changes), KEY)
        _made.append(made)
    shutil.copytree(_made[0], folder, dirs_exist_ok=True)
    return Repository(folder / "experts")


def publisher(patch: pytest.MonkeyPatch) -> None:
    """Let the archives be signed by a publisher who is trusted."""
    patch.setattr("test_publish.KEY", PUBLISHER)
    for namespace in ("sql", "other"):
        trust.add(PUBLISHER.public.pem, namespace, source="test")


@contextmanager
def served(made: Repository) -> Iterator[Web]:
    """The index over HTTP."""

    def answer(request: Request) -> Reply:
        path = made.folder / request.path.lstrip("/")
        return Reply(200, {}, path.read_bytes()) if path.is_file() else Reply(404)

    with serve(answer) as running:
        yield running


def call(*arguments: str) -> Any:
    done = CliRunner().invoke(main, list(arguments))
    if done.exception:
        raise done.exception
    return done


def trusted(made: Repository, url: str) -> client.Known:
    return client.trust(url, root=(made.metadata / "1.root.json").read_bytes())


def state() -> dict[str, bytes]:
    """Every file under the home, but for locks."""
    files = [path for path in paths.home().rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path): path.read_bytes() for path in files}
