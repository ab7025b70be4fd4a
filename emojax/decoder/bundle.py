"""Bundles: decoders as self-contained folders.

A bundle is a folder: `manifest.json` (facts, the sha256 of every other file, and the id that binds
them, see `schema`), `weights.npz`, `context.npz` (mask, affine, reference image), `calibration.npz`
(needed to calibrate the decoder to a new subject; may be left out of a copy), `decoder_numpy.py`
(a reader that needs only NumPy, see `numpy_reader`), `README.md` (the model card, see `card`) and
`program.bin`, the exported function for machines with jax, NumPy and flatbuffers:

    import pathlib, sys
    import jax, numpy as np
    from jax import export

    folder = pathlib.Path(sys.argv[1])
    program = jax.jit(export.deserialize((folder / "program.bin").read_bytes()).call)
    weights = [jax.device_put(array) for array in np.load(folder / "weights.npz").values()]
    volume = np.load(sys.argv[2])  # [X, Y, Z] float32, as scanned
    print(program(weights, volume))  # NaN for a volume that cannot be decoded
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from io import BufferedReader
from typing import Any

import jax
import numpy as np

from emojax import files, models
from emojax.decoder import (
    bounds,
    card,
    checks,
    native,
    numpy_reader,
    program,
    schema,
    shapes,
    signing,
    stored,
)
from emojax.decoder.build import Decoder
from emojax.errors import InputError, say

FORMAT = schema.FORMAT
FILES = ("weights.npz", "context.npz", "program.bin", "decoder_numpy.py")
CALIBRATION = "calibration.npz"
OLDER = FILES[:3]  # files of format 1
LACKS = (
    "a decoder of format 1, which has no id, no reference image, no limits beyond mean and sd, and "
    "no centre (export it again)"
)
SHORTEST = 8  # least number of digits that identify a decoder


def save(decoder: Decoder, folder: str | os.PathLike) -> None:
    """Writes a bundle atomically; an older bundle is replaced only when the new one is complete.

    Raises:
      InputError: the folder exists and is not a bundle, or the decoder's parts are inconsistent
        (see `checks.check`).
    """
    folder = pathlib.Path(folder)
    checks.check(decoder)
    if folder.exists() and not (folder / "manifest.json").exists():
        raise InputError(folder, "something that is not a decoder", "a new folder")
    context = {"mask": decoder.mask, "affine": decoder.affine, "reference": decoder.reference}
    context = {name: np.asarray(part) for name, part in context.items() if part is not None}
    weights, usual = _sorted(decoder.weights), bounds.of_program(decoder)
    with files.atomic_folder(folder) as partial:
        _save_arrays(partial / "weights.npz", weights)
        _save_arrays(partial / "context.npz", context)
        if decoder.calibration is not None:
            _save_arrays(partial / CALIBRATION, _sorted(decoder.calibration))
        (partial / "decoder_numpy.py").write_bytes(_source(numpy_reader))
        content, about = program.export(decoder, weights, usual)
        (partial / "program.bin").write_bytes(content)
        text = card.render(decoder.network, decoder.facts, usual, about)
        (partial / card.FILE).write_text(text, encoding="utf-8", newline="\n")
        manifest = {
            "format": FORMAT,
            "network": decoder.network,
            "facts": decoder.facts._asdict(),
            "bounds": usual,
            "program": about,
            "sha256": {path.name: _digest(path) for path in sorted(partial.iterdir())},
        }
        (partial / "manifest.json").write_text(schema.write(manifest))


def sign(folder: str | os.PathLike, key: str | os.PathLike) -> None:
    """Writes the signature of a bundle into its manifest, whose id stays the same.

    Args:
      folder: folder of the bundle.
      key: file of a private key, see `signing.sign`.

    Raises:
      InputError: the key cannot be used, or the manifest has no id to sign (format 1).
    """
    path = pathlib.Path(folder, "manifest.json")
    found = read_manifest(folder)
    if not found.id:
        raise InputError(path, LACKS, "one of format 2")
    signature = signing.sign(found.id, key)
    with files.atomic_write(path) as partial:
        stated = json.loads(path.read_bytes()) | {"signature": signature}
        partial.write_text(json.dumps(stated, indent=1))


def load(
    folder: str | os.PathLike,
    *,
    expect: str = "",
    trust: str | os.PathLike = "",
    calibration: bool | None = None,
) -> Decoder:
    """Loads a bundle after checking all of it.

    If a `save` was killed while replacing the bundle, the older bundle is loaded.

    Args:
      folder: folder of the bundle.
      expect: expected id of the decoder, or at least its first eight digits; "" accepts any.
      trust: file of the public key that must have signed the decoder; "" checks no signature.
      calibration: whether `calibration.npz` is required (True), not read (False), or read if
        present (None).

    Raises:
      InputError: a file is missing, is not a regular file or has changed, the decoder is not the
        expected one, the format or the network is unknown, or facts, weights and context are
        inconsistent.
    """
    folder = _find(pathlib.Path(folder))
    manifest = read_manifest(folder)
    _check_identity(folder / "manifest.json", manifest, expect, trust)
    with contextlib.ExitStack() as opened:
        parts = {
            name: opened.enter_context(stored.open_regular(folder / name))
            for name in _needed(folder, manifest, calibration)
        }
        for name, file in parts.items():
            if hashlib.file_digest(file, "sha256").hexdigest() != manifest.sha256[name]:
                found, expected = "content that was changed", "the file that was saved"
                raise InputError(folder / name, found, expected)
        loaded = _read(folder, manifest, parts)
    checks.check(loaded, folder)
    _check_bounds(folder / "manifest.json", manifest, loaded)
    if manifest.format == 1:
        _say_once(f"{folder}: {LACKS}")
    return loaded.replace(weights=jax.device_put(loaded.weights))


def read_manifest(folder: str | os.PathLike) -> schema.Manifest:
    """Reads the manifest of a bundle, without its other files.

    Raises:
      InputError: there is none, or it has changed since it was saved.
    """
    path = pathlib.Path(folder, "manifest.json")
    if not os.path.lexists(path):
        raise InputError(folder, "no manifest.json", "a decoder made by --mode=export")
    with stored.open_regular(path) as file:
        content = file.read(schema.LARGEST + 1)
    if len(content) > schema.LARGEST:
        raise InputError(path, f"more than {schema.LARGEST:,} bytes", "a manifest as it was saved")
    return schema.read(content, path)


def _check_identity(
    where: pathlib.Path, manifest: schema.Manifest, expect: str, trust: str | os.PathLike
) -> None:
    expect = expect.strip().lower()
    if expect and len(expect) < SHORTEST:
        raise InputError("expect", repr(expect), f"{SHORTEST} digits of an id or more")
    if expect and not manifest.id.startswith(expect):
        raise InputError(where, f"decoder {manifest.id or 'without id'}", f"decoder {expect}")
    if trust:
        signing.verify(manifest.id, manifest.signature, trust, where)


def _needed(folder: pathlib.Path, manifest: schema.Manifest, calibration: bool | None) -> list[str]:
    """Returns the files to read."""
    names: list[str] = list(OLDER if manifest.format == 1 else FILES)
    for name in names:
        if name not in manifest.sha256:
            raise InputError(folder / "manifest.json", f"no sha256 of {name}", "that of every file")
    if card.FILE in manifest.sha256 and os.path.lexists(folder / card.FILE):
        names.append(card.FILE)  # may be missing, but not edited
    if CALIBRATION not in manifest.sha256 or calibration is False:
        return names
    if os.path.lexists(folder / CALIBRATION):
        return [*names, CALIBRATION]
    if calibration:
        expected = f"that of decoder {manifest.id[:16]}, which was left out of this copy"
        raise InputError(folder / CALIBRATION, "no such file", expected)
    return names


def _read(
    folder: pathlib.Path, manifest: schema.Manifest, parts: Mapping[str, BufferedReader]
) -> Decoder:
    """Reads the arrays of a bundle after checking their types and shapes."""
    network, facts = models.find(manifest.network), manifest.facts
    kept = None

    def read(name: str, check: Callable[[Any], Any]) -> dict[str, Any]:
        return stored.read_tree(folder / name, parts[name], check)

    def check_context(tree: Mapping[str, Any]) -> None:
        context = {k: v for k, v in tree.items() if k != "calibration" or manifest.format > 1}
        shapes.check_context(context, facts, folder)

    def check_calibration(tree: Mapping[str, Any]) -> None:
        shapes.check_calibration(tree, network, size, facts, folder)

    context = read("context.npz", check_context)
    inside = int(context["mask"].sum())
    check_weights = functools.partial(
        shapes.check_weights, name=manifest.network, facts=facts, inside=inside, where=folder
    )

    def check_and_begin(tree: Mapping[str, Any]) -> None:
        check_weights(tree)
        native.begin(manifest.network, tree, facts)

    weights = read("weights.npz", check_and_begin)
    size = check_weights(weights)
    if manifest.format == 1:
        kept = context.get("calibration")
    elif CALIBRATION in parts:
        kept = read(CALIBRATION, check_calibration)
    return Decoder(
        weights,
        context["mask"],
        context.get("affine"),
        kept,
        manifest.network,
        facts,
        context.get("reference"),
        manifest.id,
    )


def _check_bounds(where: pathlib.Path, manifest: schema.Manifest, loaded: Decoder) -> None:
    """Refuses bounds that do not follow from the facts, since other readers rely on them."""
    usual = bounds.of_program(loaded) if manifest.format > 1 else {}
    good = usual.keys() == manifest.bounds.keys()
    if not good or not all(np.allclose(manifest.bounds[n], usual[n], atol=0) for n in usual):
        raise InputError(where, "bounds that do not follow from its facts", f"{usual}")


@functools.cache
def _say_once(line: str) -> None:
    say(line)


def _find(folder: pathlib.Path) -> pathlib.Path:
    """Returns the folder, or the older one that an interrupted `save` moved aside."""
    aside = folder.with_name(folder.name + ".old")
    return aside if not folder.exists() and aside.exists() else folder


def _sorted(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns arrays sorted by name, so that equal decoders have equal ids."""
    return dict(sorted(files.flatten(tree).items()))


def _save_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]  # no array is an option


def _source(module: Any) -> bytes:
    return pathlib.Path(module.__file__).read_bytes()


def _digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
