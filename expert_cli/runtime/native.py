"""llama.cpp's own grammar sampler as an engine for our matcher: a fallback, and an outside opinion.

It reads the flat GBNF that ``grammar emit --to gbnf`` prints. It is slower, and laxer in places: it lets bytes that are
no text, and the names of special tokens, into strings. So nothing that it wrote is believed before another engine has
read it, see :func:`expert_cli.grammar.verdict.fault`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp
import numpy as np

from expert_cli.errors import GrammarError
from expert_cli.grammar import emit
from expert_cli.grammar.bind import Closed
from expert_cli.grammar.nodes import Node, Token, children
from expert_cli.grammar.tokens import Vocabulary
from expert_cli.runtime.llama import LlamaModel

_ROWS = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_NEVER_TEXT = {0xC0, 0xC1, *range(0xF5, 0x100)}
"""Bytes that no UTF-8 holds."""


class Native:
    """Makes engines over the vocabulary of a loaded model."""

    def __init__(self, model: LlamaModel) -> None:
        self.model = model

    def compiled(self, closed: Closed, vocabulary: Vocabulary) -> Any:
        """llama.cpp's sampler at the start of ``closed``.

        Raises:
            GrammarError: llama.cpp refuses the grammar.
        """
        text, named = emit.gbnf(closed), set[int]()
        for rule in closed.instances:
            named |= {_id(one, vocabulary) for one in _tokens(rule.node)}
        never = [
            token
            for token, piece in enumerate(vocabulary.pieces)
            if not piece or (token in vocabulary.special - named) or not _NEVER_TEXT.isdisjoint(piece)
        ]
        sampler = llama_cpp.llama_sampler_init_grammar(
            self.model.words, text.encode(), closed.instances[0].name.encode()
        )
        if not sampler:
            raise GrammarError("llama.cpp cannot read the grammar; use --decoder llguidance")
        return Sampler(sampler, vocabulary, np.array(never))


class Sampler:
    """One place in a grammar, with the methods that :class:`expert_cli.grammar.matcher.Matcher` asks of an engine."""

    def __init__(self, sampler: Any, vocabulary: Vocabulary, never: Any) -> None:
        self._sampler, self._vocabulary, self._never = sampler, vocabulary, never

    def __del__(self) -> None:
        llama_cpp.llama_sampler_free(self._sampler)

    def try_consume_tokens(self, tokens: Sequence[int]) -> int:
        """Read ``tokens``; how many of them could be read."""
        for count, token in enumerate(tokens):
            # llama.cpp would end the process over one that it does not allow
            if not self._allowed(np.array([token], np.int32))[0]:
                return count
            if token not in self._vocabulary.ends:
                llama_cpp.llama_sampler_accept(self._sampler, token)
        return len(tokens)

    def unsafe_compute_mask_ptr(self, pointer: int, size: int) -> None:
        """Write one bit per token, in words of 32 bits, to ``size`` bytes at ``pointer``."""
        allowed = self._allowed(np.arange(self._vocabulary.size, dtype=np.int32))
        allowed[self._never] = False
        bits = np.zeros(size * 8, np.uint8)
        bits[: len(allowed)] = allowed
        # the ends of a turn are one to a grammar, whichever of them the model's file names
        bits[list(self._vocabulary.ends)] = self.is_accepting()
        packed = np.packbits(bits, bitorder="little")
        ctypes.memmove(pointer, packed.ctypes.data, size)

    def is_accepting(self) -> bool:
        return bool(self._allowed(np.array(self._vocabulary.ends, np.int32)).any())

    def compute_ff_tokens(self) -> list[int]:
        return []

    def deep_copy(self) -> Sampler:
        return Sampler(llama_cpp.llama_sampler_clone(self._sampler), self._vocabulary, self._never)

    def is_error(self) -> bool:
        return False

    def get_error(self) -> str:
        return ""

    def _allowed(self, ids: Any) -> Any:
        """Whether each of ``ids`` may come next, in llama.cpp's opinion."""
        rows = np.zeros(len(ids), _ROWS)
        rows["id"] = ids
        data = rows.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data))
        array = llama_cpp.llama_token_data_array(data, len(rows), -1, False)
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return rows["logit"] > -np.inf


def _tokens(node: Node) -> list[Token]:
    return [node] if isinstance(node, Token) else [one for part in children(node) for one in _tokens(part)]


def _id(node: Token, vocabulary: Vocabulary) -> int:
    return int(node.name[1:-1]) if node.name.startswith("[") else vocabulary.token(f"<{node.name}>")
