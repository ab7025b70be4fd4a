"""SPM folders: a real scan in every layout and form of labels, and what is refused."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import scipy.io

from configs import common
from emojax import sources
from emojax.data import events
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.sources import spm

HAXBY = "data/pymvpa-haxby/haxby2001/sub001/BOLD/task001_run{:03}"
TR = 2.5
NO_LAG = events.Timing(hrf_delay_s=0.0)
GRID = (4, 3, 2)


@pytest.fixture
def root(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def write(path, values, kind=nib.Nifti1Image, affine=None, tr=TR):
    """One image [X, Y, Z] or [X, Y, Z, t]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = kind(values, np.diag([3.0, 3, 3, 1]) if affine is None else affine)
    if values.ndim == 4 and kind is not nib.AnalyzeImage:
        image.header.set_zooms((3, 3, 3, tr))
        image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def small(seed=0, volumes=8, grid=GRID):
    return np.random.default_rng(seed).integers(0, 999, (*grid, volumes)).astype(np.int16)


def small_study(root, ending=".nii.gz"):
    """Subjects S1, S2 with runs r1, r2 of 8 volumes, 4-D."""
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


@pytest.fixture
def haxby(shared):
    """Run -> (image, its events): two real runs at 25 mm."""
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
    """Counted by volume centres, and not by overlap as the sources do."""
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


KINDS = {
    ".nii": nib.Nifti1Image,
    ".nii.gz": nib.Nifti1Image,
    ".img": nib.Nifti1Pair,
    " analyze.img": nib.AnalyzeImage,
}


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("layout", ["4-D", "3-D"])
def test_reads_a_real_scan(haxby, root, store, layout, ending):
    for run, (image, _) in haxby.items():
        values = np.asarray(image.dataobj)
        if layout == "4-D":
            write(root / "S1" / run / f"raf{ending}", values, KINDS[ending])
        else:  # without zeros in front: 10 comes after 9
            for t in range(values.shape[-1]):
                write(root / "S1" / run / f"raf-{t + 1}{ending}", values[..., t], KINDS[ending])
    tr = None if layout == "4-D" and "analyze" not in ending else TR
    labels = onset_table(root, haxby)
    cohort = spm.read(root, store, labels=labels, timing=NO_LAG, tr=tr)
    check_haxby(cohort, haxby)
    files = sum(len(list((root / "S1" / run).glob("*f*"))) for run in haxby)
    images = files // 2 if ending.endswith(".img") else files
    assert len(cohort.hashes) == images + 1
    if tr is not None:
        with pytest.raises(InputError, match=r"no TR in its header; expected data.tr"):
            spm.read(root, store, labels=labels, timing=NO_LAG)


def write_haxby(root, haxby, place="S1/{run}/raf.nii"):
    for run, (image, _) in haxby.items():
        write(root / place.format(run=run), np.asarray(image.dataobj))


def test_loads_from_the_config(haxby, root, tmp_path):
    write_haxby(root, haxby)
    config = common.get_config()
    config.data.update({"source": "spm", "root": str(root), "store": str(tmp_path / "s")})
    config.data.update({"labels": onset_table(root, haxby), "hrf_delay_s": 0.0, "progress": False})
    check_haxby(sources.load(config), haxby)
    config.data.label_map = "face=face;other=cat|house;rest="
    cohort = sources.load(config)
    assert cohort.classes == ("face", "other", "rest")
    counts = [{c: row[c] for c in cohort.classes} for row in cohort.counts()]
    free = sum(int((labels < 0).sum()) for labels in expected_labels(haxby)[1])
    assert [c["face"] for c in counts] == [9, 9]
    assert [c["other"] for c in counts] == [18, 18]
    assert sum(c["rest"] for c in counts) == free
    config.data.label_map = "faces=faces;cat=cat"
    with pytest.raises(InputError, match=r"value 'faces' .* bottle \(2\), cat \(2\)"):
        sources.load(config)


@pytest.mark.parametrize("name", ["onsets.csv", "onsets.tsv"])
@pytest.mark.parametrize("column", ["name", "trial_type"])
def test_onset_tables(haxby, root, store, name, column):
    write_haxby(root, haxby)
    header = f"subject,run,{column},onset,duration"
    labels = onset_table(root, haxby, header, name=name)
    check_haxby(spm.read(root, store, labels=labels, timing=NO_LAG), haxby)


