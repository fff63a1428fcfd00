"""Which change ends the plateau? One change at a time, several seeds, the same stories for all.

    python bench/plateau.py             # twenty minutes; writes results/plateau.json
    python bench/plateau.py --quick     # a minute, one seed, few steps, prints only

The base is GPT-2's way at the size of the stories: learned positions, weights drawn with a standard
deviation of 0.02, 16 windows a batch. Every arm but the last two changes one thing, and all see
the same number of tokens. Two runs go at a time, on one thread each. Chapter 5 draws the record and
trains one arm again.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from typing import Any

from record import ROOT, machine, two_at_a_time, write_record

from llm_core.config import GPTConfig, Position
from llm_core.model import Init
from llm_core.trainconfig import TrainConfig

CONTEXT_LENGTH, N_TEST = 256, 40
WEIGHTED_SHARE = 0.6  # of the steps, until names count like other tokens
N_TOKENS, N_STORIES = 1_500_000, 8_000
EVALUATIONS = 30


@dataclass(frozen=True)
class Arm:
    """What a run starts from; the defaults are the base."""

    name: str
    position: Position = "learned"
    init: Init = "gpt2"
    batch_size: int = 16
    name_weight: float = 1.0
    max_lr: float = 2e-3


BASE = Arm("base")
THREE = Arm("all three", position="rope", init="fan_in", batch_size=8)
ARMS = (
    BASE,
    replace(BASE, name="rotary", position="rope"),
    replace(BASE, name="fan_in init", init="fan_in"),
    replace(BASE, name="batch 8", batch_size=8),
    replace(BASE, name="names x 8", name_weight=8.0),
    THREE,
    replace(THREE, name="all four", name_weight=8.0),
)


def config(arm: Arm) -> GPTConfig:
    """The model of an arm: the shape of ``story-1m`` with the parts of GPT-2."""
    size = {"n_layer": 4, "n_head": 4, "d_model": 128}
    return GPTConfig(1024, CONTEXT_LENGTH, **size, position=arm.position, mlp="gelu_tanh")


def train_config(arm: Arm, n_tokens: int) -> TrainConfig:
    """A cosine over all the tokens, the same for every arm but for the length of a step."""
    n_steps = n_tokens // (arm.batch_size * CONTEXT_LENGTH)
    return TrainConfig(
        n_steps,
        max_lr=arm.max_lr,
        min_lr=arm.max_lr / 10,
        warmup_steps=n_steps // 20,
        evaluate_every=max(1, n_steps // EVALUATIONS),
    )


def run(arm: Arm, seed: int, n_tokens: int) -> dict[str, Any]:
    """Train one arm; return its curve on unseen stories and the losses of its steps."""
    import torch

    from llm_core import dataset, recipes
    from llm_core.curriculum import WeightedBatches
    from llm_core.evaluate import story_set
    from llm_core.model import GPT
    from llm_core.tracking import name_set
    from llm_core.train import train

    torch.set_num_threads(1)
    words, data = recipes.tokenizer(), recipes.story_data(N_STORIES)
    torch.manual_seed(seed)
    model = GPT(config(arm), init=arm.init)
    settings = train_config(arm, n_tokens)
    rows = WeightedBatches(
        dataset.batches(data, arm.batch_size, CONTEXT_LENGTH, seed=seed),
        recipes.name_weights(words, arm.name_weight),
        round(WEIGHTED_SHARE * settings.n_steps),
    )
    test = story_set(words, N_TEST, CONTEXT_LENGTH)
    names = name_set(words, N_TEST // 2, CONTEXT_LENGTH)

    def evaluate(model: GPT) -> dict[str, float]:
        return {**test.metrics(model), **names.metrics(model)}

    history = train(model, rows, settings, evaluate=evaluate, progress=False)
    steps, gaps = history.evaluated("gap")
    return {
        "arm": arm.name,
        "seed": seed,
        "steps": steps,
        "loss": [round(value, 5) for value in history.evaluated("loss")[1]],
        "gap": [round(value, 5) for value in gaps],
        "floor": history.evaluated("floor")[1][-1],
        "name_loss": [round(value, 4) for value in history.evaluated("name_loss")[1]],
        "names_tracked": [round(value, 4) for value in history.evaluated("names_tracked")[1]],
        "train_loss": [round(value, 5) for value in history.loss[:60]],
        "seconds": round(sum(history.seconds), 1),
    }


def run_all(arms: tuple[Arm, ...], seeds: range, n_tokens: int) -> list[dict[str, Any]]:
    """Every arm with every seed, two processes at a time."""
    rows = two_at_a_time(run, [(arm, seed, n_tokens) for seed in seeds for arm in arms])
    order = [arm.name for arm in arms]
    return sorted(rows, key=lambda row: (order.index(row["arm"]), row["seed"]))


def main() -> None:
    """Run, print the last gaps, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    here = machine()
    seeds = range(1 if arguments.quick else arguments.seeds)
    n_tokens = 200_000 if arguments.quick else N_TOKENS
    rows = run_all(ARMS, seeds, n_tokens)
    for row in rows:
        print(
            f"{row['arm']:22} seed {row['seed']}  gap {row['gap'][-1]:.3f}  "
            f"names tracked {row['names_tracked'][-1]:.2f}  {row['seconds']} s"
        )
    if not arguments.quick:
        arms = {
            arm.name: {
                "batch_size": arm.batch_size,
                "init": arm.init,
                "name_weight": arm.name_weight,
                "model": config(arm).to_dict(),
                "train": asdict(train_config(arm, n_tokens)),
            }
            for arm in ARMS
        }
        sizes = {
            "n_tokens": n_tokens,
            "n_stories": N_STORIES,
            "n_test_stories": N_TEST,
            "weighted_share": WEIGHTED_SHARE,
        }
        out = ROOT / "results" / "plateau.json"
        write_record(
            out, here, ["torch"], context_length=CONTEXT_LENGTH, **sizes, arms=arms, rows=rows
        )
        print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
