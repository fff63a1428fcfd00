"""Tasks with exact answers: labels, preferences, rewards, and how far the splits overlap.

Every text of the classification tasks comes with its label and, from the program, with the exact
probability of each label given that text: no classifier is right more often than the one that says
the likeliest. The chapter on classification uses them, and the appendix "The world".
"""

from __future__ import annotations

import hashlib
import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from random import Random
from typing import Any, NamedTuple

from llm_core.stories.corpus import split_of, stories
from llm_core.stories.episodes import held_out_nouns, held_out_plots
from llm_core.stories.facts import Facts
from llm_core.stories.lexicon import NUMBERS
from llm_core.stories.reader import PrefixReader, explore
from llm_core.stories.readings import (
    Story,
    branch,
    log_sum,
    outcomes,
    parse,
    root,
)
from llm_core.stories.world import Event, events_of

WINDOW = 8  # words, where overlap is counted


def pairs_of(split: str) -> str:
    """Which program tells the stories of a split: ``held-out`` or ``seen``."""
    return "held-out" if split == "held-out" else "seen"


# --- classification -----------------------------------------------------------------------------


class Example(NamedTuple):
    """A story, or the beginning of one, and its label."""

    text: str
    label: str


class Task(NamedTuple):
    """A classification task: what is asked, its labels, an example from a story if it has one, and
    the probability of each label for a text told by one of the programs ``pairs``."""

    about: str
    labels: tuple[str, str]
    example: Callable[[Story], Example | None]
    posterior: Callable[[str, str], dict[str, float]]


def _settled(text: str, pairs: str, label: Callable[[Facts], str | None]) -> dict[str, float]:
    """The probability of each label, summed over all ways to read a text; none for no such way."""
    logs: dict[str, list[float]] = {}
    for one in explore(PrefixReader, text, [root(pairs)], []):
        if one.done or (one.following is None and one.reader.position == len(text)):
            found = label(Facts(events_of(one.reader.world.log)))
            if found is not None:
                logs.setdefault(found, []).append(one.reader.log_p)
    total = log_sum(log_p for values in logs.values() for log_p in values)
    return {found: math.exp(log_sum(values) - total) for found, values in logs.items()}


def _ending_example(story: Story) -> Example:
    return Example(story.visible, story.facts.ending)


def _ending_posterior(text: str, pairs: str) -> dict[str, float]:
    def label(events: tuple[Event, ...]) -> str | None:
        return next((event.what[0] for event in events if event.kind == "ending"), None)

    return outcomes(text, label, pairs)


def _only_verdict(facts: Facts) -> Event | None:
    """Whether a promise was kept, if the story tells of one alone that is put to the test."""
    verdicts = facts.of("kept", "broke")
    return verdicts[0] if len(verdicts) == len(facts.settled) == 1 else None


def _promise_example(story: Story) -> Example | None:
    verdict = _only_verdict(story.facts)
    return None if verdict is None else Example(story.text[: verdict.position], verdict.kind)


def _promise_posterior(text: str, pairs: str) -> dict[str, float]:
    def label(facts: Facts) -> str | None:
        verdict = _only_verdict(facts)
        return None if verdict is None or verdict.position != len(text) else verdict.kind

    return _settled(text, pairs, label)


OWNED = re.compile(r"\nDoes (\S+) have the (.+)\?$")


def _owner_example(story: Story) -> Example | None:
    facts = story.facts
    chooser = Random(hashlib.blake2b(story.text.encode("utf-8"), digest_size=8).digest())
    moved = [(thing, who) for thing, who in facts.holders.items() if who and facts.moves(thing) > 1]
    if not moved:
        return None
    thing, who = chooser.choice(moved)
    label = chooser.choice(("yes", "no"))
    if label == "no":
        who = chooser.choice([one for one in facts.people if one != who])
    return Example(f"{story.text}\nDoes {who} have the {thing.full}?", label)


def _owner_posterior(text: str, pairs: str) -> dict[str, float]:
    asked = OWNED.search(text)
    if asked is None:
        return {}

    def label(facts: Facts) -> str:
        holders = {thing.full: who for thing, who in facts.holders.items()}
        return "yes" if holders.get(asked[2]) == asked[1] else "no"

    return _settled(text[: asked.start()], pairs, label)


