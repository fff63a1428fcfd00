"""How many labels does a task take? Fine-tuning beside training from scratch and counting words.

    python bench/labels.py              # hours; writes results/labels.json, goes on if interrupted
    python bench/labels.py --sizes 50 200 --seeds 1     # a part of it
    python bench/labels.py --quick      # minutes, one seed, few labels, prints only

Every classifier gets the same labeled stories and answers for the same others, of which
the program that told them knows the odds of each label: no classifier is right more often than the
one that says the likelier. With a thousand labels, the pretrained model is fine-tuned in four ways.
Each run is kept in the cache as it ends, so that one that was stopped is not lost. Chapter 6 draws
the record.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from record import machine, write_record
from tqdm.auto import tqdm

ROOT = Path(__file__).parents[1]
BATCH_SIZE, LORA_RANK = 16, 8
TASKS = ("promise", "ending")
Kind = Literal["majority", "words", "naive Bayes", "network"]


@dataclass(frozen=True)
class Arm:
    """A way to make a classifier; the defaults are those of a pretrained network."""

    name: str
    kind: Kind = "network"
    pretrained: bool = True
    trainable: tuple[str, ...] = ("",)
    lora_rank: int = 0
    max_lr: float = 1e-3


ARMS = (
    Arm("majority", "majority"),
    Arm("bag of words", "words"),
    Arm("naive Bayes", "naive Bayes"),
    Arm("from scratch", pretrained=False, max_lr=2e-3),
    Arm("head", trainable=("head",), max_lr=1e-2),
    Arm("fine-tuned"),
)
WAYS = (  # to fine-tune; the last block's number is put in
    Arm("last block", trainable=("head", "body.final_norm", "body.blocks.LAST"), max_lr=2e-3),
    Arm("LoRA", trainable=("head",), lora_rank=LORA_RANK, max_lr=5e-3),
)


@dataclass(frozen=True)
class Plan:
    """How large the experiment is."""

    profile: str = "book"
    sizes: tuple[int, ...] = (50, 100, 200, 500, 1_000, 5_000)
    size_of_ways: int = 1_000
    n_test: int = 500
    steps: float = 6.0  # times the square root of the labels: 42 steps for 50, 424 for 5,000

    def n_steps(self, n_labels: int) -> int:
        """Steps of 16 texts, grown with the labels but slower than they."""
        return round(self.steps * math.sqrt(n_labels))


QUICK = Plan("ci", (50, 200), 200, 100, 2.0)
N_ODDS = 30  # texts whose exact odds tell whether texts settle the label
N_OWN = 200  # of its own labels that a classifier is asked for again


# --- what is kept ---------------------------------------------------------------------------------


def kept(made_from: dict[str, Any], make: Callable[[], Any]) -> Any:
    """What ``make`` returns, as json, from the cache where it was made before."""
    from llm_core import runtime
    from llm_core.kept import world

    content = json.dumps({**made_from, "world": world()}, sort_keys=True, default=str)
    name = hashlib.sha256(content.encode()).hexdigest()[:16]
    path = runtime.cache_folder("bench", "labels") / f"{name}.json"
    if not path.exists():
        made = make()
        with runtime.atomic_write(path, "w") as file:
            json.dump(made, file)
    return json.loads(path.read_text(encoding="utf-8"))


def labeled(task: str, n: int, seed: int, split: str) -> list[tuple[str, str]]:
    """Examples of a task; more of them begin with the same."""
    from llm_core.stories import tasks

    found = kept(
        {"task": task, "n": n, "seed": seed, "split": split},
        lambda: tasks.examples(task, n, seed, split),
    )
    return [(text, label) for text, label in found]


def odds(task: str, n_test: int) -> NDArray[np.float64]:
    """The exact probability of each label for each test text: (n, C).

    Finding them takes seconds a text in some tasks. Where those of the first texts are all certain,
    so that the text has settled the label, the labels are the odds of the others.
    """
    from llm_core.stories import tasks

    labels, test = tasks.TASKS[task].labels, labeled(task, n_test, 0, "test")

    def exact(n: int) -> NDArray[np.float64]:
        found = [tasks.bayes(task, text, "test") for text, _ in test[:n]]
        return np.array([[one[label] for label in labels] for one in found])

    def make() -> list[list[float]]:
        settled = np.eye(len(labels))[[labels.index(label) for _, label in test]]
        certain = np.allclose(exact(N_ODDS), settled[:N_ODDS])
        return (settled if certain else exact(n_test)).tolist()

    return np.array(kept({"odds of": task, "n": n_test, "first": N_ODDS}, make))


# --- one run --------------------------------------------------------------------------------------


def by_words(
    kind: Kind, train: list[tuple[str, str]], labels: tuple[str, ...], texts: list[str]
) -> NDArray[np.float64]:
    """The probabilities (n, C) that counting words gives, or counting labels alone."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.naive_bayes import MultinomialNB
    from sklearn.pipeline import make_pipeline

    given = [label for _, label in train]
    if kind == "majority":
        return np.tile([given.count(label) / len(given) for label in labels], (len(texts), 1))
    model = MultinomialNB() if kind == "naive Bayes" else LogisticRegressionCV(max_iter=5_000)
    pipeline = make_pipeline(CountVectorizer(), model).fit([text for text, _ in train], given)
    found = pipeline.predict_proba(texts)
    return np.asarray(found[:, [list(pipeline.classes_).index(label) for label in labels]])


