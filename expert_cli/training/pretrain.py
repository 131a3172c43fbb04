"""Pre-train a base from scratch: tokenizer, model, one resumable run, and the files of a base.

The run is described by one manifest (``manifests/pretrain-nano.json``). The schedule is a function of the share of the
budget that is used, so a run stopped and resumed ends where an uninterrupted one would have.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

from expert_cli.conversation import Template, completion, render
from expert_cli.task import Example, Task
from expert_cli.training import layers

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pre-tokeniser of Qwen2, which llama.cpp knows as ``qwen2``: any other would be tokenised differently there."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one example; the completion begins at ``start``."""

    ids: np.ndarray
    start: int


def specials(settings: dict[str, Any]) -> list[str]:
    """The special tokens that a recipe names, ``{"numbered": {"c": 96}}`` written out as ``<c0>`` … ``<c95>``."""
    return [
        *settings["special"],
        *(f"<{letter}{n}>" for letter, count in settings["numbered"].items() for n in range(count)),
    ]


def train_tokenizer(texts: Iterator[str], vocabulary: int, special: Sequence[str]) -> Tokenizer:
    """A byte-level BPE tokenizer with Qwen2's pre-tokeniser; ``special`` tokens follow the learnt ones."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def encode(examples: Sequence[Example], tokenizer: Tokenizer, template: Template, limit: int) -> list[Encoded]:
    """Every example that fits ``limit`` tokens."""
    prompts = tokenizer.encode_batch_fast(
        [render(example.messages, template) for example in examples], add_special_tokens=False
    )
    answers = tokenizer.encode_batch_fast(
        [completion(example.completion, template) for example in examples], add_special_tokens=False
    )
    return [
        Encoded(np.array(prompt.ids + answer.ids, dtype=np.int32), len(prompt.ids))
        for prompt, answer in zip(prompts, answers, strict=True)
        if len(prompt.ids) + len(answer.ids) <= limit
    ]


def batches(data: Sequence[Encoded], budget: int, seed: int) -> Iterator[list[Encoded]]:
    """Endless batches of at most ``budget`` padded tokens, lengths bucketed, order a function of ``seed``."""
    epoch = 0
    while True:
        rng = random.Random(f"{seed}/{epoch}")
        order = list(range(len(data)))
        rng.shuffle(order)
        made: list[list[Encoded]] = []
        for start in range(0, len(order), 4096):
            block = sorted((data[index] for index in order[start : start + 4096]), key=lambda item: len(item.ids))
            batch: list[Encoded] = []
            for item in block:
                width = -(-len(item.ids) // 32) * 32
                if batch and width * (len(batch) + 1) > budget:
                    made.append(batch)
                    batch = []
                batch.append(item)
            if batch:
                made.append(batch)
        rng.shuffle(made)
        yield from made
        epoch += 1


def pad(batch: Sequence[Encoded], device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids [batch, width], positions of the predicting tokens in the flattened batch, their targets)."""
    width = -(-max(len(item.ids) for item in batch) // 32) * 32
    ids = np.zeros((len(batch), width), dtype=np.int64)
    places, targets = [], []
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = item.ids
        places.append(np.arange(item.start - 1, len(item.ids) - 1) + row * width)
        targets.append(item.ids[item.start :])
    flat, wanted = np.concatenate(places), np.concatenate(targets).astype(np.int64)
    return torch.from_numpy(ids).to(device), torch.from_numpy(flat).to(device), torch.from_numpy(wanted).to(device)


def build_model(shape: dict[str, Any], tokenizer: Tokenizer, end: str, start: str) -> Qwen3ForCausalLM:
    """A randomly initialised Qwen3 of ``shape``."""
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape["hidden_size"],
        intermediate_size=shape["intermediate_size"],
        num_hidden_layers=shape["num_hidden_layers"],
        num_attention_heads=shape["num_attention_heads"],
        num_key_value_heads=shape["num_key_value_heads"],
        head_dim=shape["head_dim"],
        max_position_embeddings=shape["context"],
        rope_parameters={"rope_type": "default", "rope_theta": shape["rope_theta"]},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.token_to_id(start),
        eos_token_id=tokenizer.token_to_id(end),
        pad_token_id=tokenizer.token_to_id("<pad>"),
    )
    return Qwen3ForCausalLM(config)


