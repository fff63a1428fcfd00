"""A language model from scratch in one file: tokenizer, GPT, training and sampling.

These are the listings of the book *Ground Truth: Build a Large Language Model from Scratch*, in its
order, and nothing else: what a chapter derives stands here as it stands there. Give it any text in
UTF-8; it learns tokens from it, trains a small model to predict them and lets it speak:

    pip install numpy regex torch
    python minillm.py mybook.txt

Generated from the chapters by `make minillm`: change their cells, not this file.
"""

import itertools
import math
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex
import torch
from torch import nn
from torch.nn import functional as F

# --------------------------------------------------------------------------------------------------
# Chapter 1: Tokenization
# --------------------------------------------------------------------------------------------------


GPT2 = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+"
    r"| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)


def merge_pair(word, pair):
    """Replace every occurrence of the pair in a tuple of bytes."""
    joined, i = [], 0
    while i < len(word):
        hit = word[i : i + 2] == pair
        joined.append(word[i] + word[i + 1] if hit else word[i])
        i += 2 if hit else 1
    return tuple(joined)


def learn_merges(text, n_merges):
    """The most frequent pair becomes a token; repeat."""
    pieces = Counter(regex.findall(GPT2, text))
    words = {tuple(bytes([b]) for b in piece.encode()): n for piece, n in pieces.items()}
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        if not pairs:  # every word is one token
            break
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        words = {merge_pair(w, merges[-1]): n for w, n in words.items()}
    return merges


def encode_piece(piece, ranks):
    """One pre-token (bytes) to tokens; ranks maps a pair to its place."""
    word = tuple(bytes([b]) for b in piece)
    while len(word) > 1:
        first = min(zip(word, word[1:]), key=lambda pair: ranks.get(pair, len(ranks)))
        if first not in ranks:
            break
        word = merge_pair(word, first)
    return word


# --------------------------------------------------------------------------------------------------
# Chapter 2: Embeddings
# --------------------------------------------------------------------------------------------------


def window(ids, start, context_length):
    """(n_ids,) -> inputs (T,) and targets (T,), one place further on."""
    piece = ids[start : start + context_length + 1]
    return piece[:-1], piece[1:]


def make_batch(ids, starts, context_length):
    """Windows at B starts -> {"ids": (B, T), "targets": (B, T)} int64."""
    pairs = [window(ids, start, context_length) for start in starts]
    inputs, targets = np.stack(pairs, axis=1).astype(np.int64)  # (B, T)
    return {"ids": torch.from_numpy(inputs), "targets": torch.from_numpy(targets)}


def mix(value, key):
    """A number of 64 bits that looks random, from two others."""
    value = (value ^ key) * 0x9E3779B97F4A7C15 % 2**64
    value = (value ^ (value >> 29)) * 0xBF58476D1CE4E5B9 % 2**64
    return value ^ (value >> 32)


