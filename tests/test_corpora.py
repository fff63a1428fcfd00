"""Documents by name, their table, the files a reader brings, and the command line."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_core import corpora, docstrings
from llm_core.corpora import Row

SMALL = ("pooch",)  # an installed package that is read in a moment


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("LLM_CORE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


# --- docs and code ------------------------------------------------------------------------------


def test_a_document_is_a_docstring_under_its_qualified_name():
    texts = list(corpora.documents("docs", sources=SMALL))
    (hashing,) = [text for text in texts if text.startswith("pooch.hashes.file_hash(")]
    title, blank, first, *_ = hashing.split("\n")
    assert (title, blank) == ("pooch.hashes.file_hash(fname, alg)", "")
    assert first == "Calculate the hash of a given file."


def test_the_same_packages_give_the_same_documents_in_any_process():
    code = (
        "import hashlib; from llm_core import corpora; d = hashlib.sha256()\n"
        "for name in ('docs', 'code'):\n"
        "    for text in corpora.documents(name, sources=('pooch', 'tqdm')):"
        " d.update(text.encode() + b'\\0')\n"
        "print(d.hexdigest())"
    )
    digests = set()
    for seed, cache in (("1", "a"), ("2", "a"), ("3", "b")):
        cache_folder = os.path.join(os.environ["LLM_CORE_CACHE"], cache)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "LLM_CORE_CACHE": cache_folder}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_no_docstring_comes_twice_even_from_two_sources():
    texts = list(corpora.documents("docs", sources=("pooch", "tqdm", "pooch")))
    bodies = [text.split("\n\n", 1)[1] for text in texts]
    assert len(set(bodies)) == len(bodies)
    assert len(texts) == sum(
        row.documents for row in corpora.describe("docs", sources=("pooch", "tqdm"))
    )


def test_code_is_the_source_of_the_same_packages_word_for_word():
    texts = set(corpora.documents("code", sources=SMALL))
    source = docstrings.find_source("pooch")
    assert (source.folder / "core.py").read_text(encoding="utf-8") in texts
    assert not any((source.folder / "tests" / "test_core.py").read_text() == text for text in texts)


def test_the_default_sources_are_the_pinned_packages():
    assert docstrings.DEFAULT_SOURCES == ("numpy", "matplotlib", "torch")


def test_an_unknown_corpus_or_source_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"'dcos'.*docs, code.*tinystories"):
        corpora.documents("dcos")
    with pytest.raises(ValueError, match=r"'nmupy'.*numpy, matplotlib, torch, stdlib"):
        corpora.documents("docs", sources=("nmupy",))


@pytest.mark.parametrize("name", ["docs", "code"])
def test_the_description_counts_what_the_documents_are(name):
    (row,) = corpora.describe(name, sources=SMALL)
    texts = list(corpora.documents(name, sources=SMALL))
    assert (row.source, row.version, row.license) == ("pooch", "1.9.0", "BSD-3-Clause")
    assert row.documents == len(texts)
    assert row.bytes == sum(len(text.encode()) for text in texts)


# --- the reader's own files ---------------------------------------------------------------------


def test_a_text_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfOne\r\ntwo\n")
    assert list(corpora.documents(f"file:{tmp_path / 'a.txt'}")) == ["One\ntwo\n"]


def test_a_folder_gives_its_files_in_path_order(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/b.txt", "c.jsonl", "ignored.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"text": name}) if name.endswith("l") else name)
    assert list(corpora.documents(f"file:{tmp_path}")) == ["a/b.txt", "a/z.txt", "b.txt", "c.jsonl"]
    assert list(corpora.documents(f"file:{tmp_path}/*.txt")) == ["b.txt"]
    assert list(corpora.documents(f"file:{tmp_path}/**/z.*")) == ["a/z.txt"]


@given(pieces=st.lists(st.text(alphabet="ab<|> \n"), max_size=8), chunk=st.integers(1, 9))
def test_a_separator_cuts_a_file_wherever_the_chunks_of_reading_end(
    tmp_path_factory, pieces, chunk
):
    from llm_core import catalog

    path = tmp_path_factory.mktemp("cut") / "a.txt"
    path.write_text("<|sep|>".join(pieces))
    whole, catalog.CHUNK_CHARS = catalog.CHUNK_CHARS, chunk
    try:
        found = list(corpora.documents(f"file:{path}", separator="<|sep|>"))
    finally:
        catalog.CHUNK_CHARS = whole
    parts = "<|sep|>".join(pieces).split("<|sep|>")
    assert found == [part.strip() for part in parts if part.strip()]


def test_a_line_of_json_lines_is_a_document(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "One\\nline"}\n\n{"id": 3, "text": "\\u00e4"}\n')
    assert list(corpora.documents(f"file:{path}")) == ["One\nline", "ä"]


@pytest.mark.parametrize("line", ['{"text": 3}', '{"txt": "a"}', '["text"]', '{"text": "a"'])
def test_a_malformed_line_is_named_with_file_and_number(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2"):
        list(corpora.documents(f"file:{path}"))


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("café".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.txt is not UTF-8.*save it as UTF-8"):
        list(corpora.documents(f"file:{path}"))


def test_a_pattern_that_matches_nothing_says_what_would(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"matches nothing.*\.jsonl"):
        corpora.documents(f"file:{tmp_path}/*.txt")


# --- the table ----------------------------------------------------------------------------------


def test_a_table_fits_76_columns_and_sums_what_is_known():
    long = "Apache-2.0 AND Apache-2.0 WITH LLVM-exception AND BSD-2-Clause AND MIT"
    rows = [Row("torch", "2.13.0", long, 1_000, 9_999_999), Row("numpy", "2.2.6", "BSD", 234, 1)]
    lines = corpora.table(rows).split("\n")
    assert max(map(len, lines)) <= 76
    assert lines[-1].split() == ["together", "1,234", "10,000,000"]
    assert " ".join(line[27:51].strip() for line in lines[1:-2]) == long


def test_a_table_with_unknown_numbers_has_dashes_and_no_sum():
    table = corpora.table([Row("a", "", "MIT", None, 5), Row("b", "", "MIT", 1, None)])
    assert table.split("\n")[1].split() == ["a", "MIT", "-", "5"]
    assert "together" not in table


# --- command line -------------------------------------------------------------------------------


def test_the_list_names_every_download_with_its_license(capsys):
    assert corpora.main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in ("the-verdict", "tiny-shakespeare", "gutenberg", "tinystories", "fineweb-edu"):
        assert name in printed
    assert "CDLA-Sharing-1.0" in printed
    assert max(map(len, printed.split("\n"))) <= 76


def test_show_prints_the_beginning_of_the_first_documents(capsys, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name * 700)
    assert corpora.main(["show", f"file:{tmp_path}", "-n", "2"]) == 0
    printed = capsys.readouterr().out
    assert "a" * corpora.SHOWN_CHARS + " ... and 200 characters more" in printed
    assert "b" * 10 in printed
    assert "c" * 10 not in printed


def test_the_command_line_reports_an_error_in_one_line_and_fails():
    done = subprocess.run(
        [sys.executable, "-m", "llm_core.corpora", "fetch", "the-verdict"],
        env={**os.environ, "LLM_CORE_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "python -m llm_core.corpora fetch the-verdict" in done.stderr


def test_bad_lines_of_json_name_the_file(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "\xff"}')
    with pytest.raises(ValueError, match=r"x\.jsonl is not UTF-8"):
        list(corpora.read_jsonl(path))
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"x\.jsonl, line 1: "):
        list(corpora.read_jsonl(path))
    path.write_text('{"text": ""}\n{"text": "a"}\n')
    assert list(corpora.read_jsonl(path)) == ["a"]