def conditions(e, scale=1.0):
    """SPM's cell arrays; a duration per condition, or one for each onset."""
    values = sorted(set(e.value))
    onsets, durations = (np.empty((1, len(values)), object) for _ in range(2))
    for i, value in enumerate(values):
        here = [j for j, v in enumerate(e.value) if v == value]
        onsets[0, i] = e.onset[here] / scale
        durations[0, i] = e.duration[here][0] / scale if i % 2 else e.duration[here] / scale
    return {"names": np.array([values], object), "onsets": onsets, "durations": durations}


@pytest.mark.parametrize("unit", ["s", "scans"])
@pytest.mark.parametrize("per_name", [False, True])
def test_condition_files(haxby, root, store, unit, per_name):
    """In folders of runs, and of several 4-D files in one folder."""
    write_haxby(root, haxby, "S1/{run}.nii" if per_name else "S1/{run}/raf.nii")
    for run, (_, e) in haxby.items():
        path = root / ("S1/cond_{}.mat" if per_name else "S1/{}/cond.mat").format(run)
        scipy.io.savemat(path, conditions(e, TR if unit == "scans" else 1))
    labels = "cond_{run}.mat" if per_name else "cond.mat"
    options = {"labels": labels, "timing": NO_LAG, "onset_unit": unit}
    pattern = "run*" if per_name else "ra*"
    check_haxby(spm.read(root, store, pattern=pattern, **options), haxby)


def test_tables_of_volumes(root, store):
    given = small_study(root)
    rows = [(s, r, v, ["rest", "bad", "", "n/a"][v % 4]) for s, r in given for v in range(7)]
    cohort = spm.read(root, store, labels=table(root, rows))
    assert cohort.classes == ("bad", "rest")
    for i, (key, values) in enumerate(given.items()):
        run = cohort.runs[i]
        assert (run.subject, run.name) == key
        own = cohort.run_index == i
        assert cohort.frame[own].tolist() == [0, 1, 4, 5]
        assert cohort.labels[own].tolist() == [1, 0, 1, 0]
        np.testing.assert_array_equal(np.moveaxis(run.read(slice(None)), 0, -1), values)
    np.testing.assert_array_equal(cohort.volumes[0], given["S1", "r1"][..., 0])
    table(root, rows, "subject,run,volume,trial_type")
    dropped = spm.read(
        root,
        store,
        labels="labels.csv",
        label_map="rest=rest;bad=bad",
        timing=events.Timing(drop_first=1),
    )
    assert dropped.classes == ("rest", "bad")
    assert dropped.frame[:3].tolist() == [1, 4, 5]


def test_layouts_without_folders_of_runs(root, store):
    for run in (1, 2, 10):
        write(root / "S1" / f"rafM{run}.nii", small(run))
    values = small(3)
    for t in range(8):
        write(root / "S2" / f"raf-{t}.nii", values[..., t])
    (root / "S1" / "anat").mkdir()
    write(root / "S1" / "meanaf.nii", small()[..., 0])
    names = [("S1", f"rafM{run}") for run in (1, 2, 10)] + [("S2", "run-1")]
    cohort = spm.read(root, store, labels=table(root, alternating(names)), tr=TR)
    assert sorted((run.subject, run.name) for run in cohort.runs) == sorted(names)
    np.testing.assert_array_equal(np.moveaxis(cohort.runs[-1].read(slice(None)), 0, -1), values)


def test_files_of_one_run_may_differ_in_scale(root, store):
    values = small()
    for t in range(8):
        image = nib.Nifti1Image(values[..., t] * (t + 1.5), np.eye(4))
        image.header.set_data_dtype(np.int16)
        (root / "S1").mkdir(exist_ok=True)
        nib.save(image, root / "S1" / f"raf{t}.nii")
    cohort = spm.read(root, store, labels=table(root, alternating([("S1", "run-1")])), tr=TR)
    want = np.stack([nib.load(root / "S1" / f"raf{t}.nii").get_fdata() for t in range(8)])
    np.testing.assert_allclose(cohort.volumes[:], want, rtol=1e-6)


def test_motion_goes_to_its_run(root, store):
    keys = list(small_study(root))
    parameters = np.random.default_rng(0).normal(size=(8, 6)).round(4)
    np.savetxt(root / "S1" / "r1" / "rp_of_another_name.txt", parameters)
    labels = table(root, alternating(keys))
    motions = [run.motion for run in spm.read(root, store, labels=labels).runs]
    np.testing.assert_array_equal(motions[0], parameters)
    assert motions[1:] == [None] * 3
    np.savetxt(root / "S1" / "r1" / "rp_2.txt", parameters)
    with pytest.raises(InputError, match=r"rp_2.txt, rp_of_another_name.txt for one run; .*rp_af"):
        spm.read(root, store, labels=labels)
    np.savetxt(root / "S1" / "r1" / "rp_af.txt", parameters[:7])
    with pytest.raises(InputError, match=r"rp_af.txt: found 7 rows of 6 numbers; .* 8 volumes"):
        spm.read(root, store, labels=labels)


