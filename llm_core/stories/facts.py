"""What is so in a story, read off the events that its program noted: people, owners, endings.

The program notes an ``Event`` wherever something becomes so; nothing here looks at the text. The
appendix "The world" lists the kinds of events with an example of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from llm_core.stories.choices import Word
from llm_core.stories.world import Event, Person, Thing


@dataclass(frozen=True)
class Facts:
    """The events of one story, oldest first, and what follows from them."""

    events: tuple[Event, ...]

    def of(self, *kinds: str) -> list[Event]:
        """The events of these kinds, oldest first."""
        return [event for event in self.events if event.kind in kinds]

    def once(self, kind: str, *places: int) -> list[Event]:
        """The events of a kind that share what stands at these places with no other of it."""
        events = self.of(kind)
        keys = [tuple(event.what[i] for i in places) for event in events]
        return [event for event, key in zip(events, keys, strict=True) if keys.count(key) == 1]

    @cached_property
    def people(self) -> tuple[Person, ...]:
        """Everybody in the story, the hero first."""
        return tuple(event.what[0] for event in self.of("person"))

    @property
    def hero(self) -> Person:
        """Whom the story is about."""
        return self.people[0]

    @cached_property
    def owners(self) -> dict[Thing, Person]:
        """Who owns each thing at the end."""
        return {event.what[1]: event.what[0] for event in self.of("own")}

    @cached_property
    def holders(self) -> dict[Thing, Person | None]:
        """Who has each thing at the end, lent or owned; None for what is lost."""
        found: dict[Thing, Person | None] = {}
        for event in self.of("own", "find", "give", "lose"):
            *people, thing = event.what
            found[thing] = None if event.kind == "lose" else people[-1]
        return found

    def moves(self, thing: Thing) -> int:
        """How often a thing was got, lost, found or given."""
        return sum(event.what[-1] == thing for event in self.of("own", "find", "give", "lose"))

    @cached_property
    def first_owners(self) -> dict[Thing, Person]:
        """Who owned each thing when it was first told of."""
        return {event.what[1]: event.what[0] for event in reversed(self.of("own"))}

    @cached_property
    def settled(self) -> dict[tuple[Person, Person], Event]:
        """Whether a promise was kept, by who gave it to whom: an event ``kept`` or ``broke``.

        Who promised the same one twice, or whose promise stays open, is left out.
        """
        promises = [event.what[:2] for event in self.of("promise")]
        verdicts = self.of("kept", "broke")
        whom = [event.what for event in verdicts]
        once = {pair for pair in whom if promises.count(pair) == whom.count(pair) == 1}
        return {event.what: event for event in verdicts if event.what in once}

    @property
    def places(self) -> tuple[Word, ...]:
        """The places where the episodes begin, in order."""
        return tuple(event.what[1] for event in self.of("plot"))

    @cached_property
    def episodes(self) -> tuple[Facts, ...]:
        """The story cut after each ending; what follows the last one is left out."""
        cuts = [0, *(i + 1 for i, event in enumerate(self.events) if event.kind == "ending")]
        return tuple(Facts(self.events[a:b]) for a, b in pairwise(cuts))

    @property
    def last_part(self) -> tuple[Event, ...]:
        """What happens from the beginning of the last episode on."""
        begun = [i for i, event in enumerate(self.events) if event.kind == "plot"]
        return self.events[begun[-1] if begun else 0 :]

    @cached_property
    def meetings(self) -> tuple[tuple[Word, Event], ...]:
        """Where the hero meets each friend, beside that event. Mere shelters are left out."""
        found: list[tuple[Word, Event]] = []
        where = Word("nowhere")
        for event in self.of("at", "friend"):
            if event.kind == "friend" and hasattr(where, "the"):
                found.append((where, event))
            elif event.kind == "at" and event.what[0] == self.hero:
                where = event.what[1]
        return tuple(found)

    @cached_property
    def first_met(self) -> dict[Person, Word]:
        """Where the hero meets each friend for the first time."""
        new = {(event.what[0], event.position) for event in self.of("person")}
        return {
            friend: place
            for place, (_, (_, friend), position) in self.meetings
            if (friend, position) in new
        }

    @cached_property
    def alone_with(self) -> dict[Word, Person]:
        """Whom the hero meets at a place, if the hero is there once and meets nobody else then."""
        visits = [event.what[1] for event in self.of("at") if event.what[0] == self.hero]
        found = {}
        for place, event in self.meetings:
            (episode,) = (one for one in self.episodes if event in one.events)
            names = (one for other in episode.events for one in other.what)
            if {one for one in names if isinstance(one, Person)} == set(event.what):
                found[place] = event.what[1]
        return {place: friend for place, friend in found.items() if visits.count(place) == 1}

    @cached_property
    def liars(self) -> tuple[Person, ...]:
        """Who told a lie, in order, each once."""
        return tuple(dict.fromkeys(event.what[0] for event in self.of("lie")))

    @property
    def hushed(self) -> bool:
        """Whether somebody kept quiet about what was wrong with a thing."""
        return any(event.what[1].startswith("what was wrong") for event in self.of("know"))

    @cached_property
    def knowledge(self) -> dict[tuple[Person, str], bool]:
        """Who knows what at the end, and who does not.

        Left out are those in the dark about a thing that was ever in their hands.
        """
        found = {}
        for event in self.of("know", "unaware"):
            found[event.what] = event.kind == "know"
        for event in self.of("own", "give", "find"):
            *_, who, thing = event.what
            for topic in [topic for one, topic in found if one == who and thing in topic.split()]:
                if not found[who, topic]:
                    del found[who, topic]
        return found

    def undone(self, deed: Event) -> list[tuple[Person, str]]:
        """Deeds that nobody did: this one, done by somebody else.

        If it was done to somebody, the two change places.
        """
        who, what = deed.what
        done = {event.what for event in self.of("did")}
        named = [other for other in self.people if other != who and other in what]
        exchanged = [(other, what.replace(other, who)) for other in named or self.people]
        return [claim for claim in exchanged if claim not in done]

    @cached_property
    def first_counts(self) -> dict[tuple[Person, Word], int]:
        """How many of each kind of item somebody had at first."""
        return {event.what[:2]: event.what[2] for event in reversed(self.of("count"))}

    @cached_property
    def counts(self) -> dict[tuple[Person, Word], int]:
        """How many of each kind of item somebody has at the end."""
        return {(who, items): n for who, items, n in (event.what for event in self.of("count"))}

    @property
    def plots(self) -> tuple[str, ...]:
        """The plots in the order in which they are told."""
        return tuple(event.what[0] for event in self.of("plot"))

    @property
    def endings(self) -> tuple[str, ...]:
        """``happy`` or ``sad`` for each episode."""
        return tuple(event.what[0] for event in self.of("ending"))

    @property
    def ending(self) -> str:
        """How the last episode ends: ``happy`` or ``sad``."""
        return self.endings[-1]

    @property
    def turn(self) -> int:
        """The number of characters before the outcome of the last episode is decided."""
        return self.of("turn")[-1].position
