"""Questions about stories: their answers against facts made by hand and against the text itself."""

import re
from collections import Counter, defaultdict
from random import Random

import pytest

from llm_core import stories
from llm_core.stories import lexicon
from llm_core.stories.choices import Word
from llm_core.stories.facts import Facts
from llm_core.stories.questions import FINDERS, KINDS, MOST, questions
from llm_core.stories.world import Event, person, thing

N = 2_000
NAME = re.compile(rf"\b({'|'.join(lexicon.NAMES.items)})\b")


def word(choice, text: str):
    """A word of the lexicon: no others, as people and things are shared with all stories."""
    return next(item for item in choice.items if item == text)


def somebody(name: str, kind: str):
    return person(word(lexicon.NAMES, name), word(lexicon.KINDS, kind), lexicon.TRAITS.items[0])


MIA, TOM, YARA = somebody("Mia", "fox"), somebody("Tom", "owl"), somebody("Yara", "child")
KITE = thing(word(lexicon.COLORS, "red"), word(lexicon.NOUNS, "kite"))
DRUM = thing(word(lexicon.COLORS, "blue"), word(lexicon.NOUNS, "drum"))
MILL, LAKE = word(lexicon.PLACES, "mill"), word(lexicon.PLACES, "lake")
SPOT = Word("under a step", at="under a step")


class ByHand:
    """What the kinds look at, made of events without a story, each a character after the last."""

    def __init__(self, *events):
        told = [Event(kind, tuple(what), i) for i, (kind, *what) in enumerate(events)]
        self.facts = Facts(tuple(told))
        self.text = "Tom felt glad because it rained."

    def random(self, kind):
        return Random(0)


def asked(kind: str, *events) -> list[str]:
    """All that a kind asks about events: its first paraphrase, then the answer."""
    _, templates, find = FINDERS[kind]
    return [f"{templates[0].format(**words)} {answer}" for words, answer in find(ByHand(*events))]


# --- answers by hand ----------------------------------------------------------------------------


def test_the_owner_at_the_end_is_the_last_one_and_the_first_is_asked_for_after_a_change():
    traded = [("own", MIA, KITE), ("own", TOM, DRUM), ("own", MIA, DRUM), ("own", TOM, KITE)]
    assert asked("owner", *traded) == [
        "Who had the red kite at the end? Tom",
        "Who had the red kite at first? Mia",
        "Who had the blue drum at the end? Mia",
        "Who had the blue drum at first? Tom",
    ]
    assert asked("owner", ("own", MIA, KITE)) == ["Who had the red kite at the end? Mia"]


def test_whoever_borrowed_a_thing_has_it_until_it_comes_back():
    lent = [("own", MIA, KITE), ("give", MIA, TOM, KITE)]
    assert "Who had the red kite at the end? Tom" in asked("owner", *lent)
    back = ("give", TOM, MIA, KITE)
    assert asked("owner", *lent, back) == ["Who had the red kite at the end? Mia"]


def test_nobody_has_what_is_lost_unless_it_is_found():
    lost = [("own", MIA, KITE), ("lose", MIA, KITE)]
    assert "Who had the red kite at the end? nobody" in asked("owner", *lost)
    found = ("find", MIA, KITE)
    assert asked("owner", *lost, found) == ["Who had the red kite at the end? Mia"]


def test_counts_are_asked_for_at_first_and_at_the_end():
    nuts = Word("nuts")
    events = [("count", MIA, nuts, 3), ("count", TOM, nuts, 1), ("count", MIA, nuts, 7)]
    assert asked("count", *events) == [
        "How many nuts did Mia have at first? three",
        "How many nuts did Tom have at first? one",
        "How many nuts did Mia have at the end? seven",
        "How many nuts did Tom have at the end? one",
    ]


def test_a_promise_is_asked_about_when_it_was_put_to_the_test_once():
    promise = ("promise", MIA, TOM, "to bring a rope")
    assert asked("promise", promise) == []
    assert asked("promise", promise, ("kept", MIA, TOM)) == ["Did Mia keep the promise to Tom? yes"]
    assert asked("promise", promise, ("broke", MIA, TOM)) == ["Did Mia keep the promise to Tom? no"]
    assert asked("promise", promise, promise, ("kept", MIA, TOM)) == []
    assert asked("promised", promise, ("promise", TOM, MIA, "to wait")) == [
        "What did Mia promise Tom? to bring a rope",
        "What did Tom promise Mia? to wait",
    ]


def test_a_reason_is_asked_for_if_the_feeling_has_one_cause_and_a_feeling_by_its_cause():
    events = [
        ("feel", MIA, Word("sad"), "it rained"),
        ("feel", TOM, Word("glad"), "it rained"),
        ("feel", MIA, Word("sad"), "the kite was lost"),
        ("feel", MIA, Word("glad"), "it was over"),
    ]
    assert asked("reason", *events) == ["Why did Tom feel glad? because it rained"]
    assert asked("feeling", *events) == [
        "How did Mia feel at the end? glad",
        "How did Tom feel at the end? glad",
        "How did Mia feel now that it rained? sad",
        "How did Tom feel now that it rained? glad",
    ]
    later = asked("feeling", *events, ("plot", "lost", MILL), events[1])
    assert [one for one in later if "at the end" in one] == ["How did Tom feel at the end? glad"]


