"""Small automata over code points, for asking how one terminal of a grammar runs into another.

A matcher's lexer is greedy and looks one byte ahead: where a text that one terminal accepts can go on inside another
terminal, the byte that decides must not also begin what may follow the first. ``extensions`` gives those bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from expert_cli.grammar.nodes import Choice, Class, Literal, Node, Repeat, Sequence, Token

LAST = 0x10FFFF
TOKEN_BIT = 1 << 256  # what a special token begins with; no byte does
MOST_POSITIONS = 400  # of a terminal; larger ones are not made
MOST_STATES = 2000  # pairs of state sets to visit; beyond that every byte counts as an extension
MOST_STEPS = 50_000  # of those pairs, each by one range of characters; likewise
EVERY_BYTE = (1 << 256) - 1

Span = tuple[int, int]


def spans(node: Class) -> tuple[Span, ...]:
    """The code points of a class as sorted, disjoint ranges."""
    merged: list[Span] = []
    for low, high in sorted(node.ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    if not node.negated:
        return tuple(merged)
    gaps = zip([-1, *(high for _, high in merged)], [*(low for low, _ in merged), LAST + 1], strict=True)
    return tuple((before + 1, after - 1) for before, after in gaps if before + 1 < after)


@lru_cache(maxsize=4096)
def lead_bytes(low: int, high: int) -> int:
    """A bit for each first UTF-8 byte of the code points from ``low`` to ``high``."""
    bits = 0
    for start, stop, shift, base in (
        (0, 0x7F, 0, 0),
        (0x80, 0x7FF, 6, 0xC0),
        (0x800, 0xFFFF, 12, 0xE0),
        (0x10000, LAST, 18, 0xF0),
    ):
        first, last = max(low, start), min(high, stop)
        if first <= last:
            bits |= (1 << (base + (last >> shift) + 1)) - (1 << (base + (first >> shift)))
    return bits


def leads(ranges: tuple[Span, ...]) -> int:
    """A bit for each first UTF-8 byte of the code points in ``ranges``."""
    bits = 0
    for low, high in ranges:
        bits |= lead_bytes(low, high)
    return bits


@dataclass(frozen=True, eq=False)
class Automaton:
    """A Glushkov automaton: ``chars[p]`` are the code points of position ``p``, ``after[p]`` the positions that follow.

    Position 0 is the start.
    """

    chars: tuple[tuple[Span, ...], ...]
    after: tuple[frozenset[int], ...]
    final: frozenset[int]

    def step(self, states: frozenset[int], point: int) -> frozenset[int]:
        """The positions reached from ``states`` by one code point."""
        following = {target for state in states for target in self.after[state]}
        return frozenset(p for p in following if any(low <= point <= high for low, high in self.chars[p]))

    def accepts(self, states: frozenset[int]) -> bool:
        return bool(states & self.final)

    def matches(self, text: str) -> bool:
        """Whether all of ``text`` is accepted."""
        states = frozenset((0,))
        for char in text:
            states = self.step(states, ord(char))
        return self.accepts(states)

    def first_bytes(self) -> int:
        """A bit for each byte that a text begins with."""
        return self._leads(frozenset((0,)))

    def goes_on(self, text: str) -> int:
        """A bit for each byte that may follow where ``text`` begins a longer text."""
        states = frozenset((0,))
        for char in text:
            states = self.step(states, ord(char))
        return self._leads(states)

    def ends_in(self, text: str, after: int) -> int:
        """Where in ``text`` a whole text ends although the next character's byte is in ``after``, or 0."""
        states = frozenset((0,))
        for at, char in enumerate(text):
            if at and self.accepts(states) and after & lead_bytes(ord(char), ord(char)):
                return at
            states = self.step(states, ord(char))
            if not states:
                return 0
        return 0

    def _leads(self, states: frozenset[int]) -> int:
        bits = 0
        for position in {target for state in states for target in self.after[state]}:
            bits |= leads(self.chars[position])
        return bits


class TooLarge(Exception):
    """A terminal with more positions than :data:`MOST_POSITIONS`."""


