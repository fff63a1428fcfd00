"""What a model is: sixteen fields that say everything about its architecture, checked at once.

A ``GPTConfig`` is a frozen value, so that it can be compared, hashed, written beside the weights
and changed with ``config.changed(d_model=256)``. A combination that cannot work raises when the
config is made, naming the value, the rule and the remedy. ``preset("gpt2-124m")`` names known
models. Chapter 4 derives the fields one by one, chapter 3 those of attention.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

Position = Literal["learned", "sinusoidal", "rope", "none"]
NormKind = Literal["layernorm", "rmsnorm"]
NormPlace = Literal["pre", "post"]
MLPKind = Literal["gelu", "gelu_tanh", "swiglu"]
Bias = Literal["all", "attention", "mlp", "none"]
Layout = Literal["half", "interleaved"]
ScalingKind = Literal["linear", "llama3", "yarn"]
LARGEST = 1 << 63  # beyond it a tensor can have no side, and a float is soon infinite


def _check_choices(config: object) -> None:
    """Raise ValueError where a field that is a ``Literal`` or a truth value is something else."""
    for field, hint in get_type_hints(type(config)).items():
        value, choices = getattr(config, field), get_args(hint)
        if hint is bool and not isinstance(value, bool):
            raise ValueError(f"{field}={value!r} must be True or False")
        if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
            raise ValueError(f"{field}={value!r} is unknown; choose one of {', '.join(choices)}")


def _check_numbers(config: object, least: dict[str, float]) -> None:
    """Raise ValueError where a field is not a number of at least ``least[field]``."""
    for field, bound in least.items():
        value = getattr(config, field)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not bound <= value < LARGEST:
            rule = f"a number of at least {bound} and below 2**63"
            raise ValueError(f"{field}={value!r} must be {rule}")
        if isinstance(bound, int) and not isinstance(value, int):
            raise ValueError(f"{field}={value!r} must be a whole number; try {round(value)}")


def _check_positive(config: object, names: tuple[str, ...]) -> None:
    """Raise ValueError where a field is not a number above 0, or one too large or small to use."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int | float) or not 1 / LARGEST < value < LARGEST:
            raise ValueError(f"{name}={value!r} must be above 0, between 2**-63 and 2**63")


@dataclass(frozen=True)
class RopeScaling:
    """How rotary angles are stretched to reach beyond the context a model was trained on.

    ``linear`` divides every angle by ``factor`` (Chen et al., 2023); ``llama3`` only the slow ones,
    with a ramp between waves of ``original_context_length / high_freq_factor`` and ``/
    low_freq_factor`` positions (Llama team, 2024); ``yarn`` ramps between waves that turn
    ``beta_fast`` and ``beta_slow`` times within the original context and multiplies cosine and sine
    by ``attention_factor``, or by its own rule where that is None (Peng et al., 2023).
    """

    kind: ScalingKind
    factor: float
    original_context_length: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_numbers(self, {"factor": 1.0, "original_context_length": 0})
        if self.kind != "linear" and self.original_context_length < 1:
            raise ValueError(
                f"original_context_length={self.original_context_length} must be the context "
                f"length of training, at least 1, for rope scaling {self.kind!r}; give it"
            )
        _check_positive(self, ("beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor"))
        if self.attention_factor is not None:
            _check_positive(self, ("attention_factor",))
        if self.kind == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor={self.low_freq_factor} must be above 0 and below "
                f"high_freq_factor={self.high_freq_factor}; Llama 3 has 1 and 4"
            )


@dataclass(frozen=True)
class Rope:
    """Rotary positions (Su et al., 2021): which pairs of a head turn, and how fast.

    ``theta`` is the base of the angles; ``layout`` says which entries form a pair: entry i and
    i + R/2 (``half``, as in the Llama weights that transformers loads) or 2i and 2i + 1
    (``interleaved``, as in the paper); ``fraction`` is the part of the head that turns at all, the
    rest keeps still.
    """

    theta: float = 10_000.0
    layout: Layout = "half"
    fraction: float = 1.0
    scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_numbers(self, {"theta": 1.0})
        if self.scaling is not None and self.scaling.kind == "yarn" and self.theta <= 1:
            raise ValueError(f"theta={self.theta} must be above 1 for yarn; try 10000.0")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction={self.fraction} must be above 0 and at most 1; try 1.0")

    def rotary_dim(self, head_dim: int) -> int:
        """R, how many entries of a head turn: the largest even number within ``fraction``."""
        return 2 * int(head_dim * self.fraction / 2 + 1e-6)


