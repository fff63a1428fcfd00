"""Which plots there are, where a story has room for one, and which pairs training never sees.

A plot is registered with ``@plot("lost", odds=4, words=78)`` above its first beat; nothing else
names it. Training keeps some pairs apart, a name with a thing and a place with a plot, though it
has every name, thing, place and plot: what a model does with such a pair it must have put together.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from llm_core.stories.choices import AnyChoice, Choice, Word
from llm_core.stories.engine import Beat
from llm_core.stories.lexicon import NAMES, NOUNS, PLACES
from llm_core.stories.world import World

MOST_EPISODES = 4
# Odds that a story goes on after its first, second and third episode, in a hundred. They don't look
# at what happened: that a story is over must say nothing about whether it went well.
GOES_ON = (38, 60, 95)
# About how many words a story of one, two, three, four episodes may have: for a tokenizer of 1,024
# tokens that comes to 600 tokens, hardly ever to more. Four have more words, since all of them are
# short plots, whose lengths differ less.
MOST_WORDS = (297, 297, 297, 330)
LAST_WORDS = 16  # kept for the way home
SHORT = 67  # a plot that takes no more words fits wherever a story may go on

PLOTS: dict[str, Plot] = {}


class Plot(NamedTuple):
    """An episode that can be told: its name, its odds beside the others, about how many words it
    takes, its first beat."""

    name: str
    odds: int
    words: int
    first: Beat


def plot(name: str, odds: int, words: int) -> Callable[[Beat], Beat]:
    """Register the first beat of a plot; ``world.place`` is set and the hero is there.

    ``words`` decides where a story has room for it; a test compares it with what is told.
    """

    def register(first: Beat) -> Beat:
        if name in PLOTS:
            raise ValueError(f"there is a plot {name!r} already; choose another name")
        PLOTS[name] = Plot(name, odds, words, first)
        return first

    return register


# --- pairs that are kept out of training --------------------------------------------------------


@cache
def held_out_plots(place: str) -> tuple[str, ...]:
    """The plots that training never sees at a place: two, or twice the same one.

    With fifteen plots every fifteenth place has the same two.
    """
    names, i = list(PLOTS), PLACES.items.index(place)
    return names[i % len(names)], names[(5 * i + 3) % len(names)]


@cache
def held_out_nouns(name: str) -> tuple[Word, ...]:
    """The things that nobody of a name has in training: three of them, others for each name."""
    i, n = NAMES.items.index(name), len(NOUNS.items)
    return tuple(NOUNS.items[(7 * i + step) % n] for step in (0, 19, 40))


@cache
def _names_without(noun: str) -> tuple[Word, ...]:
    """The names that a thing is kept from in training."""
    return tuple(name for name in NAMES.items if noun in held_out_nouns(name))


def names_in(world: World) -> AnyChoice:
    """What somebody new may be called. What changes hands must not make a pair that is held out."""
    out: list[str] = list(world.cast)
    if world.pairs == "seen":
        for noun in world.nouns:
            out += _names_without(noun)
    return NAMES.without(out)


@cache
def _held_out(name: str) -> Choice:
    return Choice(held_out_nouns(name))


def nouns_of(world: World, owner: str) -> AnyChoice:
    """What somebody may have: nothing that is in the story already, and by training's rules."""
    if world.pairs == "held-out" and not world.nouns:
        return _held_out(owner)
    out = list(world.nouns)
    if world.pairs == "seen":
        for one in world.cast:
            out += held_out_nouns(one)
    return NOUNS.without(out)


@cache
def _plots(place: str, which: str, room: int) -> Choice:
    out = held_out_plots(place)
    return Choice(
        {
            one.name: one.odds
            for one in PLOTS.values()
            if one.words <= room and (which == "any" or (one.name in out) == (which == "held-out"))
        },
        telling=True,
    )


def plots_at(world: World) -> AnyChoice:
    """What may happen at the world's place, fits into the story and is not in it yet."""
    which = world.pairs if world.pairs != "held-out" or not world.plots else "any"
    return _plots(world.place, which, room_left(world)).without(world.plots)


def room_left(world: World) -> int:
    """How many words the next plot may take. Counted by scene, so that it is the same in any
    tense."""
    n_told = min(len(world.plots), MOST_EPISODES - 1)
    return MOST_WORDS[n_told] - LAST_WORDS - world.words
