"""Brain masks against nilearn on real scans; round trips, voxel counts, transforms, messages."""

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
from jax.test_util import check_grads
from nilearn.masking import compute_epi_mask

from emojax import masking

RUN_25MM = "data/pymvpa-haxby/haxby2001/sub001/BOLD/task001_run{:03d}/bold_25mm.nii.gz"
FSL = "data/bids-fsl-audiovisual/sub-01/func/sub-01_task-audiovisual_bold.nii.gz"
SCANS = [
    *((FSL, opening) for opening in (0, 1, 2)),
    *(("data/pymvpa-haxby/example4d.nii.gz", opening) for opening in (0, 1, 2)),
    *((RUN_25MM.format(run), 1) for run in range(1, 13)),
    ("data/pymvpa-haxby/bold.nii.gz", 0),
]


def head(seed=0):
    """Returns a bright ball, a smaller one behind a bridge one voxel wide, and noisy air."""
    rng = np.random.default_rng(seed)
    x, y, z = np.indices((24, 20, 18))
    volume = rng.uniform(10, 40, x.shape)
    volume[(x - 8) ** 2 + (y - 10) ** 2 + (z - 9) ** 2 <= 49] += 900
    volume[(x - 20) ** 2 + (y - 10) ** 2 + (z - 9) ** 2 <= 4] += 900
    volume[16:18, 10, 9] += 900
    return volume


def some_mask():
    """Returns voxels without symmetry, so that Fortran order would be noticed."""
    return np.random.default_rng(1).random((3, 4, 5)) < 0.4


@pytest.mark.parametrize("path, opening", SCANS)
def test_equals_nilearn_on_real_scans(shared, path, opening):
    image = nibabel.load(shared(path))
    want = compute_epi_mask(image, opening=opening).get_fdata() > 0
    got = masking.brain_mask(image.get_fdata().mean(-1), opening=opening)
    dice = 2 * (got & want).sum() / (got.sum() + want.sum())
    assert 0.05 < got.mean() < 0.95  # a mask, not everything or nothing
    assert dice >= 0.99


@pytest.mark.parametrize("opening", [0, 1, 2])
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("quantiles", [(0.2, 0.85), (0.0, 1.0), (0.5, 0.97)])
def test_equals_nilearn_with_other_settings(opening, largest, quantiles):
    volume = head()
    volume[0, :, :3] = np.nan
    lower, upper = quantiles
    want = compute_epi_mask(
        nibabel.Nifti1Image(volume, np.eye(4)),
        opening=opening,
        connected=largest,
        lower_cutoff=lower,
        upper_cutoff=upper,
    )
    got = masking.brain_mask(volume, opening=opening, largest=largest, lower=lower, upper=upper)
    np.testing.assert_array_equal(got, want.get_fdata() > 0)


@pytest.mark.parametrize("opening", [0, 1, 2])
def test_brain_mask_ignores_units_and_dtype(opening):
    volume = np.round(head())
    want = masking.brain_mask(volume, opening=opening)
    for scaled in (0.25 * volume, 3 * volume, 1e4 * volume, volume.astype(np.int16)):
        np.testing.assert_array_equal(masking.brain_mask(scaled, opening=opening), want)
    in_jax = masking.brain_mask(jnp.asarray(volume, jnp.float32), opening=opening)
    np.testing.assert_array_equal(in_jax, want)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_count_as_zero(bad):
    volume = head()
    volume[:, :2] = 0
    spoilt = volume.copy()
    spoilt[::2, 0] = bad
    np.testing.assert_array_equal(masking.brain_mask(spoilt), masking.brain_mask(volume))


def test_keeps_the_largest_component_only():
    volume = np.zeros((12, 8, 8))
    volume[1:5, 1:6, 1:6] = 100
    volume[8:10, 2:5, 2:5] = 200  # brighter, but smaller
    settings = {"opening": 0, "lower": 0.5, "upper": 1.0}
    everything = masking.brain_mask(volume, largest=False, **settings)
    np.testing.assert_array_equal(everything, volume > 0)
    np.testing.assert_array_equal(masking.brain_mask(volume, **settings), volume == 100)


def test_opening_cuts_thin_bridges():
    assert masking.brain_mask(head(), opening=0)[20, 10, 9]
    opened = masking.brain_mask(head(), opening=1)
    assert opened[8, 10, 9] and not opened[20, 10, 9]


def planted_volumes():
    """Returns [6, 3, 4, 5] noise: 2 voxels not finite (1 of them constant), 2 zero, 1 constant."""
    volumes = np.random.default_rng(2).normal(100, 5, (6, 3, 4, 5))
    volumes[:, 0, 0, 0] = 0
    volumes[:, 0, 1, 2] = 0
    volumes[:, 1, 1, 1] = 7.5
    volumes[3, 2, 2, 2] = np.nan
    volumes[:, 2, 3, 4] = 4
    volumes[0, 2, 3, 4] = np.inf  # otherwise constant: not counted again
    return volumes


