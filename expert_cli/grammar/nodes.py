"""The syntax tree of a GBNF grammar, and its printed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

Answer = TypeVar("Answer")

ESCAPES = {"\t": "\\t", "\r": "\\r", "\n": "\\n", "\\": "\\\\"}


@dataclass(frozen=True, slots=True)
class Literal:
    """Text as it stands, for example ``"SELECT "``; empty text is the empty sequence."""

    text: str


@dataclass(frozen=True, slots=True)
class Class:
    """One code point inside (or, negated, outside) ``ranges``; ``.`` is the negation of no range."""

    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """One token of the vocabulary, by its text (``<c7>``) or its id (``<[1000]>``); negated: any other token."""

    name: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """A rule, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    """Items one after the other."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several alternatives."""

    options: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """``item`` at least ``low`` times and at most ``high``; ``high`` None is without limit."""

    item: Node
    low: int
    high: int | None


Node = Literal | Class | Token | Reference | Sequence | Choice | Repeat

ANY = Class((), negated=True)
EMPTY = Literal("")


@dataclass(frozen=True)
class Grammar:
    """Rules by name, ``root`` among them, and the hooks that a template leaves open, with their descriptions."""

    rules: Mapping[str, Node]
    hooks: Mapping[str, str]

    def __str__(self) -> str:
        comments = [f"# hook: {name} {text}".rstrip() for name, text in self.hooks.items()]
        return "\n".join(comments + [f"{name} ::= {write(node)}" for name, node in self.rules.items()]) + "\n"


def children(node: Node) -> tuple[Node, ...]:
    """The parts of ``node``, one level down."""
    match node:
        case Sequence(items):
            return items
        case Choice(options):
            return options
        case Repeat(item, _, _):
            return (item,)
        case _:
            return ()


class Kept(Generic[Answer]):
    """Answers about nodes, kept by identity: the same nodes come again in grammar after grammar."""

    def __init__(self, ask: Callable[[Node], Answer], most: int = 50_000) -> None:
        self.ask = ask
        self.most = most
        self.known: dict[int, tuple[Node, Answer]] = {}

    def __call__(self, node: Node) -> Answer:
        found = self.known.get(id(node))
        if found is None:
            if len(self.known) >= self.most:
                self.known.clear()
            # the node is kept as well, so that its id stays its own
            found = self.known[id(node)] = (node, self.ask(node))
        return found[1]


def _references(node: Node) -> tuple[str, ...]:
    found: dict[str, None] = {}
    pending = [node]
    while pending:
        part = pending.pop()
        if isinstance(part, Reference):
            found[part.name] = None
        pending.extend(reversed(children(part)))
    return tuple(found)


references = Kept(_references)
"""Names of the rules that a node mentions, each once, in order."""


def closure(rules: Mapping[str, Node], holds: Callable[[Node, set[str]], bool], start: Iterable[str] = ()) -> set[str]:
    """The least set of names that includes ``start`` and every rule whose node ``holds`` given the set.

    ``holds`` must stay true as the set grows. Each rule is asked once, and again when a name that it mentions joins.
    """
    found = set(start)
    users: dict[str, list[str]] = {}
    for name, node in rules.items():
        for used in references(node):
            users.setdefault(used, []).append(name)
    pending = list(rules)
    while pending:
        name = pending.pop()
        if name not in found and holds(rules[name], found):
            found.add(name)
            pending.extend(users.get(name, ()))
    return found


def mentions(node: Node, names: set[str]) -> bool:
    """Whether ``node`` refers to a rule in ``names``."""
    return any(name in names for name in references(node))


def rename(node: Node, names: Mapping[str, str]) -> Node:
    """``node`` with its references renamed; names that are not in ``names`` stay."""
    match node:
        case Reference(name):
            return Reference(names.get(name, name))
        case Sequence(items):
            return Sequence(tuple(rename(item, names) for item in items))
        case Choice(options):
            return Choice(tuple(rename(option, names) for option in options))
        case Repeat(item, low, high):
            return Repeat(rename(item, names), low, high)
        case _:
            return node


def without(node: Node, gone: set[str]) -> Node | None:
    """``node`` without the alternatives that need a rule in ``gone``; None where nothing is left."""
    match node:
        case Reference(name):
            return None if name in gone else node
        case Sequence(items):
            kept = [without(item, gone) for item in items]
            return None if None in kept else Sequence(tuple(part for part in kept if part is not None))
        case Choice(options):
            left = tuple(part for option in options if (part := without(option, gone)) is not None)
            return (left[0] if len(left) == 1 else Choice(left)) if left else None
        case Repeat(item, low, high):
            part = without(item, gone)
            if part is None:
                return EMPTY if low == 0 else None
            return Repeat(part, low, high)
        case _:
            return node


def write(node: Node) -> str:
    """``node`` as GBNF text that parses to an equal tree."""
    match node:
        case Literal(text):
            return '"' + "".join(_character(char, '"') for char in text) + '"'
        case Class((), True):
            return "."
        case Class(ranges, negated):
            return "[" + "^" * negated + "".join(_range(low, high) for low, high in ranges) + "]"
        case Token(name, negated):
            return "!" * negated + f"<{name}>"
        case Reference(name):
            return name
        case Sequence(items):
            return " ".join(_grouped(item, (Sequence, Choice)) for item in items)
        case Choice(options):
            return " | ".join(_grouped(option, (Choice,)) for option in options)
        case Repeat(item, low, high):
            return _grouped(item, (Sequence, Choice, Repeat)) + _quantifier(low, high)


def _grouped(node: Node, kinds: tuple[type, ...]) -> str:
    return f"({write(node)})" if isinstance(node, kinds) else write(node)


def _quantifier(low: int, high: int | None) -> str:
    named = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high))
    if named is not None:
        return named
    if high is None:
        return f"{{{low},}}"
    return f"{{{low}}}" if low == high else f"{{{low},{high}}}"


def _range(low: int, high: int) -> str:
    first = _character(chr(low), "[]^-")
    return first if low == high else f"{first}-{_character(chr(high), '[]^-')}"


def _character(char: str, special: str) -> str:
    if char in ESCAPES:
        return ESCAPES[char]
    if char in special:
        return "\\x5E" if char == "^" else "\\" + char
    point = ord(char)
    if 0x20 <= point < 0x7F or (point >= 0xA0 and char.isprintable()):
        return char
    if point <= 0xFF:
        return f"\\x{point:02X}"
    return f"\\u{point:04X}" if point <= 0xFFFF else f"\\U{point:08X}"
