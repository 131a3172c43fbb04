"""A base, its adapter and its grammar behind one call: prompt and binding in, drafts out."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from expert_cli import show
from expert_cli.answer import Draft, Read, Written
from expert_cli.conversation import Template
from expert_cli.errors import BaseModelError, ContextError, GrammarError, UsageError
from expert_cli.grammar import tokens
from expert_cli.manifest import BaseManifest
from expert_cli.runtime import decode
from expert_cli.runtime.bases import Base
from expert_cli.task import Binding

if TYPE_CHECKING:
    from expert_cli.grammar.matcher import Compile

SHORTEST = 48
"""Tokens that must be left for the completion once the prompt is read."""


SMALL = 100_000_000
"""Parameters below which a base is woven in half precision, and one thread serves it best: threads that wait for each
other cost more than they bring, and on a busy machine seven times more."""


@dataclass(frozen=True)
class Adapter:
    """A PEFT folder, and the digest of the base that it was trained on."""

    folder: Path
    base_sha256: str


class ModelWriter:
    """Writes drafts with a loaded model; ``grammar`` is a GBNF template, or None to let the model write freely.

    ``engines`` are the one that constrains and the one that checks what it wrote; None is llguidance, which needs none.
    """

    def __init__(
        self,
        model: decode.Model,
        base: BaseManifest,
        vocabulary: tokens.Vocabulary,
        grammar: str | None,
        engines: tuple[Compile, Compile] | None = None,
    ) -> None:
        self.model, self.base, self.vocabulary, self.grammar = model, base, vocabulary, grammar
        self.engines = engines
        self.surface = base.surface
        self.template = Template.parse(base.template, f"base {base.id}")
        self.end = frozenset(vocabulary.ends)

    def write(
        self, prompt: str, binding: Binding, *, width: int, max_tokens: int
    ) -> Generator[Read | Written, None, list[Draft]]:
        """Yield :class:`Read`, then the leading text; return at most ``width`` drafts, the most probable first.

        Raises:
            ContextError: the prompt does not fit the base's context.
            GrammarError: the grammar cannot be bound, or nothing that was written under it passed its check.
        """
        read = self.model.tokenize(prompt)
        room = self.model.context - len(read)
        if room < SHORTEST:
            raise ContextError(
                f"the question and the tables that it needs take {len(read)} tokens, base {self.base.id} reads "
                f"{self.model.context - SHORTEST}; ask a shorter question"
            )
        self.model.prefill(read)
        yield Read(len(read), self.model.reused)
        matcher = self._matcher(binding)
        steps = decode.search(self.model, read, matcher, self.end, width=width, max_tokens=max_tokens)
        while True:
            try:
                yield Written(next(steps).text)
            except StopIteration as stop:
                found = self._checked(stop.value, binding)
                return [Draft(one.text, one.logprob, len(one.tokens), one.finished) for one in found]

    def _matcher(self, binding: Binding) -> decode.Matcher | None:
        if self.grammar is None:
            return None
        from expert_cli.grammar.matcher import Matcher

        return Matcher(self.vocabulary, self.grammar, binding, self.engines[0] if self.engines else None)

    def _checked(self, found: list[decode.Candidate], binding: Binding) -> list[decode.Candidate]:
        """Those of ``found`` that the checking engine accepts, and those that came to no end."""
        if self.engines is None or self.grammar is None:
            return found
        from expert_cli.grammar.verdict import fault

        kept = []
        for one in found:
            wrong = fault(self.vocabulary, self.grammar, binding, one.tokens, self.engines[1]) if one.finished else None
            if wrong:
                show.note(f"refused {show.plain(one.text)!r}, written under llama.cpp's grammar: {wrong}")
            else:
                kept.append(one)
        if found and not kept:
            raise GrammarError(
                "nothing that llama.cpp's own grammar let through passed our check; use --decoder llguidance"
            )
        return kept


def open_writer(
    base: Base,
    adapter: Adapter | None,
    grammar: str | None,
    *,
    backend: str,
    rows: int,
    threads: int | None,
    decoder: str = "llguidance",
) -> ModelWriter:
    """Load a base with its adapter; ``rows`` is the widest beam, ``threads`` the most that it may use.

    The decoder ``native`` constrains by llama.cpp's own grammar and checks each output. ``llguidance`` does the same,
    and says so, where it cannot be started.

    Raises:
        BaseModelError: a file is missing, damaged, or the adapter was made for another base.
        UsageError: there is no such backend.
    """
    if backend not in BACKENDS:
        raise UsageError(f"no backend {backend!r}; choose {' or '.join(BACKENDS)}")
    model = BACKENDS[backend](base, adapter, rows, threads)
    vocabulary = tokens.load(base.file("tokenizer"), base.manifest.end, model.vocabulary)
    engines = _engines(model, vocabulary, decoder) if grammar is not None else None
    return ModelWriter(model, base.manifest, vocabulary, grammar, engines)


def _engines(model: decode.Model, vocabulary: tokens.Vocabulary, decoder: str) -> tuple[Compile, Compile] | None:
    """What constrains and what checks; None for llguidance, whose masks are exact.

    Raises:
        UsageError: llama.cpp's grammar is asked for, or all that is left, and the backend is another.
    """
    from expert_cli.grammar import earley, matcher

    missing = ""
    try:
        matcher.tokenizer(vocabulary)
    except (ImportError, OSError, RuntimeError, ValueError) as problem:
        missing = str(problem)
    if decoder == "llguidance" and not missing:
        return None
    from expert_cli.runtime.llama import LlamaModel

    if not isinstance(model, LlamaModel):
        reason = f"llguidance cannot be started ({missing})" if missing else "llama.cpp's grammar needs its backend"
        raise UsageError(f"{reason}; use --backend llama")
    from expert_cli.runtime.native import Native

    if missing:
        show.note(f"llguidance cannot be started ({missing}); llama.cpp's own grammar decodes, each answer is checked")
    return Native(model).compiled, earley.compiled if missing else matcher.compiled


def _llama(base: Base, adapter: Adapter | None, rows: int, threads: int | None) -> decode.Model:
    from expert_cli.runtime import pace
    from expert_cli.runtime.llama import LlamaModel
    from expert_cli.runtime.weave import woven

    small = base.manifest.parameters < SMALL
    quantisation = "f16" if small else "q8_0"
    path = woven(base, adapter.folder, adapter.base_sha256, quantisation) if adapter else base.file("gguf")
    model = LlamaModel(
        path, threads=1 if small else threads, context=base.manifest.context, rows=rows, narrow=not small
    )
    model.pace = pace.chosen(path, model.threads, model.seconds)
    return model


def _hf(base: Base, adapter: Adapter | None, rows: int, threads: int | None) -> decode.Model:
    try:
        from expert_cli.runtime.hf import HfModel
    except ImportError as problem:
        raise UsageError(
            f"the hf backend needs {problem.name}; install it with: pip install 'expert-cli[hf]'"
        ) from problem
    if adapter and adapter.base_sha256 != base.manifest.digest:
        raise BaseModelError(
            f"{adapter.folder}: trained on base {adapter.base_sha256[:12]}, {base.manifest.id} is "
            f"{base.manifest.digest[:12]}; install an expert made for this base"
        )
    return HfModel(base.folder(), adapter.folder if adapter else None, context=base.manifest.context, rows=rows)


BACKENDS: dict[str, Callable[[Base, Adapter | None, int, int | None], decode.Model]] = {"llama": _llama, "hf": _hf}
