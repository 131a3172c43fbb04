"""The shape of a rule: what is left of it once scopes, tokens, names and literals are taken for any of their kind.

Grammars that a binding makes for one question after another differ in names alone. Rules of one shape are divided into
terminals in the same way, so one analysis serves them all.
"""

from __future__ import annotations

import re

from expert_cli.grammar.bind import SCOPED, Instance
from expert_cli.grammar.nodes import Choice, Class, Kept, Literal, Node, Reference, Repeat, Sequence, Token

_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A), (0x80, 0x10FFFF))
_DIGITS = Repeat(Class(((0x30, 0x39),)), 1, None)


def _quoted(mark: str) -> Node:
    inside = Choice((Class(((ord(mark), ord(mark)),), negated=True), Literal(mark * 2)))
    return Sequence((Literal(mark), Repeat(inside, 0, None), Literal(mark)))


_CAPITAL = Class(((0x41, 0x5A),))
_PLAIN = (  # not all capitals, as keywords are
    Sequence((Repeat(_CAPITAL, 1, None), Class((*_WORD[:1], *_WORD[2:])), Repeat(Class(_WORD), 0, None))),
    Sequence((Class(_WORD[2:]), Repeat(Class(_WORD), 0, None))),
)
_MIXED: Node = Choice((*_PLAIN, _quoted('"'), _quoted("`")))
_NAME: Node = Choice((Sequence((Class(_WORD[1:]), Repeat(Class(_WORD), 0, None))), _quoted('"'), _quoted("`")))
_QUALIFIED: Node = Sequence((_NAME, Literal("."), Choice((_NAME, Literal("*")))))
_NUMBER: Node = Sequence((_DIGITS, Repeat(Sequence((Literal("."), _DIGITS)), 0, 1)))

_IDENTIFIER = r"(?:[^\W\d]\w*|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`)"
CAPITALS = Token("any capitals")
KINDS: dict[Token, Node] = {
    CAPITALS: Repeat(_CAPITAL, 1, None),
    Token("any name"): _MIXED,
    Token("any column"): _QUALIFIED,
    Token("any text"): _quoted("'"),
    Token("any number"): _NUMBER,
    Token("any beginning"): Literal("WITH"),
}
"""What stands for a name, or a literal, in a shape, and the terminal that includes all of them."""
_PATTERNS = (
    re.compile(r"[A-Z]+"),
    re.compile(_IDENTIFIER),
    re.compile(rf"{_IDENTIFIER}\.(?:{_IDENTIFIER}|\*)"),
    re.compile(r"'(?:[^']|'')*'"),
    re.compile(r"\d+(?:\.\d+)?"),
    re.compile(r"WITH .{20,}|SELECT .+", re.DOTALL),  # what is written so far: nothing else begins where it does
)

_numbers: dict[Node, int] = {}


def shape(rule: Instance, capitals: bool = False) -> tuple[Node, int]:
    """The shape of ``rule`` and its number: equal numbers are equal shapes. With ``capitals``, names that may be taken
    for keywords are kept.
    """
    return (_numbered if not rule.bound else _near if capitals else _bound)(rule.node)


def _number(node: Node) -> tuple[Node, int]:
    return node, _numbers.setdefault(node, len(_numbers))


_numbered = Kept(_number)
_bound = Kept(lambda node: _number(_erased(node, False)))
_near = Kept(lambda node: _number(_erased(node, True)))


def _erased(node: Node, capitals: bool) -> Node:
    match node:
        case Literal(text):
            known = zip(KINDS, _PATTERNS, strict=True)
            kind = next((kind for kind, pattern in known if pattern.fullmatch(text)), node)
            return node if capitals and kind == CAPITALS else kind
        case Token():
            return Token("")
        case Reference(name):
            return Reference(SCOPED.sub(r"\1", name))
        case Sequence(items):
            return Sequence(tuple(_erased(item, capitals) for item in items))
        case Choice(options):
            kinds = dict.fromkeys(_erased(option, capitals) for option in options)
            # what may be in any order is in one order
            return Choice(tuple(sorted(kinds, key=lambda one: one.name if isinstance(one, Token) else "~")))
        case Repeat(item, low, high):
            return Repeat(_erased(item, capitals), low, high)
        case _:
            return node
