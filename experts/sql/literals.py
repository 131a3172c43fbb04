"""The literals that a question offers: values that the database holds, quoted text, numbers, dates and names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from experts.sql.schema import Key, Schema
from experts.sql.words import STOP, Word

MAX_LITERALS = 12
MAX_SPAN = 6
"""Words in the longest span that is looked up among the values."""

NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
}
DEMONYMS = dict(
    pair.split("=")
    for pair in "french=france italian=italy american=usa british=uk english=england german=germany spanish=spain "
    "dutch=netherlands swiss=switzerland swedish=sweden danish=denmark finnish=finland polish=poland irish=ireland "
    "scottish=scotland welsh=wales greek=greece turkish=turkey chinese=china japanese=japan korean=korea thai=thailand "
    "indian=india russian=russia ukrainian=ukraine mexican=mexico canadian=canada brazilian=brazil european=europe "
    "argentine=argentina portuguese=portugal norwegian=norway austrian=austria belgian=belgium czech=czechia "
    "hungarian=hungary egyptian=egypt israeli=israel iranian=iran australian=australia asian=asia "
    "african=africa".split()
)
"""Adjectives of places, where the place's name does not begin with the same letters or the ending varies."""

PLACES = {"usa": ("usa", "united states", "us", "united states of america"), "uk": ("uk", "united kingdom", "england")}

TRIGGERS = frozenset(
    "substring contain contains containing contained word letter letters includes including called named titled "
    "prefix suffix starts start starting begins beginning begin ends ending end".split()
)
"""Words after which a lower-case word may be a literal that the database does not hold."""

CODES = {
    "female": ("f", "female"),
    "male": ("m", "male"),
    "females": ("f",),
    "males": ("m",),
    "women": ("f",),
    "men": ("m",),
}
"""Words whose value a database often holds as a code."""

QUOTED = re.compile(r"\"([^\"]+)\"|(?<!\w)'([^']+)'(?!\w)|\u201c([^\u201d]+)\u201d|\u2018([^\u2019]+)\u2019")
NUMBER = re.compile(
    r"(?<![\w.])\d{4}-\d{1,2}-\d{1,2}(?: \d{2}:\d{2}:\d{2})?|(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)"
)
NAME = re.compile(r"[^\W\d_][\w'.&-]*(?:\s+(?:of|the|and|de|&|[^\W\d_a-z][\w'.&-]*|\d+))*")
PLAIN_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?")
"""A number as SQL writes it, which SQLite holds exactly or nearly so."""


@dataclass(frozen=True)
class Literal:
    """A literal that the question offers, the word that ends it, and the columns that hold it."""

    text: str
    word: int
    columns: tuple[Key, ...] = ()

    @property
    def value(self) -> str | int | float:
        """What SQL compares with; numbers with leading zeros are codes, and text."""
        if PLAIN_NUMBER.fullmatch(self.text) is None:
            return self.text
        return float(self.text) if "." in self.text else int(self.text)


Candidate = tuple[str, int, int, tuple[Key, ...]]
"""A literal's text, its first and last word, and the columns that hold it."""


def literals(question: str, schema: Schema, spans: Sequence[Word], places: Mapping[Key, int]) -> tuple[Literal, ...]:
    """The literals that the question offers, in question order; database values first where they overlap.

    Args:
        question: as the user asked it.
        schema: the opened schema.
        spans: the question's words.
        places: the word that mentions a column, for the columns that are mentioned.
    """
    taken: dict[str, Literal] = {}
    covered: set[int] = set()
    for pair, values in schema.flags.items():
        if pair in places:
            for value in values:
                known = taken.get(value.lower())
                columns = (*known.columns, pair) if known else (pair,)
                taken[value.lower()] = Literal(value, known.word if known else places[pair], columns)
    for text, first, last, columns in _candidates(question, schema, spans):
        key = text.lower()
        inside = set(range(first, last + 1))
        if key in taken or (inside <= covered and not re.fullmatch(r"-?\d+(\.\d+)?", text)):
            continue
        if first == 0 and not columns and last == 0 and key in STOP:
            continue
        taken[key] = Literal(text, last, columns)
        covered |= inside
        if len(taken) == MAX_LITERALS:
            break
    return tuple(sorted(taken.values(), key=lambda literal: literal.word))


