"""Features of one fold of Experiment A: voxels, alignment, scaler; and what each step has seen.

Everything is fitted to the fold's training subjects. The monitored subject (whose scores choose the
epoch) and the test subject enter the common space in the same way, by the alignment regime. With
`Leaks` a step is instead fitted to all subjects, as in the authors' published procedure.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from emojax import alignment, anova, hyperalignment
from emojax.errors import InputError
from emojax.features import common_space
from emojax.provenance import Provenance, check_scoring

MATCHES = ("time", "class")


class Subject(NamedTuple):
    """The labelled rows of one subject, in order of run and time."""

    x: Float[np.ndarray, "n v"]
    y: Int[np.ndarray, " n"]
    run: Int[np.ndarray, " n"]  # from 0; equal numbers correspond between subjects
    rows: Int[np.ndarray, " n"]  # of the cohort


class Settings(NamedTuple):
    """How features are made."""

    keep: int  # m, voxels
    num_classes: int
    regime: str  # of `alignment.REGIMES`
    match: str = "time"  # rows that correspond between subjects: "time", or "class" means per run
    own_voxels: bool = False  # each subject its own voxels: where columns do not correspond
    centre: bool = True  # each subject's voxels, for F-scores and where nothing is aligned
    level2_iters: int = 1
    prior: tuple[str, ...] = ()  # steps that saw every value before: cleaning of whole runs


class Leaks(NamedTuple):
    """Steps that are fitted to all subjects, the test subject among them."""

    voxels: bool = False
    alignment: bool = False


STRICT = Leaks()


class Fold(NamedTuple):
    """Who does what."""

    train: tuple[str, ...]
    monitor: str  # chooses epoch and rate; the test subject itself in the published procedure
    test: str


class FoldFeatures(NamedTuple):
    """Scaled features; training rows subject by subject."""

    train_x: tuple[Float[np.ndarray, "n m"], ...]
    train_y: tuple[Int[np.ndarray, " n"], ...]
    monitor_x: Float[np.ndarray, "n m"]
    monitor_y: Int[np.ndarray, " n"]
    test_x: Float[np.ndarray, "n m"]
    test_y: Int[np.ndarray, " n"]
    voxels: Int[np.ndarray, " m"] | None  # columns; None where each subject has its own
    seen: tuple[tuple[np.ndarray, Provenance], ...]  # per scored set: cohort rows, what steps saw
    isc: tuple[float, float]  # correlation between training subjects before, after alignment
    scaler: tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]  # mean and sd
    space: tuple[hyperalignment.Hyperalignment, np.ndarray] | None  # and (run, class) of its rows


def leave_one_out(subjects: Sequence[str]) -> list[Fold]:
    """One fold per test subject; the next subject in the order is monitored.

    Raises:
      InputError: fewer than four subjects, of whom two would train.
    """
    if len(subjects) < 4:
        found = f"{len(subjects)} ({', '.join(subjects)})"
        raise InputError("subjects", found, "4 or more: one to test, one to monitor, two to train")
    folds = []
    for i, test in enumerate(subjects):
        monitor = subjects[(i + 1) % len(subjects)]
        folds.append(Fold(tuple(s for s in subjects if s not in (test, monitor)), monitor, test))
    return folds


def fold_features(
    subjects: Mapping[str, Subject],
    fold: Fold,
    settings: Settings,
    leaks: Leaks = STRICT,
    allowed: Bool[np.ndarray, " v"] | None = None,
) -> FoldFeatures:
    """All that a fold's classifier sees.

    Args:
      subjects: name -> rows.
      fold: who trains, is monitored, is tested.
      settings: see `Settings`.
      leaks: steps that see everybody.
      allowed: [v] voxels inside the fold's brain mask; None for all.

    Raises:
      InputError: fewer usable voxels than `keep`, a subject lacks a class, or rows do not match.
    """
    check_rows(subjects, settings)
    everybody = tuple(dict.fromkeys((*fold.train, fold.monitor, fold.test)))
    choose = _chooser(subjects, everybody if leaks.voxels else fold.train, settings, allowed)
    template = everybody if leaks.alignment else fold.train
    chosen = {name: subjects[name].x[:, choose(name, None)] for name in template}
    rows, keys = common_space.matched({name: subjects[name] for name in template}, chosen, settings)
    if settings.regime == "none" and not leaks.alignment:
        centre = centres(subjects, settings)
        aligned = {name: x - x.mean(0) if centre else x for name, x in chosen.items()}
        held_out = common_space.unaligned(subjects, choose, centre)
        model = None
    else:
        model = hyperalignment.fit(jnp.stack(rows), level2_iters=settings.level2_iters)
        if settings.regime == "group" and not leaks.alignment:
            everyones = alignment.group(model, jnp.stack(rows))
            maps = dict.fromkeys(template, everyones)
        else:
            everyones = None
            maps = {name: model.mappings[i] for i, name in enumerate(template)}
        aligned = {name: common_space.moved(maps[name], chosen[name]) for name in template}
        held_out = common_space.held_out(subjects, choose, model, keys, everyones, settings)
    if leaks.alignment:
        held_out = aligned.__getitem__
    train = [np.asarray(aligned[name]) for name in fold.train]
    pooled = np.concatenate(train)
    mean, sd = pooled.mean(0), pooled.std(0)
    scale = lambda x: ((x - mean) / np.where(sd > 0, sd, 1)).astype(np.float32)  # noqa: E731
    return FoldFeatures(
        tuple(scale(x) for x in train),
        tuple(subjects[name].y for name in fold.train),
        scale(held_out(fold.monitor)),
        subjects[fold.monitor].y,
        scale(held_out(fold.test)),
        subjects[fold.test].y,
        None if settings.own_voxels else choose(fold.test, None),
        tuple(_seen(subjects, fold, settings, leaks)),
        (_isc(chosen, fold.train, settings), _isc(aligned, fold.train, settings)),
        (mean, np.where(sd > 0, sd, 1)),
        model and (model, keys),
    )


def check_rows(subjects: Mapping[str, Subject], settings: Settings) -> None:
    """Every subject must have every class, and where rows match in time, the same runs.

    Raises:
      InputError: otherwise.
    """
    first, reference = next(iter(subjects.items()))
    for name, subject in subjects.items():
        missing = set(range(settings.num_classes)) - set(subject.y.tolist())
        if missing:
            raise InputError(f"subject {name}", f"no volume of class {min(missing)}", "every class")
        if settings.regime == "independent_runs" and np.unique(subject.run).size < 2:
            raise InputError(f"subject {name}", "one run", "two or more for independent_runs")
        if settings.regime == "none" or settings.match == "class":
            continue
        if not np.array_equal(subject.run, reference.run):
            found, expected = (np.bincount(s.run).tolist() for s in (subject, reference))
            raise InputError(
                f"subject {name}",
                f"runs of {found} labelled volumes",
                f"{expected} as subject {first}, so that rows match in time (or align.match=class)",
            )


def _chooser(
    subjects, fitted: Sequence[str], settings: Settings, allowed
) -> Callable[[str, int | None], np.ndarray]:
    """choose(subject, run that must not be seen) -> columns."""

    def select(states):
        f = np.array(anova.finalize(states).f)
        if allowed is not None:
            f[~allowed] = np.nan
        usable = int(np.isfinite(f).sum())
        if usable < settings.keep:
            raise InputError("voxels.keep", settings.keep, f"at most {usable}, the usable voxels")
        return np.asarray(anova.select_top(f, settings.keep))

    def state(x, y):
        x = x - x.mean(0) if settings.centre else x
        empty = anova.init(x.shape[1], settings.num_classes, x.dtype)
        return anova.update(empty, x, y)

    if settings.own_voxels:

        def own(name, unseen_run):
            subject = subjects[name]
            rows = slice(None) if unseen_run is None else subject.run != unseen_run
            return select(state(subject.x[rows], subject.y[rows]))

        return own
    merged = None
    for name in fitted:
        new = state(subjects[name].x, subjects[name].y)
        merged = new if merged is None else anova.merge(merged, new)
    columns = select(merged)
    return lambda name, unseen_run: columns


def _isc(x, names: Sequence[str], settings: Settings) -> float:
    """Mean correlation of a voxel's rows with the mean of other subjects; NaN if unmatched."""
    if settings.match != "time" or len({len(x[name]) for name in names}) > 1:
        return float("nan")
    rows = np.stack([x[name] for name in names]).astype(np.float64)
    others = (rows.sum(0) - rows) / (len(rows) - 1)
    rows, others = (a - a.mean(1, keepdims=True) for a in (rows, others))
    length = np.sqrt((rows**2).sum(1) * (others**2).sum(1))
    return float(((rows * others).sum(1) / np.where(length > 0, length, 1)).mean())


