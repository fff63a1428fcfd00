"""The rules that hold for every module of llm_core, read off the sources with ast."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llm_core
from llm_core import stories

PACKAGE = Path(llm_core.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
EVERY_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
MACHINE_PATH = re.compile(r"/(?:root|home|Users|work|tmp|mnt|opt)/|[A-Z]:\\\\")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """``stories`` for ``stories/engine.py``: a subpackage has one place in the reading order."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path) -> set[str]:
    """The llm_core modules that a file imports anywhere, inside functions too."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import on line {node.lineno}"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("llm_core.")}


def imported_within(path: Path, package: str) -> set[str]:
    """The modules of a subpackage that a file imports anywhere: ``engine``, ``plots``."""
    start = f"llm_core.{package}."
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name.removeprefix(start).split(".")[0] for name in found if name.startswith(start)}


def public_definitions(node: ast.Module | ast.ClassDef, prefix: str = ""):
    """Functions, classes and methods whose names do not begin with an underscore."""
    for child in node.body:
        if isinstance(child, (*FUNCTION, ast.ClassDef)) and not child.name.startswith("_"):
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public_definitions(child, f"{child.name}.")


def is_signature(node: ast.AST) -> bool:
    """Whether a function has no body of its own: an overload, a protocol's method."""
    return isinstance(node, FUNCTION) and ast.unparse(node.body[-1]) == "..."


def test_the_reading_order_lists_every_module_once_and_no_other():
    assert len(set(llm_core.READING_ORDER)) == len(llm_core.READING_ORDER)
    assert set(llm_core.READING_ORDER) == {name_of(path) for path in MODULES}


@EVERY_MODULE
def test_a_module_imports_only_what_stands_before_it(path):
    order = list(llm_core.READING_ORDER)
    later = {
        name
        for name in imported_modules(path)
        if name != name_of(path) and order.index(name) > order.index(name_of(path))
    }
    assert not later, f"{path.name} stands before {sorted(later)} in READING_ORDER"


def test_the_modules_of_the_stories_keep_the_same_law():
    """The plots are one place in the order; among themselves they import nothing."""
    folder, order = PACKAGE / "stories", list(stories.MODULES)
    files = {one for one in folder.rglob("*.py") if not one.name.startswith("__")}
    assert {one.relative_to(folder).with_suffix("").parts[0] for one in files} == set(order)
    for path in files:
        own = path.relative_to(folder).with_suffix("").parts[0]
        later = {
            one for one in imported_within(path, "stories") if order.index(one) > order.index(own)
        }
        assert not later, f"stories/{path.name} stands before {sorted(later)} in stories.MODULES"
        assert own != "plots" or "plots" not in imported_within(path, "stories")


def test_the_import_law_sees_imports_inside_functions(tmp_path):
    source = tmp_path / "module.py"
    source.write_text("def f():\n    from llm_core import dataset\n    import llm_core.bpe as b\n")
    assert imported_modules(source) == {"dataset", "bpe"}


def test_the_package_itself_imports_nothing():
    nodes = list(ast.walk(tree(PACKAGE / "__init__.py")))
    assert not any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in nodes)


def test_importing_the_package_loads_no_torch():
    code = "import sys, llm_core; print({'torch', 'numpy', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@EVERY_MODULE
def test_a_file_has_at_most_400_lines_of_at_most_100_columns(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 100


@EVERY_MODULE
def test_a_function_has_at_most_40_lines_beside_its_docstring(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, FUNCTION):
            n_lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node):
                n_lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            assert n_lines <= 40, f"{path.name}: {node.name} has {n_lines} lines"


@EVERY_MODULE
def test_a_module_opens_by_saying_what_it_is(path):
    assert len(ast.get_docstring(tree(path)) or "") > 100


@EVERY_MODULE
def test_public_functions_and_classes_have_docstrings(path):
    silent = [
        name
        for name, node in public_definitions(tree(path))
        if not ast.get_docstring(node) and not is_signature(node)
    ]
    assert not silent


@EVERY_MODULE
def test_public_functions_state_their_types(path):
    for name, node in public_definitions(tree(path)):
        if not isinstance(node, FUNCTION):
            continue
        arguments = node.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
        untyped = [a.arg for a in named if a.annotation is None and a.arg not in ("self", "cls")]
        assert not untyped, f"{path.name}: {name}({', '.join(untyped)})"
        assert node.returns is not None, f"{path.name}: {name} states no result"


@EVERY_MODULE
def test_no_exception_is_swallowed_whole(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler):
            caught = {getattr(name, "id", "") for name in ast.walk(node.type or node)}
            bare = node.type is None or caught & {"Exception", "BaseException"}
            last = node.body[-1]
            goes_on = isinstance(last, ast.Raise) and last.exc is None
            assert goes_on or not bare, f"{path.name}, line {node.lineno}"


@EVERY_MODULE
def test_nothing_is_unpickled(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\bpickle\b|allow_pickle\s*=\s*True|weights_only\s*=\s*False", text)


@EVERY_MODULE
def test_no_text_names_a_path_of_somebodys_machine(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert not MACHINE_PATH.search(node.value), f"{path.name}, line {node.lineno}"


@EVERY_MODULE
def test_nothing_is_left_to_do_in_a_comment(path):
    unfinished = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert not [number for number, line in enumerate(lines, 1) if unfinished.search(line)]
