"""Every text the book reads, by name: ``documents("docs")`` yields one string a document.

- ``stories``: told by ``llm_core.stories``, as many as are asked for; their true probability is
  known.
- ``docs``: the documentation inside installed packages, one docstring a document under a line with
  its qualified name. The default sources are pinned packages, so they are the same for everybody.
- ``code``: the source files of the same packages, one file a document.
- ``tiny-shakespeare``, ``tinystories``, ``gutenberg`` ...: the classic data, fetched once and then
  read from the cache folder; ``python -m llm_core.corpora list`` shows all, with license and size.
- ``file:PATH``: a file, a folder or a pattern; a ``.txt`` is a document, so is a line of a
  ``.jsonl`` and a row of a ``.parquet``.

Chapter "Tokenization" compares vocabularies learned on the first three. From ``docs`` and ``code``
exact repetitions are dropped, the first in reading order stays.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import itertools
import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llm_core import catalog, docstrings, stories
from llm_core.docstrings import DEFAULT_SOURCES, Source

INSTALLED = ("docs", "code")
N_STORIES = 20_000  # told where nobody says how many
STORIES_LICENSE = "Apache-2.0"


@dataclass(frozen=True)
class Row:
    """One line of a corpus's table. ``bytes`` counts UTF-8; None stands for not known here."""

    source: str
    version: str
    license: str
    documents: int | None
    bytes: int | None


# --- installed packages -------------------------------------------------------------------------


def _is_new(text: str, seen: set[bytes]) -> bool:
    """Whether the text has not come up before; 16 bytes are remembered of each."""
    digest = hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True


def _docs_of(source: Source, seen: set[bytes]) -> Iterator[str]:
    for one in docstrings.extract(source).docstrings:
        if _is_new(one.text, seen):
            yield f"{one.title}\n\n{one.text}"


def _code_of(source: Source, seen: set[bytes]) -> Iterator[str]:
    for path in docstrings.source_files(source):
        text = docstrings.read_source(path)
        if text is not None and text.strip() and _is_new(text, seen):
            yield text


def _installed(name: str, sources: Iterable[str]) -> list[tuple[Source, Iterator[str]]]:
    """Each source with its documents, without those that an earlier one has: read in this order."""
    seen: set[bytes] = set()
    texts_of = _docs_of if name == "docs" else _code_of
    found = [docstrings.find_source(source) for source in sources]
    return [(source, texts_of(source, seen)) for source in found]


