"""The decoding loops, the same for every backend: greedy, beam and sample, under a matcher or free.

Log-probabilities are renormalised over what the matcher allows. Tokens that must follow are fed without asking the
model and count as certain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol, Self, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from expert_cli.errors import GrammarError, UsageError
from expert_cli.runtime.weights import Floats

Indices = npt.NDArray[np.intp]


class Model(Protocol):
    """What decoding needs of a backend; see :class:`expert_cli.runtime.llama.LlamaModel`."""

    rows: int
    vocabulary: int
    context: int
    reused: int

    def tokenize(self, text: str) -> list[int]: ...

    def piece(self, token: int) -> bytes: ...

    def prefill(self, tokens: Sequence[int]) -> Floats: ...

    def extend(self, rows: Sequence[tuple[int, Sequence[int]]]) -> Floats: ...

    def close(self) -> None: ...


@runtime_checkable
class Narrow(Protocol):
    """A model that can be asked for the logits of a few tokens; see :mod:`expert_cli.runtime.narrow`."""

    def narrow(self, rows: Sequence[tuple[int, Sequence[int]]], options: Sequence[Indices]) -> list[Floats]: ...


class Matcher(Protocol):
    """What decoding needs of a grammar; see :class:`expert_cli.grammar.matcher.Matcher`."""

    written: str

    def options(self) -> Indices: ...

    def forced(self) -> list[int]: ...

    def consume(self, token: int) -> None: ...

    def complete(self) -> bool: ...

    def fork(self) -> Self: ...


@dataclass(frozen=True)
class Candidate:
    """What the model wrote: ``logprob`` sums over the ``choices`` tokens that it chose, its end mark among them."""

    text: str
    tokens: tuple[int, ...]
    logprob: float
    choices: int
    finished: bool


@dataclass
class _Path:
    """A candidate in the making.

    ``pending`` are the tokens that the model has not read yet, ``options`` the tokens that may come next (None: any).
    """

    matcher: Matcher | None
    end: frozenset[int]
    row: int = 0
    tokens: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    options: Indices | None = None
    logprob: float = 0.0
    choices: int = 0
    finished: bool = False

    def candidate(self, model: Model) -> Candidate:
        text = b"".join(map(model.piece, self.tokens)).decode("utf-8", "replace")
        return Candidate(text, tuple(self.tokens), self.logprob, self.choices, self.finished)

    def fork(self) -> _Path:
        matcher = self.matcher.fork() if self.matcher else None
        return replace(self, matcher=matcher, tokens=[*self.tokens], pending=[*self.pending])

    def choose(self, token: int, logprob: float) -> None:
        """Write a token of known log-probability, then every token that must follow it."""
        self.logprob += logprob
        self.choices += 1
        self._write(token)
        self.settle()

    def settle(self) -> None:
        """Write what the matcher leaves no choice about, and find the options after it."""
        while self.matcher is not None and not self.finished:
            forced = self.matcher.forced() or self._only(self.matcher)
            if not forced:
                return
            for token in forced:
                self._write(token)

    def _only(self, matcher: Matcher) -> list[int]:
        """Find the options; gives the only one, or an end mark where there is nothing but end marks."""
        self.options = matcher.options()
        if not len(self.options):
            raise GrammarError(f"the grammar allows nothing after {matcher.written!r}; check its rules")
        first = self.options[: len(self.end) + 1].tolist()
        return first[:1] if len(self.options) == 1 or self.end.issuperset(first) else []

    def scores(self, logits: Floats) -> tuple[Indices, Floats]:
        """The options and their log-probabilities among each other, given the options' logits."""
        options = np.arange(len(logits)) if self.options is None else self.options
        shifted = logits - logits.max()
        return options, shifted - np.log(np.exp(shifted).sum())

    def _write(self, token: int) -> None:
        if token in self.end:
            self.finished = True
            return
        if self.matcher is not None:
            self.matcher.consume(token)
        self.tokens.append(token)
        self.pending.append(token)


def stream(
    model: Model, prompt: Sequence[int], matcher: Matcher | None, end: frozenset[int], *, max_tokens: int
) -> Iterator[Candidate]:
    """Decode greedily; yields the growing candidate after each choice, the whole one last."""
    limit = _limit(model, prompt, max_tokens)
    path, logits = _start(model, prompt, matcher, end)
    while not path.finished and len(path.tokens) < limit:
        if path.pending:
            yield path.candidate(model)
            logits = _extend(model, [path])
        options, scores = path.scores(logits[0])
        best = int(scores.argmax())
        path.choose(int(options[best]), float(scores[best]))
    yield path.candidate(model)


def greedy(
    model: Model, prompt: Sequence[int], matcher: Matcher | None, end: frozenset[int], *, max_tokens: int
) -> Candidate:
    """The candidate of likeliest next tokens; ``finished`` is False where ``max_tokens`` or the context cut it."""
    return deque(stream(model, prompt, matcher, end, max_tokens=max_tokens), maxlen=1).pop()


