"""BIDS data sets that must be read."""

import json
import re

import fuzz_good_scans
import nibabel as nib
import numpy as np
from fuzz_bids import EVENTS, HEAD, MOTION
from fuzz_cases import both, data_argv, nothing, put
from fuzz_files import SOURCES
from fuzz_inputs import LABEL_MAP, brain, events, nifti

SIDECAR = "task-emo_bold.json"
MORE = HEAD + "4\t10\tneutral\n22\t10\tnegative\n"  # events that other rows are added to


def cases():
    """Yields (family, name, step, flags)."""
    plain = SOURCES["bids"][0]
    for name, step in (
        *_layouts(),
        *fuzz_good_scans.steps(),
        *_events(),
        *_sidecars(),
        *_derivatives(),
    ):
        yield "bids:good", name, step, plain
    for name, *flags in (
        ("every value a class", "label_map="),
        ("values joined", "label_map=rest=;any=neutral|negative"),
        ("spaces in a label map", "label_map= rest = ; neutral = neutral ; negative = negative ;"),
        ("unicode in a label map", "label_map=Ruhe=;négatif=negative;中=neutral"),
        ("markup in a label map", "label_map=[/red]=neutral;[bold]=negative"),
        ("one subject without zeros", "subjects=1"),
        ("subjects with blanks", "subjects= 01 , 02,"),
        ("one run", "runs=02"),
        ("a task by name", "task=emo"),
        ("another lag", "hrf_delay_s=0"),
        ("a lag before the event", "hrf_delay_s=-2"),
        ("the least overlap", "min_overlap=1e-3"),
        ("volumes dropped", "drop_first=4"),
        ("tr given", "tr=2.0"),
        ("another tr given", "tr=1.5"),
        ("detrend", "detrend=2"),
        ("centre", "centre=True"),
        ("zscore", "zscore=True"),
        ("nested store", "store={work}-of/a/b"),
    ):
        yield "bids:good", name, nothing, _flags(*flags)
    yield from _with_flags()


def _flags(*keys):
    """Returns flags with other keys of `data`; {work} is the workdir."""
    own = data_argv("bids", LABEL_MAP, *(f"--config.data.{key}" for key in keys))
    return lambda folder, work: [w.replace("{work}", str(work)) for w in own(folder, work)]


def _with_flags():
    def second_task(folder):
        for path in list(folder.glob("sub-*/func/*")):
            path.with_name(path.name.replace("emo", "two")).write_bytes(path.read_bytes())

    def derivatives(folder):
        """Moves scans below derivatives/, in two spaces; the events stay."""
        for path in list(folder.glob("sub-*/func/*_bold.nii.gz")):
            own = folder / "derivatives" / "fmriprep" / path.relative_to(folder).parent
            own.mkdir(parents=True, exist_ok=True)
            for space in ("MNI152NLin2009cAsym", "T1w"):
                name = path.name.replace("_bold", f"_space-{space}_desc-preproc_bold")
                (own / name).write_bytes(path.read_bytes())
            path.unlink()

    def fmriprep(folder, work):
        own = f"root={folder}/derivatives/fmriprep"  # the last of two holds
        return _flags("space=T1w", f"events_root={folder}", own)(folder, work)

    def overlap(folder):
        path = folder / EVENTS
        path.write_text(path.read_text() + "6\t10\tnegative\n")

    for name, step, argv in (
        ("one of two tasks", second_task, _flags("task=emo")),
        ("sessions", _sessions, _flags("sessions=1")),
        ("derivatives of two spaces", derivatives, fmriprep),
        ("overlap dropped", overlap, _flags("conflicts=drop")),
        (
            "another column",
            _in_all_events(b"trial_type", b"valence"),
            _flags("label_column=valence"),
        ),
        ("motion removed", _confounds, _flags("motion=True")),
        ("no tr but data.tr", both(_without_tr, put(SIDECAR, "{}")), _flags("tr=2")),
    ):
        yield "bids:good", name, step, argv


