"""From text of any size to the distinct pre-tokens in it and how often each occurs.

Training counts pairs inside pre-tokens, and a corpus repeats its words: a hundred megabytes hold
some hundred thousand different ones. So the text is read once, in constant memory, and what goes on
to ``llm_core.bpe`` is a short list of byte strings with counts. Encoding uses the same table the
other way round: each different pre-token is encoded once.

Three stages, each a function: ``segments`` cuts a document at special tokens and at places where
a cut can't change a pre-token; ``batches`` packs segments for the workers; ``count_pretokens``
counts. The chapter on tokenization derives pre-tokens and measures this module.
"""

from __future__ import annotations

import codecs
import io
import math
import os
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from multiprocessing import get_context
from typing import Protocol, TypeVar

import numpy as np
import regex
from numpy.typing import NDArray

from llm_core.characters import character_classes
from llm_core.pieces import Pieces, PieceTable
from llm_core.scanner import GPT2_PATTERN, PATTERNS, SCANNERS, last_safe_cut

Document = str | os.PathLike[str]
Source = Document | Iterable[Document]
Item = TypeVar("Item")
Result = TypeVar("Result")

BATCH_BYTES = 4 << 20
MOST_PIECES = 1 << 16  # of a pattern, its repetitions written out as regex has them; a second
COUNT = re.compile(r"(?<=[{,])\d+(?=[,}])")
# (?x) hides counts from COUNT, (?R), (?1), (?&name) call themselves, (?(1)) panics in tiktoken, and
# what stands before \K would be lost.
NOT_TAKEN = re.compile(r"\(\?(?:[\w-]*[xR]|[+-]?\d|&|P>|\()|\\K")


class Readable(Protocol):
    """What ``segments`` needs of a file."""

    def read(self, n_bytes: int, /) -> bytes:
        """About ``n_bytes`` bytes, none only at the end."""


# --- reading ------------------------------------------------------------------------------------


def utf8(text: str) -> bytes:
    """The UTF-8 of a text. Surrogates, which have none, become what tiktoken makes of them:
    a high one followed by a low one the character they stand for, any other U+FFFD."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return joined.encode("utf-8")


class Utf8File(io.FileIO):
    """A binary file that raises ValueError where it's not UTF-8, naming the byte and its place."""

    def __init__(self, path: os.PathLike[str]) -> None:
        super().__init__(path)
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")

    def read(self, n_bytes: int | None = -1, /) -> bytes:
        """The next bytes, at most ``n_bytes``; none at the end."""
        offset = self.tell() - len(self._decoder.getstate()[0])
        block = super().read(n_bytes) or b""
        try:
            self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            place = offset + error.start
            raise ValueError(
                f"{self.name} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset "
                f"{place}; convert it first, e.g. iconv -f latin1 -t utf-8"
            ) from error
        return block


class TextStream:
    """Strings as a stream of UTF-8 bytes, read no further than asked."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self._held_back = ""

    def read(self, n_bytes: int, /) -> bytes:
        """At least ``n_bytes``, unless the strings come to an end."""
        parts = []
        while n_bytes > 0 and (text := next(self._texts, None)) is not None:
            text = self._held_back + text
            # the first half of a surrogate pair waits for the second
            self._held_back = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
            parts.append(utf8(text[: len(text) - len(self._held_back)]))
            n_bytes -= len(parts[-1])
        if n_bytes > 0:
            parts.append(utf8(self._held_back))
            self._held_back = ""
        return b"".join(parts)


def documents(source: Source) -> Iterator[Document]:
    """The documents of a source: a str and a path are one, an iterable holds one an item.

    Raises ValueError for an item that is neither.
    """
    for document in (source,) if isinstance(source, str | os.PathLike) else source:
        if not isinstance(document, str | os.PathLike):
            raise ValueError(
                f"a document is a str or a path, not {type(document).__name__}: {document!r:.60}; "
                "decode bytes first, e.g. data.decode('utf-8')"
            )
        yield document


def open_document(document: Document) -> AbstractContextManager[Readable]:
    """A document as a stream of UTF-8 bytes; a file is checked while it's read."""
    return io.BytesIO(utf8(document)) if isinstance(document, str) else Utf8File(document)


def total_bytes(source: Source) -> int | None:
    """About how many bytes a source has; None if that takes reading it."""
    if isinstance(source, str):
        return len(source)
    if isinstance(source, os.PathLike):
        return os.stat(source).st_size
    if isinstance(source, Sequence):
        return sum(total_bytes(document) or 0 for document in source)
    return None


