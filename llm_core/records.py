"""The user's own files: conversations to learn from, texts with labels; what is wrong is named.

``conversations`` reads instructions as Alpaca has them, ShareGPT's turns and lists of messages, as
one JSON array or one object a line; ``labeled`` reads texts with their classes from csv, tsv and
jsonl; ``sms`` fetches the SMS Spam Collection. A record that cannot be used is an error with file,
line and field, or with ``skip_bad`` a message in ``Read.bad``. Chapter 6 reads labels with it,
chapter 7 conversations.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from llm_core import catalog

T = TypeVar("T")
StrPath = str | os.PathLike[str]
Conversation = list[dict[str, str]]

REMEDY = "mend or remove the record, or pass over such records with skip_bad (--skip-bad)"
COLUMNS_REMEDY = (
    "say which column is which with text= and label= (--text, --label), and with columns= "
    "(--columns) what the columns are where the first row is no header"
)
SPACE = re.compile(r"[ \t\r\n]*")
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of a byte
HALF = re.compile("[\ud800-\udfff]")
# How each format calls a message's speaker and words, and who the speakers are.
SPEAKERS = {
    "messages": ("role", "content", {"user": "user", "assistant": "assistant", "system": "system"}),
    "conversations": ("from", "value", {"human": "user", "gpt": "assistant", "system": "system"}),
}


class RecordError(ValueError):
    """A record that cannot be used: ``path``, ``line`` (from 1), ``field`` or None, ``problem``."""

    def __init__(
        self, path: StrPath, line: int, field: str | None, problem: str, remedy: str = REMEDY
    ) -> None:
        self.path, self.line, self.field, self.problem = path, line, field, problem
        self.where = f"{path}:{line}: " + ("record" if field is None else f"field {field!r}")
        super().__init__(f"{self.where} {problem}; {remedy}")


@dataclass(frozen=True)
class Read(Generic[T]):
    """What a file held, and one message for each record that was passed over, in file order."""

    items: list[T]
    bad: list[str]


class Labeled(NamedTuple):
    """A text and its class."""

    text: str
    label: str


class _Malformed(Exception):
    """What is wrong with a record, ``n_lines`` below its first line."""

    def __init__(self, field: str | None, problem: str, n_lines: int = 0) -> None:
        super().__init__(problem)
        self.field, self.problem, self.n_lines = field, problem, n_lines


Found = tuple[int, Any]  # the line on which a record begins; the record, or a _Malformed


def _collected(
    path: StrPath, found: Iterable[Found], make: Callable[[Any], T], skip_bad: bool
) -> Read[T]:
    """All records as ``make`` makes them; the first bad one raises unless they are passed over."""
    items: list[T] = []
    bad: list[str] = []
    for line, record in found:
        try:
            if isinstance(record, _Malformed):
                raise record
            items.append(make(record))
        except _Malformed as wrong:
            error = RecordError(path, line + wrong.n_lines, wrong.field, wrong.problem)
            if not skip_bad:
                raise error from None
            bad.append(f"{error.where} {error.problem}")
    if not items:
        why = f"; of {len(bad)} the first: {bad[0]}" if bad else ""
        problem = f"is missing, the file holds none that can be used{why}"
        raise RecordError(path, 1, None, problem, "give a file with at least one good record")
    return Read(items, bad)


# --- from bytes to records ------------------------------------------------------------------------


def _text(path: StrPath) -> str:
    """The file's text, in which bytes that are not UTF-8 are half surrogate pairs."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; give a .json, .jsonl, .csv or .tsv file")
    return Path(path).read_bytes().decode("utf-8-sig", "surrogateescape")


def _utf8(raw: str, value: Any) -> Any:
    """The value that was made from ``raw``, or that ``raw`` has a byte which is not UTF-8."""
    if (wrong := NOT_UTF8.search(raw)) is None:
        return value
    problem = f"has the byte 0x{ord(wrong[0]) - 0xDC00:02x}, which is not UTF-8; save it as UTF-8"
    return _Malformed(None, problem, raw.count("\n", 0, wrong.start()))


def _skip(text: str, at: int) -> int:
    """The first position from there on that is no blank of JSON."""
    blank = SPACE.match(text, at)
    assert blank is not None  # it matches nothing, too
    return blank.end()


