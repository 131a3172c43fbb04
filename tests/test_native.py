"""llama.cpp's own grammar as the decoder: the same language, and nothing of it believed unchecked."""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from test_processor import matcher
from test_shipped import KNOWN, SHOP, shipped
from tiny_qwen3 import PROMPTS, save

from expert_cli import cli, loading, store, trust
from expert_cli.errors import UsageError
from expert_cli.grammar import earley, tokens
from expert_cli.grammar import matcher as matching
from expert_cli.grammar.matcher import Matcher
from expert_cli.grammar.verdict import fault
from expert_cli.runtime import decode, gguf, native, qwen3
from expert_cli.runtime.llama import LlamaModel
from expert_cli.runtime.native import Native

SURFACES = ["pointers", "pointers-select", "names"]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlamaModel, tokens.Vocabulary]:
    pytest.importorskip("torch", reason="a random base is made with PyTorch")
    folder = save(tmp_path_factory.mktemp("tiny"), seed=1)
    gguf.write(qwen3.contents(folder), folder / "tiny.gguf", "f32")
    model = LlamaModel(folder / "tiny.gguf", threads=1, rows=4, exact=True)
    return model, tokens.load(folder / "tokenizer.json", ("<e>",), model.vocabulary)


def text(piece: bytes) -> bool:
    """Whether ``piece`` is whole characters: of parts of them llama.cpp lets more through."""
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("surface", SURFACES)
def test_it_allows_what_llguidance_allows(loaded: tuple[LlamaModel, tokens.Vocabulary], surface: str) -> None:
    model, vocabulary = loaded
    ours = matcher(vocabulary, surface)
    start = Matcher(vocabulary, ours.template, ours.binding, Native(model).compiled)
    compared = 0
    for seed in range(6):
        draw, one, other = Random(seed), ours.fork(), start.fork()
        for _ in range(40):
            found, expected = set(other.allowed()), set(one.allowed())
            # where only one text may follow, ours keeps to the tokens that the tokenizer would write it with
            beyond = expected - found if one.forced() else found ^ expected
            assert not [token for token in beyond if text(vocabulary.pieces[token])], one.written
            assert one.complete() == other.complete()
            compared += 1
            whole = sorted(
                token for token in expected if token not in vocabulary.ends and text(vocabulary.pieces[token])
            )
            if not whole:
                break
            token = draw.choice(whole)
            one.consume(token)
            other.consume(token)
    assert compared > 60


@pytest.mark.parametrize("surface", SURFACES)
def test_what_it_writes_passes_every_check(loaded: tuple[LlamaModel, tokens.Vocabulary], surface: str) -> None:
    model, vocabulary = loaded
    ours, ends = matcher(vocabulary, surface), frozenset(vocabulary.ends)
    start = Matcher(vocabulary, ours.template, ours.binding, Native(model).compiled)
    finished = 0
    for seed, prompt in enumerate(PROMPTS[:6]):
        read = model.tokenize(prompt)
        found = decode.beam(model, read, start.fork(), ends, width=3, max_tokens=60)
        found += decode.sample(model, read, start.fork(), ends, count=3, max_tokens=60, seed=seed)
        for one in found:
            finished += one.finished
            if one.finished:
                for compile in (matching.compiled, earley.compiled):
                    assert fault(vocabulary, ours.template, ours.binding, one.tokens, compile) is None
    assert finished > 1


def test_a_token_that_may_not_come_is_refused_and_ends_nothing(loaded: tuple[LlamaModel, tokens.Vocabulary]) -> None:
    """llama.cpp itself would end the process."""
    model, vocabulary = loaded
    ours = matcher(vocabulary, "names")
    start = Matcher(vocabulary, ours.template, ours.binding, Native(model).compiled)
    never = sorted(set(range(vocabulary.size)) - set(start.allowed()))
    for token in never[:: max(1, len(never) // 60)]:
        with pytest.raises(matching.GrammarError, match="cannot follow"):
            start.fork().consume(token)


class Anything:
    """An engine that lets everything through but what the grammar wants: a trained model would write it all the same."""

    def __init__(self, vocabulary: tokens.Vocabulary) -> None:
        self.vocabulary = vocabulary

    def try_consume_tokens(self, given: Sequence[int]) -> int:
        return len(given)

    def unsafe_compute_mask_ptr(self, pointer: int, size: int) -> None:
        ctypes.memset(pointer, 0xFF, self.vocabulary.size // 8)
        words = (ctypes.c_uint32 * (size // 4)).from_address(pointer)
        for token, piece in enumerate(self.vocabulary.pieces):
            if piece[:1] in (b"S", b"F", b"W"):
                words[token >> 5] &= ~(1 << (token & 31))

    def compute_ff_tokens(self) -> list[int]:
        return []

    def is_accepting(self) -> bool:
        return True

    def deep_copy(self) -> Anything:
        return self

    def is_error(self) -> bool:
        return False

    def get_error(self) -> str:
        return ""


@pytest.fixture
def installed() -> None:
    store.install(shipped(), trust.load())


@pytest.fixture(params=[True, False], ids=["with llguidance", "without llguidance"])
def present(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether llguidance can be imported."""
    matching._tokenizers.clear()
    matching._explored.clear()
    if not request.param:
        for name in [name for name in sys.modules if name.partition(".")[0] == "llguidance"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "llguidance", None)
    return bool(request.param)


def chat(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the console script."""
    monkeypatch.setattr(sys, "argv", ["expert-cli", "chat", "--db", str(SHOP), *options])
    with pytest.raises(SystemExit) as stop:
        cli.run()
    shown = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, shown.out, shown.err


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("question", KNOWN)
def test_the_shipped_expert_answers_alike(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, present: bool, question: str
) -> None:
    options = ("--decoder", "native") if present else ()
    code, out, err = chat(capsys, monkeypatch, *options, "--json", "--prompt", question)
    assert code == 0
    assert json.loads(out)["sql"] == KNOWN[question]
    assert ("llguidance cannot be started" in err) == (not present)


@pytest.mark.usefixtures("installed")
def test_what_is_let_through_wrongly_is_no_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, present: bool
) -> None:
    monkeypatch.setattr(native.Native, "compiled", lambda self, closed, vocabulary: Anything(vocabulary))
    code, out, err = chat(
        capsys, monkeypatch, "--decoder", "native", "--candidates", "3", "--prompt", "How many orders?"
    )
    assert (code, out) == (6, "")
    assert err.count("refused '") == 3
    assert "passed our check; use --decoder llguidance" in err and "Traceback" not in err


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.usefixtures("installed")
def test_without_llguidance_the_other_backend_has_no_grammar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    matching._tokenizers.clear()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    code, out, err = chat(capsys, monkeypatch, "--backend", "hf", "--prompt", "How many orders?")
    assert (code, out) == (2, "")
    assert "use --backend llama" in err


@pytest.mark.parametrize("options", [{"backend": "hf"}, {"grammar": False}, {"decoder": "guess"}])
def test_what_does_not_go_together_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="decoder"):
        loading.load(**{"decoder": "native", **options})
