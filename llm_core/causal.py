"""Causal attention in bfloat16 on a CPU: PyTorch's forward pass, a backward pass of its own.

PyTorch's flash kernel for CPUs walks its backward pass in small tiles. Batched products over whole
blocks of queries keep the matrix units busy instead: forward and backward together take half the
time at 256 positions, two thirds at 512, as long at 1,024, and come as near to the exact gradient.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MOST_POSITIONS = 512  # beyond, PyTorch's tiles are as fast
BLOCK_QUERIES = 256
BLOCK_SEQUENCES = 16  # heads of sequences at a time: 16 x 256 x 256 numbers, twice, fit the cache


@lru_cache(maxsize=1)
def _has_bfloat16_products() -> bool:
    """Whether oneDNN, which does PyTorch's products on a CPU, has them in bfloat16 here."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def applies(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether ``causal_attention`` is made for these: bfloat16 on a CPU, a gradient, few positions.

    Products in bfloat16 must not be emulated; otherwise PyTorch's kernel is the better one.
    """
    return (
        q.dtype == k.dtype == v.dtype == torch.bfloat16
        and q.device.type == "cpu"
        and q.shape == k.shape == v.shape
        and 0 < q.shape[-2] <= MOST_POSITIONS
        and torch.is_grad_enabled()
        and (q.requires_grad or k.requires_grad or v.requires_grad)
        and _has_bfloat16_products()
    )


@lru_cache(maxsize=4)
def _future(n: int) -> Tensor:
    """(n, n) bfloat16, 0 where a query may attend and -inf after it."""
    return torch.full((n, n), -math.inf, dtype=torch.bfloat16).triu_(1)


def _probabilities(q: Tensor, k: Tensor, start: int) -> Tensor:
    """softmax(q kᵀ + M) of the queries from ``start`` on: (n, Tq, C), (n, Tk, C) -> (n, Tq, Tk)."""
    if start == 0:
        return torch.baddbmm(_future(q.shape[1]), q, k.mT).softmax(dim=-1)
    scores = torch.bmm(q, k.mT)
    scores[:, :, start:] += _future(q.shape[1])  # before ``start`` all is past
    return scores.softmax(dim=-1)


def _of_block(inputs: tuple[Tensor, ...], start: int, out: tuple[Tensor, ...]) -> None:
    """The gradients that the queries from ``start`` on give to q, k and v, written to ``out``."""
    q, k, v, grad = inputs
    p = _probabilities(q, k, start)
    # p (dp - sum of p dp), which is how torch differentiates a softmax as well
    of_scores = torch._softmax_backward_data(torch.bmm(grad, v.mT), p, -1, p.dtype)
    torch.bmm(of_scores, k, out=out[0])
    torch.bmm(of_scores.mT, q, out=out[1])
    torch.bmm(p.mT, grad, out=out[2])


def _gradients(inputs: tuple[Tensor, ...], out: tuple[Tensor, ...]) -> None:
    """Gradients for q, k, v, all (n, T, C), to ``out``; sums over blocks are in float32."""
    q, k, v, grad = inputs
    length = q.shape[1]
    if length <= BLOCK_QUERIES:
        _of_block(inputs, 0, out)
        return
    sums = tuple(torch.zeros(x.shape, dtype=torch.float32) for x in (k, v))
    for start in range(0, length, BLOCK_QUERIES):
        end = min(start + BLOCK_QUERIES, length)
        block = q[:, start:end], k[:, :end], v[:, :end], grad[:, start:end]
        parts = torch.empty_like(block[1]), torch.empty_like(block[2])
        _of_block(block, start, (out[0][:, start:end], *parts))
        for total, part in zip(sums, parts, strict=True):
            total[:, :end] += part
    out[1].copy_(sums[0])
    out[2].copy_(sums[1])


class _Causal(torch.autograd.Function):
    """Forward by PyTorch, backward by ``_gradients``, some sequences at a time."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        ctx.save_for_backward(q, k, v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        shape = grad.shape
        inputs = [x.reshape(-1, *shape[-2:]) for x in (*ctx.saved_tensors, grad)]
        inputs[0] = inputs[0] * ctx.scale  # the scores come out scaled, the gradients of k as well
        found = tuple(torch.empty_like(inputs[0]) for _ in range(3))
        for start in range(0, len(inputs[0]), BLOCK_SEQUENCES):
            part = slice(start, start + BLOCK_SEQUENCES)
            _gradients(tuple(x[part] for x in inputs), tuple(x[part] for x in found))
        found[0].mul_(ctx.scale)
        grad_q, grad_k, grad_v = (x.reshape(shape) for x in found)
        return grad_q, grad_k, grad_v, None


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """softmax(q kᵀ scale + M) v with the past visible, (..., T, C) -> (..., T, C), see ``applies``.

    The gradient can be taken once, not differentiated again.
    Papers: Vaswani et al. (2017), Dao et al. (2022).
    """
    apply: Any = _Causal.apply
    out: Tensor = apply(q, k, v, 1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    return out
