"""The ground every chapter stands on: profile, seeds, threads, timers, cache folder, safe writes.

A chapter opens with ``profile = runtime.start(seed=...)`` and asks ``profile.pick`` for its sizes,
so that one notebook serves a laptop in a test (``ci``), the printed book (``book``) and a graphics
card (``gpu``). No chapter derives this module; "Setup" explains the profiles.

Importing it loads neither torch nor numpy: building the book from its stored outputs needs neither.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import importlib.util
import os
import platform
import random
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, TextIO, TypeVar, cast, overload

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PROFILES = ("ci", "book", "gpu")

# Read by OpenMP, OpenBLAS and MKL when they load. numba's own variable is left alone: numba raises
# when it changes after its threads have started.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class CacheFolderError(OSError):
    """The cache folder cannot be made or written."""


# --- profile ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profile:
    """How large a chapter runs. A profile changes sizes, never code."""

    name: str

    def pick(self, *, ci: T, book: T, gpu: T | None = None) -> T:
        """The value for this profile; ``gpu`` falls back to ``book`` where it is not given."""
        if self.name == "ci":
            return ci
        if self.name == "gpu" and gpu is not None:
            return gpu
        return book


def profile() -> Profile:
    """The profile named by ``$BOOK_PROFILE``; ``book`` where the variable is unset or empty.

    Raises ValueError for a name that is not in ``PROFILES``.
    """
    name = os.environ.get("BOOK_PROFILE") or "book"
    if name not in PROFILES:
        raise ValueError(
            f"BOOK_PROFILE={name!r} is no profile; set it to one of {', '.join(PROFILES)}, "
            "or unset it for 'book'"
        )
    return Profile(name)


# --- seeds and threads --------------------------------------------------------------------------


def _if_installed(name: str) -> Any:
    """The module, or None where it is not installed. A broken installation still raises."""
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)


def set_seed(seed: int) -> None:
    """Seed Python's global generator and, where they are installed, numpy's and torch's.

    Raises ValueError unless ``0 <= seed < 2**32``, which is all that numpy takes.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed} is out of range: numpy takes 0 to 2**32 - 1; choose another")
    random.seed(seed)
    numpy, torch = _if_installed("numpy"), _if_installed("torch")
    if numpy is not None:
        numpy.random.seed(seed)
    if torch is not None:
        torch.manual_seed(seed)


def set_threads(threads: int) -> None:
    """Fix how many threads one tensor operation uses, here and in processes started from here.

    A sum split over more threads adds in another order and ends in other last digits: with the
    count fixed, a chapter prints the same numbers on a machine with 2 cores and on one with 64.
    Raises ValueError for a count below 1.
    """
    if threads < 1:
        raise ValueError(
            f"threads={threads} must be at least 1; 2 is what the book was printed with"
        )
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    torch = _if_installed("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def start(seed: int = 0, threads: int = 2) -> Profile:
    """Make a chapter repeatable: fix threads, seed every generator; return the profile.

    The first cell of each chapter calls it. It prints nothing and works without torch. Where
    ``OMP_NUM_THREADS`` asks for fewer threads, it is obeyed: two chapters that run side by side on
    two cores, with two threads each, wait for one another at every operation and take many times
    as long. The variable is set here too: a later call can lower the count, not raise it. Raises
    ValueError for a seed, a count or a profile that is refused.
    """
    current = profile()
    most = os.environ.get("OMP_NUM_THREADS", "")
    set_threads(min(threads, int(most)) if most.isdigit() and int(most) else threads)
    set_seed(seed)
    return current


# --- device and dtype ---------------------------------------------------------------------------


def device() -> torch.device:
    """Where a chapter computes: the CPU, or under ``BOOK_PROFILE=gpu`` the accelerator.

    The printed numbers come from a CPU, so a graphics card is used only when asked for.
    Raises ValueError if the profile is ``gpu`` and torch sees neither CUDA nor Apple's MPS.
    """
    import torch

    if profile().name != "gpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    raise ValueError(
        "BOOK_PROFILE=gpu, but torch sees neither CUDA nor MPS; install a torch build for your "
        "card, or set BOOK_PROFILE=book to run on the CPU"
    )


@lru_cache(maxsize=1)
def _cpu_gains_by_bfloat16() -> bool:
    """Whether products in bfloat16 take less than three quarters of the time of float32 here.

    Measured, not read off the processor's name: a library may lack a kernel for what it can do. The
    two take turns and the best of each counts, so that other work on the machine hits both; on one
    thread, as two wait for one another where another program has a core, ten times a product long.
    """
    import torch

    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(12):
        for kind in best:
            a, b = torch.ones(512, 256, dtype=kind), torch.ones(256, 512, dtype=kind)
            start = time.perf_counter()
            torch.mm(a, b)
            best[kind] = min(best[kind], time.perf_counter() - start)
    torch.set_num_threads(threads)
    return best[torch.bfloat16] < 0.75 * best[torch.float32]


