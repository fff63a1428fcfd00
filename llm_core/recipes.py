"""What chapters share, made on demand: the stories' tokenizer, the pretrained model, the assistant.

Whatever is asked for is made once, models with a bar, and kept in the cache folder under a name
that depends on its settings, the world and the tokenizer (not on the code, see ``kept``): another
of these is another name. What was interrupted goes on where it stood. Two notebooks that ask at
once wait for one another. Chapter 5 trains the model, chapter 7 teaches it to answer.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from llm_core import chat, checkpoint, dataset, instruct, kept, runtime, stories
from llm_core.chat import Conversations
from llm_core.config import GPTConfig, preset
from llm_core.curriculum import Alternating, BatchSource, Stages, WeightedBatches
from llm_core.evaluate import questions_report, story_set
from llm_core.exercises import Exercises, everything
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


# --- the tokenizer and the stories as ids ---------------------------------------------------------


def tokenizer() -> Tokenizer:
    """The tokenizer of the stories: 1,024 tokens, learned from the first 8,000 of them."""
    made_from = {"vocab_size": VOCAB_SIZE, "n_stories": N_TOKENIZER_STORIES}
    folder = kept.folder("tokenizer", made_from)
    path = folder / "tokenizer.json"
    with kept.alone(folder):
        if not path.exists():
            told = (story.text for story in stories.stories(N_TOKENIZER_STORIES, seed=0))
            train_bpe(told, VOCAB_SIZE, special_tokens=[END_OF_TEXT]).save(path)
        return Tokenizer.load(path)


def story_data(n_stories: int, skip: int = 0) -> Dataset:
    """``n_stories`` of the training split, after ``skip``, as shards of ids, see ``dataset``."""
    words = tokenizer()
    made_from = {"n_stories": n_stories, "skip": skip, "tokenizer": words.hash}
    folder = kept.folder("stories", made_from)
    path = folder / "train"
    with kept.alone(folder):
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
        optimizer="muon",
        evaluate_every=max(1, n_steps // 20),
        evaluate_at=_milestones(n_steps),
        save_every=max(1, n_steps // 10),
        keep=1,
        milestones=_milestones(n_steps),
        **changes,
    )
    return Recipe(
        model, config, n_stories, batch_size, short_share=0.5, name_weight=8.0, weighted_share=0.6
    )


def recipe(profile: str | None = None) -> Recipe:
    """The settings of a profile: ``ci``, ``book`` or ``gpu``, by default that of the process.

    Raises ValueError for any other.
    """
    name = runtime.profile().name if profile is None else profile
    if name not in runtime.PROFILES:
        raise ValueError(f"profile={name!r} is unknown; choose {', '.join(runtime.PROFILES)}")
    if name == "ci":
        return _recipe(preset("story-1m"), 600, 4, 6_000, 4e-3, compile=runtime.compiles())
    if name == "gpu":
        large = preset("story-1m", n_layer=9, n_head=8, d_model=512)
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
        torch.manual_seed(recipe.seed)
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

    Raises ValueError for an unknown profile, CheckpointError where the cache has lost the weights,
    KeyboardInterrupt where training was interrupted; asked again, it goes on from there.
    """
    chosen, words = of if isinstance(of, Recipe) else recipe(of), tokenizer()
    folder = kept.folder("pretrained", {"recipe": asdict(chosen), "tokenizer": words.hash})
    history = kept.finished(folder, lambda: _train(chosen, words, folder))
    last = kept.last(folder, chosen.train.n_steps, MILESTONES)
    return Pretrained(last.model().float(), words, chosen, history, folder)


# --- instruction tuning ---------------------------------------------------------------------------


@dataclass(frozen=True)
class TuningRecipe:
    """How the pretrained model learns to answer, on conversations about ``n_stories`` stories.

    The first steps are ``exercises``. After them a step has ``batch_size`` conversations, each in a
    row of its own of up to ``context_length`` tokens, which may be more than before. An answer
    counts 1, the rest ``context_weight``; for ``n_retold`` and ``thoughts`` see ``instruct``. Each
    ``everything_every``-th batch is an exercise again, ``exercises.everything`` in twice the rows
    of half the length; 0 for none. ``n_test_stories`` measure what is learned.
    Raises ValueError where exercises leave fewer than two steps, or all of these.
    """

    base: Recipe
    train: TrainConfig
    n_stories: int
    batch_size: int
    context_length: int = 640
    seed: int = 0
    context_weight: float = 0.2
    n_retold: int = 2
    thoughts: bool = True
    n_test_stories: int = 30
    exercises: Exercises = field(default_factory=Exercises)
    everything_every: int = 2

    def __post_init__(self) -> None:
        if self.n_talked < 2:
            raise ValueError(
                f"{self.exercises} leaves {self.n_talked} of n_steps={self.train.n_steps} for "
                "conversations; leave two steps or more"
            )
        if (every := self.everything_every) < 0 or every == 1:
            raise ValueError(f"everything_every={every} must be 0, never, or 2 or more")

    @property
    def n_talked(self) -> int:
        """Steps of conversations, behind those of exercises."""
        return self.train.n_steps - self.exercises.n_steps


