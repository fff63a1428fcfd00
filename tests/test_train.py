"""Training against a loop by hand; stopped, killed, diverged and resumed; what is noted and kept.

Runs in processes of their own are in ``test_train_killed.py``.
"""

import copy
import dataclasses
import importlib.util
import math
import os
import shutil
import signal
import sys
import threading

import numpy as np
import pytest
import torch
from test_shards import END, write_by_hand
from torch.nn import functional as F

from llm_core import checkpoint, dataset, runtime
from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig, Norm
from llm_core.loss import IGNORE
from llm_core.model import GPT
from llm_core.train import MILESTONES, DivergedError, next_token_loss, train
from llm_core.trainconfig import TrainConfig

V, T, B = 61, 16, 4
# Without biases: that of the keys has a gradient of rounding errors alone, which Adam blows up.
CONFIG = GPTConfig(V, T, 1, 2, 16, position="rope", norm=Norm("rmsnorm"), mlp="swiglu", bias="none")
SETTINGS = TrainConfig(10, max_lr=1e-2, min_lr=1e-3, warmup_steps=3, precision="float32")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Random ids in documents of about ten."""
    ids = np.random.default_rng(0).integers(0, V, 3000)
    ids[np.random.default_rng(1).random(3000) < 0.1] = END
    return write_by_hand(tmp_path_factory.mktemp("data"), ids)


@pytest.fixture
def rows(data):
    return lambda **more: dataset.batches(data, B, T, seed=3, packed=True, **more)


def model_of(seed=0, **changes):
    torch.manual_seed(seed)
    return GPT(CONFIG.changed(**changes))


def settings(**changes):
    return dataclasses.replace(SETTINGS, **changes)


def quiet(*args, **more):
    return train(*args, progress=False, **more)


class Given:
    """Batches from a list, which start anew at its end."""

    def __init__(self, *batches):
        self.batches, self.position = batches, 0

    def __next__(self):
        self.position += 1
        return self.batches[(self.position - 1) % len(self.batches)]

    def state(self):
        return {"position": self.position}

    def restore(self, state):
        self.position = state["position"]


def random_batch(n_rows, seed=0, n_ignored=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(V, (n_rows, T + 1), generator=generator)
    targets = ids[:, 1:].clone()
    targets.view(-1)[torch.randperm(targets.numel(), generator=generator)[:n_ignored]] = IGNORE
    return {"ids": ids[:, :-1], "targets": targets}


def at_step(number, act, loss_fn=next_token_loss):
    """A loss function that does something before it computes the loss of a step."""
    count = 0

    def counted(model, batch):
        nonlocal count
        count += 1
        if count == number:
            act()
        return loss_fn(model, batch)

    return counted


def same_weights(one, other):
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def facts_of(history):
    """All of a history that does not depend on the clock."""
    return {name: value for name, value in vars(history).items() if name != "seconds"}


# --- the loop -----------------------------------------------------------------------------------


def steps_by_hand(model, rows, config):
    """Training with torch's own optimizer, clipping and loss: the losses and the norms."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(config.beta1, config.beta2))
    losses, norms = [], []
    for step in range(1, config.n_steps + 1):
        batch = next(rows)
        logits = model(batch["ids"], documents=batch["documents"])
        loss = F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten())
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_norm).item())
        for group in optimizer.param_groups:
            group["lr"] = config.lr(step)
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


@pytest.mark.parametrize("max_norm", [0.3, math.inf])
def test_a_run_is_the_loop_written_with_torch(rows, max_norm):
    config = settings(n_steps=20, max_norm=max_norm, weight_decay=0.5)
    mine, theirs = model_of(), model_of()
    history = quiet(mine, rows(), config)
    losses, norms = steps_by_hand(theirs, rows(), config)
    assert history.loss == pytest.approx(losses, abs=1e-5)
    assert history.grad_norm == pytest.approx(norms, rel=1e-4)
    assert max(norms) > 0.3  # so that 0.3 does clip
    assert history.lr == [config.lr(step) for step in range(1, 21)]
    for name, weight in mine.state_dict().items():
        torch.testing.assert_close(weight, theirs.state_dict()[name], atol=2e-5, rtol=0)


