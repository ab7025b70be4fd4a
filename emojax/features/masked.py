"""A cohort as the folds of Experiment A read it: masked rows of every subject, and nuisance."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from emojax import masking
from emojax.data.cohort import Cohort
from emojax.errors import InputError
from emojax.features.across_subjects import Subject


class Study(NamedTuple):
    """Who is left out may be a subject or, within one subject, a run: a unit."""

    subjects: dict[str, Subject]
    nuisance: dict[str, Float[np.ndarray, "n q"]]  # time in run, global signal, motion
    inside: dict[str, Bool[np.ndarray, " v"]]  # voxels in the subject's own mask, and finite
    union: Bool[np.ndarray, "X Y Z"] | None  # columns of x; None for vectors
    mean: Float[np.ndarray, "X Y Z"] | None


def load(config, cohort: Cohort) -> Study:
    """Reads the masked values of all labelled volumes, once.

    Raises:
      InputError: a class or unit is missing, or a mask cannot be made.
    """
    unit = cohort.subject
    if config.units == "run":
        unit = np.char.add(np.char.add(cohort.subject, "/"), cohort.run)
    elif config.units != "subject":
        raise InputError("units", repr(config.units), "subject or run")
    names = np.unique(unit).tolist()
    of = {name: np.flatnonzero(unit == name) for name in names}
    is_vector = cohort.runs[0].frames.ndim == 2
    union, mean, masks = (None, None, {}) if is_vector else _masks(config, cohort, of)
    subjects, nuisance, inside = {}, {}, {}
    for name in names:
        part = cohort.select(of[name])
        x = part.features(union)
        finite = np.isfinite(x).all(0)
        inside[name] = finite if is_vector else finite & masks[name][union]
        run = np.unique(part.run, return_inverse=True)[1]
        own_run = np.zeros(len(run), int) if config.units == "run" else run
        subjects[name] = Subject(
            x if finite.all() else np.nan_to_num(x), part.labels, own_run, of[name]
        )
        nuisance[name] = _nuisance(part, x[:, inside[name]])
    return Study(subjects, nuisance, inside, union, mean)


def _masks(config, cohort, of):
    """Union and mean volume of all, brain mask of each: the source's own, or from its mean."""
    masks, means = {}, []
    for name, rows in of.items():
        part = cohort.select(rows)
        total = np.zeros(part.shape)
        for _, values in part.chunks():
            total += np.nan_to_num(values).sum(0)
        means.append(total / len(rows))
        own = cohort.masks.get(part.subject[0])
        try:
            made = masking.brain_mask(means[-1], **config.mask) if own is None else own
        except ValueError as error:
            raise InputError(f"mask of {name}", str(error), "a brain in its mean volume") from None
        masks[name] = np.asarray(made)
    return np.any(list(masks.values()), axis=0), np.mean(means, axis=0), masks


def _nuisance(part: Cohort, x):
    """What decodes without a pattern: time in run, global signal, and motion where all have it."""
    runs = [part.runs[i] for i in part.run_index]
    columns = [x.mean(1)]
    if all(run.tr is not None for run in runs):  # rows of other kinds may be sorted by class
        columns.append(part.time)
    if all(run.motion is not None for run in runs):
        motion = [run.motion[frame] for run, frame in zip(runs, part.frame, strict=True)]
        columns.append(np.asarray(motion))
    return np.column_stack(columns).astype(np.float32)


def noise_like(key, subjects: Mapping[str, Subject], phi: float = 0.4) -> dict[str, Subject]:
    """The same design on AR(1) noise: nothing can be decoded from it, whatever comes out.

    x_t = phi x_{t-1} + sqrt(1 - phi^2) e_t in every run and voxel, e_t standard normal; phi as of
    fMRI noise at a TR of 2 s.
    """
    out = {}
    for i, (name, subject) in enumerate(subjects.items()):
        e = np.array(jax.random.normal(jax.random.fold_in(key, i), subject.x.shape))
        starts = np.r_[True, np.diff(subject.run) != 0]
        for t in range(1, len(e)):
            if not starts[t]:
                e[t] = phi * e[t - 1] + (1 - phi**2) ** 0.5 * e[t]
        out[name] = subject._replace(x=e)
    return out
