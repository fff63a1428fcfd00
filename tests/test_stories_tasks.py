"""Tasks with exact answers: posteriors are right, nothing is given away, pairs and rewards hold."""

import math
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_core import stories
from llm_core.stories import tasks
from llm_core.stories.episodes import held_out_nouns, held_out_plots
from llm_core.stories.tasks import TASKS, Example

EVERY_TASK = pytest.mark.parametrize("task", sorted(TASKS))
SPLITS = ("train", "validation", "test", "held-out")
N = 300  # examples whose posterior is computed
MANY = 900


@pytest.fixture(scope="module")
def examples():
    return {task: tasks.examples(task, MANY, seed=8) for task in TASKS}


@pytest.fixture(scope="module")
def posteriors(examples):
    return {task: [tasks.bayes(task, one.text) for one in examples[task][:N]] for task in TASKS}


def near(share: float, expected: float, n: int) -> bool:
    """Whether a share of n draws is within 3.5 standard errors of what it should be."""
    return abs(share - expected) < 3.5 * math.sqrt(max(expected * (1 - expected), 0.01) / n)


# --- classification -----------------------------------------------------------------------------


@EVERY_TASK
def test_examples_are_always_the_same_and_more_begin_with_the_same(task, examples):
    assert tasks.examples(task, 30, seed=8) == examples[task][:30]
    assert tasks.examples(task, 30, seed=9) != examples[task][:30]
    assert {one.label for one in examples[task]} == set(TASKS[task].labels)


@EVERY_TASK
def test_posteriors_sum_to_one_and_never_exclude_the_label(task, examples, posteriors):
    for one, given_text in zip(examples[task][:N], posteriors[task], strict=True):
        assert set(given_text) == set(TASKS[task].labels)
        assert math.fsum(given_text.values()) == pytest.approx(1, abs=1e-9)
        assert given_text[one.label] > 0


def test_a_happy_end_is_as_frequent_as_its_probability_says(examples, posteriors):
    both = [
        (given_text["happy"], one.label == "happy")
        for one, given_text in zip(examples["ending"][:N], posteriors["ending"], strict=True)
    ]
    for low, high in ((0, 0.4), (0.4, 0.6), (0.6, 1)):
        inside = [(p, happy) for p, happy in both if low <= p < high]
        assert len(inside) >= 20
        mean = sum(p for p, _ in inside) / len(inside)
        assert near(sum(happy for _, happy in inside) / len(inside), mean, len(inside))


@EVERY_TASK
def test_the_likeliest_label_is_right_as_often_as_the_bayes_accuracy_says(
    task, examples, posteriors
):
    best = [max(one, key=one.get) for one in posteriors[task]]
    right = sum(a == b.label for a, b in zip(best, examples[task][:N], strict=True)) / N
    accuracy, standard_error = tasks.bayes_accuracy(task, 60, seed=8)
    expected = sum(max(one.values()) for one in posteriors[task]) / N
    assert near(right, expected, N)
    assert abs(accuracy - expected) <= 4 * standard_error + 1e-9
    if task != "ending":
        assert right == accuracy == 1


@EVERY_TASK
def test_the_bayes_rule_beats_the_majority_and_every_single_word(task, examples, posteriors):
    labels = [one.label for one in examples[task]]
    common = max(map(labels.count, labels)) / MANY
    accuracy = sum(max(one.values()) for one in posteriors[task]) / N
    _, (by_word, _) = tasks.single_word_rule(examples[task])
    assert 0.45 < common < 0.6
    assert accuracy > common + 0.05
    assert by_word < (common + accuracy) / 2 + 0.01


def test_a_word_that_gives_the_label_away_is_found():
    generator = Random(0)
    given_away = []
    for _ in range(200):
        label = generator.choice(("yes", "no"))
        noise = [generator.choice("abcdefgh") for _ in range(5)]
        given_away.append(Example(" ".join([*noise, "Kite!" if label == "yes" else "h"]), label))
    assert tasks.single_word_rule(given_away) == ("kite", (1.0, 0.0))


