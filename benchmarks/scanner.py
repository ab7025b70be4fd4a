"""Accuracy, confidence and marks of a decoder on volumes that a scanner has changed.

    python launch.py --config=configs/expA.py:demo030 --workdir=runs/demo030
    python -m benchmarks.scanner --workdir=runs/demo030
    python -m benchmarks.scanner --print                    # the stored tables

There are two decoders: that of subject 01, on its run-02, and the same one calibrated to subject 02
by its run-01, on its run-02. Each volume is changed, then decoded as it comes ("none") and
corrected ("auto"). The numbers go to benchmarks/results/scanner_cpu.json and, by `python -m
benchmarks.tables`, to docs/decoder.md.
"""

import json
import tempfile

import numpy as np
from scipy import ndimage

from benchmarks.record import demo030_arguments, keep
from benchmarks.tables import methods
from benchmarks.tables.stored import Stored
from configs import audiovisual, expA, haxby
from emojax import decoder, masking, online, sources
from emojax.decoder import guards
from emojax.errors import InputError
from emojax.experiments.exports import command

TABLES = (methods.decoder_corrected, methods.decoder_marked)
TABLES += (methods.decoder_clean, methods.decoder_calibration)
REPEATED = "frozen: the first volume again and again"


def moved(volumes, shift=(0, 0, 0), degrees=0.0, axes=(0, 1)):
    """Returns volumes [t, X, Y, Z] shifted by voxels and turned, by cubic splines."""
    out = np.empty_like(volumes)
    for t, volume in enumerate(volumes):
        if degrees:
            volume = ndimage.rotate(
                volume, degrees, axes=axes, reshape=False, order=3, mode="nearest"
            )
        out[t] = ndimage.shift(volume, shift, order=3, mode="nearest") if any(shift) else volume
    return out


