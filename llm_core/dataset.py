"""From documents to shards of token ids on disk, and from shards to batches for training.

``write`` encodes documents, appends ``<|endoftext|>`` to each (the only place in the library that
does) and leaves raw ids in ``NAME-00000.bin`` ... with ``NAME.json`` beside them. ``batches`` maps
those files into memory and yields windows of ids with their targets, the same ids shifted by one.

In one epoch the windows tile the corpus from a random offset and come in random order, so no token
is a target twice. The order is a keyed bijection (a Feistel network), computed where it is needed:
neither the corpus nor a permutation of it is ever held in memory, and the place reached in an
epoch is one integer. Chapter "Embeddings" derives all this; chapter "Tokenization" writes shards.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llm_core.shards import Dataset, load, manifest_path
from llm_core.tokenizer import END_OF_TEXT, Tokenizer

STATE_FORMAT = "llm_core batch position"
IGNORE = -100  # no loss is taken where the target says so
ROUNDS = 6  # of the Feistel network; four make a good shuffle, six a safe one
PLANNED_BATCHES = 64


def write(
    documents: Iterable[str | Path],
    tokenizer: Tokenizer,
    path: str | os.PathLike[str],
    *,
    tokens_per_shard: int = 2**27,
    n_processes: int | None = None,
    progress: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> Dataset:
    """Encode documents into shards at ``path``, ``<|endoftext|>`` after each; return the data set.

    ``path`` is a name without suffix; its folder is made. Ids take two bytes where the vocabulary
    has at most 65,536 entries, else four. The json is written last: after an interruption there is
    no data set, and writing again replaces what is left. Text that spells ``<|endoftext|>`` stays
    text. Raises ValueError if the tokenizer has no such token.
    """
    if END_OF_TEXT not in tokenizer.special_tokens:
        raise ValueError(
            f"the tokenizer has no {END_OF_TEXT}, which must separate documents; train it with "
            f"special_tokens=({END_OF_TEXT!r},)"
        )
    target = manifest_path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.encode_to_file(
        documents,
        target.with_suffix(""),
        n_processes=n_processes,
        end_id=tokenizer.special_tokens[END_OF_TEXT],
        tokens_per_shard=tokens_per_shard,
        progress=progress,
        metadata=dict(metadata or {}),
    )
    return load(target)


# --- the order ----------------------------------------------------------------------------------


def _mix(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Scramble 64-bit integers: two multiply-xorshift steps, wrapping around."""
    values = (values ^ key) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return values ^ (values >> np.uint64(32))


