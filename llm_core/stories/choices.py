"""A choice with known odds, the one source of chance in a story, and words with their forms.

Odds are whole numbers: a choice draws one of ``total`` equal chances, which takes the same path on
every machine, and the probability of an item is its odds over the total. The appendix "The world"
prints every choice of the story program from these objects.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

MOST_CHANCES = 100_000  # a choice holds one table entry for each chance


class Word(str):
    """A word or phrase that carries the other forms sentences need.

    Every word has ``a`` (with its article), ``A`` (the same at a sentence's start) and ``cap``;
    more forms are given by name: ``Word("market", at="at the market")``.
    """

    a: str
    A: str
    cap: str

    def __new__(cls, text: str, **forms: Any) -> Word:
        word = super().__new__(cls, text)
        forms.setdefault("a", ("an " if text[0] in "aeiouAEIOU" else "a ") + text)
        forms.setdefault("A", forms["a"][0].upper() + forms["a"][1:])
        forms.setdefault("cap", text[0].upper() + text[1:])
        word.__dict__.update(forms)
        return word

    if TYPE_CHECKING:  # any further form; a real __getattr__ would slow every access down

        def __getattr__(self, name: str) -> Any: ...


def surface(item: Any, form: str) -> str:
    """How an item is written: in its plain form, or in one that it carries."""
    written = getattr(item, form) if form else item
    return str(written)


class Draw(Protocol):
    """What a choice needs of whoever draws: chances, and a place to write down what was drawn."""

    random: Callable[[], float]
    trace: list[float]
    log_prob: float


class Choice:
    """A finite distribution with whole-number odds.

    ``odds`` is None for equal odds, a sequence beside ``items``, or left out where ``items`` is a
    mapping from item to odds. ``telling=True`` says that what was drawn bears on what happens
    later, not only on the wording. Raises ValueError for no items, repeated items, odds below 1, or
    odds that sum to more than ``MOST_CHANCES``.
    """

    def __init__(
        self,
        items: Iterable[Any] | Mapping[Any, int],
        odds: Sequence[int] | None = None,
        *,
        telling: bool = False,
    ) -> None:
        if isinstance(items, Mapping):
            odds = list(items.values())
        self.items = list(items)
        self.odds = list(odds) if odds is not None else [1] * len(self.items)
        if not self.items or len(self.items) != len(self.odds) or min(self.odds) < 1:
            raise ValueError(
                f"items {self.items}, odds {self.odds}: give at least one item, and each item odds "
                "of at least 1"
            )
        self.total = sum(self.odds)
        if self.total > MOST_CHANCES:
            raise ValueError(f"odds sum to {self.total}; use smaller ones, at most {MOST_CHANCES}")
        self.telling = telling
        self.log_p = [math.log(n / self.total) for n in self.odds]
        # chance -> an item and its log-probability: one lookup a draw, whatever the odds
        pairs = list(zip(self.items, self.log_p, strict=True))
        self.table = [pairs[i] for i, n in enumerate(self.odds) for _ in range(n)]
        self._first = [sum(self.odds[:i]) for i in range(len(self.odds))]
        self.odds_of = dict(zip(self.items, self.odds, strict=True))
        if len(self.odds_of) != len(self.items):
            raise ValueError(f"an item stands twice in {self.items}; give it larger odds instead")
        self._written: dict[str, tuple[list[int], dict[str, list[int]]]] = {}

    def draw(self, tell: Draw) -> Any:
        """One item at random; ``tell`` keeps the chance and adds the log-probability."""
        u = tell.random()
        item, log_p = self.table[int(u * self.total)]
        tell.trace.append(u)
        tell.log_prob += log_p
        return item

    def without(self, excluded: Iterable[Any]) -> Choice | Rest:
        """The same choice among the other items, their odds unchanged."""
        out = frozenset(excluded)
        return Rest(self, out) if out else self

    def ways(self) -> Iterator[tuple[Any, float, float]]:
        """Every item with its log-probability and a chance in [0, 1) that draws it."""
        for i, item in enumerate(self.items):
            yield item, self.log_p[i], self.chance_of(i)

    def chance_of(self, i: int) -> float:
        """A number in [0, 1) with which ``draw`` takes item ``i``: the middle of its share."""
        return (self._first[i] + self.odds[i] / 2) / self.total

    def written(self, form: str) -> tuple[list[int], dict[str, list[int]]]:
        """The lengths and the items' indices by how they are written in ``form``."""
        found = self._written.get(form)
        if found is None:
            by_text: dict[str, list[int]] = {}
            for i, item in enumerate(self.items):
                by_text.setdefault(surface(item, form), []).append(i)
            found = self._written[form] = sorted({len(text) for text in by_text}), by_text
        return found

    def standing(self, text: str, position: int, form: str) -> list[tuple[Any, float, float, str]]:
        """The ways whose written form stands in ``text`` at ``position``, with that form."""
        lengths, by_text = self.written(form)
        found = []
        for length in lengths:
            if position + length > len(text):
                break
            here = text[position : position + length]
            for i in by_text.get(here, ()):
                found.append((self.items[i], self.log_p[i], self.chance_of(i), here))
        return found


class Rest:
    """A choice with some items taken out: what is left keeps its odds."""

    __slots__ = ("_shift", "base", "excluded", "telling", "total")

    def __init__(self, base: Choice, excluded: frozenset[Any]) -> None:
        self.base, self.excluded, self.telling = base, excluded, base.telling
        total, odds_of = base.total, base.odds_of
        for item in excluded:
            total -= odds_of.get(item, 0)
        if total < 1:
            raise ValueError(f"nothing is left of {base.items} without {sorted(excluded)}")
        self.total = total
        self._shift = math.log(base.total / total)  # what is taken out raises all the others

    def draw(self, tell: Draw) -> Any:
        """One of the items left. The chance that is kept is the one that was taken."""
        table, total, excluded = self.base.table, self.base.total, self.excluded
        while True:
            u = tell.random()
            item, log_p = table[int(u * total)]
            if item not in excluded:
                break
        tell.trace.append(u)
        tell.log_prob += log_p + self._shift
        return item

    def _left(self, ways: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        for item, log_p, *rest in ways:
            if item not in self.excluded:
                yield (item, log_p + self._shift, *rest)

    def ways(self) -> Iterator[tuple[Any, float, float]]:
        """As ``Choice.ways``, for the items left."""
        return self._left(self.base.ways())

    def standing(self, text: str, position: int, form: str) -> list[tuple[Any, float, float, str]]:
        """As ``Choice.standing``, for the items left."""
        return list(self._left(self.base.standing(text, position, form)))


AnyChoice = Choice | Rest
_YES: dict[int, Choice] = {}


def yes_or_no(percent: int) -> Choice:
    """True with ``percent`` chances in a hundred. Raises ValueError unless 1 <= percent <= 99."""
    choice = _YES.get(percent)
    if choice is None:
        if not 1 <= percent <= 99:
            raise ValueError(f"percent={percent} leaves no choice; it must be 1 to 99")
        choice = _YES[percent] = Choice({True: percent, False: 100 - percent}, telling=True)
    return choice