def test_usable_voxels_counts_each_voxel_once():
    kept, counts = masking.usable_voxels(planted_volumes())
    assert counts == masking.VoxelCounts(not_finite=2, zero=2, constant=1, kept=55)
    want = np.ones((3, 4, 5), bool)
    for voxel in [(0, 0, 0), (0, 1, 2), (1, 1, 1), (2, 2, 2), (2, 3, 4)]:
        want[voxel] = False
    np.testing.assert_array_equal(kept, want)
    text = "55 voxels kept; left out: 2 NaN or infinite, 2 zero, 1 constant"
    assert str(counts) == text


def test_usable_voxels_counts_inside_the_mask():
    mask = np.zeros((3, 4, 5), bool)
    mask[0] = True
    kept, counts = masking.usable_voxels(planted_volumes(), mask)
    assert counts == (0, 2, 0, 18)
    assert not (kept & ~mask).any()


def test_usable_voxels_reads_memory_maps_jax_arrays_and_integers(tmp_path):
    volumes = np.round(planted_volumes())
    want = masking.usable_voxels(volumes)
    np.save(tmp_path / "volumes.npy", volumes.astype(np.float32))
    mapped = np.load(tmp_path / "volumes.npy", mmap_mode="r")
    for same in (mapped, jnp.asarray(volumes)):
        kept, counts = masking.usable_voxels(same)
        np.testing.assert_array_equal(kept, want[0])
        assert counts == want[1]
    assert masking.usable_voxels(np.nan_to_num(volumes, posinf=9).astype(np.int16))[1].zero == 2


def test_intersect_keeps_the_share_asked_for():
    hits = np.array([0, 1, 2, 3]).reshape(4, 1, 1)
    masks = [hits > i for i in range(3)]  # voxel v lies in v of the 3 masks
    for threshold, least in [(1.0, 3), (2 / 3, 2), (0.5, 2), (1 / 3, 1), (1e-6, 1)]:
        got = masking.intersect(masks, threshold)
        np.testing.assert_array_equal(got, hits >= least, err_msg=f"threshold {threshold}")
    ten = [np.ones((2, 2, 2), bool)] * 10  # a mean of ten ones may round
    assert masking.intersect(ten).all()
    assert masking.intersect([jnp.asarray(m) for m in ten]).all()


def test_apply_mask_is_boolean_indexing_in_c_order():
    mask = some_mask()
    volumes = np.arange(2 * 60).reshape(2, 3, 4, 5).astype(np.float32)
    np.testing.assert_array_equal(masking.apply_mask(volumes, mask), volumes[:, mask])
    fortran = np.asfortranarray(volumes), np.asfortranarray(mask)
    np.testing.assert_array_equal(masking.apply_mask(*fortran), volumes[:, mask])


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_unmask_undoes_apply_mask(batch):
    mask = some_mask()
    volumes = np.random.default_rng(3).normal(size=(*batch, *mask.shape)).astype(np.float32)
    features = masking.apply_mask(volumes, mask)
    assert features.shape == (*batch, mask.sum())
    back = masking.unmask(features, mask, fill=-1.0)
    np.testing.assert_array_equal(back, np.where(mask, volumes, -1))
    np.testing.assert_array_equal(masking.apply_mask(back, mask), features)
    np.testing.assert_array_equal(masking.unmask(features, mask)[..., ~mask], 0)


@pytest.mark.parametrize("kind", ["int16", "uint8", "int32", "float16", "bfloat16", "float32"])
def test_apply_mask_keeps_the_dtype(kind):
    mask = some_mask()
    volume = jnp.arange(60).reshape(3, 4, 5).astype(kind)
    got = masking.apply_mask(volume, mask)
    assert got.dtype == kind
    np.testing.assert_array_equal(got, volume[mask])


def test_unmask_makes_integers_float():
    mask = some_mask()
    back = masking.unmask(np.arange(mask.sum()), mask, fill=np.nan)
    assert back.dtype == jnp.float32
    np.testing.assert_array_equal(np.isnan(back), ~mask)


def test_jit_and_vmap_equal_eager():
    mask = some_mask()
    volumes = np.random.default_rng(4).normal(size=(6, *mask.shape)).astype(np.float32)

    def there(x):
        return masking.apply_mask(x, mask)

    def back(x):
        return masking.unmask(x, mask)

    want = there(volumes)
    np.testing.assert_array_equal(jax.jit(there)(volumes), want)
    np.testing.assert_array_equal(jax.vmap(there)(volumes), want)
    np.testing.assert_array_equal(jax.jit(jax.vmap(back))(want), back(want))


def test_gradients(x64):
    mask = some_mask()
    volume = np.random.default_rng(5).normal(size=mask.shape)
    check_grads(lambda x: masking.apply_mask(x, mask) ** 2, (volume,), order=1)
    grad = jax.grad(lambda x: (masking.apply_mask(x, mask) ** 2).sum())(volume)
    np.testing.assert_allclose(grad, np.where(mask, 2 * volume, 0))
    check_grads(lambda x: masking.unmask(x, mask) ** 2, (volume[mask],), order=1)


