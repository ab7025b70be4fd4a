"""The report of a run: metrics.json, predictions.csv, figures, a map, and one page of HTML."""

import base64
import dataclasses
import gzip
import html
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import rich.console
import rich.markup
import rich.table
from matplotlib.figure import Figure

from emojax import files
from emojax.files import atomic_write

MEANING = {
    "nested": "epoch chosen on a training subject that was held back; nothing about the scored "
    "volumes was used. This is the number to quote.",
    "last": "as nested, but the final epoch is kept: no choice at all.",
    "paper": "the published procedure: voxels and alignment fitted to everybody, epoch and rate "
    "chosen by the scores of the test subject itself, its volumes oversampled. Optimistic.",
}
SPLITS = {
    "by_subject": "tested on people of whom the network has seen nothing: what a decoder for a new "
    "participant would reach.",
    "by_run": "tested on whole runs that it has not seen, of people of whom it knows other runs.",
    "by_block": "tested on whole blocks that it has not seen, of runs that it knows others of: for "
    "studies of a single run. Where one block follows another, neighbours are still apart.",
    "random": "the published split: single volumes are dealt at random, so that of nearly every "
    "test volume the network has seen a neighbour in time, with its label. A block is several such "
    "volumes, and noise changes slowly: whoever remembers the block knows the answer. Compare what "
    "the same split gives on noise, above all to 1-NN, which only remembers.",
}
REGIMES = {
    "group": "one rotation for everybody, from the training subjects alone (the paper's text).",
    "independent_runs": "the scored subject's own rotation, from its runs that are not scored.",
    "transductive": "the scored subject's own rotation, from the scored volumes without labels.",
    "none": "no alignment: the chosen voxels as they are.",
}
CONSOLE = {  # columns for the terminal, and their names there
    "": "",
    "balanced accuracy": "bal. acc. (sd)",
    "95 % interval": "95 % interval",
    "nested minus it": "gain",
    "network minus it": "gain",
    "L2": "L2",
    "training accuracy": "training",
    "validation accuracy": "validation",
    "p": "p",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
caption { caption-side: top; text-align: left; font-weight: 600; padding-bottom: .3rem }
img { max-width: 100% } figure { margin: 1.5rem 0 } figcaption { color: #555; font-size: .9rem }
.wide { overflow-x: auto }
.headline { font-size: 1.5rem; line-height: 1.35 } .leak { color: #b02a00; font-weight: 600 }
pre { background: #f5f5f5; padding: .3rem; white-space: pre-wrap; word-break: break-word }
"""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of text under a header."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run found, ready to be written."""

    title: str
    headline: str  # one sentence
    metrics: dict[str, Any]  # metrics.json
    predictions: Mapping[str, np.ndarray]  # column -> one value per scored volume
    curves: Mapping[str, Mapping[str, np.ndarray]]  # training -> name -> [folds, epochs]
    tables: Sequence[Table]
    figures: Mapping[str, tuple[Figure, str]]  # file name -> figure, caption
    protocols: Sequence[str] = ()
    maps: Mapping[str, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)


def write(folder: pathlib.Path, result: Result) -> None:
    """Writes everything; metrics.json last, so that it stands for a whole report.

    Args:
      folder: the workdir.
      result: see `Result`; `maps` are name -> (values [X, Y, Z], affine), written as NIfTI.
    """
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    images = {}
    for name, (figure, _) in result.figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
        images[name] = buffer.getvalue()
        with atomic_write(figures / f"{name}.png") as partial:
            partial.write_bytes(images[name])
    for name, (values, affine) in result.maps.items():
        image = nib.Nifti1Image(values, affine).to_bytes()
        with atomic_write(folder / f"{name}.nii.gz") as partial:
            partial.write_bytes(gzip.compress(image, mtime=0))  # equal maps are equal files
    files.write_csv(folder / "predictions.csv", result.predictions)
    plain = {
        training: {name: _finite(values) for name, values in found.items()}
        for training, found in result.curves.items()
    }
    for name, text in (
        ("curves.json", json.dumps(plain, allow_nan=False)),
        ("report.html", page(result, images)),
        ("metrics.json", json.dumps(result.metrics, indent=1, allow_nan=False)),
    ):
        with atomic_write(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def _finite(values) -> list:
    """Nested lists for JSON, which knows neither NaN nor infinity: None for them."""
    values = np.asarray(values)
    return np.where(np.isfinite(values), values.astype(object), None).tolist()


def page(result: Result, images: Mapping[str, bytes]) -> str:
    """The report as one self-contained page."""
    parts = [f"<h1>{_text(result.title)}</h1>", f'<p class="headline">{_text(result.headline)}</p>']
    said = {name: (MEANING | SPLITS)[name] for name in result.protocols}
    said |= {f"alignment {name}": REGIMES[name] for name in _regimes(result.metrics)}
    if said:
        terms = (f"<dt><b>{_text(k)}</b></dt><dd>{_text(v)}</dd>" for k, v in said.items())
        parts.append(f"<dl>{''.join(terms)}</dl>")
    parts += [_table(table) for table in result.tables[:1]]
    if unfinished := _unconverged(result.metrics):
        parts.append(f"<p>Stopped before they converged: {_text(unfinished)}.</p>")
    parts.append("<h2>Figures</h2>")
    for name, (_, caption) in result.figures.items():
        data = base64.b64encode(images[name]).decode()
        parts.append(
            f'<figure><img alt="{_text(caption)}" src="data:image/png;base64,{data}">'
            f"<figcaption>{_text(caption)}</figcaption></figure>"
        )
    parts += ["<h2>Details</h2>", *(_table(table) for table in result.tables[1:])]
    metrics = result.metrics
    spent = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in metrics["seconds"].items())
    versions = ", ".join(f"{name} {version}" for name, version in metrics["versions"].items())
    config = json.dumps(metrics["config"], indent=1)
    parts += [
        "<h2>How it was made</h2>",
        f"<pre>{_text(metrics['command'])}</pre>",
        f"<p>{_text(metrics['device'])}. {_text(versions)}.</p><p>Time: {_text(spent)}.</p>",
        f"<details><summary>configuration</summary><pre>{_text(config)}</pre></details>",
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(result.title)}</title>'
        f"<style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )


def _regimes(metrics: Mapping[str, Any]) -> list[str]:
    """The alignment regimes in the result, the headline's first."""
    others = (name.removeprefix("nested, ") for name in metrics.get("summary", {}))
    found = dict.fromkeys((metrics.get("regime"), *others))
    return [name for name in found if name in REGIMES]


def _unconverged(metrics: Mapping[str, Any]) -> str:
    """The baselines that did not converge, and in how many folds."""
    folds = [fold["baselines"] for fold in metrics.get("folds", [])]
    names = dict.fromkeys(name for fold in folds for name in fold)
    counts = {n: sum(not f[n].get("converged", True) for f in folds if n in f) for n in names}
    return ", ".join(
        f"{n} in {count} of {len(folds)} folds" for n, count in counts.items() if count
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in table.header)
    body = ""
    for row in table.rows:
        leak = ' class="leak"' if any(cell.startswith("LEAK") for cell in row) else ""
        body += f"<tr{leak}>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>"
    note = f"<p>{_text(table.note)}</p>" if table.note else ""
    head = f"<caption>{_text(table.title)}</caption><thead><tr>{head}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>{note}'


def _text(value: object) -> str:
    return html.escape(str(value))


def print_table(result: Result, console: rich.console.Console) -> None:
    """The headline and the main columns of the first table, for the terminal."""
    first = result.tables[0]
    keep = [i for i, name in enumerate(first.header) if name in CONSOLE]
    table = rich.table.Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for i in keep:
        side = "left" if i == 0 else "right"
        table.add_column(CONSOLE[first.header[i]], justify=side, no_wrap=True)
    for row in first.rows:
        table.add_row(*(rich.markup.escape(row[i]) for i in keep))
    console.print(table)
    console.print(result.headline, markup=False)
    if unfinished := _unconverged(result.metrics):
        console.print(f"Stopped before they converged: {unfinished}.", markup=False)
