"""The top-level files of the output: description, README, .bidsignore and citations."""

import importlib.metadata
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import emojax
from emojax.bids_app.output import DESCRIPTION, FOLDER, NAME, RAW, RUN, STORE, real
from emojax.bids_app.request import Request
from emojax.errors import InputError
from emojax.files import atomic_write
from emojax.report.paper import methods
from emojax.sources.inheritance import read_json

VERSION = "1.10.0"  # version of BIDS
DERIVATIVES = "derivatives"  # name of a link, like RAW
# Patterns in the validator's syntax. Its schema has no rule yet for events with a desc.
IGNORED = ("*.html", "logs", "figures", f"/{FOLDER}", "*_desc-labels_events.*")
IGNORED += ("*_desc-decoded_events.*",)
README = """{title}

Written by emojax {version}, as a BIDS App, from {sources}:

    {typed}

sub-*/**/*_desc-labels_events.tsv    volumes with their class according to the events of the run
sub-*/**/*_desc-decoded_events.tsv   scored volumes with their class and the decoder's prediction
sub-*.html                           pages of single participants
report.html                          report of the group
logs/CITATION.md, .bib               methods of this run as text, with references
{run:<37}workdir of the group run: metrics.json, figures, maps,
                                     predictions.csv with every row of the result table
{store:<37}decoded scans; may be removed

Events in *_desc-decoded_events.tsv are volumes: onset is the start of a volume in s, trial_type its
true class, predicted the decoded class. The .json file beside each table describes its columns.
"""


def write(request: Request) -> None:
    """Writes description, README and .bidsignore; the description last."""
    request.out.mkdir(parents=True, exist_ok=True)
    made = describe(request)
    named = [str(request.bids_dir), *_more(request, str(request.root))]
    text = README.format(
        title=made["Name"],
        version=emojax.__version__,
        sources=" and ".join(named),
        typed=request.typed,
        run=f"{FOLDER}/{RUN}/",
        store=f"{FOLDER}/{STORE}/",
    )
    write_text(request.out / "README", text)
    write_text(request.out / ".bidsignore", "".join(f"{line}\n" for line in IGNORED))
    write_json(request.out / DESCRIPTION, made)


def describe(request: Request) -> dict[str, Any]:
    """Returns the content of dataset_description.json."""
    links = {RAW: link(request.bids_dir, request.out)}
    if request.root != request.bids_dir:
        links[DERIVATIVES] = link(request.root, request.out)
    sources = []
    for path in dict.fromkeys((request.bids_dir, request.root)):
        stated = _stated(path)
        entry = {"URL": link(path, request.out)}
        if isinstance(doi := stated.get("DatasetDOI"), str) and doi:
            entry["DOI"] = doi
        sources.append(entry)
    name = _stated(request.bids_dir).get("Name")
    name = name if isinstance(name, str) and name else request.bids_dir.absolute().name
    return {
        "Name": f"Volumes of {name}, decoded by emojax",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [_generator()],
        "SourceDatasets": sources,
        "DatasetLinks": links,
        "HowToAcknowledge": "logs/CITATION.md has the methods of this run and their references.",
    }


def source_uri(request: Request, path: str) -> str:
    """Returns the BIDS URI of a source file, or its name if it is outside both data sets."""
    places = ((DERIVATIVES, request.root), (RAW, request.bids_dir))
    for name, root in places if request.root != request.bids_dir else places[1:]:
        if pathlib.Path(path).is_relative_to(root):
            return f"bids:{name}:{pathlib.Path(path).relative_to(root).as_posix()}"
    return pathlib.Path(path).name


def write_citation(out: pathlib.Path, metrics: Mapping[str, Any]) -> None:
    """Writes the methods of the run, as in its report, to logs/CITATION.md and CITATION.bib."""
    written = methods.make(metrics)
    if written is None:
        return
    (out / "logs").mkdir(exist_ok=True)
    lines = ["# Methods", ""]
    for part in written.paragraphs:
        lines += [f"**{part.title}.** {part.text}", ""]
    lines += ["## References", ""]
    lines += [f"{i}. {work}" for i, work in enumerate(written.references, 1)]
    write_text(out / "logs" / "CITATION.md", "\n".join(lines) + "\n")
    write_text(out / "logs" / "CITATION.bib", written.bibtex)


def link(path: pathlib.Path, out: pathlib.Path) -> str:
    """Returns the path of a folder relative to the output, so that both can be moved together."""
    try:
        return pathlib.Path(os.path.relpath(real(path), real(out))).as_posix()
    except ValueError:  # another drive
        return real(path).as_uri()


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _generator() -> dict[str, Any]:
    made: dict[str, Any] = {"Name": NAME, "Version": emojax.__version__}
    made["Description"] = "Decoding of emotional brain states from single volumes."
    if url := _code_url():
        made["CodeURL"] = url
    kind, tag = (os.environ.get(f"EMOJAX_CONTAINER_{part}", "") for part in ("TYPE", "TAG"))
    if os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER"):
        kind = "apptainer" if os.environ.get("APPTAINER_CONTAINER") else "singularity"
    if kind:
        made["Container"] = {"Type": kind} | ({"Tag": tag} if tag else {})
    return made


def _code_url() -> str:
    """Returns the source URL in the metadata of the installed package, or ""."""
    try:
        stated: Sequence[str] = importlib.metadata.metadata(NAME).get_all("Project-URL") or ()
    except importlib.metadata.PackageNotFoundError:
        return ""
    pairs = [entry.partition(",")[::2] for entry in stated]
    named = [url.strip() for name, url in pairs if name.strip().lower() in ("source", "repository")]
    return named[0] if named else ""


def _stated(root: pathlib.Path) -> dict[str, Any]:
    """Returns the description of a source data set; {} if none can be read."""
    try:
        return read_json(root / DESCRIPTION)
    except InputError:
        return {}


def _more(request: Request, path: str) -> list[str]:
    return [path] if request.root != request.bids_dir else []
