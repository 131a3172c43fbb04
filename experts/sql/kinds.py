"""The kinds of values that the typed grammars tell apart, by a column's declared type and by what an expression says.

The expressions are those that ``sql-postgres.gbnf``, ``sql-duckdb.gbnf`` and ``sql-mysql.gbnf`` write, so what stands
first in one says what it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

NUMBER, WHOLE, TEXT, TIME, TRUTH, OTHER = "number", "whole", "text", "time", "truth", "other"
KINDS = (NUMBER, WHOLE, TEXT, TIME, TRUTH, OTHER)
MARK = "mark "
"""What the kinds of values begin with that are compared with their own type alone; the type follows, ``mark uuid``."""

GIVEN = f"{MARK}given "
"""What the kinds of literals begin with, where another query reads them."""

COMPUTED = "computed "
"""What a kind begins with where it must not be a literal."""

COMPARED = (NUMBER, TEXT, TIME)
"""The kinds whose values the arms of a set operation may have."""

_DECLARED = {
    WHOLE: "int integer tinyint smallint mediumint bigint hugeint int2 int4 int8 uint uinteger utinyint usmallint "
    "ubigint uhugeint serial bigserial smallserial long signed",
    NUMBER: "numeric number decimal dec real float float4 float8 double",
    TEXT: "text char character varchar varchar2 nvarchar nchar bpchar clob tinytext mediumtext longtext string name",
    TIME: "date datetime datetime2 smalldatetime timestamp timestamptz timestamp_s timestamp_ms timestamp_ns",
    TRUTH: "bool boolean logical",
}
_NAMED = {name: kind for kind, names in _DECLARED.items() for name in names.split()}
_AFTER = re.compile(
    r" *\([^()]*\)| (unsigned|signed|zerofill|precision|varying|large object|with(out)? (local )?time zone|identity)\b"
)
"""What follows a type's name without changing its kind."""

_MARK = re.compile(r"(\S+ )?enum ?\(.*\)|uuid|time( ?\(\d\))?( without time zone)?|inet|macaddr", re.DOTALL)
_QUOTED = re.compile(r"'((?:[^']|'')*)'")

Word = tuple[str, int]
"""A word and where it begins."""

_TRUTH = frozenset(("AND", "OR", "NOT", "=", "!", "<", ">", "IS", "LIKE", "ILIKE", "BETWEEN", "IN", "EXISTS"))
_TEXTS = frozenset(
    "UPPER LOWER TRIM LTRIM RTRIM REVERSE REPLACE SUBSTRING LEFT RIGHT CONCAT SPLIT_PART TO_CHAR STRFTIME DATE_FORMAT "
    "STRING_AGG GROUP_CONCAT".split()
)
_TIMES = frozenset(("DATE", "TIMESTAMP", "DATE_TRUNC", "LAST_DAY", "CURRENT_DATE", "CURRENT_TIMESTAMP"))
_FIRST = frozenset(
    "MIN MAX ANY_VALUE ARG_MAX ARG_MIN COALESCE NULLIF GREATEST LEAST LAG LEAD FIRST_VALUE LAST_VALUE".split()
)
_CAST = {
    **dict.fromkeys(("TEXT", "VARCHAR", "CHAR"), TEXT),
    **dict.fromkeys(("DATE", "TIMESTAMP", "DATETIME"), TIME),
}


def declared(type_name: str) -> str:
    """The kind of a column of a declared type, in lower case; text where none is declared."""
    if not type_name:
        return TEXT
    if _MARK.fullmatch(type_name):
        return MARK + type_name
    if type_name.startswith("tinyint(1)"):
        return TRUTH
    return _NAMED.get(_AFTER.sub("", type_name).strip(), OTHER)


def enumerated(kind: str) -> list[str]:
    """The values of an enumeration, by its type or its kind; none of any other."""
    return [word.replace("''", "'") for word in _QUOTED.findall(kind)]


def comparable(kind: str) -> bool:
    """Whether the values of a kind can be told apart and put in order."""
    return kind != OTHER


def inferred(words: Sequence[Word], column: Callable[[str], str | None], query: Callable[[int], str | None]) -> str:
    """The kind of an expression.

    Args:
        words: the expression.
        column: the kind of ``source.column``.
        query: the kind of the one column of the subquery whose parenthesis is at a place in the text.
    """
    if not words:
        return OTHER
    levels = list(_levels(words))
    if any(word in _TRUTH for (word, _), level in zip(words, levels, strict=True) if not level):
        return TRUTH
    first, place = words[0]
    if first == "(":
        end = levels.index(0, 1) if 0 in levels[1:] else len(words) - 1
        asks = words[1][0] in ("FROM", "SELECT")
        found = (query(place) or OTHER) if asks else inferred(words[1:end], column, query)
        words = words[end:]
    elif first == "-":
        return NUMBER
    elif first in ("TRUE", "FALSE"):
        return TRUTH
    elif first[0] == "'":
        found = TEXT
    elif first[0].isdigit() or first == "EXTRACT":
        return NUMBER
    elif first == "CASE":
        begin = next(n for n, (word, _) in enumerate(words) if word == "THEN" and levels[n] == 1) + 1
        last = {("WHEN", 1), ("ELSE", 1), ("END", 0)}
        end = next(n for n, (word, _) in enumerate(words) if n > begin and (word, levels[n]) in last)
        found = inferred(words[begin:end], column, query)
    elif first == "CAST":
        return _casted(words, levels, column, query)
    elif first in _TEXTS:
        found = TEXT
    elif first in _TIMES:
        found = TIME
    elif len(words) > 1 and words[1][0] == "(":
        if first not in _FIRST:
            return NUMBER
        return inferred(_argument(words[2:]), column, query)
    else:
        found = column("".join(word for word, _ in words[:3])) or OTHER
    return _with_operator(found, words, levels[-len(words) :])


def _argument(words: Sequence[Word]) -> Sequence[Word]:
    """The first argument of the call whose parenthesis is open before ``words``."""
    for number, (level, (word, _)) in enumerate(zip(_levels(words), words, strict=True)):
        if level < 0 or (not level and word == ","):
            return words[:number]
    return words


def _casted(
    words: Sequence[Word],
    levels: Sequence[int],
    column: Callable[[str], str | None],
    query: Callable[[int], str | None],
) -> str:
    at = next(n for n, (word, _) in enumerate(words) if word == "AS" and levels[n] == 1)
    return _with_operator(_CAST.get(words[at + 1][0], NUMBER), words, levels)


def _with_operator(found: str, words: Sequence[Word], levels: Sequence[int]) -> str:
    """The kind once operators at the outermost level are taken into account."""
    for (word, _), level, (after, _) in zip(words, levels, words[1:], strict=False):
        if level or word not in ("+", "-", "*", "/", "%", "|"):
            continue
        if word == "|":
            return TEXT
        if found == TIME:
            return TIME if after == "INTERVAL" else NUMBER
        return NUMBER
    return found


def _levels(words: Sequence[Word]) -> Sequence[int]:
    """How deep each word stands in parentheses and CASE; what opens and closes stands outside, THEN inside."""
    level = 0
    found = []
    for word, _ in words:
        if word in (")", "END"):
            level -= 1
        found.append(level)
        if word in ("(", "CASE"):
            level += 1
    return found
