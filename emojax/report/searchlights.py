"""The section on searchlights: a map, a table of clusters, and their sentences."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from emojax.report import brain
from emojax.report.cells import Table

FIGURE = "searchlight"
ACCURACY, P, T = "searchlight_accuracy", "searchlight_p", "searchlight_t"  # names of map files
LEFT_OUT = "left out"  # key of the reason if there is no map
SURE = 0.05
SHOWN = 0.1  # share of spheres drawn if none is significant
LISTED = 20  # clusters in the table


def section(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the "said", "table" and "figure" of the section; None without searchlights."""
    found = metrics.get("searchlight")
    if not found:
        return None
    return {"said": sentences(metrics), "table": _table(found), "figure": FIGURE}


def sentences(metrics: Mapping[str, Any]) -> str:
    """Returns sentences on the spheres, the classifier and the test; "" without searchlights."""
    found = metrics.get("searchlight")
    if not found:
        return ""
    if LEFT_OUT in found:
        return f"There is no accuracy map: {found[LEFT_OUT]}."
    out = [
        f"{found['spheres']:,} spheres of {found['radius_mm']:g} {found['unit']} around the voxels "
        f"that all {found['subjects']} subjects share ({found['voxels']} voxels in the median), "
        f"decoded with {_classifier(found)}, {_folds(found)} ({found['protocol']})."
    ]
    if found["left_out"]:
        out.append(
            f"{found['left_out']} spheres with fewer than {found['least']} voxels were left out."
        )
    out.append(
        f"Balanced accuracy: mean over the map {found['mean']:.3f}, largest "
        f"{found['largest']:.3f}, chance {found['chance']:.3f}. The largest of many accuracies is "
        "above chance even without any effect; p values are corrected for this."
    )
    return " ".join([*out, _test(found["test"])])


def draw(metrics: Mapping[str, Any], extras: Mapping[str, Any]) -> dict[str, tuple[Figure, str]]:
    """Draws accuracy where it is significant, or else where it is highest.

    Args:
      metrics: content of metrics.json.
      extras: "mean" and "mask": background, see `brain.below`; "affine": [4, 4] or None;
        "volumes": the maps [X, Y, Z], by file name.

    Returns:
      Figure and caption, by file name.
    """
    found, volumes = metrics.get("searchlight"), extras.get("volumes") or {}
    if not found or LEFT_OUT in found or extras.get("mean") is None:
        return {}
    accuracy = volumes[ACCURACY]
    significant = (found["test"] or {}).get("significant", 0)
    if significant:
        shown = volumes[P] <= SURE
        caption = f"Balanced accuracy of spheres around voxels with p <= {SURE:g}, corrected. "
    else:
        shown = accuracy >= np.quantile(accuracy[accuracy > 0], 1 - SHOWN)
        caption = (
            f"Balanced accuracy: the highest {SHOWN:.0%} of spheres, none of them significant. "
        )
    caption += (
        "Array axes: the images do not define left and right."
        if extras.get("affine") is None
        else "Above: planes through the highest accuracy. Coordinates in mm."
    )
    shown = np.where(shown, accuracy, 0)
    norm = Normalize(float(shown[shown > 0].min()), max(float(shown.max()), found["chance"] + 0.05))
    figure = brain.overlay(
        shown, brain.below(extras), extras.get("affine"), norm, "balanced accuracy"
    )
    return {FIGURE: (figure, caption)}


def _classifier(found: Mapping[str, Any]) -> str:
    return {"lda": "LDA (shrinkage .1)", "ridge": "ridge regression"}[found["classifier"]]


def _folds(found: Mapping[str, Any]) -> str:
    kinds = {
        "subject": "leaving subjects out",
        "run": "leaving runs out of each subject, mean over subjects",
    }
    new = f"new subjects and new levels of {found['folds']}"
    text = kinds.get(found["folds"], new)
    return "leaving runs out" if found["folds"] == "run" and found["subjects"] == 1 else text


def _test(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return "No permutations were run, so there are no p values."
    how = {"tfce": "TFCE", "cluster": "cluster size", "max": "the highest value"}
    text = (
        f"Corrected over the map by the largest {how[test['correction']]} of {test['draws']} "
        f"permutations ({test['scheme']}): smallest p {test['p']:.3f}, p <= {SURE:g} at "
        f"{test['significant']:,} of the voxels."
    )
    if test["least_p"] > SURE:
        text += f" So few permutations allow no p below {test['least_p']:.3f}."
    return text


def _table(found: Mapping[str, Any]) -> Table:
    clusters = ((found.get("test") or {}).get("clusters")) or []
    lines = [
        [
            " ".join(f"{place:.0f}" for place in row["peak"]),
            row["side"],
            str(row["voxels"]),
            f"{row['value']:.3f}",
            f"{row['p']:.3f}",
        ]
        for row in clusters[:LISTED]
    ]
    unit = "mm" if found.get("unit") == "mm" else "array index"
    header = [f"peak (x y z, {unit})", "side", "voxels", "balanced accuracy", "p (corrected)"]
    note = (
        f"Clusters of voxels that share a face, with p <= {SURE:g}. A sphere extends one radius "
        "around its centre."
    )
    if len(clusters) > LISTED:
        note += f" The first {LISTED} of {len(clusters)} clusters."
    note += " The reads of each fold were recorded; the audit does not fit spheres again."
    return Table("Clusters of the accuracy map", header, lines, note)
