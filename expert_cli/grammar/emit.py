"""Print a closed grammar for the engines: llguidance's Lark, and flat GBNF for llama.cpp and everything else.

llguidance reads text with a greedy lexer that looks one byte ahead. So a rule is never promoted to a terminal as a
whole; terminals are the literals as written, and the stretches of character classes that no reference interrupts.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from expert_cli.grammar.bind import Closed
from expert_cli.grammar.nodes import (
    Choice,
    Class,
    Literal,
    Node,
    Reference,
    Repeat,
    Sequence,
    Token,
    children,
)

Piece = str | Reference
_REGEX_SPECIAL = set("\\/[](){}.*+?|^$-&~#\"'<>=!,:; @%`_")
_pieces: dict[int, tuple[Node, tuple[Piece, ...]]] = {}


def gbnf(closed: Closed) -> str:
    """``closed`` as one flat GBNF text."""
    return str(closed.grammar())


def lark(closed: Closed, token: Callable[[str], int]) -> str:
    """``closed`` for llguidance; ``token`` gives the id of a token that the grammar names.

    Raises:
        GrammarError: the tokenizer lacks a token that the grammar names.
    """
    lines = ["%llguidance {}"]
    for index, rule in enumerate(closed.instances):
        parts = [part if isinstance(part, str) else _rule(rule.names[part.name]) for part in _cached(rule.node, token)]
        lines.append(("start" if index == 0 else _rule(rule.name)) + ": " + "".join(parts))
    return "\n".join(lines) + "\n"


def _rule(name: str) -> str:
    """A Lark rule name: ``-`` and capitals are spelled so that two names never meet."""
    spelled = "".join("__" if char == "-" else "_" + char.lower() if char.isupper() else char for char in name)
    return "r" + spelled


def _cached(node: Node, token: Callable[[str], int]) -> tuple[Piece, ...]:
    return tuple(_join(_node(node, token)))


def _join(parts: list[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _node(node: Node, token: Callable[[str], int]) -> list[Piece]:
    match node:
        case Literal(text):
            return [json.dumps(text, ensure_ascii=False)]
        case Class():
            return [f"/{_regex(node)}/"]
        case Token():
            return [_tokens((node,), token)]
        case Reference():
            return [node]
        case Sequence(items):
            return _sequence(items, token)
        case Choice(options):
            return _choice(options, token)
        case Repeat(item, low, high):
            if _regular(node):
                return [f"/{_regex(node)}/"]
            return ["(", *_node(item, token), ")" + _quantifier(low, high)]


def _sequence(items: tuple[Node, ...], token: Callable[[str], int]) -> list[Piece]:
    """Neighbours without references become one terminal where a character class is among them."""
    parts: list[Piece] = []
    run: list[Node] = []
    for item in (*items, None):
        if item is not None and _plain(item):
            run.append(item)
            continue
        if any(_regular(part) for part in run):
            parts += [" /" + "".join(_regex(part) for part in run) + "/"]
        else:
            parts += [piece for part in run for piece in (" ", *_grouped(part, token))]
        run = []
        if item is not None:
            parts += [" ", *_grouped(item, token)]
    return parts


def _choice(options: tuple[Node, ...], token: Callable[[str], int]) -> list[Piece]:
    if all(_plain(option) for option in options) and any(_regular(option) for option in options):
        return ["/" + "|".join(_regex(option) for option in options) + "/"]
    named = tuple(option for option in options if isinstance(option, Token) and not option.negated)
    parts: list[Piece] = [_tokens(named, token)] if named else []
    for option in options:
        if not (isinstance(option, Token) and not option.negated):
            parts += [" | " if parts else "", *_node(option, token)]
    return parts


def _grouped(node: Node, token: Callable[[str], int]) -> list[Piece]:
    return ["(", *_node(node, token), ")"] if isinstance(node, Choice) else _node(node, token)


def _plain(node: Node) -> bool:
    """Whether ``node`` holds neither references nor tokens."""
    return not isinstance(node, Reference | Token) and all(_plain(part) for part in children(node))


def _regular(node: Node) -> bool:
    """Whether ``node`` is plain and holds a character class."""
    return _plain(node) and _holds_class(node)


def _holds_class(node: Node) -> bool:
    return isinstance(node, Class) or any(_holds_class(part) for part in children(node))


def _tokens(tokens: tuple[Token, ...], token: Callable[[str], int]) -> str:
    if len(tokens) == 1 and tokens[0].negated:
        return f"<[^{_id(tokens[0], token)}]>"
    return "<[" + ",".join(str(number) for number in sorted({_id(one, token) for one in tokens})) + "]>"


def _id(node: Token, token: Callable[[str], int]) -> int:
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
