"""The literals that a question offers: values that the database holds, quoted text, numbers, dates and names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from experts.sql.schema import Key, Schema, squash
from experts.sql.words import STOP, Word, stem

MAX_LITERALS = 12
MAX_SPAN = 6
"""Words in the longest span that is looked up among the values."""

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
NUMBERS = {word: str(number) for number, word in enumerate(_ONES.split())}
NUMBERS |= {word: str(10 * number) for number, word in enumerate(_TENS.split(), 2)}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
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
STATES = dict(
    pair.split("=")
    for pair in "alabama=al alaska=ak arizona=az arkansas=ar california=ca colorado=co connecticut=ct delaware=de "
    "florida=fl georgia=ga hawaii=hi idaho=id illinois=il indiana=in iowa=ia kansas=ks kentucky=ky louisiana=la "
    "maine=me maryland=md massachusetts=ma michigan=mi minnesota=mn mississippi=ms missouri=mo montana=mt nebraska=ne "
    "nevada=nv new_hampshire=nh new_jersey=nj new_mexico=nm new_york=ny north_carolina=nc north_dakota=nd ohio=oh "
    "oklahoma=ok oregon=or pennsylvania=pa rhode_island=ri south_carolina=sc south_dakota=sd tennessee=tn texas=tx "
    "utah=ut vermont=vt virginia=va washington=wa west_virginia=wv wisconsin=wi wyoming=wy".split()
)
MONTHS = {
    name[:size]: number
    for number, name in enumerate(
        "january february march april may june july august september october november december".split(), 1
    )
    for size in (3, len(name))
}
ENDINGS = ("", "e", "d", "ed", "s", "es", "ing", "er", "eer", "y", "ly", "al", "ful", "ion", "ation")
"""What may follow a word's stem in a value of one word."""

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
    "girl": ("f", "female"),
    "girls": ("f", "female"),
    "boy": ("m", "male"),
    "boys": ("m", "male"),
}
"""Words whose value a database often holds as a code."""

QUOTED = re.compile(r"\"([^\"]+)\"|(?<!\w)'([^']+)'(?!\w)|\u201c([^\u201d]+)\u201d|\u2018([^\u2019]+)\u2019")
NUMBER = re.compile(
    r"(?<![\w.])\d{4}-\d{1,2}-\d{1,2}(?: \d{2}:\d{2}:\d{2})?|(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)"
)
NAME = re.compile(r"(?<![\w'.&-])[^\W\d_a-z][\w'.&-]*(?:\s+(?:of|the|and|de|&|[^\W\d_a-z][\w'.&-]*|\d+))*")
_MONTH = f"(?P<name>{'|'.join(sorted(MONTHS, key=len, reverse=True))})"
DATES = (
    re.compile(rf"(?<!\w){_MONTH}\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?,? (?P<year>\d{{4}})(?!\w)", re.I),
    re.compile(rf"(?<!\w)(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?: of)? {_MONTH}\.?,? (?P<year>\d{{4}})(?!\w)", re.I),
    re.compile(rf"(?<!\w){_MONTH}\.?,? (?:of )?(?P<year>\d{{4}})(?!\w)", re.I),
    re.compile(r"(?<![\w/])(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})(?![\w/])"),
)
"""Dates that people write, day within month before month within year; numbers alone are read month first."""
SMALL_NUMBERS = frozenset(map(str, range(11)))
"""Numbers that any query may hold."""
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
    unheld: set[tuple[int, int]] = set()
    for pair, values in schema.flags.items():
        if pair in places:
            for value in values:
                known = taken.get(value.lower())
                columns = (*known.columns, pair) if known else (pair,)
                taken[value.lower()] = Literal(value, known.word if known else places[pair], columns)
    for text, first, last, columns in _candidates(question, schema, spans):
        key = text.lower()
        inside = set(range(first, last + 1))
        repeats = inside <= covered and not (columns and (first, last) in unheld)
        if key in taken or (repeats and not re.fullmatch(r"-?\d+(\.\d+)?", text)):
            continue
        if first == 0 and not columns and last == 0 and key in STOP:
            continue
        taken[key] = Literal(text, last, columns)
        covered |= inside
        if not columns:
            unheld.add((first, last))
        if len(taken) == MAX_LITERALS:
            break
    return tuple(sorted(taken.values(), key=lambda literal: literal.word))


def _candidates(question: str, schema: Schema, spans: Sequence[Word]) -> Iterator[Candidate]:
    """Every literal that the question or the database suggests, the surest first."""
    yield from _held(question, schema, spans)
    yield from _quoted(question, spans)
    yield from _dates(question, schema, spans)
    yield from _numbers(question, spans)
    yield from _capitalised(question, spans)
    yield from _triggered(spans)
    yield from _resembling(question, schema, spans)


def _held(question: str, schema: Schema, spans: Sequence[Word]) -> Iterator[Candidate]:
    """Spans of the question that the database holds as a value, the longest first."""
    for size in range(min(MAX_SPAN, len(spans)), 0, -1):
        for first in range(len(spans) - size + 1):
            last = first + size - 1
            written = question[spans[first][1] : spans[last][2]]
            span = written.lower()
            # a letter or a stop word in capitals, as in "grade A" or "division AS", unless it begins the question
            told = written.isupper() and (first > 0 or size > 1)
            if (len(span) < 2 or span in STOP) and not told:
                continue
            key = next((key for key in _keys(span, size) if key in schema.values), None)
            key = key or (schema.squashed.get(squash(span)) if len(span) > 3 else None)
            if key is not None:
                yield _value(schema, key, first, last)


