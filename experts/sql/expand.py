"""What a query sees, and what its clauses say once windows and output columns are written out where they are named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlglot import exp

from expert_cli.errors import ContextError

UNNAMED = "\0"
"""What stands, with a number, for the name of a column that no name means; its written form may be empty as well."""


_COMPUTE = frozenset(
    "and or is not in like glob regexp match between collate isnull notnull null true false current_date current_time "
    "current_timestamp".split()
)
"""Words by which words alone are an expression, in lower case."""


def put(columns: dict[str, str], mentioned: str, written: str) -> None:
    """Add the next column; of several with one name, the first is meant."""
    named = mentioned and written and mentioned not in columns
    columns[mentioned if named else f"{UNNAMED}{len(columns)}"] = written


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
        """Whether SQLite may find something by a quoted name that is no column here.

        That is an alias, a table's row number, or what it calls a column that has no name.
        """
        unnamed = any(key.startswith(UNNAMED) for one in self.sources for key in one.columns) and not _plain(name)
        here = unnamed or name in self.aliases or name in ("rowid", "oid", "_rowid_")
        return here or (self.outer is not None and self.outer.means(name))

    def holds(self, column: str) -> bool:
        """Whether a source of this query itself has it."""
        return any(column in one.columns for one in self.sources)

    def starred(self, star: exp.Expr) -> list[Seen]:
        """The sources of a star.

        Raises:
            ContextError: it is that of a source that is not there.
        """
        if isinstance(star, exp.Star):
            return self.sources
        found = [one for one in self.sources if one.mentioned == str(star.args.get("table") or "").lower()]
        if not found:
            raise ContextError(f"{star.sql()}: there is no such source; name one of FROM")
        return found

    def brought(self, star: exp.Expr) -> list[tuple[Seen, str]]:
        """The columns that a star stands for; of those that USING took together, the first."""
        whole = isinstance(star, exp.Star)
        return [
            (one, name) for one in self.starred(star) for name in one.columns if not whole or name not in one.merged
        ]

    def find(self, column: str, source: str) -> str | None:
        """The written form of a column, by the name of its source or by its own alone.

        Raises:
            ContextError: it is the bare name of a blended column, or in some places an alias.
        """
        if not source and column in self.blended:
            raise ContextError(f"{column} is of two tables here; name the table of the one that is meant")
        for one in self.sources:
            if (one.mentioned == source or (not source and column not in one.merged)) and column in one.columns:
                return f"{one.written}.{one.columns[column]}"
        if self.outer and not source and column in self.aliases:
            raise ContextError(f"{column} is an alias here and a column around; give the alias another name")
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


def _plain(name: str) -> bool:
    """Whether no expression reads so, and no column that SQLite names after one: words, but none that computes."""
    return all(word.isidentifier() and word not in _COMPUTE for word in name.split(" "))


class _Output(NamedTuple):
    """An output column: its alias, or the name that a star brings it with, and what it shows, if that can be said."""

    name: str
    value: exp.Expr | None
    starred: bool


def expand_aliases(select: exp.Select, view: View, *, by_number: int = 0) -> None:
    """Write the selected expression where its alias, or its number, stands.

    Where up to ``by_number`` items are selected, what holds a window is sorted by its number instead. Keys that are
    constants are left out.

    Raises:
        ContextError: rows are grouped by constants alone, or a number is that of a column without a name.
    """
    outputs = [output for item in select.expressions for output in _outputs(item, view)]
    aliases = {one.name: one.value for one in reversed(outputs) if one.name and not one.starred}
    whole = len(outputs) <= by_number and not any(one.starred for one in outputs)
    for clause in ("where", "group", "having", "order"):
        node = select.args.get(clause)
        if node is None:
            continue
        keys = [(key, *_meant(key, outputs, view)) for key in node.expressions] if clause in ("group", "order") else []
        taken = {id(core) for _, core, _ in keys}
        for column in list(node.find_all(exp.Column)):
            value = aliases.get(column.name.lower())
            if value is None or column.table or id(column) in taken or column.parent_select is not select:
                continue
            if not view.holds(column.name.lower()):
                column.replace(_grouped(value.copy(), column))
        kept = [key for key, core, place in keys if place is None or _expanded(core, outputs, place, whole)]
        if keys and not kept and clause == "group":
            raise ContextError("GROUP BY a constant: all rows are one group, and none where there are no rows")
        if len(kept) < len(keys):
            select.set(clause, node if kept else None)
            node.set("expressions", kept)


def _outputs(item: exp.Expr, view: View) -> list[_Output]:
    """An item, or the columns that a star stands for."""
    if not item.is_star:
        return [_Output(item.alias.lower(), item.unalias(), starred=False)]
    found = []
    for one, name in view.brought(item.unalias().unnest()):
        written = one.columns[name]
        found.append(_Output(name, exp.Var(this=f"{one.written}.{written}") if written else None, starred=True))
    return found


def _meant(key: exp.Expr, outputs: Sequence[_Output], view: View) -> tuple[exp.Expr, int | None]:
    """The alias, or the number, that a key is, and the place of the output that it means, if it means one."""
    core = key
    while isinstance(core, exp.Ordered | exp.Paren | exp.Collate):
        core = core.this
    if isinstance(core, exp.Literal) and core.is_int and 0 < int(core.name) <= len(outputs):
        return core, int(core.name) - 1
    if not isinstance(core, exp.Column) or core.table:
        return core, None
    # what is sorted by is an output first, whatever brought it; what is grouped by is a column first
    name = core.name.lower()
    if not isinstance(key, exp.Ordered) and view.holds(name):
        return core, None
    place = next((place for place, one in enumerate(outputs) if one.name == name), None)
    return core, None if place is None or outputs[place].starred else place


def _expanded(core: exp.Expr, outputs: Sequence[_Output], place: int, whole: bool) -> bool:
    """Write an output where its name or number stands in a key; False where it is a constant, which keys need not."""
    value = outputs[place].value
    if value is None:
        raise ContextError(f"column {place + 1} has no name; give it one")
    plain = value.unnest()
    plain = plain.this if isinstance(plain, exp.Neg) else plain
    if isinstance(plain, exp.Literal | exp.Null | exp.Boolean):
        return False
    above = core.parent
    while isinstance(above, exp.Paren):
        above = above.parent
    by_number = whole and isinstance(above, exp.Ordered) and value.find(exp.Window)
    core.replace(exp.Literal.number(place + 1) if by_number else _grouped(value.copy(), core))
    return True


def _grouped(value: exp.Expr, place: exp.Expr) -> exp.Expr:
    """``value`` in parentheses where it becomes a part of something else."""
    alone = isinstance(place.parent, exp.Ordered | exp.Group | exp.Having | exp.Where)
    return value if alone or not isinstance(value, exp.Binary | exp.Not | exp.Predicate) else exp.Paren(this=value)
