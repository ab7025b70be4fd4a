"""SPM folders: a real scan in every layout, motion, filters, refusals."""

import gzip
import os

import nibabel as nib
import numpy as np
import pytest
from spm_study import (
    NO_LAG,
    TR,
    alternating,
    check_haxby,
    expected_labels,
    haxby_runs,
    onset_table,
    small,
    small_study,
    table,
    write,
    write_haxby,
)

from configs import common
from emojax import sources
from emojax.data.store import Store
from emojax.errors import InputError
from emojax.sources import spm


@pytest.fixture
def root(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def haxby(shared):
    return haxby_runs(shared)


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
    assert len(cohort.hashes) == files + 1  # both halves of a pair count
    if tr is not None:
        with pytest.raises(InputError, match=r"no TR in its header; expected data.tr"):
            spm.read(root, store, labels=labels, timing=NO_LAG)


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
        spm.read(root, store, labels=labels, motion=True)
    cohort = spm.read(root, store, labels=labels)  # they are not needed
    assert cohort.runs[0].motion is None and "rp_af" not in " ".join(cohort.hashes)
    (said,) = cohort.notes
    assert said.startswith("no six whole columns of realignment parameters for 4 of 4 runs")


@pytest.mark.parametrize("settings", [{"motion": True}, {"scrub_fd_mm": 0.5}])
def test_motion_that_is_asked_for_must_be_whole(root, tmp_path, settings):
    labels = table(root, alternating(small_study(root)))
    np.savetxt(root / "S1" / "r1" / "rp_af.txt", np.zeros((7, 6)))
    config = common.get_config("A")
    config.data.update({"source": "spm", "root": str(root), "store": str(tmp_path / "store")})
    config.data.labels = labels
    assert len(sources.load(config).runs) == 4
    config.data.update(settings)
    with pytest.raises(InputError, match=r"rp_af.txt: found 7 rows"):
        sources.load(config)


@pytest.mark.parametrize("tr", [0.002, 2000.0])
def test_a_tr_that_nobody_measures_with(root, store, tr):
    for subject in ("S1", "S2"):
        write(root / subject / "r1" / "raf.nii", small(int(subject[1])), tr=tr)
    labels = table(root, alternating([("S1", "r1"), ("S2", "r1")]))
    said = rf"raf.nii: found a TR of {tr:g} s; expected 0.1 to 30 s; .*--config.data.tr=2.0"
    with pytest.raises(InputError, match=said):
        spm.read(root, store, labels=labels)
    assert spm.read(root, store, labels=labels, tr=2.0).tr == 2


def test_motion_of_several_runs_in_one_folder(root, store):
    for run in "12":
        write(root / "S1" / f"raf{run}.nii", small(int(run)))
    np.savetxt(root / "S1" / "rp_af2.txt", np.ones((8, 6)))
    labels = table(root, alternating([("S1", "raf1"), ("S1", "raf2")]))
    one, two = spm.read(root, store, labels=labels).runs
    assert one.motion is None
    np.testing.assert_array_equal(two.motion, np.ones((8, 6)))


def test_motion_of_images_with_more_prefixes(root, store):
    for run in ("1", "12"):
        write(root / "S1" / f"swraf{run}.nii", small(int(run)))
        np.savetxt(root / "S1" / f"rp_af{run}.txt", np.full((8, 6), float(run)))
    np.savetxt(root / "S1" / "rp_2.txt", np.zeros((8, 6)))
    labels = table(root, alternating([("S1", "swraf1"), ("S1", "swraf12")]))
    runs = spm.read(root, store, labels=labels, pattern="swra*").runs
    assert [run.motion[0, 0] for run in runs] == [1, 12]


def test_other_images_are_named_by_the_config(root, store, tmp_path):
    keys = [("S1", "r1"), ("S1", "r2")]
    for i, (subject, run) in enumerate(keys):
        write(root / subject / run / "swrafM001.nii", small(i))
    labels = table(root, alternating(keys))
    with pytest.raises(
        InputError,
        match=r"no images ra\*, but swrafM001.nii; expected .*--config.data.images=swraf\*",
    ):
        spm.read(root, store, labels=labels)
    for pattern in ("", "r1/swra*"):
        with pytest.raises(InputError, match=r"data.images: found .* such as ra\*"):
            spm.read(root, store, labels=labels, pattern=pattern)
    assert len(spm.read(root, store, labels=labels, pattern="swra*").runs) == 2


def test_filters(root, store):
    given = small_study(root)
    labels = table(root, alternating(given))
    cohort = spm.read(root, store, labels=labels, subjects=("S2",), runs=("r1",))
    assert [(run.subject, run.name) for run in cohort.runs] == [("S2", "r1")]
    again = spm.read(root, store, labels=labels, subjects=("sub-S2",), runs=("run-r1",))
    assert [(run.subject, run.name) for run in again.runs] == [("S2", "r1")]
    with pytest.raises(InputError, match="found no subject 'S3'; expected one of S1, S2"):
        spm.read(root, store, labels=labels, subjects=("S3",))


def test_refuses_settings(root, store):
    with pytest.raises(InputError, match=r"found no images ra\*; expected <subject>/<run>/ra"):
        spm.read(root, store, labels="labels.csv")
    with pytest.raises(InputError, match="found no such folder"):
        spm.read(root / "x", store, labels="labels.csv")
    keys = small_study(root)
    with pytest.raises(InputError, match=r"data.labels: found no name"):
        spm.read(root, store, labels="")
    with pytest.raises(InputError, match=r"labels.csv: found no such file"):
        spm.read(root, store, labels="labels.csv")
    labels = table(root, alternating(keys))
    with pytest.raises(InputError, match=r"data.onset_unit: found 'ms'; expected one of s, scans"):
        spm.read(root, store, labels=labels, onset_unit="ms")
    with pytest.raises(InputError, match=r"class 'rest' without values; .* are not used"):
        spm.read(root, store, labels=labels, label_map="rest=;b=b")
    assert not store.folder.exists()


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
        write(root / "S1" / run / "raf.nii.gz", small(run == "r1"))
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


def test_folders_of_one_name_are_refused(root, store):
    for i, name in enumerate(("Caf\u00e9", "Cafe\u0301")):
        write(root / name / "r1" / "raf.nii", small(i))
    with pytest.raises(InputError, match="found subject 'Caf\u00e9' run 'r1' a second time"):
        spm.read(root, store, labels="labels.csv")


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


def test_names_of_other_digits_are_names(root, store):
    given = {("\u00b2", "r\u0661"): small(), ("S1", "r\u00b2"): small(1)}
    for (subject, run), values in given.items():
        write(root / subject / run / "raf.nii", values)
    cohort = spm.read(root, store, labels=table(root, alternating(given)))
    assert {(run.subject, run.name) for run in cohort.runs} == set(given)


@pytest.mark.parametrize("labels", [".", "a\0b.csv", "a\0b.mat", "x" * 5000 + ".csv"])
def test_refuses_names_of_labels(root, store, labels):
    small_study(root)
    with pytest.raises(
        InputError, match=r"found (no such file|something that is not a file|a path that cannot)"
    ):
        spm.read(root, store, labels=labels)


def test_refuses_what_is_no_file(root, store):
    given = small_study(root)
    (root / "S1" / "r1" / "raf.nii.gz").unlink()
    os.mkfifo(root / "S1" / "r1" / "raf.nii.gz")
    with pytest.raises(InputError, match=r"raf.nii.gz: found something that is not a file"):
        spm.read(root, store, labels=table(root, alternating(given)))


def test_refuses_a_pipe_in_the_place_of_a_header(root, store):
    write(root / "S1" / "r1" / "raf.img", small(), nib.Nifti1Pair)
    (root / "S1" / "r1" / "raf.hdr").unlink()
    os.mkfifo(root / "S1" / "r1" / "raf.hdr")
    with pytest.raises(InputError, match=r"raf.hdr: found"):
        spm.read(root, store, labels="labels.csv", tr=2.0)
