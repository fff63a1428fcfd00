"""How good a model is, where the truth is known: the gap to the floor, and stories that are right.

The loss of a model on stories has a floor, the entropy of the program that told them, and the
distance between the two is the model's own error. A story that the model tells is parsed: the world
could have told it, or it is known at which character it could not. Chapter 5 uses both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_core import stories
from llm_core.generate import evaluating, generate
from llm_core.loss import IGNORE, token_log_probs
from llm_core.model import GPT
from llm_core.stories import Question
from llm_core.tokenizer import END_OF_TEXT, Tokenizer

Ids = Sequence[int]


# --- what a model pays for tokens -----------------------------------------------------------------


def _batches(rows: Sequence[Ids], size: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Rows of like length together: which they are, ids (B, T) and targets (B, T), -100 as pad."""
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    for start in range(0, len(rows), size):
        chosen = order[start : start + size]
        longest = max(len(rows[row]) for row in chosen) - 1
        ids = torch.zeros(len(chosen), longest, dtype=torch.long)
        targets = torch.full((len(chosen), longest), IGNORE)
        for place, row in enumerate(chosen):
            n = len(rows[row]) - 1
            ids[place, :n] = torch.tensor(rows[row][:-1])
            targets[place, :n] = torch.tensor(rows[row][1:])
        yield chosen, ids, targets


@torch.inference_mode()
def token_losses(
    model: GPT, rows: Sequence[Ids], batch_size: int = 16
) -> list[NDArray[np.float64]]:
    """What the model pays for each id of each row but the first, in nats: (n - 1,) float64 each.

    The model computes without dropout and is left in the mode it was in. Raises ValueError for a
    row of fewer than 2 ids or of more than the context length and one.
    """
    lengths = [len(row) for row in rows]
    if rows and not 2 <= min(lengths) <= max(lengths) <= model.config.context_length + 1:
        raise ValueError(
            f"rows have {min(lengths)} to {max(lengths)} ids; give each 2 to "
            f"{model.config.context_length + 1}, the context length and one more to predict"
        )
    device = model.output_weight.device
    losses: list[NDArray[np.float64]] = [np.empty(0)] * len(rows)
    with evaluating([module for module in model.modules() if module.training]):
        for chosen, ids, targets in _batches(rows, batch_size):
            hidden = model.hidden(ids.to(device))
            found = token_log_probs(hidden, model.output_weight, targets.to(device)).cpu()
            for row, values, counted in zip(chosen, found, targets != IGNORE, strict=True):
                losses[row] = -values[counted].double().numpy()
    return losses


def log_likelihood(model: GPT, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
    """log p(continuation | context) in nats, for each (context, continuation) pair of ids.

    Raises ValueError for an empty context or continuation, or one too long for the model.
    """
    if any(not context or not continuation for context, continuation in pairs):
        raise ValueError(
            "a context or a continuation is empty; begin a context with the id of <|endoftext|>"
        )
    paid = token_losses(model, [[*before, *after] for before, after in pairs])
    return [
        -float(losses[len(before) - 1 :].sum())
        for losses, (before, _) in zip(paid, pairs, strict=True)
    ]


# --- the gap to the floor -------------------------------------------------------------------------


@dataclass(frozen=True)
class StorySet:
    """Stories to test on: their ids and what a perfect model pays for each, in nats.

    ``ids`` begin with the id that ends the story before and end with their own; a story longer
    than the context is cut there, and its floor counts the tokens before the cut alone.
    """

    ids: tuple[tuple[int, ...], ...]
    floor: tuple[float, ...]

    @property
    def n_tokens(self) -> int:
        """Tokens that are predicted, over all stories."""
        return sum(len(ids) - 1 for ids in self.ids)

    def metrics(self, model: GPT) -> dict[str, float]:
        """loss, floor and gap in nats a token, as ``train(evaluate=...)`` takes them."""
        found = gap(model, self)
        return {"loss": found.loss, "floor": found.floor, "gap": found.gap}


def story_set(
    tokenizer: Tokenizer, n: int, context_length: int, split: str = "validation", seed: int = 0
) -> StorySet:
    """``n`` stories of a split with their exact floors. Raises ValueError for ``n`` below 2."""
    if n < 2:
        raise ValueError(f"n={n} stories give no standard error; take at least 2")
    end, rows, floors = tokenizer.special_tokens[END_OF_TEXT], [], []
    for story in stories.stories(n, seed, split):
        ids = [*tokenizer.encode(story.text), end]
        if len(ids) <= context_length:
            floors.append(-story.log_prob)
        else:
            ids, paid = stories.true_token_loss(
                story.text, tokenizer, story.pairs, most=context_length
            )
            floors.append(float(paid.sum()))
        rows.append((end, *ids))
    return StorySet(tuple(rows), tuple(floors))


@dataclass(frozen=True)
class Gap:
    """A model's loss on stories, the floor, and their difference, all in nats a token.

    ``error`` is the standard error of the gap over stories; that of a trained model's loss alone is
    larger, for some stories are harder than others, and the floor knows which.
    """

    loss: float
    floor: float
    gap: float
    error: float
    n_tokens: int

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}, floor {self.floor:.4f}, gap {self.gap:.4f} ± {self.error:.4f} "
            f"nats a token"
        )


