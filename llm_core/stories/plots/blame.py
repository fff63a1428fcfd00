"""The plot "blame": a thing of an old neighbor lands in the soup, and the neighbor asks who did it.

The hero, or the wind, did; the hero owns up, keeps silent, or points at the friend.
"""

from __future__ import annotations

from llm_core.stories.choices import Word
from llm_core.stories.engine import Beat, Tell
from llm_core.stories.episodes import names_in, nouns_of, plot
from llm_core.stories.lexicon import COLORS, FOODS, GLAD, GUILTY, KINDS, SAD, TRAITS
from llm_core.stories.phrases import DOING, MANNERS, WAYS, one_of, pairs
from llm_core.stories.scenes import feel, finish, friend, introduce, tilt
from llm_core.stories.world import World, thing

# Where things land.
MESSES = one_of(
    """the soup, the mud, the jam, the milk, the paint, the ink, the honey, the pond, the rice
    the sand, the butter, the beans, the tea, the cake, the fish, the well"""
)
CHORES = pairs(
    "{} the {}",
    "wash, dust, count, carry, clean, sort",
    "spoons, pots, plates, bottles, buckets, boots, stones, eggs, onions, beans, socks, shoes",
)
ME, WIND = Word("me"), Word("the wind")


@plot("blame", odds=4, words=72)
def blame(tell: Tell, world: World) -> Beat:
    """Somebody old lives close by; then the hero, or the wind, is careless."""
    friend(tell, world)
    tell(
        "[Near them|Next door|Close by|Not far away] lived/lives {name}, {trait.a} old {kind}.",
        "{name}, {trait.a} old {kind}, [had/has a house|was/is asleep|sat/sits] "
        "[close by|near them].",
        "[Behind|Beside] them, {trait.a} old {kind} [named|called] {name} was/is "
        "[asleep|cooking|singing].",
        "[Old|Dear old|Good old] {name}, {trait.a} {kind}, lived/lives [next door|near them].",
        "The [nearest|next|first] house was/is that of {name}, {trait.a} old {kind}.",
        "{trait.A} old {kind}, {name}, lived/lives [close by|next door|near them].",
        name=names_in(world),
        kind=KINDS.without(("child",)),
        trait=TRAITS.without(tuple(one.trait for one in world.cast)),
    )
    world.elder = introduce(tell, world)
    return hero_careless if tell.chance(65) else wind_blows


def hero_careless(tell: Tell, world: World) -> Beat:
    """The hero's fault."""
    tell(
        "{hero} [ran/runs|raced/races|hopped/hops] {way} and [knocked/knocks|pushed/pushes"
        "|sent/sends] {elder}'s {color} {noun} into {mess}.",
        "[Oops|Splash|Crash|Whoops]! {hero}, [running|racing|hopping] {way}, had/has pushed "
        "{elder}'s {color} {noun} into {mess}.",
        "The [two|friends] [ran/run|raced/race|hopped/hop] {way} until {hero} "
        "[knocked/knocks|pushed/pushes] {elder}'s {color} {noun} into {mess}.",
        "{elder}'s {color} {noun} [fell/falls|flew/flies] into {mess} because {hero} "
        "[ran/runs|raced/races|hopped/hops|danced/dances] {way}.",
        "[Running|Racing|Hopping|Dancing] {way}, {hero} [knocked/knocks|pushed/pushes|sent/sends] "
        "{elder}'s {color} {noun} into {mess}.",
        way=WAYS,
        color=COLORS,
        noun=nouns_of(world, world.elder),
        mess=MESSES,
    )
    world.culprit, world.excuse = world.hero, ME
    spoil(tell, world)
    tell.note("did", world.hero, f"pushed the {world.broken.full} into {world.mess}")
    return asked


def wind_blows(tell: Tell, world: World) -> Beat:
    """Nobody's fault."""
    tell(
        "The wind [came/comes|blew/blows|ran/runs] {way} and [threw/throws|pushed/pushes] "
        "{elder}'s {color} {noun} into {mess}.",
        "Then the wind [came/comes|blew/blows|danced/dances] {way} and [pulled/pulls|threw/throws"
        "|sent/sends] {elder}'s {color} {noun} into {mess}.",
        "[Whoosh|Splash|Crash]! The wind, [racing|running|dancing] {way}, had/has blown {elder}'s "
        "{color} {noun} into {mess}.",
        "{elder}'s {color} {noun} [fell/falls|flew/flies] into {mess} because the wind "
        "[came/comes|blew/blows|danced/dances] {way}.",
        "[Nobody moved/moves|They did/do nothing], but the wind came/comes {way} and "
        "[blew/blows|threw/throws] {elder}'s {color} {noun} into {mess}.",
        way=WAYS,
        color=COLORS,
        noun=nouns_of(world, world.elder),
        mess=MESSES,
    )
    world.culprit = world.excuse = WIND
    spoil(tell, world)
    return asked


