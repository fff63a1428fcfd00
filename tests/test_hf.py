"""hf and hfconfig: logits and greedy ids against transformers, both ways; what must be refused."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from llm_core import hf
from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig, Norm, Rope, RopeScaling
from llm_core.download import DownloadError, OfflineError
from llm_core.hfconfig import config_from_hf, config_to_hf
from llm_core.model import GPT
from llm_core.tokenizer import END_OF_TEXT, Tokenizer

TOLERANCE = 5e-5  # of logits in fp32; the largest are around 10
GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 97,
    "n_positions": 48,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 97,
    "max_position_embeddings": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": None,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 60,  # a pair of each kind: kept, mixed, divided
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 100.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}


def shake(model, seed=0):
    """Draw every parameter wide, norms and biases too: a wrong place must change the logits."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            parameter.copy_(0.3 * noise + (1.0 if "norm.weight" in name or "ln_" in name else 0.0))
    return model


def oracle(fields, seed=0):
    """A transformers model with such a config, its weights drawn wide."""
    transformers = pytest.importorskip("transformers")
    options = {name: value for name, value in fields.items() if name != "model_type"}
    config = transformers.AutoConfig.for_model(fields["model_type"], **options)
    return shake(transformers.AutoModelForCausalLM.from_config(config), seed).eval()


