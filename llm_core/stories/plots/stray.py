"""The plot "stray": a small animal with a collar follows the hero; whose is it?

Somebody knows, or says so without knowing; if nobody does, it stays or runs away.
"""

from __future__ import annotations

from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import COLORS, FOODS, GIVERS, GLAD, SAD, SPOTS
from llm_core.stories.phrases import FINE, MANNERS, WAYS, WITNESSES, one_of
from llm_core.stories.scenes import feel, finish, friend, tilt
from llm_core.stories.world import World

STRAYS = one_of(
    """kitten, puppy, lamb, hen, chick, cat, pigeon, crow, calf, goose, pig, pony, donkey, piglet
    rooster, parrot"""
)
PETS = one_of(
    """Crumb, Pudding, Pepper, Button, Turnip, Bean, Thunder, Sock, Captain, Potato, Soup, King
    Sunday, Jam, Moon, Nut, Onion, Bucket, Noodle, Pickle"""
)


@plot("stray", odds=4, words=66)
def stray(tell: Tell, world: World) -> Beat:
    """A small animal follows the hero and gets a name."""
    tell(
        "{spot.cap} [sat/sits|stood/stands|waited/waits|lay/lies] {fine.a} {stray} [with|in] "
        "{band.a} collar.",
        "{hero.He} [found/finds|saw/sees|met/meets] {fine.a} {stray} {spot}, [with|in] {band.a} "
        "collar.",
        '"{fine.A} {stray} {spot}, [with|in] {band.a} collar!" {hero} [called/calls|cried/cries|'
        "said/says].",
        "{fine.A} {stray} [with|in] {band.a} collar [sat/sits|stood/stands|waited/waits|lay/lies] "
        "{spot}.",
        spot=SPOTS,
        fine=FINE,
        stray=STRAYS,
        band=COLORS,
    )
    tell(
        '"[I will call you|You must be|I name you] {pet}," {hero} [said/says|told/tells it] '
        "{manner}.",
        '"[Come|Come along|Come here|Come with me], {pet}," {hero} [said/says|called/calls] '
        "{manner}.",
        '"[You are|You look like] {pet} to me," {hero} [said/says|told/tells it] {manner}.',
        '"{pet}[, that is you|, that is your name|, let us go]," {hero} [said/says|told/tells it] '
        "{manner}.",
        pet=PETS,
        manner=MANNERS,
    )
    tell.note("did", world.hero, f"found {world.stray.a} and named it {world.pet}")
    world.topic = f"whose the {world.stray} was"
    tell.note("unaware", world.hero, world.topic)
    friend(tell, world)
    ask_whose(tell, world)
    tell.turn()
    if tell.chance(50):
        return owner_found if tell.chance(tilt(world.friend.trait.honest)) else claimed
    return nobodys


def ask_whose(tell: Tell, world: World) -> None:
    """The question that the friend is asked."""
    tell(
        '"[Whose {stray} is this|Do you know this {stray}|Who lost this {stray}|Is this {stray} '
        'yours]?" {hero} asked/asks[ {friend}|].',
        '{hero} [pointed/points at|looked/looks at|called/calls] {pet}. "[Whose is it|Is it yours|'
        'Do you know it|Who lost it]?"',
        '"[I found|I call it|This is|Here is] {pet}," {hero} said/says. "[Whose is it|'
        'Is it yours|Do you know it|Who lost it]?"',
    )


def owner_found(tell: Tell, world: World) -> Beat | None:
    """The friend knows the owner and says so."""
    tell(
        '"[Look, it|It] is {real}, and my {keeper} [lost it|wants it back|is looking for it]," '
        "{friend} [said/says|cried/cries].",
        '"That is {real}!" {friend} [said/says|cried/cries|called/calls]. "My {keeper} [lost it|'
        'wants it back|is looking for it]!"',
        '"[My|Oh, my] {keeper} [lost it|wants it back]. It is {real}," {friend} [said/says|'
        "answered/answers].",
        '{friend} [knew/knows it|laughed/laughs|jumped/jumps up]. "It is {real}, and my {keeper} '
        '[lost it|wants it back]!"',
        keeper=GIVERS,
        real=PETS.without((world.pet,)),
    )
    tell.note("honest", world.friend, world.hero)
    tell.note("know", world.friend, world.topic)
    tell.note("know", world.hero, world.topic)
    tell(
        "[So they|They] [brought/bring|took/take|led/lead] it home and got/get {food}[ for it|].",
        "They [brought/bring|took/take|led/lead] it [home|back], and {hero} got/gets {food}[ for "
        "it|].",
        "For bringing it [home|back], {hero} got/gets {food}[ from the {keeper}|].",
        "{friend.His} {keeper} [laughed/laughs|danced/dances|cried/cries] for joy and gave/gives "
        "{hero} {food}.",
        food=FOODS,
    )
    tell.note("did", world.hero, f"brought the {world.stray} home")
    feel(tell, world, world.hero, GLAD, "{real} was/is [home again|back home|home at last]")
    return finish(tell, world, "happy")


