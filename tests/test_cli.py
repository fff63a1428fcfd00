"""The commands: from a text to a sample, and on again; what is refused is refused in one line."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import llm_core
from llm_core import checkpoint, commands, flags, hf, runs, stories
from llm_core.checkpoint import load
from llm_core.cli import main
from llm_core.config import GPTConfig, preset
from llm_core.evaluate import Share
from llm_core.generate import generate
from llm_core.model import GPT
from llm_core.tokenizer import END_OF_TEXT, Tokenizer
from llm_core.trainconfig import TrainConfig

pytestmark = pytest.mark.usefixtures("own_cache")
VERDICT = Path(__file__).parents[2] / "shared" / "data" / "the-verdict.txt"
COMMANDS = ("tokenize", "train", "sample", "evaluate", "chat")
TINY = (
    *("--n-layer", "1", "--n-head", "2", "--d-model", "16", "--vocab-size", "300"),
    *("--context-length", "32", "--batch-size", "2", "--precision", "float32"),
)
LONG = ("--context-length", "1024")  # so that hardly a story has to be cut
PROGRAM = (sys.executable, "-m", "llm_core")
QUALITY = re.compile(r"loss (\d+\.\d{4}) nats a token, perplexity \S+, (\d+\.\d{4}) bits a byte")


def run(*arguments, ok=True):
    """The status of a command, which argparse leaves by SystemExit."""
    try:
        status = main([str(one) for one in arguments])
    except SystemExit as end:
        status = end.code
    assert (status == 0) == ok, f"status {status}"
    return status


def same_threads():
    """What a process is given that is to compute the same bits: they depend on how many share."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "tales.txt"
    told = [story.text for story in stories.stories(40, seed=1)]
    path.write_text("\n".join(told), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory, text_file):
    """A run of 20 steps, not interrupted."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    run("train", "--data", text_file, "--out", folder, *TINY, "--n-steps", "20")
    return folder


def weights(folder):
    return load(folder).weights


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_an_example_that_the_parser_takes(command, capsys):
    run(command, "--help")
    said = capsys.readouterr().out
    examples = re.findall(rf"^    python -m llm_core ({command} .+)$", said, re.MULTILINE)
    assert examples
    for example in examples:
        for flag in re.findall(r"--[\w-]+", example):
            assert f"  {flag}" in said or f", {flag}" in said


def test_help_of_train_has_every_field_of_the_model_and_of_the_training(capsys):
    run("train", "--help")
    said = capsys.readouterr().out
    for name in [*flags.names(preset("story-1m")), *flags.names(TrainConfig(1, warmup_steps=0))]:
        assert f"  --{name.replace('_', '-')}" in said
    for name in ("preset", "log-dir", "resume", "tokenizer", "seed", "batch-size"):
        assert f"  --{name} " in said or f"  --{name}\n" in said


def test_the_program_lists_its_commands_and_says_its_version(capsys):
    run("--help")
    said = capsys.readouterr().out
    assert all(re.search(rf"^    {command}\s", said, re.MULTILINE) for command in COMMANDS)
    run("--version")
    assert capsys.readouterr().out == f"llm_core {llm_core.__version__}\n"


# --- train --------------------------------------------------------------------------------------


def test_one_command_goes_from_a_text_file_to_a_sample(text_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("train", "--data", text_file, *TINY, "--n-steps", "5")
    said = capsys.readouterr().out
    assert "bytes in 1 document, its last tenth is for validation" in said
    assert "tokenizer: 300 entries" in said
    assert "training: 5 steps of 64 tokens" in said
    assert QUALITY.search(said)
    sample = said.split("a sample:\n\n")[1].split("\ngo on with")[0]
    (last,) = runs.measure(str(text_file)).documents(validation=True)
    assert last.strip().startswith(sample[:10].strip())
    assert len(sample) > 60
    assert "python -m llm_core sample runs/tales" in said
    assert sorted(path.name for path in Path("runs/tales").iterdir()) == [
        *("data", "run.json", "step-00000005", "tokenizer.json"),
    ]


def test_the_verdict_alone_gives_a_model_that_speaks(tmp_path, monkeypatch, capsys):
    if not VERDICT.is_file():
        pytest.skip("the-verdict.txt is not beside the repository")
    monkeypatch.chdir(tmp_path)
    run("train", "--data", VERDICT, "--n-steps", "3")
    said = capsys.readouterr().out
    assert "text: 20,479 bytes in 1 document" in said
    assert QUALITY.search(said) and "a sample:" in said
    assert len(checkpoint.steps(tmp_path / "runs" / "the-verdict")) == 1


def test_the_settings_are_those_that_were_typed(trained):
    found = load(trained)
    assert found.step == 20
    assert found.config == preset(
        "story-1m", n_layer=1, n_head=2, d_model=16, vocab_size=300, context_length=32
    )
    assert found.extra["config"]["n_steps"] == 20


def test_the_seed_decides_about_the_weights(trained, text_file, tmp_path):
    for seed, same in ((0, True), (1, False)):
        folder = tmp_path / str(seed)
        run("train", "--data", text_file, "--out", folder, *TINY, "--n-steps", 20, "--seed", seed)
        pairs = zip(weights(folder).values(), weights(trained).values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs) == same


def test_a_tokenizer_that_is_there_is_used(trained, text_file, tmp_path, capsys):
    path = trained / "tokenizer.json"
    tiny = [one for one in TINY if one not in ("--vocab-size", "300")]
    out = ("--out", tmp_path / "run", "--n-steps", "1")
    run("train", "--data", text_file, "--tokenizer", path, *tiny, *out)
    assert Tokenizer.load(tmp_path / "run" / "tokenizer.json").hash == Tokenizer.load(path).hash
    run("train", "--data", text_file, "--tokenizer", path, "--vocab-size", 500, ok=False)
    assert "--vocab-size 500" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "pattern", "jsonl"])
def test_texts_come_from_folders_patterns_and_json_lines(kind, tmp_path, capsys):
    told = [story.text for story in stories.stories(20, seed=3)]
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(told):
        (tmp_path / "texts" / f"{i:02}.txt").write_text(text, encoding="utf-8")
    lines = "\n".join(json.dumps({"text": text}) for text in told)
    (tmp_path / "told.jsonl").write_text(lines, encoding="utf-8")
    places = {"folder": "texts", "pattern": "texts/*.txt", "jsonl": "told.jsonl"}
    source, out = tmp_path / places[kind], tmp_path / "run"
    run("train", "--data", source, "--out", out, *TINY, "--n-steps", "2")
    assert "in 20 documents, 2 of them for validation" in capsys.readouterr().out


def test_stories_are_held_against_their_floor(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(commands, "N_TEST_STORIES", 10)
    out = ("--out", tmp_path / "run")
    run("train", "--data", "stories", "--n-documents", 30, *TINY, "--n-steps", "2", *LONG, *out)
    said = capsys.readouterr().out
    assert "text: 30 stories" in said
    loss, floor, gap = map(float, re.search(r"loss (\S+), floor (\S+), gap (\S+) ±", said).groups())
    assert gap == pytest.approx(loss - floor, abs=2e-4) and gap > 1
    run("evaluate", tmp_path / "run", "--n-told", "2")
    said = capsys.readouterr().out
    assert f"of the stories told {Share(0, 2)} are exact" in said and "floor" in said


def test_an_interrupted_run_is_saved_and_resumed_to_the_bit(text_file, tmp_path, capsys):
    arguments = ["--data", text_file, *TINY, "--n-steps", "80"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    process = subprocess.Popen(
        [*PROGRAM, "train", *arguments, "--out", broken, "--save-every", "3"],
        stdout=subprocess.PIPE,
        text=True,
        env=same_threads(),
    )
    while not checkpoint.steps(broken):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"train --resume --out {broken}" in said
    (number,) = re.findall(r"stopped \(SIGINT\) and saved after step (\d+);", said)
    assert 3 <= int(number) < 80
    run("train", "--resume", "--out", broken, "--save-every", "0")
    assert f"after step {number} of 80" in capsys.readouterr().out
    run("train", *arguments, "--out", whole, "--save-every", "0")
    assert weights(broken).keys() == weights(whole).keys()
    assert all(torch.equal(weights(broken)[name], t) for name, t in weights(whole).items())


def test_what_did_not_get_to_train_can_be_started_again(trained, text_file, tmp_path):
    """Killed before the first checkpoint: the folder is there, a run is not."""
    folder = tmp_path / "run"
    runs.write_shards(
        folder, runs.measure(str(text_file)), Tokenizer.load(trained / "tokenizer.json")
    )
    run("train", "--data", text_file, "--out", folder, *TINY, "--n-steps", "1")


# --- sample, chat, evaluate, tokenize -----------------------------------------------------------


def test_samples_are_those_of_generate_and_the_seed_decides(trained, capsys):
    model, tokenizer = runs.load(trained)
    end = tokenizer.special_tokens[END_OF_TEXT]
    shared = ("sample", trained, "--prompt", "The fox", "--max-new-tokens", "9", "--top-k", "50")
    run(*shared, "--seed", "4", "--temperature", "1.3")
    ids = [end, *tokenizer.encode("The fox")]
    (new,) = generate(model, ids, 9, temperature=1.3, top_k=50, stop=[end], seed=4)
    expected = "The fox" + tokenizer.decode([i for i in new if i != end]) + "\n"
    assert capsys.readouterr().out == expected
    run(*shared, "-n", "2", "--seed", "4", "--temperature", "1.3")
    first, second = re.split(r"^--- . of 2, seed \d+\n", capsys.readouterr().out, flags=re.M)[1:]
    assert first == expected != second


def test_a_sample_may_grow_beyond_the_context(trained, capsys):
    run("sample", trained, "--max-new-tokens", "80", "--temperature", "0")
    assert len(capsys.readouterr().out) > 80


@pytest.mark.parametrize("filters", [("--top-k", "1"), ("--top-p", "1e-9"), ("--min-p", "1")])
def test_each_filter_filters(trained, capsys, filters):
    run("sample", trained, "--temperature", "0", "--max-new-tokens", "9")
    greedy = capsys.readouterr().out
    run("sample", trained, "--temperature", "2", "--max-new-tokens", "9", "--seed", "1", *filters)
    assert capsys.readouterr().out == greedy


def test_chat_goes_on_with_each_line_until_there_are_no_more(trained, monkeypatch, capsys):
    lines = iter(["The fox", "", "A kite"])

    def type_a_line(prompt):
        print(prompt, end="")
        for line in lines:
            return line
        raise EOFError

    monkeypatch.setattr("builtins.input", type_a_line)
    run("chat", trained, "--max-new-tokens", "5", "--seed", "0")
    said = capsys.readouterr().out.split("> ")
    assert len(said) == 5
    assert said[1].startswith("The fox") and said[3].startswith("A kite")
    assert said[4] == "\n"


def test_a_run_is_evaluated_on_what_it_kept_apart_and_on_other_texts(
    trained, text_file, tmp_path, capsys
):
    model, tokenizer = runs.load(trained)
    (last,) = runs.measure(str(text_file)).documents(validation=True)
    (tmp_path / "last.txt").write_text(last, encoding="utf-8")
    ids = [*tokenizer.encode(last), tokenizer.special_tokens[END_OF_TEXT]]
    expected = runs.text_set(ids, tokenizer, 32).metrics(model)
    (step,) = checkpoint.steps(trained).values()
    for arguments in ((trained,), (step,), (trained, "--data", tmp_path / "last.txt")):
        run("evaluate", *arguments)
        loss, bits = QUALITY.search(capsys.readouterr().out).groups()
        assert float(loss) == pytest.approx(expected["loss"], abs=1e-4)
        assert float(bits) == pytest.approx(expected["bits_per_byte"], abs=1e-4)


def test_a_folder_of_hugging_face_speaks_and_is_evaluated(text_file, tmp_path, capsys):
    model = GPT(GPTConfig(258, 32, 1, 2, 16, mlp="gelu_tanh"))
    hf.save_pretrained(model, tmp_path)
    letters = [chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    vocab = {letter: i for i, letter in enumerate(letters)} | {"he": 256, END_OF_TEXT: 257}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh e\n", encoding="utf-8")
    run("sample", tmp_path, "--prompt", "he", "--max-new-tokens", "4", "--seed", "0")
    assert capsys.readouterr().out.startswith("he")
    run("evaluate", tmp_path, "--data", text_file)
    assert QUALITY.search(capsys.readouterr().out)
    run("evaluate", tmp_path, ok=False)
    assert "say on what with --data" in capsys.readouterr().err


def test_tokenize_saves_what_it_learned(text_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("tokenize", "--data", text_file, "--vocab-size", "400")
    saved = Tokenizer.load("runs/tales/tokenizer.json")
    assert saved.vocab_size == 400
    said = capsys.readouterr().out
    example = re.search(r"^for example: (.+)$", said, re.MULTILINE)[1]
    (last,) = runs.measure(str(text_file)).documents(validation=True)
    tokens = [saved.decode([i]) for i in saved.encode(last[:60])]
    assert example.replace("\\n", "\n") == "|".join(tokens)
    assert "saved: runs/tales/tokenizer.json" in said


# --- what is refused ----------------------------------------------------------------------------


REFUSED = {
    "no command": ([], "required"),
    "an unknown command": (["fly"], "invalid choice"),
    "an unknown flag": (["train", "--data", "TEXT", "--lr", "1"], "--lr"),
    "an abbreviated flag": (["train", "--data", "TEXT", "--max", "1"], "--max"),
    "no text": (["train"], "say what to train on: --data TEXT"),
    "no such file": (["train", "--data", "none.txt"], "none.txt matches nothing"),
    "no such corpus": (["tokenize", "--data", "shakespear"], "no corpus 'shakespear'; choose"),
    "a file that is no text": (["train", "--data", "bytes.txt"], "bytes.txt is not UTF-8"),
    "a broken line": (["train", "--data", "bad.jsonl"], "bad.jsonl, line 2"),
    "a tiny vocabulary": (["train", "--data", "TEXT", "--vocab-size", "9"], "give at least 257"),
    "heads": (["train", "--data", "TEXT", "--n-head", "3"], "n_head=3 does not divide d_model=128"),
    "steps": (["train", "--data", "TEXT", "--n-steps", "0"], "n_steps=0 must be at least 1"),
    "a long context": (
        ["train", "--data", "TEXT", "--vocab-size", "300", "--context-length", "99999"],
        "a context_length of at most",
    ),
    "a trained folder": (
        ["train", "--data", "TEXT", "--out", "RUN"],
        "--resume, or choose another",
    ),
    "nothing to resume": (["train", "--resume", "--out", "none"], "there is no run in none"),
    "another model": (
        ["train", "--resume", "--out", "RUN", "--n-layer", "2"],
        "leave out the flags",
    ),
    "other batches": (["train", "--resume", "--out", "RUN", "--seed", "2"], "leave out the flags"),
    "another rate": (["train", "--resume", "--out", "RUN", "--max-lr", "1"], "same settings"),
    "no folder": (["sample", "none"], "there is no folder none; `python -m llm_core train"),
    "no model": (["chat", "."], "there is no checkpoint in ."),
    "no sample": (["sample", "RUN", "-n", "0"], "'0' must be a whole number of at least 1"),
    "no story": (["evaluate", "RUN", "--n-told", "x"], "'x' must be a whole number"),
    "a temperature": (["sample", "RUN", "--temperature", "-1"], "temperature=-1.0 must be"),
    "a filter": (["sample", "RUN", "--top-p", "2"], "top_p=2.0 must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_line_with_status_1(
    case, trained, text_file, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("bytes.txt").write_bytes(b"\xff\xfe\x00" * 999)
    Path("bad.jsonl").write_text('{"text": "good"}\n{"text": 1}\n', encoding="utf-8")
    arguments, message = REFUSED[case]
    places = {"TEXT": text_file, "RUN": trained}
    assert run(*(places.get(one, one) for one in arguments), ok=False) == 1
    bars, said = re.split(r"^(?=error: )", capsys.readouterr().err, flags=re.MULTILINE)
    assert re.fullmatch(r"error: .+\n", said) and "Traceback" not in bars
    assert message in said


@pytest.mark.skipif(bool(importlib.util.find_spec("tensorboard")), reason="it is installed")
def test_without_tensorboard_a_log_dir_says_what_to_install(text_file, tmp_path, capsys):
    out = ("--out", tmp_path / "run", "--log-dir", tmp_path / "log", "--n-steps", "1")
    run("train", "--data", text_file, *TINY, *out, ok=False)
    assert "pip install tensorboard" in capsys.readouterr().err.splitlines()[-1]
    run("train", "--resume", "--out", tmp_path / "run")


@pytest.mark.skipif(bool(importlib.util.find_spec("pyarrow")), reason="pyarrow is installed")
def test_without_pyarrow_a_parquet_file_says_what_to_install(tmp_path, capsys):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1" * 999)
    run("train", "--data", tmp_path / "rows.parquet", ok=False)
    assert capsys.readouterr().err == "error: parquet needs pyarrow: pip install pyarrow\n"


def test_with_pyarrow_a_parquet_file_is_read(tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    import pyarrow

    told = [story.text for story in stories.stories(20, seed=3)]
    parquet.write_table(pyarrow.table({"text": told}), tmp_path / "rows.parquet")
    for source in (tmp_path / "rows.parquet", tmp_path):
        run("tokenize", "--data", source, "--vocab-size", 300, "--out", tmp_path / "t.json")
        assert "in 20 documents" in capsys.readouterr().out


@pytest.mark.skipif(os.name != "posix", reason="pipes with names are POSIX")
def test_ctrl_c_before_anything_was_saved_gives_130_and_no_traceback(tmp_path):
    os.mkfifo(tmp_path / "endless.txt")
    process = subprocess.Popen(
        [*PROGRAM, "train", "--data", tmp_path / "*.txt", "--out", tmp_path / "run"],
        stderr=subprocess.PIPE,
        text=True,
    )
    with (tmp_path / "endless.txt").open("w") as pipe:  # waits until the program reads
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        pipe.close()
    assert process.stderr.read() == "\ninterrupted; nothing more was saved\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a closed pipe is another error")
def test_a_reader_who_has_seen_enough_gets_no_traceback(trained, monkeypatch):
    ours, theirs = os.pipe()
    os.close(ours)
    with os.fdopen(theirs, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        run("sample", trained, "--max-new-tokens", "9")
