"""Figures of the report: plain arrays in, a matplotlib Figure out."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's colour-blind-safe palette, without the yellow, which is too pale for lines.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#777777"
COLOURS = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9", "#000000")
MANY_FOLDS = 6  # above this, the lines of all folds cannot be told apart in one panel
Interval = Sequence[float] | None  # low, high
LITERAL: dict[Any, Any] = {"text.parse_math": False}  # draws a dollar sign in a name as such
UNITS = {"loss": "loss (nats, with penalty)", "accuracy": "accuracy"}


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def _bare(axes):
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def accuracies(
    rows: Sequence[tuple[str, Sequence[float], Interval]],
    chance: float,
    floor: Interval = None,
    ours: Collection[str] = (),
    leaky: Collection[str] = (),
) -> Figure:
    """Draws one line per row: a dot per fold, the mean and its interval.

    Args:
      rows: name, accuracy of each fold, and interval.
      chance: chance level, drawn as a vertical line.
      floor: interval of the noise floor, or None.
      ours: names of the networks' rows, drawn in another colour.
      leaky: names of leaky rows, marked by colour and in words.
    """
    figure = _figure(7.5, 0.9 + 0.34 * len(rows))
    axes = _bare(figure.subplots())
    if floor is not None:
        axes.axvspan(*floor, color=GREY, alpha=0.25, lw=0, label="noise floor, 95 % interval")
    axes.axvline(chance, color=GREY, ls="--", lw=1, label=f"chance, {chance:.3g}")
    for i, (name, values, interval) in enumerate(rows):
        colour = RED if name in leaky else BLUE if name in ours else ORANGE
        jitter = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else [0]
        axes.scatter(values, i + np.asarray(jitter), s=12, color=colour, alpha=0.45, lw=0)
        if interval is not None:
            axes.plot(interval, [i, i], color=colour, lw=3, solid_capstyle="round")
        mean = float(np.mean(values))
        axes.plot(mean, i, "o", color=colour, ms=7, mec="white")
        axes.annotate(
            f"{mean:.3f}", (1.01, i), xycoords=("axes fraction", "data"), va="center", fontsize=9
        )
    names = [f"{name} (leaky)" if name in leaky else name for name, *_ in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlabel("balanced accuracy of the scored volumes (dots: folds; bar: 95 % interval)")
    figure.legend(loc="outside upper left", fontsize=8, frameon=False, ncols=2)
    return figure


def by_split(
    panels: Mapping[str, Mapping[str, tuple[float, Interval, float | None]]],
    chance: float,
    ours: str = "",
    leaky: Collection[str] = (),
) -> Figure:
    """Draws one panel per split, with a line per classifier and its noise floor.

    Args:
      panels: split -> classifier -> mean, interval, and noise floor or None.
      chance: chance level, drawn as a vertical line.
      ours: name of the classifier drawn in another colour.
      leaky: names of leaky splits, marked by colour and in words.
    """
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    figure = _figure(2.2 + 2.5 * len(panels), 1.3 + 0.36 * len(names))
    grid = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (split, rows) in zip(grid, panels.items(), strict=True):
        _bare(axes).axvline(chance, color=GREY, ls="--", lw=1, label=f"chance, {chance:.3g}")
        red = split in leaky
        axes.set_title(f"{split} (leaky)" if red else split, color=RED if red else "black")
        for i, name in enumerate(names):
            if name not in rows:
                continue
            mean, interval, noise = rows[name]
            colour = RED if red else BLUE if name == ours else ORANGE
            if interval is not None:
                axes.plot(interval, [i, i], color=colour, lw=2.5, alpha=0.6, solid_capstyle="round")
            axes.plot(mean, i, "o", color=colour, ms=7, mec="white", zorder=3)
            if noise is not None:
                axes.plot(noise, i, "D", color="white", mec="black", ms=6, zorder=4)
            axes.annotate(
                f"{mean:.2f}", (1, i), xycoords=("axes fraction", "data"), va="center", fontsize=8
            )
        axes.plot([], [], "o", color="black", ms=7, label="measured, with 95 % interval")
        axes.plot([], [], "D", color="white", mec="black", ms=6, label="noise floor")
    grid[0].set_yticks(range(len(names)), names)
    grid[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("balanced accuracy of volumes that are new in this respect", fontsize=10)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure


def confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draws the share of each true class (row) that was predicted as each class; rows sum to 1.

    Args:
      matrix: [classes, classes] numbers of volumes, by true and predicted class.
      classes: names of the classes.
    """
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    size = 2.2 + 0.62 * len(classes)
    figure = _figure(size + 0.6, size)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.ndindex(share.shape):
        colour = "white" if share[i, j] > 0.55 else "black"
        text = f"{share[i, j]:.2f}\n{matrix[i, j]:g}" if len(classes) < 6 else f"{share[i, j]:.2f}"
        axes.text(j, i, text, ha="center", va="center", color=colour, fontsize=8)
    long = sum(map(len, classes)) > 30
    axes.set_xticks(range(len(classes)), classes, rotation=45 if long else 0)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, label="share of the true class", shrink=0.8)
    return figure


