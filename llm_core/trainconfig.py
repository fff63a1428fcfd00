"""What a training run is asked for, and what happened in it: ``TrainConfig`` and ``History``.

Both are plain data: a config makes command line flags and a checkpoint, a history makes plots.
Chapter 5 derives each setting.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from llm_core.optim import cosine_lr, stable_decay_lr

Metrics = dict[str, float]
Schedule = Literal["cosine", "stable_decay"]
Optimizer = Literal["adamw", "muon"]
Precision = Literal["auto", "float32", "bfloat16"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True)
class TrainConfig:
    """How a run goes. A step is one update of the weights, from ``n_accumulate`` batches.

    ``schedule`` is ``cosine`` down to ``min_lr`` at the last step, or ``stable_decay``: constant,
    then straight down to ``min_lr`` over the last ``decay_share`` of the steps. ``optimizer``
    ``muon`` moves the matrices in blocks by ``muon.Muon``, the rest by ``AdamW``. ``precision``
    ``bfloat16`` has the weights in bfloat16 and exact float32 masters in the optimizer; ``auto``
    takes it where ``runtime.dtype`` finds that it pays and nothing is frozen. ``compile`` compiles
    each block. Every ``evaluate_every`` and ``save_every`` steps (0: never), and always at the end,
    the run is evaluated and saved; ``evaluate_at`` adds single steps; the last ``keep`` checkpoints
    stay, and the weights at the steps ``milestones`` for good, in a folder of that name.
    Raises ValueError for values that cannot work.
    """

    n_steps: int
    max_lr: float = 1e-3
    min_lr: float = 1e-4
    warmup_steps: int = 100
    schedule: Schedule = "cosine"
    decay_share: float = 0.2
    optimizer: Optimizer = "adamw"
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    max_norm: float = 1.0
    n_accumulate: int = 1
    precision: Precision = "auto"
    compile: bool = False
    evaluate_every: int = 0
    evaluate_at: tuple[int, ...] = ()
    save_every: int = 0
    keep: int = 2
    milestones: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check what the parts do not check themselves before the first step."""
        least = {"n_steps": 1, "n_accumulate": 1, "keep": 1, "evaluate_every": 0, "save_every": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {bound}")
        known = {"schedule": SCHEDULES, "optimizer": OPTIMIZERS, "precision": PRECISIONS}
        for name, choices in known.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is unknown; choose {' or '.join(choices)}"
                )
        if not self.max_norm > 0:
            raise ValueError(f"max_norm={self.max_norm} must be above 0; math.inf clips nothing")
        if self.warmup_steps > self.n_steps:
            raise ValueError(
                f"warmup_steps={self.warmup_steps} exceeds n_steps={self.n_steps}, so that max_lr "
                "would never be reached; 2 to 10 % of the steps are usual"
            )
        if not 0 <= self.decay_share <= 1:
            raise ValueError(
                f"decay_share={self.decay_share} is no share of the steps; it lies between 0 and 1"
            )
        self.lr(self.n_steps)

    def lr(self, step: int) -> float:
        """The learning rate of a step, counted from 1."""
        if self.schedule == "cosine":
            return cosine_lr(step, self.max_lr, self.min_lr, self.warmup_steps, self.n_steps)
        return stable_decay_lr(
            step,
            self.max_lr,
            self.min_lr,
            self.warmup_steps,
            round(self.decay_share * self.n_steps),
            self.n_steps,
        )


@dataclass
class History:
    """What happened, one entry a step; ``loss`` is the step's mean before its update.

    ``grad_norm`` is taken before clipping, ``seconds`` without evaluating and saving. ``metrics``
    are what ``loss_fn`` returned, averaged over the step's batches. ``evaluations`` holds (step,
    metrics) pairs. ``stopped`` says why the run ended before its last step: a signal, or that the
    batches did; None otherwise.
    """

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    n_tokens: list[int] = field(default_factory=list)
    metrics: list[Metrics] = field(default_factory=list)
    evaluations: list[tuple[int, Metrics]] = field(default_factory=list)
    stopped: str | None = None

    @classmethod
    def from_dict(cls, given: Any) -> History:
        """The history that ``asdict`` made plain.

        Raises ValueError for what is no such thing: entries that are missing, are no lists, or do
        not have as many steps as the others.
        """
        try:
            if not all(isinstance(given[one.name], list) for one in fields(cls)[:-1]):
                raise TypeError("an entry that is no list")
            evaluations = [(step, {**values}) for step, values in given["evaluations"]]
            n_steps = sorted({len(given[one.name]) for one in fields(cls)[:6]})
            if len(n_steps) > 1:
                raise ValueError(f"entries of {n_steps} steps")
            return cls(**{**given, "evaluations": evaluations})
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"this is no history of a run ({error})") from error

    @property
    def n_steps(self) -> int:
        """Steps taken so far."""
        return len(self.loss)

    @property
    def tokens_per_second(self) -> float:
        """Over the later half of the steps, which spares compilation and warm-up."""
        later = slice(self.n_steps // 2, None)
        return sum(self.n_tokens[later]) / max(sum(self.seconds[later]), 1e-9)

    def evaluated(self, name: str) -> tuple[list[int], list[float]]:
        """The steps at which a metric was evaluated, and its values, ready for a plot."""
        found = [(step, values[name]) for step, values in self.evaluations if name in values]
        return [step for step, _ in found], [value for _, value in found]
