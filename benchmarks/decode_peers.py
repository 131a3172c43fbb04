"""What others do with the same model, text and grammar: llama-cpp-python's ``grammar=``, and xgrammar in transformers.

Every model here is dictated: the logit of the token that the text needs next is raised, so that all of them do their
whole work and write the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import torch
import xgrammar
from decode_cases import Case, grammar
from decode_models import Subject
from transformers import AutoModelForCausalLM, DynamicCache, LogitsProcessor, LogitsProcessorList
from transformers.utils import logging

from expert_cli.grammar import emit
from expert_cli.grammar.bind import bind
from expert_cli.grammar.nodes import Choice, Grammar, Literal, Node, Repeat, Token
from expert_cli.grammar.nodes import Sequence as Items
from expert_cli.runtime import decode
from expert_cli.runtime.llama import LlamaModel
from expert_cli.runtime.weights import Floats

RAISED = 1e6


class Dictated:
    """Our model, writing the tokens that it is told."""

    def __init__(self, model: LlamaModel) -> None:
        self.model = model
        self.rows, self.vocabulary, self.context = model.rows, model.vocabulary, model.context
        self.tokenize, self.piece, self.close = model.tokenize, model.piece, model.close
        self.told: list[int] = []
        self._at = 0

    @property
    def reused(self) -> int:
        return self.model.reused

    def prefill(self, tokens: Sequence[int]) -> Floats:
        self._at = 0
        return self._raised(self.model.prefill(tokens).copy())

    def extend(self, rows: Sequence[tuple[int, Sequence[int]]]) -> Floats:
        ((_, tokens),) = rows
        self._at += len(tokens)
        return self._raised(self.model.extend(rows))

    def narrow(self, rows: Sequence[tuple[int, Sequence[int]]], options: Sequence[decode.Indices]) -> list[Floats]:
        ((_, tokens),) = rows
        self._at += len(tokens)
        (logits,) = self.model.narrow(rows, options)
        logits[options[0] == self.told[self._at]] += RAISED
        return [logits]

    def _raised(self, logits: Floats) -> Floats:
        logits[0, self.told[self._at]] += RAISED
        return logits


class Native(llama_cpp.Llama):  # type: ignore[misc]
    """llama-cpp-python's own loop and grammar sampler over a dictated model."""

    def __init__(self, file: Path) -> None:
        super().__init__(str(file), n_ctx=4096, n_threads=1, n_threads_batch=1, verbose=False)
        self.told: list[int] = []
        self._at = -1

    def eval(self, tokens: Sequence[int]) -> None:
        """Decode, then raise the next token: cheaper than a logits processor, which would copy all candidates."""
        super().eval(tokens)
        if self._at >= 0 and tokens:
            self._at += 1
        if self.told:
            row = llama_cpp.llama_get_logits_ith(self.ctx, -1)
            row[self.told[max(self._at, 0)]] += RAISED
        self._at = max(self._at, 0)

    def read(self, prompt: Sequence[int], told: Sequence[int]) -> None:
        """Read the prompt, outside the clock."""
        self.told, self._at = list(told), -1
        self.reset()
        self.eval(prompt)

    def write(self, prompt: Sequence[int], gbnf: str | None) -> list[int]:
        """Continue the prompt that was read to the end of what was told."""
        closed = llama_cpp.LlamaGrammar.from_string(gbnf) if gbnf else None
        steps = self.generate(list(prompt), temp=0.0, repeat_penalty=1.0, grammar=closed)
        written = []
        for token in steps:
            written.append(token)
            if len(written) == len(self.told):
                break
        steps.close()
        assert written == self.told, "the grammar led llama.cpp elsewhere"
        return written


class Dictation(LogitsProcessor):  # type: ignore[misc]
    """The last of transformers' processors: raises what is told, where the ones before it allow it."""

    def __init__(self, told: Sequence[int]) -> None:
        self.told, self.at = told, 0

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[0, self.told[self.at]] += RAISED
        self.at += 1
        return scores


class Generator:
    """transformers' generate over a dictated model, with a processor that enforces the grammar."""

    def __init__(self, subject: Subject) -> None:
        logging.disable_progress_bar()
        torch.set_num_threads(1)
        self.subject = subject
        self.model: Any = AutoModelForCausalLM.from_pretrained(subject.folder, dtype=torch.float32).eval()
        self._prompt: tuple[list[int], Any] = ([], None)
        pieces = list(subject.vocabulary.pieces)
        self._compiler = xgrammar.GrammarCompiler(
            xgrammar.TokenizerInfo(
                pieces,
                vocab_type=xgrammar.VocabType.RAW,
                vocab_size=subject.vocabulary.size,
                stop_token_ids=list(subject.vocabulary.ends),
            ),
            max_threads=1,
            cache_enabled=False,
        )

    def read(self, prompt: Sequence[int]) -> None:
        """Read all but the prompt's last token, outside the clock."""
        cache = DynamicCache(config=self.model.config)
        with torch.inference_mode():
            self.model(input_ids=torch.tensor([list(prompt[:-1])]), past_key_values=cache, use_cache=True)
        self._prompt = (list(prompt), cache)

    def write(self, told: Sequence[int], enforce: LogitsProcessor | None) -> list[int]:
        """Continue the prompt that was read; it can be continued again."""
        prompt, cache = self._prompt
        processors = [*([enforce] if enforce else []), Dictation(told)]
        ids = self.model.generate(
            torch.tensor([prompt]),
            past_key_values=copy.deepcopy(cache),
            max_new_tokens=len(told),
            do_sample=False,
            logits_processor=LogitsProcessorList(processors),
            eos_token_id=list(self.subject.vocabulary.ends),
            pad_token_id=0,
        )
        written: list[int] = ids[0, len(prompt) :].tolist()
        assert written == list(told), "the grammar led transformers elsewhere"
        return written

    def xgrammar(self, ebnf: str) -> LogitsProcessor:
        """xgrammar's own processor, compiled for one grammar."""
        return xgrammar.contrib.hf.LogitsProcessor(self._compiler.compile_grammar(xgrammar.Grammar.from_ebnf(ebnf)))


def closed(case: Case, *, named_tokens: bool) -> str:
    """The case's grammar in the scopes that its query ends in, as flat GBNF.

    These peers cannot follow scope events: they are told the tables beforehand. ``named_tokens`` False writes a token
    such as ``<c7>`` as text, for engines that know no tokens.
    """
    binding = case.scoped()
    bound = bind(grammar(case.question.surface), binding, binding.state(case.gold))
    return emit.gbnf(bound) if named_tokens else str(Grammar(_spelled(bound.grammar().rules), {}))


def _spelled(rules: Any) -> dict[str, Node]:
    return {name: _text(node) for name, node in rules.items()}


def _text(node: Node) -> Node:
    match node:
        case Token(name):
            return Literal(f"<{name}>")
        case Items(items):
            return Items(tuple(_text(item) for item in items))
        case Choice(options):
            return Choice(tuple(_text(option) for option in options))
        case Repeat(item, low, high):
            return Repeat(_text(item), low, high)
        case _:
            return node


Arm = Callable[[Case, list[int], list[int]], object]
"""Writes a case, given its prompt's and its gold's tokens."""
