"""The scenes that all stories share: opening, going somewhere, meeting, feeling, closing.

``story`` is the first beat of every story. The plots fill in what happens in an episode: the first
beat of one is entered from ``begin``, its last returns ``finish(...)``.
"""

from __future__ import annotations

from functools import cache

from llm_core.stories.choices import Choice
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import (
    GOES_ON,
    MOST_EPISODES,
    PLOTS,
    SHORT,
    names_in,
    nouns_of,
    plots_at,
    room_left,
)
from llm_core.stories.lexicon import (
    COLORS,
    FOODS,
    GIVERS,
    KINDS,
    LATER,
    PLACES,
    SONGS,
    TIMES,
    TRAITS,
    WEATHER,
)
from llm_core.stories.world import Person, Thing, World, person, thing

LONG = 2  # episodes after which a story leaves out what it can do without
NEXT_WORDS = 16  # of a sentence that leads to the next episode, and perhaps something small
WAITING_WORDS = 30  # of what an earlier episode left to be told
ONE_OF = {n: Choice(range(n), telling=True) for n in range(1, 20)}  # one of so many people

# --- steps that plots use -----------------------------------------------------------------------


def tilt(percent: int, shift: int = 0) -> int:
    """A percentage moved up or down and kept between 5 and 95: nobody is certain."""
    moved = percent + shift
    return 5 if moved < 5 else 95 if moved > 95 else moved


def meet(tell: Tell, world: World, *templates: str) -> Person:
    """Say who somebody new is, with ``{name}``, ``{kind}`` and ``{trait}``; the new friend.

    Every template must hold all three; ``{kind.a}`` and ``{trait.a}`` have an article.
    """
    tell(
        *templates,
        name=names_in(world),
        kind=KINDS,
        trait=TRAITS.without([one.trait for one in world.cast]),
    )
    return introduce(tell, world)


def introduce(tell: Tell, world: World) -> Person:
    """Make a person of the words just drawn and note who they are."""
    somebody = person(world.name, world.kind, world.trait)
    world.cast = (*world.cast, somebody)
    tell.note("person", somebody, world.kind, world.trait)
    return somebody


def friend(tell: Tell, world: World) -> None:
    """Somebody is there: a friend from an earlier episode, or somebody new (``world.friend``)."""
    if len(world.cast) > 1 and tell.chance(60):
        world.friend = world.cast[1 + tell.pick(ONE_OF[len(world.cast) - 1])]
        tell(
            "{friend} was/is [there|around], too.",
            "{hero} [met/meets|saw/sees|came/comes across] {friend} again.",
            "There {hero.he} ran/runs into {friend}, {hero.his} [old |good |]friend.",
            "[Who was/is sitting there|Guess who was/is there]? It was/is {friend}.",
            "{friend} had/has come as well.",
            "[Soon|Then] {friend} came/comes along.",
            '"[Hello|Good day|There you are], {hero}!" {friend} [said/says|called/calls].',
            "And there was/is {friend}[ again|, waving].",
        )
    else:
        world.friend = meet(
            tell,
            world,
            "There {hero.he} [met/meets|found/finds] {trait.a} {kind} [named|called] {name}.",
            "{hero} saw/sees {trait.a} {kind} there, whose name was/is {name}.",
            "There was/is {name}, {trait.a} {kind}.",
            "{name}, {trait.a} {kind}, was/is there [as well|too].",
            "{hero} sat/sits down [beside|next to] {trait.a} {kind} called {name}.",
            "{trait.A} {kind} [came/comes by|looked/looks up]. It was/is {name}.",
            '"[Hello|Good day], I am {name}," said/says {trait.a} {kind}.',
            "{hero} [ran/runs into|met/meets] {name}, {trait.a} {kind}.",
        )
    tell.note("friend", world.hero, world.friend)


def get_thing(tell: Tell, world: World, owner: Person, *templates: str) -> Thing:
    """Say what somebody has, with ``{color}`` and ``{noun}``; the thing, noted as theirs."""
    tell(*templates, color=COLORS, noun=nouns_of(world, owner))
    found = thing(world.color, world.noun)
    world.nouns = (*world.nouns, world.noun)
    tell.note("own", owner, found)
    return found


def own_toy(tell: Tell, world: World) -> None:
    """Make sure that the hero has a thing of their own (``world.toy``)."""
    if world.toy is None:
        world.toy = get_thing(
            tell,
            world,
            world.hero,
            "{hero} had/has [brought|taken along|packed] {color.a} {noun}.",
            "In {hero.his} [coat|left hand|right hand], {hero} had/has {color.a} {noun}.",
            "{hero} was/is carrying {color.a} {noun}.",
            "{hero} had/has {color.a} {noun} with {hero.him}[ that day|].",
            "{hero.His} {color} {noun} was/is with {hero.him}[, as ever| that day|].",
        )


