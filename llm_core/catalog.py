"""The classic data sets: where they are, whose they are, how their documents are read.

Nothing of the book needs them; a reader with a network can run any chapter on them instead of the
documentation on disk. Each entry states license and homepage. A sha256 is stated for all but
Gutenberg's books, which are revised in place: these are trusted on first download (see
``download``). Chapter "Pretraining" names the ones worth a try.
"""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from llm_core import download, runtime
from llm_core.download import RemoteFile

CHUNK_CHARS = 1 << 20


# --- how files are read -------------------------------------------------------------------------


def _pieces(file: TextIO, separator: str) -> Iterator[str]:
    """The documents between separators, one at a time: memory holds a document, not the file."""
    begun, rest = list[str](), ""  # a document's beginning, in which no separator can start
    while chunk := file.read(CHUNK_CHARS):
        *whole, rest = (rest + chunk).split(separator)
        for piece in whole:
            yield "".join((*begun, piece))
            begun = []
        done = max(0, len(rest) - len(separator) + 1)
        begun.append(rest[:done])
        rest = rest[done:]
    yield "".join((*begun, rest))


@contextmanager
def utf8(path: Path) -> Iterator[TextIO]:
    """An open text file, without its byte order mark. Raises ValueError where it is not UTF-8."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from error


def read_text(path: Path, separator: str | None = None) -> Iterator[str]:
    """A UTF-8 text file as one document, or as many as a separator makes; empty ones are dropped.

    Line ends become ``\\n`` and a byte order mark is removed. With a separator, blanks around each
    document go too. Raises ValueError where the file is not UTF-8.
    """
    with utf8(path) as file:
        if separator is None:
            yield from filter(None, [file.read()])
        else:
            yield from filter(None, (piece.strip() for piece in _pieces(file, separator)))


def read_stories(path: Path) -> Iterator[str]:
    """TinyStories: one text file, ``<|endoftext|>`` between the stories."""
    return read_text(path, separator="<|endoftext|>")


def read_gutenberg(path: Path) -> Iterator[str]:
    """A Project Gutenberg book without the license text before and after it.

    Raises ValueError if the two lines that enclose every book are not there.
    """
    for text in read_text(path):
        begin, end = text.find("*** START OF"), text.find("*** END OF")
        if begin < 0 or end < begin:
            raise ValueError(f"{path} lacks Gutenberg's START and END lines; fetch it again")
        yield text[text.index("\n", begin) : end].strip()


def read_instructions(path: Path) -> Iterator[str]:
    """Alpaca's json: each record's instruction, input (if any) and output as paragraphs.

    Raises ValueError naming the record that lacks a field.
    """
    for number, record in enumerate(json.loads(path.read_text(encoding="utf-8"))):
        try:
            parts = [record["instruction"], record["input"], record["output"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}, record {number} has no field {error}; add it") from error
        yield "\n\n".join(part for part in parts if part)


def read_sms_labels(path: Path) -> Iterator[tuple[str, str]]:
    """The SMS Spam Collection's messages, each after its label, ham or spam."""
    with zipfile.ZipFile(path) as archive:
        text = archive.read("SMSSpamCollection").decode("utf-8")
    for line in filter(None, text.split("\n")):  # a message may hold what splitlines cuts at
        label, _, message = line.removesuffix("\r").partition("\t")
        yield label, message


def read_sms(path: Path) -> Iterator[str]:
    """The SMS Spam Collection's messages, without their labels."""
    return (message for _, message in read_sms_labels(path))


def read_parquet(path: Path) -> Iterator[str]:
    """The ``text`` column of a parquet file, a thousand rows at a time.

    Raises ModuleNotFoundError where pyarrow, which nothing else here needs, is not installed, and
    ValueError for a file without such a column; rows without a text are passed over.
    """
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("parquet needs pyarrow: pip install pyarrow") from error
    file = pyarrow.parquet.ParquetFile(path)
    if "text" not in file.schema_arrow.names:
        raise ValueError(
            f"{path} has the columns {', '.join(file.schema_arrow.names)}; it needs one named text"
        )
    for batch in file.iter_batches(1000, columns=["text"]):
        yield from (text for text in batch.column("text").to_pylist() if text)


