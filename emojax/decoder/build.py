"""The frozen decoder: everything that one volume needs to become probabilities, and its refusals.

A bundle is a folder: `manifest.json` (facts, and the sha256 of every other file), `weights.npz`,
`context.npz` (mask, affine, what a new subject is calibrated with) and `program.bin`, the compiled
function for machines without this package:

    program = jax.export.deserialize(pathlib.Path("program.bin").read_bytes())
    weights = np.load("weights.npz"); probabilities = program.call([weights[k] for k in weights], x)
"""

import functools
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
from flax import struct
from jax import export
from jaxtyping import Bool, Float, Int

from emojax import alignment, files, fusion, procrustes
from emojax._numerics.levels import Options
from emojax.errors import InputError
from emojax.hyperalignment import Hyperalignment

FORMAT = 1
FILES = ("weights.npz", "context.npz", "program.bin")
FACTOR = 3.0  # how far mean and sd inside the mask may be from those of the training volumes


class Facts(NamedTuple):
    """What a decoder is for; plain data."""

    classes: tuple[str, ...]
    grid: tuple[int, int, int]
    level: float  # mean over the mask of the training volumes
    spread: float  # sd over the mask, mean over training volumes
    tr: float | None = None  # s
    subject: str = ""  # whose alignment it holds; "" is everybody's
    preprocessing: tuple[str, ...] = ()  # what volumes have been through before
    provenance: tuple[tuple[str, int, int], ...] = ()  # step, volumes seen, labels seen


@struct.dataclass
class Decoder:
    """A pytree; `network` and `facts` are static."""

    weights: Mapping[str, Any]  # folded, see `fusion`
    mask: Bool[np.ndarray, "X Y Z"]  # where values must be finite and of the usual size
    affine: Float[np.ndarray, "4 4"] | None  # voxel -> mm; None is not checked
    calibration: Mapping[str, Any] | None  # of cnn1d: what `calibrate` needs
    network: str = struct.field(pytree_node=False)  # "cnn1d" or "resnet3d"
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
) -> Decoder:
    """The decoder of Experiment A.

    Args:
      facts: see `Facts`.
      params: of a `CNN1D` without activation or batch norm between its convolutions.
      mask: the brain mask.
      voxels: [m] chosen ones among the mask's, in C order.
      mean, sd: [m] of the scaler, behind the alignment.
      mapping: the subject's alignment; None leaves voxels as they are.
      template: [n, m] rows of the common space, for `calibrate`; with `run`, the run of each row
        from 0, and `frame`, its volume in that run.
      affine: voxel -> mm.

    Raises:
      ValueError: shapes do not fit, or the network cannot be folded.
    """
    m = len(voxels)
    if mask.shape != tuple(facts.grid) or mean.shape != (m,) or sd.shape != (m,):
        raise ValueError(
            f"want a mask of {facts.grid}, mean and sd [{m}]; got {mask.shape}, {mean.shape}, "
            f"{sd.shape}"
        )
    kept = {"params": jax.tree.map(np.asarray, dict(params)), "mean": mean, "sd": sd}
    if template is not None:
        kept |= {"template": np.asarray(template), "run": run, "frame": frame}
    weights = _folded(kept, mapping)
    weights["voxels"] = np.flatnonzero(mask)[voxels].astype(np.int32)
    return Decoder(weights, mask, affine, kept, "cnn1d", facts)


def _folded(kept, mapping):
    """Alignment, scaler and network as dense layers."""
    m = len(kept["mean"])
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), mapping)
        zero, eye = jnp.zeros((1, m)), jnp.eye(m)
        if mapping is not None:
            zero = procrustes.transform(exact, zero)
            eye = procrustes.transform(exact, eye) - zero
        offset, matrix = np.asarray(zero)[0], np.asarray(eye)
    sd = np.where(kept["sd"] > 0, kept["sd"], 1).astype(np.float64)
    return fusion.fold_cnn1d(kept["params"], matrix / sd, (offset - kept["mean"]) / sd)


def from_resnet3d(
    facts: Facts,
    params: Mapping[str, Any],
    batch_stats: Mapping[str, Any],
    *,
    mean: Float[np.ndarray, "*volume"],
    sd: Float[np.ndarray, "*volume"],
    mask: Bool[np.ndarray, "X Y Z"] | None = None,
    affine: Float[np.ndarray, "4 4"] | None = None,
) -> Decoder:
    """The decoder of Experiment B.

    Args:
      facts: see `Facts`.
      params, batch_stats: of a `ResNet3D`.
      mean, sd: [] or [X, Y, Z], as of `scaling.Scale`.
      mask: where values are checked; None: all voxels that vary.
      affine: voxel -> mm.

    Raises:
      ValueError: shapes do not fit.
    """
    if mask is None:
        mask = np.broadcast_to(np.isfinite(sd), facts.grid).copy()
    for name, x in (("mask", mask), ("mean", mean), ("sd", sd)):
        if np.shape(x) not in ((), tuple(facts.grid)):
            raise ValueError(f"want {name} of shape {facts.grid}; got {np.shape(x)}")
    weights = fusion.fold_resnet3d(params, batch_stats)
    weights |= {"mean": np.asarray(mean, np.float32), "sd": np.asarray(sd, np.float32)}
    return Decoder(weights, mask, affine, None, "resnet3d", facts)


