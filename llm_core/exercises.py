"""What is practiced before the first conversation, and between conversations.

What a story says of a person stands in one place, and whoever is asked for it has to find that
place again by the name. Telling stories hardly ever asks for that, and a model that is tuned on
answers alone says anybody's trait. Random tokens that come again can be told in no other way: they
teach the circuit that finds what stood behind the same token before, *induction*. Who is who then
puts it to use, first in short texts and then in whole stories. Names are compared side by side, as
they stand in a thought. What was practiced wears off, so all that the world can ask is asked again
between conversations. Chapter 7 measures what is learned with these exercises and what without.

Paper: Olsson et al., In-context Learning and Induction Heads (2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import astuple, dataclass
from random import Random
from typing import NamedTuple

from llm_core import stories
from llm_core.chat import Conversations, Message, Rendered, render
from llm_core.curriculum import Alternating, BatchSource
from llm_core.instruct import opening
from llm_core.stories import Story, Told
from llm_core.stories.lexicon import NAMES
from llm_core.stories.questions import FINDERS, THOUGHT, put
from llm_core.stories.world import Person, Thing
from llm_core.tokenizer import Tokenizer

PERIODS = (8, 40)  # tokens after which a row of random ones begins again
N_BYTES = 256  # ids below are bytes, of which stories hardly have any
AGAIN = "Say again who is who."
ASKED = ("trait", "animal", "color")  # kinds that are asked of everybody and everything
CASTS = (2, 4)  # people a short text is to have; its last story may bring more
LISTED = 0.5  # of the short texts say who is who in the very words of the answer
OF_A_KIND = 4  # questions a story, where everything is asked
SHORT = 128  # tokens of a short row
SHORT_STORY = 800  # characters of one that leaves room for questions
CHARACTERS = 3.125  # of a conversation for each token of the row that it is to fill
AROUND = 15  # characters in place of the control tokens around a question and its answer
NOT_DRILLED = "retell"  # its sentences would fill the rows
ENDLESS = 100_000_000  # stories, more than anybody reads
PATIENCE = 1_000  # conversations that are too long, one after the other


# --- repeating ------------------------------------------------------------------------------------


def repeated(tokenizer: Tokenizer, n: int, length: int, seed: int = 0) -> list[Rendered]:
    """``n`` rows of ``length`` + 1 random ids that begin again after 8 to 40 of them.

    All but the first round is to be learned. Raises ValueError for rows that are too short for a
    second round, and for a tokenizer without merges.
    """
    if length < 2 * PERIODS[1]:
        raise ValueError(
            f"length={length} is too short for {PERIODS[1]} ids to come twice; give at least "
            f"{2 * PERIODS[1]}"
        )
    special = set(tokenizer.special_tokens.values())
    ordinary = [one for one in range(N_BYTES, tokenizer.vocab_size) if one not in special]
    if not ordinary:
        raise ValueError(
            f"a vocabulary of {tokenizer.vocab_size} has no ids but bytes; give one with merges"
        )
    chooser, rows = Random(seed), []
    for _ in range(n):
        period = chooser.randint(*PERIODS)
        ids = chooser.choices(ordinary, k=period) * (length // period + 2)
        mask = [0] * period + [1] * len(ids)
        rows.append(Rendered(ids[: length + 1], mask[: length + 1]))
    return rows


# --- comparing ------------------------------------------------------------------------------------


def compared(tokenizer: Tokenizer, n: int, length: int, seed: int = 0) -> list[Rendered]:
    """``n`` rows of ``length`` + 1 ids: thoughts of two names, each with *yes* or *no* behind it.

    In half of them both are the same name. Only *yes* and *no* are to be learned.
    """
    chooser, rows = Random(f"compared {seed}"), []
    for _ in range(n):
        ids, mask = list[int](), list[int]()
        while len(ids) <= length:
            pair = chooser.sample([str(name) for name in NAMES.items], 2)
            if same := chooser.random() < 0.5:
                pair[1] = pair[0]
            thought = tokenizer.encode(f"{THOUGHT.format(*pair)}\n")
            answer = tokenizer.encode("yes" if same else "no")
            behind = tokenizer.encode("\n")
            ids += thought + answer + behind
            mask += [0] * len(thought) + [1] * len(answer) + [0] * len(behind)
        rows.append(Rendered(ids[: length + 1], mask[: length + 1]))
    return rows


# --- who is who -----------------------------------------------------------------------------------


class Cast(NamedTuple):
    """Sentences that introduce people and things, as one text, and whom and what they introduce."""

    text: str
    people: list[Person]
    things: list[Thing]


def introduced(told: Told) -> Cast:
    """The sentences of a story that say what somebody is, or which color a thing has."""

    def first(*words: object) -> int | None:
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
    return Cast(
        "".join(told.past.sentences[place] for place in kept).strip(),
        [who for who, place in people.items() if place is not None],
        [thing for thing, place in things.items() if place is not None],
    )


def casts(told: Iterable[Story], chooser: Random) -> Iterator[Cast]:
    """Texts that introduce two to four people and more, each from one story or from several."""
    texts, people, things, names = [], list[Person](), list[Thing](), set[str]()
    wanted = chooser.randint(*CASTS)
    for story in told:
        one = Told(story)
        here = {str(who) for who in one.facts.people}
        if names & here:
            continue  # nobody is to be two people
        new = introduced(one)
        texts.append(new.text)
        people, things, names = people + new.people, things + new.things, names | here
        if len(people) >= wanted:
            chooser.shuffle(texts)
            yield Cast(" ".join(texts), people, things)
            texts, people, things, names = [], [], [], set()
            wanted = chooser.randint(*CASTS)


def facts(people: Iterable[Person], chooser: Random) -> str:
    """What each of them is, trait and creature, a sentence each, in random order."""
    said = [f"{who} was {what}." for who in people for what in (who.trait, who.kind.a)]
    return " ".join(chooser.sample(said, len(said)))


def recaps(seed: int = 0) -> Iterator[list[Message]]:
    """Conversations without end, in each a short text and one answer: who is who, said again."""
    chooser = Random(f"recaps {seed}")
    for cast in casts(stories.stories(ENDLESS, seed), chooser):
        listed = chooser.random() < LISTED
        text = facts(cast.people, chooser) if listed else cast.text
        yield [
            {"role": "user", "content": opening(text, AGAIN)},
            {"role": "assistant", "content": facts(cast.people, chooser)},
        ]


def questions(
    told: Told,
    kinds: Iterable[str],
    chooser: Random,
    most: int | None = None,
    thoughts: bool = True,
) -> list[tuple[str, str]]:
    """All questions of these kinds and their answers, or ``most`` of each, in random order.

    An answer that needs a thought is said behind it, unless ``thoughts`` is false.
    """
    asked: list[tuple[str, str]] = []
    for kind in kinds:
        found = list(FINDERS[kind][2](told))
        if most is not None:
            found = chooser.sample(found, min(most, len(found)))
        put_so = (put(kind, one, chooser) for one in found)
        asked += [(one.text, one.said if thoughts else one.answer) for one in put_so]
    chooser.shuffle(asked)
    return asked


def talk(story: str, asked: Iterable[tuple[str, str]]) -> list[Message]:
    """A conversation of questions and their answers, the story in front of the first."""
    messages: list[Message] = []
    for question, answer in asked:
        text = question if messages else opening(story, question)
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": answer})
    return messages


def everybody(seed: int = 0) -> Iterator[list[Message]]:
    """Conversations without end, each about a whole story of two people or more.

    Who is who is said again, and everybody's trait and creature and the colors of things are asked
    for, in random order; in half of the conversations the first two questions come before.
    """
    chooser = Random(f"everybody {seed}")
    for story in stories.stories(ENDLESS, seed):
        told = Told(story)
        people = introduced(told).people
        if len(people) < 2:
            continue
        asked = questions(told, ASKED, chooser)
        asked.insert(chooser.choice((0, 2)), (AGAIN, facts(people, chooser)))
        yield talk(story.text, asked)


def everything(seed: int = 0, thoughts: bool = True, length: int = 320) -> Iterator[list[Message]]:
    """Conversations without end, each about a short story, with what the world can ask of it.

    Up to four questions of a kind, and the fewer there were of a kind so far, the earlier they tend
    to come: conversations end where a row of about ``length`` tokens does, and what few stories
    offer is not to be lost there. Stories that offer only what came more often than the average are
    passed over. Left out are sentences to put into the other tense.
    """
    chooser = Random(f"everything {seed}")
    n_asked = dict.fromkeys((kind for kind in FINDERS if kind != NOT_DRILLED), 0)
    for story in stories.stories(ENDLESS, seed):
        if len(story.text) > SHORT_STORY:
            continue
        told, asked = Told(story), []
        for kind, n in n_asked.items():
            found = questions(told, [kind], chooser, OF_A_KIND, thoughts)
            asked += [((n + 1) * chooser.random(), kind, pair) for pair in found]
        mean = sum(n_asked.values()) / len(n_asked)
        if all(n_asked[kind] > mean for _, kind, _ in asked):
            continue
        n_free, pairs = CHARACTERS * length - len(story.text), list[tuple[str, str]]()
        for _, kind, pair in sorted(asked):
            n_free -= sum(map(len, pair)) + AROUND
            if pairs and n_free < 0:
                break
            n_asked[kind] += 1
            pairs.append(pair)
        yield talk(story.text, pairs)


def fitting(
    told: Iterable[list[Message]], tokenizer: Tokenizer, n: int, length: int
) -> list[Rendered]:
    """The first ``n`` of the conversations that have at most ``length`` + 1 tokens, as ids.

    Raises ValueError where so many in a row are longer that waiting for one that fits is idle.
    """
    found: list[Rendered] = []
    n_longer = 0
    for messages in told if n else ():
        row = render(messages, tokenizer)
        n_longer = 0 if len(row.ids) <= length + 1 else n_longer + 1
        if n_longer == PATIENCE:
            raise ValueError(
                f"{PATIENCE} conversations in a row have more than {length + 1} tokens, the last "
                f"one {len(row.ids)}; give a longer context, or leave this exercise out"
            )
        if not n_longer:
            found.append(row)
            if len(found) == n:
                break
    return found


# --- the stages of a tuning -----------------------------------------------------------------------


@dataclass(frozen=True)
class Exercises:
    """Steps of each exercise, in their order; each ``compared_every``-th of them compares names.

    Comparing wears off in what follows it, and a stretch of nothing else can take the lookup away,
    so it comes among all others; 0 leaves it out.
    Raises ValueError for numbers below 0, and for comparisons alone.
    """

    n_repeats: int = 0
    n_recaps: int = 0
    n_everybody: int = 0
    compared_every: int = 0

    def __post_init__(self) -> None:
        if min(astuple(self)) < 0:
            raise ValueError(f"{self} has a number below 0; 0 leaves an exercise out")
        if self.compared_every == 1:
            raise ValueError(f"{self} leaves nothing else; compare in each second step or less")

    @property
    def n_steps(self) -> int:
        """Steps of all of them."""
        return self.n_repeats + self.n_recaps + self.n_everybody

    def stages(
        self, tokenizer: Tokenizer, n_rows: int, length: int, n_accumulate: int = 1, seed: int = 0
    ) -> list[tuple[BatchSource, int]]:
        """Batches of each exercise, and how many, as ``curriculum.Stages`` takes them.

        A batch has ``n_rows`` rows of up to ``length`` tokens, or as many tokens in short rows.
        What is given counts nothing, so that all that is learned is to look it up.
        Raises ValueError for a length in which an exercise has no room.
        """
        short = min(SHORT, length)
        n_short = max(1, n_rows * length // short)
        plan: tuple[tuple[int, Callable[[int], list[Rendered]], int, int], ...] = (
            (self.n_repeats, lambda n: repeated(tokenizer, n, short, seed), n_short, short),
            (self.n_recaps, lambda n: fitting(recaps(seed), tokenizer, n, short), n_short, short),
            (
                self.n_everybody,
                lambda n: fitting(everybody(seed), tokenizer, n, length),
                n_rows,
                length,
            ),
        )
        found: list[tuple[BatchSource, int]] = []
        for number, (n_steps, rows, n_each, most) in enumerate(plan):
            if n := n_steps * n_accumulate:
                batches: BatchSource = Conversations(rows(n * n_each), n_each, most, seed, False)
                if n_compared := n // self.compared_every if self.compared_every else 0:
                    names = compared(tokenizer, n_compared * n_short, short, seed + number)
                    others = Conversations(names, n_short, short, seed, packed=False)
                    batches = Alternating(batches, others, self.compared_every)
                found.append((batches, n))
        return found
