"""Hugging Face's ``config.json`` and ours: the GPT-2 and Llama families, both ways.

A family is a fixed plan with a few options. What a file asks for and our model has not raises
NotImplementedError with the name of the feature, and so does a model of ours that no family can
express: a wrong model that runs is worse than none. The rules follow transformers 5.23, against
which ``tests/test_hf.py`` holds every option. Chapter 4 loads GPT-2 through this module.

Rotary settings come as ``rope_parameters`` (transformers 5) or as ``rope_theta`` and
``rope_scaling`` (before). Both are read; the older form, with ``rope_type`` as transformers has it
since 4.43, is written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig, MLPKind, Norm, Rope, RopeScaling

GELUS: dict[str, MLPKind] = {
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
}
ARCHITECTURES = {
    "gpt2": ("GPT2LMHeadModel", "GPT2Model"),
    "llama": ("LlamaForCausalLM", "LlamaModel"),
}
JSON_BYTES = 1 << 24  # no config or index needs as much
LARGEST = sys.float_info.max


def read_json(path: Path) -> dict[str, Any]:
    """A json object from a file. Raises CheckpointError, by name, for everything else."""
    if not path.is_file():
        raise CheckpointError(f"{path.parent} has no file {path.name}; fetch or save it again")
    if (n_bytes := path.stat().st_size) > JSON_BYTES:
        raise CheckpointError(f"{path} has {n_bytes:,} bytes, more than any such file needs")
    try:
        fields = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not json ({error}); fetch or save it again") from error
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} holds {brief(fields)} and not a json object")
    return fields


# --- single fields ------------------------------------------------------------------------------


def _bad(name: str, value: object, rule: str) -> CheckpointError:
    return CheckpointError(f"{name}={brief(value)} must be {rule}; correct it in config.json")


def _whole(fields: dict[str, Any], name: str, default: int | None = None) -> int:
    """A count, at least 1; null means the default, as in transformers."""
    value = default if fields.get(name) is None else fields[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _bad(name, value, "a whole number of at least 1")
    return value


def _real(fields: dict[str, Any], name: str, default: float | None = None) -> float:
    """A positive, finite number."""
    value = default if fields.get(name) is None else fields[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LARGEST:
        raise _bad(name, value, "a finite number above 0")
    return float(value)


def _flag(fields: dict[str, Any], name: str, default: bool) -> bool:
    value = default if fields.get(name) is None else fields[name]
    if not isinstance(value, bool):
        raise _bad(name, value, "true or false")
    return value


def _divides(part: str, n_parts: int, whole: str, n_whole: int) -> None:
    # GPTConfig says so too, but looks for the nearest divisor: hours for a hostile file's number.
    if n_whole % n_parts:
        raise CheckpointError(
            f"{part}={n_parts} must divide {whole}={n_whole}; correct one of them"
        )


def _refuse(what: str, features: dict[str, bool]) -> None:
    for feature, present in features.items():
        if present:
            raise NotImplementedError(f"{what}: {feature} is not supported")


# --- from Hugging Face --------------------------------------------------------------------------


def _gpt2(fields: dict[str, Any]) -> dict[str, Any]:
    rates = [fields.get(f"{place}_pdrop", 0.1) for place in ("resid", "embd", "attn")]
    _refuse(
        "GPT-2",
        {
            "scale_attn_weights=false": not _flag(fields, "scale_attn_weights", True),
            "scale_attn_by_inverse_layer_idx": _flag(
                fields, "scale_attn_by_inverse_layer_idx", False
            ),
            "reorder_and_upcast_attn": _flag(fields, "reorder_and_upcast_attn", False),
            "add_cross_attention": _flag(fields, "add_cross_attention", False),
            f"resid_pdrop, embd_pdrop, attn_pdrop = {brief(rates)} that differ": any(
                rate != rates[0] for rate in rates
            ),
        },
    )
    activation = fields.get("activation_function", "gelu_new")
    if activation not in tuple(GELUS):
        raise NotImplementedError(
            f"GPT-2: activation_function={brief(activation)} is not supported, "
            f"{', '.join(GELUS)} are"
        )
    n_head, d_model = _whole(fields, "n_head"), _whole(fields, "n_embd")
    _divides("n_head", n_head, "n_embd", d_model)
    return {
        "context_length": _whole(fields, "n_positions"),
        "n_layer": _whole(fields, "n_layer"),
        "n_head": n_head,
        "d_model": d_model,
        "d_ff": _whole(fields, "n_inner", 4 * d_model),
        "norm": Norm("layernorm", eps=_real(fields, "layer_norm_epsilon", 1e-5)),
        "mlp": GELUS[activation],
        "tied": _flag(fields, "tie_word_embeddings", True),
        "dropout": 0.0 if rates[0] == 0 else _real({"resid_pdrop": rates[0]}, "resid_pdrop"),
    }


def _scaling(given: dict[str, Any], fields: dict[str, Any]) -> RopeScaling | None:
    """The scaling that ``rope_parameters`` or ``rope_scaling`` describe."""
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling("linear", _real(given, "factor"))
    context = _whole(fields, "max_position_embeddings", 2048)
    outer = fields.get("original_max_position_embeddings") is not None  # it goes before the inner
    original = _whole(fields if outer else given, "original_max_position_embeddings", context)
    if kind == "llama3":
        low, high = _real(given, "low_freq_factor"), _real(given, "high_freq_factor")
        return RopeScaling("llama3", _real(given, "factor"), original, low, high)
    if kind != "yarn":
        raise NotImplementedError(
            f"Llama: rope scaling {brief(kind)} is not supported, linear, llama3 and yarn are"
        )
    _refuse("yarn", {name: bool(given.get(name)) for name in ("mscale", "mscale_all_dim")})
    amplitude = given.get("attention_factor")
    return RopeScaling(
        "yarn",
        _real(given, "factor"),
        original,
        beta_fast=_real(given, "beta_fast", 32.0),
        beta_slow=_real(given, "beta_slow", 1.0),
        attention_factor=None if amplitude is None else _real(given, "attention_factor"),
        truncate=_flag(given, "truncate", True),
    )


def _rope(fields: dict[str, Any]) -> Rope:
    given = fields.get("rope_scaling") or fields.get("rope_parameters") or {}
    if not isinstance(given, dict):
        raise _bad("rope_parameters", given, "an object")
    partial = given.get("partial_rotary_factor", fields.get("partial_rotary_factor"))
    _refuse(
        "Llama",
        {
            "rope_parameters of its own for each kind of layer": any(
                isinstance(value, dict) for value in given.values()
            ),
            # transformers' Llama ignores it without scaling and fails on it with scaling.
            f"partial_rotary_factor={brief(partial)}": partial not in (None, 1),
        },
    )
    theta = _real(given, "rope_theta", _real(fields, "rope_theta", 10_000.0))
    return Rope(theta, scaling=_scaling(given, fields))


def _llama(fields: dict[str, Any]) -> dict[str, Any]:
    activation = fields.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise NotImplementedError(
            f"Llama: hidden_act={brief(activation)} is not supported, silu is"
        )
    n_head, d_model = _whole(fields, "num_attention_heads"), _whole(fields, "hidden_size")
    n_kv_head = _whole(fields, "num_key_value_heads", n_head)
    if fields.get("head_dim") is None:
        _divides("num_attention_heads", n_head, "hidden_size", d_model)
    _divides("num_key_value_heads", n_kv_head, "num_attention_heads", n_head)
    head_dim = _whole(fields, "head_dim", d_model // n_head)
    if head_dim % 2:
        raise _bad("head_dim", head_dim, "even, as rotary positions turn pairs")
    on_attention, on_mlp = _flag(fields, "attention_bias", False), _flag(fields, "mlp_bias", False)
    biases = {(True, True): "all", (True, False): "attention", (False, True): "mlp"}
    return {
        "context_length": _whole(fields, "max_position_embeddings", 2048),
        "n_layer": _whole(fields, "num_hidden_layers"),
        "n_head": n_head,
        "d_model": d_model,
        "n_kv_head": n_kv_head,
        "head_dim": head_dim,
        "d_ff": _whole(fields, "intermediate_size"),
        "position": "rope",
        "rope": _rope(fields),
        "norm": Norm("rmsnorm", eps=_real(fields, "rms_norm_eps", 1e-6)),
        "mlp": "swiglu",
        "bias": biases.get((on_attention, on_mlp), "none"),
        "tied": _flag(fields, "tie_word_embeddings", False),
    }


def config_from_hf(fields: dict[str, Any]) -> GPTConfig:
    """Our config for the fields of a ``config.json``.

    A field that is absent has the value that transformers gives it; sizes must be there. Llama's
    ``attention_dropout``, which the weights do not depend on, is not taken over.
    Raises NotImplementedError naming a feature that our model does not have, and CheckpointError, a
    ValueError, for fields that describe no model at all.
    """
    kind, named = fields.get("model_type"), fields.get("architectures") or []
    if kind not in tuple(ARCHITECTURES):
        raise NotImplementedError(
            f"model_type={brief(kind)} is not supported, {' and '.join(ARCHITECTURES)} are"
        )
    known = ARCHITECTURES[kind]
    if not isinstance(named, list) or any(name not in known for name in named):
        raise NotImplementedError(
            f"architectures={brief(named)} is not supported for {kind}, {' and '.join(known)} are"
        )
    _refuse(kind, {"quantization_config": bool(fields.get("quantization_config"))})
    try:
        values = _gpt2(fields) if kind == "gpt2" else _llama(fields)
        return GPTConfig(vocab_size=_whole(fields, "vocab_size"), **values)
    except CheckpointError:
        raise
    except ValueError as error:  # a rule of our own config: its message names our field
        raise CheckpointError(f"{kind}: {error}") from error


# --- to Hugging Face ----------------------------------------------------------------------------


def _as_gpt2(config: GPTConfig) -> dict[str, Any]:
    width = config.n_head * config.head_dim
    _refuse(
        "saving as GPT-2",
        {
            f"norm={config.norm.kind}": config.norm.kind != "layernorm",
            f"mlp={config.mlp}": config.mlp == "swiglu",
            f"bias={config.bias}": config.bias != "all",
            f"n_kv_head={config.n_kv_head}": config.n_kv_head != config.n_head,
            f"head_dim={config.head_dim}": width != config.d_model,
        },
    )
    return {
        "n_positions": config.context_length,
        "n_embd": config.d_model,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.d_ff,
        "activation_function": "gelu" if config.mlp == "gelu" else "gelu_new",
        "layer_norm_epsilon": config.norm.eps,
        **{f"{place}_pdrop": config.dropout for place in ("resid", "embd", "attn")},
    }


def _as_rope_scaling(scaling: RopeScaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    names = {
        "linear": ["factor"],
        "llama3": ["factor", "low_freq_factor", "high_freq_factor"],
        "yarn": ["factor", "beta_fast", "beta_slow"],
    }[scaling.kind]
    fields: dict[str, Any] = {name: float(getattr(scaling, name)) for name in names}
    if scaling.kind != "linear":
        fields["original_max_position_embeddings"] = scaling.original_context_length
    if scaling.kind == "yarn":
        fields["truncate"] = scaling.truncate
        if scaling.attention_factor is not None:
            fields["attention_factor"] = float(scaling.attention_factor)
    return {"rope_type": scaling.kind, **fields}


def _as_llama(config: GPTConfig) -> dict[str, Any]:
    _refuse(
        "saving as Llama",
        {
            f"norm={config.norm.kind}": config.norm.kind != "rmsnorm",
            f"mlp={config.mlp}": config.mlp != "swiglu",
            f"rotary layout={config.rope.layout}": config.rope.layout != "half",
            f"rotary fraction={config.rope.fraction}": config.rope.fraction != 1,
            f"head_dim={config.head_dim}, odd,": config.head_dim % 2 == 1,
            # transformers' LlamaConfig insists, even where head_dim is given
            f"d_model={config.d_model} that n_head={config.n_head} does not divide": (
                config.d_model % config.n_head != 0
            ),
        },
    )
    return {
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm.eps,
        "rope_theta": float(config.rope.theta),
        "rope_scaling": _as_rope_scaling(config.rope.scaling),
        "attention_bias": config.bias in ("all", "attention"),
        "mlp_bias": config.bias in ("all", "mlp"),
    }


def config_to_hf(config: GPTConfig) -> dict[str, Any]:
    """The fields of a ``config.json`` for a model of ours: GPT-2 if positions are learned, else
    Llama.

    Llama has no dropout but that of attention, and the weights do not depend on it: it is written
    as 0. Ids of special tokens are null, since a model does not know its tokenizer.
    Raises NotImplementedError naming an option that the family does not have.
    """
    _refuse(
        "saving for transformers",
        {
            f"position={config.position}": config.position not in ("learned", "rope"),
            f"window={config.window}": config.window is not None,
            f"norm.place={config.norm.place}": config.norm.place != "pre",
            "norm.on_qk": config.norm.on_qk,
        },
    )
    kind = "gpt2" if config.position == "learned" else "llama"
    return {
        "model_type": kind,
        "architectures": [ARCHITECTURES[kind][0]],
        "vocab_size": config.vocab_size,
        **(_as_gpt2(config) if kind == "gpt2" else _as_llama(config)),
        "tie_word_embeddings": config.tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }
