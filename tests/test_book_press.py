"""The press: faults in LaTeX's log are named with their chapter; codes, labels, the PDF itself."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
import segno
import zxingcpp
from docutils import nodes
from docutils.utils import new_document
from nbformat.v4 import new_markdown_cell, new_notebook
from PIL import Image
from pybtex.database import Entry, Person

from book import doctor, pdfcheck, press
from book.notebooks import ROOT, chapter_paths, markdown_cells, read, write

sys.path.insert(0, str(ROOT / "book" / "ext"))
from groundtruth import chapters, citations, colophon, latex, memory, quotes, solutions

SOURCE = r"""\chapter{Tokenization}\label{one}
text
a wide line
\chapter{Embeddings}\label{two}
more ☃ text
"""


def log_with(folder: Path, text: str) -> press.Log:
    (folder / "book.tex").write_text(SOURCE, encoding="utf-8")
    (folder / "book.log").write_text(text, encoding="utf-8")
    return press.Log(folder)


def test_a_latex_error_is_named_with_its_chapter(tmp_path):
    log = log_with(tmp_path, "! Undefined control sequence.\nl.5 \\foo\n")
    assert log.error() == "LaTeX in chapter 'Embeddings': Undefined control sequence."


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Overfull \\hbox (12.5pt too wide) in paragraph at lines 3--4", "'Tokenization'"),
        ("Missing character: There is no ☃ (U+2603) in font Pagella!", "no glyph for ☃"),
        ("LaTeX Warning: Reference `fig-x' on page 3 undefined on input line 3.", "fig-x"),
    ],
)
def test_each_fault_of_the_pages_is_found(tmp_path, line, words):
    (found,) = log_with(tmp_path, line + "\n").problems()
    assert words in found


def test_a_box_that_sticks_out_by_less_than_five_points_passes(tmp_path):
    text = "Overfull \\hbox (4.9pt too wide) in paragraph at lines 3--4\n"
    assert log_with(tmp_path, text).problems() == []


def test_the_code_of_each_chapter_decodes_to_its_web_page():
    for path in chapter_paths():
        picture = io.BytesIO()
        address = pdfcheck.page_address(path)
        segno.make(address, error="l").save(picture, kind="png", scale=8)
        found = zxingcpp.read_barcodes(Image.open(picture).convert("L"))
        assert [code.text for code in found] == [address]


def test_author_year_labels_tell_same_year_works_apart():
    def entry(title, *names):
        persons = {"author": [Person(name) for name in names]}
        return Entry("article", fields={"title": title, "year": "2017"}, persons=persons)

    works = [
        entry("A", "Press, Ofir", "Wolf, Lior"),
        entry("B", "Vaswani, A.", "Shazeer, N.", "Parmar, N."),
        entry("C", "Vaswani, A.", "Shazeer, N.", "Parmar, N."),
    ]
    labels = list(citations.AuthorYearLabels().format_labels(works))
    assert labels == ["Press and Wolf, 2017", "Vaswani et al., 2017a", "Vaswani et al., 2017b"]


def test_the_room_that_a_box_asks_for_grows_with_its_words_and_its_code():
    box = nodes.container("", nodes.paragraph(text="word " * 60))
    words = latex.box_lines(box)
    box += nodes.literal_block("", "a = 1\nb = 2\nc = 3")
    assert latex.box_lines(box) == words + 4
    assert words > latex.box_lines(nodes.container("", nodes.paragraph(text="word")))


@pytest.mark.parametrize(
    ("line", "depth", "wrapped"),
    [
        ("x" * 78, 0, False),
        ("x" * 79, 0, True),
        ("\u8a9e" * 40, 0, True),  # forty characters of full width take eighty columns
        ("x" * 70, 1, False),
        ("x" * 71, 1, True),
        ("x" * 62, 2, False),
        ("x" * 63, 2, True),
    ],
)
def test_lines_are_wrapped_only_where_one_of_a_listing_is_too_long(line, depth, wrapped):
    document = new_document("page")
    listing = nodes.literal_block("", f"short\n{line}\nshort")
    node = listing
    for _ in range(depth):
        node = nodes.note("", node)
    document += node
    latex.WrapLongLines(document).run()
    found = [n.astext() for n in document.findall(nodes.raw)]
    assert any("verbatimwrapslines=true" in text for text in found) is wrapped
    assert listing.parent.children[len(found) // 2] is listing


def test_a_document_is_read_once_for_all_references_to_its_numbers():
    class Environment:
        srcdir = "here"
        reads = 0

        def get_doctree(self, name):
            self.reads += 1
            return name.upper()

    environment = Environment()
    remembered = memory.Remembered(environment)
    assert [remembered.get_doctree(name) for name in "aba"] == ["A", "B", "A"]
    assert environment.reads == 2 and remembered.srcdir == "here"


def test_page_numbers_of_the_last_press_are_a_first_guess_for_the_next(tmp_path, monkeypatch):
    build, guesses = tmp_path / "_build", []
    for name, place in (("BUILD", build), ("PDF", build / "pdf" / "a.pdf")):
        monkeypatch.setattr(press, name, place)
    monkeypatch.setattr(press, "ROOT", tmp_path)
    monkeypatch.setattr(press, "REFERENCES", build / "pdf" / "references")
    monkeypatch.setattr(press, "sphinx", lambda builder: (build / builder).mkdir(parents=True))
    monkeypatch.setattr(pdfcheck, "main", lambda path: None)

    def pass_of_latex(folder, fails=False):
        guesses.append(sorted(path.name for path in folder.iterdir()))
        for name in (*press.REMEMBERED, "book.pdf", "book.log"):
            (folder / name).write_text("new")
        if fails:
            raise SystemExit("error: on purpose")

    monkeypatch.setattr(press, "latexmk", pass_of_latex)
    press.pdf()
    press.pdf()
    assert guesses == [[], sorted(press.REMEMBERED)] and press.PDF.read_text() == "new"
    monkeypatch.setattr(press, "latexmk", lambda folder: pass_of_latex(folder, fails=True))
    with pytest.raises(SystemExit, match="on purpose"):
        press.pdf()
    monkeypatch.setattr(press, "latexmk", pass_of_latex)
    press.pdf()
    assert guesses[-1] == [], "a press that failed leaves no guess"


def test_a_chapter_cannot_be_cut_from_a_book_that_is_not_pressed(tmp_path, monkeypatch):
    monkeypatch.setattr(press, "PDF", tmp_path / "none.pdf")
    with pytest.raises(SystemExit, match="run make pdf"):
        press.cut("01")


def test_a_page_of_words_quotes_what_a_chapter_glued():
    values = {"n-words": "118", "poem": "> one\n>\n> two"}
    page = "Of {glue:text}`n-words` words:\n\n```{glue:md} poem\n:format: myst\n```\n"
    assert quotes.fill_in(page, values) == "Of 118 words:\n\n> one\n>\n> two\n"
    assert quotes.fill_in("{glue:text}`missing`", values) == "{glue:text}`missing`"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"application/papermill.record/text/plain": "'it\\'s'"}, "it's"),
        ({"application/papermill.record/text/plain": "3.5"}, "3.5"),
        ({"text/plain": "<Markdown>", "text/markdown": ["a", "b"]}, "ab"),
    ],
)
def test_a_glued_value_is_read_as_its_text(data, text):
    assert quotes.value(data) == text


def test_an_appendix_is_found_in_the_outline_by_letter_and_title():
    names = {path.stem: pdfcheck.heading(path) for path in chapter_paths()}
    assert names["01-tokenization"] == "1 Tokenization"
    assert names["a1-the-world"] == "A The world"


def test_durations_read_as_a_reader_would_say_them():
    assert [chapters.duration(s) for s in (0.2, 59, 61, 125)] == [
        "1 s", "59 s", "1 min 01 s", "2 min 05 s",
    ]  # fmt: skip


def test_the_index_of_solutions_has_every_exercise_of_every_chapter():
    n_found = 0
    for path in chapter_paths():
        source = "\n".join(cell.source for cell in markdown_cells(read(path)))
        chapter, found = solutions.exercises(path)
        assert f"({chapter})=\n# " in source
        assert len(found) == source.count("{exercise-start}")
        for one in found:
            assert f":label: {one.label}\n" in source
            assert one.solution is None or f"{{solution-start}} {one.label}\n" in source
            assert any(one.title in line for line in solutions.lines(path))
        n_found += len(found)
    assert n_found > 30


def test_an_exercise_without_a_solution_is_said_to_be_open(tmp_path):
    text = "(ch-x)=\n# X\n\n```{exercise-start} Try\n:label: ex-x\n```\n"
    path = tmp_path / "01-x.ipynb"
    write(new_notebook(cells=[new_markdown_cell(text)]), path)
    assert solutions.exercises(path) == ("ch-x", [solutions.Exercise("Try", "ex-x", None)])
    assert "open" in solutions.lines(path)[2]
    write(new_notebook(cells=[new_markdown_cell("(ch-x)=\n# X\n")]), path)
    assert solutions.lines(path) == []


def test_the_colophon_names_each_executed_chapter_with_time_and_memory():
    rows = {row[0]: row for row in colophon.chapter_rows(ROOT)}
    for path in chapter_paths():
        assert "MiB" in rows[path.stem][3]


def test_the_doctor_gives_a_remedy_for_everything_it_looks_at():
    for what, there, remedy in doctor.findings():
        assert isinstance(there, bool) and what and remedy


def test_the_pressed_book_has_no_fault():
    newest = max(path.stat().st_mtime for path in chapter_paths())
    if not press.PDF.exists() or press.PDF.stat().st_mtime < newest:
        pytest.skip("no PDF of these chapters yet; make pdf presses one, and checks it likewise")
    assert pdfcheck.faults(press.PDF) == []
