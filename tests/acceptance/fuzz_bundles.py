"""Bundles that cannot be, and images that a decoder cannot read."""

import functools

import nibabel as nib
import numpy as np
from fuzz_cases import (
    CERTAIN,
    GOOD,
    MAY,
    MUST,
    Case,
    change,
    damage,
    header,
    image,
    manifest,
    nothing,
    npz,
    put,
    rows,
    swap,
)
from fuzz_identity import CONTEXT, WEIGHTS, bombs, decode, identities
from fuzz_inputs import FRAMES, SHAPE, VOXELS, nifti, scan

F = np.float32
NAN, INF = float("nan"), float("inf")
CALIBRATION = "decoder/calibration.npz"
FILES = ("manifest.json", "weights.npz", "context.npz", "program.bin", "decoder_numpy.py")


def decoding(name="run.nii", bundle="decoder"):
    """Returns `decode` of another image or decoder."""
    return lambda folder, work: decode(folder, work, name, bundle)


def calibrate(*more, bundle="decoder", name="run.nii"):
    """Returns the flags that calibrate a decoder."""
    return lambda folder, work: [
        "--mode=calibrate",
        f"--bundle={folder}/{bundle}",
        f"--input={folder}/{name}",
        f"--workdir={work}",
        *more,
    ]


def cases(rng):
    """Yields the cases of decoders."""
    yield Case("bundle", "undamaged", nothing, decode, GOOD)
    for file in FILES:
        for kind in ("empty", "truncated", "bits", "zeroed", "garbage"):
            may = kind == "zeroed" or (file, kind) == ("manifest.json", "bits")
            rule = MAY if may else MUST  # zeros may replace zeros
            step = damage(f"decoder/{file}", kind, rng)
            yield Case("bundle", f"{file} {kind}", step, decode, rule)
        for what in ("missing", "folder", "link", "loop", "fifo"):
            yield Case("bundle", f"{file} {what}", swap(f"decoder/{file}", what), decode)
    yield from rows("bundle:manifest", decode, _manifests())
    yield from rows("bundle:manifest", decode, _facts())
    yield from rows("bundle:id", decode, identities())
    yield from rows("bundle:bomb", decode, bombs())
    for what in ("folder", "link", "loop", "fifo"):
        step = swap(CALIBRATION, what)
        yield Case("bundle", f"calibration.npz {what}", step, calibrate("--subject=x"))
    step = swap(CALIBRATION, "missing")
    yield Case("bundle", "decoded without calibration.npz", step, decode, GOOD)
    yield Case("bundle", "calibrated without calibration.npz", step, calibrate("--subject=x"))
    yield from rows("bundle:arrays", decode, (*_weights(), *_contexts()))
    yield from rows("bundle:image", decode, _images())
    for kind in ("empty", "garbage", "truncated", "bits", "bits", "zeroed", "removed"):
        step, rule = damage("run.nii.gz", kind, rng), MUST if kind in CERTAIN else MAY
        yield Case("bundle:image", f".nii.gz {kind}", step, decoding("run.nii.gz"), rule)
    yield from _calibrations()


def _manifests():
    path = "decoder/manifest.json"

    def drop(name):
        return manifest(lambda m: m.pop(name) and None)

    def other(**change_):
        return manifest(lambda m: m | change_)

    return (
        ("a list", manifest(lambda m: [1])),
        ("null", put(path, "null")),
        ("not utf-8", put(path, b"\xff")),
        ("deep", put(path, "[" * 100000)),
        ("no facts", drop("facts")),
        ("facts a list", other(facts=[])),
        ("no network", drop("network")),
        ("unknown network", other(network="x")),
        ("network of B", other(network="resnet3d")),
        ("network a list", other(network=[])),
        ("network a path", other(network="os:system")),
        ("hashes a list", other(sha256=[])),
        ("hashes null", other(sha256=None)),
        ("another format", other(format=99)),
        ("format text", other(format="1")),
        ("format true", other(format=True), MAY),
        ("no format", drop("format")),
    )


