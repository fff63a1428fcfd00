"""Conversations: how messages become ids, which of them are learned, and how a model answers.

Three control tokens say who speaks. ``render`` writes a conversation down with a mask that is 1
where the assistant speaks, ``Conversations`` packs many of them into the rows of a batch, and the
loss is that of pretraining: ``train.next_token_loss``. ``reply`` lets a model answer. Chapter 7
builds each of these and shows what happens without the mask.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llm_core.dataset import check_state, count_in
from llm_core.generate import stream as stream_ids
from llm_core.loss import IGNORE
from llm_core.model import GPT
from llm_core.tokenizer import Tokenizer

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"
CONTROL_TOKENS = (USER, ASSISTANT, END)
ROLES = ("system", "user", "assistant")
OPEN_ROWS = 64  # rows that packing may still put a conversation into

Message = Mapping[str, str]


# --- control tokens -----------------------------------------------------------------------------


def chat_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """The same tokenizer with the control tokens behind its own: every other id stays.

    Raises ValueError where it has one of them already.
    """
    if found := [token for token in CONTROL_TOKENS if token in tokenizer.special_tokens]:
        raise ValueError(
            f"the tokenizer has {found[0]} already; use it as it is where it has all of "
            f"{', '.join(CONTROL_TOKENS)}, else one without them"
        )
    specials = dict(tokenizer.special_tokens)
    specials |= {token: tokenizer.vocab_size + i for i, token in enumerate(CONTROL_TOKENS)}
    ordinary = {i: t for i, t in tokenizer.vocab.items() if i not in specials.values()}
    return Tokenizer(ordinary, tokenizer.merges, specials, tokenizer.pattern)


def is_chat_tokenizer(tokenizer: Tokenizer) -> bool:
    """Whether a tokenizer has the control tokens."""
    return all(token in tokenizer.special_tokens for token in CONTROL_TOKENS)


def _check(tokenizer: Tokenizer) -> None:
    if missing := [token for token in CONTROL_TOKENS if token not in tokenizer.special_tokens]:
        raise ValueError(
            f"the tokenizer has no {missing[0]}: it is of a model that only continues text; "
            "make one with chat_tokenizer and tune a model on conversations"
        )


@torch.no_grad()
def grow(model: GPT, vocab_size: int, seed: int = 0, context_length: int | None = None) -> GPT:
    """A copy of the model with ``vocab_size`` rows in its table, and in its head where it has one.

    A new row is the mean of the old ones, with a thousandth of their spread as noise, so that no
    two are the same: what is unknown looks like what is common. With a ``context_length`` the copy
    may read that far; beyond the old length it has learned nothing yet. The model is left as it is.
    Raises ValueError for fewer rows than there are, and for another context length where each
    position has a learned vector.
    """
    old = model.config.vocab_size
    if vocab_size < old:
        raise ValueError(f"vocab_size={vocab_size} is below the {old} rows that the model has")
    length = context_length or model.config.context_length
    if length != model.config.context_length and model.config.position == "learned":
        raise ValueError(
            f"context_length={length} needs other vectors than the {model.config.context_length} "
            "that were learned for the positions; leave it out, or take a model with rotary ones"
        )
    weight = model.output_weight
    with torch.device("meta"):
        grown = GPT(model.config.changed(vocab_size=vocab_size, context_length=length))
    generator = torch.Generator().manual_seed(seed)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name in ("token_embedding.weight", "head.weight"):
        if name in state:
            rows = state[name].float()
            noise = torch.randn(vocab_size - old, rows.shape[1], generator=generator)
            new = rows.mean(0) + 1e-3 * rows.std() * noise.to(rows.device)
            state[name] = torch.cat((state[name], new.to(weight.dtype)))
    grown.load_state_dict(state, assign=True)
    for mine, parameter in zip(grown.parameters(), model.parameters(), strict=True):
        mine.requires_grad_(parameter.requires_grad)
    return grown.train(model.training)


# --- the template -------------------------------------------------------------------------------


class Rendered(NamedTuple):
    """A conversation as ids, and a mask of the same length: 1 for what is to be learned."""

    ids: list[int]
    mask: list[int]


def _turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """(role, text) with the system's words in front of the first user's.

    Raises ValueError for what is no conversation.
    """
    turns: list[tuple[str, str]] = []
    system: list[str] = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise ValueError(f"message {number} is {message!r}; it must have a role and a content")
        role, text = message.get("role"), message.get("content")
        if role not in ROLES or not isinstance(text, str):
            raise ValueError(
                f"message {number} has role {role!r} and content {text!r}; a message has a role, "
                f"{', '.join(ROLES)}, and a text as its content"
            )
        if role == "system":
            if turns:
                raise ValueError(f"message {number} is the system's; it speaks before all others")
            system.append(text)
        else:
            turns.append((role, text))
    if not turns or turns[0][0] != "user":
        raise ValueError("a conversation begins with a user's message, after the system's if any")
    if system:
        turns[0] = ("user", "\n\n".join((*system, turns[0][1])))
    return turns


def render(
    messages: Sequence[Message], tokenizer: Tokenizer, max_length: int | None = None
) -> Rendered:
    """A conversation as ids, with a mask: 1 on the assistant's words and the end token behind them.

    Messages are ``{"role": "user", "content": "Hello"}``; a system's text is put before the first
    user's. The assistant's words have a blank in front, for words within a text have one, and are
    then the same tokens: an answer can be copied. What looks like a control token in a text is
    ordinary text. Of a conversation longer than ``max_length`` the end is cut from both. Raises
    ValueError for messages in an impossible order, and a tokenizer without control tokens.
    """
    _check(tokenizer)
    special, ids, mask = tokenizer.special_tokens, list[int](), list[int]()
    for role, text in _turns(messages):
        # No special token comes out of a text, whatever it says.
        words = tokenizer.encode(f" {text}" if role == "assistant" else text)
        ids += [special[USER if role == "user" else ASSISTANT], *words, special[END]]
        mask += [0] + [int(role == "assistant")] * (len(words) + 1)
    return Rendered(ids[:max_length], mask[:max_length])


def render_for_completion(
    messages: Sequence[Message], tokenizer: Tokenizer, max_length: int | None = None
) -> list[int]:
    """The ids after which the assistant speaks: the conversation and ``<|assistant|>``.

    Where they are more than ``max_length``, the oldest exchanges are left out, never the system's
    words. Raises ValueError where the last message is the assistant's, and where the last one alone
    is too long.
    """
    turns = _turns(messages)
    if turns[-1][0] != "user":
        raise ValueError("the assistant has spoken last; add a user's message to be answered")

    def ids_without(n: int) -> list[int]:
        ids = render(without_oldest(messages, n), tokenizer).ids
        return [*ids, tokenizer.special_tokens[ASSISTANT]]

    if max_length is None:
        return ids_without(0)
    most = sum(role == "user" for role, _ in turns) - 1  # the last message stays
    ids = ids_without(
        bisect_left(range(most), True, key=lambda n: len(ids_without(n)) <= max_length)
    )
    if len(ids) > max_length:
        raise ValueError(
            f"the last message and the system's words are {len(ids)} tokens, and {max_length} fit; "
            "say it shorter"
        )
    return ids


def without_oldest(messages: Sequence[Message], n: int) -> list[Message]:
    """The messages without the first ``n`` of the user's and what was answered to them."""
    kept, seen = list[Message](), 0
    for message in messages:
        seen += message["role"] == "user"
        if message["role"] == "system" or seen > n:
            kept.append(message)
    return kept


