"""``expert-cli base``: each command over real files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_bases import manifest
from test_weave import train
from tiny_qwen3 import save

from expert_cli.cli import main
from expert_cli.errors import BaseModelError
from expert_cli.runtime.weights import digest

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def call(*arguments: str | Path) -> str:
    done = CliRunner().invoke(main, ["base", *map(str, arguments)])
    if done.exception:
        raise done.exception
    return done.stdout


def test_list() -> None:
    found = {each["id"]: each for each in json.loads(call("list", "--json"))["bases"]}
    assert found["qwen3-0.6b"]["parameters"] == 596_049_920
    assert not found["qwen3-0.6b"]["here"]
    assert "qwen3-0.6b" in call("list")


def test_fetch(tmp_path: Path) -> None:
    path = manifest(tmp_path / "base")
    found = json.loads(call("fetch", path, "--json"))
    assert {kind: Path(file).read_text() for kind, file in found["files"].items()} == {
        kind: kind for kind in ("gguf", "weights", "config", "tokenizer")
    }
    assert call("fetch", path, "--file", "gguf") == f"{tmp_path / 'base/m.gguf'}\n"


def test_fetch_offline_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERT_OFFLINE", "1")
    with pytest.raises(BaseModelError, match="the network is forbidden"):
        call("fetch", "qwen3-0.6b", "--file", "config")


def test_gguf_and_weave(tmp_path: Path) -> None:
    folder, out = save(tmp_path / "tiny"), tmp_path / "tiny.gguf"
    made = json.loads(call("gguf", folder, "-o", out, "--json"))
    assert made == {"path": str(out), "size": out.stat().st_size, "sha256": digest(out)}
    adapter = train(folder, tmp_path / "adapter", use_dora=True)
    (adapter / "run.json").write_text(json.dumps({"identity": {"base": digest(folder / "model.safetensors")}}))
    assert call("weave", folder, adapter, "-o", tmp_path / "one.gguf", "--quantisation", "q8_0")
    assert call("weave", out, adapter, "-o", tmp_path / "two.gguf") == f"{tmp_path / 'two.gguf'}\n"
    other = save(tmp_path / "other", seed=9)
    with pytest.raises(BaseModelError, match="give its own base"):
        call("weave", other, adapter, "-o", tmp_path / "three.gguf")
    assert not (tmp_path / "three.gguf").exists()
