"""BIDS data sets that were read wrong once: right now, or one line that says what to type."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from emojax.data.hashes import sha256
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.sources import bids, participants

AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
AFFINE[:3, 3] = -18.0, -18.0, -15.0
GRID = (6, 7, 5)
FLIP = AFFINE @ np.array([[-1.0, 0, 0, GRID[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
MAP = "neutral=neutral;negative=negative"
MOTION = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]


def blocks(order="abab", start=10.0, block=16.0, gap=8.0):
    names = {"a": "neutral", "b": "negative"}
    return [(start + i * (block + gap), block, names[c]) for i, c in enumerate(order)]


def truth(rows, t, tr=2.0, delay=5.0):
    """Labels by brute force over moments of 1 ms: -1 none."""
    out = np.full(t, -1)
    for k in range(t):
        ms = (np.arange(round(tr * 1000)) + 0.5) / 1000 + k * tr
        for c, name in enumerate(("neutral", "negative")):
            hit = np.zeros(len(ms), bool)
            for onset, duration, value in rows:
                if value == name:
                    hit |= (ms >= onset + delay) & (ms < onset + duration + delay)
            if hit.mean() >= 0.5 - 1e-6:
                out[k] = c
    return out


def save(path, values, affine=AFFINE, tr=2.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    if values.ndim > 3:
        image.header.set_xyzt_units("mm", "sec")
        image.header["pixdim"][4] = tr
    nib.save(image, path)


def table(path, rows, columns=("onset", "duration", "trial_type")):
    path.write_text("\n".join("\t".join(map(str, row)) for row in [columns, *rows]) + "\n")


def one(root, stem="sub-01_task-emo_run-1", rows=None, t=52, tr=2.0, meta=None, seed=0):
    """Writes one run with its events; returns the path of its image."""
    path = root / stem.partition("_")[0] / "func" / f"{stem}_bold.nii.gz"
    values = np.random.default_rng(seed).normal(100, 10, (*GRID, t)).astype(np.float32)
    save(path, values, tr=tr)
    table(path.with_name(f"{stem}_events.tsv"), rows or blocks())
    sidecar = {"RepetitionTime": tr} if meta is None else meta
    (root / "task-emo_bold.json").write_text(json.dumps(sidecar))
    return path


@pytest.fixture
def read(tmp_path):
    def read(root=tmp_path / "b", label_map=MAP, **settings):
        return bids.read(root, Store(tmp_path / "store"), label_map=label_map, **settings)

    return read


def labels(cohort):
    out = np.full(len(cohort.runs[0].frames), -1)
    out[cohort.frame] = cohort.labels
    return out.tolist()


def test_echoes_of_a_run_are_not_runs(read, tmp_path):
    for sub in ("01", "02"):
        for run in (1, 2):
            stem = f"sub-{sub}_task-emo_run-{run}"
            for echo in (1, 2, 3):
                path = one(tmp_path / "b", f"{stem}_echo-{echo}", seed=int(f"{sub}{run}{echo}"))
                path.with_name(f"{stem}_echo-{echo}_events.tsv").rename(
                    path.with_name(f"{stem}_events.tsv")
                )
    with pytest.raises(InputError, match=r"sub-01 task-emo run-1: echo 1, 2, 3; .*entities=echo=2"):
        read()
    cohort = read(entities="echo=2")
    assert [(run.subject, run.name) for run in cohort.runs] == [
        (sub, f"run-{run}") for sub in ("01", "02") for run in (1, 2)
    ]
    assert all("_echo-2_" in next(iter(run.hashes)) for run in cohort.runs)


def test_one_scan_under_two_names_is_refused(read, tmp_path):
    path = one(tmp_path / "b")
    for name in (path.name, "sub-01_task-emo_run-1_events.tsv"):
        shutil.copy(path.with_name(name), path.with_name(name.replace("_run", "_dir-pa_run")))
    with pytest.raises(InputError, match=r"run-1_bold.nii.gz: found the same values as .*run-1_b"):
        read()


def test_a_scan_stored_twice_is_refused(read, tmp_path):
    path = one(tmp_path / "b")
    save(path.with_name(path.name.removesuffix(".gz")), np.ones((*GRID, 52), np.int16))
    with pytest.raises(
        InputError, match=r"run-1_bold.nii.gz: found the same scan as sub-01_.*nii;"
    ):
        read()


def test_a_mirrored_mask_is_turned(read, tmp_path):
    path = one(tmp_path / "b", "sub-01_task-emo_run-1_space-MNI_desc-preproc")
    half = np.zeros(GRID, np.uint8)
    half[GRID[0] // 2 :, 1:5, 1:4] = 1
    mask = path.with_name(path.name.replace("preproc_bold", "brain_mask"))
    save(mask, half[::-1], FLIP)
    np.testing.assert_array_equal(read().masks["01"], half == 1)
    save(mask, half.transpose(1, 0, 2), AFFINE[:, [1, 0, 2, 3]])
    np.testing.assert_array_equal(read().masks["01"], half == 1)
    moved = AFFINE.copy()
    moved[0, 3] += 1.5
    save(mask, half, moved)
    said = rf"^{mask}: found a mask on another grid, .* off by up to 0.5 voxels; .*: {path} \("
    with pytest.raises(InputError, match=said):
        read()


def test_masks_are_those_of_the_same_space_and_resolution(read, tmp_path):
    stem = "sub-01_task-emo_run-1"
    for i, part in enumerate(("space-MNI_res-1", "space-MNI_res-02", "space-T1w")):
        path = one(tmp_path / "b", f"{stem}_{part}_desc-preproc", seed=i)
        mask = np.zeros(GRID, np.uint8)
        mask[: i + 1] = 1
        part = part.replace("res-02", "res-2")
        save(path.with_name(f"sub-01_task-emo_run-01_{part}_desc-brain_mask.nii.gz"), mask)
    for i, entities in enumerate(("space=MNI,res=1", "res=2", "space=T1w")):
        assert read(entities=entities).masks["01"].sum() == (i + 1) * 35


def test_a_sidecar_that_is_cut_off_is_refused(read, tmp_path):
    path = one(tmp_path / "b", rows=blocks("ab"), tr=1.0)
    (tmp_path / "b/task-emo_bold.json").write_text('{"RepetitionTime": 2.0, "TaskName": "em')
    with pytest.raises(InputError, match=r"task-emo_bold.json: found no JSON"):
        read()
    cohort = read(tr=2.0)  # and the report mentions it
    assert labels(cohort) == truth(blocks("ab"), 52).tolist()
    assert "task-emo_bold.json: found no JSON" in cohort.notes[0] and path.exists()


def test_volumes_of_sparse_sequences_end_before_their_pause(read, tmp_path):
    rows = [(20.0 * i, 8.0, ("neutral", "negative")[i % 2]) for i in range(12)]
    one(tmp_path / "b", rows=rows, t=26, tr=10.0, meta={"RepetitionTime": 10.0, "DelayTime": 8.0})
    want = np.full(26, -1)
    for k in range(26):
        for onset, duration, value in rows:
            if min(10 * k + 2, onset + duration + 5) - max(10 * k, onset + 5) >= 1.0:
                want[k] = value == "negative"
    assert labels(read()) == want.tolist()


def test_a_derivative_has_the_pause_of_its_raw_data(read, tmp_path):
    rows = [(20.0 * i, 8.0, ("neutral", "negative")[i % 2]) for i in range(12)]
    meta = {"RepetitionTime": 10.0, "DelayTime": 8.0}
    path = one(tmp_path / "raw", rows=rows, t=26, tr=10.0, meta=meta)
    want = labels(read(tmp_path / "raw"))
    (tmp_path / "out/sub-01/func").mkdir(parents=True)
    path.rename(tmp_path / "out/sub-01/func" / path.name.replace("_bold", "_desc-preproc_bold"))
    (tmp_path / "out/bold.json").write_text('{"RepetitionTime": 10.0}')
    cohort = read(tmp_path / "out")
    assert labels(cohort) == want and str(tmp_path / "raw/task-emo_bold.json") in cohort.hashes
    (tmp_path / "out/bold.json").write_text('{"RepetitionTime": 10.0, "AcquisitionDuration": 10}')
    assert labels(read(tmp_path / "out")) != want  # the derivative's statement comes first


def test_volumes_that_are_not_a_tr_apart_have_starts(read, tmp_path):
    start = np.cumsum([0.0, *[2.0, 3.0] * 25, 2.0])
    one(tmp_path / "b", meta={"VolumeTiming": start.tolist(), "AcquisitionDuration": 1.5})
    (run,) = read().runs
    assert run.tr is None
    np.testing.assert_array_equal(run.starts, start)
    np.testing.assert_array_equal(read().time, start[read().frame])


def test_phase_images_are_no_bold(read, tmp_path):
    path = one(tmp_path / "b")
    for part in ("mag", "phase"):
        shutil.copy(path, path.with_name(path.name.replace("_bold", f"_part-{part}_bold")))
    path.unlink()
    (run,) = read().runs
    assert run.name == "run-1" and "part-mag" in next(iter(run.hashes))
    next(path.parent.glob("*part-mag*")).unlink()
    with pytest.raises(
        InputError, match=r"part-phase_bold.nii.gz: found only part-phase of sub-01"
    ):
        read()


@pytest.mark.parametrize(
    ("names", "typed"),
    [
        (("rec-norm_run-1", "rec-raw_run-1"), "rec=norm"),
        (("run-1_space-M_res-1_desc-preproc", "run-1_space-M_res-2_desc-preproc"), "res=1"),
    ],
)
def test_two_versions_of_a_run_have_a_key(read, tmp_path, names, typed):
    for i, name in enumerate(names):
        one(tmp_path / "b", f"sub-01_task-emo_{name}", seed=i)
    entity = typed.partition("=")[0]
    with pytest.raises(InputError, match=rf"2 versions of .* {entity} .*data.entities={entity}="):
        read()
    assert len(read(entities=typed).runs) == 1


def test_run_1_of_a_derivative_has_the_events_of_run_01(read, tmp_path):
    path = one(tmp_path / "raw")
    name = "sub-01_task-emo_run-1"
    (tmp_path / "out/sub-01/func").mkdir(parents=True)
    path.rename(tmp_path / f"out/sub-01/func/{name}_space-MNI_desc-preproc_bold.nii.gz")
    events = path.with_name(f"{name}_events.tsv")
    events.rename(path.with_name("sub-01_task-emo_run-01_events.tsv"))
    for events_root in (tmp_path / "raw", ""):
        cohort = read(tmp_path / "out", events_root=events_root)
        assert len(cohort.runs) == 1 and labels(cohort) == truth(blocks(), 52).tolist()
    assert cohort.notes == (f"events were read from the raw data in {tmp_path}/raw (runs: 1)",)
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(InputError, match=r"found no events; .*--config.data.events_root=/path/to"):
        read(tmp_path / "out")


def test_raw_data_that_lack_events_of_a_run_are_not_enough(read, tmp_path):
    (tmp_path / "study/bids/sub-09").mkdir(parents=True)  # raw data of others
    for who in ("01", "02"):
        one(tmp_path / "study/raw", f"sub-{who}_task-emo_run-1")
        for run in (1, 2):
            name = f"sub-{who}_task-emo_run-{run}"
            path = one(tmp_path / "study/out", name, seed=int(who) + 2 * run)
            path.with_name(f"{name}_events.tsv").unlink()
    one(tmp_path / "study/raw", "sub-02_task-emo_run-2")
    with pytest.raises(InputError) as error:
        read(tmp_path / "study/out")
    folder = tmp_path / "study"
    assert str(error.value) == (
        f"{folder}/out/sub-01/func/sub-01_task-emo_run-2_bold.nii.gz: found no events of sub-01 "
        f"task-emo run-2 (1 of 4 runs have none in {folder}/raw); expected *_events.tsv in {folder}"
        "/raw/sub-01/func or above, runs that have some: --config.data.subjects=02, or their "
        "folder: --config.data.events_root=/path/to/raw"
    )
    assert len(read(tmp_path / "study/out", subjects=["02"]).runs) == 2
    shutil.rmtree(folder / "raw")
    with pytest.raises(InputError, match=r"no events; .*nor in .*study/bids\).*data.events_root"):
        read(tmp_path / "study/out")


@pytest.mark.parametrize("parts", [("echo-1", "echo-2", "echo-3"), ("part-mag", "part-phase")])
def test_a_derivative_has_the_pause_of_raw_echoes_and_parts(read, tmp_path, parts):
    rows = [(20.0 * i, 8.0, ("neutral", "negative")[i % 2]) for i in range(12)]
    meta = {"RepetitionTime": 10.0, "DelayTime": 8.0}
    path = one(tmp_path / "raw", rows=rows, t=26, tr=10.0, meta=meta)
    want = labels(read(tmp_path / "raw"))
    (tmp_path / "raw/task-emo_bold.json").unlink()
    (tmp_path / "out/sub-01/func").mkdir(parents=True)
    path.rename(tmp_path / "out/sub-01/func" / path.name.replace("_bold", "_desc-preproc_bold"))
    (tmp_path / "out/task-emo_bold.json").write_text('{"RepetitionTime": 10.0, "EchoTime": 0.03}')
    sidecars = [path.with_name(f"sub-01_task-emo_run-1_{part}_bold.json") for part in parts]
    for i, sidecar in enumerate(sidecars):
        sidecar.write_text(json.dumps(meta | {"EchoTime": i, "DelayTime": 8 + 1e-5 * i}))
    cohort = read(tmp_path / "out")
    assert labels(cohort) == want and str(sidecars[-1]) in cohort.hashes
    sidecars[1].write_text(json.dumps(meta | {"DelayTime": 6.0}))
    with pytest.raises(
        InputError, match=rf"^{sidecars[1]}: found another DelayTime than .*{parts[0]}"
    ):
        read(tmp_path / "out")
    (tmp_path / "out/task-emo_bold.json").write_text(json.dumps(meta))  # as it says
    assert labels(read(tmp_path / "out")) == want


def test_a_duration_of_the_whole_run_is_noted_once(read, tmp_path):
    meta = {"RepetitionTime": 2.0, "AcquisitionDuration": 110.0}
    for i, name in enumerate(("sub-01_task-emo_run-1", "sub-02_task-emo_run-1")):
        one(tmp_path / "b", name, meta=meta, seed=i)
    cohort = read()
    assert cohort.notes == (
        "AcquisitionDuration is that of a whole run in 2 of 2 runs, so it was not used (first: "
        f"{tmp_path / 'b/task-emo_bold.json'})",
    )
    assert labels(cohort) == truth(blocks(), 52).tolist()


def test_the_table_of_groups_is_among_the_hashes_but_not_first(read, tmp_path):
    for i, who in enumerate(("01", "02")):
        one(tmp_path / "b", f"sub-{who}_task-emo_run-1", seed=i)
    path = people(tmp_path / "b") / "participants.tsv"
    for run in read(group="diagnosis").runs:
        assert run.place.endswith("_bold.nii.gz") and run.hashes[str(path)] == sha256(path)
    assert str(path) not in read().hashes


def test_confounds_come_along_as_a_path(read, tmp_path):
    path = one(tmp_path / "b", "sub-01_task-emo_run-1_space-MNI_res-2_desc-preproc")
    stem = "sub-01_task-emo_run-1_desc-confounds"
    assert read().runs[0].confounds is None
    for other in ("run-2", "run-10"):
        table(path.with_name(f"{stem.replace('run-1', other)}_timeseries.tsv"), [[1]], ["csf"])
    for name in (f"{stem}_regressors.tsv", f"{stem.replace('run-1', 'run-01')}_timeseries.tsv"):
        table(path.with_name(name), [[0.1] * 6] * 52, MOTION)
        assert read().runs[0].confounds == path.with_name(name)
    table(path.with_name(f"{stem}_timeseries.tsv"), [[0.2] * 6] * 52, MOTION)
    said = r"timeseries.tsv: found confounds of sub-01 .*, as .*timeseries.tsv; expected one of the"
    with pytest.raises(InputError, match=f"{said} two files: remove the other"):
        read()


def test_a_mask_may_be_an_image_of_one_volume(read, tmp_path):
    path = one(tmp_path / "b")
    mask = np.zeros((*GRID, 1), np.uint8)
    mask[1:4] = 1
    save(path.with_name("sub-01_task-emo_run-1_desc-brain_mask.nii.gz"), mask)
    np.testing.assert_array_equal(read().masks["01"], mask[..., 0] > 0)


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (["global_signal"], [[1.0]] * 52),
        (MOTION, [["n/a"] * 6, *[[0.1] * 6] * 51]),
        (MOTION, [[0.1] * 6] * 50),
        (MOTION, []),
    ],
)
def test_confounds_that_nobody_asked_for_do_not_stop_a_study(read, tmp_path, columns, rows):
    path = one(tmp_path / "b", "sub-01_task-emo_run-1_space-MNI_desc-preproc")
    confounds = path.with_name("sub-01_task-emo_run-01_desc-confounds_timeseries.tsv")
    table(confounds, rows, columns)
    cohort = read()
    assert cohort.runs[0].motion is None and str(confounds) not in cohort.hashes
    assert cohort.notes[0].startswith(
        "no six whole columns of realignment parameters for 1 of 1 runs"
    )
    with pytest.raises(InputError, match=f"^{confounds}: "):
        read(motion=True)
    table(confounds, [[0.1] * 6] * 52, MOTION)
    for cohort in (read(), read(motion=True)):
        assert cohort.runs[0].motion.shape == (52, 6) and not cohort.notes
        assert next(iter(cohort.runs[0].hashes)) == str(path) and str(confounds) in cohort.hashes
    confounds.rename(confounds.with_name(confounds.name.replace("timeseries", "regressors")))
    assert read().runs[0].motion is not None


POINTER = "/annex/objects/MD5E-s26093786--0123456789abcdef0123456789abcdef{}\n"


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/func/sub-01_task-emo_run-1_bold.nii.gz",
        "sub-01/func/sub-01_task-emo_run-1_events.tsv",
        "sub-01/func/sub-01_task-emo_run-1_desc-brain_mask.nii.gz",
        "task-emo_bold.json",
    ],
)
def test_what_is_not_downloaded_says_so(read, tmp_path, name):
    one(tmp_path / "b")
    path = tmp_path / "b" / name
    path.unlink(missing_ok=True)
    path.write_text(POINTER.format(path.suffix))
    said = rf"^{path}: found a file that is not downloaded \(datalad get {path}\); expected "
    with pytest.raises(InputError, match=said):
        read()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    with pytest.raises(InputError, match=r"not downloaded \(git lfs pull --include .*"):
        read()
    path.unlink()
    path.symlink_to("../../.git/annex/objects/XX/none.nii.gz")
    with pytest.raises(InputError, match=said):
        read()


def test_confounds_that_are_not_downloaded_stop_who_asks_for_them(read, tmp_path):
    one(tmp_path / "b")
    path = tmp_path / "b/sub-01/func/sub-01_task-emo_run-1_desc-confounds_timeseries.tsv"
    path.symlink_to("../../.git/annex/objects/XX/none.tsv")
    assert read().runs[0].motion is None
    with pytest.raises(InputError, match=rf"^{path}: found a file that is not downloaded"):
        read(motion=True)


@pytest.mark.parametrize("label_map", [MAP, f"rest=;{MAP}"])
def test_a_header_of_2000_s_is_named(read, tmp_path, label_map):
    path = one(tmp_path / "b", tr=2000.0, meta={})
    with pytest.raises(InputError, match=rf"^{path}: found a TR of 2000 s; .*--config.data.tr=2.0"):
        read(label_map=label_map)
    assert read(label_map=label_map, tr=2.0).tr == 2.0


PEOPLE = [("sub-01", "patient", "n/a"), ("sub-02", "control", "x"), ("sub-03", "control", "y")]


def people(root, rows=PEOPLE, columns=("participant_id", "diagnosis", "site")):
    root.mkdir(exist_ok=True)
    table(root / "participants.tsv", rows, columns)
    return root


def test_groups_are_a_column_of_participants(read, tmp_path):
    for i, sub in enumerate(("01", "02")):
        one(tmp_path / "b", f"sub-{sub}_task-emo_run-1", seed=i)
    people(tmp_path / "b")
    assert dict(read(group="diagnosis").groups) == {"01": "patient", "02": "control"}
    assert not read().groups
    said = r"participants.tsv: found no column 'sex'; expected .*: diagnosis, site, such as --conf"
    with pytest.raises(InputError, match=said):
        read(group="sex")
    with pytest.raises(InputError, match="no site of 1 subjects: 01; expected a value other than"):
        read(group="site")
    (tmp_path / "b/participants.tsv").unlink()
    (tmp_path / "b/participants.tsv").symlink_to(".git/annex/objects/none")
    with pytest.raises(InputError, match=r"participants.tsv: found a file that is not downloaded"):
        read(group="site")
    (tmp_path / "b/participants.tsv").unlink()
    with pytest.raises(InputError, match=r"data.group: found 'site', but no participants.tsv; exp"):
        read(group="site")


def test_participants(tmp_path):
    one_, two = people(tmp_path / "a", columns=("participant_id", "x", "y")), people(tmp_path / "b")
    found = participants.read([one_, two], "diagnosis", ["sub-03", "1"])
    assert found.of == {"sub-03": "control", "1": "patient"}
    assert found.hashes == {str(two / "participants.tsv"): sha256(two / "participants.tsv")}
    with pytest.raises(InputError, match="no diagnosis of 1 subjects: 04"):
        participants.read([two], "diagnosis", ["01", "04"])
    people(two, [*PEOPLE, ("01", "control", "z")])
    with pytest.raises(InputError, match="diagnosis control, patient of subject 01; expected one"):
        participants.read([two], "diagnosis", ["01"])
    people(two, [*PEOPLE, ("01", "patient", "z")])
    assert participants.read([two], "diagnosis", ["01"]).of == {"01": "patient"}
