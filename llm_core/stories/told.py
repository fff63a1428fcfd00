"""A story as the finders of questions look at it: its facts, told in the past, and its sentences.

Questions are in the past tense whatever the story's, so its choices are told anew in that tense.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from random import Random

from llm_core.stories.engine import Teller
from llm_core.stories.facts import Facts
from llm_core.stories.readings import Story, tense_number
from llm_core.stories.scenes import story as first_beat
from llm_core.stories.world import World, events_of

LONGEST_SENTENCE = 100  # characters of a sentence that is to be put into another tense


class Told:
    """What the kinds look at: the facts of a story told in the past, and its sentences."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.past = self._teller("past")
        self.text = "".join(self.past.sentences)
        self.facts = Facts(events_of(self.past.world.log))

    def _teller(self, tense: str) -> Teller:
        chances = iter(self.story.trace).__next__
        teller = Teller(chances, World(self.story.pairs), tense_number(tense))
        teller.tell(first_beat)
        return teller

    @cached_property
    def both_tenses(self) -> list[tuple[str, str]]:
        """The sentences that differ between the tenses: in the past, in the present."""
        both = zip(self.past.sentences, self._teller("present").sentences, strict=True)
        short = (pair for pair in both if max(map(len, pair)) <= LONGEST_SENTENCE)
        return [(past.strip(), present.strip()) for past, present in short if past != present]

    def random(self, kind: str) -> Random:
        """The generator that chooses among the questions of a kind, seeded by the story."""
        seed = f"{kind}:{self.text}".encode()
        return Random(hashlib.blake2b(seed, digest_size=8).digest())