def spoil(tell: Tell, world: World) -> None:
    """Note whose thing it was and who knows how it got there."""
    world.broken = broken = thing(world.color, world.noun)
    world.nouns = (*world.nouns, world.noun)
    world.topic = f"how the {broken} got into {world.mess}"
    tell.note("own", world.elder, broken)
    tell.note("know", world.hero, world.topic)
    tell.note("know", world.friend, world.topic)


def asked(tell: Tell, world: World) -> Beat:
    """The question, which the hero answers, or doesn't, or answers wrongly."""
    tell(
        '"Who put my [poor |good |dear |]{broken} there?" {elder} '
        "[asked/asks|said/says|cried/cries], {doing}.",
        '"Who [was that|did this|has been here]?" {elder} [asked/asks|said/says|cried/cries], '
        "{doing}.",
        '[Out|Soon|Then] came/comes {elder}, {doing}. "Who [did this|was that]?"',
        "{doing.cap}, {elder} [asked/asks|wanted/wants to know] who [did it|it was].",
        '"[Somebody has something to tell me|I am listening|Speak up]," {elder} '
        "[said/says|called/calls], {doing}.",
        '"My [poor|good|dear|new] {broken}!" {elder} [cried/cries|sighed/sighs|said/says], '
        "{doing}.",
        '"[Well|So|Now], who was it?" {elder} [asked/asks|called/calls|said/says], {doing}.',
        doing=DOING,
    )
    tell.note("unaware", world.elder, world.topic)
    tell.turn()
    if tell.chance(tilt(world.hero.trait.honest, -4)):
        return owned_up
    return kept_silent if tell.chance(50) else blamed


def owned_up(tell: Tell, world: World) -> Beat:
    """The truth, which pleases some."""
    tell(
        '"It was {excuse}," {hero} [said/says|answered/answers|told/tells {elder}] {manner}.',
        '"[Sorry|Oh dear|Well|Listen], it was {excuse}," {hero} [said/says|answered/answers] '
        "{manner}.",
        '{manner.cap}, {hero} [said/says|answered/answers], "[Well, it|I think it|It] was '
        '{excuse}."',
        '"It was {excuse}, [I think|I fear|to be honest|I must say]," {hero} '
        "[said/says|answered/answers|told/tells {elder}] {manner}.",
        '"You will [laugh|be angry|not like it|not believe it], but it was {excuse}," {hero} '
        "[said/says|answered/answers] {manner}.",
        '"{excuse.cap}[, I think|, I fear|]. It was {excuse}," {hero} [said/says|answered/answers] '
        "{manner}.",
        '{hero} [told/tells the truth|had/has to say it] {manner}: "It was {excuse}."',
        manner=MANNERS,
    )
    tell.note("honest", world.hero, world.elder)
    tell.note("did", world.hero, f"told {world.elder} the truth")
    return elder_pleased if tell.chance(tilt(world.elder.trait.gives, 8)) else elder_angry


def elder_pleased(tell: Tell, world: World) -> Beat | None:
    """The truth is worth more than a clean thing."""
    tell.note("know", world.elder, world.topic)
    tell(
        '"[Thank you|Good to know|How honest|I see]. [Have|Take|Try] {food}," {elder} '
        "[said/says|answered/answers].",
        '"[Then|Good, then] let us wash it and [have|eat|share] {food}," {elder} '
        "[said/says|answered/answers].",
        '"I never liked that {broken}. [Have|Take|Try] {food}," {elder} '
        "[said/says|laughed/laughs].",
        "{elder} [laughed/laughs|sighed/sighs|smiled/smiles|nodded/nods] and "
        "[brought/brings|gave/gives|offered/offers] them {food}.",
        '"[It will dry|It needed a bath|Never mind]. Would you like {food}?" {elder} '
        "[asked/asks|said/says].",
        '"[The truth is|An honest word is|That was] worth {food}," {elder} '
        "[said/says|laughed/laughs|answered/answers].",
        '"[Oh well|Never mind|Ha]! [Have|Take|Try] {food}," {elder} '
        "[said/says|laughed/laughs|called/calls].",
        food=FOODS,
    )
    if world.culprit is world.hero:
        tell.note("forgive", world.elder, world.hero)
    feel(tell, world, world.hero, GLAD, "{elder} [knew/knows the truth|was/is not angry]")
    return finish(tell, world, "happy")


