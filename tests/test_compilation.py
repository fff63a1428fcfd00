"""What is kept of compiled code must not outlive the source that it was compiled from."""

import importlib

from numba.core.dispatcher import Dispatcher

import llm_core
from llm_core import compilation


def compiled_functions() -> dict[str, Dispatcher]:
    modules = [importlib.import_module(f"llm_core.{name}") for name in llm_core.READING_ORDER]
    functions = (value for module in modules for value in vars(module).values())
    return {f.py_func.__qualname__: f for f in functions if isinstance(f, Dispatcher)}


def test_compiled_functions_call_only_those_of_their_own_file():
    """Numba compiles anew only if the function's own file has changed."""
    functions = compiled_functions()
    assert len(functions) > 20
    for name, function in functions.items():
        for called in function.py_func.__code__.co_names:
            other = function.py_func.__globals__.get(called)
            if isinstance(other, Dispatcher):
                assert other.py_func.__module__ == function.py_func.__module__, (name, called)


def test_compiled_functions_release_the_lock_and_are_kept():
    for name, function in compiled_functions().items():
        assert function.targetoptions["nogil"], name
        assert type(function._cache).__name__ != "NullCache", name


def test_compiling_is_announced_once_and_only_in_a_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LLM_CORE_CACHE", str(tmp_path))
    said = []
    for in_terminal in (True, True, False):
        if not in_terminal:
            for marker in (tmp_path / "compilation").iterdir():
                marker.unlink()
        monkeypatch.setattr("sys.stderr.isatty", lambda answer=in_terminal: answer)
        compilation.announce_compilation.cache_clear()
        compilation.announce_compilation("tokenizer")
        said.append("compiles its tokenizer" in capsys.readouterr().err)
    assert said == [True, False, False]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    compilation.announce_compilation("decoder")
    assert "compiles its decoder" in capsys.readouterr().err
    compilation.announce_compilation.cache_clear()
