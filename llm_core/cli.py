"""The library from the command line: a text goes in, a model that continues it comes out.

    python -m llm_core train --data mybook.txt       # tokenizer, model, validation, a sample
    python -m llm_core sample runs/mybook --prompt "It was"
    python -m llm_core evaluate runs/mybook
    python -m llm_core chat runs/mybook
    python -m llm_core tune runs/mybook --data pairs.json      # teach it to answer
    python -m llm_core classify reviews.csv --model runs/mybook
    python -m llm_core tokenize --data mybook.txt    # the tokenizer alone

The status is 0; 1 for what is refused, when one line on stderr says why and what to do; 130 where
Ctrl-C found nothing to save. ``commands`` and ``tuning`` do the work, ``flags`` makes the flags;
chapters 5 and 7 show `train`, `tune` and `chat` on a text of the reader's own.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, get_args

import llm_core
from llm_core import commands, flags, recipes, runs, tuning
from llm_core.config import PRESETS, preset
from llm_core.model import Init
from llm_core.train import DivergedError

TEXT = """\
TEXT is a name (stories, docs, tiny-shakespeare ...; `python -m llm_core.corpora list`) or yours:
a file, a folder of .txt, .jsonl and .parquet files, or a pattern in quotes, 'books/*.txt'. A .txt
file is one document; so is a line of a .jsonl file, {"text": "..."}, and a row of the column text
of a .parquet file, which takes pyarrow to read."""
CONVERSATIONS = """\
FILE is a JSON array or has a JSON object a line, in UTF-8. A record is {"instruction": "...",
"input": "...", "output": "..."}, the input being optional, {"messages": [{"role": "user",
"content": "..."}, ...]} or ShareGPT's {"conversations": [{"from": "human", "value": "..."}, ...]}.
A record that cannot be used is named by file, line and field."""
LABELLED = """\
FILE is .csv, .tsv or .jsonl, in UTF-8, with a text and a label in each row. A row that cannot be
used is named by file, line and field."""
RUN = """\
RUN is the folder of a run, one of its checkpoints, or a folder as Hugging Face has them, with
config.json and safetensors (GPT-2, with vocab.json and merges.txt)."""
EXAMPLES = {
    "tokenize": """\
    {0} tokenize --data mybook.txt --vocab-size 1000
    {0} train --data mybook.txt --tokenizer runs/mybook/tokenizer.json""",
    "train": """\
    {0} train --data mybook.txt
    {0} train --data 'books/*.txt' --out runs/books --n-layer 6 --n-steps 5000
    {0} train --data stories --preset story-1m --norm-kind rmsnorm --seed 1
    {0} train --resume --out runs/books""",
    "sample": """\
    {0} sample runs/mybook --prompt "It was" --temperature 0.7 -n 3
    {0} sample runs/mybook --temperature 0 --max-new-tokens 50""",
    "evaluate": """\
    {0} evaluate runs/mybook
    {0} evaluate runs/mybook --data another.txt
    {0} evaluate runs/stories --n-told 500""",
    "chat": """\
    {0} chat runs/mybook --temperature 0.7
    {0} chat runs/pairs""",
    "tune": """\
    {0} tune runs/mybook --data pairs.json
    {0} tune runs/mybook --data pairs.jsonl --skip-bad --lora 8 --out runs/small""",
    "classify": """\
    {0} classify reviews.csv --model runs/mybook --text review --label stars
    {0} classify SMSSpamCollection --columns label text --out runs/spam
    {0} classify --model runs/spam < lines.txt""",
}


USAGE = {
    "tokenize": "tokenize --data TEXT [--vocab-size N] [--out FILE]",
    "train": "train --data TEXT [--out FOLDER] [--resume] [any of the flags below]",
    "sample": "sample RUN [--prompt TEXT] [-n N] [--seed N] [--temperature X] ...",
    "evaluate": "evaluate RUN [--data TEXT]",
    "chat": "chat RUN [--seed N] [--temperature X] ...",
    "tune": "tune RUN --data FILE [--out FOLDER] [any of the flags below]",
    "classify": "classify [FILE] [--model RUN] [--text COLUMN] [--label COLUMN] ...",
}
HELP = {
    "tokenize": "learn a tokenizer from a text",
    "train": "from a text to a model and a sample, or go on with a run",
    "sample": "let a model go on with a prompt",
    "evaluate": "loss, perplexity and bits a byte on text that was not trained on",
    "chat": "talk to a tuned model, or let any go on with what you type",
    "tune": "teach a model to answer, from a file of instructions or conversations",
    "classify": "learn to label texts from a file, or label lines of text",
}
WHAT = {
    "tokenize": """\
Learn a byte-level byte pair encoding (chapter 1), print how many bytes a token has and save it.""",
    "train": """\
