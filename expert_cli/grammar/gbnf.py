"""Read llama.cpp's GBNF: every construct of its dialect, and every fault of a text at once.

Hook rules are named by comment lines ``# hook: column the columns in scope``: they may be referenced without a body.
"""

from __future__ import annotations

import re
from functools import lru_cache

from expert_cli.errors import GrammarError
from expert_cli.grammar.nodes import (
    ANY,
    EMPTY,
    Choice,
    Class,
    Grammar,
    Literal,
    Node,
    Reference,
    Repeat,
    Sequence,
    Token,
)
from expert_cli.grammar.source import MOST_REPETITIONS, Fault, Source
from expert_cli.grammar.validate import structural

LONGEST = 4 << 20  # characters of text
DEEPEST = 64  # groups inside groups

_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_NAME = re.compile(r"[a-zA-Z0-9-]+")
_LOOSE_NAME = re.compile(r"[^\W]+(?:[-\w])*")
_RULE_START = re.compile(r"^[ \t]*[-\w]+[ \t]*::=", re.MULTILINE)
_HOOK = re.compile(r"^[ \t]*# hook: ([a-zA-Z0-9-]+)[ \t]*([^\r\n]*)", re.MULTILINE)
_PLAIN = re.compile(r'[^"\\]+')
_INTEGER = re.compile(r"[0-9]+")
_TOKEN = re.compile(r"<(\[[0-9]+\]|[^>\[][^>]*)>")
_QUANTIFIER = re.compile(r"\{[ \t]*(?P<low>[0-9]+)[ \t]*(?P<comma>,)?[ \t]*(?P<high>[0-9]+)?[ \t]*\}|(?P<sign>[*+?])")
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n", "\\": "\\", '"': '"', "[": "[", "]": "]", "-": "-"}
_HEX = {"x": 2, "u": 4, "U": 8}


class _Stop(Exception):
    """A fault that ends the reading of one rule."""

    def __init__(self, offset: int, message: str) -> None:
        self.offset = offset
        self.message = message


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0
        self.chain = 0
        self.problems: list[tuple[int, str]] = []
        self.rules: dict[str, Node] = {}
        self.defined: dict[str, int] = {}
        self.used: dict[str, int] = {}

    def space(self, lines: bool) -> None:
        match = (_SPACE_AND_LINES if lines else _SPACE).match(self.text, self.at)
        self.at = match.end() if match else self.at

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def grammar(self) -> None:
        self.space(lines=True)
        while self.at < len(self.text):
            try:
                self.rule()
            except _Stop as stop:
                self.depth = 0
                self.problems.append((stop.offset, stop.message))
                following = _RULE_START.search(self.text, max(stop.offset, self.at) + 1)
                self.at = following.start() if following else len(self.text)
            self.space(lines=True)

    def rule(self) -> None:
        start = self.at
        name = self.name("a rule name")
        self.space(lines=False)
        if not self.text.startswith("::=", self.at):
            raise _Stop(self.at, f"expected ::= after the rule name {name!r}")
        self.at += 3
        self.space(lines=True)
        if name in self.defined:
            self.problems.append((start, f"rule {name!r} is defined twice; join the two with |"))
        self.defined[name] = start
        self.rules[name] = self.alternatives(nested=False)
        if self.at < len(self.text) and self.peek() not in "\r\n":
            raise _Stop(self.at, f"expected the end of the line, found {self.peek()!r}")

    def name(self, what: str) -> str:
        match = _LOOSE_NAME.match(self.text, self.at) or _NAME.match(self.text, self.at)
        if not match:
            found = repr(self.peek()) if self.at < len(self.text) else "the end of the text"
            raise _Stop(self.at, f"expected {what}, found {found}")
        if not _NAME.fullmatch(match.group()):
            self.problems.append((self.at, f"rule name {match.group()!r}: only A-Z, a-z, 0-9 and - may be used"))
        self.at = match.end()
        return match.group()

    def alternatives(self, nested: bool) -> Node:
        options = [self.sequence(nested)]
        while self.peek() == "|":
            self.at += 1
            self.space(lines=True)
            options.append(self.sequence(nested))
        return options[0] if len(options) == 1 else Choice(tuple(options))

    def sequence(self, nested: bool) -> Node:
        items: list[Node] = []
        while (char := self.peek()) and char not in "|)" and (nested or char not in "\r\n"):
            if char in "*+?{":
                self.quantify(items)
            else:
                item = self.item(char)
                if item is None:
                    break
                items.append(item)
            self.space(lines=nested)
        return items[0] if len(items) == 1 else Sequence(tuple(items)) if items else EMPTY

    def item(self, char: str) -> Node | None:
        if char == '"':
            return self.literal()
        if char == "[":
            return self.klass()
        if char == "(":
            return self.group()
        if char == ".":
            self.at += 1
            return ANY
        if char in "<!":
            return self.token()
        if char.isalnum() or char in "-_":
            start = self.at
            name = self.name("a rule name")
            self.used.setdefault(name, start)
            return Reference(name)
        return None

    def group(self) -> Node:
        start = self.at
        self.depth += 1
        if self.depth > DEEPEST:
            raise _Stop(start, f"groups nest deeper than {DEEPEST}; name the inner parts as rules")
        self.at += 1
        self.space(lines=True)
        node = self.alternatives(nested=True)
        if self.peek() != ")":
            raise _Stop(start, "this ( is never closed" if not self.peek() else f"expected ), found {self.peek()!r}")
        self.at += 1
        self.depth -= 1
        return node

    def literal(self) -> Node:
        start = self.at
        self.at += 1
        parts: list[str] = []
        while (char := self.peek()) != '"':
            plain = _PLAIN.match(self.text, self.at)
            if plain:
                parts.append(plain.group())
                self.at = plain.end()
            elif char:
                parts.append(self.character(start))
            else:
                raise _Stop(start, 'this " is never closed')
        self.at += 1
        return Literal("".join(parts))

    def klass(self) -> Node:
        start = self.at
        self.at += 1
        negated = self.peek() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        while self.peek() != "]":
            place = self.at
            low = high = ord(self.character(start))
            if self.peek() == "-" and self.text[self.at + 1 : self.at + 2] != "]":
                self.at += 1
                high = ord(self.character(start))
            if high < low:
                self.problems.append((place, f"range {chr(low)!r}-{chr(high)!r} is empty; swap its ends"))
            ranges.append((low, high))
        self.at += 1
        if not ranges:
            self.problems.append((start, 'this class is empty; write "" for the empty text or . for any character'))
        return Class(tuple(ranges), negated)

    def character(self, start: int) -> str:
        """One code point of a literal or class that opened at ``start``."""
        char = self.peek()
        if not char:
            raise _Stop(start, f"this {self.text[start]} is never closed")
        self.at += 1
        if char != "\\":
            return char
        kind = self.peek()
        self.at += 1
        if kind in _HEX:
            digits = self.text[self.at : self.at + _HEX[kind]]
            if not re.fullmatch(f"[0-9a-fA-F]{{{_HEX[kind]}}}", digits):
                raise _Stop(self.at - 2, f"expected {_HEX[kind]} hexadecimal digits after \\{kind}")
            self.at += len(digits)
            point = int(digits, 16)
            if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
                raise _Stop(self.at - 2 - len(digits), f"\\{kind}{digits} is not a Unicode code point")
            return chr(point)
        if kind and kind in _ESCAPED:
            return _ESCAPED[kind]
        raise _Stop(self.at - 2, f"unknown escape \\{kind}; write \\\\ for a backslash")

    def token(self) -> Node:
        start = self.at
        negated = self.peek() == "!"
        match = _TOKEN.match(self.text, self.at + negated)
        if not match:
            raise _Stop(start, "expected a token, <name> or <[id]>")
        self.at = match.end()
        return Token(match.group(1), negated)

    def quantify(self, items: list[Node]) -> None:
        start = self.at
        match = _QUANTIFIER.match(self.text, self.at)
        if not match:
            raise _Stop(start, "expected a repetition {m}, {m,} or {m,n}")
        if not items or items[-1] == EMPTY:
            raise _Stop(start, f"{match.group()} has nothing before it to repeat")
        self.at = match.end()
        sign = match["sign"]
        low = {"*": 0, "+": 1, "?": 0}[sign] if sign else int(match["low"][:9])
        high: int | None = {"*": None, "+": None, "?": 1}[sign] if sign else low
        if not sign and match["comma"]:
            high = int(match["high"][:9]) if match["high"] else None
        if max(low, high or 0) > MOST_REPETITIONS:
            self.problems.append((start, f"{match.group()} repeats more than {MOST_REPETITIONS} times"))
        if high is not None and high < low:
            self.problems.append((start, f"{match.group()}: the maximum is below the minimum"))
        self.chain = self.chain + 1 if isinstance(items[-1], Repeat) else 1
        if self.chain > DEEPEST:
            raise _Stop(start, f"more than {DEEPEST} repetitions of repetitions; one is enough")
        items[-1] = Repeat(items[-1], low, high)


