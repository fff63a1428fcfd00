"""A run's folder, from any text: what is trained on, with which settings, and how good it got.

``measure`` finds a text by its name or path, ``prepare`` lays the folder out (``tokenizer.json``,
shards in ``data/``, ``run.json`` last), ``train`` puts its checkpoints beside them, ``load`` gives
the model back, and ``text_set`` holds it against text that it has not seen. What the reader does
not ask for follows from the size of the text. ``commands`` is made of these; chapter 5 goes the
same way by hand, on a text of the reader's own.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_core import catalog, checkpoint, corpora, dataset, flags, hf, recipes, runtime, shards
from llm_core.config import GPTConfig, preset
from llm_core.evaluate import token_losses
from llm_core.loss import bits_per_byte
from llm_core.model import GPT, Init
from llm_core.shards import Dataset
from llm_core.tokenizer import END_OF_TEXT, Tokenizer, train_bpe
from llm_core.trainconfig import TrainConfig

StrPath = str | os.PathLike[str]

RECORD, TOKENIZER = "run.json", "tokenizer.json"
# What comes of a record that is cut, too deep, or holds other values than it should.
UNREADABLE = ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError
LEAST_BYTES = 1_000  # below that neither words nor a validation set come out
ONE_OF = 10  # documents is kept for validation, but no more than about MOST_VALIDATION
MOST_VALIDATION = 1_000
TOKENIZER_CHARS = 100_000_000  # more text changes few merges
# Of a story of 20 kB the model had learned most after 8 passes (2.9 bits a byte on what it had not
# seen); after 24 it was worse there (3.6 bits), for it had begun to know the story by heart.
LEAST_STEPS, PASSES, MOST_TOKENS = 50, 8, 4_000_000
LEAST_TO_COMPILE = 1_000  # steps; compiling takes 5 to 14 s and saves some 20 ms of each


# --- which text ---------------------------------------------------------------------------------


def corpus_name(source: str) -> str:
    """The name that ``corpora`` knows a text by: a path becomes ``file:PATH``.

    The name of a corpus goes before a file of that name; ``./docs`` is the file.
    """
    known = ("stories", *corpora.INSTALLED, *catalog.CATALOG)
    if source in known or source.partition(":")[0] in ("file", "gutenberg"):
        return source
    is_path = any(sign in source for sign in "/\\.*?[") or Path(source).exists()
    return f"file:{source}" if is_path else source  # corpora says which names there are


def folder_name(source: str) -> str:
    """What to call a run on this text: ``the-verdict`` for ``data/the-verdict.txt``."""
    path = Path(source.removeprefix("file:"))
    while any(sign in path.name for sign in "*?["):
        path = path.parent
    stem = path.stem if path.suffix else path.resolve().name
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "text"


def _cut(text: str) -> tuple[str, str]:
    """A single document for training and for validation: its last tenth, from a blank on."""
    at = len(text) - len(text) // ONE_OF
    at = text.rfind(" ", at - 200, at) + 1 or at
    return text[:at], text[at:]


@dataclass(frozen=True)
class Corpus:
    """A text that was looked through: ``most`` documents of ``source``, all where that is None.

    ``n_bytes`` are those in UTF-8; 0 for stories, which are told and not measured.
    """

    source: str
    most: int | None
    n_documents: int
    n_bytes: int

    @property
    def n_validation(self) -> int:
        """Documents kept apart, of several."""
        return self.n_documents // self._each

    @property
    def _each(self) -> int:
        return min(self.n_documents, max(ONE_OF, self.n_documents // MOST_VALIDATION))

    def documents(self, validation: bool = False) -> Iterator[str]:
        """Documents to train on, or those kept apart: every tenth, or the last tenth of one.

        Of stories, which never end, some of another split.
        """
        if self.source == "stories":
            n, split = self.n_documents, "train"
            if validation:
                n, split = max(2, min(n // ONE_OF, MOST_VALIDATION)), "validation"
            return corpora.documents("stories", n=n, split=split)
        texts = itertools.islice(corpora.documents(self.source), self.most)
        if self.n_documents == 1:
            return (_cut(text)[validation] for text in texts)
        return (text for i, text in enumerate(texts, 1) if (i % self._each == 0) == validation)


def measure(source: str, most: int | None = None) -> Corpus:
    """Read a text once, to count. ``source`` is a corpus's name, a file, a folder or a pattern.

    Of stories ``most`` are told, as many as the recipe has where that is None. Raises ValueError
    for an unknown name and for a text that is too short, FileNotFoundError where nothing matches,
    and what reading the files raises.
    """
    if most is not None and most < 1:
        raise ValueError(f"{most} documents leave nothing to train on; take at least 1")
    name = corpus_name(source)
    if name == "stories":
        return Corpus(name, most, most or recipes.recipe().n_stories, 0)
    n_documents = n_bytes = 0
    for text in itertools.islice(corpora.documents(name), most):
        n_documents, n_bytes = n_documents + 1, n_bytes + len(text.encode("utf-8", "replace"))
    if n_bytes < LEAST_BYTES:
        raise ValueError(
            f"{source} holds {n_bytes:,} bytes of text; give at least {LEAST_BYTES:,}, better "
            "20 times as many"
        )
    return Corpus(name, most, n_documents, n_bytes)


def _up_to(texts: Iterable[str], n_chars: int) -> Iterator[str]:
    for text in texts:
        yield text
        n_chars -= len(text)
        if n_chars < 0:
            return


def usual_vocab_size(n_bytes: int) -> int:
    """Twice as many entries for ten times the text, from 512 on."""
    limits = (200_000, 2_000_000, 20_000_000, 200_000_000)
    return 512 << sum(n_bytes >= limit for limit in limits)


def learn_tokenizer(corpus: Corpus, vocab_size: int | None = None) -> Tokenizer:
    """A tokenizer from what there is to train on; of stories, the book's own unless a size is said.

    Raises ValueError for a ``vocab_size`` below 257.
    """
    if corpus.source == "stories" and vocab_size is None:
        return recipes.tokenizer()
    if vocab_size is None:
        vocab_size = usual_vocab_size(corpus.n_bytes)
    texts = _up_to(corpus.documents(), TOKENIZER_CHARS)
    return train_bpe(texts, vocab_size, (END_OF_TEXT,))


# --- with which settings ------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """All that a run is made of besides its tokenizer and shards; ``run.json`` holds it."""

    source: str
    model: GPTConfig
    train: TrainConfig
    batch_size: int
    init: Init
    seed: int

    def save(self, folder: StrPath) -> None:
        """Write ``run.json``."""
        with runtime.atomic_write(Path(folder) / RECORD, "w") as file:
            json.dump(dataclasses.asdict(self), file, indent=1)

    @classmethod
    def load(cls, folder: StrPath) -> Run:
        """Read what ``save`` wrote. Raises FileNotFoundError and ValueError where it did not."""
        path = Path(folder) / RECORD
        if not path.is_file():
            raise FileNotFoundError(f"there is no run in {folder}; {_remedy(folder)}")
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            model, train = GPTConfig.from_dict(fields["model"]), fields["train"]
            rows = {name: tuple(v) for name, v in train.items() if isinstance(v, list)}
            return cls(**{**fields, "model": model, "train": TrainConfig(**{**train, **rows})})
        except UNREADABLE as error:
            raise ValueError(f"{path} is not what train wrote ({error}); train anew") from error

    def changed(self, typed: Mapping[str, Any]) -> Run:
        """The run with what was typed in place of its own: names as ``flags`` has them."""
        own = {name: typed[name] for name in ("batch_size", "init", "seed") if name in typed}
        return dataclasses.replace(
            self,
            model=self.model.changed(**flags.changes(self.model, typed)),
            train=dataclasses.replace(self.train, **flags.changes(self.train, typed)),
            **own,
        )


def _remedy(folder: StrPath) -> str:
    return f"`python -m llm_core train --data TEXT --out {folder}` makes one"


def usual_context_length(n_tokens: int) -> int:
    """A power of 2 from 16 to 256, of which the text holds 64 if it can."""
    return 1 << min(8, max(4, int(math.log2(max(1, n_tokens / 64)))))


def usual_training(n_steps: int) -> TrainConfig:
    """The recipe of the stories for another number of steps."""
    tenth, train = max(1, n_steps // 10), recipes.recipe().train
    return dataclasses.replace(
        train,
        n_steps=n_steps,
        compile=train.compile and n_steps >= LEAST_TO_COMPILE,
        warmup_steps=min(n_steps - round(train.decay_share * n_steps), max(10, n_steps // 50)),
        evaluate_every=tenth,
        evaluate_at=(),
        save_every=tenth,
        milestones=(),
    )


def plan(corpus: Corpus, n_tokens: int, vocab_size: int, typed: Mapping[str, Any]) -> Run:
    """A run on a text of ``n_tokens``: what was typed, and for the rest what usually serves.

    ``typed`` holds flags of GPTConfig and TrainConfig, ``preset``, ``batch_size``, ``init`` and
    ``seed``. For stories the rest is the book's recipe. Of another text the model makes some
    passes, as many as take minutes on a CPU. Raises ValueError for settings that cannot work.
    """
    recipe, model = recipes.recipe(), recipes.recipe().model
    if corpus.source != "stories":
        model = preset("story-1m", context_length=usual_context_length(n_tokens))
    if "preset" in typed:
        model = preset(typed["preset"])
    model = model.changed(**{**flags.changes(model, typed), "vocab_size": vocab_size})
    batch_size, n_steps = typed.get("batch_size", recipe.batch_size), recipe.train.n_steps
    if corpus.source != "stories":
        a_step = max(1, batch_size * model.context_length * typed.get("n_accumulate", 1))
        n_steps = max(LEAST_STEPS, min(PASSES * n_tokens, MOST_TOKENS) // a_step)
    train = usual_training(typed.get("n_steps", n_steps))
    run = Run(corpus.source, model, train, batch_size, recipe.init, recipe.seed)
    return run.changed({**typed, "vocab_size": vocab_size})


# --- the folder ---------------------------------------------------------------------------------


def write_shards(folder: StrPath, corpus: Corpus, tokenizer: Tokenizer) -> Dataset:
    """Lay out a run's folder: the tokenizer and the shards of both parts; return those to train on.

    What an earlier attempt left is replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    tokenizer.save(folder / TOKENIZER)
    dataset.write(corpus.documents(validation=True), tokenizer, data_path(folder, True))
    return dataset.write(corpus.documents(), tokenizer, data_path(folder))


