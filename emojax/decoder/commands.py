"""The commands `decode` and `calibrate`: a bundle and an image file in, a file or bundle out.

Each writes a record of its inputs beside its output (`decode.json`, `calibrate.json`), and replaces
only output made from the same bundle and image.
"""

import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from emojax import files, online
from emojax.data import nifti
from emojax.data.acquisitions import canonical
from emojax.data.hashes import sha256
from emojax.decoder import bundle as bundles
from emojax.decoder import calibration, localizer, signing
from emojax.decoder.build import Decoder
from emojax.decoder.decode import read_image, read_run
from emojax.errors import InputError, say

SUBJECT = re.compile(r"(?:^|[/\\_])sub-([A-Za-z0-9]+)")
WEAK = 0.5  # lower limits of the correlation below this mark hardly any volume
MOTION = ("x_mm", "y_mm", "z_mm", "x_deg", "y_deg", "z_deg")
RUN_FILES = ("config.json", "metrics.json")  # a workdir with one of them holds a run


def decode(
    bundle: str,
    path: str,
    workdir: str,
    any_subject: bool = False,
    *,
    correct: str = online.AUTO,
    expect: str = "",
    trust: str = "",
) -> pathlib.Path:
    """Decodes the volumes of a run in order and writes predictions.csv.

    A conspicuous volume is marked in the table. If a volume cannot be decoded, nothing is written.

    Args:
      bundle: folder of the decoder.
      path: the image file.
      workdir: folder to write to.
      any_subject: whether to accept an image of another subject than the decoder's.
      correct: corrections, see `online.steps_of`; "none" decodes as in the report.
      expect: expected id of the decoder, or its first digits; "" accepts any.
      trust: file of the public key that must have signed the decoder; "" checks no signature.

    Returns:
      The path of the table.

    Raises:
      InputError: the workdir holds a run or other predictions, the bundle or the image cannot be
        used, or the image is named after another subject.
    """
    folder = _folder(workdir)
    loaded = bundles.load(bundle, expect=expect, trust=trust, calibration=False)
    if not any_subject:
        _check_subject(path, loaded.facts.subject)
    volumes, affine = read_run(loaded, path)
    records = online.replay(loaded, volumes, affine, correct=correct, where=path)
    _claim(folder, "decode.json", "predictions.csv", loaded, bundle, path, correct=correct)
    files.write_csv(folder / "predictions.csv", _columns(records, loaded.facts.classes))
    announce(bundle)
    _summarise(records, online.steps_of(loaded, correct))
    return folder / "predictions.csv"


def _columns(records: Sequence[online.Record], classes: Sequence[str]) -> dict[str, Any]:
    """Returns the table of decoded volumes."""
    p, marks = np.stack([own.probabilities for own in records]), [own.marks for own in records]
    columns: dict[str, Any] = {
        "volume": np.arange(len(records)),
        "predicted": [own.decision for own in records],
    }
    columns |= {f"p_{name}": p[:, k] for k, name in enumerate(classes)}
    columns |= {
        "status": [own.status for own in records],
        "marks": ["; ".join(own.reasons) for own in marks],
    }
    columns |= {
        name: _known([getattr(own, name) for own in marks])
        for name in ("gain", "offset", "correlation")
    }
    motion = np.stack([own.motion for own in records])
    columns |= {name: _known(motion[:, i]) for i, name in enumerate(MOTION)}
    return columns | {"fd_mm": _known([own.displacement for own in records])}


def _known(values: Sequence[float] | np.ndarray) -> list[str]:
    """Returns numbers as text, "" for NaN."""
    return ["" if np.isnan(value) else f"{value:.6g}" for value in values]


def _summarise(records: Sequence[online.Record], steps: Sequence[str]) -> None:
    """Prints the corrections and the number of marked volumes."""
    if steps:
        say(f"volumes corrected to the reference: {', '.join(steps)} (--correct=none turns it off)")
    marked = [own for own in records if own.marks.reasons]
    if marked:
        first = f"volume {marked[0].volume}: {'; '.join(marked[0].marks.reasons)}"
        say(f"{len(marked)} of {len(records)} volumes are marked (column status); {first}")


