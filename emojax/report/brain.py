"""Maps over the mean volume: in mm and with left and right where the image says so."""

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
SIGNED = "RdBu_r"  # of maps with a sign
ACROSS = 6  # slices in a row
DECIMALS = 3  # of mm: what storing an affine one way or the other changes is smaller
HIDDEN = 0.05  # of the brightest; what is darker is outside of the head


def voxels(
    counts: Int[np.ndarray, "X Y Z"],
    mean: Float[np.ndarray, "X Y Z"],
    num_folds: int,
    affine: Float[np.ndarray, "4 4"] | None,
) -> Figure:
    """Draws the number of folds that chose each voxel, as `overlay` does.

    Args:
      counts: [X, Y, Z] int.
      mean: [X, Y, Z] mean volume.
      num_folds: the largest possible count.
      affine: [4, 4] voxel -> mm, or None.
    """
    norm, whole = Normalize(1, max(num_folds, 2)), MaxNLocator(integer=True, min_n_ticks=1)
    label = f"chosen in how many of {num_folds} folds"
    return overlay(counts, mean, affine, norm, label, ticks=whole)


def below(extras: Mapping[str, Any]) -> Float[np.ndarray, "X Y Z"] | None:
    """Returns what maps are drawn on: the mean volume, or the mask of values that were centred.

    The mean of centred values is noise, and no picture.

    Args:
      extras: "mean" [X, Y, Z], or None; "mask" [X, Y, Z] bool: without one, voxels that are not 0.
    """
    mean, mask = extras.get("mean"), extras.get("mask")
    if mean is None:
        return None
    low, high = np.nanpercentile(mean, (0.5, 99.5))
    if low >= -HIDDEN * high:
        return mean
    return np.float32(np.nan_to_num(mean) != 0 if mask is None else mask)


def overlay(
    values: Num[np.ndarray, "X Y Z"],
    mean: Float[np.ndarray, "X Y Z"],
    affine: Float[np.ndarray, "4 4"] | None,
    norm: Normalize,
    label: str,
    ticks: Locator | None = None,
) -> Figure:
    """Draws values that are not 0 over a mean volume.

    With an affine: three planes through a voxel with the largest value, and axial slices, with L
    and R and coordinates in mm; one image has one picture, whatever the order of its axes. Without:
    slices along the last axis of the array, from low to high index.

    Args:
      values: [X, Y, Z], >= 0, with one above 0; 0 is not drawn, nor is what is less than half of
        the lowest colour.
      mean: [X, Y, Z] mean volume.
      affine: [4, 4] voxel -> mm, or None.
      norm: lowest (> 0) and highest value of the colours.
      label: of the scale.
      ticks: of the scale.
    """
    figure = Figure(figsize=(9.6, 4.4), dpi=130)
    if affine is None:
        _in_array(figure, values, mean, norm)
    else:
        _in_mm(figure, values, mean, norm, np.asarray(affine, float))
    scale = figure.add_axes((0.91, 0.15, 0.015, 0.7))
    colours = ScalarMappable(norm, matplotlib.colormaps[COLOURS])
    figure.colorbar(colours, cax=scale, ticks=ticks).set_label(label, fontsize=9)
    return figure


def _in_mm(figure: Figure, counts, mean, norm, affine) -> None:
    """Draws three planes and axial slices, after the axes were turned to right, front and up."""
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
        warnings.filterwarnings("ignore", "empty mask")  # of a mean volume of zeros
        for mode, cuts, box in rows:
            shown = plotting.plot_img(below, display_mode=mode, cut_coords=cuts, axes=box, **grey)
            shown.add_overlay(chosen, **colours)
    said = "L and R: left and right of the person; x, y, z in mm"
    figure.text(0.45, 0.02, said, fontsize=9, ha="center")


def _in_array(figure: Figure, counts, mean, norm) -> None:
    """Draws slices by their number; x and y are the array's first and second axis."""
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
    said = "array axes, no L/R: the data do not say where their voxels are"
    figure.text(0.45, 0.02, said, fontsize=9, ha="center")


def signed(
    rows: Mapping[str, Float[np.ndarray, "X Y Z"]],
    mean: Float[np.ndarray, "X Y Z"] | None,
    affine: Float[np.ndarray, "4 4"] | None,
    label: str,
) -> Figure:
    """Draws maps with a sign, one below the other in the same colours and slices; 0 is clear.

    Args:
      rows: title -> [X, Y, Z].
      mean: [X, Y, Z] volume below, or None.
      affine: voxel -> mm, or None: slices of the array, without left and right.
      label: of the scale of colours.
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
    said = "L and R: left and right of the person; z in mm"
    if affine is None:
        said = "array axes, no L/R: the data do not say where their voxels are"
    figure.text(0.45, 0.01, said, fontsize=9, ha="center")
    return figure


def _slices(rows, axis: int = 2) -> Sequence[int]:
    """Returns indices of slices in which any map has values."""
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
        warnings.filterwarnings("ignore", "empty mask")  # of a mean volume of zeros
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
    """Returns some of sorted values, the first and the last among them."""
    return [values[i] for i in np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]


def _white(mean: Float[np.ndarray, "X Y Z"]) -> float:
    """Returns which value is white: one far up, since white swallows yellow."""
    high = float(np.nanpercentile(mean, 99.5))
    return 1.3 * high if high > 0 else 1.0