FELT = (
    "{feeler} [felt/feels|was/is|grew/grows] [quite |very |rather |so |]{feeling} because CAUSE.",
    "[And it|It] made/makes {feeler} feel [quite |very |so |a little |]{feeling} that CAUSE.",
    "[Now that|Since|Because] CAUSE, {feeler} [felt/feels|was/is] [rather |very |]{feeling}.",
    "{feeler} [felt/feels|was/is|looked/looks] [very |quite |]{feeling}. "
    "[After all|You see], CAUSE.",
    "[How|Oh, how] {feeling} {feeler} [was/is|felt/feels] that CAUSE!",
    "Was/Is {feeler} {feeling}? [Yes, because|Oh yes, for|Yes, since] CAUSE.",
)


@cache
def _felt(because: str) -> tuple[str, ...]:
    return tuple(template.replace("CAUSE", because) for template in FELT)


def feel(tell: Tell, world: World, who: Person, feelings: Choice, because: str) -> None:
    """Say what somebody feels and why, and note both.

    ``because`` is a clause with verbs marked, ``[this|that]`` choices allowed: it is noted as it
    reads with the first of them.
    """
    world.feeler, world.cause = who, tell.phrase(because)
    tell(*_felt(because), feeling=feelings)
    tell.note("feel", who, world.feeling, world.cause)


def finish(tell: Tell, world: World, ending: str) -> Beat | None:
    """The end of an episode, ``happy`` or ``sad``; the beat that follows."""
    world.ending = ending
    tell.note("ending", ending, world.plots[-1])
    n = len(world.plots)
    needed = NEXT_WORDS + SHORT + (WAITING_WORDS if world.waiting is not None else 0)
    room = n < MOST_EPISODES and room_left(world) >= needed
    if room and tell.chance(GOES_ON[n - 1]):
        return onward
    return closing if world.waiting is None else remembered(world, closing)


# --- the beats around the episodes --------------------------------------------------------------


def story(tell: Tell, world: World) -> Beat:
    """The first beat: who it is about."""
    world.hero = meet(
        tell,
        world,
        "Once upon a time, there was/is {trait.a} {kind} [named|called] {name}.",
        "[Far from here|In a small village|Not far from here|Somewhere] there lived/lives {kind.a} "
        "called {name}, as {trait} as can be.",
        "{name} was/is {trait.a} {kind}.",
        "This is the story of {name}, {trait.a} {kind}.",
        "Do you know {name}, the {trait} {kind}?",
        "Everybody [knew/knows|liked/likes|had/has heard of] {name}, {trait.a} {kind}.",
        "[Let me tell you about|I will tell you of|Listen to the story of] {name}, "
        "{trait.a} {kind}.",
    )
    world.words += 10
    if tell.chance(40):
        world.words += 7
        tell(
            "{hero.He} lived/lives [near|not far from|close to] {home.the}.",
            "{hero.His} [little |old |]home was/is {home.at}.",
            "{hero.He} had/has a [small|little|crooked|white] home {home.at}.",
            "{hero.He} had/has always lived {home.at}.",
            "{home.At} was/is {hero.his} [home|bed|room].",
            home=PLACES,
        )
        tell.note("home", world.hero, world.home)
    return treasure if tell.chance(60) else setting_out


def treasure(tell: Tell, world: World) -> Beat:
    """What the hero owns and where it is from."""
    world.words += 8
    world.toy = get_thing(
        tell,
        world,
        world.hero,
        "{hero} had/has {color.a} {noun}.",
        "{hero.He} owned/owns {color.a} {noun}[, and was/is proud of it|].",
        "{hero.His} [dearest|best] thing was/is {color.a} {noun}.",
        "Nothing was/is dearer to {hero.him} than {hero.his} {color} {noun}.",
        "{hero.He} never went/goes [anywhere|out] without {hero.his} {color} {noun}.",
        "What {hero.he} liked/likes [best|most] was/is {hero.his} {color} {noun}.",
    )
    if tell.chance(50):
        world.words += 8
        tell(
            "It was/is a [present|gift] from {hero.his} {giver}.",
            "{hero.His} {giver} had/has given it to {hero.him}[ as a present|].",
            "{hero.His} {giver} had/has found it [in a drawer|by the road|in the mud].",
            "{hero.He} had/has it from {hero.his} {giver}.",
            giver=GIVERS,
        )
        tell.note("gift", world.hero, world.toy, world.giver)
    return setting_out


def setting_out(tell: Tell, world: World) -> Beat:
    """The first episode begins somewhere."""
    world.words += 9
    tell(
        "One {weather} {time}, {hero} [went/goes|walked/walks|ran/runs] to {place.the}.",
        "It was/is a {weather} {time}, and {hero} was/is {place.at}.",
        "One {time} {hero.he} [went/goes|walked/walks] to {place.the} in {weather} weather.",
        "On a {weather} {time}, {hero} [set/sets out for|was/is on the way to] {place.the}.",
        "{place.At}, the {time} was/is {weather}, and {hero} had/has [nothing to do|time].",
        "What a {weather} {time}! {hero} [went/goes|walked/walks] to {place.the}.",
        "{hero} spent/spends a {weather} {time} {place.at}.",
        weather=WEATHER,
        time=TIMES,
        place=PLACES,
    )
    return begin


