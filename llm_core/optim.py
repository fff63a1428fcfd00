"""AdamW, clipping and the learning rate over time: how a gradient becomes a step.

Parameters in bfloat16 halve what the matrix products read, but a step is often smaller than the
distance between two neighbors of a number in 8 bits of precision and would be rounded away. So the
optimizer keeps every such parameter a second time, in float32, adds the steps up there, and gives
the model the rounded copy. Chapter 5 derives the update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, overload

import torch
from torch import Tensor, nn

# Narrow gradients are widened in blocks that stay in the cache: 129 ms a step for 124 million
# parameters where widening all of them first took 336 ms (85 ms where all is float32 already).
BLOCK_NUMBERS = 1 << 19


def _check(lr: float, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    """Raise ValueError for a setting out of range."""
    least = {"lr": lr, "eps": eps, "weight_decay": weight_decay}
    if wrong := [f"{name}={value}" for name, value in least.items() if not value >= 0]:
        raise ValueError(f"{wrong[0]} must be at least 0; AdamW usually has lr=3e-4, eps=1e-8")
    if not all(0 <= beta < 1 for beta in betas):
        raise ValueError(f"betas={betas} must be at least 0 and below 1; try (0.9, 0.95)")


def _fresh(parameter: Tensor, means: tuple[str, ...]) -> dict[str, Tensor]:
    """The state of a parameter that has not moved yet."""
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    like = torch.empty_like(parameter, dtype=dtype, memory_format=torch.contiguous_format)
    state = {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        **{name: torch.zeros_like(like) for name in means},
    }
    return state if parameter.dtype == dtype else {**state, "master": like.copy_(parameter)}


def _check_state(found: dict[str, Tensor], parameter: Tensor, means: tuple[str, ...]) -> None:
    """Raise ValueError unless the state is such as ``_fresh`` makes it, or none yet.

    The fused update believes what it is given: it would write beyond the end of a mean too short.
    """
    fresh = _fresh(parameter.detach().to("meta"), means)
    wanted, given = (
        {name: (tuple(t.shape), t.dtype) for name, t in state.items()} for state in (fresh, found)
    )
    if given and given != wanted:
        raise ValueError(
            f"a parameter of shape {tuple(parameter.shape)} has the state {given}, and moves by "
            f"{wanted}; load the state of the same optimizer on the same model"
        )


def _update(
    exact: Tensor,
    mean: Tensor,
    square: Tensor,
    gradient: Tensor,
    step: Tensor,
    group: dict[str, Any],
) -> None:
    """The formula of ``AdamW`` on flat tensors of one dtype, in one pass over memory.

    Written out as nine operations on blocks in the cache it took 1.6 times as long, on whole
    tensors three times.
    """
    beta1, beta2 = group["betas"]
    torch._fused_adamw_(
        [exact],
        [gradient],
        [mean],
        [square],
        [],
        [step],
        lr=group["lr"],
        beta1=beta1,
        beta2=beta2,
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        amsgrad=False,
        maximize=False,
    )


class AdamW(torch.optim.Optimizer):
    """Adam with decoupled weight decay, for parameters of any float dtype.

    With gradient g at step t, m = beta1 m + (1 - beta1) g and v = beta2 v + (1 - beta2) g², and

        w <- w - lr weight_decay w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    ``state[p]`` holds ``step``, ``mean`` (m) and ``square`` (v), and for a parameter narrower than
    float32 also ``master``, its exact value: what the model holds is rounded from it after every
    step, so that weights put into the model after the first step are overwritten. Parameters
    without a gradient are left alone, decay included.
    Raises ValueError for settings out of range, sparse gradients and parameters not contiguous.
    Papers: Kingma and Ba (2015), Loshchilov and Hutter (2019), Micikevicius et al. (2018).
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)
        for group in self.param_groups:
            _check(group["lr"], group["betas"], group["eps"], group["weight_decay"])

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._move_group(group)
        return loss

    def _move_group(self, group: dict[str, Any]) -> None:
        for parameter in group["params"]:
            if parameter.grad is not None:
                self._move(parameter, group)

    def _means(self, group: dict[str, Any]) -> tuple[str, ...]:
        """What is kept of the past gradients of a group's parameters."""
        return "mean", "square"

    def _begin(self, parameter: Tensor, group: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradient of a parameter of a group and its state at its next step."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if gradient.is_sparse:
            raise ValueError(
                "AdamW moves every row, and a gradient is sparse; make nn.Embedding with "
                "sparse=False"
            )
        if not parameter.is_contiguous():
            raise ValueError(
                f"a parameter of shape {tuple(parameter.shape)} is not contiguous, and is moved in "
                "place; make it of a tensor.contiguous()"
            )
        if not state:
            state.update(_fresh(parameter, self._means(group)))
        state["step"] += 1
        return gradient, state

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, state = self._begin(parameter, group)
        master = state.get("master", parameter)
        mean, square = state["mean"].view(-1), state["square"].view(-1)
        if master is parameter:
            _update(master.view(-1), mean, square, gradient.reshape(-1), state["step"], group)
            return
        flat = master.view(-1), mean, square, gradient.reshape(-1), parameter.view(-1)
        blocks = zip(*(torch.split(tensor, BLOCK_NUMBERS) for tensor in flat), strict=True)
        for exact, mean, square, narrow, rounded in blocks:
            _update(exact, mean, square, narrow.to(exact.dtype), state["step"], group)
            rounded.copy_(exact)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what ``state_dict`` gave, to the last bit.

        Raises ValueError, and changes nothing, for what is no state of these parameters.
        """
        for given, group in zip(state_dict["param_groups"], self.param_groups, strict=True):
            if missing := group.keys() - given.keys():
                raise ValueError(f"a group of the state has no {min(missing)}")
            _check(given["lr"], given["betas"], given["eps"], given["weight_decay"])
            for key, parameter in zip(given["params"], group["params"], strict=True):
                found = state_dict["state"].get(key, {})
                _check_state(found, parameter, self._means(group))
        known = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        if strange := set(state_dict["state"]) - set(known):
            raise ValueError(f"there is a state of {strange}, which are in no group")
        super().load_state_dict(state_dict)
        # torch has cast all but the step to the dtype of the parameter: masters would be lost. A
        # step read from a file is on the CPU, where the fused update of a GPU cannot reach it.
        keys = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        mine = chain.from_iterable(group["params"] for group in self.param_groups)
        for key, parameter in zip(keys, mine, strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                self.state[parameter][name] = value.to(parameter.device, copy=True)


def _joint(norms: list[Tensor]) -> Tensor:
    """The norm of tensors laid end to end, from theirs."""
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm


def _norm(gradient: Tensor) -> Tensor:
    """The L2 norm in float32; torch would round that of a bfloat16 tensor to 8 bits."""
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    blocks = torch.split(gradient.reshape(-1), BLOCK_NUMBERS)
    return _joint([torch.linalg.vector_norm(block.to(dtype)) for block in blocks])


@torch.no_grad()
def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Shrink all gradients by one factor so that their joint L2 norm is at most ``max_norm``.

    Returns the norm before, (); parameters without a gradient are skipped, and where none has one
    the norm is 0. A norm that is NaN leaves the gradients as they are.
    Raises ValueError unless ``max_norm`` is above 0. Paper: Pascanu et al. (2013).
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm={max_norm} must be above 0; 1.0 is usual")
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm = _joint([_norm(gradient) for gradient in gradients])
    if bool(norm > max_norm):
        torch._foreach_mul_(gradients, float(max_norm / norm))
    return norm


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for ``AdamW``: matrices decay, vectors (norms and biases) do not.

    Frozen parameters are in neither.
    """
    learned = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learned if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learned if p.dim() < 2], "weight_decay": 0.0},
    ]


