"""The fast step of generation on a CPU: ``kernels`` run on threads, with the cache of attention.

PyTorch reads a prompt well, many tokens at a time. One token at a time it reaches a part of the
memory's bandwidth, and for a small model spends its time between the operations. A ``Decoder``
takes over after the prompt, with the model's own weights and, for float32, its own cache.
Chapter 4 shows the difference; ``generate`` uses it where it applies.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from llm_core.attention import KVCache
from llm_core.compilation import announce_compilation
from llm_core.config import GPTConfig
from llm_core.kernels import step
from llm_core.model import GPT, Block
from llm_core.plan import Numbers, Turn, plan_of, space_for

# A thread has to be woken for each token and meets the others several times a layer: with fewer
# bytes of weights for each, that costs more than it saves.
BYTES_PER_THREAD = 4_000_000


class _Team:
    """The other threads of a step. One step runs at a time, or two would wait for one another."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin with none: a forked process inherits the lock and the list, but no threads."""
        self.lock = threading.Lock()
        self.threads: ThreadPoolExecutor | None = None
        self.size = 0

    def others(self, n: int) -> ThreadPoolExecutor:
        """At least n threads besides the caller's."""
        if self.threads is None or self.size < n:
            self.dismiss()
            self.threads, self.size = ThreadPoolExecutor(n, "decode"), n
        return self.threads

    def dismiss(self) -> None:
        """Wait until all have ended, and go on with none."""
        if self.threads is not None:
            self.threads.shutdown()
        self.threads, self.size = None, 0


_team = _Team()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_team.forget)


def _linear(model: GPT) -> Iterator[nn.Module]:
    """The layers whose matrices a step reads, whatever stands in their place."""
    for block in cast(list[Block], model.blocks):
        yield from (block.attention.qkv, block.attention.out, block.mlp.up, block.mlp.down)
    if model.head is not None:
        yield model.head


def can_decode(model: GPT) -> bool:
    """Whether a ``Decoder`` can run the model: on a CPU, all parameters float32 or all bfloat16.

    bfloat16 rows must have an even length, for two numbers are read at once. The matrices must be
    plain linear layers: others, such as those of LoRA, compute more than the loops would.
    """
    if any(type(layer) is not nn.Linear for layer in _linear(model)):
        return False
    dtypes = {parameter.dtype for parameter in model.parameters()}
    config = model.config
    widths = (config.d_model, config.d_ff, config.n_head * config.head_dim)
    even = all(width % 2 == 0 for width in widths)
    return model.output_weight.device.type == "cpu" and (
        dtypes == {torch.float32} or (dtypes == {torch.bfloat16} and even)
    )


def copied(
    cache: KVCache,
    config: GPTConfig,
    max_length: int,
    num_samples: int = 1,
    dtype: torch.dtype = torch.float32,
) -> KVCache:
    """A cache with room for ``max_length`` that holds each row of ``cache`` ``num_samples`` times.

    ``max_length`` is at least that of ``cache``.
    """
    n_rows, padding = num_samples * cache.k.shape[1], cache.padding
    if padding is not None:
        padding = padding.repeat_interleave(num_samples)
    copy = KVCache(config, n_rows, max_length, padding, cache.k.device, dtype)
    n_slots = min(cache.length, cache.capacity)  # a full ring is as long as the copy's
    for old, new in ((cache.k, copy.k), (cache.v, copy.v)):
        new[:, :, :, :n_slots] = old[:, :, :, :n_slots].repeat_interleave(num_samples, dim=1)
    copy.length = cache.length
    return copy


