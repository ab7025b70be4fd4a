"""Regime piecewise: features by parcel, the record, the audit, refusals."""

import json

import nibabel as nib
import numpy as np
import pytest
from test_parcels import AFFINE, FOLD, QUARTER, VIEW

from configs import expA
from emojax import piecewise
from emojax.errors import InputError
from emojax.experiments import experiment_a, run, settings
from emojax.features import across_subjects, common_space
from emojax.features.across_subjects import Settings
from emojax.provenance import Ledger, classify

pytestmark = pytest.mark.usefixtures("quick_compile")

SETTINGS = Settings(20, 3, "piecewise", parcels="kmeans:4")
SECOND = FOLD.test[VIEW.run[FOLD.test] == 1]


def make(settings=SETTINGS, view=VIEW):
    ledger = Ledger(view)
    return across_subjects.fold_features(ledger, FOLD, settings), ledger


@pytest.mark.parametrize("after", [False, True])
def test_parcels_and_map_are_those_of_other_data(after):
    made, ledger = make(SETTINGS._replace(after=after))
    assert np.isfinite(made.x[FOLD.test]).all() and np.isfinite(made.x[FOLD.train]).all()
    steps = ledger.reads.steps
    np.testing.assert_array_equal(np.flatnonzero(steps["parcels"].values), np.sort(FOLD.train))
    assert not steps["parcels"].labels.any()
    protocol, _ = classify(
        ledger.seen(FOLD.test), subject=VIEW.subject, unit=VIEW.subject, claimed="calibrated"
    )
    assert protocol == "calibrated"
    record = next(own for rows, own in ledger.seen(FOLD.test) if SECOND[0] in rows)
    assert not record.steps["alignment"].values[SECOND].any()
    assert len(made.voxels) == 20 and (made.space.places is not None) == after
    assert len(made.columns) == (int(made.mask.sum()) if after else 20)
    kept = made.columns[made.space.places] if after else made.columns
    np.testing.assert_array_equal(kept, made.voxels)


def test_a_scored_run_is_moved_by_the_map_of_the_others():
    made, ledger = make()
    model, keys = made.space.model, made.space.keys
    assert isinstance(model, piecewise.Piecewise)
    team = common_space.team_of(ledger, FOLD)
    rows = team.rows[team.test]
    others = rows[team.run[rows] == 0]
    at = [
        keys.tolist().index(key)
        for key in np.stack([team.run[others], team.frame[others]], 1).tolist()
    ]
    x = VIEW.volumes[others][:, made.voxels]
    mapping = piecewise.align(model, x[None], np.array(at))[0]
    want = np.asarray(piecewise.transform(mapping, VIEW.volumes[SECOND][:, made.voxels]))
    mean, sd = made.scaler
    np.testing.assert_allclose(made.x[SECOND], (want - mean) / sd, atol=1e-4)


def test_one_parcel_is_independent_runs(tmp_path):
    path = str(tmp_path / "one.nii.gz")
    nib.Nifti1Image((QUARTER * 0 + 1).astype(np.int16), AFFINE).to_filename(path)
    one, _ = make(SETTINGS._replace(parcels=path))
    whole, _ = make(Settings(20, 3, "independent_runs"))
    np.testing.assert_allclose(one.x, whole.x, atol=2e-2)
    assert one.isc == pytest.approx(whole.isc, abs=1e-3)


def small(config=None):
    config = expA.get_config("demo")
    config.update({"permutations": 0, "within_subject": True, "crossed": "", "design": False})
    config.data.progress = False
    config.data.synthetic.update({"subjects": 4, "grid": (16, 16, 12), "volumes": 60})
    config.protocols, config.align.regimes = "nested", "piecewise"
    config.align.parcels, config.voxels.keep, config.balance = "ward:6", 70, 10
    config.null_floor, config.leaks, config.headline = False, False, "bag"
    config.baselines, config.network = "LDA", False
    return config


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_run_is_audited_and_reported(tmp_path, after):
    config = small()
    config.voxels.after = after
    config.data.store = str(tmp_path / "store")
    run(config, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    arm = metrics["arms"][0]
    assert arm["regime"] == "piecewise" and arm["protocol"] == "calibrated"
    assert "parcels" in {row["step"] for row in arm["seen"]}
    assert metrics["audit"]["arms"][arm["name"]]["folds"]
    assert "in each parcel" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("align.parcels", "ward:none", r"align\.parcels.*ward:300"),
        ("voxels.own", True, r"voxels\.own=False for regime piecewise"),
        ("align.alpha", 0.0, "above 0 for regime piecewise"),
        ("align.piecewise", "srm", r"align\.piecewise.*'ridge'"),
    ],
)
def test_settings_that_do_not_go_together(key, value, message):
    config = small()
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=message):
        settings.check(config)
        experiment_a.check(config)
