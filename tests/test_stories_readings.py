"""Every reading against a list of all stories: small programs are enumerated by other code."""

import math
import re
from collections import defaultdict
from random import Random

import numpy as np
import pytest

from llm_core import stories
from llm_core.stories import readings
from llm_core.stories.choices import Choice, Word
from llm_core.stories.world import World
from llm_core.tokenizer import END_OF_TEXT, train_bpe

NAMES = Choice({Word("Ann", he="she"): 3, Word("Anna", he="she"): 1, Word("Bo", he="he"): 2})
THINGS = Choice({"kite": 2, "kites": 1, "key": 1})
MOODS = Choice({"glad": 3, "sad": 1}, telling=True)


# --- small programs -----------------------------------------------------------------------------


def one_beat(tell, world):
    """Words that are prefixes of one another, in different orders."""
    tell(
        "{name} had/has {what}[ too|].",
        "It was/is [just |]{what}, {name} said/says.",
        name=NAMES,
        what=THINGS,
    )


def two_ways(tell, world):
    """Some texts have two derivations: the decision is not told."""
    if tell.chance(30):
        tell("It rained/rains.")
    else:
        tell("It rained/rains.", "It snowed/snows.")
    return ended


def ended(tell, world):
    """A second beat, in a new paragraph; the first draw decides the last."""
    tell.paragraph()
    tell("{name} was/is {mood}.", "How {mood} {name} was/is!", name=NAMES, mood=MOODS)
    tell.turn()
    return judged


def judged(tell, world):
    """The outcome depends on what was told."""
    world.well = tell.chance(80 if world.mood == "glad" else 25)
    tell.note("ending", "happy" if world.well else "sad", "none")
    if world.well:
        tell("Well done, {name}!", "Good.")
    else:
        tell("Bad luck.")
    return again if tell.chance(20) else None


def again(tell, world):
    """Once more, with a word that must differ."""
    tell("Then came/comes {other}.", other=NAMES.without([world.name]))


PROGRAMS = (one_beat, two_ways)


class Enumerator:
    """Runs a program with a fixed list of picks, and says how many each pick could have been.

    Written without the library's wording: templates are filled by ``str.format``.
    """

    tense = 0

    def __init__(self, picks):
        self.world, self.picks, self.sizes = World(), list(picks), []
        self.text, self.p, self.labels = "", 1.0, []

    def _take(self, options, weights):
        n = len(self.sizes)
        pick = self.picks[n] if n < len(self.picks) else 0
        self.sizes.append(len(options))
        self.p *= weights[pick] / sum(weights)
        return options[pick]

    def __call__(self, *templates, **drawn):
        template = self._take(templates, [1] * len(templates))
        while "[" in template:
            before, _, rest = template.partition("[")
            inner, _, after = rest.partition("]")
            options = inner.split("|")
            template = before + self._take(options, [1] * len(options)) + after
        for slot, choice in drawn.items():
            setattr(self.world, slot, self.pick(choice))
        template = re.sub(r"([\w']+)/([\w']+)", lambda m: m[1 + self.tense], template)
        self.text += self.world.gap + template.format(**self.world.__dict__)
        self.world.gap = " "

    def pick(self, choice):
        base = getattr(choice, "base", choice)
        out = getattr(choice, "excluded", ())
        left = [(i, w) for i, w in zip(base.items, base.odds, strict=True) if i not in out]
        return self._take([i for i, _ in left], [w for _, w in left])

    def chance(self, percent):
        return self._take([True, False], [percent, 100 - percent])

    def paragraph(self):
        self.world.gap = "\n"

    def note(self, kind, *what):
        self.labels.append(what[0])

    def turn(self):
        self.turned = len(self.text)


def enumerate_stories(program, tense=0):
    """Every derivation of a program: its text, its probability, where it turned, its ending."""
    picks = []
    while True:
        run = Enumerator(picks)
        run.tense = tense
        beat = program
        while beat is not None:
            beat = beat(run, run.world)
        yield run
        picks = (picks + [0] * len(run.sizes))[: len(run.sizes)]
        while picks and picks[-1] + 1 == run.sizes[len(picks) - 1]:
            picks.pop()
        if not picks:
            return
        picks[-1] += 1


def all_texts(program, tense=0):
    found = defaultdict(float)
    for run in enumerate_stories(program, tense):
        found[run.text] += run.p
    return dict(found)


@pytest.fixture(params=PROGRAMS, ids=lambda program: program.__name__)
def program(request, monkeypatch):
    monkeypatch.setattr(readings, "first_beat", request.param)
    return request.param


def test_the_probabilities_of_all_stories_sum_to_one(program):
    texts = all_texts(program)
    assert len(texts) > 10
    assert math.fsum(texts.values()) == pytest.approx(1, abs=1e-12)
    parsed = [math.exp(readings.parse(text).log_prob) for text in texts]
    assert math.fsum(parsed) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("tense", ["past", "present"])
