"""Shared models are made once, found again, and survive being killed while they are made."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llm_core import checkpoint, instruct, recipes, stories
from llm_core.chat import chat_tokenizer
from llm_core.config import GPTConfig
from llm_core.evaluate import gap, story_set
from llm_core.exercises import Exercises
from llm_core.model import parameter_table
from llm_core.stories import lexicon
from llm_core.tokenizer import END_OF_TEXT, train_bpe
from llm_core.trainconfig import TrainConfig

TINY = recipes.Recipe(
    GPTConfig(1024, 32, n_layer=1, n_head=2, d_model=16, position="rope"),
    TrainConfig(
        30, warmup_steps=2, precision="float32", evaluate_every=10, save_every=3, milestones=(1, 30)
    ),
    n_stories=60,
    batch_size=2,
    short_share=0.4,
    name_weight=8.0,
    weighted_share=0.5,
    n_test_stories=4,
)
CHILD = """
import torch
from tests.test_recipes import TINY
from llm_core import recipes
torch.set_num_threads(1)
print("READY", flush=True)
found = recipes.pretrained(TINY)
print(sum(p.double().sum() for p in found.model.parameters()).item())
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory) -> Path:
    """A cache folder of this file's own; the tokenizer in it is made once."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("LLM_CORE_CACHE")
    os.environ["LLM_CORE_CACHE"] = str(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)
    if before is None:
        del os.environ["LLM_CORE_CACHE"]
    else:
        os.environ["LLM_CORE_CACHE"] = before


def child() -> subprocess.Popen:
    """A process that asks for the tiny model and prints a sum over its weights."""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_the_tokenizer_is_that_of_the_first_chapters_and_is_made_once(cache):
    found = recipes.tokenizer()
    told = (story.text for story in stories.stories(8_000, seed=0))
    assert found.hash == train_bpe(told, 1024, special_tokens=[END_OF_TEXT]).hash
    before = files(cache)
    assert recipes.tokenizer().hash == found.hash
    assert {path: at for path, at in files(cache).items() if path.suffix == ".json"} == {
        path: at for path, at in before.items() if path.suffix == ".json"
    }


def test_the_data_are_the_first_stories_of_the_training_split():
    data, words = recipes.story_data(60), recipes.tokenizer()
    first = next(stories.stories(1, seed=0)).text
    ids = words.encode(first)
    assert data.windows(np.array([0]), len(ids))[0].tolist() == ids
    assert data.tokenizer_hash == words.hash


def test_a_model_is_trained_once_and_then_found(cache):
    made = recipes.pretrained(TINY)
    before = files(made.folder)
    found = recipes.pretrained(TINY)
    assert files(made.folder) == before
    assert found.history == made.history and made.history.n_steps == 30
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(tensor, found.model.state_dict()[name]) and tensor.dtype == torch.float32
    assert not found.model.training
    assert found.snapshots == (1, 30)
    last = found.snapshot(30).state_dict()
    assert all(torch.equal(last[name], t) for name, t in found.model.state_dict().items())
    first = found.snapshot(1).state_dict()
    assert any(not torch.equal(first[name], t) for name, t in last.items())
    with pytest.raises(ValueError, match=r"step 7 was not kept; there are \(1, 30\)"):
        found.snapshot(7)


def test_the_gap_that_was_noted_is_the_gap_of_the_model():
    found = recipes.pretrained(TINY)
    steps, gaps = found.history.evaluated("gap")
    assert steps == [10, 20, 30]
    test = story_set(found.tokenizer, TINY.n_test_stories, 32)
    assert gap(found.model, test).gap == pytest.approx(gaps[-1], abs=1e-5)


def test_a_recipe_reads_short_windows_first_and_no_story_twice():
    words = recipes.tokenizer()
    names = {words.encode(f" {name}")[0] for name in lexicon.NAMES.items}
    read = list(recipes.batches(TINY, words))
    assert [tuple(one["ids"].shape) for one in read] == [(4, 16)] * 12 + [(2, 32)] * 18
    assert ["weights" in one for one in read] == [True] * 15 + [False] * 15
    for number, one in enumerate(read[:15]):
        is_name = torch.tensor([[int(t) in names for t in row] for row in one["targets"]])
        share = 1 - number / 15
        assert one["weights"][is_name].tolist() == pytest.approx([8**share] * int(is_name.sum()))
        assert (one["weights"][~is_name] == 1).all()
    told = [story.text for story in stories.stories(60, seed=0)]
    for rows, own in ((read[:12], told[:24]), (read[12:], told[24:])):
        stream = [
            i for text in own for i in (*words.encode(text), words.special_tokens[END_OF_TEXT])
        ]
        text = words.decode(stream)
        assert all(
            words.decode(row[1:-1].tolist()).strip("�") in text
            for one in rows
            for row in one["ids"]
        )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"short_share": 1.5}, "short_share=1.5 is no share of the steps; it lies between 0"),
        ({"short_share": float("nan")}, "short_share=nan is no share"),
        ({"weighted_share": -0.1}, "weighted_share=-0.1 is no share"),
        ({"name_weight": 0.0}, "name_weight=0.0 must be finite and above 0; 1 is ordinary"),
        ({"name_weight": float("inf")}, "name_weight=inf must be finite"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"n_stories": 1}, "n_stories=1 must be at least 2"),
        ({"n_test_stories": 3}, "n_test_stories=3 must be at least 4"),
        (
            {"n_stories": 10, "short_share": 0.04},
            "n_stories=10 are too few for 1 .* and 29 of whole",
        ),
        (
            {"n_stories": 10, "short_share": 0.96},
            "n_stories=10 are too few for 29 .* and 1 of whole",
        ),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_named(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(TINY, **changes)


@pytest.mark.parametrize(("share", "shapes"), [(0.0, {(2, 32)}), (1.0, {(4, 16)})])
def test_a_recipe_may_have_one_stage(share, shapes):
    read = recipes.batches(replace(TINY, short_share=share), recipes.tokenizer())
    assert {tuple(one["ids"].shape) for one in read} == shapes


@pytest.mark.parametrize(
    "other",
    [
        replace(TINY, seed=1),
        replace(TINY, n_stories=200),
        replace(TINY, init="gpt2"),
        replace(TINY, short_share=0.0),
        replace(TINY, name_weight=4.0),
        replace(TINY, train=replace(TINY.train, max_lr=2e-3)),
    ],
    ids=["seed", "stories", "init", "windows", "weights", "learning rate"],
)
def test_another_recipe_is_another_model(other):
    short = replace(other.train, n_steps=4, warmup_steps=2, milestones=(4,))
    base = replace(TINY, train=replace(TINY.train, n_steps=4, warmup_steps=2, milestones=(4,)))
    one, two = recipes.pretrained(base), recipes.pretrained(replace(other, train=short))
    assert one.folder != two.folder
    pairs = zip(one.model.parameters(), two.model.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_asking_does_not_move_the_random_numbers_of_the_caller():
    recipe = replace(TINY, seed=5, train=replace(TINY.train, n_steps=3, milestones=(3,)))
    torch.manual_seed(3)
    state = torch.get_rng_state()
    recipes.pretrained(recipe)
    assert torch.equal(torch.get_rng_state(), state)


def test_killed_and_asked_by_two_at_once_it_is_what_it_would_have_been(
    cache, tmp_path, monkeypatch
):
    whole = recipes.pretrained(TINY)
    for made in cache.glob("recipes/tokenizer-*"):  # saves the seconds to make it again
        shutil.copytree(made, tmp_path / "recipes" / made.name)
    expected = sum(p.double().sum() for p in whole.model.parameters()).item()
    monkeypatch.setenv("LLM_CORE_CACHE", str(tmp_path))
    killed = 0
    for _ in range(3):
        process = child()
        process.stdout.readline()
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("recipes/pretrained-*/step-*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += process.returncode == -signal.SIGKILL
    both = child(), child()
    results = [process.communicate()[0].split()[-1] for process in both]
    assert killed and [float(value) for value in results] == [expected, expected]


def test_a_cache_that_lost_its_checkpoints_says_what_to_do():
    recipe = replace(
        TINY, seed=9, train=replace(TINY.train, n_steps=2, warmup_steps=1, milestones=(2,))
    )
    found = recipes.pretrained(recipe)
    path = checkpoint.steps(found.folder / "milestones")[2]
    (path / checkpoint.MANIFEST).unlink()
    with pytest.raises(checkpoint.CheckpointError, match="delete it and ask again"):
        recipes.pretrained(recipe)


def test_profiles_have_recipes_and_others_are_refused(monkeypatch):
    ci, book, gpu = (recipes.recipe(name) for name in ("ci", "book", "gpu"))
    assert 5e5 < ci.n_tokens < 2.5e6 < book.n_tokens < gpu.n_tokens < 1e9
    assert ci.model.context_length == book.model.context_length == gpu.model.context_length
    models = (one.model for one in (ci, book, gpu))
    sizes = [sum(parameter_table(model).values()) for model in models]
    assert sizes == sorted(sizes)
    for one in (ci, book, gpu):  # nearly no story is seen twice
        assert one.n_tokens < 1.2 * 266 * one.n_stories
        assert one.name_weight > 1 and 0 < one.weighted_share < 1
    with pytest.raises(ValueError, match="profile='laptop' is unknown; choose ci, book, gpu"):
        recipes.recipe("laptop")
    monkeypatch.setenv("BOOK_PROFILE", "ci")
    assert recipes.recipe() == ci


# --- the assistant ------------------------------------------------------------------------------

TALKING = recipes.TuningRecipe(
    replace(TINY, model=replace(TINY.model, context_length=512), n_stories=90),
    replace(TINY.train, n_steps=6, evaluate_every=3, save_every=2, milestones=()),
    n_stories=20,
    batch_size=2,
    n_test_stories=2,
    exercises=Exercises(n_repeats=1, n_recaps=1, n_everybody=1),
    everything_every=3,
)


def test_an_assistant_is_tuned_once_and_then_found():
    made = recipes.assistant(TALKING)
    before = files(made.folder)
    found = recipes.assistant(TALKING)
    assert files(made.folder) == before and found.history == made.history
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(tensor, found.model.state_dict()[name]) and tensor.dtype == torch.float32
    assert not found.model.training and found.model.config.vocab_size == 1027
    assert found.tokenizer.hash == chat_tokenizer(recipes.tokenizer()).hash
    assert [step for step, _ in found.history.evaluations] == [3, 6]
    kinds = {q.kind for _, q in instruct.asked(2, split="validation")}
    assert set(found.history.evaluations[-1][1]) == {"all", *kinds}
    base = recipes.pretrained(TALKING.base).model.state_dict()
    assert not torch.equal(
        found.model.state_dict()["blocks.0.mlp.up.weight"], base["blocks.0.mlp.up.weight"]
    )


def test_an_interrupted_tuning_goes_on_to_the_bit(monkeypatch):
    whole = recipes.assistant(TALKING)
    again = replace(TALKING, train=replace(TALKING.train, save_every=1))  # another folder
    tune, stopped = recipes.train, []

    def interrupted(*given, **named):
        history = tune(*given, **named)
        if not stopped:
            stopped.append(True)
            shutil.rmtree(checkpoint.steps(named["folder"])[6])  # as if killed before the last step
            raise KeyboardInterrupt
        return history

    monkeypatch.setattr(recipes, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recipes.assistant(again)
    resumed = recipes.assistant(again)
    assert resumed.history.loss == whole.history.loss
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name])


def test_profiles_have_tuning_recipes():
    for name in ("ci", "book", "gpu"):
        one = recipes.tuning_recipe(name)
        assert one.base == recipes.recipe(name)
        n_between = one.n_talked // one.everything_every
        assert one.n_stories >= one.batch_size * (one.n_talked - n_between)  # none is read twice
        assert 0 < one.exercises.n_steps < one.n_talked
        assert one.n_talked + one.exercises.n_steps == one.train.n_steps
        assert 2 <= one.everything_every <= 10
    with pytest.raises(ValueError, match="profile='laptop' is unknown"):
        recipes.tuning_recipe("laptop")


def test_yes_or_no_stands_behind_a_thought_unless_the_recipe_says_no():
    words = chat_tokenizer(recipes.tokenizer())
    for thoughts in (True, False):
        plan = replace(TALKING, thoughts=thoughts, exercises=Exercises())
        rows = list(recipes.conversations(plan, words))
        text = " ".join(words.decode(ids.tolist()) for batch in rows for ids in batch["ids"])
        assert ("and you say" in text) == thoughts


def test_exercises_come_first_and_leave_steps_for_conversations():
    found = []

    def noted(model, batches, *given, **named):
        found.extend(next(batches) for _ in range(TALKING.train.n_steps))
        raise KeyboardInterrupt

    again = replace(TALKING, seed=3)  # another folder
    recipes.pretrained(again.base)  # whose own training is not what is noted
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recipes, "train", noted)
        recipes.assistant(again)
    shapes = [tuple(batch["ids"].shape) for batch in found]
    assert shapes[:2] == [(8, 128), (8, 128)]  # as many tokens as in two rows of 512
    assert [shape[0] for shape in shapes[2:]] == [2, 2, 2, 4]  # the last of 320, a story each
    assert shapes[5][1] <= 320
    # of what is talked about, each third batch is an exercise, of which answers alone are learned
    assert ["weights" in batch for batch in found] == [False, False, False, True, True, False]
    with pytest.raises(ValueError, match=r"leaves 1 of n_steps=6 for conversations"):
        replace(TALKING, exercises=Exercises(2, 2, 1))
    for every in (-1, 1):
        with pytest.raises(ValueError, match=f"everything_every={every} must be 0"):
            replace(TALKING, everything_every=every)