def some_ids(vocab_size=97, length=40):
    return torch.randint(vocab_size, (3, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def greedy(model, ids, n_new):
    for _ in range(n_new):
        ids = torch.cat((ids, model(ids)[:, -1:].argmax(-1)), dim=1)
    return ids


@torch.no_grad()
def assert_same_model(ours, theirs):
    """The same logits within the tolerance, and the same twenty ids by argmax."""
    ids = some_ids(ours.config.vocab_size)
    logits = theirs(ids).logits
    assert logits.std() > 0.5  # not so flat that everything agrees
    torch.testing.assert_close(ours(ids), logits, atol=TOLERANCE, rtol=0)
    prompt = ids[:, :8]
    told = theirs.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=20,
        pad_token_id=0,
    )  # fmt: skip
    assert torch.equal(greedy(ours, prompt, 20), told)


def write(folder, fields, tensors=None):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def tiny(family="gpt2", **changes):
    """A model of ours with wide weights that the family can express."""
    options = {} if family == "gpt2" else {
        "position": "rope", "norm": Norm("rmsnorm"), "mlp": "swiglu", "bias": "none", "n_kv_head": 2
    }  # fmt: skip
    sizes = {"vocab_size": 97, "context_length": 48, "n_layer": 2, "n_head": 4, "d_model": 32}
    return shake(GPT(GPTConfig(**{**sizes, **options, **changes}))).eval()


# --- against transformers -----------------------------------------------------------------------


GPT2_OPTIONS = {
    "as published": {},
    "exact gelu": {"activation_function": "gelu"},
    "tanh gelu of torch": {"activation_function": "gelu_pytorch_tanh"},
    "fast gelu": {"activation_function": "gelu_fast"},
    "narrow mlp": {"n_inner": 40},
    "untied": {"tie_word_embeddings": False},
    "epsilon": {"layer_norm_epsilon": 0.1},
    "no dropout": {"resid_pdrop": 0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}
LLAMA_OPTIONS = {
    "grouped": {},
    "one kv head": {"num_key_value_heads": 1},
    "all kv heads": {"num_key_value_heads": None},
    "tied": {"tie_word_embeddings": True},
    "wide heads": {"head_dim": 16},
    "narrow heads": {"head_dim": 6},
    "attention bias": {"attention_bias": True},
    "mlp bias": {"mlp_bias": True},
    "all biases": {"attention_bias": True, "mlp_bias": True},
    "epsilon": {"rms_norm_eps": 0.1},
    "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 3.0}},
    "llama3": {"rope_parameters": LLAMA3_ROPE},
    "yarn": {"rope_parameters": YARN_ROPE},
    "yarn, all options": {
        "head_dim": 16,
        "rope_parameters": {
            **YARN_ROPE,
            "beta_fast": 4.0,
            "beta_slow": 0.5,
            "attention_factor": 1.5,
            "truncate": False,
        },
    },
}


def by_name(options):
    return pytest.mark.parametrize("options", options.values(), ids=list(options))


@by_name(GPT2_OPTIONS)
def test_a_gpt2_of_transformers_gives_the_same_logits_and_greedy_ids_here(options, tmp_path):
    theirs = oracle({**GPT2, **options})
    theirs.save_pretrained(tmp_path)
    assert_same_model(hf.load_pretrained(tmp_path), theirs)


@by_name(LLAMA_OPTIONS)
def test_a_llama_of_transformers_gives_the_same_logits_and_greedy_ids_here(options, tmp_path):
    theirs = oracle({**LLAMA, **options})
    theirs.save_pretrained(tmp_path)
    assert_same_model(hf.load_pretrained(tmp_path), theirs)


SAVED = {
    "gpt2": ("gpt2", {}),
    "gpt2, exact gelu that is 4 D wide no more": ("gpt2", {"mlp": "gelu", "d_ff": 56}),
    "gpt2, tanh, untied": ("gpt2", {"mlp": "gelu_tanh", "tied": False, "dropout": 0.2}),
    "llama": ("llama", {"norm": Norm("rmsnorm", eps=0.05), "rope": Rope(77.0)}),
    "llama, all biases": ("llama", {"bias": "all", "tied": False}),
    "llama, attention bias": ("llama", {"bias": "attention", "n_kv_head": 1}),
    "llama, mlp bias": ("llama", {"bias": "mlp", "n_kv_head": 4}),
    "llama, narrow heads": ("llama", {"head_dim": 6, "dropout": 0.1}),
    "llama, linear": ("llama", {"rope": Rope(scaling=RopeScaling("linear", 2))}),
    "llama, llama3": ("llama", {"rope": Rope(500, scaling=RopeScaling("llama3", 8, 16, 1, 3))}),
    "llama, yarn": ("llama", {"rope": Rope(100, scaling=RopeScaling("yarn", 4, 12))}),
    "llama, yarn, all options": (
        "llama",
        {
            "rope": Rope(
                scaling=RopeScaling(
                    "yarn", 4, 12, beta_fast=8, beta_slow=0.5, attention_factor=2, truncate=False
                )
            )
        },
    ),
}


@by_name(SAVED)
def test_what_is_saved_here_transformers_loads_with_the_same_logits(options, tmp_path):
    transformers = pytest.importorskip("transformers")
    family, changes = options
    ours = tiny(family, **changes)
    hf.save_pretrained(ours, tmp_path)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values())
    assert_same_model(ours, theirs)


def test_older_files_with_rope_theta_and_rope_scaling_mean_the_same():
    for new in (LLAMA3_ROPE, YARN_ROPE, {"rope_type": "linear", "rope_theta": 9.0, "factor": 2}):
        theta, kind = new["rope_theta"], new["rope_type"]
        inner = {name: v for name, v in new.items() if name not in ("rope_theta", "rope_type")}
        expected = config_from_hf({**LLAMA, "rope_parameters": new})
        assert expected.rope.theta == theta and expected.rope.scaling.kind == kind
        for key in ("type", "rope_type"):
            old = {**LLAMA, "rope_theta": theta, "rope_scaling": {key: kind, **inner}}
            assert config_from_hf(old) == expected
    plain = config_from_hf({**LLAMA, "rope_theta": 7.0, "rope_scaling": None})
    assert plain.rope == Rope(7.0)
    assert config_from_hf(LLAMA).rope == Rope(10_000.0)


def test_older_files_give_the_logits_that_transformers_gives_for_them(tmp_path):
    inner = {"type": "yarn", "factor": 4.0}  # the original length is the config's, where none is
    fields = {**LLAMA, "rope_theta": 300.0, "rope_scaling": inner}
    theirs = oracle(fields)
    write(tmp_path, fields, {n: t.contiguous() for n, t in theirs.state_dict().items()})
    assert_same_model(hf.load_pretrained(tmp_path), theirs)
    outer = {**fields, "original_max_position_embeddings": 16}
    again = hf.config_from_hf(outer)
    assert again.rope.scaling.original_context_length == 16
    theirs = oracle(outer)
    write(tmp_path, outer)
    assert_same_model(hf.load_pretrained(tmp_path), theirs)


def test_the_first_releases_of_gpt2_load_without_prefix_and_with_their_masks(tmp_path):
    theirs = oracle(GPT2)
    tensors = {n: t.contiguous() for n, t in theirs.transformer.state_dict().items()}
    for layer in range(2):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(48, 48).tril()[None, None]
        tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    write(tmp_path, GPT2, tensors)
    assert_same_model(hf.load_pretrained(tmp_path), theirs)


def test_shards_of_transformers_load_and_ours_load_there(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = oracle(LLAMA)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    ours = hf.load_pretrained(tmp_path / "theirs")
    assert_same_model(ours, theirs)
    hf.save_pretrained(ours, tmp_path / "ours", max_shard_bytes=20_000)
    assert len(list((tmp_path / "ours").glob("model-*.safetensors"))) > 2
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert_same_model(hf.load_pretrained(tmp_path / "ours"), again)
    pairs = zip(theirs.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)


def test_a_model_saved_in_bfloat16_is_one_for_transformers_as_well(tmp_path):
    transformers = pytest.importorskip("transformers")
    hf.save_pretrained(tiny("llama").bfloat16(), tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == torch.bfloat16
    assert_same_model(hf.load_pretrained(tmp_path), theirs.float())


# --- round trips --------------------------------------------------------------------------------


@by_name(SAVED)
def test_a_saved_folder_gives_the_same_model_and_is_saved_alike_again(options, tmp_path):
    family, changes = options
    model = tiny(family, **changes)
    hf.save_pretrained(model, tmp_path / "once", max_shard_bytes=30_000)
    loaded = hf.load_pretrained(tmp_path / "once")
    expected = model.config if family == "gpt2" else model.config.changed(dropout=0.0)
    assert loaded.config == expected and not loaded.training
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    hf.save_pretrained(loaded, tmp_path / "twice", max_shard_bytes=30_000)
    once, twice = sorted((tmp_path / "once").iterdir()), sorted((tmp_path / "twice").iterdir())
    assert [path.name for path in once] == [path.name for path in twice]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_load_from_every_dtype_to_every_dtype(stored, dtype, tmp_path):
    model = tiny("llama").to(stored)
    hf.save_pretrained(model, tmp_path)
    loaded = hf.load_pretrained(tmp_path, dtype)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] in str(stored)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.to(dtype)), name


def test_a_loaded_model_can_learn_and_loading_draws_no_random_numbers(tmp_path):
    hf.save_pretrained(tiny(), tmp_path)
    torch.manual_seed(3)
    model = hf.load_pretrained(tmp_path)
    drawn = torch.rand(4)
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(3)))
    model(some_ids()).logsumexp(-1).mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_a_shard_holds_no_more_bytes_than_allowed_unless_one_tensor_does(tmp_path):
    hf.save_pretrained(tiny("llama"), tmp_path, max_shard_bytes=10_000)
    shards = [load_file(path) for path in sorted(tmp_path.glob("*.safetensors"))]
    sizes = [[t.nbytes for t in shard.values()] for shard in shards]
    assert all(sum(one) <= 10_000 or len(one) == 1 for one in sizes)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(map(sum, sizes))
    assert sorted(index["weight_map"]) == sorted(name for shard in shards for name in shard)


