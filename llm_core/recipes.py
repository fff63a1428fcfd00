"""What chapters share, made on demand: the tokenizer of the stories, the pretrained model.

Whatever is asked for is made once, with a bar, and kept in the cache folder under a name that
depends on all that it was made from: another setting, another world or another tokenizer is
another name, and nothing stale is ever loaded. A run that was interrupted goes on where it stood.
Two notebooks that ask at once wait for one another. Chapter 5 trains the model and studies it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from llm_core import checkpoint, dataset, runtime, stories
from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig, preset
from llm_core.curriculum import Stages, WeightedBatches
from llm_core.evaluate import story_set
from llm_core.model import GPT, Init
from llm_core.shards import Dataset
from llm_core.shards import load as load_data
from llm_core.stories import lexicon
from llm_core.tokenizer import END_OF_TEXT, Tokenizer, train_bpe
from llm_core.tracking import name_set
from llm_core.train import MILESTONES, train
from llm_core.trainconfig import History, TrainConfig

VOCAB_SIZE = 1024
N_TOKENIZER_STORIES = 8_000
RESULT = "result.json"  # written last: a folder without it is not finished


# --- names that depend on the content -------------------------------------------------------------


@lru_cache(maxsize=1)
def world() -> str:
    """A fingerprint of the program that tells the stories: their first ones, with their odds."""
    digest = hashlib.sha256()
    for story in stories.stories(50, seed=0):
        digest.update(f"{story.text}\n{story.log_prob:.9f}\n".encode())
    return digest.hexdigest()


def _folder(kind: str, made_from: dict[str, Any]) -> Path:
    content = json.dumps({**made_from, "world": world()}, sort_keys=True, default=str)
    name = f"{kind}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    return runtime.cache_folder("recipes", name)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time makes what belongs into a folder; the others wait and find it made."""
    from filelock import FileLock

    with FileLock(folder.with_name(f".{folder.name}.lock")):
        yield


# --- the tokenizer and the stories as ids ---------------------------------------------------------


def tokenizer() -> Tokenizer:
    """The tokenizer of the stories: 1,024 tokens, learned from the first 8,000 of them."""
    made_from = {"vocab_size": VOCAB_SIZE, "n_stories": N_TOKENIZER_STORIES}
    folder = _folder("tokenizer", made_from)
    path = folder / "tokenizer.json"
    with _alone(folder):
        if not path.exists():
            told = (story.text for story in stories.stories(N_TOKENIZER_STORIES, seed=0))
            train_bpe(told, VOCAB_SIZE, special_tokens=[END_OF_TEXT]).save(path)
        return Tokenizer.load(path)


def story_data(n_stories: int, skip: int = 0) -> Dataset:
    """``n_stories`` of the training split, after ``skip``, as shards of ids, see ``dataset``."""
    words = tokenizer()
    made_from = {"n_stories": n_stories, "skip": skip, "tokenizer": words.hash}
    folder = _folder("stories", made_from)
    path = folder / "train"
    with _alone(folder):
        if not path.with_suffix(".json").exists():
            told = islice(stories.stories(skip + n_stories, seed=0), skip, None)
            dataset.write((story.text for story in told), words, path, progress=False)
        return load_data(path)


