"""Close a grammar template: give every hook rule the names that a binding has for the present state.

See :mod:`expert_cli.grammar.template` for what a template declares. The binding gives a body for every hook: for a
plain one ``rules["literal"]``, for a scoped one ``rules["column-s3"]`` for each scope that is mentioned. In the bodies
that lead from an opening hook to its continuation, ``then-s3`` stands for that continuation in scope ``s3``. Bodies may
mention each other and the rules of the template, those with their scope (``condition-s3``).

The body :data:`NEVER` is the empty language: alternatives that need it are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from expert_cli.errors import GrammarError
from expert_cli.grammar import gbnf
from expert_cli.grammar.nodes import Grammar, Node, closure, mentions, references, rename
from expert_cli.grammar.template import Template, template
from expert_cli.task import Binding

NEVER = "[]"
SCOPED = re.compile(r"(.+)-(s[0-9]+)")
_CONTINUED = "then-"


@dataclass(frozen=True)
class Instance:
    """One rule of a closed grammar: ``node`` as its template or body has it, references renamed by ``names``.

    ``kind`` and ``kinds`` are the same names without scopes: rules of one kind differ by scope alone. ``bound`` says
    that the binding gave the node.
    """

    name: str
    node: Node
    names: Mapping[str, str]
    kind: str
    kinds: Mapping[str, str]
    bound: bool

    @property
    def shapes(self) -> Mapping[str, str]:
        """The kinds by references without scopes."""
        return {SCOPED.sub(r"\1", name): kind for name, kind in self.kinds.items()} if self.bound else self.kinds


@dataclass(frozen=True)
class Closed:
    """A grammar without open hooks; its first rule is the root."""

    instances: tuple[Instance, ...]
    kinds: Mapping[str, int] = field(default_factory=dict)
    """Literals of the template that are alternatives of each other, by the same number."""

    def grammar(self) -> Grammar:
        """The same as one flat GBNF grammar."""
        return Grammar({rule.name: rename(rule.node, rule.names) for rule in self.instances}, {})


def bind(text: str, binding: Binding, state: Any) -> Closed:
    """The template ``text`` closed with the hook rules that ``binding`` gives for ``state``.

    Raises:
        GrammarError: the template is malformed, or the binding lacks the body of a hook.
    """
    return _Closing(template(text), binding.rules(state)).closed()


_Key = tuple[str, str, str]
"""A rule of the closed grammar: its name in template or binding, its scope, and how an opened scope goes on."""


class _Closing:
    def __init__(self, source: Template, bodies: Mapping[str, str]) -> None:
        self.template = source
        self.bodies = {name: gbnf.body(text) for name, text in bodies.items() if text != NEVER}
        self.never = [name for name, text in bodies.items() if text == NEVER]
        self.continued = self._continued()
        self.rules: dict[str, dict[str, Node | None]] = {}

    def _continued(self) -> set[str]:
        """Bodies that lead to a continuation, and so are copied for each one."""
        continuing = {one for node in self.bodies.values() for one in references(node) if one.startswith(_CONTINUED)}
        return closure(self.bodies, mentions, continuing)

    def closed(self) -> Closed:
        instances: dict[_Key, Instance] = {}
        pending: list[_Key] = [("root", "", "")]
        while pending:
            key = pending.pop()
            if key in instances:
                continue
            node, bound = self.node(key)
            names, kinds = {}, {}
            for name in references(node):
                target = self.bound(name, key[2]) if bound else self.linked(name, key[1])
                names[name], kinds[name] = _name(target), _kind(target)
                pending.append(target)
            instances[key] = Instance(_name(key), node, names, _kind(key), kinds, bound)
        return Closed(tuple(instances.values()), self.template.kinds)

    def node(self, key: _Key) -> tuple[Node, bool]:
        """The right-hand side of a rule, and whether the binding gave it."""
        rule, scope, _ = key
        if rule in self.template.rules:
            if scope not in self.rules:
                self.rules[scope] = self.template.without(self._missing(scope))
            node = self.rules[scope][rule]
            if node is None:
                raise GrammarError(f"rule {_name(key)!r} can match nothing: its hooks are empty; offer it more names")
            return node, False
        body = f"{rule}-{scope}" if scope else rule
        if body not in self.bodies:
            raise GrammarError(f"the binding has no body for {body!r}; it must give one for every hook")
        return self.bodies[body], True

    def linked(self, name: str, scope: str) -> _Key:
        """What a reference in a rule of the template means."""
        opened = self.template.openings.get(name)
        scope = scope if name in self.template.scoped else ""
        return (opened[0], scope, opened[1]) if opened else (name, scope, "")

    def bound(self, name: str, then: str) -> _Key:
        """What a reference in a body of the binding means."""
        match = SCOPED.fullmatch(name)
        rule, scope = (match[1], match[2]) if match else (name, "")
        if rule + "-" == _CONTINUED:
            return then, scope, ""
        opened = self.template.openings.get(rule)
        return (opened[0], scope, opened[1]) if opened else (rule, scope, then if name in self.continued else "")

    def _missing(self, scope: str) -> frozenset[str]:
        names = (name.removesuffix("-" + scope) if scope else name for name in self.never)
        return frozenset(name for name in names if name in self.template.hooks)


def _kind(key: _Key) -> str:
    return f"{key[0]}-{key[2]}" if key[2] else key[0]


def _name(key: _Key) -> str:
    return f"{_kind(key)}-{key[1]}" if key[1] else _kind(key)
