"""The two analysis levels of the app: single participants, and the experiment on the group."""

import contextlib
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from emojax import experiments, sources
from emojax.bids_app import dataset, names, pages, tables
from emojax.bids_app.output import DESCRIPTION, FOLDER, RUN, STORE
from emojax.bids_app.request import Request
from emojax.cluster import team
from emojax.data import store
from emojax.data.belonging import check_classes
from emojax.data.cohort import Cohort
from emojax.errors import InputError, say
from emojax.experiments import settings
from emojax.locks import Held
from emojax.report import console as consoles
from emojax.report.schema import Result

LABELS, DECODED = "labels", "decoded"  # values of entity desc in names of tables
LINK = re.compile(r'(<a href=")(?!#|[a-z]+:)')


def participant(request: Request) -> None:
    """Reads and checks each participant, and writes its labels, its counts and a page.

    Raises:
      InputError: a participant cannot be used; the others are still written.
    """
    settings.check(request.config)
    console, failed = consoles.make(), {}
    for label in request.labels:
        try:
            with _nothing_left(request, (label,)):
                cohort = _read(request, (label,))
        except InputError as error:
            failed[f"sub-{label}"] = error
            continue
        console.print(f"sub-{label}", markup=False)
        consoles.show_counts(console, cohort)
        dataset.write(request)
        _write_labels(request, cohort)
        folder = request.out / FOLDER / f"sub-{label}"
        folder.mkdir(parents=True, exist_ok=True)
        consoles.write_counts(folder, cohort)
        (page,) = pages.write(request.out, cohort, _files(cohort, LABELS))
        console.print(f"page: {page}", markup=False)
    if failed:
        raise _failed(failed, len(request.labels))


def _failed(failed: Mapping[str, InputError], count: int) -> InputError:
    """Returns the error about unusable participants, after printing a line on each of them.

    If all have the same error, a setting is wrong, and this error alone is returned.
    """
    if len(failed) == count and len(set(map(str, failed.values()))) == 1:
        return next(iter(failed.values()))
    for name, error in failed.items():
        say(f"{name}: {error}")
    found = f"{len(failed)} of {count} that cannot be used: {', '.join(failed)}"
    expected = "data that meet the lines above, or only the others (--participant-label)"
    return InputError("participants", found, expected)


def group(request: Request) -> None:
    """Runs the experiment on all participants, and writes its results as derivatives.

    An interrupted run resumes; a finished one prints its table, and its derivatives are rewritten.

    Raises:
      InputError: as `experiments.run`.
    """
    settings.check(request.config)
    with _nothing_left(request, request.labels), team.nothing_left(request.workdir):
        cohort = _read(request, request.labels if request.config.data.subjects else ())
        experiments.run(
            request.config,
            request.workdir,
            cohort,
            command=request.command,
            restart=request.restart,
        )
    dataset.write(request)
    result = Result.load(request.workdir)  # from disk, so that a finished run gives the same files
    _write_labels(request, cohort)
    written = _write_decoded(request, cohort, result)
    pages.write(request.out, cohort, written, result)
    dataset.write_citation(request.out, result.metrics)
    _write_report(request)
    consoles.make().print(f"derivatives: {request.out}", markup=False)


@contextlib.contextmanager
def _nothing_left(request: Request, labels: Sequence[str]) -> Iterator[None]:
    """Removes decoded scans and empty folders of a newly created output if input is rejected.

    Files that another job has begun to write there are kept, and so is an interrupted output, which
    can be resumed.

    Args:
      request: the call.
      labels: participants whose scans are read.
    """
    there = request.out.exists()
    try:
        yield
    except Held:
        raise
    except InputError:
        if not there and request.out.is_dir():
            with contextlib.suppress(OSError, InputError):
                _remove_scans(request, labels)
        raise


