"""Hyperalignment, and its transcription in NumPy, against recorded outputs of PyMVPA."""

import json

import goldens
import jax
import numpy as np
import pytest
from reference import hyperalign
from test_procrustes import close

from emojax import hyperalignment

pytestmark = pytest.mark.usefixtures("quick_compile")

GOLDEN = "golden/pymvpa"


def own_goldens(case):
    """Yields name, outputs and settings of each run of a case in tests/data."""
    arrays = goldens.load("hyperalignment")
    for name, settings in goldens.index(arrays).items():
        if settings["case"] == case:
            yield name, goldens.below(arrays, name), settings


def own_inputs(case, dtype):
    """Returns the rows to fit and the new rows of every subject of a case in tests/data."""
    given = goldens.below(goldens.load("alignment_inputs"), case)
    count = sum(key.startswith("X_") for key in given)
    return [[given[f"{kind}_{i}"].astype(dtype) for i in range(count)] for kind in "XT"]


def golden_settings(shared):
    for path in sorted(shared(GOLDEN).glob("[A-D]_*.npz")):
        z = np.load(path)
        settings = json.loads(str(z["settings"]))
        if not settings["alignment"]["oblique"]:  # least squares: not a rotation, not offered
            yield path.stem, z, settings


def golden_inputs(shared, case, dtype):
    z = np.load(shared(f"{GOLDEN}/inputs_{case}.npz"))
    subjects = range(int(z["nsub"]))
    test = [z[f"T_{i}"].astype(dtype) for i in subjects] if "T_0" in z else None
    return [z[f"X_{i}"].astype(dtype) for i in subjects], test


def as_options(settings):
    given, mapper = settings["hyperalignment"], settings["alignment"]
    return {
        "reference": given["ref_ds"],
        "level2_iters": given["level2_niter"],
        "zscore_common": given["zscore_common"],
        "zscore_all": given["zscore_all"],
        "alpha": given["alpha"],
        "level1_equal_weight": given["level1_equal_weight"],
        "output_dim": given["output_dim"],
        # A first combiner that keeps the common space is a weight of 0 for the newcomer.
        "weight": {"mean_xy": 0.5, "keep_common": 0.0}[given["combiner1"]],
        **{name: mapper[name] for name in ("scaling", "reflection", "demean")},
    }


def check_golden(z, settings, data, test, rtol, **more):
    """Compares everything that PyMVPA recorded for one setting."""
    train, call = settings["train_on"], settings["call_on"]
    options = as_options(settings)
    model = hyperalignment.fit([data[i] for i in train], **options, **more)
    maps = model.mappings
    if train != call:
        maps = hyperalignment.align(model, [data[i] for i in call])
    close(model.template, z["commonspace"], rtol)
    assert model.reference == z["chosen_ref_ds"]
    want = z["training_residual_errors"]
    np.testing.assert_allclose(model.training_residuals, want, rtol=rtol, atol=rtol)
    if train == call:
        atol = rtol * np.linalg.norm(z["commonspace"])
        np.testing.assert_allclose(model.residuals, z["residual_errors"][0], rtol=rtol, atol=atol)
    if options["scaling"]:
        np.testing.assert_allclose([one.scale for one in maps], z["scale"], rtol=rtol)
    aligned = hyperalignment.transform(maps, [data[i] for i in call])
    signs, compared = 1, 0
    for name, rows in (("aligned", aligned), ("test_aligned", None)):
        if rows is None and test is not None:
            rows = hyperalignment.transform(maps, [test[i] for i in call])
        for i, y in zip(call, rows if rows is not None else [], strict=False):
            if f"{name}_{i}" in z:
                golden = z[f"{name}_{i}"]
                if options["output_dim"] and name == "aligned":  # component signs are arbitrary
                    signs = np.sign((np.asarray(y) * golden).sum(0))
                # PyMVPA's single-precision arrays of case B.
                close(y * signs, golden, max(rtol, 1e-7 if golden.dtype == np.float32 else 0))
                compared += 1
    if "aligned_probe_0" in z:
        for i in call:
            close(aligned[i][::40, ::30], z[f"aligned_probe_{i}"], rtol)
            compared += 1
    assert compared
    for i, one in zip(call, maps, strict=True):
        if settings["proj_unique"] and f"proj_{i}" in z:
            golden = z[f"proj_{i}"]
            close(one.projection, golden, max(10 * rtol, 1e-7 * (golden.dtype == np.float32)))
        if f"reversed_{i}" in z:
            back = hyperalignment.inverse([one], [aligned[call.index(i)]])[0]
            if options["zscore_all"]:  # PyMVPA leaves its result z-scored; ours is in raw units
                back = (back - z[f"zscore_mean_{i}"]) / z[f"zscore_std_{i}"]
            close(back, z[f"reversed_{i}"], 10 * rtol)


