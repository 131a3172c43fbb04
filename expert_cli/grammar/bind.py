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
from dataclasses import dataclass
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

    def grammar(self) -> Grammar:
        """The same as one flat GBNF grammar."""
        return Grammar({rule.name: rename(rule.node, rule.names) for rule in self.instances}, {})


def bind(text: str, binding: Binding, state: Any) -> Closed:
    """The template ``text`` closed with the hook rules that ``binding`` gives for ``state``.

    Raises:
        GrammarError: the template is malformed, or the binding lacks the body of a hook.
    """
    return _Closing(template(text), binding.rules(state)).closed()


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
        return closure(self.bodies, mentions, continuing)

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
            bound = key.rule not in self.template.rules
            instances[key] = Instance(key.name, node, names, key.kind, kinds, bound)
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
            scope = user.scope if name in self.template.scoped else ""
            return self._opening(name, scope) or _Key(name, scope)
        match = SCOPED.fullmatch(name)
        rule, scope = (match[1], match[2]) if match else (name, "")
        if rule + "-" == _CONTINUED:
            return _Key(user.then, scope)
        return self._opening(rule, scope) or _Key(rule, scope, user.then if name in self.continued else "")

    def _opening(self, name: str, scope: str) -> _Key | None:
        """The key of ``from-X``, where the template says that ``from`` opens a scope."""
        for opening in self.template.opens:
            if name.startswith(opening + "-"):
                return _Key(opening, scope, name[len(opening) + 1 :])
        return None

    def _missing(self, scope: str) -> frozenset[str]:
        names = (name.removesuffix("-" + scope) if scope else name for name in self.never)
        return frozenset(name for name in names if name in self.template.hooks)
