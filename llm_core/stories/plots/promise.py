"""The plot "promise": to bring a thing to a place at an hour, tomorrow or on a day yet to come.

Kept or broken, it is told in the same words: what agrees or differs are thing, place and hour.
"""

from __future__ import annotations

from llm_core.stories.choices import AnyChoice, Choice, Word
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import plot
from llm_core.stories.lexicon import (
    FOODS,
    GLAD,
    GUILTY,
    HOURS,
    PLACES,
    SAD,
    WEATHER,
    phrases,
    words,
)
from llm_core.stories.phrases import DOING, JUNK, MANNERS, pairs
from llm_core.stories.scenes import begin, feel, finish, friend, tilt
from llm_core.stories.world import World

PROJECTS = pairs(
    "a {} for {}",
    "house, hotel, bed, boat, bath, swing, slide, train, ladder, ship, tent, shop, chair, cart",
    "ants, snails, bees, flies, crows, geese, cats, donkeys, beetles, worms, pigeons, cows, dogs",
)
GOODS = Choice(
    [
        Word(f"{like.a} {junk}")
        for like in words("big small little round old wet dusty muddy striped heavy red blue green")
        for junk in JUNK.items
    ]
)
TOMORROW = Word("tomorrow")
DAYS = Choice(
    Word(f"on {day}", day=day, Day=day[0].upper() + day[1:])
    for day in phrases(
        """market day, washing day, baking day, fishing day, pancake day, soup day, apple day
        sock day, the first of May, the day of the fair, the day of the race
        the first day of spring, the last day of school"""
    )
)
SLIPS = Choice(words("thing place hour"))


@plot("promise", odds=4, words=73)
def promise(tell: Tell, world: World) -> Beat:
    """A friend makes something and lacks a thing for it; the hero gives a promise."""
    friend(tell, world)
    world.asker = world.friend
    tell(
        '"[Look, |]I am [building|making] {project}," {asker} said/says {manner}.',
        '"[It|This|That] will be {project}," {asker} said/says {manner}.',
        '"[Will you|Can you] help me [build|make] {project}?" {asker} asked/asks {manner}.',
        "{manner.cap}, {asker} told/tells {hero} [about|of] [a|the] plan: {project}.",
        '"[Soon|One day] there will be {project} here," {asker} said/says {manner}.',
        '"What [we need|I want] is {project}," {asker} said/says {manner}.',
        project=PROJECTS,
        manner=MANNERS,
    )
    world.vowed_project = world.project
    tell(
        '"[All|The only thing] I [still |]need is {vowed_thing}."',
        "Only {vowed_thing} was/is [missing|still to be found|not there yet].",
        '"It [cannot|will not|will never] work without {vowed_thing}."',
        '"[But where|Where] [can I find|do I get|is there] {vowed_thing}?"',
        '"If only I had {vowed_thing}!" {asker.he} [added/adds|cried/cries|sighed/sighs].',
        "[For that|But first], {asker.he} [needed/needs|wanted/wants|had/has to find] "
        "{vowed_thing}.",
        vowed_thing=GOODS,
    )
    world.vowed_day = TOMORROW
    if world.waiting is None and tell.chance(50):
        return promise_for_later
    give_word(tell, world)
    tell(
        "The [next|new] day was/is {weather}.",
        "It was/is {weather} [the next day|the day after|when the day came/comes].",
        "The night [passed/passes|went/goes by], and it was/is {weather}.",
        "A {weather} [day|morning] [came/comes|followed/follows].",
        "Then it was/is the next day, [and {weather}|a {weather} one].",
        weather=WEATHER,
    )
    tell.turn()
    return falls_due


def give_word(tell: Tell, world: World, **drawn: AnyChoice) -> None:
    """The promise itself."""
    tell(
        '"I will bring [it|you one] to {vowed_place.the} {vowed_day}, {vowed_hour}," {hero} '
        "[promised/promises|promised/promises at once|promised/promises with a nod].",
        '"[Be|Wait|Stand] {vowed_place.at} {vowed_day}, {vowed_hour}, and it is yours. '
        'I promise," {hero} said/says.',
        '"{vowed_day.cap}, {vowed_hour}, {vowed_place.at}. [I promise|You have my word]," '
        "{hero} [said/says|called/calls|answered/answers].",
        '{hero} promised/promises: "{vowed_day.cap}, {vowed_hour}, [you will have it|it will be '
        'yours|you will get it] {vowed_place.at}."',
        '"You will [have|get] it {vowed_place.at}, {vowed_hour} {vowed_day}," {hero} '
        "promised/promises.",
        '"I promise[ you|]: {vowed_place.at}, {vowed_hour} {vowed_day}," {hero} '
        "[said/says|answered/answers].",
        vowed_place=PLACES.without((world.place,)),
        vowed_hour=HOURS,
        **drawn,
    )
    what = f"to bring {world.vowed_thing} to {world.vowed_place.the} {world.vowed_hour}"
    tell.note("promise", world.hero, world.asker, what)
    tell.note("did", world.hero, f"promised {world.asker} {world.vowed_thing}")


