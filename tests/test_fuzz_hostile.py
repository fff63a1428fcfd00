"""Well-formed files that are nonsense or harmful: right hashes, wrong content, absurd sizes."""

import hashlib
import json
import math
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from test_fuzz import (
    EDGES,
    JSON,
    MANY,
    OTHERS,
    SOME,
    TEXT,
    VALUES,
    altered,
    damaged,
    is_read,
    lay_out,
    little_memory,
    read_checkpoint,
    soon,
    use_tokenizer,
)
from test_hf import LLAMA3_ROPE, YARN_ROPE

from llm_core import checkpoint, dataset, download, lora, records, shards
from llm_core.chat import Conversations, Rendered
from llm_core.checkpoint import CheckpointError
from llm_core.curriculum import Stages, WeightedBatches
from llm_core.download import ChecksumError, OfflineError, RemoteFile
from llm_core.shards import DatasetError
from llm_core.tokenizer import Tokenizer, train_bpe


@pytest.fixture(autouse=True, scope="module")
def bounded():
    with little_memory():
        yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return lay_out(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def spoiled(sound, tmp_path):
    """A copy of the sound folder for one test."""
    return shutil.copytree(sound, tmp_path / "spoiled")


def change_json(path, change):
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content))


# --- tokenizers ---------------------------------------------------------------------------------


def signed(fields):
    """Our file as it would be had it been written so from the start."""
    told = {name: fields[name] for name in ("pattern", "special_tokens", "vocab", "merges")}
    for name in ("special_tokens", "vocab"):
        told[name] = dict(sorted(told[name].items(), key=lambda item: item[1]))
    digest = hashlib.sha256(json.dumps(told, separators=(",", ":")).encode()).hexdigest()
    return json.dumps({"format": "llm_core tokenizer", "version": 1, "sha256": digest, **told})


@pytest.fixture(scope="module")
def fields(sound):
    return json.loads((sound / "tokenizer.json").read_text(encoding="utf-8"))


GROUPS = "( (?: (?= (?! (?<= (?<n> (?i: (?i) (?x) (?R) (?1) (?0) (?V0) (?V1) (?> (?| (?P>n) ) ) ) )"
SIGNS = r"[ ^ ] - && -- [: * + ? *? {2} {1,3} {,} {300} {e<=1} {i<=9} | . $ \b \1 \K \X \p{L} \s \d"
PARTS = [*GROUPS.split(), *SIGNS.split(), *r"a t w é 東 \p{ \ # '".split(), " ", "\ud800"]
PATTERNS = st.lists(st.sampled_from(PARTS), max_size=9).map("".join)
IDS = st.integers(0, 300) | st.integers(0, 2**31 - 1)


@MANY
@given(data=st.data())
def test_a_tokenizer_with_the_right_hash_works_or_is_refused(fields, data, tmp_path):
    told = {**fields, "vocab": dict(fields["vocab"]), "merges": list(fields["merges"])}
    token = st.sampled_from(sorted(told["vocab"])) | st.text(max_size=2)
    change = data.draw(st.sampled_from(["pattern", "pattern", "vocab", "merges", "special_tokens"]))
    if change == "pattern":
        told[change] = data.draw(PATTERNS)
    elif change == "merges":
        at = data.draw(st.integers(0, len(told[change])))
        told[change].insert(at, f"{data.draw(token)} {data.draw(token)}")
    elif change == "vocab":
        told[change][data.draw(token)] = data.draw(IDS)
    else:
        told[change] = data.draw(st.dictionaries(st.text(max_size=3), IDS, max_size=3))
    (tmp_path / "tokenizer.json").write_text(signed(told))
    is_read(JSON["tokenizer"], tmp_path)


HUGE = ["(?:" * 400 + "a" + ")" * 400, "(?:a{400}){400}", "(?x)(?:a{4 00}){4 00}"]
LEAKED = ["(?V0)(?V1)a", "(?P<x>(?&x)|a)", "(?R)|a", "(?:x){i<=1000000000000}"]
LOSING = [r"a\Kt", r"a(?(1))", "\ud800"]


