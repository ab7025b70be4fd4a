"""Inputs of other kinds than arrays of float32: they work, or one sentence says what to pass."""

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from emojax import (
    alignment,
    anova,
    fusion,
    hyperalignment,
    masking,
    metrics,
    piecewise,
    procrustes,
    resampling,
    splits,
    statistics,
)
from emojax._numerics.checks import as_array, as_float

rng = np.random.default_rng(0)
X = rng.normal(1e3, 50, (30, 6)).astype(np.float32)
Y = np.arange(30) % 3
SUBJECTS = rng.normal(size=(3, 12, 5)).astype(np.float32)
VOLUMES = rng.normal(100, 10, (8, 6, 5, 4)).astype(np.float32)
MASK = np.ones((6, 5, 4), bool)
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def quick(quick_compile):
    """Compiles with fewer optimisations: these tests compile many small programs."""


HALF = [np.float16, jnp.bfloat16]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("to", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_half_precision_is_widened(dtype, to):
    """F-scores in scanner units were NaN in 0.3.0: 50^2 x 30 exceeds float16."""
    half = to(X.astype(dtype))
    test = anova.f_test(half, Y, 3)
    assert test.f.dtype == jnp.float32
    want = anova.f_test(np.asarray(half).astype(np.float32), Y, 3).f
    np.testing.assert_allclose(test.f, want, rtol=1e-5)
    model = hyperalignment.fit(to(SUBJECTS.astype(dtype)))
    assert model.template.dtype == jnp.float32 and np.isfinite(model.template).all()
    assert procrustes.fit(half, half).rotation.dtype == jnp.float32
    assert anova.select_top(to(np.arange(4).astype(dtype)), 2).tolist() == [3, 2]


LISTS = {
    "list": lambda x: np.asarray(x).tolist(),
    "tuple": lambda x: tuple(np.asarray(x).tolist()),
    "pandas": lambda x: pd.DataFrame(x) if np.ndim(x) == 2 else pd.Series(x),
    "list of arrays": lambda x: [*map(np.asarray, x)] if np.ndim(x) > 1 else list(x),
    "list of jax arrays": lambda x: [*map(jnp.asarray, x)] if np.ndim(x) > 1 else list(x),
}


@pytest.mark.parametrize("kind", LISTS)
def test_lists_and_data_frames_work(kind):
    to = LISTS[kind]
    assert_same(anova.f_scores(to(X), to(Y), 3), anova.f_scores(X, Y, 3))
    state = anova.update(anova.init(6, 3), to(X), to(Y))
    assert_same(anova.finalize(state).f, anova.f_scores(X, Y, 3), rtol=1e-4)
    assert_same(anova.select_top(to(X[0]), 2), anova.select_top(X[0], 2))
    fitted = procrustes.fit(to(X[:, :4]), to(X[:, 2:]))
    assert_same(procrustes.transform(fitted, to(X[:, :4])), X[:, 2:], rtol=1, atol=1e3)
    assert_same(procrustes.inverse(fitted, to(X[:, 2:])), X[:, :4], rtol=1, atol=1e3)
    several = [to(x) for x in SUBJECTS]
    model = hyperalignment.fit(several)
    assert_same(model.template, hyperalignment.fit(SUBJECTS).template)
    assert len(hyperalignment.transform(model.mappings, several)) == 3
    assert hyperalignment.align(model, several, list(range(12))).widths == (5, 5)
    parcels = piecewise.fit(several, [1, 1, 1, 2, 2])
    assert piecewise.transform(parcels.mappings, several)[0].shape == (12, 5)
    assert_same(alignment.transductive(model, to(SUBJECTS[0])).rotation, model.mappings[0].rotation)
    rows, cells = alignment.match_rows(several, [to(Y[:12])] * 3, [to(Y[:12])] * 3)
    assert len(rows) == 3 and len(cells) == 3
    assert metrics.accuracy(to(Y), to(Y)) == 1
    assert_same(metrics.confusion_matrix(to(Y), to(Y), 3), 10 * np.eye(3))
    assert metrics.brier(to(Y), to(np.eye(3)[Y])) == 0
    assert len(resampling.balance(KEY, to(Y), 4)) == 12
    assert len(resampling.leave_one_group_out(to(Y))) == 3
    assert statistics.permutation_test(KEY, to(Y), to(Y), to(Y // 3), num_permutations=9).p <= 1
    assert sorted(statistics.permute_within(KEY, to(Y)).tolist()) == list(range(30))
    assert statistics.mean_interval(to(X[0])).estimate == pytest.approx(X[0].mean())
    assert len(splits.leave_one_out(to(np.arange(30) % 5))) == 5


def assert_same(a, b, rtol=1e-5, atol=1e-6):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=rtol, atol=atol)


def test_lists_of_volumes_work():
    assert masking.brain_mask(MASK.astype(float).tolist() + rng.random(MASK.shape), opening=0).any()
    assert masking.usable_voxels(VOLUMES.tolist())[0].all()
    features = masking.apply_mask(VOLUMES.tolist(), MASK.tolist())
    assert features.shape == (8, 120)
    assert_same(masking.unmask(np.asarray(features).tolist(), MASK.tolist()), VOLUMES)


def test_strings_of_pandas_are_groups():
    names = pd.Series(["b", "a", "c"] * 10)
    for groups in (names, names.astype("category"), names.to_numpy(object)):
        found = resampling.leave_one_group_out(groups)
        assert found[0].test.tolist() == np.flatnonzero(names.to_numpy() == "a").tolist()


BAD = {
    "want integer y; got dtype <U4: np.unique.y, return_inverse=True..1. numbers them": lambda: (
        anova.f_scores(X, np.array(["calm", "fear", "joy"])[Y], 3)
    ),
    "want integer y; got dtype float64": lambda: anova.f_scores(X, Y / 2, 3),
    "want integer labels; got dtype <U1: np.unique.labels": lambda: metrics.accuracy(
        pd.Categorical(["a", "b"]), [0, 1]
    ),
    "want integer labels; got dtype <U1": lambda: resampling.balance(KEY, ["a", "b"], 2),
    "want x as an array of numbers; got str 'a'": lambda: anova.f_scores(
        pd.DataFrame({"v": [1.0, 2.0, 3.0], "w": ["a", "b", "c"]}), [0, 1, 0], 2
    ),
    "want x as an array of numbers; got dtype <U1": lambda: anova.f_scores(
        np.full((4, 2), "a"), [0, 1, 0, 1], 2
    ),
    "want x as an array of numbers; got a list that is none": lambda: anova.f_scores(
        [[1.0, 2.0], [3.0]], [0, 1], 2
    ),
    "want source as an array of numbers; got dict": lambda: procrustes.fit([{}], X),
    "want data.1. as an array of numbers; got a list that is none": lambda: hyperalignment.fit(
        [SUBJECTS[0], [[1.0], [2.0, 3.0]]]
    ),
    r"want data \[subjects, rows, voxels\]; got shape \(30, 6\)": lambda: hyperalignment.fit(
        pd.DataFrame(X)
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_other_things_are_refused_in_one_line(message):
    with pytest.raises(ValueError, match=message) as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)


IMAGE = nib.Nifti1Image(np.moveaxis(VOLUMES, 0, -1), np.eye(4))
TAKES_VOLUMES = {
    "a mean volume": lambda: masking.brain_mask(IMAGE),
    "volumes": lambda: masking.apply_mask(IMAGE, MASK),
    "a mask": lambda: masking.apply_mask(VOLUMES, IMAGE),
    "volumes [t": lambda: masking.usable_voxels(IMAGE),
    "volumes [...": lambda: fusion.apply("linear", {}, IMAGE),
}


@pytest.mark.parametrize("name", TAKES_VOLUMES)
def test_an_image_is_told_what_to_pass(name):
    with pytest.raises(ValueError) as caught:
        TAKES_VOLUMES[name]()
    said = str(caught.value)
    assert (
        said.startswith(f"want {name}") and "got the image Nifti1Image: pass image.get_fd" in said
    )


def test_classes_are_counted_outside_of_jit():
    for labels in (Y, jnp.asarray(Y), Y.tolist(), pd.Series(Y)):
        assert_same(anova.f_scores(X, labels, None), anova.f_scores(X, Y, 3))
        assert_same(metrics.confusion_matrix(labels, labels, None), 10 * np.eye(3))
        assert metrics.balanced_accuracy(labels, labels, None) == 1
        assert metrics.precision_recall_f1(labels, labels, None).f1.shape == (3,)
    with pytest.raises(ValueError, match="want num_classes: a whole number; got 'three'"):
        anova.f_scores(X, Y, "three")


NEEDS_CLASSES = {
    "f_scores": lambda k: anova.f_scores(X, Y, k),
    "f_test": lambda k: anova.f_test(X, Y, k).f,
    "balanced_accuracy": lambda k: metrics.balanced_accuracy(Y, Y, k),
    "confusion_matrix": lambda k: metrics.confusion_matrix(Y, Y, k),
}
STATIC = "want num_classes as a static number under jit and vmap; got "


@pytest.mark.parametrize("name", NEEDS_CLASSES)
def test_a_traced_number_of_classes_is_told_how_to_be_static(name):
    function = NEEDS_CLASSES[name]
    with pytest.raises(ValueError, match=STATIC + "a traced value: jax.jit.function, static_arg"):
        jax.jit(function)(3)
    jax.jit(function, static_argnums=0)(3)


def test_traced_labels_need_a_number_of_classes():
    with pytest.raises(ValueError, match=STATIC + "None"):
        jax.jit(lambda y: anova.f_scores(X, y, None))(Y)
    with pytest.raises(ValueError, match=STATIC + "None"):
        jax.jit(lambda y: resampling.balance(KEY, y, 2))(Y)
    with pytest.raises(ValueError, match=STATIC + "a traced value"):
        jax.jit(anova.f_scores)(X, Y, 3)
    assert jax.jit(anova.f_scores, static_argnames="num_classes")(X, Y, 3).shape == (6,)


def test_numpy_float64_becomes_float32_unless_x64_is_on():
    x = X.astype(np.float64)
    assert anova.f_scores(x, Y, 3).dtype == np.float32
    with jax.enable_x64(True):
        assert anova.f_scores(x, Y, 3).dtype == np.float64
        assert anova.f_scores(X, Y, 3).dtype == np.float32


def test_arrays_are_not_copied():
    x = jnp.asarray(X)
    assert as_float(x) is x and as_array(x) is x and as_array(X) is X
    assert as_array(X[:, ::2]).base is X
    assert jax.jit(lambda x: as_float(x) + 1)(x).dtype == jnp.float32
