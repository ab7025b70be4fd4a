"""The decoder as a pytree that turns one volume into probabilities, and functions that build it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

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
    subject: str = ""  # subject that it is aligned to; "" without alignment
    preprocessing: tuple[str, ...] = ()  # steps that volumes must have undergone before
    provenance: tuple[tuple[str, int, int], ...] = ()  # step, volumes seen, labels seen
    runs: tuple[str, ...] = ()  # names of the template's runs, by number; () if unknown
    alignment: tuple[tuple[str, Any], ...] = ()  # options of the alignment; () for the defaults
    kind: str = ""  # description, such as "bag of 9 logistic decoders"
    left_out: str = ""  # test subject of the fold that the decoder comes from
    members: tuple[tuple[str, float, float], ...] = ()  # of a bag: monitor subject, temperature, C
    temperature: float = 1.0  # divisor of a network's logits
    trained_on: tuple[str, ...] = ()  # units in the training set
    online: str = ""  # causal correction of the training volumes, `data.online`
    drop_first: int = 0  # volumes left out at the start of each training run, `data.drop_first`
    limits: tuple[tuple[str, float, float], ...] = ()  # name, minimum, maximum; see `guards`
    reference_of: str = ""  # subject of the reference image; "" for all training subjects
    scores: tuple[tuple[str, float], ...] = ()  # from the run's report, see `exports.facts`
    protocol: str = ""  # protocol class of these scores
    reliability: tuple[tuple[float, float, int], ...] = ()  # confidence, accuracy, volumes
    fit: tuple[tuple[str, float], ...] = ()  # quality of a calibration: lag, correlation, p
    inputs: tuple[tuple[str, str], ...] = ()  # files that a calibration read: name, sha256
    parent: str = ""  # id of the decoder that was calibrated


@struct.dataclass
class Decoder:
    """A decoder as a pytree; `network` and `facts` are static."""

    weights: Mapping[str, Any]  # folded, see `models`
    mask: Bool[np.ndarray, "X Y Z"]  # voxels whose values are checked
    affine: Float[np.ndarray, "4 4"] | None  # voxel -> mm; None is not checked
    calibration: Mapping[str, Any] | None  # input of `calibrate`, for networks of vectors
    network: str = struct.field(pytree_node=False)  # name of the network, see `models.find`
    facts: Facts = struct.field(pytree_node=False)
    reference: Float[np.ndarray, "X Y Z"] | None = None  # mean of the calibration runs, as scanned
    id: str = struct.field(pytree_node=False, default="")  # id of the bundle it was loaded from

    if TYPE_CHECKING:  # added by flax

        def replace(self, **changes: Any) -> "Decoder":
            """Returns a copy with changed fields."""
            ...

    def __repr__(self) -> str:
        return shown.text(*self._facts())

    def _repr_html_(self) -> str:
        return shown.page(*self._facts())

    def _facts(self) -> tuple[str, shown.Facts]:
        """Returns a title and facts, reading no array except the mask."""
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
    """One linear classifier of a decoder, with the voxels, alignment and scaler before it."""

    voxels: Int[np.ndarray, " m"]  # indices into the mask's voxels, in C order
    mean: Float[np.ndarray, " m"]  # of the scaler, which follows the alignment
    sd: Float[np.ndarray, " m"]
    coef: Float[np.ndarray, "m k"]
    intercept: Float[np.ndarray, " k"]
    temperature: float = 1.0  # divisor of the logits
    mapping: procrustes.Mapping | None = None  # the alignment; None for unaligned voxels
    template: Float[np.ndarray, "n m"] | None = None  # rows of the common space, for `calibrate`
    run: Int[np.ndarray, " n"] | None = None  # run of each template row, indexing `facts.runs`
    frame: Int[np.ndarray, " n"] | None = None  # volume of each template row within its run
    label: Int[np.ndarray, " n"] | None = None  # class of each template row; -1 for none


def from_linear(
    facts: Facts,
    members: Sequence[Member],
    *,
    mask: Bool[np.ndarray, "X Y Z"],
    affine: Float[np.ndarray, "4 4"] | None = None,
    options: hyperalignment.Options | None = None,
) -> Decoder:
    """Builds the decoder of a bag of linear classifiers, which averages their probabilities.

    Args:
      facts: metadata.
      members: one or more classifiers.
      mask: the brain mask.
      affine: voxel -> mm.
      options: options of the templates' fits, `Hyperalignment.options`; None for the defaults.

    Raises:
      ValueError: shapes do not match.
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
      voxels: [m] indices of the chosen voxels among the mask's, in C order.
      mean: [m] means of the scaler, which follows the alignment.
      sd: [m] standard deviations of the scaler.
      mapping: the subject's alignment; None for unaligned voxels.
      template: [n, m] rows of the common space, for `calibrate`.
      run: [n] run of each template row, indexing `facts.runs`.
      frame: [n] volume of each template row within its run.
      affine: voxel -> mm.
      options: options of the template's fit, `Hyperalignment.options`; None for the defaults.
      network: name of the network, see `models.find`.
      batch_stats: moving statistics, if the network has batch normalisation.
      path: linear path of a network that also takes linear logits, see `models.residual`.

    Raises:
      ValueError: shapes do not match, or the network cannot be folded.
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
    """Returns one member as `fold` and `calibrate` take it, with voxels indexed in the volume.

    Arguments are those of `from_cnn1d` and `Member`.

    Raises:
      ValueError: shapes do not match.
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
    n = len(template)
    shapes = [None if rows is None else np.shape(rows) for rows in (template, run, frame)]
    if run is None or shapes != [(n, m), (n,), (n,)]:
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

    Scanner values are large compared with their fluctuations. "centre", the mean known to the
    alignment or the scaler, is therefore subtracted first, which keeps float32 precise.

    Args:
      network: name of the network.
      members: members of a bag, or a single one: "voxels", "params", "mean", "sd" and, if any,
        "batch_stats".
      mappings: alignment of each member, or the mean that is subtracted instead; None for
        unaligned voxels.
      temperature: see `Facts`.

    Returns:
      Weights for `fusion.apply`: those of the network, "voxels", "centre" and "temperature".

    Raises:
      ValueError: the network cannot be folded, or not as a bag.
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
      mapping: an alignment, or the mean that is subtracted; None for unaligned voxels.
      mean: [m] mean of the scaler, the centre of unaligned voxels.
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
      batch_stats: moving statistics of the network.
      mean: [] or [X, Y, Z], see `scaling.Scale`.
      sd: [] or [X, Y, Z], see `scaling.Scale`.
      mask: voxels whose values are checked; None for all voxels that vary.
      affine: voxel -> mm.
      network: name of the network, see `models.find`.

    Raises:
      ValueError: shapes do not match, or the network cannot be folded.
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
