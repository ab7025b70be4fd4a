"""Good BIDS data sets of every shape load, with the right number of volumes of each class.

The right numbers come from a labeller of this file, which samples every volume; it knows what was
scanned when, not what files say.
"""

import collections
import json
import os
import zlib

import nibabel as nib
import numpy as np
import pytest

from emojax import sources

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
DELAY = 5.0  # s, the default of data.hrf_delay_s
ROWS = [(4, 10, "calm"), (18, 10, "fear"), (32, 8, "calm")]
OTHER = [(2, 8, "fear"), (20, 12, "calm"), (38, 6, "fear")]
HEAD = ("onset", "duration", "trial_type")
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")
CASES = {}


def case(**settings):
    """Registers a study with the settings that it is read with."""

    def register(make):
        CASES[make.__name__] = make, settings
        return make

    return register


class Study:
    """A data set on disk, and the volumes of each class that it should give."""

    def __init__(self, root):
        self.root, self.want, self.runs = root, collections.Counter(), 0
        root.mkdir(parents=True)
        self.json("dataset_description.json", Name="tiny", BIDSVersion="1.8.0")

    def json(self, name, **content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def scan(self, stem, rest="", *, t=24, tr=2.0, unit="sec", ext=".nii.gz", affine=AFFINE):
        path = self.path(f"{stem}{rest}_bold{ext}")
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(zlib.crc32(os.fsencode(path.name)))
        image = nib.Nifti1Image(rng.integers(1, 900, (6, 6, 5, t)).astype(np.int16), affine)
        image.header["pixdim"][4] = tr
        image.header.set_xyzt_units("mm", unit)
        nib.save(image, path)
        return path

    def path(self, name, root=None):
        """Returns the path of a file: in its subject's folder if it belongs to a run."""
        if not name.startswith("sub-") or "/" in name:
            return (root or self.root) / name
        sub, *more = name.split("_")
        ses = [more[0]] if more and more[0].startswith("ses-") else []
        return (root or self.root).joinpath(sub, *ses, "func", name)

    def events(self, name, rows=ROWS, columns=HEAD, root=None):
        path = self.path(name, root)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join("\t".join(map(str, row)) for row in [columns, *rows]) + "\n")
        return path

    def count(self, rows=ROWS, start=None, stop=None, t=24, tr=2.0, known=None):
        """Adds the volumes of a run, sampled at 200 moments each."""
        start = np.arange(t) * tr if start is None else np.asarray(start, float)
        stop = start + tr if stop is None else np.asarray(stop, float)
        self.runs += 1
        for begin, end in zip(start, stop, strict=True):
            moments = begin + (np.arange(200) + 0.5) / 200 * (end - begin) - DELAY
            shown = collections.Counter()
            for value in {value for _, _, value in rows}:
                inside = [
                    (moments >= onset) & (moments < onset + duration)
                    for onset, duration, name in rows
                    if name == value
                ]
                if np.any(inside, axis=0).mean() >= 0.5 - 1e-6 and value not in ("", "n/a"):
                    shown[value] = 1
            self.want += shown

    def run(self, stem, rest="", rows=ROWS, **scan):
        """Writes a scan with its own events, and counts it."""
        self.scan(stem, rest, **scan)
        self.events(f"{stem}_events.tsv", rows)
        self.count(rows, t=scan.get("t", 24))

    def plain(self, subjects=("01", "02"), runs=("1", "2"), **scan):
        for sub in subjects:
            for run, rows in zip(runs, (ROWS, OTHER, ROWS), strict=False):
                self.run(f"sub-{sub}_task-emo_run-{run}", rows=rows, **scan)


@case()
def plain(study):
    study.plain()


@case()
def uncompressed(study):
    study.plain(ext=".nii")


@case()
def zero_padded(study):
    study.plain(runs=("01", "02"))


@case()
def padded_in_one_subject_only(study):
    study.plain(subjects=("01",), runs=("1", "2"))
    study.plain(subjects=("02",), runs=("01", "02"))


@case()
def single_run_without_an_index(study):
    for sub in ("01", "02"):
        study.run(f"sub-{sub}_task-emo")


@case()
def one_subject(study):
    study.plain(subjects=("01",))


@case()
def uneven_runs_and_lengths(study):
    study.plain(subjects=("01",), runs=("1", "2", "3"))
    study.plain(subjects=("02",), runs=("1", "2"), t=30)
    study.run("sub-03_task-emo_run-2", t=22)


@case()
def sessions(study):
    for sub in ("01", "02"):
        for ses in ("pre", "post"):
            study.run(f"sub-{sub}_ses-{ses}_task-emo", rows=ROWS if ses == "pre" else OTHER)


