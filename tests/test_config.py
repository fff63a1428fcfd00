"""GPTConfig: what it refuses, what it fills in, how it is changed and kept."""

import json
from dataclasses import FrozenInstanceError, fields

import pytest

from llm_core.config import PRESETS, GPTConfig, Norm, Rope, RopeScaling, preset

SMALL = {"vocab_size": 100, "context_length": 16, "n_layer": 2, "n_head": 4, "d_model": 32}


def test_a_model_has_at_most_sixteen_fields():
    assert len(fields(GPTConfig)) <= 16


def test_sizes_left_out_take_their_usual_value():
    config = GPTConfig(**SMALL)
    assert (config.n_kv_head, config.head_dim, config.d_ff) == (4, 8, 128)
    assert GPTConfig(**SMALL, mlp="swiglu").d_ff == 96  # 8/3 x 32 = 85.3, up to a multiple of 32


def test_usual_sizes_follow_a_change_and_given_ones_stay():
    config = GPTConfig(**SMALL).changed(d_model=64)
    assert (config.d_ff, config.head_dim) == (256, 16)
    given = GPTConfig(**SMALL, d_ff=100, n_kv_head=2).changed(d_model=64, n_head=8)
    assert (given.d_ff, given.n_kv_head, given.head_dim) == (100, 2, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_head": 6}, "n_head=6 does not divide d_model=32; try 4 or 8"),
        ({"n_kv_head": 3}, "n_kv_head=3 does not divide n_head=4; try 2 or 4"),
        ({"position": "rotary"}, "position='rotary' is unknown; choose one of learned"),
        ({"bias": True}, "bias=True is unknown"),
        ({"vocab_size": 0}, "vocab_size=0 must be a number of at least 1"),
        ({"n_layer": 2.5}, "n_layer=2.5 must be a whole number; try 2"),
        ({"n_layer": True}, "n_layer=True"),
        ({"d_model": "32"}, "d_model='32' must be a number"),
        ({"d_model": float("nan")}, "d_model=nan"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
        ({"window": 0}, "window=0 must be a number of at least 1"),
        ({"d_ff": -1}, "d_ff=-1"),
        ({"position": "rope", "head_dim": 1}, "leaves no pair to rotate"),
        ({"position": "sinusoidal", "d_model": 33, "n_head": 3}, "must be even"),
    ],
)
def test_a_bad_combination_names_value_and_remedy(fields, message):
    with pytest.raises(ValueError) as caught:
        GPTConfig(**{**SMALL, **fields})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rope(fraction=0), "fraction=0 must be above 0"),
        (lambda: Rope(layout="pairs"), "layout='pairs' is unknown; choose one of half"),
        (lambda: Rope(theta=0.5), "theta=0.5"),
        (lambda: Norm("batch"), "kind='batch' is unknown; choose one of layernorm, rmsnorm"),
        (lambda: Norm(eps=0.0), "eps=0.0 must lie between"),
        (lambda: RopeScaling("ntk", 2.0), "kind='ntk' is unknown"),
        (lambda: RopeScaling("linear", 0.5), "factor=0.5"),
        (lambda: RopeScaling("yarn", 2.0), "original_context_length=0 must be"),
        (lambda: RopeScaling("llama3", 2.0, 64, 4.0, 4.0), "below high_freq_factor=4.0"),
        (lambda: RopeScaling("yarn", 2.0, 64, beta_slow=0.0), "beta_slow=0.0 must be above 0"),
        (lambda: RopeScaling("yarn", 2.0, 64, attention_factor=-1.0), "attention_factor=-1.0"),
        (lambda: Rope(theta=1.0, scaling=RopeScaling("yarn", 2.0, 64)), "above 1 for yarn"),
    ],
)
def test_parts_of_a_config_refuse_what_cannot_work(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


def test_a_config_cannot_be_altered_and_names_an_unknown_field():
    config = GPTConfig(**SMALL)
    with pytest.raises(FrozenInstanceError):
        config.d_model = 64
    with pytest.raises(ValueError, match="'width' is no field of GPTConfig; it has vocab_size"):
        config.changed(width=64)


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_json(name):
    config = preset(name)
    assert GPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("fields", [{}, {"rope": 3}, {**SMALL, "rope": {}, "norm": {}}])
def test_what_is_no_config_is_refused(fields):
    with pytest.raises(ValueError, match="no GPTConfig"):
        GPTConfig.from_dict(fields)


def test_presets_can_be_changed_and_an_unknown_one_is_named():
    assert preset("gpt2-124m", context_length=256).context_length == 256
    with pytest.raises(ValueError, match="no preset 'gpt5'; choose one of story-1m"):
        preset("gpt5")


def test_a_head_that_is_not_the_usual_one_is_kept():
    config = GPTConfig(10, 10, 1, 3, 100, head_dim=33)
    assert config.changed(dropout=0.1).head_dim == 33


@pytest.mark.parametrize("name", ["vocab_size", "d_model", "n_layer"])
def test_no_size_is_infinite(name):
    with pytest.raises(ValueError, match=f"{name}=inf must be a number"):
        GPTConfig.from_dict(preset("story-1m").to_dict() | {name: float("inf")})
