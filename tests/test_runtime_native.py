"""Masks of our matcher against llama.cpp's own grammar sampler, step by step along random sentences."""

from __future__ import annotations

import ctypes
from random import Random
from typing import Any

import llama_cpp
import numpy as np
import pytest
from test_binding import TEMPLATE, shop
from tiny_qwen3 import save

from expert_cli.grammar import emit, tokens
from expert_cli.grammar.bind import bind
from expert_cli.grammar.matcher import Matcher
from expert_cli.runtime import gguf, qwen3
from expert_cli.runtime.llama import LlamaModel

END = "<e>"


class Native:
    """llama.cpp's grammar sampler over the vocabulary of a loaded model."""

    def __init__(self, model: LlamaModel, grammar: str) -> None:
        self.size = model.vocabulary
        self.sampler = llama_cpp.llama_sampler_init_grammar(model._vocabulary, grammar.encode(), b"root")
        assert self.sampler, f"llama.cpp refuses\n{grammar}"
        self.data = (llama_cpp.llama_token_data * self.size)()

    def allowed(self) -> set[int]:
        for token in range(self.size):
            self.data[token].id, self.data[token].logit, self.data[token].p = token, 0.0, 0.0
        array = llama_cpp.llama_token_data_array(self.data, self.size, -1, False)
        llama_cpp.llama_sampler_apply(self.sampler, ctypes.byref(array))
        return {one.id for one in self.data if one.logit > -np.inf}

    def accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self.sampler, token)

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self.sampler)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaModel, tokens.Vocabulary]:
    folder = save(tmp_path_factory.mktemp("tiny"))
    gguf.write(qwen3.contents(folder), folder / "tiny.gguf", "f16")
    model = LlamaModel(folder / "tiny.gguf", threads=1)
    return model, tokens.load(folder / "tokenizer.json", (END,), model.vocabulary)


def native(model: LlamaModel, vocabulary: tokens.Vocabulary, binding: Any, written: str, taken: list[int]) -> Native:
    """The native grammar of the scope that ``written`` is in, moved past the tokens that were taken."""
    closed = bind(TEMPLATE, binding, binding.state(written))
    grammar = Native(model, emit.gbnf(closed))
    for token in taken:
        assert token in grammar.allowed()
        grammar.accept(token)
    return grammar


@pytest.mark.parametrize("surface", ["pointers", "names"])
def test_masks_are_llama_cpp_s(loaded: tuple[LlamaModel, tokens.Vocabulary], surface: str) -> None:
    model, vocabulary = loaded
    draw, choices = Random(1), 0
    for _ in range(6):
        matcher, taken = Matcher(vocabulary, TEMPLATE, shop(surface)), list[int]()
        while not (matcher.complete() and draw.random() < 0.3) and len(taken) < 40:
            grammar = native(model, vocabulary, shop(surface), matcher.written, taken)
            ours, theirs = set(matcher.allowed()), grammar.allowed()
            grammar.close()
            ours, theirs = ours - {vocabulary.token(END)}, theirs - {vocabulary.token(END)}
            # where only one text may follow, ours keeps to the tokens that the tokenizer would write it with
            assert ours <= theirs if matcher.forced() else ours == theirs, matcher.written
            choices += not matcher.forced()
            if not ours:
                break
            taken.append(draw.choice(sorted(ours)))
            matcher.consume(taken[-1])
    assert choices > 40
