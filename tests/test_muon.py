"""Muon against torch's and against the singular values, its groups, masters and errors."""

import copy

import pytest
import torch
from torch import nn

from llm_core import muon
from llm_core.classify import Classifier
from llm_core.config import GPTConfig
from llm_core.model import GPT
from llm_core.muon import COEFFICIENTS, Muon, muon_groups, orthogonalized
from llm_core.optim import AdamW

SHAPES = (13, 7), (7, 13), (9, 9), (13, 7)


def matrices(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES]


def give_gradients(parameters, step):
    generator = torch.Generator().manual_seed(step)
    for parameter in parameters:
        drawn = torch.randn(parameter.shape, generator=generator) * 10 ** (-(step % 4))
        parameter.grad = drawn.to(parameter.dtype)


def as_matrices(parameters):
    return [{"params": parameters, "matrices": True}]


def small_gpt(**changes):
    torch.manual_seed(0)
    return GPT(GPTConfig(50, 16, n_layer=2, n_head=2, d_model=8, **changes))


# --- the oracles --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 6), (3, 4, 9), (2, 2, 9, 4)])
def test_singular_values_go_through_the_polynomial_and_directions_stay(shape):
    given = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    u, s, v = torch.linalg.svd(given, full_matrices=False)
    s = s / torch.linalg.vector_norm(s, dim=-1, keepdim=True)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        s = a * s + b * s**3 + c * s**5
    torch.testing.assert_close(orthogonalized(given), u @ (s[..., None] * v), rtol=0, atol=1e-10)


def test_directions_of_very_different_lengths_become_about_equal():
    generator = torch.Generator().manual_seed(2)
    u, _, v = torch.linalg.svd(torch.randn(40, 60, generator=generator), full_matrices=False)
    found = torch.linalg.svdvals(orthogonalized(u @ (torch.logspace(0, -2, 40)[:, None] * v)))
    assert found.min() > 0.6 and found.max() < 1.3


def test_five_rounds_bring_what_is_not_tiny_between_the_stated_bounds():
    lengths = torch.logspace(-2.5228, 0, 500, dtype=torch.float64)  # from 0.003 to 1
    others = (1 - lengths.square()).clamp(min=0).sqrt()  # so that each matrix has the norm 1
    found = orthogonalized(torch.diag_embed(torch.stack((lengths, others), dim=-1)))
    values = found.diagonal(dim1=-2, dim2=-1)[:, 0]
    assert 0.68 < values.min() < 0.69 and 1.2 < values.max() < 1.21


def test_a_gradient_of_zeros_moves_nothing():
    assert not orthogonalized(torch.zeros(3, 4)).any()


def test_fifty_steps_end_where_torch_ends(monkeypatch):
    """torch makes orthogonal in bfloat16; where ours does, too, the steps are the same."""
    ours = orthogonalized
    monkeypatch.setattr(muon, "orthogonalized", lambda x: ours(x.bfloat16()).float())
    mine, theirs = matrices(), matrices()
    settings = {"lr": 3e-3, "weight_decay": 0.1, "momentum": 0.95}
    pair = (
        Muon(as_matrices(mine), **settings),
        torch.optim.Muon(theirs, **settings, adjust_lr_fn="match_rms_adamw"),
    )
    for step in range(50):
        give_gradients(mine, step)
        give_gradients(theirs, step)
        for optimizer in pair:
            optimizer.step()
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_what_is_no_matrix_moves_by_adamw():
    mine, theirs = matrices(), matrices()
    settings = {"lr": 3e-3, "betas": (0.9, 0.95), "weight_decay": 0.1}
    pair = Muon(mine, **settings), AdamW(theirs, **settings)
    for step in range(20):
        give_gradients(mine, step)
        give_gradients(theirs, step)
        for optimizer in pair:
            optimizer.step()
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))


