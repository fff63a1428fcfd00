"""The plot "lost": a thing is gone, and somebody may know where it is.

Every function is a beat; the list above them is what only this plot draws from.
"""

from __future__ import annotations

from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import GLAD, SAD, SONGS, SPOTS
from llm_core.stories.phrases import (
    DOING,
    FINE,
    JUNK,
    OLD,
    WAYS,
    WITNESSES,
    WORRIED,
    one_of,
)
from llm_core.stories.scenes import feel, finish, friend, own_toy, tilt
from llm_core.stories.world import World

# Why somebody took it: after "I wanted to".
WISHES = one_of(
    """hold it, keep it for a night, show it to my aunt, draw it, smell it, feel rich, wash it
    see how it works, make you laugh, have something nice, sleep beside it, teach it a song
    paint it pink, feed it, hug it, look grand, weigh it, dance with it, be you for a day"""
)


@plot("lost", odds=4, words=78)
def lost(tell: Tell, world: World) -> Beat:
    """The hero's thing is gone; the hero looks for it."""
    own_toy(tell, world)
    tell(
        "{hero} was/is [still|busy|just] {doing} when the {fine} {toy} [was/is gone|got/gets lost|"
        "fell/falls somewhere|was/is not there].",
        "[First|For a while|At first] {hero} was/is {doing}, and then the {fine} {toy} was/is "
        "[gone|lost|missing].",
        '"[Where is|Who has|Have I lost] my {fine} {toy}?" [asked/asks|called/calls|cried/cries] '
        "{hero}, {doing}.",
        "[Somehow|Somewhere], {doing}, {hero} [lost/loses|dropped/drops] [the|{hero.his}|"
        "{hero.his} own] {fine} {toy}.",
        "After {doing}, {hero} [looked/looks|reached/reaches|felt/feels] for the {fine} {toy}. "
        "[Gone|Lost|Nothing]!",
        "The {fine} {toy} was/is [gone|lost|missing]! {hero} had/has [only|just] been {doing}.",
        fine=FINE,
        doing=DOING,
    )
    tell.note("lose", world.hero, world.toy)
    tell.note("did", world.hero, f"lost the {world.toy}")
    world.searched = ()
    return search


def search(tell: Tell, world: World) -> Beat:
    """One place to look at, in vain; then the next, or somebody comes."""
    tell(
        "[{hero}|{hero.He}] [looked/looks|searched/searches] {spot} and [found/finds|saw/sees] "
        "[only |]{old.a} {junk}.",
        "{spot.cap} [was/is|lay/lies|there was/is] {old.a} {junk}, [but|and] no {toy}.",
        "Was/Is it {spot}? No, [that was/is|there was/is|there lay/lies|only|just] {old.a} {junk}.",
        "[{hero}|{hero.He}] [peeked/peeks|searched/searches|looked/looks] {spot}: [only|just] "
        "{old.a} {junk}.",
        "[Nothing|Not a thing] [lay/lies|was/is] {spot} [except|but] {old.a} {junk}.",
        '"[Oh|Hm|No], only {old.a} {junk} {spot}," [said/says|sighed/sighs|called/calls] {hero}.',
        spot=SPOTS.without(world.searched),
        old=OLD,
        junk=JUNK,
    )
    tell.note("did", world.hero, f"looked {world.spot}")
    world.searched = (*world.searched, world.spot)
    if len(world.searched) < 2 and tell.chance(25):
        return search
    return ask


def ask(tell: Tell, world: World) -> Beat:
    """Somebody is asked, who may know, and may say so."""
    friend(tell, world)
    tell(
        '"[Have you seen|Did you see|Did you find|Who has] my {toy}?" {hero} asked/asks {manner}.',
        '{hero} asked/asks {manner}, "[Where is|Have you seen|Who has|Did you find] my {toy}?"',
        '"My [poor |]{toy} is [gone|lost|missing]," {hero} [said/says|sighed/sighs] {manner}.',
        '"I [have lost|miss|need] my [poor |]{toy}," {hero} [said/says|sighed/sighs] {manner}.',
        '"[Please|Oh,|Do] help me find my {toy}," {hero} [said/says|begged/begs] {manner}.',
        manner=WORRIED,
    )
    tell.turn()
    if tell.chance(tilt(world.friend.trait.honest, -20)):
        return found
    return hidden


