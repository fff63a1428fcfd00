"""A run's folder: texts are found and split, settings follow their size, quality is measured."""

import json
import math
import sys
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from llm_core import checkpoint, hf, runs, shards, stories
from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig
from llm_core.model import GPT
from llm_core.runs import Run
from llm_core.tokenizer import END_OF_TEXT, Tokenizer, train_bpe
from llm_core.trainconfig import TrainConfig

TINY = {"n_layer": 1, "n_head": 2, "d_model": 16, "context_length": 16}


@pytest.fixture(scope="module")
def texts():
    return [story.text for story in stories.stories(30, seed=1)]


@pytest.fixture(scope="module")
def bpe(texts):
    return train_bpe(texts, 300, (END_OF_TEXT,))


@pytest.fixture
def text_file(tmp_path, texts):
    path = tmp_path / "my book.txt"
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def write_jsonl(path, texts):
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    return path


# --- which text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stories", "docs", "tiny-shakespeare", "gutenberg:1342"])
def test_the_name_of_a_corpus_is_its_name_even_beside_such_a_file(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text("a file")
    assert runs.corpus_name(name) == name
    assert runs.corpus_name(f"./{name}") == f"file:./{name}"


@pytest.mark.parametrize("source", ["book.txt", "a/b", "*.txt", "../x", "file:x"])
def test_what_looks_like_a_path_is_a_file(source):
    assert runs.corpus_name(source) == f"file:{source.removeprefix('file:')}"


def test_a_file_without_a_suffix_is_found_and_an_unknown_name_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").write_text("x" * 2000)
    assert runs.measure("notes").n_bytes == 2000
    with pytest.raises(ValueError, match="no corpus 'nots'; choose stories, docs"):
        runs.measure("nots")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("../shared/data/the-verdict.txt", "the-verdict"),
        ("my book.txt", "my-book"),
        ("texts/books/*.txt", "books"),
        ("texts/**/a*.txt", "texts"),
        ("gutenberg:1342", "gutenberg-1342"),
        ("stories", "stories"),
        ("größe.jsonl", "größe"),
    ],
)
def test_a_run_is_called_after_its_text(source, name):
    assert runs.folder_name(source) == name


def test_a_single_document_keeps_its_last_tenth_for_validation(text_file):
    text = text_file.read_text(encoding="utf-8")
    corpus = runs.measure(str(text_file))
    assert (corpus.n_documents, corpus.n_bytes) == (1, len(text.encode()))
    (first,), (last,) = corpus.documents(), corpus.documents(validation=True)
    assert first + last == text
    assert 0.1 <= len(last) / len(text) < 0.11
    assert first.endswith(" ")


def test_a_single_document_without_blanks_is_cut_as_well(tmp_path):
    path = tmp_path / "dense.txt"
    path.write_text("語" * 1000, encoding="utf-8")
    corpus = runs.measure(str(path))
    assert [len(text) for text in corpus.documents(True)] == [100]
    assert [len(text) for text in corpus.documents()] == [900]


@pytest.mark.parametrize(("n", "kept"), [(2, 1), (7, 1), (25, 2), (30, 3)])
def test_of_several_documents_every_tenth_is_kept_apart(tmp_path, texts, n, kept):
    path = write_jsonl(tmp_path / "some.jsonl", texts[:n])
    corpus = runs.measure(str(path))
    training, validation = list(corpus.documents()), list(corpus.documents(True))
    assert (len(training), len(validation)) == (n - kept, kept)
    assert sorted(training + validation) == sorted(texts[:n])


def test_of_very_many_documents_a_thousand_are_kept_apart(tmp_path):
    numbers = [f"document number {i}" for i in range(30_000)]
    corpus = runs.measure(str(write_jsonl(tmp_path / "many.jsonl", numbers)))
    assert sum(1 for _ in corpus.documents(True)) == 1000


def test_a_folder_and_a_pattern_give_the_same_documents(tmp_path, texts):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.txt").write_text(texts[1], encoding="utf-8")
    (tmp_path / "a.txt").write_text(texts[0] * 3, encoding="utf-8")
    write_jsonl(tmp_path / "c.jsonl", texts[2:5])
    assert runs.measure(str(tmp_path)).n_documents == 5
    pattern = runs.measure(str(tmp_path / "**" / "*.txt"))
    assert sorted([*pattern.documents(), *pattern.documents(True)]) == sorted(
        [texts[1], texts[0] * 3]
    )
    assert runs.measure(str(tmp_path), most=2).n_documents == 2


