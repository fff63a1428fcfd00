"""The fused step: equal to the model for every architecture, batch, thread count and dtype."""

import copy
import dataclasses
import multiprocessing
import os
import threading

import numpy as np
import pytest
import torch

from llm_core import decode
from llm_core.attention import KVCache
from llm_core.config import GPTConfig, Norm, Rope, RopeScaling
from llm_core.decode import Decoder, can_decode, copied
from llm_core.kernels import step
from llm_core.model import GPT
from llm_core.plan import plan_of

BASE = GPTConfig(vocab_size=59, context_length=40, n_layer=3, n_head=4, d_model=32)
LLAMA = BASE.changed(
    position="rope", norm=Norm("rmsnorm"), mlp="swiglu", bias="none", n_kv_head=2, tied=False
)
YARN = Rope(scaling=RopeScaling("yarn", 4.0, original_context_length=16))
CONFIGS = {
    "gpt2": BASE.changed(mlp="gelu_tanh"),
    "llama": LLAMA,
    "one key head": LLAMA.changed(n_kv_head=1, tied=True),
    "interleaved, half turned": LLAMA.changed(rope=Rope(layout="interleaved", fraction=0.5)),
    "half layout, half turned": LLAMA.changed(rope=Rope(fraction=0.5)),
    "yarn": LLAMA.changed(rope=YARN),
    "norms after": BASE.changed(norm=Norm("layernorm", "post")),
    "rms norms after": LLAMA.changed(norm=Norm("rmsnorm", "post", eps=1e-3)),
    "norms on heads": LLAMA.changed(norm=Norm("rmsnorm", on_qk=True)),
    "layer norms on heads": BASE.changed(norm=Norm("layernorm", on_qk=True), position="rope"),
    "sinusoidal": BASE.changed(position="sinusoidal", bias="attention"),
    "no positions": BASE.changed(position="none", bias="mlp"),
    "window": LLAMA.changed(window=6),
    "window beyond the context": LLAMA.changed(window=64),
    "odd sizes": BASE.changed(d_model=30, n_head=3, head_dim=14, d_ff=50, vocab_size=61),
    "swiglu with odd rows": LLAMA.changed(d_ff=38, bias="all"),
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
N_READ, N_STEPS = 5, 20  # past the window of 6


def model_of(config: GPTConfig) -> GPT:
    """A model none of whose parameters is zero or one, so that each must be used."""
    torch.manual_seed(0)
    model = GPT(config, init="fan_in").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def ids_for(config: GPTConfig, n_rows: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(config.vocab_size, (n_rows, N_READ + N_STEPS), generator=generator)


def by_decoder(model: GPT, ids: torch.Tensor, cache: KVCache, n_threads: int = 1) -> torch.Tensor:
    """Logits (B, N_STEPS, V) after each id behind the first ``N_READ``, which the cache holds."""
    decoder = Decoder(model, len(ids), cache.max_length)
    decoder.n_threads = n_threads
    decoder.start(cache)
    steps = [decoder.step(ids[:, t]).clone() for t in range(N_READ, ids.shape[1])]
    return torch.stack(steps, dim=1)


@torch.inference_mode()
def compare(config: GPTConfig, n_rows: int, n_threads: int = 1, bfloat16: bool = False) -> None:
    """Hold the decoder against the model without a cache, from a prompt that the model read."""
    reference = model_of(config)
    if bfloat16:
        reference = reference.bfloat16().float()
    model = copy.deepcopy(reference).bfloat16() if bfloat16 else reference
    ids = ids_for(config, n_rows)
    cache = KVCache(config, n_rows)
    reference.hidden(ids[:, :N_READ], cache)
    expected = reference(ids)[:, N_READ:]
    torch.testing.assert_close(
        by_decoder(model, ids, cache, n_threads), expected, rtol=1e-4, atol=1e-5
    )


@EVERY_CONFIG
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_a_step_equals_the_model_in_float32(config, bfloat16):
    compare(config, 1, bfloat16=bfloat16)


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("n_rows", [2, 3, 4, 5, 8, 11])
def test_every_size_of_batch_gives_the_same(n_rows, bfloat16):
    compare(CONFIGS["odd sizes"], n_rows, bfloat16=bfloat16)
    compare(CONFIGS["window"], n_rows, bfloat16=bfloat16)


@pytest.mark.parametrize("n_threads", [2, 3, 7, 20])
def test_every_number_of_threads_gives_the_same(n_threads):
    for name in ("gpt2", "norms after", "odd sizes", "window"):
        compare(CONFIGS[name], 1, n_threads)
        compare(CONFIGS[name], 3, n_threads, bfloat16=True)


@EVERY_CONFIG
@torch.inference_mode()
def test_padded_rows_give_what_they_give_alone(config):
    model, ids = model_of(config), ids_for(config, 4)
    padding = torch.tensor([0, 4, 2, 1])
    cache = KVCache(config, 4, padding=padding)
    model.hidden(ids[:, :N_READ], cache)
    together = by_decoder(model, ids, cache)
    for row, pad in enumerate(padding.tolist()):
        expected = model(ids[row : row + 1, pad:])[:, N_READ - pad :]
        torch.testing.assert_close(together[row : row + 1], expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_decoder_needs_no_prompt():
    model, ids = model_of(LLAMA), ids_for(LLAMA, 2)
    decoder = Decoder(model, 2)
    steps = [decoder.step(ids[:, t].contiguous()).clone() for t in range(ids.shape[1])]
    torch.testing.assert_close(torch.stack(steps, dim=1), model(ids), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_float32_cache_is_shared_and_the_model_can_go_on_with_it():
    model, ids = model_of(LLAMA), ids_for(LLAMA, 2)
    cache = KVCache(LLAMA, 2)
    model.hidden(ids[:, :N_READ], cache)
    by_decoder(model, ids[:, :-1], cache)
    assert cache.length == ids.shape[1] - 1
    expected = model(ids)[:, -1:]
    torch.testing.assert_close(model(ids[:, -1:], cache), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_bfloat16_cache_is_copied_as_float32():
    model, ids = model_of(LLAMA).bfloat16(), ids_for(LLAMA, 1)
    cache = KVCache(LLAMA, 1, dtype=torch.bfloat16)
    model.hidden(ids[:, :N_READ], cache)
    decoder = Decoder(model)
    decoder.start(cache)
    decoder.step(ids[:, N_READ])
    assert cache.length == N_READ
    assert torch.equal(decoder.cache.k[..., :N_READ, :], cache.k[..., :N_READ, :].float())


@pytest.mark.parametrize("name", ["llama", "window"])
@torch.inference_mode()
def test_a_copied_cache_holds_each_row_several_times(name):
    model, ids = model_of(CONFIGS[name]), ids_for(LLAMA, 2)
    for n_read in (4, 9):
        cache = KVCache(model.config, 2, 9, torch.tensor([0, 1]))
        model.hidden(ids[:, :n_read], cache)
        copy_of_it = copied(cache, model.config, 20, 3)
        once = model(ids[:, n_read : n_read + 1], copied(cache, model.config, 20))
        thrice = model(ids[:, n_read : n_read + 1].repeat_interleave(3, 0), copy_of_it)
        torch.testing.assert_close(thrice, once.repeat_interleave(3, 0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_matrices_are_read_where_they_lie(dtype):
    model = model_of(LLAMA).to(dtype)
    plan, _ = plan_of(model, 8)
    assert plan.embedding == model.token_embedding.weight.data_ptr()
    assert plan.head == model.head.weight.data_ptr()
    assert plan.matrices.up[1] == model.blocks[1].mlp.up.weight.data_ptr()
    decoder, ids = Decoder(model), torch.tensor([3])
    before = decoder.step(ids).clone()
    with torch.no_grad():
        model.head.weight *= 2
    decoder.start()
    assert torch.equal(decoder.step(ids), 2 * before)


# --- threads and processes ----------------------------------------------------------------------


@torch.inference_mode()
def test_decoders_may_step_side_by_side():
    model, ids = model_of(LLAMA), ids_for(LLAMA, 1)
    expected, found = model(ids), {}

    def read(number: int) -> None:
        with torch.inference_mode():
            decoder = Decoder(model)
            decoder.n_threads = 2 + number % 2
            steps = [decoder.step(ids[:, t]).clone() for t in range(ids.shape[1])]
            found[number] = torch.stack(steps, dim=1)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    for logits in found.values():
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert len(found) == 4


def first_logits(n_threads: int) -> np.ndarray:
    decoder = Decoder(model_of(LLAMA))
    decoder.n_threads = n_threads
    return decoder.step(torch.tensor([3])).numpy().copy()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_gets_threads_of_its_own():
    torch.set_num_threads(1)  # PyTorch's own threads do not survive a fork
    expected = first_logits(2)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.apply_async(first_logits, (2,)).get(timeout=60)
    np.testing.assert_array_equal(found, expected)


def test_a_small_model_takes_one_thread_and_a_large_one_all():
    assert Decoder(model_of(LLAMA)).n_threads == 1
    large = BASE.changed(d_model=512, n_head=8, n_layer=2, vocab_size=8000)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    assert Decoder(GPT(large)).n_threads == 2
    torch.set_num_threads(before)


def test_the_step_is_compiled_once_for_all_models():
    for config in (BASE, LLAMA):
        for dtype in (torch.float32, torch.bfloat16):
            decoder = Decoder(model_of(config).to(dtype), 2)
            decoder.step(torch.arange(6)[::3])
    assert len(step.signatures) == 1


# --- errors -------------------------------------------------------------------------------------


def test_what_cannot_be_decoded_is_refused():
    assert not can_decode(model_of(BASE).half())
    assert not can_decode(model_of(BASE).to("meta"))
    assert not can_decode(model_of(BASE.changed(d_ff=33)).bfloat16())
    assert can_decode(model_of(BASE.changed(d_ff=33)))
    mixed = model_of(BASE).bfloat16()
    mixed.blocks[0].mlp_norm.float()
    assert not can_decode(mixed)
    with pytest.raises(ValueError, match=r"torch\.float16"):
        Decoder(model_of(BASE).half())


def test_wrong_ids_are_refused():
    decoder = Decoder(model_of(BASE), 2)
    with pytest.raises(ValueError, match="id 59 is not in the vocabulary, 0 to 58"):
        decoder.step(torch.tensor([3, 59]))
    with pytest.raises(ValueError, match="id -1 "):
        decoder.step(torch.tensor([3, -1]))
    for ids in (torch.tensor([3]), torch.tensor([[3, 3]]), torch.tensor([3, 3], dtype=torch.int32)):
        with pytest.raises(ValueError, match="one int64 for each of the 2 rows"):
            decoder.step(ids)


def test_positions_end_and_caches_must_fit():
    decoder = Decoder(model_of(BASE), max_length=2)
    for _ in range(2):
        decoder.step(torch.tensor([3]))
    with pytest.raises(ValueError, match="do not fit into max_length=2"):
        decoder.step(torch.tensor([3]))
    with pytest.raises(ValueError, match="the cache holds 1 rows of up to 40"):
        decoder.start(KVCache(BASE, 1))
    with pytest.raises(ValueError, match=r"the cache has the shape \(3, 3, 4, 2, 8\), the decoder"):
        decoder.start(KVCache(BASE, 3, 2))
    other = dataclasses.replace(BASE, n_kv_head=BASE.n_head // 2)
    with pytest.raises(ValueError, match="make it for the same model"):
        decoder.start(KVCache(other, 1, 2))
    empty = KVCache(BASE, 1, 2)
    empty.padding = torch.tensor([1])
    with pytest.raises(ValueError, match="padding alone; read the prompts into it first"):
        decoder.start(empty)
    with pytest.raises(ValueError, match="max_length=41 exceeds context_length=40"):
        Decoder(model_of(BASE), max_length=41)


def test_a_step_that_is_interrupted_leaves_nobody_waiting(monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    decoder, sound = Decoder(model_of(BASE)), Decoder(model_of(BASE))
    decoder.n_threads = 3
    wanted = sound.step(torch.tensor([3])).clone()
    own = decode.step

    def interrupt_the_caller(*given):
        return interrupted() if given[-3] == 0 else own(*given)

    monkeypatch.setattr(decode, "step", interrupt_the_caller)
    with pytest.raises(KeyboardInterrupt):
        decoder.step(torch.tensor([3]))
    monkeypatch.setattr(decode, "step", own)
    again = Decoder(model_of(BASE))
    again.n_threads = 3
    assert torch.equal(again.step(torch.tensor([3])), wanted)
