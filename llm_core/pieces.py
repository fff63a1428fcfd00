"""A table of distinct pre-tokens: each gets a number, and how often it occurs is counted.

Training wants the counts, encoding the numbers: a pre-token seen before needs no second encoding.
Python's dict could do it, at the price of an object for each pre-token of the text. This table is
compiled together with the scanner, so that cutting and looking up are one pass over the bytes.
The chapter on tokenization measures what that gains.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_core.characters import Bytes, character_classes
from llm_core.compilation import announce_compilation, compiled
from llm_core.scanner import Arrays, Counts, Hashes, Numbers, add_pieces, add_pretokens


class Pieces(NamedTuple):
    """Distinct byte strings: piece ``k`` is ``data[offsets[k]:offsets[k + 1]]``."""

    data: Bytes
    offsets: Counts  # (n + 1,)
    counts: Counts  # (n,)

    @classmethod
    def of(cls, counted: dict[bytes, int]) -> Pieces:
        """Pieces from byte strings and how often each occurs."""
        offsets = np.cumsum([0, *map(len, counted)], dtype=np.int64)
        data = np.frombuffer(b"".join(counted), dtype=np.uint8)
        return cls(data, offsets, np.fromiter(counted.values(), np.int64, len(counted)))

    def strings(self, first: int = 0) -> list[bytes]:
        """The pieces from number ``first`` on."""
        bounds = self.offsets[first:].tolist()
        data = self.data[bounds[0] :].tobytes()
        shifts = [bound - bounds[0] for bound in bounds]
        return [data[begin:end] for begin, end in pairwise(shifts)]


@compiled
def fill_slots(slots: Numbers, hashes: Hashes, n_pieces: int) -> None:
    """Give each piece the first free slot from the one on that its hash asks for."""
    mask = len(slots) - 1
    for number in range(n_pieces):
        slot = np.int64(hashes[number] & np.uint64(mask))
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        slots[slot] = number


def enlarged(array: NDArray[Any], length: int) -> NDArray[Any]:
    """The array with zeros behind it, if it's shorter than ``length``."""
    longer = np.zeros(max(length, len(array)), dtype=array.dtype)
    longer[: len(array)] = array
    return longer


class PieceTable:
    """Distinct pre-tokens of everything added so far, for one thread at a time."""

    def __init__(self, scanner: int) -> None:
        """``scanner`` is a value of ``llm_core.scanner.SCANNERS``."""
        announce_compilation("tokenizer")
        self.scanner = scanner
        self._n_pieces = 0
        self._hashes: Hashes = np.zeros(0, dtype=np.uint64)
        self._offsets: Counts = np.zeros(1, dtype=np.int64)
        self._counts: Counts = np.zeros(0, dtype=np.int64)
        self._data: Bytes = np.zeros(0, dtype=np.uint8)
        self._numbers: Numbers = np.empty(0, dtype=np.int32)
        self._make_room(1 << 14, 1 << 17)

    def __len__(self) -> int:
        return self._n_pieces

    def _make_room(self, n_pieces: int, n_bytes: int) -> None:
        """Room for so many pieces (rounded up to a power of two) and bytes in all."""
        capacity = 1 << (n_pieces - 1).bit_length()
        self._hashes = enlarged(self._hashes, capacity)
        self._offsets = enlarged(self._offsets, capacity + 1)
        self._counts = enlarged(self._counts, capacity)
        self._data = enlarged(self._data, n_bytes)
        self._slots: Numbers = np.full(2 * capacity, -1, dtype=np.int32)
        fill_slots(self._slots, self._hashes, self._n_pieces)

    def _arrays(self) -> Arrays:
        return self._slots, self._hashes, self._offsets, self._counts, self._data

    def add(self, text: bytes, bounds: Counts) -> tuple[Numbers, Counts]:
        """Cut each segment ``text[bounds[s]:bounds[s + 1]]`` and count its pre-tokens.

        ``bounds`` (k + 1,) runs from 0 to the end of the text; text and segments are valid UTF-8.
        Gives the number of each pre-token in order, ``(n,)`` int32 (valid until the next call),
        and how many of them stand before the end of each segment, ``(k,)`` int64.
        """
        if len(self._numbers) < len(text):
            self._numbers = np.empty(len(text), dtype=np.int32)
        view = np.frombuffer(text, dtype=np.uint8)
        ends = np.zeros(len(bounds) - 1, dtype=np.int64)
        progress = np.array([self._n_pieces, 0, 0, 0], dtype=np.int64)
        text_and_bounds = view, bounds, character_classes()
        log = self._numbers, ends, progress
        while not add_pretokens(self.scanner, *text_and_bounds, self._arrays(), *log):
            self._n_pieces = int(progress[0])
            self._make_room(2 * len(self._counts), 2 * len(self._data) + len(text))
        self._n_pieces = int(progress[0])
        return self._numbers[: ends.max(initial=0)], ends

    def absorb(self, other: PieceTable) -> None:
        """Add another table's pieces and counts."""
        pieces, hashes = other.pieces(), other._hashes[: len(other)]
        n_bytes = len(pieces.data) + int(self._offsets[len(self)])
        self._make_room(len(self) + len(other), n_bytes)
        self._n_pieces = add_pieces(pieces, hashes, self._arrays(), self._n_pieces)

    def pieces(self) -> Pieces:
        """The pieces by number, and their counts (views: valid until the next change)."""
        n = self._n_pieces
        return Pieces(self._data[: self._offsets[n]], self._offsets[: n + 1], self._counts[:n])