def test_the_first_loss_is_near_that_of_a_guess(rows):
    history = quiet(model_of(), rows(), SETTINGS)
    assert history.loss[0] == pytest.approx(math.log(V), abs=0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_batch_is_learned_by_heart(precision):
    config = settings(n_steps=80, precision=precision)
    history = quiet(model_of(d_model=32), Given(random_batch(B)), config)
    assert history.loss[-1] < 0.2 < 3 < history.loss[0]


def test_the_schedule_reaches_the_optimizer(rows):
    """A learning rate of 0 leaves the weights, and that of the last step is 0 here."""
    config = settings(n_steps=4, min_lr=0.0)
    seen = []
    model = model_of()
    noting = lambda model, batch: (  # noqa: E731
        seen.append(copy.deepcopy(model.state_dict())),
        next_token_loss(model, batch),
    )[1]
    quiet(model, rows(), config, noting)
    changed = [
        not torch.equal(a["token_embedding.weight"], b["token_embedding.weight"])
        for a, b in zip(seen, [*seen[1:], model.state_dict()], strict=True)
    ]
    assert changed == [True, True, True, False]


def test_accumulated_batches_equal_the_large_one_whatever_the_targets_they_count():
    small = [random_batch(2, seed, ignored) for seed, ignored in enumerate((0, 31, 12, 27) * 6)]
    large = [
        {name: torch.cat([batch[name] for batch in small[i : i + 4]]) for name in small[0]}
        for i in range(0, 24, 4)
    ]
    config = settings(n_steps=6)
    whole, parts = model_of(), model_of()
    one = quiet(whole, Given(*large), config)
    four = quiet(parts, Given(*small), settings(n_steps=6, n_accumulate=4))
    assert four.loss == pytest.approx(one.loss, abs=2e-6)
    assert four.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    assert four.n_tokens == one.n_tokens == [8 * T] * 6
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(weight, parts.state_dict()[name], atol=1e-5, rtol=0)
    unweighted = sum(next_token_loss(model_of(), b)[0].item() for b in small[:4]) / 4
    assert abs(unweighted - one.loss[0]) > 1e-4  # so that weights do matter


def test_accumulated_weighted_batches_equal_the_large_one():
    small = [random_batch(2, seed) for seed in range(4)]
    for number, batch in enumerate(small):
        batch["weights"] = torch.where(batch["targets"] % 4 == 0, 5.0 + number, 1.0)
    large = {name: torch.cat([batch[name] for batch in small]) for name in small[0]}
    whole, parts = model_of(), model_of()
    one = quiet(whole, Given(large), settings(n_steps=1, warmup_steps=1))
    four = quiet(parts, Given(*small), settings(n_steps=1, warmup_steps=1, n_accumulate=4))
    assert four.loss == pytest.approx(one.loss, abs=2e-6)
    assert four.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    del large["weights"]
    assert abs(next_token_loss(model_of(), large)[0].item() - one.loss[0]) > 1e-4


def test_a_batch_without_targets_adds_nothing_and_a_step_without_any_is_named():
    full, empty = random_batch(2, 1), random_batch(2, 2, n_ignored=2 * T)
    alone, both = model_of(), model_of()
    one = quiet(alone, Given(full), settings(n_steps=3))
    two = quiet(both, Given(full, empty), settings(n_steps=3, n_accumulate=2))
    assert same_weights(alone, both) and one.loss == two.loss
    with pytest.raises(ValueError, match="leave out batches without a target"):
        quiet(model_of(), Given(empty), settings(n_accumulate=2))


def test_another_loss_and_its_metrics_are_noted():
    """Which of two classes a row belongs to, read off the last position; no targets at all."""
    ids = torch.randint(V, (8, T), generator=torch.Generator().manual_seed(0))
    easy = {"ids": ids, "label": ids[:, -1] % 2}
    hard = {"ids": ids[:4], "label": 1 - ids[:4, -1] % 2}

    def classify(model, batch):
        logits = model(batch["ids"])[:, -1, :2]
        right = (logits.argmax(-1) == batch["label"]).float().mean().item()
        return F.cross_entropy(logits, batch["label"]), {"right": right, "rows": len(logits)}

    history = quiet(model_of(), Given(easy), settings(n_steps=60), classify)
    assert history.metrics[-1] == {"right": 1.0, "rows": 8}
    assert history.loss[-1] < 0.2 < math.log(2) == pytest.approx(history.loss[0], abs=0.05)
    both = quiet(
        model_of(), Given(easy, hard), settings(n_steps=1, warmup_steps=1, n_accumulate=2), classify
    )
    apart = [classify(model_of(), batch)[0].item() for batch in (easy, hard)]
    assert both.metrics[0]["rows"] == 6  # the mean of 8 and 4
    assert both.loss[0] == pytest.approx(sum(apart) / 2, rel=1e-6)


def test_frozen_parameters_stay_and_the_others_move(rows):
    model = model_of(tied=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("mlp." in name or "head" in name)
    before = copy.deepcopy(model.state_dict())
    quiet(model, rows(), SETTINGS)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]) == ("mlp." not in name and "head" not in name)