class Run:
    """One pre-training run in a folder: ``tokenizer.json``, ``data.npz``, ``state.pt``, ``log.jsonl``."""

    def __init__(self, recipe: dict[str, Any], task: Task, folder: Path, threads: int) -> None:
        self.recipe, self.task, self.folder = recipe, task, folder
        self.options: dict[str, Any] = recipe["training"]
        self.template = Template.parse(recipe["template"], "pretraining recipe")
        folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(threads)
        torch.manual_seed(self.options["seed"])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def prepare(self) -> None:
        """Build the tokenizer and the encoded data once."""
        file = self.folder / "data.npz"
        if file.exists():
            self._load()
            return
        started = time.monotonic()
        examples = list(
            self.task.examples(self.recipe["data"], surface=self.recipe["surface"], seed=self.options["seed"])
        )
        settings = self.recipe["tokenizer"]
        tokenizer = train_tokenizer(
            _plain(examples[: settings["examples"]]), settings["vocabulary"], specials(settings)
        )
        data = encode(examples, tokenizer, self.template, self.options["max_tokens"])
        tokenizer.save(str(self.folder / "tokenizer.json"))
        np.savez(
            file,
            ids=np.concatenate([item.ids for item in data]),
            lengths=np.array([len(item.ids) for item in data]),
            starts=np.array([item.start for item in data]),
        )
        self._note(event="data", examples=len(examples), kept=len(data), seconds=round(time.monotonic() - started))
        self._load()

    def _load(self) -> None:
        stored = np.load(self.folder / "data.npz")
        ends = np.cumsum(stored["lengths"])
        ids = stored["ids"]
        self.data = [
            Encoded(ids[end - length : end], int(start))
            for end, length, start in zip(ends, stored["lengths"], stored["starts"], strict=True)
        ]
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def _note(self, **values: object) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def train(self, told: Callable[[str], None] = lambda line: None) -> Qwen3ForCausalLM:
        """Train until the budget of minutes is used; resumes from ``state.pt``. ``told`` hears a line now and then."""
        options = self.options
        assistant_end = self.recipe["end"][0]
        model = build_model(self.recipe["model"], self.tokenizer, assistant_end, self.recipe["template"]["start"]).to(
            self.device
        )
        if self.device.type == "cpu":
            layers.install(model)
        optimizers = _optimizers(model, options)
        base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        step, used, tokens = 0, 0.0, 0
        state_file = self.folder / "state.pt"
        if state_file.exists():
            state = torch.load(state_file, map_location=self.device, weights_only=False)
            model.load_state_dict(state["model"])
            for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            step, used, tokens = state["step"], state["used"], state["tokens"]
        stream = batches(self.data, options["batch_tokens"], options["seed"])
        for _ in range(step):
            next(stream)
        budget, average, saved_at = options["minutes"] * 60.0, None, used
        model.train()
        while used < budget:
            began = time.monotonic()
            share = used / budget
            rate = min(1.0, (step + 1) / options["warmup_steps"]) * _cooled(share, options["final"])
            for optimizer, rates in zip(optimizers, base_rates, strict=True):
                for group, base in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"] = base * rate
            ids, places, targets = pad(next(stream), self.device)
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state.reshape(
                    -1, model.config.hidden_size
                )
                logits = model.lm_head(hidden[places])
            loss = torch.nn.functional.cross_entropy(logits.float(), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            step, tokens = step + 1, tokens + int(ids.numel())
            used += time.monotonic() - began
            average = loss.item() if average is None else 0.95 * average + 0.05 * loss.item()
            if step % 20 == 0:
                self._note(step=step, loss=round(average, 4), used=round(used), tokens=tokens, rate=round(rate, 4))
                told(
                    f"step {step}  loss {average:.3f}  {tokens / used:,.0f} tokens/s  {(budget - used) / 60:.0f} min left"
                )
            if used - saved_at > options["checkpoint_minutes"] * 60 or used >= budget:
                self._save(model, optimizers, step, used, tokens)
                saved_at = used
        return model

    def _save(
        self, model: Qwen3ForCausalLM, optimizers: Sequence[torch.optim.Optimizer], step: int, used: float, tokens: int
    ) -> None:
        partial = self.folder / "state.partial"
        torch.save(
            {
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "step": step,
                "used": used,
                "tokens": tokens,
            },
            partial,
        )
        partial.replace(self.folder / "state.pt")


def _plain(examples: Sequence[Example]) -> Iterator[str]:
    """What the tokenizer learns from: names and questions without their pointers."""
    for example in examples:
        for message in example.messages:
            yield re.sub(r"<\w+>", "", message.content)
        yield re.sub(r"<\w+>", "", example.completion)


def _cooled(share: float, final: float) -> float:
    """Constant for the first half of the budget, then a cosine down to ``final``."""
    if share < 0.4:
        return 1.0
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (share - 0.4) / 0.6))


def _optimizers(model: Qwen3ForCausalLM, options: dict[str, Any]) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for embeddings and norms."""
    matrices = [
        parameter for name, parameter in model.named_parameters() if parameter.dim() == 2 and "embed" not in name
    ]
    embeddings = [parameter for name, parameter in model.named_parameters() if parameter.dim() == 2 and "embed" in name]
    norms = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    return [
        torch.optim.Muon(
            matrices,
            lr=options["learning_rate"],
            weight_decay=options["weight_decay"],
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [{"params": embeddings, "weight_decay": 0.0}, {"params": norms, "weight_decay": 0.0}],
            lr=options["embedding_learning_rate"],
            betas=(0.9, 0.97),
        ),
    ]
