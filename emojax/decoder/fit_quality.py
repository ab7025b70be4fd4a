"""How well a calibration run fits the template: a cross-validated correlation, and a null.

A map is fitted to a part of the run and applied to the rest, whose patterns are then correlated
with those of the template. The map is a ridge regression in its kernel form, so that one
decomposition per part of the run serves every shift of the template in time. Both are filtered
alike: drift is removed and rhythms of the design are damped, so that the shift by one period is not
as good as none. The filters act on the run as a circle, and so favour no shift. There are two
nulls, shifts in time and random phases, and the larger p counts: shifts keep the rhythm of a
design, and phases are as many as are wanted.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

FARTHEST = 12  # volumes that the scan looks ahead and back
NEAR = 1  # lags that count as none
NEAREST_NULL = 3  # volumes: shifts of the null are that far or farther
SHORTEST = 24  # volumes: fewer leave no null
LARGEST_P = 0.01  # noise passes less often than with .05; all right runs that were tried have .005
FOLDS, GAP = 8, 4  # parts of the run; volumes beside each that the map is not fitted to
MOST_P = 0.05  # of a short run
RIDGE = 1.0  # times the mean eigenvalue
SLOWEST = 64  # volumes of a cycle; slower ones are drift
WHITENING = 0.3  # of an autoregression
RHYTHM = 7  # frequencies on either side, whose median power a rhythm keeps
SHUFFLES = 999  # of by_class
SCRAMBLES = 199  # of the template's phases


class Fit(NamedTuple):
    """Quality of the fit of a run."""

    lag: int  # volumes that the run comes late
    correlation: float  # without lag, or with one volume of it
    p: float  # against chance
    null: tuple[float, float]  # mean and sd
    curve: dict[int, float]  # lag -> correlation; {} where time plays no part
    others: dict[int, float]  # run of the template -> correlation with it
    least_p: float = 0.0  # that the null can give

    @property
    def largest_p(self) -> float:
        """Returns the largest p that is accepted; short runs hardly reach a small one."""
        return min(MOST_P, max(LARGEST_P, 2 * self.least_p))

    @property
    def facts(self) -> tuple[tuple[str, float], ...]:
        """Returns what `Facts.fit` keeps."""
        main = {"lag": self.lag, "correlation": self.correlation, "p": self.p}
        main |= {"null mean": self.null[0], "null sd": self.null[1]}
        main |= {f"lag {lag:+d}": value for lag, value in self.curve.items()}
        return tuple((name, float(value)) for name, value in main.items())


class Rows(NamedTuple):
    """A template, and the run of one member's voxels."""

    x: Float[np.ndarray, "t m"]
    template: Float[np.ndarray, "n m"]
    run: Int[np.ndarray, " n"]
    frame: Int[np.ndarray, " n"]


