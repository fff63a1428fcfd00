"""Whether a model keeps track of who is who: the names of a story that could be no other.

Where a name comes in a story, what was told before often leaves one choice only, and the exact
probabilities of the world say where. A model that has learned to look back gives that name most of
its probability; one that has not gives it a share like any other. Chapter 5 watches it learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_core import stories
from llm_core.evaluate import token_losses
from llm_core.model import GPT
from llm_core.stories import lexicon
from llm_core.stories.tokens import Pretokens
from llm_core.tokenizer import END_OF_TEXT, Tokenizer

SETTLED = 0.01  # nats: what a name costs a perfect reader at most, to be called settled
Place = tuple[int, int]  # of a word's tokens in a text: from, and up to


def settled_names(text: str, tokenizer: Tokenizer, most: int | None = None) -> list[Place]:
    """Where the tokens of each name stand that costs a perfect reader less than 0.01 nats.

    With ``most``, among the first so many tokens. Raises ValueError for a text that the world
    cannot have told.
    """
    _, paid = stories.true_token_loss(text, tokenizer, most=most)
    names = {str(name) for name in lexicon.NAMES.items}
    pretokens, found, start = Pretokens(tokenizer), [], 0
    for word in pretokens.split(text):
        end = start + len(pretokens.ids(word))
        if end > len(paid):
            break
        if word.strip() in names and paid[start:end].sum() < SETTLED:
            found.append((start, end))
        start = end
    return found


@dataclass(frozen=True)
class NameSet:
    """Stories with the places of their settled names.

    ``ids`` begin with the id that ends the story before, so that a place counts from the second.
    """

    ids: tuple[tuple[int, ...], ...]
    places: tuple[tuple[Place, ...], ...]

    def losses(self, model: GPT) -> NDArray[np.float64]:
        """What the model pays for each settled name, in nats, in their order: (n,)."""
        paid = zip(token_losses(model, self.ids), self.places, strict=True)
        return np.array([row[start:end].sum() for row, spans in paid for start, end in spans])

    def metrics(self, model: GPT) -> dict[str, float]:
        """``name_loss``, the mean in nats, and ``names_tracked``, the share given more than 1/2.

        Empty where no name is settled, as in stories cut to a few tokens.
        """
        paid = self.losses(model)
        if not len(paid):
            return {}
        return {
            "name_loss": float(paid.mean()),
            "names_tracked": float((paid < math.log(2)).mean()),
        }


def name_set(tokenizer: Tokenizer, n: int, context_length: int) -> NameSet:
    """The settled names of the first ``n`` validation stories, each cut to the context."""
    end, rows, places = tokenizer.special_tokens[END_OF_TEXT], [], []
    for story in stories.stories(n, split="validation"):
        rows.append((end, *tokenizer.encode(story.text)[:context_length]))
        places.append(tuple(settled_names(story.text, tokenizer, context_length)))
    return NameSet(tuple(rows), tuple(places))
