"""Reading a text with the program that writes stories: every way in which it could have been told.

A reader runs the same beats as a teller. Asked for a sentence, it looks which paraphrases stand in
the text, with which words; asked for a decision, it takes each in turn. Where several ways lead on,
the beat is run again for each, from a copy of the world at its start. The readers differ in what
they do at the end of the text: fail, stop, write on, or follow the outcomes without the words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

from llm_core.stories.choices import AnyChoice, surface
from llm_core.stories.engine import Beat, Narrator
from llm_core.stories.wording import Node, Paraphrase, wording
from llm_core.stories.world import World

LONGEST_ITEM = 80  # characters; where less of the text is left, an item may reach beyond its end


class Dead(Exception):
    """No way leads on: the text is not what the program says here."""


class Done(Exception):
    """The reader has seen what it wanted; the rest of the story sums to one."""


class Fork(Exception):
    """Several ways lead on from here."""

    def __init__(self, ways: list[Way]) -> None:
        self.ways = ways


class Way(NamedTuple):
    """One way through a choice or a sentence."""

    position: int
    log_p: float
    values: dict[str, Any]
    chances: tuple[float, ...]
    beyond: str


class Checkpoint(NamedTuple):
    """A reader's state between two beats. ``beyond`` is what it wrote after the text's end;
    ``parent`` is where the beat before this one began."""

    beat: Beat | None
    world: World
    position: int = 0
    log_p: float = 0.0
    chances: tuple[float, ...] = ()
    beyond: str = ""
    parent: Checkpoint | None = None


class Cut(NamedTuple):
    """A way that was not followed further: what it wrote after the text, its log-probability, and
    the checkpoint that its beat began at."""

    beyond: str
    log_p: float
    start: Checkpoint


class Reader(Narrator):
    """Runs one beat along a text. ``forced`` are the ways taken so far in this beat.

    This class reads a whole text; what happens at the text's end is what its children change.
    """

    def __init__(
        self, text: str, start: Checkpoint, forced: tuple[Way, ...], tense: int, cuts: list[Cut]
    ) -> None:
        super().__init__(start.world.copy())
        self.text, self.start, self.tense, self.cuts = text, start, tense, cuts
        self.position, self.log_p, self.beyond = start.position, start.log_p, start.beyond
        self.chances = list(start.chances)
        self.forced = list(forced)
        self.n_taken = 0

    def checkpoint(self, following: Beat) -> Checkpoint:
        """Where the next beat begins."""
        chances = tuple(self.chances)
        return Checkpoint(
            following, self.world, self.position, self.log_p, chances, self.beyond, self.start
        )

    # what happens at the end of the text

    def at_end(self, templates: tuple[str, ...], drawn: dict[str, AnyChoice]) -> list[Way]:
        """The ways to say a sentence when all of the text has been read."""
        raise Dead

    def pick_at_end(self) -> None:
        """Called before a decision when all of the text has been read."""

    def cut(self, node: Node, so_far: Way, drawn: dict[str, AnyChoice]) -> list[Way]:
        """The text ended inside a sentence, which agreed so far and goes on below ``node``."""
        return []

    # the two things a beat asks for

    def _take(self, find: Callable[[], list[Way]]) -> Way:
        """The next way: the forced one, the only one, or a fork."""
        if self.n_taken == len(self.forced):
            ways = find()
            if len(ways) != 1:
                raise Fork(ways) if ways else Dead
            self.forced.append(ways[0])
        way = self.forced[self.n_taken]
        self.n_taken += 1
        self.position, self.beyond = way.position, way.beyond
        self.log_p += way.log_p
        self.chances += way.chances
        return way

    def pick(self, choice: AnyChoice) -> Any:
        """Each item of a choice in turn."""

        def find() -> list[Way]:
            if self.position == len(self.text):
                self.pick_at_end()
            return [
                Way(self.position, log_p, {"": item}, (u,), self.beyond)
                for item, log_p, u in choice.ways()
            ]

        return self._take(find).values[""]

    def __call__(self, *templates: str, **drawn: AnyChoice) -> None:
        """Each way in which a paraphrase stands at this place of the text."""
        way = self._take(lambda: self._ways(templates, drawn))
        self.world.__dict__.update(way.values)
        self.world.gap = " "

    def _ways(self, templates: tuple[str, ...], drawn: dict[str, AnyChoice]) -> list[Way]:
        if self.position == len(self.text):
            return self.at_end(templates, drawn)
        gap = self.world.gap
        if not self.text.startswith(gap, self.position):
            raise Dead
        start = Way(self.position + len(gap), 0.0, {}, (), "")
        return self._match(wording(templates, drawn).tree(self.tense), start, drawn)

    def _match(self, node: Node, so_far: Way, drawn: dict[str, AnyChoice]) -> list[Way]:
        """The ways in which a sentence stands in the text from ``node`` on."""
        ways = [self._complete(so_far, one, drawn) for one in node.ends]
        position, text = so_far.position, self.text
        if position == len(text):
            followed = list(node.literals.values())
        else:
            here = node.literals.get(text[position])
            followed = [here] if here else []
        for literal, child in followed:
            ways += self._match_literal(literal, child, so_far, drawn)
        for (slot, form), child in node.slots.items():
            if slot in drawn and slot not in so_far.values:
                ways += self._match_drawn(slot, form, child, so_far, drawn)
            else:
                ways += self._match_literal(self._known(slot, form, so_far), child, so_far, drawn)
        return ways

    def _known(self, slot: str, form: str, so_far: Way) -> str:
        """What stands in a slot that is filled already."""
        filled = so_far.values
        return surface(filled[slot] if slot in filled else getattr(self.world, slot), form)

    def _match_literal(
        self, written: str, child: Node, so_far: Way, drawn: dict[str, AnyChoice]
    ) -> list[Way]:
        """The ways that begin with something written, if it stands here."""
        text, position = self.text, so_far.position
        if text.startswith(written, position):
            return self._match(child, so_far._replace(position=position + len(written)), drawn)
        rest = len(text) - position
        if rest < len(written) and text.endswith(written[:rest]):
            beyond = so_far._replace(position=len(text), beyond=written[rest:])
            return self.cut(child, beyond, drawn)
        return []

    def _match_drawn(
        self, slot: str, form: str, child: Node, so_far: Way, drawn: dict[str, AnyChoice]
    ) -> list[Way]:
        """The ways in which an open slot stands in the text, and the rest of the sentence."""
        position = so_far.position
        ways: list[Way] = []
        for item, log_p, u, written in drawn[slot].standing(self.text, position, form):
            filled = self._with(so_far, slot, item, log_p, u, len(written))
            ways += self._match(child, filled, drawn)
        rest = len(self.text) - position
        if rest < LONGEST_ITEM:
            tail = self.text[position:]
            for item, log_p, u in drawn[slot].ways():
                written = surface(item, form)
                if len(written) > rest and written.startswith(tail):
                    filled = self._with(so_far, slot, item, log_p, u, rest)
                    ways += self.cut(child, filled._replace(beyond=written[rest:]), drawn)
        return ways

    @staticmethod
    def _with(way: Way, slot: str, item: Any, log_p: float, u: float, length: int) -> Way:
        """The way with one slot filled; its chance is kept under the slot until the end."""
        values = {**way.values, slot: item, f"{slot}?": u}
        return way._replace(position=way.position + length, log_p=way.log_p + log_p, values=values)

    @staticmethod
    def _complete(way: Way, said: Paraphrase, drawn: dict[str, AnyChoice]) -> Way:
        """The sentence is whole: its own odds, and the chances in a teller's order."""
        values = dict(way.values)
        chances = tuple(values.pop(f"{slot}?") for slot in drawn)
        if said.log_p < 0:
            chances = (said.chance, *chances)
        return way._replace(log_p=way.log_p + said.log_p, values=values, chances=chances)


