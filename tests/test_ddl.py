"""DDL of other dialects: what their own tools dump of a live database is read as that database, and what is refused."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from engines import Engine, engine, missing, program

from expert_cli.errors import ContextError
from experts.sql import kinds
from experts.sql.ddl import read
from experts.sql.plugin import task
from experts.sql.schema import Schema

MADE = {
    "postgres": r"""
CREATE TYPE mood AS ENUM ('sad', 'very happy', 'it''s fine');
CREATE TABLE customers (id serial PRIMARY KEY, name varchar(200) DEFAULT 'x' NOT NULL, created timestamptz DEFAULT now(),
  feels mood, "Full Name" text, key uuid DEFAULT gen_random_uuid(), tags text[] DEFAULT '{}',
  price numeric(10, 2) CHECK (price > 0), twice int GENERATED ALWAYS AS (1 + 1) STORED);
CREATE TABLE "Order" ("Id" integer, customer_id integer REFERENCES customers ON DELETE CASCADE, day date NOT NULL,
  PRIMARY KEY ("Id", day)) PARTITION BY RANGE (day);
CREATE TABLE order_2024 PARTITION OF "Order" FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := 'a;b'; RETURN NEW; END; $$;
CREATE INDEX ON customers (name);
CREATE VIEW happy AS SELECT * FROM customers WHERE feels = 'very happy';
CREATE VIEW counted AS SELECT c.feels AS mood, COUNT(*) AS n, MAX(o.day) AS last, UPPER(MIN(c.name)) AS loud,
  CONCAT_WS('-', c.feels, 'x') AS tag FROM happy AS c LEFT JOIN "Order" AS o ON o.customer_id = c.id GROUP BY c.feels;
COMMENT ON TABLE customers IS 'who buys; and when';
INSERT INTO customers (name, feels, "Full Name") VALUES ('Ann', 'sad', 'Ann; O''Neil'), ('Bob', NULL, E'two\tparts');
""",
    "mysql": """
