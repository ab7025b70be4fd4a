"""Decoders: the record that turns one volume into probabilities, and how it is built."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from emojax import hyperalignment, models, procrustes


class Facts(NamedTuple):
    """Metadata of a decoder; plain data."""

    classes: tuple[str, ...]
    grid: tuple[int, int, int]
    level: float  # mean over the mask of the training volumes
    spread: float  # sd over the mask, averaged over the training volumes
    tr: float | None = None  # s
    subject: str = ""  # the subject whose alignment it holds; "" where there is none
    preprocessing: tuple[str, ...] = ()  # earlier steps that volumes must have been through
    provenance: tuple[tuple[str, int, int], ...] = ()  # step, volumes seen, labels seen
    runs: tuple[str, ...] = ()  # names of the template's runs, by number; () is unknown
    alignment: tuple[tuple[str, Any], ...] = ()  # options of its fit; () are the defaults


@struct.dataclass
class Decoder:
    """A decoder as a pytree; `network` and `facts` are static."""

    weights: Mapping[str, Any]  # folded, see `models`
    mask: Bool[np.ndarray, "X Y Z"]  # where values must be finite and of the usual size
    affine: Float[np.ndarray, "4 4"] | None  # voxel -> mm; None is not checked
    calibration: Mapping[str, Any] | None  # of vectors: what `calibrate` needs
    network: str = struct.field(pytree_node=False)  # as `model.name`, see `models.find`
    facts: Facts = struct.field(pytree_node=False)


def from_cnn1d(
    facts: Facts,
    params: Mapping[str, Any],
    *,
    mask: Bool[np.ndarray, "X Y Z"],
    voxels: Int[np.ndarray, " m"],
    mean: Float[np.ndarray, " m"],
    sd: Float[np.ndarray, " m"],
    mapping: procrustes.Mapping | None = None,
    template: Float[np.ndarray, "n m"] | None = None,
    run: Int[np.ndarray, " n"] | None = None,
    frame: Int[np.ndarray, " n"] | None = None,
    affine: Float[np.ndarray, "4 4"] | None = None,
    options: hyperalignment.Options | None = None,
    network: str = "cnn1d",
    batch_stats: Mapping[str, Any] | None = None,
) -> Decoder:
    """Builds the decoder of a network of vectors, such as that of Experiment A.

    Args:
      facts: metadata.
      params: parameters of the network, e.g. of a `CNN1D` without activation or batch norm between
        its convolutions.
      mask: the brain mask.
      voxels: [m] positions of the chosen voxels among the mask's, in C order.
      mean: [m] of the scaler, which follows the alignment.
      sd: [m] of the scaler.
      mapping: the subject's alignment; None leaves voxels as they are.
      template: [n, m] rows of the common space, for `calibrate`.
      run: number of each template row's run, from 0, in order of `facts.runs`.
      frame: volume of each template row in its run.
      affine: voxel -> mm.
      options: options of the template's fit, `Hyperalignment.options`; None: the defaults.
      network: name of the network, see `models.find`.
      batch_stats: moving statistics of a network that has some.

    Raises:
      ValueError: shapes do not fit, or the network cannot be folded.
    """
    m = len(voxels)
    if mask.shape != tuple(facts.grid) or mean.shape != (m,) or sd.shape != (m,):
        raise ValueError(
            f"want a mask of {facts.grid}, mean and sd [{m}]; got {mask.shape}, {mean.shape}, "
            f"{sd.shape}"
        )
    inside = int(np.sum(mask))
    if not ((np.asarray(voxels) >= 0) & (np.asarray(voxels) < inside)).all():
        raise ValueError(f"want voxels in [0, {inside}), the mask's; got others")
    kept = {"params": jax.tree.map(np.asarray, dict(params)), "mean": mean, "sd": sd}
    if batch_stats:
        kept["batch_stats"] = jax.tree.map(np.asarray, dict(batch_stats))
    if template is not None:
        shapes = [np.shape(rows) for rows in (template, run, frame)]
        n = len(template)
        if shapes != [(n, m), (n,), (n,)]:
            raise ValueError(f"want template [n, {m}], run and frame [n]; got {shapes}")
        if facts.runs and np.max(run) >= len(facts.runs):
            raise ValueError(f"want run < {len(facts.runs)}, as facts.runs; got {np.max(run)}")
        kept |= {"template": np.asarray(template), "run": run, "frame": frame}
    if options is not None:
        facts = facts._replace(alignment=tuple(options._asdict().items()))
    weights = fold_vectors(network, kept, mapping)
    weights["voxels"] = np.flatnonzero(mask)[voxels].astype(np.int32)
    return Decoder(weights, mask, affine, kept, network, facts)


def fold_vectors(
    network: str, kept: Mapping[str, Any], mapping: procrustes.Mapping | None
) -> dict[str, Any]:
    """Folds alignment, scaler and network of vectors into the weights for inference.

    Args:
      network: name of the network.
      kept: `Decoder.calibration`: "params", "mean", "sd" and, if any, "batch_stats".
      mapping: the alignment; None leaves voxels as they are.

    Raises:
      ValueError: the network cannot be folded.
    """
    fold = models.find(network).fold
    if fold is None:
        raise ValueError(f"want a network that can be folded for inference; got {network!r}")
    m = len(kept["mean"])
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), mapping)
        zero, eye = jnp.zeros((1, m)), jnp.eye(m)
        if mapping is not None:
            zero = procrustes.transform(exact, zero)
            eye = procrustes.transform(exact, eye) - zero
        offset, matrix = np.asarray(zero)[0], np.asarray(eye)
    sd = np.where(kept["sd"] > 0, kept["sd"], 1).astype(np.float64)
    statistics = kept.get("batch_stats", {})
    return fold(kept["params"], statistics, matrix / sd, (offset - kept["mean"]) / sd)


def from_resnet3d(
    facts: Facts,
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    *,
    mean: Float[np.ndarray, "*volume"],
    sd: Float[np.ndarray, "*volume"],
    mask: Bool[np.ndarray, "X Y Z"] | None = None,
    affine: Float[np.ndarray, "4 4"] | None = None,
    network: str = "resnet3d",
) -> Decoder:
    """Builds the decoder of a network of volumes, such as that of Experiment B.

    Args:
      facts: metadata.
      params: parameters of the network, e.g. of a `ResNet3D`.
      batch_stats: its moving statistics.
      mean: [] or [X, Y, Z], as in `scaling.Scale`.
      sd: [] or [X, Y, Z], as in `scaling.Scale`.
      mask: where values are checked; None: all voxels that vary.
      affine: voxel -> mm.
      network: name of the network, see `models.find`.

    Raises:
      ValueError: shapes do not fit, or the network cannot be folded.
    """
    if mask is None:
        mask = np.broadcast_to(np.isfinite(sd), facts.grid).copy()
    for name, x in (("mask", mask), ("mean", mean), ("sd", sd)):
        if np.shape(x) not in ((), tuple(facts.grid)):
            raise ValueError(f"want {name} of shape {facts.grid}; got {np.shape(x)}")
    fold = models.find(network).fold
    if fold is None:
        raise ValueError(f"want a network that can be folded for inference; got {network!r}")
    weights = fold(params, batch_stats)
    weights |= {"mean": np.asarray(mean, np.float32), "sd": np.asarray(sd, np.float32)}
    return Decoder(weights, mask, affine, None, network, facts)
