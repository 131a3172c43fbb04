"""Faults of a grammar that reads well but would crash llama.cpp, hang a matcher or never end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many

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
    closure,
)
from expert_cli.grammar.source import MOST_REPETITIONS, Fault, Source

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
        if any(isinstance(part, Repeat) and part.high is None and _may_be_nothing(part, rules) for part in _walk(node)):
            yield Fault(*place, f"rule {name!r} repeats without limit an alternative that is empty; leave that one out")
        cost = _expansion(node)
        if cost > MOST_REPETITIONS:
            yield Fault(*place, f"rule {name!r} expands to {cost} repeated parts, more than {MOST_REPETITIONS}")
    for name in _left_recursive(rules, empty):
        yield Fault(*source.place(source.defined[name]), f"rule {name!r} is left-recursive; put what it repeats last")
    open_ends = [name for name in source.used if name not in rules]
    for name in rules.keys() - closure(rules, _ends, open_ends):
        yield Fault(*source.place(source.defined[name]), f"rule {name!r} never ends: every alternative needs itself")
    if sum(1 for node in rules.values() for _ in _walk(node)) > LARGEST:
        yield Fault(1, 1, f"the grammar has more than {LARGEST} parts")


def nullable(rules: Mapping[str, Node]) -> set[str]:
    """Names of the rules that can match the empty text; hooks never do."""
    return closure(rules, _empty)


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


def _may_be_nothing(repeat: Repeat, rules: Mapping[str, Node]) -> bool:
    """Whether llama.cpp takes the endless ``repeat`` for left recursion: its item has an empty alternative."""
    item = rules.get(repeat.item.name, repeat.item) if isinstance(repeat.item, Reference) else repeat.item
    return EMPTY in (item.options if isinstance(item, Choice) else (item,))


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
    """Rules on a cycle of leftmost references."""
    edges = {name: sorted(set(_leftmost(node, empty)) & rules.keys()) for name, node in rules.items()}
    return [name for group in _cycles(edges) for name in group]


def _cycles(edges: Mapping[str, Many[str]]) -> Iterator[list[str]]:
    """The strongly connected groups that hold a cycle (Tarjan, with an explicit stack: the input may be hostile)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    open_: list[str] = []
    for start in edges:
        if start in order:
            continue
        path = [(start, iter(edges[start]))]
        order[start] = low[start] = len(order)
        open_.append(start)
        while path:
            name, following = path[-1]
            after = next(following, None)
            if after is None:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[name])
                if low[name] == order[name]:
                    group = open_[open_.index(name) :] if open_[-1] != name else [name]
                    del open_[-len(group) :]
                    low |= dict.fromkeys(group, len(edges))
                    if len(group) > 1 or name in edges[name]:
                        yield group
            elif after not in order:
                order[after] = low[after] = len(order)
                open_.append(after)
                path.append((after, iter(edges[after])))
            else:
                low[name] = min(low[name], low[after] if low[after] < len(edges) else order[name])


def _ends(node: Node, found: set[str]) -> bool:
    """Whether ``node`` can end, the rules in ``found`` being able to."""
    match node:
        case Reference(name):
            return name in found
        case Sequence(items):
            return all(_ends(item, found) for item in items)
        case Choice(options):
            return any(_ends(option, found) for option in options)
        case Repeat(item, low, _):
            return low == 0 or _ends(item, found)
        case _:
            return True


def _expansion(node: Node) -> int:
    """How many rules llama.cpp makes of the repetitions in ``node``, at most; nested ones multiply."""
    largest = max((_expansion(part) for part in children(node)), default=1)
    if isinstance(node, Repeat) and node.item != EMPTY:
        return largest * max(1, node.high if node.high is not None else node.low)
    return largest
