"""llama.cpp behind one door: load a GGUF, tokenize, and decode many continuations of one prompt at once."""

from __future__ import annotations

import ctypes
import os
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import _ggml

from expert_cli.errors import BaseModelError, UsageError
from expert_cli.runtime import header
from expert_cli.runtime import narrow as narrowing
from expert_cli.runtime import pace as pacing
from expert_cli.runtime.decode import Indices
from expert_cli.runtime.pace import Pace
from expert_cli.runtime.weights import Floats

PROMPT = 0
"""The sequence that keeps the prompt's keys and values; rows live in the sequences after it."""

ROW_CELLS = 256
"""Room for the tokens that each row writes after the shared prompt."""

BATCH = 512
"""Tokens decoded in one call."""

Part = tuple[int, int, Sequence[int]]
"""A sequence, the position of its next token, and the tokens that it goes on with."""

Take = Callable[[dict[int, int]], None]
"""Takes the outputs of a batch: the part by its place."""

_complaints: list[str] = []


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _log(level: int, text: bytes, _: Any) -> None:
    if level == 3:  # GGML_LOG_LEVEL_ERROR
        _complaints.append(text.decode("utf-8", "replace").strip())
        del _complaints[:-8]


class LlamaModel:
    """A GGUF model that continues one prompt in up to ``rows`` ways.

    ``prefill`` reads a prompt and leaves one row; ``extend`` replaces the rows by continuations of them, all decoded
    in one call. A prompt's keys and values are computed once and shared by every row and by the next prompt as far as
    both agree. ``context`` bounds one row's tokens (0: as trained); ``exact`` keeps keys and values in f32, as the
    transformers backend does, where f16 and flash attention read a prompt half as fast again; ``narrow`` prepares for
    :meth:`narrow`, which pays where the vocabulary is a large part of the model.

    Raises:
        BaseModelError: the file is missing, damaged or unknown to llama.cpp.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int | None = None,
        context: int = 0,
        rows: int = 8,
        exact: bool = False,
        narrow: bool = False,
    ) -> None:
        tensors = header.check(path)
        llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        _complaints.clear()
        self.path = path
        self.rows = rows
        self.threads = threads or min(os.cpu_count() or 1, 4)
        self._context: Any = None
        self._batch: Any = None
        self._model: Any = llama_cpp.llama_model_load_from_file(os.fsencode(path), _model_params())
        if not self._model:
            raise header.damaged(path, "; ".join(_complaints) or "llama.cpp refused it")
        self.words: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.vocabulary: int = llama_cpp.llama_vocab_n_tokens(self.words)
        self.context: int = context or llama_cpp.llama_model_n_ctx_train(self._model)
        params = _context_params(self.context, rows, self.threads, exact)
        self._head = narrowing.head(path, tensors) if narrow else None
        self._cut: narrowing.Cut | None = None
        if self._head:
            kind = llama_cpp.ggml_backend_sched_eval_callback
            self._cut = narrowing.Cut(_ggml.libggml, kind, self._head.width)
            params.cb_eval = self._cut.callback
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._context:
            self.close()
            raise header.damaged(path, "; ".join(_complaints) or "llama.cpp made no context")
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._nfc = self._metadata(header.NFC) != "false"
        self.reused = 0
        """How many tokens of the last prompt were already known."""
        self.pace = Pace.of(pacing.BATCH)
        """How one row's tokens are fed."""
        self._pieces: dict[int, bytes] = {}
        self._prompt: list[int] = []
        self._prompt_logits: Floats = np.empty((0, self.vocabulary), np.float32)
        self._live: list[tuple[int, int]] = []  # (sequence, position of its next token) of each row
        self._row = ctypes.c_float * self.vocabulary
        self.narrows = self._cut is not None and self._agrees()
        """Whether :meth:`narrow` leaves out the output layer."""

    def tokenize(self, text: str) -> list[int]:
        """The tokens of ``text``; special tokens written in it are parsed."""
        raw = (unicodedata.normalize("NFC", text) if self._nfc else text).encode("utf-8")
        size = len(raw) + 8
        tokens = (llama_cpp.llama_token * size)()
        count = llama_cpp.llama_tokenize(self.words, raw, len(raw), tokens, size, False, True)
        if count < 0:
            raise BaseModelError(f"{self.path}: llama.cpp cannot tokenize {text[:40]!r}; rephrase the question")
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """What ``token`` writes; special tokens write their own name."""
        if token not in self._pieces:
            buffer = ctypes.create_string_buffer(512)
            size = llama_cpp.llama_token_to_piece(self.words, token, buffer, 512, 0, True)
            if size < 0:
                raise BaseModelError(f"{self.path}: token {token} has no text; the model and its vocabulary disagree")
            self._pieces[token] = buffer.raw[:size]
        return self._pieces[token]

    def prefill(self, tokens: Sequence[int]) -> Floats:
        """Read a prompt: one row remains, whose next-token logits are returned, shape (1, vocabulary).

        Only what follows the longest common prefix with the last prompt is computed.

        Raises:
            UsageError: the prompt is empty or longer than the context.
        """
        if not 0 < len(tokens) < self.context:
            raise UsageError(f"a prompt of {len(tokens)} tokens does not fit a context of {self.context}; shorten it")
        for sequence in {sequence for sequence, _ in self._live} - {PROMPT}:
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        self._live = [(PROMPT, len(tokens))]
        if list(tokens) == self._prompt:
            self.reused = len(tokens)
            return self._prompt_logits
        self.reused = common = _common(self._prompt, tokens[:-1])
        self._prompt = []
        llama_cpp.llama_memory_seq_rm(self._memory, PROMPT, common, -1)
        self._prompt_logits = self._decode([(PROMPT, common, tokens[common:])])
        self._prompt = list(tokens)
        return self._prompt_logits

    def extend(self, rows: Sequence[tuple[int, Sequence[int]]]) -> Floats:
        """Replace the rows by ``rows``, each a parent row and the tokens that follow it.

        Returns the next-token logits of the new rows, shape (rows, vocabulary).

        Raises:
            UsageError: too many rows, a row without tokens, or one that runs beyond the context.
        """
        return self._decode(self._parts(rows))

    def narrow(self, rows: Sequence[tuple[int, Sequence[int]]], options: Sequence[Indices]) -> list[Floats]:
        """As :meth:`extend`, but of each row only the logits of its ``options``, in their order."""
        parts = self._parts(rows)
        found: list[Floats] = [np.empty(0, np.float32)] * len(parts)
        cut = self.narrows and max(map(len, options)) <= narrowing.FEW
        self._feed(parts, lambda outputs: self._multiply(outputs, options, found), cut=cut)
        return found

    def _parts(self, rows: Sequence[tuple[int, Sequence[int]]]) -> list[Part]:
        """The sequence, position and tokens of each new row."""
        if not 0 < len(rows) <= self.rows:
            raise UsageError(f"{len(rows)} rows, at least 1 and at most {self.rows}; load the model with more rows")
        for parent, tokens in rows:
            if not tokens or self._live[parent][1] + len(tokens) > self.context:
                raise UsageError(f"{len(tokens)} tokens do not fit a context of {self.context}; shorten the prompt")
        sequences = self._branch([parent for parent, _ in rows])
        starts = [self._live[parent][1] for parent, _ in rows]
        parts = [(s, start, tokens) for s, start, (_, tokens) in zip(sequences, starts, rows, strict=True)]
        self._live = [(sequence, start + len(tokens)) for sequence, start, tokens in parts]
        return parts

    def seconds(self, count: int, policy: str) -> float:
        """How long a run of ``count`` tokens and the choice after it take under a policy of :mod:`.pace`.

        They follow a choice, as they do in a query: llama.cpp builds its graph anew whenever the number of tokens or of
        logits changes, which runs of one kind in a row would hide. Forgets the prompt.
        """
        self._prompt, self._live = [], []
        llama_cpp.llama_memory_clear(self._memory, False)
        kept, self.pace = self.pace, Pace.of(policy)
        self._decode([(PROMPT, 0, [0])])
        llama_cpp.llama_synchronize(self._context)
        start = time.perf_counter()
        self._decode([(PROMPT, 1, [0] * count)])
        self._decode([(PROMPT, 1 + count, [0])])
        llama_cpp.llama_synchronize(self._context)
        spent = time.perf_counter() - start
        self.pace = kept
        llama_cpp.llama_memory_clear(self._memory, False)
        return spent

    def close(self) -> None:
        """Free the model; it cannot be used afterwards."""
        if self._batch is not None:
            llama_cpp.llama_batch_free(self._batch)
        if self._context:
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)
        self._batch = self._context = self._model = None

    def _branch(self, parents: Sequence[int]) -> list[int]:
        """Sequences for the children of ``parents``: the first child takes over, its siblings share a copy."""
        held = [sequence for sequence, _ in self._live]
        kept = {held[parent] for parent in parents} - {PROMPT}
        for sequence in set(held) - kept - {PROMPT}:
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        free = [sequence for sequence in range(PROMPT + 1, self.rows + 1) if sequence not in kept]
        chosen = []
        for parent in parents:
            if held[parent] in kept:
                kept.remove(held[parent])
                chosen.append(held[parent])
            else:
                chosen.append(free.pop())
                llama_cpp.llama_memory_seq_cp(self._memory, held[parent], chosen[-1], -1, -1)
        return chosen

    def _decode(self, parts: Sequence[Part]) -> Floats:
        """Feed each part's tokens from its position on; returns the logits after each part's last token."""
        logits = np.empty((len(parts), self.vocabulary), np.float32)
        self._feed(parts, lambda outputs: self._copy(outputs, logits))
        return logits

    def _feed(self, parts: Sequence[Part], take: Take, *, cut: bool = False) -> None:
        """Decode the parts in batches and ``take`` the outputs of each; ``cut`` leaves their logits out."""
        outputs: dict[int, int] = {}  # place in the batch -> part
        most = 1 if len(parts) == 1 and len(parts[0][2]) < self.pace.together else BATCH
        plain = most == 1 and self.pace.steps == pacing.PLAIN
        count = 0
        for part, (sequence, start, tokens) in enumerate(parts):
            for offset, token in enumerate(tokens):
                if count == most:
                    self._run(count, outputs, take, cut)
                    count = 0
                last = offset == len(tokens) - 1
                self._put(count, sequence, start + offset, token, last or plain)
                if last:
                    outputs[count] = part
                count += 1
        self._run(count, outputs, take, cut)

    def _put(self, place: int, sequence: int, position: int, token: int, logits: bool) -> None:
        batch = self._batch
        batch.token[place] = token
        batch.pos[place] = position
        batch.n_seq_id[place] = 1
        batch.seq_id[place][0] = sequence
        batch.logits[place] = logits

    def _run(self, count: int, outputs: dict[int, int], take: Take, cut: bool = False) -> None:
        """Decode the batch and take its outputs: llama.cpp forgets them with the next one."""
        self._batch.n_tokens = count
        if cut and outputs and self._cut:
            self._cut.begin(len(outputs))
        status = llama_cpp.llama_decode(self._context, self._batch)
        if status:
            self._prompt = []
            raise BaseModelError(f"{self.path}: llama.cpp stopped with status {status}; ask with fewer candidates")
        take(outputs)
        outputs.clear()

    def _copy(self, outputs: dict[int, int], logits: Floats) -> None:
        for place, part in outputs.items():
            row = llama_cpp.llama_get_logits_ith(self._context, place)
            ctypes.memmove(logits[part].ctypes.data, row, logits[part].nbytes)
            self._check(logits[part])

    def _multiply(self, outputs: dict[int, int], options: Sequence[Indices], found: list[Floats]) -> None:
        hidden = self._cut.taken() if outputs and self._cut else None
        for order, (place, part) in enumerate(outputs.items()):
            if hidden is not None and self._head:
                found[part] = self._head.logits(hidden[order], options[part])
            else:
                row = llama_cpp.llama_get_logits_ith(self._context, place)
                logits = np.frombuffer(self._row.from_address(ctypes.addressof(row.contents)), np.float32)
                found[part] = logits.take(options[part])
            self._check(found[part])

    def _agrees(self) -> bool:
        """Whether rows multiplied here give llama.cpp's own logits, up to what quantised products differ by."""
        assert self._cut
        some = np.arange(0, self.vocabulary, -(-self.vocabulary // 256))
        # tokens from everywhere: the embeddings of single ones may be zero
        parts = [(PROMPT, 0, some[::32].tolist())]
        full = self._decode(parts)[0].take(some)
        llama_cpp.llama_memory_clear(self._memory, False)
        found = [full]
        self._feed(parts, lambda outputs: self._multiply(outputs, [some], found), cut=True)
        llama_cpp.llama_memory_clear(self._memory, False)
        return self._cut.works and bool(np.abs(found[0] - full).max() < 0.05 * np.ptp(full))

    def _check(self, logits: Floats) -> None:
        if np.isnan(logits.max()):
            raise BaseModelError(f"{self.path}: computes no numbers; weave or fetch it again")

    def _metadata(self, key: str) -> str:
        buffer = ctypes.create_string_buffer(64)
        size = llama_cpp.llama_model_meta_val_str(self._model, key.encode(), buffer, 64)
        return buffer.value.decode() if size >= 0 else ""


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    for position, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return position
    return min(len(one), len(other))


def _model_params() -> Any:
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    return params


def _context_params(context: int, rows: int, threads: int, exact: bool) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = context + rows * ROW_CELLS
    params.n_batch = params.n_ubatch = BATCH
    params.n_seq_max = rows + 1
    params.n_threads = params.n_threads_batch = threads
    params.kv_unified = True
    params.no_perf = True
    if exact:
        # flash attention would round keys and values to f16 again
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return params
