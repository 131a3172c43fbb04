"""How many of sqlglot's identity lines and of TPC-H's queries the generic grammar accepts.

    python benchmarks/identity.py --sqlglot sqlglot-30.30.0.tar.gz [--refusals]

The archive is sqlglot's source distribution (``pip download --no-binary :all: --no-deps sqlglot``), whose tests hold
both. Of ``identity.sql`` every line that begins with SELECT or WITH counts, unless it goes on to change data; comments
are left out, as sqlglot prints it. TPC-H's queries are printed by sqlglot on one line.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

import sqlglot
from sqlglot import exp

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from grammar_cases import Open, accepts

from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.tokens import bytewise

GRAMMAR = Path(__file__).resolve().parents[1] / "grammars" / "sql-generic.gbnf"


def member(archive: Path, end: str) -> str:
    """The text of a file of the source distribution."""
    with tarfile.open(archive) as opened:
        name = next(one for one in opened.getnames() if one.endswith(end))
        file = opened.extractfile(name)
        assert file is not None
        return file.read().decode()


def identity(archive: Path) -> Iterable[str]:
    """The queries among the identity lines."""
    for line in member(archive, "tests/fixtures/identity.sql").splitlines():
        if line.startswith(("SELECT", "WITH")):
            parsed = sqlglot.parse_one(line)
            if isinstance(parsed, exp.Query):
                yield parsed.sql(comments=False)


def tpc_h(archive: Path) -> Iterable[str]:
    """The 22 queries, without the lines that say what an optimiser makes of them."""
    text = member(archive, "tests/fixtures/optimizer/tpc-h/tpc-h.sql")
    statements = [one for one in sqlglot.parse(text) if isinstance(one, exp.Query)]
    return [one.sql(comments=False) for one in statements[::2]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sqlglot", type=Path, required=True, help="sqlglot's source distribution")
    parser.add_argument("--refusals", action="store_true", help="list what is refused")
    asked = parser.parse_args()
    vocabulary = bytewise(("<e>",), "<e>")
    matcher = Matcher(vocabulary, GRAMMAR.read_text(encoding="utf-8"), Open())
    for name, queries in (("identity", identity(asked.sqlglot)), ("tpc-h", tpc_h(asked.sqlglot))):
        lines = list(queries)
        refused = [one for one in lines if not accepts(matcher.fork(), [1 + byte for byte in one.encode()])]
        print(f"{name}: {len(lines) - len(refused)} of {len(lines)} accepted ({1 - len(refused) / len(lines):.4f})")
        for one in refused if asked.refusals else ():
            print(f"    {one}")


if __name__ == "__main__":
    main()
