"""The page of one participant: scans, labels, lost events and decoding results."""

import base64
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from emojax.bids_app import dataset
from emojax.data import losses
from emojax.data.cohort import Cohort
from emojax.files import atomic_write
from emojax.report import page, plots, predictions, template
from emojax.report.cells import Table
from emojax.report.paper.words import head
from emojax.report.schema import Result

FEW = 20  # number of volumes averaged for the mean image
BODY = """\
<p>{{ about }}</p>
{% for t in result %}{{ table(t) }}{% endfor %}
{% if result %}<p><a href="report.html">Report of the group</a>: intervals, noise floor, and what
this does not show.</p>{% endif %}
<h2>Labels</h2>
{% for t in counted %}{{ table(t) }}{% endfor %}
{% if notes %}<ul>
{%- for note in notes %}<li>{{ note }}</li>{% endfor -%}
</ul>{% endif %}
{% for name, caption in captions.items() %}
<figure><img alt="{{ caption }}" src="data:image/png;base64,{{ images[name] }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
<h2>Files</h2>
<ul class="files">
{%- for name in links %}<li><a href="{{ name | urlencode }}">{{ name }}</a></li>{% endfor -%}
</ul>
</body></html>
"""
CAPTIONS = {
    "labels": "The class of every volume, by run; white: no class.",
    "mean": "Mean of some volumes of the first run. L and R: the person's left and right; mm.",
}


def write(
    out: pathlib.Path,
    cohort: Cohort,
    links: Mapping[str, Sequence[str]],
    result: Result | None = None,
) -> list[pathlib.Path]:
    """Writes a page and figures for each subject of a cohort.

    Args:
      out: the output folder.
      cohort: the data.
      links: subject -> its files, relative to `out`.
      result: the group's result, if there is one.

    Returns:
      Paths of the pages.
    """
    pages = []
    for subject in dict.fromkeys(run.subject for run in cohort.runs):
        figures = {"labels": _timeline(cohort, subject), "mean": _mean(cohort, subject)}
        images = {name: page.png(figure) for name, figure in figures.items()}
        folder = out / f"sub-{subject}" / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        for name, image in images.items():
            with atomic_write(folder / f"sub-{subject}_desc-{name}_bold.png") as partial:
                partial.write_bytes(image)
        path = out / f"sub-{subject}.html"
        dataset.write_text(path, render(cohort, subject, images, links[subject], result))
        pages.append(path)
    return pages


def render(
    cohort: Cohort,
    subject: str,
    images: Mapping[str, bytes],
    links: Sequence[str],
    result: Result | None = None,
) -> str:
    """Returns the page of one subject as HTML."""
    scored = None if result is None else _scored(result, subject)
    lost = [loss for loss in cohort.lost if loss.subject == subject]
    counted = [_counts(cohort, subject)]
    if lost:
        counted.append(Table("Events", *losses.table(lost, cohort.classes)))
    first = next(run for run in cohort.runs if run.subject == subject)
    size = " x ".join(map(str, first.frames.shape[1:]))
    tr = "" if first.tr is None else f", TR {first.tr:g} s"
    text = template.TABLE + template.HEAD + BODY
    return page.ENVIRONMENT.from_string(text).render(
        title=f"sub-{subject}",
        headline=_headline(cohort, subject, scored, result),
        about=f"{size} voxels{tr}. First scan: {pathlib.Path(first.place).name}.",
        result=[] if scored is None else _results(scored),
        counted=counted,
        notes=[*losses.remarks(lost), *cohort.notes],
        captions=CAPTIONS,
        images={name: base64.b64encode(image).decode() for name, image in images.items()},
        links=links,
        style=template.STYLE,
    )


def _scored(result: Result, subject: str) -> pd.DataFrame | None:
    """Returns the headline's predictions for a subject, or None if it was not scored."""
    table = result.predictions
    if predictions.PREDICTED not in table:
        return None
    own = table.loc[table["subject"] == subject]
    if "arm" in own:
        first = head(result.metrics)
        own = own.loc[(own["arm"] == (first or {}).get("name")) & (own["instance"] == 0)]
    return own if len(own) else None


