"""Which library a docstring comes from: balanced, disjoint, and not told by a name."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from llm_core import docstrings, origin
from llm_core.records import Labeled

# Names as a reader would list them, found without the expression that masks them.
OWN_NAMES = {
    "numpy": ("numpy", "np"),
    "matplotlib": ("matplotlib", "mpl", "pyplot", "plt", "pylab"),
    "torch": ("torch", "pytorch", "aten"),
}


def words(text):
    """Runs of letters, in lower case."""
    return set(re.split("[^a-z]+", text.lower()))


def named(text):
    """The libraries whose names a text holds, full names also within words."""
    found = words(text)
    return {
        library
        for library, names in OWN_NAMES.items()
        if found & set(names) or library in text.lower()
    }


def accuracy_by_name(examples):
    """Of a classifier that answers with the only library named, where one is: right, answered."""
    answered = [
        (one.label, next(iter(found))) for one in examples if len(found := named(one.text)) == 1
    ]
    return sum(label == told for label, told in answered), len(answered)


def test_classes_are_balanced_and_take_turns():
    train, test = origin.docs(40, n_test=20)
    for examples, n in ((train, 40), (test, 20)):
        assert [one.label for one in examples] == ["numpy", "matplotlib", "torch"] * n
        assert all(isinstance(one, Labeled) for one in examples)


@pytest.mark.parametrize("masked", [True, False])
def test_no_text_is_in_train_and_test_or_comes_twice(masked):
    train, test = origin.docs(1000, masked=masked)
    plain = [re.sub(r"\s+", " ", one.text).strip().lower() for one in (*train, *test)]
    assert len(plain) == 3 * (1000 + 300) == len(set(plain))


def test_every_text_is_the_beginning_of_a_docstring_of_its_library():
    train, test = origin.docs(60, masked=False)
    for library in origin.LIBRARIES:
        extraction = docstrings.extract(docstrings.find_source(library))
        beginnings = Counter(one.text[:80] for one in extraction.docstrings)
        for one in (*train, *test):
            if one.label == library:
                assert one.text[:80] in beginnings
                assert 70 <= len(one.text) <= 600 and one.text == one.text.strip()


def test_a_classifier_by_the_names_alone_finds_nothing_where_they_are_masked():
    right, answered = accuracy_by_name(origin.docs(500, masked=False)[1])
    assert right > 250 and right / answered > 0.9  # the label stands in the text
    assert accuracy_by_name(origin.docs(500)[0]) == (0, 0)
    assert accuracy_by_name(origin.docs(500)[1]) == (0, 0)


def test_only_names_are_masked():
    text = "for example np.sum(x_np) of NumPy, PyTorch's from_numpy, mpl_connect, plt, input, ATen"
    expected = "for example L.sum(x_L) of L, L's from_L, L_connect, L, input, L"
    assert origin.mask(text) == expected.replace("L", origin.PLACEHOLDER)
    plain = "An input tensor, a simple example of a template that is latent and patent."
    assert origin.mask(plain) == plain


def test_masked_or_not_the_split_is_the_same():
    masked, plain = origin.docs(50), origin.docs(50, masked=False)
    for ours, theirs in zip(masked, plain, strict=True):
        assert ours == [Labeled(origin.mask(one.text), one.label) for one in theirs]
        assert ours != theirs


def test_more_labels_add_to_those_that_there_were_and_leave_the_test_alone():
    small, large = origin.docs(30), origin.docs(90)
    assert large[0][: len(small[0])] == small[0]
    assert large[1] == small[1]


def test_the_seed_decides_and_the_process_does_not():
    assert origin.docs(30, seed=1) == origin.docs(30, seed=1) != origin.docs(30, seed=2)
    code = (
        "import hashlib; from llm_core import origin;"
        "print(hashlib.sha256(repr(origin.docs(30, seed=1)).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    here = hashlib.sha256(repr(origin.docs(30, seed=1)).encode()).hexdigest()
    assert done.stdout.decode().strip() == here


@pytest.mark.parametrize(("n", "n_test"), [(0, 300), (5, 0), (10**6, 300)])
def test_what_there_is_not_enough_of_is_refused_with_how_much_there_is(n, n_test):
    with pytest.raises(
        ValueError, match=rf"n_per_class={n} and n_test={n_test} .* at most \d+, wh"
    ):
        origin.docs(n, n_test=n_test)
