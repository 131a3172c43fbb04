"""The scopes of the typed grammars: what a query may name in each part of it, and of what kind it is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from experts.sql.kinds import COMPUTED, GIVEN, MARK, NUMBER, OTHER, WHOLE


@dataclass(frozen=True)
class Column:
    """A column as it is written, or the text of a key, and its kind; ``primary`` where it is of its table's key.

    Only servers that know the other columns of a row by its key are told so.
    """

    name: str
    kind: str
    primary: bool = False


@dataclass(frozen=True)
class Source:
    """What FROM reads: the name that columns are written with, the columns, and the table or named query it is."""

    name: str
    columns: tuple[Column, ...]
    table: str = ""


@dataclass(frozen=True)
class Scope:
    """The sources of one FROM so far, the scope around it where its columns are visible, and the named queries.

    ``keys`` are those of GROUP BY once it is written, and ``implied`` the columns that follow from them. ``arms`` are
    the kinds that another arm of a set operation has to have; in the arm of a recursive query that ``reads`` itself,
    ``origins`` are the columns they come from.
    """

    named: tuple[Source, ...] = ()
    outer: Scope | None = None
    sources: tuple[Source, ...] = ()
    keys: tuple[Column, ...] | None = None
    implied: tuple[Column, ...] = ()
    arms: tuple[str, ...] = ()
    reads: Source | None = None
    origins: tuple[str, ...] = ()

    def own(self) -> tuple[Column, ...]:
        """The columns of the sources."""
        return tuple(Column(f"{one.name}.{each.name}", each.kind) for one in self.sources for each in one.columns)

    def visible(self) -> tuple[Column, ...]:
        """What may be named where rows, or groups of them, are looked at one by one."""
        own = self.own()
        keys = [key if key in own else Column(f"({key.name})", key.kind) for key in self.keys or ()]
        inside = own if self.keys is None else (*keys, *self.implied)
        return (*inside, *(self.outer.beyond() if self.outer else ()))

    def beyond(self) -> tuple[Column, ...]:
        """What a subquery sees of this scope and those around it: columns, but not keys that are computed."""
        own = self.own()
        inside = own if self.keys is None else (*(key for key in self.keys if key in own), *self.implied)
        return (*inside, *(self.outer.beyond() if self.outer else ()))

    def names(self) -> frozenset[str]:
        """The names of all sources in reach, in lower case."""
        return frozenset(source.name.lower() for source in self.sources) | (
            self.outer.names() if self.outer else frozenset()
        )

    def joined(self, source: Source) -> Scope:
        return replace(self, sources=(*self.sources, source), keys=None, implied=())

    def grouped(self, keys: tuple[Column, ...], *, whole: bool) -> Scope:
        """Where one group is looked at; ``whole`` says that each of ``keys`` has one value in it."""
        named = {key.name for key in keys}
        implied = []
        for source in self.sources if whole else ():
            primary = {f"{source.name}.{column.name}" for column in source.columns if column.primary}
            if primary and primary <= named:
                columns = (Column(f"{source.name}.{one.name}", one.kind) for one in source.columns)
                implied += [one for one in columns if one.name not in named]
        return replace(self, keys=keys, implied=tuple(implied))


@dataclass(frozen=True)
class Event:
    """Something that widens what may be written: ``kind`` is

    ``joined``   ``scope`` has its present sources
    ``begun``    what follows the sources of ``scope`` is written
    ``grouped``  in ``before``, the GROUP BY ``text`` leads to ``scope``
    ``listed``   in ``before``, SELECT and its items ``text`` are written; ``scope`` reads another arm of its kinds
    ``derived``  in ``before``, the derived table ``text``, but for its parenthesis, leads to ``scope``;
                 ``lateral`` if it sees the sources before it
    ``arm``      the first arm of a recursive query is written, up to ``text``; ``scope`` reads itself
    ``named``    the WITH clause ``text`` is written, and ``scope`` reads its queries
    """

    kind: str
    scope: Scope
    before: Scope | None = None
    text: str = ""
    lateral: bool = False


@dataclass
class Query:
    """A query being read. ``clause``: start, source, alias, joins, where, keys, having, select, tail."""

    context: Scope
    kind: str
    begin: int
    clause: str = "start"
    scope: Scope | None = None
    name: str = ""
    mark: int = 0
    """The word from which the keys or the item are read."""
    opened: int = 0
    """The character from which GROUP BY or SELECT is read."""
    parts: list[tuple[int, int]] = field(default_factory=list)
    outputs: list[Column] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    given: set[int] = field(default_factory=set)
    """The outputs that are literals."""
    arm: int = 0
    depth: int = 0
    lateral: bool = False

    def left(self) -> tuple[Column, ...]:
        """The columns as they are seen from outside.

        Servers put literals in their place and compute with them before a row is read: they can only be compared.
        """
        if self.context.reads is not None:
            return tuple(self.outputs)
        return tuple(
            replace(one, kind=f"{GIVEN}{one.kind}") if place in self.given else one
            for place, one in enumerate(self.outputs)
        )

    def arms(self) -> tuple[str, ...]:
        """The kinds of the columns of other arms; what others read must not be a literal there."""
        kinds = [NUMBER if one.kind == WHOLE else one.kind for one in self.outputs]
        if self.kind == "sub":
            return tuple(kinds)
        return tuple(
            kind if kind.startswith(MARK) or kind == OTHER else f"{GIVEN if place in self.given else COMPUTED}{kind}"
            for place, kind in enumerate(kinds)
        )
