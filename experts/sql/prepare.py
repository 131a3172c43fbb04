"""Training examples from public text-to-SQL data, through the very linking and prompts that chat uses.

A source mapping names what to read::

    {"spider": ["spider_train/train_spider.json"], "databases": "spider/database", "field": "question",
     "except": ["inn_1"], "augment": 3}
    {"wikisql": "wikisql/wikisql.json.bz2", "limit": 40000}
    {"bird": "bird_train_text.jsonl", "descriptions": "bird/bird_description.json"}
    {"synthetic": 30000, "databases": "spider/database", "of": ["spider_train/train_spider.json"]}

Paths are relative to ``$EXPERT_DATA``, else to ``../shared/data`` beside the repository. Only training splits are named
here; what a file says of a split is respected (WikiSQL's dev and test rows are skipped).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

from sqlglot import exp

from expert_cli.errors import ContextError
from expert_cli.task import Case, Example
from experts.sql import pointers, prompt, synthetic
from experts.sql.corpora import Pair, bird, spider, wikisql
from experts.sql.identifiers import quoted
from experts.sql.linking import link
from experts.sql.surface import surface as named


def data_root() -> Path:
    """Where public data lies.

    Raises:
        ContextError: it is not there.
    """
    root = Path(os.environ.get("EXPERT_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")
    if not root.is_dir():
        raise ContextError(f"no training data at {root}; set EXPERT_DATA to a folder with the public data sets")
    return root


def examples(source: Mapping[str, Any], *, surface: str, seed: int) -> Iterator[Example]:
    """Every example of every named source, ``augment`` times with different linking noise, shuffled by ``seed``."""
    rng = Random(seed)
    made = []
    for part in source["sources"]:
        pairs = list(read(part, rng))
        for copy in range(int(part.get("augment", 1))):
            for pair in pairs:
                example = render(pair, surface, Random(f"{seed}/{copy}/{pair.id}"), copy)
                if example is not None:
                    made.append(example)
    rng.shuffle(made)
    yield from made


def read(part: Mapping[str, Any], rng: Random) -> Iterator[Pair]:
    """The pairs of one source.

    Raises:
        ContextError: the source has no known kind, or a file of it is missing.
    """
    root = data_root()
    if "synthetic" in part:
        schemas = spider.schemas([_file(root, name) for name in part.get("of", ())], root / part["databases"])
        if "bird" in part:
            described = bird.databases(_file(root, part["bird"]), _file(root, part["descriptions"]))
            schemas += [schema for schema, _ in described.values()]
        yield from synthetic.generate(schemas, int(part["synthetic"]), rng)
    elif "spider" in part:
        for name in part["spider"]:
            yield from spider.pairs(
                _file(root, name),
                root / part["databases"],
                part.get("field", "question"),
                frozenset(part.get("except", ())),
            )
    elif "wikisql" in part:
        yield from wikisql.pairs(_file(root, part["wikisql"]), rng, int(part.get("limit", 10**9)))
    elif "bird" in part:
        yield from bird.pairs(_file(root, part["bird"]), _file(root, part["descriptions"]))
    else:
        raise ContextError(f"unknown training source {sorted(part)}; name spider, wikisql, bird or synthetic")


def _file(root: Path, name: str) -> Path:
    if not (root / name).is_file():
        raise ContextError(f"no training data at {root / name}; put it there, or take it out of the manifest")
    return root / name


def render(pair: Pair, surface: str, rng: Random | None, copy: int = 0) -> Example | None:
    """The example of a pair, or None where neither surface can say its query for this question."""
    tables = {(table.name.lower(), "") for table in pair.query.find_all(exp.Table)}
    columns = {(column.table.lower(), column.name.lower()) for column in pair.query.find_all(exp.Column)}
    asked = prompt.asked(pair.question, pair.evidence)
    linked = link(asked, pair.schema, rng=rng, keep=frozenset(tables | columns))
    try:
        answer = pointers.point(pair.query, linked, select_first=named(surface).select_first)
    except pointers.Unreachable:
        return None
    if not named(surface).pointed:
        answer = pointers.realise(answer, linked, quoted)
    return Example(f"{pair.id}/{copy}", prompt.messages(linked, surface), answer)


def cases(source: Mapping[str, Any]) -> Iterator[Case]:
    """Evaluation cases of a Spider-like file.

    ``{"spider": FILE, "databases": FOLDER, "only": [databases], "limit": n, "seed": n}``, the last three optional.
    """
    root = data_root()
    rows = list(enumerate(json.loads(_file(root, source["spider"]).read_text("utf-8"))))
    Random(source.get("seed", 0)).shuffle(rows)
    only = frozenset(source.get("only", ()))
    found = 0
    for place, row in rows:
        path = spider.located(root / source["databases"], row["db_id"])
        if (not only or row["db_id"] in only) and path.exists() and found < source.get("limit", len(rows)):
            found += 1
            yield Case(str(place), row["question"], str(path), (row["query"],))