def gap(model: GPT, test: StorySet, batch_size: int = 16) -> Gap:
    """The model's distance from the floor, with its standard error over stories."""
    paid = [float(losses.sum()) for losses in token_losses(model, test.ids, batch_size)]
    n, n_tokens = len(paid), test.n_tokens
    loss, floor = math.fsum(paid) / n_tokens, math.fsum(test.floor) / n_tokens
    per_token = loss - floor
    # A ratio of sums: each story's excess over what its length accounts for.
    excess = [
        a - b - per_token * (len(ids) - 1)
        for a, b, ids in zip(paid, test.floor, test.ids, strict=True)
    ]
    error = math.sqrt(math.fsum(x * x for x in excess) * n / (n - 1)) / n_tokens
    return Gap(loss, floor, per_token, error, n_tokens)


# --- stories that the model tells -----------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """A story that a model told: its text, whether it ended, and its first impossible character."""

    text: str
    ended: bool
    first_impossible: int | None

    @property
    def exact(self) -> bool:
        """Whether the world could have told it, to the end."""
        return self.ended and self.first_impossible is None

    @property
    def consistency(self) -> float:
        """The share of the text before the first impossible character, 1 where there is none."""
        if self.first_impossible is None:
            return 1.0
        return self.first_impossible / (len(self.text) + 1)


def judge(text: str, ended: bool = True) -> Told:
    """Hold a text against the world; where it did not end, its end is no fault."""
    first = stories.parse(text, pairs="any").first_impossible
    if not ended and first == len(text):
        first = None
    return Told(text, ended, first)


def tell(
    model: GPT,
    tokenizer: Tokenizer,
    n: int,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    prompt: str = "",
) -> list[Told]:
    """Let the model tell ``n`` stories, up to its context length, and judge each.

    Each begins with ``prompt``, which is judged as a part of it. The same seed and ``batch_size``
    give the same stories. Raises ValueError for a prompt that leaves no room in the context.
    """
    end = tokenizer.special_tokens[END_OF_TEXT]
    start = [end, *tokenizer.encode(prompt)]
    most = model.config.context_length - len(start)
    told = []
    for number, at in enumerate(range(0, n, batch_size)):
        rows = generate(
            model,
            start,
            most,
            temperature=temperature,
            stop=[end],
            seed=(seed << 20) + number,
            num_samples=min(batch_size, n - at),
        )
        for ids in rows:
            ended = ids[-1] == end
            text = prompt + tokenizer.decode(ids[:-1] if ended else ids)
            if not ended:  # the context may end inside a character
                text = text.rstrip("\ufffd")
            told.append(judge(text, ended))
    return told