class PrefixReader(Reader):
    """Every story that begins with the text: what follows its end is neither read nor written."""

    def at_end(self, templates: tuple[str, ...], drawn: dict[str, AnyChoice]) -> list[Way]:
        """Whatever is said next, the story begins with the text."""
        raise Done

    def pick_at_end(self) -> None:
        """Whatever is decided next, the story begins with the text."""
        raise Done

    def cut(self, node: Node, so_far: Way, drawn: dict[str, AnyChoice]) -> list[Way]:
        """Whatever this sentence goes on with, the story begins with the text."""
        self.cuts.append(Cut("", self.log_p + so_far.log_p + node.log_mass, self.start))
        return []


class ForecastReader(Reader):
    """Writes on after the text's end, in every way, until a child's ``enough(beyond)``."""

    def enough(self, beyond: str) -> bool:
        """Whether no more needs to be written."""
        raise NotImplementedError

    def at_end(self, templates: tuple[str, ...], drawn: dict[str, AnyChoice]) -> list[Way]:
        """Every way to say the sentence, as far as it is needed."""
        beyond = self.beyond + self.world.gap
        if self.enough(beyond):
            self.beyond = beyond
            raise Done
        start = Way(self.position, 0.0, {}, (), beyond)
        return self.cut(wording(templates, drawn).tree(self.tense), start, drawn)

    def cut(self, node: Node, so_far: Way, drawn: dict[str, AnyChoice]) -> list[Way]:
        """Write the sentence on, in every way below ``node``."""
        beyond = so_far.beyond
        if self.enough(beyond):
            self.cuts.append(Cut(beyond, self.log_p + so_far.log_p + node.log_mass, self.start))
            return []
        ways = [self._complete(so_far, one, drawn) for one in node.ends]
        for literal, child in node.literals.values():
            ways += self.cut(child, so_far._replace(beyond=beyond + literal), drawn)
        for (slot, form), child in node.slots.items():
            if slot in drawn and slot not in so_far.values:
                for item, log_p, u in drawn[slot].ways():
                    way = self._with(so_far, slot, item, log_p, u, 0)
                    way = way._replace(beyond=beyond + surface(item, form))
                    ways += self.cut(child, way, drawn)
            else:
                known = self._known(slot, form, so_far)
                ways += self.cut(child, so_far._replace(beyond=beyond + known), drawn)
        return ways


