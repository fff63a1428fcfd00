"""The plot "secret": where something is hidden, or what somebody plans; a third one asks for it.

The hero has promised to be silent. What the third one does with the secret is a matter of traits.
"""

from __future__ import annotations

from llm_core.stories.choices import Choice, Word
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import nouns_of, plot
from llm_core.stories.lexicon import (
    COLORS,
    FOODS,
    GLAD,
    GUILTY,
    PLACES,
    SAD,
    SONGS,
    SPOTS,
    phrases,
)
from llm_core.stories.phrases import JUNK, MANNERS, WITNESSES
from llm_core.stories.scenes import feel, finish, friend, meet, tilt
from llm_core.stories.world import World, thing

PLANS = Choice(
    [
        Word(f"{do} {whom}")
        for do in phrases(
            """dress up as, dance with, sing to, bake a cake for, build a bed for, climb a tree with
            write a letter to, make a hat for, cook soup for, run a race with, play ball with"""
        )
        for whom in WITNESSES.items
    ]
)


@plot("secret", odds=4, words=75)
def secret(tell: Tell, world: World) -> Beat:
    """A friend has a secret: where a thing is, or what will be done."""
    friend(tell, world)
    return hidden_thing if tell.chance(50) else secret_plan


def hidden_thing(tell: Tell, world: World) -> Beat:
    """The secret is where the friend keeps something."""
    tell(
        '"[Listen|Come here|Psst], {hero}! My {color} {noun} is {cache}," {friend} '
        "[whispered/whispers|said/says].",
        '"[Nobody knows|A secret|It is a secret|Only for you]: my {color} {noun} is {cache}," '
        "{friend} [whispered/whispers|said/says].",
        '{friend} [whispered/whispers|said/says], "[My|One|A] secret: I [keep|hide|have] my '
        '{color} {noun} {cache}."',
        '"[A secret|Shh|Tell nobody]! I [have|hide|keep] {color.a} {noun} {cache}," {friend} '
        "[whispered/whispers|said/says].",
        '{friend} told/tells {hero} a secret: "{cache.cap}, I [keep|hide|have] {color.a} {noun}."',
        color=COLORS,
        noun=nouns_of(world, world.friend),
        cache=SPOTS,
    )
    world.treasure = thing(world.color, world.noun)
    world.nouns = (*world.nouns, world.noun)
    tell.note("own", world.friend, world.treasure)
    tell.note("at", world.treasure, world.cache)
    world.topic = f"where the {world.treasure} was"
    return vow


def secret_plan(tell: Tell, world: World) -> Beat:
    """The secret is what the friend is going to do."""
    tell(
        '"[Listen|Come here|Psst], {hero}! [Tomorrow|Tonight|Soon] I will {plan}," {friend} '
        "[whispered/whispers|said/says].",
        '"[Nobody knows|A secret|Only for you]: I [will|want to|must] {plan}," {friend} '
        "[whispered/whispers|said/says].",
        '{friend} [whispered/whispers|said/says], "[Tomorrow|Tonight|Soon|Once more] I '
        '[will|must] {plan}."',
        '"[A secret|Shh|Tell nobody]! I [want to|will|must] {plan}," {friend} '
        "[whispered/whispers|said/says].",
        '{friend} told/tells {hero} a secret: "[Tomorrow|Tonight|Soon|Once more] I [will|must] '
        '{plan}."',
        plan=PLANS,
    )
    world.treasure = None
    world.topic = f"what {world.friend} was going to do"
    return vow


def vow(tell: Tell, world: World) -> Beat:
    """The hero promises to be silent."""
    tell.note("did", world.friend, f"told {world.hero} a secret")
    tell.note("know", world.friend, world.topic)
    tell.note("know", world.hero, world.topic)
    tell(
        '"I [will|can] be as [silent|quiet|still] as {junk.a}," {hero} promised/promises[ '
        "at once|].",
        '"[Does|Can|Will] {junk.a} [talk|tell it]? [Nor|Neither] will I," {hero} '
        "promised/promises.",
        "{hero} promised/promises to [be|keep] as [silent|quiet|still] as {junk.a}.",
        '"I promise," {hero} said/says. "{junk.A} will [talk|sing|tell it] [first|before I do]."',
        '"{junk.A} [talks|tells|says] more than I," {hero} promised/promises[ softly| loudly| at '
        "once|].",
        junk=JUNK,
    )
    tell.note("promise", world.hero, world.friend, "to keep the secret")
    return somebody_asks


