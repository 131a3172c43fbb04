"""One language in three loops: llama.cpp's, ours over transformers, and transformers' own ``generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from grammar_cases import Open
from test_binding import TEMPLATE, shop
from tiny_qwen3 import save
from transformers import AutoModelForCausalLM, LogitsProcessorList

from expert_cli.errors import GrammarError
from expert_cli.grammar import tokens
from expert_cli.grammar.matcher import Matcher
from expert_cli.runtime import decode, gguf, qwen3
from expert_cli.runtime.hf import HfModel
from expert_cli.runtime.llama import LlamaModel
from expert_cli.runtime.processor import GrammarProcessor
from experts.sql.binding import PointerBinding
from experts.sql.pointing import StandingBinding
from experts.sql.selecting import SelectingBinding

END, LONGEST = "<e>", 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def vocabulary(folder: Path) -> tokens.Vocabulary:
    return tokens.load(folder / "tokenizer.json", (END,), 704)


def matcher(vocabulary: tokens.Vocabulary, surface: str) -> Matcher:
    if surface == "names":
        return Matcher(vocabulary, TEMPLATE, shop("names"))
    scoped = shop("pointers").surface
    assert isinstance(scoped, PointerBinding)
    kind = SelectingBinding if surface == "pointers-select" else StandingBinding
    return Matcher(vocabulary, TEMPLATE, kind(scoped))


def generated(folder: Path, ids: list[int], processor: GrammarProcessor, **options: Any) -> list[list[int]]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    end = processor._start.vocabulary.ends[0]
    with torch.inference_mode():
        found = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=LONGEST,
            logits_processor=LogitsProcessorList([processor]), eos_token_id=end, pad_token_id=end, **options,
        )  # fmt: skip
    return [row[len(ids) :].tolist() for row in found]


@pytest.mark.parametrize("surface", ["pointers", "pointers-select", "names"])
def test_the_same_tokens_in_every_loop(
    folder: Path, tmp_path: Path, vocabulary: tokens.Vocabulary, surface: str
) -> None:
    gguf.write(qwen3.contents(folder), tmp_path / "tiny.gguf", "f32")
    llama, reference = LlamaModel(tmp_path / "tiny.gguf", threads=1, exact=True), HfModel(folder)
    ends = frozenset(vocabulary.ends)
    for text in ("<s>singer<t0> name<c0><q>how many?<sql>", "<s><q>show all singers<sql>", "<s><q>x<sql>"):
        ids = llama.tokenize(text)
        start = matcher(vocabulary, surface)
        one, other = (decode.greedy(model, ids, start.fork(), ends, max_tokens=LONGEST) for model in (llama, reference))
        assert one.tokens == other.tokens
        (third,) = generated(folder, ids, GrammarProcessor(start, len(ids)), do_sample=False)
        written = [token for token in third if token not in ends]
        size = min(len(one.tokens), LONGEST)
        assert written[:size] == list(one.tokens)[:size]
        assert len(written) > 5


@pytest.mark.parametrize("only", ["東京 タワー", "naïve 🚀 SELECT COUNT(*)", "DESC ŁŁ"])
def test_a_run_that_must_follow_is_written_as_our_loop_writes_it(
    folder: Path, vocabulary: tokens.Vocabulary, only: str
) -> None:
    """Its later tokens may cut a character: seen from there, the tokenizer would write the rest in another way."""
    model, ends = HfModel(folder), frozenset(vocabulary.ends)
    ids = model.tokenize("<s><q>x<sql>")
    start = Matcher(vocabulary, f'root ::= "{only}" ("1" | "2")', Open())
    expected = decode.greedy(model, ids, start.fork(), ends, max_tokens=LONGEST)
    (found,) = generated(folder, ids, GrammarProcessor(start, len(ids)), do_sample=False)
    assert [token for token in found if token not in ends] == list(expected.tokens)


def test_beams_and_samples_stay_in_the_grammar(folder: Path, vocabulary: tokens.Vocabulary) -> None:
    ids = HfModel(folder).tokenize("<s><q>show all singers<sql>")
    start = matcher(vocabulary, "pointers")
    torch.manual_seed(1)
    for options in ({"num_beams": 4, "num_return_sequences": 4}, {"do_sample": True, "num_return_sequences": 6}):
        rows = generated(folder, ids, GrammarProcessor(start, len(ids)), **options)
        assert len({tuple(row) for row in rows}) > 1
        for row in rows:
            followed = start.fork()
            for token in row:
                if token in vocabulary.ends:
                    assert followed.complete()
                    break
                followed.consume(token)


def test_what_is_outside_the_grammar_is_an_error(vocabulary: tokens.Vocabulary) -> None:
    processor = GrammarProcessor(matcher(vocabulary, "pointers"), 1)
    scores = torch.zeros(1, vocabulary.size)
    assert torch.isfinite(processor(torch.tensor([[0]]), scores)).sum() < vocabulary.size
    with pytest.raises(GrammarError, match="cannot follow"):
        processor(torch.tensor([[0, vocabulary.ids["<c0>"]]]), scores)