@pytest.mark.parametrize("function", [masking.apply_mask, masking.unmask])
def test_a_traced_mask_is_refused(function):
    mask = some_mask()
    data = np.ones(mask.shape if function is masking.apply_mask else mask.sum(), np.float32)
    with pytest.raises(ValueError, match="mask whose values are known; got a traced one: close"):
        jax.jit(function)(data, mask)


def test_brain_mask_says_what_is_wrong():
    volume = head()
    for bad in (volume[0], volume[None]):
        with pytest.raises(ValueError, match=r"want a mean volume \[x, y, z\]; got shape \("):
            masking.brain_mask(bad)
    for lower, upper in [(0.9, 0.2), (0.5, 0.5), (-0.1, 0.5), (0.5, 1.1)]:
        with pytest.raises(ValueError, match=f"lower < upper <= 1; got {lower}, {upper}"):
            masking.brain_mask(volume, lower=lower, upper=upper)
    for opening in (-1, 2**31, 10**20):
        with pytest.raises(ValueError, match=rf"want opening >= 0, at most \d+; got {opening}"):
            masking.brain_mask(volume, opening=opening)
    with pytest.raises(ValueError, match="dark and bright voxels; got none darker than 5 within"):
        masking.brain_mask(np.full((8, 8, 8), 5.0))
    with pytest.raises(ValueError, match=r"quantiles apart by .* 8640 voxels; got 0.2, 0.20001"):
        masking.brain_mask(volume, upper=0.20001)


def test_an_opening_that_empties_a_single_slice_says_so():
    with pytest.raises(
        ValueError, match=r"opening=2 leaves none of \d+ .* \(24, 20, 1\); want a s"
    ):
        masking.brain_mask(head()[:, :, 9:10])
    assert masking.brain_mask(head()[:, :, 9:10], opening=0).any()


def test_usable_voxels_says_what_is_wrong():
    volumes = planted_volumes()
    for bad in (volumes[0], volumes[:0]):
        with pytest.raises(ValueError, match=r"want volumes \[t >= 1, x, y, z\]; got shape \("):
            masking.usable_voxels(bad)
    with pytest.raises(ValueError, match=r"want a mask of shape \(3, 4, 5\); got \(3, 4, 4\)"):
        masking.usable_voxels(volumes, some_mask()[..., :4])
    with pytest.raises(ValueError, match=r"want a bool mask \[x, y, z\]; got int64 of shape"):
        masking.usable_voxels(volumes, some_mask().astype(np.int64))
    with pytest.raises(
        ValueError, match=r"vary over volumes; got 0 voxels kept.* 2 zero, 58 const"
    ):
        masking.usable_voxels(np.stack([volumes[1]] * 2))


def test_intersect_says_what_is_wrong():
    mask = some_mask()
    with pytest.raises(ValueError, match=r"masks of one shape; got \[\(3, 4, 4\), \(3, 4, 5\)\]"):
        masking.intersect([mask, mask[..., :4]])
    with pytest.raises(ValueError, match=r"masks of one shape; got \[\]"):
        masking.intersect([])
    for threshold in (0, 1.5):
        with pytest.raises(ValueError, match=rf"threshold in \(0, 1\]; got {threshold}"):
            masking.intersect([mask], threshold)
    with pytest.raises(ValueError, match="no voxel lies in 100% of the 2 masks"):
        masking.intersect([mask, ~mask])
    with pytest.raises(ValueError, match="want a bool mask"):
        masking.intersect([mask * 1.0])


def test_apply_mask_and_unmask_say_what_is_wrong():
    mask = some_mask()
    with pytest.raises(ValueError, match=r"volumes \[..., 3, 4, 5\]; got shape \(3, 5, 4\)"):
        masking.apply_mask(np.ones((3, 5, 4)), mask)
    with pytest.raises(ValueError, match=r"volumes \[..., 3, 4, 5\]; got shape \(4, 5\)"):
        masking.apply_mask(np.ones((4, 5)), mask)
    with pytest.raises(ValueError, match=rf"features \[..., {mask.sum()}\]; got shape \(2, 3\)"):
        masking.unmask(np.ones((2, 3)), mask)
    with pytest.raises(ValueError, match=r"got shape \(\)"):
        masking.unmask(jnp.float32(1), mask)
    with pytest.raises(ValueError, match="at least one voxel; got an empty one"):
        masking.apply_mask(np.ones((3, 4, 5)), np.zeros((3, 4, 5), bool))
    with pytest.raises(
        ValueError, match=r"bool mask \[x, y, z\]; got float64 of shape \(3, 4, 5\)"
    ):
        masking.unmask(np.ones(3), np.ones((3, 4, 5)))
