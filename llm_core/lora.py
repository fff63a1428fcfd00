"""LoRA: fine-tuning that learns two thin matrices beside each large one and leaves it alone.

``attach`` changes a model from outside, by the names of its layers; neither the model nor ``train``
knows of it. What is learned is a small part of the parameters, and a file of its own; ``merge``
adds it to the weights, and the model is an ordinary one again. Chapter 6 derives the product and
measures what it is worth beside training all of the model.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from llm_core import runtime
from llm_core.checkpoint import CheckpointError

FORMAT = "llm_core lora 1"
TARGETS = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")


class LoRALinear(nn.Module):
    """A linear layer and a product of low rank beside it: x (..., in) -> (..., out).

        y = base(x) + (alpha / r) (x Aᵀ) Bᵀ

    A, ``a`` (r, in), is drawn from a normal of standard deviation 1 / sqrt(in) with torch's global
    generator; B, ``b`` (out, r), is 0 at first, so that the layer begins as ``base``. Both are on
    its device and in its dtype. Paper: Hu et al. (2022).
    """

    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base, self.r, self.alpha = base, r, alpha
        like, std = base.weight.detach(), 1 / math.sqrt(base.in_features)
        self.a = nn.Parameter(like.new_empty(r, base.in_features).normal_(std=std))
        self.b = nn.Parameter(like.new_zeros(base.out_features, r))

    @property
    def weight(self) -> Tensor:
        """The matrix that the layer amounts to, (out, in): W + (alpha / r) B A.

        Added up in float32 where the layer is narrower, and rounded once.
        """
        wide = torch.promote_types(self.base.weight.dtype, torch.float32)
        change = self.b.to(wide) @ self.a.to(wide)
        return (self.base.weight.to(wide) + self.alpha / self.r * change).to(self.base.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Both ways, added; the (out, in) product of B and A is never made."""
        thin = F.linear(x, self.a) * (self.alpha / self.r)  # (..., r)
        y: Tensor = self.base(x) + F.linear(thin, self.b)
        return y


# --- which parts learn ----------------------------------------------------------------------------


def learn_only(model: nn.Module, parts: Sequence[str]) -> None:
    """Let the parameters of these parts learn and freeze all others.

    A part is a module or a parameter by its name: ``head``, ``blocks.3``, ``final_norm.weight``; ""
    is all of the model. Raises ValueError, and changes nothing, for a name that fits none.
    """
    parameters = dict(model.named_parameters())
    chosen = {part: {name for name in parameters if _within(name, part)} for part in parts}
    if lost := [part for part, names in chosen.items() if not names]:
        known = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
        raise ValueError(f"{lost[0]!r} names no part of the model that can learn; it has {known}")
    learned = set().union(*chosen.values())
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in learned)


def _within(name: str, part: str) -> bool:
    return part in ("", name) or name.startswith(f"{part}.")


def share(model: nn.Module) -> float:
    """The share of the model's parameters that learn, between 0 and 1."""
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return learned / sum(p.numel() for p in model.parameters())


# --- to and from a model --------------------------------------------------------------------------


def _layers(model: nn.Module) -> dict[str, LoRALinear]:
    return {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}


def attached(model: nn.Module) -> list[str]:
    """The names of the layers that have a LoRA part now."""
    return list(_layers(model))


def attach(
    model: nn.Module,
    r: int = 8,
    alpha: float = 16.0,
    targets: Sequence[str] = TARGETS,
    train: Sequence[str] = (),
) -> list[str]:
    """Put a ``LoRALinear`` in the place of each linear layer that is meant; return their names.

    ``targets`` are names or ends of names: ``mlp.up`` is that layer of every block. All other
    parameters are frozen but those of the parts ``train``, see ``learn_only``: the new head of a
    classifier. What the model computes does not change.

    Raises ValueError, and changes nothing, where a target fits no layer, for an ``r`` below 1, an
    ``alpha`` that is not above 0, a part that there is none of, and for a model that has LoRA parts
    already.
    """
    if r < 1 or not 0 < alpha < math.inf:
        raise ValueError(
            f"r={r} must be at least 1 and alpha={alpha} finite and above 0; try 8, 16"
        )
    if there := attached(model):
        raise ValueError(
            f"the model has {len(there)} LoRA parts already, in {there[0]} for one; merge them "
            "first with lora.merge"
        )
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    found = {end: [name for name in linear if f".{name}".endswith(f".{end}")] for end in targets}
    if not found or not all(found.values()):
        lost = next((end for end, names in found.items() if not names), "no target")
        raise ValueError(
            f"targets={tuple(targets)}: {lost!r} fits no linear layer; there are "
            f"{', '.join(linear)}"
        )
    chosen = [name for name in linear if any(name in names for names in found.values())]
    learn_only(model, train)
    for name in chosen:
        _put(model, name, LoRALinear(linear[name], r, alpha))
    return chosen


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def merge(model: nn.Module) -> None:
    """Add every product to its matrix, which takes the layer's place again; all parameters learn.

    The model computes what it did, up to the rounding of its dtype, and is as fast as before
    ``attach``. Raises ValueError where nothing is attached.
    """
    for name, layer in _required(model).items():
        layer.base.weight.copy_(layer.weight)
        _put(model, name, layer.base)
    model.requires_grad_(True)


