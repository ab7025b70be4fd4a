"""The commands `decode` and `calibrate`: a bundle and an image file in, a file or bundle out.

Each leaves a note of what it has read beside what it writes (`decode.json`, `calibrate.json`), and
replaces only what the same bundle and image have made before.
"""

import json
import pathlib
import re
from typing import Any

import numpy as np

from emojax import files
from emojax.data import grid, nifti
from emojax.data.acquisitions import canonical
from emojax.data.hashes import sha256
from emojax.decoder import bundle as bundles
from emojax.decoder import calibration
from emojax.decoder.build import Decoder
from emojax.decoder.decode import decode_file, read_image
from emojax.errors import InputError

SUBJECT = re.compile(r"(?:^|[/\\_])sub-([A-Za-z0-9]+)")
SAME_TR = 1e-3  # s
RUN_FILES = ("config.json", "metrics.json")  # a workdir with one of them holds a run


def decode(bundle: str, path: str, workdir: str, any_subject: bool = False) -> pathlib.Path:
    """Decodes every volume of an image; writes predictions.csv, or nothing.

    Args:
      bundle: folder of the decoder.
      path: the image file.
      workdir: folder to write to.
      any_subject: whether an image may be another person's than the decoder's.

    Returns:
      The table's path.

    Raises:
      InputError: the workdir holds a run or other predictions, the bundle or the image cannot be
        used, or the image has the name of another subject.
    """
    folder = _folder(workdir)
    loaded = bundles.load(bundle)
    if not any_subject:
        _check_subject(path, loaded.facts.subject)
    found = decode_file(loaded, path)
    _claim(folder, "decode.json", "predictions.csv", bundle, path)
    classes = np.array(loaded.facts.classes)
    columns = {"volume": np.arange(len(found)), "predicted": classes[found.argmax(1)]}
    columns |= {f"p_{name}": found[:, k] for k, name in enumerate(classes)}
    files.write_csv(folder / "predictions.csv", columns)
    return folder / "predictions.csv"


def calibrate(bundle: str, path: str, workdir: str, subject: str, run: int | str) -> pathlib.Path:
    """Aligns a decoder to a new subject by one run; writes the new decoder.

    Args:
      bundle: folder of the decoder.
      path: image file of the run.
      workdir: folder to write to; the decoder becomes its `decoder`.
      subject: name of the new subject.
      run: name of the corresponding run of the training subjects, or its number in a bundle without
        names; "" is the first.

    Returns:
      The new bundle's folder.

    Raises:
      InputError: the workdir holds a run or another decoder, there is no name of a subject, or the
        bundle, the run or the image cannot be used.
    """
    folder = _folder(workdir)
    loaded = bundles.load(bundle)
    if not subject:
        raise InputError("subject", "none", "--subject, the name of the new one")
    values, affine = read_image(path)
    if values.ndim != 4:
        raise InputError(path, f"{values.ndim} axes", "a whole run [X, Y, Z, t]")
    run = 0 if run == "" else run
    _check_scan(path, values.shape[:3], affine, loaded)
    made = calibration.calibrate(loaded, np.moveaxis(values, -1, 0), subject, run, affine)
    more = {"subject": subject, "run": run}
    _claim(folder, "calibrate.json", "decoder", bundle, path, **more)
    bundles.save(made, folder / "decoder")
    return folder / "decoder"


def _check_subject(path: str, subject: str) -> None:
    """Refuses an image that says it is of another person: the decoder's voxels are turned for one.

    Raises:
      InputError: the path has a `sub-` entity, and it is another subject's.
    """
    found = SUBJECT.findall(str(path))
    if subject and found and canonical(found[-1]) != canonical(subject.removeprefix("sub-")):
        expected = (
            f"one of subject {subject}, whose decoder this is (emojax calibrate makes one for "
            "another subject; --any_subject decodes all the same)"
        )
        raise InputError(path, f"an image of subject {found[-1]}", expected)


def _check_scan(path: str, shape: tuple[int, ...], affine, decoder: Decoder) -> None:
    """Refuses a calibration run of another grid or TR than the training runs."""
    facts, tr = decoder.facts, nifti.repetition_time(nifti.load(path).header)
    if (
        grid.turn(affine, shape, decoder.affine, tuple(facts.grid)) is None
        and decoder.affine is not None
    ):
        expected = f"{tuple(facts.grid)}, the grid of the training volumes (resample the run to it)"
        raise InputError(path, f"volumes of {tuple(shape)} with another affine or shape", expected)
    if tr is not None and facts.tr is not None and abs(tr - facts.tr) > SAME_TR:
        expected = f"{facts.tr:g} s as in training: volumes correspond by their number"
        raise InputError(path, f"TR {tr:g} s", expected)


def _folder(workdir: str) -> pathlib.Path:
    """Returns the folder to write to; that of a run is refused, to keep its results."""
    folder = pathlib.Path(workdir)
    if any((folder / name).exists() for name in RUN_FILES):
        raise InputError(workdir, "the results of a run", "another --workdir for new ones")
    if folder.exists() and not folder.is_dir():
        raise InputError(workdir, "a file", "a folder as --workdir")
    return folder


def _claim(folder: pathlib.Path, note: str, target: str, bundle, path, **more: Any) -> None:
    """Makes the folder and notes what its content comes from, unless it is something else's.

    Raises:
      InputError: the target is there, and comes from another bundle or image.
    """
    source = {"bundle": sha256(pathlib.Path(bundle, "manifest.json")), "image": sha256(path)} | more
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / target).exists() and _read(folder / note) != source:
        found = f"{target} of another bundle or image"
        raise InputError(folder, found, "another --workdir (nothing is overwritten)")
    with files.atomic_write(folder / note) as partial:
        partial.write_text(json.dumps(source, indent=1))


def _read(note: pathlib.Path) -> Any:
    try:
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return None