TASKS: dict[str, Task] = {
    "ending": Task(
        "Does the last episode end well? The text stops where that is still open.",
        ("happy", "sad"),
        _ending_example,
        _ending_posterior,
    ),
    "promise": Task(
        "Was the promise kept? The text stops as soon as that can be told.",
        ("kept", "broke"),
        _promise_example,
        _promise_posterior,
    ),
    "owner": Task(
        "Does somebody have, at the end, a thing that may have changed hands? Both are named in "
        "a last line.",
        ("yes", "no"),
        _owner_example,
        _owner_posterior,
    ),
}


def _task(name: str) -> Task:
    if name not in TASKS:
        raise ValueError(f"task={name!r} must be one of {', '.join(TASKS)}")
    return TASKS[name]


def examples(task: str, n: int, seed: int = 0, split: str = "train") -> list[Example]:
    """The first ``n`` examples of a task, from as many stories of a split as it takes.

    The same seed gives the same, and more of them begin with the same. Raises ValueError for an
    unknown task or split.
    """
    example = _task(task).example
    found = (example(story) for story in stories(None, seed, split))
    return list(islice((one for one in found if one is not None), n))


def bayes(task: str, text: str, split: str = "train") -> dict[str, float]:
    """The exact probability of each label of a task, given the text of an example.

    Raises ValueError for a text that is no example of the task.
    """
    found = _task(task).posterior(text, pairs_of(split))
    if not found:
        raise ValueError(f"{text[-40:]!r} is not where task {task!r} asks; see examples()")
    return {label: found.get(label, 0.0) for label in _task(task).labels}


class Score(NamedTuple):
    """How often a rule is right, with its standard error."""

    accuracy: float
    standard_error: float


def bayes_accuracy(task: str, n: int, seed: int = 0, split: str = "train") -> Score:
    """How often the best possible classifier is right: the mean of the largest posterior."""
    best = [max(bayes(task, one.text, split).values()) for one in examples(task, n, seed, split)]
    return Score(statistics.fmean(best), statistics.stdev(best) / math.sqrt(n))


def _share(right: Iterable[bool]) -> Score:
    values = [float(one) for one in right]
    p = statistics.fmean(values)
    return Score(p, math.sqrt(p * (1 - p) / len(values)))


def majority(task: str, n: int, seed: int = 0, split: str = "train") -> tuple[str, Score]:
    """The commoner label, and how often the rule is right that always says it."""
    labels = [one.label for one in examples(task, n, seed, split)]
    (label, _), *_ = Counter(labels).most_common(1)
    return label, _share(one == label for one in labels)


