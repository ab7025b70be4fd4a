"""Procrustes against recorded outputs of PyMVPA, and the laws that any rotation obeys."""

import json

import goldens
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from emojax import procrustes
from emojax._numerics import polar, rows

pytestmark = pytest.mark.usefixtures("quick_compile")

METHODS = ["svd", "polar"]


def close(got, want, rtol):
    """Compares by the largest difference relative to the largest entry."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=0, atol=rtol * np.abs(want).max())


def pair(n=30, p=8, q=8, noise=0.1, seed=0, dtype=np.float64):
    """Returns a source and its planted rotation, with noise, scale 2.5 and means."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * np.linspace(2, 0.5, p) + 3
    rotation = np.linalg.qr(rng.normal(size=(max(p, q), max(p, q))))[0][:p, :q]
    y = 2.5 * (x - 3) @ rotation + noise * rng.normal(size=(n, q)) - 1
    return x.astype(dtype), y.astype(dtype), rotation


def golden_runs(shared):
    z = np.load(shared("golden/pymvpa/procrustes.npz"))
    runs = [r for r in json.loads(str(z["index"]))["runs"] if not r["alignment"]["oblique"]]
    assert len(runs) >= 40  # a golden file without runs would test nothing
    return z, runs


WAYS = pytest.mark.parametrize(
    "method, dtype", [("svd", "float64"), ("svd", "float32"), ("polar", "float64")]
)


@WAYS
def test_matches_pymvpa(dtype, method):
    z, pairs = goldens.load("procrustes"), goldens.load("alignment_inputs")
    runs = goldens.index(z)
    assert len(runs) == 48
    check_runs(z | pairs, [run for run in runs if all(run["alignment"].values())], dtype, method)


@pytest.mark.slow
@WAYS
def test_matches_pymvpa_under_every_setting(dtype, method):
    z, pairs = goldens.load("procrustes"), goldens.load("alignment_inputs")
    check_runs(z | pairs, goldens.index(z), dtype, method)


@pytest.mark.slow
@WAYS
def test_matches_every_golden_of_pymvpa(shared, dtype, method):
    check_runs(*golden_runs(shared), dtype, method)


def check_runs(z, runs, dtype, method):
    with jax.enable_x64(dtype == "float64"):
        for run in runs:
            check_run(z, run, dtype, method, 1e-12 if dtype == "float64" else 2e-5)


def check_run(z, run, dtype, method, rtol):
    source, target, new = (
        z[f"{run['data']}/{k}"].astype(dtype) for k in ("source", "target", "test")
    )
    options = {k: run["alignment"][k] for k in ("scaling", "reflection", "demean")}
    want = {k.split("/")[-1]: z[k] for k in z if k.startswith(run["key"] + "/")}
    fitted = procrustes.fit(source, target, method=method, **options)
    close(procrustes.transform(fitted, source), want["forward"], rtol)
    if options["scaling"]:
        close(fitted.scale, want["scale"], rtol)
    if options["demean"]:
        close(fitted.source_mean, want["offset_in"], rtol)
        close(fitted.target_mean, want["offset_out"], rtol)
    if run["proj_unique"]:
        close(fitted.projection, want["proj"], rtol)
        close(procrustes.transform(fitted, new), want["forward_test"], rtol)
        close(procrustes.inverse(fitted, target), want["reverse_target"], 2 * rtol)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("p, q", [(8, 8), (6, 9), (9, 6), (50, 50), (50, 64), (64, 50)])
def test_rotation_has_orthonormal_rows_or_columns(p, q, method, x64):
    x, y, _ = pair(30, p, q)
    rotation = np.asarray(procrustes.fit(x, y, method=method).rotation)
    gram = rotation @ rotation.T if p < q else rotation.T @ rotation
    np.testing.assert_allclose(gram, np.eye(min(p, q)), atol=1e-12)


