"""The tokenizer: text to ids and back, trained here, encoded by tiktoken.

``train_bpe`` learns a vocabulary with ``llm_core.bpe``; a ``Tokenizer`` holds any byte-level one,
GPT-2's too. Text that spells a special token is ordinary text unless the caller says otherwise: a
user must not be able to type a control token. The chapter on tokenization derives all of it.
"""

from __future__ import annotations

import codecs
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import pairwise
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
from numpy.typing import NDArray
from tqdm import tqdm

from llm_core.bpe import N_BYTES, learn_merges
from llm_core.encoder import (
    BatchEncoder,
    Ids,
    PieceEncoder,
    TextEncoder,
    encode_batches,
    write_shards,
)
from llm_core.pretokenize import (
    Batch,
    Source,
    TextStream,
    any_of,
    batches,
    count_pretokens,
    n_workers,
    resolve,
    segments,
    total_bytes,
    utf8,
)
from llm_core.runtime import atomic_write
from llm_core.scanner import GPT2_PATTERN, SCANNERS
from llm_core.vocabulary import (
    Content,
    as_tiktoken,
    assign_ids,
    checked_specials,
    content_hash,
    dumps,
    gpt2_vocab,
    hugging_face,
    loads,
    ordinary_tokens,
)

END_OF_TEXT = "<|endoftext|>"
LONG_TEXT = 1 << 16  # characters; from 2**19 spaces on, tiktoken's regex overflows its stack
StrPath = str | os.PathLike[str]
AllowedSpecial = str | Set[str]


