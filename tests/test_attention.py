"""Attention against the formula, torch and causality itself; the cache against no cache."""

import math

import pytest
import torch
from torch import nn

from llm_core.attention import (
    CausalSelfAttention,
    KVCache,
    attention,
    causal_mask,
    document_mask,
)
from llm_core.config import GPTConfig, Norm, Rope
from llm_core.layers import rope_table

CONFIG = GPTConfig(vocab_size=100, context_length=16, n_layer=2, n_head=4, d_model=32)


def by_the_formula(q, k, v, mask, scale=None):
    """softmax(Q Kᵀ / sqrt(C) + M) V, written out, keys and values repeated for their group."""
    group = q.shape[-3] // k.shape[-3]
    k, v = (x.repeat_interleave(group, dim=-3) for x in (k, v))
    scores = q @ k.transpose(-2, -1) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1) @ v


# --- masks --------------------------------------------------------------------------------------


def test_masks_by_hand():
    assert causal_mask(3).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(2, 4).int().tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert causal_mask(4, window=2).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]
    documents = torch.tensor([[0, 0, 1, 1]])
    assert document_mask(documents)[0, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]
    with pytest.raises(ValueError, match="n_q=3 queries are the last of n_k=2"):
        causal_mask(3, 2)


# --- the function -------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@pytest.mark.parametrize(("n_q", "n_k"), [(5, 5), (3, 7), (1, 7)])
def test_attention_equals_the_formula_in_value_and_gradient(lead, n_kv_head, n_q, n_k):
    torch.manual_seed(0)
    shapes = [(*lead, 4, n_q, 8), (*lead, n_kv_head, n_k, 8), (*lead, n_kv_head, n_k, 8)]
    inputs = [torch.randn(shape) for shape in shapes]
    direction = torch.randn(*lead, 4, n_q, 8)
    results = []
    for function in (
        lambda q, k, v: attention(q, k, v, causal=True),
        lambda q, k, v: attention(q, k, v, mask=causal_mask(n_q, n_k)),
        lambda q, k, v: by_the_formula(q, k, v, causal_mask(n_q, n_k)),
    ):
        leaves = [x.clone().requires_grad_() for x in inputs]
        y = function(*leaves)
        (y * direction).sum().backward()
        results.append([y, *(x.grad for x in leaves)])
    for ours in results[:2]:
        for a, b in zip(ours, results[2], strict=True):
            torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-5)


def test_mask_and_causality_together_allow_what_both_allow():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 6, 8) for _ in range(3))
    mask = torch.rand(6, 6) < 0.5
    mask.fill_diagonal_(True)
    y = attention(q, k, v, mask=mask, causal=True)
    torch.testing.assert_close(y, by_the_formula(q, k, v, mask & causal_mask(6)))
    torch.testing.assert_close(
        attention(q, k, v, mask=mask, scale=0.3), by_the_formula(q, k, v, mask, scale=0.3)
    )


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="3 key/value heads do not divide 4 query heads"):
        attention(torch.zeros(4, 2, 8), torch.zeros(3, 2, 8), torch.zeros(3, 2, 8))
    with pytest.raises(ValueError, match="n_q=3"):
        attention(torch.zeros(1, 3, 8), torch.zeros(1, 2, 8), torch.zeros(1, 2, 8), causal=True)


def test_a_mask_of_numbers_is_refused_with_the_remedy():
    q = torch.zeros(1, 3, 8)
    with pytest.raises(ValueError, match=r"torch.float32; give truth values, True where"):
        attention(q, q, q, mask=torch.zeros(3, 3))


def test_dropout_removes_weights_and_keeps_the_mean():
    torch.manual_seed(0)
    q, k = torch.zeros(1, 1, 8), torch.zeros(1, 4000, 8)
    v = torch.ones(1, 4000, 8)
    y = attention(q, k, v, dropout=0.5)
    assert y.mean().item() == pytest.approx(1.0, abs=0.05)
    assert not torch.equal(y, torch.ones_like(y))


# --- the layer ----------------------------------------------------------------------------------


def layer(**fields):
    torch.manual_seed(0)
    return CausalSelfAttention(CONFIG.changed(**fields)).eval()


def test_the_layer_equals_torchs_own():
    ours = layer()
    theirs = nn.MultiheadAttention(32, 4, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    x = torch.randn(2, 9, 32)
    expected, _ = theirs(x, x, x, attn_mask=~causal_mask(9), need_weights=False)
    torch.testing.assert_close(ours(x), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n_kv_head": 2},
        {"n_kv_head": 1, "head_dim": 6, "bias": "none"},
        {"position": "rope"},
        {"position": "rope", "norm": Norm("rmsnorm", on_qk=True)},
    ],
)
def test_the_future_does_not_change_the_past_by_a_single_bit(fields):
    attend, config = layer(**fields), CONFIG.changed(**fields)
    table = None
    if config.position == "rope":
        table = rope_table(torch.arange(12), config.head_dim, config.rope)
    x = torch.randn(2, 12, 32)
    y = attend(x, table)
    for t in range(1, 12):
        changed = x.clone()
        changed[:, t:] = torch.randn(2, 12 - t, 32)
        assert torch.equal(attend(changed, table)[:, :t], y[:, :t])


