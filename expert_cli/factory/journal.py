"""The folder of an evaluation: what is answered is appended, and the results appear when all of it is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from expert_cli.errors import ExpertError, UsageError
from expert_cli.factory.report import Outcome, markdown

UNFINISHED = "unfinished.jsonl"


class Journal:
    """``folder/unfinished.jsonl``: the digest of the plan, then one outcome a line, each flushed.

    ``outcomes`` starts with what an evaluation of the same plan left behind; a line that was cut short is dropped.

    Raises:
        UsageError: another plan left it.
        ExpertError: the folder cannot be written.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        self.path = folder / UNFINISHED
        self.outcomes: list[Outcome] = []
        with self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            self._resume(digest)
            self._file = self.path.open("a", encoding="utf-8")

    def append(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        with self._writing():
            self._file.write(json.dumps(asdict(outcome)) + "\n")
            self._file.flush()
        self.outcomes.append(outcome)

    def close(self) -> None:
        """Stop writing; what was appended stays."""
        self._file.close()

    def reveal(self, report: dict[str, Any]) -> None:
        """Write the results, each whole or not at all, and drop the journal."""
        lines = (json.dumps(outcome.prediction()) + "\n" for outcome in self.outcomes)
        with self._writing():
            _replace(self.folder / "predictions.jsonl", "".join(lines))
            _replace(self.folder / "report.md", markdown(report))
            _replace(self.folder / "report.json", json.dumps(report, indent=1) + "\n")
            self.close()
            self.path.unlink()

    def _resume(self, digest: str) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if not whole:
            self.path.write_text(json.dumps({"digest": digest}) + "\n", encoding="utf-8")
            return
        if json.loads(whole[0])["digest"] != digest:
            raise UsageError(
                f"{self.path} belongs to another expert, cases or options; give another --out, or delete it to "
                "start over"
            )
        os.truncate(self.path, sum(map(len, whole)))
        self.outcomes = [_outcome(line) for line in whole[1:]]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise ExpertError(
                f"cannot write to {self.folder}: {problem}; make room or give another --out, what is answered is kept"
            ) from problem


def _outcome(line: bytes) -> Outcome:
    data = json.loads(line)
    return Outcome(**data | {"tried": tuple(data["tried"])})


def _replace(path: Path, text: str) -> None:
    written = path.with_name(f".{path.name}")
    written.write_text(text, encoding="utf-8")
    written.replace(path)
