"""Mark the terminals of a grammar: which parts of a rule a lexer reads at once.

Literals are terminals as written, and so are stretches of character classes that no reference interrupts, unless a
:class:`Division` says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from expert_cli.grammar.automaton import TooLarge, automaton
from expert_cli.grammar.nodes import Choice, Class, Kept, Literal, Node, Reference, Repeat, Sequence, Token, children


@dataclass(frozen=True)
class Terminal:
    """A node that is read as one lexeme by its regular expression."""

    node: Node


@dataclass(frozen=True)
class Division:
    """Which literals are cut, and where, and which stretches are not read as one lexeme."""

    cuts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    open_: frozenset[Node] = frozenset()


WHOLE = Division()
"""Nothing is divided."""

Part = Literal | Token | Reference | Terminal | tuple[str, tuple["Part", ...], int, int | None]
"""A node with its terminals marked; composites are ``(kind, parts, low, high)``, kind ``seq``, ``alt`` or ``rep``."""


def parts(node: Node, division: Division) -> Part:
    """``node`` with its terminals marked."""
    return _whole_parts(node) if division is WHOLE else _parts(node, division)


def _parts(node: Node, division: Division) -> Part:
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
            return ("rep", (_parts(item, division),), low, high)
        case Choice(options):
            return ("alt", tuple(_parts(option, division) for option in options), 1, 1)
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
            yield from (_parts(part, division) for part in run)
        run = []
        if item is not None:
            yield _parts(item, division)


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


_whole_parts = Kept(lambda node: _parts(node, WHOLE))
