"""Re-execute a chapter and compare what it prints with what is committed, difference by difference.

Words and whole numbers must be equal; numbers with a decimal point may differ by the stated
relative tolerance, since another processor sums in another order. Where something differs, what
the two runs have not in common is named, too.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from nbformat import NotebookNode

from book import execute, notebooks

NOISE = 1e-6  # with an exponent, what is below is rounding error, and another on each processor
NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])", re.IGNORECASE)


def split(line: str) -> tuple[str, list[str]]:
    """The words of a line with runs of spaces folded, and its numbers as they stand."""
    words = " ".join(NUMBER.sub("#", line).split())
    return words, NUMBER.findall(line)


def last_digit(number: str) -> float:
    """What one unit in its last digit is worth: 0.01 in 3.14, 1e-06 in 1.5e-05."""
    mantissa, _, exponent = number.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def close(old: str, new: str, tolerance: float) -> bool:
    if old == new:
        return True
    if "." not in old + new and "e" not in (old + new).lower():
        return False
    a, b = (float(number.replace(",", "")) for number in (old, new))
    if all("e" in number.lower() for number in (old, new)) and max(abs(a), abs(b)) < NOISE:
        return True
    return math.isclose(a, b, rel_tol=tolerance, abs_tol=1.5 * last_digit(old))


def same(old: str, new: str, tolerance: float) -> bool:
    old_words, old_numbers = split(old)
    new_words, new_numbers = split(new)
    if old_words != new_words or len(old_numbers) != len(new_numbers):
        return False
    return all(close(a, b, tolerance) for a, b in zip(old_numbers, new_numbers, strict=True))


def glued(cell: NotebookNode) -> dict[str, str]:
    """Values that a cell hands to the prose, by name."""
    values = {}
    for output in cell.outputs:
        name = output.get("metadata", {}).get("scrapbook", {}).get("name")
        if name:
            data = output["data"]
            mimes = sorted(m for m in data if m.endswith(("text/plain", "text/markdown")))
            values[name] = data[mimes[0]]  # Markdown before the name of its object
    return values


def differences(old: NotebookNode, new: NotebookNode, tolerance: float) -> list[str]:
    """One line for each printed line and each glued value that is not reproduced."""
    found = []
    pairs = zip(notebooks.code_cells(old), notebooks.code_cells(new), strict=True)
    for before, after in pairs:
        old_lines = notebooks.printed(before).splitlines()
        new_lines = notebooks.printed(after).splitlines()
        if len(old_lines) != len(new_lines):
            found.append(f"cell {before.id}: {len(old_lines)} lines before, {len(new_lines)} now")
        for a, b in zip(old_lines, new_lines, strict=False):
            if not same(a, b, tolerance):
                found.append(f"cell {before.id}:\n  committed {a}\n  now       {b}")
        old_glue, new_glue = glued(before), glued(after)
        for name in sorted(old_glue.keys() | new_glue.keys()):
            a, b = old_glue.get(name, "(absent)"), new_glue.get(name, "(absent)")
            if not same(a.strip("'"), b.strip("'"), tolerance):
                found.append(f"glued {name}: committed {a}, now {b}")
    return found


def circumstances(notebook: NotebookNode) -> dict[str, str]:
    """What a run's numbers may hang on; nothing where the record is silent."""
    record = notebook.metadata[notebooks.RECORD]
    machine = record.get("machine", {})
    known = {"processor": machine.get("cpu"), "trains in": record.get("trains_in")}
    return {what: is_so for what, is_so in known.items() if is_so} | record.get("versions", {})


def changed(old: NotebookNode, new: NotebookNode) -> list[str]:
    """One line for each circumstance that both runs name and that differs."""
    then, now = circumstances(old), circumstances(new)
    found = [
        f"{what}: committed {then[what]}, now {now[what]}"
        for what in then
        if what in now and then[what] != now[what]
    ]
    dtypes = then.get("trains in"), now.get("trains in")
    if all(dtypes) and dtypes[0] != dtypes[1] and execute.asked_for([new]):
        found.append(
            f"a model that chapters share was trained in {dtypes[0]} then and in {dtypes[1]} now: "
            "another model, whose numbers are its own"
        )
    return found


def verify(path: Path, tolerance: float) -> tuple[list[str], list[str]]:
    """What is not reproduced, and which circumstances have changed."""
    committed = notebooks.read(path)
    record = committed.metadata.get(notebooks.RECORD)
    if record is None:
        raise SystemExit(f"error: {path.name} was never executed; run make execute")
    execute.prepare([path], record["profile"])
    now = execute.execute(path, record["profile"])
    return differences(committed, now, tolerance), changed(committed, now)


def main(chapter: str | None, tolerance: float) -> None:
    total = 0
    for path in notebooks.chapter_paths(chapter):
        found, other = verify(path, tolerance)
        total += len(found)
        for difference in found:
            print(f"{path.stem} {difference}")
        verdict = "reproduced" if not found else f"{len(found)} differences"
        print(f"{path.stem}: {verdict} (relative tolerance {tolerance:g})")
        for circumstance in other if found else ():
            print(f"  {circumstance}")
    if total:
        raise SystemExit(1)
