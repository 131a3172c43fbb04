"""Grammar templates: GBNF with hook rules that a binding closes, declared in comments so that GBNF tools can read on.

``# hook: NAME (opens, scoped) what it stands for`` declares a hook:

- a plain hook has one body;
- a *scoped* hook has one body per scope. Every template rule that reaches a scoped hook is scoped too, and is copied
  for each scope;
- the hook that *opens* a scope is referenced as ``from-X``, X being the template rule that continues the scope.

``# dialect: NAME`` says which of its dialects the task is to open its target with.
``# modes: MODE own plain`` makes of each rule ``...-MODE`` one copy per mode, ``...-own`` and ``...-plain``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from expert_cli.grammar import gbnf
from expert_cli.grammar.bounds import MOST_MODES, MOST_OPENINGS, MOST_RULES
from expert_cli.grammar.nodes import (
    Choice,
    Grammar,
    Literal,
    Node,
    children,
    closure,
    mentions,
    references,
    rename,
    without,
)
from expert_cli.grammar.source import Fault, Source

_MODES = re.compile(r"^[ \t]*# modes: ([A-Za-z0-9]+)((?:[ \t]+[A-Za-z0-9]+)+)[ \t]*\r?$", re.MULTILINE)
_DIALECT = re.compile(r"^[ \t]*# dialect: ([a-z0-9-]+)[ \t]*\r?$", re.MULTILINE)
_MARKS = re.compile(r"\(([a-z, ]+)\)")


@dataclass(frozen=True)
class Template:
    """A sound template and what its hooks are."""

    rules: Mapping[str, Node]
    hooks: Mapping[str, str]
    scoped: frozenset[str]
    openings: Mapping[str, tuple[str, str]]
    """``from-X`` as (``from``, ``X``), for every hook that opens a scope and every rule."""
    kinds: Mapping[str, int] = field(default_factory=dict, compare=False)
    """Literals by number: those of one number are alternatives of each other wherever they stand."""
    pruned: dict[frozenset[str], dict[str, Node | None]] = field(default_factory=dict, compare=False)

    def without(self, never: frozenset[str]) -> dict[str, Node | None]:
        """The rules once the hooks in ``never`` match nothing; None for a rule that then matches nothing itself."""
        if never not in self.pruned:
            gone = never | {name for name, (opening, _) in self.openings.items() if opening in never}
            self.pruned[never] = _prune(self.rules, gone)
        return self.pruned[never]


@lru_cache(maxsize=32)
def template(text: str, name: str = "grammar") -> Template:
    """Read a template.

    Raises:
        GrammarError: lists every fault with its line and column.
    """
    grammar = gbnf.sound(_declared(text), name)
    opens = _marked(grammar, "opens")
    scoped = _marked(grammar, "scoped")
    openings = {f"{opening}-{rule}": (opening, rule) for opening in opens for rule in grammar.rules}
    scoped |= {name for name, (opening, _) in openings.items() if opening in scoped}
    closed = frozenset(closure(grammar.rules, mentions, scoped))
    return Template(grammar.rules, grammar.hooks, closed, openings, _kinds(grammar.rules.values()))


def dialect(text: str) -> str:
    """The dialect that ``text`` declares, or nothing."""
    match = _DIALECT.search(text)
    return match[1] if match else ""


def faults(text: str) -> list[Fault]:
    """Every fault of a template or of a grammar without hooks."""
    return gbnf.faults(_declared(text))


def _kinds(nodes: Iterable[Node]) -> dict[str, int]:
    places: dict[str, list[int]] = {}
    pending = list(nodes)
    for number, node in enumerate(pending):
        below = children(node)
        pending.extend(below)
        for part in below:
            if isinstance(part, Literal):
                # beside others it is one of several; elsewhere it stands alone
                places.setdefault(part.text, []).append(number if isinstance(node, Choice) else -number)
        if isinstance(node, Literal):
            places.setdefault(node.text, [])
    numbers: dict[tuple[int, ...], int] = {}
    return {text: numbers.setdefault(tuple(where), len(numbers)) for text, where in places.items()}


def _marked(grammar: Grammar, mark: str) -> set[str]:
    found = set()
    for hook, about in grammar.hooks.items():
        marks = _MARKS.match(about)
        if marks and mark in marks[1].replace(" ", "").split(","):
            found.add(hook)
    return found


def _declared(text: str) -> Source:
    """``text`` with its modes written out and each ``from-X`` of an opening hook declared as a hook."""
    source = gbnf.read(text)
    declared = [(placeholder, modes.split()) for placeholder, modes in _MODES.findall(text)]
    opens = _marked(source.grammar, "opens")
    if len(declared) > MOST_MODES or any(len(modes) > MOST_MODES for _, modes in declared):
        return _refused(source, f"more than {MOST_MODES} modes; a template needs a handful")
    if len(opens) > MOST_OPENINGS:
        return _refused(source, f"more than {MOST_OPENINGS} hooks open a scope; a template needs a handful")
    for placeholder, modes in declared:
        source = _copied(source, "-" + placeholder, modes)
        if len(source.grammar.rules) > MOST_RULES:
            return _refused(source, f"its modes make more than {MOST_RULES} rules; write fewer")
    openings = {f"{one}-{rule}" for one in opens for rule in source.grammar.rules}
    hooks = dict(source.grammar.hooks) | dict.fromkeys(openings & source.used.keys() - source.grammar.rules.keys(), "")
    return replace(source, grammar=Grammar(source.grammar.rules, hooks))


def _refused(source: Source, message: str) -> Source:
    return replace(source, faults=(*source.faults, Fault(1, 1, message)))


def _copied(source: Source, ending: str, modes: Iterable[str]) -> Source:
    """``source`` with each rule named ``...ending`` copied for every mode."""
    rules: dict[str, Node] = {}
    defined: dict[str, int] = {}
    used = dict(source.used)
    for name, node in source.grammar.rules.items():
        copies = [f"-{mode}" for mode in modes] if name.endswith(ending) else [ending]
        for copy in copies:
            here = name.removesuffix(ending) + copy if name.endswith(ending) else name
            names = {one: one.removesuffix(ending) + copy for one in references(node) if one.endswith(ending)}
            rules[here] = rename(node, names)
            defined[here] = source.defined[name]
            for old, new in names.items():
                used.setdefault(new, source.used[old])
    used = {name: place for name, place in used.items() if not (name.endswith(ending) and name not in rules)}
    return replace(source, grammar=Grammar(rules, source.grammar.hooks), defined=defined, used=used)


def _prune(rules: Mapping[str, Node], never: Iterable[str]) -> dict[str, Node | None]:
    gone = closure(rules, lambda node, names: without(node, names) is None, never)
    return {name: without(node, gone) for name, node in rules.items()}
