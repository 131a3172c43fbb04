"""A grammar as read from text, and its faults with their places."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from expert_cli.grammar.nodes import Grammar

MOST_REPETITIONS = 2000  # llama.cpp reads a larger maximum as "no limit" and refuses a larger minimum


@dataclass(frozen=True, order=True)
class Fault:
    """What is wrong and where; ``line`` and ``column`` count from 1."""

    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}"


@dataclass(frozen=True)
class Source:
    """A grammar as read, with the place of every rule and reference, for the faults that follow."""

    grammar: Grammar
    faults: tuple[Fault, ...]
    defined: dict[str, int]
    used: dict[str, int]
    lines: tuple[int, ...]

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column of a character offset."""
        line = bisect_right(self.lines, offset)
        return line, offset - self.lines[line - 1] + 1
