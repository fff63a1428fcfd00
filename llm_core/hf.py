"""Checkpoints as Hugging Face keeps them: ``config.json`` and safetensors, read and written.

``parts`` says which tensor of a file fills which rows of which parameter of ours; loading, saving
and checking all read that one list. Every header is held against it before a byte of weights is
allocated, so that a damaged or hostile folder is refused by name. Nothing is executed. Loading
peaks at one copy of the model and one tensor, saving at the model and what a shard has to turn
around. Chapter 4 loads GPT-2 with it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from llm_core import runtime
from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig
from llm_core.download import DownloadError, OfflineError
from llm_core.hfconfig import config_from_hf, config_to_hf, read_json
from llm_core.model import GPT
from llm_core.tokenizer import Tokenizer

StrPath = str | os.PathLike[str]
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FILE_NAME = re.compile(r"[\w-][\w.-]{0,200}\.safetensors", re.ASCII)
SHARD_BYTES = 2 << 30
PREFIXES = {"gpt2": "transformer.", "llama": "model."}
# What old versions saved beside the weights: masks and frequencies, made anew by every program.
BUFFERS = re.compile(r"h\.\d+\.attn\.(masked_)?bias|layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
FETCHED = ("config.json", "model*.safetensors*", "vocab.json", "merges.txt", "tokenizer*.json")


# --- whose rows are whose -----------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A tensor of a file, and the rows of a parameter of ours that hold the same numbers.

    ``shape`` is that of the rows, from ``start`` on; the file has it ``transposed`` in GPT-2's
    layers, which store a matrix as (inputs, outputs).
    """

    name: str
    parameter: str
    shape: tuple[int, ...]
    start: int = 0
    transposed: bool = False

    @property
    def file_shape(self) -> tuple[int, ...]:
        """What the header of the file must say."""
        return self.shape[::-1] if self.transposed else self.shape

    def rows(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The view of our parameter that this part is, in the orientation of the file."""
        rows = parameters[self.parameter].detach()[self.start : self.start + self.shape[0]]
        return rows.T if self.transposed else rows


def _pair(name: str, parameter: str, *args: Any, bias: bool = True) -> Iterator[Part]:
    """A weight and, where there is one, its bias; ``args`` are those of a Part from shape on."""
    weight = Part(f"{name}.weight", f"{parameter}.weight", *args)
    yield weight
    if bias:
        yield Part(f"{name}.bias", f"{parameter}.bias", weight.shape[:1], weight.start)


def _gpt2_parts(config: GPTConfig) -> Iterator[Part]:
    d, f = config.d_model, config.d_ff
    yield Part("transformer.wte.weight", "token_embedding.weight", (config.vocab_size, d))
    yield Part("transformer.wpe.weight", "position_embedding.weight", (config.context_length, d))
    for layer in range(config.n_layer):
        theirs, ours = f"transformer.h.{layer}", f"blocks.{layer}"
        yield from _pair(f"{theirs}.ln_1", f"{ours}.attention_norm", (d,))
        yield from _pair(f"{theirs}.attn.c_attn", f"{ours}.attention.qkv", (3 * d, d), 0, True)
        yield from _pair(f"{theirs}.attn.c_proj", f"{ours}.attention.out", (d, d), 0, True)
        yield from _pair(f"{theirs}.ln_2", f"{ours}.mlp_norm", (d,))
        yield from _pair(f"{theirs}.mlp.c_fc", f"{ours}.mlp.up", (f, d), 0, True)
        yield from _pair(f"{theirs}.mlp.c_proj", f"{ours}.mlp.down", (d, f), 0, True)
    yield from _pair("transformer.ln_f", "final_norm", (d,))


def _llama_parts(config: GPTConfig) -> Iterator[Part]:
    d, f = config.d_model, config.d_ff
    n_q, n_kv = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    on_attention, on_mlp = config.bias in ("all", "attention"), config.bias in ("all", "mlp")
    yield Part("model.embed_tokens.weight", "token_embedding.weight", (config.vocab_size, d))
    for layer in range(config.n_layer):
        theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
        before, attend, mlp = f"{ours}.attention_norm", f"{ours}.attention", f"{ours}.mlp"
        yield from _pair(f"{theirs}.input_layernorm", before, (d,), bias=False)
        start = 0
        for letter, n_rows in zip("qkv", (n_q, n_kv, n_kv), strict=True):
            name, shape = f"{theirs}.self_attn.{letter}_proj", (n_rows, d)
            yield from _pair(name, f"{attend}.qkv", shape, start, bias=on_attention)
            start += n_rows
        name = f"{theirs}.self_attn.o_proj"
        yield from _pair(name, f"{attend}.out", (d, n_q), bias=on_attention)
        name = f"{theirs}.post_attention_layernorm"
        yield from _pair(name, f"{ours}.mlp_norm", (d,), bias=False)
        yield from _pair(f"{theirs}.mlp.gate_proj", f"{mlp}.up", (f, d), bias=on_mlp)
        yield from _pair(f"{theirs}.mlp.up_proj", f"{mlp}.up", (f, d), f, bias=on_mlp)
        yield from _pair(f"{theirs}.mlp.down_proj", f"{mlp}.down", (d, f), bias=on_mlp)
    yield from _pair("model.norm", "final_norm", (d,), bias=False)


def parts(config: GPTConfig) -> Iterator[Part]:
    """All tensors of a checkpoint of such a model, one after the other, by transformers' names.

    Lazily: a config that claims a billion layers costs nothing until they are asked for.
    """
    yield from _gpt2_parts(config) if config.position == "learned" else _llama_parts(config)
    if not config.tied:
        yield Part("lm_head.weight", "head.weight", (config.vocab_size, config.d_model))


# --- reading ------------------------------------------------------------------------------------


class _Stored(NamedTuple):
    """What a header says of a tensor."""

    path: Path
    dtype: str
    shape: tuple[int, ...]


def _open(path: Path) -> Any:
    """safe_open by reading: a mapped file would count, and die, with the pages of the file."""
    try:
        return safe_open(path, framework="pt", backend="pread")
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged or no safetensors file ({error}); fetch or save it again"
        ) from error


def _weight_files(folder: Path) -> list[Path]:
    """The one file of weights, or those that the index names, which lie in the folder itself."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise CheckpointError(
            f"{folder} has neither {WEIGHTS} nor {INDEX}. Weights in pytorch_model.bin are not "
            "read, since reading them runs code from the file: where you trust it, convert it with "
            "transformers, AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{folder / INDEX} has no weight_map; fetch or save it again")
    for name in weight_map.values():
        if not isinstance(name, str) or not FILE_NAME.fullmatch(name):
            raise CheckpointError(
                f"{folder / INDEX} names {brief(name)}, which is no safetensors file in its folder"
            )
    files = [folder / name for name in sorted(set(weight_map.values()))]
    for path in files:
        if not path.is_file():
            raise CheckpointError(f"{INDEX} names {path.name}, which {folder} lacks; fetch it")
    return files


def _headers(files: Iterable[Path]) -> dict[str, _Stored]:
    """What the headers say of every tensor in the files."""
    stored: dict[str, _Stored] = {}
    for path in files:
        with _open(path) as file:
            for name in sorted(file.keys()):
                if name in stored:
                    raise CheckpointError(f"{name} is in {stored[name].path.name} and {path.name}")
                entry = file.get_slice(name)
                stored[name] = _Stored(path, entry.get_dtype(), tuple(entry.get_shape()))
    return stored


def _matched(config: GPTConfig, prefix: str, stored: dict[str, _Stored]) -> list[tuple[str, Part]]:
    """Each part with its name in the files. Raises CheckpointError unless all fits."""
    cut = "" if any(name.startswith(prefix) for name in stored) else prefix
    matched: list[tuple[str, Part]] = []
    for part in parts(config):
        name = part.name.removeprefix(cut)
        if name not in stored:
            raise CheckpointError(f"the files have no tensor {name}, which config.json calls for")
        path, dtype, shape = stored[name]
        if shape != part.file_shape:
            raise CheckpointError(
                f"{name} in {path.name} has shape {shape}, config.json makes it {part.file_shape}"
            )
        if dtype not in DTYPES:
            raise CheckpointError(
                f"{name} in {path.name} is {dtype}; only {', '.join(DTYPES)} are read"
            )
        matched.append((name, part))
    left = set(stored) - {name for name, _ in matched}
    if config.tied:
        left.discard("lm_head.weight")
    left = {name for name in left if not BUFFERS.fullmatch(name.removeprefix(prefix))}
    if left:
        raise CheckpointError(
            f"the files have {len(left)} tensors that config.json does not call for: "
            f"{', '.join(sorted(left)[:3])}"
        )
    return matched