def test_batches_that_end_end_the_run(rows, tmp_path):
    per_epoch = len(list(rows(epochs=1)))
    history = quiet(
        model_of(),
        rows(epochs=1),
        settings(n_steps=10_000, n_accumulate=5),
        evaluate=lambda model: {"x": 1},
        folder=tmp_path,
    )
    assert history.stopped == "the batches ended"
    assert history.n_steps == per_epoch // 5 and per_epoch % 5
    assert history.evaluations == [(history.n_steps, {"x": 1.0})]
    assert list(checkpoint.steps(tmp_path)) == [history.n_steps]


# --- precision ----------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_model_is_left_in_the_dtype_it_was_trained_in_and_in_evaluation_mode(rows, precision):
    model = model_of()
    quiet(model, rows(), settings(precision=precision))
    assert {p.dtype for p in model.parameters()} == {getattr(torch, precision)}
    assert not any(module.training for module in model.modules())


def test_auto_takes_what_this_machine_gains_by(rows):
    model = model_of()
    quiet(model, rows(), settings(n_steps=1, warmup_steps=1, precision="auto"))
    assert model.output_weight.dtype == runtime.dtype(torch.device("cpu"))


def test_bfloat16_follows_float32(rows):
    config = settings(n_steps=40, max_lr=3e-3)
    exact = quiet(model_of(), rows(), config)
    narrow = quiet(model_of(), rows(), settings(n_steps=40, max_lr=3e-3, precision="bfloat16"))
    assert narrow.loss == pytest.approx(exact.loss, abs=0.03)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled_blocks_train_as_eager_ones(rows):
    eager = quiet(model_of(), rows(), SETTINGS)
    compiled = quiet(model_of(), rows(), settings(compile=True))
    assert compiled.loss == pytest.approx(eager.loss, abs=2e-5)
    assert compiled.grad_norm == pytest.approx(eager.grad_norm, rel=1e-3)


# --- evaluation ---------------------------------------------------------------------------------


def test_evaluations_come_when_they_are_due_and_at_the_end_once(rows):
    seen = []

    def evaluate(model):
        seen.append((model.training, torch.rand(()).item()))
        return {"n": len(seen), "gap": torch.tensor(0.5)}

    config = settings(n_steps=12, evaluate_every=4, evaluate_at=(1, 8, 9, 400))
    model, trained = model_of(), []
    noting = at_step(5, lambda: trained.append(model.training))
    history = quiet(model, rows(), config, noting, evaluate=evaluate)
    assert history.evaluated("n") == ([1, 4, 8, 9, 12], [1, 2, 3, 4, 5])
    assert history.evaluated("gap")[1] == [0.5] * 5
    assert not any(training for training, _ in seen) and trained == [True]
    once = quiet(model_of(), rows(), settings(), evaluate=lambda model: {"x": 3})
    assert once.evaluations == [(10, {"x": 3.0})]