# --- what there is ------------------------------------------------------------------------------

Reader = Callable[[Path], Iterator[str]]


@dataclass(frozen=True)
class Download:
    """A data set on the network: its files, whose it is, and how its documents are read."""

    name: str
    files: tuple[RemoteFile, ...]
    license: str
    homepage: str
    reader: Reader | None


HUB = "https://huggingface.co/datasets"
TINYSTORIES = f"{HUB}/roneneldan/TinyStories/resolve/f54c09fd23315a6f9c86f9dc80f725de7d8f9c64"
FINEWEB = f"{HUB}/HuggingFaceFW/fineweb-edu/resolve/87f09149ef4734204d70ed1d046ddc9ca3f2b8f9"
RASCHKA = "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main"
KARPATHY = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data"
STANFORD = "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca"
OPENAI = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main"

# Pride and Prejudice, Alice, Frankenstein, Sherlock Holmes, Moby Dick, Two Cities, Dracula
SHELF = (1342, 11, 84, 1661, 2701, 98, 345)


def _gutenberg(name: str, books: tuple[int, ...]) -> Download:
    files = tuple(
        RemoteFile(f"pg{book}.txt", (f"https://www.gutenberg.org/cache/epub/{book}/pg{book}.txt",))
        for book in books
    )
    home = "https://www.gutenberg.org"
    return Download(name, files, "public domain in the USA", home, read_gutenberg)


_ENTRIES = (
    Download(
        "the-verdict",
        (
            RemoteFile(
                "the-verdict.txt",
                (f"{RASCHKA}/ch02/01_main-chapter-code/the-verdict.txt",),
                "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
                20_479,
            ),
        ),
        "public domain",
        "https://en.wikisource.org/wiki/The_Verdict",
        read_text,
    ),
    Download(
        "tiny-shakespeare",
        (
            RemoteFile(
                "input.txt",
                (f"{KARPATHY}/tinyshakespeare/input.txt",),
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                1_115_394,
            ),
        ),
        "public domain",
        "https://github.com/karpathy/char-rnn",
        read_text,
    ),
    _gutenberg("gutenberg", SHELF),
    Download(
        "tinystories",
        (
            RemoteFile(
                "TinyStories-train.txt",
                (f"{TINYSTORIES}/TinyStories-train.txt",),
                "c5cf5e22ff13614e830afbe61a99fbcbe8bcb7dd72252b989fa1117a368d401f",
                1_924_281_556,
            ),
        ),
        "CDLA-Sharing-1.0",
        f"{HUB}/roneneldan/TinyStories",
        read_stories,
    ),
    Download(
        "tinystories-valid",
        (
            RemoteFile(
                "TinyStories-valid.txt",
                (f"{TINYSTORIES}/TinyStories-valid.txt",),
                "94e431816c4cce81ff71e4408ff8d3bda9a42e8d2663986697c3954288cb38b4",
                19_447_282,
            ),
        ),
        "CDLA-Sharing-1.0",
        f"{HUB}/roneneldan/TinyStories",
        read_stories,
    ),
    Download(
        "fineweb-edu",  # the smallest of the fourteen files of its 10-billion-token sample
        (
            RemoteFile(
                "013_00000.parquet",
                (f"{FINEWEB}/sample/10BT/013_00000.parquet",),
                "b393f51fefab26cd6f4c8f65707c1924f6666c4961a0ebebe04bb57f7ec832de",
                540_632_672,
            ),
        ),
        "ODC-By 1.0",
        f"{HUB}/HuggingFaceFW/fineweb-edu",
        read_parquet,
    ),
    Download(
        "sms-spam",
        (
            RemoteFile(
                "sms-spam-collection.zip",
                ("https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",),
                "1587ea43e58e82b14ff1f5425c88e17f8496bfcdb67a583dbff9eefaf9963ce3",
                203_415,
            ),
        ),
        "CC BY 4.0",
        "https://archive.ics.uci.edu/dataset/228/sms+spam+collection",
        read_sms,
    ),
    Download(
        "alpaca",
        (
            RemoteFile(
                "alpaca_data.json",
                (f"{STANFORD}/761dc5bfbdeeffa89b8bff5d038781a4055f796a/alpaca_data.json",),
                "2eddafc6b977608d778aaab8dfc7e50e547b3af9826dfb9e909d9fc362e4a419",
            ),
        ),
        "CC BY-NC 4.0",
        "https://github.com/tatsu-lab/stanford_alpaca",
        read_instructions,
    ),
    Download(
        "instruction-data",
        (
            RemoteFile(
                "instruction-data.json",
                (f"{RASCHKA}/ch07/01_main-chapter-code/instruction-data.json",),
                "7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
                203_524,
            ),
        ),
        "Apache-2.0",
        "https://github.com/rasbt/LLMs-from-scratch",
        read_instructions,
    ),
    Download(
        "gpt2-vocabulary",
        (
            RemoteFile(
                "vocab.bpe",
                (f"{OPENAI}/vocab.bpe",),
                "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
                456_318,
            ),
            RemoteFile(
                "encoder.json",
                (f"{OPENAI}/encoder.json",),
                "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
                1_042_301,
            ),
        ),
        "Modified MIT",
        "https://github.com/openai/gpt-2",
        None,
    ),
)
CATALOG = {entry.name: entry for entry in _ENTRIES}


