"""Questions about a story with exact answers, read off the facts that its program noted.

Each kind of question is one function that yields what can be asked: the words for its templates
and the answer. It yields only what a careful reader of the text can tell, and what has one answer.
Questions are in the past tense whatever the story's, and the same whenever they are asked. The
chapter on instruction tuning uses them; the appendix "The world" prints ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from random import Random
from typing import Any, NamedTuple

from llm_core.stories.choices import Word
from llm_core.stories.lexicon import NUMBERS
from llm_core.stories.readings import Story
from llm_core.stories.told import Told
from llm_core.stories.world import Person

MOST = 15  # questions a story
# Of these deeds it is hard to say who did them and who did not.
SHARED = ("traded", "tried", "mended", "turned", "parted", "took the lead", "did not")
THOUGHT = "It was {}, and you say {}."  # on the way to yes or no
AT_FIRST, AT_THE_END = Word("at first"), Word("at the end")


class Question(NamedTuple):
    """A question about a story, of one of ``KINDS``, and its answer, perhaps with a thought."""

    kind: str
    text: str
    answer: str
    thought: str = ""

    @property
    def said(self) -> str:
        """The answer as it is said in full: behind the thought, if any, on a line of its own."""
        return f"{self.thought}\n{self.answer}" if self.thought else self.answer


Asked = tuple[dict[str, Any], str]  # the words for the templates, perhaps a thought; the answer
Finder = Callable[[Told], Iterable[Asked]]


# by kind: what it asks for, its paraphrases, what finds its answers
FINDERS: dict[str, tuple[str, tuple[str, ...], Finder]] = {}


def kind(name: str, about: str, *templates: str) -> Callable[[Finder], Finder]:
    """Register what finds the answers of a kind."""

    def register(find: Finder) -> Finder:
        FINDERS[name] = about, templates, find
        return find

    return register


def listed(names: Sequence[str]) -> str:
    """``Mia``, ``Mia and Tom``, ``Mia, Tom and Ada``."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


# --- who ----------------------------------------------------------------------------------------


@kind(
    "owner",
    "who had a thing at the end, or before it changed hands",
    "Who had the {thing.full} {when}?",
    "{when.cap}, who had the {thing.full}?",
    "In whose hands was the {thing.full} {when}?",
)
def _owner(told: Told) -> Iterator[Asked]:
    for thing, who in told.facts.holders.items():
        yield {"thing": thing, "when": AT_THE_END}, who or "nobody"
        if who != told.facts.first_owners[thing]:
            yield {"thing": thing, "when": AT_FIRST}, told.facts.first_owners[thing]


@kind(
    "giver",
    "from whom somebody has a thing",
    "From whom did {who} have the {thing}?",
    "{who} had the {thing} from somebody. From whom?",
)
def _giver(told: Told) -> Iterator[Asked]:
    given = told.facts.of("give")
    for event in told.facts.once("gift", 1):
        who, thing, giver = event.what
        if not any(one.what[1:] == (who, thing) for one in given):
            yield {"who": who, "thing": thing}, f"{who.his} {giver}"


@kind(
    "friend",
    "whom the hero met at a place",
    "Which friend did {hero} meet {place.at}?",
    "{place.At}, which friend did {hero} meet?",
    "Which friend was with {hero} {place.at}?",
)
def _friend(told: Told) -> Iterator[Asked]:
    for place, friend in told.facts.alone_with.items():
        yield {"hero": told.facts.hero, "place": place}, friend


@kind(
    "list",
    "everybody in the story, or all places where its parts begin, in order",
    "Name {what}, in order.",
    "List {what}, from first to last.",
)
def _list(told: Told) -> Iterator[Asked]:
    facts = told.facts
    if len(facts.people) > 1:
        yield {"what": "the people and animals of the story"}, listed(facts.people)
    if len(facts.places) > 1:
        the_places = [place.the for place in facts.places]
        yield {"what": "the places where the parts of the story begin"}, listed(the_places)