# --- cutting ------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def any_of(strings: tuple[str, ...]) -> re.Pattern[bytes]:
    """A pattern that finds the strings' UTF-8; where several begin, the longest."""
    longest_first = sorted(map(utf8, strings), key=len, reverse=True)
    return re.compile(b"(" + b"|".join(map(re.escape, longest_first)) + b")")


def segments(
    file: Readable, special_tokens: tuple[str, ...], divisible: bool, block_bytes: int = BATCH_BYTES
) -> Iterator[bytes]:
    """Cut a document before and behind special tokens and, if ``divisible``, where it is safe.

    A special token is a segment of its own, and only a special token equals one. Cutting the other
    segments into pre-tokens, each for itself, gives the pre-tokens of the document. The last is no
    special token and may be empty. Memory is a few blocks, if only there are places to cut.
    """
    special = any_of(special_tokens) if special_tokens else None
    longest = max((len(utf8(token)) for token in special_tokens), default=0)
    rest = b""
    while block := file.read(max(block_bytes, len(rest))):
        rest += block
        start, limit = 0, len(rest) - longest  # behind it a longer special token may still grow
        for match in special.finditer(rest) if special else ():
            if match.start() > limit:
                break
            yield from (rest[start : match.start()], match.group())
            start = match.end()
        if divisible:
            view = np.frombuffer(rest, dtype=np.uint8)
            cut = last_safe_cut(view, start, limit, character_classes())
            if cut > start:
                yield rest[start:cut]
                start = cut
        rest = rest[start:]
    yield from special.split(rest) if special else (rest,)


@dataclass(frozen=True)
class Batch:
    """Segments for one worker: segment ``s`` is ``text[bounds[s]:bounds[s + 1]]``."""

    text: bytes
    bounds: NDArray[np.int64]  # (k + 1,)
    ends_document: NDArray[np.bool_]  # (k,)

    @classmethod
    def pack(cls, parts: Sequence[bytes], ends: Sequence[bool]) -> Batch:
        """Join segments; ``ends`` says of each whether a document ends behind it."""
        bounds = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(b"".join(parts), bounds, np.array(ends))

    def parts(self) -> list[bytes]:
        """The segments one by one."""
        return [self.text[begin:end] for begin, end in pairwise(self.bounds.tolist())]


def batches(
    source: Source, special_tokens: tuple[str, ...], divisible: bool, batch_bytes: int = BATCH_BYTES
) -> Iterator[Batch]:
    """The segments of all documents in order, special tokens dropped, about 4 MiB a batch."""
    dropped = set(map(utf8, special_tokens))
    parts: list[bytes] = []
    ends: list[bool] = []
    size = 0
    for document in documents(source):
        with open_document(document) as file:
            for part in segments(file, special_tokens, divisible, batch_bytes):
                if part in dropped:
                    continue
                if size >= batch_bytes:
                    yield Batch.pack(parts, ends)
                    parts, ends, size = [], [], 0
                parts.append(part)
                ends.append(False)
                size += len(part) + 1  # empty documents fill a batch too
        ends[-1] = True
    if parts:
        yield Batch.pack(parts, ends)


# --- counting -------------------------------------------------------------------------------------


def _check_size(pattern: str) -> None:
    """Raise ValueError where a few characters ask for a regular expression of gigabytes."""
    counts = (int(digits.lstrip("0")[:12] or 1) for digits in COUNT.findall(pattern))
    n_pieces = len(pattern) * math.prod(counts)
    if n_pieces > MOST_PIECES or NOT_TAKEN.search(pattern):
        raise ValueError(
            f"pattern {pattern[:60]!r} repeats too much, calls itself, has a condition, \\K or the "
            "flag x; write it without, and with small counts"
        )


def resolve(pattern: str | None) -> str | None:
    """A pattern for its name ("gpt2", "cl100k", "o200k"); any other pattern as it is.

    Raises ValueError for a pattern that doesn't compile, that matches the empty string or whose
    compiled form would be huge: a pattern may come from a file of somebody else.
    """
    if pattern is None or pattern in SCANNERS:
        return pattern
    if pattern in PATTERNS:
        return PATTERNS[pattern]
    _check_size(pattern)
    try:
        matches_nothing = regex.compile(pattern).match("") is not None
    except (regex.error, ValueError, KeyError, RuntimeError) as error:  # regex raises all of them
        raise ValueError(
            f"pattern {pattern!r} is no regular expression: {error}; "
            f"give one, or a name: {', '.join(PATTERNS)}"
        ) from error
    if matches_nothing:
        raise ValueError(f"pattern {pattern!r} matches the empty string; use + in place of *")
    return pattern