def _candidates(question: str, schema: Schema, spans: Sequence[Word]) -> Iterator[Candidate]:
    """Every literal that the question or the database suggests, the surest first."""
    yield from _held(question, schema, spans)
    yield from _quoted(question, spans)
    yield from _numbers(question, spans)
    yield from _capitalised(question, spans)
    yield from _triggered(spans)


def _held(question: str, schema: Schema, spans: Sequence[Word]) -> Iterator[Candidate]:
    """Spans of the question that the database holds as a value, the longest first."""
    for size in range(min(MAX_SPAN, len(spans)), 0, -1):
        for first in range(len(spans) - size + 1):
            last = first + size - 1
            span = question[spans[first][1] : spans[last][2]].lower()
            if len(span) < 2 or span in STOP:
                continue
            key = next((key for key in _keys(span, size) if key in schema.values), None)
            if key is not None:
                held = schema.values[key]
                yield held[0][2], first, last, tuple((table.lower(), column.lower()) for table, column, _ in held)


def _keys(span: str, size: int) -> Iterator[str]:
    """What a lower-cased span of ``size`` words may stand as among the values."""
    yield span
    if size == 1:
        place = DEMONYMS.get(span, span)
        yield from CODES.get(span, ())
        yield from PLACES.get(place, (place,))
    if span.endswith("s") and len(span) > 3:
        yield span[:-1]


def _quoted(question: str, spans: Sequence[Word]) -> Iterator[Candidate]:
    for match in QUOTED.finditer(question):
        inside = _inside(match, spans)
        if inside:
            yield next(group for group in match.groups() if group), inside[0], inside[-1], ()


def _numbers(question: str, spans: Sequence[Word]) -> Iterator[Candidate]:
    """Numbers and dates in digits, then numbers in words."""
    for match in NUMBER.finditer(question):
        inside = _inside(match, spans)
        if inside:
            yield match.group(0).replace(",", ""), inside[0], inside[-1], ()
    for index, (word, _, _) in enumerate(spans):
        if word.lower() in NUMBERS:
            yield NUMBERS[word.lower()], index, index, ()


def _inside(match: re.Match[str], spans: Sequence[Word]) -> list[int]:
    return [index for index, (_, start, end) in enumerate(spans) if match.start() <= start and end <= match.end()]


def _capitalised(question: str, spans: Sequence[Word]) -> Iterator[Candidate]:
    """Names by their capitals, except a lone first word."""
    starts = {start: index for index, (_, start, _) in enumerate(spans)}
    ends = {end: index for index, (_, _, end) in enumerate(spans)}
    for match in NAME.finditer(question):
        text = match.group(0)
        if not text[0].isupper():
            continue
        text = re.sub(r"('s|(\s+(of|the|and|de|&))+|[.'])+$", "", text)
        first, end = starts.get(match.start()), ends.get(match.start() + len(text))
        if first is not None and end is not None and not (first == 0 and end == 0):
            yield text, first, end, ()


def _triggered(spans: Sequence[Word]) -> Iterator[Candidate]:
    """The word after one that announces text, as in "contains the letter x"."""
    for index, (word, _, _) in enumerate(spans[:-1]):
        if word.lower() in TRIGGERS:
            skip = 2 if spans[index + 1][0].lower() in ("the", "a", "an", "word", "letter", "letters", "with") else 1
            if index + skip < len(spans):
                text = spans[index + skip][0]
                if text.lower() not in STOP and text.lower() not in TRIGGERS:
                    yield text, index + skip, index + skip, ()
