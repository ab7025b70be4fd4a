"""MATLAB files of version 5: real ones as scipy reads them, and damage that ends in one error."""

import pathlib
import random
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from emojax.data import matlab, matlab5
from emojax.errors import InputError

REAL = pathlib.Path(scipy.io.matlab.__file__).parent / "tests" / "data"  # written by MATLAB
KNOWN = ("testcell", "testcomplex", "testdouble", "testmatrix", "testmulti", "teststring")
KNOWN += ("testemptycell", "testcellnest", "testunicode", "test3dmatrix", "testminus")


def same(ours, theirs):
    """Compares arrays, and cells by their contents."""
    theirs = np.asarray(theirs)
    if theirs.dtype == object:
        assert ours.dtype == object and ours.shape == theirs.shape
        for a, b in zip(ours.flat, theirs.flat, strict=True):
            same(a, b)
    elif theirs.dtype.kind == "U":
        assert "".join(ours.ravel()).rstrip() == "".join(theirs.ravel()).rstrip()
    else:
        assert ours.dtype == theirs.dtype.newbyteorder("=") and ours.shape == theirs.shape
        np.testing.assert_array_equal(ours, theirs)


def real_files():
    names = [path.name for path in REAL.glob("*.mat")] if REAL.is_dir() else []
    return sorted(n for n in names if n.startswith(KNOWN) and "4.2c" not in n) or [None]


@pytest.mark.parametrize("name", real_files())
def test_reads_what_matlab_has_written(name):
    if name is None:
        pytest.skip("scipy came without its data")
    theirs = scipy.io.loadmat(REAL / name)
    names = [key for key in theirs if not key.startswith("__")]
    ours, have = matlab5.read(REAL / name, names)
    assert set(names) <= set(have)
    for key in names:
        same(ours[key], theirs[key])


def cells(*values):
    out = np.empty((1, len(values)), object)
    out[0] = values
    return out


CONTENT = {
    "a": np.arange(24.0).reshape(2, 3, 4),
    "b": np.array([[1, 2, 3]], np.int16),
    "c": cells(np.ones((2, 2), np.float32), "text", cells(1.0, "x")),
    "d": np.array([[1 + 2j, 3]]),
    "e": np.array(["ab", "cd"]),
    "f": np.array([[True, False]]),
    "g": np.zeros((0, 3)),
}


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_scipy_has_written(tmp_path, compressed):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, CONTENT, do_compression=compressed)
    theirs = scipy.io.loadmat(path)
    ours, have = matlab5.read(path, list(CONTENT))
    assert have == sorted(CONTENT)
    for key in CONTENT:
        same(ours[key], theirs[key])


@pytest.mark.parametrize("value", [{"a": 1.0}, scipy.sparse.csc_array(np.eye(2))])
def test_other_kinds_may_be_there_but_are_not_read(tmp_path, value):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"x": value, "y": np.ones((1, 2))})
    assert matlab.read(path, ("y",))["y"].tolist() == [[1, 1]]
    with pytest.raises(InputError, match="x is no array of numbers, text or cells"):
        matlab.read(path, ("x",))


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_an_input_error(tmp_path, compressed):
    """Any changed byte leaves the process alive, and all that is read has a valid shape."""
    path, rng = tmp_path / "a.mat", random.Random(0)
    scipy.io.savemat(path, CONTENT, do_compression=compressed)
    whole, refused = path.read_bytes(), 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 3])):
            data[rng.randrange(124, len(data))] = rng.choice([0, 255, rng.randrange(256)])
        path.write_bytes(bytes(data[: rng.choice([len(data), rng.randrange(len(data))])]))
        try:
            matlab.read(path, list(CONTENT))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 500


def test_refuses_a_bomb(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"a": np.zeros((1, 2))})
    whole = path.read_bytes()
    matrix = bytearray(whole[128:])
    matrix[4:8] = (2**32 - 8).to_bytes(4, "little")
    packed = zlib.compress(bytes(matrix) + bytes(10**6))
    path.write_bytes(whole[:128] + b"\x0f\0\0\0" + len(packed).to_bytes(4, "little") + packed)
    with pytest.raises(InputError, match=r"found a of 4,294,967,296 bytes in [\d,]+ stored ones"):
        matlab.read(path, ("a",))
