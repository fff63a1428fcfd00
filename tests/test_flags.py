"""Flags from dataclasses: one a field, typed and checked, and no trace of those not typed."""

import argparse
import dataclasses

import pytest

from llm_core import flags, runs
from llm_core.config import PRESETS, GPTConfig, Norm, Rope, preset
from llm_core.trainconfig import TrainConfig

TRAINING = TrainConfig(n_steps=10, warmup_steps=1)


def typed(config, *arguments):
    parser = argparse.ArgumentParser()
    flags.add(parser.add_argument_group("config"), config)
    return vars(parser.parse_args(arguments))


def leaves(config, prefix=""):
    """The fields, those of dataclasses inside included, without what is a dataclass or None."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}_")
        elif field.name != "scaling":
            yield prefix + field.name


@pytest.mark.parametrize("config", [preset("story-1m"), TRAINING], ids=["GPTConfig", "TrainConfig"])
def test_every_field_has_a_flag_and_its_own_words(config):
    assert flags.names(config) == list(leaves(config))
    texts = [flags.MEANINGS[name] for name in leaves(config)]
    assert len(set(texts)) == len(texts)


def test_no_meaning_is_left_over_and_no_flag_belongs_to_two_dataclasses():
    model, training = flags.names(preset("story-1m")), flags.names(TRAINING)
    assert not set(model) & set(training)
    assert set(flags.MEANINGS) == {*model, *training}


def test_what_is_not_typed_leaves_no_trace():
    assert typed(TRAINING) == {}
    assert typed(preset("story-1m"), "--n-layer", "7") == {"n_layer": 7}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--n-layer", "7"), {"n_layer": 7}),
        (("--dropout", "0.5"), {"dropout": 0.5}),
        (("--mlp", "gelu"), {"mlp": "gelu"}),
        (("--no-tied",), {"tied": False}),
        (("--window", "16"), {"window": 16}),
        (("--window", "none"), {"window": None}),
        (("--norm-kind", "rmsnorm"), {"norm": Norm("rmsnorm")}),
        (
            ("--norm-on-qk", "--norm-eps", "1e-6"),
            {"norm": Norm("layernorm", eps=1e-6, on_qk=True)},
        ),
        (("--rope-theta", "500"), {"rope": Rope(500.0)}),
    ],
)
def test_a_flag_sets_its_field_and_leaves_the_others(arguments, expected):
    base = preset("story-1m")
    assert flags.changes(base, typed(base, *arguments)) == expected


def test_several_numbers_become_a_tuple():
    found = flags.changes(
        TRAINING, typed(TRAINING, "--evaluate-at", "1", "20", "--max-norm", "inf")
    )
    assert found == {"evaluate_at": (1, 20), "max_norm": float("inf")}
    assert dataclasses.replace(TRAINING, **found).evaluate_at == (1, 20)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_field_of_a_preset_can_be_said_by_flags(name):
    """A config is typed out whole and read back; scaled angles come with loaded models alone."""
    base = GPTConfig(8, 8, 1, 1, 8)
    wanted = preset(name)
    arguments = []
    for flag in flags.names(base):
        head, _, tail = flag.partition("_")
        inside = head in ("rope", "norm")
        value = getattr(getattr(wanted, head), tail) if inside else getattr(wanted, flag)
        dashed = flag.replace("_", "-")
        if isinstance(value, bool):
            arguments += [f"--{dashed}" if value else f"--no-{dashed}"]
        else:
            arguments += [f"--{dashed}", "none" if value is None else str(value)]
    found = base.changed(**flags.changes(base, typed(base, *arguments)))
    assert found == wanted.changed(rope=dataclasses.replace(wanted.rope, scaling=None))


@pytest.mark.parametrize(
    "arguments", [("--n-layer", "two"), ("--mlp", "relu"), ("--window", "half"), ("--max-lr",)]
)
def test_what_is_no_value_of_the_field_is_refused(arguments, capsys):
    with pytest.raises(SystemExit):
        typed(preset("story-1m"), *arguments)
    assert "error" in capsys.readouterr().err


def test_help_says_the_default_of_each_field_in_words_of_one_line():
    parser = argparse.ArgumentParser()
    flags.add(parser.add_argument_group("model"), preset("story-1m"), {"n_head": "heads, 100 %"})
    flags.add(parser.add_argument_group("training"), runs.usual_training(50))
    text = parser.format_help()
    assert "layers (4)" in text
    assert "one table for embedding and head (yes)" in text
    assert "heads, 100 %\n" in text
    assert "updates of the weights (50)" in text