def _check_tied(weight: Tensor, stored: dict[str, _Stored]) -> None:
    """A head that is stored although it is tied must be the embedding."""
    if "lm_head.weight" not in stored:
        return
    path, dtype, shape = stored["lm_head.weight"]
    same = shape == weight.shape and dtype in DTYPES
    if same:
        with _open(path) as file:
            same = torch.equal(file.get_tensor("lm_head.weight").to(weight.dtype), weight)
    if not same:
        raise CheckpointError(
            "lm_head.weight differs from the embedding, but config.json says tie_word_embeddings; "
            "set that to false if the head is meant"
        )


class _NoDraws(TorchFunctionMode):
    """Draw no initial weights: on the meta device that would import sympy, for 0.9 s and 75 MB."""

    def __torch_function__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if f is nn.init.normal_ else f(*args, **(kwargs or {}))


@torch.no_grad()
def load_pretrained(folder: StrPath, dtype: torch.dtype = torch.float32) -> GPT:
    """The model of a Hugging Face folder, in evaluation mode on the CPU, its weights as ``dtype``.

    Reads fp32, bf16 and fp16, in one file or in shards. Raises NotImplementedError naming a feature
    that is not supported, FileNotFoundError for no folder, and CheckpointError, a ValueError, for
    one whose files are damaged, incomplete, foreign or at odds with its ``config.json``; ValueError
    also for a ``dtype`` that is none of the three.
    """
    folder = Path(folder)
    if dtype not in DTYPES.values():
        raise ValueError(f"dtype={dtype} must be torch.float32, torch.bfloat16 or torch.float16")
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; hf.fetch(REPOSITORY) downloads one and returns its path"
        )
    fields = read_json(folder / "config.json")
    config = config_from_hf(fields)
    stored = _headers(_weight_files(folder))
    matched = _matched(config, PREFIXES[fields["model_type"]], stored)
    with torch.device("meta"), _NoDraws():
        model = GPT(config)
    parameters = {
        name: torch.empty(p.shape, dtype=dtype, device="cpu")
        for name, p in model.named_parameters()
    }
    for path in sorted({stored[name].path for name, _ in matched}):
        with _open(path) as file:
            for name, part in matched:
                if stored[name].path == path:
                    part.rows(parameters).copy_(file.get_tensor(name))
    if config.tied:
        _check_tied(parameters["token_embedding.weight"], stored)
    model.load_state_dict(parameters, assign=True)
    return model.eval()


# --- writing ------------------------------------------------------------------------------------


def _shards(every: Iterable[Part], parameters: Mapping[str, Tensor], most: int) -> list[list[Part]]:
    """Parts in order, as many to a shard as ``most`` bytes hold, but at least one."""
    shards: list[list[Part]] = [[]]
    left = most
    for part in every:
        left -= part.rows(parameters).nbytes
        if left < 0 and shards[-1]:
            shards.append([])
            left = most - part.rows(parameters).nbytes
        shards[-1].append(part)
    return shards


def _write_weights(model: GPT, folder: Path, most: int) -> None:
    parameters = dict(model.named_parameters())
    shards = _shards(parts(model.config), parameters, most)
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [WEIGHTS]
    for name, shard in zip(names, shards, strict=True):
        tensors = {part.name: part.rows(parameters).contiguous() for part in shard}
        save_file(tensors, folder / name, metadata={"format": "pt"})
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())
    if len(shards) > 1:
        weight_map = {part.name: names[i] for i, shard in enumerate(shards) for part in shard}
        n_bytes = sum(part.rows(parameters).nbytes for shard in shards for part in shard)
        index = {"metadata": {"total_size": n_bytes}, "weight_map": weight_map}
        with runtime.atomic_write(folder / INDEX, "w") as file:
            json.dump(index, file, indent=1)


