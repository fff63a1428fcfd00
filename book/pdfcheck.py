"""Hold the pressed PDF against what a reader may expect of it, and cut single chapters out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pypdfium2
import yaml
import zxingcpp
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DictionaryObject

from book.notebooks import ROOT, chapter_paths, markdown_cells, number, read

LEAST_INDEX_ENTRIES = 40
INDEX_ENTRY = re.compile(r"^\s*\\item .+, \\hyperpage", re.MULTILINE)


def config() -> dict:
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def page_address(path: Path) -> str:
    return f"{config()['html']['baseurl'].rstrip('/')}/chapters/{path.stem}.html"


def part(owner: DictionaryObject, key: str) -> DictionaryObject:
    """A dictionary within another, empty where there is none."""
    return owner.get(key, DictionaryObject()).get_object()


def fonts_of(owner: DictionaryObject) -> Iterator[DictionaryObject]:
    """The fonts of a page, and of the figures in it."""
    resources = part(owner, "/Resources")
    for font in part(resources, "/Font").values():
        yield font.get_object()
    for figure in (one.get_object() for one in part(resources, "/XObject").values()):
        if figure.get("/Subtype") == "/Form":
            yield from fonts_of(figure)


def fonts_not_embedded(reader: PdfReader) -> set[str]:
    """Names of fonts whose program is not in the file."""
    missing = set()
    for page in reader.pages:
        for font in fonts_of(page):
            if font["/Subtype"] == "/Type3":
                continue
            for face in descendants(font):
                descriptor = part(face, "/FontDescriptor")
                if not any(key in descriptor for key in ("/FontFile", "/FontFile2", "/FontFile3")):
                    missing.add(str(font.get("/BaseFont")))
    return missing


def descendants(font: DictionaryObject) -> list[DictionaryObject]:
    if "/DescendantFonts" in font:
        return [face.get_object() for face in font["/DescendantFonts"]]
    return [font]


def outline_pages(reader: PdfReader) -> list[tuple[int, str, int]]:
    """The outline as (level, title, page counted from 0)."""
    found = []

    def walk(items: list, level: int) -> None:
        for item in items:
            if isinstance(item, list):
                walk(item, level + 1)
            else:
                found.append((level, item.title, reader.get_destination_page_number(item)))

    walk(reader.outline, 0)
    return found


def heading(path: Path) -> str:
    """A chapter as the outline names it: ``1 Tokenization``."""
    source = next(markdown_cells(read(path))).source
    return f"{number(path)} {re.search(r'^# (.+)$', source, re.MULTILINE)[1]}"


def chapter_pages(reader: PdfReader, path: Path) -> range:
    """Pages of a chapter or an appendix, counted from 0."""
    marks, wanted = outline_pages(reader), heading(path)
    for place, (level, title, page) in enumerate(marks):
        if " ".join(title.split()) == wanted:
            later = (p for lv, _, p in marks[place + 1 :] if lv <= level)
            return range(page, next(later, len(reader.pages)))
    raise SystemExit(f"error: the PDF's outline has no chapter {wanted!r}")


def codes_on(document: pypdfium2.PdfDocument, page: int) -> list[str]:
    """What the QR codes of a page say, read from the page as a camera would see it."""
    found = set()
    for scale in (2, 3, 4, 6):  # a reader of codes is choosy about the size of a module in pixels
        image = document[page].render(scale=scale).to_pil()
        found |= {result.text for result in zxingcpp.read_barcodes(image)}
    return sorted(found)


def faults(path: Path) -> list[str]:
    reader = PdfReader(path)
    settings = config()
    found = [f"font {name} is not embedded" for name in sorted(fonts_not_embedded(reader))]
    metadata = reader.metadata or {}
    for key, wanted in (("/Title", settings["title"]), ("/Author", settings["author"])):
        if metadata.get(key) != wanted:
            found.append(f"metadata {key} is {metadata.get(key)!r}, not {wanted!r}")
    found += [f"metadata {k} is empty" for k in ("/Subject", "/Keywords") if not metadata.get(k)]
    if not reader.outline:
        found.append("the outline is empty")
    document = pypdfium2.PdfDocument(path)
    for page in range(len(reader.pages)):
        if "??" in document[page].get_textpage().get_text_range():
            found.append(f"?? on page {page + 1}")
    for notebook in chapter_paths():
        first = chapter_pages(reader, notebook)[0]
        if page_address(notebook) not in codes_on(document, first):
            found.append(f"no QR code to {page_address(notebook)} on page {first + 1}")
    return found


def index_entries(folder: Path) -> int:
    """Entries with a page in the index that makeindex wrote."""
    index = folder / "book.ind"
    return len(INDEX_ENTRY.findall(index.read_text(encoding="utf-8"))) if index.exists() else 0


def main(path: Path) -> None:
    found = faults(path)
    entries = index_entries(path.parent)
    if entries < LEAST_INDEX_ENTRIES:
        found.append(f"the index has {entries} entries; at least {LEAST_INDEX_ENTRIES} are wanted")
    if found:
        raise SystemExit("\n".join(found) + f"\nerror: {len(found)} faults in {path.name}")
    pages = len(PdfReader(path).pages)
    print(f"{pages} pages, {entries} index entries, every font embedded, every QR code read")


def cut(path: Path, chapter: str) -> Path:
    """Write the pages of one chapter to a PDF of their own."""
    (notebook,) = chapter_paths(chapter)
    reader = PdfReader(path)
    writer = PdfWriter()
    pages = chapter_pages(reader, notebook)
    writer.append(path, pages=(pages.start, pages.stop), import_outline=False)
    target = path.with_name(f"{notebook.stem}.pdf")
    writer.write(target)
    return target
