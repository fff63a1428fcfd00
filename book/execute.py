"""Execute chapters in fresh kernels with fixed threads and seeds, and record what they took."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from asyncio import CancelledError
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from tqdm import tqdm

from book import notebooks
from llm_core.runtime import cpu_name

THREADS = "2"
LIBRARIES = ("torch", "numpy", "numba", "tiktoken", "matplotlib")
LIMIT_SECONDS = {"ci": 90, "book": 360, "gpu": 3600}  # of a cell
# What takes longer and is made once for all chapters, by the call in a cell that asks for it
SHARED = {
    f"recipes.{name}()": f"from llm_core import recipes; recipes.{name}()"
    for name in ("pretrained", "assistant")
}
# What a kernel says of itself at its end, the memory before torch is asked for anything
ENDING = "from llm_core.runtime import dtype, peak_memory; print(peak_memory(), dtype())"


def environment(profile: str) -> dict[str, str]:
    """What a kernel gets: the profile, fixed threads and hash seed, no progress bars."""
    libraries = ("OMP", "MKL", "NUMBA", "RAYON")
    threads = {f"{library}_NUM_THREADS": THREADS for library in libraries}
    return {
        **os.environ,
        **threads,
        "BOOK_PROFILE": profile,
        "PYTHONHASHSEED": "0",
        "TQDM_DISABLE": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "COLUMNS": "76",
        "LLM_CORE_OFFLINE": "1",
    }


def asked_for(chapters: Iterable[NotebookNode]) -> list[str]:
    """The calls for what is shared that stand in the chapters."""
    sources = [cell.source for chapter in chapters for cell in notebooks.code_cells(chapter)]
    return [call for call in SHARED if any(call in source for source in sources)]


def prepare(paths: Iterable[Path], profile: str) -> None:
    """Make what the chapters share, where one asks for it, with a bar; the cache keeps it.

    Ends the program where making it fails.
    """
    variables = {k: v for k, v in environment(profile).items() if k != "TQDM_DISABLE"}
    for call in asked_for(map(notebooks.read, paths)):
        program = [sys.executable, "-c", SHARED[call]]
        if subprocess.run(program, env=variables, cwd=notebooks.ROOT).returncode:
            raise SystemExit(
                f"error: {call} failed under the profile {profile}, as said above; the "
                "chapters that call it can't be executed before it works"
            )


def run(notebook: NotebookNode, path: Path, profile: str) -> tuple[int, str]:
    """Execute in place; returns the kernel's peak memory in bytes and the dtype it trains in."""
    for cell in notebooks.code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    notebook.cells.append(new_code_cell(ENDING))
    client = NotebookClient(
        notebook,
        timeout=LIMIT_SECONDS[profile],
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=40"],  # no remark on unencrypted loopback
    )
    total = len(notebook.cells)
    with tqdm(total=total, desc=path.stem, unit="cell") as bar:
        client.on_cell_complete = lambda cell, cell_index: bar.update(1)
        try:
            client.execute(env=environment(profile), cleanup_kc=True)
        except (Exception, CancelledError) as error:
            if hasattr(client, "_async_cleanup_kernel_future"):  # nbclient was sent a signal
                raise SystemExit(f"stopped: {path.name} is as it was before") from None
            if isinstance(error, (CellExecutionError, CellTimeoutError, DeadKernelError)):
                raise SystemExit(f"error: {path.name} failed:\n{error}") from error
            raise
        bar.update(total - bar.n)
    peak, dtype = notebook.cells.pop().outputs[0].text.split()
    return int(peak), dtype.removeprefix("torch.")


def machine() -> dict[str, str | int]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu_name(),
        "cores": int(THREADS),
        "memory_gib": round(memory / 2**30),
        "os": platform.system(),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name).split("+")[0]
        except PackageNotFoundError:
            continue
    return found


def execute(path: Path, profile: str) -> NotebookNode:
    """A canonical, executed and stamped copy of a chapter; the file is left alone."""
    notebook = notebooks.read(path)
    begin = time.perf_counter()
    peak, dtype = run(notebook, path, profile)
    seconds = time.perf_counter() - begin
    notebooks.normalise(notebook, path.stem.split("-")[0])
    notebook.metadata[notebooks.RECORD] = {
        "stamp": notebooks.code_hash(notebook),
        "profile": profile,
        "seconds": round(seconds, 1),
        "peak_bytes": peak,
        "trains_in": dtype,
        "machine": machine(),
        "versions": versions(),
    }
    return notebook


def main(chapter: str | None, profile: str) -> None:
    paths = notebooks.chapter_paths(chapter)
    prepare(paths, profile)
    for path in paths:
        notebook = execute(path, profile)
        notebooks.write(notebook, path)
        record = notebook.metadata[notebooks.RECORD]
        mebibytes = record["peak_bytes"] / 2**20
        print(f"{path.stem}: {record['seconds']:.0f} s, {mebibytes:,.0f} MiB, stamped")
