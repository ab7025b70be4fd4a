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
from emojax.data import archives
from emojax.decoder import checks
from emojax.decoder.build import Decoder
from emojax.errors import InputError

FORMAT = 2
READABLE = (1, FORMAT)  # weights of the first have no centre, which is then 0
FILES = ("weights.npz", "context.npz", "program.bin")
LARGEST = 1 << 24  # bytes of a manifest


def save(decoder: Decoder, folder: str | os.PathLike) -> None:
    """Writes a bundle; it appears whole or not at all, and an older one stays until then.

    Raises:
      InputError: the folder exists and is not a bundle, or the decoder's parts do not belong
        together (see `checks.check`).
    """
    folder = pathlib.Path(folder)
    checks.check(decoder)
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
    """Opens a bundle after checking it as a whole.

    After a `save` that was killed while it replaced the bundle, the older one is opened.

    Raises:
      InputError: a file is missing or has changed, the format or the network is unknown, or facts,
        weights and context do not belong together.
    """
    folder = _find(pathlib.Path(folder))
    manifest = _read_manifest(folder)
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(folder / name, "no such file", "the whole decoder")
        if _digest(folder / name) != manifest["sha256"].get(name):
            raise InputError(folder / name, "content that was changed", "the file that was saved")
    facts = checks.read_facts(manifest["facts"], folder / "manifest.json")
    models.find(manifest["network"])
    weights, context = (_read_tree(folder / name) for name in FILES[:2])
    if not {"mask"} <= context.keys() <= {"mask", "affine", "calibration"}:
        found = ", ".join(sorted(context)) or "nothing"
        raise InputError(folder / "context.npz", found, "mask, affine and calibration")
    loaded = Decoder(
        weights,
        context["mask"],
        context.get("affine"),
        context.get("calibration"),
        manifest["network"],
        facts,
    )
    checks.check(loaded, folder)
    return loaded.replace(weights=jax.tree.map(jnp.asarray, weights))


def _read_tree(path: pathlib.Path) -> dict[str, Any]:
    """Returns the arrays of a file as nested dicts and lists."""
    arrays = archives.read(path, shrinks=1, largest=0)  # `np.savez` compresses nothing
    try:
        tree = files.unflatten(arrays)
    except Exception:  # flax raises many types
        tree = None
    if not isinstance(tree, dict) or files.flatten(tree).keys() != arrays.keys():
        found = f"arrays called {', '.join(arrays) or 'nothing'}"
        raise InputError(path, found, "names as they were saved")
    return tree


def _find(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder, or the older one that a killed save had moved aside."""
    aside = folder.with_name(folder.name + ".old")
    return aside if not folder.exists() and aside.exists() else folder


def _read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """Returns format, network, facts and hashes; what the facts are is checked later."""
    path = folder / "manifest.json"
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError
        manifest = json.loads(path.read_bytes())
        kinds = {"format": int, "network": str, "facts": dict, "sha256": dict}
        if not all(isinstance(manifest[name], kind) for name, kind in kinds.items()):
            raise ValueError
    except FileNotFoundError:
        raise InputError(folder, "no manifest.json", "a decoder made by --mode=export") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(path, "a damaged manifest", "one as it was saved") from None
    if manifest["format"] not in READABLE:
        raise InputError(folder, f"a decoder of format {manifest['format']}", f"format {FORMAT}")
    return manifest


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
