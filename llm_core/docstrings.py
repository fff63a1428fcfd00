"""The documentation inside installed packages, read without importing or running any of it.

Every reader of the book has some ten megabytes of English prose on disk already: the docstrings of
the pinned packages. ``extract`` parses each source file with ``ast`` and collects the docstrings of
modules, classes and functions, and the texts that numpy and torch hand to ``add_docstr`` and its
kin for what is written in C. Chapter "Tokenization" trains on the result; ``corpora`` serves it.

Nothing here depends on the platform, on the order in which a folder lists its files or on what a
Python version accepts, cleans or prints, so the same package version gives the same bytes. A file
in newer syntax than that of the oldest Python the book supports is skipped everywhere, and counted.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import string
import sysconfig
import tokenize
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path

from llm_core import runtime

OLDEST_PYTHON = (3, 10)
DEFAULT_SOURCES = ("numpy", "matplotlib", "torch")
STDLIB = "stdlib"

# Folders that hold no documentation of the package itself.
SKIPPED_FOLDERS = frozenset({"test", "tests", "site-packages", "dist-packages", "__pycache__"})

# Functions that attach a text to an object written in C, without their leading underscore.
ATTACHERS = frozenset(
    {"add_docstr", "add_docstr_all", "add_docstring", "add_newdoc", "add_newdoc_for_scalar_type"}
)


@dataclass(frozen=True)
class Source:
    """One installed package (or ``stdlib``) as a source of text."""

    name: str
    version: str
    license: str
    folder: Path


@dataclass(frozen=True)
class Docstring:
    """One docstring: ``title`` is the qualified name, a function's with its parameters."""

    title: str
    text: str


@dataclass(frozen=True)
class Extraction:
    """What one source holds: its docstrings, and how many files were read and skipped."""

    docstrings: tuple[Docstring, ...]
    n_files: int
    n_skipped: int


# --- which files --------------------------------------------------------------------------------


def _license_name(metadata: importlib.metadata.PackageMetadata) -> str:
    """The short name of a license; ``License`` often holds the whole text, so it comes last."""
    fields = metadata.json
    if expression := fields.get("license_expression"):
        return str(expression)
    classifiers = [str(line) for line in fields.get("classifier", ())]
    names = [line.rsplit(" :: ", 1)[1] for line in classifiers if line.startswith("License ::")]
    if names:
        return ", ".join(sorted(names))
    return (str(fields.get("license", "")).strip() or "not stated").splitlines()[0]


def _metadata(name: str) -> importlib.metadata.PackageMetadata | None:
    """The metadata of the distribution that brings a package, as pillow brings ``PIL``."""
    try:
        return importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        found = importlib.metadata.packages_distributions().get(name)
        return importlib.metadata.metadata(found[0]) if found else None