def _required(model: nn.Module) -> dict[str, LoRALinear]:
    layers = _layers(model)
    if not layers:
        raise ValueError("the model has no LoRA parts; put some there first with lora.attach")
    return layers


# --- the file -------------------------------------------------------------------------------------


def adapter(model: nn.Module) -> dict[str, Tensor]:
    """What fine-tuning has learned, by name: every A and B, and the parts that ``train`` named.

    The tensors share their memory with the model. Raises ValueError where nothing is attached.
    """
    ours = {f"{name}.{part}" for name in _required(model) for part in ("a", "b")}
    parameters = model.named_parameters()
    return {name: p.detach() for name, p in parameters if name in ours or p.requires_grad}


def _base(model: nn.Module) -> str:
    """A fingerprint of the model without its LoRA parts: the names and shapes of parameters."""
    ours = {f"{name}.{part}" for name in attached(model) for part in ("a", "b")}
    parameters = [(name, p) for name, p in model.named_parameters() if name not in ours]
    shapes = sorted((name.replace(".base.", "."), list(p.shape)) for name, p in parameters)
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """sha256 of all that a file holds: safetensors itself would not see a flipped bit."""
    known = sorted((key, value) for key, value in metadata.items() if key != "sha256")
    digest = hashlib.sha256(json.dumps(known).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write ``adapter(model)`` and nothing else to a safetensors file, whole or not at all.

    Its metadata say r, alpha, which layers, and what model they belong to. Raises ValueError where
    nothing is attached.
    """
    tensors = {name: t.cpu().contiguous() for name, t in adapter(model).items()}
    layers = _required(model)
    one = next(iter(layers.values()))
    metadata = {
        "format": FORMAT,
        "r": str(one.r),
        "alpha": repr(float(one.alpha)),
        "targets": json.dumps(list(layers)),
        "base": _base(model),
    }
    metadata["sha256"] = _digest(tensors, metadata)
    with runtime.atomic_write(path) as file:
        file.write(as_bytes(tensors, metadata))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file that ``save`` wrote and nothing has touched since."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; write one with lora.save")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({error}); save the adapter anew"
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path} is no {FORMAT} file (its format is {metadata.get('format')}); give what "
            "lora.save wrote"
        )
    if metadata.get("sha256") != _digest(tensors, metadata):
        raise CheckpointError(f"{path} was altered since it was written; save the adapter anew")
    return tensors, metadata


def _settings(path: Path, metadata: Mapping[str, str]) -> tuple[int, float, list[str]]:
    """r, alpha and the names of layers."""
    try:
        layers = json.loads(metadata["targets"])
        if not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
            raise ValueError("targets are no names")
        return int(metadata["r"]), float(metadata["alpha"]), layers
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no adapter ({error!r}); save it anew") from error


def _checked(
    path: Path, model: nn.Module, tensors: Mapping[str, Tensor], r: int, layers: Sequence[str]
) -> set[str]:
    """The names of every A and B. Raises CheckpointError where a tensor does not fit the model."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    ours: dict[str, tuple[int, ...]] = {}
    for name in layers:
        weight = shapes.get(f"{name}.weight", ())
        if len(weight) != 2:
            raise CheckpointError(f"{path}: the model has no linear layer {name!r}")
        ours |= {f"{name}.a": (r, weight[1]), f"{name}.b": (weight[0], r)}
    for name in sorted(tensors.keys() | ours.keys()):
        wanted = ours.get(name) or shapes.get(name.replace(".base.", "."))
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != wanted:
            raise CheckpointError(f"{path}: {name} has shape {found}, the model wants {wanted}")
        if not tensors[name].dtype.is_floating_point:
            raise CheckpointError(f"{path}: {name} is {tensors[name].dtype}, which no weight is")
    return set(ours)


def load(model: nn.Module, path: str | os.PathLike[str]) -> list[str]:
    """Attach what ``save`` wrote to a model like the one it was saved from; return layers' names.

    Numbers take the model's dtype. That names and shapes agree is checked; whether the model has
    the weights that the adapter was trained beside is not.

    Raises CheckpointError, and changes nothing, for a file that is missing, damaged or no adapter,
    and for another architecture; ValueError for a model that has LoRA parts already.
    """
    tensors, metadata = _read(Path(path))
    if there := attached(model):
        raise ValueError(
            f"the model has {len(there)} LoRA parts already; merge them first with lora.merge"
        )
    if metadata.get("base") != _base(model):
        raise CheckpointError(
            f"{path} belongs to a model with other parameters or other shapes; load it into one "
            "made as that was"
        )
    r, alpha, layers = _settings(Path(path), metadata)
    ours = _checked(Path(path), model, tensors, r, layers)
    others = [name.replace(".base.", ".") for name in tensors if name not in ours]
    try:
        names = attach(model, r, alpha, layers, others)
    except ValueError as error:
        raise CheckpointError(f"{path} does not fit the model: {error}") from error
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    return names
