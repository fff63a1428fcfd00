"""The plot "trade": one thing for another, if the friend likes, and perhaps with a flaw.

Every function is a beat; the lists above them are what only this plot draws from.
"""

from __future__ import annotations

from llm_core.stories.choices import Choice
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import DEADLINES, FOODS, GIVERS, GLAD, NUMBERS, SAD, SONGS
from llm_core.stories.phrases import DOING, FINE, MANNERS, MARKS, OLD, WAYS, WITNESSES
from llm_core.stories.scenes import feel, finish, friend, get_thing, own_toy, tilt
from llm_core.stories.world import World

COUNTS = Choice(NUMBERS[3:15])


@plot("trade", odds=4, words=73)
def trade(tell: Tell, world: World) -> Beat:
    """The friend has something that the hero would like to have."""
    own_toy(tell, world)
    friend(tell, world)
    world.prize = get_thing(
        tell,
        world,
        world.friend,
        "{friend} was/is [cleaning|holding|drying] {color.a} {noun}.",
        "In {friend.his} [hands|arms|bag], {friend} had/has {color.a} {noun}.",
        "[Beside|Before|Behind] {friend} lay/lies {color.a} {noun}[, all {friend.his} own|].",
        "{friend} [owned/owns|had/has|held/holds|loved/loves] {color.a} {noun}.",
        "{friend}'s [pride|best thing|joy] was/is {color.a} {noun}.",
        "{friend} [sat/sits|stood/stands|waited/waits] there with {color.a} {noun}.",
    )
    tell(
        '"My {old} {toy} for your {fine} {prize}?" {hero} [asked/asks|begged/begs|said/says]. '
        '"I [want|need|could use] it for {use}."',
        '"[What|Such] {fine.a} {prize}! [Good|Perfect|Just right] for {use}," {hero} said/says. '
        '"[Trade it for|Will you take|Do you want] my {old} {toy}?"',
        '{hero} [held/holds out|showed/shows] {hero.his} {old} {toy}. "[Trade|Shall we trade|Will '
        'you trade]? I [want|need] {fine.a} {prize} for {use}."',
        '"For {use}, I [need|want|must have] {fine.a} {prize}," {hero} said/says. "[Will you take|'
        'Do you want] my {old} {toy}?"',
        '"Your {prize} is so {fine}, [good|perfect|just right] for {use}," {hero} [said/says|'
        'sighed/sighs]. "[Will you take|Do you want] my {old} {toy}?"',
        old=OLD,
        fine=FINE,
        use=DOING,
    )
    tell.turn()
    if tell.chance(tilt(world.friend.trait.gives)):
        return agreed
    return topped if tell.chance(40) else declined


def agreed(tell: Tell, world: World) -> Beat:
    """The friend takes the offer as it is."""
    tell(
        '"[Done|Yes|Gladly|Fine]," {friend} said/says {manner}, and they [shook/shake hands|'
        "bowed/bow] {n} times.",
        '{friend} counted/counts to {n} and said/says {manner}, "[Done|Yes|Take it|All right]!"',
        '"[It is a deal|Why not|All right]," {friend} said/says {manner}. With {n} [bows|jumps], '
        "they [traded/trade|swapped/swap].",
        '{friend} looked/looks at it from {n} sides. "[Done|Yes|Mine for yours|Fine]!" {friend.he} '
        "said/says {manner}.",
        '"[Quick|Yes|Fine], before I count to {n}," {friend} said/says {manner}, and they '
        "[traded/trade|swapped/swap].",
        manner=MANNERS,
        n=COUNTS,
    )
    return exchange


def topped(tell: Tell, world: World) -> Beat:
    """The friend wants something to eat as well, and gets it."""
    tell(
        '"[Add|Give me] {food}, and it is yours," {friend} said/says {manner}. {hero} did/does, '
        "and they [traded/trade|swapped/swap].",
        '"I want {food} [as well|on top|with it]," {friend} said/says {manner}. {hero} '
        "[nodded/nods|agreed/agrees], and they traded/trade.",
        '"[First|But first] I need {food}," {friend} said/says {manner}. {hero} [hurried/hurries|'
        "ran/runs], and soon they [traded/trade|swapped/swap].",
        '"The {toy} and {food}," {friend} [said/says|begged/begs] {manner}. {hero} [nodded/nods|'
        "agreed/agrees|said/says yes].",
        '"I [trade|swap|think] better with {food}," {friend} said/says {manner}. {hero} '
        "understood/understands, and they traded/trade.",
        food=FOODS,
        manner=MANNERS,
    )
    tell.note("did", world.hero, f"added {world.food} to the {world.toy}")
    return exchange