@pytest.mark.parametrize("pattern", [*HUGE, *LEAKED, *LOSING], ids=lambda one: ascii(one[:12]))
def test_a_pattern_that_no_engine_could_use_is_refused(fields, pattern, tmp_path):
    (tmp_path / "tokenizer.json").write_text(signed({**fields, "pattern": pattern}))
    with soon(1), pytest.raises(ValueError, match="pattern") as caught:
        use_tokenizer(Tokenizer.load(tmp_path / "tokenizer.json"))
    assert caught.type is ValueError


EMPTY_AT_PLACES = [r"\b", "(?=a)", r"\s*(?=c)", r"\b|\w+", "(?<=t)"]


@pytest.mark.parametrize("pattern", EMPTY_AT_PLACES)
def test_a_pattern_that_matches_nothing_somewhere_loses_no_text(fields, pattern):
    vocab = {i: bytes([i]) for i in range(256)}
    use_tokenizer(Tokenizer(vocab, [], (), pattern))
    trained = train_bpe(TEXT, 280, pattern=pattern)
    assert trained.decode(trained.encode(TEXT * 3)) == TEXT * 3


def test_half_a_character_is_no_special_token_since_no_file_could_hold_it(fields, tmp_path):
    (tmp_path / "tokenizer.json").write_text(signed({**fields, "special_tokens": {"\ud800": 400}}))
    with pytest.raises(ValueError, match="half a character"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_as_many_special_tokens_as_words_are_read_at_once(fields, sound, tmp_path):
    many = {f"<{i}>": 300 + i for i in range(20_000)}
    (tmp_path / "tokenizer.json").write_text(signed({**fields, "special_tokens": many}))
    vocab = json.loads((sound / "gpt2/vocab.json").read_text(encoding="utf-8"))
    (tmp_path / "vocab.json").write_text(json.dumps({**vocab, **many}))
    with soon(3):
        ours = Tokenizer.load(tmp_path / "tokenizer.json")
        gpt2 = Tokenizer.from_gpt2(tmp_path / "vocab.json", sound / "gpt2/merges.txt")
    assert ours.special_tokens["<7>"] == gpt2.special_tokens["<7>"] == 307


# --- checkpoints and adapters -------------------------------------------------------------------


def sign(folder):
    """Have the manifest name the hashes that the files have."""
    names = (checkpoint.WEIGHTS, checkpoint.STATE)
    known = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    change_json(folder / checkpoint.MANIFEST, lambda manifest: manifest.update(sha256=known))


DTYPES = [torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.float8_e4m3fn]
DTYPES += [torch.complex64, torch.int64, torch.float16]
SHAPES = st.lists(st.integers(0, 20), max_size=3)


def other_tensors(draw, tensors):
    """One of them of another dtype or shape, under another name, or gone."""
    name = draw(st.sampled_from(sorted(tensors)))
    change = draw(st.sampled_from(["dtype", "shape", "name", "gone", "all dtypes"]))
    if change == "all dtypes":
        dtype = draw(st.sampled_from(DTYPES))
        return {name: tensor.to(dtype) for name, tensor in tensors.items()}
    tensor = tensors.pop(name)
    if change == "dtype":
        tensors[name] = tensor.to(draw(st.sampled_from(DTYPES)))
    elif change == "shape":
        tensors[name] = torch.zeros(draw(SHAPES), dtype=tensor.dtype)
    elif change == "name":
        tensors[draw(st.sampled_from(["x", "optimizer.x.mean", "optimizer.99.mean"]))] = tensor
    return tensors


@MANY
@given(data=st.data())
def test_tensors_that_do_not_fit_are_refused_before_a_step_uses_them(sound, tmp_path, data):
    folder = tmp_path / "step-00000001"
    shutil.copytree(sound / folder.name, folder, dirs_exist_ok=True)
    path = folder / data.draw(st.sampled_from([checkpoint.WEIGHTS, checkpoint.STATE]))
    if data.draw(st.booleans()):
        save_file(other_tensors(data.draw, load_file(path)), path)
    else:
        path.write_bytes(damaged(data.draw, path.read_bytes()))
    sign(folder)
    is_read(JSON["checkpoint"], tmp_path)


SIZES = [("n_layer", 10_000), ("vocab_size", 2**62), ("d_ff", 2**62), ("d_ff", 10**400)]
SIZES += [("d_model", 2**40), ("vocab_size", math.inf), ("window", math.inf), ("step", math.inf)]
SIZES += [("head_dim", 10**400), ("n_layer", 2**62)]


@pytest.mark.parametrize(("field", "value"), SIZES, ids=lambda value: str(value)[:10])
def test_a_checkpoint_of_absurd_size_is_refused_before_a_model_is_made(spoiled, field, value):
    path = spoiled / "step-00000001" / checkpoint.MANIFEST
    change_json(path, lambda all: (all if field in all else all["config"]).update({field: value}))
    with soon(1), pytest.raises(CheckpointError, match=path.parent.name):
        checkpoint.load(spoiled).model()


USUAL = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.01}
PLACES = [*range(15)]