def test_motion_of_several_runs_in_one_folder(root, store):
    for run in "12":
        write(root / "S1" / f"raf{run}.nii", small())
    np.savetxt(root / "S1" / "rp_af2.txt", np.ones((8, 6)))
    labels = table(root, alternating([("S1", "raf1"), ("S1", "raf2")]))
    one, two = spm.read(root, store, labels=labels).runs
    assert one.motion is None
    np.testing.assert_array_equal(two.motion, np.ones((8, 6)))


def test_filters(root, store):
    given = small_study(root)
    labels = table(root, alternating(given))
    cohort = spm.read(root, store, labels=labels, subjects=("S2",), runs=("r1",))
    assert [(run.subject, run.name) for run in cohort.runs] == [("S2", "r1")]
    with pytest.raises(InputError, match="found no subject 'S3'; expected one of S1, S2"):
        spm.read(root, store, labels=labels, subjects=("S3",))


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], "subject,run,volume,label", "found no rows"),
        ([("S1", "r1", 0, "a")], "subject,session,volume,label", "expected a column 'run'"),
        ([("S1", "r1", 0)], "subject,run,label", "expected columns volume and trial_type or label"),
        ([("S1", "r1", 0)], "subject,run,volume", "expected columns volume and trial_type or lab"),
        ([("S1", "r1", 0, 1)], "subject,run,onset,name", "expected columns onset, duration and"),
        ([("S1", "r9", 0, "a")], "subject,run,volume,label", "found rows of S1 r9; .* S1 run r1"),
        ([("S1", "r1", "x", "a")], "subject,run,volume,label", "'x' in line 2, column 'volume'"),
        ([("S1", "r1", 0.5, "a")], "subject,run,volume,label", "volume 0.5 in line 2; expected 0"),
        ([("S1", "r1", -1, "a")], "subject,run,volume,label", "volume -1 in line 2"),
        (
            [("S1", "r1", 1, "a"), ("S1", "r1", 1, "b")],
            "subject,run,volume,label",
            "volume 1 in line 3 as in line 2",
        ),
        (
            [("S1", "r1", 0, "a"), ("S1", "r1", 8, "b")],
            "subject,run,volume,label",
            "found volume 8; expected volumes of a run of 8",
        ),
        ([("S1", "r1", 0, "a")], "subject,run,volume,label", "found classes a; expected two or"),
        ([("S1", "r1", 0)], "subject,run,volume,label", "found 3 cells in line 2; expected 4"),
        (
            [("S1", "r1", "a", 30, 5), ("S1", "r1", "b", 0, 5)],
            "subject,run,name,onset,duration",
            "an onset at 30 s; expected onsets before the end of the run, 20 s",
        ),
        (
            [("S1", "r1", "a", "n/a", 5)],
            "subject,run,name,onset,duration",
            "'n/a' in line 2, column 'onset'",
        ),
    ],
)
def test_refuses_tables(root, store, rows, header, message):
    small_study(root)
    labels = table(root, rows, header)
    with pytest.raises(InputError, match=message) as error:
        spm.read(root, store, labels=labels, subjects=("S1",), runs=("r1",))
    assert "\n" not in str(error.value)


