"""Stories by the thousand: splits that share no story, a corpus on disk, the entropy of the text.

``train``, ``validation`` and ``test`` come from one program; a hash of its text decides which of
them a story belongs to, so no story can be in two. ``held-out`` comes from the program that only
tells pairs which training never has: a name with a thing, a place with a plot.

Stories are told in blocks with a seed each, so that block 1,000 needs no block before it and many
processes tell the same corpus as one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain, count, islice
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import NamedTuple

from tqdm import tqdm

from llm_core.pretokenize import n_workers, ordered_map
from llm_core.runtime import atomic_write
from llm_core.stories.readings import Story, tell

SPLITS = ("train", "validation", "test", "held-out")
PARTS = 32  # of which validation and test are one each
BLOCK = 256  # stories told with one seed


def split_of(text: str) -> str:
    """The split that a story of the training program belongs to, by a hash of its text."""
    part = _number(text) % PARTS
    return {0: "validation", 1: "test"}.get(part, "train")


def _number(text: str) -> int:
    """A number of 64 bits for a text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


def _checked(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"split={split!r} must be one of {', '.join(SPLITS)}")
    return split


def block(number: int, seed: int, split: str) -> Iterator[Story]:
    """Block ``number`` of a split: ``BLOCK`` stories, the same in every process.

    They are told one by one: thousands of stories kept at once would cost as much time in the
    garbage collector as in the telling.
    """
    random = Random(_number(f"{seed}:{split}:{number}")).random
    if split == "held-out":
        return (tell(random, "held-out") for _ in range(BLOCK))
    drawn = iter(partial(tell, random), None)
    return islice((one for one in drawn if split_of(one.text) == split), BLOCK)


def stories(n: int | None, seed: int = 0, split: str = "train") -> Iterator[Story]:
    """The first ``n`` stories of a split, lazily; endless for None.

    The same seed gives the same stories, and more of them begin with the same. Raises ValueError
    for an unknown split or a negative ``n``.
    """
    if n is not None and n < 0:
        raise ValueError(f"n={n} stories can't be told; give 0 or more, or None for no end")
    split = _checked(split)
    blocks = (block(number, seed, split) for number in count())
    return islice(chain.from_iterable(blocks), n)


class Entropy(NamedTuple):
    """The mean of -log p over stories, in nats, and its standard error."""

    nats_per_story: float
    standard_error: float


def entropy(n: int, seed: int = 0, split: str = "train") -> Entropy:
    """The entropy of a story, estimated from ``n`` of them; each story's own -log p is exact.

    Raises ValueError for ``n`` below 2 and for an unknown split.
    """
    if n < 2:
        raise ValueError(f"n={n} stories have no standard error; take at least 2")
    nats = [-one.log_prob for one in stories(n, seed, split)]
    return Entropy(statistics.fmean(nats), statistics.stdev(nats) / math.sqrt(n))


# --- on disk ------------------------------------------------------------------------------------


def _lines(number: int, seed: int, split: str) -> list[str]:
    """A block as JSON lines."""
    return [
        json.dumps({"text": one.text, "log_prob": one.log_prob}, ensure_ascii=False) + "\n"
        for one in block(number, seed, split)
    ]


def write_corpus(
    path: str | os.PathLike[str],
    n: int,
    seed: int = 0,
    split: str = "train",
    n_processes: int | None = None,
    progress: bool = True,
) -> None:
    """Write ``n`` stories as JSON lines with the fields ``text`` and ``log_prob``, on all cores.

    The file appears whole or not at all and holds the same bytes whatever ``n_processes`` is.
    ``corpora.documents("file:PATH")`` reads it; the name must end in ``.jsonl`` for that. Raises
    ValueError for another name, ``n`` below 1 or an unknown split.
    """
    if n < 1:
        raise ValueError(f"n={n} stories make no corpus; give at least 1")
    path, make = Path(path), partial(_lines, seed=seed, split=_checked(split))
    if path.suffix != ".jsonl":
        raise ValueError(f"{path} must end in .jsonl: each line is an object with the story's text")
    numbers, left = range(-(-n // BLOCK)), n
    with (
        atomic_write(path, "w") as file,
        tqdm(total=n, unit="story", desc=path.name, disable=not progress) as bar,
    ):
        for lines in _mapped(make, numbers, min(n_workers(n_processes), len(numbers))):
            file.writelines(lines[:left])
            bar.update(min(left, BLOCK))
            left -= BLOCK


def _mapped(make: Callable[[int], list[str]], numbers: range, workers: int) -> Iterator[list[str]]:
    """The blocks in order, from one process or several."""
    if workers == 1:
        yield from map(make, numbers)
        return
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        yield from ordered_map(executor, make, numbers, 2 * workers)