def test_saving_again_leaves_nothing_of_the_earlier_save_and_all_other_files(tmp_path):
    hf.save_pretrained(tiny("llama"), tmp_path, max_shard_bytes=10_000)
    (tmp_path / "vocab.json").write_text("{}")
    hf.save_pretrained(tiny("gpt2"), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "model.safetensors", "vocab.json"]
    assert hf.load_pretrained(tmp_path).config.position == "learned"


def test_a_save_that_breaks_off_anywhere_leaves_the_old_the_new_or_a_refusal(tmp_path, monkeypatch):
    old, new = tiny("llama"), shake(tiny("llama", rope=Rope(50.0)), seed=9)
    outcomes = set()
    for last in range(20):
        folder, calls = tmp_path / str(last), iter(range(100))
        hf.save_pretrained(old, folder, max_shard_bytes=40_000)

        def breaking(original, last=last, calls=calls):
            def call(*args, **kwargs):
                if next(calls) == last:
                    raise OSError("the disk is full")
                return original(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", breaking(os.replace))
            patch.setattr(Path, "unlink", breaking(Path.unlink))
            patch.setattr(os, "fsync", breaking(os.fsync))
            try:
                hf.save_pretrained(new, folder, max_shard_bytes=40_000)
            except OSError as error:
                assert "disk is full" in str(error)
        try:
            loaded = hf.load_pretrained(folder)
        except CheckpointError:
            outcomes.add("refused")
            continue
        for outcome, model in (("old", old), ("new", new)):
            pairs = zip(loaded.parameters(), model.parameters(), strict=True)
            if loaded.config == model.config and all(torch.equal(p, q) for p, q in pairs):
                outcomes.add(outcome)
                break
        else:
            raise AssertionError(f"broken off at call {last}, the folder holds a mixture")
    assert outcomes == {"old", "refused", "new"}


# --- what is not supported ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({**LLAMA, "model_type": "mistral", "sliding_window": 8}, "mistral"),
        ({**LLAMA, "model_type": "qwen2"}, "qwen2"),
        ({**LLAMA, "model_type": "mixtral"}, "mixtral"),
        ({**LLAMA, "model_type": ["llama"]}, "model_type"),
        ({}, "model_type=None"),
        ({**LLAMA, "architectures": ["LlamaForSequenceClassification"]}, "lassification"),
        ({**GPT2, "architectures": "GPT2LMHeadModel"}, "architectures"),
        ({**LLAMA, "quantization_config": {"bits": 4}}, "quantization_config"),
        ({**LLAMA, "hidden_act": "relu"}, "relu"),
        ({**GPT2, "activation_function": "relu"}, "relu"),
        ({**GPT2, "scale_attn_weights": False}, "scale_attn_weights"),
        ({**GPT2, "scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({**GPT2, "reorder_and_upcast_attn": True}, "reorder_and_upcast_attn"),
        ({**GPT2, "add_cross_attention": True}, "add_cross_attention"),
        ({**GPT2, "embd_pdrop": 0.3}, "embd_pdrop"),
        ({**LLAMA, "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({**LLAMA, "rope_scaling": {"rope_type": "longrope"}}, "longrope"),
        ({**LLAMA, "rope_parameters": {**YARN_ROPE, "mscale": 0.7}}, "mscale"),
        ({**LLAMA, "rope_parameters": {**YARN_ROPE, "mscale_all_dim": 1.0}}, "mscale_all_dim"),
        ({**LLAMA, "rope_parameters": {"full_attention": YARN_ROPE}}, "kind of layer"),
    ],
)
def test_what_our_model_has_not_is_refused_by_name(fields, feature):
    with pytest.raises(NotImplementedError, match=feature):
        config_from_hf(fields)


@pytest.mark.parametrize(
    ("family", "changes", "feature"),
    [
        ("llama", {"position": "none"}, "position=none"),
        ("gpt2", {"position": "sinusoidal"}, "position=sinusoidal"),
        ("llama", {"window": 8}, "window=8"),
        ("gpt2", {"norm": Norm(place="post")}, "norm.place=post"),
        ("llama", {"norm": Norm("rmsnorm", on_qk=True)}, "norm.on_qk"),
        ("llama", {"norm": Norm("layernorm")}, "norm=layernorm"),
        ("llama", {"mlp": "gelu"}, "mlp=gelu"),
        ("llama", {"rope": Rope(layout="interleaved")}, "layout=interleaved"),
        ("llama", {"rope": Rope(fraction=0.5)}, "fraction=0.5"),
        ("llama", {"head_dim": 7}, "head_dim=7"),
        ("llama", {"n_head": 6, "head_dim": 8}, "d_model=32"),
        ("gpt2", {"norm": Norm("rmsnorm")}, "norm=rmsnorm"),
        ("gpt2", {"mlp": "swiglu"}, "mlp=swiglu"),
        ("gpt2", {"bias": "none"}, "bias=none"),
        ("gpt2", {"n_kv_head": 2}, "n_kv_head=2"),
        ("gpt2", {"head_dim": 16}, "head_dim=16"),
    ],
)
def test_what_no_family_has_is_not_saved(family, changes, feature, tmp_path):
    with pytest.raises(NotImplementedError, match=feature):
        hf.save_pretrained(tiny(family, **changes), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_head_dim_rule_of_transformers_is_why_some_widths_are_not_saved():
    transformers = pytest.importorskip("transformers")
    with pytest.raises(Exception, match="multiple of the number of attention"):
        transformers.LlamaConfig(hidden_size=32, num_attention_heads=6, head_dim=8)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"vocab_size": None}, "vocab_size"),
        ({"vocab_size": "97"}, "vocab_size"),
        ({"hidden_size": 32.0}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": 10**40 + 1}, "num_attention_heads=4"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads=3"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"head_dim": 7}, "head_dim=7"),
        ({"rms_norm_eps": "1e-6"}, "rms_norm_eps"),
        ({"rms_norm_eps": 2.0}, "eps"),
        ({"attention_bias": "no"}, "attention_bias"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings"),
        ({"rope_theta": float("nan")}, "rope_theta"),
        ({"rope_theta": 10**400}, "rope_theta"),
        ({"rope_theta": 0.5}, "theta"),
        ({"rope_scaling": ["linear"]}, "rope_parameters"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "factor"),
        ({"rope_parameters": {**LLAMA3_ROPE, "low_freq_factor": None}}, "low_freq_factor"),
        ({"rope_parameters": {**LLAMA3_ROPE, "low_freq_factor": 9}}, "low_freq_factor"),
    ],
)
def test_a_config_that_describes_no_model_is_refused_by_field(changes, name):
    with pytest.raises(CheckpointError, match=name):
        config_from_hf({**LLAMA, **changes})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


