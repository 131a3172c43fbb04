"""The DDL of PostgreSQL, MySQL and DuckDB, as ``pg_dump --schema-only``, ``mysqldump`` and ``.schema`` write it.

Tables, columns, keys and the words of enumerations are read, and the text values of rows that are dumped along. What
else a dump holds (functions, indexes, sequences, grants, views) is passed over. Nothing is executed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlglot import Token, TokenType, exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from expert_cli.errors import ContextError
from experts.sql.identifiers import literal
from experts.sql.schema import MAX_VALUE_LENGTH, MAX_VALUES, Column, ForeignKey, Schema, Table

MOST_CHARACTERS = 32 * 1024 * 1024
_COMMAND = re.compile(r"^\\[a-zA-Z!?].*$", re.MULTILINE)
"""What psql reads for itself."""

_COPIED = re.compile(
    r"^COPY (?P<table>[^\n(]+) \((?P<columns>[^\n]*)\) FROM stdin;\n(?P<rows>(?:.*\n)*?)\\\.$", re.MULTILINE
)
_FOLDED = "postgres"
"""Names without quotes are lower-case there."""

_SKIPPED = ("OR", "REPLACE", "GLOBAL", "LOCAL", "TEMPORARY", "TEMP", "UNLOGGED", "FOREIGN")


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
        self.dialect, self.source = Dialect.get_or_raise(dialect), source
        self.folds = dialect == _FOLDED
        self.tables: dict[str, dict[str, Column]] = {}
        self.owners: dict[str, str] = {}
        self.keys: list[ForeignKey] = []
        self.words: dict[str, list[str]] = {}
        self.enumerated: list[tuple[str, str, str]] = []
        self.values: dict[str, list[tuple[str, str, str]]] = {}
        self.counted: dict[tuple[str, str], int] = {}

    def schema(self, text: str) -> Schema:
        rows = list(_COPIED.finditer(text))
        text = _COMMAND.sub("", _COPIED.sub("", text))
        for begin, tokens in self.statements(text):
            self.statement(text, begin, tokens)
        for match in rows:
            self.copied(match)
        if len(set(self.owners.values())) > 1:
            named = ", ".join(sorted(set(self.owners.values())))
            raise ContextError(f"{self.source} makes tables in several schemas ({named}); dump one of them")
        if not self.tables:
            raise ContextError(f"{self.source} creates no table; give CREATE TABLE statements of {self.name}")
        for table, column, kind in self.enumerated:
            for word in self.words.get(kind, ()):
                self.value(table, column, word)
        tables = tuple(Table(name, tuple(columns.values())) for name, columns in self.tables.items())
        return Schema(tables, tuple(self.keys), self.values)

    @property
    def name(self) -> str:
        return type(self.dialect).__name__

    def statements(self, text: str) -> Iterator[tuple[int, list[Token]]]:
        """Each statement: where it begins in the text, and its tokens."""
        try:
            tokens = self.dialect.tokenize(text)
        except SqlglotError as problem:
            raise ContextError(f"{self.source} is no {self.name}: {_first(problem)}") from problem
        current: list[Token] = []
        for token in tokens:
            if token.token_type != TokenType.SEMICOLON:
                current.append(token)
            elif current:
                yield current[0].start, current
                current = []
        if current:
            yield current[0].start, current

    def statement(self, text: str, begin: int, tokens: list[Token]) -> None:
        words = [token.text.upper() for token in tokens[:12]]
        told = [word for word in words[1:] if word not in _SKIPPED]
        body = text[begin : tokens[-1].end + 1]
        if words[0] == "CREATE" and told[:1] == ["TABLE"]:
            self.table(self.parsed(body, tokens[0].line), tokens[0].line)
        elif words[0] == "CREATE" and told[:1] == ["TYPE"] and "ENUM" in words:
            self.words[self.named(tokens, words.index("AS"))] = [
                token.text for token in tokens if token.token_type == TokenType.STRING
            ]
        elif words[:2] == ["ALTER", "TABLE"] and "ATTACH" in words:
            ends = (n for n, token in enumerate(tokens) if token.text.upper() in ("FOR", "DEFAULT"))
            end = next(ends, len(tokens))
            part = self.named(tokens, end)
            self.tables.pop(part, None)
            self.owners.pop(part, None)
        elif words[:2] == ["ALTER", "TABLE"] and "ADD" in words:
            self.altered(self.parsed(body, tokens[0].line))
        elif words[:2] == ["INSERT", "INTO"]:
            self.inserted(self.parsed(body, tokens[0].line))

    def parsed(self, body: str, line: int) -> exp.Expr:
        try:
            with _silent():
                (found,) = self.dialect.parse(body)
        except SqlglotError as problem:
            raise ContextError(f"{self.source}, line {line}: {_first(problem)}; leave the statement out") from problem
        except RecursionError as problem:
            raise ContextError(f"{self.source}, line {line}: nests too deeply; leave the statement out") from problem
        if found is None or isinstance(found, exp.Command):
            shown = " ".join(body.split())[:60]
            raise ContextError(f"{self.source}, line {line}: cannot read {shown!r}; write the table's columns and keys")
        return found

    def table(self, made: exp.Expr, line: int) -> None:
        if not isinstance(made.this, exp.Schema):
            return  # a partition, or a table made of a query
        table = self.place(made.this.this)
        if table in self.tables:
            if made.args.get("exists"):
                return
            raise ContextError(f"{self.source} makes the table {table} twice; dump one database")
        self.owners[table] = self.folded(made.this.this.args.get("db"))
        self.tables[table] = {}
        for item in made.this.expressions:
            self.part(table, item)
        names: set[str] = set()
        for name in self.tables[table]:
            if name.lower() in names:
                raise ContextError(
                    f"{self.source}, line {line}: {table} has two columns called {name}; names that differ by case "
                    "alone cannot be told apart in questions"
                )
            names.add(name.lower())
        if not self.tables[table]:
            del self.tables[table], self.owners[table]

    def altered(self, made: exp.Expr) -> None:
        table = self.place(made.this)
        if table in self.tables:
            for action in made.args.get("actions") or ():
                self.part(table, action)

    def part(self, table: str, item: exp.Expr) -> None:
        """A column or a constraint of a table."""
        if isinstance(item, exp.ColumnDef):
            self.column(table, item)
        elif isinstance(item, exp.PrimaryKey):
            for one in item.expressions:
                self.primary(table, self.folded(one))
        elif isinstance(item, exp.ForeignKey):
            self.refer(table, [self.folded(one) for one in item.expressions], item.args.get("reference"))
        elif isinstance(item, exp.Constraint | exp.AddConstraint):
            for one in item.expressions:
                self.part(table, one)

    def column(self, table: str, item: exp.ColumnDef) -> None:
        name = self.folded(item.this)
        kind = item.args.get("kind")
        declared = "" if kind is None else kind.sql(self.dialect).lower()
        if kind is not None and kind.this == exp.DataType.Type.USERDEFINED:
            written = self.folded(kind.args["kind"]) if isinstance(kind.args.get("kind"), exp.Expr) else declared
            declared = f"{written} {_enumeration(self.words[written])}" if written in self.words else declared
            self.enumerated.append((table, name, written))
        elif kind is not None and kind.this == exp.DataType.Type.ENUM:
            for word in kind.expressions:
                self.value(table, name, word.name)
            declared = _enumeration([word.name for word in kind.expressions])
        self.tables[table][name] = Column(name, declared)
        for constraint in item.args.get("constraints") or ():
            if isinstance(constraint.kind, exp.PrimaryKeyColumnConstraint):
                self.primary(table, name)
            elif isinstance(constraint.kind, exp.Reference):
                self.refer(table, [name], constraint.kind)

    def primary(self, table: str, name: str) -> None:
        column = self.tables[table].get(name)
        if column is not None:
            self.tables[table][name] = Column(name, column.type, True)

    def refer(self, table: str, columns: list[str], reference: exp.Expr | None) -> None:
        if reference is None:
            return
        target = reference.this
        named = [self.folded(one) for one in target.expressions] if isinstance(target, exp.Schema) else []
        place = self.place(target.this if isinstance(target, exp.Schema) else target)
        if not named:
            named = [one.name for one in self.tables.get(place, {}).values() if one.primary]
        for column, other in zip(columns, named, strict=False):
            self.keys.append(ForeignKey(table, column, place, other))

    def inserted(self, made: exp.Expr) -> None:
        if not isinstance(made, exp.Insert) or not isinstance(made.expression, exp.Values):
            return
        listed = isinstance(made.this, exp.Schema)
        table = self.place(made.this.this if listed else made.this)
        known = self.tables.get(table, {})
        columns = [self.folded(one) for one in made.this.expressions] if listed else list(known)
        for row in made.expression.expressions:
            for name, cell in zip(columns, row.expressions, strict=False):
                if name in known and isinstance(cell, exp.Literal) and cell.is_string:
                    self.value(table, name, cell.name)

    def copied(self, match: re.Match[str]) -> None:
        """The rows of a COPY statement, which are separated by tabs."""
        named, listed = (self.dialect.tokenize(match[part]) for part in ("table", "columns"))
        table = self.named(named, len(named))
        columns = [self.text(token) for token in listed if token.token_type != TokenType.COMMA]
        for row in match["rows"].splitlines():
            for name, cell in zip(columns, row.split("\t"), strict=False):
                if "\\" not in cell and name in self.tables.get(table, {}):
                    self.value(table, name, cell)

    def value(self, table: str, column: str, text: str) -> None:
        """Keep a text value of a column, as many as a database gives."""
        known = self.tables[table].get(column)
        if known is not None and (known.numeric or (known.type and known.temporal)):
            return
        held = self.counted.get((table, column), 0)
        key = text.strip().lower()
        if held < MAX_VALUES and 0 < len(key) <= MAX_VALUE_LENGTH:
            places = self.values.setdefault(key, [])
            if (table, column, text) not in places:
                places.append((table, column, text))
                self.counted[table, column] = held + 1

    def place(self, table: exp.Expr) -> str:
        """A table's name without its schema."""
        return self.folded(table.this)

    def named(self, tokens: list[Token], end: int) -> str:
        """The last part of the name that ends before a token."""
        return self.text(tokens[end - 1])

    def text(self, token: Token) -> str:
        quoted = token.token_type == TokenType.IDENTIFIER
        return token.text if quoted or not self.folds else token.text.lower()

    def folded(self, name: exp.Expr | None) -> str:
        """An identifier as the server knows it; the last part of a dotted one."""
        if isinstance(name, exp.Dot):
            return self.folded(name.expression)
        if isinstance(name, exp.Column | exp.Ordered):
            return self.folded(name.this)
        if name is None:
            return ""
        quoted = isinstance(name, exp.Identifier) and name.quoted
        return name.name if quoted or not self.folds else name.name.lower()


@contextmanager
def _silent() -> Iterator[None]:
    """sqlglot warns of what it cannot parse; that is refused here."""
    logger = logging.getLogger("sqlglot")
    kept, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = kept


def _enumeration(words: list[str]) -> str:
    return f"enum({', '.join(map(literal, words))})"


def _first(problem: Exception) -> str:
    return re.sub(r"\x1b\[\d*m", "", str(problem)).splitlines()[0].rstrip(".")
