"""Training in a process of its own, which is killed, interrupted or terminated, and then goes on.

One process imports torch and forks for every attempt, so that dozens of kills cost no imports.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_shards import END, write_by_hand

from llm_core import checkpoint, train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

MODEL = {"vocab_size": 61, "context_length": 16, "n_layer": 1, "n_head": 2, "d_model": 16}
TRAINER = """
import json, os, sys, time, traceback
import torch
import torch._dynamo, tqdm.auto  # else each fork imports them in its first step, for a second
from llm_core import dataset
from llm_core.config import GPTConfig
from llm_core.model import GPT
from llm_core.train import next_token_loss, train
from llm_core.trainconfig import TrainConfig

def say(*words):
    os.write(1, (" ".join(map(str, words)) + chr(10)).encode())

def run(order):
    def loss_fn(model, batch):
        say("step")
        time.sleep(order.get("pause", 0))
        return next_token_loss(model, batch)

    torch.manual_seed(order["seed"])
    model = GPT(GPTConfig(**order["model"]))
    batches = dataset.batches(order["data"], 4, 16, seed=3, packed=True)
    history = train(
        model,
        batches,
        TrainConfig(**order["config"]),
        loss_fn,
        evaluate=lambda model: {"drawn": torch.rand(()).item()},
        folder=order["folder"],
        resume=True,
        progress=False,
    )
    say("stopped", history.stopped, history.n_steps)

torch.set_num_threads(1)
say("ready")
for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            say("started", os.getpid())
            run(json.loads(line))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    say("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class Trainer:
    """Runs that are started, listened to and sent signals."""

    def __init__(self, folder):
        (folder / "trainer.py").write_text(TRAINER)
        self.process = subprocess.Popen(
            [sys.executable, folder / "trainer.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(Path(train.__file__).parents[1]),
            },
        )
        assert self.listen("ready") == []

    def listen(self, until):
        """The words after the next line of this kind."""
        for line in self.process.stdout:
            kind, *words = line.split()
            if kind == until:
                return words
            assert kind != "ended" or until == "ended", f"ended with {words} before {until!r}"
        raise AssertionError(f"the trainer ended before {until!r}")

    def start(self, **order):
        """Begin a run, or go on with one; returns its process id."""
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.listen("started")[0])

    def finish(self, **order):
        """A run to its end: why it stopped, and after how many steps."""
        self.start(**order)
        stopped, n_steps = self.listen("stopped")
        assert self.listen("ended") == ["0"]
        return stopped, int(n_steps)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    trainer = Trainer(tmp_path_factory.mktemp("trainer"))
    yield trainer
    trainer.process.stdin.close()
    trainer.process.wait()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    ids = np.random.default_rng(0).integers(0, 61, 3000)
    ids[np.random.default_rng(1).random(3000) < 0.1] = END
    return str(write_by_hand(tmp_path_factory.mktemp("data"), ids))


def order(data, folder, precision="float32", dropout=0.0, n_steps=60, **config):
    steps = {"n_steps": n_steps, "warmup_steps": 10, "evaluate_every": 10, "precision": precision}
    model = {**MODEL, "dropout": dropout}
    return {
        "data": data,
        "folder": str(folder),
        "model": model,
        "seed": 0,
        "config": {**steps, **config},
    }


def everything(folder):
    """All tensors and numbers of the last checkpoint that do not depend on the clock."""
    last = checkpoint.load(folder)
    tensors = {**last.weights, **last.random}
    for key, values in last.optimizer["state"].items():
        tensors.update({f"{key}.{name}": value for name, value in values.items()})
    history = {k: v for k, v in last.extra["history"].items() if k not in ("seconds", "stopped")}
    return tensors, (last.step, last.data, last.optimizer["param_groups"], history)


def assert_same_to_the_bit(one, other):
    (mine, numbers), (theirs, other_numbers) = everything(one), everything(other)
    assert numbers == other_numbers
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name]), name


def parts_in(folder):
    """What is there of checkpoints that are not whole."""
    return {path.name for path in folder.glob(".step-*.part")}


def await_a_write(folder, known):
    """Return as soon as a checkpoint is begun."""
    deadline = time.monotonic() + 60
    while not parts_in(folder) - known:
        assert time.monotonic() < deadline, "no checkpoint was begun within a minute"


def killed_again_and_again(trainer, order, n_kills, seed):
    """Start, kill some steps and milliseconds later, start again: what each kill left behind.

    Every other time the kill waits for a checkpoint that is being written.
    """
    chance, left = random.Random(seed), []
    folder = Path(order["folder"])
    for kill in range(n_kills):
        known = parts_in(folder)
        number = trainer.start(**order)
        for _ in range(chance.randint(0, 4)):
            trainer.listen("step")
        if kill % 2:
            await_a_write(folder, known)
        time.sleep(chance.uniform(0, 0.002 if kill % 2 else 0.01))
        os.kill(number, signal.SIGKILL)
        assert trainer.listen("ended") == ["-9"]
        left.append((max(checkpoint.steps(folder), default=0), parts_in(folder)))
    return left


def check_killed_runs(trainer, data, tmp_path, precision, dropout, n_steps, n_kills):
    settings = {"precision": precision, "dropout": dropout, "n_steps": n_steps}
    whole = order(data, tmp_path / "whole", **settings)
    broken = order(data, tmp_path / "broken", **settings, save_every=1)
    assert trainer.finish(**whole) == ("None", n_steps)
    left = killed_again_and_again(trainer, broken, n_kills, seed=n_kills)
    reached = [step for step, _ in left]
    assert reached == sorted(reached) and 0 < reached[-1] < n_steps
    assert any(parts for _, parts in left)  # some were killed while they wrote
    assert trainer.finish(**broken) == ("None", n_steps)
    assert_same_to_the_bit(tmp_path / "broken", tmp_path / "whole")
    assert not list((tmp_path / "broken").glob(".*"))


def test_a_run_killed_at_any_moment_and_resumed_equals_an_unbroken_one(trainer, data, tmp_path):
    check_killed_runs(trainer, data, tmp_path, "bfloat16", 0.1, n_steps=160, n_kills=20)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_run_killed_a_hundred_times_equals_an_unbroken_one(
    trainer, data, tmp_path, precision, dropout
):
    check_killed_runs(trainer, data, tmp_path, precision, dropout, n_steps=800, n_kills=100)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(trainer, data, tmp_path, number):
    whole, broken = (order(data, tmp_path / name) for name in ("whole", "broken"))
    assert trainer.finish(**whole) == ("None", 60)
    process = trainer.start(**broken, pause=0.02)  # else it might be over before the signal
    for _ in range(7):
        trainer.listen("step")
    os.kill(process, number)
    stopped, n_steps = trainer.listen("stopped")
    assert trainer.listen("ended") == ["0"]
    assert stopped == number.name and 7 <= int(n_steps) < 60
    last = checkpoint.load(broken["folder"])
    assert (last.step, last.extra["history"]["stopped"]) == (int(n_steps), number.name)
    assert trainer.finish(**broken) == ("None", 60)
    assert_same_to_the_bit(broken["folder"], whole["folder"])
