"""Labels of a calibration run, read from its events.tsv."""

import pathlib
import re

import numpy as np
from jaxtyping import Int

from emojax.data import events as tables
from emojax.data import windows
from emojax.data.label_map import escape, labelling
from emojax.data.labels import assign
from emojax.decoder.build import Facts
from emojax.errors import InputError

COLUMN = "trial_type"
IMAGE = re.compile(r"(_bold)?\.nii(\.gz)?$|(_bold)?\.img$")
DELAY = re.compile(r"labels ([\d.]+) s behind events")


def events_of(image: str, events: str = "") -> pathlib.Path:
    """Returns the path of a run's events.tsv: the named one, or the one beside the image.

    Raises:
      InputError: the file does not exist.
    """
    path = pathlib.Path(events or IMAGE.sub("", str(image)) + "_events.tsv")
    if not path.is_file():
        raise InputError(path, "no such file", "events.tsv of the run (--events=FILE)")
    return path


def read_labels(
    path: pathlib.Path, facts: Facts, num_volumes: int, tr: float | None, label_map: str = ""
) -> Int[np.ndarray, " t"]:
    """Returns the class of each volume, indexing `facts.classes`; -1 for none.

    Args:
      path: path of the events.tsv.
      facts: facts of the decoder; labels lag events by the same delay as in training.
      num_volumes: number of volumes, t.
      tr: TR, s; None is that of training.
      label_map: map from values to classes, as `data.label_map`. "" takes values as class names,
        and a class without an event as the baseline.

    Raises:
      InputError: the table or the map cannot be read, or its classes are not the decoder's.
    """
    events, tr = tables.read(path, COLUMN), tr or facts.tr
    if tr is None:
        raise InputError(path, "volumes of unknown TR", "a TR in the image's header")
    if not label_map:
        present = {name: escape(name) if name in events.value else "" for name in facts.classes}
        if list(present.values()).count("") > 1:
            found = f"values {', '.join(sorted(set(events.value)))}"
            expected = f"classes {', '.join(facts.classes)} (or --label_map=class=value;...)"
            raise InputError(path, found, expected)
        label_map = ";".join(f"{escape(name)}={value}" for name, value in present.items())
    known = labelling([events], label_map, COLUMN)
    if set(known.classes) != set(facts.classes):
        found = f"classes {', '.join(known.classes)}"
        raise InputError("label_map", found, f"{', '.join(facts.classes)}, the decoder's")
    number = {value: facts.classes.index(known.classes[k]) for value, k in known.number.items()}
    baseline = facts.classes.index(known.classes[known.baseline]) if known.baseline >= 0 else -1
    known = known._replace(classes=facts.classes, number=number, baseline=baseline)
    timing = tables.Timing(hrf_delay_s=hrf_delay_s(facts))
    return assign(events, known, timing, windows.regular(num_volumes, tr)).labels


def hrf_delay_s(facts: Facts) -> float:
    """Returns the delay from events to labels in training, in s."""
    found = next(filter(None, map(DELAY.match, facts.preprocessing)), None)
    return float(found[1]) if found else tables.Timing().hrf_delay_s
