"""Supervised fine-tuning of an adapter: a plain loop, loss on the completion alone, exact resume.

corpus  = data.read(task, base, manifest.training, tokenizer)
trainer = Trainer(manifest, base, folder, corpus)
for step in trainer.run(out): ...
"""

from __future__ import annotations

import json
import math
import platform
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import peft
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from expert_cli import __version__
from expert_cli.errors import BaseModelError, UsageError
from expert_cli.manifest import Adapter, BaseManifest, ExpertManifest, Training
from expert_cli.training import checkpoints, data, layers
from expert_cli.training.checkpoints import Checkpoint
from expert_cli.training.data import Batch, Corpus, Cursor

BETAS = (0.9, 0.98)
CLIP = 1.0
FLOOR = 0.1
"""The share of the learning rate that remains at the last step."""


@dataclass(frozen=True)
class Step:
    """One optimizer step: mean ``loss`` of a completion token, ``tokens`` with padding, ``seconds`` it took."""

    step: int
    steps: int
    loss: float
    learning_rate: float
    tokens: int
    seconds: float
    checkpoint: Checkpoint | None = None


class Trainer:
    """A base with an adapter that learns from a corpus.

    ``precision`` is ``bf16`` (autocast over f32 weights) or ``f32``. The run is a pure function of manifest, base,
    corpus, precision, thread count and library versions.

    Raises:
        BaseModelError: the folder is no model, or not the base that its manifest describes.
    """

    def __init__(
        self,
        manifest: ExpertManifest,
        base: BaseManifest,
        folder: Path,
        corpus: Corpus,
        *,
        precision: str = "bf16",
        device: str = "",
    ) -> None:
        self.manifest = manifest
        self.base = base
        self.corpus = corpus
        self.precision = precision
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.manual_seed(manifest.training.seed)
        self.model = attach(open_base(folder, self.device), manifest.adapter, base.id)
        self.optimizer = optimizer(self.model, manifest.training)
        self.cursor = Cursor()
        self.step = 0
        self.losses: list[float] = []

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the weights; a checkpoint is resumed by an equal identity alone."""
        training = asdict(self.manifest.training)
        for neutral in ("data", "evaluation", "checkpoint_every"):
            del training[neutral]
        return {
            "data": self.corpus.digest,
            "base": self.base.digest,
            "adapter": asdict(self.manifest.adapter),
            "training": training,
            "precision": self.precision,
        }

    def run(self, out: Path, *, resume: bool = True, stop: Callable[[], bool] = lambda: False) -> Iterator[Step]:
        """Train to the last step, yielding after each; checkpoints are in ``out`` when they are yielded.

        ``stop`` is asked after each step: when true, a checkpoint is written and the run ends early.

        Raises:
            UsageError: ``out`` holds a run of another identity, or the loss is no longer finite.
        """
        checkpoints.sweep(out)
        if not resume:
            checkpoints.discard(out)
        elif last := checkpoints.resumable(out, self.identity):
            self.restore(last)
        training = self.manifest.training
        batches = data.walk(self.corpus, training.batch_tokens, seed=training.seed, cursor=self.cursor)
        self.model.train()
        while self.step < training.steps:
            batch, self.cursor = next(batches)
            started = perf_counter()
            rate = schedule(self.step, training)
            loss = self.learn(batch, rate)
            self.step += 1
            self.losses.append(loss)
            stopped = stop()
            due = stopped or self.step == training.steps or self.step % training.checkpoint_every == 0
            took = perf_counter() - started
            checkpoint = self.save(out) if due else None
            yield Step(self.step, training.steps, loss, rate, batch.tokens.size, took, checkpoint)
            if stopped:
                return

    def learn(self, batch: Batch, rate: float) -> float:
        """One optimizer step at learning rate ``rate``; returns the mean loss of a completion token.

        Raises:
            UsageError: the loss is no longer finite.
        """
        value = self.loss(batch)
        loss = float(value.detach())
        if not math.isfinite(loss):
            raise UsageError(f"the loss became {loss} at step {self.step + 1}; lower training.learning_rate")
        value.backward()
        nn.utils.clip_grad_norm_(self.trained, CLIP)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy over the completion's tokens; the vocabulary is projected at their positions alone."""
        parts = (batch.tokens, batch.at, batch.targets)
        tokens, at, targets = (torch.from_numpy(part).to(self.device) for part in parts)
        causal = self.model.get_base_model()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            hidden = causal.model(input_ids=tokens, use_cache=False).last_hidden_state
            logits = causal.lm_head(hidden.flatten(0, 1).index_select(0, at))
        return functional.cross_entropy(logits.float(), targets)

    @property
    def trained(self) -> list[nn.Parameter]:
        """The adapter's parameters."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def save(self, out: Path) -> Checkpoint:
        """Write a checkpoint of this moment and begin a new window for the mean loss."""
        mean = sum(self.losses) / len(self.losses)
        self.losses = []
        return checkpoints.write(out, self.step, lambda folder: self._fill(folder, mean))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take up a checkpoint: adapter, optimizer, random numbers and data cursor."""
        weights = peft.load_peft_weights(str(checkpoint.folder), device="cpu")
        peft.set_peft_model_state_dict(self.model, weights)
        state = torch.load(checkpoint.folder / checkpoints.STATE, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"])
        self.cursor = Cursor(**state["cursor"])
        self.step = checkpoint.step
        self.losses = []

    def _fill(self, folder: Path, loss: float) -> None:
        with warnings.catch_warnings():
            # PEFT cannot look up the base on the hub, which it need not: no embedding is trained.
            warnings.filterwarnings("ignore", message="Could not find a config file", category=UserWarning)
            self.model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink()
        path = folder / checkpoints.CONFIG
        config = json.loads(path.read_text(encoding="utf-8"))
        config["target_modules"] = sorted(config["target_modules"])
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
        state = {
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cursor": asdict(self.cursor),
        }
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state()
        torch.save(state, folder / checkpoints.STATE)
        run = {"step": self.step, "loss": loss, "seed": self.manifest.training.seed, "identity": self.identity}
        run |= {"manifest": self.manifest.as_dict(), "examples": self.corpus.examples, "too_long": self.corpus.too_long}
        run |= {"threads": torch.get_num_threads(), "device": self.device.type, "versions": versions()}
        checkpoints.write_json(folder / checkpoints.RUN, run)


def open_base(folder: Path, device: torch.device) -> nn.Module:
    """The causal language model in ``folder``, in f32, frozen.

    Raises:
        BaseModelError: there is none.
    """
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise BaseModelError(f"{folder} has no {name}; give the folder of a base in safetensors form")
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=torch.float32, local_files_only=True, attn_implementation="sdpa"
    )
    model.requires_grad_(False)
    if device.type == "cpu" and model.config.model_type == "qwen3":
        layers.install(model)
    return model.to(device)


