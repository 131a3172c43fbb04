"""FROM-first SQL with every construct of the full grammars, turned into ordinary SQL."""

from __future__ import annotations

import re

from expert_cli.errors import ContextError

_KEYWORD = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|[()]|\bDISTINCT FROM\b"
    r"|\b(?:WITH RECURSIVE|WITH|FROM|SELECT|WHERE|GROUP BY|HAVING|ORDER BY|LIMIT|OFFSET)\b"
    r"|\b(?:UNION ALL|UNION|INTERSECT|EXCEPT)\b"
)
# What the typed grammars spell so that one byte tells it from everything else that may stand there.
_ORDINARY = {" LATERAL JOIN (": " CROSS JOIN LATERAL ("}
_SPELT = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`(?:[^`]|``)*`|" + "|".join(map(re.escape, _ORDINARY)))
TOGETHER = ("GROUP BY", "()")
_SET_OPERATORS = ("UNION ALL", "UNION", "INTERSECT", "EXCEPT")


def select_first(text: str) -> str:
    """Ordinary SQL for FROM-first ``text``.

    Raises:
        ContextError: parentheses do not match, or a query has no SELECT.
    """
    text = _SPELT.sub(lambda match: _ORDINARY.get(match[0], match[0]), _inside(text))
    marks = [(match.group(), match.start(), match.end()) for match in _top_level(text)]
    clauses = [
        (word, text[end:stop].strip())
        for (word, _, end), stop in zip(marks, [start for _, start, _ in marks[1:]] + [len(text)], strict=True)
    ]
    out: list[str] = []
    if clauses and clauses[0][0].startswith("WITH"):
        out.append(" ".join(clauses.pop(0)))
    arm: dict[str, str] = {}
    for word, body in [*clauses, ("", "")]:
        if word in _SET_OPERATORS or not word:
            out += [*_arm(arm, text), *([word] if word else [])]
            arm = {}
        else:
            arm[word] = body
    return " ".join(out)


def _arm(clauses: dict[str, str], text: str) -> list[str]:
    if "SELECT" not in clauses:
        raise ContextError(f"{text[:120]!r} lacks SELECT; write FROM, then SELECT")
    clauses = {**clauses, "SELECT": _apart(clauses["SELECT"])}
    order = ("SELECT", "FROM", *(word for word in clauses if word not in ("SELECT", "FROM")))
    # the rows taken together: said inside, where SELECT must know it; understood outside
    return [f"{word} {clauses[word]}" for word in order if word in clauses and (word, clauses[word]) != TOGETHER]


def _top_level(text: str) -> list[re.Match[str]]:
    depth = 0
    found = []
    for match in _KEYWORD.finditer(text):
        depth += {"(": 1, ")": -1}.get(match.group(), 0)
        if not depth and match.group()[0].isalpha() and match.group() != "DISTINCT FROM":
            found.append(match)
    if depth:
        raise ContextError(f"parentheses do not match in {text[:120]!r}")
    return found


def _inside(text: str) -> str:
    """``text`` with the queries in its parentheses turned, the innermost first."""
    out: list[str] = [""]
    place = 0
    for match in _KEYWORD.finditer(text):
        if match.group() == "(":
            out[-1] += text[place : match.end()]
            out.append("")
            place = match.end()
        elif match.group() == ")" and len(out) > 1:
            inner = out.pop() + text[place : match.start()]
            out[-1] += (select_first(inner) if inner.startswith(("FROM ", "SELECT ")) else inner) + ")"
            place = match.end()
    if len(out) != 1:
        raise ContextError(f"parentheses do not match in {text[:120]!r}")
    return out[0] + text[place:]


def _apart(body: str) -> str:
    """``body`` with a space after DISTINCT ON (...), where the inner form has none."""
    if not body.startswith("DISTINCT ON ("):
        return body
    end = next(mark.end() for mark in _KEYWORD.finditer(body) if mark[0] == ")" and not _open(body[: mark.end()]))
    return f"{body[:end]} {body[end:].lstrip()}"


def _open(text: str) -> int:
    """How many parentheses are open at the end of ``text``."""
    return sum({"(": 1, ")": -1}.get(mark[0], 0) for mark in _KEYWORD.finditer(text))
