"""The estimators: the same numbers as the functions, and citizens of scikit-learn."""

import pickle

import jax
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import emojax
from emojax import hyperalignment
from emojax.features import scaling
from emojax.models import cnn1d, resnet3d
from emojax.sklearn import (
    AnovaSelector,
    CNN1DClassifier,
    Hyperalignment,
    ResNet3DClassifier,
)
from emojax.training import feeds, loop

SMALL = {"filters": (4,), "window": 1, "dense": (16,), "dropout": (0.0, 0.0), "lr": 1e-2}
NAMES = np.array(["calm", "fear", "joy"])


def rows(n=90, v=12, classes=3, strength=2.0, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, v)).astype(np.float32)
    x[:, :classes] += strength * np.eye(classes)[y]
    return x, y, np.repeat(np.arange(n // 15), 15)


def subjects(count=4, n=30, v=8, seed=0):
    """Returns rows of subjects with different topographies: x [count * n, v], subject, moment."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n, v))
    turned = [common @ np.linalg.qr(rng.normal(size=(v, v)))[0] for _ in range(count)]
    x = np.concatenate(turned) + 0.1 * rng.normal(size=(count * n, v))
    subject = np.repeat([f"sub-{i}" for i in range(count)], n)
    return x.astype(np.float32), subject, np.tile(np.arange(n), count)


def test_the_package_does_not_hide_scikit_learn():
    from emojax.sklearn import guard

    assert sklearn.__name__ == "sklearn" and guard.clone is clone
    assert emojax.sklearn.AnovaSelector is AnovaSelector


# --- AnovaSelector


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_selector_is_select_k_best(dtype):
    x, y, _ = rows(v=60)
    x = x.astype(dtype) * 50 + 1000
    ours = AnovaSelector(k=9).fit(x, NAMES[y])
    theirs = SelectKBest(f_classif, k=9).fit(x.astype(np.float64), y)  # float32 costs it digits
    np.testing.assert_allclose(ours.scores_, theirs.scores_, rtol=2e-4)
    np.testing.assert_allclose(ours.pvalues_, theirs.pvalues_, rtol=2e-3)
    assert ours.scores_.dtype == dtype
    assert (ours.get_support() == theirs.get_support()).all()
    np.testing.assert_array_equal(ours.transform(x), theirs.transform(x))


def test_voxels_of_the_same_f_are_kept_from_the_first_on():
    y = np.arange(20) % 2
    x = np.repeat(np.random.default_rng(0).normal(size=(20, 1)), 4, axis=1)
    assert AnovaSelector(2).fit(x, y).get_support().tolist() == [True, True, False, False]
    last = SelectKBest(f_classif, k=2).fit(x, y).get_support()
    assert last.tolist() == [False, False, True, True]


def test_selector_never_keeps_a_constant_voxel():
    x, y, _ = rows()
    x[:, 3:] = 7
    with pytest.warns(UserWarning, match="k=300 is more than the 3 voxels that vary"):
        assert AnovaSelector().fit(x, y).get_support(indices=True).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="want voxels that vary between rows; all are constant"):
        AnovaSelector().fit(np.ones_like(x), y)
    with pytest.raises(ValueError, match="want k: a whole number from 1 on; got 0"):
        AnovaSelector(0).fit(x, y)
    with pytest.raises(ValueError, match="want rows of two classes or more; got one class: 'joy'"):
        AnovaSelector(1).fit(x, np.full(len(x), "joy"))


def test_selector_keeps_the_names_of_a_data_frame():
    x, y, _ = rows()
    frame = pd.DataFrame(x, columns=[f"v{i}" for i in range(x.shape[1])])
    selector = AnovaSelector(3).set_output(transform="pandas").fit(frame, pd.Series(NAMES[y]))
    assert selector.transform(frame).columns.tolist() == ["v0", "v1", "v2"]
    assert selector.inverse_transform(x[:, :3]).shape == x.shape


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:k=300 is more than")
@parametrize_with_checks([AnovaSelector()])
def test_selector_passes_every_check_of_scikit_learn(estimator, check, quick_compile):
    check(estimator)


# --- Hyperalignment


class OneSubject(Hyperalignment):
    """All rows are of one subject, as scikit-learn's checks call it."""

    def fit(self, X, y=None):
        count = X.shape[0] if hasattr(X, "shape") else len(np.asarray(X))
        return super().fit(X, subjects=np.zeros(count, int))

    def fit_transform(self, X, y=None):
        return self.fit(X).transform(X)

    def transform(self, X):
        return super().transform(X)


def test_hyperalignment_is_the_function():
    x, subject, moment = subjects()
    shuffled = np.random.default_rng(1).permutation(len(x))
    made = Hyperalignment(level2_iters=2).fit(
        x[shuffled], subjects=subject[shuffled], rows=moment[shuffled]
    )
    model = hyperalignment.fit(x.reshape(4, 30, 8), level2_iters=2)
    np.testing.assert_array_equal(made.template_, model.template)
    moved = hyperalignment.transform(model.mappings, x.reshape(4, 30, 8)).reshape(x.shape)
    np.testing.assert_allclose(made.transform(x, subjects=subject), moved, atol=1e-5)
    by_order = Hyperalignment(level2_iters=2).fit(x, subjects=pd.Series(subject))
    np.testing.assert_array_equal(by_order.template_, model.template)


def test_a_new_subject_goes_onto_the_frozen_template():
    x, subject, moment = subjects()
    known, new = subject != "sub-3", np.flatnonzero(subject == "sub-3")
    made = Hyperalignment().fit(x[known], subjects=subject[known])
    before = made.template_.copy()
    half = new[:20][::-1]  # any order: rows= says which
    assert made.fit_subject(x[half], subject="sub-3", rows=moment[half]) is made
    np.testing.assert_array_equal(made.template_, before)
    expected = hyperalignment.align(made.model_, x[None, half], moment[half])
    moved = hyperalignment.transform(expected, x[None, new])[0]
    got = made.transform(x[new], subjects=subject[new])
    np.testing.assert_allclose(got, moved, atol=1e-6)
    rest = got[20:]
    assert np.corrcoef(rest.ravel(), before[20:].ravel())[0, 1] > 0.9
    assert np.corrcoef(x[new[20:]].ravel(), before[20:].ravel())[0, 1] < 0.5


def test_rows_that_do_not_correspond_are_refused():
    x, subject, moment = subjects()
    cases = {
        "want subjects=, the subject of each row; got None": {},
        r"want subjects \[120\], one per row; got shape \(3,\)": {"subjects": subject[:3]},
        "has the row 0 2 times": {"subjects": subject, "rows": np.maximum(moment - 1, 0)},
        "want the same 30 rows in every subject; got 30 of subject 'sub-1' .without 0, with 31": {
            "subjects": subject,
            "rows": np.where((subject == "sub-1") & (moment == 0), 31, moment),
        },
    }
    for message, options in cases.items():
        with pytest.raises(ValueError, match=message):
            Hyperalignment().fit(x, **options)
    with pytest.raises(ValueError, match="want the same 30 rows in every subject; got 29"):
        Hyperalignment().fit(x[:-1], subjects=subject[:-1])
    made = Hyperalignment().fit(x, subjects=subject)
    with pytest.raises(ValueError, match="subject 'new' has no map"):
        made.transform(x[:2], subjects=["new", "new"])
    with pytest.raises(ValueError, match="want 30 rows, as the template; got 5: rows= says"):
        made.fit_subject(x[:5], subject="new")
    with pytest.raises(ValueError, match="want a new subject; got 'sub-0', which trained"):
        made.fit_subject(x[:30], subject="sub-0")
    with pytest.raises(ValueError, match=r"want rows of the template; got \[99\], which it lacks"):
        made.fit_subject(x[:2], subject="new", rows=[0, 99])


def test_hyperalignment_in_a_routed_pipeline():
    x, subject, moment = subjects(n=45)
    y = moment % 3
    x[np.arange(len(x)), y] += 3
    run = moment // 15
    with sklearn.config_context(enable_metadata_routing=True):
        align = Hyperalignment().set_fit_request(subjects=True).set_transform_request(subjects=True)
        scores = cross_val_score(
            make_pipeline(align, LogisticRegression()),
            *(x, y),
            cv=LeaveOneGroupOut().split(x, y, run),
            params={"subjects": subject},
        )
    assert scores.mean() > 0.5


@pytest.mark.slow
@parametrize_with_checks([OneSubject()])
def test_hyperalignment_passes_the_checks_of_scikit_learn(estimator, check, quick_compile):
    check(estimator)


# --- networks


def test_cnn_is_the_training_loop():
    x, y, _ = rows(v=60)
    options = {"filters": (4,), "window": 5, "dense": (8,), "dropout": (0.1, 0.1)}
    ours = CNN1DClassifier(**options, epochs=3, random_state=0, temperature=False).fit(x, y)
    seed = int(np.random.RandomState(0).randint(2**31 - 1))
    train, monitor = ours._split(jax.random.key(seed), y, None)
    scale = scaling.fit_scale(lambda r: x[r], train, "voxel")
    program = ours._program(3)
    assert program.model == cnn1d.CNN1D(3, **options)
    feed = feeds.Resident(
        lambda r: scaling.apply_scale(scale, x[r]), y, np.arange(90), np.float32, program.mesh
    )
    task = loop.Task("", jax.random.key(seed), lambda: feed, train, monitor)
    ((_, trained),) = loop.fit(program, [task], epochs=3, every=50, factor=1e-3)
    for a, b in zip(
        jax.tree.leaves(ours.params_), jax.tree.leaves(trained.best.params), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    found = loop.predict(
        program, feed, np.arange(90), trained.best.params, trained.best.batch_stats
    )
    np.testing.assert_allclose(ours.predict_proba(x), found, atol=1e-6)
    assert ours.epoch_ == int(trained.best.epoch) and ours.curves_["loss"].shape == (3,)


def test_cnn_learns_strings_and_holds_whole_groups_back():
    x, y, groups = rows()
    made = CNN1DClassifier(**SMALL, epochs=60, random_state=0).fit(x, NAMES[y], groups)
    assert made.classes_.tolist() == NAMES.tolist() and made.score(x, NAMES[y]) > 0.8
    p = made.predict_proba(x)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)
    assert (made.classes_[p.argmax(1)] == made.predict(x)).all()
    back = np.unique(groups[made.monitored_])
    assert len(back) == 1 and len(made.monitored_) == 15
    again = pickle.loads(pickle.dumps(clone(made).fit(x, NAMES[y], groups)))
    np.testing.assert_array_equal(again.predict_proba(x), p)


def test_every_row_trains_where_none_is_held_back():
    x, y, _ = rows(n=30)
    made = CNN1DClassifier(**SMALL, epochs=4, held_back=0, random_state=0).fit(x, y)
    assert made.n_iter_ == made.epoch_ == 4 and not len(made.monitored_)
    assert made.temperature_ == 1


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_resnet_on_volumes_and_on_rows_of_a_mask(masked, quick_compile):
    rng = np.random.default_rng(0)
    y = np.arange(24) % 2
    volumes = rng.normal(100, 1, (24, 9, 9, 9)).astype(np.float32)
    volumes[y == 1, 3:6, 3:6, 3:6] += 3
    mask = np.zeros((9, 9, 9), bool)
    mask[2:8, 2:8, 2:8] = True
    x = volumes[:, mask] if masked else volumes
    made = ResNet3DClassifier(
        mask=mask if masked else None, width=2, epochs=12, lr=3e-3, held_back=0, random_state=0
    )
    made.fit(x, y)
    assert made.score(x, y) > 0.8 and made.shape_ == (9, 9, 9)
    assert made._program(2).model == resnet3d.resnet18(2, width=2, momentum=0.9)
    with pytest.raises(ValueError, match=f"is expecting {216 if masked else 9} features"):
        made.predict(np.ones((2, 7)))


def test_networks_say_what_they_want():
    x, y, _ = rows()
    cases = {
        "want 55 voxels or more for CNN1DClassifier with these layers; got 12": {},
        "want window: a whole number": {"window": 0},
        r"want held_back: a number in \[0, 1\); got 1.5": {"held_back": 1.5},
    }
    for message, options in cases.items():
        with pytest.raises(ValueError, match=message):
            CNN1DClassifier(**options).fit(x, y)
    with pytest.raises(ValueError, match=r"class 'joy' has 1 .held_back=0 holds none back"):
        CNN1DClassifier(**SMALL).fit(x[:4], ["joy", "calm", "calm", "calm"])
    with pytest.raises(ValueError, match="no draw of groups to hold back has every class"):
        CNN1DClassifier(**SMALL).fit(x, y, y)
    with pytest.raises(ValueError, match=r"want volumes .n, x, y, z., or rows of voxels and mask="):
        ResNet3DClassifier().fit(x, y)
    with pytest.raises(ValueError, match="want 9 voxels or more along each axis"):
        ResNet3DClassifier().fit(x.reshape(-1, 3, 2, 2), y)


@pytest.mark.slow
@parametrize_with_checks([CNN1DClassifier(**SMALL, epochs=30, random_state=0)])
def test_cnn_passes_every_check_of_scikit_learn(estimator, check, quick_compile):
    check(estimator)


@pytest.mark.slow
def test_cross_validation_in_two_processes():
    x, y, groups = rows()
    network = CNN1DClassifier(**SMALL, epochs=2, held_back=0, random_state=0)
    pipe = make_pipeline(StandardScaler(), AnovaSelector(6), network)
    scores = cross_val_score(pipe, x, NAMES[y], groups=groups, cv=GroupKFold(2), n_jobs=2)
    assert scores.shape == (2,) and np.isfinite(scores).all()
