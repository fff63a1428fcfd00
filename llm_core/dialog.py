"""A conversation at the terminal: lines go in, answers stream out, and Ctrl-C ends an answer.

``Dialog`` holds what was said and does what a line asks for; ``hold`` reads the lines. The model
answers by ``chat.stream``, so that what is typed cannot become a control token. It is what
``python -m llm_core chat`` runs, which chapter 7 shows.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llm_core import chat, generate, runtime
from llm_core.chat import USER, Message
from llm_core.model import GPT
from llm_core.tokenizer import Tokenizer

HELP = """\
/reset       forget all that was said
/save FILE   write the conversation as json; `tune` learns from a file of two and more
/help        these lines
/quit        end, as Ctrl-D does
A line that ends with \\ goes on in the next. Ctrl-C stops an answer; where you type, it ends."""


def typed(prompt: str = "> ") -> str | None:
    """A message: a line, and those after it as long as they end with a backslash.

    None after Ctrl-D or Ctrl-C: whoever types wants to leave.
    """
    lines: list[str] = []
    while not lines or lines[-1].endswith("\\"):
        try:
            line = input(prompt)
        except (EOFError, KeyboardInterrupt):
            print()
            return None
        if lines:
            lines[-1] = lines[-1][:-1]
        lines.append(line)
        prompt = "  "
    return "\n".join(lines)


def edit_lines() -> None:
    """Let the arrow keys work where somebody types, if the system has readline."""
    if sys.stdin.isatty() and importlib.util.find_spec("readline") is not None:
        importlib.import_module("readline")  # input() uses it once it is there


def save(path: Path, messages: Sequence[Message]) -> None:
    """Write a conversation as json, whole or not at all; ``records.conversations`` reads it."""
    with runtime.atomic_write(path, "w") as file:
        json.dump({"messages": list(messages)}, file, indent=1, ensure_ascii=False)
        file.write("\n")


class Dialog:
    """A conversation and the model that answers; ``sampling`` is what ``chat.stream`` takes.

    ``messages`` keeps all that was said. What no longer fits the context is not sent to the model,
    the oldest exchange first, and a line says so. An answer has at most ``max_new_tokens``, a
    quarter of the context where that is None, and half of it in any case. Answers follow from the
    seed, which grows by 1 with each. Raises ValueError for sampling that ``generate`` refuses.
    """

    def __init__(
        self,
        model: GPT,
        tokenizer: Tokenizer,
        seed: int,
        max_new_tokens: int | None = None,
        **sampling: Any,
    ) -> None:
        self.model, self.tokenizer, self.seed, self.sampling = model, tokenizer, seed, sampling
        self.context_length = model.config.context_length
        asked_for = self.context_length // 4 if max_new_tokens is None else max_new_tokens
        self.max_new_tokens = min(asked_for, self.context_length // 2)
        generate.stream(model, [0], self.max_new_tokens, **sampling)  # refuses before anybody types
        self.messages: list[Message] = []
        self.n_forgotten = 0  # exchanges that the model no longer sees

    def say(self, text: str) -> None:
        """Print the answer to a message as it is made, and keep both.

        An answer that Ctrl-C stops is kept as far as it came; without any, the message goes, too.
        Raises ValueError for a message that is too long for the context; it is not kept.
        """
        asked: list[Message] = [*self.messages, {"role": "user", "content": text}]
        pieces: list[str] = []
        try:
            for piece in chat.stream(
                self.model,
                self.tokenizer,
                self._seen(asked),
                self.max_new_tokens,
                seed=self.seed,
                **self.sampling,
            ):
                pieces.append(piece)
                print(piece, end="", flush=True)
            print()
        except KeyboardInterrupt:
            print(" ... stopped")
        self.seed += 1
        if pieces:
            self.messages = [*asked, {"role": "assistant", "content": "".join(pieces)}]

    def _seen(self, asked: list[Message]) -> list[Message]:
        """What fits the context beside an answer; says so where more is left out than before."""
        room = self.context_length - self.max_new_tokens
        ids = chat.render_for_completion(asked, self.tokenizer, room)
        n_users = sum(message["role"] == "user" for message in asked)
        n = n_users - ids.count(self.tokenizer.special_tokens[USER])
        if n > self.n_forgotten:
            oldest = "oldest exchange is" if n == 1 else f"{n} oldest exchanges are"
            print(f"(The {oldest} left out: the model sees {self.context_length} tokens.)")
        self.n_forgotten = n
        return chat.without_oldest(asked, n)

    def command(self, line: str) -> bool:
        """Do what a line that begins with / asks for; whether to go on."""
        name, _, rest = line[1:].partition(" ")
        if name == "quit":
            return False
        if name == "reset":
            self.messages, self.n_forgotten = [], 0
            print("(All is forgotten.)")
        elif name == "save":
            self._save(rest.strip())
        elif name == "help":
            print(HELP)
        else:
            print(f"(There is no /{name}; /help lists what there is.)")
        return True

    def _save(self, name: str) -> None:
        if not name:
            print("(Say where: /save FILE)")
        elif not self.messages:
            print("(Nothing has been said yet.)")
        else:
            save(Path(name).expanduser(), self.messages)
            print(f"({len(self.messages)} messages are in {name}.)")


def hold(dialog: Dialog) -> None:
    """Read messages and answer them until /quit, Ctrl-D or Ctrl-C; what fails is told in a line."""
    print("Type a message; /help lists the commands, Ctrl-D ends.")
    goes_on = True
    while goes_on and (text := typed()) is not None:
        try:
            if text.startswith("/"):
                goes_on = dialog.command(text)
            elif text.strip():
                dialog.say(text)
        except (ValueError, OSError) as error:
            print(f"({error})")