def find_source(name: str) -> Source:
    """Locate an installed package by its import name, or the standard library by ``stdlib``.

    Raises ValueError if no such package is installed; nothing is imported.
    """
    if name == STDLIB:
        folder = Path(sysconfig.get_paths()["stdlib"])
        return Source(STDLIB, platform.python_version(), "PSF-2.0", folder)
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    metadata = _metadata(name) if spec is not None else None
    if spec is None or metadata is None or not spec.submodule_search_locations:
        raise ValueError(
            f"source {name!r} is no installed package; install it (pip install {name}) or choose "
            f"from {', '.join((*DEFAULT_SOURCES, STDLIB))}"
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    version = metadata["Version"].split("+")[0]  # the build, as in 2.13.0+cpu, changes no text
    return Source(name, version, _license_name(metadata), folder)


def source_files(source: Source) -> list[Path]:
    """The package's ``.py`` files, tests left out, sorted by their path inside it."""
    found = (path.relative_to(source.folder) for path in source.folder.rglob("*.py"))
    kept = (path for path in found if SKIPPED_FOLDERS.isdisjoint(path.parts))
    return [source.folder / path for path in sorted(kept, key=lambda path: path.parts)]


def read_source(path: Path) -> str | None:
    """A source file's text with ``\\n`` line ends, or None if its bytes are no Python text."""
    try:
        with tokenize.open(path) as file:
            text = file.read()
        return None if "\0" in text else text  # which error it makes depends on the Python version
    except (SyntaxError, UnicodeDecodeError):  # SyntaxError: an encoding that nobody knows
        return None


# --- what one file says -------------------------------------------------------------------------


def _clean(text: str) -> str:
    """Strip the common indentation and blank ends. ``inspect.cleandoc`` differs between Pythons."""
    # Half a surrogate pair may stand in a Python string but not in UTF-8.
    lines = text.encode("utf-8", "replace").decode("utf-8").expandtabs().split("\n")
    indents = [len(line) - len(line.lstrip(" ")) for line in lines[1:] if line.strip()]
    margin = min(indents, default=0)
    return "\n".join([lines[0].strip(), *(line[margin:].rstrip() for line in lines[1:])]).strip()


def _without_fields(template: str) -> str:
    """A template's own words: ``{name}`` fields go, and headings under which nothing is left."""
    kept: list[str] = []
    emptied = False  # the line before held a field and nothing else
    try:
        for line in template.split("\n"):
            parts = list(string.Formatter().parse(line))
            words = "".join(literal for literal, *_ in parts).rstrip()
            if not words and any(field is not None for _, field, *_ in parts):
                emptied = True
                continue
            if emptied and not words and kept and kept[-1].endswith(":"):
                kept.pop()
            emptied = False
            kept.append(words)
    except ValueError:  # no valid template: the braces are the text's own
        return template
    return "\n".join(kept)


def _literal(node: ast.expr) -> str:
    """The text of a string expression: literals joined by ``+``, ``.format`` left unfilled."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _literal(node.left) + _literal(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "format":
            return _without_fields(_literal(node.func.value))
        if node.func.attr in ("strip", "lstrip", "rstrip"):
            return _literal(node.func.value)
    return ""


def _dotted(node: ast.expr) -> str:
    """``torch.linalg.norm`` for the expression of that name, else the empty string."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := _dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def _attached(call: ast.Call, module: str) -> Docstring | None:
    """The docstring in a call such as ``add_newdoc("numpy", "ndarray", ("T", "The ..."))``."""
    if _dotted(call.func).rsplit(".", 1)[-1].lstrip("_") not in ATTACHERS:
        return None
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    flat = [
        item
        for node in arguments
        for item in (node.elts if isinstance(node, ast.Tuple) else [node])
    ]
    *path, text = [_dotted(node) or _literal(node) for node in flat] or [""]
    if not text or not isinstance(flat[-1], (ast.Constant, ast.BinOp, ast.Call)):
        return None
    name = ".".join(part for part in path if part)
    package = module.split(".")[0]
    return Docstring(name if name.split(".")[0] == package else f"{module}.{name}", text)


def _parameters(arguments: ast.arguments) -> str:
    """Parameter names alone: how ``ast`` prints defaults changes between Python versions."""
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    if arguments.vararg:
        names.append(f"*{arguments.vararg.arg}")
    names += [argument.arg for argument in arguments.kwonlyargs]
    if arguments.kwarg:
        names.append(f"**{arguments.kwarg.arg}")
    return ", ".join(names)


def _topics(node: ast.Assign) -> Iterator[Docstring]:
    """The language reference behind ``help("topics")``: one dictionary of long texts."""
    if isinstance(node.value, ast.Dict):
        for key, value in zip(node.value.keys, node.value.values, strict=True):
            if key is not None:
                yield Docstring(f"Python: {_literal(key)}", _literal(value))


def _walk(body: Iterable[ast.stmt], scope: str, module: str) -> Iterator[Docstring]:
    """Docstrings of the statements in ``body``, those of nested blocks included, in file order."""
    for node in body:
        inner = scope
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner = f"{scope}.{node.name}"
            parameters = "" if isinstance(node, ast.ClassDef) else f"({_parameters(node.args)})"
            yield Docstring(inner + parameters, ast.get_docstring(node, clean=False) or "")
        elif isinstance(node, (ast.Expr, ast.Assign)) and isinstance(node.value, ast.Call):
            if (attached := _attached(node.value, module)) is not None:
                yield attached
        elif isinstance(node, ast.Assign) and module == "pydoc_data.topics":
            yield from _topics(node)
        for block in ("body", "handlers", "orelse", "finalbody", "cases"):
            yield from _walk(getattr(node, block, ()), inner, module)


def parse(text: str, module: str) -> list[Docstring]:
    """Every docstring of one source file, cleaned, in the order in which they stand in it.

    Raises SyntaxError if ``text`` is no Python, or newer than ``OLDEST_PYTHON``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in other people's strings is not our concern
        tree = ast.parse(text, feature_version=OLDEST_PYTHON)
    found = [Docstring(module, ast.get_docstring(tree, clean=False) or "")]
    found += _walk(tree.body, module, module)
    cleaned = (Docstring(one.title, _clean(one.text)) for one in found)
    return [one for one in cleaned if one.text]


# --- what one source says -----------------------------------------------------------------------


def module_name(source: Source, path: Path) -> str:
    """``numpy.linalg`` for ``linalg/__init__.py`` of numpy."""
    parts = path.relative_to(source.folder).with_suffix("").parts
    package = () if source.name == STDLIB else (source.name,)
    return ".".join((*package, *(part for part in parts if part != "__init__")))


def _parse_source(source: Source, paths: Iterable[Path]) -> Extraction:
    docstrings: list[Docstring] = []
    n_files = n_skipped = 0
    for path in paths:
        n_files += 1
        try:
            text = read_source(path)
            docstrings += parse(text, module_name(source, path)) if text is not None else []
        except (SyntaxError, RecursionError):  # or a chain of a thousand elif
            text = None
        n_skipped += text is None
    return Extraction(tuple(docstrings), n_files, n_skipped)


def _fingerprint(source: Source, paths: Iterable[Path]) -> str:
    """Changes with the package, its files, and the code of this module."""
    listing = [(str(path.relative_to(source.folder)), path.stat().st_size) for path in paths]
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(repr((source.name, source.version, platform.python_version_tuple()[:2])).encode())
    digest.update(repr(listing).encode())
    return digest.hexdigest()[:16]


def extract(source: Source) -> Extraction:
    """Every docstring of a source, in path order; parsed once, then read from the cache folder."""
    paths = source_files(source)
    name = f"{source.name}-{source.version}-{_fingerprint(source, paths)}.jsonl"
    cached = runtime.cache_folder("docs") / name
    if not cached.exists():
        extraction = _parse_source(source, paths)
        with runtime.atomic_write(cached, "w") as file:
            rows = [
                [extraction.n_files, extraction.n_skipped],
                *map(astuple, extraction.docstrings),
            ]
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        return extraction
    with cached.open(encoding="utf-8", newline="\n") as file:
        n_files, n_skipped = json.loads(file.readline())
        docstrings = tuple(Docstring(*json.loads(line)) for line in file)
    return Extraction(docstrings, n_files, n_skipped)
