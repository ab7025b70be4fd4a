"""The section on decoder maps: figures, clusters, and how to read them."""

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from emojax.report import brain, plots
from emojax.report.cells import Table
from emojax.training.checkpoint import slug

LEFT_OUT = "left out"  # key of the reason if there is no map
RANDOM = "_random"  # suffix of the file names of maps of random weights
ALIKE = 0.5  # a map that correlates more than this with one of random weights says little
ROWS = 8  # clusters per class in the table
SAID = {
    "pattern": (
        "A pattern (Haufe et al. 2014) is the change in each voxel that accompanies a change of "
        "one sd in the decoder's output for a class. It shows what a voxel carries about the "
        "output, not the weight that the decoder gives to the voxel. It does not show that a "
        "region is necessary, or that it processes the class: anything that covaries with the "
        "labels, including movement and timing, has a pattern too."
    ),
    "saliency": (
        "Saliency (integrated gradients) is the share of the network's output for a class, in "
        "volumes of this class, that is due to a voxel's difference from a mean volume. It "
        "describes the network; voxels that merely cancel noise count as well."
    ),
}
LABELS = {"pattern": "image units per sd of output", "saliency": "share of the logit"}
ALL = (
    "Maps are computed from training volumes alone, transformed back to each training subject's "
    "own voxels, and averaged over subjects and folds. Voxels that the decoder does not read are "
    "left blank; they may still carry information. No voxel was tested: the table lists the "
    "strongest tenth."
)


def file_name(kind: str, name: str, suffix: str = "") -> str:
    """Returns the file name of a class's map, without its extension.

    Args:
      kind: "pattern" or "saliency".
      name: name of the class.
      suffix: `RANDOM`, or "" for the map itself.
    """
    return f"{kind}_{slug(name)}{suffix}"


def section(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the "said", "tables" and "figures" of the section; None without maps."""
    found = metrics.get("maps")
    if not found:
        return None
    if LEFT_OUT in found:
        return {"said": [f"No map: {found[LEFT_OUT]}."], "tables": [], "figures": []}
    tables = [_numbers(found), *(_clusters(kind, found) for kind in found["kinds"])]
    figures = [file_name(kind, name) for kind, name in _places(found)]
    return {
        "said": sentences(metrics),
        "tables": [table for table in tables if table.rows],
        "figures": figures,
    }


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Returns sentences that explain the maps, and name those that say little."""
    found = metrics.get("maps")
    if not found or LEFT_OUT in found:
        return []
    out = [*(SAID[kind] for kind in found["kinds"]), ALL]
    for kind, name in _places(found):
        own = found["kinds"][kind]["classes"][name]
        if max(own["random"], own["random_size"]) > ALIKE:
            out.append(
                f"The {kind} of {name} closely resembles that of random weights (correlation "
                f"{own['random']:.2f}, of absolute values {own['random_size']:.2f}): it reflects "
                "the data more than the decoder."
            )
    return out


def _places(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(kind, name) for kind, own in found["kinds"].items() for name in own["classes"]]


def _numbers(found: Mapping[str, Any]) -> Table:
    rows = []
    for kind, name in _places(found):
        own = found["kinds"][kind]["classes"][name]
        cells = (own[key] for key in ("stability", "random", "random_size"))
        shown = ["" if value is None else f"{value:.2f}" for value in cells]
        voxels = found["kinds"][kind]["voxels"]
        rows.append([f"{kind}, {name}", *shown, f"{own['always']} of {voxels}"])
    header = ["map", "stability", "r with random weights", "r of absolute values", "always strong"]
    note = (
        "Stability: mean correlation over pairs of folds, which share training subjects. r with "
        "random weights: absolute correlation of the map with maps of the same weights in random "
        "order, in single folds; r of absolute values: the same for absolute values. Always "
        f"strong: voxels among the strongest tenth in every one of the {found['folds']} folds."
    )
    return Table("Maps: stability, and likeness to random weights", header, rows, note)


def _clusters(kind: str, found: Mapping[str, Any]) -> Table:
    rows = []
    for name, own in found["kinds"][kind]["classes"].items():
        for row in own["clusters"][:ROWS]:
            peak = [f"{value:.0f}" for value in row["peak"]]
            size = "" if row["mm3"] is None else f"{row['mm3']:.0f}"
            rows.append([name, *peak, row["side"], str(row["voxels"]), size, f"{row['value']:.3g}"])
    places = ["x (mm)", "y (mm)", "z (mm)"] if found["units"] else ["axis 1", "axis 2", "axis 3"]
    note = (
        "Voxels that share a face, among the strongest tenth of the voxels shown, separately by "
        "sign; position and value of each peak."
    )
    if not found["units"]:
        note += " Positions are array indices: the images do not define left and right."
    header = ["class", *places, "side", "voxels", "mm³", "value"]
    return Table(f"Clusters of the {kind}", header, rows, note)


@matplotlib.rc_context(plots.LITERAL)
def draw(metrics: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Draws one figure per class: its map above that of random weights, in the same colours.

    Args:
      metrics: content of metrics.json.
      extras: "mean" and "mask" of the background, see `brain.below`; "affine": [4, 4] or None;
        "volumes": maps [X, Y, Z] by file name.

    Returns:
      Figure and caption, by file name.
    """
    found, volumes, out = metrics.get("maps"), extras.get("volumes") or {}, {}
    if not found or LEFT_OUT in found:
        return {}
    for kind, name in _places(found):
        stem = file_name(kind, name)
        rows = {kind: volumes[stem], "random weights": volumes[stem + RANDOM]}
        caption = f"{kind.capitalize()} of {name}, above that of random weights."
        if extras.get("affine") is None:
            caption += " Array axes: the images do not define left and right."
        out[stem] = (
            brain.signed(rows, brain.below(extras), extras.get("affine"), LABELS[kind]),
            caption,
        )
    return out