def promise_for_later(tell: Tell, world: World) -> Beat | None:
    """The promise is for a day to come; until then there is only trust, or none."""
    give_word(tell, world, vowed_day=DAYS)
    world.waiting = day_comes
    tell.turn()
    if tell.chance(tilt(world.asker.trait.gives)):
        tell(
            '"[I knew I could ask you|What a friend you are|How good of you|Then all is well]!" '
            "{asker} [said/says|cried/cries|called/calls] and gave/gives {hero} {food}.",
            '"[Have|Take|Eat] {food}," {asker} said/says. "[I can wait|I trust you|You are good]."',
            "{asker} [smiled/smiles|danced/dances|jumped/jumps|laughed/laughs] and [gave/gives|"
            "handed/hands|brought/brings] {hero} {food}.",
            "{asker} [believed/believes it|had/has no doubt|was/is sure of it] and "
            "[shared/shares|brought/brings|ran/runs to get] {food}.",
            food=FOODS,
        )
        feel(tell, world, world.hero, GLAD, "{asker} [trusted/trusts|believed/believes] {hero.him}")
        return finish(tell, world, "happy")
    tell(
        '"[We will see|Oh, will you|Everybody says that|I wonder|Yes, yes]," {asker} '
        "[said/says|answered/answers], {doing}.",
        '"[Hm|Well|Oh]," {asker} [said/says|sighed/sighs|answered/answers], {doing}.',
        "{asker} [said/says nothing|did/does not look up|only sighed/sighs|laughed/laughs], "
        "{doing}.",
        '"Will you, [now|really|though]?" {asker} [asked/asks|said/says], {doing}.',
        doing=DOING,
    )
    feel(tell, world, world.hero, SAD, "{asker} did/does not [believe|trust] {hero.him}")
    return finish(tell, world, "sad")


def day_comes(tell: Tell, world: World) -> Beat:
    """The day of the promise, some time later."""
    tell(
        "[Then|Soon|At last] it was/is {vowed_day.day}[, the day of the promise|], and {weather}.",
        "{vowed_day.cap}, a {weather} [day|morning], {hero} thought/thinks of [{asker}|the promise|"
        "{hero.his} promise].",
        "{vowed_day.Day}[, the day of the promise,|] was/is [{weather}|a {weather} day|quite "
        "{weather}].",
        "{vowed_day.Day} came/comes, [{weather} as it was/is|a {weather} day], and [{asker} "
        "waited/waits|with it the promise].",
        weather=WEATHER,
    )
    return falls_due


def falls_due(tell: Tell, world: World) -> Beat:
    """Where the hero is, when, with what: that is as promised, or one of the three is another."""
    world.came_place, world.came_hour = world.vowed_place, world.vowed_hour
    world.came_thing = world.vowed_thing
    changed: dict[str, AnyChoice] = {}
    kept = tell.chance(tilt(world.hero.trait.cares))
    slip = "" if kept else tell.pick(SLIPS)
    if slip == "thing":
        changed["came_thing"] = GOODS.without((world.vowed_thing,))
    elif slip == "place":
        changed["came_place"] = PLACES.without((world.vowed_place,))
    elif slip == "hour":
        changed["came_hour"] = HOURS.without((world.vowed_hour,))
    tell(
        "{came_hour.cap}, {hero} [stood/stands|was/is|sat/sits|waited/waits] {came_place.at} with "
        "{came_thing}[ and a smile|, out of breath|, all alone|].",
        "{hero} [came/comes|ran/runs|walked/walks|went/goes] to {came_place.the} {came_hour} with "
        "{came_thing}[ and a smile|, out of breath|, all alone|].",
        "{came_hour.cap}, {hero} [put/puts|set/sets|laid/lays] down {came_thing} {came_place.at}"
        "[ and waited/waits|, out of breath|, all alone|].",
        "{hero} [carried/carries|brought/brings|took/takes|pulled/pulls] {came_thing} to "
        "{came_place.the} {came_hour}[ and waited/waits|, out of breath|, all alone|].",
        "With {came_thing} [under one arm|in one hand|in a bag|in a cart], {hero} [came/comes|"
        "got/gets|ran/runs] to {came_place.the} {came_hour}.",
        "{came_place.At}, {hero} [held/holds up|stood/stands with|waited/waits with|sat/sits on] "
        "{came_thing} {came_hour}[, out of breath|, all alone|].",
        **changed,
    )
    tell.note("at", world.hero, world.came_place)
    tell.note("kept" if kept else "broke", world.hero, world.asker)
    if kept:
        return promise_kept
    tell.note("did", world.hero, f"broke the promise to {world.asker}")
    return promise_broken_by_thing if slip == "thing" else promise_missed


