"""Schema linking: which tables, columns and literals a question speaks of, and where it speaks of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import snowballstemmer

from experts.sql.schema import Schema

MAX_TABLES = 6
MAX_COLUMNS = 12
"""Columns shown per table."""
MAX_POINTERS = 96
MAX_LITERALS = 12
MAX_SPAN = 6
"""Words in the longest span that is looked up among the values."""

STOP = frozenset(
    "the a an of in on for to by with and or is are was were what which who whose how many much all each every list "
    "show find give me that have has had do does did name id number return there be as from at it their its than".split()
)
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
    "hungarian=hungary egyptian=egypt israeli=israel iranian=iran australian=australia asian=asia african=africa".split()
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


_STEMMER = snowballstemmer.stemmer("english")


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The Porter2 stem of a lower-cased word: one string for a word's plural and verb forms."""
    return str(_STEMMER.stemWord(word))


@lru_cache(maxsize=65536)
def words(name: str) -> tuple[str, ...]:
    """The stems of an identifier's words, split at underscores, spaces, case changes and digits."""
    spaced = re.sub(r"([a-z])([A-Z])|([A-Za-z])(\d)", r"\1\3 \2\4", name)
    return tuple(stem(word) for word in re.findall(r"[^\W_]+", spaced.lower()))


@dataclass(frozen=True)
class Mention:
    """Where a name occurs: ``word`` is the index of the question word that ends it."""

    word: int
    full: bool
    length: int


@dataclass(frozen=True)
class Literal:
    """A literal that the question offers, the word that ends it, and the columns that hold it."""

    text: str
    word: int
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def number(self) -> bool:
        return re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", self.text) is not None


@dataclass(frozen=True)
class LinkedTable:
    """A table that the model sees, with the columns that it sees, in prompt order."""

    name: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Linked:
    """A question against a schema: what the model sees of it, numbered.

    Tables are numbered by score; columns by order of mention, unmentioned ones after, in prompt order.
    """

    question: str
    schema: Schema
    tables: tuple[LinkedTable, ...]
    columns: tuple[tuple[str, str], ...]
    literals: tuple[Literal, ...]
    mentions: dict[tuple[str, str], Mention]
    edges: tuple[tuple[int, int], ...]
    """Pairs of column numbers that tables may be joined on."""
    spans: tuple[tuple[str, int, int], ...]
    """The question's words with their offsets."""


def split(question: str) -> tuple[tuple[str, int, int], ...]:
    """The question's words with start and end offsets."""
    return tuple(
        (match.group(0), match.start(), match.end())
        for match in re.finditer(r"[^\W_]+(?:(?:\.|'(?!s\b))[^\W_]+)*", question)
    )


def _locate(name: str, stems: list[str], places: dict[str, list[int]]) -> Mention | None:
    """The best occurrence of ``name`` in the question: all of its words close together, else any telling word."""
    parts = words(name)
    core = [part for part in parts if part not in STOP] or list(parts)
    if not parts:
        return None
    if all(part in places for part in parts):
        size = len(set(parts))
        for start in places[parts[0]] if size == 1 else range(len(stems)):
            window = stems[start : start + size + 2]
            if stems[start] in parts and set(parts) <= set(window):
                ends = [start + offset for offset, word in enumerate(window) if word in core]
                return Mention(max(ends[:size]), True, len(parts))
    for part in core:
        if part in places:
            return Mention(places[part][0], False, len(parts))
    for part in core:
        if len(part) >= 4:
            for place, word in enumerate(stems):
                if len(word) >= 4 and (word.startswith(part) or part.startswith(word)):
                    return Mention(place, False, len(parts))
    return None


def mentions(schema: Schema, spans: tuple[tuple[str, int, int], ...]) -> dict[tuple[str, str], Mention]:
    """Mentions by (table, column), with an empty column for the table itself; keys are lower-cased."""
    stems = [stem(word.lower()) for word, _, _ in spans]
    places: dict[str, list[int]] = {}
    for place, word in enumerate(stems):
        places.setdefault(word, []).append(place)
    found = {}
    for table in schema.tables:
        for column in ("", *(column.name for column in table.columns)):
            mention = _locate(column or table.name, stems, places)
            if mention:
                found[table.name.lower(), column.lower()] = mention
    return found


Candidate = tuple[str, int, int, tuple[tuple[str, str], ...]]
"""A literal's text, its first and last word, and the columns that hold it."""