# --- pretraining ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How a model is pretrained on stories: all that decides about the result.

    A step has ``batch_size`` windows of the model's context; in the first ``short_share`` of the
    steps windows are half as long and twice as many. Names as targets count ``name_weight`` times
    as much as other tokens in the first step, and less and less until ``weighted_share`` of the
    steps. Of the ``n_stories`` none is read in both stages. ``n_test_stories`` of the validation
    split measure the gap during the run, and a quarter of them whether names are tracked.
    Raises ValueError for a share outside of 0 to 1, a weight that is not above 0, and for sizes
    with which a stage would have no story or no window.
    """

    model: GPTConfig
    train: TrainConfig
    n_stories: int
    batch_size: int
    short_share: float = 0.0
    name_weight: float = 1.0
    weighted_share: float = 0.0
    init: Init = "fan_in"
    seed: int = 0
    n_test_stories: int = 100

    def __post_init__(self) -> None:
        for name in ("short_share", "weighted_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name}={getattr(self, name)} is no share of the steps; it lies between 0, "
                    "never, and 1, in all of them"
                )
        if not 0 < self.name_weight < math.inf:
            raise ValueError(
                f"name_weight={self.name_weight} must be finite and above 0; 1 is ordinary"
            )
        least = {"batch_size": 1, "n_stories": 2, "n_test_stories": 4}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name}={getattr(self, name)} must be at least {bound}")
        n_short, n_long, stories_short = self.stages
        if (n_short and not stories_short) or (n_long and stories_short == self.n_stories):
            raise ValueError(
                f"n_stories={self.n_stories} are too few for {n_short} batches of short windows "
                f"and {n_long} of whole ones, whose shares of the stories are rounded; give more"
            )

    @property
    def n_tokens(self) -> int:
        """Tokens that training sees."""
        a_step = self.train.n_accumulate * self.batch_size * self.model.context_length
        return self.train.n_steps * a_step

    @property
    def stages(self) -> tuple[int, int, int]:
        """Batches of short windows, batches of whole ones, and the stories that the first read."""
        n_batches = self.train.n_steps * self.train.n_accumulate
        n_short = round(self.short_share * n_batches)
        return n_short, n_batches - n_short, round(self.n_stories * n_short / n_batches)


def _milestones(n_steps: int) -> tuple[int, ...]:
    """The steps nearest to 0.1 %, 1 %, 10 % and 100 % of a run."""
    return tuple(sorted({max(1, round(n_steps * share)) for share in (0.001, 0.01, 0.1, 1)}))


def _recipe(
    model: GPTConfig, n_steps: int, batch_size: int, n_stories: int, max_lr: float, **changes: Any
) -> Recipe:
    config = TrainConfig(
        n_steps,
        max_lr=max_lr,
        min_lr=max_lr / 50,
        warmup_steps=max(10, n_steps // 50),
        schedule="stable_decay",
        decay_share=0.7,
        evaluate_every=max(1, n_steps // 20),
        evaluate_at=_milestones(n_steps),
        save_every=max(1, n_steps // 10),
        keep=1,
        milestones=_milestones(n_steps),
        **changes,
    )
    return Recipe(
        model,
        config,
        n_stories,
        batch_size,
        short_share=0.5,
        name_weight=8.0,
        weighted_share=0.6,
    )


def recipe(profile: str | None = None) -> Recipe:
    """The settings of a profile: ``ci``, ``book`` or ``gpu``, by default that of the process.

    Raises ValueError for any other.
    """
    name = runtime.profile().name if profile is None else profile
    if name not in runtime.PROFILES:
        raise ValueError(f"profile={name!r} is unknown; choose {', '.join(runtime.PROFILES)}")
    if name == "ci":
        return _recipe(preset("story-1m"), 730, 4, 7_000, 4e-3, compile=runtime.compiles())
    if name == "gpu":
        size = {"n_layer": 9, "n_head": 8, "n_kv_head": 8, "head_dim": 64, "d_model": 512}
        large = preset("story-1m", **size, d_ff=2048)
        return _recipe(large, 7_600, 128, 2_000_000, 2e-3, compile=True)
    return _recipe(preset("story-2m"), 3_600, 4, 32_000, 4e-3, compile=runtime.compiles())


@dataclass(frozen=True)
class Pretrained:
    """A model that tells stories, and how it came about. ``model`` is float32, in evaluation mode.

    ``snapshots`` are the steps whose weights were kept.
    """

    model: GPT
    tokenizer: Tokenizer
    recipe: Recipe
    history: History
    folder: Path = field(repr=False)

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Steps that ``snapshot`` has, ascending; the last is the end of training."""
        return tuple(checkpoint.steps(self.folder / MILESTONES))

    def snapshot(self, step: int) -> GPT:
        """The model as it was after a step. Raises ValueError for a step that was not kept."""
        if step not in self.snapshots:
            raise ValueError(f"step {step} was not kept; there are {self.snapshots}")
        return checkpoint.load(checkpoint.steps(self.folder / MILESTONES)[step]).model().float()


