"""One token through the whole model in compiled loops: each weight is read once from memory.

A step of generation on a CPU takes as long as reading the weights does; arithmetic is cheap beside
it. So the loops take four rows of a matrix at a time for all sequences of the batch, widen bfloat16
as they go, and stay in compiled code between the layers. The threads run ``step`` side by side,
each on its share of every matrix, and meet after every stage. ``plan`` says where things lie,
``decode`` runs the threads; chapter 4 shows the gain.
"""

from __future__ import annotations

import math
from typing import TypeVar, cast

import numpy as np
from numba import carray, njit  # type: ignore[attr-defined]
from numpy.typing import NDArray

from llm_core.compilation import OPTIONS
from llm_core.intrinsics import (
    add_atomically,
    give_way,
    pointer,
    prefetch,
    read_atomically,
    wide_vectors,
)
from llm_core.plan import Floats, Plan, Space, Turn

F = TypeVar("F")
Pairs = NDArray[np.uint32]
Share = tuple[int, int]

# Sums in any order, so that they become vector instructions; nan and inf keep their meaning.
FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}
ROWS = 4  # of a matrix at a time: each number read from x serves four products
ONE, HALF = np.float32(1), np.float32(0.5)
HIGH_BITS, LOW_SHIFT = np.uint32(0xFFFF0000), np.uint32(16)


def fast(function: F) -> F:
    """``compilation.compiled`` for sums of floats."""
    return cast(F, njit(**OPTIONS, fastmath=FAST)(function))


# --- memory and threads -------------------------------------------------------------------------


@fast
def meet(counter: int, n_meetings: int, n_threads: int) -> int:
    """Wait until all threads have come; the number of meetings so far. ``counter`` starts at 0."""
    n_meetings += 1
    if n_threads > 1:
        expected, n_looks = n_meetings * n_threads, 0
        if add_atomically(counter, 1) + 1 < expected:
            while read_atomically(counter) < expected:
                n_looks += 1
                if n_looks > 1000:  # the other may wait for this core
                    give_way()
    return n_meetings


@fast
def share(n: int, thread: int, n_threads: int) -> Share:
    """The part of n rows that is one thread's, in whole groups of ``ROWS`` but for the last."""
    groups = n // ROWS
    begin, end = groups * thread // n_threads, groups * (thread + 1) // n_threads
    return begin * ROWS, n if thread == n_threads - 1 else end * ROWS


@fast
def floats(address: int, rows: int, n: int) -> Floats:
    """The float32 numbers at an address, (rows, n)."""
    return carray(pointer(address), (rows, n), np.float32)


