"""The plot "mend": a thing breaks, and one way after another is tried to make it whole.

Every function is a beat; the lists above them are drawn from besides the shared ones.
"""

from __future__ import annotations

from llm_core.stories.choices import Choice
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import GLAD, NUMBERS, SAD, SPOTS
from llm_core.stories.phrases import FINE, JUNK, OLD, WITNESSES, one_of
from llm_core.stories.scenes import feel, finish, friend, get_thing, own_toy, tilt
from llm_core.stories.world import World

COUNTS = Choice(NUMBERS[2:13])
TOOLS = one_of(
    """string, glue, honey, wax, clay, wire, tape, mud, jam, cheese, cold soup, a nail, a pin
    a knot, an old belt, a wet rag, a sock, a long stick"""
)
NEW_USES = one_of("bed, hat, boat, house, chair, table, crown, bath, nest, bridge, door, swing")


@plot("mend", odds=4, words=63)
def mend(tell: Tell, world: World) -> Beat:
    """Something of the hero's or of the friend's falls and breaks."""
    friend(tell, world)
    world.mine = tell.chance(50)
    if world.mine:
        world.owner, world.helper = world.hero, world.friend
        if world.toy is None:
            own_toy(tell, world)
        else:
            tell(
                "{hero} [showed/shows|wanted/wants to show] {friend} the {toy.full}.",
                '"Look, my [fine|dear|lovely|good] {toy}!" {hero} [said/says|called/calls]'
                "[ to {friend}|].",
                "What a [fine|lovely|pretty|clever] {toy} {hero} had/has!",
                "{hero} [played/plays|danced/dances|hopped/hops] [about |]with the {toy.full}.",
            )
        world.broken = world.toy
    else:
        world.owner, world.helper = world.friend, world.hero
        world.broken = get_thing(
            tell,
            world,
            world.friend,
            "{friend} had/has {color.a} {noun} [along|in one hand|in a bag].",
            "{friend} was/is playing with {color.a} {noun}[ again|].",
            '"Look, [I have|I found|I made] {color.a} {noun}!" {friend} [called/calls|said/says].',
            "{friend} [carried/carries|held/holds] {color.a} {noun}[ with care| in both arms|].",
            "{friend} was/is [very |so |]proud of {friend.his} {color} {noun}.",
        )
    return falls


def falls(tell: Tell, world: World) -> Beat:
    """The thing breaks."""
    tell(
        "[Then|Right then|But] {scare} [sneezed/sneezes|sang/sings|came/comes by], "
        "and {owner} dropped/drops the {broken}. {n.cap} pieces!",
        '"[Boo|Hello|Hey]!" [said/says|cried/cries] {scare}. {owner} dropped/drops the {broken}. '
        "{n.cap} pieces!",
        "Because of {scare}, {owner} [fell/falls|slipped/slips]. "
        "The {broken} [was/is|lay/lies] in {n} pieces.",
        "{owner} [ran/runs|walked/walks] into {scare}. [Crash|Crack|Bang]! "
        "The {broken} was/is in {n} pieces.",
        "{owner} [waved/waves to|looked/looks at] {scare} and dropped/drops the {broken}. "
        "[Crash|Crack|Bang]! {n.cap} pieces!",
        scare=WITNESSES,
        n=COUNTS,
    )
    tell.note("did", world.owner, f"dropped the {world.broken}")
    return attempt


def attempt(tell: Tell, world: World) -> Beat:
    """The first way to mend it does not hold."""
    tell(
        "They [tried/try|used/use|took/take] {tool}. It held/holds for {k} "
        "[minutes|hours|days|steps].",
        "{tool.cap} [helped/helps|held/holds], but [only|just] for {k} [minutes|hours|days|steps].",
        '"[Try|Take|Use] {tool}," {helper} said/says. It held/holds for {k} '
        "[minutes|hours|days|steps].",
        "With {tool}, it [held/holds|was/is whole] for {k} [minutes|hours|days|steps].",
        "{helper} [brought/brings|tried/tries] {tool}. It broke/breaks after {k} "
        "[minutes|hours|days|steps].",
        tool=TOOLS,
        k=COUNTS,
    )
    tell.note("help", world.helper, world.owner, f"to mend the {world.broken}")
    tell.note("did", world.hero, f"tried {world.tool} on the {world.broken}")
    world.tried = (world.tool,)
    return again if tell.chance(40) else last_try


