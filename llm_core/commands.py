"""What the commands of ``python -m llm_core`` do: each takes what was typed and returns a status.

``cli`` says which flags there are, ``runs`` knows the folder of a run, ``tuning`` has `tune` and
`classify`. Here the steps of the others stand in order, with a line printed for each, so that a
reader of the screen sees what a reader of the code does: text, tokenizer, model, training, how
good it is, a sample. Chapter 5 goes the same way.
"""

from __future__ import annotations

import argparse
import dataclasses
import secrets
import shlex
from itertools import islice
from pathlib import Path
from typing import Any

from llm_core import checkpoint, dataset, dialog, runs, runtime, shards
from llm_core import train as training
from llm_core.chat import is_chat_tokenizer
from llm_core.evaluate import gap, story_report, story_set
from llm_core.generate import stream
from llm_core.model import GPT, parameter_table
from llm_core.runs import Corpus, Run, TextSet
from llm_core.tokenizer import END_OF_TEXT, Tokenizer
from llm_core.train import Evaluate

COMMAND = "python -m llm_core"
N_TEST_STORIES = 200
LOOP_TOKENS = 1 << 14  # of the validation text while training; up to 2**18 of it at the end
SAMPLE_TOKENS = 120
CHAT_TOKENS = 64  # of a continuation
PROMPT_CHARS = 40


# --- what is printed ------------------------------------------------------------------------------


def _say_text(corpus: Corpus) -> None:
    if corpus.source == "stories":
        print(f"text: {corpus.n_documents:,} stories; those of another split are for validation")
        return
    kept = "its last tenth is for validation"
    if corpus.n_documents > 1:
        kept = f"{corpus.n_validation:,} of them for validation"
    documents = "document" if corpus.n_documents == 1 else "documents"
    print(f"text: {corpus.n_bytes:,} bytes in {corpus.n_documents:,} {documents}, {kept}")


def _say_tokenizer(tokenizer: Tokenizer, corpus: Corpus) -> None:
    text = "".join(islice(corpus.documents(validation=True), 50))[:20_000]
    rate = len(text.encode("utf-8", "replace")) / max(1, len(tokenizer.encode(text)))
    print(f"tokenizer: {tokenizer.vocab_size:,} entries, {rate:.2f} bytes a token")


def _say_plan(run: Run, n_tokens: int) -> None:
    model, config = run.model, run.train
    print(
        f"model: {sum(parameter_table(model).values()):,} parameters, {model.n_layer} layers of "
        f"width {model.d_model} with {model.n_head} heads, context {model.context_length}"
    )
    a_step = config.n_accumulate * run.batch_size * model.context_length
    print(
        f"training: {config.n_steps:,} steps of {a_step:,} tokens, "
        f"{config.n_steps * a_step / n_tokens:.1f} times the text, which has {n_tokens:,}"
    )


def _say_quality(model: GPT, test: TextSet) -> None:
    found = test.metrics(model)
    print(
        f"loss {found['loss']:.4f} nats a token, perplexity {found['perplexity']:.2f}, "
        f"{found['bits_per_byte']:.4f} bits a byte, on {test.n_tokens:,} tokens"
    )


def _say_continued(
    model: GPT,
    tokenizer: Tokenizer,
    prompt: str,
    seed: int,
    max_new_tokens: int = SAMPLE_TOKENS,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
) -> None:
    """The prompt, as the beginning of a document, and what the model makes of it as it comes."""
    end = tokenizer.special_tokens[END_OF_TEXT]
    ids = stream(
        model,
        [end, *tokenizer.encode(prompt)],
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        stop=[end],
        seed=seed,
        slide=True,
    )
    print(prompt, end="", flush=True)
    for piece in tokenizer.decode_stream(new for new in ids if new != end):
        print(piece, end="", flush=True)
    print()


# --- tokenize -------------------------------------------------------------------------------------


def _out_folder(chosen: argparse.Namespace) -> Path:
    return Path("runs") / runs.folder_name(chosen.data)


def tokenize(chosen: argparse.Namespace) -> int:
    """Learn a tokenizer and save it. Raises ValueError where a model needs the one in its place."""
    path = Path(chosen.out or _out_folder(chosen) / runs.TOKENIZER)
    if path.name == runs.TOKENIZER and checkpoint.steps(path.parent):
        raise ValueError(
            f"{path} belongs to the model in {path.parent}; choose another file with --out"
        )
    corpus = runs.measure(chosen.data, chosen.n_documents)
    _say_text(corpus)
    tokenizer = runs.learn_tokenizer(corpus, chosen.vocab_size)
    _say_tokenizer(tokenizer, corpus)
    ids = tokenizer.encode(next(corpus.documents(validation=True))[:60])
    print("for example: " + "|".join(tokenizer.decode([i]) for i in ids).replace("\n", "\\n"))
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(path)
    print(f"saved: {path}")
    return 0


