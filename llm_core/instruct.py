"""Conversations about stories: questions with the world's answers, to tune on and to test with.

``conversation`` puts the questions of a story one after the other into a conversation with the
right answers; ``asked`` gives single questions about stories that no training saw, and ``answers``
lets a tuned model answer them, for ``evaluate.questions_report``. An answer that takes a comparison
is said behind a thought, on a line of its own. Chapter 7 tunes and tests by it.

Papers: Nye et al., Show Your Work: Scratchpads for Intermediate Computation (2021); Wei et al.,
Chain-of-Thought Prompting (2022).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from random import Random

from tqdm import tqdm

from llm_core import stories
from llm_core.chat import END, Message, Rendered, render, render_for_completion
from llm_core.generate import generate
from llm_core.model import GPT
from llm_core.stories import Question, Story, Told
from llm_core.stories.questions import THOUGHT
from llm_core.tokenizer import Tokenizer

RARE = ("count", "know", "trade")  # kinds that one story in ten can ask; they are asked first
BEHIND = re.compile(r"\A" + re.escape(THOUGHT).replace(r"\{\}", r"\S+") + r"\n")
MOST_NEW = 64  # tokens of an answer; the longest of the world's has fewer


def opening(story: str, question: str) -> str:
    """The first message of the user: the story, and the question on a line of its own."""
    return f"{story}\n{question}"


def conversation(
    story: Story,
    n_questions: int | None = None,
    seed: int = 0,
    n_retold: int = 0,
    thoughts: bool = True,
) -> list[Message]:
    """A story's questions with their answers, in random order, rare kinds first; all of them or n.

    ``n_retold`` sentences to put into the other tense come behind the first question: nearly all of
    such an answer is a copy, and copying is what has to be learned first. An answer that needs a
    thought is said behind it, unless ``thoughts`` is false. The same seed gives the same.
    Raises ValueError for fewer than 1 question, and for a story that nothing can be asked about.
    """
    if n_questions is not None and n_questions < 1:
        raise ValueError(f"n_questions={n_questions} leaves nothing to answer; ask at least 1")
    found = stories.questions(story)
    if not found:
        raise ValueError(f"nothing can be asked about {story.text[:40]!r}...; take another story")
    key = f"{seed}:{story.text}".encode()
    chooser = Random(hashlib.blake2b(key, digest_size=8).digest())
    chooser.shuffle(found)
    found.sort(key=lambda question: question.kind not in RARE)
    found[1:1] = retold(story, n_retold, chooser)
    messages: list[Message] = []
    for number, one in enumerate(found[:n_questions]):
        text = one.text if number else opening(story.text, one.text)
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": one.said if thoughts else one.answer})
    return messages


def retold(story: Story, n: int, chooser: Random) -> list[Question]:
    """Up to ``n`` sentences of a story, to put into the other tense."""
    both = Told(story).both_tenses if n else []
    found = []
    for past, present in chooser.sample(both, min(n, len(both))):
        if chooser.random() < 0.5:
            found.append(Question("retell", f"Put this into the present: {past}", present))
        else:
            found.append(Question("retell", f"Put this into the past: {present}", past))
    return found


def conversations(
    n: int,
    seed: int = 0,
    split: str = "train",
    n_questions: int | None = None,
    n_retold: int = 0,
    thoughts: bool = True,
) -> Iterator[list[Message]]:
    """Conversations about the first ``n`` stories of a split."""
    for story in stories.stories(n, seed, split):
        yield conversation(story, n_questions, seed, n_retold, thoughts)


def rendered(
    tokenizer: Tokenizer,
    n: int,
    seed: int = 0,
    n_questions: int | None = None,
    n_retold: int = 0,
    thoughts: bool = True,
) -> list[Rendered]:
    """``conversations`` as ids and masks, with a bar: a thousand stories take some two seconds."""
    told = conversations(n, seed, "train", n_questions, n_retold, thoughts)
    bar = tqdm(told, total=n, unit="story", leave=False)
    return [render(messages, tokenizer) for messages in bar]


def asked(n: int, seed: int = 0, split: str = "test") -> list[tuple[str, Question]]:
    """Every question about each of the first ``n`` stories of a split, with the story's text."""
    return [
        (story.text, question)
        for story in stories.stories(n, seed, split)
        for question in stories.questions(story)
    ]


def final(said: str) -> str:
    """The answer in what an assistant said: what stands behind a thought, if it begins with one.

    Other lines before an answer belong to it, so that it is none of the world's.
    """
    return BEHIND.sub("", said.strip(), count=1)


def answers(
    model: GPT, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], batch_size: int = 64
) -> list[str]:
    """What the model answers to each of the pairs: ``said`` without thoughts, see ``final``."""
    return [final(one) for one in said(model, tokenizer, pairs, batch_size)]


def said(
    model: GPT, tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], batch_size: int = 64
) -> list[str]:
    """What the model says, greedily, to (story, question text) pairs, each a new conversation.

    Each answer has the room that the context leaves it, whatever else is asked: long questions do
    not cut short what is answered beside them. A story too long for the context leaves its question
    without an answer: an empty one.
    """
    end, most = tokenizer.special_tokens[END], model.config.context_length
    prompts: dict[int, list[int]] = {}
    for number, (story, question) in enumerate(pairs):
        message = {"role": "user", "content": opening(story, question)}
        ids = render_for_completion([message], tokenizer)
        if len(ids) < most:
            prompts[number] = ids
    given = [""] * len(pairs)
    order = sorted(prompts, key=lambda number: len(prompts[number]))
    while order:
        n_free = sum(len(prompts[number]) + MOST_NEW <= most for number in order)
        batch = order[: min(batch_size, n_free) or 1]  # those near the end of the context alone
        room = most - len(prompts[batch[-1]])
        rows = generate(
            model, [prompts[n] for n in batch], min(MOST_NEW, room), temperature=0.0, stop=[end]
        )
        for number, ids in zip(batch, rows, strict=True):
            given[number] = tokenizer.decode(i for i in ids if i != end).removeprefix(" ")
        order = order[len(batch) :]
    return given