class OutcomeReader(Reader):
    """Goes on after a turn at the text's end without minding the words: outcomes only.

    What is not said to be telling is drawn as its first item: its odds sum to one either way.
    """

    def at_end(self, templates: tuple[str, ...], drawn: dict[str, AnyChoice]) -> list[Way]:
        """One way for all wordings; one for each item of the choices that bear on what follows."""
        if self.world.turn != len(self.text):
            raise Dead
        options = [
            list(choice.ways()) if choice.telling else [(next(choice.ways())[0], 0.0, 0.0)]
            for choice in drawn.values()
        ]
        return [
            Way(
                self.position,
                sum(log_p for _, log_p, _ in items),
                {slot: item for slot, (item, _, _) in zip(drawn, items, strict=True)},
                (),
                "",
            )
            for items in product(*options)
        ]


class Reading(NamedTuple):
    """One beat read to its end, or to where the reader was done. ``start`` is where it began."""

    reader: Reader
    start: Checkpoint
    following: Beat | None
    done: bool


def explore(
    reader_class: type[Reader],
    text: str,
    checkpoints: Iterable[Checkpoint],
    cuts: list[Cut],
    tense: int = 0,
    stop: Callable[[World], bool] = lambda world: False,
) -> Iterator[Reading]:
    """Every way through the story along the text, depth first; a reading for each beat's end.

    Where a beat leads on, the reading goes on from a checkpoint there, unless ``stop(world)``.
    Ways that break off inside a sentence are added to ``cuts``.
    """
    stack: list[tuple[Checkpoint, tuple[Way, ...]]] = [(one, ()) for one in checkpoints]
    while stack:
        start, forced = stack.pop()
        assert start.beat is not None
        reader = reader_class(text, start, forced, tense, cuts)
        done = False
        following = None
        try:
            following = start.beat(reader, reader.world)
        except Fork as fork:
            taken = tuple(reader.forced)
            stack.extend((start, (*taken, way)) for way in reversed(fork.ways))
            continue
        except Dead:
            continue
        except Done:
            done = True
        yield Reading(reader, start, following, done)
        if following is not None and not stop(reader.world):
            stack.append((reader.checkpoint(following), ()))
