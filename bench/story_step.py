"""A whole training step of the story model, through ``train``, beside a plain loop.

    python bench/story_step.py           # five minutes; writes results/story_step.json
    python bench/story_step.py --quick   # a minute, one round, prints only

The plain loop is what one writes first with torch alone: its own modules, its attention, its loss
on all logits, its fused AdamW, under autocast where bfloat16 pays. Both have the shape of
``story-1m`` with 8 windows of 256 tokens, clip gradients and read the loss of every step. Every
measurement is a fresh process; rounds are interleaved. The limit is that of
``bench/train_step.py``, the matrix products alone.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

import train_step
from record import in_fresh_process, machine, parser, record_path, write_record
from tqdm.auto import tqdm

from llm_core.config import GPTConfig, preset
from llm_core.runtime import peak_memory, reuse_memory, set_seed, set_threads, timer

N_THREADS, N_STEPS, WARMUP = 2, 60, 10
N_ROWS, N_TOKENS = 8, 256
LR = 1e-3
CONTENDERS = ("train", "train, compiled", "plain", "plain, compiled")


def config() -> GPTConfig:
    """``story-1m`` at the windows that it reads first."""
    return preset("story-1m", context_length=N_TOKENS)


def batch() -> dict[str, Any]:
    """Random ids and the ids that follow them."""
    import torch

    ids = torch.randint(config().vocab_size, (N_ROWS, N_TOKENS + 1))
    return {"ids": ids[:, :-1].contiguous(), "targets": ids[:, 1:].contiguous()}


class Same:
    """The same batch over and over, as ``train`` wants batches."""

    def __init__(self) -> None:
        self.batch = batch()

    def __next__(self) -> dict[str, Any]:
        return self.batch

    def state(self) -> dict[str, Any]:
        """Nothing to know."""
        return {}

    def restore(self, state: Any) -> None:
        """Nothing to do."""


def of_train(compiled: bool) -> tuple[list[float], list[float]]:
    """Seconds and losses of the library's loop, in the precision that it chooses."""
    from llm_core.model import GPT
    from llm_core.train import train
    from llm_core.trainconfig import TrainConfig

    settings = TrainConfig(WARMUP + N_STEPS, max_lr=LR, warmup_steps=1, compile=compiled)
    history = train(GPT(config(), init="fan_in"), Same(), settings, progress=False)
    return history.seconds, history.loss


def of_plain(compiled: bool, dtype: str) -> tuple[list[float], list[float]]:
    """Seconds and losses of the plain loop, under autocast where that is bfloat16."""
    import torch
    from torch.nn import functional as F

    model: Any = plain_model(config())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=True)
    forward = torch.compile(model) if compiled else model
    rows, seconds, losses = batch(), [], []
    for _ in range(WARMUP + N_STEPS):
        with timer() as clock:
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                logits = forward(rows["ids"])
                loss = F.cross_entropy(logits.flatten(0, 1), rows["targets"].flatten())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        seconds.append(clock.seconds)
    return seconds, losses


def plain_model(config: GPTConfig) -> Any:
    """The same architecture in torch's own parts; (B, T) int64 -> (B, T, V)."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    d, n_head = config.d_model, config.n_head
    angles = torch.outer(torch.arange(N_TOKENS), 1e4 ** -(torch.arange(0, 1, 2 / (d // n_head))))
    cos, sin = angles.cos(), angles.sin()

    def rotated(x: Any) -> Any:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(2))
            self.qkv, self.out = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
            self.up = nn.Linear(d, config.d_ff, bias=False)
            self.down = nn.Linear(config.d_ff, d, bias=False)

        def forward(self, x: Any) -> Any:
            rows = self.qkv(self.norms[0](x)).unflatten(-1, (3, n_head, -1)).permute(2, 0, 3, 1, 4)
            q, k, v = rows
            y = F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).flatten(-2))
            return x + self.down(F.gelu(self.up(self.norms[1](x)), approximate="tanh"))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(config.vocab_size, d)
            self.layers = nn.Sequential(*(Layer() for _ in range(config.n_layer)))
            self.norm = nn.LayerNorm(d)
            nn.init.normal_(self.embedding.weight, std=0.02)

        def forward(self, ids: Any) -> Any:
            return F.linear(self.norm(self.layers(self.embedding(ids))), self.embedding.weight)

    return Model()


def measure(contender: str, dtype: str) -> dict[str, Any]:
    """The median step of one contender, in this process."""
    set_threads(N_THREADS)
    set_seed(0)
    name, compiled = contender.split(",")[0], "compiled" in contender
    if name == "train":
        reuse_memory()
    seconds, losses = of_train(compiled) if name == "train" else of_plain(compiled, dtype)
    if not losses[-1] < losses[0]:
        raise SystemExit(f"{contender} does not learn: {losses}")
    return {
        "seconds": statistics.median(seconds[WARMUP:]),
        "first_seconds": sum(seconds[:WARMUP]),
        "peak_memory": peak_memory(),
    }


def limit(dtype: str) -> dict[str, Any]:
    """The products of a step alone."""
    train_step.SHAPES["story"] = (config(), N_ROWS, N_TOKENS, N_STEPS)
    set_threads(N_THREADS)
    return train_step.measure_limit("story", dtype)


def table(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each contender, beside the plain loops and the limit."""
    middle = {
        name: statistics.median(run["seconds"] for run in done) for name, done in runs.items()
    }
    return [
        {
            "contender": name,
            "seconds": [run["seconds"] for run in done],
            "tokens_per_second": N_ROWS * N_TOKENS / middle[name],
            "times_plain": middle["plain"] / middle[name],
            "times_plain_compiled": middle["plain, compiled"] / middle[name],
            "share_of_limit": middle["limit"] / middle[name],
            "first_seconds": statistics.median(run.get("first_seconds", 0.0) for run in done),
            "peak_memory_megabytes": max(run.get("peak_memory", 0) for run in done) / 10**6,
        }
        for name, done in runs.items()
    ]


def main() -> None:
    """Read the command line, measure in turn, print, write."""
    arguments = parser(__doc__, "story_step", "60 steps each", rounds=5).parse_args()
    if arguments.job:
        job = json.loads(arguments.job)
        print(json.dumps(limit(job[1]) if job[0] == "limit" else measure(*job)))
        return
    here, names, dtype = machine(), (*CONTENDERS, "limit"), train_step.dtypes_that_pay()[0]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    rounds = 1 if arguments.quick else arguments.rounds
    for name in tqdm(names * rounds):
        runs[name].append(in_fresh_process([name, dtype]))
    rows = table(runs)
    for row in rows:
        print(
            f"{row['contender']:16} {row['tokens_per_second']:8,.0f} tokens/s  "
            f"x plain {row['times_plain']:.2f}  x plain compiled {row['times_plain_compiled']:.2f}"
            f"  limit {row['share_of_limit']:.2f}  {row['peak_memory_megabytes']:.0f} MB"
        )
    sizes = {"batch_size": N_ROWS, "context_length": N_TOKENS, "config": config().to_dict()}
    content = {"threads": N_THREADS, "dtype": dtype, **sizes, "rows": rows}
    write_record(record_path(arguments, "story_step"), here, ["torch"], **content)


if __name__ == "__main__":
    main()
