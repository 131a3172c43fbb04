"""Close a grammar template: give every hook rule the names that a binding has for the present state.

A template declares hooks in comments, ``# hook: NAME (opens|scoped) what it stands for``:

- a plain hook has one body, ``rules["literal"]``;
- a *scoped* hook has one body per scope, ``rules["column-s3"]``. Every template rule that reaches a scoped hook is
  scoped too, and is copied for each scope that is mentioned;
- the hook that *opens* a scope is referenced as ``from-X``, X being the template rule that continues the scope. In the
  binding's bodies ``then-s3`` stands for that continuation in scope ``s3``.

The body :data:`NEVER` is the empty language: alternatives that need it are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from expert_cli.errors import GrammarError
from expert_cli.grammar import gbnf
from expert_cli.grammar.nodes import EMPTY, Choice, Grammar, Node, Reference, Repeat, Sequence, closure, references
from expert_cli.task import Binding

NEVER = "[]"
SCOPED = re.compile(r"(.+)-(s[0-9]+)")
_CONTINUED = "then-"


@dataclass(frozen=True)
class Instance:
    """One rule of a closed grammar: ``node`` as its template or body has it, references renamed by ``names``.

    ``kind`` and ``kinds`` are the same names without scopes: rules of one kind differ by scope alone.
    """

    name: str
    node: Node
    names: Mapping[str, str]
    kind: str
    kinds: Mapping[str, str]


@dataclass(frozen=True)
class Closed:
    """A grammar without open hooks; its first rule is the root."""

    instances: tuple[Instance, ...]

    def grammar(self) -> Grammar:
        """The same as one flat GBNF grammar."""
        return Grammar({rule.name: rename(rule.node, rule.names) for rule in self.instances}, {})


@dataclass(frozen=True)
class Template:
    """A parsed template and what its hooks are."""

    rules: Mapping[str, Node]
    hooks: Mapping[str, str]
    scoped: frozenset[str]
    opens: frozenset[str]
    pruned: dict[frozenset[str], dict[str, Node | None]] = field(default_factory=dict, compare=False)

    def without(self, never: frozenset[str]) -> dict[str, Node | None]:
        """The rules once the hooks in ``never`` match nothing; None for a rule that then matches nothing itself."""
        if never not in self.pruned:
            self.pruned[never] = _prune(self.rules, never)
        return self.pruned[never]


@lru_cache(maxsize=32)
def template(text: str, name: str = "grammar") -> Template:
    """Read a template.

    Raises:
        GrammarError: lists every fault with its line and column.
    """
    grammar = gbnf.parse(_declare_openings(text), name)
    opens = frozenset(hook for hook, about in grammar.hooks.items() if about.startswith("(opens)"))
    hooks = {hook for hook, about in grammar.hooks.items() if about.startswith("(scoped)")}
    scoped = closure(grammar.rules, _mentions, hooks)
    return Template(grammar.rules, grammar.hooks, frozenset(scoped), opens)


def bind(text: str, binding: Binding, state: Any) -> Closed:
    """The template ``text`` closed with the hook rules that ``binding`` gives for ``state``.

    Raises:
        GrammarError: the template is malformed, or the binding lacks the body of a hook.
    """
    return _Closing(template(text), binding.rules(state)).closed()


def rename(node: Node, names: Mapping[str, str]) -> Node:
    """``node`` with its references renamed; names that are not in ``names`` stay."""
    match node:
        case Reference(name):
            return Reference(names.get(name, name))
        case Sequence(items):
            return Sequence(tuple(rename(item, names) for item in items))
        case Choice(options):
            return Choice(tuple(rename(option, names) for option in options))
        case Repeat(item, low, high):
            return Repeat(rename(item, names), low, high)
        case _:
            return node


def _declare_openings(text: str) -> str:
    """``text`` with each ``from-X`` of an opening hook declared as a hook, at the end so that places stay right."""
    opens = re.findall(r"^[ \t]*# hook: ([a-zA-Z0-9-]+) \(opens\)", text, re.MULTILINE)
    rules = set(re.findall(r"^[ \t]*([a-zA-Z0-9-]+)[ \t]*::=", text, re.MULTILINE))
    names = {f"{opening}-{rule}" for opening in opens for rule in rules}
    used = names.intersection(re.findall(r"[a-zA-Z0-9-]+", text)) - rules
    return text + "".join(f"\n# hook: {name}" for name in sorted(used))


@dataclass(frozen=True)
class _Key:
    """A rule of the closed grammar: its name in template or binding, its scope, and how an opened scope goes on."""

    rule: str
    scope: str = ""
    then: str = ""

    @property
    def kind(self) -> str:
        return f"{self.rule}-{self.then}" if self.then else self.rule

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.scope}" if self.scope else self.kind

    @property
    def body(self) -> str:
        return f"{self.rule}-{self.scope}" if self.scope else self.rule


class _Closing:
    def __init__(self, source: Template, bodies: Mapping[str, str]) -> None:
        self.template = source
        self.bodies = {name: gbnf.body(text) for name, text in bodies.items() if text != NEVER}
        self.never = frozenset(name for name, text in bodies.items() if text == NEVER)
        self.continued = self._continued()

    def _continued(self) -> set[str]:
        """Bodies that lead to a continuation, and so are copied for each one."""
        continuing = {one for node in self.bodies.values() for one in references(node) if one.startswith(_CONTINUED)}
        return closure(self.bodies, _mentions, continuing)

    def closed(self) -> Closed:
        instances: dict[_Key, Instance] = {}
        pending = [_Key("root")]
        while pending:
            key = pending.pop()
            if key in instances:
                continue
            node = self.node(key)
            keys = {name: self.key(name, key) for name in references(node)}
            names = {name: target.name for name, target in keys.items()}
            kinds = {name: target.kind for name, target in keys.items()}
            instances[key] = Instance(key.name, node, names, key.kind, kinds)
            pending.extend(keys.values())
        return Closed(tuple(instances.values()))

    def node(self, key: _Key) -> Node:
        if key.rule in self.template.rules:
            node = self.template.without(self._missing(key.scope))[key.rule]
            if node is None:
                raise GrammarError(f"rule {key.name!r} can match nothing: its hooks are empty; offer it more names")
            return node
        if key.body not in self.bodies:
            raise GrammarError(f"the binding has no body for {key.body!r}; it must give one for every hook")
        return self.bodies[key.body]

    def key(self, name: str, user: _Key) -> _Key:
        """What a reference ``name`` in the rule ``user`` means."""
        if user.rule in self.template.rules:
            if name in self.template.scoped:
                return _Key(name, user.scope)
            for opening in self.template.opens:
                if name.startswith(opening + "-"):
                    return _Key(opening, then=name[len(opening) + 1 :])
            return _Key(name)
        scoped = SCOPED.fullmatch(name)
        rule, scope = (scoped[1], scoped[2]) if scoped else (name, "")
        if rule + "-" == _CONTINUED:
            return _Key(user.then, scope)
        return _Key(rule, scope, user.then if name in self.continued else "")

    def _missing(self, scope: str) -> frozenset[str]:
        names = (name.removesuffix("-" + scope) if scope else name for name in self.never)
        return frozenset(name for name in names if name in self.template.hooks)


def _mentions(node: Node, names: set[str]) -> bool:
    return any(name in names for name in references(node))


def _prune(rules: Mapping[str, Node], never: Iterable[str]) -> dict[str, Node | None]:
    gone = closure(rules, lambda node, names: _without(node, names) is None, never)
    return {name: _without(node, gone) for name, node in rules.items()}


def _without(node: Node, gone: set[str]) -> Node | None:
    """``node`` without the alternatives that need a rule in ``gone``; None where nothing is left."""
    match node:
        case Reference(name):
            return None if name in gone else node
        case Sequence(items):
            kept = [_without(item, gone) for item in items]
            return None if None in kept else Sequence(tuple(part for part in kept if part is not None))
        case Choice(options):
            left = tuple(part for option in options if (part := _without(option, gone)) is not None)
            return (left[0] if len(left) == 1 else Choice(left)) if left else None
        case Repeat(item, low, high):
            part = _without(item, gone)
            if part is None:
                return EMPTY if low == 0 else None
            return Repeat(part, low, high)
        case _:
            return node
