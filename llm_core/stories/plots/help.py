"""The plot "help": somebody is in need, and the hero has a tool along, perhaps the wrong one.

A tool that is lent may come back later with something to eat: that beat waits.
"""

from __future__ import annotations

from functools import cache

from llm_core.stories.choices import Choice, Word
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import FOODS, GIVERS, GLAD, GUILTY, PLACES
from llm_core.stories.phrases import CRIES, DOING, FINE, MANNERS, one_of
from llm_core.stories.scenes import feel, finish, friend, tilt
from llm_core.stories.world import World

SINCE = one_of(
    """breakfast, Tuesday, noon, yesterday, half past three, lunch, last week, Sunday, sunrise
    the rain, four o'clock, school, first light, supper, last winter, midnight"""
)

# How somebody is | what they say | how they are once helped | what helps
NEEDS = [
    Word(state, says=one_of(says), done=done, tools=one_of(tools))
    for state, says, done, tools in (line.split(" | ") for line in """\
cold | I am like ice, I cannot feel my toes, Even my nose is cold | warm again | blanket, coat
hungry | I have nothing to eat, My pot is empty, I could eat a boot | full | pie, cake
thirsty | My cup is empty, I have nothing to drink, My mouth is dry | fresh again | teapot, milk jug
in a hole | I cannot get out, It is so deep, I did not see it | out of the hole | ladder, plank
in the dark | I cannot see a thing, The lamp is out, It is so black | in the light | lantern, torch
on top of a wall | I cannot get down, I am no bird, It is so high | down again | ladder, plank
without jam | It is on top, I am too small, I see it up there | full of jam | ladder, chair
up a tree | I cannot get down, I am no bird, It is so high | down again | ladder, stool, chair
wet | I fell in a pond, I did not see it, My bath was too full | dry again | towel, blanket, coat
stuck with a turnip | It will not move, It is too big, It is heavy | on the way again | cart, sled
too tired to walk | I want to go home, My feet hurt, I want my bed | on the way home | cart, sled
in a torn coat | A nail did this, I ran too fast, It was new | in a good coat again | needle, coat
locked out | I cannot get in, I lost the key, Nobody is at home | in the house | ladder, stool
itchy | I cannot reach it, It is my new coat, It will not stop | well again | rake, broom, stick
""".splitlines())
]  # fmt: skip
TOOLS = Choice(list(dict.fromkeys(tool for need in NEEDS for tool in need.tools.items)))


@cache
def needs(tool: Word, fits: bool) -> Choice:
    """The needs that a tool helps with, or the others."""
    return Choice([need for need in NEEDS if (tool in need.tools.items) == fits])


@plot("help", odds=4, words=62)
def lend_a_hand(tell: Tell, world: World) -> Beat:
    """The hero has a tool along; somebody is in need of something."""
    tell(
        "{hero.His} {giver} had/has [given|lent|sent] {hero.him} {fine.a} {tool}.",
        '"Take {fine.a} {tool}[ along| with you]," {hero.his} {giver} had/has [said|told '
        "{hero.him}].",
        "{hero.He} [had/has|was/is carrying|had/has brought] {fine.a} {tool} from {hero.his} "
        "{giver}.",
        "From {hero.his} {giver}, {hero} [had/has|got/gets] {fine.a} {tool}[ that day|].",
        "{hero.His} {giver} [believed/believes in|liked/likes|swore/swears by] {fine.a} {tool}, so "
        "{hero} [had/has|took/takes] one.",
        giver=GIVERS,
        fine=FINE,
        tool=TOOLS,
    )
    friend(tell, world)
    world.fits = tell.chance(50)
    tell(
        "[Poor {friend}|{friend}] had/has been {need} since {since}.",
        "Since {since}, [poor {friend}|{friend}] had/has been {need}.",
        '"I have been {need} since {since}," {friend} [said/says|sighed/sighs].',
        need=needs(world.tool, world.fits),
        since=SINCE,
    )
    tell(
        '"{says}," {friend.he} [said/says|called/calls|cried/cries] {manner}.',
        '{friend.He} [sighed/sighs|cried/cries|spoke/speaks] {manner}. "{says}!"',
        '"[Oh dear|Help|Help me]! {says}," {friend.he} [said/says|called/calls] {manner}.',
        says=world.need.says,
        manner=MANNERS,
    )
    tell.turn()
    kindness = (world.hero.trait.gives + world.hero.trait.cares) // 2
    if tell.chance(tilt(kindness, 6 if world.fits else -3)):
        return use_tool if world.fits else fetch
    return walk_on


def walk_on(tell: Tell, world: World) -> Beat | None:
    """The hero goes on."""
    tell(
        '"Sorry, I am busy {doing}," {hero} said/says and [went/goes|walked/walks|ran/runs] on.',
        "But {hero} [went/goes|walked/walks|ran/runs] [on|past|away], [busy |]{doing}.",
        '"[Not now|Another time|Maybe later]," {hero} said/says, {doing}, and [went/goes|'
        "walked/walks] on.",
        "{hero} [went/goes|walked/walks|ran/runs] [on|past|by], {doing}[ all the way| as before|].",
        '"I am {doing}, as you see," {hero} said/says [and went/goes on|on the way past].',
        doing=DOING,
    )
    tell.note("refuse", world.hero, world.friend)
    tell.note("did", world.hero, f"walked past {world.friend}")
    because = "[{friend}|poor {friend}] [was/is left|had/has to stay] {need}"
    feel(tell, world, world.hero, GUILTY, because)
    return finish(tell, world, "sad")


