"""Checkpoints: exact round trips, atomic folders, damage that is named."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_core import checkpoint
from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig
from llm_core.model import GPT

CONFIG = GPTConfig(vocab_size=50, context_length=8, n_layer=1, n_head=2, d_model=16)


def trained(n_steps=3, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    model = GPT(CONFIG).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    take_steps(model, optimizer, n_steps)
    return model, optimizer


def take_steps(model, optimizer, n_steps):
    """Steps on random ids, so that the generator's state matters."""
    for _ in range(n_steps):
        ids = torch.randint(50, (2, 8))
        loss = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1).float(), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def same_bits(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path, dtype):
    model, optimizer = trained(dtype=dtype)
    data = {"position": 7, "format": "x"}
    checkpoint.save(tmp_path, model, step=3, optimizer=optimizer, data=data, extra={"lr": 0.1})
    take_steps(model, optimizer, 4)

    torch.manual_seed(99)
    other = GPT(CONFIG).to(dtype)
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=5.0)
    found = checkpoint.load(tmp_path)
    checkpoint.restore(found, other, other_optimizer)
    take_steps(other, other_optimizer, 4)
    assert same_bits(other.state_dict(), model.state_dict())
    assert (found.step, found.data, found.extra) == (3, data, {"lr": 0.1})
    assert next(other.parameters()).dtype == dtype


def test_a_model_is_made_from_a_checkpoint_alone(tmp_path):
    model, _ = trained()
    found = checkpoint.load(checkpoint.save(tmp_path / "new" / "run", model, step=1))
    ids = torch.randint(50, (2, 8))
    assert torch.equal(found.model()(ids), model.eval()(ids))
    assert found.optimizer is None and not found.model().training
    with pytest.raises(CheckpointError, match="saved without its optimizer"):
        checkpoint.restore(found, model, torch.optim.AdamW(model.parameters()))


def test_the_last_checkpoints_are_kept_and_no_litter(tmp_path):
    model, optimizer = trained(0)
    for step in range(1, 6):
        checkpoint.save(tmp_path, model, step=step, optimizer=optimizer, keep=3)
    assert list(checkpoint.steps(tmp_path)) == [3, 4, 5]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{n:08d}" for n in (3, 4, 5)]
    assert checkpoint.load(tmp_path).step == 5
    assert checkpoint.load(tmp_path / "step-00000003").step == 3
    with pytest.raises(ValueError, match="keep=0"):
        checkpoint.save(tmp_path, model, step=9, keep=0)
    with pytest.raises(CheckpointError, match="holds a checkpoint of step 5 already"):
        checkpoint.save(tmp_path, model, step=5)


def test_nothing_is_a_named_error(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="there is no checkpoint in"):
            checkpoint.load(path)


# --- damage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.STATE, checkpoint.MANIFEST])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
def test_damage_is_refused_by_the_files_name_and_the_older_checkpoint_named(tmp_path, name, damage):
    model, optimizer = trained()
    for step in (1, 2):
        checkpoint.save(tmp_path, model, step=step, optimizer=optimizer)
    path = tmp_path / "step-00000002" / name
    content = path.read_bytes()
    if damage == "remove" and name == checkpoint.MANIFEST:
        path.unlink()  # not a whole checkpoint: the older one is the latest
        assert checkpoint.load(tmp_path).step == 1
        return
    middle = len(content) // 2
    if damage == "remove":
        path.unlink()
    elif damage == "flip":
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    else:
        path.write_bytes(content[: middle if damage == "truncate" else 0])
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(tmp_path)
    assert name in str(caught.value) and "step-00000001 instead" in str(caught.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    model, optimizer = trained()
    return checkpoint.save(folder, model, step=2, optimizer=optimizer, data={"position": 1})


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_an_altered_manifest_loads_or_is_refused_by_name(saved, tmp_path_factory, data):
    """Values of the json replaced by others: never anything but CheckpointError."""
    folder = tmp_path_factory.mktemp("altered") / "step-00000002"
    shutil.copytree(saved, folder)
    manifest = json.loads((saved / checkpoint.MANIFEST).read_text())
    place, key = manifest, None
    while isinstance(place, dict) and place:
        parent, key = place, data.draw(st.sampled_from(sorted(place)))
        place = place[key]
    value = st.none() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2)
    parent[key] = data.draw(value | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))
    (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest))
    try:
        found = checkpoint.load(folder)
        assert same_bits(found.weights, checkpoint.load(saved).weights)
    except CheckpointError as error:
        assert str(folder) in str(error)


def test_a_foreign_tokenizer_is_refused(tmp_path):
    model, _ = trained(0)
    found = checkpoint.load(checkpoint.save(tmp_path, model, step=1, tokenizer_hash="abc"))
    found.check_tokenizer("abc")
    with pytest.raises(CheckpointError, match="with the tokenizer abc, this one is xyz"):
        found.check_tokenizer("xyz")


def test_a_model_of_another_shape_is_refused(tmp_path):
    model, _ = trained(0)
    found = checkpoint.load(checkpoint.save(tmp_path, model, step=1))
    with pytest.raises(CheckpointError, match="make the model from the checkpoint's config"):
        checkpoint.restore(found, GPT(CONFIG.changed(n_layer=2)))
    with pytest.raises(CheckpointError, match=r"blocks\.1\.attention\.out\.bias has shape None"):
        checkpoint.load_weights(GPT(CONFIG.changed(n_layer=2)), found.weights, "here")


# --- writing under difficulties -----------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_error_that_leaves_the_run_as_it_was(tmp_path):
    model, _ = trained(0)
    checkpoint.save(tmp_path, model, step=1)
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(PermissionError):
            checkpoint.save(tmp_path, model, step=2)
    finally:
        tmp_path.chmod(0o755)
    assert checkpoint.load(tmp_path).step == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_full_disk_is_an_error_that_leaves_the_run_as_it_was(tmp_path):
    """A limit on the size of files fails in the middle of a write, as a full disk does."""
    import resource

    model, optimizer = trained(1)
    checkpoint.save(tmp_path, model, step=1, optimizer=optimizer)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            checkpoint.save(tmp_path, model, step=2, optimizer=optimizer)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.load(tmp_path).step == 1


WRITER = """
import sys, torch
from llm_core import checkpoint
from llm_core.config import GPTConfig
from llm_core.model import GPT
model = GPT(GPTConfig(vocab_size=500, context_length=8, n_layer=2, n_head=2, d_model=64))
optimizer = torch.optim.AdamW(model.parameters())
step = max(checkpoint.steps(sys.argv[1]), default=0)
while True:
    step += 1
    for p in model.parameters():
        p.data.fill_(step)
    checkpoint.save(sys.argv[1], model, step=step, optimizer=optimizer)
    print(step, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """SIGKILL a few milliseconds later each time; what is there must load and be of one step."""
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    run, last = tmp_path / "run", 0
    for kill in range(6):
        writer = subprocess.Popen(
            [sys.executable, script, run],
            stdout=subprocess.PIPE,
            cwd=Path(checkpoint.__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        writer.stdout.readline()
        time.sleep(0.003 * kill + 0.001)
        writer.kill()
        writer.wait()
        found = checkpoint.load(run)
        assert found.step > last
        last = found.step
        assert all(bool((t == found.step).all()) for t in found.weights.values())
