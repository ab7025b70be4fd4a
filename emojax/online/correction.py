"""Causal correction of gain, drift and baseline, which uses no later volume.

    correction = parse("gain+ema:30")
    state = init(correction, volume.shape)
    state, corrected = step(correction, state, volume)

A correction is a text, its steps joined by "+". They are applied in this order:

    gain        scales the volume so that its level is 1000, or that of a reference
    drift:1     subtracts from each voxel a polynomial of degree 1 in time, fitted to the volumes so
                far
    motion      subtracts a fit of the six realignment parameters; with `drift` in one regression
    first:20    subtracts from each voxel its mean over the first 20 volumes (until then, over the
                volumes so far)
    cumulative  subtracts from each voxel its mean so far
    ema:30      subtracts from each voxel its exponential mean, in which the weight of a volume
                halves every 30 volumes
    zscore:20   subtracts from each voxel its mean and divides by its sd, both over the first 20
                volumes
    zscore      the same over the volumes so far

Means and regressions include the volume itself: the first one becomes 0, and a regression leaves 0
until there are more volumes than regressors. Steps other than `gain` leave values around 0, or
around a target image. Time counts volumes, both in training and at the scanner, whose TR is
checked. Do not pass a volume to `step` that has not passed the guards: NaN would stay in the means.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emojax.data.causal_settings import Correction, Regression, Running, parse
from emojax.online import regression
from emojax.online.regression import MOTION, Factors

__all__ = [
    "LEVEL",
    "MOTION",
    "Correction",
    "State",
    "gain",
    "init",
    "level_of",
    "parse",
    "replay",
    "step",
]

LEVEL = 1000.0  # level of scaled volumes
LEAST_SD = 1e-3  # smallest sd, as a fraction of the scanned value; noise of scanners is larger


class Moments(NamedTuple):
    """The memory of a `Running`: moments of the differences from the first volume."""

    first: Float[Array, "*volume"]
    mean: Float[Array, "*volume"]
    variance: Float[Array, "*volume"] | None


class State(NamedTuple):
    """The memory of a correction, carried from one volume to the next, and its constants."""

    seen: Int[Array, ""]  # volumes so far
    memory: tuple[Any, ...]  # one `Factors` or `Moments` for each step
    level: Float[Array, ""]  # target of `gain`
    mask: Bool[Array, "*volume"] | None  # voxels over which the level is measured
    target: Float[Array, "*volume"] | None  # image that replaces the baseline; None for 0


def init(
    correction: Correction,
    shape: tuple[int, ...],
    *,
    level: float | Float[Array, ""] = LEVEL,
    mask: Bool[Array, "*volume"] | None = None,
    target: Float[Array, "*volume"] | None = None,
) -> State:
    """Returns the state before the first volume of a run.

    Args:
      correction: result of `parse`.
      shape: shape of a volume: [v], [X, Y, Z] or any other.
      level: level that `gain` scales to, such as `level_of` a reference image.
      mask: voxels over which `gain` measures the level; None for the bright ones of each volume.
      target: image that replaces the baseline, such as the mean of a calibration run.

    Raises:
      ValueError: mask or target has another shape, or there is a target for a correction without a
        baseline or with a division by the sd.
    """
    for name, image in (("mask", mask), ("target", target)):
        if image is not None and jnp.shape(image) != tuple(shape):
            raise ValueError(f"want a {name} of shape {tuple(shape)}; got {jnp.shape(image)}")
    divides = any(isinstance(own, Running) and own.divide for own in correction.steps)
    if target is not None and (divides or not correction.steps):
        raise ValueError(f"want a baseline that a target can replace; got {correction.text!r}")
    return State(
        jnp.zeros((), jnp.int32),
        tuple(_empty(own, shape) for own in correction.steps),
        jnp.asarray(level, jnp.float32),
        None if mask is None else jnp.asarray(mask, bool),
        None if target is None else jnp.asarray(target, jnp.float32),
    )


def _empty(own: Regression | Running, shape: tuple[int, ...]) -> Factors | Moments:
    if isinstance(own, Regression):
        return regression.init(own, shape)
    zeros = jnp.zeros(shape, jnp.float32)
    return Moments(zeros, zeros, zeros if own.divide else None)


@functools.partial(jax.jit, static_argnames="correction")
def step(
    correction: Correction,
    state: State,
    x: Float[Array, "*volume"],
    motion: Float[Array, " 6"] | None = None,
) -> tuple[State, Float[Array, "*volume"]]:
    """Corrects the next volume.

    Args:
      correction: result of `parse`; static.
      state: state from `init` or the step before.
      x: the volume, in the units of the scanner.
      motion: [6] its realignment parameters, if the correction needs them.

    Returns:
      The new state, and the corrected volume (float32).

    Raises:
      ValueError: the shape differs from that of the state, or motion is needed and missing.
    """
    if correction.needs_motion and (motion is None or motion.shape != (MOTION,)):
        raise ValueError(f"want {MOTION} motion parameters; got {motion}")
    for own in state.memory:
        if jnp.shape(x) != own.first.shape:
            raise ValueError(f"want a volume of shape {own.first.shape}; got {jnp.shape(x)}")
    x = jnp.asarray(x, jnp.float32)
    if correction.gain:
        x = x * gain(x, state.level, state.mask)
    scan, count, memory = x, state.seen + 1, []
    for own, before in zip(correction.steps, state.memory, strict=True):
        if isinstance(own, Regression):
            after, x = regression.update(own, before, count, x, motion)
        else:
            after, x = _update(own, before, count, x, LEAST_SD * jnp.abs(scan))
        memory.append(after)
    if state.target is not None:
        x = x + state.target
    return state._replace(seen=count, memory=tuple(memory)), x


@functools.partial(jax.jit, static_argnames="correction")
def replay(
    correction: Correction,
    state: State,
    x: Float[Array, "t *volume"],
    motion: Float[Array, "t 6"] | None = None,
) -> tuple[State, Float[Array, "t *volume"]]:
    """Corrects the volumes of a run in order, with `step` for each, in one program."""
    return jax.lax.scan(lambda carry, one: step(correction, carry, *one), state, (x, motion))


@jax.jit
def gain(
    x: Float[Array, "*volume"],
    level: float | Float[Array, ""] = LEVEL,
    mask: Bool[Array, "*volume"] | None = None,
) -> Float[Array, ""]:
    """Returns the factor that scales an image to a level; 1 if its own level is not above 0."""
    found = level_of(x, mask)
    return jnp.where(found > 0, level / jnp.where(found > 0, found, 1), 1)


@jax.jit
def level_of(
    x: Float[Array, "*volume"], mask: Bool[Array, "*volume"] | None = None
) -> Float[Array, ""]:
    """Returns the mean of an image over a mask, without values that are not finite.

    Args:
      x: the image.
      mask: the mask; None for voxels above an eighth of the image's mean, as in SPM's global.
    """
    counts = jnp.isfinite(x)
    if mask is not None:
        return _mean(x, counts & mask)
    return _mean(x, counts & (x > _mean(x, counts) / 8))


def _mean(x: Array, where: Array) -> Array:
    """Returns a mean in two passes, of which the second corrects the rounding of the first."""
    count = where.sum()
    rough = jnp.where(where, x, 0).sum() / count
    return rough + jnp.where(where, x - rough, 0).sum() / count


def _update(
    own: Running,
    before: Moments,
    count: Int[Array, ""],
    x: Float[Array, "*volume"],
    least: Float[Array, "*volume"],
) -> tuple[Moments, Float[Array, "*volume"]]:
    """Updates mean and variance by the weight of the newest volume (West, 1979).

    An sd below `least` is raised to it, as few volumes or nearly constant voxels give poor ones.
    """
    number = count.astype(jnp.float32)
    if own.kind == "ema":  # weights 2^(-age / size), normalised over the volumes so far
        rate = -jnp.log(2.0) / own.size
        weight = jnp.expm1(rate) / jnp.expm1(rate * number)
    else:
        weight = 1 / number
    if own.kind == "first":
        weight = jnp.where(count <= own.size, weight, 0)
    first = jnp.where(count == 1, x, before.first)
    new = x - first - before.mean
    mean = before.mean + weight * new
    rest = x - first - mean
    if not own.divide:
        return Moments(first, mean, None), rest
    assert before.variance is not None  # by `_empty`
    variance = (1 - weight) * (before.variance + weight * new**2)
    sd = jnp.maximum(jnp.sqrt(variance), least)
    return Moments(first, mean, variance), jnp.where(sd > 0, rest / jnp.where(sd > 0, sd, 1), 0)