def intensities(x):
    """Yields names and volumes whose intensities a scanner has changed."""
    t = np.linspace(0, 1, len(x), dtype=np.float32)[:, None, None, None]
    late = np.where(np.arange(len(x)) < len(x) // 2, 1.0, 1.05).astype(np.float32)
    yield "as scanned", x
    for gain in (0.9, 0.95, 1.02, 1.05, 1.1):
        yield f"gain x {gain:g}", x * np.float32(gain)
    for drift in (0.05, -0.05):
        yield f"drift {drift:+.0%} over the run", x * (1 + drift * t)
    yield "gain x 1.1 and drift +5%", x * np.float32(1.1) * (1 + 0.05 * t)
    yield "gain x 1.05 from the middle on", x * late[:, None, None, None]
    for offset in (50, -50):
        yield f"offset {offset:+d}", x + np.float32(offset)


def motions(x):
    """Yields names and volumes of a head that has moved."""
    for axis, name in enumerate("xyz"):
        shift = np.eye(3)[axis] / 2
        yield f"half a voxel along {name}, gain x 1.05", moved(x, shift) * np.float32(1.05)
    yield "0.1 voxel along x", moved(x, (0.1, 0, 0))
    for axes, name in (((0, 1), "z"), ((0, 2), "y"), ((1, 2), "x")):
        yield f"1 degree about {name}", moved(x, degrees=1.0, axes=axes)


def damages(x, other):
    """Yields names and a few volumes each that must be marked."""
    some = x[:: max(1, len(x) // 10)]
    half = np.arange(x.shape[-1]) < x.shape[-1] // 2
    left = (np.arange(x.shape[1]) < x.shape[1] // 2)[:, None, None]
    yield "flipped left to right", some[:, ::-1]
    yield "flipped front to back", some[:, :, ::-1]
    yield "upside down", some[:, :, :, ::-1]
    if x.shape[1] == x.shape[2]:
        yield "x and y exchanged", some.swapaxes(1, 2)
    yield "moved by one voxel", np.roll(some, 1, axis=1)
    yield "half zero", some * left
    yield "second half not written yet", some * half
    yield REPEATED, np.repeat(some[:1], 5, axis=0)
    yield "x 0.5", some * np.float32(0.5)
    yield "x 2", some * np.float32(2)
    yield "another person", other[:: max(1, len(other) // 10)]


def calibrations(run, other_run):
    """Yields name, volumes and template run of calibration runs; only the first is right."""
    rng = np.random.default_rng(0)
    mean = run.mean(0, keepdims=True)
    noise = mean + rng.normal(size=run.shape).astype(np.float32) * run.std(0, keepdims=True)
    yield "the right run", run, "run-01"
    for late in (3, 10):
        yield f"{late} volumes late", np.concatenate([run[late:], run[:late]]), "run-01"
    yield "cut off at its start", run[10:], "run-01"
    yield "reversed in time", run[::-1], "run-01"
    yield "shuffled", run[rng.permutation(len(run))], "run-01"
    yield "noise around its mean", noise, "run-01"
    yield "given as another run", run, "run-02"
    yield "another run, given as this one", other_run, "run-01"
    yield "constant", np.repeat(mean, len(run), axis=0), "run-01"


def score(made, volumes, labels, affine, correct):
    """Returns balanced accuracy, mean confidence and share of marked volumes of a run."""
    records = online.replay(made, volumes, affine, correct=correct)
    p = np.stack([record.probabilities for record in records])
    hit = p.argmax(1) == labels
    recalls = [hit[labels == k].mean() for k in range(len(made.facts.classes))]
    return {
        "balanced_accuracy": float(np.mean(recalls)),
        "confidence": float(p.max(1).mean()),
        "marked": float(np.mean([record.status == "marked" for record in records])),
    }


class Cohort:
    """The whole runs of a simulated cohort, with the class of each volume."""

    def __init__(self, config):
        self._cohort = sources.load(config.data)

    def run(self, subject, name):
        """Returns values [t, X, Y, Z], classes [t] (-1: none) and affine of a run."""
        index = next(
            i
            for i, run in enumerate(self._cohort.runs)
            if (run.subject, run.name) == (subject, name)
        )
        run = self._cohort.runs[index]
        labels = np.full(len(run.frames), -1)
        here = self._cohort.run_index == index
        labels[self._cohort.frame[here]] = self._cohort.labels[here]
        return run.read(slice(None)), labels, run.affine


def tables(made, cohort):
    """Returns all measurements of the decoder of subject 01."""
    out = {"changed": {}, "damaged": {}, "calibrations": {}}
    first, _, affine = cohort.run("02", "run-01")
    calibrated = decoder.calibrate(made, first, "02", "run-01", affine)
    for name, own, subject in (("01", made, "01"), ("02, calibrated", calibrated, "02")):
        x, labels, affine = cohort.run(subject, "run-02")
        for changed, volumes in (*intensities(x), *motions(x)):
            row = {c: score(own, volumes, labels, affine, c) for c in (online.NONE, online.AUTO)}
            out["changed"].setdefault(changed, {})[name] = row
            print(name, changed, row, flush=True)
        other = cohort.run("03", "run-02")[0]
        for damaged, volumes in damages(x, other):
            marked = [record.status == "marked" for record in online.replay(own, volumes, affine)]
            marked = marked[1:] if damaged == REPEATED else marked
            out["damaged"].setdefault(damaged, {})[name] = float(np.mean(marked))
    for name, volumes, run in calibrations(first, cohort.run("02", "run-02")[0]):
        try:
            decoder.calibrate(made, volumes, "02", run, affine)
            out["calibrations"][name] = "accepted"
        except InputError as error:
            out["calibrations"][name] = str(error)
        print(name, out["calibrations"][name], flush=True)
    return out


def clean(store):
    """Returns data -> (marked, all) clean volumes, comparing each run with the subject's others.

    A study of one run is cut in the middle: the first half is the reference of the second.
    """
    configs = {}
    for seed in (0, 1):
        configs[f"simulated, seed {seed}"] = config = expA.get_config("demo030")
        config.data.synthetic.seed = seed
    configs["haxby, one slice"] = haxby.get_config()
    configs["audiovisual"] = audiovisual.get_config()
    out = {}
    for name, config in configs.items():
        config.data.store, config.data.online = store, ""
        cohort, marked, total = sources.load(config.data), 0, 0
        for subject in cohort.subjects:
            runs = [run.read(slice(None)) for run in cohort.runs if run.subject == subject]
            if len(runs) == 1:
                runs = np.array_split(runs[0], 2)
            for i, run in enumerate(runs):
                others = [other for j, other in enumerate(runs) if j != i]
                options = config.get("mask", {"lower": 0.2, "upper": 0.85, "opening": 2})
                mask = np.asarray(masking.brain_mask(others[0].mean(0), **options))
                marked += sum(bool(own) for own in reasons(others, mask, run))
                total += len(run)
        out[name] = (marked, total)
        print(name, out[name], flush=True)
    return out


def reasons(calibration, mask, run):
    """Yields the reasons to mark each volume of a run."""
    reference, limits = guards.measured(calibration, mask)
    inside = reference[mask]
    facts = decoder.Facts(
        ("a", "b"), mask.shape, float(inside.mean()), float(inside.std()), limits=limits
    )
    own = decoder.Decoder({}, mask, None, None, "linear", facts, reference)
    pairs = zip([None, *run], run, strict=False)
    for before, volume in pairs:
        yield decoder.verify(own, volume, before=before).reasons


def main():
    args = demo030_arguments(__doc__)
    if args.print:
        for table in TABLES:
            print("\n".join(table(Stored())), end="\n\n")
        return
    config = expA.get_config("demo030")
    config.data.store = str(args.workdir.absolute().parent / "store")
    with tempfile.TemporaryDirectory() as folder:
        command.export(_config_of(args.workdir), args.workdir, "01", "run-02", f"{folder}/01")
        made = decoder.load(f"{folder}/01")
    found = tables(made, Cohort(config))
    keep("scanner_cpu", "demo030", found | {"clean": clean(config.data.store)})


def _config_of(workdir):
    """Returns the config of a run."""
    stored = json.loads((workdir / "config.json").read_text())["config"]
    config = expA.get_config("demo030")
    with config.unlocked():
        config.update(stored)
    return config


if __name__ == "__main__":
    main()
