"""From a model that continues text to one that answers or sorts: ``tune`` and ``classify``.

Both take a run's model and a file of the reader's own, which ``records`` reads, keep a part of it
apart, train with ``train`` like everything in the book, and say how good the result is on what was
kept apart. ``cli`` calls them. Chapters 6 and 7 go the same way step by step.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import random
import shlex
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llm_core import chat, checkpoint, flags, lora, recipes, records, runs, runtime
from llm_core import classify as classification
from llm_core import train as training
from llm_core.chat import Conversations, Rendered
from llm_core.classify import Batches, Classifier, Report, classification_loss, probabilities
from llm_core.commands import COMMAND
from llm_core.evaluate import Share
from llm_core.loss import IGNORE
from llm_core.model import GPT
from llm_core.records import Conversation, Labeled, Read
from llm_core.tokenizer import Tokenizer
from llm_core.trainconfig import Precision, TrainConfig

LEAST_STEPS, PASSES = 100, 3
BATCH_SIZE = 8  # rows of packed conversations, or texts
MAX_LR, LORA_LR = 5e-4, 2e-3
KEPT_APART = 10  # one conversation of ten, at most MOST_KEPT
MOST_KEPT, LOOP_KEPT = 500, 50  # the second while training
ONE_OF = 5  # labeled texts is kept to test on
MOST_NAMED = 3  # bad records that are printed
MOST_LABELS, MOST_WIDTH = 12, 12  # of a confusion matrix that is printed: labels, their letters
LINES_AT_ONCE = 64
LORA_FOLDER = "lora"  # in the folder of a run: what its checkpoints are while LoRA parts learn


# --- what both do ---------------------------------------------------------------------------------


def usual_tuning(n_steps: int, max_lr: float = MAX_LR) -> TrainConfig:
    """Settings that serve for tuning a small model, where nobody asks for others."""
    tenth = max(1, n_steps // 10)
    return TrainConfig(
        n_steps,
        max_lr=max_lr,
        min_lr=max_lr / 10,
        warmup_steps=n_steps // 10,
        evaluate_every=tenth,
        save_every=tenth,
        keep=1,
    )


def planned(n_steps: int, typed: Mapping[str, Any]) -> TrainConfig:
    """The usual settings for ``n_steps``, or for as many as were typed, changed by what was typed.

    ``typed`` has at least ``lora``, the rank. Raises ValueError for settings that cannot work.
    """
    max_lr = typed.get("max_lr", LORA_LR if typed["lora"] else MAX_LR)
    usual = usual_tuning(typed.get("n_steps", n_steps), max_lr)
    return dataclasses.replace(usual, **flags.changes(usual, typed))


def _say_bad(read: Read[Any]) -> None:
    if read.bad:
        print(f"passed over: {len(read.bad):,} bad records")
        for message in read.bad[:MOST_NAMED]:
            print(f"    {message}")
        if len(read.bad) > MOST_NAMED:
            print(f"    and {len(read.bad) - MOST_NAMED:,} more")


def _say_plan(model: nn.Module, config: TrainConfig, batch_size: int) -> None:
    n_rows = config.n_accumulate * batch_size
    print(
        f"model: {sum(p.numel() for p in model.parameters()):,} parameters, of which "
        f"{lora.share(model):.1%} learn\ntraining: {config.n_steps:,} steps of {n_rows} rows"
    )


def _folder(out: str | None, source: str) -> Path:
    """Where to write. Raises ValueError for a folder with a run that was trained on text."""
    folder = Path(out or Path("runs") / runs.folder_name(source))
    if (folder / runs.RECORD).is_file():
        raise ValueError(f"{folder} holds a run of its own; choose another folder with --out")
    return folder


# --- tune -----------------------------------------------------------------------------------------


def split(conversations: Sequence[Conversation]) -> tuple[list[Conversation], list[Conversation]]:
    """Conversations to learn from and those kept apart: every tenth, at most 500 of them.

    None is in both: what repeats another goes where that went. Raises ValueError for a single one.
    """
    by_text: dict[str, list[Conversation]] = {}
    for one in conversations:
        by_text.setdefault(repr(one), []).append(one)
    if len(by_text) < 2:
        raise ValueError("one conversation is too few to learn and to test; give at least 2")
    each = max(KEPT_APART, math.ceil(len(by_text) / MOST_KEPT))
    parts: tuple[list[Conversation], list[Conversation]] = ([], [])
    for number, same in enumerate(by_text.values()):
        parts[number % each == min(each, len(by_text)) - 1].extend(same)
    return parts


@torch.inference_mode()
def answer_loss(model: GPT, rendered: Sequence[Rendered]) -> float:
    """Nats a token over the answers of all conversations, each of them once."""
    rows = Conversations(rendered, 1, model.config.context_length)
    paid, counted, device = 0.0, 0, model.output_weight.device
    while rows.epoch == 0:
        batch = {name: tensor.to(device) for name, tensor in next(rows).items()}
        n = int((batch["targets"] != IGNORE).sum())
        paid += float(training.next_token_loss(model, batch)[0]) * n
        counted += n
    return paid / counted


def _prepared(model: GPT, tokenizer: Tokenizer, seed: int) -> tuple[GPT, Tokenizer]:
    """With control tokens, which a model of text gets as new rows."""
    if not chat.is_chat_tokenizer(tokenizer):
        tokenizer = chat.chat_tokenizer(tokenizer)
    return chat.grow(model, max(tokenizer.vocab_size, model.config.vocab_size), seed), tokenizer


def _attach(model: GPT, rank: int) -> None:
    """LoRA beside the matrices; the tables, where control tokens have new rows, learn whole."""
    names = {name.split(".")[0] for name, _ in model.named_parameters()}
    lora.attach(model, rank, 2.0 * rank, train=sorted(names & {"token_embedding", "head"}))


def _say_sample(model: GPT, tokenizer: Tokenizer, conversations: Sequence[Conversation]) -> None:
    """The first question that was kept apart, how the file answers it, and the model."""
    for messages in conversations:
        first = [message["role"] for message in messages].index("assistant")
        try:
            answer = chat.reply(model, tokenizer, messages[:first])
        except ValueError:  # too long a question for this context; the next one may fit
            continue
        print(f"\nasked:\n{messages[first - 1]['content']}\n\nthe file's answer:")
        print(f"{messages[first]['content']}\n\nthe model's:\n{answer}")
        return


def _lay_out(folder: Path, tokenizer: Tokenizer, lora_rank: int) -> Path:
    """Write the tokenizer; return where checkpoints go. The same command may go on there.

    Raises ValueError where the folder belongs to another model.
    """
    path, place = folder / runs.TOKENIZER, folder / LORA_FOLDER if lora_rank else folder
    same = not path.is_file() or Tokenizer.load(path).hash == tokenizer.hash
    if not same or (checkpoint.steps(folder) and not checkpoint.steps(place)):
        raise ValueError(f"{folder} holds another model; choose another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(path)
    return place


def tune(chosen: argparse.Namespace) -> int:
    """Tune a run's model on conversations and let it answer one that was kept apart."""
    typed, folder = vars(chosen), _folder(chosen.out, chosen.data)
    came_from = Path(chosen.run_folder).resolve()
    if folder.resolve() in (came_from, came_from.parent):
        raise ValueError(f"{folder} is where the model comes from; choose another with --out")
    read = records.conversations(chosen.data, chosen.skip_bad)
    _say_bad(read)
    learned, kept = split(read.items)
    print(f"conversations: {len(read.items):,}, {len(kept):,} of them for validation")
    model, tokenizer = _prepared(*runs.load(chosen.run_folder), typed.get("seed", 0))
    rows, test = ([chat.render(one, tokenizer) for one in part] for part in (learned, kept))
    length, batch_size = model.config.context_length, typed.get("batch_size", BATCH_SIZE)
    if n_cut := sum(len(one.ids) > length + 1 for one in (*rows, *test)):
        print(f"{n_cut:,} of them are longer than the context of {length} tokens and are cut")
    test = [one for one in test if any(one.mask[1 : length + 1])]  # the others lost their answers
    batches = Conversations(rows, batch_size, length, typed.get("seed", 0))
    n_packed = math.ceil(sum(len(one.ids) for one in batches.rows) / length)
    n_steps = max(LEAST_STEPS, math.ceil(PASSES * n_packed / batch_size))
    config = planned(n_steps, typed)
    tuned = _tuned(model, tokenizer, batches, test, config, folder, chosen.lora)
    if tuned is None:
        return 0
    _say_sample(tuned, tokenizer, kept)
    print(f"\ntalk to it with\n    {COMMAND} chat {shlex.quote(str(folder))}")
    return 0