def name_weights(words: Tokenizer, weight: float) -> torch.Tensor:
    """(V,) float32: ``weight`` for the ids that are a name of the world, 1 for all others."""
    weights = torch.ones(words.vocab_size)
    for name in lexicon.NAMES.items:
        for ids in (words.encode(str(name)), words.encode(f" {name}")):
            if len(ids) == 1:  # the first piece of a longer one may begin other words
                weights[ids] = weight
    return weights


def batches(recipe: Recipe, words: Tokenizer) -> Stages | WeightedBatches:
    """What a recipe's training reads, in order: windows, short before long, with weights."""
    n_short, n_long, skip = recipe.stages
    length, stages = recipe.model.context_length, []
    if n_short:
        data, rows = story_data(skip), 2 * recipe.batch_size
        short = dataset.batches(data, rows, length // 2, seed=recipe.seed, tokenizer=words)
        stages.append((short, n_short))
    if n_long:
        data = story_data(recipe.n_stories - skip, skip)
        long = dataset.batches(data, recipe.batch_size, length, seed=recipe.seed, tokenizer=words)
        stages.append((long, n_long))
    n_weighted = round(recipe.weighted_share * (n_short + n_long))
    if not n_weighted or recipe.name_weight == 1:
        return Stages(*stages)
    return WeightedBatches(Stages(*stages), name_weights(words, recipe.name_weight), n_weighted)


def _train(recipe: Recipe, words: Tokenizer, folder: Path) -> History:
    """Train by the recipe, or go on where an interrupted process stood."""
    rows = batches(recipe, words)
    test = story_set(words, recipe.n_test_stories, recipe.model.context_length)
    names = name_set(words, recipe.n_test_stories // 4, recipe.model.context_length)

    def evaluate(model: GPT) -> dict[str, float]:
        return {**test.metrics(model), **names.metrics(model)}

    with torch.random.fork_rng():
        runtime.set_seed(recipe.seed)
        model = GPT(recipe.model, init=recipe.init).to(runtime.device())
        return train(
            model,
            rows,
            recipe.train,
            evaluate=evaluate,
            folder=folder,
            resume=True,
            tokenizer_hash=words.hash,
        )


def pretrained(of: Recipe | str | None = None) -> Pretrained:
    """The model of the stories, trained by a recipe (or a profile's) unless it is in the cache.

    Raises KeyboardInterrupt where training was interrupted; asked again, it goes on from there.
    """
    chosen, words = of if isinstance(of, Recipe) else recipe(of), tokenizer()
    folder = _folder("pretrained", {"recipe": asdict(chosen), "tokenizer": words.hash})
    path = folder / RESULT
    with _alone(folder):
        if not path.exists():
            history = _train(chosen, words, folder)
            if history.stopped is not None:
                raise KeyboardInterrupt(f"training ended at step {history.n_steps}")
            with runtime.atomic_write(path, "w") as file:
                json.dump(asdict(history), file)
    record = json.loads(path.read_text(encoding="utf-8"))
    record["evaluations"] = [(step, values) for step, values in record["evaluations"]]
    kept = checkpoint.steps(folder / MILESTONES)
    if chosen.train.n_steps not in kept:
        raise CheckpointError(f"{folder} has lost its checkpoints; delete it and ask again")
    last = checkpoint.load(kept[chosen.train.n_steps])
    return Pretrained(last.model().float(), words, chosen, History(**record), folder)