# --- reports --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """``right`` of ``n``, with the Wilson interval that holds the true share 95 times of 100."""

    right: int
    n: int

    @property
    def value(self) -> float:
        """The share itself; NaN of nothing."""
        return self.right / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end. Paper: Wilson (1927)."""
        if not self.n:
            return 0.0, 1.0
        z2 = 1.959964**2 / self.n
        middle = (self.value + z2 / 2) / (1 + z2)
        half = math.sqrt(self.value * (1 - self.value) * z2 + z2 * z2 / 4) / (1 + z2)
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.1%} ({low:.1%} to {high:.1%}, n = {self.n})"


@dataclass(frozen=True)
class StoryReport:
    """The gap on unseen stories, and how many of the stories told are exact."""

    gap: Gap
    exact: Share
    consistency: float
    examples: tuple[Told, ...]

    def __str__(self) -> str:
        return (
            f"{self.gap}\nof the stories told {self.exact} are exact; right up to "
            f"{self.consistency:.0%} of the text on average"
        )


def story_report(
    model: GPT,
    tokenizer: Tokenizer,
    test: StorySet | None = None,
    n_told: int = 100,
    seed: int = 0,
) -> StoryReport:
    """Loss, floor and gap; the share of told stories that are exact; examples of first errors.

    Without ``test`` the gap is taken on 200 validation stories. Raises ValueError for ``n_told``
    below 1.
    """
    if n_told < 1:
        raise ValueError(f"n_told={n_told} stories tell nothing about a model; take at least 1")
    test = test or story_set(tokenizer, 200, model.config.context_length, seed=seed)
    told = tell(model, tokenizer, n_told, seed=seed)
    wrong = tuple(story for story in told if story.first_impossible is not None)
    return StoryReport(
        gap=gap(model, test),
        exact=Share(sum(story.exact for story in told), n_told),
        consistency=sum(story.consistency for story in told) / n_told,
        examples=wrong[:5],
    )


def questions_report(
    answer: Callable[[Sequence[tuple[str, str]]], Sequence[str]],
    asked: Iterable[tuple[str, Question]],
) -> dict[str, Share]:
    """How often answers equal the world's, by kind of question and for ``all``.

    ``asked`` are pairs of a story's text and a question about it; ``answer`` takes all (story,
    question text) pairs at once and returns the answers. Blanks around an answer do not count.
    Raises ValueError where the number of answers is another.
    """
    pairs = list(asked)
    answers = answer([(story, question.text) for story, question in pairs])
    if len(answers) != len(pairs):
        raise ValueError(f"{len(answers)} answers to {len(pairs)} questions; give one each")
    outcomes: dict[str, list[bool]] = {"all": []}
    for (_, question), given in zip(pairs, answers, strict=True):
        right = given.strip() == question.answer.strip()
        outcomes["all"].append(right)
        outcomes.setdefault(question.kind, []).append(right)
    return {kind: Share(sum(found), len(found)) for kind, found in sorted(outcomes.items())}


@dataclass(frozen=True)
class Calibration:
    """Predictions by their probability: ``n``, mean ``confidence`` and share ``right`` of each bin.

    ``error`` is the mean distance of the two over all predictions, the expected calibration error.
    """

    n: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error. Paper: Naeini et al. (2015)."""
        used = self.n > 0
        off = np.abs(self.confidence[used] - self.right[used])
        return float((self.n[used] * off).sum() / self.n.sum())


def calibration(
    probabilities: NDArray[np.float64], right: NDArray[np.bool_], n_bins: int = 10
) -> Calibration:
    """Are things given probability p true in a share p of cases? Bins of equal width, (n,) each.

    ``probabilities`` were given to statements, of which ``right`` says whether they came true.
    Empty bins have NaN. Raises ValueError for probabilities outside 0 to 1 or other shapes.
    """
    p, hit = np.asarray(probabilities, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if n_bins < 1:
        raise ValueError(f"n_bins={n_bins} must be at least 1")
    if p.shape != hit.shape or p.ndim != 1 or not len(p):
        raise ValueError(
            f"probabilities {p.shape} and right {hit.shape} must be equal rows of 1 or more; give "
            "(n,) and (n,)"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"probabilities must lie in 0 to 1, found {p.min()} to {p.max()}")
    bins = np.minimum((p * n_bins).astype(int), n_bins - 1)
    n = np.bincount(bins, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean_p = np.bincount(bins, p, n_bins) / n
        mean_hit = np.bincount(bins, hit, n_bins) / n
    return Calibration(n.astype(np.int64), mean_p, mean_hit)
