"""The commands `decode` and `calibrate`: a bundle and an image file in, a file or bundle out.

Each leaves a note of what it has read beside what it writes (`decode.json`, `calibrate.json`), and
replaces only what the same bundle and image have made before.
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
WEAK = 0.5  # limit of a correlation that hardly marks anything
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
    """Decodes the volumes of a run, in order; writes predictions.csv, or nothing.

    A volume that stands out is marked in the table; one that cannot be decoded ends the command.

    Args:
      bundle: folder of the decoder.
      path: the image file.
      workdir: folder to write to.
      any_subject: whether an image may be another person's than the decoder's.
      correct: what is corrected, see `online.steps_of`; "none" replays the report.
      expect: id of the decoder, or its first digits; "" is any.
      trust: file of the public key that the decoder has to be signed with; "" asks for none.

    Returns:
      The table's path.

    Raises:
      InputError: the workdir holds a run or other predictions, the bundle or the image cannot be
        used, or the image has the name of another subject.
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


def _known(values: Sequence[float]) -> list[str]:
    """Returns numbers as text, "" where one is not known."""
    return ["" if np.isnan(value) else f"{value:.6g}" for value in values]


def _summarise(records: Sequence[online.Record], steps: Sequence[str]) -> None:
    """Says what was corrected, and how many volumes stand out."""
    if steps:
        say(f"each volume brought onto the reference: {', '.join(steps)} (--correct=none does not)")
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
    """Aligns a decoder to a new subject by one run; writes the new decoder, and says how it fits.

    Args:
      bundle: folder of the decoder.
      path: image file of the run.
      workdir: folder to write to; the decoder becomes its `decoder`.
      subject: name of the new subject.
      run: name of the corresponding run of the training subjects, or its number in a bundle without
        names; "" is the first.
      expect: id of the decoder, or its first digits; "" is any.
      trust: file of the public key that the decoder has to be signed with; "" asks for none.
      sign: file of the private key to sign the new decoder with; "" does not.
      by: what corresponds, see `calibration.calibrate`.
      events: of by="class": the run's events.tsv; "" is the one beside the image.
      label_map: of by="class": which values mean which class; "" are the classes' names.

    Returns:
      The new bundle's folder.

    Raises:
      InputError: the workdir holds a run or another decoder, there is no name of a subject, or the
        bundle, the run or the image cannot be used.
    """
    folder = _folder(workdir)
    if sign:
        signing.check_key(sign)
    if by != "class" and (events or label_map):
        raise InputError("events", events or label_map, f"none with --by={by} (or --by=class)")
    loaded = bundles.load(bundle, expect=expect, trust=trust, calibration=True)
    if not subject:
        raise InputError("subject", "none", "--subject, the name of the new one")
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
    more = json.loads(json.dumps(more))  # as it will be read again
    _claim(folder, "calibrate.json", "decoder", loaded, bundle, path, **more)
    bundles.save(made, folder / "decoder")
    found = {name: value for name, value in made.facts.fit if not name.startswith("lag ")}
    least = {name: least for name, least, _ in made.facts.limits}.get("correlation", 1.0)
    if least < WEAK:
        say(f"{path}: volumes differ much from each other; only r < {least:.2f} is marked")
    if found:
        say(f"{path}: " + ", ".join(f"{name} {value:.3g}" for name, value in found.items()))
    announce(folder / "decoder", sign)
    return folder / "decoder"


def announce(bundle: str | os.PathLike, sign: str = "") -> None:
    """Says the id of a decoder, for the log of whoever uses it, and signs it first.

    Args:
      bundle: folder of the decoder.
      sign: file of a private key; "" does not sign.

    Raises:
      InputError: there is no such decoder or key.
    """
    if sign:
        bundles.sign(bundle, sign)
    if found := bundles.read_manifest(bundle).id:
        say(f"{bundle}: decoder {found}")


def _check_subject(path: str, subject: str, expected: str = "") -> None:
    """Refuses an image that says it is of another person: the decoder's voxels are turned for one.

    Raises:
      InputError: the path has a `sub-` entity, and it is another subject's.
    """
    found = SUBJECT.findall(str(path))
    if subject and found and canonical(found[-1]) != canonical(subject.removeprefix("sub-")):
        expected = expected or (
            f"one of subject {subject}, whose decoder this is (emojax calibrate makes one for "
            "another subject; --any_subject decodes all the same)"
        )
        raise InputError(path, f"an image of subject {found[-1]}", expected)


def _folder(workdir: str) -> pathlib.Path:
    """Returns the folder to write to; that of a run is refused, to keep its results."""
    folder = pathlib.Path(workdir)
    if any((folder / name).exists() for name in RUN_FILES):
        raise InputError(workdir, "the results of a run", "another --workdir for new ones")
    if folder.exists() and not folder.is_dir():
        raise InputError(workdir, "a file", "a folder as --workdir")
    return folder


def _claim(
    folder: pathlib.Path, note: str, target: str, loaded: Decoder, bundle, path, **more: Any
) -> None:
    """Makes the folder and notes what its content comes from, unless it is something else's.

    Raises:
      InputError: the target is there, and comes from another bundle or image.
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
