"""Exercises before the first conversation: rows that repeat, who is who, everybody of a story."""

from collections import Counter
from itertools import islice
from random import Random

import pytest
import torch

from llm_core import chat, curriculum, exercises, recipes, stories
from llm_core.exercises import (
    AGAIN,
    Exercises,
    casts,
    everybody,
    everything,
    fitting,
    introduced,
    recaps,
)
from llm_core.loss import IGNORE
from llm_core.stories.questions import FINDERS, Told
from llm_core.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def words():
    return chat.chat_tokenizer(recipes.tokenizer())


@pytest.fixture(scope="module")
def told():
    return list(stories.stories(200, seed=3))


def test_rows_begin_again_and_all_but_the_first_round_is_learned(words):
    rows = exercises.repeated(words, 60, 128, seed=2)
    special = set(words.special_tokens.values())
    periods = set()
    for ids, mask in rows:
        period = mask.index(1)
        assert len(ids) == len(mask) == 129 and mask == [0] * period + [1] * (129 - period)
        assert ids[period:] == ids[:-period]
        assert not special & set(ids) and min(ids) >= 256 and max(ids) < words.vocab_size
        periods.add(period)
    assert min(periods) >= 8 and max(periods) <= 40 and len(periods) > 20
    assert rows == exercises.repeated(words, 60, 128, seed=2)
    assert rows != exercises.repeated(words, 60, 128, seed=3)
    with pytest.raises(ValueError, match="length=79 is too short for 40 ids to come twice"):
        exercises.repeated(words, 1, 79)
    with pytest.raises(ValueError, match="a vocabulary of 256 has no ids but bytes"):
        exercises.repeated(Tokenizer({i: bytes([i]) for i in range(256)}, []), 1, 128)


def test_introductions_say_what_everybody_in_them_is_and_are_sentences_of_the_story(told):
    n_people = n_things = 0
    for story in told:
        one = Told(story)
        text, people, things = introduced(one)
        sentences = [sentence.strip() for sentence in one.past.sentences]
        left = text
        for sentence in sentences:  # in the order of the story, each at most once
            left = left.removeprefix(sentence).lstrip()
        assert not left
        assert all(str(word) in text for who in people for word in (who, who.trait, who.kind))
        assert all(str(word) in text for thing in things for word in (thing, thing.color))
        n_people, n_things = n_people + len(people), n_things + len(things)
        assert set(people) <= set(one.facts.people)
    assert n_people > 0.9 * sum(len(Told(story).facts.people) for story in told)
    assert n_things > 50


def test_a_cast_has_two_people_or_more_and_nobody_twice(told):
    found = list(casts(told, Random(1)))
    assert len(found) > 40 and max(len(cast.people) for cast in found) >= 4
    for text, people, _ in found:
        assert len(people) >= 2 and len(set(map(str, people))) == len(people)
        assert all(f"{who}" in text and f"{who.trait}" in text for who in people)


def test_a_recap_says_of_everybody_trait_and_creature_and_of_nobody_else():
    listed = 0
    for user, answer in islice(recaps(seed=4), 80):
        text, question = user["content"].rsplit("\n", 1)
        assert question == AGAIN and answer["role"] == "assistant"
        said = answer["content"].removesuffix(".").split(". ")
        who = {sentence.split(" was ")[0] for sentence in said}
        assert len(said) == 2 * len(who) >= 4
        for sentence in said:
            name, what = sentence.split(" was ")
            assert name in text and what.split(" ")[-1] in text
        again = sorted(text.removesuffix(".").split(". ")) == sorted(said)
        listed += again
    assert 20 < listed < 60  # half of them
    first, other = (next(recaps(seed)) for seed in (4, 5))
    assert first == next(recaps(4)) and first != other


def test_everybody_and_everything_is_asked_for_with_the_worlds_answers():
    firsts = set()
    read = stories.stories(200, seed=6)
    for messages in islice(everybody(seed=6), 40):
        text, question = messages[0]["content"].rsplit("\n", 1)
        story = next(one for one in read if one.text == text)
        one = Told(story)
        asked = [question, *(m["content"] for m in messages[2::2])]
        given = dict(zip(asked, (m["content"] for m in messages[1::2]), strict=True))
        recap = given.pop(AGAIN)
        firsts.add(asked.index(AGAIN))
        assert len(introduced(one).people) >= 2
        assert len(recap.split(". ")) == 2 * len(introduced(one).people)
        right = {
            template.format(**about): str(answer)
            for kind in ("trait", "animal", "color")
            for about, answer in FINDERS[kind][2](one)
            for template in FINDERS[kind][1]
        }
        assert all(right[question] == answer for question, answer in given.items())
        n = sum(len(list(FINDERS[kind][2](one))) for kind in ("trait", "animal", "color"))
        assert len(messages) == 2 * (n + 1)
    assert firsts == {0, 2}