def test_evaluating_disturbs_nothing(rows):
    """Neither drawing random numbers nor computing in inference mode, dropout or not."""

    @torch.inference_mode()
    def evaluate(model):
        torch.manual_seed(99)
        return {"drawn": model(torch.randint(V, (2, T))).sum()}

    plain = model_of(dropout=0.2)
    one = quiet(plain, rows(), SETTINGS)
    watched = model_of(dropout=0.2)  # made here: it seeds what dropout draws from
    two = quiet(watched, rows(), settings(evaluate_every=1), evaluate=evaluate)
    assert one.loss == two.loss and same_weights(plain, watched)
    assert len(two.evaluations) == 10


def test_the_history_has_an_entry_a_step(rows):
    history = quiet(model_of(), rows(), settings(n_accumulate=3))
    assert history.n_steps == 10 and history.stopped is None and history.evaluations == []
    for name in ("loss", "lr", "grad_norm", "seconds", "n_tokens", "metrics"):
        assert len(getattr(history, name)) == 10, name
    assert history.n_tokens == [3 * B * T] * 10
    assert all(seconds > 0 for seconds in history.seconds)
    later = sum(history.seconds[5:])
    assert history.tokens_per_second == pytest.approx(5 * 3 * B * T / later)


# --- what is shown ------------------------------------------------------------------------------


def test_nothing_is_printed_where_no_progress_is_wanted(rows, capfd):
    train(model_of(), rows(), SETTINGS, evaluate=lambda model: {"gap": 0.125}, progress=False)
    assert capfd.readouterr() == ("", "")


def test_one_bar_shows_the_steps_the_loss_and_the_gap(rows, capfd):
    config = settings(evaluate_every=5)
    history = train(model_of(), rows(), config, evaluate=lambda model: {"x": 9, "gap": 0.125})
    printed = capfd.readouterr()
    last = printed.err.split("\r")[-1]
    assert printed.out == "" and "10/10" in last
    assert f"loss={history.loss[-1]:.3f}" in last and "gap=0.125" in last and "tokens/s=" in last


def test_without_tensorboard_the_remedy_is_named(rows, tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if not installed
    with pytest.raises(ModuleNotFoundError, match="pip install tensorboard, or leave log_dir out"):
        train(model_of(), rows(), SETTINGS, log_dir=tmp_path)
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not importlib.util.find_spec("tensorboard"), reason="no tensorboard here")
def test_tensorboard_gets_what_the_history_has(rows, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = settings(evaluate_every=5)
    history = quiet(model_of(), rows(), config, evaluate=lambda m: {"gap": 0.5}, log_dir=tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    for name, values in (("loss", history.loss), ("lr", history.lr)):
        found = events.Scalars(f"train/{name}")
        assert [event.step for event in found] == list(range(1, 11))
        assert [event.value for event in found] == pytest.approx(values)
    assert [event.step for event in events.Scalars("evaluation/gap")] == [5, 10]


# --- resuming -----------------------------------------------------------------------------------

KINDS = [("float32", 0.0), ("float32", 0.2), ("bfloat16", 0.0), ("bfloat16", 0.2)]


def drawing(model):
    """An evaluation that draws random numbers, which must be the same ones after a stop."""
    return {"drawn": torch.rand(()).item(), "loss": model(torch.zeros(1, T).long()).sum().item()}


def interrupt(number=signal.SIGTERM):
    return lambda: signal.raise_signal(number)


def same_checkpoints(one, other):
    """Whether two folders end in the same weights, optimizer, random state, data and history."""
    a, b = checkpoint.load(one), checkpoint.load(other)
    assert (a.step, a.data, a.extra["config"]) == (b.step, b.data, b.extra["config"])
    for name in ("loss", "lr", "grad_norm", "n_tokens", "metrics", "evaluations"):
        assert a.extra["history"][name] == b.extra["history"][name], name
    assert a.optimizer["param_groups"] == b.optimizer["param_groups"]
    assert a.optimizer["state"].keys() == b.optimizer["state"].keys()
    tensors = [(a.weights, b.weights), (a.random, b.random)]
    tensors += [
        (a.optimizer["state"][key], b.optimizer["state"][key]) for key in b.optimizer["state"]
    ]
    for mine, theirs in tensors:
        assert mine.keys() == theirs.keys()
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name])


