"""The kind of a mistake: one changed part at a time, and ways of writing that change nothing."""

from __future__ import annotations

import pytest

from experts.sql.taxonomy import KINDS, kind

GOLD = 'SELECT T1.name, COUNT(*) FROM singer AS T1 JOIN song AS T2 ON T1.id = T2.singer_id WHERE T2.year > 2000 AND T1.country = "France" GROUP BY T1.id HAVING COUNT(*) > 2 ORDER BY COUNT(*) DESC LIMIT 3'


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("SELECT T1.name", "SELEC T1.name", "syntax"),
        ("LIMIT 3", "LIMIT 3 UNION SELECT 1, 2", "set operation"),
        (GOLD, "VALUES (1)", "syntax"),
        (GOLD, "DELETE FROM singer", "syntax"),
        (GOLD, "(SELECT name FROM singer)", "tables"),
        (GOLD, "SELECT name FROM singer EXCEPT SELECT name FROM song", "set operation"),
        ("song AS T2", "album AS T2", "tables"),
        ("T2.year > 2000", "T2.year > (SELECT 2000)", "nesting"),
        ("T1.id = T2.singer_id", "T1.id = T2.id", "joins"),
        ("singer AS T1 JOIN", "singer AS T1 LEFT JOIN", "joins"),
        ("SELECT T1.name, COUNT(*)", "SELECT T1.name, SUM(x)", "aggregates"),
        ("SELECT T1.name", "SELECT T1.age", "output columns"),
        ("SELECT T1.name", "SELECT DISTINCT T1.name", "distinct"),
        ("SELECT T1.name, COUNT(*)", "SELECT COUNT(*), T1.name", "output order"),
        ("T2.year > 2000", "T2.age > 2000", "filter columns"),
        ("T2.year > 2000", "T2.year >= 2000", "filter operators"),
        ("T1.country =", "NOT T1.country =", "filter operators"),
        ("T2.year > 2000", "T2.year > 2001", "filter values"),
        ('"France"', '"Spain"', "filter values"),
        ("2000 AND", "2000 OR", "filter logic"),
        ("GROUP BY T1.id", "GROUP BY T1.name", "grouping"),
        ("HAVING COUNT(*) > 2", "HAVING COUNT(*) > 3", "having"),
        ("HAVING COUNT(*) > 2", "", "having"),
        ("COUNT(*) DESC", "COUNT(*)", "order"),
        ("LIMIT 3", "LIMIT 4", "limit"),
        ("LIMIT 3", "", "limit"),
        ("T1", "T9", "none"),
        ('T1.country = "France"', "country = 'France'", "none"),
        ("SELECT", "select", "none"),
        ("T1.name, COUNT(*)", "T1.Name AS n, COUNT(*) AS c", "none"),
        ("T1.id = T2.singer_id", "T2.singer_id = T1.id", "none"),
    ],
)
def test_kind(old: str, new: str, name: str) -> None:
    changed = GOLD.replace(old, new)
    assert changed != GOLD
    assert kind(changed, [GOLD]) == name


def test_the_closest_gold_counts() -> None:
    assert kind("SELECT a FROM t LIMIT 2", ["SELECT b FROM u", "SELECT a FROM t LIMIT 1", "not sql ("]) == "limit"
    assert kind("SELECT a FROM t", ["not sql ("]) == "none"


def test_kinds_are_named_once() -> None:
    assert len(set(KINDS)) == len(KINDS)
