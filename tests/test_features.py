"""Features of a fold: who touched what, the regimes, and leaks that must be caught."""

import numpy as np
import pytest

from emojax.errors import InputError
from emojax.features import across_subjects
from emojax.features.across_subjects import Fold, Leaks, Settings, Subject
from emojax.provenance import LeakageError

RUNS, PER_RUN, VOXELS, KEEP = 2, 24, 40, 10
NAMES = ("a", "b", "c", "d", "e")
SETTINGS = Settings(KEEP, 3, "independent_runs")
FOLD = across_subjects.leave_one_out(NAMES)[0]


def make(seed=0, noise=0.5):
    """Shared responses, time-locked, in every subject's own rotation of 12 informative voxels."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([rng.permutation(PER_RUN) % 3 for _ in range(RUNS)])
    run = np.repeat(np.arange(RUNS), PER_RUN)
    patterns = rng.normal(size=(3, 12))
    shared = 2 * patterns[y] + rng.normal(size=(len(y), 12))
    subjects = {}
    for i, name in enumerate(NAMES):
        x = rng.normal(100, noise, (len(y), VOXELS))
        x[:, :12] += shared @ np.linalg.qr(rng.normal(size=(12, 12)))[0]
        rows = np.arange(len(y)) + i * len(y)
        subjects[name] = Subject(x.astype(np.float32), y, run, rows)
    return subjects


SUBJECTS = make()
SUBJECT_OF_ROW = np.repeat(NAMES, RUNS * PER_RUN)


def nearest_mean(f):
    x, y = np.concatenate(f.train_x), np.concatenate(f.train_y)
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    predicted = ((f.test_x[:, None] - means) ** 2).sum(-1).argmin(1)
    return (predicted == f.test_y).mean()


def test_folds_test_each_subject_once_and_monitor_another():
    folds = across_subjects.leave_one_out(NAMES)
    assert [f.test for f in folds] == list(NAMES)
    assert all(len({*f.train, f.monitor, f.test}) == 5 for f in folds)
    with pytest.raises(InputError, match=r"3 \(a, b, c\); expected 4 or more"):
        across_subjects.leave_one_out(NAMES[:3])


def test_alignment_finds_what_topographies_hide():
    got = {
        regime: nearest_mean(
            across_subjects.fold_features(SUBJECTS, FOLD, SETTINGS._replace(regime=regime))
        )
        for regime in ("none", "independent_runs", "transductive")
    }
    assert got["none"] < 0.6 < 0.8 < got["independent_runs"] <= got["transductive"] + 0.1


@pytest.mark.parametrize("regime", ["group", "independent_runs", "transductive", "none"])
@pytest.mark.parametrize("match", ["time", "class"])
def test_shapes_scale_and_provenance(regime, match):
    settings = SETTINGS._replace(regime=regime, match=match)
    if (regime, match) == ("transductive", "class"):
        got = across_subjects.fold_features(SUBJECTS, FOLD, settings)
        with pytest.raises(LeakageError, match="step 'alignment' saw the labels of 48"):
            across_subjects.score_check(got, SUBJECT_OF_ROW, settings, "nested")
        return
    got = across_subjects.fold_features(SUBJECTS, FOLD, settings)
    assert len(got.train_x) == 3 and got.test_x.shape == got.monitor_x.shape == (48, KEEP)
    pooled = np.concatenate(got.train_x)
    np.testing.assert_allclose(pooled.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(pooled.std(0), 1, atol=1e-3)
    report = across_subjects.score_check(got, SUBJECT_OF_ROW, settings, "nested")
    assert set(report) <= {"alignment"}  # declared
    scored = np.concatenate([rows for rows, _ in got.seen])
    np.testing.assert_array_equal(np.sort(scored), SUBJECTS[FOLD.test].rows)


def changed(name, rows, by=500.0):
    """The same study with other values in some rows of one subject."""
    x = SUBJECTS[name].x.copy()
    x[rows] += by * np.random.default_rng(9).normal(size=x[rows].shape)
    return {**SUBJECTS, name: SUBJECTS[name]._replace(x=x)}


def same_training(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.train_x, b.train_x, strict=True))


@pytest.mark.parametrize("own_voxels", [False, True])
@pytest.mark.parametrize("match", ["time", "class"])
def test_scored_volumes_and_labels_of_the_test_subject_touch_nothing(match, own_voxels):
    """Changing a run's values, or its labels, changes only that run's own features, or nothing."""
    settings = SETTINGS._replace(match=match, own_voxels=own_voxels)
    before = across_subjects.fold_features(SUBJECTS, FOLD, settings)
    run = SUBJECTS[FOLD.test].run
    after = across_subjects.fold_features(changed(FOLD.test, run == 1), FOLD, settings)
    assert same_training(before, after)
    np.testing.assert_array_equal(before.monitor_x, after.monitor_x)
    moved = (before.test_x != after.test_x).any(1)
    assert moved[run == 1].all()  # its own values; and run 0 is aligned by run 1
    y = SUBJECTS[FOLD.test].y.copy()
    y[run == 1] = (y[run == 1] + 1) % 3
    relabelled = {**SUBJECTS, FOLD.test: SUBJECTS[FOLD.test]._replace(y=y)}
    after = across_subjects.fold_features(relabelled, FOLD, settings)
    assert same_training(before, after)
    np.testing.assert_array_equal(before.test_x[run == 1], after.test_x[run == 1])
    if match == "time" and not own_voxels:
        np.testing.assert_array_equal(before.test_x, after.test_x)


@pytest.mark.parametrize("leaks", [Leaks(voxels=True), Leaks(alignment=True), Leaks(True, True)])
def test_planted_leaks_are_caught_and_real(leaks):
    settings = SETTINGS._replace(regime="independent_runs")
    got = across_subjects.fold_features(SUBJECTS, FOLD, settings, leaks)
    with pytest.raises(LeakageError, match="voxels" if leaks.voxels else "alignment"):
        across_subjects.score_check(got, SUBJECT_OF_ROW, settings, "nested")
    report = across_subjects.score_check(got, SUBJECT_OF_ROW, settings, "paper")
    assert set(report) == {n for n in ("voxels", "alignment") if getattr(leaks, n)}
    after = across_subjects.fold_features(changed(FOLD.test, slice(None)), FOLD, settings, leaks)
    assert not same_training(got, after)


def test_monitoring_the_test_subject_is_a_leak():
    fold = Fold(FOLD.train, FOLD.test, FOLD.test)
    got = across_subjects.fold_features(SUBJECTS, fold, SETTINGS)
    with pytest.raises(LeakageError, match="epoch choice"):
        across_subjects.score_check(got, SUBJECT_OF_ROW, SETTINGS, "nested")
    assert across_subjects.score_check(got, SUBJECT_OF_ROW, SETTINGS, "paper")["epoch choice"] == 48


def test_cleaning_of_scored_runs_is_reported():
    settings = SETTINGS._replace(prior=("cleaning",))
    got = across_subjects.fold_features(SUBJECTS, FOLD, settings)
    assert across_subjects.score_check(got, SUBJECT_OF_ROW, settings, "nested") == {"cleaning": 48}


def test_noise_is_at_chance_where_nothing_leaks():
    hits = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        subjects = {
            n: s._replace(
                x=rng.normal(size=(48, VOXELS)).astype(np.float32), y=rng.permutation(48) % 3
            )
            for n, s in make(seed).items()
        }
        for regime in ("independent_runs", "none"):
            settings = SETTINGS._replace(regime=regime)
            hits.append(nearest_mean(across_subjects.fold_features(subjects, FOLD, settings)))
    assert abs(np.mean(hits) - 1 / 3) < 0.07


def test_own_voxels_serve_subjects_whose_columns_do_not_correspond():
    rng = np.random.default_rng(0)
    shuffled = {}
    for name, subject in SUBJECTS.items():
        width = VOXELS - int(rng.integers(0, 5))
        columns = np.r_[np.arange(12), 12 + rng.permutation(VOXELS - 12)][:width]
        shuffled[name] = subject._replace(x=subject.x[:, rng.permutation(columns)])
    settings = SETTINGS._replace(own_voxels=True, match="class")
    got = across_subjects.fold_features(shuffled, FOLD, settings)
    assert got.voxels is None and np.isnan(got.isc[0]) and nearest_mean(got) > 0.6
    assert across_subjects.score_check(
        got, SUBJECT_OF_ROW, settings, "nested"
    )  # declared calibration


def test_correlation_between_subjects_rises():
    before, after = across_subjects.fold_features(SUBJECTS, FOLD, SETTINGS).isc
    assert after > before + 0.2


def test_only_allowed_voxels_are_chosen():
    allowed = np.arange(VOXELS) % 2 == 0
    got = across_subjects.fold_features(SUBJECTS, FOLD, SETTINGS, allowed=allowed)
    assert (got.voxels % 2 == 0).all()
    with pytest.raises(InputError, match=r"voxels.keep: found 10; expected at most 4"):
        across_subjects.fold_features(SUBJECTS, FOLD, SETTINGS, allowed=np.arange(VOXELS) < 4)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda s: Subject(*(a[s.y != 2] for a in s)), "subject c: found no volume of class 2"),
        (lambda s: Subject(*(a[s.run == 0] for a in s)), "subject c: found one run"),
        (
            lambda s: Subject(*(a[1:] for a in s)),
            r"runs of \[23, 24\] .* expected \[24, 24\] as subject a",
        ),
    ],
)
def test_rows_that_cannot_be_used(harm, match):
    with pytest.raises(InputError, match=match):
        across_subjects.fold_features({**SUBJECTS, "c": harm(SUBJECTS["c"])}, FOLD, SETTINGS)
