"""The plot "storm": one cover and two who are getting wet.

Who has the cover may share it; who has none may run through the rain to a better roof.
"""

from __future__ import annotations

from llm_core.stories.choices import Choice, Word
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import COLORS, FOODS, GLAD, GUILTY, SAD, SONGS, phrases
from llm_core.stories.phrases import JUNK, OLD, WITNESSES, one_of
from llm_core.stories.scenes import ONE_OF, feel, finish, friend, tilt
from llm_core.stories.world import World

SHELTERS = Choice(
    Word(one, at=one)
    for one in phrases(
        """in a hollow tree, in a hut, under an old boat, under a cart, in an old bus, in a shed
        under a tin roof, under a big tree, under a table, in a tent, under a bench, in a big box
        in an empty house, in a barrel, in a hen house, under a big leaf"""
    )
)
COVERS = one_of(
    """coat, blanket, sail, towel, carpet, curtain, sack, sheet, mat, tablecloth, raincoat, leaf
    bathtub, door"""
)


@plot("storm", odds=4, words=66)
def storm(tell: Tell, world: World) -> Beat:
    """The weather turns, and the hero runs for shelter."""
    tell(
        "A cloud like {cloud} came/comes [up|near|along], and it [began/begins|started/starts] to "
        "[rain|pour|hail|snow].",
        "[Soon|Suddenly|Then] it [began/begins|started/starts] to [rain|hail|snow] from a cloud "
        "like {cloud}.",
        '"That cloud [looks|is] like {cloud}," {hero} said/says. [Then|Soon|At once] it '
        "[rained/rains|poured/pours|snowed/snows].",
        "Out of a cloud [like|as big as|as wild as] {cloud} [came/comes|fell/falls] [rain|hail|"
        "snow].",
        "[Rain|Hail|Snow] [came/comes|fell/falls] from a cloud [like|as big as|as wild as] "
        "{cloud}.",
        cloud=WITNESSES,
    )
    tell(
        "{hero} [found/finds|saw/sees|knew/knows] a dry [spot|place|corner|seat] {shelter}.",
        "[Quickly|At once|So] {hero} [hid/hides|sat/sits down|ran/runs to hide|jumped/jumps to "
        "safety] {shelter}.",
        "{hero} [ran/runs|jumped/jumps|hurried/hurries] [to stay|to keep|to get] dry {shelter}.",
        "{shelter.cap}, {hero} [waited/waits|kept/keeps dry|sat/sits down|found/finds a seat].",
        "Where was/is it dry? {hero} [looked/looks|hid/hides|sat/sits|waited/waits] {shelter}.",
        shelter=SHELTERS,
    )
    tell.note("at", world.hero, world.shelter)
    friend(tell, world)
    world.owner = (world.hero, world.friend)[tell.pick(ONE_OF[2])]
    return cover


def cover(tell: Tell, world: World) -> Beat:
    """The roof leaks, and only one of them has something to crawl under."""
    world.other = world.friend if world.owner is world.hero else world.hero
    tell(
        "It dripped/drips [even there|on both|on them], [and|but] only {owner} had/has "
        "{color.a} {cover}.",
        "Drops fell/fall on [both|them|the two], [and|but] only {owner} had/has {color.a} {cover}.",
        '"[Drip, drop|Drip, drip|Plop, plop]!" [Only|Luckily] {owner} [had/has|owned/owns] '
        "{color.a} {cover}.",
        "[Soon|Now] only {owner} [was/is|stayed/stays|sat/sits] dry, under {color.a} {cover}.",
        '"[It drips|How it drips|Oh, how wet]," {owner} said/says and [took/takes out|'
        "held/holds up|found/finds] {color.a} {cover}.",
        color=COLORS,
        cover=COVERS,
    )
    tell.turn()
    return snug if tell.chance(tilt(world.owner.trait.gives, -12)) else every_one_alone


def snug(tell: Tell, world: World) -> Beat | None:
    """Both sit under the one cover."""
    tell(
        '"[Come in|Sit here|Come under it|Come here], {other}!" {owner} said/says. They '
        "[ate/eat|shared/share|had/have] {food} and sang/sing about {song}.",
        "{owner} [lifted/lifts|held/holds] the {cover} over both. They [ate/eat|shared/share] "
        "{food} and sang/sing [softly |loudly |]about {song}.",
        '"[Room|There is room|It will do] for two," {owner} said/says. They [ate/eat|shared/share|'
        "had/have] {food} and sang/sing about {song}.",
        "{owner} [made/makes room|moved/moves over]. They [ate/eat|shared/share|had/have] {food} "
        "and sang/sing [softly |loudly |]about {song}.",
        food=FOODS,
        song=SONGS,
    )
    tell.note("help", world.owner, world.other, "wet")
    tell.note("did", world.owner, f"shared the {world.cover}")
    feel(tell, world, world.hero, GLAD, "the {cover} was/is [big|just big|wide] enough for two")
    return finish(tell, world, "happy")


def every_one_alone(tell: Tell, world: World) -> Beat | None:
    """The cover is not shared; somebody may do something about it."""
    tell(
        '"[Sorry|No|Oh no], {other}, it [has to|must] cover my {old} {junk}," {owner} said/says.',
        "But {owner} [put/puts|laid/lays] the {cover} over {old.a} {junk}[ instead| and kept/keeps"
        " it there|].",
        '"[It is|I need it|I have it] for my {old} {junk}," {owner} [said/says|sighed/sighs].',
        '"[And who|Who then] would [cover|hide] my {old} {junk}?" {owner} asked/asks.',
        "But {owner} [needed/needs|wanted/wants|kept/keeps] the {cover} for {old.a} {junk}.",
        old=OLD,
        junk=JUNK,
    )
    tell.note("refuse", world.owner, world.other)
    tell.note("did", world.owner, f"kept the {world.cover}")
    if world.owner is world.friend and tell.chance(tilt(world.hero.trait.dares, -25)):
        return run
    tell(
        "[Soon|An hour later|In the end|At last] {other} was/is [as wet as|wetter than] {wet}.",
        "It [lasted/lasts|went/goes on for] [an hour|two hours|a while], and {other} got/gets as "
        "wet as {wet}.",
        "{other} [got/gets|was/is] [just|quite] as wet as {wet}[ in a bath| in a pond|].",
        wet=WITNESSES,
    )
    if world.owner is world.hero:
        feel(tell, world, world.hero, GUILTY, "{friend} was/is [shivering|cold and wet|so wet]")
    else:
        feel(tell, world, world.hero, SAD, "{friend} [had/has kept|kept/keeps] the {cover}")
    return finish(tell, world, "sad")


def run(tell: Tell, world: World) -> Beat | None:
    """The hero does not wait under the drops."""
    tell(
        "So {hero} ran/runs [out|off|away] and found/finds a [better|dry|good] [spot|place] "
        "{refuge}.",
        '"I am not afraid," {hero} said/says, and [ran/runs|jumped/jumps|hurried/hurries] to a '
        "[dry|better|good] place {refuge}.",
        "{hero} counted/counts to [two|three|ten], ran/runs, and was/is [soon|at once|then] "
        "{refuge}.",
        "[Out|Off] {hero} [ran/runs|went/goes] through it all and [soon|then|at last] sat/sits "
        "{refuge}.",
        refuge=SHELTERS.without((world.shelter,)),
    )
    tell.note("did", world.hero, "ran through the storm")
    tell.note("at", world.hero, world.refuge)
    feel(tell, world, world.hero, GLAD, "it was/is [dry|warm|dry and warm] {refuge}")
    return finish(tell, world, "happy")