# --- batches ------------------------------------------------------------------------------------


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of at most ``capacity`` together, each the places of the lengths in it: first fit.

    Only the last ``OPEN_ROWS`` rows are looked at, so that time does not grow with the square.
    Raises ValueError for a length that fits no row.
    """
    rows: list[list[int]] = []
    room: list[int] = []  # of the last OPEN_ROWS rows
    for place, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"length {length} at {place} exceeds the {capacity} of a row")
        found = next((i for i, free in enumerate(room) if free >= length), None)
        if found is None:
            rows.append([])
            room.append(capacity)
            room, found = room[-OPEN_ROWS:], min(len(room), OPEN_ROWS) - 1
        rows[len(rows) - len(room) + found].append(place)
        room[found] -= length
    return rows


class Conversations(Iterator[dict[str, Tensor]]):
    """Batches of conversations, endless, each epoch in another order; they resume like others.

    A batch has ``ids``, ``targets`` (-100 where nothing is to be learned), ``documents`` and
    ``positions``, (B, T) int64 each: several conversations share a row and none sees another. With
    ``packed=False`` each has a row for itself, as long as the longest of the batch needs, and there
    are no ``documents`` and ``positions``: faster where most conversations fill a row. With a
    ``context_weight`` above 0 what the mask leaves out is learned, too, and counts that much:
    ``weights``, (B, T) float32, are then in the batch. What is longer than the context is cut, and
    what keeps no word of the assistant is left out. Raises ValueError where nothing is left, for
    sizes below 1 and a weight outside 0 to 1.
    """

    def __init__(
        self,
        rendered: Sequence[Rendered],
        batch_size: int,
        context_length: int,
        seed: int = 0,
        packed: bool = True,
        context_weight: float = 0.0,
    ) -> None:
        if not 0 <= context_weight <= 1:
            raise ValueError(
                f"context_weight={context_weight} must lie between 0, only answers are learned, "
                "and 1, all counts the same"
            )
        if batch_size < 1 or context_length < 1:
            raise ValueError(
                f"batch_size={batch_size} and context_length={context_length} must be at least 1"
            )
        rows = [Rendered(*(part[: context_length + 1] for part in one)) for one in rendered]
        self.rows = [one for one in rows if any(one.mask[1:])]
        if not self.rows:
            raise ValueError(
                f"none of {len(rendered)} conversations has a word of the assistant within "
                f"{context_length + 1} tokens; give others, or a longer context"
            )
        self.batch_size, self.context_length = batch_size, context_length
        self.seed, self.packed, self.context_weight = seed, packed, context_weight
        self.epoch, self.n_taken = 0, 0  # rows taken of this epoch
        self._order: list[list[int]] = []
        self._digest = hashlib.sha256(repr(self.rows).encode()).hexdigest()

    def _plan(self) -> None:
        """The rows of an epoch, each the conversations in it."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.rows))
        if not self.packed:
            self._order = [[int(i)] for i in order]
            return
        lengths = [len(self.rows[i].ids) - 1 for i in order]
        self._order = [
            [int(order[place]) for place in row] for row in pack(lengths, self.context_length)
        ]

    def __next__(self) -> dict[str, Tensor]:
        taken: list[list[int]] = []
        while len(taken) < self.batch_size:
            if not self._order:
                self._plan()
            rest = self._order[self.n_taken : self.n_taken + self.batch_size - len(taken)]
            taken, self.n_taken = [*taken, *rest], self.n_taken + len(rest)
            if self.n_taken == len(self._order):
                self.epoch, self.n_taken, self._order = self.epoch + 1, 0, []
        return self._batch(taken)

    def _batch(self, taken: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        width = self.context_length
        if not self.packed:  # few widths, since a compiled model has to be compiled for each
            longest = max(len(self.rows[i].ids) - 1 for row in taken for i in row)
            width = min(width, -(-longest // 64) * 64)
        names = {"ids": 0, "targets": IGNORE, "documents": -1, "positions": 0}
        batch = {name: np.full((len(taken), width), empty) for name, empty in names.items()}
        weights = np.zeros((len(taken), width), np.float32)
        for r, row in enumerate(taken):
            start = 0
            for number, i in enumerate(row):
                ids, mask = (np.array(part) for part in self.rows[i])
                place = slice(start, start := start + len(ids) - 1)
                batch["ids"][r, place] = ids[:-1]
                learned = (mask[1:] == 1) | (self.context_weight > 0)
                batch["targets"][r, place] = np.where(learned, ids[1:], IGNORE)
                weights[r, place] = np.where(mask[1:] == 1, 1.0, self.context_weight)
                batch["documents"][r, place] = number
                batch["positions"][r, place] = np.arange(len(ids) - 1)
        if not self.packed:
            del batch["documents"], batch["positions"]
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        return {**tensors, "weights": torch.from_numpy(weights)} if self.context_weight else tensors

    def _identity(self) -> dict[str, Any]:
        names = ("batch_size", "context_length", "seed", "packed", "context_weight")
        return {"conversations": self._digest, **{name: getattr(self, name) for name in names}}

    def state(self) -> dict[str, Any]:
        """Where the iterator stands, as json takes it."""
        return {**self._identity(), "epoch": self.epoch, "n_taken": self.n_taken}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state()`` was taken.

        Raises ValueError where the conversations differ, and for a place beyond an epoch's end.
        """
        check_state(state, self._identity())
        self.epoch, self.n_taken = count_in(state, "epoch"), count_in(state, "n_taken")
        self._order = []
        if self.n_taken:
            self._plan()
            if self.n_taken >= len(self._order):
                raise ValueError(
                    f"n_taken={self.n_taken} of this state is beyond the {len(self._order)} rows "
                    "of an epoch; start without a state"
                )


# --- answering ----------------------------------------------------------------------------------


def stream(
    model: GPT,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int | None = None,
    **filters: Any,
) -> Iterator[str]:
    """The assistant's answer, piece by piece as it is made; ``filters`` are those of ``generate``.

    It ends where the model says a special token, which is ``<|end|>`` once it has learned to.
    Without ``max_new_tokens`` the answer may fill what the context leaves, and a quarter of the
    context is kept free for it. Raises ValueError, when the first piece is asked for, where the
    messages do not fit beside that.
    """
    most = model.config.context_length
    if max_new_tokens is not None and not 1 <= max_new_tokens < most:
        raise ValueError(
            f"max_new_tokens={max_new_tokens} must be at least 1 and below context_length={most}; "
            "leave it out to use what the context leaves"
        )
    least = most // 4 if max_new_tokens is None else max_new_tokens
    ids = render_for_completion(messages, tokenizer, most - least)
    stops = sorted(tokenizer.special_tokens.values())  # nobody else speaks in an answer
    n_new = most - len(ids) if max_new_tokens is None else max_new_tokens
    new = stream_ids(model, ids, n_new, temperature=temperature, stop=stops, seed=seed, **filters)
    first = True
    for piece in tokenizer.decode_stream(i for i in new if i not in stops):
        yield piece.removeprefix(" ") if first else piece  # the blank of the template
        first = False


def reply(
    model: GPT,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    max_new_tokens: int | None = None,
    temperature: float = 0.0,
    seed: int | None = None,
    **filters: Any,
) -> str:
    """The whole answer of ``stream``."""
    return "".join(stream(model, tokenizer, messages, max_new_tokens, temperature, seed, **filters))
