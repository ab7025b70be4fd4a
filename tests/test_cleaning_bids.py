"""A study as fMRIPrep leaves it, cleaned, smoothed and cut to a region by keys of the config."""

import nibabel as nib
import numpy as np
import pytest
from test_confounds import NAME, T, make_table, write

from emojax import sources
from emojax.data.cohort import Prior
from emojax.data.hashes import sha256
from emojax.errors import InputError

AFFINE = np.diag([-3.0, 3, 3, 1])
SHAPE = (7, 6, 5)
SCAN = "sub-{0}_task-emo_run-1_space-MNI_desc-preproc_bold.nii.gz"


@pytest.fixture
def root(tmp_path):
    """Writes two people with one run each; confounds and events lie beside the scans."""
    root, rng = tmp_path / "study", np.random.default_rng(0)
    root.mkdir()
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.8.0"}')
    (root / "task-emo_events.tsv").write_text(
        "onset\tduration\ttrial_type\n0\t40\tneutral\n40\t40\tnegative\n"
    )
    for who in ("01", "02"):
        folder = root / f"sub-{who}/func"
        table = make_table(int(who), steady=2)
        table.loc[[5, 20], "framewise_displacement"] = 0.9
        write(folder, table, NAME.replace("sub-01", f"sub-{who}"))
        values = rng.normal(500, 20, (*SHAPE, T)) + 100 * np.linspace(0, 1, T)
        image = nib.Nifti1Image(values.astype(np.float32), AFFINE)
        image.header.set_zooms((3, 3, 3, 2.0))
        image.header.set_xyzt_units("mm", "sec")
        nib.save(image, folder / SCAN.format(who))
    return root


@pytest.fixture
def load(config, root):
    def load(**settings):
        config.data.update({"source": "bids", "root": str(root), "hrf_delay_s": 0.0} | settings)
        return sources.load(config)

    return load


def test_one_line_of_keys(load, root):
    region = np.zeros(SHAPE, np.int16)
    region[2:5, 1:4, 2] = 17
    nib.save(nib.Nifti1Image(region[::-1], np.diag([3.0, 3, 3, 1]) @ _shift()), root / "atlas.nii")
    cohort = load(
        confounds="motion24,wm_csf",
        scrub_fd_mm=0.5,
        detrend=1,
        smooth_mm=5.0,
        zscore=True,
        mask="atlas.nii:17",
    )
    assert cohort.prior == (Prior("cleaning"),) and len(cohort.labels) == 2 * (T - 4)
    assert not set(cohort.frame.tolist()) & {0, 1, 5, 20}
    assert all(np.array_equal(mask, region > 0) for mask in cohort.masks.values())
    inside = cohort.features(region > 0)
    np.testing.assert_allclose(inside[: T - 4].mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(inside[: T - 4].std(0), 1, atol=1e-3)
    assert next(iter(cohort.runs[0].hashes)).endswith(SCAN.format("01"))
    read = {path.rpartition("/")[2]: digest for path, digest in cohort.hashes.items()}
    for name in (NAME, NAME.replace(".tsv", ".json")):
        assert read[name] == sha256(root / "sub-01/func" / name)
    assert read["atlas.nii"] == sha256(root / "atlas.nii")
    said = " ".join(cohort.notes)
    assert f"8 of {2 * T} volumes scrubbed" in said and "27 regressors removed" in said


def _shift():
    """Returns the affine's columns for an x axis that begins at the other end."""
    shift = np.eye(4)
    shift[0, 3] = -(SHAPE[0] - 1)
    return shift


def test_scrubbing_alone_leaves_values_and_declares_nothing(load):
    raw, cohort = load(), load(scrub_fd_mm=0.5)
    assert cohort.prior == () and len(cohort.labels) == len(raw.labels) - 4
    np.testing.assert_array_equal(cohort.volumes[:], raw.volumes[np.isin(raw.frame, cohort.frame)])


def test_a_filter_by_its_frequency(load):
    cohort = load(high_pass_hz=0.01)
    ends = [cohort.runs[0].frames[here].mean() for here in (slice(0, 9), slice(-9, None))]
    assert abs(ends[1] - ends[0]) < 30 and cohort.prior == (Prior("cleaning"),)


def test_each_refusal_says_what_to_type(load, root):
    with pytest.raises(InputError, match=r"needs?, or other names in data.confounds of motion6"):
        load(confounds="compcor_temporal,high_pass")
    (root / "sub-02/func" / NAME.replace("sub-01", "sub-02")).unlink()
    with pytest.raises(InputError, match=r"no confounds; expected .*--config.data.confounds=''"):
        load(confounds="motion6")
    with pytest.raises(
        InputError, match=r"no realignment parameters; .*--config.data.scrub_fd_mm=0"
    ):
        load(confounds="", scrub_fd_mm=0.5)
