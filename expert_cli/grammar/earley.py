"""A recogniser of our own: slow, plain, and in need of no engine. It checks what other engines have written.

Earley's algorithm over the characters and named tokens of a text. It has the methods that :class:`Matcher` asks of an
engine, but its masks hold named tokens alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

from expert_cli.errors import GrammarError
from expert_cli.grammar.bind import Closed
from expert_cli.grammar.bounds import Work
from expert_cli.grammar.nodes import Choice, Class, Literal, Node, Reference, Repeat, Token
from expert_cli.grammar.nodes import Sequence as Items
from expert_cli.grammar.tokens import Vocabulary

Symbol = str | Class | Literal | Token
"""A rule by name, or a terminal."""

Item = tuple[str, int, int, int, int]
"""A rule, its production, how far it is read, characters read of the next literal, and where it began."""


class Productions:
    """A closed grammar as productions: choices and repetitions become rules."""

    def __init__(self, closed: Closed) -> None:
        self.rules: dict[str, list[tuple[Symbol, ...]]] = {}
        grammar = closed.grammar()
        self.root = closed.instances[0].name
        for name, node in grammar.rules.items():
            self.rules[name] = [self._flat(option) for option in _options(node)]

    def _flat(self, node: Node) -> tuple[Symbol, ...]:
        match node:
            case Literal(text):
                return (node,) if text else ()
            case Class() | Token():
                return (node,)
            case Reference(name):
                return (name,)
            case Items(items):
                return tuple(symbol for item in items for symbol in self._flat(item))
            case Choice():
                return (self._rule([self._flat(option) for option in _options(node)]),)
            case Repeat(item, low, high):
                inner = self._flat(item)
                more: tuple[Symbol, ...] = ()
                if high is None:
                    more = (self._endless(inner),)
                for _ in range((high or low) - low):
                    more = (self._rule([(), (*inner, *more)]),)
                return (*(inner * low), *more)

    def _endless(self, inner: tuple[Symbol, ...]) -> str:
        name = self._rule([()])
        self.rules[name].append((name, *inner))
        return name

    def _rule(self, options: list[tuple[Symbol, ...]]) -> str:
        name = f"/{len(self.rules)}"  # no rule of a grammar has such a name
        self.rules[name] = options
        return name


def _options(node: Node) -> Iterable[Node]:
    return node.options if isinstance(node, Choice) else (node,)


class Recogniser:
    """Where the texts read so far may be in the grammar: one set of items for each character or token."""

    def __init__(self, grammar: Productions, vocabulary: Vocabulary) -> None:
        self.grammar, self.vocabulary = grammar, vocabulary
        self.cut = b""  # bytes of a character that is not whole yet
        self.work = Work()
        start = [(grammar.root, number, 0, 0, 0) for number in range(len(grammar.rules[grammar.root]))]
        self.sets: list[dict[Item, None]] = []
        self.waiting: list[dict[str, list[Item]]] = []
        self._close(start)

    def try_consume_tokens(self, tokens: Sequence[int]) -> int:
        """Read ``tokens``; how many of them could be read."""
        for count, token in enumerate(tokens):
            if not self._read(token):
                return count
        return len(tokens)

    def unsafe_compute_mask_ptr(self, pointer: int, size: int) -> None:
        """Set the bits of the named tokens that may come next; of no others."""
        words = (ctypes.c_uint32 * (size // 4)).from_address(pointer)
        if self.cut:
            return
        for token in self.vocabulary.special:
            if any(self._names(symbol, token) for symbol in self._next() if isinstance(symbol, Token)):
                words[token >> 5] |= 1 << (token & 31)

    def compute_ff_tokens(self) -> list[int]:
        return []

    def is_accepting(self) -> bool:
        whole = self.sets[-1] if not self.cut else {}
        root = self.grammar.root
        return any(
            name == root and not begun and at == len(self.grammar.rules[root][number])
            for name, number, at, _, begun in whole
        )

    def deep_copy(self) -> Recogniser:
        other = Recogniser.__new__(Recogniser)
        other.__dict__ = {**self.__dict__, "sets": [*self.sets], "waiting": [*self.waiting]}
        return other

    def is_error(self) -> bool:
        return False

    def get_error(self) -> str:
        return ""

    def _next(self) -> Iterable[Symbol]:
        for name, number, at, _, _ in self.sets[-1]:
            symbols = self.grammar.rules[name][number]
            if at < len(symbols):
                yield symbols[at]

    def _read(self, token: int) -> bool:
        if token in self.vocabulary.ends:
            return self.is_accepting()
        named = [] if self.cut else self._named(token)
        if token in self.vocabulary.special:
            if named:
                self._close(named)
            return bool(named)
        raw = self.cut + self.vocabulary.pieces[token]
        text = raw.decode("utf-8", "ignore")
        rest = raw[len(text.encode()) :]
        try:
            (text.encode() + rest + _completion(rest)).decode()
        except UnicodeDecodeError:
            return False
        if not raw.startswith(text.encode()) or not raw:
            return False
        if named and (rest or not text):
            raise GrammarError("a character that two tokens share cannot be checked here; use llguidance")
        kept = self.sets, self.waiting
        self.sets, self.waiting = [*self.sets], [*self.waiting]
        for place, char in enumerate(text):
            self._close([*self._scanned(char), *(named if place == len(text) - 1 else ())])
        if self.sets[-1]:
            self.cut = rest
            return True
        self.sets, self.waiting = kept
        return False

    def _named(self, token: int) -> list[Item]:
        """The items after ``token`` where the grammar names it, or any but another."""
        found: list[Item] = []
        for name, number, at, _, begun in self.sets[-1]:
            symbols = self.grammar.rules[name][number]
            symbol = symbols[at] if at < len(symbols) else ""
            if isinstance(symbol, Token) and self._names(symbol, token):
                found.append((name, number, at + 1, 0, begun))
        return found

    def _scanned(self, read: str) -> list[Item]:
        """The items after one character."""
        found: list[Item] = []
        for name, number, at, offset, begun in self.sets[-1]:
            symbols = self.grammar.rules[name][number]
            symbol = symbols[at] if at < len(symbols) else ""
            if isinstance(symbol, Literal):
                if symbol.text[offset] == read:
                    last = offset + 1 == len(symbol.text)
                    found.append((name, number, at + last, 0 if last else offset + 1, begun))
            elif isinstance(symbol, Class) and _holds(symbol, read):
                found.append((name, number, at + 1, 0, begun))
        return found

    def _names(self, node: Token, token: int) -> bool:
        name = node.name
        meant = int(name[1:-1]) if name.startswith("[") else self.vocabulary.token(f"<{name}>")
        return (meant == token) != node.negated

    def _close(self, items: list[Item]) -> None:
        """The next set: ``items``, the rules that they call, and the callers of those that are whole."""
        here, rules = len(self.sets), self.grammar.rules
        found: dict[Item, None] = dict.fromkeys(items)
        waiting: dict[str, list[Item]] = {}
        empty: set[str] = set()
        self.sets.append(found)
        self.waiting.append(waiting)
        pending = list(found)
        while pending:
            item = pending.pop()
            self.work.spend(1)
            name, number, at, _, begun = item
            symbols = rules[name][number]
            if at == len(symbols):
                if begun == here:
                    empty.add(name)
                fresh = [(a, b, c + 1, 0, e) for a, b, c, _, e in self.waiting[begun].get(name, ())]
            elif isinstance(symbol := symbols[at], str):
                waiting.setdefault(symbol, []).append(item)
                fresh = [(symbol, option, 0, 0, here) for option in range(len(rules[symbol]))]
                if symbol in empty:
                    fresh.append((name, number, at + 1, 0, begun))
            else:
                continue
            for one in fresh:
                if one not in found:
                    found[one] = None
                    pending.append(one)


def compiled(closed: Closed, vocabulary: Vocabulary) -> Any:
    """A recogniser at the start of ``closed``.

    Raises:
        GrammarError: a token that the grammar names is not in the vocabulary.
    """
    return Recogniser(Productions(closed), vocabulary)


def _holds(node: Class, char: str) -> bool:
    return any(low <= ord(char) <= high for low, high in node.ranges) != node.negated


def _completion(rest: bytes) -> bytes:
    """What makes ``rest``, the beginning of a character, a whole one, if anything does."""
    if not rest:
        return b""
    size = 2 if rest[0] < 0xE0 else 3 if rest[0] < 0xF0 else 4
    # the byte after the first must neither make it overlong nor a surrogate nor too large
    second = {0xE0: b"\xa0", 0xF0: b"\x90"}.get(rest[0], b"\x80")
    return (second + b"\x80\x80")[len(rest) - 1 : size - 1]
