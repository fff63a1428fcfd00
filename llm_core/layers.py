"""The parts of a block besides attention: normalization, positions, the MLP.

Functions of tensors first, the modules that hold their weights last. Statistics and angles are
kept in float32 whatever the dtype of the tensors. Chapter 2 draws the sinusoids, chapter 3 turns
the rotary pairs, chapter 4 derives normalization and the MLP.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from llm_core.config import GPTConfig, Layout, MLPKind, Norm, Rope, RopeScaling

# --- normalization ------------------------------------------------------------------------------


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Each vector with mean 0 and variance 1, then scaled and shifted: (..., D) -> (..., D).

    Mean and variance are taken in float32. Paper: Ba et al. (2016).
    """
    return F.layer_norm(x, weight.shape, weight.to(x.dtype), _like(bias, x), eps)


class _RMSNorm(torch.autograd.Function):
    """RMS norm with its gradient written out: half the time of the one that autograd puts together.

    With r = 1 / sqrt(mean x² + eps), n = x r and u = g w, the gradient for x is
    (u - n mean(u n)) r and that for w is the sum of g n.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, scale)
        return (wide * scale).to(x.dtype) * weight.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight, scale = ctx.saved_tensors
        normed, wide = x.float() * scale, grad.float()
        of_weight = (wide * normed).reshape(-1, len(weight)).sum(dim=0)
        wide = wide * weight
        along = (wide * normed).mean(dim=-1, keepdim=True)
        of_x = wide.sub_(normed.mul_(along)).mul_(scale)
        return of_x.to(x.dtype), of_weight.to(weight.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Each vector divided by the root of its mean square, then scaled: (..., D) -> (..., D).

    The mean square is taken in float32. The gradient can be taken once, not differentiated again.
    Paper: Zhang and Sennrich (2019).
    """
    apply: Any = _RMSNorm.apply
    normed: Tensor = apply(x, weight, eps)
    return normed


