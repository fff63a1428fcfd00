"""Phrases that several plots draw from, and three ways to make such a list.

What a plot needs alone stands in its own file. A list that is shared keeps the world's vocabulary
small: with a thousand tokens for all of its words, a word pays by coming up often.
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_core.stories.choices import Choice, Word
from llm_core.stories.lexicon import phrases


def one_of(text: str) -> Choice:
    """A choice among the phrases of a text, one a line or between commas."""
    return Choice(phrases(text))


def pairs(form: str, firsts: str, seconds: str) -> Choice:
    """Every first phrase with every second one, put into ``form``: ``pairs("a {} {}", ...)``."""
    return Choice([Word(form.format(a, b)) for a in phrases(firsts) for b in phrases(seconds)])


def with_the(articles: Sequence[Word]) -> Choice:
    """Phrases such as ``a snail`` with the form ``the``: ``the snail``."""
    return Choice([Word(one, the=f"the {one.split(' ', 1)[1]}") for one in articles])


# What somebody is doing while they speak or wait: fits "Mia said, ..." and "Mia was ...".
DOING = one_of(
    """tying a shoe, humming a tune, counting to ten, looking at the sky, drawing in the sand
    watching an ant, standing on one leg, eating a nut, holding a leaf, kicking a stone
    thinking of supper, rubbing one ear, making faces, folding a paper boat, turning a coin
    rolling up both sleeves, looking for a sock, singing softly, waving a stick, hopping about
    talking to a snail, closing one eye, walking in a circle, smelling a flower
    leaning on a wall, washing a cup, peeling an egg, holding up one finger, sitting on a barrel
    tapping one foot, blowing on some soup, reading a letter"""
)

# How somebody speaks: after "Mia said".
MANNERS = one_of(
    """softly, loudly, slowly, kindly, quickly, gently, with a smile, with a sigh, with a nod
    with a wink, with a grin, in a small voice, very quietly, out of breath, at once
    without looking up, in a deep voice, a little sadly, with big eyes, in surprise"""
)
# The same for somebody with a trouble.
WORRIED = MANNERS.without(("with a smile", "with a wink", "with a grin"))

# What a thing can be like, without changing what it is.
OLD = one_of(
    """old, wet, broken, tiny, dusty, muddy, bent, torn, crooked, striped, lonely, cold, empty
    round, big, ugly, heavy, little, soft, warm"""
)
FINE = one_of(
    """fine, lovely, shiny, strong, light, clever, rare, small, clean, smooth, splendid, soft
    handy, round, pretty, curious"""
)

# What lies about and belongs to nobody.
JUNK = one_of(
    """nail, fork, sock, plate, bottle, bucket, potato, sandal, bone, stick, spade, shoe, pot
    rag, bean, onion, turnip, hinge, brick, crust, string, spring, cork"""
)

# Marks by which a thing is known.
MARKS = one_of(
    """a scratch on one side, a spot of jam, a torn edge, a smell of onions, a crack, a tooth mark
    two spots of ink, a tiny hole, a spot of paint, a smell of smoke, a bent corner, a bite
    a drop of wax, a smell of soap, a dent, a loose end"""
)

# Ways to go: after a verb such as "walked".
WAYS = one_of(
    """down the road, around the corner, past the pump, over a fence, through the mud
    between two carts, up the steps, into the fog, the long way around, across the field
    along the wall, under the trees, through the gate, over the stones, behind the sheds
    along the fence"""
)

# Words of one's own for something that can't be believed.
CRIES = one_of(
    """Goodness, Oh my, Well I never, Thunder and jam, Bless my boots, Toads and turnips, Dear me
    Good heavens, Soup and socks, What a day, Oh dear, Ducks and drums"""
)

# Somebody or something that looks on.
WITNESSES = with_the(
    phrases(
        """a snail, the baker, a crow, a black cat, a donkey, a bee, an ant, the miller, a goose
        a pigeon, an old dog, a cow, the postman, a frog, a fly, a beetle"""
    )
)
