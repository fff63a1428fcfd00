"""Encoding corpora: each distinct pre-token once, then a look-up, and the ids into files.

tiktoken cuts a text with a regular expression and merges each pre-token anew. A corpus repeats its
pre-tokens, so here the compiled scanner cuts, a table says which pre-token it is, and tiktoken sees
each one once; the rest is copying runs of ids. The ids are the same. The chapter on tokenization
measures whether that pays, on a table that starts empty.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_core.compilation import compiled
from llm_core.pieces import PieceTable
from llm_core.pretokenize import Batch, ordered_map, taken
from llm_core.runtime import atomic_write
from llm_core.scanner import Counts, Numbers

Ids = NDArray[Any]  # uint16 or uint32
EncodePiece = Callable[[bytes], list[int]]

MOST_PIECES, MOST_BYTES = 1 << 20, 1 << 28  # above either a table starts afresh: bounded memory
SHARD_FORMAT = "llm_core token shards"


@compiled
def copy_runs(
    numbers: Numbers,
    ends: Counts,
    ends_document: NDArray[np.bool_],
    run_ends: Counts,
    runs: Ids,
    end_id: int,
    ids: Ids,
) -> int:
    """Write the run of ids of each pre-token, and ``end_id`` (unless -1) behind each document.

    ``numbers`` (n,) are the pre-tokens of all segments, ``ends`` (k,) how many stand before the end
    of each, ``ends_document`` (k,) whether a document ends there; ``ids`` has room for all. Piece
    ``k`` has the ids ``runs[run_ends[k]:run_ends[k + 1]]``. Gives how many were written.
    """
    n, k = 0, 0
    for segment in range(len(ends)):
        while k < ends[segment]:
            for place in range(run_ends[numbers[k]], run_ends[numbers[k] + 1]):
                ids[n] = runs[place]
                n += 1
            k += 1
        if ends_document[segment] and end_id >= 0:
            ids[n] = end_id
            n += 1
    return n


class PieceEncoder:
    """Text to ids through a table of pre-tokens met before, for one thread at a time."""

    def __init__(self, scanner: int, encode_piece: EncodePiece, dtype: np.dtype[Any]) -> None:
        """``encode_piece`` gives the ids of one pre-token; ``dtype`` holds every id."""
        self._scanner, self._encode_piece, self._dtype = scanner, encode_piece, dtype
        self._forget()

    def _forget(self) -> None:
        self._table = PieceTable(self._scanner)
        self._runs: Ids = np.empty(0, dtype=self._dtype)
        self._run_ends: Counts = np.zeros(1, dtype=np.int64)

    def _encode_new_pieces(self) -> None:
        """Have the ids made of the pieces that came in with the last batch."""
        new = self._table.pieces().strings(first=len(self._run_ends) - 1)
        runs = [self._encode_piece(piece) for piece in new]
        lengths = np.fromiter(map(len, runs), np.int64, len(runs))
        ids = np.fromiter((i for run in runs for i in run), self._dtype, int(lengths.sum()))
        self._run_ends = np.append(self._run_ends, self._run_ends[-1] + np.cumsum(lengths))
        self._runs = np.append(self._runs, ids)

    def encode(self, batch: Batch, end_id: int | None) -> Ids:
        """The ids of a batch, ``end_id`` behind each document unless None."""
        if len(self._table) > MOST_PIECES or len(self._table.pieces().data) > MOST_BYTES:
            self._forget()
        numbers, ends = self._table.add(batch.text, batch.bounds)
        self._encode_new_pieces()
        ids = np.empty(len(batch.text) + len(ends), dtype=self._dtype)  # at most one a byte
        n = copy_runs(
            numbers,
            ends,
            batch.ends_document,
            self._run_ends,
            self._runs,
            -1 if end_id is None else end_id,
            ids,
        )
        return ids[:n].copy()


class TextEncoder:
    """Text to ids where no scanner knows the pattern: segment by segment."""

    def __init__(self, encode_text: Callable[[str], list[int]], dtype: np.dtype[Any]) -> None:
        self._encode_text, self._dtype = encode_text, dtype

    def encode(self, batch: Batch, end_id: int | None) -> Ids:
        """The ids of a batch, ``end_id`` behind each document unless None."""
        ids: list[int] = []
        for part, ends_document in zip(batch.parts(), batch.ends_document, strict=True):
            ids += self._encode_text(part.decode("utf-8"))
            if ends_document and end_id is not None:
                ids.append(end_id)
        return np.array(ids, dtype=self._dtype)


class BatchEncoder(Protocol):
    """What ``encode_batches`` needs of either."""

    def encode(self, batch: Batch, end_id: int | None) -> Ids: ...


def encode_batches(
    parts: Iterable[Batch],
    make_encoder: Callable[[], BatchEncoder],
    end_id: int | None,
    workers: int,
) -> Iterator[tuple[Batch, Ids]]:
    """Each batch with its ids, in order, from ``workers`` threads with a table each."""
    free: list[BatchEncoder] = []

    def encode(batch: Batch) -> tuple[Batch, Ids]:
        encoder = taken(free, make_encoder)
        ids = encoder.encode(batch, end_id)
        free.append(encoder)
        return batch, ids

    with ThreadPoolExecutor(workers) as executor:
        yield from ordered_map(executor, encode, parts, workers + 1)


# --- files ----------------------------------------------------------------------------------------


def cut_at_shards(arrays: Iterable[Ids], tokens_per_shard: int) -> Iterator[tuple[Ids, bool]]:
    """The same ids in arrays of which none reaches over a shard's end, and whether it ends one."""
    room = tokens_per_shard
    for ids in arrays:
        while len(ids) >= room:
            yield ids[:room], True
            ids, room = ids[room:], tokens_per_shard
        if len(ids):
            yield ids, False
            room -= len(ids)