@pytest.mark.parametrize(
    "groups",
    [
        [{**USUAL, "params": [0] * 15}],
        [{**USUAL, "params": [[]] * 15}],
        [{**USUAL, "params": PLACES, "lr": "x"}],
        [{**USUAL, "params": PLACES, "lr": math.nan}],
        [{**USUAL, "params": PLACES, "betas": 5}],
        [{"params": PLACES}],
        [{}],
        [3],
        3,
    ],
    ids=lambda groups: str(groups)[-30:],
)
def test_groups_that_no_optimizer_has_are_refused(spoiled, groups):
    path = spoiled / "step-00000001" / checkpoint.MANIFEST
    change_json(path, lambda told: told["optimizer"].update(param_groups=groups))
    with pytest.raises(CheckpointError, match=path.parent.name):
        read_checkpoint(spoiled)


@pytest.mark.filterwarnings("error:Casting complex values")
@SOME
@given(data=st.data())
def test_an_adapter_with_the_right_hash_fits_or_is_refused(sound, tmp_path, data):
    target = OTHERS["adapter"]
    with safe_open(sound / target.file, "pt") as file:
        told, names = file.metadata(), list(file.keys())
        tensors = {name: file.get_tensor(name) for name in names}
    if data.draw(st.booleans()):
        tensors = other_tensors(data.draw, tensors)
    words = st.sampled_from(["", "0", "-1", "100000000", "1" * 5_000, "nan", "[" * 9_999, "[3]"])
    key = data.draw(st.sampled_from(sorted(told)))
    told[key] = data.draw(words | VALUES.map(json.dumps) | st.just(told[key]))
    told["sha256"] = lora._digest(tensors, told)
    save_file(tensors, tmp_path / target.file, metadata=told)
    is_read(target, tmp_path)


# --- data sets and their states -----------------------------------------------------------------


@SOME
@given(at=st.integers(0, 5), flipped=st.integers(1, 255))
def test_a_flipped_byte_in_a_shard_is_another_id_and_is_found_by_verifying(
    sound, tmp_path, at, flipped
):
    shutil.copytree(sound, tmp_path, dirs_exist_ok=True)
    content = bytearray((tmp_path / "data-00001.bin").read_bytes())
    content[at] ^= flipped
    (tmp_path / "data-00001.bin").write_bytes(content)
    data = shards.load(tmp_path / "data")
    ids = data.windows(np.array([0]), data.n_tokens)[0]
    assert ids[4:].tolist() == np.frombuffer(content, "<u2").tolist()
    with pytest.raises(DatasetError, match=r"data-00001\.bin was altered"):
        shards.load(tmp_path / "data", verify=True)


STATES = {
    "windows": lambda data: dataset.batches(data, 1, 2),
    "stages": lambda data: Stages((dataset.batches(data, 1, 2), 3)),
    "weighted": lambda data: WeightedBatches(dataset.batches(data, 1, 2), torch.ones(300), 3),
    "conversations": lambda _: Conversations([Rendered([1, 2, 3], [0, 1, 1])] * 3, 1, 8),
}


@pytest.mark.parametrize("make", STATES.values(), ids=list(STATES))
@SOME
@given(data=st.data())
def test_batches_go_on_from_any_state_or_refuse_it(sound, make, data):
    loaded = shards.load(sound / "data")
    state = altered(data.draw, json.loads(json.dumps(make(loaded).state())))
    batches = make(loaded)
    try:
        with soon():
            batches.restore(state if isinstance(state, dict) else {})
            next(batches, None)
    except ValueError as error:
        assert type(error) is ValueError
        assert "state" in str(error)


