"""The command `emojax simulate`, which writes a run like a scanner; for a file, without jax."""

import pathlib
import tempfile
from collections.abc import Sequence

from emojax.cli import commands
from emojax.cli.clean import store_of
from emojax.cli.flags import Usage, number, parse
from emojax.errors import InputError
from emojax.files import split_list

SIMULATE = Usage(
    "simulate",
    {
        "input": "the run to write: a 4-D NIfTI image, or the workdir of `emojax run`",
        "subject": "for a workdir: subject of the run; the first by default",
        "run": "for a workdir: name of the run; the last by default, as in export",
        "folder": "folder that the scanner writes to; created if its parent exists",
        "tr": "seconds between volumes; the run's TR by default",
        "speed": "factor by which to speed up the scanner; 1 by default",
        "as": "file format: nifti (default), nifti.gz, mosaic, enhanced or slices; the last "
        "three are Siemens DICOM",
        "faults": "faults to simulate, separated by commas: late, shuffled, lost, duplicate, "
        "conflict, series, half, slow, prealloc, truncated, frozen, zeros, motion, drift; with a "
        "fraction of the volumes (lost:0.05) or with volume numbers (lost@7+9, motion@100-200)",
        "seed": "random seed of the faults; 0 by default",
        "first": "number of the first volume; 1 by default",
        "repeat": "how often to write the run, with continuous numbers; 1 by default",
        "keep": "number of volumes whose files are kept; all by default",
        "pattern": "pattern of file names, with {n} for the volume (and {k} for the slice): "
        "vol_{n:05}.nii by default",
        "log": "file of JSON lines with the time at which each volume was closed",
    },
    needs=("input", "folder"),
    positional=("input", "folder"),
    switches={
        "atomic": "write each file under a temporary name, and rename it when it is complete",
        "clean": "remove all written files at the end",
    },
    example="emojax simulate runs/demo incoming --as=mosaic --faults=lost,half",
)


def simulate(argv: Sequence[str]) -> None:
    """Writes a run volume by volume, and prints how far behind schedule it was."""
    given = parse(argv, SIMULATE)
    text = given.text
    numbers = {name: number(text, name, int) for name in ("seed", "first", "repeat", "keep")}
    numbers |= {name: number(text, name) for name in ("tr", "speed")}
    from emojax.online import simulate as scanner

    def ready(count: int, step: float) -> None:
        print(f"writing {count} volumes to {text['folder']}, one every {step:.3g} s", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        summary = scanner.simulate(
            _image(text, pathlib.Path(scratch)),
            text["folder"],
            form=text["as"] or "nifti",
            faults=split_list(text["faults"]),
            name=text["pattern"],
            log=text["log"] or None,
            ready=ready,
            **given.switches,
            **{name: own for name, own in numbers.items() if own is not None},
        )
    half, most = summary.late_ms
    took = f"{summary.volumes} volumes in {summary.seconds:.1f} s"
    print(f"{took}; {half:.1f} ms behind schedule (median), {most:.1f} ms (99 of 100)")


def _image(text: dict[str, str], scratch: pathlib.Path) -> pathlib.Path:
    """Returns the path of a run's image; for a workdir, writes it into the folder `scratch`.

    Raises:
      InputError: the workdir has no such run, or the run is not an image.
    """
    path = pathlib.Path(text["input"])
    if not path.is_dir():
        return path
    commands.start_jax()
    from ml_collections import ConfigDict

    from emojax import sources
    from emojax.sources.write_bids import save_image
    from emojax.training.checkpoint import read_config

    data = read_config(path)["data"] | {"progress": False, "store": str(store_of(text["input"]))}
    cohort = sources.load(ConfigDict(data))
    subject = text["subject"] or cohort.runs[0].subject
    own = [run for run in cohort.runs if run.subject == subject]
    found = [run for run in own if text["run"] in ("", run.name)]
    if not found:
        what = f"no run {text['run']!r} of subject {subject}" if own else f"no subject {subject!r}"
        known = [run.name for run in own] or cohort.subjects
        raise InputError(path, what, f"one of {', '.join(known)}")
    save_image(found[-1], scratch / "run.nii")
    return scratch / "run.nii"
