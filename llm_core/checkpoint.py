"""Checkpoints: all that a run needs to go on as if it had never stopped, in files that are checked.

A run's folder holds one folder a checkpoint, ``step-00001000``, with two safetensors files
(weights; optimizer and random state) and a json that names them with their sha256. A checkpoint is
built in a hidden folder, flushed to disk and renamed, so it is there whole or not at all: a process
killed at any moment leaves the last good one. Nothing is pickled. Chapter 5 kills a run to see.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llm_core import runtime
from llm_core.config import GPTConfig
from llm_core.model import GPT, parameter_table

FORMAT = "llm_core checkpoint 1"
MANIFEST, WEIGHTS, STATE = "checkpoint.json", "model.safetensors", "state.safetensors"
STEP_FOLDER = re.compile(r"step-(\d{8,})")
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# What json must give for each field of a manifest.
KINDS: dict[str, tuple[type, ...]] = {
    "step": (int,),
    "config": (dict,),
    "tokenizer_hash": (str, type(None)),
    "optimizer": (dict, type(None)),
    "data": (dict, type(None)),
    "extra": (dict,),
    "sha256": (dict,),
}


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or belongs to something else."""


class Trainable(Protocol):
    """What ``train`` trains: a GPT, or another ``nn.Module`` that has these parts of one."""

    training: bool

    @property
    def config(self) -> GPTConfig: ...
    @property
    def blocks(self) -> nn.ModuleList: ...
    @property
    def output_weight(self) -> Tensor: ...
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...
    def to(self, dtype: torch.dtype) -> Any: ...


@dataclass(frozen=True)
class Checkpoint:
    """What ``load`` read: sizes as json keeps them, tensors by name.

    ``optimizer`` is the optimizer's own ``state_dict`` or None, ``data`` the state of the batches
    or None, ``random`` torch's generators by device, ``extra`` whatever the run wished to keep.
    """

    path: Path
    step: int
    config: GPTConfig
    tokenizer_hash: str | None
    weights: dict[str, Tensor] = field(repr=False)
    optimizer: dict[str, Any] | None = field(repr=False)
    data: dict[str, Any] | None = field(repr=False)
    random: dict[str, Tensor] = field(repr=False)
    extra: dict[str, Any] = field(repr=False)

    def model(self) -> GPT:
        """A model with these weights, in their dtype and memory, in evaluation mode.

        Raises CheckpointError where they are not those of the config, before a model is made.
        """
        n_tensors, n_numbers = len(self.weights), sum(t.numel() for t in self.weights.values())
        wanted = sum(parameter_table(self.config).values())
        if wanted != n_numbers or self.config.n_layer > n_tensors:
            raise CheckpointError(
                f"{self.path} holds {n_numbers} numbers in {n_tensors} tensors, a model of "
                f"{self.config} has {wanted}; {MANIFEST} was altered"
            )
        if len(dtypes := {tensor.dtype for tensor in self.weights.values()}) > 1:
            raise CheckpointError(f"{self.path} has {sorted(map(str, dtypes))}, a model one dtype")
        with torch.device("meta"):
            model = GPT(self.config)
        load_weights(model, self.weights, self.path)
        return model.eval()

    def check_tokenizer(self, tokenizer_hash: str) -> None:
        """Raise CheckpointError unless the model was trained on this tokenizer's ids."""
        if self.tokenizer_hash != tokenizer_hash:
            raise CheckpointError(
                f"{self.path} was trained with the tokenizer {self.tokenizer_hash}, this one is "
                f"{tokenizer_hash}: the same ids would mean other words; load the tokenizer that "
                "was saved beside the checkpoint"
            )


# --- the state of an optimizer as tensors and plain values ----------------------------------------


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's ``state_dict`` as tensors by name and the rest as json takes it."""
    whole = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}  # what optimizers not of this package keep beside tensors
    for index, entries in whole["state"].items():
        for key, value in entries.items():
            name = f"optimizer.{index}.{key}"
            if isinstance(value, Tensor):
                tensors[name] = value
            else:
                values[name] = value
    return tensors, {"values": values, "param_groups": whole["param_groups"]}