Learn a tokenizer, write the text as ids, keep a part of it apart, train a model with checkpoints,
measure it on that part (bits a byte; for stories the gap to the floor) and print a sample. What you
don't ask for follows from the size of the text and is printed. Ctrl-C saves; --resume goes on.""",
    "sample": """\
Print what the model makes of the beginning of a document, token by token (chapter 4).""",
    "evaluate": """\
Print the loss on the validation part of the run's text, or on another text, on the first 262,144
tokens of it. A model of stories is also held against the world: the gap to the floor, and how many
stories it tells are right to the last word.""",
    "chat": """\
Talk to a model that was tuned on conversations: it sees what was said before, oldest exchanges go
first where it becomes too much, and answers appear as they are made. /help lists /reset, /save and
/quit; a line that ends with \\ goes on in the next. A model of plain text goes on with each line,
a beginning of its own. Ctrl-C stops an answer, or where you type the program; Ctrl-D ends.""",
    "tune": """\
Give a model three control tokens that say who speaks, train it on the answers in a file, a tenth of
it kept apart, and print the loss on those answers before and after, and one of the model's
(chapter 7). A model of text and one that was tuned before will both do. Ctrl-C saves; the same
command goes on.""",
    "classify": """\
With a FILE: put a head for its labels on a model, train both on four fifths of the texts, and print
how often the most frequent label is right, and the model, on the fifth kept apart (chapter 6). RUN
is then the model to start from, that of the stories where none is named. Without a FILE: RUN is
what the first way has made, and every line of the standard input is printed after its label and the
probability of that.""",
}


USUAL = {
    "vocab_size": "entries of the vocabulary (512 or more, by the size of the text)",
    "context_length": "tokens seen at once (16 to 256, by the size of the text; stories: 512)",
    "n_steps": "updates of the weights (by the size of the text)",
    "warmup_steps": "steps in which the learning rate rises from 0 (a fiftieth)",
    "evaluate_every": "steps between evaluations; 0: at the end alone (a tenth)",
    "save_every": "steps between checkpoints; 0: at the end alone (a tenth)",
}
TUNING = {
    "n_steps": f"updates of the weights ({tuning.LEAST_STEPS} or more, by the size of the file)",
    "max_lr": f"highest learning rate ({tuning.MAX_LR:g}; with --lora {tuning.LORA_LR:g})",
    "min_lr": "learning rate at the end (a tenth of that)",
    **{name: USUAL[name] for name in ("evaluate_every", "save_every")},
    "warmup_steps": "steps in which the learning rate rises from 0 (a tenth)",
}
RUNS: dict[str, Callable[[argparse.Namespace], int]] = {
    "tokenize": commands.tokenize,
    "train": commands.train,
    "sample": commands.sample,
    "evaluate": commands.evaluate,
    "chat": commands.chat,
    "tune": tuning.tune,
    "classify": tuning.classify,
}
ALL = "\n".join(EXAMPLES[name].split("\n")[0] for name in EXAMPLES).format(commands.COMMAND)