def dtype(where: torch.device | None = None) -> torch.dtype:
    """The dtype to train in on a device: bfloat16 where the hardware gains by it, else float32.

    ``where`` is ``device()`` unless given. On a CPU a product is timed in both, once a process; a
    GPU gains from Nvidia's Ampere generation (compute capability 8.0) on. ``$LLM_CORE_PRECISION``
    decides instead where it is set, say to compare a run with one of another machine. Raises
    ValueError where it names neither ``float32`` nor ``bfloat16``.
    """
    import torch

    if (asked := os.environ.get("LLM_CORE_PRECISION")) in ("float32", "bfloat16"):
        return torch.float32 if asked == "float32" else torch.bfloat16
    if asked:
        raise ValueError(
            f"LLM_CORE_PRECISION={asked!r} is no precision to train in; set it to float32 or "
            "bfloat16, or unset it to have the faster of the two measured"
        )
    where = where or device()
    if where.type == "cuda":
        fast = torch.cuda.get_device_capability(where) >= (8, 0)
    else:
        fast = where.type == "cpu" and _cpu_gains_by_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def compiles() -> bool:
    """Whether torch.compile can work here: not on Windows, and with $CXX or g++ for a CPU."""
    return sys.platform != "win32" and shutil.which(os.environ.get("CXX") or "g++") is not None


# --- time and memory ----------------------------------------------------------------------------


class Timer:
    """Wall time of a ``with`` block; ``seconds`` grows inside the block and stands still after."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._stop: float | None = None

    def __enter__(self) -> Timer:
        self._start, self._stop = time.perf_counter(), None
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the block was entered, up to its end."""
        return (time.perf_counter() if self._stop is None else self._stop) - self._start


def timer() -> Timer:
    """``with timer() as t: ...`` and then ``t.seconds``."""
    return Timer()


def peak_memory() -> int:
    """Most physical memory, in bytes, that this process has held so far (child processes aside)."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: on Linux a process inherits the peak of the one that started it.
        peak = next(
            line
            for line in status.read_text(encoding="utf-8").splitlines()
            if line.startswith("VmHWM")
        )
        return int(peak.split()[1]) * 1024
    import resource

    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak_rss if sys.platform == "darwin" else peak_rss * 1024


def reuse_memory() -> bool:
    """Let this process keep the memory it frees, for its next tensors; whether that is possible.

    glibc returns a large block to the system when it is freed and asks for a new one at the next
    step, whose every page is then cleared and mapped anew: 9 to 17 % of a training step on a CPU.
    The process gives memory back when it ends; its peak stays the same. Elsewhere nothing changes.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    import ctypes

    trim_threshold, mmap_max = -1, -4  # names of malloc.h, for mallopt
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(mmap_max, 0)) and bool(libc.mallopt(trim_threshold, 2**31 - 1))


def cpu_name() -> str:
    """The processor's name as its maker writes it; the architecture where the system is silent."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].replace("(R)", "").replace("(TM)", "")
                return " ".join(name.split())
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return platform.machine()


# --- files --------------------------------------------------------------------------------------


def _cache_root() -> Path:
    if configured := os.environ.get("LLM_CORE_CACHE"):
        return Path(configured).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "llm_core"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "llm_core"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "llm_core"


def cache_folder(*parts: str) -> Path:
    """A folder for what can be made again, created if absent.

    It lies under ``$LLM_CORE_CACHE``, else under the platform's cache folder. Raises ValueError for
    parts that lead out of it and CacheFolderError where it cannot be made or written.
    """
    relative = Path(*parts)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError(f"cache_folder parts {parts} lead out of the cache; use plain names")
    folder = _cache_root() / relative
    remedy = "set LLM_CORE_CACHE to a folder that you may write"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CacheFolderError(
            f"cannot make the cache folder {folder}: {error}; {remedy}"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CacheFolderError(f"the cache folder {folder} is read-only; {remedy}")
    return folder


def flush_to_disk(path: Path) -> None:
    """Make a file's bytes, or a rename in a folder, survive a power cut."""
    if os.name == "posix":  # Windows has no such call for folders, nor for what is open to read
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes in hexadecimal digits, read a megabyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


NUMPY_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")  # its word for a full disk


@contextmanager
def _atomic_write(path: Path, mode: str) -> Iterator[IO[Any]]:
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {path}: there is no folder {path.parent}; create it first"
        )
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with part.open(mode.replace("w", "x"), **cast(Any, text)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        flush_to_disk(path.parent)
    except OSError as error:
        if error.errno == errno.ENOSPC or NUMPY_CUT_SHORT.fullmatch(str(error)):
            problem = f"no room to write it, {error.strerror or error}; make room and try again"
            raise OSError(errno.ENOSPC, problem, str(path)) from error
        raise
    finally:
        part.unlink(missing_ok=True)  # nothing is left to remove once the rename has happened


@overload
def atomic_write(
    path: str | os.PathLike[str], mode: Literal["wb"] = "wb"
) -> AbstractContextManager[BinaryIO]: ...
@overload
def atomic_write(
    path: str | os.PathLike[str], mode: Literal["w"]
) -> AbstractContextManager[TextIO]: ...
def atomic_write(
    path: str | os.PathLike[str], mode: Literal["w", "wb"] = "wb"
) -> AbstractContextManager[IO[Any]]:
    """``with atomic_write(path) as file: ...``: the file appears whole or not at all.

    The bytes go to a hidden file in the same folder, which is flushed to disk and renamed when the
    block ends well. If the block raises, ``path`` keeps what it had and nothing is left behind; a
    process killed inside leaves at most one hidden ``.part`` file. ``mode`` is ``"wb"`` or ``"w"``
    (UTF-8, line ends as written). Raises FileNotFoundError if the folder does not exist, OSError
    that names the file if the disk is full, and ValueError for another mode.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"mode={mode!r} must be 'w' for text or 'wb' for bytes")
    return _atomic_write(Path(path), mode)
