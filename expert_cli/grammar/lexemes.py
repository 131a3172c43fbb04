"""Divide a closed grammar into terminals that a greedy lexer with one byte of lookahead reads exactly.

Literals are terminals as written, and so are stretches of character classes that no reference interrupts. Where a
terminal could run into a longer one although the next byte belongs to what follows it, the longer one is divided:
a literal in two, a stretch into its parts. Nothing is left to chance, so any grammar is matched exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count

from expert_cli.grammar.automaton import TOKEN_BIT, TooLarge, automaton, extensions, lead_bytes, leads, spans
from expert_cli.grammar.bind import SCOPED, Closed
from expert_cli.grammar.nodes import Choice, Class, Literal, Node, Reference, Repeat, Sequence, Token, children


@dataclass(frozen=True)
class Terminal:
    """A node that is read as one lexeme by its regular expression."""

    node: Node


@dataclass(frozen=True)
class Division:
    """Which literals are cut, and where, and which stretches are not read as one lexeme."""

    cuts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    open_: frozenset[Node] = frozenset()


Part = Literal | Token | Reference | Terminal | tuple[str, tuple["Part", ...], int, int | None]
"""A node with its terminals marked; composites are ``(kind, parts, low, high)``, kind ``seq``, ``alt`` or ``rep``."""


MOST_SHAPES, MOST_DIVISIONS = 50_000, 1000  # kept before they are forgotten

_divisions: dict[frozenset[tuple[str, int]], Division] = {}
_shapes: dict[Node, int] = {}
_numbers = count()
_shape_of: dict[int, tuple[Node, int]] = {}


def divide(closed: Closed) -> Division:
    """How to divide ``closed`` so that a greedy lexer reads it exactly.

    Rules that differ by scope or token alone are looked at together, and the answer is kept for the next grammar of
    the same shape.
    """
    key = frozenset((rule.kind, _shape(rule.node)) for rule in closed.instances)
    known = _divisions.get(key)
    if known is None:
        if len(_divisions) > MOST_DIVISIONS:
            _divisions.clear()
        known = _divisions[key] = _divide(closed)
    return known


def _divide(closed: Closed) -> Division:
    division = Division()
    while True:
        cuts, open_ = _Analysis(closed, division).hazards()
        if not cuts and not open_:
            return division
        division = Division(_refined(division.cuts, cuts), division.open_ | open_)


def _shape(node: Node) -> int:
    """A number for ``node`` without its tokens and scopes; equal numbers divide equally."""
    known = _shape_of.get(id(node))
    if known is None:
        if len(_shape_of) > MOST_SHAPES:
            _shape_of.clear()
            _shapes.clear()
        # the node is kept, so that its id stays its own
        known = _shape_of[id(node)] = (node, _shapes.setdefault(_erased(node), next(_numbers)))
    return known[1]


def _erased(node: Node) -> Node:
    match node:
        case Token():
            return Token("")
        case Reference(name):
            return Reference(SCOPED.sub(r"\1", name))
        case Sequence(items):
            return Sequence(tuple(_erased(item) for item in items))
        case Choice(options):
            return Choice(tuple(dict.fromkeys(_erased(option) for option in options)))
        case Repeat(item, low, high):
            return Repeat(_erased(item), low, high)
        case _:
            return node


def parts(node: Node, division: Division) -> Part:
    """``node`` with its terminals marked."""
    match node:
        case Literal(text):
            pieces = division.cuts.get(text, (text,))
            marked = tuple(Literal(piece) for piece in pieces)
            return marked[0] if len(marked) == 1 else ("seq", marked, 1, 1)
        case Class():
            return Terminal(node)
        case Token() | Reference():
            return node
        case _ if _whole(node, division):
            return Terminal(node)
        case Repeat(item, 0, high) if high != 1 and _whole(some := Repeat(item, 1, high), division):
            return ("rep", (Terminal(some),), 0, 1)
        case Repeat(item, low, high):
            return ("rep", (parts(item, division),), low, high)
        case Choice(options):
            return ("alt", tuple(parts(option, division) for option in options), 1, 1)
        case Sequence(items):
            return ("seq", tuple(_runs(items, division)), 1, 1)


def _runs(items: Iterable[Node], division: Division) -> Iterable[Part]:
    """Neighbours that can be read as one lexeme are."""
    run: list[Node] = []
    for item in (*items, None):
        if item is not None and plain(item):
            run.append(item)
            continue
        together = Sequence(tuple(run))
        if len(run) > 1 and _whole(together, division):
            yield Terminal(together)
        else:
            yield from (parts(part, division) for part in run)
        run = []
        if item is not None:
            yield parts(item, division)


def _whole(node: Node, division: Division) -> bool:
    """Whether ``node`` may be one lexeme: it has a class, no reference, and is neither empty, too large nor opened."""
    if not (plain(node) and holds_class(node)) or (division.open_ and node in division.open_):
        return False
    try:
        return not automaton(node).final & {0}
    except TooLarge:
        return False


def plain(node: Node) -> bool:
    """Whether ``node`` holds neither references nor tokens."""
    return not isinstance(node, Reference | Token) and all(plain(part) for part in children(node))


def holds_class(node: Node) -> bool:
    return isinstance(node, Class) or any(holds_class(part) for part in children(node))


def _refined(cuts: Mapping[str, tuple[str, ...]], new: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """``cuts`` with each piece in ``new`` cut at its place."""
    refined = dict(cuts)
    for text, at in new.items():
        refined.setdefault(text, (text,))
        for whole, pieces in refined.items():
            if text in pieces:
                refined[whole] = tuple(
                    part for piece in pieces for part in ((piece[:at], piece[at:]) if piece == text else (piece,))
                )
    return refined


class _Analysis:
    """What each terminal of a divided grammar may be followed by, as bits of first bytes."""

    def __init__(self, closed: Closed, division: Division) -> None:
        self.bodies: dict[str, list[tuple[Part, Mapping[str, str]]]] = {}
        shapes: set[tuple[str, int]] = set()
        for rule in closed.instances:
            shape = (rule.kind, _shape(rule.node))
            if shape not in shapes:
                shapes.add(shape)
                self.bodies.setdefault(rule.kind, []).append((parts(rule.node, division), rule.kinds))
        self.first: dict[str, tuple[int, bool]] = dict.fromkeys(self.bodies, (0, False))
        self.follow: dict[str, int] = dict.fromkeys(self.bodies, 0)
        self.terminals: dict[Literal | Class | Node, int] = {}
        self._spread_first()
        self._spread_follow()

    def _spread_first(self) -> None:
        changed = True
        while changed:
            changed = False
            for name in reversed(self.bodies):
                found = self._union([self._first(part, names) for part, names in self.bodies[name]])
                if found != self.first[name]:
                    self.first[name] = found
                    changed = True

    def _first(self, part: Part, names: Mapping[str, str]) -> tuple[int, bool]:
        match part:
            case Literal(text):
                return (lead_bytes(ord(text[0]), ord(text[0])), False) if text else (0, True)
            case Token():
                return TOKEN_BIT, False
            case Reference(name):
                return self.first[names[name]]
            case Terminal(node):
                return self._terminal_first(node), False
            case ("alt", options, _, _):
                return self._union([self._first(option, names) for option in options])
            case (_, items, low, _):
                bits, empty = 0, True
                for item in items:
                    one, nothing = self._first(item, names)
                    bits |= one
                    if not nothing:
                        empty = False
                        break
                return bits, empty or low == 0

    @staticmethod
    def _union(found: Iterable[tuple[int, bool]]) -> tuple[int, bool]:
        bits, empty = 0, False
        for one, nothing in found:
            bits |= one
            empty |= nothing
        return bits, empty

    @staticmethod
    def _terminal_first(node: Node) -> int:
        if isinstance(node, Class):
            return leads(spans(node))
        machine = automaton(node)
        bits = 0
        for position in machine.after[0]:
            bits |= leads(machine.chars[position])
        return bits

    def _spread_follow(self) -> None:
        pending = dict.fromkeys(self.bodies)
        while pending:
            name = next(iter(pending))
            del pending[name]
            for part, names in self.bodies[name]:
                self._walk(part, self.follow[name], names, pending)

    def _walk(self, part: Part, after: int, names: Mapping[str, str], pending: dict[str, None]) -> None:
        match part:
            case Reference(name):
                target = names[name]
                if after | self.follow[target] != self.follow[target]:
                    self.follow[target] |= after
                    pending[target] = None
            case Literal() | Terminal():
                node = part if isinstance(part, Literal) else part.node
                self.terminals[node] = self.terminals.get(node, 0) | after
            case Token():
                return
            case ("alt", options, _, _):
                for option in options:
                    self._walk(option, after, names, pending)
            case ("rep", (item,), _, high):
                again = 0 if high == 1 else self._first(item, names)[0]
                self._walk(item, after | again, names, pending)
            case (_, items, _, _):
                for item in reversed(items):
                    self._walk(item, after, names, pending)
                    first, empty = self._first(item, names)
                    after = first | after if empty else first

    def hazards(self) -> tuple[dict[str, int], frozenset[Node]]:
        """Literals to cut, with the place, and stretches to open."""
        literals = {node.text: after for node, after in self.terminals.items() if isinstance(node, Literal)}
        stretches = {node: after for node, after in self.terminals.items() if not isinstance(node, Literal)}
        cuts: dict[str, int] = {}
        for text in literals:
            for at in range(1, len(text)):
                if (after := literals.get(text[:at])) and after & lead_bytes(ord(text[at]), ord(text[at])):
                    cuts[text] = at
                    break
        open_: set[Node] = set()
        for node, after in stretches.items():
            first = self._terminal_first(node)
            for text, following in literals.items():
                if not first & lead_bytes(ord(text[0]), ord(text[0])):
                    continue
                if not isinstance(node, Class) and extensions(Literal(text), node) & following:
                    open_.add(node)
                at = _runs_into(node, text, after)
                if at and text not in cuts:
                    cuts[text] = at
            open_ |= {other for other in stretches if not isinstance(other, Class) and extensions(node, other) & after}
        return cuts, frozenset(open_)


def _runs_into(node: Node, text: str, after: int) -> int:
    """Where in ``text`` a match of ``node`` ends that may be followed by the next character, or 0."""
    machine = automaton(node)
    states = frozenset((0,))
    for at, char in enumerate(text):
        if at and machine.accepts(states) and after & lead_bytes(ord(char), ord(char)):
            return at
        states = machine.step(states, ord(char))
        if not states:
            return 0
    return 0
