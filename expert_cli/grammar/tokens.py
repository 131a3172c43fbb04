"""The vocabulary of a base model as a matcher needs it: bytes by token id, special tokens, and where a turn ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from expert_cli.errors import BaseModelError, GrammarError


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A ``tokenizer.json`` read for matching.

    ``size`` counts logits, which may be more than the tokens; ``ends`` are the ids that end a turn; ``ids`` holds the
    id of every token by its text.
    """

    text: str
    size: int
    ends: tuple[int, ...]
    ids: dict[str, int]
    special: frozenset[int]
    names: dict[int, str] = field(default_factory=dict)

    def token(self, name: str) -> int:
        """The id of a token that a grammar names, for example ``<c7>``.

        Raises:
            GrammarError: the vocabulary does not have it.
        """
        if name not in self.ids:
            raise GrammarError(f"the base model has no token {name!r}; use a grammar of its surface form")
        return self.ids[name]


@lru_cache(maxsize=4)
def load(path: Path, ends: tuple[str, ...], size: int = 0) -> Vocabulary:
    """Read ``path``; a turn ends with any token of ``ends``; ``size`` is the number of logits where it is larger.

    Raises:
        BaseModelError: the file is not a tokenizer, or lacks an end token.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as problem:
        raise BaseModelError(f"{path}: cannot be read ({problem}); fetch the base model again") from problem
    return vocabulary(text, ends, size, str(path))


def vocabulary(text: str, ends: Sequence[str], size: int = 0, name: str = "tokenizer.json") -> Vocabulary:
    """The vocabulary in the text of a ``tokenizer.json``.

    Raises:
        BaseModelError: the text is not a tokenizer, or lacks an end token.
    """
    try:
        data = json.loads(text)
        vocab = data["model"]["vocab"]
        ids = dict(vocab) if isinstance(vocab, dict) else {entry[0]: index for index, entry in enumerate(vocab)}
        added = {entry["content"]: entry["id"] for entry in data.get("added_tokens", [])}
        special = frozenset(entry["id"] for entry in data.get("added_tokens", []) if entry["special"])
    except (ValueError, KeyError, TypeError) as problem:
        raise BaseModelError(
            f"{name}: not a Hugging Face tokenizer ({problem}); fetch the base model again"
        ) from problem
    ids |= added
    missing = [end for end in ends if end not in ids]
    if missing or not ends:
        raise BaseModelError(
            f"{name}: no end token {', '.join(missing) or 'is named'}; correct the base manifest's 'end'"
        )
    most = max(ids.values(), default=0) + 1
    return Vocabulary(text, max(size, most), tuple(ids[end] for end in ends), ids, special)