def _in_all_events(old, new):
    def prepare(folder):
        for path in folder.glob("sub-*/func/*_events.tsv"):
            path.write_bytes(path.read_bytes().replace(old, new))

    return prepare


def _renamed(pattern, new):
    """Moves files below the subjects: a pattern in their paths becomes something else."""

    def prepare(folder):
        for path in sorted(folder.glob("sub-*/**/*.*")):
            target = folder / re.sub(pattern, new, str(path.relative_to(folder)))
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)

    return prepare


_sessions = _renamed(r"^(sub-\d+)/func/sub-\d+", r"\1/ses-1/func/\1_ses-1")


def _layouts():
    def linked(folder):
        """Replaces scans by links to files elsewhere, as data set managers do."""
        (folder / ".git" / "annex").mkdir(parents=True)
        for i, path in enumerate(sorted(folder.glob("sub-*/func/*.nii.gz"))):
            target = folder / ".git" / "annex" / f"{i}.nii.gz"
            path.rename(target)
            path.symlink_to(target)

    def others(folder):
        (folder / "README").write_text("x")
        (folder / ".bidsignore").write_text("*.x")
        (folder / "code").mkdir()
        (folder / "participants.tsv").write_text("participant_id\nsub-01\n")
        (folder / "sub-01/anat").mkdir()
        nib.save(nifti(np.ones((4, 4, 4), "i2")), folder / "sub-01/anat/sub-01_T1w.nii.gz")
        (folder / "sub-01/func/._sub-01_task-emo_run-01_bold.nii.gz").write_bytes(b"x")

    def without_runs(folder):
        for path in folder.glob("sub-*/func/*run-02*"):
            path.unlink()
        _renamed("_run-01", "")(folder)

    return (
        ("sessions, all", _sessions),
        ("acquisitions", _renamed("_run", "_acq-hi_run")),
        ("directions", _renamed("_run", "_dir-AP_run")),
        ("runs of one digit", _renamed("run-0", "run-")),
        ("subjects of letters", _renamed("sub-0", "sub-ctrl")),
        ("no runs in names", without_runs),
        ("one subject fewer", lambda f: [p.unlink() for p in f.glob("sub-04/func/*")]),
        ("links", linked),
        ("files of others", others),
        ("no description", lambda f: (f / "dataset_description.json").unlink()),
    )


def _events():
    rows = MORE.splitlines(keepends=True)[1:]
    extra = "trial_type\tresponse_time\tonset\tduration\n"
    extra += "".join(f"{c}\tn/a\t{o}\t{d}\n" for o, d, c in (r.split() for r in rows))
    texts = (
        ("n/a as a value", MORE + "40\t5\tn/a\n"),
        ("values of no class", MORE + "40\t5\tbutton\n42\t0\tbutton\n"),
        ("duration n/a of no class", MORE + "40\tn/a\tbutton\n"),
        ("columns in another order, and more", extra),
        ("quoted values", MORE.replace("neutral", '"neutral"')),
        ("blanks around cells", MORE.replace("\t", " \t ")),
        ("not in order", HEAD + "".join(reversed(rows))),
        ("an onset before the run", MORE + "-3\t2\tneutral\n"),
        ("decimals", MORE.replace("22\t", "22.0375\t")),
        ("exponents", MORE.replace("22\t", "2.2e1\t")),
        ("no last newline", MORE.rstrip("\n")),
        ("empty lines", MORE + "\n\n"),
        ("an event that the end cuts", MORE + "76\t30\tneutral\n"),
    )
    given = [(name, put(EVENTS, text)) for name, text in texts]
    given += [
        ("CRLF", put(EVENTS, MORE.replace("\n", "\r\n"))),
        ("a byte-order mark", put(EVENTS, MORE.encode("utf-8-sig"))),
        ("unicode values", put(EVENTS, MORE + "40\t5\tTür → 中\n")),
    ]

    def shared(place):
        def prepare(folder):
            for path in list(folder.glob("sub-*/func/*_events.tsv")):
                path.unlink()
            for base in [folder] if place == "task" else folder.glob("sub-*"):
                stem = "" if place == "task" else f"{base.name}_"
                (base / f"{stem}task-emo_events.tsv").write_text(events(1))

        return prepare

    return (*given, ("one table for all", shared("task")), ("one per subject", shared("subject")))