def test_matrices_of_one_shape_move_together_as_each_alone(monkeypatch):
    together, alone = matrices(torch.float64), matrices(torch.float64)
    first = Muon(as_matrices(together), lr=0.1)
    second = Muon(as_matrices(alone), lr=0.1)
    for step in range(5):
        give_gradients(together, step)
        give_gradients(alone, step)
        first.step()
        with monkeypatch.context() as patch:
            patch.setattr(muon, "NUMBERS_AT_ONCE", 1)
            second.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_step_has_the_size_of_the_learning_rate_whatever_the_gradient():
    for shape in ((64, 64), (32, 128), (128, 32)):
        parameter = nn.Parameter(torch.zeros(shape))
        parameter.grad = 1e-6 * torch.randn(shape, generator=torch.Generator().manual_seed(3))
        Muon(as_matrices([parameter]), lr=0.01, weight_decay=0.0).step()
        assert parameter.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.2)


# --- masters and state --------------------------------------------------------------------------


def test_steps_too_small_for_bfloat16_add_up_in_the_master():
    narrow = matrices(torch.bfloat16)
    start = [one.detach().clone() for one in narrow]
    optimizer = Muon(as_matrices(narrow), lr=1e-5, weight_decay=0.0)
    give_gradients(narrow, 0)
    optimizer.step()
    small = [torch.equal(one, before) for one, before in zip(narrow, start, strict=True)]
    assert any(small)
    for _ in range(400):
        optimizer.step()
    for one, before in zip(narrow, start, strict=True):
        master = optimizer.state[one]["master"]
        assert master.dtype == torch.float32
        assert torch.equal(one, master.bfloat16())
        assert not torch.equal(one, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_state_goes_on_to_the_last_bit(dtype):
    whole, halved = matrices(dtype), matrices(dtype)
    first = Muon(as_matrices(whole), lr=0.01)
    for step in range(6):
        give_gradients(whole, step)
        first.step()
    before = Muon(as_matrices(halved), lr=0.01)
    for step in range(3):
        give_gradients(halved, step)
        before.step()
    after = Muon(as_matrices(halved), lr=0.01)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    for step in range(3, 6):
        give_gradients(halved, step)
        after.step()
    assert all(torch.equal(one, other) for one, other in zip(whole, halved, strict=True))


# --- groups and errors --------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"tied": False}, {"bias": "all"}, {"mlp": "swiglu"}])
def test_groups_have_each_parameter_once(changes):
    model = small_gpt(**changes)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = muon_groups(model, 0.1)
    found = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(found) == sorted(names.values())
    inner = {names[id(p)] for p in groups[0]["params"]}
    assert inner == {n for n, p in model.named_parameters() if "blocks" in n and p.dim() == 2}
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]


def test_the_blocks_of_a_body_inside_are_blocks():
    classifier = Classifier(small_gpt(), ("a", "b"))
    inner, *others = muon_groups(classifier, 0.1)
    blocks = {id(p) for p in classifier.blocks.parameters() if p.dim() == 2}
    assert blocks and {id(p) for p in inner["params"]} == blocks
    assert not any(group.get("matrices") for group in others)


def test_a_sparse_gradient_is_refused_also_of_a_matrix():
    table = nn.Embedding(5, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="a gradient is sparse"):
        Muon(as_matrices([table.weight])).step()


def test_frozen_parameters_are_in_no_group():
    model = small_gpt()
    model.requires_grad_(False)
    model.blocks[1].requires_grad_(True)
    learned = {id(p) for p in model.blocks[1].parameters()}
    groups = muon_groups(model, 0.1)
    assert {id(p) for group in groups for p in group["params"]} == learned
    Muon(groups)


def test_parameters_without_a_gradient_are_left_alone():
    parameters = matrices()
    give_gradients(parameters, 0)
    parameters[0].grad = None
    before = parameters[0].detach().clone()
    Muon(as_matrices(parameters), lr=0.1, weight_decay=1.0).step()
    assert torch.equal(parameters[0], before)


def test_a_vector_among_the_matrices_is_refused():
    with pytest.raises(ValueError, match=r"has shape \(3,\); only what maps"):
        Muon([{"params": [nn.Parameter(torch.zeros(3))], "matrices": True}])


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(ValueError, match="momentum="):
        Muon(matrices(), momentum=momentum)


def test_other_settings_are_refused_as_by_adamw():
    with pytest.raises(ValueError, match="lr=-1"):
        Muon(matrices(), lr=-1)
