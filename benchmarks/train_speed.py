"""Seconds of CPU for a training step: frozen forward, full fine-tuning and DoRA, with stock layers and with ours.

    python benchmarks/train_speed.py [--threads 1] [--length 128] [--rows 64] [--steps 4] [--json]

The model is a random Qwen3 of the nano base's shape (hidden 256, intermediate 704, 6 layers, 4 heads over 2 key-value
heads of 64, vocabulary 4096), bf16 autocast; the loss stands on the last 24 tokens of each row. Best step of each.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable

import peft
import torch
from torch import nn
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from expert_cli.manifest import Adapter
from expert_cli.training import layers, sft

COMPLETION = 24
ADAPTER = Adapter("dora", 12, 24, 0.0, ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"))


def model() -> Qwen3ForCausalLM:
    """A random model, with transformers' own layers."""
    torch.manual_seed(0)
    return Qwen3ForCausalLM(
        Qwen3Config(
            hidden_size=256, intermediate_size=704, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
            head_dim=64, vocab_size=4096, tie_word_embeddings=True, max_position_embeddings=1024,
        )
    )  # fmt: skip


def ours() -> Qwen3ForCausalLM:
    """The same model with the layers of ``expert_cli.training.layers``."""
    made = model()
    layers.install(made)
    return made


def stock_dora(made: nn.Module) -> nn.Module:
    """PEFT's own DoRA."""
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", use_dora=True, r=ADAPTER.r, lora_alpha=ADAPTER.alpha,
        target_modules=list(ADAPTER.target_modules),
    )  # fmt: skip
    return peft.get_peft_model(made, config)


def frozen(made: nn.Module) -> nn.Module:
    """Nothing to learn: the forward pass alone."""
    return made.requires_grad_(False)


VARIANTS: dict[str, Callable[[], nn.Module]] = {
    "frozen forward, stock": lambda: frozen(model()),
    "frozen forward, ours": lambda: frozen(ours()),
    "full fine-tuning, stock": model,
    "full fine-tuning, ours": ours,
    "DoRA, stock layers, PEFT": lambda: stock_dora(model()),
    "DoRA, our layers, PEFT": lambda: stock_dora(ours()),
    "DoRA, ours": lambda: sft.attach(ours(), ADAPTER, "nano"),
}


def step_seconds(made: nn.Module, rows: int, length: int, steps: int) -> float:
    """CPU seconds of the fastest of ``steps`` optimizer steps."""
    causal = made.get_base_model() if isinstance(made, peft.PeftModel) else made
    tokens = torch.randint(0, 4096, (rows, length))
    row = torch.arange(length - COMPLETION - 1, length - 1)
    at = (torch.arange(rows)[:, None] * length + row).flatten()
    trained = [parameter for parameter in made.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None
    taken = []
    for _ in range(steps):
        began = time.process_time()
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(bool(trained)):
            hidden = causal.model(input_ids=tokens, use_cache=False).last_hidden_state
            logits = causal.lm_head(hidden.flatten(0, 1).index_select(0, at))
            loss = functional.cross_entropy(logits.float(), tokens.flatten()[at + 1])
        if optimizer is not None:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        taken.append(time.process_time() - began)
    return min(taken)


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("threads", 1), ("length", 128), ("rows", 64), ("steps", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
    found = {name: step_seconds(make(), given.rows, given.length, given.steps) for name, make in VARIANTS.items()}
    if given.json:
        print(json.dumps({"tokens": given.rows * given.length, "cpu_seconds": found}))
        return
    full = found["full fine-tuning, stock"]
    print(f"{'variant':28} {'CPU s/step':>10} {'tok/CPU-s':>10} {'of full':>8}")
    for name, seconds in found.items():
        print(f"{name:28} {seconds:10.3f} {given.rows * given.length / seconds:10,.0f} {seconds / full:8.2f}")


if __name__ == "__main__":
    main()
