"""The loss: torch's as oracle, in value and gradient; chunks, autocast, memory, bits per byte."""

import math

import pytest
import torch
from torch.nn import functional as F

from llm_core import loss
from llm_core.config import GPTConfig
from llm_core.loss import IGNORE, bits_per_byte, cross_entropy, token_log_probs
from llm_core.model import GPT

B, T, D, V = 3, 11, 16, 50


def example(dtype=torch.float32, seed=0, ignored=True):
    """hidden, weight with sharp logits, and targets of which some do not count."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(B, T, D, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(V, (B, T), generator=generator)
    if ignored:
        targets[0, :4] = targets[2, -1] = IGNORE
    return hidden, weight, targets


def plain(hidden, weight, targets):
    """The definition, by torch, with all logits at once."""
    return F.cross_entropy((hidden @ weight.T).flatten(0, 1), targets.flatten())


def grads(function, hidden, weight, targets, *options):
    value = function(hidden, weight, targets, *options)
    return value.detach(), *torch.autograd.grad(value, (hidden, weight))


def error(found, true):
    """The relative error of a tensor as a whole."""
    return float((found.double() - true.double()).norm() / true.double().norm())


# --- oracles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_tokens", [1, 7, 33, 1024])
def test_value_and_gradients_are_those_of_torch(chunk_tokens):
    true = grads(plain, *example())
    found = grads(cross_entropy, *example(), chunk_tokens)
    torch.testing.assert_close(found[0], true[0], rtol=1e-6, atol=0)
    for one, other in zip(found[1:], true[1:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_it_agrees_with_the_head_loss_that_torch_has():
    hidden, weight, targets = example()
    theirs = F.linear_cross_entropy(hidden.flatten(0, 1), weight, targets.flatten())
    torch.testing.assert_close(cross_entropy(hidden, weight, targets), theirs, rtol=1e-6, atol=0)


def test_blocks_of_a_chunk_end_anywhere(monkeypatch):
    monkeypatch.setattr(loss, "BLOCK_NUMBERS", 4 * V)
    true = grads(plain, *example())
    for found, other in zip(grads(cross_entropy, *example(), 10), true, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("chunk_tokens", [1, 7, 1024])
def test_weights_give_the_weighted_mean_and_its_gradients(chunk_tokens):
    weights = torch.rand(B, T, generator=torch.Generator().manual_seed(3)) * 9
    weights[1, 2] = 0

    def weighted(hidden, weight, targets):
        logits = (hidden @ weight.T).flatten(0, 1)
        losses = F.cross_entropy(logits, targets.flatten(), reduction="none", ignore_index=IGNORE)
        counted = weights.flatten() * (targets.flatten() != IGNORE)
        return (losses * counted).sum() / counted.sum()

    def ours(hidden, weight, targets):
        return cross_entropy(hidden, weight, targets, chunk_tokens, weights=weights)

    true, found = grads(weighted, *example()), grads(ours, *example())
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        torch.testing.assert_close(ours(*example()), true[0], rtol=1e-6, atol=0)
    assert abs(true[0] - plain(*example())) > 1e-3  # so that weights do matter


def test_equal_weights_are_no_weights():
    weights = torch.full((B, T), 2.5)
    of_weights = grads(lambda *inputs: cross_entropy(*inputs, weights=weights), *example())
    for one, other in zip(of_weights, grads(cross_entropy, *example()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("chunk_tokens", [5, 1024])
def test_numerical_derivatives_agree(chunk_tokens):
    hidden, weight, targets = example(torch.float64)
    hidden, weight = hidden[:, :4, :6], weight[:9, :6]
    targets = torch.where(targets[:, :4] < 0, IGNORE, targets[:, :4] % 9)
    inputs = [one.detach().clone().requires_grad_() for one in (hidden, weight)]
    assert torch.autograd.gradcheck(lambda h, w: cross_entropy(h, w, targets, chunk_tokens), inputs)


def test_a_loss_that_is_scaled_scales_its_gradients():
    """As gradient accumulation does, or a sum of losses with weights."""

    def weighted(of):
        def total(hidden, weight, targets):
            return 0.25 * of(hidden, weight, targets) + 3 * of(-hidden, weight, targets).square()

        return total

    true = grads(weighted(plain), *example())
    for found, other in zip(grads(weighted(cross_entropy), *example()), true, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_whole_model_is_that_of_its_logits():
    torch.manual_seed(0)
    model = GPT(GPTConfig(V, 16, 2, 2, 16))
    ids = torch.randint(V, (2, 12))
    targets = torch.randint(V, (2, 12))
    F.cross_entropy(model(ids).flatten(0, 1), targets.flatten()).backward()
    true = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    cross_entropy(model.hidden(ids), model.output_weight, targets, chunk_tokens=10).backward()
    for parameter, other in zip(model.parameters(), true, strict=True):
        torch.testing.assert_close(parameter.grad, other, rtol=1e-5, atol=1e-7)


def test_huge_logits_do_not_overflow():
    hidden, weight, targets = example()
    with torch.no_grad():
        hidden *= 1e4
    torch.testing.assert_close(
        cross_entropy(hidden, weight, targets), plain(hidden, weight, targets), rtol=1e-6, atol=0
    )


# --- narrow products ----------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_tokens", [8, 1024])
def test_in_bfloat16_only_the_products_are_rounded(chunk_tokens, monkeypatch):
    monkeypatch.setattr(loss, "BLOCK_ROWS", 20)  # of 50
    hidden, weight, targets = example(torch.bfloat16)
    value, of_hidden, of_weight = grads(cross_entropy, hidden, weight, targets, chunk_tokens)
    wide = [one.detach().double().requires_grad_() for one in (hidden, weight)]
    true = grads(plain, *wide, targets)
    logits = (hidden @ weight.T).detach().flatten(0, 1)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, F.cross_entropy(logits.float(), targets.flatten()))
    assert of_hidden.dtype == of_weight.dtype == torch.bfloat16
    assert error(of_hidden, true[1]) < 2**-6
    assert error(of_weight, true[2]) < 2**-6


def test_many_chunks_add_up_in_float32():
    """Added up in bfloat16, 256 chunks lose ten times as much as the rounding of one product."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 512, D, generator=generator).bfloat16().requires_grad_()
    weight = (0.1 * torch.randn(V, D, generator=generator)).bfloat16().requires_grad_()
    targets = torch.randint(V, (4, 512), generator=generator)
    wide = [one.detach().double().requires_grad_() for one in (hidden, weight)]
    true = grads(plain, *wide, targets)[2]
    whole = grads(cross_entropy, hidden, weight, targets, 2048)[2]
    chunked = grads(cross_entropy, hidden, weight, targets, 8)[2]
    assert error(chunked, true) < 2 * error(whole, true) < 0.01