@case(sessions="ses-post")
def one_session(study):
    for sub in ("01", "02"):
        study.scan(f"sub-{sub}_ses-pre_task-emo")
        study.run(f"sub-{sub}_ses-post_task-emo")


@case(entities="echo=2")
def echo_chosen(study):
    for sub in ("01", "02"):
        for echo in (1, 3):
            study.scan(f"sub-{sub}_task-emo_run-1", f"_echo-{echo}")
        study.run(f"sub-{sub}_task-emo_run-1", "_echo-2")


@case(entities="echo=none")
def combined_echoes(study):
    for sub in ("01", "02"):
        for echo in (1, 2):
            study.scan(f"sub-{sub}_task-emo_run-1", f"_echo-{echo}_desc-preproc")
        study.run(f"sub-{sub}_task-emo_run-1", "_desc-preproc")


@case()
def magnitude_beside_phase(study):
    for sub in ("01", "02"):
        study.scan(f"sub-{sub}_task-emo_run-1", "_part-phase")
        study.run(f"sub-{sub}_task-emo_run-1", "_part-mag")


@case(entities="rec=norm")
def reconstruction_chosen(study):
    for sub in ("01", "02"):
        study.scan(f"sub-{sub}_task-emo", "_rec-raw_run-1")
        study.scan(f"sub-{sub}_task-emo", "_rec-norm_run-1")
        study.events(f"sub-{sub}_task-emo_run-1_events.tsv")
        study.count()


@case(entities="rec=norm|raw")
def reconstructions_listed(study):
    for sub, rec in (("01", "norm"), ("02", "raw")):
        study.run(f"sub-{sub}_task-emo_rec-{rec}_run-1")


@case()
def acquisitions(study):
    for acq, rows in (("hi", ROWS), ("lo", OTHER)):
        study.run(f"sub-01_task-emo_acq-{acq}_run-1", rows=rows)


@case()
def directions(study):
    for way, rows in (("AP", ROWS), ("PA", OTHER)):
        study.run(f"sub-01_task-emo_dir-{way}", rows=rows)


@case(space="T1w")
def space_chosen(study):
    for sub in ("01", "02"):
        study.scan(f"sub-{sub}_task-emo_run-1", "_space-MNI_desc-preproc")
        study.run(f"sub-{sub}_task-emo_run-1", "_space-T1w_desc-preproc")


@case(entities="space=MNI,res=02")
def resolution_chosen(study):
    for sub in ("01", "02"):
        study.scan(f"sub-{sub}_task-emo_run-1", "_space-MNI_res-1_desc-preproc")
        study.scan(f"sub-{sub}_task-emo_run-1", "_space-T1w_desc-preproc")
        study.run(f"sub-{sub}_task-emo_run-1", "_space-MNI_res-2_desc-preproc")


@case()
def preprocessed_beside_others(study):
    study.scan("sub-01_task-emo_run-1", "_desc-smoothAROMA")
    study.run("sub-01_task-emo_run-1", "_desc-preproc")


def derive(study, raw, rest="_space-MNI_desc-preproc"):
    """Writes two runs of a derivative, whose events have raw run numbers in another folder."""
    for run, rows in (("1", ROWS), ("2", OTHER)):
        study.scan(f"sub-01_task-emo_run-{run}", rest)
        study.events(f"sub-01_task-emo_run-0{run}_events.tsv", rows, root=raw)
        study.count(rows)


@case()
def derivative_inside_its_raw_data(study):
    raw, study.root = study.root, study.root / "derivatives" / "fmriprep"
    derive(study, raw)
    study.json("dataset_description.json", Name="fMRIPrep", BIDSVersion="1.8.0")


@case()
def derivative_beside_its_raw_data(study):
    top, study.root = study.root, study.root / "out" / "fmriprep-23.2"
    (top / "dataset_description.json").unlink()
    derive(study, top / "rawdata")


@case()
def derivative_that_links_its_raw_data(study):
    derive(study, study.root.parent / "elsewhere" / "a b")
    study.json("dataset_description.json", Name="x", DatasetLinks={"raw": "../elsewhere/a b"})


@case()
def derivative_that_names_its_source(study):
    raw = study.root.parent / "elsewhere" / "a b"
    derive(study, raw)
    named = [{"URL": "https://example.org/ds"}, {"URL": raw.as_uri()}]
    study.json("dataset_description.json", Name="x", SourceDatasets=named)


@case()
def raw_data_with_derivatives_inside(study):
    study.plain()
    inside = study.root / "derivatives" / "fmriprep" / "sub-01" / "func"
    inside.mkdir(parents=True)
    for path in list(study.root.glob("sub-01/func/*_bold.nii.gz")):
        (inside / path.name.replace("_bold", "_desc-preproc_bold")).write_bytes(path.read_bytes())


