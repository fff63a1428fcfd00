"""Texts that nobody foresaw: changed stories, odd answers, conversations of any messages."""

import math
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuzz import SOME, VALUES, soon

from llm_core import stories
from llm_core.chat import (
    ASSISTANT,
    CONTROL_TOKENS,
    ROLES,
    USER,
    chat_tokenizer,
    render,
    render_for_completion,
    without_oldest,
)
from llm_core.stories import tasks
from llm_core.tokenizer import END_OF_TEXT, train_bpe

MANY = settings(max_examples=100)
HALVES = st.text(st.characters(categories=["Cs"]), min_size=1, max_size=3)
STRANGE = st.sampled_from(
    ["\0", "\u202e", "e\u0301", "\ufeff", "🙂", "İ", "ß", "\r\n", "\x85", "  "]
)
NOISE = st.text(max_size=9) | HALVES | STRANGE


# --- stories ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told():
    return [story.text for story in stories.stories(40, seed=11)]


@pytest.fixture(scope="module")
def tokenizer(told):
    return train_bpe(told, 400, [END_OF_TEXT])


@st.composite
def changed_stories(draw, texts):
    """A story whose sentences and letters were exchanged, left out, doubled, replaced or mixed."""
    parts = re.split(r"(?<=[.!?]) ", draw(st.sampled_from(texts)))
    for _ in range(draw(st.integers(1, 3))):
        at, other = (draw(st.integers(0, len(parts) - 1)) for _ in range(2))
        change = draw(st.sampled_from(["exchange", "leave out", "double", "noise", "other story"]))
        if change == "exchange":
            parts[at], parts[other] = parts[other], parts[at]
        elif change == "leave out" and len(parts) > 1:
            del parts[at]
        elif change == "double":
            parts[at] += f" {parts[other]}"
        elif change == "noise":
            place = draw(st.integers(0, len(parts[at])))
            parts[at] = parts[at][:place] + draw(NOISE) + parts[at][place:]
        else:
            rest = re.split(r"(?<=[.!?]) ", draw(st.sampled_from(texts)))
            parts[at:] = rest[at:] or parts[at:]
    return " ".join(parts)


@MANY
@given(data=st.data())
def test_a_changed_story_is_another_story_or_is_refused_at_one_place(told, data):
    text = data.draw(changed_stories(told))
    with soon():
        parse = stories.parse(text)
        beginning = stories.prefix_log_prob(text)
    if parse.first_impossible is None:
        assert -math.inf < parse.log_prob <= beginning + 1e-9
        assert stories.retell(text, "past").text == text
        return
    place = parse.first_impossible
    assert parse.log_prob == -math.inf and parse.facts is None and parse.expected
    assert stories.prefix_log_prob(text[:place]) > -math.inf
    assert place == len(text) or stories.prefix_log_prob(text[: place + 1]) == -math.inf
    assert tasks.consistency(text) >= place / (len(text) + 1)
    assert parse.explain(text)
    with pytest.raises(ValueError, match="not a story"):
        stories.retell(text, "present")


@SOME
@given(data=st.data(), pairs=st.sampled_from(["seen", "held-out", "any"]))
def test_the_other_readings_answer_or_refuse_a_changed_story(told, tokenizer, data, pairs):
    text = data.draw(changed_stories(told))
    tense, seed = data.draw(st.sampled_from(["past", "present"])), data.draw(st.integers(0, 9))
    ids = tokenizer.encode(text)
    Random(seed).shuffle(ids)
    asked = f"{text}\nDoes {data.draw(NOISE)} have the {data.draw(NOISE)}?"
    calls = {
        "parse": lambda: stories.parse(text.encode("utf-8", "surrogatepass"), pairs, tense),
        "next": lambda: stories.true_next(text, tokenizer, pairs).sum(),
        "next of ids": lambda: stories.true_next(ids[:20], tokenizer, pairs).sum(),
        "loss": lambda: stories.true_token_loss(text, tokenizer, pairs),
        "outcomes": lambda: stories.outcomes(text, lambda events: len(events) > 3, pairs),
        "reward": lambda: tasks.reward(text, data.draw(NOISE), "happy"),
        **{task: lambda task=task: tasks.bayes(task, asked) for task in tasks.TASKS},
    }
    for name, call in calls.items():
        try:
            with soon():
                call()
        except ValueError as error:
            assert type(error) is ValueError, name


