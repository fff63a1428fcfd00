"""The plot "gift": a present for somebody with a trouble, and a secret that may come out.

Every function is a beat or a step of one; the list above them is what only this plot draws from.
"""

from __future__ import annotations

from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import FOODS, GLAD, SAD, SPOTS
from llm_core.stories.phrases import CRIES, DOING, JUNK, MANNERS, OLD, WAYS, WITNESSES, one_of
from llm_core.stories.scenes import feel, finish, friend, get_thing, tilt
from llm_core.stories.world import World

TROUBLES = one_of(
    """a cold, a sore toe, a sore ear, a bad tooth, a bad knee, a sore leg, a wet sock
    a loose tooth, a hole in one shoe, a bump on the nose, a bee in one ear, a bad back, a cough
    a cold foot, a bad foot, a red eye"""
)


@plot("gift", odds=4, words=81)
def gift(tell: Tell, world: World) -> Beat:
    """The friend has a trouble and goes home; the hero wants to give a present."""
    friend(tell, world)
    tell(
        "But {friend} had/has {trouble} and [soon |][went/goes|walked/walks|ran/runs] home {way}.",
        '"I have {trouble}," said/says {friend} and [went/goes|ran/runs|walked/walks] home {way}.',
        "Because of {trouble}, {friend} [soon |][went/goes|walked/walks|ran/runs] home {way}.",
        "{friend} [told/tells of|had/has|spoke/speaks of] {trouble} "
        "and [went/goes|ran/runs] home {way}.",
        "It was/is {trouble} that [sent/sends|drove/drives|took/takes] {friend} home, {way}.",
        trouble=TROUBLES,
        way=WAYS,
    )
    tell(
        '"{friend} needs a [good|small|nice|new] present," {hero} told/tells {witness}[ softly|].',
        '"[Let us|I will] [make|find] a present," {hero} told/tells {witness}[ softly| at once|].',
        '"What [shall|can|do] I give {friend}?" {hero} asked/asks {witness}[ softly| at once|].',
        '"A [secret|small|good|nice] present [will|may] help," {hero} told/tells {witness}.',
        "{hero} [told/tells|asked/asks] {witness} about a [good|small] present for {friend}.",
        witness=WITNESSES,
    )
    return made if tell.chance(50) else come_upon


def made(tell: Tell, world: World) -> Beat:
    """The hero makes the present."""
    world.gift = get_thing(
        tell,
        world,
        world.hero,
        "[So|Then] {hero.he} made/makes {color.a} {noun} [out of|from] [wood|paper|straw|clay].",
        "It took/takes {hero.him} [an hour|all day|a week|days] to make {color.a} {noun}.",
        "With [wire|wax|glue|paint] and [care|luck|mud], {hero.he} made/makes {color.a} {noun}.",
        "[On a step|Under a tree|At home|All alone], {hero.he} made/makes {color.a} {noun}.",
        "[Soon|At last|By noon|By dark] {hero.he} had/has made {color.a} {noun}.",
    )
    tell.note("did", world.hero, f"made the {world.gift}")
    return conceal


def come_upon(tell: Tell, world: World) -> Beat:
    """The hero finds the present."""
    world.gift = get_thing(
        tell,
        world,
        world.hero,
        "[Soon|Then|By luck] {hero.he} found/finds {color.a} {noun} that [nobody|no one] "
        "wanted/wants.",
        "[In the mud|In the road|By the road|By a wall] {hero.he} found/finds {color.a} {noun}.",
        "Somebody had/has thrown {color.a} {noun} away, and {hero.he} "
        "[found/finds|took/takes|kept/keeps] it.",
        "What [did/does {hero} find|did/does {hero} see]? It was/is {color.a} {noun}, "
        "[as good as|almost] new.",
        "There lay/lies {color.a} {noun}, [all alone|nobody's|good as new], and {hero.he} "
        "[took/takes|kept/keeps] it.",
    )
    tell.note("find", world.hero, world.gift)
    tell.note("did", world.hero, f"found the {world.gift}")
    return conceal


def conceal(tell: Tell, world: World) -> Beat:
    """The present is hidden; the friend does not know where."""
    tell(
        "{hero} [hid/hides|put/puts] [it|the {gift}] {lair}, [under|behind|beside] {cloak.a} "
        "{lid}.",
        "{hero.He} [put/puts|laid/lays|hid/hides] [it|the {gift}] {lair} with {cloak.a} {lid} on "
        "top.",
        '"[Hush|Not a word]!" {hero} told/tells {cloak.a} {lid} {lair} and hid/hides the {gift} '
        "[there|with care].",
        "{lair.cap}, [under|behind|beside] {cloak.a} {lid}, {hero} hid/hides [it|the {gift}].",
        "[It|The {gift}] [went/goes|had/has to go] {lair}, [beside|behind|under] {cloak.a} {lid}.",
        lair=SPOTS,
        cloak=OLD,
        lid=JUNK,
    )
    topic = f"where the {world.gift} was"
    tell.note("at", world.gift, world.lair)
    tell.note("know", world.hero, topic)
    tell.note("unaware", world.friend, topic)
    tell.note("did", world.hero, f"hid the {world.gift} {world.lair}")
    tell.turn()
    if tell.chance(tilt(world.hero.trait.cares, -15)):
        return surprised
    return stumbled if tell.chance(50) else told