def _remove_scans(request: Request, labels: Sequence[str]) -> None:
    """Removes decoded scans of participants, and empty folders, from an output without results.

    Raises:
      OSError: a folder holds other files, or cannot be removed.
      InputError: the store of the output holds other files.
    """
    results = (request.out / DESCRIPTION, request.workdir, *request.out.glob("sub-*"))
    if any(path.exists() for path in results):
        return
    folder = request.out / FOLDER / STORE
    if folder.is_dir() and not any(folder.rglob("*.partial")):  # no other job is decoding scans
        own = {f"sub-{label}" for label in labels}
        entries = store.entries(folder)
        ours = {e.source for e in entries if own & set(pathlib.Path(e.source).parts)}
        if {e.source for e in entries if e.source} <= ours:
            ours.add("")  # arrays do not name their scans, but all scans are ours
        for entry in entries:
            if entry.source in ours:
                entry.path.unlink(missing_ok=True)
    for path in (folder / "paths", folder, request.out / FOLDER, request.out):
        if path.exists():
            path.rmdir()  # fails unless the folder is empty


def _read(request: Request, labels: Sequence[str]) -> Cohort:
    """Reads participants; all if there are no labels.

    Raises:
      InputError: their data cannot be used.
    """
    config = request.config.copy_and_resolve_references()
    config.data.subjects = ",".join(labels)
    cohort = sources.load(config.data)
    check_classes(cohort)
    return cohort


def _runs(cohort: Cohort) -> Iterator[tuple[int, names.Place]]:
    """Yields number and place of each run."""
    for index, run in enumerate(cohort.runs):
        yield index, names.of(run)


def _sources(request: Request, cohort: Cohort, index: int) -> list[str]:
    """Returns the source files of a run: scan, events, mask and sidecars."""
    return [dataset.source_uri(request, path) for path in cohort.runs[index].hashes]


def _files(cohort: Cohort, desc: str) -> dict[str, list[str]]:
    """Returns subject -> its tables, relative to the output."""
    found: dict[str, list[str]] = {}
    for index, place in _runs(cohort):
        own = found.setdefault(cohort.runs[index].subject, [])
        own.append(place.file(desc, "events", ".tsv"))
    return found


def _write_labels(request: Request, cohort: Cohort) -> None:
    label_map = request.config.data.label_map
    for index, place in _runs(cohort):
        read = _sources(request, cohort, index)
        sidecar = tables.labelled_sidecar(cohort, label_map, read)
        path = request.out / place.file(LABELS, "events", ".tsv")
        tables.write(path, tables.labelled(cohort, index), sidecar)


def _write_decoded(request: Request, cohort: Cohort, result: Result) -> dict[str, list[str]]:
    """Writes the decoded events of each scored run, and removes tables of other runs.

    Returns:
      Subject -> its tables, relative to the output.
    """
    written, kept = _files(cohort, LABELS), set()
    for index, place in _runs(cohort):
        table = tables.decoded(result, cohort, index)
        if not len(table):
            continue
        read = _sources(request, cohort, index)
        sidecar = tables.decoded_sidecar(result.metrics, table, read)
        name = place.file(DECODED, "events", ".tsv")
        tables.write(request.out / name, table, sidecar)
        written[cohort.runs[index].subject].append(name)
        kept.add(request.out / name)
    for path in request.out.glob(f"sub-*/**/*_desc-{DECODED}_events.*"):
        if path.with_suffix(".tsv") not in kept:
            path.unlink()  # left by an earlier run, whose workdir --restart has removed
    return written


def _write_report(request: Request) -> None:
    """Copies the report of the run to the top of the output, and adapts its links."""
    text = (request.workdir / "report.html").read_text(encoding="utf-8")
    place = pathlib.PurePosixPath(FOLDER, RUN)
    dataset.write_text(request.out / "report.html", LINK.sub(rf"\g<1>{place}/", text))


LEVEL: dict[str, Any] = {"participant": participant, "group": group}