def promise_kept(tell: Tell, world: World) -> Beat | None:
    """The friend has what it takes."""
    tell.note("did", world.hero, f"kept the promise to {world.asker}")
    tell(
        '"[There you are|You remembered|Just what I need|At last]!" {asker} '
        "[cried/cries|called/calls|said/says], {doing}.",
        "{asker} was/is [there already|there, too|waiting|at the same spot], {doing}.",
        "[There|And there] [waited/waits|was/is] {asker}, {doing}.",
        "{doing.cap}, {asker} [waited/waits|was/is] there[ already|, too|].",
        doing=DOING,
    )
    tell(
        "[Soon|Then|Before long] {vowed_project} was/is [ready|done|there], and they [ate/eat|"
        "shared/share|had/have] {food}.",
        "So {asker} [got/gets|had/has] {vowed_project}, and {hero} [got/gets|had/has|ate/eats] "
        "{food}.",
        "[Together|Quickly|Singing,] they [built/build|made/make] {vowed_project} and "
        "[ate/eat|shared/share] {food}.",
        "They [ate/eat|shared/share|had/have] {food}, and [soon|then|in no time] there was/is "
        "{vowed_project}.",
        food=FOODS,
    )
    feel(tell, world, world.hero, GLAD, "[the|{hero.his}] promise was/is kept")
    return promise_over(tell, world, "happy")


def promise_broken_by_thing(tell: Tell, world: World) -> Beat | None:
    """The friend is there and gets the wrong thing."""
    tell(
        '"[That is not|I asked for|I wanted|But I need] {vowed_thing}," {asker} '
        "[said/says|cried/cries|sighed/sighs], {doing}.",
        "{doing.cap}, {asker} [looked/looks for|asked/asks for|thought/thinks of] {vowed_thing}.",
        "{asker} was/is there, {doing}, but [needed/needs|wanted/wants|asked/asks for] "
        "{vowed_thing}.",
        '"[And where is|What about|Did I not say] {vowed_thing}?" {asker} [asked/asks|said/says], '
        "{doing}.",
        doing=DOING,
    )
    feel(tell, world, world.hero, GUILTY, "it was/is [the wrong thing|not the right thing]")
    return promise_over(tell, world, "sad")


def promise_missed(tell: Tell, world: World) -> Beat | None:
    """The friend has waited elsewhere, or at another hour."""
    tell(
        "[But |And yet |]{asker} [waited/waits|was/is|stayed/stays] {vowed_place.at} {vowed_hour}, "
        "{doing}.",
        "{vowed_hour.cap}, {asker} [waited/waits|was/is|stayed/stays] {vowed_place.at}"
        "[ alone|], {doing}.",
        "{doing.cap}, {asker} [waited/waits|was/is|stayed/stays] {vowed_place.at} {vowed_hour}"
        "[ alone|].",
        '"[I was|I waited|I stayed] {vowed_place.at} {vowed_hour}," {asker} said/says [later|'
        "that night|the next day], {doing}.",
        doing=DOING,
    )
    feel(tell, world, world.hero, GUILTY, "[the|{hero.his}] promise was/is [broken|not kept]")
    return promise_over(tell, world, "sad")


def promise_over(tell: Tell, world: World, ending: str) -> Beat | None:
    """The episode ends here, or the story takes up where the promise interrupted it."""
    if world.vowed_day == TOMORROW:
        return finish(tell, world, ending)
    if world.then is not begin:
        world.ending = ending  # the last words of the story follow the last thing told
    elif world.came_place == world.place:
        tell("{hero} [stayed/stays|was/is still] {place.at}.")
    else:
        tell(
            "[Afterward|After that|Then] {hero} [went/goes|ran/runs|came/comes] back to "
            "{place.the}.",
            "[Soon|Later] {hero} was/is {place.at} again.",
            "{place.At}, [the day went/goes on|other things waited/wait].",
        )
    following: Beat = world.then
    return following