def exchange(tell: Tell, world: World) -> Beat | None:
    """The things have changed hands; the new one is good, or has a flaw."""
    hero, other, given = world.hero, world.friend, world.toy
    tell.note("trade", hero, given, other, world.prize)
    tell.note("own", hero, world.prize)
    tell.note("own", other, given)
    tell.note("did", hero, f"traded the {given} for the {world.prize}")
    world.toy = world.prize
    if tell.chance(tilt(other.trait.honest)):
        tell(
            "{witness.cap} [saw/sees|tried/tries] the {prize} and [sang/sings|hummed/hums] about "
            "{song}, so [good|fine|perfect] it was/is.",
            "The {prize} had/has [no|not one] [hole|scratch|spot]. Even {witness} [sang/sings|"
            "hummed/hums] to it about {song}.",
            "[Perfect|Not one scratch|It was/is perfect]! {hero} sang/sings about {song}, and "
            "{witness} [sang/sings|hummed/hums] along.",
            "It was/is [perfect|all good|like new], and {hero} "
            "[sang/sings|taught/teaches] {witness} a "
            "song about {song}.",
            song=SONGS,
            witness=WITNESSES,
        )
        tell.note("honest", other, hero)
        feel(tell, world, hero, GLAD, "the {prize} was/is [good|perfect|just right] for {use}")
        return finish(tell, world, "happy")
    tell(
        '[Only then|Too late|Then] {hero} [found/finds|noticed/notices] {mark}. "[I know|Oh, that|'
        'It was always so]," {friend} said/says {excuse}.',
        '"[By the way|Oh], it has {mark}," {friend} [called/calls|said/says] {excuse}, already '
        "[leaving|far away].",
        '"[Do you like|Do you mind|And what about] {mark}?" {friend} [asked/asks|called/calls] '
        "{excuse}. {hero} had/has not [known|noticed].",
        'The {prize} had/has {mark}. "[I know|It always did|I forgot to say]," {friend} '
        "[called/calls|said/says] {excuse}.",
        mark=MARKS,
        excuse=MANNERS,
    )
    tell.note("know", other, f"what was wrong with the {world.prize}")
    feel(tell, world, hero, SAD, "the {prize} [had/has|came/comes with] {mark}")
    return finish(tell, world, "sad")


def declined(tell: Tell, world: World) -> Beat | None:
    """The friend keeps the thing; the hero may still hold it for a while."""
    tell(
        '"[No|Oh no|Sorry]," {friend} said/says {manner}. "My {giver} [gave it to|made it for|'
        'left it to] me."',
        '"It is from my {giver}," {friend} [said/says|answered/answers] {manner}, and held/holds '
        "it [tight|fast|close].",
        '"[I will keep it|It is not for trade|It stays with me]," {friend} said/says {manner}. '
        '"[It is|I have it] from my {giver}."',
        '"My {giver} [made|found|chose] it for me," {friend} [said/says|answered/answers] '
        "{manner}, and kept/keeps it.",
        '"[Not this one|Never]," {friend} said/says {manner}. "I [have|got] it from my {giver}."',
        giver=GIVERS,
        manner=MANNERS,
    )
    tell.note("gift", world.friend, world.prize, world.giver)
    tell.note("refuse", world.friend, world.hero)
    if tell.chance(tilt(world.friend.trait.gives, -10)):
        return holds_it(tell, world)
    tell(
        "[Then|And|Soon] [{friend}|{friend.he}] [took/takes|carried/carries] the {prize} {way}, "
        "singing about {song}.",
        "[And off|Off] {friend.he} [went/goes|ran/runs|walked/walks] with it, {way}, singing about "
        "{song}.",
        "[{friend}|{friend.He}] [left/leaves|went/goes|ran/runs] {way}, [singing|humming] about "
        "{song}.",
        "{hero} [watched/watches|saw/sees] {friend.him} go {way} with [it|the {prize}], singing "
        "about {song}.",
        way=WAYS,
        song=SONGS,
    )
    cause = "the {prize} was/is not [for trade|for {hero.him}|to be had]"
    feel(tell, world, world.hero, SAD, cause)
    return finish(tell, world, "sad")


def holds_it(tell: Tell, world: World) -> Beat | None:
    """It stays the friend's, but the hero may have it for a while."""
    tell(
        '[{friend}|{friend.He}] added/adds, "But [you may|do] [hold it|play with it|have a '
        'turn] {deadline}."',
        '[But then|Then] [{friend}|{friend.he}] smiled/smiles. "We [can|will] [share it|play '
        'with both] {deadline}."',
        '[{friend}|{friend.He}] thought/thinks [again|about it]. "[You may hold it|We can '
        'share it|You may have a turn] {deadline}."',
        '[{friend}|{friend.He}] said/says, "[Wait|But listen]. [You may have a turn|We can '
        'share it|You may hold it] {deadline}."',
        deadline=DEADLINES,
    )
    promised = f"to share the {world.prize} {world.deadline}"
    tell.note("promise", world.friend, world.hero, promised)
    cause = "{friend} [wanted/wants|agreed/agrees|was/is ready] to share the {prize}"
    feel(tell, world, world.hero, GLAD, cause)
    return finish(tell, world, "happy")