def elder_angry(tell: Tell, world: World) -> Beat | None:
    """The truth helps nothing, or isn't believed."""
    if world.culprit is world.hero:
        tell.note("know", world.elder, world.topic)
        tell(
            '"Then you [will|can|may] {chore}[ for me|]," {elder} [said/says|answered/answers].',
            '"[That was my best|I loved that|It was my only] {broken}! Now {chore}," {elder} '
            "[said/says|cried/cries].",
            "[For that|As thanks], {hero} had/has to {chore} [all day|until dark|twice].",
            "So {elder} made/makes {hero.him} {chore}[ all day| until dark| twice].",
            '"[That does not help|I am angry]. [Go and|Now|So] {chore}," {elder} '
            "[said/says|answered/answers].",
            '"[You|Oh, you]! [Go and|Now|So] {chore}," {elder} [said/says|cried/cries].',
            chore=CHORES,
        )
    else:
        tell(
            '"[The wind|A fine wind|Oh, the wind]! [Go and|Now] {chore}," {elder} '
            "[said/says|cried/cries].",
            '"Today it is the wind, tomorrow the moon. [Go and|Now] {chore}," {elder} said/says.',
            "{elder} did/does not believe it, and {hero} had/has to {chore}[ all day| twice|].",
            '"That wind is called {hero}, and it will {chore}," {elder} '
            "[said/says|answered/answers].",
            '"What wind?" {elder} [asked/asks|said/says], and {hero} had/has to {chore}'
            "[ until dark| all day|].",
            chore=CHORES,
        )
    feel(tell, world, world.hero, SAD, "the truth [had/has not helped|was/is not enough]")
    return finish(tell, world, "sad")


def kept_silent(tell: Tell, world: World) -> Beat | None:
    """Not a word from the hero; perhaps from the friend."""
    tell(
        "{hero} [said/says nothing|kept/keeps quiet|looked/looks away|gave/gives no answer], "
        "{doing}.",
        "{doing.cap}, {hero} [said/says nothing|kept/keeps quiet|looked/looks away].",
        "[Not a word|No answer|Not a sound] came/comes from {hero}, who was/is {doing}.",
        "{hero} was/is [suddenly|very|far too] busy {doing}[ and did/does not answer|].",
        "{hero} [only |just ]went/goes on {doing}[, without a word| and said/says nothing|].",
        doing=DOING,
    )
    if tell.chance(tilt(world.friend.trait.honest, -10)):
        return friend_tells
    tell(
        '"Then [both of you will|you will both] {chore}," {elder} [said/says|answered/answers].',
        '"[If nobody did it,|Nobody? Then] everybody will {chore}," {elder} [said/says|told/tells '
        "them].",
        "{friend} was/is quiet, too, and they [both |]had/have to {chore}[ all day| until dark|].",
        "[In the end,|So] {elder} made/makes them both {chore}[ all day| twice|].",
        '"You [may|can] {chore} until you can [speak|talk|remember] again," {elder} told/tells '
        "them.",
        "{friend} said/says nothing, either, and so they [both |]had/have to {chore}[ twice|].",
        chore=CHORES,
    )
    feel(tell, world, world.hero, SAD, "nobody had/has [said a word|told the truth]")
    return finish(tell, world, "sad")


def friend_tells(tell: Tell, world: World) -> Beat | None:
    """The friend says it, which is a shame for the hero if the hero did it."""
    tell(
        '"It was {culprit}," {friend} [said/says|answered/answers|told/tells {elder}] {manner}.',
        '"[Well|Oh dear|All right|Sorry], it was {culprit}," {friend} [said/says|told/tells '
        "{elder}] {manner}.",
        "{manner.cap}, {friend} [said/says|told/tells {elder}] that it was {culprit}.",
        'So {friend} [had/has to say it|answered/answers|spoke/speaks] {manner}: "It was '
        '{culprit}."',
        '"It was {culprit}, [I saw it|if you must know|I think]," {friend} '
        "[said/says|answered/answers|told/tells {elder}] {manner}.",
        manner=MANNERS,
    )
    tell.note("honest", world.friend, world.elder)
    tell.note("did", world.friend, f"told {world.elder} the truth")
    if world.culprit is not world.hero:
        return elder_pleased
    tell.note("know", world.elder, world.topic)
    feel(tell, world, world.hero, GUILTY, "{friend} had/has been [braver|more honest]")
    return finish(tell, world, "sad")


def blamed(tell: Tell, world: World) -> Beat:
    """The hero points at the friend, who may or may not dare to speak."""
    tell(
        '"It was {friend}," {hero} [said/says|answered/answers|lied/lies] {manner}.',
        '"[I saw {friend} do it|{friend} did it|That was {friend}]," {hero} '
        "[said/says|answered/answers|lied/lies] {manner}.",
        "{manner.cap}, {hero} [said/says|told/tells {elder}] that it was {friend}.",
        '"[Not me|I did nothing|Do not look at me]. It was {friend}," {hero} [said/says|lied/lies] '
        "{manner}.",
        '{manner.cap}, {hero} [said/says|answered/answers], "It was {friend}[, not me|, I saw '
        'it|]."',
        manner=MANNERS,
    )
    tell.note("lie", world.hero, world.elder)
    tell.note("did", world.hero, f"put the blame on {world.friend}")
    return contradicted if tell.chance(tilt(world.friend.trait.dares)) else blame_sticks


