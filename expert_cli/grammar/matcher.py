"""Which tokens may come next: one matcher for every engine, and the only door to llguidance.

A scope event (the binding's state changes) turns to the grammar of the new state and follows the tokens so far.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from expert_cli.errors import GrammarError
from expert_cli.grammar import emit
from expert_cli.grammar.bind import Closed, bind
from expert_cli.grammar.bounds import check_rules
from expert_cli.grammar.places import Engine, Explored, Indices, Mask, Place
from expert_cli.grammar.standing import Stand, Standing, Stands, widened
from expert_cli.grammar.tokens import Vocabulary
from expert_cli.task import Binding

COMPILED = 64  # grammars kept compiled
# Runs of characters whose tokens are all allowed at once inside identifiers and strings: llguidance then skips them.
# The second must hold no character that the strings of our grammars lack, or it never applies.
SLICES = (r"[a-zA-Z0-9_]{1,30}", r"[^'\x00-\x1F]{1,30}")

MOST_ITEMS = 20_000  # that may come next: a scope may have 10,000 columns

Compile = Callable[[Closed, Vocabulary], Any]
"""Makes an engine's matcher, at the start of a closed grammar.

It has the methods of llguidance's LLMatcher that are used here: ``try_consume_tokens``, ``unsafe_compute_mask_ptr``,
``compute_ff_tokens``, ``is_accepting``, ``deep_copy``, ``is_error`` and ``get_error``.
"""

_tokenizers: OrderedDict[int, tuple[Vocabulary, Any]] = OrderedDict()
_explored: OrderedDict[Any, Explored] = OrderedDict()


class Matcher:
    """What may follow the tokens consumed so far.

    Args:
        vocabulary: of the base model that decodes.
        template: GBNF text with hooks.
        binding: gives the hooks their names.
        compile: the engine; llguidance where none is given.

    ``written`` is the text of the consumed tokens, as far as it is whole characters.

    Raises:
        GrammarError: the template is malformed, cannot be bound or is too large.
    """

    def __init__(self, vocabulary: Vocabulary, template: str, binding: Binding, compile: Compile | None = None) -> None:
        self._compile = compile or compiled
        self.vocabulary = vocabulary
        self.template = template
        self.binding = binding
        self.tokens: list[int] = []
        self.written = ""
        self._bytes = b""
        self._state = binding.state("")
        self._standing = binding if isinstance(binding, Standing) else None
        self._stands = _stands(vocabulary)
        self._allowed: tuple[Stand, ...] | None = None
        self._read: list[int] = []  # the tokens as the grammar names them
        self._turn()

    def mask(self) -> Mask:
        """One bit per token, in ``ceil(size / 32)`` words; a token that ends the turn only where the text is complete.

        The array may be shared with other matchers: leave it as it is.

        Raises:
            GrammarError: the matcher met a limit of its engine.
        """
        known = self._raw()
        stands = self._stand()
        return widened(known, stands) if stands else known

    def options(self) -> Indices:
        """The ids that :meth:`mask` allows, in order. The array is shared with other matchers: leave it as it is."""
        return self._explored.ids(self._raw(), self._stand(), self.mask)

    def allowed(self) -> list[int]:
        """The ids that :meth:`mask` allows."""
        found: list[int] = self.options().tolist()
        return found

    def forced(self) -> list[int]:
        """Tokens that must follow, as the tokenizer would write them; empty where there is a choice."""
        if self._place.forced is None:
            engine = self._engine().matcher
            found = engine.compute_ff_tokens()
            _check(engine)
            special = self.vocabulary.special if self._standing else frozenset[int]()
            self._place.forced = tuple(takewhile(lambda token: token not in special, found))
        if self._place.forced:
            return list(self._place.forced)
        options = self.options()
        return [int(options[0])] if len(options) == 1 else []

    def consume(self, token: int) -> None:
        """Move past ``token``.

        Raises:
            GrammarError: the grammar does not allow it here; the matcher stays as it was.
        """
        named = self._named(token)
        if named is None or not self._step(named):
            text = self.vocabulary.pieces[token].decode("utf-8", "replace")
            raise GrammarError(f"token {token} ({text!r}) cannot follow {self.written!r}; sample under the mask")
        self._allowed = None
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
        self._explored = explored(self.vocabulary, self.template, self.binding, self._state, self._compile)
        self._place: Place = self._explored.start
        self._reader = Engine(self._explored.compiled, 0)
        self._reader.shared = True
        read, self._read = self._read, []
        for token in read:
            if not self._step(token):
                raise GrammarError(
                    f"the grammar of a new scope refuses what was written, {self.written!r}; report this"
                )
        if read and self._compile is compiled:
            # a new lexer makes its states when it first meets them: part of compiling, and wanted next
            self._raw()

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
            behind = self._read[reader.read :]
            if reader.matcher.try_consume_tokens(behind) != len(behind):
                _check(reader.matcher)
                raise GrammarError(f"the matcher lost its place in {self.written!r}; report this")
            reader.read = len(self._read)
        return self._reader

    def _raw(self) -> Mask:
        """The mask in terms of the grammar's own tokens."""
        if self._place.mask is None:
            words = np.zeros((self.vocabulary.size + 31) // 32, dtype=np.int32)
            engine = self._engine().matcher
            engine.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
            _check(engine)
            self._place.mask = self._explored.kept(words)
            if self._standing:
                self._place.stand_ins = self._stands.allowed(words, self._standing.stand_ins)
        return self._place.mask

    def _stand(self) -> tuple[Stand, ...]:
        """The tokens that are allowed to stand for others here."""
        if self._standing is None:
            return ()
        if self._allowed is None:
            self._raw()
            stands, written = self._standing.stands, self.written
            self._allowed = tuple(self._stands.of(name, stands(name, written)) for name in self._place.stand_ins)
        return self._allowed

    def _named(self, token: int) -> int | None:
        """The token by which the grammar names ``token``, or None where it must not follow."""
        if self._standing is None or token not in self.vocabulary.special:
            return token
        for stand in self._stand():
            if token in stand.ids:
                return stand.token
        return None if token in self._stands.ids(self._standing.stand_ins) else token


UNWRITTEN = frozenset(bytes([code]) for code in range(1, 9))
"""Bytes that bindings end a rule with where it goes on in the next state; no token writes them."""


class _Tokens:
    """What llguidance asks of a tokenizer. Text never becomes a special token, whatever it looks like."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.ends[0]
        self.tokens = tuple(b"" if piece in UNWRITTEN else piece for piece in vocabulary.pieces)
        self.special_token_ids = sorted(vocabulary.special)
        self._tokenizer = Tokenizer.from_str(vocabulary.text)
        self._tokenizer.encode_special_tokens = True

    def __call__(self, text: bytes | str) -> list[int]:
        text = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return list(self._encoded(text))

    @lru_cache(maxsize=4096)  # noqa: B019 - lives as long as its vocabulary
    def _encoded(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)


def tokenizer(vocabulary: Vocabulary) -> Any:
    """llguidance's tokenizer for ``vocabulary``, made once."""
    key = id(vocabulary)
    if key not in _tokenizers:
        from llguidance import LLTokenizer, TokenizerWrapper

        built = LLTokenizer(TokenizerWrapper(_Tokens(vocabulary)), eos_token=list(vocabulary.ends), slices=list(SLICES))
        _tokenizers[key] = (vocabulary, built)
    return _tokenizers[key][1]


@lru_cache(maxsize=4)
def _stands(vocabulary: Vocabulary) -> Stands:
    return Stands(vocabulary)


def compiled(closed: Closed, vocabulary: Vocabulary) -> Any:
    """llguidance's matcher at the start of ``closed``.

    Raises:
        GrammarError: llguidance refuses it.
    """
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(max_items_in_row=MOST_ITEMS)
    matcher = LLMatcher(tokenizer(vocabulary), emit.lark(closed, vocabulary), log_level=0, limits=limits)
    if matcher.is_error():
        raise GrammarError(f"the grammar cannot be compiled: {_reason(matcher)}; check its template")
    return matcher


def explored(
    vocabulary: Vocabulary, template: str, binding: Binding, state: Any, compile: Compile = compiled
) -> Explored:
    """The grammar that ``binding`` gives for ``state``, compiled; the last :data:`COMPILED` ones are kept.

    Raises:
        GrammarError: the template or the binding is at fault, or the engine refuses the grammar.
    """
    rules = binding.rules(state)
    stand_ins = binding.stand_ins if isinstance(binding, Standing) else ()
    key = (vocabulary, template, frozenset(rules.items()), stand_ins, compile)
    if key in _explored:
        _explored.move_to_end(key)
        return _explored[key]
    closed = bind(template, _Given(rules), state)
    check_rules({rule.name: tuple(rule.names.values()) for rule in closed.instances}, closed.instances[0].name)
    found = _explored[key] = Explored(compile(closed, vocabulary))
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
    if lines and lines[0].startswith("NoExtension"):
        return "the grammar allows nothing here that the base's tokens can write"
    return lines[0] if lines else "unknown matcher error"