def _headline(cohort: Cohort, subject: str, scored: Any, result: Result | None) -> str:
    if scored is None or result is None:
        rows = [row for row in cohort.counts() if row["subject"] == subject]
        used = sum(row["volumes"] - row["unused"] for row in rows)
        found = f"{used} labelled volumes in {len(rows)} runs"
        return f"{found}; none was scored." if result is not None else f"{found}."
    hit = scored["label"] == scored["predicted"]
    shares = hit.groupby(scored["label"]).mean()
    first, chance = head(result.metrics), 1 / len(shares)
    assert first is not None  # its predictions are in `scored`
    return (
        f"{first['name']}, protocol {first['protocol']}: {shares.mean():.3f} balanced accuracy "
        f"over {len(scored)} volumes of this person (chance {chance:.3f}). One person says little "
        "about the group."
    )


def _results(scored: pd.DataFrame) -> list[Table]:
    """Returns tables of accuracy by run and of confusions between classes."""
    hit = scored["label"] == scored["predicted"]
    rows = [
        [str(run), str(len(own)), f"{own.mean():.3f}"]
        for run, own in hit.groupby(scored["run"], sort=False)
    ]
    crossed = pd.crosstab(scored["label"], scored["predicted"])
    confusion = [[str(name), *map(str, row)] for name, *row in crossed.itertuples()]
    return [
        Table("Scored volumes", ("run", "volumes", "accuracy"), rows),
        Table("Predictions by class", ("true class", *map(str, crossed.columns)), confusion),
    ]


def _counts(cohort: Cohort, subject: str) -> Table:
    rows = [row for row in cohort.counts() if row["subject"] == subject]
    names = [name for name in rows[0] if name != "subject"]
    return Table("Volumes", names, [[str(row[name]) for name in names] for row in rows])


def _timeline(cohort: Cohort, subject: str) -> Figure:
    """Draws the class of every volume, one line per run."""
    indices = [i for i, run in enumerate(cohort.runs) if run.subject == subject]
    longest = max(len(cohort.runs[i].frames) for i in indices)
    shown = np.full((len(indices), longest), np.nan)
    for row, index in zip(shown, indices, strict=True):
        here = cohort.run_index == index
        row[cohort.frame[here]] = cohort.labels[here]
    colours = [plots.COLOURS[i % len(plots.COLOURS)] for i in range(len(cohort.classes))]
    figure = Figure(figsize=(9.6, 1.2 + 0.3 * len(indices)), dpi=130, layout="constrained")
    axes = figure.subplots()
    scale = {"vmin": -0.5, "vmax": len(colours) - 0.5, "interpolation": "nearest"}
    axes.imshow(shown, aspect="auto", cmap=ListedColormap(colours), **scale)
    axes.set_yticks(range(len(indices)), [cohort.runs[i].name for i in indices], fontsize=8)
    axes.set_xlabel("volume")
    patches = [Patch(color=c, label=n) for c, n in zip(colours, cohort.classes, strict=True)]
    figure.legend(handles=patches, loc="outside upper left", ncols=6, fontsize=8, frameon=False)
    return figure


def _mean(cohort: Cohort, subject: str) -> Figure:
    """Draws three planes through the mean of some volumes of the first run."""
    from nilearn import plotting  # slow to import

    run = next(run for run in cohort.runs if run.subject == subject)
    run = run.uncleaned or run  # a cleaned run may have a mean of 0
    frames = np.unique(np.linspace(0, len(run.frames) - 1, FEW).astype(int))
    mean = np.nan_to_num(run.read(frames).mean(0))
    image = nib.as_closest_canonical(nib.Nifti1Image(mean, run.affine))
    figure = Figure(figsize=(9.6, 3.2), dpi=130)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "empty mask")
        mode = "ortho" if min(mean.shape) > 1 else "z"
        plotting.plot_img(
            image, display_mode=mode, figure=figure, cmap="gray", colorbar=False, draw_cross=False
        )
    return figure
