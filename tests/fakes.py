"""A task over real SQLite and a writer that returns what it was told to."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

from expert_cli.answer import Draft, Identity, Read, Written
from expert_cli.conversation import Template
from expert_cli.errors import ContextError, ExpertError
from expert_cli.expert import Expert
from expert_cli.manifest import Decoding
from expert_cli.task import Binding, Case, Checked, Example, Limits, Message, Result, Score

TEMPLATE = Template(
    "<s>", {"system": "", "user": "<q>", "assistant": "<a>"}, {"system": "", "user": "", "assistant": "<e>"}
)
IDENTITY = Identity(name="sql", version="1.2.3", digest="d" * 64, base="tiny", base_digest="b" * 64)


class FakeQuestion:
    def __init__(self, context: FakeContext, text: str) -> None:
        self.context, self.text = context, text

    def messages(self) -> Sequence[Message]:
        return [Message("user", self.text)]

    def binding(self) -> Binding:
        return self

    def state(self, written: str) -> Any:
        return 0

    def rules(self, state: Any) -> Mapping[str, str]:
        return {}

    def surcharge(self, text: str) -> float:
        return 2.0 * text.count("'made up'")

    def check(self, text: str) -> Checked:
        try:
            self.context.connection.execute("EXPLAIN " + text)
        except sqlite3.Error as problem:
            raise ContextError(str(problem)) from problem
        return Checked(text, text + ";", "nobody knows" if "doubtful" in text else "")


class FakeContext:
    def __init__(self, target: str | Path) -> None:
        path = Path(target)
        if not path.is_file():
            raise ContextError(f"{target} does not exist; name a database")
        self.closed = self.locked = False
        if path.suffix == ".sql":
            self.connection = sqlite3.connect(":memory:")
            self.connection.executescript(path.read_text())
        else:
            self.connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)

    def question(self, text: str, *, surface: str, evidence: str = "") -> FakeQuestion:
        if not text:
            raise ContextError("the question is empty; ask something")
        return FakeQuestion(self, text + evidence)

    def names(self) -> Sequence[str]:
        return ["items", "items.name", "items.price"]

    def describe(self) -> str:
        return "items(name, price)"

    def run(self, checked: Checked, limits: Limits) -> Result:
        if self.locked:
            raise ContextError("the database is locked; close the other program")
        try:
            found = self.connection.execute(checked.text)
            rows = found.fetchmany(limits.rows + 1)
        except sqlite3.Error as problem:
            raise ExpertError(str(problem)) from problem
        return Result(tuple(c[0] for c in found.description), tuple(rows[: limits.rows]), len(rows) > limits.rows)

    def close(self) -> None:
        self.closed = True
        self.connection.close()


class FakeTask:
    name = "sql"
    interface = 1

    def open(self, target: str | Path, *, dialect: str = "") -> FakeContext:
        self.opened = FakeContext(target)
        return self.opened

    def examples(self, source: Mapping[str, Any], *, surface: str, seed: int) -> Iterator[Example]:
        return iter(())

    def cases(self, source: Mapping[str, Any]) -> Iterator[Case]:
        return iter(())

    def score(self, context: FakeContext, checked: Checked, gold: Sequence[str]) -> Score:
        rows = context.run(checked, Limits()).rows
        return Score(any(context.run(Checked(g, g), Limits()).rows == rows for g in gold), "other rows")


class FakeWriter:
    """Writes ``script[question]``, the first key that the prompt contains; ``asked`` keeps the prompts."""

    surface = "names"
    template = TEMPLATE

    def __init__(self, script: Mapping[str, Sequence[str | Draft]], pause: float = 0.0) -> None:
        self.script, self.pause = script, pause
        self.asked: list[str] = []

    def write(
        self, prompt: str, binding: Binding, *, width: int, max_tokens: int
    ) -> Generator[Read | Written, None, list[Draft]]:
        self.asked.append(prompt)
        sleep(self.pause)
        yield Read(len(prompt))
        texts = next((texts for key, texts in self.script.items() if key in prompt), [])[:width]
        drafts = [
            text if isinstance(text, Draft) else Draft(text, -1.0 - i, len(text.split()))
            for i, text in enumerate(texts)
        ]
        if drafts:
            yield Written(drafts[0].text[:6])
        return drafts


def expert(
    script: Mapping[str, Sequence[str | Draft]],
    *,
    candidates: int = 8,
    prefer_rows: int = 2,
    pause: float = 0.0,
    **identity: Any,
) -> Expert:
    decoding = Decoding(candidates=candidates, max_tokens=160)
    return Expert(FakeTask(), replace(IDENTITY, **identity), lambda: FakeWriter(script, pause), decoding, prefer_rows)


def shop(folder: Path) -> Path:
    """A database of three items, and its schema beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    schema = "CREATE TABLE items (name TEXT, price REAL);"
    (folder / "shop.sql").write_text(schema)
    path = folder / "shop.sqlite"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript(schema)
    connection.executemany("INSERT INTO items VALUES (?, ?)", [("pen", 2.0), ("ink", 5.0), ("nib\x1b[31m", None)])
    connection.commit()
    connection.close()
    return path