def shuffled(positions: NDArray[np.int64], n: int, key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where a keyed random permutation of ``range(n)`` sends ``positions``: (k,) int64 -> (k,).

    A Feistel network turns any round function into a bijection on numbers of an even count of bits;
    what lands at ``n`` or above is sent through again until it lands below. Memory: that of
    ``positions``. ``key``, uint64, holds one number a round. Paper: Black and Rogaway (2002).
    """
    half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
    mask = np.uint64((1 << int(half)) - 1)
    result = positions.astype(np.uint64)
    pending = np.arange(len(result))
    while len(pending):
        left, right = result[pending] >> half, result[pending] & mask
        for round_key in key:
            left, right = right, left ^ (_mix(right, round_key) & mask)
        result[pending] = (left << half) | right
        pending = pending[result[pending] >= n]
    return result.astype(np.int64)


# --- the batches --------------------------------------------------------------------------------


class Batches(Iterator[dict[str, torch.Tensor]]):
    """An iterator of batches that knows where it is; made by ``batches``."""

    def __init__(
        self,
        data: Dataset,
        batch_size: int,
        context_length: int,
        *,
        seed: int,
        rank: int,
        world_size: int,
        epochs: int | None,
        shuffle: bool,
        packed: bool,
    ) -> None:
        self.data, self.batch_size, self.context_length = data, batch_size, context_length
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epochs, self.shuffle, self.packed = epochs, shuffle, packed
        self.position = 0  # windows that all ranks together have taken, over all epochs
        tiles = (data.n_tokens - 1) // context_length
        # One tile is given up so that the offset of an epoch can take any value below a window.
        self.windows_per_epoch = max(1, tiles - 1) if shuffle else tiles
        self._planned: list[NDArray[np.int64]] = []  # starts of the next batches, the next one last

    def __next__(self) -> dict[str, torch.Tensor]:
        if not self._planned:
            self._plan()
        starts = self._planned.pop()
        if not len(starts):
            self._planned.append(starts)
            raise StopIteration
        self.position += self.batch_size * self.world_size
        return self._batch(starts)

    def _plan(self) -> None:
        """Choose the windows of up to an epoch at once: numpy costs the same for 8 as for 500."""
        n_batches = self.windows_per_epoch // (self.batch_size * self.world_size)
        n_batches = min(max(n_batches, 1), PLANNED_BATCHES)
        steps = self.world_size * np.arange(n_batches)[:, None] + self.rank
        positions = self.position + self.batch_size * steps + np.arange(self.batch_size)
        starts = self.window_starts(positions.ravel()).reshape(positions.shape)
        limit = np.inf if self.epochs is None else self.epochs * self.windows_per_epoch
        rows = zip(starts, positions < limit, strict=True)
        self._planned = [row[inside] for row, inside in rows][::-1]

    def window_starts(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in the corpus the windows with these places in the endless order begin: (n,)."""
        epochs, places = np.divmod(positions, self.windows_per_epoch)
        if not self.shuffle:
            return places * self.context_length
        starts = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            chosen = epochs == epoch
            offset, key = self._epoch_key(epoch)
            order = shuffled(places[chosen], self.windows_per_epoch, key)
            starts[chosen] = offset + order * self.context_length
        return starts

    def _epoch_key(self, epoch: int) -> tuple[int, NDArray[np.uint64]]:
        """The offset of an epoch's first window and the key of its order, from seed and number."""
        generator = np.random.default_rng([self.seed, epoch])
        slack = self.data.n_tokens - 1 - self.windows_per_epoch * self.context_length
        offset = int(generator.integers(min(slack, self.context_length - 1), endpoint=True))
        return offset, generator.integers(2**64, size=ROUNDS, dtype=np.uint64)

    def _batch(self, starts: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        windows = self.data.windows(starts, self.context_length + 1)  # (B, T + 1)
        ids, targets = windows[:, :-1].copy(), windows[:, 1:].copy()  # (B, T) each
        batch = {"ids": torch.from_numpy(ids), "targets": torch.from_numpy(targets)}
        if self.packed:
            ends = ids == self.data.end_id
            targets[ends] = IGNORE  # shares its memory with the tensor
            batch["documents"] = torch.from_numpy(np.cumsum(ends, axis=1) - ends)
        return batch

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a position to mean the same window."""
        return {
            "format": STATE_FORMAT,
            "dataset": self.data.fingerprint,
            "tokenizer": self.data.tokenizer_hash,
            "context_length": self.context_length,
            "seed": self.seed,
            "shuffle": self.shuffle,
        }

    def state(self) -> dict[str, Any]:
        """Where the iterator stands, as json takes it; the same on every rank."""
        return {**self._identity(), "position": self.position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state()`` was taken; the next batch is then the one that came next there.

        ``batch_size`` and ``world_size`` may differ from then. Raises ValueError for a state of
        another data set, tokenizer, seed, context length or order.
        """
        check_state(state, self._identity())
        self.position = count_in(state, "position")
        self._planned = []


def check_state(state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise ValueError where a state was taken of batches with other settings than these."""
    if not isinstance(state, Mapping):
        raise ValueError(f"{state!r} is no state of batches; start without a state")
    for name, ours in identity.items():
        if state.get(name) != ours:
            raise ValueError(
                f"this state was taken with {name}={state.get(name)!r}, these batches have "
                f"{name}={ours!r}; make them with the same {name}, or start without a state"
            )


def count_in(state: Mapping[str, Any], name: str) -> int:
    """A count that a state holds. Raises ValueError where it is none that batches could reach."""
    value = state.get(name)
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError(
            f"this state has {name}={value!r}, which must be a whole number of at least 0; start "
            "without a state"
        )
    return value


def _check(data: Dataset, batch_size: int, context_length: int, rank: int, world_size: int) -> None:
    if batch_size < 1 or context_length < 1:
        raise ValueError(
            f"batch_size={batch_size} and context_length={context_length} must be at least 1"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank} must be in range({world_size}), the world_size")
    if data.n_tokens <= context_length:
        raise ValueError(
            f"the data set has {data.n_tokens} ids, a window of context_length={context_length} "
            f"needs {context_length + 1} (one more, for the last target); add documents or take "
            f"a context_length of at most {data.n_tokens - 1}"
        )


def batches(
    path: str | os.PathLike[str] | Dataset,
    batch_size: int,
    context_length: int,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    *,
    epochs: int | None = None,
    shuffle: bool = True,
    packed: bool = False,
    tokenizer: Tokenizer | None = None,
) -> Batches:
    """Batches of windows from a data set: ``ids`` and ``targets``, (B, T) int64 each.

    ``path`` is where ``write`` left it, or what ``shards.load`` returned. ``targets`` are ``ids``
    shifted by one. An epoch never repeats a window; each rank gets its own. Without ``epochs`` the
    iterator never ends; with it the last batch may be smaller, or come on the first ranks only.
    Without ``shuffle`` the windows follow each other from the first id on. ``packed`` adds
    ``documents`` (B, T) int64, which counts the documents of a window from 0, and sets targets that
    belong to the next document to -100. ``tokenizer`` is checked against the one that wrote.

    Raises ValueError for a corpus shorter than a window, a rank outside the world, a tokenizer that
    did not write the data set, and ``packed`` where documents do not end in a token.
    """
    data = path if isinstance(path, Dataset) else load(path, random_access=shuffle)
    _check(data, batch_size, context_length, rank, world_size)
    if tokenizer is not None and tokenizer.hash != data.tokenizer_hash:
        raise ValueError(
            f"the data set was written by the tokenizer {data.tokenizer_hash}, not by "
            f"{tokenizer.hash}; load that one or write the data set again"
        )
    if packed and data.end_id is None:
        raise ValueError("packed needs documents that end in a token; write with dataset.write")
    return Batches(
        data,
        batch_size,
        context_length,
        seed=seed,
        rank=rank,
        world_size=world_size,
        epochs=epochs,
        shuffle=shuffle,
        packed=packed,
    )
