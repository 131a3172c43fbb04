"""The llama.cpp backend: shared prefixes, many rows at once, damaged files, and silence."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES
from tiny_qwen3 import PROMPTS, save

from expert_cli.errors import BaseModelError, UsageError
from expert_cli.runtime import decode, gguf, header, qwen3
from expert_cli.runtime.hf import HfModel
from expert_cli.runtime.llama import LlamaModel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("tiny"), seed=1)


@pytest.fixture(scope="module")
def path(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    gguf.write(qwen3.contents(folder), target, "f32")
    return target


@pytest.fixture
def model(path: Path) -> Iterator[LlamaModel]:
    made = LlamaModel(path, threads=1, rows=6, exact=True)
    yield made
    made.close()


def close(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(one - other).max() < 1e-4)


def test_a_shared_prefix_changes_nothing(model: LlamaModel, path: Path) -> None:
    fresh = LlamaModel(path, threads=1, exact=True)
    prompts = [model.tokenize(text) for text in PROMPTS]
    for prompt in [*prompts, prompts[0][:5], prompts[0], prompts[0]]:
        model.extend([(0, [7]), (0, [8])]) if model.reused else None
        shown = model.prefill(prompt)
        fresh._prompt = []
        assert close(shown, fresh.prefill(prompt))
    assert model.reused == len(prompts[0])
    model.prefill([*prompts[0], 9])
    assert model.reused == len(prompts[0])
    model.prefill(prompts[0][:-1])
    assert model.reused == len(prompts[0]) - 2  # the last token is read again, for its logits


def test_rows_do_not_see_each_other(model: LlamaModel, folder: Path) -> None:
    """A tree of continuations, each compared with the same tokens read alone by transformers."""
    prompt = model.tokenize(PROMPTS[0])
    reference = HfModel(folder, rows=1)
    model.prefill(prompt)
    written: list[list[int]] = [[]]
    steps = [
        [(0, [5]), (0, [6, 7, 8]), (0, [9])],
        [(2, [1]), (0, [2, 3]), (2, [4]), (2, [4, 4]), (1, [5])],
        [(4, [1]), (4, [2])],
        [(1, [3]), (0, [3, 4]), (1, [6]), (0, [6]), (1, [8]), (0, [9])],
    ]
    for step in steps:
        written = [[*written[parent], *tokens] for parent, tokens in step]
        shown = model.extend(step)
        for row, tokens in zip(shown, written, strict=True):
            assert close(row, reference.prefill([*prompt, *tokens])[0])


def test_the_prompt_survives_its_rows(model: LlamaModel) -> None:
    prompt = model.tokenize(PROMPTS[1])
    first = decode.beam(model, prompt, None, frozenset({4}), width=6, max_tokens=12)
    assert decode.beam(model, prompt, None, frozenset({4}), width=6, max_tokens=12) == first
    assert model.reused == len(prompt)
    greedy = decode.greedy(model, prompt, None, frozenset({4}), max_tokens=12)
    assert decode.greedy(model, prompt, None, frozenset({4}), max_tokens=12) == greedy


def test_both_backends_search_alike(model: LlamaModel, folder: Path) -> None:
    reference = HfModel(folder, rows=6)
    for text in PROMPTS[:6]:
        prompt = model.tokenize(text)
        found, wanted = (
            decode.beam(m, prompt, None, frozenset({4}), width=4, max_tokens=8) for m in (model, reference)
        )
        assert [each.tokens for each in found] == [each.tokens for each in wanted]
        assert [each.logprob for each in found] == pytest.approx([each.logprob for each in wanted], abs=1e-3)
        drawn = [
            [each.tokens for each in decode.sample(m, prompt, None, frozenset({4}), count=5, max_tokens=6, seed=2)]
            for m in (model, reference)
        ]
        assert drawn[0] == drawn[1]


def test_a_long_prompt_is_read_in_batches(path: Path) -> None:
    model = LlamaModel(path, threads=1, context=2000, exact=True)
    tokens = list(itertools.islice(itertools.cycle(range(200, 400)), 1500))
    whole = model.prefill(tokens).copy()
    model.prefill(tokens[:700])
    assert close(model.prefill(tokens), whole)
    model.prefill(tokens[:9])
    rows = model.extend([(0, tokens[row : row + 150]) for row in range(6)])
    for row in range(6):
        model.prefill(tokens[:9])
        assert close(model.extend([(0, tokens[row : row + 150])])[0], rows[row])


def test_what_does_not_fit_is_refused(model: LlamaModel) -> None:
    with pytest.raises(UsageError, match="0 tokens"):
        model.prefill([])
    with pytest.raises(UsageError, match="600 tokens does not fit a context of 512"):
        model.prefill([5] * 600)
    model.prefill([5] * 500)
    with pytest.raises(UsageError, match="do not fit a context"):
        model.extend([(0, [5] * 13)])
    with pytest.raises(UsageError, match="7 rows, at least 1 and at most 6"):
        model.extend([(0, [5])] * 7)
    assert not decode.greedy(model, [5] * 500, None, frozenset(), max_tokens=99).finished


def test_rows_run_to_the_end_of_the_context(model: LlamaModel) -> None:
    model.prefill([5] * 500)
    rows = model.extend([(0, [6])] * 6)
    for _ in range(11):
        rows = model.extend([(row, [6]) for row in range(6)])
    assert np.isfinite(rows).all()


def damage(path: Path, how: str) -> bytes:
    whole = path.read_bytes()
    start = whole.index(b"output_norm.weight")
    norm = whole[start : (place := start + 34)]  # name, count of dimensions, dimension, type
    return {
        "empty": b"",
        "text": b"<html>not found</html>" * 99,
        "magic": b"GGML" + whole[4:],
        "version": whole[:4] + b"\x09\0\0\0" + whole[8:],
        "counts": whole[:8] + b"\xff" * 16 + whole[24:],
        "header": whole[:2000],
        "tensors": whole[: len(whole) // 2],
        "last byte": whole[: len(whole) - 64],
        "dimensions": whole.replace(b"output_norm.weight\x01", b"output_norm.weight\x09"),
        "f16 norm": whole.replace(norm, norm[:-4] + b"\x01\0\0\0"),
        "offset": whole.replace(norm + whole[place : place + 8], norm + b"\xff" * 7 + b"\0"),
        "token twice": whole.replace(b"<c7>", b"<c8>"),
        "zero in token": whole.replace(b"<c7>", b"<c\0>"),
        "names": whole.replace(b"blk.0.attn_q.weight", b"blk.0.attn_x.weight"),
        "architecture": whole.replace(b"qwen3", b"qwen0"),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        *("empty", "text", "magic", "version", "counts", "header", "tensors", "last byte"),
        *("dimensions", "f16 norm", "offset", "token twice", "zero in token", "names", "architecture"),
    ],
)
def test_damaged_file_is_an_error(path: Path, tmp_path: Path, how: str) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(damage(path, how))
    with pytest.raises(BaseModelError, match=r"broken\.gguf: not a usable GGUF file \(.+\); fetch or convert it again"):
        LlamaModel(broken)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="no such GGUF file"):
        LlamaModel(tmp_path / "none.gguf")


def test_llama_is_silent(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(damage(path, "tensors"))
    code = f"""