@dataclass(frozen=True)
class Norm:
    """Which normalization, where, and with what ``eps`` under the root.

    ``place`` is before each sublayer (``pre``) or after each addition (``post``); ``on_qk``
    normalizes queries and keys within each head as well (Henry et al., 2020).
    """

    kind: NormKind = "layernorm"
    place: NormPlace = "pre"
    eps: float = 1e-5
    on_qk: bool = False

    def __post_init__(self) -> None:
        _check_choices(self)
        if not 0 < self.eps < 1:
            raise ValueError(f"eps={self.eps} must lie between 0 and 1; GPT-2 has 1e-5")


@dataclass(frozen=True)
class GPTConfig:
    """The architecture of one model.

    ``n_kv_head``, ``head_dim`` and ``d_ff`` may be left at 0 for the usual value: as many key/value
    heads as query heads, ``d_model / n_head``, and 4 x ``d_model`` (SwiGLU: 8/3 x ``d_model``,
    rounded up to a multiple of 32, which costs the same). They hold the value itself afterward.
    ``window`` is how many positions each query sees, itself included; None is all of the past.
    ``bias`` says which linear layers have one. ``tied`` shares the embedding table with the head.

    Raises ValueError for a combination that cannot work.
    """

    vocab_size: int
    context_length: int
    n_layer: int
    n_head: int
    d_model: int
    n_kv_head: int = 0
    head_dim: int = 0
    d_ff: int = 0
    position: Position = "learned"
    rope: Rope = Rope()
    window: int | None = None
    norm: Norm = Norm()
    mlp: MLPKind = "gelu"
    bias: Bias = "all"
    tied: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_choices(self)
        sizes = ("vocab_size", "context_length", "n_layer", "n_head", "d_model")
        _check_numbers(self, dict.fromkeys(sizes, 1))
        _check_numbers(self, {"n_kv_head": 0, "head_dim": 0, "d_ff": 0})
        self._check_heads()
        for field, value in self._usual().items():
            if getattr(self, field) == 0:
                object.__setattr__(self, field, value)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout} must be at least 0 and below 1; try 0.1")
        if self.window is not None:
            _check_numbers(self, {"window": 1})
        self._check_position()

    def _check_heads(self) -> None:
        if self.head_dim == 0 and self.d_model % self.n_head:
            raise ValueError(
                f"n_head={self.n_head} does not divide d_model={self.d_model}; "
                f"try {_nearest_divisors(self.d_model, self.n_head)}, or give head_dim"
            )
        if self.n_kv_head and self.n_head % self.n_kv_head:
            raise ValueError(
                f"n_kv_head={self.n_kv_head} does not divide n_head={self.n_head}; "
                f"try {_nearest_divisors(self.n_head, self.n_kv_head)}"
            )

    def _check_position(self) -> None:
        if self.position == "rope" and self.rope.rotary_dim(self.head_dim) < 2:
            raise ValueError(
                f"head_dim={self.head_dim} with fraction={self.rope.fraction} leaves no pair to "
                "rotate; rotary positions need at least 2 entries of a head"
            )
        if self.position == "sinusoidal" and self.d_model % 2:
            raise ValueError(
                f"d_model={self.d_model} must be even for sinusoidal positions, a sine and a "
                f"cosine each; try {self.d_model + 1}"
            )

    def _usual(self) -> dict[str, int]:
        """What 0 stands for in the fields that may be left out."""
        thirds = -(-8 * self.d_model // (3 * 32)) * 32
        d_ff = thirds if self.mlp == "swiglu" else 4 * self.d_model
        head_dim, rest = divmod(self.d_model, self.n_head)
        return {"n_kv_head": self.n_head, "head_dim": 0 if rest else head_dim, "d_ff": d_ff}

    def changed(self, **fields: Any) -> GPTConfig:
        """A config with other fields; those left at their usual value follow the change.

        Raises ValueError for a name that is no field.
        """
        names = [field.name for field in dataclasses.fields(self)]
        if unknown := sorted(set(fields) - set(names)):
            raise ValueError(f"{unknown[0]!r} is no field of GPTConfig; it has {', '.join(names)}")
        usual = {name: 0 for name, value in self._usual().items() if getattr(self, name) == value}
        return dataclasses.replace(self, **{**usual, **fields})

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, for json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> GPTConfig:
        """The config that ``to_dict`` wrote. Raises ValueError for what is no such thing."""
        try:
            norm, turn = Norm(**fields["norm"]), dict(fields["rope"])
            scaling = None if turn["scaling"] is None else RopeScaling(**turn["scaling"])
            rope = Rope(**{**turn, "scaling": scaling})
            return cls(**{**fields, "norm": norm, "rope": rope})
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"these fields are no GPTConfig ({error}); give what config.to_dict() wrote"
            ) from error


