"""Muon or AdamW? The recipe of the stories with either, at three learning rates, two seeds each.

    python bench/optimizers.py             # ten minutes; writes results/optimizers.json
    python bench/optimizers.py --quick     # a minute, one seed, few steps, prints only

The small recipe of ``recipes.recipe("ci")`` with fewer steps; but for optimizer, rate and seed all
runs are the same. First a step of the book's model is timed, on all threads; then two runs go at a
time, on one thread each. Chapter 5 draws the record.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

from record import ROOT, machine, two_at_a_time, write_record

from llm_core import recipes
from llm_core.trainconfig import OPTIMIZERS, Optimizer

RATES = (2e-3, 4e-3, 8e-3)
N_STEPS, QUICK_STEPS, EVALUATIONS = 400, 20, 20
TIMED_STEPS, ROUNDS = 30, 3


def small_recipe(optimizer: Optimizer, max_lr: float, seed: int, n_steps: int) -> recipes.Recipe:
    """The recipe of a run: that of ``ci`` with these settings and nothing kept on the way."""
    base = recipes.recipe("ci")
    config = replace(
        base.train,
        optimizer=optimizer,
        n_steps=n_steps,
        max_lr=max_lr,
        min_lr=max_lr / 50,
        warmup_steps=max(1, n_steps // 50),
        evaluate_every=max(1, n_steps // EVALUATIONS),
        evaluate_at=(),
        save_every=0,
        milestones=(),
        compile=False,
    )
    return replace(base, train=config, seed=seed)


def run(optimizer: Optimizer, max_lr: float, seed: int, n_steps: int) -> dict[str, Any]:
    """Train once, on one thread; return the curves on unseen stories."""
    import torch

    from llm_core.evaluate import story_set
    from llm_core.model import GPT
    from llm_core.tracking import name_set
    from llm_core.train import train

    torch.set_num_threads(1)
    words, recipe = recipes.tokenizer(), small_recipe(optimizer, max_lr, seed, n_steps)
    length = recipe.model.context_length
    test = story_set(words, recipe.n_test_stories, length)
    names = name_set(words, recipe.n_test_stories // 4, length)

    def evaluate(model: GPT) -> dict[str, float]:
        return {**test.metrics(model), **names.metrics(model)}

    torch.manual_seed(seed)
    model = GPT(recipe.model, init=recipe.init)
    rows = recipes.batches(recipe, words)
    history = train(model, rows, recipe.train, evaluate=evaluate, progress=False)
    steps, gaps = history.evaluated("gap")
    return {
        "optimizer": optimizer,
        "max_lr": max_lr,
        "seed": seed,
        "steps": steps,
        "gap": [round(value, 5) for value in gaps],
        "names_tracked": [round(value, 4) for value in history.evaluated("names_tracked")[1]],
        "seconds": round(sum(history.seconds), 1),
    }


def run_all(rates: tuple[float, ...], seeds: range, n_steps: int) -> list[dict[str, Any]]:
    """Both optimizers at all rates with all seeds, two processes at a time."""
    jobs = [
        (optimizer, rate, seed, n_steps)
        for seed in seeds
        for rate in rates
        for optimizer in OPTIMIZERS
    ]
    rows = two_at_a_time(run, jobs)
    return sorted(rows, key=lambda row: (row["optimizer"], row["max_lr"], row["seed"]))


def seconds_a_step(n_steps: int) -> dict[str, float]:
    """Median seconds of a step of the book's model with either optimizer, measured in turns."""
    import torch

    from llm_core.model import GPT
    from llm_core.train import train

    base, words = recipes.recipe("book"), recipes.tokenizer()
    measured: dict[str, list[float]] = {name: [] for name in OPTIMIZERS}
    for _ in range(ROUNDS):
        for name in OPTIMIZERS:
            config = replace(
                base.train,
                optimizer=name,
                n_steps=n_steps,
                warmup_steps=1,
                evaluate_every=0,
                evaluate_at=(),
                save_every=0,
                milestones=(),
            )
            recipe = replace(base, train=config, n_stories=1_000, short_share=0.0)
            torch.manual_seed(0)
            model = GPT(recipe.model, init=recipe.init)
            history = train(model, recipes.batches(recipe, words), config, progress=False)
            measured[name] += history.seconds[n_steps // 2 :]
    return {name: round(statistics.median(values), 5) for name, values in measured.items()}


def main() -> None:
    """Run, print the last gaps and the times, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    here, start = machine(), time.perf_counter()
    n_steps = QUICK_STEPS if arguments.quick else N_STEPS
    seeds = range(1 if arguments.quick else arguments.seeds)
    times = seconds_a_step(4 if arguments.quick else TIMED_STEPS)
    rows = run_all(RATES[:1] if arguments.quick else RATES, seeds, n_steps)
    for row in rows:
        print(
            f"{row['optimizer']:6} at {row['max_lr']:g}, seed {row['seed']}: gap "
            f"{row['gap'][-1]:.3f}, names tracked {row['names_tracked'][-1]:.0%}, "
            f"{row['seconds']} s"
        )
    print("seconds a step of the book's model:", times)
    print(f"{time.perf_counter() - start:.0f} s in all")
    if not arguments.quick:
        base = small_recipe("muon", RATES[0], 0, n_steps)
        out = ROOT / "results" / "optimizers.json"
        write_record(
            out,
            here,
            ["torch"],
            n_steps=n_steps,
            n_tokens=base.n_tokens,
            model=base.model.to_dict(),
            seconds_a_step=times,
            rows=rows,
        )
        print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
