"""Files of Keras weights that cannot be."""

import sys

import h5py
import numpy as np
from fuzz_cases import CERTAIN, GOOD, MAY, MUST, Case, damage, nothing, swap
from fuzz_cases import h5 as in_file

FILE, KERNEL = "weights.h5", "dense_1/dense_1/kernel:0"


def call(folder):
    """Imports the weights, and ends as a command does."""
    from emojax.models import keras_import
    from emojax.models.cnn1d import CNN1D

    try:
        keras_import.import_cnn1d(folder / FILE, CNN1D(), 60)
    except (ValueError, FileNotFoundError) as error:  # as its docstring says
        print(str(error).replace("\n", " "), file=sys.stderr)
        return 2 if "\n" not in str(error) else 3
    return 0


def cases(rng):
    """Yields the cases of Keras files."""
    found = [("undamaged", nothing, GOOD)]
    found += [(kind, damage(FILE, kind, rng), MUST) for kind in CERTAIN]
    kinds = ("truncated", "bits", "head", "zeroed", "inserted", "removed") * 3
    found += [(kind, damage(FILE, kind, rng), MAY) for kind in kinds]
    for name, step, rule in (*found, *_layout(), *_tensors()):
        yield Case("keras", name, step, None, rule, call)


def _layout():
    table = (
        ("layer_names a number", _attribute("layer_names", 7)),
        ("layer_names numbers", _attribute("layer_names", [1, 2])),
        ("layer_names empty", _attribute("layer_names", np.array([], "S1"))),
        ("layer_names not utf-8", _attribute("layer_names", [b"\xff"])),
        ("layer_names a path up", _attribute("layer_names", [b"../../x"])),
        ("layer_names unknown", _attribute("layer_names", [b"lstm_1"])),
        ("weight_names a number", _attribute("weight_names", 7, "dense_1")),
        ("weight_names missing", _edit(lambda f: f["dense_1"].attrs.pop("weight_names"))),
        ("weight_names unknown", _attribute("weight_names", [b"dense_1/x:0"], "dense_1")),
        ("a model of another project", _edit(lambda f: f.attrs.pop("layer_names"))),
        ("a layer that is a tensor", _replace("dense_1", np.zeros(3))),
        ("a folder", swap(FILE, "folder")),
        ("missing", swap(FILE, "missing")),
    )
    return [(name, step, MUST) for name, step in table]


def _tensors():
    def elsewhere(folder):
        """Moves a tensor into a second file and links to it; the link leads outside."""
        with h5py.File(folder / FILE, "r+") as file, h5py.File(folder / "b.h5", "w") as other:
            other["x"] = file[KERNEL][()]
            del file[KERNEL]
            file[KERNEL] = h5py.ExternalLink("b.h5", "/x")

    def grouped(file):
        del file[KERNEL]
        file.create_group(KERNEL)

    def bomb(file):
        del file[KERNEL]
        file.create_dataset(KERNEL, (10**6, 10**6), "f4", chunks=(1000, 1000))

    table = (
        ("a tensor missing", _replace(KERNEL, None)),
        ("a tensor of another shape", _replace(KERNEL, np.zeros((3, 3)))),
        ("a tensor of text", _replace(KERNEL, b"abc")),
        ("a tensor complex", _replace(KERNEL, np.zeros((384, 1024), complex))),
        ("a tensor that is a group", _edit(grouped)),
        ("a tensor of 4 TB", _edit(bomb)),
        ("an external link", _replace(KERNEL, h5py.ExternalLink("/nowhere", "/x"))),
        ("a tensor in another file", elsewhere),
        ("a dangling soft link", _replace(KERNEL, h5py.SoftLink("/x"))),
        ("a link loop", _replace(KERNEL, h5py.SoftLink("/" + KERNEL))),
    )
    values = ("nan", _edit(lambda f: f[KERNEL].__setitem__(Ellipsis, np.nan)), MAY)
    return [*((name, step, MUST) for name, step in table), values]


def _edit(change):
    return in_file(FILE, change)


def _attribute(name, value, group=None):
    return _edit(lambda f: (f[group] if group else f).attrs.__setitem__(name, value))


def _replace(name, value):
    def edit(file):
        del file[name]
        if value is not None:
            file[name] = value

    return _edit(edit)
