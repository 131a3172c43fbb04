"""Woven bases against PEFT's own merge and forward pass, and every adapter that must be refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from peft import LoraConfig, get_peft_model
from safetensors.numpy import load_file, save_file
from test_gguf import agreement
from tiny_qwen3 import PROMPTS, save
from transformers import AutoModelForCausalLM

from expert_cli.errors import BaseModelError
from expert_cli.manifest import BaseFile, BaseManifest
from expert_cli.runtime import gguf, qwen3, weave
from expert_cli.runtime.bases import Base
from expert_cli.runtime.hf import HfModel
from expert_cli.runtime.llama import LlamaModel
from expert_cli.runtime.weights import Weights, digest

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("tiny"), seed=4)


def train(base: Path, target: Path, **settings: Any) -> Path:
    """An adapter folder as PEFT writes it, with random values where training would have put some."""
    config = {"r": 4, "lora_alpha": 8, "target_modules": ALL} | settings
    torch.manual_seed(5)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), LoraConfig(**config))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.add_(torch.randn_like(weight) * 0.15)
    model.save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def dora(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny, tmp_path_factory.mktemp("dora"), use_dora=True)


KINDS: list[dict[str, Any]] = [
    {"use_dora": True},
    {"use_dora": True, "use_rslora": True, "r": 3},
    {"use_dora": False, "target_modules": ["q_proj", "v_proj"]},
    {"use_dora": True, "layers_to_transform": [1], "target_modules": ["k_proj", "up_proj", "down_proj"]},
]


@pytest.mark.parametrize("settings", KINDS, ids=lambda settings: "-".join(map(str, settings)))
def test_same_tokens_as_peft(tiny: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    adapter = train(tiny, tmp_path / "adapter", **settings)
    weave.weave(tiny, adapter, tmp_path / "woven.gguf", "f32")
    model, loaded = LlamaModel(tmp_path / "woven.gguf", threads=1, exact=True), HfModel(tiny, adapter)
    base = HfModel(tiny)
    for text in PROMPTS[:5]:
        prompt = model.tokenize(text)
        assert np.abs(model.prefill(prompt) - loaded.prefill(prompt)).max() < 1e-4
        assert np.abs(model.prefill(prompt) - base.prefill(prompt)).max() > 0.5
    # PEFT's merge answers faster than its unmerged layers
    merged = shutil.copytree(tiny, tmp_path / "merged")
    loaded._model.merge_and_unload().save_pretrained(merged)
    same, difference = agreement(model, HfModel(merged))
    assert (same, difference < 1e-4) == (50, True), f"{same} of 50, logits differ by {difference}"
    model.close()


def test_gguf_and_folder_weave_alike(tiny: Path, dora: Path, tmp_path: Path) -> None:
    gguf.write(qwen3.contents(tiny), tmp_path / "base.gguf", "f32")
    weave.weave(tmp_path / "base.gguf", dora, tmp_path / "one.gguf", "q8_0")
    weave.weave(tiny, dora, tmp_path / "two.gguf", "q8_0")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_merge_is_peft_merge(tiny: Path, dora: Path) -> None:
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32), dora)
    merged = loaded.merge_and_unload().state_dict()
    base = Weights(tiny / "model.safetensors")
    changes = weave.deltas(dora)
    assert len(changes) == 14
    for name in base:
        module = name.removesuffix(".weight")
        if (delta := changes.get(qwen3.tensor_name(module))) is not None:
            assert np.abs(delta.merge(base.read(name)) - merged[name].numpy()).max() < 1e-6


def configured(**changes: Any) -> Callable[[Path], None]:
    def apply(adapter: Path) -> None:
        path = adapter / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return apply


def retensored(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def apply(adapter: Path) -> None:
        tensors = load_file(adapter / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, adapter / "adapter_model.safetensors")

    return apply


Q = "base_model.model.model.layers.0.self_attn.q_proj"
REFUSED = [
    (configured(peft_type="LOHA"), "not the configuration"),
    (configured(r=8), "not of rank 8"),
    (configured(r=0), "not the configuration"),
    (configured(use_dora=False), "lora_A, lora_B|down, magnitude, up where down, up"),
    (configured(bias="all"), "bias = 'all' cannot be merged"),
    (configured(modules_to_save=["lm_head"]), "modules_to_save"),
    (configured(rank_pattern={"q_proj": 2}), "rank_pattern"),
    (configured(alpha_pattern={"q_proj": 2}), "alpha_pattern"),
    (configured(fan_in_fan_out=True), "fan_in_fan_out"),
    (configured(lora_bias=True), "lora_bias"),
    (configured(layer_replication=[[0, 2]]), "layer_replication"),
    (configured(trainable_token_indices=[1]), "trainable_token_indices"),
    (configured(something_new={"a": 1}), "something_new"),
    (configured(init_lora_weights="pissa"), "'pissa' changes the base"),
    (configured(init_lora_weights="olora"), "'olora' changes the base"),
    (retensored(lambda t: t.pop(f"{Q}.lora_A.weight")), "has magnitude, up where"),
    (retensored(lambda t: t.update({f"{Q}.lora_A.weight": np.ones((3, 64), np.float32)})), "not of rank 4"),
    (retensored(lambda t: t.update({f"{Q}.lora_A.weight": np.ones((4, 96), np.float32)})), r"the base has \(128, 64\)"),
    (retensored(lambda t: t.update({f"{Q}.lora_magnitude_vector": np.ones(64, np.float32)})), "magnitudes for 128"),
    (retensored(lambda t: t.update({f"{Q}.extra.weight": np.ones(4, np.float32)})), "no part of a LoRA"),
    (
        retensored(lambda t: [t.update({n.replace("layers.0", "layers.7"): t.pop(n)}) for n in list(t) if Q in n]),
        "the base has none",
    ),
    (
        retensored(lambda t: [t.update({n.replace("q_proj", "qkv_proj"): t.pop(n)}) for n in list(t) if Q in n]),
        "no module 'model.layers.0.self_attn.qkv_proj'",
    ),
    (lambda adapter: (adapter / "adapter_config.json").unlink(), "no such file"),
    (lambda adapter: (adapter / "adapter_model.safetensors").unlink(), "no such file"),
    (lambda adapter: (adapter / "adapter_config.json").write_text("["), "not JSON"),
]


@pytest.mark.parametrize(("damage", "message"), REFUSED)
def test_unfit_adapter_is_refused(
    tiny: Path, dora: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    adapter = shutil.copytree(dora, tmp_path / "adapter")
    damage(adapter)
    with pytest.raises(BaseModelError, match=message):
        weave.weave(tiny, adapter, tmp_path / "woven.gguf", "f32")
    assert not (tmp_path / "woven.gguf").exists()


@pytest.fixture
def base(tiny: Path) -> Base:
    files = {
        kind: BaseFile(name, (tiny / name).stat().st_size, digest(tiny / name), name)
        for kind, name in (("weights", "model.safetensors"), ("config", "config.json"), ("tokenizer", "tokenizer.json"))
    }
    manifest = BaseManifest(
        "tiny", "qwen3", "pointers", 512, {}, ("<e>",), "MIT", files["tokenizer"].sha256, 9, files
    )  # fmt: skip
    return Base(manifest, tiny / "base-tiny.json")


def test_woven_is_cached_by_what_went_in(base: Base, dora: Path, tmp_path: Path) -> None:
    first = weave.woven(base, dora, base.manifest.digest, "f16")
    stamp = first.stat().st_mtime_ns
    assert weave.woven(base, dora, base.manifest.digest, "f16") == first
    assert first.stat().st_mtime_ns == stamp
    assert weave.woven(base, dora, base.manifest.digest, "q8_0") != first
    other = shutil.copytree(dora, tmp_path / "adapter")
    configured(lora_alpha=16)(other)
    assert weave.woven(base, other, base.manifest.digest, "f16") not in (first, None)
    assert not list(first.parent.glob("*.part"))


def test_pruning_keeps_what_installed_adapters_need(base: Base, dora: Path, tmp_path: Path) -> None:
    digest = base.manifest.digest
    other = shutil.copytree(dora, tmp_path / "adapter")
    configured(lora_alpha=16)(other)
    kept = {weave.woven(base, dora, digest, quantisation) for quantisation in ("f16", "q8_0")}
    gone, weaving = (weave.woven(base, other, digest, quantisation) for quantisation in ("f16", "q8_0"))
    part = gone.with_name(f".{gone.name}.123.part")
    part.write_bytes(b"x" * 10)
    freed = gone.stat().st_size + 10
    with FileLock(weaving.with_suffix(".lock")):  # by another process
        assert weave.prune([(dora, digest)], [base]) == (2, freed)
    assert set(gone.parent.iterdir()) - {path.with_suffix(".lock") for path in kept} == {
        *kept, weaving, weaving.with_suffix(".lock")
    }  # fmt: skip
    assert weave.woven(base, dora, digest, "f16") in kept
    # an adapter whose base is not here, or whose files are gone, needs nothing
    (other / "adapter_config.json").unlink()
    assert weave.prune([(dora, "0" * 64), (other, digest)], [base])[0] == 3
    assert list(gone.parent.iterdir()) == []
    assert weave.prune([(dora, digest)], [base]) == (0, 0)


def test_adapter_of_another_base_is_refused(base: Base, dora: Path) -> None:
    with pytest.raises(BaseModelError, match="trained on base 000000000000, tiny is"):
        weave.woven(base, dora, "0" * 64, "f16")


def test_changed_base_is_refused(base: Base, dora: Path) -> None:
    files = dict(base.manifest.files) | {"weights": replace(base.manifest.files["weights"], sha256="1" * 64)}
    changed = replace(base, manifest=replace(base.manifest, files=files))
    with pytest.raises(BaseModelError, match="differs from the size or sha256"):
        weave.woven(changed, dora, "1" * 64, "f16")