def episode(place, *events):
    """An episode at a place, the hero being Mia."""
    return [("at", MIA, place), ("plot", "lost", place), *events, ("ending", "sad", "lost")]


def test_whom_the_hero_met_is_asked_if_nobody_else_was_there_and_the_place_was_seen_once():
    hero = ("person", MIA, MIA.kind, MIA.trait)
    tom, yara = (("person", one, one.kind, one.trait) for one in (TOM, YARA))
    met = ("friend", MIA, TOM)
    at_mill = episode(MILL, tom, met)
    assert asked("friend", hero, *at_mill) == ["Which friend did Mia meet near the mill? Tom"]
    assert asked("friend", hero, *episode(MILL, tom, met, yara)) == []
    assert asked("friend", hero, *at_mill, *episode(MILL, met)) == []
    assert asked("friend", hero, *episode(MILL, ("at", MIA, SPOT), tom, met)) == []
    moved = episode(MILL, ("at", MIA, LAKE), tom, met)
    assert asked("friend", hero, *moved) == ["Which friend did Mia meet by the lake? Tom"]


def test_the_first_meeting_is_the_one_where_the_friend_is_introduced():
    hero = Event("person", (MIA, MIA.kind, MIA.trait), 0)
    tom = Event("person", (TOM, TOM.kind, TOM.trait), 2)
    events = [
        hero,
        Event("at", (MIA, MILL), 1),
        tom,
        Event("friend", (MIA, TOM), 2),
        Event("at", (MIA, LAKE), 3),
        Event("friend", (MIA, TOM), 4),
    ]
    assert Facts(tuple(events)).first_met == {TOM: MILL}
    assert Facts((hero, events[1], tom, *events[4:])).first_met == {}  # met as a third one before


def test_the_liar_is_named_or_nobody_if_somebody_told_the_truth():
    honest, lie = ("honest", TOM, MIA), ("lie", YARA, MIA)
    assert asked("liar", honest) == ["Who told a lie? nobody"]
    assert asked("liar", honest, lie) == ["Who told a lie? Yara"]
    assert asked("liar", lie, ("lie", TOM, MIA)) == []
    assert asked("liar", honest, ("know", TOM, "what was wrong with the kite")) == []
    assert asked("liar", ("own", MIA, KITE)) == []


def test_what_somebody_knows_at_the_end_is_what_was_so_last():
    secret, where = "who broke the vase", "where the kite was"
    events = [("know", TOM, secret), ("unaware", YARA, secret), ("unaware", MIA, secret)]
    known = ByHand(*events, ("know", MIA, secret)).facts.knowledge
    assert known == {(TOM, secret): True, (YARA, secret): False, (MIA, secret): True}
    assert asked("know", ("know", TOM, secret)) == []  # all would be yes
    assert {one.split("? ")[1] for one in asked("know", *events)} <= {"yes", "no"}
    back = [("unaware", MIA, where), ("give", TOM, MIA, KITE)]
    assert ByHand(*back).facts.knowledge == {}  # whether she knew before is another matter


def test_a_false_claim_exchanges_people_and_is_nothing_that_happened():
    people = [("person", one, one.kind, one.trait) for one in (MIA, TOM, YARA)]
    gave, lost = ("did", MIA, "gave Tom two nuts"), ("did", MIA, "lost the kite")
    told = ByHand(*people, gave, lost, ("did", TOM, "lost the kite")).facts
    given, hers, _ = told.of("did")
    assert told.undone(given) == [(TOM, "gave Mia two nuts")]
    assert told.undone(hers) == [(YARA, "lost the kite")]


def test_the_order_is_that_of_the_telling_and_deeds_done_twice_are_left_out():
    first, second = ("did", MIA, "lost the kite"), ("did", TOM, "won")
    (one,) = asked("order", first, second)
    assert one.endswith("? Mia lost the kite")
    assert asked("order", first, second, first) == []


def test_a_trade_is_asked_about_from_both_sides():
    assert asked("trade", ("trade", MIA, KITE, TOM, DRUM)) == [
        "What did Mia get for the kite? the blue drum",
        "What did Tom get for the drum? the red kite",
    ]


# --- answers in the text ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told():
    return [(story, questions(story)) for story in stories.stories(N, seed=21)]


@pytest.fixture(scope="module")
def by_kind(told):
    found = defaultdict(list)
    for story, about in told:
        for question in about:
            found[question.kind].append((story, question))
    return found