def claimed(tell: Tell, world: World) -> Beat | None:
    """The friend says that it is theirs; the hero may put that to the test."""
    tell(
        '"[It is mine|Mine, of course|That is mine|Yes, mine]," {friend} lied/lies {manner}.',
        '"[It is mine|Mine, of course|Yes, mine]," {friend} said/says {manner}, but it was/is '
        "[not true|a lie].",
        '"[My own|My dear|My good|My poor] {pet}!" {friend} lied/lies {manner}.',
        '"[I lost it|I know it|It knows me], it is mine," {friend} lied/lies {manner}.',
        manner=MANNERS,
    )
    tell.note("lie", world.friend, world.hero)
    if tell.chance(tilt(world.hero.trait.cares, -20)):
        tell(
            '{hero} [hid/hides|covered/covers] its collar. "[What|Which] color is it?" "{guess.cap}'
            '!" [Wrong|It was/is not|Caught]!',
            '"[Then what|So what|What] color is its collar?" {hero} asked/asks, [hiding|covering] '
            'it. "{guess.cap}?" [Wrong|No|Caught]!',
            '"[Close your eyes|Look away]," {hero} said/says. "What color is its collar?" '
            '"{guess.cap}!" [Wrong|Caught|It was/is not]!',
            guess=COLORS.without((world.band,)),
        )
        tell.note("know", world.hero, f"that {world.friend} had lied")
        because = "{pet} was/is [safe from {friend}|safe again|still there]"
        feel(tell, world, world.hero, GLAD, because)
        return finish(tell, world, "happy")
    tell(
        "{hero} [believed/believes it|knew/knows no better], and {friend} [took/takes|led/leads|"
        "carried/carries] {pet} off {way}.",
        "So {friend} [took/takes|led/leads|carried/carries] {pet} [away|off] {way}.",
        '"[Goodbye|Be good|Farewell], {pet}," {hero} said/says, and {friend} [took/takes|led/leads|'
        "carried/carries] it {way}.",
        "{friend} [went/goes|ran/runs|walked/walks] off with {pet} {way}.",
        way=WAYS,
    )
    tell.note("did", world.friend, f"went off with {world.pet}")
    tell.note("unaware", world.hero, f"that {world.friend} had lied")
    feel(tell, world, world.hero, SAD, "{pet} was/is [gone|gone for good|gone so soon]")
    return finish(tell, world, "sad")


def nobodys(tell: Tell, world: World) -> Beat | None:
    """The friend does not know either; it stays, or runs away."""
    tell(
        '"[I do not know|No idea|Not mine|Never seen it]," {friend} said/says {manner}.',
        '"[No|Sorry|Oh no], [I do not know it|it is not mine|I cannot help you]," {friend} '
        "[said/says|answered/answers] {manner}.",
        '"[Who knows|Is it not yours|Where is it from]?" {friend} asked/asks {manner}.',
        "{friend} [did/does not know it|had/has never seen it] and [said/says so|told/tells "
        "{hero}] {manner}.",
        manner=MANNERS,
    )
    tell.note("unaware", world.friend, world.topic)
    if tell.chance(tilt(world.hero.trait.cares, -20)):
        tell(
            "So {hero} [took/takes it home|took/takes it in|kept/keeps it] and gave/gives it "
            "{food}[ every day|].",
            '"[Then stay|You can stay|Come and live] with me," {hero} said/says, and it '
            "[ate/eats|had/has|got/gets] {food}.",
            "That [night|evening] {pet} [ate/eats|had/has|got/gets] {food} in {hero}'s "
            "[room|house|kitchen].",
            "{hero} [took/takes|led/leads|carried/carries] {pet} home, where it [ate/eats|had/has|"
            "got/gets] {food}[ in bed| by the fire|].",
            food=FOODS,
        )
        tell.note("did", world.hero, f"took {world.pet} in")
        because = "{pet} had/has [found a home|a new home|a home at last]"
        feel(tell, world, world.hero, GLAD, because)
        return finish(tell, world, "happy")
    tell(
        "[Just then|Then] {pet} [saw/sees|heard/hears|smelled/smells] {lure} and ran/runs [off|"
        "away] {way}.",
        "[But|Then] {pet} [ran/runs|went/goes] after {lure}, {way}[, and was/is gone|].",
        "{lure.cap} [came/comes by|went/goes by], and {pet} [ran/runs|went/goes] off {way}.",
        "[When|As] {hero} looked/looks away, {pet} [ran/runs|went/goes] after {lure} {way}.",
        lure=WITNESSES,
        way=WAYS,
    )
    feel(tell, world, world.hero, SAD, "{pet} was/is [lost again|gone again|gone so soon]")
    return finish(tell, world, "sad")
