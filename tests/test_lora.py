"""LoRA beside matrices written out and beside peft; what learns, what is kept, what is refused."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from llm_core import checkpoint, lora
from llm_core.attention import KVCache
from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig, Norm
from llm_core.decode import Decoder, can_decode
from llm_core.generate import generate
from llm_core.model import GPT
from llm_core.train import train
from llm_core.trainconfig import TrainConfig

V, T, B, R, ALPHA = 53, 12, 3, 4, 6.0
BASE = GPTConfig(V, T, 2, 4, 32, n_kv_head=2, position="rope")
LLAMA = BASE.changed(norm=Norm("rmsnorm"), mlp="swiglu", bias="none", tied=False)
EVERY_CONFIG = pytest.mark.parametrize("config", [BASE, LLAMA], ids=["gpt2", "llama"])
SETTINGS = TrainConfig(6, max_lr=1e-2, min_lr=1e-3, warmup_steps=2, precision="float32")


def model_of(config=BASE, seed=0):
    torch.manual_seed(seed)
    return GPT(config, init="fan_in").eval()


def ids_of(n_rows=B, length=T, seed=1):
    return torch.randint(V, (n_rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def moved(model, seed=2):
    """The model with every B other than 0, as after training."""
    generator = torch.Generator().manual_seed(seed)
    for name in lora.attached(model):
        b = model.get_submodule(name).b
        b.copy_(torch.randn(b.shape, generator=generator).to(b.dtype) / 8)
    return model


def attached_and_moved(config=BASE, dtype=torch.float32, **more):
    model = model_of(config).to(dtype)
    lora.attach(model, R, ALPHA, **more)
    return moved(model)


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def loss_of(model, seed=1):
    ids = ids_of(length=T + 1, seed=seed)
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


class Rows:
    """Endless batches that depend on their number alone."""

    def __init__(self):
        self.position = 0

    def __next__(self):
        self.position += 1
        ids = ids_of(length=T + 1, seed=100 + self.position)
        return {"ids": ids[:, :-1], "targets": ids[:, 1:]}

    def state(self):
        return {"position": self.position}

    def restore(self, state):
        self.position = state["position"]


# --- the product ----------------------------------------------------------------------------------


def test_a_layer_is_the_old_one_and_two_matrices_written_out():
    torch.manual_seed(0)
    base = nn.Linear(5, 7).double()
    layer = lora.LoRALinear(base, r=2, alpha=3.0)
    nn.init.normal_(layer.b)
    x = torch.randn(4, 5, dtype=torch.float64)
    for row, found in zip(x, layer(x), strict=True):
        for out in range(7):
            y = base.bias[out] + sum(base.weight[out, i] * row[i] for i in range(5))
            for rank in range(2):
                thin = sum(layer.a[rank, i] * row[i] for i in range(5))
                y = y + 3.0 / 2 * layer.b[out, rank] * thin
            assert abs(y - found[out]) < 1e-12


@EVERY_CONFIG
def test_peft_computes_the_same_logits_and_gradients(config):
    peft = pytest.importorskip("peft")
    ours = attached_and_moved(config, torch.float64)
    targets = list(lora.TARGETS)
    settings = peft.LoraConfig(r=R, lora_alpha=ALPHA, target_modules=targets, lora_dropout=0.0)
    theirs = peft.inject_adapter_in_model(settings, model_of(config).double())
    parts = {name: theirs.get_submodule(name) for name in lora.attached(ours)}
    with torch.no_grad():
        for name, layer in parts.items():
            mine = ours.get_submodule(name)
            layer.lora_A["default"].weight.copy_(mine.a)
            layer.lora_B["default"].weight.copy_(mine.b)
    torch.testing.assert_close(ours(ids_of()), theirs(ids_of()), rtol=0, atol=1e-12)
    loss_of(ours).backward()
    loss_of(theirs).backward()
    for name, layer in parts.items():
        mine = ours.get_submodule(name)
        for grad, linear in ((mine.a.grad, layer.lora_A), (mine.b.grad, layer.lora_B)):
            torch.testing.assert_close(grad, linear["default"].weight.grad, rtol=1e-9, atol=1e-12)


@EVERY_CONFIG
def test_attaching_changes_no_logit(config):
    model = model_of(config)
    before = model(ids_of())
    lora.attach(model, R)
    assert torch.equal(model(ids_of()), before)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@EVERY_CONFIG
def test_the_merged_model_gives_equal_logits(config, dtype, tolerance):
    plain = model_of(config).to(dtype)(ids_of())
    model = attached_and_moved(config, dtype)
    before = model(ids_of())
    lora.merge(model)
    torch.testing.assert_close(model(ids_of()), before, rtol=0, atol=tolerance)
    assert (before - plain).abs().max() > 0.1  # the parts do something
    assert not lora.attached(model)
    assert model.state_dict().keys() == model_of(config).state_dict().keys()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_merging_in_bfloat16_rounds_the_sum_once():
    model = attached_and_moved(dtype=torch.bfloat16)
    layer = model.blocks[0].mlp.up
    exact = layer.base.weight.double() + ALPHA / R * layer.b.double() @ layer.a.double()
    lora.merge(model)
    off = (model.blocks[0].mlp.up.weight.double() - exact).abs()
    assert bool((off <= exact.abs() * 2**-8 + 1e-6).all())
    assert model.blocks[0].mlp.up.weight.dtype == torch.bfloat16


def test_a_head_that_is_not_tied_can_have_a_part():
    model = attached_and_moved(LLAMA, torch.float64, targets=("head",))
    assert lora.attached(model) == ["head"]
    before = model(ids_of())
    assert not can_decode(model)
    lora.merge(model)
    torch.testing.assert_close(model(ids_of()), before, rtol=0, atol=1e-12)


# --- which parts learn ----------------------------------------------------------------------------


@EVERY_CONFIG
def test_only_the_parts_get_a_gradient(config):
    model = attached_and_moved(config)
    loss_of(model).backward()
    for name, parameter in model.named_parameters():
        ours = name.endswith((".a", ".b"))
        assert parameter.requires_grad == ours, name
        assert (parameter.grad is not None and bool(parameter.grad.any())) == ours, name


def test_the_share_that_learns_follows_from_the_shapes():
    model = model_of()
    n_before, d, f = model.num_parameters(), BASE.d_model, BASE.d_ff
    assert lora.share(model) == 1
    names = lora.attach(model, r=3)
    assert len(names) == 4 * BASE.n_layer
    qkv = (BASE.n_head + 2 * BASE.n_kv_head) * BASE.head_dim
    added = 3 * BASE.n_layer * ((d + qkv) + (d + d) + (d + f) + (f + d))
    assert lora.share(model) == added / (n_before + added)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (("mlp.up",), ["blocks.0.mlp.up", "blocks.1.mlp.up"]),
        (("blocks.1.attention.out",), ["blocks.1.attention.out"]),
        (
            ("up", "qkv"),
            [f"blocks.{i}.{part}" for i in (0, 1) for part in ("attention.qkv", "mlp.up")],
        ),
    ],
)
def test_targets_are_whole_ends_of_names(targets, expected):
    assert lora.attach(model_of(), targets=targets) == expected


def test_the_end_of_a_word_is_no_target():
    with pytest.raises(ValueError, match="fits no linear layer"):
        lora.attach(model_of(), targets=("p", "ut"))


def test_named_parts_learn_beside_the_adapter():
    model = model_of()
    lora.attach(model, train=("final_norm", "blocks.1.mlp_norm.weight"))
    learned = {name for name, p in model.named_parameters() if p.requires_grad}
    others = {name for name in learned if not name.endswith((".a", ".b"))}
    assert others == {"final_norm.weight", "final_norm.bias", "blocks.1.mlp_norm.weight"}


def test_a_part_is_not_the_beginning_of_another_name():
    model = nn.ModuleDict({"block": nn.Linear(2, 2), "blocks": nn.Linear(2, 2)})
    lora.learn_only(model, ("block",))
    learned = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learned == ["block.weight", "block.bias"]
    lora.learn_only(model, ("",))
    assert lora.share(model) == 1
    lora.learn_only(model, ())
    assert lora.share(model) == 0


def test_training_moves_a_and_b_and_nothing_else():
    model = model_of()
    lora.attach(model, R)
    before = copy.deepcopy(model.state_dict())
    first = sum(loss_of(model, seed).item() for seed in range(101, 107))
    train(model, Rows(), SETTINGS, progress=False)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) != name.endswith((".a", ".b")), name
    assert sum(loss_of(model, seed).item() for seed in range(101, 107)) < first


# --- training that stops --------------------------------------------------------------------------


class Stop:
    """Ends the batches early, as a killed process would."""

    def __init__(self, rows, n):
        self.rows, self.left = rows, n

    def __next__(self):
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return next(self.rows)

    def __getattr__(self, name):
        return getattr(self.rows, name)


def test_a_resumed_run_with_parts_equals_an_unbroken_one(tmp_path):
    def fresh():
        model = model_of()
        lora.attach(model, R)
        return model

    whole, half, resumed = fresh(), fresh(), model_of(seed=7)
    lora.attach(resumed, R)
    expected = train(whole, Rows(), SETTINGS, progress=False)
    train(half, Stop(Rows(), 3), SETTINGS, folder=tmp_path, progress=False)
    found = train(resumed, Rows(), SETTINGS, folder=tmp_path, resume=True, progress=False)
    assert found.loss == expected.loss
    assert same_bits(resumed.state_dict(), whole.state_dict())


def test_a_run_with_parts_is_not_resumed_without_them_or_with_others(tmp_path):
    model = model_of()
    lora.attach(model, R)
    train(model, Stop(Rows(), 3), SETTINGS, folder=tmp_path, progress=False)
    plain = model_of()
    with pytest.raises(CheckpointError, match="with the same parts"):
        train(plain, Rows(), SETTINGS, folder=tmp_path, resume=True, progress=False)
    wider = model_of()
    lora.attach(wider, R + 1)
    with pytest.raises(CheckpointError, match="with the same parts"):
        train(wider, Rows(), SETTINGS, folder=tmp_path, resume=True, progress=False)
    more = model_of()
    lora.attach(more, R, train=("final_norm",))
    with pytest.raises(CheckpointError, match="freeze the same parts"):
        train(more, Rows(), SETTINGS, folder=tmp_path, resume=True, progress=False)


def test_a_merged_model_is_saved_as_any_other(tmp_path):
    model = attached_and_moved()
    expected = model(ids_of())
    lora.merge(model)
    checkpoint.save(tmp_path, model, step=1)
    found = checkpoint.load(tmp_path).model()
    torch.testing.assert_close(found(ids_of()), expected, rtol=0, atol=1e-5)


# --- generation -----------------------------------------------------------------------------------


@EVERY_CONFIG
def test_generation_with_parts_equals_that_of_the_merged_model(config):
    model = attached_and_moved(config, torch.float64)
    assert not can_decode(model.float())
    with pytest.raises(ValueError, match="merge LoRA parts"):
        Decoder(model)
    model = attached_and_moved(config)
    plain = model_of(config)
    before = generate(model, [1, 2, 3], T - 3, temperature=0)
    sampled = generate(model, [1, 2, 3], T - 3, seed=5, num_samples=3)
    assert before != generate(plain, [1, 2, 3], T - 3, temperature=0)
    lora.merge(model)
    assert can_decode(model)
    assert generate(model, [1, 2, 3], T - 3, temperature=0) == before
    assert generate(model, [1, 2, 3], T - 3, seed=5, num_samples=3) == sampled


def test_the_cache_gives_what_the_whole_sequence_gives():
    model, ids = attached_and_moved(dtype=torch.float64), ids_of()
    cache = KVCache(BASE, B, dtype=torch.float64)
    steps = [model(ids[:, t : t + 1], cache) for t in range(T)]
    torch.testing.assert_close(torch.cat(steps, 1), model(ids), rtol=0, atol=1e-12)


# --- the file -------------------------------------------------------------------------------------


def test_a_saved_adapter_comes_back_to_the_bit_and_alone(tmp_path):
    path, model = tmp_path / "adapter.safetensors", attached_and_moved(train=("final_norm",))
    with torch.no_grad():
        model.final_norm.weight.mul_(1.5)
    lora.save(model, path)
    other = model_of()
    assert lora.load(other, path) == lora.attached(model)
    assert torch.equal(other(ids_of()), model(ids_of()))
    assert same_bits(lora.adapter(other), lora.adapter(model))
    kept = load_file(path)
    parts = {f"{name}.{part}" for name in lora.attached(model) for part in "ab"}
    assert kept.keys() == parts | {"final_norm.weight", "final_norm.bias"}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (metadata["r"], metadata["alpha"]) == (str(R), str(ALPHA))
    assert json.loads(metadata["targets"]) == lora.attached(model)
    n_numbers = sum(tensor.numel() for tensor in kept.values())
    assert path.stat().st_size < 4 * n_numbers + 6_000  # and the names


def test_a_loaded_adapter_trains_on(tmp_path):
    path, model = tmp_path / "adapter.safetensors", attached_and_moved(train=("final_norm.weight",))
    lora.save(model, path)
    other = model_of()
    lora.load(other, path)
    learns = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (model, other)]
    assert learns[0] == learns[1]


def test_a_linear_layer_that_learns_whole_is_kept_too(tmp_path):
    path = tmp_path / "adapter.safetensors"
    model = attached_and_moved(train=("blocks.1.mlp.up.weight",))
    with torch.no_grad():
        model.blocks[1].mlp.up.base.weight.mul_(2)
    lora.save(model, path)
    other = model_of()
    lora.load(other, path)
    assert torch.equal(other(ids_of()), model(ids_of()))


def test_an_adapter_in_bfloat16_comes_back(tmp_path):
    path, model = tmp_path / "adapter.safetensors", attached_and_moved(dtype=torch.bfloat16)
    lora.save(model, path)
    other = model_of().bfloat16()
    lora.load(other, path)
    assert same_bits(lora.adapter(other), lora.adapter(model))


def refused(path, match, model=None):
    """Loading raises and leaves the model without parts, all of it learning."""
    model = model or model_of()
    with pytest.raises(CheckpointError, match=match):
        lora.load(model, path)
    assert not lora.attached(model)
    assert lora.share(model) == 1


def test_files_that_are_no_adapter_are_refused(tmp_path):
    path = tmp_path / "adapter.safetensors"
    refused(path, "there is no file .*; write one with lora.save")
    lora.save(attached_and_moved(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(path, "is truncated")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(path, "was altered")
    path.write_bytes(whole.replace(b'"alpha":"6.0"', b'"alpha":"9.0"'))
    refused(path, "was altered")
    save_file({"x": torch.zeros(1)}, path)
    refused(path, "its format is None")


@pytest.mark.parametrize("config", [BASE.changed(d_model=64), BASE.changed(n_layer=3), LLAMA])
def test_an_adapter_of_another_model_is_refused(tmp_path, config):
    path = tmp_path / "adapter.safetensors"
    lora.save(attached_and_moved(), path)
    refused(path, "belongs to a model with other parameters", model_of(config))


# --- errors ---------------------------------------------------------------------------------------


def test_what_cannot_be_attached_is_refused_and_changes_nothing():
    model = model_of()
    with pytest.raises(ValueError, match=r"'mlp.gate',.* fits no linear layer; there are blocks.0"):
        lora.attach(model, targets=("mlp.gate",))
    with pytest.raises(ValueError, match="r=0 must be at least 1"):
        lora.attach(model, r=0)
    with pytest.raises(ValueError, match=r"alpha=0\.0 finite and above 0"):
        lora.attach(model, alpha=0.0)
    with pytest.raises(ValueError, match=r"'heads' names no part .* has token_embedding"):
        lora.attach(model, train=("heads",))
    assert not lora.attached(model)
    assert lora.share(model) == 1


def test_parts_are_attached_once(tmp_path):
    model = attached_and_moved()
    lora.save(model, tmp_path / "adapter.safetensors")
    expected = model(ids_of())
    with pytest.raises(ValueError, match=r"8 LoRA parts already, .* lora\.merge"):
        lora.attach(model)
    with pytest.raises(ValueError, match="8 LoRA parts already"):
        lora.load(model, tmp_path / "adapter.safetensors")
    assert torch.equal(model(ids_of()), expected)


def test_a_model_without_parts_has_nothing_to_merge_or_save(tmp_path):
    for act in (lora.merge, lora.adapter, lambda model: lora.save(model, tmp_path / "x")):
        with pytest.raises(ValueError, match=r"put some there first with lora\.attach"):
            act(model_of())
    assert not list(tmp_path.iterdir())


def test_each_target_must_fit_something():
    model = GPT(GPTConfig(11, 8, n_layer=1, n_head=2, d_model=8))
    with pytest.raises(ValueError, match=r"'atention\.qkv' fits no linear layer"):
        lora.attach(model, targets=("mlp.up", "atention.qkv"))
    assert lora.attached(model) == []
