"""The true distribution of the next token, and the loss of a perfect model, for any tokenizer.

A story fixes its tokens: each pre-token is encoded by itself, in one way. So the token `` the`` is
not the event "the text goes on with `` the``", which `` then`` meets too; it is the event that the
next pre-token is one whose encoding begins with `` the``. What may follow is therefore written on
until the next pre-tokens are certain, encoded, and summed by token. The chapter on pretraining
draws these distributions beside a model's.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import numpy as np
import regex
from numpy.typing import NDArray

from llm_core.pretokenize import covering
from llm_core.stories.reader import Checkpoint
from llm_core.stories.readings import (
    END_OF_STORY,
    IMPOSSIBLE,
    decoded,
    forecast,
    log_sum,
    root,
)
from llm_core.tokenizer import END_OF_TEXT, Tokenizer

# After an apostrophe up to three more characters decide whether it opens a contraction: 're, 'll.
LOOKAHEAD = 3


class Pretokens:
    """A tokenizer seen as a map from text to pre-tokens and from each of those to ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.pattern is None:
            raise ValueError(
                "this tokenizer has no pattern, so a story is one piece and its tokens are certain "
                "only at the end; train one with a pattern such as 'gpt2'"
            )
        if END_OF_TEXT not in tokenizer.special_tokens:
            raise ValueError(
                f"this tokenizer has no {END_OF_TEXT}, so it can't say that a story ends; "
                f"train one with special_tokens=[{END_OF_TEXT!r}]"
            )
        self._pattern = regex.compile(covering(tokenizer.pattern))
        self.ids: Callable[[str], tuple[int, ...]] = cache(lambda one: tuple(tokenizer.encode(one)))
        (self.end_id,) = tokenizer.encode(END_OF_TEXT, allowed_special="all")
        self.vocab_size = tokenizer.vocab_size

    def split(self, text: str) -> list[str]:
        """The pre-tokens of a text."""
        return list(self._pattern.findall(text))

    def certain(self, text: str) -> list[str]:
        """The pre-tokens at the start of a text that no continuation can change."""
        if text.endswith(END_OF_STORY):
            return [*self.split(text.removesuffix(END_OF_STORY)), END_OF_STORY]
        pieces = self.split(text)
        end = 0
        for n, piece in enumerate(pieces):
            end += len(piece)
            near = piece + text[end : end + 1]  # o200k takes a contraction into the word before it
            if len(text) - end < (LOOKAHEAD if "'" in near else 1):
                return pieces[:n]
        return pieces

    def ids_of(self, pieces: Iterable[str]) -> tuple[int, ...]:
        """Their ids, one after the other; the end of the story is the end-of-text token."""
        found: list[int] = []
        for piece in pieces:
            found += (self.end_id,) if piece == END_OF_STORY else self.ids(piece)
        return tuple(found)


def _begun(pretokens: Pretokens, ids: Sequence[int], tokenizer: Tokenizer) -> tuple[str, str]:
    """The text that ids stand for: the pre-tokens that are surely whole, and the one in the making.

    Raises ValueError for ids that no text is encoded to.
    """
    text, rest = decoded(tokenizer.decode_bytes(ids))
    try:
        codecs.getincrementaldecoder("utf-8")().decode(rest)  # a begun character is none yet
    except UnicodeDecodeError as error:
        raise ValueError(f"no text has the ids {list(ids)}: behind {text!r} not UTF-8") from error
    pieces = pretokens.split(text)
    tail = pieces[-1] if pieces else ""
    head = "".join(pieces[:-1])
    begun = pretokens.ids_of(pieces[:-1])
    if tuple(ids[: len(begun)]) != begun:
        raise ValueError(f"no text has the ids {list(ids)}; they are not how {text!r} is encoded")
    return head, tail


def true_next(
    prefix: str | Sequence[int], tokenizer: Tokenizer, pairs: str = "seen"
) -> NDArray[np.float64]:
    """``(V,)`` float64: the true probability of each next token after a story's first tokens.

    ``prefix`` is a text, which stands for its tokens, or token ids. The end of the story is the
    end-of-text token. The sum is 1. Raises ValueError for a prefix that no story has, and for a
    tokenizer without a pattern or without an end-of-text token.
    """
    pretokens = _pretokens(tokenizer)
    ids = tuple(tokenizer.encode(prefix)) if isinstance(prefix, str) else tuple(prefix)
    head, tail = _begun(pretokens, ids, tokenizer)
    known = ids[len(pretokens.ids_of(pretokens.split(head))) :]
    n = len(known)

    def enough(beyond: str) -> bool:
        return len(pretokens.ids_of(pretokens.certain(tail + beyond))) > n

    found, _ = forecast(head + tail, [root(pairs)], enough)
    logs: dict[int, list[float]] = {}
    for beyond, log_p, _ in found:
        going_on = pretokens.ids_of(pretokens.certain(tail + beyond))
        if going_on[:n] == known:
            logs.setdefault(going_on[n], []).append(log_p)
    if not logs:
        shown = prefix if isinstance(prefix, str) else tokenizer.decode(ids)
        raise ValueError(f"no story begins with {shown[-60:]!r}; parse() says where it went wrong")
    total = log_sum(one for values in logs.values() for one in values)
    probabilities = np.zeros(pretokens.vocab_size)
    for token, values in logs.items():
        probabilities[token] = math.exp(log_sum(values) - total)
    return probabilities


def true_token_loss(
    text: str, tokenizer: Tokenizer, pairs: str = "seen", most: int | None = None
) -> tuple[list[int], NDArray[np.float64]]:
    """The ids of a story, end-of-text included, and ``(T,)`` float64: a perfect model's loss, nats.

    The losses sum to -log p of the text. ``most`` cuts both after so many tokens, which saves the
    time for the rest. Raises ValueError for a text that is no story, and for a tokenizer without a
    pattern or without an end-of-text token.
    """
    pretokens = _pretokens(tokenizer)
    pieces = [*pretokens.split(text), END_OF_STORY]
    checkpoints = [root(pairs)]
    logs = [0.0]  # of the probability that a story's tokens begin with the first n of these
    position = 0
    for piece in pieces:
        if most is not None and len(logs) > most:
            break
        found, checkpoints = _following(text[:position], checkpoints, pretokens)
        known = pretokens.ids_of([piece])
        for n in range(1, len(known) + 1):
            logs.append(log_sum(log_p for ids, log_p in found if ids[:n] == known[:n]))
        if logs[-1] == IMPOSSIBLE:
            raise ValueError(f"no story has {piece!r} after {text[:position][-40:]!r}; see parse()")
        position += len(piece)
    losses = -np.diff(logs)[:most]
    return list(pretokens.ids_of(pieces))[: len(losses)], losses


def _following(
    text: str, checkpoints: list[Checkpoint], pretokens: Pretokens
) -> tuple[list[tuple[tuple[int, ...], float]], list[Checkpoint]]:
    """The ids of each pre-token that may follow a text, with log-probabilities; checkpoints."""

    def enough(beyond: str) -> bool:
        return bool(pretokens.certain(beyond))

    found, kept = forecast(text, checkpoints, enough)
    return [(pretokens.ids_of(pretokens.certain(cut.beyond)[:1]), cut.log_p) for cut in found], kept


@cache
def _pretokens(tokenizer: Tokenizer) -> Pretokens:
    return Pretokens(tokenizer)
