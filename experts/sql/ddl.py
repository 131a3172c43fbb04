"""The DDL of PostgreSQL, MySQL and DuckDB, as ``pg_dump --schema-only``, ``mysqldump`` and ``.schema`` write it.

Tables, columns, keys and the words of enumerations are read, the text values of rows that are dumped along, and views,
whose columns follow from their queries. What else a dump holds (functions, indexes, sequences, grants) is passed over,
as are the options of tables and columns. Nothing is executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from sqlglot import Token, TokenType
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from expert_cli.errors import ContextError
from experts.sql import ddl_items as items
from experts.sql import views
from experts.sql.kinds import enumerated
from experts.sql.schema import MAX_VALUE_LENGTH, MAX_VALUES, Column, ForeignKey, Schema, Table

MOST_CHARACTERS = 32 * 1024 * 1024
MOST_COLUMNS = 1600
_COMMAND = re.compile(r"^\\(restrict|unrestrict|connect|encoding|set|echo|c)\b.*$", re.MULTILINE)
"""What psql reads for itself."""

_VERSIONED = re.compile(r"/\*!50001 ((?:CREATE|VIEW|DROP VIEW)\b(?:[^*]|\*(?!/))*)\*/", re.IGNORECASE)
"""What mysqldump writes of views: MySQL from 5.0.1 on reads it, others take it for comments."""

_AFTER_QUERY = re.compile(r"\s+WITH\s+((NO\s+)?DATA|((CASCADED|LOCAL)\s+)?CHECK\s+OPTION)\s*$", re.IGNORECASE)
_NO_VIEW = ("AS", "ON", "(", "FUNCTION", "PROCEDURE", "TRIGGER", "EVENT")

_REPLACE = re.compile(r"^REPLACE +INTO\b", re.MULTILINE | re.IGNORECASE)
_COPY = re.compile(r"COPY\s.*\sFROM\s+STDIN\b(?P<options>.*);\s*", re.IGNORECASE)
_ESCAPED = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}
_HOMES = {"postgres": ("", "public"), "duckdb": ("", "main"), "mysql": ("",)}
"""The schemas whose tables are found without being told."""


def read(text: str, dialect: str, source: str = "schema") -> Schema:
    """The schema that DDL of ``dialect`` makes.

    Raises:
        ContextError: it is too long, a table cannot be read, is made twice or in several schemas, or there is none.
    """
    if len(text) > MOST_CHARACTERS:
        raise ContextError(f"{source} has {len(text):,} characters; dump the schema alone")
    return _Reader(dialect, source).schema(text.replace("\r\n", "\n"))


class _Reader:
    def __init__(self, dialect: str, source: str) -> None:
        self.name, self.source, self.homes = dialect, source, _HOMES[dialect]
        self.dialect = Dialect.get_or_raise(dialect)
        self.names = items.Names(dialect)
        self.tables: dict[str, dict[str, Column]] = {}
        self.owners: dict[str, str] = {}
        self.keys: list[ForeignKey] = []
        self.views: dict[str, tuple[str, list[str], str]] = {}  # the schema, the columns' names, the query
        self.words: dict[str, list[str] | None] = {}
        self.values: dict[str, dict[tuple[str, str, str], None]] = {}
        self.counted: dict[tuple[str, str], int] = {}

    def schema(self, text: str) -> Schema:
        rest, copies = self.parted(text)
        # to sqlglot REPLACE is a command, the rest of it one string
        rest = _REPLACE.sub("INSERT INTO", _COMMAND.sub("", _VERSIONED.sub(r"\1", rest)))
        for tokens in self.statements(rest):
            try:
                self.statement(tokens, rest)
            except items.UnreadError as problem:
                raise ContextError(f"{self.source}, line {tokens[0].line}: {problem}") from problem
        for head, rows in copies:
            self.copied(head, rows)
        self.look()
        self.check()
        for table, columns in self.tables.items():
            for column in columns.values():
                for word in enumerated(column.type) if "enum(" in column.type else ():
                    self.value(table, column.name, word)
        tables = tuple(Table(name, tuple(columns.values())) for name, columns in self.tables.items())
        keys = (key if key.target_column else self.whole(key) for key in self.keys)
        known = tuple(key for key in keys if key is not None and key.table in self.tables)
        (owner,) = set(self.owners.values())
        values = {key: list(places) for key, places in self.values.items()}
        return Schema(tables, known, values, place=owner)

    def check(self) -> None:
        """Refuse what no question could be asked about."""
        owners = sorted(set(self.owners.values()))
        if len(owners) > 1:
            named = ", ".join(owner or self.homes[-1] for owner in owners)
            raise ContextError(f"{self.source} makes tables in several schemas ({named}); dump one of them")
        if not self.tables:
            name = type(self.dialect).__name__
            raise ContextError(f"{self.source} creates no table; give CREATE TABLE statements of {name}")
        seen: dict[str, str] = {}
        for table, columns in self.tables.items():
            if table.lower() in seen:
                raise ContextError(f"{self.source} makes {seen[table.lower()]} and {table}; {_CASE}")
            seen[table.lower()] = table
            if table.lower().startswith("sqlite_") or "\0" in table:
                raise ContextError(f"{self.source} makes a table called {table!r}; leave it out")
            if len(columns) > MOST_COLUMNS:
                raise ContextError(f"{self.source}: {table} has {len(columns)} columns; leave some out")

    def parted(self, text: str) -> tuple[str, list[tuple[str, list[str]]]]:
        """The text without the rows of COPY statements, and these with their heads."""
        kept: list[str] = []
        copies: list[tuple[str, list[str]]] = []
        within = False
        for line in text.split("\n"):
            if within:
                within = line != "\\."
                copies[-1][1].append(line)
            elif line[:5].upper() == "COPY " and (match := _COPY.fullmatch(line)):
                within = True
                copies.append((line if "csv" not in match["options"].lower() else "", []))
                kept.append("")
            else:
                kept.append(line)
        if within:
            raise ContextError(f"{self.source}: the rows of {copies[-1][0][:60]!r} have no end; write a line of \\.")
        return "\n".join(kept), [(head, rows[:-1]) for head, rows in copies if head]

    def statements(self, text: str) -> Iterator[list[Token]]:
        current: list[Token] = []
        for token in self.tokens(text):
            if token.token_type != TokenType.SEMICOLON:
                current.append(token)
            elif current:
                yield current
                current = []
        if current:
            yield current

    def tokens(self, text: str) -> Sequence[Token]:
        try:
            return self.dialect.tokenize(text)
        except SqlglotError as problem:
            told = re.sub(r"\x1b\[\d*m", "", str(problem)).splitlines()[0].rstrip(".")
            raise ContextError(f"{self.source} is no {type(self.dialect).__name__}: {told[:200]}") from problem

    def statement(self, tokens: list[Token], text: str) -> None:
        cursor = items.Cursor(tokens, self.names)
        if cursor.take("CREATE"):
            while cursor.take(*items.MADE):
                pass
            if cursor.take("TABLE"):
                self.table(cursor)
            elif cursor.take("TYPE"):
                name = cursor.name()[1]
                found = cursor.strings() if cursor.take("AS") and cursor.take("ENUM") else None
                # two types of one name in different schemas: neither is believed
                self.words[name] = found if name not in self.words else None
            else:
                self.view(cursor, text)
        elif cursor.take("DROP") and cursor.at("TABLE", "VIEW"):
            cursor.skip()
            cursor.over("IF", "EXISTS")
            self.forget(cursor.name()[1])
        elif cursor.take("ALTER"):
            if cursor.take("TABLE"):
                self.altered(cursor)
            elif cursor.take("TYPE"):
                name = cursor.name()[1]
                if cursor.take("ADD") and cursor.take("VALUE"):
                    self.words[name] = [*(self.words.get(name) or ()), *cursor.strings()]
        elif cursor.take("INSERT", "REPLACE"):
            self.inserted(cursor)

    def forget(self, table: str) -> None:
        self.tables.pop(table, None)
        self.owners.pop(table, None)
        self.views.pop(table, None)

    def view(self, cursor: items.Cursor, text: str) -> None:
        """Keep the query of a view, where it is one that is made; the last one counts."""
        while not cursor.done() and not cursor.at("VIEW", *_NO_VIEW):
            cursor.skip()
        if not cursor.take("VIEW"):
            return
        cursor.over("IF", "NOT", "EXISTS")
        owner, name = cursor.name()
        named = [part.name()[1] for part in cursor.group() or ()]
        while not cursor.done() and not cursor.take("AS"):
            cursor.skip()
        if not cursor.done():
            query = text[cursor.tokens[cursor.place].start : cursor.tokens[-1].end + 1]
            self.views[name] = ("" if owner in self.homes else owner, named, _AFTER_QUERY.sub("", query))

    def look(self) -> None:
        """Add the views that lie where the tables do; one whose columns cannot be told is left out."""
        waiting = {name: view for name, view in self.views.items() if view[0] in set(self.owners.values())}
        told = True
        while told:
            told = False
            for name, (owner, named, query) in list(waiting.items()):
                known = Schema(tuple(Table(table, tuple(one.values())) for table, one in self.tables.items()))
                # a view may read from one that comes later
                with suppress(ContextError):
                    found = views.columns(query, named, known, self.name)
                    self.tables[name] = {column.name: column for column in found}
                    self.owners[name] = owner
                    del waiting[name]
                    told = True

    def table(self, cursor: items.Cursor) -> None:
        optional = cursor.take("IF")
        cursor.over("NOT", "EXISTS")
        owner, table = cursor.name()
        body = cursor.group()
        if body is None or (body and body[0].at("SELECT", "WITH")):
            return  # a partition, or a table made of a query
        if table in self.tables:
            if optional:
                return
            raise items.UnreadError(f"the table {table} is made a second time; dump one database")
        self.tables[table] = {}
        self.owners[table] = "" if owner in self.homes else owner
        while not cursor.done():
            if cursor.take("INHERITS"):
                for parent in cursor.group() or ():
                    self.tables[table] |= self.tables.get(parent.name()[1], {})
            else:
                cursor.skip()
        for item in body:
            self.item(table, item)
        if not self.tables[table]:
            self.forget(table)

    def altered(self, cursor: items.Cursor) -> None:
        cursor.over("IF", "EXISTS", "ONLY")
        table = cursor.name()[1]
        for action in cursor.parts():
            if action.take("ATTACH"):
                action.take("PARTITION")
                self.forget(action.name()[1])
            elif table not in self.tables:
                continue
            elif action.take("ADD"):
                if action.take("COLUMN"):
                    action.over("IF", "NOT", "EXISTS")
                self.item(table, action)
            elif action.changes():
                raise items.UnreadError(f"{table} is changed after it was made; dump the schema as it is now")

    def item(self, table: str, item: items.Cursor) -> None:
        """A column or a constraint of a table."""
        if item.take("CONSTRAINT") and not item.constraint():
            item.name()
        if item.take("LIKE"):
            self.tables[table] |= self.tables.get(item.name()[1], {})
        elif item.constraint():
            self.constraint(table, item)
        elif not item.done():
            self.column(table, item)

    def constraint(self, table: str, item: items.Cursor) -> None:
        if item.take("PRIMARY"):
            while not item.done() and not item.at("("):
                item.skip()
            for part in item.group() or ():
                self.primary(table, part.name()[1])
        elif item.take("FOREIGN"):
            while not item.done() and not item.at("("):
                item.skip()
            columns = [part.name()[1] for part in item.group() or ()]
            if item.take("REFERENCES"):
                self.refer(table, columns, item)

    def column(self, table: str, item: items.Cursor) -> None:
        name = item.name()[1]
        known = self.tables[table]
        if any(other.lower() == name.lower() for other in (known if name not in known else ())):
            raise items.UnreadError(f"{table} has two columns called {name}; {_CASE}")
        declared = item.type()
        last = declared.rpartition(".")[2]
        found = self.words.get(last)
        known[name] = Column(name, declared if not found else f"{items.plain(last)} {items.enumeration(found)}")
        while not item.done():
            if item.take("PRIMARY"):
                self.primary(table, name)
            elif item.take("REFERENCES"):
                self.refer(table, [name], item)
            else:
                item.skip()

    def primary(self, table: str, name: str) -> None:
        column = self.tables[table].get(name)
        if column is not None:
            self.tables[table][name] = Column(name, column.type, True)

    def refer(self, table: str, columns: list[str], item: items.Cursor) -> None:
        target = item.name()[1]
        named = [part.name()[1] for part in item.group() or ()] if item.at("(") else [""] * len(columns)
        for column, other in zip(columns, named, strict=False):
            self.keys.append(ForeignKey(table, column, target, other))

    def whole(self, key: ForeignKey) -> ForeignKey | None:
        """A key that names a table alone refers to its primary key."""
        primary = [column.name for column in self.tables.get(key.target, {}).values() if column.primary]
        return ForeignKey(key.table, key.column, key.target, primary[0]) if len(primary) == 1 else None

    def inserted(self, cursor: items.Cursor) -> None:
        cursor.over("IGNORE", "INTO")
        table = cursor.name()[1]
        columns = self.listed(cursor, table)
        while not cursor.done() and not cursor.take("VALUES"):
            cursor.skip()
        while (row := cursor.group()) is not None:
            for name, cell in zip(columns, row, strict=False):
                if (text := cell.string()) is not None:
                    self.value(table, name, text)
            cursor.take(",")

    def listed(self, cursor: items.Cursor, table: str) -> list[str]:
        """The columns that a statement lists, all of the table where it lists none."""
        group = cursor.group()
        return list(self.tables.get(table, ())) if group is None else [part.name()[1] for part in group]

    def copied(self, head: str, rows: list[str]) -> None:
        """The rows of a COPY statement, which are separated by tabs."""
        cursor = items.Cursor(self.tokens(head), self.names)
        cursor.take("COPY")
        table = cursor.name()[1]
        columns = self.listed(cursor, table)
        for row in rows:
            for name, cell in zip(columns, row.split("\t"), strict=False):
                if cell != "\\N":
                    self.value(table, name, re.sub(r"\\.", lambda match: _ESCAPED.get(match[0], match[0]), cell))

    def value(self, table: str, column: str, text: str) -> None:
        """Keep a text value of a column, as many as a database gives."""
        known = self.tables.get(table, {}).get(column)
        if known is None or known.numeric or (known.type and known.temporal):
            return
        held = self.counted.get((table, column), 0)
        key = text.strip().lower()
        if held < MAX_VALUES and 0 < len(key) <= MAX_VALUE_LENGTH:
            places = self.values.setdefault(key, {})
            if (table, column, text) not in places:
                places[table, column, text] = None
                self.counted[table, column] = held + 1


_CASE = "names that differ by case alone cannot be told apart in questions"
