"""Damaged and foreign files: whatever a file holds, it is read or refused by the error it names.

Each kind of file lies once in a sound folder, with what reads it and the errors that may come. Then
its bytes are damaged and its json altered. ``test_fuzz_hostile`` has what is well formed.
"""

import json
import math
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_hf import tiny, write_vocabulary
from test_shards import write_by_hand

from llm_core import checkpoint, corpora, dataset, hf, kept, lora, records, runs, shards
from llm_core.checkpoint import CheckpointError
from llm_core.config import GPTConfig, Rope, RopeScaling
from llm_core.model import GPT
from llm_core.optim import AdamW
from llm_core.records import RecordError
from llm_core.shards import DatasetError
from llm_core.tokenizer import END_OF_TEXT, Tokenizer, train_bpe
from llm_core.trainconfig import History, TrainConfig

TEXT = "the cat sat on the mat, naïve 東京 🙂 "
YARN = Rope(scaling=RopeScaling("yarn", 4, 12))
CONFIG = GPTConfig(50, 8, n_layer=1, n_head=2, d_model=16, position="rope", rope=YARN)
# What a test spoils is made anew for each example.
SOME, MANY = (
    settings(max_examples=n, suppress_health_check=[HealthCheck.function_scoped_fixture])
    for n in (40, 120)
)
MEMORY_BYTES = 4 << 30  # of address space: threads reserve much that they never touch

NO_JSON = [b"{", b"\x00" * 9, b"\xff\xfe", b'{"a": "\xff"}', b'{"a": ' + b"1" * 5_000 + b"}"]
NO_JSON += [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5_000]
OF_ANOTHER_KIND = [b"[]", b"null", b"NaN", b"3", b'"x"']
EDGES = [-1, 2**31, 2**63, 10**400, math.inf, -math.inf, math.nan, 1e308, 5e-324, 3.0, True, None]
WORDS = ["", ".", "..", "../x", "a\0b", "\ud800", "x" * 300, "nan", "1" * 5_000]
ATOMS = st.sampled_from([*EDGES, *WORDS]) | st.integers() | st.floats() | st.text(max_size=4)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@contextmanager
def little_memory():
    """What asks for gigabytes gets an error that nobody has named, and no gigabytes."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    n_pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    limit = n_pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(autouse=True, scope="module")
def bounded():
    with little_memory():
        yield


@contextmanager
def soon(seconds=5):
    """Fails where a call takes many times the processor's time that it needs."""

    def ring(*_):
        raise AssertionError(f"not done after {seconds} seconds")

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


# --- what is read -------------------------------------------------------------------------------


def use_tokenizer(tokenizer):
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    assert len(tokenizer.hash) == 64


def use_model(model, n_layer=1):
    n = min(4, model.config.context_length)  # with rotations a context of 1 is a sound one
    with torch.no_grad():
        assert model(torch.zeros(1, n, dtype=torch.int64)).shape == (1, n, model.config.vocab_size)
    assert len(model.blocks) == n_layer


def read_checkpoint(folder):
    """As a model by itself, then into a run; what a step would read and write fits."""
    found = checkpoint.load(folder / "step-00000001")
    use_model(found.model())
    model = GPT(CONFIG)
    optimizer = AdamW(model.parameters())
    checkpoint.restore(found, model, optimizer)
    for parameter, state in optimizer.state.items():
        shapes = {"step": ()} | dict.fromkeys(("mean", "square"), parameter.shape)
        assert {name: tensor.shape for name, tensor in state.items()} == shapes
        assert all(tensor.dtype == torch.float32 for tensor in state.values())


def read_data(folder):
    data = shards.load(folder / "data")
    assert len(data.fingerprint) == 16
    if data.n_tokens > 4:
        dataset.batches(data, 2, 3, packed=data.end_id is not None).__next__()


def read_adapter(folder):
    """A file that is refused leaves the model as it was."""
    model = tiny("llama", n_layer=1)
    try:
        lora.load(model, folder / "adapter.safetensors")
    except CheckpointError:
        assert not lora.attached(model) and lora.share(model) == 1
        raise
    use_model(model)


