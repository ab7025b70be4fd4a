"""Archives of arrays: read by their headers, refused before they fill the memory."""

import io
import pickle
import warnings
import zipfile

import numpy as np
import pytest

from emojax.data.archives import read
from emojax.errors import InputError

ARRAYS = {
    "a/0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array([True, False]),
    "c": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "d": np.array("text"),
    "e": np.zeros((0, 3)),
}


def header(descr="<f8", shape="(3,)", version=(1, 0)):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes(version) + len(text).to_bytes(2, "little") + text


def write(path, name, content, how=zipfile.ZIP_STORED):
    np.savez(path, **ARRAYS)
    with zipfile.ZipFile(path, "a", how) as file:
        file.writestr(name, content)


def test_what_numpy_writes(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)
    got = read(path)
    assert [*got] == [*ARRAYS]
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype
    np.savez(path, x=np.arange(3, dtype=">f4"))  # from another machine
    assert read(path)["x"].dtype == np.float32 and read(path)["x"].dtype.isnative
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=1000))
    assert read(path)["x"].shape == (1000,)
    with pytest.raises(InputError, match="found x of 8,000 bytes in"):
        read(path, shrinks=0.5, largest=0)


def test_only_what_is_asked_for_is_looked_at(tmp_path):
    path = tmp_path / "a.npz"
    write(path, "z.npy", header("|O") + bytes(24))
    assert [*read(path, {"b", "d"})] == ["b", "d"]
    with pytest.raises(InputError, match="of Python objects"):
        read(path)


def test_headers_are_checked_before_an_array_is_unpacked(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **ARRAYS)
    seen = {}
    read(path, check=seen.update)
    assert seen["a/0"].shape == (2, 3) and seen["a/0"].dtype == np.float32

    def refuse(headers):
        raise InputError(path, "what I do not want", "something else")

    with pytest.raises(InputError, match="what I do not want"):
        read(path, check=refuse)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("z.npy", header(shape="(10000000000000,)"), "0 bytes of z.npy"),
        ("z.npy", header(shape="(-1,)"), "bytes of z.npy"),
        ("z.npy", header() + bytes(16), "16 bytes of z.npy; expected 24 as its header says"),
        ("z.npy", header("|O") + bytes(24), "of Python objects"),
        ("z.npy", header(version=(9, 0)) + bytes(24), "version"),
        ("z.npy", header("__import__('os').system('true')"), "no readable arrays"),
        ("notes.txt", b"hello", "no readable arrays"),
        ("b.npy", header() + bytes(24), "b twice"),
    ],
)
def test_a_member_with_one_thing_wrong(tmp_path, name, content, said):
    path = tmp_path / "a.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a second member of one name
        write(path, name, content)
    with pytest.raises(InputError, match=r"a\.npz: found ") as refused:
        read(path)
    assert said in str(refused.value)


def test_bombs_are_refused_before_they_are_inflated(tmp_path):
    path = tmp_path / "a.npz"
    content = header("|u1", "(80000000,)") + bytes(80_000_000)
    write(path, "z.npy", content, zipfile.ZIP_DEFLATED)
    for limits in ({"shrinks": 1, "largest": 0}, {"largest": 10_000_000}):
        with pytest.raises(InputError, match="found z of 80,000,000 bytes in"):
            read(path, **limits)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"ustar" * 200, pickle.dumps({"x": 1}), b"PK\x05\x06" + bytes(17)],
    ids=["empty", "zero", "tar", "pickle", "cut"],
)
def test_no_archive(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz: found no readable arrays"):
        read(tmp_path / "a.npz")
    with pytest.raises(InputError, match="found something that is not a file"):
        read(tmp_path)


def test_a_plain_array_is_none(tmp_path):
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    (tmp_path / "a.npz").write_bytes(out.getvalue())
    with pytest.raises(InputError, match="found no readable arrays"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_is_found_or_harmless(tmp_path, seed):
    path, rng = tmp_path / "a.npz", np.random.default_rng(seed)
    np.savez(path, **ARRAYS)
    data = bytearray(path.read_bytes())
    for place in rng.integers(len(data), size=3):
        data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    try:
        read(path)
    except InputError as error:
        assert "\n" not in str(error)