def _decoded(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins there and its end; a _Malformed and -1, or -2 for its depth."""
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as error:
        n_lines = text.count("\n", start, error.pos)
        return _Malformed(None, f"is not JSON ({error.msg}: column {error.colno})", n_lines), -1
    except RecursionError:
        return _Malformed(None, "is nested too deep; a record is flat"), -2
    except ValueError:
        return _Malformed(None, "has a number with more digits than Python reads"), -1
    return _utf8(text[start:end], value), end


def _of_line(line: str) -> Any:
    """The record on a line of its own, or what is wrong with it."""
    value, end = _decoded(line, _skip(line, 0))
    if end >= 0 and line[end:].strip():
        value = _Malformed(None, f"is not JSON (more follows its end: column {end + 1})")
    return _utf8(line, value)


def _lines(text: str) -> Iterator[Found]:
    """One record a line, which only ``\\n`` ends: a text may hold the other line ends there are."""
    return ((n, _of_line(line)) for n, line in enumerate(text.split("\n"), 1) if line.strip())


def _element(text: str, at: int) -> tuple[Any, int]:
    """As ``_decoded``, up to the comma or the ] that has to follow."""
    value, end = _decoded(text, at)
    stop = _skip(text, end) if end >= 0 else end
    if end >= 0 and text[stop : stop + 1] not in (",", "]"):
        problem = "is followed by neither a comma nor the ] that ends the array"
        return _Malformed(None, problem, text.count("\n", at, end)), -1
    return value, stop


def _array(text: str, start: int) -> Iterator[Found]:
    """The records of an array that begins at ``start``.

    Where one is not JSON, the next is looked for on a line that begins like the first one's.
    """
    at = _skip(text, start + 1)
    margin = text[text.rfind("\n", 0, at) + 1 : at]
    beginning = re.compile("\n" + re.escape(margin) + r"(?=\{)")
    line, stop = 1 + text.count("\n", 0, at), at
    while text[stop : stop + 1] != "]":
        record, stop = _element(text, at)
        after = _skip(text, stop + 1) if stop >= 0 else -1
        if stop == -1 and not margin.strip() and (following := beginning.search(text, at)):
            stop = after = following.end()
        if stop < 0:
            record.problem += ", and nothing after it can be read"
        yield line, record
        if stop < 0:
            return
        line, at = line + text.count("\n", at, after), after
        if at == stop > 1 << 16:  # the errors of json count lines from the start of their text
            text, stop, at = text[at - len(margin) :], len(margin), len(margin)
    if text[stop + 1 :].strip():
        yield line, _Malformed(None, "is none: it stands behind the end of the array")


def _records(text: str) -> Iterator[Found]:
    """The records of a JSON array, of JSON lines, or of a file that is one object."""
    start = _skip(text, 0)
    if text[start : start + 1] == "[":
        return _array(text, start)
    whole, end = _decoded(text, start)
    if end < 0 or text[end:].strip() or "\n" not in text[start:end]:
        return _lines(text)
    return iter([(1 + text.count("\n", 0, start), whole)])


# --- fields ---------------------------------------------------------------------------------------


def _kind(value: Any) -> str:
    """What json calls a value."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    kinds: dict[type, str] = {dict: "an object", list: "an array", str: "a text"}
    return kinds.get(type(value), "a number")


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _object(value: Any, where: str | None = None) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Malformed(where, f"is {_kind(value)}; it has to be an object with named fields")
    return value


def _field(record: dict[str, Any], name: str, prefix: str = "", empty: bool = False) -> str:
    """A text that says something, or nothing where it may be ``empty``."""
    value, where = record.get(name), prefix + name
    if name not in record:
        raise _Malformed(where, f"is missing; the record has {_names(record)}")
    if not isinstance(value, str):
        raise _Malformed(where, f"is {_kind(value)}; it has to be a text")
    if not value.strip() and not empty:
        raise _Malformed(where, "is empty; it has to say something")
    if half := HALF.search(value):
        raise _Malformed(
            where, f"has half a character, \\u{ord(half[0]):x}, without its other half"
        )
    return value


# --- conversations --------------------------------------------------------------------------------


def _instruction(record: dict[str, Any]) -> Conversation:
    """Alpaca's: instruction, perhaps an input, output."""
    asked = _field(record, "instruction")
    if record.get("input") is not None and _field(record, "input", empty=True).strip():
        asked = f"{asked}\n\n{record['input']}"
    answer = _field(record, "output")
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _message(value: Any, form: str, number: int) -> dict[str, str]:
    by, words, roles = SPEAKERS[form]
    where = f"{form}[{number}]"
    message = _object(value, where)
    speaker = _field(message, by, f"{where}.")
    if speaker not in roles:
        raise _Malformed(f"{where}.{by}", f"is {speaker!r}; it has to be one of {', '.join(roles)}")
    role = roles[speaker]
    return {"role": role, "content": _field(message, words, f"{where}.", empty=role == "system")}


def _turns(record: dict[str, Any], form: str) -> Conversation:
    """The messages of a conversation, which begins with the user's and has one to learn from."""
    if not isinstance(record[form], list):
        raise _Malformed(form, f"is {_kind(record[form])}; it has to be an array of messages")
    messages = [_message(value, form, number) for number, value in enumerate(record[form])]
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise _Malformed(form, "has no message of the assistant; without one nothing is learned")
    if "system" in roles[1:]:
        number = roles.index("system", 1)
        raise _Malformed(f"{form}[{number}]", "is a system's message; it has to be the first")
    start = int(roles[0] == "system")
    if roles[start] != "user":
        raise _Malformed(f"{form}[{start}]", "is the assistant's; the user has to begin")
    return messages[start if start and not messages[0]["content"].strip() else 0 :]