def read_tokenizer(folder):
    use_tokenizer(Tokenizer.load(folder / "tokenizer.json"))


def read_gpt2s(folder):
    use_tokenizer(Tokenizer.from_gpt2(folder / "gpt2/vocab.json", folder / "gpt2/merges.txt"))


def read_from_hf(folder):
    use_model(hf.load_pretrained(folder / "hf"))


def no_run():
    raise AssertionError("the folder says that the run is over")


class Target(NamedTuple):
    """A file of the sound folder, how it is read, and by which errors it may be refused."""

    file: str
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]


FROM_HF = (CheckpointError, NotImplementedError)
JSON = {
    "tokenizer": Target("tokenizer.json", read_tokenizer, (ValueError,)),
    "vocabulary of GPT-2": Target("gpt2/vocab.json", read_gpt2s, (ValueError,)),
    "checkpoint": Target("step-00000001/checkpoint.json", read_checkpoint, (CheckpointError,)),
    "data set": Target("data.json", read_data, (DatasetError,)),
    "config": Target("hf/config.json", read_from_hf, FROM_HF),
    "index": Target("hf/model.safetensors.index.json", read_from_hf, FROM_HF),
    "run": Target("run.json", runs.Run.load, (ValueError,)),
    "result": Target("result.json", lambda f: kept.finished(f, no_run), (CheckpointError,)),
    "talk": Target("talk.json", lambda f: records.conversations(f / "talk.json"), (RecordError,)),
    "text": Target("text.jsonl", lambda f: [*corpora.read_jsonl(f / "text.jsonl")], (ValueError,)),
}
OTHERS = {
    "merges of GPT-2": Target("gpt2/merges.txt", read_gpt2s, (ValueError,)),
    "weights": Target("step-00000001/model.safetensors", read_checkpoint, (CheckpointError,)),
    "state": Target("step-00000001/state.safetensors", read_checkpoint, (CheckpointError,)),
    "shard": Target("data-00001.bin", read_data, (DatasetError,)),
    "adapter": Target("adapter.safetensors", read_adapter, (CheckpointError,)),
    "labels": Target("labels.csv", lambda f: records.labeled(f / "labels.csv"), (RecordError,)),
}
EVERY_JSON = pytest.mark.parametrize("target", JSON.values(), ids=list(JSON))
EVERY_FILE = pytest.mark.parametrize("target", (JSON | OTHERS).values(), ids=[*JSON, *OTHERS])


def trained():
    model = GPT(CONFIG)
    optimizer = AdamW(model.parameters())
    model(torch.zeros(1, 4, dtype=torch.int64)).logsumexp(-1).sum().backward()
    optimizer.step()
    return model, optimizer


def lay_out(folder):
    """Fill a folder in which all is as it should be."""
    train_bpe(TEXT * 3, 270, [END_OF_TEXT]).save(folder / "tokenizer.json")
    (folder / "gpt2").mkdir()
    write_vocabulary(folder / "gpt2")
    model, optimizer = trained()
    checkpoint.save(folder, model, step=1, optimizer=optimizer, data={"position": 1})
    write_by_hand(folder, [1, 2, 7, 3], [4, 5, 6])
    hf.save_pretrained(tiny("llama", n_layer=1), folder / "hf", max_shard_bytes=20_000)
    adapted = tiny("llama", n_layer=1)
    lora.attach(adapted, 2, 4.0)
    lora.save(adapted, folder / "adapter.safetensors")
    runs.Run("x", CONFIG, TrainConfig(9, warmup_steps=1), 4, "fan_in", 0).save(folder)
    history = History([1.0], [0.1], [1.0], [1.0], [4], [{}], [(1, {"loss": 1.0})])
    (folder / "result.json").write_text(json.dumps(history.__dict__))
    pair = {"instruction": "Add.", "input": "1 2", "output": "3"}
    talk = {"messages": [{"role": r, "content": "Hm."} for r in ("system", "user", "assistant")]}
    (folder / "talk.json").write_text(json.dumps([pair, talk, pair], indent=1))
    (folder / "text.jsonl").write_text('{"text": "a"}\n{"text": "b", "n": 1}\n')
    (folder / "labels.csv").write_text('text,label\n"a, b",x\nc,y\n')
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    return lay_out(tmp_path_factory.mktemp("sound"))