def search(
    model: Model,
    prompt: Sequence[int],
    matcher: Matcher | None,
    end: frozenset[int],
    *,
    width: int,
    max_tokens: int,
    length_power: float = 0.0,
) -> Generator[Candidate, None, list[Candidate]]:
    """Beam search: yields the leading candidate after each step and returns what :func:`beam` returns.

    Raises:
        UsageError: the model has fewer rows than ``width``.
    """
    if not 0 < width <= model.rows:
        raise UsageError(f"beam width {width}, but the model has {model.rows} rows; load it with more rows")

    def score(path: _Path) -> float:
        length: float = max(path.choices, 1) ** length_power
        return path.logprob / length

    limit = _limit(model, prompt, max_tokens)
    first, logits = _start(model, prompt, matcher, end)
    live, done, cut = [first], list[_Path](), list[_Path]()
    if first.finished:
        live, done = [], [first]
    while live:
        children = _best_children(live, logits, width)
        done = sorted([*done, *(path for path in children if path.finished)], key=score, reverse=True)[:width]
        cut += [path for path in children if not path.finished and len(path.tokens) >= limit]
        live = [path for path in children if not path.finished and len(path.tokens) < limit]
        # no live path can rise above its log-probability spread over the most choices it may still make
        hope = max((path.logprob / limit**length_power for path in live), default=-np.inf)
        if len(done) == width and score(done[-1]) >= hope:
            break
        if live:
            yield max([*live, *done[:1]], key=score).candidate(model)
            logits = _extend(model, live)
    best = done or sorted(cut, key=score, reverse=True)[:width]
    return [path.candidate(model) for path in best]


def beam(
    model: Model,
    prompt: Sequence[int],
    matcher: Matcher | None,
    end: frozenset[int],
    *,
    width: int,
    max_tokens: int,
    length_power: float = 0.0,
) -> list[Candidate]:
    """Up to ``width`` finished candidates, best first by log-probability over choices to the ``length_power``.

    Where ``max_tokens`` or the context cut every one of them, the cut ones, with ``finished`` False.

    Raises:
        UsageError: the model has fewer rows than ``width``.
    """
    steps = search(model, prompt, matcher, end, width=width, max_tokens=max_tokens, length_power=length_power)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            found: list[Candidate] = stop.value
            return found


def _best_children(live: Sequence[_Path], logits: Sequence[Floats], width: int) -> list[_Path]:
    """The best continuations of all live paths: ``width`` of them that go on, and those that end on the way."""
    options: list[tuple[float, int, int, float]] = []
    for index, path in enumerate(live):
        tokens, scores = path.scores(logits[index])
        take = min(len(scores), width + len(path.end))
        top = np.argpartition(scores, -take)[-take:]
        options += [(path.logprob + float(scores[i]), index, int(tokens[i]), float(scores[i])) for i in top]
    children: list[_Path] = []
    running = 0
    for _, index, token, logprob in sorted(options, key=lambda option: -option[0]):
        child = live[index].fork()
        child.choose(token, logprob)
        children.append(child)
        running += not child.finished
        if running == width:
            break
    return children


def sample(
    model: Model,
    prompt: Sequence[int],
    matcher: Matcher | None,
    end: frozenset[int],
    *,
    count: int,
    max_tokens: int,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Candidate]:
    """``count`` independent candidates, drawn together; their log-probabilities are those of temperature 1.

    Raises:
        UsageError: the model has fewer rows than ``count``, or the temperature is not positive.
    """
    if not 0 < count <= model.rows:
        raise UsageError(f"{count} samples, but the model has {model.rows} rows; load it with more rows")
    if temperature <= 0:
        raise UsageError(f"temperature {temperature}: give a positive one, or decode greedily")
    limit = _limit(model, prompt, max_tokens)
    draw = np.random.default_rng(seed)
    first, logits = _start(model, prompt, matcher, end)
    paths = [first.fork() for _ in range(count)]
    logits *= count
    while live := [path for path in paths if not path.finished and len(path.tokens) < limit]:
        if live[0].pending:
            logits = _extend(model, live)
        for path, row in zip(live, logits, strict=True):
            options, scores = path.scores(row)
            # adding Gumbel noise and taking the largest draws from the softmax
            pick = int((scores / temperature + draw.gumbel(size=len(scores))).argmax())
            path.choose(int(options[pick]), float(scores[pick]))
    return [path.candidate(model) for path in paths]


def _limit(model: Model, prompt: Sequence[int], max_tokens: int) -> int:
    return min(max_tokens, model.context - len(prompt))


def _start(
    model: Model, prompt: Sequence[int], matcher: Matcher | None, end: frozenset[int]
) -> tuple[_Path, list[Floats]]:
    path = _Path(matcher, end)
    path.settle()
    prompted = model.prefill(prompt)
    return path, _extend(model, [path]) if path.pending and not path.finished else [_of(path, prompted[0])]


def _extend(model: Model, paths: Sequence[_Path]) -> list[Floats]:
    """Have the model read what is pending; the logits of each path's options."""
    rows = [(path.row, path.pending) for path in paths]
    options = [path.options for path in paths if path.options is not None]
    if len(options) == len(paths) and _narrows(type(model)):
        logits = cast(Narrow, model).narrow(rows, options)
    else:
        logits = [_of(path, row) for path, row in zip(paths, model.extend(rows), strict=True)]
    for row, path in enumerate(paths):
        path.row, path.pending = row, []
    return logits


@lru_cache(maxsize=16)
def _narrows(kind: type) -> bool:
    """Whether models of this kind can give the logits of a few tokens; to ask a protocol costs 10 us each time."""
    return issubclass(kind, Narrow)


def _of(path: _Path, logits: Floats) -> Floats:
    return logits if path.options is None else logits.take(path.options)
