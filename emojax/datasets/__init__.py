"""Public data sets, with their licences and the hash of every file.

A registry file has one line per file: path, size in bytes, hash, and the version of the file in
OpenNeuro's bucket ("" is the newest). Paths, sizes and the md5 of images are taken from the annexed
files of https://github.com/OpenNeuroDatasets/<accession> at the commit below, versions from its
branch git-annex, and the sha256 of text files from their content at that commit. Only files that
emojax reads are listed: functional images, events, sidecars and the description.
"""

import csv
import importlib.resources
from typing import NamedTuple

from emojax.errors import InputError
from emojax.nearest import hint

BUCKET = "https://s3.amazonaws.com/openneuro.org"  # the remote s3-PUBLIC of its repositories


class File(NamedTuple):
    """One file of a data set."""

    path: str  # relative to the data set
    size: int  # bytes
    digest: str  # "md5:..." or "sha256:..."
    version: str = ""  # version in the bucket

    def url(self, accession: str, mirror: str = "") -> str:
        """Returns the address of the file; a mirror has only the newest versions."""
        place = f"{(mirror or BUCKET).rstrip('/')}/{accession}/{self.path}"
        return f"{place}?versionId={self.version}" if self.version and not mirror else place


class Dataset(NamedTuple):
    """A data set that can be fetched."""

    name: str
    title: str
    accession: str  # accession number of OpenNeuro
    commit: str  # commit of its repository from which the registry was made
    licence: str
    citation: str
    config: str  # name of the config for it
    options: tuple[str, ...]  # options of the command to run it; {subject} is the first fetched one
    files: tuple[File, ...]

    @property
    def subjects(self) -> list[str]:
        """Labels of its subjects, without "sub-", in the order of the registry."""
        tops = (file.path.partition("/")[0] for file in self.files if "/" in file.path)
        return list(dict.fromkeys(top.removeprefix("sub-") for top in tops))

    def select(self, subjects: tuple[str, ...] = ()) -> list[File]:
        """Returns the files of some subjects, or of all for (), and the top-level files.

        Raises:
          InputError: there is no such subject.
        """
        known = self.subjects
        wanted = [label.removeprefix("sub-") for label in subjects]
        for label in wanted:
            if label not in known:
                found = repr(label) + hint(label, known)
                raise InputError("--subjects", found, f"one of {', '.join(known)}")
        kept = tuple(f"sub-{label}/" for label in wanted or known)
        return [f for f in self.files if "/" not in f.path or f.path.startswith(kept)]


def _registry(name: str) -> tuple[File, ...]:
    """Reads the registry file of a data set."""
    text = importlib.resources.files(__name__).joinpath(f"{name}.tsv").read_text("utf-8")
    rows = csv.reader(text.splitlines(), delimiter="\t")
    return tuple(File(path, int(size), digest, version) for path, size, digest, version in rows)


def _haxby() -> Dataset:
    return Dataset(
        "haxby",
        "Faces, houses, cats and five more categories of pictures: 6 subjects, 71 runs",
        "ds000105",
        "b2677616e86113ec230e6189ad2341ffcc065c83",
        "CC0 (its dataset_description.json, version 3.0.0)",
        "Haxby, Gobbini, Furey, Ishai, Schouten, Pietrini (2001). Distributed and overlapping "
        "representations of faces and objects in ventral temporal cortex. Science 293, 2425-2430. "
        "doi:10.18112/openneuro.ds000105.v3.0.0",
        "haxby",
        # Pictures last 0.5 s of every 2 s, so they cover 20 to 40 % of a volume of 2.5 s.
        (
            "--config.data.subjects={subject}",
            "--config.data.hrf_delay_s=5.0",
            "--config.data.min_overlap=0.2",
            "--config.mask.opening=2",
        ),
        _registry("haxby"),
    )


def _ds000108() -> Dataset:
    return Dataset(
        "ds000108",
        "Negative and neutral pictures, looked at or reappraised: 34 subjects, 200 runs",
        "ds000108",
        "4df2acaa810219186007819a2970c6efc7fac9f9",
        "PDDL 1.0 (its dataset_description.json)",
        "Wager, Davidson, Hughes, Lindquist, Ochsner (2008). Prefrontal-subcortical pathways "
        "mediating successful emotion regulation. Neuron 59, 1037-1050. "
        "doi:10.1016/j.neuron.2008.09.006",
        "ds000108",
        ("--config.voxels.own=True",),  # the data are in native space
        _registry("ds000108"),
    )


DATASETS = {"haxby": _haxby, "ds000108": _ds000108}


def find(name: str) -> Dataset:
    """Returns a data set by its name.

    Raises:
      InputError: unknown name.
    """
    if name not in DATASETS:
        raise InputError(
            "data set", repr(name) + hint(name, DATASETS), f"one of {', '.join(DATASETS)}"
        )
    return DATASETS[name]()