def data_path(folder: StrPath, validation: bool = False) -> Path:
    """Where a run has its shards."""
    return Path(folder) / "data" / ("validation" if validation else "train")


def load(folder: StrPath) -> tuple[GPT, Tokenizer]:
    """Model and tokenizer of a run, of one of its checkpoints, or of a Hugging Face folder.

    The model is float32 and in evaluation mode. Raises FileNotFoundError and ValueError where there
    is none, NotImplementedError for an architecture or a tokenizer of others that is not read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; {_remedy(folder)}")
    if (folder / "config.json").is_file():
        tokenizer = hf.load_tokenizer(folder)
        if END_OF_TEXT not in tokenizer.special_tokens:
            raise NotImplementedError(f"{folder}: only vocabularies with {END_OF_TEXT} are read")
        return hf.load_pretrained(folder), tokenizer
    last = checkpoint.load(folder)
    homes = (last.path.parent, last.path.parent.parent)  # a milestone lies one folder deeper
    home = next((one for one in homes if (one / TOKENIZER).is_file()), None)
    if home is None:
        raise FileNotFoundError(f"there is no {TOKENIZER} beside {last.path}; {_remedy(folder)}")
    tokenizer = Tokenizer.load(home / TOKENIZER)
    last.check_tokenizer(tokenizer.hash)
    return last.model().float(), tokenizer


# --- how good it is -----------------------------------------------------------------------------


@dataclass(frozen=True)
class TextSet:
    """Text to test on: rows of ids, each token of it a target once, and its bytes in UTF-8."""

    rows: tuple[tuple[int, ...], ...]
    n_bytes: int

    @property
    def n_tokens(self) -> int:
        """Tokens that are predicted."""
        return sum(len(row) - 1 for row in self.rows)

    def metrics(self, model: GPT) -> dict[str, float]:
        """bits_per_byte, loss in nats a token, perplexity, as ``train(evaluate=...)`` takes them.

        A row sees nothing of the one before, so its first tokens cost more than they need to.
        """
        paid = math.fsum(float(losses.sum()) for losses in token_losses(model, self.rows))
        loss = paid / self.n_tokens
        return {
            "bits_per_byte": bits_per_byte(paid, self.n_bytes),
            "loss": loss,
            "perplexity": math.exp(loss) if loss < 700 else math.inf,
        }


def text_set(
    ids: Sequence[int] | NDArray[np.int64],
    tokenizer: Tokenizer,
    context_length: int,
    most: int = 1 << 18,
) -> TextSet:
    """The first ``most`` of ``ids`` in rows that fit the context, after the id that ends a text.

    Ends of documents among the ids cost the model nats and count no byte. Raises ValueError for no
    ids.
    """
    end = tokenizer.special_tokens[END_OF_TEXT]
    kept = [int(i) for i in ids[:most]]
    if not kept:
        raise ValueError("there is no text to test on; give a longer one")
    whole = (end, *kept)
    starts = range(0, len(kept), context_length)
    rows = tuple(whole[start : start + context_length + 1] for start in starts)
    return TextSet(rows, len(tokenizer.decode_bytes(i for i in kept if i != end)))


def validation_ids(folder: StrPath, most: int = 1 << 18) -> NDArray[np.int64]:
    """The first ids of a run's validation part: (n,) int64."""
    data = shards.load(data_path(folder, True))
    ids: NDArray[np.int64] = data.windows(np.array([0]), min(most, data.n_tokens))[0]
    return ids


def ids_of(source: str, tokenizer: Tokenizer, most: int = 1 << 18) -> NDArray[np.int64]:
    """The first ids of any text, the id that ends a document after each: (n,) int64."""
    texts, end = corpora.documents(corpus_name(source)), tokenizer.special_tokens[END_OF_TEXT]
    found: list[NDArray[Any]] = []
    for ids in tokenizer.encode_arrays(texts, end_id=end):
        found.append(ids)
        if sum(map(len, found)) >= most:
            break
    joined: NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *found])[:most]
    return joined