def shuffled(i, n, key):
    """The window at place i: a permutation of range(n), without a list."""
    half = max(1, ((n - 1).bit_length() + 1) // 2)  # bits
    while True:
        for round_key in key:
            left, right = i >> half, i % 2**half
            changed = left ^ (mix(right, round_key) % 2**half)
            i = (right << half) | changed
        if i < n:
            return i


def epoch_batches(ids, batch_size, context_length, seed=0, epoch=0, step=0):
    """The batches of an epoch from a step on; no target comes twice."""
    n = (len(ids) - 1) // context_length - 1
    generator = np.random.default_rng([seed, epoch])
    offset = int(generator.integers(context_length))
    key = generator.integers(2**64, size=6, dtype=np.uint64).tolist()
    for first in range(step * batch_size, n - batch_size + 1, batch_size):
        places = range(first, first + batch_size)
        starts = [offset + context_length * shuffled(i, n, key) for i in places]
        yield make_batch(ids, starts, context_length)


class TokenAndPositionEmbedding(nn.Module):
    """ids (B, T) int64 -> x (B, T, D): what the token is, plus where."""

    def __init__(self, vocab_size, context_length, d_model, std=0.02):
        super().__init__()
        self.token_embedding = nn.Embedding(vocab_size, d_model)
        self.position_embedding = nn.Embedding(context_length, d_model)
        for table in (self.token_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=std)

    def forward(self, ids, start=0):
        stop = start + ids.shape[1]
        positions = torch.arange(start, stop, device=ids.device)
        token = self.token_embedding(ids)  # (B, T, D)
        return token + self.position_embedding(positions)  # + (T, D)


# --------------------------------------------------------------------------------------------------
# Chapter 3: Causal attention
# --------------------------------------------------------------------------------------------------


def causal_bias(T, device=None):
    """The mask M, (T, T): 0 on and below the diagonal, -inf above."""
    return torch.full((T, T), -math.inf, device=device).triu(diagonal=1)


def scaled_attention(q, k, v, mask, dropout=0.0):
    """q, k, v (..., T, C), mask (T, T) to be added -> (..., T, C)."""
    d_k = q.shape[-1]
    scores = q @ k.transpose(-2, -1) / math.sqrt(d_k)  # (..., T, T)
    weights = (scores + mask).softmax(dim=-1)
    weights = F.dropout(weights, dropout)
    return weights @ v  # (..., T, C)


class CausalSelfAttention(nn.Module):
    """H heads in one matrix: x (B, T, D) -> (B, T, D)."""

    def __init__(self, config):
        super().__init__()
        self.n_head, self.dropout = config.n_head, config.dropout
        self.head_dim = config.d_model // config.n_head
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)

    def heads(self, x):
        """x (B, T, D) -> q, k, v (B, H, T, C) each."""
        rows = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        return rows.transpose(1, 2).chunk(3, dim=1)  # of (B, 3H, T, C)

    def forward(self, x, mask=None):
        q, k, v = self.heads(x)
        if mask is None:
            mask = causal_bias(x.shape[1], x.device)
        dropout = self.dropout if self.training else 0.0
        y = scaled_attention(q, k, v, mask, dropout)  # (B, H, T, C)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, T, D)


# --------------------------------------------------------------------------------------------------
# Chapter 4: The full GPT
# --------------------------------------------------------------------------------------------------


class LayerNorm(nn.Module):
    """Each vector to mean 0 and variance 1, then scaled and shifted."""

    def __init__(self, d_model, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))

    def forward(self, x):  # (..., D) -> (..., D)
        mean = x.mean(dim=-1, keepdim=True)  # (..., 1)
        variance = (x - mean).square().mean(dim=-1, keepdim=True)
        x = (x - mean) / (variance + self.eps).sqrt()
        return self.weight * x + self.bias


class MLP(nn.Module):
    """Widen, bend, narrow, at each position alone: (B, T, D) -> same."""

    def __init__(self, config):
        super().__init__()
        self.approximate = "tanh" if config.mlp == "gelu_tanh" else "none"
        self.up = nn.Linear(config.d_model, config.d_ff)
        self.down = nn.Linear(config.d_ff, config.d_model)

    def forward(self, x):
        x = F.gelu(self.up(x), approximate=self.approximate)  # (B, T, 4D)
        return self.down(x)


class Block(nn.Module):
    """Attention, then the MLP, each added to the residual stream."""

    def __init__(self, config):
        super().__init__()
        self.attention_norm = LayerNorm(config.d_model)
        self.attention = CausalSelfAttention(config)
        self.mlp_norm = LayerNorm(config.d_model)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, x, **past):  # (B, T, D) -> (B, T, D)
        attended = self.attention(self.attention_norm(x), **past)
        x = x + self.drop(attended)
        return x + self.drop(self.mlp(self.mlp_norm(x)))


