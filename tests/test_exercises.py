"""Exercises before the first conversation: rows that repeat, who is who, everybody of a story."""

from collections import Counter
from itertools import islice
from random import Random

import pytest
import regex
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
from llm_core.instruct import final
from llm_core.loss import IGNORE
from llm_core.stories import Told
from llm_core.stories.lexicon import NAMES
from llm_core.stories.questions import FINDERS
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


def test_names_are_compared_and_only_yes_and_no_is_learned(words):
    rows = exercises.compared(words, 40, 128, seed=1)
    said, verdicts = set(), Counter()
    for ids, mask in rows:
        assert len(ids) == len(mask) == 129
        lines = words.decode(ids).split("\n")[:-2]  # the last may be cut
        for thought, verdict in zip(lines[::2], lines[1::2], strict=False):
            one, other = regex.fullmatch(r"It was (\S+), and you say (\S+)\.", thought).groups()
            assert verdict == ("yes" if one == other else "no")
            verdicts[verdict] += 1
            said |= {one, other}
        learned = words.decode([i for i, learn in zip(ids, mask, strict=True) if learn])
        assert regex.fullmatch("(yes|no)+(y|n|ye)?", learned)
    assert said == {str(name) for name in NAMES.items}
    assert 0.4 < verdicts["yes"] / sum(verdicts.values()) < 0.6
    assert rows == exercises.compared(words, 40, 128, seed=1) != exercises.compared(words, 40, 128)


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
        if (template.format(**about), str(right)) == (asked, final(answer))
    }


def talked(seed, n):
    """Of conversations of *everything*: the story, the kinds of each question, the messages."""
    told = {story.text: Told(story) for story in stories.stories(8 * n, seed)}
    for messages in islice(everything(seed), n):
        text, question = messages[0]["content"].rsplit("\n", 1)
        asked = [question, *(m["content"] for m in messages[2::2])]
        given = [m["content"] for m in messages[1::2]]
        one = told[text]
        yield one, [kinds_of(one, *pair) for pair in zip(asked, given, strict=True)], messages


def test_everything_is_asked_of_short_stories_with_the_worlds_answers(words):
    asked_of_kind, lengths, n_thoughts = Counter(), [], 0
    for told, kinds, messages in talked(7, 150):
        assert len(told.story.text) <= 800
        assert all(kinds)  # each is one of the world's, with its answer
        here = Counter(kind for found in kinds for kind in found)
        assert "retell" not in here and max(here.values()) <= 4
        asked_of_kind += here
        lengths.append(len(chat.render(messages, words).ids))
        n_thoughts += sum("\n" in m["content"] for m in messages[1::2])
    assert set(asked_of_kind) >= set(FINDERS) - {"retell", "part"}  # few short ones have two parts
    assert 290 < sum(lengths) / 150 < 340 and max(lengths) < 400  # a row has 320
    assert n_thoughts > 30
    assert not any("\n" in m["content"] for m in next(everything(7, thoughts=False))[1::2])
    wider = [len(chat.render(one, words).ids) for one in islice(everything(7, length=480), 150)]
    assert sum(wider) > sum(lengths) + 150 * 50 and max(wider) < 600
    first, again, other = (next(everything(seed)) for seed in (4, 4, 5))
    assert first == again != other


def test_what_stories_seldom_offer_is_asked_where_they_do():
    asked, offered, texts = Counter(), Counter(), []
    for told, kinds, _ in talked(2, 400):
        asked.update({kind for found in kinds for kind in found})
        offered.update(kind for kind, (_, _, find) in FINDERS.items() if [*find(told)])
        texts.append(told.story.text)
    share = {kind: asked[kind] / offered[kind] for kind in offered}
    for rare in ("spot", "promise", "promised", "know", "count", "trade"):
        assert share[rare] > 0.6, rare
    assert max(share[usual] for usual in ("trait", "animal", "list", "friend")) < 0.55
    short = [story.text for story in stories.stories(600, seed=2) if len(story.text) <= 800]
    assert texts[0] in short and short.index(texts[99]) > 105  # some are passed over


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
    plan = Exercises(n_repeats=6, n_recaps=1, n_everybody=3, compared_every=3)
    assert plan.n_steps == 10
    stages = plan.stages(words, n_rows=2, length=512, n_accumulate=2, seed=1)
    assert [n for _, n in stages] == [12, 2, 6]
    rows = list(curriculum.Stages(*stages))
    assert len(rows) == 20
    is_short = [batch["ids"].shape == (8, 128) for batch in rows]
    assert is_short == [True] * 14 + [False, False, True] * 2
    assert all(len(rows[i]["ids"]) == 2 and rows[i]["ids"].shape[1] <= 512 for i in (14, 15, 17))
    for batch in rows:
        learned = batch["targets"] != IGNORE
        assert 0 < learned.float().mean() < 0.95 and "weights" not in batch
        follows = learned[:, :-1] & (batch["ids"][:, 1:] != 0)  # 0 behind the end of a row
        assert torch.equal(batch["targets"][:, :-1][follows], batch["ids"][:, 1:][follows])
    answers = {*words.encode("yes"), *words.encode("no")}
    compares = [answers >= set(b["targets"][b["targets"] != IGNORE].tolist()) for b in rows]
    assert compares == [False, False, True] * 4 + [False] * 2 + [False, False, True] * 2
    assert Exercises(n_recaps=2).stages(words, 2, 512)[0][1] == 2
    assert Exercises().stages(words, 2, 512) == []
    with pytest.raises(ValueError, match=r"n_recaps=-1, .* has a number below 0"):
        Exercises(n_recaps=-1)
    with pytest.raises(ValueError, match=r"compared_every=1.* leaves nothing else"):
        Exercises(n_repeats=3, compared_every=1)
