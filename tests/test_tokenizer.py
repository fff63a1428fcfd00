"""The tokenizer against tiktoken and Hugging Face's tokenizers; round trips; special tokens."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import tiktoken
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_core.scanner import PATTERNS
from llm_core.tokenizer import END_OF_TEXT, LONG_TEXT, Tokenizer, train_bpe

ROOT = Path(__file__).parents[1]
GPT2_FILES = ROOT.parent / "shared" / "data" / "tiktoken_cache"
TEXT = (ROOT / "llm_core" / "tokenizer.py").read_text(encoding="utf-8") + "naïve café 漢字 🙂 don't"
SPECIALS = (END_OF_TEXT, "<|a|>", "<|a|><|b|>")
BITS = [*("'s", "'LL", " the", "  ", "\n", "\t", "\r\n", "\xa0", "\u3000", "\x85", "\x1c", "\x00")]
BITS += [*("é", "e\u0301", "ß", "漢字", "🙂", "👩‍💻", "\u202e", "\ufeff", "𝟘", "١٢", "½", "12345")]
BITS += [*("a", "A", "don't", "_x_", "...", "//", "-->", *SPECIALS, "<|a", "endoftext")]
adversarial = st.one_of(st.lists(st.sampled_from(BITS), max_size=20).map("".join), st.text())
quick = settings(max_examples=150, deadline=None)


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_bpe(TEXT, 600, SPECIALS)


@pytest.fixture(scope="module")
def shuffled(trained) -> Tokenizer:
    """The same tokens under ids in no order, with gaps."""
    ids = np.random.default_rng(0).permutation(3 * len(trained.vocab))[: len(trained.vocab)]
    vocab = dict(zip(ids.tolist(), trained.vocab.values(), strict=True))
    return Tokenizer(vocab, trained.merges, SPECIALS)


def gpt2_cache() -> Path:
    folder = Path(os.environ.get("TIKTOKEN_CACHE_DIR") or GPT2_FILES)
    if not folder.is_dir():
        pytest.skip("GPT-2's vocabulary is not here: set TIKTOKEN_CACHE_DIR to a folder with it")
    return folder


@pytest.fixture(scope="module")
def gpt2_peer() -> tiktoken.Encoding:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(gpt2_cache()))
        return tiktoken.get_encoding("gpt2")


@pytest.fixture(scope="module")
def gpt2() -> Tokenizer:
    files = sorted(gpt2_cache().iterdir(), key=lambda path: path.read_bytes()[:1] != b"{")
    if len(files) != 2:
        pytest.skip("the folder in TIKTOKEN_CACHE_DIR holds more than GPT-2's two files")
    return Tokenizer.from_gpt2(*files)


# --- training -------------------------------------------------------------------------------------


def test_ids_are_bytes_then_merges_then_specials(trained):
    assert [trained.vocab[i] for i in range(256)] == [bytes([i]) for i in range(256)]
    made = [left + right for left, right in trained.merges]
    assert [trained.vocab[256 + k] for k in range(len(made))] == made
    assert list(trained.special_tokens.values()) == [597, 598, 599]
    assert trained.vocab_size == len(trained.vocab) == 600


def test_training_stops_early_when_no_pair_is_left():
    tokenizer = train_bpe("aaaa b", 10**6, ["<|x|>"])
    assert tokenizer.merges == [(b"a", b"a"), (b"aa", b"aa"), (b" ", b"b")]
    assert tokenizer.vocab_size == 260


def test_nothing_merges_across_pre_tokens_or_special_tokens():
    tokenizer = train_bpe("ab<|x|>ab cd. " * 50, 300, ["<|x|>"])
    made = {left + right for left, right in tokenizer.merges}
    assert made == {b"ab", b"cd", b" cd", b" ab"}


def test_a_file_a_str_and_documents_teach_the_same_merges(tmp_path, trained):
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT.encode("utf-8"))
    assert train_bpe(path, 600, SPECIALS, n_processes=1).hash == trained.hash
    assert train_bpe([path], 600, SPECIALS, n_processes=2).hash == trained.hash
    assert train_bpe(iter([TEXT, ""]), 600, SPECIALS).hash == trained.hash


def test_a_str_is_a_text_even_if_it_names_a_file():
    assert (b"R", b"E") in train_bpe("README.md", 300).merges


@pytest.mark.parametrize("pattern", [*PATTERNS, None, r"\p{L}+|\s+"])
def test_every_pattern_round_trips(pattern):
    tokenizer = train_bpe(TEXT, 400, SPECIALS, pattern)
    for text in (TEXT, "漢字!! 12345  x\n\n y'LL\u0301", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.encode_array(text).tolist() == tokenizer.encode(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab_size": 256, "special_tokens": ["<|x|>"]}, "no room.*at least 257"),
        ({"vocab_size": 300, "pattern": "("}, "no regular expression"),
        ({"vocab_size": 300, "pattern": r"(?|a|b)"}, "tiktoken does not take the pattern"),
        ({"vocab_size": 300, "special_tokens": "<|x|>"}, "put it in a list"),
    ],
)
def test_bad_training_arguments_are_named_before_the_work(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_bpe("text", **arguments)


# --- against the peers ----------------------------------------------------------------------------


@given(text=adversarial)
@settings(max_examples=400, deadline=None)
@example(text="")
@example(text="\ud83d\ude42 \ud83d x")  # surrogates: a pair, then a lone one
def test_gpt2_ids_are_those_of_tiktoken(gpt2, gpt2_peer, text):
    assert gpt2.encode(text) == gpt2_peer.encode(text, disallowed_special=())
    assert gpt2.encode_array(text).tolist() == gpt2_peer.encode_ordinary(text)
    allowed = gpt2.encode(text, allowed_special="all")
    assert allowed == gpt2_peer.encode(text, allowed_special="all")


def test_long_texts_get_the_ids_of_tiktoken(gpt2, gpt2_peer):
    text = (TEXT + "".join(BITS)) * 20
    assert len(text) > 2 * LONG_TEXT
    assert gpt2.encode(text) == gpt2_peer.encode_ordinary(text)


def test_a_million_spaces_on_which_tiktoken_panics_are_encoded(gpt2):
    text = " " * 2**20 + "x"
    assert gpt2.decode(gpt2.encode(text)) == text


def test_gpt2_vocabulary_is_read_from_its_files(gpt2, gpt2_peer):
    assert gpt2.vocab_size == gpt2_peer.n_vocab == 50257
    assert gpt2.special_tokens == {END_OF_TEXT: 50256}
    assert all(gpt2.vocab[i] == gpt2_peer.decode_single_token_bytes(i) for i in range(50257))


@given(text=adversarial)
@quick
def test_to_tiktoken_gives_the_same_ids(trained, text):
    peer = trained.to_tiktoken()
    assert peer.encode(text, disallowed_special=()) == trained.encode(text)


@pytest.mark.parametrize("pattern", [*PATTERNS, None, r"\p{L}+|\s+"])
def test_to_hf_gives_the_same_ids_and_text(tmp_path, pattern, trained):
    tokenizer = train_bpe(TEXT, 500, SPECIALS, pattern)
    tokenizer.to_hf(tmp_path / "tokenizer.json")
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(BITS, size=12)) for _ in range(300)]
    for text in [*texts, TEXT]:
        peer.encode_special_tokens = False
        ids = tokenizer.encode(text, allowed_special="all")
        assert peer.encode(text).ids == ids, text
        assert peer.decode(ids, skip_special_tokens=False) == tokenizer.decode(ids)
        peer.encode_special_tokens = True
        assert peer.encode(text).ids == tokenizer.encode(text), text
    assert peer.get_vocab_size() == tokenizer.vocab_size


def test_to_hf_keeps_ids_in_any_order(tmp_path, shuffled):
    shuffled.to_hf(tmp_path / "t.json")
    peer = tokenizers.Tokenizer.from_file(str(tmp_path / "t.json"))
    text = TEXT + END_OF_TEXT
    assert peer.encode(text).ids == shuffled.encode(text, allowed_special="all")


# --- any ids --------------------------------------------------------------------------------------


@given(text=adversarial)
@quick
def test_ids_in_any_order_name_the_same_tokens(trained, shuffled, text):
    for allowed in ("none", "all"):
        ids, others = trained.encode(text, allowed), shuffled.encode(text, allowed)
        assert [trained.vocab[i] for i in ids] == [shuffled.vocab[i] for i in others]
    assert shuffled.encode_array(text).tolist() == shuffled.encode(text)


def test_ids_out_of_order_are_not_for_tiktoken(shuffled):
    with pytest.raises(ValueError, match="do not ascend"):
        shuffled.to_tiktoken()


def test_specials_not_in_the_vocabulary_are_appended(trained):
    grown = Tokenizer(trained.vocab, trained.merges, [*SPECIALS, "<|new|>"], trained.pattern)
    assert grown.special_tokens == {**trained.special_tokens, "<|new|>": 600}
    assert grown.encode(TEXT) == trained.encode(TEXT)


def test_a_special_token_spelled_like_an_ordinary_one_gets_an_id_of_its_own():
    vocab = {byte: bytes([byte]) for byte in range(256)} | {256: b"ab"}
    tokenizer = Tokenizer(vocab, [(b"a", b"b")], ["ab"])
    assert tokenizer.special_tokens == {"ab": 257}
    assert tokenizer.encode("abab") == [256, 256]
    assert tokenizer.encode("abab", allowed_special="all") == [257, 257]


# --- round trips ----------------------------------------------------------------------------------


@given(text=adversarial)
@settings(max_examples=400, deadline=None)
def test_decode_undoes_encode(trained, text):
    for allowed in ("none", "all", {"<|a|>"}):
        assert trained.decode(trained.encode(text, allowed)) == text


@given(data=st.binary(max_size=200))
@quick
def test_any_bytes_decode_like_python_decodes_them(trained, data):
    assert trained.decode_bytes(list(data)) == data
    assert trained.decode(list(data)) == data.decode("utf-8", errors="replace")


@given(data=st.binary(max_size=60))
@quick
def test_a_stream_of_ids_gives_the_text_of_decode(trained, data):
    assert "".join(trained.decode_stream(iter(list(data)))) == trained.decode(list(data))


def test_a_stream_holds_back_half_a_character(trained):
    seen = []
    pieces = trained.decode_stream(iter("a🙂b".encode()))
    seen = list(pieces)
    assert seen == ["a", "🙂", "b"]
    assert list(trained.decode_stream(iter("é".encode()[:1]))) == ["\ufffd"]


def test_an_id_out_of_range_is_named(trained):
    for bad in (600, -1, 10**12):
        with pytest.raises(ValueError, match=f"id {bad} is not in the vocabulary of 600"):
            trained.decode([65, bad])


def test_arrays_of_ids_decode(trained):
    assert trained.decode(trained.encode_array(TEXT)) == TEXT


@given(text=adversarial, cuts=st.lists(st.integers(0, 300), max_size=8))
@quick
def test_encode_iterable_does_not_care_how_the_text_is_cut(trained, text, cuts):
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    parts = [text[i:j] for i, j in itertools.pairwise(places)]
    for allowed in ("none", "all", {"<|a|>"}):
        assert list(trained.encode_iterable(parts, allowed)) == trained.encode(text, allowed)


def test_encode_iterable_reads_no_further_than_it_must(trained):
    n_read = 0

    def endless():
        nonlocal n_read
        for n in itertools.count():
            n_read += 1
            yield f"line {n} of a text without an end\n"

    ids = list(itertools.islice(trained.encode_iterable(endless()), 50))
    assert trained.decode(ids).startswith("line 0 of a text without an end\nline 1")
    assert n_read < 2000


@pytest.mark.parametrize("n_threads", [None, 1, 3])
def test_a_batch_is_each_text_encoded(trained, n_threads):
    texts = [TEXT, "", "a<|a|>", TEXT * 30]
    for allowed in ("none", "all"):
        expected = [trained.encode(text, allowed) for text in texts]
        assert trained.encode_batch(texts, n_threads, allowed) == expected


# --- special tokens -------------------------------------------------------------------------------


@given(text=adversarial)
@quick
def test_text_never_becomes_a_special_token_by_default(trained, text):
    special = set(trained.special_tokens.values())
    assert not special & set(trained.encode(text))
    assert not special & set(trained.encode_iterable([text]))
    assert not special & set(trained.encode_array(text).tolist())
    assert not special & set(trained.encode_batch([text])[0])


def test_the_longest_special_token_wins(trained):
    short, long = trained.special_tokens["<|a|>"], trained.special_tokens["<|a|><|b|>"]
    assert trained.encode("<|a|><|b|><|a|>", allowed_special="all") == [long, short]
    only_short = trained.encode("<|a|><|b|>", allowed_special={"<|a|>"})
    assert only_short == [short, *trained.encode("<|b|>")]


def test_raise_names_the_special_token(trained):
    with pytest.raises(ValueError, match=r"contains the special token '<\|endoftext\|>'"):
        trained.encode(f"hello{END_OF_TEXT}", allowed_special="raise")
    with pytest.raises(ValueError, match="contains the special token"):
        list(trained.encode_iterable(["<|end", "oftext|>"], allowed_special="raise"))
    assert trained.encode("hello", allowed_special="raise") == trained.encode("hello")


@pytest.mark.parametrize("allowed", ["some", {"<|unknown|>"}])
def test_a_wrong_allowed_special_is_refused(trained, allowed):
    with pytest.raises(ValueError, match=r"must be 'none', 'all'|is no special token of this"):
        trained.encode("x", allowed_special=allowed)


# --- files ----------------------------------------------------------------------------------------


def test_save_and_load_give_an_equal_tokenizer(tmp_path, trained, shuffled):
    for tokenizer in (trained, shuffled, train_bpe("ab ab", 300, pattern=None)):
        tokenizer.save(tmp_path / "t.json")
        again = Tokenizer.load(tmp_path / "t.json")
        assert (again.vocab, again.merges) == (tokenizer.vocab, tokenizer.merges)
        assert again.special_tokens == tokenizer.special_tokens
        assert (again.pattern, again.hash) == (tokenizer.pattern, tokenizer.hash)


def test_the_hash_tells_tokenizers_apart(trained, shuffled):
    others = [
        Tokenizer(trained.vocab, trained.merges, SPECIALS, "cl100k"),
        Tokenizer(trained.vocab, trained.merges, [*SPECIALS, "<|new|>"]),
        train_bpe(TEXT, 599, SPECIALS),
        shuffled,
    ]
    assert len({trained.hash, *(other.hash for other in others)}) == 5
    backwards = dict(reversed(trained.vocab.items()))
    assert Tokenizer(backwards, trained.merges, SPECIALS).hash == trained.hash


def test_gpt2_hash_is_the_same_on_every_machine(gpt2):
    assert gpt2.hash == "bf9d0b28b532792ede972b805885673590af480be617db22138f33ff1641d78d"


@pytest.mark.parametrize("n_processes", [1, 2])
def test_files_of_ids_hold_what_encode_gives(tmp_path, trained, n_processes):
    path = tmp_path / "long.txt"
    path.write_bytes((TEXT * 400).encode("utf-8"))  # several batches
    documents = ["short", path, "", f"typed {END_OF_TEXT}"]
    end = trained.special_tokens[END_OF_TEXT]
    manifest = trained.encode_to_file(
        documents, tmp_path / "ids", n_processes, end, 10**6, False, {"source": "a test"}
    )
    ids = np.concatenate(
        [np.fromfile(tmp_path / row["file"], manifest["dtype"]) for row in manifest["shards"]]
    )
    expected = []
    for text in ("short", TEXT * 400, "", f"typed {END_OF_TEXT}"):
        expected += [*trained.encode(text), end]
    assert ids.tolist() == expected
    assert json.loads((tmp_path / "ids.json").read_text()) == manifest
    assert manifest["n_documents"] == 4 and manifest["n_tokens"] == len(expected)
    assert manifest["tokenizer"] == trained.hash and manifest["metadata"] == {"source": "a test"}


def test_ids_above_65535_go_to_uint32(tmp_path):
    specials = {"<|far|>": 70_000}
    tokenizer = Tokenizer({b: bytes([b]) for b in range(256)}, [], specials)
    manifest = tokenizer.encode_to_file("hi", tmp_path / "x", end_id=70_000, progress=False)
    assert manifest["dtype"] == "uint32"
    ids = np.fromfile(tmp_path / "x-00000.bin", "<u4")
    assert ids.tolist() == [*b"hi", 70_000]


def test_an_end_id_that_does_not_exist_is_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="end_id=600"):
        trained.encode_to_file("x", tmp_path / "x", end_id=600, progress=False)


def test_a_progress_bar_counts_bytes(tmp_path, trained, capsys):
    trained.encode_to_file("x" * 1000, tmp_path / "x")
    assert "1.00k/1.00k" in capsys.readouterr().err


def test_special_tokens_may_come_from_an_iterator():
    vocab = {i: bytes([i]) for i in range(256)}
    assert Tokenizer(vocab, [], iter(["<x>"])).special_tokens == {"<x>": 256}


@pytest.mark.parametrize("wrong", [-1, 2**31])
def test_an_id_that_is_none_is_refused(wrong):
    vocab = {i: bytes([i]) for i in range(1, 256)} | {wrong: b"\0"}
    with pytest.raises(ValueError, match=f"id {wrong} must be at least 0"):
        Tokenizer(vocab, [])
