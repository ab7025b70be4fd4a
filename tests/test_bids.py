"""BIDS data sets: real ones, derivatives, inheritance, filters, refusals."""

import csv
import json
import os
import pathlib
import zlib

import nibabel as nib
import numpy as np
import pytest

from emojax import sources
from emojax.data.hashes import sha256
from emojax.errors import InputError

EVENTS = "onset\tduration\ttrial_type\tvalence\n0\t20\tface\tgood\n20\t20\thouse\tbad\n"


def image(path, length=25, shape=(5, 4, 3), tr=2.0, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32(os.fsencode(path)))  # no two scans are equal
    values = rng.integers(1, 900, (*shape, length)).astype(np.int16)
    out = nib.Nifti1Image(values, np.eye(4) if affine is None else affine)
    out.header.set_zooms((3, 3, 3, tr))
    out.header.set_xyzt_units("mm", "sec")
    nib.save(out, path)


def study(root, subjects=("01", "02"), runs=("01", "02")):
    """Returns two subjects, two runs of 25 volumes each, one events.tsv for all at the top."""
    for sub in subjects:
        for run in runs:
            image(root / f"sub-{sub}/func/sub-{sub}_task-emo_run-{run}_bold.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    (root / "task-emo_bold.json").write_text('{"RepetitionTime": 2.0, "TaskName": "emo"}')
    (root / "task-emo_events.tsv").write_text(EVENTS)
    return root


@pytest.fixture
def load(config, tmp_path):
    def load(root=tmp_path / "study", **settings):
        config.data.update({"source": "bids", "root": str(root), "hrf_delay_s": 0.0} | settings)
        return sources.load(config)

    return load


def test_haxby_agrees_with_the_labels_shipped_with_the_scan(load, shared):
    cohort = load(shared("data/bids-haxby-1slice"), label_map="")
    lines = shared("data/pymvpa-haxby/attributes_literal.txt").read_text().split("\n")
    shipped = [line.split() for line in lines if line.strip()]
    labels = np.array([label for label, _ in shipped])
    chunk = np.array([int(run) for _, run in shipped])
    assert cohort.tr == 2.5 and len(cohort.runs) == 12
    whole = np.asarray(nib.load(shared("data/pymvpa-haxby/bold.nii.gz")).dataobj)
    for run in range(12):
        mine, frame = (getattr(cohort, n)[cohort.run_index == run] for n in ("labels", "frame"))
        want = labels[chunk == run]
        assert np.isin(np.flatnonzero(want != "rest"), frame).mean() > 0.95
        assert (np.array(cohort.classes)[mine] == want[frame]).mean() > 0.95
        there = np.flatnonzero(chunk == run)[frame]
        np.testing.assert_array_equal(
            cohort.volumes[cohort.run_index == run], np.moveaxis(whole, -1, 0)[there]
        )


def test_fsl_takes_its_tr_from_the_json_and_refuses_overlap(load, shared):
    root = shared("data/bids-fsl-audiovisual")
    with pytest.raises(InputError, match="17 volumes in two classes"):
        load(root, hrf_delay_s=6.0)
    cohort = load(root, hrf_delay_s=6.0, conflicts="drop")
    assert cohort.tr == 3.0 and cohort.shape == (64, 64, 21)
    cohort = load(root, hrf_delay_s=6.0, label_map="rest=;visual=visual")
    assert np.bincount(cohort.labels).tolist() == [17, 32]


def test_bold_in_the_shape_of_a_real_study(load, shared, tmp_path):
    """Volumes of each condition in 34 subjects x 6 runs agree with an independent count."""
    real = shared("data/bids-events/ds000108")
    root = tmp_path / "study"
    want = {"neutral": 0, "negative": 0}
    for table in sorted(real.glob("sub-*/func/*_events.tsv")):
        rows = list(csv.DictReader(table.open(), delimiter="\t"))
        length = int(max(float(r["onset"]) + float(r["duration"]) for r in rows) // 2) + 10
        out = root / table.relative_to(real).with_name(table.name.replace("events.tsv", "bold.nii"))
        image(out, length, (2, 2, 2))
        out.with_name(table.name).write_bytes(table.read_bytes())
        for volume in range(length):
            middle = 2.0 * volume + 1 - 5  # half of the volume is inside as long as its middle is
            for r in rows:
                name = {"Look_Neutral_Stim": "neutral", "Look_Neg_Stim": "negative"}.get(
                    r["trial_type"]
                )
                inside = float(r["onset"]) <= middle <= float(r["onset"]) + float(r["duration"])
                want[name] = want.get(name, 0) + inside if name else 0
    (root / "task-Emotionregulation_bold.json").write_text('{"RepetitionTime": 2.0}')
    cohort = load(
        root,
        hrf_delay_s=5.0,
        label_map="rest=;neutral=Look_Neutral_Stim;negative=Look_Neg_Stim",
    )
    assert len(cohort.subjects) == 34 and len(cohort.runs) == 204
    got = dict(zip(cohort.classes, np.bincount(cohort.labels).tolist(), strict=True))
    assert {k: got[k] for k in ("neutral", "negative")} == {
        k: want[k] for k in ("neutral", "negative")
    }
    assert got["rest"] > 1000


def test_events_and_json_are_inherited_and_the_nearest_wins(load, tmp_path):
    root = study(tmp_path / "study")
    (root / "sub-02/func/sub-02_task-emo_run-02_events.tsv").write_text(
        EVENTS.replace("face\tgood\n20\t20\thouse", "house\tgood\n20\t20\tface")
    )
    (root / "sub-02/sub-02_task-emo_bold.json").write_text('{"RepetitionTime": 2.0}')
    cohort = load()
    first = [cohort.classes[cohort.labels[cohort.run_index == r][0]] for r in range(4)]
    assert first == ["face", "face", "face", "house"]
    assert cohort.run.tolist()[0] == "run-01"
    assert str(root / "task-emo_events.tsv") in cohort.hashes
    own = str(root / "sub-02/sub-02_task-emo_bold.json")
    assert [own in run.hashes for run in cohort.runs] == [False, False, True, True]
    assert all(str(root / "task-emo_bold.json") in run.hashes for run in cohort.runs)


def test_another_column_names_the_classes(load, tmp_path):
    study(tmp_path / "study")
    assert load(label_column="valence", label_map="bad=bad;good=good").classes == ("bad", "good")
    with pytest.raises(InputError, match=r"trial_type, valence; .* 'stim_type', .*=trial_type"):
        load(label_column="stim_type")


def test_filters(load, tmp_path):
    study(tmp_path / "study")
    cohort = load(subjects="02", runs="1")
    assert cohort.subjects == ("02",) and len(cohort.runs) == 1
    with pytest.raises(InputError, match=r"no sub-09; expected one of 01, 02|1, 2"):
        load(subjects="09", runs="")


def fmriprep(root, raw):
    """Writes derivatives of the raw study in two spaces, with masks and confounds."""
    for bold in raw.glob("sub-*/func/*_bold.nii.gz"):
        stem = str(root / bold.relative_to(raw)).removesuffix("_bold.nii.gz")
        for space in ("T1w", "MNI152NLin2009cAsym"):
            image(pathlib.Path(f"{stem}_space-{space}_desc-preproc_bold.nii.gz"))
            mask = np.zeros((5, 4, 3), np.uint8)
            mask[1:4, 1:3, 1 if "run-01" in stem else slice(0, 2)] = 1
            nib.save(
                nib.Nifti1Image(mask, np.eye(4)), f"{stem}_space-{space}_desc-brain_mask.nii.gz"
            )
        columns = ["csf", "trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]
        rows = np.random.default_rng(0).normal(size=(25, 7)).round(4)
        text = "\n".join("\t".join(map(str, row)) for row in rows)
        pathlib.Path(f"{stem}_desc-confounds_timeseries.tsv").write_text(
            "\t".join(columns) + "\n" + text + "\n"
        )
    (root / "dataset_description.json").write_text('{"Name": "fMRIPrep", "BIDSVersion": "1.8.0"}')


def test_derivatives_with_masks_motion_and_events_of_the_raw_data(load, tmp_path):
    raw = study(tmp_path / "study")
    root = raw / "derivatives" / "fmriprep"
    fmriprep(root, raw)
    with pytest.raises(
        InputError,
        match=r"2 versions of sub-01 task-emo run-01: space MNI152NLin2009cAsym, T1w; expected one "
        r"of them, such as --config.data.entities=space=T1w",
    ):
        load(root, events_root=str(raw))
    cohort = load(root, space="T1w", events_root=str(raw))
    found = load(root, entities="space=T1w", space="", events_root="")
    assert found.hashes == cohort.hashes and not cohort.notes
    assert found.notes == (f"events were read from the raw data in {raw} (runs: 4)",)
    assert len(cohort.runs) == 4 and cohort.runs[0].motion.shape == (25, 6)
    assert cohort.masks["01"].sum() == 6  # in both runs
    stem = root / "sub-01/func/sub-01_task-emo_run-01"
    for name in ("_space-T1w_desc-brain_mask.nii.gz", "_desc-confounds_timeseries.tsv"):
        assert cohort.runs[0].hashes[f"{stem}{name}"] == sha256(f"{stem}{name}")
    assert (
        len(load(raw, space="", entities="", events_root="").runs) == 4
    )  # derivatives inside are not runs


@pytest.mark.parametrize(
    ("sidecar", "header", "match"),
    [
        ({}, 0.0, r"no TR in header or JSON; expected RepetitionTime in s \(or data.tr\)"),
        ({"RepetitionTime": 2.5}, 2.0, "TR 2 s in the header and 2.5 s in the JSON"),
        ({"RepetitionTime": "2"}, 2.0, "task-emo_bold.json: found RepetitionTime '2'"),
        ({"VolumeTiming": [0, 3]}, 0.0, "VolumeTiming of 2 volumes; expected one time for each of"),
        ({}, 2000.0, "run-01_bold.nii.gz: found a TR of 2000 s; expected .*--config.data.tr=2.0"),
        ({"RepetitionTime": 2000}, 0, "task-emo_bold.json: found a TR of 2000 s; expected 0.1 to"),
    ],
)
def test_tr_missing_or_disagreeing(load, tmp_path, sidecar, header, match):
    root = study(tmp_path / "study")
    image(root / "sub-01/func/sub-01_task-emo_run-01_bold.nii.gz", tr=header)
    (root / "task-emo_bold.json").write_text(json.dumps(sidecar))
    with pytest.raises(InputError, match=match):
        load()
    assert load(tr=2.0).tr == 2.0  # the user knows


def test_other_things_wrong_with_a_study(load, tmp_path):
    root = study(tmp_path / "study")
    bold = root / "sub-01/func/sub-01_task-emo_run-02_bold.nii.gz"
    image(bold, shape=(5, 4, 2))
    with pytest.raises(InputError, match=r"shape \(5, 4, 2\); expected \(5, 4, 3\) as in"):
        load()
    image(bold, affine=np.diag([2.0, 2, 2, 1]))
    with pytest.raises(InputError, match="another affine"):
        load()
    image(bold, length=15)
    (root / "task-emo_events.tsv").write_text(EVENTS + "42\t5\tface\tgood\n")
    face = next(loss for loss in load().lost if (loss.run, loss.value) == ("run-02", "face"))
    assert (face.events, face.behind) == (2, 1)
    image(bold)
    image(root / "sub-01/func/sub-01_task-emo_acq-b_run-02_bold.nii.gz")
    image(root / "sub-01/func/sub-01_task-rest_bold.nii.gz")
    with pytest.raises(InputError, match=r"tasks emo, rest; expected one of them as data.task"):
        load()
    assert len(load(task="emo").runs) == 5
    with pytest.raises(InputError, match="no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no sub-"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"RepetitionTime": 2.0,}', r"task-emo_bold.json: found no JSON"),
        ('{"RepetitionTime": 1' + "0" * 400 + "}", "RepetitionTime 1000*"),
        ('{"RepetitionTime": 1e400}', "RepetitionTime inf"),
        ('{"RepetitionTime": true}', "RepetitionTime True"),
        ('{"RepetitionTime": [2]}', r"RepetitionTime \[2\]"),
    ],
)
def test_refuses_sidecars(load, tmp_path, text, match):
    root = study(tmp_path / "study")
    (root / "task-emo_bold.json").write_text(text)
    with pytest.raises(InputError, match=match):
        load()
    assert load(tr=2.0).tr == 2.0  # then it is not needed


@pytest.mark.parametrize("name", ["\u00b2", "1" * 5000, "[/b]", "\u0661", "00"])
def test_refuses_names_that_do_not_exist(load, tmp_path, name):
    study(tmp_path / "study")
    for key in ("subjects", "runs"):
        with pytest.raises(InputError, match=f"no {key[:3]}-"):
            load(**{"subjects": "", "runs": "", key: name})


@pytest.mark.parametrize("root", ["", "/etc/hostname", "a\0b", "/" + "x" * 5000])
def test_refuses_what_is_no_folder(load, tmp_path, root):
    with pytest.raises(InputError, match=r"no such folder; expected .*\(data.root\)"):
        load(root)
    study(tmp_path / "study")
    if root:
        with pytest.raises(InputError, match=r"no such folder; expected .*\(data.events_root\)"):
            load(events_root=root)


def test_refuses_a_folder_in_the_place_of_a_scan(load, tmp_path):
    study(tmp_path / "study")
    (tmp_path / "study/sub-01/func/sub-01_task-emo_run-03_bold.nii.gz").mkdir()
    with pytest.raises(InputError, match=r"run-03_bold.nii.gz: found something that is not a file"):
        load()


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (np.ones((5, 4, 2), np.uint8), r"another grid, \(5, 4, 2\); expected .* \(5, 4, 3\)"),
        (np.ones((5, 4, 3, 2), np.uint8), r"an image of shape \(5, 4, 3, 2\); expected one vol"),
        (np.zeros((5, 4, 3), np.uint8), "a mask without voxels"),
        (np.full((5, 4, 3), np.nan, np.float32), "a mask without voxels"),
        (np.ones((5, 4, 3), np.complex64), r"values of type complex64\); expected a brain mask"),
    ],
)
def test_refuses_masks(load, tmp_path, values, match):
    study(tmp_path / "study")
    path = tmp_path / "study/sub-01/func/sub-01_task-emo_run-01_desc-brain_mask.nii.gz"
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    with pytest.raises(InputError, match=match):
        load()