@kind(
    "liar",
    "who told a lie, if anybody did",
    "Who told a lie?",
    "Name the liar, or say nobody.",
)
def _liar(told: Told) -> Iterator[Asked]:
    facts = told.facts
    if len(facts.liars) == 1:
        yield {}, facts.liars[0]
    elif facts.of("honest") and not facts.of("lie", "broke") and not facts.hushed:
        yield {}, "nobody"


# --- where, what, how many ----------------------------------------------------------------------


@kind(
    "part",
    "where the first part of a story begins, or another one",
    "At which place does the {which} part of the story begin?",
    "The story has several parts. Where does the {which} one begin?",
)
def _part(told: Told) -> Iterator[Asked]:
    places = told.facts.places
    if len(places) > 1:
        for which, place in zip(("first", "second", "third"), places, strict=False):
            yield {"which": which}, place.the
        yield {"which": "last"}, places[-1].the


@kind(
    "place",
    "where the hero met somebody for the first time",
    "At which place did {hero} first meet {friend}?",
    "Where was it that {hero} met {friend} for the first time?",
)
def _place(told: Told) -> Iterator[Asked]:
    for friend, place in told.facts.first_met.items():
        yield {"hero": told.facts.hero, "friend": friend}, place.the


@kind(
    "spot",
    "where a thing lay for a time",
    "Where was the {thing.full} for a time?",
    "In what spot did the {thing} lie for a time?",
    "The story names a spot where the {thing} lay. Which one?",
)
def _spot(told: Told) -> Iterator[Asked]:
    for event in told.facts.once("at", 0):
        thing, spot = event.what
        if not isinstance(thing, Person):
            yield {"thing": thing}, spot.at


@kind(
    "color",
    "what color a thing has",
    "What color was the {thing}?",
    "Which color did the {thing} have?",
)
def _color(told: Told) -> Iterator[Asked]:
    for thing in told.facts.owners:
        yield {"thing": thing}, thing.color


@kind(
    "count",
    "how many of something somebody had, at first or at the end",
    "How many {items} did {who} have {when}?",
    "{items.cap}: how many of them did {who} have {when}?",
)
def _count(told: Told) -> Iterator[Asked]:
    first, last = told.facts.first_counts, told.facts.counts
    for when, counts in (AT_FIRST, first), (AT_THE_END, last):
        for (who, items), n in counts.items():
            yield {"who": who, "items": items, "when": when}, NUMBERS[n]


@kind(
    "trade",
    "what somebody got in a trade",
    "What did {who} get for the {thing}?",
    "{who} gave the {thing} away. What did {who.he} get for it?",
)
def _trade(told: Told) -> Iterator[Asked]:
    for a, given, b, taken in (event.what for event in told.facts.of("trade")):
        yield {"who": a, "thing": given}, f"the {taken.full}"
        yield {"who": b, "thing": taken}, f"the {given.full}"


@kind(
    "animal",
    "what kind of creature somebody was",
    "What kind of creature was {who}?",
    "Was {who} a child or an animal, and which one?",
)
def _animal(told: Told) -> Iterator[Asked]:
    for who in told.facts.people:
        yield {"who": who}, who.kind.a


@kind(
    "trait",
    "how the story describes somebody",
    "Which word tells what {who} was like?",
    "How does the story describe {who}, in one word?",
)
def _trait(told: Told) -> Iterator[Asked]:
    for who in told.facts.people:
        yield {"who": who}, who.trait


# --- feelings, knowledge, promises --------------------------------------------------------------


@kind(
    "feeling",
    "how somebody felt, at the end or for a reason",
    "How did {who} feel {when}?",
    "What did {who} feel {when}?",
)
def _feeling(told: Told) -> Iterator[Asked]:
    last = {event.what[0]: event.what[1] for event in told.facts.last_part if event.kind == "feel"}
    for who, feeling in last.items():
        yield {"who": who, "when": AT_THE_END}, feeling
    for who, feeling, cause in (event.what for event in told.facts.once("feel", 0, 2)):
        if cause in told.text:  # said in these words, not in others
            yield {"who": who, "when": f"now that {cause}"}, feeling


@kind(
    "reason",
    "why somebody felt something",
    "Why did {who} feel {feeling}?",
    "Why was {who} {feeling}?",
)
def _reason(told: Told) -> Iterator[Asked]:
    for who, feeling, cause in (event.what for event in told.facts.once("feel", 0, 1)):
        if cause in told.text:
            yield {"who": who, "feeling": feeling}, f"because {cause}"