@case()
def events_of_the_whole_study(study):
    for sub in ("01", "02"):
        study.scan(f"sub-{sub}_task-emo_run-1")
        study.count()
    study.events("task-emo_events.tsv")


@case()
def events_of_a_session(study):
    for ses, rows in (("1", ROWS), ("2", OTHER)):
        for run in (1, 2):
            study.scan(f"sub-01_ses-{ses}_task-emo_run-{run}")
            study.count(rows)
        study.events(f"sub-01/ses-{ses}/sub-01_ses-{ses}_task-emo_events.tsv", rows)


@case()
def sidecar_of_the_whole_study(study):
    study.json("task-emo_bold.json", RepetitionTime=2.0, TaskName="emo")
    study.plain(unit="unknown")


@case()
def the_nearest_sidecar_wins(study):
    study.json("bold.json", RepetitionTime=9.0)
    study.plain(subjects=("01",), unit="unknown")
    for run in (1, 2):
        study.json(f"sub-01/func/sub-01_task-emo_run-0{run}_bold.json", RepetitionTime=2.0)


@case()
def tr_of_the_header_in_ms(study):
    study.plain(tr=2000.0, unit="msec")


@case(tr=2.0)
def tr_of_nobody(study):
    study.plain(unit="unknown", tr=0.0)


@case()
def regular_volume_timing(study):
    study.json("bold.json", VolumeTiming=[2.0 * k for k in range(24)])
    study.plain(unit="unknown")


@case()
def irregular_volume_timing(study):
    start = np.cumsum([0.0, *[3.0, 4.5] * 11, 3.0])
    study.json("bold.json", VolumeTiming=start.tolist(), AcquisitionDuration=1.8)
    for run, rows in ((1, ROWS), (2, OTHER)):
        study.scan(f"sub-01_task-emo_run-{run}", unit="unknown")
        study.events(f"sub-01_task-emo_run-{run}_events.tsv", rows)
        study.count(rows, start, start + 1.8)


@case()
def sparse_with_delay_time(study):
    rows = [(20.0 * i, 8.0, ("calm", "fear")[i % 2]) for i in range(12)]
    study.json("bold.json", RepetitionTime=10.0, DelayTime=8.0)
    study.scan("sub-01_task-emo", tr=10.0)
    study.events("sub-01_task-emo_events.tsv", rows)
    start = 10.0 * np.arange(24)
    study.count(rows, start, start + 2)


@case()
def sparse_with_acquisition_duration(study):
    rows = [(20.0 * i + 1, 9.0, ("calm", "fear")[i % 2]) for i in range(12)]
    study.json("bold.json", RepetitionTime=10.0, AcquisitionDuration=2.4)
    study.scan("sub-01_task-emo", tr=10.0)
    study.events("sub-01_task-emo_events.tsv", rows)
    start = 10.0 * np.arange(24)
    study.count(rows, start, start + 2.4)


@case()
def slices_moved_to_the_middle(study):
    study.json("bold.json", RepetitionTime=2.0, SliceTimingCorrected=True, StartTime=0.95)
    study.plain()


@case()
def slices_moved_to_the_start(study):
    study.json("bold.json", RepetitionTime=2.0, SliceTimingCorrected=True, StartTime=0.0)
    study.scan("sub-01_task-emo")
    study.events("sub-01_task-emo_events.tsv", [(4.3, 9, "calm"), (20, 9, "fear")])
    start = 2.0 * np.arange(24) - 1
    study.count([(4.3, 9, "calm"), (20, 9, "fear")], start, start + 2)


@case()
def onsets_unsorted_duplicated_negative(study):
    rows = [ROWS[1], (-3, 6, "calm"), ROWS[0], ROWS[0], ROWS[2]]
    study.run("sub-01_task-emo_run-1", rows=rows)


@case()
def windows_line_ends_and_a_byte_order_mark(study):
    study.run("sub-01_task-emo_run-1")
    path = study.path("sub-01_task-emo_run-1_events.tsv")
    path.write_bytes(path.read_text().replace("\n", "\r\n").encode("utf-8-sig"))


@case()
def more_columns_in_another_order(study):
    study.scan("sub-01_task-emo")
    rows = [("n/a", value, duration, onset, "x y") for onset, duration, value in ROWS]
    columns = ("response_time", "trial_type", "duration", "onset", "stim file")
    study.events("sub-01_task-emo_events.tsv", rows, columns)
    study.count()


@case(label_column="stim_type")
def another_column(study):
    study.scan("sub-01_task-emo")
    study.events("sub-01_task-emo_events.tsv", columns=(*HEAD[:2], "stim_type"))
    study.count()