def _tuned(
    model: GPT,
    tokenizer: Tokenizer,
    batches: Conversations,
    test: Sequence[Rendered],
    config: TrainConfig,
    folder: Path,
    lora_rank: int,
) -> GPT | None:
    """The model after training, saved in the folder; None where a signal ended it before."""
    runtime.set_seed(batches.seed)
    model = model.to(runtime.device())
    if lora_rank:
        _attach(model, lora_rank)
    _say_plan(model, config, batches.batch_size)
    before = answer_loss(model, test)
    place = _lay_out(folder, tokenizer, lora_rank)
    history = training.train(
        model,
        batches,
        config,
        evaluate=lambda model: {"loss": answer_loss(model, test[:LOOP_KEPT])},
        folder=place,
        resume=True,
        tokenizer_hash=tokenizer.hash,
    )
    if history.stopped is not None:
        print(f"stopped ({history.stopped}) and saved after step {history.n_steps}; the same")
        print("command goes on from there")
        return None
    if lora_rank:
        lora.merge(model.float())
        if config.n_steps not in checkpoint.steps(folder):
            checkpoint.save(folder, model, step=config.n_steps, tokenizer_hash=tokenizer.hash)
    model = model.float()
    after = answer_loss(model, test)
    print(f"loss {before:.4f} nats a token of the answers kept apart before, {after:.4f} after")
    return model


