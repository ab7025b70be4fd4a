"""Grids in mm: every flip and swap of axes is found and undone, and nothing else is."""

import itertools

import nibabel as nib
import numpy as np
import pytest

from emojax.data import grid

AFFINE = np.array([[3.0, 0.2, 0, -18], [-0.2, 3, 0.1, -17], [0, -0.1, 4, -15], [0, 0, 0, 1]])
SHAPE = (4, 5, 6)
TURNS = [
    grid.Turn(axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product([False, True], repeat=3)
]


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_every_turn_is_undone_without_loss(turn):
    x = np.random.default_rng(0).normal(size=SHAPE)
    y, affine = turn.apply(x), grid.turned(AFFINE, SHAPE, turn)
    back = grid.turn(affine, y.shape, AFFINE, SHAPE)
    np.testing.assert_array_equal(back.apply(y), x)
    np.testing.assert_array_equal(back.apply(np.stack([y, 2 * y]), 1)[1], 2 * x)
    assert back.is_identity == turn.is_identity and np.shares_memory(back.apply(y), x)


def test_axes_are_those_of_nibabel():
    image = nib.Nifti1Image(np.random.default_rng(0).normal(size=SHAPE), np.diag([-3.0, 3, -4, 1]))
    want = nib.as_closest_canonical(image)
    turn = grid.turn(image.affine, SHAPE, want.affine, want.shape)
    np.testing.assert_array_equal(turn.apply(image.get_fdata()), want.get_fdata())


def moved(x=0.0, y=0.0, z=0.0, scale=1.0, angle=0.0):
    step = np.diag([scale, scale, scale, 1.0])
    step[:2, :2] = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    step[:3, 3] = x, y, z
    return AFFINE @ step


@pytest.mark.parametrize(
    "change", [{"x": 0.5}, {"z": 0.02}, {"scale": 1.01}, {"angle": 0.01}, {"y": 1.0}], ids=str
)
def test_what_would_need_interpolation_is_another_grid(change):
    other = moved(**change)
    assert not grid.same(AFFINE, other, SHAPE) and grid.offset(AFFINE, other, SHAPE) > 0.01
    assert grid.turn(AFFINE, SHAPE, other, SHAPE) is None


def test_rounding_of_a_file_is_the_same_grid():
    rounded = np.round(AFFINE, 3).astype(np.float32)
    assert grid.same(AFFINE, rounded, (200, 200, 200))
    assert grid.turn(rounded, SHAPE, AFFINE, SHAPE).is_identity


def test_other_shapes_and_missing_or_broken_affines():
    assert grid.turn(AFFINE, (4, 5, 7), AFFINE, SHAPE) is None
    assert grid.turn(None, SHAPE, None, SHAPE).is_identity and grid.same(None, None, SHAPE)
    assert grid.turn(None, SHAPE, AFFINE, SHAPE) is None and not grid.same(AFFINE, None, SHAPE)
    for broken in (np.zeros((4, 4)), np.full((4, 4), np.nan)):
        assert grid.turn(broken, SHAPE, AFFINE, SHAPE) is None
        assert grid.turn(AFFINE, SHAPE, broken, SHAPE) is None
        assert not grid.same(AFFINE, broken, SHAPE)


def test_a_grid_in_words():
    said = grid.describe(np.diag([2.0, 2, 2.00049, 1]), (4, 3, 2))
    assert said.startswith("shape (4, 3, 2), affine [[2.0, 0.0, 0.0, 0.0]")
    assert "2.00049" not in said
    assert grid.describe(None, (9,)) == "shape (9,), no affine"