class _Positions:
    def __init__(self) -> None:
        self.chars: list[tuple[Span, ...]] = [()]
        self.after: list[set[int]] = [set()]

    def add(self, ranges: tuple[Span, ...]) -> frozenset[int]:
        if len(self.chars) > MOST_POSITIONS:
            raise TooLarge
        self.chars.append(ranges)
        self.after.append(set())
        return frozenset((len(self.chars) - 1,))

    def link(self, lasts: frozenset[int], firsts: frozenset[int]) -> None:
        for last in lasts:
            self.after[last] |= firsts

    def build(self, node: Node) -> tuple[frozenset[int], frozenset[int], bool]:
        """First positions, last positions, and whether the empty text matches."""
        match node:
            case Literal(text):
                return self.chain([((ord(char), ord(char)),) for char in text])
            case Class():
                one = self.add(spans(node))
                return one, one, False
            case Sequence(items):
                return self.sequence([self.build(item) for item in items])
            case Choice(options):
                parts = [self.build(option) for option in options]
                firsts = frozenset[int]().union(*(part[0] for part in parts))
                lasts = frozenset[int]().union(*(part[1] for part in parts))
                return firsts, lasts, any(part[2] for part in parts)
            case Repeat(item, low, high):
                return self.repeat(item, low, high)
            case _:
                raise TypeError("a reference or token is no part of a terminal")

    def chain(self, ranges: list[tuple[Span, ...]]) -> tuple[frozenset[int], frozenset[int], bool]:
        return self.sequence([(one, one, False) for one in map(self.add, ranges)])

    def sequence(
        self, parts: list[tuple[frozenset[int], frozenset[int], bool]]
    ) -> tuple[frozenset[int], frozenset[int], bool]:
        firsts, lasts, empty = frozenset[int](), frozenset[int](), True
        for first, last, nothing in parts:
            self.link(lasts, first)
            firsts = firsts | first if empty else firsts
            lasts = lasts | last if nothing else last
            empty = empty and nothing
        return firsts, lasts, empty

    def repeat(self, item: Node, low: int, high: int | None) -> tuple[frozenset[int], frozenset[int], bool]:
        parts = [self.build(item) for _ in range(max(low, 1 if high is None else high))]
        if high is None:
            self.link(parts[-1][1], parts[-1][0])
            if low == 0:
                parts[-1] = (*parts[-1][:2], True)
        else:
            parts = [(first, last, nothing or n >= low) for n, (first, last, nothing) in enumerate(parts)]
        return self.sequence(parts)


@lru_cache(maxsize=512)
def automaton(node: Node) -> Automaton:
    """The automaton of a node without references.

    Raises:
        TooLarge: it has too many positions.
    """
    positions = _Positions()
    firsts, lasts, empty = positions.build(node)
    positions.after[0] |= firsts
    final = lasts | {0} if empty else lasts
    return Automaton(tuple(positions.chars), tuple(frozenset(after) for after in positions.after), final)


@lru_cache(maxsize=4096)
def extensions(one: Node, other: Node) -> int:
    """A bit for each byte ``b`` such that some text of ``one`` followed by ``b`` begins a longer text of ``other``."""
    found = 0
    for ended, _, leading in _side_by_side(one, other):
        if ended:
            found |= leading
    return found


@lru_cache(maxsize=4096)
def meet(one: Node, other: Node) -> bool:
    """Whether some text belongs to both."""
    return any(ended and other_ended for ended, other_ended, _ in _side_by_side(one, other))


def effort(one: Node, other: Node) -> int:
    """Steps that :func:`extensions` and :func:`meet` take for two nodes, at most; 1 for literals and tokens."""
    if isinstance(one, Literal | Token) or isinstance(other, Literal | Token):
        return 1
    left, right = len(automaton(one).chars), len(automaton(other).chars)
    return min(left * right * (left + right), MOST_STEPS)


def _side_by_side(one: Node, other: Node) -> Iterator[tuple[bool, bool, int]]:
    """For the texts that begin texts of both: whether each is whole, and the bytes that go on in ``other``."""
    left, right = automaton(one), automaton(other)
    classes = list(_classes(left, right))
    start = frozenset((0,))
    seen = {(start, start)}
    pending = [(start, start)]
    steps = 0
    while pending:
        states, others = pending.pop()
        leading = 0
        for low, high in classes:
            target = right.step(others, low)
            if target:
                leading |= lead_bytes(low, high)
                pair = (left.step(states, low), target)
                if pair[0] and pair not in seen:
                    seen.add(pair)
                    pending.append(pair)
        steps += len(classes)
        if len(seen) > MOST_STATES or steps > MOST_STEPS:
            yield True, True, EVERY_BYTE
            return
        yield left.accepts(states) and states != start, right.accepts(others), leading


def _classes(*automata: Automaton) -> Iterator[Span]:
    """Ranges of code points that none of ``automata`` tells apart."""
    ranges = {span for one in automata for chars in one.chars for span in chars}
    cuts = sorted({0, LAST + 1} | {low for low, _ in ranges} | {high + 1 for _, high in ranges})
    for low, after in pairwise(cuts):
        yield low, after - 1
