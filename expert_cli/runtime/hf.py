"""transformers behind the same interface as llama.cpp: the reference, which applies the adapter as PEFT does."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils import logging

from expert_cli.errors import BaseModelError, UsageError
from expert_cli.runtime.weights import Floats


class HfModel:
    """A model folder in Hugging Face form, with a PEFT adapter folder where one is given, in float32 on the CPU.

    See :class:`expert_cli.runtime.llama.LlamaModel` for what ``prefill`` and ``extend`` promise. Here each row is
    decoded by itself: this backend is for checking, not for speed. ``threads`` holds for the whole process.

    Raises:
        BaseModelError: the folder is incomplete, or the adapter does not fit the base.
    """

    def __init__(
        self,
        folder: Path,
        adapter: Path | None = None,
        *,
        threads: int | None = None,
        context: int = 0,
        rows: int = 8,
    ) -> None:
        for name in ("config.json", "tokenizer.json"):
            if not (folder / name).is_file():
                raise BaseModelError(f"{folder}: {name} is missing; give a complete model folder")
        self.path = folder
        self.rows = rows
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._special = {token: added.content for token, added in self._tokenizer.get_added_tokens_decoder().items()}
        self._byte_of = {character: byte for byte, character in _byte_characters().items()}
        if threads:
            torch.set_num_threads(threads)
        logging.disable_progress_bar()
        try:
            self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
            if adapter is not None:
                self._model = PeftModel.from_pretrained(self._model, adapter)
        except (OSError, ValueError, RuntimeError) as fault:
            raise BaseModelError(f"{adapter or folder}: {fault}; give an adapter made for this base") from fault
        self._model.eval()
        self.vocabulary: int = self._model.config.vocab_size
        self.context: int = context or self._model.config.max_position_embeddings
        self._prompt: list[int] = []
        self._prompt_cache: Any = None
        self._prompt_logits: Floats = np.empty((0, self.vocabulary), np.float32)
        self._live: list[Any] = []
        self.reused = 0

    def tokenize(self, text: str) -> list[int]:
        """The tokens of ``text``; special tokens written in it are parsed."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def piece(self, token: int) -> bytes:
        """What ``token`` writes; special tokens write their own name."""
        if token in self._special:
            return self._special[token].encode()
        text = self._tokenizer.id_to_token(token)
        # rows beyond the tokenizer pad the embedding; llama.cpp writes nothing for them
        return bytes(self._byte_of[character] for character in text) if text else b""

    def prefill(self, tokens: Sequence[int]) -> Floats:
        """Read a prompt: one row remains, whose next-token logits are returned, shape (1, vocabulary)."""
        if not 0 < len(tokens) < self.context:
            raise UsageError(f"a prompt of {len(tokens)} tokens does not fit a context of {self.context}; shorten it")
        self.reused = len(tokens) if list(tokens) == self._prompt else 0
        if not self.reused:
            self._prompt_cache = DynamicCache(config=self._model.config)
            self._prompt_logits = self._read(tokens, self._prompt_cache)[None]
            self._prompt = list(tokens)
        self._live = [self._prompt_cache]
        return self._prompt_logits

    def extend(self, rows: Sequence[tuple[int, Sequence[int]]]) -> Floats:
        """Replace the rows by ``rows``, each a parent row and the tokens that follow it; see the llama backend."""
        if not 0 < len(rows) <= self.rows:
            raise UsageError(f"{len(rows)} rows, at least 1 and at most {self.rows}; load the model with more rows")
        for parent, tokens in rows:
            if not tokens or self._live[parent].get_seq_length() + len(tokens) > self.context:
                raise UsageError(f"{len(tokens)} tokens do not fit a context of {self.context}; shorten the prompt")
        caches = [copy.deepcopy(self._live[parent]) for parent, _ in rows]
        logits = [self._read(tokens, cache) for cache, (_, tokens) in zip(caches, rows, strict=True)]
        self._live = caches
        return np.stack(logits)

    def close(self) -> None:
        """Let go of the model; it cannot be used afterwards."""
        self._model = self._prompt_cache = None
        self._live = []

    def _read(self, tokens: Sequence[int], cache: Any) -> Floats:
        with torch.inference_mode():
            ids = torch.tensor([list(tokens)])
            logits = self._model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        last: Floats = logits[0, -1].float().numpy()
        return last


def _byte_characters() -> dict[int, str]:
    """The character that byte-level BPE writes for each byte: itself where printable, else one from 256 on."""
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    printable = {byte: chr(byte) for byte in range(256) if chr(byte) in alphabet}
    others = (byte for byte in range(256) if byte not in printable)
    return printable | {byte: chr(256 + index) for index, byte in enumerate(others)}
