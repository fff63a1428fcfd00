"""The record of a bench: what was run, from which commit, on what, and the rows."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from llm_core.runtime import atomic_write, cpu_name

ROOT = Path(__file__).parents[1]
# What decides between the kernels of the libraries, as /proc/cpuinfo names it
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def parser(
    doc: str | None, name: str, quick: str | None = None, rounds: int | None = None
) -> argparse.ArgumentParser:
    """The command line of a bench: ``--out``, and ``--quick`` and ``--rounds`` where it has them.

    ``--job``, of which the help is silent, is how a bench calls itself in a fresh process. With
    ``--quick``, ``out`` is None unless it is given: a smoke run leaves no record.
    """
    found = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    if quick:
        found.add_argument("--quick", action="store_true", help=f"{quick}, one round, no file")
    if rounds:
        found.add_argument("--rounds", type=int, default=rounds)
    default = ROOT / "results" / f"{name}.json"
    found.add_argument("--out", type=Path, help=f"default: {default.relative_to(ROOT)}")
    found.add_argument("--job", help=argparse.SUPPRESS)
    return found


def record_path(arguments: argparse.Namespace, name: str) -> Path | None:
    """Where the record goes; None for a smoke run."""
    if arguments.out or getattr(arguments, "quick", False):
        return arguments.out
    return ROOT / "results" / f"{name}.json"


def machine() -> dict[str, Any]:
    """What the numbers are measured on, called before the work: the load is that of others."""
    return {
        "cpu": cpu_name(),
        "instructions": instructions(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def instructions() -> list[str]:
    """Which of INSTRUCTIONS the processor has, where the system tells."""
    info = Path("/proc/cpuinfo")
    told = set(info.read_text(encoding="utf-8").split()) if info.exists() else set()
    return [name for name in INSTRUCTIONS if name in told]


def git(*arguments: str) -> str:
    """What git says, in the repository."""
    run = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return run.stdout.strip()


def in_fresh_process(job: Any, **environment: str) -> Any:
    """One job in a process of its own: no contender is to profit from another's memory.

    The script that runs is called again with ``--job`` and the job as json; what it prints last is
    json again, and returned. Ends the program with what the job said where it fails.
    """
    command = [sys.executable, sys.argv[0], "--job", json.dumps(job)]
    variables = {**os.environ, **environment}
    run = subprocess.run(command, capture_output=True, text=True, env=variables)
    if run.returncode:
        raise SystemExit(f"{job} failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def two_at_a_time(run: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> list[Any]:
    """``run(*job)`` of every job, in order: two at a time, each in a process of one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        waiting = [pool.apply_async(run, job) for job in jobs]
        return [one.get() for one in tqdm(waiting, unit="run", disable=False)]


def write_record(
    path: Path | None, measured_on: dict[str, Any], packages: Iterable[str], **content: Any
) -> None:
    """Write ``results/NAME.json``: command, commit, machine, versions, then the content.

    Nothing where ``path`` is None, as ``record_path`` has it for a smoke run.
    """
    if path is None:
        return
    script = Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix()
    words = [word.removeprefix(f"{ROOT}/") for word in sys.argv[1:]]
    record = {
        "command": " ".join(["python", script, *words]),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain", "llm_core", "bench")),
        "machine": measured_on,
        "versions": {package: version(package) for package in packages},
        **content,
    }
    with atomic_write(path, "w") as file:
        json.dump(record, file, indent=1)
    print(f"wrote {path}")