def _nearest_divisors(number: int, near: int) -> str:
    """The divisors of a number next to one that does not divide it: ``4 or 8``."""
    if number > 1 << 20:  # not worth the search, and a hostile file could make it a long one
        return "one of its divisors"
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    below = [str(d) for d in divisors if d < near][-1:]
    above = [str(d) for d in divisors if d > near][:1]
    return " or ".join(below + above)


_LLAMA: dict[str, Any] = {
    "position": "rope",
    "norm": Norm("rmsnorm"),
    "mlp": "swiglu",
    "bias": "none",
    "tied": False,
}
_GPT2: dict[str, Any] = {"vocab_size": 50_257, "context_length": 1024, "mlp": "gelu_tanh"}


# Rotary positions and else GPT-2's parts: on stories the plain GELU came nearer to the floor than
# SwiGLU of the same size, and layer norm and RMS norm as near as each other (EXPERIMENTS.md).
_STORY: dict[str, Any] = {"position": "rope", "mlp": "gelu_tanh", "bias": "none"}


def _llama3(factor: float) -> Rope:
    scaling = RopeScaling("llama3", factor, original_context_length=8192)
    return Rope(theta=500_000.0, scaling=scaling)


# Shapes: Radford et al. (2019) and its released weights; Touvron et al. (2023), Llama 2 7B;
# Llama team (2024), Llama 3.1 70B and Llama 3.2 1B.
PRESETS = {
    "story-1m": GPTConfig(1024, 512, 4, 4, 128, **_STORY),
    "story-2m": GPTConfig(1024, 512, 8, 4, 128, **_STORY),
    "gpt2-124m": GPTConfig(n_layer=12, n_head=12, d_model=768, **_GPT2),
    "gpt2-355m": GPTConfig(n_layer=24, n_head=16, d_model=1024, **_GPT2),
    "gpt2-774m": GPTConfig(n_layer=36, n_head=20, d_model=1280, **_GPT2),
    "gpt2-1558m": GPTConfig(n_layer=48, n_head=25, d_model=1600, **_GPT2),
    "1b": GPTConfig(
        128_256, 131_072, 16, 32, 2048, 8, d_ff=8192, rope=_llama3(32.0), **{**_LLAMA, "tied": True}
    ),
    "7b": GPTConfig(32_000, 4096, 32, 32, 4096, d_ff=11_008, **_LLAMA),
    "70b": GPTConfig(128_256, 131_072, 80, 64, 8192, 8, d_ff=28_672, rope=_llama3(8.0), **_LLAMA),
}


def preset(name: str, **changes: Any) -> GPTConfig:
    """A known model by name, with fields changed: ``preset("gpt2-124m", context_length=256)``.

    Raises ValueError for a name that is not in ``PRESETS``.
    """
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name].changed(**changes)