@pytest.mark.parametrize("p", [8, 50])
@pytest.mark.parametrize("method", METHODS)
def test_reflection_is_refused_if_asked(p, method, x64):
    for seed in range(4):
        x, y, _ = pair(30, p, p, seed=seed)
        fitted = procrustes.fit(x, y, reflection=False, method=method)
        np.testing.assert_allclose(np.linalg.det(fitted.rotation), 1, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_recovers_a_planted_rotation(dtype, method):
    x, y, planted = pair(40, 8, 8, noise=0.0, dtype=dtype)
    fitted = procrustes.fit(x, y, method=method)
    tol = 1e-12 if dtype == np.float64 else 2e-5
    np.testing.assert_allclose(fitted.rotation, planted, atol=tol)
    np.testing.assert_allclose(fitted.scale, 2.5, rtol=tol)
    np.testing.assert_allclose(procrustes.transform(fitted, x), y, atol=20 * tol)
    np.testing.assert_allclose(procrustes.inverse(fitted, y), x, atol=20 * tol)


def test_no_rotation_does_better(x64):
    x, y, _ = pair(noise=2.0)
    best = procrustes.fit(x, y, scaling=False)

    def miss(rotation):
        return np.linalg.norm((x - x.mean(0)) @ rotation - (y - y.mean(0)))

    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-1, 1.0):
        turn = np.linalg.qr(np.eye(8) + size * rng.normal(size=(8, 8)))[0]
        assert miss(best.rotation) < miss(np.asarray(best.rotation) @ turn)


@pytest.mark.slow
@given(
    shape=st.sampled_from([(12, 5, 5), (12, 5, 9), (12, 20, 20), (12, 20, 7), (12, 7, 20)]),
    seed=st.integers(0, 999),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_lowrank_and_polar_map_the_rows_as_dense_svd(shape, seed):
    with jax.enable_x64(True):
        n, p, q = shape
        x, y, _ = pair(n, p, q, noise=0.5, seed=seed)
        want = procrustes.transform(procrustes.fit(x, y), x)
        for fit in (procrustes.fit, procrustes.fit_lowrank):
            for method in METHODS:
                close(procrustes.transform(fit(x, y, method=method), x), want, 1e-9)


def test_lowrank_never_forms_a_square_matrix():
    n, p = 20, 5000
    shapes = jax.eval_shape(lambda x: procrustes.fit_lowrank(x, x), jnp.zeros((n, p)))
    text = str(jax.make_jaxpr(lambda x: procrustes.fit_lowrank(x, x))(jnp.zeros((n, p))))
    assert shapes.left.shape == (p, n - 1)
    assert f"{p},{p}" not in text


def test_lowrank_is_zero_outside_the_rows(x64):
    x, y, _ = pair(10, 40, 40)
    fitted = procrustes.fit_lowrank(x, y)
    outside = np.linalg.svd(x - x.mean(0))[2][9:]  # orthogonal to all centred rows
    moved = procrustes.transform(fitted, outside + x.mean(0)) - fitted.target_mean
    np.testing.assert_allclose(moved, 0, atol=1e-12)


@pytest.mark.parametrize("fit", [procrustes.fit, procrustes.fit_lowrank])
@pytest.mark.parametrize("method", METHODS)
def test_jit_and_vmap_equal_a_loop(fit, method):
    pairs = [pair(12, 20, 20, seed=s, dtype=np.float32)[:2] for s in range(3)]
    x, y = (np.stack(a) for a in zip(*pairs, strict=True))
    mapped = jax.jit(jax.vmap(lambda a, b: fit(a, b, method=method)))(x, y)
    assert len(mapped) == 3
    for i, one in enumerate(mapped):
        want = procrustes.transform(fit(x[i], y[i], method=method), x[i])
        close(procrustes.transform(one, x[i]), want, 1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reflection", [True, False])
@pytest.mark.parametrize("shape", [(5, 5), (6, 4), (4, 6)])
def test_gradient_of_the_polar_factor(shape, reflection, method, x64):
    x = np.random.default_rng(3).normal(size=shape)
    check_grads(lambda a: polar.polar(a, reflection, method), (x,), order=1, rtol=1e-5)


def test_gradient_survives_equal_singular_values(x64):
    grad = jax.jacobian(lambda a: polar.polar(a, True, "svd")[0])(2 * jnp.eye(4))
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("p", [6, 20])
def test_gradient_through_the_fitted_map(p, x64):
    x, y, _ = pair(10, p, p, noise=0.5)

    def miss(source):
        fitted = procrustes.fit_lowrank(source, y)
        return ((procrustes.transform(fitted, source) - y) ** 2).sum()

    check_grads(miss, (x,), order=1, modes=["rev"], rtol=1e-4)


def test_polar_uses_matrix_products_only():
    text = str(jax.make_jaxpr(lambda x: polar.polar(x, True, "polar"))(jnp.zeros((5, 5))))
    assert "dot_general" in text
    assert not any(f" {name}[" in text for name in ("svd", "eigh", "qr", "cholesky", "lu"))
    assert " svd[" in str(jax.make_jaxpr(lambda x: polar.polar(x, True, "svd"))(jnp.zeros((5, 5))))


def test_polar_converges_for_ill_conditioned_matrices(dtype):
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.normal(size=(12, 12)))[0] for _ in range(2))
    eps = np.finfo(dtype).eps
    x = (u * np.geomspace(1, 1e3 * eps, 12)) @ v.T
    w, trace = polar.polar(x.astype(dtype), True, "polar")
    np.testing.assert_allclose(w.T @ w, np.eye(12), atol=50 * eps)
    np.testing.assert_allclose(trace, np.geomspace(1, 1e3 * eps, 12).sum(), rtol=20 * eps)