class GPT(nn.Module):
    """ids (B, T) int64 -> logits (B, T, V): GPT-2's architecture."""

    def __init__(self, config):
        super().__init__()
        V, D = config.vocab_size, config.d_model
        self.config = config
        self.token_embedding = nn.Embedding(V, D)
        self.position_embedding = nn.Embedding(config.context_length, D)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.final_norm = LayerNorm(D)

    def forward(self, ids, cache=None):
        T, past = ids.shape[1], {}
        positions = torch.arange(T, device=ids.device)
        if cache is not None:
            positions = cache.positions(T)
            past = {"cache": cache, "mask": cache.mask(T)}
        x = self.token_embedding(ids) + self.position_embedding(positions)
        x = self.drop(x)  # (B, T, D)
        for layer, block in enumerate(self.blocks):
            x = block(x, **past, **({"layer": layer} if past else {}))
        if cache is not None:
            cache.advance(T)
        return self.final_norm(x) @ self.token_embedding.weight.T


@torch.no_grad()
def draw_weights(model, std=None, shrink=True):
    """Normal weights of spread std (None: 1/sqrt(inputs)); biases 0."""
    writes = ("attention.out", "mlp.down")  # 2 L of them, into x
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            spread = std or module.in_features**-0.5
            if shrink and name.endswith(writes):
                spread /= math.sqrt(2 * model.config.n_layer)
            nn.init.normal_(module.weight, std=spread)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std or module.embedding_dim**-0.5)
    return model


@torch.no_grad()
def continue_ids(model, ids, n_new, choose):
    """Append n_new ids, each chosen from the logits (V,) of the last."""
    ids = list(ids)
    for _ in range(n_new):
        seen = torch.tensor([ids[-model.config.context_length :]])
        ids.append(int(choose(model(seen)[0, -1])))
    return ids


def cut_top_k(logits, k):  # (V,) -> (V,)
    smallest = logits.topk(min(k, len(logits))).values[-1]
    return logits.masked_fill(logits < smallest, -torch.inf)


def cut_top_p(logits, p):
    q, order = logits.softmax(dim=-1).sort(descending=True)
    before = q.cumsum(dim=-1) - q  # the mass of likelier tokens
    return logits.index_fill(-1, order[before >= p], -torch.inf)


def cut_min_p(logits, p):
    q = logits.softmax(dim=-1)
    return logits.masked_fill(q < p * q.max(), -torch.inf)


def sampler(temperature=1.0, top_k=None, top_p=None, min_p=None, seed=0):
    """A function from logits (V,) to an id, drawn after the filters."""
    generator = torch.Generator().manual_seed(seed)

    def choose(logits):
        if temperature == 0:
            return logits.argmax()
        logits = logits / temperature
        for cut, value in ((cut_top_k, top_k), (cut_top_p, top_p), (cut_min_p, min_p)):
            if value is not None:
                logits = cut(logits, value)
        line = logits.softmax(dim=-1).double().cumsum(dim=-1)
        point = torch.rand((), generator=generator, dtype=torch.float64)
        return torch.searchsorted(line, point * line[-1], right=True)

    return choose


# --------------------------------------------------------------------------------------------------
# Chapter 5: Pretraining
# --------------------------------------------------------------------------------------------------


def mean_loss(logits, targets):
    """logits (B, T, V), targets (B, T) -> mean of -ln q, (), in nats."""
    log_q = logits - logits.logsumexp(dim=-1, keepdim=True)
    return -log_q.gather(-1, targets[..., None]).mean()


