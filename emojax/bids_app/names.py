"""File names of one run, from its acquisition, whatever version of it was read."""

import pathlib
from typing import NamedTuple

from emojax.data.run import Run
from emojax.errors import InputError
from emojax.sources.bids_names import ACQUISITION, parse


class Place(NamedTuple):
    """The place of a run's files in a BIDS data set."""

    folder: pathlib.PurePosixPath  # such as sub-01/ses-1/func
    stem: str  # such as "sub-01_ses-1_task-faces_run-01"

    def file(self, desc: str, suffix: str, ext: str) -> str:
        """Returns the path of a file, relative to the data set."""
        return str(self.folder / f"{self.stem}_desc-{desc}_{suffix}{ext}")


def of(run: Run) -> Place:
    """Returns the place of a run's files.

    Raises:
      InputError: the scan's name is not a BIDS name.
    """
    written = parse(pathlib.Path(run.place)).written
    if "sub" not in written:
        raise InputError(run.place, "a name without sub-", "a BIDS name")
    entities = [f"{name}-{written[name]}" for name in ACQUISITION if name in written]
    above = [entity for entity in entities if entity.startswith(("sub-", "ses-"))]
    return Place(pathlib.PurePosixPath(*above, "func"), "_".join(entities))
