"""Learning the merges of a byte pair encoding, each in time proportional to what it changes.

The definition is quadratic: count all adjacent pairs, merge the most frequent one everywhere, count
again. Here each distinct pre-token stands once in one long row of symbols, weighted by how often it
occurs, and three observations make a merge cheap:

- merging (a, b) into c changes only the pairs around places where (a, b) stands, so the counts are
  corrected there (incremental counts);
- all pairs with the new symbol c are born in that one merge, so each pair's places can be listed
  once, in order, when it is born (inverted index), and no hash table is needed;
- after its birth a pair's count only falls, so a heap may keep old counts and correct one when it
  comes to the top (lazy heap).

Sennrich, Haddow and Birch, "Neural Machine Translation of Rare Words with Subword Units" (2016).
The chapter on tokenization derives this module step by step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_core.characters import Bytes
from llm_core.compilation import announce_compilation, compiled
from llm_core.pieces import Pieces
from llm_core.scanner import Counts

N_BYTES = 256
GAP = -1  # the symbol between two pre-tokens
NONE = -1

# Columns of `row` (n, 4) int32, one line a byte: what is needed about a place lies side by side.
# A symbol stands in the line of its first byte; START, in the line of its last, leads back there.
SYMBOL, PAIR, START, PIECE = 0, 1, 2, 3
# Columns of `pairs` (n, 5) int64. A pair's places are `places[FIRST:LAST]`.
LEFT, RIGHT, COUNT, FIRST, LAST = 0, 1, 2, 3, 4
# Columns of `tokens` (n, 2) int64: a token's bytes are `text[AT:AT + LENGTH]`.
AT, LENGTH = 0, 1
# What `sizes` (5,) int64 holds: how much of each array is in use.
MERGES, PAIRS, PLACES, HEAP, BIRTHS = 0, 1, 2, 3, 4

Row = NDArray[np.int32]
Places = NDArray[np.int32]
Pairs = NDArray[np.int64]
Tokens = NDArray[np.int64]
Births = NDArray[np.int32]  # (n, 2): a pair and a place where it is born, in the order of the text
Heap = NDArray[np.int64]  # (n, 2): count and pair, the best on top


# --- laying out -----------------------------------------------------------------------------------


@compiled
def lay_out(data: Bytes, offsets: Counts, text: Bytes, row: Row) -> None:
    """Write the 256 bytes, so that each stands somewhere, then the pieces, a gap before each.

    ``text`` (n,) becomes the bytes of the row, ``row`` (n, 4) a symbol at each byte.
    """
    for byte in range(N_BYTES):
        text[byte] = byte
        row[byte, SYMBOL] = GAP
    n = N_BYTES
    for piece in range(len(offsets) - 1):
        row[n, SYMBOL] = row[n, START] = GAP
        n += 1
        for k in range(offsets[piece], offsets[piece + 1]):
            text[n] = data[k]
            row[n, SYMBOL] = data[k]
            row[n, START] = n
            row[n, PIECE] = piece
            n += 1
    row[n, SYMBOL] = row[n, START] = GAP


@compiled
def add_pair(left: int, right: int, pairs: Pairs, sizes: Counts) -> int:
    """A new pair, without places as yet. Gives its number."""
    pair = sizes[PAIRS]
    pairs[pair, LEFT] = left
    pairs[pair, RIGHT] = right
    pairs[pair, COUNT] = pairs[pair, LAST] = 0
    sizes[PAIRS] += 1
    return int(pair)


@compiled
def note_birth(
    pair: int, p: int, weight: int, row: Row, pairs: Pairs, births: Births, sizes: Counts
) -> None:
    """The pair that begins at place ``p`` is now ``pair``."""
    row[p, PAIR] = pair
    pairs[pair, COUNT] += weight
    pairs[pair, LAST] += 1  # how many births, until list_places makes it a bound
    births[sizes[BIRTHS], 0] = pair
    births[sizes[BIRTHS], 1] = p
    sizes[BIRTHS] += 1


@compiled
def list_places(oldest: int, births: Births, pairs: Pairs, places: Places, sizes: Counts) -> None:
    """List the places of the pairs from ``oldest`` on: a counting sort of the births by pair.

    It keeps the order within a pair, so every list ascends and "aaa" is merged from the left.
    """
    end = sizes[PLACES]
    for pair in range(oldest, sizes[PAIRS]):
        length = pairs[pair, LAST]
        pairs[pair, FIRST] = pairs[pair, LAST] = end
        end += length
    for k in range(sizes[BIRTHS]):
        pair = births[k, 0]
        places[pairs[pair, LAST]] = births[k, 1]
        pairs[pair, LAST] += 1
    sizes[PLACES], sizes[BIRTHS] = end, 0


@compiled
def count_pairs(
    row: Row, weights: Counts, pairs: Pairs, births: Births, places: Places, sizes: Counts
) -> None:
    """Count the pairs of bytes, weighted, and list their places.

    There must be room for 65,536 pairs, and for a birth and a place for each line of the row.
    """
    number = np.full((N_BYTES, N_BYTES), NONE, dtype=np.int32)
    for p in range(len(row) - 1):
        row[p, PAIR] = NONE
        left, right = row[p, SYMBOL], row[p + 1, SYMBOL]
        if left != GAP and right != GAP:
            if number[left, right] == NONE:
                number[left, right] = add_pair(left, right, pairs, sizes)
            weight = weights[row[p, PIECE]]
            note_birth(number[left, right], p, weight, row, pairs, births, sizes)
    list_places(0, births, pairs, places, sizes)


# --- merging --------------------------------------------------------------------------------------


@compiled
def merge_everywhere(
    merged: int,
    new: int,
    row: Row,
    weights: Counts,
    tokens: Tokens,
    pairs: Pairs,
    places: Places,
    births: Births,
    pair_before: Places,
    pair_after: Places,
    sizes: Counts,
) -> None:
    """Replace the pair ``merged`` by the token ``new`` in all its places, from left to right.

    ``pair_before[x]`` notes the pair (x, new) and ``pair_after[y]`` the pair (new, y); a number
    below the first that is born here is a note from an earlier merge.
    """
    oldest = sizes[PAIRS]
    left_length, length = tokens[pairs[merged, LEFT], LENGTH], tokens[new, LENGTH]
    for k in range(pairs[merged, FIRST], pairs[merged, LAST]):
        p = places[k]
        if row[p, PAIR] != merged:  # an earlier merge took one of the two
            continue
        middle, end, weight = p + left_length, p + length, weights[row[p, PIECE]]
        before, symbol = row[p - 1, START], row[end, SYMBOL]
        row[p, PAIR] = NONE
        if before != GAP:
            pairs[row[before, PAIR], COUNT] -= weight
            x = row[before, SYMBOL]
            if pair_before[x] < oldest:
                pair_before[x] = add_pair(x, new, pairs, sizes)
            note_birth(pair_before[x], before, weight, row, pairs, births, sizes)
        if symbol != GAP:
            pairs[row[middle, PAIR], COUNT] -= weight
            if pair_after[symbol] < oldest:
                pair_after[symbol] = add_pair(new, symbol, pairs, sizes)
            note_birth(pair_after[symbol], p, weight, row, pairs, births, sizes)
        row[middle, PAIR] = NONE
        row[p, SYMBOL] = new
        row[end - 1, START] = p
    pairs[merged, COUNT] = 0
    list_places(oldest, births, pairs, places, sizes)


# --- choosing -------------------------------------------------------------------------------------


@compiled
def compare(a: int, b: int, tokens: Tokens, text: Bytes) -> int:
    """Above 0 if the bytes of token ``a`` stand behind those of ``b``, below 0 if before."""
    if a == b:
        return 0
    for k in range(min(tokens[a, LENGTH], tokens[b, LENGTH])):
        difference = np.int64(text[tokens[a, AT] + k]) - np.int64(text[tokens[b, AT] + k])
        if difference != 0:
            return int(difference)
    return int(tokens[a, LENGTH] - tokens[b, LENGTH])


@compiled
def is_better(a: int, b: int, heap: Heap, pairs: Pairs, tokens: Tokens, text: Bytes) -> bool:
    """Whether heap entry ``a`` goes before ``b``: by count, then by the greater pair of bytes."""
    if heap[a, 0] != heap[b, 0]:
        return bool(heap[a, 0] > heap[b, 0])
    one, other = heap[a, 1], heap[b, 1]
    order = compare(pairs[one, LEFT], pairs[other, LEFT], tokens, text)
    if order == 0:
        order = compare(pairs[one, RIGHT], pairs[other, RIGHT], tokens, text)
    return order > 0


@compiled
def swap(heap: Heap, a: int, b: int) -> None:
    """Exchange two entries."""
    for column in range(2):
        heap[a, column], heap[b, column] = heap[b, column], heap[a, column]


@compiled
def push_from(
    oldest: int, heap: Heap, pairs: Pairs, tokens: Tokens, text: Bytes, sizes: Counts
) -> None:
    """Put the pairs from number ``oldest`` on into the heap, under their counts."""
    for pair in range(oldest, sizes[PAIRS]):
        k = sizes[HEAP]
        heap[k, 0], heap[k, 1] = pairs[pair, COUNT], pair
        while k > 0 and is_better(k, (k - 1) // 2, heap, pairs, tokens, text):
            swap(heap, k, (k - 1) // 2)
            k = (k - 1) // 2
        sizes[HEAP] += 1


@compiled
def sink(heap: Heap, size: int, pairs: Pairs, tokens: Tokens, text: Bytes) -> None:
    """Let the top entry down to where it belongs."""
    k, child = 0, 1
    while child < size:
        if child + 1 < size and is_better(child + 1, child, heap, pairs, tokens, text):
            child += 1
        if not is_better(child, k, heap, pairs, tokens, text):
            break
        swap(heap, k, child)
        k, child = child, 2 * child + 1


@compiled
def best_pair(heap: Heap, pairs: Pairs, tokens: Tokens, text: Bytes, sizes: Counts) -> int:
    """The best pair, once the top entry's count is true; ``NONE`` if no pair is left."""
    while sizes[HEAP] > 0:
        count = pairs[heap[0, 1], COUNT]
        if heap[0, 0] == count and count > 0:
            return int(heap[0, 1])
        heap[0, 0] = count
        if count == 0:
            sizes[HEAP] -= 1
            swap(heap, 0, sizes[HEAP])
        sink(heap, sizes[HEAP], pairs, tokens, text)
    return NONE


