"""Piecewise alignment: hyperalignment within each parcel, and fmralign's result in pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from emojax import hyperalignment, piecewise, procrustes
from emojax._numerics.pieces import lay_out, rounded

pytestmark = pytest.mark.usefixtures("quick_compile")

ROWS = 20
SIZES = (1, 11, 12, 21, 23)  # two buckets; the last two have more voxels than rows
LABELS = np.random.default_rng(0).permutation(np.repeat([7, 2, 3, 9, 4], SIZES))
OF_SIZE = dict(zip((7, 2, 3, 9, 4), SIZES, strict=True))


def make(dtype=np.float64, labels=LABELS, rows=ROWS, subjects=3):
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((rows, len(labels)))
    own = rng.standard_normal((subjects, rows, len(labels)))
    scale, offset = rng.uniform(0.5, 2, len(labels)), rng.normal(0, 3, len(labels))
    return ((shared + 0.7 * own) * scale + offset).astype(dtype)


def alone(data, name, **options):
    """Fits one parcel as hyperalignment does."""
    part = data[..., name == LABELS]
    return hyperalignment.fit(part, lowrank=part.shape[2] > part.shape[1], **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"reflection": False}, marks=pytest.mark.slow),
        pytest.param({"zscore_all": True, "scaling": False, "alpha": 0.5}, marks=pytest.mark.slow),
        pytest.param(
            {"solver": "polar", "demean": False, "zscore_common": False, "weight": 0.2},
            marks=pytest.mark.slow,
        ),
    ],
    ids=str,
)
def test_each_parcel_is_aligned_as_if_it_were_alone(x64, options):
    data, new = make(), make()[1] + np.random.default_rng(2).standard_normal((ROWS, len(LABELS)))
    model = piecewise.fit(data, LABELS, **options)
    got = piecewise.transform(model.mappings, data)
    moved = piecewise.transform(model.mappings[1], new)
    back = piecewise.inverse(model.mappings, got)
    options = {"method" if name == "solver" else name: v for name, v in options.items()}
    for place, name in enumerate(model.layout.names):
        own, want = name == LABELS, alone(data, name, **options)
        y = hyperalignment.transform(want.mappings, data[..., own])
        np.testing.assert_allclose(model.template[:, own], want.template, atol=1e-10)
        np.testing.assert_allclose(got[..., own], y, atol=1e-10)
        here = procrustes.transform(want.mappings[1], new[:, own])
        np.testing.assert_allclose(moved[:, own], here, atol=1e-10)
        np.testing.assert_allclose(
            back[..., own], hyperalignment.inverse(want.mappings, y), atol=1e-10
        )
        np.testing.assert_allclose(model.residuals[:, place], want.residuals, atol=1e-10)


def test_uncentred_parcels_are_aligned_as_if_alone_where_the_template_is_centred(x64):
    labels = np.repeat([1, 2, 3], [ROWS - 1, ROWS, ROWS + 3])
    data = make(labels=labels)
    got = piecewise.fit(data, labels, demean=False)
    moved = np.asarray(piecewise.transform(got.mappings, data))
    for name in (1, 2, 3):
        own = labels == name
        want = hyperalignment.fit(data[..., own], demean=False, lowrank=own.sum() > ROWS)
        np.testing.assert_allclose(got.template[:, own], want.template, atol=1e-9)
        y = hyperalignment.transform(want.mappings, data[..., own])
        np.testing.assert_allclose(moved[..., own], y, atol=1e-9)


def test_single_precision_is_that_of_each_parcel_alone():
    data = make(np.float32)
    model = piecewise.fit(data, LABELS)
    got = piecewise.transform(model.mappings, data)
    assert got.dtype == np.float32
    for name in (2, 4):  # fewer and more voxels than rows
        own, want = name == LABELS, alone(data, name)
        y = hyperalignment.transform(want.mappings, data[..., own])
        np.testing.assert_allclose(got[..., own], y, atol=2e-3)


def test_a_new_subject_enters_by_some_of_the_rows(x64):
    data = make()
    model = piecewise.fit(data[:2], LABELS)
    rows = np.arange(3, 18)  # some of the parcels with few voxels now have more than rows
    maps = piecewise.align(model, data[2:, rows], rows)
    got = piecewise.transform(maps, data[2:])[0]
    for name in (3, 9):
        own = name == LABELS
        want = alone(data[:2], name)
        lowrank = OF_SIZE[name] > len(rows)
        frozen = hyperalignment.from_template(want.template, want.options._replace(lowrank=lowrank))
        mapping = hyperalignment.align(frozen, data[2:, rows][..., own], rows)[0]
        y = procrustes.transform(mapping, data[2][:, own])
        np.testing.assert_allclose(got[:, own], y, atol=1e-10)


def scaled_procrustes(x, y, scaling):
    """Computes the orthogonal R and the scale that minimise ||scale x R - y||."""
    u, s, vt = np.linalg.svd(x.T @ y)
    return x @ (u @ vt) * (s.sum() / (x**2).sum() if scaling else 1.0)


def pairwise(scaling):
    source, target, *_ = make()
    labels = np.where(np.isin(LABELS, (7, 2, 3)), LABELS, 7)  # at most as many voxels as rows...
    labels[np.flatnonzero(labels == 7)[ROWS:]] = 0  # ...and some background
    model = piecewise.from_template(target, labels, demean=False, scaling=scaling)
    got = piecewise.transform(piecewise.align(model, source[None])[0], source)
    return source, target, labels, got


@pytest.mark.parametrize("scaling", [True, False])
def test_pairs_are_those_of_fmralign_by_definition(x64, scaling):
    source, target, labels, got = pairwise(scaling)
    for name in np.unique(labels[labels > 0]):
        own = labels == name
        want = scaled_procrustes(source[:, own], target[:, own], scaling)
        np.testing.assert_allclose(got[:, own], want, atol=1e-10)
    np.testing.assert_array_equal(got[:, labels == 0], source[:, labels == 0])


@pytest.mark.parametrize("scaling", [True, False])
def test_pairs_are_those_of_fmralign(x64, scaling):
    methods = pytest.importorskip("fmralign.methods")
    pieces = pytest.importorskip("fmralign.methods.piecewise")
    source, target, labels, got = pairwise(scaling)
    inside = labels > 0
    peer = pieces.PiecewiseAlignment(methods.Procrustes(scaling), labels[inside])
    want = peer.fit(source[:, inside], target[:, inside]).transform(source[:, inside])
    np.testing.assert_allclose(got[:, inside], want, atol=1e-5)


@pytest.mark.slow
def test_ridge_is_that_of_scikit_learn(x64):
    data, new = make(), make(rows=5)[0]
    model = piecewise.fit(data, LABELS, method="ridge", penalty=0.3)
    got = piecewise.transform(model.mappings[1], new)
    template = np.asarray(model.template)
    for place, name in enumerate(model.layout.names):
        own = name == LABELS
        x = data[1][:, own]
        peer = Ridge(alpha=0.3 * x.var(0).sum()).fit(x, template[:, own])
        np.testing.assert_allclose(got[:, own], peer.predict(new[:, own]).reshape(5, -1), atol=1e-8)
        left = np.linalg.norm(peer.predict(x).reshape(x.shape) - template[:, own])
        np.testing.assert_allclose(model.residuals[1, place], left, rtol=1e-8)
    np.testing.assert_allclose(template, piecewise.fit(data, LABELS).template, atol=1e-10)
    again = piecewise.align(model, data[1:2])
    np.testing.assert_allclose(piecewise.transform(again[0], new), got, atol=1e-8)
    with pytest.raises(ValueError, match="ridge maps have no inverse"):
        piecewise.inverse(model.mappings, data)


def test_identity_moves_nothing():
    data = make(np.float32)
    model = piecewise.fit(data, LABELS, method="identity")
    np.testing.assert_allclose(model.template, data.mean(0), rtol=1e-5)
    for maps in (model.mappings, piecewise.align(model, data)):
        np.testing.assert_array_equal(piecewise.transform(maps, data), data)
        np.testing.assert_array_equal(piecewise.inverse(maps, data), data)


def test_background_and_parcels_without_signal_stay_as_they_are(dtype):
    labels = LABELS.copy()
    labels[:5], labels[5:8] = 0, -3
    data = make(dtype)
    data[1][:, labels == 2] = 100.0  # no signal in one subject
    data[2][:, np.flatnonzero(labels == 3)[:2]] = 0.0  # two voxels without
    model = piecewise.fit(list(data), labels)
    got = np.asarray(piecewise.transform(model.mappings, data))
    still = (labels <= 0) | (labels == 2)
    np.testing.assert_array_equal(got[..., still], data[..., still])
    assert np.isfinite(got).all() and (got != data)[..., ~still].mean() > 0.9
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model.mappings))
    counts = model.counts
    assert counts["background"] == 8 and counts["without signal"] == (labels == 2).sum()
    assert counts["parcels"] == 5 and counts["parcels of one voxel"] == (labels == 7).sum()
    new = data[:1].copy()
    new[..., labels == 4] = 1.0
    maps = piecewise.align(model, new)
    moved = np.asarray(piecewise.transform(maps, new))
    still |= labels == 4
    np.testing.assert_array_equal(moved[..., still], new[..., still])
    back = np.asarray(piecewise.inverse(maps, moved))
    assert np.isfinite(back).all()


def test_only_negative_labels_are_background_on_request():
    labels = np.where(LABELS == 2, 0, LABELS)
    data = make(np.float32)
    got = piecewise.fit(data, labels, background=None, method="identity")
    assert got.counts["background"] == 0 and got.counts["parcels"] == len(SIZES)


@pytest.mark.slow
def test_fits_inside_jit_and_vmap(x64):
    data = make()

    def moved(x):
        return piecewise.transform(piecewise.fit(x, LABELS).mappings, x)

    want = moved(data)
    maps = piecewise.fit(data, LABELS).mappings
    np.testing.assert_allclose(procrustes.transform(maps[0], data[0]), want[0], atol=1e-10)
    back = hyperalignment.inverse(maps, want)
    np.testing.assert_allclose(back, piecewise.inverse(maps, want), atol=1e-10)
    np.testing.assert_allclose(jax.jit(moved)(data), want, atol=1e-10)
    both = jax.vmap(moved)(jnp.stack([data, data[:, ::-1]]))
    np.testing.assert_allclose(both[0], want, atol=1e-10)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(-2, 6), min_size=1, max_size=60).filter(lambda x: max(x) > 0),
    st.integers(2, 12),
)
def test_a_layout_has_every_voxel_of_a_parcel_once(labels, num_rows):
    labels = np.array(labels)
    layout = lay_out(labels, num_rows, 0)
    found = np.concatenate([own.ravel() for own in layout.buckets])
    found = found[found < len(labels)]
    np.testing.assert_array_equal(np.sort(found), np.flatnonzero(labels > 0))
    for own, part in zip(layout.buckets, layout.slices, strict=True):
        for row, name in zip(own, layout.names[part], strict=True):
            real = row[row < len(labels)]
            np.testing.assert_array_equal(real, np.flatnonzero(labels == name))
            assert (len(real) <= num_rows) == (own.shape[1] <= num_rows)
    np.testing.assert_array_equal(layout.spread(layout.names), np.where(labels > 0, labels, 0))


@given(st.integers(1, 10**6))
def test_rounding_adds_at_most_a_quarter(size):
    assert size <= rounded(size) <= max(1.25 * size, 32)
    assert rounded(rounded(size)) == rounded(size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": LABELS[:-1]}, "a label for each of 68 voxels; got"),
        ({"labels": LABELS * 1.0}, "integer labels"),
        ({"labels": LABELS * 0}, "all 68 are background"),
        ({"method": "srm"}, "want method in .*'ridge'"),
        ({"method": "ridge", "penalty": 0.0}, "penalty > 0; got 0"),
        ({"alpha": 0.0}, r"alpha in \(0, 1\]"),
        ({"level2_iters": -1}, "level2_iters >= 0"),
        ({"solver": "qr"}, "want method in"),
        ({"data": make()[0]}, r"data \[subjects, rows, voxels\]"),
        ({"data": make()[:, :1]}, "at least 2 rows"),
        ({"data": np.where(make() > 8, np.nan, make())}, r"finite data\[0\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_says_what_is_wrong(change, message):
    asked = {"data": make(), "labels": LABELS} | change
    with pytest.raises(ValueError, match=message):
        piecewise.fit(asked.pop("data"), asked.pop("labels"), **asked)


def test_says_which_rows_or_voxels_do_not_fit():
    model = piecewise.from_template(make()[0], LABELS)
    with pytest.raises(ValueError, match="want 68 voxels, as the template; got 67"):
        piecewise.align(model, make()[..., :-1])
    with pytest.raises(ValueError, match="want data with 20 rows"):
        piecewise.align(model, make()[:, :5])
