"""Classification: a GPT whose last token says which of a few labels a text has.

The body is a pretrained GPT, the head a matrix with a row for each label. ``train`` trains the two
like any model; this module has what is different: batches of whole texts, a loss, which parts learn
and the report that a classifier owes its user. In shapes, C counts labels here. See chapter 6.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from llm_core import checkpoint, lora
from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig
from llm_core.curriculum import Batch
from llm_core.dataset import check_state, count_in
from llm_core.evaluate import Calibration, Share, calibration
from llm_core.generate import evaluating
from llm_core.model import GPT
from llm_core.tokenizer import END_OF_TEXT, Tokenizer
from llm_core.train import train
from llm_core.trainconfig import Metrics, TrainConfig

Examples = Sequence[tuple[str, str]]  # (text, label) pairs
TOKENIZER = "tokenizer.json"
LENGTH_NOISE = 0.2  # texts whose lengths differ by less than this share may change places


# --- the model ------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """A GPT with a head for labels: ids (B, T) and lengths (B,) int64 -> logits (B, C).

    ``head`` reads what the body makes of the last token of each text and begins at 0, so that all
    labels are equally likely at first. The body is used as it is, not copied; its own head is idle.
    Raises ValueError for fewer than 2 labels and for one that occurs twice.
    """

    def __init__(self, body: GPT, labels: Sequence[str]) -> None:
        super().__init__()
        if len(labels) < 2 or len(set(labels)) < len(labels):
            raise ValueError(f"labels={list(labels)} must be at least 2, each of them once")
        self.body, self.labels = body, tuple(labels)
        like = body.output_weight
        self.head = nn.Linear(
            body.config.d_model, len(labels), device=like.device, dtype=like.dtype
        )
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def config(self) -> GPTConfig:
        """That of the body."""
        return self.body.config

    @property
    def blocks(self) -> nn.ModuleList:
        """Those of the body."""
        return self.body.blocks

    @property
    def output_weight(self) -> Tensor:
        """The matrix of the head, (C, D)."""
        return self.head.weight

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """The logits of texts that are padded on the right: what stands there changes nothing.

        Where nothing in the body learns, no gradient is kept for it.
        """
        learns = any(parameter.requires_grad for parameter in self.body.parameters())
        with nullcontext() if learns else torch.no_grad():
            x = self.body.hidden(ids)  # (B, T, D)
        last = x[torch.arange(len(ids), device=ids.device), lengths - 1]  # (B, D)
        logits: Tensor = self.head(last)
        return logits


def freeze(classifier: Classifier, trainable: Sequence[str] = ("head",)) -> None:
    """Let only these parts learn: ``head``, ``body.blocks.3``, ``body.final_norm``; "" is all.

    Raises ValueError for a name that fits none.
    """
    lora.learn_only(classifier, trainable)


# --- batches --------------------------------------------------------------------------------------


def _encode(tokenizer: Tokenizer, texts: Sequence[str], context_length: int) -> list[list[int]]:
    """The ids of each text after the one that begins documents; of a long text its last ones."""
    start, most = tokenizer.special_tokens[END_OF_TEXT], context_length - 1
    return [[start, *ids[max(0, len(ids) - most) :]] for ids in map(tokenizer.encode, texts)]


def _padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as ids (B, T), padded on the right with 0, and their lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
    return ids, lengths


class Batches(Iterator[Batch]):
    """Endless batches of labeled texts: ``ids`` (B, T), ``lengths`` and ``labels`` (B,), int64.

    Every epoch is a permutation of the examples that follows from the seed and its number, in as
    few batches as it takes, all of a size or one less. Texts of similar length share a batch, which
    spares padding. A text begins with the id of <|endoftext|> and keeps its last tokens where it
    has more than ``context_length``.
    Raises ValueError for no examples, a label that is not among ``labels``, and sizes too small.
    """

    def __init__(
        self,
        examples: Examples,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        batch_size: int,
        context_length: int,
        seed: int = 0,
    ) -> None:
        if batch_size < 1 or context_length < 2:
            raise ValueError(
                f"batch_size={batch_size} must be at least 1 and context_length={context_length} "
                "at least 2"
            )
        if not examples:
            raise ValueError("there are no examples; give at least 1")
        numbers = {label: number for number, label in enumerate(labels)}
        if unknown := [n for n, (_, label) in enumerate(examples) if label not in numbers]:
            raise ValueError(
                f"example {unknown[0]} has the label {examples[unknown[0]][1]!r}, which is none of "
                f"{list(labels)}; give all labels"
            )
        self.rows = _encode(tokenizer, [text for text, _ in examples], context_length)
        self.labels = torch.tensor([numbers[label] for _, label in examples])
        self.n_batches = -(-len(self.rows) // batch_size)
        self.seed, self.position = seed, 0
        self._epoch, self._order = -1, list[NDArray[np.int64]]()

    def _batches_of(self, epoch: int) -> list[NDArray[np.int64]]:
        """Which examples each batch of an epoch has."""
        generator = np.random.default_rng([self.seed, epoch])
        lengths = np.array([len(row) for row in self.rows])
        noisy = np.log(lengths) + LENGTH_NOISE * generator.random(len(lengths))
        parts = np.array_split(np.argsort(noisy, kind="stable"), self.n_batches)
        return [parts[place] for place in generator.permutation(self.n_batches)]

    def __next__(self) -> Batch:
        epoch, place = divmod(self.position, self.n_batches)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._batches_of(epoch)
        chosen = self._order[place]
        ids, lengths = _padded([self.rows[row] for row in chosen])
        self.position += 1
        return {"ids": ids, "lengths": lengths, "labels": self.labels[torch.from_numpy(chosen)]}

    @cached_property
    def _identity(self) -> dict[str, Any]:
        content = hashlib.sha256(repr((self.rows, self.labels.tolist())).encode()).hexdigest()
        return {"examples": content, "n_batches": self.n_batches, "seed": self.seed}

    def state(self) -> dict[str, Any]:
        """Where the iterator stands, as json takes it."""
        return {**self._identity, "position": self.position}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state()`` was taken. Raises ValueError for other examples or settings."""
        check_state(state, self._identity)
        self.position = count_in(state, "position")