@case(event_duration_s=4.0)
def impulses(study):
    study.scan("sub-01_task-emo")
    rows = [(4, 0, "calm"), (14, "n/a", "fear"), (24, 0, "fear"), (34, 3, "calm")]
    study.events("sub-01_task-emo_events.tsv", rows)
    study.count([(onset, 3 if onset == 34 else 4, value) for onset, _, value in rows])


@case()
def events_behind_the_end(study):
    rows = [*ROWS, (300, 10, "fear")]
    study.run("sub-01_task-emo_run-1", rows=rows)


@case()
def values_with_blanks_and_other_alphabets(study):
    names = {"calm": "ruhig, 1", "fear": "Angst → 中"}
    rows = [(onset, duration, names[value]) for onset, duration, value in ROWS]
    study.run("sub-01_task-emo_run-1", rows=rows)
    table = study.path("sub-01_task-emo_run-1_events.tsv")
    table.write_text(table.read_text().replace("Angst", "  Angst"))


@case()
def subjects_of_letters_and_umlauts(study):
    study.plain(subjects=("ctrlA", "Zürich"))


@case(subjects="sub-01,3")
def subjects_with_and_without_prefix(study):
    study.plain(subjects=("01", "03"))
    study.scan("sub-02_task-emo_run-1")


@case(runs="run-02")
def one_run(study):
    for run in ("1", "3"):
        study.scan(f"sub-01_task-emo_run-{run}")
    study.run("sub-01_task-emo_run-2")


@case(task="emo")
def one_task_of_two(study):
    study.plain()
    study.scan("sub-01_task-rest")


@case()
def brain_masks_turned_and_not(study):
    study.plain(subjects=("01",))
    flip = AFFINE @ np.array([[-1.0, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    for run, affine in ((1, AFFINE), (2, flip)):
        mask = np.zeros((6, 6, 5), np.uint8)
        mask[slice(1, 5) if run == 1 else slice(0, 3)] = 1
        name = study.path(f"sub-01_task-emo_run-0{run}_desc-brain_mask.nii.gz")
        nib.save(nib.Nifti1Image(mask, affine), name)


@case()
def confounds_with_gaps(study):
    study.plain(subjects=("01",))
    table = [("global_signal", *MOTION), ("n/a", *["n/a"] * 6), *[(1.5, *[0.1] * 6)] * 23]
    text = "\n".join("\t".join(map(str, row)) for row in table)
    study.path("sub-01_task-emo_run-1_desc-confounds_timeseries.tsv").write_text(text + "\n")


@case()
def links_of_a_data_set_manager(study):
    study.plain(subjects=("01",))
    for i, path in enumerate(list(study.root.glob("sub-*/func/*"))):
        target = study.root / ".git" / "annex" / "objects" / f"{i}{path.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
        path.symlink_to(target)


@case()
def files_of_others(study):
    study.plain()
    for name in (
        "README",
        ".bidsignore",
        "participants.tsv",
        "code/x.py",
        "sub-01/anat/sub-01_T1w.nii",
    ):
        (study.root / name).parent.mkdir(parents=True, exist_ok=True)
        (study.root / name).write_text("participant_id\n")
    for name in ("sub-01_task-emo_run-1_sbref.nii.gz", "sub-01_task-emo_run-1_bold.dtseries.nii"):
        study.path(name).write_bytes(b"x")
    (study.root / "sub-01/func/._sub-01_task-emo_run-9_bold.nii.gz").write_bytes(b"x")
    (study.root / "sub-01/func/._sub-01_task-emo_run-1_events.tsv").write_bytes(b"x")


def test_there_are_forty():
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_loads_with_the_right_counts(tmp_path, config, name):
    make, settings = CASES[name]
    study = Study(tmp_path / "a study, v1.0" / "ds")
    make(study)
    config.data.update({"source": "bids", "root": str(study.root)} | settings)
    cohort = sources.load(config)
    counts = np.bincount(cohort.labels, minlength=len(cohort.classes)).tolist()
    assert dict(zip(cohort.classes, counts, strict=True)) == study.want
    assert len(cohort.runs) == study.runs and len(study.want) == 2
    for row in cohort.counts():
        assert row["volumes"] == sum(row[name] for name in (*cohort.classes, "unused"))


def test_masks_and_motion_come_along(tmp_path, config):
    for name, masked in (("brain_masks_turned_and_not", 2 * 6 * 5), ("confounds_with_gaps", None)):
        study = Study(tmp_path / name)
        CASES[name][0](study)
        config.data.update({"source": "bids", "root": str(study.root)})
        cohort = sources.load(config)
        assert (cohort.masks["01"].sum() if masked else None) == masked
        assert all(run.motion is None for run in cohort.runs)
        assert bool(cohort.notes) == (masked is None)
    assert "no six whole columns of realignment parameters for 2 of 2 runs" in cohort.notes[0]