from pathlib import Path
from expert_cli.errors import BaseModelError
from expert_cli.runtime.llama import LlamaModel
model = LlamaModel(Path({str(path)!r}), threads=1)
model.prefill(model.tokenize("hello"))
model.close()
try:
    LlamaModel(Path({str(broken)!r}))
except BaseModelError:
    pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_rounded_keys_and_values_stay_near(model: LlamaModel, path: Path) -> None:
    rounded = LlamaModel(path, threads=1)
    differences = [np.abs(rounded.prefill(p) - model.prefill(p)).max() for p in map(model.tokenize, PROMPTS)]
    assert 1e-5 < max(differences) < 0.1
    rounded.close()


def test_no_numbers_is_an_error(folder: Path, tmp_path: Path) -> None:
    gguf.write(qwen3.contents(folder), tmp_path / "nan.gguf", "f32", lambda name, floats: floats * np.float32(np.nan))
    with pytest.raises(BaseModelError, match="computes no numbers"):
        LlamaModel(tmp_path / "nan.gguf", threads=1).prefill([5])


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    known = {int(kind): tuple(sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    assert {kind: known[kind] for kind in header.SIZES} == header.SIZES


def test_loading_needs_neither_gguf_nor_http() -> None:
    code = (
        "import sys, expert_cli.runtime.llama, expert_cli.runtime.decode, expert_cli.runtime.weave;"
        "sys.exit(bool({'gguf', 'urllib.request'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