def _candidates(question: str, schema: Schema, spans: tuple[tuple[str, int, int], ...]) -> Iterator[Candidate]:
    """Every literal that the question or the database suggests, the surest first."""
    yield from _held(question, schema, spans)
    yield from _quoted_and_numbers(question, spans)
    yield from _capitalised(question, spans)
    for index, (word, _, _) in enumerate(spans[:-1]):
        if word.lower() in TRIGGERS:
            skip = 2 if spans[index + 1][0].lower() in ("the", "a", "an", "word", "letter", "letters", "with") else 1
            if index + skip < len(spans):
                text = spans[index + skip][0]
                if text.lower() not in STOP and text.lower() not in TRIGGERS:
                    yield text, index + skip, index + skip, ()


def _held(question: str, schema: Schema, spans: tuple[tuple[str, int, int], ...]) -> Iterator[Candidate]:
    """Spans of the question that the database holds as a value, the longest first."""
    for size in range(min(MAX_SPAN, len(spans)), 0, -1):
        for first in range(len(spans) - size + 1):
            last = first + size - 1
            span = question[spans[first][1] : spans[last][2]].lower()
            keys: tuple[str, ...] = (span,)
            if size == 1:
                place = DEMONYMS.get(span, span)
                keys += CODES.get(span, ()) + PLACES.get(place, (place,))
            if span.endswith("s") and len(span) > 3:
                keys += (span[:-1],)
            if len(span) < 2 or span in STOP:
                continue
            for key in keys:
                if key in schema.values:
                    held = schema.values[key]
                    yield held[0][2], first, last, tuple((table.lower(), column.lower()) for table, column, _ in held)
                    break


def _quoted_and_numbers(question: str, spans: tuple[tuple[str, int, int], ...]) -> Iterator[Candidate]:
    for match in re.finditer(r"\"([^\"]+)\"|(?<!\w)'([^']+)'(?!\w)|“([^”]+)”|‘([^’]+)’", question):
        text = next(group for group in match.groups() if group)
        inside = [index for index, (_, start, end) in enumerate(spans) if match.start() <= start and end <= match.end()]
        if inside:
            yield text, inside[0], inside[-1], ()
    for match in re.finditer(
        r"(?<![\w.])\d{4}-\d{1,2}-\d{1,2}(?: \d{2}:\d{2}:\d{2})?|(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)", question
    ):
        inside = [index for index, (_, start, end) in enumerate(spans) if match.start() <= start and end <= match.end()]
        if inside:
            yield match.group(0).replace(",", ""), inside[0], inside[-1], ()
    for index, (word, _, _) in enumerate(spans):
        if word.lower() in NUMBERS:
            yield NUMBERS[word.lower()], index, index, ()


def _capitalised(question: str, spans: tuple[tuple[str, int, int], ...]) -> Iterator[Candidate]:
    """Names by their capitals, except a lone first word."""
    starts = {start: index for index, (_, start, _) in enumerate(spans)}
    ends = {end: index for index, (_, _, end) in enumerate(spans)}
    for match in re.finditer(r"[^\W\d_][\w'.&-]*(?:\s+(?:of|the|and|de|&|[^\W\d_a-z][\w'.&-]*|\d+))*", question):
        text = match.group(0)
        if not text[0].isupper():
            continue
        text = re.sub(r"('s|(\s+(of|the|and|de|&))+|[.'])+$", "", text)
        first, end = starts.get(match.start()), ends.get(match.start() + len(text))
        if first is not None and end is not None and not (first == 0 and end == 0):
            yield text, first, end, ()


def literals(
    question: str, schema: Schema, spans: tuple[tuple[str, int, int], ...], found: dict[tuple[str, str], Mention]
) -> tuple[Literal, ...]:
    """The literals that the question offers, in question order; database values first where they overlap."""
    taken: dict[str, Literal] = {}
    covered: set[int] = set()
    for pair, values in schema.flags.items():
        if pair in found:
            for value in values:
                known = taken.get(value.lower())
                columns = (*known.columns, pair) if known else (pair,)
                taken[value.lower()] = Literal(value, known.word if known else found[pair].word, columns)
    for text, first, last, columns in _candidates(question, schema, spans):
        key = text.lower()
        inside = set(range(first, last + 1))
        if key in taken or (inside <= covered and not re.fullmatch(r"-?\d+(\.\d+)?", text)):
            continue
        if first == 0 and not columns and last == 0 and text.lower() in STOP:
            continue
        taken[key] = Literal(text, last, columns)
        covered |= inside
        if len(taken) == MAX_LITERALS:
            break
    return tuple(sorted(taken.values(), key=lambda literal: literal.word))


