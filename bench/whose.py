"""Can the pretrained model be taught whose a trait is, and what does it have to practice first?

    python bench/whose.py          # a quarter of an hour; writes results/whose.json
    python bench/whose.py --quick  # minutes, few steps, no file

Arms from the pretrained model, with as many steps each: conversations alone, as the recipe has
them; exercises on who is who before them; rows of random tokens that repeat before these; and names
to compare, once behind the repeats and once among all exercises, as the recipe has it
(``llm_core.exercises``). After each stage: how many of the repeated tokens and of the verdicts on
names are right; of the traits and creatures that a whole story offers, how often is the right one
picked, and how often would a blind pick be? Two runs go at a time, on one thread each. Chapter 7
reads the record.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from record import machine, parser, record_path, two_at_a_time, write_record

from llm_core import chat, evaluate, instruct, recipes, stories
from llm_core.curriculum import BatchSource, Stages
from llm_core.exercises import SHORT, Exercises, compared, repeated
from llm_core.stories import Told
from llm_core.stories.questions import FINDERS

N_TEST = 30  # stories of the validation split
N_ROWS = 200  # rows of random tokens that repeat, and of names to compare
FULL, LAST = recipes.tuning_recipe("book").exercises, 300
REPEATS = replace(FULL, compared_every=0)
N_COMPARED = 100  # steps, where they come behind the repeats
BEHIND = "compared behind repeats"
ARMS = {
    "conversations alone": Exercises(),
    "who is who": replace(REPEATS, n_repeats=0),
    "repeats": REPEATS,
    BEHIND: replace(REPEATS, n_repeats=REPEATS.n_repeats - N_COMPARED),
    "compared among all": FULL,
}


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


def copied(model: Any, words: Any) -> float:
    """The share of random tokens that are right where a row of them comes again."""
    return learned(model, repeated(words, N_ROWS, SHORT, seed=1))


def verdicts(model: Any, words: Any) -> float:
    """The share of right tokens of *yes* and *no* behind two names."""
    return learned(model, compared(words, N_ROWS, SHORT, seed=1))


def learned(model: Any, rows: Any) -> float:
    """The share of the tokens to be learned that are the likeliest ones."""
    import torch

    right = n = 0
    for ids, mask in rows:
        with torch.no_grad():
            logits = model(torch.tensor([ids[:-1]]))[0]
        wanted = torch.tensor(mask[1:]) == 1
        right += int(((logits.argmax(-1) == torch.tensor(ids[1:])) & wanted).sum())
        n += int(wanted.sum())
    return right / n


def measured(model: Any, words: Any) -> dict[str, Any]:
    """Repeats, verdicts, the picks of two kinds, and the share of exact answers over all kinds."""
    model.eval()
    asked = instruct.asked(N_TEST, split="validation")
    report = evaluate.questions_report(lambda p: instruct.answers(model, words, p), asked)
    return {
        "copied": round(copied(model, words), 4),
        "verdicts": round(verdicts(model, words), 4),
        "all": round(report["all"].value, 4),
        "trait": picks(model, words, "trait"),
        "animal": picks(model, words, "animal"),
    }


# --- the arms -------------------------------------------------------------------------------------


def exercised(arm: str, words: Any, n_rows: int, length: int, shrink: int) -> list[Any]:
    """The stages of an arm before its conversations: name, batches and how many of them."""
    steps = {name: n // shrink for name, n in asdict(ARMS[arm]).items() if name[:2] == "n_"}
    stages: list[tuple[BatchSource, int]] = replace(ARMS[arm], **steps).stages(
        words, n_rows, length
    )
    names = [name.removeprefix("n_") for name, n in steps.items() if n]
    found = [(name, *stage) for name, stage in zip(names, stages, strict=True)]
    if arm == BEHIND:
        n, n_short = N_COMPARED // shrink, n_rows * length // SHORT
        rows = compared(words, n * n_short, SHORT)
        found[1:1] = [("compared", chat.Conversations(rows, n_short, SHORT, packed=False), n)]
    return found


def untuned() -> tuple[Any, Any]:
    """The pretrained model with rows for the control tokens, and the tokenizer that has them."""
    base = recipes.pretrained("book")
    words = chat.chat_tokenizer(base.tokenizer)
    return chat.grow(base.model, words.vocab_size), words


def run(arm: str, shrink: int) -> list[dict[str, Any]]:
    """All stages of an arm in one run; a row before the first and one after each."""
    import torch

    from llm_core.train import train

    recipe = recipes.tuning_recipe("book")
    model, words = untuned()
    length = model.config.context_length
    torch.manual_seed(0)
    before = exercised(arm, words, recipe.batch_size, length, shrink)
    n_before, n_done = sum(n for *_, n in before), 0
    n_talked = (FULL.n_steps + LAST) // shrink - n_before
    read = instruct.rendered(words, n_talked * recipe.batch_size, n_retold=recipe.n_retold)
    talks = chat.Conversations(
        read, recipe.batch_size, length, packed=False, context_weight=recipe.context_weight
    )
    rows = Stages(*((batches, n) for _, batches, n in before), (talks, n_talked))
    ends = {}
    for stage, _, n_steps in before:
        n_done += n_steps
        ends[n_done] = stage
    for n_steps in (FULL.n_steps // shrink, n_before + n_talked):
        ends.setdefault(n_steps, "conversations")
    found = [{"arm": arm, "stage": "before", "step": 0} | measured(model, words)]

    def note(model: Any) -> dict[str, float]:
        step, stage = list(ends.items())[len(found) - 1]
        found.append({"arm": arm, "stage": stage, "step": step} | measured(model, words))
        return {}

    settings = replace(
        recipe.train,
        n_steps=n_before + n_talked,
        decay_share=0.2,
        warmup_steps=max(2, 50 // shrink),
        evaluate_at=tuple(ends),
        save_every=0,
    )
    train(model.train(), rows, settings, evaluate=note, progress=False)
    return found


def main() -> None:
    """Run the arms one after the other, print what was picked, write the record."""
    arguments = parser(__doc__, "whose", quick="few steps").parse_args()
    here, shrink = machine(), 50 if arguments.quick else 1
    recipes.pretrained("book")  # made once, by both cores
    by_arm = two_at_a_time(run, [(arm, shrink) for arm in ARMS])
    rows = [row for found in by_arm for row in found]
    for row in rows:
        print(f"{row['arm']:24}{row['stage']:14}{row['step']:5}", end="")
        for name in ("copied", "verdicts", "all"):
            print(f"  {name} {row[name]:.2f}", end="")
        for kind in ("trait", "animal"):
            picked = row[kind]
            print(f"  {kind} {picked['right']:3} of {picked['offered']:3}", end="")
            print(f" (blind {picked['blind']:.2f})", end="")
        print()
    arms = {arm: asdict(plan) for arm, plan in ARMS.items()}
    out = record_path(arguments, "whose")
    write_record(
        out,
        here,
        ["torch"],
        n_test_stories=N_TEST,
        n_last=LAST,
        arms=arms,
        n_compared=N_COMPARED,
        rows=rows,
    )


if __name__ == "__main__":
    main()
