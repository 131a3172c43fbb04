"""A Qwen3 folder as GGUF: llama.cpp tokenizes and continues like transformers, and what it would misread is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_qwen3 import PROMPTS, SPECIALS, save
from tokenizers import Tokenizer

from expert_cli.errors import BaseModelError
from expert_cli.runtime import decode, gguf, qwen3
from expert_cli.runtime.hf import HfModel
from expert_cli.runtime.llama import LlamaModel
from expert_cli.runtime.weights import Weights

NEW_TOKENS = 16


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("tiny"))


def converted(folder: Path, target: Path, quantisation: str = "f32") -> LlamaModel:
    gguf.write(qwen3.contents(folder), target, quantisation)
    return LlamaModel(target, threads=1, exact=True)


def agreement(one: decode.Model, other: decode.Model) -> tuple[int, float]:
    """How many of PROMPTS both continue with the same tokens, and the largest difference of a logit."""
    same, difference = 0, 0.0
    for text in PROMPTS:
        prompt = other.tokenize(text)
        difference = max(difference, float(np.abs(one.prefill(prompt) - other.prefill(prompt)).max()))
        texts = [decode.greedy(m, prompt, None, frozenset(), max_tokens=NEW_TOKENS).tokens for m in (one, other)]
        same += texts[0] == texts[1]
    return same, difference


@pytest.mark.parametrize(
    ("tied", "dtype", "nfc"), [(True, "float32", True), (False, "float32", False), (True, "bfloat16", True)]
)
def test_same_tokens_as_transformers(tmp_path: Path, tied: bool, dtype: str, nfc: bool) -> None:
    folder = save(tmp_path / "model", tied=tied, dtype=dtype, nfc=nfc, seed=3)
    model = converted(folder, tmp_path / "model.gguf")
    assert len(PROMPTS) >= 50
    same, difference = agreement(model, HfModel(folder))
    assert same == len(PROMPTS)
    assert difference < 1e-4
    model.close()


@pytest.mark.parametrize("nfc", [True, False])
def test_same_tokenization(tmp_path: Path, nfc: bool) -> None:
    folder = save(tmp_path / "model", nfc=nfc)
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = converted(folder, tmp_path / "model.gguf")
    for text in [*PROMPTS, *SPECIALS, "".join(SPECIALS), "0123456789 12 3.14 ٤٢", ""]:
        assert model.tokenize(text) == reference.encode(text, add_special_tokens=False).ids, text
    assert model.tokenize("<c7>") == [SPECIALS.index("<c7>")]
    model.close()


def test_pieces_of_both_backends_are_equal(tiny: Path, tmp_path: Path) -> None:
    model, reference = converted(tiny, tmp_path / "model.gguf"), HfModel(tiny)
    known = Tokenizer.from_file(str(tiny / "tokenizer.json")).get_vocab_size()
    assert [model.piece(token) for token in range(known)] == [reference.piece(token) for token in range(known)]
    for text in PROMPTS[:40]:
        assert b"".join(map(model.piece, model.tokenize(text))).decode() == text
    model.close()


@pytest.mark.parametrize(("quantisation", "error"), [("f16", 0.05), ("bf16", 0.4), ("q8_0", 0.4)])
def test_quantised_stays_near(tiny: Path, tmp_path: Path, quantisation: str, error: float) -> None:
    model, exact = converted(tiny, tmp_path / "q.gguf", quantisation), converted(tiny, tmp_path / "f.gguf")
    difference = max(float(np.abs(model.prefill(p) - exact.prefill(p)).mean()) for p in map(exact.tokenize, PROMPTS))
    assert 0 < difference < error
    assert (tmp_path / "q.gguf").stat().st_size < (tmp_path / "f.gguf").stat().st_size
    model.close()
    exact.close()


def test_gguf_read_and_written_again_is_the_same(tiny: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "one.gguf", tmp_path / "two.gguf"
    gguf.write(qwen3.contents(tiny), first, "f32")
    gguf.write(gguf.read(first), second, "f32")
    assert first.read_bytes() == second.read_bytes()
    gguf.write(gguf.read(first), second, "f16")
    with pytest.raises(BaseModelError, match="Q8_0"):
        gguf.write(gguf.read(first), second, "q8_0")
        gguf.read(second)


def edited(folder: Path, target: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a model folder with one JSON file changed."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    data = json.loads((target / name).read_text())
    change(data)
    (target / name).write_text(json.dumps(data))
    return target


def split(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = data["pre_tokenizer"]["pretokenizers"][0]
    return found


REFUSED = [
    ("config.json", lambda data: data.update(model_type="llama"), "model type 'llama'"),
    ("config.json", lambda data: data.update(attention_bias=True), "attention bias"),
    ("config.json", lambda data: data["rope_parameters"].update(rope_type="yarn"), "rope scaling 'yarn'"),
    ("config.json", lambda data: data.update(tie_word_embeddings=False), "missing.*output.weight"),
    ("config.json", lambda data: data.update(num_hidden_layers=3), "missing.*blk.2"),
    ("config.json", lambda data: data.update(vocab_size=300), "has no row among 300"),
    ("tokenizer.json", lambda data: split(data)["pattern"].update(Regex=r"\p{N}{1,3}|\S+"), "pre-tokeniser"),
    ("tokenizer.json", lambda data: data["pre_tokenizer"]["pretokenizers"].pop(), "pre-tokeniser"),
    ("tokenizer.json", lambda data: data.update(normalizer={"type": "NFKC"}), "normaliser is not NFC"),
    ("tokenizer.json", lambda data: data["added_tokens"][4].update(lstrip=True), "<e> strips"),
    ("tokenizer.json", lambda data: data["model"].update(type="Unigram"), "not BPE"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_folder_is_refused(
    tiny: Path, tmp_path: Path, name: str, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(BaseModelError, match=message):
        qwen3.contents(edited(tiny, tmp_path / "model", name, change))


def test_incomplete_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"config\.json: no such file"):
        qwen3.contents(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(BaseModelError, match="not JSON"):
        qwen3.contents(tmp_path)


def test_failed_writing_leaves_nothing(tiny: Path, tmp_path: Path) -> None:
    def fail(name: str, floats: Any) -> Any:
        raise BaseModelError("no")

    with pytest.raises(BaseModelError, match="no"):
        gguf.write(qwen3.contents(tiny), tmp_path / "model.gguf", "f16", fail)
    with pytest.raises(BaseModelError, match="does not fit into f16"):
        gguf.write(qwen3.contents(tiny), tmp_path / "model.gguf", "f16", lambda name, floats: floats + 1e6)
    with pytest.raises(BaseModelError, match="unknown quantisation 'q3'"):
        gguf.write(qwen3.contents(tiny), tmp_path / "model.gguf", "q3")
    assert list(tmp_path.iterdir()) == []


def tensors(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


ONE = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
DAMAGED = [
    (b"", "not a safetensors file"),
    (struct.pack("<Q", 1 << 40) + b"{}", "not a safetensors file"),
    (tensors(b"{"), "not JSON"),
    (tensors(b"[]"), "not a JSON object"),
    (tensors(b'{"__metadata__":{}}'), "holds no tensor"),
    (tensors(ONE, bytes(7)), "end at byte"),
    (tensors(ONE, bytes(9)), "end at byte"),
    (tensors(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}', bytes(12)), "hole"),
    (tensors(b'{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}', bytes(8)), "does not fill"),
    (tensors(b'{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}', bytes(8)), "not of a known type"),
    (tensors(b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', bytes(8)), "not of a known type"),
    (tensors(ONE[:-1] + b"," + ONE[1:], bytes(8)), "names a key twice"),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED)
def test_damaged_safetensors(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BaseModelError, match=message):
        Weights(path)


def test_widened_types(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e-3, 65280.0], np.float32)
    stored = {
        "F32": values.tobytes(),
        "F16": values.astype(np.float16).tobytes(),
        "BF16": values.view(np.uint16)[1::2].tobytes(),
    }
    for kind, body in stored.items():
        path = tmp_path / kind
        header = {"a": {"dtype": kind, "shape": [2, 2], "data_offsets": [0, len(body)]}}
        path.write_bytes(tensors(json.dumps(header).encode(), body))
        assert Weights(path).read("a") == pytest.approx(values.reshape(2, 2), rel=1e-2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_number_is_refused(tmp_path: Path, value: float) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(tensors(ONE, np.array([1, value], np.float32).tobytes()))
    with pytest.raises(BaseModelError, match="NaN or infinity"):
        Weights(path).read("a")
