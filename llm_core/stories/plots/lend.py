"""The plot "lend": a thing is borrowed, and may come back, late or with a flaw.

Every function is a beat; the lists above them are what only this plot draws from.
"""

from __future__ import annotations

from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import DEADLINES, FOODS, GLAD, GUILTY, SAD, SPOTS
from llm_core.stories.phrases import (
    DOING,
    FINE,
    JUNK,
    MANNERS,
    MARKS,
    OLD,
    WAYS,
    WITNESSES,
    one_of,
)
from llm_core.stories.scenes import feel, finish, friend, own_toy, tilt
from llm_core.stories.world import World

# What a thing may be needed for: after "I need it for a".
PURPOSES = one_of(
    """school play, wedding, picnic, tea party, night walk, magic show, snail race, boat trip, dance
    puppet show, cake fight, forest walk, song night, mud party, nap, garden party, ball game
    parade, duck race, bean feast"""
)


@plot("lend", odds=4, words=71)
def lend(tell: Tell, world: World) -> Beat:
    """The friend asks for the hero's thing, only for a while."""
    own_toy(tell, world)
    friend(tell, world)
    tell(
        '"May I [borrow|have|use|take] your {fine} {toy} for {sort.a} {purpose}?" {friend} '
        "[asked/asks|begged/begs|said/says].",
        '"[Please lend|Do lend|Lend|Oh, lend] me your {fine} {toy} for {sort.a} {purpose}," '
        "{friend} [said/says|begged/begs|whispered/whispers].",
        '"I [need|want|must have] {fine.a} {toy} for {sort.a} {purpose}," {friend} said/says. '
        '"[May I take|May I have|Will you lend me] yours?"',
        "{friend} [asked/asks|begged/begs] {hero} to [lend|give] {friend.him} the {fine} {toy} "
        "for {sort.a} {purpose}.",
        '"[How|So] {fine}, your {toy}!" {friend} [said/says|cried/cries]. "May I [have|'
        'borrow|take] it for {sort.a} {purpose}?"',
        fine=FINE,
        sort=FINE,
        purpose=PURPOSES,
    )
    tell.turn()
    return lent if tell.chance(tilt(world.hero.trait.gives, 15)) else denied


def lent(tell: Tell, world: World) -> Beat:
    """The hero lends it, the friend promises to bring it back."""
    tell(
        '"[Take it|Here it is|Here you are|Of course]," {hero} [said/says|answered/answers] '
        "{manner}.",
        '{hero} [said/says|answered/answers] {manner}, "[Gladly|Take it|Why not|All right]."',
        '"[Gladly|Yes|Why not|All right]," {hero} said/says {manner} and [gave/gives|handed/hands] '
        "it over.",
        "{hero} [agreed/agrees|said/says yes] {manner}.",
        manner=MANNERS,
    )
    tell.note("give", world.hero, world.friend, world.toy)
    tell.note("did", world.hero, f"lent the {world.toy} to {world.friend}")
    tell(
        '"[It will be|I will be|I will bring it|You get it] back {deadline}, or I eat {old.a} '
        '{junk}," {friend} [said/says|promised/promises].',
        '"If [it is not|I am not] back {deadline}, I [will|shall] eat {old.a} {junk}," {friend} '
        "[said/says|promised/promises].",
        '"You [will have|get] it back {deadline}," {friend} [said/says|promised/promises]. "[If '
        'not,|Or else] I eat {old.a} {junk}."',
        "{friend} [promised/promises|gave/gives {friend.his} word] to bring it back {deadline} or "
        "eat {old.a} {junk}.",
        deadline=DEADLINES,
        old=OLD,
        junk=JUNK,
    )
    promised = f"to bring the {world.toy.full} back {world.deadline}"  # type: ignore[union-attr]
    tell.note("promise", world.friend, world.hero, promised)
    if tell.chance(tilt(world.friend.trait.honest, 5)):
        return whole if tell.chance(tilt(world.friend.trait.cares)) else damaged
    return late


def whole(tell: Tell, world: World) -> Beat | None:
    """It comes back in time, as it was."""
    tell(
        '[Soon|In time|Later] {friend} was/is back. "Here it is," {friend.he} said/says {manner}, '
        '"[with|and] {food}."',
        '[Soon|In time|Later] {friend} said/says {manner}, "[Here it is|Thank you|As promised]!" '
        "and [gave/gives|handed/hands] {hero} the {toy} and {food}.",
        "[As promised|Right on time|Before long], {friend} [said/says|called/calls] {manner}, "
        '"[Here I am|I am back]!" and [gave/gives|handed/hands] over the {toy} and {food}.',
        '"[Did you miss this|Is this yours|Do you know this]?" {friend} [soon|later] asked/asks '
        "{manner}, [with|holding] the {toy} and {food}.",
        manner=MANNERS,
        food=FOODS,
    )
    tell.note("kept", world.friend, world.hero)
    tell.note("give", world.friend, world.hero, world.toy)
    tell.note("did", world.friend, f"brought the {world.toy} back")
    feel(tell, world, world.hero, GLAD, "{friend} had/has [kept {friend.his} word|not forgotten]")
    return finish(tell, world, "happy")