# --- files --------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> Iterator[str]:
    """The ``text`` field of each line of a JSON-lines file; blank lines and empty ones are dropped.

    Raises ValueError naming the file where it is not UTF-8, and the line where that is no object
    with a ``text`` string.
    """
    with catalog.utf8(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{path}, line {number}: {error}; mend or remove it") from error
            if not isinstance(record, dict) or not isinstance(record.get("text"), str):
                raise ValueError(f'{path}, line {number}: needs the form {{"text": "..."}}')
            if record["text"]:
                yield record["text"]


def _matching_files(pattern: str) -> list[Path]:
    """Files for a path, a folder (searched downwards) or a pattern with ``*``, sorted."""
    path = Path(pattern).expanduser()
    if path.is_dir():
        found = [one for suffix in ("txt", "jsonl", "parquet") for one in path.rglob(f"*.{suffix}")]
    elif path.is_file():
        found = [path]
    else:
        found = [
            Path(one) for one in glob.glob(str(path), recursive=True) if not Path(one).is_dir()
        ]
    if not found:
        raise FileNotFoundError(
            f"file:{pattern} matches nothing; give a .txt, .jsonl or .parquet file, a folder "
            "holding some, or a pattern such as 'file:books/*.txt'"
        )
    return sorted(found, key=lambda one: one.parts)


def _file_documents(paths: Iterable[Path], separator: str | None) -> Iterator[str]:
    for path in paths:
        if path.suffix == ".jsonl":
            yield from read_jsonl(path)
        elif path.suffix == ".parquet":
            yield from catalog.read_parquet(path)
        else:
            yield from catalog.read_text(path, separator)


def _describe_download(name: str) -> Row:
    """A data set's row; its documents are counted only once it has been fetched."""
    entry = catalog.find(name)
    n_documents = n_bytes = None
    if entry.reader is not None and catalog.is_present(entry):
        lengths = [len(text.encode("utf-8")) for text in catalog.documents(name)]
        n_documents, n_bytes = len(lengths), sum(lengths)
    elif all(file.n_bytes is not None for file in entry.files):
        n_bytes = sum(file.n_bytes or 0 for file in entry.files)
    return Row(name, "", entry.license, n_documents, n_bytes)


# --- by name ------------------------------------------------------------------------------------


def documents(
    name: str,
    *,
    sources: Sequence[str] = DEFAULT_SOURCES,
    separator: str | None = None,
    n: int = N_STORIES,
    split: str = "train",
) -> Iterator[str]:
    """The documents of a corpus, lazily and always in the same order.

    ``n`` and ``split`` say how many ``stories`` and whether for ``train``, ``validation``, ``test``
    or ``held-out`` (pairs that training never has). ``sources`` chooses packages for ``docs`` and
    ``code``: import names of installed packages, or ``stdlib``, which changes with the Python
    version. ``separator`` cuts the ``.txt`` files of ``file:PATH``. Raises ValueError for an
    unknown name or source, FileNotFoundError for a PATH that matches nothing, and what
    ``catalog.fetch`` raises.
    """
    if name in INSTALLED:
        return itertools.chain.from_iterable(texts for _, texts in _installed(name, sources))
    if name == "stories":
        return (one.text for one in stories.stories(n, split=split))
    if name.startswith("file:"):
        return _file_documents(_matching_files(name.removeprefix("file:")), separator)
    return catalog.documents(name)


def describe(name: str, *, sources: Sequence[str] = DEFAULT_SOURCES) -> list[Row]:
    """One row a source: version, license, number of documents and their bytes in UTF-8.

    The sums are those of ``documents(name)``: what repeats an earlier source is not counted. For a
    data set that was not fetched yet, ``bytes`` is the size of its files, where that is known.
    """
    if name == "stories" or name.startswith("file:"):
        lengths = [len(text.encode("utf-8")) for text in documents(name)]
        license = STORIES_LICENSE if name == "stories" else ""
        return [Row(name, "", license, len(lengths), sum(lengths))]
    if name not in INSTALLED:
        return [_describe_download(name)]
    rows = []
    for source, texts in _installed(name, sources):
        sizes = [len(text.encode("utf-8")) for text in texts]
        rows.append(Row(source.name, source.version, source.license, len(sizes), sum(sizes)))
    return rows


def table(rows: Sequence[Row]) -> str:
    """Rows as text, of at most 76 columns where a source has a name of at most 17 characters."""

    def line(source: str, version: str, name: str, n_documents: str, size: str) -> str:
        return f"{source:<17} {version:<8} {name:<24} {n_documents:>9} {size:>14}".rstrip()

    def number(value: int | None) -> str:
        return "-" if value is None else f"{value:,}"

    lines = [line("source", "version", "license", "documents", "bytes")]
    for row in rows:
        first, *rest = textwrap.wrap(row.license, 24, break_on_hyphens=False) or ["-"]
        lines.append(line(row.source, row.version, first, number(row.documents), number(row.bytes)))
        lines += [line("", "", part, "", "") for part in rest]
    n_documents = [row.documents for row in rows if row.documents is not None]
    sizes = [row.bytes for row in rows if row.bytes is not None]
    if len(rows) > 1 and len(n_documents) == len(sizes) == len(rows):
        lines.append(line("together", "", "", number(sum(n_documents)), number(sum(sizes))))
    return "\n".join(lines)


# --- command line -------------------------------------------------------------------------------

SHOWN_CHARS = 500


def _show(name: str, n_documents: int) -> None:
    for text in itertools.islice(documents(name), n_documents):
        hidden = len(text) - SHOWN_CHARS
        print("-" * 76)
        print(text[:SHOWN_CHARS] + (f" ... and {hidden:,} characters more" if hidden > 0 else ""))


def _list() -> None:
    print(table([_describe_download(name) for name in catalog.CATALOG]))
    print("\nand stories, docs, code, file:PATH, gutenberg:NUMBER; -: not fetched yet")


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m llm_core.corpora list | fetch NAME | show NAME [-n 3]``; returns the status."""
    parser = argparse.ArgumentParser(prog="python -m llm_core.corpora", description="The texts.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the data sets that can be fetched, with license and size")
    fetch = commands.add_parser("fetch", help="download a data set into the cache folder")
    fetch.add_argument("name")
    show = commands.add_parser("show", help="print the beginning of the first documents")
    show.add_argument("name")
    show.add_argument("-n", type=int, default=3, help="how many documents (3)")
    chosen = parser.parse_args(arguments)
    if chosen.command == "show" and chosen.n < 1:
        parser.error(f"-n {chosen.n} must be at least 1")
    try:
        if chosen.command == "list":
            _list()
        elif chosen.command == "fetch":
            if chosen.name in ("stories", *INSTALLED) or chosen.name.startswith("file:"):
                raise ValueError(f"{chosen.name} needs no fetching; try show {chosen.name}")
            print(f"in {catalog.fetch(chosen.name)[0].parent}")
        else:
            _show(chosen.name, chosen.n)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
