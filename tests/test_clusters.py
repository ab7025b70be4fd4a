"""TFCE, cluster sizes and the largest statistic, against brute force and on simulated noise."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from emojax import clusters

SHAPE = (6, 5, 4)


def a_map(seed=0, share=0.8):
    rng = np.random.default_rng(seed)
    mask = rng.random(SHAPE) < share
    return mask, rng.normal(size=mask.sum())


def flooded(values, mask, threshold):
    """Returns sizes of face-connected clusters at a threshold, by flooding from every voxel."""
    volume = np.full(mask.shape, -np.inf)
    volume[mask] = values
    out = np.zeros(mask.shape)
    for start in np.argwhere(volume >= threshold):
        inside, ahead = {tuple(start)}, [tuple(start)]
        while ahead:
            place = ahead.pop()
            for axis in range(3):
                for step in (-1, 1):
                    near = list(place)
                    near[axis] += step
                    near = tuple(near)
                    within = 0 <= near[axis] < mask.shape[axis] and near not in inside
                    if within and volume[near] >= threshold:
                        inside.add(near)
                        ahead.append(near)
        out[tuple(start)] = len(inside)
    return out[mask]


def test_cluster_sizes_equal_flooding():
    mask, values = a_map()
    np.testing.assert_array_equal(
        clusters.cluster_sizes(values, mask, 0.3), flooded(values, mask, 0.3)
    )


def test_tfce_equals_its_sum():
    mask, values = a_map(1)
    want = np.zeros(len(values))
    for h in 0.1 * np.arange(1, 100):
        want += flooded(values, mask, h) ** 0.5 * h**2 * 0.1
    np.testing.assert_allclose(clusters.tfce(values, mask, 0.1), want, rtol=1e-10)
    assert (clusters.tfce(-np.abs(values), mask, 0.1) == 0).all()


def test_a_wider_neighbourhood_joins_corners():
    mask = np.ones((2, 2, 2), bool)
    values = np.zeros(8)
    values[[0, 7]] = 1  # opposite corners
    assert clusters.cluster_sizes(values, mask, 0.5).max() == 1
    assert clusters.cluster_sizes(values, mask, 0.5, connectivity=3).max() == 2


@pytest.mark.parametrize("correction", ["tfce", "cluster", "max"])
def test_p_counts_the_largest_of_each_map(correction):
    mask, observed = a_map(2)
    null = np.random.default_rng(3).normal(size=(19, len(observed)))
    found = clusters.correct(observed, null, mask, correction=correction, threshold=0.5)

    def statistic(values):
        if correction == "tfce":
            highest = [observed.max(), *null.max(1)]
            return clusters.tfce(values, mask, np.median(highest) / clusters.STEPS)
        return values if correction == "max" else flooded(values, mask, 0.5)

    most = np.array([statistic(values).max() for values in null])
    own = statistic(observed)
    want = (1 + (most[:, None] >= own - 1e-9).sum(0)) / 20
    np.testing.assert_allclose(found.statistic, own, rtol=1e-6)
    np.testing.assert_allclose(found.p, want)
    np.testing.assert_allclose(found.p_voxel, (1 + (null >= observed).sum(0)) / 20)


def test_voxels_without_a_value_take_no_part():
    mask, observed = a_map(4)
    null = np.random.default_rng(5).normal(size=(9, len(observed)))
    gaps = observed.copy()
    gaps[::7] = np.nan
    found = clusters.correct(gaps, null, mask, correction="max")
    smaller = mask.copy()
    smaller[mask] = np.isfinite(gaps)
    want = clusters.correct(
        observed[np.isfinite(gaps)], null[:, np.isfinite(gaps)], smaller, correction="max"
    )
    np.testing.assert_array_equal(found.p[np.isfinite(gaps)], want.p)
    assert np.isnan(found.p[::7]).all()


def test_all_flips_are_taken_where_they_are_few():
    values = np.random.default_rng(6).normal(size=(4, 10))
    t, null = clusters.sign_flips(values, 100, 0)
    want = values.mean(0) / (values.std(0, ddof=1) / 2)
    np.testing.assert_allclose(t, want, rtol=1e-10)
    assert null.shape == (15, 10)  # without the observed one
    assert (np.abs(null + t).max(1) < 1e-9).sum() == 1  # all signs at once
    assert (clusters.sign_flips(np.zeros((3, 2)), 10, 0)[0] == 0).all()


def test_an_effect_that_all_show_alike_is_the_largest():
    values = np.random.default_rng(6).normal(size=(8, 30)) * 0.1
    values[:, 0] = 0.25  # without an error of its own
    t, null = clusters.sign_flips(values, 999, 0)
    assert t.argmax() == 0 and np.isfinite(t).all()
    found = clusters.correct(t, null, np.ones((30, 1, 1), bool), correction="max")
    assert found.p[0] == 1 / 256
    with pytest.raises(ValueError, match="finite"):
        clusters.sign_flips(values * np.nan, 9, 0)


@pytest.mark.parametrize("largest", [-0.1, 0.0, 1e-12])
def test_a_map_without_an_effect_ends_at_once(largest):
    mask, observed = a_map(2)
    null = np.random.default_rng(3).normal(size=(9, len(observed)))
    found = clusters.correct(observed - observed.max() + largest, null, mask)
    assert (found.p == 1).all() and not found.statistic.any()
    assert (clusters.correct(-np.ones(len(observed)), -np.ones_like(null), mask).p == 1).all()


def test_values_equal_but_for_rounding_are_ties():
    mask, observed = a_map(2)
    null = np.tile(observed * (1 - 1e-8), (9, 1))
    found = clusters.correct(observed, null, mask, correction="max")
    assert (found.p == 1).all() and (found.p_voxel == 1).all()


def test_many_flips_are_drawn():
    values = np.random.default_rng(7).normal(size=(12, 5)).astype(np.float32)
    assert clusters.sign_flips(values, 50, 0)[1].shape == (50, 5)
    np.testing.assert_array_equal(*(clusters.sign_flips(values, 50, 1)[1] for _ in range(2)))


@pytest.mark.slow
@pytest.mark.parametrize("correction", ["tfce", "cluster", "max"])
def test_one_map_of_twenty_has_a_false_voxel(correction):
    rng, mask, hits, maps = np.random.default_rng(8), np.ones((7, 7, 7), bool), 0, 200
    for _ in range(maps):
        noise = gaussian_filter(rng.normal(size=(10, *mask.shape)), (0, 1, 1, 1))[:, mask]
        t, null = clusters.sign_flips(noise, 39, int(rng.integers(2**31)))
        hits += clusters.correct(t, null, mask, correction=correction).p.min() <= 0.05
    assert 0.01 < hits / maps < 0.1  # binomial: 0.05 (sd 0.015)


def test_an_effect_is_found_where_it_is():
    rng, mask = np.random.default_rng(9), np.ones((9, 9, 9), bool)
    noise = gaussian_filter(rng.normal(size=(12, *mask.shape)), (0, 1, 1, 1))
    noise[:, 2:5, 2:5, 2:5] += 0.4
    t, null = clusters.sign_flips(noise[:, mask], 199, 0)
    affine = np.diag([-3.0, 3, 3, 1])  # the first axis runs to the left
    affine[:3, 3] = 12, -12, -12
    found = clusters.correct(t, null, mask)
    (first, *_) = clusters.table(t, found.p, mask, affine)
    assert first.side == "R" and 0 < first.peak[0] <= 6 and first.p <= 0.05
    (array, *_) = clusters.table(t, found.p, mask, None)
    assert array.side == "" and array.voxels == first.voxels
    assert all(2 <= i <= 4 for i in array.peak)
    assert clusters.table(t, np.ones_like(t), mask, affine) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"null": np.zeros((3, 2))}, r"got \(\d+,\), \(3, 2\)"),
        ({"correction": "fdr"}, "got 3, 'fdr'"),
        ({"observed": "nan"}, "finite"),
    ],
)
def test_says_what_is_wrong(change, message):
    mask, observed = a_map()
    kind = {"observed": observed, "null": np.zeros((3, len(observed)))} | change
    if isinstance(kind["observed"], str):
        kind["observed"] = np.full(len(observed), np.nan)
    with pytest.raises(ValueError, match=message):
        clusters.correct(kind.pop("observed"), kind.pop("null"), mask, **kind)
    with pytest.raises(ValueError, match="got 1, 5"):
        clusters.sign_flips(np.zeros((1, 4)), 5, 0)
