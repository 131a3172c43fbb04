"""The grammar for tools that know GBNF alone: llama.cpp takes it, and it accepts common SQL and nothing else."""

from __future__ import annotations

from pathlib import Path

import llama_cpp
import pytest
from grammar_cases import Open, accepts
from tiny_qwen3 import save

from expert_cli.grammar import gbnf
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.tokens import bytewise
from expert_cli.runtime import gguf, qwen3
from expert_cli.runtime.llama import LlamaModel

TEXT = (Path(__file__).resolve().parents[1] / "grammars" / "sql-generic.gbnf").read_text("utf-8")
VOCABULARY = bytewise(("<e>",), "<e>")

ACCEPTED = """
SELECT 1
SELECT * FROM t
SELECT a.*, COUNT(*) AS n FROM schema.t AS a GROUP BY a.x HAVING COUNT(*) > 2 ORDER BY n DESC NULLS LAST LIMIT 10 OFFSET 5;
SELECT DISTINCT x FROM t WHERE y BETWEEN 1 AND 2 OR NOT z IS NULL AND w NOT LIKE '%it''s%'
SELECT x FROM t WHERE y IN (SELECT y FROM u WHERE u.id = t.id) AND EXISTS (SELECT 1 FROM v)
SELECT a.x, b.y FROM t AS a LEFT JOIN u AS b ON a.id = b.id CROSS JOIN v JOIN w USING (id, k)
WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 10) SELECT * FROM c
SELECT x FROM t UNION SELECT y FROM u EXCEPT SELECT z FROM v ORDER BY 1
SELECT CASE x WHEN 1 THEN 'a' ELSE CASE WHEN y > 2 THEN 'b' END END FROM t
SELECT CAST(x AS DECIMAL(10, 2)), x::TEXT, EXTRACT(YEAR FROM d), d + INTERVAL '1' DAY, DATE '2020-01-01' FROM t
SELECT SUM(x) OVER (PARTITION BY y ORDER BY z DESC ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t
SELECT RANK() OVER (ORDER BY x), COUNT(DISTINCT y) FILTER (WHERE y > 0) FROM t
SELECT q.x FROM (SELECT x FROM t) AS q, LATERAL (SELECT 1) AS r
SELECT "odd name", `other one` FROM "Größe 数"
SELECT x FROM t GROUP BY ROLLUP (a, b)
SELECT COUNT(*) FROM t WHERE a || 'x' = -2.5e3 % 3
""".strip().splitlines()
REFUSED = """
DELETE FROM t
SELECT
SELECT x FROM
SELECT x FROM t WHERE
SELECT x FROM t; SELECT y FROM u
SELECT x FROM t LIMIT
SELECT 'open FROM t
SELECT x FROM t GROUP x
SELECT x y z FROM t
SELECT x FROM t JOIN u
DROP TABLE t
""".strip().splitlines()


@pytest.mark.parametrize(("line", "expected"), [*((one, True) for one in ACCEPTED), *((one, False) for one in REFUSED)])
def test_verdicts(line: str, expected: bool) -> None:
    assert accepts(Matcher(VOCABULARY, TEXT, Open()), [1 + byte for byte in line.encode()]) == expected


def test_it_has_no_hooks() -> None:
    assert not gbnf.parse(TEXT).hooks


def test_llama_cpp_takes_it(tmp_path: Path) -> None:
    folder = save(tmp_path)
    gguf.write(qwen3.contents(folder), folder / "tiny.gguf", "f16")
    model = LlamaModel(folder / "tiny.gguf", threads=1)
    sampler = llama_cpp.llama_sampler_init_grammar(model.words, TEXT.encode(), b"root")
    assert sampler
    for token in model.tokenize("SELECT x FROM t WHERE y IN (1, 2)"):
        llama_cpp.llama_sampler_accept(sampler, token)
    llama_cpp.llama_sampler_free(sampler)
    model.close()
