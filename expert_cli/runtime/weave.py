"""Merge an adapter into its base as one GGUF file: llama.cpp knows no DoRA, so the sum is done here, in numpy.

V = W + s·B·A,  W' = V (LoRA) or m ⊙ V / ‖V‖ by rows (DoRA),  s = alpha / r, or alpha / √r (rank-stabilised)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from expert_cli import paths
from expert_cli.errors import BaseModelError
from expert_cli.runtime.bases import Base
from expert_cli.runtime.weights import Floats, Weights, digest

PREFIX = "base_model.model."
PARTS = {"lora_A.weight": "down", "lora_B.weight": "up", "lora_magnitude_vector": "magnitude"}

# What an adapter's configuration may say; anything else changes the sum or the base and is refused.
READ = {"peft_type", "r", "lora_alpha", "use_dora", "use_rslora"}
WITHOUT_EFFECT = {
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
}
PLAIN_START = (True, False, "gaussian", "orthogonal", "eva")
"""Values of ``init_lora_weights`` that leave the base as it was; others store the adapter against a changed base."""

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")

REVISION = "1"
"""Part of every cache key: change it when the same inputs would give other bytes."""


@dataclass(frozen=True)
class Delta:
    """What an adapter adds to one matrix: ``up`` (out, r) times ``down`` (r, in), and DoRA's row lengths (out,)."""

    down: Floats
    up: Floats
    scale: float
    magnitude: Floats | None

    def merge(self, weight: Floats) -> Floats:
        """The merged matrix."""
        merged = weight + np.float32(self.scale) * (self.up @ self.down)
        if self.magnitude is None:
            return merged
        lengths = np.linalg.norm(merged, axis=1)
        scaled: Floats = (self.magnitude / lengths)[:, None] * merged
        return scaled


def deltas(adapter: Path) -> dict[str, Delta]:
    """What a PEFT adapter folder adds, by GGUF tensor name.

    Raises:
        BaseModelError: it is damaged, or of a kind that cannot be merged exactly.
    """
    from expert_cli.runtime import qwen3  # 60 ms that a woven model in the cache does not need

    scale, rank, dora = _scale(adapter / "adapter_config.json")
    file = Weights(adapter / "adapter_model.safetensors")
    modules: dict[str, dict[str, Floats]] = {}
    for name in file:
        module, part = _split(file.path, name)
        modules.setdefault(module, {})[PARTS[part]] = file.read(name)
    wanted = set(PARTS.values()) - (set() if dora else {"magnitude"})
    found = {}
    for module, parts in modules.items():
        if parts.keys() != wanted:
            raise _unfit(adapter, f"{module} has {', '.join(sorted(parts))} where {', '.join(sorted(wanted))} belong")
        down, up, magnitude = parts["down"], parts["up"], parts.get("magnitude")
        if down.ndim != 2 or up.ndim != 2 or down.shape[0] != rank or up.shape[1] != rank:
            raise _unfit(adapter, f"{module} has shapes {up.shape} and {down.shape}, not of rank {rank}")
        if magnitude is not None and magnitude.shape != (up.shape[0],):
            raise _unfit(adapter, f"{module} has {magnitude.shape} magnitudes for {up.shape[0]} rows")
        found[qwen3.tensor_name(module)] = Delta(down, up, scale, magnitude)
    return found


def _unfit(adapter: Path, fault: str) -> BaseModelError:
    return BaseModelError(f"{adapter}: {fault}; train or install an adapter made for this base")


def _split(path: Path, name: str) -> tuple[str, str]:
    for part in PARTS:
        if name.startswith(PREFIX) and name.endswith(f".{part}"):
            return name[len(PREFIX) : -len(part) - 1], part
    raise _unfit(path, f"tensor {name} is no part of a LoRA or DoRA adapter")


def _scale(path: Path) -> tuple[float, int, bool]:
    """The scale s, the rank, and whether it is DoRA."""
    if not path.is_file():
        raise _unfit(path, "no such file")
    try:
        config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise _unfit(path, f"not JSON ({fault})") from fault
    match config:
        case {"peft_type": "LORA", "r": int(rank), "lora_alpha": int() | float() as alpha} if rank > 0:
            pass
        case _:
            raise _unfit(path, "not the configuration of a LoRA or DoRA adapter")
    _refuse_others(path, config)
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return scale, rank, bool(config.get("use_dora"))