def calibrate(
    decoder: Decoder, volumes: Float[np.ndarray, "t X Y Z"], subject: str, run: int = 0
) -> Decoder:
    """The same decoder for a new subject, from one run that it shares with the training subjects.

    Its volumes are matched in time with the template's of that run; no label is needed.

    Args:
      decoder: of Experiment A, with a template.
      volumes: the whole run.
      subject: its name.
      run: which run of the template it corresponds to.

    Raises:
      InputError: the decoder cannot be calibrated, or the run is too short or another one.
    """
    kept = decoder.calibration
    if kept is None or "template" not in kept:
        raise InputError("decoder", "no template", "one of Experiment A with alignment")
    at = np.flatnonzero(kept["run"] == run)
    if not at.size:
        raise InputError("run", run, f"one of {np.unique(kept['run']).tolist()}")
    frames = kept["frame"][at]
    if len(volumes) <= frames.max():
        raise InputError(
            "calibration run", f"{len(volumes)} volumes", f"{frames.max() + 1} or more"
        )
    for frame in frames:
        verify(decoder, volumes[frame], where=f"volume {frame} of the calibration run")
    voxels = np.asarray(decoder.weights["voxels"])
    rows = np.asarray(volumes, np.float32).reshape(len(volumes), -1)[frames][:, voxels]
    mapping = alignment.independent_runs(_model(kept["template"]), rows, at)
    weights = _folded(kept, mapping) | {"voxels": voxels}
    return decoder.replace(weights=weights, facts=decoder.facts._replace(subject=subject))


def _model(template) -> Hyperalignment:
    """A common space without its subjects."""
    options = Options(True, True, True, True, False, 1.0, "svd", None)
    empty = jnp.zeros((0,))
    return Hyperalignment(jnp.asarray(template), [], None, empty, empty, 0, options)


def verify(decoder: Decoder, volume, affine=None, where: str = "volume") -> None:
    """Refuses a volume that the decoder does not know how to read.

    Its mean inside the mask must lie within a factor of `FACTOR` of the training volumes' (where
    that is not near 0), and so must its sd over the mask.

    Raises:
      InputError: another shape, affine or size of values, or values that are not finite.
    """
    facts, shape = decoder.facts, np.shape(volume)
    if shape != tuple(facts.grid):
        raise InputError(where, f"shape {shape}", f"{tuple(facts.grid)} as trained on")
    if (
        affine is not None
        and decoder.affine is not None
        and not np.allclose(affine, decoder.affine, atol=1e-3)
    ):
        off = np.abs(np.asarray(affine) - decoder.affine).max()
        raise InputError(where, f"another affine (off by {off:.3g})", "that of training")
    inside = np.asarray(volume)[decoder.mask]
    mean, sd = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
    if not np.isfinite(mean + sd):
        bad = int((~np.isfinite(inside)).sum())
        raise InputError(where, f"{bad} voxels of the mask that are not finite", "finite values")
    pairs = [("sd", sd, facts.spread)]
    if abs(facts.level) > facts.spread / 2:
        pairs.append(("mean", mean, facts.level))
    for name, got, usual in pairs:
        if not 1 / FACTOR < got / usual < FACTOR:
            expected = f"{usual / FACTOR:.3g} to {usual * FACTOR:.3g} as the training volumes"
            raise InputError(where, f"{name} {got:.3g} inside the mask", expected)


@functools.partial(jax.jit, static_argnums=0)
def _probabilities(network, weights, x):
    if network == "cnn1d":
        return jax.nn.softmax(fusion.apply_cnn1d(weights, x))
    return fusion.apply(network, weights, x)


def decode(
    decoder: Decoder, volume: Float[np.ndarray, "X Y Z"], affine=None, where: str = "volume"
) -> Float[np.ndarray, " k"]:
    """Probabilities of one volume, checked first.

    Args:
      decoder: see `load`; its weights on the device make calls quick.
      volume: in the units of the scanner, after the decoder's `facts.preprocessing`.
      affine: voxel -> mm of the volume; None is not checked.
      where: what the volume is, for messages.

    Raises:
      InputError: as `verify`.
    """
    verify(decoder, volume, affine, where)
    x = np.asarray(volume, np.float32)
    if decoder.network == "cnn1d":
        x = x.reshape(-1)[np.asarray(decoder.weights["voxels"])]
    return np.asarray(_probabilities(decoder.network, decoder.weights, x[None]))[0]


