"""The plot "quarrel": two want the same seat and call each other silly names.

Either may say sorry first, or nobody does; then nobody gets what both wanted.
"""

from __future__ import annotations

from llm_core.stories.choices import Choice
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import COLORS, FOODS, GLAD, NUMBERS, SAD
from llm_core.stories.phrases import DOING, MANNERS, WAYS, one_of, pairs
from llm_core.stories.scenes import feel, finish, friend, tilt
from llm_core.stories.world import World

# What both want: each has room for one.
SEATS = one_of(
    """swing, sled, boat, cart, chair, stool, bench, barrel, tent, pillow, ladder, bed, log, blanket
    wagon, seat"""
)
INSULTS = pairs(
    "{} {}",
    """singing, dancing, sleepy, striped, wet, dusty, flying, crooked, muddy, warm, golden, silly
    walking, little""",
    """sock, potato, turnip, onion, bean, pancake, bun, spoon, kettle, pot, boot, button, plum, bell
    cookie, drum""",
)
COUNTS = Choice(NUMBERS[3:])


@plot("quarrel", odds=4, words=64)
def quarrel(tell: Tell, world: World) -> Beat:
    """Both want the same, and both say more than they mean."""
    friend(tell, world)
    tell(
        "They both [wanted/want|saw/see|ran/run to|asked/ask for] the {color} {seat}.",
        '"The {color} {seat} is mine!" they both [cried/cry|said/say|called/call].',
        "There was/is [only |just |]one {color} {seat}, and both wanted/want it[ first| at once|].",
        '"I was here first, so the {color} {seat} is mine," {friend} [said/says|called/calls].',
        "[Who got/gets|Whose turn was/is it with] the {color} {seat}? Both [said/say|cried/cry], "
        '"Me!"',
        "[Then|Soon] they saw/see {color.a} {seat}, and both [ran/run to it|wanted/want it].",
        '"[Get off|Go away from|Do not touch] my {color} {seat}," {friend} called/calls.',
        color=COLORS,
        seat=SEATS,
    )
    return names_called


def names_called(tell: Tell, world: World) -> Beat | None:
    """Each says what the other is; then anything may happen."""
    tell(
        '"[You|Oh, you|Go away, you] {insult}," {hero} [said/says|called/calls] {manner}.',
        "{manner.cap}, {hero} [called/calls|named/names] {friend} {insult.a}.",
        '"[I was first|Mine|It is mine|Not you], you {insult}," {hero} said/says {manner}.',
        '"[Only {insult.a} would say so|You talk like {insult.a}]," {hero} '
        "[said/says|answered/answers] {manner}.",
        '{manner.cap}, {hero} said/says, "[You|It is not for you, you] {insult}!"',
        '"[I am not moving for|Nobody listens to|No room for] {insult.a}," {hero} said/says '
        "{manner}.",
        insult=INSULTS,
        manner=MANNERS,
    )
    tell.note("did", world.hero, f"called {world.friend} {world.insult.a}")
    tell(
        '"And you are {retort.a}[!|, too!|, so there!]" {friend} [answered/answers|cried/cries].',
        '"[Better that than|At least I am not] {retort.a}," {friend} [said/says|answered/answers].',
        "{friend} [said/says|cried/cries|answered/answers] that {hero} was/is {retort.a}.",
        '"[Says|So says|And that from] {retort.a}!" {friend} [cried/cries|shouted/shouts].',
        '"[Look who is talking|Listen to that]: {retort.a}!" {friend} [said/says|cried/cries].',
        '"[You|Oh, you|Well, you] {retort}!" {friend} [shouted/shouts|called/calls|cried/cries].',
        retort=INSULTS.without((world.insult,)),
    )
    tell.note("did", world.friend, f"called {world.hero} {world.retort.a}")
    tell.turn()
    if tell.chance(tilt(world.friend.trait.gives, -20)):
        return friend_sorry
    return hero_sorry if tell.chance(tilt(world.hero.trait.gives)) else parted


def friend_sorry(tell: Tell, world: World) -> Beat | None:
    """The friend gives way."""
    tell(
        'Then {friend} [said/says|told/tells {hero}] {manner}, "[Sorry|I am sorry], [take|you can '
        'have] the {seat}."',
        'But then {friend} [said/says|told/tells {hero}] {manner}, "You are not {retort.a}. '
        '[Sorry|I am sorry]."',
        "{manner.cap}, {friend} [said/says|told/tells {hero}] [that {friend.he} was/is sorry|how "
        "sorry {friend.he} was/is].",
        'Then {friend} [said/says|told/tells {hero}] {manner}, "[That was silly of me|I am no '
        'better|I did not mean it|You first]. Sorry."',
        'Soon {friend} [said/says|told/tells {hero}] {manner}, "[Sorry. You go first|You go first. '
        'I am sorry|I am sorry. Go ahead]."',
        "Then {friend} [gave/gives up|laughed/laughs|stopped/stops] and said/says sorry {manner}.",
        manner=MANNERS,
    )
    tell.note("sorry", world.friend, world.hero)
    tell(
        "{hero} [forgave/forgives|hugged/hugs] {friend.him} and [gave/gives|brought/brings"
        "|offered/offers] {friend.him} {food}.",
        '"[I forgive you|All is forgiven|Never mind]. [Have|Take|Try] {food}," {hero} '
        "[said/says|answered/answers].",
        "{hero} got/gets the {seat}, and {friend} got/gets {food}[ and a hug| and a smile|].",
        '"[Good|Fine|Thank you]! The {seat} for me, {food} for you," {hero} '
        "[said/says|answered/answers].",
        "{hero} [forgave/forgives|hugged/hugs] {friend}, and they [shared/share|ate/eat|had/have] "
        "{food}.",
        '"[Never mind|I am sorry, too|Let us be friends]," {hero} said/says and '
        "[brought/brings|shared/shares|found/finds] {food}.",
        food=FOODS,
    )
    tell.note("forgive", world.hero, world.friend)
    tell.note("did", world.friend, f"gave way to {world.hero}")
    feel(tell, world, world.hero, GLAD, "the quarrel was/is [over|forgotten|at an end]")
    return finish(tell, world, "happy")


