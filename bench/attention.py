"""Attention that builds the table of weights against PyTorch's, which does not: time and memory.

    python bench/attention.py    # about two minutes; writes results/attention.json

Each measurement is a process of its own, so that its peak of memory is that of nothing else: the
forward pass alone, then forward and backward, for sequences that double in length. Times are
medians; the two results are compared, to a tolerance, before anything is timed.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable

import torch
from record import in_fresh_process, machine, parser, record_path, write_record
from torch import Tensor
from torch.nn import functional as F

from llm_core.attention import causal_mask
from llm_core.runtime import peak_memory, start, timer

N_HEAD, HEAD_DIM = 4, 64
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
SECONDS_TO_FILL, MOST_ROUNDS = 0.8, 20


def table(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as the formula says it, with the (T, T) table of weights: (1, H, T, C)."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(HEAD_DIM)
    scores = scores.masked_fill(~causal_mask(q.shape[-2]), -math.inf)
    return scores.softmax(dim=-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


KINDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"table": table, "fused": fused}


def measure(kind: str, length: int, backward: bool) -> dict[str, float]:
    """Median seconds of a call and the bytes that the first one added to the peak."""
    start(seed=0, threads=2)
    q, k, v = torch.randn(3, 1, N_HEAD, length, HEAD_DIM).unbind()
    if length == LENGTHS[0]:
        assert torch.allclose(table(q, k, v), fused(q, k, v), atol=1e-5)
    inputs = [tensor.requires_grad_(backward) for tensor in (q, k, v)]

    def call() -> None:
        y = KINDS[kind](*inputs)
        if backward:
            torch.autograd.grad(y.sum(), inputs)

    before = peak_memory()
    call()
    added = peak_memory() - before
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < SECONDS_TO_FILL and len(seconds) < MOST_ROUNDS):
        with timer() as clock:
            call()
        seconds.append(clock.seconds)
    return {"seconds": statistics.median(seconds), "bytes": added}


def main() -> None:
    arguments = parser(__doc__, "attention").parse_args()
    if arguments.job:
        print(json.dumps(measure(**json.loads(arguments.job))))
        return
    measured_on = machine()
    rows = []
    for backward in (False, True):
        for length in LENGTHS:
            for kind in KINDS:
                row = {"kind": kind, "backward": backward, "length": length}
                rows.append({**row, **in_fresh_process(row)})
                shown = f"{rows[-1]['seconds'] * 1e3:9.1f} ms {rows[-1]['bytes'] / 1e6:9.1f} MB"
                print(f"{kind:6} T {length:5} {'backward' if backward else 'forward':9}{shown}")
    write_record(
        record_path(arguments, "attention"),
        measured_on,
        ["torch"],
        threads=2,
        shape={"batch_size": 1, "n_head": N_HEAD, "head_dim": HEAD_DIM, "dtype": "float32"},
        rows=rows,
    )


if __name__ == "__main__":
    main()
