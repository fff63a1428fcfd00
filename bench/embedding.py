"""A lookup against the product with one-hot rows that it equals: how much time the zeros cost.

    python bench/embedding.py    # a few seconds; writes results/embedding.json

Both run in turn, several rounds, on two threads; the record holds the medians and the ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from record import machine, parser, record_path, write_record
from torch.nn import functional as F

from llm_core.runtime import start, timer

VOCAB_SIZE, D_MODEL, N_IDS = 8192, 256, 2048
ROUNDS, LOOKUPS_A_ROUND = 15, 100


def seconds(function: Callable[[], torch.Tensor], times: int) -> float:
    """Seconds of one call, from ``times`` calls in a row."""
    with timer() as clock:
        for _ in range(times):
            function()
    return clock.seconds / times


def main() -> None:
    arguments = parser(__doc__, "embedding").parse_args()
    start(seed=0, threads=2)
    measured_on = machine()
    table = torch.randn(VOCAB_SIZE, D_MODEL)  # (V, D) float32
    ids = torch.randint(VOCAB_SIZE, (N_IDS,))  # (T,) int64

    def lookup() -> torch.Tensor:
        return F.embedding(ids, table)

    def product() -> torch.Tensor:
        return F.one_hot(ids, VOCAB_SIZE).float() @ table

    assert torch.equal(lookup(), product())
    rounds = [(seconds(lookup, LOOKUPS_A_ROUND), seconds(product, 1)) for _ in range(ROUNDS)]
    fast, slow = (statistics.median(column) for column in zip(*rounds, strict=True))
    write_record(
        record_path(arguments, "embedding"),
        measured_on,
        ["torch"],
        threads=torch.get_num_threads(),
        rounds=ROUNDS,
        shape={"vocab_size": VOCAB_SIZE, "d_model": D_MODEL, "n_ids": N_IDS},
        lookup_seconds=fast,
        product_seconds=slow,
        ratio=slow / fast,
    )
    print(f"lookup {fast * 1e6:.0f} us, product {slow * 1e3:.1f} ms: {slow / fast:.0f} times")


if __name__ == "__main__":
    main()
