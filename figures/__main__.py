"""Render the figures that need no data: ``python -m figures [NAME ...]``."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import figures
from figures import style

HERE = Path(__file__).parent
RENDERED = HERE / "rendered"
NOT_FAMILIES = {"style", "__main__"}


def load_families(names: list[str]) -> None:
    """Import the families of the named figures, or all, so that their figures register."""
    for module in pkgutil.iter_modules(figures.__path__):
        prefix = module.name.replace("_", "-") + "-"
        wanted = not names or any(name.startswith(prefix) for name in names)
        if wanted and module.name not in NOT_FAMILIES:
            importlib.import_module(f"figures.{module.name}")


def render(name: str) -> None:
    """Write ``rendered/NAME.svg`` and ``.pdf``; the same bytes each time."""
    for suffix in ("svg", "pdf"):
        fig = style.REGISTRY[name]()
        fig.savefig(RENDERED / f"{name}.{suffix}", metadata=style.FILE_METADATA[suffix])


def render_tikz(source: Path) -> None:
    """Compile one TikZ drawing with LuaLaTeX; the SVG comes from the PDF."""
    name = source.stem
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(source, folder)
        shutil.copy(HERE / "tikz" / "tikzstyle.sty", folder)
        values = style.TIKZ_VALUES.get(name, dict)()
        lines = [f"\\newcommand\\{key}{{{value}}}\n" for key, value in values.items()]
        Path(folder, "values.sty").write_text("".join(lines), encoding="utf-8")
        command = ["lualatex", "-interaction=nonstopmode", "-halt-on-error", source.name]
        epoch = {**os.environ, "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
        done = subprocess.run(command, cwd=folder, env=epoch, capture_output=True, text=True)
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if line.startswith(("!", "l."))]
            raise SystemExit(f"error: {source.name}: " + " ".join(errors[:3]))
        pdf = Path(folder, f"{name}.pdf")
        subprocess.run(["pdftocairo", "-svg", pdf, RENDERED / f"{name}.svg"], check=True)
        shutil.copy(pdf, RENDERED / f"{name}.pdf")


def main(names: list[str]) -> None:
    load_families(names)
    RENDERED.mkdir(exist_ok=True)
    drawings = {p.stem: p for p in sorted((HERE / "tikz").glob("*.tex"))}
    static = {n for n, f in style.REGISTRY.items() if style.is_static(f)}
    known = static | drawings.keys()
    if unknown := set(names) - known:
        raise SystemExit(f"error: no figure {sorted(unknown)}; there are {sorted(known)}")
    for name in sorted(names or known):
        print(name)
        if name in static:
            render(name)
        else:
            render_tikz(drawings[name])


if __name__ == "__main__":
    main(sys.argv[1:])
