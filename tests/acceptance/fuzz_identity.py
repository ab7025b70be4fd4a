"""Decoders edited by someone who knows the format, and archives that are bombs."""

import functools
import json
import zipfile

import numpy as np
from fuzz_cases import MAY, MUST, change, manifest, nothing

WEIGHTS, CONTEXT = "decoder/weights.npz", "decoder/context.npz"


def decode(folder, work, name="run.nii", bundle="decoder"):
    """Returns the flags that decode an image."""
    words = ["--mode=decode", f"--bundle={folder}/{bundle}", f"--input={folder}/{name}"]
    return [*words, f"--workdir={work}"]


def identities():
    """Edits by someone who does not know of the id, and flags that ask for a decoder."""
    reverse = {
        renew: manifest(lambda m: m["facts"]["classes"].reverse(), renew) for renew in (True, False)
    }

    def asking(*flags):
        return lambda folder, work: [*decode(folder, work), *flags]

    return (
        ("classes reversed", reverse[False]),
        ("classes reversed, renewed", reverse[True], MAY),
        ("classes reversed, renewed, known", _knowing(reverse[True]), MUST, _expecting),
        ("level", manifest(lambda m: m["facts"].update(level=801.0), False)),
        ("subject", manifest(lambda m: m["facts"].update(subject="02"), False)),
        ("provenance", manifest(lambda m: m["facts"].update(provenance=[["x", 1, 1]]), False)),
        ("bounds", manifest(lambda m: m["bounds"].update(sd=[0, 1e9]))),
        ("no bounds", manifest(lambda m: m.update(bounds={}))),
        ("an id of text", manifest(lambda m: m.update(id="x"), False)),
        ("an id that is null", manifest(lambda m: m.update(id=None), False)),
        ("a key more", manifest(lambda m: m.update(more=1))),
        ("a key twice", change("decoder/manifest.json", _twice)),
        ("half a letter", manifest(lambda m: m["facts"].update(classes=["\ud800", "b", "c"]))),
        ("nested", manifest(lambda m: m["program"].update(x=[[[[[[[[1]]]]]]]]))),
        ("signature of text", manifest(lambda m: m.update(signature="x"))),
        ("unsigned", nothing, MUST, asking("--trust=/etc/hostname")),
        ("another id", nothing, MUST, asking("--expect=00000000")),
        ("a short id", nothing, MUST, asking("--expect=0")),
    )


def _twice(content):
    return content.replace(b'"format": 2', b'"format": 1, "format": 2')


def _knowing(step):
    """Returns a step that notes the id of the decoder before it changes it."""

    def prepare(folder):
        made = json.loads((folder / "decoder" / "manifest.json").read_text())
        (folder / "id.txt").write_text(made["id"])
        step(folder)

    return prepare


def _expecting(folder, work):
    """Returns the flags that decode with the id of the decoder as it was made."""
    return [*decode(folder, work), f"--expect={(folder / 'id.txt').read_text()[:16]}"]


def bombs():
    """Lists archives that are small on disk and large in memory."""
    for file in (WEIGHTS, CONTEXT):
        for name in ("voxels", "mask", "layers/0/0", "x"):
            yield f"{file} {name}", functools.partial(_bomb, file=file, name=name)


def _bomb(folder, file, name):
    """Puts 420 MB of zeros into an archive as an array."""
    with np.load(folder / file) as old:
        content = {k: old[k] for k in old.files if k != name}
    np.savez(folder / file, **content)
    header = {"descr": "<f4", "fortran_order": False, "shape": (50, 1 << 21)}
    with (
        zipfile.ZipFile(folder / file, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(f"{name}.npy", "w", force_zip64=True) as out,
    ):
        np.lib.format.write_array_header_1_0(out, header)
        for _ in range(50):
            out.write(bytes(1 << 23))
    manifest(lambda m: None)(folder)
