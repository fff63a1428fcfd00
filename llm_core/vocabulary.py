"""What a byte-level vocabulary must be, and the files that hold one.

Three formats: our json, which a human can read and ``load`` checks to the last field; GPT-2's pair
of files; and the ``tokenizer.json`` of Hugging Face's tokenizers. All three write a token in
GPT-2's alphabet, one printable character a byte. The chapter on tokenization shows it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import tiktoken

from llm_core.pretokenize import covering, utf8

FILE_FORMAT = "llm_core tokenizer"
HALF = re.compile("[\ud800-\udfff]")  # of a surrogate pair


class Content(NamedTuple):
    """All that makes a tokenizer."""

    tokens: dict[bytes, int]  # ordinary tokens: bytes and products of merges
    merges: list[tuple[bytes, bytes]]
    special_tokens: dict[str, int]
    pattern: str | None


# --- bytes as readable characters -----------------------------------------------------------------


@lru_cache(maxsize=1)
def character_of_byte() -> tuple[str, ...]:
    """GPT-2's character for each byte: itself if it prints, else the next free one from U+0100."""
    prints = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
    others = (byte for byte in range(256) if byte not in prints)
    shifted = {byte: chr(256 + k) for k, byte in enumerate(others)}
    return tuple(shifted.get(byte, chr(byte)) for byte in range(256))


def readable(token: bytes) -> str:
    """A token in those characters: " the" is "Ġthe"."""
    return "".join(map(character_of_byte().__getitem__, token))


@lru_cache(maxsize=1)
def byte_of_character() -> dict[str, int]:
    """The inverse of ``character_of_byte``."""
    return {character: byte for byte, character in enumerate(character_of_byte())}


def unreadable(token: str, path: Path) -> bytes:
    """The bytes that ``readable`` was given. Raises ValueError, naming the file, for others."""
    try:
        return bytes(map(byte_of_character().__getitem__, token))
    except KeyError as error:
        raise ValueError(
            f"{path}: token {token!r}: {error.args[0]!r} stands for no byte in GPT-2's alphabet; "
            "get or save it again"
        ) from error


# --- what a vocabulary must be --------------------------------------------------------------------


