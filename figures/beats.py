"""The story program watched while it runs: which beats follow which, with what odds.

The graph in the preface is not drawn from a description: the program is run, and the beats that
follow one another are written down. ``follow`` does the same for one story. ``figures.world`` draws
what is found here, the appendix "The world" tabulates it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any, NamedTuple

from llm_core import stories
from llm_core.stories import episodes, scenes
from llm_core.stories.engine import Beat, Teller
from llm_core.stories.world import Event, World, events_of

N_GRAPH = 4000  # stories that are told to see every beat
N_EXAMPLE = 100_000  # stories among which the example is looked for


class Visit(NamedTuple):
    """One beat of one story.

    Its plot ("" outside the plots), the beat that followed, its text, the odds of each decision in
    it, the nats of all that was drawn, the events that it noted, the beat that it left waiting, and
    the paraphrases that it chose among.
    """

    beat: Beat
    plot: str
    following: Beat | None
    text: str
    odds: tuple[float, ...]
    nats: float
    events: tuple[Event, ...]
    left: Beat | None
    said: tuple[tuple[str, ...], ...] = ()

    @property
    def ending(self) -> str:
        """How the episode ended here: ``happy``, ``sad``, or "" where it goes on."""
        return next((event.what[0] for event in self.events if event.kind == "ending"), "")


class Watcher(Teller):
    """A teller that writes down the odds of what it decides unsaid."""

    def __init__(self, random: Callable[[], float], world: World, tense: int = 0) -> None:
        super().__init__(random, world, tense)
        self.odds: list[float] = []
        self.said: list[tuple[str, ...]] = []

    def __call__(self, *templates: str, **drawn: Any) -> None:
        super().__call__(*templates, **drawn)
        self.said.append(templates)

    def pick(self, choice: Any) -> Any:
        before = self.log_prob
        item = super().pick(choice)
        self.odds.append(math.exp(self.log_prob - before))
        return item

    def chance(self, percent: int) -> bool:
        before = self.log_prob
        yes = super().chance(percent)
        self.odds.append(math.exp(self.log_prob - before))
        return yes


def visits(random: Callable[[], float], pairs: str = "seen") -> Iterator[Visit]:
    """The beats of the story that these chances tell, in order."""
    world = World(pairs)
    tell = Watcher(random, world)
    waiting_plot: dict[Beat, str] = {}  # a beat that an earlier episode left is that episode's
    n_events = 0
    beat: Beat | None = scenes.story
    while beat is not None:
        said, decided = len(tell.sentences), len(tell.odds)
        waited, before = world.waiting, tell.log_prob
        following = beat(tell, world)
        framing = beat.__module__ == scenes.__name__
        plot = "" if framing else waiting_plot.get(beat, world.plots[-1])
        left = world.waiting if world.waiting is not waited else None
        if left is not None:
            waiting_plot[left] = plot
        events = events_of(world.log)[n_events:]
        n_events += len(events)
        text, odds = "".join(tell.sentences[said:]), tuple(tell.odds[decided:])
        nats = before - tell.log_prob
        templates = tuple(tell.said[said:])
        yield Visit(beat, plot, following, text, odds, nats, events, left, templates)
        beat = following


def follow(story: stories.Story) -> list[Visit]:
    """The beats of a story, told once more from its trace."""
    return list(visits(iter(story.trace).__next__, story.pairs))


def is_example(story: stories.Story) -> bool:
    """One episode of something lost, that a friend hides, denies and gives back; not a long one."""
    facts = story.facts
    return (
        facts.plots == ("lost",)
        and bool(facts.liars)
        and facts.ending == "happy"
        and bool(facts.of("gift"))
        and len(story.text.split()) <= 120
        and len(facts.events) <= 24
    )


@cache
def example() -> stories.Story:
    """The story that the preface prints: the first of the training split that fits."""
    return next(filter(is_example, stories.stories(N_EXAMPLE, seed=0, split="train")))


@dataclass
class Graph:
    """Which beats follow which. ``beats`` holds those of each plot, ``""`` those of no plot."""

    beats: dict[str, list[Beat]] = field(default_factory=dict)
    edges: Counter[tuple[Beat, Beat | None]] = field(default_factory=Counter)
    waits: set[tuple[Beat, Beat]] = field(default_factory=set)  # who leaves which beat for later
    said: dict[Beat, set[tuple[str, ...]]] = field(default_factory=dict)  # paraphrases
    endings: dict[Beat, set[str]] = field(default_factory=dict)  # of episodes that end in a beat


@cache
def graph(n: int = N_GRAPH, seed: int = 0) -> Graph:
    """The graph of all beats that ``n`` stories go through."""
    found, random = Graph(), Random(seed).random
    found.beats = {name: [] for name in ("", *episodes.PLOTS)}
    for _ in range(n):
        for visit in visits(random):
            if visit.beat not in found.beats[visit.plot]:
                found.beats[visit.plot].append(visit.beat)
            found.edges[visit.beat, visit.following] += 1
            found.said.setdefault(visit.beat, set()).update(visit.said)
            if visit.left is not None:
                found.waits.add((visit.beat, visit.left))
            if visit.ending:
                found.endings.setdefault(visit.beat, set()).add(visit.ending)
    return found
