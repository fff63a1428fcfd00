"""Stages and weights: what comes when, and that a resumed reader reads on."""

import json

import pytest
import torch
from test_shards import write_by_hand

from llm_core import dataset
from llm_core.curriculum import Alternating, Stages, WeightedBatches

V = 300


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A data set whose ids are their own positions."""
    return write_by_hand(tmp_path_factory.mktemp("counting"), range(290))


def rows(path, batch_size=2, context_length=8, seed=0):
    return dataset.batches(path, batch_size, context_length, seed=seed)


def weighted(path, n_weighted):
    weights = torch.ones(V)
    weights[::3] = 9.0
    return WeightedBatches(rows(path), weights, n_weighted)


def staged(path):
    return Stages((rows(path, 4, 8), 3), (rows(path, 2, 16, seed=1), 4))


def resumed_equals(make, n_before, n_after):
    """Whether an iterator resumed after ``n_before`` gives what the first one gives next."""
    one, other = make(), make()
    for _ in range(n_before):
        next(one)
    other.restore(json.loads(json.dumps(one.state())))
    for _ in range(n_after):
        a, b = next(one), next(other)
        if a.keys() != b.keys() or not all(torch.equal(a[name], b[name]) for name in a):
            return False
    return True


# --- stages -------------------------------------------------------------------------------------


def test_stages_follow_each_other_and_end(path):
    found = list(staged(path))
    assert [tuple(batch["ids"].shape) for batch in found] == [(4, 8)] * 3 + [(2, 16)] * 4
    sources = rows(path, 4, 8), rows(path, 2, 16, seed=1)
    expected = [next(sources[0]) for _ in range(3)] + [next(sources[1]) for _ in range(4)]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["ids"], other["ids"])


@pytest.mark.parametrize("n_before", range(7))
def test_stages_resume_in_any_of_them(path, n_before):
    assert resumed_equals(lambda: staged(path), n_before, 7 - n_before)


def test_a_source_that_ends_ends_the_stages(path):
    source = dataset.batches(path, 2, 8, epochs=1)
    n_batches = len(list(dataset.batches(path, 2, 8, epochs=1)))
    assert len(list(Stages((source, 10_000)))) == n_batches


def test_impossible_stages_are_refused(path):
    with pytest.raises(ValueError, match=r"n_batches=\[3, 0\] must be at least 1"):
        Stages((rows(path), 3), (rows(path), 0))
    with pytest.raises(ValueError, match="for one stage or more"):
        Stages()


def test_a_state_of_other_stages_is_refused(path):
    with pytest.raises(ValueError, match="taken with 2 stages, and there are 1"):
        Stages((rows(path), 3)).restore(staged(path).state())
    other = Stages((rows(path, seed=5), 3), (rows(path, 2, 16, seed=1), 4))
    with pytest.raises(ValueError, match="seed=0, these batches have seed=5"):
        other.restore(staged(path).state())


# --- two sources by turns -----------------------------------------------------------------------


def by_turns(path):
    return Alternating(rows(path, 4, 8), rows(path, 2, 16, seed=1), 3)


def test_every_third_batch_is_of_the_other_source(path):
    both, sources = by_turns(path), (rows(path, 4, 8), rows(path, 2, 16, seed=1))
    for number in range(9):
        expected = next(sources[number % 3 == 2])
        assert torch.equal(next(both)["ids"], expected["ids"])


@pytest.mark.parametrize("n_before", range(5))
def test_two_sources_resume_where_both_stood(path, n_before):
    assert resumed_equals(lambda: by_turns(path), n_before, 7)


def test_impossible_turns_and_states_of_others_are_refused(path):
    with pytest.raises(ValueError, match="every=1 must be at least 2"):
        Alternating(rows(path), rows(path), 1)
    state = by_turns(path).state()
    for wrong in ({**state, "every": 4}, {**state, "sources": state["sources"][:1]}, {}, None):
        with pytest.raises(ValueError, match="not taken of two sources with every=3"):
            by_turns(path).restore(wrong)


def test_turns_end_where_a_source_ends(path):
    n_batches = len(list(dataset.batches(path, 2, 8, epochs=1)))
    both = Alternating(rows(path), dataset.batches(path, 2, 8, epochs=1), 2)
    assert len(list(both)) == 2 * n_batches + 1


# --- weights ------------------------------------------------------------------------------------


def test_weights_fade_from_what_was_given_to_none(path):
    plain, batches = rows(path), weighted(path, 4)
    for exponent in (1, 0.75, 0.5, 0.25):
        batch, same = next(batches), next(plain)
        assert torch.equal(batch["ids"], same["ids"])
        high = batch["targets"] % 3 == 0
        assert high.any() and (batch["weights"][~high] == 1).all()
        assert batch["weights"][high].tolist() == pytest.approx([9.0**exponent] * int(high.sum()))
    assert "weights" not in next(batches)


@pytest.mark.parametrize("n_before", [0, 3, 6, 8])
def test_weighted_batches_resume_where_they_stood(path, n_before):
    assert resumed_equals(lambda: weighted(path, 6), n_before, 5)


def test_weighted_stages_resume(path):
    def make():
        return WeightedBatches(staged(path), torch.full((V,), 2.0), 5)

    assert resumed_equals(make, 2, 5)
    with pytest.raises(ValueError, match="not one of weighted batches"):
        make().restore(staged(path).state())


def test_a_source_that_gives_the_same_batch_again_finds_it_as_it_was(path):
    batch = {"targets": torch.tensor([[3, 4]])}

    class Same:
        def __next__(self):
            return batch

    batches = WeightedBatches(Same(), torch.arange(1, 6), 2)
    given = [next(batches).get("weights") for _ in range(3)]
    assert given[0].tolist() == [[4, 5]] and given[2] is None
    assert batch.keys() == {"targets"}


def test_targets_that_do_not_count_need_no_weight(path):
    class Masked:
        def __next__(self):
            return {"targets": torch.tensor([[-100, 4]])}

    batch = next(WeightedBatches(Masked(), torch.arange(1, 6), 10))
    assert batch["weights"][0, 1] == 5


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_that_cannot_be_are_named(path, wrong):
    weights = torch.ones(V)
    weights[5] = wrong
    with pytest.raises(ValueError, match=f"weight of id 5 is {wrong}; .*1 is ordinary"):
        WeightedBatches(rows(path), weights, 1)


def test_a_target_without_a_weight_is_named(path):
    with pytest.raises(ValueError, match="has no weight, of which there are 3"):
        next(WeightedBatches(rows(path), torch.ones(3), 1))


def test_weights_for_no_batch_are_refused(tmp_path):
    with pytest.raises(ValueError, match="n_weighted=0 must be at least 1"):
        WeightedBatches(iter(()), torch.ones(4), 0)
