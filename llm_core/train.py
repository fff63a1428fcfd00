"""The one training loop: a model, batches, a loss function and a config; it stops and resumes.

Classification, instruction tuning and all that follows are another ``loss_fn`` and other batches.
``_Run.step`` is what happens in a step, ``train`` what happens around it. Chapter 5 writes the loop
line by line and watches it at work.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn

from llm_core import checkpoint, runtime
from llm_core.checkpoint import CheckpointError, Trainable
from llm_core.curriculum import Batch, BatchSource
from llm_core.loss import IGNORE, cross_entropy
from llm_core.model import GPT
from llm_core.muon import Muon, muon_groups
from llm_core.optim import AdamW, clip_grad_norm_, decay_groups
from llm_core.trainconfig import History, Metrics, TrainConfig

MILESTONES = "milestones"  # a folder in that of the run
LossFn = Callable[[Any, Batch], tuple[Tensor, Metrics]]  # the first is the model that is trained
Evaluate = Callable[[Any], Mapping[str, float]]


class DivergedError(ArithmeticError):
    """The loss or the gradient is no number any more."""


def next_token_loss(model: GPT, batch: Batch) -> tuple[Tensor, Metrics]:
    """Mean nats a token over ``targets`` (B, T), -100 not counted; the head works in chunks.

    ``documents``, ``positions`` and ``weights`` of the batch, (B, T) each, do what they do in
    ``GPT.hidden`` and ``cross_entropy``.
    """
    positions, documents = batch.get("positions"), batch.get("documents")
    hidden = model.hidden(batch["ids"], positions=positions, documents=documents)
    weights = batch.get("weights")
    return cross_entropy(hidden, model.output_weight, batch["targets"], weights=weights), {}


# --- stopping -----------------------------------------------------------------------------------


@contextmanager
def _signals_noted() -> Iterator[list[str]]:
    """Ctrl-C and SIGTERM end the step and then the run; a second one interrupts at once."""
    noted: list[str] = []
    if threading.current_thread() is not threading.main_thread():  # where Python has no handlers
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(signal.Signals(number).name)
        if len(noted) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- a step -------------------------------------------------------------------------------------


def _shares(batches: list[Batch]) -> list[float]:
    """What each batch contributes to the mean over all targets that count, of equal ones 1 / n."""
    counts = [1.0] * len(batches)
    if all("targets" in batch for batch in batches):
        counts = [
            float(((batch["targets"] != IGNORE) * batch.get("weights", torch.ones(()))).sum())
            for batch in batches
        ]
    return [count / sum(counts) if any(counts) else 1 / len(counts) for count in counts]


def _optimizer(model: nn.Module, config: TrainConfig) -> AdamW:
    betas = config.beta1, config.beta2
    if config.optimizer == "muon":
        return Muon(muon_groups(model, config.weight_decay), lr=config.max_lr, betas=betas)
    return AdamW(decay_groups(model, config.weight_decay), lr=config.max_lr, betas=betas)


class _Run:
    """The parts of a run that a step touches."""

    def __init__(
        self, model: Trainable, batches: BatchSource, config: TrainConfig, loss_fn: LossFn
    ) -> None:
        self.model, self.batches, self.config, self.loss_fn = model, batches, config, loss_fn
        self.device = model.output_weight.device
        precision: str = config.precision
        if config.precision == "auto":
            whole = all(parameter.requires_grad for parameter in model.parameters())
            narrow = whole and runtime.dtype(self.device) == torch.bfloat16
            precision = "bfloat16" if narrow else "float32"
        self.use(precision)
        self.optimizer = _optimizer(cast(nn.Module, model), config)
        self.history = History()

    def use(self, precision: str) -> None:
        """Have the weights in ``float32`` or ``bfloat16``; before the first step."""
        self.precision = precision
        self.model.to(getattr(torch, precision))

    def step(self) -> None:
        """One update of the weights. Raises StopIteration where no batch is left."""
        start, number = time.perf_counter(), self.history.n_steps + 1
        batches = [next(self.batches) for _ in range(self.config.n_accumulate)]
        batches = [{k: t.to(self.device) for k, t in batch.items()} for batch in batches]
        loss, metrics = 0.0, dict[str, float]()
        parts = [(b, s) for b, s in zip(batches, _shares(batches), strict=True) if s > 0]
        for batch, share in parts:  # a batch without a target has no mean, and adds nothing
            of_batch, noted = self.loss_fn(self.model, batch)
            torch.autograd.backward(of_batch * share)
            loss += share * of_batch.item()
            for name, value in noted.items():
                metrics[name] = metrics.get(name, 0.0) + value / len(parts)
        norm = clip_grad_norm_(self.model.parameters(), self.config.max_norm).item()
        self._check(number, loss, norm)
        lr = self.config.lr(number)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        history = self.history
        history.loss.append(loss)
        history.lr.append(lr)
        history.grad_norm.append(norm)
        history.metrics.append(metrics)
        history.n_tokens.append(sum(batch["ids"].numel() for batch in batches))
        history.seconds.append(time.perf_counter() - start)

    def _check(self, number: int, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        self.optimizer.zero_grad()
        what = f"the gradient's norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        raise DivergedError(
            f"step {number}: {what}, at a learning rate of {self.config.lr(number):.3g}; the "
            "weights are those before the step. Lower max_lr, lengthen the warm-up or look at the "
            "batch."
        )


# --- the run ------------------------------------------------------------------------------------


class _Keeper:
    """Writes and reads the checkpoints of a run, where it has a folder."""

    def __init__(self, run: _Run, folder: Path | None, tokenizer_hash: str | None) -> None:
        self.run, self.folder, self.tokenizer_hash = run, folder, tokenizer_hash
        self.saved_step = -1

    def begin(self, resume: bool) -> None:
        """Go to where the folder's last checkpoint stands; refuse to mix two runs in a folder."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)  # better fails now than after the run
        found, kept = checkpoint.steps(self.folder), checkpoint.steps(self.folder / MILESTONES)
        if (found or kept) and not resume:
            raise CheckpointError(
                f"{self.folder} holds checkpoints up to step {max(found | kept)}; pass resume=True "
                "to go on from there, or another folder for another run"
            )
        if found:
            self._resume(checkpoint.load(self.folder))
        elif kept:  # the run begins anew, having left nothing to go on from
            shutil.rmtree(self.folder / MILESTONES, ignore_errors=True)

    def _resume(self, last: checkpoint.Checkpoint) -> None:
        run = self.run
        if self.tokenizer_hash is not None:
            last.check_tokenizer(self.tokenizer_hash)
        recorded, ours = last.extra.get("config"), _as_json(run)
        if not isinstance(recorded, dict) or last.data is None:
            raise CheckpointError(
                f"{last.path} was not written by train, so the run that led to it cannot go on; "
                "start a new one from its weights with Checkpoint.model()"
            )
        if run.config.precision == "auto" and recorded.get("precision") in ("float32", "bfloat16"):
            run.use(recorded["precision"])  # what paid then decides, also where it does not pay now
            ours["precision"] = run.precision
        changed = [name for name in ours if recorded.get(name) != ours[name]]
        if changed:
            name = changed[0]
            raise CheckpointError(
                f"{last.path} belongs to a run with {name}={recorded.get(name)!r}, this one has "
                f"{name}={ours[name]!r}; resume with the same settings or choose another folder"
            )
        try:
            run.history = History.from_dict(last.extra.get("history"))
        except ValueError as error:
            raise CheckpointError(f"{last.path}: {error}; remove it to go on before it") from error
        checkpoint.restore(last, run.model, run.optimizer)
        run.batches.restore(last.data)
        run.history.stopped, self.saved_step = None, last.step
        self.tokenizer_hash = last.tokenizer_hash

    def save(self) -> None:
        """Write a checkpoint of this step, once."""
        run, step = self.run, self.run.history.n_steps
        if self.folder is None or step == self.saved_step:
            return
        checkpoint.save(
            self.folder,
            run.model,
            step=step,
            optimizer=run.optimizer,
            data=run.batches.state(),
            tokenizer_hash=self.tokenizer_hash,
            extra={"config": _as_json(run), "history": asdict(run.history)},
            keep=run.config.keep,
        )
        self.saved_step = step

    def mark(self) -> None:
        """Keep the weights of this step, where it is a milestone."""
        step = self.run.history.n_steps
        if self.folder is None or step not in self.run.config.milestones:
            return
        folder = self.folder / MILESTONES
        found = checkpoint.steps(folder)
        if step not in found:  # it is there where a run was killed after it
            model, keep = self.run.model, len(found) + 1
            checkpoint.save(folder, model, step=step, tokenizer_hash=self.tokenizer_hash, keep=keep)

    def last_good(self) -> str:
        """For an error message: what there is to go back to."""
        if self.saved_step < 0:
            return "No checkpoint was saved"
        return f"The last good checkpoint is of step {self.saved_step}, in {self.folder}"