def hand_over(tell: Tell, world: World, because: str, glad: bool) -> Beat | None:
    """The present is the friend's now; what the hero feels about it."""
    tell.note("give", world.hero, world.friend, world.gift)
    tell.note("own", world.friend, world.gift)
    tell.note("did", world.hero, f"gave the {world.gift} to {world.friend}")
    feel(tell, world, world.hero, GLAD if glad else SAD, because)
    return finish(tell, world, "happy" if glad else "sad")


def surprised(tell: Tell, world: World) -> Beat | None:
    """The secret was kept, and the present is a surprise."""
    tell(
        "{hero} [gave/gives|brought/brings] it to {friend}. "
        '"{cry}!" [said/says|cried/cries|sang/sings] {friend} {manner}.',
        '"[Close your eyes|Guess|Look]!" {hero} told/tells {friend}. '
        '"{cry}!" [said/says|cried/cries] {friend} {manner}.',
        "[That evening|Later|At supper] {friend} [held/holds|had/has] it. "
        '"{cry}!" {friend.he} [said/says|sang/sings] {manner}.',
        "When {friend} [held/holds|had/has|saw/sees] it at last, "
        '{friend.he} [said/says|cried/cries] {manner}, "{cry}!"',
        "[That evening|Later|At supper] {friend} asked/asks {manner}, "
        '"{cry}! [For me|Is it mine|A present]?"',
        cry=CRIES,
        manner=MANNERS,
    )
    return hand_over(tell, world, "{friend} had/has [guessed|known|heard|seen] nothing", True)


def stumbled(tell: Tell, world: World) -> Beat:
    """The friend comes back too early and sees the present."""
    tell(
        "But {friend} came/comes back [early|too soon] and, {doing}, [saw/sees|found/finds] it.",
        "[All too|Too|Far too] soon {friend} was/is back and, {doing}, [saw/sees|found/finds] it.",
        "But {friend}, {doing}, looked/looks {lair}, and "
        "[there it was/is|saw/sees it|found/finds it].",
        "{doing.cap} that [evening|day|night|noon], {friend} [saw/sees|found/finds] it {lair}.",
        doing=DOING,
    )
    return aware(tell, world)


def told(tell: Tell, world: World) -> Beat:
    """The one who knew of it can not keep a secret."""
    tell(
        "But for {food}, {witness.the} told/tells {friend} [everything|the secret|it all|all].",
        "But {witness.the} [sold/sells|told/tells|gave/gives] the secret to {friend} for {food}.",
        "But {witness.the} [saw/sees|met/meets] {friend} and told/tells [it all|all] for {food}.",
        "But {friend} gave/gives {witness.the} {food} and [soon|so] [knew/knows|heard/hears] "
        "[it all|all].",
        '"[My|A] secret for {food}," {witness.the} said/says to {friend} '
        "and [soon |]told/tells it.",
        food=FOODS,
    )
    return aware(tell, world)


def aware(tell: Tell, world: World) -> Beat:
    """Now the friend knows, and may pretend not to."""
    tell.note("know", world.friend, f"where the {world.gift} was")
    return pretended if tell.chance(tilt(world.friend.trait.gives, -25)) else spoiled


def pretended(tell: Tell, world: World) -> Beat | None:
    """The friend plays along."""
    tell(
        '[Yet|Still,|Even so,] {friend} kept/keeps quiet. "{cry}! For me?" {friend.he} said/says '
        "{manner}.",
        'When {hero} brought/brings it, {friend} [only |]said/says {manner}, "{cry}! '
        '[Who knew|For me]?"',
        '"{cry}! I [never knew|had no idea]!" {friend} told/tells {hero} '
        "{manner}[ later| at supper|].",
        '{friend} acted/acts [very |quite |]surprised. "{cry}!" {friend.he} said/says '
        "{manner}[ later|].",
        cry=CRIES,
        manner=MANNERS,
    )
    tell.note("unaware", world.hero, f"that {world.friend} knew about the {world.gift}")
    return hand_over(tell, world, "it was/is [such|quite] a surprise", True)


def spoiled(tell: Tell, world: World) -> Beat | None:
    """The friend does not pretend."""
    tell(
        '"[I know: |It is ]{gift.a}," {friend} told/tells {hero} {manner} over {food}.',
        '"[I know|I knew it]: {gift.a}," {friend} told/tells {hero} {manner}. "I [wanted|like] '
        '{food}."',
        '"I [know|knew] it. Next time, [get|bring|find] {food}," {friend} told/tells {hero} '
        "{manner}.",
        '"[I know|I knew|Old news]," {friend} told/tells {hero} {manner}, eating {food}.',
        manner=MANNERS,
        food=FOODS,
    )
    tell.note("know", world.hero, f"that {world.friend} knew about the {world.gift}")
    return hand_over(tell, world, "the [surprise|secret] was/is [gone|spoiled|over]", False)