def test_a_nearly_sure_token_keeps_its_gradient_in_bfloat16():
    """p - 1 = -0.0009, which a p rounded to bfloat16 would lose."""
    weight = torch.tensor([[7.0], [0.0]], dtype=torch.bfloat16)
    hidden = torch.ones(1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
    cross_entropy(hidden, weight, torch.zeros(1, 1, dtype=torch.int64)).backward()
    assert hidden.grad.item() == pytest.approx(-7 / (1 + math.exp(7)), rel=2**-7)


def test_autocast_is_respected():
    hidden, weight, targets = example()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, of_hidden, of_weight = grads(cross_entropy, hidden, weight, targets)
        found = token_log_probs(hidden, weight, targets)
    narrow = [one.detach().bfloat16().requires_grad_() for one in (hidden, weight)]
    true = grads(cross_entropy, *narrow, targets)
    assert value == true[0]
    assert of_hidden.dtype == of_weight.dtype == torch.float32
    assert torch.equal(of_hidden, true[1].float())
    assert torch.equal(of_weight, true[2].float())
    assert torch.equal(found, token_log_probs(*narrow, targets))
    assert cross_entropy(hidden, weight, targets) != value


# --- what exists and what does not --------------------------------------------------------------


class _Results(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes the dtype and the number of entries of every operation's result."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.sizes.append((str(function), result.dtype, result.numel()))
        return result


def wide_example(dtype):
    """128 tokens, 4 wide, of a vocabulary of 1,000."""
    hidden = torch.randn(2, 64, 4).to(dtype).requires_grad_()
    weight = torch.randn(1000, 4).to(dtype).requires_grad_()
    return hidden, weight, torch.randint(1000, (2, 64))


@pytest.mark.parametrize("of", [cross_entropy, token_log_probs])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_is_larger_than_a_chunk_of_logits_nor_a_wide_one_than_a_block(
    of, dtype, monkeypatch
):
    monkeypatch.setattr(loss, "BLOCK_NUMBERS", 5 * 1000)
    with _Results() as results:
        value = of(*wide_example(dtype), 16)
        if value.requires_grad:
            value.backward()
    assert max(size for *_, size in results.sizes) == 16 * 1000
    if dtype == torch.bfloat16:
        wide = [size for _, found, size in results.sizes if found == torch.float32]
        assert max(wide) == 5 * 1000


def test_a_frozen_head_takes_no_gradient_and_no_product_for_it():
    hidden, weight, targets = example()
    true = grads(plain, hidden, weight, targets)[1]
    counts = []
    for head in (weight, weight.detach()):
        hidden.grad = None
        with _Results() as results:
            cross_entropy(hidden, head, targets).backward()
        counts.append(sum("mm" in name for name, *_ in results.sizes))
        torch.testing.assert_close(hidden.grad, true, rtol=1e-5, atol=1e-7)
    assert counts == [3, 2]


def test_a_frozen_model_may_train_its_head():
    hidden, weight, targets = example()
    true = grads(plain, hidden, weight, targets)[2]
    cross_entropy(hidden.detach(), weight, targets).backward()
    torch.testing.assert_close(weight.grad, true, rtol=1e-5, atol=1e-7)


def test_without_gradients_the_value_is_the_same_and_no_gradient_is_computed():
    inputs = example()
    with torch.no_grad(), _Results() as results:
        value = cross_entropy(*inputs)
    assert not value.requires_grad
    assert sum("mm" in name for name, *_ in results.sizes) == 1  # the logits, once
    torch.testing.assert_close(value, cross_entropy(*inputs).detach(), rtol=1e-6, atol=0)


def test_a_second_backward_pass_gives_the_same_gradients():
    hidden, weight, targets = example()
    value = cross_entropy(hidden, weight, targets)
    first = torch.autograd.grad(2 * value, (hidden, weight), retain_graph=True)
    second = torch.autograd.grad(2 * value, (hidden, weight))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_inputs_are_left_as_they_were():
    hidden, weight, targets = example()
    before = [one.detach().clone() for one in (hidden, weight, targets)]
    grads(cross_entropy, hidden, weight, targets)
    token_log_probs(hidden, weight, targets)
    after = (hidden, weight, targets)
    assert all(torch.equal(one, other) for one, other in zip(after, before, strict=True))


# --- tokens and bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_tokens", [4, 1024])
def test_log_probs_are_those_of_the_softmax_and_0_where_ignored(chunk_tokens):
    hidden, weight, targets = example()
    found = token_log_probs(hidden, weight, targets, chunk_tokens)
    true = torch.log_softmax(hidden @ weight.T, dim=-1)
    true = true.gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1)
    torch.testing.assert_close(found, torch.where(targets == IGNORE, 0, true.detach()))
    assert not found.requires_grad
    assert found.shape == (B, T)
    assert (found[targets == IGNORE] == 0).all()


def test_the_mean_of_log_probs_is_the_loss():
    hidden, weight, targets = example()
    mean = -token_log_probs(hidden, weight, targets).sum() / (targets != IGNORE).sum()
    torch.testing.assert_close(mean, cross_entropy(hidden, weight, targets).detach())


def test_all_targets_may_be_ignored_by_log_probs():
    hidden, weight, targets = example()
    assert not token_log_probs(hidden, weight, torch.full_like(targets, IGNORE)).any()


def test_a_fair_coin_a_byte_is_one_bit_a_byte():
    assert bits_per_byte(1000 * math.log(2), 1000) == pytest.approx(1.0, rel=1e-12)
    assert bits_per_byte(math.log(256), 1) == pytest.approx(8.0, rel=1e-12)


def test_a_text_without_bytes_has_no_bits_per_byte():
    with pytest.raises(ValueError, match="n_bytes=0"):
        bits_per_byte(1.0, 0)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", [cross_entropy, token_log_probs])
@pytest.mark.parametrize("wrong", [V, -1, -101])
def test_a_target_that_is_no_id_is_named(of, wrong):
    hidden, weight, targets = example()
    targets[1, 3] = wrong
    with pytest.raises(ValueError, match=f"target {wrong} is no id of a vocabulary of {V}"):
        of(hidden, weight, targets)


def test_a_mean_of_nothing_is_refused():
    hidden, weight, targets = example()
    with pytest.raises(ValueError, match=f"all {B * T} targets are -100"):
        cross_entropy(hidden, weight, torch.full_like(targets, IGNORE))


@pytest.mark.parametrize("wrong", [-0.5, math.inf, math.nan])
def test_weights_that_cannot_be_are_named(wrong):
    weights = torch.ones(B, T)
    weights[2, 3] = wrong
    with pytest.raises(ValueError, match=f"a weight is {wrong}; weights are finite"):
        cross_entropy(*example(), weights=weights)
    with pytest.raises(ValueError, match="30 weights do not belong to 33 targets"):
        cross_entropy(*example(), weights=torch.ones(B, T - 1))
    with pytest.raises(ValueError, match="or weigh nothing"):
        cross_entropy(*example(), weights=torch.zeros(B, T))


def test_shapes_that_do_not_fit_are_named():
    hidden, weight, targets = example()
    with pytest.raises(ValueError, match=r"\(3, 11, 16\).*\(3, 10\)"):
        cross_entropy(hidden, weight, targets[:, 1:])
    with pytest.raises(ValueError, match=r"weight \(50, 15\)"):
        cross_entropy(hidden, weight[:, 1:], targets)


def test_a_chunk_of_no_tokens_is_refused():
    with pytest.raises(ValueError, match="chunk_tokens=0"):
        cross_entropy(*example(), 0)
