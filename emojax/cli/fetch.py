"""The command `emojax fetch`, which downloads public data sets into a persistent folder."""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from emojax import datasets
from emojax.cli import guard
from emojax.cli.clean import in_words
from emojax.cli.flags import Usage, parse
from emojax.datasets import Dataset
from emojax.errors import InputError
from emojax.files import split_list

MIRROR = "EMOJAX_MIRROR"
FETCH = Usage(
    "fetch",
    {
        "name": "name of the data set; without it, all are listed",
        "to": "folder of the data set; ~/.cache/emojax/data/NAME by default, or EMOJAX_DATA/NAME",
        "subjects": "subjects to download, separated by commas; all by default",
        "mirror": "URL of a copy of OpenNeuro's bucket, e.g. on your cluster; by default "
        f"${MIRROR}",
    },
    needs=(),
    positional=("name",),
    switches={"list": "list what can be fetched, and stop"},
    example="emojax fetch haxby --subjects=1",
)


def fetch(argv: Sequence[str]) -> None:
    """Downloads a data set, and prints the command that runs it."""
    given = parse(argv, FETCH)
    text = given.text
    if given.switches["list"] or not text["name"]:
        if others := [name for name in ("to", "subjects", "mirror") if text[name]]:
            raise InputError("flags", f"--{others[0]} without a data set", "emojax fetch NAME")
        guard.show("\n".join(_about(datasets.find(name)) for name in datasets.DATASETS))
        return
    from emojax.datasets import fetching

    dataset, subjects = datasets.find(text["name"]), split_list(text["subjects"])
    files = dataset.select(subjects)
    size = sum(file.size for file in files)
    guard.show(f"{_about(dataset)}\n{len(files)} files, {in_words(size)}")
    mirror = text["mirror"] or os.environ.get(MIRROR, "")
    with _bar(size) as tick:
        made = fetching.fetch(dataset, text["to"], subjects=subjects, mirror=mirror, tick=tick)
    said = "all files exist and match their registered hashes"
    if made.downloaded:
        said = f"{made.downloaded} files downloaded and verified"
    if made.renewed:
        said += f"; {made.renewed} of them replace files that did not match"
    print(f"{said}: {made.folder}")
    print(command(dataset, made.folder, subjects))


def command(dataset: Dataset, folder: Any, subjects: Sequence[str] = ()) -> str:
    """Returns the command that runs the config of a data set."""
    first = subjects[0].removeprefix("sub-") if subjects else dataset.subjects[0]
    words = ["emojax", "run", dataset.config, f"--workdir=runs/{dataset.name}"]
    words += [f"--config.data.root={os.path.abspath(folder)}"]
    words += [option.format(subject=first) for option in dataset.options]
    return shlex.join(words)


def _about(dataset: Dataset) -> str:
    """Returns the description of a data set: title, size, licence, citation and address."""
    size = in_words(sum(file.size for file in dataset.files))
    return "\n".join(
        [
            f"{dataset.name}: {dataset.title} ({size})",
            f"  licence: {dataset.licence}",
            f"  cite:    {dataset.citation}",
            f"  from:    {datasets.BUCKET}/{dataset.accession}",
        ]
    )


@contextlib.contextmanager
def _bar(size: int) -> Iterator[Callable[[int], None]]:
    """Draws a progress bar on a terminal; yields tick(number of bytes present)."""
    from rich import progress

    columns = ("downloading", progress.BarColumn(), progress.DownloadColumn())
    shown = (*columns, progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
    with progress.Progress(*shown, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=size)
        yield lambda done: bar.update(task, completed=done)
