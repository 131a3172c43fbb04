"""What a query sees, and what its clauses say once windows and output columns are written out where they are named."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlglot import exp

from expert_cli.errors import ContextError


@dataclass
class Seen:
    """A source as it may be mentioned (lower case), as it is written, and its columns: mentioned to written."""

    mentioned: str
    written: str
    columns: dict[str, str]
    merged: frozenset[str] = frozenset()
    """Columns that USING took together with those of an earlier source."""


@dataclass
class View:
    """What a query sees: its sources so far, and the query around it."""

    outer: View | None = None
    sources: list[Seen] = field(default_factory=list)
    blended: set[str] = field(default_factory=set)
    """Columns of two sources that RIGHT or FULL JOIN took together: their bare name means neither."""
    aliases: set[str] = field(default_factory=set)

    def written(self) -> set[str]:
        names = {source.written.lower() for source in self.sources}
        return names | (self.outer.written() if self.outer else set())

    def means(self, name: str) -> bool:
        """Whether SQLite finds something by a quoted name that is no column: an alias, or a table's row number."""
        here = name in self.aliases or name in ("rowid", "oid", "_rowid_")
        return here or (self.outer is not None and self.outer.means(name))

    def holds(self, column: str) -> bool:
        """Whether a source of this query itself has it."""
        return any(column in one.columns for one in self.sources)

    def find(self, column: str, source: str) -> str | None:
        """The written form of a column, by the name of its source or by its own alone.

        Raises:
            ContextError: it is the bare name of a blended column.
        """
        if not source and column in self.blended:
            raise ContextError(f"{column} is of two tables here; name the table of the one that is meant")
        for one in self.sources:
            if (one.mentioned == source or (not source and column not in one.merged)) and column in one.columns:
                return f"{one.written}.{one.columns[column]}"
        return self.outer.find(column, source) if self.outer else None


def expand_windows(select: exp.Select) -> None:
    """Write named windows where they are used."""
    windows = {one.name.lower(): one for one in select.args.get("windows") or []}
    # a window may be made of one before it
    own = [window for window in select.find_all(exp.Window) if window.parent_select is select]
    for window in sorted(own, key=lambda window: window not in windows.values()):
        alias = window.args.get("alias")
        known = windows.get(alias.name.lower()) if alias is not None else None
        if known is not None and window is not known:
            for part in ("partition_by", "order", "spec"):
                if known.args.get(part) and not window.args.get(part):
                    value = known.args[part]
                    window.set(part, [one.copy() for one in value] if isinstance(value, list) else value.copy())
            window.set("alias", None)
    select.set("windows", None)


def expand_aliases(select: exp.Select, view: View, *, by_number: int = 0) -> None:
    """Write the selected expression where its alias, or its number, stands.

    Where up to ``by_number`` items are selected, what holds a window is sorted by its number instead.
    """
    selected: dict[str, exp.Expr] = {}
    for item in select.expressions:
        if isinstance(item, exp.Alias):
            selected.setdefault(item.alias.lower(), item.this)
    items = [column for item in select.expressions for column in _columns(item.unalias(), view)]
    whole = len(items) <= by_number and not any(item.is_star for item in select.expressions)
    windows = {id(item): place for place, item in enumerate(items, 1) if whole and item.find(exp.Window)}
    for clause, first in (("where", False), ("group", False), ("having", False), ("order", True)):
        node = select.args.get(clause)
        for column in list(node.find_all(exp.Column)) if node is not None else []:
            name = column.name.lower()
            term = first and isinstance(column.parent, exp.Ordered | exp.Collate | exp.Paren)
            known = not term and view.holds(name)
            if not column.table and name in selected and not known and column.parent_select is select:
                place = windows.get(id(selected[name])) if isinstance(column.parent, exp.Ordered) else None
                value = exp.Literal.number(place) if place else _grouped(selected[name].copy(), column)
                column.replace(value)
        for key in list(node.expressions) if node is not None and clause in ("group", "order") else []:
            number = key.this if isinstance(key, exp.Ordered) else key
            if isinstance(number, exp.Literal) and number.is_int and 0 < int(number.name) <= len(items):
                item = items[int(number.name) - 1]
                if not (first and id(item) in windows):
                    number.replace(item.copy())


def _columns(item: exp.Expr, view: View) -> list[exp.Expr]:
    """An item, or the columns that a star stands for; of some stars that follow others nobody can tell."""
    if not item.is_star:
        return [item]
    table = item.args.get("table")
    found = [one for one in view.sources if table is None or one.mentioned == table.name.lower()]
    return [
        exp.column(name, one.mentioned or None)
        for one in found
        for name in one.columns
        if table or name not in one.merged
    ]


def _grouped(value: exp.Expr, place: exp.Expr) -> exp.Expr:
    """``value`` in parentheses where it becomes a part of something else."""
    alone = isinstance(place.parent, exp.Ordered | exp.Group | exp.Having | exp.Where)
    return value if alone or not isinstance(value, exp.Binary | exp.Not | exp.Predicate) else exp.Paren(this=value)
