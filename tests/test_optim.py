"""AdamW against torch's, masters in float32, state on the way to a file, clipping, schedules."""

import copy
import io
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from llm_core import optim
from llm_core.config import GPTConfig
from llm_core.loss import cross_entropy
from llm_core.model import GPT
from llm_core.optim import AdamW, clip_grad_norm_, cosine_lr, decay_groups, stable_decay_lr

SETTINGS = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


def weights(dtype=torch.float32, seed=0):
    """A matrix, a vector and a single number."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((13, 7), (5,), ())
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in shapes]


def give_gradients(parameters, step, dtype=None):
    """Gradients that depend on the step and change their size a thousandfold."""
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        drawn = torch.randn(parameter.shape, generator=generator) * 10 ** (-(step % 4))
        parameter.grad = drawn.to(dtype or parameter.dtype)


# --- the oracle ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "n_steps"), [(torch.float32, 1000), (torch.float64, 50)])
def test_a_thousand_steps_end_where_torch_ends(dtype, n_steps):
    mine, theirs = weights(dtype), weights(dtype)
    ours, oracle = AdamW(mine, **SETTINGS), torch.optim.AdamW(theirs, **SETTINGS, foreach=False)
    for step in range(n_steps):
        give_gradients(mine, step)
        give_gradients(theirs, step)
        ours.step()
        oracle.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_groups_have_settings_of_their_own():
    mine, theirs = weights(), weights()

    def groups(of):
        return [{"params": of[:1], "weight_decay": 0.5}, {"params": of[1:], "lr": 0.1}]

    pair = (AdamW(groups(mine), **SETTINGS), torch.optim.AdamW(groups(theirs), **SETTINGS))
    for step in range(20):
        give_gradients(mine, step)
        give_gradients(theirs, step)
        for optimizer in pair:
            optimizer.param_groups[1]["lr"] *= 0.9  # as a schedule does
            optimizer.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


def test_one_step_by_hand():
    """From w = 1 with g = 0.5: m/(1 - b1) = g, v/(1 - b2) = g², so the step is lr, and decay."""
    parameter = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    parameter.grad = torch.tensor([0.5], dtype=torch.float64)
    AdamW([parameter], lr=0.1, eps=0.0, weight_decay=0.2).step()
    assert parameter.item() == pytest.approx(1 - 0.1 * 0.2 - 0.1, abs=1e-12)


# --- narrow parameters --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masters_follow_torch_in_float32_and_the_model_holds_them_rounded(dtype):
    mine = weights(dtype)
    theirs = [nn.Parameter(parameter.detach().float()) for parameter in mine]
    ours, oracle = AdamW(mine, **SETTINGS), torch.optim.AdamW(theirs, **SETTINGS, foreach=False)
    for step in range(300):
        give_gradients(mine, step)
        for one, other in zip(mine, theirs, strict=True):
            other.grad = one.grad.float()
        ours.step()
        oracle.step()
    for one, other in zip(mine, theirs, strict=True):
        master = ours.state[one]["master"]
        torch.testing.assert_close(master, other, rtol=1e-6, atol=1e-6)
        assert torch.equal(one, master.to(dtype))


def test_steps_below_the_rounding_of_bfloat16_add_up():
    """1 - 100 x 0.0001 = 0.99; without a master each step would be rounded away."""
    parameter = nn.Parameter(torch.ones(1, dtype=torch.bfloat16))
    optimizer = AdamW([parameter], lr=1e-4, weight_decay=0.0)
    for _ in range(100):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    assert optimizer.state[parameter]["master"].item() == pytest.approx(
        0.99, abs=6e-6
    )  # 100 roundings
    assert parameter.item() == pytest.approx(0.99, abs=2**-8)
    assert parameter.item() < 1


def test_blocks_end_anywhere(monkeypatch):
    results = []
    for size in (10, 1 << 19):
        monkeypatch.setattr(optim, "BLOCK_NUMBERS", size)
        parameters = weights(torch.bfloat16)
        optimizer = AdamW(parameters, **SETTINGS)
        for step in range(5):
            give_gradients(parameters, step)
            optimizer.step()
        results.append([optimizer.state[parameter]["master"] for parameter in parameters])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_float32_parameters_have_no_second_copy():
    parameters = weights()
    optimizer = AdamW(parameters)
    give_gradients(parameters, 0)
    optimizer.step()
    assert all(set(optimizer.state[one]) == {"step", "mean", "square"} for one in parameters)


def test_a_transposed_gradient_is_read_in_the_right_order():
    parameters, others = weights()[:1], weights()[:1]
    give_gradients(parameters, 0)
    others[0].grad = parameters[0].grad.T.contiguous().T
    for one in (parameters, others):
        AdamW(one).step()
    assert torch.equal(parameters[0], others[0])


# --- what is left alone -------------------------------------------------------------------------


def test_a_parameter_without_a_gradient_stays():
    parameters = weights()
    before = parameters[1].detach().clone()
    optimizer = AdamW(parameters, weight_decay=0.5)
    give_gradients(parameters, 0)
    parameters[1].grad = None
    optimizer.step()
    assert torch.equal(parameters[1], before)
    assert parameters[1] not in optimizer.state


def test_gradients_are_left_as_they_were():
    parameters = weights(torch.bfloat16)
    give_gradients(parameters, 0)
    before = [parameter.grad.clone() for parameter in parameters]
    AdamW(parameters).step()
    for parameter, gradient in zip(parameters, before, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_a_closure_is_evaluated_with_gradients():
    parameters = weights()
    optimizer = AdamW(parameters)

    def closure():
        optimizer.zero_grad()
        loss = sum(parameter.square().sum() for parameter in parameters)
        loss.backward()
        return loss.item()

    first, second = optimizer.step(closure), optimizer.step(closure)
    assert second < first


# --- the state ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_that_was_saved_and_resumed_is_the_unbroken_run_bit_for_bit(dtype):
    unbroken = weights(dtype)
    optimizer = AdamW(unbroken, **SETTINGS)
    for step in range(10):
        if step == 6:
            kept = [parameter.detach().clone() for parameter in unbroken]
            file = io.BytesIO()
            torch.save(optimizer.state_dict(), file)
        give_gradients(unbroken, step)
        optimizer.step()
    resumed = [nn.Parameter(one) for one in kept]
    second = AdamW(resumed, lr=1.0)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    for step in range(6, 10):
        give_gradients(resumed, step)
        second.step()
    for one, other in zip(unbroken, resumed, strict=True):
        assert torch.equal(one, other)
        for name, value in optimizer.state[one].items():
            assert value.dtype == second.state[other][name].dtype == torch.float32
            assert torch.equal(value, second.state[other][name])


def test_what_was_loaded_is_a_copy():
    parameters = weights(torch.bfloat16)
    optimizer = AdamW(parameters)
    give_gradients(parameters, 0)
    optimizer.step()
    state = optimizer.state_dict()
    kept = copy.deepcopy(state)
    other = weights(torch.bfloat16)
    second = AdamW(other)
    second.load_state_dict(state)
    give_gradients(other, 1)
    second.step()
    for key, values in kept["state"].items():
        assert all(torch.equal(state["state"][key][name], values[name]) for name in values)


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"lr": -1.0}, "lr=-1.0"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"eps": -1e-8}, "eps=-1e-08"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1"),
        ({"betas": (0.9, 1.0)}, r"betas=\(0.9, 1.0\)"),
    ],
)
def test_settings_out_of_range_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        AdamW(weights(), **wrong)
    with pytest.raises(ValueError, match=words):
        AdamW([{"params": weights(), **wrong}])


def test_a_sparse_gradient_is_refused():
    table = nn.Embedding(10, 3, sparse=True)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match="sparse"):
        AdamW(table.parameters()).step()


# --- clipping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_does_as_torch_does(max_norm):
    mine, theirs = weights(), weights()
    give_gradients(mine, 0)
    give_gradients(theirs, 0)
    norm = clip_grad_norm_((parameter for parameter in mine), max_norm)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(theirs, max_norm))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-5, atol=1e-8)


def test_after_clipping_the_norm_is_the_bound():
    parameters = weights(torch.float64)
    give_gradients(parameters, 0)
    clip_grad_norm_(parameters, 0.25)
    joint = torch.cat([parameter.grad.flatten() for parameter in parameters]).norm()
    assert joint.item() == pytest.approx(0.25, rel=1e-6)


def test_small_gradients_are_not_touched():
    parameters = weights()
    give_gradients(parameters, 0)
    before = [parameter.grad.clone() for parameter in parameters]
    norm = clip_grad_norm_(parameters, 1e3)
    assert 0 < norm < 1e3
    for parameter, gradient in zip(parameters, before, strict=True):
        assert torch.equal(parameter.grad, gradient)


def test_missing_gradients_are_skipped():
    parameters = weights()
    parameters[0].grad = torch.full_like(parameters[0], 3.0)
    norm = clip_grad_norm_(parameters, 1.0)
    assert norm.item() == pytest.approx(3 * (13 * 7) ** 0.5, rel=1e-6)
    assert clip_grad_norm_(weights(), 1.0).item() == 0
    assert clip_grad_norm_(iter(()), 1.0).item() == 0


def test_the_norm_of_bfloat16_gradients_has_the_digits_of_float32(monkeypatch):
    monkeypatch.setattr(optim, "BLOCK_NUMBERS", 1000)
    parameter = nn.Parameter(torch.zeros(4321, dtype=torch.bfloat16))
    parameter.grad = torch.randn(4321, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = parameter.grad.double().norm().item()
    assert clip_grad_norm_([parameter], 1e9).item() == pytest.approx(exact, rel=1e-6)


def test_a_norm_that_is_not_a_number_is_returned_and_changes_nothing():
    parameters = weights()
    give_gradients(parameters, 0)
    parameters[1].grad[0] = float("nan")
    before = parameters[0].grad.clone()
    assert clip_grad_norm_(parameters, 1.0).isnan()
    assert torch.equal(parameters[0].grad, before)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_a_bound_must_be_positive(wrong):
    with pytest.raises(ValueError, match="max_norm"):
        clip_grad_norm_(weights(), wrong)


# --- together -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_batch_is_learned_by_heart(dtype):
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=61, context_length=16, n_layer=1, n_head=2, d_model=32))
    model = model.to(dtype)
    ids = torch.randint(61, (4, 17))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = cross_entropy(model.hidden(ids[:, :-1]), model.output_weight, ids[:, 1:])
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.05


# --- groups -------------------------------------------------------------------------------------


def test_matrices_decay_and_vectors_do_not():
    model = GPT(GPTConfig(vocab_size=61, context_length=16, n_layer=2, n_head=2, d_model=32))
    decayed, kept = decay_groups(model, 0.1)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert {names[id(p)] for p in kept["params"]} == {
        name for name in names.values() if name.endswith("bias") or "norm" in name
    }
    found = [*decayed["params"], *kept["params"]]
    assert len(found) == len(names) and {id(p) for p in found} == set(names)  # a tied one once


def test_frozen_parameters_are_in_no_group():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    decayed, kept = decay_groups(model, 0.1)
    assert [id(p) for p in decayed["params"]] == [id(model[2].weight)]
    assert [id(p) for p in kept["params"]] == [
        id(p) for p in (model[1].weight, model[1].bias, model[2].bias)
    ]
    model[1].requires_grad_(False)
    model[2].bias.requires_grad_(False)
    AdamW(decay_groups(model, 0.1))  # a group may be empty


def test_without_a_gradient_to_follow_only_matrices_shrink():
    model = nn.Linear(4, 3)
    before = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    AdamW(decay_groups(model, 0.25), lr=0.5).step()
    torch.testing.assert_close(model.weight, before.weight * (1 - 0.5 * 0.25))
    assert torch.equal(model.bias, before.bias)


# --- the learning rate over time ----------------------------------------------------------------


def rates_of(scheduler, n_steps):
    """The learning rates of a scheduler of torch for its first steps, the start included."""
    rates = []
    for _ in range(n_steps):
        rates.append(scheduler.get_last_lr()[0])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def sgd(lr):
    return torch.optim.SGD(weights(), lr=lr)


def test_the_cosine_is_that_of_torch():
    warmup_steps, cosine_steps, max_lr, min_lr = 7, 60, 3e-3, 2e-4
    oracle = lr_scheduler.CosineAnnealingLR(sgd(max_lr), cosine_steps - warmup_steps, min_lr)
    mine = [
        cosine_lr(step, max_lr, min_lr, warmup_steps, cosine_steps)
        for step in range(warmup_steps, cosine_steps + 1)
    ]
    assert mine == pytest.approx(rates_of(oracle, len(mine)), rel=1e-9)


def test_the_warm_up_and_the_straight_decay_are_those_of_torch():
    warmup_steps, decay_steps, n_steps, max_lr, min_lr = 8, 20, 50, 3e-3, 2e-4
    rise = lr_scheduler.LinearLR(sgd(max_lr), 1 / warmup_steps, 1.0, warmup_steps - 1)
    fall = lr_scheduler.LinearLR(sgd(max_lr), 1.0, min_lr / max_lr, decay_steps)
    mine = [
        stable_decay_lr(step, max_lr, min_lr, warmup_steps, decay_steps, n_steps)
        for step in range(n_steps + 1)
    ]
    assert mine[0] == 0
    assert mine[1 : warmup_steps + 1] == pytest.approx(rates_of(rise, warmup_steps), rel=1e-9)
    assert set(mine[warmup_steps : n_steps - decay_steps + 1]) == {max_lr}
    falling = mine[n_steps - decay_steps :]
    assert falling == pytest.approx(rates_of(fall, decay_steps + 1), rel=1e-9)
    cosine = [cosine_lr(step, max_lr, min_lr, warmup_steps, n_steps) for step in range(9)]
    assert cosine == mine[:9]


def test_the_cosine_by_hand():
    rates = [cosine_lr(step, 1.0, 0.2, 4, 12) for step in (0, 1, 4, 6, 8, 10, 12, 1000)]
    corner = 0.4 * math.sqrt(0.5)
    assert rates == pytest.approx([0, 0.25, 1, 0.6 + corner, 0.6, 0.6 - corner, 0.2, 0.2])


def test_the_straight_decay_by_hand():
    rates = [stable_decay_lr(step, 1.0, 0.2, 4, 8, 20) for step in (0, 3, 4, 12, 14, 18, 20, 99)]
    assert rates == pytest.approx([0, 0.75, 1, 1, 0.8, 0.4, 0.2, 0.2])


RATES = st.tuples(st.floats(1e-12, 1), st.floats(1e-12, 1) | st.just(0.0)).map(
    lambda two: (max(two), min(two))
)


def check_shape(rates, max_lr, min_lr, warmup_steps, n_steps, steepest):
    """Bounds, one rise and one fall, the three corners, and no jump from one step to the next."""
    assert rates[0] == (0 if warmup_steps else max_lr)
    assert rates[warmup_steps] == max_lr
    assert rates[n_steps:] == [min_lr] * len(rates[n_steps:])
    assert all(0 <= rate <= max_lr * (1 + 1e-12) for rate in rates)
    rising, falling = rates[: warmup_steps + 1], rates[warmup_steps:]
    assert rising == sorted(rising)
    assert all(b <= a + 1e-15 for a, b in pairwise(falling))
    assert min(falling) >= min_lr * (1 - 1e-12)
    jumps = [abs(b - a) for a, b in pairwise(rates)]
    assert max(jumps) <= steepest * (1 + 1e-9) + 1e-15


@given(rates=RATES, warmup_steps=st.integers(0, 40), fall=st.integers(1, 80))
def test_the_cosine_rises_and_falls_without_a_jump(rates, warmup_steps, fall):
    (max_lr, min_lr), n_steps = rates, warmup_steps + fall
    found = [cosine_lr(s, max_lr, min_lr, warmup_steps, n_steps) for s in range(n_steps + 5)]
    steepest = max(max_lr / max(1, warmup_steps), (max_lr - min_lr) * math.pi / 2 / fall)
    check_shape(found, max_lr, min_lr, warmup_steps, n_steps, steepest)


@given(
    rates=RATES,
    warmup_steps=st.integers(0, 40),
    plateau=st.integers(0, 20),
    fall=st.integers(1, 80),
)
def test_stable_decay_rises_stays_and_falls_without_a_jump(rates, warmup_steps, plateau, fall):
    (max_lr, min_lr), n_steps = rates, warmup_steps + plateau + fall
    found = [
        stable_decay_lr(s, max_lr, min_lr, warmup_steps, fall, n_steps) for s in range(n_steps + 5)
    ]
    steepest = max(max_lr / max(1, warmup_steps), (max_lr - min_lr) / fall)
    check_shape(found, max_lr, min_lr, warmup_steps, n_steps, steepest)
    assert set(found[warmup_steps : warmup_steps + plateau + 1]) == {max_lr}


@given(rates=RATES, warmup_steps=st.integers(0, 9), more=st.integers(0, 50))
def test_the_length_of_the_plateau_can_be_decided_while_it_lasts(rates, warmup_steps, more):
    """Until a short run begins to decay, a longer one has had the same learning rates."""
    (max_lr, min_lr), short = rates, warmup_steps + 30
    for step in range(short - 20 + 1):
        one = stable_decay_lr(step, max_lr, min_lr, warmup_steps, 20, short)
        assert one == stable_decay_lr(step, max_lr, min_lr, warmup_steps, 20, short + more)


@pytest.mark.parametrize("schedule", [cosine_lr, stable_decay_lr])
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"min_lr": 2.0}, "min_lr=2.0 must lie between 0 and max_lr=1.0"),
        ({"min_lr": -0.1}, "min_lr=-0.1 must lie between 0"),
        ({"max_lr": math.nan}, "max_lr=nan"),
        ({"step": -1}, "step=-1 is a number of steps"),
        ({"warmup_steps": -1}, "warmup_steps=-1 is a number of steps"),
    ],
)
def test_a_schedule_out_of_order_is_named(schedule, wrong, words):
    more = {"cosine_steps": 50} if schedule is cosine_lr else {"decay_steps": 10, "n_steps": 50}
    given_right = {"step": 1, "max_lr": 1.0, "min_lr": 0.1, "warmup_steps": 5, **more}
    with pytest.raises(ValueError, match=words):
        schedule(**{**given_right, **wrong})


def test_a_warm_up_and_a_decay_that_overlap_are_named():
    with pytest.raises(ValueError, match="warmup_steps=30 and decay_steps=30 exceed n_steps=50"):
        stable_decay_lr(1, 1.0, 0.1, 30, 30, 50)


def test_a_warm_up_longer_than_the_cosine_is_refused():
    with pytest.raises(ValueError, match="warmup_steps=100 exceeds cosine_steps=60"):
        cosine_lr(5, 1.0, 0.1, 100, 60)


def test_a_parameter_that_does_not_lie_in_one_piece_is_refused():
    parameter = nn.Parameter(torch.zeros(3, 2).T)
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(ValueError, match=r"shape \(2, 3\) is not contiguous"):
        AdamW([parameter]).step()