def test_stories_for_validation_are_of_the_other_split():
    corpus = runs.measure("stories", most=50)
    assert [*corpus.documents()] == [one.text for one in stories.stories(50)]
    expected = [one.text for one in stories.stories(5, split="validation")]
    assert [*corpus.documents(True)] == expected


def test_a_text_that_is_too_short_or_empty_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("Once.")
    with pytest.raises(ValueError, match=r"short\.txt holds 5 bytes of text; give at least 1,000"):
        runs.measure(str(tmp_path / "short.txt"))
    with pytest.raises(ValueError, match="0 documents leave nothing"):
        runs.measure("stories", most=0)
    with pytest.raises(FileNotFoundError, match="matches nothing"):
        runs.measure(str(tmp_path / "none.txt"))


# --- with which settings ------------------------------------------------------------------------


def test_more_text_gets_a_larger_vocabulary_and_context_and_never_less():
    sizes = [10**power for power in range(3, 10)]
    for usual, least, most in (
        (runs.usual_vocab_size, 512, 8192),
        (runs.usual_context_length, 16, 256),
    ):
        values = [usual(size) for size in sizes]
        assert values[0] == least and values[-1] == most
        assert all(a <= b for a, b in pairwise(values))


def test_a_text_of_any_size_can_be_cut_into_windows_of_the_usual_context():
    for n_tokens in (100, 300, 1000, 10_000, 10**6):
        assert runs.usual_context_length(n_tokens) * 2 < n_tokens


def test_only_long_runs_are_compiled(monkeypatch):
    monkeypatch.setenv("BOOK_PROFILE", "book")
    monkeypatch.setenv("CXX", sys.executable)  # any program: it is looked for, not run
    assert not runs.usual_training(runs.LEAST_TO_COMPILE - 1).compile
    assert runs.usual_training(runs.LEAST_TO_COMPILE).compile


@pytest.mark.parametrize("n_steps", [1, 2, 9, 10, 499, 5000])
def test_the_usual_training_works_for_any_number_of_steps(n_steps):
    config = runs.usual_training(n_steps)
    assert config.n_steps == n_steps
    assert config.lr(n_steps) == pytest.approx(config.min_lr) or n_steps <= 10
    assert max(config.lr(step) for step in range(1, n_steps + 1)) <= config.max_lr


def test_a_plan_has_what_was_typed_and_the_number_of_steps_follows(text_file):
    corpus = runs.measure(str(text_file))
    small = runs.plan(corpus, 10**6, 700, {"batch_size": 4, "norm_kind": "layernorm"})
    large = runs.plan(corpus, 10**6, 700, {"batch_size": 8, "max_lr": 0.5, "dropout": 0.1})
    assert small.model.vocab_size == 700
    assert small.model.norm.kind == "layernorm"
    assert small.train.n_steps == 2 * large.train.n_steps > runs.LEAST_STEPS
    assert (large.train.max_lr, large.model.dropout) == (0.5, 0.1)
    typed = {"n_steps": 7, "preset": "gpt2-124m", "context_length": 64, "vocab_size": 9}
    chosen = runs.plan(corpus, 10**6, 700, typed)
    assert (chosen.train.n_steps, chosen.model.n_layer, chosen.model.vocab_size) == (7, 12, 700)
    assert chosen.model.context_length == 64


def test_stories_are_trained_on_by_the_books_recipe():
    recipe = runs.recipes.recipe()
    run = runs.plan(runs.measure("stories", 10), 10, recipe.model.vocab_size, {})
    assert (run.model, run.batch_size, run.init) == (recipe.model, recipe.batch_size, recipe.init)
    settings = ("n_steps", "max_lr", "min_lr", "warmup_steps", "schedule", "weight_decay")
    assert all(getattr(run.train, name) == getattr(recipe.train, name) for name in settings)


def test_a_run_is_read_back_as_it_was_written(tmp_path):
    training = TrainConfig(9, evaluate_at=(1, 2), max_norm=math.inf, warmup_steps=1)
    run = Run("file:x", GPTConfig(300, **TINY), training, 3, "gpt2", 5)
    run.save(tmp_path)
    assert Run.load(tmp_path) == run


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": 1}', '{"train": {"n_steps": -1}}'])
def test_a_record_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json is not what train wrote"):
        Run.load(tmp_path)


# --- the folder ---------------------------------------------------------------------------------


