"""The plot "race": a contest for something to eat, and a trick that somebody may use.

Every function is a beat or a step of one; the lists above them are what only this plot draws from.
"""

from __future__ import annotations

from llm_core.stories.choices import Choice, Word
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import FOODS, GLAD, GUILTY, NUMBERS, SAD, SPOTS
from llm_core.stories.phrases import MANNERS, WITNESSES, one_of
from llm_core.stories.scenes import ONE_OF, feel, finish, friend, tilt
from llm_core.stories.world import World

CONTESTS = Choice(
    [
        Word(name, tricks=one_of(tricks))
        for name, tricks in (line.strip().split(" | ") for line in """\
        foot race | riding on a cart, going under a fence, starting early
        hopping race | using both legs, using a stick, leaning on a goat
        boat race | blowing hard, pulling a string, using two sails
        snail race | holding up a leaf, pulling a string, using two snails
        sack race | cutting two holes, walking under the sack, using a small sack
        egg race | using glue, using a boiled egg, holding the egg
        barrel race | riding on the barrel, starting early, using a small barrel
        staring match | painting two eyes on paper, closing one eye, using an onion
        singing match | hiding a bird in a bag, making faces, singing twice
        pie match | feeding the dog, hiding half in a boot, using a spade
        jumping match | using a spring, jumping from a box, pulling a string
        hiding game | looking too soon, leaving a hat behind a tree, going home
        sleeping match | closing one eye, singing softly, painting both eyes
        laughing match | thinking of soup, using an onion, making faces
        climbing match | using a rope, standing on a goat, starting early
        throwing match | using a spring, throwing a bean, throwing down the hill
        """.strip().splitlines())
    ]
)  # fmt: skip
COUNTS = Choice(NUMBERS[3:13])
LEADS = one_of(
    """by a nose, by a hair, by an inch, by a foot, by a mile, by far, by two steps, by a toe
    by a shoe, by a bean, by a crumb, by a thumb, by half, by a little, by one hop, by an ear"""
)


@plot("race", odds=4, words=67)
def race(tell: Tell, world: World) -> Beat:
    """Two agree on a contest and a prize, and one of them is ahead."""
    friend(tell, world)
    tell(
        '"[Let us|Come and|I want to] have {contest.a}," {friend} [said/says|called/calls]. '
        '"[I bet|We play for] {prize}."',
        '"I [can|will] beat you in {contest.a}," {hero} told/tells {friend}. "[For|I bet] '
        '{prize}!"',
        "They [wanted/want|held/hold|had/have] {contest.a} for {prize}.",
        "{friend} [asked/asks for|wanted/wants] {contest.a}, and {hero} [put/puts up|bet/bets] "
        "{prize}.",
        '"Who gets {prize}?" {hero} asked/asks {friend}. They [had/have|held/hold] {contest.a} '
        "[for it|to find out].",
        contest=CONTESTS,
        prize=FOODS,
    )
    tell(
        "On the count of {number} they began/begin, and {crowd} "
        "[watched/watches|sang/sings|slept/sleeps|cheered/cheers].",
        '"{number.cap}!" [called/calls|cried/cries|said/says|sang/sings] {crowd}, '
        "and [they|both|the two] began/begin.",
        "{crowd.cap} [slowly |quickly |softly |]counted/counts to {number}, and [they|both] "
        "began/begin.",
        "They counted/count to {number} and [began/begin|started/start], [watched|cheered|led] by "
        "{crowd}.",
        '"One, two, {number}!" [called/calls|cried/cries|said/says|sang/sings] '
        "{crowd}[ softly| loudly|].",
        number=COUNTS,
        crowd=WITNESSES,
    )
    lead_taken(tell, world)
    tell.turn()
    return trick if tell.chance(tilt(100 - world.tail.trait.honest)) else fair


def lead_taken(tell: Tell, world: World) -> None:
    """Say who is ahead; the other one comes behind, for now."""
    first = tell.pick(ONE_OF[2])
    world.leader = (world.hero, world.friend)[first]
    world.tail = (world.friend, world.hero)[first]
    world.hero_is_tail = first == 1
    tell(
        "[At first|Soon|At once|Then] {leader} was/is [ahead|in front|better] {lead}.",
        "{leader} [led/leads|was/is better|was/is ahead] {lead}[ at first| for now|].",
        '"I am [ahead|first|the best|in front] {lead}!" {leader} '
        "[said/says|cried/cries|sang/sings].",
        "[All|It] went/goes [well|fine] for {leader}, [ahead|in front|first] {lead}.",
        lead=LEADS,
    )
    tell.note("did", world.leader, "took the lead")


def trick(tell: Tell, world: World) -> Beat | None:
    """Whoever is behind wins by a trick, and says so or not."""
    tell(
        "[Then|But|But then|Yet] {tail} won/wins by {trick}.",
        "By {trick}, {tail} won/wins [after all|in the end|all the same|at last].",
        "How did/does {tail} win [after all|in the end|at last]? By {trick}.",
        "[In the end|At last|After all], {tail} won/wins by {trick}.",
        trick=world.contest.tricks,
    )
    tell.note("did", world.tail, f"won by {world.trick}")
    return confessed if tell.chance(tilt(world.tail.trait.honest, -5)) else denied