def test_ids_that_are_not_utf8_are_refused_at_once(told, tokenizer):
    for before in ([], tokenizer.encode(told[0][:80])):
        with soon(2), pytest.raises(ValueError, match="not UTF-8"):
            stories.true_next([*before, *[255] * 20], tokenizer)


@pytest.mark.parametrize("times", [30, 300])
def test_a_text_of_many_stories_is_refused_where_the_second_begins(told, times):
    text = "\n".join(told[:3] * times)
    with soon(2):
        assert stories.parse(text).first_impossible >= len(told[0])
        assert tasks.consistency(text) < 1
        assert (
            tasks.bayes("owner", f"{told[0]}\nDoes Mia have the {'red ' * 9_999}kite?")["yes"] == 0
        )


# --- answers ------------------------------------------------------------------------------------

WORDS = st.sampled_from(["three", "3", "٣", "²", "9" * 5_000, "0" * 5_000, "the", "a", ".", '"'])


@MANY
@given(answer=st.lists(WORDS | NOISE, max_size=4).map(" ".join), given_one=st.text() | WORDS)
def test_any_answer_is_right_or_wrong_and_its_own_is_right(answer, given_one):
    assert tasks.exact(answer, answer)
    assert tasks.exact(answer, given_one) == tasks.exact(given_one, answer)


@pytest.mark.parametrize("digits", ["1" * 5_000, "0" * 4_999 + "3"])
def test_a_number_longer_than_python_reads_is_a_wrong_answer(digits):
    assert not tasks.exact("three", digits)


# --- conversations ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words():
    return chat_tokenizer(train_bpe(["Who has the hen? Mia has it."] * 9, 300, [END_OF_TEXT]))


CONTENTS = st.lists(st.sampled_from([*CONTROL_TOKENS, END_OF_TEXT, " ", "hen"]) | NOISE, max_size=4)
SOUND = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES), "content": CONTENTS.map("".join)},
    optional={"name": VALUES},
)
ANYTHING = st.dictionaries(st.sampled_from(["role", "content", "x"]), VALUES) | VALUES


def read_back(ids, words):
    """The turns that ids say: who speaks, and the text up to the end token."""
    named = {words.special_tokens[token]: token for token in CONTROL_TOKENS}
    turns = []
    for i in ids:
        if named.get(i) in (USER, ASSISTANT):
            turns.append((named[i], []))
        elif i not in named:
            turns[-1][1].append(i)
    return [(token, words.decode(said)) for token, said in turns]


@MANY
@given(
    messages=st.lists(SOUND, max_size=5) | st.lists(SOUND | ANYTHING, max_size=4), data=st.data()
)
def test_messages_are_rendered_and_read_back_or_refused(words, messages, data):
    most = data.draw(st.none() | st.integers(0, 40))
    try:
        ids, mask = render(messages, words)
    except ValueError as error:
        assert type(error) is ValueError
        with pytest.raises(ValueError, match=r"message|conversation"):
            render_for_completion(messages, words, most)
        return
    assert len(ids) == len(mask) and set(mask) <= {0, 1}
    assert render(messages, words, most) == (ids[:most], mask[:most])
    turns = read_back(ids, words)
    roles = [one["role"] for one in messages if one["role"] != "system"]
    assert [token for token, _ in turns] == [f"<|{role}|>" for role in roles]
    said = [one["content"] for one in messages if one["role"] == "assistant"]
    plain = [words.decode(words.encode(f" {text}")) for text in said]  # half characters are gone
    assert [text for token, text in turns if token == ASSISTANT] == plain
    assert words.decode([i for i, m in zip(ids, mask, strict=True) if m]) == "".join(
        f"{text}<|end|>" for text in plain
    )


@SOME
@given(messages=st.lists(SOUND, min_size=1, max_size=6), most=st.integers(0, 60))
def test_what_is_asked_to_be_completed_fits_or_is_refused(words, messages, most):
    try:
        ids = render_for_completion(messages, words, most)
    except ValueError as error:
        assert type(error) is ValueError
        return
    assert len(ids) <= most and ids[-1] == words.special_tokens[ASSISTANT]
    n_users = sum(one["role"] == "user" for one in messages)
    kept = [render_for_completion(without_oldest(messages, n), words) for n in range(n_users)]
    assert ids == max((one for one in kept if len(one) <= most), key=len)


def test_a_conversation_of_thousands_of_messages_is_cut_at_once(words):
    turns = [{"role": role, "content": "Hm?"} for role in ("user", "assistant")] * 3_000
    with soon(3):
        ids = render_for_completion([*turns, turns[0]], words, 60)
    assert 40 < len(ids) <= 60
