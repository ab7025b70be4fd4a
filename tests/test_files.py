"""Files and folders appear whole or not at all; trees and tables come back as they were."""

import csv
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emojax.files import (
    atomic_folder,
    atomic_write,
    flatten,
    split_list,
    unflatten,
    write_csv,
)

quick = settings(derandomize=True, deadline=None, max_examples=50)
names = st.text("abc", min_size=1, max_size=3)
arrays = st.integers(0, 3).map(lambda n: np.arange(n, dtype=np.float32))
trees = st.recursive(
    arrays,
    lambda inner: (
        st.dictionaries(names, inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=6,
)


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert not path.exists() and partial.parent == tmp_path
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_at_the_end_and_replaces_the_old_one(tmp_path):
    folder = tmp_path / "deep" / "bundle"
    with atomic_folder(folder) as partial:
        (partial / "a").write_text("1")
        assert not folder.exists()
    assert (folder / "a").read_text() == "1"
    with atomic_folder(folder) as partial:
        (partial / "b").write_text("2")
        assert (folder / "a").exists()  # the old one stays until the new one is whole
    assert [path.name for path in folder.iterdir()] == ["b"]
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_failure_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "a").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(folder) as partial:
        (partial / "a").write_text("half")
        raise RuntimeError
    assert (folder / "a").read_text() == "1" and list(tmp_path.iterdir()) == [folder]


def test_processes_of_one_number_write_under_names_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)  # as in every container
    for write in (atomic_write, atomic_folder):
        with write(tmp_path / "a") as one, write(tmp_path / "a") as other:
            assert one != other
            for each in (one, other) if write is atomic_write else ():
                each.write_text(each.name)
        (tmp_path / "a").unlink() if write is atomic_write else None
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(tmp_path, monkeypatch):
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "a").write_text("1")
    whole = os.replace

    def replace(source, target):
        if str(source).startswith(str(tmp_path / ".bundle-")):
            raise OSError("disk full")
        whole(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="disk full"), atomic_folder(folder) as partial:
        (partial / "a").write_text("2")
    assert (folder / "a").read_text() == "1" and list(tmp_path.iterdir()) == [folder]


@quick
@given(trees.filter(lambda tree: not isinstance(tree, np.ndarray)))
def test_trees_come_back(tree):
    flat = flatten(tree)
    assert all(isinstance(array, np.ndarray) for array in flat.values())
    assert_same(unflatten(flat), tree)


def assert_same(a, b):
    if isinstance(b, dict):
        assert a.keys() == b.keys()
        for name in b:
            assert_same(a[name], b[name])
    elif isinstance(b, list):
        assert isinstance(a, list) and len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


def test_names_of_leaves_are_paths():
    assert [*flatten({"a": [1, {"b": 2}], "c": (3,)})] == ["a/0", "a/1/b", "c/0"]
    assert unflatten({"a/0": 1, "a/1": 2}) == {"a": [1, 2]}
    assert unflatten({}) == {}


def test_long_lists_keep_their_order():
    numbers = {"a": [np.int64(i) for i in range(12)]}
    assert [int(n) for n in unflatten(flatten(numbers))["a"]] == list(range(12))
    shuffled = dict(sorted(flatten(numbers).items()))  # "a/10" before "a/2"
    assert [int(n) for n in unflatten(shuffled)["a"]] == list(range(12))


def test_tables_have_six_digits(tmp_path):
    path = tmp_path / "t.csv"
    columns = {"name": np.array(["a,b", "c"]), "x": np.array([1 / 3, 2e-9]), "n": np.arange(2)}
    write_csv(path, columns)
    rows = list(csv.reader(path.open(newline="")))
    assert rows == [["name", "x", "n"], ["a,b", "0.333333", "0"], ["c", "2e-09", "1"]]
    with pytest.raises(ValueError, match="zip"):
        write_csv(tmp_path / "u.csv", columns | {"short": np.arange(1)})
    assert list(tmp_path.iterdir()) == [path]


def test_lists_of_a_setting():
    assert split_list("01, 02 ,,03") == ("01", "02", "03")
    assert split_list("") == split_list(" , ") == ()