@given(st.data())
def test_any_value_in_any_field_gives_a_config_or_one_of_the_two_errors(data):
    fields = dict(data.draw(st.sampled_from([GPT2, LLAMA])))
    names = [*fields, "rope_scaling", "rope_parameters", "rope_theta", "n_inner", "head_dim"]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=3)):
        fields[name] = data.draw(json_values)
    try:
        config = config_from_hf(fields)
    except (NotImplementedError, CheckpointError):
        return
    assert config_from_hf(config_to_hf(config)) == config


# --- damaged, foreign and hostile folders -------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """The fields and tensors of a sound folder, to be spoiled."""
    folder = tmp_path_factory.mktemp("sound")
    model = tiny("llama", n_layer=1)
    hf.save_pretrained(model, folder)
    fields = json.loads((folder / "config.json").read_text())
    return fields, load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("model.norm.weight"), "no tensor model.norm.weight"),
        (lambda t: t.update(extra=torch.ones(2)), "1 tensors .* extra"),
        (lambda t: t.update({"model.norm.weight": torch.ones(31)}), r"shape \(31,\).*\(32,\)"),
        (lambda t: t.update({"model.norm.weight": torch.ones(32).int()}), "is I32"),
        (lambda t: t.update({"model.norm.weight": torch.ones(32).double()}), "is F64"),
        (lambda t: t.update({"lm_head.weight": torch.ones(97, 32)}), "tie_word_embeddings"),
        (lambda t: t.update({"lm_head.weight": torch.ones(97, 32).int()}), "tie_word_embeddings"),
        (lambda t: t.clear(), "no tensor"),
    ],
)
def test_tensors_at_odds_with_the_config_are_refused_by_name(spoil, message, sound, tmp_path):
    fields, tensors = sound[0], dict(sound[1])
    spoil(tensors)
    with pytest.raises(CheckpointError, match=message):
        hf.load_pretrained(write(tmp_path, fields, tensors))


