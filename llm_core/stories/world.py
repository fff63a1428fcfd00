"""What is so in a story while it is told: its people, its things, and the facts noted so far.

A ``World`` is copied wherever a reader has to try several ways, so what it holds is never changed
in place: words, people and things are constants, collections are tuples, and the log of events is
a chain whose links are shared between copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from llm_core.stories.choices import Word

PAIRS = ("seen", "held-out", "any")


class Person(str):
    """Somebody in a story: the string is the name, ``he``, ``him``, ``his`` are its pronouns.

    Everybody is made for one story, so a person is as light as they can be: the pronouns belong
    to the class.
    """

    __slots__ = ("kind", "trait")

    he = "he"
    him = "him"
    his = "his"
    He = "He"
    His = "His"
    kind: Word
    trait: Word

    @property
    def cap(self) -> str:
        """The name, as a word at a sentence's start would be: it has its capital already."""
        return str(self)


class SheIs(Person):
    """Somebody whose name goes with *she*."""

    __slots__ = ()

    he = "she"
    him = "her"
    his = "her"
    He = "She"
    His = "Her"


def person(name: Word, kind: Word, trait: Word) -> Person:
    """Somebody of that name, kind and trait; the pronouns are the name's."""
    somebody = SheIs(name) if name.he == "she" else Person(name)
    somebody.kind, somebody.trait = kind, trait
    return somebody


class Thing(Word):
    """An object: the string is its noun; ``full`` has its color, ``a`` the article too."""

    color: Word
    full: str


_THINGS: dict[tuple[str, str], Thing] = {}


def thing(color: Word, noun: Word) -> Thing:
    """The one thing of that color and noun; the same object for the same two."""
    key = (color, noun)
    found = _THINGS.get(key)
    if found is None:
        full = f"{color} {noun}"
        found = Thing(noun, color=color, full=full, a=f"{color.a} {noun}")
        _THINGS[key] = found
    return found


class Event(NamedTuple):
    """A fact: its kind, what it is about, and how many characters had been told when it was so."""

    kind: str
    what: tuple[Any, ...]
    position: int


Log = tuple[tuple[str, tuple[Any, ...], int], Any] | None  # the newest event and the log before it


def events_of(log: Log) -> tuple[Event, ...]:
    """The events of a log, oldest first."""
    found = []
    while log is not None:
        event, log = log
        found.append(Event(*event))
    return tuple(reversed(found))


class World:
    """The state of a story. Plots add attributes of their own as they need them.

    ``pairs`` says which pairs of a name and a thing, and of a place and a plot, may occur:
    ``seen`` those of the training split, ``held-out`` at least one of the others, ``any`` all.
    Raises ValueError for anything else.
    """

    hero: Person
    friend: Person  # the second character of this episode
    toy: Thing | None  # what the hero owns and may lose

    def __init__(self, pairs: str = "seen") -> None:
        if pairs not in PAIRS:
            raise ValueError(f"pairs={pairs!r} must be one of {', '.join(PAIRS)}")
        self.pairs = pairs
        self.gap = ""  # what stands before the next sentence
        self.turn = -1  # characters told when the outcome of the last episode was still open
        self.log: Log = None
        self.cast: tuple[Person, ...] = ()
        self.nouns: tuple[Word, ...] = ()  # of the things in the story: no two share a noun
        self.plots: tuple[str, ...] = ()  # told so far
        self.words = 0  # about how many words these and the scenes around them take
        self.waiting: Any = None  # a beat that a later episode begins with
        self.toy = None

    if TYPE_CHECKING:  # plots add what they need; a real __getattr__ would slow every access down

        def __setattr__(self, name: str, value: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    def copy(self) -> World:
        """A world in the same state, free to go another way."""
        twin = World.__new__(World)
        twin.__dict__.update(self.__dict__)
        return twin

    def events(self) -> tuple[Event, ...]:
        """All facts noted so far, oldest first."""
        return events_of(self.log)