def _value(schema: Schema, key: str, first: int, last: int) -> Candidate:
    held = schema.values[key]
    return held[0][2], first, last, tuple((table.lower(), column.lower()) for table, column, _ in held)


def _keys(span: str, size: int) -> Iterator[str]:
    """What a lower-cased span of ``size`` words may stand as among the values."""
    yield span
    yield span + "."
    place = DEMONYMS.get(span, span)
    if size == 1:
        yield from CODES.get(span, ())
    for name, others in PLACES.items():
        if place == name or (size > 1 and place in others):
            yield from others
    yield place
    if (state := STATES.get(span.replace(" ", "_"))) is not None:
        yield state
    if span.endswith("s") and len(span) > 3:
        yield span[:-1]


def _resembling(question: str, schema: Schema, spans: Sequence[Word]) -> Iterator[Candidate]:
    """Values that a word's stem begins, and values a letter or two away from a name."""
    for place, (word, _, _) in enumerate(spans):
        lower = word.lower()
        if lower[:3] in MONTHS and lower in MONTHS and lower[:3] in schema.values:
            yield _value(schema, lower[:3], place, place)
        if len(lower) < 5 or lower in STOP or lower in schema.values:
            continue
        root = stem(lower)
        formed = (begun + ending for begun in (root, root + root[-1]) for ending in ENDINGS)
        key = next((form for form in formed if form in schema.values), None)
        if key is not None and len(key) > 3:
            yield _value(schema, key, place, place)
    for text, first, last, _ in (*_quoted(question, spans), *_capitalised(question, spans)):
        key = schema.resembling(text.lower())
        if key is not None:
            yield _value(schema, key, first, last)


def _quoted(question: str, spans: Sequence[Word]) -> Iterator[Candidate]:
    for match in QUOTED.finditer(question):
        inside = _inside(match, spans)
        if inside:
            yield next(group for group in match.groups() if group), inside[0], inside[-1], ()


def _dates(question: str, schema: Schema, spans: Sequence[Word]) -> Iterator[Candidate]:
    """Dates in words or with slashes, as ISO 8601 writes them."""
    for pattern in DATES:
        for match in pattern.finditer(question):
            parts = match.groupdict()
            month = int(parts["month"]) if "month" in parts else MONTHS[parts["name"].lower()]
            day = int(parts["day"]) if "day" in parts else None
            inside = _inside(match, spans)
            if inside and 1 <= month <= 12 and (day is None or 1 <= day <= 31):
                text = f"{parts['year']}-{month:02}" + ("" if day is None else f"-{day:02}")
                if text in schema.values:
                    yield _value(schema, text, inside[0], inside[-1])
                else:
                    yield text, inside[0], inside[-1], ()


def _numbers(question: str, spans: Sequence[Word]) -> Iterator[Candidate]:
    """Numbers and dates in digits, then numbers in words."""
    for match in NUMBER.finditer(question):
        inside = _inside(match, spans)
        if inside:
            text = match.group(0).replace(",", "")
            following = spans[inside[-1] + 1][0].lower() if inside[-1] + 1 < len(spans) else ""
            if following in SCALES and PLAIN_NUMBER.fullmatch(text):
                yield _scaled(text, following), inside[0], inside[-1] + 1, ()
            yield text, inside[0], inside[-1], ()
    for index, (word, _, _) in enumerate(spans):
        if (number := NUMBERS.get(word.lower())) is not None:
            following = spans[index + 1][0].lower() if index + 1 < len(spans) else ""
            if following in SCALES:
                yield _scaled(number, following), index, index + 1, ()
            yield number, index, index, ()


def _scaled(number: str, scale: str) -> str:
    value = float(number) * SCALES[scale]
    return str(int(value)) if value.is_integer() else str(value)


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
            following = spans[index + 1][0].lower()
            letter = word.lower() in ("letter", "letters") and len(following) == 1
            skip = 2 if following in ("the", "a", "an", "word", "letter", "letters", "with") and not letter else 1
            if index + skip < len(spans):
                text = spans[index + skip][0]
                if letter or (text.lower() not in STOP and text.lower() not in TRIGGERS):
                    yield text, index + skip, index + skip, ()


WRITTEN = re.compile(r"'((?:[^']|'')*)'|\"[^\"]*\"|`[^`]*`|(?<![\w.])(\d+(?:\.\d+)?)")
"""A literal of a query, or a quoted name, in which there may be what looks like one."""


def made_up(query: str, offered: Sequence[Literal]) -> int:
    """How many literals of ``query`` are neither offered, alone or in a LIKE pattern, nor a small number."""
    known = {literal.text.strip().lower() for literal in offered}
    found = 0
    for text, number in WRITTEN.findall(query):
        if number:
            found += number not in known and number not in SMALL_NUMBERS
        elif text:
            found += text.replace("''", "'").strip("%").strip().lower() not in known
    return found