def _unflatten(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    kept = {name: t for name, t in tensors.items() if name.startswith("optimizer.")}
    for name, value in {**kept, **plain["values"]}.items():
        _, index, key = name.split(".", 2)
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": plain["param_groups"]}


def _random_state() -> dict[str, Tensor]:
    states = {"random.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random.cuda"] = torch.cuda.get_rng_state()
    return states


# --- writing ------------------------------------------------------------------------------------


def _write_files(
    folder: Path, files: Mapping[str, Mapping[str, Tensor]], manifest: dict[str, Any]
) -> None:
    """The tensors, then the manifest with their hashes, all flushed to disk."""
    for name, tensors in files.items():
        try:
            save_file({key: t.detach().contiguous() for key, t in tensors.items()}, folder / name)
        except SafetensorError as error:  # its word for a full disk
            raise OSError(f"cannot write {folder / name}: {error}") from error
        runtime.flush_to_disk(folder / name)
    manifest["sha256"] = {name: runtime.sha256(folder / name) for name in files}
    with runtime.atomic_write(folder / MANIFEST, "w") as file:
        json.dump(manifest, file, indent=1)


def steps(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """The checkpoints of a run, whole ones only: step -> folder, oldest first."""
    if not Path(folder).is_dir():
        return {}
    found = {}
    for path in Path(folder).iterdir():
        match = STEP_FOLDER.fullmatch(path.name)
        if match and (path / MANIFEST).exists():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def _clear(folder: Path, keep: int) -> None:
    """Remove what a killed process left half-written, and checkpoints beyond the last ``keep``."""
    for path in list(steps(folder).values())[:-keep]:
        doomed = path.with_name(f".{path.name}.part")  # renamed first: never there by halves
        os.replace(path, doomed)
    for path in folder.glob(".step-*.part"):
        shutil.rmtree(path)


def _folder_for(folder: str | os.PathLike[str], step: int, keep: int) -> Path:
    """The run's folder, made if absent, once it is certain that the step may be written there."""
    if keep < 1:
        raise ValueError(f"keep={keep} would delete the checkpoint just written; keep at least 1")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if step in steps(folder):
        raise CheckpointError(
            f"{folder} holds a checkpoint of step {step} already; resume from it, or choose "
            "another folder for another run"
        )
    return folder


def save(
    folder: str | os.PathLike[str],
    model: Trainable,
    *,
    step: int,
    optimizer: torch.optim.Optimizer | None = None,
    data: Mapping[str, Any] | None = None,
    tokenizer_hash: str | None = None,
    extra: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Write the checkpoint of a step into a run's folder; return its own folder.

    ``data`` is the state of the batches, ``extra`` anything that json takes. The last ``keep``
    checkpoints are kept. Raises CheckpointError if the run has this step already, ValueError for
    ``keep`` below 1; an OSError (disk full, folder read-only) leaves older checkpoints as they are.
    """
    folder = _folder_for(folder, step, keep)
    tensors, plain = ({}, None) if optimizer is None else _flatten(optimizer)
    name = f"step-{step:08d}"
    part = folder / f".{name}.{secrets.token_hex(4)}.part"
    part.mkdir()
    manifest = {
        "format": FORMAT,
        "step": step,
        "config": model.config.to_dict(),
        "tokenizer_hash": tokenizer_hash,
        "data": None if data is None else dict(data),
        "optimizer": plain,
        "extra": dict(extra or {}),
    }
    try:
        files = {WEIGHTS: model.state_dict(), STATE: {**tensors, **_random_state()}}
        _write_files(part, files, manifest)
        os.replace(part, folder / name)
        runtime.flush_to_disk(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # gone already where the rename has happened
    _clear(folder, keep)
    return folder / name


# --- reading ------------------------------------------------------------------------------------


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(
            f"{path / MANIFEST} cannot be read ({error}){_remedy(path)}"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CheckpointError(f"{path / MANIFEST} is no {FORMAT}{_remedy(path)}")
    for name, kinds in KINDS.items():
        if not isinstance(manifest.get(name, ()), kinds):
            raise CheckpointError(f"{path / MANIFEST} was altered ({name!r}){_remedy(path)}")
    return manifest


def _remedy(path: Path) -> str:
    older = [other for other in steps(path.parent).values() if other.name < path.name]
    return f"; load {older[-1]} instead" if older else "; there is no older checkpoint beside it"


def _tensors(path: Path, name: str, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """A file's tensors, after its bytes were held against their hash."""
    file = path / name
    if not file.is_file():
        raise CheckpointError(f"{file} is missing{_remedy(path)}")
    if runtime.sha256(file) != manifest["sha256"].get(name):
        raise CheckpointError(f"{file} is truncated or was altered{_remedy(path)}")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise CheckpointError(f"{file} holds no tensors ({error}){_remedy(path)}") from error


def load(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint; of a run's folder, its latest one.

    Raises CheckpointError, with the file and what to load instead, where there is none or where
    it is truncated, altered or no checkpoint.
    """
    path = Path(path)
    if not (path / MANIFEST).exists():
        found = steps(path)
        if not found:
            raise CheckpointError(
                f"there is no checkpoint in {path}; give the folder of a run or of one step"
            )
        path = list(found.values())[-1]
    manifest = _manifest(path)
    weights, state = (_tensors(path, name, manifest) for name in (WEIGHTS, STATE))
    try:
        plain = manifest["optimizer"]
        return Checkpoint(
            path=path,
            step=manifest["step"],
            config=GPTConfig.from_dict(manifest["config"]),
            tokenizer_hash=manifest["tokenizer_hash"],
            weights=weights,
            optimizer=None if plain is None else _unflatten(state, plain),
            data=manifest["data"],
            random={k: t for k, t in state.items() if k.startswith("random.")},
            extra=manifest["extra"],
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise CheckpointError(
            f"{path / MANIFEST} was altered ({error!r}){_remedy(path)}"
        ) from error


def _check_shapes(
    state: Mapping[str, Tensor], weights: Mapping[str, Tensor], source: object
) -> None:
    shapes = {name: tuple(t.shape) for name, t in state.items()}
    found = {name: tuple(t.shape) for name, t in weights.items()}
    for name in sorted(shapes.keys() | found.keys()):
        if shapes.get(name) != found.get(name):
            raise CheckpointError(
                f"{source}: {name} has shape {found.get(name)}, the model wants "
                f"{shapes.get(name)}; load it into a model of the same config, with the same parts"
            )
        if weights[name].dtype not in FLOATS:
            raise CheckpointError(f"{source}: {name} is {weights[name].dtype}, which no model is")


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: object) -> None:
    """Give a model these weights, in their own dtype; also a model on the meta device.

    Raises CheckpointError, naming ``source``, for tensors that are missing, left over or misshapen.
    """
    _check_shapes(model.state_dict(), weights, source)
    model.load_state_dict(dict(weights), assign=True)


def _restore_optimizer(checkpoint: Checkpoint, optimizer: torch.optim.Optimizer) -> None:
    if checkpoint.optimizer is None:
        raise CheckpointError(
            f"{checkpoint.path} was saved without its optimizer; start a new run from its weights "
            "with Checkpoint.model()"
        )
    ours = [len(group["params"]) for group in optimizer.param_groups]
    try:
        kept = [len(group["params"]) for group in checkpoint.optimizer["param_groups"]]
        if kept == ours:
            optimizer.load_state_dict(checkpoint.optimizer)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: the state of its optimizer was altered ({error!r})"
            f"{_remedy(checkpoint.path)}"
        ) from error
    if kept != ours:
        raise CheckpointError(
            f"{checkpoint.path} belongs to a run with groups of {kept} tensors that learn, this "
            f"one has {ours}; freeze the same parts and take the same optimizer"
        )


def restore(
    checkpoint: Checkpoint,
    model: Trainable,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Put weights, optimizer and random generators where they stood; the batches restore their own.

    Raises CheckpointError if the model has another config or other parts, if others of them learn,
    if the checkpoint has no optimizer state, or if that of optimizer or generators is damaged.
    """
    if checkpoint.config != model.config:
        raise CheckpointError(
            f"{checkpoint.path} is of {checkpoint.config}, the model is {model.config}; make the "
            "model from the checkpoint's config"
        )
    state = model.state_dict()
    _check_shapes(state, checkpoint.weights, checkpoint.path)
    if optimizer is not None:
        _restore_optimizer(checkpoint, optimizer)
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(checkpoint.weights[name])
    try:
        torch.set_rng_state(checkpoint.random["random.cpu"])
        if "random.cuda" in checkpoint.random and torch.cuda.is_available():
            torch.cuda.set_rng_state(checkpoint.random["random.cuda"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint.path / STATE} holds no state of a generator ({error})"
            f"{_remedy(checkpoint.path)}"
        ) from error
