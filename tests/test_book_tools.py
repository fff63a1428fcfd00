"""The tools that execute, verify and check chapters: each rule is broken once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from book import check, execute, notebooks, verify
from book.__main__ import main
from llm_core import recipes


def chapter(*cells):
    notebook = new_notebook(cells=list(cells))
    notebooks.normalise(notebook, "09")
    return notebook


def stamped(notebook):
    notebook.metadata[notebooks.RECORD] = {
        "stamp": notebooks.code_hash(notebook),
        "profile": "book",
    }
    return notebook


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def breaches(function, *arguments):
    found = check.Breaches()
    function(*arguments, found)
    return " | ".join(found)


def test_chapters_are_numbered_and_appendices_lettered(monkeypatch, tmp_path):
    for stem in ("a2-y", "10-x", "a1-z", "02-w"):
        notebooks.write(chapter(new_markdown_cell("# x")), tmp_path / f"{stem}.ipynb")
    monkeypatch.setattr(notebooks, "CHAPTERS", tmp_path)
    paths = notebooks.chapter_paths()
    assert [notebooks.number(path) for path in paths] == ["2", "10", "A", "B"]
    assert notebooks.chapter_paths("a1") == [tmp_path / "a1-z.ipynb"]
    with pytest.raises(SystemExit, match="there are 02, 10, a1, a2"):
        notebooks.chapter_paths("a3")


def test_glued_markdown_is_compared_by_its_text_whatever_the_order_of_its_forms():
    forms = {"text/plain": "<Markdown object>", "text/markdown": "| 1.25 |"}
    for order in (list(forms), list(forms)[::-1]):
        data = {f"application/papermill.record/{mime}": forms[mime] for mime in order}
        output = new_output("display_data", data=data, metadata={"scrapbook": {"name": "t"}})
        assert verify.glued(new_code_cell("", outputs=[output])) == {"t": "| 1.25 |"}


def test_normalising_twice_changes_nothing_more():
    notebook = chapter(new_code_cell("x  \n", outputs=[stream("a"), stream("b")]))
    once = nbformat.writes(notebook)
    notebooks.normalise(notebook, "09")
    assert nbformat.writes(notebook) == once


def test_normalising_joins_streams_and_drops_addresses_and_foreign_metadata():
    cell = new_code_cell("f", outputs=[stream("<f at 0x7f00aa>\n"), stream("end\n")])
    cell.metadata = {"tags": ["remove-cell"], "execution": {"iopub.status.busy": "2026"}}
    notebook = chapter(cell)
    assert [o.text for o in notebook.cells[0].outputs] == ["<f>\nend\n"]
    assert dict(notebook.cells[0].metadata) == {"tags": ["remove-cell"]}


def test_writing_is_canonical_json_and_leaves_no_temporary_file(tmp_path):
    path = tmp_path / "09-x.ipynb"
    notebooks.write(chapter(new_markdown_cell("é")), path)
    assert json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"] == "é"
    assert [p.name for p in tmp_path.iterdir()] == ["09-x.ipynb"]


def test_the_stamp_follows_the_code_and_not_the_prose():
    notebook = stamped(chapter(new_markdown_cell("words"), new_code_cell("1 + 1")))
    assert breaches(check.check_stamp, notebook, "09-x") == ""
    notebook.cells[0].source = "other words"
    assert breaches(check.check_stamp, notebook, "09-x") == ""
    notebook.cells[1].source = "1 + 2"
    assert "make execute CHAPTER=09" in breaches(check.check_stamp, notebook, "09-x")


def test_a_chapter_that_was_never_executed_is_noticed():
    assert "never executed" in breaches(check.check_stamp, chapter(new_code_cell("1")), "09-x")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = 1\n" * 31, "31 lines"),
        ("x = '" + "a" * 80 + "'", "columns"),
        ("open('/Users/somebody/data.txt')", "absolute path"),
    ],
)
def test_each_rule_of_code_cells_is_enforced(source, complaint):
    assert complaint in breaches(check.check_code, new_code_cell(source), "here")


@pytest.mark.parametrize(
    ("output", "complaint"),
    [
        (stream("line\n" * 26), "26 lines"),
        (stream("w" * 77 + "\n"), "77 columns"),
        (stream("\x1b[31mred\x1b[0m\n"), "ANSI"),
        (stream("warning\n", name="stderr"), "stderr"),
        (stream("saved /private/model\n"), "absolute path"),
        (new_output("error", ename="ValueError", evalue="no", traceback=[]), "error is stored"),
    ],
)
def test_each_rule_of_outputs_is_enforced(output, complaint):
    cell = new_code_cell("x", outputs=[output])
    assert complaint in breaches(check.check_outputs, cell, "here")


def test_a_figure_without_alt_text_is_noticed():
    picture = new_output("display_data", data={"image/svg+xml": "<svg/>"})
    cell = new_code_cell("fig", outputs=[picture])
    cell.metadata = {"mystnb": {"figure": {"name": "fig-a-b", "caption": "A."}}}
    assert breaches(check.check_live_figure, cell, "here") == "here: a figure without alt"
    cell.metadata["mystnb"]["image"] = {"alt": "A line."}
    assert breaches(check.check_live_figure, cell, "here") == ""


def test_two_code_cells_without_a_word_between_are_noticed_unless_hidden():
    neighbors = chapter(new_code_cell("1"), new_code_cell("2"))
    assert "without a word" in breaches(check.check_rhythm, neighbors, "09-x")
    neighbors.cells[1].metadata["tags"] = ["remove-cell"]
    assert breaches(check.check_rhythm, neighbors, "09-x") == ""


def test_definitions_are_those_of_the_text_and_not_of_the_exercises():
    notebook = chapter(
        new_code_cell("def ours():\n    pass"),
        new_markdown_cell("```{exercise-start} Try\n:label: ex-a\n```"),
        new_code_cell("def stub():\n    pass"),
        new_markdown_cell("```{exercise-end}\n```"),
        new_code_cell("%pip list\nclass Model:\n    pass"),
    )
    assert list(check.definitions(notebook)) == ["ours", "Model"]


def test_a_reference_that_points_nowhere_is_noticed(monkeypatch):
    words = "{numref}`fig-none` {cite:p}`nobody2020nothing` {term}`Nonsense` {glue:text}`no-value`"
    monkeypatch.setattr(check, "texts", lambda: iter([("page", words)]))
    found = breaches(check.check_references)
    for name in ("fig-none", "nobody2020nothing", "Nonsense", "no-value"):
        assert name in found


def test_every_rule_holds_for_the_book_as_it_stands():
    found = check.Breaches()
    check.check_notebooks(found)
    check.check_references(found)
    check.check_figures(found)
    assert found == []


@pytest.mark.parametrize(
    ("old", "new", "equal"),
    [
        ("loss 2.314", "loss 2.320", True),
        ("loss 2.314", "loss 2.514", False),
        ("17 merges", "18 merges", False),
        ("1,024 rows", "1,024  rows", True),
        ("two words", "three words", False),
        ("p 0.00", "p 0.01", True),
        ("e 1.5e-07", "e 1.502e-07", True),
    ],
)
def test_verify_forgives_rounding_and_nothing_else(old, new, equal):
    assert verify.same(old, new, 0.01) is equal


def test_verify_lists_changed_lines_and_changed_glue():
    def run(text, value):
        data = {"application/papermill.record/text/plain": f"'{value}'"}
        glue = new_output("display_data", data=data, metadata={"scrapbook": {"name": "tok-x"}})
        return chapter(new_code_cell("print()", outputs=[stream(text), glue]))

    assert verify.differences(run("a 1\n", "3"), run("a 1\n", "3"), 0.01) == []
    found = verify.differences(run("a 1\nb 2\n", "3"), run("a 1\nb 5\n", "4"), 0.01)
    assert len(found) == 2
    assert "b 2" in found[0] and "tok-x" in found[1]


def run_on(cpu, dtype, **more):
    """A chapter that asks for the shared model, with the record of a run."""
    done = stamped(chapter(new_code_cell("base = recipes.pretrained()")))
    done.metadata[notebooks.RECORD].update(
        machine={"cpu": cpu}, trains_in=dtype, versions={"torch": "2.13.0"}, **more
    )
    return done


def test_verify_names_what_two_runs_do_not_share():
    one, other = run_on("A", "bfloat16"), run_on("B", "float32")
    assert verify.changed(one, one) == []
    found = verify.changed(one, other)
    assert found[:2] == [
        "processor: committed A, now B",
        "trains in: committed bfloat16, now float32",
    ]
    assert len(found) == 3 and "another model" in found[2]
    del one.metadata[notebooks.RECORD]["trains_in"]  # as of a record that is older than the field
    assert verify.changed(one, other) == found[:1]


def test_verify_says_what_runs_do_not_share_where_they_differ(tmp_path, monkeypatch, capsys):
    path = tmp_path / "09-x.ipynb"
    notebooks.write(chapter(new_code_cell("print(1.5)")), path)
    monkeypatch.setattr(notebooks, "CHAPTERS", tmp_path)
    execute.main("09", "ci")
    done = notebooks.read(path)
    done.metadata[notebooks.RECORD]["machine"]["cpu"] = "another"
    notebooks.write(done, path)
    verify.main("09", 0.01)
    assert "reproduced" in (out := capsys.readouterr().out) and "another" not in out
    done.cells[0].outputs[0].text = "2.5\n"
    notebooks.write(done, path)
    with pytest.raises(SystemExit):
        verify.main("09", 0.01)
    assert "processor: committed another, now " in capsys.readouterr().out


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_execution_records_time_memory_and_a_true_stamp(precision, tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_CORE_PRECISION", precision)
    source = "import os; from llm_core.runtime import dtype"
    source += "\nprint(os.environ['BOOK_PROFILE'], 6 * 7, dtype())"
    path = tmp_path / "09-x.ipynb"
    notebooks.write(chapter(new_code_cell(source)), path)
    done = execute.execute(path, "ci")
    record = done.metadata[notebooks.RECORD]
    assert record["trains_in"] == precision
    assert done.cells[0].outputs[0].text == f"ci 42 torch.{precision}\n"
    assert len(done.cells) == 1
    assert record["stamp"] == notebooks.code_hash(done)
    assert record["seconds"] > 0 and record["peak_bytes"] > 10 * 2**20
    notebooks.write(done, path)
    monkeypatch.setattr(notebooks, "CHAPTERS", tmp_path)
    again = execute.execute(path, "ci")
    assert verify.differences(done, again, 0.0) == []


def shared_by_a_program(program, folder, monkeypatch):
    """Two chapters, of which one asks for what the program makes; both are their paths."""
    monkeypatch.setattr(execute, "SHARED", {"made()": program})
    monkeypatch.setattr(notebooks, "CHAPTERS", folder)
    for number, source in (("08", "print(1)"), ("09", "print(open('made.txt').read())  # made()")):
        notebooks.write(chapter(new_code_cell(source)), folder / f"{number}-x.ipynb")
    return notebooks.chapter_paths()


def test_what_chapters_share_is_made_before_a_chapter_that_asks_for_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LLM_CORE_PRECISION", "float32")  # a probe may find each process another
    made = tmp_path / "made.txt"
    says = "f\"{os.environ['BOOK_PROFILE']} {'TQDM_DISABLE' in os.environ}\""
    program = f"import os, pathlib; pathlib.Path({str(made)!r}).write_text({says})"
    plain, asking = shared_by_a_program(program, tmp_path, monkeypatch)
    execute.prepare([plain], "ci")
    assert not made.exists()
    execute.main("09", "ci")
    assert notebooks.read(asking).cells[0].outputs[0].text == "ci False\n"
    made.unlink()
    assert verify.verify(asking, 0.0) == ([], []) and made.exists()
    made.unlink()
    main(["prepare", "--profile", "gpu"])
    assert made.read_text() == "gpu False"


def test_what_chapters_share_and_cannot_be_made_is_named_before_any_is_run(tmp_path, monkeypatch):
    _, asking = shared_by_a_program("raise OSError('disk full')", tmp_path, monkeypatch)
    before = asking.read_bytes()
    with pytest.raises(SystemExit, match=r"made\(\) failed under the profile ci"):
        execute.main(None, "ci")
    assert asking.read_bytes() == before


def test_each_shared_call_stands_in_a_chapter_and_is_one_of_the_library():
    sources = [
        cell.source
        for path in notebooks.chapter_paths()
        for cell in notebooks.code_cells(notebooks.read(path))
    ]
    for call in execute.SHARED:
        assert any(call in source for source in sources)
        assert callable(getattr(recipes, call.removeprefix("recipes.").removesuffix("()")))


def test_a_failing_cell_stops_execution_with_its_error_and_keeps_the_file(tmp_path, monkeypatch):
    path = tmp_path / "09-x.ipynb"
    notebooks.write(chapter(new_code_cell("raise ValueError('on purpose')")), path)
    before = path.read_bytes()
    monkeypatch.setattr(notebooks, "CHAPTERS", tmp_path)
    with pytest.raises(SystemExit, match="on purpose"):
        execute.main("09", "ci")
    assert path.read_bytes() == before


def test_an_unknown_chapter_is_named_with_those_there_are():
    with pytest.raises(SystemExit, match="no chapter '77'; there are 01"):
        notebooks.chapter_paths("77")


@pytest.mark.parametrize("moment", ["kernel", "cell"])
def test_an_interrupt_says_that_the_chapter_is_as_it_was(tmp_path, moment):
    path, mark = tmp_path / "09-x.ipynb", tmp_path / "mark"
    source = f"open({str(mark)!r}, 'w').close()\nimport time\ntime.sleep(60)"
    notebooks.write(chapter(new_code_cell(source)), path)
    before = path.read_bytes()
    program = "import sys; from pathlib import Path; from book import execute\n"
    if moment == "kernel":  # the signal comes while the client waits for the kernel
        program += (
            "import os, signal; from nbclient import NotebookClient\n"
            "start = NotebookClient.async_start_new_kernel\n"
            "async def slow(self, **options):\n"
            "    os.kill(os.getpid(), signal.SIGINT)\n"
            "    await start(self, **options)\n"
            "NotebookClient.async_start_new_kernel = slow\n"
        )
    program += "execute.execute(Path(sys.argv[1]), 'ci')"
    command = [sys.executable, "-c", program, str(path)]
    running = subprocess.Popen(command, cwd=notebooks.ROOT, stderr=subprocess.PIPE, text=True)
    if moment == "cell":
        while not mark.exists() and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    last = said.splitlines()[-1]  # the kernel may have said something of its own before
    assert running.returncode == 1 and last == "stopped: 09-x.ipynb is as it was before"
    assert path.read_bytes() == before