def test_every_kind_occurs_and_says_what_it_is(by_kind):
    assert len(KINDS) >= 14
    assert set(by_kind) == set(KINDS)
    assert min(map(len, by_kind.values())) >= 20
    assert all(about and 2 <= len(templates) <= 4 for about, templates, _ in FINDERS.values())


def test_a_story_has_several_questions_of_different_kinds(told):
    for _, about in told:
        assert 5 <= len(about) <= MOST
        assert len({question.kind for question in about}) == len(about)


def test_questions_are_whole_sentences_and_answers_are_short(told):
    for _, about in told:
        for question in about:
            assert re.fullmatch(r"[A-Z\"\'].*[.?!\"\']", question.text), question
            assert "{" not in question.text + question.said
            assert question.answer and question.answer == question.answer.strip()
            if question.kind not in ("retell", "order", "list", "reason", "promised"):
                assert len(question.answer.split()) <= 6, question


def test_yes_and_no_are_balanced(by_kind):
    for kind in ("yes or no", "know", "promise"):
        answers = Counter(question.answer for _, question in by_kind[kind])
        assert set(answers) == {"yes", "no"}
        assert 0.35 < answers["yes"] / answers.total() < 0.65, (kind, answers)


def test_the_thought_before_yes_or_no_names_who_did_it_and_whom_the_claim_names(told, by_kind):
    for story, question in by_kind["yes or no"]:
        thought, answer = question.said.split("\n")
        assert (thought, answer) == (question.thought, question.answer)
        who, named = re.fullmatch(r"It was (.+), and you say (.+)\.", thought).groups()
        assert (answer == "yes") == (who == named)
        assert f" {named} " in f" {question.text}" and who in story.text
    for _, about in told[:50]:
        for one in about:
            if one.kind != "yes or no":
                assert one.thought == "" and one.said == one.answer


def test_the_questions_of_a_story_are_always_the_same_and_in_every_tense(told):
    for story, about in told[:100]:
        assert questions(story) == about
        assert questions(stories.retell(story, "present")) == about
        assert questions(stories.retell(story.text, "past")) == about


def test_paraphrases_and_answers_vary(by_kind):
    for kind, asked_of in by_kind.items():
        words = {NAME.sub("", question.text).split()[0] for _, question in asked_of}
        texts = {question.text for _, question in asked_of}
        assert len(texts) > 1, kind
        assert len(words) > 1 or len(FINDERS[kind][1]) > 1


IN_THE_TEXT = ("color", "trait", "feeling", "spot", "trade", "reason", "giver", "part", "place")


@pytest.mark.parametrize("kind", IN_THE_TEXT)
def test_an_answer_stands_in_the_text(by_kind, kind):
    for story, question in by_kind[kind]:
        text = story.text.lower()
        words = re.sub(r"^(because|the|his|her) ", "", question.answer.lower())
        assert words in text, question


def test_everybody_is_listed_in_the_order_of_their_names_in_the_text(by_kind):
    for story, question in by_kind["list"]:
        if "people" in question.text:
            names = re.split(r", | and ", question.answer)
            assert names == list(dict.fromkeys(NAME.findall(story.text))), story.text


def test_the_parts_of_a_story_are_its_paragraphs(by_kind):
    numbers = {"first": 0, "second": 1, "third": 2, "last": -1}
    for story, question in by_kind["part"]:
        (which,) = (one for one in numbers if f" {one} " in question.text)
        part = story.text.split("\n")[numbers[which]]
        assert question.answer.removeprefix("the ") in part, question


def test_a_color_stands_before_its_noun_somewhere_in_the_text(by_kind):
    for story, question in by_kind["color"]:
        noun = re.search(r"the (.+?)(?: have)?\?| was the (.+)\?", question.text)
        assert f"{question.answer} {noun[1] or noun[2]}" in story.text, question


def test_what_somebody_is_stands_beside_their_name(by_kind):
    for story, question in by_kind["animal"]:
        (name,) = NAME.findall(question.text)
        kind = question.answer.split()[1]
        beside = rf"{name}.{{,60}}\b{kind}\b|\b{kind}\b.{{,60}}{name}"
        assert re.search(beside, story.text), question


def test_a_retold_sentence_stands_in_the_story_in_both_tenses(by_kind):
    for story, question in by_kind["retell"][:300]:
        (said,) = re.findall(r"the (past|present): (.+)$", question.text)
        tense, sentence = said
        other = "present" if tense == "past" else "past"
        assert question.answer in stories.retell(story, tense).text
        assert sentence in stories.retell(story, other).text
        assert sentence != question.answer


def test_who_is_asked_for_is_somebody_of_the_story(by_kind):
    for kind in ("owner", "friend", "liar"):
        for story, question in by_kind[kind]:
            assert question.answer == "nobody" or question.answer in story.facts.people


def test_stories_of_all_splits_have_questions():
    for split in ("validation", "held-out"):
        for story in stories.stories(50, seed=3, split=split):
            assert questions(story)
