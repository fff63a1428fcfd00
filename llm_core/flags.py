"""Command line flags from dataclasses: one a field, with its type, choices and default.

``add`` gives ``--n-layer`` for the field ``n_layer``, ``--norm-kind`` for the field ``kind`` of the
dataclass in the field ``norm``. A flag that is not typed leaves no trace, so that ``changes`` knows
what the reader asked for and what is left to a preset. ``cli`` makes its commands of it; no chapter
derives this module.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

# What each field means, said as briefly as a list of flags asks for; the derivations are in the
# chapters, the rules in the docstrings of the dataclasses.
MEANINGS = {
    # GPTConfig
    "vocab_size": "entries of the vocabulary",
    "context_length": "tokens that the model sees at once",
    "n_layer": "layers",
    "n_head": "query heads of a layer; has to divide d_model",
    "d_model": "width of the residual stream",
    "n_kv_head": "heads of keys and values, a divisor of n_head; 0: as many as n_head",
    "head_dim": "width of a head; 0: d_model / n_head",
    "d_ff": "width inside the MLP; 0: 4 d_model, or 8/3 d_model for swiglu",
    "position": "how the model knows where a token stands",
    "rope_theta": "base of the rotary angles",
    "rope_layout": "which entries of a head turn together: i and i + R/2, or 2i and 2i + 1",
    "rope_fraction": "part of a head that turns",
    "window": "positions that a query sees, itself included; none: all of the past",
    "norm_kind": "normalization",
    "norm_place": "before each sublayer or after it",
    "norm_eps": "added under the root",
    "norm_on_qk": "normalize queries and keys as well",
    "mlp": "nonlinearity of the MLP",
    "bias": "which linear layers add a bias",
    "tied": "one table for embedding and head",
    "dropout": "share of activations dropped in training",
    # TrainConfig
    "n_steps": "updates of the weights",
    "max_lr": "highest learning rate, reached after the warm-up",
    "min_lr": "learning rate at the end",
    "warmup_steps": "steps in which the learning rate rises from 0",
    "schedule": "down along a cosine, or constant and down at the end",
    "decay_share": "share of the steps in which stable_decay goes down",
    "optimizer": "makes steps of gradients; muon: matrices in blocks by it, the rest by AdamW",
    "weight_decay": "how strongly AdamW pulls matrices toward 0",
    "beta1": "AdamW's memory of the gradient",
    "beta2": "AdamW's memory of its square",
    "max_norm": "largest norm of the gradient, longer ones are clipped; inf: none is",
    "n_accumulate": "batches whose gradients make one update",
    "precision": "of weights and products; auto: bfloat16 where it is faster here",
    "compile": "compile each block with torch.compile",
    "evaluate_every": "steps from one evaluation to the next; 0: at the end alone",
    "evaluate_at": "further steps after which to evaluate",
    "save_every": "steps from one checkpoint to the next; 0: at the end alone",
    "keep": "checkpoints that stay",
    "milestones": "steps whose checkpoints stay for good",
}


class _Flag(NamedTuple):
    """A field that a flag sets: its name, with those of the fields around it; hint and default."""

    name: str
    hint: Any
    default: Any


def _flags(config: Any, prefix: str = "") -> list[_Flag]:
    """The flags of a dataclass; those of a dataclass inside follow in the place of its field."""
    hints: dict[str, Any] = get_type_hints(type(config))
    found: list[_Flag] = []
    for field in dataclasses.fields(config):
        name, hint, default = prefix + field.name, hints[field.name], getattr(config, field.name)
        if dataclasses.is_dataclass(default):
            found += _flags(default, f"{name}_")
        elif not any(dataclasses.is_dataclass(part) for part in get_args(hint)):
            # (a dataclass or None, as the scaling of rotary angles, comes with loaded models only)
            found.append(_Flag(name, hint, default))
    return found


def names(config: Any) -> list[str]:
    """The names of the flags that ``add`` makes: ``n_layer``, ``norm_kind``."""
    return [flag.name for flag in _flags(config)]


def _number_or_none(text: str) -> int | None:
    return None if text == "none" else int(text)


_number_or_none.__name__ = "number or none"  # argparse names the type in its errors


def _kind(hint: Any) -> dict[str, Any]:
    """How argparse reads a value of this type."""
    if hint is bool:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    if get_origin(hint) is tuple:
        return {"nargs": "+", "type": get_args(hint)[0], "metavar": "N"}
    if type(None) in get_args(hint):
        return {"type": _number_or_none, "metavar": "N"}
    return {"type": hint, "metavar": "N" if hint is int else "X"}


def _shown(default: Any) -> str:
    """The default in parentheses; nothing where there is none or help says it in words."""
    if default == () or default is None:
        return ""
    if isinstance(default, bool):
        return f" ({'yes' if default else 'no'})"
    return f" ({default:g})" if isinstance(default, float) else f" ({default})"


def add(
    group: argparse._ArgumentGroup, config: Any, meanings: Mapping[str, str] | None = None
) -> None:
    """Add one flag a field of a dataclass, whose values in ``config`` are shown as the defaults.

    ``meanings`` replaces the help of single flags, which then say their default themselves. Raises
    KeyError for a field that nobody has given a meaning.
    """
    special = meanings or {}
    for flag in _flags(config):
        text = special.get(flag.name) or MEANINGS[flag.name] + _shown(flag.default)
        group.add_argument(
            "--" + flag.name.replace("_", "-"),
            dest=flag.name,
            default=argparse.SUPPRESS,
            help=text.replace("%", "%%"),
            **_kind(flag.hint),
        )


def changes(config: Any, typed: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The fields of a dataclass that were typed, for ``dataclasses.replace``.

    ``typed`` is what argparse found, by name. A dataclass inside is replaced as a whole, with the
    fields that were not typed as ``config`` has them.
    """
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            if inner := changes(value, typed, f"{name}_"):
                found[field.name] = dataclasses.replace(value, **inner)
        elif name in typed:
            given = typed[name]
            found[field.name] = tuple(given) if isinstance(given, list) else given
    return found