def test_the_shards_hold_the_two_parts_and_nothing_else(tmp_path, text_file, bpe):
    corpus = runs.measure(str(text_file))
    runs.write_shards(tmp_path / "run", corpus, bpe)
    end = bpe.special_tokens[END_OF_TEXT]
    (last,), (first,) = corpus.documents(True), corpus.documents()
    assert runs.validation_ids(tmp_path / "run").tolist() == [*bpe.encode(last), end]
    data = shards.load(runs.data_path(tmp_path / "run"))
    assert data.n_tokens == len(bpe.encode(first)) + 1
    assert data.tokenizer_hash == Tokenizer.load(tmp_path / "run" / "tokenizer.json").hash
    assert len(runs.validation_ids(tmp_path / "run", most=7)) == 7


def test_a_model_comes_back_from_a_run_and_from_one_of_its_checkpoints(tmp_path, bpe):
    model = GPT(GPTConfig(bpe.vocab_size, **TINY)).to(torch.bfloat16)
    bpe.save(tmp_path / "tokenizer.json")
    step = checkpoint.save(tmp_path, model, step=3, tokenizer_hash=bpe.hash)
    for folder in (tmp_path, step):
        found, tokenizer = runs.load(folder)
        assert tokenizer.hash == bpe.hash
        assert not found.training
        for name, weight in found.state_dict().items():
            assert weight.dtype == torch.float32
            assert torch.equal(weight, model.state_dict()[name].float())


def test_a_model_without_its_tokenizer_is_refused(tmp_path, bpe, texts):
    model = GPT(GPTConfig(bpe.vocab_size, **TINY))
    with pytest.raises(
        FileNotFoundError, match=r"there is no folder .*; `python -m llm_core train"
    ):
        runs.load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        runs.load(tmp_path)
    train_bpe(texts, 300, (END_OF_TEXT,), pattern="cl100k").save(tmp_path / "tokenizer.json")
    checkpoint.save(tmp_path, model, step=1, tokenizer_hash=bpe.hash)
    with pytest.raises(CheckpointError, match="was trained with the tokenizer"):
        runs.load(tmp_path)


def test_a_folder_of_hugging_face_is_read(tmp_path):
    model = GPT(GPTConfig(256, 16, 1, 2, 16, mlp="gelu_tanh"))
    hf.save_pretrained(model, tmp_path)
    with pytest.raises(NotImplementedError, match=r"only GPT-2's vocab\.json"):
        runs.load(tmp_path)


# --- how good it is -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_ids", [1, 15, 16, 17, 40])
def test_loss_and_bits_are_those_of_each_token_counted_by_hand(bpe, texts, n_ids):
    model = GPT(GPTConfig(bpe.vocab_size, **TINY), init="fan_in").eval()
    end = bpe.special_tokens[END_OF_TEXT]
    ids = [*bpe.encode(texts[0]), end, *bpe.encode(texts[1])][-n_ids:]
    test = runs.text_set(ids, bpe, 16)
    whole, paid = [end, *ids], 0.0
    for start in range(0, len(ids), 16):
        row = torch.tensor([whole[start : start + 17]])
        logits = model(row[:, :-1]).double()
        paid += F.cross_entropy(logits[0], row[0, 1:], reduction="sum").item()
    n_bytes = len(bpe.decode([i for i in ids if i != end]).encode())
    found = test.metrics(model)
    assert test.n_tokens == n_ids
    assert found["loss"] == pytest.approx(paid / n_ids, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(paid / n_ids), rel=1e-6)
    assert found["bits_per_byte"] == pytest.approx(paid / math.log(2) / n_bytes, rel=1e-6)


def test_a_limit_cuts_ids_and_bytes_alike(bpe, texts):
    ids = bpe.encode(texts[0])
    test = runs.text_set(ids, bpe, 16, most=20)
    assert (test.n_tokens, test.n_bytes) == (20, len(bpe.decode_bytes(ids[:20])))
    with pytest.raises(ValueError, match="no text to test on"):
        runs.text_set([], bpe, 16)


def test_any_text_becomes_ids_up_to_a_limit(tmp_path, bpe, texts):
    path = write_jsonl(tmp_path / "two.jsonl", texts[:2])
    end = bpe.special_tokens[END_OF_TEXT]
    whole = [*bpe.encode(texts[0]), end, *bpe.encode(texts[1]), end]
    assert runs.ids_of(str(path), bpe).tolist() == whole
    assert runs.ids_of(str(path), bpe, most=9).tolist() == whole[:9]