def single_word_rule(given: Sequence[Example]) -> tuple[str, Score]:
    """The best rule of the form "this label if the text has that word, else the other".

    The word and the labels are chosen on the first half of the examples and measured on the second.
    """
    found = [(set(re.findall(r"[\w']+", text.lower())), label) for text, label in given]
    half, rest = found[: len(found) // 2], found[len(found) // 2 :]
    labels = Counter(label for _, label in half)
    with_word: dict[str, Counter[str]] = {}
    for words, label in half:
        for word in words:
            with_word.setdefault(word, Counter())[label] += 1

    def right(word: str) -> tuple[int, str]:
        here = with_word[word]
        return max(here.values()) + max((labels - here).values(), default=0), word

    word = max(with_word, key=right)
    there, elsewhere = with_word[word], labels - with_word[word]
    says = {True: max(labels, key=there.__getitem__), False: max(labels, key=elsewhere.__getitem__)}
    return word, _share(says[word in words] == label for words, label in rest)


def best_single_word(task: str, n: int, seed: int = 0, split: str = "train") -> tuple[str, Score]:
    """The word whose presence says most about the label, and how often its rule is right.

    A task that no single word gives away has it close to ``majority``.
    """
    return single_word_rule(examples(task, n, seed, split))


# --- preferences --------------------------------------------------------------------------------


class Pair(NamedTuple):
    """Two ways to go on from a prompt: ``chosen`` ends happily, ``rejected`` sadly."""

    prompt: str
    chosen: str
    rejected: str


def _pair(story: Story, split: str) -> Pair | None:
    """The story beside a twin with the other ending; None if there is no such twin."""
    ending, plots = story.facts.ending, story.facts.plots

    def other_ending(twin: Story) -> bool:
        allowed = split != "train" or split_of(twin.text) == "train"
        return allowed and twin.facts.plots == plots and twin.facts.ending != ending

    try:
        twin = branch(story, other_ending)
    except ValueError:
        return None
    both = [story.text[twin.shared :], twin.text[twin.shared :]]
    chosen, rejected = both if ending == "happy" else both[::-1]
    return Pair(story.text[: twin.shared], chosen, rejected)


def preference_pairs(n: int, seed: int = 0, split: str = "train") -> list[Pair]:
    """``n`` pairs, the prompt of each cut at the decision between a happy and a sad last episode.

    Prompt and continuation together are a story. The pairs of ``train`` hold no story of
    ``validation`` or ``test``. A story without a twin is passed over.
    """
    found = (_pair(story, split) for story in stories(None, seed, split))
    return list(islice((one for one in found if one is not None), n))


# --- rewards ------------------------------------------------------------------------------------


def consistency(text: str) -> float:
    """1 for a story, else the share of the text before the first character that no story has.

    The end counts as a character, so what breaks off is close to 1 and never 1.
    """
    n = parse(text, pairs="any").first_impossible
    return 1.0 if n is None else n / (len(text) + 1)


def reward(text: str, prompt: str = "", ending: str | None = None) -> float:
    """1 if a text obeys, else 0: it begins with the prompt, is a story, and ends as wished.

    ``ending`` is ``happy``, ``sad``, or None for either; ValueError for anything else.
    """
    if ending not in (None, "happy", "sad"):
        raise ValueError(f"ending={ending!r} must be 'happy', 'sad' or None")
    if not text.startswith(prompt):
        return 0.0
    facts = parse(text, pairs="any").facts
    return float(facts is not None and ending in (None, facts.ending))


def exact(answer: str, given: str) -> bool:
    """Whether an answer is right, whatever its case, blanks, last period, article or digits."""
    return _normal(answer) == _normal(given)


def _normal(text: str) -> str:
    words = text.lower().strip(" \t\n.!?\"'").split()
    if len(words) > 1 and words[0] in ("a", "an", "the"):
        del words[0]
    return " ".join(_in_words(word) for word in words)


def _in_words(word: str) -> str:
    small = word.isdecimal() and len(word) < 9  # Python does not read numbers of any length
    return NUMBERS[int(word)] if small and int(word) < len(NUMBERS) else word


# --- how far the splits overlap -----------------------------------------------------------------


class Overlap(NamedTuple):
    """Of ``n`` different items of a split, how many occur in ``train``."""

    split: str
    item: str
    n: int
    in_train: int


def _items(story: Story) -> Iterator[tuple[str, Any]]:
    """What may occur in two stories: a text, a piece of it, a pair of its facts."""
    words = story.text.split()
    yield "text", story.text
    yield "first sentence", re.split(r"(?<=[.!?]) ", story.text)[0]
    for i in range(len(words) - WINDOW + 1):
        yield f"{WINDOW} words", " ".join(words[i : i + WINDOW])
    for who, thing in dict.fromkeys(event.what for event in story.facts.of("own")):
        yield "name and thing", (str(who), str(thing))
        if thing in held_out_nouns(who):
            yield "pair kept out", (str(who), str(thing))
    for plot, place in (event.what for event in story.facts.of("plot")):
        yield "place and plot", (str(place), plot)
        if plot in held_out_plots(place):
            yield "pair kept out", (str(place), plot)


def overlap(splits: Iterable[str], n: int, seed: int = 0) -> list[Overlap]:
    """How many texts, openings, windows of eight words and pairs of each split occur in ``train``.

    ``n`` stories of each split are told. The pairs are who owns what, at any time, and what happens
    where; ``pair kept out`` counts those of them that training must never show.
    """
    train: dict[str, set[Any]] = {}
    for story in stories(n, seed, "train"):
        for item, what in _items(story):
            train.setdefault(item, set()).add(what)
    rows = []
    for split in splits:
        here: dict[str, set[Any]] = {item: set() for item in (*train, "pair kept out")}
        for story in stories(n, seed, split):
            for item, what in _items(story):
                here.setdefault(item, set()).add(what)
        for item, found in here.items():
            rows.append(Overlap(split, item, len(found), len(found & train.get(item, set()))))
    return rows
