"""The GPT as a whole: causal, cached, counted, tied, started and trained."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from llm_core.attention import KVCache
from llm_core.config import GPTConfig, Norm, Rope, RopeScaling, preset
from llm_core.model import GPT, flops_per_token, initialize, parameter_table

BASE = GPTConfig(vocab_size=97, context_length=24, n_layer=2, n_head=4, d_model=32)
RMS = Norm("rmsnorm")
KINDS = {
    "gpt2": BASE,
    "llama": BASE.changed(
        position="rope", norm=RMS, mlp="swiglu", bias="none", tied=False, n_kv_head=2
    ),
    "post-norm, sinusoidal": BASE.changed(norm=Norm(place="post"), position="sinusoidal"),
    "windowed, one key head": BASE.changed(window=5, n_kv_head=1, position="rope"),
    "normalized queries, odd heads": BASE.changed(
        position="rope", norm=Norm("rmsnorm", on_qk=True), head_dim=12, bias="attention"
    ),
    "no positions": BASE.changed(position="none", bias="mlp", mlp="gelu_tanh", d_ff=40),
    "half rotary, interleaved, scaled": BASE.changed(
        position="rope",
        rope=Rope(500.0, "interleaved", 0.5, RopeScaling("yarn", 2.0, original_context_length=12)),
        window=9,
    ),
}
EVERY_KIND = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())


def model_of(config, seed=0, init="fan_in"):
    """Weights of a size at which logits differ."""
    torch.manual_seed(seed)
    return GPT(config, init).eval()


def ids_of(config, *shape, seed=0):
    return torch.randint(config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


# --- causality ----------------------------------------------------------------------------------


@EVERY_KIND
@torch.no_grad()
def test_future_tokens_do_not_change_past_logits(config):
    model, ids = model_of(config), ids_of(config, 2, 20)
    logits = model(ids)
    for t in (1, 6, 13, 19):
        changed = ids.clone()
        changed[:, t:] = (ids[:, t:] + 1) % config.vocab_size
        assert torch.equal(model(changed)[:, :t], logits[:, :t])
        assert not torch.equal(model(changed)[:, t:], logits[:, t:])


@EVERY_KIND
@torch.no_grad()
def test_packed_documents_do_not_leak(config):
    model, ids = model_of(config), ids_of(config, 1, 20)
    documents = torch.tensor([[0] * 7 + [1] * 9 + [2] * 4])
    positions = torch.cat([torch.arange(n) for n in (7, 9, 4)])
    packed = model(ids, positions=positions, documents=documents)
    for start, end in ((0, 7), (7, 16), (16, 20)):
        alone = model(ids[:, start:end])
        torch.testing.assert_close(packed[:, start:end], alone, atol=1e-5, rtol=1e-4)


@EVERY_KIND
@torch.no_grad()
def test_a_row_does_not_depend_on_its_batch(config):
    model, ids = model_of(config), ids_of(config, 3, 15)
    for row in range(3):
        torch.testing.assert_close(
            model(ids[row : row + 1])[0], model(ids)[row], atol=2e-6, rtol=1e-5
        )


# --- the cache ----------------------------------------------------------------------------------


@EVERY_KIND
@pytest.mark.parametrize("pieces", [[1] * 20, [8] + [1] * 12, [3, 6, 1, 10], [20]])
@torch.no_grad()
def test_with_a_cache_the_logits_are_those_without(config, pieces):
    model, ids = model_of(config), ids_of(config, 2, 20)
    cache = KVCache(config, batch_size=2, max_length=20)
    logits = torch.cat([model(piece, cache) for piece in ids.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(logits, model(ids), atol=1e-5, rtol=1e-5)
    assert cache.length == 20


@EVERY_KIND
@torch.no_grad()
def test_prompts_of_unequal_length_are_read_as_if_alone(config):
    model, ids = model_of(config), ids_of(config, 3, 12)
    lengths, most = [12, 5, 1], 12
    padded = torch.zeros(3, most, dtype=torch.long)
    for row, n in enumerate(lengths):
        padded[row, most - n :] = ids[row, :n]
    padding = most - torch.tensor(lengths)
    cache = KVCache(config, batch_size=3, padding=padding)
    steps = ids_of(config, 3, 8, seed=1)
    logits = torch.cat([model(padded, cache), *(model(t, cache) for t in steps.split(1, 1))], dim=1)
    for row, n in enumerate(lengths):
        alone = model(torch.cat((ids[row, :n], steps[row]))[None])[0]
        torch.testing.assert_close(logits[row, most - n :], alone, atol=1e-5, rtol=1e-5)


def test_too_long_an_input_is_an_error_with_and_without_a_cache():
    model = model_of(BASE)
    with pytest.raises(ValueError, match="25 ids exceed context_length=24; pass the last 24"):
        model(ids_of(BASE, 1, 25))
    cache = KVCache(BASE, 1, max_length=50)
    model(ids_of(BASE, 1, 24), cache)
    with pytest.raises(ValueError, match="24 cached positions and 1 new ones exceed"):
        model(ids_of(BASE, 1, 1), cache)
    with pytest.raises(ValueError, match="a cache knows its positions"):
        model(ids_of(BASE, 1, 2), KVCache(BASE, 1), positions=torch.arange(2))


# --- counting -----------------------------------------------------------------------------------


@EVERY_KIND
def test_parameters_are_as_the_formula_counts(config):
    assert GPT(config).num_parameters() == sum(parameter_table(config).values())


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [
        ("gpt2-124m", 124_439_808),  # the sizes of the released weights
        ("gpt2-1558m", 1_557_611_200),
        ("1b", 1_235_814_400),
        ("7b", 6_738_415_616),
        ("70b", 70_553_706_496),
    ],
)
def test_published_models_have_their_published_size_and_need_no_memory_here(name, n_parameters):
    with torch.device("meta"):
        model = GPT(preset(name))
    assert model.num_parameters() == n_parameters
    assert next(model.parameters()).device.type == "meta"


@pytest.mark.parametrize("name", ["gpt2", "llama", "normalized queries, odd heads"])
def test_flops_agree_with_torchs_counter(name):
    """Torch counts the whole table of scores; a causal query sees (n + 1) / 2 of n keys."""
    config, n = KINDS[name], 24
    model = GPT(config)
    counter = FlopCounterMode(display=False)
    with (
        counter,
        torch.no_grad(),
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(ids_of(config, 1, n))
    per_layer = 2 * 2 * config.n_head * config.head_dim
    unseen = config.n_layer * per_layer * (n * n - n * (n + 1) // 2)
    assert flops_per_token(config, training=False) * n == counter.get_total_flops() - unseen
    assert model.flops_per_token() == 3 * flops_per_token(config, training=False)


def test_a_window_lowers_the_flops_by_what_is_not_seen():
    full, windowed = (
        flops_per_token(BASE.changed(window=w), training=False) * 24 for w in (None, 6)
    )
    unseen = sum(max(0, t + 1 - 6) for t in range(24))
    assert full - windowed == BASE.n_layer * 4 * BASE.n_head * BASE.head_dim * unseen


# --- weights ------------------------------------------------------------------------------------


def test_a_tied_head_is_the_embedding_table():
    tied, untied = GPT(BASE), GPT(BASE.changed(tied=False))
    assert tied.output_weight is tied.token_embedding.weight
    assert "head.weight" not in tied.state_dict()
    assert untied.num_parameters() - tied.num_parameters() == 97 * 32
    tied(ids_of(BASE, 1, 4)).sum().backward()
    rows = tied.token_embedding.weight.grad.abs().sum(-1)
    assert (rows > 0).all()  # ids not in the batch learn too, through the head


@EVERY_KIND
def test_logits_are_the_head_of_the_hidden_vectors_and_every_weight_learns(config):
    model, ids = model_of(config), ids_of(config, 2, 24)
    hidden = model.hidden(ids)
    assert hidden.shape == (2, 24, 32)
    logits = model(ids)
    assert torch.equal(model.logits(hidden), logits) and logits.shape == (2, 24, 97)
    F.cross_entropy(logits.flatten(0, 1), ids_of(config, 2, 24, seed=1).flatten()).backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_initialization_has_the_standard_deviations_it_names():
    config = BASE.changed(d_model=256, n_head=4, n_layer=8, context_length=512)
    for init, table, inner, outer in [
        ("gpt2", 0.02, 0.02, 0.02 / 4),
        ("fan_in", 1 / 16, 1 / 16, 1 / 16 / 4),
    ]:
        model = model_of(config, init=init)
        block = model.blocks[3]
        for weight, std in [
            (model.token_embedding.weight, table),
            (block.attention.qkv.weight, inner),
            (block.attention.out.weight, outer),
        ]:
            assert weight.std().item() == pytest.approx(std, rel=0.03)
        assert not block.attention.qkv.bias.any() and (block.mlp_norm.weight == 1).all()
    with pytest.raises(ValueError, match="init='xavier' is unknown; choose gpt2 or fan_in"):
        initialize(model, "xavier")


@EVERY_KIND
def test_the_loss_starts_near_the_logarithm_of_the_vocabulary(config):
    model = model_of(config, init="gpt2")
    logits = model(ids_of(config, 8, 24))
    loss = F.cross_entropy(logits.flatten(0, 1), ids_of(config, 8, 24, seed=1).flatten())
    assert loss.item() == pytest.approx(math.log(config.vocab_size), abs=0.1)


@EVERY_KIND
def test_one_batch_is_learned_by_heart(config):
    model, ids = model_of(config).train(), ids_of(config, 2, 16)
    targets = ids_of(config, 2, 16, seed=1).flatten()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = F.cross_entropy(model(ids).flatten(0, 1), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_dropout_is_drawn_in_training_and_off_in_evaluation():
    model, ids = GPT(BASE.changed(dropout=0.2)), ids_of(BASE, 1, 8)
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


@EVERY_KIND
@torch.no_grad()
def test_bfloat16_stays_near_float32(config):
    model, ids = model_of(config), ids_of(config, 2, 16)
    expected = model(ids)
    logits = model.bfloat16()(ids)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_initialize_draws_norms_anew_too():
    model = GPT(GPTConfig(11, 8, n_layer=1, n_head=2, d_model=8))
    fresh = {name: p.clone() for name, p in model.named_parameters() if "norm" in name}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(7)
    initialize(model)
    found = dict(model.named_parameters())
    assert fresh and all(torch.equal(found[name], value) for name, value in fresh.items())
    assert not any((parameter == 7).any() for parameter in model.parameters())
