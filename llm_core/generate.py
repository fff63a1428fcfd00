"""Generation: ids in, new ids out, one token a step, chosen by temperature, top-k, top-p or min-p.

A prompt is read once, which fills the ``KVCache``; then every sample goes its own way, one token a
step. Prompts of unequal length share a batch, padded on the left. Chapter 4 derives each
filter and shows what the cache saves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from llm_core import runtime
from llm_core.attention import KVCache
from llm_core.decode import Decoder, can_decode, copied
from llm_core.model import GPT

# With more rows PyTorch's matrix products are as fast as the loops of ``decode``, or faster: by 1.4
# at 8 rows in bfloat16 on a processor that multiplies tiles. One that has no products in bfloat16
# is slower by 2.3 there.
MOST_ROWS = 12
MOST_ROWS_BFLOAT16, MOST_ROWS_EMULATED = 4, 16

Prompts = Sequence[int] | Sequence[Sequence[int]]

# --- the distribution ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Filters:
    """What is done to the logits before a token is drawn; temperature 0 takes the largest."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature={self.temperature} must be a finite number of at least 0; 0 takes "
                "the most likely token, 1 leaves the model's distribution as it is"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k={self.top_k} must be at least 1; None keeps all tokens")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p={self.top_p} must be above 0 and at most 1; None keeps all tokens"
            )
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(
                f"min_p={self.min_p} must be at least 0 and at most 1; None keeps all tokens"
            )


def _keep_top_k(logits: Tensor, k: int) -> Tensor:
    least = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def _keep_top_p(logits: Tensor, p: float) -> Tensor:
    probabilities, order = logits.softmax(dim=-1).sort(dim=-1, descending=True)
    mass_before = probabilities.cumsum(dim=-1) - probabilities
    dropped = torch.zeros_like(logits, dtype=torch.bool)
    # The token that crosses p has less than p before it and is kept; the first has nothing before.
    dropped.scatter_(-1, order, mass_before >= p)
    return logits.masked_fill(dropped, -torch.inf)


def _keep_min_p(logits: Tensor, p: float) -> Tensor:
    probabilities = logits.softmax(dim=-1)
    least = p * probabilities.amax(dim=-1, keepdim=True)
    return logits.masked_fill(probabilities < least, -torch.inf)


