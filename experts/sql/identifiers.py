"""How names and values are written in SQL."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FOLDED = re.compile(r"[a-z_][a-z0-9_]*")

# The words that SQLite does not take as a bare identifier.
_RESERVED = """
ADD ALL ALTER AND AS AUTOINCREMENT BETWEEN CASE CAST CHECK COLLATE COMMIT CONSTRAINT CREATE CROSS CURRENT_DATE
CURRENT_TIME CURRENT_TIMESTAMP DEFAULT DEFERRABLE DELETE DISTINCT DROP ELSE ESCAPE EXCEPT EXISTS FOREIGN FROM FULL GROUP
HAVING IN INDEX INNER INSERT INTERSECT INTO IS ISNULL JOIN LEFT LIMIT NATURAL NOT NOTHING NOTNULL NULL ON OR ORDER OUTER
PRIMARY RAISE REFERENCES RETURNING RIGHT SELECT SET TABLE THEN TO TRANSACTION UNION UNIQUE UPDATE USING VALUES WHEN
WHERE
"""
RESERVED = frozenset(_RESERVED.split())
_CLAUSES = frozenset(("WITH", "OFFSET"))
"""What SQLite takes for a name too, but who reads the clauses of a query does not."""


def folded(name: str) -> bool:
    """Whether a server that folds names reads ``name`` as it is, unless it is reserved."""
    return _FOLDED.fullmatch(name) is not None


def quoted(name: str) -> str:
    """``name`` as an identifier, in double quotes only where SQL needs them."""
    if _PLAIN.fullmatch(name) and name.upper() not in RESERVED and name not in _CLAUSES:
        return name
    return '"' + name.replace('"', '""') + '"'


def literal(value: str | int | float) -> str:
    """``value`` as a SQL literal."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)
