"""The whole GPT: ids in, logits out. It knows nothing of devices, files, ranks or optimizers.

Read ``GPT.hidden`` for the path of a token; ``Block`` is one step of it. Chapter 4 assembles the
model part by part and counts what it holds.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llm_core.attention import CausalSelfAttention, KVCache, causal_mask, document_mask
from llm_core.config import GPTConfig
from llm_core.layers import MLP, Normalization, rope_table, sinusoidal_positions

Init = Literal["gpt2", "fan_in"]


class Block(nn.Module):
    """Attention, then the MLP, each added to the residual stream: (B, T, D) -> (B, T, D)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.pre = config.norm.place == "pre"
        self.attention_norm = Normalization(config.d_model, config.norm, config.bias == "all")
        self.attention = CausalSelfAttention(config)
        self.mlp_norm = Normalization(config.d_model, config.norm, config.bias == "all")
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        rope_table: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """One layer; the arguments after ``x`` are those of ``CausalSelfAttention``."""
        if self.pre:
            past = rope_table, mask, cache, layer
            x = x + self.drop(self.attention(self.attention_norm(x), *past))
            x = x + self.drop(self.mlp(self.mlp_norm(x)))
            return x
        x = self.attention_norm(x + self.drop(self.attention(x, rope_table, mask, cache, layer)))
        x = self.mlp_norm(x + self.drop(self.mlp(x)))
        return x