def attach(model: nn.Module, adapter: Adapter, base: str) -> nn.Module:
    """``model`` with a new adapter by PEFT; its random numbers come from torch's generator.

    Raises:
        BaseModelError: a target module does not exist in the model.
    """
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    if missing := [target for target in adapter.target_modules if target not in names]:
        raise BaseModelError(f"base {base} has no module {', '.join(missing)}; correct adapter.target_modules")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        use_dora=adapter.type == "dora",
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=list(adapter.target_modules),
    )
    if adapter.type == "dora" and not adapter.dropout and next(model.parameters()).device.type == "cpu":
        config._register_custom_module({nn.Linear: layers.DoraLinear})
    with warnings.catch_warnings():
        # PEFT asks transformers by a name that the latter has deprecated.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        attached = peft.get_peft_model(model, config)
    # PEFT names the folder that the model came from, a path of this machine.
    attached.peft_config["default"].base_model_name_or_path = base
    return attached


def optimizer(model: nn.Module, training: Training) -> torch.optim.AdamW:
    """AdamW over the adapter; magnitudes are not decayed."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    matrices = [parameter for _, parameter in named if parameter.ndim > 1]
    vectors = [parameter for _, parameter in named if parameter.ndim == 1]
    groups: list[dict[str, Any]] = [{"params": matrices}]
    if vectors:
        groups.append({"params": vectors, "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=training.learning_rate, betas=BETAS, weight_decay=training.weight_decay)


def schedule(step: int, training: Training) -> float:
    """The learning rate of step ``step`` (from 0): linear warm-up, then constant, linear or cosine to a tenth."""
    warm = max(1, round(training.warmup * training.steps))
    if step < warm:
        return training.learning_rate * (step + 1) / warm
    left = 1 - (step - warm) / max(1, training.steps - warm)
    shape = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[training.schedule]
    return training.learning_rate * (FLOOR + (1 - FLOOR) * shape)


def versions() -> Mapping[str, str]:
    """The libraries that decide what training computes."""
    libraries = {"torch": torch, "transformers": transformers, "peft": peft, "numpy": np}
    return {"expert-cli": __version__, "python": platform.python_version()} | {
        name: str(library.__version__) for name, library in libraries.items()
    }


def set_threads(count: int | None) -> None:
    """Use ``count`` CPU threads; None leaves PyTorch's choice."""
    if count is not None:
        torch.set_num_threads(count)