def curves(
    found: Mapping[str, Mapping[str, np.ndarray]],
    titles: Mapping[str, str],
    names: Sequence[str] | None = None,
    leaky: Collection[str] = (),
) -> Figure:
    """Draws loss and accuracy by epoch: a column per training, or a panel per fold if many.

    In a column, thin lines are folds and thick lines their mean. In the panel of a fold, each
    training has a colour: thick for the monitored volumes, thin for its training batches.

    Args:
      found: name -> {"train_loss", "loss", "train_accuracy", "accuracy"} [folds, epochs].
      titles: name -> which volumes were monitored, in words.
      names: names of the folds, for their panels; by default their numbers, from 1.
      leaky: names of trainings drawn in red.
    """
    count = len(next(iter(found.values()))["loss"])
    if count > MANY_FOLDS:
        names = names or [f"fold {i + 1}" for i in range(count)]
        return _curves_by_fold(found, titles, names, leaky)
    figure = _figure(4.0 * len(found) + 0.6, 5.2)
    grid = figure.subplots(2, len(found), squeeze=False, sharex="col")
    for column, (name, values) in enumerate(found.items()):
        for row, kind in enumerate(("loss", "accuracy")):
            axes = _bare(grid[row, column])
            for key, colour, label in (
                (f"train_{kind}", GREY, "training batches (in training mode)"),
                (kind, BLUE, "monitored"),
            ):
                lines = np.asarray(values[key])
                epochs = np.arange(1, lines.shape[1] + 1)
                axes.plot(epochs, lines.T, color=colour, lw=0.6, alpha=0.35)
                axes.plot(epochs, lines.mean(0), color=colour, lw=2, label=label)
            _scale(axes, kind, [values[f"train_{kind}"], values[kind]])
            axes.set_ylabel(UNITS[kind])
        grid[0, column].set_title(f"{name}\n{titles[name]}", fontsize=10)
        grid[1, column].set_xlabel("epoch")
        grid[1, column].xaxis.set_major_locator(MaxNLocator(integer=True))
    grid[0, 0].legend(fontsize=8, frameon=False)
    return figure


def _scale(axes, kind, lines):
    """Uses a log axis for losses that span more than a factor of 20; accuracies end at 1."""
    lines = np.concatenate([np.ravel(line) for line in lines])
    lines = lines[np.isfinite(lines)]
    if kind == "accuracy":
        axes.set_ylim(top=1.02)
    elif lines.size and lines.max() > 20 * max(lines.min(), 1e-9):
        axes.set_yscale("log")


def _curves_by_fold(found, titles, names, leaky) -> Figure:
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = _figure(10, 3.4 * rows + 1)
    parts = figure.subfigures(2, 1, squeeze=False)[:, 0]
    handles, labels = [], []
    for part, kind in zip(parts, UNITS, strict=True):
        grid = part.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for i, axes in enumerate(grid.flat):
            if i >= len(names):
                axes.remove()
                continue
            _bare(axes).set_title(names[i], fontsize=10)
            for j, (training, values) in enumerate(found.items()):
                colour = RED if training in leaky else COLOURS[j % len(COLOURS)]
                batches, monitored = values[f"train_{kind}"][i], values[kind][i]
                epochs = np.arange(1, len(monitored) + 1)
                for line, width, label in (
                    (monitored, 1.8, f"{training}, {titles[training]}"),
                    (batches, 0.8, f"{training}, training batches (in training mode)"),
                ):
                    axes.plot(epochs, line, color=colour, lw=width, label=label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
            axes.tick_params(labelbottom=i + columns >= len(names), labelsize=9)
        both = (f"train_{kind}", kind)
        _scale(grid[0, 0], kind, [values[key] for values in found.values() for key in both])
        part.supylabel(UNITS[kind], fontsize=11)
        part.supxlabel("epoch", fontsize=11)
        handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, fontsize=9, frameon=False)
    return figure