def _without_tr(folder):
    """Removes units of time, without which a header has no TR."""
    for path in folder.glob("sub-*/func/*_bold.nii.gz"):
        made = nib.load(path)
        values = np.asarray(made.dataobj)
        made.header.set_xyzt_units("mm", 0)
        nib.save(nib.Nifti1Image(values, made.affine, made.header), path)


def _sidecars():
    text = json.dumps({"RepetitionTime": 2.0, "TaskName": "emo"})

    def only_beside(folder):
        (folder / SIDECAR).unlink()
        for path in folder.glob("sub-*/func/*_bold.nii.gz"):
            path.with_name(path.name.replace(".nii.gz", ".json")).write_text(text)

    def of_subjects(folder):
        (folder / SIDECAR).unlink()
        for base in folder.glob("sub-*"):
            (base / f"{base.name}_task-emo_bold.json").write_text(text)

    return (
        ("no sidecar", lambda f: (f / SIDECAR).unlink()),
        ("tr in the sidecar only", _without_tr),
        ("sidecars beside the scans", both(_without_tr, only_beside)),
        ("sidecars of subjects", both(_without_tr, of_subjects)),
        ("the nearest sidecar wins", both(put(SIDECAR, '{"RepetitionTime": 9}'), _own_sidecars)),
        ("no tr in the sidecar", put(SIDECAR, '{"TaskName": "emo"}')),
        ("tr as an integer", put(SIDECAR, '{"RepetitionTime": 2}')),
        ("tr off by rounding", put(SIDECAR, '{"RepetitionTime": 2.00000001}')),
        ("unicode in a sidecar", put(SIDECAR, '{"RepetitionTime": 2.0, "Ort": "Zürich 中"}')),
        ("a sidecar with a byte-order mark", put(SIDECAR, text.encode("utf-8-sig"))),
        ("a big sidecar", put(SIDECAR, json.dumps({"RepetitionTime": 2, "a": [0.5] * 99999}))),
    )


def _own_sidecars(folder):
    for path in folder.glob("sub-*/func/*_bold.nii.gz"):
        name = path.name.replace(".nii.gz", ".json")
        path.with_name(name).write_text('{"RepetitionTime": 2.0}')


def _confounds(folder):
    """Writes fMRIPrep's confounds beside each run; derivatives begin with n/a."""
    rng = np.random.default_rng(0)
    head = MOTION.rstrip("\n") + "\tframewise_displacement\ttrans_x_derivative1\n"
    for path in folder.glob("sub-*/func/*_bold.nii.gz"):
        lines = ["\t".join(f"{v:.6f}" for v in row) for row in rng.normal(size=(40, 6))]
        lines = [
            f"{line}\t" + ("n/a\tn/a" if i == 0 else "0.1\t0.2") for i, line in enumerate(lines)
        ]
        name = path.name.replace("_bold.nii.gz", "_desc-confounds_timeseries.tsv")
        path.with_name(name).write_text(head + "\n".join(lines) + "\n")


def _derivatives():
    def masks(folder):
        for path in folder.glob("sub-*/func/*_bold.nii.gz"):
            name = path.name.replace("_bold", "_desc-brain_mask")
            nib.save(nifti(brain().astype("u1")), path.with_name(name))

    return (
        ("masks", masks),
        ("confounds with n/a in the first row", _confounds),
        ("masks and confounds", both(masks, _confounds)),
    )
