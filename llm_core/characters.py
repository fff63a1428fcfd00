"""What kind of character each code point is, as the tokenizer's patterns tell them apart.

What counts as a letter changes with every version of Unicode. The table is asked of tiktoken's own
regular expression engine, so that what is cut here is cut the same way when tiktoken encodes.
The chapter on tokenization shows the patterns that these classes come from.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import version
from typing import cast

import numpy as np
import tiktoken
from numpy.typing import NDArray

from llm_core.runtime import atomic_write, cache_folder

Bytes = NDArray[np.uint8]

LETTER, NUMBER, SPACE, OTHER, UPPER, LOWER, MARK, NEWLINE = (1 << bit for bit in range(8))
CLASSES = {
    LETTER: r"\p{L}",
    NUMBER: r"\p{N}",
    SPACE: r"\s",
    OTHER: r"[^\s\p{L}\p{N}]",
    UPPER: r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]",  # what may begin a word in o200k ...
    LOWER: r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]",  # ... and what may go on; letters without case are both
    MARK: r"\p{M}",
    NEWLINE: r"[\r\n]",
}
N_CODE_POINTS = 0x110000


def _characters_matching(pattern: str, text: str) -> NDArray[np.uint32]:
    """The characters of ``text`` that tiktoken's regex engine matches, as code points.

    An encoding that knows only the 256 bytes gives back the UTF-8 of what its pattern matches and
    drops the rest.
    """
    one_token_a_byte = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding(
        "probe", pat_str=pattern, mergeable_ranks=one_token_a_byte, special_tokens={}
    )
    matched = bytes(encoding.encode_ordinary(text)).decode("utf-8")
    return np.frombuffer(matched.encode("utf-32-le"), dtype=np.uint32)


def _ask_tiktoken() -> Bytes:
    not_surrogates = [chr(point) for point in range(N_CODE_POINTS) if point >> 11 != 0b11011]
    text = "".join(not_surrogates)
    table = np.zeros(N_CODE_POINTS, dtype=np.uint8)
    for flag, pattern in CLASSES.items():
        table[_characters_matching(pattern, text)] |= flag
    return table


@lru_cache(maxsize=1)
def character_classes() -> Bytes:
    """The class flags of every code point, ``(0x110000,)`` uint8; surrogates have none.

    Made in about a second on the first call with a given version of tiktoken, then kept in the
    cache folder.
    """
    key = hashlib.sha256(repr(CLASSES).encode()).hexdigest()[:8]
    path = cache_folder("characters") / f"classes-{key}-tiktoken-{version('tiktoken')}.npy"
    if path.exists() and path.stat().st_size == N_CODE_POINTS + 128:  # 128 bytes of header
        return cast(Bytes, np.load(path, allow_pickle=False))
    table = _ask_tiktoken()
    with atomic_write(path) as file:
        np.save(file, table, allow_pickle=False)
    return table