def centres(subjects: Mapping[str, Subject], settings: Settings) -> bool:
    """Whether voxels that are not aligned are centred: by each subject's other runs, as alignment
    does, so that what rotation adds can be seen; not where subjects have a single run."""
    several = all(np.unique(subject.run).size > 1 for subject in subjects.values())
    return settings.centre and settings.regime == "none" and several


def score_check(
    features: FoldFeatures, subject: np.ndarray, settings: Settings, protocol: str
) -> dict[str, int]:
    """Refuses to score what was seen (`provenance.check_scoring`); step -> volumes seen wrongly.

    Raises:
      LeakageError: a step of a strict protocol saw a scored volume or label.
    """
    allow = dict.fromkeys(settings.prior, "transductive")
    if settings.regime == "transductive":
        allow["alignment"] = "transductive"
    elif settings.match == "class":
        allow["alignment"] = "calibration"
    if settings.own_voxels:
        allow["voxels"] = "calibration"
    report: dict[str, int] = {}
    for rows, seen in features.seen:
        found = check_scoring(seen, rows, protocol=protocol, subject=subject, allow=allow)
        for step, count in found.items():
            report[step] = min(report.get(step, 0) + count, len(features.test_y))
    return report


def _seen(subjects, fold: Fold, settings: Settings, leaks: Leaks):
    """(scored rows, provenance) of the test subject, run by run where its alignment differs."""
    n = 1 + max(subject.rows.max() for subject in subjects.values())
    rows_of = lambda names: np.concatenate([subjects[name].rows for name in names])  # noqa: E731
    train, test = rows_of(fold.train), subjects[fold.test]
    everybody = rows_of(dict.fromkeys((*fold.train, fold.monitor, fold.test)))
    by_class = settings.match == "class"
    common = Provenance.of("scaler", n, values=train)
    common |= Provenance.of("network", n, values=train, labels=train)
    monitored = rows_of([fold.monitor])
    common |= Provenance.of("epoch choice", n, values=monitored, labels=monitored)
    centre = centres(subjects, settings)
    per_run = settings.own_voxels or settings.regime == "independent_runs" or centre
    for run in np.unique(test.run) if per_run and not leaks.alignment else [None]:
        scored = test.rows if run is None else test.rows[test.run == run]
        others = test.rows if run is None else test.rows[test.run != run]
        own = np.concatenate([train, others])
        seen = common
        fitted = everybody if leaks.voxels else own if settings.own_voxels else train
        seen |= Provenance.of("voxels", n, values=fitted, labels=fitted)
        if leaks.alignment:
            fitted = everybody
        elif settings.regime in ("transductive", "independent_runs"):
            fitted = own
        else:
            fitted = train if settings.regime == "group" else []
        seen |= Provenance.of("alignment", n, values=fitted, labels=fitted if by_class else None)
        if centre:
            seen |= Provenance.of("centring", n, values=own)
        for step in settings.prior:
            seen |= Provenance.of(step, n, values=everybody)
        yield scored, seen
