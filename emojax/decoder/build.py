"""Decoders: the record that turns one volume into probabilities, and how it is built."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

from emojax import hyperalignment, models, procrustes, shown
from emojax.models.residual import Path


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
    kind: str = ""  # in words, such as "bag of 9 logistic decoders"
    left_out: str = ""  # the test subject of the fold that it comes from
    members: tuple[tuple[str, float, float], ...] = ()  # of a bag: who monitored, temperature, C
    temperature: float = 1.0  # that logits of a network are divided by
    trained_on: tuple[str, ...] = ()  # the units that everything was fitted to
    online: str = ""  # causal correction that the training volumes went through, `data.online`
    drop_first: int = 0  # volumes at the start of each run that it left out, `data.drop_first`
    limits: tuple[tuple[str, float, float], ...] = ()  # name, least, most; see `guards`
    reference_of: str = ""  # whose runs the reference image is of; "" is the training subjects
    scores: tuple[tuple[str, float], ...] = ()  # of the run's report, see `exports.facts`
    protocol: str = ""  # class of protocol of these scores
    reliability: tuple[tuple[float, float, int], ...] = ()  # confidence, accuracy, volumes
    fit: tuple[tuple[str, float], ...] = ()  # of a calibration: lag, correlation, p
    inputs: tuple[tuple[str, str], ...] = ()  # what a calibration has read: name, sha256
    parent: str = ""  # id of the decoder that was calibrated


@struct.dataclass
class Decoder:
    """A decoder as a pytree; `network` and `facts` are static."""

    weights: Mapping[str, Any]  # folded, see `models`
    mask: Bool[np.ndarray, "X Y Z"]  # where values must be finite and of the usual size
    affine: Float[np.ndarray, "4 4"] | None  # voxel -> mm; None is not checked
    calibration: Mapping[str, Any] | None  # of vectors: what `calibrate` needs
    network: str = struct.field(pytree_node=False)  # as `model.name`, see `models.find`
    facts: Facts = struct.field(pytree_node=False)
    reference: Float[np.ndarray, "X Y Z"] | None = None  # mean of the calibration runs, as scanned
    id: str = struct.field(pytree_node=False, default="")  # of the bundle it was loaded from

    def __repr__(self) -> str:
        return shown.text(*self._facts())

    def _repr_html_(self) -> str:
        return shown.page(*self._facts())

    def _facts(self) -> tuple[str, shown.Facts]:
        """Returns a title and facts; no array is looked at but the mask."""
        facts, grid = self.facts, shown.size(self.facts.grid)
        inside = int(self.mask.sum()) if isinstance(self.mask, np.ndarray) else "some"
        lines = [
            ("network", facts.kind or self.network),
            ("classes", shown.some(facts.classes)),
            ("volumes", f"{grid} voxels, {inside} in the mask"),
            ("TR", "not known" if facts.tr is None else f"{facts.tr:g} s"),
            ("aligned to", f"subject {facts.subject}" if facts.subject else "no subject"),
            ("online", facts.online or "as scanned"),
        ]
        lines += [(name, f"{value:.3f}, of its report") for name, value in facts.scores[:1]]
        return f"Decoder {self.id[:12]}".strip(), lines


class Member(NamedTuple):
    """One linear classifier of a decoder, and what was fitted in front of it."""

    voxels: Int[np.ndarray, " m"]  # positions among the mask's, in C order
    mean: Float[np.ndarray, " m"]  # of the scaler, which follows the alignment
    sd: Float[np.ndarray, " m"]
    coef: Float[np.ndarray, "m k"]
    intercept: Float[np.ndarray, " k"]
    temperature: float = 1.0  # logits are divided by it
    mapping: procrustes.Mapping | None = None  # the alignment; None leaves voxels as they are
    template: Float[np.ndarray, "n m"] | None = None  # rows of its common space, for `calibrate`
    run: Int[np.ndarray, " n"] | None = None  # of each template row, from 0, as `facts.runs`
    frame: Int[np.ndarray, " n"] | None = None  # volume of each template row in its run
    label: Int[np.ndarray, " n"] | None = None  # class of each template row; -1 is none


def from_linear(
    facts: Facts,
    members: Sequence[Member],
    *,
    mask: Bool[np.ndarray, "X Y Z"],
    affine: Float[np.ndarray, "4 4"] | None = None,
    options: hyperalignment.Options | None = None,
) -> Decoder:
    """Builds the decoder of a bag of linear classifiers: the mean of their probabilities.

    Args:
      facts: metadata.
      members: one or more.
      mask: the brain mask.
      affine: voxel -> mm.
      options: options of the templates' fits, `Hyperalignment.options`; None: the defaults.

    Raises:
      ValueError: shapes do not fit.
    """
    kept = []
    for own in members:
        params = {
            "coef": np.asarray(own.coef),
            "intercept": np.asarray(own.intercept),
            "temperature": np.float64(own.temperature),
        }
        fitted = own._asdict()
        names = ("mean", "sd", "template", "run", "frame", "label")
        parts = {name: fitted[name] for name in names}
        kept.append(keep(facts, mask, own.voxels, params=params, **parts))
    weights = fold("linear", kept, [own.mapping for own in members])
    return Decoder(weights, mask, affine, {"members": kept}, "linear", _with(facts, options))


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
    path: Path | None = None,
) -> Decoder:
    """Builds the decoder of a network of vectors, such as that of Experiment A.

    Args:
      facts: metadata.
      params: parameters of the network, e.g. of a `CNN1D` without activation between its
        convolutions.
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
      path: the linear path of a network that takes its logits, too, see `models.residual`.

    Raises:
      ValueError: shapes do not fit, or the network cannot be folded.
    """
    kept = keep(
        facts,
        mask,
        voxels,
        params=params,
        mean=mean,
        sd=sd,
        batch_stats=batch_stats,
        template=template,
        run=run,
        frame=frame,
    )
    if path is not None:
        kept["path"] = tuple(path)
    weights = fold(network, [kept], [mapping], facts.temperature)
    del kept["voxels"]  # they are among the weights
    return Decoder(weights, mask, affine, kept, network, _with(facts, options))


def _with(facts: Facts, options: hyperalignment.Options | None) -> Facts:
    return facts._replace(alignment=tuple(options._asdict().items())) if options else facts


def keep(
    facts: Facts,
    mask: Bool[np.ndarray, "X Y Z"],
    voxels: Int[np.ndarray, " m"],
    *,
    params: Mapping[str, Any],
    mean: Float[np.ndarray, " m"],
    sd: Float[np.ndarray, " m"],
    batch_stats: Mapping[str, Any] | None = None,
    template: Float[np.ndarray, "n m"] | None = None,
    run: Int[np.ndarray, " n"] | None = None,
    frame: Int[np.ndarray, " n"] | None = None,
    label: Int[np.ndarray, " n"] | None = None,
) -> dict[str, Any]:
    """Returns what `fold` and `calibrate` need of one member, with voxels as places in a volume.

    Arguments are those of `from_cnn1d` and `Member`.

    Raises:
      ValueError: shapes do not fit.
    """
    m, inside = len(voxels), int(np.sum(mask))
    if mask.shape != tuple(facts.grid) or mean.shape != (m,) or sd.shape != (m,):
        raise ValueError(
            f"want a mask of {facts.grid}, mean and sd [{m}]; got {mask.shape}, {mean.shape}, "
            f"{sd.shape}"
        )
    if not ((np.asarray(voxels) >= 0) & (np.asarray(voxels) < inside)).all():
        raise ValueError(f"want voxels in [0, {inside}), the mask's; got others")
    kept = {"params": jax.tree.map(np.asarray, dict(params)), "mean": mean, "sd": sd}
    kept["voxels"] = np.flatnonzero(mask)[voxels].astype(np.int32)
    if batch_stats:
        kept["batch_stats"] = jax.tree.map(np.asarray, dict(batch_stats))
    if template is None:
        return kept
    shapes = [np.shape(rows) for rows in (template, run, frame)]
    n = len(template)
    if shapes != [(n, m), (n,), (n,)]:
        raise ValueError(f"want template [n, {m}], run and frame [n]; got {shapes}")
    if facts.runs and np.max(run) >= len(facts.runs):
        raise ValueError(f"want run < {len(facts.runs)}, as facts.runs; got {np.max(run)}")
    rows = {"template": np.asarray(template), "run": run, "frame": frame}
    return kept | rows | ({} if label is None else {"label": label})


def fold(
    network: str,
    members: Sequence[Mapping[str, Any]],
    mappings: Sequence[procrustes.Mapping | Float[np.ndarray, " m"] | None],
    temperature: float = 1.0,
) -> dict[str, Any]:
    """Folds alignment, scaler and network of vectors into the weights for inference.

    Scanner values are large beside their changes: "centre", their usual value as far as alignment
    or scaler know it, is subtracted first, and float32 is exact enough for what is left.

    Args:
      network: name of the network.
      members: of a bag, or the one: "voxels", "params", "mean", "sd" and, if any, "batch_stats".
      mappings: the alignment of each, or the mean that is subtracted instead; None leaves voxels as
        they are.
      temperature: see `Facts`.

    Returns:
      Weights for `fusion.apply`: those of the network, "voxels", "centre" and "temperature".

    Raises:
      ValueError: the network cannot be folded, or several of it.
    """
    found = models.find(network)
    if found.fold is None:
        raise ValueError(f"want a network that can be folded for inference; got {network!r}")
    parts = []
    for own, mapping in zip(members, mappings, strict=True):
        sd = np.where(own["sd"] > 0, own["sd"], 1).astype(np.float64)
        centre, matrix, target = affine_parts(mapping, own["mean"])
        matrix, offset = matrix / sd, (target - own["mean"]) / sd
        if "path" in own:
            matrix, offset = Path(*own["path"]).compose(matrix, offset)
        part = found.fold(own["params"], own.get("batch_stats", {}), matrix, offset)
        parts.append(part | {"voxels": own["voxels"], "centre": centre})
    return found.join(parts) | {"temperature": np.float32(temperature)}


def affine_parts(
    mapping: procrustes.Mapping | Float[np.ndarray, " m"] | None, mean: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"], Float[np.ndarray, " m"]]:
    """Returns (centre, matrix, target): the map x -> (x - centre) @ matrix + target, in float64.

    Args:
      mapping: an alignment, or the mean that is subtracted; None leaves voxels as they are.
      mean: of the scaler, the centre where nothing is aligned.
    """
    if mapping is None:
        centre = np.asarray(mean, np.float32)
        return centre, np.eye(len(centre)), centre.astype(np.float64)
    if isinstance(mapping, np.ndarray):
        return np.asarray(mapping, np.float32), np.eye(len(mapping)), np.zeros(len(mapping))
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), mapping)
        centre = np.asarray(procrustes.inverse(exact, exact.target_mean), np.float32)
        target = procrustes.transform(exact, jnp.asarray(centre, jnp.float64))
        if isinstance(exact, hyperalignment.ComposedMapping):  # more than a rotation
            moved = procrustes.transform(exact, centre + jnp.eye(len(centre)))
            return centre, np.asarray(moved - target), np.asarray(target)
        return centre, np.asarray(exact.projection), np.asarray(target)


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
    found = models.find(network)
    if found.fold is None:
        raise ValueError(f"want a network that can be folded for inference; got {network!r}")
    weights = found.fold(params, batch_stats)
    weights |= {"mean": np.asarray(mean, np.float32), "sd": np.asarray(sd, np.float32)}
    weights["temperature"] = np.float32(facts.temperature)
    return Decoder(weights, mask, affine, None, network, facts)