@pytest.mark.parametrize(("precision", "dropout"), KINDS)
def test_a_resumed_run_equals_an_unbroken_one_to_the_bit(rows, tmp_path, precision, dropout):
    config = settings(precision=precision, evaluate_every=3, n_accumulate=2)
    more = {"evaluate": drawing, "tokenizer_hash": "abc"}
    whole = model_of(dropout=dropout)
    unbroken = quiet(whole, rows(), config, folder=tmp_path / "whole", **more)
    for stop in (1, 2, 3, 6, 9):  # 3, 6 and 9 are steps of an evaluation
        folder, resumed = tmp_path / str(stop), model_of(dropout=dropout)
        loss_fn = at_step(2 * stop, interrupt())
        part = quiet(resumed, rows(), config, loss_fn, folder=folder, **more)
        assert (part.stopped, part.n_steps) == ("SIGTERM", stop)
        other = model_of(seed=7, dropout=dropout)
        torch.manual_seed(1234)
        history = quiet(other, rows(), config, folder=folder, resume=True, **more)
        assert same_weights(other, whole)
        assert facts_of(history) == facts_of(unbroken)
        same_checkpoints(folder, tmp_path / "whole")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_with_muon_goes_on_to_the_bit_and_is_not_one_with_adamw(rows, tmp_path, precision):
    config = settings(precision=precision, optimizer="muon")
    whole, resumed, adamw = model_of(), model_of(), model_of()
    quiet(whole, rows(), config, folder=tmp_path / "whole")
    quiet(resumed, rows(), config, at_step(4, interrupt()), folder=tmp_path / "part")
    quiet(resumed, rows(), config, folder=tmp_path / "part", resume=True)
    assert same_weights(resumed, whole)
    same_checkpoints(tmp_path / "part", tmp_path / "whole")
    quiet(adamw, rows(), settings(precision=precision))
    matrices = [name for name, p in whole.named_parameters() if "blocks" in name and p.dim() == 2]
    mine, theirs = whole.state_dict(), adamw.state_dict()
    assert matrices and not any(torch.equal(mine[name], theirs[name]) for name in matrices)
    with pytest.raises(CheckpointError, match="optimizer='muon', this one has optimizer='adamw'"):
        quiet(model_of(), rows(), settings(precision=precision), folder=tmp_path / "part",
              resume=True)  # fmt: skip


@pytest.mark.parametrize(("first", "later"), [("float32", "bfloat16"), ("bfloat16", "float32")])
def test_the_precision_that_was_chosen_stays_when_the_run_goes_on(
    rows, tmp_path, monkeypatch, first, later
):
    whole, part, resumed = model_of(), model_of(), model_of(seed=7)
    unbroken = quiet(whole, rows(), settings(precision=first), folder=tmp_path / "whole")
    config, folder = settings(precision="auto"), tmp_path / "part"
    monkeypatch.setattr(runtime, "dtype", lambda where=None: getattr(torch, first))
    quiet(part, rows(), config, at_step(4, interrupt()), folder=folder)
    monkeypatch.setattr(runtime, "dtype", lambda where=None: getattr(torch, later))  # a busy hour
    history = quiet(resumed, rows(), config, folder=folder, resume=True)
    assert same_weights(resumed, whole) and history.loss == unbroken.loss
    assert resumed.output_weight.dtype == getattr(torch, first)
    with pytest.raises(CheckpointError, match=f"precision='{first}', this one has precision="):
        quiet(model_of(), rows(), settings(precision=later), folder=folder, resume=True)


