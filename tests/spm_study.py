"""SPM folders that the tests of `spm` and `spm_labels` share: small ones, and a real scan."""

import nibabel as nib
import numpy as np

from emojax.data import events

HAXBY = "data/pymvpa-haxby/haxby2001/sub001/BOLD/task001_run{:03}"
TR = 2.5
NO_LAG = events.Timing(hrf_delay_s=0.0)
GRID = (4, 3, 2)


def write(path, values, kind=nib.Nifti1Image, affine=None, tr=TR):
    """Writes one image [X, Y, Z] or [X, Y, Z, t]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(values, np.diag([3.0, 3, 3, 1]) if affine is None else affine)
    if values.ndim == 4 and kind is not nib.AnalyzeImage:
        image.header.set_zooms((3, 3, 3, tr))
        image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def small(seed=0, volumes=8, grid=GRID):
    return np.random.default_rng(seed).integers(0, 999, (*grid, volumes)).astype(np.int16)


def small_study(root, ending=".nii.gz"):
    """Writes subjects S1, S2 with runs r1, r2 of 8 volumes, 4-D."""
    given = {}
    for i, (subject, run) in enumerate([(s, r) for s in ("S1", "S2") for r in ("r1", "r2")]):
        given[subject, run] = small(i)
        write(root / subject / run / f"raf{ending}", given[subject, run])
    return given


def table(root, rows, header="subject,run,volume,label", name="labels.csv"):
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    text = "\n".join(lines) + "\n"
    (root / name).write_text(text.replace(",", "\t") if name.endswith(".tsv") else text)
    return name


def alternating(given):
    return [(s, r, v, "ab"[v % 2]) for s, r in given for v in range(8)]


def haxby_runs(shared):
    """Returns {run: (image, its events)} of two real runs at 25 mm."""
    folders = {f"run{i}": shared(HAXBY.format(i)) for i in (1, 2)}
    return {
        run: (nib.load(f / "bold_25mm.nii.gz"), events.read(f / "bold_events.tsv", "trial_type"))
        for run, f in folders.items()
    }


def onset_table(root, haxby, header="subject,run,name,onset,duration", **options):
    rows = [
        ("S1", run, value, onset, duration)
        for run, (_, e) in haxby.items()
        for value, onset, duration in zip(e.value, e.onset, e.duration, strict=True)
    ]
    return table(root, rows, header, **options)


def expected_labels(haxby):
    """Labels volumes by their centres, not by overlap as the sources do."""
    classes = sorted(set(haxby["run1"][1].value))
    out = []
    for _, e in haxby.values():
        centre = (np.arange(121) + 0.5) * TR
        inside = (centre >= e.onset[:, None]) & (centre < (e.onset + e.duration)[:, None])
        which = np.array([classes.index(value) for value in e.value])
        out.append(np.where(inside.any(0), which[inside.argmax(0)], -1))
    return tuple(classes), out


def check_haxby(cohort, haxby):
    classes, labels = expected_labels(haxby)
    assert cohort.classes == classes
    assert [(run.subject, run.name) for run in cohort.runs] == [("S1", r) for r in haxby]
    for run, own, (image, _) in zip(cohort.runs, labels, haxby.values(), strict=True):
        np.testing.assert_array_equal(np.moveaxis(run.read(slice(None)), 0, -1), image.get_fdata())
        rows = np.flatnonzero(cohort.run == run.name)
        np.testing.assert_array_equal(cohort.frame[rows], np.flatnonzero(own >= 0))
        np.testing.assert_array_equal(cohort.labels[rows], own[own >= 0])
    assert cohort.tr == TR
    assert cohort.volumes.shape == (2 * 8 * 9, 6, 10, 10)


def write_haxby(root, haxby, place="S1/{run}/raf.nii"):
    for run, (image, _) in haxby.items():
        write(root / place.format(run=run), np.asarray(image.dataobj))
