"""The noise floor: labels that values no longer follow, with time and without."""

import dataclasses

import jax
import numpy as np
import pytest

from emojax.data.cohort import Prior, build
from emojax.data.run import Run
from emojax.data.store import Store
from emojax.experiments.noise import noise_like

KEY = jax.random.key(0)


def timed(runs=2, volumes=60, tr=2.0, **changes):
    """Runs of volumes whose mean is their class."""
    made, labels = [], []
    for i in range(runs):
        rng = np.random.default_rng(i)
        y = np.arange(volumes) // 6 % 2
        x = 100 + 5 * y[:, None] + rng.normal(size=(volumes, 30))
        run = Run("01", f"run-{i}", x.astype(np.float32), tr=tr, hashes={f"f{i}": f"{i}"})
        made.append(dataclasses.replace(run, **changes))
        labels.append(y)
    return build(made, ("x", "y"), labels)


def maps(people=3, classes=("a", "b", "c"), each=4, runs=1):
    """Returns rows without time, sorted by class; every row has its own number."""
    made, labels, number = [], [], 0
    for person in range(people):
        for run in range(runs):
            y = np.repeat(np.arange(len(classes)), each)
            x = np.arange(number, number + len(y), dtype=np.float32)[:, None] * np.ones(5, "f4")
            number += len(y)
            made.append(Run(f"s{person}", f"r{run}", x, hashes={str(number): "h"}))
            labels.append(y)
    return build(made, classes, labels)


def follows(cohort):
    """Returns the difference between two classes, in units of the values' sd."""
    x, y = cohort.volumes[:].mean(1), cohort.labels
    return abs(x[y == 1].mean() - x[y == 0].mean()) / x.std()


def test_values_do_not_follow_labels_on_average_over_draws(tmp_path):
    real = timed(runs=4)
    assert follows(real) > 1.9
    draws = [noise_like(KEY, real, Store(tmp_path).scratch(), draw) for draw in range(20)]
    assert np.mean([follows(draw) for draw in draws]) < 0.7
    assert not list(tmp_path.glob("*.npy"))
    for draw in draws[:3]:
        assert draw.labels is real.labels and draw.run_index is real.run_index
        for run, own in zip(draw.runs, real.runs, strict=True):
            np.testing.assert_allclose(run.frames.mean(0), own.frames.mean(0), rtol=1e-5)


def test_runs_and_draws_have_phases_of_their_own_and_the_key_decides(tmp_path):
    real, store = timed(), Store(tmp_path)
    real = dataclasses.replace(real, runs=(real.runs[0], real.runs[0]))

    def values(key=KEY, draw=0):
        return [np.array(run.frames) for run in noise_like(key, real, store, draw).runs]

    a, b = values()
    assert abs(a - b).max() > 1
    np.testing.assert_array_equal(values()[0], a)
    assert abs(values(draw=1)[0] - a).max() > 1
    assert abs(values(jax.random.key(1))[0] - a).max() > 1


def test_irregular_starts_are_a_time(tmp_path):
    real = timed(tr=None, starts=np.arange(60) * 2.5)
    a, b = (c.runs[0].frames for c in (real, noise_like(KEY, real, Store(tmp_path))))
    assert not np.isin(b[:, 0], a[:, 0]).any()


@pytest.mark.parametrize("runs", [1, 3])
def test_rows_without_time_change_places_within_the_subject_or_the_run(tmp_path, runs):
    real = maps(runs=runs)
    noisy = noise_like(KEY, real, Store(tmp_path))
    a, b = real.volumes[:][:, 0], noisy.volumes[:][:, 0]
    assert (a != b).mean() > 0.5
    for i in range(len(real.runs)):
        here = real.run_index == i
        np.testing.assert_array_equal(np.sort(a[here]), np.sort(b[here]))
    np.testing.assert_array_equal(noisy.volumes[:], noise_like(KEY, real, Store(tmp_path)).volumes)
    assert (noise_like(KEY, real, Store(tmp_path), 1).volumes[:][:, 0] != b).any()


def test_rows_of_runs_that_lack_a_class_change_places_between_runs(tmp_path):
    single = [Run("s", f"r{i}", np.full((6, 5), i, "f4"), hashes={str(i): ""}) for i in range(4)]
    labels = [np.full(6, i % 2) for i in range(4)]
    real = build(single, ("x", "y"), labels)
    moved = [noise_like(KEY, real, Store(tmp_path), draw).volumes[:][:, 0] for draw in range(5)]
    for x in moved:
        np.testing.assert_array_equal(np.sort(x), np.sort(real.volumes[:][:, 0]))
    assert np.mean([(x != real.volumes[:][:, 0]).mean() for x in moved]) > 0.5


@pytest.mark.parametrize("volumes", [1, 2, 3])
def test_phases_of_few_volumes_or_of_one_class_decide_nothing(tmp_path, volumes):
    """A run of one class keeps its mean, and so its class, whatever the phases."""
    runs = [
        Run("01", f"{i}", np.full((volumes, 5), i, "f4"), tr=2.0, hashes={str(i): ""})
        for i in range(12)
    ]
    labels = [np.full(volumes, i % 2) for i in range(12)]
    real = build(runs, ("x", "y"), labels)
    x = noise_like(KEY, real, Store(tmp_path)).volumes[:][:, 0]
    assert (x != real.volumes[:][:, 0]).mean() > 0.5
    np.testing.assert_array_equal(np.sort(x), np.sort(real.volumes[:][:, 0]))


def test_subjects_of_one_class_each_change_places_with_each_other(tmp_path):
    runs, labels = [], []
    for i in range(8):  # patients and controls, say
        x = np.full((10, 5), i, np.float32) + np.random.default_rng(i).normal(size=(10, 5)) / 50
        runs.append(Run(f"{i}", "1", x.astype("f4"), tr=2.0, hashes={str(i): ""}))
        labels.append(np.full(10, i % 2))
    real = build(runs, ("patient", "control"), labels)
    x = noise_like(KEY, real, Store(tmp_path)).volumes[:][:, 0].round()
    owner = np.repeat(np.arange(8), 10)
    assert 0.3 < (x % 2 == owner % 2).mean() < 0.7
    np.testing.assert_array_equal(np.sort(x), owner)


def test_runs_without_labels_stay_and_so_does_all_else(tmp_path):
    idle = Run("01", "rest", np.ones((9, 30), "f4"), tr=2.0, hashes={"idle": ""})
    two = timed()
    every = [
        *(np.where(two.run_index == i)[0] * 0 + two.labels[two.run_index == i] for i in (0, 1))
    ]
    real = build([*two.runs, idle], ("x", "y"), [*every, np.full(9, -1)])
    real = dataclasses.replace(real, prior=(Prior("cleaning"),))
    noisy = noise_like(KEY, real, Store(tmp_path))
    names = {run.name: run for run in noisy.runs}
    assert names["rest"] is next(run for run in real.runs if run.name == "rest")
    assert noisy.prior == real.prior and noisy.hashes == real.hashes and noisy.tr == real.tr
    assert noisy.frame is real.frame and noisy.shape == real.shape