def test_a_finished_run_that_is_resumed_is_only_read(rows, tmp_path):
    model, again = model_of(), model_of(seed=1)
    history = quiet(model, rows(), SETTINGS, folder=tmp_path, evaluate=drawing)
    loss_fn = at_step(1, interrupt(signal.SIGINT))  # is never called
    read = quiet(again, rows(), SETTINGS, loss_fn, folder=tmp_path, resume=True, evaluate=drawing)
    assert read == history and same_weights(model, again) and not again.training


def test_resume_begins_where_there_is_nothing_yet(rows, tmp_path):
    one, other = model_of(), model_of()
    quiet(one, rows(), SETTINGS)
    quiet(other, rows(), SETTINGS, folder=tmp_path / "new" / "run", resume=True)
    assert same_weights(one, other)


def test_saving_keeps_the_last_checkpoints_and_milestones_for_good(rows, tmp_path):
    seen = {}
    model = model_of()
    config = settings(save_every=2, keep=2, milestones=(1, 4, 10))
    hooks = {
        n: at_step(n + 1, lambda n=n: seen.update({n: copy.deepcopy(model.state_dict())}))
        for n in (1, 4)
    }

    def loss_fn(model, batch):
        for hook in hooks.values():
            hook(model, batch)
        return next_token_loss(model, batch)

    quiet(model, rows(), config, loss_fn, folder=tmp_path)
    seen[10] = model.state_dict()
    assert list(checkpoint.steps(tmp_path)) == [8, 10]
    marks = checkpoint.steps(tmp_path / MILESTONES)
    assert list(marks) == [1, 4, 10]
    for step, path in marks.items():
        weights = checkpoint.load(path).weights
        assert all(torch.equal(weights[name], seen[step][name]) for name in weights)


def test_milestones_outlive_a_stop_and_those_of_a_run_that_left_no_checkpoint_do_not(
    rows, tmp_path
):
    config = settings(milestones=(2, 4, 9))
    quiet(model_of(), rows(), config, at_step(5, interrupt()), folder=tmp_path)
    other = settings(milestones=(9,))
    quiet(model_of(), rows(), other, folder=tmp_path, resume=True)
    assert list(checkpoint.steps(tmp_path / MILESTONES)) == [2, 4, 9]
    for path in checkpoint.steps(tmp_path).values():
        shutil.rmtree(path)
    with pytest.raises(CheckpointError, match="holds checkpoints up to step 9"):
        quiet(model_of(seed=1), rows(), other, folder=tmp_path)
    quiet(model_of(seed=1), rows(), other, folder=tmp_path, resume=True)
    assert list(checkpoint.steps(tmp_path / MILESTONES)) == [9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda history: history.pop("loss"), "this is no history of a run .'loss'."),
        (lambda history: history["lr"].pop(), r"entries of \[3, 4\] steps"),
    ],
)
def test_a_checkpoint_whose_history_is_not_whole_is_refused_by_name(
    change, message, rows, tmp_path
):
    model, batches = model_of(), rows()
    quiet(model, batches, SETTINGS, at_step(4, interrupt()), folder=tmp_path)
    last = checkpoint.load(tmp_path)
    change(last.extra["history"])
    checkpoint.save(tmp_path, model, step=5, data=batches.state(), extra=last.extra)
    other = model_of(seed=1)
    untouched = copy.deepcopy(other)
    with pytest.raises(CheckpointError, match=f"{message}.*remove it") as caught:
        quiet(other, rows(), SETTINGS, folder=tmp_path, resume=True)
    assert str(checkpoint.steps(tmp_path)[5]) in str(caught.value)
    assert same_weights(other, untouched)


# --- signals ------------------------------------------------------------------------------------


def test_the_handlers_of_before_are_back_after_a_run_and_a_thread_needs_none(rows):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    inside = []
    look = at_step(1, lambda: inside.append(signal.getsignal(signal.SIGTERM)))
    quiet(model_of(), rows(), SETTINGS, look)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert inside[0] not in before
    done = []
    thread = threading.Thread(target=lambda: done.append(quiet(model_of(), rows(), SETTINGS)))
    thread.start()
    thread.join()
    assert done[0].n_steps == 10


