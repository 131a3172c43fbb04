"""What the grammar tests share: a vocabulary of bytes, a binding without hooks, and feeding text to a matcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expert_cli.errors import GrammarError
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.tokens import bytewise

POINTERS = (
    *("<e>", "<any>", "<pre>", "<suf>"),
    *(f"<t{n}>" for n in range(16)),
    *(f"<c{n}>" for n in range(96)),
    *(f"<v{n}>" for n in range(12)),
)
VOCABULARY = bytewise(POINTERS, "<e>")
NAMES = sorted(VOCABULARY.special, key=lambda one: -len(POINTERS[one]))


class Open:
    """A binding for grammars without hooks."""

    def state(self, written: str) -> Any:
        return 0

    def rules(self, state: Any) -> Mapping[str, str]:
        return {}


def encode(text: str, *, pointers: bool = True) -> list[int]:
    """Pointers as their tokens, the rest byte by byte."""
    raw = text.encode()
    ids = []
    while raw:
        known = next((one for one in NAMES if pointers and raw.startswith(POINTERS[one].encode())), None)
        size = len(POINTERS[known]) if known is not None else 1
        ids.append(known if known is not None else len(POINTERS) + raw[0])
        raw = raw[size:]
    return ids


def accepts(matcher: Matcher, ids: Sequence[int]) -> bool:
    """Whether ``ids`` are a whole sentence; ``matcher`` moves."""
    for token in ids:
        allowed = token in matcher.allowed()
        try:
            matcher.consume(token)
        except GrammarError:
            assert not allowed, f"the mask offers {token} after {matcher.written!r}, the parser refuses it"
            return False
        assert allowed, f"the mask hides {token} before {matcher.written!r}, the parser takes it"
    return matcher.complete()