def test_harmless_extras_of_old_files_are_passed_over(sound, tmp_path):
    fields, tensors = sound[0], dict(sound[1])
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    loaded = hf.load_pretrained(write(tmp_path, fields, tensors))
    assert torch.equal(loaded.output_weight, tensors["lm_head.weight"])


@pytest.mark.parametrize(
    "sizes",
    [{"vocab_size": 1 << 50}, {"num_hidden_layers": 10**15}, {"intermediate_size": 1 << 62}],
)
def test_a_config_of_absurd_size_is_refused_before_anything_is_allocated(sizes, sound, tmp_path):
    fields, tensors = sound
    with pytest.raises(CheckpointError, match=r"shape|no tensor model\.layers\.1"):
        hf.load_pretrained(write(tmp_path, {**fields, **sizes}, tensors))


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"vocab_size": 1' + b"0" * 5000 + b"}"],
)
def test_a_config_that_is_no_json_object_is_refused(content, sound, tmp_path):
    write(tmp_path, *sound)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        hf.load_pretrained(tmp_path)


def test_a_json_file_larger_than_any_model_needs_is_not_read(sound, tmp_path):
    write(tmp_path, *sound)
    with (tmp_path / "config.json").open("ab") as file:
        file.truncate(1 << 30)  # sparse
    with pytest.raises(CheckpointError, match="1,073,741,824 bytes"):
        hf.load_pretrained(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../x.safetensors", "/x.safetensors", "a/../../x.safetensors", "x.bin", "..", "", 3, None],
)
def test_an_index_that_leads_out_of_its_folder_is_refused(name, sound, tmp_path):
    fields, tensors = sound
    save_file(tensors, tmp_path / "x.safetensors")
    folder = write(tmp_path / "model", fields)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(tensors, name)}))
    with pytest.raises(CheckpointError, match="no safetensors file in its folder"):
        hf.load_pretrained(folder)


