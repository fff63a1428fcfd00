"""Machine code for inner loops, by numba, kept on disk from the first call on.

The chapter on tokenization measures what it gains.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import version
from typing import Any, TypeVar, cast

from numba import njit

from llm_core.runtime import cache_folder

F = TypeVar("F")

# An entry for callbacks from C is not wanted: without it, compiling takes a tenth less time.
OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "no_cfunc_wrapper": True}


def compiled(function: F) -> F:
    """``numba.njit``, its machine code kept on disk and the interpreter's lock released.

    Numba compiles anew when the function's own file has changed and looks at no other. So a
    compiled function must only call compiled functions of its own file, and a constant that it
    takes from another file stays what it was: whoever changes one must touch this file too.
    """
    return cast(F, njit(**OPTIONS)(function))


@cache
def announce_compilation(what: str) -> None:
    """Say in a terminal, once on a machine for each ``what``, why the first call takes seconds."""
    versions = f"numba-{version('numba')}-python-{sys.version_info[0]}.{sys.version_info[1]}"
    marker = cache_folder("compilation") / f"compiled-{what}-{versions}"
    if not marker.exists():
        if sys.stderr.isatty():
            print(f"llm_core compiles its {what}, once: some seconds ...", file=sys.stderr)
        marker.touch()
