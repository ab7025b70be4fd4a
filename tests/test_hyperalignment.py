"""Hyperalignment against an independent transcription of PyMVPA's steps, and its laws."""

import inspect
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import hyperalign
from test_procrustes import close

from emojax import hyperalignment, procrustes

pytestmark = pytest.mark.usefixtures("quick_compile")


def cohort(s=4, n=30, v=8, noise=0.3, seed=0, widths=None):
    """Returns a shared signal, rotated, scaled and shifted by subject: [s, n, v] or a list."""
    rng = np.random.default_rng(seed)
    widths = widths or [v] * s
    k = max(widths)
    signal = rng.normal(size=(n, k)) * np.linspace(2, 0.5, k)
    data = []
    for width in widths:
        rotation = np.linalg.qr(rng.normal(size=(k, k)))[0][:, :width]
        x = rng.uniform(0.5, 2) * (signal @ rotation + noise * rng.normal(size=(n, width)))
        data.append(x + 3 * rng.normal(size=width))
    return np.stack(data) if len(set(widths)) == 1 else data


SETTINGS = [
    {},
    {"zscore_common": False, "level2_iters": 2},
    {"alpha": 0.3, "zscore_all": True, "reference": 1},
    {"alpha": 0.7, "zscore_common": False, "scaling": False},
    {"weight": 0.2, "reflection": False},
    {"weight": 0.9, "level2_iters": 0, "demean": False},
    {"level1_equal_weight": True, "reference": 2, "zscore_common": False},
    {"demean": False, "alpha": 0.5, "reflection": False},
]
SHAPES = {"tall": [8] * 4, "wide": [40] * 3, "unequal": [8, 12, 9], "mixed": [8, 45, 33]}


@pytest.mark.slow
@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_matches_the_transcription_for_unrecorded_settings(shape, options, x64):
    if shape in ("wide", "mixed") and options.get("demean") is False and "alpha" not in options:
        pytest.skip("uncentred rows of rank 30 on a z-scored space of rank 29: not determined")
    data = cohort(widths=SHAPES[shape])
    model = hyperalignment.fit(data, **options)
    template, aligned, scales = hyperalign(data, **options)
    close(model.template, template, 1e-9)
    for got, want in zip(hyperalignment.transform(model.mappings, data), aligned, strict=True):
        close(got, want, 1e-9)
    np.testing.assert_allclose([m.scale for m in model.mappings], scales, rtol=1e-9)


def intersubject_correlation(data):
    """Returns the mean correlation of every column with the mean of the other subjects' columns."""
    out = []
    for i in range(len(data)):
        rest = np.delete(data, i, 0).mean(0)
        for a, b in zip(data[i].T, rest.T, strict=True):
            out.append(np.corrcoef(a, b)[0, 1])
    return np.mean(out)


@pytest.mark.parametrize("method", ["svd", "polar"])
@pytest.mark.parametrize("voxels", [12, 20])
def test_what_a_centred_template_leaves_open_is_dropped(voxels, method, x64):
    """Uncentred rows of rank 12 on a z-scored space of rank 11 get the smallest rotation."""
    data = cohort(s=3, n=12, v=voxels) + np.linspace(1, 5, voxels)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((voxels, voxels)))[0]
    model = hyperalignment.fit(data, demean=False, method=method)
    template = np.asarray(model.template)
    for lowrank in (True, False):
        options = model.options._replace(lowrank=lowrank)
        frozen = hyperalignment.from_template(template, options)
        got = hyperalignment.transform(hyperalignment.align(frozen, data), data)
        for x, own in zip(data, got, strict=True):
            u, s, vt = np.linalg.svd(x.T @ template)
            assert s[11] < 1e-12 * s[0] < s[10]
            want = s.sum() / (x**2).sum() * x @ u[:, :11] @ vt[:11]
            np.testing.assert_allclose(own, want, atol=1e-10)
        turned = hyperalignment.align(frozen, data @ turn)  # no arbitrary direction is left
        close(hyperalignment.transform(turned, data @ turn), got, 1e-10)
    order = np.random.default_rng(2).permutation(voxels)
    again = hyperalignment.fit(data[..., order], demean=False, method=method)
    np.testing.assert_allclose(again.template, template[:, order], atol=1e-9)


