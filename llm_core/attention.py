"""Attention: who may look at whom, the function, the cache of what was seen, and the layer.

One function and one class serve multi-head, grouped-query and multi-query attention, with or
without a window. Masks follow torch: True means *may attend*. Chapter 3 builds all of it from the
average of the past, and derives the formula

    Attention(Q, K, V) = softmax(Q K^T / sqrt(C) + M) V.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llm_core import causal as cpu
from llm_core.config import GPTConfig
from llm_core.layers import Normalization, rotate

# --- masks --------------------------------------------------------------------------------------


def causal_mask(
    n_q: int,
    n_k: int | None = None,
    window: int | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """(n_q, n_k) bool, True where a query may attend: at its own position and before it.

    The queries are the last ``n_q`` of the ``n_k`` positions (all of them where ``n_k`` is not
    given). With a window a query sees that many positions, its own included.
    Raises ValueError if there are more queries than keys.
    """
    n_k = n_q if n_k is None else n_k
    if n_q > n_k:
        raise ValueError(
            f"n_q={n_q} queries are the last of n_k={n_k} positions, so there cannot be more of "
            "them; pass the keys of the queries' own positions too"
        )
    distance = torch.arange(n_k - n_q, n_k, device=device)[:, None] - torch.arange(
        n_k, device=device
    )
    visible = distance >= 0
    return visible if window is None else visible & (distance < window)


def document_mask(documents: Tensor, window: int | None = None) -> Tensor:
    """Causal, and within one document: documents (B, T) int64 -> (B, 1, T, T) bool.

    ``documents`` numbers the documents packed into a row, as ``dataset.batches(packed=True)`` does.
    """
    same = documents[:, :, None] == documents[:, None, :]
    causal = causal_mask(documents.shape[1], window=window, device=documents.device)
    return (same & causal)[:, None]


# --- the function -------------------------------------------------------------------------------


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """softmax(q kᵀ scale + M) v: q (..., H, Tq, C), k and v (..., K, Tk, C) -> (..., H, Tq, C).

    K divides H: each key/value head serves H / K query heads. ``mask`` is bool, True where a query
    may attend, and broadcasts to (..., H, Tq, Tk); ``causal`` lets the queries, the last Tq of the
    Tk positions, see their past. ``scale`` is 1 / sqrt(C) unless given. PyTorch picks the kernel
    (for training in bfloat16 on a CPU it is that of the module ``llm_core.causal``); the (Tq, Tk)
    table is not built where it can be avoided.
    Raises ValueError where heads do not divide, a mask is not bool, or a causal call has more
    queries than keys.
    Papers: Vaswani et al. (2017), Shazeer (2019), Ainslie et al. (2023), Dao et al. (2022).
    """
    n_head, n_kv_head, n_q, n_k = q.shape[-3], k.shape[-3], q.shape[-2], k.shape[-2]
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(
            f"the mask is {mask.dtype}; give truth values, True where a query may attend: for a "
            "mask of 0 and -inf that is mask == 0"
        )
    if n_head % n_kv_head:
        raise ValueError(
            f"{n_kv_head} key/value heads do not divide {n_head} query heads, of which each has "
            f"to serve as many; give a divisor of {n_head}"
        )
    if causal and (mask is not None or n_q != n_k):
        past = causal_mask(n_q, n_k, device=q.device)
        mask, causal = past if mask is None else mask & past, False
        if n_q == 1 and mask is past:  # the last position sees everything
            mask = None
    if causal and not dropout and cpu.applies(q, k, v):
        return cpu.causal_attention(q, k, v, scale)
    grouped = n_head != n_kv_head
    return F.scaled_dot_product_attention(
        q, k, v, mask, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )


# --- the cache ----------------------------------------------------------------------------------


class KVCache:
    """The keys and values of the positions read so far, for a batch that grows in step.

    Memory for ``max_length`` positions (for ``window`` of them, where the model has a window) is
    taken once, and nothing is ever moved or grown. Shorter sequences are padded on the left:
    ``padding`` (B,) counts the entries in front of each row that are no tokens.
    ``length`` is the number of columns read. A pass asks ``positions`` and ``mask``, hands each
    layer's keys and values to ``update``, and moves on with ``advance``.

    Raises ValueError for a ``padding`` that is not (B,), and where a pass would run past
    ``max_length``.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch_size: int,
        max_length: int | None = None,
        padding: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.max_length = config.context_length if max_length is None else max_length
        self.window = config.window
        self.capacity = min(self.max_length, config.window or self.max_length)
        shape = (config.n_layer, batch_size, config.n_kv_head, self.capacity, config.head_dim)
        self.k = torch.zeros(shape, device=device, dtype=dtype)  # (L, B, K, capacity, C)
        self.v = torch.zeros_like(self.k)
        if padding is not None and padding.shape != (batch_size,):
            raise ValueError(
                f"padding has shape {tuple(padding.shape)}; give one number for each of the "
                f"{batch_size} rows"
            )
        self.padding = None if padding is None or not bool(padding.any()) else padding
        self.length = 0

    @property
    def n_bytes(self) -> int:
        """Bytes that keys and values take: 2 x L x B x K x capacity x C x bytes a number."""
        return 2 * self.k.numel() * self.k.element_size()

    def positions(self, n_new: int) -> Tensor:
        """Where the next ``n_new`` columns stand: (T,), or (B, T) int64 where rows are padded.

        Raises ValueError if they do not fit.
        """
        if self.length + n_new > self.max_length:
            raise ValueError(
                f"{self.length} positions are cached and {n_new} more do not fit into "
                f"max_length={self.max_length}; make a longer cache, or start anew from the last "
                "positions"
            )
        columns = torch.arange(self.length, self.length + n_new, device=self.k.device)
        if self.padding is None:
            return columns
        return (columns - self.padding[:, None]).clamp(min=0)

    def _columns(self, n_new: int) -> Tensor:
        """Which column each key returned by ``update`` stands at, (Tk,) int64."""
        end, device = self.length + n_new, self.k.device
        if n_new == 1 and end > self.capacity:  # the ring, in the order of its slots
            slots = torch.arange(self.capacity, device=device)
            return end - 1 - (end - 1 - slots) % self.capacity
        return torch.arange(max(0, self.length - self.capacity), end, device=device)

    def mask(self, n_new: int) -> Tensor | None:
        """(1 or B, 1, n_new, Tk) bool for the next columns; None where all of the past is seen."""
        whole = self.padding is None and (n_new == 1 or self.length == 0)
        if whole and (self.window is None or n_new == 1 or n_new <= self.window):
            return None
        keys = self._columns(n_new)
        queries = torch.arange(self.length, self.length + n_new, device=keys.device)[:, None]
        visible = keys <= queries
        if self.window is not None:
            visible &= keys > queries - self.window
        if self.padding is None:
            return visible[None, None]
        tokens = keys >= self.padding[:, None]  # (B, Tk)
        own = keys == queries  # padding sees itself, so that no row of the table is empty
        return (visible & tokens[:, None] | own)[:, None]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store k, v (B, K, T, C) of the next columns -> all they may look at, (B, K, Tk, C)."""
        n_new, start = k.shape[-2], self.length
        if start + n_new <= self.capacity:
            self.k[layer, :, :, start : start + n_new] = k
            self.v[layer, :, :, start : start + n_new] = v
            end = start + n_new
            return self.k[layer, :, :, :end], self.v[layer, :, :, :end]
        if n_new == 1:
            slot = start % self.capacity
            self.k[layer, :, :, slot] = k[..., 0, :]
            self.v[layer, :, :, slot] = v[..., 0, :]
            return self.k[layer], self.v[layer]
        return self._roll(self.k[layer], k), self._roll(self.v[layer], v)

    def _roll(self, ring: Tensor, new: Tensor) -> Tensor:
        """All the ring holds, oldest first, and the new; the ring keeps the last of them."""
        n_new, start = new.shape[-2], self.length
        kept = torch.arange(max(0, start - self.capacity), start, device=ring.device)
        seen = torch.cat((ring[:, :, kept % self.capacity], new), dim=-2)
        last = torch.arange(max(0, start + n_new - self.capacity), start + n_new)
        ring[:, :, last.to(ring.device) % self.capacity] = seen[:, :, -len(last) :]
        return seen

    def advance(self, n_new: int) -> None:
        """Count columns as read, after every layer has stored them."""
        self.length += n_new


# --- the layer ----------------------------------------------------------------------------------


class CausalSelfAttention(nn.Module):
    """Self-attention with H query heads and K key/value heads: (B, T, D) -> (B, T, D).

    One matrix ``qkv`` makes queries, keys and values: its rows are the H query heads, then the K
    key heads, then the K value heads, C rows each. ``out`` mixes the heads' results.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.head_dim, self.dropout = config.head_dim, config.dropout
        self.layout, bias = config.rope.layout, config.bias in ("all", "attention")
        n_rows = (config.n_head + 2 * config.n_kv_head) * config.head_dim
        self.qkv = nn.Linear(config.d_model, n_rows, bias=bias)
        self.out = nn.Linear(config.n_head * config.head_dim, config.d_model, bias=bias)
        on_qk = config.norm.on_qk
        self.q_norm = Normalization(config.head_dim, config.norm, bias=False) if on_qk else None
        self.k_norm = Normalization(config.head_dim, config.norm, bias=False) if on_qk else None

    def heads(
        self, x: Tensor, rope_table: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, T, D) -> q (B, H, T, C), k and v (B, K, T, C), normalized and rotated."""
        rows = self.qkv(x).unflatten(-1, (-1, self.head_dim)).transpose(-3, -2)  # (B, H+2K, T, C)
        q, k, v = rows.split((self.n_head, self.n_kv_head, self.n_kv_head), dim=-3)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rope_table is not None:
            q, k = rotate(q, *rope_table, self.layout), rotate(k, *rope_table, self.layout)
        return q, k, v

    def forward(
        self,
        x: Tensor,
        rope_table: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Attend to the past, or to what ``mask`` (True: may attend) allows.

        ``rope_table`` is ``layers.rope_table`` at the positions of x; with a cache the past is what
        it holds for this ``layer``.
        """
        q, k, v = self.heads(x, rope_table)
        if cache is not None:
            k, v = cache.update(layer, k, v)
        dropout = self.dropout if self.training else 0.0
        y = attention(q, k, v, mask, causal=mask is None, dropout=dropout)  # (B, H, T, C)
        mixed: Tensor = self.out(y.transpose(-3, -2).flatten(-2))  # (B, T, D)
        return mixed
