"""Token ids on disk: raw shards, mapped into memory, and the json that says what they are.

A data set ``NAME`` is ``NAME-00000.bin``, ``NAME-00001.bin`` ... (little-endian ids without a
header, uint16 or uint32) and ``NAME.json``, written last: counts, dtype, sha256 of each shard and
the hash of the tokenizer. ``Tokenizer.encode_to_file`` writes them; ``load`` opens them and refuses
what does not fit. Nothing is read before it is used, so memory does not grow with the corpus.
Chapter "Embeddings" shows why a memory map is enough.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import repr as brief
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_core import runtime

FORMAT = "llm_core token shards"
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}

Ids = NDArray[np.integer[Any]]


class DatasetError(ValueError):
    """The files on disk are not the data set that their json describes."""


@dataclass(frozen=True)
class Shard:
    """One file of raw little-endian ids."""

    path: Path
    n_tokens: int
    sha256: str


@dataclass(frozen=True)
class Dataset:
    """What the json says, and the ids themselves, mapped into memory."""

    shards: tuple[Shard, ...]
    dtype: np.dtype[Any]
    n_tokens: int
    n_documents: int
    end_id: int | None
    vocab_size: int
    tokenizer_hash: str
    metadata: Mapping[str, Any]
    _starts: NDArray[np.int64] = field(repr=False)
    _ids: tuple[Ids, ...] = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Identifies the ids, wherever the files lie: 16 hex digits."""
        text = "".join(shard.sha256 for shard in self.shards) + self.dtype.name + str(self.end_id)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def windows(self, starts: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """The ids from each start on: (B,) int64 -> (B, length) int64.

        A row is one copy of consecutive memory, which beats an index array; a window may reach over
        the end of its shard. Raises ValueError for a window that leaves the data set.
        """
        if len(starts) and not 0 <= starts.min() <= starts.max() <= self.n_tokens - length:
            raise ValueError(
                f"windows of {length} ids from {starts.min()} to {starts.max()} leave the data "
                f"set, which has {self.n_tokens}; start at 0 to {self.n_tokens - length}"
            )
        out = np.empty((len(starts), length), dtype=np.int64)
        shards = np.searchsorted(self._starts, starts, side="right") - 1
        offsets = starts - self._starts[shards]
        for row, shard, offset in zip(out, shards.tolist(), offsets.tolist(), strict=True):
            piece = self._ids[shard][offset : offset + length]
            row[: len(piece)] = piece
            filled = len(piece)
            while filled < length:
                shard += 1
                piece = self._ids[shard][: length - filled]
                row[filled : filled + len(piece)] = piece
                filled += len(piece)
        return out


def manifest_path(path: str | os.PathLike[str]) -> Path:
    """``NAME.json`` for ``NAME`` or ``NAME.json``."""
    given = Path(path)
    return given if given.suffix == ".json" else given.with_name(f"{given.name}.json")


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        begun = any(path.parent.glob(f"{path.stem}-*.bin"))
        reason = "shards without it are left from a write that did not finish; " if begun else ""
        raise FileNotFoundError(
            f"no data set at {path}: {reason}make it with "
            f"dataset.write(documents, tokenizer, {str(path.with_suffix(''))!r})"
        )
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} is not json ({error}); write the data set again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise DatasetError(f"{path} describes no data set of ours; point to one by dataset.write")
    return manifest


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _is_shard(value: Any) -> bool:
    """Whether a json value names a file beside the json, its ids and its sha256."""
    if not isinstance(value, dict) or not isinstance(value.get("sha256"), str):
        return False
    name = value.get("file")
    plain = isinstance(name, str) and re.fullmatch(r"[^/\\\0]+\.bin", name) is not None
    return plain and _is_count(value.get("n_tokens"))


def _check_fields(path: Path, manifest: dict[str, Any]) -> None:
    """Raise DatasetError, naming the field, where one is missing or no such thing."""
    listed = manifest.get("shards")
    fits = {
        "shards": isinstance(listed, list) and all(map(_is_shard, listed)),
        "end_id": manifest.get("end_id", -1) is None or _is_count(manifest.get("end_id")),
        "tokenizer": isinstance(manifest.get("tokenizer"), str),
        "metadata": isinstance(manifest.get("metadata"), dict),
        **{
            name: _is_count(manifest.get(name))
            for name in ("n_tokens", "n_documents", "vocab_size")
        },
    }
    for name, fit in fits.items():
        if not fit:
            raise DatasetError(f"{path}: {name!r} was altered; write the data set again")


def _check_shard(shard: Shard, dtype: np.dtype[Any], verify: bool) -> None:
    try:
        there = shard.path.is_file()
    except OSError:  # a name that no file can have
        there = False
    if not there:
        raise DatasetError(f"shard {shard.path} is missing; write the data set again")
    size, expected = shard.path.stat().st_size, shard.n_tokens * dtype.itemsize
    if size != expected:
        raise DatasetError(
            f"shard {shard.path} holds {size} bytes, its json says {expected} "
            f"({shard.n_tokens} ids of {dtype.itemsize} bytes); write the data set again"
        )
    if verify:
        found = runtime.sha256(shard.path)
        if found != shard.sha256:
            raise DatasetError(
                f"shard {shard.path} was altered: its sha256 is {found}, its json says "
                f"{shard.sha256}; write the data set again"
            )


def _map_shard(shard: Shard, dtype: np.dtype[Any], random_access: bool) -> Ids:
    """The ids of one shard, read from disk as they are used."""
    if shard.n_tokens == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype=dtype)
    with shard.path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if random_access:
        # Reading ahead of a page of which one window is wanted fetches some 30 pages for nothing.
        mapped.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(mapped, dtype=dtype)


def load(
    path: str | os.PathLike[str], *, verify: bool = False, random_access: bool = False
) -> Dataset:
    """Open the data set that ``dataset.write`` left at ``path``.

    The size of each shard is always checked; ``verify`` reads all of it and checks its sha256 too.
    ``random_access`` tells the system not to read ahead: windows then come faster from a cold disk,
    a whole shard slower.

    Raises FileNotFoundError where there is no json and DatasetError naming what does not fit.
    """
    described_in = manifest_path(path)
    manifest = _read_manifest(described_in)
    if manifest.get("dtype") not in tuple(DTYPES):
        raise DatasetError(
            f"{described_in}: dtype {brief(manifest.get('dtype'))} must be one of "
            f"{', '.join(DTYPES)}; write the data set again"
        )
    _check_fields(described_in, manifest)
    dtype = DTYPES[manifest["dtype"]]
    shards = tuple(
        Shard(described_in.with_name(one["file"]), one["n_tokens"], one["sha256"])
        for one in manifest["shards"]
    )
    counts = [shard.n_tokens for shard in shards]
    if sum(counts) != manifest["n_tokens"]:
        raise DatasetError(
            f"{described_in}: its shards hold {sum(counts)} ids, it says {manifest['n_tokens']}; "
            "write the data set again"
        )
    for shard in shards:
        _check_shard(shard, dtype, verify)
    return Dataset(
        shards=shards,
        dtype=dtype,
        n_tokens=manifest["n_tokens"],
        n_documents=manifest["n_documents"],
        end_id=manifest["end_id"],
        vocab_size=manifest["vocab_size"],
        tokenizer_hash=manifest["tokenizer"],
        metadata=manifest["metadata"],
        _starts=np.cumsum([0, *counts[:-1]], dtype=np.int64),
        _ids=tuple(_map_shard(shard, dtype, random_access) for shard in shards),
    )