def tuning_recipe(profile: str | None = None) -> TuningRecipe:
    """The settings of a profile, as ``recipe`` has them. Raises ValueError for an unknown one."""
    name = runtime.profile().name if profile is None else profile
    base = recipe(name)
    n_steps = {"ci": 150, "book": 4_500, "gpu": 1_500}[name]
    max_lr = 0.75 * base.train.max_lr
    config = replace(
        base.train,
        n_steps=n_steps,
        max_lr=max_lr,
        min_lr=max_lr / 50,
        warmup_steps=max(10, n_steps // 50),
        evaluate_every=0,
        evaluate_at=tuple(n_steps * share // 16 for share in (1, 2, 4, 8)),
        save_every=max(1, n_steps // 5),
        milestones=(),
    )
    n_stories = {"ci": 300, "book": 7_000, "gpu": 75_000}[name]
    first = {"ci": (15, 10, 10), "book": (300, 300, 480), "gpu": (120, 120, 180)}[name]
    return TuningRecipe(base, config, n_stories, base.batch_size, exercises=Exercises(*first, 6))


@dataclass(frozen=True)
class Assistant:
    """A model that answers questions about stories. ``model`` is float32, in evaluation mode.

    ``history.evaluations`` hold the share of right answers, over all kinds and by kind.
    """

    model: GPT
    tokenizer: Tokenizer
    recipe: TuningRecipe
    history: History
    folder: Path = field(repr=False)


def conversations(recipe: TuningRecipe, words: Tokenizer) -> Stages:
    """What a recipe's tuning reads, in order: the exercises, and conversations."""
    short, n_accumulate = recipe.base.model.context_length, recipe.train.n_accumulate
    n_rows, length, seed = recipe.batch_size, recipe.context_length, recipe.seed
    read = instruct.rendered(words, recipe.n_stories, seed, None, recipe.n_retold, recipe.thoughts)
    talks: BatchSource = Conversations(read, n_rows, length, seed, False, recipe.context_weight)
    n_batches, every = recipe.n_talked * n_accumulate, recipe.everything_every
    if every:
        n_asked = max(1, n_batches // every)
        asked = everything(seed + 1, recipe.thoughts, length // 2)
        rows = [chat.render(next(asked), words) for _ in range(n_asked * 2 * n_rows)]
        talks = Alternating(talks, Conversations(rows, 2 * n_rows, length // 2, seed, False), every)
    first = recipe.exercises.stages(words, n_rows, short, n_accumulate, seed)
    return Stages(*first, (talks, n_batches))


def _tune(recipe: TuningRecipe, base: Pretrained, words: Tokenizer, folder: Path) -> History:
    """Tune by the recipe, or go on where an interrupted process stood."""
    rows = conversations(recipe, words)
    asked = instruct.asked(recipe.n_test_stories, split="validation")

    def evaluate(model: GPT) -> dict[str, float]:
        report = questions_report(lambda pairs: instruct.answers(model, words, pairs), asked)
        return {kind: share.value for kind, share in report.items()}

    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = chat.grow(base.model, words.vocab_size, recipe.seed, recipe.context_length)
        model.to(runtime.device())
        return train(
            model,
            rows,
            recipe.train,
            evaluate=evaluate,
            folder=folder,
            resume=True,
            tokenizer_hash=words.hash,
        )


def assistant(of: TuningRecipe | str | None = None) -> Assistant:
    """The pretrained model, tuned to answer by a recipe (or a profile's) unless it is in the cache.

    Raises ValueError for an unknown profile, CheckpointError where the cache has lost the weights,
    KeyboardInterrupt where training was interrupted; asked again, it goes on from there.
    """
    chosen = of if isinstance(of, TuningRecipe) else tuning_recipe(of)
    base = pretrained(chosen.base)
    words = chat.chat_tokenizer(base.tokenizer)
    folder = kept.folder("assistant", {"recipe": asdict(chosen), "tokenizer": words.hash})
    history = kept.finished(folder, lambda: _tune(chosen, base, words, folder))
    model = kept.last(folder, chosen.train.n_steps).model().float()
    return Assistant(model, words, chosen, history, folder)
