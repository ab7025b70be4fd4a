"""Rigid motion: known motions recovered, invisible ones held, resampling against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage
from scipy.spatial.transform import Rotation

from benchmarks import motion
from emojax.online import rigid, splines

SIZES = (3.0, 3.0, 3.0)
SHAPE = (40, 44, 28)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", (12, -8, 20), degrees=True).as_matrix() @ np.diag(
    (-3.0, 3.2, 4.5)
)
OBLIQUE[:3, 3] = 40, -60, 20


def made(affine=None, shape=SHAPE, noise=0.0, seed=0):
    """Returns an image like a brain, its mask, its affine, and the model of it."""
    affine = np.diag((*SIZES, 1.0)) if affine is None else affine
    image, mask = motion.phantom(shape, np.linalg.norm(affine[:3, :3], axis=0), half=(48, 52, 34))
    noisy = image + np.random.default_rng(seed).normal(0, noise, shape)
    return image, mask, affine, rigid.init(noisy, mask, affine)


def close(pose, shift, turn, mm, degrees):
    off, turned = motion.errors(pose, shift, turn)
    assert off < mm and turned < degrees, (off, turned)


@pytest.fixture(scope="module")
def plain():
    return made()


CASES = [
    ((0, 0, 0), (0, 0, 0)),
    ((1.5, -0.7, 0.9), (0, 0, 0)),
    ((0, 0, 0), (1.5, -1, 0.8)),
    ((-0.4, 1.6, -1.1), (-0.9, 1.2, 1.6)),
]


@pytest.mark.parametrize(("shift", "degrees"), CASES)
def test_finds_a_known_motion_in_noise(plain, shift, degrees):
    image, mask, affine, model = plain
    turn = np.deg2rad(degrees)
    moved = motion.move(image, affine, shift, turn)
    moved += np.random.default_rng(1).normal(0, 0.02 * image[mask].mean(), image.shape)
    close(rigid.estimate(model, moved.astype(np.float32)), shift, turn, 0.06, 0.06)


@pytest.mark.parametrize(("shift", "degrees"), CASES[1:])
def test_oblique_and_anisotropic_voxels(shift, degrees):
    image, _, affine, model = made(OBLIQUE)
    turn = np.deg2rad(degrees)
    close(rigid.estimate(model, motion.move(image, affine, shift, turn)), shift, turn, 0.06, 0.06)


def test_coarse_voxels_with_steep_edges():
    image, mask = motion.phantom((32, 32, 22), (6.0, 6.0, 6.0))
    model = rigid.init(image, mask, (6.0, 6.0, 6.0))
    for axis in range(3):
        shift = 0.5 * np.eye(3)[axis]
        moved = 1.05 * ndimage.shift(image, shift, order=3, mode="nearest")
        found = rigid.estimate(model, moved)
        np.testing.assert_allclose(found.shift, 6 * shift, atol=0.2)  # a thirtieth of a voxel
        np.testing.assert_allclose(np.rad2deg(found.turn), 0, atol=0.15)


def test_the_reference_has_not_moved(plain):
    image, _, _, model = plain
    found = rigid.estimate(model, image)
    np.testing.assert_allclose(found.shift, 0, atol=1e-4)
    np.testing.assert_allclose(found.turn, 0, atol=1e-5)
    np.testing.assert_allclose(found.gain, 1, atol=1e-4)


@pytest.mark.parametrize("gain", [0.5, 0.9, 1.05, 40.0])
def test_gain_and_offset_move_nothing(plain, gain):
    image, _, affine, model = plain
    moved = motion.move(image, affine, (0.6, -0.3, 0.4), np.deg2rad((0.5, 0, -0.7)))
    want, got = rigid.estimate(model, moved), rigid.estimate(model, gain * moved + 300)
    assert rigid.displacement(got, want) < 0.01
    np.testing.assert_allclose(got.gain, gain * want.gain, rtol=1e-3)


def test_a_sloping_gain_is_no_motion(plain):
    image, _, _, model = plain
    x = np.linspace(-1, 1, image.shape[0])[:, None, None]
    assert rigid.displacement(rigid.estimate(model, image * (1 + 0.05 * x))) < 0.01


def test_warm_start_finds_the_same(plain):
    image, _, affine, model = plain
    moved = motion.move(image, affine, (1.0, 0.8, -0.9), np.deg2rad((1, -1.5, 0.5)))
    cold = rigid.estimate(model, moved)
    assert rigid.displacement(rigid.estimate(model, moved, cold), cold) < 0.004
    assert rigid.displacement(rigid.estimate(model, moved, cold, most=1), cold) < 0.004
    assert rigid.displacement(rigid.estimate(model, moved, most=1), cold) > 0.1


@pytest.mark.parametrize("affine", [np.diag((3.0, 3.0, 3.5, 1)), OBLIQUE], ids=["plain", "tilted"])
def test_one_slice_moves_within_itself_only(affine):
    image, mask = motion.phantom((40, 36, 9), (3.0, 3.2, 4.5), half=(48, 50, 30))
    image, mask = image[..., 4:5], mask[..., 4:5]
    model = rigid.init(image, mask, affine)
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    normal /= np.linalg.norm(normal)
    shift = 0.8 * affine[:3, 0] / 3 - 0.3 * affine[:3, 1] / 3
    turn = np.deg2rad(1.2) * normal
    found = rigid.estimate(model, motion.move(image, affine, shift, turn))
    close(found, shift, turn, 0.08, 0.15)
    np.testing.assert_allclose(normal @ np.asarray(found.shift), 0, atol=1e-4)
    across = np.asarray(found.turn) - (normal @ np.asarray(found.turn)) * normal
    np.testing.assert_allclose(across, 0, atol=1e-5)


@pytest.mark.parametrize("kind", ["zero", "constant", "noise", "negative", "half"])
def test_a_broken_volume_has_a_finite_pose(plain, kind):
    image, _, _, model = plain
    rng = np.random.default_rng(0)
    volume = {
        "zero": np.zeros(SHAPE),
        "constant": np.full(SHAPE, 7.0),
        "noise": rng.normal(0, 100, SHAPE),
        "negative": -image,
        "half": np.where(np.arange(SHAPE[2]) < 14, image, np.nan),
    }[kind]
    found = rigid.estimate(model, volume, rigid.Pose.still())
    assert all(np.isfinite(part).all() for part in found)
    far = rigid.Pose(jnp.full(3, 1e4), jnp.zeros(3), jnp.ones(()))
    assert all(np.isfinite(part).all() for part in rigid.estimate(model, image, far))


def test_what_left_the_field_of_view_is_not_compared():
    image, mask, affine, _ = made()
    cut = slice(9, 21)  # a slab: brain above and below
    model = rigid.init(image[..., cut], mask[..., cut], affine)
    moved = motion.move(image, affine, (0.3, -0.4, 2.0), np.zeros(3))[..., cut]
    close(rigid.estimate(model, moved), (0.3, -0.4, 2.0), np.zeros(3), 0.4, 0.25)


def test_float32_agrees_with_float64(plain):
    image, _, affine, model = plain
    moved = motion.move(image, affine, (0.7, -0.9, 0.4), np.deg2rad((1, 0.5, -0.8)))
    got = rigid.estimate(model, moved)
    assert got.shift.dtype == jnp.float32
    with jax.enable_x64(True):
        want = rigid.estimate(rigid.init(image, made()[1], affine), moved)
        assert want.shift.dtype == jnp.float64
        np.testing.assert_allclose(got.shift, want.shift, atol=2e-4)
        np.testing.assert_allclose(got.turn, want.turn, atol=1e-5)


@pytest.mark.slow
def test_vmap_equals_a_loop(plain):
    image, _, affine, model = plain
    still = np.zeros(3)
    volumes = np.stack([motion.move(image, affine, (s, 0, 0), still) for s in (0.2, 1.5)])
    got = jax.vmap(rigid.estimate, in_axes=(None, 0))(model, volumes)
    for i, volume in enumerate(volumes):
        want = rigid.estimate(model, volume)
        np.testing.assert_allclose(got.shift[i], want.shift, atol=1e-3)
    np.testing.assert_allclose(rigid.displacement(got), [0.2, 1.5], atol=0.05)
    back = jax.vmap(rigid.resample, in_axes=(None, 0, 0))(model, volumes, got)
    one = rigid.resample(model, volumes[1], jax.tree.map(lambda a: a[1], got))
    np.testing.assert_allclose(back[1], one, rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("affine", [None, OBLIQUE], ids=["plain", "oblique"])
def test_resample_is_scipys_cubic_spline(affine, dtype):
    image, _, affine, model = made(affine)
    turn, shift = np.deg2rad((2.0, -1.0, 1.5)), np.array((1.2, -0.8, 2.0))
    pose = rigid.Pose(*map(jnp.asarray, (shift.astype(dtype), turn.astype(dtype), dtype.type(1))))
    linear, middle = affine[:3, :3], (np.array(SHAPE) - 1) / 2
    index = np.indices(SHAPE).reshape(3, -1).T - middle
    mm = index @ linear.T @ Rotation.from_rotvec(turn).as_matrix().T + shift
    at = (mm @ np.linalg.inv(linear).T + middle).T
    inside = ((at >= 0) & (at <= np.array(SHAPE)[:, None] - 1)).all(0)
    want = ndimage.map_coordinates(image, at, order=3, mode="mirror")
    got = np.asarray(rigid.resample(model, image.astype(dtype), pose))
    atol = (1e-9 if dtype == np.float64 else 2e-4) * image.max()
    np.testing.assert_allclose(got.reshape(-1)[inside], want[inside], atol=atol)
    voxels = np.random.default_rng(0).choice(image.size, 300, replace=False)
    some = rigid.resample(model, image.astype(dtype), pose, voxels)
    np.testing.assert_allclose(some, got.reshape(-1)[voxels], atol=atol)


def test_resample_undoes_the_motion(plain):
    image, mask, affine, model = plain
    moved = motion.move(image, affine, (0.9, -0.6, 1.1), np.deg2rad((1, -1, 0.6)))
    back = np.asarray(rigid.resample(model, moved, rigid.estimate(model, moved)))
    deep = ndimage.binary_erosion(mask, iterations=3)
    rms = np.sqrt(((back - image)[deep] ** 2).mean()), np.sqrt(((moved - image)[deep] ** 2).mean())
    assert rms[0] < 0.4 * rms[1]


@pytest.mark.parametrize("shape", [(9, 7, 1), (1, 5, 2), (6, 3, 4)])
def test_short_axes_are_mirrored_as_in_scipy(shape, x64):
    rng = np.random.default_rng(0)
    volume = rng.normal(size=shape)
    at = rng.uniform(0, 1, (3, 50)) * (np.array(shape)[:, None] - 1)
    filters = [splines.prefilter(n) for n in shape]
    got = splines.sample(jnp.asarray(splines.along_axes(filters, volume)), jnp.asarray(at))
    want = ndimage.map_coordinates(volume, at, order=3, mode="mirror")
    np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.slow
def test_gradients(plain, x64, quick_compile):
    image, _, _, model = plain
    model = jax.tree.map(lambda a: a.astype(jnp.float64), model)
    voxels = np.array([20000, 25001, 30002])

    def read(shift, turn, volume):
        return rigid.resample(model, volume, rigid.Pose(shift, turn, jnp.ones(())), voxels)

    some = jnp.array([0.31, -0.22, 0.17])
    check_grads(read, (some, 0.01 * some, jnp.asarray(image)), order=1, modes=["rev"], rtol=1e-4)
    gradient = jax.grad(lambda t: read(some, t, image).sum())
    assert np.isfinite(gradient(jnp.zeros(3))).all()


def test_turns_about_an_axis_come_back(x64):
    drawn = np.random.default_rng(0).normal(size=(5, 3))
    for turn in np.vstack([np.zeros(3), np.eye(3) * 1e-7, drawn]):
        want = Rotation.from_rotvec(turn).as_matrix()
        got = rigid._rotation(jnp.asarray(turn))
        np.testing.assert_allclose(got, want, atol=1e-12)
        np.testing.assert_allclose(rigid._turn(got), turn, atol=1e-9)


def test_displacement_by_hand():
    one, three = jnp.ones(()), jnp.zeros(3)
    before = rigid.Pose(jnp.array([0.1, 0.0, -0.2]), jnp.array([0.01, 0.0, 0.0]), one)
    after = rigid.Pose(jnp.array([0.2, -0.3, -0.2]), jnp.array([0.0, 0.002, 0.0]), 2 * one)
    # |.1| + |-.3| + 50 (.01 + .002) = 1.0; from the reference: .1 + .2 + 50 x .01 = .8
    np.testing.assert_allclose(rigid.displacement(after, before), 1.0, rtol=1e-5)
    np.testing.assert_allclose(rigid.displacement(before), 0.8, rtol=1e-5)
    assert rigid.displacement(rigid.Pose(three, three, one)) == 0


def test_says_what_is_wrong(plain):
    image, mask, affine, model = plain
    with pytest.raises(ValueError, match=r"its shape; got \(40, 44, 28\), \(40, 44, 27\)"):
        rigid.init(image, mask[..., 1:], affine)
    with pytest.raises(ValueError, match=r"three sizes in mm; got shape \(3, 3\)"):
        rigid.init(image, mask, affine[:3, :3])
    with pytest.raises(ValueError, match="an affine that has an inverse"):
        rigid.init(image, mask, np.zeros((4, 4)))
    with pytest.raises(ValueError, match="a mask with voxels; got 0 voxels, values from"):
        rigid.init(image, np.zeros_like(mask), affine)
    with pytest.raises(ValueError, match="values from 3 to 3"):
        rigid.init(np.full(SHAPE, 3.0), mask, affine)
    with pytest.raises(ValueError, match=r"shape \(40, 44, 28\); got \(40, 44, 27\)"):
        rigid.estimate(model, image[..., 1:])
    with pytest.raises(ValueError, match=r"shape \(40, 44, 28\); got \(40, 44, 27\)"):
        rigid.resample(model, image[..., 1:], rigid.Pose.still())