def again(tell: Tell, world: World) -> Beat:
    """Nor does the second."""
    tell(
        "[Then|Next|Now] they [tried/try|used/use] {tool}. It held/holds for {k} "
        "[minutes|hours|days|steps].",
        '"[Now|Then] {tool}," {owner} said/says. It held/holds for {k} [minutes|hours|days|steps].',
        "{tool.cap} [did/does|was/is] better, but [only|just] for {k} [minutes|hours|days|steps].",
        "[Next|Then|After that] came/comes {tool}. It broke/breaks after {k} "
        "[minutes|hours|days|steps].",
        tool=TOOLS.without(world.tried),
        k=COUNTS,
    )
    tell.note("did", world.hero, f"tried {world.tool} on the {world.broken}")
    world.tried = (*world.tried, world.tool)
    return last_try(tell, world)


def last_try(tell: Tell, world: World) -> Beat:
    """How it ends depends on how careful the two are."""
    tell.turn()
    if tell.chance(tilt((world.hero.trait.cares + world.friend.trait.cares) // 2, -15)):
        return mended
    return reused if tell.chance(tilt(world.hero.trait.dares, -25)) else beyond_repair


def mended(tell: Tell, world: World) -> Beat | None:
    """The last way holds."""
    tell(
        "[At last|In the end|Then] {tool} held/holds, [and|but|only] now the {broken} "
        "looked/looks like {old.a} {junk}.",
        '{hero} [took/takes|tried/tries] {tool}, and it held/holds! "It looks like {old.a} '
        '{junk}," said/says {friend}.',
        "With {tool}, it [stayed/stays|was/is] whole[ at last|], but [now |]looked/looks like "
        "{old.a} {junk}.",
        "Was/Is that {old.a} {junk}? No, it was/is the {broken}, [made whole|mended] with {tool}.",
        '"[Try|Take|Use] {tool}," said/says {hero}. It [held/holds|worked/works], but '
        "looked/looks like {old.a} {junk}.",
        tool=TOOLS.without(world.tried),
        old=OLD,
        junk=JUNK,
    )
    tell.note("did", world.hero, f"mended the {world.broken} with {world.tool}")
    feel(tell, world, world.hero, GLAD, "the {broken} was/is [whole|in one piece] again")
    return finish(tell, world, "happy")


def reused(tell: Tell, world: World) -> Beat | None:
    """It stays in pieces, but they are good for something else."""
    tell(
        '"[Never mind|Wait]," said/says {hero}, "it makes {fine.a} {new} for {pal}." And it '
        "did/does.",
        "{hero} [turned/turns|put/puts] the pieces [around|on end] and had/has {fine.a} {new} for "
        "{pal}.",
        '"[Look|See|Wait]," said/says {friend}, "it is {fine.a} {new} for {pal}!" And [so |]it '
        "was/is.",
        "[In the end|So] they made/make {fine.a} {new} for {pal} [out of|from] [the pieces|it].",
        '"{pal.cap} needs {fine.a} {new}," {hero} said/says. [Now|Soon] '
        "[there was/is one|they had/have one].",
        fine=FINE,
        new=NEW_USES,
        pal=WITNESSES,
    )
    tell.note("did", world.hero, f"turned the {world.broken} into {world.new.a}")
    if world.mine:
        world.toy = None
    feel(tell, world, world.hero, GLAD, "the {broken} had/has [become|turned into] {new.a}")
    return finish(tell, world, "happy")


def beyond_repair(tell: Tell, world: World) -> Beat | None:
    """It stays broken."""
    tell(
        "{owner} [put/puts|laid/lays|left/leaves] the pieces {spot}, [beside|near] {old.a} {junk}.",
        "In the end the pieces [went/go|lay/lie] {spot}, [next to|near|under] {old.a} {junk}.",
        '"It is [no use|too late]," said/says {helper}. They left/leave it {spot}, [with|near] '
        "{old.a} {junk}.",
        "{spot.cap}, [beside|near] {old.a} {junk}, they [left/leave|hid/hide] the pieces.",
        '"Poor {broken}," {owner} said/says and [put/puts|laid/lays] it {spot}, [near|by] {old.a} '
        "{junk}.",
        spot=SPOTS,
        old=OLD,
        junk=JUNK,
    )
    tell.note("at", world.broken, world.spot)
    if world.mine:
        world.toy = None
    feel(tell, world, world.hero, SAD, "the {broken} [could/can not be mended|was/is lost]")
    return finish(tell, world, "sad")
