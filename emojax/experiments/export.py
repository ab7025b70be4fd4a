"""Export: from what a finished run has kept to a decoder on disk. No data is read."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emojax import decoder, files, hyperalignment, models, procrustes, provenance, sources
from emojax.data.acquisitions import canonical
from emojax.data.cohort import Prior
from emojax.decoder import Decoder, Facts
from emojax.errors import InputError
from emojax.features.masked import MaskedCohort
from emojax.procrustes import Procrustes
from emojax.records import FoldData
from emojax.training import checkpoint

SCANNED = "volumes as scanned: single ones cannot be cleaned"
CHUNK = 64  # volumes at a time


def export(
    config: Any,
    workdir: str | os.PathLike,
    subject: str = "",
    run: str = "",
    bundle: str | os.PathLike = "",
) -> pathlib.Path:
    """Writes the decoder of a finished run.

    Args:
      config: that of the run.
      workdir: of the run.
      subject: A: the test subject whose fold and alignment are taken; "" is the first. The network
        has not seen it.
      run: A: name of the run to be decoded, aligned by the subject's other runs; "" is the last.
      bundle: the folder to write; "" is `decoder` in the workdir. An older decoder of the same
        subject and run may be there.

    Returns:
      The bundle's folder.

    Raises:
      InputError: the run is not finished, cannot be repeated volume by volume, or has read files
        that have changed since; or the folder holds another decoder.
    """
    folder = pathlib.Path(workdir)
    if not (folder / "metrics.json").exists():
        expected = "one (the same command without --mode=export)"
        raise InputError(workdir, "no finished run", expected)
    work = checkpoint.open_workdir(workdir, config.to_dict())
    work.check_inputs()
    models.find(config.model.name).check_foldable(config.model)
    metrics = json.loads((folder / "metrics.json").read_text())
    headline = metrics["arms"][0]
    tests = [fold["test"] for fold in headline["folds"]]
    if headline["split"] and (subject or run):
        raise InputError("subject or run", subject or run, "neither: nobody is aligned")
    if subject and subject not in tests:
        raise InputError("subject", repr(subject), f"one of {', '.join(tests)}")
    number = tests.index(subject) if subject else 0
    kept = work.load_model(f"{headline['name']} {number}")
    if kept is None:
        found, expected = "no network", "a run with train.keep_models=True"
        raise InputError(f"models/{headline['name']}", found, expected)
    fitted = kept["fitted"]
    if "refused" in fitted:
        raise InputError("decoder", str(fitted["refused"]), str(fitted["expected"]))
    kept.setdefault("batch_stats", {})
    make = _volume_decoder if headline["split"] else _vector_decoder
    made, target = make(metrics, kept, fitted, run), pathlib.Path(bundle or folder / "decoder")
    if (target / "manifest.json").exists():
        _check_same(target, decoder.load(target), made)
    decoder.save(made, target)
    return target


def _check_same(folder: pathlib.Path, there: Decoder, made: Decoder) -> None:
    """Refuses to replace another decoder.

    Raises:
      InputError: facts or weights differ.
    """
    leaves = [files.flatten(one.weights) for one in (there, made)]
    same = there.facts == made.facts and leaves[0].keys() == leaves[1].keys()
    if not same or any(not np.array_equal(leaves[0][n], leaves[1][n]) for n in leaves[0]):
        who = f"subject {there.facts.subject}" if there.facts.subject else "another training"
        expected = "none of another subject or run (--bundle=DIR writes elsewhere)"
        raise InputError(folder, f"a decoder of {who}", expected)


def pack_a(config: Any, view: MaskedCohort, data: FoldData) -> dict[str, Any]:
    """Returns what a decoder of Experiment A needs beside the network, as plain arrays.

    A decoder repeats what was fitted volume by volume. Where that is impossible, the tree says what
    is in the way ("refused", "expected"), and the export refuses.
    """
    made, settings = data.notes["made"], data.notes["settings"]
    own = settings.regime == "independent_runs" and settings.match == "time"
    if done := _processed(config, view.prior):
        return _refuse(f"volumes after {done}", SCANNED)
    if config.units != "subject" or settings.own_voxels or not (own or settings.regime == "none"):
        return _refuse(
            f"units {config.units}, regime {settings.regime}, own voxels {settings.own_voxels}",
            "subjects with common voxels, regime none, or independent_runs matched by time",
        )
    if view.union is None:
        return _refuse("vectors", "volumes [X, Y, Z]")
    rows, cohort = data.fold.test, view.cohort
    means, sds = [], []
    for name in dict.fromkeys(view.units[data.fold.train]):
        x = view.volumes[view.rows(name)]
        means.append(x.mean(1, dtype=np.float64))
        sds.append(x.std(1))
    subject, numbers = str(view.units[rows[0]]), np.unique(view.run[rows])
    out = _facts(config, cohort, subject, np.concatenate(means).mean(), np.concatenate(sds).mean())
    out |= {
        "mask": view.union,
        "voxels": made.voxels,
        "mean": made.scaler[0],
        "sd": made.scaler[1],
        "runs": np.array([cohort.run[rows][view.run[rows] == i][0] for i in numbers]),
        "maps": {},
        "seen": {},
    }
    for run, number in enumerate(numbers):
        here = rows[view.run[rows] == number]
        scope = tuple(here.tolist())
        fits = [fit for _, own_scope, fit in data.ledger.kept if own_scope == scope]
        out["maps"][str(run)] = _affine(fits, len(made.voxels))
        seen = next(s for r, s in data.ledger.seen(rows) if here[0] in r)
        table = [(row["step"], row["values"], row["labels"]) for row in provenance.table(seen)]
        out["seen"][str(run)] = np.array(json.dumps(table))
    if own:
        out["template"] = np.asarray(made.space[0].template)
        out["template_run"], out["template_frame"] = made.space[1].T
        out["template_runs"] = np.array(view.run_names)  # in the order of their numbers
        out["options"] = np.array(json.dumps(made.space[0].options._asdict()))
    return out


def _affine(fits: list[Any], size: int) -> dict[str, np.ndarray]:
    """Returns the map of one run as matrix and offset, in float64."""
    if not fits:
        return {"matrix": np.eye(size), "offset": np.zeros(size)}
    (fit,) = fits
    if isinstance(fit, np.ndarray):  # a mean that is subtracted
        return {"matrix": np.eye(size), "offset": -fit.astype(np.float64)}
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), fit)
        zero = procrustes.transform(exact, jnp.zeros((1, size)))
        matrix = procrustes.transform(exact, jnp.eye(size)) - zero
        return {"matrix": np.asarray(matrix), "offset": np.asarray(zero)[0]}


def pack_b(config: Any, cohort: Any, data: FoldData) -> dict[str, Any]:
    """Returns what a decoder of Experiment B needs beside the network, as plain arrays."""
    if done := _processed(config, cohort.prior):
        return _refuse(f"volumes after {done}", SCANNED)
    if config.data.mask:
        found = f"voxels outside of data.mask={config.data.mask} set to 0"
        return _refuse(found, "whole volumes (--config.data.mask='')")
    if config.pad:
        return _refuse(f"pad {config.pad}", "volumes as scanned")
    scale = data.notes["scale"]
    mask = np.broadcast_to(np.isfinite(scale.sd), cohort.shape)
    rows, means, sds = np.unique(data.fold.train), [], []
    for start in range(0, len(rows), CHUNK):
        values = data.notes["raw"](rows[start : start + CHUNK])[:, mask]
        means.append(values.mean(1))
        sds.append(values.std(1))
    out = _facts(config, cohort, "", np.concatenate(means).mean(), np.concatenate(sds).mean())
    table = provenance.table(data.ledger.shared)
    table = [(row["step"], row["values"], row["labels"]) for row in table]
    return out | {"mean": scale.mean, "sd": scale.sd, "seen": {"0": np.array(json.dumps(table))}}


def _processed(config: Any, prior: Sequence[Prior]) -> str:
    """Returns what was done to volumes or runs before they were read; "" if nothing."""
    asked = sources.cleaned_by(config.data).items()
    keys = [f"data.{key}={value}" for key, value in asked if key != "scrub_fd_mm"]
    others = [str(step) for step in prior if not (keys and str(step) == "cleaning")]
    return ", ".join((*others, *keys))


def _refuse(found: str, expected: str) -> dict[str, Any]:
    return {"refused": np.array(found), "expected": np.array(expected)}


def _facts(config, cohort, subject: str, level: float, spread: float) -> dict[str, Any]:
    data = config.data
    affine = cohort.affine(subject) if subject else cohort.common_affine
    out = {
        "classes": np.array(cohort.classes),
        "grid": np.array(cohort.shape),
        "level": np.float64(level),
        "spread": np.float64(spread),
        "subject": np.array(subject),
        "preprocessing": np.array(
            [
                f"labels {data.hrf_delay_s:g} s behind events",
                f"first {data.drop_first} volumes left",
            ]
        ),
    }
    if cohort.tr is not None:
        out["tr"] = np.float64(cohort.tr)
    return out if affine is None else out | {"affine": np.asarray(affine)}


def _read_facts(fitted, seen: str) -> Facts:
    return Facts(
        tuple(map(str, fitted["classes"])),
        tuple(map(int, fitted["grid"])),
        float(fitted["level"]),
        float(fitted["spread"]),
        float(fitted["tr"]) if "tr" in fitted else None,
        str(fitted["subject"]),
        tuple(map(str, fitted["preprocessing"])),
        tuple(map(tuple, json.loads(seen))),
    )


def _vector_decoder(metrics, kept, fitted, run: str) -> Decoder:
    runs = list(map(str, fitted["runs"]))
    run = run or runs[-1]
    known = [canonical(name) for name in runs]
    if canonical(run) not in known:
        raise InputError("run", repr(run), f"one of {', '.join(runs)}")
    number = known.index(canonical(run))
    template = {}
    if "template" in fitted:
        template = {
            "template": fitted["template"],
            "run": fitted["template_run"],
            "frame": fitted["template_frame"],
            "options": hyperalignment.Options(**json.loads(str(fitted["options"]))),
        }
    # Keys "0", "1", ... come back from the archive as a list.
    seen, maps = list(fitted["seen"]), list(fitted["maps"])
    matrix = maps[number]["matrix"]
    named = tuple(map(str, fitted.get("template_runs", ())))
    return decoder.from_cnn1d(
        _read_facts(fitted, str(seen[number]))._replace(runs=named),
        kept["params"],
        batch_stats=kept["batch_stats"],
        network=metrics["config"]["model"]["name"],
        mask=fitted["mask"],
        voxels=fitted["voxels"],
        mean=fitted["mean"],
        sd=fitted["sd"],
        mapping=Procrustes(matrix, np.ones(()), np.zeros(len(matrix)), maps[number]["offset"]),
        affine=fitted.get("affine"),
        **template,
    )


def _volume_decoder(metrics, kept, fitted, run: str) -> Decoder:
    return decoder.from_resnet3d(
        _read_facts(fitted, str(fitted["seen"][0])),
        kept["params"],
        kept["batch_stats"],
        network=metrics["config"]["model"]["name"],
        mean=fitted["mean"],
        sd=fitted["sd"],
        affine=fitted.get("affine"),
    )
