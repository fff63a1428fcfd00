"""The record of a bench: what was run, from which commit, on what, and the rows."""

from __future__ import annotations

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


def machine() -> dict[str, Any]:
    """What the numbers are measured on, called before the work: the load is that of others."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


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
    path: Path, measured_on: dict[str, Any], packages: Iterable[str], **content: Any
) -> None:
    """Write ``results/NAME.json``: command, commit, machine, versions, then the content."""
    script = Path(sys.argv[0]).resolve().relative_to(ROOT).as_posix()
    record = {
        "command": " ".join(["python", script, *sys.argv[1:]]),
        "commit": git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(git("status", "--porcelain", "llm_core", "bench")),
        "machine": measured_on,
        "versions": {package: version(package) for package in packages},
        **content,
    }
    with atomic_write(path, "w") as file:
        json.dump(record, file, indent=1)
