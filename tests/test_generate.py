"""Generation: filters against transformers', frequencies, batches, seeds, stops, the context."""

import math

import numpy as np
import pytest
import torch

from llm_core.config import GPTConfig, Norm
from llm_core.decode import Decoder
from llm_core.generate import filter_logits, generate, stream
from llm_core.model import GPT

LEARNED = GPTConfig(vocab_size=61, context_length=24, n_layer=2, n_head=4, d_model=32)
ROPE = LEARNED.changed(
    position="rope", norm=Norm("rmsnorm"), mlp="swiglu", bias="none", n_kv_head=2, tied=False
)
CONFIGS = {
    "learned": LEARNED,
    "rope": ROPE,
    "window": ROPE.changed(window=5),
    "sinusoidal": LEARNED.changed(position="sinusoidal"),
    "post": LEARNED.changed(norm=Norm(place="post")),
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
PROMPTS = [[3, 1, 4, 1, 5, 9], [2], [6, 5, 3, 5]]


def model_of(config: GPTConfig, seed: int = 0) -> GPT:
    """A model whose weights are large enough to make its choices differ from step to step."""
    torch.manual_seed(seed)
    model = GPT(config, init="fan_in").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def greedy_by_definition(model: GPT, ids: list[int], n_new: int) -> list[int]:
    """No cache: the whole text is read anew for every token."""
    text = list(ids)
    with torch.no_grad():
        for _ in range(n_new):
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    return text[len(ids) :]


# --- the filters --------------------------------------------------------------------------------

LOGITS = torch.randn(40, 300, generator=torch.Generator().manual_seed(1)) * 3


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"top_k": 1},
        {"top_k": 7},
        {"top_k": 1000},
        {"top_p": 0.05},
        {"top_p": 0.9},
        {"top_p": 1.0},
        {"min_p": 0.02},
        {"min_p": 0.7},
        {"top_k": 50, "top_p": 0.8, "min_p": 0.1},
    ],
    ids=str,
)
def test_the_filters_keep_what_those_of_transformers_keep(temperature, options):
    warpers = pytest.importorskip("transformers.generation.logits_process")
    makers = {
        "top_k": warpers.TopKLogitsWarper,
        "top_p": warpers.TopPLogitsWarper,
        "min_p": warpers.MinPLogitsWarper,
    }
    expected = warpers.TemperatureLogitsWarper(temperature)(None, LOGITS)
    for name, value in options.items():
        expected = makers[name](value)(None, expected)
    torch.testing.assert_close(filter_logits(LOGITS, temperature, **options), expected)


def test_top_p_keeps_the_token_that_crosses():
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    kept = {p: filter_logits(logits, top_p=p).isfinite().tolist() for p in (0.2, 0.5, 0.51, 0.8)}
    assert kept[0.2] == kept[0.5] == [True, False, False, False]
    assert kept[0.51] == [True, True, False, False]
    assert kept[0.8] == [True, True, True, False]


def test_min_p_compares_with_the_most_likely_token():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    assert filter_logits(logits, min_p=0.6).isfinite().tolist() == [True, True, False, False]
    assert filter_logits(logits, min_p=1.0).isfinite().tolist() == [True, False, False, False]
    assert filter_logits(logits, min_p=0.0).isfinite().all()


def test_filters_take_any_leading_shape_and_any_dtype():
    logits = LOGITS.reshape(2, 4, 5, 300)
    kept = filter_logits(logits.bfloat16(), top_k=5)
    assert kept.dtype == torch.float32
    assert kept.shape == logits.shape
    whole = filter_logits(logits, 0.7, top_p=0.5)
    torch.testing.assert_close(whole[1, 2], filter_logits(logits[1, 2], 0.7, top_p=0.5))


def test_filtering_leaves_the_logits_as_they_were():
    before = LOGITS.clone()
    filter_logits(LOGITS, 1.0, top_k=3, top_p=0.5, min_p=0.5)
    assert torch.equal(LOGITS, before)


# --- drawing ------------------------------------------------------------------------------------


