"""The SQL binding: what may be written over a schema, and that whatever may be written passes EXPLAIN."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from grammar_cases import VOCABULARY, accepts, encode

from expert_cli.errors import ContextError, GrammarError
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.sample import sample
from experts.sql.binding import Column, Edge, SqlBinding, Table, Value
from experts.sql.canonical import select_first
from experts.sql.identifiers import RESERVED, literal, quoted

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = (ROOT / "grammars" / "sql-sqlite.gbnf").read_text("utf-8")
DATABASES = ROOT.parent / "shared" / "data" / "spider" / "database"


def tables(*given: tuple[str, Sequence[str]]) -> list[Table]:
    """Tables numbered in order, and their columns over all of them."""
    made: list[Table] = []
    for place, (name, columns) in enumerate(given):
        first = sum(len(table.columns) for table in made)
        numbered = tuple(Column(column, f"c{first + offset}") for offset, column in enumerate(columns))
        made.append(Table(name, numbered, f"t{place}"))
    return made


def shop(surface: str) -> SqlBinding:
    """``<t0>`` item <c0> id <c1> name <c2> price; ``<t1>`` sale <c3> id <c4> item <c5> day; ``<t2>`` note <c6> text."""
    edges: list[Edge] = [(("item", "id"), ("sale", "item"))]
    values = [Value("it's", "v0"), Value(20, "v1"), Value(2.5, "v2")]
    linked = tables(("item", ("id", "name", "price")), ("sale", ("id", "item", "day")), ("note", ("text",)))
    return SqlBinding(linked, edges, values, surface)


def verdict(text: str, surface: str) -> bool:
    return accepts(Matcher(VOCABULARY, TEMPLATE, shop(surface)), encode(text))


POINTERS = """
FROM<t0> SELECT *
FROM<t0> SELECT *, <c0>                                             refused
FROM<t0> SELECT<c0>,<c1> WHERE<c2> ><v1> AND<c1> LIKE<any><v0>
FROM<t0> SELECT<c3>                                                 refused: not in FROM
FROM<t0> SELECT<c0> WHERE<c3> = 1                                   refused: not in FROM
FROM<t0> JOIN<t1> ON<c0> =<c4> SELECT<c5>, COUNT(*) GROUP BY<c5>
FROM<t1> JOIN<t0> ON<c4> =<c0> SELECT<c5>
FROM<t0> LEFT JOIN<t1> ON<c0> =<c4> SELECT<c5>
FROM<t0> JOIN<t0> ON<c0> =<c0> SELECT<c1>                           refused: twice in one FROM
FROM<t0> JOIN<t2> ON<c0> =<c6> SELECT<c1>                           refused: no edge
FROM<t0> JOIN<t1> ON<c1> =<c4> SELECT<c1>                           refused: not that edge
FROM<t0> JOIN<t1> SELECT<c1>                                        refused: no ON
FROM<t0> SELECT COUNT(*), SUM(<c2>), MIN(DISTINCT<c1>)
FROM<t0> SELECT COUNT(DISTINCT *)                                   refused
FROM<t0> SELECT MAX(MIN(<c2>))                                      refused: nested
FROM<t0> SELECT<c1> WHERE COUNT(*) > 1                              refused: aggregate in WHERE
FROM<t0> SELECT<c1> HAVING COUNT(*) > 1                             refused: no GROUP BY
FROM<t0> SELECT<c1> GROUP BY<c1> HAVING COUNT(*) > 1 OR AVG(<c2>) BETWEEN 1 AND<v2>
FROM<t0> SELECT<c1> GROUP BY<c1> HAVING SUM(<c2>) > (FROM<t0> SELECT AVG(<c2>))
FROM<t0> SELECT<c1> ORDER BY COUNT(*)                               refused: no GROUP BY
FROM<t0> SELECT<c1> GROUP BY<c1> ORDER BY COUNT(*) DESC,<c1> LIMIT 1
FROM<t0> SELECT<c1> ORDER BY<c2> LIMIT<v1>
FROM<t0> SELECT<c1> ORDER BY<c2> LIMIT<v0>                          refused: text
FROM<t0> SELECT<c1> ORDER BY<c2> LIMIT 0                            refused
FROM<t0> SELECT MAX(<c2>) - MIN(<c2>),<c0> *<c2>
FROM<t0> SELECT<c1> WHERE<c2> = (FROM<t0> SELECT MAX(<c2>))
FROM<t0> SELECT<c1> WHERE<c0> NOT IN (FROM<t1> SELECT<c4>) AND<c2> BETWEEN 1 AND 5
FROM<t0> SELECT<c1> WHERE<c0> IN (FROM<t1> SELECT<c4>,<c3>)         refused: two columns
FROM<t0> SELECT<c1> WHERE<c0> IN (FROM<t1> SELECT<c0>)              refused: outer column
FROM<t0> SELECT<c1> WHERE<c0> IN (FROM<t1> SELECT<c4>) AND<c4> = 1  refused: inner column
FROM<t0> SELECT<c1> WHERE<c0> IN (<v0>,<v1>, 5) AND NOT<c1> IS NOT NULL
FROM<t0> SELECT<c1> WHERE (<c0> =<v0> OR<c1> NOT LIKE<pre><v0>) AND EXISTS (FROM<t1> SELECT *)
FROM<t0> SELECT<c1> WHERE NOT EXISTS (FROM<t1> SELECT<c3> WHERE<c5> IS NULL)
FROM<t0> SELECT DISTINCT<c1> UNION FROM<t2> SELECT<c6>
FROM<t0> SELECT<c1>,<c0> UNION ALL FROM<t1> SELECT<c3>,<c5> EXCEPT FROM<t1> SELECT<c5>,<c5>
FROM<t0> SELECT<c1> UNION FROM<t1> SELECT<c3>,<c5>                  refused: widths
FROM<t0> SELECT<c1> ORDER BY<c1> UNION FROM<t2> SELECT<c6>          refused: ORDER BY in an arm
FROM<t0> SELECT<c1> INTERSECT FROM<t2> SELECT<c6> LIMIT 1           refused: LIMIT in an arm
FROM<t3> SELECT *                                                   refused: no such table
FROM<t0> SELECT<c1> WHERE<c0> =<v3>                                 refused: no such value
FROM<t0> SELECT                                                     refused: unfinished
FROM<t0>                                                            refused: unfinished
"""
NAMES = """
FROM item JOIN sale ON item.id = sale.item SELECT item.name, COUNT(*) WHERE sale.day != 'it''s' GROUP BY item.name
FROM item SELECT item.name WHERE item.name LIKE '%it''s%' AND item.price >= 2.5 ORDER BY item.id DESC LIMIT 20
FROM item SELECT item.name WHERE item.id IN (FROM sale SELECT sale.item) AND (item.id > 3 OR item.name IS NULL)
FROM item SELECT sale.day                                           refused
FROM item SELECT name                                               refused
FROM items SELECT *                                                 refused
FROM item SELECT COUNT(item.id), COUNT(DISTINCT item.name)
"""


@pytest.mark.parametrize(
    ("line", "surface"),
    [(line, "pointers") for line in POINTERS.strip().splitlines()]
    + [(line, "names") for line in NAMES.strip().splitlines()],
)
def test_verdicts(line: str, surface: str) -> None:
    text, refused = re.fullmatch(r"(.*?)(?: {2,}(refused.*))?", line).groups()  # type: ignore[union-attr]
    assert verdict(text, surface) == (refused is None)


def test_forced_tokens_are_the_only_way_on() -> None:
    matcher = Matcher(VOCABULARY, TEMPLATE, shop("pointers"))
    written = ""
    for text in ("FROM", "<t0>", " JOIN", "<t1>", " ON"):
        for token in encode(text):
            matcher.consume(token)
        written += text
    forced = matcher.forced() or matcher.allowed()
    assert matcher.written == written
    assert {VOCABULARY.ids[name] for name in ("<c0>", "<c4>")} == set(forced)
    matcher.consume(VOCABULARY.ids["<c0>"])
    assert matcher.forced() == encode(" =<c4> SELECT")


def test_fork_goes_its_own_way() -> None:
    matcher = Matcher(VOCABULARY, TEMPLATE, shop("pointers"))
    for token in encode("FROM<t0> SELECT"):
        matcher.consume(token)
    other = matcher.fork()
    for token in encode("<c1>"):
        other.consume(token)
    assert (matcher.written, other.written) == ("FROM<t0> SELECT", "FROM<t0> SELECT<c1>")
    assert (matcher.complete(), other.complete()) == (False, True)
    assert accepts(matcher, encode(" *"))


def test_refused_token_leaves_the_matcher_usable() -> None:
    matcher = Matcher(VOCABULARY, TEMPLATE, shop("pointers"))
    with pytest.raises(GrammarError, match="cannot follow"):
        matcher.consume(VOCABULARY.ids["<c0>"])
    assert accepts(matcher, encode("FROM<t0> SELECT *"))


def test_end_only_where_complete() -> None:
    matcher = Matcher(VOCABULARY, TEMPLATE, shop("pointers"))
    (end,) = VOCABULARY.ends
    for token in encode("FROM<t0> SELECT *"):
        assert end not in matcher.allowed()
        matcher.consume(token)
    assert end in matcher.allowed()


def test_many_tables_unfold_one_at_a_time() -> None:
    """A chain of 16 tables, all joined to all: far too many sets to write out."""
    linked = tables(*((f"t{n}", ("id", "x")) for n in range(16)))
    edges: list[Edge] = [((f"t{a}", "id"), (f"t{b}", "x")) for a in range(16) for b in range(16) if a != b]
    binding = SqlBinding(linked, edges, [], "pointers")
    text = "FROM<t3> JOIN<t1> ON<c6> =<c3> JOIN<t15> ON<c2> =<c31> SELECT<c30> WHERE<c6> IN (FROM<t0> SELECT<c1>)"
    assert accepts(Matcher(VOCABULARY, TEMPLATE, binding), encode(text))
    assert not accepts(Matcher(VOCABULARY, TEMPLATE, binding), encode(text.replace("<c30>", "<c28>")))
    most = "FROM<t0> JOIN<t1> ON<c0> =<c3> JOIN<t2> ON<c0> =<c5> JOIN<t3> ON<c0> =<c7> JOIN<t4> ON<c0> =<c9>"
    assert accepts(Matcher(VOCABULARY, TEMPLATE, binding), encode(most + " SELECT *"))
    assert not accepts(Matcher(VOCABULARY, TEMPLATE, binding), encode(most + " JOIN<t5> ON<c0> =<c11> SELECT *"))


def test_tables_are_needed_and_differ() -> None:
    with pytest.raises(ContextError, match="no table"):
        SqlBinding([], [], [], "names")
    with pytest.raises(ContextError, match="same name"):
        SqlBinding(tables(("a", ("x",)), ("a", ("y",))), [], [], "names")


HOSTILE = [
    'a"b',
    "a b",
    "select",
    "FROM",
    "x\ny",
    "😀",
    "",
    "a.b",
    "it's",
    "<t1>",
    "1st",
    "Grüße",
    "\\",
    "a--b",
    "(",
    "'",
]


def test_hostile_names_are_quoted() -> None:
    """Every name, on the names surface, gives SQL that SQLite runs."""
    names = [name for name in HOSTILE if name]
    linked = tables(*((name, [f"{name}{n}" for n in range(2)] + [name]) for name in names))
    binding = SqlBinding(linked, [], [Value("x'y\n'", "v0")], "names")
    with closing(sqlite3.connect(":memory:")) as database:
        for table in linked:
            columns = ", ".join(f'"{column.name.replace(chr(34), chr(34) * 2)}"' for column in table.columns)
            database.execute(f'CREATE TABLE "{table.name.replace(chr(34), chr(34) * 2)}" ({columns})')
        for table in linked:
            name, column = quoted(table.name), quoted(table.columns[2].name)
            text = f"FROM {name} SELECT {name}.{column} WHERE {name}.{column} = {literal(chr(120) + chr(39) + 'y' + chr(10) + chr(39))}"
            assert accepts(Matcher(VOCABULARY, TEMPLATE, binding), encode(text, pointers=False)), text
            database.execute("EXPLAIN " + select_first(text))


def test_reserved_words_are_quoted() -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        for word in sorted(RESERVED):
            database.execute(f'CREATE TABLE "{word}" ("{word}")')
            database.execute(f"SELECT {quoted(word)}.{quoted(word.lower())} FROM {quoted(word)}")


def schema_of(path: Path) -> tuple[list[Table], list[Edge], list[str]]:
    """The tables of a database, its declared keys as edges, and the statements that make an empty copy."""
    with closing(sqlite3.connect(path.as_uri() + "?mode=ro", uri=True)) as source:
        master = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
        statements = [sql for _, sql in source.execute(master)]
        names = [name for (name,) in source.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
        names = [name for name in names if not name.startswith("sqlite_")]
        columns = {name: [row[1] for row in source.execute(f"PRAGMA table_info({quoted(name)})")] for name in names}
        edges = [
            ((name, row[3]), (row[2], row[4]))
            for name in names
            for row in source.execute(f"PRAGMA foreign_key_list({quoted(name)})")
            if row[2] in columns and row[3] in columns[name] and row[4] in columns[row[2]] and row[2] != name
        ]
    return tables(*columns.items()), edges, statements


@pytest.mark.skipif(not DATABASES.is_dir(), reason="the Spider databases are not beside the repository")
@pytest.mark.parametrize("surface", ["pointers", "names"])
def test_every_sample_passes_explain(surface: str) -> None:
    draw = Random(3)
    finished = 0
    for path in sorted(DATABASES.glob("*/*.sqlite"))[::40]:
        linked, edges, statements = schema_of(path)
        if surface == "pointers" and sum(len(table.columns) for table in linked) > 96:
            continue
        with closing(sqlite3.connect(":memory:")) as copy:
            for statement in statements:
                copy.execute(statement)
            matcher = Matcher(
                VOCABULARY, TEMPLATE, SqlBinding(linked, edges, [Value("a'b", "v0"), Value(7, "v1")], surface)
            )
            for _ in range(10):
                text = sample(matcher.fork(), draw, calm=30, most=600)
                if text is None:
                    continue
                finished += 1
                copy.execute("EXPLAIN " + select_first(realised(text, linked)))
    assert finished > 15


def realised(text: str, linked: Sequence[Table], literals: Mapping[str, str] | None = None) -> str:
    """Pointers as the names and literals that they stand for."""
    names = {table.pointer: quoted(table.name) for table in linked}
    names |= {c.pointer: f"{quoted(table.name)}.{quoted(c.name)}" for table in linked for c in table.columns}
    names |= literals or {"v0": "'a''b'", "v1": "7"}
    text = re.sub(r"<(any|pre|suf)><v\d+>", " 'a''b%'", text)
    return re.sub(r"(\()?<([tcv]\d+)>", lambda found: (found[1] or " ") + names[found[2]], text)