class AdamW:
    """Adam with decoupled weight decay."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        self.params, self.lr, self.betas = list(params), lr, betas
        self.eps, self.weight_decay, self.t = eps, weight_decay, 0
        self.mean = [torch.zeros_like(w) for w in self.params]  # m
        self.square = [torch.zeros_like(w) for w in self.params]  # v

    @torch.no_grad()
    def step(self):
        self.t += 1
        beta1, beta2 = self.betas
        for w, m, v in zip(self.params, self.mean, self.square):
            m.mul_(beta1).add_((1 - beta1) * w.grad)
            v.mul_(beta2).add_((1 - beta2) * w.grad**2)
            m_hat = m / (1 - beta1**self.t)
            v_hat = v / (1 - beta2**self.t)
            w.mul_(1 - self.lr * self.weight_decay)
            w.sub_(self.lr * m_hat / (v_hat.sqrt() + self.eps))

    def zero_grad(self):
        for w in self.params:
            w.grad = None


def cosine_lr(step, max_lr, min_lr, warmup_steps, n_steps):
    """A straight rise, then half a cosine down to min_lr."""
    if step < warmup_steps:
        return max_lr * step / warmup_steps
    share = (step - warmup_steps) / max(1, n_steps - warmup_steps)
    wave = (1 + math.cos(math.pi * min(share, 1))) / 2
    return min_lr + (max_lr - min_lr) * wave


@torch.no_grad()
def clip_grad_norm_(params, max_norm):
    """Shrink all gradients by one factor; their joint norm before."""
    params = list(params)
    norm = torch.stack([w.grad.norm() for w in params]).norm()
    for w in params:
        w.grad.mul_(min(1.0, max_norm / norm.item()))
    return norm


@dataclass(frozen=True)
class Settings:
    """A model and a run."""

    vocab_size: int = 1024
    context_length: int = 64
    n_layer: int = 4
    n_head: int = 4
    d_model: int = 128
    d_ff: int = 512
    mlp: str = "gelu"
    dropout: float = 0.0
    n_steps: int = 500
    batch_size: int = 16
    max_lr: float = 2e-3
    min_lr: float = 2e-4
    warmup_steps: int = 50
    weight_decay: float = 0.1
    betas: tuple = (0.9, 0.95)
    max_norm: float = 1.0
    seed: int = 0


def fit(model, batches, settings):
    """Train the model in place; the loss before each step."""
    s, losses = settings, []
    groups = [
        [w for w in model.parameters() if w.dim() >= 2],
        [w for w in model.parameters() if w.dim() < 2],
    ]
    optimizers = [
        AdamW(group, betas=s.betas, weight_decay=decay)
        for group, decay in zip(groups, (s.weight_decay, 0.0))
    ]
    model.train()
    for step in range(1, s.n_steps + 1):
        batch = next(batches)
        loss = mean_loss(model(batch["ids"]), batch["targets"])
        loss.backward()
        clip_grad_norm_(model.parameters(), s.max_norm)
        lr = cosine_lr(step, s.max_lr, s.min_lr, s.warmup_steps, s.n_steps)
        for optimizer in optimizers:
            optimizer.lr = lr
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


def main(path, settings=Settings()):
    """Learn tokens from a text file, then to predict them; speak."""
    text = Path(path).read_text(encoding="utf-8")
    merges = learn_merges(text, settings.vocab_size - 256)
    ranks = {pair: place for place, pair in enumerate(merges)}
    vocab = [bytes([b]) for b in range(256)]
    vocab += [left + right for left, right in merges]
    id_of = {token: i for i, token in enumerate(vocab)}
    pieces = regex.findall(GPT2, text)
    ids_of = {
        piece: [id_of[t] for t in encode_piece(piece.encode(), ranks)] for piece in set(pieces)
    }
    ids = np.array([i for piece in pieces for i in ids_of[piece]])
    least = (settings.batch_size + 1) * settings.context_length + 1
    if len(ids) < least:
        raise ValueError(f"{path} has {len(ids)} tokens; give {least}")

    def batches():
        for epoch in itertools.count():
            yield from epoch_batches(
                ids, settings.batch_size, settings.context_length, settings.seed, epoch
            )

    torch.manual_seed(settings.seed)
    model = draw_weights(GPT(settings))
    losses = fit(model, batches(), settings)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    written = continue_ids(model, ids[:1], 200, sampler(seed=settings.seed))
    print(b"".join(vocab[i] for i in written).decode("utf-8", "replace"))
    return losses


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python minillm.py FILE, a text in UTF-8")
    main(sys.argv[1])
