"""The words of the world: names, kinds, traits, places, things, and what else sentences draw from.

Each list is a ``Choice`` with its odds. The appendix "The world" prints these lists from here.
"""

from __future__ import annotations

from llm_core.stories.choices import Choice, Word


def words(text: str) -> list[Word]:
    """The words of a text, with their plain forms."""
    return [Word(one) for one in text.split()]


def phrases(text: str) -> list[Word]:
    """The phrases of a text, one a line or between commas."""
    parts = text.replace("\n", ",").split(",")
    return [Word(" ".join(one.split())) for one in parts if one.strip()]


# --- people -------------------------------------------------------------------------------------

HER_NAMES = """Aiko Amara Anouk Chloé Dina Esme Fatou Greta Hana Ines Juno Kaya Leila Lena Maud Mia
Nadia Noor Odile Pilar Rosa Ruth Sofia Tilda Uma Vera Wanda Yara Yuki Zadie Zoë Zuri Bela Ivy
Lila Marta"""
HIS_NAMES = """Bruno Chidi Dario Emil Farid Finn Goran Hugo Idris Ivo Jonas José Karim Kofi Luca
Milo Nils Omar Otto Paolo Piet Rami Ravi Samir Sven Tariq Tom Viktor Yusuf Zeno Abel Ben Caspar
Enzo Levi Theo"""

NAMES = Choice(
    [Word(one, he="she") for one in HER_NAMES.split()]
    + [Word(one, he="he") for one in HIS_NAMES.split()]
)

KINDS = Choice(
    dict(
        zip(
            words(
                """child rabbit fox bear mouse duck frog hare squirrel owl turtle badger otter
                goat beaver mole"""
            ),
            (6, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2),
            strict=True,
        )
    )
)

AN = {"honest": {"a": "an honest"}}  # a word whose article its first letter does not tell

# How likely, in a hundred, somebody with this trait is to give, to tell the truth, to dare, to take
# care. No number is near 0 or 100: a trait tilts what happens and never settles it.
TRAITS = Choice(
    [
        Word(name, gives=gives, honest=honest, dares=dares, cares=cares, **AN.get(name, {}))
        for name, gives, honest, dares, cares in (
            ("kind", 85, 75, 50, 65),
            ("brave", 60, 70, 88, 45),
            ("shy", 55, 60, 20, 65),
            ("clever", 50, 50, 60, 70),
            ("lazy", 35, 55, 35, 20),
            ("greedy", 14, 40, 55, 45),
            ("curious", 60, 65, 80, 30),
            ("careful", 60, 75, 30, 90),
            ("careless", 60, 55, 70, 14),
            ("honest", 65, 92, 55, 65),
            ("gentle", 80, 80, 35, 75),
            ("proud", 30, 40, 70, 55),
            ("cheerful", 75, 65, 65, 45),
            ("stubborn", 25, 60, 75, 50),
        )
    ],
    telling=True,
)

# --- places -------------------------------------------------------------------------------------


PREPOSITIONS = {
    "in": "forest park garden meadow barn cave valley village kitchen yard stable shop attic "
    "library woods",
    "at": "market beach school harbor fair station inn zoo farm",
    "by": "river pond lake well sea road canal",
    "on": "hill bridge island pier roof ship",
    "near": "mill tower castle gate windmill lighthouse",
}

PLACES = Choice(
    [
        Word(name, the=f"the {name}", at=f"{where} the {name}", At=f"{where.title()} the {name}")
        for where, names in PREPOSITIONS.items()
        for name in names.split()
    ]
)

SPOTS = Choice(
    Word(one, at=one)
    for one in phrases(
        """under a bench, behind a tree, in the tall grass, under some leaves, inside a hollow log
        behind a rock, beside the path, on top of a wall, under an old boat, in a muddy hole
        behind a bush, between two roots, under a blanket, inside a basket, behind a barrel
        under some straw, in an empty bucket, under a step, inside an old boot, behind some wood
        under a flat stone, in a heap of sand, behind the door, under a cart"""
    )
)

# --- things -------------------------------------------------------------------------------------

NOUNS = Choice(
    words(
        """ball kite book hat lamp drum key bell doll scarf shell cup flute map coin ring box fan
        crown mask cap bag boot glove jar spoon brush pen pin belt comb vase bowl rope flag top
        wheel stamp card horn rug tray pipe net pan hook chain badge button ribbon candle marble
        mirror puzzle whistle puppet pencil basket feather locket boat clock medal purse kettle"""
    )
)

COLORS = Choice(
    dict(
        zip(
            words("red blue green yellow white brown purple orange golden silver gray black pink"),
            (4, 4, 4, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1),
            strict=True,
        )
    )
)

GIVERS = Choice(
    phrases("grandmother, grandfather, mother, father, aunt, uncle, cousin, neighbor, teacher")
)

# --- numbers ------------------------------------------------------------------------------------

NUMBERS = words(
    """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
    fifteen sixteen seventeen eighteen nineteen twenty"""
)

ITEMS = Choice(
    [
        Word(many, one=one)
        for one, many in (
            pair.split("/")
            for pair in """apple/apples pebble/pebbles flower/flowers stone/stones berry/berries
            nut/nuts egg/eggs pear/pears leaf/leaves acorn/acorns plum/plums seed/seeds bean/beans
            carrot/carrots cherry/cherries twig/twigs""".split()
        )
    ]
)

# --- time, weather, food, song ------------------------------------------------------------------

WEATHER = Choice(
    dict(
        zip(
            words("sunny windy cold warm cloudy foggy rainy bright gray snowy"),
            (5, 4, 3, 3, 3, 2, 2, 2, 1, 1),
            strict=True,
        )
    )
)
TIMES = Choice(dict(zip(words("morning day afternoon evening"), (4, 3, 2, 1), strict=True)))
LATER = Choice(
    phrases(
        """the next day, the next morning, two days later, a week later, the day after
        that evening, a few days later, on Sunday, soon after that, one day"""
    )
)
DEADLINES = Choice(
    phrases(
        """before noon, before dark, after lunch, at sunset, after breakfast, before supper
        at four o'clock, when the bell rings, before the rain, at first light"""
    )
)
HOURS = Choice(
    phrases(
        """at noon, at sunset, at first light, after lunch, after breakfast, at four o'clock
        at nine o'clock, after supper, after school, at half past three, at two, at dusk"""
    )
)
FOODS = Choice(
    phrases(
        """an apple, some bread, a plum, some cheese, a cookie, some soup, a pear, some berries
        a honey cake, some nuts, a warm bun, some rice, a pancake, a carrot, some pie, an egg
        a potato, some jam, two plums, half a melon"""
    )
)
SONGS = Choice(
    phrases(
        """the moon, the rain, the sea, a silly goose, the stars, the spring, a sleepy cat
        seven ships, the north wind, a lost sock, the snow, a dancing bear, an old king
        a brave mouse"""
    )
)

# --- feelings -----------------------------------------------------------------------------------

GLAD = Choice(words("happy glad pleased merry cheerful lucky grateful proud"))
SAD = Choice(words("sad upset unhappy lonely gloomy cross glum hurt"))
GUILTY = Choice(words("sorry ashamed troubled uneasy sheepish"))
