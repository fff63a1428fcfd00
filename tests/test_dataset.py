"""Writing shards and drawing batches: order, targets, ranks, documents, resuming, memory."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import tracemalloc
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shards import END, write_by_hand

from llm_core import dataset, shards
from llm_core.tokenizer import END_OF_TEXT, Tokenizer

FEW = settings(max_examples=40, deadline=None)
BYTES = {value: bytes([value]) for value in range(256)}


def counting(tmp_path_factory, n_tokens: int) -> Path:
    """A data set whose ids are their own positions, in three shards."""
    parts = np.array_split(np.arange(n_tokens), 3)
    return write_by_hand(tmp_path_factory.mktemp("counting"), *parts, dtype="uint32")


def starts_of(batches, n_batches: int) -> list[int]:
    """Where the windows of the next batches begin, given that ids are positions."""
    return [int(row[0]) for batch in islice(batches, n_batches) for row in batch["ids"]]


# --- the order ----------------------------------------------------------------------------------


@FEW
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**32))
def test_the_order_is_a_permutation(n, seed):
    key = np.random.default_rng(seed).integers(2**64, size=dataset.ROUNDS, dtype=np.uint64)
    assert np.sort(dataset.shuffled(np.arange(n), n, key)).tolist() == list(range(n))


def test_a_part_of_the_order_is_the_same_as_computed_whole():
    n, key = 2**40 + 12345, np.arange(dataset.ROUNDS, dtype=np.uint64)
    positions = np.array([0, 1, 2**20, n - 1])
    whole = dataset.shuffled(positions, n, key)
    single = [int(dataset.shuffled(positions[i : i + 1], n, key)[0]) for i in range(4)]
    assert whole.tolist() == single
    assert len(set(single)) == 4
    assert max(single) < n


def test_the_order_looks_random():
    n, n_keys = 50, 4000
    rng = np.random.default_rng(0)
    seen = np.zeros((n, n))  # how often position i went to place j
    pairs = 0
    for _ in range(n_keys):
        key = rng.integers(2**64, size=dataset.ROUNDS, dtype=np.uint64)
        order = dataset.shuffled(np.arange(n), n, key)
        seen[np.arange(n), order] += 1
        pairs += int(np.sum(np.diff(order) == 1))
    expected = n_keys / n
    chi_square = ((seen - expected) ** 2 / expected).sum()
    degrees = (n - 1) ** 2
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)
    # A random permutation keeps (n - 1) / n neighbors in order on average, about one.
    assert pairs / n_keys == pytest.approx((n - 1) / n, abs=0.1)


# --- windows ------------------------------------------------------------------------------------

SHAPES = {
    "n_tokens": st.integers(2, 120),
    "context_length": st.integers(1, 12),
    "batch_size": st.integers(1, 5),
    "seed": st.integers(0, 5),
}


@FEW
@given(**SHAPES, shuffle=st.booleans())
def test_targets_are_the_ids_shifted_by_one(
    tmp_path_factory, n_tokens, context_length, batch_size, seed, shuffle
):
    context_length = min(context_length, n_tokens - 1)
    path = counting(tmp_path_factory, n_tokens)
    drawn = dataset.batches(path, batch_size, context_length, seed, shuffle=shuffle)
    for batch in islice(drawn, 5):
        ids, targets = batch["ids"], batch["targets"]
        assert ids.shape == targets.shape == (batch_size, context_length)
        assert ids.dtype == targets.dtype == torch.int64
        assert ids.is_contiguous() and targets.is_contiguous()
        assert torch.equal(ids, ids[:, :1] + torch.arange(context_length))
        assert torch.equal(targets, ids + 1)
        assert ids.min() >= 0 and targets.max() < n_tokens


@FEW
@given(**SHAPES, world_size=st.integers(1, 4))
def test_an_epoch_repeats_no_window_whatever_the_number_of_ranks(
    tmp_path_factory, n_tokens, context_length, batch_size, seed, world_size
):
    context_length = min(context_length, n_tokens - 1)
    path = counting(tmp_path_factory, n_tokens)
    ranks = [
        dataset.batches(path, batch_size, context_length, seed, rank, world_size)
        for rank in range(world_size)
    ]
    per_epoch = ranks[0].windows_per_epoch
    n_steps = 3 * per_epoch // (batch_size * world_size) + 1
    drawn = [start for _ in range(n_steps) for rank in ranks for start in starts_of(rank, 1)]
    for epoch in range(3):
        windows = sorted(drawn[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert len(windows) == per_epoch
        assert windows == list(range(windows[0], windows[-1] + 1, context_length))


def test_no_epoch_repeats_another_ones_order_or_offset_for_ever(tmp_path_factory):
    drawn = dataset.batches(counting(tmp_path_factory, 1000), 1, 10)
    per_epoch = drawn.windows_per_epoch
    epochs = [starts_of(drawn, per_epoch) for _ in range(80)]
    assert len({tuple(epoch) for epoch in epochs}) == 80
    assert {epoch[0] % 10 for epoch in epochs} == set(range(10))


def test_every_start_is_as_likely_as_any_other(tmp_path_factory):
    n_tokens, context_length, n_epochs = 65, 8, 3000
    drawn = dataset.batches(counting(tmp_path_factory, n_tokens), 64, context_length)
    n_windows = n_epochs * drawn.windows_per_epoch
    counts = np.bincount(starts_of(drawn, n_windows // 64 + 1)[:n_windows], minlength=n_tokens)
    possible = counts[: drawn.windows_per_epoch * context_length]
    expected = n_epochs / context_length
    assert abs(possible - expected).max() < 5 * np.sqrt(expected)


def test_the_seed_decides_the_order(tmp_path_factory):
    path = counting(tmp_path_factory, 500)
    first, again, other = (starts_of(dataset.batches(path, 4, 5, s), 20) for s in (1, 1, 2))
    assert first == again != other


@FEW
@given(**SHAPES, epochs=st.integers(1, 3))
def test_without_shuffling_every_window_comes_in_order_and_the_last_batch_may_be_smaller(
    tmp_path_factory, n_tokens, context_length, batch_size, seed, epochs
):
    context_length = min(context_length, n_tokens - 1)
    path = counting(tmp_path_factory, n_tokens)
    drawn = dataset.batches(path, batch_size, context_length, seed, shuffle=False, epochs=epochs)
    collected = list(drawn)
    starts = [int(row[0]) for batch in collected for row in batch["ids"]]
    assert starts == list(range(0, n_tokens - context_length, context_length)) * epochs
    assert all(len(batch["ids"]) == batch_size for batch in collected[:-1])
    assert next(drawn, None) is None  # and it stays at its end


def test_two_ranks_of_four_see_what_one_rank_of_eight_sees(tmp_path_factory):
    path = counting(tmp_path_factory, 400)
    one = dataset.batches(path, 8, 6)
    two = [dataset.batches(path, 4, 6, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(30):
        halves = [next(rank)["ids"] for rank in two]
        assert torch.equal(next(one)["ids"], torch.cat(halves))


# --- documents ----------------------------------------------------------------------------------


@FEW
@given(ids=st.lists(st.integers(0, END), min_size=13, max_size=80), seed=st.integers(0, 3))
def test_packed_batches_number_the_documents_and_mask_what_crosses_them(
    tmp_path_factory, ids, seed
):
    path = write_by_hand(tmp_path_factory.mktemp("packed"), ids)
    packed = dataset.batches(path, 3, 6, seed, packed=True)
    plain = dataset.batches(path, 3, 6, seed)
    for ours, raw in islice(zip(packed, plain, strict=True), 3):
        assert torch.equal(ours["ids"], raw["ids"])
        for row in range(3):
            document, expected_documents, expected_targets = 0, [], []
            for token, target in zip(raw["ids"][row], raw["targets"][row], strict=True):
                expected_documents.append(document)
                expected_targets.append(-100 if token == END else int(target))
                document += int(token == END)
            assert ours["documents"][row].tolist() == expected_documents
            assert ours["targets"][row].tolist() == expected_targets


# --- resuming -----------------------------------------------------------------------------------


@FEW
@given(**SHAPES, at=st.integers(0, 150), world_size=st.integers(1, 2), shuffle=st.booleans())
def test_resuming_anywhere_equals_never_having_stopped(
    tmp_path_factory, n_tokens, context_length, batch_size, seed, at, world_size, shuffle
):
    context_length = min(context_length, n_tokens - 1)
    path = counting(tmp_path_factory, n_tokens)

    def new():
        return dataset.batches(
            path, batch_size, context_length, seed, world_size - 1, world_size, shuffle=shuffle
        )

    unbroken, resumed = new(), new()
    starts_of(unbroken, at)
    resumed.restore(json.loads(json.dumps(unbroken.state())))
    assert starts_of(resumed, 5) == starts_of(unbroken, 5)
    assert resumed.state() == unbroken.state()


def test_a_run_may_go_on_with_another_batch_size_and_more_ranks(tmp_path_factory):
    path = counting(tmp_path_factory, 400)
    before, unbroken = dataset.batches(path, 8, 6), dataset.batches(path, 8, 6)
    seen = starts_of(before, 3)
    after = [dataset.batches(path, 2, 6, rank=rank, world_size=2) for rank in (0, 1)]
    for rank in after:
        rank.restore(before.state())
    seen += [start for _ in range(4) for rank in after for start in starts_of(rank, 1)]
    assert seen == starts_of(unbroken, 5)


def test_a_state_from_before_the_current_batch_goes_back(tmp_path_factory):
    drawn = dataset.batches(counting(tmp_path_factory, 400), 2, 6)
    state, first = drawn.state(), starts_of(drawn, 4)
    drawn.restore(state)
    assert starts_of(drawn, 4) == first


def test_a_state_of_anything_else_is_refused_by_name(tmp_path_factory):
    path = counting(tmp_path_factory, 400)
    ours = dataset.batches(path, 2, 6)
    folder = tmp_path_factory.mktemp("other")
    retokenized = write_by_hand(folder, *np.array_split(np.arange(400), 3), dtype="uint32")
    manifest = json.loads(retokenized.with_suffix(".json").read_text())
    retokenized.with_suffix(".json").write_text(json.dumps({**manifest, "tokenizer": "cd" * 32}))
    strangers = {
        "dataset": dataset.batches(counting(tmp_path_factory, 401), 2, 6),
        "tokenizer": dataset.batches(retokenized, 2, 6),
        "seed": dataset.batches(path, 2, 6, seed=1),
        "context_length": dataset.batches(path, 2, 7),
        "shuffle": dataset.batches(path, 2, 6, shuffle=False),
    }
    for name, stranger in strangers.items():
        with pytest.raises(ValueError, match=f"taken with {name}="):
            ours.restore(stranger.state())
    with pytest.raises(ValueError, match="format"):
        ours.restore({"position": 3})


# --- refusals -----------------------------------------------------------------------------------


def test_a_corpus_shorter_than_a_window_is_refused_with_the_longest_that_fits(tmp_path_factory):
    path = counting(tmp_path_factory, 9)
    assert next(dataset.batches(path, 1, 8))["ids"].tolist() == [list(range(8))]
    with pytest.raises(ValueError, match=r"9 ids.*needs 10.*at most 8"):
        dataset.batches(path, 1, 9)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((0, 4), "batch_size=0"), ((1, 0), "context_length=0"), ((1, 4, 0, 2, 2), "rank=2")],
)
def test_impossible_shapes_are_refused(tmp_path_factory, arguments, named):
    with pytest.raises(ValueError, match=named):
        dataset.batches(counting(tmp_path_factory, 50), *arguments)


def test_packing_needs_documents_that_end(tmp_path):
    path = write_by_hand(tmp_path, range(20), end_id=None)
    with pytest.raises(ValueError, match="packed"):
        dataset.batches(path, 1, 4, packed=True)


# --- memory and time ----------------------------------------------------------------------------


def sparse(folder: Path, n_tokens: int) -> Path:
    """A data set of zeros that takes no room on the disk."""
    path = write_by_hand(folder, [0])
    manifest = json.loads(path.with_suffix(".json").read_text())
    manifest["shards"][0]["n_tokens"] = manifest["n_tokens"] = n_tokens
    path.with_suffix(".json").write_text(json.dumps(manifest))
    os.truncate(folder / "data-00000.bin", 2 * n_tokens)
    return path


def test_memory_does_not_grow_with_the_corpus(tmp_path):
    code = """
        import sys
        from llm_core import dataset, runtime
        batches = dataset.batches(sys.argv[1], 8, 256)
        next(batches)
        before = runtime.peak_memory()
        for _ in range(300):
            next(batches)
        print(runtime.peak_memory() - before)
    """
    path = sparse(tmp_path, 4_000_000_000)  # eight gigabytes
    tracemalloc.start()
    drawn = dataset.batches(path, 8, 256)
    for _ in range(200):
        next(drawn)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    # What a window touches is paged in and may stay while nobody else needs the memory.
    assert int(done.stdout) < 100_000_000


def test_a_batch_of_8_by_256_takes_well_under_a_millisecond(tmp_path):
    drawn = dataset.batches(sparse(tmp_path, 10_000_000), 8, 256)
    rounds = []
    for _ in range(5):
        begin = time.process_time()
        for _ in range(200):
            next(drawn)
        rounds.append((time.process_time() - begin) / 200)
    assert min(rounds) < 0.0005


# --- writing ------------------------------------------------------------------------------------

TEXTS = ["One day.", "", "naïve 東京\n", f"typed {END_OF_TEXT} is text", "x" * 50]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(BYTES, [], (END_OF_TEXT,), None)


def write(texts, tokenizer, path, **options):
    return dataset.write(texts, tokenizer, path, progress=False, n_processes=1, **options)


def test_what_is_written_reads_back_with_one_end_token_after_each_document(tmp_path, tokenizer):
    data = write(TEXTS, tokenizer, tmp_path / "new" / "data", tokens_per_shard=40)
    end = tokenizer.special_tokens[END_OF_TEXT]
    expected = [token for text in TEXTS for token in [*text.encode(), end]]
    assert data.windows(np.array([0]), data.n_tokens)[0].tolist() == expected
    assert (data.n_documents, data.end_id, data.vocab_size) == (len(TEXTS), end, 257)
    assert data.tokenizer_hash == tokenizer.hash
    assert {shard.n_tokens for shard in data.shards[:-1]} == {40}
    assert shards.load(tmp_path / "new" / "data", verify=True).fingerprint == data.fingerprint


@FEW
@given(st.lists(st.text(max_size=30), max_size=8))
def test_any_documents_come_back(tmp_path_factory, tokenizer, texts):
    data = write(texts, tokenizer, tmp_path_factory.mktemp("any") / "data")
    ids = data.windows(np.array([0]), data.n_tokens)[0].tolist() if data.n_tokens else []
    pieces = tokenizer.decode(ids).split(END_OF_TEXT) if texts else [""]
    joined = END_OF_TEXT.join(texts) + END_OF_TEXT if texts else ""
    assert END_OF_TEXT.join(pieces) == joined
    assert ids.count(data.end_id) == len(texts) == data.n_documents


def test_the_width_of_an_id_follows_the_vocabulary(tmp_path, tokenizer):
    wide = Tokenizer({70_000 + n: BYTES[n] for n in BYTES}, [], (END_OF_TEXT,), None)
    assert write(["a"], tokenizer, tmp_path / "narrow").dtype == np.dtype("<u2")
    data = write(["a"], wide, tmp_path / "wide")
    assert data.dtype == np.dtype("<u4")
    assert data.windows(np.array([0]), 2)[0].tolist() == [70_097, 70_256]


def test_metadata_is_kept_and_a_name_may_hold_a_dot(tmp_path, tokenizer):
    assert write(TEXTS, tokenizer, tmp_path / "v1.5", metadata={"a": 1}).metadata == {"a": 1}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["v1.5-00000.bin", "v1.5.json"]


def test_a_tokenizer_without_the_end_token_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"special_tokens=\('<\|endoftext\|>',\)"):
        write(TEXTS, Tokenizer(BYTES, [], (), None), tmp_path / "data")


def test_batches_refuse_another_tokenizer_than_the_one_that_wrote(tmp_path, tokenizer):
    write(TEXTS, tokenizer, tmp_path / "data")
    dataset.batches(tmp_path / "data", 1, 4, tokenizer=tokenizer)
    stranger = Tokenizer(BYTES, [], (END_OF_TEXT, "<|more|>"), None)
    with pytest.raises(ValueError, match=f"{tokenizer.hash}.*{stranger.hash}"):
        dataset.batches(tmp_path / "data", 1, 4, tokenizer=stranger)


@pytest.mark.parametrize("existing", [False, True])
def test_a_write_killed_in_the_middle_leaves_no_data_set_and_can_be_repeated(
    tmp_path, tokenizer, existing
):
    path = tmp_path / "data"
    if existing:
        write(["an older data set " * 20], tokenizer, path, tokens_per_shard=64)
    code = """
        import os, signal, sys
        from llm_core import dataset
        from llm_core.tokenizer import END_OF_TEXT, Tokenizer
        def texts():
            for number in range(1000):
                yield f"document {number} " * 400
            os.kill(os.getpid(), signal.SIGKILL)
        bytes_only = Tokenizer({n: bytes([n]) for n in range(256)}, [], (END_OF_TEXT,), None)
        dataset.write(texts(), bytes_only, sys.argv[1], tokens_per_shard=100_000, n_processes=1,
                      progress=False)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)])
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(FileNotFoundError, match=r"dataset\.write"):
        shards.load(path)
    data = write(TEXTS, tokenizer, path)
    clean = write(TEXTS, tokenizer, tmp_path / "clean")
    assert data.fingerprint == clean.fingerprint
    left = sorted(file.name for file in tmp_path.glob("data*"))
    assert left == ["data-00000.bin", "data.json"]