def test_the_share_of_a_majority_has_its_standard_error(examples):
    label, (share, standard_error) = tasks.majority("promise", N, seed=8)
    count = sum(one.label == label for one in examples["promise"][:N])
    assert share == count / N
    assert standard_error == pytest.approx(math.sqrt(count * (N - count) / N**3))


def test_the_text_stops_before_the_label_is_said(examples):
    for one in examples["ending"][:40] + examples["promise"][:40]:
        going_on = stories.continuations(one.text, lambda beyond: bool(beyond))
        assert going_on and stories.END_OF_STORY not in going_on
    for one in examples["promise"]:
        last = one.text.split("\n")[-1]
        assert "promise was kept" not in last and "promise was broken" not in last
    for one in examples["owner"][:40]:
        story, question = one.text.rsplit("\n", 1)
        assert stories.parse(story).derivations == 1
        assert re.fullmatch(r"Does \S+ have the .+\?", question)


def test_the_owner_is_read_off_the_story_and_the_last_line():
    for one in tasks.examples("owner", 40, seed=2):
        text, question = one.text.rsplit("\n", 1)
        who, what = re.findall(r"Does (\S+) have the (.+)\?", question)[0]
        holders = {thing.full: name for thing, name in stories.parse(text).facts.holders.items()}
        assert one.label == ("yes" if holders[what] == who else "no")


@pytest.mark.parametrize(
    ("task", "split"), [*((task, "held-out") for task in TASKS), ("ending", "validation")]
)
def test_examples_come_from_every_split(task, split):
    for one in tasks.examples(task, 8, split=split):
        assert tasks.bayes(task, one.text, split)[one.label] > 0


@EVERY_TASK
@pytest.mark.parametrize("text", ["", "Once upon a time", "no story\nDoes Mia have the red kite?"])
def test_a_text_that_is_no_example_is_refused(task, text):
    with pytest.raises(ValueError, match=r"turn|examples\(\)"):
        tasks.bayes(task, text)


def test_an_unknown_task_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="ending, promise, owner"):
        tasks.examples("weather", 1)


# --- preferences --------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_pairs_share_their_prompt_and_end_in_opposite_ways(split):
    pairs = tasks.preference_pairs(25, seed=3, split=split)
    assert pairs == tasks.preference_pairs(25, seed=3, split=split)
    for prompt, chosen, rejected in pairs:
        assert prompt and chosen != rejected
        happy, sad = (
            stories.parse(prompt + one, tasks.pairs_of(split)) for one in (chosen, rejected)
        )
        assert (happy.facts.ending, sad.facts.ending) == ("happy", "sad")
        assert happy.facts.plots == sad.facts.plots
        if split == "train":
            assert {stories.split_of(prompt + one) for one in (chosen, rejected)} == {"train"}


def test_nearly_every_story_has_a_twin_with_the_other_ending():
    told = list(stories.stories(100, seed=3))
    begun = {story.text for story in told}
    pairs = tasks.preference_pairs(90, seed=3)
    wholes = {pair.prompt + one for pair in pairs for one in (pair.chosen, pair.rejected)}
    assert len(begun & wholes) == 90


# --- rewards ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told():
    return list(stories.stories(60, seed=17))


def test_consistency_is_one_for_a_story_and_for_nothing_else(told):
    generator = Random(0)
    for story in told[:5]:
        assert tasks.consistency(story.text) == 1
        cut = generator.randrange(1, len(story.text))
        for text in (story.text[:cut], story.text[:cut] + "~", story.text + " Again!"):
            assert (tasks.consistency(text) == 1) == bool(stories.parse(text, "any").derivations)
    assert tasks.consistency("") == 0


