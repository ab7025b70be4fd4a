"""Figures of a session's report: records in, a matplotlib Figure out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from emojax.online.session.measures import LARGE_MM, Accuracy
from emojax.report.plots import BLUE, COLOURS, GREY, RED

Line = Mapping[str, Any]
MANY = 400  # records; beyond that, lines are thin
LABELS = {
    "feedback": "feedback",
    "fd_mm": "displacement\n(mm)",
    "gain": "gain",
    "correlation": "correlation",
    "aligned": "correlation,\ncorrected",
}


def latencies(took: Sequence[float], tr: float) -> Figure:
    """Draws a histogram of latencies, with the TR.

    Args:
      took: latency of each record, ms, > 0.
      tr: TR, s.
    """
    figure = Figure(figsize=(7.5, 2.6), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    ms = np.maximum(took, 0.05)
    low, high = min(ms.min(), 1.0), max(ms.max(), 1000 * tr)
    axes.hist(ms, np.geomspace(low / 1.2, high * 1.2, 70), color=BLUE)
    for name, place, colour in (
        ("median", np.median(ms), "black"),
        ("99 %", np.percentile(ms, 99), GREY),
        ("TR", 1000 * tr, RED),
    ):
        axes.axvline(place, color=colour, ls="--", lw=1, label=f"{name}: {place:.4g} ms")
    axes.set(xscale="log", xlabel="ms from file closed to record sent", ylabel="volumes")
    axes.xaxis.set_major_formatter("{x:g}")  # instead of powers of ten
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.22), ncols=3, frameon=False, fontsize=9)
    return figure


def courses(
    volumes: Sequence[Line], classes: Sequence[str], labels: Mapping[int, str], hidden: bool
) -> Figure:
    """Draws the measures of each volume, one panel above the other.

    Args:
      volumes: records of the volumes.
      classes: classes of the decoder.
      labels: volume -> class, if known.
      hidden: whether probabilities and evidence are left out.
    """
    x = np.array([own["volume"] for own in volumes])
    shown = [name for name in LABELS if any(own[name] is not None for own in volumes)]
    pairs = (
        [] if hidden else [("p", "probability,\nvolume"), ("evidence", "probability,\nevidence")]
    )
    pairs = [(name, text) for name, text in pairs if any(own[name] for own in volumes)]
    count = len(pairs) + len(shown)
    figure = Figure(figsize=(9.5, 0.9 + 1.25 * max(count, 1)), dpi=130, layout="constrained")
    panels = figure.subplots(max(count, 1), 1, sharex=True, squeeze=False)[:, 0]
    width = 1.4 if len(x) <= MANY else 0.6
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(classes)}
    for axes, (name, text) in zip(panels, pairs, strict=False):
        for own, colour in colours.items():
            y = [_number((record[name] or {}).get("p", record[name]), own) for record in volumes]
            axes.plot(x, y, color=colour, lw=width, label=own)
        axes.set(ylim=(-0.03, 1.03), ylabel=text)
    for axes, name in zip(panels[len(pairs) :], shown, strict=False):
        y = _column(volumes, name)
        axes.plot(x, y, color=BLUE, lw=width)
        axes.set_ylabel(LABELS[name])
        if name == "fd_mm":
            axes.axhline(LARGE_MM, color=GREY, ls="--", lw=1)
            axes.set_ylim(0, max(1.1 * LARGE_MM, float(np.nanmax(y)) * 1.05))
        if name == "feedback":
            axes.set_ylim(-0.03, 1.03)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        _marks(axes, volumes)
        if not hidden:
            _blocks(axes, labels, colours)
    panels[-1].set_xlabel("volume")
    panels[-1].set_xlim(x.min() - 1, x.max() + 1)
    _legend(figure, panels[0], bool(pairs), volumes)
    return figure


def _number(values: Mapping[str, float] | None, name: str) -> float:
    return np.nan if not values else values[name]


def _column(volumes: Sequence[Line], name: str) -> Float[np.ndarray, " t"]:
    return np.array([np.nan if own[name] is None else own[name] for own in volumes])


def _marks(axes: Axes, volumes: Sequence[Line]) -> None:
    """Draws a line at each volume that is not "ok"."""
    width = 1.2 if len(volumes) <= MANY else 0.4
    for colour, marked in ((RED, True), ("black", False)):
        odd = [own for own in volumes if own["status"] != "ok"]
        x = [own["volume"] for own in odd if (own["status"] == "marked") is marked]
        own = {"transform": axes.get_xaxis_transform(), "alpha": 0.6}
        axes.vlines(x, 0, 1, color=colour, lw=width, **own)


def _blocks(axes: Axes, labels: Mapping[int, str], colours: Mapping[str, str]) -> None:
    """Colours the background by the labels."""
    if not labels:
        return
    x = np.arange(min(labels), max(labels) + 1)
    names = np.array([labels.get(n, "") for n in x.tolist()])
    edges = np.append(x - 0.5, x[-1] + 0.5)
    for name, colour in colours.items():
        here = np.append(names == name, False).astype(float)
        own = {"transform": axes.get_xaxis_transform(), "alpha": 0.1, "lw": 0}
        axes.fill_between(edges, here, step="post", color=colour, **own)


def _legend(figure: Figure, axes: Axes, with_classes: bool, volumes: Sequence[Line]) -> None:
    handles, names = axes.get_legend_handles_labels() if with_classes else ([], [])
    statuses = {own["status"] for own in volumes}
    for text, colour, there in (
        ("marked", RED, "marked" in statuses),
        ("missing or unreadable", "black", bool(statuses & {"missing", "unreadable"})),
    ):
        if there:
            handles = [*handles, axes.plot([], [], color=colour, lw=1.2, alpha=0.6)[0]]
            names = [*names, text]
    if handles:
        place = {"loc": "outside upper left", "ncols": 6, "frameon": False, "fontsize": 9}
        figure.legend(handles, names, **place)


def by_position(found: Mapping[str, Accuracy], chance: float) -> Figure:
    """Draws accuracy by the position of a volume in its block."""
    figure = Figure(figsize=(6.0, 3.0), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.axhline(chance, color=GREY, ls="--", lw=1, label=f"chance, {chance:.3g}")
    for (name, own), colour in zip(found.items(), COLOURS, strict=False):
        share = [right / count if count else np.nan for right, count in own.by_position]
        axes.plot(np.arange(1, len(share) + 1), share, "o-", color=colour, lw=1.8, ms=4, label=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="volume of the block", ylabel="accuracy", ylim=(0, 1.03))
    axes.legend(frameon=False, fontsize=9)
    return figure