@kind(
    "know",
    "whether somebody knew something at the end",
    "At the end, did {who} know {topic}?",
    "Yes or no: in the end, did {who} know {topic}?",
)
def _know(told: Told) -> Iterator[Asked]:
    found = [
        ({"who": who, "topic": topic}, "yes" if known else "no")
        for (who, topic), known in told.facts.knowledge.items()
        if who not in topic
    ]
    # only where one knows what another does not, so that the answer cannot be guessed
    if len({answer for _, answer in found}) == 2:
        wanted = told.random("known or not").choice(("yes", "no"))
        yield from (one for one in found if one[1] == wanted)


@kind(
    "promise",
    "whether a promise was kept",
    "Did {who} keep the promise to {whom}?",
    "{who} promised {whom} something. Was the promise kept?",
)
def _promise(told: Told) -> Iterator[Asked]:
    for (who, whom), event in told.facts.settled.items():
        yield {"who": who, "whom": whom}, "yes" if event.kind == "kept" else "no"


@kind(
    "promised",
    "what somebody promised",
    "What did {who} promise {whom}?",
    "{who} promised {whom} something. What was it?",
)
def _promised(told: Told) -> Iterator[Asked]:
    for who, whom, what in (event.what for event in told.facts.once("promise", 0, 1)):
        yield {"who": who, "whom": whom}, what


# --- what happened ------------------------------------------------------------------------------


@kind(
    "order",
    "which of two things happened first",
    "Which came first: {a}, or {b}?",
    "What happened first: {a}, or {b}?",
)
def _order(told: Told) -> Iterator[Asked]:
    deeds = list(told.facts.once("did", 0, 1))
    chooser = told.random("order of the two")
    for one, other in combinations(deeds, 2):
        if one.position < other.position:
            first, second = (" ".join(event.what) for event in (one, other))
            a, b = (first, second) if chooser.random() < 0.5 else (second, first)
            yield {"a": a, "b": b}, first


@kind(
    "yes or no",
    "whether somebody did something",
    "Is it true that {claim}?",
    "{claim}. Is that so?",
    "Yes or no: {claim}.",
)
def _yes_or_no(told: Told) -> Iterator[Asked]:
    chooser = told.random("true or false")
    for deed in told.facts.of("did"):
        wrong = told.facts.undone(deed)
        if wrong and not deed.what[1].startswith(SHARED):
            claim, answer = chooser.choice(((deed.what, "yes"), (chooser.choice(wrong), "no")))
            thought = THOUGHT.format(deed.what[0], claim[0])
            yield {"claim": " ".join(claim), "thought": thought}, answer


@kind(
    "retell",
    "a sentence of the story, in the other tense",
    "Put this into the {tense}: {sentence}",
    "Say this in the {tense}: {sentence}",
)
def _retell(told: Told) -> Iterator[Asked]:
    for past, present in told.both_tenses:
        yield {"tense": "present", "sentence": past}, present
        yield {"tense": "past", "sentence": present}, past


KINDS: dict[str, str] = {name: about for name, (about, _, _) in FINDERS.items()}


def put(name: str, asked: Asked, chooser: Random) -> Question:
    """A question of a kind in one of its paraphrases."""
    (words, answer), (_, templates, _) = asked, FINDERS[name]
    text = chooser.choice(templates).format(**words)
    return Question(name, text, str(answer), words.get("thought", ""))


def questions(story: Story) -> list[Question]:
    """At most one question of each kind that the story can answer, ``MOST`` in all.

    Always the same for the same story, whichever its tense; in the past tense. For a text without
    its story, ask ``retell(text, "past")``.
    """
    told = Told(story)
    found = []
    for name, (_, _, find) in FINDERS.items():
        candidates = list(find(told))
        if candidates:
            chooser = told.random(name)
            found.append(put(name, chooser.choice(candidates), chooser))
    kept = set(told.random("kept").sample(range(len(found)), min(MOST, len(found))))
    return [question for i, question in enumerate(found) if i in kept]