def ordinary_tokens(merges: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    """The bytes and what the merges make of them, in order.

    Raises ValueError if a merge joins what does not exist yet, or makes what exists.
    """
    tokens = {bytes([byte]): None for byte in range(256)}
    for number, (left, right) in enumerate(merges):
        for part in (left, right):
            if part not in tokens:
                raise ValueError(
                    f"merge {number} joins {left!r} and {right!r}, but no byte or earlier merge "
                    f"gives {part!r}; list the merges in the order in which they were learned"
                )
        if left + right in tokens:
            raise ValueError(
                f"merge {number} makes {left + right!r}, which exists already; each token is made "
                "once"
            )
        tokens[left + right] = None
    return list(tokens)


def checked_specials(special_tokens: Iterable[str]) -> list[str]:
    """Special tokens as a list.

    Raises ValueError for an empty, a repeated or a bare string, and for half a surrogate pair,
    which no file could hold.
    """
    if isinstance(special_tokens, str):
        raise ValueError(f"special_tokens={special_tokens!r} is one str; put it in a list")
    strings: dict[str, None] = {}
    for string in special_tokens:
        if not isinstance(string, str) or not string or string in strings or HALF.search(string):
            raise ValueError(
                f"special token {string!r} is empty, given twice, no str or has half a character; "
                "leave it out"
            )
        strings[string] = None
    return list(strings)


def assign_ids(
    vocab: Mapping[int, bytes],
    ordinary: Sequence[bytes],
    special: Iterable[str] | Mapping[str, int],
) -> tuple[dict[bytes, int], dict[str, int]]:
    """The ids of ordinary and of special tokens; specials that have none come behind the rest.

    Raises ValueError if a token lacks an id or an id a token.
    """
    ids_of: dict[bytes, list[int]] = {}
    for i in sorted(vocab, reverse=True):
        ids_of.setdefault(vocab[i], []).append(i)
    lacking = [token for token in ordinary if token not in ids_of]
    if lacking:
        raise ValueError(
            f"{len(lacking)} bytes or products of merges are not in the vocabulary, first "
            f"{lacking[0]!r}; give each an id"
        )
    ordinary_ids = {token: ids_of[token].pop() for token in ordinary}
    special_ids: dict[str, int] = {}
    taken: set[int] = set()
    following = max(vocab) + 1
    for string in special:
        spare = ids_of.get(utf8(string), [])
        wanted = special[string] if isinstance(special, Mapping) else None
        if wanted is None:
            wanted = spare[-1] if spare else following
        if wanted in spare:
            spare.remove(wanted)
        elif wanted in taken:
            raise ValueError(f"special token {string!r} has id {wanted}, which another has")
        elif wanted in vocab:
            raise ValueError(
                f"special token {string!r} has id {wanted}, which is {vocab[wanted]!r}"
            )
        following = max(following, wanted + 1)
        special_ids[string] = wanted
        taken.add(wanted)
    if left_over := sorted(i for ids in ids_of.values() for i in ids):
        raise ValueError(
            f"id {left_over[0]} is {vocab[left_over[0]]!r}: no byte, no product of a merge, no "
            f"special token ({len(left_over)} such ids); name it as a special token or leave it out"
        )
    return ordinary_ids, special_ids


def as_json(content: Content) -> dict[str, Any]:
    """The content in readable characters, without any accident of order."""
    return {
        "pattern": content.pattern,
        "special_tokens": dict(sorted(content.special_tokens.items(), key=lambda item: item[1])),
        "vocab": {
            readable(token): i for token, i in sorted(content.tokens.items(), key=lambda t: t[1])
        },
        "merges": [f"{readable(left)} {readable(right)}" for left, right in content.merges],
    }


def content_hash(content: Content) -> str:
    """64 hex digits that are equal exactly when pattern, vocabulary, merges and specials are."""
    canonical = json.dumps(as_json(content), separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


# --- our json -------------------------------------------------------------------------------------


def dumps(content: Content) -> str:
    """The text of our file."""
    header = {"format": FILE_FORMAT, "version": 1, "sha256": content_hash(content)}
    return json.dumps({**header, **as_json(content)}, indent=1, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """The value in a json file. Raises ValueError, naming the file, if it holds none."""
    try:
        return json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is no json (cut short?): {error}; get or save it again"
        ) from error


def is_map_to_ids(value: Any) -> bool:
    """Whether a json value is an object whose values are ids."""
    return isinstance(value, dict) and all(
        type(i) is int and 0 <= i < 2**31 for i in value.values()
    )


def parse_merges(lines: Sequence[str], path: Path) -> list[tuple[bytes, bytes]]:
    """The merges in lines of two readable tokens with a space between."""
    pairs = [line.split(" ") for line in lines]
    for number, pair in enumerate(pairs):
        if len(pair) != 2:
            raise ValueError(
                f"{path}: merge {number} is {lines[number]!r}, not two tokens; get it again"
            )
    return [(unreadable(left, path), unreadable(right, path)) for left, right in pairs]


def loads(path: Path) -> Content:
    """The content of our file. Raises ValueError, naming file and fault, unless all of it fits."""
    data = read_json(path)
    if not isinstance(data, dict) or data.get("format") != FILE_FORMAT:
        raise ValueError(f"{path} is no {FILE_FORMAT} file; for GPT-2's files there is from_gpt2")
    if data.get("version") != 1:
        raise ValueError(
            f"{path} has version {data.get('version')!r}, this library reads 1; update it"
        )
    merges, pattern = data.get("merges"), data.get("pattern")
    fits = {
        "pattern": pattern is None or isinstance(pattern, str),
        "vocab": is_map_to_ids(data.get("vocab")),
        "special_tokens": is_map_to_ids(data.get("special_tokens")),
        "merges": isinstance(merges, list) and all(isinstance(line, str) for line in merges),
    }
    for field, fit in fits.items():
        if not fit:
            raise ValueError(f"{path}: field {field!r} is missing or malformed; save it again")
    tokens = {unreadable(token, path): i for token, i in data["vocab"].items()}
    content = Content(tokens, parse_merges(data["merges"], path), data["special_tokens"], pattern)
    if content_hash(content) != data.get("sha256"):
        raise ValueError(
            f"{path} was altered: its content is not what its sha256 says; save it again"
        )
    return content


# --- other people's files -------------------------------------------------------------------------


def gpt2_vocab(
    vocab_json: Path, merges_txt: Path
) -> tuple[dict[int, bytes], list[tuple[bytes, bytes]], list[str]]:
    """Vocabulary, merges and special tokens of GPT-2's two files, whatever they are called.

    A special token is an entry that is neither a byte nor made by a merge.
    """
    entries = read_json(vocab_json)
    if not is_map_to_ids(entries):
        raise ValueError(f"{vocab_json} does not map tokens to ids; get it again")
    try:
        lines = merges_txt.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{merges_txt} is not UTF-8 ({error}); get it again") from error
    merges = parse_merges([x for x in lines if x and not x.startswith("#version")], merges_txt)
    ordinary = {readable(token) for token in ordinary_tokens(merges)}
    special = [token for token in entries if token not in ordinary]
    vocab = {
        i: unreadable(token, vocab_json) if token in ordinary else utf8(token)
        for token, i in entries.items()
    }
    if len(vocab) < len(entries):
        raise ValueError(f"{vocab_json} gives one id to two tokens; get it again")
    return vocab, merges, special


def as_tiktoken(
    ranks: dict[bytes, int], special_tokens: dict[str, int], pattern: str | None
) -> tiktoken.Encoding:
    """A tiktoken.Encoding. Raises ValueError for a pattern that its regex engine does not take."""
    try:
        return tiktoken.Encoding(
            "llm_core",
            pat_str=covering(pattern),
            mergeable_ranks=ranks,
            special_tokens=special_tokens,
        )
    except ValueError as error:
        raise ValueError(
            f"tiktoken does not take the pattern {pattern!r}: {error}; write it in the syntax of "
            "Rust's fancy-regex"
        ) from error


def hugging_face_vocab(content: Content) -> dict[str, int]:
    """Readable ordinary tokens and, as they are, special tokens, with their ids.

    Raises ValueError for a special token that spells an ordinary one: one dict can't hold both.
    """
    vocab = {readable(token): i for token, i in content.tokens.items()}
    for string, i in content.special_tokens.items():
        if string in vocab:
            raise ValueError(
                f"special token {string!r} is an ordinary token too, which tokenizer.json cannot "
                "express; give it a name that no merge makes, e.g. in <| and |>"
            )
        vocab[string] = i
    return vocab


def hugging_face(content: Content) -> dict[str, Any]:
    """The ``tokenizer.json`` that gives the same ids in Hugging Face's tokenizers.

    Its fields that are left out here have defaults that do nothing. Raises ValueError for a special
    token that spells an ordinary one.
    """
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    byte_level["trim_offsets"] = True
    # its regex engine reads {1,3}+ as (...{1,3})+, the others as {1,3} that gives nothing back
    pattern = {"Regex": re.sub(r"(\{\d+(?:,\d*)?\})\+", r"\1", covering(content.pattern))}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    as_it_stands = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": string, "special": True, **as_it_stands}
            for string, i in sorted(content.special_tokens.items(), key=lambda item: item[1])
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": hugging_face_vocab(content),
            "merges": [[readable(left), readable(right)] for left, right in content.merges],
        },
    }
