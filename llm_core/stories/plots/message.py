"""The plot "message": a place, an hour and something to eat, carried to somebody else.

The hero says it right or gets one of the three wrong, and they meet or miss each other.
"""

from __future__ import annotations

from llm_core.stories.choices import AnyChoice, Choice
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import COLORS, FOODS, GLAD, GUILTY, HOURS, PLACES, words
from llm_core.stories.phrases import DOING, JUNK, MANNERS, OLD
from llm_core.stories.scenes import feel, finish, friend, meet, tilt
from llm_core.stories.world import World

DETAILS = Choice(words("place hour food"), telling=True)


@plot("message", odds=4, words=73)
def message(tell: Tell, world: World) -> Beat:
    """The friend needs somebody to carry a message."""
    friend(tell, world)
    world.target = meet(
        tell,
        world,
        "{friend} [had/has a message for|missed/misses|wanted/wants to see] {name}, {trait.a} "
        "{kind}.",
        '"Do you know {name}, the {trait} {kind}?" {friend} [asked/asks|said/says].',
        '"[Will|Could|Can] you [go|run] to {name}, {trait.a} {kind}?" {friend} asked/asks.',
        "{friend} had/has a friend[ far away| over the hill|], {trait.a} {kind} [named|called] "
        "{name}.",
        '"[I miss|I want to see|I must talk to] {name}, {trait.a} {kind}," {friend} '
        "[said/says|sighed/sighs].",
        "[Far away|Over the hill|A long way off] lived/lives {friend}'s friend {name}, {trait.a} "
        "{kind}.",
    )
    tell(
        '"[Tell|Ask|Please tell] {target} to come to {sent_place.the} {sent_hour} with '
        '{sent_food}," {friend} [said/says|begged/begs].',
        '"{sent_hour.cap}, {sent_place.at}, with {sent_food}: [say|tell {target.him}] that," '
        "{friend} [said/says|begged/begs].",
        '{friend} [told/tells|gave/gives] {hero} the [message|words]: "{sent_hour.cap}, '
        '{sent_place.at}, with {sent_food}."',
        "{hero} was/is to [tell|ask] {target} to [come|go] to {sent_place.the} {sent_hour} with "
        "{sent_food}.",
        'The message for {target} was/is [short|easy|this]: "[Bring|Take] {sent_food} to '
        '{sent_place.the} {sent_hour}."',
        '"[Tell {target} we will|Say to {target}: let us] eat {sent_food} {sent_place.at} '
        '{sent_hour}," {friend} [said/says|told/tells {hero}].',
        sent_place=PLACES,
        sent_hour=HOURS,
        sent_food=FOODS,
    )
    world.topic = f"where and when to meet {world.friend}, and what to bring"
    tell.note("did", world.friend, f"sent {world.hero} to {world.target}")
    tell.note("know", world.hero, world.topic)
    tell.note("unaware", world.target, world.topic)
    return errand


def errand(tell: Tell, world: World) -> Beat:
    """The way is full of things to look at."""
    tell(
        "On the way, {hero} [saw/sees|found/finds|stopped/stops at|kicked/kicks] {old.a} {junk}.",
        "{hero} [walked/walks|ran/runs|went/goes|hopped/hops] [past|around|over] {old.a} {junk}.",
        "[Halfway there|On the way|Soon], {hero} had/has to [look at|pick up] {old.a} {junk}.",
        "{old.A} {junk} made/makes {hero} [stop|laugh|look twice|wait] on the way.",
        "Then {hero} [said/says|sang/sings|told/tells] the words to {old.a} {junk}.",
        "{hero} [set/sets off|ran/runs], [kicking|carrying|singing to] {old.a} {junk}.",
        old=OLD,
        junk=JUNK,
    )
    tell.turn()
    return delivered


def delivered(tell: Tell, world: World) -> Beat:
    """What the hero says: that is the message, or one detail of it is another."""
    world.told_place, world.told_hour = world.sent_place, world.sent_hour
    world.told_food = world.sent_food
    changed: dict[str, AnyChoice] = {}
    exact = tell.chance(tilt(world.hero.trait.cares, -8))
    world.detail = detail = "" if exact else tell.pick(DETAILS)
    if detail == "place":
        changed["told_place"] = PLACES.without((world.sent_place,))
    elif detail == "hour":
        changed["told_hour"] = HOURS.without((world.sent_hour,))
    elif detail == "food":
        changed["told_food"] = FOODS.without((world.sent_food,))
    tell(
        '"[Come|Go|Please come] to {told_place.the} {told_hour} with {told_food}," {hero} '
        "[told/tells|begged/begs] {target}.",
        '"{friend} [will be|waits|is] {told_place.at} {told_hour}. [Bring|Take] {told_food}," '
        "{hero} told/tells {target}.",
        '"{friend} [wants|needs] you {told_place.at} {told_hour}, with {told_food}," {hero} '
        "told/tells {target}.",
        '{hero} [found/finds|met/meets|called/calls] {target}: "{told_hour.cap}, {told_place.at}, '
        'with {told_food}!"',
        "{hero} [told/tells|asked/asks] {target} to [come|go] to {told_place.the} {told_hour} with "
        "{told_food}.",
        '{target} [got/gets these words|heard/hears this]: "[Bring|Take] {told_food} to '
        '{told_place.the} {told_hour}."',
        **changed,
    )
    if exact:
        tell.note("know", world.target, world.topic)
        tell.note("did", world.hero, f"delivered the message to {world.target} exactly")
        return message_right
    tell.note("did", world.hero, f"mixed up the message for {world.target}")
    return wrong_food if detail == "food" else missed


