"""The files of a report: metrics.json, tables, figures, maps, and one page of HTML."""

import base64
import gzip
import io
import json
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import matplotlib
import nibabel as nib
import numpy as np
from jaxtyping import Float, Num, Shaped
from matplotlib.figure import Figure

from emojax import files
from emojax.files import atomic_write
from emojax.report import (
    alignments,
    designs,
    floors,
    patterns,
    permutations,
    plots,
    searchlights,
    tables,
    template,
    texts,
)
from emojax.report import probabilities as sections
from emojax.report.cells import Table, number_like
from emojax.report.paper import checks, limits, methods, reruns, tuned
from emojax.report.plain import plain

REFERENCES = "references.bib"
BEFORE = ("counts.csv", "events.csv", "metrics.jsonl", "config.json", "run.json")
SEEN = ("Who saw what", "Audit")  # tables in the section on what was tuned
MANY = 24  # rows; longer tables are folded
ENVIRONMENT = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
ENVIRONMENT.tests["leak"] = lambda cell: str(cell).startswith("LEAK")
ENVIRONMENT.tests["number_like"] = number_like


def write(
    folder: pathlib.Path,
    metrics: Mapping[str, Any],
    predictions: Mapping[str, Shaped[np.ndarray, " n"]],
    *,
    figures: Mapping[str, Figure],
    captions: Mapping[str, str],
    curves: Mapping[str, Mapping[str, Float[np.ndarray, "lines epochs"]]],
    maps: Mapping[str, tuple[Num[np.ndarray, "X Y Z"], Float[np.ndarray, "4 4"]]],
) -> None:
    """Writes every file of a report; metrics.json comes last, so it marks a complete report.

    Args:
      folder: the workdir, created if it is missing.
      metrics: content of metrics.json.
      predictions: columns of predictions.csv, by name.
      figures: figures, by file name.
      captions: text below each figure, by the same name.
      curves: arm -> curve -> one line per fold and instance.
      maps: values and affine of each NIfTI file, by file name.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    images = {name: png(figure) for name, figure in figures.items()}
    for name, image in images.items():
        with atomic_write(folder / "figures" / f"{name}.png") as partial:
            partial.write_bytes(image)
    for name, (values, affine) in maps.items():
        image = nib.Nifti1Image(values, affine)
        image.header.set_xyzt_units("mm")
        packed = gzip.compress(image.to_bytes(), mtime=0)  # equal maps give identical files
        with atomic_write(folder / f"{name}.nii.gz") as partial:
            partial.write_bytes(packed)
    files.write_csv(folder / "predictions.csv", predictions)
    there = [name for name in BEFORE if (folder / name).exists()]
    links = ["metrics.json", "predictions.csv", *there, "curves.json"]
    links += [f"{name}.nii.gz" for name in maps] + [f"figures/{name}.png" for name in images]
    written = methods.make(metrics)
    if written:
        links.append(REFERENCES)
    for name, text in (
        *([(REFERENCES, written.bibtex)] if written else []),
        ("curves.json", json.dumps(plain(curves), allow_nan=False)),
        ("report.html", render(metrics, images, captions, links)),
        ("metrics.json", json.dumps(metrics, indent=1, allow_nan=False)),
    ):
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def png(figure: Figure) -> bytes:
    """Returns a figure as PNG bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(plots.LITERAL), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # no font for the script of a name
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def render(
    metrics: Mapping[str, Any],
    images: Mapping[str, bytes],
    captions: Mapping[str, str],
    links: Sequence[str] = (),
) -> str:
    """Returns the report as one self-contained HTML page.

    Args:
      metrics: content of metrics.json.
      images: PNG bytes of each figure, by name.
      captions: text below each figure, by the same name.
      links: names of the files beside the page to link to.
    """
    spent = [f"{stage} {seconds:.1f} s" for stage, seconds in metrics["seconds"].items()]
    versions = [f"{name} {version}" for name, version in metrics["versions"].items()]
    main, *details = tables.make(metrics)
    return ENVIRONMENT.from_string(template.PAGE).render(
        title=texts.title(metrics),
        headline=texts.headline(metrics),
        data=texts.data(metrics),
        notes=[*(metrics.get("notes") or []), *alignments.parcels(metrics)],
        links=links,
        many=MANY,
        main=main,
        checks=checks.make(metrics),
        tuned=tuned.table(metrics),
        seen=[t for t in details if t.title in SEEN],
        details=[t for t in details if t.title not in SEEN],
        limits=limits.sentences(metrics),
        methods=methods.make(metrics),
        bibliography=REFERENCES if REFERENCES in links else "",
        reruns=reruns.commands(metrics),
        unconverged=texts.unconverged(metrics),
        audit=texts.audit(metrics),
        terms=texts.terms(metrics),
        permutation=permutations.section(metrics),
        floor=floors.section(metrics),
        design=designs.section(metrics),
        alignments=alignments.section(metrics),
        patterns=patterns.section(metrics),
        searchlight=searchlights.section(metrics),
        probabilities=sections.section(metrics),
        images={name: base64.b64encode(image).decode() for name, image in images.items()},
        captions=captions,
        command=metrics["command"],
        device=metrics["device"],
        versions=", ".join(versions),
        spent=", ".join(spent),
        config=json.dumps(metrics["config"], indent=1),
        style=template.STYLE,
    )


def render_table(table: Table) -> str:
    """Returns a table as HTML, for notebooks."""
    macros = ENVIRONMENT.from_string(template.TABLE).module
    return str(macros.table(table))  # pyright: ignore[reportAttributeAccessIssue]  # a macro