def decode_file(decoder: Decoder, path: str | os.PathLike) -> Float[np.ndarray, "t k"]:
    """Probabilities of every volume of an image file (.nii, .nii.gz, .img), 3-D or 4-D.

    Raises:
      InputError: no readable or whole image, or as `verify`: then of no volume at all.
    """
    values, affine = read_image(path)
    if values.ndim not in (3, 4):
        raise InputError(path, f"{values.ndim} axes", "one volume or a run")
    volumes = np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]
    found = [
        decode(decoder, volume, affine, f"{path}, volume {i}") for i, volume in enumerate(volumes)
    ]
    return np.stack(found)


def read_image(
    path: str | os.PathLike,
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "4 4"]]:
    """Values as scanned, float32, time last, and the affine (voxel -> mm) of an image file.

    Raises:
      InputError: no such file, or no readable or whole image.
    """
    try:
        image = nib.load(path)
        return np.asarray(image.dataobj, np.float32), image.affine
    except FileNotFoundError:
        raise InputError(path, "no such file", "an image") from None
    except Exception as error:  # nibabel raises many types on damaged files
        said = str(error).splitlines()[0]
        raise InputError(path, f"no readable image ({said})", "a whole NIfTI file") from None


def save(decoder: Decoder, folder: str | os.PathLike) -> None:
    """Writes a bundle; it appears whole or not at all.

    Raises:
      InputError: the folder exists and is no bundle.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not (folder / "manifest.json").exists():
        raise InputError(folder, "something that is no decoder", "a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    context: dict[str, Any] = {"mask": decoder.mask}
    if decoder.affine is not None:
        context["affine"] = np.asarray(decoder.affine)
    if decoder.calibration is not None:
        context["calibration"] = decoder.calibration
    partial = pathlib.Path(tempfile.mkdtemp(prefix=".decoder-", dir=folder.parent))
    try:
        weights = files.flatten(decoder.weights)
        np.savez(partial / "weights.npz", **weights)
        np.savez(partial / "context.npz", **files.flatten(context))
        (partial / "program.bin").write_bytes(_exported(decoder, weights))
        manifest = {
            "format": FORMAT,
            "network": decoder.network,
            "facts": decoder.facts._asdict(),
            "jax": jax.__version__,
            "sha256": {name: _digest(partial / name) for name in FILES},
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
        partial.chmod(0o755)  # mkdtemp makes folders for one user only
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _exported(decoder: Decoder, weights) -> bytes:
    """The function (list of weights in the file's order, volume) -> probabilities, as StableHLO."""
    network = decoder.network

    def call(leaves, volume):
        return fusion.apply(
            network, files.unflatten(dict(zip(weights, leaves, strict=True))), volume
        )

    leaves = [jax.ShapeDtypeStruct(w.shape, w.dtype) for w in weights.values()]
    volume = jax.ShapeDtypeStruct(tuple(decoder.facts.grid), np.float32)
    return export.export(jax.jit(call), platforms=("cpu", "cuda"))(leaves, volume).serialize()


def load(folder: str | os.PathLike) -> Decoder:
    """Opens a bundle whose files are those that were saved.

    Raises:
      InputError: a file is missing or changed, or the format is another.
    """
    folder = pathlib.Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        version, hashes = manifest["format"], manifest["sha256"]
    except FileNotFoundError:
        raise InputError(folder, "no manifest.json", "a decoder made by --mode=export") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(folder / "manifest.json", "damaged", "as it was saved") from None
    if version != FORMAT:
        raise InputError(folder, f"a decoder of format {version}", f"format {FORMAT}")
    for name in FILES:
        if not (folder / name).exists():
            raise InputError(folder / name, "no such file", "the whole decoder")
        if _digest(folder / name) != hashes.get(name):
            raise InputError(folder / name, "content that was changed", "the file that was saved")
    with np.load(folder / "weights.npz") as stored:
        weights = jax.tree.map(jnp.asarray, files.unflatten(dict(stored)))
    with np.load(folder / "context.npz") as stored:
        context = files.unflatten(dict(stored))
    facts = manifest["facts"]
    for name in ("classes", "grid", "preprocessing"):
        facts[name] = tuple(facts[name])
    facts["provenance"] = tuple(map(tuple, facts["provenance"]))
    return Decoder(
        weights,
        context["mask"],
        context.get("affine"),
        context.get("calibration"),
        manifest["network"],
        Facts(**facts),
    )


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
