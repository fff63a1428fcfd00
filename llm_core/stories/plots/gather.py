"""The plot "gather": so many are needed, some are found or lost, and a friend has more.

Whoever keeps count knows at every step how many the hero and the friend have.
"""

from __future__ import annotations

from functools import cache

from llm_core.stories.choices import Choice, Word
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import GIVERS, GLAD, ITEMS, NUMBERS, SAD, SPOTS
from llm_core.stories.phrases import DOING, FINE, MANNERS, OLD, one_of
from llm_core.stories.scenes import feel, finish, friend, tilt
from llm_core.stories.world import World

GOALS = Choice(NUMBERS[12:], (5, 5, 4, 4, 3, 3, 2, 2, 2))
REASONS = one_of(
    """the soup, a game, a bet, the fair, the goose, a walk, the king, a cake, a hat
    good luck, a sick cow, the winter, a wedding, a play, a wall, Sunday, the baker, the moon"""
)
VESSELS = one_of(
    "bucket, sack, pot, shoe, bag, hat, pan, boot, box, basket, sock, cart, bowl, cup, coat, apron"
)
WORN = OLD.without(("cold", "empty"))  # fit for holding something
THIEVES = one_of("goose, crow, cow, cat, pig, sheep, pony, donkey, dog, hen, pigeon, bull")


@cache
def amounts(items: Word, low: int, high: int, have: int = 0) -> Choice:
    """From ``low`` to ``high`` of these items, each as likely: ``three pears``.

    ``more`` is ``three more pears``; ``sum`` and ``left`` are how many that makes of ``have``.
    """
    found = []
    for n in range(low, high + 1):
        noun = items.one if n == 1 else items
        more = f"{NUMBERS[n]} more {noun}"
        forms = {"more": more, "More": more.capitalize()}
        if n + have < len(NUMBERS):
            forms["sum"] = NUMBERS[have + n]
        if n <= have:
            forms["left"] = NUMBERS[have - n]
        found.append(Word(f"{NUMBERS[n]} {noun}", n=n, **forms))
    return Choice(found)


def count(tell: Tell, world: World, hers: int = 0, theirs: int = 0) -> None:
    """Add to what the hero and the friend have, and note it for whom it changed."""
    if hers:
        world.have += hers
        tell.note("count", world.hero, world.items, world.have)
    if theirs:
        world.others += theirs
        tell.note("count", world.friend, world.items, world.others)


@plot("gather", odds=4, words=72)
def gather(tell: Tell, world: World) -> Beat:
    """Somebody needs a number of items; the hero begins with a few."""
    tell(
        "{hero.His} {giver} [needed/needs|wanted/wants|asked/asks for] {number} {items} for "
        "{reason}.",
        '"[Bring me|Find me|I need] {number} {items} for {reason}," {hero.his} {giver} '
        "had/has said.",
        "For {reason}, {hero.his} {giver} [needed/needs|wanted/wants] {number} {items}.",
        "{hero} [was/is to|had/has to] [bring|find] {hero.his} {giver} {number} {items} for "
        "{reason}.",
        "{number.cap} {items}[, no fewer|, no more|]: {hero.his} {giver} [needed/needs|"
        "wanted/wants] them for {reason}.",
        giver=GIVERS,
        number=GOALS,
        items=ITEMS,
        reason=REASONS,
    )
    world.goal = NUMBERS.index(world.number)
    tell(
        "{hero} [already |]had/has {amount} in {worn.a} {vessel}.",
        "[So far|At first], {hero.his} {worn} {vessel} held/holds {amount}.",
        '"{amount.cap} in [my|this] {worn} {vessel}[ so far|]," {hero} said/says.',
        "[First|By now] {hero} [had/has|carried/carries] {amount} in {hero.his} {worn} {vessel}.",
        "{amount.cap} [lay/lie|were/are] [already |]in {hero.his} {worn} {vessel}.",
        "{hero} [put/puts|threw/throws] {amount} into {worn.a} {vessel}.",
        amount=amounts(world.items, world.goal - 8, world.goal - 4),
        worn=WORN,
        vessel=VESSELS,
    )
    world.have = world.others = 0
    count(tell, world, world.amount.n)
    return gain if tell.chance(50) else lose


def gain(tell: Tell, world: World) -> Beat:
    """The hero finds more, but not enough."""
    tell(
        "[Then|And|Later|Soon] {hero.he} [found/finds|came/comes upon] {amount.more} {spot}.",
        "{spot.cap} {hero.he} [found/finds|picked/picks up] {amount.more}[, {amount.sum} in all|"
        ", so now {amount.sum}|].",
        '"{amount.More} {spot}!" {hero} [called/calls|cried/cries|said/says].',
        "{hero.He} looked/looks {spot}: {amount.more}[, which made/makes {amount.sum}|]!",
        "[Now|Then|Soon] it was/is {amount.sum}, with {amount.more} {spot}.",
        amount=amounts(world.items, 1, 2, world.have),
        spot=SPOTS,
    )
    count(tell, world, world.amount.n)
    return share


