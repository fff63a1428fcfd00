"""What instruction tuning needs: the mask, many questions, many conversations, all parameters?

    python bench/tuning.py             # a quarter of an hour; writes results/tuning.json
    python bench/tuning.py --arms LoRA # these alone, into the record that is there
    python bench/tuning.py --quick     # minutes, one seed, few steps, prints only

Each arm changes one thing of ``recipes.tuning_recipe`` (but LoRA, which stands beside full tuning
by AdamW, and one question, whose short rows are packed and retell nothing) and sees as many tokens
as the others, far fewer than the recipe: the arms are compared with each other, and not with its
result; none has its exercises. Two runs go at a time, on one thread each. Chapter 7 reads the
record.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from record import ROOT, machine, two_at_a_time, write_record

N_STEPS, N_TEST = 240, 24


@dataclass(frozen=True)
class Arm:
    """What a run starts from; the defaults are the recipe's."""

    name: str
    n_conversations: int = 0  # 0: a new one for every row
    n_questions: int | None = None
    context_weight: float | None = None  # None: that of the recipe
    lora_rank: int = 0  # with ``adamw``: its factors are no maps of their own
    adamw: bool = False  # AdamW for all, in float32, instead of what the recipe has
    n_mixed: int = 0  # of so many batches one is of stories alone, as in pretraining
    scratch: bool = False


FULL = Arm("full")
ARMS = (
    FULL,
    replace(FULL, name="answers only", context_weight=0.0),
    replace(FULL, name="no mask", context_weight=1.0),
    replace(FULL, name="one question", n_questions=1),
    replace(FULL, name="300 conversations", n_conversations=300),
    replace(FULL, name="100 conversations", n_conversations=100),
    replace(FULL, name="full, AdamW", adamw=True),
    replace(FULL, name="LoRA", lora_rank=16, adamw=True),
    replace(FULL, name="mixed", n_mixed=4),
    replace(FULL, name="from scratch", scratch=True),
)