def write_shard(path: Path, parts: Iterable[tuple[Ids, bool]]) -> dict[str, Any]:
    """Write ids to one file until a part ends the shard. Gives the file's row for the json."""
    digest, n_tokens = hashlib.sha256(), 0
    with atomic_write(path) as file:
        for ids, ends_shard in parts:
            raw = ids.astype(ids.dtype.newbyteorder("<"), copy=False).tobytes()
            file.write(raw)
            digest.update(raw)
            n_tokens += len(ids)
            if ends_shard:
                break
    return {"file": path.name, "n_tokens": n_tokens, "sha256": digest.hexdigest()}


def write_shards(
    arrays: Iterable[Ids],
    path: Path,
    tokens_per_shard: int,
    description: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Write ids to ``NAME-00000.bin`` and so on and, last of all, ``NAME.json``, which it gives.

    ``path`` ends in NAME. The json holds the shards and ``description()``, asked for at the end.
    A json of that name is removed first, so one that exists describes complete files. Raises
    ValueError for ``tokens_per_shard`` below 1 and FileNotFoundError where there is no such folder.
    """
    if tokens_per_shard < 1:
        raise ValueError(
            f"tokens_per_shard={tokens_per_shard} must be at least 1; 2**27 is usual, 256 MB of ids"
        )
    manifest_path = path.with_name(f"{path.name}.json")
    manifest_path.unlink(missing_ok=True)
    parts = iter(cut_at_shards(arrays, tokens_per_shard))
    rows: list[dict[str, Any]] = []
    for first in parts:
        shard = path.with_name(f"{path.name}-{len(rows):05}.bin")
        rows.append(write_shard(shard, chain([first], parts)))
    shard_name = re.compile(re.escape(path.name) + r"-\d{5}\.bin")
    written = {row["file"] for row in rows}
    for old in path.parent.iterdir():
        if shard_name.fullmatch(old.name) and old.name not in written:
            old.unlink()
    n_tokens = sum(row["n_tokens"] for row in rows)
    manifest = {"format": SHARD_FORMAT, "version": 1, "n_tokens": n_tokens, **description()}
    manifest["shards"] = rows
    with atomic_write(manifest_path, "w") as file:
        json.dump(manifest, file, indent=1)
    return manifest
