"""Filters of subjects and runs, and names that mean the same ones."""

import pathlib

import numpy as np
import pytest

from emojax.data import tables
from emojax.errors import InputError

ROOT = pathlib.Path("study")
FOUND = [("sub-01", "run-1"), ("sub-01", "run-2"), ("sub-02", "run-1"), ("Mu\u0308ller", "rest")]


@pytest.mark.parametrize(
    ("subjects", "runs", "kept"),
    [
        ((), (), [0, 1, 2, 3]),
        (("sub-01",), (), [0, 1]),
        (("01",), ("1",), [0]),
        (("1", "2"), ("run-01",), [0, 2]),
        (("001",), ("run2",), [1]),
        ((" M\u00fcller",), (), [3]),
        (("sub-M\u00fcller",), ("run-rest",), [3]),
    ],
)
def test_filters(subjects, runs, kept):
    assert tables.choose(ROOT, FOUND, subjects, runs) == kept


@pytest.mark.parametrize("written", ["01", "sub-01", "1"])
def test_folders_may_have_the_prefix_or_not(written):
    for name in ("01", "sub-01", "sub-1", "1"):
        assert tables.choose(ROOT, [(name, "a"), ("x", "a")], (written,)) == [0]


def test_names_that_stand_side_by_side_are_told_apart():
    found = [("01", "a"), ("1", "a"), ("sub-1", "a")]
    assert [tables.choose(ROOT, found, (name,)) for name, _ in found] == [[0], [1], [2]]
    with pytest.raises(InputError, match="no subject 'sub-01'; expected one of 01, 1, sub-1"):
        tables.choose(ROOT, found, ("sub-01",))


def test_refuses_what_is_not_there():
    with pytest.raises(InputError, match="study: found no run '3'; expected one of rest, run-1, r"):
        tables.choose(ROOT, FOUND, ("01",), ("3",))
    with pytest.raises(InputError, match="no run that both filters allow"):
        tables.choose(ROOT, FOUND, ("02",), ("2",))


def test_pairs_of_a_folder_and_a_table_are_compared():
    spell = tables.comparer([("sub-01", "run-1")], [("1", "run01"), ("2", "run01")])
    assert spell(("sub-01", "run-1")) == spell(("1", "run01")) != spell(("2", "run01"))
    spell = tables.comparer([("sub-01", "run-1")], [("1", "a"), ("01", "a")])
    assert spell(("sub-01", "a")) != spell(("1", "a")) != spell(("01", "a"))


def test_rows_are_numbered_by_their_tidied_names():
    named = [["b", " a", "n/a"], ["a ", "", "b"]]
    classes, numbers = tables.classify(ROOT, named)
    assert classes == ("a", "b")
    np.testing.assert_array_equal(numbers, [[1, 0, -1], [0, -1, 1]])
    classes, numbers = tables.classify(ROOT, named, "x=b;y=a")
    assert classes == ("x", "y") and [n.tolist() for n in numbers] == [[0, 1, -1], [1, -1, 0]]
    _, numbers = tables.classify(ROOT, named, classes=("b", "a"))
    assert numbers[0].tolist() == [0, 1, -1]