def test_a_second_ctrl_c_interrupts_at_once_and_leaves_the_last_checkpoint(rows, tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    model, handler = model_of(), signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        quiet(model, rows(), settings(save_every=2), at_step(6, twice), folder=tmp_path)
    assert list(checkpoint.steps(tmp_path)) == [2, 4]
    assert signal.getsignal(signal.SIGINT) is handler and not model.training
    unbroken, resumed = model_of(), model_of()
    quiet(unbroken, rows(), SETTINGS)
    quiet(resumed, rows(), SETTINGS, folder=tmp_path, resume=True)
    assert same_weights(unbroken, resumed)


def test_a_signal_in_the_last_step_stops_nothing(rows):
    interrupted = at_step(10, interrupt(signal.SIGINT))
    history = quiet(model_of(), rows(), SETTINGS, interrupted, evaluate=lambda model: {"x": 1})
    assert history.stopped is None and history.evaluations == [(10, {"x": 1.0})]


# --- divergence ---------------------------------------------------------------------------------


def nan_loss(model, batch):
    return next_token_loss(model, batch)[0] * math.nan, {}


def infinite_gradient(model, batch):
    """A finite loss whose gradient by one weight is infinite."""
    weight = model.output_weight[0, 0]
    return next_token_loss(model, batch)[0] + (weight - weight.detach()) * 3e38 * 3e38, {}


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [(nan_loss, "the loss is nan"), (infinite_gradient, "the gradient's norm is inf")],
)
def test_a_run_that_diverges_names_the_step_and_what_to_go_back_to(
    rows, tmp_path, wrong, words, accumulate
):
    model, calls, before = model_of(), 0, {}

    def loss_fn(model, batch):
        nonlocal calls
        calls += 1
        if calls == 5 * accumulate:
            before.update(copy.deepcopy(model.state_dict()))
            return wrong(model, batch)
        return next_token_loss(model, batch)

    config = settings(save_every=3, n_accumulate=accumulate)
    rate = f"{config.lr(5):.3g}"
    with pytest.raises(DivergedError) as caught:
        quiet(model, rows(), config, loss_fn, folder=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"step 5: {words}, at a learning rate of {rate}; ")
    assert "Lower max_lr" in message
    assert message.endswith(f"The last good checkpoint is of step 3, in {tmp_path}")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())
    assert list(checkpoint.steps(tmp_path)) == [3]

    unbroken, resumed = model_of(), model_of()
    quiet(unbroken, rows(), config)
    quiet(resumed, rows(), config, folder=tmp_path, resume=True)
    assert same_weights(unbroken, resumed)


def test_a_run_that_diverges_before_any_checkpoint_says_so(rows, tmp_path):
    for more in ({}, {"folder": tmp_path / "run"}):
        with pytest.raises(
            DivergedError, match=r"step 1: the loss is nan.*No checkpoint was saved"
        ):
            quiet(model_of(), rows(), SETTINGS, nan_loss, **more)


# --- what cannot go on --------------------------------------------------------------------------


@pytest.fixture
def stopped(rows, tmp_path):
    """A folder with checkpoints of steps 2 and 4."""
    loss_fn = at_step(4, interrupt())
    more = {"folder": tmp_path / "run", "tokenizer_hash": "abc"}
    quiet(model_of(), rows(), settings(save_every=2), loss_fn, **more)
    return tmp_path / "run"


def bytes_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "more", "words"),
    [
        ({}, {"resume": False}, "holds checkpoints up to step 4; pass resume=True to go on"),
        ({}, {"tokenizer_hash": "xyz"}, "with the tokenizer abc, this one is xyz"),
        ({"max_lr": 0.02}, {}, "a run with max_lr=0.01, this one has max_lr=0.02; resume with"),
        ({"n_steps": 11}, {}, "n_steps=10, this one has n_steps=11"),
        ({"n_accumulate": 2}, {}, "n_accumulate=1"),
        ({"precision": "bfloat16"}, {}, "precision='float32', this one has precision='bfloat16'"),
    ],
)
def test_another_run_is_refused_and_the_checkpoints_stay(rows, stopped, changes, more, words):
    before = bytes_of(stopped)
    with pytest.raises(CheckpointError, match=words):
        quiet(model_of(), rows(), settings(**changes), folder=stopped, **{"resume": True, **more})
    assert bytes_of(stopped) == before


