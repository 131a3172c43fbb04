"""Ordinary SQL as the grammars write it SELECT first: in its own words, but for style and what no menu holds.

Aliases stay where the menus offer them and become ``T1``, ``T2`` … else. A column stays bare where one source of FROM
has it. ``EXISTS`` asks for a number, columns of derived tables have names from the menu.
"""

from __future__ import annotations

from sqlglot import exp

from experts.sql.bringing import Catalogue
from experts.sql.expand import Seen, View, put
from experts.sql.inner import SelectTurning, Turning, unquoted
from experts.sql.names import OUTPUTS, NamesBinding


class ListedTurning(Turning):
    """One query being turned."""

    def __init__(self, names: NamesBinding, dialect: str) -> None:
        super().__init__(names, dialect)
        self.catalogue = Catalogue(names.tables, names.taken)
        self.nested: set[int] = set()

    def whole(self, query: exp.Query) -> str:
        for exists in query.find_all(exp.Exists):
            if isinstance(exists.this, exp.Select):
                exists.this.set("expressions", [exp.Literal.number(1)])
                exists.this.set("distinct", None)
        return super().whole(query)

    def select(self, node: exp.Select, outer: View | None) -> SelectTurning:
        return _Listed(self, node, outer, self.catalogue)


class _Listed(SelectTurning):
    """One SELECT being turned."""

    def __init__(self, turning: ListedTurning, node: exp.Select, outer: View | None, catalogue: Catalogue) -> None:
        super().__init__(turning, node, outer)
        self.catalogue = catalogue
        self.derived = 0
        self.bare = True

    @staticmethod
    def begun(sources: str, listed: str) -> str:
        return f"{listed} {sources}" if sources else listed

    def source(self, node: exp.Expr) -> str:
        if not (isinstance(node, exp.Subquery) and isinstance(node.this, exp.Query)):
            return super().source(node)
        renamed = node.alias_column_names or [one.alias_or_name or f"?{n}" for n, one in enumerate(node.this.selects)]
        starred = any(item.is_star for item in node.this.selects)
        for place, item in enumerate(node.this.selects):
            if place < len(OUTPUTS) and not starred:
                named = exp.alias_(item.unalias().copy(), OUTPUTS[place])
                item.replace(named)
        text, outputs = self.turning.query(node.this, None, () if starred else OUTPUTS[: len(node.this.selects)])
        alias = self.catalogue.derived[self.derived]
        self.derived += 1
        columns: dict[str, str] = {}
        for place, mentioned in enumerate(() if starred else renamed):
            put(columns, mentioned.lower(), OUTPUTS[place] if place < len(OUTPUTS) else "")
        self.view.sources.append(Seen(node.alias.lower(), alias, columns or outputs))
        return f"({text}) AS {alias}"

    def table(self, node: exp.Table) -> str:
        text = super().table(node)
        seen = self.view.sources[-1]
        table = text.partition(" AS ")[0]
        others = {source.written for source in self.view.sources[:-1]}
        seen.written = self.alias(table, node.alias, others)
        return table if seen.written == table else f"{table} AS {seen.written}"

    def alias(self, table: str, asked: str, others: set[str]) -> str:
        """What a table is called: as asked, by its own name, or by the first number that is free."""
        if not asked and table not in others:
            return table
        for alias in (asked, asked.upper(), asked.lower()):
            readable = self.catalogue.aliases.get(alias, ())
            if (table in readable or alias[:1] == "T") and readable and alias not in others:
                return alias
        mentioned = {one.alias.upper() for one in self.node.find_all(exp.Table)}
        free = (one for one in self.catalogue.aliases if one not in others and one not in mentioned)
        return next(free)

    def placed(self, on: exp.Expr) -> str:
        self.bare = False
        text = self.say(on)
        self.bare = True
        return text

    def column(self, node: exp.Column) -> str:
        text = super().column(node)
        if node.table or text[:1] == "'" or not self.bare or self.derived:
            return text
        name = node.name.lower()
        having = [one for one in self.view.sources if name in map(str.lower, map(unquoted, one.columns.values()))]
        if len(having) != 1 or name not in having[0].columns:
            return text
        written = having[0].columns[name]
        return written if Catalogue.plain(written) else text