def blame_sticks(tell: Tell, world: World) -> Beat | None:
    """The friend says nothing and pays for it."""
    tell(
        "{friend} [said/says nothing|kept/keeps quiet] and had/has to {chore}[ all day| twice|].",
        '"Then {friend} will {chore}," {elder} [said/says|answered/answers], and nobody said/says '
        "[a word|no].",
        "{elder} [made/makes|let/lets] {friend} {chore}[ all day| until dark| twice|].",
        "So {friend} had/has to {chore}[ all day| until dark| twice|].",
        "{friend} only [shook/shakes {friend.his} head|sighed/sighs|looked/looks down] and "
        "went/goes to {chore}.",
        chore=CHORES,
    )
    feel(tell, world, world.friend, SAD, "it was/is not [fair|true]")
    feel(tell, world, world.hero, GUILTY, "{elder} believed/believes the lie")
    return finish(tell, world, "sad")


def contradicted(tell: Tell, world: World) -> Beat:
    """The friend says how it was; the hero is sorry, which may be enough."""
    tell(
        '"No, it was {culprit}!" {friend} [said/says|cried/cries|answered/answers] {manner}.',
        '"That is not [so|true|right]. It was {culprit}," {friend} [said/says|answered/answers] '
        "{manner}.",
        '{manner.cap}, {friend} [answered/answers|said/says], "It was {culprit}[, not me|, and you '
        'know it|]."',
        '"[Me|What|Who]? It was {culprit}," {friend} [said/says|cried/cries|answered/answers] '
        "{manner}.",
        '"{culprit.cap}! It was {culprit}!" {friend} [said/says|answered/answers] {manner}.',
        manner=MANNERS,
    )
    tell.note("honest", world.friend, world.elder)
    tell.note("did", world.friend, f"contradicted {world.hero}")
    tell.note("know", world.elder, world.topic)
    tell(
        '"[I am sorry|Sorry|Forgive me]," {hero} said/says and [gave/gives|offered/offers'
        "|brought/brings] {friend} {food}.",
        '{hero} [turned/turns red|looked/looks down|sighed/sighs]. "Sorry, {friend}. '
        '[Have|Take|Try] {food}."',
        '"[Forgive me|I am so sorry|Sorry], {friend}. [Have|Take|Try] {food}," {hero} said/says.',
        "{hero} [said/says sorry|was/is sorry] and [gave/gives|offered/offers|brought/brings] "
        "{friend} {food}.",
        '"I am [so |very |]sorry. Will {food} [help|do]?" {hero} [asked/asks|said/says].',
        food=FOODS,
    )
    tell.note("sorry", world.hero, world.friend)
    return apology_taken if tell.chance(tilt(world.friend.trait.gives, 5)) else apology_refused


def apology_taken(tell: Tell, world: World) -> Beat | None:
    """The friend forgives."""
    tell(
        '"[It is all right|Never mind|I am not angry|I forgive you]," {friend} '
        "[said/says|answered/answers], {doing}.",
        "{friend} forgave/forgives {hero}[ at once| in the end|], {doing}.",
        '{doing.cap}, {friend} said/says, "[I am not angry|Never mind|It is all right|All right]."',
        '"[But never|Never] do that again," {friend} said/says, {doing}, and '
        "[smiled/smiles|laughed/laughs].",
        '"Half of [it|that] is for you," {friend} [said/says|told/tells {hero}], {doing}.',
        doing=DOING,
    )
    tell.note("forgive", world.friend, world.hero)
    feel(tell, world, world.hero, GLAD, "they were/are [still friends|friends again]")
    return finish(tell, world, "happy")


def apology_refused(tell: Tell, world: World) -> Beat | None:
    """The friend is too hurt."""
    tell(
        '"[Keep it|I am going home|Leave me alone]," {friend} [said/says|answered/answers], '
        "{doing}.",
        "{friend} [walked/walks off|looked/looks away|gave/gives no answer], {doing}.",
        "{doing.cap}, {friend} [left/leaves|looked/looks away] without [an answer|a word].",
        '"[That does not help|It is too late]," {friend} [said/says|answered/answers], {doing}.',
        "{friend} did/does not [take|touch|want] it, {doing}.",
        doing=DOING,
    )
    feel(tell, world, world.hero, GUILTY, "{friend} was/is so [hurt|sad]")
    return finish(tell, world, "sad")
