"""Small cohorts of vectors: responses that subjects share, rotated differently in each."""

import numpy as np

from emojax.data import cohort as cohorts
from emojax.data.cohort import Cohort
from emojax.data.run import Run
from emojax.features import masked
from emojax.features.masked import MaskedCohort

NAMES = ("a", "b", "c", "d", "e")
CLASSES = ("rest", "neutral", "negative")
RUNS, PER_RUN, VOXELS = 2, 24, 40
ROWS = RUNS * PER_RUN  # per subject
INFORMATIVE = 12


def make_values(seed: int = 0, noise: float = 0.5):
    """Returns values [subjects, rows, voxels] and the labels [rows] of every subject."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([rng.permutation(PER_RUN) % 3 for _ in range(RUNS)])
    patterns = rng.normal(size=(3, INFORMATIVE))
    shared = 2 * patterns[y] + rng.normal(size=(len(y), INFORMATIVE))
    values = []
    for _ in NAMES:
        x = rng.normal(100, noise, (len(y), VOXELS))
        rotation = np.linalg.qr(rng.normal(size=(INFORMATIVE, INFORMATIVE)))[0]
        x[:, :INFORMATIVE] += shared @ rotation
        values.append(x.astype(np.float32))
    return np.stack(values), y


def make_cohort(values, labels, names=NAMES, tr: float | None = None) -> Cohort:
    """Returns a cohort of vectors whose subjects have runs "1" and "2" of `PER_RUN` rows.

    Args:
      values: per subject [rows, voxels]; rows may be missing at the end.
      labels: [rows], or one such vector per subject.
      names: of the subjects, in sorted order.
      tr: seconds between rows; None where rows are not points in time.
    """
    if isinstance(labels, np.ndarray) and labels.ndim == 1:
        labels = [labels] * len(names)
    runs, classes = [], []
    for name, x, y in zip(names, values, labels, strict=True):
        for start in range(0, len(x), PER_RUN):
            part = slice(start, start + PER_RUN)
            runs.append(Run(name, str(start // PER_RUN + 1), x[part], tr=tr))
            classes.append(y[part])
    return cohorts.build(runs, CLASSES, classes)


def read(cohort: Cohort, units: str = "subject") -> MaskedCohort:
    """Returns the cohort as Experiment A reads it."""
    return masked.read(cohort, {}, units)


def nearest_mean(train_x, train_y, test_x):
    """Returns the class of the nearest mean for every test row."""
    means = np.stack([train_x[train_y == k].mean(0) for k in range(3)])
    return ((test_x[:, None] - means) ** 2).sum(-1).argmin(1)
