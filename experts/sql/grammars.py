"""Write ``grammars/sql-{postgres,duckdb,mysql}.gbnf`` of a source checkout from what they have in common.

    python -m experts.sql.grammars

A line of ``packaging/typed.gbnf`` that begins with ``@duckdb,postgres`` is for these dialects alone.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DIALECTS = {"postgres": "PostgreSQL", "duckdb": "DuckDB", "mysql": "MySQL"}


def grammar(dialect: str) -> str:
    """The text of one dialect's grammar."""
    lines = []
    for line in (ROOT / "packaging" / "typed.gbnf").read_text("utf-8").splitlines(keepends=True):
        if line.startswith("@"):
            marks, _, line = line[1:].partition(" ")
            if dialect not in marks.split(","):
                continue
        lines.append(line.replace("NAME", DIALECTS[dialect], 1).replace("DIALECT", dialect, 1))
    return "".join(lines)


def main() -> None:
    for dialect in DIALECTS:
        (ROOT / "grammars" / f"sql-{dialect}.gbnf").write_text(grammar(dialect), "utf-8", newline="\n")


if __name__ == "__main__":
    main()
