"""The command `export`, which turns a finished run and its data into a decoder."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from emojax import decoder, experiments, files, fusion, resampling, sources, splits
from emojax import metrics as measures
from emojax.data import identity, phases
from emojax.decoder import Decoder, native
from emojax.errors import InputError, say
from emojax.experiments import base, dtypes
from emojax.experiments.base import Experiment
from emojax.experiments.exports import classifiers, facts
from emojax.experiments.exports import rows as table
from emojax.experiments.exports.parts import Made, Packed, Trained
from emojax.experiments.exports.rows import Row
from emojax.models import precision
from emojax.provenance import Ledger
from emojax.records import Arm
from emojax.report import floors, predictions, texts
from emojax.report.outcomes import NETWORK
from emojax.splits import Fold
from emojax.training import checkpoint

# Tolerance of probabilities: rounding differs between machines, and decoders compute in float32.
CLOSE = {"float32": 1e-3, "bfloat16": 2e-2}
REPLAYED = 64  # maximum number of volumes compared


def export(
    config: Any,
    workdir: str | os.PathLike,
    subject: str = "",
    run: str = "",
    bundle: str | os.PathLike = "",
    *,
    classifier: str = "",
    refit: bool = False,
    cohort: Any = None,
) -> pathlib.Path:
    """Writes a decoder of a finished run.

    Args:
      config: config of the run.
      workdir: workdir of the run.
      subject: in Experiment A, the test subject whose fold and alignment are exported; "" is the
        first. The classifier has not seen it.
      run: in Experiment A, name of the run to be decoded, aligned by the subject's other runs; ""
        is the last. With units=run it is the run that was left out.
      bundle: folder of the decoder; "" is `decoder` in the workdir. It may hold an older decoder of
        the same subject and run.
      classifier: row of the result table; "" is the headline.
      refit: whether to train on all subjects, for a new person; no subject is left out then.
      cohort: the data of the run; default: loaded as `config.data` specifies.

    Returns:
      The decoder's folder.

    Raises:
      InputError: the run is not finished, cannot be repeated volume by volume, or its input files
        have changed; the decoder does not reproduce the report; or the folder holds another
        decoder.
    """
    if config.null:
        raise InputError("decoder", "a run on noise (null=True)", "a run on measured values")
    folder = pathlib.Path(workdir)
    if not (folder / "metrics.json").exists():
        expected = "the workdir of a finished run (see emojax run)"
        raise InputError(workdir, "no finished run", expected)
    config = dtypes.settle(config, workdir)
    work = checkpoint.open_workdir(workdir, config.to_dict())
    work.check_inputs()
    metrics = json.loads((folder / "metrics.json").read_text())
    _check_asked(metrics, subject, run, refit)
    number = table.fold_of(metrics["arms"][0], config.get("units", ""), subject, run)
    row = table.choose(metrics, classifier, number)
    config = config.copy_and_resolve_references()
    if not config.data.store:
        config.data.store = str(folder.absolute().parent / "store")
    cohort = sources.load(config.data) if cohort is None else cohort
    experiment = base.check_experiment(
        config.experiment, experiments.EXPERIMENTS[config.experiment]
    )
    now = identity.describe(cohort, experiment.files(config))
    identity.check_same(checkpoint.read_run(folder)["inputs"], now)
    if experiment.pack is None:
        raise InputError(
            "experiment", f"{config.experiment!r} without pack", "a function as its pack"
        )
    made = make(experiment, config, cohort, row, None if refit else number)
    if refit:
        trained = _refitted(experiment, made, row)
    elif row.classifier == NETWORK:
        fold = row.arm["folds"][number]
        trained = classifiers.kept(work, made, number, (fold["instances"] or [fold["network"]])[0])
    else:
        trained = classifiers.classical(experiment, made, row.classifier)
    packed = experiment.pack(made, trained, run)
    reported = table.reported(
        metrics, predictions.read(folder / "predictions.csv", metrics["classes"]), row
    )
    if not refit:
        check_replay(made, packed, reported, metrics["classes"], workdir)
    result = _with_scores(packed.decoder, metrics, row, reported)
    target = pathlib.Path(bundle or folder / "decoder")
    if (target / "manifest.json").exists():
        _check_same(target, decoder.load(target), result)
    decoder.save(result, target)
    native.keep(result)
    return target


def _check_asked(metrics: Mapping[str, Any], subject: str, run: str, refit: bool) -> None:
    """Rejects requests that cannot become a decoder, before data is read."""
    if (name := metrics["chosen_arm"]) is not None:
        factor = next(arm["factor"] for arm in metrics["arms"] if arm["name"] == name)
        chosen = f"--config.sweep='()' --config.train.penalty_factor={factor:g}"
        expected = f"a run with only this penalty ({chosen})"
        raise InputError("decoder", f"a sweep of penalties, which chose {factor:g}", expected)
    if refit and (subject or run):
        raise InputError(
            "refit", f"--{'subject' if subject else 'run'}", "neither: all subjects train"
        )


def make(experiment: Experiment, config: Any, cohort: Any, row: Row, number: int | None) -> Made:
    """Makes the data of a fold as in the run; with `number` None, of all subjects."""

    arms = {arm.name: arm for arm in experiment.arms(config, cohort)}
    arm = arms[row.arm["shares"] or row.arm["name"]]
    if row.classifier != NETWORK:
        arm = dataclasses.replace(
            arm, decoder=arm.decoder and row.classifier, baselines=(row.classifier,)
        )
    view = experiment.view(config, cohort)
    folds = experiment.folds(config, view, arm)
    fold = everybody(config, view, arm, row) if number is None else folds[number]
    data = experiment.features(config, Ledger(view), fold, arm, number or 0)
    return Made(config, view, arm, data)


def everybody(config: Any, view: Any, arm: Arm, row: Row) -> Fold:
    """Returns a fold without test rows; only a network without members has monitored rows."""
    n, none = np.arange(len(view.labels)), np.zeros(0, int)
    if row.classifier != NETWORK or arm.members:
        return Fold("", n, none, none)
    if not arm.split:
        monitored = view.units == np.unique(view.units)[0]
        return Fold("", n[~monitored], n[monitored], none)
    share = config.fractions[1] / (config.fractions[0] + config.fractions[1])
    groups = splits.SPLITS[arm.split].groups(view)
    key, shares = jax.random.key(config.seed), (1 - share, share)
    train, monitor = resampling.group_split(key, groups, shares, labels=view.labels)
    return Fold("", train, monitor, none)


def _refitted(experiment: Experiment, made: Made, row: Row) -> Trained:
    if row.classifier == NETWORK:
        return classifiers.trained(experiment, made)
    return classifiers.classical(experiment, made, row.classifier)


def check_replay(made: Made, packed: Packed, reported: Any, classes: Any, where: Any) -> None:
    """Rejects a decoder that does not reproduce the reported probabilities of its run.

    The decoder of a run in bfloat16 computes in float32; one line states by how much it differs.

    Raises:
      InputError: they differ by more than `CLOSE`, or reported probabilities are not finite.
    """
    cohort, rows = made.cohort, packed.rows[:REPLAYED]
    keys = zip(reported["subject"], reported["run"], reported["frame"], strict=True)
    place = {key: i for i, key in enumerate(keys)}
    own = zip(cohort.subject[rows], cohort.run[rows], cohort.frame[rows], strict=True)
    wanted = table.probabilities(reported, classes)[[place[key] for key in own]]
    if not np.isfinite(wanted).all():
        expected = "finite ones (did the training diverge? lower train.lr, or --classifier=NAME)"
        raise InputError(where, "probabilities in the report that are not finite", expected)
    grid = packed.decoder.facts.grid
    volumes = np.stack([_volume(made, row).reshape(grid) for row in rows])
    found = np.asarray(jax.jit(fusion.fuse(packed.decoder))(volumes))
    off = float(np.abs(found - wanted).max())
    model = made.config.get("model", {})
    dtype = precision.settle(model["dtype"], model["width"]) if "dtype" in model else "float32"
    if dtype == "bfloat16":
        say(f"the run computed in bfloat16, its decoder in float32: they differ by up to {off:.2g}")
    if not off < CLOSE[dtype]:
        found = f"a decoder whose probabilities are up to {off:.2g} from those of the report"
        raise InputError(where, found, "the machine and the versions that the run was made with")


def _volume(made: Made, row: int) -> np.ndarray:
    """Returns a volume as the decoder will receive it."""
    cohort = made.cohort
    run = cohort.runs[cohort.run_index[row]]
    if facts.centred_maps(made.config, cohort):
        run = phases.uncleaned(run)
    return run.read(cohort.frame[row : row + 1])[0]


def _with_scores(made: Decoder, metrics: Mapping[str, Any], row: Row, reported: Any) -> Decoder:
    """Returns the decoder with the scores and reliability of all folds of the report."""
    classes = metrics["classes"]
    labels = np.array([classes.index(name) for name in reported["label"]], np.int32)
    found = measures.reliability(labels, table.probabilities(reported, classes))
    curve = {name: np.asarray(part) for name, part in found._asdict().items()}
    noise, protocol = _noise(metrics, row), row.arm["protocol"]
    return made.replace(facts=facts.with_scores(made.facts, row.summary, curve, noise, protocol))


def _noise(metrics: Mapping[str, Any], row: Row) -> float | None:
    """Returns the row's noise floor (balanced accuracy) from the report; None if not measured."""
    if entry := floors.of(metrics, row.arm, row.classifier):
        return float(entry["mean"])
    arm = texts.floor(metrics, row.arm) if row.classifier == NETWORK else None
    return None if arm is None else float(texts.first(arm)[1]["balanced_accuracy"]["mean"])


def _check_same(folder: pathlib.Path, there: Decoder, made: Decoder) -> None:
    """Checks that an existing decoder may be replaced by the new one.

    Raises:
      InputError: facts or weights differ.
    """
    leaves = [files.flatten(one.weights) for one in (there, made)]
    same = there.facts == made.facts and leaves[0].keys() == leaves[1].keys()
    if not same or any(not np.array_equal(leaves[0][n], leaves[1][n]) for n in leaves[0]):
        who = f"subject {there.facts.subject}" if there.facts.subject else "another training"
        expected = "no decoder of another subject or run (--bundle=DIR writes elsewhere)"
        raise InputError(folder, f"a decoder of {who}", expected)