# --- learning -------------------------------------------------------------------------------------


def classification_loss(model: Classifier, batch: Batch) -> tuple[Tensor, Metrics]:
    """Mean nats a text, -log p(its label), and the share that is right; as ``train`` takes it."""
    logits, labels = model(batch["ids"], batch["lengths"]), batch["labels"]
    loss = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels)
    return loss, {"accuracy": (logits.argmax(dim=-1) == labels).float().mean().item()}


def fit(
    body: GPT,
    examples: Examples,
    labels: Sequence[str],
    tokenizer: Tokenizer,
    n_steps: int,
    batch_size: int = 16,
    max_lr: float = 1e-3,
    trainable: Sequence[str] = ("",),
    lora_rank: int = 0,
    seed: int = 0,
    progress: bool = True,
) -> Classifier:
    """A classifier in float32, trained from a copy of ``body``, which stays as it is.

    Only the parts ``trainable`` learn, see ``freeze``; with a ``lora_rank`` every large matrix of
    the body has a LoRA part that learns as well, and is merged at the end. The rate rises to
    ``max_lr`` over a tenth of the steps and falls to a tenth of it. For more, call ``train`` with a
    ``Classifier``, ``Batches`` and ``classification_loss``.
    Raises ValueError as these do, DivergedError, and KeyboardInterrupt where it was interrupted.
    """
    rows = Batches(examples, tokenizer, labels, batch_size, body.config.context_length, seed)
    settings = TrainConfig(n_steps, max_lr, max_lr / 10, warmup_steps=n_steps // 10)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = Classifier(copy.deepcopy(body), labels)
        if lora_rank:
            lora.attach(classifier, lora_rank, 2.0 * lora_rank, train=trainable)
        else:
            freeze(classifier, trainable)
        history = train(classifier, rows, settings, classification_loss, progress=progress)
    if history.stopped is not None:
        raise KeyboardInterrupt
    classifier.float()
    if lora_rank:
        lora.merge(classifier)
    return classifier


# --- asking ---------------------------------------------------------------------------------------


@torch.inference_mode()
def probabilities(
    classifier: Classifier, tokenizer: Tokenizer, texts: Sequence[str], batch_size: int = 32
) -> NDArray[np.float64]:
    """The probability of each label for each text, without dropout: (n, C) float64."""
    rows = _encode(tokenizer, texts, classifier.config.context_length)
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    found = np.empty((len(rows), len(classifier.labels)))
    device = classifier.output_weight.device
    with evaluating([module for module in classifier.modules() if module.training]):
        for start in range(0, len(rows), batch_size):
            chosen = order[start : start + batch_size]
            ids, lengths = _padded([rows[row] for row in chosen])
            logits = classifier(ids.to(device), lengths.to(device))
            found[chosen] = logits.cpu().double().softmax(dim=-1).numpy()
    return found


# --- how good it is -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a classifier did on texts whose labels are known.

    ``f1`` is the mean over labels of the harmonic mean of precision and recall; labels that were
    neither given nor predicted have none. ``confusion`` (C, C) int64 counts true labels by row and
    predicted ones by column. ``log_loss`` is in nats a text; ``calibration`` holds the probability
    of the predicted label against how often that was right.
    """

    accuracy: Share
    f1: float
    confusion: NDArray[np.int64]
    log_loss: float
    calibration: Calibration

    def __str__(self) -> str:
        width = len(str(self.confusion.max()))
        rows = ["  ".join(f"{n:>{width}}" for n in row) for row in self.confusion.tolist()]
        return (
            f"accuracy {self.accuracy}\n"
            f"macro F1 {self.f1:.3f}, log loss {self.log_loss:.3f} nats, "
            f"calibration error {self.calibration.error:.3f}\n"
            "true label by row, predicted by column:\n" + "\n".join(rows)
        )


def _checked(table: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A finite table (n, C) and labels (n,) that number its columns, or ValueError."""
    z, true = np.asarray(table, dtype=np.float64), np.asarray(labels)
    if z.ndim != 2 or true.shape != z.shape[:1] or not z.size or not np.isfinite(z).all():
        raise ValueError(
            f"{z.shape} numbers and {true.shape} labels do not fit, or some number is not finite; "
            "give (n, C) and (n,), at least one row"
        )
    if not np.issubdtype(true.dtype, np.integer) or true.min() < 0 or true.max() >= z.shape[1]:
        raise ValueError(
            f"labels are {true.dtype}, {true.min()} to {true.max()}; give the number of a column, "
            f"0 to {z.shape[1] - 1}, for each row"
        )
    return z, true.astype(np.int64)


def report(probabilities: ArrayLike, labels_true: ArrayLike) -> Report:
    """Hold probabilities (n, C) against the labels, (n,) int.

    Raises ValueError for shapes that do not fit and for rows that are no probabilities.
    """
    p, true = _checked(probabilities, labels_true)
    if p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-6:
        raise ValueError("rows are no probabilities, at least 0 with the sum 1; give a softmax")
    predicted, n_labels = p.argmax(axis=1), p.shape[1]
    counts = np.bincount(true * n_labels + predicted, minlength=n_labels**2)
    confusion = counts.reshape(n_labels, n_labels).astype(np.int64)
    right, given = confusion.diagonal(), confusion.sum(axis=0) + confusion.sum(axis=1)
    with np.errstate(divide="ignore"):  # the log loss of what had probability 0 is infinite
        log_loss = -np.log(p[np.arange(len(p)), true]).mean()
    return Report(
        accuracy=Share(int(right.sum()), len(p)),
        f1=float((2 * right[given > 0] / given[given > 0]).mean()),
        confusion=confusion,
        log_loss=float(log_loss),
        calibration=calibration(p.max(axis=1), predicted == true),
    )


def temperature(logits: ArrayLike, labels_true: ArrayLike) -> float:
    """The T for which softmax(z / T) has the least log loss: logits z (n, C), labels (n,) int.

    Logarithms of probabilities serve as well. Raises ValueError for shapes that do not fit, and
    where there is no such T: if every label is the likeliest one (0 would be best), or if equal
    odds for all labels serve as well (infinity). Paper: Guo et al. (2017).
    """
    z, true = _checked(logits, labels_true)
    z = z - z.max(axis=1, keepdims=True)
    given = z[np.arange(len(z)), true]

    def slope(beta: float) -> float:
        """Of the mean log loss, which is convex in beta = 1 / T."""
        p = np.exp(beta * z)
        return float(((p * z).sum(axis=1) / p.sum(axis=1) - given).mean())

    if slope(0.0) >= 0 or not given.any():
        what = "no better than equal odds for all labels" if given.any() else "all right"
        raise ValueError(f"no temperature is best, for the predictions are {what}; give more texts")
    low, high = 0.0, 1.0
    while slope(high) < 0:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 1 / high


# --- the folder -----------------------------------------------------------------------------------


def save(folder: str | os.PathLike[str], classifier: Classifier, tokenizer: Tokenizer) -> None:
    """Write a classifier, its labels and its tokenizer to a folder, which ``load`` reads.

    The weights come last: where they are, all is. Raises CheckpointError for a folder that has a
    checkpoint, ValueError for LoRA parts that are not merged.
    """
    if lora.attached(classifier):
        raise ValueError("the classifier has LoRA parts; merge them first with lora.merge")
    folder = Path(folder)
    if found := checkpoint.steps(folder):
        raise CheckpointError(
            f"{folder} holds a checkpoint of step {max(found)} already; choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder / TOKENIZER)
    extra = {"labels": list(classifier.labels)}
    checkpoint.save(folder, classifier, step=0, tokenizer_hash=tokenizer.hash, extra=extra)


def load(folder: str | os.PathLike[str]) -> tuple[Classifier, Tokenizer]:
    """The classifier, in evaluation mode, and the tokenizer that ``save`` wrote.

    Raises CheckpointError for a folder without one, altered weights, another tokenizer's file.
    """
    found = checkpoint.load(folder)
    labels, path = found.extra.get("labels"), Path(folder) / TOKENIZER
    if not isinstance(labels, list) or not path.is_file():
        raise CheckpointError(
            f"{folder} holds no classifier (its labels or {TOKENIZER} are missing); write one with "
            "classify.save"
        )
    tokenizer = Tokenizer.load(path)
    found.check_tokenizer(tokenizer.hash)
    with torch.device("meta"):
        classifier = Classifier(GPT(found.config), labels)
    checkpoint.load_weights(classifier, found.weights, found.path)
    return classifier.eval(), tokenizer
