"""Windows that hold aggregates: the rows of such a query must be grouped.

SQLite takes a condition on such a query from outside for one on its groups, and refuses it where there are none.
"""

from __future__ import annotations

from collections.abc import Sequence

_AGGREGATES = frozenset(("COUNT", "SUM", "AVG", "MIN", "MAX", "TOTAL", "GROUP_CONCAT"))


def anywhere(words: Sequence[str]) -> bool:
    """Whether a window holds an aggregate anywhere in ``words``."""
    places = [place for place, word in enumerate(words, 1) if word == "OVER" or word in _AGGREGATES]
    return any(windowed(words[:place]) for place in places)


def windowed(words: Sequence[str]) -> bool:
    """Whether the last of ``words`` shows that a window holds an aggregate: OVER after one, or one after OVER."""
    if words[-1] == "OVER":
        begin = end = len(words) - 1
        while words[end - 1 : end] == [")"]:
            begin = _opening(words, end - 1)
            if words[begin - 1] != "FILTER":
                break
            end = begin - 1
        inside = words[begin + 1 : max(end - 1, 0)]
        return any(_aggregate(inside, place) for place, word in enumerate(inside) if word in _AGGREGATES)
    if words[-1] not in _AGGREGATES or words[-2:-1] == ["."]:
        return False
    place = len(words) - 1
    while (place := _opening(words, place)) > 0:
        if words[place - 1] == "OVER":
            return True
    return False


def _aggregate(words: Sequence[str], place: int) -> bool:
    """Whether the word at ``place`` calls an aggregate, which MIN and MAX of several values are not."""
    if words[place + 1 : place + 2] != ["("] or words[max(place - 1, 0)] == ".":
        return False
    depth = 0
    for word in words[place + 1 :]:
        depth += {"(": 1, ")": -1}.get(word, 0)
        if not depth:
            break
        if word == "," and depth == 1 and words[place] in ("MIN", "MAX"):
            return False
    return True


def _opening(words: Sequence[str], place: int) -> int:
    """The parenthesis that is open before the word at ``place``, or -1."""
    depth = 0
    for before in range(place - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(words[before], 0)
        if depth < 0:
            return before
    return -1