def test_aligned_subjects_correlate_and_rotations_are_orthogonal(dtype):
    data = cohort(s=6, n=60, v=10).astype(dtype)
    model = hyperalignment.fit(data)
    assert model.template.dtype == dtype
    aligned = np.asarray(hyperalignment.transform(model.mappings, data))
    assert intersubject_correlation(data) < 0.3
    assert intersubject_correlation(aligned) > 0.9
    gram = np.einsum("sij,sik->sjk", model.mappings.rotation, model.mappings.rotation)
    tol = 1e-12 if dtype == np.float64 else 1e-5
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(10), gram.shape), atol=tol)


def test_dense_rotations_are_orthogonal_with_fewer_rows_than_voxels(x64):
    model = hyperalignment.fit(cohort(n=10, v=15))
    assert isinstance(model.mappings, procrustes.Procrustes)
    gram = np.einsum("sij,sik->sjk", model.mappings.rotation, model.mappings.rotation)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(15), gram.shape), atol=1e-12)


def test_a_template_alone_aligns_as_the_fit_that_made_it(x64):
    data = cohort(s=5)
    for options in ({}, {"scaling": False, "demean": False}, {"zscore_all": True, "alpha": 0.5}):
        model = hyperalignment.fit(data[:4], **options)
        alone = hyperalignment.from_template(np.asarray(model.template), model.options)
        want = hyperalignment.align(model, data[4:])
        got = hyperalignment.align(alone, data[4:])
        jax.tree.map(np.testing.assert_array_equal, got, want)
    assert hyperalignment.from_template(model.template).options == hyperalignment.fit(data).options


def test_a_template_alone_holds_no_subject():
    template = cohort(s=1)[0].astype(np.float32)
    model = hyperalignment.from_template(template)
    np.testing.assert_array_equal(model.template, template)
    assert model.mappings == [] and model.components is None
    assert model.training_residuals.size == model.residuals.size == 0
    with pytest.raises(ValueError, match=r"want a template \[n >= 2, q >= 1\]; got shape \(30,\)"):
        hyperalignment.from_template(template[:, 0])
    with pytest.raises(ValueError, match=r"got shape \(1, 8\)"):
        hyperalignment.from_template(template[:1])
    template[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"finite template; got 1 NaN .* first at \(3, 1\)"):
        hyperalignment.from_template(template)


def test_defaults_have_one_place():
    parameters = inspect.signature(hyperalignment.fit).parameters
    for name, value in hyperalignment.DEFAULTS._asdict().items():
        assert parameters[name].default == value
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_every_type_of_a_public_signature_has_a_public_name():
    data = cohort(s=3).astype(np.float32)
    model = hyperalignment.fit(data, output_dim=2)
    assert isinstance(model.options, hyperalignment.Options)
    assert isinstance(model.components, hyperalignment.Components)
    assert isinstance(model.mappings, hyperalignment.ComposedMapping)
    assert isinstance(model.mappings, procrustes.Mapping)
    assert isinstance(model.mappings.procrustes, hyperalignment.Mappings)
    assert model.options.method in get_args(hyperalignment.Method)
    assert model.mappings.stack == (3,) and model.mappings[0].stack == ()
    assert model.mappings.widths == (8, 2)
    want = model.mappings.procrustes.projection
    np.testing.assert_array_equal(model.mappings.projection, want)


def test_order_of_subjects_does_not_matter_in_level_2(x64):
    """Level 1 with weight 0 maps every subject onto the reference, whatever the order."""
    data, order = cohort(s=5), [3, 1, 4, 0, 2]
    options = {"weight": 0.0, "level2_iters": 2}
    one = hyperalignment.fit(data, reference=0, **options)
    two = hyperalignment.fit(data[order], reference=order.index(0), **options)
    close(two.template, one.template, 1e-12)
    close(two.mappings.rotation, one.mappings.rotation[jnp.asarray(order)], 1e-9)


