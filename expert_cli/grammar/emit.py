"""Print a closed grammar for the engines: llguidance's Lark, and flat GBNF for llama.cpp and everything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import lru_cache

from expert_cli.grammar.bind import Closed
from expert_cli.grammar.divide import divide
from expert_cli.grammar.lexemes import Division, Part, Terminal, parts
from expert_cli.grammar.nodes import Choice, Class, Literal, Node, Reference, Repeat, Sequence, Token
from expert_cli.grammar.tokens import Vocabulary

MOST_EMITTED = 20_000  # rules kept printed

Piece = str | Reference
Tokens = Callable[[str], int]
"""Gives the id of a token that a grammar names."""


def gbnf(closed: Closed) -> str:
    """``closed`` as one flat GBNF text."""
    return str(closed.grammar())


def lark(closed: Closed, vocabulary: Vocabulary) -> str:
    """``closed`` for llguidance.

    Raises:
        GrammarError: the vocabulary lacks a token that the grammar names.
    """
    division = divide(closed)
    # a start of its own: the root may mention itself
    lines = ["%llguidance {}", f"start: {_rule(closed.instances[0].name)}"]
    for rule in closed.instances:
        names = rule.names
        pieces = _emitted(rule.node, division, vocabulary)
        text = "".join([piece if isinstance(piece, str) else _rule(names[piece.name]) for piece in pieces])
        lines.append(f"{_rule(rule.name)}: {text}")
    return "\n".join(lines) + "\n"


def _emitted(node: Node, division: Division, vocabulary: Vocabulary) -> tuple[Piece, ...]:
    """The text of ``node`` between its references; template rules are printed once per vocabulary."""
    key = (id(node), id(division))
    known = vocabulary.emitted.get(key)
    if known is None:
        pieces: list[Piece] = []
        for piece in _pieces(parts(node, division), vocabulary.token):
            if isinstance(piece, str) and pieces and isinstance(last := pieces[-1], str):
                pieces[-1] = last + piece
            else:
                pieces.append(piece)
        if len(vocabulary.emitted) > MOST_EMITTED:
            vocabulary.emitted.clear()
        # node and division are kept, so that their ids stay theirs
        known = vocabulary.emitted[key] = (node, division, tuple(pieces))
    return known[2]


@lru_cache(maxsize=8192)
def _rule(name: str) -> str:
    """A Lark rule name: ``-`` and capitals are spelled so that two names never meet."""
    spelled = "".join("__" if char == "-" else "_" + char.lower() if char.isupper() else char for char in name)
    return "r" + spelled


def _pieces(part: Part, token: Tokens) -> Iterable[Piece]:
    match part:
        case Literal(text):
            yield json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Token():
            yield _tokens((part,), token)
        case Reference():
            yield part
        case Terminal(node):
            yield f"/{_regex(node)}/"
        case ("alt", options, _, _):
            yield "("
            yield from _options(options, token)
            yield ")"
        case ("rep", (item,), low, high):
            yield "("
            yield from _pieces(item, token)
            yield ")" + _quantifier(low, high)
        case (_, items, _, _):
            for index, item in enumerate(items):
                yield " " if index else ""
                yield from _pieces(item, token)


def _options(options: tuple[Part, ...], token: Tokens) -> Iterable[Piece]:
    """Alternatives; those that are one token each become one set of tokens."""
    named = tuple(option for option in options if isinstance(option, Token) and not option.negated)
    rest = [option for option in options if not (isinstance(option, Token) and not option.negated)]
    if named:
        yield _tokens(named, token)
    for index, option in enumerate(rest):
        yield " | " if index or named else ""
        yield from _pieces(option, token)


def _tokens(tokens: tuple[Token, ...], token: Tokens) -> str:
    if len(tokens) == 1 and tokens[0].negated:
        return f"<[^{_id(tokens[0], token)}]>"
    return "<[" + ",".join(str(number) for number in sorted({_id(one, token) for one in tokens})) + "]>"


def _id(node: Token, token: Tokens) -> int:
    return int(node.name[1:-1]) if node.name.startswith("[") else token(f"<{node.name}>")


def _quantifier(low: int, high: int | None) -> str:
    named = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((low, high))
    return named if named is not None else f"{{{low},{'' if high is None else high}}}"


def _regex(node: Node) -> str:
    match node:
        case Literal(text):
            return "".join(_escaped(char) for char in text)
        case Class((), True):
            return "(?s:.)"
        case Class(ranges, negated):
            spans = (
                _escaped(chr(low)) if low == high else f"{_escaped(chr(low))}-{_escaped(chr(high))}"
                for low, high in ranges
            )
            return "[" + "^" * negated + "".join(spans) + "]"
        case Sequence(items):
            return "".join(f"({_regex(item)})" if isinstance(item, Choice) else _regex(item) for item in items)
        case Choice(options):
            return "(" + "|".join(_regex(option) for option in options) + ")"
        case Repeat(item, low, high):
            return f"({_regex(item)}){_quantifier(low, high)}"
        case Reference() | Token():
            raise TypeError("a reference or token is no part of a regular expression")


def _escaped(char: str) -> str:
    if char.isascii() and char.isalnum():
        return char
    return f"\\x{{{ord(char):X}}}"