def test_gradients_do_not_reach_the_future():
    attend, x = layer(), torch.randn(1, 10, 32, requires_grad=True)
    attend(x)[:, 4].sum().backward()
    assert torch.equal(x.grad[:, 5:], torch.zeros(1, 5, 32))
    assert (x.grad[:, :5].abs().sum(-1) > 0).all()


def test_groups_share_keys_and_values():
    """With equal key/value heads, grouped attention is multi-head attention."""
    grouped, full = layer(n_kv_head=2), layer()
    q, k, v = grouped.qkv.weight.split((32, 16, 16))
    repeat = [x.unflatten(0, (2, 8)).repeat_interleave(2, dim=0).flatten(0, 1) for x in (k, v)]
    b_q, b_k, b_v = grouped.qkv.bias.split((32, 16, 16))
    b = [x.unflatten(0, (2, 8)).repeat_interleave(2, dim=0).flatten(0, 1) for x in (b_k, b_v)]
    full.load_state_dict(
        {
            "qkv.weight": torch.cat((q, *repeat)),
            "qkv.bias": torch.cat((b_q, *b)),
            "out.weight": grouped.out.weight,
            "out.bias": grouped.out.bias,
        }
    )
    x = torch.randn(2, 7, 32)
    torch.testing.assert_close(grouped(x), full(x), atol=1e-6, rtol=1e-5)


def test_layouts_of_rotary_pairs_differ_by_the_order_of_rows_alone():
    half, interleaved = (
        layer(position="rope"),
        layer(position="rope", rope=Rope(layout="interleaved")),
    )
    order = torch.arange(8).reshape(4, 2).T.flatten()  # 0 2 4 6 1 3 5 7
    rows = torch.cat([order + 8 * head for head in range(8)])  # queries and keys, not values
    with torch.no_grad():
        half.qkv.weight[:64] = interleaved.qkv.weight[rows]
        half.qkv.bias[:64] = interleaved.qkv.bias[rows]
        half.qkv.weight[64:] = interleaved.qkv.weight[64:]
        half.qkv.bias[64:] = interleaved.qkv.bias[64:]
        half.out.load_state_dict(interleaved.out.state_dict())
    x, table = torch.randn(1, 9, 32), rope_table(torch.arange(9), 8, Rope())
    torch.testing.assert_close(half(x, table), interleaved(x, table), atol=1e-6, rtol=1e-5)


def test_dropout_acts_in_training_only():
    attend, x = layer(dropout=0.5), torch.randn(1, 9, 32)
    assert torch.equal(attend(x), attend(x))
    attend.train()
    assert not torch.equal(attend(x), attend(x))


# --- the cache ----------------------------------------------------------------------------------


def test_the_cache_takes_the_bytes_of_the_formula():
    config = CONFIG.changed(n_kv_head=2)
    cache = KVCache(config, batch_size=3)
    assert cache.n_bytes == 2 * 2 * 3 * 2 * 16 * 8 * 4  # K and V, L, B, K, T, C, bytes
    assert KVCache(config, 3, dtype=torch.bfloat16).n_bytes == cache.n_bytes // 2
    assert KVCache(config.changed(window=4), 3).n_bytes == cache.n_bytes // 4


@pytest.mark.parametrize("pieces", [[16], [1] * 16, [5, 1, 1, 6, 3], [2, 9, 1, 4]])
@pytest.mark.parametrize("window", [None, 1, 4, 7, 16, 99])
def test_the_cache_returns_what_the_queries_may_see(pieces, window):
    """The keys are marked with their column, so that what comes back can be read."""
    config = CONFIG.changed(window=window)
    cache = KVCache(config, batch_size=1)
    column = 0
    for n in pieces:
        mask = cache.mask(n)
        k = torch.arange(column, column + n).float()[None, None, :, None].expand(1, 4, n, 8)
        seen, _ = cache.update(0, k, k)
        if mask is None:
            mask = causal_mask(n, seen.shape[-2])[None, None]
        for i in range(n):
            at = column + i
            expected = range(max(0, at - (window or at + 1) + 1), at + 1)
            assert sorted(seen[0, 0, mask[0, 0, i], 0].tolist()) == list(expected)
        cache.advance(n)
        column += n
    assert cache.k.shape[-2] == min(16, window or 16)


def test_a_window_keeps_exactly_its_entries():
    cache = KVCache(CONFIG.changed(window=4), batch_size=1)
    for t in range(11):
        cache.update(1, torch.full((1, 4, 1, 8), float(t)), torch.zeros(1, 4, 1, 8))
        cache.advance(1)
    assert sorted(cache.k[1, 0, 0, :, 0].tolist()) == [7, 8, 9, 10]


def test_positions_count_tokens_and_not_padding():
    cache = KVCache(CONFIG, 2, padding=torch.tensor([0, 2]))
    assert cache.positions(4).tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    cache.advance(4)
    assert cache.positions(1).tolist() == [[4], [2]]
    assert KVCache(CONFIG, 2, padding=torch.tensor([0, 0])).positions(3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="one number for each of the 2 rows"):
        KVCache(CONFIG, 2, padding=torch.tensor([1]))


def test_running_past_the_cache_is_an_error_that_says_so():
    cache = KVCache(CONFIG, 1, max_length=6)
    cache.advance(5)
    cache.positions(1)
    with pytest.raises(ValueError, match="5 positions are cached and 2 more do not fit"):
        cache.positions(2)