def _refuse_others(path: Path, config: Mapping[str, Any]) -> None:
    neutral = {"bias": "none", "init_lora_weights": config.get("init_lora_weights", True)}
    if neutral["init_lora_weights"] not in PLAIN_START:
        raise _unfit(path, f"init_lora_weights {neutral['init_lora_weights']!r} changes the base")
    for key, value in config.items():
        if key not in READ | WITHOUT_EFFECT and value and value != neutral.get(key):
            raise _unfit(path, f"{key} = {value!r} cannot be merged exactly")


def weave(base: Path, adapter: Path, target: Path, quantisation: str) -> None:
    """Write the merged GGUF of a base (a Qwen3 folder, or a GGUF of 16 bits or more) and a PEFT adapter folder.

    Raises:
        BaseModelError: the adapter names a module that the base lacks, or differs from it in shape.
    """
    from expert_cli.runtime import gguf, qwen3

    contents = qwen3.contents(base) if base.is_dir() else gguf.read(base)
    changes = deltas(adapter)
    shapes = {tensor.name: tensor.shape for tensor in contents.tensors}
    for name, delta in changes.items():
        shape = (delta.up.shape[0], delta.down.shape[1])
        if shapes.get(name) != shape:
            raise _unfit(adapter, f"it changes {name} of shape {shape}, the base has {shapes.get(name, 'none')}")

    def change(name: str, weight: Floats) -> Floats:
        return changes[name].merge(weight) if name in changes else weight

    gguf.write(contents, target, quantisation, change)


def trained_on(adapter: Path) -> str:
    """The digest of the base that a checkpoint was trained on, from its run.json; empty where there is none."""
    path = adapter / "run.json"
    if not path.is_file():
        return ""
    try:
        match json.loads(path.read_text(encoding="utf-8")):
            case {"identity": {"base": str(digest)}}:
                return digest
    except ValueError as fault:
        raise _unfit(path, f"not JSON ({fault})") from fault
    return ""


def adapter_digest(adapter: Path) -> str:
    """The identity of an adapter folder: its weights and its configuration, in hexadecimal.

    Raises:
        BaseModelError: a file is missing.
    """
    return _key(digest(adapter / name) for name in ADAPTER)


def woven(base: Base, adapter: Path, adapter_base: str, quantisation: str) -> Path:
    """The cached merged GGUF for (base, adapter, quantisation), woven on first use.

    ``adapter_base`` is the digest of the base that the adapter was trained on.

    Raises:
        BaseModelError: that was another base, or the two do not fit.
    """
    if base.manifest.digest != adapter_base:
        raise BaseModelError(
            f"{adapter}: trained on base {adapter_base[:12]}, {base.manifest.id} is {base.manifest.digest[:12]}; "
            "install an expert made for this base"
        )
    target = _cache() / f"{_name(base, adapter_digest(adapter), quantisation)}.gguf"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_suffix(".lock")):
        if not target.is_file():
            for stale in target.parent.glob(f".{target.name}.*.part"):  # of a process that was killed
                stale.unlink()
            weave(base.folder(), adapter, target, quantisation)
    return target


def prune(adapters: Iterable[tuple[Path, str]], known: Iterable[Base]) -> tuple[int, int]:
    """Delete the woven files of all but these adapters on these bases; how many there were, and their bytes.

    ``adapters`` are folders, each with the digest of the base that it was trained on. What another process is weaving
    stays.
    """
    from expert_cli.runtime.gguf import QUANTISATIONS

    here = [(folder, trained) for folder, trained in adapters if all((folder / name).is_file() for name in ADAPTER)]
    digests = [(adapter_digest(folder), trained) for folder, trained in here]
    kept = {
        _name(base, adapter, quantisation)
        for base in known
        for adapter, trained in digests
        if trained == base.manifest.digest
        for quantisation in QUANTISATIONS
    }
    count, freed = 0, 0
    for name in {path.name.lstrip(".").partition(".")[0] for path in _cache().glob("*")} - kept:
        lock = FileLock(_cache() / f"{name}.lock")
        try:
            with lock.acquire(timeout=0):
                for path in (*_cache().glob(f"{name}.gguf"), *_cache().glob(f".{name}.gguf.*.part")):
                    count, freed = count + 1, freed + path.stat().st_size
                    path.unlink()
        except Timeout:
            continue
        Path(lock.lock_file).unlink(missing_ok=True)
    return count, freed


def _cache() -> Path:
    return paths.cache() / "woven"


def _name(base: Base, adapter: str, quantisation: str) -> str:
    return _key([base.manifest.digest, base.manifest.tokenizer_sha256, adapter, quantisation, REVISION])


def _key(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