def test_another_model_and_other_data_are_refused(rows, data, stopped):
    with pytest.raises(CheckpointError, match="make the model from the checkpoint's config"):
        quiet(model_of(n_layer=2), rows(), SETTINGS, folder=stopped, resume=True)
    others = dataset.batches(data, B, T, seed=4, packed=True)
    with pytest.raises(ValueError, match="taken with seed=3, these batches have seed=4"):
        quiet(model_of(), others, SETTINGS, folder=stopped, resume=True)


def test_settings_that_decide_nothing_may_change_and_the_tokenizer_is_remembered(rows, stopped):
    watched = settings(evaluate_every=1, evaluate_at=(2,), save_every=1, keep=9)
    resumed, unbroken = model_of(), model_of()
    quiet(resumed, rows(), watched, folder=stopped, resume=True, evaluate=drawing)
    quiet(unbroken, rows(), SETTINGS)
    assert same_weights(resumed, unbroken)
    assert list(checkpoint.steps(stopped)) == [2, 4, 5, 6, 7, 8, 9, 10]
    assert checkpoint.load(stopped).tokenizer_hash == "abc"


def test_a_checkpoint_that_train_did_not_write_is_refused(rows, tmp_path):
    checkpoint.save(tmp_path, model_of(), step=3)
    with pytest.raises(CheckpointError, match=r"not written by train.*Checkpoint\.model\(\)"):
        quiet(model_of(), rows(), SETTINGS, folder=tmp_path, resume=True)


@pytest.mark.parametrize("name", [checkpoint.WEIGHTS, checkpoint.STATE, checkpoint.MANIFEST])
def test_a_truncated_checkpoint_is_refused_and_the_one_before_goes_on(rows, stopped, name):
    path = checkpoint.steps(stopped)[4] / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError) as caught:
        quiet(model_of(), rows(), SETTINGS, folder=stopped, resume=True)
    assert str(path) in str(caught.value) and "step-00000002 instead" in str(caught.value)
    shutil.rmtree(path.parent)
    resumed, unbroken = model_of(), model_of()
    quiet(resumed, rows(), SETTINGS, folder=stopped, resume=True)
    quiet(unbroken, rows(), SETTINGS)
    assert same_weights(resumed, unbroken)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_full_disk_ends_the_run_with_the_last_checkpoint_intact(rows, tmp_path):
    """A limit on the size of files, set in step 4, fails in the middle of the next write."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    fill = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # noqa: E731
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(OSError, match="too large"):
            quiet(model_of(), rows(), settings(save_every=2), at_step(4, fill), folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    resumed, unbroken = model_of(), model_of()
    quiet(resumed, rows(), SETTINGS, folder=tmp_path, resume=True)
    quiet(unbroken, rows(), SETTINGS)
    assert same_weights(resumed, unbroken)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_an_error_that_leaves_the_checkpoints(rows, stopped):
    before = bytes_of(stopped)
    stopped.chmod(0o555)
    try:
        with pytest.raises(PermissionError):
            quiet(model_of(), rows(), settings(save_every=1), folder=stopped, resume=True)
    finally:
        stopped.chmod(0o755)
    assert bytes_of(stopped) == before


def test_a_folder_that_cannot_be_made_is_an_error_before_the_first_step(rows, tmp_path):
    (tmp_path / "file").write_text("in the way")
    never = at_step(1, lambda: pytest.fail("a step was taken"))
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises((FileExistsError, NotADirectoryError), match="file"):
            quiet(model_of(), rows(), SETTINGS, never, folder=folder)
