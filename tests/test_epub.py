"""The EPUB's parts: formulas without scripts, and the check that finds what is broken in a file."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest

from book import epubcheck
from book.ext.groundtruth import epub

PAGE = (
    '<html><body id="top"><a href="b.xhtml#there">b</a><img src="i/a.svg" alt="a"/></body></html>'
)
OTHER = '<html><body id="there"><a href="https://example.org/none">away</a></body></html>'


def bound(path: Path, **changes: str) -> Path:
    """A small EPUB of two pages and a picture; ``changes`` replace files, empty ones drop them."""
    files = {"a.xhtml": PAGE, "b.xhtml": OTHER, "i/a.svg": "<svg/>"}
    files |= {name.replace("_", "."): text for name, text in changes.items()}
    with ZipFile(path, "w", ZIP_DEFLATED) as book:
        book.writestr("mimetype", "application/epub+zip", ZIP_STORED)
        for name, text in files.items():
            if text:
                book.writestr(name, text)
    return path


@pytest.mark.parametrize(
    "tex",
    [
        r"q_\tau(c \mid s) = \mathrm{softmax}\bigl( z / \tau \bigr)_c ,",
        r"W \leftarrow W - \eta \lambda W - \eta \cdot 0.2 \sqrt{\max(a, b)}",
        r"a &= b \\ c &= d",
        r"\begin{aligned} a &= b \\ c &= d \end{aligned}",
    ],
)
def test_formulas_are_whole_mathml(tex: str) -> None:
    for display in ("inline", "block"):
        tree = ElementTree.fromstring(epub.formula(tex, display))
        assert tree.tag.endswith("math")
        words = "".join(tree.itertext())
        assert "\\" not in words and "begin" not in words
        if "&" in tex:
            assert len([one for one in tree.iter() if one.tag.endswith("mtr")]) == 2


def test_names_of_functions_have_room() -> None:
    assert epub.formula(r"2 \ln V").count("<mspace") == 2
    assert epub.formula(r"\log_2 n").count("<msub><mi>log</mi><mn>2</mn></msub>") == 1
    assert epub.formula(r"\exp(x) + y").count("<mspace") == 0


def test_pictures_lose_what_an_epub_may_not_have() -> None:
    text = (
        '<!DOCTYPE svg PUBLIC "a" "b">\n<svg><path id="space" transform="scale(1)"/><path d="M0"/>'
    )
    clean = epub.SPACE_GLYPH.sub('<path d=""', epub.DOCTYPE.sub("", text))
    assert clean == '<svg><path d="" id="space" transform="scale(1)"/><path d="M0"/>'


def test_a_sound_file_passes(tmp_path: Path) -> None:
    assert epubcheck.problems(bound(tmp_path / "a.epub")) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"b_xhtml": "<html/>"}, "a.xhtml: b.xhtml#there leads nowhere"),
        ({"b_xhtml": ""}, "a.xhtml: b.xhtml#there leads nowhere"),
        ({"b_xhtml": OTHER + "<script>1</script>"}, "b.xhtml: has a script"),
        ({"b_xhtml": OTHER + '<img src="i/a.svg"/>'}, "b.xhtml: no alt"),
        ({"b_xhtml": OTHER + '<img alt="" src="i/b.svg"/>'}, "b.xhtml: i/b.svg leads nowhere"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, changes: dict[str, str], fault: str) -> None:
    found = epubcheck.problems(bound(tmp_path / "a.epub", **changes))
    assert len(found) == 1 and found[0].startswith(fault)


def test_the_type_must_come_first(tmp_path: Path) -> None:
    path = tmp_path / "a.epub"
    with ZipFile(path, "w") as book:
        book.writestr("a.xhtml", "<html/>")
    assert "must be mimetype" in epubcheck.problems(path)[0]
    with pytest.raises(SystemExit, match="1 faults in the EPUB"):
        epubcheck.main(path)
