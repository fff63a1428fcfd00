"""The ground: profiles, seeds, threads, timers, memory, cache folder, safe writes."""

import os
import platform
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest
import torch

from llm_core import runtime


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints for ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


# --- profile ------------------------------------------------------------------------------------


def test_the_profile_is_book_unless_the_variable_says_otherwise(monkeypatch):
    monkeypatch.delenv("BOOK_PROFILE", raising=False)
    assert runtime.profile().name == "book"
    monkeypatch.setenv("BOOK_PROFILE", "")
    assert runtime.profile().name == "book"
    monkeypatch.setenv("BOOK_PROFILE", "ci")
    assert runtime.profile().name == "ci"


def test_an_unknown_profile_is_an_error_that_names_the_known_ones(monkeypatch):
    monkeypatch.setenv("BOOK_PROFILE", "laptop")
    with pytest.raises(ValueError, match=r"'laptop'.*ci, book, gpu"):
        runtime.profile()


@pytest.mark.parametrize(("name", "size"), [("ci", 1), ("book", 2), ("gpu", 3)])
def test_a_profile_picks_its_own_size(name, size):
    assert runtime.Profile(name).pick(ci=1, book=2, gpu=3) == size


def test_the_gpu_profile_falls_back_to_the_size_of_book():
    assert runtime.Profile("gpu").pick(ci=1, book=2) == 2
    assert runtime.Profile("gpu").pick(ci=1, book=2, gpu=0) == 0


# --- seeds and threads --------------------------------------------------------------------------


def test_the_same_seed_repeats_every_generator():
    def draw() -> tuple[float, float, float]:
        return random.random(), numpy.random.rand(), torch.rand(()).item()

    runtime.set_seed(7)
    first = draw()
    assert draw() != first
    runtime.set_seed(7)
    assert draw() == first
    runtime.set_seed(8)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_cannot_take_is_refused(seed):
    with pytest.raises(ValueError, match=str(seed)):
        runtime.set_seed(seed)


