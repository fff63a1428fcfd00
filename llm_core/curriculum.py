"""What a run reads when: short windows first, others between, rare targets that count more.

All wrap batches, know where they are, and resume like them, so that ``train`` does not see the
difference. Chapter 5 measures what the first and the last are worth, chapter 7 uses the second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from llm_core.dataset import count_in

Batch = Mapping[str, Tensor]


class BatchSource(Protocol):
    """Batches that know where they are; ``dataset.batches`` gives such."""

    def __next__(self) -> Batch: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...


class Stages(Iterator[Batch]):
    """Batches of one source after the other: ``n_batches`` of each, given as pairs.

    Ends after the last stage, or before, where a source ends.
    Raises ValueError for no stages, or for a number of batches below 1.
    """

    def __init__(self, *stages: tuple[BatchSource, int]) -> None:
        counts = [n for _, n in stages]
        if not counts or min(counts) < 1:
            raise ValueError(f"n_batches={counts} must be at least 1 each, for one stage or more")
        self.stages = stages
        self.stage, self.n_taken = 0, 0  # the current stage, and batches taken from it

    def __next__(self) -> Batch:
        while self.stage < len(self.stages):
            source, n_batches = self.stages[self.stage]
            if self.n_taken < n_batches:
                batch = next(source)
                self.n_taken += 1
                return batch
            self.stage, self.n_taken = self.stage + 1, 0
        raise StopIteration

    def state(self) -> dict[str, Any]:
        """Where the iterator stands, as json takes it."""
        of_sources = [source.state() for source, _ in self.stages]
        return {"stage": self.stage, "n_taken": self.n_taken, "sources": of_sources}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state()`` was taken. Raises ValueError where the sources differ."""
        sources = state.get("sources") if isinstance(state, Mapping) else None
        n_stages = len(sources) if isinstance(sources, list) else 0
        if n_stages != len(self.stages):
            raise ValueError(
                f"this state was taken with {n_stages} stages, and there are "
                f"{len(self.stages)}; make the same stages, or start without a state"
            )
        for (source, _), its_state in zip(self.stages, state["sources"], strict=True):
            source.restore(its_state)
        self.stage, self.n_taken = count_in(state, "stage"), count_in(state, "n_taken")


class Alternating(Iterator[Batch]):
    """Batches of one source with one of another after every few: each ``every``-th is ``between``.

    Ends where a source ends. Raises ValueError for ``every`` below 2.
    """

    def __init__(self, batches: BatchSource, between: BatchSource, every: int) -> None:
        if every < 2:
            raise ValueError(f"every={every} must be at least 2; for 1, read the other one alone")
        self.batches, self.between, self.every = batches, between, every
        self.n_taken = 0

    def __next__(self) -> Batch:
        batch = next(self.batches if (self.n_taken + 1) % self.every else self.between)
        self.n_taken += 1
        return batch

    def state(self) -> dict[str, Any]:
        """Where the iterator stands, as json takes it."""
        sources = [self.batches.state(), self.between.state()]
        return {"every": self.every, "n_taken": self.n_taken, "sources": sources}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state()`` was taken. Raises ValueError where the sources differ."""
        sources = state.get("sources") if isinstance(state, Mapping) else None
        if not isinstance(sources, list) or len(sources) != 2 or state.get("every") != self.every:
            raise ValueError(
                f"this state was not taken of two sources with every={self.every}; make the same "
                "sources, or start without a state"
            )
        self.batches.restore(sources[0])
        self.between.restore(sources[1])
        self.n_taken = count_in(state, "n_taken")


class WeightedBatches(Iterator[Batch]):
    """Batches whose targets count by what they are, the less so the further a run has come.

    ``weights`` (V,) says how much more than an ordinary target each id counts, 1 being ordinary.
    The first batch has these weights, and after ``n_weighted`` batches there are none: in between a
    weight w is w^a, with a falling from 1 to 0 in a straight line. Batches with weights carry
    ``weights``, (B, T) float32, as ``loss.cross_entropy`` takes them.
    Raises ValueError for weights that are not finite and above 0, and for a target without one.
    """

    def __init__(self, batches: BatchSource, weights: Tensor, n_weighted: int) -> None:
        self.batches, self.n_weighted = batches, n_weighted
        self.weights = weights.to(torch.float32)
        self.n_taken = 0
        if n_weighted < 1:
            raise ValueError(f"n_weighted={n_weighted} must be at least 1; leave the weights out")
        wrong = ~((self.weights > 0) & self.weights.isfinite())
        if bool(wrong.any()):
            raise ValueError(
                f"the weight of id {int(wrong.nonzero()[0])} is {self.weights[wrong][0].item()}; "
                "weights are finite and above 0, and 1 is ordinary"
            )

    def __next__(self) -> Batch:
        batch = next(self.batches)
        share = max(0.0, 1 - self.n_taken / self.n_weighted)
        self.n_taken += 1
        if share:
            targets = batch["targets"].clamp(min=0)
            if int(targets.max()) >= len(self.weights):
                raise ValueError(
                    f"target {int(targets.max())} has no weight, of which there are "
                    f"{len(self.weights)}; give one for each id of the vocabulary"
                )
            return {**batch, "weights": (self.weights**share)[targets]}
        return batch

    def state(self) -> dict[str, Any]:
        """Where the iterator stands, as json takes it."""
        return {"batches": self.batches.state(), "n_taken": self.n_taken}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``state()`` was taken. Raises ValueError where the batches differ."""
        if "batches" not in state:
            raise ValueError("this state is not one of weighted batches; start without a state")
        self.batches.restore(state["batches"])
        self.n_taken = count_in(state, "n_taken")