# --- the whole ------------------------------------------------------------------------------------


@compiled
def merge_until_full(
    text: Bytes,
    row: Row,
    weights: Counts,
    tokens: Tokens,
    merges: NDArray[np.int64],
    notes: NDArray[np.int32],
    pairs: Pairs,
    heap: Heap,
    places: Places,
    births: Births,
    sizes: Counts,
) -> bool:
    """Merge the best pair until ``merges`` (n, 2) is full or no pair is left: then True.

    False where pairs, heap, places or births lack room for the next merge: enlarge them and call
    again.
    """
    while sizes[MERGES] < len(merges):
        best = best_pair(heap, pairs, tokens, text, sizes)
        if best == NONE:
            return True
        most_births = 2 * (pairs[best, LAST] - pairs[best, FIRST])
        if (
            sizes[PAIRS] + most_births > len(pairs)
            or sizes[PLACES] + most_births > len(places)
            or most_births > len(births)
        ):
            return False
        new, oldest = N_BYTES + sizes[MERGES], sizes[PAIRS]
        left, right = pairs[best, LEFT], pairs[best, RIGHT]
        merges[sizes[MERGES], 0], merges[sizes[MERGES], 1] = left, right
        tokens[new, AT] = places[pairs[best, FIRST]]  # the bytes there, whatever symbols by now
        tokens[new, LENGTH] = tokens[left, LENGTH] + tokens[right, LENGTH]
        merge_everywhere(
            best, new, row, weights, tokens, pairs, places, births, notes[0], notes[1], sizes
        )
        push_from(oldest, heap, pairs, tokens, text, sizes)
        sizes[MERGES] += 1
    return True