def hero_sorry(tell: Tell, world: World) -> Beat | None:
    """The hero says sorry first; the friend forgives and shares, or doesn't."""
    tell(
        '"[I am sorry|Sorry] that I said {insult}," {hero} [said/says|told/tells {friend}] '
        "{manner}.",
        '"You are not {insult.a}[ at all|]. Sorry," {hero} [said/says|told/tells {friend}] '
        "{manner}.",
        "{manner.cap}, {hero} [said/says|told/tells {friend}] [that {hero.he} was/is sorry|how "
        "sorry {hero.he} was/is].",
        '"[I am sorry|Sorry]. [Can we start again|Shall we be friends|What was it about]?" {hero} '
        "[asked/asks|said/says] {manner}.",
        "Then {hero} [gave/gives up|laughed/laughs|stopped/stops] and said/says sorry {manner}.",
        '"[Sorry|I am sorry]," {hero} [said/says|told/tells {friend}] {manner}.',
        manner=MANNERS,
    )
    tell.note("sorry", world.hero, world.friend)
    if tell.chance(tilt(world.friend.trait.gives, 12)):
        return turns_taken
    tell(
        "{friend} took/takes the {seat} [all the same|without a word|anyway], {doing}.",
        '"[Too late|It is too late|That is not enough]," {friend} '
        "[said/says|answered/answers], {doing}.",
        "{doing.cap}, {friend} [gave/gives no answer|said/says nothing|looked/looks away].",
        '"Then the {seat} is mine," {friend} [said/says|answered/answers|told/tells {hero}], '
        "{doing}.",
        "{friend} only [took/takes|kept/keeps|sat/sits on] the {seat}, {doing}.",
        '"[I am still angry|It does not help|Not now]," {friend} [said/says|answered/answers], '
        "{doing}.",
        doing=DOING,
    )
    tell.note("did", world.friend, f"did not forgive {world.hero}")
    feel(tell, world, world.hero, SAD, "[sorry was/is not enough|{friend} was/is still angry]")
    return finish(tell, world, "sad")


def turns_taken(tell: Tell, world: World) -> Beat | None:
    """The friend forgives, and they count how long each may have it."""
    tell(
        '"[First you|You first|You go], for a count of {turns}, then me," {friend} '
        "[said/says|answered/answers|laughed/laughs].",
        "{friend} forgave/forgives {hero.him}, and each [had/has|got/gets] the {seat} for a "
        "count of {turns}.",
        '"[I was silly, too|I am also sorry|I am sorry, too]. Let us count to {turns} and '
        'change," {friend} [said/says|answered/answers].',
        '"[It is forgotten|I forgive you|All right]. Count to {turns}, then it is my turn," '
        "{friend} [said/says|answered/answers].",
        "{friend} [smiled/smiles|laughed/laughs|nodded/nods], and they [took/take turns"
        "|changed/change] at each count of {turns}.",
        turns=COUNTS,
    )
    tell.note("forgive", world.friend, world.hero)
    tell.note("did", world.friend, f"took turns with {world.hero}")
    feel(tell, world, world.hero, GLAD, "[they were/are friends again|there was/is room for both]")
    return finish(tell, world, "happy")


def parted(tell: Tell, world: World) -> Beat | None:
    """Both go away, and nobody gets it."""
    tell(
        "{hero} [walked/walks|ran/runs|went/goes] off {way}, and {friend} went/goes home.",
        "Then {friend} [walked/walks|ran/runs|went/goes] off {way}[, still angry|, and that "
        "was/is all|].",
        '"[Have it your way|I am going|Then keep it]," {hero} said/says and [went/goes'
        "|walked/walks|ran/runs] off {way}.",
        "[Without a word|In the end|Still angry], {hero} [walked/walks|went/goes|ran/runs] off "
        "{way}.",
        "They [parted/part|left/leave], {hero} [walking|running] {way} and {friend} the other way.",
        way=WAYS,
    )
    tell.note("did", world.hero, f"parted from {world.friend} in anger")
    tell(
        "[Nobody|Neither] got/gets the {seat}, and {hero} [ate/eats|had/has] {food} alone.",
        "Instead of the {seat}, {hero} had/has {food}[, all alone| that day|].",
        "{hero} had/has {food}, but nobody [to eat it with|to talk to|to share it with].",
        "{hero} [looked/looks at|found/finds|had/has] {food} and was/is not [even |very |]hungry.",
        "{hero} [ate/eats|had/has|found/finds] {food}[, but it did/does not help| alone].",
        food=FOODS,
    )
    feel(tell, world, world.hero, SAD, "nobody had/has said [sorry|a kind word]")
    return finish(tell, world, "sad")
