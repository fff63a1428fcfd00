"""Can the pretrained model be taught whose a trait is, and what does it have to practice first?

    python bench/whose.py          # half an hour; writes results/whose.json
    python bench/whose.py --quick  # five minutes, few steps, no file

Three arms from the pretrained model, with as many steps: conversations alone, as the recipe has
them; exercises on who is who before them; and rows of random tokens that repeat before these
(``llm_core.exercises``). After each stage: of the traits and creatures that a whole story offers,
how often is the right one picked, and how often would a blind pick be? Chapter 7 reads the record.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from record import machine, parser, record_path, write_record

from llm_core import chat, evaluate, instruct, recipes, stories
from llm_core.curriculum import Stages
from llm_core.exercises import Exercises
from llm_core.stories import Told
from llm_core.stories.questions import FINDERS

N_TEST = 30  # stories of the validation split
N_REPEATED = 200  # rows of random tokens that repeat
FIRST, LAST = replace(recipes.tuning_recipe("book").exercises, compared_every=0), 300
ARMS = {
    "conversations alone": Exercises(),
    "who is who": replace(FIRST, n_repeats=0),
    "repeats, who is who": FIRST,
}
STAGES = {"repeats": "n_repeats", "recaps": "n_recaps", "everybody": "n_everybody"}


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
    import torch

    from llm_core.exercises import SHORT, repeated

    right = n = 0
    for ids, mask in repeated(words, N_REPEATED, SHORT, seed=1):
        period = mask.index(1)
        with torch.no_grad():
            logits = model(torch.tensor([ids[:-1]]))[0]
        hits = logits.argmax(-1) == torch.tensor(ids[1:])
        right, n = right + int(hits[period:].sum()), n + len(hits) - period
    return right / n


def measured(model: Any, words: Any) -> dict[str, Any]:
    """Repeats, the picks of two kinds, and the share of exact answers over all kinds."""
    model.eval()
    asked = instruct.asked(N_TEST, split="validation")
    report = evaluate.questions_report(lambda p: instruct.answers(model, words, p), asked)
    return {
        "copied": round(copied(model, words), 4),
        "all": round(report["all"].value, 4),
        "trait": picks(model, words, "trait"),
        "animal": picks(model, words, "animal"),
    }


def untuned() -> tuple[Any, Any]:
    """The pretrained model with rows for the control tokens, and the tokenizer that has them."""
    base = recipes.pretrained("book")
    words = chat.chat_tokenizer(base.tokenizer)
    return chat.grow(base.model, words.vocab_size), words


def run(arm: str, before: dict[str, Any], shrink: int) -> list[dict[str, Any]]:
    """All stages of an arm in one run; a row ``before`` the first and one after each."""
    import torch

    from llm_core.train import train

    recipe = recipes.tuning_recipe("book")
    model, words = untuned()
    length = model.config.context_length
    torch.manual_seed(0)
    plan = Exercises(*(n // shrink for n in asdict(ARMS[arm]).values()))
    n_talked = (FIRST.n_steps + LAST) // shrink - plan.n_steps
    read = instruct.rendered(words, n_talked * recipe.batch_size, n_retold=recipe.n_retold)
    talks = chat.Conversations(
        read, recipe.batch_size, length, packed=False, context_weight=recipe.context_weight
    )
    rows = Stages(*plan.stages(words, recipe.batch_size, length), (talks, n_talked))
    ends, n_done = {}, 0
    for stage, name in STAGES.items():
        n_done += (n_steps := getattr(plan, name))
        if n_steps:
            ends[n_done] = stage
    for n_steps in (FIRST.n_steps // shrink, n_done + n_talked):
        ends.setdefault(n_steps, "conversations")
    found = [{"arm": arm, "stage": "before", "step": 0} | before]

    def note(model: Any) -> dict[str, float]:
        step, stage = list(ends.items())[len(found) - 1]
        found.append({"arm": arm, "stage": stage, "step": step} | measured(model, words))
        return {}

    settings = replace(
        recipe.train,
        n_steps=n_done + n_talked,
        decay_share=0.2,
        warmup_steps=max(2, 50 // shrink),
        evaluate_at=tuple(ends),
        save_every=0,
    )
    train(model.train(), rows, settings, evaluate=note)
    return found


def main() -> None:
    """Run the arms one after the other, print what was picked, write the record."""
    arguments = parser(__doc__, "whose", quick="few steps").parse_args()
    here, shrink = machine(), 50 if arguments.quick else 1
    before = measured(*untuned())
    rows = [row for arm in ARMS for row in run(arm, before, shrink)]
    for row in rows:
        print(
            f"{row['arm']:21}{row['stage']:14}{row['step']:5}  copied {row['copied']:.2f}", end=""
        )
        print(f"  all {row['all']:.2f}", end="")
        for kind in ("trait", "animal"):
            picked = row[kind]
            print(f"  {kind} {picked['right']:3} of {picked['offered']:3}", end="")
            print(f" (blind {picked['blind']:.2f})", end="")
        print()
    arms = {
        arm: {name: getattr(plan, name) for name in STAGES.values()} for arm, plan in ARMS.items()
    }
    out = record_path(arguments, "whose")
    write_record(out, here, ["torch"], n_test_stories=N_TEST, n_last=LAST, arms=arms, rows=rows)


if __name__ == "__main__":
    main()