def confessed(tell: Tell, world: World) -> Beat | None:
    """The truth comes out, and the prize goes where it belongs."""
    tell(
        '"I [cheated|used a trick|was wrong]," {tail} told/tells {leader} {manner} '
        "and gave/gives up the prize.",
        '"[Take|Have] the prize, {leader}. I [cheated|used a trick]," {tail} said/says {manner}.',
        '"[It was not fair|It does not count]," {tail} said/says {manner} '
        "and gave/gives {leader} the prize.",
        "{manner.cap}, {tail} gave/gives {leader} the prize and told/tells [all|the truth].",
        manner=MANNERS,
    )
    tell.note("honest", world.tail, world.leader)
    tell.note("did", world.tail, f"gave {world.leader} the prize")
    feel(tell, world, world.hero, GLAD, "the truth was/is [out|told|known]")
    return finish(tell, world, "happy")


def denied(tell: Tell, world: World) -> Beat | None:
    """A lie keeps the prize."""
    tell(
        '"[It was fair|I am faster|I used no trick]," {tail} told/tells {leader} {manner} '
        "and [took/takes|kept/keeps] the prize.",
        '"[Was|Is] that fair?" asked/asks {leader}. "[Yes|Very fair|It was]," '
        "{tail} said/says {manner}.",
        '"I am [better|the best|good], {leader}," {tail} said/says {manner} '
        "and [took/takes|ate/eats] the prize.",
        "{tail} told/tells {leader} {manner} that [all|it] was/is fair "
        "and [took/takes|ate/eats] the prize.",
        manner=MANNERS,
    )
    tell.note("lie", world.tail, world.leader)
    tell.note("unaware", world.leader, f"how {world.tail} had won")
    if world.hero_is_tail:
        feel(tell, world, world.hero, GUILTY, "it was/is [not fair|only a trick|all a lie]")
    else:
        feel(tell, world, world.hero, SAD, "{friend} had/has [got|taken|won] the prize")
    return finish(tell, world, "sad")


def fair(tell: Tell, world: World) -> Beat | None:
    """Nobody cheats; whoever wins may share the prize."""
    first = tell.pick(ONE_OF[2])
    world.winner = (world.hero, world.friend)[first]
    tell(
        "[In the end|At last|Indeed] {winner} [won/wins|came/comes in first] {margin}.",
        "{winner} [came/comes in first|won/wins] {margin}[ in the end| at last| after all|].",
        '"{winner} [wins|won|is first] {margin}!" [called/calls|cried/cries|said/says] '
        "{crowd.the}.",
        "When it was/is over, {winner} [had/has won|was/is first] {margin}.",
        margin=LEADS,
    )
    tell.note("did", world.winner, f"won the {world.contest} {world.margin}")
    if tell.chance(tilt(world.winner.trait.gives)):
        return shared(tell, world, first == 0)
    return kept(tell, world, first == 0)


def shared(tell: Tell, world: World, mine: bool) -> Beat | None:
    """The winner gives half of the prize away."""
    tell(
        '"Half [for you|is yours|of it is yours]," said/says {winner}, '
        "and [they|both] ate/eat {nook}.",
        "{nook.cap}, {winner} [gladly |kindly |at once |]shared/shares the prize.",
        "{winner} [shared/shares|gave/gives away half of] the prize {nook}[ at once| gladly|].",
        "{winner} [cut/cuts|broke/breaks] the prize in [two|half], "
        "and both [ate/eat|sat/sit] {nook}.",
        nook=SPOTS,
    )
    if mine:
        feel(tell, world, world.hero, GLAD, "{friend} [had/has some|was/is happy], too")
    else:
        feel(tell, world, world.hero, GLAD, "{friend} had/has [shared|given half away]")
    return finish(tell, world, "happy")


def kept(tell: Tell, world: World, mine: bool) -> Beat | None:
    """The winner keeps it all."""
    tell(
        "{winner} [took/takes|carried/carries] the prize away and ate/eats it {nook}[, alone|].",
        '"[It is all|This is|All] mine!" {winner} said/says and ate/eats [the prize|it all] '
        "{nook}.",
        "{winner} [hid/hides|ate/eats] the prize {nook} and [gave/gives away|shared/shares] "
        "[nothing|no crumb].",
        "[All alone|Alone] {nook}, {winner} [ate/eats|finished/finishes] [the prize|all of it].",
        nook=SPOTS,
    )
    if mine:
        feel(tell, world, world.hero, GUILTY, "[nothing|not a crumb] was/is left for {friend}")
    else:
        feel(tell, world, world.hero, SAD, "{friend} had/has [not shared|kept it all]")
    return finish(tell, world, "sad")
