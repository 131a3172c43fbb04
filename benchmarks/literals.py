"""How many literals of gold queries a question offers, exactly or but for case: Spider's development set, and train.

    python benchmarks/literals.py [--missed] [--train]
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator

import sqlglot
from sqlglot import exp

from experts.sql.corpora.spider import database, located
from experts.sql.linking import link
from experts.sql.literals import SMALL_NUMBERS
from experts.sql.prepare import data_root
from experts.sql.schema import Schema


def rows(train: bool) -> Iterator[tuple[int, str, str, Schema]]:
    """Number, question, gold and schema of each row whose database is there."""
    data = data_root()
    file = data / ("spider_train/train_spider.json" if train else "spider/dev.json")
    for number, row in enumerate(json.loads(file.read_text("utf-8"))):
        path = located(data / "spider" / "database", row["db_id"])
        if path.is_file() and not (train and number % 5):
            yield number, row["question"], row["query"], database(path)


def reach(node: exp.Literal, question: str, schema: Schema) -> str:
    """How the literal of a gold query can be written for ``question``."""
    text = str(node.this)
    if not node.is_string and text in SMALL_NUMBERS:
        return "small"
    if isinstance(node.parent, exp.Like):
        text = text.strip("%")
    offered = [literal.text for literal in link(question, schema).literals]
    plain = re.sub(r"\.0+$", "", text)
    if text.strip() in offered or plain in offered:
        return "exact"
    return "but for case" if text.strip().lower() in {one.lower() for one in offered} else "missed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--missed", action="store_true", help="list what is not offered")
    parser.add_argument("--train", action="store_true", help="every fifth row of the training set instead")
    options = parser.parse_args()
    counted: Counter[str] = Counter()
    for number, question, sql, schema in rows(options.train):
        nodes = sqlglot.parse_one(sql, dialect="sqlite").find_all(exp.Literal)
        found = [reach(node, question, schema) for node in nodes]
        counted.update(found)
        counted["queries"] += 1
        counted["queries whole"] += "missed" not in found
        if options.missed and "missed" in found:
            print(f"{number}: {question}\n    {sql}")
    literals = sum(counted[kind] for kind in ("exact", "but for case", "small", "missed"))
    for kind in ("exact", "but for case", "small", "missed"):
        print(f"{kind:<14} {counted[kind]:>6} {counted[kind] / literals:.4f}")
    within = literals - counted["missed"]
    print(f"reachable      {within:>6} {within / literals:.4f} of {literals} literals")
    print(f"whole queries  {counted['queries whole']:>6} {counted['queries whole'] / counted['queries']:.4f}")


if __name__ == "__main__":
    main()
