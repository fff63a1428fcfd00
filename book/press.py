"""Press the book: web pages and EPUB through Sphinx, printed pages through LuaLaTeX; errors are
fatal.

LaTeX's log is read afterward: an error, a character without a glyph, an undefined reference or a
box that sticks out by more than 5 pt stops the build and names the chapter it comes from.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from bisect import bisect_right
from pathlib import Path

from book import epubcheck, pdfcheck
from book.notebooks import ROOT

BUILD = ROOT / "_build"
PDF = BUILD / "pdf" / "ground-truth.pdf"
EPUB = BUILD / "epub" / "ground-truth.epub"
REFERENCES = BUILD / "pdf" / "references"  # page numbers of the last press
REMEMBERED = [f"book.{end}" for end in ("aux", "toc", "out", "idx", "ind", "fdb_latexmk")]
OVERFULL_POINTS = 5.0

ERROR = re.compile(r"^! (.+)$", re.MULTILINE)
ERROR_LINE = re.compile(r"^l\.(\d+)", re.MULTILINE)
OVERFULL = re.compile(r"^Overfull \\[hv]box \((\d+\.?\d*)pt too \w+\) (.+)$", re.MULTILINE)
AT_LINE = re.compile(r"at lines? (\d+)")
UNDEFINED = re.compile(
    r"LaTeX Warning: (?:Reference|Citation|Hyper reference) `([^']+)'.*undefined"
)
MISSING = re.compile(r"Missing character: There is no (\S+) (?:\((U\+\w+)\) )?in font ([^!\n]+)")
HEADING = re.compile(r"\\chapter\{(.+?)\}\\label|\\part\{(.+?)\}")


def commit_time() -> str:
    """Seconds since the epoch of the last commit: the same commit gives the same PDF."""
    done = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "0"


def sphinx(builder: str) -> None:
    """Run Jupyter Book; every warning is an error, and all pages are read anew each time."""
    command = [str(Path(sys.executable).parent / "jupyter-book"), "build", str(ROOT), "--all", "-W"]
    command += ["--keep-going", "-q"]
    if builder in ("html", "latex"):
        command += ["--builder", builder]
    else:
        command += ["--builder", "custom", "--custom-builder", builder]
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": commit_time(),
        "PYTHONWARNINGS": "ignore",
        "PYTHONUTF8": "1",  # whatever the locale
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", errors="replace"
    )
    output = done.stdout + done.stderr
    problems = [line for line in output.splitlines() if "WARNING" in line or "ERROR" in line]
    if done.returncode or problems:
        shown = "\n".join(problems).replace(f"{ROOT}{os.sep}", "") or output[-3000:]
        raise SystemExit(f"{shown}\nerror: the {builder} build has {len(problems)} warnings")


def html() -> None:
    sphinx("html")
    print("HTML: _build/html/index.html")


class Log:
    """LaTeX's log beside the file it speaks of."""

    def __init__(self, folder: Path) -> None:
        self.text = (folder / "book.log").read_text(encoding="utf-8", errors="replace")
        self.source = (folder / "book.tex").read_text(encoding="utf-8").splitlines()
        self.starts, self.names = [0], ["front pages"]
        for number, line in enumerate(self.source, start=1):
            found = HEADING.search(line)
            if found:
                self.starts.append(number)
                self.names.append(found.group(1) or found.group(2))

    def chapter(self, line: int) -> str:
        return self.names[bisect_right(self.starts, line) - 1]

    def chapter_with(self, text: str) -> str:
        lines = (n for n, line in enumerate(self.source, start=1) if text in line)
        return self.chapter(next(lines, 0))

    def error(self) -> str | None:
        found = ERROR.search(self.text)
        if not found:
            return None
        line = ERROR_LINE.search(self.text, found.end())
        where = f" in chapter {self.chapter(int(line.group(1)))!r}" if line else ""
        return f"LaTeX{where}: {found.group(1)}"

    def problems(self) -> list[str]:
        found = []
        for character, code, font in MISSING.findall(self.text):
            chapter = self.chapter_with(character)
            found.append(f"no glyph for {character} {code} in {font.strip()} (chapter {chapter!r})")
        for label in UNDEFINED.findall(self.text):
            found.append(f"undefined {label} (chapter {self.chapter_with(label)!r})")
        for points, place in OVERFULL.findall(self.text):
            if float(points) > OVERFULL_POINTS:
                line = AT_LINE.search(place)
                chapter = self.chapter(int(line.group(1))) if line else "unknown"
                excerpt = self.source[int(line.group(1)) - 1][:60] if line else ""
                found.append(f"{points} pt too wide (chapter {chapter!r}) {place}: {excerpt}")
        return sorted(set(found))


def latexmk(folder: Path) -> None:
    engine = ["latexmk", "-pdflua", "-silent", "-interaction=nonstopmode", "-halt-on-error"]
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": commit_time(),
        "FORCE_SOURCE_DATE": "1",
        "max_print_line": "1000",
    }
    if not os.access(Path("~").expanduser(), os.W_OK):  # LuaTeX keeps the fonts it has read there
        environment["TEXMFVAR"] = str(BUILD / "texmf-var")
    command = [*engine, "book.tex"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if not (folder / "book.log").exists():
        raise SystemExit(f"error: latexmk did not start:\n{done.stdout}{done.stderr}")
    log = Log(folder)
    error = log.error()
    if done.returncode or error:
        raise SystemExit(f"error: {error or done.stdout[-2000:] + done.stderr[-2000:]}")
    problems = log.problems()
    if problems:
        raise SystemExit("\n".join(problems) + f"\nerror: {len(problems)} faults in the pages")


def pdf() -> None:
    """Of an earlier press only the page numbers are taken over, as a first guess: latexmk goes on
    until they hold, which takes one pass or two instead of three.
    """
    folder = BUILD / "latex"
    shutil.rmtree(folder, ignore_errors=True)
    sphinx("latex")
    for name in REMEMBERED:
        if (REFERENCES / name).exists():
            shutil.copyfile(REFERENCES / name, folder / name)
    shutil.rmtree(REFERENCES, ignore_errors=True)  # should this press fail, the next starts afresh
    latexmk(folder)
    pressed = folder / "book.pdf"
    pdfcheck.main(pressed)
    part = REFERENCES.with_name("references.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in REMEMBERED:
        shutil.copyfile(folder / name, part / name)
    part.rename(REFERENCES)  # a press that is cut leaves all of them or none
    shutil.copyfile(pressed, PDF)
    print(f"PDF: {PDF.relative_to(ROOT)}")


def epub() -> None:
    shutil.rmtree(EPUB.parent, ignore_errors=True)
    sphinx("epub")
    epubcheck.main(EPUB)
    print(f"EPUB: {EPUB.relative_to(ROOT)}")


def cut(chapter: str) -> None:
    if not PDF.exists():
        raise SystemExit("error: the book is not pressed yet; run make pdf")
    print(f"PDF: {pdfcheck.cut(PDF, chapter).relative_to(ROOT)}")