def damaged(tell: Tell, world: World) -> Beat | None:
    """It comes back in time with a flaw; the hero may forgive that."""
    tell(
        '[In time|Soon|Later] the {toy} was/is back with {mark}. "[Sorry|I am sorry|Forgive me], '
        '{witness} [sat on|played with|tried] it," {friend} said/says.',
        '[In time|Soon|Later] {friend} was/is back. "It has {mark}, for {witness} [sat on|played '
        'with|tried] it. [Sorry|I am sorry|Forgive me]!"',
        '{friend} was/is back [in time|soon]. "[Sorry|I am sorry|Forgive me], it has {mark} now. '
        'It was {witness}."',
        mark=MARKS,
        witness=WITNESSES,
    )
    tell.note("kept", world.friend, world.hero)
    tell.note("sorry", world.friend, world.hero)
    tell.note("give", world.friend, world.hero, world.toy)
    tell.note("did", world.friend, f"brought the {world.toy} back with {world.mark}")
    if tell.chance(tilt(world.hero.trait.gives)):
        return flaw_forgiven(tell, world)
    tell(
        '"[You had it last|Never again|Look at it]!" {hero} said/says {manner} and '
        "[left/leaves|went/goes] {way}.",
        '{hero} said/says {manner}, "[Oh no|My poor {toy}|Not my {toy}]!" and '
        "[left/leaves|went/goes] {way}.",
        '{hero} [took/takes|carried/carries] it {way}. "[Never again|My poor {toy}]," {hero.he} '
        "said/says {manner}.",
        way=WAYS,
        manner=MANNERS,
    )
    feel(tell, world, world.hero, SAD, "the {toy} [had/has|came/comes back with] {mark}")
    return finish(tell, world, "sad")


def flaw_forgiven(tell: Tell, world: World) -> Beat | None:
    """The truth is worth more than the flaw."""
    tell(
        '"[Never mind|That is nothing|Forget it]," {hero} said/says {manner}. "[Have|Let us '
        'share|Let us eat] {food}."',
        '"[I like it better so|Now it looks like mine]," {hero} said/says {manner}, and '
        "[found/finds|got/gets] {food} for two.",
        '"Thank you for telling me," {hero} said/says {manner}. They [shared/share|ate/eat] '
        "{food}.",
        '"[I forgive you|All is forgiven]," {hero} said/says {manner}, and they [shared/share|'
        "ate/eat] {food}.",
        manner=MANNERS,
        food=FOODS,
    )
    tell.note("forgive", world.hero, world.friend)
    feel(tell, world, world.hero, GLAD, "{friend} had/has [told the truth|been honest]")
    return finish(tell, world, "happy")


def late(tell: Tell, world: World) -> Beat | None:
    """It does not come back in time; it may later."""
    tell(
        "{hero} waited/waits [long|in vain|and waited/waits], {doing}, but [only|just] {witness} "
        "came/comes.",
        "[All day|For hours|Until late] {hero} was/is {doing}, but only {witness} [came/comes|"
        "passed/passes].",
        '"[Soon|Any time now]," {hero} [thought/thinks|said/says], {doing}. But [only|just] '
        "{witness} came/comes.",
        "It [grew/grows|got/gets] dark. {hero} was/is [still |]{doing}, but only {witness} [came/"
        "comes|passed/passes].",
        "Who came/comes? [Only|Just|It was/is only] {witness}. {hero} waited/waits [in vain|on|"
        "long], {doing}.",
        doing=DOING,
        witness=WITNESSES,
    )
    tell.note("broke", world.friend, world.hero)
    tell.note("did", world.friend, f"stayed away with the {world.toy}")
    if world.waiting is None:
        world.waiting = at_last
        world.borrower, world.loan = world.friend, world.toy
        world.pledge = f"{world.old} {world.junk}"
    feel(
        tell,
        world,
        world.hero,
        SAD,
        "{friend} had/has not [come back with|brought back|returned] the {toy}",
    )
    world.toy = None
    return finish(tell, world, "sad")


def at_last(tell: Tell, world: World) -> Beat:
    """Later, the borrower is there again, with the thing or without it."""
    tell(
        '"[Wait|Stop|There you are|Good day], {hero}!" {borrower} [called/calls|said/says] '
        "{manner}.",
        "[Just then|Suddenly|Then] {borrower} [came/comes along|was/is there] and [spoke/speaks|"
        "began/begins to speak] {manner}.",
        "[And who|Who] [called/calls|spoke/speaks] there {manner}? It was/is {borrower}.",
        "{borrower} [came/comes up|ran/runs up|walked/walks up] to {hero} and [spoke/speaks|"
        "began/begins to speak] {manner}.",
        manner=MANNERS,
    )
    return brought if tell.chance(tilt(world.borrower.trait.honest)) else gone