def roc(curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]], title: str = "") -> Figure:
    """Draws ROC curves.

    Args:
      curves: class -> false positive rates, true positive rates, and area under the curve.
      title: title of the figure.
    """
    figure = _figure(4.6, 4.4)
    axes = _bare(figure.subplots())
    axes.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1)
    for i, (name, (x, y, area)) in enumerate(curves.items()):
        turn, colour = divmod(i, len(COLOURS))
        style = ("-", "--", ":")[turn % 3]
        axes.plot(x, y, style, color=COLOURS[colour], lw=1.8, label=f"{name}: {area:.3f}")
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title=title, aspect="equal")
    axes.legend(title="area under the curve", fontsize=8, title_fontsize=8, frameon=False)
    return figure


def reliability(curves: Mapping[str, Mapping[str, Sequence[float | None]]]) -> Figure:
    """Draws accuracy by confidence, and below it the number of volumes in each bin.

    Args:
      curves: name -> "count", "confidence" and "accuracy" of each bin; None in an empty bin.
    """
    figure = _figure(5.2, 5.6)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _bare(above).plot([0, 1], [0, 1], color=GREY, ls="--", lw=1)
    for i, (name, bins) in enumerate(curves.items()):
        count, x, y = (np.array(bins[key], float) for key in ("count", "confidence", "accuracy"))
        there, width = count > 0, 1 / len(count)
        colour = COLOURS[i % len(COLOURS)]
        above.plot(x[there], y[there], "-", color=colour, lw=1.8, label=name)
        above.scatter(x[there], y[there], s=10 + 90 * count[there] / count.max(), color=colour)
        edges = np.arange(len(count) + 1) * width
        _bare(below).stairs(count, edges, color=colour, lw=1.8)
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    below.set(xlabel="highest probability of a volume", ylabel="volumes")
    above.legend(fontsize=8, frameon=False)
    return figure


def ladder(rows: Sequence[tuple[str, float, Interval]], chance: float) -> Figure:
    """Draws accuracy while leaks are closed one by one, from the published procedure down.

    Args:
      rows: name, mean, and interval of each step.
      chance: chance level, drawn as a vertical line.
    """
    figure = _figure(8.2, 0.9 + 0.5 * len(rows))
    axes = _bare(figure.subplots())
    for i, (_, mean, interval) in enumerate(rows):
        colour = BLUE if i == len(rows) - 1 else RED
        axes.barh(i, mean, color=colour, alpha=0.75, height=0.6)
        if interval is not None:
            axes.plot(interval, [i, i], color="black", lw=1.5)
        step = "" if i == 0 else f"  ({mean - rows[i - 1][1]:+.3f})"
        axes.annotate(
            f"{mean:.3f}{step}",
            (1.01, i),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=9,
        )
    axes.axvline(chance, color=GREY, ls="--", lw=1)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel("balanced accuracy (dashed: chance; black: 95 % interval)")
    return figure


def correlation(before: Sequence[float], after: Sequence[float]) -> Figure:
    """Draws the correlation between training subjects before and after alignment.

    Args:
      before: correlation in each fold before alignment.
      after: correlation in each fold after alignment.
    """
    figure = _figure(3.4, 3.6)
    axes = _bare(figure.subplots())
    axes.plot([0, 1], [before, after], color=GREY, lw=0.8, alpha=0.6)
    axes.plot([0, 1], [np.mean(before), np.mean(after)], "o-", color=BLUE, lw=2.5)
    axes.set_xticks([0, 1], ["before", "after alignment"])
    axes.set(xlim=(-0.3, 1.3), ylabel="inter-subject correlation (r)")
    return figure


def sweep(factors: Sequence[float], rows: Sequence[Mapping[str, float]]) -> Figure:
    """Draws training and validation loss and accuracy by penalty factor.

    Args:
      factors: penalty factor of each row.
      rows: "loss", "train_loss", "accuracy" and "train_accuracy"; NaN or None if diverged.
    """
    figure = _figure(8.4, 3.4)
    order = np.argsort(factors)
    grid = figure.subplots(1, 2)
    for axes, kind in zip(grid, UNITS, strict=True):
        for key, colour, label in (
            (f"train_{kind}", GREY, "training batches"),
            (kind, BLUE, "validation"),
        ):
            values = np.array([row[key] for row in rows], float)[order]
            _bare(axes).plot(np.array(factors)[order], values, "o-", color=colour, label=label)
        axes.set(xscale="log", xlabel="L2 factor", ylabel=UNITS[kind])
    grid[-1].legend(frameon=False, fontsize=9)
    return figure
