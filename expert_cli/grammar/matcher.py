"""Which tokens may come next: one matcher for every backend, and the only door to llguidance.

A scope event (the binding's state changes) compiles the grammar of the new state and replays the tokens so far.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer

from expert_cli.errors import GrammarError
from expert_cli.grammar import emit
from expert_cli.grammar.bind import bind
from expert_cli.grammar.tokens import Vocabulary
from expert_cli.task import Binding

Mask = np.ndarray[Any, np.dtype[np.int32]]

COMPILED = 64  # grammars kept compiled
# Runs of characters whose tokens are all allowed at once inside strings and identifiers: llguidance then skips them.
SLICES = (r"[a-zA-Z0-9_]{1,30}", r"[^'\n]{1,30}")

_tokenizers: OrderedDict[int, tuple[Vocabulary, Any]] = OrderedDict()
_compiled: OrderedDict[tuple[int, str], Any] = OrderedDict()


class Matcher:
    """What may follow the tokens consumed so far.

    Args:
        vocabulary: of the base model that decodes.
        template: GBNF text with hooks.
        binding: gives the hooks their names.

    ``written`` is the text of the consumed tokens, as far as it is whole characters.

    Raises:
        GrammarError: the template is malformed, cannot be bound or is too large.
    """

    def __init__(self, vocabulary: Vocabulary, template: str, binding: Binding) -> None:
        self.vocabulary = vocabulary
        self.template = template
        self.binding = binding
        self.tokens: list[int] = []
        self.written = ""
        self._bytes = b""
        self._state = binding.state("")
        self._matcher = self._compile()
        self._mask: Mask | None = None

    def mask(self) -> Mask:
        """One bit per token, in ``ceil(size / 32)`` words; a token that ends the turn only where the text is complete.

        Raises:
            GrammarError: the matcher met a limit of its engine.
        """
        if self._mask is None:
            words = np.zeros((self.vocabulary.size + 31) // 32, dtype=np.int32)
            self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
            if self._matcher.is_error():
                raise GrammarError(f"{_reason(self._matcher)}; shorten the grammar's rules")
            self._mask = words
        return self._mask

    def allowed(self) -> list[int]:
        """The ids that :meth:`mask` allows."""
        bits = np.unpackbits(self.mask().view(np.uint8), bitorder="little")
        return [int(token) for token in np.flatnonzero(bits)]

    def forced(self) -> list[int]:
        """Tokens that must follow, as the tokenizer would write them; empty where there is a choice."""
        found: list[int] = self._matcher.compute_ff_tokens()
        if found:
            return found
        words = self.mask()
        at = np.flatnonzero(words)
        if len(at) != 1:
            return []
        word = int(words[at[0]]) & 0xFFFFFFFF
        return [int(at[0]) * 32 + word.bit_length() - 1] if word & (word - 1) == 0 else []

    def consume(self, token: int) -> None:
        """Move past ``token``.

        Raises:
            GrammarError: the grammar does not allow it here; the matcher stays as it was.
        """
        if self._matcher.try_consume_tokens([token]) != 1:
            if self._matcher.is_error():
                raise GrammarError(f"{_reason(self._matcher)}; shorten the grammar's rules")
            text = self.vocabulary.pieces[token].decode("utf-8", "replace")
            raise GrammarError(f"token {token} ({text!r}) cannot follow {self.written!r}; sample under the mask")
        self._mask = None
        self.tokens.append(token)
        if token in self.vocabulary.ends:
            return
        self._bytes += self.vocabulary.pieces[token]
        self.written = self._bytes.decode("utf-8", errors="ignore")
        state = self.binding.state(self.written)
        if state != self._state:
            self._state = state
            self._matcher = self._compile()
            if self._matcher.try_consume_tokens(self.tokens) != len(self.tokens):
                raise GrammarError(
                    f"the grammar of a new scope refuses what was written, {self.written!r}; report this"
                )

    def complete(self) -> bool:
        """Whether the text so far is a whole sentence of the grammar."""
        return bool(self._matcher.is_accepting())

    def fork(self) -> Matcher:
        """A matcher in the same place that goes its own way."""
        other = Matcher.__new__(Matcher)
        other.__dict__ = dict(self.__dict__)
        other.tokens = list(self.tokens)
        other._matcher = self._matcher.deep_copy()
        return other

    def _compile(self) -> Any:
        closed = bind(self.template, self.binding, self._state)
        return compiled(self.vocabulary, emit.lark(closed, self.vocabulary)).deep_copy()


class _Tokens:
    """What llguidance asks of a tokenizer. Text never becomes a special token, whatever it looks like."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.ends[0]
        self.tokens = vocabulary.pieces
        self.special_token_ids = sorted(vocabulary.special)
        self._tokenizer = Tokenizer.from_str(vocabulary.text)
        self._tokenizer.encode_special_tokens = True

    def __call__(self, text: bytes | str) -> list[int]:
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found


def tokenizer(vocabulary: Vocabulary) -> Any:
    """llguidance's tokenizer for ``vocabulary``, made once."""
    key = id(vocabulary)
    if key not in _tokenizers:
        built = LLTokenizer(TokenizerWrapper(_Tokens(vocabulary)), eos_token=list(vocabulary.ends), slices=list(SLICES))
        _tokenizers[key] = (vocabulary, built)
    return _tokenizers[key][1]


def compiled(vocabulary: Vocabulary, lark: str) -> Any:
    """A matcher at the start of the grammar ``lark``; the last :data:`COMPILED` ones are kept.

    Raises:
        GrammarError: llguidance refuses the grammar.
    """
    key = (id(vocabulary), lark)
    if key in _compiled:
        _compiled.move_to_end(key)
        return _compiled[key]
    matcher = LLMatcher(tokenizer(vocabulary), lark, log_level=0)
    if matcher.is_error():
        raise GrammarError(f"the grammar cannot be compiled: {_reason(matcher)}; check its template")
    _compiled[key] = matcher
    if len(_compiled) > COMPILED:
        _compiled.popitem(last=False)
    return matcher


def _reason(matcher: Any) -> str:
    lines: Sequence[str] = matcher.get_error().splitlines()
    return lines[0] if lines else "unknown matcher error"