def read(text: str) -> Source:
    """Read ``text`` as far as it can be read, with the faults of its syntax."""
    reader = _Reader(text if len(text) <= LONGEST else "")
    reader.grammar()
    lines = (0, *(match.end() for match in re.finditer("\n", text)))
    hooks = {match[1]: match[2].strip() for match in _HOOK.finditer(reader.text)}
    source = Source(Grammar(reader.rules, hooks), (), reader.defined, reader.used, lines)
    faults = [Fault(*source.place(offset), message) for offset, message in reader.problems]
    if len(text) > LONGEST:
        faults.append(Fault(1, 1, f"the text is longer than {LONGEST} characters"))
    return Source(source.grammar, tuple(faults), reader.defined, reader.used, lines)


def faults(source: Source) -> list[Fault]:
    """Every fault of ``source``, in order of place: syntax, and what would break or hang a matcher."""
    return sorted([*source.faults, *structural(source)])


def sound(source: Source, name: str = "grammar") -> Grammar:
    """The grammar of ``source``.

    Raises:
        GrammarError: lists every fault with its line and column.
    """
    found = faults(source)
    if found:
        count = f"{len(found)} fault" + "s" * (len(found) != 1)
        listing = "\n".join(f"  - {fault}" for fault in found)
        raise GrammarError(f"{name}: {count}; correct the grammar and check it again\n{listing}")
    return source.grammar


def parse(text: str, name: str = "grammar") -> Grammar:
    """The grammar that ``text`` holds; hooks may stay open.

    Raises:
        GrammarError: lists every fault with its line and column.
    """
    return sound(read(text), name)


@lru_cache(maxsize=4096)
def body(text: str) -> Node:
    """The right-hand side of one rule, as a binding gives it for a hook.

    Raises:
        GrammarError: the text is not one right-hand side.
    """
    reader = _Reader(text)
    try:
        node = reader.alternatives(nested=True)
        if reader.at < len(text):
            raise _Stop(reader.at, f"unexpected {text[reader.at]!r}")
    except _Stop as stop:
        raise GrammarError(f"hook body, column {stop.offset + 1}: {stop.message}; correct the binding") from stop
    if reader.problems:
        offset, message = reader.problems[0]
        raise GrammarError(f"hook body, column {offset + 1}: {message}; correct the binding")
    return node
