"""The noise floor: the data of a study, in which values no longer belong to events."""

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

LEAST = 4  # volumes of a run whose phases are worth drawing


def noise_like(
    key: Key[Array, ""], cohort: Cohort, store: Store | Scratch, draw: int = 0
) -> Cohort:
    """Returns the cohort with its own values at random: the one noise floor of all experiments.

    Each run, before cleaning and masks, gets random phases, the same for all of its voxels: every
    voxel keeps its mean and power spectrum, and all pairs their covariance, so that scanner,
    anatomy and the movements of the head are as they were; but when something happened is random,
    in each run by itself. Then the run is cleaned as it was. See `phases.randomise`.

    Phases say nothing where rows are no points in time, where a run has fewer than `LEAST` volumes,
    or where its labelled volumes have one class, which its mean then tells. The labelled volumes
    of such runs change places within their subject (within the run, if all of these have every
    class), which is as if their labels were permuted; those of subjects who have one class there
    change places with each other.

    Args:
      key: [] typed.
      cohort: volumes [X, Y, Z] or vectors [voxels].
      store: the place of the values, float32, mapped; a `Scratch` keeps them as long as they are
        in use.
      draw: its number; each has phases of its own.

    Returns:
      A cohort of the same labels, runs, frames, masks and priors; runs without a labelled volume
      stay as they are, and so do values that are not finite.

    Raises:
      InputError: the disk is too small.
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
    """Returns what a draw does to a study, in words."""
    fixed = {_is_fixed(cohort, index) for index in np.unique(cohort.run_index).tolist()}
    if len(fixed) > 1:
        return "the same data with random phases, or in some runs with volumes exchanged"
    return "the same volumes, exchanged" if fixed == {True} else "the same data with random phases"


def _is_fixed(cohort: Cohort, index: int) -> bool:
    """Returns whether values of a run would stay with their labels, whatever the phases."""
    run, labels = cohort.runs[index], cohort.labels[cohort.run_index == index]
    timed = run.tr is not None or run.starts is not None
    return not timed or len(run.frames) < LEAST or len(np.unique(labels)) < 2


def _exchanged(
    seed: list[int], cohort: Cohort, here: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Returns the row whose values each row gets; only rows `here` change places."""
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
    """Returns a run whose labelled volumes have the values of those that were taken for them."""
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