# --- train ----------------------------------------------------------------------------------------


def _tokenizer_for(chosen: argparse.Namespace, corpus: Corpus) -> Tokenizer:
    vocab_size = vars(chosen).get("vocab_size")
    if chosen.tokenizer is None:
        return runs.learn_tokenizer(corpus, vocab_size)
    tokenizer = Tokenizer.load(chosen.tokenizer)
    if vocab_size not in (None, tokenizer.vocab_size):
        raise ValueError(
            f"--vocab-size {vocab_size}: {chosen.tokenizer} has {tokenizer.vocab_size} entries; "
            "leave out one of the two"
        )
    return tokenizer


def _new_run(chosen: argparse.Namespace, folder: Path) -> Run:
    """Lay out the folder of a new run. Raises ValueError where one has been trained already."""
    if done := checkpoint.steps(folder):
        raise ValueError(
            f"{folder} holds a run up to step {max(done)}; go on with it by --resume, or choose "
            "another folder with --out"
        )
    corpus = runs.measure(chosen.data, chosen.n_documents)
    _say_text(corpus)
    runs.plan(corpus, corpus.n_bytes, 1024, vars(chosen))  # what cannot work is refused before work
    tokenizer = _tokenizer_for(chosen, corpus)
    _say_tokenizer(tokenizer, corpus)
    data = runs.write_shards(folder, corpus, tokenizer)
    run = runs.plan(corpus, data.n_tokens, tokenizer.vocab_size, vars(chosen))
    run.save(folder)
    _say_plan(run, data.n_tokens)
    return run


def _old_run(chosen: argparse.Namespace, folder: Path) -> Run:
    """The run to go on with. Raises ValueError for flags that would make it another one."""
    run = Run.load(folder)
    asked = run.changed(vars(chosen))
    unused = [name for name in ("preset", "tokenizer", "n_documents") if vars(chosen).get(name)]
    if unused or dataclasses.replace(asked, train=run.train) != run:
        raise ValueError(
            f"--resume goes on with the model, batches and seed of {folder}; leave out the flags "
            "that change them, or start another run with another --out"
        )
    done = max(checkpoint.steps(folder), default=0)
    print(f"going on with {folder} after step {done:,} of {asked.train.n_steps:,}")
    return asked


