"""Faults of a grammar that reads well but would crash llama.cpp, hang a matcher or never end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from expert_cli.grammar.gbnf import MOST_REPETITIONS, Fault, Source
from expert_cli.grammar.nodes import (
    EMPTY,
    Choice,
    Class,
    Literal,
    Node,
    Reference,
    Repeat,
    Sequence,
    Token,
    children,
    references,
)

LARGEST = 500_000  # nodes of the tree


def structural(source: Source) -> Iterator[Fault]:
    """Every structural fault: no root, undefined rules, left recursion, empty loops, rules without end, size."""
    rules = source.grammar.rules
    hooks = source.grammar.hooks
    if "root" not in rules:
        yield Fault(1, 1, "there is no rule named root; a grammar starts there")
    for name, offset in source.used.items():
        if name not in rules and name not in hooks:
            message = f"rule {name!r} is used but not defined; define it or declare it with '# hook: {name}'"
            yield Fault(*source.place(offset), message)
    for name in hooks.keys() & rules.keys():
        yield Fault(*source.place(source.defined[name]), f"{name!r} is declared as a hook and defined as well")
    empty = nullable(rules)
    for name, node in rules.items():
        place = source.place(source.defined[name])
        if any(isinstance(part, Repeat) and part.high is None and _empty(part.item, empty) for part in _walk(node)):
            yield Fault(*place, f"rule {name!r} repeats without limit something that can be empty")
        cost = _expansion(node)
        if cost > MOST_REPETITIONS:
            yield Fault(*place, f"rule {name!r} expands to {cost} repeated parts, more than {MOST_REPETITIONS}")
    for name in _left_recursive(rules, empty):
        yield Fault(*source.place(source.defined[name]), f"rule {name!r} is left-recursive; put what it repeats last")
    for name in rules.keys() - _finite(rules):
        yield Fault(*source.place(source.defined[name]), f"rule {name!r} never ends: every alternative needs itself")
    if sum(1 for node in rules.values() for _ in _walk(node)) > LARGEST:
        yield Fault(1, 1, f"the grammar has more than {LARGEST} parts")


def nullable(rules: Mapping[str, Node]) -> set[str]:
    """Names of the rules that can match the empty text; hooks never do."""
    found: set[str] = set()
    users: dict[str, set[str]] = {}
    for name, node in rules.items():
        for used in references(node):
            users.setdefault(used, set()).add(name)
    pending = list(rules)
    while pending:
        name = pending.pop()
        if name in rules and name not in found and _empty(rules[name], found):
            found.add(name)
            pending.extend(users.get(name, ()))
    return found


def _empty(node: Node, empty: set[str]) -> bool:
    match node:
        case Literal(text):
            return not text
        case Class() | Token():
            return False
        case Reference(name):
            return name in empty
        case Sequence(items):
            return all(_empty(item, empty) for item in items)
        case Choice(options):
            return any(_empty(option, empty) for option in options)
        case Repeat(item, low, _):
            return low == 0 or _empty(item, empty)


def _walk(node: Node) -> Iterator[Node]:
    pending = [node]
    while pending:
        part = pending.pop()
        yield part
        pending.extend(children(part))


def _leftmost(node: Node, empty: set[str]) -> Iterator[str]:
    match node:
        case Reference(name):
            yield name
        case Sequence(items):
            for item in items:
                yield from _leftmost(item, empty)
                if not _empty(item, empty):
                    return
        case Choice(options):
            for option in options:
                yield from _leftmost(option, empty)
        case Repeat(item, _, _):
            yield from _leftmost(item, empty)
        case _:
            return


def _left_recursive(rules: Mapping[str, Node], empty: set[str]) -> list[str]:
    """Rules on a cycle of leftmost references, found with an explicit stack: the input may be hostile."""
    edges = {name: sorted(set(_leftmost(node, empty)) & rules.keys()) for name, node in rules.items()}
    return [name for name in rules if name in edges and _component(name, edges)]


def _component(start: str, edges: Mapping[str, list[str]]) -> bool:
    seen: set[str] = set()
    pending = list(edges[start])
    while pending:
        name = pending.pop()
        if name == start:
            return True
        if name not in seen:
            seen.add(name)
            pending.extend(edges[name])
    return False


def _finite(rules: Mapping[str, Node]) -> set[str]:
    """Names of the rules that can produce some text of finite length; undefined names count as finite."""
    found: set[str] = set()
    grew = True
    while grew:
        new = {name for name, node in rules.items() if name not in found and _ends(node, found, rules)}
        found |= new
        grew = bool(new)
    return found


def _ends(node: Node, found: set[str], rules: Mapping[str, Node]) -> bool:
    match node:
        case Reference(name):
            return name in found or name not in rules
        case Sequence(items):
            return all(_ends(item, found, rules) for item in items)
        case Choice(options):
            return any(_ends(option, found, rules) for option in options)
        case Repeat(item, low, _):
            return low == 0 or _ends(item, found, rules)
        case _:
            return True


def _expansion(node: Node) -> int:
    """How many rules llama.cpp makes of the repetitions in ``node``, at most; nested ones multiply."""
    largest = max((_expansion(part) for part in children(node)), default=1)
    if isinstance(node, Repeat) and node.item != EMPTY:
        return largest * max(1, node.high if node.high is not None else node.low)
    return largest