def kinds_of(told, asked, answer):
    """The kinds of questions that have this one and this answer about a story."""
    return {
        kind
        for kind, (_, templates, find) in FINDERS.items()
        for about, right in find(told)
        for template in templates
        if (template.format(**about), str(right)) == (asked, answer)
    }


def test_everything_is_asked_of_short_stories_with_the_worlds_answers():
    short = (story for story in stories.stories(10**6, seed=7) if len(story.text) <= 800)
    n_asked, n_passed_over = [], 0
    for messages in islice(everything(seed=7), 80):
        text, question = messages[0]["content"].rsplit("\n", 1)
        story = next(short)
        while story.text != text:
            n_passed_over += 1
            story = next(short)
        told = Told(story)
        questions = [question, *(m["content"] for m in messages[2::2])]
        kinds = []
        for asked, message in zip(questions, messages[1::2], strict=True):
            kinds += kinds_of(told, asked, message["content"])
        left_out = {"retell", "yes or no"}
        assert set(kinds) == {kind for kind in {*FINDERS} - left_out if [*FINDERS[kind][2](told)]}
        assert max(kinds.count(kind) for kind in kinds) <= 4
        n_asked.append(len(questions))
    assert n_passed_over >= 10 and max(n_asked) > 20
    first, again, other = (next(everything(seed)) for seed in (4, 4, 5))
    assert first == again != other


def test_what_stories_seldom_offer_is_asked_early():
    early, offered, told = Counter(), Counter(), {}
    for story in stories.stories(2_000, seed=2):
        told[story.text] = Told(story)
    for messages in islice(everything(seed=2), 400):
        text, question = messages[0]["content"].rsplit("\n", 1)
        questions = [question, *(m["content"] for m in messages[2:16:2])]
        found = set()
        for asked, message in zip(questions, messages[1::2], strict=False):
            found |= kinds_of(told[text], asked, message["content"])
        early.update(found)
        offered.update(kind for kind, (_, _, find) in FINDERS.items() if [*find(told[text])])
    share = {kind: early[kind] / offered[kind] for kind in offered}
    for rare in ("spot", "promise", "promised", "know", "count", "trade"):
        assert share[rare] > 0.9, rare
    assert max(share[usual] for usual in ("trait", "animal", "list", "friend")) < 0.8


def test_what_is_too_long_is_left_out(words):
    rows = fitting(recaps(seed=1), words, 30, 100)
    assert len(rows) == 30 and max(len(row.ids) for row in rows) <= 101
    every = [chat.render(messages, words) for messages in islice(recaps(seed=1), 60)]
    assert [row for row in every if len(row.ids) <= 101][:30] == rows
    assert fitting(recaps(seed=1), words, 0, 100) == []
    with pytest.raises(ValueError, match="1000 conversations in a row have more than 9 tokens"):
        fitting(recaps(seed=1), words, 1, 8)
    with pytest.raises(ValueError, match="give a longer context, or leave this exercise out"):
        Exercises(n_everybody=1).stages(words, 2, 100)


def test_stages_have_the_steps_the_shapes_and_answers_alone_to_learn(words):
    plan = Exercises(n_repeats=2, n_recaps=1, n_everybody=3)
    assert plan.n_steps == 6
    stages = plan.stages(words, n_rows=2, length=512, n_accumulate=2, seed=1)
    assert [n for _, n in stages] == [4, 2, 6]
    rows = list(curriculum.Stages(*stages))
    assert len(rows) == 12
    assert all(batch["ids"].shape == (8, 128) for batch in rows[:6])
    assert all(len(batch["ids"]) == 2 and batch["ids"].shape[1] <= 512 for batch in rows[6:])
    for batch in rows:
        learned = batch["targets"] != IGNORE
        assert 0 < learned.float().mean() < 0.95 and "weights" not in batch
        follows = learned[:, :-1] & (batch["ids"][:, 1:] != 0)  # 0 behind the end of a row
        assert torch.equal(batch["targets"][:, :-1][follows], batch["ids"][:, 1:][follows])
    assert Exercises(n_recaps=2).stages(words, 2, 512)[0][1] == 2
    assert Exercises().stages(words, 2, 512) == []
    with pytest.raises(ValueError, match=r"n_recaps=-1, .* has a number below 0"):
        Exercises(n_recaps=-1)
