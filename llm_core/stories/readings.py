"""The readings of the story program: telling, scoring, parsing, retelling, branching, forecasting.

All of them run the same beats. ``prefix_log_prob`` sums every way in which a story can begin with
a text, so the true distribution of what comes next follows by division; ``outcomes`` sums every
way in which an episode can end whose outcome is still open. All sums are exact: nothing is sampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import chain
from random import Random
from typing import Any, NamedTuple

import llm_core.stories.plots  # noqa: F401  registers the plots
from llm_core.stories.engine import Teller
from llm_core.stories.facts import Facts
from llm_core.stories.reader import (
    Checkpoint,
    Cut,
    ForecastReader,
    OutcomeReader,
    PrefixReader,
    Reader,
    explore,
)
from llm_core.stories.scenes import story as first_beat
from llm_core.stories.wording import TENSES
from llm_core.stories.world import Event, Log, World, events_of

IMPOSSIBLE = -math.inf
END_OF_STORY = "(the end of the story)"
TRIES_A_DECISION = 16


# --- telling ------------------------------------------------------------------------------------


class Story(NamedTuple):
    """One story. ``log_prob`` is in nats; ``trace`` holds the chances it was told with.

    ``shared`` is the number of characters that a twin has in common with its original by design.
    """

    text: str
    log_prob: float
    log: Log
    trace: tuple[float, ...]
    decisions: tuple[tuple[int, int], ...]
    pairs: str = "seen"
    tense: str = "past"
    shared: int = 0

    @property
    def facts(self) -> Facts:
        """What is so in the story, read off the log of events that the program kept."""
        return Facts(events_of(self.log))

    @property
    def visible(self) -> str:
        """The text up to the turn of the last episode, whose outcome is still open there."""
        return self.text[: self.facts.turn]


def tense_number(tense: str) -> int:
    """0 for ``past``, 1 for ``present``; ValueError for anything else."""
    if tense not in TENSES:
        raise ValueError(f"tense={tense!r} must be 'past' or 'present'")
    return TENSES.index(tense)


def tell(random: Callable[[], float], pairs: str = "seen", tense: str = "past") -> Story:
    """A story drawn with numbers from ``random``, each in [0, 1)."""
    teller = Teller(random, World(pairs), tense_number(tense))
    text = teller.tell(first_beat)
    trace, decisions = tuple(teller.trace), tuple(teller.decisions)
    return Story(text, teller.log_prob, teller.world.log, trace, decisions, pairs, tense)


def sample(seed: int | Random, pairs: str = "seen", tense: str = "past") -> Story:
    """One story from a seed or a generator; the same seed gives the same text on every machine.

    Raises ValueError for unknown ``pairs`` or ``tense``.
    """
    generator = seed if isinstance(seed, Random) else Random(seed)
    return tell(generator.random, pairs, tense)


def retell(story: Story | str, tense: str) -> Story:
    """The same story in the ``past`` or the ``present``, choice for choice.

    A text must be in the past; it is parsed first. Raises ValueError if it is no story in that
    tense, saying where it stops being one.
    """
    if isinstance(story, str):
        found = parse(story, pairs="any")
        if found.first_impossible is not None:
            raise ValueError(f"not a story: {found.explain(story)}; give a text that parses")
        return tell(iter(found.trace).__next__, "any", tense)
    return tell(iter(story.trace).__next__, story.pairs, tense)


def branch(story: Story, until: str | Callable[[Story], bool], seed: int = 0) -> Story:
    """A twin that begins like the story and then goes another way, the turn as late as possible.

    ``until`` says what must be so of the twin: a test of it, or the name of a property of
    ``Facts`` that must differ while the plots stay, such as ``"ending"``. The first
    ``twin.shared`` characters are common to both. Raises ValueError if no decision of the story
    leads there.
    """
    wanted = until if callable(until) else _differs(story, until)
    fresh = Random(seed).random
    for n_kept, position in reversed(story.decisions):
        for _ in range(TRIES_A_DECISION):
            chances = chain(story.trace[:n_kept], iter(fresh, None))
            twin = tell(chances.__next__, story.pairs, story.tense)
            if twin.text != story.text and wanted(twin):
                return twin._replace(shared=position)
    raise ValueError(f"no other way to tell this story fulfills until={until!r}: {story.text!r}")


def _differs(story: Story, name: str) -> Callable[[Story], bool]:
    facts = story.facts
    given, plots = getattr(facts, name), facts.plots
    return lambda twin: twin.facts.plots == plots and getattr(twin.facts, name) != given


# --- reading ------------------------------------------------------------------------------------


class Parse(NamedTuple):
    """What a text is to the story program.

    ``log_prob`` is the log of its probability in nats, summed over all derivations, and -inf for
    what is no story; then ``first_impossible`` is the index of the first character with which no
    story goes on (the length of the text where it breaks off) and ``expected`` says how stories go
    on there, likeliest first. ``facts`` and ``trace`` are those of the likeliest derivation.
    """

    log_prob: float
    facts: Facts | None
    derivations: int
    first_impossible: int | None
    expected: tuple[str, ...] = ()
    trace: tuple[float, ...] = ()

    def explain(self, text: str) -> str:
        """One sentence about a text that is no story."""
        if self.first_impossible is None:
            return "it is a story"
        before = text[: self.first_impossible][-24:]
        after = text[self.first_impossible :][:12]
        there = repr(after) if after else "the end"
        possible = ", ".join(map(repr, self.expected))
        return f"after {before!r} no story has {there}; it could go on with {possible}"


def log_sum(logs: Iterable[float]) -> float:
    """The log of the sum of exponentials; -inf for none."""
    values = list(logs)
    if not values:
        return IMPOSSIBLE
    most = max(values)
    return most + math.log(math.fsum(math.exp(one - most) for one in values))


def root(pairs: str) -> Checkpoint:
    """Where every story begins."""
    return Checkpoint(first_beat, World(pairs))


def decoded(text: str | bytes) -> tuple[str, bytes]:
    """The text, and the bytes from the first on that are not UTF-8 (none for a ``str``)."""
    if isinstance(text, str):
        return text, b""
    try:
        return text.decode("utf-8"), b""
    except UnicodeDecodeError as error:
        return text[: error.start].decode("utf-8"), text[error.start :]


def parse(text: str | bytes, pairs: str = "seen", tense: str = "past") -> Parse:
    """The exact probability of a text, its facts, or where it stops being a story and why.

    ``pairs`` chooses the program: ``seen`` tells the training split, ``held-out`` the stories with
    pairs that it never has, ``any`` all. Bytes that are not UTF-8 are no story from there on.
    """
    whole, broken = decoded(text)
    number = tense_number(tense)
    if not broken:
        ends = [
            one.reader
            for one in explore(Reader, whole, [root(pairs)], [], number)
            if one.following is None and one.reader.position == len(whole)
        ]
        if ends:
            best = max(ends, key=lambda one: one.log_p)
            total = log_sum(one.log_p for one in ends)
            facts, trace = Facts(events_of(best.world.log)), tuple(best.chances)
            return Parse(total, facts, len(ends), None, (), trace)
    place = first_impossible(whole, pairs, tense)
    return Parse(IMPOSSIBLE, None, 0, place, expected(whole[:place], pairs, tense))


def first_impossible(text: str, pairs: str = "seen", tense: str = "past") -> int:
    """The length of the longest beginning of a text with which a story can begin."""

    def possible(n: int) -> bool:
        return prefix_log_prob(text[:n], pairs, tense) > IMPOSSIBLE

    low, high = 0, 64  # gallop, then halve: a megabyte of noise costs as much as a line of it
    while high < len(text) and possible(high):
        low, high = high, 2 * high
    high = min(high, len(text))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if possible(middle) else (low, middle - 1)
    return low


def prefix_log_prob(text: str | bytes, pairs: str = "seen", tense: str = "past") -> float:
    """The log-probability that a story begins with this text, in nats: 0 for none, -inf for never.

    All ways to go on are summed. Bytes may end inside a character: all that begin so count.
    """
    whole, broken = decoded(text)
    if broken:
        going_on = continuations(whole, lambda beyond: bool(beyond), pairs, tense)
        return log_sum(
            log_p
            for beyond, log_p in going_on.items()
            if beyond[:1].encode("utf-8").startswith(broken)
        )
    cuts: list[Cut] = []
    logs = [
        one.reader.log_p
        for one in explore(PrefixReader, whole, [root(pairs)], cuts, tense_number(tense))
        if one.done or (one.following is None and one.reader.position == len(whole))
    ]
    return log_sum(logs + [cut.log_p for cut in cuts])


# --- what comes next ----------------------------------------------------------------------------


def forecast(
    text: str, checkpoints: Iterable[Checkpoint], enough: Callable[[str], bool], tense: int = 0
) -> tuple[list[Cut], list[Checkpoint]]:
    """Every way on after a text, written until ``enough``, with its log-probability.

    A way on that ends the story ends with ``END_OF_STORY``. The checkpoints that come back are
    where a reader of a longer text can begin instead of at the root.
    """
    found: list[Cut] = []

    class Writer(ForecastReader):
        def enough(self, beyond: str) -> bool:
            return enough(beyond)

    begun = list(checkpoints)
    reached = []
    for one in explore(Writer, text, begun, found, tense):
        reader = one.reader
        if reader.position == len(text):
            reached.append(one.start)
        if one.done:
            found.append(Cut(reader.beyond, reader.log_p, one.start))
        elif one.following is None and reader.position == len(text):
            found.append(Cut(reader.beyond + END_OF_STORY, reader.log_p, one.start))
    inside = {id(one): one for one in [*reached, *(cut.start for cut in found)]}
    return found, [one for one in inside.values() if not _comes_again(one, inside)]


def _comes_again(checkpoint: Checkpoint, others: dict[int, Checkpoint]) -> bool:
    """Whether reading on from one of the others leads to this checkpoint once more."""
    before = checkpoint.parent
    while before is not None:
        if id(before) in others:
            return True
        before = before.parent
    return False


def continuations(
    text: str, enough: Callable[[str], bool], pairs: str = "seen", tense: str = "past"
) -> dict[str, float]:
    """What may follow a text, each continuation written until ``enough(continuation)`` is true.

    The values are log-probabilities of the whole, text and continuation. One that ends with
    ``END_OF_STORY`` is the end. Nothing follows what no story begins with.
    """
    found, _ = forecast(text, [root(pairs)], enough, tense_number(tense))
    logs: dict[str, list[float]] = {}
    for cut in found:
        logs.setdefault(cut.beyond, []).append(cut.log_p)
    return {beyond: log_sum(values) for beyond, values in logs.items()}


def expected(text: str, pairs: str = "seen", tense: str = "past", most: int = 5) -> tuple[str, ...]:
    """How stories go on after a text, up to the end of the next word, likeliest first."""

    def enough(beyond: str) -> bool:
        return " " in beyond.lstrip()

    logs: dict[str, list[float]] = {}
    for beyond, log_p in continuations(text, enough, pairs, tense).items():
        word = beyond[: len(beyond) - len(beyond.lstrip())] + (beyond.split(maxsplit=1) or [""])[0]
        key = beyond if beyond.endswith(END_OF_STORY) else word
        logs.setdefault(key, []).append(log_p)
    ranked = sorted(logs, key=lambda one: (-log_sum(logs[one]), one))
    return tuple(ranked[:most])


def outcomes(
    text: str, label: Callable[[tuple[Event, ...]], Any], pairs: str = "seen"
) -> dict[Any, float]:
    """The exact probability of each outcome of an episode, for a text that ends at its turn.

    ``label`` gets the events since the turn and gives the outcome, or None while it is open. The
    probabilities sum to one over all ways to go on. Raises ValueError for a text that does not end
    at a turn of some story.
    """
    n = len(text)

    def outcome(world: World) -> Any:
        if world.turn != n:
            return None
        events = events_of(world.log)
        turn = next(i for i, one in enumerate(events) if one.kind == "turn" and one.position == n)
        return label(events[turn + 1 :])

    logs: dict[Any, list[float]] = {}
    stop = lambda world: outcome(world) is not None  # noqa: E731
    for one in explore(OutcomeReader, text, [root(pairs)], [], stop=stop):
        value = outcome(one.reader.world)
        if value is not None:
            logs.setdefault(value, []).append(one.reader.log_p)
    if not logs:
        raise ValueError(
            f"{text[-40:]!r} is not where an outcome is open; give story.visible or a text that "
            "ends where the program calls tell.turn()"
        )
    total = log_sum(one for values in logs.values() for one in values)
    return {value: math.exp(log_sum(logs[value]) - total) for value in logs}