def calibrate(
    bundle: str,
    path: str,
    workdir: str,
    subject: str,
    run: int | str,
    *,
    expect: str = "",
    trust: str = "",
    sign: str = "",
    by: str = "time",
    events: str = "",
    label_map: str = "",
) -> pathlib.Path:
    """Aligns a decoder to a new subject by one run, writes it and prints the quality of the fit.

    Args:
      bundle: folder of the decoder.
      path: image file of the run.
      workdir: folder to write to; the new decoder is its subfolder `decoder`.
      subject: name of the new subject.
      run: name of the corresponding run of the training subjects, or its number in a bundle without
        names; "" is the first.
      expect: expected id of the decoder, or its first digits; "" accepts any.
      trust: file of the public key that must have signed the decoder; "" checks no signature.
      sign: file of the private key to sign the new decoder with; "" leaves it unsigned.
      by: correspondence with the template, see `calibration.calibrate`.
      events: the run's events.tsv, for by="class"; "" is the one beside the image.
      label_map: map from values to classes, for by="class"; "" takes values as class names.

    Returns:
      The folder of the new bundle.

    Raises:
      InputError: the workdir holds a run or another decoder, the subject has no name, or the
        bundle, the run or the image cannot be used.
    """
    folder = _folder(workdir)
    if sign:
        signing.check_key(sign)
    if by != "class" and (events or label_map):
        raise InputError("events", events or label_map, f"none with --by={by} (or --by=class)")
    loaded = bundles.load(bundle, expect=expect, trust=trust, calibration=True)
    if not subject:
        raise InputError("subject", "none", "--subject=NAME, the new subject")
    values, affine = read_image(path)
    if values.ndim != 4:
        raise InputError(path, f"{values.ndim} axes", "a whole run [X, Y, Z, t]")
    _check_subject(path, subject, "that of --subject")
    run = 0 if run == "" else run
    volumes, tr = np.moveaxis(values, -1, 0), nifti.repetition_time(nifti.load(path).header)
    inputs, labels = [(pathlib.Path(path).name, sha256(path))], None
    if by == "class":
        table = localizer.events_of(path, events)
        inputs.append((table.name, sha256(table)))
        labels = localizer.read_labels(table, loaded.facts, len(volumes), tr, label_map)
    made = calibration.calibrate(
        loaded,
        volumes,
        subject,
        run,
        affine,
        by=by,
        labels=labels,
        tr=tr,
        inputs=inputs,
        where=path,
    )
    more = {"subject": subject, "run": run, "by": by, "inputs": inputs, "label_map": label_map}
    more |= {"fit": made.facts.fit}
    more = json.loads(json.dumps(more))  # as it will be read back
    _claim(folder, "calibrate.json", "decoder", loaded, bundle, path, **more)
    bundles.save(made, folder / "decoder")
    found = {name: value for name, value in made.facts.fit if not name.startswith("lag ")}
    least = {name: least for name, least, _ in made.facts.limits}.get("correlation", 1.0)
    if least < WEAK:
        say(f"{path}: volumes differ a lot from one another; only r < {least:.2f} is marked")
    if found:
        say(f"{path}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    announce(folder / "decoder", sign)
    return folder / "decoder"


def announce(bundle: str | os.PathLike, sign: str = "") -> None:
    """Signs a decoder, if asked to, and prints its id for the user's log.

    Args:
      bundle: folder of the decoder.
      sign: file of a private key; "" leaves it unsigned.

    Raises:
      InputError: the decoder or the key does not exist.
    """
    if sign:
        bundles.sign(bundle, sign)
    if found := bundles.read_manifest(bundle).id:
        say(f"{bundle}: decoder {found}")


def _check_subject(path: str, subject: str, expected: str = "") -> None:
    """Refuses an image of another subject, as an aligned decoder fits only one person.

    Raises:
      InputError: the path has a `sub-` entity that names another subject.
    """
    found = SUBJECT.findall(str(path))
    if subject and found and canonical(found[-1]) != canonical(subject.removeprefix("sub-")):
        expected = expected or (
            f"one of subject {subject}, whose decoder this is (emojax calibrate makes one for "
            "another subject; --any_subject decodes anyway)"
        )
        raise InputError(path, f"an image of subject {found[-1]}", expected)


def _folder(workdir: str) -> pathlib.Path:
    """Returns the folder to write to, refusing that of a run, whose results are kept."""
    folder = pathlib.Path(workdir)
    if any((folder / name).exists() for name in RUN_FILES):
        raise InputError(workdir, "the results of a run", "another --workdir for new ones")
    if folder.exists() and not folder.is_dir():
        raise InputError(workdir, "a file", "a folder as --workdir")
    return folder


def _claim(
    folder: pathlib.Path,
    note: str,
    target: str,
    loaded: Decoder,
    bundle: str,
    path: str,
    **more: Any,
) -> None:
    """Makes the folder and records the origin of its content.

    Raises:
      InputError: the target exists and comes from another bundle or image.
    """
    which = loaded.id or sha256(pathlib.Path(bundle, "manifest.json"))  # format 1 has no id
    source = {"decoder": which, "image": sha256(path)} | more
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / target).exists() and _read(folder / note) != source:
        found = f"{target} of another bundle or image, or of other settings"
        raise InputError(folder, found, "another --workdir (nothing is overwritten)")
    with files.atomic_write(folder / note) as partial:
        partial.write_text(json.dumps(source, indent=1))


def _read(note: pathlib.Path) -> Any:
    try:
        return json.loads(note.read_text())
    except (OSError, ValueError):
        return None