def with_room(array: NDArray[Any], length: int) -> NDArray[Any]:
    """The array, or a longer copy of at least ``length`` lines, their content left open."""
    if len(array) >= length:
        return array
    longer = np.empty((max(length, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
    longer[: len(array)] = array
    return longer


def learn_merges(pieces: Pieces, n_merges: int) -> NDArray[np.int64]:
    """The merges of a byte pair encoding, in the order in which they are made.

    Gives ``(m, 2)`` int64 with ``m <= n_merges``, fewer where no pair is left: the two tokens that
    each merge joins, 0 to 255 for the bytes, 256 + i for what merge i made. The most frequent pair
    goes first; of equally frequent ones the lexicographically greater pair of byte strings.
    Raises ValueError above 2**31 - 1 bytes of distinct pieces.
    """
    n = N_BYTES + len(pieces.data) + len(pieces.counts) + 1
    if n >= 2**31:
        raise ValueError(
            f"the distinct pre-tokens have {n} bytes, the most is {2**31 - 1}; "
            "train on a part of the text, or with a pattern that cuts it into words"
        )
    announce_compilation("tokenizer")
    n_merges = min(n_merges, n)  # each takes a symbol out of the row at least
    text, row = np.zeros(n, dtype=np.uint8), np.empty((n, 4), dtype=np.int32)
    lay_out(pieces.data, pieces.offsets, text, row)
    tokens = np.ones((N_BYTES + n_merges, 2), dtype=np.int64)
    tokens[:N_BYTES, AT] = np.arange(N_BYTES)
    merges = np.empty((n_merges, 2), dtype=np.int64)
    notes = np.full((2, N_BYTES + n_merges), NONE, dtype=np.int32)
    pairs: Pairs = np.empty((N_BYTES**2, 5), dtype=np.int64)
    heap: Heap = np.empty((N_BYTES**2, 2), dtype=np.int64)
    places: Places = np.empty(n, dtype=np.int32)
    births: Births = np.empty((n, 2), dtype=np.int32)
    sizes, weights = np.zeros(5, dtype=np.int64), pieces.counts
    count_pairs(row, weights, pairs, births, places, sizes)
    push_from(0, heap, pairs, tokens, text, sizes)
    while not merge_until_full(
        text, row, weights, tokens, merges, notes, pairs, heap, places, births, sizes
    ):
        best = pairs[heap[0, 1]]
        most_births = 2 * int(best[LAST] - best[FIRST])
        pairs = with_room(pairs, int(sizes[PAIRS]) + most_births)
        heap = with_room(heap, len(pairs))
        places = with_room(places, int(sizes[PLACES]) + most_births)
        births = with_room(births, most_births)
    return merges[: sizes[MERGES]]