def found(tell: Tell, world: World) -> Beat | None:
    """The friend knows and says where it is."""
    tell(
        '"[Yes|Oh yes|Of course], it [is|lies] {spot}, [next to|behind|near] {old.a} {junk}," '
        "{friend} said/says.",
        '"I saw it {spot}," {friend} [said/says|answered/answers], "[beside|under|near|behind] '
        '{old.a} {junk}."',
        '{friend} [nodded/nods|smiled/smiles]. "It [is|lies] {spot}. I took it for {old.a} '
        '{junk}."',
        '"[Look|Go and look|Try] {spot}," {friend} said/says, "[next to|near|under|behind] {old.a} '
        '{junk}."',
        '"It [is|lies] {spot}," [said/says|whispered/whispers] {friend}, "[under|behind|beside] '
        '{old.a} {junk}."',
        spot=SPOTS.without(world.searched),
        old=OLD,
        junk=JUNK,
    )
    topic = f"where the {world.toy} was"
    tell.note("know", world.friend, topic)
    tell.note("honest", world.friend, world.hero)
    tell.note("at", world.toy, world.spot)
    tell.note("know", world.hero, topic)
    tell(
        "There it was/is! [Beside it|Next to it|In front of it] [was/is|sat/sits] {witness}, "
        "{doing}.",
        "They [went/go|ran/run] there. {witness.cap} was/is [guarding|beside|next to] it, {doing}.",
        "[And|Yes,|Oh yes,] there [it|the {toy}] [lay/lies|was/is], [watched|guarded] by "
        "{witness}, {doing}.",
        "{hero} [found/finds|saw/sees] it [there|at once], [beside|near] {witness}, {doing}.",
        '"[Here|There] it is!" [said/says|called/calls|cried/cries] {hero} to {witness}, who '
        "was/is {doing}.",
        witness=WITNESSES,
        doing=DOING,
    )
    tell.note("find", world.hero, world.toy)
    tell.note("did", world.hero, f"found the {world.toy}")
    feel(tell, world, world.hero, GLAD, "{friend} had/has [told the truth|been honest|not lied]")
    return finish(tell, world, "happy")


def hidden(tell: Tell, world: World) -> Beat | None:
    """The friend has it and says no; perhaps it comes back."""
    tell(
        '"[Oh no|Oh dear|Hm]," {friend} [said/says|answered/answers], and [hid/hides|'
        "pushed/pushes] it under {old.a} {junk}.",
        '"I [know nothing|saw nothing|have no idea]," {friend} said/says, and put/puts {old.a} '
        "{junk} [on top of|over|in front of] it.",
        '"[What|Which|Whose] {toy}?" {friend} [asked/asks|said/says], [hiding|holding] it behind '
        "{old.a} {junk}.",
        "{friend} shook/shakes {friend.his} head and [hid/hides|pushed/pushes|put/puts] it "
        "[under|behind] {old.a} {junk}.",
        '"[Ask somebody else|Never seen it|No idea]," {friend} said/says, [hiding|holding] it '
        "behind {old.a} {junk}.",
        old=OLD,
        junk=JUNK,
    )
    tell.note("lie", world.friend, world.hero)
    tell.note("unaware", world.hero, f"where the {world.toy} was")
    tell.note("did", world.friend, f"hid the {world.toy}")
    if tell.chance(tilt(world.friend.trait.gives, -25)):
        return given_back(tell, world)
    return carried_off(tell, world)


def carried_off(tell: Tell, world: World) -> Beat | None:
    """The friend keeps it."""
    tell(
        "[{friend}|{friend.He}] [went/goes|ran/runs] off {way} with it, [singing|humming] about "
        "{song}.",
        "[Then|Soon] [{friend}|{friend.he}] [took/takes|carried/carries] it home {way}, "
        "singing about {song}.",
        "[{friend}|{friend.He}] kept/keeps [it|the {toy}] and [ran/runs|went/goes] {way}, singing "
        "about {song}.",
        "{way.cap} [{friend}|{friend.he}] [went/goes|ran/runs] with [it|the {toy}], singing "
        "[loudly |softly |]about {song}.",
        way=WAYS,
        song=SONGS,
    )
    tell.note("own", world.friend, world.toy)
    feel(
        tell, world, world.hero, SAD, "the {toy} was/is [nowhere to be found|gone|still gone|lost]"
    )
    world.toy = None
    return finish(tell, world, "sad")


def given_back(tell: Tell, world: World) -> Beat | None:
    """The friend thinks better of it."""
    tell(
        'Then [{friend}|{friend.he}] [turned/turns red|sighed/sighs]. "[Here it is, sorry|'
        'Take it, I am sorry]. I wanted to {wish}."',
        '"Sorry, I [only |just |]wanted to {wish}," [{friend}|{friend.he}] [said/says then|'
        "added/adds], and gave/gives it back.",
        '"[Wait|Stop]," [{friend}|{friend.he}] said/says. "[I have it|Here it is]. [I am sorry|'
        'Sorry], I wanted to {wish}."',
        '[But then|Soon] [{friend}|{friend.he}] gave/gives it back. "[I am sorry|Sorry], I '
        '[only|just] wanted to {wish}."',
        '"[Forgive me|I am so sorry]! I wanted to {wish}," [{friend}|{friend.he}] '
        "[sobbed/sobs|cried/cries], and gave/gives it back.",
        wish=WISHES,
    )
    tell.note("sorry", world.friend, world.hero)
    tell.note("give", world.friend, world.hero, world.toy)
    tell.note("did", world.friend, f"gave the {world.toy} back")
    feel(tell, world, world.hero, GLAD, "the {toy} was/is [back|back again|back at last]")
    return finish(tell, world, "happy")
