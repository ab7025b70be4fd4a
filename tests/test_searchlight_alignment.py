"""Hyperalignment in spheres against a dense transcription of PyMVPA's sum of maps."""

import numpy as np
import pytest
from reference import hyperalign, procrustes, zscore
from scipy.linalg import expm

from emojax import searchlight

SHAPE, ROWS, SUBJECTS = (4, 4, 3), 30, 3


def a_study(rows=ROWS, share=0.9, seed=0):
    rng = np.random.default_rng(seed)
    mask = rng.random(SHAPE) < share
    shared = rng.normal(size=(rows, mask.sum()))
    data = [
        zscore(
            shared @ np.linalg.qr(rng.normal(size=(mask.sum(),) * 2))[0] * 0.5
            + shared
            + 0.3 * rng.normal(size=shared.shape)
        )
        for _ in range(SUBJECTS)
    ]
    return mask, np.stack(data)


def summed(data, spheres, combine=True, **options):
    """Returns PyMVPA's projections, dense: scale * rotation of every sphere, added up."""
    v = data.shape[2]
    out = np.zeros((len(data), v, v))
    for centre, count, own in zip(spheres.centres, spheres.counts, spheres.indices, strict=True):
        own = own[:count]
        template, _, _ = hyperalign(list(data[:, :, own]), reference=0, **options)
        for i, x in enumerate(data[:, :, own]):
            scaling = options.get("scaling", True)
            _, rotation, factor = procrustes(x, template, scaling)
            if combine:
                out[i][np.ix_(own, own)] += factor * rotation
            else:
                out[i][own, centre] += factor * rotation[:, own.tolist().index(centre)]
    return out


@pytest.mark.parametrize(
    "options",
    [{}, {"combine": False}, {"scaling": False, "zscore_common": False}, {"level2_iters": 2}],
    ids=str,
)
def test_maps_are_the_sum_of_those_of_all_spheres(options, x64):
    mask, data = a_study()
    spheres = searchlight.spheres(mask, np.eye(4), 1.5, least=1)
    assert spheres.counts.min() < spheres.counts.max() < ROWS - 1
    model = searchlight.fit(data, spheres, **options)
    want = summed(data, spheres, **options)
    got = np.stack([model.mappings.matrix(i).toarray() for i in range(SUBJECTS)])
    np.testing.assert_allclose(got, want, atol=1e-9)
    moved = searchlight.transform(model.mappings, data)
    np.testing.assert_allclose(moved, data @ want, atol=1e-9)
    np.testing.assert_allclose(
        searchlight.inverse(model.mappings, moved), moved @ want.swapaxes(1, 2), atol=1e-8
    )


def test_sparse_centres_and_float32():
    mask, data = a_study()
    some = np.zeros(mask.shape, bool)
    some[::2, ::2, ::2] = True
    spheres = searchlight.spheres(mask, np.eye(4), 1.5, centres=some)
    model = searchlight.fit(data.astype(np.float32), spheres)
    assert model.mappings.values.dtype == np.float32 and len(spheres) == (some & mask).sum()
    got = np.stack([model.mappings.matrix(i).toarray() for i in range(SUBJECTS)])
    np.testing.assert_allclose(got, summed(data, spheres), atol=2e-3)


def test_spheres_wider_than_rows_move_fitted_rows_alike(x64):
    mask, data = a_study(rows=12)
    spheres = searchlight.spheres(mask, np.eye(4), 1.5, least=1)
    assert spheres.counts.min() <= 12 < spheres.counts.max()
    model = searchlight.fit(data, spheres)
    want = np.stack([x @ m for x, m in zip(data, summed(data, spheres), strict=True)])
    np.testing.assert_allclose(searchlight.transform(model.mappings, data), want, atol=1e-8)


def test_a_new_subject_comes_nearer_to_the_template(x64):
    """Subjects differ by rotations among neighbours, which spheres can undo."""
    rng, (mask, _) = np.random.default_rng(1), a_study()
    places, shared = np.argwhere(mask), rng.normal(size=(120, mask.sum()))
    near = np.linalg.norm(places[:, None] - places, axis=2) <= 1
    data = []
    for _ in range(SUBJECTS):
        turn = np.triu(rng.normal(size=near.shape)) * near
        data.append(zscore(shared @ expm(turn - turn.T) + 0.1 * rng.normal(size=shared.shape)))
    spheres = searchlight.spheres(mask, np.eye(4), 1.5)
    model = searchlight.fit(data[:2], spheres)
    done = []
    maps = searchlight.align(model, [data[2][:80]], np.arange(80), tick=done.append)
    assert sum(done) == len(spheres)
    (moved,) = searchlight.transform(maps, [data[2][80:]])

    def similarity(x):
        pairs = zip(x.T, model.template[80:].T, strict=True)
        return np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])

    assert similarity(moved) > similarity(data[2][80:]) + 0.1


def test_spheres_without_signal_map_nothing(x64):
    mask, data = a_study()
    spheres = searchlight.spheres(mask, np.eye(4), 1.0, least=1)
    data[1][:, np.unique(spheres.indices[0][: spheres.counts[0]])] = 0
    model = searchlight.fit(data, spheres)
    assert model.without_signal == 1
    assert all(np.isfinite(model.mappings.values[i]).all() for i in range(SUBJECTS))
    alive = spheres.take(np.arange(1, len(spheres)), spheres.indices.shape[1])
    want = summed(data, alive)[0]
    np.testing.assert_allclose(model.mappings.matrix(0).toarray(), want, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:1], "at least 2 subjects"),
        (lambda data: data[:, :, :3], r"as the mask; got \(30, 3\)"),
        (lambda data: [data[0], data[1][:5]], "list of"),
        (lambda data: np.where(data > 2, np.nan, data), "finite"),
    ],
)
def test_says_what_is_wrong(change, message):
    mask, data = a_study()
    spheres = searchlight.spheres(mask, np.eye(4), 1.0)
    with pytest.raises(ValueError, match=message):
        searchlight.fit(change(data), spheres)
    model = searchlight.fit(data, spheres)
    with pytest.raises(ValueError, match="as many subjects"):
        searchlight.transform(model.mappings, data[:1])
    with pytest.raises(ValueError, match="want rows"):
        searchlight.transform(model.mappings, data[:, :, :2])
    with pytest.raises(ValueError, match="want data with 30 rows"):
        searchlight.align(model, data[:, :9])