class Tokenizer:
    """A byte-level byte pair encoding: any text to ids and back, nothing unknown.

    ``vocab`` maps ids to bytes, ``merges`` are in order, ``special_tokens`` maps strings to ids,
    ``pattern`` is a regular expression or None. Don't change them: make another tokenizer.
    """

    def __init__(
        self,
        vocab: Mapping[int, bytes],
        merges: Iterable[tuple[bytes, bytes]],
        special_tokens: Iterable[str] | Mapping[str, int] = (),
        pattern: str | None = GPT2_PATTERN,
    ) -> None:
        """Any ids will do. Special tokens not in the vocabulary get the ids behind its greatest.

        ``special_tokens`` may say which id each has. ``pattern`` is a regular expression, a name
        ("gpt2", "cl100k", "o200k") or None: the text is one piece. Raises ValueError if a byte
        or a product of a merge has no id, if an id is neither that nor special, if a merge joins
        what does not exist yet, or if the pattern is no regular expression. The merges must be such
        as training makes: tiktoken takes a piece that is a token for that token at once, and joins
        any two tokens that make a third, whichever pair the merge names.
        """
        self.merges = [(bytes(left), bytes(right)) for left, right in merges]
        self.pattern = resolve(pattern)
        names = checked_specials(special_tokens)  # once: it may be an iterator
        special = special_tokens if isinstance(special_tokens, Mapping) else names
        ordinary = ordinary_tokens(self.merges)
        self._tokens, self.special_tokens = assign_ids(vocab, ordinary, special)
        by_id = {i: token for token, i in self._tokens.items()}
        by_id |= {i: utf8(string) for string, i in self.special_tokens.items()}
        if wrong := [i for i in by_id if not 0 <= i < 2**31]:
            raise ValueError(f"id {wrong[0]} must be at least 0 and below 2**31; give it another")
        self.vocab = dict(sorted(by_id.items()))
        self.vocab_size = max(self.vocab) + 1
        """One more than the greatest id: the rows that an embedding needs."""
        self.dtype = np.dtype("<u2" if self.vocab_size <= 2**16 else "<u4")
        """What holds an id in arrays and files: uint16 or uint32."""

    # --- the engine ---------------------------------------------------------------------------

    @cached_property
    def _id_of_rank(self) -> NDArray[np.int64] | None:
        """None if merges have ascending ids, for then a token's id is its rank, as in tiktoken."""
        ids = list(self._tokens.values())
        ascending = all(a < b for a, b in pairwise(ids[N_BYTES:]))
        return None if ascending else np.array(ids, dtype=np.int64)

    @cached_property
    def _engine(self) -> tiktoken.Encoding:
        """tiktoken, which merges by rank; it never sees a special token."""
        ranks = self._tokens
        if self._id_of_rank is not None:
            ranks = {token: rank for rank, token in enumerate(self._tokens)}
        return as_tiktoken(ranks, {}, self.pattern)

    def _ids_of_ranks(self, ranks: list[int]) -> list[int]:
        return ranks if self._id_of_rank is None else self._id_of_rank[ranks].tolist()

    def _encode_piece(self, piece: bytes) -> list[int]:
        return self._ids_of_ranks(self._engine._encode_single_piece(piece))

    def _encode_ordinary(self, text: str) -> list[int]:
        if len(text) > LONG_TEXT and self.pattern in SCANNERS:
            ids: list[int] = self.encode_array(text).tolist()
            return ids
        return self._ids_of_ranks(self._engine.encode_ordinary(text))

    # --- text to ids --------------------------------------------------------------------------

    def _specials_to_cut(self, allowed_special: AllowedSpecial) -> tuple[str, ...]:
        if allowed_special == "none":
            return ()
        if allowed_special in ("all", "raise"):
            return tuple(self.special_tokens)
        if isinstance(allowed_special, str):
            raise ValueError(
                f"allowed_special={allowed_special!r} must be 'none', 'all', 'raise' or a set"
            )
        if unknown := sorted(set(allowed_special) - set(self.special_tokens)):
            raise ValueError(
                f"{unknown[0]!r} is no special token of this tokenizer, which has "
                f"{sorted(self.special_tokens)}; name it when you make the tokenizer"
            )
        return tuple(sorted(allowed_special))

    def _encode_parts(
        self, parts: Iterable[bytes], allowed_special: AllowedSpecial
    ) -> Iterator[list[int]]:
        """The ids of parts as ``segments`` gives them: a part that spells a special token is it."""
        special = {utf8(s): s for s in self._specials_to_cut(allowed_special)}
        for part in parts:
            if part not in special:
                yield self._encode_ordinary(part.decode("utf-8"))
            elif allowed_special == "raise":
                raise ValueError(
                    f"the text contains the special token {special[part]!r}; take it out, or "
                    "choose allowed_special='none' to read it as text, 'all' to obey it"
                )
            else:
                yield [self.special_tokens[special[part]]]

    def encode(self, text: str, allowed_special: AllowedSpecial = "none") -> list[int]:
        """The ids of a text.

        What looks like a special token is, by ``allowed_special``: "none", ordinary text; "all",
        that token; "raise", a ValueError that names it; for a set of special tokens, those are
        tokens and the others text. Where several begin, the longest counts. Surrogates, which no
        UTF-8 has, become what tiktoken makes of them: U+FFFD unless a pair. Raises ValueError for
        an ``allowed_special`` that is none of these or holds what is no special token.
        """
        cut = self._specials_to_cut(allowed_special)
        if not cut:
            return self._encode_ordinary(text)
        parts = any_of(cut).split(utf8(text))
        return [i for ids in self._encode_parts(parts, allowed_special) for i in ids]

    def encode_batch(
        self,
        texts: Sequence[str],
        n_threads: int | None = None,
        allowed_special: AllowedSpecial = "none",
    ) -> list[list[int]]:
        """``encode`` of each text, in ``n_threads`` threads (None: one a core)."""
        _ = self._engine  # made once, not by several threads at the same time
        with ThreadPoolExecutor(n_workers(n_threads, "n_threads")) as executor:
            return list(executor.map(lambda text: self.encode(text, allowed_special), texts))

    def encode_iterable(
        self, texts: Iterable[str], allowed_special: AllowedSpecial = "none"
    ) -> Iterator[int]:
        """The ids of the joined texts, one by one, reading no further than needed.

        The same ids as ``encode("".join(texts))``, however the text is cut into ``texts``. Memory
        is bounded with a named pattern; with another it grows to the distance of special tokens.
        """
        cut = self._specials_to_cut(allowed_special)
        parts = segments(TextStream(texts), cut, self.pattern in SCANNERS, LONG_TEXT // 4)
        for ids in self._encode_parts(parts, allowed_special):
            yield from ids

    # --- corpora to arrays and files ----------------------------------------------------------

    def _encode_batches(
        self, source: Source, n_processes: int | None, end_id: int | None
    ) -> Iterator[tuple[Batch, Ids]]:
        if end_id is not None and end_id not in self.vocab:
            raise ValueError(f"end_id={end_id} is no id of this tokenizer; add a special token")
        _ = self._engine  # made once, not by several threads at the same time
        scanner = SCANNERS.get(self.pattern or "")

        def make_encoder() -> BatchEncoder:
            if scanner is None:
                return TextEncoder(self._encode_ordinary, self.dtype)
            return PieceEncoder(scanner, self._encode_piece, self.dtype)

        parts = batches(source, (), divisible=scanner is not None)
        return encode_batches(parts, make_encoder, end_id, n_workers(n_processes))

    def encode_arrays(
        self, documents: Source, n_processes: int | None = None, end_id: int | None = None
    ) -> Iterator[Ids]:
        """The ids of documents in order, in arrays of about a million; behind each document
        ``end_id`` unless None.

        A document is a str or the path of a UTF-8 file; special tokens in it are text. Lazy: with
        a named pattern memory doesn't grow with the text. ``n_processes`` threads (None: one a
        core) don't change the ids. Raises ValueError for an ``end_id`` that is no id and for text
        that is not UTF-8.
        """
        for _, ids in self._encode_batches(documents, n_processes, end_id):
            yield ids

    def encode_array(self, text: str) -> Ids:
        """``encode(text)`` as an array ``(n,)`` of ``dtype``, faster for long texts."""
        return np.concatenate(list(self.encode_arrays(text, n_processes=1)))

    def encode_to_file(
        self,
        documents: Source,
        path: StrPath,
        n_processes: int | None = None,
        end_id: int | None = None,
        tokens_per_shard: int = 2**27,
        progress: bool = True,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Encode documents as ``encode_arrays`` does into ``NAME-00000.bin`` ... and ``NAME.json``.

        ``path`` ends in NAME. The files hold little-endian ids of ``dtype``, ``tokens_per_shard``
        in each but the last; the json, which is returned, says what they are: counts, dtype, sha256
        of each, the tokenizer's hash, ``metadata``. It's written last: where it is, all is.
        """
        n_documents, size = 0, total_bytes(documents)

        def arrays() -> Iterator[Ids]:
            nonlocal n_documents
            with tqdm(total=size, unit="B", unit_scale=True, disable=not progress) as bar:
                for batch, ids in self._encode_batches(documents, n_processes, end_id):
                    yield ids
                    n_documents += int(batch.ends_document.sum())
                    bar.update(len(batch.text))

        def description() -> dict[str, Any]:
            return {
                "dtype": self.dtype.name,
                "n_documents": n_documents,
                "end_id": end_id,
                "vocab_size": self.vocab_size,
                "tokenizer": self.hash,
                "metadata": dict(metadata or {}),
            }

        return write_shards(arrays(), Path(path), tokens_per_shard, description)

    # --- ids to text --------------------------------------------------------------------------

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of ids. Raises ValueError naming an id that is not in the vocabulary."""
        try:
            return b"".join(self.vocab[index(i)] for i in ids)
        except KeyError as error:
            raise ValueError(
                f"id {error.args[0]} is not in the vocabulary of {len(self.vocab)} tokens "
                f"(ids up to {self.vocab_size - 1}); were the ids made by another tokenizer?"
            ) from error

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, refused as by ``decode_bytes``; what is not UTF-8 becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decode_stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, piece by piece, together ``decode(ids)``.

        A character whose bytes are not all there yet is held back.
        """
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for i in ids:
            if text := decoder.decode(self.decode_bytes([i])):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    # --- files and friends --------------------------------------------------------------------

    @property
    def _content(self) -> Content:
        return Content(self._tokens, self.merges, self.special_tokens, self.pattern)

    @cached_property
    def hash(self) -> str:
        """64 hex digits that identify vocabulary, merges, special tokens and pattern."""
        return content_hash(self._content)

    def save(self, path: StrPath) -> None:
        """Write all of it to one json that a human can read."""
        with atomic_write(path, "w") as file:
            file.write(dumps(self._content))

    @classmethod
    def load(cls, path: StrPath) -> Tokenizer:
        """Read what ``save`` wrote. Raises ValueError, naming the fault, for any other file."""
        content = loads(Path(path))
        by_id = {i: token for token, i in content.tokens.items()}
        return cls(by_id, content.merges, content.special_tokens, content.pattern)

    @classmethod
    def from_gpt2(
        cls, vocab_json: StrPath, merges_txt: StrPath, pattern: str | None = GPT2_PATTERN
    ) -> Tokenizer:
        """Read GPT-2's two files: vocab.json and merges.txt, or encoder.json and vocab.bpe.

        Entries that are neither bytes nor made by merges become special tokens.
        """
        vocab, merges, special = gpt2_vocab(Path(vocab_json), Path(merges_txt))
        return cls(vocab, merges, special, pattern)

    def to_tiktoken(self) -> tiktoken.Encoding:
        """A tiktoken.Encoding with the same ids.

        Raises ValueError if merges have no ascending ids: tiktoken takes the id for the rank.
        """
        if self._id_of_rank is not None:
            raise ValueError(
                "the ids do not ascend in the order of the merges, which tiktoken takes for "
                "granted; use to_hf, or give the tokens other ids"
            )
        return as_tiktoken(self._tokens, self.special_tokens, self.pattern)

    def to_hf(self, path: StrPath) -> None:
        """Write the ``tokenizer.json`` that Hugging Face's tokenizers loads, with the same ids.

        There, special tokens in a text are always obeyed unless ``encode_special_tokens`` is set.
        Raises ValueError for a special token that spells an ordinary one.
        """
        with atomic_write(path, "w") as file:
            json.dump(hugging_face(self._content), file, ensure_ascii=False, indent=1)


def train_bpe(
    text: Source,
    vocab_size: int,
    special_tokens: Sequence[str] = (),
    pattern: str | None = GPT2_PATTERN,
    n_processes: int | None = None,
) -> Tokenizer:
    """Learn a byte-level byte pair encoding.

    ``text`` is a str, the path of a UTF-8 file, or an iterable of both. Ids are the 256 bytes, then
    the merges in order, then the special tokens; ``vocab_size`` counts all three. The text is cut
    at special tokens first, then into pre-tokens by ``pattern`` (a regular expression, a name, or
    None for no cut), and nothing merges across. The most frequent pair goes first, of equally
    frequent ones the lexicographically greater pair of bytes; fewer tokens come out if no pair is
    left. The number of workers changes nothing. Raises ValueError for a vocab_size below 256 and
    the special tokens, a bad pattern, or text that is not UTF-8.
    """
    special = checked_specials(special_tokens)
    n_merges = vocab_size - N_BYTES - len(special)
    if n_merges < 0:
        raise ValueError(
            f"vocab_size={vocab_size} has no room for {N_BYTES} bytes and {len(special)} special "
            f"tokens; give at least {N_BYTES + len(special)}"
        )
    tokens = [bytes([byte]) for byte in range(N_BYTES)]
    _ = Tokenizer(dict(enumerate(tokens)), [], special, pattern)._engine  # bad patterns stop here
    pieces = count_pretokens(text, pattern, special, n_processes)
    merges = []
    for left, right in learn_merges(pieces, n_merges).tolist():
        merges.append((tokens[left], tokens[right]))
        tokens.append(tokens[left] + tokens[right])
    return Tokenizer(dict(enumerate(tokens)), merges, special, pattern)