def somebody_asks(tell: Tell, world: World) -> Beat:
    """A third one comes and offers something for the secret."""
    world.third = meet(
        tell,
        world,
        "[But|Now] {name}, {trait.a} {kind}, had/has [seen them|been near|been watching].",
        "[When|Once] {friend} was/is gone, {trait.a} {kind} [named|called] {name} [came/comes|"
        "ran/runs] up.",
        "{trait.A} {kind} [named|called] {name} [saw/sees|heard/hears] them [whisper|talk].",
        "{friend} [went/goes off|left/leaves], and {name}, {trait.a} {kind}, came/comes [near|up|"
        "closer].",
        "{name}, {trait.a} {kind}, [knew/knows|saw/sees|guessed/guesses] that they had/have a "
        "secret.",
    )
    tell.note("unaware", world.third, world.topic)
    tell(
        '"[Tell me|Sell me|Give me] [the|your|that] secret for {food}," {third} '
        "[said/says|called/calls|begged/begs|whispered/whispers].",
        '"{food.cap}, if [you tell me|you say it|I may know it]," {third} '
        "[said/says|called/calls|begged/begs|whispered/whispers].",
        '"{food.cap} for [the|your|that|this] secret?" {third} '
        "[asked/asks|said/says|called/calls|whispered/whispers].",
        '"[What was that|What did {friend} say|Will you tell me]? I have {food}," {third} '
        "[said/says|called/calls|whispered/whispers].",
        "{third} [offered/offers|held/holds out|promised/promises|brought/brings] {food} for "
        "[the|that|their] secret.",
        food=FOODS,
    )
    tell.note("did", world.third, f"asked {world.hero} for the secret")
    tell.turn()
    return secret_kept if tell.chance(tilt(world.hero.trait.cares, -20)) else secret_told


def secret_kept(tell: Tell, world: World) -> Beat | None:
    """The hero talks of something else."""
    tell(
        '"[Do you know|Have you heard|Do you like] the song about {song}?" {hero} [asked/asks|'
        "said/says].",
        "{hero} [only |just |]sang/sings about {song}[ instead| and said/says nothing|, loudly|].",
        '"I [would rather|only want to|can only|will only] [sing|talk] about {song}," {hero} '
        "said/says.",
        "{hero} [hummed/hums|sang/sings] [a|the|an old|a new] song about {song}[ instead|].",
        '"[No|No, no|Never|Not I]," {hero} said/says and [sang/sings|talked/talks] about {song}.',
        song=SONGS,
    )
    tell.note("kept", world.hero, world.friend)
    tell.note("did", world.hero, f"kept the secret of {world.friend}")
    feel(tell, world, world.hero, GLAD, "the secret was/is [safe|still safe|kept]")
    return finish(tell, world, "happy")


