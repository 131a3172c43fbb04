"""Layers with forward and backward passes of their own, for CPUs, where PyTorch's and PEFT's are slow at our sizes.

Measured on one thread, bf16, 8192 tokens in rows of 128, a Qwen3 of 5M parameters: attention 1.37x against SDPA's
flash kernel, RMSNorm 1.12x, DoRA 1.27x against PEFT (see ``benchmarks/train_speed.py``). Values are equal to theirs up
to rounding; parameters keep their names, so what PEFT saves and loads does not change.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

ATTENTION = "expert_causal"
"""The name under which :func:`causal_attention` is known to transformers."""


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What matrix products run in: autocast's type where it is on, else the tensor's own."""
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return tensor.dtype


class _Attention(torch.autograd.Function):  # type: ignore[misc]
    """Softmax of ``scale`` x q kT under a causal mask, times v; q is (n, group x length, d), k and v (n, length, d)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        length, group = k.shape[1], q.shape[1] // k.shape[1]
        mask = torch.full((length, length), float("-inf"), dtype=q.dtype).triu(1).repeat(group, 1)
        weights = torch.softmax(torch.baddbmm(mask, q, k.transpose(1, 2), alpha=scale), -1)
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale = scale
        return torch.bmm(weights, v)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, weights = ctx.saved_tensors
        inner = torch.bmm(slope, v.transpose(1, 2))
        inner = torch._softmax_backward_data(inner, weights, -1, weights.dtype).mul_(ctx.scale)
        return torch.bmm(inner, k), torch.bmm(inner.transpose(1, 2), q), torch.bmm(weights.transpose(1, 2), slope), None


def causal_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, scaling: float, **_: Any
) -> tuple[Tensor, None]:
    """Attention in transformers' calling convention: (rows, heads, length, d) to (rows, length, heads, d).

    There is no mask but the causal one: rows must be padded on the right and start at position 0.
    """
    rows, heads, length, size = query.shape
    flat = (rows * key.shape[1], -1, size)
    kind = compute_dtype(value)
    with torch.autocast("cpu", enabled=False):
        parts = (part.to(kind).reshape(flat) for part in (query, key, value))
        out: Tensor = _Attention.apply(*parts, scaling)
    return out.view(rows, heads, length, size).transpose(1, 2).contiguous(), None


class _Norm(torch.autograd.Function):  # type: ignore[misc]
    """RMSNorm over the last axis, computed in f32 and returned as ``kind``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, kind: torch.dtype) -> Tensor:
        wide = x.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).mul_(weight).to(kind)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        wide = slope.float()
        to_weight = (wide * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        inner = wide * weight
        mean = (inner * normed).mean(-1, keepdim=True)
        return inner.sub_(normed.mul_(mean)).mul_(scale).to(x.dtype), to_weight, None, None


class Norm(nn.Module):  # type: ignore[misc]
    """Stands in for transformers' Qwen3RMSNorm and shares its weight."""

    def __init__(self, stock: Qwen3RMSNorm) -> None:
        super().__init__()
        self.weight = stock.weight
        self.eps = stock.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        """(..., n) to (..., n)."""
        normed: Tensor = _Norm.apply(x, self.weight, self.eps, compute_dtype(x))
        return normed


class _Dora(torch.autograd.Function):  # type: ignore[misc]
    """x W'T with W' = m / |W + s BA| x (W + s BA), row norms held constant in the backward pass as in the paper."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, magnitude: Tensor, scale: float, kind: torch.dtype
    ) -> Tensor:
        x = x.to(kind)
        direction = torch.addmm(weight, b, a, alpha=scale)
        norm = torch.linalg.vector_norm(direction, dim=1)
        ctx.save_for_backward(x, weight, a, b, magnitude, norm)
        ctx.scale = scale
        return functional.linear(x, direction.mul_((magnitude / norm)[:, None]).to(kind))

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, Tensor, None, None]:
        # The merged weight is computed again: keeping it would cost the size of the base in memory.
        x, weight, a, b, magnitude, norm = ctx.saved_tensors
        gain = (magnitude / norm)[:, None]
        direction = torch.addmm(weight, b, a, alpha=ctx.scale)
        full = (slope.flatten(0, -2).t() @ x.flatten(0, -2)).float()
        to_magnitude = (full * direction).sum(1).div_(norm)
        to_x = slope @ direction.mul_(gain).to(slope.dtype) if ctx.needs_input_grad[0] else None
        full.mul_(gain * ctx.scale)
        return to_x, None, b.t() @ full, full @ a.t(), to_magnitude, None, None


class DoraLinear(LoraLinear):  # type: ignore[misc]
    """PEFT's DoRA layer with one product in place of four; for f32 weights and no dropout."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(..., in) to (..., out)."""
        (name,) = self.active_adapters
        base = self.get_base_layer()
        kind = compute_dtype(x)
        with torch.autocast("cpu", enabled=False):
            out: Tensor = _Dora.apply(
                x,
                base.weight,
                self.lora_A[name].weight,
                self.lora_B[name].weight,
                self.lora_magnitude_vector[name].weight,
                self.scaling[name],
                kind,
            )
        return out if base.bias is None else out + base.bias


def install(model: nn.Module) -> None:
    """Give a Qwen3 model of transformers the attention and norms of this module, in place."""
    AttentionInterface.register(ATTENTION, causal_attention)
    model.set_attn_implementation(ATTENTION)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, Qwen3RMSNorm):
                setattr(parent, name, Norm(child))