def test_scales_offsets_and_rotations_of_a_subject_do_not_change_the_template(x64):
    """Neither mean nor scale has an effect, and a rotation only through what it rotates."""
    data = cohort(s=4)
    moved = data.copy()
    moved[2] = 7 * moved[2] - 100
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(8, 8)))[0]
    moved[3] = moved[3] @ rotation
    one, two = hyperalignment.fit(data), hyperalignment.fit(moved)
    close(two.template, one.template, 1e-10)


def test_a_new_subject_joins_a_frozen_template(x64):
    data = cohort(s=5, n=40, noise=0.05)
    model = hyperalignment.fit(data[:4])
    rows = np.arange(0, 40, 2)
    mapping = hyperalignment.align(model, data[4:, rows], rows)
    moved = hyperalignment.transform(mapping, data[4:])[0]  # also rows that it never saw
    correlation = np.corrcoef(moved.ravel(), np.asarray(model.template).ravel())[0, 1]
    assert correlation > 0.95
    whole = hyperalignment.align(model, data[:4])
    close(whole.projection, model.mappings.projection, 1e-12)


def test_unseen_rows_do_not_touch_the_map(x64):
    data = cohort(s=4, n=40)
    model, rows = hyperalignment.fit(data[:3]), np.arange(20)
    one = hyperalignment.align(model, data[3:, rows], rows)
    data[3, 20:] = 1e6
    two = hyperalignment.align(model, data[3:, rows], rows)
    np.testing.assert_array_equal(one.projection, two.projection)


def test_constant_voxels_change_nothing_else(dtype):
    """PyMVPA z-scores their rounding noise and lets it into the common space."""
    data = cohort(s=4, n=30, v=8)
    dead = np.insert(data, [2, 5], np.array([0.1, 1e4])[None, None], axis=2).astype(dtype)
    rtol = 1e-10 if dtype == np.float64 else 1e-3
    live = np.delete(np.arange(10), [2, 6])
    for level2_iters in (0, 2):
        want = hyperalignment.fit(data.astype(dtype), level2_iters=level2_iters).template
        got = np.asarray(hyperalignment.fit(dead, level2_iters=level2_iters).template)
        close(got[:, live], want, rtol)
        np.testing.assert_array_equal(got[:, [2, 6]], 0)


def test_a_voxel_constant_in_one_subject_is_fine(x64):
    data = cohort(s=4, n=30, v=8)
    data[2, :, 3] = 5.0  # not the reference
    close(hyperalignment.fit(data).template, hyperalign(data)[0], 1e-9)


def test_output_dim_keeps_the_largest_components(x64):
    data = cohort(s=4, n=30, v=8)
    full = hyperalignment.fit(data)
    model = hyperalignment.fit(data, output_dim=3)
    reduced = hyperalignment.transform(model.mappings, data)
    assert reduced.shape == (4, 30, 3)
    mean = np.asarray(hyperalignment.transform(full.mappings, data)).mean(0)
    variance = np.linalg.svd(mean - mean.mean(0))[1] ** 2
    kept = (np.asarray(reduced).mean(0) ** 2).sum(0)
    np.testing.assert_allclose(kept, variance[:3], rtol=1e-8)
    assert hyperalignment.fit(data, output_dim=99).components.basis.shape == (8, 8)
    new = hyperalignment.align(model, data[:1])
    close(hyperalignment.transform(new, data[:1])[0], reduced[0], 1e-12)


@pytest.mark.parametrize("options", [{}, {"zscore_all": True}, {"alpha": 0.5}])
def test_inverse_undoes_transform(options, x64):
    data = cohort(s=3, n=30, v=8)
    maps = hyperalignment.fit(data, **options).mappings
    close(hyperalignment.inverse(maps, hyperalignment.transform(maps, data)), data, 1e-9)


@pytest.mark.parametrize("v", [6, 30])
def test_vmap_over_folds_and_jit_equal_a_loop(v):
    folds = np.stack([cohort(s=4, n=12, v=v, seed=i) for i in range(3)]).astype(np.float32)

    def aligned(data):
        model = hyperalignment.fit(data)
        return model.template, hyperalignment.transform(model.mappings, data)

    got = jax.jit(jax.vmap(aligned))(folds)
    for i, fold in enumerate(folds):
        for a, b in zip(got, aligned(fold), strict=True):
            close(a[i], b, 1e-4)