def trainable(arm: Arm, n_layer: int) -> tuple[str, ...]:
    """The parts that learn, the last block by its number."""
    return tuple(part.replace("LAST", str(n_layer - 1)) for part in arm.trainable)


def by_network(
    arm: Arm, plan: Plan, train: list[tuple[str, str]], labels: tuple[str, ...], seed: int
) -> Callable[[list[str]], NDArray[np.float64]]:
    """Train a network; what it says of texts."""
    import torch

    from llm_core import classify, recipes
    from llm_core.model import GPT

    recipe = recipes.recipe(plan.profile)
    if arm.pretrained:
        body = recipes.pretrained(plan.profile).model
    else:
        torch.manual_seed(seed)
        body = GPT(recipe.model, init=recipe.init)
    words = recipes.tokenizer()
    classifier = classify.fit(
        body,
        train,
        labels,
        words,
        plan.n_steps(len(train)),
        BATCH_SIZE,
        arm.max_lr,
        trainable(arm, recipe.model.n_layer),
        arm.lora_rank,
        seed,
        progress=False,
    )
    return lambda texts: classify.probabilities(classifier, words, texts)


def measured(arm: Arm, plan: Plan, task: str, n_labels: int, seed: int) -> dict[str, Any]:
    """Train one classifier and hold it against the test texts; ``seconds`` are those of one core.

    The others' work beside it does not count.
    """
    from llm_core import classify
    from llm_core.stories import tasks

    labels, largest = tasks.TASKS[task].labels, max(*plan.sizes, plan.size_of_ways)
    # Other stories than those that the model was pretrained on, and others for each seed.
    train = labeled(task, largest, 1_000 + seed, "train")[:n_labels]
    test, exact = labeled(task, plan.n_test, 0, "test"), odds(task, plan.n_test)
    start, texts = time.process_time(), [text for text, _ in test]
    if arm.kind == "network":
        ask = by_network(arm, plan, train, labels, seed)
    else:
        ask = partial(by_words, arm.kind, train, labels)
    p = ask(texts)
    found = classify.report(p, [labels.index(label) for _, label in test])
    seen = train[:N_OWN]
    p_seen = ask([text for text, _ in seen])
    right = p_seen.argmax(axis=1) == [labels.index(label) for _, label in seen]
    return {
        "accuracy": found.accuracy.value,
        "expected_accuracy": float(exact[np.arange(len(p)), p.argmax(axis=1)].mean()),
        "f1": found.f1,
        "log_loss": found.log_loss,
        "calibration_error": found.calibration.error,
        "accuracy_on_its_own_labels": float(right.mean()),
        "seconds": round(time.process_time() - start, 1),
    }


def run(arm: Arm, plan: Plan, task: str, n_labels: int, seed: int) -> dict[str, Any]:
    """``measured``, from the cache where it was measured before."""
    import torch

    from llm_core import recipes

    torch.set_num_threads(1)
    what = {"task": task, "arm": arm.name, "n_labels": n_labels, "seed": seed}
    if arm.kind == "network":
        what["n_steps"] = plan.n_steps(n_labels)
    settings = {"arm": asdict(arm), "n_test": plan.n_test, "recipe": recipes.recipe(plan.profile)}
    numbers = kept({**what, **settings}, lambda: measured(arm, plan, task, n_labels, seed))
    return {**what, **numbers}


