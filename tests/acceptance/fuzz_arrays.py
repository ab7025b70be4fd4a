"""Arrays that cannot be: values, labels, runs and classes, and archives that are none."""

import os
import pickle
import zipfile

import numpy as np
from fuzz_cases import MAY, MUST, Case, data_argv, move, nothing, put, rows
from fuzz_files import SOURCES
from fuzz_inputs import arrays


def cases(seed):
    """Yields the cases of arrays beyond damaged files."""
    x = np.random.default_rng(seed).normal(size=(24, 60)).astype(np.float32)
    argv = SOURCES["arrays"][0]
    for name, part in (*_values(x), *_labels(), *_runs_and_classes()):
        yield Case("arrays", name, _one(**part), argv)
    yield from _archives(x, argv)


def _values(x):
    return (
        ("x text", {"x": np.full((24, 60), "a")}),
        ("x complex", {"x": x * 1j}),
        ("x bool", {"x": x > 0}),
        ("x 1-D", {"x": x[:, 0]}),
        ("x 3-D", {"x": x[None]}),
        ("x scalar", {"x": np.float32(1)}),
        ("x no rows", {"x": x[:0]}),
        ("x no columns", {"x": x[:, :0]}),
        ("x fewer rows", {"x": x[:5]}),
        ("x nan", {"x": np.where(x == x[0, 0], np.nan, x)}),
        ("x inf", {"x": x * np.float32(np.inf)}),
        ("x 1e300", {"x": x.astype(float) * 1e300}),
        ("x one value 1e39", {"x": np.where(x == x[0, 0], 1e39, x.astype(float))}),
        ("x missing", {"x": None}),
        ("x objects", {"x": np.array([[None] * 60] * 24, object)}),
        ("x dates", {"x": np.zeros((24, 60), "M8[s]")}),
        ("x records", {"x": np.zeros((24, 60), "f4,f4")}),
        ("x nan everywhere", {"x": x * np.nan}),
    )


def _labels():
    return (
        ("y missing", {"y": None}),
        ("y float", {"y": np.zeros(24)}),
        ("y negative", {"y": np.tile([0, 1, -1], 8)}),
        ("y 7", {"y": np.tile([0, 1, 7], 8)}),
        ("y uint64 huge", {"y": np.full(24, 2**64 - 1, np.uint64)}),
        ("y unknown text", {"y": np.tile(["a", "b", "c"], 8)}),
        ("y scalar", {"y": np.array(1)}),
        ("y objects", {"y": np.array([0] * 24, object)}),
        ("y bytes", {"y": np.tile([b"rest", b"neutral", b"negative"], 8)}),
    )


def _runs_and_classes():
    return (
        ("run missing", {"run": None}),
        ("run float", {"run": np.zeros(24)}),
        ("run 2-D", {"run": np.zeros((24, 2), int)}),
        ("run objects", {"run": np.array([0] * 24, object)}),
        ("classes one", {"classes": np.array(["a"])}),
        ("classes twice", {"classes": np.array(["a", "a", "b"])}),
        ("classes numbers", {"classes": np.arange(3)}),
        ("classes others", {"classes": np.array(["a", "b", "c"])}),
        ("classes 2-D", {"classes": np.array([["rest", "neutral", "negative"]])}),
        ("classes empty text", {"classes": np.array(["", "neutral", "negative"])}),
        ("classes scalar", {"classes": np.array("rest")}),
        ("classes objects", {"classes": np.array(["a", None], object)}),
    )


def _archives(x, argv):
    header = "{'descr': '%s', 'fortran_order': False, 'shape': (%s,), }\n"
    zeros = bytes(800_000_000)
    yield from rows(
        "arrays:file",
        argv,
        (
            ("member x.npy a second time", _member("x.npy", b"junk")),
            ("member ../evil.npy", _member("../evil.npy", b"x"), MAY),
            ("member of text", _member("notes.txt", b"hello"), MAY),
            (
                "member of a huge shape",
                _member("z.npy", _shaped(header % ("<f8", 10**13))),
                MAY,
            ),
            (
                "member that is a bomb",
                _member("z.npy", _shaped(header % ("|u1", 8 * 10**8)), zeros),
                MAY,
            ),
            (
                "x that is a bomb",
                _only("x.npy", _shaped(header % ("|u1", "800000, 1000")), zeros),
            ),
            ("x of a huge shape", _only("x.npy", _shaped(header % ("<f8", "10000000000, 1000")))),
            ("x that is text", _only("x.npy", b"hello")),
            ("x without .npy", _only("x", b"hello")),
            (
                "member whose header is code",
                _member("z.npy", _shaped("__import__('os').system('touch fuzz-pwned')\n")),
                MAY,
            ),
            ("member with a negative shape", _member("z.npy", _shaped(header % ("<f8", -1))), MAY),
            ("a tar", put("s1.npz", b"ustar" * 200)),
            ("a plain .npy", _plain),
            ("a pickle", put("s1.npz", pickle.dumps({"x": 1}))),
            ("an empty zip", lambda f: zipfile.ZipFile(f / "s1.npz", "w").close()),
            ("other voxels", _one(x=x[:, :30]), MAY),
            ("subject with markup", move("s1.npz", "[b]x[-b].npz"), MAY),
            ("subject that closes a tag", move("s1.npz", "[\u2215b].npz"), MAY),
            ("subject that is not utf-8", _renamed(b"\xff.npz"), MAY),
            (
                "run that closes a tag",
                _one(run=np.repeat(["[/red]", "b"], 12)),
                MAY,
            ),
            (
                "run names with newline",
                _one(run=np.repeat(["a\nb", "b"], 12)),
                MAY,
            ),
            ("class that closes a tag", _classes("[/b]", "n", "m"), MAY),
            ("class that is a formula", _classes("=cmd|' /C calc'!A0", "n", "m"), MAY),
            ("no file", lambda f: [p.unlink() for p in f.glob("*.npz")]),
            ("unknown run", nothing, MUST, data_argv("arrays", "--config.data.runs=9")),
            (
                "unknown class in label_map",
                nothing,
                MUST,
                data_argv("arrays", "--config.data.label_map=a=x;b=y"),
            ),
        ),
    )


def _one(**change):
    """Writes the first subject's file with other arrays."""
    return lambda folder: arrays(folder / "s1.npz", **change)


def _member(name, *content):
    """Appends a member to an archive that has all others."""

    def prepare(folder):
        with zipfile.ZipFile(folder / "s1.npz", "a", zipfile.ZIP_DEFLATED) as file:
            file.writestr(name, b"".join(content))

    return prepare


def _only(name, *content):
    """Appends a member to an archive without x."""

    def prepare(folder):
        arrays(folder / "s1.npz", x=None)
        _member(name, *content)(folder)

    return prepare


def _shaped(text):
    """Returns the start of an .npy file with a header of that text."""
    raw = text.encode()
    return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw


def _plain(folder):
    with open(folder / "s1.npz", "wb") as file:
        np.save(file, np.zeros(3))


def _renamed(name):
    return lambda folder: os.rename(folder / "s1.npz", os.path.join(os.fsencode(folder), name))


def _classes(*names):
    return lambda folder: [arrays(p, classes=np.array(names)) for p in folder.glob("*.npz")]
