"""Choices draw by their odds, sentences come out in both tenses, and both say what's wrong."""

import math
from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_core.stories.choices import Choice, Word, yes_or_no
from llm_core.stories.engine import Teller
from llm_core.stories.wording import Pattern, tensed, wording
from llm_core.stories.world import World, person, thing


class Drawer:
    """Whoever draws: chances from a generator or a list."""

    def __init__(self, random):
        self.random, self.trace, self.log_prob = random, [], 0.0


odds_lists = st.lists(st.integers(1, 9), min_size=1, max_size=8)


# --- choices ------------------------------------------------------------------------------------


@given(odds=odds_lists)
def test_every_chance_draws_an_item_as_often_as_its_odds_say(odds):
    choice = Choice(range(len(odds)), odds)
    n = sum(odds)
    drawn = Counter(choice.draw(Drawer(lambda u=(i + 0.5) / n: u)) for i in range(n))
    assert [drawn[i] for i in range(len(odds))] == odds


def test_a_million_draws_agree_with_the_odds():
    choice, generator = Choice({"a": 1, "b": 2, "c": 7}), Random(0)
    drawer = Drawer(generator.random)
    n = 100_000
    drawn = Counter(choice.draw(drawer) for _ in range(n))
    for item, odds in zip("abc", (1, 2, 7), strict=True):
        p = odds / 10
        assert abs(drawn[item] / n - p) < 5 * math.sqrt(p * (1 - p) / n)


@given(odds=odds_lists, data=st.data())
def test_the_log_probability_of_a_draw_is_that_of_its_way_and_the_chance_draws_it_again(odds, data):
    out = data.draw(st.lists(st.integers(0, len(odds) - 1), max_size=len(odds) - 1, unique=True))
    choice = Choice(range(len(odds)), odds).without(out)
    ways = list(choice.ways())
    assert {item for item, _, _ in ways} == set(range(len(odds))) - set(out)
    assert math.fsum(math.exp(log_p) for _, log_p, _ in ways) == pytest.approx(1, abs=1e-12)
    for item, log_p, u in ways:
        drawer = Drawer(lambda u=u: u)
        assert choice.draw(drawer) == item
        assert drawer.log_prob == pytest.approx(log_p, abs=1e-12)
        assert drawer.trace == [u]


@given(
    items=st.lists(st.text("ab ", min_size=1, max_size=4), min_size=1, max_size=9, unique=True),
    text=st.text("ab ", max_size=8),
    position=st.integers(0, 8),
)
def test_the_items_that_stand_in_a_text_are_those_that_it_goes_on_with(items, text, position):
    found = Choice(items).standing(text, position, "")
    assert sorted(item for item, _, _, _ in found) == sorted(
        item for item in items if text.startswith(item, position) and position <= len(text)
    )


@pytest.mark.parametrize(
    ("items", "odds"), [([], None), (["a", "a"], None), (["a"], [0]), (["a", "b"], [1])]
)
def test_a_choice_needs_different_items_with_odds_of_at_least_one(items, odds):
    with pytest.raises(ValueError):
        Choice(items, odds)


def test_a_choice_with_nothing_left_is_refused_by_name():
    with pytest.raises(ValueError, match=r"nothing is left of \['a', 'b'\]"):
        Choice(["a", "b"]).without(["a", "b"])


@pytest.mark.parametrize("percent", [0, 100, -3])
def test_a_decision_without_a_choice_is_refused(percent):
    with pytest.raises(ValueError, match=f"percent={percent}"):
        yes_or_no(percent)
    with pytest.raises(ValueError, match=f"percent={percent}"):
        Teller(Random(0).random, World()).chance(percent)


# --- words --------------------------------------------------------------------------------------


def test_a_word_knows_its_article_and_its_capital():
    assert (Word("apple").a, Word("pear").A, Word("pear").cap) == ("an apple", "A pear", "Pear")
    assert Word("honest", a="an honest").A == "An honest"


def test_a_person_has_the_pronouns_of_the_name():
    mia = Word("Mia", he="she")
    fox = person(mia, Word("fox"), Word("kind"))
    assert (fox, fox.he, fox.him, fox.His, fox.kind, fox.trait) == (
        "Mia", "she", "her", "Her", "fox", "kind",
    )  # fmt: skip
    tom = person(Word("Tom", he="he"), Word("bear"), Word("shy"))
    assert (tom.he, tom.him, tom.his, tom.He) == ("he", "him", "his", "He")


def test_things_of_the_same_words_are_the_same_objects():
    kite = thing(Word("orange"), Word("kite"))
    assert kite is thing(Word("orange"), Word("kite"))
    assert (kite, kite.full, kite.a) == ("kite", "orange kite", "an orange kite")


# --- sentences ----------------------------------------------------------------------------------


def test_a_sentence_is_written_in_either_tense():
    template = "{hero} was/is there and didn't/doesn't go."
    assert tensed(template, 0) == "{hero} was there and didn't go."
    assert tensed(template, 1) == "{hero} is there and doesn't go."


def test_a_pattern_fills_its_slots_from_the_world():
    world = World()
    world.hero, world.spot = Word("Mia", he="she"), Word("under 5% of a bench")
    pattern = Pattern("{hero} looked/looks {spot}; 100% sure, {hero.he} said/says {hero}.", 1)
    assert pattern.text(world) == "Mia looks under 5% of a bench; 100% sure, she says Mia."
    assert Pattern("Only 100%.", 0).text(world) == "Only 100%."


@pytest.mark.parametrize(
    "template", ["", " a", "a ", "a  b", "a / b", "{hero", "{hero.he.him} a", "a {}"]
)
def test_a_template_that_would_print_badly_is_refused(template):
    with pytest.raises(ValueError, match="template"):
        Pattern(template, 0)


def test_a_paraphrase_that_leaves_out_what_is_drawn_is_refused():
    with pytest.raises(ValueError, match=r"leaves out \['spot'\]"):
        wording(("It is {spot}.", "It is there."), {"spot": Choice(["here"])})


def test_the_same_paraphrase_twice_is_refused():
    with pytest.raises(ValueError, match="no sentence twice"):
        wording(("It is so.", "It is so."), {})


def test_a_world_needs_to_know_its_pairs():
    with pytest.raises(ValueError, match="pairs='all' must be one of seen, held-out, any"):
        World("all")


def test_a_copy_of_a_world_goes_its_own_way():
    world = World()
    world.price = 3
    twin = world.copy()
    twin.price = 4
    assert (world.price, twin.price) == (3, 4)


def test_choices_within_a_template_share_its_odds():
    told = wording(("[Soon|Then] it rained[ hard|].", "It snowed."), {})
    texts = {one.template: math.exp(one.log_p) for one in told.paraphrases()}
    assert texts == pytest.approx(
        {
            "Soon it rained hard.": 1 / 8,
            "Soon it rained.": 1 / 8,
            "Then it rained hard.": 1 / 8,
            "Then it rained.": 1 / 8,
            "It snowed.": 1 / 2,
        }
    )
    world = World()
    for one in told.paraphrases():
        teller = Teller(lambda u=one.chance: u, world.copy())
        teller("[Soon|Then] it rained[ hard|].", "It snowed.")
        assert teller.sentences == [one.template]
        assert teller.log_prob == one.log_p
    teller = Teller(iter((i + 0.5) / 800 for i in range(800)).__next__, world)
    for _ in range(800):
        teller("[Soon|Then] it rained[ hard|].", "It snowed.")
    drawn = Counter(text.strip() for text in teller.sentences)
    assert drawn["It snowed."] == 400
    assert set(drawn.values()) == {400, 100}