class GPT(nn.Module):
    """A decoder-only language model after ``config``: ids (B, T) int64 -> logits (B, T, V).

    ``init`` draws the weights: ``gpt2`` from a normal of standard deviation 0.02 (Radford et al.,
    2019), ``fan_in`` with 1 / sqrt(inputs of the matrix); both divide the matrices that write to
    the residual stream by sqrt(2 L). Draws come from torch's global generator.
    """

    def __init__(self, config: GPTConfig, init: Init = "gpt2") -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        learned = config.position == "learned"
        self.position_embedding = (
            nn.Embedding(config.context_length, config.d_model) if learned else None
        )
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        pre = config.norm.place == "pre"
        self.final_norm = (
            Normalization(config.d_model, config.norm, config.bias == "all") if pre else None
        )
        self.head = (
            None if config.tied else nn.Linear(config.d_model, config.vocab_size, bias=False)
        )
        initialize(self, init)

    @property
    def output_weight(self) -> Tensor:
        """The matrix of the head, (V, D): the embedding table itself where the two are tied."""
        return self.token_embedding.weight if self.head is None else self.head.weight

    def forward(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """ids (B, T) int64 -> logits (B, T, V); the arguments are those of ``hidden``."""
        return self.logits(self.hidden(ids, cache, positions, documents))

    def logits(self, x: Tensor) -> Tensor:
        """The head alone: x (..., D) -> (..., V). Training applies it in chunks, see ``loss``."""
        return F.linear(x, self.output_weight)

    def hidden(
        self,
        ids: Tensor,
        cache: KVCache | None = None,
        positions: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """What the head reads: ids (B, T) int64 -> (B, T, D).

        ``cache`` holds the positions read before and takes up the new ones. ``positions`` (T,) or
        (B, T) are 0, 1, 2, ... unless given. ``documents`` (B, T) numbers the documents packed into
        a row, which then do not see one another. Raises ValueError for more positions than the
        context length, and for a cache together with positions or documents.
        """
        positions = self._positions(ids, cache, positions, documents)
        x = self.token_embedding(ids)
        if self.position_embedding is not None:
            x = x + self.position_embedding(positions)
        elif self.config.position == "sinusoidal":
            x = x + sinusoidal_positions(positions, self.config.d_model).to(x.dtype)
        table = None
        if self.config.position == "rope":
            table = rope_table(positions, self.config.head_dim, self.config.rope)
        mask = self._mask(ids, cache, documents)
        x = self.drop(x)
        for layer, block in enumerate(self.blocks):
            x = block(x, table, mask, cache, layer)
        if cache is not None:
            cache.advance(ids.shape[1])
        normed: Tensor = x if self.final_norm is None else self.final_norm(x)
        return normed

    def _positions(
        self,
        ids: Tensor,
        cache: KVCache | None,
        positions: Tensor | None,
        documents: Tensor | None,
    ) -> Tensor:
        n_new, most = ids.shape[1], self.config.context_length
        if cache is not None:
            if positions is not None or documents is not None:
                raise ValueError(
                    "a cache knows its positions and holds one document a row; pass either a "
                    "cache, or positions and documents"
                )
            if cache.length + n_new > most:
                raise ValueError(
                    f"{cache.length} cached positions and {n_new} new ones exceed "
                    f"context_length={most}; start a new cache from the last positions"
                )
            return cache.positions(n_new)
        if n_new > most:
            raise ValueError(
                f"{n_new} ids exceed context_length={most}; pass the last {most} of them, or make "
                "a config with a longer context"
            )
        return torch.arange(n_new, device=ids.device) if positions is None else positions

    def _mask(self, ids: Tensor, cache: KVCache | None, documents: Tensor | None) -> Tensor | None:
        """None where every position sees all of its past, which the kernels know how to do."""
        window, n_new = self.config.window, ids.shape[1]
        if cache is not None:
            return cache.mask(n_new)
        if documents is not None:
            return document_mask(documents, window)
        if window is None or n_new <= window:
            return None
        return causal_mask(n_new, window=window, device=ids.device)

    def num_parameters(self) -> int:
        """How many numbers the model learns; a tied table counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self, context_length: int | None = None, training: bool = True) -> int:
        """Floating-point operations a token costs, see ``flops_per_token`` below."""
        return flops_per_token(self.config, context_length, training)


# --- initialization -----------------------------------------------------------------------------


@torch.no_grad()
def initialize(model: GPT, init: Init = "gpt2") -> None:
    """Draw every weight anew; biases 0, norms 1. Raises ValueError for an unknown scheme."""
    if init not in ("gpt2", "fan_in"):
        raise ValueError(f"init={init!r} is unknown; choose gpt2 or fan_in")
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            std = 0.02 if init == "gpt2" else 1 / math.sqrt(module.in_features)
            if name.endswith(("attention.out", "mlp.down")):  # 2 L of them add up in the stream
                std /= math.sqrt(2 * model.config.n_layer)
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            std = 0.02 if init == "gpt2" else 1 / math.sqrt(module.embedding_dim)
            nn.init.normal_(module.weight, std=std)
        elif isinstance(module, Normalization):
            nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


# --- counting -----------------------------------------------------------------------------------


def parameter_table(config: GPTConfig) -> dict[str, int]:
    """How many parameters each kind of part has, over all layers, by formula: no model is made."""
    d, h, k, c, f = (
        config.d_model,
        config.n_head,
        config.n_kv_head,
        config.head_dim,
        config.d_ff,
    )
    n_rows, n_up = (h + 2 * k) * c, (2 if config.mlp == "swiglu" else 1) * f
    attention, mlp = d * n_rows + h * c * d, d * n_up + f * d
    if config.bias in ("all", "attention"):
        attention += n_rows + d
    if config.bias in ("all", "mlp"):
        mlp += n_up + d
    of_norm = d * (2 if config.norm.kind == "layernorm" and config.bias == "all" else 1)
    n_norms = 2 * config.n_layer + (config.norm.place == "pre")
    on_heads = 2 * c * config.n_layer if config.norm.on_qk else 0
    return {
        "token embedding": config.vocab_size * d,
        "position embedding": config.context_length * d if config.position == "learned" else 0,
        "attention": config.n_layer * attention,
        "MLP": config.n_layer * mlp,
        "normalization": n_norms * of_norm + on_heads,
        "head": 0 if config.tied else config.vocab_size * d,
    }


def flops_per_token(
    config: GPTConfig, context_length: int | None = None, training: bool = True
) -> int:
    """Floating-point operations a token costs on average, at a full context.

    A multiplication and an addition for every weight of a matrix product, and for every entry of
    the scores and of the weighted sum of values; a causal query sees half of the context on
    average (less with a window). The backward pass costs twice the forward one, so training costs
    three times as much. Paper: Kaplan et al. (2020), section 2.1, which leaves the head out.
    """
    n = config.context_length if context_length is None else context_length
    d, c, n_up = config.d_model, config.head_dim, 2 if config.mlp == "swiglu" else 1
    matrices = config.n_layer * (
        2 * d * (config.n_head + config.n_kv_head) * c + d * config.d_ff * (n_up + 1)
    )
    matrices += config.vocab_size * d  # the head
    w = min(n, config.window or n)
    seen_by_all = w * (w + 1) // 2 + (n - w) * w  # sum over queries of the positions seen
    scores = config.n_layer * 2 * config.n_head * c * seen_by_all // n
    forward = 2 * (matrices + scores)
    return 3 * forward if training else forward
