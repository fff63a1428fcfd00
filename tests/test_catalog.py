"""The classic data sets: entries, readers, and fetching one from a server on this machine."""

import functools
import hashlib
import http.server
import json
import re
import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from llm_core import catalog, corpora, download

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real files are not in {SHARED}")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("LLM_CORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("LLM_CORE_OFFLINE", raising=False)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch, tmp_path):
    """A function that puts files on a server and makes them a catalog entry."""
    root = tmp_path / "served"
    root.mkdir()
    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

        def entry(name: str, reader, **files: bytes) -> catalog.Download:
            remote = []
            for file, content in files.items():
                (root / file).write_bytes(content)
                url = f"http://127.0.0.1:{server.server_port}/{file}"
                digest = hashlib.sha256(content).hexdigest()
                remote.append(download.RemoteFile(file, (url,), digest, len(content)))
            made = catalog.Download(name, tuple(remote), "CC0", "https://example.org", reader)
            monkeypatch.setitem(catalog.CATALOG, name, made)
            return made

        yield entry
        server.shutdown()


# --- entries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", catalog.CATALOG.values(), ids=lambda entry: entry.name)
def test_an_entry_is_complete_and_its_files_have_addresses_of_their_own(entry):
    assert entry.license
    assert entry.homepage.startswith("https://")
    names = [file.name for file in entry.files]
    assert len(set(names)) == len(names)
    for file in entry.files:
        assert all(url.startswith("https://") for url in file.urls)
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_only_gutenberg_which_regenerates_its_files_goes_without_a_published_hash():
    unpinned = {
        entry.name
        for entry in catalog.CATALOG.values()
        if any(file.sha256 is None for file in entry.files)
    }
    assert unpinned == {"gutenberg"}


@needs_shared
@pytest.mark.parametrize(
    ("name", "file", "real"),
    [
        ("the-verdict", 0, "the-verdict.txt"),
        ("instruction-data", 0, "instruction-data.json"),
        ("gpt2-vocabulary", 0, "tiktoken_cache/6d1cbeee0f20b3d9449abfede4726ed8212e3aee"),
        ("gpt2-vocabulary", 1, "tiktoken_cache/6c7ea1a7e38e3a7f062df639a5b80947f075ffe6"),
    ],
)
def test_hash_and_size_are_those_of_the_real_file(name, file, real):
    content = (SHARED / real).read_bytes()
    entry = catalog.find(name).files[file]
    assert (entry.sha256, entry.n_bytes) == (hashlib.sha256(content).hexdigest(), len(content))


@needs_shared
def test_a_real_file_laid_into_the_cache_is_read_without_a_network(monkeypatch):
    monkeypatch.setenv("LLM_CORE_OFFLINE", "1")
    for name in ("the-verdict", "instruction-data"):
        entry = catalog.find(name)
        shutil.copy(SHARED / entry.files[0].name, catalog.folder(entry))
    (story,) = corpora.documents("the-verdict")
    assert story.startswith("I HAD always thought Jack Gisburn rather a cheap genius")
    pairs = list(corpora.documents("instruction-data"))
    assert len(pairs) == 1100
    assert pairs[0].startswith("Evaluate the following phrase")
    (row,) = corpora.describe("the-verdict")
    assert (row.license, row.documents) == ("public domain", 1)


def test_a_book_is_found_by_its_number():
    entry = catalog.find("gutenberg:1342")
    assert entry.files[0].urls == ("https://www.gutenberg.org/cache/epub/1342/pg1342.txt",)


def test_an_unknown_name_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"'shakespear'.*tiny-shakespeare"):
        catalog.find("shakespear")


# --- fetching -----------------------------------------------------------------------------------


def test_documents_are_fetched_once_with_license_and_size_told_and_recorded(serve, capsys):
    entry = serve("two", catalog.read_text, one=b"First.", two=b"Second.")
    assert list(corpora.documents("two")) == ["First.", "Second."]
    told = capsys.readouterr().out
    assert "one: 6 bytes, license CC0, https://example.org" in told
    record = json.loads((catalog.folder(entry) / "source.json").read_text())
    assert (record["license"], record["files"][1]["sha256"]) == ("CC0", entry.files[1].sha256)
    assert list(corpora.documents("two")) == ["First.", "Second."]
    assert capsys.readouterr().out == ""