class Decoder:
    """Reads one token a step for each of ``batch_size`` sequences, up to ``max_length`` positions.

    ``start`` with the cache of a prompt that the model has read, then ``step`` for every new token.
    The arithmetic is float32, so that a bfloat16 model gives what the same weights would give as
    float32. Matrices are read where they lie: a change to them in place shows in the next step.
    So do norms, biases and positions of a float32 model; those of a bfloat16 one are copied when
    the decoder is made. There is no dropout and no gradient.

    Raises ValueError for a model that ``can_decode`` refuses and for more than its context length.
    """

    def __init__(self, model: GPT, batch_size: int = 1, max_length: int | None = None) -> None:
        if not can_decode(model):
            raise ValueError(
                f"a model with parameters of {model.output_weight.dtype} on "
                f"{model.output_weight.device} cannot be decoded by the CPU's loops; move it with "
                "model.to('cpu', torch.float32), merge LoRA parts if it has some, or call the "
                "model itself with a KVCache"
            )
        most = model.config.context_length
        self.config, self.batch_size = model.config, batch_size
        self.max_length = most if max_length is None else max_length
        if self.max_length > most:
            raise ValueError(
                f"max_length={max_length} exceeds context_length={most}; leave it out for all of it"
            )
        announce_compilation("decoder")
        self._plan, self._kept = plan_of(model, self.max_length)
        self._space = space_for(model.config, batch_size)
        read = {t.data_ptr(): t.numel() * t.element_size() for t in self._kept}  # tied ones once
        threads = sum(read.values()) // BYTES_PER_THREAD
        self.n_threads = max(1, min(torch.get_num_threads(), threads))
        self.cache: KVCache | None = None

    def start(self, cache: KVCache | None = None) -> None:
        """Go on after what ``cache`` holds, or begin with nothing.

        A float32 cache is shared and grows with every step; another is copied as float32.
        Raises ValueError for another batch size or architecture, more positions than
        ``max_length``, and a row of padding alone.
        """
        if cache is None:
            cache = KVCache(self.config, self.batch_size, self.max_length)
        c = self.config
        shape = (c.n_layer, self.batch_size, c.n_kv_head, cache.capacity, c.head_dim)
        if tuple(cache.k.shape) != shape:
            raise ValueError(
                f"the cache has the shape {tuple(cache.k.shape)}, the decoder needs {shape}; make "
                "it for the same model and number of rows"
            )
        if cache.padding is not None and int(cache.padding.max()) >= max(1, cache.length):
            raise ValueError("a row of the cache is padding alone; read the prompts into it first")
        if cache.max_length > self.max_length:
            raise ValueError(
                f"the cache holds {cache.k.shape[1]} rows of up to {cache.max_length} positions, "
                f"the decoder {self.batch_size} of up to {self.max_length}; make it for the cache"
            )
        if cache.k.dtype != torch.float32:
            cache = copied(cache, self.config, cache.max_length)
        self.cache = cache
        n_rows, padding = self.batch_size, self.cache.padding
        self._padding = np.zeros(n_rows, np.int64) if padding is None else padding.numpy()
        self._arrays = self.cache.k.numpy(), self.cache.v.numpy()

    def step(self, ids: Tensor) -> Tensor:
        """The logits that follow one more token of each sequence: (B,) int64 -> (B, V) float32.

        The next step overwrites them. Raises ValueError for ids that are not one for each row or
        not in the vocabulary, and past ``max_length``.
        """
        if self.cache is None:
            self.start()
        assert self.cache is not None
        values = np.ascontiguousarray(ids.numpy())  # numba compiles anew for other strides
        self._check(values)
        column = self.cache.length
        self.cache.positions(1)  # raises if there is no room
        self._run(values, column)
        self.cache.advance(1)
        return torch.from_numpy(self._space.logits)

    def _check(self, ids: Numbers) -> None:
        if ids.shape != (self.batch_size,) or ids.dtype != np.int64:
            raise ValueError(
                f"ids have shape {ids.shape} and dtype {ids.dtype}; give one int64 for each of the "
                f"{self.batch_size} rows"
            )
        if ids.min() < 0 or ids.max() >= self.config.vocab_size:
            wrong = ids[(ids < 0) | (ids >= self.config.vocab_size)][0]
            raise ValueError(
                f"id {wrong} is not in the vocabulary, 0 to {self.config.vocab_size - 1}; encode "
                "with the tokenizer that the model was trained with"
            )

    def _run(self, ids: Numbers, column: int) -> None:
        n, arrived = self.n_threads, np.zeros(1, np.int64)
        given = (self._plan, self._space, Turn(ids, self._padding, column, *self._arrays))
        meeting = arrived.ctypes.data
        if n == 1:
            step(*given, 0, 1, meeting)
            return
        with _team.lock:
            others = _team.others(n - 1)
            try:
                done = [others.submit(step, *given, thread, n, meeting) for thread in range(1, n)]
                step(*given, 0, n, meeting)
                for one in done:
                    one.result()
            except BaseException:  # Ctrl-C between two lines: nobody waits for who does not come
                arrived[0] = 1 << 62
                _team.dismiss()
                raise