class Mixed:
    """Batches of ``first``, and every ``n``-th of ``second``."""

    def __init__(self, first: Any, second: Any, n: int) -> None:
        self.first, self.second, self.n, self.n_taken = first, second, n, 0

    def __next__(self) -> Mapping[str, Any]:
        self.n_taken += 1
        return next(self.first if self.n_taken % self.n else self.second)

    def state(self) -> dict[str, Any]:
        """Where both stand."""
        return {"n": self.n_taken, "first": self.first.state(), "second": self.second.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state()`` was taken."""
        self.n_taken = state["n"]
        self.first.restore(state["first"])
        self.second.restore(state["second"])


def batches(arm: Arm, seed: int, n_steps: int, words: Any, base: Any) -> Any:
    """What an arm reads."""
    from llm_core import chat, dataset, instruct, recipes

    recipe = recipes.tuning_recipe("book")
    length = base.recipe.model.context_length
    read = instruct.rendered(
        words,
        arm.n_conversations or n_steps * recipe.batch_size,
        seed,
        n_questions=arm.n_questions,
        n_retold=0 if arm.n_questions else recipe.n_retold,
    )
    weight = recipe.context_weight if arm.context_weight is None else arm.context_weight
    packed = arm.n_questions is not None  # short ones would leave the rows half empty
    rows = chat.Conversations(read, recipe.batch_size, length, seed, packed, weight)
    if not arm.n_mixed:
        return rows
    stories = dataset.batches(recipes.story_data(2_000, 40_000), 4, length, seed=seed)
    return Mixed(rows, stories, arm.n_mixed)


def run(arm: Arm, seed: int, n_steps: int) -> dict[str, Any]:
    """Tune one arm; return its curve, and what is left of telling stories."""
    import torch

    from llm_core import chat, evaluate, instruct, lora, recipes
    from llm_core.model import initialize
    from llm_core.train import train

    torch.set_num_threads(1)
    base, recipe = recipes.pretrained("book"), recipes.tuning_recipe("book")
    words = chat.chat_tokenizer(base.tokenizer)
    torch.manual_seed(seed)
    model = chat.grow(base.model, words.vocab_size, seed)
    if arm.scratch:
        initialize(model, "fan_in")
    if arm.lora_rank:
        lora.attach(model, arm.lora_rank, 2.0 * arm.lora_rank, train=("token_embedding",))
    n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    settings = replace(
        recipe.train,
        n_steps=n_steps,
        warmup_steps=max(2, n_steps // 25),
        evaluate_at=(max(1, n_steps // 4), max(2, n_steps // 2)),
        save_every=0,
        optimizer="adamw" if arm.adamw else recipe.train.optimizer,
        precision="float32" if arm.adamw else "bfloat16",
    )
    asked = instruct.asked(N_TEST, split="validation")

    def shares(model: Any) -> dict[str, float]:
        found = evaluate.questions_report(lambda p: instruct.answers(model, words, p), asked)
        return {kind: share.value for kind, share in found.items()}

    rows = batches(arm, seed, n_steps, words, base)
    history = train(model, rows, settings, evaluate=shares, progress=False)
    if arm.lora_rank:
        lora.merge(model)
    test = evaluate.story_set(base.tokenizer, 40, base.recipe.model.context_length)
    steps, right = history.evaluated("all")
    per_step = sum(history.n_tokens) / history.n_steps
    return {
        "arm": arm.name,
        "seed": seed,
        "n_conversations": arm.n_conversations or n_steps * recipe.batch_size,
        "n_questions": arm.n_questions,
        "tokens": [round(step * per_step) for step in steps],
        "all": [round(share, 4) for share in right],
        "kinds": {k: round(v, 4) for k, v in history.evaluations[-1][1].items() if k != "all"},
        "gap": round(evaluate.gap(model.float(), test).gap, 4),
        "seconds": round(sum(history.seconds), 1),
        "trained_parameters": n_trained,
    }


def gap_before() -> float:
    """The gap of the pretrained model, on the stories that ``run`` takes."""
    from llm_core import evaluate, recipes

    base = recipes.pretrained("book")
    test = evaluate.story_set(base.tokenizer, 40, base.recipe.model.context_length)
    return round(evaluate.gap(base.model, test).gap, 4)


def run_all(arms: Sequence[Arm], seeds: range, n_steps: int) -> list[dict[str, Any]]:
    """The arms with every seed, two processes at a time."""
    os.environ["TQDM_DISABLE"] = "1"
    return two_at_a_time(run, [(arm, seed, n_steps) for seed in seeds for arm in arms])


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Arms in their order; what is no arm any more is dropped."""
    order = [arm.name for arm in ARMS]
    known = [row for row in rows if row["arm"] in order]
    return sorted(known, key=lambda row: (order.index(row["arm"]), row["seed"]))


def beside(out: Path, chosen: Sequence[str], sizes: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the other arms in the record. Ends the program where its sizes are others."""
    record = json.loads(out.read_text(encoding="utf-8"))
    for name, value in sizes.items():
        if record[name] != value:
            raise SystemExit(f"{out.name} was made with {name}={record[name]}; run all arms")
    return [row for row in record["rows"] if row["arm"] not in chosen]


def main() -> None:
    """Run, print the last shares, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", nargs="+", choices=[arm.name for arm in ARMS])
    arguments = parser.parse_args()
    here, before = machine(), gap_before()
    n_steps = 8 if arguments.quick else N_STEPS
    out = ROOT / "results" / "tuning.json"
    sizes = {"n_steps": n_steps, "n_test_stories": N_TEST, "gap_before": before, "threads": 1}
    chosen = [arm for arm in ARMS if not arguments.arms or arm.name in arguments.arms]
    others = beside(out, arguments.arms, sizes) if arguments.arms and not arguments.quick else []
    rows = run_all(chosen, range(1 if arguments.quick else arguments.seeds), n_steps)
    rows = in_order([*rows, *others])
    for row in rows:
        print(
            f"{row['arm']:22} seed {row['seed']}  exact {row['all'][-1]:.3f}  "
            f"gap {row['gap']:.3f}  {row['seconds']} s"
        )
    if not arguments.quick:
        arms = {arm.name: asdict(arm) for arm in ARMS}
        write_record(out, here, ["torch"], **sizes, arms=arms, rows=rows)
        print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