def save_pretrained(model: GPT, folder: StrPath, max_shard_bytes: int = SHARD_BYTES) -> None:
    """Write a folder that transformers loads with the same logits; it is made if absent.

    Weights are written beside those of an earlier save and take their place at the end, when
    ``config.json`` is away: a process killed at any moment leaves the old checkpoint, the new one
    or one that is refused, and never a mixture. Other files in the folder stay.
    Raises NotImplementedError for an option of the model that neither family has, ValueError for
    parameters that are no plain GPT's (adapters, quantized weights) or no fp32, bf16 or fp16.
    """
    config, folder = model.config, Path(folder)
    fields = config_to_hf(config)
    parameters = dict(model.named_parameters())
    if strange := set(parameters) ^ {part.parameter for part in parts(config)}:
        raise ValueError(f"{min(strange)} is missing or no parameter of a GPT; merge adapters")
    dtypes = {parameter.dtype for parameter in parameters.values()}
    if len(dtypes) > 1 or not dtypes <= set(DTYPES.values()):
        raise ValueError(f"{sorted(map(str, dtypes))} must be one of fp32, bf16 and fp16; use .to")
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes={max_shard_bytes} must be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", suffix=".part", dir=folder) as new:
        _write_weights(model, Path(new), max_shard_bytes)
        (folder / "config.json").unlink(missing_ok=True)
        for old in [*folder.glob("model*.safetensors"), folder / INDEX]:
            old.unlink(missing_ok=True)
        for path in Path(new).iterdir():
            os.replace(path, folder / path.name)
    with runtime.atomic_write(folder / "config.json", "w") as file:
        json.dump({**fields, "dtype": str(dtypes.pop()).removeprefix("torch.")}, file, indent=1)


# --- the tokenizer and the Hub ------------------------------------------------------------------


def load_tokenizer(folder: StrPath) -> Tokenizer:
    """GPT-2's tokenizer from ``vocab.json`` and ``merges.txt``.

    Raises NotImplementedError for the tokenizer of another family, which may cut text otherwise,
    CheckpointError where ``config.json`` is missing, and ValueError for damaged files.
    """
    folder = Path(folder)
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    kind = read_json(folder / "config.json").get("model_type")
    if kind != "gpt2" or not (vocab.is_file() and merges.is_file()):
        raise NotImplementedError(
            f"{folder}: only GPT-2's vocab.json and merges.txt are read, not the tokenizer.json of "
            f"model_type={brief(kind)}; use the package tokenizers for it"
        )
    return Tokenizer.from_gpt2(vocab, merges)


def fetch(repo_id: str, revision: str | None = None) -> Path:
    """The folder of a repository of the Hub, such as ``openai-community/gpt2``, downloaded if new.

    Only ``config.json``, safetensors and tokenizer files are fetched, into Hugging Face's own
    cache, where other programs' downloads are found as well. ``revision`` pins a branch, a tag or
    a commit. Under ``LLM_CORE_OFFLINE=1`` nothing is asked for. Raises OfflineError where the files
    are absent and there is no network, and DownloadError where the Hub refuses.
    """
    import httpx2
    from huggingface_hub import constants, errors, snapshot_download

    offline = os.environ.get("LLM_CORE_OFFLINE", "0") not in ("", "0")
    given = repr(repo_id) if revision is None else f"{repo_id!r}, {revision!r}"
    try:
        path = snapshot_download(
            repo_id, revision=revision, allow_patterns=list(FETCHED), local_files_only=offline
        )
    except (errors.LocalEntryNotFoundError, httpx2.TransportError) as error:
        state = "LLM_CORE_OFFLINE is set" if offline else "the Hub cannot be reached"
        place = "models--" + repo_id.replace("/", "--")
        raise OfflineError(
            f"{repo_id} is absent or incomplete in {constants.HF_HUB_CACHE} and {state}; where "
            f'there is a network run `python -c "from llm_core import hf; hf.fetch({given})"`, '
            f"then copy the folder {place} of its cache there"
        ) from error
    except errors.HfHubHTTPError as error:
        reason = f"{type(error).__name__}, {str(error).splitlines()[0]}"
        raise DownloadError(
            f"the Hub refuses {repo_id} ({reason}); check name and revision, and log in with "
            "`hf auth login` where a license must be accepted"
        ) from error
    return Path(path)