# --- getting it ---------------------------------------------------------------------------------


def find(name: str) -> Download:
    """The entry of that name; ``gutenberg:1342`` is the book of that number.

    Raises ValueError for a name that is not in the catalog.
    """
    shelf, _, book = name.partition(":")
    if shelf == "gutenberg" and book.isdecimal():
        return _gutenberg(f"gutenberg-{book}", (int(book),))
    if name not in CATALOG:
        raise ValueError(
            f"no corpus {name!r}; choose stories, docs, code, file:PATH, gutenberg:NUMBER or "
            f"{', '.join(CATALOG)}"
        )
    return CATALOG[name]


def folder(entry: Download) -> Path:
    """Where the files of an entry lie: in the cache folder."""
    return runtime.cache_folder("corpora", entry.name)


def is_present(entry: Download) -> bool:
    """Whether all files of an entry are there, each with the right sha256."""
    return all(download.is_present(file, folder(entry)) for file in entry.files)


def fetch(name: str, *, progress: bool = True) -> list[Path]:
    """The files of a data set, downloaded first where they are absent.

    A download prints license and homepage and leaves both in ``source.json`` beside the files.
    Raises what ``download.fetch`` raises; the message says what to run where there is a network.
    """
    entry = find(name)
    place = folder(entry)
    remedy = (
        f"where there is a network run `python -m llm_core.corpora fetch {name}`, then copy the "
        f"folder it names to {place}"
    )
    paths = []
    for file in entry.files:
        if download.is_present(file, place):  # which reads all of it: once is enough
            paths.append(place / file.name)
            continue
        size = "size unknown" if file.n_bytes is None else f"{file.n_bytes:,} bytes"
        print(f"{file.name}: {size}, license {entry.license}, {entry.homepage}")
        paths.append(download.fetch(file, place, remedy, progress=progress))
    with runtime.atomic_write(place / "source.json", "w") as record:
        about = {"name": entry.name, "license": entry.license, "homepage": entry.homepage}
        files = [asdict(file) for file in entry.files]
        json.dump({**about, "files": files}, record, indent=1)
    return paths


def documents(name: str) -> Iterator[str]:
    """The documents of a data set, read lazily; it is fetched at once where it is absent.

    Raises ValueError for an entry that holds no text, such as a vocabulary.
    """
    reader = find(name).reader
    if reader is None:
        raise ValueError(f"{name} holds no documents; catalog.fetch({name!r}) gives its files")
    return itertools.chain.from_iterable(map(reader, fetch(name)))
