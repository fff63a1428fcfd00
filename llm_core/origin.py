"""Real labels that every machine has: which library does a docstring come from?

``docs`` gives docstrings of the installed numpy, matplotlib and torch, with the library as the
label, some to learn from and others to test on. Nobody wrote these labels down for an exercise, and
none is in doubt. The libraries' names would give the answer away, so they are masked. Chapter 6
holds classifiers against them, word counts among these.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from functools import lru_cache

from llm_core import docstrings
from llm_core.docstrings import DEFAULT_SOURCES
from llm_core.records import Labeled

LIBRARIES = DEFAULT_SOURCES
PLACEHOLDER = "LIBRARY"
LEAST_CHARS, MOST_CHARS = 80, 600  # "Return the name." is no library's; the rest says little more
N_TEST = 300

# What the libraries call themselves: anywhere in a word, at its beginning, or as a word. Letters
# alone make a word here, so that x_np and np.sum are two each.
_NAMES = re.compile(
    r"numpy|matplotlib|pyplot|pylab|(?:py|lib)?torch"
    r"|(?<![a-z])(?:mpl|npy)"
    r"|(?<![a-z])(?:np|npt|npz|plt|aten)(?![a-z])",
    re.IGNORECASE,
)


def mask(text: str) -> str:
    """The text with ``PLACEHOLDER`` wherever one of the libraries names itself or another.

    Full names are found inside words too (``from_numpy``), short ones (``np``, ``plt``) as words.
    """
    return _NAMES.sub(PLACEHOLDER, text)


def _beginning(text: str) -> str:
    """The first ``MOST_CHARS`` characters, up to a blank."""
    if len(text) <= MOST_CHARS:
        return text
    cut = text[: MOST_CHARS + 1]
    return cut[: max(cut.rfind(" "), cut.rfind("\n"))].rstrip()


def _normalized(text: str) -> str:
    """What two texts share that differ in case, in blanks or in a library's name alone."""
    return " ".join(mask(text).casefold().split())


@lru_cache(maxsize=1)
def _found() -> dict[str, dict[str, str]]:
    """The texts of each library by their normalized form; what two libraries say is no one's."""
    found: dict[str, dict[str, str]] = {}
    for name in LIBRARIES:
        extraction = docstrings.extract(docstrings.find_source(name))
        texts = [_beginning(one.text) for one in extraction.docstrings]
        kept = [text for text in texts if len(mask(text)) >= LEAST_CHARS]
        found[name] = {_normalized(text): text for text in reversed(kept)}  # the first one stays
    owners = Counter(key for texts in found.values() for key in texts)
    return {
        name: {key: text for key, text in texts.items() if owners[key] == 1}
        for name, texts in found.items()
    }


def _order(name: str, keys: dict[str, str], seed: int) -> list[str]:
    """The normalized texts in an order that the seed and the text alone decide about."""

    def digest(key: str) -> bytes:
        return hashlib.blake2b(f"{seed}\n{name}\n{key}".encode(), digest_size=16).digest()

    return sorted(keys, key=digest)


def docs(
    n_per_class: int, seed: int = 0, masked: bool = True, n_test: int = N_TEST
) -> tuple[list[Labeled], list[Labeled]]:
    """Docstrings to learn from and to test on: ``n_per_class`` and ``n_test`` of each library.

    The classes take turns, so that any beginning of either list is balanced; a larger
    ``n_per_class`` adds to the same texts, and the test stays. No text of one list is in the other,
    in other case, with other blanks or with another library's name in it; almost equal ones may be.
    Of a long docstring the beginning counts, up to 600 characters. ``masked`` replaces the
    libraries' names. Raises ValueError for more than there are, or fewer than 1, and where one of
    the libraries is not installed.
    """
    found = _found()
    most = min(map(len, found.values()))
    if n_per_class < 1 or n_test < 1 or n_per_class + n_test > most:
        raise ValueError(
            f"n_per_class={n_per_class} and n_test={n_test} must be at least 1, and together at "
            f"most {most}, which is what {min(found, key=lambda name: len(found[name]))} has"
        )
    train: list[tuple[Labeled, ...]] = []
    test: list[tuple[Labeled, ...]] = []
    for name, texts in found.items():
        keys = _order(name, texts, seed)[: n_test + n_per_class]
        chosen = [Labeled(mask(texts[k]) if masked else texts[k], name) for k in keys]
        test.append(tuple(chosen[:n_test]))
        train.append(tuple(chosen[n_test:]))
    return _in_turns(train), _in_turns(test)


def _in_turns(classes: list[tuple[Labeled, ...]]) -> list[Labeled]:
    return [one for turn in zip(*classes, strict=True) for one in turn]