# --- classify -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Learning:
    """What `classify` may be told of its training, by the names of TrainConfig."""

    n_steps: int
    max_lr: float
    min_lr: float
    warmup_steps: int
    weight_decay: float
    max_norm: float
    precision: Precision


def usual_learning() -> Learning:
    """The fields as ``usual_tuning`` has them."""
    usual = usual_tuning(LEAST_STEPS)
    names = [field.name for field in dataclasses.fields(Learning)]
    return Learning(**{name: getattr(usual, name) for name in names})


def once(examples: Sequence[Labeled]) -> list[Labeled]:
    """The examples without those whose text, but for case and blanks, came before.

    What stands twice would be learned from and tested on.
    """
    found: dict[str, Labeled] = {}
    for one in examples:
        found.setdefault(" ".join(one.text.casefold().split()), one)
    return list(found.values())


def train_and_test(examples: Sequence[Labeled], seed: int) -> tuple[list[Labeled], list[Labeled]]:
    """Examples to learn from and a fifth of each label to test on, at least 1 of either.

    Raises ValueError for fewer than 2 labels and for a label that occurs once.
    """
    by_label: dict[str, list[Labeled]] = defaultdict(list)
    for one in examples:
        by_label[one.label].append(one)
    rare = [label for label, those in by_label.items() if len(those) < 2]
    if len(by_label) < 2 or rare:
        found = f"label {rare[0]!r} occurs once" if rare else f"{list(by_label)} is the only label"
        raise ValueError(
            f"{found}; give at least 2 labels with 2 different texts each, and say by --label "
            "which column holds them"
        )
    train: list[Labeled] = []
    test: list[Labeled] = []
    for label in sorted(by_label):
        those = by_label[label]
        random.Random(f"{seed} {label}").shuffle(those)
        n_test = max(1, len(those) // ONE_OF)
        test += those[:n_test]
        train += those[n_test:]
    return train, test


def _say_confusion(report: Report, labels: Sequence[str]) -> None:
    """The confusion matrix with its labels, where it has room on the screen."""
    if len(labels) > MOST_LABELS:
        return
    columns = [label[:MOST_WIDTH] for label in labels]
    first = max(len("true"), *map(len, columns))
    widths = [
        max(len(name), len(str(n)))
        for name, n in zip(columns, report.confusion.max(0), strict=True)
    ]
    print("true label by row, predicted by column:")
    for name, row in (("", columns), *zip(columns, report.confusion.tolist(), strict=True)):
        cells = (f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        print(f"    {name:<{first}}  {'  '.join(cells)}")


def _body(chosen: argparse.Namespace) -> tuple[GPT, Tokenizer]:
    if chosen.model is not None:
        return runs.load(chosen.model)
    made = recipes.pretrained()
    return made.model, made.tokenizer


def _learned(
    chosen: argparse.Namespace, train: Sequence[Labeled], labels: Sequence[str]
) -> tuple[Classifier, Tokenizer]:
    """A classifier that was trained on the examples. Raises KeyboardInterrupt where stopped."""
    typed = vars(chosen)
    seed, batch_size = typed.get("seed", 0), typed.get("batch_size", BATCH_SIZE)
    n_steps = max(LEAST_STEPS, math.ceil(PASSES * len(train) / batch_size))
    config, (body, tokenizer) = planned(n_steps, typed), _body(chosen)
    runtime.set_seed(seed)
    classifier = Classifier(body.to(runtime.device()), labels)
    if chosen.lora:
        lora.attach(classifier, chosen.lora, 2.0 * chosen.lora, train=("head",))
    _say_plan(classifier, config, batch_size)
    length = body.config.context_length
    batches = Batches(train, tokenizer, labels, batch_size, length, seed)
    history = training.train(classifier, batches, config, classification_loss)
    if history.stopped is not None:
        raise KeyboardInterrupt
    if chosen.lora:
        lora.merge(classifier.float())
    return classifier.float(), tokenizer


def _learn(chosen: argparse.Namespace) -> int:
    """From a labeled file to a classifier that was tested."""
    folder = _folder(chosen.out, chosen.file)
    if checkpoint.steps(folder):
        raise ValueError(f"{folder} holds a model already; choose another folder with --out")
    read = records.labeled(chosen.file, chosen.text, chosen.label, chosen.skip_bad, chosen.columns)
    _say_bad(read)
    examples = once(read.items)
    if n_again := len(read.items) - len(examples):
        print(f"left out: {n_again:,} texts that repeat another")
    train, test = train_and_test(examples, vars(chosen).get("seed", 0))
    counts = Counter(one.label for one in examples)
    labels = sorted(counts)
    shown = ", ".join(f"{n:,} {label}" for label, n in counts.most_common(MOST_LABELS))
    print(f"texts: {len(examples):,} ({shown}), {len(test):,} of them for the test")
    classifier, tokenizer = _learned(chosen, train, labels)
    found = probabilities(classifier, tokenizer, [one.text for one in test])
    report = classification.report(found, [labels.index(one.label) for one in test])
    usual, _ = Counter(one.label for one in train).most_common(1)[0]
    baseline = Share(sum(one.label == usual for one in test), len(test))
    print(f"always {usual!r}: accuracy {baseline}")
    print(f"the model: accuracy {report.accuracy}, macro F1 {report.f1:.3f}")
    _say_confusion(report, labels)
    classification.save(folder, classifier, tokenizer)
    place = shlex.quote(str(folder))
    print(f"\nlabel lines of text with\n    {COMMAND} classify --model {place} < lines.txt")
    return 0


def _label_lines(folder: str) -> int:
    """Print label, its probability and the text for each line of the standard input."""
    classifier, tokenizer = classification.load(folder)
    classifier.to(runtime.device())
    at_once = 1 if sys.stdin.isatty() else LINES_AT_ONCE
    while lines := [line.rstrip("\r\n") for line in itertools.islice(sys.stdin, at_once)]:
        for text, row in zip(lines, probabilities(classifier, tokenizer, lines), strict=True):
            print(f"{classifier.labels[row.argmax()]}\t{row.max():.3f}\t{text}", flush=True)
    return 0


def classify(chosen: argparse.Namespace) -> int:
    """Learn labels from a file and test that, or label the lines of the standard input."""
    if chosen.file is not None:
        return _learn(chosen)
    if chosen.model is None:
        raise ValueError(
            "say what to learn from, `classify FILE`, or what to label lines with, "
            "`classify --model FOLDER`"
        )
    return _label_lines(chosen.model)