def _as_json(run: _Run) -> dict[str, Any]:
    """The settings that a resumed run has to share, as json gives them back."""
    may_differ = ("evaluate_every", "evaluate_at", "save_every", "keep", "milestones", "compile")
    settings = {k: v for k, v in asdict(run.config).items() if k not in may_differ}
    return {**settings, "precision": run.precision}


class _Display:
    """One bar for the run, and TensorBoard where it was asked for."""

    def __init__(
        self, run: _Run, total: int, progress: bool, log_dir: str | os.PathLike[str] | None
    ) -> None:
        from tqdm import tqdm

        self.writer = None if log_dir is None else _summary_writer(log_dir)
        off = {} if progress else {"disable": True}  # TQDM_DISABLE=1 is heard only without
        self.bar = tqdm(total=total, initial=run.history.n_steps, unit="step", **off)
        self.run, self.evaluated = run, dict[str, str]()

    def stepped(self) -> None:
        history = self.run.history
        rate = history.n_tokens[-1] / max(history.seconds[-1], 1e-9)
        shown = {"loss": f"{history.loss[-1]:.3f}", **self.evaluated, "tokens/s": f"{rate:,.0f}"}
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
        values = {"loss": history.loss[-1], "lr": history.lr[-1], "tokens/s": rate}
        self._write("train", {**values, "grad_norm": history.grad_norm[-1], **history.metrics[-1]})

    def evaluate(self, metrics: Mapping[str, float]) -> None:
        shown = [name for name in ("gap",) if name in metrics] or list(metrics)[:1]
        self.evaluated = {name: f"{metrics[name]:.3f}" for name in shown}
        self._write("evaluation", metrics)

    def _write(self, kind: str, values: Mapping[str, float]) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{kind}/{name}", value, self.run.history.n_steps)

    def close(self) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()


