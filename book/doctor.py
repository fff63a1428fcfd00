"""What this machine lacks for each of the book's commands, and the line that gets it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

# The doctor imports nothing of the book: it must run where nothing is installed yet.
ROOT = Path(__file__).resolve().parent.parent
FONTS = ("TeX Gyre Pagella", "Lato", "JetBrains Mono", "DejaVu Sans Mono")
GIBIBYTES_WANTED = 6


def install_line(debian: str, mac: str) -> str:
    if platform.system() == "Darwin":
        return f"brew install {mac}"
    if shutil.which("apt-get"):
        return f"sudo apt-get install --no-install-recommends {debian}"
    return f"your system's packages for: {debian}"


def pinned(name: str) -> str | None:
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line.startswith(f"{name}=="):
            return line.partition("==")[2]
    return None


def installed_fonts() -> str:
    if not shutil.which("fc-list"):
        return ""
    return subprocess.run(["fc-list", ":", "family"], capture_output=True, text=True).stdout


def library_findings() -> list[tuple[str, bool, str]]:
    found = []
    for name in ("torch", "numba", "tiktoken", "matplotlib", "nbmake", "jupyterlab"):
        try:
            have = version(name).split("+")[0]
        except PackageNotFoundError:
            have = ""
        want = pinned(name)
        found.append((f"{name} {want}", have == want, "make setup"))
    return found


def findings() -> list[tuple[str, bool, str]]:
    """(what, there or not, how to get it) for every need."""
    python = sys.version_info
    tex = "texlive-luatex texlive-latex-extra latexmk"
    found = [
        ("Python 3.10 to 3.13", (3, 10) <= python[:2] <= (3, 13), "pyenv install 3.11"),
        ("git", bool(shutil.which("git")), install_line("git", "git")),
        ("the press (jupyter-book)", find_spec("jupyter_book") is not None, "make pdf"),
        *library_findings(),
        ("LuaLaTeX", bool(shutil.which("lualatex")), install_line(tex, "--cask mactex-no-gui")),
        ("latexmk", bool(shutil.which("latexmk")), install_line(tex, "--cask mactex-no-gui")),
        ("pdftocairo", bool(shutil.which("pdftocairo")), install_line("poppler-utils", "poppler")),
        ("Chromium (tests of the web pages)", bool(shutil.which("chromium")),
         install_line("chromium", "--cask chromium")),
    ]  # fmt: skip
    families = installed_fonts()
    packages = "fonts-texgyre fonts-texgyre-math fonts-lato fonts-jetbrains-mono"
    packages += " fonts-dejavu-core fonts-symbola fonts-droid-fallback"
    casks = "--cask font-lato font-jetbrains-mono font-dejavu"
    found += [(f"font {name}", name in families, install_line(packages, casks)) for name in FONTS]
    free = shutil.disk_usage(ROOT).free / 2**30
    found.append((f"{GIBIBYTES_WANTED} GiB of disk", free > GIBIBYTES_WANTED, "free some space"))
    return found


def main() -> None:
    rows = findings()
    for what, there, remedy in rows:
        print(f"{'ok     ' if there else 'MISSING'} {what}" + ("" if there else f": {remedy}"))
    missing = sum(not there for _, there, _ in rows)
    if missing:
        raise SystemExit(f"{missing} missing; `make pdf` and `make test` install what they need "
                         "where they may")  # fmt: skip
    print("nothing is missing")
