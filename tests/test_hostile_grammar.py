"""Grammars and vocabularies that mean harm: an error that says what to do, soon, and nothing on standard output.

An archive's grammar is refused when it is installed where it can be told from its text alone; where only binding or
decoding shows it, the question fails. In no case is anything written that the grammar did not allow.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import hostile
import pytest
from grammar_cases import VOCABULARY, Open
from test_runtime_decode import TableModel

from expert_cli import cli
from expert_cli.errors import BaseModelError, GrammarError
from expert_cli.grammar import matcher as matching
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.sample import sample
from expert_cli.grammar.tokens import Vocabulary, bytewise, vocabulary
from expert_cli.loading import Parts
from expert_cli.runtime import decode

SECONDS = 20.0

MANY = range(2000)
UNPACKABLE = {
    "a million repetitions": 'root ::= "a"{1000000}',
    "a million at most": "root ::= [a-z]{0,1000000}",
    "repetitions of repetitions": 'root ::= ("a"{1000}){1000}',
    "a rule that is itself": "root ::= root",
    "a rule that begins with itself": 'root ::= a "x"\na ::= root | "y"',
    "rules that never end": 'root ::= "a" b\nb ::= "b" root',
    "parentheses": "root ::= " + "(" * 100_000,
    "quantifiers": 'root ::= "a"' + "*" * 100_000,
    "modes of modes": "# modes: MODE " + " ".join(f"m{n}" for n in range(20_000)) + "\n"
    + "\n".join(f'x{n}-MODE ::= "a"' for n in range(200)) + '\nroot ::= "a"',
    "copies of copies": "\n".join(f"# modes: M{n} {' '.join(f'a{m}' for m in range(60))}" for n in range(60))
    + "\n" + "\n".join(f'x{n}-M{n % 60} ::= "a"' for n in MANY) + '\nroot ::= "a"',
    "hooks that all open": "\n".join(f"# hook: h{n} (opens, scoped)" for n in MANY) + '\nroot ::= "a"',
    "too long": "#" * 5_000_000,
}  # fmt: skip
"""Told from the text."""

UNDECODABLE = {
    "a chain of rules": "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1}\n" for n in range(15_000)) + 'r15000 ::= "x"',
    "doubling": "root ::= r0\n" + "".join(f"r{n} ::= r{n + 1} r{n + 1}\n" for n in range(60)) + 'r60 ::= "a"',
    "repetitions over rules": 'root ::= a{2000}\na ::= b{2000}\nb ::= c{2000}\nc ::= "x"',
    "one long literal": 'root ::= "' + "a" * 1_000_000 + '"',
    "many rules": "root ::= " + " | ".join(f"r{n}" for n in range(9000)) + "\n"
    + "\n".join(f'r{n} ::= "k{n}" root?' for n in range(9000)),
    "many classes": "root ::= " + " | ".join(f'[{chr(0x4E00 + n)}-{chr(0x5E00 + n)}]+ "!"' for n in MANY),
    "classes that overlap": "root ::= (" + " | ".join(f'[a-z]{{1,{n}}} "-"' for n in range(1, 300)) + ")+",
    "groups in groups": "root ::= " + "(" * 60 + '"a"' + ' "b")?' * 60,
    "a token that is not there": "root ::= <nothing>",
    "a token beyond the vocabulary": "root ::= <[99999999]>",
    "a token beyond all numbers": "root ::= <[99999999999999999999999]>",
}  # fmt: skip
"""Told when it is compiled, or on the way."""

HARMLESS = {
    "a root that mentions itself": 'root ::= "a" root "b" | "c"',
    "ambiguous": 'root ::= a\na ::= "x" | "x" a | "x" a a | "x" a a a',
    "nothing forty times": 'root ::= r0 "z"\n'
    + "".join(f"r{n} ::= r{n + 1}? r{n + 1}?\n" for n in range(40))
    + 'r40 ::= "a"',
    "two runs of letters": 'root ::= [a-z]{1,1000} [a-z]{1,1000} "z"',
    "an exponential automaton": 'root ::= [ab]* "a" [ab]{30} "!"',
    "many alternatives": "root ::= " + " | ".join(f'"a{n}"' for n in range(20_000)),
    "beginnings of each other": "root ::= " + " | ".join('"' + "a" * n + '"' for n in range(1, 600)),
}
"""Hard on a matcher, but sound: samples come to an end."""


@pytest.fixture(autouse=True)
def soon() -> Any:
    start = time.process_time()
    yield
    assert time.process_time() - start < SECONDS


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the console script."""
    monkeypatch.setattr(sys, "argv", ["expert-cli", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.run()
    shown = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, shown.out, shown.err


@pytest.mark.parametrize("name", UNPACKABLE)
def test_a_bomb_is_not_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "expert-sql-nano.v0.1.0.expert"
    path.write_bytes(hostile.signed({"grammar.gbnf": UNPACKABLE[name].encode()}))
    (tmp_path / "key.pub").write_bytes(hostile.KEY.public.pem)
    assert run(capsys, monkeypatch, "trust", "add", "sql", "--key", str(tmp_path / "key.pub"))[0] == 0
    code, out, err = run(capsys, monkeypatch, "install", str(path))
    assert (code, out) == (3, "")
    assert "grammar.gbnf" in err and "Traceback" not in err
    assert run(capsys, monkeypatch, "list", "--json")[1].count('"digest"') == 0


@pytest.fixture
def chat(parts: Parts, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Ask an expert that is made of the random base and any grammar."""
    schema = tmp_path / "shop.sql"
    schema.write_text("CREATE TABLE items (name TEXT, price REAL);")

    def ask(grammar: str, *options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(Parts, "installed", classmethod(lambda cls, name: replace(parts, grammar=grammar)))
        return run(capsys, monkeypatch, "chat", "--schema", str(schema), "--prompt", "the names of items", *options)

    return ask


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("name", UNDECODABLE)
def test_a_bomb_is_not_decoded(chat: Any, name: str) -> None:
    code, out, err = chat(UNDECODABLE[name])
    assert (code, out) == (6, "")
    assert err.startswith("error: ") and "; " in err and "Traceback" not in err


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_hard_but_sound_is_followed(name: str) -> None:
    matcher = Matcher(VOCABULARY, HARMLESS[name], Open())
    drawn = [sample(matcher.fork(), Random(seed), most=200, calm=50) for seed in range(12)]
    found = [text for text in drawn if text is not None]
    assert found
    for text in found:
        follower = matcher.fork()
        for byte in text.encode():
            follower.consume(VOCABULARY.size - 256 + byte)
        assert follower.complete()


class Failing:
    """llguidance's matcher, which meets a limit once ``after`` masks were asked of it and its copies."""

    after = 0
    count = 0

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def deep_copy(self) -> Failing:
        return Failing(self.inner.deep_copy())

    def unsafe_compute_mask_ptr(self, pointer: int, size: int) -> None:
        Failing.count += 1
        self.inner.unsafe_compute_mask_ptr(pointer, size)

    def is_error(self) -> bool:
        return Failing.count > Failing.after or bool(self.inner.is_error())

    def get_error(self) -> str:
        return "lexer error: a limit, injected"


REAL = matching.compiled


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("after", [0, 1, 3, 6])
@pytest.mark.parametrize("options", [(), ("--json",), ("--candidates", "1"), ("--backend", "hf")])
def test_a_fault_of_the_matcher_while_decoding_gives_no_answer(
    chat: Any, parts: Parts, monkeypatch: pytest.MonkeyPatch, after: int, options: tuple[str, ...]
) -> None:
    matching._explored.clear()
    monkeypatch.setattr(matching, "compiled", lambda *given: Failing(REAL(*given)))
    monkeypatch.setattr(Failing, "after", after)
    monkeypatch.setattr(Failing, "count", 0)
    try:
        code, out, err = chat(parts.grammar, *options)
    finally:
        matching._explored.clear()
    assert Failing.count > after, "the fault came"
    assert (code, out) == (6, "")
    assert "a limit, injected" in err and "Traceback" not in err


def test_an_engine_that_loses_its_place_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(Failing):
        """Reads nothing and says so, without an error."""

        def deep_copy(self) -> Deaf:
            return Deaf(self.inner.deep_copy())

        def try_consume_tokens(self, tokens: list[int]) -> int:
            return 0

    start = Matcher(VOCABULARY, 'root ::= "ab" [c-d]+', Open())
    first, second = (start.fork() for _ in range(2))
    for follower in (first, second):
        follower.consume(VOCABULARY.size - 256 + ord("a"))  # the second time without asking the engine
    monkeypatch.setattr(Failing, "after", 10**9)
    second._reader = matching.Engine(Deaf(second._reader.matcher.deep_copy()), 0)
    second._place.mask = second._place.forced = None
    with pytest.raises(GrammarError, match="lost its place"):
        second.mask()


def named(*more: bytes) -> Vocabulary:
    """A byte-level vocabulary with tokens of several bytes as well."""
    names = {raw: name for name, raw in _names().items()}
    data = json.loads(bytewise(("<e>",), "<e>").text)
    known = data["model"]["vocab"]
    first = 1 + max(*known.values(), *(one["id"] for one in data["added_tokens"]))
    for number, piece in enumerate(more, first):
        known["".join(names[byte] for byte in piece)] = number
    return vocabulary(json.dumps(data), ("<e>",))


def _names() -> dict[str, int]:
    """The name of each byte in a byte-level vocabulary."""
    data = json.loads(bytewise(("<e>",), "<e>").text)
    plain = bytewise(("<e>",), "<e>")
    return {name: plain.pieces[number][0] for name, number in data["model"]["vocab"].items() if len(name) == 1}


NEVER_TEXT = [b"\xff", b"\xfe\xff", b"a\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80", b"\xc3\xc3"]
PARTS_OF_TEXT = [b"\xc3", b"\xc3\xa9", b"\xe2\x82", b"\xac", b"\xf0\x9f\x98", b"\x80a", b"\xa9'", b"o\xcc"]
STRING = r"""root ::= "'" ([^'\x00-\x1F] | "''")* "'" """


def test_tokens_that_are_no_text_are_never_offered() -> None:
    known = named(*NEVER_TEXT, *PARTS_OF_TEXT)
    start = Matcher(known, STRING, Open())
    start.consume(start.allowed()[0])
    never = {number for number, piece in enumerate(known.pieces) if piece in NEVER_TEXT}
    offered: set[bytes] = set()
    for seed in range(150):
        draw, matcher, written = Random(seed), start.fork(), b"'"
        for _ in range(12):
            allowed = matcher.allowed()
            assert not never & set(allowed)
            # tokens of parts of characters are few among all tokens: half of the time, one of them
            some = [number for number in allowed if known.pieces[number] in PARTS_OF_TEXT]
            token = draw.choice(some if some and draw.random() < 0.5 else allowed)
            if token in known.ends:
                break
            offered.add(known.pieces[token])
            written += known.pieces[token]
            matcher.consume(token)
        if matcher.complete():
            assert matcher.written == written.decode(), "a whole sentence is text"
    assert offered.issuperset(PARTS_OF_TEXT)


def test_a_vocabulary_that_lacks_the_bytes_of_a_name_is_named_at_once() -> None:
    known = bytewise(("<e>",), "<e>")
    data = json.loads(known.text)
    vocab = data["model"]["vocab"]
    data["model"]["vocab"] = {name: number for name, number in vocab.items() if known.pieces[number] < b"\x80"}
    ascii_only = vocabulary(json.dumps(data), ("<e>",))
    model = TableModel({}, vocabulary=ascii_only.size)
    with pytest.raises(GrammarError, match="allows nothing here"):
        decode.greedy(
            model, [1], Matcher(ascii_only, 'root ::= "a" "é"', Open()), frozenset(ascii_only.ends), max_tokens=9
        )


def tampered(**changes: Any) -> str:
    data = json.loads(bytewise(("<e>",), "<e>").text)
    data["model"]["vocab"] |= changes
    return json.dumps(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (tampered(x=10**12), "token ids go from 0"),
        (tampered(x=-1), "token ids go from 0"),
        (tampered(x="7"), "token ids go from 0"),
        (tampered(x=True), "token ids go from 0"),
        (tampered(**{"\ud800": 300}), "is no text"),
        (
            '{"model": {"vocab": [["<0xZZ>", 0]]}, "added_tokens": [{"content": "<e>", "id": 1, "special": true}]}',
            "is no text",
        ),
        ('{"model": {"vocab": {}}}', "no end token"),
        ("[]", "not a Hugging Face tokenizer"),
        ("\ufffe", "not a Hugging Face tokenizer"),
    ],
)
def test_a_vocabulary_that_is_none(text: str, message: str) -> None:
    with pytest.raises(BaseModelError, match=message):
        vocabulary(text, ("<e>",))
