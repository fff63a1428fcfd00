"""The story program's frame: what a beat is, what it can ask for, and the teller that makes it up.

A story is a chain of beats. A beat is a function ``beat(tell, world)`` that says a few sentences,
changes the world and returns the next beat, or None at the end. Whoever runs it hands in ``tell``:

- ``tell("...", "...", spot=SPOTS)`` says one of the paraphrases and draws what it leaves open;
- ``tell.chance(percent)`` and ``tell.pick(choice)`` decide something that is not said yet;
- ``tell.note(kind, ...)`` writes a fact down, ``tell.turn()`` marks where an outcome is still open.

A ``Teller`` draws. ``llm_core.stories.reader`` runs the same beats along a given text.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from llm_core.stories.choices import AnyChoice, yes_or_no
from llm_core.stories.wording import TOLD, told
from llm_core.stories.world import World


class Tell(Protocol):
    """What a beat can do, whoever runs it."""

    def __call__(self, *templates: str, **drawn: AnyChoice) -> None:
        """Say one of the paraphrases, equally likely; draw what stands under ``drawn`` into it."""

    def chance(self, percent: int) -> bool:
        """Decide something with ``percent`` chances in a hundred."""

    def pick(self, choice: AnyChoice) -> Any:
        """Decide something with the odds of a choice."""

    def phrase(self, template: str) -> str:
        """A piece of text in the tense of this telling, to be put into a sentence later."""

    def note(self, kind: str, *what: Any) -> None:
        """Write down a fact that holds from here on."""

    def paragraph(self) -> None:
        """Begin the next sentence on a new line."""

    def turn(self) -> None:
        """Mark that the outcome of this episode is decided from here on."""


# by percent: the log-probabilities of no and yes; yes_or_no refuses what leaves no choice
LOG_CHANCE = {n: (math.log(1 - n / 100), math.log(n / 100)) for n in range(1, 100)}
Beat = Callable[[Tell, World], Any]  # returns the next beat, or None at the end


class Narrator:
    """What a teller and a reader share: where they are in the text, and what they write down."""

    tense = 0
    position = 0

    def __init__(self, world: World) -> None:
        self.world = world

    def pick(self, choice: AnyChoice) -> Any:
        """One item of a choice: drawn by a teller, tried by a reader."""
        raise NotImplementedError

    def chance(self, percent: int) -> bool:
        """True with ``percent`` chances in a hundred."""
        yes: bool = self.pick(yes_or_no(percent))
        return yes

    def phrase(self, template: str) -> str:
        """A piece of text in the tense of this telling."""
        groups = TOLD[self.tense].get((template,)) or told((template,), {}, self.tense)
        _, form, get, *_ = groups[0]
        text: str = form if get is None else form % get(self.world)
        return text

    def note(self, kind: str, *what: Any) -> None:
        """Write down a fact, with the number of characters told so far."""
        world = self.world
        world.log = (kind, what, self.position), world.log

    def paragraph(self) -> None:
        """Begin the next sentence on a new line."""
        self.world.gap = "\n"

    def turn(self) -> None:
        """Mark the turn of this episode: its outcome is not told yet."""
        self.world.turn = self.position
        self.note("turn")


class Teller(Narrator):
    """Runs a program by drawing: ``random`` gives numbers in [0, 1).

    ``trace`` keeps the numbers, so that a teller fed with a trace tells the same story again, in
    another tense if asked; ``decisions`` says where in the trace something was decided unsaid.
    """

    def __init__(self, random: Callable[[], float], world: World, tense: int = 0) -> None:
        super().__init__(world)
        self.random = random
        self.tense = tense
        self.told = TOLD[tense]
        self.trace: list[float] = []
        self.sentences: list[str] = []
        self.decisions: list[tuple[int, int]] = []
        self.log_prob = 0.0

    def __call__(self, *templates: str, **drawn: AnyChoice) -> None:
        """Draw a paraphrase, then what it leaves open, and write the sentence."""
        groups = self.told.get(templates) or told(templates, drawn, self.tense)
        group, n, k = groups[0], len(groups), 1
        if n > 1 or len(group) > 3:
            u = self.random()
            self.trace.append(u)
            scaled = u * n  # its whole part picks a template, the rest a choice within
            i = int(scaled)
            group = groups[i]
            k += 2 * int((scaled - i) * (len(group) // 2))
            self.log_prob += group[0]
        world = self.world
        values = world.__dict__
        for slot in drawn:
            values[slot] = drawn[slot].draw(self)
        form, get = group[k], group[k + 1]
        text = values["gap"] + (form if get is None else form % get(world))
        values["gap"] = " "
        self.position += len(text)
        self.sentences.append(text)

    def chance(self, percent: int) -> bool:
        """True with ``percent`` chances in a hundred."""
        logs = LOG_CHANCE.get(percent)
        if logs is None:
            return self.pick(yes_or_no(percent)) is True
        u = self.random()
        self.decisions.append((len(self.trace), self.position))
        self.trace.append(u)
        yes = u * 100 < percent
        self.log_prob += logs[yes]
        return yes

    def pick(self, choice: AnyChoice) -> Any:
        """One item at random."""
        self.decisions.append((len(self.trace), self.position))
        return choice.draw(self)

    def tell(self, beat: Beat | None) -> str:
        """Run the program from a beat to its end; the whole text."""
        while beat is not None:
            beat = beat(self, self.world)
        return "".join(self.sentences)