def use_tool(tell: Tell, world: World) -> Beat:
    """The hero's own tool is what is needed."""
    tell(
        '"[Take|Have|You need] [my|the|this] {tool}[!|, {friend}!]" {hero} said/says {manner}.',
        '"[Here is|I have] {tool.a} for you," {hero} [said/says|called/calls] {manner}.',
        '"[Here|Wait|Look]," {hero} said/says {manner} and [gave/gives|handed/hands] {friend} the '
        "{tool}.",
        '"[Good that|What luck,] I have {tool.a}," {hero} said/says {manner}.',
        manner=MANNERS,
    )
    tell.note("did", world.hero, f"gave {world.friend} the {world.tool}")
    world.aid = world.tool
    return relief


def fetch(tell: Tell, world: World) -> Beat:
    """The hero fetches something better."""
    tell(
        "The {tool} was/is no [use|help], so {hero} [got/gets|borrowed/borrows|took/takes] "
        "{fine.a} {aid} from {source.the}.",
        '"[Wait|Wait here|One moment]!" {hero} [ran/runs|went/goes] to {source.the} and came/comes '
        "back with {fine.a} {aid}.",
        "{hero} left/leaves the {tool}, [ran/runs|went/goes] to {source.the} and [got/gets|"
        "brought/brings|found/finds] {fine.a} {aid}.",
        "{fine.A} {aid} [was/is better|helped/helps more] than the {tool}, and {hero} got/gets one "
        "{source.at}.",
        source=PLACES.without((world.place,)),
        fine=FINE,
        aid=world.need.tools,
    )
    tell.note("did", world.hero, f"fetched {world.aid.a}")
    return relief


def relief(tell: Tell, world: World) -> Beat | None:
    """All is well; the friend says thanks, or promises to bring the tool back."""
    own = world.aid == world.tool and world.need not in ("hungry", "thirsty")  # eaten, drunk
    promised = own and world.waiting is None and tell.chance(60)
    if promised:
        tell(
            '"[Thank you|Thanks|You are kind]! I will bring back the {tool} [with|and] '
            '{interest}," {friend} promised/promises[ {hero}|].',
            '"[Thank you|Thanks], {hero}! You will get the {tool} back [with|and] {interest}," '
            "{friend} promised/promises.",
            '"[Thank you|Thanks|How kind]!" {friend} said/says and promised/promises to [return|'
            "bring back] the {tool} [with|and] {interest}.",
            interest=FOODS,
        )
    else:
        tell(
            '"{cry}! [Thank you|That helps|That is it|Just right]!" {friend} [said/says|'
            "cried/cries|laughed/laughs].",
            '"[Thank you|Thanks|You are kind], {hero}," {friend} [said/says|laughed/laughs]. '
            '"{cry}!"',
            '{friend} [laughed/laughs|smiled/smiles|jumped/jumps for joy]. "{cry}, [thank you|'
            'that helps|how kind]!"',
            '"{cry}," {friend} [said/says|cried/cries], "[thank you|how kind|that helps|at last]!"',
            cry=CRIES,
        )
    tell.note("help", world.hero, world.friend, world.need)
    if promised:
        world.borrower, world.lent = world.friend, world.tool
        what = f"to bring back the {world.lent} with {world.interest}"
        tell.note("promise", world.borrower, world.hero, what)
        world.waiting = brought_back
    feel(tell, world, world.hero, GLAD, "{friend} was/is {need.done}[| at last]")
    return finish(tell, world, "happy")


def brought_back(tell: Tell, world: World) -> Beat:
    """Later: the borrower keeps the promise, or not."""
    if tell.chance(tilt(world.borrower.trait.honest, 10)):
        tell(
            "[Soon|Then|Before long] {borrower} [brought/brings|gave/gives] back the {lent} with "
            "{interest}[, as promised|].",
            "[Soon|Then|Before long] {borrower} [came/comes|ran/runs up] with the {lent} and "
            "{interest}.",
            '"[Here is|This is] your {lent}, {hero}, and {interest}," said/says {borrower}[, as '
            "promised|].",
            "{borrower} kept/keeps {borrower.his} [word|promise]: the {lent} came/comes back with "
            "{interest}.",
        )
        tell.note("kept", world.borrower, world.hero)
    else:
        tell(
            '"The {lent}? And {interest}? [I forgot|Oh dear|Another day]," {borrower} [said/says|'
            "answered/answers].",
            "{hero} [waited/waits for|thought/thinks of] the {lent} and {interest}, but {borrower} "
            "[never came/comes|had/has forgotten].",
            "[And the|The] {lent} and {interest}? {borrower} [kept/keeps|still had/has] both.",
        )
        tell.note("broke", world.borrower, world.hero)
    return world.then  # type: ignore[no-any-return]
