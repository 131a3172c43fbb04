"""Training examples: sources, what is held out, and what must never be read."""

from __future__ import annotations

import bz2
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from expert_cli.errors import ContextError
from experts.sql import fromfirst, prepare
from experts.sql.corpora import bird, wikisql
from experts.sql.linking import link
from experts.sql.plugin import task
from experts.sql.prompt import messages

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = sorted((ROOT / "manifests").glob("*.json"))

SPIDER = [
    {"db_id": "music", "question": "How many singers?", "synonym": "How many vocalists?", "query": "SELECT count(*) FROM singer"},
    {"db_id": "music", "question": "Ages of all?", "synonym": "Years of all?", "query": "SELECT age FROM singer"},
    {"db_id": "music", "question": "Broken", "synonym": "Broken", "query": "SELECT FROM"},
    {"db_id": "zoo", "question": "How many animals?", "synonym": "How many beasts?", "query": "SELECT count(*) FROM animal"},
    {"db_id": "gone", "question": "How many?", "synonym": "How many?", "query": "SELECT count(*) FROM t"},
]  # fmt: skip
BIRD = [
    {"db_id": "club", "question": "Members older than 30?", "evidence": "old means age > 30", "query": "SELECT name FROM member WHERE age > 30"},
    {"db_id": "club", "question": "Teams of members?", "evidence": "", "query": "SELECT t.label FROM member AS m JOIN team AS t ON m.team_ref = t.team_id"},
    {"db_id": "unknown", "question": "x", "evidence": "", "query": "SELECT 1"},
]  # fmt: skip
DESCRIBED = {
    "club": {"member": {"member_id": "", " name ": "", "age": "", "team_ref": ""}, "team": {"team_id": "", "label": ""}}
}


def wiki(split: str, table: str, question: str, sql: str, **variables: str) -> dict[str, Any]:
    sentence = {"question-split": split, "table-id": table, "original": question, "variables": variables}
    return {"sentences": [sentence], "sql": [sql]}


