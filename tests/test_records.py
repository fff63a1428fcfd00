"""The user's own files: every format reads to the same, and what is wrong is named by its line."""

import csv
import hashlib
import io
import json
import re
import threading
import zipfile
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_core import catalog, chat, download, records
from llm_core.records import Labeled, RecordError
from llm_core.tokenizer import Tokenizer

REAL = Path(__file__).parents[2] / "shared" / "data" / "instruction-data.json"
PAIR = {"instruction": "Add.", "input": "1 2", "output": "3"}
READ_PAIR = [
    {"role": "user", "content": "Add.\n\n1 2"},
    {"role": "assistant", "content": "3"},
]
USER, ANSWER = {"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}
SYSTEM = {"role": "system", "content": "Be kind."}
# Everything that text may hold, without the half characters that no UTF-8 has.
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def shared(turns):
    """Messages as ShareGPT writes them."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return {"conversations": [{"from": names[t["role"]], "value": t["content"]} for t in turns]}


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return write


def refused(read, *arguments, **options):
    with pytest.raises(RecordError) as raised:
        read(*arguments, **options)
    return raised.value


# --- conversations ------------------------------------------------------------------------------


FORMS = {
    "an array on one line": lambda rows: json.dumps(rows),
    "an array, pretty": lambda rows: json.dumps(rows, indent=4),
    "an array, a record a line": lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
    "lines": lambda rows: "\n".join(map(json.dumps, rows)),
    "lines, blank ones, Windows": lambda rows: "\r\n\r\n".join(map(json.dumps, rows)) + "\r\n",
    "lines after a byte order mark": lambda rows: "\ufeff" + "\n".join(map(json.dumps, rows)),
    "an array after blanks": lambda rows: "\n \t\n" + json.dumps(rows, indent=1) + "\n\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_layout_reads_to_the_same_conversations(form, write):
    turns = [SYSTEM, USER, ANSWER, USER, ANSWER]
    path = write("a.json", FORMS[form]([PAIR, {"messages": turns}, shared(turns)]))
    assert records.conversations(path) == records.Read([READ_PAIR, turns, turns], [])


def test_a_file_that_is_one_object_is_one_conversation(write):
    path = write("a.json", "\n" + json.dumps({"messages": [USER, ANSWER]}, indent=2))
    assert records.conversations(path).items == [[USER, ANSWER]]


@given(rows=st.lists(st.lists(WORDS, min_size=2, max_size=2), min_size=1, max_size=4))
def test_any_text_comes_back_as_it_was(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    dumped = (
        json.dumps({"instruction": one, "output": two}, ensure_ascii=False) for one, two in rows
    )
    path.write_bytes("\n".join(dumped).encode())
    read = records.conversations(path).items
    assert [[message["content"] for message in turns] for turns in read] == rows


@pytest.mark.parametrize("nothing", [{}, {"input": ""}, {"input": " \n"}, {"input": None}])
def test_without_an_input_the_instruction_stands_alone(nothing, write):
    path = write("a.jsonl", json.dumps({"instruction": "Sing.", "output": "La.", **nothing}))
    assert records.conversations(path).items[0][0]["content"] == "Sing."


def test_messages_of_one_side_in_a_row_stay_and_more_fields_do_not_matter(write):
    turns = [USER, USER, ANSWER, ANSWER, USER]
    path = write("a.jsonl", json.dumps({"id": 7, "messages": [{**one, "at": 1} for one in turns]}))
    assert records.conversations(path).items == [turns]


def test_an_empty_system_message_goes(write):
    turns = [{"role": "system", "content": " "}, USER, ANSWER]
    path = write("a.jsonl", json.dumps(shared(turns)))
    assert records.conversations(path).items == [[USER, ANSWER]]


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real pairs are not in {REAL.parent}")
def test_the_real_pairs_are_all_read_and_hold_what_json_says():
    read = records.conversations(REAL)
    assert read.bad == [] and len(read.items) == 1100
    for one, (user, assistant) in zip(json.loads(REAL.read_bytes()), read.items, strict=True):
        given = "\n\n".join(part for part in (one["instruction"], one["input"]) if part)
        assert user == {"role": "user", "content": given}
        assert assistant == {"role": "assistant", "content": one["output"]}


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real pairs are not in {REAL.parent}")
def test_each_real_pair_that_loses_its_answer_is_named_by_the_line_where_it_begins(write):
    lines = REAL.read_text(encoding="utf-8").split("\n")
    starts = [number for number, line in enumerate(lines, 1) if line == "    {"]
    pairs = json.loads("\n".join(lines))
    for broken in (0, 1, 549, 1099):
        changed = [{**one, "output": ""} if i == broken else one for i, one in enumerate(pairs)]
        path = write("a.json", json.dumps(changed, indent=4, ensure_ascii=False))
        error = refused(records.conversations, path)
        assert (error.line, error.field) == (starts[broken], "output")
    assert len(records.conversations(path, skip_bad=True).items) == 1099


def test_the_template_takes_what_is_read_and_refuses_the_orders_that_are_refused_here(write):
    letters = chat.chat_tokenizer(Tokenizer({i: bytes([i]) for i in range(256)}, []))
    for turns in ([SYSTEM, USER, ANSWER], [USER, ANSWER, ANSWER, USER]):
        (read,) = records.conversations(write("a.jsonl", json.dumps({"messages": turns}))).items
        assert any(chat.render(read, letters).mask)
    for turns in ([ANSWER, USER], [SYSTEM, ANSWER, USER], [USER, SYSTEM, ANSWER]):
        refused(records.conversations, write("a.jsonl", json.dumps({"messages": turns})))
        with pytest.raises(ValueError, match=r"a conversation begins|speaks before all others"):
            chat.render(turns, letters)


# --- conversations that are malformed -----------------------------------------------------------


BAD = {
    "a number": (3, None, "is a number; it has to be an object"),
    "a text": ("Hi.", None, "is a text; it has to be an object"),
    "an array": ([PAIR], None, "is an array; it has to be an object"),
    "null": (None, None, "is null; it has to be an object"),
    "other fields": ({"text": "Hi."}, None, "has the fields 'text'; it needs instruction and"),
    "no fields": ({}, None, "has the fields none"),
    "no instruction": ({"output": "3"}, "instruction", "is missing; the record has 'output'"),
    "no output": ({"instruction": "Add."}, "output", "is missing; the record has 'instruction'"),
    "a number as output": ({**PAIR, "output": 3}, "output", "is a number; it has to be a text"),
    "true as output": ({**PAIR, "output": True}, "output", "is true; it has to be a text"),
    "null as output": ({**PAIR, "output": None}, "output", "is null; it has to be a text"),
    "a list as input": ({**PAIR, "input": ["1"]}, "input", "is an array; it has to be a text"),
    "an object as instruction": ({**PAIR, "instruction": {}}, "instruction", "is an object"),
    "an empty output": ({**PAIR, "output": ""}, "output", "is empty; it has to say something"),
    "a blank output": ({**PAIR, "output": " \n\t"}, "output", "is empty"),
    "an empty instruction": ({**PAIR, "instruction": ""}, "instruction", "is empty"),
    "half a character": ({**PAIR, "output": "\ud83d"}, "output", r"half a character, \ud83d"),
    "messages that are a text": ({"messages": "Hi."}, "messages", "is a text; it has to be an arr"),
    "no messages": ({"messages": []}, "messages", "has no message of the assistant"),
    "no answer": ({"messages": [SYSTEM, USER]}, "messages", "has no message of the assistant"),
    "no answer of gpt": (shared([USER]), "conversations", "has no message of the assistant"),
    "an unknown role": (
        {"messages": [USER, {"role": "bot", "content": "Ho."}]},
        "messages[1].role",
        "is 'bot'; it has to be one of user, assistant, system",
    ),
    "an unknown speaker": (
        {"conversations": [{"from": "user", "value": "Hi."}]},
        "conversations[0].from",
        "is 'user'; it has to be one of human, gpt, system",
    ),
    "a message that is a text": ({"messages": [USER, "Ho."]}, "messages[1]", "is a text"),
    "a message without a role": (
        {"messages": [{"content": "Hi."}]},
        "messages[0].role",
        "is missing; the record has 'content'",
    ),
    "a message without words": (
        {"messages": [USER, {"role": "assistant"}]},
        "messages[1].content",
        "is missing",
    ),
    "an empty answer": (
        {"messages": [USER, {"role": "assistant", "content": ""}]},
        "messages[1].content",
        "is empty",
    ),
    "an empty question": (
        {"conversations": [{"from": "human", "value": " "}, {"from": "gpt", "value": "Ho."}]},
        "conversations[0].value",
        "is empty",
    ),
    "content in parts": (
        {"messages": [USER, {"role": "assistant", "content": [{"type": "text"}]}]},
        "messages[1].content",
        "is an array; it has to be a text",
    ),
    "the assistant first": ({"messages": [ANSWER, USER]}, "messages[0]", "is the assistant's; the"),
    "the assistant after the system": (
        {"messages": [SYSTEM, ANSWER, USER]},
        "messages[1]",
        "is the assistant's; the user has to begin",
    ),
    "the system late": (
        {"messages": [USER, SYSTEM, ANSWER]},
        "messages[1]",
        "is a system's message; it has to be the first",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("form", ["lines", "an array, pretty", "an array on one line"])
def test_a_malformed_record_is_named_by_file_line_and_field(case, form, write):
    wrong, field, problem = BAD[case]
    content = FORMS[form]([PAIR, wrong, PAIR])
    line = {"lines": 2, "an array on one line": 1, "an array, pretty": 7}[form]
    path = write("a.json", content)
    error = refused(records.conversations, path)
    assert (error.path, error.line, error.field) == (path, line, field)
    place = "record" if field is None else f"field {field!r}"
    assert str(error).startswith(f"{path}:{line}: {place} ")
    assert problem in str(error)
    assert "mend or remove the record, or pass over" in str(error) and "--skip-bad" in str(error)
    read = records.conversations(path, skip_bad=True)
    assert read.items == [READ_PAIR, READ_PAIR]
    (told,) = read.bad
    assert str(error).startswith(told) and problem in told


def test_the_lines_of_a_pretty_array_are_those_of_an_editor(write):
    """An independent count: the line of each record's own brace, found in the text."""
    rows = [{"instruction": f"{i}", "output": "a\nb" if i % 3 else "", "x": [i]} for i in range(20)]
    content = json.dumps(rows, indent=3)
    lines = content.split("\n")
    braces = [number for number, line in enumerate(lines, 1) if line == "   {"]
    read = records.conversations(write("a.json", "\n\n" + content), skip_bad=True)
    assert [int(re.search(r":(\d+): field 'output' is empty", told)[1]) for told in read.bad] == [
        2 + braces[i] for i in range(0, 20, 3)
    ]
    assert len(read.items) == 20 - len(read.bad) == 13


def test_a_text_may_hold_other_line_ends_without_moving_the_count(write):
    odd = {"instruction": "a\u2028b\x85c\x0bd", "output": "e\u2029f"}
    lines = [json.dumps(one, ensure_ascii=False) for one in (odd, odd, {"output": ""})]
    error = refused(records.conversations, write("a.jsonl", "\n".join(lines)))
    assert error.line == 3


BROKEN = {  # a content, the line at fault, how many good records there are besides
    "a truncated last line": ('{"instruction": "a", "output": "b"}\n{"instruction": "a', 2, 1),
    "a truncated line": ('{"messages": [\n{"instruction": "a", "output": "b"}', 1, 1),
    "two on a line": ('{"instruction": "a", "output": "b"} {}\n' * 2, 1, 0),
    "a comma behind": ('{"instruction": "a", "output": "b"},\n{"instruction": "a"}', 1, 0),
    "no json": ("instruction,output\na,b\n", 1, 0),
    "a truncated array": ('[\n{"instruction": "a", "output": "b"},\n{"instruction": "a",\n', 4, 1),
    "an array that ends at a comma": ('[\n{"instruction": "a", "output": "b"},', 2, 1),
    "an array left open": ('[{"instruction": "a", "output": "b"}', 1, 0),
    "a comma before the end": ('[\n{"instruction": "a", "output": "b"},\n]', 3, 1),
    "no comma between": ('[\n{"output":\n"b"}\n{"instruction": "a", "output": "b"}\n]', 3, 1),
    "a broken one between": (
        '[\n  {"instruction": "a", "output": "b"},\n  {\n    "instruction" "a"\n  },\n'
        '  {"instruction": "a", "output": "b"}\n]',
        *(4, 2),
    ),
    "something behind": ('[\n{"instruction": "a", "output": "b"}\n]\n[]', 4, 1),
    "nested too deep": ("[" * 200_000, 1, 0),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_json_is_named_by_its_line_and_the_rest_is_read(case, write):
    content, line, n_good = BROKEN[case]
    path = write("a.json", content)
    error = refused(records.conversations, path)
    assert (error.line, error.field) == (line, None)
    assert str(error).startswith(f"{path}:{line}: record is ")
    if n_good:
        read = records.conversations(path, skip_bad=True)
        assert len(read.items) == n_good and len(read.bad) == 1
    else:
        assert "none that can be used" in str(refused(records.conversations, path, skip_bad=True))


def test_a_broken_array_says_that_its_rest_is_lost(write):
    path = write("a.json", '[{"instruction": "a", "output": "b"}, {"output" 1}, {"a": 2}]')
    (told,) = records.conversations(path, skip_bad=True).bad
    assert "Expecting ':' delimiter" in told and "nothing after it can be read" in told


@pytest.mark.parametrize("form", ["lines", "an array, pretty", "an array on one line"])
def test_a_byte_that_is_not_utf8_spoils_its_own_record_alone(form, write):
    content = FORMS[form]([PAIR, {**PAIR, "output": "SPOIL"}, PAIR]).encode()
    path = write("a.json", content.replace(b"SPOIL", b"caf\xe9"))
    error = refused(records.conversations, path)
    line = 1 + content[: content.index(b"SPOIL")].count(b"\n")
    assert str(error).startswith(f"{path}:{line}: record has the byte 0xe9, which is not UTF-8")
    read = records.conversations(path, skip_bad=True)
    assert read.items == [READ_PAIR, READ_PAIR] and len(read.bad) == 1


@pytest.mark.parametrize("content", ["", " \n\n", "[]", "[ ]\n"])
def test_a_file_without_records_is_refused_even_where_bad_ones_may_go(content, write):
    path = write("a.json", content)
    for skip_bad in (False, True):
        error = refused(records.conversations, path, skip_bad=skip_bad)
        assert "record is missing, the file holds none that can be used" in str(error)


def test_where_nothing_is_left_the_first_reason_is_told(write):
    path = write("a.jsonl", "{}\n" * 3)
    error = refused(records.conversations, path, skip_bad=True)
    assert f"of 3 the first: {path}:1: record has the fields none" in str(error)


@pytest.mark.parametrize("read", [records.conversations, records.labeled])
def test_a_file_that_is_not_there_is_named(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.json; give a \.json"):
        read(tmp_path / "none.json")


# --- texts with labels --------------------------------------------------------------------------


GOOD = [Labeled("Win £100, now", "spam"), Labeled('Say "hi"\nto Ann', "ham")]


def as_csv(rows, **options):
    file = io.StringIO(newline="")
    csv.writer(file, **options).writerows(rows)
    return file.getvalue()


# Python's writer leaves "\r" unquoted where rows end in "\n", and then reads two rows; that of
# 3.10 can't write "\0".
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")


@given(
    rows=st.lists(st.tuples(st.text(ANY), WORDS.filter(lambda label: not {"\0", "\r"} & {*label}))),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_reads_as_pythons_csv_does(rows, ends, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / "a.csv"
    path.write_bytes(as_csv([("text", "label"), ("x", "y"), *rows], lineterminator=ends).encode())
    with path.open(encoding="utf-8", newline="") as file:
        expected = [
            (row["text"], row["label"].strip())
            for row in csv.DictReader(file)
            if row["text"].strip()
        ]
    read = records.labeled(path, skip_bad=True)
    assert [(one.text, one.label) for one in read.items] == expected
    assert len(read.items) + len(read.bad) == 1 + len(rows)


TABLES = {
    "a.csv": as_csv([("label", "n", "text"), *((label, 1, text) for text, label in GOOD)]),
    "a.jsonl": "\n".join(json.dumps(one._asdict()) for one in GOOD),
    "a.json": json.dumps([one._asdict() for one in GOOD], indent=1),
    "quotes everywhere": as_csv([("text", "label"), *GOOD], quoting=csv.QUOTE_ALL),
    "after a mark.csv": "\ufeff" + as_csv([("text", "label"), *GOOD]),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_file_gives_the_same_labels(name, write):
    assert records.labeled(write(name, TABLES[name])).items == GOOD


def test_a_tsv_takes_quotes_as_they_stand(write):
    """The SMS collection begins messages with quotes that never close."""
    path = write("SMSSpamCollection", 'ham\t"Hello, I said\nspam\tWin "£100"\n')
    read = records.labeled(path, columns=("label", "text"))
    assert read.items == [Labeled('"Hello, I said', "ham"), Labeled('Win "£100"', "spam")]
    path = write("a.tsv", 'text\tlabel\n"Hello\tham\n')
    assert records.labeled(path).items == [Labeled('"Hello', "ham")]


def test_columns_are_found_by_the_names_that_are_given(write):
    path = write("a.csv", "id, review ,stars\n1,Good,5\n2,Bad,1\n")
    read = records.labeled(path, text="review", label="stars")
    assert read.items == [Labeled("Good", "5"), Labeled("Bad", "1")]
    path = write("a.csv", "1,Good,5\n2,Bad,1\n")
    columns = ("id", "review", "stars")
    assert records.labeled(path, "review", "stars", columns=columns) == read


@pytest.mark.parametrize(("value", "label"), [(1, "1"), (True, "true"), (" a ", "a")])
def test_a_label_in_json_may_be_a_whole_number_or_a_truth_value(value, label, write):
    path = write("a.jsonl", json.dumps({"text": "x", "label": value}))
    assert records.labeled(path).items == [Labeled("x", label)]


@pytest.mark.parametrize(
    ("name", "content", "line", "message"),
    [
        ("a.csv", "text,label\nx,y\nx\n", 3, "field 'label' is missing; the row has 1 of 2 col"),
        (
            "a.csv",
            "text,label\nx,y\nx,y,z\n",
            3,
            "record has 3 columns, not 2; in csv, quote",
        ),
        ("a.csv", "text,label\nx,y\nx, \n", 3, "field 'label' is empty"),
        ("a.csv", "text,label\n\n\nx,y\n,y\n", 5, "field 'text' is empty"),
        ("a.csv", 'text,label\n"x\n\nx",y\n"a\nb",\n', 5, "field 'label' is empty"),
        ("a.csv", 'text,label\nx,y\n"x,y\n\n', 3, "record is no row (unexpected end of data)"),
        ("a.csv", 'text,label\nx,y\n"x"x,y\n', 3, "record is no row (',' expected after '\"')"),
        ("a.tsv", "text\tlabel\nx\ty\nx y\n", 3, "field 'label' is missing"),
        ("a.csv", b"text,label\nx,y\ncaf\xe9,y\n", 3, "record has the byte 0xe9, which is not UTF"),
        ("a.csv", b'text,label\nx,y\n"a\nb\xff",y\n', 4, "record has the byte 0xff"),
        ("a.jsonl", '{"text": "x", "label": "y"}\n{"text": "x"}', 2, "field 'label' is missing"),
        (
            "a.jsonl",
            '{"text": "x", "label": "y"}\n{"text": 1, "label": "y"}',
            2,
            "field 'text' is a",
        ),
        ("a.jsonl", '{"text": "x", "label": "y"}\n{"text": "x", "label": 0.5}', 2, "field 'label'"),
        ("a.jsonl", '{"text": "x", "label": "y"}\n[1]', 2, "record is an array; it has to be an"),
        (
            "a.jsonl",
            '{"text": "x", "label": "y"}\n{"text": "x", "la',
            2,
            "record is not JSON (Unter",
        ),
    ],
)
def test_a_malformed_row_is_named_and_may_be_passed_over(name, content, line, message, write):
    path = write(name, content)
    error = refused(records.labeled, path)
    assert str(error).startswith(f"{path}:{line}: {message}")
    read = records.labeled(path, skip_bad=True)
    assert len(read.items) == 1 and len(read.bad) == 1
    assert read.bad[0].startswith(f"{path}:{line}: {message}")


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_column_that_is_not_there_is_refused_with_those_that_are(skip_bad, write):
    path = write("a.csv", "\nsms,class\nx,y\n")
    error = refused(records.labeled, path, label="class", skip_bad=skip_bad)
    assert str(error).startswith(f"{path}:2: field 'text' is no column; there are 'sms', 'class'; ")
    assert "--text" in str(error) and "--columns" in str(error)
    error = refused(records.labeled, path, columns=("label", "words"), skip_bad=skip_bad)
    assert "there are 'label', 'words'" in str(error)


@pytest.mark.parametrize("content", ["", "text,label\n", "\n\n"])
def test_a_table_without_rows_is_refused(content, write):
    assert refused(records.labeled, write("a.csv", content)).line == 1


# --- the SMS Spam Collection --------------------------------------------------------------------


@pytest.fixture
def sms_server(monkeypatch, tmp_path):
    """A server on this machine in place of the collection's, with a small collection."""
    monkeypatch.setenv("LLM_CORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("LLM_CORE_OFFLINE", raising=False)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("SMSSpamCollection", 'ham\t"See\x85you\tat 5\r\nspam\tWin £100\n')

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(file.getvalue())))
            self.end_headers()
            self.wfile.write(file.getvalue())

        def log_message(self, *_):
            pass

    entry = catalog.find("sms-spam")
    digest = hashlib.sha256(file.getvalue()).hexdigest()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/sms.zip"
        remote = replace(entry.files[0], urls=(url,), sha256=digest, n_bytes=None)
        monkeypatch.setitem(catalog.CATALOG, "sms-spam", replace(entry, files=(remote,)))
        yield
        server.shutdown()


def test_the_sms_collection_is_fetched_once_and_read_with_its_labels(sms_server, monkeypatch):
    expected = [Labeled('"See\x85you\tat 5', "ham"), Labeled("Win £100", "spam")]
    assert records.sms() == expected
    monkeypatch.setenv("LLM_CORE_OFFLINE", "1")
    assert records.sms() == expected
    assert list(catalog.documents("sms-spam")) == [one.text for one in expected]


def test_without_a_network_the_sms_collection_says_what_to_do(sms_server, monkeypatch):
    monkeypatch.setenv("LLM_CORE_OFFLINE", "1")
    with pytest.raises(download.OfflineError, match=r"llm_core\.corpora fetch sms-spam"):
        records.sms()


def test_a_collection_that_is_not_the_right_one_is_refused(sms_server, monkeypatch):
    entry = catalog.find("sms-spam")
    wrong = replace(entry, files=(replace(entry.files[0], sha256="0" * 64),))
    monkeypatch.setitem(catalog.CATALOG, "sms-spam", wrong)
    with pytest.raises(download.ChecksumError):
        records.sms()