def by_time(members: Sequence[Rows], number: int) -> Fit:
    """Measures how well a run follows the template in time.

    Args:
      members: those of a bag, or the one.
      number: the run of the template.
    """
    curves = {run: [] for run in np.unique(members[0].run).tolist()}
    scrambled = []
    for own in members:
        smoother = _smoother(_filtered(own.x))
        norm = smoother.T @ smoother
        for run, found in curves.items():
            rows = (own.run == run) & (own.frame < len(own.x))
            if rows.sum() > 1:
                placed = _placed(own.template[rows], own.frame[rows], len(own.x))
                found.append(_correlations(smoother, norm, _kernel(placed)))
                if run == number:
                    scrambled.append(_scrambled(smoother, norm, placed))
    means = {run: np.mean(found, axis=0) for run, found in curves.items() if found}
    curve = means[number]
    best = np.max([np.roll(curve, by) for by in range(-NEAR, NEAR + 1)], axis=0)
    shifts = best[NEAREST_NULL : 1 - NEAREST_NULL]
    phases = np.mean(scrambled, axis=0).max(1)
    farthest = min(FARTHEST, len(curve) // 4)
    lags = {lag: float(curve[lag]) for lag in range(-farthest, farthest + 1)}
    others = {run: _near(found) for run, found in means.items()}
    lag = max(lags, key=lambda one: (lags[one], -abs(one)))
    spread = float(shifts.mean()), float(shifts.std())
    p, least = max(_p(null, best[0]) for null in (shifts, phases)), 1 / (1 + len(shifts))
    return Fit(lag, float(best[0]), p, spread, lags, others, least)


def _near(curve: Float[np.ndarray, " t"]) -> float:
    return float(max(curve[lag] for lag in range(-NEAR, NEAR + 1)))


def _p(null: Float[np.ndarray, " n"], value: float) -> float:
    return float((1 + (null >= value).sum()) / (1 + len(null)))


def _filtered(x: Float[np.ndarray, "t m"], damp: bool = False) -> Float[np.ndarray, "t m"]:
    """Removes trend and drift, and whitens; with `damp`, rhythms keep the power around them."""
    t = len(x)
    line = np.linalg.qr(np.stack([np.ones(t), np.arange(t)], 1))[0]
    found = np.fft.rfft(x - line @ (line.T @ x), axis=0)
    frequency = np.fft.rfftfreq(t)
    gain = np.where(frequency < 1 / SLOWEST, 0, 1.0)
    gain[0] = 0
    if damp:
        power = (np.abs(found * gain[:, None]) ** 2).sum(1)
        around = [np.median(power[max(1, i - RHYTHM) : i + RHYTHM + 1]) for i in range(len(power))]
        gain *= np.sqrt(np.minimum(1, around / np.maximum(power, 1e-30)))
    gain *= np.abs(1 - WHITENING * np.exp(-2j * np.pi * frequency))
    return np.fft.irfft(found * gain[:, None], n=t, axis=0)


def _placed(
    template: Float[np.ndarray, "r m"], frame: Int[np.ndarray, " r"], t: int
) -> Float[np.ndarray, "t m"]:
    """Returns the template's patterns at their places in the run, 0 where it has none."""
    placed = np.zeros((t, template.shape[1]))
    placed[frame] = template - template.mean(0, dtype=np.float64)
    return _filtered(placed, damp=True)


def _kernel(placed: Float[np.ndarray, "t m"]) -> Float[np.ndarray, "t t"]:
    kernel = placed @ placed.T
    return kernel / max(np.trace(kernel), 1e-30)


def _scrambled(smoother, norm, placed: Float[np.ndarray, "t m"]) -> Float[np.ndarray, "draws 3"]:
    """Returns correlations with templates of random phases, common to all voxels, at near lags.

    Shifts of a short run are few, and those beside each other alike; draws of phases are neither.
    """
    rng, t = np.random.default_rng(0), len(placed)
    left, size, _ = np.linalg.svd(placed, full_matrices=False)
    spectrum = np.fft.rfft(left * size, axis=0)  # the same kernel in fewer columns
    near = [(np.arange(t) - lag) % t for lag in range(-NEAR, NEAR + 1)]
    out = np.empty((SCRAMBLES, len(near)))
    for draw in out:
        phases = np.exp(2j * np.pi * rng.random((len(spectrum), 1)))
        kernel = _kernel(np.fft.irfft(spectrum * phases, n=t, axis=0))
        draw[:] = [_correlation(smoother, norm, kernel[np.ix_(rows, rows)]) for rows in near]
    return out


def _smoother(x: Float[np.ndarray, "t m"]) -> Float[np.ndarray, "t t"]:
    """Returns the matrix that takes patterns of the template to those that the run predicts.

    Each part of the run is predicted from volumes outside of it and more than `GAP` away.
    """
    t, kernel = len(x), x @ x.T
    out = np.zeros((t, t))
    for part in np.array_split(np.arange(t), min(FOLDS, t // 3)):
        beside = np.arange(part[0] - GAP, part[-1] + GAP + 1) % t  # the circle closes
        rest = np.setdiff1d(np.arange(t), beside)
        inner = kernel[np.ix_(rest, rest)]
        inner = inner + RIDGE * max(np.trace(inner) / len(rest), 1e-30) * np.eye(len(rest))
        out[np.ix_(part, rest)] = np.linalg.solve(inner, kernel[np.ix_(rest, part)]).T
    return out


def _correlations(smoother, norm, kernel) -> Float[np.ndarray, " t"]:
    """Returns the correlation of predicted and true patterns for every lag, around the circle."""
    t = len(kernel)
    out = np.empty(t)
    for lag in range(t):
        rows = (np.arange(t) - lag) % t
        out[lag] = _correlation(smoother, norm, kernel[np.ix_(rows, rows)])
    return out


def _correlation(smoother, norm, kernel) -> float:
    return float((smoother * kernel).sum() / np.sqrt(max((norm * kernel).sum(), 1e-30)))


def by_class(
    members: Sequence[tuple[Float[np.ndarray, "t m"], Float[np.ndarray, "k m"]]],
    labels: Int[np.ndarray, " t"],
) -> Fit:
    """Measures how well the class means of a run fit those of the template.

    A map from one half of each class is tried on the other half. In the null, stretches of one
    label change places: single volumes are no draws of their own.

    Args:
      members: the run's values and the template's class means, of each member.
      labels: class of each volume, -1 for none.
    """
    kernels = []
    for _, means in members:
        centred = means - means.mean(0, dtype=np.float64)
        kernels.append(centred @ centred.T)
    kept = np.flatnonzero(labels >= 0)
    values = [(x - x.mean(0, dtype=np.float64))[kept] for x, _ in members]
    inner = [x @ x.T for x in values]

    def correlation(order: np.ndarray) -> float:
        halves = _halves(order, len(kernels[0]))
        found = [
            _agreement(halves[0] @ own @ halves[1].T, kernel)
            for own, kernel in zip(inner, kernels, strict=True)
        ]
        return float(np.mean(found))

    found, rng = correlation(labels[kept]), np.random.default_rng(0)
    stretches = np.split(labels[kept], np.flatnonzero(np.diff(labels[kept])) + 1)
    null = np.array(
        [
            correlation(np.concatenate([stretches[i] for i in rng.permutation(len(stretches))]))
            for _ in range(SHUFFLES)
        ]
    )
    return Fit(0, found, _p(null, found), (float(null.mean()), float(null.std())), {}, {})


def _halves(labels: Int[np.ndarray, " t"], classes: int) -> Float[np.ndarray, "2 k t"]:
    """Returns weights of class means, of the first and of the second half of each class."""
    out = np.zeros((2, classes, len(labels)))
    for k in range(classes):
        for half, rows in enumerate(np.array_split(np.flatnonzero(labels == k), 2)):
            out[half, k, rows] = 1 / max(len(rows), 1)
    return out - out.mean(1, keepdims=True)


def _agreement(products: Float[np.ndarray, "k k"], kernel: Float[np.ndarray, "k k"]) -> float:
    """Returns the correlation of predicted class means with the template's, both ways."""
    found = []
    for predicts in (products, products.T):
        length = np.sqrt(max(np.sum(predicts @ kernel * predicts) * np.trace(kernel), 1e-30))
        found.append(np.sum(predicts * kernel) / length)
    return float(np.mean(found))
