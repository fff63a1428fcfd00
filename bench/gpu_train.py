"""Training on one graphics card, beside transformers: tokens a second, utilization, memory.

    python bench/gpu_train.py                     # some ten minutes; writes results/gpu_train.json
    python bench/gpu_train.py --shapes gpu12      # the preset for a card of 12 GB alone
    python bench/gpu_train.py --device cpu --quick  # a minute on any machine: does it run?

Synthetic tokens, bfloat16, compiled. Each measurement is a fresh process: steps to warm up, then
steps that are timed one by one with the device drained before and after. The utilization is that of
Chowdhery et al. (2023): FLOPs of the formula by those the card could have done, which is known for
some cards and can be given with ``--peak``, in TFLOP/s for dense products in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from record import in_fresh_process, machine, write_record

from llm_core.config import GPTConfig, preset
from llm_core.model import flops_per_token
from llm_core.runtime import peak_memory, set_seed, timer

ROOT = Path(__file__).parents[1]
LR = 3e-4
GIB = 1 << 30
BUDGETS = {"2.6B tokens": 2.6e9, "10B tokens": 10e9}
# TFLOP/s, dense, bfloat16 with 32-bit sums: NVIDIA's papers on the Hopper and Ada architectures.
PEAKS = {
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H200": 989.4,
    "NVIDIA GeForce RTX 4070 Ti": 80.2,
    "NVIDIA GeForce RTX 4090": 165.2,
}


@dataclass(frozen=True)
class Shape:
    """A model, the sequences of a step, and the batches whose gradients are added up in one."""

    model: GPTConfig
    batch_size: int
    n_accumulate: int = 1

    @property
    def n_tokens(self) -> int:
        """Tokens of a step."""
        return self.n_accumulate * self.batch_size * self.model.context_length


SHAPES = {
    "124M": Shape(preset("gpt2-124m"), 32),
    "1.5B": Shape(preset("gpt2-1558m"), 8),
    "gpu12": Shape(preset("gpt2-124m"), 8, 8),
}
QUICK = Shape(GPTConfig(512, 64, n_layer=2, n_head=2, d_model=32), 2, 2)
Step = Callable[[], float]


def llm_core(shape: Shape, device: str) -> Step:
    """Weights in bfloat16, masters in float32, the loss in chunks, blocks compiled."""
    import torch

    from llm_core.model import GPT
    from llm_core.optim import AdamW, clip_grad_norm_, decay_groups
    from llm_core.train import next_token_loss

    model = GPT(shape.model).to(device, torch.bfloat16)
    for block in model.blocks:
        block.compile()
    optimizer = AdamW(decay_groups(model, 0.1), lr=LR)
    batches = made_up(shape, device)

    def step() -> float:
        total = 0.0
        for ids, targets in batches:
            loss, _ = next_token_loss(model, {"ids": ids, "targets": targets})
            torch.autograd.backward(loss / len(batches))
            total += loss.item() / len(batches)
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return total

    return step


def transformers(shape: Shape, device: str) -> Step:
    """GPT2LMHeadModel with fused attention under autocast, compiled, torch's fused AdamW."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = shape.model
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_embd=config.d_model,
            activation_function={"gelu": "gelu", "gelu_tanh": "gelu_new"}[config.mlp],
            bos_token_id=0,
            eos_token_id=0,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        )
    )
    model = model.to(device).train()
    compiled: Any = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.1, fused=True)
    batches = made_up(shape, device)

    def step() -> float:
        total = 0.0
        for ids, _ in batches:  # it shifts the targets itself
            with torch.autocast(device, torch.bfloat16):
                loss = compiled(ids, labels=ids).loss
            (loss / len(batches)).backward()
            total += loss.item() / len(batches)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return total

    return step


CONTENDERS = {"llm_core": llm_core, "transformers": transformers}


def made_up(shape: Shape, device: str) -> list[tuple[Any, Any]]:
    """Random ids with the ids that follow them, (B, T) each, for each batch of a step."""
    import torch

    size = shape.batch_size, shape.model.context_length + 1
    rows = [torch.randint(shape.model.vocab_size, size) for _ in range(shape.n_accumulate)]
    return [
        (ids[:, :-1].contiguous().to(device), ids[:, 1:].contiguous().to(device)) for ids in rows
    ]


def measure(contender: str, shape: Shape, device: str, n_steps: int) -> dict[str, Any]:
    """Seconds of each step and the most memory that was taken; raises where nothing is learned."""
    import torch

    def drain() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    set_seed(0)
    step = CONTENDERS[contender](shape, device)
    losses, seconds = [step() for _ in range(4)], []
    for _ in range(n_steps):
        drain()
        with timer() as clock:
            losses.append(step())
            drain()
        seconds.append(clock.seconds)
    if not losses[-1] < losses[0]:
        raise SystemExit(f"{contender} does not learn: {losses}")
    most = torch.cuda.max_memory_reserved() if device == "cuda" else peak_memory()
    return {"seconds": seconds, "peak_memory": most}


def peak_flops(device: str, given: float | None) -> float | None:
    """FLOP/s that the device could do, or None where that is not known."""
    import torch

    if given is not None:
        return given * 1e12
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return PEAKS[name] * 1e12 if name in PEAKS else None


def row_of(name: str, contender: str, run: dict[str, Any], peak: float | None) -> dict[str, Any]:
    """What one measurement says."""
    shape = SHAPES.get(name, QUICK)
    rate = shape.n_tokens / statistics.median(run["seconds"])
    need = flops_per_token(shape.model, shape.model.context_length, training=True)
    return {
        "shape": name,
        "contender": contender,
        **run,
        "tokens_per_second": rate,
        "utilization": None if peak is None else rate * need / peak,
        "peak_gibibytes": run["peak_memory"] / GIB,
        "days": {budget: n / rate / 86_400 for budget, n in BUDGETS.items()},
    }


def show(row: dict[str, Any]) -> None:
    """A line, and the days that the budgets would take."""
    used = "" if row["utilization"] is None else f"  MFU {row['utilization']:.0%}"
    days = ", ".join(f"{budget} {n:.2f}" for budget, n in row["days"].items())
    print(
        f"{row['shape']:6} {row['contender']:13} {row['tokens_per_second']:11,.0f} tokens/s{used}"
        f"  {row['peak_gibibytes']:.2f} GiB  days to {days}"
    )


def main() -> None:
    """Read the command line, measure in turn, print, write."""
    import torch

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--peak", type=float, help="TFLOP/s of the card, dense, bfloat16")
    parser.add_argument("--quick", action="store_true", help="a tiny model, no file")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        job = json.loads(arguments.job)
        shape = SHAPES.get(job["shape"], QUICK)
        print(json.dumps(measure(job["contender"], shape, job["device"], job["n_steps"])))
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here; try --device cpu --quick")
    here = machine()
    peak = peak_flops(arguments.device, arguments.peak)
    n_steps = 5 if arguments.quick else 20
    rows = []
    for name in ["quick"] if arguments.quick else arguments.shapes:
        for contender in CONTENDERS:
            job = {"shape": name, "contender": contender, "n_steps": n_steps}
            run = in_fresh_process({**job, "device": arguments.device})
            rows.append(row_of(name, contender, run, peak))
            show(rows[-1])
    if not arguments.quick:
        device = torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu"
        out = ROOT / "results" / "gpu_train.json"
        write_record(out, here, ["torch", "transformers"], device=device, peak=peak, rows=rows)
        print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
