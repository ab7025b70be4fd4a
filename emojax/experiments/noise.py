"""The noise floor: a study's data, randomised so that values no longer belong to events."""

import dataclasses
import json

import jax
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from emojax.data import phases
from emojax.data.cohort import Cohort
from emojax.data.run import Run
from emojax.data.scratch import Scratch
from emojax.data.store import Store
from emojax.experiments import exchange

LEAST = 4  # minimum number of volumes of a run whose phases are randomised


def noise_like(
    key: Key[Array, ""], cohort: Cohort, store: Store | Scratch, draw: int = 0
) -> Cohort:
    """Returns the cohort with randomised values: the noise floor of all experiments.

    Each run, before cleaning and masking, gets random phases, the same for all of its voxels. Every
    voxel keeps its mean and power spectrum, and every pair of voxels its covariance, so scanner,
    anatomy and head movement are preserved; but the timing of events is randomised, independently
    in each run. The run is then cleaned as before. See `phases.randomise`.

    Random phases do not help if rows are not points in time, if a run has fewer than `LEAST`
    volumes, or if its labelled volumes have only one class, which the mean of the run then reveals.
    The labelled volumes of such runs are exchanged within their subject (within the run, if all of
    the subject's runs have every class), which amounts to permuting their labels. Subjects that
    have only one class there exchange volumes with each other.

    Args:
      key: [] typed key.
      cohort: volumes [X, Y, Z] or vectors [voxels].
      store: place for the memory-mapped float32 values; a `Scratch` deletes them when they are no
        longer in use.
      draw: number of the draw; each draw has its own phases.

    Returns:
      A cohort with the same labels, runs, frames, masks and priors. Runs without a labelled volume
      and values that are not finite are unchanged.

    Raises:
      InputError: not enough disk space.
    """
    key = jax.random.fold_in(key, draw)
    fixed = np.array([_is_fixed(cohort, index) for index in range(len(cohort.runs))], bool)
    taken = _exchanged(_seed(key, 0), cohort, fixed[cohort.run_index])
    runs = list(cohort.runs)
    for index in np.unique(cohort.run_index).tolist():
        if fixed[index]:
            runs[index] = _with_others(cohort, index, taken, store)
        else:
            runs[index] = phases.randomised(runs[index], store, _seed(key, index + 1))
    return dataclasses.replace(cohort, runs=tuple(runs))


def scheme(cohort: Cohort) -> str:
    """Returns a description of how a draw changes a study."""
    fixed = {_is_fixed(cohort, index) for index in np.unique(cohort.run_index).tolist()}
    if len(fixed) > 1:
        return "the same data with random phases, or in some runs with volumes exchanged"
    return "the same volumes, exchanged" if fixed == {True} else "the same data with random phases"


def _is_fixed(cohort: Cohort, index: int) -> bool:
    """Returns whether random phases would leave a run's values with their labels."""
    run, labels = cohort.runs[index], cohort.labels[cohort.run_index == index]
    timed = run.tr is not None or run.starts is not None
    return not timed or len(run.frames) < LEAST or len(np.unique(labels)) < 2


def _exchanged(
    seed: list[int], cohort: Cohort, here: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Returns the row whose values each row gets; only rows `here` are exchanged."""
    taken, rows = np.arange(len(here)), np.flatnonzero(here)
    if len(rows):
        part = cohort.select(rows)
        found, subject = exchange.design(part, timed=False), part.subject
        lone = [s for s in part.subjects if len(np.unique(part.labels[subject == s])) < 2]
        within = np.where(np.isin(subject, lone), -1, found.within)
        order = found._replace(within=within).order(np.random.default_rng(seed))
        taken[rows] = rows[order]
    return taken


def _with_others(
    cohort: Cohort, index: int, taken: Int[np.ndarray, " n"], store: Store | Scratch
) -> Run:
    """Returns a run whose labelled volumes have the values of the rows `taken`."""
    rows = np.flatnonzero(cohort.run_index == index)
    frames = cohort.frame[rows].tolist()
    sources = cohort.run_index[taken[rows]].tolist()
    places = cohort.frame[taken[rows]].tolist()
    runs = [phases.uncleaned(run) for run in cohort.runs]

    def fill(out):
        phases.copy(runs[index], out)
        for frame, source, place in zip(frames, sources, places, strict=True):
            out[frame] = runs[source].read([place])[0]

    contents = {source: runs[source].content for source in sources}
    recipe = ["exchanged 1", frames, places, [contents[source] for source in sources]]
    return phases.remade(cohort.runs[index], json.dumps(recipe), store, fill)


def _seed(key: Key[Array, ""], number: int) -> list[int]:
    return np.asarray(jax.random.key_data(jax.random.fold_in(key, number))).tolist()