def _evaluation(run: Run, tokenizer: Tokenizer, folder: Path) -> Evaluate:
    if run.source == "stories":
        return story_set(tokenizer, N_TEST_STORIES // 2, run.model.context_length).metrics
    ids = runs.validation_ids(folder, LOOP_TOKENS)
    return runs.text_set(ids, tokenizer, run.model.context_length).metrics


def _first_words(folder: Path, tokenizer: Tokenizer) -> str:
    """What the validation part of a single document begins with; of several, nothing."""
    if shards.load(runs.data_path(folder)).n_documents > 1:
        return ""
    text = tokenizer.decode(runs.validation_ids(folder, PROMPT_CHARS)).strip()
    return text.split("\n")[0][:PROMPT_CHARS].rpartition(" ")[0]


def train(chosen: argparse.Namespace) -> int:
    """From a text to a model that has been tested and speaks; or go on with a run."""
    if chosen.data is None and not (chosen.resume and chosen.out):
        raise ValueError("say what to train on: --data TEXT (or --resume with --out FOLDER)")
    folder = Path(chosen.out or _out_folder(chosen))
    run = _old_run(chosen, folder) if chosen.resume else _new_run(chosen, folder)
    tokenizer = Tokenizer.load(folder / runs.TOKENIZER)
    runtime.set_seed(run.seed)
    length, data = run.model.context_length, runs.data_path(folder)
    model = GPT(run.model, run.init).to(runtime.device())
    history = training.train(
        model,
        dataset.batches(data, run.batch_size, length, seed=run.seed, tokenizer=tokenizer),
        run.train,
        evaluate=_evaluation(run, tokenizer, folder),
        folder=folder,
        resume=True,
        tokenizer_hash=tokenizer.hash,
        log_dir=chosen.log_dir,
    )
    place = shlex.quote(str(folder))
    if history.stopped is not None:
        print(f"stopped ({history.stopped}) and saved after step {history.n_steps}; go on with")
        print(f"    {COMMAND} train --resume --out {place}")
        return 0
    _say_result(run, model.float(), tokenizer, folder)
    print(f"\ngo on with\n    {COMMAND} sample {place} --prompt {shlex.quote('It was')}")
    for name in ("chat", "evaluate"):
        print(f"    {COMMAND} {name} {place}")
    return 0


def _say_result(run: Run, model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """How good the model is on what it has not seen, and a sample."""
    length = run.model.context_length
    _say_quality(model, runs.text_set(runs.validation_ids(folder), tokenizer, length))
    if run.source == "stories":
        print(gap(model, story_set(tokenizer, N_TEST_STORIES, length)))
    print("a sample:\n")
    _say_continued(model, tokenizer, _first_words(folder, tokenizer), run.seed)


# --- sample, chat, evaluate -----------------------------------------------------------------------


def _load(folder: str) -> tuple[GPT, Tokenizer]:
    model, tokenizer = runs.load(folder)
    return model.to(runtime.device()), tokenizer


def _seed(chosen: argparse.Namespace) -> int:
    return secrets.randbits(31) if chosen.seed is None else int(chosen.seed)


def _sampling(chosen: argparse.Namespace) -> dict[str, Any]:
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "min_p")
    return {name: getattr(chosen, name) for name in names}


def sample(chosen: argparse.Namespace) -> int:
    """Print continuations of a prompt as they are made."""
    model, tokenizer = _load(chosen.run_folder)
    seed = _seed(chosen)
    for number in range(chosen.n):
        if chosen.n > 1:
            print(f"--- {number + 1} of {chosen.n}, seed {seed + number}")
        _say_continued(model, tokenizer, chosen.prompt, seed + number, **_sampling(chosen))
    return 0


def _continue_lines(model: GPT, tokenizer: Tokenizer, seed: int, sampling: Any) -> None:
    """Continue each line that is typed, as the beginning of a text of its own."""
    print("Begin a text and press Enter, the model goes on with it; Ctrl-D ends.")
    while (line := dialog.typed()) is not None:
        if not line:
            continue
        try:
            _say_continued(model, tokenizer, line, seed, **sampling)
        except KeyboardInterrupt:
            print(" ... stopped")
        seed += 1


def chat(chosen: argparse.Namespace) -> int:
    """Talk to a model that was tuned on conversations; let any other go on with what is typed."""
    model, tokenizer = _load(chosen.run_folder)
    typed = {name: value for name, value in _sampling(chosen).items() if value is not None}
    dialog.edit_lines()
    if is_chat_tokenizer(tokenizer):
        dialog.hold(dialog.Dialog(model, tokenizer, _seed(chosen), **typed))
    else:
        _continue_lines(model, tokenizer, _seed(chosen), {"max_new_tokens": CHAT_TOKENS, **typed})
    return 0


def _home(folder: Path) -> Path:
    """The folder of a run, given it or a checkpoint of it, which may be a milestone."""
    for home in (folder, folder.parent, folder.parent.parent):
        if (home / runs.RECORD).is_file():
            return home
    raise ValueError(f"{folder} has no validation text of its own; say on what with --data TEXT")


def _evaluate_stories(model: GPT, tokenizer: Tokenizer, n_told: int, seed: int) -> None:
    """The gap to the floor, then stories that the model tells, and where some of them go wrong."""
    test = story_set(tokenizer, N_TEST_STORIES, model.config.context_length)
    end = tokenizer.special_tokens[END_OF_TEXT]  # a story that is cut does not end with it
    n_bytes = sum(len(tokenizer.decode_bytes(i for i in ids if i != end)) for ids in test.ids)
    _say_quality(model, TextSet(test.ids, n_bytes))
    report = story_report(model, tokenizer, test, n_told, seed=seed)
    print(report)
    for told in report.examples:
        at = told.first_impossible or 0
        print(f"    ... {told.text[max(0, at - 50) : at]}[{told.text[at : at + 20]}] ...")


def evaluate(chosen: argparse.Namespace) -> int:
    """Hold a model against its validation text or any other; stories against the world, too."""
    model, tokenizer = _load(chosen.run_folder)
    home = _home(Path(chosen.run_folder)) if chosen.data is None else None
    source = runs.corpus_name(chosen.data) if home is None else Run.load(home).source
    if source == "stories":
        _evaluate_stories(model, tokenizer, chosen.n_told, chosen.seed or 0)
        return 0
    ids = runs.ids_of(source, tokenizer) if home is None else runs.validation_ids(home)
    _say_quality(model, runs.text_set(ids, tokenizer, model.config.context_length))
    return 0
