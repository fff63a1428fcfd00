"""Muon: steps for matrices that are as long in one direction as in every other.

AdamW looks at each number alone. A matrix in a block maps one stream to another, and its gradient
is mostly made of few directions, so that the others hardly learn. Muon keeps the directions of the
gradient and makes their lengths equal. Embeddings, the head and vectors are no such maps: they
move by AdamW. Chapter 5 derives the step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from llm_core.optim import AdamW

COEFFICIENTS = 3.4445, -4.7750, 2.0315  # of the polynomial, as Jordan et al. (2024) chose them
N_ROUNDS = 5
MOMENTUM = 0.95
RMS = 0.2  # of a step's entries, over the learning rate: about what AdamW's have
NUMBERS_AT_ONCE = 1 << 24  # in matrices of one shape that are made orthogonal together


def orthogonalized(matrices: Tensor, n_rounds: int = N_ROUNDS) -> Tensor:
    """The nearest matrices whose singular values are all 1, roughly: (..., M, N) -> (..., M, N).

    A matrix is divided by its norm first. Each round then puts its singular values s through
    3.4445 s - 4.7750 s³ + 2.0315 s⁵ (Newton-Schulz); after five, all that began at 0.003 or above
    lie between 0.68 and 1.21. In the dtype of the argument.
    """
    a, b, c = COEFFICIENTS
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x.reshape(-1, *x.shape[-2:])
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(n_rounds):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).reshape(matrices.shape)


class Muon(AdamW):
    """Muon for the groups with ``matrices``, AdamW for the others; parameters of any float dtype.

    With gradient G at a step, the mean M = momentum M + (1 - momentum) G looks one step ahead,
    U = momentum M + (1 - momentum) G, and

        W <- W - lr weight_decay W - lr 0.2 sqrt(max(n_rows, n_columns)) orthogonalized(U).

    The root gives the step's entries the size of AdamW's, so that one learning rate serves both.
    ``state[p]`` holds ``step``, ``mean`` and, for a parameter narrower than float32, ``master``.
    Raises ValueError for a group with ``matrices`` that has anything else, and as ``AdamW`` does.
    Papers: Jordan et al. (2024), Liu et al. (2025).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        momentum: float = MOMENTUM,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} must be at least 0 and below 1; try {MOMENTUM}")
        for group in self.param_groups:
            group.setdefault("matrices", False)
            group.setdefault("momentum", momentum)
            shapes = [tuple(one.shape) for one in group["params"] if one.dim() != 2]
            if group["matrices"] and shapes:
                raise ValueError(
                    f"a parameter of a group with matrices has shape {shapes[0]}; only what maps "
                    "one stream to another can be made orthogonal: give the rest without matrices"
                )

    def _means(self, group: dict[str, Any]) -> tuple[str, ...]:
        return ("mean",) if group["matrices"] else super()._means(group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As ``AdamW``'s; which groups have matrices, and their momentum, must be as here."""
        for given, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            for name in ("matrices", "momentum"):
                if given[name] != group[name]:
                    raise ValueError(f"a group has {name}={given[name]}, here {group[name]}")
        super().load_state_dict(state_dict)

    def _move_group(self, group: dict[str, Any]) -> None:
        if not group["matrices"]:
            super()._move_group(group)
            return
        alike: dict[tuple[Any, ...], list[Tensor]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                key = parameter.shape, parameter.dtype, parameter.device
                alike[key].append(parameter)
        for parameters in alike.values():
            n = max(1, NUMBERS_AT_ONCE // parameters[0].numel())
            for start in range(0, len(parameters), n):
                self._move_alike(parameters[start : start + n], group)

    def _move_alike(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """Move matrices of one shape."""
        ahead = []
        for parameter in parameters:
            gradient, state = self._begin(parameter, group)
            state["mean"].lerp_(gradient.to(state["mean"].dtype), 1 - group["momentum"])
            ahead.append(gradient.lerp(state["mean"].to(gradient.dtype), group["momentum"]))
        updates = orthogonalized(torch.stack(ahead))
        lr = group["lr"]
        size = lr * RMS * math.sqrt(max(parameters[0].shape))
        for parameter, update in zip(parameters, updates, strict=True):
            master = self.state[parameter].get("master", parameter)
            master.mul_(1 - lr * group["weight_decay"]).sub_(update.to(master.dtype), alpha=size)
            if master is not parameter:
                parameter.copy_(master)


def muon_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for ``Muon``: the matrices in blocks, other matrices, and vectors.

    The blocks may be those of a model inside, such as the body of a classifier. Vectors do not
    decay. Frozen parameters are in none, and a group that is empty is left out.
    """
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    inner = {name for name, p in learned.items() if ".blocks." in f".{name}" and p.dim() == 2}
    wide = [p for name, p in learned.items() if name not in inner and p.dim() >= 2]
    vectors = [p for p in learned.values() if p.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"params": [learned[n] for n in learned if n in inner], "matrices": True},
        {"params": wide},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [{"weight_decay": weight_decay, **group} for group in groups if group["params"]]