def chi_square(counts: np.ndarray, probabilities: np.ndarray) -> tuple[float, int]:
    """The statistic over the classes that can occur, and its degrees of freedom."""
    possible = probabilities > 0
    expected = probabilities[possible] * counts.sum()
    return float(((counts[possible] - expected) ** 2 / expected).sum()), int(possible.sum()) - 1


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 2.0}, {"top_k": 5}, {"top_p": 0.6}, {"min_p": 0.3}],
    ids=str,
)
def test_sampled_frequencies_are_the_filtered_distribution(options):
    options = {"temperature": 4.0, **options}  # flat, so that no class is too small to count
    model, n_samples = model_of(LEARNED.changed(vocab_size=13)), 6000
    with torch.no_grad():
        logits = model(torch.tensor([[1, 2, 3]]))[0, -1]
    expected = filter_logits(logits, **options).softmax(-1).double().numpy()
    drawn = generate(model, [1, 2, 3], 1, seed=7, num_samples=n_samples, **options)
    counts = np.bincount([ids[0] for ids in drawn], minlength=13)
    assert counts[expected == 0].sum() == 0
    statistic, degrees = chi_square(counts, expected / expected.sum())
    assert degrees >= 2
    assert statistic < degrees + 4 * math.sqrt(2 * degrees)


def test_later_tokens_are_drawn_from_their_own_distribution():
    """Given the first token, the second follows what the model says after that token."""
    model, n_samples = model_of(ROPE.changed(vocab_size=5)), 6000
    drawn = generate(model, [1, 2, 3], 2, seed=3, num_samples=n_samples)
    statistic, degrees = 0.0, 0
    for first in range(5):
        seconds = [ids[1] for ids in drawn if ids[0] == first]
        with torch.no_grad():
            expected = model(torch.tensor([[1, 2, 3, first]]))[0, -1].double().softmax(-1).numpy()
        one, more = chi_square(np.bincount(seconds, minlength=5), expected)
        statistic, degrees = statistic + one, degrees + more
    assert statistic < degrees + 4 * math.sqrt(2 * degrees)


def test_each_sample_draws_its_own_first_token():
    firsts = {ids[0] for ids in generate(model_of(LEARNED), [1], 1, seed=0, num_samples=40)}
    assert len(firsts) > 5


def test_the_same_seed_gives_the_same_ids_and_another_one_others():
    model = model_of(ROPE)
    options = {"temperature": 1.3, "num_samples": 3}
    first = generate(model, PROMPTS, 8, seed=5, **options)
    assert generate(model, PROMPTS, 8, seed=5, **options) == first
    assert generate(model, PROMPTS, 8, seed=6, **options) != first
    assert len({tuple(row) for row in first}) > 3


def test_without_a_seed_the_ids_follow_from_the_global_generator():
    model = model_of(ROPE)
    rows = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        rows.append(generate(model, [1], 12) + generate(model, [1], 12))
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]
    assert rows[0][0] != rows[0][1]


def test_a_seed_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generate(model_of(LEARNED, seed=0), [1], 1, seed=1)
    torch.manual_seed(0)
    generate(GPT(LEARNED), [1], 4, seed=1)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), before)


# --- greedy, batches, streams -------------------------------------------------------------------


@EVERY_CONFIG
def test_greedy_ids_are_those_of_a_model_without_a_cache(config):
    model = model_of(config)
    for prompt in PROMPTS:
        expected = greedy_by_definition(model, prompt, 15)
        assert generate(model, prompt, 15, temperature=0) == [expected]


@EVERY_CONFIG
@pytest.mark.parametrize("temperature", [0, 1.2])
def test_a_batch_of_unequal_prompts_equals_one_by_one(config, temperature):
    model = model_of(config)
    options = {"temperature": temperature, "seed": 4, "num_samples": 2}
    alone = [row for prompt in PROMPTS for row in generate(model, prompt, 14, **options)]
    assert generate(model, PROMPTS, 14, **options) == alone


@pytest.mark.parametrize("temperature", [0, 0.9])
def test_streaming_equals_generating(temperature):
    model = model_of(ROPE)
    options = {"temperature": temperature, "top_k": 20, "seed": 2}
    whole = generate(model, [5, 6], 20, **options)[0]
    assert list(stream(model, [5, 6], 20, **options)) == whole
    stops = {whole[3]}
    assert (
        list(stream(model, [5, 6], 20, stop=stops, **options))
        == (generate(model, [5, 6], 20, stop=stops, **options)[0])
    )


