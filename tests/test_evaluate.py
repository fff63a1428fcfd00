"""The gap and its error, stories held against the world, and reports, each against an oracle."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from llm_core import stories
from llm_core.config import GPTConfig
from llm_core.evaluate import (
    Gap,
    Share,
    StorySet,
    calibration,
    gap,
    judge,
    log_likelihood,
    questions_report,
    story_report,
    story_set,
    tell,
    token_losses,
)
from llm_core.model import GPT
from llm_core.stories import lexicon
from llm_core.stories.questions import Question
from llm_core.tokenizer import END_OF_TEXT, train_bpe

T = 32


@pytest.fixture(scope="module")
def words():
    """A tokenizer that has seen two hundred stories."""
    told = [story.text for story in stories.stories(200)]
    return train_bpe(told, 420, special_tokens=[END_OF_TEXT], n_processes=1)


@pytest.fixture(scope="module")
def end(words):
    return words.special_tokens[END_OF_TEXT]


def model_of(vocab_size, context_length=T, dtype=torch.float64, **changes):
    torch.manual_seed(0)
    config = GPTConfig(vocab_size, context_length, 1, 2, 16, **{"position": "rope", **changes})
    return GPT(config, init="fan_in").to(dtype)


def random_rows(vocab_size, lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocab_size, length).tolist() for length in lengths]


# --- what a model pays --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_token_losses_are_those_of_torch_row_by_row(batch_size):
    model = model_of(50)
    rows = random_rows(50, [2, 33, 17, 5, 17, 33, 2, 20, 9, 31])
    found = token_losses(model, rows, batch_size)
    for row, losses in zip(rows, found, strict=True):
        logits = model(torch.tensor([row[:-1]]))[0]
        exact = F.cross_entropy(logits, torch.tensor(row[1:]), reduction="none")
        assert losses.dtype == np.float64 and losses.shape == (len(row) - 1,)
        np.testing.assert_allclose(losses, exact.detach().numpy(), rtol=1e-11)


def test_token_losses_of_narrow_models_are_near_those_of_exact_ones():
    rows = random_rows(50, [33, 9, 20])
    exact = np.concatenate(token_losses(model_of(50), rows))
    single = np.concatenate(token_losses(model_of(50, dtype=torch.float32), rows))
    narrow = np.concatenate(token_losses(model_of(50, dtype=torch.bfloat16), rows))
    np.testing.assert_allclose(single, exact, atol=2e-6)
    np.testing.assert_allclose(narrow, exact, atol=0.05)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_computes_without_dropout_and_is_left_in_its_mode(training):
    model = model_of(50, dropout=0.5).train(training)
    rows = random_rows(50, [12, 7])
    one, other = token_losses(model, rows), token_losses(model, rows)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert model.training is training and model.drop.training is training


@pytest.mark.parametrize(
    ("lengths", "words"),
    [([1, 5], "rows have 1 to 5 ids; give each 2 to 33"), ([5, 34], "rows have 5 to 34 ids")],
)
def test_rows_that_do_not_fit_are_named(lengths, words):
    with pytest.raises(ValueError, match=words):
        token_losses(model_of(50), random_rows(50, lengths))
    assert token_losses(model_of(50), []) == []


def test_log_likelihood_is_the_sum_over_the_continuation():
    model = model_of(50)
    pairs = [([3, 1, 4], [1, 5]), ([9], [2, 6, 5, 3]), ([5, 8, 9, 7, 9], [3])]
    for (before, after), found in zip(pairs, log_likelihood(model, pairs), strict=True):
        log_probs = model(torch.tensor([before + after]))[0].log_softmax(-1)
        places = range(len(before) - 1, len(before) + len(after) - 1)
        by_hand = sum(log_probs[at, id].item() for at, id in zip(places, after, strict=True))
        assert found == pytest.approx(by_hand, rel=1e-12)


def test_log_likelihood_obeys_the_chain_rule_and_sums_to_one():
    model = model_of(50)
    whole, first, second = log_likelihood(model, [([1], [2, 3]), ([1], [2]), ([1, 2], [3])])
    assert whole == pytest.approx(first + second, rel=1e-12)
    every = log_likelihood(model, [([7, 7], [id]) for id in range(50)])
    assert math.fsum(map(math.exp, every)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("pair", [([], [1]), ([1], [])])
def test_an_empty_context_or_continuation_is_named(pair):
    with pytest.raises(ValueError, match=r"is empty; begin a context with the id of <\|endoftext"):
        log_likelihood(model_of(50), [([1], [2]), pair])


# --- the floor ----------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["validation", "held-out"])
def test_the_floor_of_a_whole_story_is_its_information(words, end, split):
    told = list(stories.stories(12, 5, split))
    test = story_set(words, 12, 2000, split, seed=5)
    for story, ids, floor in zip(told, test.ids, test.floor, strict=True):
        assert ids == (end, *words.encode(story.text), end)
        assert floor == pytest.approx(-stories.parse(story.text, story.pairs).log_prob, rel=1e-12)
    assert test.n_tokens == sum(len(words.encode(story.text)) + 1 for story in told)


@pytest.mark.parametrize("split", ["validation", "held-out"])
def test_the_floor_of_a_cut_story_is_what_the_true_distribution_pays(words, split):
    """Token by token, from the distribution of what comes next."""
    told = list(stories.stories(3, 5, split))
    test = story_set(words, 3, 12, split, seed=5)
    for story, ids, floor in zip(told, test.ids, test.floor, strict=True):
        assert len(ids) == 13 and words.decode(ids[1:]) == story.text[: len(words.decode(ids[1:]))]
        paid = [
            -math.log(stories.true_next(ids[1:n], words, story.pairs)[ids[n]])
            for n in range(1, len(ids))
        ]
        assert floor == pytest.approx(math.fsum(paid), rel=1e-9)


@pytest.mark.parametrize("split", ["validation", "held-out"])
def test_cut_and_whole_stories_have_the_floor_of_their_tokens(words, split):
    """At a context where some are cut; one that just fits is not."""
    told = list(stories.stories(6, 0, split))
    paid = [stories.true_token_loss(story.text, words, story.pairs)[1] for story in told]
    context_length = sorted(map(len, paid))[3]
    test = story_set(words, 6, context_length, split)
    expected = [losses[:context_length].sum() for losses in paid]
    assert test.floor == pytest.approx(expected, rel=1e-9)
    assert [len(ids) - 1 for ids in test.ids] == [min(len(one), context_length) for one in paid]
    whole = [ids[-1] == ids[0] for ids in test.ids]
    assert whole == [len(losses) <= context_length for losses in paid]
    assert 0 < sum(whole) < 6


def test_a_set_of_one_story_is_refused(words):
    with pytest.raises(ValueError, match="n=1 stories give no standard error; take at least 2"):
        story_set(words, 1, 100)


# --- the gap ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tested(words):
    """A model that learned nothing, and sixty stories of unequal lengths."""
    model = model_of(words.vocab_size, 1000)
    return model, story_set(words, 60, 1000)


def test_the_gap_is_the_loss_above_the_floor(tested):
    model, test = tested
    found = gap(model, test, batch_size=7)
    paid = [losses.sum() for losses in token_losses(model, test.ids)]
    assert found.n_tokens == sum(len(ids) - 1 for ids in test.ids)
    assert found.loss == pytest.approx(sum(paid) / found.n_tokens, rel=1e-12)
    assert found.floor == pytest.approx(sum(test.floor) / found.n_tokens, rel=1e-12)
    assert found.gap == pytest.approx(found.loss - found.floor, rel=1e-12)
    metrics = test.metrics(model)
    assert metrics == pytest.approx({"loss": found.loss, "floor": found.floor, "gap": found.gap})
    assert str(Gap(1.5, 1.25, 0.25, 0.01, 9)) == (
        "loss 1.5000, floor 1.2500, gap 0.2500 ± 0.0100 nats a token"
    )


@pytest.mark.parametrize("above", [0.0, 0.3])
def test_a_model_that_pays_what_it_must_has_no_gap_and_no_error(tested, above):
    """Held against its own losses, or a constant a token below them, whatever the stories."""
    model, test = tested
    paid = token_losses(model, test.ids)
    own = StorySet(test.ids, tuple(float((losses - above).sum()) for losses in paid))
    found = gap(model, own)
    assert found.gap == pytest.approx(above, abs=1e-10)
    assert found.error == pytest.approx(0, abs=1e-10)


def test_the_error_of_the_gap_is_that_of_a_bootstrap(tested):
    model, test = tested
    found = gap(model, test)
    paid = np.array([losses.sum() for losses in token_losses(model, test.ids)])
    above, n_tokens = paid - np.array(test.floor), np.array([len(ids) - 1 for ids in test.ids])
    drawn = np.random.default_rng(0).integers(0, len(paid), (20_000, len(paid)))
    gaps = above[drawn].sum(1) / n_tokens[drawn].sum(1)
    assert found.error == pytest.approx(gaps.std(), rel=0.05)


def test_the_error_of_stories_of_equal_length_is_the_textbooks(words):
    model, test = model_of(words.vocab_size), story_set(words, 30, T)
    above = [
        (losses.sum() - floor) / T
        for losses, floor in zip(token_losses(model, test.ids), test.floor, strict=True)
    ]
    assert {len(ids) for ids in test.ids} == {T + 1}
    assert gap(model, test).error == pytest.approx(np.std(above, ddof=1) / math.sqrt(30), rel=1e-9)


# --- stories against the world ------------------------------------------------------------------


@pytest.fixture(scope="module")
def true_stories():
    return [s.text for split in ("validation", "held-out") for s in stories.stories(4, 1, split)]


def test_true_stories_are_exact(true_stories):
    for text in true_stories:
        told = judge(text)
        assert told.exact and told.consistency == 1 and told.first_impossible is None


def test_a_story_that_breaks_off_is_consistent_but_not_exact(true_stories):
    for text in true_stories:
        for cut in (1, len(text) // 3, len(text) - 1):
            unfinished, ended = judge(text[:cut], ended=False), judge(text[:cut])
            assert unfinished.first_impossible is None and unfinished.consistency == 1
            assert not unfinished.exact
            assert ended.first_impossible == cut and not ended.exact  # the end is impossible there
            assert ended.consistency == cut / (cut + 1)


def test_a_wrong_character_is_found_where_it_stands(true_stories):
    for text in true_stories:
        for at in (0, len(text) // 2, len(text) - 1):
            for ended in (True, False):
                told = judge(text[:at] + "#" + text[at + 1 :], ended)
                assert told.first_impossible == at and not told.exact
                assert told.consistency == at / (len(text) + 1)
        beyond = judge(text + " #")
        assert beyond.first_impossible in (len(text), len(text) + 1) and not beyond.exact


def test_a_wrong_fact_is_found_though_every_word_is_the_worlds():
    """The last time that a name comes, another that the story has not met."""
    for story in stories.stories(8, 2, "validation"):
        last = {name: story.text.rfind(name) for name in lexicon.NAMES.items}
        name = max(last, key=last.get)
        stranger = next(other for other, at in last.items() if at < 0 and other[0] != name[0])
        told = judge(story.text[: last[name]] + stranger + story.text[last[name] + len(name) :])
        assert last[name] <= told.first_impossible < last[name] + len(stranger)


def test_nothing_is_no_story_but_may_become_one():
    assert judge("").first_impossible == 0 and judge("").consistency == 0
    assert judge("", ended=False).first_impossible is None


# --- stories that a model tells -----------------------------------------------------------------


def always(words, id, context_length):
    """A model that gives one id whatever came: its final norm puts out a constant, the head reads.

    The position after n ids does not matter, so what it tells follows a prompt for sure.
    """
    model = model_of(words.vocab_size, context_length, torch.float32, tied=False)
    with torch.no_grad():
        model.final_norm.weight.zero_()
        model.final_norm.bias.fill_(1.0)
        model.head.weight.zero_()
        model.head.weight[id] = 10.0
    return model


def test_a_model_that_ends_a_true_story_told_an_exact_one(words, end, true_stories):
    text = true_stories[0]
    model = always(words, end, len(words.encode(text)) + 8)
    told = tell(model, words, 3, prompt=text)
    assert told == [judge(text)] * 3 and told[0].exact
    half = tell(model, words, 2, prompt=text[: len(text) // 2])
    assert all(story.ended and not story.exact for story in half)
    assert half[0].first_impossible == len(text) // 2


def test_a_model_that_says_something_wrong_is_found_there(words, true_stories):
    prompt = true_stories[0][:100]
    n_ids = len(words.encode(prompt))
    model = always(words, words.encode("#")[0], n_ids + 9)
    (told,) = tell(model, words, 1, prompt=prompt)
    assert not told.ended and told.text == prompt + "#" * 8  # up to the context length
    assert told.first_impossible == 100
    assert told.consistency == 100 / 109


def test_a_context_that_ends_inside_a_character_is_no_fault():
    bytes_alone = train_bpe("", 257, special_tokens=[END_OF_TEXT])
    text = next(s.text for s in stories.stories(None) if "ë" in s.text)
    prompt = text[: text.index("ë")]
    model = always(bytes_alone, "ë".encode()[0], len(prompt.encode()) + 2)
    (told,) = tell(model, bytes_alone, 1, prompt=prompt)
    assert (told.text, told.ended, told.first_impossible) == (prompt, False, None)


def test_an_untrained_model_tells_nonsense_that_a_seed_repeats(words, end):
    model = model_of(words.vocab_size, 60, torch.float32)
    told = tell(model, words, 7, seed=3, batch_size=3)
    assert len(told) == 7 and len({story.text for story in told}) > 1
    assert tell(model, words, 7, seed=3, batch_size=3) == told
    assert tell(model, words, 7, seed=4, batch_size=3) != told
    for story in told:
        assert END_OF_TEXT not in story.text
        assert not story.exact and 0 <= story.consistency < 0.5
        assert story.first_impossible == judge(story.text, story.ended).first_impossible
    cold = tell(model, words, 2, temperature=0)
    assert cold[0] == cold[1]


def test_a_prompt_that_fills_the_context_is_named(words, true_stories):
    with pytest.raises(ValueError, match=r"max_new_tokens=-?\d+ must be at least 1"):
        tell(model_of(words.vocab_size), words, 1, prompt=true_stories[0])


# --- reports ------------------------------------------------------------------------------------


def test_the_report_is_made_of_its_parts(words):
    model = model_of(words.vocab_size, 60, torch.float32)
    test = story_set(words, 5, 60)
    report = story_report(model, words, test, n_told=8, seed=3)
    told = tell(model, words, 8, seed=3)
    assert report.gap == gap(model, test)
    assert report.exact == Share(0, 8) and report.exact.interval[1] > 0.3  # 0 of 8 is little
    assert report.consistency == pytest.approx(np.mean([story.consistency for story in told]))
    assert report.examples == tuple(told[:5])  # all of them are wrong
    said = f"{report.gap}\nof the stories told {Share(0, 8)} are exact; right up to "
    assert str(report).startswith(said)
    with pytest.raises(ValueError, match="n_told=0 stories tell nothing"):
        story_report(model, words, test, n_told=0)


def test_without_stories_given_the_report_takes_two_hundred(words, end):
    model = always(words, end, 1500)  # which cuts no story
    report = story_report(model, words, n_told=2)
    test = story_set(words, 200, 1500)
    assert report.gap.n_tokens == test.n_tokens
    assert report.gap.floor == pytest.approx(math.fsum(test.floor) / test.n_tokens, rel=1e-12)
    assert [story.text for story in report.examples] == ["", ""]


def wilson_by_bisection(right, n):
    """The shares p whose standard error, at p itself, is a 1.96th of the distance to right / n."""
    z, found = 1.959964, right / n

    def off(p):
        return abs(found - p) - z * math.sqrt(p * (1 - p) / n)

    ends = []
    for inside, outside in ((found, 0.0), (found, 1.0)):
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if off(middle) <= 0 else (inside, middle)
        ends.append(inside)
    return ends


@given(n=st.integers(1, 5000), share=st.floats(0, 1))
def test_the_interval_of_a_share_is_wilsons(n, share):
    right = round(share * n)
    found = Share(right, n)
    assert found.value == right / n
    assert found.interval == pytest.approx(wilson_by_bisection(right, n), abs=1e-9)
    assert 0 <= found.interval[0] <= found.value <= found.interval[1] + 1e-12


def test_the_interval_holds_the_true_share_95_times_of_100():
    """Exactly, over the binomial distribution, on average over true shares."""
    n, covered = 40, []
    intervals = [Share(k, n).interval for k in range(n + 1)]
    for p in np.linspace(0.02, 0.98, 97):
        chances = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        within = [low <= p <= high for low, high in intervals]
        covered.append(sum(c for c, w in zip(chances, within, strict=True) if w))
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


def test_a_share_of_nothing_is_unknown():
    assert math.isnan(Share(0, 0).value) and Share(0, 0).interval == (0.0, 1.0)
    assert str(Share(3, 4)) == "75.0% (30.1% to 95.4%, n = 4)"


def test_answers_are_counted_by_kind():
    asked = [
        (story.text, question)
        for story in stories.stories(6, 0, "validation")
        for question in stories.questions(story)
    ]
    kinds = Counter(question.kind for _, question in asked)
    answers = {(text, question.text): question.answer for text, question in asked}
    perfect = questions_report(lambda pairs: [f" {answers[pair]}\n" for pair in pairs], asked)
    assert perfect == {"all": Share(len(asked), len(asked))} | {
        kind: Share(n, n) for kind, n in kinds.items()
    }
    spoiled = max(kinds, key=kinds.get)
    wrong = {(text, q.text) for text, q in asked if q.kind == spoiled}
    report = questions_report(
        lambda pairs: ["no idea" if pair in wrong else answers[pair] for pair in pairs], asked
    )
    assert report[spoiled] == Share(0, kinds[spoiled])
    assert report["all"] == Share(len(asked) - kinds[spoiled], len(asked))
    assert all(share.value == 1 for kind, share in report.items() if kind not in (spoiled, "all"))


def test_answers_that_are_too_few_are_named():
    asked = [("A story.", Question("who", "Who?", "Mia"))] * 3
    with pytest.raises(ValueError, match="2 answers to 3 questions; give one each"):
        questions_report(lambda pairs: ["Mia", "Mia"], asked)
    assert questions_report(lambda pairs: [], []) == {"all": Share(0, 0)}


# --- calibration --------------------------------------------------------------------------------


def test_calibration_by_hand():
    found = calibration([0.1, 0.2, 0.6, 0.7, 0.7, 1.0], [False, True, True, True, False, True], 2)
    assert found.n.tolist() == [2, 4]
    assert found.confidence.tolist() == pytest.approx([0.15, 0.75])
    assert found.right.tolist() == pytest.approx([0.5, 0.75])
    assert found.error == pytest.approx((2 * 0.35 + 4 * 0) / 6)


def test_empty_bins_are_nan_and_do_not_count():
    found = calibration([0.05, 1.0], [False, True], 10)
    assert found.n.tolist() == [1, *[0] * 8, 1]
    assert np.isnan(found.confidence[1:9]).all() and np.isnan(found.right[1:9]).all()
    assert found.error == pytest.approx(0.025)


def test_things_that_come_true_as_often_as_said_are_calibrated():
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    honest = calibration(p, rng.random(200_000) < p)
    assert honest.error < 0.005
    boastful = calibration(p, rng.random(200_000) < p**2)  # on average 1/2 said, 1/3 true
    assert boastful.error == pytest.approx(1 / 2 - 1 / 3, abs=0.005)


def test_calibration_is_that_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(1)
    p = rng.random(5000)
    hit = rng.random(5000) < p**3
    found = calibration(p, hit, 12)
    right, confidence = theirs.calibration_curve(hit, p, n_bins=12)
    np.testing.assert_allclose(found.right, right)
    np.testing.assert_allclose(found.confidence, confidence)


@pytest.mark.parametrize(
    ("p", "right", "words"),
    [
        ([0.5, 1.5], [True, True], "must lie in 0 to 1, found 0.5 to 1.5"),
        ([0.5, math.nan], [True, True], "must lie in 0 to 1"),
        ([0.5], [True, False], r"probabilities \(1,\) and right \(2,\) must be equal rows"),
        ([], [], "must be equal rows of 1"),
    ],
)
def test_what_cannot_be_calibrated_is_named(p, right, words):
    with pytest.raises(ValueError, match=words):
        calibration(p, right)


def test_a_model_that_fails_is_left_in_the_mode_it_was_in(words):
    model = model_of(words.vocab_size, 60, torch.float32).train()
    with pytest.raises(IndexError):
        token_losses(model, [[0, words.vocab_size + 7, 1]])
    assert model.training