CREATE TABLE customers (id int unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, name varchar(200) DEFAULT 'x' COMMENT 'a;b',
  created datetime(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
  feels enum('sad', 'very happy', 'it''s fine') NOT NULL DEFAULT 'sad', `Full Name` text, ok tinyint(1) DEFAULT 0,
  twice int GENERATED ALWAYS AS (id + id) VIRTUAL, KEY named (name), FULLTEXT KEY whole (`Full Name`)) ENGINE=InnoDB;
CREATE TABLE `Order` (`Id` int, customer_id int unsigned, day date, PRIMARY KEY (`Id`, day),
  CONSTRAINT who FOREIGN KEY (customer_id) REFERENCES customers (id) ON DELETE CASCADE) ENGINE=InnoDB;
CREATE VIEW happy AS SELECT * FROM customers WHERE feels = 'very happy';
CREATE VIEW counted AS SELECT c.feels AS mood, COUNT(*) AS n, MAX(o.day) AS last, UPPER(MIN(c.name)) AS loud,
  CONCAT_WS('-', c.feels, 'x') AS tag FROM happy AS c LEFT JOIN `Order` AS o ON o.customer_id = c.id GROUP BY c.feels;
INSERT INTO customers (name, feels, `Full Name`) VALUES ('Ann', 'sad', 'Ann; O''Neil'), ('Bob', 'sad', 'two\tparts');
""",
    "duckdb": """
CREATE TYPE mood AS ENUM ('sad', 'very happy', 'it''s fine');
CREATE TABLE customers (id INTEGER PRIMARY KEY, name VARCHAR DEFAULT 'x' NOT NULL, created TIMESTAMP, feels mood,
  "Full Name" VARCHAR, key UUID, tags VARCHAR[], parts STRUCT(a INTEGER, b VARCHAR), price DECIMAL(10, 2));
CREATE TABLE "Order" ("Id" INTEGER, customer_id INTEGER REFERENCES customers (id), day DATE, PRIMARY KEY ("Id", day));
CREATE VIEW happy AS SELECT * FROM customers WHERE feels = 'very happy';
CREATE VIEW counted AS SELECT c.feels AS mood, COUNT(*) AS n, MAX(o.day) AS last, UPPER(MIN(c.name)) AS loud,
  CONCAT_WS('-', c.feels, 'x') AS tag FROM happy AS c LEFT JOIN "Order" AS o ON o.customer_id = c.id GROUP BY c.feels;
INSERT INTO customers (id, name, "Full Name") VALUES (1, 'Ann', 'Ann; O''Neil'), (2, 'Bob', 'two\tparts');
""",
}
DUMPS = {
    "postgres": ["pg_dump", "-h", "127.0.0.1", "-U", "house", "-p", "{port}", "postgres"],
    "mysql": ["mariadb-dump", "--no-defaults", "-h", "127.0.0.1", "-u", "root", "-P", "{port}", "house"],
}


def make(running: Engine) -> None:
    running.create(Schema(()))
    connection: Any = running.connection
    if running.dialect == "duckdb":
        connection.execute(MADE["duckdb"])
        return
    with connection.cursor() as cursor:
        if running.dialect == "postgres":
            cursor.execute(MADE["postgres"])
        else:
            for statement in MADE["mysql"].split(";\n"):
                if statement.strip():
                    cursor.execute(statement)


def dumped(running: Engine, folder: Path, *, rows: bool) -> str:
    """What the server's own tool writes of its database."""
    connection: Any = running.connection
    if running.dialect == "duckdb":
        connection.execute(f"EXPORT DATABASE '{folder / 'dump'}'")
        return (folder / "dump" / "schema.sql").read_text()
    port = connection.info.port if running.dialect == "postgres" else connection.port
    tool, *options = (word.format(port=port) for word in DUMPS[running.dialect])
    found = program(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed")
    less = {"postgres": "--schema-only", "mysql": "--no-data"}[running.dialect]
    ran = subprocess.run([found, *options, *([] if rows else [less])], capture_output=True, text=True, check=True)
    return ran.stdout


@pytest.mark.parametrize("rows", [False, True], ids=["schema", "rows"])
@pytest.mark.parametrize("dialect", MADE)
def test_a_dump_is_read_as_its_database(dialect: str, rows: bool, tmp_path: Path) -> None:
    if reason := missing(dialect):
        pytest.skip(reason)
    with engine(dialect) as running:
        make(running)
        text = dumped(running, tmp_path, rows=rows)
    found = read(text, dialect)
    assert sorted(table.name for table in found.tables) == ["Order", "counted", "customers", "happy"]
    assert [column.name for column in found.by_name["happy"].columns] == [
        column.name for column in found.by_name["customers"].columns
    ]
    told = {column.name: kinds.declared(column.type) for column in found.by_name["counted"].columns}
    mood = kinds.declared(found.columns["customers", "feels"].type)
    assert told == {"mood": mood, "n": kinds.NUMBER, "last": kinds.TIME, "loud": kinds.TEXT, "tag": kinds.OTHER}
    customers, orders = found.by_name["customers"], found.by_name["order"]
    shared = ["id", "name", "created", "feels", "Full Name"]
    assert [column.name for column in customers.columns][:5] == shared
    assert [column.name for column in orders.columns if column.primary] == ["Id", "day"]
    assert [column.name for column in customers.columns if column.primary] == ["id"]
    (key,) = found.foreign_keys
    assert (key.table, key.column, key.target, key.target_column) == ("Order", "customer_id", "customers", "id")
    felt = {("customers", "feels"), ("happy", "feels"), ("counted", "mood")}
    assert {place[:2] for place in found.values["very happy"]} == felt
    assert {place[:2] for place in found.values["it's fine"]} == felt
    if rows and dialect != "duckdb":
        assert found.values["ann"] == [("customers", "name", "Ann")]
        assert found.values["ann; o'neil"] == [("customers", "Full Name", "Ann; O'Neil")]
    # what was read can be asked in the dialect: queries over it compile where it came from
    (tmp_path / "dump.sql").write_text(text)
    context = task.open(tmp_path / "dump.sql", dialect=dialect)
    asked = context.question("which orders have happy customers", surface="names")
    checked = asked.check(
        'FROM "Order" JOIN customers ON "Order".customer_id = customers.id WHERE customers.feels = \'very happy\' '
        'SELECT "Order"."Id", customers."Full Name" ORDER BY "Order".day'
    )
    assert not checked.doubt, checked
    viewed = asked.check(
        "FROM counted JOIN happy ON happy.feels = counted.mood WHERE counted.n > 1 AND counted.loud = 'ANN' "
        "SELECT counted.tag, counted.n, happy.\"Full Name\" ORDER BY counted.last DESC"
    )
    assert not viewed.doubt, viewed
    assert asked.check("FROM counted SELECT counted.n WHERE counted.tag = 'a'").doubt, "nobody knows what a tag is"
    with engine(dialect) as running:
        make(running)
        for one in (checked, viewed):
            assert running.explain(one.output) is None, one.output


def test_names_are_folded_as_the_server_does() -> None:
    text = (
        'CREATE TABLE Big (Id int, "Kept" int); ALTER TABLE BIG ADD PRIMARY KEY (ID); ALTER TABLE big ADD COLUMN C text'
    )
    (table,) = read(text, "postgres").tables
    assert (table.name, [(one.name, one.primary) for one in table.columns]) == (
        "big",
        [("id", True), ("Kept", False), ("c", False)],
    )
    (table,) = read("CREATE TABLE Big (Id int)", "mysql").tables
    assert (table.name, table.columns[0].name) == ("Big", "Id")


REFUSED = {
    "nothing": ("postgres", "SELECT 1; DROP TABLE x;", "creates no table; give CREATE TABLE statements of Postgres"),
    "twice": (
        "postgres",
        "CREATE TABLE a (b int); CREATE TABLE A (c int)",
        "line 1: the table a is made a second time",
    ),
    "two schemas": ("postgres", "CREATE TABLE one.a (x int); CREATE TABLE two.b (x int)", "several schemas (one, two)"),
    "two columns": (
        "postgres",
        'CREATE TABLE a (b int, "B" int)',
        "line 1: a has two columns called B; names that differ by",
    ),
    "no DDL": ("mysql", "CREATE TABLE a (b int;;; (", "line 1:"),
    "a line": ("duckdb", "CREATE TABLE a (b int);\n\nCREATE TABLE (d int);", "line 3: a name is missing"),
    "changed": (
        "postgres",
        "CREATE TABLE a (b int, c int); ALTER TABLE a DROP COLUMN b",
        "is changed after it was made",
    ),
    "renamed": ("postgres", "CREATE TABLE a (b int); ALTER TABLE a RENAME b TO c", "is changed after it was made"),
    "retyped": ("postgres", "CREATE TABLE a (b int); ALTER TABLE a ALTER b TYPE text", "is changed after it was made"),
    "tables by case": ("postgres", 'CREATE TABLE a (b int); CREATE TABLE "A" (b int)', "names that differ by case"),
    "reserved": ("duckdb", "CREATE TABLE sqlite_a (b int)", "called 'sqlite_a'; leave it out"),
    "no end": ("postgres", "CREATE TABLE a (b int);\nCOPY a (b) FROM stdin;\n1\n", "have no end"),
    "odd COPY": ("postgres", "CREATE TABLE a (b int);\nCOPY a ('b) FROM stdin;\n1\n\\.\n", "is no Postgres"),
    "open string": ("postgres", "CREATE TABLE a (b int DEFAULT 'x)", "is no Postgres"),
}


@pytest.mark.parametrize(("dialect", "text", "problem"), REFUSED.values(), ids=REFUSED)
def test_refused(dialect: str, text: str, problem: str) -> None:
    with pytest.raises(ContextError) as caught:
        read(text, dialect, "dump.sql")
    assert problem in str(caught.value) and str(caught.value).startswith("dump.sql")


READ: dict[str, tuple[str, str, dict[str, str]]] = {
    # dialect, DDL, the columns of its first table with their kinds
    "identity": (
        "postgres",
        "CREATE TABLE t (id bigint NOT NULL, v character varying(9)); ALTER TABLE public.t ALTER COLUMN id ADD GENERATED"
        " ALWAYS AS IDENTITY (SEQUENCE NAME t_id START WITH 1);",
        {"id": kinds.WHOLE, "v": kinds.TEXT},
    ),
    "user types": (
        "postgres",
        "CREATE TYPE footprint AS (a int); CREATE DOMAIN hint AS text; CREATE TABLE t (f footprint, h public.hint[]);",
        {"f": kinds.OTHER, "h": kinds.OTHER},
    ),
    "arrays": (
        "duckdb",
        "CREATE TABLE t (e FLOAT[3], u UNION(a INTEGER, s VARCHAR));",
        {"e": kinds.OTHER, "u": kinds.OTHER},
    ),
    "moments": (
        "postgres",
        "CREATE TABLE t (a timestamp(6) without time zone, b time(3) without time zone, c interval second(2))",
        {"a": kinds.TIME, "b": "mark time(3) without time zone", "c": kinds.OTHER},
    ),
    "places": (
        "mysql",
        "CREATE TABLE t (p point NOT NULL, g geometrycollection, i inet6, n int unsigned zerofill, SPATIAL KEY p (p)) "
        "PARTITION BY HASH (n) PARTITIONS 4",
        {"p": kinds.OTHER, "g": kinds.OTHER, "i": kinds.OTHER, "n": kinds.WHOLE},
    ),
    "children": (
        "postgres",
        "CREATE TABLE cities (name text); CREATE TABLE capitals (state char(2)) INHERITS (cities); DROP TABLE cities;",
        {"name": kinds.TEXT, "state": kinds.TEXT},
    ),
    "likeness": (
        "postgres",
        "CREATE TABLE a (x int); CREATE TABLE b (LIKE a INCLUDING ALL, y text); DROP TABLE IF EXISTS a;",
        {"x": kinds.WHOLE, "y": kinds.TEXT},
    ),
    "column called exclude": (
        "postgres",
        "CREATE TABLE t (exclude text, key text)",
        {"exclude": kinds.TEXT, "key": kinds.TEXT},
    ),
    "foreign": ("postgres", "CREATE FOREIGN TABLE t (a int) SERVER s OPTIONS (x 'y')", {"a": kinds.WHOLE}),
    "two enumerations of one name": (
        "postgres",
        "CREATE TYPE a AS ENUM ('x'); CREATE TYPE o.a AS ENUM ('z'); CREATE TABLE t (p public.a)",
        {"p": kinds.OTHER},
    ),
    "a word more": (
        "postgres",
        "CREATE TYPE a AS ENUM ('x'); ALTER TYPE a ADD VALUE 'declined'; CREATE TABLE t (p a)",
        {"p": "mark a enum('x', 'declined')"},
    ),
}


@pytest.mark.parametrize(("dialect", "text", "expected"), READ.values(), ids=READ)
def test_read(dialect: str, text: str, expected: dict[str, str]) -> None:
    found = read(text, dialect)
    assert {column.name: kinds.declared(column.type) for column in found.tables[0].columns} == expected


VIEWS: dict[str, tuple[str, str, dict[str, str]]] = {
    # dialect, DDL over the table t, the columns of its view with their types
    "names of its own": ("postgres", "CREATE VIEW v (k, l) AS SELECT id, 'x' FROM t", {"k": "integer", "l": "text"}),
    "materialized": ("postgres", "CREATE MATERIALIZED VIEW v AS SELECT id FROM public.t WITH NO DATA", {"id": "integer"}),
    "options": ("postgres", "CREATE VIEW v WITH (security_barrier='true') AS SELECT w FROM t", {"w": "numeric(10, 2)"}),
    "checked": ("mysql", "CREATE VIEW v AS SELECT id FROM t WITH CASCADED CHECK OPTION", {"id": "integer"}),
    "the last one": ("postgres", "CREATE VIEW v AS SELECT 1 AS a; CREATE OR REPLACE VIEW v AS SELECT id FROM t", {"id": "integer"}),
    "of a later view": ("duckdb", "CREATE VIEW v AS SELECT * FROM u; CREATE VIEW u AS SELECT id FROM t", {"id": "integer"}),
    "arms": ("postgres", "CREATE VIEW v AS SELECT id, name FROM t UNION SELECT 1, 'b'", {"id": "integer", "name": "text"}),
    "a WITH clause": ("postgres", "CREATE VIEW v AS WITH x AS (SELECT w FROM t) SELECT w FROM x", {"w": "numeric"}),
    "joins in parentheses": ("postgres", "CREATE VIEW v AS SELECT a.born FROM (t a JOIN t b ON ((a.id = b.id)))", {"born": "date"}),
    "a call that nobody knows": ("postgres", "CREATE VIEW v AS SELECT id, odd(name) AS o FROM t", {"id": "integer", "o": "unknown"}),
    "a cast": ("postgres", "CREATE VIEW v AS SELECT name::inet AS o, w::text AS t FROM t", {"o": "unknown", "t": "text"}),
    "unknown within": ("duckdb", "CREATE VIEW v AS SELECT o FROM (SELECT odd(name) AS o FROM t)", {"o": "unknown"}),
    "what the grammar cannot turn": ("postgres", "CREATE VIEW v AS SELECT t.id, g FROM t, LATERAL generate_series(1, 2) AS g", {"id": "integer", "g": "unknown"}),
    "of what is not here": ("postgres", "CREATE VIEW v AS SELECT id FROM elsewhere", {}),
    "dropped": ("postgres", "CREATE VIEW v AS SELECT id FROM t; DROP VIEW IF EXISTS v", {}),
    "of another schema": ("postgres", "CREATE VIEW reports.v AS SELECT id FROM t", {}),
    "no view": ("postgres", "CREATE FUNCTION v() RETURNS int AS $$ CREATE VIEW w AS SELECT 1 $$ LANGUAGE sql", {}),
    "unreadable": ("postgres", "CREATE VIEW v AS SELECT FROM WHERE", {}),
    "itself": ("postgres", "CREATE VIEW v AS SELECT id FROM v", {}),
}  # fmt: skip


@pytest.mark.parametrize(("dialect", "text", "expected"), VIEWS.values(), ids=VIEWS)
def test_views(dialect: str, text: str, expected: dict[str, str]) -> None:
    made = "CREATE TABLE t (id integer, name text, w numeric(10,2), born date);"
    found = read(f"{made}\n{text};", dialect).by_name.get("v")
    assert {column.name: column.type for column in (found.columns if found else ())} == expected


ROWS = r"""
CREATE TYPE state AS ENUM ('open', 'declined');
CREATE TABLE "has (paren)" (id int, v text, s state);
COPY public."has (paren)" (id, v) FROM stdin;
1	two\nlines\tand a \\
2	\N
\.
COPY "has (paren)" FROM STDIN WITH (FORMAT csv);
3,don't,open
\.
INSERT INTO "has (paren)" OVERRIDING SYSTEM VALUE VALUES (4, 'line
\d kept', 'open'), (5, NULL, 'open');
"""


def test_values_of_rows() -> None:
    kept = "line\n\\d kept"
    assert set(read(ROWS, "postgres").values) == {"open", "declined", "two\nlines\tand a \\", kept}
    written = "CREATE TABLE t (v text);\nREPLACE INTO t VALUES ('a');\nINSERT IGNORE INTO t (v) VALUES ('b')"
    assert set(read(written, "mysql").values) == {"a", "b"}


def test_tables_of_another_schema_are_named_with_it(tmp_path: Path) -> None:
    (tmp_path / "sales.sql").write_text("CREATE TABLE sales.orders (id int, v text);")
    asked = task.open(tmp_path / "sales.sql", dialect="postgres").question("how many", surface="names")
    checked = asked.check("FROM orders WHERE orders.v = 'a' SELECT orders.id")
    assert (checked.output, checked.doubt) == ("SELECT id FROM sales.orders WHERE v = 'a'", "")


def test_long_dumps_take_no_time() -> None:
    words = ", ".join(f"'word {number}'" for number in range(20_000))
    copies = "COPY t (a) FROM stdin;\nx\n\\.\n" * 20_000
    began = time.monotonic()
    found = read(f"CREATE TYPE e AS ENUM ({words});\nCREATE TABLE t (a text, e e);\n{copies}", "postgres")
    assert len(found.values) == 2001
    assert time.monotonic() - began < 20
