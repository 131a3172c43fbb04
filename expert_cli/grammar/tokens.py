"""The vocabulary of a base model as a matcher needs it: bytes by token id, special tokens, and where a turn ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from expert_cli.errors import BaseModelError, GrammarError

MOST = 1 << 22  # tokens of a vocabulary


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """A ``tokenizer.json`` read for matching.

    ``size`` counts logits, which may be more than the tokens; ``pieces`` are the bytes of each token; ``ends`` are the
    ids that end a turn; ``ids`` holds the id of every token by its text.
    """

    text: str
    size: int
    pieces: tuple[bytes, ...]
    ends: tuple[int, ...]
    ids: dict[str, int]
    special: frozenset[int]
    emitted: dict[tuple[int, int, int], Any] = field(default_factory=dict, repr=False)
    """Grammar rules as printed for this vocabulary; :mod:`expert_cli.grammar.emit` keeps them."""

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
        added = {entry["content"]: entry["id"] for entry in data.get("added_tokens") or []}
        special = frozenset(entry["id"] for entry in data.get("added_tokens") or [] if entry["special"])
        bytewise = "ByteLevel" in json.dumps(data.get("decoder"))
    except (ValueError, KeyError, TypeError) as problem:
        raise BaseModelError(
            f"{name}: not a Hugging Face tokenizer ({problem}); fetch the base model again"
        ) from problem
    missing = [end for end in ends if end not in ids | added]
    if missing or not ends:
        raise BaseModelError(
            f"{name}: no end token {', '.join(missing) or 'is named'}; correct the base manifest's 'end'"
        )
    numbers = [*ids.values(), *added.values()]
    if not all(type(index) is int and 0 <= index < MOST for index in numbers):
        raise BaseModelError(f"{name}: token ids go from 0 to {MOST - 1} at most; fetch the base model again")
    pieces = [b""] * max(size, max(numbers) + 1)
    try:
        for piece, index in ids.items():
            pieces[index] = _bytes_of(piece) if bytewise else _sentence_piece(piece)
        for piece, index in added.items():
            pieces[index] = piece.encode()
    except ValueError as problem:
        raise BaseModelError(f"{name}: a token is no text ({problem}); fetch the base model again") from problem
    ids |= added
    return Vocabulary(text, len(pieces), tuple(pieces), tuple(ids[end] for end in ends), ids, special)


def _bytes_of(piece: str) -> bytes:
    """The bytes that a byte-level token stands for; a token outside the alphabet stands for its own text."""
    try:
        return piece.translate(_BYTE_OF).encode("latin-1")
    except UnicodeEncodeError:
        return piece.encode()


def _sentence_piece(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes.fromhex(piece[3:5])
    return piece.replace("\u2581", " ").encode()


def bytewise(special: Sequence[str], end: str) -> Vocabulary:
    """A vocabulary of the special tokens, numbered from 0, and after them one token for each byte.

    It serves where a grammar is checked without a base model.
    """
    names = [*special, *_byte_names()]
    data = {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": name, "special": True, "single_word": False, "lstrip": False, "rstrip": False}
            | {"normalized": False}
            for index, name in enumerate(special)
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {name: index for index, name in enumerate(names)}, "merges": []},
    }
    return vocabulary(json.dumps(data), (end,), name="a vocabulary of bytes")


def _byte_names() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary, as GPT-2 chose them."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return [chr(byte) if byte in visible else chr(next(hidden)) for byte in range(256)]


_BYTE_OF = {ord(name): byte for byte, name in enumerate(_byte_names())}
