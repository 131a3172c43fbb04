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
from experts.sql.binding import PointerBinding
from experts.sql.pointing import StandingBinding

END = "<e>"
INVALID = {0xC0, 0xC1, *range(0xF5, 0x100)}
"""Bytes that no text holds; llama.cpp lets them into strings."""
ENDS = (b"\x80", b"\xbf")
"""Bytes that go on with a character; after any first byte, one of them does."""
ROWS = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Native:
    """llama.cpp's grammar sampler over the vocabulary of a loaded model, in the scopes of what is written."""

    def __init__(self, model: LlamaModel, binding: Any) -> None:
        self.model, self.binding = model, binding
        self.taken: list[int] = []
        self.state: Any = None
        self.sampler: Any = None
        self.turn("")

    def turn(self, written: str) -> None:
        """Turn to the grammar of the scopes that ``written`` has begun."""
        state = self.binding.state(written)
        if self.sampler and state == self.state:
            return
        self.close()
        self.state = state
        grammar = emit.gbnf(bind(TEMPLATE, self.binding, state))
        self.sampler = llama_cpp.llama_sampler_init_grammar(self.model.words, grammar.encode(), b"root")
        assert self.sampler, f"llama.cpp refuses\n{grammar}"
        for token in self.taken:
            assert token in self.allowed()
            llama_cpp.llama_sampler_accept(self.sampler, token)

    def allowed(self) -> set[int]:
        rows = np.zeros(self.model.vocabulary, ROWS)
        rows["id"] = np.arange(len(rows))
        data = rows.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        array = llama_cpp.llama_token_data_array(data, len(rows), -1, False)
        llama_cpp.llama_sampler_apply(self.sampler, ctypes.byref(array))
        return set(rows["id"][rows["logit"] > -np.inf].tolist())

    def accept(self, token: int, written: str) -> None:
        llama_cpp.llama_sampler_accept(self.sampler, token)
        self.taken.append(token)
        self.turn(written)

    def close(self) -> None:
        if self.sampler:
            llama_cpp.llama_sampler_free(self.sampler)
        self.sampler = None


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaModel, tokens.Vocabulary]:
    folder = save(tmp_path_factory.mktemp("tiny"))
    gguf.write(qwen3.contents(folder), folder / "tiny.gguf", "f16")
    model = LlamaModel(folder / "tiny.gguf", threads=1)
    return model, tokens.load(folder / "tokenizer.json", (END,), model.vocabulary)


def text(written: bytes) -> bool:
    """Whether ``written`` begins UTF-8: some way to complete its last character makes it text."""
    return any(
        decodes(written + (first + b"\x80" * rest if rest >= 0 else b"")) for first in ENDS for rest in range(-1, 3)
    )


def decodes(written: bytes) -> bool:
    try:
        written.decode()
    except UnicodeDecodeError:
        return False
    return True


DEEPEST = 7
"""Parentheses within parentheses: llama.cpp keeps every way to read them, several times as many for each."""


def compared(model: LlamaModel, vocabulary: tokens.Vocabulary, surface: str, steps: int) -> tuple[int, int]:
    """Walk ``steps`` random steps and compare each mask; how many of them left a choice, and how many walks ended."""
    draw, choices, ended, taken = Random(1), 0, 0, 0
    never = {token for token, piece in enumerate(vocabulary.pieces) if not piece or not set(piece).isdisjoint(INVALID)}
    never.add(vocabulary.token(END))
    while taken < steps:
        binding = shop(surface)
        ours = StandingBinding(binding.surface) if isinstance(binding.surface, PointerBinding) else binding
        matcher, native, begun = Matcher(vocabulary, TEMPLATE, ours), Native(model, binding), b""
        for _ in range(100):
            found = set(matcher.allowed()) - never
            # llama.cpp reads special tokens as text inside a string, and <c3> as the operator < with a pointer after it
            read = vocabulary.special if surface == "names" or vocabulary.ids["<"] in found else frozenset[int]()
            expected = native.allowed() - never - (read - found)
            # llama.cpp takes F0 80 (overlong) and ED A0 (a surrogate) for the start of a character
            expected -= {token for token in expected - found if not text(begun + vocabulary.pieces[token])}
            # where only one text may follow, ours keeps to the tokens that the tokenizer would write it with
            same = found <= expected if matcher.forced() else found == expected
            assert same, f"{matcher.written!r}: {sorted(found ^ expected)[:20]}"
            taken += 1
            choices += not matcher.forced()
            if not found or (matcher.complete() and draw.random() < 0.5):
                ended += 1
                break
            token = draw.choice(sorted(found))
            begun += b"" if token in vocabulary.special else vocabulary.pieces[token]
            matcher.consume(token)
            if matcher.written.count("(") - matcher.written.count(")") > DEEPEST:
                break
            native.accept(token, matcher.written)
        native.close()
    return choices, ended


@pytest.mark.parametrize("surface", ["pointers", "names"])
def test_masks_are_llama_cpp_s(loaded: tuple[LlamaModel, tokens.Vocabulary], surface: str) -> None:
    choices, ended = compared(*loaded, surface, 4400)
    assert choices > 1000
    assert ended > 2
