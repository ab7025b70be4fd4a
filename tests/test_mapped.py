"""Mapped arrays keep their values when their memory is given back."""

import sys

import numpy as np
import pytest

from emojax.data import mapped


def resident():
    """Returns the memory of this process that is mapped from files, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("RssFile"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_memory_is_given_back_and_values_stay(tmp_path):
    want = np.random.default_rng(0).normal(size=(8, 100, 100, 25))
    np.save(tmp_path / "a.npy", want)
    array = np.load(tmp_path / "a.npy", mmap_mode="r").transpose(0, 3, 2, 1)
    before = resident()
    total = array.sum()
    assert resident() - before > 0.9 * want.nbytes
    mapped.let_go(array)
    assert resident() - before < 0.1 * want.nbytes
    assert array.sum() == total
    np.testing.assert_array_equal(array, want.transpose(0, 3, 2, 1))


def test_what_is_in_memory_or_may_be_changed_is_left_alone(tmp_path):
    mapped.let_go(np.ones(3))
    np.save(tmp_path / "a.npy", np.zeros(5000))
    changed = np.load(tmp_path / "a.npy", mmap_mode="c")
    changed[:] = 1
    mapped.let_go(changed)
    mapped.let_go(changed[::2])
    assert (changed == 1).all()
