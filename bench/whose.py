"""Can a model be taught whose a trait is, by a drill on who is who, before tuning or after it?

    python bench/whose.py          # a quarter of an hour; writes results/whose.json
    python bench/whose.py --quick  # some minutes, few steps, no file

The assistant says a trait that the story offers, and not whose it is. The drill puts the sentences
that introduce people, of one story or several, into a text, lets the model say again what each
is (*recaps*), and then asks (*questions*); *conversations*, as the recipe has them, follow. It
starts from the pretrained model and from the assistant. Two runs go at a time, on one thread each.
Chapter 7 reads the record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple

from record import machine, parser, record_path, two_at_a_time, write_record

from llm_core import chat, evaluate, instruct, recipes, stories
from llm_core.chat import Message
from llm_core.stories import Story
from llm_core.stories.questions import FINDERS, Told
from llm_core.stories.world import Person, Thing

STARTS = ("pretrained", "assistant")
N_TEST = 30  # stories of the validation split
AGAIN = "Say again who is who."
N_ASKED = 6  # single questions behind a recap
STORIES = 1_000_000  # of the training split, more than any drill takes


class Stage(NamedTuple):
    """Steps of rows; in so many of the rows people are listed and not told of."""

    name: str
    n_steps: int
    n_rows: int
    width: int
    listed: float = 0.0


STAGES = (
    Stage("recaps", 400, 16, 160, listed=0.5),
    Stage("questions", 300, 10, 256, listed=0.25),
    Stage("conversations", 300, 4, 512),
)


# --- the drill ------------------------------------------------------------------------------------


def introduced(told: Told) -> tuple[str, list[Person], list[Thing]]:
    """The sentences of a story that say what somebody is, or the color of a thing; and of whom."""

    def first(*words: Any) -> int | None:
        return next(
            (
                number
                for number, sentence in enumerate(told.past.sentences)
                if all(str(word) in sentence for word in words)
            ),
            None,
        )

    people = {who: first(who, who.trait, who.kind) for who in told.facts.people}
    things = {thing: first(thing, thing.color) for thing in told.facts.owners}
    kept = sorted({place for place in (*people.values(), *things.values()) if place is not None})
    return (
        "".join(told.past.sentences[place] for place in kept).strip(),
        [who for who, place in people.items() if place is not None],
        [thing for thing, place in things.items() if place is not None],
    )


def casts(
    told: Iterator[Story], chooser: Random
) -> Iterator[tuple[str, list[Person], list[Thing]]]:
    """Introductions of two to four people and more, from one story or several, as one text."""
    texts, people, things, names = [], list[Person](), list[Thing](), set[str]()
    wanted = chooser.randint(2, 4)
    for story in told:
        one = Told(story)
        here = {str(who) for who in one.facts.people}
        if names & here:
            continue  # nobody is to be two people
        text, new_people, new_things = introduced(one)
        texts.append(text)
        people, things, names = people + new_people, things + new_things, names | here
        if len(people) >= wanted:
            chooser.shuffle(texts)
            yield " ".join(texts), people, things
            texts, people, things, names = [], [], [], set()
            wanted = chooser.randint(2, 4)


def drill(stage: Stage, seed: int) -> Iterator[list[Message]]:
    """The conversations of a stage: who is who, said again, and in the second stage asked."""
    chooser = Random(f"{stage.name} {seed}")
    for text, people, things in casts(stories.stories(STORIES, seed), chooser):
        facts = [f"{who} was {what}." for who in people for what in (who.trait, who.kind.a)]
        again = chooser.sample(facts, len(facts))
        listed = chooser.random() < stage.listed
        asked: list[tuple[str, str, Any, Any]] = []
        asked += [] if listed else [("color", "thing", thing, thing.color) for thing in things]
        for who in people:
            asked += [("trait", "who", who, who.trait), ("animal", "who", who, who.kind.a)]
        pairs = [(AGAIN, " ".join(again))]
        if stage.name == "questions":
            for kind, role, about, answer in chooser.sample(asked, min(N_ASKED, len(asked))):
                template = chooser.choice(FINDERS[kind][1])
                pairs.append((template.format(**{role: about}), str(answer)))
        shown = " ".join(chooser.sample(facts, len(facts))) if listed else text
        messages: list[Message] = []
        for number, (question, answer) in enumerate(pairs):
            said = question if number else instruct.opening(shown, question)
            messages.append({"role": "user", "content": said})
            messages.append({"role": "assistant", "content": answer})
        yield messages


# --- what is measured -----------------------------------------------------------------------------


def picks(model: Any, words: Any, kind: str) -> dict[str, float]:
    """Questions about everybody, where a story offers several answers: how many are the right one.

    ``blind`` is what a pick with closed eyes among the answers on offer would get, on average over
    the same answers as ``right``: those that the story offers.
    """
    _, templates, find = FINDERS[kind]
    asked: list[tuple[str, str, str, set[str]]] = []
    for story in stories.stories(N_TEST, split="validation"):
        found = list(find(Told(story)))
        offered = {str(answer) for _, answer in found}
        if len(offered) > 1:
            asked += [
                (story.text, templates[0].format(**about), str(answer), offered)
                for about, answer in found
            ]
    said = instruct.answers(model, words, [one[:2] for one in asked])
    on_offer = [
        (got.strip() == answer, 1 / len(offered))
        for (_, _, answer, offered), got in zip(asked, said, strict=True)
        if got.strip() in offered
    ]
    return {
        "asked": len(asked),
        "offered": len(on_offer),
        "right": sum(right for right, _ in on_offer),
        "blind": round(sum(blind for _, blind in on_offer) / max(1, len(on_offer)), 4),
    }


def measured(model: Any, words: Any) -> dict[str, Any]:
    """The picks of two kinds, and the share of exact answers over all kinds."""
    model.eval()
    asked = instruct.asked(N_TEST, split="validation")
    report = evaluate.questions_report(lambda p: instruct.answers(model, words, p), asked)
    return {
        "all": round(report["all"].value, 4),
        "trait": picks(model, words, "trait"),
        "animal": picks(model, words, "animal"),
    }


def read(stage: Stage, n: int, seed: int, words: Any) -> list[chat.Rendered]:
    """``n`` rows for a stage."""
    if stage.name == "conversations":
        n_retold = recipes.tuning_recipe("book").n_retold
        return instruct.rendered(words, n, seed, n_retold=n_retold)
    told = drill(stage, seed)
    return [chat.render(next(told), words) for _ in range(n)]


def run(start: str, seed: int, shrink: int) -> list[dict[str, Any]]:
    """All stages from one start; a row before the first and one after each."""
    import torch

    from llm_core.train import train

    torch.set_num_threads(1)
    base, recipe = recipes.pretrained("book"), recipes.tuning_recipe("book")
    words = chat.chat_tokenizer(base.tokenizer)
    torch.manual_seed(seed)
    model = chat.grow(base.model, words.vocab_size, seed)
    if start == "assistant":
        model = recipes.assistant("book").model
    rows = [{"start": start, "seed": seed, "stage": "before", "steps": 0, "seconds": 0.0}]
    rows[0] |= measured(model, words)
    for stage in STAGES:
        n_steps = max(2, stage.n_steps // shrink)
        learned = read(stage, n_steps * stage.n_rows, seed, words)
        weight = recipe.context_weight if stage.name == "conversations" else 0.0
        batches = chat.Conversations(learned, stage.n_rows, stage.width, seed, False, weight)
        settings = replace(
            recipe.train,
            n_steps=n_steps,
            warmup_steps=min(30, n_steps // 2),
            decay_share=0.2,
            evaluate_at=(),
            save_every=0,
        )
        history = train(model.train(), batches, settings, progress=False)
        row = {"start": start, "seed": seed, "stage": stage.name, "steps": n_steps}
        rows.append(row | {"seconds": round(sum(history.seconds), 1)} | measured(model, words))
    return rows


def main() -> None:
    """Run both starts, print what was picked, write the record."""
    options = parser(__doc__, "whose", quick="few steps")
    options.add_argument(
        "--seeds", type=int, default=1, help="chapter 7 reads one; for more give --out, too"
    )
    arguments = options.parse_args()
    here = machine()
    os.environ["TQDM_DISABLE"] = "1"
    shrink = 100 if arguments.quick else 1
    jobs = [(start, seed, shrink) for seed in range(arguments.seeds) for start in STARTS]
    rows = [row for part in two_at_a_time(run, jobs) for row in part]
    for row in rows:
        print(f"{row['start']:11}{row['stage']:14}all {row['all']:.2f}", end="")
        for kind in ("trait", "animal"):
            picked = row[kind]
            print(f"  {kind} {picked['right']:3} of {picked['offered']:3}", end="")
            print(f" (blind {picked['blind']:.2f})", end="")
        print()
    stages = [stage._asdict() for stage in STAGES]
    out = record_path(arguments, "whose")
    sizes = {"n_test_stories": N_TEST, "threads": 1}
    write_record(out, here, ["torch"], **sizes, stages=stages, rows=rows)


if __name__ == "__main__":
    main()