def _like(tensor: Tensor | None, x: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(x.dtype)


# --- positions ----------------------------------------------------------------------------------


def sinusoidal_positions(positions: Tensor, d_model: int) -> Tensor:
    """Sines and cosines of falling frequency, in turn: (...) int64 -> (..., D) float32, D even.

    Paper: Vaswani et al. (2017), section 3.5.
    """
    frequencies = _on(_frequencies(10_000.0, d_model), positions)
    angles = positions[..., None].float() * frequencies  # (..., D/2)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def rope_table(positions: Tensor, head_dim: int, rope: Rope) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every pair's angle at every position: (...) int64 -> two (..., R/2) fp32.

    R is ``rope.rotary_dim(head_dim)``. Made once for a pass and used by every layer.
    """
    frequencies, amplitude = rope_frequencies(rope, head_dim)
    angles = positions[..., None].float() * _on(frequencies, positions)
    return angles.cos() * amplitude, angles.sin() * amplitude


def rotate(x: Tensor, cos: Tensor, sin: Tensor, layout: Layout = "half") -> Tensor:
    """Turn the pairs of each head by their angles: x (..., H, T, C) -> like x.

    ``cos`` and ``sin`` are (T, R/2), or (B, T, R/2). The first R entries turn, the others pass.
    Computed in float32, returned in the dtype of ``x``. Paper: Su et al. (2021).
    """
    rotary_dim = 2 * cos.shape[-1]
    if cos.dim() > 2:  # one table a sequence: (B, T, R/2) -> (B, 1, T, R/2)
        cos, sin = cos.unsqueeze(-3), sin.unsqueeze(-3)
    turning = x[..., :rotary_dim].float()
    if layout == "half":
        a, b = turning.chunk(2, dim=-1)
        turned = torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
    else:
        a, b = turning[..., 0::2], turning[..., 1::2]
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
    if rotary_dim == x.shape[-1]:
        return turned.to(x.dtype)
    return torch.cat((turned.to(x.dtype), x[..., rotary_dim:]), dim=-1)


def rope(
    x: Tensor,
    positions: Tensor,
    theta: float = 10_000.0,
    layout: Layout = "half",
    scaling: RopeScaling | None = None,
    rotary_fraction: float = 1.0,
) -> Tensor:
    """Rotary positions in one call: x (..., H, T, C), positions (T,) or (B, T) -> like x.

    A layer uses ``rope_table`` and ``rotate``, which share the angles between layers.
    """
    settings = Rope(theta, layout, rotary_fraction, scaling)
    cos, sin = rope_table(positions, x.shape[-1], settings)
    return rotate(x, cos, sin, layout)


@lru_cache(maxsize=64)
def rope_frequencies(rope: Rope, head_dim: int) -> tuple[tuple[float, ...], float]:
    """Radians each of the R/2 pairs turns per position, and the factor on cosine and sine."""
    rotary_dim, scaling = rope.rotary_dim(head_dim), rope.scaling
    frequencies = _frequencies(rope.theta, rotary_dim)
    if scaling is None:
        return frequencies, 1.0
    if scaling.kind == "linear":
        return tuple(f / scaling.factor for f in frequencies), 1.0
    if scaling.kind == "llama3":
        return tuple(_llama3_frequency(f, scaling) for f in frequencies), 1.0
    keep = _yarn_shares(rope.theta, rotary_dim, scaling)
    mixed = (f * k + f / scaling.factor * (1 - k) for f, k in zip(frequencies, keep, strict=True))
    amplitude = scaling.attention_factor
    return tuple(mixed), 0.1 * math.log(scaling.factor) + 1 if amplitude is None else amplitude


def _frequencies(theta: float, width: int) -> tuple[float, ...]:
    """``theta ** (-2i / width)`` for each pair i."""
    return tuple(theta ** (-i / width) for i in range(0, width, 2))


def _on(values: tuple[float, ...], where: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=where.device)


def _llama3_frequency(frequency: float, scaling: RopeScaling) -> float:
    turns = scaling.original_context_length * frequency / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    keep = min(1.0, max(0.0, (turns - low) / (high - low)))
    return frequency * keep + frequency / scaling.factor * (1 - keep)


def _yarn_shares(theta: float, rotary_dim: int, scaling: RopeScaling) -> list[float]:
    """For each pair, how much of its unscaled frequency YaRN keeps, from 1 (fast) to 0 (slow)."""

    def pair_that_turns(times: float) -> float:
        ratio = scaling.original_context_length / (times * 2 * math.pi)
        return rotary_dim * math.log(ratio) / (2 * math.log(theta))

    low, high = pair_that_turns(scaling.beta_fast), pair_that_turns(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    width = high - low or 0.001  # a step where both fall on one pair
    return [1 - min(1.0, max(0.0, (i - low) / width)) for i in range(rotary_dim // 2)]


# --- modules ------------------------------------------------------------------------------------


class Normalization(nn.Module):
    """Layer norm or RMS norm over the last axis, by ``norm.kind``: (..., width) -> (..., width)."""

    def __init__(self, width: int, norm: Norm, bias: bool) -> None:
        super().__init__()
        self.kind, self.eps = norm.kind, norm.eps
        self.weight = nn.Parameter(torch.ones(width))
        has_bias = bias and norm.kind == "layernorm"
        self.bias = nn.Parameter(torch.zeros(width)) if has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalize every vector by itself."""
        if self.kind == "rmsnorm":
            return rms_norm(x, self.weight, self.eps)
        return layer_norm(x, self.weight, self.bias, self.eps)


def activate(x: Tensor, kind: MLPKind) -> Tensor:
    """The nonlinearity of an MLP: (..., d_ff) -> (..., d_ff).

    SwiGLU takes (..., 2 d_ff), the gate first.
    Papers: Hendrycks and Gimpel (2016) for GELU, Shazeer (2020) for SwiGLU.
    """
    if kind == "swiglu":
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate) * up
    return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")


class MLP(nn.Module):
    """Widen, bend, narrow, at every position by itself: (B, T, D) -> (B, T, D).

    For SwiGLU, ``down(silu(gate x) * (up x))``, the matrices of gate and up lie in ``up``, one
    above the other, so that one product computes both.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.kind = config.mlp
        bias, n_up = config.bias in ("all", "mlp"), 2 if config.mlp == "swiglu" else 1
        self.up = nn.Linear(config.d_model, n_up * config.d_ff, bias=bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the MLP at every position."""
        y: Tensor = self.down(activate(self.up(x), self.kind))
        return y
