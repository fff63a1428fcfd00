"""``{colophon}``: what the build knows of itself, as two tables; nothing in them is typed."""

from __future__ import annotations

import subprocess
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from .chapters import duration, measured

LIBRARIES = ("torch", "numpy", "numba", "tiktoken", "matplotlib")


def git(root: Path, *arguments: str) -> str:
    """A git command's output; empty outside a checkout (a source archive, say)."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def commit_date(root: Path) -> str:
    return git(root, "log", "-1", "--format=%cd", "--date=format:%B %Y") or "unreleased"


def commit(root: Path) -> str:
    name = git(root, "rev-parse", "--short=12", "HEAD") or "no checkout"
    return name + (" with uncommitted changes" if git(root, "status", "--porcelain") else "")


def press_versions() -> str:
    from importlib.metadata import version

    names = ("jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme")
    return ", ".join(f"{name} {version(name)}" for name in names)


def build_rows(root: Path, version: str, repository: str, pages: str) -> list[tuple[str, str]]:
    return [
        ("Source", f"<{repository}>"),
        ("On the web", f"<{pages}>"),
        ("Edition", f"{version}, {commit_date(root)}"),
        ("Commit", commit(root)),
        ("Typeset with", press_versions() + "; LuaLaTeX for the printed book"),
        ("Typefaces", "TeX Gyre Pagella, Lato, JetBrains Mono; DejaVu and Droid where they stop"),
    ]


def chapter_rows(root: Path) -> list[tuple[str, ...]]:
    rows = []
    for path in sorted((root / "chapters").glob("*.ipynb")):
        record = measured(path)
        if record:
            memory = f"{record['peak_bytes'] / 2**20:,.0f} MiB"
            rows.append((path.stem, record["profile"], duration(record["seconds"]), memory))
    return rows


def machine_rows(root: Path) -> list[tuple[str, str]]:
    """The machines and versions that executed the chapters, each distinct one once."""
    rows: list[tuple[str, str]] = []
    for path in sorted((root / "chapters").glob("*.ipynb")):
        record = measured(path)
        if not record:
            continue
        machine, versions = record["machine"], record["versions"]
        libraries = ", ".join(f"{n} {versions[n]}" for n in LIBRARIES if n in versions)
        text = (
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
            f"{machine['os']}; Python {versions['python']}, {libraries}"
        )
        if ("Executed on", text) not in rows:
            rows.append(("Executed on", text))
    return rows


class Table(SphinxDirective):
    """A directive without content that writes tables in MyST."""

    has_content = False

    def table(self, header: list[str], widths: str, rows: list[tuple[str, ...]]) -> list[str]:
        lines = [
            "```{list-table}",
            ":header-rows: 1",
            f":widths: {widths}",
            ":align: left",
            ":class: ragged",
            "",
        ]
        for row in [header, *rows]:
            lines += [("* - " if i == 0 else "  - ") + cell for i, cell in enumerate(row)]
        return [*lines, "```", ""]

    def parse_content(self, lines: list[str]) -> list[nodes.Node]:
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, self.name), self.content_offset, holder)
        return holder.children


class Colophon(Table):
    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        repository = self.config.html_theme_options["repository_url"]
        facts = build_rows(root, self.config.release, repository, self.config.html_baseurl)
        facts += machine_rows(root)
        lines = self.table(["Item", "This copy"], "22 78", facts)
        lines += self.table(["Chapter", "Profile", "Time", "Peak memory"], "40 16 22 22",
                            chapter_rows(root))  # fmt: skip
        return self.parse_content(lines)


def setup(app: Sphinx) -> None:
    app.add_directive("colophon", Colophon)
