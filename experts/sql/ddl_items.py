"""The parts of DDL statements: names, types, constraints and lists, read word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sqlglot import Token, TokenType

from experts.sql.identifiers import literal

MADE = ("OR", "REPLACE", "GLOBAL", "LOCAL", "TEMPORARY", "TEMP", "UNLOGGED", "FOREIGN", "PERSISTENT")
_CONSTRAINTS = frozenset(("PRIMARY", "FOREIGN", "UNIQUE", "CHECK", "EXCLUDE"))
_INDEXES = frozenset(("KEY", "INDEX", "FULLTEXT", "SPATIAL", "PERIOD"))
_AFTER_TYPE = frozenset(
    "NOT NULL DEFAULT PRIMARY UNIQUE REFERENCES CHECK GENERATED CONSTRAINT COLLATE COMMENT AUTO_INCREMENT ON AS "
    "STORAGE COMPRESSION CHARSET VIRTUAL STORED INVISIBLE VISIBLE KEY OPTIONS SRID USING ENCODE FIRST AFTER".split()
)
_KEPT = frozenset("CONSTRAINT DEFAULT NOT EXPRESSION IDENTITY FOREIGN PRIMARY INDEX KEY CHECK".split())
"""What DROP may take from a table without changing its columns."""


class UnreadError(Exception):
    """A statement that cannot be read; says why and what to do."""


class Names:
    """How a dialect folds names that are written without quotes."""

    def __init__(self, dialect: str) -> None:
        self.folds, self.indexed = dialect == "postgres", dialect == "mysql"

    def of(self, token: Token) -> str:
        quoted = token.token_type == TokenType.IDENTIFIER
        return token.text if quoted or not self.folds else token.text.lower()


class Cursor:
    """A place in the words of a statement."""

    def __init__(self, tokens: Sequence[Token], names: Names, begin: int = 0, end: int | None = None) -> None:
        self.tokens, self.names = tokens, names
        self.place, self.end = begin, len(tokens) if end is None else end

    def done(self) -> bool:
        return self.place >= self.end

    def word(self, ahead: int = 0) -> str:
        """An upper-cased word; nothing for quoted names, strings, and beyond the end."""
        place = self.place + ahead
        if place >= self.end or self.tokens[place].token_type in (TokenType.IDENTIFIER, TokenType.STRING):
            return ""
        return self.tokens[place].text.upper().partition(" ")[0]  # PRIMARY KEY is one token

    def at(self, *words: str) -> bool:
        return self.word() in words and not self.done()

    def take(self, *words: str) -> bool:
        """Go past one of ``words`` where it is next."""
        found = self.at(*words)
        self.place += found
        return found

    def over(self, *words: str) -> None:
        """Go past each of ``words``, in their order, where it is next."""
        for word in words:
            self.take(word)

    def skip(self) -> None:
        """Go past a word, or all that is in parentheses."""
        self.place = self.close() + 1 if self.at("(") else self.place + 1

    def close(self) -> int:
        """The place of the parenthesis that closes the one here."""
        depth = 0
        for place in range(self.place, self.end):
            kind = self.tokens[place].token_type
            depth += (kind == TokenType.L_PAREN) - (kind == TokenType.R_PAREN)
            if not depth:
                return place
        raise UnreadError("a parenthesis is not closed; give the whole statement")

    def name(self) -> tuple[str, str]:
        """A name and the schema before it, folded."""
        parts = []
        while not self.done():
            if self.at("(", ")", ","):
                break
            parts.append(self.names.of(self.tokens[self.place]))
            self.place += 1
            if not self.take("."):
                break
        if not parts:
            raise UnreadError("a name is missing; give the statement as the server's own tool dumps it")
        return parts[-2] if len(parts) > 1 else "", parts[-1]

    def group(self) -> list[Cursor] | None:
        """What stands between commas in the parentheses here; None where there are none."""
        if not self.at("("):
            return None
        end = self.close()
        inner = Cursor(self.tokens, self.names, self.place + 1, end)
        self.place = end + 1
        return list(inner.parts())

    def parts(self) -> Iterator[Cursor]:
        """What stands between the commas up to the end."""
        begin = self.place
        while not self.done():
            if self.at(","):
                yield Cursor(self.tokens, self.names, begin, self.place)
                begin = self.place + 1
            self.skip()
        if begin < self.end:
            yield Cursor(self.tokens, self.names, begin, self.end)

    def strings(self) -> list[str]:
        """The strings up to the end."""
        found = [one.text for one in self.tokens[self.place : self.end] if one.token_type == TokenType.STRING]
        self.place = self.end
        return found

    def string(self) -> str | None:
        """The text where all that is left is one string."""
        alone = self.end - self.place == 1 and self.tokens[self.place].token_type == TokenType.STRING
        return self.tokens[self.place].text if alone else None

    def constraint(self) -> bool:
        """Whether a constraint or an index is next, not a column."""
        if self.word() in _CONSTRAINTS:
            # a column may be called exclude
            return self.word() != "EXCLUDE" or self.word(1) in ("USING", "(")
        return (self.names.indexed and self.word() in _INDEXES) or (self.word() == "NOT" and self.word(1) == "NULL")

    def changes(self) -> bool:
        """Whether an action of ALTER TABLE gives columns other names or types, or takes some away."""
        if self.take("RENAME"):
            return not self.at("CONSTRAINT", "INDEX", "KEY")
        if self.take("DROP"):
            return self.word() not in _KEPT
        if self.take("ALTER"):
            self.take("COLUMN")
            self.name()
            return self.at("TYPE") or (self.at("SET") and self.word(1) == "DATA")
        return False

    def type(self) -> str:
        """A type as it is declared, in lower case but for the words of an enumeration."""
        found = ""
        while not self.done() and self.word() not in _AFTER_TYPE:
            if self.word() == "CHARACTER" and self.word(1) == "SET":
                break
            token = self.tokens[self.place]
            if found in ("enum", "set") and self.at("("):
                end = self.close()
                words = [one.text for one in self.tokens[self.place : end] if one.token_type == TokenType.STRING]
                self.place = end + 1
                return enumeration(words).replace("enum", found, 1)
            if token.token_type == TokenType.IDENTIFIER:
                text = token.text
            elif token.token_type == TokenType.STRING:
                text = literal(token.text)
            else:
                text = token.text.lower()
            tight = text in "()[],." or found[-1:] in ("(", "[", ".", "")
            found += text if tight else f" {text}"
            self.place += 1
        return found


def enumeration(words: list[str]) -> str:
    """The type of an enumeration."""
    return f"enum({', '.join(map(literal, words))})"


def plain(name: str) -> str:
    """A type's name as one word: it only tells types apart."""
    return re.sub(r"\W", "_", name)