# --- the learning rate over time ----------------------------------------------------------------


def _check_schedule(max_lr: float, min_lr: float, **steps: int) -> None:
    if not 0 <= min_lr <= max_lr:
        raise ValueError(
            f"min_lr={min_lr} must lie between 0 and max_lr={max_lr}; a tenth of max_lr is usual"
        )
    if wrong := [f"{name}={value}" for name, value in steps.items() if value < 0]:
        raise ValueError(f"{wrong[0]} is a number of steps and cannot be below 0")


def cosine_lr(
    step: int, max_lr: float, min_lr: float, warmup_steps: int, cosine_steps: int
) -> float:
    """The learning rate of a step: a straight rise, half a cosine down, then ``min_lr``.

    0 at step 0, ``max_lr`` at ``warmup_steps``, ``min_lr`` from the absolute step ``cosine_steps``
    on. Raises ValueError for rates or steps out of order. Paper: Loshchilov and Hutter (2017).
    """
    _check_schedule(max_lr, min_lr, step=step, warmup_steps=warmup_steps, cosine_steps=cosine_steps)
    if warmup_steps > cosine_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} exceeds cosine_steps={cosine_steps}; shorten the warm-up"
        )
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    if step >= cosine_steps:
        return min_lr
    share = (step - warmup_steps) / (cosine_steps - warmup_steps)
    height = (1 + math.cos(math.pi * share)) / 2
    return height * max_lr + (1 - height) * min_lr  # exactly max_lr where the height is 1


def stable_decay_lr(
    step: int, max_lr: float, min_lr: float, warmup_steps: int, decay_steps: int, n_steps: int
) -> float:
    """The learning rate of a step: a straight rise, a plateau, a straight fall over the last steps.

    0 at step 0, ``max_lr`` from ``warmup_steps`` on, falling during the last ``decay_steps`` to
    ``min_lr`` at ``n_steps``. The length of the plateau can be decided while it lasts. Raises
    ValueError for rates or steps out of order. Paper: Hu et al. (2024).
    """
    _check_schedule(max_lr, min_lr, step=step, warmup_steps=warmup_steps, decay_steps=decay_steps)
    if warmup_steps + decay_steps > n_steps:
        raise ValueError(
            f"warmup_steps={warmup_steps} and decay_steps={decay_steps} exceed n_steps={n_steps}; "
            "shorten one of them"
        )
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    left = max(0, n_steps - step)
    if left >= decay_steps:
        return max_lr
    return min_lr + (max_lr - min_lr) * left / decay_steps