def secret_told(tell: Tell, world: World) -> Beat:
    """The hero lets it slip; what happens then is up to the third one."""
    if world.treasure is not None:
        tell(
            '"[The|Well, the|Oh, the] {treasure} [is|lies] {cache}," {hero} said/says {manner}.',
            '"I [did not say|will not say|never said] it is {cache}," {hero} said/says {manner}.',
            '"[Do not|Never|Only do not] [look|go and look] {cache}!" {hero} said/says {manner}.',
            '"[You must|You could|Go and|Why not|Just] look {cache}," {hero} said/says {manner}.',
            "{manner.cap}, {hero} [told/tells|showed/shows] {third} [where it was/is|the place|the "
            "spot].",
            manner=MANNERS,
        )
    else:
        tell(
            '"{friend} [will|wants to|is going to|may] {plan}," {hero} said/says {manner}.',
            '"I [did not say|never said] {friend} [will|wants to] {plan}," {hero} said/says '
            "{manner}.",
            '"[Who will|Who wants to|Guess who will] {plan}? {friend}!" {hero} said/says {manner}.',
            "{manner.cap}, {hero} told/tells {third} [all of it|everything|the plan|every word].",
            "{hero} told/tells {third} [all of it|everything|the plan|every word] {manner}.",
            manner=MANNERS,
        )
    tell.note("know", world.third, world.topic)
    tell.note("broke", world.hero, world.friend)
    tell.note("did", world.hero, f"gave away the secret of {world.friend}")
    if tell.chance(tilt(world.third.trait.gives, -20)):
        return secret_shared
    return secret_stolen if world.treasure is not None else secret_spread


def secret_shared(tell: Tell, world: World) -> Beat | None:
    """The third one means well."""
    tell(
        "{third} [told/tells nobody|kept/keeps it, too|said/says no word], and {friend} "
        "forgave/forgives {hero} [over|after] {food}.",
        "{third} ate/eats {food} and [was/is silent|told/tells nobody|kept/keeps still], so "
        "{friend} [soon|later|at last] forgave/forgives {hero}.",
        '"[I am silent, too|Three can keep it|I tell nobody]," {third} said/says, and {friend} '
        "forgave/forgives {hero} [over|after] {food}.",
        "{third} [kept/keeps|shared/shares] the secret, and {friend} [soon|later|at last] ate/eats "
        "{food} and forgave/forgives {hero}.",
        food=FOODS,
    )
    tell.note("forgive", world.friend, world.hero)
    feel(tell, world, world.hero, GLAD, "{friend} [had/has forgiven|forgave/forgives] {hero.him}")
    return finish(tell, world, "happy")


def secret_stolen(tell: Tell, world: World) -> Beat | None:
    """The third one takes what was hidden."""
    tell(
        "[Soon|That night|Later|In the end] {third} had/has the {treasure}, and {friend} "
        "[found/finds|had/has|got/gets] [only|just] {food}.",
        "{third} [ran/runs|went/goes|crept/creeps] [there|to look], took/takes the {treasure}, and "
        "left/leaves {food}.",
        "{third} took/takes the {treasure}, and [soon|that night|later] {friend} [found/finds|"
        "had/has] [only|just] {food}.",
        "So the {treasure} went/goes [away|off|home] with {third}, and {friend} [found/finds|"
        "had/has|got/gets] just {food}.",
        food=FOODS,
    )
    tell.note("lose", world.friend, world.treasure)
    tell.note("own", world.third, world.treasure)
    tell.note("did", world.third, f"took the {world.treasure}")
    feel(
        tell,
        world,
        world.friend,
        SAD,
        "the {treasure} was/is [gone|no longer there|with {third}]",
    )
    return finish(tell, world, "sad")


def secret_spread(tell: Tell, world: World) -> Beat | None:
    """The third one passes it on."""
    tell(
        "[Soon|That night|Before long] [everybody|everyone|each snail] {gossip.at} [knew/knows|"
        "talked/talks of] it.",
        "{third} told/tells it to [everybody|all|everyone|each snail] {gossip.at}[ at once|].",
        "{gossip.At}, {third} told/tells it to [everybody|all] who [came/comes by|had/has ears|"
        "would/will listen].",
        "{third} [ran/runs|went/goes] to {gossip.the} and [told/tells|sang/sings] it to [all|"
        "everybody].",
        "[Soon|That night|Before long] [all|half] of {gossip.the} [knew/knows|talked/talks of] it.",
        gossip=PLACES.without((world.place,)),
    )
    tell.note("did", world.third, f"spread the secret of {world.friend}")
    feel(tell, world, world.hero, GUILTY, "the secret was/is [out|in every ear|known to all]")
    return finish(tell, world, "sad")
