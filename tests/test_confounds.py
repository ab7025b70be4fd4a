"""Confounds of fMRIPrep by nilearn's strategies, framewise displacement, refusals."""

import json

import numpy as np
import pandas as pd
import pytest
from nilearn.interfaces import fmriprep

from emojax.data import confounds, motion
from emojax.data.run import Run
from emojax.errors import InputError

T = 40
NAME = "sub-01_task-emo_run-1_desc-confounds_timeseries.tsv"
SCAN = "sub-01_task-emo_run-1_space-MNI_res-2_desc-preproc_bold.nii.gz"


def make_table(seed=0, steady=0):
    """Returns a table as fMRIPrep writes it; derivatives have no value in the first row."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name in ("csf", "white_matter", "global_signal", *motion.COLUMNS):
        values = rng.normal(0, 0.05, T).cumsum()
        change = np.r_[np.nan, np.diff(values)]
        columns |= {
            name: values,
            f"{name}_derivative1": change,
            f"{name}_power2": values**2,
            f"{name}_derivative1_power2": change**2,
        }
    columns["framewise_displacement"] = np.r_[np.nan, rng.uniform(0, 0.3, T - 1)]
    columns |= {f"cosine{i:02}": np.cos((i + 1) * np.linspace(0, np.pi, T)) for i in range(2)}
    columns |= {f"a_comp_cor_{i:02}": rng.normal(size=T) for i in range(7)}
    columns |= {f"aroma_motion_{i:02}": rng.normal(size=T) for i in range(3)}
    for i in range(steady):
        columns[f"non_steady_state_outlier{i:02}"] = np.eye(T)[i]
    return pd.DataFrame(columns)


def blank(table, row):
    """Returns a table in which a row has no values."""
    table = table.copy()
    table.iloc[row] = np.nan
    return table


def write(folder, table=None, name=NAME, scan=SCAN):
    """Writes confounds, and returns the run that they belong to."""
    folder.mkdir(parents=True, exist_ok=True)
    table = make_table() if table is None else table
    table.to_csv(folder / name, sep="\t", na_rep="n/a", index=False)
    facts = {f"a_comp_cor_{i:02}": {"Mask": "combined", "Method": "aCompCor"} for i in range(7)}
    (folder / name.replace(".tsv", ".json")).write_text(json.dumps(facts))
    frames = np.zeros((T, 2, 2, 2), np.int16)
    found = {"hashes": {str(folder / scan): "x"}, "confounds": folder / name}
    return Run("01", "run-1", frames, 2.0, np.eye(4), **found)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("motion6",), 6),
        (("motion12",), 12),
        (("motion24", "wm_csf"), 26),
        (("wm_csf8", "global_signal"), 9),
        (("global_signal4", "ica_aroma"), 7),
        (("compcor", "high_pass"), 9),
        (("high_pass", "compcor5", "motion6"), 13),
    ],
)
def test_are_those_of_nilearn(tmp_path, names, columns):
    run = write(tmp_path)
    got = confounds.read(confounds.require(run), names, T)
    want, kept = fmriprep.load_confounds(
        str(tmp_path / SCAN), demean=False, **confounds.options(names)
    )
    assert kept is None and got.steady.all() and got.values.shape == (T, columns)
    np.testing.assert_array_equal(got.values, want.to_numpy())
    assert np.isfinite(got.values).all()


def test_volumes_before_the_steady_state_are_told(tmp_path):
    run = write(tmp_path, make_table(steady=2))
    got = confounds.read(confounds.require(run), ("motion6",), T)
    assert got.values.shape == (T, 6)
    assert np.flatnonzero(~got.steady).tolist() == [0, 1]


def test_a_run_without_confounds(tmp_path):
    run = Run("01", "1", np.zeros((T, 9)), hashes={str(tmp_path / "a.npz"): "x"})
    with pytest.raises(InputError, match=r"a.npz: found no confounds; expected fMRIPrep's .*bids"):
        confounds.require(run)


def test_the_description_belongs_to_the_table(tmp_path):
    run = write(tmp_path)
    assert [path.name for path in confounds.files(run.confounds)] == [NAME, NAME[:-3] + "json"]
    (tmp_path / NAME.replace(".tsv", ".json")).unlink()
    assert confounds.files(run.confounds) == [tmp_path / NAME]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("motion",), "data.confounds: found 'motion'; expected names of motion6, motion12, moti"),
        (("scrub",), "found 'scrub'; expected .*--config.data.scrub_fd_mm=0.5"),
        (("motion6", "motion24"), "found motion6 and motion24; expected one of the two"),
        (("motion6", "compcor"), "compcor without high_pass; expected --config.data.confounds=mot"),
    ],
)
def test_names_that_do_not_go(names, message):
    with pytest.raises(InputError, match=message):
        confounds.options(names)


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        (
            lambda t: t.drop(columns="trans_x"),
            ("motion24",),
            "trans_x.*expected what motion24 need",
        ),
        (lambda t: t.drop(columns=["csf", "white_matter"]), ("wm_csf",), "wm_csf"),
        (
            lambda t: t.filter(regex="^(?!cosine)"),
            ("high_pass",),
            "no column cosine00.*high_pass_hz",
        ),
        (lambda t: t.filter(regex="^(?!aroma)"), ("ica_aroma",), "ica_aroma"),
        (lambda t: t[:-3], ("motion6",), f"found {T - 3} rows; expected one for each of {T} vol"),
        (lambda t: blank(t, 5), ("motion6",), "found no number in line 7, column 'rot_x'"),
        (lambda t: t.assign(csf="many"), ("wm_csf",), "'many' in line 2, column 'csf'"),
        (lambda t: t.rename(columns={"csf": "FramewiseDisplacement"}), ("motion6",), "camel case"),
    ],
)
def test_tables_that_lack_something_are_one_line(tmp_path, change, names, message):
    run = write(tmp_path, change(make_table()))
    with pytest.raises(InputError, match=message) as error:
        confounds.read(confounds.require(run), names, T)
    assert "\n" not in str(error.value) and str(error.value).startswith(str(tmp_path / NAME))


def test_compcor_needs_its_description(tmp_path):
    run = write(tmp_path)
    (tmp_path / NAME.replace(".tsv", ".json")).unlink()
    with pytest.raises(InputError, match=f"{NAME}: found none of it for compcor,high_pass .*json"):
        confounds.read(confounds.require(run), ("compcor", "high_pass"), T)


def test_displacement_is_fmripreps_or_of_the_parameters(tmp_path):
    table = make_table()
    run = write(tmp_path, table)
    got = confounds.displacement(run, run.confounds)
    np.testing.assert_allclose(got, table["framewise_displacement"].fillna(0), rtol=1e-9)
    moved = np.zeros((T, 6))
    moved[10:, 0], moved[20:, 4] = 0.3, 0.01
    write(tmp_path, table.drop(columns="framewise_displacement"))
    still = Run("01", "run-1", run.frames, 2.0, motion=moved, hashes=run.hashes)
    for path in (None, run.confounds):
        got = confounds.displacement(still, path)
        want = np.zeros(T)
        want[10], want[20] = 0.3, 0.5  # a turn of .01 rad is half a mm at 50 mm
        np.testing.assert_allclose(got, want, atol=1e-12)
    got = confounds.displacement(run, run.confounds)  # the table has the parameters
    change = table[[*motion.COLUMNS]].diff().abs().fillna(0).to_numpy()
    np.testing.assert_allclose(got, change @ [1, 1, 1, 50, 50, 50], rtol=1e-9)
    write(tmp_path, table[["csf"]])
    with pytest.raises(InputError, match=f"{NAME}: found columns csf; expected a column 'trans_x'"):
        confounds.displacement(run, run.confounds)
    with pytest.raises(InputError, match=r"no realignment parameters.*framewise_displacement"):
        confounds.displacement(run, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[:-1], f"found {T - 1} rows"),
        (lambda t: blank(t, 3), "found no number in line 5, column 'framewise_displ"),
    ],
)
def test_displacements_that_are_not_whole(tmp_path, change, message):
    run = write(tmp_path, change(make_table()))
    with pytest.raises(InputError, match=message):
        confounds.displacement(run, run.confounds)
