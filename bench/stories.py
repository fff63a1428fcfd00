"""How fast the story program runs on one core: telling, parsing, and what a perfect model knows.

    python bench/stories.py      # about two minutes; writes results/stories.json

Every number is the median of several rounds. Stories a second are those of ``stories.stories``, the
split's hash included; a parse reads a whole story; a true next-token distribution is that of a
prefix of 200 tokens under a tokenizer of 1,024 tokens trained on the stories. Beside the speeds
stand the measurements that the appendix "The world" is built on, from more stories than a chapter
can tell: entropy, lengths, repetitions.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from record import machine, parser, record_path, write_record

from llm_core import stories
from llm_core.runtime import start, timer
from llm_core.tokenizer import END_OF_TEXT, Tokenizer, train_bpe

ROUNDS = 5
N_TOLD, N_PARSED, N_PREFIXES, N_MEASURED = 20_000, 300, 100, 100_000
PREFIX = 200  # tokens


def median_seconds(job: Callable[[int], Any]) -> float:
    """Median seconds of ``job(round)`` over the rounds."""
    found = []
    for number in range(ROUNDS):
        with timer() as clock:
            job(number)
        found.append(clock.seconds)
    return statistics.median(found)


def tell(number: int) -> None:
    """Tell stories, one after the other, with a new seed each round."""
    for _ in stories.stories(N_TOLD, seed=number):
        pass


def next_token_seconds(tokenizer: Tokenizer) -> list[float]:
    """Seconds of each true next-token distribution after ``PREFIX`` tokens."""
    found = []
    for one in stories.stories(None, seed=77):
        ids = tokenizer.encode(one.text)
        if len(ids) > PREFIX:
            with timer() as clock:
                stories.true_next(ids[:PREFIX], tokenizer)
            found.append(clock.seconds)
        if len(found) == N_PREFIXES:
            return found
    raise AssertionError("the stories have no end")


def speeds(tokenizer: Tokenizer) -> dict[str, Any]:
    """What is timed."""
    told = list(stories.stories(N_PARSED, seed=55))
    generator = Random(0)
    prefixes = [one.text[: generator.randrange(len(one.text))] for one in told]
    parse = median_seconds(lambda _: [stories.parse(one.text) for one in told])
    prefix = median_seconds(lambda _: [stories.prefix_log_prob(one) for one in prefixes])
    losses = median_seconds(
        lambda _: [stories.true_token_loss(one.text, tokenizer) for one in told[:30]]
    )
    following = next_token_seconds(tokenizer)
    with tempfile.TemporaryDirectory() as folder, timer() as clock:
        stories.write_corpus(Path(folder) / "stories.jsonl", N_TOLD, progress=False)
    return {
        "stories_a_second": N_TOLD / median_seconds(tell),
        "stories_a_second_to_disk_all_cores": N_TOLD / clock.seconds,
        "parses_a_second": N_PARSED / parse,
        "prefix_milliseconds": 1e3 * prefix / N_PARSED,
        "token_losses_milliseconds_a_story": 1e3 * losses / 30,
        "true_next_milliseconds": {
            "prefix_tokens": PREFIX,
            "median": 1e3 * statistics.median(following),
            "90_percent": 1e3 * float(np.quantile(following, 0.9)),
            "most": 1e3 * max(following),
        },
    }


def sizes(tokenizer: Tokenizer) -> dict[str, Any]:
    """What is counted, over many stories of the training split."""
    told = list(stories.stories(N_MEASURED, seed=1))
    n_tokens = np.array([len(tokenizer.encode(one.text)) + 1 for one in told])
    nats = -np.array([one.log_prob for one in told])
    return {
        "stories": N_MEASURED,
        "different_texts": len({one.text for one in told}),
        "nats_a_story": float(nats.mean()),
        "nats_a_story_standard_error": float(nats.std(ddof=1) / len(told) ** 0.5),
        "nats_a_token": float(nats.sum() / n_tokens.sum()),
        "tokens_a_story": float(n_tokens.mean()),
        "tokens_least_and_most": [int(n_tokens.min()), int(n_tokens.max())],
        "characters_a_story": float(np.mean([len(one.text) for one in told])),
        "episodes": np.bincount([len(one.facts.plots) for one in told]).tolist(),
    }


def main() -> None:
    arguments = parser(__doc__, "stories").parse_args()
    start(seed=0, threads=1)
    measured_on = machine()
    corpus = [one.text for one in islice(stories.stories(None), 10_000)]
    tokenizer = train_bpe(corpus, 1024, special_tokens=[END_OF_TEXT])
    measured, counted = speeds(tokenizer), sizes(tokenizer)
    write_record(
        record_path(arguments, "stories"),
        measured_on,
        ["tiktoken"],
        rounds=ROUNDS,
        vocab_size=tokenizer.vocab_size,
        speeds=measured,
        sizes=counted,
    )
    for name, value in {**measured, **counted}.items():
        print(name, value)


if __name__ == "__main__":
    main()