def test_a_stream_reads_no_further_than_asked(monkeypatch):
    model, n_tokens = model_of(LEARNED), []
    hidden = model.hidden
    monkeypatch.setattr(
        model, "hidden", lambda ids, cache: n_tokens.append(ids.shape[1]) or hidden(ids, cache)
    )
    ids = stream(model, [1, 2, 3], 20, seed=0)
    assert n_tokens == []
    next(ids)
    assert n_tokens == [3]


def test_a_stop_id_ends_its_row_and_is_its_last_id():
    model = model_of(LEARNED)
    free = generate(model, PROMPTS, 12, temperature=1.5, seed=1)
    stop = free[0][4]
    cut = [row[: row.index(stop) + 1] if stop in row else row for row in free]
    assert generate(model, PROMPTS, 12, temperature=1.5, seed=1, stop=[stop]) == cut
    assert len(cut[0]) < 12


def test_ids_may_come_from_numpy():
    model = model_of(LEARNED)
    assert generate(model, list(np.array([3, 4])), 3, seed=0) == generate(model, [3, 4], 3, seed=0)


@EVERY_CONFIG
def test_the_fast_path_gives_what_pytorch_gives(config, monkeypatch):
    model = model_of(config)
    options = {"temperature": 0.8, "seed": 2, "num_samples": 2}
    fast = generate(model, PROMPTS, 15, **options)
    monkeypatch.setattr("llm_core.generate.can_decode", lambda model: False)
    assert fast == generate(model, PROMPTS, 15, **options)


@pytest.mark.parametrize(
    ("dtype", "pays", "most"),
    [
        (torch.float32, torch.bfloat16, 12),
        (torch.float32, torch.float32, 12),
        (torch.bfloat16, torch.bfloat16, 4),
        (torch.bfloat16, torch.float32, 16),
    ],
)
def test_beyond_some_rows_which_depend_on_the_processor_pytorch_takes_the_steps(
    dtype, pays, most, monkeypatch
):
    monkeypatch.setattr("llm_core.runtime.dtype", lambda where: pays)
    taken = []
    monkeypatch.setattr(
        "llm_core.generate.Decoder",
        lambda *given: taken.append(given[1]) or Decoder(*given),
    )
    model = model_of(ROPE).to(dtype)
    for n_rows in (most, most + 1):
        generate(model, [3, 4], 3, num_samples=n_rows, seed=0)
    assert taken == [most]


@pytest.mark.parametrize("fast", [True, False])
def test_a_bfloat16_model_takes_the_most_likely_token_but_for_rounding(fast, monkeypatch):
    model = model_of(ROPE).bfloat16()
    monkeypatch.setattr("llm_core.generate.can_decode", lambda model: fast)
    rows = generate(model, PROMPTS, 15, temperature=0)
    wide = model.float()
    for prompt, row in zip(PROMPTS, rows, strict=True):
        with torch.no_grad():
            logits = wide(torch.tensor([prompt + row]))[0, len(prompt) - 1 : -1]
        chosen = logits.gather(-1, torch.tensor(row)[:, None])[:, 0]
        assert (logits.amax(-1) - chosen).max() < 0.05 * logits.std()


# --- the context --------------------------------------------------------------------------------


def test_a_text_may_fill_the_context_and_no_more():
    model = model_of(LEARNED)
    n_new = LEARNED.context_length - 3 + 1  # nothing reads the last
    assert len(generate(model, [1, 2, 3], n_new, seed=0)[0]) == n_new
    with pytest.raises(ValueError, match=r"context_length=24; ask for at most 22.*slide=True"):
        generate(model, [1, 2, 3], n_new + 1, seed=0)


