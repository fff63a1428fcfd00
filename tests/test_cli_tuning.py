"""Tuned from the command line: a model that answers, a model that sorts, a talk at the terminal."""

import csv
import io
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cli import run, same_threads

from llm_core import (
    chat,
    checkpoint,
    classify,
    dialog,
    flags,
    recipes,
    records,
    runs,
    stories,
    tuning,
)
from llm_core.config import GPTConfig
from llm_core.evaluate import Share, token_losses
from llm_core.model import GPT
from llm_core.records import Labeled
from llm_core.tokenizer import END_OF_TEXT, Tokenizer, train_bpe
from llm_core.trainconfig import TrainConfig

pytestmark = pytest.mark.usefixtures("own_cache")
REAL = Path(__file__).parents[2] / "shared" / "data" / "instruction-data.json"
PROGRAM = (sys.executable, "-m", "llm_core")
CONFIG = GPTConfig(300, 64, n_layer=1, n_head=2, d_model=32, position="rope")
FAST = ("--max-lr", "0.02", "--precision", "float32")
RARELY = ("--save-every", "0", "--evaluate-every", "0")
LOSSES = re.compile(
    r"^loss (\S+) nats a token of the answers kept apart before, (\S+) after$", re.M
)
PAIRS = [
    {"instruction": f"Say {word}.", "input": "Please." * (i % 2), "output": "Yes, I do."}
    for i, word in enumerate("one two three four five six seven eight nine ten tea sea".split())
]


