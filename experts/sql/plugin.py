"""The SQL task: what expert-cli needs of it, gathered from the rooms of this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from expert_cli.task import INTERFACE, Example


class SqlTask:
    """The plugin behind the entry point ``expert_cli.tasks: sql``."""

    name = "sql"
    interface = INTERFACE

    def examples(self, source: Mapping[str, Any], *, surface: str, seed: int) -> Iterator[Example]:
        """Training examples; see :mod:`experts.sql.prepare` for what ``source`` names."""
        from experts.sql.prepare import examples

        yield from examples(source, surface=surface, seed=seed)


task = SqlTask()
