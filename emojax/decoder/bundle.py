"""Bundles: decoders as folders that stand alone.

A bundle is a folder: `manifest.json` (facts, and the sha256 of every other file), `weights.npz`,
`context.npz` (mask, affine, what a new subject is calibrated with) and `program.bin`, the compiled
function for machines without this package:

    program = jax.export.deserialize(pathlib.Path("program.bin").read_bytes())
    weights = np.load("weights.npz"); probabilities = program.call([weights[k] for k in weights], x)
"""

import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from emojax import files, fusion, models
from emojax.decoder.build import Decoder, Facts
from emojax.errors import InputError

FORMAT = 1
FILES = ("weights.npz", "context.npz", "program.bin")


def save(decoder: Decoder, folder: str | os.PathLike) -> None:
    """Writes a bundle; it appears whole or not at all, and an older one stays until then.

    Raises:
      InputError: the folder exists and is not a bundle.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and not (folder / "manifest.json").exists():
        raise InputError(folder, "something that is not a decoder", "a new folder")
    context: dict[str, Any] = {"mask": decoder.mask}
    if decoder.affine is not None:
        context["affine"] = np.asarray(decoder.affine)
    if decoder.calibration is not None:
        context["calibration"] = decoder.calibration
    with files.atomic_folder(folder) as partial:
        weights = files.flatten(decoder.weights)
        np.savez(partial / "weights.npz", **weights)
        np.savez(partial / "context.npz", **files.flatten(context))
        (partial / "program.bin").write_bytes(_export(decoder, weights))
        manifest = {
            "format": FORMAT,
            "network": decoder.network,
            "facts": decoder.facts._asdict(),
            "jax": jax.__version__,
            "sha256": {name: _digest(partial / name) for name in FILES},
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _export(decoder: Decoder, weights) -> bytes:
    """Returns StableHLO of (list of weights in the file's order, volume) -> probabilities."""
    network = decoder.network

    def call(leaves, volume):
        return fusion.apply(
            network, files.unflatten(dict(zip(weights, leaves, strict=True))), volume
        )

    leaves = [jax.ShapeDtypeStruct(w.shape, w.dtype) for w in weights.values()]
    volume = jax.ShapeDtypeStruct(tuple(decoder.facts.grid), np.float32)
    return export.export(jax.jit(call), platforms=("cpu", "cuda"))(leaves, volume).serialize()


def load(folder: str | os.PathLike) -> Decoder:
    """Opens a bundle after checking that its files are those that were saved.

    After a `save` that was killed while it replaced the bundle, the older one is opened.

    Raises:
      InputError: a file is missing or has changed, or the format or the network is unknown.
    """
    folder = _find(pathlib.Path(folder))
    manifest = _read_manifest(folder)
    for name in FILES:
        if not (folder / name).exists():
            raise InputError(folder / name, "no such file", "the whole decoder")
        if _digest(folder / name) != manifest["sha256"].get(name):
            raise InputError(folder / name, "content that was changed", "the file that was saved")
    models.find(manifest["network"])
    with np.load(folder / "weights.npz") as stored:
        weights = jax.tree.map(jnp.asarray, files.unflatten(dict(stored)))
    with np.load(folder / "context.npz") as stored:
        context = files.unflatten(dict(stored))
    return Decoder(
        weights,
        context["mask"],
        context.get("affine"),
        context.get("calibration"),
        manifest["network"],
        _read_facts(manifest["facts"]),
    )


def _find(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder, or the older one that a killed save had moved aside."""
    aside = folder.with_name(folder.name + ".old")
    return aside if not folder.exists() and aside.exists() else folder


def _read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        version, _, _, _ = (manifest[k] for k in ("format", "network", "facts", "sha256"))
    except FileNotFoundError:
        raise InputError(folder, "no manifest.json", "a decoder made by --mode=export") from None
    except (ValueError, KeyError, TypeError):
        found = "a damaged manifest"
        raise InputError(folder / "manifest.json", found, "one as it was saved") from None
    if version != FORMAT:
        raise InputError(folder, f"a decoder of format {version}", f"format {FORMAT}")
    return manifest


def _read_facts(stored: dict[str, Any]) -> Facts:
    """Returns facts with tuples, which JSON had made lists."""

    def as_tuples(value):
        return tuple(map(as_tuples, value)) if isinstance(value, list) else value

    return Facts(**{name: as_tuples(value) for name, value in stored.items()})


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
