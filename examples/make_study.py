"""Writes a small BIDS study and what fMRIPrep would make of it, to try emojax on.

    python examples/make_study.py faces

Five simulated people with two runs each see neutral, fearful and sad faces, and press a button.
The events of every run come in an order of their own. Fearful and sad faces evoke one pattern,
neutral ones another, each in the same voxels of all people. The folder has the events, and in
derivatives/fmriprep the images in one space, brain masks and tables of confounds.
"""

import json
import pathlib
import sys

import nibabel as nib
import numpy as np

SPACE = "MNI152NLin2009cAsym"
PEOPLE, RUNS, VOLUMES, TR = 5, 2, 110, 2.0
GRID, ZOOM = (12, 11, 10), 4.0  # voxels, mm
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
SIGNAL, DRIFT, NOISE = 3.0, 40.0, 10.0


def save(path, values):
    """Writes an image [X, Y, Z] or [X, Y, Z, time]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, np.diag([ZOOM, ZOOM, ZOOM, 1.0]))
    if values.ndim == 4:
        image.header.set_zooms((ZOOM, ZOOM, ZOOM, TR))
        image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def write_table(path, columns):
    """Writes a TSV; a number that is not known is n/a."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(columns)]
    for row in zip(*columns.values(), strict=True):
        lines.append("\t".join("n/a" if x != x else str(x) for x in row))
    path.write_text("\n".join(lines) + "\n")


def make_run(rng, patterns, inside):
    """Returns the volumes [X, Y, Z, t] of a run, its events and its confounds."""
    kinds = rng.permutation(["neutral"] * 4 + ["fear"] * 2 + ["sad"] * 2)
    onsets = 8.0 + 26 * np.arange(len(kinds))
    motion = {name: np.cumsum(rng.normal(0, 0.02, VOLUMES)).round(5) for name in MOTION}
    drift = np.sin(np.linspace(0, rng.uniform(2, 5), VOLUMES))
    values = rng.normal(1000, NOISE, (*GRID, VOLUMES)) + DRIFT * drift
    for onset, kind in zip(onsets, kinds, strict=True):
        first = int((onset + 5) / TR)  # the response comes five seconds late
        values[..., first : first + 6] += SIGNAL * patterns[int(kind != "neutral")][..., None]
    tissue = {
        name: (drift + rng.normal(0, 0.1, VOLUMES)).round(5) for name in ("csf", "white_matter")
    }
    presses = onsets + 13  # after each face
    events = {
        "onset": [*onsets, *presses],
        "duration": [12.0] * len(onsets) + [0.5] * len(presses),
        "trial_type": [*kinds, *["button"] * len(presses)],
    }
    order = np.argsort(events["onset"], kind="stable")
    events = {name: [column[i] for i in order] for name, column in events.items()}
    return (values * inside[..., None]).astype(np.float32), events, motion | tissue


def main(root):
    """Writes the study below `root`."""
    rng = np.random.default_rng(0)
    derived = root / "derivatives" / "fmriprep"
    for folder, kind in ((root, "raw"), (derived, "derivative")):
        folder.mkdir(parents=True, exist_ok=True)
        about = {"Name": "faces", "BIDSVersion": "1.8.0", "DatasetType": kind}
        (folder / "dataset_description.json").write_text(json.dumps(about))
    people = [f"sub-{i:02}" for i in range(1, PEOPLE + 1)]
    write_table(root / "participants.tsv", {"participant_id": people})
    patterns = rng.normal(size=(2, *GRID))
    inside = np.pad(np.ones([n - 2 for n in GRID], np.uint8), 1)
    for person in people:
        for run in range(1, RUNS + 1):
            values, events, confounds = make_run(rng, patterns, inside)
            name = f"{person}_task-faces_run-{run}"
            write_table(root / person / "func" / f"{name}_events.tsv", events)
            stem = derived / person / "func" / name
            image = stem.with_name(f"{name}_space-{SPACE}_desc-preproc_bold.nii.gz")
            save(image, values)
            image.with_name(image.name.replace(".nii.gz", ".json")).write_text(
                json.dumps({"RepetitionTime": TR, "TaskName": "faces"})
            )
            save(stem.with_name(f"{name}_space-{SPACE}_desc-brain_mask.nii.gz"), inside)
            table = stem.with_name(f"{name}_desc-confounds_timeseries.tsv")
            write_table(table, confounds)
            table.with_suffix(".json").write_text("{}")
    print(f"{root}: {PEOPLE} people, {RUNS} runs each")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "faces"))
