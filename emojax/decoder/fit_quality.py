"""Quality of a calibration run's fit to the template: a cross-validated correlation and its null.

A map is fitted to a part of the run and applied to the rest, whose patterns are then correlated
with those of the template. The map is a kernel ridge regression, so that one decomposition per part
of the run serves every shift of the template in time. Both are filtered alike: drift is removed and
the design's rhythm is damped, so that a shift by one period does not fit as well as none. The
filters treat the run as circular, and so favour no shift. There are two nulls, shifts in time and
random phases, and the larger p counts: shifts keep the rhythm of a design, and there can be any
number of random phases.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

FARTHEST = 12  # volumes, largest lag that is tried
NEAR = 1  # volumes, largest lag that counts as none
NEAREST_NULL = 3  # volumes, least shift of the null
SHORTEST = 24  # volumes, shortest run with a null
LARGEST_P = 0.01  # noise passes less often than with .05; all correct runs that were tried had .005
FOLDS, GAP = 8, 4  # parts of the run; volumes on either side that the map is not fitted to
MOST_P = 0.05  # for a short run
RIDGE = 1.0  # times the mean eigenvalue
SLOWEST = 64  # volumes per cycle; slower fluctuations are drift
WHITENING = 0.3  # autoregression coefficient
RHYTHM = 7  # neighbouring frequencies on either side, whose median power limits a rhythm's
SHUFFLES = 999  # permutations in `by_class`
SCRAMBLES = 199  # random phases of the template


class Fit(NamedTuple):
    """Quality of the fit of a run."""

    lag: int  # volumes by which the run is late
    correlation: float  # best correlation at a lag of at most `NEAR`
    p: float  # of the correlation under the null
    null: tuple[float, float]  # mean and sd
    curve: dict[int, float]  # lag -> correlation; {} for by="class"
    others: dict[int, float]  # run of the template -> correlation with it
    least_p: float = 0.0  # smallest p that the null allows

    @property
    def largest_p(self) -> float:
        """The largest p that is accepted; short runs cannot reach a small one."""
        return min(MOST_P, max(LARGEST_P, 2 * self.least_p))

    @property
    def facts(self) -> tuple[tuple[str, float], ...]:
        """The value of `Facts.fit`."""
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
      members: members of a bag, or a single one.
      number: number of the template's run.
    """
    curves: dict[int, list[np.ndarray]] = {run: [] for run in np.unique(members[0].run).tolist()}
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
    """Removes trend and drift, and whitens; `damp` reduces rhythms to the power around them."""
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
    """Returns the template's patterns at their volumes of the run, 0 at volumes without one."""
    placed = np.zeros((t, template.shape[1]))
    placed[frame] = template - template.mean(0, dtype=np.float64)
    return _filtered(placed, damp=True)


def _kernel(placed: Float[np.ndarray, "t m"]) -> Float[np.ndarray, "t t"]:
    kernel = placed @ placed.T
    return kernel / max(np.trace(kernel), 1e-30)


def _scrambled(
    smoother: Float[np.ndarray, "t t"],
    norm: Float[np.ndarray, "t t"],
    placed: Float[np.ndarray, "t m"],
) -> Float[np.ndarray, "draws 3"]:
    """Returns correlations at near lags with templates of random phases, shared by all voxels.

    A short run allows few shifts, and neighbouring ones are similar; random phases have neither
    limitation.
    """
    rng, t = np.random.default_rng(0), len(placed)
    left, size, _ = np.linalg.svd(placed, full_matrices=False)
    spectrum = np.fft.rfft(left * size, axis=0)  # same kernel, fewer columns
    near = [(np.arange(t) - lag) % t for lag in range(-NEAR, NEAR + 1)]
    out = np.empty((SCRAMBLES, len(near)))
    for draw in out:
        phases = np.exp(2j * np.pi * rng.random((len(spectrum), 1)))
        kernel = _kernel(np.fft.irfft(spectrum * phases, n=t, axis=0))
        draw[:] = [_correlation(smoother, norm, kernel[np.ix_(rows, rows)]) for rows in near]
    return out


def _smoother(x: Float[np.ndarray, "t m"]) -> Float[np.ndarray, "t t"]:
    """Returns the matrix from the template's patterns to those predicted from the run.

    Each part of the run is predicted from volumes more than `GAP` away from it.
    """
    t, kernel = len(x), x @ x.T
    out = np.zeros((t, t))
    for part in np.array_split(np.arange(t), min(FOLDS, t // 3)):
        beside = np.arange(part[0] - GAP, part[-1] + GAP + 1) % t  # the run is circular
        rest = np.setdiff1d(np.arange(t), beside)
        inner = kernel[np.ix_(rest, rest)]
        inner = inner + RIDGE * max(np.trace(inner) / len(rest), 1e-30) * np.eye(len(rest))
        out[np.ix_(part, rest)] = np.linalg.solve(inner, kernel[np.ix_(rest, part)]).T
    return out


def _correlations(
    smoother: Float[np.ndarray, "t t"],
    norm: Float[np.ndarray, "t t"],
    kernel: Float[np.ndarray, "t t"],
) -> Float[np.ndarray, " t"]:
    """Returns the correlation of predicted and true patterns for every circular lag."""
    t = len(kernel)
    out = np.empty(t)
    for lag in range(t):
        rows = (np.arange(t) - lag) % t
        out[lag] = _correlation(smoother, norm, kernel[np.ix_(rows, rows)])
    return out


def _correlation(smoother: np.ndarray, norm: np.ndarray, kernel: np.ndarray) -> float:
    return float((smoother * kernel).sum() / np.sqrt(max((norm * kernel).sum(), 1e-30)))


def by_class(
    members: Sequence[tuple[Float[np.ndarray, "t m"], Float[np.ndarray, "k m"]]],
    labels: Int[np.ndarray, " t"],
) -> Fit:
    """Measures how well the class means of a run fit those of the template.

    A map fitted to one half of each class is tested on the other half. The null permutes stretches
    of equal labels, since single volumes are not independent.

    Args:
      members: the run's values and the template's class means, for each member.
      labels: [t] class of each volume, -1 for none.
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
    """Returns the weights of the class means of the first and second half of each class."""
    out = np.zeros((2, classes, len(labels)))
    for k in range(classes):
        for half, rows in enumerate(np.array_split(np.flatnonzero(labels == k), 2)):
            out[half, k, rows] = 1 / max(len(rows), 1)
    return out - out.mean(1, keepdims=True)


def _agreement(products: Float[np.ndarray, "k k"], kernel: Float[np.ndarray, "k k"]) -> float:
    """Returns the correlation of predicted and true class means, averaged over both directions."""
    found = []
    for predicts in (products, products.T):
        length = np.sqrt(max(np.sum(predicts @ kernel * predicts) * np.trace(kernel), 1e-30))
        found.append(np.sum(predicts * kernel) / length)
    return float(np.mean(found))
