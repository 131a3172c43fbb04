"""Pre-train a base from scratch: tokenizer, model, one resumable run, and the files of a base.

The run is described by one recipe (``manifests/pretrain-nano.json``). The schedule is a function of the share of the
budget of minutes that is used; what is trained in a step is a function of the step. A stopped run goes on from its last
save.
"""

from __future__ import annotations

import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

from expert_cli.conversation import Template, completion, render
from expert_cli.errors import UsageError
from expert_cli.task import Example, Task
from expert_cli.training import layers

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pre-tokeniser of Qwen2, which llama.cpp knows as ``qwen2``: any other would be tokenised differently there."""

FIXED = ("surface", "template", "end", "tokenizer", "model", "data")
FIXED_OPTIONS = ("seed", "batch_tokens", "max_tokens")
"""Parts of a recipe, and of its ``training``, that cannot change while a run is resumed."""


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


@dataclass
class Progress:
    """How far a run is: optimizer steps, seconds of the budget that are used, tokens with padding."""

    step: int = 0
    used: float = 0.0
    tokens: int = 0


class Run:
    """One pre-training run in a folder: ``recipe.json``, ``tokenizer.json``, ``data.npz``, ``state.pt``, ``log.jsonl``.

    Raises:
        UsageError: the folder holds a run of another recipe.
    """

    def __init__(self, recipe: dict[str, Any], task: Task, folder: Path, threads: int) -> None:
        self.recipe, self.task, self.folder = recipe, task, folder
        self.options: dict[str, Any] = recipe["training"]
        self.template = Template.parse(recipe["template"], "pretraining recipe")
        folder.mkdir(parents=True, exist_ok=True)
        self._claim()
        torch.set_num_threads(threads)
        torch.manual_seed(self.options["seed"])
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def _claim(self) -> None:
        """Write the recipe down, or see that the run so far had the same; how long it trains may change."""
        file = self.folder / "recipe.json"
        if file.exists():
            begun = json.loads(file.read_text(encoding="utf-8"))
            other = [key for key in FIXED if begun[key] != self.recipe[key]]
            other += [key for key in FIXED_OPTIONS if begun["training"][key] != self.options[key]]
            if other:
                raise UsageError(
                    f"{self.folder} holds a run with another {', '.join(other)}; "
                    "give another --out, or delete that folder"
                )
        file.write_text(json.dumps(self.recipe, indent=1) + "\n", encoding="utf-8")

    def prepare(self) -> None:
        """Build the tokenizer and the encoded data once."""
        file = self.folder / "data.npz"
        if not file.exists():
            self._encode(file)
        stored = np.load(file)
        ends = np.cumsum(stored["lengths"])
        ids = stored["ids"]
        self.data = [
            Encoded(ids[end - length : end], int(start))
            for end, length, start in zip(ends, stored["lengths"], stored["starts"], strict=True)
        ]
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    def _encode(self, file: Path) -> None:
        started = time.monotonic()
        examples = list(
            self.task.examples(self.recipe["data"], surface=self.recipe["surface"], seed=self.options["seed"])
        )
        settings = self.recipe["tokenizer"]
        tokenizer = train_tokenizer(
            _plain(examples[: settings["examples"]]), settings["vocabulary"], specials(settings)
        )
        data = encode(examples, tokenizer, self.template, self.options["max_tokens"])
        if not data:
            raise UsageError(
                f"none of {len(examples)} examples fits max_tokens = {self.options['max_tokens']}; "
                "raise it, or name other data"
            )
        tokenizer.save(str(self.folder / "tokenizer.json"))
        partial = self.folder / "data.partial.npz"
        np.savez(
            partial,
            ids=np.concatenate([item.ids for item in data]),
            lengths=np.array([len(item.ids) for item in data]),
            starts=np.array([item.start for item in data]),
        )
        partial.replace(file)
        self._note(event="data", examples=len(examples), kept=len(data), seconds=round(time.monotonic() - started))

    def _note(self, **values: object) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")

    def train(
        self, told: Callable[[str], None] = lambda line: None, clock: Callable[[], float] = time.monotonic
    ) -> Qwen3ForCausalLM:
        """Train until the budget is used, from ``state.pt`` where there is one.

        Args:
            told: hears a line now and then.
            clock: seconds; read before and after every step.
        """
        model = build_model(self.recipe["model"], self.tokenizer, self.recipe["end"][0], self.template.start)
        model.to(self.device)
        if self.device.type == "cpu":
            layers.install(model)
        optimizers = _optimizers(model, self.options)
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
        done = self._resume(model, optimizers)
        stream = batches(self.data, self.options["batch_tokens"], self.options["seed"])
        for _ in range(done.step):
            next(stream)
        budget, average, saved_at = self.options["minutes"] * 60.0, None, done.used
        model.train()
        while done.used < budget:
            began = clock()
            rate = min(1.0, (done.step + 1) / self.options["warmup_steps"])
            rate *= _cooled(done.used / budget, self.options["final"])
            for optimizer, bases in zip(optimizers, rates, strict=True):
                for group, base in zip(optimizer.param_groups, bases, strict=True):
                    group["lr"] = base * rate
            loss, tokens = self._step(model, optimizers, next(stream))
            done.step, done.tokens, done.used = done.step + 1, done.tokens + tokens, done.used + clock() - began
            average = loss if average is None else 0.95 * average + 0.05 * loss
            if done.step % 20 == 0 or done.used >= budget:
                self._note(
                    step=done.step, loss=round(average, 4), used=round(done.used), tokens=done.tokens,
                    rate=round(rate, 4),
                )  # fmt: skip
                pace, left = done.tokens / done.used, (budget - done.used) / 60
                told(f"step {done.step}  loss {average:.3f}  {pace:,.0f} tokens/s  {left:.0f} min left")
            if done.used - saved_at > self.options["checkpoint_minutes"] * 60 or done.used >= budget:
                self._save(model, optimizers, done)
                saved_at = done.used
        return model

    def _step(
        self, model: Qwen3ForCausalLM, optimizers: Sequence[torch.optim.Optimizer], batch: Sequence[Encoded]
    ) -> tuple[float, int]:
        """One optimizer step; its loss and how many tokens it took, padding included."""
        ids, places, targets = pad(batch, self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16):
            hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state.reshape(-1, model.config.hidden_size)
            logits = model.lm_head(hidden[places])
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item(), int(ids.numel())

    def _resume(self, model: Qwen3ForCausalLM, optimizers: Sequence[torch.optim.Optimizer]) -> Progress:
        file = self.folder / "state.pt"
        if not file.exists():
            return Progress()
        state = torch.load(file, map_location=self.device, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        return Progress(state["step"], state["used"], state["tokens"])

    def _save(self, model: Qwen3ForCausalLM, optimizers: Sequence[torch.optim.Optimizer], done: Progress) -> None:
        partial = self.folder / "state.partial"
        states = [optimizer.state_dict() for optimizer in optimizers]
        torch.save({"model": model.state_dict(), "optimizers": states, **asdict(done)}, partial)
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