def _summary_writer(log_dir: str | os.PathLike[str]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ModuleNotFoundError(
            "log_dir writes for TensorBoard, which is not installed; pip install tensorboard, or "
            "leave log_dir out: the history holds the same numbers"
        ) from error
    return SummaryWriter(str(log_dir))


def _evaluate(run: _Run, display: _Display, evaluate: Evaluate | None) -> None:
    """Evaluate in evaluation mode, leaving no trace in the random state that training draws on."""
    if evaluate is None:
        return
    training = run.model.training
    devices = [run.device] if run.device.type == "cuda" else []
    run.model.eval()
    stance = torch.compiler.set_stance("force_eager" if run.config.compile else "default")
    with torch.random.fork_rng(devices), stance:
        # Evaluation has other lengths, and each would be compiled.
        metrics = {name: float(value) for name, value in evaluate(run.model).items()}
    run.model.train(training)
    run.history.evaluations.append((run.history.n_steps, metrics))
    display.evaluate(metrics)


def _loop(run: _Run, keeper: _Keeper, display: _Display, evaluate: Evaluate | None) -> None:
    """Steps until the last one, a signal, or the end of the batches."""
    config, history = run.config, run.history
    with _signals_noted() as noted:
        while history.n_steps < config.n_steps and not noted:
            try:
                run.step()
            except StopIteration:
                history.stopped = "the batches ended"
                break
            except DivergedError as error:
                raise DivergedError(f"{error} {keeper.last_good()}") from None
            display.stepped()
            keeper.mark()
            step = history.n_steps
            due = config.evaluate_every and step % config.evaluate_every == 0
            if (due or step in config.evaluate_at) and step < config.n_steps:
                _evaluate(run, display, evaluate)
            if config.save_every and step % config.save_every == 0 and step < config.n_steps:
                keeper.save()
        if noted and history.n_steps < config.n_steps:
            history.stopped = noted[0]
        elif not history.evaluations or history.evaluations[-1][0] < history.n_steps:
            _evaluate(run, display, evaluate)
        keeper.save()


def train(
    model: Trainable,
    batches: BatchSource,
    config: TrainConfig,
    loss_fn: LossFn = next_token_loss,
    *,
    evaluate: Evaluate | None = None,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    tokenizer_hash: str | None = None,
    log_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> History:
    """Train ``model`` in place and return what happened.

    ``loss_fn(model, batch)`` returns a mean loss, (), and metrics to note; the batches of a step
    are weighted by their targets that count (by their weights, where they have ``weights``), so
    that accumulating equals one large batch.
    ``evaluate(model)`` returns metrics; it runs in evaluation mode and cannot disturb the run. With
    a ``folder`` checkpoints are written there, and with ``resume`` the run goes on from the latest,
    to the bit as if it had not stopped (on a CPU); where there is none it begins anew, and
    milestones that an earlier one left are deleted. ``log_dir`` writes for TensorBoard. Ctrl-C and
    SIGTERM end the run after the step, with a checkpoint, and ``History.stopped`` says so. The
    model is left in evaluation mode, in the dtype it was trained in. Precision ``auto`` is float32
    where some parameters are frozen: they have no exact copy to come back to.

    Raises DivergedError where loss or gradient is no number: the weights are then those before the
    step; CheckpointError for a folder that holds another run; ValueError for betas or a weight
    decay out of range, and from ``loss_fn``; ModuleNotFoundError for a ``log_dir`` without
    TensorBoard.
    """
    runtime.reuse_memory()
    run = _Run(model, batches, config, loss_fn)
    keeper = _Keeper(run, None if folder is None else Path(folder), tokenizer_hash)
    keeper.begin(resume)
    if config.compile:
        for block in model.blocks:
            block.compile()
    display = _Display(run, config.n_steps, progress, log_dir)
    model.train()
    try:
        _loop(run, keeper, display, evaluate)
    finally:
        display.close()
        model.eval()
        if config.compile:
            for block in model.blocks:  # compiled for the lengths of training alone
                block._compiled_call_impl = None
    return run.history
