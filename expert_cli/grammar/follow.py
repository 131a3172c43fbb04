"""Which terminals of a marked grammar may follow which, and which may begin at the same place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from expert_cli.grammar.automaton import TOKEN_BIT, automaton, effort, lead_bytes, leads, meet, spans
from expert_cli.grammar.bounds import Work
from expert_cli.grammar.lexemes import Part, Terminal
from expert_cli.grammar.nodes import Class, Literal, Node, Reference, Token
from expert_cli.grammar.shape import KINDS

TOKEN = Token("")  # stands for every token: tokens never run into each other

Body = tuple[str, Part, Mapping[str, str]]
"""A rule's name, its marked right-hand side, and what its references are called."""


class Follow:
    """The terminals of a grammar, numbered, and for each the set (as bits) of those that may come ``next``.

    Repetitions count as unlimited and rules of one name as alternatives: what is found is never too little.
    """

    def __init__(self, bodies: Iterable[Body], root: str, work: Work) -> None:
        self._work = work
        self.terminals: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self._names: dict[str, int] = {}
        self._productions: list[tuple[int, tuple[int, ...]]] = []
        self._symbols = 0
        start = self._rule(root)
        for name, part, names in bodies:
            rule = self._rule(name)
            if isinstance(part, tuple) and part[0] == "alt":
                for option in part[1]:
                    self._productions.append((rule, tuple(self._flat(option, names))))
            else:
                self._productions.append((rule, tuple(self._flat(part, names))))
        self._first = [0] * self._symbols
        self._empty = [False] * self._symbols
        self._spread_first()
        self.start = self._first[start]
        self.next = self._spread_next()

    def rivals(self) -> list[int]:
        """For each terminal those that may begin where it begins, as bits.

        Rivals that match the same text go on together, so what follows one may be a rival of what follows the other.
        """
        groups = list(range(len(self.terminals)))
        while True:
            together: dict[int, int] = {}
            for number, group in enumerate(groups):
                together[group] = together.get(group, 0) | self.next[number]
            rivals = [0] * len(self.terminals)
            for active in {self.start, *together.values()}:
                self._work.spend(active.bit_count())
                for number in bits_of(active):
                    rivals[number] |= active
            joined = self._joined(groups, rivals)
            if joined == groups:
                return rivals
            groups = joined

    def _joined(self, groups: list[int], rivals: list[int]) -> list[int]:
        """``groups`` with those joined whose members are rivals and match a common text."""
        groups = list(groups)
        for number, node in enumerate(self.terminals):
            if isinstance(node, Literal | Token):
                continue
            for other in bits_of(rivals[number]):
                self._work.spend(1)
                if groups[other] == groups[number]:
                    continue
                self._work.spend(effort(node, self.terminals[other]))
                if _overlap(node, self.terminals[other]):
                    old, new = groups[other], groups[number]
                    groups = [new if group == old else group for group in groups]
        return groups

    def first_bytes(self, bits: int) -> int:
        """A bit for each byte that a terminal in ``bits`` begins with."""
        found = 0
        for number in bits_of(bits):
            found |= _first_bytes(self.terminals[number])
        return found

    def _rule(self, name: str) -> int:
        if name not in self._names:
            self._names[name] = self._symbol()
        return self._names[name]

    def _symbol(self) -> int:
        self._symbols += 1
        return self._symbols - 1

    def _terminal(self, node: Node) -> int:
        number = self._numbers.get(node)
        if number is None:
            number = self._numbers[node] = len(self.terminals)
            self.terminals.append(node)
        return ~number

    def _flat(self, part: Part, names: Mapping[str, str]) -> Iterator[int]:
        """``part`` as symbols: rules from 0 up, terminals from -1 down; choices and repetitions become rules."""
        match part:
            case Literal(""):
                return
            case Literal():
                yield self._terminal(part)
            case Terminal(node):
                yield self._terminal(node)
            case Token():
                yield self._terminal(KINDS.get(part, TOKEN))
            case Reference(name):
                yield self._rule(names[name])
            case ("seq", items, _, _):
                for item in items:
                    yield from self._flat(item, names)
            case ("alt", options, _, _):
                rule = self._symbol()
                self._productions += [(rule, tuple(self._flat(option, names))) for option in options]
                yield rule
            case (_, (item,), low, high):
                rule = self._symbol()
                inner = tuple(self._flat(item, names))
                self._productions.append((rule, inner if high == 1 else (*inner, rule)))
                if low == 0 or high != 1:
                    self._productions.append((rule, () if low == 0 else inner))
                yield rule

    def _spread_first(self) -> None:
        users: list[list[int]] = [[] for _ in range(self._symbols)]
        for place, (_, symbols) in enumerate(self._productions):
            for symbol in symbols:
                if symbol >= 0:
                    users[symbol].append(place)
        pending = list(range(len(self._productions)))
        while pending:
            rule, symbols = self._productions[pending.pop()]
            self._work.spend(len(symbols))
            bits, empty = self._first_of(symbols)
            if bits | self._first[rule] != self._first[rule] or (empty and not self._empty[rule]):
                self._first[rule] |= bits
                self._empty[rule] |= empty
                pending += users[rule]

    def _first_of(self, symbols: tuple[int, ...]) -> tuple[int, bool]:
        bits = 0
        for symbol in symbols:
            if symbol < 0:
                return bits | 1 << ~symbol, False
            bits |= self._first[symbol]
            if not self._empty[symbol]:
                return bits, False
        return bits, True

    def _spread_next(self) -> list[int]:
        follow = [0] * self._symbols
        following = [0] * len(self.terminals)
        inherits: list[list[int]] = [[] for _ in range(self._symbols)]
        for rule, symbols in self._productions:
            bits, last = 0, True
            for symbol in reversed(symbols):
                if symbol < 0:
                    following[~symbol] |= bits
                else:
                    follow[symbol] |= bits
                if last:
                    inherits[rule].append(symbol)
                if symbol < 0:
                    bits, last = 1 << ~symbol, False
                elif self._empty[symbol]:
                    bits |= self._first[symbol]
                else:
                    bits, last = self._first[symbol], False
        pending = list(range(self._symbols))
        while pending:
            rule = pending.pop()
            self._work.spend(len(inherits[rule]))
            for symbol in inherits[rule]:
                if symbol < 0:
                    following[~symbol] |= follow[rule]
                elif follow[rule] | follow[symbol] != follow[symbol]:
                    follow[symbol] |= follow[rule]
                    pending.append(symbol)
        return following


def bits_of(bits: int) -> Iterator[int]:
    """The numbers whose bits are set."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _first_bytes(node: Node) -> int:
    match node:
        case Literal(text):
            return lead_bytes(ord(text[0]), ord(text[0]))
        case Token():
            return TOKEN_BIT
        case Class():
            return leads(spans(node))
        case _:
            return automaton(node).first_bytes()


def _overlap(node: Node, other: Node) -> bool:
    """Whether some text is matched by both; ``node`` is neither a literal nor a token."""
    if isinstance(other, Token):
        return False
    if isinstance(other, Literal):
        return automaton(node).matches(other.text)
    return meet(node, other)
