"""Experiment A: leave one subject out, with alignment and a 1D CNN (arXiv 2210.17015, section 2).

The steps are mask, ANOVA voxels, Procrustes hyperalignment, z-score and 1D CNN. The arms close the
leaks of the published procedure one by one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import threadpoolctl

from emojax import models, piecewise, resampling, splits
from emojax.alignment import REGIMES
from emojax.data.belonging import check_grids
from emojax.errors import InputError
from emojax.experiments import alignments, programs, sweeps
from emojax.experiments import settings as schema
from emojax.experiments.arms_a import arms
from emojax.experiments.base import Experiment
from emojax.experiments.exports import vectors
from emojax.features import across_subjects, correspondence, every_voxel, masked, parcels
from emojax.features.across_subjects import Settings
from emojax.features.masked import MaskedCohort
from emojax.files import split_list
from emojax.provenance import Ledger
from emojax.records import Arm, FoldData
from emojax.scoring import baselines, linear_path
from emojax.scoring.baselines import BAG, NUISANCE, Job
from emojax.splits import Fold
from emojax.training import cost

SMALL = 1000  # voxels; on matrices of this size, LAPACK is faster with one thread


def check(config: Any) -> None:
    """Rejects settings that contradict each other, and unknown names.

    Raises:
      InputError: names the key.
    """
    schema.require(config, "A")
    low, high = config.mask.lower, config.mask.upper
    if not low < high:
        raise InputError("mask.lower", low, f"less than mask.upper, {high}")
    if "group" in split_list(config.align.regimes) and config.align.alpha < 1:
        expected = "1 if align.regimes has group, which fits one rotation for all"
        raise InputError("align.alpha", config.align.alpha, expected)
    if not config.network and (config.headline != "bag" or "paper" in split_list(config.protocols)):
        expected = "--config.headline=bag --config.protocols=nested, which need none"
        raise InputError("network", "False", expected)
    if config.voxels.own:
        shared = [n for n in split_list(config.align.regimes) if REGIMES[n].needs_template]
        if lost := [name for name in shared if not REGIMES[name].own_map]:
            expected = "--config.align.regimes=independent_runs,none where voxels.own=True"
            raise InputError("align.regimes", f"{lost[0]!r}, one map for all subjects", expected)
    _check_piecewise(config)
    for name in (*split_list(config.baselines), *split_list(config.floor_baselines)):
        if baselines.find(name).needs == "members":
            expected = "other classifiers (--config.headline=bag adds the bag)"
            raise InputError("baselines", repr(name), expected)
    if config.get("permute", "network") != "network":
        baselines.find(config.permute)
    has_bag = config.headline != "network" and split_list(config.protocols) != ("paper",)
    if config.get("permute") == BAG and not has_bag:
        expected = "--config.headline=bag and a protocol but paper, or another classifier"
        raise InputError("permute", repr(BAG), expected)
    alignments.check(config)
    programs.check_train(config)
    network = models.find(config.model.name)
    if network.input != "vector":
        expected = "a network of vectors for Experiment A"
        raise InputError("model.name", repr(config.model.name), expected)
    first, choices = split_list(config.align.regimes)[0], split_list(config.protocols)
    aligned = REGIMES[first].needs_template or choices == ("paper",) or config.voxels.own
    if config.voxels.classical == "all" and aligned:
        expected = (
            "no alignment, and common voxels: --config.align.regimes=none --config.protocols="
            "nested --config.voxels.own=False (or --config.voxels.classical=keep)"
        )
        raise InputError("voxels.classical", "'all'", expected)
    least = network.least(config.model)
    if config.network and config.voxels.keep < least:
        expected = f"{least} or more for the network"
        raise InputError("voxels.keep", config.voxels.keep, expected)
    for candidate in sweeps.check(config):
        check(candidate)


def _check_piecewise(config: Any) -> None:
    """Rejects contradictory settings of regime piecewise, before data is read."""
    if not _is_piecewise(config):
        return
    parcels.parse(config.align.parcels)
    if config.voxels.own:
        expected = "--config.voxels.own=False for regime piecewise: parcels of common voxels"
        raise InputError("voxels.own", "True", expected)
    if not config.align.alpha > 0:
        raise InputError("align.alpha", config.align.alpha, "above 0 for regime piecewise")


def _is_piecewise(config: Any) -> bool:
    """Returns whether anything is aligned parcel by parcel."""
    ways = split_list(config.align.regimes) + split_list(config.alignments)
    return any(way.partition(":")[0] == "piecewise" for way in ways)


def files(config: Any) -> list[str]:
    """Returns the path of the parcel atlas, if there is one."""
    path = parcels.parse(config.align.parcels).path if _is_piecewise(config) else ""
    return [path] if path else []


def view(config: Any, cohort: Any, like: MaskedCohort | None = None) -> MaskedCohort:
    """Reads the masked values of a cohort."""
    return masked.read(cohort, config.mask.to_dict(), config.units, like)


def folds(config: Any, data: MaskedCohort, arm: Arm) -> list[Fold]:
    """Returns folds that leave one subject (or run) out; a bag trains on all others.

    Raises:
      InputError: too few units, or units that do not correspond.
    """
    _check_units(config, data, arm.settings.settings)
    made = splits.leave_one_out(data.units, monitor_test=arm.settings.on_test)
    return [splits.unmonitored(fold) for fold in made] if arm.decoder else made


def notes(config: Any, data: MaskedCohort) -> list[str]:
    """Returns notes for the report on rows that are matched by time."""
    regimes = {arm.settings.settings.regime for arm in arms(config, data.cohort)}
    matched = any(REGIMES[name].needs_template for name in regimes)
    return correspondence.check(data) if matched and config.align.match == "time" else []


def _check_units(config: Any, data: MaskedCohort, settings: Settings) -> None:
    """Rejects units that lack a class, or whose voxels or rows do not correspond."""
    if not settings.own_voxels:
        check_grids(data.cohort, config.data.grid)
    widths = {name: inside.size for name, inside in data.inside.items()}
    if len(set(widths.values())) > 1 and not settings.own_voxels:
        found = f"subjects with {min(widths.values())} to {max(widths.values())} voxels"
        raise InputError("cohort", found, "the same voxels in all, or voxels.own=True")
    apart = REGIMES[settings.regime].by_other_runs
    for name in data.names:
        rows = data.rows(name)
        if missing := set(range(settings.num_classes)) - set(data.labels[rows].tolist()):
            lost = data.cohort.classes[min(missing)]
            raise InputError(f"subject {name}", f"no volume of class {lost}", "every class")
        if apart and np.unique(data.run[rows]).size < 2:
            expected = f"two or more for {settings.regime} (or --config.align.regimes=group,none)"
            raise InputError(f"subject {name}", "one run", expected)
    if REGIMES[settings.regime].needs_template and settings.match == "time":
        correspondence.check(data, least_runs=2 if apart else 1)


def features(config: Any, ledger: Ledger, fold: Fold, arm: Arm, number: int) -> FoldData:
    """Makes the features of a fold and, for a bag, those of its members."""
    config = sweeps.config_of(config, arm)
    key = jax.random.fold_in(jax.random.key(config.seed), number)
    with threadpoolctl.threadpool_limits(1 if config.voxels.keep <= SMALL else None):
        data = _features(config, ledger, fold, arm, key)
        if not (arm.members or BAG in arm.baselines):
            return data
        units, inner = ledger.design("units"), replace(arm, baselines=(), oversampled=False)
        members = splits.each_monitored(fold, units)[: config.members or None]
        own = jax.random.fold_in(key, 3)
        made = [
            _features(config, ledger, member, inner, jax.random.fold_in(own, i))
            for i, member in enumerate(members)
        ]
    return replace(data, members=tuple(made))


def _features(config: Any, ledger: Ledger, fold: Fold, arm: Arm, key: jax.Array) -> FoldData:
    """Makes the features of one fold, and draws balanced rows of its units."""
    settings, leaks, _ = arm.settings
    union = ledger.design("union")
    if settings.chooses_after and union is not None:  # 3: values, aligned values, templates
        size = 3 * 4 * len(fold.train) * int(union.sum())
        cost.require_memory(size, "aligning every voxel (or --config.voxels.after=False)")
    made = across_subjects.fold_features(ledger, fold, settings, leaks)
    n = ledger.cohort_size
    labels = np.full(n, -1, np.int32)
    labels[fold.train] = ledger.labels("network", fold.train)
    labels[fold.monitor] = ledger.labels("epoch choice", fold.monitor)
    if arm.setting:
        ledger.labels("setting choice", fold.monitor)
    scaled = ledger.derive(made.x)
    units = ledger.design("units")
    parts = [fold.train[units[fold.train] == name] for name in dict.fromkeys(units[fold.train])]
    drawn = [
        _drawn(jax.random.fold_in(jax.random.fold_in(key, 1), i), rows, labels, config, settings)
        for i, rows in enumerate([*parts, fold.monitor])
    ]
    notes: dict[str, Any] = {"isc": made.isc, "made": made, "settings": settings}
    if made.voxels is not None and union is not None:
        notes["voxels"] = np.flatnonzero(union)[made.voxels]
    if made.space is not None and isinstance(made.space.model, piecewise.Piecewise):
        notes["parcels"] = made.space.model.counts
    if arm.oversampled:
        notes["oversample"] = lambda labels: np.asarray(
            resampling.balance(
                jax.random.fold_in(key, 2),
                labels,
                config.balance,
                num_classes=settings.num_classes,
            )
        )
    if NUISANCE in arm.baselines:
        notes["nuisance"] = across_subjects.nuisance_features(ledger, fold, made.mask)
    if arm.baselines and config.voxels.classical == "all":
        assert made.mask is not None  # `check` rejects voxels.own here
        notes["every voxel"] = every_voxel.every_voxel(ledger, fold, settings, made.mask)
    read = scaled.reader({"network": fold.train, "epoch choice": fold.monitor})
    read_test = scaled.scored_reader(fold.test)
    if models.find(config.model.name).linear and not arm.decoder:
        path = linear_path.fit(read, labels, fold)
        notes["linear path"], read, read_test = path, path.beside(read), path.beside(read_test)
    keys = [jax.random.fold_in(key, 0)]
    keys += [jax.random.fold_in(jax.random.fold_in(key, 4), j) for j in range(1, arm.instances)]
    return FoldData(
        fold,
        ledger,
        read,
        read_test,
        labels,
        (np.concatenate(drawn[:-1]),) * arm.instances,
        drawn[-1],
        tuple(keys),
        notes,
    )


def units(config: Any, data: MaskedCohort, arm: Arm) -> np.ndarray:
    """Returns each row's subject, or its run if a test subject's other labelled runs are used."""
    settings = arm.settings.settings
    by_class = settings.match == "class" and REGIMES[settings.regime].by_other_runs
    by_run = settings.own_voxels or by_class or config.units == "run"
    return data.run_index if by_run else data.subject


def _drawn(key, rows, labels, config, settings: Settings) -> np.ndarray:
    """Draws the same number of rows per class from a unit; all rows if batches are balanced."""
    if not len(rows) or config.train.draws == "classes":
        return rows
    picked = resampling.balance(key, labels[rows], config.balance, num_classes=settings.num_classes)
    return rows[np.asarray(picked)]


def jobs(config: Any, data: FoldData, names: Sequence[str]) -> Iterator[Job]:
    """Yields the classical classifiers of a fold, and one on nuisance features.

    They see the network's rows, with the network's features or every voxel (`voxels.classical`).
    """
    rows, every = data.train[0], data.notes.get("every voxel")
    y, classes = data.labels[rows], int(data.labels.max()) + 1
    beside = -classes if "linear path" in data.notes else None  # its logits: only for the network
    if BAG in names:
        yield _bag(config, data, classes)
    wanted = {name: baselines.find(name).needs for name in names if name not in (NUISANCE, BAG)}
    if every is None:
        parts = data.read(rows)[:, :beside], data.read_test(data.fold.test)[:, :beside]
        inputs = dict.fromkeys(wanted.values(), parts)
    else:
        size = (len(data.fold.train) + len(data.fold.test)) * every.size * 4
        cost.require_memory(size, "classical classifiers (or --config.voxels.classical=keep)")
        needs = set(wanted.values())
        inputs = every_voxel.inputs(every, data.fold, rows, needs, config.voxels.keep)
    for name, needs in wanted.items():
        x, test_x = inputs[needs]
        yield baselines.make_job(name, config.seed, x, y, test_x, classes)
    if NUISANCE in names:
        train, test = data.notes["nuisance"]
        y = data.labels[data.fold.train]
        yield baselines.make_job(NUISANCE, config.seed, train, y, test, classes)


def _bag(config: Any, data: FoldData, classes: int) -> Job:
    """Returns the bag on all rows of the other units, with the features of each of its members."""
    rows = np.unique(np.concatenate([data.fold.train, data.fold.monitor]))
    groups = np.full(len(rows), -1)
    for i, member in enumerate(data.members):
        groups[np.searchsorted(rows, member.fold.monitor)] = i
    x = np.stack([member.read(rows) for member in data.members], axis=1)
    test_x = np.stack([member.read_test(data.fold.test) for member in data.members], axis=1)
    return baselines.make_job(BAG, config.seed, x, data.labels[rows], test_x, classes, groups)


def label(config: Any) -> str:
    """Returns the network's name in tables."""
    return models.find(config.model.name).label(config.model)


EXPERIMENT = Experiment(
    arms,
    folds,
    features,
    check,
    units,
    view,
    programs.make_program,
    jobs,
    label,
    vectors.pack,
    notes,
    files,
)
