"""Which tokens may come next: one matcher for every backend, and the only door to llguidance.

A scope event (the binding's state changes) turns to the grammar of the new state and follows the tokens so far.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from tokenizers import Tokenizer

from expert_cli.errors import GrammarError
from expert_cli.grammar import emit
from expert_cli.grammar.bind import bind
from expert_cli.grammar.places import Engine, Explored, Mask, Place
from expert_cli.grammar.standing import Stand, Standing, Stands, widen
from expert_cli.grammar.tokens import Vocabulary
from expert_cli.task import Binding

COMPILED = 64  # grammars kept compiled
# Runs of characters whose tokens are all allowed at once inside strings and identifiers: llguidance then skips them.
SLICES = (r"[a-zA-Z0-9_]{1,30}", r"[^'\n]{1,30}")

_tokenizers: OrderedDict[int, tuple[Vocabulary, Any]] = OrderedDict()
_explored: OrderedDict[Any, Explored] = OrderedDict()


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
        self._stands = binding.stands if isinstance(binding, Standing) else None
        self._allowed: list[Stand] = []
        self._read: list[int] = []  # the tokens as the grammar names them
        self._mask: Mask | None = None
        self._turn()

    def mask(self) -> Mask:
        """One bit per token, in ``ceil(size / 32)`` words; a token that ends the turn only where the text is complete.

        The array is read-only, and shared with other matchers.

        Raises:
            GrammarError: the matcher met a limit of its engine.
        """
        if self._mask is None:
            if self._place.mask is None:
                words = np.zeros((self.vocabulary.size + 31) // 32, dtype=np.int32)
                engine = self._engine().matcher
                engine.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
                _check(engine)
                self._place.mask = self._explored.kept(words)
            self._mask = self._place.mask
            if self._stands is not None:
                self._mask = self._mask.copy()
                self._allowed = widen(self._mask, _stands(self.vocabulary).of(self._stands(self.written)))
        return self._mask

    def allowed(self) -> list[int]:
        """The ids that :meth:`mask` allows."""
        bits = np.unpackbits(self.mask().view(np.uint8), bitorder="little")
        return [int(token) for token in np.flatnonzero(bits)]

    def forced(self) -> list[int]:
        """Tokens that must follow, as the tokenizer would write them; empty where there is a choice."""
        if self._place.forced is None:
            found = self._engine().matcher.compute_ff_tokens()
            stands = self._stands is not None
            self._place.forced = tuple(
                takewhile(lambda token: not (stands and token in self.vocabulary.special), found)
            )
        if self._place.forced:
            return list(self._place.forced)
        words = self.mask()
        at = words.nonzero()[0]
        if len(at) != 1:
            return []
        word = int(words[at[0]]) & 0xFFFFFFFF
        return [int(at[0]) * 32 + word.bit_length() - 1] if word & (word - 1) == 0 else []

    def consume(self, token: int) -> None:
        """Move past ``token``.

        Raises:
            GrammarError: the grammar does not allow it here; the matcher stays as it was.
        """
        named = self._named(token)
        if named is None or not self._step(named):
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
            self._turn()

    def complete(self) -> bool:
        """Whether the text so far is a whole sentence of the grammar."""
        if self._place.complete is None:
            self._place.complete = bool(self._engine().matcher.is_accepting())
        return self._place.complete

    def fork(self) -> Matcher:
        """A matcher in the same place that goes its own way."""
        other = Matcher.__new__(Matcher)
        other.__dict__ = dict(self.__dict__)
        other.tokens, other._read = list(self.tokens), list(self._read)
        self._reader.shared = True
        return other

    def _turn(self) -> None:
        """Turn to the grammar of the present state, and follow what was read."""
        self._explored = explored(self.vocabulary, self.template, self.binding, self._state)
        self._place: Place = self._explored.start
        self._reader = Engine(self._explored.compiled, 0)
        self._reader.shared = True
        read, self._read = self._read, []
        for token in read:
            if not self._step(token):
                raise GrammarError(
                    f"the grammar of a new scope refuses what was written, {self.written!r}; report this"
                )

    def _step(self, named: int) -> bool:
        """Go on to the place after a token, as the grammar names it; False where it cannot follow."""
        if named not in self._place.after:
            reader = self._reader = self._engine().reading()
            if reader.matcher.try_consume_tokens([named]) != 1:
                _check(reader.matcher)
                return False
            reader.read += 1
        self._place = self._explored.step(self._place, named)
        self._read.append(named)
        return True

    def _engine(self) -> Engine:
        """The engine, having read all that was read."""
        if self._reader.read < len(self._read):
            reader = self._reader = self._reader.reading()
            reader.matcher.try_consume_tokens(self._read[reader.read :])
            reader.read = len(self._read)
        return self._reader

    def _named(self, token: int) -> int | None:
        """The token by which the grammar names ``token``, or None where it must not follow."""
        if self._stands is None or token not in self.vocabulary.special:
            return token
        if not self.mask()[token >> 5] >> (token & 31) & 1:
            return None
        return next((stand.token for stand in self._allowed if token in stand.ids), token)


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


@lru_cache(maxsize=4)
def _stands(vocabulary: Vocabulary) -> Stands:
    return Stands(vocabulary)


def explored(vocabulary: Vocabulary, template: str, binding: Binding, state: Any) -> Explored:
    """The grammar that ``binding`` gives for ``state``, compiled; the last :data:`COMPILED` ones are kept.

    Raises:
        GrammarError: the template or the binding is at fault, or llguidance refuses the grammar.
    """
    rules = binding.rules(state)
    key = (vocabulary, template, frozenset(rules.items()))
    if key in _explored:
        _explored.move_to_end(key)
        return _explored[key]
    closed = bind(template, _Given(rules), state)
    matcher = LLMatcher(tokenizer(vocabulary), emit.lark(closed, vocabulary), log_level=0)
    if matcher.is_error():
        raise GrammarError(f"the grammar cannot be compiled: {_reason(matcher)}; check its template")
    found = _explored[key] = Explored(matcher)
    if len(_explored) > COMPILED:
        _explored.popitem(last=False)
    return found


class _Given:
    """A binding of one state whose hook bodies are known."""

    def __init__(self, bodies: Mapping[str, str]) -> None:
        self.bodies = bodies

    def state(self, written: str) -> None:
        return None

    def rules(self, state: Any) -> Mapping[str, str]:
        return self.bodies


def _check(matcher: Any) -> None:
    if matcher.is_error():
        raise GrammarError(f"{_reason(matcher)}; shorten the grammar's rules")


def _reason(matcher: Any) -> str:
    lines: Sequence[str] = matcher.get_error().splitlines()
    return lines[0] if lines else "unknown matcher error"