def test_start_fixes_threads_and_seed_and_prints_nothing():
    code = (
        "from llm_core import runtime; profile = runtime.start(seed=5, threads=1);"
        "import torch, os, sys;"
        "sys.stderr.write(f'{profile.name} {torch.get_num_threads()} {torch.initial_seed()} '"
        "+ os.environ['OMP_NUM_THREADS'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "BOOK_PROFILE": "ci"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "ci 1 5 1")


@pytest.mark.parametrize(("given", "used"), [("1", 1), ("8", 2), ("", 2), ("0", 2), ("four", 2)])
def test_start_takes_fewer_threads_where_the_environment_asks(given, used, monkeypatch):
    for variable in runtime.THREAD_VARIABLES:
        monkeypatch.setenv(variable, "3")
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    before = torch.get_num_threads()
    try:
        runtime.start(threads=2)
        assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


def test_start_works_where_torch_and_numpy_are_not_installed():
    code = (
        "import importlib.util as u; real = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name in ('torch', 'numpy') else real(name, *a);"
        "from llm_core import runtime; runtime.start(seed=1);"
        "import sys, random; print('torch' in sys.modules, 'numpy' in sys.modules, random.random())"
    )
    assert python(code) == f"False False {random.Random(1).random()}\n"


def test_a_thread_count_below_one_is_refused():
    with pytest.raises(ValueError, match="threads=0"):
        runtime.set_threads(0)


# --- device and dtype ---------------------------------------------------------------------------


def test_the_printed_profiles_compute_on_the_cpu(monkeypatch):
    for name in ("ci", "book"):
        monkeypatch.setenv("BOOK_PROFILE", name)
        assert runtime.device() == torch.device("cpu")


def test_the_gpu_profile_takes_the_accelerator_or_says_that_there_is_none(monkeypatch):
    monkeypatch.setenv("BOOK_PROFILE", "gpu")
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        assert runtime.device().type in ("cuda", "mps")
    else:
        with pytest.raises(ValueError, match="BOOK_PROFILE=book"):
            runtime.device()


def test_the_dtype_is_one_that_the_device_can_multiply():
    dtype = runtime.dtype()
    assert dtype in (torch.bfloat16, torch.float32)
    product = torch.ones(4, 4, dtype=dtype) @ torch.ones(4, 4, dtype=dtype)
    assert product.eq(4).all()


def test_the_environment_may_fix_the_dtype_and_only_to_one_of_two(monkeypatch):
    for name in ("float32", "bfloat16"):
        monkeypatch.setenv("LLM_CORE_PRECISION", name)
        assert runtime.dtype() == getattr(torch, name)
    monkeypatch.setenv("LLM_CORE_PRECISION", "fp8")
    with pytest.raises(ValueError, match=r"LLM_CORE_PRECISION='fp8'.*float32 or bfloat16"):
        runtime.dtype()


def test_the_probe_of_bfloat16_leaves_the_threads_as_they_were():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert runtime._cpu_gains_by_bfloat16.__wrapped__() in (True, False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


# --- time and memory ----------------------------------------------------------------------------


def test_a_timer_runs_inside_its_block_and_stands_still_after():
    with runtime.timer() as timer:
        time.sleep(0.02)
        inside = timer.seconds
    after = timer.seconds
    time.sleep(0.01)
    assert 0.02 <= inside <= after < 1
    assert timer.seconds == after


def test_peak_memory_sees_what_was_held_and_does_not_fall_when_it_is_freed():
    code = (
        "from llm_core import runtime; before = runtime.peak_memory(); held = bytearray(80 << 20);"
        "held[::4096] = b'x' * len(held[::4096]); del held; print(runtime.peak_memory() - before)"
    )
    grown = int(python(code))
    assert 70_000_000 < grown < 160_000_000


def test_freed_memory_is_reused_where_glibc_is_and_the_peak_stays():
    if platform.libc_ver()[0] != "glibc":
        assert not runtime.reuse_memory()
        return
    held = int(
        python(
            "from llm_core import runtime; assert runtime.reuse_memory();"
            "before = runtime.peak_memory();"
            "sum(len(bytearray(80 << 20)) for _ in range(5));"
            "print(runtime.peak_memory() - before)"
        )
    )
    faults = [
        int(
            python(
                "import resource; from llm_core import runtime;"
                f"{call};"
                "bytearray(80 << 20);"
                "count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt;"
                "before = count(); sum(len(bytearray(80 << 20)) for _ in range(5));"
                "print(count() - before)"
            )
        )
        for call in ("runtime.reuse_memory()", "None")
    ]
    assert held < 100 << 20 and faults[0] < faults[1] / 3


def test_compiling_needs_a_compiler_that_is_there(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not runtime.compiles()
    compiler = tmp_path / "my-c++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    assert runtime.compiles() == (sys.platform != "win32")


def test_peak_memory_is_not_inherited_from_the_process_that_started_this_one():
    held = bytearray(300_000_000)
    held[::4096] = b"x" * len(held[::4096])
    child = int(python("from llm_core import runtime; print(runtime.peak_memory())"))
    assert child < 100_000_000 < runtime.peak_memory()


# --- cache folder -------------------------------------------------------------------------------


def test_the_cache_folder_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_CORE_CACHE", str(tmp_path / "kept"))
    assert runtime.cache_folder("docs", "numpy") == tmp_path / "kept" / "docs" / "numpy"
    assert (tmp_path / "kept" / "docs" / "numpy").is_dir()


@pytest.mark.skipif(sys.platform != "linux", reason="the folder of another platform")
def test_without_the_variable_the_cache_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv("LLM_CORE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert runtime.cache_folder() == tmp_path / "xdg" / "llm_core"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert runtime.cache_folder() == tmp_path / ".cache" / "llm_core"


@pytest.mark.parametrize("parts", [("..", "elsewhere"), ("/elsewhere",)])
def test_parts_that_lead_out_of_the_cache_are_refused(monkeypatch, tmp_path, parts):
    monkeypatch.setenv("LLM_CORE_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="elsewhere"):
        runtime.cache_folder(*parts)


def test_a_cache_that_cannot_be_made_names_the_variable_to_set(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LLM_CORE_CACHE", str(tmp_path / "file"))
    with pytest.raises(runtime.CacheFolderError, match="LLM_CORE_CACHE"):
        runtime.cache_folder("docs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_names_the_variable_to_set(monkeypatch, tmp_path):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("LLM_CORE_CACHE", str(tmp_path))
    with pytest.raises(runtime.CacheFolderError, match=r"read-only.*LLM_CORE_CACHE"):
        runtime.cache_folder()


# --- atomic writes ------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [(28, "No space left on device"), ("9 requested and 4 written",)])
def test_a_full_disk_is_named_with_the_file_and_leaves_what_was_there(tmp_path, said):
    path = tmp_path / "table.npy"
    path.write_bytes(b"old")
    with (
        pytest.raises(
            OSError, match=r"no room .* make room and try again: '.*table\.npy'"
        ) as raised,
        runtime.atomic_write(path) as file,
    ):
        file.write(b"new")
        raise OSError(*said)
    assert raised.value.errno == 28 and said[-1] in str(raised.value)
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["table.npy"]


def test_another_fault_while_writing_stays_what_it_is(tmp_path):
    with (
        pytest.raises(ConnectionError, match=r"^the line broke$"),
        runtime.atomic_write(tmp_path / "table.npy"),
    ):
        raise ConnectionError("the line broke")
    assert list(tmp_path.iterdir()) == []


def test_an_atomic_write_leaves_exactly_the_bytes_and_nothing_else(tmp_path):
    with runtime.atomic_write(tmp_path / "a.bin") as file:
        file.write(b"\x00\r\n")
        assert not (tmp_path / "a.bin").exists()
    with runtime.atomic_write(tmp_path / "b.txt", "w") as text:
        text.write("ä\n")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n"
    assert (tmp_path / "b.txt").read_bytes() == "ä\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.txt"]


def test_a_block_that_raises_keeps_the_old_file_and_cleans_up(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), runtime.atomic_write(target) as file:
            file.write(b"half")
            raise error
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_process_killed_inside_the_block_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    code = (
        "import os, signal; from llm_core import runtime\n"
        f"with runtime.atomic_write({str(target)!r}) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["a.bin"]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    with runtime.atomic_write(tmp_path / "atomic", "w") as file:
        file.write("x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_missing_folder_and_an_unknown_mode_are_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="nowhere"),
        runtime.atomic_write(tmp_path / "nowhere" / "a"),
    ):
        pass
    with pytest.raises(ValueError, match="'r'"):
        runtime.atomic_write(tmp_path / "a", "r")  # type: ignore[call-overload]


def test_importing_runtime_loads_neither_torch_nor_numpy():
    assert python("import sys, llm_core.runtime; print({'torch', 'numpy'} & set(sys.modules))") == (
        "set()\n"
    )


def test_the_same_folder_can_be_asked_for_by_many_processes_at_once(tmp_path):
    code = "from llm_core import runtime; print(runtime.cache_folder('a', 'b', 'c'))"
    environment = {**os.environ, "LLM_CORE_CACHE": str(tmp_path)}
    racing = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in racing:
        printed, _ = process.communicate(timeout=30)
        assert Path(printed.decode().strip()) == tmp_path / "a" / "b" / "c"


def test_the_processor_has_a_name():
    name = runtime.cpu_name()
    assert name and name == " ".join(name.split())
