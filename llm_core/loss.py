"""What training minimizes: the mean negative log-probability of the tokens that came.

The head of a language model turns every token into V numbers, and a float32 table of them for a
whole batch, (B, T, V), is often the largest tensor of a training step. Here it never exists: head
and loss are one function, which goes over the tokens in chunks and takes the gradient on the way,
so that each chunk of logits is computed once and then forgotten. Chapter 5 derives the loss and
its gradient, softmax minus one-hot.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORE = -100  # a target that does not count; torch uses the same number
CHUNK_TOKENS = 1024
# The softmax goes over a chunk in blocks of about a megabyte, which stay in a core's cache; over a
# chunk of 1,024 x 50,257 at once it took six times as long.
BLOCK_NUMBERS = 1 << 18
BLOCK_ROWS = 1 << 13  # of the gradient of the head, while it is widened


def _flat(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk_tokens: int
) -> tuple[Tensor, Tensor]:
    """hidden as (N, D) and targets as (N,), checked to fit the head (V, D) and one another."""
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens={chunk_tokens} must be at least 1; try {CHUNK_TOKENS}")
    if targets.shape != hidden.shape[:-1] or weight.shape[1:] != hidden.shape[-1:]:
        raise ValueError(
            f"hidden {tuple(hidden.shape)}, weight {tuple(weight.shape)} and targets "
            f"{tuple(targets.shape)} do not belong together; give (B, T, D), (V, D) and (B, T)"
        )
    hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    wrong = ((targets < 0) | (targets >= len(weight))) & (targets != IGNORE)
    if bool(wrong.any()):
        raise ValueError(
            f"target {int(targets[wrong][0])} is no id of a vocabulary of {len(weight)}; targets "
            f"are 0 to {len(weight) - 1}, or {IGNORE} where no loss is wanted"
        )
    return hidden, targets


def _as_autocast_has_it(hidden: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the dtype that a matrix product would see under autocast; as they are without."""
    device = hidden.device.type
    if not torch.is_autocast_enabled(device) or hidden.dtype == torch.float64:
        return hidden, weight
    dtype = torch.get_autocast_dtype(device)
    return hidden.to(dtype), weight.to(dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What the softmax is computed in: float32, or float64 where the model is."""
    return torch.promote_types(dtype, torch.float32)


def _exponentials(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of logits (n, V): exp(logits - most), its sums (n, 1), and log sum exp (n, 1), all wide.

    Logits that are wide already are overwritten.
    """
    wide = logits.to(_wide(logits.dtype))
    most = wide.amax(dim=-1, keepdim=True)
    total = wide.sub_(most).exp_().sum(dim=-1, keepdim=True)
    return wide, total, most + total.log()


def _log_probs(logits: Tensor, targets: Tensor, shares: Tensor | None) -> Tensor:
    """log softmax(logits)[target]: logits (n, V), targets (n,) -> (n,), 0 where IGNORE.

    The logits are overwritten: with ``shares`` (n,), by the gradient of the sum of all losses, each
    times its share.
    """
    n_rows = max(1, BLOCK_NUMBERS // logits.shape[1])
    found = []
    for start in range(0, len(logits), n_rows):
        block = logits[start : start + n_rows]
        ids = targets[start : start + n_rows, None]
        counts, ids = ids != IGNORE, ids.clamp(min=0)
        at_target = block.gather(1, ids)
        wide, total, log_total = _exponentials(block)
        found.append(torch.where(counts, at_target - log_total, 0).squeeze(1))
        if shares is not None:
            factor = shares[start : start + n_rows, None]
            # Rounded once, at the end: 1 - p of a sure token would be lost in bfloat16.
            block.copy_(wide.mul_(factor / total).scatter_add_(1, ids, -factor))
    return torch.cat(found)


def _add_product(total: Tensor, grad_logits: Tensor, x: Tensor, first: bool) -> None:
    """total += grad_logits^T x, (V, D); where it is the first, total is what it was not yet.

    A product narrower than ``total`` goes by blocks of rows, which need little memory.
    """
    if total.dtype == x.dtype:
        torch.addmm(total, grad_logits.T, x, beta=0 if first else 1, out=total)
        return
    for start in range(0, len(total), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        product = grad_logits[:, rows].T @ x
        if first:
            total[rows] = product
        else:
            total[rows] += product


class _HeadLoss(torch.autograd.Function):
    """The mean loss, whose gradients are ready when it is: the forward pass takes them along."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        shares: Tensor,
        chunk_tokens: int,
    ) -> Tensor:
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if of_hidden else None
        n_chunks = math.ceil(len(targets) / chunk_tokens)
        # The sum over chunks is wider than its terms: of 64 chunks added up in bfloat16 the
        # error was four times as large.
        dtype = weight.dtype if n_chunks == 1 else _wide(weight.dtype)
        grad_weight = torch.empty_like(weight, dtype=dtype) if of_weight else None
        buffer = hidden.new_empty(min(chunk_tokens, len(targets)), len(weight))
        loss = shares.new_zeros(())
        for start in range(0, len(targets), chunk_tokens):
            part = slice(start, start + chunk_tokens)
            x = hidden[part]
            logits = torch.mm(x, weight.T, out=buffer[: len(x)])  # then their gradient
            loss -= (_log_probs(logits, targets[part], shares[part]) * shares[part]).sum()
            if grad_hidden is not None:
                torch.mm(logits, weight, out=grad_hidden[part])
            if grad_weight is not None:
                _add_product(grad_weight, logits, x, first=start == 0)
        del buffer, logits  # their memory is free before that of the rounded gradient is taken
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The stored gradients, times that of the loss, which is 1 unless the loss is scaled."""
        grads = ctx.saved_tensors
        if bool(grad != 1):
            grads = [None if one is None else one * grad for one in grads]
        return grads[0], grads[1], None, None, None


@torch.no_grad()
def token_log_probs(
    hidden: Tensor, weight: Tensor, targets: Tensor, chunk_tokens: int = CHUNK_TOKENS
) -> Tensor:
    """log softmax(hidden weight^T)[target] of each token: -> (B, T) float32, 0 where -100.

    There is no gradient; of a model in float64 the result is float64. Arguments and errors are
    those of ``cross_entropy``, but for a batch without a target that counts, which is all 0.
    """
    shape = targets.shape
    hidden, targets = _flat(hidden, weight, targets, chunk_tokens)
    hidden, weight = _as_autocast_has_it(hidden, weight)
    found = torch.empty(len(targets), dtype=_wide(hidden.dtype), device=hidden.device)
    for start in range(0, len(targets), chunk_tokens):
        part = slice(start, start + chunk_tokens)
        found[part] = _log_probs(hidden[part] @ weight.T, targets[part], None)
    return found.reshape(shape)


def _shares(targets: Tensor, weights: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What each target contributes to the mean: (N,), 0 where IGNORE, 1 in all."""
    counts = (targets != IGNORE).to(dtype)
    if weights is not None:
        weights = weights.detach().reshape(-1).to(dtype)
        if len(weights) != len(targets):
            raise ValueError(
                f"{len(weights)} weights do not belong to {len(targets)} targets; give one each"
            )
        if bool((~(weights >= 0) | weights.isinf()).any()):
            wrong = weights[~(weights >= 0) | weights.isinf()][0].item()
            raise ValueError(f"a weight is {wrong}; weights are finite and at least 0")
        counts = counts * weights
    total = counts.sum()
    if not bool(total):
        raise ValueError(
            f"all {len(targets)} targets are {IGNORE} or weigh nothing, and there is no mean of "
            "nothing; leave out batches without a target"
        )
    return counts / total


def cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    chunk_tokens: int = CHUNK_TOKENS,
    *,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean of -log softmax(hidden weight^T)[target]: (B, T, D), (V, D), (B, T) int64 -> ().

    Targets that are -100 do not count; ``weights``, of the shape of ``targets`` and at least 0, let
    the others count more or less: the sum of weight x loss by the sum of weights. ``hidden`` is
    ``GPT.hidden(ids)`` and ``weight`` is ``GPT.output_weight``. Products are in the dtype of the
    two, or that of autocast; the softmax and the loss are in float32 (float64 in float64). At most
    ``chunk_tokens`` x V logits exist at a time. Gradients are exact for hidden and weight and can
    be taken once, not differentiated again. Raises ValueError for shapes that do not fit, a target
    that is no id, a negative weight, and if no target counts.
    """
    hidden, targets = _flat(hidden, weight, targets, chunk_tokens)
    shares = _shares(targets, weights, _wide(hidden.dtype))
    if not (torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)):
        return -(token_log_probs(hidden, weight, targets, chunk_tokens) * shares).sum()
    hidden, weight = _as_autocast_has_it(hidden, weight)
    apply: Any = _HeadLoss.apply
    loss: Tensor = apply(hidden, weight, targets, shares, chunk_tokens)
    return loss


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """What a model needs for a text, comparable between tokenizers: summed loss in nats -> bits.

    ``n_bytes`` is the length of the text in UTF-8. Raises ValueError below 1 byte.
    """
    if n_bytes < 1:
        raise ValueError(f"n_bytes={n_bytes} must be at least 1; give the length of the text")
    return nats / math.log(2) / n_bytes