@pytest.mark.parametrize("shape", [(12, 5), (12, 12), (12, 13), (12, 40)])
@pytest.mark.parametrize("demean", [True, False])
def test_compressed_rows_are_the_rows(shape, demean, x64):
    x = np.random.default_rng(0).normal(5, 1, shape)
    made = rows.compress(jnp.asarray(x), demean)
    close(rows.restore(made), x, 1e-12)
    wide = shape[1] > shape[0]
    assert (made.basis is not None) == wide
    if wide:
        assert made.left.shape == (12, 11 if demean else 12)
        gram = made.basis.T @ made.basis
        np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-12)
    np.testing.assert_allclose(made.mean, x.mean(0) if demean else 0, rtol=1e-12)
    plain = rows.as_rows(jnp.asarray(x), demean)
    assert plain.basis is None
    np.testing.assert_allclose(plain.left @ plain.left.T, made.left @ made.left.T, rtol=1e-9)


@pytest.mark.parametrize("voxels", [12, 13, 40])
def test_centred_rows_that_are_not_centred_again_lose_their_last_direction(voxels, dtype):
    x = np.random.default_rng(0).normal(5, 1, (12, voxels))
    x = (x - x.mean(0)).astype(dtype)
    made = rows.compress(jnp.asarray(x), demean=False, square=True)
    assert not made.basis[:, -1].any() and not made.left[:, -1].any()
    gram = made.basis[:, :-1].T @ made.basis[:, :-1]
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(gram, np.eye(11), atol=tolerance)
    np.testing.assert_allclose(rows.restore(made), x, atol=tolerance)


def test_moved_rows_are_those_of_the_map(x64):
    for p, q in [(8, 5), (30, 8), (8, 30), (30, 40)]:
        x, y, _ = pair(12, p, q, noise=0.5)
        a, b = rows.compress(jnp.asarray(x)), rows.compress(jnp.asarray(y))
        core, scale = procrustes.align_rows(a, b, scaling=True, reflection=True, method="svd")
        want = rows.move_rows(a, core, scale, b)
        for fitted in (
            rows.dense_map(a, core, scale, b, True),
            rows.lowrank_map(a, core, scale, b),
        ):
            close(procrustes.transform(fitted, x), want, 1e-10)


def test_mapping_is_abstract():
    assert issubclass(procrustes.Procrustes, procrustes.Mapping)
    assert issubclass(procrustes.LowRankProcrustes, procrustes.Mapping)
    with pytest.raises(TypeError, match="abstract"):
        procrustes.Mapping()


def test_says_what_is_wrong():
    x, y, _ = pair(dtype=np.float32)
    with pytest.raises(ValueError, match=r"same n >= 2; got \(29, 8\), \(30, 8\)"):
        procrustes.fit(x[:-1], y)
    with pytest.raises(ValueError, match=r"got \(1, 8\), \(1, 8\)"):
        procrustes.fit_lowrank(x[:1], y[:1])
    with pytest.raises(ValueError, match=r"method in .*; got 'qr'"):
        procrustes.fit(x, y, method="qr")
    bad = x.copy()
    bad[2, 3] = np.nan
    with pytest.raises(ValueError, match=r"finite source; got 1 NaN .* first at \(2, 3\)"):
        procrustes.fit(bad, y)
    with pytest.raises(ValueError, match="a target with voxels that vary"):
        procrustes.fit(x, np.full_like(y, 0.1))
    fitted = procrustes.fit(x, y)
    with pytest.raises(ValueError, match=r"rows of 8 voxels; got shape \(30, 7\)"):
        procrustes.transform(fitted, x[:, :7])
    with pytest.raises(ValueError, match=r"rows of 8 voxels; got shape \(5,\)"):
        procrustes.inverse(fitted, y[0, :5])
    stack = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), fitted)
    with pytest.raises(ValueError, match=r"a stack of 2: use jax\.vmap"):
        procrustes.transform(stack, x)
    with pytest.raises(TypeError, match="single map has no length"):
        len(fitted)