@fast
def pairs(address: int, rows: int, n: int) -> Pairs:
    """The (rows, n) bfloat16 numbers at an address, (rows, n / 2): the first in the low bits."""
    return carray(pointer(address), (rows, n // 2), np.uint32)


@fast
def first_of(pair: np.uint32) -> np.float32:
    """The first bfloat16 of a pair; with 16 zero bits behind it, it is a float32."""
    return np.uint32(pair << LOW_SHIFT).view(np.float32)


@fast
def second_of(pair: np.uint32) -> np.float32:
    """The second bfloat16 of a pair."""
    return np.uint32(pair & HIGH_BITS).view(np.float32)


# --- products -----------------------------------------------------------------------------------


@fast
def one_dot(w: Floats, x: Floats) -> np.float32:
    """w x for vectors w and x (n,)."""
    total = np.float32(0)
    for j in range(len(x)):
        total += w[j] * x[j]
    return total


@fast
def four_dots(w: Floats, x: Floats, y: Floats) -> None:
    """y[r] = w[r] x for four rows w (4, n), one vector x (n,)."""
    wide_vectors()
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    a = b = c = d = np.float32(0)
    for j in range(len(x)):
        one = x[j]
        a += w0[j] * one
        b += w1[j] * one
        c += w2[j] * one
        d += w3[j] * one
    y[0], y[1], y[2], y[3] = a, b, c, d


@fast
def four_dots_of_pairs(w: Pairs, even: Floats, odd: Floats, y: Floats) -> None:
    """y[r] = w[r] x for four rows of bfloat16 pairs, x in two halves, see ``ordered``."""
    wide_vectors()
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    a = b = c = d = np.float32(0)
    for j in range(w.shape[1]):
        x, z, p, q, r, s = even[j], odd[j], w0[j], w1[j], w2[j], w3[j]
        a += x * first_of(p) + z * second_of(p)
        b += x * first_of(q) + z * second_of(q)
        c += x * first_of(r) + z * second_of(r)
        d += x * first_of(s) + z * second_of(s)
    y[0], y[1], y[2], y[3] = a, b, c, d


@fast
def widen(w: Pairs, wide: Floats) -> None:
    """A row of pairs as float32: the even places, then the odd ones."""
    even, odd = wide[: len(w)], wide[len(w) :]
    for j in range(len(w)):
        even[j] = first_of(w[j])
        odd[j] = second_of(w[j])


@fast
def sixteen_dots(w: Floats, x: Floats, y: Floats) -> None:
    """y[s, r] = w[r] x[s] for four rows w (4, n) and four sequences x (4, n)."""
    wide_vectors()
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    a0 = a1 = a2 = a3 = b0 = b1 = b2 = b3 = np.float32(0)
    c0 = c1 = c2 = c3 = d0 = d1 = d2 = d3 = np.float32(0)
    for j in range(w.shape[1]):
        p, q, r, s = w0[j], w1[j], w2[j], w3[j]
        one, two, three, four = x0[j], x1[j], x2[j], x3[j]
        a0, a1, a2, a3 = a0 + p * one, a1 + q * one, a2 + r * one, a3 + s * one
        b0, b1, b2, b3 = b0 + p * two, b1 + q * two, b2 + r * two, b3 + s * two
        c0, c1, c2, c3 = c0 + p * three, c1 + q * three, c2 + r * three, c3 + s * three
        d0, d1, d2, d3 = d0 + p * four, d1 + q * four, d2 + r * four, d3 + s * four
    y[0, 0], y[0, 1], y[0, 2], y[0, 3] = a0, a1, a2, a3
    y[1, 0], y[1, 1], y[1, 2], y[1, 3] = b0, b1, b2, b3
    y[2, 0], y[2, 1], y[2, 2], y[2, 3] = c0, c1, c2, c3
    y[3, 0], y[3, 1], y[3, 2], y[3, 3] = d0, d1, d2, d3


@fast
def ordered(x: Floats, bfloat16: bool) -> Floats:
    """x as the loops above want it: for bfloat16, the even places of a row and then the odd."""
    if not bfloat16:
        return x
    n, halves = x.shape[1] // 2, np.empty_like(x)
    for s in range(len(x)):
        for j in range(n):
            halves[s, j], halves[s, n + j] = x[s, 2 * j], x[s, 2 * j + 1]
    return halves


@fast
def multiply(weight: int, bias: int, low: bool, x: Floats, y: Floats, begin: int, end: int) -> None:
    """y[:, begin:end] = x Wᵀ + b for these rows of W, each read once; ``low``: W is bfloat16."""
    wide_vectors()
    n_sequences, n = x.shape
    x, wide = ordered(x, low), np.empty((ROWS, n), np.float32)
    for i in range(begin, end, ROWS):
        n_rows = min(ROWS, end - i)
        rows = floats(weight + 4 * i * n, ROWS, n)
        if low:
            rows, w = wide, pairs(weight + 2 * i * n, ROWS, n)
            if n_sequences == 1 and n_rows == ROWS:
                for ahead in range(2 * ROWS * n, 4 * ROWS * n, 64):  # a sixth faster
                    prefetch(weight + 2 * i * n + ahead)
                four_dots_of_pairs(w, x[0, : n // 2], x[0, n // 2 :], y[0, i:])
                continue
            for r in range(n_rows):
                widen(w[r], wide[r])
        s = 0
        while n_rows == ROWS and s < n_sequences:
            if s + 4 <= n_sequences:
                sixteen_dots(rows, x[s : s + 4], y[s : s + 4, i:])
                s += 4
            else:
                four_dots(rows, x[s], y[s, i:])
                s += 1
        for t in range(s, n_sequences):  # the last of a matrix, fewer than four rows
            for r in range(n_rows):
                y[t, i + r] = one_dot(rows[r], x[t])
    if bias != 0:
        add = floats(bias, 1, end)[0]
        for t in range(n_sequences):
            for i in range(begin, end):
                y[t, i] += add[i]


# --- the parts of a block -----------------------------------------------------------------------


@fast
def copy(x: Floats, y: Floats) -> None:
    """y = x; a slice assignment would compile all the rules of broadcasting along with it."""
    for j in range(len(x)):
        y[j] = x[j]


@fast
def normalize_row(x: Floats, weight: int, bias: int, rms: bool, eps: float, y: Floats) -> None:
    """Layer norm or RMS norm of one vector; a copy where there is no weight."""
    n, mean, square = len(x), np.float32(0), np.float32(0)
    if weight == 0:
        return copy(x, y)
    if not rms:
        for j in range(n):
            mean += x[j]
        mean /= np.float32(n)
    for j in range(n):
        square += (x[j] - mean) * (x[j] - mean)
    scale = ONE / np.float32(math.sqrt(square / np.float32(n) + np.float32(eps)))
    w = floats(weight, 1, n)[0]
    for j in range(n):
        y[j] = (x[j] - mean) * scale * w[j]
    if bias != 0:
        add = floats(bias, 1, n)[0]
        for j in range(n):
            y[j] += add[j]


@fast
def normalize(plan: Plan, number: int, x: Floats, y: Floats) -> None:
    """One of the model's norms, of every sequence."""
    weight, bias = plan.norms[number]
    for s in range(len(x)):
        normalize_row(x[s], weight, bias, plan.rms, plan.eps, y[s])


@fast
def place(plan: Plan, head: Floats, norm: int, position: int) -> None:
    """Normalize and rotate one head of queries or keys in place, where the model does so."""
    normalize_row(head, norm, 0, plan.rms, plan.eps, head)
    n = plan.rotary_pairs
    cos, sin = (
        floats(plan.cos, position + 1, n)[position],
        floats(plan.sin, position + 1, n)[position],
    )
    for p in range(n):
        i, j = (2 * p, 2 * p + 1) if plan.interleaved else (p, n + p)
        a, b = head[i], head[j]
        head[i], head[j] = a * cos[p] - b * sin[p], b * cos[p] + a * sin[p]


@fast
def look_back(
    q: Floats, keys: Floats, values: Floats, first: int, scores: Floats, y: Floats
) -> None:
    """Attention of one query over len(scores) slots of a ring from slot ``first`` on: y (C,)."""
    capacity, n, largest, total = len(keys), len(scores), np.float32(-np.inf), np.float32(0)
    scale = ONE / np.float32(math.sqrt(np.float32(len(q))))
    for t in range(n):
        slot = first + t - (capacity if first + t >= capacity else 0)
        scores[t] = one_dot(q, keys[slot]) * scale
        largest = max(largest, scores[t])
    for c in range(len(y)):
        y[c] = np.float32(0)
    for t in range(n):
        scores[t] = np.float32(math.exp(scores[t] - largest))
        total += scores[t]
    for t in range(n):
        slot = first + t - (capacity if first + t >= capacity else 0)
        share_of, value = scores[t] / total, values[slot]
        for c in range(len(y)):
            y[c] += share_of * value[c]


@fast
def attend(plan: Plan, space: Space, turn: Turn, layer: int, one: int) -> None:
    """One key/value head of one sequence: store its key and value, answer its queries."""
    n_kv_head, capacity, c = turn.keys.shape[2:]
    row, group = one // n_kv_head, one % n_kv_head
    keys, values, qkv = turn.keys[layer, row, group], turn.values[layer, row, group], space.qkv[row]
    pad, at, n_head = turn.padding[row], turn.column, plan.n_head
    k = qkv[(n_head + group) * c : (n_head + group + 1) * c]
    v = qkv[(n_head + n_kv_head + group) * c : (n_head + n_kv_head + group + 1) * c]
    place(plan, k, plan.matrices.k_norm[layer], at - pad)
    copy(k, keys[at % capacity])
    copy(v, values[at % capacity])
    first = max(pad, at + 1 - capacity)
    scores = np.empty(at + 1 - first, np.float32)
    for head in range(group * n_head // n_kv_head, (group + 1) * n_head // n_kv_head):
        q, y = qkv[head * c : (head + 1) * c], space.mixed[row, head * c : (head + 1) * c]
        place(plan, q, plan.matrices.q_norm[layer], at - pad)
        look_back(q, keys, values, first % capacity, scores, y)


@fast
def bend(kind: int, wide: Floats, bent: Floats, begin: int, end: int) -> None:
    """The nonlinearity of the MLP for the rows begin to end, see ``layers.activate``."""
    n = bent.shape[1]
    for s in range(len(wide)):
        for i in range(begin, end):
            x = wide[s, i]
            if kind == 0:
                bent[s, i] = HALF * x * (ONE + np.float32(math.erf(x * np.float32(0.70710678))))
            elif kind == 1:  # (1 + tanh u) / 2 is the logistic function of 2 u
                u = np.float32(1.5957691) * (x + np.float32(0.044715) * x * x * x)
                bent[s, i] = x / (ONE + np.float32(math.exp(-u)))
            else:
                bent[s, i] = x / (ONE + np.float32(math.exp(-x))) * wide[s, n + i]


# --- a step -------------------------------------------------------------------------------------


@fast
def embed(plan: Plan, turn: Turn, x: Floats) -> None:
    """The rows of the tables for the ids and their positions."""
    for s in range(len(x)):
        d, number, position = x.shape[1], turn.ids[s], turn.column - turn.padding[s]
        if plan.bfloat16:
            w = pairs(plan.embedding, number + 1, d)[number]
            for j in range(d // 2):
                x[s, 2 * j] = first_of(w[j])
                x[s, 2 * j + 1] = second_of(w[j])
        else:
            copy(floats(plan.embedding, number + 1, d)[number], x[s])
        if plan.positions != 0:
            row = floats(plan.positions, position + 1, d)[position]
            for j in range(d):
                x[s, j] += row[j]


@fast
def add_product(
    plan: Plan, weight: int, bias: int, inputs: Floats, residual: Floats, space: Space, own: Share
) -> None:
    """x = residual + W inputs + b for one thread's share: what a sublayer writes to the stream."""
    wide_vectors()
    multiply(weight, bias, plan.bfloat16, inputs, space.change, *own)
    for s in range(len(inputs)):
        for i in range(own[0], own[1]):
            space.x[s, i] = residual[s, i] + space.change[s, i]


@fast
def step(plan: Plan, space: Space, turn: Turn, thread: int, n_threads: int, counter: int) -> None:
    """One token for each sequence, its logits left in ``space``; every thread calls it.

    ``counter`` is the address of a 0. What takes no time, each thread does for itself.
    """
    wide_vectors()
    x, h, met, low, m = space.x, np.empty_like(space.x), 0, plan.bfloat16, plan.matrices
    n_heads, f = len(x) * turn.keys.shape[2], space.bent.shape[1]
    residual = x if plan.pre else h  # with norms after the sublayers, h is the stream
    of_d, of_f = share(x.shape[1], thread, n_threads), share(f, thread, n_threads)
    if thread == 0:
        embed(plan, turn, x)
    met = meet(counter, met, n_threads)
    for layer in range(len(turn.keys)):
        normalize(plan, 2 * layer, x, h)
        own = share(space.qkv.shape[1], thread, n_threads)
        multiply(m.qkv[layer], m.qkv_bias[layer], low, h, space.qkv, *own)
        met = meet(counter, met, n_threads)
        for one in range(thread, n_heads, n_threads):
            attend(plan, space, turn, layer, one)
        met = meet(counter, met, n_threads)
        add_product(plan, m.out[layer], m.out_bias[layer], space.mixed, residual, space, of_d)
        met = meet(counter, met, n_threads)
        normalize(plan, 2 * layer + 1, x, h)
        weight, bias, (begin, end) = m.up[layer], m.up_bias[layer], of_f
        multiply(weight, bias, low, h, space.wide, begin, end)
        if plan.mlp == 2:
            multiply(weight, bias, low, h, space.wide, f + begin, f + end)
        bend(plan.mlp, space.wide, space.bent, begin, end)
        met = meet(counter, met, n_threads)
        add_product(plan, m.down[layer], m.down_bias[layer], space.bent, residual, space, of_d)
        met = meet(counter, met, n_threads)
    normalize(plan, 2 * len(turn.keys), x, h)
    own = share(space.logits.shape[1], thread, n_threads)
    multiply(plan.head, 0, low, h, space.logits, *own)