def message_right(tell: Tell, world: World) -> Beat | None:
    """They meet."""
    tell(
        "{target} [came/comes|was/is there] [at once|on time|early] in {color} "
        "[boots|socks|shoes|gloves].",
        "[Right on time|Sure enough|And so], {target} [came/comes|stood/stands there] in {color} "
        "[boots|socks|shoes|gloves].",
        "{friend} [waved/waves|laughed/laughs|smiled/smiles]: there came/comes {target} in {color} "
        "[boots|socks|shoes|gloves].",
        "And there [sat/sit|stood/stand|were/are] {target} and {friend}, both in {color} "
        "[boots|socks|shoes|gloves].",
        "{friend} [soon |]saw/sees {target} come in {color} [boots|socks|shoes|gloves].",
        "So they [met/meet|ate/eat together], {target} in {color} [boots|socks|shoes|gloves].",
        color=COLORS,
    )
    feel(tell, world, world.hero, GLAD, "[every word|the message] was/is right")
    return finish(tell, world, "happy")


def missed(tell: Tell, world: World) -> Beat | None:
    """They are at two places, or come at two hours."""
    tell(
        "{friend} [waited/waits|sat/sits|stood/stands] there, {doing}, but {target} did/does "
        "not come[ at all|].",
        "{doing.cap}, {friend} waited/waits [in vain|all day|for nothing|alone].",
        "[So|Now|That day,] {friend} was/is alone, {doing}, and so was/is {target}.",
        '"Where is {target}?" {friend} [asked/asks|sighed/sighs|said/says], {doing}.',
        "{target} and {friend} did/do not [meet|find each other], both {doing}.",
        "Where was/is {target}? {friend}, {doing}, [saw/sees|met/meets|found/finds] nobody.",
        doing=DOING,
    )
    return regret(tell, world)


def regret(tell: Tell, world: World) -> Beat | None:
    """The hero knows what went wrong."""
    feel(tell, world, world.hero, GUILTY, "the {detail} was/is [wrong|not right]")
    return finish(tell, world, "sad")


def wrong_food(tell: Tell, world: World) -> Beat | None:
    """They meet, but not for the meal that was meant."""
    tell(
        "{target} came/comes in {color} [boots|socks|shoes|gloves] and [brought/brings|held/holds "
        "out] {told_food}.",
        "In {color} [boots|socks|shoes|gloves], {target} [brought/brings|came/comes with] "
        "{told_food}.",
        '"[I have|Look,|I bring] {told_food}!" {target} [said/says|called/calls], in {color} '
        "[boots|socks|shoes|gloves].",
        "So {target} [gave/gives|offered/offers] {friend} {told_food}, in {color} "
        "[boots|socks|shoes|gloves].",
        color=COLORS,
    )
    if tell.chance(tilt(world.friend.trait.gives, -5)):
        tell(
            '"[That is better than|That is as good as|Who needs] {sent_food}!" {friend} '
            "[said/says|cried/cries|called/calls] {manner}.",
            '{friend} [laughed/laughs|smiled/smiles|sat/sits down]. "[We can share|I like it]," '
            "{friend.he} said/says {manner}.",
            '"I [wanted|asked for] {sent_food}, but [I like this, too|never mind]," {friend} '
            "said/says {manner}.",
            "{manner.cap}, {friend} [thanked/thanks {target}|took/takes a bite] and "
            "[laughed/laughs|smiled/smiles].",
            '"[This will do|I like it|It smells good]," {friend} [said/says|told/tells {hero}] '
            "{manner}.",
            manner=MANNERS,
        )
        feel(tell, world, world.hero, GLAD, "{friend} was/is [not angry|kind about it]")
        return finish(tell, world, "happy")
    tell(
        '"I wanted {sent_food}[, and nothing else|, not this|]," {friend} '
        "[said/says|sighed/sighs], {doing}.",
        "{friend} would/will not [taste|touch|eat] it, {doing}.",
        '"Did I not [say|ask for] {sent_food}?" {friend} [asked/asks|sighed/sighs], {doing}.',
        "{doing.cap}, {friend} [pushed/pushes it away|looked/looks away|ate/eats nothing].",
        '"[But I|I] said {sent_food}," {friend} [answered/answers|sighed/sighs], {doing}.',
        doing=DOING,
    )
    return regret(tell, world)
