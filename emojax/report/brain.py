"""The map of chosen voxels: in mm and with left and right where the image says so."""

import warnings

import matplotlib
import nibabel as nib
import numpy as np
from jaxtyping import Float, Int
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from nibabel.affines import apply_affine

COLOURS = "autumn"  # red: one fold, yellow: all
ACROSS = 6  # slices in a row
DECIMALS = 3  # of mm: what storing an affine one way or the other changes is smaller
HIDDEN = 0.05  # of the brightest; what is darker is outside of the head


def voxels(
    counts: Int[np.ndarray, "X Y Z"],
    mean: Float[np.ndarray, "X Y Z"],
    num_folds: int,
    affine: Float[np.ndarray, "4 4"] | None,
) -> Figure:
    """Draws the number of folds that chose each voxel, on the mean volume.

    With an affine: three planes through a voxel that most folds chose, and axial slices, with L and
    R and coordinates in mm; one image has one picture, whatever the order of its axes. Without:
    slices along the last axis of the array, from low to high index.

    Args:
      counts: [X, Y, Z] int.
      mean: [X, Y, Z] mean volume.
      num_folds: the largest possible count.
      affine: [4, 4] voxel -> mm, or None.
    """
    norm = Normalize(1, max(num_folds, 2))
    figure = Figure(figsize=(9.6, 4.4), dpi=130)
    if affine is None:
        _in_array(figure, counts, mean, norm)
    else:
        _in_mm(figure, counts, mean, norm, np.asarray(affine, float))
    scale = figure.add_axes((0.92, 0.15, 0.015, 0.7))
    colours = ScalarMappable(norm, matplotlib.colormaps[COLOURS])
    whole = MaxNLocator(integer=True, min_n_ticks=1)
    figure.colorbar(colours, cax=scale, ticks=whole).set_label(
        f"chosen in how many of {num_folds} folds", fontsize=9
    )
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
    low, high = _window(mean)
    grey = {
        "figure": figure,
        "cmap": "gray",
        "vmin": low,
        "vmax": high,
        "threshold": HIDDEN * high if low == 0 else None,
        "colorbar": False,
        "decimals": 0 if (mm == np.round(mm)).all() else 1,
        "resampling_interpolation": "nearest",
    }
    overlay = {"threshold": 0.5, "cmap": COLOURS, "vmin": norm.vmin, "vmax": norm.vmax}
    rows = [("z", heights, (0.01, 0.06, 0.88, 0.44))]
    if min(count.shape) > 1:
        rows.append(("ortho", most[len(most) // 2].tolist(), (0.01, 0.51, 0.88, 0.47)))
    else:
        rows = [("z", heights, (0.01, 0.06, 0.88, 0.9))]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "empty mask")  # of a mean volume of zeros
        for mode, cuts, box in rows:
            shown = plotting.plot_img(below, display_mode=mode, cut_coords=cuts, axes=box, **grey)
            shown.add_overlay(chosen, **overlay)
    said = "L and R: left and right of the person; x, y, z in mm"
    figure.text(0.45, 0.02, said, fontsize=9, ha="center")


def _in_array(figure: Figure, counts, mean, norm) -> None:
    """Draws slices by their number; x and y are the array's first and second axis."""
    used = _spread(np.flatnonzero(counts.any((0, 1))).tolist(), 2 * ACROSS)
    low, high = _window(mean)
    if low == 0:
        mean = np.ma.masked_less(mean, HIDDEN * high)
    shape = -(-len(used) // ACROSS), min(len(used), ACROSS)
    grid = figure.subplots(*shape, squeeze=False, gridspec_kw={"left": 0.01, "right": 0.89})
    for axes in grid.flat:
        axes.axis("off")
    for axes, z in zip(grid.flat, used, strict=False):
        axes.imshow(mean[:, :, z].T, origin="lower", cmap="gray", vmin=low, vmax=high)
        shown = np.ma.masked_equal(counts[:, :, z].T, 0)
        axes.imshow(shown, origin="lower", cmap=COLOURS, norm=norm)
        axes.set_title(f"slice {z}", fontsize=9)
    said = "array axes, no L/R: the data do not say where their voxels are"
    figure.text(0.45, 0.02, said, fontsize=9, ha="center")


def _spread(values, count: int) -> list:
    """Returns some of sorted values, the first and the last among them."""
    return [values[i] for i in np.linspace(0, len(values) - 1, min(count, len(values))).astype(int)]


def _window(mean) -> tuple[float, float]:
    """Returns what is black and what is white: white is far up, since it swallows yellow."""
    low, high = np.nanpercentile(mean, (0.5, 99.5))
    high = 1.3 * float(high) if high > 0 else 1.0
    return (float(low) if low < -HIDDEN * high else 0.0), high  # below 0: of cleaned volumes
