"""Regimes for bringing a test subject into the common space, and matching of rows by condition.

The regimes of a leave-one-subject-out decoder differ in what they have seen of the scored subject.
Each entry of `REGIMES` states this and has a function of the same name in this module.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from emojax import hyperalignment, procrustes
from emojax import piecewise as parcels
from emojax._numerics.checks import (
    Array,
    as_array,
    as_float,
    as_labels,
    check_finite,
)
from emojax.hyperalignment import Hyperalignment, Mappings
from emojax.procrustes import Procrustes
from emojax.registry import Registry


class Regime(NamedTuple):
    """A way of bringing a held-out subject into the common space."""

    text: str  # what it has seen of the test subject, for the report
    protocol: str  # strictest protocol it can claim when rows correspond by time
    needs_template: bool = True  # False if nothing is aligned
    own_map: bool = False  # whether a map is fitted to the scored subject's own rows
    by_other_runs: bool = False  # whether that map uses only runs that are not scored


REGIMES = Registry(
    "align.regimes",
    {
        "group": Regime(
            "one rotation for all subjects, fitted to the training subjects (the paper's text): it "
            "has seen nothing of the test subject.",
            "strict",
        ),
        "independent_runs": Regime(
            "the test subject's own rotation for each scored run, fitted to its other runs: it has "
            "seen their values, matched in time, or with align.match=class their values and their "
            "labels; never the scored run.",
            "calibrated",
            own_map=True,
            by_other_runs=True,
        ),
        "transductive": Regime(
            "the test subject's own rotation, fitted to all its runs: it has seen the values of "
            "the scored volumes, matched in time, or with align.match=class also their labels.",
            "transductive",
            own_map=True,
        ),
        "none": Regime(
            "no alignment: the chosen voxels as they are, or with voxels.centre minus the mean of "
            "the subject's other runs; nothing else of the test subject is seen.",
            "strict",
            needs_template=False,
        ),
        "piecewise": Regime(
            "as independent_runs, but each parcel has a template and a rotation of its own "
            "(align.parcels, align.piecewise): parcels of clusters have seen the training "
            "subjects alone, and the scored run is never seen.",
            "calibrated",
            own_map=True,
            by_other_runs=True,
        ),
    },
)


def group(model: Hyperalignment, training: Float[Array, "s n v"]) -> Procrustes:
    """Fits one map for all subjects: the rotation that brings their rows closest to the template.

    Minimises sum_s ||(x_s - mean) R - (template - mean)||_F over one orthogonal R. It assumes that
    voxel j is the same place in every subject, so it helps little where topographies differ.

    Args:
      model: a fit to the training subjects, without zscore_all, alpha < 1 or output_dim.
      training: [s, n, v] float, the data that `model` was fitted to.

    Returns:
      A single `Procrustes`, for training and test subjects alike.

    Raises:
      ValueError: shapes do not fit the template, or the model has steps besides the rotation.
    """
    if model.components is not None or model.options.zscore_all or model.options.alpha < 1:
        raise ValueError(
            "want a model without zscore_all, alpha < 1 or output_dim for one rotation"
        )
    training = as_float(training, "training")
    if training.ndim != 3 or training.shape[1:] != model.template.shape:
        raise ValueError(
            f"want training [s, {model.template.shape[0]}, {model.template.shape[1]}] as the "
            f"template; got {training.shape}"
        )
    target = jnp.tile(model.template, (len(training), 1))
    source = training.reshape(-1, training.shape[2])
    return procrustes.fit(source, target, demean=model.options.demean, **model.options.of_rotation)


def independent_runs(
    model: Hyperalignment, rows: Float[Array, "r v"], template_rows: Int[Array, " r"]
) -> Mappings:
    """Fits the test subject's own map to those of its runs that are not scored.

    Args:
      model: a fit to the training subjects.
      rows: [r, v] float, the test subject's rows from its other runs.
      template_rows: [r] int, the corresponding rows of the template: by time or, after
        `match_rows`, by run and class. (Matching by class uses the labels of those other runs.)

    Returns:
      One map.

    Raises:
      ValueError: as for `hyperalignment.align`.
    """
    return hyperalignment.align(model, as_float(rows, "rows")[None], template_rows)[0]


def piecewise(
    model: parcels.Piecewise, rows: Float[Array, "r v"], template_rows: Int[Array, " r"]
) -> parcels.PiecewiseMapping:
    """Fits the test subject's own map, parcel by parcel, to those of its runs that are not scored.

    Args:
      model: a piecewise fit to the training subjects.
      rows, template_rows: as for `independent_runs`.

    Raises:
      ValueError: as for `piecewise.align`.
    """
    return parcels.align(model, [rows], template_rows)[0]


def transductive(model: Hyperalignment, rows: Float[Array, "n v"]) -> Mappings:
    """Fits the test subject's own map to all its rows [n, v], including the scored ones.

    It uses no labels, but the scored rows are no longer unseen. If blocks come in the same order in
    all subjects, correspondence in time is as good as a label.

    Raises:
      ValueError: as for `hyperalignment.align`.
    """
    return hyperalignment.align(model, as_float(rows, "rows")[None])[0]


def none(num_voxels: int, dtype: jax.typing.DTypeLike = float) -> Procrustes:
    """Returns the identity map of `num_voxels` voxels."""
    zeros = jnp.zeros(num_voxels, dtype)
    return Procrustes(jnp.eye(num_voxels, dtype=dtype), jnp.ones((), dtype), zeros, zeros)


def match_rows(
    data: Sequence[Float[Array, "_ _"]],
    runs: Sequence[Int[Array, "_"]],
    labels: Sequence[Int[Array, "_"]],
) -> tuple[list[Float[jax.Array, "c _"]], Int[np.ndarray, "c 2"]]:
    """Averages rows by condition: the mean of every (run, class) cell that all subjects have.

    Use it for designs that are not time-locked and for runs of unequal length or number. The result
    is what `hyperalignment.fit` and `align` take. Cells are in ascending order of run, then class,
    so that row i of every subject is cells[i].

    Args:
      data: [t_i, v_i] float for each subject; numbers of rows and voxels may differ.
      runs: [t_i] int for each subject, the run of every row; equal numbers mean corresponding runs.
      labels: [t_i] int for each subject, the class of every row.

    Returns:
      The averages [cells, v_i] of each subject, and the cells [cells, 2] as (run, class).

    Raises:
      ValueError: lengths disagree, values that are not finite, or no cell that all subjects have.
    """
    if not len(data) == len(runs) == len(labels) or not len(data):
        raise ValueError(
            f"want data, runs and labels of the same >= 1 subjects; got {len(data)}, {len(runs)}, "
            f"{len(labels)}"
        )
    data = [as_array(x, f"data[{i}]") for i, x in enumerate(data)]
    runs = [as_labels(own, "runs") for own in runs]
    labels = [as_labels(own) for own in labels]
    for i, (x, run, label) in enumerate(zip(data, runs, labels, strict=True)):
        if x.ndim != 2 or run.shape != x.shape[:1] or label.shape != x.shape[:1]:
            raise ValueError(
                f"want data[{i}] [t, v], runs and labels [t]; got {x.shape}, {run.shape}, "
                f"{label.shape}"
            )
        check_finite(f"data[{i}]", as_float(x))
    subjects = [np.stack(list(map(np.asarray, pair)), 1) for pair in zip(runs, labels, strict=True)]
    found = [{tuple(cell) for cell in cells.tolist()} for cells in subjects]
    shared = sorted(set.intersection(*found))
    if not shared:
        raise ValueError(f"no (run, class) cell occurs in all {len(data)} subjects")
    means = []
    for x, cells in zip(data, subjects, strict=True):
        member = (cells[None] == np.asarray(shared)[:, None]).all(-1)  # [cells, t]
        weight = jnp.asarray(member / member.sum(1, keepdims=True), as_float(x).dtype)
        means.append(jnp.matmul(weight, as_float(x), precision="highest"))
    return means, np.asarray(shared)