DEFAULTS = {"A": "A_zaF_zcT_it1", "C": "C_default", "D": "D_default"}


@pytest.mark.parametrize("case", DEFAULTS)
def test_matches_pymvpa_by_default(case, dtype):
    check_own(case, dtype, [DEFAULTS[case]])


@pytest.mark.slow
@pytest.mark.parametrize("case", DEFAULTS)
def test_matches_pymvpa_under_every_setting(case, x64):
    names = [name for name, *_ in own_goldens(case)]
    assert len(names) == {"A": 35, "C": 9, "D": 6}[case]
    check_own(case, np.dtype("float64"), names)


def check_own(case, dtype, names):
    """Compares runs of tests/data with ours."""
    data, test = own_inputs(case, dtype)
    for name, z, settings in own_goldens(case):
        if name in names:
            check_golden(z, settings, data, test, 1e-10 if dtype == np.float64 else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case, precision",
    [(case, "float64") for case in "ABCD"] + [("A", "float32")],  # A has nearly every setting
)
def test_matches_every_golden_of_pymvpa(shared, case, precision):
    count = 0
    with jax.enable_x64(precision == "float64"):
        data, test = golden_inputs(shared, case, precision)
        for name, z, settings in golden_settings(shared):
            if name.startswith(case):
                check_golden(z, settings, data, test, 1e-10 if precision == "float64" else 1e-4)
                count += 1
    assert count == {"A": 36, "B": 3, "C": 9, "D": 6}[case]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["A_zaF_zcT_it1", "C_zaF_zcT_it1", "D_default"])
@pytest.mark.parametrize("more", [{"method": "polar"}, {"lowrank": True}], ids=["polar", "lowrank"])
def test_other_paths_match_the_default_goldens(shared, name, more, x64):
    z, settings = next((z, s) for stem, z, s in golden_settings(shared) if stem == name)
    data, test = golden_inputs(shared, name[0], np.float64)
    if more.get("lowrank") and name[0] == "C":
        assert settings["proj_unique"] is False  # so that only mapped rows are compared
    check_golden(z, settings, data, None if more.get("lowrank") else test, 1e-10, **more)


@pytest.mark.parametrize("case", DEFAULTS)
def test_the_transcription_matches_pymvpa(case):
    """The yardstick of unrecorded settings (test_hyperalignment.py) agrees with PyMVPA itself."""
    data, _ = own_inputs(case, np.float64)
    check_transcription(own_goldens(case), data)


@pytest.mark.parametrize("case", DEFAULTS)
def test_the_transcription_matches_every_golden_of_pymvpa(shared, case):
    data, _ = golden_inputs(shared, case, np.float64)
    check_transcription((r for r in golden_settings(shared) if r[0].startswith(case)), data)


def check_transcription(runs, data):
    """Compares the templates of those runs that fit and align all subjects."""
    checked = 0
    for _, z, settings in runs:
        options = as_options(settings)
        whole = settings["train_on"] == settings["call_on"] == list(range(len(data)))
        if whole and options.pop("output_dim") is None:
            close(hyperalign(data, **options)[0], z["commonspace"], 1e-11)
            checked += 1
    assert checked >= 5