def test_an_index_must_name_files_that_are_there_and_each_tensor_once(sound, tmp_path):
    fields, tensors = sound
    folder = write(tmp_path, fields)
    index = folder / "model.safetensors.index.json"
    for content in ({}, {"weight_map": []}, {"weight_map": {}}):
        index.write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match="no weight_map"):
            hf.load_pretrained(folder)
    index.write_text(json.dumps({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}))
    save_file(tensors, folder / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors, which .* lacks"):
        hf.load_pretrained(folder)
    save_file({"model.norm.weight": torch.ones(32)}, folder / "b.safetensors")
    with pytest.raises(CheckpointError, match=r"is in a\.safetensors and b\.safetensors"):
        hf.load_pretrained(folder)


def test_weights_that_would_run_code_are_named_with_the_remedy(sound, tmp_path):
    folder = write(tmp_path, sound[0])
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin .* convert it"):
        hf.load_pretrained(folder)


def test_a_missing_folder_config_or_dtype_is_named(sound, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"hf\.fetch"):
        hf.load_pretrained(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"no file config\.json"):
        hf.load_pretrained(tmp_path)
    with pytest.raises(ValueError, match="float16"):
        hf.load_pretrained(write(tmp_path, *sound), torch.int8)


def loads_or_is_refused(folder):
    try:
        model = hf.load_pretrained(folder)
    except (CheckpointError, NotImplementedError):
        return
    assert model(torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, 97)


@pytest.fixture(scope="module")
def to_spoil(tmp_path_factory):
    """A sound folder and the bytes of its weights: how many are header, and all of them."""
    folder = tmp_path_factory.mktemp("to-spoil")
    hf.save_pretrained(tiny("llama", n_layer=1), folder)
    content = (folder / "model.safetensors").read_bytes()
    return folder, 8 + int.from_bytes(content[:8], "little"), content


@given(data=st.data())
def test_flipped_and_missing_bytes_are_refused_or_are_but_other_weights(data, to_spoil):
    folder, n_header, content = to_spoil
    spoiled = bytearray(content)
    places = st.integers(0, n_header - 1) | st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, max_size=4)):
        spoiled[place] ^= data.draw(st.integers(1, 255))
    kept = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    (folder / "model.safetensors").write_bytes(spoiled[:kept])
    loads_or_is_refused(folder)


