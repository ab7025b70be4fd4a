"""Phase randomisation of runs, which keeps spectra and covariances but no timing of events."""

import functools
import json
from collections.abc import Callable

import numpy as np
from jaxtyping import Complex, Float
from scipy import fft

from emojax.data import mapped
from emojax.data.run import Run
from emojax.data.scratch import Scratch
from emojax.data.store import Store

BLOCK = 1 << 23  # values at a time


def draw(seed: list[int], num_volumes: int) -> Complex[np.ndarray, " f"]:
    """Draws a factor of modulus 1 for each frequency: 1 for the mean, 1 or -1 for the fastest.

    Args:
      seed: whole numbers.
      num_volumes: number of volumes, t; there are t // 2 + 1 frequencies.
    """
    turns = np.random.default_rng(seed).random(num_volumes // 2 + 1)
    turns[0] = 0
    if num_volumes % 2 == 0:  # a sine of this frequency is 0 in every volume
        turns[-1] = np.round(turns[-1]) / 2
    return np.exp(2j * np.pi * turns).astype(np.complex64)


def randomise(
    x: Float[np.ndarray, "t v"], factors: Complex[np.ndarray, " f"]
) -> Float[np.ndarray, "t v"]:
    """Returns columns with randomised phases; values that are not finite do not change.

    With factors e^{i p_f}, the same for all columns, column v becomes

        x_v(t) = sum_f X_v(f) e^{i p_f} e^{2 pi i f t}

    so that each keeps its mean and power spectrum, and all pairs their covariance.

    Args:
      x: [t, v] float32, one run; values that are not finite count as the mean of their column.
      factors: [t // 2 + 1] result of `draw`.

    References:
      Prichard and Theiler, Generating surrogate data for time series with several simultaneously
      measured variables, Physical Review Letters 73, 1994.
    """
    finite = np.isfinite(x)
    whole = bool(finite.all())
    filled = x if whole else np.where(finite, x, 0)
    count = len(x) if whole else np.maximum(finite.sum(0), 1)
    mean = (filled.sum(0, dtype=np.float64) / count).astype(np.float32)
    centred = filled - mean
    if not whole:
        centred *= finite
    spectrum = fft.rfft(centred, axis=0)
    spectrum *= factors[:, None]
    out = fft.irfft(spectrum, n=len(x), axis=0) + mean
    return out if whole else np.where(finite, out, x)


def randomised(run: Run, store: Store | Scratch, seed: list[int]) -> Run:
    """Returns a run with random phases, cleaned again as before.

    Args:
      run: the run; all volumes, labelled or not, are randomised before any cleaning.
      store: store for the values (float32, mapped).
      seed: seed of the phases.
    """
    before = uncleaned(run)

    def fill(out: np.ndarray) -> None:
        factors = draw(seed, len(out))
        step = max(1, BLOCK // int(np.prod(out.shape[:-1])))
        for start in range(0, out.shape[-1], step):
            block = before.read(slice(None), (..., slice(start, start + step)))
            done = randomise(block.reshape(len(block), -1), factors)
            out[..., start : start + step] = done.reshape(block.shape)
        mapped.let_go(before.frames)

    return remade(run, json.dumps(["random phases 1", seed]), store, fill)


def remade(
    run: Run, recipe: str, store: Store | Scratch, fill: Callable[[np.ndarray], None]
) -> Run:
    """Returns a run with other values, cleaned again as before.

    Args:
      run: the run.
      recipe: description of the values, for keys of derived arrays.
      store: store for the values (float32, mapped).
      fill: function that writes the uncleaned values, [t, ...].
    """
    name = ""
    if not isinstance(store, Scratch):  # which needs no key
        name = json.dumps([recipe, run.subject, run.name, run.content, run.frames.shape])
    make = functools.partial(_clean, run, recipe, store.scratch(), fill) if run.steps else fill
    return run.with_values(store.derived(name, run.frames.shape, np.float32, make), recipe)


def _clean(
    run: Run,
    recipe: str,
    scratch: Scratch,
    fill: Callable[[np.ndarray], None],
    out: np.ndarray,
) -> None:
    before = uncleaned(run)
    frames = scratch.derived("", before.frames.shape, np.float32, fill)
    made = before.with_values(frames, recipe)
    for step in run.steps:
        made = step(made, scratch)
    copy(made, out)


def copy(run: Run, out: Float[np.ndarray, "t ..."]) -> None:
    """Copies the values of a run into an array, some volumes at a time."""
    size = max(1, BLOCK // int(np.prod(out.shape[1:])))
    for start in range(0, len(out), size):
        out[start : start + size] = run.read(slice(start, start + size))


def uncleaned(run: Run) -> Run:
    """Returns the run before its cleaning."""
    return run if run.uncleaned is None else run.uncleaned
