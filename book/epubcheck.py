"""What must hold of the EPUB, looked at in the file itself: pages, pictures, links.

Debian's epubcheck knows the whole standard; where it is installed, ``make epub`` runs it as well.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from urllib.parse import unquote
from zipfile import ZIP_STORED, ZipFile

TARGET = re.compile(r'\s(?:href|src)="([^"]+)"')
ID = re.compile(r'\sid="([^"]+)"')
PICTURE = re.compile(r"<img\b[^>]*>")


def problems(path: Path) -> list[str]:
    """A line for each fault: a script, a picture without words, a link or picture to nowhere."""
    with ZipFile(path) as book:
        names = book.namelist()
        pages = {name: book.read(name).decode() for name in names if name.endswith(".xhtml")}
        first = book.infolist()[0]
    found = []
    if (first.filename, first.compress_type) != ("mimetype", ZIP_STORED):
        found.append(f"{first.filename} stands first; it must be mimetype, not compressed")
    ids = {name: {unescape(one) for one in ID.findall(text)} for name, text in pages.items()}
    for name, text in pages.items():
        if "<script" in text:
            found.append(f"{name}: has a script")
        found += [f"{name}: no alt in {one}" for one in PICTURE.findall(text) if "alt=" not in one]
        for target in TARGET.findall(text):
            if re.match(r"[a-z]+:", target):
                continue
            file, _, anchor = unquote(unescape(target)).partition("#")
            beside = posixpath.join(posixpath.dirname(name), file)
            at = posixpath.normpath(beside) if file else name
            if at not in names or (anchor and anchor not in ids.get(at, {anchor})):
                found.append(f"{name}: {target} leads nowhere")
    return found


def standard(path: Path) -> str | None:
    """What epubcheck finds, empty for nothing; None where it is not installed."""
    checker = shutil.which("epubcheck")
    if checker is None:
        return None
    jar = Path(checker).resolve()  # Debian links the command to the archive itself
    command = ["java", "-jar", str(jar)] if jar.suffix == ".jar" else [checker]
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run([*command, "--quiet", str(path)], capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    return f"{done.stdout}{done.stderr}".strip() or f"epubcheck: status {done.returncode}"


def main(path: Path) -> None:
    found = problems(path)
    if found:
        raise SystemExit("\n".join(found) + f"\nerror: {len(found)} faults in the EPUB")
    by_standard = standard(path)
    if by_standard:
        raise SystemExit(f"{by_standard}\nerror: epubcheck found faults")
    print("epubcheck:", "not installed" if by_standard is None else "no fault")
