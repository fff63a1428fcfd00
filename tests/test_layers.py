"""Normalization, positions and the MLP against torch and transformers, in value and gradient."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from llm_core.config import GPTConfig, Norm, Rope, RopeScaling
from llm_core.layers import (
    MLP,
    Normalization,
    activate,
    layer_norm,
    rms_norm,
    rope,
    rope_frequencies,
    rope_table,
    sinusoidal_positions,
)

CONFIG = GPTConfig(vocab_size=100, context_length=16, n_layer=2, n_head=4, d_model=32)
SCALINGS = {
    "linear": RopeScaling("linear", 4.0),
    "llama3": RopeScaling("llama3", 8.0, original_context_length=256),
    "yarn": RopeScaling("yarn", 4.0, original_context_length=256),
}


def values_and_gradients(function, *inputs):
    inputs = [x.clone().requires_grad_() for x in inputs]
    y = function(*inputs)
    torch.manual_seed(1)
    (y.float() * torch.randn(y.shape)).sum().backward()
    return [y, *(x.grad for x in inputs)]


def assert_same(ours, theirs, inputs, tolerance=1e-5):
    for a, b in zip(
        values_and_gradients(ours, *inputs), values_and_gradients(theirs, *inputs), strict=True
    ):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


# --- normalization ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 24), (2, 3, 24)])
def test_norms_equal_torch_in_value_and_gradient(shape):
    torch.manual_seed(0)
    inputs = [3 * torch.randn(shape) + 2, torch.randn(24), torch.randn(24)]
    assert_same(layer_norm, lambda x, w, b: F.layer_norm(x, (24,), w, b), inputs)
    assert_same(
        lambda x, w: rms_norm(x, w, 1e-6), lambda x, w: F.rms_norm(x, (24,), w, 1e-6), inputs[:2]
    )


def test_layer_norm_gives_mean_zero_and_variance_one():
    x = 50 + 7 * torch.randn(4, 512, generator=torch.Generator().manual_seed(0))
    y = layer_norm(x, torch.ones(512))
    torch.testing.assert_close(y.mean(-1), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var(-1, unbiased=False), torch.ones(4), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["layernorm", "rmsnorm"])
def test_statistics_are_float32_whatever_the_dtype(kind):
    """1,000 and its neighbors square to what float16 cannot hold and bfloat16 cannot tell apart."""
    x = 1000 + torch.arange(64.0).reshape(1, 64)
    norm = Normalization(64, Norm(kind), bias=True)
    for dtype in (torch.float16, torch.bfloat16):
        narrow = x.to(dtype)
        expected = norm(narrow.float())
        torch.testing.assert_close(norm(narrow).float(), expected, atol=0.02, rtol=0.01)


def test_rms_norm_has_no_bias_and_layer_norm_only_where_asked():
    assert Normalization(8, Norm("rmsnorm"), bias=True).bias is None
    assert Normalization(8, Norm("layernorm"), bias=False).bias is None
    assert Normalization(8, Norm("layernorm"), bias=True).bias is not None


# --- positions ----------------------------------------------------------------------------------


def test_sinusoids_are_those_of_the_paper():
    table = sinusoidal_positions(torch.arange(50), 16)
    for t, i in [(0, 0), (7, 3), (49, 7)]:
        angle = t / 10_000 ** (2 * i / 16)
        assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_rotation_is_multiplication_by_a_complex_number(layout, fraction):
    torch.manual_seed(0)
    x, positions = torch.randn(2, 3, 11, 16), torch.arange(5, 16)
    y = rope(x, positions, layout=layout, rotary_fraction=fraction)
    r = int(16 * fraction)
    pair = (
        (lambda z: z[..., :r].unflatten(-1, (2, r // 2)).movedim(-2, -1))
        if layout == "half"
        else (lambda z: z[..., :r].unflatten(-1, (r // 2, 2)))
    )
    angles = positions[:, None] * 10_000.0 ** (-torch.arange(0, r, 2) / r)
    turned = torch.view_as_complex(pair(x).contiguous()) * torch.polar(torch.ones(()), angles)
    torch.testing.assert_close(torch.view_as_complex(pair(y).contiguous()), turned)
    assert torch.equal(y[..., r:], x[..., r:])


@pytest.mark.parametrize("layout", ["half", "interleaved"])
@pytest.mark.parametrize("scaling", [None, *SCALINGS.values()])
def test_products_of_rotated_vectors_depend_on_distance_alone(layout, scaling):
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 32), torch.randn(1, 1, 1, 32)

    def product(t, s):
        turned = [
            rope(x, torch.tensor([at]), layout=layout, scaling=scaling)
            for x, at in ((q, t), (k, s))
        ]
        return (turned[0] * turned[1]).sum()

    for distance in (0, 1, 17):
        expected = product(distance, 0)
        for s in (3, 100):
            torch.testing.assert_close(product(s + distance, s), expected, atol=1e-4, rtol=1e-4)


def test_positions_may_differ_from_row_to_row():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 8)
    positions = torch.tensor([[0, 1, 2, 3], [5, 6, 7, 9]])
    both = rope(x, positions)
    for row in range(2):
        torch.testing.assert_close(both[row], rope(x[row], positions[row]), atol=0, rtol=0)


def test_rotation_keeps_the_dtype_and_turns_in_float32():
    x = torch.randn(1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(1000, 1004)
    narrow = x.bfloat16()
    exact = rope(narrow.float(), positions)
    assert torch.equal(rope(narrow, positions), exact.bfloat16())


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("head_dim", [16, 64])
def test_scaled_frequencies_are_those_of_transformers(name, head_dim):
    transformers = pytest.importorskip("transformers", reason="needs Python 3.11")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = SCALINGS[name]
    parameters = {"rope_type": name, "factor": scaling.factor, "rope_theta": 5000.0}
    if name != "linear":
        parameters["original_max_position_embeddings"] = scaling.original_context_length
    if name == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = transformers.LlamaConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        max_position_embeddings=1024,
        rope_parameters=parameters,
    )
    expected, amplitude = ROPE_INIT_FUNCTIONS[name](config, device=torch.device("cpu"))
    ours, our_amplitude = rope_frequencies(Rope(5000.0, scaling=scaling), head_dim)
    torch.testing.assert_close(torch.tensor(ours), expected, rtol=1e-5, atol=1e-9)
    assert our_amplitude == pytest.approx(amplitude)


def test_an_attention_factor_replaces_yarns_own():
    scaling = replace(SCALINGS["yarn"], attention_factor=0.5)
    cos, _ = rope_table(torch.zeros(1, dtype=torch.long), 16, Rope(scaling=scaling))
    torch.testing.assert_close(cos, torch.full((1, 8), 0.5))


# --- the MLP ------------------------------------------------------------------------------------


def test_gelu_is_x_times_the_normal_distribution_function():
    x = torch.linspace(-4, 4, 101)
    exact = x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    torch.testing.assert_close(activate(x, "gelu"), exact)
    cubic = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    torch.testing.assert_close(activate(x, "gelu_tanh"), 0.5 * x * (1 + torch.tanh(cubic)))


def test_swiglu_is_the_product_of_a_gate_and_a_value():
    torch.manual_seed(0)
    mlp = MLP(CONFIG.changed(mlp="swiglu", bias="none"))
    gate, up = mlp.up.weight.chunk(2)
    x = torch.randn(3, 32)
    expected = (F.silu(x @ gate.T) * (x @ up.T)) @ mlp.down.weight.T
    torch.testing.assert_close(mlp(x), expected)


@pytest.mark.parametrize(
    ("bias", "has_bias"), [("all", 1), ("mlp", 1), ("attention", 0), ("none", 0)]
)
def test_bias_of_the_mlp_is_as_configured(bias, has_bias):
    mlp = MLP(CONFIG.changed(bias=bias))
    assert [(layer.bias is not None) for layer in (mlp.up, mlp.down)] == [bool(has_bias)] * 2
    assert isinstance(mlp.up, nn.Linear) and mlp.up.weight.shape == (128, 32)