def onward(tell: Tell, world: World) -> Beat:
    """The next episode, another day; something from an earlier one may be waiting there."""
    tell.paragraph()
    world.words += NEXT_WORDS - 7
    tell(
        "{later.cap}, {hero} [went/goes|walked/walks|ran/runs] to {place.the}.",
        "{later.cap}, {hero} was/is {place.at}.",
        "{hero} [went/goes|came/comes|walked/walks] to {place.the} {later}.",
        "{later.cap}, {hero.his} way led/leads {hero} to {place.the}.",
        "{place.At}, {later}, {hero} looked/looks [around|up and down].",
        "{hero} was/is {place.at} {later}.",
        later=LATER,
        place=PLACES.without((world.place,)),
    )
    return begin if world.waiting is None else remembered(world, begin)


def remembered(world: World, then: Beat) -> Beat:
    """The beat that an earlier episode left waiting; it goes on with ``world.then``."""
    beat: Beat = world.waiting
    world.words += WAITING_WORDS
    world.waiting, world.then = None, then
    return beat


def begin(tell: Tell, world: World) -> Beat:
    """The hero is there: something small may happen, then the plot begins."""
    tell.note("at", world.hero, world.place)
    if len(world.plots) < LONG and tell.chance(30):
        aside(tell, world)
    name = tell.pick(plots_at(world))
    world.plots = (*world.plots, name)
    world.words += PLOTS[name].words
    tell.note("plot", name, world.place)
    return PLOTS[name].first


def aside(tell: Tell, world: World) -> None:
    """Something small that changes nothing."""
    world.words += 7
    if tell.chance(50):
        tell(
            "[On the way|All the way|As always], {hero} [hummed/hums|sang/sings] about {song}.",
            "{hero} sang/sings [softly |loudly |to nobody ]about {song}.",
            "Somebody [far off |]was/is singing about {song}.",
            "[An old|A new|A silly] [tune|song] about {song} was/is in {hero.his} head.",
            song=SONGS,
        )
    else:
        tell(
            "[First|Before anything else], {hero} [ate/eats|had/has] {food}.",
            "{hero} stopped/stops [for|to eat|to buy] {food}.",
            "It was/is [just |]the right hour for {food}.",
            "{hero} [felt/feels like|wanted/wants|thought/thinks of] {food}.",
            food=FOODS,
        )


def closing(tell: Tell, world: World) -> Beat | None:
    """The way home: it follows how the last episode ended."""
    if world.ending == "happy":
        tell(
            "{hero} [went/goes|walked/walks|ran/runs] home with a [smile|song|light heart|wave].",
            "That [night|evening], {hero} [slept/sleeps well|slept/sleeps like a stone].",
            "{hero} laughed/laughs [all the way home|until bedtime|out loud].",
            "It had/has been a [good|fine|lovely|long|very good] day for {hero}.",
            "{hero} [skipped/skips|danced/dances|hopped/hops] home, singing [loudly|softly].",
            "[All was/is well|Everything was/is fine|What a day], {hero} thought/thinks.",
            "[At home|In bed|At supper], {hero} [told/tells|thought/thinks of] it all once more.",
        )
    else:
        tell(
            "{hero} [walked/walks|went/goes] home without a [word|smile|song|wave].",
            "That [night|evening], {hero} lay/lies awake for a [long|very long] time.",
            "It was/is a [long|slow|quiet] way home for {hero}.",
            "{hero} looked/looks out of the window [for a long time|all evening|until dark].",
            "[Nothing|Not even supper|Not even a song] could/can cheer {hero} up that evening.",
            "[Tomorrow will be better|There are such days], {hero} thought/thinks.",
            "[At home|In bed], {hero} [sighed/sighs|thought/thinks of it] for a while.",
        )
    return bedtime if len(world.plots) <= LONG else None


def bedtime(tell: Tell, world: World) -> None:
    """The last words, or none: who still has a thing of their own may think of it."""
    if world.toy is not None and tell.chance(50):
        tell(
            "The {toy.full} [lay/lies|slept/sleeps] [beside|on|under] {hero.his} bed.",
            "The {toy} [lay/lies|was/is] [on the table|by the window|in its place|on a chair].",
            "Before {hero.he} slept/sleeps, {hero.he} [looked/looks at|held/holds] the {toy.full}.",
            "The {toy} stayed/stays [close to|with|near] {hero.him} all night.",
            '"[Good night|Sleep well]," {hero.he} told/tells the {toy}.',
        )
    elif tell.chance(50):
        tell(
            "{hero.He} dreamed/dreams of {food}[ that night|].",
            "[Later|At last] {hero.he} dreamed/dreams of {food}.",
            "And for supper? {food.cap}, [of course|as ever].",
            "{hero.His} supper had/has been {food}.",
            food=FOODS,
        )
