"""The cohort as folds read it, for volumes, vectors and runs as units; noise of the same design."""

import dataclasses

import jax
import numpy as np
import pytest

from emojax import sources
from emojax.data.cohort import Run, build
from emojax.errors import InputError
from emojax.experiments import folds
from emojax.features import across_subjects, masked


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    from configs import expA

    config = expA.get_config("demo")
    config.data.update({"progress": False, "store": str(tmp_path_factory.mktemp("store"))})
    config.data.synthetic.update({"subjects": 4, "grid": (16, 16, 12), "volumes": 60})
    return sources.load(config)


def test_rows_are_masked_volumes_of_each_subject(config, cohort):
    got = masked.load(config, cohort)
    assert list(got.subjects) == ["01", "02", "03", "04"] and got.union.shape == (16, 16, 12)
    for name, subject in got.subjects.items():
        assert (cohort.subject[subject.rows] == name).all()
        np.testing.assert_array_equal(subject.x[7], cohort.volumes[subject.rows[7]][got.union])
        assert np.unique(subject.run).tolist() == [0, 1]
        assert 0.1 < got.inside[name].mean() <= 1
        assert got.nuisance[name].shape == (len(subject.y), 8)  # global, time, six of motion
    want = cohort.volumes[:].reshape(4, -1, 16, 16, 12).mean((0, 1))
    np.testing.assert_allclose(got.mean, want, rtol=1e-4)


def test_masks_of_the_source_come_first(config, cohort):
    own = np.zeros(cohort.shape, bool)
    own[5:10, 5:10, 4:8] = True
    masked = dataclasses.replace(cohort, masks=dict.fromkeys(cohort.subjects, own))
    assert masked.load(config, masked).union.sum() == own.sum()


def test_runs_as_units(config, cohort):
    config.units = "run"
    one = cohort.select(np.isin(cohort.subject, ["01", "02"]))
    got = masked.load(config, one)
    assert list(got.subjects) == ["01/run-01", "01/run-02", "02/run-01", "02/run-02"]
    assert all((subject.run == 0).all() for subject in got.subjects.values())
    config.units = "session"
    with pytest.raises(InputError, match="units: found 'session'; expected subject or run"):
        masked.load(config, one)


def test_vectors_of_any_width_have_no_mask(config):
    rng = np.random.default_rng(0)
    runs = [Run(f"{i}", "1", rng.normal(size=(12, 20 + i)).astype(np.float32)) for i in range(3)]
    vectors = build(runs, ("a", "b"), [np.arange(12) % 2] * 3)
    got = masked.load(config, vectors)
    assert got.union is None and [s.x.shape[1] for s in got.subjects.values()] == [20, 21, 22]
    assert got.nuisance["0"].shape == (12, 1)  # rows that are not in time have no time


def test_noise_has_the_design_and_nothing_else(config, cohort):
    got = masked.load(config, cohort).subjects
    noise = masked.noise_like(jax.random.key(0), got)
    for name, subject in noise.items():
        np.testing.assert_array_equal(subject.y, got[name].y)
        assert subject.x.shape == got[name].x.shape
        x = subject.x.astype(np.float64)
        assert abs(x.mean()) < 0.01 and abs(x.std() - 1) < 0.02
        half = subject.run == 0
        lagged = (x[half][1:] * x[half][:-1]).mean()
        assert abs(lagged - 0.4) < 0.02
        start = np.flatnonzero(subject.run == 1)[0]
        assert abs((x[start] * x[start - 1]).mean()) < 0.1  # runs are independent


def test_variants_follow_protocols_and_regimes(config):
    names = [v.name for v in folds.variants(config, 3)]
    assert names[:4] == ["independent_runs", "paper", "leaky voxels and alignment", "leaky voxels"]
    assert names[4:] == ["group", "transductive", "none"]
    config.protocols, config.align.regimes = "nested", "none"
    (only,) = folds.variants(config, 3, ("cleaning",))
    assert only.settings.regime == "none" and only.settings.prior == ("cleaning",)
    assert not any(only.leaks) and not only.on_test


def test_published_folds_train_on_everybody_else(config):
    variants = {v.name: v for v in folds.variants(config, 3)}
    strict = folds.leave_one_out("abcde", variants["independent_runs"])
    paper = folds.leave_one_out("abcde", variants["paper"])
    assert [len(f.train) for f in (strict[0], paper[0])] == [3, 4]
    assert paper[0].monitor == paper[0].test == "a" and strict[0].monitor == "b"


def test_tasks_are_balanced_and_the_same_in_every_variant(config, cohort):
    config.voxels.keep, config.balance = 60, 10
    data = masked.load(config, cohort)
    variant = folds.variants(config, 3)[0]
    fold = folds.leave_one_out(data.subjects, variant)[0]
    made = [across_subjects.fold_features(data.subjects, fold, variant.settings)]
    (task,), (again,) = (folds.make_tasks(config, made, variant) for _ in range(2))
    assert task.x.shape == (2 * 30, 60) and np.bincount(task.y).tolist() == [20, 20, 20]
    assert np.bincount(task.monitor_y).tolist() == [10, 10, 10]
    np.testing.assert_array_equal(task.x, again.x)