def _facts():
    def fact(**change_):
        return manifest(lambda m: m["facts"].update(change_))

    table = (
        ("classes null", fact(classes=None)),
        ("two classes", fact(classes=["a", "b"])),
        ("four classes", fact(classes=["a", "b", "c", "d"])),
        ("classes a text", fact(classes="abc")),
        ("classes numbers", fact(classes=[1, 2, 3])),
        ("classes the same", fact(classes=["a", "a", "a"])),
        ("classes nested", fact(classes=[["a"], "b", "c"])),
        ("grid two", fact(grid=[16, 16])),
        ("grid other", fact(grid=[16, 16, 13])),
        ("grid text", fact(grid="abc")),
        ("grid huge", fact(grid=[10**30, 16, 12])),
        ("level nan", fact(level=NAN)),
        ("level text", fact(level="x")),
        ("level null", fact(level=None)),
        ("level true", fact(level=True)),
        ("spread 0", fact(spread=0)),
        ("spread nan", fact(spread=NAN)),
        ("spread negative", fact(spread=-1)),
        ("spread huge", fact(spread=1e308)),
        ("spread infinite", fact(spread=INF)),
        ("tr negative", fact(tr=-2)),
        ("tr text", fact(tr="2")),
        ("subject a number", fact(subject=7)),
        ("runs a text", fact(runs="ab")),
        ("runs numbers", fact(runs=[1, 2])),
        ("alignment of another option", fact(alignment=[["x", 1]])),
        ("alignment a number", fact(alignment=7)),
        ("unknown fact", fact(x=1)),
        ("provenance numbers", fact(provenance=[1])),
        ("preprocessing null", fact(preprocessing=None)),
    )
    return (("no classes", manifest(lambda m: m["facts"].pop("classes") and None)), *table)


def _weights():
    def w(**arrays):
        return npz(WEIGHTS, True, **arrays)

    yield from (
        ("voxels out of range", w(voxels=np.full(VOXELS, 10**6, np.int32))),
        ("voxels negative", w(voxels=np.full(VOXELS, -5, np.int32))),
        ("voxels float", w(voxels=np.zeros(VOXELS, F))),
        ("voxels fewer", w(voxels=np.zeros(30, np.int32))),
        ("voxels 2-D", w(voxels=np.zeros((60, 2), np.int32))),
        ("voxels missing", w(drop=("voxels",))),
        ("voxels twice the same", w(voxels=np.zeros(VOXELS, np.int32)), MAY),
        ("weights of objects", w(voxels=np.array([None], object))),
        ("weights text", w(voxels=np.array(["a"]))),
        ("an extra array", w(extra=np.zeros(3)), MAY),
        ("a path up", w(**{"../../x": np.zeros(3)}), MAY),
        ("a name twice as deep", w(**{"voxels/0": np.zeros(3)})),
    )
    for name, fill in (
        ("nan", lambda a: a * np.nan),
        ("first missing", None),
        ("first transposed", lambda a: a.T),
        ("first float64", lambda a: a.astype(float)),
        ("first huge", lambda a: a / np.abs(a).max() * F(3e38)),
        ("first complex", lambda a: a.astype(complex)),
        ("first int", lambda a: a.astype(int)),
    ):
        yield (
            f"weights {name}",
            functools.partial(_first, fill=fill),
            MAY if name in ("first float64", "first int") else MUST,
        )


def _first(folder, fill):
    """Changes the first matrix of the weights."""
    path = folder / WEIGHTS
    with np.load(path) as old:
        content = {k: old[k] for k in old.files}
    key = next(k for k, v in content.items() if v.dtype.kind == "f" and v.ndim == 2)
    value = content.pop(key)
    np.savez(path, **(content if fill is None else content | {key: fill(value)}))
    manifest(lambda m: None)(folder)


