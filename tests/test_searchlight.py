"""Spheres against brute force, and decoding against scikit-learn refitted for every fold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score

from emojax import searchlight

AFFINE = np.array([[2.9, 0.3, 0, -40], [-0.3, 2.9, 0, -30], [0, 0, 3.5, -20], [0, 0, 0, 1]])
MODELS = {
    "ridge": lambda: RidgeClassifier(alpha=1.0),
    "lda": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1),
}


def a_mask(shape=(6, 5, 4), share=0.8):
    return np.random.default_rng(0).random(shape) < share


def leave_out(groups):
    return [(np.flatnonzero(groups != g), np.flatnonzero(groups == g)) for g in np.unique(groups)]


def crossed(first, second):
    pairs = {*zip(first.tolist(), second.tolist(), strict=True)}
    return [
        (np.flatnonzero((first != a) & (second != b)), np.flatnonzero((first == a) & (second == b)))
        for a, b in sorted(pairs)
    ]


def a_study(classes, voxels, rows=48, seed=1):
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    x = rng.normal(100, 1, (rows, voxels)) + 0.4 * labels[:, None]
    return x, labels, np.arange(rows) // 8, np.arange(rows) // 2 % 3  # values, labels, run, level


@given(st.integers(0, 10**6), st.floats(1.0, 9.0), st.integers(1, 12))
@settings(max_examples=20, deadline=None)
def test_spheres_hold_the_voxels_within_their_radius(seed, radius, least):
    mask = np.random.default_rng(seed).random((5, 4, 6)) < 0.7
    places = np.argwhere(mask) @ AFFINE[:3, :3].T
    near = np.linalg.norm(places[:, None] - places, axis=2) <= radius
    if not (near.sum(1) >= least).any():
        with pytest.raises(ValueError, match="larger radius"):
            searchlight.spheres(mask, AFFINE, radius, least=least)
        return
    found = searchlight.spheres(mask, AFFINE, radius, least=least)
    assert found.centres.tolist() == np.flatnonzero(near.sum(1) >= least).tolist()
    assert found.left_out == (near.sum(1) < least).sum()
    for centre, count, own in zip(found.centres, found.counts, found.indices, strict=True):
        assert own[:count].tolist() == np.flatnonzero(near[centre]).tolist()
        assert (own[count:] == mask.sum()).all()


def test_a_sphere_of_two_steps_has_33_voxels():
    found = searchlight.spheres(np.ones((9, 9, 9), bool), np.diag([3.0, 3, 3, 1]), 6.0)
    assert found.indices.shape == (729, 33) and found.counts.min() == 11  # a corner's
    inner = np.zeros((9, 9, 9), bool)
    inner[2:7, 2:7, 2:7] = True
    part = searchlight.spheres(inner | True, np.diag([3.0, 3, 3, 1]), 6.0, centres=inner)
    assert len(part) == 125 and (part.counts == 33).all()
    assert np.isnan(part.fill(np.ones(125))).sum() == 729 - 125


@pytest.mark.parametrize("way", ["ridge", "lda", "lda in principal axes"])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", ["runs", "crossed", "some rows", "few rows"])
def test_equals_scikit_learn_refitted(way, classes, kind, x64, monkeypatch):
    classifier = way.split()[0]
    if "axes" in way:
        monkeypatch.setattr(searchlight.decoding.downdates, "FEW", 0)
    mask = a_mask()
    spheres = searchlight.spheres(mask, AFFINE, 5.0 if kind != "few rows" else 9.0, least=3)
    x, labels, run, level = a_study(classes, mask.sum(), 24 if kind == "few rows" else 48)
    folds = {
        "crossed": crossed(run, level),
        "some rows": [(np.r_[0:20], np.r_[30:37]), (np.r_[10:40], np.r_[0:9])],
    }.get(kind, leave_out(run))
    found = searchlight.decode(x, labels, folds, spheres, classifier=classifier, with_scores=True)
    if kind == "few rows":
        assert spheres.counts.max() > len(x)
    for i in range(0, len(spheres), 9):
        own = spheres.indices[i, : spheres.counts[i]]
        each = []
        for number, (train, test) in enumerate(folds):
            model = MODELS[classifier]().fit(x[np.ix_(train, own)], labels[train])
            want = model.decision_function(x[np.ix_(test, own)]).reshape(len(test), -1)
            got = found.scores[i, number]
            assert np.isnan(got[len(test) :]).all()
            if classifier == "lda" and classes > 2:  # discriminants share a term of each row
                want, got = (s - s.mean(1, keepdims=True) for s in (want, got))
            np.testing.assert_allclose(got[: len(test)], want, rtol=1e-8, atol=1e-8)
            predicted = model.predict(x[np.ix_(test, own)])
            each.append(balanced_accuracy_score(labels[test], predicted))
        np.testing.assert_allclose(found.folds[i], each)
        np.testing.assert_allclose(found.balanced[i], np.mean(each))


@pytest.mark.parametrize("sd", [1.0, 1e3])  # the latter: of BOLD images
@pytest.mark.parametrize("classifier", MODELS)
def test_float32_agrees(classifier, sd, x64):
    spheres = searchlight.spheres(a_mask(), AFFINE, 5.0)
    x, labels, run, _ = a_study(3, spheres.num_voxels)
    x = sd * (x + 40)
    double, single = (
        searchlight.decode(
            values, labels, leave_out(run), spheres, classifier=classifier, with_scores=True
        )
        for values in (x, x.astype(np.float32))
    )
    assert single.balanced.dtype == np.float32 and double.balanced.dtype == np.float64
    np.testing.assert_allclose(single.scores, double.scores, atol=2e-3)
    assert (np.abs(single.balanced - double.balanced) > 1e-5).mean() < 0.01


def test_float32_discriminants_keep_their_digits_in_scanner_units():
    spheres = searchlight.spheres(a_mask(), AFFINE, 5.0)
    x, labels, run, _ = a_study(2, spheres.num_voxels)
    x = (1000 + 10 * (x - 100)).astype(np.float32)
    folds = leave_out(run)
    got = searchlight.decode(x, labels, folds, spheres, with_scores=True).scores
    for i in range(0, len(spheres), 9):
        own = spheres.indices[i, : spheres.counts[i]]
        wide = x[:, own].astype(np.float64)
        for number, (train, test) in enumerate(folds):
            want = MODELS["lda"]().fit(wide[train], labels[train]).decision_function(wide[test])
            np.testing.assert_allclose(got[i, number, :, 0], want, rtol=1e-5, atol=1e-5)


def test_classes_far_apart_are_told_apart_in_float32():
    spheres = searchlight.spheres(a_mask(), AFFINE, 5.0)
    x, labels, run, _ = a_study(3, spheres.num_voxels)
    x = (x + 20 * labels[:, None]).astype(np.float32)
    assert searchlight.decode(x, labels, leave_out(run), spheres).balanced.min() > 0.99


@pytest.mark.parametrize("classifier", MODELS)
def test_labellings_together_equal_each_alone(classifier, monkeypatch):
    monkeypatch.setattr(searchlight.decoding, "LABELLINGS", 2)  # in blocks, and spheres in chunks
    monkeypatch.setattr(searchlight.decoding, "CHUNK_BYTES", 2**15)
    spheres = searchlight.spheres(a_mask(), AFFINE, 5.0)
    x, labels, run, _ = a_study(2, spheres.num_voxels)
    rng, done = np.random.default_rng(0), []
    many = np.stack([labels, *(rng.permutation(labels) for _ in range(4))])
    settings = {"classifier": classifier, "equal_priors": True}
    found = searchlight.decode(
        x, many, leave_out(run), spheres, tick=done.append, with_scores=True, **settings
    )
    assert sum(done) == len(spheres) and len(done) > 1
    assert found.folds.shape == (5, len(spheres), 6)
    for i, own in enumerate(many):
        alone = searchlight.decode(x, own, leave_out(run), spheres, per_fold=False, **settings)
        np.testing.assert_allclose(found.accuracy[i], alone.accuracy, atol=1e-6)
        assert alone.folds is None and alone.scores is None


def test_equal_priors_change_the_offset_alone(x64):
    spheres = searchlight.spheres(a_mask(), AFFINE, 5.0)
    x, labels, run, _ = a_study(2, spheres.num_voxels)
    labels = np.where(np.arange(48) % 5 == 0, 1, 0)
    folds = leave_out(run)
    own, equal = (
        searchlight.decode(x, labels, folds, spheres, equal_priors=e, with_scores=True).scores
        for e in (False, True)
    )
    for number, (train, _) in enumerate(folds):
        odds = np.log(labels[train].mean() / (1 - labels[train].mean()))
        np.testing.assert_allclose(own[:, number] - equal[:, number], odds, atol=1e-9)


def test_units_order_and_constant_voxels_do_not_matter(x64):
    spheres = searchlight.spheres(a_mask(), AFFINE, 5.0)
    x, labels, run, _ = a_study(3, spheres.num_voxels)
    x[:, ::4] = 7.0
    found = searchlight.decode(x, labels, leave_out(run), spheres)
    order = np.random.default_rng(2).permutation(48)
    moved = searchlight.decode(5 * x[order] - 3, labels[order], leave_out(run[order]), spheres)
    np.testing.assert_allclose(found.balanced, moved.balanced, atol=1e-12)


def test_the_informative_spheres_are_found():
    mask = np.ones((8, 8, 8), bool)
    spheres = searchlight.spheres(mask, np.eye(4), 1.5)
    x, labels, run, _ = a_study(2, 512)
    x = np.random.default_rng(3).normal(size=x.shape)
    planted = np.zeros(mask.shape, bool)
    planted[1:4, 1:4, 1:4] = True
    x[:, planted.ravel()] += labels[:, None]
    accuracy = searchlight.decode(x, labels, leave_out(run), spheres).balanced
    inside = accuracy.reshape(mask.shape)[2, 2, 2]
    far = accuracy.reshape(mask.shape)[6:, 6:, 6:]
    assert inside > 0.9 and abs(far.mean() - 0.5) < 0.12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((48, 3))}, r"want x \[n, \d+\]"),
        ({"x": "nan"}, "finite x"),
        ({"y": np.zeros(47, int)}, r"got shape \(1, 47\)"),
        ({"y": np.zeros(48, int)}, "at least 2 classes"),
        ({"y": np.arange(48) // 24, "folds": [(np.r_[0:10], [40])]}, "without class 1"),
        ({"folds": []}, "at least one fold"),
        ({"folds": [(np.r_[0:10], np.r_[9:12])]}, "row 9 trains fold 0"),
        ({"folds": [(np.r_[0:10], np.r_[47:50])]}, "got 49"),
        ({"folds": [(np.r_[0:10], np.zeros(0, int))]}, "fold 0"),
        ({"classifier": "svm"}, "'svm'"),
        ({"shrinkage": 0.0}, "shrinkage"),
        ({"alpha": 0.0}, "alpha > 0"),
    ],
)
def test_says_what_is_wrong(change, message):
    spheres = searchlight.spheres(a_mask(), AFFINE, 5.0)
    x, labels, run, _ = a_study(2, spheres.num_voxels)
    good = {"x": x, "y": labels, "folds": leave_out(run), "spheres": spheres} | change
    if isinstance(good["x"], str):
        good["x"] = np.full(x.shape, np.nan)
    with pytest.raises(ValueError, match=message):
        searchlight.decode(**good)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((np.ones((3, 3), bool), np.eye(4), 2.0), r"got shape \(3, 3\)"),
        ((np.ones((3, 3, 3), bool), np.eye(3), 2.0), "affine"),
        ((np.ones((3, 3, 3), bool), np.diag([1.0, 0, 1, 1]), 2.0), "singular"),
        ((np.ones((3, 3, 3), bool), np.eye(4), 0.0), "radius_mm in"),
        ((np.ones((3, 3, 3), bool), np.eye(4), np.inf), "radius_mm in"),
        ((np.zeros((3, 3, 3), bool), np.eye(4), 1.0), "no sphere"),
    ],
)
def test_spheres_say_what_is_wrong(args, message):
    with pytest.raises(ValueError, match=message):
        searchlight.spheres(*args)
