"""Experiment B: single volumes and a 3D ResNet, under several splits (arXiv 2210.17015, section 3).

Volumes are scaled by statistics of the training volumes; no voxels are selected. The arms are the
splits, strict and published, each also on noise; or the factors of a penalty sweep.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from emojax import models, splits
from emojax.data import roi
from emojax.data.belonging import check_grids
from emojax.data.cohort import Cohort
from emojax.errors import InputError
from emojax.experiments import base, programs, settings
from emojax.experiments.base import Experiment
from emojax.experiments.exports import volumes
from emojax.features import kernels, scaling
from emojax.files import split_list
from emojax.provenance import Ledger
from emojax.records import Arm, FoldData
from emojax.scoring import baselines
from emojax.scoring.baselines import Job
from emojax.splits import SPLITS, Fold
from emojax.training import cost


def check(config: Any) -> None:
    """Rejects settings that contradict each other, and unknown names.

    Raises:
      InputError: names the key.
    """
    settings.require(config, "B")
    for kind in split_list(config.splits) or ("",):
        SPLITS[kind]
    for name in (*split_list(config.baselines), *split_list(config.floor_baselines)):
        if baselines.find(name).needs == "nuisance":
            expected = "classifiers of volumes for Experiment B"
            raise InputError("baselines", repr(name), expected)
    if config.get("permute", "network") != "network":
        baselines.find(config.permute)
    programs.check_train(config)
    if isinstance(config.sweep, str):
        expected = "numbers, L2 factors tried on one split (Experiment A sweeps other keys, nested)"
        raise InputError("sweep", repr(config.sweep), expected)
    if models.find(config.model.name).input != "volume":
        expected = "a network of volumes for Experiment B"
        raise InputError("model.name", repr(config.model.name), expected)


def arms(config: Any, cohort: Any) -> list[Arm]:
    """Returns one arm for each split, then the same on noise; or one for each sweep factor.

    Raises:
      InputError: the network cannot take these volumes.
    """
    _check_volumes(config, cohort)
    kinds = split_list(config.splits)
    if config.sweep:
        kind = kinds[0]
        return [_arm(kind, f"L2 {factor:g}", factor=factor) for factor in config.sweep]
    real = [
        _arm(
            kind,
            kind,
            instances=config.instances,
            baselines=base.installed(config.baselines),
        )
        for kind in kinds
    ]
    if config.null or not config.null_floor:
        return real
    floor = base.installed(config.floor_baselines)
    on_noise = {"on_noise": True, "instances": 1}
    draws = range(config.noise.network_draws)
    return real + [
        replace(
            arm,
            name=f"{arm.name} on noise" + (f" {draw + 1}" if draw else ""),
            draw=draw,
            baselines=() if draw else floor,
            **on_noise,
        )
        for draw in draws
        for arm in real
    ]


def _arm(kind: str, name: str, **options) -> Arm:
    """Returns the arm of a split, with the protocol class that the split claims."""
    return Arm(name, SPLITS[kind].protocol, split=kind, leaks=SPLITS[kind].leaks, **options)


def _check_volumes(config: Any, cohort) -> None:
    shape = cohort.shape
    if len(shape) != 3:
        raise InputError("volumes", f"rows of {shape[0]} values", "volumes [X, Y, Z]")
    least = models.find(config.model.name).least(config.model)
    if min(max(n, config.pad) for n in shape) < least:
        expected = (
            f"{least} voxels or more along each axis (--config.pad={least} adds empty slices)"
        )
        raise InputError("volumes", f"{' x '.join(map(str, shape))} voxels", expected)
    present = np.unique(cohort.labels)
    if len(present) < len(cohort.classes) or len(present) < 2:
        found = f"volumes of {', '.join(cohort.classes[k] for k in present)}"
        expected = f"volumes of every class ({', '.join(cohort.classes)}), and at least two classes"
        raise InputError("classes", found, expected)
    check_grids(cohort, config.data.grid)


def view(config: Any, cohort: Cohort, like: Cohort | None = None) -> Cohort:
    """Returns the cohort with voxels outside `data.mask` set to 0."""
    return roi.cut(cohort) if config.data.mask else cohort


def folds(config: Any, cohort: Cohort, arm: Arm) -> list[Fold]:
    """Returns the folds of a split; only the first for a sweep."""
    key = jax.random.key(config.seed)
    groups = [cohort.groups.get(subject, "") for subject in cohort.subject]
    strata = np.array(groups) if cohort.groups else None
    made = splits.make(key, cohort, arm.split, config.fractions, config.folds, strata=strata)
    return made[:1] if config.sweep else made


def features(config: Any, ledger: Ledger, fold: Fold, arm: Arm, number: int) -> FoldData:
    """Fits the scaler to the training volumes, and draws the training rows of every instance."""
    pad = _padder(config.pad)
    train = np.unique(fold.train)
    scale = scaling.fit_scale(
        lambda rows: pad(ledger.values("scaler", rows)), fold.train, config.scale
    )
    ledger.keep("scaler", (scale.mean, scale.sd))
    read = ledger.reader({"network": train, "epoch choice": fold.monitor})
    read_test = ledger.scored_reader(fold.test)
    labels = np.full(ledger.cohort_size, -1, np.int32)
    labels[train] = ledger.labels("network", train)
    labels[fold.monitor] = ledger.labels("epoch choice", fold.monitor)
    key = jax.random.key(config.seed)
    rows = [
        splits.resample(
            jax.random.fold_in(jax.random.fold_in(key, number), j),
            fold.train,
            labels,
            balance=config.oversample,
            bootstrap=arm.instances > 1,
        )
        for j in range(arm.instances)
    ]
    return FoldData(
        fold,
        ledger,
        lambda rows: scaling.apply_scale(scale, pad(read(rows))),
        lambda rows: scaling.apply_scale(scale, pad(read_test(rows))),
        labels,
        tuple(rows),
        fold.monitor,
        tuple(jax.random.fold_in(key, j) for j in range(arm.instances)),
        {
            "rounding": scale.rounding,
            "scale": scale,
            "raw": lambda rows: pad(read(rows)),
            "raw test": lambda rows: pad(read_test(rows)),
        },
        scale.rounding,
    )


def _padder(least: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function that pads short axes with NaN, which scaling maps to 0."""

    def pad(volumes):
        widths = [max(least - n, 0) for n in volumes.shape[1:]]
        if not any(widths):
            return volumes
        pads = [(0, 0), *((w // 2, w - w // 2) for w in widths)]
        return np.pad(volumes, pads, constant_values=np.nan)

    return pad


def jobs(config: Any, data: FoldData, names: Sequence[str]) -> Iterator[Job]:
    """Yields the classical classifiers of one fold.

    Classifiers that depend only on distances and angles get coordinates in the span of the training
    volumes; the others get the voxels themselves.
    """
    if not names:
        return
    train, test = data.fold.train, data.fold.test
    wanted = {name: baselines.find(name).needs for name in names}
    first = data.read(train[:1])
    size = (len(train) + len(test)) * first.size * 4
    cost.require_memory(size, "classical classifiers (or baselines='')")
    rows = data.train[0] if len(data.train) == 1 else train
    again = np.searchsorted(train, rows)
    y, classes = data.labels[rows], int(data.labels.max()) + 1
    inputs: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    if "raw" in wanted.values():
        x = np.nan_to_num(kernels.rows_of(data.notes["raw"], train), copy=False)
        x_test = np.nan_to_num(kernels.rows_of(data.notes["raw test"], test), copy=False)
        found = kernels.span(x, x_test, None)
        root = np.float32(math.sqrt(x.shape[1]))
        inputs["raw"] = found.train / root, found.test / root
        del x, x_test
    if set(wanted.values()) - {"raw"}:
        x, x_test = kernels.rows_of(data.read, train), kernels.rows_of(data.read_test, test)
        inputs["voxels"] = x, x_test
        if "features" in wanted.values():
            found = kernels.span(x, x_test, config.kernel_norm)
            inputs["features"] = found.train, found.test
    for name, needs in wanted.items():
        own, own_test = inputs[needs]
        yield baselines.make_job(name, config.seed, own[again], y, own_test, classes)


def label(config: Any) -> str:
    """Returns the network's name in tables."""
    return models.find(config.model.name).label(config.model)


EXPERIMENT = Experiment(
    arms,
    folds,
    features,
    check,
    view=view,
    program=programs.make_program,
    baselines=jobs,
    label=label,
    pack=volumes.pack,
)