def test_a_changed_file_on_the_server_is_refused(serve, monkeypatch):
    entry = serve("one", catalog.read_text, one=b"First.")
    wrong = replace(entry, files=(replace(entry.files[0], sha256="0" * 64),))
    monkeypatch.setitem(catalog.CATALOG, "one", wrong)
    with pytest.raises(download.ChecksumError, match="0" * 64):
        list(corpora.documents("one"))


def test_offline_the_error_names_the_command_and_the_folder(serve, monkeypatch):
    entry = serve("one", catalog.read_text, one=b"First.")
    monkeypatch.setenv("LLM_CORE_OFFLINE", "1")
    with pytest.raises(download.OfflineError) as raised:
        list(corpora.documents("one"))
    assert "python -m llm_core.corpora fetch one" in str(raised.value)
    assert str(catalog.folder(entry)) in str(raised.value)


def test_the_command_line_fetches_and_names_the_folder(serve, capsys):
    entry = serve("one", catalog.read_text, one=b"First.")
    assert corpora.main(["fetch", "one"]) == 0
    assert f"in {catalog.folder(entry)}" in capsys.readouterr().out
    assert (catalog.folder(entry) / "one").read_bytes() == b"First."


def test_a_vocabulary_is_fetched_but_has_no_documents(serve):
    serve("vocabulary", None, merges=b"a b\n")
    assert [path.name for path in catalog.fetch("vocabulary")] == ["merges"]
    with pytest.raises(ValueError, match="holds no documents"):
        list(corpora.documents("vocabulary"))


# --- readers ------------------------------------------------------------------------------------


def test_stories_are_cut_at_their_separator(tmp_path):
    (tmp_path / "a").write_text("One day.\nThe end.\n<|endoftext|>\n\nTwo.\n<|endoftext|>\n")
    assert list(catalog.read_stories(tmp_path / "a")) == ["One day.\nThe end.", "Two."]


def test_a_book_loses_the_license_around_it(tmp_path):
    (tmp_path / "a").write_text(
        "\ufeffTerms.\r\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\r\n\r\nCall me Ishmael.\r\n"
        "\r\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\r\nMore terms.",
        newline="",
    )
    assert list(catalog.read_gutenberg(tmp_path / "a")) == ["Call me Ishmael."]
    (tmp_path / "b").write_text("<html>an error page</html>")
    with pytest.raises(ValueError, match="lacks"):
        list(catalog.read_gutenberg(tmp_path / "b"))


def test_instructions_are_joined_and_an_empty_input_leaves_no_gap(tmp_path):
    records = [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": "Hi.", "input": "", "output": "Ho."},
    ]
    (tmp_path / "a").write_text(json.dumps(records))
    assert list(catalog.read_instructions(tmp_path / "a")) == ["Add.\n\n1 2\n\n3", "Hi.\n\nHo."]
    (tmp_path / "b").write_text(json.dumps([records[0], {"instruction": "Hi."}]))
    with pytest.raises(ValueError, match="record 1 has no field 'input'"):
        list(catalog.read_instructions(tmp_path / "b"))


def test_messages_come_without_their_labels(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("SMSSpamCollection", "ham\tSee you\tat 5\nspam\tWin £100\n")
    assert list(catalog.read_sms(tmp_path / "a.zip")) == ["See you\tat 5", "Win £100"]


def test_parquet_gives_its_text_column_or_names_what_to_install(tmp_path):
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        with pytest.raises(ModuleNotFoundError, match="pip install pyarrow"):
            list(catalog.read_parquet(tmp_path / "a.parquet"))
        return
    table = pyarrow.table({"id": [1, 2], "text": ["One.", "Two."]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert list(catalog.read_parquet(tmp_path / "a.parquet")) == ["One.", "Two."]


@pytest.mark.parametrize("separator", ["|", "<end>"])
def test_pieces_are_those_of_split_wherever_the_chunks_end(monkeypatch, tmp_path, separator):
    text = separator.join(["", "a" * 9, "<en", "b", "d>", "c" * 30, "<end"])
    path = tmp_path / "text.txt"
    path.write_text(text)
    wanted = [piece.strip() for piece in text.split(separator) if piece.strip()]
    for size in range(1, 12):
        monkeypatch.setattr(catalog, "CHUNK_CHARS", size)
        assert list(catalog.read_text(path, separator)) == wanted


@pytest.mark.parametrize("name", ["stories", "docs", "file:x.txt"])
def test_what_needs_no_fetching_says_so(capsys, name):
    assert corpora.main(["fetch", name]) == 1
    assert f"{name} needs no fetching" in capsys.readouterr().err
