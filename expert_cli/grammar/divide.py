"""Divide a closed grammar into terminals that a greedy lexer with one byte of lookahead reads exactly.

Where a terminal could run into a longer one although the next byte belongs to what follows it, the longer one is
divided: a literal in two, a stretch into its parts. Nothing is left to chance, so any grammar is matched exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from expert_cli.grammar.automaton import automaton, effort, extensions, lead_bytes
from expert_cli.grammar.bind import Closed
from expert_cli.grammar.bounds import Work, check_expressions
from expert_cli.grammar.follow import Body, Follow, bits_of
from expert_cli.grammar.lexemes import WHOLE, Division, parts
from expert_cli.grammar.nodes import Class, Literal, Node, Token
from expert_cli.grammar.shape import shape

MOST = 1000  # answers kept

Hazards = tuple[dict[str, int], frozenset[Node]]
"""Literals to cut, with the place, and stretches to open."""

_whole: dict[frozenset[tuple[str, int]], bool] = {}


def divide(closed: Closed) -> Division:
    """How to divide ``closed`` so that a greedy lexer reads it exactly.

    Names and literals are first looked at as any of their kind: where none at all could run into anything, nothing is
    divided, and the answer serves every grammar of the same shape. A name in capitals might be a keyword; where that
    matters such names are looked at as they are.
    """
    root, work = closed.instances[0].kind, Work()
    if _alike(closed, root, False) or _alike(closed, root, True):
        return WHOLE
    division = WHOLE
    while True:
        found = hazards([(rule.kind, parts(rule.node, division), rule.kinds) for rule in closed.instances], root, work)
        if not any(found):
            return division
        division = Division(_refined(division.cuts, found[0]), division.open_ | found[1])


def _alike(closed: Closed, root: str, capitals: bool) -> bool:
    """Whether nothing is divided in any grammar of the same shape."""
    shapes = {(rule.kind, shape(rule, capitals)[1]): rule for rule in closed.instances}
    key = frozenset(shapes)
    if key not in _whole:
        if len(_whole) > MOST:
            _whole.clear()
        bodies = [(rule.kind, parts(shape(rule, capitals)[0], WHOLE), rule.shapes) for rule in shapes.values()]
        _whole[key] = not any(hazards(bodies, root, Work()))
    return _whole[key]


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


def hazards(bodies: Iterable[Body], root: str, work: Work) -> Hazards:
    """Where a terminal of ``bodies`` runs into another one although what follows it may go on with the same byte.

    Raises:
        GrammarError: it would take more ``work`` than is left.
    """
    follow = Follow(bodies, root, work)
    terminals = follow.terminals
    check_expressions(sum(not isinstance(node, Literal | Token) for node in terminals))
    bytes_of = {bits: follow.first_bytes(bits) for bits in set(follow.next)}
    after = [bytes_of[bits] for bits in follow.next]
    rivals = follow.rivals()
    index = {node: number for number, node in enumerate(terminals)}
    cuts: dict[str, int] = {}
    open_: set[Node] = set()
    for shorter, longer in _prefixes([node.text for node in terminals if isinstance(node, Literal)]):
        one, other = index[Literal(shorter)], index[Literal(longer)]
        if rivals[one] >> other & 1 and after[one] & _lead(longer[len(shorter)]) and longer not in cuts:
            cuts[longer] = len(shorter)
    for place, node in enumerate(terminals):
        if isinstance(node, Literal | Token):
            continue
        machine = automaton(node)
        begins = machine.first_bytes()
        for other in bits_of(rivals[place]):
            rival = terminals[other]
            work.spend(1)
            if isinstance(rival, Literal):
                if not begins & _lead(rival.text[0]):
                    continue
                if rival.text not in cuts and (at := machine.ends_in(rival.text, after[place])):
                    cuts[rival.text] = at
                if not isinstance(node, Class) and machine.goes_on(rival.text) & after[other]:
                    open_.add(node)
            elif not isinstance(rival, Token | Class):
                work.spend(effort(node, rival))
                if extensions(node, rival) & after[place]:
                    open_.add(rival)
    return cuts, frozenset(open_)


def _prefixes(texts: list[str]) -> Iterable[tuple[str, str]]:
    """Pairs of which the first is a proper beginning of the second."""
    open_: list[str] = []
    for text in sorted(texts):
        while open_ and not text.startswith(open_[-1]):
            open_.pop()
        yield from ((shorter, text) for shorter in open_)
        open_.append(text)


def _lead(char: str) -> int:
    return lead_bytes(ord(char), ord(char))
