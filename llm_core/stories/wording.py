"""Sentences with slots: written by the story program, filled by a teller, matched by a reader.

A template is a sentence such as ``"{hero} looked/looks {spot}, but the {toy} was/is gone."``: a
slot names an attribute of the world, ``{hero.he}`` one of its forms, and ``was/is`` is a verb in
the past and in the present, and ``[softly|at once|]`` is a choice of words, here with the choice of
none. The templates of one call are paraphrases with equal odds, and so are the choices within one.
Each is compiled once: for the teller into a format string and a getter, for the reader into a tree
of literals and slots, in which sentences that begin alike are read together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product
from operator import attrgetter
from os.path import commonprefix
from typing import Any, NamedTuple

TENSES = ("past", "present")

SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
VERB = re.compile(r"([\w']+)/([\w']+)")
OPTIONS = re.compile(r"\[([^\[\]]*)\]")


def tensed(template: str, tense: int) -> str:
    """The template with each ``was/is`` in one tense: 0 for the past, 1 for the present."""
    return VERB.sub(lambda match: match[1 + tense], template)


def spelled_out(template: str) -> list[str]:
    """Every way to read a template with ``[this|that]`` choices; the template itself has none."""
    parts = OPTIONS.split(template)
    options = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*options)]


Piece = tuple[str, str]  # ("", a literal) or (a slot, its form)


@cache
def getter(names: tuple[str, ...]) -> Callable[[Any], Any] | None:
    """What reads the attributes off a world; sentences with the same slots share one."""
    return attrgetter(*names) if names else None


class Pattern:
    """One sentence in one tense, in pieces for a reader and as a format string for a teller."""

    __slots__ = ("form", "get", "pieces")

    def __init__(self, template: str, tense: int) -> None:
        text = tensed(template, tense)
        if not text or text != text.strip() or "  " in text or "/" in text:
            raise ValueError(
                f"template {template!r} must have text, no spaces around it and none doubled, and "
                "'/' only between the two tenses of a verb, as in was/is"
            )
        pieces: list[Piece] = []
        start = 0
        for match in SLOT.finditer(text):
            pieces += [("", text[start : match.start()]), (match[1], match[2] or "")]
            start = match.end()
        pieces.append(("", text[start:]))
        self.pieces = tuple(piece for piece in pieces if piece != ("", ""))
        names = tuple(f"{slot}.{form}" if form else slot for slot, form in self.pieces if slot)
        plain = SLOT.sub("\0", text).replace("%", "%%")
        if "{" in plain or "}" in plain:
            raise ValueError(f"template {template!r}: a slot is {{name}} or {{name.form}}")
        self.form = plain.replace("\0", "%s") if names else text
        self.get = getter(names)

    def text(self, world: Any) -> str:
        """The sentence as it reads in this world."""
        return self.form if self.get is None else self.form % self.get(world)


class Paraphrase(NamedTuple):
    """One sentence that a call may say: its log-probability, a chance that picks it, itself."""

    log_p: float
    chance: float
    template: str


class Node:
    """A place in the tree of a call's paraphrases, where sentences that began alike part.

    ``literals`` leads on by the first character of what is written next, ``slots`` by slot and
    form, ``ends`` holds the paraphrases that end here; ``log_mass`` is the log-probability of all
    that lie below.
    """

    __slots__ = ("ends", "literals", "log_mass", "slots")

    def __init__(self) -> None:
        self.literals: dict[str, tuple[str, Node]] = {}
        self.slots: dict[Piece, Node] = {}
        self.ends: list[Paraphrase] = []
        self.log_mass = 0.0

    def add(self, pieces: Sequence[Piece], paraphrase: Paraphrase) -> None:
        """Put one more sentence into the tree."""
        if not pieces:
            self.ends.append(paraphrase)
            return
        (slot, written), rest = pieces[0], pieces[1:]
        if slot:
            self.slots.setdefault((slot, written), Node()).add(rest, paraphrase)
            return
        known, child = self.literals.get(written[0], (written, None))
        n = len(commonprefix((known, written)))  # noqa: RUF071  of characters: these are no paths
        if child is None or n < len(known):
            parting = Node()
            if child is not None:
                parting.literals[known[n]] = known[n:], child
            child = parting
        self.literals[written[0]] = known[:n], child
        child.add((("", written[n:]), *rest) if written[n:] else rest, paraphrase)

    def weigh(self) -> float:
        """Set ``log_mass`` here and below; the probability of all sentences below."""
        below = [child.weigh() for _, child in self.literals.values()]
        below += [child.weigh() for child in self.slots.values()]
        mass = math.fsum([*below, *(math.exp(one.log_p) for one in self.ends)])
        self.log_mass = math.log(mass)
        return mass


# For a teller: the log-probability of each sentence of a template, then format and getter of each.
# One tuple, since in a large world most of a teller's time goes into fetching what it reads.
Group = tuple[Any, ...]


class Wording:
    """The paraphrases of one event. Templates have equal odds, and the choices within each.

    What a teller and a reader need is made when one first asks for it, for each tense.
    """

    __slots__ = ("_trees", "templates")

    def __init__(self, templates: tuple[str, ...]) -> None:
        readings = [one for template in templates for one in spelled_out(template)]
        if not readings or len(set(readings)) < len(readings):
            raise ValueError(f"templates {templates}: give at least one, and no sentence twice")
        self.templates = templates
        self._trees: list[Node | None] = [None, None]

    def paraphrases(self) -> list[Paraphrase]:
        """Every sentence that may be said."""
        every, n = [spelled_out(one) for one in self.templates], len(self.templates)
        return [
            Paraphrase(-math.log(n * len(group)), (i + (k + 0.5) / len(group)) / n, one)
            for i, group in enumerate(every)
            for k, one in enumerate(group)
        ]

    def groups(self, tense: int) -> tuple[Group, ...]:
        """For a teller: one group for each template, with every way to spell it out."""
        found = []
        for template in self.templates:
            patterns = [Pattern(one, tense) for one in spelled_out(template)]
            log_p = -math.log(len(self.templates) * len(patterns))
            found.append((log_p, *(x for one in patterns for x in (one.form, one.get))))
        return tuple(found)

    def tree(self, tense: int) -> Node:
        """For a reader: all sentences in one tree."""
        found = self._trees[tense]
        if found is None:
            found = Node()
            for one in self.paraphrases():
                found.add(Pattern(one.template, tense).pieces, one)
            found.weigh()
            self._trees[tense] = found
        return found

    def check_slots(self, drawn: dict[str, Any]) -> None:
        """Every paraphrase must use every slot that is drawn with it, or a fact would be untold."""
        for one in self.paraphrases():
            if missing := set(drawn) - {match[1] for match in SLOT.finditer(one.template)}:
                raise ValueError(f"{one.template!r} leaves out {sorted(missing)}, drawn with it")


WORDINGS: dict[tuple[str, ...], Wording] = {}


def wording(templates: tuple[str, ...], drawn: dict[str, Any]) -> Wording:
    """The compiled paraphrases; the same templates always give the same object."""
    found = WORDINGS.get(templates)
    if found is None:
        found = Wording(templates)
        found.check_slots(drawn)
        WORDINGS[templates] = found
    return found


TOLD: tuple[dict[tuple[str, ...], tuple[Group, ...]], ...] = ({}, {})  # by tense


def told(templates: tuple[str, ...], drawn: dict[str, Any], tense: int) -> tuple[Group, ...]:
    """The groups of a wording, kept for the next teller."""
    groups = TOLD[tense][templates] = wording(templates, drawn).groups(tense)
    return groups
