"""The map of chosen voxels: left is left, whatever the order of an image's axes."""

import io
import itertools

import matplotlib.image
import matplotlib.text
import numpy as np
import pytest

from emojax.report import brain

SHAPE = (14, 18, 12)
RAS = np.array([[3.0, 0, 0, -19.5], [0, 3, 0, -25.1], [0, 0, 3, -16.4], [0, 0, 0, 1]])


def study(side="left"):
    """Returns a head, and a blob on one side of an image whose first axis runs to the right."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    inside = sum(a**2 for a in axes) < 0.9
    mean = inside * (900 + 100 * axes[1] + 40 * axes[0])
    counts = np.zeros(SHAPE, int)
    counts[slice(2, 5) if side == "left" else slice(9, 12), 7:10, 5:8] = 4
    counts[3 if side == "left" else 10, 8, 6] = 6
    return counts, mean


def stored(values, axes, flips):
    """Returns the same image with its axes permuted, some of them reversed."""
    step = np.eye(4)[:, [*axes, 3]]
    for i, axis in enumerate(axes):
        if flips[i]:
            step[axis, i], step[axis, 3] = -1, SHAPE[axis] - 1
    order = tuple(slice(None, None, -1 if flip else None) for flip in flips)
    return values.transpose(axes)[order], step


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def texts(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


@pytest.fixture(scope="module")
def picture():
    return png(brain.voxels(*study(), 6, RAS))


TURNS = [
    (axes, flips)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
]


@pytest.mark.parametrize(("axes", "flips"), [*TURNS[1::9], ((0, 1, 2), (True, False, False))])
def test_one_image_has_one_picture(picture, axes, flips):
    counts, step = stored(study()[0], axes, flips)
    mean, _ = stored(study()[1], axes, flips)
    assert png(brain.voxels(counts, mean, 6, RAS @ step)) == picture


def test_left_is_drawn_on_the_side_of_the_l(picture):
    """The blob's yellow is nearer to an L than to an R; mirrored, it is on the other side."""
    for side in ("left", "right"):
        figure = brain.voxels(*study(side), 6, RAS)
        pixels = matplotlib.image.imread(io.BytesIO(png(figure)))
        figure.canvas.draw()
        yellow = (pixels[:, :, 0] > 0.9) & (pixels[:, :, 1] > 0.5) & (pixels[:, :, 2] < 0.2)
        yellow[:, int(0.9 * yellow.shape[1]) :] = False  # the scale
        columns = np.flatnonzero(yellow[yellow.shape[0] // 2 :].any(0))  # in the axial slices
        marks = {
            name: [
                t.get_window_extent().x0
                for t in figure.findobj(matplotlib.text.Text)
                if t.get_text() == name and t.get_window_extent().y0 < 0.5 * yellow.shape[0]
            ]
            for name in "LR"
        }
        first = columns[0]  # in the first slice
        left, right = min(marks["L"]), min(marks["R"])
        assert left < right
        assert (abs(first - left) < abs(first - right)) == (side == "left")


def test_coordinates_are_in_mm():
    said = texts(brain.voxels(*study(), 6, RAS))
    assert "L" in said and "R" in said and any("in mm" in text for text in said)
    heights = [text for text in said if text.startswith("z=")]
    assert {f"z={-16.4 + 3 * k:.1f}" for k in (5, 6, 7)} <= set(heights)
    assert any(text.startswith("x=") for text in said)


def test_without_an_affine_there_is_no_left():
    counts, mean = study()
    said = texts(brain.voxels(counts, mean, 6, None))
    assert "L" not in said and any("do not define left and right" in text for text in said)
    assert [text for text in said if text.startswith("slice")] == [f"slice {z}" for z in (5, 6, 7)]


@pytest.mark.filterwarnings("error")
def test_any_volumes_are_drawn():
    counts, mean = study()
    rng = np.random.default_rng(0)
    for values in (0 * mean, np.where(mean > 0, mean, np.nan), rng.normal(size=SHAPE)):
        for affine in (RAS, None):
            png(brain.voxels(counts, values, 6, affine))
    png(brain.voxels(counts[:, :, 6:7], mean[:, :, 6:7], 1, RAS))
    turned = np.array([[0.9, -0.4, 0, 3], [0.4, 0.9, 0.1, 5], [0, -0.1, 1, 2], [0, 0, 0, 1]])
    png(brain.voxels(counts, mean, 6, turned @ RAS))


def test_the_mean_of_centred_values_is_no_picture():
    values = np.random.default_rng(0).normal(size=(6, 5, 4))
    values[0] = 0
    np.testing.assert_array_equal(brain.below({"mean": values}), values != 0)
    mask = values > 1
    np.testing.assert_array_equal(brain.below({"mean": values, "mask": mask}), mask)
    positive = 100 + values
    assert brain.below({"mean": positive, "mask": mask}) is positive
    assert brain.below({"affine": RAS}) is None
