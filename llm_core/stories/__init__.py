"""Stories from a small world, told by a program whose every choice has a known probability.

``sample(seed)`` tells a story; ``parse(text)`` gives the exact probability of any text, its facts,
or where it stops being a story; ``true_next`` and ``true_token_loss`` are what a perfect model
would know. ``MODULES`` is the reading order: how sentences and choices work, the state of the
world, the two ways to run a program, its words and scenes and plots, then what is made of it. The
preface says why the book is built on it, the appendix "The world" prints all of it.
"""

from llm_core.stories.corpus import SPLITS, Entropy, entropy, split_of, stories, write_corpus
from llm_core.stories.facts import Facts
from llm_core.stories.questions import Question, questions
from llm_core.stories.readings import (
    END_OF_STORY,
    Parse,
    Story,
    branch,
    continuations,
    outcomes,
    parse,
    prefix_log_prob,
    retell,
    sample,
)
from llm_core.stories.tokens import true_next, true_token_loss
from llm_core.stories.told import Told

MODULES = (
    "choices",
    "wording",
    "world",
    "engine",
    "reader",
    "lexicon",
    "phrases",
    "episodes",
    "scenes",
    "plots",
    "facts",
    "readings",
    "tokens",
    "corpus",
    "told",
    "questions",
    "tasks",
)

__all__ = [
    "END_OF_STORY",
    "SPLITS",
    "Entropy",
    "Facts",
    "Parse",
    "Question",
    "Story",
    "Told",
    "branch",
    "continuations",
    "entropy",
    "outcomes",
    "parse",
    "prefix_log_prob",
    "questions",
    "retell",
    "sample",
    "split_of",
    "stories",
    "true_next",
    "true_token_loss",
    "write_corpus",
]
