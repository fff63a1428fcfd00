"""What a run is asked for is checked at once; what happened in it can be read off."""

import dataclasses
import json
import math

import pytest

from llm_core.optim import cosine_lr, stable_decay_lr
from llm_core.trainconfig import History, TrainConfig


def test_the_cosine_ends_with_the_run():
    config = TrainConfig(90, max_lr=3e-3, min_lr=2e-4, warmup_steps=10)
    assert [config.lr(step) for step in range(1, 91)] == [
        cosine_lr(step, 3e-3, 2e-4, 10, 90) for step in range(1, 91)
    ]
    assert config.lr(10) == 3e-3
    assert config.lr(90) == 2e-4
    assert config.lr(1) == pytest.approx(3e-4)


@pytest.mark.parametrize(("share", "decay_steps"), [(0.2, 18), (0.25, 22), (0.0, 0), (0.5, 45)])
def test_stable_decay_falls_over_a_share_of_the_run(share, decay_steps):
    config = TrainConfig(
        90, max_lr=3e-3, min_lr=2e-4, warmup_steps=10, schedule="stable_decay", decay_share=share
    )
    rates = [config.lr(step) for step in range(1, 91)]
    assert rates == [stable_decay_lr(s, 3e-3, 2e-4, 10, decay_steps, 90) for s in range(1, 91)]
    assert sum(rate < 3e-3 for rate in rates[10:]) == decay_steps
    assert rates[-1] == (2e-4 if decay_steps else 3e-3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n_steps": 0}, "n_steps=0 must be at least 1"),
        ({"n_accumulate": 0}, "n_accumulate=0 must be at least 1"),
        ({"keep": 0}, "keep=0 must be at least 1"),
        ({"evaluate_every": -1}, "evaluate_every=-1 must be at least 0"),
        ({"save_every": -1}, "save_every=-1 must be at least 0"),
        ({"schedule": "linear"}, "schedule='linear' is unknown; choose cosine or stable_decay"),
        ({"optimizer": "sgd"}, "optimizer='sgd' is unknown; choose adamw or muon"),
        ({"precision": "float16"}, "'float16' is unknown; choose auto or float32 or bfloat16"),
        ({"max_norm": 0.0}, "max_norm=0.0 must be above 0; math.inf clips nothing"),
        ({"max_norm": math.nan}, "max_norm=nan must be above 0"),
        ({"min_lr": 1.0}, "min_lr=1.0 must lie between 0 and max_lr=0.001"),
        ({"max_lr": math.nan}, "max_lr=nan"),
        ({"warmup_steps": -1}, "warmup_steps=-1 is a number of steps"),
        ({"warmup_steps": 201}, "warmup_steps=201 exceeds n_steps=200, so that max_lr would never"),
        (
            {"n_steps": 180, "schedule": "stable_decay", "warmup_steps": 150, "decay_share": 2 / 9},
            "warmup_steps=150 and decay_steps=40 exceed n_steps=180; shorten",
        ),
        ({"schedule": "stable_decay", "decay_share": -0.1}, "decay_share=-0.1 is no share"),
    ],
)
def test_what_cannot_work_is_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**{"n_steps": 200, **wrong})


def test_a_config_is_a_value_that_json_takes():
    config = TrainConfig(200, max_norm=math.inf, schedule="stable_decay", evaluate_at=(1, 20))
    back = json.loads(json.dumps(dataclasses.asdict(config)))
    back = {name: tuple(v) if isinstance(v, list) else v for name, v in back.items()}
    assert TrainConfig(**back) == config and hash(TrainConfig(**back)) == hash(config)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_steps = 3
    assert dataclasses.replace(config, n_steps=300).n_steps == 300
    with pytest.raises(ValueError, match="n_steps=0"):
        dataclasses.replace(config, n_steps=0)


# --- the history --------------------------------------------------------------------------------


def test_a_new_history_is_empty_and_its_own():
    history = History()
    assert (history.n_steps, history.tokens_per_second, history.stopped) == (0, 0.0, None)
    assert history.evaluated("gap") == ([], [])
    history.loss.append(1.0)
    history.evaluations.append((1, {}))
    assert History() == History(loss=[], evaluations=[])


def test_the_speed_is_that_of_the_later_half():
    history = History(loss=[0.0] * 5, n_tokens=[90, 90, 10, 20, 30], seconds=[9, 9, 1, 2, 1])
    assert history.tokens_per_second == (10 + 20 + 30) / (1 + 2 + 1)


def test_a_metric_is_read_off_with_its_steps():
    history = History(evaluations=[(2, {"gap": 0.5}), (4, {"loss": 2.0}), (6, {"gap": 0.25})])
    assert history.evaluated("gap") == ([2, 6], [0.5, 0.25])
    assert history.evaluated("loss") == ([4], [2.0])


@pytest.mark.parametrize("share", [-0.1, 1.1, float("inf"), float("nan")])
def test_the_last_stretch_is_a_share_of_the_steps(share):
    with pytest.raises(ValueError, match=f"decay_share={share} is no share"):
        TrainConfig(9, warmup_steps=1, schedule="stable_decay", decay_share=share)