def filter_logits(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> Tensor:
    """Logits (..., V) divided by ``temperature``, -inf where filtered out: (..., V) float32.

    The filters apply in turn, each to the distribution that the one before left: ``top_k`` keeps
    the k most likely tokens (and those that tie with the last; Fan et al., 2018), ``top_p`` the
    fewest most likely ones that together have at least probability p (Holtzman et al., 2020),
    ``min_p`` those at least p times as likely as the most likely one (Nguyen et al., 2024).

    Raises ValueError for a value out of range and for temperature 0, which has no distribution.
    """
    _Filters(temperature, top_k, top_p, min_p)
    if temperature == 0:
        raise ValueError("temperature=0 leaves no distribution to filter; take logits.argmax(-1)")
    logits = logits.float() / temperature
    if top_k is not None:
        logits = _keep_top_k(logits, top_k)
    if top_p is not None and top_p < 1:  # a rounded sum may reach 1 before the last token
        logits = _keep_top_p(logits, top_p)
    if min_p is not None:
        logits = _keep_min_p(logits, min_p)
    return logits


# --- drawing ------------------------------------------------------------------------------------


def _generators(seed: int | None, n_prompts: int, num_samples: int) -> list[torch.Generator]:
    """One generator for each row, prompt-major.

    It depends on the seed and the number of the sample, not on the other prompts, so that a prompt
    gets the same text alone and in a batch. Mixing the two keeps sample 1 of seed 0 apart from
    sample 0 of seed 1.
    """
    if seed is not None and seed < 0:
        raise ValueError(f"seed={seed} must be at least 0; leave it out for other texts each time")
    if seed is None:
        seed = int(torch.randint(2**63 - 1, ()))
    samples = [np.random.SeedSequence((seed, s)).generate_state(1) for s in range(num_samples)]
    seeds = [int(state[0]) for state in samples] * n_prompts
    return [torch.Generator().manual_seed(row_seed) for row_seed in seeds]


def _check_finite(largest: Tensor) -> None:
    """Raise ValueError where a row's largest logit, or its sum of weights, is no number."""
    if not bool(largest.isfinite().all()):
        row = int((~largest.isfinite()).nonzero()[0, 0])
        raise ValueError(
            f"the logits of row {row} are not finite, so there is no token to choose; look for nan "
            "or inf in the model's weights"
        )


def _draw(logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """A token for each row: filtered logits (R, V) -> (R,) int64.

    Each row takes one number from its generator and looks up where it falls in the sums of the
    probabilities: V additions, where ``torch.multinomial`` draws V random numbers.
    """
    uniform = [torch.rand((), generator=one, dtype=torch.float64) for one in generators]
    if logits.device.type == "mps":  # which has no float64
        logits = logits.cpu()
    sums = logits.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)  # (R, V)
    total = sums[:, -1:]
    _check_finite(total)
    point = torch.stack(uniform).to(logits.device)[:, None] * total
    # Below the total, even after rounding: else the token found could have probability 0.
    point = torch.minimum(point, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, point, right=True)[:, 0]


def _choose(logits: Tensor, filters: _Filters, generators: Sequence[torch.Generator]) -> Tensor:
    """The next token of each row: (R, V) -> (R,) int64."""
    if filters.temperature == 0:
        largest, ids = logits.max(dim=-1)
        _check_finite(largest)
        return ids
    kept = filter_logits(logits, filters.temperature, filters.top_k, filters.top_p, filters.min_p)
    return _draw(kept, generators)


# --- reading ------------------------------------------------------------------------------------


def most_rows(dtype: torch.dtype) -> int:
    """Up to how many texts at a time the compiled step is the faster one, on a CPU."""
    if dtype == torch.float32:
        return MOST_ROWS
    here = runtime.dtype(torch.device("cpu"))
    return MOST_ROWS_BFLOAT16 if here == torch.bfloat16 else MOST_ROWS_EMULATED


class _Rows:
    """The texts that grow, one for each prompt and sample, and what the model has read of them."""

    def __init__(
        self, model: GPT, prompts: Sequence[Sequence[int]], num_samples: int, max_new_tokens: int
    ) -> None:
        self.model, self.limit = model, model.config.context_length
        self.prompts, self.num_samples = [prompt[-self.limit :] for prompt in prompts], num_samples
        self.texts = [list(prompt) for prompt in self.prompts for _ in range(num_samples)]
        self.left = max_new_tokens
        most = most_rows(model.output_weight.dtype) if can_decode(model) else 0
        self.fast = len(self.texts) <= most
        self.cache: KVCache | None = None
        self.decoder: Decoder | None = None

    def logits(self) -> Tensor:
        """What follows each text: (R, V) float32. Reads what was appended since the last call."""
        if self.cache is None:
            return self._read(self.prompts, self.num_samples)
        if max(map(len, self.texts)) > self.limit:
            return self._slide()
        last = torch.tensor([text[-1] for text in self.texts], device=self.cache.k.device)
        if not self.fast:
            return self.model.logits(self.model.hidden(last[:, None], self.cache)[:, -1]).float()
        if self.decoder is None:
            self.decoder = Decoder(self.model, len(last), self.cache.max_length)
            self.decoder.start(self.cache)
        return self.decoder.step(last)

    def append(self, ids: Sequence[int]) -> None:
        """Add one id to each text."""
        self.left -= 1
        for text, new in zip(self.texts, ids, strict=True):
            text.append(new)

    def _read(self, texts: Sequence[Sequence[int]], num_samples: int) -> Tensor:
        """Read each text once, for ``num_samples`` rows: the logits that follow, (R, V) float32."""
        weight, config, longest = self.model.output_weight, self.model.config, max(map(len, texts))
        padding = torch.tensor([longest - len(text) for text in texts], device=weight.device)
        padded = [[0] * (longest - len(text)) + list(text) for text in texts]
        most = min(self.limit, longest + self.left - 1)  # nothing reads the last new id
        dtype = torch.float32 if self.fast else weight.dtype
        copied_after = num_samples > 1 or dtype != weight.dtype
        length = longest if copied_after else most
        cache = KVCache(config, len(texts), length, padding, weight.device, weight.dtype)
        x = self.model.hidden(torch.tensor(padded, device=weight.device), cache)
        self.cache = copied(cache, config, most, num_samples, dtype) if copied_after else cache
        return self.model.logits(x[:, -1]).float().repeat_interleave(num_samples, dim=0)

    def _slide(self) -> Tensor:
        """Start anew; a text that outgrew the context from its last half.

        Others keep all they have, so that a row in a batch reads what it would read alone.
        """
        kept, self.decoder = max(1, self.limit // 2), None
        self.texts = [t[-kept:] if len(t) > self.limit else t for t in self.texts]
        return self._read(self.texts, 1)


# --- the options --------------------------------------------------------------------------------


def _as_prompts(ids: Prompts, vocab_size: int) -> list[list[int]]:
    """One prompt or several, as several. Raises ValueError for an empty one or an unknown id."""
    several = len(ids) > 0 and isinstance(ids[0], Sequence)
    given = cast(Sequence[Sequence[int]], ids if several else [ids])
    prompts = [[index(value) for value in prompt] for prompt in given]
    for number, prompt in enumerate(prompts):
        if not prompt:
            raise ValueError(
                f"prompt {number} is empty; begin with at least one id, such as the end-of-text id"
            )
        for value in prompt:
            _check_id(value, vocab_size, f"prompt {number}")
    return prompts


def _check_id(value: int, vocab_size: int, where: str) -> None:
    if not 0 <= value < vocab_size:
        raise ValueError(
            f"id {value} of {where} is not in the vocabulary, 0 to {vocab_size - 1}; encode with "
            "the tokenizer that the model was trained with"
        )


def _check_lengths(
    prompts: Sequence[Sequence[int]], max_new_tokens: int, num_samples: int, limit: int, slide: bool
) -> None:
    for name, value in (("max_new_tokens", max_new_tokens), ("num_samples", num_samples)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1")
    longest = max(map(len, prompts))
    room = limit - longest + 1  # the last new id is not read
    if not slide and max_new_tokens > room:
        remedy = f"ask for at most {room}" if room > 0 else f"shorten the prompt to {limit}"
        raise ValueError(
            f"a prompt of {longest} ids and max_new_tokens={max_new_tokens} exceed "
            f"context_length={limit}; {remedy}, or pass slide=True to go on from the last half of "
            "the context"
        )


@contextmanager
def evaluating(training: Sequence[nn.Module]) -> Iterator[None]:
    """Without dropout inside, and as before outside: the modules given are those that train."""
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


# --- generation ---------------------------------------------------------------------------------


@torch.inference_mode()  # of a generator, torch's decorator leaves the mode at each yield
def _steps(
    model: GPT, rows: _Rows, filters: _Filters, generators: Sequence[torch.Generator]
) -> Iterator[list[int]]:
    """The next token of every row, step by step."""
    training = [module for module in model.modules() if module.training]
    while rows.left > 0:
        with evaluating(training):
            ids = _choose(rows.logits(), filters, generators).tolist()
        rows.append(ids)
        yield ids


def _prepared(
    model: GPT,
    ids: Prompts,
    max_new_tokens: int,
    filters: _Filters,
    stop: frozenset[int],
    seed: int | None,
    num_samples: int,
    slide: bool,
) -> tuple[int, Iterator[list[int]]]:
    """How many rows there are, and their steps. Raises ValueError for what cannot be done."""
    config = model.config
    prompts = _as_prompts(ids, config.vocab_size)
    _check_lengths(prompts, max_new_tokens, num_samples, config.context_length, slide)
    for value in sorted(stop):
        _check_id(value, config.vocab_size, "stop")
    rows = _Rows(model, prompts, num_samples, max_new_tokens)
    generators = _generators(seed, len(prompts), num_samples) if filters.temperature else []
    return len(rows.texts), _steps(model, rows, filters, generators)


def stream(
    model: GPT,
    ids: Sequence[int],
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: Iterable[int] = (),
    seed: int | None = None,
    slide: bool = False,
) -> Iterator[int]:
    """The new ids of one prompt as they are made; the options are those of ``generate``.

    Raises ValueError at the call, before the first id is asked for.
    """
    filters, stops = _Filters(temperature, top_k, top_p, min_p), frozenset(stop)
    n_rows, steps = _prepared(model, ids, max_new_tokens, filters, stops, seed, 1, slide)
    if n_rows != 1:
        raise ValueError(f"{n_rows} prompts cannot be streamed as one; call stream for each")
    return _until(stops, (row[0] for row in steps))


def _until(stops: frozenset[int], ids: Iterator[int]) -> Iterator[int]:
    for new in ids:
        yield new
        if new in stops:
            return


def generate(
    model: GPT,
    ids: Prompts,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    stop: Iterable[int] = (),
    seed: int | None = None,
    num_samples: int = 1,
    slide: bool = False,
) -> list[list[int]]:
    """Continue one prompt or several: a list of new ids for each prompt and sample, prompt-major.

    Temperature 0 takes the most likely token; otherwise one is drawn from what ``filter_logits``
    leaves, with a generator for each row, so that the same seed gives the same ids, in a batch as
    one by one; without a seed they follow from torch's global generator. A row ends after an id of
    ``stop``, which it includes. With ``slide``, a text that outgrows the context goes on from the
    last half of it. The model computes without dropout and is left in the mode it was in.

    Raises ValueError for an empty prompt, an id out of the vocabulary, an option out of range,
    and, without ``slide``, for more positions than the context length.
    """
    filters, stops = _Filters(temperature, top_k, top_p, min_p), frozenset(stop)
    n_rows, steps = _prepared(model, ids, max_new_tokens, filters, stops, seed, num_samples, slide)
    texts: list[list[int]] = [[] for _ in range(n_rows)]
    growing = set(range(n_rows))
    for step in steps:
        for row in list(growing):
            texts[row].append(step[row])
            if step[row] in stops:
                growing.remove(row)
        if not growing:
            break
    return texts
