"""The backward pass of bfloat16 attention on a CPU, held against float64 and against PyTorch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from llm_core import causal
from llm_core.attention import attention

NO_BFLOAT16 = "oneDNN has no bfloat16 products on this processor"
needs_bfloat16 = pytest.mark.skipif(not causal._has_bfloat16_products(), reason=NO_BFLOAT16)


def heads(
    *shape: int, size: float = 1.0, dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, ...]:
    """q, k, v that want gradients, as views into one tensor, the way a layer makes them."""
    *lead, n_head, length, width = shape
    rows = size * torch.randn(*lead, length, 3 * n_head, width)
    parts = rows.to(dtype).transpose(-3, -2).split(n_head, dim=-3)
    return tuple(part.detach().requires_grad_() for part in parts)


def gradients(of: Tensor, wanted: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
    """What ``leaves`` get where ``of`` gets ``wanted``."""
    return torch.autograd.grad(of, leaves, wanted)


def distance(found: Tensor, exact: Tensor) -> float:
    """How far off, as a share of the length of the exact one."""
    return float((found.double() - exact).norm() / exact.norm())


@needs_bfloat16
@pytest.mark.parametrize("length", [1, 2, 7, 255, 256, 257, 400, 512])
@pytest.mark.parametrize("size", [0.3, 1.0, 3.0])
def test_gradients_are_as_near_to_float64_as_pytorchs(length, size):
    torch.manual_seed(length)
    q, k, v = heads(3, 7, length, 16, size=size)  # 21 sequences: a whole group and a part of one
    wanted = torch.randn(3, length, 7, 16).bfloat16().transpose(1, 2)
    assert causal.applies(q, k, v)
    ours = gradients(attention(q, k, v, causal=True), wanted, q, k, v)
    theirs = gradients(F.scaled_dot_product_attention(q, k, v, is_causal=True), wanted, q, k, v)
    wide = tuple(x.detach().double().requires_grad_() for x in (q, k, v))
    exact = gradients(F.scaled_dot_product_attention(*wide, is_causal=True), wanted.double(), *wide)
    for name, found, other, true in zip("qkv", ours, theirs, exact, strict=True):
        assert found.dtype == torch.bfloat16 and found.shape == true.shape
        if length == 1 and name != "v":  # one position: the weights cannot change
            assert not found.any()
            continue
        # A score is rounded to 8 bits, so that scores of 30 are off by 0.1.
        assert distance(found, true) < 1.3 * distance(other, true) + 0.004 * max(1, size**2)


@needs_bfloat16
def test_the_forward_pass_is_pytorchs_to_the_bit():
    q, k, v = heads(2, 3, 40, 8)
    ours = attention(q, k, v, causal=True, scale=0.2)
    assert torch.equal(ours, F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.2))


@needs_bfloat16
def test_a_scale_of_ones_own_reaches_the_gradient():
    q, k, v = heads(2, 3, 40, 8)
    wanted = torch.randn(2, 3, 40, 8).bfloat16()
    wide = tuple(x.detach().double().requires_grad_() for x in (q, k, v))
    exact = gradients(
        F.scaled_dot_product_attention(*wide, is_causal=True, scale=0.7), wanted.double(), *wide
    )
    ours = gradients(attention(q, k, v, causal=True, scale=0.7), wanted, q, k, v)
    for found, true in zip(ours, exact, strict=True):
        assert distance(found, true) < 0.015


@needs_bfloat16
def test_no_gradient_reaches_the_future():
    q, k, v = heads(1, 2, 300, 8)
    y = attention(q, k, v, causal=True)
    of_k, of_v = torch.autograd.grad(y[:, :, :270].float().sum(), (k, v))
    assert not of_k[:, :, 270:].any() and not of_v[:, :, 270:].any()
    assert of_v[:, :, :270].any(dim=-1).all()


@needs_bfloat16
def test_two_leading_axes_or_none_and_autocast():
    q, k, v = heads(5, 20, 8)
    attention(q, k, v, causal=True).sum().backward()
    assert q.grad.shape == (5, 20, 8)
    q, k, v = heads(2, 5, 20, 8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = (x.bfloat16() for x in (q, k, v))
        attention(*narrow, causal=True).sum().backward()
    assert q.grad.dtype == torch.float32 and q.grad.any()


@needs_bfloat16
def test_a_second_derivative_is_refused_and_not_wrong():
    q, k, v = heads(2, 3, 20, 8)
    (first,) = torch.autograd.grad(
        attention(q, k, v, causal=True).square().sum(), q, create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize(
    "change",
    [
        lambda q, k, v: (q.float(), k.float(), v.float()),
        lambda q, k, v: (q.detach(), k.detach(), v.detach()),
        lambda q, k, v: (q, k[:, :1], v[:, :1]),
        lambda q, k, v: (q, k[:, :, :5], v[:, :, :5]),
        lambda q, k, v: tuple(x.repeat(1, 1, 100, 1) for x in (q, k, v)),
        lambda q, k, v: tuple(x.to("meta") for x in (q, k, v)),
    ],
    ids=["float32", "no gradient", "shared heads", "fewer keys", "long", "elsewhere"],
)
def test_what_it_is_not_made_for_goes_to_pytorch(change):
    q, k, v = heads(2, 4, 20, 8)
    assert not causal.applies(*change(q, k, v))


def test_without_a_gradient_wanted_it_stays_away():
    q, k, v = heads(2, 4, 20, 8)
    with torch.no_grad():
        assert not causal.applies(q, k, v)