def test_refuses_settings(root, store):
    with pytest.raises(InputError, match=r"found no images ra\*; expected <subject>/<run>/ra"):
        spm.read(root, store, labels="labels.csv")
    with pytest.raises(InputError, match="found no such folder"):
        spm.read(root / "x", store, labels="labels.csv")
    keys = small_study(root)
    with pytest.raises(InputError, match=r"data.labels: found no name"):
        spm.read(root, store, labels="")
    with pytest.raises(InputError, match=r"labels.csv: found no readable table"):
        spm.read(root, store, labels="labels.csv")
    labels = table(root, alternating(keys))
    with pytest.raises(InputError, match=r"data.onset_unit: found 'ms'; expected one of s, scans"):
        spm.read(root, store, labels=labels, onset_unit="ms")
    with pytest.raises(InputError, match=r"class 'rest' without values; .* are not used"):
        spm.read(root, store, labels=labels, label_map="rest=;b=b")
    assert not store.folder.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"durations": None}, "found variables names, onsets; expected names, onsets, durations"),
        ({"onsets": np.zeros((1, 2))}, "found onsets of type float64"),
        ({"names": np.array([["a"]], object)}, "found 1 names, 2 onsets and 2 durations"),
        (
            {"durations": np.array([[np.array([1.0, 2, 3]), 1.0]], object)},
            "found 2 onsets and 3 durations of 'a'",
        ),
        (
            {"durations": np.array([[np.array([1.0, np.nan]), 1.0]], object)},
            "found NaN or infinite times of 'a'",
        ),
    ],
)
def test_refuses_condition_files(root, store, changes, message):
    write(root / "S1" / "r1" / "raf.nii", small())
    with pytest.raises(InputError, match=r"r1/cond.mat: found no such file"):
        spm.read(root, store, labels="cond.mat")
    given = {
        "names": np.array([["a", "b"]], object),
        "onsets": np.array([[np.array([0.0, 4.0]), np.array([2.0])]], object),
        "durations": np.array([[2.0, 2.0]], object),
    }
    given = {key: value for key, value in (given | changes).items() if value is not None}
    scipy.io.savemat(root / "S1" / "r1" / "cond.mat", given)
    with pytest.raises(InputError, match=message):
        spm.read(root, store, labels="cond.mat")


def test_refuses_unclear_folders(root, store):
    labels = table(root, alternating([("S1", "r1")]))
    path = root / "S1" / "r1" / "raf.nii"
    write(path, small())
    write(path.with_name("raf2.nii"), small()[..., 0])
    with pytest.raises(InputError, match=r"found raf2.nii with one volume and raf.nii with more"):
        spm.read(root, store, labels=labels)
    write(path.with_name("raf2.nii"), small())
    with pytest.raises(InputError, match=r"found 2 4-D images ra\*; expected one run"):
        spm.read(root, store, labels=labels)
    path.with_name("raf2.nii").rename(root / "S1" / "raf2.nii")
    with pytest.raises(InputError, match="images beside folders of runs"):
        spm.read(root, store, labels=labels)
    (root / "S1" / "raf2.nii").unlink()
    write(path.with_name("raf.nii.gz"), small())
    with pytest.raises(InputError, match=r"found both raf.nii and raf.nii.gz; expected one"):
        spm.read(root, store, labels=labels)


def test_refuses_damaged_images(root, store):
    labels = table(root, alternating([("S1", "r1"), ("S1", "r2")]))
    for run in ("r1", "r2"):
        write(root / "S1" / run / "raf.nii.gz", small())
    path = root / "S1" / "r2" / "raf.nii.gz"
    write(path, small(volumes=80))
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"raf.nii.gz: found a truncated .nii.gz"):
        spm.read(root, store, labels=labels)
    path.write_bytes(gzip.compress(b"no image" * 100))
    with pytest.raises(InputError, match=r"raf.nii.gz: found no readable image"):
        spm.read(root, store, labels=labels)
    write(path, small(grid=(4, 4, 2)))
    with pytest.raises(InputError, match=r"shape \(4, 4, 2\); expected \(4, 3, 2\)"):
        spm.read(root, store, labels=labels)
    write(path, small(), affine=np.diag([2.0, 3, 3, 1]))
    with pytest.raises(InputError, match="another affine"):
        spm.read(root, store, labels=labels)
    write(path, small(), tr=2.0)
    with pytest.raises(InputError, match=r"TR 2.0 s; expected 2.5 s"):
        spm.read(root, store, labels=labels)
    write(path, small())
    assert len(spm.read(root, store, labels=labels).runs) == 2


def test_refuses_half_a_pair_and_3_d_files_that_do_not_fit(root, store):
    labels = table(root, alternating([("S1", "run-1")]))
    for t in range(8):
        write(root / "S1" / f"raf{t}.img", small()[..., t], nib.Nifti1Pair)
    (root / "S1" / "raf7.img").unlink()
    with pytest.raises(InputError, match=r"raf7.img: found no such file; expected the other half"):
        spm.read(root, store, labels=labels, tr=TR)
    write(root / "S1" / "raf7.img", small(grid=(4, 4, 2))[..., 0], nib.Nifti1Pair)
    with pytest.raises(InputError, match=r"raf7.img: found shape \(4, 4, 2\) x 1; expected one"):
        spm.read(root, store, labels=labels, tr=TR)
