"""Parts of a generated question, each said in words and in SQL at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from experts.sql.schema import Column, Schema, quote

MORE = ("more than", "greater than", "above", "over", "larger than", "higher than")
LESS = ("less than", "below", "under", "smaller than", "fewer than", "lower than")

Place = tuple[str, Column]
"""A column with the name of its table."""

Phrase = tuple[str, str]
"""Words, and the SQL that says the same."""


def sql(place: Place) -> str:
    """The column in SQL."""
    return f"{quote(place[0])}.{quote(place[1].name)}"


def words(name: str, rng: Random) -> str:
    """A name as people say it; now and then a word is left out."""
    parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).replace("_", " ").lower().split()
    if len(parts) > 1 and rng.random() < 0.25:
        parts.pop(rng.randrange(len(parts)))
    return " ".join(parts)


def things(name: str, rng: Random) -> str:
    """What the rows of a table are called."""
    said = words(name, rng)
    return said if said.endswith("s") or rng.random() < 0.2 else said + "s"


def listed(said: Sequence[str]) -> str:
    """``a, b and c``."""
    return said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]


@dataclass
class Draft:
    """A question in the making: its subject ``table`` and the tables joined to it, in ``tables`` with the subject."""

    schema: Schema
    rng: Random
    table: str
    joins: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tables.append(self.table)

    def source(self) -> str:
        """What follows FROM."""
        return " ".join([quote(self.table), *self.joins])

    def join(self, chance: float) -> None:
        """Join more tables along keys, each with a smaller ``chance``."""
        while self.rng.random() < chance and self._joined():
            chance *= 0.4

    def _joined(self) -> bool:
        """Join one more table; False where no key leads to one."""
        options = []
        for left, right in self.schema.edges:
            for old, new in ((left, right), (right, left)):
                joined = {table.lower() for table in self.tables}
                if old[0] in joined and new[0] not in joined:
                    options.append((old, new))
        if not options or len(self.tables) > 3:
            return False
        old, new = self.rng.choice(options)
        table = self.schema.by_name[new[0]].name
        old_place = (self.schema.by_name[old[0]].name, self.schema.columns[old])
        self.joins.append(f"JOIN {quote(table)} ON {sql(old_place)} = {sql((table, self.schema.columns[new]))}")
        self.tables.append(table)
        return True

    def pick(self, *, numeric: bool | None = None, anywhere: bool = True) -> Place | None:
        """A column of the subject or, ``anywhere``, of a joined table; rarely an id where there are others."""
        options = [
            (table, column)
            for table in (self.tables if anywhere else self.tables[:1])
            for column in self.schema.by_name[table.lower()].columns
            if numeric is None or (column.numeric and not column.primary) == numeric
        ]
        plain = [option for option in options if not option[1].primary and not option[1].name.lower().endswith("id")]
        options = plain if plain and self.rng.random() < 0.85 else options
        return self.rng.choice(options) if options else None

    def several(self, most: int = 3) -> list[Place]:
        """One to ``most`` different columns, or none."""
        picked: list[Place] = []
        for _ in range(self.rng.choices(range(1, most + 1), weights=(6, 3, 1)[:most])[0]):
            place = self.pick()
            if place and place not in picked:
                picked.append(place)
        return picked

    def say(self, place: Place) -> str:
        """A column, with its table's name where that is not the subject."""
        said = words(place[1].name, self.rng)
        if place[0] != self.table and self.rng.random() < 0.6:
            return f"{words(place[0], self.rng)} {said}"
        return said

    def say_all(self, places: Sequence[Place]) -> str:
        """Several columns."""
        return listed([self.say(place) for place in places])

    def subject(self) -> str:
        """Whose columns are asked for."""
        return self.rng.choice(
            (
                f"of {things(self.table, self.rng)}",
                f"of all {things(self.table, self.rng)}",
                f"for the {things(self.table, self.rng)}",
                f"of the {things(self.table, self.rng)}",
            )
        )

    def where(self, chance: float) -> Phrase:
        """With ``chance``, one or two conditions; else nothing."""
        if self.rng.random() > chance:
            return "", ""
        first = self.condition()
        if first is None:
            return "", ""
        if self.rng.random() < 0.25 and " OR " not in first[1]:
            second = self.condition()
            if second and " OR " not in second[1] and second[1] != first[1]:
                word = self.rng.choice(("and", "and", "or"))
                return f" {first[0]} {word} {second[0]}", f" WHERE {first[1]} {word.upper()} {second[1]}"
        return f" {first[0]}", f" WHERE {first[1]}"

    def condition(self) -> Phrase | None:
        """A condition on a number or on a text that the database holds."""
        return self._on_number() if self.rng.random() < 0.45 else self._on_text()

    def _on_number(self) -> Phrase | None:
        rng, place = self.rng, self.pick(numeric=True)
        if place is None:
            return None
        number = rng.choice(
            (rng.randrange(1, 10), rng.randrange(10, 100), rng.randrange(100, 5000), rng.randrange(1950, 2020))
        )
        said, column = self.say(place), sql(place)
        form = rng.randrange(5)
        if form == 0:
            other = number + rng.randrange(1, 100)
            phrase = f"{rng.choice(('with', 'whose'))} {said} between {number} and {other}"
            return phrase, f"{column} BETWEEN {number} AND {other}"
        if form == 1:
            return f"with {said} {rng.choice(('at least', 'no less than'))} {number}", f"{column} >= {number}"
        if form == 2:
            phrase = f"{rng.choice(('whose', 'where the'))} {said} is {rng.choice(LESS)} {number}"
            return phrase, f"{column} < {number}"
        if form == 3:
            return f"{rng.choice(('whose', 'where the'))} {said} is {number}", f"{column} = {number}"
        return f"{rng.choice(('with', 'having'))} {said} {rng.choice(MORE)} {number}", f"{column} > {number}"

    def _on_text(self) -> Phrase | None:
        rng, place = self.rng, self.pick(numeric=False)
        value = self._value(place) if place else None
        if place is None or value is None:
            return None
        said, column, literal = self.say(place), sql(place), _escaped(value)
        shown = rng.choice((value, f'"{value}"', f"'{value}'", value, value))
        form = rng.randrange(9)
        if form == 0:
            return f"{rng.choice(('whose', 'where the'))} {said} is not {shown}", f"{column} != '{literal}'"
        if form == 1:
            part = literal.split()[0]
            word = rng.choice(("contains", "contains the word", "has the substring", "includes"))
            return f"whose {said} {word} " + rng.choice((part, f"'{part}'")), f"{column} LIKE '%{part}%'"
        if form == 2:
            return f"{rng.choice(('in', 'from', 'of', 'for', 'by'))} {shown}", f"{column} = '{literal}'"
        if form == 3:
            other = self._value(place)
            if other is None or other == value:
                return None
            return f"whose {said} is {value} or {other}", f"{column} = '{literal}' OR {column} = '{_escaped(other)}'"
        phrase = f"{rng.choice(('whose', 'where the', 'with'))} {said} {rng.choice(('is', '', '='))} {shown}"
        return phrase, f"{column} = '{literal}'"

    def _value(self, place: Place) -> str | None:
        held = [
            value
            for places in self.schema.values.values()
            for table, column, value in places
            if (table, column) == (place[0], place[1].name)
        ]
        return self.rng.choice(held) if held else None


def _escaped(text: str) -> str:
    return text.replace("'", "''")
