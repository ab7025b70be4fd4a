"""Maps over the mean volume, in mm and with left and right if the image defines them."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import nibabel as nib
import numpy as np
from jaxtyping import Float, Int, Num
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import Locator, MaxNLocator
from nibabel.affines import apply_affine

COLOURS = "autumn"  # red: one fold, yellow: all
SIGNED = "RdBu_r"  # colour map of maps with a sign
ACROSS = 6  # slices per row
DECIMALS = 3  # of mm; differences between two ways of storing an affine are smaller
HIDDEN = 0.05  # fraction of the brightest value; darker voxels are outside the head


def voxels(
    counts: Int[np.ndarray, "X Y Z"],
    mean: Float[np.ndarray, "X Y Z"] | None,
    num_folds: int,
    affine: Float[np.ndarray, "4 4"] | None,
) -> Figure:
    """Draws the number of folds that chose each voxel, with `overlay`.

    Args:
      counts: [X, Y, Z] int, number of folds.
      mean: [X, Y, Z] background, or None.
      num_folds: largest possible count.
      affine: [4, 4] voxel -> mm, or None.
    """
    norm, whole = Normalize(1, max(num_folds, 2)), MaxNLocator(integer=True, min_n_ticks=1)
    label = f"number of folds (of {num_folds}) that chose the voxel"
    return overlay(counts, mean, affine, norm, label, ticks=whole)


def below(extras: Mapping[str, Any]) -> Float[np.ndarray, "X Y Z"] | None:
    """Returns the background of maps: the mean volume, or a mask if values were centred.

    The mean of centred values is noise and shows no anatomy.

    Args:
      extras: "mean": [X, Y, Z] or None; "mask": [X, Y, Z] bool, by default the voxels that are
        not 0.
    """
    mean, mask = extras.get("mean"), extras.get("mask")
    if mean is None:
        return None
    low, high = np.nanpercentile(mean, (0.5, 99.5))
    if low >= -HIDDEN * high:
        return mean
    used = np.nan_to_num(mean) != 0 if mask is None else np.asarray(mask)
    return used.astype(np.float32)


def overlay(
    values: Num[np.ndarray, "X Y Z"],
    mean: Float[np.ndarray, "X Y Z"] | None,
    affine: Float[np.ndarray, "4 4"] | None,
    norm: Normalize,
    label: str,
    ticks: Locator | None = None,
) -> Figure:
    """Draws nonzero values over a mean volume.

    With an affine, the figure has three planes through a voxel with the largest value, and axial
    slices, with L and R and coordinates in mm; the picture does not depend on the order of the
    image's axes. Without one, it has slices along the last axis of the array, by index.

    Args:
      values: [X, Y, Z], >= 0, at least one > 0; values below half of the lowest colour are not
        drawn.
      mean: [X, Y, Z] background, or None.
      affine: [4, 4] voxel -> mm, or None.
      norm: lowest (> 0) and highest value of the colour scale.
      label: label of the colour scale.
      ticks: ticks of the colour scale.
    """
    figure = Figure(figsize=(9.6, 4.4), dpi=130)
    mean = np.zeros(values.shape) if mean is None else mean
    if affine is None:
        _in_array(figure, values, mean, norm)
    else:
        _in_mm(figure, values, mean, norm, np.asarray(affine, float))
    scale = figure.add_axes((0.91, 0.15, 0.015, 0.7))
    colours = ScalarMappable(norm, matplotlib.colormaps[COLOURS])
    figure.colorbar(colours, cax=scale, ticks=ticks).set_label(label, fontsize=9)
    return figure


def _in_mm(figure: Figure, counts, mean, norm, affine) -> None:
    """Draws three planes and axial slices, with the axes reordered to right, anterior, superior."""
    from nilearn import plotting  # slow to import

    chosen, below = (
        nib.as_closest_canonical(nib.Nifti1Image(values.astype(np.float32), affine))
        for values in (counts, np.nan_to_num(mean))
    )
    grid = np.round(chosen.affine, DECIMALS)
    chosen, below = (nib.Nifti1Image(x.get_fdata(), grid) for x in (chosen, below))
    count = chosen.get_fdata()
    places = np.argwhere(count > 0)
    mm = apply_affine(grid, places)
    most = mm[count[tuple(places.T)] == count.max()]
    heights = _spread(np.unique(np.round(mm[:, 2], DECIMALS)), ACROSS)
    white = _white(mean)
    grey = {
        "figure": figure,
        "cmap": "gray",
        "vmin": 0,
        "vmax": white,
        "threshold": HIDDEN * white,
        "colorbar": False,
        "decimals": 0 if (mm == np.round(mm)).all() else 1,
        "resampling_interpolation": "nearest",
    }
    colours = {"cmap": COLOURS, "vmin": norm.vmin, "vmax": norm.vmax}
    colours |= {"threshold": norm.vmin / 2}
    rows = [("z", heights, (0.01, 0.06, 0.88, 0.44))]
    if min(count.shape) > 1:
        rows.append(("ortho", most[len(most) // 2].tolist(), (0.01, 0.51, 0.88, 0.47)))
    else:
        rows = [("z", heights, (0.01, 0.06, 0.88, 0.9))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "empty mask")  # if the mean volume is all zeros
        for mode, cuts, box in rows:
            shown = plotting.plot_img(below, display_mode=mode, cut_coords=cuts, axes=box, **grey)
            shown.add_overlay(chosen, **colours)
    said = "L and R: left and right of the subject; x, y, z in mm"
    figure.text(0.45, 0.02, said, fontsize=9, ha="center")


def _in_array(figure: Figure, counts, mean, norm) -> None:
    """Draws slices by index; x and y are the array's first and second axis."""
    used = _spread(np.flatnonzero(counts.any((0, 1))).tolist(), 2 * ACROSS)
    white = _white(mean)
    mean = np.ma.masked_less(mean, HIDDEN * white)
    shape = -(-len(used) // ACROSS), min(len(used), ACROSS)
    grid = figure.subplots(*shape, squeeze=False, gridspec_kw={"left": 0.01, "right": 0.89})
    for axes in grid.flat:
        axes.axis("off")
    for axes, z in zip(grid.flat, used, strict=False):
        axes.imshow(mean[:, :, z].T, origin="lower", cmap="gray", vmin=0, vmax=white)
        shown = np.ma.masked_equal(counts[:, :, z].T, 0)
        axes.imshow(shown, origin="lower", cmap=COLOURS, norm=norm)
        axes.set_title(f"slice {z}", fontsize=9)
    said = "array axes: the images do not define left and right"
    figure.text(0.45, 0.02, said, fontsize=9, ha="center")


def signed(
    rows: Mapping[str, Float[np.ndarray, "X Y Z"]],
    mean: Float[np.ndarray, "X Y Z"] | None,
    affine: Float[np.ndarray, "4 4"] | None,
    label: str,
) -> Figure:
    """Draws signed maps one below the other, in the same colours and slices; 0 is transparent.

    Args:
      rows: maps [X, Y, Z], by title.
      mean: [X, Y, Z] background, or None.
      affine: voxel -> mm; None: slices of the array, without left and right.
      label: label of the colour scale.
    """
    first = next(iter(rows.values()))
    mean = np.zeros(first.shape) if mean is None else np.nan_to_num(mean)
    most = max(float(np.abs(values).max()) for values in rows.values()) or 1.0
    figure = Figure(figsize=(9.6, 1.2 + 1.7 * len(rows)), dpi=130)
    boxes = [
        (0.01, 0.08 + 0.9 * (len(rows) - 1 - i) / len(rows), 0.88, 0.78 / len(rows))
        for i in range(len(rows))
    ]
    (_signed_in_array if affine is None else _signed_in_mm)(figure, rows, boxes, mean, most, affine)
    for title, (left, low, _, height) in zip(rows, boxes, strict=True):
        figure.text(left, low + height, title, fontsize=9, va="bottom")
    scale = figure.add_axes((0.91, 0.15, 0.015, 0.7))
    colours = ScalarMappable(Normalize(-most, most), matplotlib.colormaps[SIGNED])
    figure.colorbar(colours, cax=scale).set_label(label, fontsize=9)
    said = "L and R: left and right of the subject; z in mm"
    if affine is None:
        said = "array axes: the images do not define left and right"
    figure.text(0.45, 0.01, said, fontsize=9, ha="center")
    return figure


def _slices(rows, axis: int = 2) -> Sequence[int]:
    """Returns indices of slices in which any map has nonzero values."""
    others = tuple(i for i in range(3) if i != axis)
    used = np.any([np.abs(values).max(others) > 0 for values in rows.values()], axis=0)
    return _spread(np.flatnonzero(used).tolist() or [0], ACROSS)


def _signed_in_mm(figure: Figure, rows, boxes, mean, most: float, affine) -> None:
    from nilearn import plotting  # slow to import

    def turned(values):
        image = nib.as_closest_canonical(nib.Nifti1Image(np.float32(values), affine))
        return nib.Nifti1Image(image.get_fdata(), np.round(image.affine, DECIMALS))

    below, shown = turned(mean), {title: turned(values) for title, values in rows.items()}
    at = _slices({title: image.get_fdata() for title, image in shown.items()})
    heights = [float(apply_affine(below.affine, (0, 0, z))[2]) for z in at]
    white = _white(mean)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "empty mask")  # if the mean volume is all zeros
        for image, box in zip(shown.values(), boxes, strict=True):
            grey = plotting.plot_img(
                below,
                display_mode="z",
                cut_coords=heights,
                axes=box,
                figure=figure,
                cmap="gray",
                vmin=0,
                vmax=white,
                threshold=HIDDEN * white,
                colorbar=False,
                resampling_interpolation="nearest",
            )
            if np.abs(image.get_fdata()).max() > 0:
                grey.add_overlay(image, threshold=1e-6 * most, cmap=SIGNED, vmin=-most, vmax=most)


def _signed_in_array(figure: Figure, rows, boxes, mean, most: float, affine) -> None:
    white = _white(mean)
    at = _slices(rows)
    for values, (left, bottom, width, height) in zip(rows.values(), boxes, strict=True):
        for i, z in enumerate(at):
            box = (left + width * i / ACROSS, bottom, width / ACROSS, 0.85 * height)
            axes = figure.add_axes(box)
            axes.axis("off")
            axes.imshow(mean[:, :, z].T, origin="lower", cmap="gray", vmin=0, vmax=white)
            own = np.ma.masked_equal(values[:, :, z].T, 0)
            axes.imshow(own, origin="lower", cmap=SIGNED, vmin=-most, vmax=most)
            axes.set_title(f"slice {z}", fontsize=8)


def _spread(values, count: int) -> list:
    """Returns up to `count` of the sorted values, including the first and the last."""
    return [values[i] for i in np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]


def _white(mean: Float[np.ndarray, "X Y Z"]) -> float:
    """Returns the value drawn as white; it is high, since yellow cannot be seen on white."""
    high = float(np.nanpercentile(mean, 99.5))
    return 1.3 * high if high > 0 else 1.0
