"""The section on maps of the decoder: figures, clusters, and what may be read from them."""

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from emojax.report import brain, plots
from emojax.report.tables import Table
from emojax.training.checkpoint import slug

LEFT_OUT = "left out"  # key of the reason why there is no map
RANDOM = "_random"  # behind the name of a file
ALIKE = 0.5  # correlation of a map with that of random weights from which it says little
ROWS = 8  # clusters of each class in the table
SAID = {
    "pattern": (
        "A pattern (Haufe et al. 2014) is the change of each voxel that goes with one sd of the "
        "decoder's output for a class: what voxels carry of it, not how it weighs them. It shows "
        "where activity goes with the decision in these data. It does not show that a region is "
        "needed, or that it processes the class: whatever goes with the labels, movement and "
        "timing among it, has a pattern, too."
    ),
    "saliency": (
        "Saliency (integrated gradients) is the part of the network's output for a class, in "
        "volumes of this class, that comes from a voxel's difference from a mean volume. It "
        "describes the network, and voxels that merely cancel noise count as well."
    ),
}
LABELS = {"pattern": "image units per sd of output", "saliency": "share of the logit"}
ALL = (
    "Maps are made of training volumes alone, taken back to each training subject's own voxels, "
    "and averaged over subjects and folds. Voxels that the decoder does not read are left out, "
    "which is not to say that they hold nothing. No voxel is tested: the table lists the strongest "
    "tenth."
)


def file_name(kind: str, name: str, suffix: str = "") -> str:
    """Returns the name of the files of a class's map, without their ending."""
    return f"{kind}_{slug(name)}{suffix}"


def section(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what the page shows: "said", "tables" and "figures"; None without maps."""
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
    """Returns what the maps are, and which of them say little, in sentences."""
    found = metrics.get("maps")
    if not found or LEFT_OUT in found:
        return []
    out = [*(SAID[kind] for kind in found["kinds"]), ALL]
    for kind, name in _places(found):
        own = found["kinds"][kind]["classes"][name]
        if max(own["random"], own["random_size"]) > ALIKE:
            out.append(
                f"The {kind} of {name} looks much like that of random weights (correlation "
                f"{own['random']:.2f}, of sizes {own['random_size']:.2f}): it shows the data more "
                "than the decoder."
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
    header = ["map", "stability", "random: correlation", "of sizes", "always"]
    note = (
        "Stability: mean correlation over pairs of folds, which share training subjects. Random: "
        "correlation of the map with maps of the same weights in random order in single folds, "
        "signs aside; of sizes: of absolute values. Always: voxels that are among the strongest "
        f"tenth in every fold ({found['folds']})."
    )
    return Table("Maps against random weights, and over folds", header, rows, note)


def _clusters(kind: str, found: Mapping[str, Any]) -> Table:
    rows = []
    for name, own in found["kinds"][kind]["classes"].items():
        for row in own["clusters"][:ROWS]:
            peak = [f"{value:.0f}" for value in row["peak"]]
            size = "" if row["mm3"] is None else f"{row['mm3']:.0f}"
            rows.append([name, *peak, row["side"], str(row["voxels"]), size, f"{row['value']:.3g}"])
    places = ["x (mm)", "y (mm)", "z (mm)"] if found["units"] else ["axis 1", "axis 2", "axis 3"]
    note = (
        "Neighbours by faces among the strongest tenth of the voxels shown, by sign; place and "
        "value of the peak."
    )
    if not found["units"]:
        note += " Array indices: the data do not say where voxels are, or which side is left."
    header = ["class", *places, "side", "voxels", "mm3", "value"]
    return Table(f"Clusters of the {kind}", header, rows, note)


@matplotlib.rc_context(plots.LITERAL)
def draw(metrics: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Draws a figure of each class: the map above that of random weights, in the same colours.

    Args:
      metrics: content of metrics.json.
      extras: "mean" and "mask" under the maps, see `brain.below`; "affine" [4, 4] or None;
        "volumes": name of a file -> [X, Y, Z].

    Returns:
      File name -> figure, caption.
    """
    found, volumes, out = metrics.get("maps"), extras.get("volumes") or {}, {}
    if not found or LEFT_OUT in found:
        return {}
    for kind, name in _places(found):
        stem = file_name(kind, name)
        rows = {kind: volumes[stem], "random weights": volumes[stem + RANDOM]}
        caption = f"{kind.capitalize()} of {name}, and the same of random weights"
        caption += "." if extras.get("affine") is not None else ". Array axes: no left and right."
        out[stem] = (
            brain.signed(rows, brain.below(extras), extras.get("affine"), LABELS[kind]),
            caption,
        )
    return out
