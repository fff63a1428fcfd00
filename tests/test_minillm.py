"""The file of the book's listings: it is what the chapters say, trains as llm_core does, speaks."""

import ast
import importlib.util
import subprocess
import sys

import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from book import minillm as tangler
from book import notebooks
from llm_core import stories
from llm_core.config import GPTConfig
from llm_core.model import GPT
from llm_core.train import train
from llm_core.trainconfig import TrainConfig

N_STEPS = 20


@pytest.fixture(scope="module")
def minillm():
    spec = importlib.util.spec_from_file_location("minillm", tangler.TARGET)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def settings(minillm):
    return minillm.Settings(
        vocab_size=300,
        context_length=32,
        n_layer=2,
        n_head=2,
        d_model=32,
        d_ff=64,
        n_steps=N_STEPS,
        batch_size=4,
        warmup_steps=5,
    )


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("minillm") / "text.txt"
    text = "\n\n".join(story.text for story in stories.stories(30, seed=2))
    path.write_text(text, encoding="utf-8")
    return path


def written(folder, number, *cells):
    path = folder / f"{number}-name.ipynb"
    notebooks.write(new_notebook(cells=[new_markdown_cell(f"# Name {number}"), *cells]), path)
    return path


def tagged(source):
    return new_code_cell(source, metadata={"tags": ["minillm"]})


# --- the file -----------------------------------------------------------------------------------


def test_the_file_is_what_the_chapters_say():
    assert tangler.TARGET.read_text(encoding="utf-8") == tangler.tangle(), "run make minillm"


def test_the_file_holds_every_tagged_cell_and_the_name_of_its_chapter():
    body = ast.unparse(ast.parse(tangler.TARGET.read_text(encoding="utf-8")))
    text, n_cells = tangler.TARGET.read_text(encoding="utf-8"), 0
    for path in notebooks.chapter_paths():
        notebook = notebooks.read(path)
        for cell in notebooks.code_cells(notebook):
            if "minillm" in notebooks.tags(cell):
                n_cells += 1
                assert ast.unparse(ast.parse(tangler.without_imports(cell.source))) in body
                assert f"# {tangler.title(notebook, path)}\n" in text
    assert n_cells > 20


def test_the_file_needs_no_other_packages_than_it_says_and_nothing_of_the_book():
    text = tangler.TARGET.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = [line for _, line in tangler.imports_of(tree)]
    roots = {line.split()[1].split(".")[0] for line in lines} - set(sys.stdlib_module_names)
    assert roots == {"numpy", "regex", "torch"}
    assert f"pip install {' '.join(sorted(roots))}\n" in ast.get_docstring(tree)
    nested = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert len(nested) == sum(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body)


def test_imports_are_found_in_any_cell_and_stand_at_the_top(tmp_path):
    setup = new_code_cell("import math\nimport numpy as np\nfrom llm_core import runtime")
    first = written(tmp_path, "01", setup, tagged("import json\n\ndef f(x):\n    return np.abs(x)"))
    last = written(tmp_path, "02", tagged("def main(path):\n    print(json.dumps(path), f(1))"))
    source = tangler.tangle([first, last])
    code = source.split('"""')[2]
    assert code.index("import json") < code.index("import sys") < code.index("import numpy as np")
    assert code.index("# Chapter 1: Name 01") < code.index("def f") < code.index("# Chapter 2")
    assert "math" not in code and "llm_core" not in code
    assert source == tangler.tangle([first, last])


def test_a_name_that_no_cell_brings_is_refused(tmp_path):
    path = written(tmp_path, "01", tagged("def main(path):\n    print(recipes, path)"))
    with pytest.raises(SystemExit, match="use recipes, which none of them defines"):
        tangler.tangle([path])


# --- what it does -------------------------------------------------------------------------------


def test_its_losses_are_those_of_llm_core_from_the_same_weights(minillm, settings, text_file):
    ids = torch.tensor(list(text_file.read_bytes())).numpy()
    batches = [*minillm.epoch_batches(ids, settings.batch_size, settings.context_length)]
    torch.manual_seed(1)
    model = minillm.draw_weights(minillm.GPT(settings))
    shape = {name: getattr(settings, name) for name in ("n_layer", "n_head", "d_model", "d_ff")}
    ours = GPT(GPTConfig(settings.vocab_size, settings.context_length, **shape))
    ours.load_state_dict(model.state_dict())
    config = TrainConfig(
        N_STEPS,
        max_lr=settings.max_lr,
        min_lr=settings.min_lr,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        beta1=settings.betas[0],
        beta2=settings.betas[1],
        max_norm=settings.max_norm,
        precision="float32",
    )
    history = train(ours, iter(batches), config, progress=False)
    losses = minillm.fit(model, iter(batches), settings)
    assert len(losses) == N_STEPS
    assert losses[0] - losses[-1] > 0.5
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(history.loss), rtol=0, atol=1e-5)


def test_it_learns_from_a_file_and_speaks_and_the_seed_decides(
    minillm, settings, text_file, capsys
):
    losses = minillm.main(text_file, settings)
    first = capsys.readouterr().out
    assert losses[-1] < losses[0]
    assert first.startswith(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}\n")
    assert len(first.split("\n", 1)[1]) > 100
    minillm.main(text_file, settings)
    assert capsys.readouterr().out == first


def test_without_a_file_it_says_how_it_is_used():
    done = subprocess.run([sys.executable, tangler.TARGET], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "usage: python minillm.py FILE, a text in UTF-8\n"
