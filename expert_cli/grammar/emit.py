"""Print a closed grammar for the engines: llguidance's Lark, and flat GBNF for llama.cpp and everything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from expert_cli.grammar.bind import Closed
from expert_cli.grammar.divide import divide
from expert_cli.grammar.lexemes import Division, Part, Terminal, parts
from expert_cli.grammar.nodes import Choice, Class, Literal, Node, Reference, Repeat, Sequence, Token
from expert_cli.grammar.tokens import Vocabulary

MOST_EMITTED = 20_000  # rules kept printed
MANY = 8  # names or values that may stand in one place, from which on they are one lexeme
DEEPEST = 40  # beginnings inside beginnings that are written once
NAMES: Mapping[str, int] = {}  # of literals that a binding gives

Piece = str | Reference


class How(NamedTuple):
    """``token`` gives the id of a token that a grammar names; ``kinds`` are the literals of a template by number.

    A lexer follows each of its lexemes byte by byte. Literals that are always alternatives of each other are one.
    """

    token: Callable[[str], int]
    kinds: Mapping[str, int]


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
        pieces = _emitted(rule.node, division, vocabulary, NAMES if rule.bound else closed.kinds)
        text = "".join([piece if isinstance(piece, str) else _rule(names[piece.name]) for piece in pieces])
        lines.append(f"{_rule(rule.name)}: {text}")
    return "\n".join(lines) + "\n"


def _emitted(node: Node, division: Division, vocabulary: Vocabulary, kinds: Mapping[str, int]) -> tuple[Piece, ...]:
    """The text of ``node`` between its references; template rules are printed once per vocabulary."""
    key = (id(node), id(division), id(kinds))
    known = vocabulary.emitted.get(key)
    if known is None:
        pieces: list[Piece] = []
        for piece in _pieces(parts(node, division), How(vocabulary.token, kinds)):
            if isinstance(piece, str) and pieces and isinstance(last := pieces[-1], str):
                pieces[-1] = last + piece
            else:
                pieces.append(piece)
        if len(vocabulary.emitted) > MOST_EMITTED:
            vocabulary.emitted.clear()
        # they are kept, so that their ids stay theirs
        known = vocabulary.emitted[key] = (tuple(pieces), node, division, kinds)
    found: tuple[Piece, ...] = known[0]
    return found


@lru_cache(maxsize=8192)
def _rule(name: str) -> str:
    """A Lark rule name: ``-`` and capitals are spelled so that two names never meet."""
    spelled = "".join("__" if char == "-" else "_" + char.lower() if char.isupper() else char for char in name)
    return "r" + spelled


def _pieces(part: Part, how: How) -> Iterable[Piece]:
    match part:
        case Literal(text):
            yield _text(text)
        case Token():
            yield _tokens((part,), how)
        case Reference():
            yield part
        case Terminal(node):
            yield f"/{_regex(node)}/"
        case ("alt", options, _, _):
            yield "("
            yield from _options(options, how)
            yield ")"
        case ("rep", (item,), low, high):
            yield "("
            yield from _pieces(item, how)
            yield ")" + _quantifier(low, high)
        case (_, items, _, _):
            for index, item in enumerate(items):
                yield " " if index else ""
                yield from _pieces(item, how)


def _options(options: tuple[Part, ...], how: How) -> Iterable[Piece]:
    """Alternatives; those that are one token each become one set of tokens, and literals of one kind one lexeme."""
    named = tuple(option for option in options if isinstance(option, Token) and not option.negated)
    texts: dict[int, list[str]] = {}
    rest: list[Part] = []
    for option in options:
        if isinstance(option, Literal) and option.text:
            texts.setdefault(how.kinds.get(option.text, -1), []).append(option.text)
        elif option not in named:
            rest.append(option)
    yield " | ".join(
        [
            *([_tokens(named, how)] if named else []),
            *(one for group in texts.values() for one in _lexemes(group, 2 if how.kinds else MANY)),
        ]
    )
    for index, option in enumerate(rest):
        yield " | " if index or named or texts else ""
        yield from _pieces(option, how)


def _lexemes(texts: Iterable[str], least: int) -> list[str]:
    """``texts`` as one lexeme, or as one each where they are fewer than ``least``."""
    different = sorted(set(texts))
    return [f"/{_shared(different)}/"] if len(different) >= least else [_text(text) for text in different]


def _shared(texts: Iterable[str], depth: int = 0) -> str:
    """A regular expression of sorted ``texts``, with what several of them begin with written once."""
    found = []
    for first, group in groupby(texts, key=lambda text: text[:1]):
        same = list(group)
        if not first or len(same) == 1 or depth > DEEPEST:
            found += ["".join(map(_escaped, text)) for text in same]
            continue
        # between the first and the last of sorted texts, all begin as these two do
        pairs = zip(same[0], same[-1], strict=False)
        size = next((at for at, (one, other) in enumerate(pairs) if one != other), len(same[0]))
        rest = _shared((text[size:] for text in same), depth + 1)
        found.append("".join(map(_escaped, same[0][:size])) + rest)
    return found[0] if len(found) == 1 else "(" + "|".join(found) + ")"


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _tokens(tokens: tuple[Token, ...], how: How) -> str:
    if len(tokens) == 1 and tokens[0].negated:
        return f"<[^{_id(tokens[0], how)}]>"
    return "<[" + ",".join(str(number) for number in sorted({_id(one, how) for one in tokens})) + "]>"


def _id(node: Token, how: How) -> int:
    return int(node.name[1:-1]) if node.name.startswith("[") else how.token(f"<{node.name}>")


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
