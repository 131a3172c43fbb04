"""Words of questions and of identifiers, and the stems by which they are compared."""

from __future__ import annotations

import re
from functools import lru_cache

import snowballstemmer

Word = tuple[str, int, int]
"""A word of the question with its start and end offsets."""

STOP = frozenset(
    "the a an of in on for to by with and or is are was were what which who whose how many much all each every list "
    "show find give me that have has had do does did name id number return there be as from at it their its "
    "than".split()
)
"""Words that tell nothing of what is asked."""

_STEMMER = snowballstemmer.stemmer("english")


def split(question: str) -> tuple[Word, ...]:
    """The question's words; the ``s`` of a possessive is one of its own."""
    return tuple(
        (match.group(0), match.start(), match.end())
        for match in re.finditer(r"[^\W_]+(?:(?:\.|'(?!s\b))[^\W_]+)*", question)
    )


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The Porter2 stem of a lower-cased word: one string for a word's plural and verb forms."""
    return str(_STEMMER.stemWord(word))


@lru_cache(maxsize=65536)
def stems(name: str) -> tuple[str, ...]:
    """The stems of an identifier's words, split at underscores, spaces, case changes and digits."""
    spaced = re.sub(r"([a-z])([A-Z])|([A-Za-z])(\d)", r"\1\3 \2\4", name)
    return tuple(stem(word) for word in re.findall(r"[^\W_]+", spaced.lower()))
