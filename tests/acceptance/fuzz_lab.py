"""Files of the lab that cannot be: .mat of both formats, aligned vectors."""

import shutil

import h5py
import numpy as np
import scipy.sparse
from fuzz_cases import Case, cell, change, h5, mat, move, rows
from fuzz_files import SOURCES
from fuzz_inputs import SHAPE

V7_3 = "E3_run1_x.mat"


def cases():
    """Yields the cases of the lab's files beyond damaged ones."""
    yield from _mat()
    yield from _hdf5()
    yield from _vectors()


def _mat():
    volume = np.ones(SHAPE, np.float32)
    good = {
        "I": cell(*[volume] * 3),
        "I_test": cell(*[volume] * 3),
        "labels": [[0, 1, 2]],
        "labels_test": [[0, 1, 2]],
    }
    argv = SOURCES["lab"][0]
    for name, part in (
        ("labels text", {"labels": "abc"}),
        ("labels 3", {"labels": [[0, 1, 3]]}),
        ("labels nan", {"labels": [[0, 1, np.nan]]}),
        ("labels 1.5", {"labels": [[0, 1, 1.5]]}),
        ("labels 2-D", {"labels": np.zeros((2, 2))}),
        ("labels too few", {"labels": [[0, 1]]}),
        ("labels empty", {"labels": np.zeros((0, 0))}),
        ("I no cell", {"I": volume}),
        ("I empty", {"I": cell()}),
        ("I of text", {"I": cell("a", "b", "c")}),
        ("I of other shapes", {"I": cell(volume, volume[:8], volume)}),
        ("I 2-D", {"I": cell(*[volume[0]] * 3)}),
        ("I nan", {"I": cell(volume * np.nan, volume, volume)}),
        ("I complex", {"I": cell(volume * 1j, volume, volume)}),
        ("I nested", {"I": cell(cell(volume), volume, volume)}),
        ("no I_test", {"I_test": None}),
        ("labels a struct", {"labels": {"a": 1}}),
        ("labels cells", {"labels": cell(0, 1, 2)}),
        ("labels sparse", {"labels": scipy.sparse.csc_array([[0.0, 1, 2]])}),
        ("I of sparse matrices", {"I": cell(*[scipy.sparse.csc_array(volume[0])] * 3)}),
        ("I beyond float32", {"I": cell(volume.astype(float) * 1e300, volume, volume)}),
    ):
        content = {k: v for k, v in (good | part).items() if v is not None}
        yield Case("lab:mat", name, mat("E1_run1_x.mat", **content), argv)
    yield Case("lab:mat", "name without run", move("E1_run1_x.mat", "E1.mat"), argv)
    yield Case("lab:mat", "same run twice", _copy, argv)
    yield Case("lab:mat", "superscript run", move("E1_run1_x.mat", "E1_run\u00b2_x.mat"), argv)


def _copy(folder):
    shutil.copy(folder / "E1_run1_x.mat", folder / "E1_run1_y.mat")


def _hdf5():
    def put(name, value):
        def edit(file):
            del file[name]
            file[name] = value() if callable(value) else value

        return edit

    def selfish(file):
        file["I"][0, 0] = file["I"].ref

    def nullish(file):
        file["I"][0, 0] = h5py.Reference()

    def grouped(file):
        del file["labels"]
        file.create_group("labels")

    def unclassed(file):
        file["I"].attrs["MATLAB_class"] = 7

    def elsewhere(folder):
        """Moves the labels into a second file and links to it; the link leads outside."""
        with h5py.File(folder / V7_3, "r+") as file, h5py.File(folder / "other.h5", "w") as other:
            other["x"] = file["labels"][()]
            del file["labels"]
            file["labels"] = h5py.ExternalLink("other.h5", "/x")

    def virtual(folder):
        """Makes the labels a virtual data set: their values are in a second file."""
        with h5py.File(folder / V7_3, "r+") as file, h5py.File(folder / "other.h5", "w") as other:
            other["x"] = file["labels"][()]
            layout = h5py.VirtualLayout(file["labels"].shape, file["labels"].dtype)
            layout[...] = h5py.VirtualSource("other.h5", "x", file["labels"].shape)
            del file["labels"]
            file.create_virtual_dataset("labels", layout)

    def raw(folder):
        """Makes the labels' bytes those of another file."""
        (folder / "other.bin").write_bytes(np.array([0, 1, 2, 0, 1, 2], float).tobytes())
        with h5py.File(folder / V7_3, "r+") as file:
            del file["labels"]
            place = [(str(folder / "other.bin"), 0, 48)]
            file.create_dataset("labels", (6, 1), float, external=place)

    yield from rows(
        "lab:hdf5",
        SOURCES["lab"][0],
        (
            ("cell of itself", h5(V7_3, selfish)),
            ("null reference", h5(V7_3, nullish)),
            ("labels a group", h5(V7_3, grouped)),
            (
                "labels an external link",
                h5(V7_3, put("labels", lambda: h5py.ExternalLink("/nowhere.h5", "/x"))),
            ),
            ("labels in another file", elsewhere),
            ("labels of a virtual data set", virtual),
            ("labels of raw bytes elsewhere", raw),
            ("a link loop", h5(V7_3, put("labels", lambda: h5py.SoftLink("/labels")))),
            ("class a number", h5(V7_3, unclassed)),
        ),
    )


def _vectors():
    x, y = "X_hyp_v2.csv", "Y_hyp_v2.csv"

    def first(line):
        return lambda data: line + b"\n" + data.split(b"\n", 1)[1]

    yield from rows(
        "vectors",
        SOURCES["vectors"][0],
        [
            (f"{file} {name}", change(file, fill))
            for file, name, fill in (
                (x, "cell text", lambda d: d.replace(b",", b",x", 1)),
                (x, "cell nan", first(b"nan,1,1,1")),
                (x, "one row more", lambda d: d + b"1,1,1,1\n"),
                (x, "ragged", lambda d: d + b"1,1\n"),
                (x, "semicolons", lambda d: d.replace(b",", b";")),
                (x, "cell 1e39", first(b"1e39,1,1,1")),
                (x, "cell -1e300", first(b"-1e300,1,1,1")),
                (y, "class 7", first(b"7")),
                (y, "class -1", first(b"-1")),
                (y, "class nan", first(b"nan")),
                (y, "two columns", lambda d: d.replace(b"\n", b",1\n")),
                (y, "two rows fewer", lambda d: d.split(b"\n", 2)[2]),
            )
        ],
    )