def _conversation(value: Any) -> Conversation:
    record = _object(value)
    for form in SPEAKERS:
        if form in record:
            return _turns(record, form)
    if "instruction" in record or "output" in record:
        return _instruction(record)
    has, needs = _names(record), "instruction and output, or messages, or conversations"
    raise _Malformed(None, f"has the fields {has}; it needs {needs}")


def conversations(path: StrPath, skip_bad: bool = False) -> Read[Conversation]:
    """The conversations of a JSON array or of JSON lines, in UTF-8; each record may have its form.

    Alpaca's ``instruction``, ``input`` (absent, null or empty: none) and ``output`` become two
    messages, with a blank line before the input; ShareGPT's ``conversations`` (``from`` human, gpt
    or system; ``value``) and ``messages`` (``role`` user, assistant or system; ``content``) stay as
    they are, but for an empty system's message, which goes. A conversation begins with the user,
    after at most one system's message, and has an answer; several messages of one side in a row are
    several. Raises RecordError for the first record that breaks a rule, unless ``skip_bad``, and
    for a file without any good one; FileNotFoundError.
    """
    return _collected(path, _records(_text(path)), _conversation, skip_bad)


# --- texts with labels ----------------------------------------------------------------------------


def _rows(text: str, delimiter: str) -> Iterator[Found]:
    """The rows of a table; csv has quotes, which may hold line ends, and tsv has none."""
    lines = io.StringIO(text, newline="")
    quoting: Any = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"is no row ({error}); is a quote open or not doubled? Long texts want jsonl"
            yield line, _Malformed(None, problem)
        else:
            if len(row) > 1 or "".join(row).strip():
                yield line, _utf8("".join(row), row)


def _label(record: dict[str, Any], name: str) -> str:
    """A class; jsonl may have it as a whole number or a truth value."""
    if isinstance(record.get(name), int):
        return json.dumps(record[name])
    return _field(record, name).strip()


def _delimiter(path: StrPath, content: str) -> str:
    by_name = {".csv": ",", ".tsv": "\t"}.get(Path(path).suffix.lower())
    return by_name or ("\t" if "\t" in content.partition("\n")[0] else ",")


def _named(names: Sequence[str], row: Sequence[str]) -> dict[str, str] | _Malformed:
    """A row as an object, or what is wrong with it."""
    n, n_names = len(row), len(names)
    if n < n_names:
        return _Malformed(names[n], f"is missing; the row has {n} of {n_names} columns")
    if n > n_names:
        problem = f"has {n} columns, not {n_names}; in csv, quote commas; in tsv, use no tab"
        return _Malformed(None, problem)
    return dict(zip(names, row, strict=True))


def _table(
    path: StrPath, content: str, wanted: Sequence[str], columns: Sequence[str] | None
) -> Iterator[Found]:
    """The rows as objects of the named columns; raises RecordError where one is not there."""
    rows = _rows(content, _delimiter(path, content))
    line, names = (1, list(columns)) if columns is not None else next(rows, (1, []))
    if isinstance(names, _Malformed):
        raise RecordError(path, line + names.n_lines, names.field, names.problem)
    names = [name.strip() for name in names]
    if missing := [name for name in wanted if name not in names]:
        problem = f"is no column; there are {_names(names)}"
        raise RecordError(path, line, missing[0], problem, COLUMNS_REMEDY)
    for line, row in rows:
        yield line, row if isinstance(row, _Malformed) else _named(names, row)


def labeled(
    path: StrPath,
    text: str = "text",
    label: str = "label",
    skip_bad: bool = False,
    columns: Sequence[str] | None = None,
) -> Read[Labeled]:
    """Texts and their classes from the columns, or fields, ``text`` and ``label`` of a UTF-8 file.

    By its name or else its content, the file is csv (quotes as in Python's ``csv``, strictly), tsv
    (no quotes: a line is a row) or JSON, an object a line or an array of them. The first row of a
    table is its header, unless ``columns`` names what the rows hold, as ("label", "text") for the
    SMS collection. Blanks around a label go. Raises RecordError for the first record that breaks a
    rule, unless ``skip_bad``, for a column that is not there and for a file without any good
    record; FileNotFoundError.
    """
    content = _text(path)

    def make(value: Any) -> Labeled:
        record = _object(value)
        return Labeled(_field(record, text), _label(record, label))

    is_table = Path(path).suffix.lower() in (".csv", ".tsv")
    if is_table or not content.lstrip().startswith(("{", "[")):
        return _collected(path, _table(path, content, (text, label), columns), make, skip_bad)
    return _collected(path, _records(content), make, skip_bad)


def sms() -> list[Labeled]:
    """The SMS Spam Collection: 5,574 messages labeled ham or spam (Almeida et al., 2011).

    Fetched once (200 kB), checked by sha256, then read from the cache folder. Raises OfflineError
    where it is absent and there is no network; the message says what to run where there is one.
    """
    (path,) = catalog.fetch("sms-spam")
    return [Labeled(text, label) for label, text in catalog.read_sms_labels(path)]
