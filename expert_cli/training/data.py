"""Training data: a task's examples, rendered as in chat, encoded once and batched in an order that can be repeated.

The order of batches is a pure function of (seed, epoch), so a cursor of two integers is enough to resume.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expert_cli.conversation import Template, completion, render
from expert_cli.errors import ManifestError
from expert_cli.manifest import BaseManifest, Training
from expert_cli.task import Example, Task

BUCKET = 32
"""Lengths are padded to multiples of this: oneDNN compiles and keeps a kernel for every new shape."""

CHUNK = 1024


@dataclass(frozen=True)
class Encoded:
    """One example: ``tokens`` of prompt and completion; the first ``prompt`` of them carry no loss."""

    tokens: npt.NDArray[np.int32]
    prompt: int


@dataclass(frozen=True)
class Corpus:
    """Every example that is trained on.

    ``copies`` holds one list for each seed that the data was drawn with; epoch ``e`` reads copy ``e % len(copies)``.
    ``digest`` is the sha256 of the rendered examples in order. ``too_long`` counts those over the token limit, which
    are left out; they are part of the digest.
    """

    copies: tuple[tuple[Encoded, ...], ...]
    digest: str
    too_long: int

    @property
    def examples(self) -> int:
        """How many examples all copies hold."""
        return sum(map(len, self.copies))


@dataclass(frozen=True)
class Batch:
    """Right-padded ``tokens`` (rows, length); ``targets`` (n,) are predicted at the flat positions ``at`` (n,)."""

    tokens: npt.NDArray[np.int64]
    at: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cursor:
    """Where training stands: the next batch to read is ``batch`` of ``epoch``."""

    epoch: int = 0
    batch: int = 0


def read(
    task: Task, base: BaseManifest, training: Training, tokenizer: Path, *, report: Callable[[int], None] | None = None
) -> Corpus:
    """Draw, render and encode the examples that ``training.data`` names.

    ``training.data["augment"]`` (default 1) is the number of copies: copy ``k`` is drawn with seed ``seed + k``. The
    rest of the mapping is the task's. ``report`` is called with the number of examples read so far.

    Raises:
        ManifestError: ``augment`` is no positive integer, an example is empty, or none is left to train on.
    """
    from tokenizers import Tokenizer

    augment = training.data.get("augment", 1)
    if type(augment) is not int or augment < 1:
        raise ManifestError("training.data", [f"augment: {augment!r} is not a positive integer; give 1 or more copies"])
    source = {key: value for key, value in training.data.items() if key != "augment"}
    encoder = Tokenizer.from_file(str(tokenizer))
    template = Template.parse(base.template, f"base {base.id}")
    digest = hashlib.sha256()
    limit = min(training.max_tokens, base.context)
    copies: list[tuple[Encoded, ...]] = []
    seen = 0
    for copy in range(augment):
        kept: list[Encoded] = []
        examples = task.examples(source, surface=base.surface, seed=training.seed + copy)
        for chunk in _chunks(examples, CHUNK):
            digest.update(b"".join(_canonical(example, template) for example in chunk))
            encoded = _encode(encoder, chunk, template)
            kept += [example for example in encoded if len(example.tokens) <= limit]
            seen += len(chunk)
            if report is not None:
                report(seen)
        copies.append(tuple(kept))
    if not all(copies):
        fault = f"no example of at most {limit} tokens among {seen}; name other data or raise training.max_tokens"
        raise ManifestError("training.data", [fault])
    return Corpus(tuple(copies), digest.hexdigest(), too_long=seen - sum(map(len, copies)))


def order(lengths: Sequence[int], batch_tokens: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The batches of one epoch as lists of positions in ``lengths``.

    Rows of a batch have similar lengths; rows x padded length stays within ``batch_tokens`` unless one row alone is
    longer. Every position occurs exactly once.
    """
    draw = np.random.Generator(np.random.PCG64([seed, epoch]))
    shuffled = draw.permutation(len(lengths)).tolist()
    batches: list[list[int]] = [[]]
    for row in sorted(shuffled, key=lambda row: padded(lengths[row])):
        if batches[-1] and (len(batches[-1]) + 1) * padded(lengths[row]) > batch_tokens:
            batches.append([])
        batches[-1].append(row)
    return [batches[index] for index in draw.permutation(len(batches))]


def walk(corpus: Corpus, batch_tokens: int, *, seed: int, cursor: Cursor) -> Iterator[tuple[Batch, Cursor]]:
    """Batches without end from ``cursor`` on, each with the cursor that follows it."""
    epoch, first = cursor.epoch, cursor.batch
    while True:
        copy = corpus.copies[epoch % len(corpus.copies)]
        batches = order([len(example.tokens) for example in copy], batch_tokens, seed=seed, epoch=epoch)
        for index in range(first, len(batches)):
            last = index + 1 == len(batches)
            yield collate([copy[row] for row in batches[index]]), Cursor(epoch + last, 0 if last else index + 1)
        epoch, first = epoch + 1, 0


def collate(examples: Sequence[Encoded]) -> Batch:
    """One batch. Padding stands on the right, where a causal model does not look."""
    width = padded(max(len(example.tokens) for example in examples))
    tokens = np.zeros((len(examples), width), dtype=np.int64)
    at: list[npt.NDArray[np.int64]] = []
    for row, example in enumerate(examples):
        size = len(example.tokens)
        tokens[row, :size] = example.tokens
        at.append(np.arange(row * width + example.prompt - 1, row * width + size - 1))
    positions = np.concatenate(at)
    return Batch(tokens, positions, tokens.reshape(-1)[positions + 1])


def padded(length: int) -> int:
    """``length`` rounded up to whole buckets."""
    return -(-length // BUCKET) * BUCKET


def _encode(encoder: Any, examples: Sequence[Example], template: Template) -> list[Encoded]:
    """Prompt and completion are encoded apart, because in chat the completion starts at a token of its own."""
    prompts = encoder.encode_batch([render(e.messages, template) for e in examples], add_special_tokens=False)
    answers = encoder.encode_batch([completion(e.completion, template) for e in examples], add_special_tokens=False)
    for example, prompt, answer in zip(examples, prompts, answers, strict=True):
        if not prompt.ids or not answer.ids:
            raise ManifestError("training.data", [f"example {example.id}: no token in its prompt or answer; remove it"])
    return [
        Encoded(np.array(prompt.ids + answer.ids, dtype=np.int32), len(prompt.ids))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _canonical(example: Example, template: Template) -> bytes:
    rendered = [example.id, render(example.messages, template), completion(example.completion, template)]
    return json.dumps(rendered, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _chunks(examples: Iterable[Example], size: int) -> Iterator[list[Example]]:
    iterator = iter(examples)
    while chunk := list(islice(iterator, size)):
        yield chunk