# --- all runs -------------------------------------------------------------------------------------


def run_all(
    plan: Plan, task_names: tuple[str, ...], seeds: range, n_processes: int
) -> list[dict[str, Any]]:
    """Every arm with every number of labels and every seed, cheap ones and small ones first."""
    from llm_core import recipes

    os.environ["OMP_NUM_THREADS"] = "1"
    recipes.pretrained(plan.profile)  # once, before processes ask for it
    jobs = []
    for task in task_names:
        odds(task, plan.n_test)
        for seed in seeds:
            labeled(task, max(*plan.sizes, plan.size_of_ways), 1_000 + seed, "train")
            jobs += [(arm, plan, task, n, seed) for n in plan.sizes for arm in ARMS]
            if plan.size_of_ways in plan.sizes:
                jobs += [(arm, plan, task, plan.size_of_ways, seed) for arm in WAYS]
    jobs.sort(key=lambda job: (job[0].kind == "network", job[4], job[3]))
    context = get_context("spawn")
    with ProcessPoolExecutor(n_processes, mp_context=context) as pool:
        waiting = {pool.submit(run, *job): place for place, job in enumerate(jobs)}
        done = {}
        for one in tqdm(as_completed(waiting), total=len(jobs), unit="run"):
            done[waiting[one]] = one.result()
            tell(done[waiting[one]])
    return [done[place] for place in range(len(jobs))]


def tell(row: dict[str, Any]) -> None:
    """One line about a run."""
    tqdm.write(
        f"{row['task']:7} {row['arm']:13} {row['n_labels']:5} labels, seed {row['seed']}: "
        f"accuracy {row['accuracy']:.3f} (expected {row['expected_accuracy']:.3f}), "
        f"log loss {row['log_loss']:.3f}, on its own {row['accuracy_on_its_own_labels']:.3f}, "
        f"{row['seconds']} s"
    )


def best_possible(task: str, plan: Plan) -> dict[str, float]:
    """What the classifier reaches that knows the program."""
    from llm_core.stories import tasks

    p, labels = odds(task, plan.n_test), tasks.TASKS[task].labels
    true = [labels.index(label) for _, label in labeled(task, plan.n_test, 0, "test")]
    given = p[np.arange(len(p)), true]
    return {
        "expected_accuracy": float(p.max(axis=1).mean()),
        "accuracy": float((p.argmax(axis=1) == true).mean()),
        "log_loss": float(-np.log(given).mean()),
    }


def share_that_learns(arm: Arm, plan: Plan) -> float:
    """Of the parameters of a classifier with two labels."""
    from llm_core import lora, recipes
    from llm_core.classify import Classifier
    from llm_core.model import GPT

    config = recipes.recipe(plan.profile).model
    classifier, parts = Classifier(GPT(config), ("a", "b")), trainable(arm, config.n_layer)
    if arm.lora_rank:
        lora.attach(classifier, arm.lora_rank, train=parts)
    else:
        lora.learn_only(classifier, parts)
    return lora.share(classifier)


def main() -> None:
    """Run, print the results, write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="at a time, of one thread each")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--sizes", type=int, nargs="+", default=Plan().sizes, help="labels")
    arguments = parser.parse_args()
    here, names = machine(), tuple(arguments.tasks)
    plan, n_seeds = replace(Plan(), sizes=tuple(arguments.sizes)), arguments.seeds
    if arguments.quick:
        plan, n_seeds = QUICK, 1
    rows = run_all(plan, names, range(n_seeds), arguments.processes)
    best = {task: best_possible(task, plan) for task in names}
    for task, numbers in best.items():
        print(f"{task}: best possible {numbers}")
    if not arguments.quick:
        networks = [arm for arm in (*ARMS, *WAYS) if arm.kind == "network"]
        arms = {
            arm.name: {**asdict(arm), "share": share_that_learns(arm, plan)} for arm in networks
        }
        out = ROOT / "results" / "labels.json"
        sizes = {**asdict(plan), "batch_size": BATCH_SIZE, "n_seeds": n_seeds}
        packages = ["torch", "scikit-learn"]
        write_record(out, here, packages, plan=sizes, arms=arms, best_possible=best, rows=rows)
        print(f"wrote {out.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
