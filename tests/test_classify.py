"""Classification: scikit-learn and plain loops as oracles; padding, freezing, resuming, files."""

import copy
import json
import math
import random

import numpy as np
import pytest
import torch
from test_lora import Stop
from torch.nn import functional as F

from llm_core import checkpoint, classify, lora
from llm_core.checkpoint import CheckpointError
from llm_core.classify import Batches, Classifier, classification_loss, fit, freeze, probabilities
from llm_core.config import GPTConfig, Norm
from llm_core.model import GPT
from llm_core.tokenizer import END_OF_TEXT, train_bpe
from llm_core.train import train
from llm_core.trainconfig import TrainConfig

T = 24
LABELS = ("red", "green", "blue")
# Nothing to merge: ids are bytes, and the id that begins a text is the last.
WORDS = train_bpe("", 257, special_tokens=[END_OF_TEXT])
END = WORDS.special_tokens[END_OF_TEXT]
CONFIG = GPTConfig(257, T, 2, 2, 16, position="rope", norm=Norm("rmsnorm"), bias="none")
CONFIGS = {
    "rotary": CONFIG,
    "learned": CONFIG.changed(position="learned", bias="all", norm=Norm("layernorm", "post")),
    "window": CONFIG.changed(window=5, tied=False),
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
SETTINGS = TrainConfig(8, max_lr=1e-2, min_lr=1e-3, warmup_steps=2, precision="float32")


def body_of(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    return GPT(config, init="fan_in").eval()


def classifier_of(config=CONFIG, seed=0, labels=LABELS):
    """A classifier whose head is not 0, so that its logits say something."""
    classifier = Classifier(body_of(config, seed), labels).eval()
    with torch.no_grad():
        classifier.head.weight.normal_()
        classifier.head.bias.normal_()
    return classifier


def texts_of(n, seed=0, longest=T - 1):
    draw = random.Random(seed)
    return ["".join(draw.choices("abcdefgh ", k=draw.randint(0, longest))) for _ in range(n)]


def examples_of(n, seed=0, **more):
    draw = random.Random(seed)
    return [(text, draw.choice(LABELS)) for text in texts_of(n, seed, **more)]


def rows_of(examples, batch_size=4, context_length=T, seed=0):
    return Batches(examples, WORDS, LABELS, batch_size, context_length, seed)


def same_bits(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def predictions(n=200, n_labels=4, seed=0):
    """Random probabilities and labels that agree with them more often than not."""
    generator = np.random.default_rng(seed)
    logits = 2 * generator.normal(size=(n, n_labels))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    drawn = [generator.choice(n_labels, p=row) for row in p]
    return logits, p, np.array(drawn)


# --- the report, against scikit-learn -------------------------------------------------------------


@pytest.mark.parametrize("n_labels", [2, 3, 7])
def test_scikit_learn_reports_the_same(n_labels):
    metrics = pytest.importorskip("sklearn.metrics")
    _, p, true = predictions(n_labels=n_labels, seed=n_labels)
    found, predicted, numbers = classify.report(p, true), p.argmax(axis=1), range(n_labels)
    assert found.accuracy.value == metrics.accuracy_score(true, predicted)
    assert found.accuracy.n == len(true)
    assert found.f1 == pytest.approx(metrics.f1_score(true, predicted, average="macro"), abs=1e-12)
    assert np.array_equal(
        found.confusion, metrics.confusion_matrix(true, predicted, labels=numbers)
    )
    assert found.confusion.dtype == np.int64
    assert found.log_loss == pytest.approx(metrics.log_loss(true, p, labels=numbers), abs=1e-12)


def test_scikit_learn_finds_the_same_calibration():
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    _, p, true = predictions(n=500, n_labels=3)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == true
    found = classify.report(p, true).calibration
    share, mean = curve(right, confidence, n_bins=10, strategy="uniform")
    used = found.n > 0
    np.testing.assert_allclose(found.right[used], share, atol=1e-12)
    np.testing.assert_allclose(found.confidence[used], mean, atol=1e-12)


def test_labels_that_nobody_gave_do_not_lower_the_mean_of_f1():
    metrics = pytest.importorskip("sklearn.metrics")
    p = np.array([[0.8, 0.1, 0.1, 0.0], [0.2, 0.7, 0.1, 0.0], [0.6, 0.3, 0.1, 0.0]])
    true = np.array([0, 1, 2])  # 2 is never predicted, 3 is not even true
    expected = metrics.f1_score(true, p.argmax(axis=1), average="macro", zero_division=0)
    assert classify.report(p, true).f1 == pytest.approx(expected, abs=1e-12)
    assert expected == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_a_report_by_hand():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    found = classify.report(p, np.array([0, 1, 1, 1]))
    assert found.accuracy.right == 3
    assert found.confusion.tolist() == [[1, 0], [1, 2]]
    assert found.f1 == pytest.approx((2 / 3 + 4 / 5) / 2)
    losses = [-math.log(0.9), -math.log(0.4), -math.log(0.7), -math.log(0.8)]
    assert found.log_loss == pytest.approx(sum(losses) / 4)
    assert found.calibration.error == pytest.approx((0.1 + 0.6 + 0.3 + 0.2) / 4)
    assert str(found) == (
        "accuracy 75.0% (30.1% to 95.4%, n = 4)\n"
        "macro F1 0.733, log loss 0.400 nats, calibration error 0.300\n"
        "true label by row, predicted by column:\n"
        "1  0\n"
        "1  2"
    )


def test_columns_of_a_large_confusion_stand_below_each_other():
    p = np.repeat([[0.9, 0.1], [0.2, 0.8]], [120, 3], axis=0)
    table = str(classify.report(p, np.repeat([0, 0], [120, 3]))).splitlines()[-2:]
    assert table == ["120    3", "  0    0"]


def test_what_was_said_to_be_impossible_costs_everything():
    assert classify.report([[1.0, 0.0], [0.0, 1.0]], [0, 0]).log_loss == math.inf


@pytest.mark.parametrize(
    ("p", "true", "match"),
    [
        ([[0.5, 0.5]], [0, 1], r"\(1, 2\) numbers and \(2,\) labels do not fit"),
        ([0.5, 0.5], [0, 1], r"give \(n, C\)"),
        (np.zeros((0, 2)), np.zeros(0, int), "at least one row"),
        ([[0.5, np.nan]], [0], "not finite"),
        ([[0.5, 0.5]], [2], "labels are int64, 2 to 2; give the number of a column, 0 to 1"),
        ([[0.5, 0.5]], [-1], "labels are int64, -1 to -1"),
        ([[0.5, 0.5]], [0.0], "labels are float64"),
        ([[0.5, 0.6]], [0], "give a softmax"),
        ([[1.5, -0.5]], [0], "give a softmax"),
    ],
)
def test_what_is_no_prediction_is_refused(p, true, match):
    with pytest.raises(ValueError, match=match):
        classify.report(p, true)


# --- temperature ----------------------------------------------------------------------------------


def log_loss_at(logits, true, t):
    z = logits / t
    z = z - z.max(axis=1, keepdims=True)
    return (np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), true]).mean()


@pytest.mark.parametrize("scale", [0.05, 0.7, 1.0, 6.0, 400.0])
def test_scipy_finds_the_same_temperature(scale):
    optimize = pytest.importorskip("scipy.optimize")
    logits, _, true = predictions(n=300)
    logits = logits * scale
    found = classify.temperature(logits, true)
    best = optimize.minimize_scalar(
        lambda log_t: log_loss_at(logits, true, math.exp(log_t)),
        bounds=(math.log(scale) - 3, math.log(scale) + 3),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert found == pytest.approx(math.exp(best.x), rel=1e-6)


def test_no_temperature_of_a_grid_is_better():
    logits, p, true = predictions(n=300, n_labels=3, seed=5)
    found = classify.temperature(4 * logits, true)
    least = log_loss_at(4 * logits, true, found)
    assert all(least <= log_loss_at(4 * logits, true, t) for t in np.geomspace(0.05, 50, 400))
    assert least < log_loss_at(4 * logits, true, 1.0) - 0.1
    assert classify.temperature(np.log(p), true) == pytest.approx(found / 4, rel=1e-9)


def test_where_no_temperature_is_best_that_is_said():
    logits = np.array([[2.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ValueError, match="predictions are all right"):
        classify.temperature(logits, [0, 1])
    with pytest.raises(ValueError, match="no better than equal odds"):
        classify.temperature(logits, [1, 0])
    with pytest.raises(ValueError, match="do not fit"):
        classify.temperature(logits, [0])


# --- the model ------------------------------------------------------------------------------------


def test_a_new_head_gives_every_label_the_same_odds():
    classifier = Classifier(body_of(), LABELS)
    batch = next(rows_of(examples_of(10)))
    loss, _ = classification_loss(classifier, batch)
    assert loss.item() == pytest.approx(math.log(3), abs=1e-6)


@EVERY_CONFIG
def test_logits_are_the_head_on_the_last_token_of_a_text(config):
    classifier = classifier_of(config).double()
    for text in ("", "a", "some text"):
        ids = torch.tensor([[END, *WORDS.encode(text)]])
        last = classifier.body.hidden(ids)[0, -1]
        expected = classifier.head.weight @ last + classifier.head.bias
        found = classifier(ids, torch.tensor([ids.shape[1]]))[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@EVERY_CONFIG
def test_a_text_in_a_padded_batch_has_the_logits_it_has_alone(config):
    classifier = classifier_of(config).double()
    texts = texts_of(9, seed=3)
    together = probabilities(classifier, WORDS, texts, batch_size=4)
    for text, row in zip(texts, together, strict=True):
        ids = torch.tensor([[END, *WORDS.encode(text)]])
        alone = classifier(ids, torch.tensor([ids.shape[1]])).softmax(dim=-1)
        np.testing.assert_allclose(row, alone[0].detach().numpy(), rtol=0, atol=1e-12)


def test_what_stands_behind_a_text_does_not_matter():
    classifier = classifier_of().double()
    ids, lengths = torch.randint(257, (5, T)), torch.tensor([1, 5, T, 9, 3])
    other = torch.randint(257, (5, T))
    inside = torch.arange(T) < lengths[:, None]
    mixed = torch.where(inside, ids, other)
    torch.testing.assert_close(
        classifier(ids, lengths), classifier(mixed, lengths), rtol=0, atol=1e-12
    )


def test_probabilities_are_those_of_the_softmax_and_leave_the_mode_alone():
    classifier = classifier_of(CONFIG.changed(dropout=0.5)).train()
    found = probabilities(classifier, WORDS, texts_of(7))
    assert found.shape == (7, 3) and found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    assert np.array_equal(found, probabilities(classifier, WORDS, texts_of(7)))  # no dropout
    assert classifier.training and classifier.body.blocks[0].training
    assert probabilities(classifier, WORDS, []).shape == (0, 3)


def test_the_loss_is_that_of_torch_and_notes_the_accuracy():
    classifier, batch = classifier_of(), next(rows_of(examples_of(10)))
    logits = classifier(batch["ids"], batch["lengths"])
    loss, noted = classification_loss(classifier, batch)
    assert torch.equal(loss, F.cross_entropy(logits, batch["labels"]))
    assert noted == {"accuracy": (logits.argmax(1) == batch["labels"]).float().mean().item()}


def test_labels_are_two_or_more_and_differ():
    for labels in (["one"], ["one", "two", "one"]):
        with pytest.raises(ValueError, match="at least 2, each of them once"):
            Classifier(body_of(), labels)


# --- which parts learn ----------------------------------------------------------------------------

PARTS = {
    "head": ("head",),
    "last block": ("head", "body.blocks.1", "body.final_norm"),
    "all": ("",),
}


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS.keys())
def test_frozen_parts_keep_every_bit_and_the_others_move(parts):
    classifier = classifier_of()
    freeze(classifier, parts)
    before = copy.deepcopy(classifier.state_dict())
    train(classifier, rows_of(examples_of(20)), SETTINGS, classification_loss, progress=False)
    for name, tensor in classifier.state_dict().items():
        learns = any(part == "" or name == part or name.startswith(part + ".") for part in parts)
        assert torch.equal(tensor, before[name]) != learns, name


def test_a_frozen_body_leaves_no_graph():
    """Backward through it would cost twice the forward pass, for nothing."""
    classifier, batch = classifier_of(), next(rows_of(examples_of(10)))
    seen = []
    classifier.body.blocks[0].register_forward_hook(
        lambda module, args, out: seen.append(torch.is_grad_enabled() or out.requires_grad)
    )
    freeze(classifier)
    loss, _ = classification_loss(classifier, batch)
    loss.backward()
    assert seen == [False]
    assert classifier.head.weight.grad is not None
    freeze(classifier, ("",))
    classification_loss(classifier, batch)[0].backward()
    assert seen == [False, True]
    assert classifier.body.token_embedding.weight.grad is not None


def test_a_part_that_is_none_is_refused():
    classifier = classifier_of()
    with pytest.raises(ValueError, match=r"'blocks\.1' names no part .* has body\.token_embedding"):
        freeze(classifier, ("head", "blocks.1"))
    assert lora.share(classifier) == 1


# --- batches --------------------------------------------------------------------------------------


def taken(rows, n):
    return [next(rows) for _ in range(n)]


def texts_in(batches):
    """The (ids, label) pairs of batches, without the padding."""
    return [
        (tuple(ids[:length].tolist()), int(label))
        for batch in batches
        for ids, length, label in zip(batch["ids"], batch["lengths"], batch["labels"], strict=True)
    ]


@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (12, 4), (23, 4), (30, 7)])
def test_every_epoch_is_a_permutation(n, batch_size):
    examples = examples_of(n)
    expected = sorted(((END, *WORDS.encode(t)), LABELS.index(label)) for t, label in examples)
    rows, orders = rows_of(examples, batch_size), []
    for _ in range(3):
        batches = taken(rows, rows.n_batches)
        sizes = [len(batch["ids"]) for batch in batches]
        assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
        orders.append(texts_in(batches))
        assert sorted(orders[-1]) == expected
    if n > 12:
        assert orders[0] != orders[1] != orders[2]


def test_batches_are_padded_on_the_right_by_no_more_than_they_need():
    for batch in taken(rows_of(examples_of(20)), 10):
        ids, lengths = batch["ids"], batch["lengths"]
        assert ids.dtype == lengths.dtype == batch["labels"].dtype == torch.int64
        assert ids.shape[1] == lengths.max()
        assert bool((ids[:, 0] == END).all())
        outside = torch.arange(ids.shape[1]) >= lengths[:, None]
        assert not ids[outside].any()


def test_similar_lengths_share_a_batch():
    """Padding is the part of a batch that is computed for nothing."""

    def waste(batches):
        n_real = sum(int(batch["lengths"].sum()) for batch in batches)
        return 1 - n_real / sum(batch["ids"].numel() for batch in batches)

    examples = examples_of(400, longest=200)
    rows = rows_of(examples, batch_size=16, context_length=201)
    random.Random(0).shuffle(examples)
    by_chance = []
    for start in range(0, 400, 16):
        lengths = torch.tensor([len(text) + 1 for text, _ in examples[start : start + 16]])
        by_chance.append({"lengths": lengths, "ids": torch.zeros(len(lengths), lengths.max())})
    assert waste(taken(rows, rows.n_batches)) < 0.15 < 0.4 < waste(by_chance)


def test_batches_of_another_epoch_are_composed_anew():
    draw = random.Random(0)
    examples = [(text + "x" * draw.randint(12, 15), "red") for text in texts_of(64, longest=8)]
    rows = rows_of(examples, batch_size=16)
    epochs = [{frozenset(texts_in([batch])) for batch in taken(rows, 4)} for _ in range(2)]
    assert not epochs[0] & epochs[1]


def test_a_long_text_keeps_its_last_tokens():
    rows = rows_of([("0123456789", "red")], context_length=5)
    assert next(rows)["ids"].tolist() == [[END, *b"6789"]]
    classifier = classifier_of()
    long, cut = "x" * 50 + "y" * (T - 1), "y" * (T - 1)
    found = probabilities(classifier, WORDS, [long, cut])
    np.testing.assert_allclose(found[0], found[1], atol=1e-7)


def test_a_text_cannot_forge_the_id_that_begins_texts():
    rows = rows_of([(END_OF_TEXT, "red")])
    assert next(rows)["ids"].tolist() == [[END, *END_OF_TEXT.encode()]]


@pytest.mark.parametrize("n_before", [0, 1, 5, 6, 13])
def test_resumed_batches_go_on_where_they_stood(n_before):
    one, other = rows_of(examples_of(23), seed=5), rows_of(examples_of(23), seed=5)
    taken(one, n_before)
    other.restore(json.loads(json.dumps(one.state())))
    assert all(same_bits(a, b) for a, b in zip(taken(one, 15), taken(other, 15), strict=True))


def test_a_state_of_other_batches_is_refused():
    state = rows_of(examples_of(23)).state()
    for other, name in (
        (rows_of(examples_of(24)), "examples"),
        (rows_of(examples_of(23), context_length=9), "examples"),
        (rows_of(examples_of(23), batch_size=8), "n_batches"),
        (rows_of(examples_of(23), seed=1), "seed"),
    ):
        with pytest.raises(ValueError, match=f"was taken with {name}="):
            other.restore(state)


def test_examples_that_cannot_be_used_are_refused():
    with pytest.raises(ValueError, match="example 1 has the label 'pink', which is none of"):
        rows_of([("a", "red"), ("b", "pink")])
    with pytest.raises(ValueError, match="there are no examples"):
        rows_of([])
    for sizes in ({"batch_size": 0}, {"context_length": 1}):
        with pytest.raises(ValueError, match="must be at least"):
            rows_of(examples_of(3), **sizes)


# --- learning -------------------------------------------------------------------------------------


def marked(n, seed):
    """Texts with one of three marks somewhere, which says the label."""
    draw = random.Random(seed)
    examples = []
    for text in texts_of(n, seed, longest=12):
        label, place = draw.randrange(3), draw.randint(0, len(text))
        examples.append((text[:place] + "!?."[label] + text[place:], LABELS[label]))
    return examples


def test_a_task_that_can_be_told_is_learned_from_random_weights():
    classifier = fit(body_of(), marked(300, 0), LABELS, WORDS, 150, max_lr=1e-2, progress=False)
    unseen = marked(100, 1)
    p = probabilities(classifier, WORDS, [text for text, _ in unseen])
    found = classify.report(p, [LABELS.index(label) for _, label in unseen])
    assert found.accuracy.value > 0.95
    assert found.log_loss < 0.3


def test_fitting_leaves_the_body_and_the_random_state_alone():
    body = body_of()
    before, state = copy.deepcopy(body.state_dict()), torch.get_rng_state()
    found = [fit(body, marked(20, 0), LABELS, WORDS, 3, progress=False, seed=4) for _ in range(2)]
    assert same_bits(body.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert same_bits(found[0].state_dict(), found[1].state_dict())
    other = fit(body, marked(20, 0), LABELS, WORDS, 3, progress=False, seed=5)
    assert not same_bits(found[0].state_dict(), other.state_dict())


def test_fitting_a_head_changes_no_other_part():
    body = body_of()
    classifier = fit(body, marked(20, 0), LABELS, WORDS, 3, trainable=("head",), progress=False)
    assert same_bits(classifier.body.state_dict(), body.state_dict())
    assert bool(classifier.head.weight.any())


def test_fitting_with_lora_changes_the_matrices_alone_and_gives_a_plain_model():
    body = body_of()
    options = {"trainable": ("head",), "lora_rank": 2, "max_lr": 1e-2, "progress": False}
    classifier = fit(body, marked(20, 0), LABELS, WORDS, 4, **options)
    assert not lora.attached(classifier)
    before = body.state_dict()
    for name, tensor in classifier.body.state_dict().items():
        matrix = name.removesuffix(".weight").endswith(lora.TARGETS)
        assert torch.equal(tensor, before[name]) != matrix, name
        if matrix:
            rank = torch.linalg.matrix_rank((tensor - before[name]).double(), rtol=1e-3)
            assert 1 <= int(rank) <= 2


def test_a_resumed_run_equals_an_unbroken_one(tmp_path):
    def run(rows, **more):
        classifier = Classifier(body_of(CONFIG.changed(dropout=0.1)), LABELS)
        freeze(classifier, PARTS["last block"])
        torch.manual_seed(3)
        history = train(classifier, rows, SETTINGS, classification_loss, progress=False, **more)
        return classifier, history

    whole, expected = run(rows_of(marked(20, 0)))
    run(Stop(rows_of(marked(20, 0)), 3), folder=tmp_path)
    resumed, found = run(rows_of(marked(20, 0)), folder=tmp_path, resume=True)
    assert found.loss == expected.loss and found.metrics == expected.metrics
    assert same_bits(resumed.state_dict(), whole.state_dict())


# --- the folder -----------------------------------------------------------------------------------


@EVERY_CONFIG
def test_a_saved_classifier_comes_back_to_the_bit(tmp_path, config):
    classifier = classifier_of(config)
    classify.save(tmp_path / "new", classifier, WORDS)
    found, words = classify.load(tmp_path / "new")
    assert found.labels == LABELS and words.hash == WORDS.hash and not found.training
    assert same_bits(found.state_dict(), classifier.state_dict())
    texts = texts_of(5)
    assert np.array_equal(
        probabilities(found, words, texts), probabilities(classifier, WORDS, texts)
    )


def test_a_folder_is_not_overwritten(tmp_path):
    first, second = classifier_of(seed=1), classifier_of(seed=2)
    classify.save(tmp_path, first, WORDS)
    with pytest.raises(CheckpointError, match="holds a checkpoint of step 0 already"):
        classify.save(tmp_path, second, WORDS)
    assert same_bits(classify.load(tmp_path)[0].state_dict(), first.state_dict())


def test_folders_without_a_whole_classifier_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        classify.load(tmp_path)
    checkpoint.save(tmp_path / "gpt", body_of(), step=0)
    with pytest.raises(CheckpointError, match="holds no classifier"):
        classify.load(tmp_path / "gpt")
    folder = tmp_path / "whole"
    classify.save(folder, classifier_of(), WORDS)
    train_bpe("ab" * 9, 258, special_tokens=[END_OF_TEXT]).save(folder / "tokenizer.json")
    with pytest.raises(CheckpointError, match="was trained with the tokenizer"):
        classify.load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json are missing"):
        classify.load(folder)
    WORDS.save(folder / "tokenizer.json")
    weights = folder / "step-00000000" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match="is truncated or was altered"):
        classify.load(folder)


def test_parts_that_are_not_merged_are_not_saved(tmp_path):
    classifier = classifier_of()
    lora.attach(classifier, train=("head",))
    with pytest.raises(ValueError, match=r"merge them first with lora\.merge"):
        classify.save(tmp_path, classifier, WORDS)
    assert not list(tmp_path.iterdir())
    lora.merge(classifier)
    classify.save(tmp_path, classifier, WORDS)


def test_an_adapter_of_a_classifier_keeps_its_head(tmp_path):
    classifier = Classifier(body_of(), LABELS)
    lora.attach(classifier, 2, train=("head",))
    rows = rows_of(marked(20, 0))
    train(classifier, rows, SETTINGS, classification_loss, progress=False)
    lora.save(classifier, tmp_path / "adapter.safetensors")
    other = Classifier(body_of(), LABELS)
    lora.load(other, tmp_path / "adapter.safetensors")
    texts = texts_of(5)
    assert np.array_equal(
        probabilities(other, WORDS, texts), probabilities(classifier, WORDS, texts)
    )


def test_an_interrupted_fit_says_so(monkeypatch):
    class Stopped:
        stopped = "SIGINT"

    monkeypatch.setattr(classify, "train", lambda *given, **more: Stopped())
    with pytest.raises(KeyboardInterrupt):
        fit(body_of(), marked(20, 0), LABELS, WORDS, 3, progress=False)