class _Parser(argparse.ArgumentParser):
    """Refuses in one line and with status 1, as the commands do."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"error: {message}; see {self.prog} --help\n")


def _command(commands_: argparse._SubParsersAction[_Parser], name: str, about: str) -> _Parser:
    examples = EXAMPLES[name].format(commands.COMMAND)
    return commands_.add_parser(
        name,
        usage=f"{commands.COMMAND} {USAGE[name]}",
        help=HELP[name],
        description=f"{WHAT[name]}\n\n{about}",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


# --- the flags of each command --------------------------------------------------------------------


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least 1")
    return int(text)


def _add_text(parser: _Parser, required: bool = True) -> None:
    parser.add_argument("--data", metavar="TEXT", required=required, help="what to read, see above")
    parser.add_argument(
        "--n-documents", type=_count, metavar="N", help="read no more (of stories: tell so many)"
    )


def _add_run(parser: _Parser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="the folder to load, see above")


def _add_seed(parser: _Parser, text: str) -> None:
    parser.add_argument("--seed", type=int, metavar="N", help=text)


def _add_sampling(
    parser: _Parser, defaults: tuple[float, int] | tuple[None, None], usual: tuple[str, str]
) -> None:
    """``usual`` says what the temperature and the greatest number of tokens are by default."""
    group = parser.add_argument_group("sampling, in the order in which it is applied")
    add = group.add_argument
    add(
        "--temperature",
        type=float,
        default=defaults[0],
        metavar="X",
        help=f"below 1 likely tokens get likelier, 0 takes the likeliest ({usual[0]})",
    )
    add("--top-k", type=int, metavar="N", help="keep the N likeliest tokens (all)")
    add("--top-p", type=float, metavar="X", help="keep the likeliest with X together (all)")
    add("--min-p", type=float, metavar="X", help="keep those X times as likely as the first (all)")
    add(
        "--max-new-tokens",
        type=int,
        default=defaults[1],
        metavar="N",
        help=f"stop there, if the text has not ended before ({usual[1]})",
    )
    _add_seed(parser, "the same seed gives the same text (a new one each time)")


def _add_tokenize(parser: _Parser) -> None:
    _add_text(parser)
    parser.add_argument(
        "--vocab-size", type=int, metavar="N", help="entries (512 or more, by the size of the text)"
    )
    parser.add_argument("--out", metavar="FILE", help="where to save (runs/NAME/tokenizer.json)")


def _add_train(parser: _Parser) -> None:
    _add_text(parser, required=False)
    add = parser.add_argument
    add("--out", metavar="FOLDER", help="tokenizer, ids and checkpoints go there (runs/NAME)")
    add("--resume", action="store_true", help="go on from the folder's last checkpoint")
    add("--tokenizer", metavar="FILE", help="use this one and learn none")
    add("--log-dir", metavar="FOLDER", help="write for TensorBoard, which must be installed")
    hidden = argparse.SUPPRESS  # what is not typed leaves no trace, see flags
    add("--seed", type=int, default=hidden, metavar="N", help="of weights and order (0)")
    usual = f"windows of a batch ({recipes.recipe().batch_size})"
    add("--batch-size", type=_count, default=hidden, metavar="N", help=usual)
    group = parser.add_argument_group(
        "the model: a preset, and the fields of GPTConfig (chapter 4)"
    )
    group.add_argument(
        "--preset",
        choices=PRESETS,
        default=hidden,
        help="a known model to start from (story-1m; for stories that of the recipe)",
    )
    group.add_argument(
        "--init",
        choices=get_args(Init),
        default=hidden,
        help="spread of the first weights: 0.02, or 1 / sqrt(inputs) (fan_in)",
    )
    flags.add(group, preset("story-1m"), USUAL)
    group = parser.add_argument_group("the training: the fields of TrainConfig (chapter 5)")
    flags.add(group, runs.usual_training(1000), USUAL)


def _add_tuning(parser: _Parser, rows: str) -> None:
    """What both ways of tuning take beside their files and the fields of their training."""
    add, hidden = parser.add_argument, argparse.SUPPRESS
    add("--out", metavar="FOLDER", help="where the model goes (runs/NAME)")
    add("--skip-bad", action="store_true", help="pass over bad records, and say which")
    text = "leave the matrices, and let parts of rank R learn beside them: LoRA (off)"
    add("--lora", type=_count, default=0, metavar="R", help=text)
    add("--seed", type=int, default=hidden, metavar="N", help="of the order and new weights (0)")
    text = f"{rows} of a step ({tuning.BATCH_SIZE})"
    add("--batch-size", type=_count, default=hidden, metavar="N", help=text)


def _add_tune(parser: _Parser) -> None:
    _add_run(parser)
    parser.add_argument("--data", metavar="FILE", required=True, help="conversations, see above")
    _add_tuning(parser, "rows, conversations packed into each,")
    group = parser.add_argument_group("the training: the fields of TrainConfig (chapter 5)")
    flags.add(group, tuning.usual_tuning(1000), TUNING)


def _add_classify(parser: _Parser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", nargs="?", help="texts with labels to learn from, see above")
    add("--model", metavar="RUN", help="the folder to load, see above")
    add("--text", default="text", metavar="COLUMN", help="the column of the texts (text)")
    add("--label", default="label", metavar="COLUMN", help="the column of the labels (label)")
    text = "what the columns are called, where the first row does not say so"
    add("--columns", nargs="+", metavar="NAME", help=text)
    _add_tuning(parser, "texts")
    group = parser.add_argument_group("the training: some fields of TrainConfig (chapter 5)")
    flags.add(group, tuning.usual_learning(), TUNING)


# --- the command line -----------------------------------------------------------------------------


def _parser() -> _Parser:
    parser = _Parser(
        prog=commands.COMMAND,
        description="A text goes in, a model that continues it comes out.",
        epilog=f"examples:\n{ALL}\n\nBOOK_PROFILE=gpu computes on a graphics card.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"llm_core {llm_core.__version__}")
    several = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_tokenize(_command(several, "tokenize", TEXT))
    _add_train(_command(several, "train", TEXT))
    sampling = _command(several, "sample", RUN)
    _add_run(sampling)
    sampling.add_argument("--prompt", default="", help="the beginning of the text (nothing)")
    sampling.add_argument("-n", type=_count, default=1, metavar="N", help="how many texts (1)")
    _add_sampling(sampling, (0.8, 256), ("0.8", "256"))
    testing = _command(several, "evaluate", f"{RUN}\n\n{TEXT}")
    _add_run(testing)
    testing.add_argument("--data", metavar="TEXT", help="what to test on (what the run kept apart)")
    testing.add_argument(
        "--n-told", type=_count, default=100, metavar="N", help="stories to let a model tell (100)"
    )
    _add_seed(testing, "of the stories told (0)")
    talking = _command(several, "chat", RUN)
    _add_run(talking)
    usual = ("0.8; an answer 0", f"{commands.CHAT_TOKENS}; an answer a quarter of the context")
    _add_sampling(talking, (None, None), usual)
    _add_tune(_command(several, "tune", f"{RUN}\n\n{CONVERSATIONS}"))
    _add_classify(_command(several, "classify", f"{RUN}\n\n{LABELLED}"))
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m llm_core COMMAND ...``; returns the status, and exits with 1 for a bad flag."""
    try:
        chosen = _parser().parse_args(arguments)
        status: int = RUNS[chosen.command](chosen)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted; nothing more was saved", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read, as `head` does, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError, NotImplementedError, DivergedError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return status
