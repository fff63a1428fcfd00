"""Settled names: where the truth has no doubt, and what a model pays there."""

import math

import numpy as np
import pytest
import regex
import torch
from torch.nn import functional as F

from llm_core import recipes, stories
from llm_core.config import GPTConfig
from llm_core.model import GPT
from llm_core.stories import lexicon
from llm_core.tokenizer import Tokenizer
from llm_core.tracking import name_set, settled_names

NAMES = {str(name) for name in lexicon.NAMES.items}


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return recipes.tokenizer()


def test_a_settled_name_is_one_that_the_truth_is_sure_of(words):
    n_settled = n_open = 0
    for story in stories.stories(4, split="validation"):
        ids = words.encode(story.text)
        places = settled_names(story.text, words)
        for start, end in places:
            assert words.decode(ids[start:end]).strip() in NAMES
            truth = stories.true_next(ids[:start], words)[ids[start]]
            assert truth > 0.99
            n_settled += 1
        settled = {start for start, _ in places}
        for start in range(0, len(ids), 5):
            if start not in settled and words.decode([ids[start]]).strip() in NAMES:
                truth = stories.true_next(ids[:start], words)[ids[start]]
                assert truth < math.exp(-0.009)
                n_open += 1
    assert n_settled > 10 and n_open > 0


def test_the_first_name_of_a_story_is_never_settled(words):
    for story in stories.stories(5, split="validation"):
        found = regex.finditer(r"\w+", story.text)
        first = next(word for word in found if word.group() in NAMES)
        settled = settled_names(story.text, words)
        before = [words.decode(words.encode(story.text)[:start]) for start, _ in settled]
        assert all(len(text) > first.start() for text in before)


def test_names_behind_the_cut_do_not_count(words):
    (story,) = stories.stories(1, split="validation")
    places = settled_names(story.text, words)
    cut = places[1][1]
    assert settled_names(story.text, words, most=cut) == places[:2]
    assert settled_names(story.text, words, most=cut - 1) == places[:1]
    with pytest.raises(ValueError, match="no story has"):
        settled_names("Once upon a turnip", words)


def test_a_model_pays_what_its_logits_say(words):
    torch.manual_seed(0)
    model = GPT(GPTConfig(words.vocab_size, 128, n_layer=1, n_head=2, d_model=16)).eval()
    names = name_set(words, 4, 128)
    expected = []
    for ids, places in zip(names.ids, names.places, strict=True):
        row = torch.tensor(ids)
        losses = F.cross_entropy(model(row[None, :-1])[0], row[1:], reduction="none")
        expected += [losses[start:end].sum().item() for start, end in places]
    np.testing.assert_allclose(names.losses(model), expected, rtol=1e-5)
    metrics = names.metrics(model)
    assert metrics["name_loss"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert metrics["name_loss"] == pytest.approx(math.log(words.vocab_size), abs=0.5)
    assert metrics["names_tracked"] == 0


def test_stories_without_a_settled_name_have_no_metrics(words):
    model = GPT(GPTConfig(words.vocab_size, 8, n_layer=1, n_head=2, d_model=16))
    assert name_set(words, 2, 8).metrics(model) == {}