@given(data=st.data())
def test_headers_that_lie_are_refused(data, to_spoil):
    folder, n_header, content = to_spoil
    header = json.loads(content[8:n_header])
    names = sorted(set(header) - {"__metadata__"})
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3)):
        key = data.draw(st.sampled_from(["dtype", "shape", "data_offsets"]))
        sizes = st.lists(st.integers(0, 1 << 64) | st.integers(-1, 64), max_size=3)
        kinds = st.sampled_from(["F64", "F32", "F16", "F8_E4M3", "F4", "F6_E2M3", "I8", "?"])
        header[name][key] = data.draw(kinds if key == "dtype" else sizes)
    told = json.dumps(header).encode()
    spoiled = len(told).to_bytes(8, "little") + told + content[n_header:]
    (folder / "model.safetensors").write_bytes(spoiled)
    loads_or_is_refused(folder)


def test_adapters_and_strange_dtypes_are_not_saved(tmp_path):
    model = tiny()
    model.adapter = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"adapter\.bias"):
        hf.save_pretrained(model, tmp_path)
    with pytest.raises(ValueError, match="float64"):
        hf.save_pretrained(tiny().double(), tmp_path)
    with pytest.raises(ValueError, match="max_shard_bytes=0"):
        hf.save_pretrained(tiny(), tmp_path, max_shard_bytes=0)


def test_loading_needs_little_more_memory_than_the_model(tmp_path):
    hf.save_pretrained(GPT(GPTConfig(8192, 64, 4, 8, 512)), tmp_path)
    code = (
        "import sys; from llm_core import hf, runtime; before = runtime.peak_memory();"
        "model = hf.load_pretrained(sys.argv[1]);"
        "print((runtime.peak_memory() - before) / (4 * model.num_parameters()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.7 < float(done.stdout) < 1.6  # one copy and the largest tensor, a quarter of it


# --- the tokenizer and the Hub ------------------------------------------------------------------


def write_vocabulary(folder):
    """GPT-2's two files for a vocabulary of bytes, one merge and the end of a text."""
    units = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in units]
    letters = {byte: chr(byte) for byte in units}
    letters |= {byte: chr(256 + i) for i, byte in enumerate(rest)}
    vocab = {letters[byte]: i for i, byte in enumerate([*units, *rest])}
    vocab |= {"he": 256, END_OF_TEXT: 257}
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\nh e\n", encoding="utf-8")


def test_gpt2s_tokenizer_is_read_from_its_folder(tmp_path):
    write_vocabulary(write(tmp_path, GPT2))
    tokenizer = hf.load_tokenizer(tmp_path)
    assert isinstance(tokenizer, Tokenizer)
    assert tokenizer.encode("he said")[0] == 256
    assert tokenizer.decode(tokenizer.encode("he said ü")) == "he said ü"
    assert tokenizer.special_tokens == {END_OF_TEXT: 257}