def test_consistency_is_the_share_of_the_text_before_the_first_error(told):
    for story in told[:5]:
        half = len(story.text) // 2
        broken = story.text[:half] + "~" * (len(story.text) - half - 1)
        assert tasks.consistency(broken) == pytest.approx(half / len(story.text))


@settings(max_examples=25)
@given(st.text(max_size=60))
def test_consistency_of_noise_is_between_0_and_1(text):
    assert 0 <= tasks.consistency(text) < 1


def test_a_reward_is_for_obeying_in_every_point(told):
    for story in told[:5]:
        text, ending = story.text, story.facts.ending
        other = {"happy": "sad", "sad": "happy"}[ending]
        assert tasks.reward(text) == tasks.reward(text, text[:50], ending) == 1
        assert tasks.reward(text, ending=other) == 0
        assert tasks.reward(text, prompt="Once there was nothing") == 0
        assert tasks.reward(text[:-1]) == 0
    with pytest.raises(ValueError, match="'happy', 'sad' or None"):
        tasks.reward("", ending="merry")


@pytest.mark.parametrize(
    "given_answer", ["the mill", "The mill.", " mill ", "THE  MILL!", '"the mill"']
)
def test_an_answer_is_right_in_every_usual_form(given_answer):
    assert tasks.exact("the mill", given_answer)


@pytest.mark.parametrize(
    ("answer", "given_answer", "right"),
    [
        ("seven", "7", True),
        ("twenty", "20", True),
        ("a fox", "fox", True),
        ("yes", "Yes.", True),
        ("seven", "eight", False),
        ("the mill", "the windmill", False),
        ("Mia and Tom", "Tom and Mia", False),
        ("no", "", False),
        ("a", "the", False),
    ],
)
def test_an_answer_is_right_only_if_it_says_the_same(answer, given_answer, right):
    assert tasks.exact(answer, given_answer) is right


# --- overlap ------------------------------------------------------------------------------------


def test_pairs_that_are_kept_out_never_occur_in_training():
    n_things = n_plots = 0
    for story in stories.stories(2_000, seed=6):
        for who, thing in (event.what for event in story.facts.of("own")):
            n_things += 1
            assert thing not in held_out_nouns(who)
        for event in story.facts.of("plot"):
            n_plots += 1
            assert event.what[0] not in held_out_plots(event.what[1])
    assert min(n_things, n_plots) > 2_000


def test_every_held_out_story_has_a_pair_that_was_kept_out():
    for story in stories.stories(200, seed=6, split="held-out"):
        facts = story.facts
        assert any(
            plot in held_out_plots(place) for plot, place in (e.what for e in facts.of("plot"))
        )


@pytest.fixture(scope="module")
def table():
    return {(row.split, row.item): row for row in tasks.overlap(SPLITS, 150, seed=6)}


def test_overlap_counts_what_two_splits_share(table):
    train, test = (list(stories.stories(150, seed=6, split=one)) for one in ("train", "test"))

    def windows(told):
        found = set()
        for story in told:
            words = story.text.split()
            found |= set(zip(*(words[i:] for i in range(tasks.WINDOW)), strict=False))
        return found

    ours, theirs = windows(test), windows(train)
    row = table["test", f"{tasks.WINDOW} words"]
    assert (row.n, row.in_train) == (len(ours), len(ours & theirs))
    places = [
        {(e.what[1], e.what[0]) for s in told for e in s.facts.of("plot")} for told in (test, train)
    ]
    row = table["test", "place and plot"]
    assert (row.n, row.in_train) == (len(places[0]), len(places[0] & places[1]))


def test_no_text_is_in_two_splits_and_training_is_all_in_itself(table):
    for (split, item), row in table.items():
        assert 0 <= row.in_train <= row.n
        if split == "train":
            assert row.in_train == row.n
        elif item == "text":
            assert (row.n, row.in_train) == (150, 0)
    assert table["held-out", "pair kept out"].n > 50
    for split in SPLITS:
        assert table[split, "pair kept out"].in_train == 0
