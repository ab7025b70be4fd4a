"""The row of the result table that becomes a decoder, and the fold that it is taken from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from emojax.data.acquisitions import canonical
from emojax.errors import InputError
from emojax.experiments.choice import AUTO, NETWORK
from emojax.report import predictions
from emojax.report.outcomes import NETWORK as OF_NETWORK
from emojax.scoring import baselines


class Row(NamedTuple):
    """A row of the result table."""

    arm: Mapping[str, Any]  # entry of metrics.json
    classifier: str  # name of a classical classifier, or `outcomes.NETWORK`

    @property
    def summary(self) -> Mapping[str, Any]:
        """Mapping from metric to its summary over folds."""
        found = self.arm["summary"]
        return (
            found["network"]
            if self.classifier == OF_NETWORK
            else found["baselines"][self.classifier]
        )


def choose(metrics: Mapping[str, Any], name: str, number: int) -> Row:
    """Returns the row of a name; "" is the headline, or the decoder that its fold has chosen.

    Args:
      metrics: content of metrics.json.
      name: name of a classifier or of an arm with a network, or "network".
      number: number of the fold.

    Raises:
      InputError: there is no such row, or it cannot be a decoder.
    """
    arms = [arm for arm in metrics["arms"] if not arm["on_noise"]]
    networks = [arm for arm in arms if not arm["decoder"] and not arm["shares"]]
    if not name:
        head = arms[0]
        name = head["decoder"]
        if name == AUTO:
            name = head["folds"][number]["chosen"]["chosen"]
    if name in ("", NETWORK, *(arm["name"] for arm in networks[:1])):
        return Row(networks[0], OF_NETWORK)
    for arm in arms:
        if name in arm["summary"]["baselines"] and (arm["decoder"] in ("", name) or len(arms) == 1):
            return Row(arm, name)
    for arm in arms:
        if name in arm["summary"]["baselines"]:
            return Row(arm, name)
    known = dict.fromkeys(n for arm in arms for n in arm["summary"]["baselines"])
    known = [n for n in known if n not in (AUTO, baselines.NUISANCE)]
    expected = f"one of {', '.join([*(arm['name'] for arm in networks[:1]), *known])}"
    raise InputError("classifier", repr(name), expected)


def fold_of(arm: Mapping[str, Any], units: str, subject: str, run: str) -> int:
    """Returns the number of the fold that left out a subject (with units=run, a run).

    Raises:
      InputError: there is no such fold, or folds of the split have no single subject.
    """
    tests = [fold["test"] for fold in arm["folds"]]
    if arm["split"]:
        if subject or run:
            raise InputError("subject or run", subject or run, "neither: splits have no alignment")
        return 0
    if units != "run":
        if subject and subject not in tests:
            raise InputError("subject", repr(subject), f"one of {', '.join(tests)}")
        return tests.index(subject) if subject else 0
    pairs = [tuple(test.split("/", 1)) for test in tests]
    subjects = list(dict.fromkeys(own for own, _ in pairs))
    if subject and subject not in subjects:
        raise InputError("subject", repr(subject), f"one of {', '.join(subjects)}")
    own = {
        canonical(name): i for i, (of, name) in enumerate(pairs) if of == (subject or subjects[0])
    }
    if run and canonical(run) not in own:
        known = ", ".join(pairs[i][1] for i in own.values())
        raise InputError("run", repr(run), f"one of {known}")
    return own[canonical(run)] if run else max(own.values())


def reported(metrics: Mapping[str, Any], table: pd.DataFrame, row: Row) -> pd.DataFrame:
    """Returns the reported predictions of a row, one line per scored volume.

    Args:
      metrics: content of metrics.json.
      table: predictions.csv.
      row: the row.

    Returns:
      "fold", "subject", "run", "frame", "label" and the probabilities of each class in order.
    """
    by_arm = "arm" in table
    prefix = predictions.prefix(metrics, row.arm["name"], row.classifier, by_arm)
    if by_arm:
        table = table.loc[(table["arm"] == row.arm["name"]) & (table["values"] == "real")]
        table = table.loc[table["instance"] == 0]
    names = predictions.columns(metrics["classes"])
    places = table[["fold", "subject", "run", "frame", "label"]]
    p = table[[prefix + name for name in names]].set_axis(names, axis=1)
    return pd.concat([places, p], axis=1).reset_index(drop=True)


def probabilities(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Returns the probabilities of `reported`, [t, classes]."""
    return table[predictions.columns(classes)].to_numpy(float)