def test_other_tokenizers_are_refused_even_where_the_files_have_the_same_names(tmp_path):
    write_vocabulary(write(tmp_path, LLAMA))
    with pytest.raises(NotImplementedError, match=r"tokenizer\.json of model_type='llama'"):
        hf.load_tokenizer(tmp_path)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """The four answers of the Hub that a download asks for, for one repository of small files."""

    files: ClassVar[dict[str, bytes]]
    asked: ClassVar[list[str]]

    def log_message(self, *args):
        pass

    def reply(self, status, body, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self):
        path = self.path.split("?")[0].strip("/")
        api, resolve = "api/models/someone/tiny", f"someone/tiny/resolve/{COMMIT}/"
        self.asked.append(path)
        if path in (f"{api}/revision/main", f"{api}/revision/v1", f"{api}/revision/{COMMIT}"):
            told = {"id": "someone/tiny", "sha": COMMIT, "siblings": []}
            self.reply(200, json.dumps(told).encode(), Content_Type="application/json")
        elif path == f"{api}/tree/{COMMIT}":
            told = [
                {"type": "file", "path": name, "size": len(body), "oid": f"{i:040x}"}
                for i, (name, body) in enumerate(self.files.items())
            ]
            self.reply(200, json.dumps(told).encode(), Content_Type="application/json")
        elif path.removeprefix(resolve) in self.files:
            name = path.removeprefix(resolve)
            etag = f'"{list(self.files).index(name):040x}"'
            self.reply(200, self.files[name], ETag=etag, X_Repo_Commit=COMMIT)
        else:
            code = "RevisionNotFound" if path.startswith(api) else "RepoNotFound"
            self.reply(404, b"{}", X_Error_Code=code)

    do_HEAD = do_GET


@pytest.fixture
def hub(tmp_path):
    """A server on this machine that holds a model, and the environment that leads to it."""
    folder = tmp_path / "hub"
    hf.save_pretrained(tiny("gpt2"), folder, max_shard_bytes=20_000)
    write_vocabulary(folder)
    for name in ("pytorch_model.bin", "README.md"):
        (folder / name).write_bytes(b"not to be fetched")
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    handler = type("OneHub", (Hub,), {"files": files, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = {
        **{name: v for name, v in os.environ.items() if not name.startswith(("HF_", "LLM_CORE_"))},
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    yield handler, environment
    server.shutdown()
    server.server_close()


@pytest.fixture
def at_hand(tmp_path, monkeypatch):
    """Lead huggingface_hub in this process, which has read its environment, somewhere else."""
    from huggingface_hub import constants

    def lead(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LLM_CORE_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return lead


def run(code, environment):
    command = [sys.executable, "-c", f"from llm_core import hf\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_fetch_brings_what_is_needed_and_finds_it_again_without_a_network(hub):
    handler, environment = hub
    code = "print(hf.fetch('someone/tiny', 'v1'))"
    done = run(code, environment)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip())
    assert folder.name == COMMIT
    assert "api/models/someone/tiny/revision/v1" in handler.asked
    names = {path.name for path in folder.iterdir()}
    assert names == set(handler.files) - {"pytorch_model.bin", "README.md"}
    model = hf.load_pretrained(folder)
    pairs = zip(model.parameters(), tiny().parameters(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)
    assert hf.load_tokenizer(folder).encode("he") == [256]
    handler.asked.clear()
    again = run(code, {**environment, "LLM_CORE_OFFLINE": "1"})
    assert again.stdout == done.stdout and not handler.asked


@pytest.mark.parametrize("wanted", [("someone/absent", None), ("someone/tiny", "v9")])
def test_fetch_says_what_the_hub_refuses(wanted, hub, at_hand):
    at_hand(hub[1]["HF_ENDPOINT"])
    with pytest.raises(DownloadError, match=r"refuses someone/.*NotFound.*check name") as raised:
        hf.fetch(*wanted)
    assert not isinstance(raised.value, OfflineError)


def test_fetch_without_a_network_says_what_to_run_and_where_the_cache_lies(
    at_hand, tmp_path, monkeypatch
):
    at_hand("http://127.0.0.1:9")  # where nothing answers
    for reason in ("the Hub cannot be reached", "LLM_CORE_OFFLINE is set"):
        with pytest.raises(OfflineError, match=reason) as raised:
            hf.fetch("openai-community/gpt2", "v1")
        told = str(raised.value)
        assert str(tmp_path / "cache") in told and "models--openai-community--gpt2" in told
        assert "hf.fetch('openai-community/gpt2', 'v1')" in told
        monkeypatch.setenv("LLM_CORE_OFFLINE", "1")
