"""What a vocabulary must be, and files that were cut, changed or made to do harm."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_core import vocabulary
from llm_core.tokenizer import Tokenizer, train_bpe
from llm_core.vocabulary import character_of_byte, readable, unreadable

BYTES = {byte: bytes([byte]) for byte in range(256)}


@given(st.binary())
def test_readable_tokens_read_back(token):
    text = readable(token)
    assert unreadable(text, Path("merges.txt")) == token
    assert len(text) == len(token) and " " not in text


def test_each_byte_has_a_printable_character_of_its_own():
    characters = character_of_byte()
    assert len(set(characters)) == 256 and all(c.isprintable() for c in characters)
    assert readable(b" the\n") == "ĠtheĊ"


def test_a_character_outside_the_alphabet_is_refused():
    with pytest.raises(ValueError, match=r"merges\.txt: .* stands for no byte"):
        unreadable("a b", Path("merges.txt"))


@pytest.mark.parametrize(
    ("vocab", "merges", "special", "message"),
    [
        ({k: v for k, v in BYTES.items() if k != 7}, [], (), r"first b'\\x07'"),
        (BYTES, [(b"a", b"b")], (), r"not in the vocabulary, first b'ab'"),
        (BYTES | {256: b"ab"}, [(b"ab", b"c")], (), r"merge 0 joins b'ab' and b'c', but no byte"),
        (BYTES | {256: b"ab"}, [(b"a", b"b")] * 2, (), r"merge 1 makes b'ab', which exists"),
        (BYTES | {256: b"ab"}, [], (), r"id 256 is b'ab': no byte"),
        (BYTES | {256: b"a"}, [], (), r"id 256 is b'a': no byte"),
        (BYTES, [], {"<|x|>": 97}, r"has id 97, which is b'a'"),
        (BYTES, [], {"<|x|>": 256, "<|y|>": 256}, r"has id 256, which another has"),
        (BYTES, [], ["<|x|>", "<|x|>"], r"given twice"),
        (BYTES, [], [""], r"is empty"),
        (BYTES, [], "<|x|>", r"put it in a list"),
    ],
)
def test_a_vocabulary_that_does_not_hold_together_is_refused(vocab, merges, special, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(vocab, merges, special)


# --- our json -------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "tokenizer.json"
    train_bpe("the cat sat on the mat", 262, ["<|end|>"]).save(path)
    return path


def test_the_file_can_be_read_by_a_human(saved):
    text = saved.read_text(encoding="utf-8")
    assert '"<|end|>": 261' in text and '"a t"' in text and "\\u" not in text


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.99])
def test_a_file_cut_short_is_refused_by_name(saved, fraction):
    data = saved.read_bytes().rstrip()
    saved.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(ValueError, match=r"tokenizer.json is no json \(cut short\?\)"):
        Tokenizer.load(saved)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "no json"),
        (b"[" * 100_000, "no json"),
        (b"[]", "is no llm_core tokenizer file"),
        (b'{"model": {"type": "BPE"}}', "is no llm_core tokenizer file"),
        (b'{"format": "llm_core tokenizer", "version": 99}', "version 99"),
        (b'{"format": "llm_core tokenizer", "version": 1}', "field 'vocab'"),
    ],
)
def test_a_foreign_file_is_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pattern", 3, "field 'pattern'"),
        ("vocab", {"a": -1}, "field 'vocab'"),
        ("vocab", {"a": True}, "field 'vocab'"),
        ("vocab", {"a": 2**40}, "field 'vocab'"),
        ("special_tokens", {"<|end|>": 1.0}, "field 'special_tokens'"),
        ("merges", [["a", "t"]], "field 'merges'"),
        ("merges", ["a t h"], "merge 0 is 'a t h', not two tokens"),
        ("merges", [], "was altered"),
        ("special_tokens", {"<|end|>": 262}, "was altered"),
        ("pattern", "a", "was altered"),
    ],
)
def test_an_altered_file_is_refused(saved, field, value, message):
    data = json.loads(saved.read_text(encoding="utf-8"))
    saved.write_text(json.dumps({**data, field: value}), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(saved)


# --- other people's files -------------------------------------------------------------------------


def test_gpt2_files_with_unknown_entries_make_them_special(tmp_path):
    vocab = {readable(token): i for i, token in BYTES.items()} | {"ab": 256, "<|x y|>": 257}
    (tmp_path / "v.json").write_text(json.dumps(vocab))
    (tmp_path / "m.txt").write_text("#version: 0.2\na b\n")
    tokenizer = Tokenizer.from_gpt2(tmp_path / "v.json", tmp_path / "m.txt")
    assert tokenizer.special_tokens == {"<|x y|>": 257}
    assert tokenizer.encode("ab<|x y|>", allowed_special="all") == [256, 257]


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ("[1]", "", "does not map tokens to ids"),
        ('{"a": 0, "b": 0}', "", "gives one id to two tokens"),
        ('{"a": 0}', "a b c", "merge 0 is 'a b c'"),
        ('{"a": 0}', "", "not in the vocabulary"),
    ],
)
def test_bad_gpt2_files_are_refused(tmp_path, vocab, merges, message):
    (tmp_path / "v.json").write_text(vocab)
    (tmp_path / "m.txt").write_text(merges)
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_gpt2(tmp_path / "v.json", tmp_path / "m.txt")


def test_a_special_token_that_is_ordinary_too_cannot_go_to_hugging_face(tmp_path):
    tokenizer = Tokenizer(BYTES | {256: b"ab"}, [(b"a", b"b")], ["ab"])
    with pytest.raises(ValueError, match="'ab' is an ordinary token too"):
        tokenizer.to_hf(tmp_path / "x.json")
    assert vocabulary.FILE_FORMAT == "llm_core tokenizer"
