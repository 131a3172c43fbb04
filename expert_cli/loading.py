"""From a name, or a checkpoint's parts, to an expert that answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from expert_cli import task
from expert_cli.answer import Identity
from expert_cli.errors import UsageError
from expert_cli.expert import PREFER_ROWS, Expert, Writer
from expert_cli.manifest import ExpertManifest

if TYPE_CHECKING:
    from expert_cli.runtime.bases import Base

BACKENDS = ("llama", "hf")
DECODERS = ("llguidance", "native")


@dataclass(frozen=True)
class Parts:
    """What an expert is made of.

    ``adapter`` is a PEFT folder trained on the base of digest ``base_sha256``, ``grammar`` a GBNF template's text.
    """

    manifest: ExpertManifest
    base: Base
    adapter: Path
    base_sha256: str
    grammar: str
    digest: str

    @classmethod
    def installed(cls, name: str) -> Parts:
        """The parts of an installed expert.

        Raises:
            UsageError: it is not installed.
            BaseModelError: there is no such base.
        """
        from expert_cli import store
        from expert_cli.runtime import bases

        found = store.find(name)
        grammar = (found.folder / "grammar.gbnf").read_text(encoding="utf-8")
        base = bases.find(found.manifest.base)
        return cls(found.manifest, base, found.folder, found.manifest.base_sha256, grammar, found.digest)

    @classmethod
    def checkpoint(cls, folder: Path, manifest: ExpertManifest, base: Base, grammar: Path) -> Parts:
        """The parts of the expert that a training checkpoint would make; ``grammar`` is the template's file.

        Raises:
            BaseModelError: the folder lacks its adapter.
        """
        from expert_cli.runtime.weave import adapter_digest

        text = grammar.read_text(encoding="utf-8")
        return cls(manifest, base, folder, base.manifest.digest, text, adapter_digest(folder))


def load(
    source: str | Parts = "sql",
    *,
    backend: str = "llama",
    adapter: bool = True,
    grammar: bool = True,
    candidates: int | None = None,
    prefer_rows: int = PREFER_ROWS,
    threads: int | None = None,
    decoder: str = "llguidance",
) -> Expert:
    """An installed expert by name, or one from its parts; its model is loaded with the first question.

    ``adapter=False`` asks its base alone, ``grammar=False`` lets the model write freely; ``candidates`` replaces the
    manifest's number, ``prefer_rows`` is explained at :class:`Expert`, ``threads`` is the most that one
    model may use. ``decoder="native"`` constrains by llama.cpp's own grammar and checks each output.

    Raises:
        UsageError: it is not installed, there is no such backend or decoder, or the two do not go together.
        BaseModelError: its base is unknown.
    """
    if backend not in BACKENDS:
        raise UsageError(f"no backend {backend!r}; choose {' or '.join(BACKENDS)}")
    if decoder not in DECODERS:
        raise UsageError(f"no decoder {decoder!r}; choose {' or '.join(DECODERS)}")
    if decoder == "native" and not (grammar and backend == "llama"):
        raise UsageError("the decoder native is llama.cpp's grammar: leave the grammar in, and use the backend llama")
    parts = Parts.installed(source) if isinstance(source, str) else source
    manifest, base = parts.manifest, parts.base.manifest
    decoding = replace(manifest.decoding, candidates=candidates or manifest.decoding.candidates)
    identity = Identity(manifest.name, manifest.version, parts.digest, base.id, base.digest, adapter, grammar)
    writer = partial(
        _writer,
        parts,
        adapter=adapter,
        grammar=grammar,
        backend=backend,
        rows=decoding.candidates,
        threads=threads,
        decoder=decoder,
    )
    return Expert(task.load(manifest.task.name), identity, writer, decoding, prefer_rows)


def _writer(
    parts: Parts, *, adapter: bool, grammar: bool, backend: str, rows: int, threads: int | None, decoder: str
) -> Writer:
    from expert_cli.writer import Adapter, open_writer

    return open_writer(
        parts.base,
        Adapter(parts.adapter, parts.base_sha256) if adapter else None,
        parts.grammar if grammar else None,
        backend=backend,
        rows=rows,
        threads=threads,
        decoder=decoder,
    )