def brought(tell: Tell, world: World) -> Beat:
    """The thing that was lent comes back late."""
    tell(
        '"Here is your {loan}. [I am sorry|Forgive me|Sorry], I was [busy|still] {doing}."',
        '"I ate the {pledge}. [And here|Here] is your {loan}. [I am sorry|Sorry|Forgive me], I was '
        '{doing}."',
        '"[I am sorry|Sorry|Forgive me], I was [busy|still] {doing}. [Here is|Take] your {loan}."',
        '"[I am sorry|Sorry|Forgive me]! I was {doing} and [forgot|lost] the time. Here is your '
        '{loan.full}."',
        doing=DOING,
    )
    tell.note("give", world.borrower, world.hero, world.loan)
    tell.note("sorry", world.borrower, world.hero)
    tell.note("did", world.borrower, f"brought the {world.loan} back at last")
    world.toy = world.toy or world.loan
    world.ending = "happy"  # for the closing, should it follow
    feel(tell, world, world.hero, GLAD, "the {loan} was/is back[| at last| again]")
    return world.then  # type: ignore[no-any-return]


def gone(tell: Tell, world: World) -> Beat:
    """The borrower has lost it."""
    tell(
        '"Your {loan} is [gone|lost]. I [left|put|hid] it {spot}. [I am sorry|Sorry|Forgive me]."',
        '"[I am sorry|Sorry|Forgive me]. I [left|put|hid] your {loan} {spot}, and now it is '
        '[gone|lost]."',
        '"I ate the {pledge}. But [I lost the {loan}|the {loan} was lost] {spot}. [Forgive me|'
        'Sorry|I am sorry]."',
        '"[If only|Oh, if only] I had not [left|put] your {loan} {spot}! It is [gone|lost]. '
        '[I am sorry|Sorry]."',
        spot=SPOTS,
    )
    tell.note("lose", world.borrower, world.loan)
    tell.note("sorry", world.borrower, world.hero)
    tell.note("did", world.borrower, f"lost the {world.loan}")
    world.ending = "sad"  # for the closing, should it follow
    feel(tell, world, world.hero, SAD, "the {loan} was/is [lost|gone]")
    return world.then  # type: ignore[no-any-return]


def denied(tell: Tell, world: World) -> Beat | None:
    """The hero keeps it; the friend goes away, or has a better idea."""
    tell(
        '"[No|Not today|Oh no|Sorry]," {hero} said/says {manner}. "I [need|want] it for '
        '{excuse.a}."',
        '"[It is|I need it|I want it] for {excuse.a}," {hero} '
        "[said/says|answered/answers] {manner}.",
        '"[And what|What|But what] would I use for {excuse.a}?" {hero} asked/asks {manner}.',
        '"I am [keeping|saving] it for {excuse.a}," {hero} [said/says|answered/answers] {manner}.',
        excuse=PURPOSES.without((world.purpose,)),
        manner=MANNERS,
    )
    tell.note("refuse", world.hero, world.friend)
    if tell.chance(tilt(world.friend.trait.gives, 5)):
        return do_both(tell, world)
    tell(
        '"[I see|Oh|As you like]," {friend} said/says, and [left/leaves|went/goes|ran/runs] {way}.',
        "[Off|And off|So off] {friend} [went/goes|walked/walks|ran/runs] {way}[ alone|].",
        "{friend} [nodded/nods|sighed/sighs|turned/turns] and [went/goes|ran/runs|walked/walks] "
        "{way}.",
        "{hero} [watched/watches|saw/sees] {friend} [go|walk|run] {way}[ alone|].",
        way=WAYS,
    )
    feel(
        tell,
        world,
        world.hero,
        GUILTY,
        "{friend} had/has [left|gone away|gone home] with empty hands",
    )
    return finish(tell, world, "sad")


def do_both(tell: Tell, world: World) -> Beat | None:
    """The better idea: both things at once, and together."""
    tell(
        '"[Then let|Let] us [do both|go to both|go together]," {friend} said/says. "I [have|'
        'bring|will bring] {food}."',
        '{friend} thought/thinks [again|about it]. "Let us [go together|do both]! I [have|bring|'
        'will bring] {food}."',
        '"[With you|Together], it is [twice the|more] fun," {friend} said/says. "I [have|bring|'
        'will bring] {food}."',
        '{friend} gave/gives {hero} {food}. "[Let us|We could|We can] go [together|to both]!"',
        food=FOODS,
    )
    tell.note("did", world.friend, f"offered {world.food} to {world.hero}")
    feel(tell, world, world.hero, GLAD, "{friend} [wanted/wants|had/has asked] to go together")
    return finish(tell, world, "happy")