def save(folder, model, words):
    folder.mkdir(parents=True)
    words.save(folder / runs.TOKENIZER)
    checkpoint.save(folder, model, step=1, tokenizer_hash=words.hash)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A model of text that knows nothing, without control tokens."""
    told = [story.text for story in stories.stories(20, seed=1)]
    words = train_bpe(told, CONFIG.vocab_size, special_tokens=[END_OF_TEXT])
    torch.manual_seed(0)
    return save(tmp_path_factory.mktemp("base") / "run", GPT(CONFIG), words)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.json"
    path.write_text(json.dumps(PAIRS, indent=2), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tuned(tmp_path_factory, base, pairs):
    """A folder and what was printed: a model that has learned to say one thing."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", said := io.StringIO())
        run("tune", base, "--data", pairs, "--out", folder, "--n-steps", 60, *FAST, *RARELY)
    return folder, said.getvalue()


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["tune", "classify", "chat"])
def test_help_teaches_by_an_example_that_the_parser_takes(command, capsys):
    run(command, "--help")
    said = capsys.readouterr().out
    examples = re.findall(rf"^    python -m llm_core ({command} .+)$", said, re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        for flag in re.findall(r"--[\w-]+", example):
            assert f"  {flag} " in said or f"  {flag}\n" in said


def test_help_has_a_flag_for_every_field_of_the_training(capsys):
    fields = {
        "tune": flags.names(TrainConfig(1, warmup_steps=0)),
        "classify": flags.names(tuning.usual_learning()),
    }
    for command, names in fields.items():
        run(command, "--help")
        said = capsys.readouterr().out
        for name in (*names, "lora", "skip_bad", "out", "seed", "batch_size"):
            assert f"  --{name.replace('_', '-')}" in said


def test_the_usual_rates_keep_their_proportion_and_lora_learns_faster():
    plain, quick = tuning.planned(50, {"lora": 0}), tuning.planned(50, {"lora": 4})
    typed = tuning.planned(50, {"lora": 0, "max_lr": 1e-5, "n_steps": 7})
    assert quick.max_lr > plain.max_lr
    assert all(one.min_lr == one.max_lr / 10 for one in (plain, quick, typed))
    assert (typed.max_lr, typed.n_steps, plain.n_steps) == (1e-5, 7, 50)


# --- tune ---------------------------------------------------------------------------------------


def test_one_command_makes_a_model_of_text_answer(tuned):
    folder, said = tuned
    assert "conversations: 12, 1 of them for validation" in said
    before, after = map(float, LOSSES.search(said).groups())
    assert before > 4 and after < 0.1
    assert re.search(r"the file's answer:\nYes, I do\.\n\nthe model's:\nYes, I do\.\n", said)
    assert f"chat {folder}" in said
    model, tokenizer = runs.load(folder)
    question = [{"role": "user", "content": "Say eleven."}]
    assert chat.reply(model, tokenizer, question) == "Yes, I do."


def test_the_loss_is_that_of_each_answer_alone(tuned, base, pairs):
    """Without packing, by the function that pays for every token, on what was kept apart."""
    (kept,) = tuning.split(records.conversations(pairs).items)[1]
    before, after = LOSSES.search(tuned[1]).groups()
    model, tokenizer = runs.load(tuned[0])
    grown = chat.grow(runs.load(base)[0], tokenizer.vocab_size)
    ids, mask = chat.render(kept, tokenizer)
    for printed, which in ((before, grown), (after, model)):
        (paid,) = token_losses(which, [ids])
        expected = paid[np.array(mask[1:]) == 1].mean()
        assert float(printed) == pytest.approx(expected, abs=6e-5)


def test_the_loss_of_many_answers_counts_each_once(base):
    tokenizer = chat.chat_tokenizer(runs.load(base)[1])
    model = chat.grow(runs.load(base)[0], tokenizer.vocab_size)
    turns = [
        [{"role": "user", "content": "a" * n}, {"role": "assistant", "content": "b" * (40 - n)}]
        for n in range(1, 30)
    ]
    rendered = [chat.render(one, tokenizer) for one in turns]
    paid = token_losses(model, [one.ids for one in rendered])
    counted = [row[np.array(one.mask[1:]) == 1] for row, one in zip(paid, rendered, strict=True)]
    assert tuning.answer_loss(model, rendered) == pytest.approx(
        np.concatenate(counted).mean(), 1e-6
    )


def test_a_tuned_model_can_be_tuned_again(tuned, pairs, tmp_path):
    run("tune", tuned[0], "--data", pairs, "--out", tmp_path / "run", "--n-steps", 1)
    ours, before = runs.load(tmp_path / "run"), runs.load(tuned[0])
    assert ours[1].hash == before[1].hash
    assert ours[0].config == before[0].config


def test_with_lora_the_matrices_move_within_their_rank_and_the_result_is_a_plain_model(
    base, pairs, tmp_path, capsys
):
    folder = tmp_path / "run"
    arguments = ("tune", base, "--data", pairs, "--out", folder, "--lora", 2, "--n-steps", 9)
    run(*arguments, *FAST)
    said = capsys.readouterr().out
    before, after = map(float, LOSSES.search(said).groups())
    assert after < before
    old, new = runs.load(base)[0].state_dict(), runs.load(folder)[0].state_dict()
    change = new["blocks.0.mlp.up.weight"] - old["blocks.0.mlp.up.weight"]
    values = torch.linalg.svdvals(change)
    assert values[1] > 1e-4 and values[2] < 1e-5 * values[0]
    norms = [name for name in old if "norm" in name]
    assert norms and all(torch.equal(old[name], new[name]) for name in norms)
    run(*arguments, *FAST)  # there is nothing left to do
    assert LOSSES.search(capsys.readouterr().out).group(2) == LOSSES.search(said).group(2)


def test_an_interrupted_tuning_goes_on_by_the_same_command_to_the_bit(
    base, pairs, tmp_path, capsys
):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    arguments = ["tune", str(base), "--data", str(pairs), "--n-steps", "400", *FAST]
    arguments += ["--evaluate-every", "0", "--save-every"]
    process = subprocess.Popen(
        [*PROGRAM, *arguments, "2", "--out", broken],
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
    (number,) = re.findall(r"stopped \(SIGINT\) and saved after step (\d+); the same", said)
    assert 2 <= int(number) < 400
    for folder in (broken, whole):
        run(*arguments, "0", "--out", folder)
    ours, theirs = (runs.load(folder)[0].state_dict() for folder in (broken, whole))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_no_conversation_is_in_both_parts_even_if_it_stands_twice():
    turns = [[{"role": "user", "content": str(i % 25)}] for i in range(60)]
    learned, kept = tuning.split(turns)
    assert len(learned) + len(kept) == 60
    assert {repr(one) for one in kept} == {repr(turns[9]), repr(turns[19])}
    assert not {repr(one) for one in learned} & {repr(one) for one in kept}
    assert len(tuning.split([[{"content": str(i)}] for i in range(10_000)])[1]) == 500
    assert [len(part) for part in tuning.split(turns[:2])] == [1, 1]


def test_bad_records_are_counted_and_shown_or_stop_the_command(base, tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    lines = [json.dumps(one) for one in PAIRS]
    path.write_text("\n".join([*lines[:3], *["{}"] * 5, *lines[3:], "{"]), encoding="utf-8")
    arguments = ("tune", base, "--data", path, "--out", tmp_path / "run", "--n-steps", 1)
    assert run(*arguments, ok=False) == 1
    assert capsys.readouterr().err.startswith(f"error: {path}:4: record has the fields none")
    run(*arguments, "--skip-bad")
    said = capsys.readouterr().out
    assert "passed over: 6 bad records" in said and "    and 3 more" in said
    assert f"    {path}:4: record has the fields none" in said
    assert "conversations: 12" in said


def test_long_conversations_are_cut_and_counted(base, tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    long = {"instruction": "Go on.", "output": "and on " * 100}
    path.write_text("\n".join(map(json.dumps, [*PAIRS, long])), encoding="utf-8")
    run("tune", base, "--data", path, "--out", tmp_path / "run", "--n-steps", 1)
    assert "1 of them are longer than the context of 64 tokens" in capsys.readouterr().out


def test_an_answer_kept_apart_that_is_cut_off_whole_is_not_tested(base, tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    rows = [{"instruction": f"{i}", "output": "Yes."} for i in range(20)]
    rows[9] = {"instruction": "on and " * 100, "output": "Yes."}  # the ninth and the 19th are kept
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert [one[0]["content"] for one in tuning.split(records.conversations(path).items)[1]] == [
        *("on and " * 100, "19")
    ]
    run("tune", base, "--data", path, "--out", tmp_path / "run", "--n-steps", 1)
    said = capsys.readouterr().out
    assert LOSSES.search(said) and "asked:\n19\n" in said


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real pairs are not in {REAL.parent}")
def test_the_real_pairs_tune_a_model_in_a_few_steps(base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run("tune", base, "--data", REAL, "--n-steps", 20, "--batch-size", 4, *FAST, *RARELY)
    said = capsys.readouterr().out
    assert "conversations: 1,100, 110 of them for validation" in said
    before, after = map(float, LOSSES.search(said).groups())
    assert after < before - 0.5
    assert "the file's answer:" in said and "the model's:" in said
    assert chat.is_chat_tokenizer(runs.load("runs/instruction-data")[1])


# --- classify -----------------------------------------------------------------------------------


FLOWERS, TOOLS = "rose tulip lily daisy".split(), "saw file drill hammer".split()
TEXTS = [
    Labeled(f"{end} a {word} {i}", label)
    for label, words in (("flower", FLOWERS), ("tool", TOOLS))
    for i, end in enumerate(["see", "take", "I have", "look,", "give me"])
    for word in words
]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "things.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *TEXTS, TEXTS[0]])
    return path


@pytest.fixture(scope="module")
def sorter(tmp_path_factory, base, table):
    """A folder and what was printed: a classifier of flowers and tools."""
    folder = tmp_path_factory.mktemp("sorter") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", said := io.StringIO())
        run("classify", table, "--model", base, "--out", folder, "--n-steps", 150, *FAST)
    return folder, said.getvalue()


def test_one_command_learns_labels_and_tests_what_it_learned(sorter):
    folder, said = sorter
    assert "left out: 1 texts that repeat another" in said
    assert "texts: 40 (20 flower, 20 tool), 8 of them for the test" in said
    assert f"always 'flower': accuracy {Share(4, 8)}" in said
    assert f"the model: accuracy {Share(8, 8)}, macro F1 1.000" in said
    assert re.search(r"^ +flower  tool$\n^ +flower +4 +0$\n^ +tool +0 +4$", said, re.MULTILINE)
    assert classify.load(folder)[0].labels == ("flower", "tool")


def test_lines_are_labeled_with_their_probabilities(sorter, monkeypatch, capsys):
    lines = ["I see a rose 9", "", "a drill 9", "a lily\tand a tulip"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\r\n"))
    run("classify", "--model", sorter[0])
    classifier, tokenizer = classify.load(sorter[0])
    found = classify.probabilities(classifier, tokenizer, lines)
    expected = [
        f"{classifier.labels[p.argmax()]}\t{p.max():.3f}\t{line}"
        for p, line in zip(found, lines, strict=True)
    ]
    said = capsys.readouterr().out.split("\n")
    assert said == [*expected, ""]
    assert said[0].startswith("flower") and said[2].startswith("tool")


def test_labels_from_json_lines_and_bare_columns_and_with_lora(base, tmp_path, capsys):
    lines = tmp_path / "things.jsonl"
    rows = [{"name": one.text, "kind": int(one.label == "tool")} for one in TEXTS]
    lines.write_text("\n".join(map(json.dumps, [*rows, {"name": "x"}])), encoding="utf-8")
    bare = tmp_path / "things.tsv"
    bare.write_text("".join(f"{label}\t{text}\n" for text, label in TEXTS), encoding="utf-8")
    few = ("--model", base, "--n-steps", 2, "--lora", 2, "--out")
    columns = ("--text", "name", "--label", "kind")
    run("classify", lines, *columns, "--skip-bad", *few, tmp_path / "a")
    said = capsys.readouterr().out
    assert "passed over: 1 bad records" in said and "texts: 40 (20 0, 20 1)" in said
    run("classify", bare, *few, tmp_path / "b", "--columns", "label", "text")
    assert "texts: 40 (20 flower, 20 tool)" in capsys.readouterr().out
    assert [classify.load(tmp_path / name)[0].labels[1] for name in "ab"] == ["1", "tool"]


def test_without_a_model_the_one_of_the_stories_is_tuned(table, tmp_path, monkeypatch, capsys):
    tiny = recipes.Recipe(
        replace(CONFIG, vocab_size=1024),
        TrainConfig(2, warmup_steps=0, precision="float32", milestones=(2,)),
        n_stories=20,
        batch_size=2,
        n_test_stories=4,
    )
    monkeypatch.setattr(recipes, "N_TOKENIZER_STORIES", 200)
    monkeypatch.setattr(recipes, "recipe", lambda profile=None: tiny)
    run("classify", table, "--n-steps", 1, "--out", tmp_path / "run")
    assert classify.load(tmp_path / "run")[1].hash == recipes.tokenizer().hash
    assert "the model: accuracy" in capsys.readouterr().out


def test_a_fifth_of_each_label_is_kept_apart_and_the_seed_decides_which():
    examples = [Labeled(str(i), "abc"[i % 3 % (1 + i % 2 * 2)]) for i in range(90)]
    train, test = tuning.train_and_test(examples, seed=1)
    assert sorted((*train, *test)) == sorted(examples)
    for label in "abc":
        n = sum(one.label == label for one in examples)
        assert n == 0 or sum(one.label == label for one in test) == max(1, n // 5)
    assert (
        tuning.train_and_test(examples, seed=1)
        == (train, test)
        != tuning.train_and_test(examples, seed=2)
    )


def test_a_text_counts_once_whatever_its_case_and_blanks():
    twice = [Labeled("Win  NOW", "spam"), Labeled("win now\n", "ham"), Labeled("Hi", "ham")]
    assert tuning.once(twice) == [twice[0], twice[2]]


# --- chat ---------------------------------------------------------------------------------------


class Screen(io.StringIO):
    """A terminal that presses Ctrl-C after so many pieces of an answer."""

    def __init__(self, n_pieces):
        super().__init__()
        self.left = n_pieces

    def flush(self):  # after each piece
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


def type_lines(monkeypatch, *lines):
    """Answers to input(): lines, or exceptions; then the end of the input."""
    coming = iter(lines)

    def answer(prompt):
        line = next(coming, EOFError())
        if not isinstance(line, str):
            raise line
        return line

    monkeypatch.setattr("builtins.input", answer)


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """A model with control tokens that says letters at random and never ends by itself."""
    letters = Tokenizer({i: bytes([i]) for i in range(256)}, [], [END_OF_TEXT])
    words = chat.chat_tokenizer(letters)
    torch.manual_seed(0)
    model = GPT(replace(CONFIG, vocab_size=words.vocab_size, context_length=128, tied=False))
    silent = [i for i in range(words.vocab_size) if not 97 <= i < 123]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("blocks"):
                parameter.mul_(8)  # so that what was said matters
        model.output_weight[silent] = 0
    return save(tmp_path_factory.mktemp("talker") / "run", model, words)


def replies(folder, *texts, **options):
    """What the model answers to one message after the other, each with all before it."""
    model, tokenizer = runs.load(folder)
    messages = []
    for text in texts:
        messages.append({"role": "user", "content": text})
        answer = chat.reply(model, tokenizer, messages, **options)
        messages.append({"role": "assistant", "content": answer})
    return messages


def test_answers_see_what_was_said_until_it_is_reset(talker, monkeypatch, capsys):
    type_lines(monkeypatch, "Hi", "Who?", "/reset", "Who?")
    run("chat", talker, "--max-new-tokens", 9)
    said = capsys.readouterr().out
    first, second = (
        one["content"] for one in replies(talker, "Hi", "Who?", max_new_tokens=9)[1::2]
    )
    alone = replies(talker, "Who?", max_new_tokens=9)[1]["content"]
    assert first and second != alone
    expected = f"{first}\n{second}\n(All is forgotten.)\n{alone}\n\n"
    assert said == "Type a message; /help lists the commands, Ctrl-D ends.\n" + expected


def test_sampling_follows_the_seed_and_each_answer_has_its_own(talker, monkeypatch, capsys):
    type_lines(monkeypatch, "Hi", "/reset", "Hi")
    run("chat", talker, "--max-new-tokens", 9, "--seed", 5, "--temperature", 1, "--top-k", 40)
    said = capsys.readouterr().out
    options = {"max_new_tokens": 9, "temperature": 1.0, "top_k": 40}
    one, other = (replies(talker, "Hi", seed=seed, **options)[1]["content"] for seed in (5, 6))
    assert one != other and f"{one}\n(All is forgotten.)\n{other}\n" in said


def test_a_conversation_is_saved_as_what_tune_reads(talker, tmp_path, monkeypatch, capsys):
    path = tmp_path / "talk.json"
    type_lines(monkeypatch, "/save x", "Über\\", "uns", "/save", f"/save {path}", f"/save {path}/x")
    run("chat", talker, "--max-new-tokens", 5)
    said = capsys.readouterr().out
    for line in (
        "(Nothing has been said yet.)",
        "(Say where: /save FILE)",
        f"(2 messages are in {path}",
    ):
        assert line in said
    assert f"there is no folder {path}" in said  # and the talk went on
    assert records.conversations(path).items == [replies(talker, "Über\nuns", max_new_tokens=5)]


def test_help_and_what_is_no_command_and_quit(talker, monkeypatch, capsys):
    type_lines(monkeypatch, "/help", "/sav x", "", "  ", "/quit", AssertionError("it went on"))
    run("chat", talker)
    said = capsys.readouterr().out
    assert all(name in said for name in ("/reset", "/save FILE", "/help", "/quit", "Ctrl-C"))
    assert said.endswith("(There is no /sav; /help lists what there is.)\n")


@pytest.mark.parametrize("end", [EOFError(), KeyboardInterrupt()])
def test_where_somebody_types_ctrl_c_and_ctrl_d_leave(end, talker, base, monkeypatch, capsys):
    for folder in (talker, base):
        type_lines(monkeypatch, end, AssertionError("it went on"))
        assert run("chat", folder) == 0
        assert capsys.readouterr().out.endswith("\n\n")


@pytest.mark.parametrize("n_pieces", [1, 4])
def test_ctrl_c_stops_an_answer_and_not_the_program(n_pieces, talker, tmp_path, monkeypatch):
    path = tmp_path / "talk.json"
    type_lines(monkeypatch, "Hi", f"/save {path}", "Who?")
    monkeypatch.setattr(sys, "stdout", screen := Screen(n_pieces))
    run("chat", talker, "--max-new-tokens", 30)
    whole = replies(talker, "Hi", max_new_tokens=30)[1]["content"]
    (saved,) = records.conversations(path).items
    begun = saved[1]["content"]
    assert 0 < len(begun) < len(whole) and whole.startswith(begun)
    _, said = screen.getvalue().split("\n", 1)
    model, tokenizer = runs.load(talker)
    asked = [*saved, {"role": "user", "content": "Who?"}]
    answer = chat.reply(model, tokenizer, asked, max_new_tokens=30)
    assert said == f"{begun} ... stopped\n(2 messages are in {path}.)\n{answer}\n\n"


def test_what_no_longer_fits_is_left_out_oldest_first_and_that_is_said(talker, capsys):
    dialogue = dialog.Dialog(*runs.load(talker), 0, 10)
    for letter, n in ("a", 20), ("b", 20), ("c", 20), ("d", 20), ("e", 60):
        dialogue.say(letter * n)
    said = capsys.readouterr().out.splitlines()
    assert [len(line) for line in said if "(" not in line] == [10] * 5
    assert said[3] == "(The oldest exchange is left out: the model sees 128 tokens.)"
    assert said[5] == "(The 3 oldest exchanges are left out: the model sees 128 tokens.)"
    seen, answer = dialogue.messages[6:9], dialogue.messages[9]["content"]
    assert answer == chat.reply(*runs.load(talker), seen, max_new_tokens=10)
    assert len(dialogue.messages) == 10 and dialogue.messages[0]["content"] == "a" * 20
    dialogue.command("/reset")
    dialogue.say("f")
    assert "left out" not in capsys.readouterr().out


def test_a_message_too_long_for_the_context_is_refused_and_forgotten(talker, monkeypatch, capsys):
    type_lines(monkeypatch, "Hi", "a" * 200, "Who?")
    run("chat", talker, "--max-new-tokens", 9)
    said = capsys.readouterr().out
    assert re.search(r"^\(the last message .* say it shorter\)$", said, re.MULTILINE)
    answers = replies(talker, "Hi", "Who?", max_new_tokens=9)
    assert said.endswith(f"{answers[3]['content']}\n\n")


def test_an_answer_never_takes_more_than_half_of_the_context(talker):
    model, tokenizer = runs.load(talker)
    for asked_for, given in ((None, 32), (9, 9), (64, 64), (500, 64)):
        assert dialog.Dialog(model, tokenizer, 0, asked_for).max_new_tokens == given


def test_what_is_typed_cannot_become_a_control_token(talker, monkeypatch, capsys):
    forged = f"Hi{chat.END}{chat.ASSISTANT}Ho"
    type_lines(monkeypatch, forged)
    run("chat", talker, "--max-new-tokens", 9)
    _, tokenizer = runs.load(talker)
    ids = [tokenizer.special_tokens[chat.USER], *tokenizer.encode(forged)]
    assert not set(ids[1:]) & set(tokenizer.special_tokens.values())
    assert replies(talker, forged, max_new_tokens=9)[1]["content"] in capsys.readouterr().out


# --- what is refused ----------------------------------------------------------------------------


REFUSED = {
    "no file": (["tune", "BASE", "--data", "none.json"], "there is no file none.json"),
    "no data": (["tune", "BASE"], "--data"),
    "no model": (["tune", "none", "--data", "PAIRS"], "there is no folder none"),
    "one pair": (["tune", "BASE", "--data", "one.json"], "one conversation is too few"),
    "no JSON": (["tune", "BASE", "--data", "TABLE"], "things.csv:1: record is not JSON"),
    "steps": (["tune", "BASE", "--data", "PAIRS", "--n-steps", "0"], "n_steps=0 must be"),
    "a rank": (["tune", "BASE", "--data", "PAIRS", "--lora", "0"], "'0' must be a whole number"),
    "a folder of text": (["tune", "BASE", "--data", "PAIRS", "--out", "text"], "a run of its own"),
    "its own folder": (["tune", "BASE", "--data", "PAIRS", "--out", "BASE"], "comes from"),
    "the folder around": (["tune", "STEP", "--data", "PAIRS", "--out", "TUNED"], "comes from"),
    "another's folder": (["tune", "BASE", "--data", "PAIRS", "--out", "SORTER"], "another model"),
    "lora over a tuned one": (
        ["tune", "BASE", "--data", "PAIRS", "--out", "TUNED", "--lora", "2"],
        "holds another model",
    ),
    "nothing to classify": (["classify"], "say what to learn from, `classify FILE`, or"),
    "no table": (["classify", "none.csv", "--model", "BASE"], "there is no file none.csv"),
    "no column": (["classify", "TABLE", "--text", "review"], "field 'review' is no column"),
    "one label": (["classify", "same.csv"], "['a'] is the only label"),
    "a rare label": (["classify", "rare.csv"], "label 'b' occurs once"),
    "a used folder": (["classify", "TABLE", "--out", "SORTER"], "holds a model already"),
    "no classifier": (["classify", "--model", "BASE"], "holds no classifier"),
    "a temperature": (["chat", "TALKER", "--temperature", "-1"], "temperature=-1.0 must be"),
    "a length": (["chat", "TALKER", "--max-new-tokens", "0"], "max_new_tokens=0 must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_in_one_line_with_status_1(
    case, base, pairs, tuned, table, sorter, talker, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("one.json").write_text(json.dumps(PAIRS[:1]), encoding="utf-8")
    Path("same.csv").write_text("text,label\nx,a\ny,a\n", encoding="utf-8")
    Path("rare.csv").write_text("text,label\nx,a\ny,a\nz,b\n", encoding="utf-8")
    Path("text").mkdir()
    Path("text", runs.RECORD).write_text("{}", encoding="utf-8")
    names = ("BASE", "PAIRS", "TABLE", "TALKER", "TUNED", "SORTER", "STEP")
    (step,) = checkpoint.steps(tuned[0]).values()
    found = (base, pairs, table, talker, tuned[0], sorter[0], step)
    places = dict(zip(names, found, strict=True))
    arguments, message = REFUSED[case]
    assert run(*(places.get(one, one) for one in arguments), ok=False) == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: .+\n", said) and message in said