def link(
    question: str, schema: Schema, *, rng: Random | None = None, keep: frozenset[tuple[str, str]] = frozenset()
) -> Linked:
    """Choose and number what the model sees of ``schema`` for ``question``.

    Args:
        question: as the user asked it.
        schema: the opened schema.
        rng: training only: jitters the order of tables, shuffles columns and drops irrelevant tables.
        keep: training only: lower-cased (table, column) pairs, and (table, "") for tables, that must be seen.
    """
    spans = split(question)
    found = mentions(schema, spans)
    offered = literals(question, schema, spans, found)
    held = {column for literal in offered for column in literal.columns}
    chosen = _choose(schema, found, held, rng, keep)
    numbered = sorted(
        ((table.name, column) for table in chosen for column in table.columns),
        key=lambda pair: _order(found.get((pair[0].lower(), pair[1].lower()))),
    )[:MAX_POINTERS]
    place = {(table.lower(), column.lower()): number for number, (table, column) in enumerate(numbered)}
    edges = tuple((place[left], place[right]) for left, right in schema.edges() if left in place and right in place)
    return Linked(question, schema, chosen, tuple(numbered), offered, found, edges, spans)


def _order(mention: Mention | None) -> tuple[bool, int, bool, int]:
    return (True, 0, False, 0) if mention is None else (False, mention.word, not mention.full, -mention.length)


def _grade(mention: Mention | None, full: float, partial: float) -> float:
    return 0.0 if mention is None else full if mention.full else partial


def _choose(
    schema: Schema,
    found: dict[tuple[str, str], Mention],
    held: set[tuple[str, str]],
    rng: Random | None,
    keep: frozenset[tuple[str, str]],
) -> tuple[LinkedTable, ...]:
    """The tables shown, best first, and their columns."""
    edges = schema.edges()
    keys = {column for edge in edges for column in edge}
    scores = {}
    for table in schema.tables:
        name = table.name.lower()
        score = _grade(found.get((name, "")), 2.0, 1.0)
        for column in table.columns:
            pair = (name, column.name.lower())
            score += _grade(found.get(pair), 1.0, 0.4) + (1.5 if pair in held else 0.0)
        scores[name] = score + (rng.random() if rng else 0.0)
    order = sorted(schema.tables, key=lambda table: -scores[table.name.lower()])
    shown = order[:MAX_TABLES]
    for table in order[MAX_TABLES:]:
        if (table.name.lower(), "") in keep:
            shown.append(table)
    shown = _bridged(shown, order, edges, scores)
    if rng and rng.random() < 0.5:
        shown = [table for table in shown if (table.name.lower(), "") in keep or rng.random() < 0.75]
    if rng and rng.random() < 0.2:
        rng.shuffle(shown)
    result = []
    for table in shown:
        name = table.name.lower()
        columns = list(table.columns)
        if len(columns) > MAX_COLUMNS:
            worth = {
                column.name: _grade(found.get((name, column.name.lower())), 2.0, 1.0)
                + (3.0 if (name, column.name.lower()) in held else 0.0)
                + (1.5 if (name, column.name.lower()) in keys else 0.0)
                + (9.0 if (name, column.name.lower()) in keep else 0.0)
                - 0.01 * place
                for place, column in enumerate(columns)
            }
            best = set(sorted(worth, key=lambda column: -worth[column])[:MAX_COLUMNS])
            columns = [column for column in columns if column.name in best]
        if rng and rng.random() < 0.4:
            rng.shuffle(columns)
        result.append(LinkedTable(table.name, tuple(column.name for column in columns)))
    return tuple(result)


def _bridged(shown: list, order: list, edges: list, scores: dict[str, float]) -> list:  # type: ignore[type-arg]
    """Replace the weakest shown table by one that joins two strong ones, where such a bridge was left out."""
    names = [table.name.lower() for table in shown]
    strong = {name for name in names[:3] if scores[name] >= 1.0}
    for table in order[MAX_TABLES:]:
        name = table.name.lower()
        touched = {
            other for left, right in edges for mine, other in ((left[0], right[0]), (right[0], left[0])) if mine == name
        }
        if len(touched & strong) >= 2 and name not in names:
            return [*shown, table]
    return shown