def _contexts():
    def c(**arrays):
        return npz(CONTEXT, True, **arrays)

    return (
        ("mask of another grid", c(mask=np.ones((3, 3, 3), bool))),
        ("mask empty", c(mask=np.zeros(SHAPE, bool))),
        ("mask float", c(mask=np.ones(SHAPE, F))),
        ("mask missing", c(drop=("mask",))),
        ("mask of objects", c(mask=np.array([None], object))),
        ("affine 3 x 3", c(affine=np.eye(3))),
        ("affine nan", c(affine=np.full((4, 4), np.nan))),
        ("affine text", c(affine=np.array("x"))),
        ("affine complex", c(affine=np.eye(4) * 1j)),
    )


def _images():
    run, ones = "run.nii", np.ones
    gap = np.where(np.arange(3) == 2, np.nan, 1) * scan(np.random.default_rng(0), 3).astype(F)
    huge = {1: 32767, 2: 32767, 3: 32767, 4: 32767}
    return (
        ("2-D", image(run, lambda: nifti(ones((16, 16), "i2")))),
        ("5-D", image(run, lambda: nib.Nifti1Image(ones((16, 16, 12, 2, 2), "i2"), np.eye(4)))),
        ("no volume", header(run, dim={4: 0})),
        ("complex", header(run, datatype=32, bitpix=64)),
        ("rgb", header(run, datatype=128, bitpix=24)),
        ("other grid", image(run, lambda: nifti(ones((8, 8, 6, 2), "i2")))),
        ("all zero", image(run, lambda: nifti(np.zeros((16, 16, 12, 2), "i2")))),
        ("text", put(run, "hello")),
        ("empty", put(run, b"")),
        ("a folder", swap(run, "folder")),
        ("missing", swap(run, "missing")),
        ("slope inf", header(run, scl_slope=np.inf), MAY),
        ("intercept nan", header(run, scl_slope=1, scl_inter=np.nan)),
        ("affine nan", header(run, sform_code=1, srow_x=[np.nan] * 4)),
        ("huge", header(run, dim=huge)),
        ("truncated", change(run, lambda data: data[: len(data) // 2])),
        ("last volume nan", image(run, lambda: nifti(gap))),
    )


def _late(folder):
    """Moves the first volumes of the run to its end."""
    values = np.asanyarray(nib.load(folder / "run.nii").dataobj)
    image("run.nii", lambda: nifti(np.roll(values, -6, -1)))(folder)


def _calibrations():
    def c(**arrays):
        return npz(CALIBRATION, True, **arrays)

    rng, new = np.random.default_rng(0), "--subject=x"
    single, n = np.repeat(scan(rng, 1), FRAMES, -1), 2 * FRAMES
    noise = image("run.nii", lambda: nifti(scan(rng, FRAMES)))
    yield Case("bundle:calibrate", "noise", noise, calibrate(new), MAY)  # it may fit by chance
    for name, step, *more in (
        ("no subject", nothing),
        ("run text", nothing, new, "--run=a"),
        ("run -1", nothing, new, "--run=-1"),
        ("run 99", nothing, new, "--run=99"),
        ("run of 5000 digits", nothing, new, "--run=" + "1" * 5000),
        ("run superscript", nothing, new, "--run=\u00b2"),
        ("3-D image", image("run.nii", lambda: nifti(np.ones(SHAPE, "i2"))), new),
        ("short run", image("run.nii", lambda: nifti(scan(rng, 5))), new),
        ("constant run", image("run.nii", lambda: nifti(single)), new),
        ("run without its start", _late, new),
        ("another run", nothing, new, "--run=1"),
        ("template of another width", c(template=np.zeros((n, 5), F)), new),
        ("template nan", c(template=np.full((n, VOXELS), np.nan, F)), new),
        ("frames huge", c(frame=np.full(n, 10**9)), new),
        ("frames negative", c(frame=np.full(n, -3)), new),
        ("frames float", c(frame=np.tile(np.arange(float(FRAMES)), 2)), new),
        ("frames missing", npz(CALIBRATION, True, drop=("frame",)), new),
        ("runs of another length", c(run=np.zeros(5, int)), new),
        ("workdir a file", nothing, new, "--workdir=/etc/hostname"),
    ):
        yield Case("bundle:calibrate", name, step, calibrate(*more))
