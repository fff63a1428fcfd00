"""Where the compiled step finds what it reads: a model as numbers and addresses.

Compiled loops know nothing of modules and tensors. ``plan_of`` hands them the addresses of the
model's own matrices, which are neither copied nor turned: float32 as it is, bfloat16 two numbers to
a word. What is small (norms, biases, positions) is float32, as the arithmetic is: of a bfloat16
model it is a copy, which does not follow later changes.
``kernels`` has the loops, ``decode`` runs them.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llm_core.config import GPTConfig
from llm_core.layers import Normalization, rope_table, sinusoidal_positions
from llm_core.model import GPT, Block

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
MLP_KINDS = ("gelu", "gelu_tanh", "swiglu")

# Numba takes NamedTuples for the same if types and number of their fields agree. After fields have
# changed places here, save kernels.py anew, or the code kept on disk goes on as before.


class Matrices(NamedTuple):
    """Addresses of each layer's matrices and their biases, each (L,); 0 where there is none."""

    qkv: Numbers
    qkv_bias: Numbers
    q_norm: Numbers
    k_norm: Numbers
    out: Numbers
    out_bias: Numbers
    up: Numbers
    up_bias: Numbers
    down: Numbers
    down_bias: Numbers


class Plan(NamedTuple):
    """What a step must know of the model. Addresses are 0 where there is nothing.

    The norms stand in the order in which a token meets them: one before each sublayer and one
    before the head. With norms after the sublayers there is none before the first.
    """

    matrices: Matrices
    norms: Numbers  # (2 L + 1, 2) addresses of weight and bias
    embedding: int  # addresses of the tables
    head: int
    positions: int  # (max_length, D)
    cos: int  # (max_length, R / 2)
    sin: int
    n_head: int
    rotary_pairs: int  # R / 2
    mlp: int  # place in MLP_KINDS
    bfloat16: bool
    rms: bool
    pre: bool
    interleaved: bool
    eps: float


class Space(NamedTuple):
    """What the threads share while a token passes; all float32."""

    x: Floats  # (B, D)
    qkv: Floats  # (B, (H + 2 K) C)
    mixed: Floats  # (B, H C)
    wide: Floats  # (B, F or 2 F)
    bent: Floats  # (B, F)
    change: Floats  # (B, D), what a sublayer adds
    logits: Floats  # (B, V)


class Turn(NamedTuple):
    """What changes from token to token, and the cache: column t stands in slot t % capacity."""

    ids: Numbers  # (B,)
    padding: Numbers  # (B,) columns in front of a row that are no tokens
    column: int
    keys: Floats  # (L, B, K, capacity, C)
    values: Floats


def space_for(config: GPTConfig, batch_size: int) -> Space:
    """Room for a step of ``batch_size`` sequences."""
    d, f, mixed = config.d_model, config.d_ff, config.n_head * config.head_dim
    n_rows = mixed + 2 * config.n_kv_head * config.head_dim
    wide = 2 * f if config.mlp == "swiglu" else f
    widths = (d, n_rows, mixed, wide, f, d, config.vocab_size)
    return Space(*(np.zeros((batch_size, width), np.float32) for width in widths))


class _Addresses:
    """Turns tensors into addresses and keeps alive what they point to."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def of(self, tensor: Tensor | None) -> int:
        if tensor is None:
            return 0
        tensor = tensor.detach().contiguous()  # parameters are: no copy
        self.kept.append(tensor)
        return tensor.data_ptr()

    def of_small(self, tensor: Tensor | None) -> int:
        return self.of(None if tensor is None else tensor.detach().float())

    def of_norm(self, norm: Normalization | None) -> tuple[int, int]:
        return (0, 0) if norm is None else (self.of_small(norm.weight), self.of_small(norm.bias))


def _matrices(model: GPT, at: _Addresses) -> Matrices:
    rows = []
    for block in cast(list[Block], model.blocks):
        attention, mlp = block.attention, block.mlp
        row = [at.of(attention.qkv.weight), at.of_small(attention.qkv.bias)]
        row += [at.of_norm(attention.q_norm)[0], at.of_norm(attention.k_norm)[0]]
        row += [at.of(attention.out.weight), at.of_small(attention.out.bias)]
        row += [at.of(mlp.up.weight), at.of_small(mlp.up.bias)]
        row += [at.of(mlp.down.weight), at.of_small(mlp.down.bias)]
        rows.append(row)
    columns = np.array(rows, dtype=np.int64).T
    return Matrices(*(column.copy() for column in columns))


def _norms(model: GPT, at: _Addresses) -> Numbers:
    norms: list[Normalization | None] = []
    for block in cast(list[Block], model.blocks):
        norms += [block.attention_norm, block.mlp_norm]
    norms = [*norms, model.final_norm] if model.config.norm.place == "pre" else [None, *norms]
    return np.array([at.of_norm(norm) for norm in norms], dtype=np.int64)


def _positions(model: GPT, max_length: int) -> Tensor | None:
    if model.position_embedding is not None:
        return model.position_embedding.weight[:max_length]
    if model.config.position == "sinusoidal":
        return sinusoidal_positions(torch.arange(max_length), model.config.d_model)
    return None


def plan_of(model: GPT, max_length: int) -> tuple[Plan, list[Tensor]]:
    """The plan for up to ``max_length`` positions, and the tensors to keep while it is used."""
    config, at = model.config, _Addresses()
    cos = sin = None
    if config.position == "rope":
        cos, sin = rope_table(torch.arange(max_length), config.head_dim, config.rope)
    plan = Plan(
        matrices=_matrices(model, at),
        norms=_norms(model, at),
        embedding=at.of(model.token_embedding.weight),
        head=at.of(model.output_weight),
        positions=at.of_small(_positions(model, max_length)),
        cos=at.of_small(cos),
        sin=at.of_small(sin),
        n_head=config.n_head,
        rotary_pairs=0 if cos is None else cos.shape[-1],
        mlp=MLP_KINDS.index(config.mlp),
        bfloat16=model.output_weight.dtype == torch.bfloat16,
        rms=config.norm.kind == "rmsnorm",
        pre=config.norm.place == "pre",
        interleaved=config.rope.layout == "interleaved",
        eps=config.norm.eps,
    )
    return plan, at.kept