def is_read(target, folder):
    """Whether the folder is read; if not it is refused by name, there is no third way."""
    try:
        with soon():
            target.read(folder)
    except target.errors as error:
        assert type(error) in target.errors  # no UnicodeDecodeError, though it is a ValueError
        return False
    return True


@pytest.fixture(scope="module")
def workplace(sound, tmp_path_factory):
    """Another copy, in which one file at a time is spoiled and then whole again."""
    folder = tmp_path_factory.mktemp("workplace") / "folder"
    shutil.copytree(sound, folder)
    return folder


@pytest.fixture
def place(workplace, sound, target):
    yield workplace
    shutil.copy(sound / target.file, workplace / target.file)


# --- every file ---------------------------------------------------------------------------------


@EVERY_FILE
def test_the_sound_folder_is_read(target, place):
    assert is_read(target, place)


@EVERY_JSON
@pytest.mark.parametrize("content", [*NO_JSON, *OF_ANOTHER_KIND], ids=lambda c: repr(c[:9]))
def test_what_is_no_json_or_no_object_is_refused_by_the_files_name(target, content, place):
    (place / target.file).write_bytes(content)
    with pytest.raises(target.errors) as caught:
        target.read(place)
    assert caught.type in target.errors
    assert str(place / target.file) in str(caught.value)


def places(document, path=()):
    """The paths to all values in a document, the document itself first."""
    yield path
    if isinstance(document, dict | list):
        for key in document if isinstance(document, dict) else range(len(document)):
            yield from places(document[key], (*path, key))


def altered(draw, document):
    """A document in which something is another value, is gone, is new or is there twice."""
    if not (inner_places := list(places(document))[1:]):
        return draw(VALUES)
    *path, key = draw(st.sampled_from(inner_places))
    inner = document
    for step in path:
        inner = inner[step]
    change = draw(st.sampled_from(["replace", "replace", "remove", "add", "exchange"]))
    if change == "remove":
        del inner[key]
    elif change == "exchange":
        others = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        other = draw(st.sampled_from(others))
        inner[key], inner[other] = inner[other], inner[key]
    elif change == "add" and isinstance(inner, dict):
        inner[draw(st.text(max_size=4))] = draw(VALUES)
    else:
        inner[key] = draw(VALUES)
    return document


def documents(content):
    """A file's json values: one, or one a line."""
    try:
        return [json.loads(content)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in content.splitlines()]


@EVERY_JSON
@SOME
@given(data=st.data())
def test_any_value_anywhere_in_a_json_is_read_or_refused(target, place, sound, data):
    told = documents((sound / target.file).read_bytes())
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(told) - 1))
        told[at] = altered(data.draw, told[at])
    lines = [json.dumps(one) for one in told]
    if isinstance(told[0], dict) and told[0] and data.draw(st.booleans()):
        twice = data.draw(st.sampled_from(sorted(told[0])))
        lines[0] = f"{lines[0][:-1]}, {json.dumps({twice: data.draw(VALUES)})[1:]}"
    (place / target.file).write_text("\n".join(lines))
    is_read(target, place)


def damaged(draw, content):
    """Bytes flipped, cut out, repeated or put in, and perhaps the end cut off."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.integers(1, 1 << draw(st.integers(0, 12))))
        part = content[at : at + length]
        kind = draw(st.sampled_from(["flip", "cut out", "repeat", "put in", "cut off"]))
        new = {
            "flip": bytes([*(b ^ draw(st.integers(1, 255)) for b in part[:1]), *part[1:]]),
            "cut out": b"",
            "repeat": part * 2,
            "put in": draw(st.binary(max_size=9)) + part,
            "cut off": b"",
        }[kind]
        content = content[:at] + new + (b"" if kind == "cut off" else content[at + length :])
    return content


@EVERY_FILE
@SOME
@given(data=st.data())
def test_bytes_flipped_cut_repeated_or_put_in_are_read_or_refused(target, place, sound, data):
    (place / target.file).write_bytes(damaged(data.draw, (sound / target.file).read_bytes()))
    is_read(target, place)