def test_conversations_that_went_on_beyond_their_epoch_are_refused():
    batches = Conversations([Rendered([1, 2, 3], [0, 1, 1])] * 3, 1, 8)
    with soon(1), pytest.raises(ValueError, match="n_taken=99 of this state"):
        batches.restore({**batches.state(), "n_taken": 99})
        next(batches)


# --- models of Hugging Face ---------------------------------------------------------------------

NUMBERS = st.sampled_from(EDGES) | st.floats() | st.integers(1, 2**70)


@MANY
@given(
    scaling=st.sampled_from([YARN_ROPE, LLAMA3_ROPE, {"rope_type": "linear", "factor": 2.0}]),
    changes=st.dictionaries(
        st.sampled_from([*YARN_ROPE, *LLAMA3_ROPE, "beta_fast", "beta_slow", "attention_factor"]),
        NUMBERS,
        max_size=2,
    ),
    theta=st.just(100.0) | NUMBERS,
)
def test_any_numbers_of_rotary_positions_give_a_model_that_runs_or_are_refused(
    sound, tmp_path, scaling, changes, theta
):
    shutil.copytree(sound / "hf", tmp_path / "hf", dirs_exist_ok=True)
    rope = {"rope_scaling": {**scaling, **changes}, "rope_theta": theta}
    change_json(tmp_path / "hf/config.json", lambda told: told.update(rope))
    is_read(JSON["config"], tmp_path)


def test_a_name_that_no_file_can_have_is_refused(spoiled):
    name = "x" * 300 + ".safetensors"
    path = spoiled / JSON["index"].file
    change_json(path, lambda told: told["weight_map"].update(x=name))
    with pytest.raises(CheckpointError, match="no safetensors file in its folder"):
        JSON["index"].read(spoiled)


# --- downloads and records ----------------------------------------------------------------------

NOWHERE = "http://127.0.0.1:9/data.bin"
NOTES = [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000, b"1" * 5_000]
VERSIONS = [3, [], "", "a\nb", " a", "\u6771", "\ud800", "a" * 100_000, None]
NOTES += [json.dumps({"url": NOWHERE, "version": version}).encode() for version in VERSIONS]


@pytest.mark.parametrize("known", [None, "0" * 64])
@pytest.mark.parametrize("note", NOTES, ids=lambda note: ascii(note[-12:]))
def test_a_damaged_note_beside_a_part_does_not_stop_a_download(note, known, tmp_path, monkeypatch):
    """The address is asked, which nothing answers; what is known of the part decides nothing."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("LLM_CORE_OFFLINE", raising=False)
    monkeypatch.setattr(download, "FIRST_WAIT_SECONDS", 0.0)
    (tmp_path / "data.bin.part").write_bytes(b"some of it")
    (tmp_path / "data.bin.part.json").write_bytes(note)
    with pytest.raises(OfflineError, match="no network"):
        download.fetch(RemoteFile("data.bin", (NOWHERE,), known), tmp_path, "", progress=False)


@pytest.mark.parametrize(
    "record", [b"", b" \n", b"\xff", b"0" * 63, b"0" * 65, b"z" * 64, b"\0" * 64]
)
def test_a_record_that_holds_no_sha256_is_named_and_nothing_is_asked(record, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_CORE_OFFLINE", "1")
    (tmp_path / "data.bin").write_bytes(b"all of it")
    (tmp_path / "data.bin.sha256").write_bytes(record)
    with pytest.raises(ChecksumError, match=r"data\.bin\.sha256"):
        download.fetch(RemoteFile("data.bin", (NOWHERE,)), tmp_path, "", progress=False)


@pytest.mark.parametrize("line", ['{"x" 1},\n', '{"x": [\n', '{"x": {},\n', "{\n", '{"x": 1\n}\n'])
def test_many_bad_records_are_passed_over_in_time_that_grows_with_their_number(line, tmp_path):
    path = tmp_path / "talk.json"
    good = json.dumps({"instruction": "Add.", "output": "3"})
    path.write_text(f"[\n{good},\n{line * 20_000}]")
    with soon(5):
        read = records.conversations(path, skip_bad=True)
    assert len(read.items) == 1 and 1 <= len(read.bad) <= 20_000
