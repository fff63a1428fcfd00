"""Conversations about stories: the world's questions and answers, and the questions of the test."""

import pytest
import torch

from llm_core import evaluate, recipes, stories
from llm_core.chat import END, chat_tokenizer, render
from llm_core.config import GPTConfig
from llm_core.generate import generate
from llm_core.instruct import (
    MOST_NEW,
    RARE,
    answers,
    asked,
    conversation,
    conversations,
    final,
    opening,
    said,
)
from llm_core.model import GPT
from llm_core.stories import Told
from llm_core.stories.questions import KINDS


@pytest.fixture(scope="module")
def told():
    return list(stories.stories(120, seed=4))


@pytest.fixture(scope="module")
def words():
    return chat_tokenizer(recipes.tokenizer())


def test_a_conversation_asks_each_question_of_the_story_once(told):
    for story in told:
        messages = conversation(story)
        asked_here = [m["content"] for m in messages if m["role"] == "user"]
        first, question = asked_here[0].rsplit("\n", 1)
        assert first == story.text
        given = [m["content"] for m in messages if m["role"] == "assistant"]
        pairs = zip([question, *asked_here[1:]], given, strict=True)
        found = stories.questions(story)
        assert sorted(pairs) == sorted((q.text, q.said) for q in found)
        bare = [m["content"] for m in conversation(story, thoughts=False)[1::2]]
        assert sorted(bare) == sorted(q.answer for q in found)
        assert [m["role"] for m in messages] == ["user", "assistant"] * len(given)


def test_questions_come_in_random_order_and_rare_kinds_first(told):
    kinds, firsts = {}, set()
    for story in told:
        kind_of = {q.text: q.kind for q in stories.questions(story)}
        order = [kind_of[m["content"].rsplit("\n", 1)[-1]] for m in conversation(story)[::2]]
        rare = [kind in RARE for kind in order]
        assert rare == sorted(rare, reverse=True)
        firsts.add(order[0])
        for place, kind in enumerate(order):
            kinds.setdefault(kind, set()).add(place)
    assert len(firsts) > 10
    assert all(len(places) > 4 for kind, places in kinds.items() if kind not in RARE)


def test_sentences_to_retell_come_behind_the_first_question(told):
    for story in told[:40]:
        plain, more = conversation(story), conversation(story, n_retold=2)
        assert more[:2] == plain[:2] and more[6:] == plain[2:]
        both = {frozenset(pair) for pair in Told(story).both_tenses}
        for ask, answer in (more[2:4], more[4:6]):
            tense, sentence = ask["content"].removeprefix("Put this into the ").split(": ", 1)
            assert tense in ("past", "present")
            assert frozenset((sentence, answer["content"])) in both
            assert stories.parse(story.text) is not None


def test_the_same_seed_gives_the_same_and_n_the_first_of_them(told):
    for story in told[:20]:
        assert conversation(story, 3) == conversation(story)[:6]
        assert conversation(story, seed=7) == conversation(story, seed=7)
    assert any(conversation(story, seed=1) != conversation(story) for story in told[:5])
    with pytest.raises(ValueError, match="n_questions=0 leaves nothing to answer"):
        conversation(told[0], 0)


def test_conversations_are_about_the_stories_of_their_split():
    for split in ("train", "test"):
        texts = [m[0]["content"].rsplit("\n", 1)[0] for m in conversations(5, 2, split)]
        assert texts == [story.text for story in stories.stories(5, 2, split)]


def test_what_is_asked_in_the_test_is_of_all_kinds_and_has_the_answer_of_the_world():
    found = asked(100, seed=1)
    assert {question.kind for _, question in found} == set(KINDS)
    for text, _ in found[:60]:
        facts = stories.parse(text).facts
        assert facts is not None
    report = evaluate.questions_report(lambda pairs: [q.answer for _, q in found], found)
    assert all(share.value == 1 for share in report.values())


def test_no_answer_of_the_world_is_longer_than_there_is_room(words):
    most = max(len(words.encode(f" {question.said}")) for _, question in asked(300, split="train"))
    assert most < MOST_NEW


def test_answers_in_batches_are_those_one_by_one(words):
    torch.manual_seed(0)
    model = GPT(GPTConfig(words.vocab_size, 512, 2, 2, 32), init="fan_in").eval()
    pairs = [(text, question.text) for text, question in asked(3, seed=2)][:9]
    end = words.special_tokens[END]
    expected = []
    for text, question in pairs:
        message = {"role": "user", "content": opening(text, question)}
        ids = [*render([message], words).ids, words.special_tokens["<|assistant|>"]]
        new = generate(model, ids, MOST_NEW, temperature=0.0, stop=[end])[0]
        expected.append(words.decode(i for i in new if i != end).removeprefix(" "))
    assert said(model, words, pairs) == expected
    assert said(model, words, pairs, batch_size=2) == expected
    assert answers(model, words, pairs) == [final(one) for one in expected]
    too_long = (pairs[0][0] * 9, pairs[0][1])
    assert said(model, words, [pairs[0], too_long]) == [expected[0], ""]
    assert answers(model, words, []) == said(model, words, []) == []


def test_the_answer_is_what_stands_behind_a_thought_and_nothing_else_is_taken_off():
    assert final("It was Mia, and you say Tom.\nno") == "no"
    assert final(" It was Zoë, and you say Zoë.\nyes ") == "yes"
    assert final(" the red box ") == "the red box" and final("") == ""
    for other in ("the box\nno", "It was Mia.\nno", "It was Mia, and you say Tom.", "no\nno"):
        assert final(other) == other
    twice = "It was Mia, and you say Tom.\n" * 2 + "no"
    assert final(twice) != "no"


def test_a_long_question_does_not_cut_short_the_answers_beside_it(words):
    pairs = [(text, question.text) for text, question in asked(4, seed=2)]
    end = words.special_tokens[END]
    prompts = [
        [
            *render([{"role": "user", "content": opening(*pair)}], words).ids,
            words.special_tokens["<|assistant|>"],
        ]
        for pair in pairs
    ]
    lengths = sorted(map(len, prompts))
    for most in (lengths[-1] + 3, lengths[len(lengths) // 2]):
        torch.manual_seed(0)
        model = GPT(GPTConfig(words.vocab_size, most, 2, 2, 32), init="fan_in").eval()
        n_cut, expected = 0, []
        for ids in prompts:
            room = min(MOST_NEW, most - len(ids))
            new = generate(model, ids, room, temperature=0.0, stop=[end])[0] if room > 0 else []
            expected.append(words.decode(i for i in new if i != end).removeprefix(" "))
            n_cut += room < MOST_NEW
        assert 0 < n_cut < len(pairs)
        assert said(model, words, pairs) == expected
