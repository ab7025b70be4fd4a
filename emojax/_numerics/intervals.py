"""Half-widths of confidence intervals by Student's t, over values or groups of samples."""

from typing import Any

import numpy as np
from scipy import special


def check_level(level: float) -> None:
    """Raises ValueError if `level` is not between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"want 0 < level < 1; got {level}")


def student_quantile(level: float, count: int) -> float:
    """Returns the (1 + level) / 2 quantile with count - 1 degrees of freedom; NaN for count 1."""
    return float(special.stdtrit(count - 1, (1 + level) / 2)) if count > 1 else np.nan


def half_width(values: Any, level: float) -> Any:
    """Returns t sd / sqrt(n) over axis 0 of a NumPy or jax array."""
    count = len(values)
    spread = values.std(0, ddof=1) if count > 1 else np.nan * values[0]
    return student_quantile(level, count) * spread / count**0.5


def jackknife(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, num_classes: int, level: float
) -> tuple[float, float]:
    """Returns balanced accuracy and its jackknife half-width over groups; inf for one group."""
    names, group = np.unique(groups, return_inverse=True)
    count = len(names)
    tables = np.zeros((count, num_classes, num_classes))
    np.add.at(tables, (group, labels, predicted), 1)
    whole = tables.sum(0)
    if count < 2:
        return _mean_recall(whole), np.inf
    found, without = _mean_recall(whole), _mean_recall(whole - tables)
    error = np.sqrt((count - 1) / count * np.square(without - found).sum())
    return found, student_quantile(level, count) * error


def _mean_recall(confusion):
    """Returns the mean recall over the classes that occur, for each confusion matrix."""
    truth = confusion.sum(-1)
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.nanmean(right / np.where(truth > 0, truth, np.nan), axis=-1)