def test_gradient_through_the_fit_is_finite_and_right(x64):
    data = jnp.asarray(cohort(s=3, n=12, v=4))

    def spread(scale):
        changed = data.at[1].set(data[1] * scale[None, :])
        model = hyperalignment.fit(changed, zscore_common=False)
        return (hyperalignment.transform(model.mappings, changed).var(0)).sum()

    jax.test_util.check_grads(spread, (jnp.ones(4),), order=1, modes=["rev"], rtol=1e-4)


@pytest.mark.slow
def test_blocks_do_not_change_the_result(x64, monkeypatch):
    data = cohort(s=5, n=12, v=30)
    want = hyperalignment.fit(data)
    monkeypatch.setattr("emojax._numerics.subjects.BLOCK_BYTES", 2 * data[0].nbytes)
    got = hyperalignment.fit(data)
    close(got.template, want.template, 1e-10)
    aligned = hyperalignment.transform(want.mappings, data)
    close(hyperalignment.transform(got.mappings, data), aligned, 1e-10)


def test_lists_of_equal_width_are_stacks_and_maps_can_be_indexed():
    data = cohort(s=3).astype(np.float32)
    stack, listed = hyperalignment.fit(data), hyperalignment.fit(list(data))
    np.testing.assert_array_equal(stack.template, listed.template)
    assert isinstance(listed.mappings, procrustes.Procrustes)
    assert len(list(listed.mappings)) == 3
    np.testing.assert_array_equal(listed.mappings[1].rotation, stack.mappings.rotation[1])
    unequal = hyperalignment.fit(cohort(widths=[5, 7, 6]))
    assert isinstance(unequal.mappings, list)
    assert [m.rotation.shape for m in unequal.mappings] == [(5, 7), (7, 7), (6, 7)]
    assert unequal.reference == 1


def test_inputs_are_not_changed():
    data = cohort(s=3).astype(np.float32)
    before = data.copy()
    hyperalignment.fit(data, zscore_all=True, alpha=0.5)
    np.testing.assert_array_equal(data, before)


def test_says_what_is_wrong():
    data = cohort(s=3).astype(np.float32)
    with pytest.raises(
        ValueError, match=r"want data \[subjects, rows, voxels\]; got shape \(30, 8\)"
    ):
        hyperalignment.fit(data[0])
    with pytest.raises(ValueError, match=r"as many rows in every subject; got \[30, 29\]"):
        hyperalignment.fit([data[0], data[1, :-1]])
    with pytest.raises(ValueError, match=r"at least 2 rows and 1 voxel; got \[\(1, 8\)\]"):
        hyperalignment.fit(data[:, :1])
    bad = data.copy()
    bad[1, 4, 2] = np.inf
    with pytest.raises(ValueError, match=r"1 NaN or infinite values, first at \(1, 4, 2\)"):
        hyperalignment.fit(bad)
    bad[1] = 3.0
    with pytest.raises(ValueError, match="voxels that vary in every subject"):
        hyperalignment.fit(bad)
    messages = {
        ("reference", 3): r"want reference in \[0, 3\); got 3",
        ("level2_iters", -1): "want level2_iters >= 0; got -1",
        ("alpha", 1.5): r"want alpha in \[0, 1\]; got 1.5",
        ("weight", -0.1): r"want weight in \[0, 1\]; got -0.1",
        ("output_dim", 0): "want output_dim >= 1; got 0",
        ("method", "qr"): "want method in",
    }
    for (name, value), message in messages.items():
        with pytest.raises(ValueError, match=message):
            hyperalignment.fit(data, **{name: value})
    model = hyperalignment.fit(data)
    with pytest.raises(ValueError, match="want data with 30 rows, as the template; got 10"):
        hyperalignment.align(model, data[:, :10])
    with pytest.raises(ValueError, match=r"want rows in \[0, 30\); got 21 to 30"):
        hyperalignment.align(model, data[:, :10], np.arange(21, 31))
    with pytest.raises(ValueError, match=r"as many subjects as maps \(3\); got 2"):
        hyperalignment.transform(model.mappings, data[:2])