def test_a_parse_sums_all_derivations(program, tense):
    runs = list(enumerate_stories(program, ["past", "present"].index(tense)))
    for text, p in all_texts(program, ["past", "present"].index(tense)).items():
        parse = readings.parse(text, tense=tense)
        assert math.exp(parse.log_prob) == pytest.approx(p, rel=1e-12)
        assert parse.derivations == sum(run.text == text for run in runs)
        assert parse.first_impossible is None


def test_a_prefix_is_as_likely_as_all_stories_that_begin_with_it(program):
    texts = all_texts(program)
    for prefix in {text[:n] for text in texts for n in range(len(text) + 1)}:
        p = math.fsum(p for text, p in texts.items() if text.startswith(prefix))
        assert math.exp(readings.prefix_log_prob(prefix)) == pytest.approx(p, rel=1e-12)


def test_a_text_that_no_story_begins_with_is_impossible_from_its_first_wrong_character(program):
    texts = all_texts(program)
    beginnings = {text[:n] for text in texts for n in range(len(text) + 1)}
    generator = Random(0)
    for text in texts:
        i = generator.randrange(len(text))
        wrong = text[:i] + generator.choice("xyz A.") + text[i + 1 :]
        if wrong not in texts:
            longest = max(n for n in range(len(wrong) + 1) if wrong[:n] in beginnings)
            parse = readings.parse(wrong)
            assert parse.log_prob == -math.inf
            assert parse.first_impossible == longest
            assert all(
                any(
                    t.startswith(wrong[:longest] + e.removesuffix(stories.END_OF_STORY))
                    for t in texts
                )
                for e in parse.expected
            )
            assert parse.expected


def test_what_may_follow_a_text_has_the_odds_of_the_stories_that_go_on_so(program):
    texts = all_texts(program)
    for prefix in {text[:n] for text in texts for n in range(len(text) + 1)}:
        following = readings.continuations(prefix, lambda beyond: len(beyond) >= 3)
        wanted = defaultdict(float)
        for text, p in texts.items():
            if text.startswith(prefix):
                rest = text[len(prefix) :]
                ended = len(rest) < 3
                wanted[rest + stories.END_OF_STORY if ended else rest[:3]] += p
        got = defaultdict(float)
        for beyond, log_p in following.items():
            short = beyond.removesuffix(stories.END_OF_STORY)
            got[beyond if short != beyond and len(short) < 3 else short[:3]] += math.exp(log_p)
        assert got == pytest.approx(wanted, rel=1e-12)


def test_the_true_next_token_is_that_of_all_encoded_stories(program):
    texts = all_texts(program)
    tokenizer = train_bpe(list(texts), 290, special_tokens=[END_OF_TEXT])
    (end,) = tokenizer.encode(END_OF_TEXT, allowed_special="all")
    encoded = {(*tokenizer.encode(text), end): p for text, p in texts.items()}
    for prefix in {ids[:n] for ids in encoded for n in range(len(ids))}:
        wanted = np.zeros(tokenizer.vocab_size)
        for ids, p in encoded.items():
            if ids[: len(prefix)] == prefix:
                wanted[ids[len(prefix)]] += p
        wanted /= wanted.sum()
        np.testing.assert_allclose(stories.true_next(prefix, tokenizer), wanted, atol=1e-12)


def test_the_true_token_losses_are_those_of_all_encoded_stories(program):
    texts = all_texts(program)
    tokenizer = train_bpe(list(texts), 290, special_tokens=[END_OF_TEXT])
    (end,) = tokenizer.encode(END_OF_TEXT, allowed_special="all")
    encoded = {(*tokenizer.encode(text), end): p for text, p in texts.items()}
    for text in texts:
        ids, loss = stories.true_token_loss(text, tokenizer)
        assert ids == [*tokenizer.encode(text), end]
        for n in range(len(ids)):
            before = math.fsum(p for k, p in encoded.items() if k[:n] == tuple(ids[:n]))
            after = math.fsum(p for k, p in encoded.items() if k[: n + 1] == tuple(ids[: n + 1]))
            assert loss[n] == pytest.approx(math.log(before / after), abs=1e-12)
        for most in (1, len(ids) - 1, len(ids) + 3):
            fewer, cut = stories.true_token_loss(text, tokenizer, most=most)
            assert fewer == ids[:most] and cut.tolist() == loss[:most].tolist()


def test_an_open_outcome_has_the_odds_of_the_stories_that_turn_there(monkeypatch):
    monkeypatch.setattr(readings, "first_beat", two_ways)
    runs = list(enumerate_stories(two_ways))
    for visible in {run.text[: run.turned] for run in runs}:
        here = [run for run in runs if run.text[: run.turned] == visible]
        happy = math.fsum(run.p for run in here if "happy" in run.labels)
        wanted = happy / math.fsum(run.p for run in here)
        found = readings.outcomes(visible, lambda events: events[0].what[0] if events else None)
        assert found["happy"] == pytest.approx(wanted, abs=1e-12)
        assert sum(found.values()) == pytest.approx(1, abs=1e-12)