def covering(pattern: str | None) -> str:
    """The pattern made to match all of a text: a character that it would skip stands alone.

    An empty match, as of a lookahead, is none: ``\\G`` is where the search began.
    """
    if pattern is None:
        return r"[\s\S]+"
    return pattern if pattern in SCANNERS else rf"(?:{pattern})(?!\G)|[\s\S]"


def ordered_map(
    executor: Executor, function: Callable[[Item], Result], items: Iterable[Item], in_flight: int
) -> Iterator[Result]:
    """``map`` in an executor, in order, that never takes more than ``in_flight`` items ahead."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= in_flight:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def taken(free: list[Item], make: Callable[[], Item]) -> Item:
    """One of the free things, or a new one. Threads may take from the same list at once."""
    try:
        return free.pop()
    except IndexError:
        return make()


def n_workers(n: int | None, name: str = "n_processes") -> int:
    """How many workers are meant: None is one a core. Raises ValueError, with the name, below 1."""
    if n is None:
        return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if n < 1:
        raise ValueError(f"{name}={n} must be at least 1, or None for one a core")
    return n


def _count_compiled(scanner: int, parts: Iterator[Batch], workers: int) -> Pieces:
    """Threads suffice: the compiled code runs without the interpreter's lock."""
    free: list[PieceTable] = []

    def count(batch: Batch) -> None:
        table = taken(free, lambda: PieceTable(scanner))
        table.add(batch.text, batch.bounds)
        free.append(table)

    with ThreadPoolExecutor(workers) as executor:
        for _ in ordered_map(executor, count, parts, workers + 1):
            pass
    total = max(free, key=len, default=PieceTable(scanner))
    for table in free:
        if table is not total:
            total.absorb(table)
    return total.pieces()


def _count_by_regex(job: tuple[str, list[bytes]]) -> Counter[str]:
    pattern, parts = job
    find_all = regex.compile(covering(pattern)).finditer
    return Counter(match.group() for part in parts for match in find_all(part.decode("utf-8")))


def _count_processes(pattern: str, parts: Iterator[Batch], workers: int) -> Pieces:
    """Processes are needed: `regex` holds the interpreter's lock."""
    jobs = ((pattern, batch.parts()) for batch in parts)
    counted: Counter[str] = Counter()
    if workers == 1:
        results: Iterable[Counter[str]] = map(_count_by_regex, jobs)
        for result in results:
            counted.update(result)
    else:
        context = get_context("fork" if sys.platform == "linux" else "spawn")
        with ProcessPoolExecutor(workers, mp_context=context) as executor:
            for result in ordered_map(executor, _count_by_regex, jobs, workers + 1):
                counted.update(result)
    return Pieces.of({piece.encode("utf-8"): count for piece, count in counted.items()})


def count_pretokens(
    source: Source,
    pattern: str | None = GPT2_PATTERN,
    special_tokens: Iterable[str] = (),
    n_processes: int | None = None,
) -> Pieces:
    """The distinct pre-tokens of a text and their counts, special tokens cut out.

    ``source`` is a str, the path of a UTF-8 file, or an iterable of both. With a named pattern,
    memory holds the distinct pre-tokens and a few batches, however large the files; with a pattern
    of your own, or None (no cutting), it holds the largest stretch between two special tokens.
    ``n_processes`` workers (None: one a core) are threads for a named pattern, else processes.
    Their number does not change the counts. Raises ValueError for text that isn't UTF-8, a pattern
    that ``resolve`` refuses, or ``n_processes`` below 1.
    """
    pattern, workers = resolve(pattern), n_workers(n_processes)
    parts = batches(source, tuple(special_tokens), divisible=pattern in SCANNERS)
    if pattern is None:
        return Pieces.of(Counter(part for batch in parts for part in batch.parts() if part))
    if pattern in SCANNERS:
        return _count_compiled(SCANNERS[pattern], parts, workers)
    return _count_processes(pattern, parts, workers)