@EVERY_CONFIG
def test_sliding_goes_on_from_the_last_half_of_the_context(config):
    model, limit = model_of(config), config.context_length
    text = [7, 8, 9]
    seen = list(text)  # what the model may look at
    with torch.no_grad():
        for _ in range(60):
            if len(seen) > limit:
                seen = seen[-(limit // 2) :]
            new = int(model(torch.tensor([seen]))[0, -1].argmax())
            text.append(new)
            seen.append(new)
    assert generate(model, [7, 8, 9], 60, temperature=0, slide=True) == [text[3:]]


def test_rows_slide_each_for_itself():
    model = model_of(ROPE)
    prompts = [*PROMPTS, list(range(40))]
    options = {"temperature": 1.1, "seed": 3, "slide": True}
    alone = [row for prompt in prompts for row in generate(model, prompt, 50, **options)]
    assert generate(model, prompts, 50, **options) == alone


def test_sliding_changes_nothing_within_the_context():
    model = model_of(LEARNED)
    assert generate(model, PROMPTS, 15, seed=0, slide=True) == generate(model, PROMPTS, 15, seed=0)


# --- the model ----------------------------------------------------------------------------------


def test_dropout_is_off_and_the_mode_is_left_as_it_was():
    model = model_of(LEARNED.changed(dropout=0.5))
    expected = generate(model, [1, 2], 10, temperature=0)
    model.train()
    model.blocks[0].eval()  # a mixture is kept, too
    before = [module.training for module in model.modules()]
    assert generate(model, [1, 2], 10, temperature=0) == expected
    ids = stream(model, [1, 2], 10, temperature=0)
    assert next(ids) == expected[0][0]
    assert [module.training for module in model.modules()] == before
    with pytest.raises(ValueError, match="vocabulary"):
        generate(model, [61], 10)
    assert [module.training for module in model.modules()] == before


def test_no_gradient_is_kept_and_inference_mode_ends_with_each_id():
    model = model_of(LEARNED)
    for _ in stream(model, [1, 2], 3, seed=0):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
    generate(model, [1, 2], 3, seed=0)
    model(torch.tensor([[1, 2]])).sum().backward()  # the weights are still trainable


def test_samples_share_one_reading_of_the_prompt(monkeypatch):
    model, shapes = model_of(LEARNED), []
    hidden = model.hidden
    monkeypatch.setattr(
        model, "hidden", lambda ids, cache: shapes.append(tuple(ids.shape)) or hidden(ids, cache)
    )
    rows = generate(model, PROMPTS, 3, seed=0, num_samples=5)
    assert len(rows) == 15
    assert shapes[0] == (3, 6)


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([], {}, "prompt 0 is empty"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([1, 61], {}, "id 61 of prompt 0 is not in the vocabulary, 0 to 60"),
        ([[1], [-1]], {}, "id -1 of prompt 1"),
        ([1], {"stop": [99]}, "id 99 of stop"),
        ([1], {"temperature": -0.1}, "temperature=-0.1"),
        ([1], {"temperature": float("nan")}, "temperature=nan"),
        ([1], {"top_k": 0}, "top_k=0 must be at least 1"),
        ([1], {"top_p": 0.0}, "top_p=0.0 must be above 0"),
        ([1], {"top_p": 1.1}, "top_p=1.1"),
        ([1], {"min_p": -0.1}, "min_p=-0.1"),
        ([1], {"min_p": 1.5}, "min_p=1.5"),
        ([1], {"num_samples": 0}, "num_samples=0 must be at least 1"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ([1] * 25, {}, "context_length=24"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_value(ids, options, message):
    with pytest.raises(ValueError, match=message):
        generate(model_of(LEARNED), ids, **{"max_new_tokens": 2, **options})


def test_a_stream_is_refused_at_the_call():
    with pytest.raises(ValueError, match="id 61"):
        stream(model_of(LEARNED), [61], 3)
    with pytest.raises(ValueError, match="2 prompts cannot be streamed"):
        stream(model_of(LEARNED), [[1], [2]], 3)


def test_temperature_zero_has_no_distribution():
    with pytest.raises(ValueError, match="argmax"):
        filter_logits(LOGITS, temperature=0)


@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_no_numbers_are_refused(temperature):
    model = model_of(LEARNED)
    with torch.no_grad():
        model.token_embedding.weight[5] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        generate(model, [1, 2], 3, temperature=temperature, seed=0)