FROM = "FROM TABLE AS TABLEalias0"
WIKI = [
    wiki("train", "1-1", "What is the score of Ann?", f'SELECT SCORE_FIELD {FROM} WHERE TABLEalias0.PLAYER_FIELD = "var0" ;', var0="ann"),
    wiki("train", "1-1", "How many players over 1,000?", f"SELECT COUNT ( PLAYER_FIELD ) {FROM} WHERE TABLEalias0.SCORE_FIELD > var0 ;", var0="1,000"),
    wiki("train", "1-2", "Which team?", f"SELECT TEAM_FIELD {FROM} ;"),
    wiki("train", "1-2", "No such value", f'SELECT TEAM_FIELD {FROM} WHERE TABLEalias0.TOWN_FIELD = "var0" ;', var0="Ulm"),
    wiki("dev", "1-3", "Development?", f"SELECT SECRET_FIELD {FROM} ;"),
    wiki("test", "1-3", "Test?", f"SELECT SECRET_FIELD {FROM} ;"),
    wiki("train", "1-4", "Unknown form", "SELECT everything ;"),
]  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every data set in small, in ``$EXPERT_DATA``."""
    for name, table in (("music", "singer (id INTEGER PRIMARY KEY, age INTEGER)"), ("zoo", "animal (id, kind TEXT)")):
        (tmp_path / "databases" / name).mkdir(parents=True)
        with closing(sqlite3.connect(tmp_path / "databases" / name / f"{name}.sqlite")) as connection:
            connection.execute(f"CREATE TABLE {table}")
    (tmp_path / "train.json").write_text(json.dumps(SPIDER))
    (tmp_path / "bird.jsonl").write_text("\n".join(map(json.dumps, BIRD)))
    (tmp_path / "described.json").write_text(json.dumps(DESCRIBED))
    (tmp_path / "wiki.json.bz2").write_bytes(bz2.compress(json.dumps(WIKI).encode()))
    monkeypatch.setenv("EXPERT_DATA", str(tmp_path))
    return tmp_path


SOURCES: dict[str, dict[str, Any]] = {
    "spider": {"spider": ["train.json"], "databases": "databases"},
    "bird": {"bird": "bird.jsonl", "descriptions": "described.json"},
    "wikisql": {"wikisql": "wiki.json.bz2"},
    "synthetic": {"synthetic": 9, "databases": "databases", "of": ["train.json"], "bird": "bird.jsonl", "descriptions": "described.json"},
}  # fmt: skip


def questions(part: dict[str, Any]) -> list[str]:
    return sorted(pair.question for pair in prepare.read(part, Random(1)))


@pytest.mark.parametrize(
    ("source", "change", "expected"),
    [
        ("spider", {}, ["Ages of all?", "How many animals?", "How many singers?"]),
        ("spider", {"field": "synonym"}, ["How many beasts?", "How many vocalists?", "Years of all?"]),
        ("spider", {"except": ["music"]}, ["How many animals?"]),
        ("spider", {"except": ["music", "zoo"]}, []),
        ("spider", {"spider": []}, []),
        ("bird", {}, ["Members older than 30?", "Teams of members?"]),
        ("wikisql", {}, ["How many players over 1,000?", "What is the score of Ann?", "Which team?"]),
        ("wikisql", {"limit": 0}, []),
    ],
)
def test_sources(data: Path, source: str, change: dict[str, Any], expected: list[str]) -> None:
    assert questions(SOURCES[source] | change) == expected


def test_synthetic_source(data: Path) -> None:
    pairs = list(prepare.read(SOURCES["synthetic"] | {"synthetic": 60}, Random(1)))
    assert len(pairs) == 60
    assert {table.name for pair in pairs for table in pair.schema.tables} == {"singer", "animal", "member", "team"}


def test_wikisql_queries(data: Path) -> None:
    """The query names the invented table and its columns; values are spelled as the question spells them."""
    for seed in range(20):
        for pair in prepare.read(SOURCES["wikisql"], Random(seed)):
            text = fromfirst.write(pair.query)
            table = text.split()[1]
            assert table in {known.name for known in pair.schema.tables}
            if pair.question.startswith("What"):
                assert text == f"FROM {table} SELECT {table}.score WHERE {table}.player = 'Ann'"
            if pair.question.startswith("How"):
                assert text == f"FROM {table} SELECT COUNT({table}.player) WHERE {table}.score > 1000"
                assert pair.schema.columns[table, "score"].numeric
                assert not pair.schema.columns[table, "player"].numeric


def test_bird_schemas(data: Path) -> None:
    """Types and keys come from what queries compare."""
    schema, rows = bird.databases(data / "bird.jsonl", data / "described.json")["club"]
    assert [column.name for column in schema.tables[0].columns] == ["member_id", "name", "age", "team_ref"]
    assert [column.numeric for column in schema.tables[0].columns] == [True, False, True, False]
    assert schema.tables[0].columns[0].primary
    assert schema.edges[0] == (("member", "team_ref"), ("team", "team_id"))
    assert len(rows) == 2


def test_evidence_is_asked_with_the_question(data: Path) -> None:
    pair = next(pair for pair in prepare.read(SOURCES["bird"], Random(1)) if pair.evidence)
    example = prepare.render(pair, "names", None)
    assert example is not None
    assert example.messages[1].content == "Members older than 30? (old means age > 30)"
    assert example.completion == "FROM member SELECT member.name WHERE member.age > 30"


@pytest.mark.parametrize("surface", ["pointers", "names"])
def test_training_and_chat_read_the_same(data: Path, surface: str) -> None:
    """Without noise, the prompt of a training example is the prompt of chat."""
    with closing(task.open(data / "databases" / "music" / "music.sqlite")) as context:
        for pair in prepare.read(SOURCES["spider"] | {"except": ["zoo"]}, Random(1)):
            example = prepare.render(pair, surface, None)
            assert example is not None
            question = context.question(pair.question, surface=surface)
            assert tuple(question.messages()) == example.messages == messages(link(pair.question, pair.schema), surface)
            assert question.check(example.completion).query


def test_examples_are_a_function_of_the_seed(data: Path) -> None:
    source = {"sources": [SOURCES["spider"] | {"augment": 3}, SOURCES["wikisql"], SOURCES["synthetic"]]}
    first, again, other = (list(prepare.examples(source, surface="pointers", seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert [example.id for example in first] != [example.id for example in other]
    assert len({example.id for example in first}) == len(first)
    copies = [example.id for example in first if example.id.startswith("train/0/")]
    assert sorted(copies) == ["train/0/0", "train/0/1", "train/0/2"]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({}, r"unknown training source \[\]"),
        ({"speeder": []}, "unknown training source"),
        (SOURCES["spider"] | {"spider": ["gone.json"]}, r"no training data at .*gone\.json"),
        (SOURCES["wikisql"] | {"wikisql": "gone"}, "no training data at"),
        (SOURCES["bird"] | {"descriptions": "gone"}, "no training data at"),
        ({"synthetic": 3, "databases": "databases"}, "no schemas"),
    ],
)
def test_faulty_sources(data: Path, part: dict[str, Any], reason: str) -> None:
    with pytest.raises(ContextError, match=reason):
        list(prepare.read(part, Random(1)))


def test_data_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERT_DATA", str(tmp_path / "gone"))
    with pytest.raises(ContextError, match="set EXPERT_DATA"):
        prepare.data_root()


def test_cases(data: Path) -> None:
    source = {"spider": "train.json", "databases": "databases"}
    found = list(prepare.cases(source))
    assert {case.id for case in found} == {"0", "1", "2", "3"}, "a case needs its database"
    assert found == list(prepare.cases(source)) != list(prepare.cases(source | {"seed": 1}))
    assert [case.id for case in prepare.cases(source | {"only": ["zoo"]})] == ["3"]
    assert list(prepare.cases(source | {"limit": 2})) == found[:2]
    assert all(Path(case.target).is_file() and case.gold for case in found)


def texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts(inner)]
    return [text for inner in value for text in texts(inner)] if isinstance(value, list) else [str(value)]


FORBIDDEN = re.compile(r"(^|[^a-z])(dev|test|realistic|dk|syn_dev|archer|defog|classic)([^a-z]|$)", re.IGNORECASE)


@pytest.mark.parametrize(
    "name",
    [
        "spider/dev.json",
        "spider_dev.jsonl",
        "ibm_bench/spider-realistic.json",
        "bird/bird_test.json",
        "spider_dk/x.json",
    ],
)
def test_forbidden_names_are_seen(name: str) -> None:
    assert FORBIDDEN.search(name)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_manifests_name_no_development_or_test_data(path: Path) -> None:
    manifest = json.loads(path.read_text("utf-8"))
    named = texts([manifest.get("data"), manifest.get("training")])
    assert [name for name in named if FORBIDDEN.search(name)] == []


@pytest.mark.parametrize("path", [path for path in SHIPPED if path.name.startswith("sql-")], ids=lambda path: path.name)
def test_databases_that_choose_the_checkpoint_are_not_trained_on(path: Path) -> None:
    training = json.loads(path.read_text("utf-8"))["training"]
    chosen = set(training["evaluation"]["only"])
    assert chosen
    assert all(chosen <= set(part["except"]) for part in training["data"]["sources"] if "spider" in part)


def test_wikisql_reads_the_training_split_alone() -> None:
    fields = {row.table for row in wikisql._rows(WIKI)}
    assert fields == {"1-1", "1-2"}
