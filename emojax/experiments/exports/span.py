"""Linear classifiers of all voxels that were fitted to coordinates in the span of the volumes."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from emojax import models
from emojax.errors import InputError
from emojax.experiments.exports.parts import Made, Trained
from emojax.features import kernels

NONE = 1e-6  # largest relative weight of the distance from the span, which training cannot fit


def every_voxel(
    made: Made, trained: Trained, mask: Bool[np.ndarray, "X Y Z"], mean: Any
) -> dict[str, Any]:
    """Returns folded weights of a classifier of Experiment A with voxels.classical=all.

    Args:
      made: the fold.
      trained: the classifier.
      mask: mask of the decoder; its voxels are the view's columns.
      mean: [v] mean to subtract first if voxels are centred by subject; or None.
    """
    data, every = made.data, made.data.notes["every voxel"]
    x = every.read(data.fold.train)
    coef, intercept = _in_voxels(trained, x, made.config.voxels.keep)
    centre, sd = every.scale
    centre = centre + (0 if mean is None else mean)
    places = np.flatnonzero(mask)[np.flatnonzero(data.notes["made"].mask)]
    return fold(coef, intercept, places, centre, sd)


def volumes(made: Made, trained: Trained, inside: Bool[np.ndarray, "X Y Z"]) -> dict[str, Any]:
    """Returns folded weights of a classifier of Experiment B, without those of empty slices.

    Args:
      made: the fold.
      trained: the classifier.
      inside: voxels of the padded volume that were scanned and vary.
    """
    data = made.data
    x = kernels.rows_of(data.read, data.fold.train)
    coef, intercept = _in_voxels(trained, x, made.config.kernel_norm)
    scale, at = data.notes["scale"], inside.ravel()
    centre, sd = (np.broadcast_to(part, inside.shape).ravel()[at] for part in scale[:2])
    return fold(coef[at], intercept, np.arange(int(at.sum())), centre, sd)


def _in_voxels(
    trained: Trained, x: Float[np.ndarray, "n v"], squared_norm: float
) -> tuple[Float[np.ndarray, "v k"], Float[np.ndarray, " k"]]:
    """Returns voxel coefficients and intercept, both divided by the temperature."""
    if trained.network != "linear" or len(trained.params) != 1:
        found = f"{trained.kind} of coordinates in the span of all volumes"
        raise InputError("classifier", found, "a linear one, such as --classifier=logistic")
    (params,) = trained.params
    coef, intercept, t = (
        np.asarray(params[name], np.float64) for name in ("coef", "intercept", "temperature")
    )
    if len(coef) == x.shape[1]:
        return coef / t, intercept / t
    if np.abs(coef[-1]).max() > NONE * np.abs(coef).max():
        found = f"{trained.kind} that weighs the distance from the training volumes"
        raise InputError("classifier", found, "another, such as --classifier=logistic")
    axes, offset = kernels.axes(x, squared_norm)
    rows = axes @ coef[:-1]
    return np.float64(x.T) @ rows / t, (intercept + offset @ coef[:-1]) / t


def fold(
    coef: Float[np.ndarray, "v k"],
    intercept: Float[np.ndarray, " k"],
    voxels: Int[np.ndarray, " v"],
    centre: Float[np.ndarray, " v"],
    sd: Float[np.ndarray, " v"],
) -> dict[str, Any]:
    """Returns the weights of network "linear" for a classifier of (x - centre) / sd at voxels."""
    kernel = np.where(np.isfinite(sd), coef.T / sd, 0).T
    bias = np.asarray(intercept)
    part = {"kernel": kernel, "bias": bias, "voxels": voxels, "centre": np.float32(centre)}
    return models.find("linear").join([part]) | {"temperature": np.float32(1)}