def lose(tell: Tell, world: World) -> Beat:
    """Some are carried off."""
    tell(
        "[But|Then|Soon] {fine.a} {thief} [came/comes and took/takes|took/takes|stole/steals] "
        "{amount}.",
        "{fine.A} {thief} [took/takes|carried/carries off|stole/steals] {amount}[, which "
        "left/leaves {amount.left}|].",
        '"[Stop|Shoo|Hey|Oh no]!" {hero} cried/cries, but {fine.a} {thief} took/takes {amount}.',
        "{hero.He} [fell/falls over|ran/runs into] {fine.a} {thief} and lost/loses {amount}.",
        "[But|Then] {fine.a} {thief} took/takes {amount}, so {amount.left} were/are left.",
        fine=FINE,
        thief=THIEVES,
        amount=amounts(world.items, 1, min(3, world.have - 3), world.have),
    )
    count(tell, world, -world.amount.n)
    tell.note("did", world.hero, f"lost {world.amount} to a {world.thief}")
    return share


def share(tell: Tell, world: World) -> Beat:
    """A friend has enough to help, and would like some of the hero's all the same."""
    friend(tell, world)
    world.missing = NUMBERS[world.goal - world.have]
    tell(
        '{friend} had/has {theirs}. "[More, please|Give me more|I want more|I need more]!"',
        '"I have {theirs} [but|and] [want|need|would like] more," {friend} [said/says|'
        "sighed/sighs].",
        "{friend} [already |only |]had/has {theirs} [but|and] [wanted/wants|asked/asks for] [more|"
        "some more|a few more].",
        '"[Look|See|Here], {theirs}!" {friend} said/says. "[More, please|I want more|I need more|'
        'Give me more]!"',
        theirs=amounts(world.items, world.goal - world.have, world.goal - world.have + 5),
    )
    count(tell, world, 0, world.theirs.n)
    world.shared = tell.chance(tilt(world.hero.trait.gives))
    return give_some if world.shared else keep_all


def give_some(tell: Tell, world: World) -> Beat:
    """The hero gives the friend a few; will the friend give some back?"""
    tell(
        '"[Take|Have|Here, take|Yes, have] {amount}," {hero} [said/says|told/tells {friend}] '
        "{manner}.",
        '"{amount.cap} [for you|from me], {friend}," {hero} said/says {manner}.',
        '"I [can |will |]give you {amount}," {hero} [said/says|answered/answers] {manner}.',
        amount=amounts(world.items, 1, min(3, world.have - 2)),
        manner=MANNERS,
    )
    n = world.amount.n
    count(tell, world, -n, n)
    tell.note("did", world.hero, f"gave {world.friend} {world.amount}")
    world.missing = NUMBERS[world.goal - world.have]
    tell.turn()
    return helped_out if tell.chance(tilt(world.friend.trait.gives, 15)) else refused


def keep_all(tell: Tell, world: World) -> Beat:
    """The hero gives nothing; will the friend give some all the same?"""
    tell(
        '"[No|Sorry], I need [them all|mine|all of them|{missing} more]," {hero} said/says '
        "{manner}.",
        '"[No|Oh no], they are for {reason}," {hero} [said/says|answered/answers] {manner}.',
        '"[Not one|Never|Not even one]!" {hero} [said/says|cried/cries] {manner}.',
        '"[They are mine|I keep mine|I give none away]," {hero} said/says {manner}.',
        manner=MANNERS,
    )
    tell.note("refuse", world.hero, world.friend)
    tell.turn()
    return helped_out if tell.chance(tilt(world.friend.trait.gives, -15)) else refused


def helped_out(tell: Tell, world: World) -> Beat | None:
    """The friend gives what is missing."""
    if world.shared:
        tell(
            '"[You are kind, so|For that,|Here,] [take|have] {missing}," {friend} [said/says|'
            "answered/answers] {manner}.",
            '"[And I|Then I|I] [can|will] give you {missing}," {friend} said/says {manner}.',
            '"[Take|Have] {missing} [back|of mine|for that|from me]," {friend} [said/says|'
            "answered/answers] {manner}.",
            manner=MANNERS,
        )
    else:
        tell(
            '"[Never mind|All right|Well], [take|have] {missing}[ of mine|]," {friend} said/says '
            "{manner}.",
            '"But I [can|will] give you {missing}," {friend} [said/says|answered/answers] '
            "{manner}.",
            '"Here are {missing}[, see|, then|, {hero}|]," {friend} [said/says|told/tells {hero}] '
            "{manner}.",
            manner=MANNERS,
        )
    n = world.goal - world.have
    count(tell, world, n, -n)
    tell.note("did", world.friend, f"gave {world.hero} {world.missing} {world.items}")
    because = "{hero.he} had/has [all |the |]{number}[ at last| together|]"
    feel(tell, world, world.hero, GLAD, because)
    return finish(tell, world, "happy")


def refused(tell: Tell, world: World) -> Beat | None:
    """The friend gives nothing, and the hero is left with too few."""
    world.total = NUMBERS[world.have]
    tell(
        "{hero} [still |]needed/needs {missing}, but {friend} [was/is busy|went/goes on|"
        "kept/keeps] {doing}.",
        "{hero} asked/asks for {missing}, but {friend} [just went/goes on|was/is too busy|"
        "went/goes on|was/is busy] {doing}.",
        '"[And I|I] need {missing}," {hero} said/says, but {friend} [was/is busy|went/goes on|'
        "kept/keeps] {doing}.",
        '{hero} asked/asks for {missing}. "[No|Never|Sorry|Not now]," {friend} said/says, {doing}.',
        doing=DOING,
    )
    tell.note("refuse", world.friend, world.hero)
    because = "{hero.he} [had/has only {total}|was/is {missing} short|needed/needs {missing} more]"
    feel(tell, world, world.hero, SAD, because)
    return finish(tell, world, "sad")
